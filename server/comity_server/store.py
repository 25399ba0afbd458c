"""What the relay keeps, in the words of its domain: the types and the ``Store`` that holds them.

Two databases implement ``Store`` (``store_sqlite``, ``store_postgresql``; ``stores.open_store``
picks one by its URL) and one contract test suite runs on both. Nothing here touches a database, and
nothing behind it decides anything: the caller has verified every signature and every rule before
it calls, and passes in what the decision rested on, so that the store can refuse when that moved.

Rules:

* [R-1] The relay acknowledges only after a durable commit: when a method returns, its transaction
  is on disk. A method that raises, or whose caller is cancelled, has changed all or nothing; the
  caller cannot know which and asks again, which [R-2] makes harmless.
* [R-2] A known id returns the original promise and changes nothing.
* [R-3] Leaf index and mailbox counters are assigned together, without gaps, in the order of
  integration.
* [R-4] The relay refuses to start on database settings that can lose what it promised.
* [R-5] Index order is the order of integration; a database sequence is never the index.
* [R-6] An object accepted under an older directory than the newest is refused, so that a removal
  is effective at once.
* [R-7] A poison pending row is parked and reported, and never stops the integrator.
* [H-4] What is on hold is not erased: ``accept_notice`` refuses, ``expire`` passes it over.

One method is one transaction. *Accepted* means stored durably, with a promise; *integrated* means
that it has its leaf index and mailbox counters. What is accepted but not integrated is *pending*.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final, NamedTuple, Protocol, Self

from comity_protocol.core import Kind as KeyKind
from comity_protocol.errors import ComityError
from comity_protocol.leaves import CounterProof
from comity_server.vacancies import Repair, Vacancy

PENDING_ROWS_MAX: Final = 1024
"""Pending rows integrated in one transaction: a long backlog must not hold the lock for long."""

MAILBOX_BYTES_MAX: Final = 4 * 1024 * 1024
"""Ciphertext in one page of a mailbox: a page of the largest envelopes must fit in memory."""

AUDIT_KIND: Final = int(KeyKind.AUDIT)
"""The kind of a recipient that is an auditor: it is given the audit part and never the body."""

ERASED_KIND: Final = 3
"""Stands in a mailbox in place of the kind once the desk's copy was erased."""

ERASED_COPIES_MAX: Final = 128
"""Copies erased in one transaction: a long list must not hold the lock for long."""

EVERYONE: Final = b""
"""Stands for every desk among those that are given a notice."""


class Kind(StrEnum):
    """What a leaf of the log stands for."""

    STATEMENT = "statement"
    ENVELOPE = "envelope"
    RECEIPT = "receipt"
    NOTICE = "notice"


class Copy(NamedTuple):
    """One desk's copy of an envelope: what of it is kept for this desk.

    Attributes:
        envelope: Its id, 16 bytes.
        desk: An addressed desk, 16 bytes; an auditor has a copy too.
    """

    envelope: bytes
    desk: bytes


@dataclass(frozen=True, slots=True)
class StatementRow:
    """A signed statement of the directory.

    Attributes:
        hash: Statement hash, 32 bytes; the id by which it is known.
        payload: The signed bytes, as received.
        signatures: Serialized list of ``[signer key id, signature]``, as received.
        kind: Its type on the wire, such as ``removal``.
        desk: The desk whose chain it belongs to, 16 bytes; None for the genesis.
        accepted_at: When the relay promised it, UTC seconds.
        promise: The serialized promise, payload and signature.
        boxes: Epoch boxes that came with it as (epoch, device, box). Only on the way in: rows that
            the store gives back have none, see ``Store.boxes``.
        previous: (epoch, sealed seed of the epoch before it), None when none. Only on the way in.
        ordinal: Its place among all statements, from 1; assigned by the store.
        leaf_index: Its place in the log, from 0; None while pending.
    """

    hash: bytes
    payload: bytes
    signatures: bytes
    kind: str
    desk: bytes | None
    accepted_at: int
    promise: bytes
    boxes: tuple[tuple[int, bytes, bytes], ...] = ()
    previous: tuple[int, bytes] | None = None
    ordinal: int | None = None
    leaf_index: int | None = None


