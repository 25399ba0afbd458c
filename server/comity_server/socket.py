"""The WebSocket: one connection, authenticated once, over which a desk sends and follows.

Frames are binary and hold one array each::

    client  ["token", jwt]                          first, within ten seconds
    relay   ["ready"]
    client  ["send", n, upload]
    relay   ["accepted", n, promise, signature]     or ["refused", n, problem as JSON text]
    client  ["follow", after]
    relay   ["item", counter, leaf index, core, signature, body, audit, wrap, proof]
    relay   ["receipt", leaf index, payload, signature]

Rules:

* [R-6] A removed device's socket is closed at once.
* [R-14] A mailbox is served only to its desk.
* [R-15] Frames, queues and waits have bounds: 16 uploads unanswered, what is pushed out of memory
  is dropped and read from the store instead, a reader that is too slow is closed.
"""

import asyncio
from collections import deque
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import ComityError, MalformedError
from comity_protocol.fields import array_of, bytes_of, integer_of, text_of
from comity_protocol.limits import UPLOAD_BYTES_MAX
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.receipts import Signed
from comity_protocol.wire import SOCKET
from comity_server import access, observe, tokens
from comity_server.checks import Caller
from comity_server.context import CONTEXT, Context, trace_of
from comity_server.hub import item_frame, receipt_frame
from comity_server.problems import Refused, of_error, to_json
from comity_server.query import require_none
from comity_server.store import StoreError

WINDOW: Final = 16
FRAME_BYTES_MAX: Final = UPLOAD_BYTES_MAX + 64
TOKEN_SECONDS_MAX: Final = 10.0
SEND_SECONDS_MAX: Final = 20.0
HEARTBEAT_SECONDS: Final = 25.0
CLOSE_SECONDS_MAX: Final = 2.0
CHUNK_ITEMS: Final = 64
HELD_FRAMES_MAX: Final = 256
HELD_BYTES_MAX: Final = 2_097_152
_CLOSE_CODES: Final = {
    "draining": WSCloseCode.GOING_AWAY,
    "busy": WSCloseCode.TRY_AGAIN_LATER,
    "quota": WSCloseCode.TRY_AGAIN_LATER,
    "internal": WSCloseCode.INTERNAL_ERROR,
}
_NUMBER_MAX: Final = (1 << 32) - 1
_READY: Final = serialize(["ready"])


async def get_socket(request: web.Request) -> web.WebSocketResponse:
    """Serve one connection until either side closes it."""
    context = request.app[CONTEXT]
    require_none(request)
    if context.is_stopping:
        raise Refused("draining", "the relay is stopping", retry_after=2)
    # SPEC: every queue has a bound.
    if context.sockets.total() >= context.settings.sockets:
        raise Refused("busy", "too many sockets are open", retry_after=5)
    socket = web.WebSocketResponse(
        timeout=CLOSE_SECONDS_MAX,
        receive_timeout=None,
        heartbeat=HEARTBEAT_SECONDS,
        max_msg_size=FRAME_BYTES_MAX,
        compress=False,
    )
    if not socket.can_prepare(request):
        raise Refused("bad-request", "this path speaks WebSocket only")
    await socket.prepare(request)
    # Counted before the token too, so that strangers cannot open more than the bound.
    counted = b""
    context.sockets[counted] += 1
    try:
        caller = await _authenticate(context, socket)
        context.sockets[counted] -= 1
        counted = caller.device
        context.sockets[counted] += 1
        _require_room(context, counted)
        await Session(context, socket, caller, trace_of(request)).serve()
    except Refused as refused:
        await _close(context, socket, refused, trace_of(request))
    except StoreError as error:
        # Not left to the middlewares: an answer in HTTP would be garbage in a WebSocket.
        observe.alarm("store-failed", error, trace=trace_of(request))
        busy = Refused("busy", "the store could not be asked", retry_after=2)
        await _close(context, socket, busy, trace_of(request))
    except (ConnectionError, TimeoutError):
        context.metrics.sockets_closed.labels("timeout").inc()
    finally:
        context.sockets[counted] -= 1
        if not context.sockets[counted]:
            del context.sockets[counted]
        context.metrics.sockets.set(context.sockets.total())
    return socket


