"""A kept proof shows an envelope's place in the log to whoever has its core and the genesis."""

from dataclasses import replace
from pathlib import Path

import pytest

from comity_client.proofs import core_of, fetch_proof, keep_proof, read_proof, verify_proof
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.leaves import PLACES_BYTES
from comity_protocol.log_proof import LogProof
from support.desks import LEAD
from test_client.conftest import Pair


async def test_a_kept_proof_is_checked_with_the_core_and_the_genesis_alone(
    pair: Pair, tmp_path: Path
) -> None:
    # [L-8]
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.deliver()
    proof = await fetch_proof(pair.bob.desk, envelope)
    keep_proof(tmp_path / "proofs" / "one", proof)
    core, genesis = core_of(pair.bob.desk, envelope), pair.world.genesis

    kept = read_proof(tmp_path / "proofs" / "one")
    under = verify_proof(kept or proof, core, genesis)

    assert kept == proof
    assert under.checkpoint.size > proof.index
    # It has the hash of all commitments and no counter, and is the same from every recipient.
    assert len(proof.extra) == PLACES_BYTES
    assert (await fetch_proof(pair.alice.desk, envelope)).extra == proof.extra


async def test_a_kept_proof_of_something_else_is_refused(pair: Pair) -> None:
    # [L-2] [L-8]
    first, second = (pair.alice.desk.lead(pair.bob.id, LEAD) for _ in range(2))
    await pair.deliver()
    proof = await fetch_proof(pair.bob.desk, first)
    cores = [core_of(pair.bob.desk, envelope) for envelope in (first, second)]
    flipped = bytes([proof.extra[0] ^ 1]) + proof.extra[1:]

    def check(altered: LogProof, core: bytes) -> None:
        verify_proof(altered, core, pair.world.genesis)

    with pytest.raises(VerificationError, match="does not lead to the root"):
        check(proof, cores[1])
    with pytest.raises(VerificationError, match="does not lead to the root"):
        check(replace(proof, extra=flipped), cores[0])
    for extra in (b"", proof.extra[:-1], proof.extra + b"x"):
        with pytest.raises(MalformedError, match="expected 32"):
            check(replace(proof, extra=extra), cores[0])
