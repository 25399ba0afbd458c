"""Two desks over a real relay with real witnesses: what is shown is proven, and nothing is lost."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from comity_client.desk import Desk, Stage
from comity_client.drafts import Draft
from comity_protocol.acts import Event
from comity_protocol.exchange import State
from comity_protocol.statements import Authority
from support.desks import LEAD, REQUEST, enrol, open_desk
from support.relay import Relay, relay, small_world
from support.world import Member, World


@dataclass(slots=True)
class Pair:
    """A running relay and a desk on each side."""

    relay: Relay
    world: World
    alice: Desk
    bob: Desk
    alice_member: Member
    bob_member: Member
    folder: Path

    async def deliver(self) -> None:
        """Send what is queued and let both fetch."""
        for desk in (self.alice, self.bob):
            await desk.flush()
        for desk in (self.alice, self.bob):
            await desk.fetch()


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    world, one, other = small_world()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(relay(tmp_path, world))
        await running.publish()
        members = [world.active(one)[0], world.active(other)[0]]
        desks = []
        for number, member in enumerate(members):
            folder = enrol(tmp_path / f"desk{number}", world, member, running.url)
            desks.append(await stack.enter_async_context(open_desk(folder, member, running.clock)))
        for desk in desks:
            await desk.sync()
        yield Pair(running, world, *desks, *members, tmp_path)


async def test_a_lead_arrives_verified_and_both_sides_see_the_same_exchange(pair: Pair) -> None:
    # [B-1] [B-5] [B-7]
    envelope = pair.alice.lead(pair.bob.profile.desk, LEAD)
    assert pair.alice.status(envelope).stage is Stage.QUEUED
    await pair.alice.flush()
    assert pair.alice.status(envelope).stage is Stage.ACCEPTED
    new = await pair.bob.fetch()
    await pair.alice.fetch()

    opened = pair.bob.read(envelope)
    assert opened.act is not None
    assert opened.act.text == LEAD.text
    assert [line.envelope for line in new] == [envelope]
    assert pair.bob.exchanges() == pair.alice.exchanges()
    assert pair.alice.status(envelope).stage in (Stage.SEALED, Stage.STORED)
    assert not pair.alice.alarms()
    assert not pair.bob.alarms()
