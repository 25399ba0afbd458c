"""What a device remembers, in one SQLite file: what it verified, sent and received.

Bodies stay sealed as they came and are opened on demand; secrets stay in the key store or in
sealed boxes. In the clear are only what the relay or an auditor sees anyway: ids, leaf indexes,
counters, event codes. What was verified is marked, so that it is verified once.

Here live the file, the checkpoint, the directory, boxes and alarms. ``inbox`` and ``outbox`` keep
their tables in the same file and share its transactions.

Rules:

* [B-6] The newest verified checkpoint is never replaced by an older one.
* [B-9] The file is readable by its owner alone.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity_client.files import is_private, sync_folder
from comity_client.snapshot import parse_desk, write_desk
from comity_protocol.chain import Desk
from comity_protocol.checkpoint import note_hash
from comity_protocol.encoding import Value, serialize
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import DeviceId

VERSION: Final = 4
LOCK_SECONDS_MAX: Final = 10
ALARMS_MAX: Final = 1_000
"""Of one kind. One alarm convicts; more only show how far it went."""

_SCHEMA: Final = """
CREATE TABLE pinned (version INTEGER NOT NULL, genesis_hash BLOB NOT NULL, desk BLOB NOT NULL,
    device BLOB NOT NULL) STRICT;
CREATE TABLE genesis (signed BLOB NOT NULL) STRICT;
CREATE TABLE checkpoint (only INTEGER PRIMARY KEY CHECK (only = 1), size INTEGER NOT NULL,
    root BLOB NOT NULL, note BLOB NOT NULL, sealed_at INTEGER NOT NULL) STRICT;
CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE statements (ordinal INTEGER PRIMARY KEY, leaf_index INTEGER NOT NULL UNIQUE,
    payload BLOB NOT NULL, signatures BLOB NOT NULL) STRICT;
CREATE TABLE desks (desk BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE boxes (epoch INTEGER PRIMARY KEY, box BLOB NOT NULL) STRICT;
CREATE TABLE previous (epoch INTEGER PRIMARY KEY, box BLOB NOT NULL) STRICT;
CREATE TABLE alarms (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, text TEXT NOT NULL,
    evidence BLOB NOT NULL, noticed_at INTEGER NOT NULL, UNIQUE (kind, evidence)) STRICT;
CREATE TABLE inbox (
    counter INTEGER PRIMARY KEY, leaf_index INTEGER NOT NULL, envelope BLOB, core BLOB NOT NULL,
    signature BLOB NOT NULL, body BLOB, audit BLOB NOT NULL, wrap BLOB, proof BLOB NOT NULL,
    is_settled INTEGER NOT NULL DEFAULT 0, sealed_at INTEGER, refused TEXT, text TEXT,
    opens INTEGER NOT NULL DEFAULT 0, receipted INTEGER NOT NULL DEFAULT 0,
    again INTEGER NOT NULL DEFAULT 0, seen_size INTEGER,
    sender BLOB, receiver BLOB, kind INTEGER,
    exchange BLOB, event TEXT, head BLOB, profile TEXT, topic TEXT) STRICT;
CREATE INDEX inbox_envelope ON inbox (envelope);
CREATE INDEX inbox_exchange ON inbox (exchange, leaf_index);
CREATE INDEX inbox_unsettled ON inbox (counter) WHERE is_settled = 0;
CREATE INDEX inbox_doubtful ON inbox (counter) WHERE is_settled = 1 AND sealed_at IS NULL;
CREATE INDEX inbox_unreceipted ON inbox (counter) WHERE receipted = 0 AND opens = 1;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY, envelope BLOB NOT NULL UNIQUE, upload BLOB, core_hash BLOB NOT NULL,
    queued_at INTEGER NOT NULL, stage TEXT NOT NULL, promise BLOB, due_at INTEGER, problem TEXT,
    logged_at INTEGER,
    receiver BLOB NOT NULL, kind INTEGER NOT NULL,
    exchange BLOB NOT NULL, event TEXT NOT NULL, head BLOB, profile TEXT, topic TEXT) STRICT;
