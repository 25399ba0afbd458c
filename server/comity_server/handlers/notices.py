"""Notices: stated by devices, and given to the desks that their envelopes address.

Rules:

* [R-14] A notice is given only to the desks and auditors of the envelopes that it names.
"""

from typing import Final

from aiohttp import web

from comity_protocol.limits import NOTICE_BYTES_MAX
from comity_protocol.merkle import SIZE_MAX
from comity_server import access
from comity_server.context import CONTEXT
from comity_server.handlers import replies
from comity_server.handlers.mailbox import PAGE_ITEMS_MAX, WAIT_SECONDS_MAX, when_there
from comity_server.query import integers, require_none

_SIGNED_NOTICE_BYTES_MAX: Final = NOTICE_BYTES_MAX + 128


async def post_notice(request: web.Request) -> web.Response:
    """Take a notice; answer with the promise once it is committed and carried out."""
    caller, data = await access.caller_of_post(request, bytes_max=_SIGNED_NOTICE_BYTES_MAX)
    require_none(request)
    return replies.promise(await request.app[CONTEXT].notices.accept(data, caller))


async def get_notices(request: web.Request) -> web.Response:
    """Give the next notices for the calling desk, waiting for one if asked to."""
    context = request.app[CONTEXT]
    caller = access.caller_of_get(request)
    after, limit, wait = integers(
        request,
        after=(-1, -1, SIZE_MAX),
        limit=(PAGE_ITEMS_MAX, 1, PAGE_ITEMS_MAX),
        wait=(0, 0, WAIT_SECONDS_MAX),
    )
    # SPEC: notices are served only to the calling desk. There is no other to ask for.
    rows = await when_there(
        context, caller, wait, lambda: context.store.notices(caller.desk, after, limit)
    )
    items = [[row.leaf_index, row.payload, row.signature] for row in rows]
    return replies.binary({"items": items})
