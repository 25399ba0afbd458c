"""A witness stamps a hash for whoever asks, within bounds, and never behind its own clock: [W-7].

A stamp, a cosignature, a proof for a link and a request token are made with one key; none of them
is worth anything as another: [K-1].
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from aiohttp import web
from nacl.signing import SigningKey

from comity_client.witness import Witness, make_witness_runner, serve_witness
from comity_client.witness_folder import WitnessFolder
from comity_client.witness_stamps import Stamper
from comity_protocol.checkpoint import cosignatures, sign_checkpoint
from comity_protocol.encoding import serialize
from comity_protocol.errors import VerificationError
from comity_protocol.identifiers import DeploymentId
from comity_protocol.limits import STAMP_BYTES_MAX, WITNESS_STAMPS_BURST, WITNESS_STAMPS_PER_SECOND
from comity_protocol.merkle import EMPTY_ROOT
from comity_protocol.quorum import Quorum
from comity_protocol.receipts import Signed
from comity_protocol.signed_note import (
    KeyType,
    Note,
    SignatureLine,
    VerifierKey,
    parse_note,
    parse_signature_lines,
    serialize_note,
)
from comity_protocol.stamps import Stamp, StampRequest, open_stamp, stamped_at, verify_stamp
from comity_protocol.witness_link import Challenge, Proof
from comity_protocol.witnessing import AddCheckpoint

ORIGIN: Final = "relay.example/log"
NAME: Final = "witness.example/w1"
NOW: Final = 1_800_000_000
DEPLOYMENT: Final = DeploymentId(b"D" * 16)
WHAT: Final = b"W" * 32
LOG_KEY: Final = SigningKey(b"L" * 32)
LOG: Final = VerifierKey(ORIGIN, KeyType.ED25519, bytes(LOG_KEY.verify_key))


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@dataclass
class Stamping:
    """A witness, its folder and its clock."""

    folder: WitnessFolder
    witness: Witness
    clock: Clock

    @property
    def key(self) -> VerifierKey:
        return self.folder.key.verifier_key

    async def stamp(self, body: bytes = b"") -> tuple[int, bytes]:
        answer = await self.witness.answer("/stamp", body or ask())
        return answer.status, answer.body

    async def stamped(self) -> Stamp:
        status, body = await self.stamp()
        assert status == 200
        return open_stamp(Signed.parse(body), DEPLOYMENT, WHAT, self.key)

    async def cosign(self, *, is_anchor: bool = False) -> tuple[bytes, tuple[SignatureLine, ...]]:
        request = AddCheckpoint(old_size=0, hashes=(), note=checkpoint())
        path = "/add-checkpoint?anchor" if is_anchor else "/add-checkpoint"
        answer = await self.witness.answer(path, request.serialize())
        assert answer.status == 200
        return request.note, parse_signature_lines(answer.body.decode())


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Stamping]:
    clock = Clock()
    with closing(WitnessFolder.open(tmp_path, NAME)) as folder:
        stamper = Stamper(folder.key, folder.state, DEPLOYMENT, clock)
        answering = Witness(folder.state, folder.key, [LOG], clock, stamper=stamper)
        yield Stamping(folder, answering, clock)


def ask(deployment: bytes = DEPLOYMENT, what: bytes = WHAT) -> bytes:
    return StampRequest(DeploymentId(deployment), what).serialize()


def checkpoint() -> bytes:
    return sign_checkpoint(origin=ORIGIN, size=0, root=EMPTY_ROOT, key=LOG_KEY)


async def test_a_witness_stamps_a_hash_with_its_clock(witness: Stamping) -> None:
    stamp = await witness.stamped()

    verify_stamp(stamp, DEPLOYMENT, WHAT, witness.key)
    assert (stamp.witness, stamp.at) == (NAME, NOW)
    assert stamped_at([stamp], DEPLOYMENT, WHAT, Quorum(1, (witness.key,))) == NOW


async def test_a_witness_whose_clock_is_behind_its_last_cosignature_does_not_stamp(
    witness: Stamping,
) -> None:
    """[W-7] A clock that was set back would date an act before it was made."""
    await witness.cosign()
    witness.clock.now -= 1
    assert (await witness.stamp())[0] == 503
    witness.clock.now += 1

    assert (await witness.stamped()).at == NOW


async def test_a_witness_stamps_for_its_own_deployment_alone(witness: Stamping) -> None:
    assert (await witness.stamp(ask(deployment=b"E" * 16)))[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        b"x",
        ask()[:-1],
        ask() + b"\x00",
        serialize([DEPLOYMENT]),
        serialize([DEPLOYMENT, WHAT, 1]),
        serialize([DEPLOYMENT, WHAT[1:]]),
        serialize([DEPLOYMENT[1:], WHAT]),
        serialize({"deployment": DEPLOYMENT, "what": WHAT}),
        serialize([DEPLOYMENT, bytes(STAMP_BYTES_MAX)]),
    ],
)
async def test_a_request_in_another_form_is_not_stamped(witness: Stamping, body: bytes) -> None:
    assert (await witness.stamp(body))[0] == 400


async def test_a_flood_of_requests_is_bounded(witness: Stamping) -> None:
    answers = [(await witness.stamp())[0] for _ in range(WITNESS_STAMPS_BURST + 3)]
    assert answers == [200] * WITNESS_STAMPS_BURST + [429] * 3

    witness.clock.now += 1
    again = [(await witness.stamp())[0] for _ in range(WITNESS_STAMPS_PER_SECOND + 1)]
    assert again == [200] * WITNESS_STAMPS_PER_SECOND + [429]

    witness.clock.now += 1_000_000
    answers = [(await witness.stamp())[0] for _ in range(WITNESS_STAMPS_BURST + 1)]
    assert answers.count(200) == WITNESS_STAMPS_BURST


async def test_a_witness_that_knows_no_deployment_stamps_nothing(tmp_path: Path) -> None:
    with closing(WitnessFolder.open(tmp_path, NAME)) as folder:
        witness = Witness(folder.state, folder.key, [LOG], lambda: NOW)

        assert (await witness.answer("/stamp", ask())).status == 404


async def test_stamps_are_given_over_http(witness: Stamping) -> None:
    runner = make_witness_runner(serve_witness(witness.witness))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{host}:{port}/stamp", data=ask()) as response,
    ):
        assert response.headers["Content-Type"] == "application/cbor"
        signed = Signed.parse(await response.read())
    await runner.cleanup()

    assert open_stamp(signed, DEPLOYMENT, WHAT, witness.key).at == NOW


async def test_a_stamp_is_no_cosignature_and_a_cosignature_no_stamp(witness: Stamping) -> None:
    """[K-1]"""
    stamp = await witness.stamped()
    note, (line,) = await witness.cosign()

    forged = SignatureLine(NAME, line.key_id, line.signature[:8] + stamp.signature)
    text = parse_note(note).text
    with pytest.raises(VerificationError, match="does not verify"):
        cosignatures(serialize_note(Note(text, (forged,))), [witness.key])
    with pytest.raises(VerificationError):
        verify_stamp(Stamp(NAME, NOW, line.signature[8:]), DEPLOYMENT, WHAT, witness.key)


async def test_a_hash_that_looks_like_a_checkpoint_makes_no_cosignature(
    witness: Stamping,
) -> None:
    """[K-1] What is stamped is framed, so that nobody chooses what a witness signs."""
    note = checkpoint()
    message = f"cosignature/v1\ntime {NOW}\n{parse_note(note).text}".encode()
    for start in range(0, len(message), 32):
        what = message[start : start + 32].ljust(32, b"\n")
        status, body = await witness.stamp(ask(what=what))
        assert status == 200
        signature = Signed.parse(body).signature
        line = SignatureLine(NAME, witness.key.key_id, NOW.to_bytes(8, "big") + signature)
        with pytest.raises(VerificationError):
            cosignatures(serialize_note(Note(parse_note(note).text, (line,))), [witness.key])


async def test_a_proof_for_a_link_is_no_stamp(witness: Stamping) -> None:
    """[K-1]"""
    key = witness.folder.key
    proof = Proof.make(NAME, key.signing_key, DEPLOYMENT, Challenge(WHAT))
    stamp = Stamp(NAME, NOW, proof.signature)
    with pytest.raises(VerificationError):
        verify_stamp(stamp, DEPLOYMENT, WHAT, witness.key)
    with pytest.raises(VerificationError):
        Proof(NAME, (await witness.stamped()).signature).verify(
            witness.key, DEPLOYMENT, Challenge(WHAT)
        )


# Anchors.


async def test_a_witness_adds_its_line_for_an_anchor_when_it_is_asked_for_one(
    witness: Stamping,
) -> None:
    """[L-10]"""
    note, lines = await witness.cosign(is_anchor=True)
    anchor_key = witness.folder.key.anchor_verifier_key

    assert anchor_key is not None
    whole = serialize_note(Note(parse_note(note).text, lines))
    assert [one.time for one in cosignatures(whole, [witness.key, anchor_key])] == [NOW, NOW]


async def test_a_witness_adds_no_other_line_unasked(witness: Stamping) -> None:
    _, lines = await witness.cosign()

    assert [(line.name, line.key_id) for line in lines] == [(NAME, witness.key.key_id)]


async def test_an_anchor_is_refused_with_the_checkpoint(witness: Stamping) -> None:
    """[W-3]"""
    await witness.cosign()
    witness.clock.now -= 1
    request = AddCheckpoint(old_size=0, hashes=(), note=checkpoint())
    answer = await witness.witness.answer("/add-checkpoint?anchor", request.serialize())

    assert answer.status == 503
