"""Recomputes a log from its entries and compares every tile, and names the file that is wrong.

All entries are hashed, from the first to the last, in memory that grows with the tree's height
alone. On the way every hash of every tile is compared with the one that follows from below. When
two differ, the hash above says which of them is right; the damaged one is named and the count goes
on with the right one, so that one damaged file is one finding. Whatever was chosen on the way, in
the end it must lead to the root that the witnesses cosigned.

Rules:

* [V-3] An auditor recomputes the root from all entries and compares every tile, never a sample.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import product
from typing import Final

from comity_client.audit_archive import (
    LENGTH_BYTES,
    Archive,
    ArchiveError,
    Tile,
    levels_of,
    tile_at,
)
from comity_client.audit_findings import Finding, Kind, Report
from comity_protocol.leaves import LEAF_BYTES
from comity_protocol.merkle import EMPTY_ROOT, HASH_BYTES, TILE_WIDTH, Frontier

Hashes = list[bytes]
Known = list[bytes | None]
"""Hashes of which some cannot be known, because the files that they follow from are missing."""

TakeEntries = Callable[[int, Sequence[bytes]], None]

_FRAME: Final = LENGTH_BYTES + LEAF_BYTES
_LENGTH: Final = LEAF_BYTES.to_bytes(LENGTH_BYTES, "big")
_SHOWN_MAX: Final = 3


def tile_root(hashes: Sequence[bytes]) -> bytes:
    """Join a power of two of hashes into the root of their subtree.

    Source: PROTOCOL [L-1].
    """
    layer = list(hashes)
    while len(layer) > 1:
        pairs = iter(layer)
        layer = [
            sha256(b"\x01" + left + right).digest()
            for left, right in zip(pairs, pairs, strict=True)
        ]
    return layer[0]


def root_of(runs: Sequence[Sequence[bytes]]) -> bytes:
    """Compute the root of a tree from the hashes right of the last full tile, level by level.

    Args:
        runs: For each tile level, lowest first, fewer than 256 hashes.
    """
    size, subtrees = 0, []
    for level in range(len(runs) - 1, -1, -1):
        run = runs[level]
        size += len(run) << (8 * level)
        at = 0
        for bit in range(7, -1, -1):
            if len(run) >> bit & 1:
                subtrees.append(tile_root(run[at : at + (1 << bit)]))
                at += 1 << bit
    return Frontier(size, tuple(subtrees)).root if size else EMPTY_ROOT


def split_entries(data: bytes, width: int) -> Hashes | None:
    """Cut a bundle into its entries of 65 bytes; None when it is anything else."""
    if len(data) != width * _FRAME:
        return None
    entries = [data[at + LENGTH_BYTES : at + _FRAME] for at in range(0, len(data), _FRAME)]
    high, low = _LENGTH
    is_framed = data[::_FRAME] == bytes([high]) * width and data[1::_FRAME] == bytes([low]) * width
    return entries if is_framed else None


def split_hashes(data: bytes, width: int) -> Hashes | None:
    """Cut a tile into its hashes; None when it is anything else."""
    if len(data) != width * HASH_BYTES:
        return None
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


@dataclass(slots=True)
class _Edge:
    """The last, partial tile of a level: what follows from below, and what its file says."""

    tile: Tile
    computed: Known
    stored: Hashes | None

    @property
    def choices(self) -> list[Hashes]:
        """What its hashes may be, the likeliest first; none when nothing is known."""
        computed = [one for one in self.computed if one is not None]
        whole = [computed] if len(computed) == len(self.computed) else []
        return whole + ([self.stored] if self.stored is not None and whole != [self.stored] else [])


@dataclass(slots=True)
class TreeCheck:
    """One pass over a folder.

    Attributes:
        archive: The folder.
        size: Of the checkpoint.
        root: Of the checkpoint, which is believed.
        report: Takes findings.
        take: Takes the entries of each readable bundle with the index of the first; not yet proven
            when it is called, so what it finds counts only when ``run`` has found no damage.
        marks: Ascending sizes, at most ``size``, whose roots are wanted.
        roots: The roots at those sizes, as far as they can be known.
        is_sound: Whether all files are right, after ``run``.
        are_entries_sound: Whether all entries are, whatever the tiles are.
    """

    archive: Archive
    size: int
    root: bytes
    report: Report
    take: TakeEntries = lambda _first, _entries: None
    marks: Sequence[int] = ()
    roots: dict[int, bytes] = field(default_factory=dict)
    is_sound: bool = True
    are_entries_sound: bool = True
    _levels: list[Known] = field(default_factory=list)
    _above: dict[int, tuple[Tile, Hashes | None]] = field(default_factory=dict)
    _mark: int = 0

    def run(self) -> bool:
        """Check everything; whether all files are right.

        Source: PROTOCOL [V-3].
        """
        # SPEC [V-3]: the root is recomputed from all entries and every tile is compared, never a
        # sample.
        self._levels = [[] for _ in range(levels_of(self.size))]
        full, rest = divmod(self.size, TILE_WIDTH)
        for index in range(full):
            hashes = self._bundle(Tile(None, index))
            self._give_marks(hashes)
            self._push(0, index, hashes)
        if rest:
            self._levels[0] = self._bundle(Tile(None, full, rest))
        self._finish()
        return self.is_sound

    # --- Entries

    def _bundle(self, tile: Tile) -> Known:
        data = self._read(tile)
        entries = None if data is None else split_entries(data, tile.width)
        if data is not None and entries is None:
            self._find(
                Kind.DAMAGED_ENTRIES,
                tile,
                f"bundle is {len(data):,} bytes, expected {tile.width} entries of {LEAF_BYTES}",
            )
        if entries is None:
            return [None] * tile.width
        self.take(tile.index * TILE_WIDTH, entries)
        return [sha256(b"\x00" + entry).digest() for entry in entries]

    # --- Tiles

    def _push(self, level: int, index: int, computed: Known) -> None:
        """Compare a full tile and hand its root to the level above."""
        tile = Tile(level, index)
        above = self._levels[level + 1]
        above.append(self._settle(tile, computed))
        if len(above) == TILE_WIDTH:
            self._levels[level + 1] = []
            self._push(level + 1, index // TILE_WIDTH, above)

    def _settle(self, tile: Tile, computed: Known) -> bytes | None:
        """Decide what the root of a full tile is, and name what disagrees."""
        stored = self._tile(tile)
        if stored is not None and computed == stored:
            return tile_root(stored)
        parent = self._parent(tile)
        whole = [one for one in computed if one is not None]
        from_below = tile_root(whole) if len(whole) == TILE_WIDTH else None
        if stored is None:
            return parent if from_below is None else from_below
        differing = _differing(computed, stored)
        from_file = tile_root(stored)
        if not differing:
            return from_file
        if from_below is not None and from_below == parent:
            self._blame(tile, differing)
            return from_below
        self._blame_below(tile, differing)
        if from_file == parent:
            return from_file
        self._blame(tile, differing)
        return parent

    def _parent(self, tile: Tile) -> bytes | None:
        """Read the hash of a full tile from the tile above it; None when it cannot be read."""
        assert tile.level is not None  # noqa: S101  # bundles are settled with their tile
        level, (index, place) = tile.level + 1, divmod(tile.index, TILE_WIDTH)
        known = self._above.get(level)
        if known is None or known[0].index != index:
            upper = tile_at(level, index, self.size)
            known = self._above[level] = upper, self._peek(upper)
        return None if known[1] is None else known[1][place]

    # --- The right edge

    def _finish(self) -> None:
        edges = [
            _Edge(
                tile := tile_at(level, len_of(self.size, level), self.size), run, self._tile(tile)
            )
            for level, run in enumerate(self._levels)
            if run
        ]
        options = [edge.choices for edge in edges]
        if not all(options):
            self._lose("a file is missing without which the root cannot be computed")
            return
        for chosen in product(*options):
            runs = self._runs(edges, chosen)
            if root_of(runs) == self.root:
                self._blame_edges(edges, chosen)
                self._last_marks(runs)
                return
        for edge in edges:
            if edge.stored is not None and (differing := _differing(edge.computed, edge.stored)):
                self._blame(edge.tile, differing)
                self._blame_below(edge.tile, differing)
        self._lose("entries and tiles do not lead to the root of the checkpoint")

    def _runs(self, edges: Sequence[_Edge], chosen: Iterable[Hashes]) -> list[Hashes]:
        runs: list[Hashes] = [[] for _ in self._levels]
        for edge, hashes in zip(edges, chosen, strict=True):
            assert edge.tile.level is not None  # noqa: S101  # an edge is a tile of hashes
            runs[edge.tile.level] = hashes
        return runs

    def _blame_edges(self, edges: Sequence[_Edge], chosen: Iterable[Hashes]) -> None:
        for edge, right in zip(edges, chosen, strict=True):
            if edge.stored is not None and edge.stored != right:
                self._blame(edge.tile, _differing(edge.stored, right))
            if below := _differing(edge.computed, right):
                self._blame_below(edge.tile, below)

    # --- Older checkpoints

    def _give_marks(self, hashes: Known) -> None:
        """Compute the roots of sizes that end inside this full bundle."""
        start = self._counted()
        while self._mark < len(self.marks) and self.marks[self._mark] < start + TILE_WIDTH:
            size = self.marks[self._mark]
            self._put_root(size, [hashes[: size - start], *self._levels[1:]])
            self._mark += 1

    def _last_marks(self, runs: Sequence[Hashes]) -> None:
        start = self.size - self.size % TILE_WIDTH
        for size in self.marks[self._mark :]:
            lowest = runs[0][: size - start] if runs else []
            self._put_root(size, [lowest, *runs[1:]])

    def _put_root(self, size: int, runs: Sequence[Sequence[bytes | None]]) -> None:
        known = [[one for one in run if one is not None] for run in runs]
        if all(len(one) == len(run) for one, run in zip(known, runs, strict=True)):
            self.roots[size] = root_of(known)

    def _counted(self) -> int:
        return sum(len(run) << (8 * level) for level, run in enumerate(self._levels))

    # --- Files

    def _tile(self, tile: Tile) -> Hashes | None:
        data = self._read(tile)
        hashes = None if data is None else split_hashes(data, tile.width)
        if data is not None and hashes is None:
            text = f"tile is {len(data):,} bytes, expected {tile.byte_size:,}"
            self._find(Kind.DAMAGED_TILE, tile, text)
        return hashes

    def _peek(self, tile: Tile) -> Hashes | None:
        """Read a tile without a finding: it has its own turn."""
        try:
            data = self.archive.read(tile.path, tile.byte_size)
        except ArchiveError:
            return None
        return None if data is None else split_hashes(data, tile.width)

    def _read(self, tile: Tile) -> bytes | None:
        try:
            data = self.archive.read(tile.path, tile.byte_size)
        except ArchiveError as error:
            kind = Kind.DAMAGED_ENTRIES if tile.level is None else Kind.DAMAGED_TILE
            self._find(kind, tile, str(error))
            return None
        if data is None:
            self._find(Kind.MISSING_FILE, tile, "file is missing")
        return data

    # --- Findings

    def _blame(self, tile: Tile, places: Sequence[int]) -> None:
        text = f"tile has {_places(places)} that what lies below it does not lead to"
        self._find(Kind.DAMAGED_TILE, tile, text)

    def _blame_below(self, tile: Tile, places: Sequence[int]) -> None:
        """Name what the hashes of a tile follow from: entries, or the tiles one level down."""
        assert tile.level is not None  # noqa: S101  # a bundle has nothing below it
        if tile.level == 0:
            first = tile.index * TILE_WIDTH
            bundle = tile_at(None, tile.index, self.size)
            text = f"bundle has {_places([first + place for place in places], 'entry')}"
            self._find(Kind.DAMAGED_ENTRIES, bundle, f"{text} that is not the one of the log")
            return
        for place in places:
            lower = tile_at(tile.level - 1, tile.index * TILE_WIDTH + place, self.size)
            text = "tile and what lies below it agree, but not with the tiles above them"
            self._find(Kind.DAMAGED_TILE, lower, text)

    def _find(self, kind: Kind, tile: Tile, text: str) -> None:
        self.is_sound = False
        self.are_entries_sound &= tile.level is not None
        self.report(Finding(kind=kind, text=text, where=tile.path))

    def _lose(self, text: str) -> None:
        self.is_sound = self.are_entries_sound = False
        self.report(Finding(kind=Kind.ROOT, text=text, where="checkpoint"))


def len_of(size: int, level: int) -> int:
    """Give how many full tiles a level has, which is the index of its partial one."""
    return (size >> (8 * level)) // TILE_WIDTH


def read_entries(archive: Archive, size: int, start: int = 0) -> Iterator[bytes]:
    """Give the entries of the folder one by one, up to a size; they are not verified.

    Raises:
        ArchiveError: A bundle is missing or is none.
    """
    for index in range(start // TILE_WIDTH, -(-size // TILE_WIDTH)):
        tile = tile_at(None, index, size)
        data = archive.read(tile.path, tile.byte_size)
        entries = None if data is None else split_entries(data, tile.width)
        if entries is None:
            raise ArchiveError(f"{tile.path} is missing or no bundle of {tile.width} entries")
        yield from entries[max(0, start - index * TILE_WIDTH) :]


def _differing(one: Sequence[bytes | None], other: Sequence[bytes]) -> list[int]:
    pairs = enumerate(zip(one, other, strict=True))
    return [place for place, (left, right) in pairs if left is not None and left != right]


def _places(places: Sequence[int], what: str = "hash") -> str:
    shown = ", ".join(f"{place}" for place in places[:_SHOWN_MAX])
    more = f" and {len(places) - _SHOWN_MAX} more" if len(places) > _SHOWN_MAX else ""
    return f"{what} {shown}{more}"