@dataclass(frozen=True, slots=True)
class Recipient:
    """One entry of an envelope's ``to``.

    Attributes:
        desk: The addressed desk, 16 bytes.
        epoch: The epoch of that desk whose key the wrap is sealed to.
        kind: 0 file, 1 lead, 2 audit.
        wrap: The sealed root key; None when the envelope reuses the wraps of the one it names, and
            once no copy of this desk needs it.
        is_erased: Whether this desk's copy was erased.
    """

    desk: bytes
    epoch: int
    kind: int
    wrap: bytes | None
    is_erased: bool = False


@dataclass(frozen=True, slots=True)
class EnvelopeRow:
    """A sealed envelope and its recipients.

    Attributes:
        id: 16 bytes, chosen by the sender; the id by which it is known.
        core_hash: Hash of ``core``, 32 bytes. A known id with another one is another envelope: the
            store gives back the row that it has, and the caller compares.
        core: The signed bytes, as received.
        signature: The sending device's signature over ``core``, 64 bytes.
        body: Ciphertext for the addressed desks that are not auditors; empty once none of them has
            a copy.
        audit: Ciphertext for all addressed desks; empty once none of them has a copy.
        sender_desk: 16 bytes.
        sender_device: 16 bytes.
        recipients: In the order of ``to`` in the core.
        accepted_at: When the relay promised it, UTC seconds.
        promise: The serialized promise, payload and signature.
        blind: 16 bytes that the relay derives from its key for this envelope: they hide each
            recipient's counter from the others [L-7].
        ref: The envelope whose wraps this one reuses; it must be in the store. None when it brings
            its own wraps.
        leaf_index: Its place in the log, from 0; None while pending.
        counters: Its place, from 1, in the mailbox of each recipient, in their order; None while
            pending.
        commitments: To the counters, when they were made already; ``commitments_of`` makes them.
    """

    id: bytes
    core_hash: bytes
    core: bytes
    signature: bytes
    body: bytes
    audit: bytes
    sender_desk: bytes
    sender_device: bytes
    recipients: tuple[Recipient, ...]
    accepted_at: int
    promise: bytes
    blind: bytes
    ref: bytes | None = None
    leaf_index: int | None = None
    counters: tuple[int, ...] | None = None
    commitments: tuple[bytes, ...] | None = field(default=None, compare=False, repr=False)

    def placed(
        self, leaf_index: int, counters: tuple[int, ...], commitments: tuple[bytes, ...]
    ) -> "EnvelopeRow":
        """Give the same envelope with its places.

        Written out, because ``dataclasses.replace`` takes as long as everything else that is done
        to an envelope in memory.
        """
        return EnvelopeRow(
            self.id,
            self.core_hash,
            self.core,
            self.signature,
            self.body,
            self.audit,
            self.sender_desk,
            self.sender_device,
            self.recipients,
            self.accepted_at,
            self.promise,
            self.blind,
            self.ref,
            leaf_index,
            counters,
            commitments,
        )


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """A recipient's signed word that it holds and can open some envelopes of one sender.

    Attributes:
        hash: ``digest(LEAF_RECEIPT, payload)``, 32 bytes; the id by which it is known.
        payload: The signed bytes, as received.
        signature: The device's signature over ``payload``, 64 bytes.
        desk: The desk that holds the envelopes.
        sender_desk: The desk that sent them.
        envelope_ids: Ascending, 16 bytes each.
        accepted_at: When the relay promised it, UTC seconds.
        promise: The serialized promise, payload and signature.
        readers: Auditors that one of the envelopes addresses; they are given it too.
        leaf_index: Its place in the log, from 0; None while pending.
    """

    hash: bytes
    payload: bytes
    signature: bytes
    desk: bytes
    sender_desk: bytes
    envelope_ids: tuple[bytes, ...]
    accepted_at: int
    promise: bytes
    readers: tuple[bytes, ...] = ()
    leaf_index: int | None = None


