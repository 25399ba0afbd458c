"""Transcripts: text files of commands and what they print, run for real.

    # A line like this is prose.
    $ comity lead XB "text" --profile XA
    lead to XB
    envelope  {first}
    ...
    [6]

``...`` inside a line stands for any text, alone for any number of lines; ``{name}`` stands for a
word and keeps it, so that a later command may say ``{name}``. ``[6]`` is the exit code; without
such a line it is 0. Both output streams are shown together, without the progress that slow machines
show. A transcript that puts a process into the background writes its id into the file ``pids``; all
are ended afterwards.
"""

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

COMMAND_SECONDS_MAX: Final = 45

_EXIT: Final = re.compile(r"\[(\d+)\]")
_PROGRESS: Final = re.compile(r"^[a-z ]+ \.\.\.\n", re.MULTILINE)
_WORD: Final = re.compile(r"\\\{([a-z]+)\\\}")


@dataclass(slots=True)
class Step:
    """One command and what it must print and give."""

    line: int
    command: str
    expected: list[str] = field(default_factory=list)
    exit_code: int = 0


def parse(text: str) -> list[Step]:
    """Read a transcript."""
    steps: list[Step] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("$ "):
            steps.append(Step(number, line[2:]))
        elif line.startswith("> "):
            steps[-1].command += "\n" + line[2:]
        elif line.startswith("#") or not (line or steps):
            continue
        elif found := _EXIT.fullmatch(line):
            steps[-1].exit_code = int(found[1])
        elif steps:
            steps[-1].expected.append(line)
    for step in steps:
        while step.expected and not step.expected[-1]:
            step.expected.pop()
    return steps


def run(text: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Run a transcript in a folder and compare.

    Raises:
        AssertionError: A command printed something else or gave another exit code.
    """
    words: dict[str, str] = {}
    try:
        for step in parse(text):
            _run_step(step, folder, environment, words)
    finally:
        _end_background(folder / "pids")


def _run_step(
    step: Step, folder: Path, environment: Mapping[str, str], words: dict[str, str]
) -> None:
    command = step.command
    for name, word in words.items():
        command = command.replace(f"{{{name}}}", word)
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
    printed = _PROGRESS.sub("", done.stdout).rstrip("\n")
    where = f"line {step.line}: $ {command}"
    assert done.returncode == step.exit_code, f"{where}\n{printed}\n[{done.returncode}]"
    found = re.fullmatch(_pattern(step.expected, words), printed)
    assert found, f"{where}\nprinted:\n{printed}\n\nexpected:\n" + "\n".join(step.expected)
    words.update(found.groupdict())


def _pattern(expected: list[str], words: Mapping[str, str]) -> str:
    """Make the regular expression that the output must match."""
    parts: list[str] = []
    for line in expected:
        if line == "...":
            parts.append(r"(?:[^\n]*(?:\n|$))*?")
            continue
        text = re.escape(line).replace(re.escape("..."), r"[^\n]*?")
        for name in _WORD.findall(text):
            known = re.escape(words[name]) if name in words else rf"(?P<{name}>\S+)"
            text = text.replace(rf"\{{{name}\}}", known, 1)
        parts.append(text + r"(?:\n|$)")
    return "".join(parts)


def _end_background(pids: Path) -> None:
    for pid in pids.read_text().split() if pids.exists() else ():
        try:
            os.kill(int(pid), signal.SIGTERM)
        except ProcessLookupError:
            continue
