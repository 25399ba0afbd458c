"""Reads the log for itself: inclusion and consistency from tiles, against one verified root.

One proof authenticates a whole tile: the proof of one leaf is computed from all other hashes of
its tile, so when it leads to the root, all of them are right. A page of mail that lies together in
the log costs one proof for 256 leaves.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from comity_client.state import Newest
from comity_protocol.errors import VerificationError
from comity_protocol.merkle import (
    EMPTY_ROOT,
    TILE_WIDTH,
    ProofPlan,
    Read,
    leaf_hash,
    plan_consistency,
    plan_inclusion,
    plan_root,
    prove,
    verify_consistency,
    verify_inclusion,
)

_Key = TypeVar("_Key")

TILES_CACHED_MAX: Final = 1_024
"""Tiles kept in memory, 8 KiB each."""


class UnprovenError(VerificationError):
    """The relay's tiles do not lead to the root that it showed before."""

    code = "unproven-log"
    remedy = (
        "try again; if it persists, do not rely on the relay and tell your administrator: it cannot"
        " prove its own log"
    )


class TileSource(Protocol):
    """Where tiles come from; they are not believed."""

    async def tile(self, level: int, index: int, width: int) -> tuple[bytes, ...]:
        """Fetch the first ``width`` hashes of a tile."""


class LogReader:
    """Proves what a verified checkpoint covers."""

    def __init__(self, source: TileSource) -> None:
        """Take the source of tiles."""
        self._source: Final = source
        self._fetched: Final[OrderedDict[tuple[int, int, int], tuple[bytes, ...]]] = OrderedDict()
        self._verified: Final[OrderedDict[tuple[int, int, bytes], tuple[bytes, ...]]] = (
            OrderedDict()
        )

    async def verify_leaf(self, leaf: bytes, index: int, under: Newest) -> None:
        """Check that a leaf is in the log at its index.

        Args:
            leaf: Its 65 bytes.
            index: Below the checkpoint's size.
            under: A verified checkpoint.

        Raises:
            VerificationError: Another object is there.
            UnprovenError: The relay's tiles do not lead to the root.

        Source: PROTOCOL [L-2], [B-1].
        """
        if not 0 <= index < under.size:
            raise VerificationError(f"leaf {index} is not covered by the checkpoint [L-2]")
        tile = index // TILE_WIDTH
        width = min(TILE_WIDTH, under.size - tile * TILE_WIDTH)
        key = (tile, width, b"" if width == TILE_WIDTH else under.root)
        hashes = self._verified.get(key)
        if hashes is None:
            hashes = await self._verify_tile(index, tile, width, under)
            _put(self._verified, key, hashes)
        # SPEC [L-2]: the leaf is the one that the tree has at this index.
        if hashes[index % TILE_WIDTH] != leaf_hash(leaf):
            raise VerificationError(f"another object is in the log at leaf {index} [L-2]")

    async def inclusion_proof(self, index: int, under: Newest) -> tuple[bytes, ...]:
        """Compute the proof that a leaf is in the log, to be kept or handed to a stranger.

        It is not verified here: ``log_proof.verify_log_proof`` does, with the leaf.
        """
        return await self._prove(plan_inclusion(index, under.size), under.size)

    async def verify_growth(self, old: Newest, new: Newest) -> None:
        """Check that one checkpoint continues another.

        Raises:
            VerificationError: The log was rolled back, forked or rewritten, or the relay's tiles
                do not prove otherwise.

        Source: PROTOCOL [L-6], [B-6].
        """
        proof: tuple[bytes, ...] = ()
        if 0 < old.size < new.size:
            proof = await self._prove(plan_consistency(old.size, new.size), new.size)
        try:
            verify_consistency(old.size, old.root, new.size, new.root, proof)
        except VerificationError:
            # What did not prove anything must not stand in the way of a better answer.
            self._fetched.clear()
            raise

    async def root_at(self, size: int, under: Newest) -> tuple[bytes, tuple[bytes, ...]]:
        """Give the root that the log had at an earlier size, and the proof that it had.

        This tells a log that contradicts itself from a relay that proves nothing: whatever comes
        back is part of what the checkpoint signs.

        Args:
            size: At most that of the checkpoint.
            under: A verified checkpoint.

        Returns:
            The root, and the hashes by which ``verify_consistency`` leads from it to the
            checkpoint's.

        Raises:
            UnprovenError: The relay's tiles do not lead to the checkpoint's root.
        """
        if size == under.size:
            return under.root, ()
        if size == 0:
            return EMPTY_ROOT, ()
        (root,) = await self._prove(plan_root(size), under.size)
        proof = await self._prove(plan_consistency(size, under.size), under.size)
        try:
            verify_consistency(size, root, under.size, under.root, proof)
        except VerificationError as error:
            self._fetched.clear()
            raise UnprovenError(f"tiles of the log do not lead to its root at {size}") from error
        return root, proof

    async def _verify_tile(
        self, index: int, tile: int, width: int, under: Newest
    ) -> tuple[bytes, ...]:
        hashes = await self._tile(0, tile, width)
        proof = await self._prove(plan_inclusion(index, under.size), under.size)
        try:
            verify_inclusion(hashes[index % TILE_WIDTH], index, under.size, under.root, proof)
        except VerificationError as error:
            self._fetched.clear()
            raise UnprovenError(f"tile {tile} of the log does not lead to its root") from error
        return hashes

    async def _prove(self, plan: ProofPlan, size: int) -> tuple[bytes, ...]:
        return prove(plan, [await self._run(read, size) for read in plan.reads])

    async def _run(self, read: Read, size: int) -> Sequence[bytes]:
        tile, first = divmod(read.start, TILE_WIDTH)
        at_level = size >> (8 * read.level)
        width = min(TILE_WIDTH, at_level - tile * TILE_WIDTH)
        return (await self._tile(read.level, tile, width))[first : first + read.count]

    async def _tile(self, level: int, tile: int, width: int) -> tuple[bytes, ...]:
        key = (level, tile, width)
        hashes = self._fetched.get(key)
        if hashes is None:
            hashes = await self._source.tile(level, tile, width)
            _put(self._fetched, key, hashes)
        return hashes


def _put(cache: OrderedDict[_Key, tuple[bytes, ...]], key: _Key, value: tuple[bytes, ...]) -> None:
    cache[key] = value
    if len(cache) > TILES_CACHED_MAX:
        cache.popitem(last=False)
