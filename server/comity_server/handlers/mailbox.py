"""What is there for the calling desk: its mailbox, and the receipts for what it sent or audits.

Rules:

* [R-14] A mailbox is served only to its desk.
* [R-15] Every wait and page has a bound; that of a page in bytes is the store's.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from aiohttp import web

from comity_protocol.merkle import SIZE_MAX
from comity_server import access
from comity_server.checks import Caller
from comity_server.context import CONTEXT, Context
from comity_server.handlers import replies
from comity_server.hub import item_values, receipt_values
from comity_server.problems import Refused
from comity_server.query import integers

PAGE_ITEMS_MAX: Final = 500
WAIT_SECONDS_MAX: Final = 30

Item = TypeVar("Item")


async def get_mailbox(request: web.Request) -> web.Response:
    """Give the next envelopes of the calling desk, waiting for one if asked to."""
    context = request.app[CONTEXT]
    caller = access.caller_of_get(request)
    after, limit, wait = integers(
        request,
        after=(0, 0, SIZE_MAX),
        limit=(PAGE_ITEMS_MAX, 1, PAGE_ITEMS_MAX),
        wait=(0, 0, WAIT_SECONDS_MAX),
    )
    # SPEC: a mailbox is served only to its desk. There is no other to ask for.
    items = await when_there(
        context, caller, wait, lambda: context.store.mailbox(caller.desk, after, limit)
    )
    return replies.binary({"items": [item_values(item) for item in items]})


async def get_receipts(request: web.Request) -> web.Response:
    """Give the next receipts for envelopes of the calling desk, likewise."""
    context = request.app[CONTEXT]
    caller = access.caller_of_get(request)
    after, limit, wait = integers(
        request,
        after=(-1, -1, SIZE_MAX),
        limit=(PAGE_ITEMS_MAX, 1, PAGE_ITEMS_MAX),
        wait=(0, 0, WAIT_SECONDS_MAX),
    )
    rows = await when_there(
        context, caller, wait, lambda: context.store.receipts(caller.desk, after, limit)
    )
    return replies.binary({"items": [receipt_values(row) for row in rows]})


async def when_there(
    context: Context, caller: Caller, wait: int, read: Callable[[], Awaitable[list[Item]]]
) -> list[Item]:
    """Read until something is there or the wait is over."""
    if context.relay.gate is not None:
        context.relay.gate.require_whole()
    items = await read()
    if items or not wait:
        return items
    # SPEC: every queue has a bound.
    if context.waiting >= context.settings.waiting_requests:
        raise Refused("busy", "too many requests are waiting", retry_after=5)
    context.waiting += 1
    try:
        return await _wait(context, caller, wait, read)
    finally:
        context.waiting -= 1


async def _wait(
    context: Context, caller: Caller, wait: int, read: Callable[[], Awaitable[list[Item]]]
) -> list[Item]:
    items: list[Item] = []
    try:
        async with asyncio.timeout(wait):
            with context.relay.hub.bell(caller.desk) as bell:
                while not items and not context.is_stopping:
                    # Once more after the bell hangs: something may have come between.
                    bell.clear()
                    items = await read()
                    if not items:
                        await bell.wait()
    except TimeoutError:
        pass
    access.require_still_active(context, caller)
    return items
