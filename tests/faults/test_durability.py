"""What is acknowledged is on disk first, not soon after.

Promise P1, rule [R-1]. Killing a process proves nothing about the disk: what it wrote is in the
kernel's memory and survives. Here the order itself is looked at.

* PostgreSQL: each promise is held against the server's own account of what it has flushed, at the
  moment when the promise arrives. The control commits without waiting and must be caught.
* SQLite: the files may not grow any more, so that no commit can be made durable; then no promise
  may come. And, in the long form, every system call of the relay is traced: between the last write
  to the write-ahead log and each promise the log was flushed.
"""

import asyncio
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from aiohttp import ClientSession, DummyCookieJar

from comity_protocol.checkpoint import note_hash
from comity_protocol.core import core_hash
from comity_protocol.envelope import Sealed
from comity_protocol.receipts import verify_promise
from comity_server.signer import SignerError, SignerState
from support.kills import Asker
from support.load import AgainError, Ledger, Line, insist_on_statement
from support.postgres import PostgresServer
from support.process import RelayProcess, watching_witness
from support.recount import recount
from support.relay import Clock, wait_until
from support.world import Member, World, lead

ACKNOWLEDGEMENTS = 30
QUIET = {"COMITY_CHECKPOINT_SECONDS": "500", "COMITY_POLL_SECONDS": "500"}


@dataclass(slots=True)
class Running:
    """A relay process with one checkpoint, and a member that sends."""

    process: RelayProcess
    line: Line
    member: Member
    other: Member

    def seal(self) -> Sealed:
        """Seal a lead."""
        return self.line.world.seal_act(self.member, self.other.desk, lead(), seen=self.line.seen)

    async def send(self, sealed: Sealed) -> None:
        """Send once; keep the promise."""
        upload = sealed.upload.serialize()
        promise = await self.line.insist(
            lambda: self.line.post("/v1/envelopes", upload, self.member)
        )
        what = core_hash(sealed.upload.core)
        verify_promise(promise, self.line.world.genesis.relay_key, what)
        self.line.ledger.envelopes[sealed.id] = sealed.upload.core
        self.line.ledger.promised(what, promise)


@asynccontextmanager
async def running(
    folder: Path, *, database: str = "", before: tuple[str, ...] = (), quiet: bool = False
) -> AsyncIterator[Running]:
    """Run a relay; a quiet one does nothing of its own accord after its first checkpoint."""
    world = World.found()
    members = [world.active(world.create_desk(code))[0] for code in ("XA", "XB")]
    ledger = Ledger()
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(
                watching_witness(folder, name, world, ledger.notes, Clock())
            )
            for name in sorted(world.witness_keys)
        ]
        session = await stack.enter_async_context(ClientSession(cookie_jar=DummyCookieJar()))

        def make(environment: dict[str, str], before: tuple[str, ...] = ()) -> RelayProcess:
            return RelayProcess(
                folder / "relay",
                world,
                witnesses=urls,
                database=database,
                before=before,
                environment=environment,
            )

        process = make({})
        stack.push_async_callback(process.kill)
        await process.start()
        line = Line(world, ledger, session, url=process.url)
        for _, signed in world.statements[1:]:
            await insist_on_statement(line, signed)
        note = b""
        async with asyncio.timeout(30):
            while not note:
                async with session.get(line.url + "/checkpoint") as response:
                    note = await response.read() if response.status == 200 else b""
        line.seen = note_hash(note)
        if quiet:
            assert await process.stop() == 0
            published = process.events().count("checkpoint-published")
            process = make(QUIET, before)
            stack.push_async_callback(process.kill)
            await process.start()
            line.url = process.url
            # The last that it does of its own accord; what it writes there is nobody's promise.
            await wait_until(lambda: process.events().count("checkpoint-published") > published)
        yield Running(process, line, *members)


# PostgreSQL.


@dataclass(frozen=True, slots=True)
class Flushed:
    """What PostgreSQL had flushed when something was known to be committed."""

    transaction: int
    position: int


async def _flushed(watcher: asyncpg.Connection) -> int:
    position = await watcher.fetchval("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn")
    return int(position)


