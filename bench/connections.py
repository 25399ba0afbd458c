"""What a measuring desk does over its WebSocket: send, count what is accepted and delivered."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector, WSMsgType

from comity_protocol.encoding import serialize
from comity_protocol.identifiers import DeploymentId
from comity_protocol.wire import NONCE, SOCKET
from envelopes import Pool, envelope_id_of, sender_of
from support.relay import base64url, sign_token
from support.world import Member

WAIT_SECONDS_MAX: Final = 60.0
_NAME: Final = slice(2, 6)
"""Where a frame says what it is: after the heads of the array and of the name."""

Arrived = Callable[[bytes, float], object]


class RefusedError(Exception):
    """The relay refused what a measurement sent; the measurement counts for nothing."""


@dataclass(slots=True, eq=False)
class Connection:
    """One desk's authenticated connection, which follows its mailbox.

    Attributes:
        accepted: Envelopes of this desk that the relay has promised.
        delivered: Envelopes of another desk that arrived.
        copies: Envelopes of the own desk that arrived, as for its other officers.
        arrived: Called with the id of each delivered envelope and the time.
    """

    desk: bytes
    socket: ClientWebSocketResponse
    accepted: int = 0
    delivered: int = 0
    copies: int = 0
    arrived: Arrived | None = None
    _waiting: Iterator[bytes] = field(default_factory=lambda: iter(()))
    is_exhausted: bool = False

    async def send_next(self) -> None:
        """Send the next of the frames that ``keep_sending`` took, if there is one."""
        frame = next(self._waiting, None)
        if frame is None:
            self.is_exhausted = True
        else:
            await self.socket.send_bytes(frame)

    async def keep_sending(self, frames: Iterator[bytes], window: int) -> None:
        """Send with ``window`` frames unanswered until ``stop_sending`` or the last one."""
        self._waiting, self.is_exhausted = frames, False
        for _ in range(window):
            await self.send_next()

    def stop_sending(self) -> None:
        """Let what is in flight come back and send nothing more."""
        self._waiting = iter(())

    async def read(self) -> None:
        """Count what comes until the connection is closed.

        Raises:
            RefusedError: The relay refused a frame.
        """
        async for message in self.socket:
            data: bytes = message.data
            if message.type is not WSMsgType.BINARY:
                raise RefusedError(f"relay sent a frame of type {message.type}")
            match data[_NAME]:
                case b"acce":
                    self.accepted += 1
                    await self.send_next()
                case b"item":
                    self._take(data)
                case b"rece":
                    pass
                case _:
                    raise RefusedError(repr(data[:400]))

    def _take(self, data: bytes) -> None:
        if sender_of(data) == self.desk:
            self.copies += 1
            return
        self.delivered += 1
        if self.arrived is not None:
            self.arrived(envelope_id_of(data), time.perf_counter())


@dataclass(frozen=True, slots=True)
class Counts:
    """Sums over all connections at one moment."""

    accepted: int
    delivered: int
    at: float

    @classmethod
    def of(cls, connections: Sequence[Connection]) -> "Counts":
        """Add up."""
        return cls(
            sum(connection.accepted for connection in connections),
            sum(connection.delivered for connection in connections),
            time.perf_counter(),
        )


@asynccontextmanager
async def session() -> AsyncIterator[ClientSession]:
    """Give a session that may hold as many connections as a row needs."""
    async with ClientSession(connector=TCPConnector(limit=0), auto_decompress=False) as opened:
        yield opened


async def connect(
    http: ClientSession, url: str, member: Member, deployment: DeploymentId
) -> ClientWebSocketResponse:
    """Open and authenticate a socket for a device; it follows nothing yet."""
    async with http.get(url + NONCE) as answer:
        nonce = (await answer.text()).strip()
    socket = await http.ws_connect(url + SOCKET, compress=0, max_msg_size=0, autoping=True)
    await socket.send_bytes(serialize(["token", _token(member, deployment, nonce)]))
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        ready = await socket.receive()
    if ready.data != serialize(["ready"]):
        raise RefusedError(f"relay did not take the token: {ready!r}")
    return socket


@asynccontextmanager
async def connected(
    url: str, members: Sequence[Member], deployment: DeploymentId
) -> AsyncIterator[list[Connection]]:
    """Connect every desk, following its mailbox from the start; ends when any of them fails."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(session())
        connections = [
            Connection(member.desk, await connect(http, url, member, deployment))
            for member in members
        ]
        for connection in connections:
            await connection.socket.send_bytes(serialize(["follow", 0]))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(connection.read()) for connection in connections]
            try:
                yield connections
            finally:
                for task in tasks:
                    task.cancel()


async def open_threads(connections: Sequence[Connection], pools: Sequence[Pool]) -> None:
    """Send the envelopes that bring the wraps, and wait until they have arrived."""
    for connection, pool in zip(connections, pools, strict=True):
        await connection.socket.send_bytes(pool.opening)
    await until_quiet(connections, Counts.of(connections).accepted + len(connections))


async def until_quiet(connections: Sequence[Connection], accepted: int) -> Counts:
    """Wait until so many are accepted and every accepted one has arrived.

    Raises:
        TimeoutError: Something that was acknowledged was not delivered.
    """
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while True:
            counts = Counts.of(connections)
            if counts.accepted >= accepted and counts.delivered == counts.accepted:
                return counts
            await asyncio.sleep(0.005)


def _token(member: Member, deployment: DeploymentId, nonce: str) -> str:
    claims = {
        "aud": deployment.hex(),
        "bh": base64url(sha256(b"").digest()),
        "htm": "GET",
        "htu": SOCKET,
        "jti": secrets.token_hex(16),
        "n": nonce,
    }
    return sign_token(member, claims)
