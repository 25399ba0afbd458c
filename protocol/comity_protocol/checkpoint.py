"""Checkpoints: signed heads of the log, witnesses' cosignatures, and what follows from a quorum.

A checkpoint says that the log of some origin has so many leaves and this root. The log signs it;
witnesses, each of which keeps its own memory, add a cosignature with the time of their own clock.
The formats are those of C2SP tlog-checkpoint and tlog-cosignature (`cosignature/v1`), byte for
byte, so that anybody's tools can check ours.

Here live the formats and their checks, without clock, network or storage. What is built around a
checkpoint is in `log_proof`, for strangers, and in `witnessing`, for the talk with a witness.

Rules:

* [L-3] a checkpoint is believed only with the log's signature and a quorum of pinned witnesses;
* [L-4] a checkpoint has no extension lines, and only canonical numbers and base64;
* [L-5] its sealed time is element floor(k/2) of the sorted cosignature times of the quorum;
* [L-6] one size has one root: the empty tree has the hash of nothing.

Example:
    note = sign_checkpoint(origin="relay.example/log", size=1, root=root, key=log_signing_key)
    line = cosign(note, "witness.example/w1", witness_signing_key, now)
    witnessed = verify_quorum(add_signatures(note, [line]), log, quorum)
    witnessed.sealed_time
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from nacl.signing import SigningKey

from comity_protocol.errors import LimitError, MalformedError, VerificationError
from comity_protocol.limits import PROOF_HASHES_MAX, WITNESSES_MAX
from comity_protocol.merkle import EMPTY_ROOT, HASH_BYTES, SIZE_MAX
from comity_protocol.signed_note import (
    KeyType,
    Note,
    SignatureLine,
    VerifierKey,
    decode_base64,
    decode_text,
    encode_base64,
    parse_decimal,
    parse_note,
    serialize_note,
    verify_ed25519,
)

# The last second that a calendar can show, 9999-12-31T23:59:59Z. A witness that claims a later one
# must not be able to break those who print it.
COSIGNED_TIME_MAX: Final = 253_402_300_799

TIME_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A head of a log.

    Raises:
        ValueError: the values cannot be written as a checkpoint.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or "\n" in self.origin:
            raise ValueError("origin is empty or has more than one line")
        if not 0 <= self.size <= SIZE_MAX:
            raise ValueError(f"tree size is {self.size}, expected 0 to 2**63 - 1")
        if len(self.root) != HASH_BYTES:
            raise ValueError(f"root hash is {len(self.root)} bytes, expected {HASH_BYTES}")
        # SPEC [L-6]: one size has one root.
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise ValueError("root of the empty tree is not the hash of nothing")

    def serialize(self) -> str:
        """Return the three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read the text of a note.

        Raises:
            MalformedError: it is not exactly what `serialize` writes.

        Source: PROTOCOL [L-4]; C2SP tlog-checkpoint, Note text.
        """
        # SPEC [L-4]: a checkpoint has no extension lines and only canonical numbers and base64.
        match text.split("\n"):
            case [origin, decimal, encoded, ""]:
                size, root = parse_decimal(decimal, "tree size"), decode_base64(encoded, "root")
            case lines:
                raise MalformedError(f"checkpoint has {len(lines) - 1} lines, expected 3")
        try:
            return cls(origin=origin, size=size, root=root)
        except ValueError as error:
            raise MalformedError(f"checkpoint is not usable: {error}") from error


def sign_checkpoint(*, origin: str, size: int, root: bytes, key: SigningKey) -> bytes:
    """Sign a head of the log and return the note.

    The caller has made sure that it never signed an inconsistent one; see the log's signer.

    Raises:
        ValueError: the values cannot be a checkpoint, or the origin cannot be a key name.
    """
    text = Checkpoint(origin=origin, size=size, root=root).serialize()
    key_id = VerifierKey(origin, KeyType.ED25519, bytes(key.verify_key)).key_id
    line = SignatureLine(origin, key_id, key.sign(text.encode()).signature)
    return serialize_note(Note(text, (line,)))


def open_checkpoint(note: bytes, log: VerifierKey) -> Checkpoint:
    """Read a checkpoint and check the log's signature, not yet a quorum.

    Stops: a head that another log or a forger signed.

    Raises:
        MalformedError, LimitError: it is not a checkpoint in canonical form.
        VerificationError: the log did not sign it, or it is of another origin.

    Source: PROTOCOL [L-3], [L-4].
    """
    return _open(parse_note(note), log)


def claimed_origin(note: bytes) -> str:
    """Return which log a checkpoint says that it is of, not yet verified."""
    return parse_note(note).text.partition("\n")[0]


def note_hash(note: bytes) -> bytes:
    """Return the SHA-256 of a note's bytes, by which an envelope names what its sender had seen."""
    return sha256(note).digest()


