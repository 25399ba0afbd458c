"""What the same machine does without Comity: the floors that ratios are to."""

import asyncio
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from machine import cpu_seconds, first_line, running

BODY_BYTES: Final = 1_024
CLIENTS: Final = 32
_WARM_SECONDS: Final = 0.3
_WAIT_SECONDS_MAX: Final = 30.0
_END_OF_HEAD: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Rate:
    """What a floor reached: units a second, and processor seconds of servers per 1,000 units."""

    per_second: float
    cpu_per_1000: float


async def http_rate(
    seconds: float, folder: Path, *, address: str | None = None, postmaster: int | None = None
) -> Rate:
    """Posts answered per second by the bare web server, 32 connections with one post each.

    Args:
        seconds: How long.
        folder: Where the program's errors go.
        address: Of a PostgreSQL database to insert into; None inserts nowhere.
        postmaster: Process id of that PostgreSQL, whose time counts.
    """
    program = Path(__file__).with_name("floor_program.py")
    with running([program, *([address] if address else [])], log=folder / "floor.log") as process:
        port = int(first_line(process))
        pids = [process.pid, *([postmaster] if postmaster else [])]
        loop = asyncio.get_running_loop()
        posts = [
            (await loop.create_connection(_Post, "127.0.0.1", port))[1] for _ in range(CLIENTS)
        ]
        await asyncio.sleep(_WARM_SECONDS)
        count, cpu, start = sum(post.count for post in posts), cpu_seconds(*pids), time.monotonic()
        await asyncio.sleep(seconds)
        count = sum(post.count for post in posts) - count
        elapsed, cpu = time.monotonic() - start, cpu_seconds(*pids) - cpu
        for post in posts:
            post.close()
    return Rate(count / elapsed, cpu / count * 1_000)


def sqlite_rate(seconds: float, folder: Path) -> float:
    """Rows per second, one a commit, under the settings that the relay demands of SQLite."""
    connection = sqlite3.connect(folder / "floor.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE posted (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
    count, start, body = 0, time.monotonic(), bytes(BODY_BYTES)
    while time.monotonic() - start < seconds:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO posted (body) VALUES (?)", (body,))
        connection.execute("COMMIT")
        count += 1
    elapsed = time.monotonic() - start
    connection.close()
    return count / elapsed


async def postgresql_rate(seconds: float, address: str, connections: int) -> float:
    """Rows per second, one a commit, over so many connections of asyncpg."""
    pool = await asyncpg.create_pool(address, min_size=connections, max_size=connections)
    await pool.execute(
        "CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, body bytea NOT NULL)"
    )
    end, body = time.monotonic() + seconds, bytes(BODY_BYTES)

    async def insert() -> int:
        count = 0
        async with pool.acquire() as connection:
            statement = await connection.prepare("INSERT INTO bare (body) VALUES ($1)")
            while time.monotonic() < end:
                await statement.fetch(body)
                count += 1
        return count

    counts = await asyncio.gather(*(insert() for _ in range(connections)))
    await pool.close()
    return sum(counts) / seconds


class _Post(asyncio.Protocol):
    """Posts the same body again as soon as the last one is answered; counts answers."""

    def __init__(self) -> None:
        self.count = 0
        self._is_closing = False
        self._answer = b""
        head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
        self._request = head.encode() + bytes(BODY_BYTES)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, found, body = self._answer.partition(_END_OF_HEAD)
        if not found or body != b"ok":
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode(errors="replace"))
        self._answer = b""
        self.count += 1
        if self._transport is not None and not self._is_closing:
            self._transport.write(self._request)

    def close(self) -> None:
        self._is_closing = True
        if self._transport is not None:
            self._transport.close()