async def _authenticate(context: Context, socket: web.WebSocketResponse) -> Caller:
    try:
        async with asyncio.timeout(TOKEN_SECONDS_MAX):
            message = await socket.receive()
    except TimeoutError:
        raise Refused("timeout", "no token came") from None
    if message.type is not WSMsgType.BINARY:
        raise Refused("unauthenticated", "the first frame is not a token")
    try:
        name, token = array_of(parse(message.data), "frame", low=2, high=2)
        text_of(name, "frame, name", choices=["token"])
        jwt = text_of(token, "frame, token", bytes_max=tokens.TOKEN_CHARACTERS_MAX)
    except MalformedError:
        raise Refused("unauthenticated", "the first frame is not a token") from None
    asking = access.caller_of_token(context, jwt, method="GET", target=SOCKET)
    tokens.check_body(asking.claims, b"")
    await socket.send_bytes(_READY)
    context.metrics.sockets.set(context.sockets.total())
    return asking.caller


def _require_room(context: Context, device: bytes) -> None:
    # SPEC: every queue has a bound.
    if context.sockets[device] > context.settings.device_sockets:
        raise Refused("quota", "the device has too many sockets open", retry_after=5)


async def _close(
    context: Context, socket: web.WebSocketResponse, refused: Refused, trace: str
) -> None:
    """Say why, and close."""
    context.metrics.sockets_closed.labels(refused.code).inc()
    if socket.closed:
        return
    try:
        async with asyncio.timeout(SEND_SECONDS_MAX):
            await socket.send_bytes(_refusal(0, refused, trace))
            code = _CLOSE_CODES.get(refused.code, WSCloseCode.POLICY_VIOLATION)
            await socket.close(code=code, message=refused.code.encode())
    except (ConnectionError, TimeoutError):
        return


