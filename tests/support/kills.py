"""The kill loop: busy desks, a relay that is killed again and again, and a count at the end.

`kill_loop` runs the real program with ``kill -9`` at random moments, most of them while envelopes
are in flight and one in eight while it starts. When it is over every desk has finished what it
began, and everything that the relay ever put in writing is counted again from what it hands out.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiohttp import ClientSession, DummyCookieJar, TCPConnector

from comity_protocol.checkpoint import note_hash
from support.load import (
    BusyDesk,
    Ledger,
    Line,
    PostingDesk,
    SocketDesk,
    insist_on_statement,
    keep_polling,
    keep_turning,
)
from support.process import RelayProcess, watching_witness
from support.recount import recount
from support.relay import Answer
from support.world import Member, World

STARTING_ONE_IN: Final = 8
IN_FLIGHT: Final = 4
_READY_SECONDS_MAX: Final = 60.0


@dataclass(slots=True)
class Outcome:
    """What a run did.

    Attributes:
        wrong: What was found to be wrong, in words; empty when all is well.
        listening: Seconds from each start until the relay listened.
        answering: Seconds from each start until it gave its first promise.
    """

    kills: int = 0
    kills_of_database: int = 0
    kills_while_starting: int = 0
    wrong: list[str] = field(default_factory=list)
    listening: list[float] = field(default_factory=list)
    answering: list[float] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    leaves: int = 0
    seconds: float = 0.0
    alarms: dict[str, int] = field(default_factory=dict)

    def figures(self) -> str:
        """One line of JSON."""
        return json.dumps(
            {
                "kills": self.kills,
                "kills_of_database": self.kills_of_database,
                "kills_while_starting": self.kills_while_starting,
                "promises": len(self.ledger.promises),
                "envelopes": len(self.ledger.envelopes),
                "receipts": len(self.ledger.receipts),
                "statements": len(self.ledger.statements),
                "repeated": self.ledger.repeated,
                "passing_refusals": self.ledger.passing,
                "checkpoints": len(self.ledger.notes),
                "leaves": self.leaves,
                "listening_seconds": _quantiles(self.listening),
                "first_promise_seconds": _quantiles(self.answering),
                "alarms": self.alarms,
                "wrong": len(self.wrong),
                "seconds": round(self.seconds, 1),
            }
        )


@dataclass(slots=True)
class Asker:
    """Asks the running relay, as a device or as anyone."""

    line: Line

    async def as_device(self, member: Member, method: str, path: str) -> Answer:
        """Send a request with the token of a device."""
        for tries_left in (1, 0):
            token = self.line.token(member, method, path)
            answer = await self._ask(method, path, {"Authorization": f"Comity {token}"})
            if answer.status == 200:
                return answer
            # The nonce may be one of the process that was killed; the next one is not.
            assert answer.status == 401, answer.body
            assert tries_left, answer.body
        raise AssertionError("unreachable")

    async def ask(self, method: str, path: str) -> Answer:
        """Send a request without a token."""
        answer = await self._ask(method, path, {})
        assert answer.status == 200, answer.body
        return answer

    async def _ask(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        line = self.line
        async with line.session.request(method, line.url + path, headers=headers) as response:
            line.nonce = response.headers["Comity-Nonce"]
            return Answer(response.status, dict(response.headers), await response.read())


async def kill_loop(
    folder: Path,
    *,
    kills: int,
    database: str = "",
    alive_seconds_max: float = 0.4,
    kill_database: Callable[[], None] | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run it.

    Args:
        folder: For the data of relay and witnesses.
        kills: How often to kill the relay.
        database: Address; SQLite in the folder when empty.
        alive_seconds_max: Longest time from the first promise after a start to the next kill.
        kill_database: Kills the database and starts it again; called at every tenth kill, half the
            time instead of killing the relay.
        report: Called now and then with a line.
    """
    outcome = Outcome()
    began = time.monotonic()
    world = World.found()
    desks = [world.create_desk(code) for code in ("XA", "XB", "XA", "XB", "XA")]
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(
                watching_witness(folder, name, world, outcome.ledger.notes, _now)
            )
            for name in sorted(world.witness_keys)
        ]
        session = await stack.enter_async_context(
            ClientSession(
                auto_decompress=False,
                connector=TCPConnector(limit=0, force_close=True),
                cookie_jar=DummyCookieJar(),
            )
        )
        relay = RelayProcess(folder / "relay", world, witnesses=urls, database=database)
        stack.push_async_callback(relay.kill)
        line = Line(world, outcome.ledger, session)
        members = [world.active(desk)[0] for desk in desks]
        await _begin(relay, line)
        senders: list[BusyDesk] = [
            PostingDesk(line, members[0], desks[1], in_flight=IN_FLIGHT),
            SocketDesk(line, members[1], desks[0], in_flight=IN_FLIGHT),
            PostingDesk(line, members[2], desks[3], in_flight=IN_FLIGHT),
            SocketDesk(line, members[3], desks[2], in_flight=IN_FLIGHT),
        ]
        async with asyncio.TaskGroup() as tasks:
            for sender in senders:
                tasks.create_task(sender.run())
            tasks.create_task(keep_turning(line, desks[4], 0.5))
            tasks.create_task(keep_polling(line))
            killer = _Killer(relay, line, outcome, alive_seconds_max, kill_database)
            for number in range(kills):
                await killer.kill_once(while_starting=number % STARTING_ONE_IN == 5)
                if number % 20 == 19:
                    report(outcome.figures())
            line.is_closing = True
        outcome.leaves = await _wait_until_sealed(line)
        outcome.wrong = await recount(Asker(line), world, members, outcome.ledger)
        assert await relay.stop() == 0, relay.log_text()[-4_000:]
        for event in relay.events():
            outcome.alarms[event] = outcome.alarms.get(event, 0) + 1
    outcome.seconds = time.monotonic() - began
    return outcome


