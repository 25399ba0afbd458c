"""The Merkle tree of the log, as RFC 6962 section 2.1 defines it: hashes, growth, proofs, checks.

Here live pure functions over hashes. What a leaf contains, who signed a root and where hashes are
stored is decided elsewhere.

A tree is known to three kinds of code in three ways:

* the writer holds a `Frontier` and lets it `grow`;
* the server holds tile hashes (C2SP tlog-tiles: level `n` holds the roots of complete subtrees of
  `256 ** n` leaves) and computes proofs from a few range reads of them;
* everyone else holds one root and checks proofs against it.

Proofs are made in two steps, so that this module never waits for a database:

    plan = plan_inclusion(index, size)
    hashes = [await store.tile_hashes(r.level, r.start, r.count) for r in plan.reads]
    proof = prove(plan, hashes)

Rules:

* [L-1] leaves and nodes are hashed as RFC 6962, with the prefixes 0x00 and 0x01;
* [L-2] a proof that is too short, too long or for an index outside the tree is refused;
* [L-6] a size never goes back and one size has one root.

Sizes go up to 2**63 - 1, which is what the checkpoint format can carry.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from comity_protocol.errors import MalformedError, VerificationError

HASH_BYTES: Final = 32
SIZE_MAX: Final = 2**63 - 1
TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
EMPTY_ROOT: Final = sha256(b"").digest()

_SIZE_BYTES: Final = 8

ReadHashes = Callable[[int, int, int], Sequence[bytes]]


def leaf_hash(data: bytes) -> bytes:
    """Hash the content of a leaf.

    Source: PROTOCOL [L-1]; RFC 6962 section 2.1.
    """
    # SPEC [L-1]: leaves and nodes are hashed as RFC 6962. The prefixes keep a node from being
    # passed off as a leaf.
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees into their parent.

    Source: PROTOCOL [L-1]; RFC 6962 section 2.1.
    """
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class TileHash:
    """The root of a complete subtree of `256 ** level` leaves, the `index`-th from the left."""

    level: int
    index: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What appending leaves to a frontier gives.

    `tile_hashes` are the new hashes of tile levels 1 and above, in the order they came to be;
    those of level 0 are the leaf hashes themselves.
    """

    frontier: "Frontier"
    tile_hashes: tuple[TileHash, ...]


@dataclass(frozen=True, slots=True)
class Frontier:
    """The roots of the complete subtrees that make up a tree, largest (leftmost) first.

    It is all that a writer must remember in order to append leaves and to state the root. A tree
    of `size` leaves has as many of them as `size` has one bits.

    Raises:
        ValueError: the number or the length of the hashes does not fit the size.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= SIZE_MAX:
            raise ValueError(f"tree size is {self.size}, expected 0 to 2**63 - 1")
        if len(self.hashes) != self.size.bit_count():
            raise ValueError(
                f"frontier has {len(self.hashes)} hashes, expected {self.size.bit_count()}"
            )
        _require_hashes(self.hashes)

    @property
    def root(self) -> bytes:
        """The root hash of the tree; for the empty tree the hash of nothing."""
        return _fold(self.hashes) if self.hashes else EMPTY_ROOT

    def append(self, leaf_hash: bytes) -> "Frontier":
        """Return the frontier of the tree with one more leaf."""
        return self.grow((leaf_hash,)).frontier

    def extend(self, leaf_hashes: Iterable[bytes]) -> "Frontier":
        """Return the frontier of the tree with more leaves, in the order given."""
        return self.grow(leaf_hashes).frontier

    def grow(self, leaf_hashes: Iterable[bytes]) -> Growth:
        """Append leaves and tell which tile hashes above level 0 were completed by them.

        Raises:
            ValueError: a hash is not 32 bytes, or the tree would outgrow 2**63 - 1 leaves.
        """
        size, stack = self.size, list(self.hashes)
        completed: list[TileHash] = []
        for hashed in leaf_hashes:
            if len(hashed) != HASH_BYTES:
                raise ValueError(f"hash is {len(hashed)} bytes, expected {HASH_BYTES}")
            stack.append(hashed)
            size += 1
            height, rest = 0, size
            while rest & 1 == 0:
                right = stack.pop()
                stack.append(sha256(b"\x01" + stack.pop() + right).digest())
                rest >>= 1
                height += 1
                if height % TILE_HEIGHT == 0:
                    level = height // TILE_HEIGHT
                    completed.append(TileHash(level=level, index=rest - 1, hash=stack[-1]))
        return Growth(frontier=Frontier(size, tuple(stack)), tile_hashes=tuple(completed))

    def serialize(self) -> bytes:
        """Return the size in 8 bytes, big-endian, followed by the hashes."""
        return self.size.to_bytes(_SIZE_BYTES, "big") + b"".join(self.hashes)

    @classmethod
    def parse(cls, data: bytes) -> "Frontier":
        """Read what `serialize` wrote.

        Raises:
            MalformedError: the bytes are too short, too long or of an impossible size.
        """
        size = int.from_bytes(data[:_SIZE_BYTES], "big")
        expected = _SIZE_BYTES + HASH_BYTES * size.bit_count()
        if len(data) != expected or size > SIZE_MAX:
            raise MalformedError(f"frontier is {len(data)} bytes, expected {expected}")
        return cls(size, tuple(_cut(data[_SIZE_BYTES:])))


