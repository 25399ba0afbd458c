"""Checkpoints: signed heads of the log, witnesses' cosignatures, and what follows from a quorum.

A checkpoint says that the log of some origin has so many leaves and this root. The log signs it;
witnesses, each of which keeps its own memory, add a cosignature with the time of their own clock.
The formats are those of C2SP tlog-checkpoint and tlog-cosignature (Ed25519 `cosignature/v1`, and
ML-DSA-44 `subtree/v1` for anchors), byte for byte, so that anybody's tools can check ours.

An anchor is a checkpoint that ML-DSA-44 cosignatures alone prove, for the day when Ed25519 is
broken. Which witnesses make a quorum is said in `quorum`.

Here live the formats and their checks, without clock, network or storage. What is built around a
checkpoint is in `log_proof`, for strangers, and in `witnessing`, for the talk with a witness.

Rules:

* [L-3] a checkpoint is believed only with the log's signature and a quorum of pinned witnesses;
* [L-4] a checkpoint has no extension lines, and only canonical numbers and base64;
* [L-5] its sealed time is that of the quorum: `Quorum.time_of` the cosignatures' times;
* [L-6] one size has one root: the empty tree has the hash of nothing;
* [L-10] an anchor is believed with the ML-DSA-44 cosignatures of its own quorum alone.

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

from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.keys import AnchorKey, verify_anchor_signature
from comity_protocol.merkle import EMPTY_ROOT, HASH_BYTES, SIZE_MAX
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import (
    KeyType,
    Note,
    SignatureLine,
    VerifierKey,
    decode_base64,
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

_ANCHOR_LABEL: Final = b"subtree/v1\n\x00"
_ANCHOR_START: Final = 0
"""A checkpoint is the subtree that begins at the first leaf."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessedCheckpoint:
    """A checkpoint that can be believed.

    Attributes:
        checkpoint: the head.
        cosignatures: those of pinned witnesses, sorted by time; enough for the quorum.
        sealed_time: seconds since 1970-01-01T00:00:00Z, between the clocks of honest witnesses.
        note_hash: SHA-256 of the note as received.
    """

    checkpoint: Checkpoint
    cosignatures: tuple[Cosignature, ...]
    sealed_time: int
    note_hash: bytes

    @property
    def earliest_time(self) -> int:
        """The earliest of the cosignatures' times.

        A quorum has an honest witness, so whatever the others say this is not after its clock.
        """
        return self.cosignatures[0].time


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
    _require_time(now)
    signature = key.sign(_cosigned_message(parse_note(note).text, now)).signature
    key_id = VerifierKey(name, KeyType.COSIGNATURE_V1, bytes(key.verify_key)).key_id
    return SignatureLine(name, key_id, now.to_bytes(TIME_BYTES, "big") + signature)


def cosign_anchor(note: bytes, name: str, key: AnchorKey, now: int) -> SignatureLine:
    """Cosign a checkpoint as a witness with ML-DSA-44, so that it can be an anchor.

    Args, and what the caller has verified, are those of `cosign`.

    Source: C2SP tlog-cosignature, ML-DSA-44 signed message.
    """
    _require_time(now)
    checkpoint = Checkpoint.parse(parse_note(note).text)
    signature = key.sign(_anchored_message(checkpoint, name, now))
    key_id = VerifierKey(name, KeyType.MLDSA44, key.public).key_id
    return SignatureLine(name, key_id, now.to_bytes(TIME_BYTES, "big") + signature)


def add_signatures(note: bytes, lines: Iterable[SignatureLine]) -> bytes:
    """Return the note with signature lines added; a line of the same key is replaced.

    Replacing is what a log needs when a witness cosigns the same head again, later.
    """
    parsed = parse_note(note)
    by_key = {(line.name, line.key_id): line for line in (*parsed.signatures, *lines)}
    return serialize_note(Note(parsed.text, tuple(by_key.values())))


def cosignatures(note: bytes, witnesses: Sequence[VerifierKey]) -> tuple[Cosignature, ...]:
    """Return the cosignatures of known witnesses, each verified as its key's type says, by time.

    Lines of unknown keys are passed over, as C2SP signed-note demands.

    Raises:
        MalformedError, LimitError: it is not a note.
        VerificationError: a known witness's line does not verify; then the whole note is refused.
        ValueError: a key is not of a type that cosigns.
    """
    return _cosignatures(parse_note(note), witnesses)


def verify_quorum(note: bytes, log: VerifierKey, quorum: Quorum) -> WitnessedCheckpoint:
    """Check everything that makes a checkpoint believable, and read its sealed time.

    1. The note is in canonical form, and the log signed it.
    2. Every line of a pinned witness verifies, and together they meet the quorum.
    3. The sealed time is chosen so that, in each group, fewer liars than half of its threshold
       cannot move it outside the honest clocks, and so that leaving lines out can only make it
       later.

    Stops: a split view shown by a relay alone, a forged or back-dated head.

    Raises:
        MalformedError, LimitError: it is not a checkpoint in canonical form.
        VerificationError: a signature does not verify, or witnesses are missing.
        ValueError: the log's own key is among the witnesses, or they do not cosign with Ed25519.

    Source: PROTOCOL [L-3], [L-5].
    """
    _require_independent(log, quorum)
    _require_type(quorum.witnesses[0], KeyType.COSIGNATURE_V1)
    # (1)
    # SPEC [L-3]: a checkpoint is believed only with the log's signature and the quorum of pinned
    # witnesses.
    parsed = parse_note(note)
    checkpoint = _open(parsed, log)
    # (2), (3)
    return _witnessed(note, parsed, checkpoint, quorum)