class Session:
    """One authenticated connection; a ``hub.Follower`` once it follows."""

    def __init__(
        self, context: Context, socket: web.WebSocketResponse, caller: Caller, trace: str
    ) -> None:
        """Start with nothing sent and nothing followed."""
        self._context: Final = context
        self._socket: Final = socket
        self._caller: Final = caller
        self._trace: Final = trace
        self._window: Final = asyncio.Semaphore(WINDOW)
        self._wake: Final = asyncio.Event()
        self._answers: Final[deque[bytes]] = deque()
        self._items: Final = Held()
        self._receipts: Final = Held()
        self._is_following = False
        self._refused: Refused | None = None
        self._is_ending = False
        self._unanswered = 0

    async def serve(self) -> None:
        """Read and write until one of them ends.

        Raises:
            Refused: The relay closes the connection, and why.
        """
        self._context.relay.hub.attend(self)
        reader = asyncio.create_task(self._read_forever())
        writer = asyncio.create_task(self._write_forever())
        try:
            done, _ = await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._context.relay.hub.leave(self._caller.desk, self)
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
        for task in done:
            task.result()

    # hub.Follower.

    def take_item(self, counter: int, frame: bytes) -> None:
        """Hold an envelope until the writer comes to it."""
        self._items.put(counter, frame)
        self._wake.set()

    def take_receipt(self, index: int, frame: bytes) -> None:
        """Hold a receipt, likewise."""
        self._receipts.put(index, frame)
        self._wake.set()

    def look(self) -> None:
        """Read from the store next."""
        self._items.is_behind = self._receipts.is_behind = True
        self._wake.set()

    def recheck(self) -> None:
        """Close if the device was removed."""
        # SPEC: a removed device's socket is closed at once.
        if not self._context.members.is_active(self._caller.device):
            self._refused = Refused("not-active", "the device is not active in its desk")
            self._wake.set()

    def end(self) -> None:
        """Close, because the relay stops; what waits for a promise gets it first."""
        self._is_ending = True
        self._wake.set()

    # Reading.

    async def _read_forever(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.BINARY:
                raise Refused("bad-request", "a frame is not binary")
            # SPEC: a removed device's next request fails.
            access.require_still_active(self._context, self._caller)
            try:
                await self._take_frame(parse(message.data))
            except ComityError as error:
                raise of_error(error) from error

    async def _take_frame(self, value: Value) -> None:
        name, *arguments = array_of(value, "frame", low=2, high=3)
        match text_of(name, "frame, name", choices=["send", "follow"]), arguments:
            case "send", [number, upload]:
                await self._take_upload(
                    integer_of(number, "frame, number", high=_NUMBER_MAX),
                    bytes_of(upload, "frame, upload", high=UPLOAD_BYTES_MAX),
                )
            case "follow", [after]:
                self._follow(integer_of(after, "frame, counter", high=SIZE_MAX))
            case _:
                raise MalformedError("frame has a part too many or too few")

    async def _take_upload(self, number: int, upload: bytes) -> None:
        # SPEC: every queue has a bound. Nothing more is read while the window is full.
        await self._window.acquire()
        try:
            promise = self._context.relay.offer_envelope(upload, self._caller)
        except (ComityError, Refused) as error:
            self._answer(_refusal(number, _as_refused(error), self._trace))
            return
        self._unanswered += 1
        promise.add_done_callback(lambda done: self._answer_promise(number, done))

    def _answer_promise(self, number: int, done: "asyncio.Future[Signed]") -> None:
        self._unanswered -= 1
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            signed = done.result()
            self._answer(serialize(["accepted", number, signed.payload, signed.signature]))
        else:
            self._answer(_refusal(number, _as_refused(error), self._trace))

    def _answer(self, frame: bytes) -> None:
        self._answers.append(frame)
        self._wake.set()

    def _follow(self, after: int) -> None:
        if self._is_following:
            raise MalformedError("frame asks to follow a second time")
        self._is_following = True
        self._items.cursor, self._items.is_behind = after, True
        self._receipts.cursor = self._context.relay.size - 1
        # SPEC: a mailbox is served only to its desk.
        self._context.relay.hub.join(self._caller.desk, self)
        self._wake.set()

    # Writing.

    async def _write_forever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while await self._write_one():
                pass

    async def _write_one(self) -> bool:
        """Write the most urgent thing; give whether there was one."""
        if self._refused is not None:
            raise self._refused
        if self._answers:
            await self._send(self._answers.popleft())
            self._window.release()
            return True
        if self._is_ending and not self._unanswered:
            raise Refused("draining", "the relay is stopping", retry_after=2)
        if not self._is_following:
            return False
        return await self._write_item() or await self._write_receipt()

    async def _write_item(self) -> bool:
        held = self._items
        frame = held.take_next(dense=True)
        if frame is not None:
            await self._send(frame)
            return True
        if not held.is_behind:
            return False
        held.is_behind = False
        page = await self._context.store.mailbox(self._caller.desk, held.cursor, CHUNK_ITEMS)
        for item in page:
            await self._send(item_frame(item))
            held.cursor = item.counter
        # Only an empty page means that there is no more.
        held.is_behind = held.is_behind or bool(page)
        return held.is_behind

    async def _write_receipt(self) -> bool:
        held = self._receipts
        frame = None if held.is_behind else held.take_next(dense=False)
        if frame is not None:
            await self._send(frame)
            return True
        if not held.is_behind:
            return False
        held.is_behind = False
        page = await self._context.store.receipts(self._caller.desk, held.cursor, CHUNK_ITEMS)
        for row in page:
            await self._send(receipt_frame(row))
            held.cursor = held.cursor if row.leaf_index is None else row.leaf_index
        # Only an empty page means that there is no more.
        held.is_behind = held.is_behind or bool(page)
        return held.is_behind

    async def _send(self, frame: bytes) -> None:
        if self._refused is not None:
            raise self._refused
        # SPEC: every wait has a bound. A reader that is too slow is closed.
        async with asyncio.timeout(SEND_SECONDS_MAX):
            await self._socket.send_bytes(frame)


class Held:
    """Frames that wait in memory to be written, by their place; bounded.

    Attributes:
        cursor: Place of the last one written.
        is_behind: Whether the next must be read from the store.
    """

    __slots__ = ("_frames", "_size", "cursor", "is_behind")

    def __init__(self) -> None:
        """Hold nothing."""
        self._frames: Final[deque[tuple[int, bytes]]] = deque()
        self._size = 0
        self.cursor = 0
        self.is_behind = False

    def put(self, place: int, frame: bytes) -> None:
        """Hold a frame; when there are too many, forget all of them and read the store later."""
        # SPEC: every queue has a bound.
        if len(self._frames) >= HELD_FRAMES_MAX or self._size + len(frame) > HELD_BYTES_MAX:
            self._frames.clear()
            self._size = 0
            self.is_behind = True
            return
        self._frames.append((place, frame))
        self._size += len(frame)

    def take_next(self, *, dense: bool) -> bytes | None:
        """Give the frame after the cursor; None when memory does not have it.

        Args:
            dense: Whether places have no gaps, so that a gap shows that something was missed.
        """
        while self._frames:
            place, frame = self._frames[0]
            if place > self.cursor and dense and place != self.cursor + 1:
                self.is_behind = True
                return None
            self._frames.popleft()
            self._size -= len(frame)
            if place > self.cursor:
                self.cursor = place
                return frame
        return None


def _refusal(number: int, refused: Refused, trace: str) -> bytes:
    return serialize(["refused", number, to_json(refused, trace).decode()])


def _as_refused(error: BaseException) -> Refused:
    match error:
        case Refused():
            return error
        case ComityError():
            return of_error(error)
        case _:
            observe.alarm("socket-failed", error)
            return Refused("internal", "the relay could not do it")
