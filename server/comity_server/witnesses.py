"""Asks the witnesses: what they know, and to cosign.

The conversation is C2SP tlog-witness ``add-checkpoint``. Witnesses are asked in parallel, each with
a bound on time and on the size of its answer; one that is slow, silent or lying costs nothing but
its own cosignature. When the quorum is there, the others get a moment more.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import ClientError, ClientSession, ClientTimeout
from yarl import URL

from comity_protocol.errors import ComityError, VerificationError
from comity_protocol.limits import WITNESS_ANSWER_BYTES_MAX
from comity_protocol.signed_note import SignatureLine, VerifierKey
from comity_protocol.witnessing import (
    ADD_CHECKPOINT,
    ANCHOR_QUERY,
    AddCheckpoint,
    Cosigned,
    KnownSize,
    Refused,
    WitnessAnswer,
    parse_witness_answer,
)
from comity_server import observe
from comity_server.answers import read_answer
from comity_server.metrics import Metrics

TRIES_MAX: Final = 3
GRACE_SECONDS: Final = 0.25
"""How long the witnesses that are not needed for the quorum are waited for."""

Consistency = Callable[[int, int], Awaitable[Sequence[bytes]]]
"""Proves that the tree of the second size continues that of the first."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a witness answered, as it came; nothing in it is believed."""

    status: int
    content_type: str
    body: bytes


class Channel(Protocol):
    """A way to one witness: its address, or a link that it opened."""

    @property
    def host(self) -> str:
        """What it is called in log lines."""

    async def post(self, path: str, body: bytes) -> Reply:
        """Ask something.

        Raises:
            ClientError, TimeoutError, OSError, ComityError: There is no answer that can be read.
        """


class Address:
    """A witness that this relay calls over HTTP."""

    def __init__(self, url: str, session: ClientSession, seconds_max: float) -> None:
        """Take its submission prefix."""
        self._url: Final = url.rstrip("/")
        self._session: Final = session
        self._timeout: Final = ClientTimeout(total=seconds_max)

    @property
    def host(self) -> str:
        """See ``Channel.host``."""
        return URL(self._url).host or ""

    async def post(self, path: str, body: bytes) -> Reply:
        """See ``Channel.post``."""
        async with self._session.post(
            URL(self._url + path), data=body, timeout=self._timeout, allow_redirects=False
        ) as response:
            answer = await read_answer(response, WITNESS_ANSWER_BYTES_MAX)
            return Reply(response.status, response.headers.get("Content-Type", ""), answer)


