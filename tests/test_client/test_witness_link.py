"""The witness's end of a link, with a relay at the other end that does what it likes: [B-11].

The relay's end is played by hand, frame by frame.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import pytest
from aiohttp import WSMsgType, web
from nacl.signing import SigningKey

from comity_client.witness_link import Link
from comity_client.witness_rule import Answer
from comity_client.witness_state import WitnessKey
from comity_protocol.encoding import serialize
from comity_protocol.identifiers import DeploymentId
from comity_protocol.limits import WITNESS_ANSWER_BYTES_MAX, WITNESS_LINK_ASKS_MAX
from comity_protocol.wire import WITNESS_LINK
from comity_protocol.witness_link import ASK_BYTES_MAX, Ask, Challenge, LinkAnswer, Proof

KEY: Final = WitnessKey("witness.example/w1", SigningKey(b"K" * 32))
DEPLOYMENT: Final = DeploymentId(b"D" * 16)
CHALLENGE: Final = Challenge(b"N" * 32)

Talk = Callable[[web.WebSocketResponse], Awaitable[None]]


class EndedError(Exception):
    """The link has ended as often as the test wants."""


@asynccontextmanager
async def relay(*talks: Talk) -> AsyncIterator[str]:
    """A relay that talks in one way on its first connection and in another on the next."""
    left = list(talks)

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        await left.pop(0)(socket)
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_get(WITNESS_LINK, serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def run(
    url: str, answer: Callable[[str, bytes], Awaitable[Answer]], times: int
) -> list[float]:
    """Run a link until it has ended so often; gives the pauses between."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == times:
            raise EndedError

    with suppress(EndedError):
        async with asyncio.timeout(20):
            await Link(url, KEY, DEPLOYMENT, answer, sleep=pause).run()
    return pauses


async def echo(path: str, body: bytes) -> Answer:
    return Answer(200, path.encode() + body)


async def prove(socket: web.WebSocketResponse) -> None:
    await socket.send_bytes(CHALLENGE.serialize())
    proof = Proof.parse(await socket.receive_bytes())
    proof.verify(KEY.verifier_key, DEPLOYMENT, CHALLENGE)


async def ask(socket: web.WebSocketResponse, number: int, path: str, body: bytes) -> LinkAnswer:
    await socket.send_bytes(Ask(number, path, body).serialize())
    return LinkAnswer.parse(await socket.receive_bytes())


async def test_a_witness_answers_what_it_is_asked() -> None:
    answers: list[LinkAnswer] = []

    async def talk(socket: web.WebSocketResponse) -> None:
        await prove(socket)
        answers.append(await ask(socket, 7, "/a?b", b"c"))

    async with relay(talk) as url:
        await run(url, echo, 1)

    assert answers == [LinkAnswer(7, 200, "text/plain", b"/a?bc")]


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xff" * 9,
        serialize(["challenge", bytes(31)]),
        serialize(["ask", 1, "/add-checkpoint", b""]),
        bytes(ASK_BYTES_MAX + 1),
        "text",
    ],
    ids=["nothing", "noise", "short", "ask", "oversize", "text"],
)
async def test_what_is_no_challenge_is_not_signed(frame: bytes | str) -> None:
    received: list[WSMsgType] = []

    async def talk(socket: web.WebSocketResponse) -> None:
        await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))
        received.append((await socket.receive()).type)

    async with relay(talk) as url:
        await run(url, echo, 1)

    assert received[0] in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING}


@pytest.mark.parametrize(
    "frame",
    [b"\xff", serialize(["ask", 1, "/"]), bytes(ASK_BYTES_MAX + 1), "text"],
    ids=["noise", "short", "oversize", "text"],
)
async def test_a_frame_in_another_form_ends_the_link_and_it_is_opened_again(
    frame: bytes | str,
) -> None:
    answers: list[LinkAnswer] = []

    async def bad(socket: web.WebSocketResponse) -> None:
        await prove(socket)
        await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))
        await socket.receive()

    async def good(socket: web.WebSocketResponse) -> None:
        await prove(socket)
        answers.append(await ask(socket, 1, "/x", b""))

    async with relay(bad, good) as url:
        await run(url, echo, 2)

    assert [one.status for one in answers] == [200]


async def test_an_answer_that_fails_or_is_too_long_does_not_end_the_link(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: list[LinkAnswer] = []

    async def talk(socket: web.WebSocketResponse) -> None:
        await prove(socket)
        for number, path in enumerate(("/fails", "/long", "/good")):
            answers.append(await ask(socket, number, path, b""))

    async def answer(path: str, _: bytes) -> Answer:
        if path == "/fails":
            raise RuntimeError("disk is full")
        return Answer(200, bytes(WITNESS_ANSWER_BYTES_MAX + (path == "/long")))

    async with relay(talk) as url:
        await run(url, answer, 1)

    assert [one.status for one in answers] == [500, 413, 200]
    assert b"disk" not in answers[0].body
    assert "request of the relay failed" in caplog.text


async def test_a_flood_of_questions_is_answered_a_few_at_a_time() -> None:
    """[B-11]"""
    at_once: list[int] = []
    now = 0

    async def talk(socket: web.WebSocketResponse) -> None:
        await prove(socket)
        count = 5 * WITNESS_LINK_ASKS_MAX
        for number in range(count):
            await socket.send_bytes(Ask(number, "/", b"").serialize())
        for _ in range(count):
            LinkAnswer.parse(await socket.receive_bytes())

    async def answer(_path: str, _body: bytes) -> Answer:
        nonlocal now
        now += 1
        at_once.append(now)
        for _ in range(3):
            await asyncio.sleep(0)
        now -= 1
        return Answer(200, b"")

    async with relay(talk) as url:
        await run(url, answer, 1)

    assert max(at_once) <= WITNESS_LINK_ASKS_MAX
    assert len(at_once) == 5 * WITNESS_LINK_ASKS_MAX


async def test_a_link_that_dies_before_the_answer_costs_nothing_else() -> None:
    asked = asyncio.Event()

    async def dies(socket: web.WebSocketResponse) -> None:
        await prove(socket)
        await socket.send_bytes(Ask(1, "/", b"").serialize())
        await asked.wait()

    async def answer(_path: str, _body: bytes) -> Answer:
        asked.set()
        for _ in range(50):
            await asyncio.sleep(0)
        return Answer(200, b"late")

    async with relay(dies, dies) as url:
        assert await run(url, answer, 2) == [1, 1]
