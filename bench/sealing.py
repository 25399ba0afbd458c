"""Z: from sending to sealed, with seven witnesses as far away as those of other States are."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientSession, ClientWebSocketResponse

from comity_protocol.checkpoint import verify_quorum
from comity_protocol.encoding import parse
from comity_protocol.wire import CHECKPOINT
from connections import WAIT_SECONDS_MAX, connect, session
from deployment import Deployment
from envelopes import Pool, envelope_id_of, fill
from machine import first_line, running
from relays import SQLITE, Running, database, relay, scratch
from support.relay import wait_until

WITNESSES: Final = 7
PER_SECOND: Final = 20
DELAY_MILLISECONDS: Final = 250
_ASK_SECONDS: Final = 0.02
"""How often the client asks for the newest checkpoint; half of it is in every figure."""

_BLOCKED_SECONDS: Final = 5.0
_MILLISECONDS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Witnessing:
    """How the seven behave.

    Attributes:
        quorum: How many are needed.
        delay: Milliseconds before each answer, for the way there and back.
        liars: How many answer with lies, in each answer another one.
        away: How many refuse connections.
        lies: Words of ``liars.Lie``; empty for all of them in turn.
    """

    quorum: int = 4
    delay: int = DELAY_MILLISECONDS
    liars: int = 0
    away: int = 0
    lies: str = ""


@dataclass(frozen=True, slots=True)
class Seals:
    """Milliseconds from an envelope's place in the schedule until its client saw it sealed."""

    milliseconds: tuple[float, ...]

    def percentile(self, share: float) -> float:
        """Give the time that this share of envelopes did not exceed."""
        count = len(self.milliseconds)
        return self.milliseconds[min(count - 1, int(share * count))]


@dataclass(slots=True)
class _Client:
    """A device that sends, learns the places of what it sent, and asks for checkpoints."""

    due: dict[bytes, float] = field(default_factory=dict)
    places: dict[int, bytes] = field(default_factory=dict)
    sealed: dict[bytes, float] = field(default_factory=dict)

    def take(self, frame: bytes) -> None:
        """Take a frame: a copy of what it sent names the place in the log."""
        parts: list[Any] = parse(frame)  # type: ignore[assignment]  # frames are arrays
        if parts[0] == "refused":
            raise RuntimeError(f"relay refused: {parts!r}")
        if parts[0] == "item":
            self.places[parts[2]] = envelope_id_of(frame)

    def cover(self, size: int, now: float) -> None:
        """Count what a verified checkpoint of a size covers."""
        for index in [index for index in self.places if index < size]:
            self.sealed[self.places.pop(index)] = now


async def run(witnessing: Witnessing, seconds: float) -> Seals:
    """Send on a fixed schedule and wait until everything is sealed."""
    deployment = Deployment.found(2, witnesses=WITNESSES, quorum=witnessing.quorum)
    pool, *_ = fill(deployment, int(PER_SECOND * seconds))
    with (
        scratch() as folder,
        database(SQLITE, folder) as empty,
        seven(folder, deployment, witnessing) as urls,
    ):
        async with relay(deployment, empty, folder, witnesses=urls) as running_relay:
            client = _Client()
            async with asyncio.timeout(WAIT_SECONDS_MAX + seconds):
                await _drive(running_relay, deployment, client, pool)
    delays = [client.sealed[sent] - due for sent, due in client.due.items()]
    return Seals(tuple(sorted(delay * _MILLISECONDS for delay in delays)))


async def return_of_a_witness() -> tuple[int, float]:
    """Try five of seven while two sign wrongly and one is away.

    Returns:
        How many envelopes were sealed then within five seconds, and the seconds from the return
        of the one until all were.
    """
    deployment = Deployment.found(2, witnesses=WITNESSES, quorum=5)
    pool, *_ = fill(deployment, int(PER_SECOND * _BLOCKED_SECONDS))
    witnessing = Witnessing(quorum=5, liars=2, away=1, lies="signature")
    with (
        scratch() as folder,
        database(SQLITE, folder) as empty,
        seven(folder, deployment, witnessing) as urls,
    ):
        async with relay(deployment, empty, folder, witnesses=urls) as running_relay:
            client = _Client()
            driving = asyncio.create_task(_drive(running_relay, deployment, client, pool))
            await wait_until(lambda: len(client.due) == len(pool.frames), WAIT_SECONDS_MAX)
            before, started = len(client.sealed), time.perf_counter()
            (folder / "back").touch()
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                await driving
            return before, time.perf_counter() - started


@contextmanager
def seven(folder: Path, deployment: Deployment, witnessing: Witnessing) -> Iterator[Sequence[str]]:
    """Run seven witnesses in one process; gives the addresses.

    Those that are away are there as soon as there is a file ``back`` in the folder.
    """
    world = deployment.world
    keys = ",".join(f"{name}={bytes(key).hex()}" for name, key in world.witness_keys.items())
    honest = WITNESSES - witnessing.liars - witnessing.away
    words = ["honest"] * honest + ["liar"] * witnessing.liars + ["away"] * witnessing.away
    program = Path(__file__).with_name("seven_program.py")
    given = (str(witnessing.delay), witnessing.lies, ",".join(words))
    with running(
        [program, folder, world.genesis.log.serialize(), *given],
        environment={"WITNESS_SEEDS": keys},
        log=folder / "seven.log",
    ) as process:
        yield first_line(process).split()


async def _drive(relay: Running, deployment: Deployment, client: _Client, pool: Pool) -> None:
    sender, deployment_id = deployment.members[0], deployment.world.genesis.deployment
    async with session() as http:
        socket = await connect(http, relay.url, sender, deployment_id)
        await socket.send_bytes(b"\x82\x66follow\x00")
        await socket.send_bytes(pool.opening)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_read(socket, client)),
                group.create_task(_ask(http, relay.url, deployment, client)),
            ]
            await wait_until(lambda: bool(client.places or client.sealed), WAIT_SECONDS_MAX)
            start = time.perf_counter()
            for number, frame in enumerate(pool.frames):
                due = start + number / PER_SECOND
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                # From the schedule and not from the moment of writing: a stall counts in full.
                client.due[envelope_id_of(frame)] = due
                await socket.send_bytes(frame)
            await wait_until(lambda: client.due.keys() <= client.sealed.keys(), WAIT_SECONDS_MAX)
            for task in tasks:
                task.cancel()


async def _read(socket: ClientWebSocketResponse, client: _Client) -> None:
    async for message in socket:
        client.take(message.data)


async def _ask(http: ClientSession, url: str, deployment: Deployment, client: _Client) -> None:
    """Verify each new checkpoint, as a client does."""
    genesis, last = deployment.world.genesis, b""
    while True:
        async with http.get(url + CHECKPOINT) as answer:
            note = await answer.read()
        if note != last:
            last = note
            witnessed = verify_quorum(note, genesis.log, genesis.quorum)
            client.cover(witnessed.checkpoint.size, time.perf_counter())
        await asyncio.sleep(_ASK_SECONDS)
