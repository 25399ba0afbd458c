"""Desks that are busy: they send without pause, many envelopes in flight, and never give up.

What got no promise is sent again, the same bytes under the same id, until it has one: over a
connection that broke, to a relay that was killed, to a database that is gone. One in ten of what
has its promise is sent again as well, and must get the same promise. A `Ledger` remembers what the
relay has put in writing, to be held against the relay afterwards.
"""

import asyncio
import hashlib
import json
import secrets
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import ClientError, ClientSession, ClientTimeout, ClientWebSocketResponse, WSMsgType

from comity_protocol.core import Core, core_hash
from comity_protocol.encoding import parse, serialize
from comity_protocol.envelope import Thread
from comity_protocol.identifiers import DeskId, EnvelopeId
from comity_protocol.leaves import receipt_hash
from comity_protocol.receipts import Receipt, Signed, sign_receipt, verify_promise
from comity_protocol.statements import SignedStatement
from support.relay import base64url, sign_token
from support.world import Member, World, lead

RESENT_ONE_IN: Final = 10
REMEMBERED: Final = 64
RECEIPT_ENVELOPES: Final = 8
_PAUSE_SECONDS: Final = 0.02
_ANSWER_SECONDS_MAX: Final = 45.0
_TIMEOUT: Final = ClientTimeout(total=_ANSWER_SECONDS_MAX)
PASSING: Final = frozenset({"busy", "draining", "use-nonce", "quota", "timeout"})
"""Refusals after which the same may be sent again; others must not come at all."""


class AgainError(Exception):
    """The relay said in so many words that the same may be sent again."""


@dataclass(slots=True)
class Ledger:
    """What the relay has promised, and what it has shown.

    Attributes:
        envelopes: Envelopes that were promised: id to core.
        receipts: Payloads of receipts that were promised.
        statements: Hashes of statements that were promised.
        promises: What was promised, by hash, with the promise.
        repeated: How many were sent again although they were promised.
        passing: How often the relay asked to try again, by code.
        notes: Every checkpoint that anyone was shown.
        acknowledged: Called at each promise.
    """

    envelopes: dict[EnvelopeId, bytes] = field(default_factory=dict)
    receipts: list[bytes] = field(default_factory=list)
    statements: list[bytes] = field(default_factory=list)
    promises: dict[bytes, Signed] = field(default_factory=dict)
    repeated: int = 0
    passing: dict[str, int] = field(default_factory=dict)
    notes: set[bytes] = field(default_factory=set)
    acknowledged: Callable[[], None] = lambda: None

    def promised(self, what: bytes, promise: Signed) -> None:
        """Keep a promise; for one thing there is one."""
        # A known id returns the original promise.
        assert self.promises.setdefault(what, promise) == promise, "a second promise differs"
        self.acknowledged()


@dataclass(slots=True)
class Line:
    """Where the relay is now, and whether the senders may go on.

    Attributes:
        url: Address of the running relay; changes with each start.
        seen: Hash of a checkpoint that the relay has published.
        nonce: The newest that the relay gave out.
        passing: Refusals that may come.
    """

    world: World
    ledger: Ledger
    session: ClientSession
    seen: bytes = bytes(32)
    url: str = ""
    is_closing: bool = False
    nonce: str = ""
    passing: frozenset[str] = PASSING

    def token(self, member: Member, method: str, path: str, body: bytes = b"") -> str:
        """Make a request token with the newest nonce."""
        claims = {
            "aud": self.world.genesis.deployment.hex(),
            "htm": method,
            "htu": path,
            "bh": base64url(hashlib.sha256(body).digest()),
            "n": self.nonce,
            "jti": secrets.token_urlsafe(16),
        }
        return sign_token(member, claims)

    async def post(self, path: str, body: bytes, member: Member | None = None) -> Signed:
        """Post once; give the promise.

        Raises:
            AgainError: The relay asks to send it again.
            ClientError, OSError, TimeoutError: Nobody knows whether it arrived.
        """
        headers = {"Content-Type": "application/cbor"}
        if member is not None:
            headers["Authorization"] = f"Comity {self.token(member, 'POST', path, body)}"
        async with self.session.post(
            self.url + path, data=body, headers=headers, timeout=_TIMEOUT
        ) as response:
            answer = await response.read()
            self.nonce = response.headers.get("Comity-Nonce", self.nonce)
        if response.status != 200:
            self.refuse(answer)
        return Signed.parse(answer)

    def refuse(self, problem: bytes | str) -> None:
        """Take notice of a refusal; only passing ones may come at all.

        Raises:
            AgainError: Always.
        """
        code = json.loads(problem)["code"]
        assert code in self.passing, problem
        self.ledger.passing[code] = self.ledger.passing.get(code, 0) + 1
        raise AgainError(code)

    async def insist(self, send: Callable[[], Awaitable[Signed]]) -> Signed:
        """Send until it is promised."""
        while True:
            try:
                return await send()
            except AgainError as again:
                if str(again) == "use-nonce":
                    continue
            except (ClientError, OSError, TimeoutError):
                pass
            await asyncio.sleep(_PAUSE_SECONDS)


