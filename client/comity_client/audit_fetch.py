"""Fetches a whole log into a folder, and believes nothing on the way.

Every tile is checked against the one above it, the highest ones against the witnessed root, and
every bundle of entries against its tile, before a byte of it is written. So a fetch that is broken
off goes on where it stopped, a hostile source can fill a folder with nothing, and what is in the
folder is never replaced by something else.

A checkpoint that cannot stand beside the one in the folder is a fork: both are kept as evidence,
and nothing is fetched under the new one.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from comity_client.audit_archive import (
    ANCHORS,
    CHECKPOINT,
    CHECKPOINTS,
    EVIDENCE,
    GENESIS,
    Archive,
    ArchiveError,
    Tile,
    levels_of,
    tile_at,
    tiles_of,
)
from comity_client.audit_findings import Finding, Kind, Report
from comity_client.audit_source import AT_ONCE_MAX, PAGES_MAX, Source, SourceError
from comity_client.audit_statements import fetch_statements, served_statements
from comity_client.audit_tree import (
    Hashes,
    len_of,
    root_of,
    split_entries,
    split_hashes,
    tile_root,
)
from comity_protocol.checkpoint import WitnessedCheckpoint, note_hash, verify_anchor, verify_quorum
from comity_protocol.encoding import parse
from comity_protocol.errors import LimitError, MalformedError, VerificationError
from comity_protocol.evidence import Fork
from comity_protocol.fields import Fields, bytes_of
from comity_protocol.genesis import Genesis, verify_genesis
from comity_protocol.identifiers import DeploymentId
from comity_protocol.limits import (
    ANCHORS_PAGE_MAX,
    CHECKPOINTS_PAGE_MAX,
    NOTE_BYTES_MAX,
    STATEMENT_BYTES_MAX,
)
from comity_protocol.merkle import TILE_WIDTH, plan_consistency, prove
from comity_protocol.statements import SignedStatement

GENESIS_BYTES_MAX: Final = 2 * STATEMENT_BYTES_MAX
TILES_CACHED_MAX: Final = 64

Progress = Callable[[int, int], None]
"""Is told how many files are done, and of how many."""


class CopyError(VerificationError):
    """A folder whose genesis or checkpoint is not what it says."""

    remedy = (
        "compare the hash of the genesis with the one that was handed to you; take another copy, or"
        " `comity audit fsck FOLDER --repair SOURCE`"
    )


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch brought.

    Attributes:
        size: Entries of the log that the folder holds now.
        files: Tiles and bundles that were written.
        checkpoints: Other checkpoints that were written.
    """

    size: int
    files: int
    checkpoints: int


async def fetch(
    archive: Archive,
    source: Source,
    pinned: bytes | None,
    *,
    report: Report,
    progress: Progress = lambda _done, _of: None,
) -> Fetched:
    """Fetch what a source has and the folder has not.

    Args:
        archive: The folder, empty or from an earlier fetch.
        source: A relay or a mirror.
        pinned: Hash of the genesis, 32 bytes; None when the folder has been pinned before.
        report: Takes findings; after a fork nothing more is fetched.
        progress: Is called from time to time.

    Raises:
        OfflineError: The source does not answer; what was fetched is kept.
        SourceError: What it gave does not lead to the root.
        VerificationError: Its genesis or its checkpoint is not believable.
        ArchiveError: The folder is damaged where it is needed.
    """
    genesis = await pin_genesis(archive, source, pinned)
    note = await source.get(CHECKPOINT, NOTE_BYTES_MAX)
    if note is None:
        raise SourceError(f"{source.url} has no checkpoint")
    offered = verify_quorum(note, genesis.log, genesis.quorum)
    known = read_checkpoint(archive, genesis) or _newest_kept(archive, genesis)
    log = _Proven(archive, source, offered, genesis.deployment)
    await log.open()
    if known is not None and not await _continues(archive, log, known, (note, offered), report):
        return Fetched(known[1].checkpoint.size, 0, 0)
    files = await _Download(archive, source, log, progress).run()
    for name in sorted(log.other):
        text = "tile does not lead to the root; what lies above and below it was fetched without it"
        report(Finding(kind=Kind.DAMAGED_TILE, text=text, where=name))
    _keep_newest(archive, known, note, offered)
    notes = await _fetch_notes(archive, log, genesis, (note, offered), report)
    await fetch_statements(archive, source, offered.checkpoint.size, report)
    return Fetched(offered.checkpoint.size, files, notes)


def note_name(folder: str, size: int, note: bytes) -> str:
    """Name the file of a checkpoint that is kept beside the newest."""
    return f"{folder}/{size:012}-{note_hash(note).hex()[:16]}"


