"""Asks mirrors of the log: for a checkpoint, entries and statements. Nothing they give is believed.

A mirror serves C2SP tlog-tiles over HTTP, as a witness in mirror mode does: ``/checkpoint``,
``/tile/entries/...`` and, beyond C2SP, ``/statements``. Whoever asks verifies what comes.

Rules:

* [R-15] Every answer and wait has a bound.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from aiohttp import ClientError, ClientSession, ClientTimeout
from yarl import URL

from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import ComityError
from comity_protocol.fields import array_of
from comity_protocol.leaves import LEAF_BYTES
from comity_protocol.limits import MIRROR_STATEMENTS_MAX, NOTE_BYTES_MAX
from comity_protocol.merkle import TILE_WIDTH
from comity_protocol.statements import SignedStatement
from comity_protocol.wire import CHECKPOINT
from comity_server import observe
from comity_server.answers import read_answer
from comity_server.log import serialize_tile_index

STATEMENTS_BYTES_MAX: Final = 8 * 1024 * 1024
_COSIGNED: Final = f"{CHECKPOINT}?cosigned"
"""Where a witness in mirror mode shows what it cosigned last, published or not."""

_LENGTH_BYTES: Final = 2
_ENTRY_BYTES: Final = _LENGTH_BYTES + LEAF_BYTES
_OK: Final = 200


class Mirror:
    """One mirror's address."""

    def __init__(self, url: str, session: ClientSession, seconds_max: float) -> None:
        """Take its address, and how long one answer may take."""
        self._url: Final = url.rstrip("/")
        self._session: Final = session
        self._timeout: Final = ClientTimeout(total=seconds_max)

    @property
    def host(self) -> str:
        """Its host, for log lines."""
        return URL(self._url).host or ""

    async def notes(self) -> list[bytes]:
        """Give the checkpoints that it shows: the published one, and what it cosigned itself."""
        found = [await self._get(path, NOTE_BYTES_MAX) for path in (CHECKPOINT, _COSIGNED)]
        return [note for note in found if note]

    async def entries(self, start: int, end: int) -> list[bytes]:
        """Give entries from ``start`` to before ``end``; fewer when it has no more."""
        entries: list[bytes] = []
        for tile in range(start // TILE_WIDTH, -(-end // TILE_WIDTH)):
            width = min(TILE_WIDTH, end - tile * TILE_WIDTH)
            found = await self._bundle(tile, width)
            entries += found[max(0, start - tile * TILE_WIDTH) :]
            if len(found) < width:
                break
        return entries

    async def statements(self, after: int) -> list[SignedStatement]:
        """Give statements in leaf order after so many of them, without their boxes."""
        data = await self._get(f"/statements?after={after}", STATEMENTS_BYTES_MAX)
        if data is None:
            return []
        try:
            items = array_of(parse(data), "mirror's statements", high=MIRROR_STATEMENTS_MAX)
            found = [SignedStatement.parse(_bytes_of_item(item)) for item in items]
        except ComityError as error:
            observe.event("mirror-failed", host=self.host, error=type(error).__name__)
            return []
        return [one if one.boxes or one.previous else replace(one, is_bare=True) for one in found]

    async def _bundle(self, tile: int, width: int) -> Sequence[bytes]:
        """Give the entries of one bundle; none when they have another form."""
        partial = "" if width == TILE_WIDTH else f".p/{width}"
        path = f"/tile/entries/{serialize_tile_index(tile)}{partial}"
        data = await self._get(path, width * _ENTRY_BYTES)
        if data is None and partial:
            # What grew meanwhile may be there as a whole bundle only.
            data = await self._get(path.removesuffix(partial), TILE_WIDTH * _ENTRY_BYTES)
        prefix = LEAF_BYTES.to_bytes(_LENGTH_BYTES, "big")
        cut = [
            (data or b"")[at : at + _ENTRY_BYTES]
            for at in range(0, width * _ENTRY_BYTES, _ENTRY_BYTES)
        ]
        if any(len(one) != _ENTRY_BYTES or not one.startswith(prefix) for one in cut):
            return ()
        return [one[_LENGTH_BYTES:] for one in cut]

    async def _get(self, path: str, bytes_max: int) -> bytes | None:
        """Get a path; None when it is not there, too long, or does not come."""
        try:
            async with self._session.get(
                URL(self._url + path, encoded=True), timeout=self._timeout, allow_redirects=False
            ) as response:
                if response.status != _OK:
                    return None
                return await read_answer(response, bytes_max)
        except (ClientError, TimeoutError, OSError, ValueError, ComityError) as error:
            observe.event("mirror-failed", host=self.host, error=type(error).__name__)
            return None


def _bytes_of_item(item: Value) -> bytes:
    """Give a statement as it was posted: served as bytes, or as the map that they hold."""
    return item if isinstance(item, bytes) else serialize(item)