class BusyDesk(ABC):
    """One device that keeps several envelopes in flight to one other desk."""

    def __init__(self, line: Line, member: Member, to: DeskId, *, in_flight: int) -> None:
        self.line: Final = line
        self.member: Final = member
        self.to: Final = to
        self._in_flight: Final = in_flight
        self._thread: Thread | None = None
        self._recent: Final[deque[tuple[EnvelopeId, bytes]]] = deque(maxlen=REMEMBERED)

    async def run(self) -> None:
        """Send until the line closes; what was begun is finished."""
        await self._send_new()  # The wraps of the first are what later ones refer to.
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._in_flight):
                tasks.create_task(self._keep_sending())

    @abstractmethod
    async def transmit(self, upload: bytes) -> Signed:
        """Send once."""

    async def _keep_sending(self) -> None:
        while not self.line.is_closing:
            if secrets.randbelow(RESENT_ONE_IN) == 0:
                await self._send_again()
            else:
                await self._send_new()

    async def _send_new(self) -> None:
        # One in four with wraps of its own, the others by reference.
        thread = self._thread if secrets.randbelow(4) else None
        sealed = self.line.world.seal_act(
            self.member, self.to, lead(), thread=thread, seen=self.line.seen
        )
        upload, core = sealed.upload.serialize(), sealed.upload.core
        what = core_hash(core)
        promise = await self.line.insist(lambda: self.transmit(upload))
        verify_promise(promise, self.line.world.genesis.relay_key, what)
        self.line.ledger.envelopes[sealed.id] = core
        self.line.ledger.promised(what, promise)
        self._thread = sealed.thread
        self._recent.append((sealed.id, upload))

    async def _send_again(self) -> None:
        id_, upload = secrets.choice(self._recent)
        promise = await self.line.insist(lambda: self.transmit(upload))
        self.line.ledger.repeated += 1
        self.line.ledger.promised(core_hash(self.line.ledger.envelopes[id_]), promise)


class PostingDesk(BusyDesk):
    """Sends by POST."""

    async def transmit(self, upload: bytes) -> Signed:
        """Send once."""
        return await self.line.post("/v1/envelopes", upload, self.member)


