"""docs/WHAT_THE_RELAY_KEEPS.md names everything that the relay keeps, and nothing that it does not.

A new column, log field, metric or header has to be explained there before this passes.
"""

import ast
import importlib
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Final

import comity_server
from comity_server import observe
from comity_server.metrics import Metrics
from comity_server.signer import SignerState
from comity_server.tables import metadata
from comity_server.tombstones import Tombstones
from support.documents import document, rows_under

PROGRAM: Final = Path(comity_server.__path__[0])


@cache
def page() -> str:
    return document("WHAT_THE_RELAY_KEEPS.md")


@cache
def modules() -> dict[str, ast.Module]:
    """The relay's program, parsed, by module name."""
    return {
        ".".join(path.relative_to(PROGRAM.parent).with_suffix("").parts): ast.parse(
            path.read_text("utf-8")
        )
        for path in PROGRAM.rglob("*.py")
    }


def columns_on_the_page() -> set[tuple[str, str]]:
    return {(table, column) for table, column, _, why in rows_under(page(), "| table |") if why}


def test_the_page_names_every_column_of_the_database_and_of_the_files_beside_it(
    tmp_path: Path,
) -> None:
    columns = {
        (table.name, column.name) for table in metadata.tables.values() for column in table.columns
    }
    SignerState(tmp_path / "signer.sqlite", "relay.example/log").close()
    Tombstones(tmp_path / "tombstones.sqlite").close()
    for name in ("signer", "tombstones"):
        with closing(sqlite3.connect(tmp_path / f"{name}.sqlite")) as file:
            columns |= set(
                file.execute(
                    "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c"
                    " WHERE m.type = 'table'"
                )
            )

    assert sorted(columns_on_the_page() ^ columns) == []


def test_the_page_names_the_fields_of_every_log_line() -> None:
    listed = {
        name: set(fields.split(", ")) - {""} for name, fields, _ in rows_under(page(), "| event |")
    }
    logged: dict[str, set[str]] = {}
    for name, fields in log_calls():
        logged.setdefault(name, set()).update(fields)

    assert listed == logged


def test_a_log_line_adds_nothing_but_what_the_page_says() -> None:
    error = ValueError("person")
    info = (ValueError, error, None)
    record = logging.LogRecord("comity.relay", logging.ERROR, "", 1, "x", None, info)

    line = observe.JSONFormatter().format(record)

    assert set(ast.literal_eval(line)) == {"at", "level", "event", "error", "where"}
    assert "person" not in line


def test_the_page_names_every_metric_with_its_labels() -> None:
    listed = {
        name: set(labels.split(", ")) - {""} for name, labels, _ in rows_under(page(), "| metric |")
    }

    assert listed == dict(metrics())


def test_the_page_names_every_header() -> None:
    listed = {header for header, _, _ in rows_under(page(), "| header |")}

    assert sorted(listed ^ set(headers())) == []


def test_the_web_server_keeps_no_access_log() -> None:
    runners = [
        call
        for tree in modules().values()
        for call in calls_in(tree)
        if isinstance(call.func, ast.Attribute) and call.func.attr in {"AppRunner", "run_app"}
    ]

    assert runners
    for call in runners:
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert given.get("access_log") == "None"


def calls_in(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def log_calls() -> Iterator[tuple[str, set[str]]]:
    """Every call of ``observe.event`` and ``observe.alarm``: the event and its fields."""
    for tree in modules().values():
        for call in calls_in(tree):
            if ast.unparse(call.func) in {"observe.event", "observe.alarm"}:
                name = call.args[0]
                assert isinstance(name, ast.Constant), "an event has a fixed name"
                words = {word.arg for word in call.keywords}
                assert None not in words, "the fields of an event are written out"
                yield str(name.value), {word for word in words if word}


def metrics() -> Iterator[tuple[str, set[str]]]:
    """Names as Prometheus shows them, with their labels."""
    shown = {family.name: family.type for family in Metrics()._registry.collect()}
    for call in calls_in(modules()["comity_server.metrics"]):
        if isinstance(call.func, ast.Name) and call.func.id in {"Counter", "Gauge", "Histogram"}:
            name = ast.literal_eval(call.args[0])
            labels = set(ast.literal_eval(call.args[2])) if len(call.args) > 2 else set()
            yield name + ("_total" if shown.pop(name) == "counter" else ""), labels
    assert shown == {}


def headers() -> Iterator[str]:
    """Names of headers that the program reads or writes."""
    for name, tree in modules().items():
        for node in ast.walk(tree):
            match node:
                case ast.Subscript(value=value, slice=key) if is_headers(value):
                    yield header_of(name, key)
                case ast.Call(func=ast.Attribute(value=value), args=[key, *_]) if is_headers(value):
                    yield header_of(name, key)
                case ast.keyword(arg="headers", value=ast.Dict(keys=keys)):
                    yield from (header_of(name, key) for key in keys if key is not None)
                case ast.Attribute(attr="content_type"):
                    yield "Content-Type"
                case _:
                    pass


def is_headers(node: ast.expr) -> bool:
    return ast.unparse(node).rpartition(".")[2] == "headers"


def header_of(module: str, node: ast.expr) -> str:
    """Give a header's name, written as text or as a constant of the module."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    return str(getattr(importlib.import_module(module), ast.unparse(node)))
