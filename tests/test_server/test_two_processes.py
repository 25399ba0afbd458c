"""Two relay processes on one PostgreSQL: one integrates and signs, both accept and serve."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from comity_protocol.statements import Role
from support.notices import device_of, erase, give
from support.relay import Relay, relay, small_world, wait_until
from support.world import World


@pytest.fixture
async def pair(tmp_path: Path, postgres_url: str) -> AsyncIterator[tuple[World, Relay, Relay]]:
    """Run two relays with one signer's file; the first holds the lease of the log."""
    world, _, _ = small_world()
    database = postgres_url
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(relay(tmp_path, world, database=database))
        await first.publish()
        urls = first.context.settings.witnesses
        second = await stack.enter_async_context(
            relay(tmp_path, world, database=database, witnesses=0, urls=urls)
        )
        second.posted = first.posted
        yield world, first, second


async def test_what_one_accepts_the_other_hands_over(
    pair: tuple[World, Relay, Relay],
) -> None:
    """[R-3]"""
    world, first, second = pair
    one, other = list(world.directory.desks)[:2]
    sender, receiver = world.active(one)[0], world.active(other)[0]
    async with first.socket(receiver) as near, second.socket(receiver) as far:
        await near.put("follow", 0)
        await far.put("follow", 0)
        sealed = []
        for number in range(6):
            each, answer = await (first, second)[number % 2].send(sender, other)
            assert answer.status == 200
            sealed.append(each.upload.core)
        frames = [[await socket.get() for _ in range(6)] for socket in (near, far)]

    assert first.context.relay.is_holder
    assert not second.context.relay.is_holder
    assert frames[0] == frames[1]
    assert [frame[1] for frame in frames[0]] == [1, 2, 3, 4, 5, 6]
    assert {frame[3] for frame in frames[0]} == set(sealed)


async def test_both_show_the_same_checkpoint(pair: tuple[World, Relay, Relay]) -> None:
    world, first, second = pair
    one, other = list(world.directory.desks)[:2]
    await first.send(world.active(one)[0], other)
    note_hash = await first.seal()
    await wait_until(lambda: second.context.log.newest().note_hash == note_hash)
    _, answer = await second.send(world.active(one)[0], other)

    assert answer.status == 200


async def test_a_removal_at_one_is_effective_at_the_other_for_what_is_sent(
    pair: tuple[World, Relay, Relay],
) -> None:
    """[R-6]"""
    world, first, second = pair
    one, other = list(world.directory.desks)[:2]
    leaver = world.active(one)[0]
    sealed = second.seal_lead(leaver, other)
    second.context.members.is_active(leaver.id)
    world.remove(one, [leaver])
    _, removal = world.statements[-1]
    assert (await first.ask("POST", "/v1/statements", removal.serialize())).status == 200
    answer = await second.post(leaver, sealed)

    assert (answer.status, answer.code) == (403, "not-active")


async def test_an_erasure_at_one_is_effective_at_the_other_for_what_is_sent(
    pair: tuple[World, Relay, Relay],
) -> None:
    """[R-11] Although the other knew the wraps a moment ago."""
    world, first, second = pair
    one, other = list(world.directory.desks)[:2]
    sender = world.active(one)[0]
    admin = device_of(first, world.active(other)[0], Role.ADMIN)
    opening, _ = await first.send(sender, other)
    await second.publish()
    size = first.context.relay.size
    later, known = await second.send(sender, other, thread=opening.thread)
    await wait_until(lambda: first.context.relay.size > size)
    ids = [opening.id, later.id]
    answer = await give(first, admin, erase(first, admin, ids))
    _, refused = await second.send(sender, other, thread=opening.thread)
    items = (await second.as_device(admin, "GET", "/v1/mailbox")).value["items"]

    assert (known.status, answer.status) == (200, 200)
    assert (refused.status, refused.code) == (409, "unknown-reference")
    assert [item[4] for item in items] == [None, None]


async def test_the_other_takes_over_when_one_stops(tmp_path: Path, postgres_url: str) -> None:
    world, one, other = small_world()
    async with relay(tmp_path, world, database=postgres_url) as first:
        await first.publish()
        size = first.context.log.size
    async with relay(tmp_path, world, database=postgres_url) as second:
        second.posted = len(world.statements)
        _, answer = await second.send(world.active(one)[0], other)
        await second.seal()

        assert answer.status == 200
        assert second.context.relay.is_holder
        assert second.context.log.size == size + 1
