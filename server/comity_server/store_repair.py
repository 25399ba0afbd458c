"""The store's verbs for a restored database: give it back its entries, then their objects.

A restored database has fewer entries than were signed. The missing ones are appended as they are
(``refill``), and each leaves a vacancy until its object comes back (``fill``). Statements, receipts
and notices take their place at once. Envelopes wait until nothing more is expected, because their
counters follow from all that came before: then ``place`` goes through the vacancies in leaf order.
While there is a repair nothing is integrated.

Each verb is one transaction under the lock of the ``head`` row, and each can be done again: who is
killed between two of them starts again with the same verb and gets the same result.

Rules:

* [R-3] Counters are given without gaps, but for those that went to what stayed lost.
* [R-16] What takes a place makes the entry that the log has there.
"""

import secrets
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, delete, func, insert, select, update

from comity_protocol.leaves import (
    PLACES_BYTES,
    commit_counters,
    is_statement_leaf,
    tag_of,
    tags_of_promise,
)
from comity_protocol.merkle import Frontier, leaf_hash
from comity_server import store_notices as given
from comity_server import store_reads as reads
from comity_server import tables
from comity_server.store import (
    DirectoryMovedError,
    EnvelopeRow,
    Head,
    Kind,
    NoticeRow,
    Placed,
    ReceiptRow,
    Row,
    StatementRow,
)
from comity_server.store_values import mailbox_values, notice_readers, receipt_readers
from comity_server.vacancies import Repair, Vacancy, find_counters

PLACING_SECONDS_MAX: Final = 0.5
"""After so long in one transaction no further counters are looked for."""

_INCARNATION_BYTES: Final = 16
_REFILLED: Final = 512
"""Pending rows that are looked at together."""

_KINDS: Final = {
    StatementRow: Kind.STATEMENT,
    ReceiptRow: Kind.RECEIPT,
    NoticeRow: Kind.NOTICE,
}

Result = TypeVar("Result")


