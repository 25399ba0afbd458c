"""The measuring program runs, and its answer has the shape that others read."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MEMBERS = {
    "row", "name", "unit", "samples", "floor", "floor_name", "goal", "value", "ratio", "met",
}  # fmt: skip


def test_bench_measures_sizes_and_writes_them_as_table_and_json(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"

    ended = subprocess.run(
        [sys.executable, ROOT / "bench" / "run.py", "--quick", "--only", "W", "--json", target],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'bench'}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    document = json.loads(target.read_text("utf-8"))
    figures = document["figures"]
    assert {"load_average_before", "load_average_after", "repetitions", "seconds"} < set(document)
    assert all(figure.keys() == MEMBERS and figure["row"] == "W" for figure in figures)
    assert all(figure["samples"] == [figure["value"]] for figure in figures)
    assert any(figure["met"] is not None for figure in figures)
    assert all(figure["name"] in ended.stdout for figure in figures)
