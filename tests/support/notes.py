"""A log of seven leaves, its checkpoint, and five witnesses that may cosign it."""

from base64 import b64encode

from nacl.signing import SigningKey

from comity_protocol.checkpoint import add_signatures, cosign, sign_checkpoint
from comity_protocol.log_proof import LogProof
from comity_protocol.merkle import Frontier, inclusion_proof, leaf_hash
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import KeyType, SignatureLine, VerifierKey

ORIGIN = "relay.example/log"
NOW = 1_800_000_000
SIZE = 7
LEAVES = [leaf_hash(b"leaf %d" % index) for index in range(SIZE)]
ROOT = Frontier().extend(LEAVES).root


def signing_key(number: int) -> SigningKey:
    return SigningKey(bytes([number]) * 32)


def witness_key(number: int) -> VerifierKey:
    public_key = bytes(signing_key(number).verify_key)
    return VerifierKey(f"witness.example/w{number}", KeyType.COSIGNATURE_V1, public_key)


LOG_KEY = signing_key(200)
LOG = VerifierKey(ORIGIN, KeyType.ED25519, bytes(LOG_KEY.verify_key))
WITNESSES = tuple(witness_key(number) for number in range(1, 6))
QUORUM = Quorum(3, WITNESSES)
NOTE = sign_checkpoint(origin=ORIGIN, size=SIZE, root=ROOT, key=LOG_KEY)


def cosignature_by(number: int, time: int, note: bytes = NOTE) -> SignatureLine:
    return cosign(note, f"witness.example/w{number}", signing_key(number), time)


def cosigned(*times: int, note: bytes = NOTE) -> bytes:
    """The note with cosignatures of the first witnesses, each at its time."""
    lines = [cosignature_by(number, time) for number, time in enumerate(times, start=1)]
    return add_signatures(note, lines)


PROOF = LogProof(
    index=3,
    hashes=inclusion_proof(3, SIZE, lambda _, start, count: LEAVES[start : start + count]),
    note=cosigned(NOW, NOW, NOW),
)
HASH_LINE = f"{b64encode(PROOF.hashes[0]).decode()}\n"