def read_checkpoint(archive: Archive, genesis: Genesis) -> tuple[bytes, WitnessedCheckpoint] | None:
    """Read the newest checkpoint of the folder; None when nothing was fetched yet.

    Raises:
        MalformedError, VerificationError: It is not believable.
    """
    note = archive.read(CHECKPOINT, NOTE_BYTES_MAX)
    if note is None:
        return None
    with named(CHECKPOINT):
        return note, verify_quorum(note, genesis.log, genesis.quorum)


def read_genesis(archive: Archive, pinned: bytes | None) -> Genesis | None:
    """Read the genesis of the folder; None when it has none.

    Raises:
        VerificationError: It is another than the pinned one, or is not properly signed.
    """
    data = archive.read(GENESIS, GENESIS_BYTES_MAX)
    if data is None:
        return None
    with named(GENESIS):
        return _verified_genesis(data, pinned)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Put a file's name before what is wrong with it."""
    try:
        yield
    except (MalformedError, VerificationError) as error:
        raise CopyError(f"{name}: {error}") from error


def _newest_kept(archive: Archive, genesis: Genesis) -> tuple[bytes, WitnessedCheckpoint] | None:
    """Read the largest of the kept checkpoints, for a folder whose newest one is gone."""
    name = max(archive.names(CHECKPOINTS), default="")
    note = archive.read(name, NOTE_BYTES_MAX) if name else None
    if note is None:
        return None
    with named(name):
        return note, verify_quorum(note, genesis.log, genesis.quorum)


async def pin_genesis(archive: Archive, source: Source, pinned: bytes | None) -> Genesis:
    """Take the genesis from the folder, or from the source when it is the pinned one."""
    known = read_genesis(archive, pinned)
    if known is not None:
        return known
    if pinned is None:
        raise ArchiveError(
            f"{archive.folder} has no genesis yet; say with --genesis which one you expect"
        )
    data = await source.get("v1/genesis", GENESIS_BYTES_MAX)
    if data is None:
        # A mirror has it as the first of the statements.
        first = [one async for one in served_statements(source, 0, pages_max=1)][:1]
        data = first[0].serialize() if first else None
    if data is None:
        raise SourceError(f"{source.url} has no genesis; fetch from the relay or a mirror")
    genesis = _verified_genesis(data, pinned)
    archive.put(GENESIS, data)
    return genesis


def _verified_genesis(data: bytes, pinned: bytes | None) -> Genesis:
    signed = SignedStatement.parse(data)
    # SPEC [D-1]: the genesis is the one that was pinned.
    if pinned is not None and signed.hash != pinned:
        raise VerificationError(
            f"genesis has hash {signed.hash.hex()}, expected {pinned.hex()}: another deployment"
        )
    return verify_genesis(signed)


# --- What is proven to be in the log


class _Proven:
    """Tiles of one witnessed checkpoint, each verified before it is given.

    Attributes:
        other: Files of the folder that are not those of this checkpoint; they were passed over.
    """

    def __init__(
        self,
        archive: Archive,
        source: Source,
        head: WitnessedCheckpoint,
        deployment: DeploymentId,
    ) -> None:
        self._archive: Final = archive
        self.source: Final = source
        self.deployment: Final = deployment
        self.size: Final = head.checkpoint.size
        self.root: Final = head.checkpoint.root
        self.edge: list[Hashes] = []
        self.other: set[str] = set()
        self._known: Final[OrderedDict[tuple[int, int], Hashes]] = OrderedDict()

    async def open(self) -> None:
        """Get the partial tiles, which together lead to the root.

        Raises:
            SourceError: Those of the source do not.
        """
        levels = range(levels_of(self.size))
        tiles = [tile_at(level, len_of(self.size, level), self.size) for level in levels]
        kept = [self._kept(tile) if tile.width else [] for tile in tiles]
        known = [run for run in kept if run is not None]
        if len(known) == len(kept) and root_of(known) == self.root:
            self.edge = known
            return
        self.edge = [await self._served(tile) if tile.width else [] for tile in tiles]
        if root_of(self.edge) != self.root:
            raise SourceError("last tiles of the log do not lead to the root of its checkpoint")
        self.other |= {
            tile.path
            for tile, mine, right in zip(tiles, kept, self.edge, strict=True)
            if mine is not None and mine != right
        }

    async def tile(self, level: int, index: int) -> Hashes:
        """Give the hashes of a tile, full or the last of its level."""
        if index == len_of(self.size, level):
            return self.edge[level]
        key = (level, index)
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
            return found
        upper, place = divmod(index, TILE_WIDTH)
        parent = (await self.tile(level + 1, upper))[place]
        tile = Tile(level, index)
        hashes = self._kept(tile)
        if hashes is None or tile_root(hashes) != parent:
            if hashes is not None:
                self.other.add(tile.path)
            hashes = await self._served(tile)
        if tile_root(hashes) != parent:
            raise SourceError(f"{tile.path} does not lead to the root of the checkpoint")
        self._known[key] = hashes
        if len(self._known) > TILES_CACHED_MAX:
            self._known.popitem(last=False)
        return hashes

    async def root_at(self, size: int) -> bytes:
        """Compute the root that the log had at an earlier size."""
        runs: list[Hashes] = []
        for level in range(levels_of(size)):
            index, width = divmod(size >> (8 * level), TILE_WIDTH)
            runs.append((await self.tile(level, index))[:width] if width else [])
        return root_of(runs)

    async def proof_from(self, size: int) -> tuple[bytes, ...]:
        """Compute the consistency proof from an earlier size."""
        plan = plan_consistency(size, self.size)
        runs = []
        for read in plan.reads:
            index, first = divmod(read.start, TILE_WIDTH)
            runs.append((await self.tile(read.level, index))[first : first + read.count])
        return prove(plan, runs)

    def _kept(self, tile: Tile) -> Hashes | None:
        data = self._archive.read(tile.path, tile.byte_size)
        return None if data is None else split_hashes(data, tile.width)

    async def _served(self, tile: Tile) -> Hashes:
        data = await get_tile(self.source, tile)
        hashes = split_hashes(data, tile.width)
        if hashes is None:
            raise SourceError(f"{tile.path} is {len(data):,} bytes, expected {tile.byte_size:,}")
        return hashes


async def get_tile(source: Source, tile: Tile) -> bytes:
    """Fetch a tile or a bundle; of a partial one that is gone, the beginning of the full one.

    Raises:
        SourceError: The source has neither.
    """
    data = await source.get(tile.path, tile.byte_size)
    if data is None and tile.width < TILE_WIDTH:
        full = Tile(tile.level, tile.index)
        data = await source.get(full.path, full.byte_size)
        data = None if data is None else data[: tile.byte_size]
    if data is None:
        raise SourceError(f"{source.url} has no {tile.path}")
    return data


async def _continues(
    archive: Archive,
    log: _Proven,
    known: tuple[bytes, WitnessedCheckpoint],
    offered: tuple[bytes, WitnessedCheckpoint],
    report: Report,
) -> bool:
    """Whether a checkpoint is to be fetched after the one in the folder; a fork is reported."""
    if offered[1].checkpoint.size >= known[1].checkpoint.size:
        return not await _report_fork(archive, log, known, offered, report)
    before = _Proven(archive, log.source, known[1], log.deployment)
    await before.open()
    if not await _report_fork(archive, before, offered, known, report):
        text = (
            f"source shows {offered[1].checkpoint.size:,} entries,"
            f" {known[1].checkpoint.size:,} were shown before"
        )
        report(Finding(kind=Kind.ROLLBACK, text=text, where=log.source.url))
    return False


async def _report_fork(
    archive: Archive,
    log: "_Proven",
    first: tuple[bytes, WitnessedCheckpoint],
    second: tuple[bytes, WitnessedCheckpoint],
    report: Report,
) -> bool:
    """Compare a checkpoint with a proven one of at least its size; whether the log has forked."""
    old, new = first[1].checkpoint, second[1].checkpoint
    root = await log.root_at(old.size)
    # SPEC [L-6]: a size never goes back and one size has one root.
    if root == old.root:
        return False
    proof = () if old.size == new.size else (root, *await log.proof_from(old.size))
    evidence = Fork(log.deployment, first[0], second[0], proof).serialize()
    name = f"{EVIDENCE}/fork-{sha256(evidence).hexdigest()[:16]}.cbor"
    archive.put(name, evidence)
    text = (
        f"checkpoints of {old.size:,} and of {new.size:,} entries exclude each other:"
        " the log has forked"
    )
    report(Finding(kind=Kind.FORK, text=text, where=log.source.url, evidence=name))
    return True


# --- Tiles and entries


class _Download:
    """Brings every tile and bundle of a checkpoint that the folder does not have."""

    def __init__(self, archive: Archive, source: Source, log: _Proven, progress: Progress) -> None:
        self._archive: Final = archive
        self.source: Final = source
        self._log: Final = log
        self._progress: Final = progress
        self._written = 0

    async def run(self) -> int:
        size = self._log.size
        done, total = 0, sum(1 for _ in tiles_of(size))
        for batch in _batches(tiles_of(size), AT_ONCE_MAX):
            missing = [t for t in batch if not self._archive.has(t.path, t.byte_size)]
            async with _tasks() as group:
                for tile in missing:
                    group.create_task(self._bring(tile))
            done += len(batch)
            self._progress(done, total)
        return self._written

    async def _bring(self, tile: Tile) -> None:
        if tile.level is not None:
            data = b"".join(await self._log.tile(tile.level, tile.index))
        else:
            data = await get_tile(self.source, tile)
            await self._check_bundle(tile, data)
        # What lies there has another length, so it is no verified file.
        self._archive.replace(tile.path, data)
        self._written += 1

    async def _check_bundle(self, tile: Tile, data: bytes) -> None:
        entries = split_entries(data, tile.width)
        hashes = await self._log.tile(0, tile.index)
        if entries is None or [sha256(b"\x00" + entry).digest() for entry in entries] != hashes:
            raise SourceError(f"{tile.path} does not lead to the root of the checkpoint")


