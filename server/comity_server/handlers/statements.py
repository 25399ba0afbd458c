"""Statements: posted by anyone, because they prove themselves; read by members."""

from typing import Final

from aiohttp import web

from comity_protocol.encoding import Value, parse
from comity_protocol.limits import STATEMENT_BYTES_MAX
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.wire import MEDIA_TYPE
from comity_server import access
from comity_server.body import read_body, require_no_body
from comity_server.context import CONTEXT
from comity_server.handlers import replies
from comity_server.problems import Refused
from comity_server.query import integers, require_none
from comity_server.store import StatementRow

PAGE_MAX: Final = 200
READING_MAX: Final = 64
"""Bodies of strangers that are read at once."""

SIGNED_STATEMENT_BYTES_MAX: Final = STATEMENT_BYTES_MAX + 1_048_576
"""Payload, 144 signatures of 3.4 kB, 128 boxes of 1.6 kB."""


async def post_statement(request: web.Request) -> web.Response:
    """Take a statement; it carries its own signatures, so no token is asked for."""
    require_none(request)
    context = request.app[CONTEXT]
    # SPEC: every queue has a bound; here nobody is known, so it is one for all.
    if context.reading >= READING_MAX:
        raise Refused("busy", "too many statements are being read", retry_after=1)
    context.reading += 1
    try:
        data = await read_body(request, bytes_max=SIGNED_STATEMENT_BYTES_MAX)
    finally:
        context.reading -= 1
    return replies.promise(await context.relay.accept_statement(data))


async def get_statements(request: web.Request) -> web.Response:
    """Give a page of the statements that the witnessed checkpoint covers, each with its proof.

    A witness that replays needs them before there is a checkpoint over them, and needs no proofs.
    """
    context = request.app[CONTEXT]
    access.require_reader_of_get(request)
    after, limit, uncovered = integers(
        request, after=(0, 0, SIZE_MAX), limit=(PAGE_MAX, 1, PAGE_MAX), uncovered=(0, 0, 1)
    )
    if uncovered:
        rows = await context.store.statements(after, limit)
        bare: list[Value] = [_item(row, ()) for row in rows if row.leaf_index is not None]
        return replies.binary({"note": b"", "size": 0, "items": bare})
    if context.relay.gate is not None:
        # A member would take what is not back yet for a statement that is withheld.
        context.relay.gate.require_whole()
    newest = context.log.newest()
    rows = await context.store.statements(after, limit, below_index=newest.size)
    items: list[Value] = [
        _item(row, await context.log.inclusion(row.leaf_index, newest.size))
        for row in rows
        if row.leaf_index is not None
    ]
    return replies.binary({"note": newest.note, "size": newest.size, "items": items})


async def get_genesis(request: web.Request) -> web.Response:
    """Give the genesis, which everybody has pinned."""
    require_none(request)
    require_no_body(request)
    data = request.app[CONTEXT].signed_genesis.serialize()
    return web.Response(body=data, content_type=MEDIA_TYPE)


async def get_boxes(request: web.Request) -> web.Response:
    """Give the calling device its own epoch boxes, and the chain of its desk's earlier seeds."""
    context = request.app[CONTEXT]
    caller = access.caller_of_get(request)
    require_none(request)
    boxes, previous = await context.store.boxes(caller.desk, caller.device)
    return replies.binary(
        {
            "boxes": [[epoch, box] for epoch, box in boxes],
            "previous": [[epoch, box] for epoch, box in previous],
        }
    )


def _item(row: StatementRow, proof: tuple[bytes, ...]) -> list[Value]:
    return [row.ordinal, row.leaf_index, row.payload, parse(row.signatures), list(proof)]
