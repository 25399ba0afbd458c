"""Witnesses that lie: each answers as a witness does, and something in the answer is wrong."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import Enum
from itertools import cycle
from typing import Final

from aiohttp import web
from nacl.signing import SigningKey

from comity_protocol.checkpoint import cosign
from comity_protocol.witnessing import ADD_CHECKPOINT, SIZE_CONTENT_TYPE, AddCheckpoint

YEARS_SECONDS: Final = 10 * 365 * 86_400
"""How far off the clock of a witness is whose clock lies."""

_SIZE_MAX: Final = 2**40


class Lie(Enum):
    """What is wrong."""

    SIGNATURE = "signature"
    """It says that it cosigned, with another key."""

    AHEAD = "ahead"
    """Its cosignature holds, and is of ten years from now."""

    BEHIND = "behind"
    """Its cosignature holds, and is of ten years ago."""

    LATE = "late"
    """Its cosignature holds, and comes when nobody waits any more."""

    SIZE = "size"
    """It says that it cosigned another size, another one each time."""


class Liar:
    """One witness that lies, in each answer as the next of its lies says."""

    def __init__(
        self,
        name: str,
        key: SigningKey,
        lies: Sequence[Lie],
        clock: Callable[[], float],
        *,
        late_seconds: float = 15.0,
    ) -> None:
        """Take its real key; ``late_seconds`` has to be more than it is waited for."""
        self.told: Final[list[Lie]] = []
        self._name: Final = name
        self._key: Final = key
        self._lies: Final = cycle(lies)
        self._clock: Final = clock
        self._late_seconds: Final = late_seconds

    def make_app(self) -> web.Application:
        """Make its web application."""
        app = web.Application()
        app.router.add_post(ADD_CHECKPOINT, self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.Response:
        lie = next(self._lies)
        self.told.append(lie)
        note, now = AddCheckpoint.parse(await request.read()).note, int(self._clock())
        match lie:
            case Lie.SIGNATURE:
                return self._cosigned(note, SigningKey.generate(), now)
            case Lie.AHEAD:
                return self._cosigned(note, self._key, now + YEARS_SECONDS)
            case Lie.BEHIND:
                return self._cosigned(note, self._key, now - YEARS_SECONDS)
            case Lie.LATE:
                await asyncio.sleep(self._late_seconds)
                return self._cosigned(note, self._key, now)
            case Lie.SIZE:
                body = f"{secrets.randbelow(_SIZE_MAX)}\n"
                headers = {"Content-Type": SIZE_CONTENT_TYPE}
                return web.Response(status=409, body=body.encode(), headers=headers)

    def _cosigned(self, note: bytes, key: SigningKey, at: int) -> web.Response:
        # The id of the line is that of its own key, so that nothing but the signature is wrong.
        own = cosign(note, self._name, self._key, at)
        signed = cosign(note, self._name, key, at)
        return web.Response(body=replace(own, signature=signed.signature).serialize().encode())


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """Serve an application on a free port of 127.0.0.1; give the address."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
