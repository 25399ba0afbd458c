"""The store in SQLAlchemy Core, but for the few things in which the two databases differ.

A method of ``SqlStore`` is one transaction: it hands one plain function over a connection to
``_change`` or ``_ask``. The functions do not await and do not know where they run: SQLite runs them
in a thread, PostgreSQL in SQLAlchemy's asyncio layer. Those that only read are in ``store_reads``.

How many processes may accept at once and still write one log:

* Whoever integrates holds the lock of the ``head`` row until it commits, so integrations happen
  one after the other. What gets a number (leaf index, counter, ordinal) gets it under this lock,
  from what ``head`` and ``mailboxes`` say, never from a sequence [R-3] [R-5].
* Whoever only accepts shares the directory lock, which accepting a statement takes alone. So when
  a statement gets its ordinal, nobody is half-way through accepting something under an older
  directory, and what was accepted before it is integrated before it [R-6].
* An id that two accept at the same moment makes one of them fail on the unique key; it starts
  again and finds what the other one stored [R-2].
"""

import secrets
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar, assert_never

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    bindparam,
    delete,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from comity_protocol.merkle import Frontier
from comity_server import store_erasure as erasure
from comity_server import store_notices as given
from comity_server import store_reads as reads
from comity_server import tables
from comity_server.store import (
    PENDING_ROWS_MAX,
    Accepted,
    Checkpoint,
    ContentionError,
    Copy,
    DirectoryMovedError,
    EnvelopeRow,
    ErasuresMovedError,
    Head,
    Kind,
    MailboxItem,
    NoticeRow,
    OnHoldError,
    Parked,
    ReceiptRow,
    Row,
    SchemaError,
    StatementRow,
    StoreUnavailableError,
)
from comity_server.store_growth import Step, grow, mailboxes_of
from comity_server.store_repair import RepairingStore, is_repairing, lock_log
from comity_server.store_values import (
    envelope_values,
    notice_values,
    pack_counters,
    receipt_values,
    statement_values,
)

_INCARNATION_BYTES: Final = 16

# Each further try follows another one's commit of one of our ids, of which there are few.
_TRIES_MAX: Final = 8

_TAKE_LEASE: Final = text(
    "INSERT INTO leases (name, holder, until) VALUES (:name, :holder, :until) "
    "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until "
    "WHERE leases.holder = excluded.holder OR leases.until < :now"
)

_KEEP_CHECKPOINT: Final = text(
    "INSERT INTO checkpoints (note_hash, size, note, at) VALUES (:note_hash, :size, :note, :at) "
    "ON CONFLICT (note_hash) DO NOTHING"
)

_KEEP_ANCHOR: Final = text(
    "INSERT INTO anchors (day, size, note) VALUES (:day, :size, :note) ON CONFLICT (day) DO NOTHING"
)

Result = TypeVar("Result")
Work = Callable[[Connection], Result]


@dataclass(frozen=True, slots=True)
class _Integration:
    """What integrating did: the new head, the rows with their places, and what was parked."""

    head: Head
    rows: tuple[Row, ...] = ()
    parked: tuple[Parked, ...] = ()


