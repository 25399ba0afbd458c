"""Witnesses as States run them: processes of their own that call a relay, replay and mirror it.

The relay is a process too and can call none of them. They are killed while they append, and the
folder of one is put back from a backup: [W-1] [W-6] [W-8].
"""

import asyncio
import json
import shutil
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from comity_client.witness_folder import RETIRED_FILE, _write_key
from comity_client.witness_mirror import ENTRIES_FILE
from comity_client.witness_program import MIRROR_FOLDER
from comity_client.witness_state import KEY_FILE, STATE_FILE, WitnessKey, WitnessState
from comity_protocol.checkpoint import verify_quorum
from comity_protocol.leaves import LEAF_BYTES
from comity_protocol.merkle import Frontier, leaf_hash
from support.process import RelayProcess
from support.relay import small_world
from support.world import World

SECONDS_MAX: Final = 40
LINKED: Final = {"COMITY_WITNESS_LINKS": "yes"}


@dataclass
class Deployed:
    """A relay's process and what its witnesses are started with."""

    folder: Path
    world: World
    relay: RelayProcess
    session: aiohttp.ClientSession
    posted: int = 1

    @property
    def names(self) -> Sequence[str]:
        return sorted(self.world.witness_keys)

    def data(self, name: str) -> Path:
        return self.folder / name

    @asynccontextmanager
    async def witness(self, name: str, *more: str) -> AsyncIterator["WitnessProcess"]:
        """Run one that calls the relay; it is ended with the block, unless it ended before."""
        words = ["-m", "comity_client", "witness", "--name", name, "--data", str(self.data(name))]
        words += ["--relay", self.relay.url, "--genesis", str(self.folder / "genesis")]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(*words, *more),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        running = WitnessProcess(process)
        try:
            yield running
        finally:
            if process.returncode is None:
                process.terminate()
            await running.end()

    async def get(self, url: str) -> bytes:
        async with self.session.get(url) as response:
            assert response.status == 200, (url, response.status)
            return await response.read()

    async def note(self, base: str = "") -> bytes:
        async with self.session.get((base or self.relay.url) + "/checkpoint") as response:
            return await response.read() if response.status == 200 else b""

    async def post(self, count: int) -> None:
        """Post so many more statements of the world; the relay may have to be asked twice."""
        headers = {"Content-Type": "application/cbor"}
        url = f"{self.relay.url}/v1/statements"
        for _, signed in self.world.statements[self.posted : self.posted + count]:
            body = signed.serialize()

            async def post_one(body: bytes = body) -> bytes:
                async with self.session.post(url, data=body, headers=headers) as response:
                    assert response.status in {200, 503}, await response.read()
                    return await response.read() if response.status == HTTPStatus.OK else b""

            await eventually(post_one)
        self.posted = min(self.posted + count, len(self.world.statements))

    async def covered(self, base: str = "") -> bytes:
        """Wait until a published checkpoint covers everything posted; gives it."""

        async def is_there() -> bytes:
            note = await self.note(base)
            size = int(note.split(b"\n")[1]) if note else 0
            return note if size >= self.posted else b""

        return await eventually(is_there)


@dataclass
class WitnessProcess:
    """A running witness."""

    process: asyncio.subprocess.Process

    async def ready(self) -> dict[str, str]:
        assert self.process.stdout is not None
        async with asyncio.timeout(SECONDS_MAX):
            ready: dict[str, str] = json.loads(await self.process.stdout.readline())
        return ready

    async def end(self) -> tuple[int, str]:
        """Wait until it has ended; gives its exit status and what it said."""
        async with asyncio.timeout(SECONDS_MAX):
            _, said = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, said.decode()


async def eventually(find: Callable[[], Awaitable[bytes]]) -> bytes:
    """Ask until there is something."""
    async with asyncio.timeout(SECONDS_MAX):
        for _ in count():
            if found := await find():
                return found
            await asyncio.sleep(0.05)
    raise AssertionError


@pytest.fixture
async def deployed(tmp_path: Path) -> AsyncIterator[Deployed]:
    """A relay that can call nobody, and folders with the keys of its witnesses."""
    world, *_ = small_world()
    relay = RelayProcess(tmp_path / "relay", world, witnesses=(), environment=LINKED)
    (tmp_path / "genesis").write_bytes(world.statements[0][1].serialize())
    for name, secret in world.witness_keys.items():
        data = tmp_path / name
        data.mkdir()
        public = WitnessKey(name, secret).verifier_key
        WitnessState.create(data / STATE_FILE, public).close()
        _write_key(data / KEY_FILE, public, bytes(secret))
    await relay.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Deployed(tmp_path, world, relay, session)
    finally:
        await relay.kill()


