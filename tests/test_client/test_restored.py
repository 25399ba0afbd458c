"""Two desks and a relay whose database is set back: everything comes back, and nothing forks."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from comity_client.desk import Desk
from comity_client.drafts import Draft
from comity_client.envelopes import Stage
from comity_client.profile import Deployment, read_profile, write_profile
from comity_client.transport import RelayRefusedError
from comity_protocol.notices import HoldBasis, Restored
from comity_protocol.statements import Authority
from support.desks import LEAD, enrol, open_desk
from support.relay import Relay, relay, wait_until
from support.world import Member, World

TRIES = 60


class Office:
    """A device whose relay may come up at another address."""

    def __init__(self, folder: Path, member: Member) -> None:
        self.folder = folder
        self.member = member

    @asynccontextmanager
    async def at(self, running: Relay) -> AsyncIterator[Desk]:
        profile = read_profile(self.folder)
        pinned = Deployment(running.url, profile.deployment.genesis_hash)
        write_profile(self.folder, replace(profile, deployment=pinned))
        desk, _ = open_desk(self.folder, self.member, running.clock)
        async with desk:
            yield desk


async def talk(running: Relay, *desks: Desk) -> None:
    """Send and fetch, twice, so that receipts come home."""
    for _ in range(2):
        for desk in desks:
            await desk.flush()
        await running.seal()
        for desk in desks:
            await desk.fetch()


def back_up(path: Path) -> None:
    """Copy the database while the relay runs."""
    with (
        closing(sqlite3.connect(path / "relay.sqlite")) as source,
        closing(sqlite3.connect(path / "backup")) as target,
    ):
        source.backup(target)


def put_back(path: Path) -> None:
    """Set the database back; signer and witnesses remember."""
    for end in ("", "-wal", "-shm"):
        (path / f"relay.sqlite{end}").unlink(missing_ok=True)
    shutil.copy(path / "backup", path / "relay.sqlite")


@pytest.mark.timeout(120)
async def test_desks_bring_a_restored_relay_back_to_where_it_was(tmp_path: Path) -> None:
    # [B-14] [B-19] Whole programs on both sides; the relay loses acts, receipts and a notice.
    world = World.found()
    ids = [world.create_desk(code, Authority.PROSECUTION) for code in ("XA", "XB")]
    path = tmp_path / "relay"
    path.mkdir()
    offices = []
    async with relay(path, world) as running:
        await running.publish()
        for number, id_ in enumerate(ids):
            member = world.active(id_)[0]
            folder = enrol(tmp_path / f"desk{number}", world, member, running.url)
            offices.append(Office(folder, member))
        one, other = offices
        async with one.at(running) as alice, other.at(running) as bob:
            await alice.sync()
            await bob.sync()
            first = alice.lead(ids[1], LEAD)
            await talk(running, alice, bob)
            back_up(path)
            had = running.context.log.size
            exchange = alice.read(first).record.exchange
            second = alice.lead(ids[1], LEAD)
            bob.answer(exchange, Draft(text="nothing is known here"))
            await talk(running, alice, bob)
            await alice.hold(exchange, HoldBasis.PROCEEDINGS)
            await talk(running, alice, bob)
            lines = [(line.leaf_index, line.envelope) for line in bob.inbox()]
            size = running.context.log.size
    put_back(path)
    async with relay(path, world) as running, AsyncExitStack() as stack:
        alice, bob = [await stack.enter_async_context(one.at(running)) for one in offices]
        third = alice.lead(ids[1], LEAD)
        for _ in range(TRIES):
            for desk in (alice, bob):
                try:
                    await desk.flush()
                    await desk.fetch()
                except RelayRefusedError as error:
                    assert error.code in {"repairing", "busy"}  # noqa: PT017  # waits and goes on
            if running.context.relay.gate is None and running.context.log.size > size:
                break
            await asyncio.sleep(0.05)
        await wait_until(lambda: running.context.relay.gate is None)
        await talk(running, alice, bob)
        newcomer = Office(
            enrol(tmp_path / "new", world, world.active(ids[1])[1], running.url),
            world.active(ids[1])[1],
        )
        fresh = await stack.enter_async_context(newcomer.at(running))
        await fresh.fetch()

        notices = [kept.notice for kept in fresh.notices()]
        (restored,) = [notice for notice in notices if isinstance(notice, Restored)]
        assert (restored.had, restored.size, restored.lost) == (had, size, 0)
        assert len(notices) == 2
        assert [(one.leaf_index, one.envelope) for one in fresh.inbox()][: len(lines)] == lines
        assert not [line for line in fresh.inbox() if line.refused]
        assert [alice.status(one).stage for one in (first, second, third)] == [
            Stage.ANSWERED,
            Stage.STORED,
            Stage.STORED,
        ]
        assert not [alarm for desk in (alice, bob, fresh) for alarm in desk.alarms()]
