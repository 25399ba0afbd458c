"""An honest relay is never convicted: [V-2] over whatever it publishes after a hard start."""

from pathlib import Path

import pytest
from aiohttp import ClientSession

from comity_protocol.errors import VerificationError
from comity_protocol.evidence import verify_broken_promise
from comity_protocol.limits import PROMISE_WITHIN_SECONDS
from comity_server.witnesses import Address, Witness
from support.relay import relay, small_world, wait_until, witness

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
