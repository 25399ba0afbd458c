"""Alterations of single rows, generated: every table, its columns, and every kind of change.

A row is picked by its place in an order that has a meaning: envelopes, receipts and notices by
their place in the log. Columns that nobody outside the relay is ever given are altered too: the
bench has to show that this is without effect.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Integer, LargeBinary, Table, Text

from comity_server import tables
from support.operator_run import Scene

PLUS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Rows:
    """Which rows of a table are altered.

    Attributes:
        order: Column by which they are counted.
        places: Counted from the first, or from the last when negative.
        leave: Columns that are left alone: SQLite lets no other value in, or it is always empty.
    """

    order: str
    places: Sequence[int]
    leave: frozenset[str] = frozenset()


ROWS: Final[Mapping[Table, Rows]] = MappingProxyType(
    {
        tables.head: Rows("id", (0,), frozenset({"id"})),
        tables.statements: Rows("ordinal", (-1,)),
        tables.epoch_boxes: Rows("ordinal", (-1,)),
        tables.previous_epochs: Rows("ordinal", (0,)),
        tables.envelopes: Rows("leaf_index", (0,), frozenset({"ref"})),
        tables.mailbox_items: Rows("leaf_index", (0,)),
        tables.receipts: Rows("leaf_index", (0,)),
        tables.receipt_readers: Rows("leaf_index", (0,)),
        tables.notices: Rows("leaf_index", (0,)),
        tables.notice_readers: Rows("leaf_index", (0,)),
        tables.holds: Rows("envelope_id", (0,)),
        tables.mailboxes: Rows("desk", (0,)),
        tables.leaves: Rows("leaf_index", (-1,)),
        tables.tile_hashes: Rows("level", (0,), frozenset({"level"})),
        tables.checkpoints: Rows("at", (-1,)),
        tables.leases: Rows("name", (0,)),
    }
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One value in the database.

    The value that it is given, or swapped with, is that of the next row with another one.
    """

    table: Table
    column: str
    place: int

    @property
    def is_unique(self) -> bool:
        """Whether no two rows may have one value."""
        keys = self.table.primary_key.columns
        column = self.table.c[self.column]
        return bool(column.unique) or column.name in keys

    def keys(self, scene: Scene) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give the primary keys of the row and of the other one, and this column's values."""
        names = [column.name for column in self.table.primary_key]
        listed = ", ".join(dict.fromkeys([*names, self.column]))
        order = ", ".join(dict.fromkeys([ROWS[self.table].order, *names]))
        rows = scene.rows(f"SELECT {listed} FROM {self.table.name} ORDER BY {order}")  # noqa: S608
        columns = list(dict.fromkeys([*names, self.column]))
        found = [dict(zip(columns, row, strict=True)) for row in rows]
        row = found[self.place]
        start = self.place % len(found)
        turned = [*found[start:], *found[:start]]
        others = [one for one in turned if one[self.column] not in (row[self.column], None)]
        return row, others[0] if others else row

    def write(self, scene: Scene, key: Mapping[str, Any], value: object) -> None:
        """Write the value of this column in the row with this key."""
        names = [column.name for column in self.table.primary_key]
        where = " AND ".join(f"{name} IS ?" for name in names)
        query = f"UPDATE {self.table.name} SET {self.column} = ? WHERE {where}"  # noqa: S608
        scene.execute(query, value, *(key[name] for name in names))


Change = Callable[[Any], Any]


def _flip(at: float) -> Change:
    def flip(value: bytes) -> bytes:
        place = min(int(at * len(value)), len(value) - 1)
        return value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]

    return flip


BYTES: Final[Mapping[str, Change]] = MappingProxyType(
    {
        "bit in the middle flipped": _flip(0.5),
        "last byte cut off": lambda value: value[:-1],
        "emptied": lambda _: b"",
    }
)
NUMBERS: Final[Mapping[str, Change]] = MappingProxyType(
    {
        "made larger": lambda value: value + PLUS,
        "made one smaller": lambda value: value - 1,
    }
)
_SINGLE: Final = frozenset({"head", "tile_hashes", "previous_epochs"})
"""Tables with one row."""

_ALIKE: Final = frozenset(
    {
        ("holds", "desk"),
        ("leases", "holder"),
        ("notices", "accepted_at"),
        ("notices", "readers"),
        ("receipt_readers", "desk"),
        ("receipts", "readers"),
    }
)
"""Columns with one value in all rows."""

_WORDS: Final = MappingProxyType({"kind": "removal", "name": "somebody", "holder": "somebody"})