# Proofs: which hashes are needed, and what follows from them.


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A run of tile hashes to fetch: `count` of them at tile level `level`, from index `start`.

    A read never crosses the border of a tile, so `count` is at most 256.
    """

    level: int
    start: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofPlan:
    """A proof to be computed: the leaf ranges whose roots it lists, and the reads they need."""

    ranges: tuple[tuple[int, int], ...]
    reads: tuple[Read, ...]

    def without(self, known: Collection[tuple[int, int]]) -> "ProofPlan":
        """Give the plan of those ranges whose roots are not known: a range's root never changes."""
        return _plan([one for one in self.ranges if one not in known])


def plan_inclusion(index: int, size: int) -> ProofPlan:
    """Plan the proof that a leaf is in the tree of `size` leaves.

    Raises:
        ValueError: the index is outside the tree.
    """
    if not 0 <= index < size <= SIZE_MAX:
        raise ValueError(f"leaf index is {index}, expected below the tree size {size}")
    return _plan(_inclusion_ranges(index, size))


def plan_consistency(old_size: int, new_size: int) -> ProofPlan:
    """Plan the proof that the tree of `new_size` leaves continues the one of `old_size`.

    The proof is empty when either tree says nothing about the other: equal sizes, or no old leaf.

    Raises:
        ValueError: the sizes are negative or go back.
    """
    if not 0 <= old_size <= new_size <= SIZE_MAX:
        raise ValueError(f"tree size goes from {old_size} to {new_size}, expected it not to shrink")
    return _plan(_consistency_ranges(old_size, new_size) if old_size else [])


def plan_root(size: int) -> ProofPlan:
    """Plan the root of the first `size` leaves, the only hash that `prove` then gives.

    Raises:
        ValueError: there is no leaf.
    """
    if not 0 < size <= SIZE_MAX:
        raise ValueError(f"tree size is {size}, expected at least 1")
    return _plan([(0, size)])


