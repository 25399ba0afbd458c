"""A mirror of the log over real HTTP, which serves what it is told to: the truth, or lies."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from comity_protocol.encoding import serialize
from comity_protocol.statements import SignedStatement

_TILE = 256


@dataclass(slots=True)
class ServedLog:
    """What a mirror has.

    Attributes:
        entries: From the first.
        note: The newest published checkpoint.
        cosigned: What it cosigned last itself, when that is newer.
        statements: In leaf order, the genesis first.
        asked: The paths that were asked for.
        offered: What it was asked to cosign, when it is a witness.
        url: Where it serves, while it does.
    """

    entries: Sequence[bytes] = ()
    note: bytes = b""
    cosigned: bytes = b""
    statements: Sequence[SignedStatement] = ()
    asked: list[str] = field(default_factory=list)
    offered: set[bytes] = field(default_factory=set)
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        """Answer as a C2SP mirror does."""
        self.asked.append(request.path_qs)
        match request.path.split("/"):
            case ["", "checkpoint"]:
                return _found(self.cosigned if request.query_string else self.note)
            case ["", "statements"]:
                page = self.statements[int(request.query["after"]) :][:100]
                bare = [SignedStatement(one.payload, one.signatures) for one in page]
                return web.Response(body=serialize([one.serialize() for one in bare]))
            case ["", "tile", "entries", *place]:
                return _found(self.bundle("/".join(place)))
            case _:
                return web.Response(status=404)

    def bundle(self, place: str) -> bytes:
        """Give an entry bundle; nothing when the log ends before."""
        groups, _, width = place.partition(".p/")
        start = int(groups.replace("x", "").replace("/", "")) * _TILE
        count = int(width or _TILE)
        found = self.entries[start : start + count]
        if len(found) < count:
            return b""
        return b"".join(len(entry).to_bytes(2, "big") + entry for entry in found)


def _found(body: bytes) -> web.Response:
    return web.Response(status=200 if body else 404, body=body)


@asynccontextmanager
async def mirroring(log: ServedLog) -> AsyncIterator[ServedLog]:
    """Serve a log at its ``url``."""
    app = web.Application()
    app.router.add_get("/{path:.*}", log.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        log.url = f"http://{host}:{port}"
        yield log
    finally:
        await runner.cleanup()
