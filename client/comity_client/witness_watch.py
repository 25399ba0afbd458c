"""Looks at what the relay publishes, for cosignatures of one's own that one does not remember.

Whoever put the folder of a witness back from a backup has a key that signed more than its memory
knows, and would sign another past without noticing. The published checkpoints show it.

Rules:

* [W-8] a witness that meets a cosignature of its own above its memory retires its key.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from http import HTTPStatus
from typing import Final, Protocol

from comity_client.transport import OfflineError, RelayRefusedError
from comity_client.witness_rule import Answer, RefusedOfferError
from comity_client.witness_state import WitnessKey, WitnessState
from comity_protocol.checkpoint import Checkpoint, cosignatures
from comity_protocol.errors import ComityError
from comity_protocol.signed_note import VerifierKey, parse_note

LOOK_SECONDS_MAX: Final = 3_600.0
"""Longest time between two looks; each costs a light witness more than a cosignature."""

SETTLE_SECONDS: Final = 1.0
"""After a cosignature, for the relay to have the others' and to publish."""

FIRST_LOOK_SECONDS_MAX: Final = 5.0
_NOT_YET: Final = "not-yet"

logger = logging.getLogger(__name__)


class RetireError(Exception):
    """The key was used beyond this memory; the program must stop and never use it again."""


class CheckpointSource(Protocol):
    """Where published checkpoints come from; they are not believed."""

    async def checkpoint(self) -> bytes:
        """Fetch the newest."""


class Watch:
    """Looks when it starts and every hour; for a mirror also soon after each cosignature."""

    def __init__(
        self,
        source: CheckpointSource | None,
        state: WitnessState,
        key: WitnessKey,
        logs: Collection[VerifierKey],
        use: Callable[[bytes], Awaitable[None]] | None = None,
        *,
        is_close: bool = True,
    ) -> None:
        """Take what to look at.

        Args:
            source: the relay; None when it is not known, and only what it offers can be looked at.
            state: its memory.
            key: its own keys.
            logs: the logs that it watches.
            use: gets every published note that holds no surprise, not otherwise verified; may
                raise a `ComityError`, which is reported.
            is_close: whether to look soon after each cosignature, as a mirror does to show what is
                published.
        """
        self._source: Final = source
        self._state: Final = state
        self._key: Final = key
        self._origins: Final = frozenset(log.name for log in logs)
        self._use: Final = use
        self._is_close: Final = is_close
        self._soon: Final = asyncio.Event()
        self._has_looked = source is None
        self._surprise: RetireError | None = None

    async def run(self, *, settle_seconds: float = SETTLE_SECONDS) -> None:
        """Look for ever.

        Raises:
            RetireError: the key must be retired.
        """
        while True:
            note = await self._look()
            if self._surprise is not None:
                raise self._surprise
            if note is not None and self._use is not None:
                try:
                    await self._use(note)
                except ComityError as error:
                    logger.warning("alarm: what the relay publishes is not followed: %s", error)
            try:
                async with asyncio.timeout(LOOK_SECONDS_MAX):
                    await self._soon.wait()
            except TimeoutError:
                continue
            self._soon.clear()
            if self._surprise is None:
                await asyncio.sleep(settle_seconds)

    def look_soon(self) -> None:
        """Something was cosigned and will be published in a moment; a mirror wants to see it."""
        if self._is_close:
            self._soon.set()

    async def require_looked(self) -> None:
        """Look, unless that was done since the start; nothing is cosigned before.

        Raises:
            RefusedOfferError: the relay does not show its checkpoint, or the key is to be retired.
        """
        if not self._has_looked:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LOOK_SECONDS_MAX):
                    await self._look()
        self._require_no_surprise()
        if not self._has_looked:
            raise _unavailable("relay does not show its checkpoint to this witness")

    def meet(self, note: bytes) -> None:
        """Look at a note that somebody offers; one that was witnessed before says as much.

        Raises:
            RefusedOfferError: the key is to be retired.
        """
        # A line that does not verify is somebody else's, and nothing follows from it.
        with suppress(ComityError):
            self._check(note)
        self._require_no_surprise()

    def _require_no_surprise(self) -> None:
        if self._surprise is not None:
            self._soon.set()
            raise _unavailable(str(self._surprise))

    async def _look(self) -> bytes | None:
        """Give the newest published note, when there is one that holds no surprise."""
        if self._source is None:
            return None
        try:
            note = await self._source.checkpoint()
        except RelayRefusedError as error:
            # A log that has published nothing holds no surprise.
            self._has_looked = self._has_looked or error.code == _NOT_YET
            return None
        except OfflineError:
            return None
        try:
            self._check(note)
        except ComityError as error:
            logger.warning("alarm: what the relay publishes cannot be read: %s", error)
            return None
        self._has_looked = True
        return note

    def _check(self, note: bytes) -> None:
        """Look whether a note has a cosignature of this witness's own above its memory.

        Raises:
            ComityError: it is not a checkpoint, or a line under this witness's name does not
                verify; nothing follows.
        """
        checkpoint = Checkpoint.parse(parse_note(note).text)
        if checkpoint.origin not in self._origins:
            return
        own = cosignatures(note, [self._key.verifier_key])
        if (anchor := self._key.anchor_verifier_key) is not None:
            own += cosignatures(note, [anchor])
        # Read after the note: what this witness signs is in its memory before anyone sees it.
        seen = self._state.seen(checkpoint.origin)
        for one in own:
            # SPEC [W-8]: a cosignature of its own above its memory. The clock of a witness never
            # goes back, so a later one than remembered says the same as a larger size.
            if (
                seen is None
                or checkpoint.size > seen.size
                or one.time > seen.cosigned_at
                or (checkpoint.size == seen.size and checkpoint.root != seen.root)
            ):
                size, known = checkpoint.size, seen.size if seen else 0
                self._surprise = RetireError(
                    f"the relay shows a cosignature of this witness at size {size} and time"
                    f" {one.time}, and it remembers size {known}: its folder was put back from a"
                    " backup or its key was copied"
                )


def _unavailable(reason: str) -> RefusedOfferError:
    return RefusedOfferError(Answer.say(HTTPStatus.SERVICE_UNAVAILABLE, reason))