class _tasks:  # noqa: N801  # used as a context manager, like TaskGroup
    """A task group that raises the first error itself, not a group of them."""

    def __init__(self) -> None:
        self._group: Final = asyncio.TaskGroup()

    async def __aenter__(self) -> asyncio.TaskGroup:
        return await self._group.__aenter__()

    async def __aexit__(self, *details: object) -> None:
        try:
            await self._group.__aexit__(*details)  # type: ignore[arg-type]
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


def _batches(tiles: Iterable[Tile], count: int) -> Iterable[list[Tile]]:
    batch: list[Tile] = []
    for tile in tiles:
        batch.append(tile)
        if len(batch) == count:
            yield batch
            batch = []
    if batch:
        yield batch


def _keep_newest(
    archive: Archive,
    known: tuple[bytes, WitnessedCheckpoint] | None,
    note: bytes,
    offered: WitnessedCheckpoint,
) -> None:
    """Put the new checkpoint in its place, and take away partial tiles that it has outgrown."""
    if known is not None and known[0] != note:
        archive.put(note_name(CHECKPOINTS, known[1].checkpoint.size, known[0]), known[0])
    archive.replace(CHECKPOINT, note, durably=True)
    if known is not None:
        wanted = {tile.path for tile in _edge_tiles(offered.checkpoint.size)}
        for tile in _edge_tiles(known[1].checkpoint.size):
            if tile.path not in wanted:
                archive.remove(tile.path)


def _edge_tiles(size: int) -> list[Tile]:
    found = [
        tile_at(level, len_of(size, level or 0), size)
        for level in (None, *range(levels_of(size)))
        if size
    ]
    return [tile for tile in found if tile.width]


# --- Checkpoints, anchors


async def _fetch_notes(
    archive: Archive,
    log: _Proven,
    genesis: Genesis,
    newest: tuple[bytes, WitnessedCheckpoint],
    report: Report,
) -> int:
    """Fetch published checkpoints and anchors, as far as the source serves them."""
    written, source = 0, log.source
    kinds: Sequence[tuple[str, Callable[[bytes], WitnessedCheckpoint]]] = (
        (CHECKPOINTS, lambda note: verify_quorum(note, genesis.log, genesis.quorum)),
    )
    if (anchors := genesis.anchors) is not None:
        kinds = (
            *kinds,
            (ANCHORS, lambda note: verify_anchor(note, genesis.origin, anchors.quorum)),
        )
    for folder, verify in kinds:
        last, known = _last_size(archive, folder)
        async for note in _notes(source, folder, last - 1, known):
            try:
                witnessed = verify(note)
            except (MalformedError, VerificationError, LimitError) as error:
                kind = Kind.ANCHOR if folder == ANCHORS else Kind.CHECKPOINT
                report(Finding(kind=kind, text=f"source served: {error}", where=source.url))
                break
            head = witnessed.checkpoint
            # What is published meanwhile is left for the next fetch.
            if not last <= head.size <= log.size:
                break
            last = head.size
            if await _report_fork(archive, log, (note, witnessed), newest, report):
                break
            archive.put(note_name(folder, head.size, note), note)
            written += 1
    return written


async def _notes(source: Source, folder: str, after: int, skip: int) -> AsyncIterator[bytes]:
    """Page through published checkpoints, which are ascending and only grow at their end."""
    limit = ANCHORS_PAGE_MAX if folder == ANCHORS else CHECKPOINTS_PAGE_MAX
    for _ in range(PAGES_MAX):
        path = f"v1/{folder}?after={after}&skip={skip}&limit={limit}"
        data = await source.get(path, limit * NOTE_BYTES_MAX)
        if data is None:
            return
        items = Fields.of(parse(data), "page of checkpoints", {"items"}).array("items", high=limit)
        for item in items:
            yield bytes_of(item, "checkpoint", low=1, high=NOTE_BYTES_MAX)
        skip += len(items)
        if len(items) < limit:
            return


def _last_size(archive: Archive, folder: str) -> tuple[int, int]:
    """Give the largest size among kept checkpoints, 0 for none, and how many have it."""
    names = [name.rpartition("/")[2].partition("-")[0] for name in archive.names(folder)]
    sizes = [int(name) for name in names if name.isascii() and name.isdecimal()]
    return (max(sizes), sizes.count(max(sizes))) if sizes else (0, 0)
