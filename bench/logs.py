"""G: the log at a size of many leaves: appending, stating the head, proving."""

import secrets
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Final

from nacl.signing import SigningKey

from comity_protocol.checkpoint import sign_checkpoint
from comity_protocol.leaves import LEAF_BYTES
from comity_protocol.merkle import Frontier, leaf_hash, verify_inclusion
from comity_protocol.signed_note import KeyType, VerifierKey
from comity_server.log import Log
from comity_server.stores import open_store

_ORIGIN: Final = "comity.example/bench"
_BATCH: Final = 128
_BATCHES: Final = 50
_PROOFS: Final = 200
_CHUNK: Final = 65_536
_MICROSECONDS: Final = 1e6


@dataclass(frozen=True, slots=True)
class LogTimes:
    """Medians.

    Attributes:
        append: Microseconds for each leaf of a batch of 128: its hash and the frontier's growth.
        head: Microseconds for each batch: root, frontier as stored, signature.
        proof: Milliseconds of one inclusion proof, read from SQLite.
        proof_bytes: Its size.
    """

    append: float
    head: float
    proof: float
    proof_bytes: int


async def run(folder: Path, size: int) -> LogTimes:
    """Build a log of ``size`` random leaves in SQLite and measure at its end."""
    url = f"sqlite:///{folder / 'log.sqlite'}"
    store = open_store(url)
    await store.open()
    frontier = _fill(folder / "log.sqlite", size)
    key = SigningKey.generate()
    append, head = _grow(frontier, key)
    log = Log(store, VerifierKey(_ORIGIN, KeyType.ED25519, bytes(key.verify_key)))
    seconds: list[float] = []
    proof: tuple[bytes, ...] = ()
    for _ in range(_PROOFS):
        index = secrets.randbelow(size)
        started = time.perf_counter()
        proof = await log.inclusion(index, size)
        seconds.append(time.perf_counter() - started)
        (leaf,) = await store.leaves(index, 1)
        verify_inclusion(leaf_hash(leaf), index, size, frontier.root, proof)
    await store.close()
    return LogTimes(append, head, median(seconds) * 1_000, sum(map(len, proof)))


def _fill(path: Path, size: int) -> Frontier:
    """Write leaves and tile hashes as the relay would have, many at a time."""
    connection = sqlite3.connect(path)
    frontier = Frontier()
    while frontier.size < size:
        leaves = [secrets.token_bytes(LEAF_BYTES) for _ in range(min(_CHUNK, size - frontier.size))]
        growth = frontier.grow(map(leaf_hash, leaves))
        connection.executemany(
            "INSERT INTO leaves (leaf_index, data) VALUES (?, ?)",
            enumerate(leaves, start=frontier.size),
        )
        connection.executemany(
            "INSERT INTO tile_hashes (level, position, hash) VALUES (?, ?, ?)",
            ((tile.level, tile.index, tile.hash) for tile in growth.tile_hashes),
        )
        frontier = growth.frontier
    connection.commit()
    connection.close()
    return frontier


def _grow(frontier: Frontier, key: SigningKey) -> tuple[float, float]:
    appends, heads = [], []
    for batch in islice(_batches(), _BATCHES):
        started = time.perf_counter()
        frontier = frontier.grow([leaf_hash(leaf) for leaf in batch]).frontier
        grown = time.perf_counter()
        frontier.serialize()
        sign_checkpoint(origin=_ORIGIN, size=frontier.size, root=frontier.root, key=key)
        appends.append((grown - started) / _BATCH * _MICROSECONDS)
        heads.append((time.perf_counter() - grown) * _MICROSECONDS)
    return median(appends), median(heads)


def _batches() -> Iterator[list[bytes]]:
    while True:
        yield [secrets.token_bytes(LEAF_BYTES) for _ in range(_BATCH)]
