"""Two desks of two States over a real relay with real witnesses."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from comity_client.desk import Desk
from comity_client.profile import write_profile
from comity_client.stamps import Ask
from comity_protocol.identifiers import DeskId
from comity_protocol.statements import Authority
from support.desks import Meddler, StampingWitnesses, enrol, nobody, open_desk
from support.relay import Relay, relay
from support.world import Member, World


@dataclass(slots=True)
class Side:
    """One desk with its device, its folder and the relay as it sees it."""

    member: Member
    folder: Path
    desk: Desk
    relay: Meddler

    @property
    def id(self) -> DeskId:
        return self.member.desk


@dataclass(slots=True)
class Pair:
    """A running relay and a desk on each side: prosecutors of two States."""

    relay: Relay
    world: World
    alice: Side
    bob: Side
    stack: AsyncExitStack

    async def deliver(self, *, rounds: int = 1) -> None:
        """Send what is queued and let both fetch, then once more for the receipts."""
        for _ in range(rounds):
            for side in (self.alice, self.bob):
                await side.desk.flush()
            for side in (self.bob, self.alice):
                # What was sent so far is witnessed, however busy the machine is.
                await self.relay.seal()
                await side.desk.fetch()

    async def reopen(self, side: Side, ask: Ask = nobody) -> None:
        """Stop a client and start it again, as after a crash."""
        await side.desk.aclose()
        side.desk, side.relay = open_desk(side.folder, side.member, self.relay.clock, ask)
        await self.stack.enter_async_context(side.desk)

    async def witnesses(self, side: Side) -> StampingWitnesses:
        """Tell a client where the witnesses are, and give them."""
        found = StampingWitnesses(self.world, self.relay.clock)
        write_profile(side.folder, replace(side.desk.profile, witnesses=found.urls))
        await self.reopen(side, found)
        return found

    async def join(self, member: Member, name: str) -> Side:
        """Start the client of another member."""
        folder = enrol(self.alice.folder.parent / name, self.world, member, self.relay.url)
        desk, meddler = open_desk(folder, member, self.relay.clock)
        await self.stack.enter_async_context(desk)
        return Side(member, folder, desk, meddler)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    world = World.found()
    desks = [world.create_desk(code, Authority.PROSECUTION) for code in ("XA", "XB")]
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(relay(tmp_path, world))
        await running.publish()
        sides = []
        for number, id_ in enumerate(desks):
            member = world.active(id_)[0]
            folder = enrol(tmp_path / f"desk{number}", world, member, running.url)
            desk, meddler = open_desk(folder, member, running.clock)
            await stack.enter_async_context(desk)
            await desk.sync()
            sides.append(Side(member, folder, desk, meddler))
        yield Pair(running, world, sides[0], sides[1], stack)
