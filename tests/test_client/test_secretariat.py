"""A secretariat counts what it was given, and what it was not given it counts too."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from sqlite3 import connect

import pytest

from comity_client.desk import Desk
from comity_client.drafts import Draft
from comity_client.profile import STATE_FILE
from comity_client.secretariat import statistics
from comity_client.seeds import NoKeyError
from comity_protocol.core import Core
from comity_protocol.counting import Fault, Unaccounted, digest_of
from comity_protocol.envelope import Sealed
from comity_protocol.identifiers import DeskId
from comity_protocol.keys import Context, random_bytes
from comity_protocol.notices import EraseBasis
from support.desks import LEAD, enrol, open_desk
from support.relay import Relay, audited_world, relay
from support.world import Member, lead


@dataclass(frozen=True)
class Region:
    """Two desks and the secretariat that audits them."""

    relay: Relay
    alice: Desk
    bob: Desk
    secretariat: Desk
    member: Member
    receiver: DeskId


@asynccontextmanager
async def region(path: Path) -> AsyncIterator[Region]:
    world, sender, receiver, auditor = audited_world()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(relay(path, world))
        await running.publish()
        desks = []
        for name, id_ in (("a", sender), ("b", receiver), ("s", auditor)):
            member = world.active(id_)[0]
            folder = enrol(path / name, world, member, running.url)
            desk, _ = open_desk(folder, member, running.clock)
            desks.append(await stack.enter_async_context(desk))
            await desk.sync()
        alice, bob, secretariat = desks
        yield Region(running, alice, bob, secretariat, world.active(sender)[0], receiver)


def without_key_for(sealed: Sealed, auditor: DeskId, member: Member) -> Sealed:
    """Give the auditor random bytes where its wrap should be, and sign that."""
    core = Core.parse(sealed.upload.core)
    place = [entry.desk for entry in core.to].index(auditor)
    wraps = list(sealed.upload.wraps)
    wraps[place] = random_bytes(len(wraps[place]))
    to = list(core.to)
    to[place] = replace(to[place], wrap_hash=sha256(wraps[place]).digest())
    data = replace(core, to=tuple(to)).serialize()
    upload = replace(
        sealed.upload,
        core=data,
        signature=member.fast.sign(Context.ENVELOPE, data),
        wraps=tuple(wraps),
    )
    return replace(sealed, upload=upload)


async def test_answered_and_open_exchanges_are_counted(tmp_path: Path) -> None:
    """[N-1] [N-3]"""
    async with region(tmp_path) as here:
        here.alice.lead(here.receiver, LEAD)
        here.alice.lead(here.receiver, LEAD)
        await here.alice.flush()
        await here.bob.fetch()
        here.bob.answer(here.bob.exchanges()[0].id, Draft(text="nothing is known here"))
        await here.bob.flush()
        await here.secretariat.fetch()

        counted = await statistics(here.secretariat)

        assert (counted.totals.answered, counted.totals.open) == (1, 1)
        assert counted.unaccounted == ()
        # One witness can move the time of a quorum of two, so nobody is ranked by it [M-6].
        assert not counted.is_ranked
        assert digest_of(await statistics(here.secretariat)) == digest_of(counted)


async def test_a_record_that_does_not_open_counts_against_its_sender(tmp_path: Path) -> None:
    """[N-4] A desk gives the secretariat noise instead of the key, which no relay can see."""
    async with region(tmp_path) as here:
        auditor = here.secretariat.profile.desk
        sealed = here.relay.seal_lead(here.member, here.receiver)
        await here.relay.post(here.member, without_key_for(sealed, auditor, here.member))
        await here.secretariat.fetch()

        counted = await statistics(here.secretariat)

        (index,) = [line.leaf_index for line in here.secretariat.inbox()]
        party = here.secretariat.directory.desk(here.member.desk).party
        assert counted.rows == ()
        assert counted.unaccounted == (
            Unaccounted(index, sealed.id, here.member.desk, Fault.UNOPENED),
        )
        assert counted.charged == ((party, 1),)


async def test_an_act_that_the_machine_refused_is_counted_apart(tmp_path: Path) -> None:
    """[N-1]"""
    async with region(tmp_path) as here:
        act = lead()
        for _ in range(2):
            await here.relay.post(
                here.member,
                here.relay.world.seal_act(
                    here.member, here.receiver, act, seen=await here.relay.seal()
                ),
            )
        await here.secretariat.fetch()

        (row,) = (await statistics(here.secretariat)).rows

        assert (row.refused_steps, row.state) == (1, "submitted")


async def test_a_record_that_this_desk_erased_counts_against_nobody(tmp_path: Path) -> None:
    """[N-4] The secretariat's own retention is no fault of the sender."""
    async with region(tmp_path) as here:
        here.alice.lead(here.receiver, LEAD)
        await here.alice.flush()
        await here.secretariat.fetch()
        (exchange,) = here.secretariat.exchanges()
        await here.secretariat.erase(exchange.id, EraseBasis.RETENTION)

        counted = await statistics(here.secretariat)

        assert [one.fault for one in counted.unaccounted] == [Fault.GONE]
        assert counted.charged == ()


async def test_a_device_without_its_desks_keys_accuses_nobody(tmp_path: Path) -> None:
    """[N-4] A new device of the secretariat that was never given a key cannot tell who hides."""
    async with region(tmp_path) as here:
        here.alice.lead(here.receiver, LEAD)
        await here.alice.flush()
        await here.secretariat.fetch()
        member = here.relay.world.active(here.secretariat.profile.desk)[0]
        clock = here.relay.clock
    with closing(connect(tmp_path / "s" / STATE_FILE)) as connection, connection:
        connection.execute("DELETE FROM boxes")
        connection.execute("DELETE FROM previous")
    opened, _ = open_desk(tmp_path / "s", member, clock)
    async with opened as desk:
        with pytest.raises(NoKeyError):
            await statistics(desk, is_online=False)
