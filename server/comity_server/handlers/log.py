"""The log for everyone: checkpoint, tiles, entries and proofs; none says who wrote to whom."""

from typing import Final

from aiohttp import web

from comity_protocol.limits import ANCHORS_PAGE_MAX, CHECKPOINTS_PAGE_MAX, LEAVES_PAGE_MAX
from comity_protocol.merkle import SIZE_MAX, TILE_WIDTH
from comity_server.body import require_no_body
from comity_server.context import CONTEXT
from comity_server.handlers import replies
from comity_server.log import LEVEL_MAX, parse_tile_index
from comity_server.problems import Refused
from comity_server.query import integers, require_none

_FOR_EVER: Final = "public, max-age=31536000, immutable"
_DIGITS_MAX: Final = 19

_SKIP_MAX: Final = 10_000_000
"""Notes of one size: a quiet log publishes 52,560 heartbeats a year."""


async def get_checkpoint(request: web.Request) -> web.Response:
    """Give the newest witnessed checkpoint."""
    _require_plain(request)
    return replies.text(request.app[CONTEXT].log.newest().note)


async def get_tile(request: web.Request) -> web.Response:
    """Give a tile, or the first hashes of one."""
    _require_plain(request)
    level = _number(request.match_info["level"])
    if level > LEVEL_MAX:
        raise Refused("not-found", "the path names no tile")
    index, width = _place(request)
    data = await request.app[CONTEXT].log.tile(level, index, width)
    return _immutable(data)


async def get_entries(request: web.Request) -> web.Response:
    """Give an entry bundle, or its first entries."""
    _require_plain(request)
    index, width = _place(request)
    return _immutable(await request.app[CONTEXT].log.entries(index, width))


async def get_leaves(request: web.Request) -> web.Response:
    """Give entries one after the other, also those that no checkpoint covers yet.

    A witness that replays and a mirror need an entry before they cosign a checkpoint over it.
    """
    _require_plain(request)
    start = _number(request.match_info["start"])
    leaves = await request.app[CONTEXT].store.leaves(start, LEAVES_PAGE_MAX)
    return web.Response(body=b"".join(leaves), content_type="application/octet-stream")


async def get_checkpoints(request: web.Request) -> web.Response:
    """Give published checkpoints by ascending size and age."""
    require_no_body(request)
    after, skip, limit = _page(request, CHECKPOINTS_PAGE_MAX)
    found = await request.app[CONTEXT].store.checkpoints(after, skip, limit)
    return replies.binary({"items": [one.note for one in found]})


async def get_anchors(request: web.Request) -> web.Response:
    """Give the daily anchors by ascending size and day."""
    require_no_body(request)
    after, skip, limit = _page(request, ANCHORS_PAGE_MAX)
    return replies.binary(
        {"items": list(await request.app[CONTEXT].store.anchors(after, skip, limit))}
    )


def _page(request: web.Request, limit_max: int) -> tuple[int, ...]:
    """Read which page: after a size, leaving out so many, at most so many."""
    return integers(
        request,
        after=(-1, -1, SIZE_MAX),
        skip=(0, 0, _SKIP_MAX),
        limit=(limit_max, 1, limit_max),
    )


async def get_proof(request: web.Request) -> web.Response:
    """Prove that a leaf is in the log, against the newest witnessed checkpoint."""
    _require_plain(request)
    context = request.app[CONTEXT]
    index = _number(request.match_info["index"])
    newest = context.log.newest()
    proof = await context.log.inclusion(index, newest.size)
    return replies.binary(
        {"index": index, "size": newest.size, "proof": list(proof), "note": newest.note}
    )


async def get_covering(request: web.Request) -> web.Response:
    """Give the first published checkpoint that covers a leaf: the one that dates it."""
    _require_plain(request)
    index = _number(request.match_info["index"])
    return replies.text((await request.app[CONTEXT].log.first_over(index)).note)


def _require_plain(request: web.Request) -> None:
    require_none(request)
    require_no_body(request)


def _place(request: web.Request) -> tuple[int, int]:
    """Read a tile's number and, for a partial one, its width."""
    path, partial, width = request.match_info["place"].partition(".p/")
    if not partial:
        return parse_tile_index(path), TILE_WIDTH
    count = _number(width)
    if not 1 <= count < TILE_WIDTH:
        raise Refused("not-found", "the path names no tile")
    return parse_tile_index(path), count


def _number(text: str) -> int:
    """Read a whole number without leading zeros."""
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS_MAX:
        raise Refused("not-found", "the path names nothing")
    number = int(text)
    if str(number) != text or number > SIZE_MAX:
        raise Refused("not-found", "the path names nothing")
    return number


def _immutable(data: bytes) -> web.Response:
    return web.Response(
        body=data,
        content_type="application/octet-stream",
        headers={"Cache-Control": _FOR_EVER},
    )
