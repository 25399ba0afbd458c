"""Evidence: files that prove a breach to a stranger, who asks nobody but the genesis.

    fork            the log signed two heads that no one log can have
    broken-promise  the relay promised to log something, and the log went on without it

What is refused here proves nothing, whatever whoever shows it may say: a file cannot be used
against a log that kept its word.

Rules:

* [V-1] A fork is two heads, both signed by the log, of one size with two roots, or shown by a valid
  consistency proof to have different entries below the smaller size.
* [V-2] A promise is broken when a witnessed checkpoint, each cosignature of which is later, has all
  its entries shown and none of them is what was promised.

Example:
    sentence = verify_evidence(path.read_bytes(), genesis, entries)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from types import MappingProxyType
from typing import ClassVar, Final

from comity_protocol.checkpoint import (
    Checkpoint,
    WitnessedCheckpoint,
    cosignatures,
    open_checkpoint,
    verify_quorum,
)
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import LimitError, MalformedError, VerificationError
from comity_protocol.fields import Fields, array_of, bytes_of, map_of, text_of
from comity_protocol.genesis import Genesis
from comity_protocol.identifiers import ID_BYTES, DeploymentId
from comity_protocol.keys import FAST_SIGNATURE_BYTES
from comity_protocol.leaves import LEAF_BYTES, tag_of, tags_of_promise
from comity_protocol.limits import (
    EVIDENCE_BYTES_MAX,
    NOTE_BYTES_MAX,
    PROMISE_BYTES_MAX,
    PROOF_HASHES_MAX,
)
from comity_protocol.merkle import HASH_BYTES, Frontier, leaf_hash, verify_consistency
from comity_protocol.receipts import Promise, Signed, verify_promise
from comity_protocol.signed_note import VerifierKey

_BATCH: Final = 4_096
"""Entries hashed at once, so that a log of any length is read in the same memory."""


@dataclass(frozen=True, slots=True)
class Fork:
    """Two heads of one log that exclude each other.

    Attributes:
        deployment: Whose log it is.
        first: A checkpoint, the smaller one when their sizes differ.
        second: Another one.
        proof: Empty for heads of one size; otherwise the root that the second head's first
            entries have, and a consistency proof from it. See ``verify_fork``.
    """

    kind: ClassVar[str] = "fork"
    deployment: DeploymentId
    first: bytes
    second: bytes
    proof: tuple[bytes, ...] = ()

    def serialize(self) -> bytes:
        """Give the bytes of the file."""
        return serialize(
            {
                "v": 1,
                "t": self.kind,
                "deployment": self.deployment,
                "first": self.first,
                "second": self.second,
                "proof": list(self.proof),
            }
        )


@dataclass(frozen=True, slots=True)
class BrokenPromise:
    """A promise, and a checkpoint of a log that went on without what was promised.

    Attributes:
        deployment: Whose relay promised.
        promise: As the relay signed it.
        note: A witnessed checkpoint.
    """

    kind: ClassVar[str] = "broken-promise"
    deployment: DeploymentId
    promise: Signed
    note: bytes

    def serialize(self) -> bytes:
        """Give the bytes of the file."""
        promise: list[Value] = [self.promise.payload, self.promise.signature]
        return serialize(
            {
                "v": 1,
                "t": self.kind,
                "deployment": self.deployment,
                "promise": promise,
                "note": self.note,
            }
        )


Evidence = Fork | BrokenPromise

_FIELDS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        Fork.kind: frozenset({"v", "t", "deployment", "first", "second", "proof"}),
        BrokenPromise.kind: frozenset({"v", "t", "deployment", "promise", "note"}),
    }
)


def parse_evidence(data: bytes) -> Evidence:
    """Read a file of evidence. It proves nothing yet.

    Raises:
        LimitError: It is too long.
        MalformedError: It is not what a ``serialize`` of this module gives.
    """
    if len(data) > EVIDENCE_BYTES_MAX:
        raise LimitError(
            f"evidence is {len(data):,} bytes, expected at most {EVIDENCE_BYTES_MAX:,}"
        )
    values = map_of(parse(data), "evidence")
    kind = text_of(values.get("t"), "evidence, t", choices=list(_FIELDS))
    fields = Fields.of(dict(values), f"evidence of {kind}", _FIELDS[kind])
    fields.integer("v", low=1, high=1)
    deployment = DeploymentId(fields.bytes("deployment", length=ID_BYTES))
    if kind == Fork.kind:
        proof = fields.array("proof", high=PROOF_HASHES_MAX + 1)
        return Fork(
            deployment,
            _note(fields, "first"),
            _note(fields, "second"),
            tuple(bytes_of(item, "evidence of fork, proof", length=HASH_BYTES) for item in proof),
        )
    payload, signature = array_of(fields.value("promise"), "evidence, promise", low=2, high=2)
    promise = Signed(
        bytes_of(payload, "evidence, promise", high=PROMISE_BYTES_MAX),
        bytes_of(signature, "evidence, signature", length=FAST_SIGNATURE_BYTES),
    )
    return BrokenPromise(deployment, promise, _note(fields, "note"))


def verify_evidence(data: bytes, genesis: Genesis, entries: Iterable[bytes] = ()) -> str:
    """Check a file of evidence and say in one sentence what it proves.

    Args:
        data: The file.
        genesis: The deployment's, pinned.
        entries: All entries of the log, for ``broken-promise``; they need not be trusted and may
            be a generator over a mirror's files. More than the checkpoint covers are not read.

    Raises:
        LimitError, MalformedError: It is not a file of evidence.
        VerificationError: It proves nothing, or is about another deployment.
    """
    evidence = parse_evidence(data)
    if evidence.deployment != genesis.deployment:
        raise VerificationError("evidence is about another deployment than the one pinned")
    if isinstance(evidence, Fork):
        verify_fork(evidence.first, evidence.second, genesis.log, evidence.proof)
        return _say_fork(evidence, genesis)
    witnessed = verify_broken_promise(evidence.promise, evidence.note, genesis, entries)
    return _say_broken(evidence, genesis, witnessed)


def verify_fork(
    first_note: bytes, second_note: bytes, log: VerifierKey, proof: tuple[bytes, ...] = ()
) -> None:
    """Check that the log signed two heads of which one must be false.

    For heads of two sizes, ``proof`` begins with another root of the smaller size; a consistency
    proof from that root to the larger head follows. A tree has one root for its first so many
    entries, so a smaller head with any other root is not of this tree. That somebody has no proof
    between two heads, or a wrong one, shows nothing.

    Args:
        first_note: A checkpoint, the smaller one when their sizes differ. Only the log's signature
            counts; a relay that fools one desk needs no witness.
        second_note: Another one.
        log: The log's key, of the genesis.
        proof: Empty for heads of one size.

    Raises:
        LimitError, MalformedError: A note is not a checkpoint.
        VerificationError: The log did not sign both, or both can be heads of one log.

    Source: PROTOCOL [V-1].
    """
    first, second = open_checkpoint(first_note, log), open_checkpoint(second_note, log)
    # SPEC [V-1]: one size and two roots.
    if first.size == second.size:
        if first.root == second.root or proof:
            raise VerificationError(
                f"heads of {first.size:,} entries do not exclude each other; this proves no fork"
                " [V-1]"
            )
        return
    if not proof:
        raise VerificationError(
            f"heads of {first.size:,} and {second.size:,} entries come without a proof that they"
            " exclude each other; this proves no fork [V-1]"
        )
    # SPEC [V-1]: a valid proof from another root of the smaller size to the larger head.
    other_root, *path = proof
    if other_root == first.root:
        raise VerificationError(
            "proof leads from one head to the other; this proves no fork, but its absence [V-1]"
        )
    verify_consistency(first.size, other_root, second.size, second.root, path)


def verify_broken_promise(
    promise: Signed, note: bytes, genesis: Genesis, entries: Iterable[bytes]
) -> WitnessedCheckpoint:
    """Check that the relay promised to log something and that the log went on without it.

    1. The relay signed the promise.
    2. A quorum witnessed the checkpoint, each of its witnesses after the promised time.
    3. The entries are all of that checkpoint and lead to its root.
    4. None of them begins with what was promised.

    The entries are read once, in the memory of one batch.

    Args:
        promise: As received with what was posted.
        note: A checkpoint.
        genesis: The deployment's, pinned.
        entries: The log's entries from the first, 65 bytes each.

    Returns:
        The checkpoint that should have covered it.

    Raises:
        MalformedError, LimitError: Something is out of form.
        VerificationError: The promise is not broken as far as this shows.

    Source: PROTOCOL [V-2].
    """
    # (1)
    promised = verify_promise(promise, genesis.relay_key, Promise.parse(promise.payload).what)
    # (2)
    # SPEC [V-2]: all its cosignatures are of times after `at` + `within`. A sealed time would do
    # for a clock, and not for a conviction: one witness of two can move it by years.
    witnessed = verify_quorum(note, genesis.log, genesis.quorum)
    late = witnessed.earliest_time - promised.at - promised.within
    if late <= 0:
        raise VerificationError(
            f"checkpoint was cosigned {-late} s before the promise ran out; take a later one [V-2]"
        )
    # (3), (4)
    _require_absent(promised, witnessed.checkpoint, entries)
    return witnessed


def _require_absent(promised: Promise, checkpoint: Checkpoint, entries: Iterable[bytes]) -> None:
    # SPEC [V-2]: all entries below that checkpoint, none of which begins with what was promised.
    kept_by, frontier = tags_of_promise(promised.what), Frontier()
    rest = islice(entries, checkpoint.size)
    while batch := tuple(islice(rest, _BATCH)):
        for offset, entry in enumerate(batch):
            if len(entry) != LEAF_BYTES:
                raise MalformedError(f"entry is {len(entry)} bytes, expected {LEAF_BYTES}")
            if tag_of(entry) in kept_by:
                raise VerificationError(
                    f"entry {frontier.size + offset} is what was promised; the relay kept its"
                    " word [V-2]"
                )
        frontier = frontier.extend(map(leaf_hash, batch))
    if (frontier.size, frontier.root) != (checkpoint.size, checkpoint.root):
        raise VerificationError(
            f"{frontier.size:,} entries do not lead to the root of the checkpoint of"
            f" {checkpoint.size:,}; one is missing or another's [V-2]"
        )


def _note(fields: Fields, name: str) -> bytes:
    return fields.bytes(name, low=1, high=NOTE_BYTES_MAX)


def _say_fork(evidence: Fork, genesis: Genesis) -> str:
    sizes = [
        f"{open_checkpoint(note, genesis.log).size:,}" for note in (evidence.first, evidence.second)
    ]
    sentence = (
        f"the log {genesis.log.name} signed two heads that exclude each other,"
        f" of {sizes[0]} and of {sizes[1]} entries"
    )
    both = [
        key.name
        for key in genesis.quorum.witnesses
        if _has_cosigned(evidence.first, key) and _has_cosigned(evidence.second, key)
    ]
    return f"{sentence}, and both were cosigned by {', '.join(both)}" if both else sentence


def _has_cosigned(note: bytes, witness: VerifierKey) -> bool:
    # A line that does not verify says nothing against the witness, and takes nothing from the fork.
    try:
        return bool(cosignatures(note, (witness,)))
    except VerificationError:
        return False


def _say_broken(evidence: BrokenPromise, genesis: Genesis, witnessed: WitnessedCheckpoint) -> str:
    promise = Promise.parse(evidence.promise.payload)
    return (
        f"the relay of {genesis.log.name} promised at {_utc(promise.at)} to log"
        f" {promise.what.hex()} within {promise.within} s, and at"
        f" {_utc(witnessed.earliest_time)} none of the {witnessed.checkpoint.size:,} entries was it"
    )


def _utc(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
