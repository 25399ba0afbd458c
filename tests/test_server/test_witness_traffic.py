"""What a light witness costs its State on a thin line: at most half a megabyte a day.

A witness that calls the relay and replays nothing is asked at every heartbeat, 144 times a day.
Counted are the bytes of TCP in both directions, through a proxy on 127.0.0.1, without TLS.
"""

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Final

from comity_client.witness import Witness
from comity_client.witness_link import HEARTBEAT_SECONDS, Link
from comity_client.witness_state import WitnessKey, WitnessState
from comity_server.log import Log
from comity_server.store import Checkpoint
from support.meter import Meter, metered
from support.relay import relay, small_world, wait_until

HEARTBEATS: Final = 20
HEARTBEATS_A_DAY: Final = 144
DAY_SECONDS: Final = 86_400
BUDGET_BYTES: Final = 500_000

PING_BYTES: Final = 300
"""A ping and its pong: four packets of 40 to 60 bytes of TCP/IP, 29 of TLS and up to 6 of frame."""

TLS_BYTES: Final = 4 * (29 + 52)
"""Around a question and its answer: records of TLS, and TCP/IP of them and their confirmations."""


def is_newer(log: Log, published: Checkpoint) -> bool:
    return log.newest() != published


async def test_a_light_witness_stays_within_half_a_megabyte_a_day(tmp_path: Path) -> None:
    world, *_ = small_world()
    name = sorted(world.witness_keys)[2]
    meter = Meter()
    async with (
        relay(tmp_path, world, witnesses=2) as running,
        metered(running.url, meter) as url,
    ):
        await running.publish()
        key = WitnessKey(name, world.witness_keys[name])
        state = WitnessState.create(tmp_path / "linked", key.verifier_key)
        clock = running.clock
        witness = Witness(state, key, [world.genesis.log], lambda: int(clock()))
        task = asyncio.create_task(Link(url, key, world.genesis.deployment, witness.answer).run())
        await wait_until(lambda: name in running.context.channels)
        before, asked = 0, 0
        for number in range(HEARTBEATS + 1):
            # The first one is a witness's first; from the second on they are alike.
            if number == 1:
                before = meter.count
            published = running.context.log.newest()
            running.context.relay.grown.set()
            await wait_until(partial(is_newer, running.context.log, published))
            asked += number > 0
            running.clock.ahead += 1
        beats = (meter.count - before) / asked
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        state.close()

    day = HEARTBEATS_A_DAY * (beats + TLS_BYTES) + DAY_SECONDS / HEARTBEAT_SECONDS * PING_BYTES
    sys.stdout.write(f"light witness: {beats:.0f} bytes a heartbeat, {day:,.0f} bytes a day\n")
    assert beats > 300
    assert day < BUDGET_BYTES
