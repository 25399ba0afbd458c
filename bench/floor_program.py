"""The bare web server to compare with: ``floor_program.py [PostgreSQL address]``.

One handler reads a body and answers; with an address it inserts the body as a row first, one
transaction a request over a pool of sixteen connections, and knows nothing else.
"""

import asyncio
import sys

import asyncpg
from aiohttp import web

_CONNECTIONS = 16
_TABLE = "CREATE TABLE posted (id bigserial PRIMARY KEY, body bytea NOT NULL)"
_INSERT = "INSERT INTO posted (body) VALUES ($1)"


async def _main(address: str | None) -> None:
    pool = None
    if address is not None:
        pool = await asyncpg.create_pool(address, min_size=_CONNECTIONS, max_size=_CONNECTIONS)
        await pool.execute(_TABLE)

    async def post(request: web.Request) -> web.Response:
        body = await request.read()
        if pool is not None:
            await pool.execute(_INSERT, body)
        return web.Response(body=b"ok")

    app = web.Application()
    app.router.add_post("/", post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


asyncio.run(_main(sys.argv[1] if len(sys.argv) > 1 else None))