async def _begin(relay: RelayProcess, line: Line) -> None:
    """Start for the first time, and publish what the world stated so far."""
    await relay.start()
    line.url = relay.url
    for _, signed in line.world.statements[1:]:
        await insist_on_statement(line, signed)
    await _wait_until_sealed(line)
    async with line.session.get(line.url + "/checkpoint") as response:
        line.seen = note_hash(await response.read())


class _Killer:
    """Kills and starts, and measures how long it takes to be back."""

    def __init__(
        self,
        relay: RelayProcess,
        line: Line,
        outcome: Outcome,
        alive_seconds_max: float,
        kill_database: Callable[[], None] | None,
    ) -> None:
        self._relay = relay
        self._line = line
        self._outcome = outcome
        self._alive_seconds_max = alive_seconds_max
        self._kill_database = kill_database
        self._promised = asyncio.Event()
        line.ledger.acknowledged = self._promised.set

    async def kill_once(self, *, while_starting: bool) -> None:
        """Wait for a promise and a random moment, kill, start again."""
        await self._wait_for_promise()
        await asyncio.sleep(self._moment(self._alive_seconds_max))
        outcome = self._outcome
        if self._kill_database is not None and secrets.randbelow(10) == 0:
            outcome.kills_of_database += 1
            await asyncio.to_thread(self._kill_database)
            if secrets.randbelow(2):
                await self._wait_for_promise()
                return
        await self._relay.kill()
        outcome.kills += 1
        if while_starting:
            await self._relay.spawn()
            await asyncio.sleep(self._moment(1.5))
            await self._relay.kill()
            outcome.kills += 1
            outcome.kills_while_starting += 1
        started = time.monotonic()
        await self._relay.start()
        outcome.listening.append(time.monotonic() - started)
        self._line.url = self._relay.url
        await self._wait_for_promise()
        outcome.answering.append(time.monotonic() - started)

    async def _wait_for_promise(self) -> None:
        self._promised.clear()
        async with asyncio.timeout(_READY_SECONDS_MAX):
            await self._promised.wait()

    @staticmethod
    def _moment(seconds_max: float) -> float:
        return secrets.randbelow(1_000_000) / 1_000_000 * seconds_max


async def _wait_until_sealed(line: Line) -> int:
    """Wait until the witnessed checkpoint covers all that was promised; give its size."""
    size = -1
    async with asyncio.timeout(_READY_SECONDS_MAX):
        while size < len(line.ledger.promises) + 1:
            async with line.session.get(line.url + "/checkpoint") as response:
                if response.status == 200:
                    note = await response.read()
                    line.ledger.notes.add(note)
                    size = int(note.split(b"\n")[1])
            await asyncio.sleep(0.02)
    return size


def _now() -> float:
    return time.time()  # noqa: TID251 - the outermost place, as in __main__


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    if not ordered:
        return {}
    return {
        name: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }
