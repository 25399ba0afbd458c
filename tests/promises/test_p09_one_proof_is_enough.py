"""P9: one proof file is enough for a stranger, and none that was altered is believed.

A proof with just its quorum of cosignatures has no byte to spare: whatever is altered, it is
refused. Lines of keys that nobody pinned may stand in a note, as C2SP wants it, and prove nothing.

Found by: whoever reads the file, at once, with nothing but the core and the genesis. That verifiers
by other people believe the true ones is shown in test_protocol/test_foreign_verifiers.py.
"""

from collections.abc import Iterator
from typing import Final

import pytest

from comity_client.proofs import verify_proof
from comity_protocol.checkpoint import add_signatures, cosign, sign_checkpoint
from comity_protocol.core import core_hash
from comity_protocol.errors import ComityError
from comity_protocol.keys import random_bytes
from comity_protocol.leaves import envelope_leaf_of
from comity_protocol.log_proof import LogProof
from comity_protocol.merkle import Frontier, inclusion_proof, leaf_hash
from support.draws import Draws
from support.world import World, lead

MUTATIONS: Final = 300
MUTATIONS_LONG: Final = 10_000
SIZE: Final = 200


def proof_file() -> tuple[bytes, bytes, World]:
    """Give a proof with two cosignatures of two that it takes, the core, and the deployment."""
    world = World.found(witnesses=3, quorum=2)
    one, other = world.create_desk("XA"), world.create_desk("XB")
    core = world.seal_act(world.active(one)[0], other, lead()).upload.core
    places = random_bytes(32)
    hashes = [leaf_hash(random_bytes(65)) for _ in range(SIZE)]
    hashes[77] = leaf_hash(envelope_leaf_of(core_hash(core), places))
    note = sign_checkpoint(
        origin=world.genesis.origin,
        size=SIZE,
        root=Frontier().extend(hashes).root,
        key=world.log_key,
    )
    keys = sorted(world.witness_keys.items())[:2]
    proof = LogProof(
        index=77,
        hashes=inclusion_proof(77, SIZE, lambda _, start, count: hashes[start : start + count]),
        note=add_signatures(note, [cosign(note, name, key, 1_800_000_000) for name, key in keys]),
        extra=places,
    )
    return proof.serialize(), core, world


def mutations(proof: bytes, count: int) -> Iterator[bytes]:
    """Give files that differ from the proof: in a bit, a line, its length, or how it is written."""
    draws, lines = Draws("P9"), proof.split(b"\n")
    yield from (
        b"",
        proof + b"\n",
        proof[:-1],
        proof + proof,
        proof.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + proof,
        proof.replace(b"index ", b"index 0"),
        proof.replace(b"index ", b"index +"),
        proof.replace(b"=\n", b"\n", 1),
        proof.replace(b"=\n", b"==\n", 1),
    )
    for _ in range(10, count):
        at, kind = draws.below(len(lines)), draws.below(10)
        if kind < 6:
            yield draws.flip(proof)
        elif kind == 6:
            yield b"\n".join(lines[:at] + lines[at + 1 :])
        elif kind == 7:
            yield b"\n".join([*lines[:at], lines[at], *lines[at:]])
        elif kind == 8:
            other = draws.below(len(lines))
            swapped = list(lines)
            swapped[at], swapped[other] = swapped[other], swapped[at]
            yield b"\n".join(swapped)
        else:
            place = draws.below(len(proof))
            yield proof[:place] + draws.noise(1) + proof[place + draws.below(2) :]


def try_all(count: int) -> dict[str, int]:
    """Read so many altered files; gives how many were tried, and how many believed."""
    proof, core, world = proof_file()
    verify_proof(LogProof.parse(proof), core, world.genesis)
    tried = believed = 0
    for data in mutations(proof, count):
        if data == proof or _says_the_same(data, proof):
            continue
        tried += 1
        try:
            verify_proof(LogProof.parse(data), core, world.genesis)
            believed += 1
        except ComityError:
            pass
    return {"tried": tried, "believed": believed}


def _says_the_same(data: bytes, proof: bytes) -> bool:
    """Whether only the order of signatures differs, of which a note has none."""
    return sorted(data.split(b"\n")) == sorted(proof.split(b"\n")) and (
        data.rpartition(b"\n\n")[0] == proof.rpartition(b"\n\n")[0]
    )


def test_no_altered_proof_is_believed() -> None:
    """[L-2] [L-3] [L-4] [L-8]"""
    found = try_all(MUTATIONS)

    assert found["believed"] == 0
    assert found["tried"] > 0.9 * MUTATIONS


@pytest.mark.long
@pytest.mark.timeout(600)
def test_none_of_ten_thousand_altered_proofs_is_believed() -> None:
    """[L-2] [L-3] [L-4] [L-8]"""
    found = try_all(MUTATIONS_LONG)

    assert found["believed"] == 0
    assert found["tried"] > 0.9 * MUTATIONS_LONG


def test_no_bit_of_a_proof_is_to_spare() -> None:
    """[L-2] [L-3] [L-4] Every byte of one, in one of its bits."""
    proof, core, world = proof_file()
    for at in range(0, len(proof), 7):
        changed = bytearray(proof)
        changed[at] ^= 1 << at % 8
        with pytest.raises(ComityError):
            verify_proof(LogProof.parse(bytes(changed)), core, world.genesis)