def verify_anchor(note: bytes, origin: str, quorum: Quorum) -> WitnessedCheckpoint:
    """Check a checkpoint by its ML-DSA-44 cosignatures alone, and read its sealed time.

    Neither the log's signature nor a witness's other one is looked at: whoever can forge Ed25519
    can add, change or take away such lines and proves and spoils nothing.

    Stops: everything that `verify_quorum` stops, also after Ed25519 is broken.

    Args:
        note: the checkpoint.
        origin: name of the log.
        quorum: that of the genesis's anchors.

    Raises:
        MalformedError, LimitError: it is not a checkpoint in canonical form.
        VerificationError: it is of another log, a signature does not verify, or witnesses are
            missing.
        ValueError: the quorum's keys are not of ML-DSA-44.

    Source: PROTOCOL [L-5], [L-10]; C2SP tlog-cosignature, ML-DSA-44 signed message.
    """
    _require_type(quorum.witnesses[0], KeyType.MLDSA44)
    parsed = parse_note(note)
    checkpoint = Checkpoint.parse(parsed.text)
    if checkpoint.origin != origin:
        raise VerificationError(f"checkpoint is of another origin than {origin}")
    # SPEC [L-10]: an anchor is believed with the ML-DSA-44 cosignatures of its own quorum alone.
    return _witnessed(note, parsed, checkpoint, quorum)


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


def _witnessed(
    note: bytes, parsed: Note, checkpoint: Checkpoint, quorum: Quorum
) -> WitnessedCheckpoint:
    seen = _cosignatures(parsed, quorum.witnesses)
    # SPEC [L-5]: the sealed time is that of the quorum.
    sealed_time = quorum.time_of({one.witness: one.time for one in seen})
    if sealed_time is None:
        raise VerificationError(
            f"checkpoint has {len(seen)} cosignatures of pinned witnesses, expected {quorum}"
        )
    return WitnessedCheckpoint(
        checkpoint=checkpoint,
        cosignatures=seen,
        sealed_time=sealed_time,
        note_hash=note_hash(note),
    )


def _cosignatures(note: Note, witnesses: Sequence[VerifierKey]) -> tuple[Cosignature, ...]:
    found = (_cosignature(note, witness) for witness in witnesses)
    return tuple(sorted(one for one in found if one is not None))


def _cosignature(note: Note, witness: VerifierKey) -> Cosignature | None:
    is_anchor = witness.type is KeyType.MLDSA44
    if not is_anchor:
        _require_type(witness, KeyType.COSIGNATURE_V1)
    line = note.line_by(witness)
    if line is None:
        return None
    time = int.from_bytes(line.signature[:TIME_BYTES], "big")
    signature = line.signature[TIME_BYTES:]
    # A time of zero says of an anchor that the witness states no time; it must not date anything.
    if not is_anchor <= time <= COSIGNED_TIME_MAX:
        raise VerificationError(f"cosignature by {witness.name} is of an impossible time")
    if is_anchor:
        checkpoint = Checkpoint.parse(note.text)
        _verify_anchored(witness, _anchored_message(checkpoint, witness.name, time), signature)
    else:
        verify_ed25519(witness, _cosigned_message(note.text, time), signature)
    return Cosignature(time, witness.name)


def _verify_anchored(key: VerifierKey, message: bytes, signature: bytes) -> None:
    try:
        verify_anchor_signature(key.public_key, message, signature)
    except VerificationError as error:
        raise VerificationError(f"cosignature by {key.name}: {error}") from error


def _require_type(key: VerifierKey, expected: KeyType) -> None:
    # A log's signature has no prefix, so a key used for both would let one pass for the other.
    if key.type is not expected:
        raise ValueError(f"key {key.name} is of type {key.type}, expected {expected}")


def _require_independent(log: VerifierKey, quorum: Quorum) -> None:
    if any(witness.public_key == log.public_key for witness in quorum.witnesses):
        raise ValueError("key of the log is among its witnesses")


def _require_time(now: int) -> None:
    if not 0 < now <= COSIGNED_TIME_MAX:
        raise ValueError(f"time is {now}, expected 1 to {COSIGNED_TIME_MAX} seconds")


def _cosigned_message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _anchored_message(checkpoint: Checkpoint, name: str, time: int) -> bytes:
    return b"".join(
        (
            _ANCHOR_LABEL,
            _with_length(name),
            time.to_bytes(TIME_BYTES, "big"),
            _with_length(checkpoint.origin),
            _ANCHOR_START.to_bytes(8, "big"),
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )


def _with_length(text: str) -> bytes:
    data = text.encode()
    try:
        return len(data).to_bytes(1, "big") + data
    except OverflowError as error:
        raise ValueError(f"name is {len(data)} bytes, expected at most 255") from error
