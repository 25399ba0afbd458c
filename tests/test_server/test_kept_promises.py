"""An honest relay is never convicted: [V-2] over whatever it publishes after a hard start."""

from pathlib import Path

import pytest
from aiohttp import ClientSession

from comity_protocol.checkpoint import open_checkpoint
from comity_protocol.errors import VerificationError
from comity_protocol.evidence import verify_broken_promise
from comity_protocol.limits import PROMISE_WITHIN_SECONDS
from comity_protocol.receipts import Signed
from comity_server.signer import Signer
from comity_server.witnesses import Address, Witness
from support.relay import Clock, relay, small_world, wait_until, witness

SILENT = ("http://127.0.0.1:9/one", "http://127.0.0.1:9/two")


async def test_what_was_promised_while_the_witnesses_were_away_is_in_the_first_checkpoint_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[V-2] [B-5] What waited for a place gets it before a head is signed that leaves it out."""
    world, one, other = small_world()
    async with relay(tmp_path, world) as running:
        await running.publish()
    async with (
        ClientSession() as session,
        relay(tmp_path, world, witnesses=0, urls=SILENT) as running,
    ):
        _, answer = await running.send(world.active(one)[0], other)
        assert running.context.relay.gate is not None
        promise = answer.promise
        running.clock.ahead = PROMISE_WITHIN_SECONDS + 60
        before = running.context.log.newest()
        names = sorted(world.witness_keys)
        async with (
            witness(tmp_path, names[0], world, running.clock) as first,
            witness(tmp_path, names[1], world, running.clock) as second,
        ):
            keys = world.genesis.quorum.witnesses
            back = tuple(
                Witness(Address(url, session, 5), keys, running.context.metrics)
                for url in (first, second)
            )
            monkeypatch.setattr(running.context.witnesses, "_called", back)
            await wait_until(lambda: running.context.log.newest().note != before.note)
            await running.seal()
            notes = [row.note for row in await running.context.store.checkpoints(-1, 0, 100)]
            entries = await running.context.store.leaves(0, running.context.log.size)

        for note in notes:
            try:
                verify_broken_promise(promise, note, world.genesis, entries)
            except VerificationError:
                continue
            raise AssertionError("an honest relay was convicted")


async def test_a_relay_whose_clock_falls_back_a_month_dates_no_promise_too_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[V-2] Promised between a head that leaves it out and that head's cosignatures."""
    world, one, other = small_world()
    member = world.active(one)[0]
    clock, own = Clock(), Clock()
    async with (
        witness(tmp_path, "witness0.example", world, own) as first,
        witness(tmp_path, "witness1.example", world, own) as second,
        relay(tmp_path, world, clock=clock, witnesses=0, urls=[first, second]) as running,
    ):
        await running.publish()
        clock.ahead = -30 * 86_400
        await running.ask("GET", "/v1/nonce")
        body = running.seal_lead(member, other).upload.serialize()
        promises: list[Signed] = []
        sign = Signer.sign

        async def sign_and_promise(self: Signer) -> tuple[int, bytes]:
            signed = await sign(self)
            if not promises:
                answer = await running.as_device(member, "POST", "/v1/envelopes", body)
                promises.append(answer.promise)
            return signed

        monkeypatch.setattr(Signer, "sign", sign_and_promise)
        size = (await running.context.store.head()).size
        running.context.relay.grown.set()
        await wait_until(lambda: running.context.log.size > size)
        entries = await running.context.store.leaves(0, running.context.log.size)
        notes = [row.note for row in await running.context.store.checkpoints(-1, 0, 100)]

    short = [note for note in notes if open_checkpoint(note, world.genesis.log).size == size]
    assert short
    for note in short:
        with pytest.raises(VerificationError, match="before the promise ran out"):
            verify_broken_promise(promises[0], note, world.genesis, entries[:size])


async def test_a_signer_that_lost_its_memory_keeps_the_relay_from_promising(
    tmp_path: Path,
) -> None:
    """[V-2] [G-5] Nobody can say whether the database was restored while the witnesses are away."""
    world, one, other = small_world()
    async with relay(tmp_path, world) as running:
        await running.publish()
    (tmp_path / "signer.sqlite").unlink()
    async with relay(tmp_path, world, witnesses=0, urls=SILENT) as running:
        _, answer = await running.send(world.active(one)[0], other)

        assert (answer.status, answer.code) == (503, "busy")
