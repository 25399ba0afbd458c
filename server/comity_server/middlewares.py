"""What surrounds every handler: an id, an account of what happened, and problems for errors.

Rules:

* [R-12] Every error after routing is problem+json with a stable code and a remedy.
"""

import asyncio
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from comity_protocol.errors import ComityError
from comity_protocol.wire import NONCE_HEADER
from comity_server import observe
from comity_server.context import CONTEXT, TRACE_HEADER, trace_of
from comity_server.problems import Refused, of_error, to_response
from comity_server.store import StoreError

_SLOW_PATHS: Final = frozenset({"/v1/mailbox", "/v1/receipts", "/v1/socket"})


@web.middleware
async def account(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the request and log it: method, path pattern, status and time, nothing of its body."""
    metrics = request.app[CONTEXT].metrics
    loop = asyncio.get_running_loop()
    started = loop.time()
    response = await handler(request)
    resource = request.match_info.route.resource
    path = resource.canonical if resource is not None else "unknown"
    method = request.method if request.method in _METHODS else "OTHER"
    metrics.requests.labels(method, str(response.status)).inc()
    if path not in _SLOW_PATHS:
        metrics.request_seconds.observe(loop.time() - started)
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        observe.event(
            "request-failed",
            method=method,
            path=path,
            status=response.status,
            trace=trace_of(request),
        )
    return response


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into an answer that says what to do and nothing else."""
    # SPEC: every error after routing is problem+json with a stable code and a remedy.
    try:
        return await handler(request)
    except Refused as error:
        refused = error
    except StoreError as error:
        observe.alarm("store-failed", error, trace=trace_of(request))
        refused = Refused("busy", "the store could not do it", retry_after=2)
    except ComityError as error:
        refused = of_error(error)
    except web.HTTPException as error:
        refused = _of_http(error)
    except Exception as error:  # noqa: BLE001 - the outermost place of a request
        observe.alarm("request-crashed", error, trace=trace_of(request))
        refused = Refused("internal", "the relay could not do it")
    request.app[CONTEXT].metrics.problems.labels(refused.code).inc()
    response = to_response(refused, trace_of(request))
    if not request.content.at_eof():
        # What is left of a refused body must not be taken for the next request.
        response.force_close()
    return response


async def expect(request: web.Request) -> web.StreamResponse | None:
    """Ask for the body that a client holds back; refuse to promise anything else."""
    # SPEC: the web server's own refusal would be plain text.
    if request.headers["Expect"].lower() != "100-continue":
        refused = Refused("bad-request", "the request expects what is not known here")
        return to_response(refused, trace_of(request))
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
    return None


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """Put the headers on that every answer carries, the 101 of a WebSocket too."""
    context = request.app[CONTEXT]
    # SPEC [T-2]: every answer carries a fresh nonce, so that a device with a wrong clock works.
    response.headers[NONCE_HEADER] = context.nonces.issue(context.clock())
    response.headers[TRACE_HEADER] = trace_of(request)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["Server"] = "comity-relay"


_METHODS: Final = frozenset({"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"})


def _of_http(error: web.HTTPException) -> Refused:
    match error:
        case web.HTTPMethodNotAllowed(allowed_methods=allowed):
            return Refused(
                "method-not-allowed", "the path has other methods", allow=sorted(allowed)
            )
        case web.HTTPNotFound():
            return Refused("not-found", "there is nothing at this path")
        case web.HTTPRequestEntityTooLarge():
            return Refused("too-large", "the body is larger than allowed")
        case web.HTTPException(status=status) if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return Refused("bad-request", "the request cannot be read")
        case _:
            return Refused("internal", "the relay could not do it")
