"""What a restored database still lacks, for the members who may have it."""

from typing import Final

from aiohttp import web

from comity_server import access
from comity_server.context import CONTEXT
from comity_server.handlers import replies
from comity_server.query import require_none

TAGS_MAX: Final = 65_536
"""Tags given at once: 2.2 MB. Whoever has none of these asks again when some have come back."""


async def get_vacancies(request: web.Request) -> web.Response:
    """Give the tags of entries whose objects are missing, in leaf order."""
    context = request.app[CONTEXT]
    access.caller_of_get(request)
    require_none(request)
    repair = await context.store.repair()
    if repair is None:
        size = (await context.store.head()).size
        return replies.binary({"had": size, "size": size, "tags": []})
    tags = [] if repair.is_placing else await context.store.missing(TAGS_MAX)
    return replies.binary({"had": repair.had, "size": repair.size, "tags": list(tags)})
