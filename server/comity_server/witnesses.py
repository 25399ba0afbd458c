"""Asks the witnesses: what they know, and to cosign.

The conversation is C2SP tlog-witness ``add-checkpoint``. Witnesses are asked in parallel, each with
a bound on time and on the size of its answer; one that is slow, silent or lying costs nothing but
its own cosignature. When the quorum is there, the others get a moment more.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

from aiohttp import ClientError, ClientSession, ClientTimeout
from yarl import URL

from comity_protocol.errors import ComityError, VerificationError
from comity_protocol.signed_note import SignatureLine, VerifierKey
from comity_protocol.witnessing import (
    AddCheckpoint,
    Cosigned,
    KnownSize,
    Refused,
    WitnessAnswer,
    parse_witness_answer,
)
from comity_server import observe
from comity_server.metrics import Metrics

ANSWER_BYTES_MAX: Final = 65_536
TRIES_MAX: Final = 3
GRACE_SECONDS: Final = 0.25
"""How long the witnesses that are not needed for the quorum are waited for."""

Consistency = Callable[[int, int], Awaitable[Sequence[bytes]]]
"""Proves that the tree of the second size continues that of the first."""


class Witness:
    """One witness's address and what it is known to have cosigned."""

    def __init__(
        self,
        url: str,
        keys: Sequence[VerifierKey],
        session: ClientSession,
        metrics: Metrics,
        seconds_max: float,
    ) -> None:
        """Take its submission prefix and the keys of the pinned witnesses, one of which is its."""
        self.size: int | None = None
        self._url: Final = URL(url.rstrip("/") + "/add-checkpoint")
        self._keys: Final = keys
        self._session: Final = session
        self._metrics: Final = metrics
        self._timeout: Final = ClientTimeout(total=seconds_max)

    @property
    def host(self) -> str:
        """Its host, for log lines."""
        return self._url.host or ""

    async def ask(self, note: bytes) -> int | None:
        """Ask for the size that it cosigned last; None when it does not say.

        Args:
            note: Something the log has stated before. A witness that knows nothing cosigns it.
        """
        answer = await self._post(AddCheckpoint(old_size=0, hashes=(), note=note))
        match answer:
            case KnownSize(size=size):
                self.size = size
            case Cosigned():
                self.size = 0
            case _:
                return None
        return self.size

    async def cosign(
        self, note: bytes, size: int, consistency: Consistency
    ) -> SignatureLine | None:
        """Ask to cosign; None when it does not."""
        for _ in range(TRIES_MAX):
            old = self.size or 0
            if old > size:
                observe.alarm("witness-ahead", host=self.host, size=old, signed=size)
                return None
            hashes = tuple(await consistency(old, size)) if old else ()
            answer = await self._post(AddCheckpoint(old_size=old, hashes=hashes, note=note))
            match answer:
                case Cosigned(line=line):
                    self.size = size
                    return line
                case KnownSize(size=known) if known != old:
                    self.size = known
                case _:
                    return None
        return None

    async def _post(self, request: AddCheckpoint) -> WitnessAnswer | None:
        try:
            async with self._session.post(
                self._url, data=request.serialize(), timeout=self._timeout, allow_redirects=False
            ) as response:
                body = await response.content.read(ANSWER_BYTES_MAX + 1)
                while len(body) <= ANSWER_BYTES_MAX and not response.content.at_eof():
                    body += await response.content.read(ANSWER_BYTES_MAX + 1 - len(body))
                content_type = response.headers.get("Content-Type", "")
                answer = self._read(response.status, content_type, body, request.note)
        except (ClientError, TimeoutError, OSError, ComityError) as error:
            self._metrics.witness_answers.labels("failed").inc()
            observe.event("witness-failed", host=self.host, error=type(error).__name__)
            return None
        self._metrics.witness_answers.labels(type(answer).__name__.lower()).inc()
        if isinstance(answer, Refused):
            observe.alarm("witness-refused", host=self.host, status=answer.status)
        return answer

    def _read(self, status: int, content_type: str, body: bytes, note: bytes) -> WitnessAnswer:
        if len(body) > ANSWER_BYTES_MAX:
            raise VerificationError("answer is too long")
        last: ComityError | None = None
        for key in self._keys:
            try:
                return parse_witness_answer(
                    status=status, content_type=content_type, body=body, note=note, witness=key
                )
            except ComityError as error:
                last = error
        raise last or VerificationError("no witness is pinned")


class Witnesses:
    """All witnesses that this relay knows an address of."""

    def __init__(self, witnesses: Sequence[Witness]) -> None:
        """Take them."""
        self._witnesses: Final = tuple(witnesses)

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
    ) -> list[SignatureLine]:
        """Ask all to cosign; give the lines of those who did, at most one a witness.

        Args:
            note: With the log's signature.
            size: Of the note.
            consistency: Proves what a witness asks for.
            is_enough: Whether the witnesses of these names are so many that the others are waited
                for no more than a moment.
        """
        lines: dict[tuple[str, bytes], SignatureLine] = {}
        tasks = {
            asyncio.create_task(witness.cosign(note, size, consistency))
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
                    if (line := task.result()) is not None:
                        lines[line.name, line.key_id] = line
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
