"""How the relay is: for operators, load balancers and Prometheus."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

from aiohttp import web

from comity_server.context import CONTEXT
from comity_server.handlers import replies
from comity_server.problems import Refused

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def get_livez(_request: web.Request) -> web.Response:
    """Say that the process lives."""
    return replies.text("ok\n")


async def get_readyz(request: web.Request) -> web.Response:
    """Say whether the relay takes what is sent now."""
    context = request.app[CONTEXT]
    if context.is_stopping:
        raise Refused("draining", "the relay is stopping", retry_after=2)
    await context.store.head()
    repair = await context.store.repair()
    if repair is not None:
        raise Refused(
            "repairing",
            "the database was restored",
            members={
                "had": repair.had,
                "size": repair.size,
                "vacancies": repair.open,
                "seconds_left": repair.seconds_left,
            },
            retry_after=2,
        )
    return replies.text("ok\n")


async def get_nonce(request: web.Request) -> web.Response:
    """Give the nonce for the next tokens; the header of every answer has it too."""
    context = request.app[CONTEXT]
    return replies.text(context.nonces.issue(context.clock()) + "\n")


async def get_metrics(request: web.Request) -> web.Response:
    """Give the counters."""
    return web.Response(
        body=request.app[CONTEXT].metrics.text(), headers={"Content-Type": _METRICS_TYPE}
    )


async def get_version(request: web.Request) -> web.Response:
    """Tell which program this is and which deployment it serves."""
    genesis = request.app[CONTEXT].genesis
    return web.json_response(
        {
            "version": _version(),
            "protocol": 1,
            "origin": genesis.origin,
            "deployment": genesis.deployment.hex(),
        }
    )


async def get_openapi(_request: web.Request) -> web.Response:
    """Give the description of this interface."""
    return replies.text(openapi(), content_type="application/yaml")


@cache
def openapi() -> bytes:
    """Read the description that comes with the program."""
    return files("comity_server").joinpath("openapi.yaml").read_bytes()


@cache
def _version() -> str:
    try:
        return version("comity")
    except PackageNotFoundError:
        return "unknown"
