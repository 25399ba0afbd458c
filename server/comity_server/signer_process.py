"""The signer as a process of its own, so that whoever breaks into the relay does not get the key.

    comity-relay signer --data DIR --socket PATH --database URL

It alone reads the log key. It reads entries from the database itself, changes nothing there, and
answers four questions over a unix socket: ``probe``, ``entries``, ``clear`` and ``sign``, each by
POST with a small map, in the protocol's encoding. What it is told is not trusted: what it signs
follows from the entries, its own memory and the witnesses' cosignatures. Several relay processes
may share one signer.

Refusals are 409 with a code and a sentence; a question that cannot be read is 400.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

from aiohttp import web

from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import ComityError, MalformedError
from comity_protocol.fields import Fields
from comity_protocol.limits import NOTE_BYTES_MAX
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.wire import MEDIA_TYPE
from comity_server import observe
from comity_server.settings import SettingsError
from comity_server.signer import LogSigner, SignerError, SignerNotClearedError
from comity_server.store import StoreError

QUESTION_BYTES_MAX: Final = NOTE_BYTES_MAX + 2_048
QUESTIONS_AT_ONCE_MAX: Final = 64
BODY_SECONDS_MAX: Final = 10.0
STOP_SECONDS_MAX: Final = 10.0
_MODE: Final = 0o660
"""The socket's group is that of the relay."""

_OK, _BAD, _REFUSED, _BUSY, _FAILED = 200, 400, 409, 503, 500

Answerer = Callable[[LogSigner, Value], Awaitable[Value]]


async def _probe(signer: LogSigner, question: Value) -> Value:
    Fields.of(question, "question", ())
    return {"note": await signer.probe()}


async def _entries(signer: LogSigner, question: Value) -> Value:
    start = Fields.of(question, "question", {"start"}).integer("start", high=SIZE_MAX)
    return {"entries": b"".join(await signer.entries(start))}


async def _clear(signer: LogSigner, question: Value) -> Value:
    fields = Fields.of(question, "question", {"note"})
    await signer.clear(fields.bytes("note", high=NOTE_BYTES_MAX))
    return {}


async def _sign(signer: LogSigner, question: Value) -> Value:
    Fields.of(question, "question", ())
    size, note = await signer.sign()
    return {"size": size, "note": note}


_ANSWERERS: Final[Mapping[str, Answerer]] = MappingProxyType(
    {"probe": _probe, "entries": _entries, "clear": _clear, "sign": _sign}
)


class _Desk:
    """Takes questions, so many at once and no more."""

    def __init__(self, signer: LogSigner) -> None:
        self._signer: Final = signer
        self._open = 0

    async def answer(self, request: web.Request) -> web.Response:
        if self._open >= QUESTIONS_AT_ONCE_MAX:
            return _response(_BUSY, "busy", "too many questions at once; ask again")
        self._open += 1
        try:
            return await self._answer(request)
        finally:
            self._open -= 1

    async def _answer(self, request: web.Request) -> web.Response:
        answerer = _ANSWERERS[request.match_info["verb"]]
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                question = parse(await request.read())
            return _written(_OK, await answerer(self._signer, question))
        except SignerNotClearedError as error:
            return _response(_REFUSED, "not-cleared", str(error))
        except SignerError as error:
            observe.alarm("signer-refused", error, reason=str(error))
            return _response(_REFUSED, "refused", str(error))
        except StoreError as error:
            observe.alarm("signer-refused", error, reason=str(error))
            return _response(_REFUSED, "refused", f"the signer cannot read the log: {error}")
        except (MalformedError, TimeoutError, web.HTTPException):
            return _response(_BAD, "malformed", "the question cannot be read")
        except ComityError as error:
            observe.alarm("signer-refused", error, reason=str(error))
            return _response(_FAILED, "internal", "the signer failed; look at its log")


@asynccontextmanager
async def answering(signer: LogSigner, path: Path) -> AsyncIterator[None]:
    """Answer questions at a unix socket until the body ends.

    Raises:
        SettingsError: Another signer listens there.
    """
    await asyncio.to_thread(_require_free, path)
    app = web.Application(client_max_size=QUESTION_BYTES_MAX)
    verbs = "|".join(_ANSWERERS)
    app.router.add_post(f"/{{verb:{verbs}}}", _Desk(signer).answer)
    runner = web.AppRunner(
        app, handle_signals=False, access_log=None, shutdown_timeout=STOP_SECONDS_MAX
    )
    await runner.setup()
    # Made with no right for anybody else, and opened to the group when it is there.
    mask = os.umask(0o177)
    try:
        await web.UnixSite(runner, str(path)).start()
    finally:
        os.umask(mask)
    await asyncio.to_thread(path.chmod, _MODE)
    try:
        yield
    finally:
        await runner.cleanup()
        await asyncio.to_thread(path.unlink, missing_ok=True)


def _require_free(path: Path) -> None:
    """Take away a socket that a killed signer left, and no other one."""
    if not path.is_socket():
        if path.exists():
            raise SettingsError(f"socket {path} is a file already; name another path")
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(BODY_SECONDS_MAX)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise SettingsError(f"another signer listens at {path}; stop it first, and run only one")


def _response(status: int, code: str, error: str) -> web.Response:
    return _written(status, {"code": code, "error": error})


def _written(status: int, value: Value) -> web.Response:
    return web.Response(status=status, body=serialize(value), content_type=MEDIA_TYPE)