def changes_of(table: Table, column: str) -> Mapping[str, Change]:
    """Give the changes that a column's values can undergo by themselves."""
    type_ = table.c[column].type
    if isinstance(type_, LargeBinary):
        return BYTES
    if isinstance(type_, Text):
        return {"made another word": lambda _: _WORDS[column]}
    if isinstance(type_, Integer):
        return NUMBERS
    raise AssertionError(column)


def change(cell: Cell, how: Change) -> Callable[[Scene], None]:
    """Change a value."""

    def alter(scene: Scene) -> None:
        key, _ = cell.keys(scene)
        cell.write(scene, key, how(key[cell.column]))

    return alter


def empty(cell: Cell) -> Callable[[Scene], None]:
    """Set a value to NULL."""

    def alter(scene: Scene) -> None:
        key, _ = cell.keys(scene)
        cell.write(scene, key, None)

    return alter


def replace(cell: Cell) -> Callable[[Scene], None]:
    """Give a row the value that another one has."""

    def alter(scene: Scene) -> None:
        key, other = cell.keys(scene)
        assert key[cell.column] != other[cell.column], "both rows have the same value"
        cell.write(scene, key, other[cell.column])

    return alter


def swap(cell: Cell) -> Callable[[Scene], None]:
    """Let two rows exchange their values."""

    def alter(scene: Scene) -> None:
        key, other = cell.keys(scene)
        mine, its = key[cell.column], other[cell.column]
        assert mine != its, "both rows have the same value"
        free = -PLUS if isinstance(mine, int) else b"free"
        moved = dict(key) | ({cell.column: free} if cell.column in _keys(cell.table) else {})
        cell.write(scene, key, free)
        cell.write(scene, other, mine)
        cell.write(scene, moved, its)

    return alter


def delete(table: Table, place: int) -> Callable[[Scene], None]:
    """Take a row away."""
    cell = Cell(table, _keys(table)[0], place)

    def alter(scene: Scene) -> None:
        key, _ = cell.keys(scene)
        where = " AND ".join(f"{name} IS ?" for name in _keys(table))
        query = f"DELETE FROM {table.name} WHERE {where}"  # noqa: S608
        scene.execute(query, *(key[name] for name in _keys(table)))

    return alter


def insert(table: Table, place: int) -> Callable[[Scene], None]:
    """Add a copy of a row under another key, without a place in the log when it must be unique."""

    def alter(scene: Scene) -> None:
        names = [column.name for column in table.columns]
        order = ROWS[table].order
        rows = scene.rows(f"SELECT {', '.join(names)} FROM {table.name} ORDER BY {order}")  # noqa: S608
        row = dict(zip(names, rows[place], strict=True))
        for column in table.columns:
            if column.primary_key or column.unique:
                value = row[column.name]
                is_last = column.name == "leaf_index"
                if isinstance(value, bytes):
                    row[column.name] = _flip(0.5)(value)
                elif isinstance(value, str):
                    row[column.name] = f"{value}2"
                elif is_last:
                    (row[column.name],) = scene.rows("SELECT size FROM head")[0]
                else:
                    row[column.name] = value + PLUS
        marks = ", ".join("?" * len(names))
        scene.execute(f"INSERT INTO {table.name} VALUES ({marks})", *row.values())  # noqa: S608

    return alter


def _keys(table: Table) -> list[str]:
    return [column.name for column in table.primary_key]


def label(place: int) -> str:
    """Say which row."""
    return {0: "first", -1: "last"}.get(place, f"number {place}")


Generated = tuple[str, str, str, Callable[[Scene], None]]
"""Name, family, what is altered, and how."""


def generate() -> Iterator[Generated]:
    """Give every alteration of a single row."""
    for table, rows in ROWS.items():
        for place in rows.places:
            for column in table.columns:
                if column.name not in rows.leave:
                    yield from _of_column(table, column.name, place)
            row = f"{label(place)} row of {table.name}"
            yield f"{row} deleted", "delete", row, delete(table, place)
            if table is not tables.head and table is not tables.tile_hashes:
                yield f"{row} copied", "insert", row, insert(table, place)


def _of_column(table: Table, column: str, place: int) -> Iterator[Generated]:
    what = f"{table.name}.{column}, {label(place)} row"
    cell = Cell(table, column, place)
    names: list[tuple[str, str, Callable[[Scene], None]]] = [
        (name, "change", change(cell, how))
        for name, how in changes_of(table, column).items()
        if not (cell.is_unique and "one" in name.split())
    ]
    if table.c[column].nullable:
        names.append(("taken away", "delete", empty(cell)))
    if (table.name, column) not in _ALIKE and table.name not in _SINGLE:
        if not cell.is_unique:
            names.append(("that of another row", "swap", replace(cell)))
        names.append(("swapped with another row", "swap", swap(cell)))
    for name, family, alter in names:
        yield f"{what}: {name}", family, what, alter
