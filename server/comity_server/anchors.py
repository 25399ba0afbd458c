"""Keeps one checkpoint a day that ML-DSA-44 cosignatures prove, for the day Ed25519 is broken.

The witnesses are asked for these lines together with the ordinary ones, at the first checkpoint of
a UTC day that they witness; seven of them would add 23 kB to every checkpoint.

Rules:

* [L-10] An anchor is believed with the ML-DSA-44 cosignatures of its own quorum alone.
"""

from collections.abc import Callable, Iterable
from typing import Final

from comity_protocol.checkpoint import add_signatures, verify_anchor
from comity_protocol.errors import ComityError
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import SignatureLine, VerifierKey
from comity_server import observe
from comity_server.store import Store

DAY_SECONDS: Final = 86_400
RETRY_SECONDS: Final = 600.0
"""After a checkpoint for which too few witnesses gave a line."""


class Anchors:
    """The anchors of one log."""

    def __init__(
        self, store: Store, origin: str, quorum: Quorum | None, clock: Callable[[], float]
    ) -> None:
        """Take whose lines make an anchor; None when the genesis names nobody."""
        self._store: Final = store
        self._origin: Final = origin
        self._quorum: Final = quorum
        self._clock: Final = clock
        self._day = -1
        self._retry_at = 0.0

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        """The public keys of those who may give a line."""
        return () if self._quorum is None else self._quorum.witnesses

    async def is_due(self) -> bool:
        """Whether to ask for lines now: the day has no anchor, and it was not just tried."""
        now = self._clock()
        day = int(now) // DAY_SECONDS
        if self._quorum is None or day == self._day or now < self._retry_at:
            return False
        if await self._store.has_anchor(day):
            self._day = day
            return False
        return True

    def split(
        self, lines: Iterable[SignatureLine]
    ) -> tuple[list[SignatureLine], list[SignatureLine]]:
        """Part the ordinary lines from those for an anchor."""
        own = {(key.name, key.key_id) for key in self.keys}
        ordinary: list[SignatureLine] = []
        anchoring: list[SignatureLine] = []
        for line in lines:
            (anchoring if (line.name, line.key_id) in own else ordinary).append(line)
        return ordinary, anchoring

    async def keep(self, note: bytes, size: int, lines: Iterable[SignatureLine]) -> None:
        """Keep the day's anchor, if these lines make one.

        Args:
            note: With the log's signature alone; the ordinary lines do not fit beside these.
            size: Of the note.
            lines: For an anchor.
        """
        if self._quorum is None:
            return
        now = self._clock()
        try:
            anchor = add_signatures(note, lines)
            # SPEC [L-10]: kept is only what a stranger will believe.
            verify_anchor(anchor, self._origin, self._quorum)
        except ComityError:
            self._retry_at = now + RETRY_SECONDS
            observe.event("anchor-incomplete", size=size)
            return
        self._day = int(now) // DAY_SECONDS
        await self._store.keep_anchor(self._day, size, anchor)
        observe.event("anchor-kept", size=size)
