"""The log as others read it: the witnessed checkpoint, tiles, entries and proofs.

Everything is computed from ranges that the store gives. Tiles and entries follow C2SP tlog-tiles
byte for byte, so that anybody's mirror and monitor can read this log. Only what the newest
witnessed checkpoint covers is served.
"""

from collections.abc import Sequence
from typing import Final

from comity_protocol.checkpoint import open_checkpoint
from comity_protocol.errors import ComityError
from comity_protocol.leaves import LEAF_BYTES
from comity_protocol.merkle import (
    TILE_HEIGHT,
    TILE_WIDTH,
    ProofPlan,
    Read,
    plan_consistency,
    plan_inclusion,
    prove,
)
from comity_protocol.signed_note import VerifierKey
from comity_server.problems import Refused
from comity_server.recent import Bounded
from comity_server.store import Checkpoint, Store

TILES_CACHED_MAX: Final = 512
"""Tiles kept in memory, at most 8 KiB each."""

ROOTS_CACHED_MAX: Final = 16_384
"""Roots of ranges of at least a tile kept in memory, some 300 bytes each."""

LEVEL_MAX: Final = 7
_LENGTH_BYTES: Final = 2


class Log:
    """Reads the log for others."""

    def __init__(self, store: Store, key: VerifierKey) -> None:
        """Take the store, and the log's own public key to check what comes out of it."""
        self._store: Final = store
        self._key: Final = key
        self._tiles: Final[Bounded[tuple[int, int], tuple[bytes, ...]]] = Bounded(TILES_CACHED_MAX)
        self._roots: Final[Bounded[tuple[int, int], bytes]] = Bounded(ROOTS_CACHED_MAX)
        self._newest: Checkpoint | None = None

    @property
    def size(self) -> int:
        """Leaves under the newest witnessed checkpoint; 0 before the first."""
        return 0 if self._newest is None else self._newest.size

    def newest(self) -> Checkpoint:
        """Give the newest witnessed checkpoint.

        Raises:
            Refused: There is none yet.
        """
        if self._newest is None:
            raise Refused("not-yet", "no checkpoint was witnessed yet", retry_after=1)
        return self._newest

    async def first_over(self, index: int) -> Checkpoint:
        """Give the first published checkpoint that covers a leaf: the one that dates it.

        Raises:
            Refused: None covers it yet.
        """
        found = await self._store.first_checkpoint_over(index)
        if found is None:
            raise Refused("not-yet", "no checkpoint covers it yet", retry_after=1)
        return found

    async def refresh(self) -> bool:
        """Look for a newer checkpoint in the store; give whether there was one.

        Raises:
            ComityError: What the store has is not signed by this log; it was altered.
        """
        found = await self._store.newest_checkpoint()
        if found is None or found == self._newest:
            return False
        open_checkpoint(found.note, self._key)
        self._newest = found
        return True

    async def tile(self, level: int, index: int, width: int) -> bytes:
        """Give a tile, or the first ``width`` hashes of it.

        Raises:
            Refused: The witnessed checkpoint does not have it.
        """
        self._require(level, index, width)
        return b"".join(
            await self._hashes(Read(level=level, start=index * TILE_WIDTH, count=width))
        )

    async def entries(self, index: int, width: int) -> bytes:
        """Give an entry bundle, or its first ``width`` entries, each after its length."""
        self._require(0, index, width)
        leaves = await self._store.leaves(index * TILE_WIDTH, width)
        if len(leaves) != width:
            raise _damaged()
        length = LEAF_BYTES.to_bytes(_LENGTH_BYTES, "big")
        return b"".join(length + leaf for leaf in leaves)

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """Prove that a leaf is in the tree of ``size`` leaves.

        Raises:
            Refused: That tree does not have it.
        """
        if not 0 <= index < size:
            raise Refused("not-yet", "the witnessed checkpoint does not cover it", retry_after=1)
        return await self._prove(plan_inclusion(index, size))

    async def consistency(self, old_size: int, new_size: int) -> tuple[bytes, ...]:
        """Prove that one tree continues another."""
        return await self._prove(plan_consistency(old_size, new_size))

    async def _prove(self, plan: ProofPlan) -> tuple[bytes, ...]:
        known = {one: root for one in plan.ranges if (root := self._roots.get(one)) is not None}
        rest = plan.without(known)
        found = prove(rest, [await self._hashes(read) for read in rest.reads])
        for (start, end), root in zip(rest.ranges, found, strict=True):
            known[start, end] = root
            if end - start >= TILE_WIDTH and end <= self.size:
                self._roots.put((start, end), root)
        return tuple(known[one] for one in plan.ranges)

    async def _hashes(self, read: Read) -> Sequence[bytes]:
        """Give tile hashes, out of memory when they are there."""
        tile, first = divmod(read.start, TILE_WIDTH)
        end = first + read.count
        held = self._tiles.get((read.level, tile)) or ()
        if len(held) >= end:
            return held[first:end]
        hashes = await self._store.hashes(read.level, tile * TILE_WIDTH, TILE_WIDTH)
        if len(hashes) < end:
            raise _damaged()
        # What witnesses have cosigned never changes, so a tile that still grows is kept as well.
        covered = max(0, self._complete(read.level) - tile * TILE_WIDTH)
        if covered > len(held):
            self._tiles.put((read.level, tile), tuple(hashes[:covered]))
        return hashes[first:end]

    def _complete(self, level: int) -> int:
        """How many hashes of a level the witnessed checkpoint covers."""
        return self.size >> (TILE_HEIGHT * level)

    def _require(self, level: int, index: int, width: int) -> None:
        """Check that the witnessed checkpoint has so many hashes of a tile.

        C2SP allows a partial tile of any width that the tree once had.
        """
        if level > LEVEL_MAX or index * TILE_WIDTH + width > self._complete(level):
            raise Refused("not-found", "the witnessed checkpoint has no such tile")


def parse_tile_index(text: str) -> int:
    """Read a tile's number as C2SP writes it, such as ``x001/x234/067``.

    Raises:
        Refused: It is written in another way.
    """
    parts = text.split("/")
    digits = [part.removeprefix("x") for part in parts]
    index = int("".join(digits)) if all(_is_three_digits(part) for part in digits) else -1
    if index < 0 or serialize_tile_index(index) != text:
        raise Refused("not-found", "the path names no tile")
    return index


def serialize_tile_index(index: int) -> str:
    """Write a tile's number: groups of three digits, all but the last after an ``x``."""
    text = f"{index % 1000:03}"
    while index := index // 1000:
        text = f"x{index % 1000:03}/{text}"
    return text


def _is_three_digits(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isdigit()  # noqa: PLR2004 - as C2SP says


def _damaged() -> ComityError:
    return ComityError("the store has fewer leaves than the witnessed checkpoint covers")