async def test_mirrors_without_a_port_of_their_own_hold_the_log_after_kills(
    deployed: Deployed,
) -> None:
    """[W-1] [W-6]"""
    one, other, third = deployed.names
    mirror = ("--mirror", "--no-listen")
    async with deployed.witness(other, *mirror):
        for step in range(2):
            async with deployed.witness(one, *mirror) as witness:
                assert "address" not in await witness.ready()
                await deployed.covered()
                await deployed.post(3)
                if step:
                    await deployed.covered()
                witness.process.kill()
        async with deployed.witness(one, "--mirror") as witness:
            address = (await witness.ready())["address"]
            await deployed.post(99)
            await deployed.covered()
            note = await deployed.covered(address)
            leaves = await deployed.get(f"{deployed.relay.url}/v1/leaves/0")
            size = len(leaves) // LEAF_BYTES
            hashes = await deployed.get(f"{address}/tile/0/000.p/{size}")
    genesis = deployed.world.genesis
    witnessed = verify_quorum(note, genesis.log, genesis.quorum)
    parts = [hashes[at : at + 32] for at in range(0, len(hashes), 32)]
    assert witnessed.checkpoint.root == Frontier().extend(parts).root
    assert parts == [leaf_hash(leaves[at : at + 65]) for at in range(0, len(leaves), 65)]
    for name in (one, other):
        kept = (deployed.data(name) / MIRROR_FOLDER / ENTRIES_FILE).read_bytes()
        assert kept == leaves
    assert not deployed.data(third).joinpath(MIRROR_FOLDER).exists()


@pytest.mark.long  # The short form, in one process, is in test_client/test_witness_program.py.
async def test_a_folder_put_back_from_a_backup_stops_its_witness_for_ever(
    deployed: Deployed,
) -> None:
    """[W-8]"""
    one, other, _ = deployed.names
    async with deployed.witness(other, "--no-listen", "--no-replay"):
        async with deployed.witness(one, "--no-listen"):
            await deployed.covered()
        shutil.copytree(deployed.data(one), deployed.folder / "backup")
        async with deployed.witness(one, "--no-listen"):
            await deployed.post(3)
            await deployed.covered()
        shutil.rmtree(deployed.data(one))
        shutil.copytree(deployed.folder / "backup", deployed.data(one))
        for expected in ("this witness is retired: the relay shows", "see the file retired"):
            async with deployed.witness(one, "--no-listen") as witness:
                status, said = await witness.end()
            assert (status, expected in said) == (1, True), said
    assert "put back from a backup" in (deployed.data(one) / RETIRED_FILE).read_text()


async def test_a_relay_that_was_restored_with_its_signer_is_refilled_from_a_mirror(
    deployed: Deployed,
) -> None:
    """[R-16] [R-17] [G-5] The relay can call nobody; its witnesses call it, and one is a mirror."""
    one, other, _ = deployed.names
    folder = deployed.relay.folder
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    mirror = ("--mirror", "--port", port)
    address = f"http://127.0.0.1:{port}"
    async with deployed.witness(other, "--no-listen"), deployed.witness(one, *mirror):
        await deployed.post(3)
        await deployed.covered()
        for name in ("signer.sqlite", "relay.sqlite"):
            with (
                closing(sqlite3.connect(folder / name)) as source,
                closing(sqlite3.connect(folder / f"{name}.backup")) as target,
            ):
                source.backup(target)
        await deployed.post(99)
        note = await deployed.covered(address)
        await deployed.relay.kill()
    for name in ("signer.sqlite", "relay.sqlite"):
        for end in ("-wal", "-shm", "-journal"):
            (folder / (name + end)).unlink(missing_ok=True)
        shutil.copy(folder / f"{name}.backup", folder / name)
    deployed.relay._environment["COMITY_MIRRORS"] = address
    await deployed.relay.start()
    async with deployed.witness(other, "--no-listen"), deployed.witness(one, *mirror):
        deployed.posted += 1  # The notice of the restore.
        after = await deployed.covered()

    size = int(note.split(b"\n")[1])
    assert int(after.split(b"\n")[1]) == size + 1
    events = deployed.relay.events()
    assert [events.count(event) for event in ("database-restored", "repair-finished")] == [1, 1]
