"""The README is true: its transcript runs, its commands and files are there.

Numbers that differ from run to run (ids, leaf indexes, times) may differ; an id that the README
shows twice is the same id in both places.
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from support.documents import ROOT
from support.transcript import parse

READY_SECONDS_MAX: Final = 60
BIN: Final = Path(sys.executable).parent
ENVIRONMENT: Final = {
    "PATH": f"{BIN}:{os.environ['PATH']}",
    # Key stores of a test may be cheap to guess.
    "COMITY_KEY_STORE_MIB": "64",
}

_VARYING: Final = re.compile(
    r"(?P<id>\b(?=[0-9a-f]*[0-9])[0-9a-f]{8,64}\b)"
    r"|(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC)"
    r"|(?P<number>(?<=leaf )\d+|(?<= of )\d+|\d+(?= witnesses))"
)


def readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


def transcript() -> str:
    return readme().split("```console\n")[1].split("```")[0]


@contextmanager
def deployment(folder: Path) -> Iterator[None]:
    """Run ``comity setup try`` until the block ends."""
    process = subprocess.Popen(
        [BIN / "comity", "setup", "try", "--json"],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        seen, _, _ = select.select([process.stdout], [], [], READY_SECONDS_MAX)
        assert seen, "setup was not ready in time"
        assert process.stdout.readline(), "setup ended"
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=READY_SECONDS_MAX)


def pattern_of(expected: str, ids: dict[str, str]) -> tuple[str, list[str]]:
    """Make a pattern of what the README shows, with the ids that it shows for the first time."""
    parts: list[str] = []
    new: list[str] = []
    at = 0
    for found in _VARYING.finditer(expected):
        parts.append(re.escape(expected[at : found.start()]))
        at = found.end()
        text = found[0]
        if not found["id"]:
            parts.append(
                {"time": r"[-0-9: ]+UTC", "number": r"\d+"}.get(found.lastgroup or "", ".+")
            )
        elif text in ids:
            parts.append(re.escape(ids[text]))
        else:
            new.append(text)
            parts.append(f"([0-9a-f]{{{len(text)}}})")
    pattern = "".join([*parts, re.escape(expected[at:])])
    # A line of three dots stands for lines that the README leaves out.
    return pattern.replace(re.escape("...\n"), r"(?:[^\n]+\n)+?"), new


def learn(ids: dict[str, str], shown: list[str], found: re.Match[str]) -> None:
    """Keep what the README's ids are in this run, in full and by their first digits."""
    for text, real in zip(shown, found.groups(), strict=True):
        ids |= {text: real, text[:8]: real[:8]}


@pytest.mark.timeout(180)
def test_the_transcript_runs_and_prints_what_the_readme_shows(tmp_path: Path) -> None:
    ids: dict[str, str] = {}
    exported: dict[str, str] = {}
    with deployment(tmp_path):
        for step in parse(transcript()):
            if step.command.startswith("export "):
                name, _, value = step.command.removeprefix("export ").partition("=")
                exported[name] = value
                continue
            command = _VARYING.sub(lambda found: ids.get(found[0], found[0]), step.command)
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                cwd=tmp_path,
                env={**os.environ, **ENVIRONMENT, **exported},
                capture_output=True,
                text=True,
                timeout=READY_SECONDS_MAX,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            pattern, shown = pattern_of("\n".join(step.expected), ids)
            found = re.fullmatch(pattern, done.stdout.rstrip("\n"))
            assert found, f"{command}\n{done.stdout}\nexpected:\n" + "\n".join(step.expected)
            learn(ids, shown, found)


def test_the_commands_of_make_are_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))

    assert set(re.findall(r"`make ([a-z]+)`", readme())) <= targets


def test_the_commands_of_comity_are_there() -> None:
    help_text = subprocess.run(
        [BIN / "comity", "--help"], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    listed = set(re.findall(r"^  ([a-z]+)  ", help_text, re.MULTILINE))

    assert set(re.findall(r"`comity ([a-z]+)", readme())) <= listed


def test_the_folders_are_there() -> None:
    folders = re.findall(r"^\| `([a-z]+)/`", readme(), re.MULTILINE)

    assert folders
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


def test_the_command_that_finds_a_rule_finds_law_check_and_test() -> None:
    (command,) = re.findall(r"^    (grep -rnF .+)$", readme(), re.MULTILINE)
    found = subprocess.run(
        ["/bin/sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    ).stdout

    for folder in ("docs/PROTOCOL.md", "protocol/", "tests/"):
        assert f"\n{folder}" in f"\n{found}"


@pytest.mark.timeout(180)
def test_the_demonstration_shows_what_the_readme_claims() -> None:
    done = subprocess.run(
        [BIN / "comity", "demo", "--headless", "--json"],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["ok"] is True
    assert {item["case"] for item in shown["exchanges"]} == {6, 9}
    assert shown["relay_learned"]["found"] == []
    assert shown["tampering"]["caught_by"]
    assert shown["secretariat"]["bodies_opened"] == 0
