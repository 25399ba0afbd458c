"""Every transcript of this folder, against a real relay and real witnesses on this machine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import transcript

HERE = Path(__file__).parent
TRANSCRIPTS = sorted(HERE.glob("*.txt"))
NEEDS_DEPLOYMENT = "# needs: a deployment\n"
FLOOR_MIB = "64"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A deployment as ``comity setup`` makes it, which runs until the last transcript is done."""
    folder = tmp_path_factory.mktemp("cli") / "try"
    process = subprocess.Popen(
        [sys.executable, "-m", "comity_client", "setup", str(folder), "--json", "--witnesses", "2"],
        env={**os.environ, "COMITY_KEY_STORE_MIB": FLOOR_MIB},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "comity setup did not start"
        assert json.loads(line)["kind"] == "setup"
        yield folder
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()


@pytest.mark.timeout(240)  # A dozen processes each: under ten seconds alone, more in company.
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=[path.stem for path in TRANSCRIPTS])
def test_a_transcript_is_what_happens(
    path: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    text = path.read_text("utf-8")
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
        "COMITY_KEY_STORE_MIB": FLOOR_MIB,
    }
    if text.startswith(NEEDS_DEPLOYMENT):
        folder: Path = request.getfixturevalue("deployment")
        for name in ("XA", "XB", "deployment", "passphrase"):
            (tmp_path / name).symlink_to(folder / name)
    else:
        (tmp_path / "passphrase").write_text("correct horse battery staple\n")
        (tmp_path / "passphrase").chmod(0o600)
    environment["COMITY_PASSPHRASE_FILE"] = str(tmp_path / "passphrase")

    transcript.run(text, tmp_path, environment)