CREATE INDEX outbox_stage ON outbox (stage, id);
CREATE TABLE replaced (old BLOB PRIMARY KEY, new BLOB NOT NULL) STRICT;
CREATE TABLE gossip (size INTEGER NOT NULL, root BLOB NOT NULL, signature BLOB NOT NULL,
    is_checked INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (size, root)) STRICT;
CREATE TABLE kept (tag BLOB PRIMARY KEY, what BLOB NOT NULL, kind TEXT NOT NULL,
    data BLOB NOT NULL, promise BLOB, due_at INTEGER, sealed_at INTEGER) STRICT;
CREATE INDEX kept_unpromised ON kept (kind) WHERE promise IS NULL;
CREATE INDEX kept_unsealed ON kept (tag) WHERE sealed_at IS NULL;
CREATE TABLE stamps (what BLOB NOT NULL, witness TEXT NOT NULL, at INTEGER NOT NULL,
    signature BLOB NOT NULL, PRIMARY KEY (what, witness)) STRICT;
CREATE TABLE stamped (what BLOB PRIMARY KEY, envelope BLOB NOT NULL, core BLOB NOT NULL,
    signature BLOB NOT NULL, notice BLOB) STRICT;
CREATE INDEX stamped_envelope ON stamped (envelope);
CREATE TABLE checkpoints (hash BLOB PRIMARY KEY, size INTEGER NOT NULL, sealed_at INTEGER NOT NULL)
    STRICT;
CREATE INDEX checkpoints_size ON checkpoints (size, sealed_at);
CREATE TABLE covering (leaf_index INTEGER PRIMARY KEY, sealed_at INTEGER NOT NULL) STRICT;
CREATE TABLE notices (hash BLOB PRIMARY KEY, leaf_index INTEGER NOT NULL, kind TEXT NOT NULL,
    desk BLOB, payload BLOB NOT NULL, signature BLOB NOT NULL, sealed_at INTEGER NOT NULL) STRICT;
CREATE INDEX notices_place ON notices (leaf_index);
CREATE TABLE erased (envelope BLOB PRIMARY KEY, exchange BLOB, basis TEXT NOT NULL,
    notice BLOB NOT NULL, erased_at INTEGER NOT NULL) STRICT;
CREATE TABLE stored (envelope BLOB NOT NULL, desk BLOB NOT NULL, leaf_index INTEGER NOT NULL,
    payload BLOB NOT NULL, signature BLOB NOT NULL, PRIMARY KEY (envelope, desk)) STRICT;
CREATE TABLE given (kind TEXT NOT NULL, readers BLOB NOT NULL, number INTEGER NOT NULL,
    PRIMARY KEY (kind, readers)) STRICT;
CREATE TABLE numbered (kind TEXT NOT NULL, device BLOB NOT NULL, readers BLOB NOT NULL,
    number INTEGER NOT NULL, leaf_index INTEGER NOT NULL, payload BLOB NOT NULL,
    signature BLOB NOT NULL, sealed_at INTEGER NOT NULL,
    PRIMARY KEY (kind, device, readers, number)) STRICT;
"""


class StateError(ComityError):
    """A state file that is missing, damaged, of another version, or of another device."""

    code = "state"
    remedy = (
        "move the file away and synchronise: everything but the outbox comes back from the relay"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """The newest verified checkpoint.

    Attributes:
        note: The signed note as received, with the cosignatures that were verified.
        sealed_at: Its sealed time, UTC seconds, by the witnesses' clocks.
    """

    size: int
    root: bytes
    note: bytes
    sealed_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something that must not happen, with what proves it.

    Attributes:
        kind: Stable word: fork, rollback, unproven, gap, repeat, gossip, box, broken-promise,
            receipt, withheld, clone, notice, unerased.
        text: One sentence, safe to show to anyone.
        evidence: Of a fork and a broken promise, the bytes of a file that convinces a third party;
            of the others, a serialized list of the objects that this device relies on.
        noticed_at: UTC seconds by this machine's clock.
    """

    id: int
    kind: str
    text: str
    evidence: bytes
    noticed_at: int