class SocketDesk(BusyDesk):
    """Sends over a WebSocket, follows its mailbox there, and confirms what it gets."""

    def __init__(self, line: Line, member: Member, to: DeskId, *, in_flight: int) -> None:
        super().__init__(line, member, to, in_flight=in_flight)
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Signed]] = {}
        self._socket: ClientWebSocketResponse | None = None
        self._cursor = 0
        self._to_confirm: list[tuple[EnvelopeId, bytes]] = []

    async def run(self) -> None:
        """Send, read what comes back and confirm it, until the line closes."""
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(self._read_forever())
            async with asyncio.TaskGroup() as work:
                work.create_task(super().run())
                work.create_task(self._confirm_until_closing())
            reader.cancel()

    async def transmit(self, upload: bytes) -> Signed:
        """Send once."""
        socket = self._socket
        if socket is None or socket.closed:
            raise ConnectionError("no socket")
        self._number += 1
        number = self._number
        answer: asyncio.Future[Signed] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            await socket.send_bytes(serialize(["send", number, upload]))
            async with asyncio.timeout(_ANSWER_SECONDS_MAX):
                return await answer
        finally:
            del self._waiting[number]

    async def _read_forever(self) -> None:
        while True:
            with suppress(ClientError, OSError, TimeoutError, AgainError):
                await self._read_one_connection()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("the socket closed"))
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _read_one_connection(self) -> None:
        line = self.line
        async with line.session.get(line.url + "/v1/nonce", timeout=_TIMEOUT) as response:
            line.nonce = response.headers["Comity-Nonce"]
        async with line.session.ws_connect(line.url + "/v1/socket") as socket:
            await socket.send_bytes(
                serialize(["token", line.token(self.member, "GET", "/v1/socket")])
            )
            await socket.send_bytes(serialize(["follow", self._cursor]))
            async for message in socket:
                if message.type is not WSMsgType.BINARY:
                    raise ConnectionError("not binary")
                frame = parse(message.data)
                assert isinstance(frame, list)
                if frame == ["ready"]:
                    self._socket = socket
                else:
                    self._take(frame)

    def _take(self, frame: list[Any]) -> None:
        match frame:
            case ["accepted", number, payload, signature]:
                self._resolve(number, Signed(payload, signature))
            case ["refused", number, problem]:
                try:
                    self.line.refuse(problem)
                except AgainError as again:
                    if not number:
                        raise
                    self._resolve(number, again)
            case ["item", counter, _, core, *_]:
                # Over however many connections and lives of the relay: none missing, none twice.
                assert counter == self._cursor + 1, "a pushed counter has a gap or a repeat"
                self._cursor = counter
                arrived = Core.parse(core)
                if arrived.sender == self.to:
                    # Its sender may not have the promise yet, or have lost it with the relay.
                    self._to_confirm.append((arrived.id, core_hash(core)))
            case ["receipt", *_]:
                pass
            case _:
                raise AssertionError(f"unexpected frame {frame[0]}")

    def _resolve(self, number: int, result: Signed | Exception) -> None:
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return
        if isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    async def _confirm_until_closing(self) -> None:
        while not self.line.is_closing:
            if len(self._to_confirm) < RECEIPT_ENVELOPES:
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            held = tuple(sorted(self._to_confirm[:RECEIPT_ENVELOPES]))
            del self._to_confirm[:RECEIPT_ENVELOPES]
            await self._confirm(held)

    async def _confirm(self, held: tuple[tuple[EnvelopeId, bytes], ...]) -> None:
        line, member = self.line, self.member
        seq = line.world.directory.desk(member.desk).seq
        signed = sign_receipt(member.fast, Receipt(member.desk, member.id, seq, held, line.seen))
        body, what = signed.serialize(), receipt_hash(signed.payload)
        promise = await line.insist(lambda: line.post("/v1/receipts", body, member))
        verify_promise(promise, line.world.genesis.relay_key, what)
        line.ledger.receipts.append(signed.payload)
        line.ledger.promised(what, promise)


async def keep_turning(line: Line, desk: DeskId, pause_seconds: float) -> None:
    """Turn the epoch of a desk again and again, so that statements come between envelopes."""
    while not line.is_closing:
        line.world.turn(desk)
        await insist_on_statement(line, line.world.statements[-1][1])
        await asyncio.sleep(pause_seconds)


async def insist_on_statement(line: Line, signed: SignedStatement) -> None:
    """Post a statement until it is promised."""
    body = signed.serialize()
    promise = await line.insist(lambda: line.post("/v1/statements", body))
    verify_promise(promise, line.world.genesis.relay_key, signed.hash)
    line.ledger.statements.append(signed.hash)
    line.ledger.promised(signed.hash, promise)


async def keep_polling(line: Line) -> None:
    """Collect every checkpoint that the relay shows."""
    while not line.is_closing:
        with suppress(ClientError, OSError, TimeoutError):
            async with line.session.get(line.url + "/checkpoint", timeout=_TIMEOUT) as response:
                if response.status == 200:
                    line.ledger.notes.add(await response.read())
        await asyncio.sleep(_PAUSE_SECONDS)
