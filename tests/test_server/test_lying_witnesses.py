"""Seven witnesses of which two lie and one is away: what four of seven seal, and five cannot.

[L-3] [L-5] [M-5] [R-15]
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web

from comity_client.witness import Witness, serve_witness
from comity_client.witness_state import WitnessKey, WitnessState
from comity_protocol.checkpoint import WitnessedCheckpoint, verify_quorum
from comity_protocol.times import skews
from support.liars import YEARS_SECONDS, Liar, Lie, served
from support.relay import Clock, Relay, relay, wait_until, witness
from support.world import World

WITNESSES: Final = 7
SKEWS: Final = (-40, -5, 5, 40)
"""Seconds by which the clocks of the four honest witnesses are wrong."""

WAIT_SECONDS: Final = 0.3
"""How long the relay waits for one witness here."""

LATE_SECONDS: Final = 1.0


def found(quorum: int) -> World:
    world = World.found(witnesses=WITNESSES, quorum=quorum)
    world.create_desk("XA")
    return world


@asynccontextmanager
async def lied_to(
    folder: Path, world: World, lies: Sequence[Sequence[Lie]], *, urls: Sequence[str] = ()
) -> AsyncIterator[tuple[Relay, list[Liar]]]:
    """Run a relay with four honest witnesses whose clocks differ, and with liars after them."""
    clock, names = Clock(), sorted(world.witness_keys)
    liars = [
        Liar(name, world.witness_keys[name], each, clock, late_seconds=LATE_SECONDS)
        for name, each in zip(names[len(SKEWS) :], lies, strict=False)
    ]
    async with AsyncExitStack() as stack:
        given = list(urls)
        for name, skew in zip(names, SKEWS, strict=False):
            own = Clock()
            own.ahead = skew
            given.append(await stack.enter_async_context(witness(folder, name, world, own)))
        given += [await stack.enter_async_context(served(liar.make_app())) for liar in liars]
        running = await stack.enter_async_context(
            relay(
                folder,
                world,
                clock=clock,
                witnesses=0,
                urls=given,
                checkpoint_wait_seconds=WAIT_SECONDS,
            )
        )
        yield running, liars


async def sealed(running: Relay) -> WitnessedCheckpoint:
    """Have something sealed; give the checkpoint, verified as a client does."""
    await running.publish()
    genesis = running.world.genesis
    return verify_quorum(running.context.log.newest().note, genesis.log, genesis.quorum)


ROTATING: Final = (Lie.SIGNATURE, Lie.AHEAD, Lie.BEHIND, Lie.LATE, Lie.SIZE)
LIES: Final[dict[str, Sequence[Sequence[Lie]]]] = {
    "wrong signatures": [[Lie.SIGNATURE]] * 2,
    "clocks ahead": [[Lie.AHEAD]] * 2,
    "clocks behind": [[Lie.BEHIND]] * 2,
    "clocks apart": [[Lie.AHEAD], [Lie.BEHIND]],
    "late answers": [[Lie.LATE]] * 2,
    "all in turn": [ROTATING, ROTATING[1:4] + ROTATING[:1] + ROTATING[4:]],
}


@pytest.mark.parametrize("lies", list(LIES))
async def test_two_liars_and_one_that_is_away_of_seven_stop_and_move_nothing(
    tmp_path: Path, lies: str
) -> None:
    """[L-5] Four honest ones are the quorum, and 2 * 4 - 7 = 1: every two quorums share one."""
    world = found(quorum=4)
    async with lied_to(tmp_path, world, LIES[lies]) as (running, liars):
        for _ in range(3):
            world.create_desk("XB")
            earliest = running.clock() + min(SKEWS) - 1
            witnessed = await sealed(running)
            latest = running.clock() + max(SKEWS)

            assert witnessed.checkpoint.size == len(world.statements)
            assert earliest <= witnessed.sealed_time <= latest
    assert all(liar.told for liar in liars)


async def test_clocks_that_are_years_off_are_shown_with_their_witnesses(tmp_path: Path) -> None:
    """[M-5]"""
    world = found(quorum=4)
    lying = sorted(world.witness_keys)[4:6]
    seen: dict[str, int] = {}
    async with (
        lied_to(tmp_path, world, LIES["clocks apart"]) as (running, _),
        asyncio.timeout(20),
    ):
        # The relay publishes when it has enough, so a slow machine may leave a line out once.
        while not set(lying) <= set(seen):
            world.create_desk("XB")
            seen |= skews(await sealed(running))

    assert [seen[name] for name in lying] == [
        pytest.approx(YEARS_SECONDS, abs=120),
        pytest.approx(-YEARS_SECONDS, abs=120),
    ]


async def test_a_witness_that_named_a_wrong_size_once_is_asked_again(tmp_path: Path) -> None:
    """[R-15] A lie costs a witness that cosignature, and not those until the relay ends."""
    world = found(quorum=4)
    once = [*([Lie.LATE] * 4), Lie.SIZE, *([Lie.AHEAD] * 1_000)]
    name = sorted(world.witness_keys)[4]
    async with lied_to(tmp_path, world, [once]) as (running, (liar,)):
        async with asyncio.timeout(20):
            while name not in skews(await sealed(running)):
                world.create_desk("XB")
    assert Lie.SIZE in liar.told


@pytest.mark.parametrize(("quorum", "starts"), [(4, True), (3, False)])
async def test_a_number_stops_a_start_only_when_a_quorum_says_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, quorum: int, starts: bool
) -> None:
    """[G-4] Three of seven, or whoever stands before them, claim at every start to be ahead."""
    world = found(quorum=quorum)
    async with lied_to(tmp_path, world, [[Lie.SIZE]] * 3) as (running, _):
        gate = running.context.relay.gate
        if starts:
            assert (await sealed(running)).checkpoint.size == len(world.statements)

    assert (gate is None) is starts
    said = [record for record in caplog.records if record.msg == "witness-ahead"]
    assert len(said) >= 3
    reasons = [
        record.fields["reason"]  # type: ignore[attr-defined]  # what observe adds
        for record in caplog.records
        if record.msg == "repair-waits"
    ]
    assert any("no checkpoint of more than" in reason for reason in reasons) is not starts


async def test_five_of_seven_are_no_quorum_then_and_seal_as_soon_as_the_fifth_is_back(
    tmp_path: Path,
) -> None:
    """[L-3] Nothing is sealed meanwhile, nothing is lost, and what was promised stays promised."""
    world = found(quorum=5)
    name = sorted(world.witness_keys)[6]
    address = socket.socket()
    # Bound and not listening: whoever calls is refused, as where nobody is at home.
    address.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{address.getsockname()[1]}"
    lies = LIES["wrong signatures"]
    async with lied_to(tmp_path, world, lies, urls=[url]) as (running, liars):
        for _, signed in world.statements[1:]:
            answer = await running.ask("POST", "/v1/statements", signed.serialize())
            assert answer.status == 200
        running.posted = len(world.statements)
        tried = [len(liar.told) for liar in liars]
        await wait_until(
            lambda: all(len(liar.told) > 3 + n for liar, n in zip(liars, tried, strict=True))
        )
        assert running.context.log.size == 0
        assert (await running.ask("GET", "/checkpoint")).code == "not-yet"

        key = WitnessKey(name, world.witness_keys[name])
        state = WitnessState.create(tmp_path / "back", key.verifier_key)
        app = serve_witness(Witness(state, key, [world.genesis.log], lambda: int(running.clock())))
        runner = web.AppRunner(app)
        await runner.setup()
        await web.SockSite(runner, address).start()
        witnessed = await sealed(running)
        await runner.cleanup()
        state.close()

    assert witnessed.checkpoint.size == len(world.statements)
    assert len(witnessed.cosignatures) == 5
