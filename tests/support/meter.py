"""A proxy on 127.0.0.1 that counts what goes over a connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass
class Meter:
    """What went through a proxy."""

    count: int = 0


@asynccontextmanager
async def metered(url: str, meter: Meter) -> AsyncIterator[str]:
    """Give another address of a server, over which every byte is counted."""
    target = urlsplit(url)
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            meter.count += len(data)
            writer.write(data)
            await writer.drain()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(target.hostname, target.port)
        writers.extend((writer, there[1]))
        tasks.add(asyncio.create_task(pass_on(reader, there[1])))
        tasks.add(asyncio.create_task(pass_on(there[0], writer)))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        await server.wait_closed()
