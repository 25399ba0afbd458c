"""Derives again what the relay's tables repeat, and names the row that is not what follows.

Stored once and believed: statements, envelopes, receipts, notices and the entries of the log.
Derived from them: the head, the tile hashes, the items and counters of the mailboxes, who is given
which receipt and notice, and the directory. A relay whose derived rows are wrong shows wrong proofs
or hands over too little; whose stored rows are wrong cannot prove its own log.

``check`` only reads. ``rebuild`` writes the derived tables anew, and refuses when what they derive
from does not lead to the log, because then there is nothing to derive them from.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, create_engine, delete, func, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from comity_protocol.core import Core, core_hash
from comity_protocol.directory import Directory
from comity_protocol.encoding import parse
from comity_protocol.errors import ComityError
from comity_protocol.leaves import (
    commit_counters,
    envelope_leaf,
    notice_hash,
    notice_leaf,
    receipt_hash,
    receipt_leaf,
    statement_hash,
    statement_leaf,
)
from comity_protocol.merkle import Frontier, leaf_hash
from comity_protocol.statements import SignedStatement, parse_signatures
from comity_server import tables
from comity_server.store import ERASED_KIND, DamagedRowError
from comity_server.store_values import (
    counters_for,
    unpack_ids,
    unpack_notice_readers,
    unpack_recipients,
)

PAGE_LEAVES: Final = 1_000
"""Entries that are read at once, with the objects that they stand for."""

FAULTS_MAX: Final = 1_000
"""Faults that are named; the relay whose tables have more is not repaired by hand."""

_KEY_COLUMNS: Final = 2
"""Of every derived table that has a row for each object."""

Rows = list[tuple[Any, ...]]
_Derive = Callable[[Row[Any]], tuple[Table, object, bytes]]
"""Gives an object's table, its key there, and the entry that it makes."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One row that is not what follows from the others.

    Attributes:
        table: Its table.
        row: Its key, ids in hex.
        text: What it is and what was expected.
        is_derived: Whether ``rebuild`` writes it anew.
    """

    table: str
    row: str
    text: str
    is_derived: bool

    def document(self) -> dict[str, str]:
        """Give it as a line of JSON says it."""
        return {"table": self.table, "row": self.row, "text": self.text}


@dataclass(slots=True)
class _Derived:
    """What follows from the stored objects, for one page of the log at a time."""

    frontier: Frontier = field(default_factory=Frontier)
    last: dict[bytes, int] = field(default_factory=dict)
    lost: int = 0
    tiles: Rows = field(default_factory=list)
    items: Rows = field(default_factory=list)
    receipt_readers: Rows = field(default_factory=list)
    notice_readers: Rows = field(default_factory=list)

    @property
    def rows(self) -> tuple[tuple[Table, Rows], ...]:
        """The rows of the page by their table."""
        return (
            (tables.tile_hashes, self.tiles),
            (tables.mailbox_items, self.items),
            (tables.receipt_readers, self.receipt_readers),
            (tables.notice_readers, self.notice_readers),
        )


class _Checker:
    """One pass over the tables in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection: Final = connection
        self.faults: Final[list[Fault]] = []
        self.derived: Final = _Derived()

    def run(self, page: Callable[[_Derived], None]) -> None:
        """Go through the log; ``page`` takes what was derived of each page."""
        size = self._connection.scalar(select(func.count()).select_from(tables.leaves)) or 0
        for start in range(0, size, PAGE_LEAVES):
            self._page(start, min(start + PAGE_LEAVES, size))
            page(self.derived)
            for _, rows in self.derived.rows:
                rows.clear()
        self._directory()

    def fault(self, table: Table, row: object, said: str, *, is_derived: bool = True) -> None:
        """Name a row."""
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(Fault(table.name, _key(row), said, is_derived))

    # --- The log, against the objects

    def _page(self, start: int, end: int) -> None:
        leaves = {row.leaf_index: row.data for row in self._between(tables.leaves, start, end)}
        rows = self._rows(start, end)
        # Before the counters are followed, which skip what was lost.
        for index in sorted(leaves.keys() - {row.leaf_index for row, _ in rows}):
            self._lost(index)
        objects = {row.leaf_index: derive(row) for row, derive in rows}
        data: list[bytes] = []
        for index in range(start, end):
            leaf = leaves.get(index)
            if leaf is None:
                self.fault(tables.leaves, index, "entry is missing", is_derived=False)
                leaf = b""
            elif index in objects and objects[index][2] != leaf:
                table, key, _ = objects[index]
                said = f"does not lead to entry {index} of the log"
                self.fault(table, key, said, is_derived=False)
            data.append(leaf)
        growth = self.derived.frontier.grow(map(leaf_hash, data))
        self.derived.frontier = growth.frontier
        self.derived.tiles += [(one.level, one.index, one.hash) for one in growth.tile_hashes]

    def _lost(self, index: int) -> None:
        """An entry without an object is right only when a restore has said that it was lost."""
        vacant = tables.vacancies.c.leaf_index
        is_known = self._connection.scalar(select(vacant).where(vacant == index)) is not None
        had_repair = self._connection.scalar(
            select(func.count())
            .select_from(tables.notices)
            .where(tables.notices.c.kind == "restored")
        )
        self.derived.lost += 1
        if not (is_known or had_repair):
            said = "entry stands for no object, and no restore has lost one"
            self.fault(tables.leaves, index, said, is_derived=False)

    def _rows(self, start: int, end: int) -> list[tuple[Row[Any], _Derive]]:
        """Give the stored objects, and what makes the entry of each, in the log's order."""
        kinds: tuple[tuple[Table, _Derive], ...] = (
            (tables.statements, self._statement),
            (tables.envelopes, self._envelope),
            (tables.receipts, self._receipt),
            (tables.notices, self._notice),
        )
        found = [
            (row, derive) for table, derive in kinds for row in self._between(table, start, end)
        ]
        return sorted(found, key=lambda pair: pair[0].leaf_index)

    def _statement(self, row: Row[Any]) -> tuple[Table, object, bytes]:
        self._compare_hash(tables.statements, row.ordinal, row.hash, statement_hash(row.payload))
        return tables.statements, row.ordinal, statement_leaf(row.payload)

    def _receipt(self, row: Row[Any]) -> tuple[Table, object, bytes]:
        self._compare_hash(tables.receipts, row.hash, row.hash, receipt_hash(row.payload))
        readers = unpack_ids(row.readers or b"")
        self.derived.receipt_readers += [(desk, row.leaf_index) for desk in readers]
        return tables.receipts, row.hash, receipt_leaf(row.payload)

    def _notice(self, row: Row[Any]) -> tuple[Table, object, bytes]:
        self._compare_hash(tables.notices, row.hash, row.hash, notice_hash(row.payload))
        readers = unpack_notice_readers(row.readers)
        self.derived.notice_readers += [(desk, row.leaf_index) for desk in readers]
        return tables.notices, row.hash, notice_leaf(row.payload)

    def _envelope(self, row: Row[Any]) -> tuple[Table, object, bytes]:
        self._compare_hash(tables.envelopes, row.id, row.core_hash, core_hash(row.core))
        try:
            recipients = unpack_recipients(row.recipients)
            counters = counters_for(recipients, row.counters or b"")
        except DamagedRowError as error:
            self.fault(tables.envelopes, row.id, str(error), is_derived=False)
            return tables.envelopes, row.id, b""
        desks = [to.desk for to in recipients]
        self._compare_core(row, [(to.desk, to.epoch, to.kind) for to in recipients])
        for position, (to, counter) in enumerate(zip(recipients, counters, strict=True)):
            self._count(row, to.desk, counter)
            kind = ERASED_KIND if to.is_erased else to.kind
            self.derived.items.append((to.desk, counter, row.leaf_index, position, kind))
        leaf = envelope_leaf(row.core_hash, commit_counters(desks, counters, row.blind))
        return tables.envelopes, row.id, leaf

    def _compare_core(self, row: Row[Any], recipients: Sequence[tuple[bytes, int, int]]) -> None:
        try:
            core = Core.parse(row.core)
        except ComityError as error:
            self.fault(tables.envelopes, row.id, f"core cannot be read: {error}", is_derived=False)
            return
        said = [(to.desk, to.epoch, to.kind.value) for to in core.to]
        if (core.id, core.sender, core.device) != (row.id, row.sender_desk, row.sender_device):
            text_ = "id or sender is not that of its core"
            self.fault(tables.envelopes, row.id, text_, is_derived=False)
        if said != list(recipients):
            text_ = "recipients are not those of its core"
            self.fault(tables.envelopes, row.id, text_, is_derived=False)

    def _compare_hash(self, table: Table, key: object, stored: bytes, computed: bytes) -> None:
        if stored != computed:
            self.fault(table, key, "hash is not that of what is stored", is_derived=False)

    def _count(self, row: Row[Any], desk: bytes, counter: int) -> None:
        """Follow a mailbox's counters: one more each, but for what a restore has lost."""
        # SPEC: mailbox counters are without gaps, in the order of integration.
        expected = self.derived.last.get(desk, 0) + 1
        if counter < expected or (counter > expected and not self.derived.lost):
            said = f"counter {counter} of mailbox {desk.hex()[:8]}, expected {expected}"
            self.fault(tables.envelopes, row.id, said, is_derived=False)
        self.derived.last[desk] = max(counter, expected - 1)

    def _between(self, table: Table, start: int, end: int) -> Sequence[Row[Any]]:
        index = table.c.leaf_index
        return self._connection.execute(
            select(table).where(index >= start, index < end).order_by(index)
        ).all()

    # --- The directory

    def _directory(self) -> None:
        """Fold the statements in leaf order by all rules."""
        table = tables.statements
        directory: Directory | None = None
        rows = self._connection.execute(
            select(table).where(table.c.leaf_index.is_not(None)).order_by(table.c.leaf_index)
        )
        for row in rows:
            try:
                signatures = parse_signatures(parse(row.signatures))
                signed = SignedStatement(row.payload, signatures, is_bare=directory is not None)
                if directory is None:
                    directory = Directory.begin(signed, signed.hash)
                else:
                    directory = directory.apply(signed, row.leaf_index)
            except ComityError as error:
                self.fault(table, row.ordinal, f"breaks a rule: {error}", is_derived=False)
                if directory is None:
                    return