# Cosignatures and the quorum.


@dataclass(frozen=True, slots=True, order=True)
class Cosignature:
    """A verified cosignature: when, by its own clock, which witness saw the checkpoint.

    `time` is in whole seconds since 1970-01-01T00:00:00Z.
    """

    time: int
    witness: str


@dataclass(frozen=True, slots=True)
class Quorum:
    """Which witnesses are pinned, and how many of them must have cosigned.

    Raises:
        ValueError: the threshold cannot be met or is zero, a key is not of type
            `cosignature/v1`, or one witness is there twice, under its name or its key.
    """

    threshold: int
    witnesses: tuple[VerifierKey, ...]

    def __post_init__(self) -> None:
        count = len(self.witnesses)
        if not 1 <= self.threshold <= count:
            raise ValueError(f"quorum is {self.threshold} of {count}, expected 1 to {count}")
        if count > WITNESSES_MAX:
            raise ValueError(f"quorum has {count} witnesses, expected at most {WITNESSES_MAX}")
        for key in self.witnesses:
            _require_type(key, KeyType.COSIGNATURE_V1)
        # One key under two names would let one witness count as two.
        for kind in ({key.name for key in self.witnesses}, {k.public_key for k in self.witnesses}):
            if len(kind) != count:
                raise ValueError("one witness is twice in the quorum")


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessedCheckpoint:
    """A checkpoint that can be believed.

    Attributes:
        checkpoint: the head.
        cosignatures: those of pinned witnesses, sorted by time; at least the threshold.
        sealed_time: seconds since 1970-01-01T00:00:00Z, between the clocks of honest witnesses.
        note_hash: SHA-256 of the note as received.
    """

    checkpoint: Checkpoint
    cosignatures: tuple[Cosignature, ...]
    sealed_time: int
    note_hash: bytes


def cosign(note: bytes, name: str, key: SigningKey, now: int) -> SignatureLine:
    """Cosign a checkpoint as a witness.

    The caller has verified the log's signature and the consistency with all it cosigned before.

    Args:
        note: the checkpoint.
        name: the witness's key name.
        key: the witness's key.
        now: seconds since 1970-01-01T00:00:00Z by the witness's own clock.

    Source: C2SP tlog-cosignature, Ed25519 signed message.
    """
    if not 0 <= now <= COSIGNED_TIME_MAX:
        raise ValueError(f"time is {now}, expected 0 to {COSIGNED_TIME_MAX} seconds")
    signature = key.sign(_cosigned_message(parse_note(note).text, now)).signature
    key_id = VerifierKey(name, KeyType.COSIGNATURE_V1, bytes(key.verify_key)).key_id
    return SignatureLine(name, key_id, now.to_bytes(TIME_BYTES, "big") + signature)


def add_signatures(note: bytes, lines: Iterable[SignatureLine]) -> bytes:
    """Return the note with signature lines added; a line of the same key is replaced.

    Replacing is what a log needs when a witness cosigns the same head again, later.
    """
    parsed = parse_note(note)
    by_key = {(line.name, line.key_id): line for line in (*parsed.signatures, *lines)}
    return serialize_note(Note(parsed.text, tuple(by_key.values())))


def cosignatures(note: bytes, witnesses: Sequence[VerifierKey]) -> tuple[Cosignature, ...]:
    """Return the cosignatures of known witnesses, verified, sorted by time.

    Lines of unknown keys are passed over, as C2SP signed-note demands.

    Raises:
        MalformedError, LimitError: it is not a note.
        VerificationError: a known witness's line does not verify; then the whole note is refused.
    """
    return _cosignatures(parse_note(note), witnesses)