@dataclass(frozen=True, slots=True)
class NoticeRow:
    """What a desk, or the relay, says about envelopes.

    Attributes:
        hash: ``digest(LEAF_NOTICE, payload)``, 32 bytes; the id by which it is known.
        payload: The signed bytes, as received.
        signature: The fast signature over ``payload``, 64 bytes.
        kind: Its type on the wire, such as ``erase``.
        desk: Whose word it is; None for the relay's own.
        envelope_ids: What it is about, 16 bytes each; an erasure, a hold and a release change
            these. Only on the way in: rows that the store gives back have none.
        readers: The desks that are given it: those that the envelopes address, or ``EVERYONE``.
        accepted_at: When the relay promised it, UTC seconds.
        promise: The serialized promise, payload and signature.
        leaf_index: Its place in the log, from 0; None while pending.
    """

    hash: bytes
    payload: bytes
    signature: bytes
    kind: str
    desk: bytes | None
    envelope_ids: tuple[bytes, ...]
    readers: tuple[bytes, ...]
    accepted_at: int
    promise: bytes
    leaf_index: int | None = None


Row = StatementRow | EnvelopeRow | ReceiptRow | NoticeRow
"""Anything that becomes a leaf."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log stands.

    Attributes:
        size: Leaves integrated so far.
        root: RFC 6962 root hash of these leaves, 32 bytes.
        frontier: ``merkle.Frontier`` of these leaves, serialized.
        statements: Ordinal of the newest accepted statement, 0 when there is none.
        incarnation: 16 random bytes drawn when this database was created. Cursors and promises
            carry it, so that a client notices a relay that was set up anew.
        erasures: How often copies were erased. What was known of wraps before may not hold after.
    """

    size: int
    root: bytes
    frontier: bytes
    statements: int
    incarnation: bytes
    erasures: int = 0


@dataclass(frozen=True, slots=True)
class Parked:
    """A pending row that could not be integrated; an operator must look at it.

    Attributes:
        kind: What it is.
        key: Its hash or id.
        reason: Why, safe to log.
    """

    kind: Kind
    key: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """What one transaction did.

    Attributes:
        statements: For each statement given, the stored row.
        envelopes: For each envelope given, in that order, the stored row: the given one, or what
            was there already under its id.
        receipts: The same for receipts.
        integrated: Everything that got its leaf index just now, in leaf order, whoever accepted it.
        parked: What was taken out of the pending rows just now because it can never be integrated.
        head: Where the log stands after it.
        notices: For each notice given, the stored row.
    """

    statements: tuple[StatementRow, ...]
    envelopes: tuple[EnvelopeRow, ...]
    receipts: tuple[ReceiptRow, ...]
    integrated: tuple[Row, ...]
    parked: tuple[Parked, ...]
    head: Head
    notices: tuple[NoticeRow, ...] = ()


