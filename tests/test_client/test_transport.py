"""The way to the relay: tokens, nonces, problems, retries and bounds."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from comity_client.tokens import TokenMaker
from comity_client.transport import (
    ANSWER_BYTES_MAX,
    OfflineError,
    RelayClient,
    RelayRefusedError,
)
from comity_protocol.encoding import serialize
from comity_protocol.errors import MalformedError
from comity_protocol.identifiers import DeploymentId, DeviceId
from comity_protocol.keys import FastKey
from support.relay import Relay, relay, small_world

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
KEY = FastKey.generate()
MAKER = TokenMaker(DeviceId(bytes(16)), DeploymentId(bytes([1]) * 16), KEY)
EMPTY = serialize({"items": []})


class Pauses(list[float]):
    """Remembers how long it was asked to wait, and does not."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


@asynccontextmanager
async def serving(handler: Handler, pauses: Pauses | None = None) -> AsyncIterator[RelayClient]:
    """Run a server of one handler, and a client of it."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        async with RelayClient(
            f"http://{host}:{port}", MAKER, sleep=pauses if pauses is not None else Pauses()
        ) as client:
            yield client
    finally:
        await runner.cleanup()


def problem(status: int, code: str, **headers: str) -> web.Response:
    body = {"code": code, "detail": "what happened", "trace_id": "t1"}
    return web.Response(status=status, body=json.dumps(body).encode(), headers=headers)


async def test_a_request_is_signed_for_exactly_itself() -> None:
    seen: list[tuple[str, dict[str, str]]] = []

    async def handler(request: web.Request) -> web.Response:
        token = request.headers["Authorization"].removeprefix("Comity ")
        key = Ed25519PublicKey.from_public_bytes(KEY.public)
        claims = jwt.decode(token, key, algorithms=["EdDSA"], audience=(bytes([1]) * 16).hex())
        seen.append((request.path_qs, claims))
        return web.Response(body=EMPTY)

    async with serving(handler) as client:
        await client.mailbox(3, wait=1)
        await client.mailbox(3, wait=1)

    assert {path for path, _ in seen} == {"/v1/mailbox?after=3&limit=500&wait=1"}
    assert all(claims["htu"] == path and claims["htm"] == "GET" for path, claims in seen)
    assert seen[0][1]["jti"] != seen[1][1]["jti"]


async def test_a_stale_nonce_costs_one_more_request_and_no_pause() -> None:
    nonces: list[str] = []
    pauses = Pauses()

    async def handler(request: web.Request) -> web.Response:
        token = request.headers["Authorization"].removeprefix("Comity ")
        nonces.append(jwt.decode(token, options={"verify_signature": False})["n"])
        if nonces[-1] != "fresh":
            return problem(401, "use-nonce", **{"Comity-Nonce": "fresh"})
        return web.Response(body=EMPTY)

    async with serving(handler, pauses) as client:
        await client.mailbox(0)
        await client.mailbox(0)

    assert nonces == ["", "fresh", "fresh"]
    assert pauses == []


async def test_a_busy_relay_is_asked_again_after_the_time_it_names() -> None:
    # [B-11]
    pauses, asked = Pauses(), []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        if len(asked) < 3:
            return problem(503, "busy", **{"Retry-After": "2"})
        return web.Response(body=EMPTY)

    async with serving(handler, pauses) as client:
        assert await client.mailbox(0) == ()

    assert pauses == [2.0, 2.0]


@pytest.mark.parametrize(("retry_after", "tries"), [("1", 3), ("3600", 1)])
async def test_tries_have_a_bound(retry_after: str, tries: int) -> None:
    # [B-11]
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return problem(429, "quota", **{"Retry-After": retry_after})

    async with serving(handler) as client:
        with pytest.raises(RelayRefusedError) as caught:
            await client.mailbox(0)

    assert len(asked) == tries
    assert (caught.value.code, caught.value.status) == ("quota", 429)
    assert (caught.value.retry_after, caught.value.trace_id) == (float(retry_after), "t1")
    assert "nothing is lost" in caught.value.remedy


async def test_what_is_refused_for_good_is_asked_once() -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return problem(409, "stale-epoch")

    async with serving(handler) as client:
        with pytest.raises(RelayRefusedError, match="what happened") as caught:
            await client.post_envelope(b"x")

    assert (len(asked), caught.value.code) == (1, "stale-epoch")


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=500, body=b"<html>"),
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        lambda: web.Response(status=500, body=b'{"code": "no such code"}'),
        lambda: web.Response(status=500, body=b'["code"]'),
    ],
    ids=["html", "redirect", "unknown code", "no object"],
)
async def test_an_answer_that_is_no_problem_is_the_relays_own_fault(
    answer: Callable[[], web.Response],
) -> None:
    # [B-11]
    async def handler(_: web.Request) -> web.Response:
        return answer()

    async with serving(handler) as client:
        with pytest.raises(RelayRefusedError) as caught:
            await client.mailbox(0)

    assert caught.value.code == "internal"


async def test_an_answer_that_does_not_end_is_cut() -> None:
    # [B-11]
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=400)
        await response.prepare(request)
        for _ in range(8):
            await response.write(bytes(65_536))
        return response

    async with serving(handler) as client:
        with pytest.raises(OfflineError, match="larger than"):
            await client.mailbox(0)
    assert ANSWER_BYTES_MAX < 1 << 27


async def test_a_relay_that_is_not_there_is_offline_after_a_few_tries() -> None:
    # [B-11]
    pauses = Pauses()
    async with RelayClient("http://127.0.0.1:1", MAKER, sleep=pauses) as client:
        with pytest.raises(OfflineError, match="cannot be reached") as caught:
            await client.mailbox(0)

    assert pauses == [0.5, 2.0]
    assert "queued" in caught.value.remedy


async def test_an_answer_that_is_not_what_the_protocol_says_is_refused() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=serialize({"items": [[1]]}))

    async with serving(handler) as client:
        with pytest.raises(MalformedError):
            await client.mailbox(0)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Relay]:
    world, _, _ = small_world()
    async with relay(tmp_path, world) as found:
        await found.publish()
        yield found


async def test_what_is_open_to_all_needs_no_keys(running: Relay) -> None:
    async with RelayClient(running.url) as client:
        genesis = await client.genesis()
        size = running.context.log.size
        hashes = await client.tile(0, 0, size)
        entries = await client.entries(0, size)
        note = await client.checkpoint()

    assert genesis.hash == running.world.statements[0][1].hash
    assert len(hashes) == len(entries) == size
    assert note == running.context.log.newest().note
