"""The memory of a witness: what it cosigned, and what it replayed to be able to.

It is one SQLite file that is on the disk before anyone is answered. It lies in a folder with the
keys that it belongs to; see `witness_folder`. What may be cosigned is decided in `witness_rule`.

Rules:

* [W-1] a witness stores the new checkpoint durably before it answers;
* [W-4] a witness whose state is lost never cosigns with that key again.

What cannot be seen from here: that the whole folder was put back from a backup. Therefore a witness
is never restored. The genesis fixes the witnesses, so a lost one stays lost; a quorum leaves room
for that.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Final

from nacl.signing import SigningKey

from comity_protocol.errors import ComityError
from comity_protocol.keys import AnchorKey
from comity_protocol.limits import WITNESS_EVIDENCE_MAX, WITNESS_LOCK_SECONDS_MAX
from comity_protocol.merkle import Frontier
from comity_protocol.signed_note import KeyType, VerifierKey
from comity_protocol.statements import SignedStatement

STATE_FILE: Final = "witness.sqlite3"
KEY_FILE: Final = "witness.key"
ANCHOR_FILE: Final = "witness.anchor.key"

_SCHEMA: Final = """
CREATE TABLE witness (verifier_key TEXT NOT NULL) STRICT;
CREATE TABLE seen (
    origin TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    note BLOB NOT NULL,
    cosigned_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE anchor (verifier_key TEXT NOT NULL) STRICT;
CREATE TABLE replayed (size INTEGER NOT NULL, frontier BLOB NOT NULL) STRICT;
CREATE TABLE statement (leaf_index INTEGER PRIMARY KEY, signed BLOB NOT NULL) STRICT;
CREATE TABLE evidence (
    origin TEXT NOT NULL,
    kind TEXT NOT NULL,
    known BLOB NOT NULL,
    offered BLOB NOT NULL,
    noticed_at INTEGER NOT NULL,
    UNIQUE (origin, kind, known, offered)
) STRICT;
"""


class WitnessStateError(ComityError):
    """The key and the memory of this witness do not belong together any more."""

    code = "witness-state-lost"
    remedy: ClassVar[str] = (
        "never bring this key or its memory back from a backup; tell the relay's operator that this"
        " witness is lost: the others of the quorum go on"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a witness remembers of one log: the checkpoint it cosigned last.

    Attributes:
        size: the number of leaves.
        root: the root hash at that size.
        note: the checkpoint with the log's signature alone.
        cosigned_at: seconds since 1970-01-01T00:00:00Z by the witness's clock.
    """

    size: int
    root: bytes
    note: bytes
    cosigned_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A checkpoint that the log signed and that should not exist, and what it cannot stand beside.

    `kind` is "fork" for two roots of one size, which convicts the log by itself; "unproven" for a
    larger checkpoint that is offered without a proof that holds, or over other entries than the
    relay shows, which the log still has to explain; "statement" for one over an entry whose
    statement breaks a rule or is not given.

    Attributes:
        known: The checkpoint cosigned before; for "statement" what is in `serialize_finding`.
        offered: The checkpoint that is not cosigned.
    """

    origin: str
    kind: str
    known: bytes
    offered: bytes
    noticed_at: int


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """The name and the private keys of a witness.

    Attributes:
        anchor_key: For checkpoints that are to outlast Ed25519; None when it has none.
    """

    name: str
    signing_key: SigningKey = field(repr=False)
    anchor_key: AnchorKey | None = field(default=None, repr=False)

    @property
    def verifier_key(self) -> VerifierKey:
        """The public half, as clients pin it."""
        public_key = bytes(self.signing_key.verify_key)
        return VerifierKey(self.name, KeyType.COSIGNATURE_V1, public_key)

    @property
    def anchor_verifier_key(self) -> VerifierKey | None:
        """The public half of its key for anchors."""
        if self.anchor_key is None:
            return None
        return VerifierKey(self.name, KeyType.MLDSA44, self.anchor_key.public)


class WitnessState:
    """The memory of a witness, in one SQLite file that is on the disk before anyone is answered.

    Each method is one transaction. Several processes may share a file.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    @classmethod
    def create(cls, path: Path, key: VerifierKey) -> "WitnessState":
        """Begin an empty memory for a new key.

        Raises:
            WitnessStateError: a file is there already.
        """
        if path.exists():
            raise WitnessStateError(f"{path.name} is there already, expected no state")
        state = cls(_connect(path, "rwc"))
        with state._transaction() as connection:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO witness VALUES (?)", (key.serialize(),))
        return state

    @classmethod
    def open(cls, path: Path, key: VerifierKey | None) -> "WitnessState":
        """Open the memory that belongs to this key; without a key, one that cosigned nothing.

        Raises:
            WitnessStateError: it is missing, unreadable, damaged, or another key's.

        Source: PROTOCOL [W-4].
        """
        # SPEC [W-4]: a witness whose state is lost never cosigns with that key again.
        with ExitStack() as undo:
            try:
                connection = undo.enter_context(closing(_connect(path, "rw")))
                (check,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                owner = connection.execute("SELECT verifier_key FROM witness").fetchone()
                (count,) = connection.execute("SELECT count(*) FROM seen").fetchone()
            except sqlite3.DatabaseError as error:
                raise WitnessStateError(f"{path.name} is missing or unreadable") from error
            if check != "ok":
                raise WitnessStateError(f"{path.name} is damaged")
            if key is None and count:
                raise WitnessStateError(f"{path.name} has cosignatures, but {KEY_FILE} is missing")
            if key is not None and owner != (key.serialize(),):
                raise WitnessStateError(f"{path.name} belongs to another key than {KEY_FILE}")
            state = cls(connection)
            undo.pop_all()
            return state

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def seen(self, origin: str) -> Seen | None:
        """Return what is remembered of a log."""
        return self._seen(origin)

    def last_cosigned_at(self) -> int:
        """Return the time of the newest cosignature, for any log; 0 before the first."""
        (at,) = self._connection.execute("SELECT max(cosigned_at) FROM seen").fetchone()
        return at or 0

    def replace(
        self,
        origin: str,
        rule: Callable[[Seen | None], Seen],
        replayed: Frontier | None = None,
    ) -> Seen:
        """Replace what is remembered of a log by what the rule makes of it.

        Args:
            origin: Of the log.
            rule: Gives the new memory, or raises.
            replayed: How far its entries were replayed, when they were; kept with it or not at all.

        Reading, rule and writing are one transaction, so that of two requests that build on the
        same memory one sees the other. When it returns, the new memory is on the disk. When the
        rule raises, nothing has changed.
        """
        with self._transaction() as connection:
            new = rule(self._seen(origin))
            connection.execute(
                "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)",
                (origin, new.size, new.root, new.note, new.cosigned_at),
            )
            if replayed is not None:
                connection.execute("DELETE FROM replayed")
                connection.execute(
                    "INSERT INTO replayed VALUES (?, ?)", (replayed.size, replayed.serialize())
                )
        return new

    def replayed(self) -> Frontier:
        """Return how far the entries of the log were replayed; the empty tree at first."""
        row = self._connection.execute("SELECT frontier FROM replayed").fetchone()
        return Frontier() if row is None else Frontier.parse(row[0])

    def forget_replay(self) -> None:
        """Begin to replay anew, because what belongs to it is lost."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM replayed")
            connection.execute("DELETE FROM statement")

    def keep_statements(self, statements: Sequence[tuple[int, SignedStatement]]) -> None:
        """Keep statements at their leaf indices; they count once `replayed` has passed them."""
        rows = [(index, signed.serialize()) for index, signed in statements]
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO statement VALUES (?, ?)", rows)

    def forget_statements_from(self, index: int) -> None:
        """Forget the statements at and after a leaf index, which were not cosigned over."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM statement WHERE leaf_index >= ?", (index,))

    def statements(
        self, skip: int, limit: int, *, below: int
    ) -> tuple[tuple[int, SignedStatement], ...]:
        """Return statements with their leaf indices below `below`, ascending, after `skip`."""
        rows = self._connection.execute(
            "SELECT leaf_index, signed FROM statement WHERE leaf_index < ?"
            " ORDER BY leaf_index LIMIT ? OFFSET ?",
            (below, limit, skip),
        )
        return tuple(
            (index, replace(SignedStatement.parse(signed), is_bare=True)) for index, signed in rows
        )

    def anchor(self) -> VerifierKey | None:
        """Return the public key for anchors that belongs to this memory, if there was one."""
        row = self._connection.execute("SELECT verifier_key FROM anchor").fetchone()
        return None if row is None else VerifierKey.parse(row[0])

    def keep_anchor(self, key: VerifierKey) -> None:
        """Remember that there is a key for anchors from now on."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM anchor")
            connection.execute("INSERT INTO anchor VALUES (?)", (key.serialize(),))

    def keep_evidence(self, evidence: Evidence) -> None:
        """Keep two checkpoints that should not both exist, once, up to a bound for each kind."""
        with self._transaction() as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM evidence WHERE origin = ? AND kind = ?",
                (evidence.origin, evidence.kind),
            ).fetchone()
            if count < WITNESS_EVIDENCE_MAX:
                connection.execute(
                    "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?)",
                    (
                        evidence.origin,
                        evidence.kind,
                        evidence.known,
                        evidence.offered,
                        evidence.noticed_at,
                    ),
                )

    def evidence(self) -> tuple[Evidence, ...]:
        """Return all evidence, in the order it was noticed."""
        rows = self._connection.execute(
            "SELECT origin, kind, known, offered, noticed_at FROM evidence ORDER BY rowid"
        )
        return tuple(
            Evidence(origin=origin, kind=kind, known=known, offered=offered, noticed_at=noticed_at)
            for origin, kind, known, offered, noticed_at in rows
        )

    def _seen(self, origin: str) -> Seen | None:
        row = self._connection.execute(
            "SELECT size, root, note, cosigned_at FROM seen WHERE origin = ?", (origin,)
        ).fetchone()
        if row is None:
            return None
        size, root, note, cosigned_at = row
        return Seen(size=size, root=root, note=note, cosigned_at=cosigned_at)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # IMMEDIATE takes the write lock before the first read: compare and swap.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.rollback()  # Does nothing when the failure has already undone it.
            raise


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=WITNESS_LOCK_SECONDS_MAX,
    )