@dataclass(frozen=True, slots=True)
class MailboxItem:
    """One envelope as one recipient gets it.

    Attributes:
        counter: Its place in this mailbox, from 1 without gaps.
        leaf_index: Its place in the log.
        core: The signed core.
        signature: The sending device's signature over it.
        body: The body's ciphertext; None for an auditor, and once this desk's copy was erased.
        audit: The audit record's ciphertext; empty once it was erased, for an auditor with its
            copy.
        wrap: This desk's wrap; None when the envelope reuses one, see ``Store.wrap``, and once
            this desk's copy was erased.
        proof: With the counter, what this desk needs to recompute the leaf.
    """

    counter: int
    leaf_index: int
    core: bytes
    signature: bytes
    body: bytes | None
    audit: bytes
    wrap: bytes | None
    proof: CounterProof


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A published checkpoint with its cosignatures.

    Attributes:
        size: Leaves that it covers.
        note: The C2SP signed note.
        note_hash: Hash of the note, 32 bytes; what ``seen`` in a core names.
        at: When it was published, UTC seconds.
    """

    size: int
    note: bytes
    note_hash: bytes
    at: int


@dataclass(frozen=True, slots=True)
class Placed:
    """What one step of giving counters again did.

    Attributes:
        rows: Envelopes that have their counters now, in leaf order.
        refused: Ids of envelopes whose counters did not make the entry; they are not kept.
        is_done: Whether no vacancy is left to go through.
    """

    rows: tuple[EnvelopeRow, ...]
    refused: tuple[bytes, ...]
    is_done: bool


class StoreError(ComityError):
    """The store cannot do what it was asked; the message says what to do."""


class DamagedRowError(StoreError):
    """A row is none that this program ever wrote: the database was damaged or altered."""

    remedy: ClassVar[str] = "stop the relay and look with comity-relay fsck which row it is"


class UnsafeStoreError(StoreError):
    """The database is set up so that it can lose what the relay has promised [R-4]."""

    remedy: ClassVar[str] = "change the setting that the message names, then start the relay again"


class SchemaError(StoreError):
    """The database holds another version of the tables than this program was written for."""

    remedy: ClassVar[str] = "start the version of the relay that wrote it, or restore a backup"


class DirectoryMovedError(StoreError):
    """A statement was accepted after the directory that a decision rested on [R-6].

    The caller reads the new statements, applies them, decides again and calls again.

    Attributes:
        newest: Ordinal of the newest accepted statement.
    """

    remedy: ClassVar[str] = "try again"

    def __init__(self, expected: int, newest: int) -> None:
        """Name both ordinals; the caller reads the statements after ``expected``."""
        super().__init__(f"directory is at statement {newest}, expected {expected}")
        self.newest = newest


class ErasuresMovedError(StoreError):
    """Copies were erased after the wraps were looked for on which a decision rested [R-11].

    Attributes:
        newest: How often copies were erased by now.
    """

    remedy: ClassVar[str] = "try again"

    def __init__(self, expected: int, newest: int) -> None:
        """Name both counts; the caller forgets what it knew of wraps, and looks again."""
        super().__init__(f"copies were erased {newest} times, expected {expected}")
        self.newest = newest


class OnHoldError(StoreError):
    """A copy cannot be erased, because a desk holds the envelope [H-4]; nothing was changed."""

    remedy: ClassVar[str] = "ask the desk that holds it to release it"


class ContentionError(StoreError):
    """Others kept accepting the same ids at the same time; nothing was changed."""

    remedy: ClassVar[str] = "try again"


class StoreUnavailableError(StoreError):
    """The database cannot be reached or has failed; whether a change was made is unknown."""

    remedy: ClassVar[str] = "try again in a minute; the operator has to look at the database"

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Name the kind of an error only: its text may hold keys and addresses."""
        return cls(f"database failed with {type(error).__name__}")


