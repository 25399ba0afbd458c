"""Reads a request's body within bounds of size, time and progress.

Rules:

* [R-15] Every body has a bound, in bytes and in time.

The web server has no limit in time of its own: without this, a sender of one byte a minute holds a
connection for ever. A weak link of 190 bytes a second must still get through.
"""

import asyncio
from typing import Final

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from comity_protocol.wire import MEDIA_TYPE
from comity_server.problems import Refused

IDLE_SECONDS_MAX: Final = 20.0
"""Longest silence within a body."""

GRACE_SECONDS: Final = 20.0
BYTES_PER_SECOND_MIN: Final = 128
"""Slowest average, once the grace is over."""


async def read_body(request: web.Request, *, bytes_max: int) -> bytes:
    """Read the whole body.

    Raises:
        Refused: It has another type or an encoding, is too long, or comes too slowly.
    """
    # Whoever trusts a Content-Encoding decompresses a bomb, or fails on a lying one.
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Refused("unsupported-media", "the body has a Content-Encoding, expected none")
    if request.content_type != MEDIA_TYPE:
        raise Refused("unsupported-media", f"the body's type is not {MEDIA_TYPE}")
    # SPEC: every body has a bound.
    if (request.content_length or 0) > bytes_max:
        raise Refused("too-large", f"the body is longer than {bytes_max:,} bytes")
    return await _read(request, bytes_max)


def require_no_body(request: web.Request) -> None:
    """Refuse a body where none belongs.

    Raises:
        Refused: There is one.
    """
    if request.can_read_body:
        raise Refused("bad-request", "the request has a body, expected none")


async def _read(request: web.Request, bytes_max: int) -> bytes:
    loop = asyncio.get_running_loop()
    started = loop.time()
    parts: list[bytes] = []
    size = 0
    while True:
        due = started + GRACE_SECONDS + size / BYTES_PER_SECOND_MIN
        try:
            async with asyncio.timeout_at(min(loop.time() + IDLE_SECONDS_MAX, due)):
                part = await request.content.readany()
        except TimeoutError:
            raise Refused("timeout", "the body stopped, or came too slowly") from None
        except (ClientError, HttpProcessingError, web.RequestPayloadError) as error:
            raise Refused("bad-request", "the body is not framed as HTTP") from error
        except ConnectionError as error:
            # On a weak line this is an ordinary event, and nobody reads the answer.
            raise Refused("bad-request", "the connection ended within the body") from error
        if not part:
            return b"".join(parts)
        size += len(part)
        if size > bytes_max:
            raise Refused("too-large", f"the body is longer than {bytes_max:,} bytes")
        parts.append(part)
