"""G: the log at a size of many leaves: appending, stating the head, proving, serving proofs."""

import asyncio
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Final

from aiohttp import ClientSession
from nacl.signing import SigningKey

from comity_protocol.checkpoint import open_checkpoint, sign_checkpoint
from comity_protocol.encoding import parse
from comity_protocol.leaves import LEAF_BYTES
from comity_protocol.merkle import Frontier, leaf_hash, plan_inclusion, verify_inclusion
from comity_protocol.signed_note import VerifierKey
from comity_protocol.wire import CHECKPOINT
from comity_server.log import Log
from comity_server.stores import open_store
from connections import WAIT_SECONDS_MAX
from deployment import Deployment
from machine import first_line, running
from relays import SQLITE, Database, Running, relay

ENTRIES: Final = 1_000_000
_ORIGIN: Final = "comity.example/bench"
_BATCH: Final = 128
_BATCHES: Final = 50
_PROOFS: Final = 400
_WARM: Final = 20
_ASK_SECONDS: Final = 0.1
_CHUNK: Final = 65_536
_MICROSECONDS: Final = 1e6
_MILLISECONDS: Final = 1e3
_KIND: Final = b"\x00"


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of one thing done again and again.

    Attributes:
        middle: The median.
        late: What 99 of 100 did not exceed.
    """

    middle: float
    late: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Times":
        """Leave the first ones out, which find nothing in memory."""
        found = sorted(one * _MILLISECONDS for one in seconds[_WARM:])
        return cls(median(found), found[int(0.99 * len(found))])


@dataclass(frozen=True, slots=True)
class LogTimes:
    """Medians, and of proofs 99 % as well.

    Attributes:
        append: Microseconds for each leaf of a batch of 128: its hash and the frontier's growth.
        head: Microseconds for each batch: root, frontier as stored, signature.
        proof: One inclusion proof, computed from SQLite as the relay does.
        select: Reading the rows that a proof stands on, with the driver alone.
        served: ``GET /v1/proof`` of a relay, asked one after the other over one connection.
        bare: The bare web server, asked in the same way.
        proof_bytes: Size of the hashes of a proof.
    """

    append: float
    head: float
    proof: Times
    select: Times
    served: Times
    bare: Times
    proof_bytes: int


async def run(folder: Path, size: int) -> LogTimes:
    """Build a log of ``size`` leaves in SQLite, random behind the statements, and measure."""
    deployment = Deployment.found(2)
    path = folder / "relay.sqlite"
    store = await deployment.prepare(f"sqlite:///{path}")
    head = await store.head()
    frontier = _fill(path, Frontier.parse(head.frontier), size)
    await store.close()
    append, stated = _grow(frontier, SigningKey.generate())
    full = Database(SQLITE, f"sqlite:///{path}")
    async with relay(deployment, full, folder, is_prepared=True) as serving:
        await _covered(serving, size)
        log_key = deployment.world.genesis.log
        served = await _serve(serving, log_key, size)
        bare = await _bare(folder)
        proof, proof_bytes = await _prove(full.url, log_key, size)
        select = _select(path, size)
    return LogTimes(append, stated, proof, select, served, bare, proof_bytes)


async def _covered(serving: Running, size: int) -> None:
    """Wait until a witnessed checkpoint covers everything."""
    async with asyncio.timeout(WAIT_SECONDS_MAX), ClientSession() as http:
        while True:
            async with http.get(serving.url + CHECKPOINT) as answer:
                if int((await answer.text()).split("\n")[1]) >= size:
                    return
            await asyncio.sleep(_ASK_SECONDS)


async def _serve(serving: Running, key: VerifierKey, size: int) -> Times:
    seconds: list[float] = []
    async with ClientSession() as http:
        for _ in range(_PROOFS):
            index = secrets.randbelow(size)
            started = time.perf_counter()
            async with http.get(f"{serving.url}/v1/proof/{index}") as answer:
                body = await answer.read()
            seconds.append(time.perf_counter() - started)
            value = parse(body)
            assert isinstance(value, dict), value
            note = value["note"]
            assert isinstance(note, bytes), value
            assert open_checkpoint(note, key).size >= size
    return Times.of(seconds)


async def _bare(folder: Path) -> Times:
    seconds: list[float] = []
    program = Path(__file__).with_name("floor_program.py")
    with running([program], log=folder / "floor.log") as process:
        url = f"http://127.0.0.1:{first_line(process)}/"
        async with ClientSession() as http:
            for _ in range(_PROOFS):
                started = time.perf_counter()
                async with http.post(url, data=b"") as answer:
                    await answer.read()
                seconds.append(time.perf_counter() - started)
    return Times.of(seconds)


async def _prove(url: str, key: VerifierKey, size: int) -> tuple[Times, int]:
    store = open_store(url)
    await store.open()
    log = Log(store, key)
    await log.refresh()
    root = open_checkpoint(log.newest().note, key).root
    seconds: list[float] = []
    proof: tuple[bytes, ...] = ()
    for _ in range(_PROOFS):
        index = secrets.randbelow(size)
        started = time.perf_counter()
        proof = await log.inclusion(index, log.size)
        seconds.append(time.perf_counter() - started)
        (leaf,) = await store.leaves(index, 1)
        verify_inclusion(leaf_hash(leaf), index, log.size, root, proof)
    await store.close()
    return Times.of(seconds), sum(map(len, proof))


def _select(path: Path, size: int) -> Times:
    connection = sqlite3.connect(path)
    seconds: list[float] = []
    for _ in range(_PROOFS):
        reads = plan_inclusion(secrets.randbelow(size), size).reads
        started = time.perf_counter()
        for read in reads:
            place = (read.start, read.start + read.count)
            if read.level:
                connection.execute(_TILES, (read.level, *place)).fetchall()
            else:
                connection.execute(_LEAVES, place).fetchall()
        seconds.append(time.perf_counter() - started)
    connection.close()
    return Times.of(seconds)


_LEAVES: Final = (
    "SELECT data FROM leaves WHERE leaf_index >= ? AND leaf_index < ? ORDER BY leaf_index"
)
_TILES: Final = (
    "SELECT hash FROM tile_hashes WHERE level = ? AND position >= ? AND position < ?"
    " ORDER BY position"
)


def _fill(path: Path, frontier: Frontier, size: int) -> Frontier:
    """Write leaves, tile hashes and the head as the relay would have, many at a time."""
    connection = sqlite3.connect(path)
    while frontier.size < size:
        count = min(_CHUNK, size - frontier.size)
        leaves = [_KIND + secrets.token_bytes(LEAF_BYTES - 1) for _ in range(count)]
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
    connection.execute(
        "UPDATE head SET size = ?, root = ?, frontier = ?",
        (frontier.size, frontier.root, frontier.serialize()),
    )
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
