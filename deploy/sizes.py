"""Prints the ten longest files and the ten longest functions: a subject for a talk, not a limit."""

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_FOLDERS = ("protocol", "client", "server", "tests", "bench", "deploy")
_ROWS = 10


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the length in lines, docstring included, and the place of each function in a file."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last = node.end_lineno or node.lineno
            yield last - node.lineno + 1, f"{path}:{node.lineno} {node.name}"


def show(title: str, rows: Iterable[tuple[int, str]]) -> None:
    """Print the longest rows, longest first."""
    sys.stdout.write(f"{title}\n")
    for length, place in sorted(rows, reverse=True)[:_ROWS]:
        sys.stdout.write(f"{length:6} {place}\n")


def main() -> None:
    """Measure the Python files below the current folder."""
    paths = [path for folder in _FOLDERS for path in Path(folder).rglob("*.py")]
    show("files, lines", ((len(path.read_bytes().splitlines()), str(path)) for path in paths))
    show("functions, lines", (row for path in paths for row in functions(path)))


if __name__ == "__main__":
    main()
