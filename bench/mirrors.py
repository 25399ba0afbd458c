"""R: what it costs a witness to replay the log and to mirror it, for each thousand entries."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from comity_client.witness_mirror import Mirror
from comity_client.witness_replay import Replay
from comity_client.witness_state import WitnessKey, WitnessState
from comity_protocol.limits import LEAVES_PAGE_MAX
from comity_protocol.statements import SignedStatement
from support.paper_log import PaperLog
from support.world import World

DESKS: Final = 8
_THOUSAND: Final = 1_000
_MILLISECONDS: Final = 1_000


@dataclass(frozen=True, slots=True)
class ReplayCost:
    """For each thousand entries.

    Attributes:
        replay: Milliseconds of a witness that replays; the network is not in it.
        mirror: Milliseconds of one that also keeps all entries, flushed at the end.
        floor: Milliseconds of hashing each entry and appending it to a file, flushed at the end.
        disk: Bytes by which the mirror's folder grew.
        fetched: Bytes of entries that were asked for.
    """

    replay: float
    mirror: float
    floor: float
    disk: float
    fetched: float


class _Source:
    """A relay in memory."""

    def __init__(self, log: PaperLog) -> None:
        self.fetched = 0
        self._log: Final = log

    async def leaves(self, start: int) -> tuple[bytes, ...]:
        """See ``witness_replay.EntrySource``."""
        page = tuple(self._log.entries[start : start + LEAVES_PAGE_MAX])
        self.fetched += sum(map(len, page))
        return page

    async def all_statements(self, after: int) -> tuple[SignedStatement, ...]:
        """See ``witness_replay.EntrySource``."""
        return tuple(self._log.statements[after:])


async def run(folder: Path, size: int) -> ReplayCost:
    """Replay a log of ``size`` entries from its start."""
    world = World.found()
    for _ in range(DESKS):
        world.create_desk("XA")
    log = PaperLog(world, size)
    source = _Source(log)
    entries = log.entries
    thousands = size / _THOUSAND
    replay = await _replay(folder / "light", world, log, source, None)
    fetched = source.fetched
    kept = folder / "entries"
    mirror = await _replay(folder / "memory", world, log, source, kept)
    disk = sum(path.stat().st_size for path in _files(kept))
    floor = _append(folder / "floor", entries)
    return ReplayCost(
        replay=replay * _MILLISECONDS / thousands,
        mirror=mirror * _MILLISECONDS / thousands,
        floor=floor * _MILLISECONDS / thousands,
        disk=disk / thousands,
        fetched=fetched / thousands,
    )


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def _replay(
    memory: Path, world: World, log: PaperLog, source: _Source, kept: Path | None
) -> float:
    """Give the seconds; with a folder to keep entries in, as a mirror."""
    name, key = next(iter(world.witness_keys.items()))
    state = WitnessState.create(memory, WitnessKey(name, key).verifier_key)
    mirror = None if kept is None else Mirror(kept, lambda skip, limit: [], lambda: b"")
    replay = Replay(state, source, world.genesis.origin, log.pinned, mirror)
    started = time.perf_counter()
    await replay.catch_up(log.size)
    if mirror is not None:
        mirror.sync()
    seconds = time.perf_counter() - started
    assert replay.size == log.size
    if mirror is not None:
        mirror.close()
    state.close()
    return seconds


def _append(path: Path, entries: Sequence[bytes]) -> float:
    started = time.perf_counter()
    with path.open("wb") as file:
        for entry in entries:
            sha256(entry).digest()
            file.write(entry)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - started