class State:
    """The file. Each method is one transaction, unless it stands inside ``transaction``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Take an open connection; see ``create_state`` and ``open_state``."""
        self.connection: Final = connection

    @property
    def device(self) -> DeviceId:
        """The device whose memory it is."""
        return DeviceId(self.connection.execute("SELECT device FROM pinned").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run what is inside as one transaction, joining the one under way if there is one."""
        if self._is_busy():
            yield self.connection
            return
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
            self.connection.execute("COMMIT")
        except BaseException:
            if self._is_busy():
                self.connection.execute("ROLLBACK")
            raise

    def _is_busy(self) -> bool:
        return self.connection.in_transaction

    # --- Checkpoint ---------------------------------------------------------------------------

    def newest(self) -> Newest | None:
        """Give the newest verified checkpoint; None before the first."""
        row = self.connection.execute(
            "SELECT size, root, note, sealed_at FROM checkpoint"
        ).fetchone()
        if row is None:
            return None
        size, root, note, sealed_at = row
        return Newest(size=size, root=root, note=note, sealed_at=sealed_at)

    def keep_newest(self, newest: Newest) -> bool:
        """Keep a verified checkpoint that continues the kept one; whether it is newer.

        Source: PROTOCOL [B-6]: of two processes that synchronise, the slower changes nothing.
        """
        with self.transaction() as connection:
            known = self.newest()
            # SPEC [B-6]: the newest verified checkpoint is never replaced by an older one.
            if known and (newest.size, newest.sealed_at) <= (known.size, known.sealed_at):
                return False
            connection.execute(
                "INSERT OR REPLACE INTO checkpoint VALUES (1, ?, ?, ?, ?)",
                (newest.size, newest.root, newest.note, newest.sealed_at),
            )
            self.keep_dated(note_hash(newest.note), newest.size, newest.sealed_at)
            return True

    def keep_dated(self, hash_: bytes, size: int, sealed_at: int) -> None:
        """Keep the sealed time of a verified checkpoint under the hash of its note."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO checkpoints VALUES (?, ?, ?)", (hash_, size, sealed_at)
            )

    def dated(self, hash_: bytes) -> int | None:
        """Give the sealed time of the checkpoint with this hash of its note; None if unknown."""
        row = self.connection.execute(
            "SELECT sealed_at FROM checkpoints WHERE hash = ?", (hash_,)
        ).fetchone()
        return None if row is None else int(row[0])

    def mark(self, name: str) -> int | None:
        """Give a number that was remembered under a name."""
        row = self.connection.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])

    def set_mark(self, name: str, value: int) -> None:
        """Remember a number, unless a higher one is remembered."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO marks VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
                (name, value),
            )

    def put_mark(self, name: str, value: int) -> None:
        """Remember a number in place of the one before."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, value))

    # --- Directory ----------------------------------------------------------------------------

    def genesis(self) -> bytes | None:
        """Give the signed genesis as received; None before the first synchronisation."""
        row = self.connection.execute("SELECT signed FROM genesis").fetchone()
        return None if row is None else bytes(row[0])

    def keep_genesis(self, signed: bytes) -> None:
        """Keep the genesis, once."""
        with self.transaction() as connection:
            if self.genesis() is None:
                connection.execute("INSERT INTO genesis VALUES (?)", (signed,))

    def last_statement(self) -> tuple[int, int]:
        """Give ordinal and leaf index of the newest statement that was folded in; zeros if none."""
        row = self.connection.execute(
            "SELECT ordinal, leaf_index FROM statements ORDER BY ordinal DESC LIMIT 1"
        ).fetchone()
        return (0, 0) if row is None else (row[0], row[1])

    def keep_statement(
        self, *, ordinal: int, leaf_index: int, payload: bytes, signatures: bytes
    ) -> None:
        """Keep a statement that was verified and folded in."""
        self.connection.execute(
            "INSERT INTO statements VALUES (?, ?, ?, ?)",
            (ordinal, leaf_index, payload, signatures),
        )

    def desks(self) -> tuple[Desk, ...]:
        """Give every desk as it was when it was last kept."""
        rows = self.connection.execute("SELECT value FROM desks ORDER BY desk")
        return tuple(parse_desk(row[0]) for row in rows)

    def keep_desk(self, desk: Desk) -> None:
        """Keep a desk as folded."""
        self.connection.execute(
            "INSERT OR REPLACE INTO desks VALUES (?, ?)", (desk.id, write_desk(desk))
        )

    # --- Own boxes ----------------------------------------------------------------------------

    def boxes(self) -> tuple[dict[int, bytes], dict[int, bytes]]:
        """Give the own boxes and the desk's previous seeds, sealed, by epoch."""
        own = self.connection.execute("SELECT epoch, box FROM boxes")
        previous = self.connection.execute("SELECT epoch, box FROM previous")
        return dict(own.fetchall()), dict(previous.fetchall())

    def keep_boxes(self, own: Mapping[int, bytes], previous: Mapping[int, bytes]) -> None:
        """Keep boxes, the newer in place of an older one of the same epoch."""
        with self.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO boxes VALUES (?, ?)", own.items())
            connection.executemany(
                "INSERT OR REPLACE INTO previous VALUES (?, ?)", previous.items()
            )

    def check_again(self) -> None:
        """Let what is in the log but did not open be checked again, because a key has come."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE inbox SET is_settled = 0"
                " WHERE refused IS NOT NULL AND sealed_at IS NOT NULL AND opens = 0"
            )

    # --- Alarms -------------------------------------------------------------------------------

    def alarm(self, kind: str, text: str, evidence: list[Value] | bytes, now: int) -> None:
        """Keep an alarm with its evidence, once, up to a bound of each kind.

        The bound is of a kind, so that noise of one does not keep out the evidence of another.

        Args:
            kind: See ``Alarm``.
            text: Safe to show to anyone.
            evidence: What proves it: a file of evidence, which convinces a third party, or the
                objects that this device relies on.
            now: UTC seconds.
        """
        data = evidence if isinstance(evidence, bytes) else serialize(evidence)
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO alarms (kind, text, evidence, noticed_at)"
                " SELECT ?1, ?2, ?3, ?4 WHERE (SELECT count(*) FROM alarms WHERE kind = ?1) < ?5",
                (kind, text, data, now, ALARMS_MAX),
            )

    def alarms(self) -> tuple[Alarm, ...]:
        """Give every alarm in the order of notice."""
        rows = self.connection.execute(
            "SELECT id, kind, text, evidence, noticed_at FROM alarms ORDER BY id"
        )
        return tuple(
            Alarm(id=id_, kind=kind, text=text, evidence=evidence, noticed_at=noticed_at)
            for id_, kind, text, evidence, noticed_at in rows
        )


def create_state(path: Path, *, genesis_hash: bytes, desk: bytes, device: bytes) -> State:
    """Begin an empty memory for a device.

    Raises:
        StateError: A file is there already.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError as error:
        raise StateError(f"{path.name} is there already, expected no state") from error
    sync_folder(path.parent)
    state = State(_connect(path))
    with state.transaction() as connection:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO pinned VALUES (?, ?, ?, ?)", (VERSION, genesis_hash, desk, device)
        )
    return state


def open_state(path: Path, *, genesis_hash: bytes, desk: bytes, device: bytes) -> State:
    """Open the memory of a device.

    Raises:
        StateError: It is missing, damaged, readable by others, or of another device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise StateError(f"{path.name} cannot be opened: {error.strerror}") from error
    try:
        # SPEC [B-9]: the file is readable by its owner alone.
        if not is_private(descriptor):
            raise StateError(f"{path.name} can be read by others, expected mode 600")
    finally:
        os.close(descriptor)
    try:
        connection = _connect(path)
        pinned = connection.execute("SELECT * FROM pinned").fetchone()
    except sqlite3.DatabaseError as error:
        raise StateError(f"{path.name} is damaged: {error}") from error
    if pinned != (VERSION, genesis_hash, desk, device):
        connection.close()
        raise StateError(f"{path.name} is of another version, deployment, desk or device")
    return State(connection)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        isolation_level=None,
        timeout=LOCK_SECONDS_MAX,
    )
    # SPEC [B-3]: on the disk before the first network byte.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # SPEC [B-16]: what is erased is overwritten in the file, not only unlinked in it.
    connection.execute("PRAGMA secure_delete = ON")
    return connection
