"""What a restored database still lacks, for the members who may have it."""

from typing import Final

from aiohttp import web

from comity_protocol.encoding import Value
from comity_protocol.merkle import SIZE_MAX
from comity_server import access
from comity_server.context import CONTEXT
from comity_server.handlers import replies
from comity_server.query import integers

TAGS_MAX: Final = 65_536
"""Tags given at once: 2.2 MB; ``next`` says after which entry to go on."""


async def get_vacancies(request: web.Request) -> web.Response:
    """Give the tags of entries whose objects are missing, in leaf order."""
    context = request.app[CONTEXT]
    access.caller_of_get(request)
    (after,) = integers(request, after=(-1, -1, SIZE_MAX))
    repair = await context.store.repair()
    if repair is None:
        size = (await context.store.head()).size
        return replies.binary({"had": size, "size": size, "tags": [], "next": None})
    found = [] if repair.is_placing else await context.store.missing(after, TAGS_MAX)
    tags: list[Value] = [tag for _, tag in found]
    # SPEC: every page has a bound.
    next_ = found[-1][0] if len(found) == TAGS_MAX else None
    return replies.binary({"had": repair.had, "size": repair.size, "tags": tags, "next": next_})
