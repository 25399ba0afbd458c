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
from collections.abc import Iterable, Sequence
from struct import Struct
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
CHUNK_ITEMS: Final = 500
FLUSH_BYTES_MAX: Final = 16_384
BUFFERED_BYTES_MAX: Final = 65_536
DRAIN_PAUSE_SECONDS_MAX: Final = 0.1
HELD_FRAMES_MAX: Final = 256
HELD_BYTES_MAX: Final = 2_097_152
_CLOSE_CODES: Final = {
    "draining": WSCloseCode.GOING_AWAY,
    "busy": WSCloseCode.TRY_AGAIN_LATER,
    "quota": WSCloseCode.TRY_AGAIN_LATER,
    "internal": WSCloseCode.INTERNAL_ERROR,
}
_NUMBER_MAX: Final = (1 << 32) - 1

# The last fragment of a binary message, which is all of it; then lengths of 7, 16 or 64 bits.
_BINARY: Final = 0x82
_SHORT_MAX: Final = 125
_MEDIUM_MAX: Final = 65_535
_MEDIUM_HEAD: Final = Struct(">BBH")
_LONG_HEAD: Final = Struct(">BBQ")
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
        if request.transport is None:
            raise ConnectionResetError("connection is closed")
        await Session(context, socket, request.transport, caller, trace_of(request)).serve()
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
        self,
        context: Context,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        caller: Caller,
        trace: str,
    ) -> None:
        """Start with nothing sent and nothing followed; the transport is that of the socket."""
        self._context: Final = context
        self._socket: Final = socket
        self._transport: Final = transport
        self._caller: Final = caller
        self._trace: Final = trace
        self._window: Final = asyncio.Semaphore(WINDOW)
        self._wake: Final = asyncio.Event()
        self._answers: Final[deque[bytes]] = deque()
        self._items: Final = Held(is_dense=True)
        self._receipts: Final = Held(is_dense=False)
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

    def forget(self) -> None:
        """Read the envelopes that wait here from the store: copies were erased."""
        self._items.forget()
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
            while await self._write_some():
                pass

    async def _write_some(self) -> bool:
        """Write the most urgent things, or get more to write; give whether there was anything."""
        if self._refused is not None:
            raise self._refused
        if frames := self._take_frames():
            await self._send(frames)
            return True
        if self._is_ending and not self._unanswered:
            raise Refused("draining", "the relay is stopping", retry_after=2)
        return self._is_following and (await self._read_items() or await self._read_receipts())

    def _take_frames(self) -> list[bytes]:
        """Take what is written at once: answers, then envelopes, then receipts."""
        frames: list[bytes] = []
        size = 0
        while self._answers and size < FLUSH_BYTES_MAX:
            frames.append(self._answers.popleft())
            size += len(frames[-1])
            self._window.release()
        for held in (self._items, self._receipts) if self._is_following else ():
            while size < FLUSH_BYTES_MAX and (frame := held.take_next()) is not None:
                frames.append(frame)
                size += len(frame)
        return frames

    async def _read_items(self) -> bool:
        held = self._items
        if not held.is_behind:
            return False
        held.is_behind = False
        page = await self._context.store.mailbox(self._caller.desk, held.cursor, CHUNK_ITEMS)
        return held.fill([(item.counter, item_frame(item)) for item in page])

    async def _read_receipts(self) -> bool:
        held = self._receipts
        if not held.is_behind:
            return False
        held.is_behind = False
        page = await self._context.store.receipts(self._caller.desk, held.cursor, CHUNK_ITEMS)
        return held.fill(
            [(row.leaf_index, receipt_frame(row)) for row in page if row.leaf_index is not None]
        )

    async def _send(self, frames: Sequence[bytes]) -> None:
        """Write frames as one piece, and wait while too much of what was written has not gone.

        A system call for each frame would cost more than all else that is done to it here.
        """
        if self._socket.closed or self._transport.is_closing():
            raise ConnectionResetError("connection is closing")
        self._transport.write(
            b"".join([part for frame in frames for part in (_head(frame), frame)])
        )
        if self._transport.get_write_buffer_size() > BUFFERED_BYTES_MAX:
            # SPEC: every wait has a bound. A reader that is too slow is closed.
            async with asyncio.timeout(SEND_SECONDS_MAX):
                await self._drain()

    async def _drain(self) -> None:
        pause = 0.0
        while self._transport.get_write_buffer_size() > BUFFERED_BYTES_MAX:
            await asyncio.sleep(pause)
            pause = min(2 * pause + 0.001, DRAIN_PAUSE_SECONDS_MAX)


class Held:
    """Frames that wait in memory to be written, by their place; bounded.

    Attributes:
        cursor: Place of the last one taken.
        is_behind: Whether the next must be read from the store.
    """

    __slots__ = ("_frames", "_is_dense", "_size", "_stored", "cursor", "is_behind")

    def __init__(self, *, is_dense: bool) -> None:
        """Hold nothing.

        Args:
            is_dense: Whether places have no gaps, so that a gap shows that something was missed.
        """
        self._frames: Final[deque[tuple[int, bytes]]] = deque()
        self._stored: Final[deque[tuple[int, bytes]]] = deque()
        self._is_dense: Final = is_dense
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

    def forget(self) -> None:
        """Let go of everything; the store is read from the cursor on."""
        self._frames.clear()
        self._stored.clear()
        self._size = 0
        self.is_behind = True

    def fill(self, page: Iterable[tuple[int, bytes]]) -> bool:
        """Hold a page of the store after the cursor, all before written; give whether it had any.

        Only an empty page means that there is no more.
        """
        self._stored.extend(page)
        self.is_behind = self.is_behind or bool(self._stored)
        return bool(self._stored)

    def take_next(self) -> bytes | None:
        """Give the frame after the cursor; None when memory does not have it."""
        if self._stored:
            self.cursor, frame = self._stored.popleft()
            return frame
        # Without gaps memory shows itself whether it has the next one.
        while self._frames and (self._is_dense or not self.is_behind):
            place, frame = self._frames[0]
            if self._is_dense and place > self.cursor + 1:
                self.is_behind = True
                return None
            self._frames.popleft()
            self._size -= len(frame)
            if place > self.cursor:
                self.cursor = place
                return frame
        return None


def _head(frame: bytes) -> bytes:
    """Give the head of a WebSocket frame of bytes, whole and without a mask (RFC 6455, 5.2)."""
    size = len(frame)
    if size <= _SHORT_MAX:
        return bytes((_BINARY, size))
    if size <= _MEDIUM_MAX:
        return _MEDIUM_HEAD.pack(_BINARY, _SHORT_MAX + 1, size)
    return _LONG_HEAD.pack(_BINARY, _SHORT_MAX + 2, size)


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
