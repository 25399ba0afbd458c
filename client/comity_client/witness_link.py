"""Calls the relay, where the relay cannot call this witness, and answers what it asks.

The link is opened again whenever it ends, after a pause that grows up to a bound. What goes over it
is in `comity_protocol.witness_link`; what is answered, in `witness`.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import (
    ClientError,
    ClientSession,
    ClientWebSocketResponse,
    ClientWSTimeout,
    DummyCookieJar,
    TCPConnector,
    WSMsgType,
)

from comity_client.witness_rule import Answer
from comity_client.witness_state import WitnessKey
from comity_protocol.errors import ComityError, MalformedError
from comity_protocol.identifiers import DeploymentId
from comity_protocol.limits import (
    WITNESS_ANSWER_BYTES_MAX,
    WITNESS_LINK_ASKS_MAX,
    WITNESS_LINK_PAUSE_SECONDS_MAX,
    WITNESS_LINK_SECONDS_MAX,
)
from comity_protocol.wire import WITNESS_LINK
from comity_protocol.witness_link import ASK_BYTES_MAX, Ask, Challenge, LinkAnswer, Proof

PAUSE_SECONDS_MIN: Final = 1.0
HEARTBEAT_SECONDS: Final = 240.0
"""A link that carries nothing for so long is asked whether it lives, and given up if not.

Below the five minutes after which common gateways forget a connection; more often would cost a
light witness more than all cosignatures.
"""

CLOSE_SECONDS_MAX: Final = 2.0

Answerer = Callable[[str, bytes], Awaitable[Answer]]
"""Answers a request: path with query, and body."""

Sleep = Callable[[float], Awaitable[None]]

logger = logging.getLogger(__name__)


class Link:
    """One witness's link to one relay."""

    def __init__(
        self,
        url: str,
        key: WitnessKey,
        deployment: DeploymentId,
        answer: Answerer,
        *,
        sleep: Sleep = asyncio.sleep,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take the relay's address and what answers; nothing is opened yet."""
        self._url: Final = url + WITNESS_LINK
        self._key: Final = key
        self._deployment: Final = deployment
        self._answer: Final = answer
        self._sleep: Final = sleep
        self._tls: Final = tls
        self._was_asked = False

    async def run(self) -> None:
        """Keep a link open for ever."""
        pause = PAUSE_SECONDS_MIN
        connector = TCPConnector(ssl=self._tls or True, limit=2)
        async with ClientSession(connector=connector, cookie_jar=DummyCookieJar()) as session:
            while True:
                self._was_asked = False
                try:
                    await self._once(session)
                except (ClientError, ComityError, TimeoutError, OSError) as error:
                    logger.info("link to the relay ended: %s", type(error).__name__)
                # Only a link over which the relay asked something was worth having.
                pause = PAUSE_SECONDS_MIN if self._was_asked else pause
                await self._sleep(pause)
                pause = min(2 * pause, WITNESS_LINK_PAUSE_SECONDS_MAX)

    async def _once(self, session: ClientSession) -> None:
        """Open a link and answer until it ends."""
        async with asyncio.timeout(WITNESS_LINK_SECONDS_MAX):
            socket = await session.ws_connect(
                self._url,
                timeout=ClientWSTimeout(ws_close=CLOSE_SECONDS_MAX),
                heartbeat=HEARTBEAT_SECONDS,
                max_msg_size=ASK_BYTES_MAX,
                compress=0,
            )
        async with socket:
            async with asyncio.timeout(WITNESS_LINK_SECONDS_MAX):
                challenge = Challenge.parse(await _receive(socket))
                proof = Proof.make(
                    self._key.name, self._key.signing_key, self._deployment, challenge
                )
                await socket.send_bytes(proof.serialize())
            await self._serve(socket)

    async def _serve(self, socket: ClientWebSocketResponse) -> None:
        """Answer requests, several at once, until the relay closes the link."""
        slots = asyncio.Semaphore(WITNESS_LINK_ASKS_MAX)
        async with asyncio.TaskGroup() as group:
            try:
                async for message in socket:
                    if message.type is not WSMsgType.BINARY:
                        raise MalformedError("frame is not binary")
                    ask = Ask.parse(message.data)
                    self._was_asked = True
                    await slots.acquire()
                    task = group.create_task(self._reply(socket, ask))
                    task.add_done_callback(lambda _: slots.release())
            except ComityError as error:
                logger.warning("alarm: the relay does not keep to the form of a link: %s", error)

    async def _reply(self, socket: ClientWebSocketResponse, ask: Ask) -> None:
        try:
            answer = await self._answer(ask.path, ask.body)
        except Exception:
            # As over HTTP: what fails here must not end the link, and says nothing of itself.
            logger.exception("request of the relay failed")
            answer = Answer.say(HTTPStatus.INTERNAL_SERVER_ERROR, "the witness failed")
        if len(answer.body) > WITNESS_ANSWER_BYTES_MAX:
            answer = Answer.say(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "answer is too long for a link"
            )
        frame = LinkAnswer(ask.number, answer.status, answer.content_type, answer.body).serialize()
        try:
            await socket.send_bytes(frame)
        except (ClientError, OSError):
            logger.info("link to the relay ended before an answer")


async def _receive(socket: ClientWebSocketResponse) -> bytes:
    message = await socket.receive()
    if message.type is not WSMsgType.BINARY:
        raise MalformedError("relay does not begin with a challenge")
    data: bytes = message.data
    return data
