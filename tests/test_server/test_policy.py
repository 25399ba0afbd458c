"""A relay follows its genesis's policy: whom it asks, and when it has enough. [L-3] [L-9]"""

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from comity_protocol.checkpoint import Cosignature, verify_quorum
from comity_protocol.quorum import Quorum
from comity_server.settings import SettingsError
from support.relay import Clock, Relay, relay, wait_until, witness
from support.world import World


def nested(world: World) -> Quorum:
    """Two of the first three witnesses, and the fourth or the fifth."""
    keys = world.genesis.quorum.witnesses
    return Quorum(2, (Quorum(2, keys[:3], "States"), Quorum(1, keys[3:], "neutral")), "both")


@pytest.fixture
def world() -> World:
    founded = World.found(witnesses=5, quorum=3)
    return founded.refounded(replace(founded.genesis.policy, quorum=nested(founded)))


async def published(stand: Relay) -> bytes:
    await stand.seal()
    return stand.context.log.newest().note


def names_of(found: tuple[Cosignature, ...]) -> list[str]:
    return sorted(one.witness for one in found)


async def test_a_relay_asks_the_witnesses_where_the_policy_says_they_are(
    tmp_path: Path, world: World
) -> None:
    """[L-9] Nothing is set: the genesis that the States signed is enough."""
    clock = Clock()
    async with AsyncExitStack() as stack:
        urls = {
            key.name: await stack.enter_async_context(witness(tmp_path, key.name, world, clock))
            for key in (*world.genesis.quorum.witnesses[1:4],)
        }
        there = world.refounded(replace(world.genesis.policy, urls=urls))
        stand = await stack.enter_async_context(relay(tmp_path, there, clock=clock, witnesses=0))

        note = await published(stand)

    witnessed = verify_quorum(note, world.genesis.log, world.genesis.quorum)
    assert names_of(witnessed.cosignatures) == sorted(urls)


async def test_settings_go_before_the_addresses_of_the_policy(tmp_path: Path, world: World) -> None:
    """A witness that has moved can still be asked."""
    urls = {key.name: f"http://{key.name}.invalid" for key in world.genesis.quorum.witnesses}
    moved = world.refounded(replace(world.genesis.policy, urls=urls))

    async with relay(tmp_path, moved) as stand:
        note = await published(stand)

    assert verify_quorum(note, world.genesis.log, world.genesis.quorum).checkpoint.size == 1


async def test_a_relay_does_not_start_when_the_least_quorum_has_no_addresses(
    tmp_path: Path, world: World
) -> None:
    """[L-3]"""
    with pytest.raises(
        SettingsError, match="2 witnesses have an address and the genesis demands 3"
    ):
        async with relay(tmp_path, world, witnesses=2):
            raise AssertionError("it started")


async def test_a_relay_does_not_publish_what_three_states_alone_cosigned(
    tmp_path: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """[L-3] Three lines are as many as it takes, and yet no quorum."""

    def refusals() -> list[str]:
        fields = (record.__dict__.get("fields", {}) for record in caplog.records)
        return [str(one.get("reason", "")) for one in fields]

    async with relay(tmp_path, world, witnesses=3) as stand:
        await wait_until(lambda: any("has 3 cosignatures" in reason for reason in refusals()))

        assert stand.context.log.size == 0