def check(connection: Connection) -> list[Fault]:
    """Compare every derived row with what follows from the stored ones; changes nothing."""
    checker = _Checker(connection)

    counts: Counter[Table] = Counter()

    def page(derived: _Derived) -> None:
        for table, rows in derived.rows:
            counts[table] += len(rows)
            _compare(checker, table, rows)

    checker.run(page)
    for table, _ in checker.derived.rows:
        expected = counts[table]
        there = connection.scalar(select(func.count()).select_from(table)) or 0
        if there > expected:
            checker.fault(
                table, "*", f"{there:,} rows, expected {expected:,}: some follow from nothing"
            )
    _compare_head(checker, connection)
    _compare_counters(checker, connection)
    return checker.faults


def rebuild(connection: Connection) -> list[Fault]:
    """Write the derived tables anew; gives what stood in the way, and then changes nothing."""
    found = [one for one in check(connection) if not one.is_derived]
    if found:
        return found
    checker = _Checker(connection)
    for table in (tables.mailboxes, *(table for table, _ in checker.derived.rows)):
        connection.execute(delete(table))

    def page(derived: _Derived) -> None:
        for table, rows in derived.rows:
            if rows:
                names = [column.name for column in table.columns]
                connection.execute(
                    insert(table), [dict(zip(names, row, strict=True)) for row in rows]
                )

    checker.run(page)
    frontier = checker.derived.frontier
    mailboxes = [{"desk": desk, "counter": last} for desk, last in checker.derived.last.items()]
    if mailboxes:
        connection.execute(insert(tables.mailboxes), mailboxes)
    connection.execute(
        tables.head.update().values(
            size=frontier.size,
            root=frontier.root,
            frontier=frontier.serialize(),
            statements=_newest_ordinal(connection),
        )
    )
    return []


