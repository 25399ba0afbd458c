"""Reads the documents of the repository, so that tests can hold them against the code."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

_LINE: Final = re.compile(r"([a-z][a-z ]*[a-z])  +([0-9a-f]+)")


def document(name: str) -> str:
    """Give the text of a document of ``docs``."""
    return (ROOT / "docs" / name).read_text("utf-8")


def rows_under(text: str, header: str) -> Iterator[list[str]]:
    """Give the cells of every table whose header line begins with ``header``.

    Raises:
        AssertionError: There is no such table; a test must not pass because of that.
    """
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(header)]
    assert starts, f"no table begins with {header}"
    for start in starts:
        for line in lines[start + 2 :]:
            if not line.startswith("|"):
                break
            yield [cell.strip() for cell in line.strip("|").split("|")]


def hex_values(text: str) -> dict[str, bytes]:
    """Read lines of a name and hexadecimal digits, which indented lines continue."""
    values: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if found := _LINE.fullmatch(line):
            name = found[1]
            values[name] = found[2]
        elif name and line.startswith("  "):
            values[name] += line.strip()
    return {name: bytes.fromhex(digits) for name, digits in values.items()}


def code_block(text: str, heading: str) -> str:
    """Give the first code block under a heading."""
    return text.partition(heading)[2].split("```")[1].partition("\n")[2]
