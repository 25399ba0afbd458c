"""Databases and relays to measure, each made new and gone at the end of its block."""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deployment import Deployment
from machine import cpu_seconds, first_line, running
from support.postgres import PostgresServer
from support.world import World

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"

# Quotas far above what can be measured, and sockets for the row of memory.
_SETTINGS: Final = {
    "COMITY_DESK_ENVELOPES_PER_SECOND": "1e9",
    "COMITY_DESK_ENVELOPES_BURST": "1000000000",
    "COMITY_DESK_BYTES_PER_SECOND": "1e12",
    "COMITY_DESK_BYTES_BURST": "1000000000000",
    "COMITY_DEVICE_SOCKETS": "64",
    "COMITY_PORT": "0",
}


@dataclass(frozen=True, slots=True)
class Database:
    """An empty database.

    Attributes:
        kind: ``sqlite`` or ``postgresql``.
        url: As the relay takes it.
        postmaster: Process id of its server; None for SQLite.
    """

    kind: str
    url: str
    postmaster: int | None = None

    @property
    def address(self) -> str:
        """As asyncpg takes it."""
        return self.url.replace("+asyncpg", "")


@dataclass(frozen=True, slots=True)
class Running:
    """A relay that answers.

    Attributes:
        url: Where.
        pid: Its process id.
        pids: The same, and that of its PostgreSQL.
    """

    url: str
    pid: int
    pids: tuple[int, ...]

    def cpu_seconds(self) -> float:
        """Processor time so far of relay and database."""
        return cpu_seconds(*self.pids)


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder on a disk, not in memory: a flush has to cost what it costs."""
    folder = Path(tempfile.mkdtemp(prefix="comity-bench-", dir=os.environ.get("BENCH_DIR")))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def database(kind: str, folder: Path) -> Iterator[Database]:
    """Make an empty database of a kind."""
    if kind == SQLITE:
        yield Database(SQLITE, f"sqlite:///{folder / 'relay.sqlite'}")
        return
    # Beside our folder: PostgreSQL's user may not enter ours.
    with PostgresServer(folder.parent) as server:
        yield Database(POSTGRESQL, server.create_database(), server.pid)


@asynccontextmanager
async def relay(
    deployment: Deployment,
    database: Database,
    folder: Path,
    *,
    is_prepared: bool = False,
    started: Callable[[], None] = lambda: None,
    witnesses: Sequence[str] = (),
) -> AsyncIterator[Running]:
    """Run a relay of a deployment on a database, with its witness.

    Args:
        deployment: Whose keys it has.
        database: Empty, or prepared by the caller.
        folder: Where its files go; those of an earlier run of the same relay continue.
        is_prepared: Whether the database knows the deployment already.
        started: Called at the moment at which the relay's process is started.
        witnesses: Addresses of those that run already; the one witness is run without any.
    """
    if not is_prepared:
        await (await deployment.prepare(database.url)).close()
    world = deployment.world
    data = folder / "data"
    _install(data, world)
    async with AsyncExitStack() as stack:
        urls = " ".join(witnesses) or await _one_witness(world, folder, stack)
        environment = {
            **_SETTINGS,
            "COMITY_DATA": str(data),
            "COMITY_DATABASE": database.url,
            "COMITY_WITNESSES": urls,
        }
        started()
        process = stack.enter_context(
            running(["-m", "comity_server", "serve"], environment=environment, log=folder / "log")
        )
        url: str = json.loads(await asyncio.to_thread(first_line, process))["url"]
        others = (database.postmaster,) if database.postmaster else ()
        yield Running(url, process.pid, (process.pid, *others))


async def _one_witness(world: World, folder: Path, stack: AsyncExitStack) -> str:
    ((name, key),) = world.witness_keys.items()
    witness = stack.enter_context(
        running(
            [
                *(Path(__file__).with_name("witness_program.py"), folder),
                *(name, world.genesis.log.serialize()),
            ],
            environment={"WITNESS_SEED": bytes(key).hex()},
            log=folder / "witness.log",
        )
    )
    return await asyncio.to_thread(first_line, witness)


def _install(data: Path, world: World) -> None:
    """Write what ``comity-relay keys`` and ``comity-relay init`` leave behind."""
    data.mkdir(mode=0o700, exist_ok=True)
    files = {
        "log.key": bytes(world.log_key),
        "relay.key": world.relay_key.seed,
        "genesis.cbor": world.statements[0][1].serialize(),
    }
    for name, content in files.items():
        (data / name).write_bytes(content)
        (data / name).chmod(0o600)