class RepairingStore(ABC):
    """The verbs of ``Store`` for a repair, over what ``SqlStore`` has."""

    @abstractmethod
    async def _change(self, work: Callable[[Connection], Result]) -> Result: ...

    @abstractmethod
    async def _ask(self, work: Callable[[Connection], Result]) -> Result: ...

    @abstractmethod
    def _hold_directory(self, connection: Connection) -> None: ...

    @abstractmethod
    def _insert(
        self, connection: Connection, table: Table, rows: Sequence[tuple[object, ...]]
    ) -> None: ...

    @abstractmethod
    def _among(
        self, column: ColumnElement[Any], values: Sequence[object]
    ) -> ColumnElement[bool]: ...

    @abstractmethod
    def _insert_objects(self, connection: Connection, rows: Sequence[Row]) -> None: ...

    @abstractmethod
    def _insert_boxes(self, connection: Connection, row: StatementRow, ordinal: int) -> None: ...

    @abstractmethod
    def _write_places(self, connection: Connection, rows: Sequence[Row]) -> None: ...

    @abstractmethod
    def _counters(self, connection: Connection, desks: Collection[bytes]) -> dict[bytes, int]: ...

    @abstractmethod
    def _load(self, connection: Connection, waiting: Sequence[Any]) -> dict[bytes, Row]: ...

    # The verbs.

    async def repair(self) -> Repair | None:
        """See ``Store.repair``."""
        return await self._ask(_read_repair)

    async def refill(
        self, leaves: Sequence[bytes], *, expected_size: int, at: int, seconds: int
    ) -> Head:
        """See ``Store.refill``."""
        return await self._change(lambda c: self._refill(c, leaves, expected_size, at, seconds))

    async def vacancies(self, tags: Sequence[bytes]) -> Mapping[bytes, Vacancy]:
        """See ``Store.vacancies``."""
        return await self._ask(lambda c: self._find_vacancies(c, tags))

    async def missing(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """See ``Store.missing``."""
        return await self._ask(lambda c: _read_missing(c, after, limit))

    async def fill(self, row: Row, *, statements: int) -> Row | None:
        """See ``Store.fill``."""
        return await self._change(lambda c: self._fill(c, row, statements))

    async def stored(self, kind: Kind, key: bytes) -> Row | None:
        """See ``Store.stored``."""
        found = await self._ask(lambda c: self._load(c, [_Entry(kind, key)]))
        return found.get(key)

    async def wait_less(self, seconds: int) -> None:
        """See ``Store.wait_less``."""
        repair = tables.repair
        query = update(repair).where(repair.c.seconds_left > seconds).values(seconds_left=seconds)
        await self._change(lambda c: c.execute(query))

    async def end_repair(self) -> bool:
        """See ``Store.end_repair``."""
        query = update(tables.repair).values(seconds_left=0)
        return await self._change(lambda c: c.execute(query).rowcount == 1)

    async def place(self, limit: int) -> Placed:
        """See ``Store.place``."""
        return await self._change(lambda c: self._place(c, limit))

    async def notices_since(self, index: int, limit: int) -> list[NoticeRow]:
        """See ``Store.notices_since``."""
        return await self._ask(lambda c: _read_notices_since(c, index, limit))

    async def settle(self, desks: Collection[bytes], *, at: int) -> Repair:
        """See ``Store.settle``."""
        return await self._change(lambda c: self._settle(c, desks, at))

    async def close_repair(self) -> None:
        """See ``Store.close_repair``."""
        await self._change(_close)

    # One transaction each.

    def _refill(
        self,
        connection: Connection,
        leaves: Sequence[bytes],
        expected_size: int,
        at: int,
        seconds: int,
    ) -> Head:
        self._hold_directory(connection)
        head = lock_log(connection)
        if head.size != expected_size:
            return head
        growth = Frontier.parse(head.frontier).grow(map(leaf_hash, leaves))
        after = growth.frontier
        indices = range(head.size, after.size)
        new = replace(head, size=after.size, root=after.root, frontier=after.serialize())
        self._insert(connection, tables.leaves, list(zip(indices, leaves, strict=True)))
        tiles = [(tile.level, tile.index, tile.hash) for tile in growth.tile_hashes]
        self._insert(connection, tables.tile_hashes, tiles)
        vacant: list[tuple[object, ...]] = [
            (index, tag_of(leaf), leaf, int(is_statement_leaf(leaf)), 0, None)
            for index, leaf in zip(indices, leaves, strict=True)
        ]
        self._insert(connection, tables.vacancies, vacant)
        connection.execute(
            update(tables.head).values(size=new.size, root=new.root, frontier=new.frontier)
        )
        _keep_repair(connection, head.size, new, at, seconds)
        self._adopt(connection)
        return new

    def _adopt(self, connection: Connection) -> None:
        """Let what was pending when the backup was made take its place; the rest stays pending."""
        last = 0
        while True:
            waiting = connection.execute(
                select(tables.pending)
                .where(tables.pending.c.arrival > last)
                .order_by(tables.pending.c.arrival)
                .limit(_REFILLED)
            ).all()
            if not waiting:
                return
            last = waiting[-1].arrival
            rows = self._load(connection, waiting)
            tags = {
                entry.key: tag_of_row(rows[entry.key]) for entry in waiting if entry.key in rows
            }
            found = self._find_vacancies(connection, list(tags.values()))
            fitting = [
                (entry, rows[entry.key], found[tags[entry.key]])
                for entry in waiting
                if tags.get(entry.key) in found
            ]
            for entry, row, vacancy in fitting:
                pending = tables.pending.c.arrival == entry.arrival
                connection.execute(delete(tables.pending).where(pending))
                if isinstance(row, EnvelopeRow):
                    _occupy(connection, vacancy, row.id)
                else:
                    placed = replace(row, leaf_index=vacancy.leaf_index)
                    self._write_places(connection, [placed])
                    self._take_place(connection, placed, vacancy)

    def _find_vacancies(
        self, connection: Connection, tags: Sequence[bytes]
    ) -> dict[bytes, Vacancy]:
        if not tags:
            return {}
        vacancies = tables.vacancies
        query = select(vacancies).where(
            self._among(vacancies.c.tag, tags), vacancies.c.is_lost == 0
        )
        return {
            row.tag: Vacancy(row.leaf_index, row.leaf, row.key) for row in connection.execute(query)
        }

    def _fill(self, connection: Connection, row: Row, statements: int) -> Row | None:
        self._hold_directory(connection)
        head = lock_log(connection)
        known = self._known(connection, row)
        if known is not None:
            if isinstance(row, StatementRow) and isinstance(known, StatementRow):
                self._add_boxes(connection, row, known)
            return known
        repair = _read_repair(connection)
        if repair is None or repair.is_placing:
            return None
        vacancy = self._find_vacancies(connection, [tag_of_row(row)]).get(tag_of_row(row))
        if vacancy is None:
            return None
        if isinstance(row, EnvelopeRow):
            self._insert_objects(connection, [row])
            _occupy(connection, vacancy, row.id)
            return row
        if isinstance(row, StatementRow):
            return self._fill_statement(connection, row, vacancy, head, repair, statements)
        placed = replace(row, leaf_index=vacancy.leaf_index)
        self._insert_objects(connection, [placed])
        self._take_place(connection, placed, vacancy)
        return placed

    def _fill_statement(
        self,
        connection: Connection,
        given: StatementRow,
        vacancy: Vacancy,
        head: Head,
        repair: Repair,
        statements: int,
    ) -> StatementRow | None:
        if vacancy.leaf_index != repair.open_statement:
            return None  # Statements come back in leaf order, as the directory is folded.
        if head.statements != statements:
            raise DirectoryMovedError(statements, head.statements)
        ordinal = head.statements + 1
        row = replace(
            given, ordinal=ordinal, leaf_index=vacancy.leaf_index, boxes=(), previous=None
        )
        connection.execute(update(tables.head).values(statements=ordinal))
        self._insert_objects(connection, [row])
        self._insert_boxes(connection, given, ordinal)
        self._take_place(connection, row, vacancy)
        return row

    def _add_boxes(self, connection: Connection, row: StatementRow, known: StatementRow) -> None:
        """Keep the boxes of a statement that came back without them."""
        if known.ordinal is None:
            return
        for table in (tables.epoch_boxes, tables.previous_epochs):
            query = select(table.c.ordinal).where(
                table.c.desk == row.desk, table.c.ordinal == known.ordinal
            )
            if connection.execute(query.limit(1)).first() is not None:
                return
        self._insert_boxes(connection, row, known.ordinal)

    def _take_place(
        self, connection: Connection, row: StatementRow | ReceiptRow | NoticeRow, vacancy: Vacancy
    ) -> None:
        """End the vacancy of what is in its place."""
        if isinstance(row, ReceiptRow):
            self._insert(connection, tables.receipt_readers, receipt_readers(row))
        elif isinstance(row, NoticeRow):
            self._insert(connection, tables.notice_readers, notice_readers(row))
        here = tables.vacancies.c.leaf_index == vacancy.leaf_index
        connection.execute(delete(tables.vacancies).where(here))

    def _known(self, connection: Connection, row: Row) -> Row | None:
        """Find what is stored under the id of a row."""
        if isinstance(row, EnvelopeRow):
            return reads.find_envelopes(connection, self._among, [row.id]).get(row.id)
        return self._load(connection, [_Entry(_KINDS[type(row)], row.hash)]).get(row.hash)

    # Counters.

    def _place(self, connection: Connection, limit: int) -> Placed:
        lock_log(connection)
        connection.execute(update(tables.repair).values(is_placing=1))
        vacancies = tables.vacancies
        query = select(vacancies).where(vacancies.c.is_lost == 0).order_by(vacancies.c.leaf_index)
        found = [
            Vacancy(row.leaf_index, row.leaf, row.key)
            for row in connection.execute(query.limit(limit))
        ]
        if not found:
            return Placed((), (), is_done=True)
        keys = [vacancy.key for vacancy in found if vacancy.key is not None]
        rows = reads.find_envelopes(connection, self._among, keys) if keys else {}
        mail = self._mail(connection, {to.desk for row in rows.values() for to in row.recipients})
        placed: list[EnvelopeRow] = []
        refused: list[bytes] = []
        began = perf_counter()
        for at, vacancy in enumerate(found):
            # SPEC: nobody waits long for the lock, also when a search takes its second.
            if at and perf_counter() - began > PLACING_SECONDS_MAX:
                found = found[:at]
                break
            row = None if vacancy.key is None else rows.get(vacancy.key)
            own = None if row is None else mail.place(row, vacancy)
            if own is not None:
                placed.append(own)
                continue
            if row is not None:
                refused.append(row.id)
            if not is_statement_leaf(vacancy.leaf):
                mail.lost.append(vacancy.leaf_index)
        self._write_placed(connection, placed, mail, rows)
        gone = {row.leaf_index for row in placed}
        self._write_lost(connection, [v.leaf_index for v in found if v.leaf_index not in gone])
        if refused:
            connection.execute(
                delete(tables.envelopes).where(self._among(tables.envelopes.c.id, refused))
            )
        return Placed(tuple(placed), tuple(refused), is_done=False)

    def _write_placed(
        self,
        connection: Connection,
        placed: Sequence[EnvelopeRow],
        mail: "_Standing",
        rows: Mapping[bytes, EnvelopeRow],
    ) -> None:
        if not placed:
            return
        self._write_places(connection, placed)
        items = [item for row in placed for item in mailbox_values(row)]
        self._insert(connection, tables.mailbox_items, items)
        desks = {to.desk for row in placed for to in rows[row.id].recipients}
        self._insert(connection, tables.mailboxes, [(desk, mail.last[desk]) for desk in desks])
        indices = [row.leaf_index for row in placed]
        connection.execute(
            delete(tables.vacancies).where(self._among(tables.vacancies.c.leaf_index, indices))
        )

    def _write_lost(self, connection: Connection, indices: Sequence[int]) -> None:
        if indices:
            connection.execute(
                update(tables.vacancies)
                .where(self._among(tables.vacancies.c.leaf_index, indices))
                .values(is_lost=1)
            )

    def _mail(self, connection: Connection, desks: Collection[bytes]) -> "_Standing":
        """Find the last known counter of mailboxes, and what stayed lost."""
        items, boxes, vacancies = tables.mailbox_items, tables.mailboxes, tables.vacancies
        last = dict.fromkeys(desks, 0) | self._counters(connection, desks)
        at: dict[bytes, int] = {}
        if desks:
            query = (
                select(items.c.desk, items.c.leaf_index)
                .join(boxes, (boxes.c.desk == items.c.desk) & (boxes.c.counter == items.c.counter))
                .where(self._among(items.c.desk, list(desks)))
            )
            at = {row.desk: row.leaf_index for row in connection.execute(query)}
        lost = connection.execute(
            select(vacancies.c.leaf_index)
            .where(vacancies.c.is_lost == 1, vacancies.c.is_statement == 0)
            .order_by(vacancies.c.leaf_index)
        )
        return _Standing(last, at, list(lost.scalars()))

    def _settle(self, connection: Connection, desks: Collection[bytes], at: int) -> Repair:
        lock_log(connection)
        repair = _require_repair(connection)
        if repair.lost is None:
            vacancies = tables.vacancies
            count = connection.execute(select(func.count()).select_from(vacancies)).scalar_one()
            mail = self._mail(connection, desks)
            # SPEC: counters have no gaps but for those that went to what stayed lost. Each
            # mailbox goes on above every counter that one of these can have had, so that no
            # counter is given twice.
            above = [
                (desk, last + more)
                for desk, last in mail.last.items()
                if (more := mail.missed(desk))
            ]
            self._insert(connection, tables.mailboxes, above)
            connection.execute(delete(vacancies))
            # A new mark, by which clients notice: what they were told of places above the size
            # and never saw sealed may not be so any more. It also ends what stores remember.
            mark = secrets.token_bytes(_INCARNATION_BYTES)
            connection.execute(update(tables.head).values(incarnation=mark))
            connection.execute(
                update(tables.repair).values(lost=count, ended_at=at, incarnation=mark)
            )
        return _require_repair(connection)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What ``SqlStore._load`` reads of a pending row."""

    kind: Kind
    key: bytes


@dataclass(slots=True)
class _Standing:
    """How far the counters of some mailboxes are known.

    Attributes:
        last: The last known counter of each, 0 where nothing came.
        at: Leaf index of the envelope that had it.
        lost: Leaf indices of what stayed lost, ascending, statements left out.
    """

    last: dict[bytes, int]
    at: dict[bytes, int]
    lost: list[int]

    def missed(self, desk: bytes) -> int:
        """How many entries after the last known counter may have taken one of this mailbox."""
        return len(self.lost) - bisect_right(self.lost, self.at.get(desk, -1))

    def place(self, row: EnvelopeRow, vacancy: Vacancy) -> EnvelopeRow | None:
        """Give an envelope its old counters; None when none make the entry."""
        desks = [to.desk for to in row.recipients]
        counters = find_counters(
            desks,
            blind=row.blind,
            places=vacancy.leaf[-PLACES_BYTES:],
            last=self.last,
            lost={desk: self.missed(desk) for desk in desks},
        )
        if counters is None:
            return None
        for desk, counter in zip(desks, counters, strict=True):
            self.last[desk], self.at[desk] = counter, vacancy.leaf_index
        return row.placed(vacancy.leaf_index, counters, commit_counters(desks, counters, row.blind))


def is_repairing(connection: Connection) -> bool:
    """Whether a repair is not finished, so that nothing may be integrated."""
    return connection.execute(select(tables.repair.c.one)).first() is not None


def lock_log(connection: Connection) -> Head:
    """Read the head, keeping everyone else from integrating until the commit."""
    # SQLite knows no FOR UPDATE and is not sent it: its transaction was begun as the only one.
    return reads.head_of(connection.execute(select(tables.head).with_for_update()).one())


def tag_of_row(row: Row) -> bytes:
    """Give the first half of the entry that a row has in the log."""
    return tags_of_promise(row.core_hash)[1] if isinstance(row, EnvelopeRow) else row.hash


def _occupy(connection: Connection, vacancy: Vacancy, key: bytes) -> None:
    here = tables.vacancies.c.leaf_index == vacancy.leaf_index
    connection.execute(update(tables.vacancies).where(here).values(key=key))


def _keep_repair(connection: Connection, had: int, new: Head, at: int, seconds: int) -> None:
    """Remember the repair; one that was begun already goes on with more entries."""
    known = update(tables.repair).values(size=new.size)
    if connection.execute(known).rowcount:
        return
    connection.execute(
        insert(tables.repair).values(
            one=1,
            had=had,
            size=new.size,
            began_at=at,
            seconds_left=seconds,
            is_placing=0,
        )
    )


def _read_repair(connection: Connection) -> Repair | None:
    row = connection.execute(select(tables.repair)).first()
    if row is None:
        return None
    vacancies = tables.vacancies
    open_ = (vacancies.c.key.is_(None), vacancies.c.is_lost == 0)
    count, statement = connection.execute(
        select(
            func.count(),
            func.min(vacancies.c.leaf_index).filter(vacancies.c.is_statement == 1),
        ).where(*open_)
    ).one()
    return Repair(
        had=row.had,
        size=row.size,
        began_at=row.began_at,
        seconds_left=row.seconds_left,
        is_placing=bool(row.is_placing),
        lost=row.lost,
        ended_at=row.ended_at,
        incarnation=row.incarnation,
        open=count,
        open_statement=statement,
    )


def _require_repair(connection: Connection) -> Repair:
    repair = _read_repair(connection)
    if repair is None:
        raise AssertionError("a repair was to be settled that is not there")
    return repair


def _read_missing(connection: Connection, after: int, limit: int) -> list[tuple[int, bytes]]:
    vacancies = tables.vacancies
    query = (
        select(vacancies.c.leaf_index, vacancies.c.tag)
        .where(vacancies.c.leaf_index > after, vacancies.c.key.is_(None), vacancies.c.is_lost == 0)
        .order_by(vacancies.c.leaf_index)
        .limit(limit)
    )
    return [(row.leaf_index, row.tag) for row in connection.execute(query)]


def _read_notices_since(connection: Connection, index: int, limit: int) -> list[NoticeRow]:
    query = select(tables.notices).where(tables.notices.c.leaf_index >= index)
    rows = connection.execute(query.order_by(tables.notices.c.leaf_index).limit(limit))
    return [given.notice_of(row) for row in rows]


def _close(connection: Connection) -> None:
    lock_log(connection)
    connection.execute(delete(tables.repair).where(tables.repair.c.lost.is_not(None)))
