"""L: from sending to delivery at a steady fifty a second, both ends in this process."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from connections import connected, open_threads, until_quiet
from deployment import Deployment
from envelopes import Pool, envelope_id_of
from relays import Running

PER_SECOND: Final = 50
_MILLISECONDS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Delays:
    """Milliseconds from just before an envelope was sent until it arrived, sorted."""

    milliseconds: tuple[float, ...]

    def percentile(self, share: float) -> float:
        """Give the delay that this share of envelopes did not exceed."""
        return self.milliseconds[min(len(self.milliseconds) - 1, int(share * len(self)))]

    def __len__(self) -> int:
        return len(self.milliseconds)


async def run(
    relay: Running, deployment: Deployment, pools: Sequence[Pool], *, seconds: float
) -> Delays:
    """Send on a fixed schedule, whether or not the last one has arrived; desks by turns."""
    sent: dict[bytes, float] = {}
    arrived: dict[bytes, float] = {}
    deployment_id = deployment.world.genesis.deployment
    async with connected(relay.url, deployment.members, deployment_id) as connections:
        await open_threads(connections, pools)
        for connection in connections:
            connection.arrived = arrived.setdefault
        turns = chain.from_iterable(zip(*(pool.frames for pool in pools), strict=True))
        start = time.perf_counter()
        for number, frame in zip(range(int(PER_SECOND * seconds)), turns, strict=False):
            due = start + number / PER_SECOND
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            # From the schedule and not from the moment of writing: a stall counts in full.
            sent[envelope_id_of(frame)] = due
            await connections[number % len(connections)].socket.send_bytes(frame)
        await until_quiet(connections, len(connections) + len(sent))
    delays = (arrived[envelope] - due for envelope, due in sent.items())
    return Delays(tuple(sorted(delay * _MILLISECONDS for delay in delays)))
