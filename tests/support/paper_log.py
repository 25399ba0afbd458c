"""A whole log in memory with everyone's keys, as files of C2SP tlog-tiles, and servers of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

from aiohttp import web

from comity_client.audit_archive import Tile, tiles_of
from comity_protocol.checkpoint import add_signatures, cosign, cosign_anchor, sign_checkpoint
from comity_protocol.encoding import parse, serialize
from comity_protocol.leaves import statement_leaf
from comity_protocol.merkle import Frontier, leaf_hash
from comity_protocol.statements import SignedStatement
from support.world import World

NOW: Final = 1_800_000_000
TILE: Final = 256


def entry(number: int, salt: bytes = b"") -> bytes:
    """Give an entry as an envelope's looks."""
    tag = sha256(b"tag" + salt + number.to_bytes(8, "big")).digest()
    return b"\x00" + tag + sha256(tag).digest()


@dataclass
class PaperLog:
    """The log of a world: its statements first, then entries as of envelopes."""

    world: World
    size: int
    salt: bytes = b""
    statements: list[SignedStatement] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.statements = self.statements or [signed for _, signed in self.world.statements]

    @cached_property
    def entries(self) -> list[bytes]:
        """All entries."""
        own = [statement_leaf(signed.payload) for signed in self.statements]
        return own + [entry(number, self.salt) for number in range(self.size - len(own))]

    @cached_property
    def hashes(self) -> dict[int, list[bytes]]:
        """Hashes by tile level."""
        lowest = [leaf_hash(one) for one in self.entries]
        levels = {0: lowest}
        for tile in Frontier().grow(lowest).tile_hashes:
            levels.setdefault(tile.level, []).append(tile.hash)
        return levels

    def root(self, size: int) -> bytes:
        """The root at a size."""
        return Frontier().extend(self.hashes[0][:size]).root

    def note(self, size: int | None = None, *, at: int = NOW, by: int | None = None) -> bytes:
        """A checkpoint, cosigned by all witnesses or the first ones."""
        world = self.world
        size = self.size if size is None else size
        signed = sign_checkpoint(
            origin=world.genesis.origin, size=size, root=self.root(size), key=world.log_key
        )
        keys = sorted(world.witness_keys.items())[:by]
        return add_signatures(signed, [cosign(signed, name, key, at) for name, key in keys])

    def anchor(self, size: int, at: int = NOW) -> bytes:
        """A checkpoint with ML-DSA-44 cosignatures."""
        note = self.note(size)
        keys = self.world.anchor_keys.items()
        return add_signatures(note, [cosign_anchor(note, name, key, at) for name, key in keys])

    def read(self, level: int, start: int, count: int) -> list[bytes]:
        """Hashes, as the functions of ``merkle`` read them."""
        return self.hashes[level][start : start + count]

    def tile(self, tile: Tile) -> bytes:
        """The content of a tile or bundle."""
        start = tile.index * TILE
        if tile.level is None:
            own = self.entries[start : start + tile.width]
            return b"".join(len(one).to_bytes(2, "big") + one for one in own)
        return b"".join(self.hashes[tile.level][start : start + tile.width])

    def tiles(self, size: int | None = None) -> dict[str, bytes]:
        """Checkpoint, tiles and bundles by their names."""
        size = self.size if size is None else size
        return {
            "checkpoint": self.note(size),
            **{tile.path: self.tile(tile) for tile in tiles_of(size)},
        }

    def files(self, size: int | None = None) -> dict[str, bytes]:
        """What a mirror serves: the tiles, the genesis and the statements."""
        return {
            **self.tiles(size),
            "v1/genesis": self.statements[0].serialize(),
            "statements?after=0": self.statement_list,
        }

    @property
    def statement_list(self) -> bytes:
        """The statements as a mirror serves them."""
        bare = [SignedStatement(one.payload, one.signatures) for one in self.statements]
        return serialize([parse(one.serialize()) for one in bare])

    @property
    def pinned(self) -> bytes:
        """The hash of the genesis."""
        return self.statements[0].hash

    def write(self, folder: Path, size: int | None = None) -> None:
        """Write the folder as a fetch leaves it."""
        files = self.files(size)
        files["genesis.cbor"] = files.pop("v1/genesis")
        files["statements.cbor"] = files.pop("statements?after=0")
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


@dataclass
class Mirror:
    """A server of files, which a test makes lie.

    Attributes:
        files: By name without a leading slash; with the query, if any.
        asked: Names in the order in which they were asked for.
        slow: Names that never end: a byte comes now and then.
        endless: Names whose answer has no end.
    """

    files: dict[str, bytes]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    slow: set[str] = field(default_factory=set)
    endless: set[str] = field(default_factory=set)


@asynccontextmanager
async def mirror(files: Mapping[str, bytes]) -> AsyncIterator[Mirror]:
    """Serve files on 127.0.0.1."""
    served = Mirror(dict(files))

    async def answer(request: web.Request) -> web.StreamResponse:
        name = request.path_qs.removeprefix("/")
        served.asked.append(name)
        if name in served.slow | served.endless:
            return await _drip(request, served, name)
        data = served.files.get(name)
        return web.Response(status=404) if data is None else web.Response(body=data)

    app = web.Application()
    app.router.add_get("/{name:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        served.url = f"http://{host}:{port}"
        yield served
    finally:
        await runner.cleanup()


@contextmanager
def mirror_in_a_thread(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve files to a program that has an event loop of its own; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that the library calls
            data = files.get(self.path.removeprefix("/"))
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_details: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def _drip(request: web.Request, served: Mirror, name: str) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        for _ in range(10_000):
            await response.write(bytes(65_536) if name in served.endless else b"x")
            if name in served.slow:
                await asyncio.sleep(0.05)
    except (ConnectionError, asyncio.CancelledError):
        pass
    return response
