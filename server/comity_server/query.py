"""Reads the arguments of a query, exactly: each at most once, in canonical form, none unknown."""

import re
from typing import Final

from aiohttp import web

from comity_server.problems import Refused

_INTEGER: Final = re.compile(r"-1|0|[1-9][0-9]{0,18}", re.ASCII)


def integers(request: web.Request, **arguments: tuple[int, int, int]) -> tuple[int, ...]:
    """Read whole numbers.

    Args:
        request: With the query.
        arguments: For each name its default, its least and its greatest value.

    Returns:
        The values in the order of ``arguments``.

    Raises:
        Refused: One is unknown, there twice, not a number, or outside its bounds.
    """
    query = request.query
    if unknown := sorted(query.keys() - arguments.keys()):
        raise Refused("bad-request", f"the query has {len(unknown)} unknown arguments")
    values: list[int] = []
    for name, (default, low, high) in arguments.items():
        given = query.getall(name, [str(default)])
        if len(given) != 1 or not _INTEGER.fullmatch(given[0]):
            raise Refused("bad-request", f"{name} is not one whole number")
        value = int(given[0])
        # SPEC: every wait and page has a bound.
        if not low <= value <= high:
            raise Refused("bad-request", f"{name} is outside {low} to {high}")
        values.append(value)
    return tuple(values)


def require_none(request: web.Request) -> None:
    """Refuse a query where none belongs.

    Raises:
        Refused: There is one.
    """
    integers(request)
