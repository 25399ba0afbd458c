"""T and C: durable and delivered envelopes per second, and what they cost in processor time."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from connections import Connection, Counts, connected, open_threads, until_quiet
from deployment import Deployment
from envelopes import Pool
from machine import own_cpu_seconds
from relays import Running

WINDOWS: Final = (1, 16)
_WARM_SECONDS: Final = 0.4
_POLL_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Burst:
    """What one closed loop reached.

    Attributes:
        per_second: Durable envelopes that arrived at the other desk.
        cpu_per_1000: Processor seconds of relay and database for 1,000 of them.
        client_busy: Share of one core that the load generator took.
    """

    per_second: float
    cpu_per_1000: float
    client_busy: float


class Load:
    """Frames of all desks, taken from one measurement to the next: none is sent twice."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        """Begin at the first frame of each desk."""
        self.pools: Final = pools
        self._frames: Final = [iter(pool.frames) for pool in pools]

    def frames(self, place: int) -> Iterator[bytes]:
        """Give the frames that a desk has left."""
        return self._frames[place]


async def run(
    relay: Running, deployment: Deployment, load: Load, *, seconds: float, rounds: int
) -> dict[int, list[Burst]]:
    """Run closed loops with one and with sixteen in flight for each desk, by turns."""
    bursts: dict[int, list[Burst]] = {window: [] for window in WINDOWS}
    deployment_id = deployment.world.genesis.deployment
    async with connected(relay.url, deployment.members, deployment_id) as connections:
        await open_threads(connections, load.pools)
        for _ in range(rounds):
            for window in WINDOWS:
                bursts[window].append(await _burst(relay, connections, load, window, seconds))
    return bursts


async def _burst(
    relay: Running, connections: Sequence[Connection], load: Load, window: int, seconds: float
) -> Burst:
    for place, connection in enumerate(connections):
        await connection.keep_sending(load.frames(place), window)
    await asyncio.sleep(_WARM_SECONDS)
    before, cpu, client = Counts.of(connections), relay.cpu_seconds(), own_cpu_seconds()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
        if any(connection.is_exhausted for connection in connections):
            break
    after, cpu, client = (
        Counts.of(connections),
        relay.cpu_seconds() - cpu,
        own_cpu_seconds() - client,
    )
    for connection in connections:
        connection.stop_sending()
    # Delivered = acknowledged, or this ends with an error: nothing that was promised got lost.
    await until_quiet(connections, after.accepted)
    delivered, elapsed = after.delivered - before.delivered, after.at - before.at
    return Burst(delivered / elapsed, cpu / delivered * 1_000, client / elapsed)
