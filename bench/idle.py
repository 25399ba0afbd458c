"""S and M: how fast a relay with much in store starts, and what it takes when nothing happens."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity_protocol.encoding import serialize
from comity_protocol.merkle import SIZE_MAX
from connections import RefusedError, connect, session
from deployment import Deployment
from envelopes import Writer, send_frame
from machine import pss_bytes
from relays import Database, Running, relay

SOCKETS: Final = 300
_SENDER: Final = 4
"""Place of the desk that sends the first envelope; the stored ones are of others."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, proportional set size: of the idle relay, and what each idle socket adds."""

    relay: int
    socket: float


@asynccontextmanager
async def cold_start(
    deployment: Deployment, database: Database, folder: Path
) -> AsyncIterator[tuple[float, Running]]:
    """Start a relay on a store; give the seconds until a first envelope was acknowledged."""
    sender, receiver = deployment.members[_SENDER : _SENDER + 2]
    writer = Writer(deployment.world, sender, receiver.desk, deployment.seen)
    frame = send_frame(1, writer.write().upload)
    began: list[float] = []
    async with (
        relay(
            deployment,
            database,
            folder,
            is_prepared=True,
            started=lambda: began.append(time.perf_counter()),
        ) as running,
        session() as http,
    ):
        socket = await connect(http, running.url, sender, deployment.world.genesis.deployment)
        await socket.send_bytes(frame)
        answer = await socket.receive_bytes()
        seconds = time.perf_counter() - began[0]
        await socket.close()
        if b"accepted" not in answer[:16]:
            raise RefusedError(repr(answer))
        yield seconds, running


async def memory(running: Running, deployment: Deployment) -> Memory:
    """Open many sockets that follow and say nothing; compare the relay before and after."""
    members, genesis = deployment.members, deployment.world.genesis
    before = pss_bytes(running.pid)
    async with session() as http:
        for number in range(SOCKETS):
            member = members[number % len(members)]
            socket = await connect(http, running.url, member, genesis.deployment)
            await socket.send_bytes(serialize(["follow", SIZE_MAX]))
        # The relay has read what came before a request that it answers.
        async with http.get(running.url + "/readyz") as answer:
            assert answer.status == 200, answer.status
        after = pss_bytes(running.pid)
    return Memory(before, (after - before) / SOCKETS)