def verify_quorum(note: bytes, log: VerifierKey, quorum: Quorum) -> WitnessedCheckpoint:
    """Check everything that makes a checkpoint believable, and read its sealed time.

    1. The note is in canonical form, and the log signed it.
    2. Every line of a pinned witness verifies, and there are at least as many as the threshold.
    3. The sealed time is chosen so that fewer than half of the quorum lying cannot move it outside
       the honest clocks, and so that leaving lines out can only make it later.

    Stops: a split view shown by a relay alone, a forged or back-dated head.

    Raises:
        MalformedError, LimitError: it is not a checkpoint in canonical form.
        VerificationError: a signature does not verify, or witnesses are missing.
        ValueError: the log's own key is among the witnesses.

    Source: PROTOCOL [L-3], [L-5].
    """
    _require_independent(log, quorum)
    # (1)
    # SPEC [L-3]: a checkpoint is believed only with the log's signature and the quorum of pinned
    # witnesses.
    parsed = parse_note(note)
    checkpoint = _open(parsed, log)
    # (2)
    seen = _cosignatures(parsed, quorum.witnesses)
    if len(seen) < quorum.threshold:
        raise VerificationError(
            f"checkpoint has {len(seen)} cosignatures of pinned witnesses, "
            f"expected at least {quorum.threshold}"
        )
    # (3)
    # SPEC [L-5]: sealed time is element floor(k/2) of the sorted cosignature times of the quorum.
    return WitnessedCheckpoint(
        checkpoint=checkpoint,
        cosignatures=seen,
        sealed_time=seen[quorum.threshold // 2].time,
        note_hash=note_hash(note),
    )


def split_head(data: bytes, what: str) -> tuple[list[str], bytes]:
    """Split what stands before a checkpoint from it: lines, an empty line, and the note verbatim.

    Args:
        data: as received.
        what: its name, for messages.

    Raises:
        MalformedError, LimitError: there is no empty line, or the note is no checkpoint.
    """
    head, gap, note = data.partition(b"\n\n")
    if not gap:
        raise MalformedError(f"{what} has no empty line before its checkpoint")
    Checkpoint.parse(parse_note(note).text)
    return decode_text(head + b"\n", what)[:-1].split("\n"), note


def parse_hashes(lines: Sequence[str]) -> tuple[bytes, ...]:
    """Read the hashes of a proof, one a line.

    Raises:
        LimitError: there are more than a proof in any tree has.
        MalformedError: one is not 32 bytes in canonical base64.
    """
    if len(lines) > PROOF_HASHES_MAX:
        raise LimitError(f"proof has {len(lines)} hashes, expected at most {PROOF_HASHES_MAX}")
    hashes = tuple(decode_base64(line, "proof hash") for line in lines)
    if any(len(hashed) != HASH_BYTES for hashed in hashes):
        raise MalformedError(f"proof has a hash that is not {HASH_BYTES} bytes")
    return hashes


def _open(note: Note, log: VerifierKey) -> Checkpoint:
    _require_type(log, KeyType.ED25519)
    line = note.line_by(log)
    if line is None:
        raise VerificationError(f"note has no signature by {log.name}")
    verify_ed25519(log, note.text.encode(), line.signature)
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != log.name:
        raise VerificationError(f"checkpoint is of another origin than {log.name}")
    return checkpoint


def _cosignatures(note: Note, witnesses: Sequence[VerifierKey]) -> tuple[Cosignature, ...]:
    found: list[Cosignature] = []
    for witness in witnesses:
        _require_type(witness, KeyType.COSIGNATURE_V1)
        line = note.line_by(witness)
        if line is None:
            continue
        time = int.from_bytes(line.signature[:TIME_BYTES], "big")
        if time > COSIGNED_TIME_MAX:
            raise VerificationError(f"cosignature by {witness.name} is of an impossible time")
        verify_ed25519(witness, _cosigned_message(note.text, time), line.signature[TIME_BYTES:])
        found.append(Cosignature(time, witness.name))
    return tuple(sorted(found))


def _require_type(key: VerifierKey, expected: KeyType) -> None:
    # A log's signature has no prefix, so a key used for both would let one pass for the other.
    if key.type is not expected:
        raise ValueError(f"key {key.name} is of type {key.type}, expected {expected}")


def _require_independent(log: VerifierKey, quorum: Quorum) -> None:
    if any(witness.public_key == log.public_key for witness in quorum.witnesses):
        raise ValueError("key of the log is among its witnesses")


def _cosigned_message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()
