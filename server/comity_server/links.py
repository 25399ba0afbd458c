"""Links: connections that witnesses open to be asked over them.

A link is one more way to a witness (``witnesses.Channel``). It has the bounds of an address: the
same time for an answer, the same size, a few questions at once. What does not keep to its form ends
it, and costs nothing but that witness's cosignature.

Rules:

* [R-15] Every queue and wait has a bound.
"""

import asyncio
from itertools import count
from typing import Final, Protocol

from comity_protocol.errors import MalformedError
from comity_protocol.limits import WITNESS_LINK_ASKS_MAX
from comity_protocol.witness_link import NUMBER_MAX, Ask, LinkAnswer
from comity_server.witnesses import Reply

SILENT_MAX: Final = 3
"""Questions in a row without an answer in time, after which nobody seems to be there any more."""


class Sender(Protocol):
    """What frames are written to."""

    async def send_bytes(self, data: bytes) -> None:
        """Write one frame."""


class LinkChannel:
    """The relay's end of a link whose witness has proven its key."""

    def __init__(self, name: str, sender: Sender, seconds_max: float) -> None:
        """Take the witness's name, and how long it may take to answer."""
        self.ended: Final = asyncio.Event()
        self._name: Final = name
        self._sender: Final = sender
        self._seconds_max: Final = seconds_max
        self._numbers: Final = count(1)
        self._newest = 0
        self._silent = 0
        self._asked: Final[dict[int, asyncio.Future[Reply]]] = {}

    @property
    def host(self) -> str:
        """See ``witnesses.Channel``."""
        return self._name

    async def post(self, path: str, body: bytes) -> Reply:
        """See ``witnesses.Channel``."""
        # SPEC: every queue has a bound.
        if self.ended.is_set() or len(self._asked) >= WITNESS_LINK_ASKS_MAX:
            raise ConnectionError("link has ended or is full")
        number = self._newest = next(self._numbers) & NUMBER_MAX
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            async with asyncio.timeout(self._seconds_max):
                await self._sender.send_bytes(Ask(number, path, body).serialize())
                reply = await answer
        except TimeoutError:
            self._silent += 1
            if self._silent >= SILENT_MAX:
                self.end()
            raise
        finally:
            self._asked.pop(number, None)
        self._silent = 0
        return reply

    def take(self, frame: bytes) -> None:
        """Take a frame from the witness.

        Raises:
            ComityError: It is no answer, too long, or to something that was never asked.
        """
        answer = LinkAnswer.parse(frame)
        if not 1 <= answer.number <= self._newest:
            raise MalformedError(f"answer is to {answer.number}, which was never asked")
        # Whoever asked may have given up; then the answer is late and nobody wants it.
        if (asked := self._asked.get(answer.number)) is not None and not asked.done():
            asked.set_result(Reply(answer.status, answer.content_type, answer.body))

    def end(self) -> None:
        """End the link: nothing more is asked, and who waits is told."""
        self.ended.set()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(ConnectionError("link has ended"))