class Witness:
    """One way to a witness and what it is known to have cosigned."""

    def __init__(
        self,
        channel: Channel,
        keys: Sequence[VerifierKey],
        metrics: Metrics,
        anchors: Sequence[VerifierKey] = (),
    ) -> None:
        """Take the way, and the keys of the pinned witnesses, one of which is its."""
        self.size: int | None = None
        self._channel: Final = channel
        self._keys: Final = keys
        self._anchors: Final = {key.name: key for key in anchors}
        self._metrics: Final = metrics

    @property
    def host(self) -> str:
        """What it is called in log lines."""
        return self._channel.host

    async def ask(self, note: bytes) -> int | None:
        """Ask for the size that it cosigned last; None when it does not say.

        Args:
            note: Something the log has stated before. A witness that knows nothing cosigns it.
        """
        answer = await self._post(AddCheckpoint(old_size=0, hashes=(), note=note), ADD_CHECKPOINT)
        match answer:
            case KnownSize(size=size):
                self.size = size
            case Cosigned():
                self.size = 0
            case _:
                return None
        return self.size

    async def cosign(
        self, note: bytes, size: int, consistency: Consistency, *, is_anchor: bool
    ) -> tuple[SignatureLine, ...]:
        """Ask to cosign, for an anchor as well if wanted; gives no line when it does not."""
        path = f"{ADD_CHECKPOINT}?{ANCHOR_QUERY}" if is_anchor else ADD_CHECKPOINT
        for _ in range(TRIES_MAX):
            old = self.size or 0
            if old > size:
                observe.alarm("witness-ahead", host=self.host, size=old, signed=size)
                # What one answer says is not held against it for ever: it is asked again.
                self.size = None
                return ()
            hashes = tuple(await consistency(old, size)) if old else ()
            answer = await self._post(AddCheckpoint(old_size=old, hashes=hashes, note=note), path)
            match answer:
                case Cosigned(line=line, anchor=anchor):
                    self.size = size
                    return (line,) if anchor is None else (line, anchor)
                case KnownSize(size=known) if known != old:
                    self.size = known
                case _:
                    return ()
        return ()

    async def _post(self, request: AddCheckpoint, path: str) -> WitnessAnswer | None:
        try:
            reply = await self._channel.post(path, request.serialize())
            answer = self._read(reply, request.note)
        except (ClientError, TimeoutError, OSError, ComityError) as error:
            self._metrics.witness_answers.labels("failed").inc()
            observe.event("witness-failed", host=self.host, error=type(error).__name__)
            return None
        self._metrics.witness_answers.labels(type(answer).__name__.lower()).inc()
        if isinstance(answer, Refused):
            observe.alarm("witness-refused", host=self.host, status=answer.status)
        return answer

    def _read(self, reply: Reply, note: bytes) -> WitnessAnswer:
        last: ComityError | None = None
        for key in self._keys:
            try:
                return parse_witness_answer(
                    status=reply.status,
                    content_type=reply.content_type,
                    body=reply.body,
                    note=note,
                    witness=key,
                    anchor=self._anchors.get(key.name),
                )
            except ComityError as error:
                last = error
        raise last or VerificationError("no witness is pinned")


class Witnesses:
    """All witnesses that this relay has a way to: an address, or a link that they opened."""

    def __init__(self, witnesses: Sequence[Witness] = ()) -> None:
        """Take those with an address."""
        self._called: Final = tuple(witnesses)
        self._linked: Final[dict[str, Witness]] = {}

    def link(self, name: str, witness: Witness) -> None:
        """Ask a witness over the link that it opened, instead of over an older one."""
        self._linked[name] = witness

    def unlink(self, name: str, witness: Witness) -> None:
        """Stop asking over a link, unless a newer one has its place already."""
        if self._linked.get(name) is witness:
            del self._linked[name]

    @property
    def _witnesses(self) -> tuple[Witness, ...]:
        return (*self._called, *self._linked.values())

    async def ask(self, note: bytes) -> list[int]:
        """Ask each for the size that it cosigned last; give the sizes of those who answered."""
        answers = await asyncio.gather(*(witness.ask(note) for witness in self._witnesses))
        return [size for size in answers if size is not None]

    async def cosign(
        self,
        note: bytes,
        size: int,
        consistency: Consistency,
        *,
        is_enough: Callable[[Collection[str]], bool],
        is_anchor: bool = False,
    ) -> list[SignatureLine]:
        """Ask all to cosign; give the lines of those who did, at most one a witness and key.

        Args:
            note: With the log's signature.
            size: Of the note.
            consistency: Proves what a witness asks for.
            is_enough: Whether the witnesses of these names are so many that the others are waited
                for no more than a moment.
            is_anchor: Whether to ask for ML-DSA-44 lines as well.
        """
        lines: dict[tuple[str, bytes], SignatureLine] = {}
        tasks = {
            asyncio.create_task(witness.cosign(note, size, consistency, is_anchor=is_anchor))
            for witness in self._witnesses
        }
        pending = set(tasks)
        deadline: float | None = None
        loop = asyncio.get_running_loop()
        try:
            while pending:
                left = None if deadline is None else max(0.0, deadline - loop.time())
                done, pending = await asyncio.wait(
                    pending, timeout=left, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    lines |= {(line.name, line.key_id): line for line in task.result()}
                if not done:
                    break
                if deadline is None and is_enough({name for name, _ in lines}):
                    deadline = loop.time() + GRACE_SECONDS
        finally:
            # All of them: two may have failed at once, as when the store is gone.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return list(lines.values())
