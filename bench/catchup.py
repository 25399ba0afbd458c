"""K: a desk that is 10,000 envelopes behind catches up over its socket."""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import asyncpg

from comity_protocol.acts import Body
from comity_protocol.encoding import parse, serialize
from comity_protocol.envelope import open_body, open_wrap, verify_core
from connections import connect, session
from deployment import Deployment
from relays import SQLITE, Database, Running

ENVELOPES: Final = 10_000
RECEIVER: Final = 1
"""Place of the desk that catches up among the deployment's."""

_WAIT_SECONDS_MAX: Final = 120.0

# What a page of the mailbox holds, asked of the tables at once and by nobody's rules.
_SELECT: Final = (
    "SELECT m.counter, e.leaf_index, e.core, e.signature, e.body, e.audit, e.recipients"
    " FROM mailbox_items m JOIN envelopes e ON e.leaf_index = m.leaf_index"
    " WHERE m.desk = {} ORDER BY m.counter"
)


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Seconds.

    Attributes:
        received: From connecting until the last byte was here.
        opened: Then to verify every sender and open every body, with the protocol's functions.
        select: One SELECT of the same rows, connecting included.
    """

    received: float
    opened: float
    select: float


async def run(running: Running, database: Database, deployment: Deployment) -> CatchUp:
    """Let the desk receive everything once, and compare."""
    member = deployment.members[RECEIVER]
    frames: list[bytes] = []
    async with session() as http, asyncio.timeout(_WAIT_SECONDS_MAX):
        started = time.perf_counter()
        socket = await connect(http, running.url, member, deployment.world.genesis.deployment)
        await socket.send_bytes(serialize(["follow", 0]))
        while len(frames) < ENVELOPES:
            frames.append(await socket.receive_bytes())
        received = time.perf_counter() - started
        await socket.close()
    started = time.perf_counter()
    _open(frames, deployment)
    opened = time.perf_counter() - started
    return CatchUp(received, opened, await _select_seconds(database, member.desk))


def _open(frames: Sequence[bytes], deployment: Deployment) -> None:
    """Do what a client owes each envelope, in the same order and with the same functions."""
    receiver = deployment.members[RECEIVER]
    roots: dict[bytes, bytes] = {}
    for frame in frames:
        # Behind its name: counter, index, core, signature, body, audit part, wrap, counter proof.
        _, _, index, core_bytes, signature, body, _, wrap, *_ = cast("list[Any]", parse(frame))
        core = verify_core(core_bytes, signature, deployment.world.directory, index=index)
        root = roots.get(core.ref or core.id)
        if root is None:
            entry = core.recipient(receiver.desk)
            assert entry is not None
            root = open_wrap(core, wrap, entry, receiver.secret.leads[entry.epoch])
            roots[core.id] = root
        Body.parse(open_body(core, body, root))


async def _select_seconds(database: Database, desk: bytes) -> float:
    started = time.perf_counter()
    if database.kind == SQLITE:
        lite = sqlite3.connect(database.url.removeprefix("sqlite:///"))
        rows = len(lite.execute(_SELECT.format("?"), (desk,)).fetchall())
        lite.close()
    else:
        connection = await asyncpg.connect(database.address)
        rows = len(await connection.fetch(_SELECT.format("$1"), desk))
        await connection.close()
    elapsed = time.perf_counter() - started
    assert rows == ENVELOPES, rows
    return elapsed
