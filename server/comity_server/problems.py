"""Refusals: which problem of the protocol's table, and what this one case adds to it.

Rules:

* [R-12] Every error after routing is problem+json (RFC 9457) with a stable code and a remedy.

A detail never quotes what the caller sent and never tells whether another office exists.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from aiohttp import web

from comity_protocol.errors import (
    ComityError,
    LimitError,
    MalformedError,
    VerificationError,
)
from comity_protocol.wire import PROBLEM_TYPE, PROBLEMS

TYPE_PREFIX: Final = "urn:comity:problem:"
_SERVER_ERROR: Final = 500

Member = str | int | Sequence[Mapping[str, str | int]]


class Refused(Exception):  # noqa: N818 - it reads as what happened, like the answer it becomes
    """A request that the relay refuses, with what its answer says.

    Attributes:
        code: Which of the protocol's table; stable.
        problem: Its entry there.
        detail: This case, in one line; safe to show to anyone.
        members: More members of the answer, such as the desks of ``stale-epoch``.
        retry_after: Seconds; None when waiting does not help.
        allow: Methods of the path, for ``method-not-allowed``.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        members: Mapping[str, Member] | None = None,
        retry_after: int | None = None,
        allow: Sequence[str] = (),
    ) -> None:
        """Name the problem by its code."""
        super().__init__(detail)
        self.code = code
        self.problem = PROBLEMS[code]
        self.detail = detail
        self.members = members or {}
        self.retry_after = retry_after
        self.allow = allow


def of_error(error: ComityError) -> Refused:
    """Give the refusal of an error of the protocol.

    Messages of these errors are safe to show by their own rule.
    """
    match error:
        case MalformedError():
            return Refused("malformed", str(error))
        case LimitError():
            return Refused("too-large", str(error))
        case VerificationError():
            return Refused("verification-failed", str(error))
        case ComityError(code=code) if code in PROBLEMS and PROBLEMS[code].status < _SERVER_ERROR:
            return Refused(code, str(error))
        case _:
            return Refused("internal", "the relay could not do it")


def to_json(refused: Refused, trace_id: str) -> bytes:
    """Write the body of the answer."""
    problem = refused.problem
    return json.dumps(
        {
            **refused.members,
            "type": TYPE_PREFIX + refused.code,
            "title": problem.title,
            "status": problem.status,
            "code": refused.code,
            "detail": refused.detail,
            "remedy": problem.remedy,
            "trace_id": trace_id,
        },
        separators=(",", ":"),
    ).encode()


def to_response(refused: Refused, trace_id: str) -> web.Response:
    """Write the answer."""
    headers = {}
    if refused.retry_after is not None:
        headers["Retry-After"] = str(refused.retry_after)
    if refused.allow:
        headers["Allow"] = ", ".join(sorted(refused.allow))
    return web.Response(
        status=refused.problem.status,
        body=to_json(refused, trace_id),
        content_type=PROBLEM_TYPE,
        headers=headers,
    )
