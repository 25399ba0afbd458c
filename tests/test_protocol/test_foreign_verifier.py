"""Tools that are not ours believe what we write, and we what they write: [L-1] [L-3].

The other side is tlog-scales, a reader and verifier of C2SP logs by Florian Larysch. It parses
loosely, so it judges what we produce; what we refuse is tried elsewhere.
"""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.signing import SigningKey
from tlog_scales import signing, tlog

from comity_protocol.checkpoint import (
    Checkpoint,
    add_signatures,
    cosign,
    cosign_anchor,
    open_checkpoint,
    sign_checkpoint,
    verify_anchor,
)
from comity_protocol.keys import AnchorKey
from comity_protocol.merkle import (
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    verify_consistency,
)
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import KeyType, VerifierKey

ORIGIN = "relay.example/log"
NOW = 1_800_000_000
SIZE = 600
LEAVES = [leaf_hash(b"leaf %d" % index) for index in range(SIZE)]
GROWTH = Frontier().grow(LEAVES)
TILES = {(tile.level, tile.index): tile.hash for tile in GROWTH.tile_hashes}
SIZES = [1, 2, 3, 255, 256, 257, 511, 512, 599, 600]


def read(level: int, start: int, count: int) -> list[bytes]:
    if level == 0:
        return LEAVES[start : start + count]
    return [TILES[level, index] for index in range(start, start + count)]


def root(size: int) -> bytes:
    return Frontier().extend(LEAVES[:size]).root


def verifier_key(name: str, kind: KeyType, seed: int) -> VerifierKey:
    return VerifierKey(name, kind, bytes(SigningKey(bytes([seed]) * 32).verify_key))


LOG = verifier_key(ORIGIN, KeyType.ED25519, 100)
WITNESSES = [
    verifier_key(f"witness.example/w{seed}", KeyType.COSIGNATURE_V1, seed) for seed in (1, 2, 3)
]


def note() -> bytes:
    signed = sign_checkpoint(
        origin=ORIGIN, size=SIZE, root=GROWTH.frontier.root, key=SigningKey(bytes([100]) * 32)
    )
    lines = [
        cosign(signed, witness.name, SigningKey(bytes([seed]) * 32), NOW + seed)
        for seed, witness in enumerate(WITNESSES, start=1)
    ]
    return add_signatures(signed, lines)


def test_our_checkpoint_is_believed_by_others() -> None:
    checkpoint = tlog.Checkpoint.from_text(note().decode())

    checkpoint.verify(signing.Vkey.from_string(LOG.serialize()))
    assert (checkpoint.origin, checkpoint.size) == (ORIGIN, SIZE)
    assert checkpoint.root_hash == GROWTH.frontier.root
    assert checkpoint.serialize().encode() == note()


def test_our_cosignatures_are_believed_by_others() -> None:
    checkpoint = tlog.Checkpoint.from_text(note().decode())
    keys = signing.VkeySet(*(signing.Vkey.from_string(key.serialize()) for key in WITNESSES))

    verified = keys.verify(checkpoint.signatures, checkpoint)

    assert {key.name for key, _ in verified} == {key.name for key in WITNESSES}
    times = {signing.Ed25519CosignatureVerifier.get_timestamp(line.payload) for _, line in verified}
    assert times == {NOW + 1, NOW + 2, NOW + 3}


def test_our_anchors_are_believed_by_others() -> None:
    """[L-10]"""
    secret = AnchorKey.from_seed(bytes([9]) * 32)
    line = cosign_anchor(note(), "witness.example/w1", secret, NOW)
    text = add_signatures(note(), [line]).decode()
    checkpoint = tlog.Checkpoint.from_text(text)
    key = VerifierKey("witness.example/w1", KeyType.MLDSA44, secret.public)
    keys = signing.VkeySet(signing.Vkey.from_string(key.serialize()))

    ((_, verified),) = keys.verify(checkpoint.signatures, checkpoint)

    assert signing.MLDSA44CosignatureVerifier.get_timestamp(verified.payload) == NOW


def test_the_anchor_of_another_program_is_believed() -> None:
    """[L-10]"""
    secret = AnchorKey.from_seed(bytes([9]) * 32)
    signer = signing.MLDSA44CosignatureSigner("witness.example/w1", secret.seed)
    theirs = tlog.Checkpoint.make_signed(ORIGIN, SIZE, root(SIZE), [signer]).serialize().encode()
    key = VerifierKey("witness.example/w1", KeyType.MLDSA44, secret.public)

    witnessed = verify_anchor(theirs, ORIGIN, Quorum(1, (key,)))

    assert witnessed.checkpoint == Checkpoint(origin=ORIGIN, size=SIZE, root=root(SIZE))


@pytest.mark.parametrize("size", SIZES)
def test_our_proofs_are_believed_by_others(size: int) -> None:
    for index in {0, 1, size // 2, size - 1, 255, 256} & set(range(size)):
        hashes = list(inclusion_proof(index, size, read))
        tlog.InclusionProof(index, size, hashes).check(LEAVES[index], root(size))
    for old in [known for known in SIZES if known <= size]:
        hashes = list(consistency_proof(old, size, read))
        verify_consistency(old, root(old), size, root(size), hashes)
        tlog.ConsistencyProof(old, size, hashes).check(root(old), root(size))


def test_the_checkpoint_of_another_program_is_opened() -> None:
    signer = signing.PlainEd25519Signer(
        ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes([100]) * 32)
    )
    theirs = tlog.Checkpoint.make_signed(ORIGIN, SIZE, root(SIZE), [signer]).serialize().encode()

    assert open_checkpoint(theirs, LOG) == Checkpoint(origin=ORIGIN, size=SIZE, root=root(SIZE))
    assert note().startswith(theirs)