async def run(address: str, work: Callable[[Connection], list[Fault]]) -> list[Fault]:
    """Run ``check`` or ``rebuild`` in one transaction of a store.

    Args:
        address: As of ``stores.open_store``.
        work: One of the two.
    """
    url = make_url(address)
    if url.drivername == "sqlite":
        engine = create_engine(url, hide_parameters=True)
        with engine.begin() as connection:
            return work(connection)
    async_engine = create_async_engine(url, hide_parameters=True, isolation_level="REPEATABLE READ")
    try:
        async with async_engine.begin() as opened:
            return await opened.run_sync(work)
    finally:
        await async_engine.dispose()


def _compare(checker: _Checker, table: Table, rows: Rows) -> None:
    """Compare derived rows with those that have their keys: the first two columns of each."""
    columns = list(table.columns)
    by_key: Mapping[tuple[Any, ...], tuple[Any, ...]] = _stored(checker, table, rows)
    for row in rows:
        stored = by_key.get(row[:_KEY_COLUMNS])
        if stored is None:
            checker.fault(table, row[:_KEY_COLUMNS], "row is missing")
        elif stored != row:
            names = [
                column.name
                for column, one, other in zip(columns, stored, row, strict=True)
                if one != other
            ]
            checker.fault(table, row[:_KEY_COLUMNS], f"{', '.join(names)} is not what follows")


