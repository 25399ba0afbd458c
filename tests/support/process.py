"""The relay as an operator runs it: a process of its own, which a test may kill at any moment.

The process gets nothing of the test's environment but what it needs, listens on a free port of
127.0.0.1 and writes its log lines to a file in its folder.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from comity_client.witness import Witness, make_witness_runner, serve_witness
from comity_client.witness_state import WitnessKey, WitnessState
from comity_protocol.witnessing import AddCheckpoint
from support.world import World

START_SECONDS_MAX: Final = 60.0
_ENVIRONMENT: Final = {
    "PATH": os.defpath,
    "PYTHONSAFEPATH": "1",
    "LC_ALL": "C.UTF-8",
    # Loads of a test pass more in a moment than a desk may in a deployment.
    "COMITY_DESK_ENVELOPES_BURST": "1000000",
    "COMITY_STATEMENTS_BURST": "100000",
    "COMITY_CHECKPOINT_SECONDS": "0.05",
    "COMITY_POLL_SECONDS": "0.1",
}


class RelayProcess:
    """One relay over one data folder and one database; started and killed many times.

    Attributes:
        url: Where the running process listens; another port after each start.
    """

    def __init__(
        self,
        folder: Path,
        world: World,
        *,
        witnesses: Sequence[str],
        database: str = "",
        before: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Put keys and genesis where the program expects them.

        Args:
            folder: The data folder; made when it is not there.
            world: Whose keys and genesis.
            witnesses: Their URLs.
            database: Its address; SQLite in the folder when empty.
            before: Words to put before the command, such as those of a tracer.
            environment: Added to what the process gets.
        """
        self.folder: Final = folder
        self.database: Final = database or f"sqlite:///{folder / 'relay.sqlite'}"
        self.log_path: Final = folder / "stderr.log"
        self.url = ""
        self._witnesses: Final = witnesses
        self._before: Final = before
        self._environment: Final = _ENVIRONMENT | dict(environment or {})
        self._process: asyncio.subprocess.Process | None = None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in (
            ("log.key", bytes(world.log_key)),
            ("relay.key", world.relay_key.seed),
            ("genesis.cbor", world.statements[0][1].serialize()),
        ):
            path = folder / name
            path.write_bytes(content)
            path.chmod(0o600)

    @property
    def pid(self) -> int:
        """Process id of what was started last."""
        assert self._process is not None, "the relay was not started"
        return self._process.pid

    async def spawn(self) -> None:
        """Begin to start; nobody waits until it listens."""
        words = [
            *self._before,
            *(sys.executable, "-m", "comity_server", "serve"),
            *("--data", str(self.folder), "--database", self.database, "--port", "0"),
            *(word for url in self._witnesses for word in ("--witness", url)),
        ]
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environment,
                cwd=self.folder,
            )

    async def wait_until_listening(self) -> None:
        """Wait until it says where it listens."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS_MAX):
            line = await self._process.stdout.readline()
        assert line, f"the relay did not start:\n{self.log_text()[-4_000:]}"
        self.url = json.loads(line)["url"]

    async def start(self) -> None:
        """Start it and wait until it listens."""
        await self.spawn()
        await self.wait_until_listening()

    async def kill(self) -> None:
        """End it with ``SIGKILL``, which it cannot notice."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def stop(self) -> int:
        """End it in good order; give its exit status."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
        async with asyncio.timeout(START_SECONDS_MAX):
            return await self._process.wait()

    def log_text(self) -> str:
        """Everything that it has logged, over all its lives."""
        return self.log_path.read_text(errors="replace")

    def events(self) -> list[str]:
        """The names of the events that it has logged."""
        return [json.loads(line)["event"] for line in self.log_text().splitlines()]


@asynccontextmanager
async def watching_witness(
    folder: Path, name: str, world: World, seen: set[bytes], clock: Callable[[], float]
) -> AsyncIterator[str]:
    """Run a witness that also keeps every checkpoint that it is asked to cosign.

    Gives:
        Its URL.
    """
    key = WitnessKey(name, world.witness_keys[name])
    state = WitnessState.create(folder / f"{name}.sqlite", key.verifier_key)
    log = world.genesis.log
    app = serve_witness(Witness(state, key, [log], lambda: int(clock())))

    @web.middleware
    async def keep(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "POST":
            seen.add(AddCheckpoint.parse(await request.read()).note)
        return await handler(request)

    app.middlewares.append(keep)
    runner = make_witness_runner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
        # A log that showed a witness two pasts would be convicted by what the witness kept.
        assert state.evidence() == ()
    finally:
        await runner.cleanup()
        state.close()