class SqlStore(RepairingStore):
    """``Store`` over SQLAlchemy; the two databases fill in what differs."""

    @abstractmethod
    async def open(self) -> None:
        """Connect, check the settings, and create the tables when there are none."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of all connections."""

    # What differs: how a transaction runs, who waits for whom, and how rows go in fastest.

    @abstractmethod
    async def _transact(self, work: Work[Result]) -> Result:
        """Run work in a transaction that may change things; commit it durably."""

    @abstractmethod
    async def _read(self, work: Work[Result]) -> Result:
        """Run work that only reads what was committed before it began, or since."""

    @abstractmethod
    def _may_repeat(self, error: SQLAlchemyError) -> bool:
        """Whether work failed because others were first, or on a connection found to be dead."""

    @abstractmethod
    def _share_directory(self, connection: Connection) -> None:
        """Keep statements from being accepted until the commit; others may share this."""

    @abstractmethod
    def _hold_directory(self, connection: Connection) -> None:
        """Wait until nobody shares the directory, and let nobody share it until the commit."""

    @abstractmethod
    def _insert(
        self, connection: Connection, table: Table, rows: Sequence[tuple[object, ...]]
    ) -> None:
        """Insert rows given in the order of the table's columns, less those it numbers itself.

        A mailbox that is there already gets the new counter.
        """

    @abstractmethod
    async def _add(self, rows: Sequence[Row], statements: int, erasures: int | None) -> Step | None:
        """Store new rows and integrate them by the shortest way, as one transaction.

        Returns:
            None, and nothing is changed, when something is pending, known or moved, or when others
            were first; then the long way finds out what it was.
        """

    @abstractmethod
    def _among(self, column: ColumnElement[Any], values: Sequence[object]) -> ColumnElement[bool]:
        """The condition that a column holds one of these values."""

    # The verbs of ``Store``, which has their documentation.

    async def head(self) -> Head:
        """See ``Store.head``."""
        return await self._ask(reads.read_head)

    async def accept_statement(self, row: StatementRow, *, expected_ordinal: int) -> Accepted:
        """See ``Store.accept_statement``."""
        return await self._change(lambda c: self._accept_statement(c, row, expected_ordinal))

    async def accept(
        self,
        envelopes: Sequence[EnvelopeRow],
        receipts: Sequence[ReceiptRow],
        *,
        statements: int,
        integrate: bool,
        erasures: int | None = None,
    ) -> Accepted:
        """See ``Store.accept``."""
        if integrate and (envelopes or receipts):
            batch = _Batch(envelopes, receipts, {}, {})
            step = await self._add(batch.new, statements, erasures)
            if step is not None:
                return batch.answer(_Integration(step.head, step.rows))
        take = self._accept_and_integrate if integrate else self._accept_as_pending
        return await self._change(lambda c: take(c, envelopes, receipts, statements, erasures))

    async def accept_notice(
        self, row: NoticeRow, *, statements: int, bury: Callable[[Sequence[Copy]], None]
    ) -> Accepted:
        """See ``Store.accept_notice``."""
        return await self._change(lambda c: self._accept_notice(c, row, statements, bury))

    async def carry_out(self, row: NoticeRow, *, bury: Callable[[Sequence[Copy]], None]) -> None:
        """See ``Store.carry_out``."""

        def work(connection: Connection) -> None:
            self._hold_directory(connection)
            lock_log(connection)
            self._carry_out(connection, row, bury)

        await self._change(work)

    async def erase(self, copies: Sequence[Copy], *, but_for_held: bool = False) -> int:
        """See ``Store.erase``."""
        return await self._change(lambda c: self._erase(c, copies, but_for_held=but_for_held))

    async def expire(self, desk: bytes, kind: int, *, below_index: int, limit: int) -> int:
        """See ``Store.expire``."""
        # Almost always there is nothing, and nobody has to wait for that.
        found = await self._ask(lambda c: erasure.find_expired(c, desk, kind, below_index, 1))
        if not found:
            return 0
        return await self._change(lambda c: self._expire(c, desk, kind, below_index, limit))

    async def index_at(self, instant: int) -> int:
        """See ``Store.index_at``."""
        return await self._ask(lambda c: erasure.find_index_at(c, instant))

    async def superseded_below(self, desk: bytes, instant: int) -> int:
        """See ``Store.superseded_below``."""
        return await self._ask(lambda c: erasure.find_superseded_below(c, desk, instant))

    @abstractmethod
    async def scrub(self) -> bool:
        """See ``Store.scrub``."""

    async def integrate(self) -> Accepted:
        """See ``Store.integrate``."""
        return await self._change(lambda c: self._accept_and_integrate(c, (), (), 0, None))

    async def statements(
        self, after_ordinal: int, limit: int, *, below_index: int | None = None
    ) -> list[StatementRow]:
        """See ``Store.statements``."""
        return await self._ask(
            lambda c: reads.read_statements(c, after_ordinal, limit, below_index)
        )

    async def boxes(
        self, desk: bytes, device: bytes
    ) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
        """See ``Store.boxes``."""
        return await self._ask(lambda c: reads.read_boxes(c, desk, device))

    async def mailbox(self, desk: bytes, after_counter: int, limit: int) -> list[MailboxItem]:
        """See ``Store.mailbox``."""
        return await self._ask(lambda c: reads.read_mailbox(c, desk, after_counter, limit))

    async def wrap(self, envelope_id: bytes, desk: bytes) -> bytes | None:
        """See ``Store.wrap``."""
        return await self._ask(lambda c: reads.read_wrap(c, envelope_id, desk))

    async def envelope(self, envelope_id: bytes) -> EnvelopeRow | None:
        """See ``Store.envelope``."""
        found = await self._ask(lambda c: reads.find_envelopes(c, self._among, [envelope_id]))
        return found.get(envelope_id)

    async def cores(self, envelope_ids: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """See ``Store.cores``."""
        return await self._ask(lambda c: reads.find_cores(c, self._among, envelope_ids))

    async def receipts(self, desk: bytes, after_index: int, limit: int) -> list[ReceiptRow]:
        """See ``Store.receipts``."""
        return await self._ask(lambda c: given.read_receipts(c, desk, after_index, limit))

    async def notices(self, desk: bytes, after_index: int, limit: int) -> list[NoticeRow]:
        """See ``Store.notices``."""
        return await self._ask(lambda c: given.read_notices(c, desk, after_index, limit))

    async def leaves(self, start: int, count: int) -> list[bytes]:
        """See ``Store.leaves``."""
        return await self._ask(lambda c: reads.read_leaves(c, start, count))

    async def hashes(self, level: int, start: int, count: int) -> list[bytes]:
        """See ``Store.hashes``."""
        return await self._ask(lambda c: reads.read_hashes(c, level, start, count))

    async def publish_checkpoint(self, size: int, note: bytes, note_hash: bytes, at: int) -> None:
        """See ``Store.publish_checkpoint``."""
        values = {"size": size, "note": note, "note_hash": note_hash, "at": at}
        await self._change(lambda c: c.execute(_KEEP_CHECKPOINT, values))

    async def first_checkpoint_over(self, index: int) -> Checkpoint | None:
        """See ``Store.first_checkpoint_over``."""
        return await self._ask(lambda c: reads.read_first_checkpoint_over(c, index))

    async def newest_checkpoint(self) -> Checkpoint | None:
        """See ``Store.newest_checkpoint``."""
        return await self._ask(reads.read_newest_checkpoint)

    async def checkpoints(self, after_size: int, skip: int, limit: int) -> list[Checkpoint]:
        """See ``Store.checkpoints``."""
        return await self._ask(lambda c: reads.read_checkpoints(c, after_size, skip, limit))

    async def keep_anchor(self, day: int, size: int, note: bytes) -> None:
        """See ``Store.keep_anchor``."""
        values = {"day": day, "size": size, "note": note}
        await self._change(lambda c: c.execute(_KEEP_ANCHOR, values))

    async def has_anchor(self, day: int) -> bool:
        """See ``Store.has_anchor``."""
        return await self._ask(lambda c: reads.has_anchor(c, day))

    async def anchors(self, after_size: int, skip: int, limit: int) -> list[bytes]:
        """See ``Store.anchors``."""
        return await self._ask(lambda c: reads.read_anchors(c, after_size, skip, limit))

    async def has_checkpoint(self, note_hash: bytes) -> bool:
        """See ``Store.has_checkpoint``."""
        return await self._ask(lambda c: reads.has_checkpoint(c, note_hash))

    async def take_lease(self, name: str, holder: str, *, until: int, now: int) -> bool:
        """See ``Store.take_lease``."""
        values = {"name": name, "holder": holder, "until": until, "now": now}
        return await self._change(lambda c: c.execute(_TAKE_LEASE, values).rowcount == 1)

    async def parked(self, limit: int) -> list[Parked]:
        """See ``Store.parked``."""
        return await self._ask(lambda c: reads.read_parked(c, limit))

    # One transaction each.

    async def _change(self, work: Work[Result]) -> Result:
        return await self._repeat(lambda: self._transact(work))

    async def _ask(self, work: Work[Result]) -> Result:
        return await self._repeat(lambda: self._read(work))

    async def _repeat(self, run: Callable[[], Awaitable[Result]]) -> Result:
        """Run a transaction, again when that helps; to do it twice is to do it once [R-2]."""
        for _ in range(_TRIES_MAX):
            try:
                return await run()
            except SQLAlchemyError as error:
                if not self._may_repeat(error):
                    raise StoreUnavailableError.of(error) from error
            except OSError as error:  # What the network says reaches us as it is.
                raise StoreUnavailableError.of(error) from error
        raise ContentionError(f"others changed the same rows {_TRIES_MAX} times in a row")

    def _accept_statement(
        self, connection: Connection, given: StatementRow, expected_ordinal: int
    ) -> Accepted:
        self._hold_directory(connection)
        head = lock_log(connection)
        known = reads.find_statements(connection, self._among, [given.hash])
        if known:
            # SPEC: a known id returns the original promise and changes nothing.
            return _accepted(_Integration(head), statements=(known[given.hash],))
        _require_directory(head, expected_ordinal)
        head = replace(head, statements=head.statements + 1)
        connection.execute(update(tables.head).values(statements=head.statements))
        row = replace(given, ordinal=head.statements, boxes=(), previous=None)
        self._insert_boxes(connection, given, head.statements)
        done = self._integrate(connection, head, [row])
        placed = {found.hash: found for found in done.rows if isinstance(found, StatementRow)}
        return _accepted(done, statements=(placed.get(row.hash, row),))

    def _accept_notice(
        self,
        connection: Connection,
        row: NoticeRow,
        statements: int,
        bury: Callable[[Sequence[Copy]], None],
    ) -> Accepted:
        self._hold_directory(connection)
        head = lock_log(connection)
        known = given.find_notices(connection, self._among, [row.hash])
        if known:
            # SPEC: a known id returns the original promise and changes nothing.
            return replace(_accepted(_Integration(head)), notices=(known[row.hash],))
        _require_directory(head, statements)
        self._carry_out(connection, row, bury)
        done = self._integrate(connection, reads.read_head(connection), [row])
        placed = {found.hash: found for found in done.rows if isinstance(found, NoticeRow)}
        return replace(_accepted(done), notices=(placed.get(row.hash, row),))

    def _carry_out(
        self, connection: Connection, row: NoticeRow, bury: Callable[[Sequence[Copy]], None]
    ) -> None:
        """Do what a notice says."""
        match row.kind:
            case "erase":
                # SPEC [H-4]: what is on hold is not erased by any desk. Nobody can take a hold
                # between this look and the commit.
                if erasure.is_held(connection, self._among, row.envelope_ids):
                    raise OnHoldError("a desk holds an envelope that the notice would erase")
                copies = [Copy(id_, row.desk or b"") for id_ in row.envelope_ids]
                # SPEC: an erasure is carried out again after a restore, so it is on disk
                # elsewhere before this database loses anything.
                bury(copies)
                erasure.erase(connection, self._among, copies)
            case "hold":
                erasure.hold(connection, row.envelope_ids, row.desk or b"")
            case "release":
                erasure.release(connection, self._among, row.envelope_ids, row.desk or b"")
            case _:
                pass

    def _erase(self, connection: Connection, copies: Sequence[Copy], *, but_for_held: bool) -> int:
        self._hold_directory(connection)
        lock_log(connection)
        if but_for_held:
            copies = erasure.without_held(connection, self._among, copies)
        return erasure.erase(connection, self._among, copies)

    def _expire(
        self, connection: Connection, desk: bytes, kind: int, below_index: int, limit: int
    ) -> int:
        self._hold_directory(connection)
        lock_log(connection)
        copies = erasure.find_expired(connection, desk, kind, below_index, limit)
        return erasure.erase(connection, self._among, copies)

    def _accept_and_integrate(
        self,
        connection: Connection,
        envelopes: Sequence[EnvelopeRow],
        receipts: Sequence[ReceiptRow],
        statements: int,
        erasures: int | None,
    ) -> Accepted:
        head = lock_log(connection)
        batch = self._compare(connection, envelopes, receipts)
        if batch.new:
            _require_directory(head, statements)
            _require_erasures(head, erasures)
        return batch.answer(self._integrate(connection, head, batch.new))

    def _accept_as_pending(
        self,
        connection: Connection,
        envelopes: Sequence[EnvelopeRow],
        receipts: Sequence[ReceiptRow],
        statements: int,
        erasures: int | None,
    ) -> Accepted:
        self._share_directory(connection)
        head = reads.read_head(connection)
        batch = self._compare(connection, envelopes, receipts)
        if batch.new:
            _require_directory(head, statements)
            _require_erasures(head, erasures)
            self._insert_pending(connection, batch.new)
        return batch.answer(_Integration(head))

    def _compare(
        self,
        connection: Connection,
        envelopes: Sequence[EnvelopeRow],
        receipts: Sequence[ReceiptRow],
    ) -> "_Batch":
        """Find out what of a batch is there already."""
        ids, hashes = [row.id for row in envelopes], [row.hash for row in receipts]
        return _Batch(
            envelopes,
            receipts,
            reads.find_envelopes(connection, self._among, ids) if ids else {},
            reads.find_receipts(connection, self._among, hashes) if hashes else {},
        )

    # Integration.

    def _integrate(self, connection: Connection, head: Head, own: Sequence[Row]) -> _Integration:
        """Give their places to what is pending and then to rows that are not stored yet.

        When more is pending than one transaction takes, the own rows queue behind it. While a
        restored database is repaired, everything queues: counters are not known before its end.
        """
        if is_repairing(connection):
            self._insert_pending(connection, own)
            return _Integration(head)
        waiting = connection.execute(
            select(tables.pending).order_by(tables.pending.c.arrival).limit(PENDING_ROWS_MAX + 1)
        ).all()
        if len(waiting) > PENDING_ROWS_MAX:
            self._insert_pending(connection, own)
            waiting, own = waiting[:PENDING_ROWS_MAX], ()
        found, poison = self._take_pending(connection, waiting) if waiting else ([], [])
        step = self._write(connection, head, found, own)
        return _Integration(step.head, step.rows, tuple(poison))

    def _take_pending(
        self, connection: Connection, waiting: Sequence[Any]
    ) -> tuple[list[Row], list[Parked]]:
        """Empty the queue of these rows; give what they stand for, and what has to be parked."""
        rows = self._load(connection, waiting)
        good: list[Row] = []
        poison: list[Parked] = []
        for entry in waiting:
            row = rows.get(entry.key)
            reason = _why_poison(row)
            # SPEC: a poison pending row is parked and reported, and never stops the
            # integrator.
            if row is None or reason is not None:
                poison.append(Parked(Kind(entry.kind), entry.key, reason or "not stored"))
            else:
                good.append(row)
        arrivals = [entry.arrival for entry in waiting]
        connection.execute(
            delete(tables.pending).where(self._among(tables.pending.c.arrival, arrivals))
        )
        parked = [(entry.kind.value, entry.key, entry.reason) for entry in poison]
        self._insert(connection, tables.parked, parked)
        return good, poison

    def _load(self, connection: Connection, waiting: Sequence[Any]) -> dict[bytes, Row]:
        """Read what pending rows stand for, by key."""
        keys: dict[str, list[bytes]] = {kind: [] for kind in Kind}
        for entry in waiting:
            keys[entry.kind].append(entry.key)
        return {
            **reads.find_statements(connection, self._among, keys[Kind.STATEMENT]),
            **reads.find_envelopes(connection, self._among, keys[Kind.ENVELOPE]),
            **reads.find_receipts(connection, self._among, keys[Kind.RECEIPT]),
            **given.find_notices(connection, self._among, keys[Kind.NOTICE]),
        }

    def _write(
        self, connection: Connection, head: Head, stored: Sequence[Row], new: Sequence[Row]
    ) -> Step:
        """Place rows that are stored already and then new ones; write what that adds to the log."""
        rows = [*stored, *new]
        counters = self._counters(connection, mailboxes_of(rows))
        step = grow(head, Frontier.parse(head.frontier), counters, rows)
        if not rows:
            return step
        self._write_places(connection, step.rows[: len(stored)])
        self._insert_objects(connection, step.rows[len(stored) :])
        for table, values in _growth(step):
            self._insert(connection, table, values)
        connection.execute(
            update(tables.head).values(
                size=step.head.size, root=step.head.root, frontier=step.head.frontier
            )
        )
        return step

    def _counters(self, connection: Connection, desks: Collection[bytes]) -> dict[bytes, int]:
        """Read the last counters of mailboxes; the lock of the head row keeps them as they are."""
        mailboxes = tables.mailboxes
        query = select(mailboxes).where(self._among(mailboxes.c.desk, list(desks)))
        return {row.desk: row.counter for row in connection.execute(query)} if desks else {}

    # Writing rows.

    def _insert_pending(self, connection: Connection, rows: Sequence[Row]) -> None:
        self._insert_objects(connection, rows)
        queued = [(_kind(row).value, _key(row)) for row in rows]
        self._insert(connection, tables.pending, queued)

    def _insert_objects(self, connection: Connection, rows: Sequence[Row]) -> None:
        for table, values in _objects(rows):
            self._insert(connection, table, values)

    def _insert_boxes(self, connection: Connection, row: StatementRow, ordinal: int) -> None:
        boxes = [(row.desk, device, epoch, ordinal, box) for epoch, device, box in row.boxes]
        self._insert(connection, tables.epoch_boxes, boxes)
        if row.previous is not None:
            epoch, previous = row.previous
            self._insert(connection, tables.previous_epochs, [(row.desk, epoch, ordinal, previous)])

    def _write_places(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Fill in the places of rows that were stored without."""
        for kind, query in _WRITE_PLACES.items():
            places = [_place_values(row) for row in rows if _kind(row) is kind]
            if places:
                connection.execute(query, places)


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch to accept, beside what of it was stored before."""

    envelopes: Sequence[EnvelopeRow]
    receipts: Sequence[ReceiptRow]
    known_envelopes: Mapping[bytes, EnvelopeRow]
    known_receipts: Mapping[bytes, ReceiptRow]

    @property
    def new(self) -> list[Row]:
        """What is not stored yet; of an id that comes twice the first."""
        known = self.known_envelopes.keys() | self.known_receipts.keys()
        given: list[Row] = [*self.envelopes, *self.receipts]
        rows: dict[bytes, Row] = {}
        for row in given:
            if _key(row) not in known:
                rows.setdefault(_key(row), row)
        return list(rows.values())

    def answer(self, done: _Integration) -> Accepted:
        """Give the stored row for each that was given."""
        # SPEC: a known id returns the original promise and changes nothing.
        envelopes = {row.id: row for row in reversed(self.envelopes)}
        envelopes |= {row.id: row for row in done.rows if isinstance(row, EnvelopeRow)}
        envelopes |= self.known_envelopes
        receipts = {row.hash: row for row in reversed(self.receipts)}
        receipts |= {row.hash: row for row in done.rows if isinstance(row, ReceiptRow)}
        receipts |= self.known_receipts
        return replace(
            _accepted(done),
            envelopes=tuple(envelopes[row.id] for row in self.envelopes),
            receipts=tuple(receipts[row.hash] for row in self.receipts),
        )


_INDEX: Final[dict[str, Any]] = {"leaf_index": bindparam("index_")}

_WRITE_PLACES: Final = {
    Kind.STATEMENT: update(tables.statements)
    .where(tables.statements.c.hash == bindparam("key_"))
    .values(_INDEX),
    Kind.ENVELOPE: update(tables.envelopes)
    .where(tables.envelopes.c.id == bindparam("key_"))
    .values({**_INDEX, "counters": bindparam("counters_")}),
    Kind.RECEIPT: update(tables.receipts)
    .where(tables.receipts.c.hash == bindparam("key_"))
    .values(_INDEX),
    Kind.NOTICE: update(tables.notices)
    .where(tables.notices.c.hash == bindparam("key_"))
    .values(_INDEX),
}


def create_tables(connection: Connection) -> None:
    """Create the tables of an empty database; refuse those of another version.

    The caller keeps others from doing the same at the same time.

    Raises:
        SchemaError: The tables are of another version.
    """
    if not inspect(connection).has_table(tables.schema_version.name):
        tables.metadata.create_all(connection)
        connection.execute(insert(tables.schema_version).values(version=tables.SCHEMA_VERSION))
        empty = Frontier()
        connection.execute(
            insert(tables.head).values(
                id=1,
                size=empty.size,
                root=empty.root,
                frontier=empty.serialize(),
                statements=0,
                incarnation=secrets.token_bytes(_INCARNATION_BYTES),
                erasures=0,
            )
        )
    version = connection.execute(select(tables.schema_version.c.version)).scalar_one()
    if version != tables.SCHEMA_VERSION:
        raise SchemaError(
            f"database has tables of version {version}, expected {tables.SCHEMA_VERSION}"
        )


def inserted_columns(table: Table) -> list[Column[Any]]:
    """The columns that ``SqlStore._insert`` fills; the database numbers the others itself."""
    return [column for column in table.columns if column.autoincrement is not True]


TableRows = tuple[Table, Sequence[tuple[object, ...]]]
"""A table, and rows for it as ``inserted_columns`` has them."""


def rows_of(step: Step) -> list[TableRows]:
    """Give everything that a step of new rows inserts, table by table; none of the rows is none."""
    return [(table, values) for table, values in (*_objects(step.rows), *_growth(step)) if values]


def _objects(rows: Sequence[Row]) -> tuple[TableRows, ...]:
    envelopes = [envelope_values(row) for row in rows if isinstance(row, EnvelopeRow)]
    receipts = [receipt_values(row) for row in rows if isinstance(row, ReceiptRow)]
    statements = [statement_values(row) for row in rows if isinstance(row, StatementRow)]
    notices = [notice_values(row) for row in rows if isinstance(row, NoticeRow)]
    return (
        (tables.envelopes, envelopes),
        (tables.receipts, receipts),
        (tables.statements, statements),
        (tables.notices, notices),
    )


def _growth(step: Step) -> tuple[TableRows, ...]:
    return (
        (tables.leaves, step.leaves),
        (tables.tile_hashes, step.tiles),
        (tables.mailbox_items, step.items),
        (tables.mailboxes, list(step.counters.items())),
        (tables.receipt_readers, step.receipt_readers),
        (tables.notice_readers, step.notice_readers),
    )


def _require_directory(head: Head, statements: int) -> None:
    if head.statements != statements:
        # SPEC: an object accepted under an older directory than the newest is refused, so
        # that a removal is effective at once.
        raise DirectoryMovedError(statements, head.statements)


def _require_erasures(head: Head, erasures: int | None) -> None:
    # SPEC: a reference is refused unless the wraps are here, also when they went between the
    # look and the commit.
    if erasures is not None and head.erasures != erasures:
        raise ErasuresMovedError(erasures, head.erasures)


def _accepted(done: _Integration, statements: tuple[StatementRow, ...] = ()) -> Accepted:
    return Accepted(
        statements=statements,
        envelopes=(),
        receipts=(),
        integrated=done.rows,
        parked=done.parked,
        head=done.head,
    )


def _why_poison(row: Row | None) -> str | None:
    """Why a pending row can never be integrated; None when it can."""
    if row is None:
        return "nothing is stored under this key"
    if row.leaf_index is not None:
        return f"has leaf index {row.leaf_index} already"
    if isinstance(row, EnvelopeRow) and not row.recipients:
        return "envelope has no recipients"
    return None


def _kind(row: Row) -> Kind:
    match row:
        case StatementRow():
            return Kind.STATEMENT
        case EnvelopeRow():
            return Kind.ENVELOPE
        case ReceiptRow():
            return Kind.RECEIPT
        case NoticeRow():
            return Kind.NOTICE
        case _:
            assert_never(row)


def _key(row: Row) -> bytes:
    return row.id if isinstance(row, EnvelopeRow) else row.hash


def _place_values(row: Row) -> dict[str, object]:
    values: dict[str, object] = {"key_": _key(row), "index_": row.leaf_index}
    if isinstance(row, EnvelopeRow):
        values["counters_"] = pack_counters(row.counters or ())
    return values