def prove(plan: ProofPlan, hashes: Sequence[Sequence[bytes]]) -> tuple[bytes, ...]:
    """Compute a planned proof.

    Args:
        plan: what `plan_inclusion` or `plan_consistency` returned.
        hashes: for each of `plan.reads`, in its order, the tile hashes read.

    Returns:
        The hashes in the order of RFC 6962: from the leaf's sibling towards the root.

    Raises:
        ValueError: the hashes given are not those that the plan asks for.
    """
    if len(hashes) != len(plan.reads):
        raise ValueError(f"{len(hashes)} runs of hashes given, expected {len(plan.reads)}")
    tiles: dict[tuple[int, int], tuple[Read, Sequence[bytes]]] = {}
    for read, run in zip(plan.reads, hashes, strict=True):
        if len(run) != read.count:
            raise ValueError(f"{len(run)} hashes given, expected {read.count} for {read}")
        _require_hashes(run)
        tiles[read.level, read.start // TILE_WIDTH] = read, run

    def subtree_root(subtree: Read) -> bytes:
        read, run = tiles[subtree.level, subtree.start // TILE_WIDTH]
        first = subtree.start - read.start
        layer = list(run[first : first + subtree.count])
        while len(layer) > 1:
            # `node_hash`, written out: a proof costs hundreds of them.
            pairs = zip(layer[::2], layer[1::2], strict=True)
            layer = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
        return layer[0]

    return tuple(
        _fold([subtree_root(subtree) for subtree in _subtrees(start, end)])
        for start, end in plan.ranges
    )


def inclusion_proof(index: int, size: int, read: ReadHashes) -> tuple[bytes, ...]:
    """Plan, read and prove in one call, for code that holds its hashes in memory.

    Args:
        index: which leaf, counted from zero.
        size: the number of leaves of the tree that the proof is for.
        read: called with tile level, start and count; returns that many tile hashes.
    """
    return _prove_now(plan_inclusion(index, size), read)


def consistency_proof(old_size: int, new_size: int, read: ReadHashes) -> tuple[bytes, ...]:
    """Plan, read and prove in one call; see `inclusion_proof` for `read`."""
    return _prove_now(plan_consistency(old_size, new_size), read)


# Checks.


def verify_inclusion(
    leaf_hash: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that a leaf is at its index of the tree with this root.

    Stops: a relay that claims that an object is in the log, or that it is at another place.

    Raises:
        VerificationError: the proof does not lead from the leaf to the root.

    Source: PROTOCOL [L-2]; RFC 9162 section 2.1.3.2, the same tree as RFC 6962.
    """
    # SPEC [L-2]: an inclusion proof that is too short, too long or for an index outside the tree
    # is refused.
    if not 0 <= index < size <= SIZE_MAX:
        raise VerificationError(f"leaf index is {index}, expected below the tree size {size}")
    _require_proof_hashes((leaf_hash, root, *proof))
    position, last, computed = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            raise VerificationError(f"inclusion proof has {len(proof)} hashes, which is too long")
        if position & 1 or position == last:
            computed = node_hash(sibling, computed)
            position, last = _skip_lone_levels(position, last)
        else:
            computed = node_hash(computed, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise VerificationError(f"inclusion proof has {len(proof)} hashes, which is too short")
    if computed != root:
        raise VerificationError(f"inclusion proof of leaf {index} does not lead to the root")


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the new tree begins with all leaves of the old one, unchanged and in order.

    Stops: rollback (a smaller tree), fork (another tree of the same size), rewriting (a larger
    tree with another past).

    Raises:
        VerificationError: the sizes go back, or the proof does not lead to both roots.

    Source: PROTOCOL [L-2], [L-6]; RFC 9162 section 2.1.4.2, the same tree as RFC 6962.
    """
    # SPEC [L-6]: a size never goes back and one size has one root.
    if not 0 <= old_size <= new_size <= SIZE_MAX:
        raise VerificationError(
            f"tree size went from {old_size} to {new_size}, expected it not to shrink"
        )
    _require_proof_hashes((old_root, new_root, *proof))
    for size, root in ((old_size, old_root), (new_size, new_root)):
        if size == 0 and root != EMPTY_ROOT:
            raise VerificationError("root of the empty tree is not the hash of nothing")
    if old_size in (0, new_size):
        if proof:
            raise VerificationError(f"consistency proof has {len(proof)} hashes, expected none")
        if old_size and old_root != new_root:
            raise VerificationError(f"two roots for tree size {old_size}; the log has forked")
        return
    _verify_growth(old_size, old_root, new_size, new_root, proof)


def _verify_growth(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    # A complete old tree is itself a node of the new one, so the proof leaves it out.
    path = (old_root, *proof) if old_size & (old_size - 1) == 0 else tuple(proof)
    if not proof:
        raise VerificationError("consistency proof is empty, expected hashes")
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_computed = new_computed = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise VerificationError(f"consistency proof has {len(proof)} hashes, which is too long")
        if position & 1 or position == last:
            old_computed = node_hash(sibling, old_computed)
            new_computed = node_hash(sibling, new_computed)
            position, last = _skip_lone_levels(position, last)
        else:
            new_computed = node_hash(new_computed, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise VerificationError(f"consistency proof has {len(proof)} hashes, which is too short")
    if old_computed != old_root:
        raise VerificationError(f"consistency proof does not lead to the root of size {old_size}")
    if new_computed != new_root:
        raise VerificationError(f"consistency proof does not lead to the root of size {new_size}")


def _skip_lone_levels(position: int, last: int) -> tuple[int, int]:
    """Climb over the levels where the rightmost node has no sibling."""
    while position & 1 == 0 and position != 0:
        position, last = position >> 1, last >> 1
    return position, last


def _fold(hashes: Sequence[bytes]) -> bytes:
    """Join the roots of ever smaller subtrees, given from the left, into one root."""
    joined = hashes[-1]
    for left in reversed(hashes[:-1]):
        joined = node_hash(left, joined)
    return joined


def _inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The siblings of RFC 6962 PATH(m, D[n]) as leaf ranges, lowest first."""
    ranges: list[tuple[int, int]] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def _consistency_ranges(old_size: int, new_size: int) -> list[tuple[int, int]]:
    """The hashes of RFC 6962 PROOF(m, D[n]) as leaf ranges, lowest first."""
    ranges: list[tuple[int, int]] = []
    start, end = 0, new_size
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    if start != 0:  # otherwise the old tree is complete, and its root is known to the verifier
        ranges.append((start, end))
    return ranges[::-1]


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def _subtrees(start: int, end: int) -> Iterator[Read]:
    """Cut a leaf range into complete subtrees, each named by the tile hashes right below it.

    The range is one of those that occur in proofs: it begins at a multiple of a power of two that
    is not smaller than its length.
    """
    while start < end:
        height = (end - start).bit_length() - 1
        level, above = divmod(height, TILE_HEIGHT)
        yield Read(level=level, start=start >> (level * TILE_HEIGHT), count=1 << above)
        start += 1 << height


def _plan(ranges: list[tuple[int, int]]) -> ProofPlan:
    """Gather the reads of all ranges, one for each tile that is touched."""
    spans: dict[tuple[int, int], tuple[int, int]] = {}
    for subtree in (subtree for part in ranges for subtree in _subtrees(*part)):
        tile = subtree.level, subtree.start // TILE_WIDTH
        end = subtree.start + subtree.count
        first, last = spans.get(tile, (subtree.start, end))
        spans[tile] = min(first, subtree.start), max(last, end)
    reads = tuple(
        Read(level=level, start=first, count=last - first)
        for (level, _), (first, last) in sorted(spans.items())
    )
    return ProofPlan(ranges=tuple(ranges), reads=reads)


def _prove_now(plan: ProofPlan, read: ReadHashes) -> tuple[bytes, ...]:
    return prove(plan, [read(part.level, part.start, part.count) for part in plan.reads])


def _cut(data: bytes) -> Iterator[bytes]:
    return (data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES))


def _require_hashes(hashes: Sequence[bytes]) -> None:
    for hashed in hashes:
        if len(hashed) != HASH_BYTES:
            raise ValueError(f"hash is {len(hashed)} bytes, expected {HASH_BYTES}")


def _require_proof_hashes(hashes: Sequence[bytes]) -> None:
    if any(len(hashed) != HASH_BYTES for hashed in hashes):
        raise VerificationError(f"proof has a hash that is not {HASH_BYTES} bytes")
