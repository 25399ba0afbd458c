"""A secretariat sees the same exchanges as the parties, without a word of what they say."""

from contextlib import AsyncExitStack
from pathlib import Path

from comity_client.drafts import Draft
from comity_client.envelopes import Stage
from comity_protocol.exchange import State
from support.desks import LEAD, enrol, open_desk
from support.relay import audited_world, relay


async def test_an_auditor_folds_the_same_exchange_from_the_records(tmp_path: Path) -> None:
    # [B-1] [U-1]
    world, sender, receiver, auditor = audited_world()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(relay(tmp_path, world))
        await running.publish()
        desks = []
        for name, id_ in (("a", sender), ("b", receiver), ("s", auditor)):
            member = world.active(id_)[0]
            folder = enrol(tmp_path / name, world, member, running.url)
            desk, _ = open_desk(folder, member, running.clock)
            desks.append(await stack.enter_async_context(desk))
            await desk.sync()
        alice, bob, secretariat = desks
        opening = alice.lead(receiver, LEAD)
        await alice.flush()
        await bob.fetch()
        (exchange,) = bob.exchanges()
        reply = bob.answer(exchange.id, Draft(text="nothing is known here"))
        await bob.flush()
        await secretariat.fetch()
        await alice.fetch()

        assert secretariat.exchanges() == alice.exchanges()
        assert secretariat.exchanges()[0].state is State.ANSWERED
        assert [secretariat.read(one).act for one in (opening, reply)] == [None, None]
        assert secretariat.read(opening).record.offences == LEAD.offences
        assert secretariat.read(reply).record == alice.read(reply).record
        # A secretariat gives no receipt: only the desk that was written to has stored it.
        assert alice.status(opening).stage is Stage.ANSWERED
        files = [path.read_bytes() for path in (tmp_path / "s").iterdir()]
        assert not [data for data in files if b"vehicle" in data or b"nothing is known" in data]
