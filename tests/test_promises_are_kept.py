"""docs/PROMISES.md names, for each promise of the log, tests that are there and when they run."""

import ast
import re
from functools import cache
from itertools import chain

import pytest

from support.documents import ROOT, document, rows_under

PROMISES = [f"P{number}" for number in range(1, 13)]
SAID = {row[0]: row[1:] for row in rows_under(document("PROMISES.md"), "| promise | sentence |")}
TESTED = {row[0]: row[1:] for row in rows_under(document("PROMISES.md"), "| promise | short |")}


@cache
def those_in(path: str) -> dict[str, bool]:
    """Give the tests of a file by name, and whether `make check` leaves them out."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {
        node.name: any(
            "pytest.mark.long" in ast.unparse(one) and "param" not in ast.unparse(one)
            for one in node.decorator_list
        )
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def named(cell: str) -> list[tuple[str, str]]:
    """Read the tests that a cell names."""
    return re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", cell)


def test_there_are_twelve_promises_each_with_all_that_is_to_be_said() -> None:
    assert list(SAID) == list(TESTED) == PROMISES
    assert all(all(cells) for cells in chain(SAID.values(), TESTED.values()))


@pytest.mark.parametrize("promise", PROMISES)
def test_each_promise_has_a_test_in_check_and_one_in_long(promise: str) -> None:
    short, long, _ = TESTED[promise]
    found = [[those_in(path).get(name) for path, name in named(cell)] for cell in (short, long)]

    assert set(found[0]) == {False}, "not there, or left out by make check"
    assert set(found[1]) == {True}, "not there, or not marked long"
    assert [cell.count("::") for cell in (short, long)] == [len(cells) for cells in found]


def test_every_test_of_a_promise_is_named_on_the_page_or_stands_beside_one_that_is() -> None:
    text = document("PROMISES.md")
    files = sorted((ROOT / "tests" / "promises").glob("test_*.py"))

    assert files
    assert [path.name for path in files if f"tests/promises/{path.name}" not in text] == []