def _stored(checker: _Checker, table: Table, rows: Rows) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    first, second = list(table.columns)[:_KEY_COLUMNS]
    found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for group in {row[0] for row in rows}:
        seconds = [row[1] for row in rows if row[0] == group]
        query = select(table).where(first == group, second.between(min(seconds), max(seconds)))
        for stored in checker._connection.execute(query):  # noqa: SLF001  # the same module
            found[tuple(stored[:_KEY_COLUMNS])] = tuple(stored)
    return found


def _compare_head(checker: _Checker, connection: Connection) -> None:
    row = connection.execute(select(tables.head)).one_or_none()
    if row is None:
        checker.fault(tables.head, 1, "row is missing", is_derived=False)
        return
    frontier = checker.derived.frontier
    expected = {
        "size": frontier.size,
        "root": frontier.root,
        "frontier": frontier.serialize(),
        "statements": _newest_ordinal(connection),
    }
    for name, value in expected.items():
        if getattr(row, name) != value:
            checker.fault(tables.head, 1, f"{name} is not what follows from the entries")


def _compare_counters(checker: _Checker, connection: Connection) -> None:
    last = checker.derived.last
    stored = {row.desk: row.counter for row in connection.execute(select(tables.mailboxes))}
    for desk in sorted(last.keys() | stored.keys()):
        there, expected = stored.get(desk), last.get(desk, 0)
        # Counters of what a restore lost are skipped, so the stored one may be ahead.
        is_ahead = there is not None and there > expected and checker.derived.lost > 0
        if there != expected and not is_ahead:
            checker.fault(tables.mailboxes, (desk,), f"counter is {there}, expected {expected}")


def _newest_ordinal(connection: Connection) -> int:
    return connection.scalar(select(func.max(tables.statements.c.ordinal))) or 0


def _key(row: object) -> str:
    if isinstance(row, tuple):
        return ", ".join(_key(part) for part in row)
    return row.hex() if isinstance(row, bytes) else str(row)