class Store(Protocol):
    """Keeps what the relay has accepted. Safe to share between tasks, processes and hosts."""

    async def open(self) -> None:
        """Connect, check that what is committed stays, and create the tables when there are none.

        Raises:
            UnsafeStoreError: A setting can lose committed rows; the message names it [R-4].
            SchemaError: The tables are of another version.
        """

    async def close(self) -> None:
        """Let go of all connections. Harmless when called twice."""

    async def head(self) -> Head:
        """Where the log stands."""

    async def accept_statement(self, row: StatementRow, *, expected_ordinal: int) -> Accepted:
        """Store one statement with its boxes and integrate it, after everything pending.

        Args:
            row: Verified against the directory of ``expected_ordinal``. Without ordinal.
            expected_ordinal: Ordinal of the newest statement that the caller has applied.

        Returns:
            ``statements`` holds the stored row, which is the original one when the hash is known
            [R-2]; its ordinal is ``expected_ordinal + 1`` when it is new.

        Raises:
            DirectoryMovedError: It is new, and another statement was accepted meanwhile [R-6].
        """

    async def accept(
        self,
        envelopes: Sequence[EnvelopeRow],
        receipts: Sequence[ReceiptRow],
        *,
        statements: int,
        integrate: bool,
        erasures: int | None = None,
    ) -> Accepted:
        """Store a batch in one transaction: what is new is inserted, what is known is given back.

        Args:
            envelopes: Verified; at most 128 rows with the receipts. An id may stand here twice.
            receipts: Verified, likewise.
            statements: Ordinal of the newest statement in the directory they were verified with.
            integrate: Whether to integrate them too, after everything pending. Otherwise they stay
                pending for the integrator. The caller who holds the lease says True; saying it
                without the lease costs waiting but breaks nothing.
            erasures: How often copies had been erased when the wraps were looked for to which they
                refer; None when none of them refers to others' wraps.

        Raises:
            DirectoryMovedError: Another statement was accepted meanwhile [R-6]; nothing is stored.
            ErasuresMovedError: Copies were erased meanwhile; nothing is stored.
            ContentionError: The same ids were being accepted elsewhere, again and again.
        """

    async def accept_notice(
        self, row: NoticeRow, *, statements: int, bury: Callable[[Sequence[Copy]], None]
    ) -> Accepted:
        """Store one notice, do what it says, and integrate it, after everything pending.

        An erasure takes away the desk's copies, a hold keeps everybody's, a release ends a hold of
        the same desk; the others change nothing.

        Args:
            row: Verified. Its envelopes have their places and address its desk.
            statements: Ordinal of the newest statement in the directory it was verified with.
            bury: Called with the copies before an erasure is committed, when nothing can refuse it
                any more; it must be on disk when this returns. It may be called again with the
                same copies.

        Returns:
            ``notices`` holds the stored row, which is the original one when the hash is known
            [R-2].

        Raises:
            DirectoryMovedError: It is new, and another statement was accepted meanwhile [R-6].
            OnHoldError: It is an erasure, and one of the envelopes is on hold [H-4].
        """

    async def erase(self, copies: Sequence[Copy], *, but_for_held: bool = False) -> int:
        """Take copies away, on hold or not; one that is gone or was never there does not matter.

        Args:
            copies: At most ``ERASED_COPIES_MAX``, erased once before and now found again.
            but_for_held: Whether to pass over what is on hold [H-4], because it is not known
                whether they were erased before.

        Returns:
            How many there were.
        """

    async def expire(self, desk: bytes, kind: int, *, below_index: int, limit: int) -> int:
        """Take away a desk's oldest copies; what is on hold is passed over [H-4].

        Args:
            desk: Whose copies.
            kind: 0 file, 1 lead, 2 audit.
            below_index: Only of envelopes whose leaf index is smaller.
            limit: At most so many, and at most ``ERASED_COPIES_MAX``.

        Returns:
            How many it took; fewer than ``limit`` when no more are left.
        """

    async def index_at(self, instant: int) -> int:
        """The leaf index below which all envelopes were accepted before an instant, UTC seconds.

        Clocks of several processes differ, so this is right but for the difference.
        """

    async def superseded_below(self, desk: bytes, instant: int) -> int:
        """The leaf index of a desk's newest epoch that was accepted before an instant.

        Every envelope to the desk below it is sealed to an earlier epoch [R-8]; 0 when there is
        none.
        """

    async def scrub(self) -> bool:
        """Make what was erased unreadable in the database's own files, as far as that goes.

        SQLite: deleted content is zeroed, and the write-ahead log emptied. PostgreSQL: the space is
        given back by VACUUM, which does not zero it.

        Returns:
            Whether it is done; otherwise somebody was reading, and it has to be called again.
        """

    async def notices(self, desk: bytes, after_index: int, limit: int) -> list[NoticeRow]:
        """Integrated notices that a desk is given, by ascending leaf index; -1 for the first."""

    async def integrate(self) -> Accepted:
        """Integrate up to ``PENDING_ROWS_MAX`` pending rows; call again until it gives none."""

    async def statements(
        self, after_ordinal: int, limit: int, *, below_index: int | None = None
    ) -> list[StatementRow]:
        """Statements in ascending order, without their boxes.

        Args:
            after_ordinal: Start after this one; 0 for the first.
            limit: At most so many.
            below_index: Only those with a leaf index below this one, such as the size of the
                witnessed checkpoint. None for all, also those that are still pending.
        """

    async def boxes(
        self, desk: bytes, device: bytes
    ) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
        """Epoch boxes of a device and the chain of previous seeds of its desk.

        Returns:
            Two lists by ascending epoch, one entry an epoch: (epoch, box), (epoch, previous).
        """

    async def mailbox(self, desk: bytes, after_counter: int, limit: int) -> list[MailboxItem]:
        """Integrated envelopes addressed to a desk, by ascending counter.

        Args:
            desk: Whose mailbox.
            after_counter: Start after this one; 0 for the first.
            limit: At most so many, and at most ``MAILBOX_BYTES_MAX`` unless the first one alone is
                larger. So a short page does not mean that there is no more; an empty one does.
        """

    async def wrap(self, envelope_id: bytes, desk: bytes) -> bytes | None:
        """The wrap with which a desk opens an envelope, its own or that of the envelope it names.

        Returns:
            None when there is no such envelope or the desk is not addressed.
        """

    async def envelope(self, envelope_id: bytes) -> EnvelopeRow | None:
        """One envelope with its recipients and their wraps, pending or integrated."""

    async def cores(self, envelope_ids: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """The cores of these envelopes, by id.

        An id is missing when there is no such envelope or it is pending; so what rests on it must
        be refused.
        """

    async def receipts(self, desk: bytes, after_index: int, limit: int) -> list[ReceiptRow]:
        """Integrated receipts that a desk is given, by ascending leaf index; -1 for the first.

        They are for envelopes that it sent, or that address it as an auditor.
        """

    async def leaves(self, start: int, count: int) -> list[bytes]:
        """Leaf data, 65 bytes each, from leaf ``start``; fewer when the log ends before."""

    async def hashes(self, level: int, start: int, count: int) -> list[bytes]:
        """Hashes of a tile level from position ``start``; fewer when it ends before.

        Args:
            level: 0 for leaf hashes, 1 for one hash of each complete 256 leaves, 2 for one of each
                complete 65,536 and so on.
            start: From 0.
            count: At most so many.

        Source: C2SP tlog-tiles.
        """

    async def publish_checkpoint(self, size: int, note: bytes, note_hash: bytes, at: int) -> None:
        """Keep a witnessed checkpoint from now on. Harmless when it is there already."""

    async def newest_checkpoint(self) -> Checkpoint | None:
        """The one of the largest size, and of those the last published; None before the first."""

    async def first_checkpoint_over(self, index: int) -> Checkpoint | None:
        """The first published one that covers a leaf; None while none does."""

    async def checkpoints(self, after_size: int, skip: int, limit: int) -> list[Checkpoint]:
        """Published ones by ascending size, and of one size by ascending age.

        Args:
            after_size: Only larger ones; -1 for all. A quiet log publishes many of one size.
            skip: Leave out so many of them, which the caller has already.
            limit: At most so many.
        """

    async def keep_anchor(self, day: int, size: int, note: bytes) -> None:
        """Keep the anchor of a day, if that day has none yet.

        Args:
            day: Days since 1970-01-01 UTC.
            size: Leaves that it covers.
            note: With the log's signature and the ML-DSA-44 cosignatures of a quorum.
        """

    async def has_anchor(self, day: int) -> bool:
        """Whether the anchor of a day is there."""

    async def anchors(self, after_size: int, skip: int, limit: int) -> list[bytes]:
        """Notes of anchors by ascending size, and of one size by day; see ``checkpoints``."""

    async def has_checkpoint(self, note_hash: bytes) -> bool:
        """Whether a checkpoint with this hash was ever published here."""

    async def take_lease(self, name: str, holder: str, *, until: int, now: int) -> bool:
        """Take or prolong a lease that nobody else holds.

        A lease spares contention and nothing else: [R-3] holds without it.

        Args:
            name: Of the job, such as ``integrator``.
            holder: Who asks; the same text prolongs.
            until: When it ends by itself, UTC seconds.
            now: UTC seconds; a lease that ended before is free.

        Returns:
            Whether ``holder`` holds it now.
        """

    async def parked(self, limit: int) -> list[Parked]:
        """What was parked and still waits for an operator, oldest first [R-7]."""

    # A restored database. While there is a repair, nothing is integrated; see ``store_repair``.

    async def repair(self) -> Repair | None:
        """The repair that is not finished; None when there is none."""

    async def refill(
        self, leaves: Sequence[bytes], *, expected_size: int, at: int, seconds: int
    ) -> Head:
        """Append entries that the database lost, each with a vacancy, and begin a repair.

        What is pending and fits takes its place.

        Args:
            leaves: Verified against a checkpoint; they continue the log at ``expected_size``.
            expected_size: Entries that the log has; when it has others, nothing is changed.
            at: When the repair begins, UTC seconds; a repair that is there keeps its own.
            seconds: How long the members are waited for, likewise.

        Returns:
            Where the log stands.
        """

    async def vacancies(self, tags: Sequence[bytes]) -> Mapping[bytes, Vacancy]:
        """The vacancies with these tags, by tag; also what is filled and has no counters yet."""

    async def missing(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Leaf indices above ``after``, with tags, of vacancies for which nothing came yet."""

    async def fill(self, row: Row, *, statements: int) -> Row | None:
        """Store what fits a vacancy; a known id gives what is stored, and changes nothing [R-2].

        Only the boxes of a statement that is stored without any are added.

        Args:
            row: Verified. Without places.
            statements: For a statement, the ordinal of the newest one in the directory.

        Returns:
            The stored row, which has its leaf index unless it is an envelope. None when nothing is
            vacant for it, or it is a statement and an earlier one is missing.

        Raises:
            DirectoryMovedError: Another statement was stored meanwhile.
        """

    async def stored(self, kind: Kind, key: bytes) -> Row | None:
        """One object by its hash or id, in its place or not."""

    async def notices_since(self, index: int, limit: int) -> list[NoticeRow]:
        """Notices from a leaf index on, by ascending index, for everyone."""

    async def carry_out(self, row: NoticeRow, *, bury: Callable[[Sequence[Copy]], None]) -> None:
        """Do again what a notice that came back says; see ``accept_notice``.

        Args:
            row: With the envelopes that it is about.
            bury: See ``accept_notice``.

        Raises:
            OnHoldError: It is an erasure, and one of the envelopes is on hold [H-4].
        """

    async def wait_less(self, seconds: int) -> None:
        """Let the members be waited for at most so long from now."""

    async def end_repair(self) -> bool:
        """Let nobody be waited for any more; give whether there is a repair."""

    async def place(self, limit: int) -> Placed:
        """Give the next vacancies their envelopes' counters; from then on nothing is filled.

        Args:
            limit: Of vacancies to go through, in leaf order; fewer when it takes long.
        """

    async def settle(self, desks: Collection[bytes], *, at: int) -> Repair:
        """End all vacancies, and let mailboxes go on above what may have been given.

        The incarnation is a new one.

        Args:
            desks: Every desk that may have been addressed.
            at: UTC seconds.

        Returns:
            The repair with ``lost``; done again it gives the same.
        """

    async def close_repair(self) -> None:
        """Forget a repair that is settled; harmless when there is none."""
