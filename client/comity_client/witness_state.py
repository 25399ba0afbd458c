"""What a witness must never lose: its key, and what it cosigned with it.

Both lie in one folder and belong together. The memory is one SQLite file that is on the disk before
anyone is answered; the key is one file that only its owner reads.

Here lives storage. What may be cosigned is decided in `witness`.

Rules:

* [W-1] a witness stores the new checkpoint durably before it answers;
* [W-4] a witness whose state is lost never cosigns with that key again.

What cannot be seen from here: that the whole folder was put back from a backup. Therefore a witness
is never restored. The genesis fixes the witnesses, so a lost one stays lost; a quorum leaves room
for that.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from nacl.signing import SigningKey

from comity_client.files import is_private, sync_folder
from comity_protocol.errors import ComityError, MalformedError
from comity_protocol.limits import WITNESS_EVIDENCE_MAX, WITNESS_LOCK_SECONDS_MAX
from comity_protocol.signed_note import KeyType, VerifierKey, decode_base64, encode_base64

STATE_FILE: Final = "witness.sqlite3"
KEY_FILE: Final = "witness.key"

_KEY_PREFIX: Final = "PRIVATE+KEY+"
_KEY_BYTES_MAX: Final = 4_096

_SCHEMA: Final = """
CREATE TABLE witness (verifier_key TEXT NOT NULL) STRICT;
CREATE TABLE seen (
    origin TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    note BLOB NOT NULL,
    cosigned_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
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
    """Two checkpoints, both signed by the log, of which at least one should not exist.

    `kind` is "fork" for two roots of one size, which convicts the log by itself, or "unproven" for
    a larger checkpoint offered without a proof that holds, which the log still has to explain.
    """

    origin: str
    kind: str
    known: bytes
    offered: bytes
    noticed_at: int


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """The name and the private key of a witness."""

    name: str
    signing_key: SigningKey = field(repr=False)

    @property
    def verifier_key(self) -> VerifierKey:
        """The public half, as clients pin it."""
        public_key = bytes(self.signing_key.verify_key)
        return VerifierKey(self.name, KeyType.COSIGNATURE_V1, public_key)


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

    def replace(self, origin: str, rule: Callable[[Seen | None], Seen]) -> Seen:
        """Replace what is remembered of a log by what the rule makes of it.

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
        return new

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


def open_witness(data: Path, name: str) -> tuple[WitnessKey, WitnessState]:
    """Open the key and the memory of a witness, or begin both in an empty folder.

    The memory is made first and the key last: a key on the disk means that there was a memory.

    Raises:
        WitnessStateError: one of the two is lost, or they do not belong together.

    Source: PROTOCOL [W-4].
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    key_path, state_path = data / KEY_FILE, data / STATE_FILE
    if key_path.exists():
        key = _read_key(key_path, name)
        return key, WitnessState.open(state_path, key.verifier_key)
    if state_path.exists():
        # A first start that stopped half-way: the key was never written, so nothing was cosigned.
        WitnessState.open(state_path, None).close()
        state_path.unlink()
    key = WitnessKey(name, SigningKey.generate())
    state = WitnessState.create(state_path, key.verifier_key)
    _write_key(key_path, key)
    return key, state


def _write_key(path: Path, key: WitnessKey) -> None:
    public, material = key.verifier_key, bytes([KeyType.COSIGNATURE_V1]) + bytes(key.signing_key)
    text = f"{_KEY_PREFIX}{key.name}+{public.key_id.hex()}+{encode_base64(material)}\n"
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _read_key(path: Path, name: str) -> WitnessKey:
    with path.open("rb") as file:
        if not is_private(file.fileno()):
            raise WitnessStateError(f"{path.name} can be read by others, expected mode 600")
        text = file.read(_KEY_BYTES_MAX).decode("utf-8", "replace")
    head = f"{_KEY_PREFIX}{name}+"
    if not text.startswith(head) or not text.endswith("\n"):
        raise WitnessStateError(f"{path.name} is not the key of the witness with the name given")
    key_id, _, encoded = text.removeprefix(head).removesuffix("\n").partition("+")
    try:
        material = decode_base64(encoded, path.name)
        key = WitnessKey(name, SigningKey(material[1:]))
    except (MalformedError, ValueError) as error:
        raise WitnessStateError(f"{path.name} is damaged") from error
    if material[0] != KeyType.COSIGNATURE_V1 or key.verifier_key.key_id.hex() != key_id:
        raise WitnessStateError(f"{path.name} is damaged")
    return key
