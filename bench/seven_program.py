"""Several witnesses in one process: ``seven_program.py FOLDER LOG_KEY DELAY LIES WORD,WORD...``.

Each word says how the next witness is: ``honest``, ``liar`` or ``away``. An honest one waits DELAY
milliseconds before it answers, as do liars. The keys' seeds come in the environment. Who is away
answers as an honest one as soon as there is a file ``back`` in the folder; until then its port is
bound and refuses.
"""

import asyncio
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from nacl.signing import SigningKey

from comity_client.witness import Witness, serve_witness
from comity_client.witness_state import WitnessKey, WitnessState
from comity_protocol.signed_note import VerifierKey
from support.liars import Liar, Lie
from support.relay import wait_until

_AWAY_SECONDS_MAX = 3_600.0
_LATE_SECONDS = 15.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _after(seconds: float, app: web.Application) -> web.Application:
    """Put a delay before each answer of an application."""

    @web.middleware
    async def delay(request: web.Request, handler: Handler) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await handler(request)

    app.middlewares.append(delay)
    return app


async def _main(folder: Path, log_key: str, milliseconds: str, lies: str, words: str) -> None:
    log, seconds, urls = VerifierKey.parse(log_key), int(milliseconds) / 1_000, []
    # A wrong size at a relay's start stops it [G-4], so that lie comes last.
    order = [Lie(word) for word in lies.split(",")] if lies else list(Lie)
    away: list[tuple[web.AppRunner, socket.socket]] = []
    seeds = [one.split("=") for one in os.environ["WITNESS_SEEDS"].split(",")]
    for number, (word, (name, seed)) in enumerate(zip(words.split(","), seeds, strict=True)):
        key = SigningKey(bytes.fromhex(seed))
        if word == "liar":
            app = Liar(name, key, order, time.time, late_seconds=_LATE_SECONDS).make_app()
            # The next liar begins elsewhere.
            order = [*order[1:-1], order[0], order[-1]] if len(order) > 1 else order
        else:
            own = WitnessKey(name, key)
            state = WitnessState.create(folder / f"{number}.sqlite", own.verifier_key)
            app = serve_witness(Witness(state, own, [log], lambda: int(time.time())))
        runner = web.AppRunner(_after(seconds, app), access_log=None)
        await runner.setup()
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        urls.append(f"http://127.0.0.1:{bound.getsockname()[1]}")
        if word == "away":
            away.append((runner, bound))
        else:
            await web.SockSite(runner, bound).start()
    print(*urls, flush=True)
    if away:
        await wait_until((folder / "back").exists, seconds=_AWAY_SECONDS_MAX)
    for runner, bound in away:
        await web.SockSite(runner, bound).start()
    await asyncio.Event().wait()


asyncio.run(_main(Path(sys.argv[1]), *sys.argv[2:6]))