def _commits(server: PostgresServer, start: str) -> dict[int, int]:
    """Read the write-ahead log with PostgreSQL's own tool: transaction to place of its commit."""
    completed = subprocess.run(
        [
            *(server._programs / "pg_waldump", "--path", server._directory / "data" / "pg_wal"),
            *("--start", start, "--rmgr", "Transaction"),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,  # It ends with an error where the log ends.
    )
    found = re.findall(
        r"tx: +(\d+), lsn: ([0-9A-F]+)/([0-9A-F]+), .*desc: COMMIT", completed.stdout
    )
    return {int(tx): (int(high, 16) << 32) + int(low, 16) for tx, high, low in found}


async def test_postgresql_has_flushed_the_commit_when_the_promise_arrives(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str
) -> None:
    """[R-1]"""
    address = postgres_url.replace("+asyncpg", "")
    watcher = await asyncpg.connect(address)
    start = str(await watcher.fetchval("SELECT pg_current_wal_insert_lsn()::text"))
    seen: list[tuple[bytes, int]] = []
    try:
        async with running(tmp_path, database=postgres_url) as relay:
            for _ in range(ACKNOWLEDGEMENTS):
                sealed = relay.seal()
                await relay.send(sealed)
                seen.append((sealed.id, await _flushed(watcher)))
        rows = await watcher.fetch("SELECT id, xmin::text::bigint AS tx FROM envelopes")
    finally:
        await watcher.close()
    transactions = {row["id"]: row["tx"] for row in rows}
    commits = _commits(postgres_server, start)

    assert len(seen) == ACKNOWLEDGEMENTS
    assert all(commits[transactions[id_]] < flushed for id_, flushed in seen)


async def test_a_commit_that_does_not_wait_for_the_disk_would_be_noticed(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """Control for the test above."""
    address = postgres_url.replace("+asyncpg", "")
    watcher, hasty = await asyncpg.connect(address), await asyncpg.connect(address)
    seen: list[tuple[int, int]] = []
    try:
        await hasty.execute("CREATE TABLE t (n bigint); SET synchronous_commit = off")
        start = str(await watcher.fetchval("SELECT pg_current_wal_insert_lsn()::text"))
        for _ in range(ACKNOWLEDGEMENTS):
            tx = await hasty.fetchval(
                "INSERT INTO t VALUES (1) RETURNING pg_current_xact_id()::text::bigint"
            )
            seen.append((tx, await _flushed(watcher)))
        await hasty.execute("SET synchronous_commit = on; INSERT INTO t VALUES (2)")
    finally:
        await watcher.close()
        await hasty.close()
    commits = _commits(postgres_server, start)

    assert any(commits[tx] >= flushed for tx, flushed in seen)


# SQLite.


async def test_no_promise_comes_while_the_disk_is_full(tmp_path: Path) -> None:
    """[R-1] [R-12] The relay is told that its files may not grow, as on a full disk."""
    async with running(tmp_path) as relay:
        for _ in range(10):
            await relay.send(relay.seal())
        waiting = [relay.seal() for _ in range(12)]
        resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, (4_096, resource.RLIM_INFINITY))
        for sealed in waiting:
            with pytest.raises(AgainError, match="busy"):
                await relay.line.post("/v1/envelopes", sealed.upload.serialize(), relay.member)
        resource.prlimit(
            relay.process.pid,
            resource.RLIMIT_FSIZE,
            (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
        )
        for sealed in waiting:
            await relay.send(sealed)
        await _wait_until_covered(relay)

        assert (
            await recount(
                Asker(relay.line), relay.line.world, [relay.member, relay.other], relay.line.ledger
            )
            == []
        )


async def _wait_until_covered(relay: Running) -> None:
    size = 0
    async with asyncio.timeout(30):
        while size <= len(relay.line.ledger.promises):
            note = (await Asker(relay.line).ask("GET", "/checkpoint")).body
            size = int(note.split(b"\n")[1])


def test_the_signer_says_when_its_file_cannot_be_written(tmp_path: Path) -> None:
    """[G-2] The relay goes on and tries again; an error of another kind would end it."""
    state = SignerState(tmp_path / "signer.sqlite", "comity.example/test")
    old = state.read()
    state._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(SignerError, match="signer's file cannot be used"):
        state.replace(old, old.append(bytes(32)))
    state._connection.execute("PRAGMA query_only = OFF")

    assert state.read() == old
    state.replace(old, old.append(bytes(32)))
    state.close()


TRACED = "fdatasync,fsync,pwrite64,pwritev,write,writev,sendto,sendmsg"
"""Every call by which bytes can reach a file or a client, and those that flush."""


@pytest.mark.long
async def test_sqlite_relay_flushes_the_log_between_the_last_write_and_each_promise(
    tmp_path: Path,
) -> None:
    """[R-1] Needs the program strace, which Debian and others have under this name."""
    strace = shutil.which("strace")
    assert strace, "strace is missing; install it with apt-get install strace"
    trace = tmp_path / "trace"
    before = (
        strace,
        "-f",
        "-y",
        "-qq",
        "-ttt",
        "-s",
        "24",
        "-e",
        f"trace={TRACED}",
        "-o",
        str(trace),
    )
    async with running(tmp_path, before=before, quiet=True) as relay:
        for _ in range(ACKNOWLEDGEMENTS):
            await relay.send(relay.seal())
        _end_traced(relay.process.pid)
        await relay.process._process.wait()  # type: ignore[union-attr]  # it was started

    found = Trace.read(trace.read_text(errors="replace").splitlines())
    sys.stdout.write("\n".join(found.excerpt) + "\n")
    assert found.promises >= ACKNOWLEDGEMENTS
    assert found.early == []
    assert found.flushes >= ACKNOWLEDGEMENTS


def _end_traced(tracer: int) -> None:
    children = Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGTERM)


@dataclass(slots=True)
class Trace:
    """What a trace shows.

    Attributes:
        early: Lines of promises that left while the write-ahead log was written and not flushed.
        excerpt: The calls around the last promise.
    """

    promises: int
    flushes: int
    early: list[str]
    excerpt: list[str]

    @classmethod
    def read(cls, lines: list[str]) -> "Trace":
        """Go through the calls in their order.

        A write counts when it begins and a flush when it has returned 0, so that neither can be
        taken for earlier or later than it was.
        """
        found = cls(0, 0, [], [])
        is_dirty, flushes_before = False, 0
        flushing: set[str] = set()
        recent: list[str] = []
        for line in lines:
            pid = line.split(" ", 1)[0]
            if "relay.sqlite-wal" in line and "write" in line:
                is_dirty = True
            elif "fdatasync(" in line and "relay.sqlite-wal" in line and "unfinished" in line:
                flushing.add(pid)
            elif re.search(r"fdatasync.*= 0$", line) and (
                "relay.sqlite-wal" in line or pid in flushing
            ):
                flushing.discard(pid)
                is_dirty = False
                found.flushes += 1
            elif re.search(r"(send|write).*HTTP/1\.1 200 OK", line):
                found.promises += 1
                if is_dirty or found.flushes == flushes_before:
                    found.early.append(line)
                flushes_before = found.flushes
                found.excerpt = [*recent[-6:], line]
            else:
                continue
            recent.append(line)
        return found


def test_the_trace_shows_a_promise_that_came_too_early() -> None:
    """Control for the test above, with a trace in which the last two lines changed places."""
    write = '7 1.0 pwrite64(9</d/relay.sqlite-wal>, "x", 24, 56) = 24'
    begins = "7 1.1 fdatasync(9</d/relay.sqlite-wal> <unfinished ...>"
    ends = "7 1.2 <... fdatasync resumed>) = 0"
    promise = '8 1.3 sendto(5<socket:[1]>, "HTTP/1.1 200 OK\\r\\n"..., 400, 0, NULL, 0) = 400'

    assert Trace.read([write, begins, ends, promise]).early == []
    assert Trace.read([write, begins, promise, ends]).early == [promise]
    assert Trace.read([promise]).early == [promise]
