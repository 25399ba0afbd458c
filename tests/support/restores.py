"""The restore drill: a busy relay is backed up, works on, is killed, and its backup is put back.

`restore_drill` runs the real program. Its witnesses are mirrors: each keeps all entries before it
cosigns, as a mirror must. In a third of the rounds the signer's file is put back with the database,
in a quarter the relay is killed once more in the middle of the repair. The desks keep what they
sent and send all of it again after each restore. When it is over, everything that the relay ever
put in writing is counted again from what it hands out, against every checkpoint that anyone was
shown.
"""

import asyncio
import json
import secrets
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from aiohttp import ClientError, ClientSession, DummyCookieJar, TCPConnector, web
from aiohttp.typedefs import Handler

from comity_client.witness import Witness, make_witness_runner, serve_witness
from comity_client.witness_state import WitnessKey, WitnessState
from comity_protocol.checkpoint import note_hash
from comity_protocol.core import core_hash
from comity_protocol.leaves import LEAF_BYTES, receipt_hash
from comity_protocol.merkle import Frontier, leaf_hash
from comity_protocol.notices import Restored, parse_notice
from comity_protocol.receipts import Receipt, Signed, sign_receipt
from comity_protocol.signed_note import encode_base64, parse_note
from comity_protocol.witnessing import AddCheckpoint
from comity_server.signer import SignerState
from comity_server.stores import open_store
from support.kills import Asker
from support.load import PASSING, AgainError, Ledger, Line
from support.mirror import ServedLog
from support.postgres import PostgresServer
from support.process import RelayProcess
from support.recount import recount
from support.world import Member, World, held_of, lead

SIGNER_TOO_ONE_IN: Final = 3
KILLED_AGAIN_ONE_IN: Final = 4
KEPT_FROM_BEFORE: Final = 10
_OUT_OF_ORDER: Final = {"repairing", "not-found", "unknown-reference", "chain-moved"}
"""What is sent again before that which it rests on is back is sent once more."""

_PAUSE_SECONDS: Final = 0.02
_REPAIRED_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that a desk sent, as a client keeps it.

    Attributes:
        what: The hash that a promise of it names.
        member: Whose token it is sent with; None for a statement.
    """

    path: str
    body: bytes
    what: bytes
    member: Member | None


@dataclass(slots=True)
class Outcome:
    """What a drill did, and what was found to be wrong."""

    rounds: int = 0
    signers_restored: int = 0
    killed_in_repair: int = 0
    restores: int = 0
    notices: int = 0
    lost: int = 0
    refilled: int = 0
    sent_again: int = 0
    promises: int = 0
    checkpoints: int = 0
    leaves: int = 0
    repair_seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    alarms: dict[str, int] = field(default_factory=dict)

    def figures(self) -> str:
        """One line of JSON."""
        ordered = sorted(self.repair_seconds)
        return json.dumps(
            {
                "rounds": self.rounds,
                "signers_restored": self.signers_restored,
                "killed_in_repair": self.killed_in_repair,
                "restores": self.restores,
                "notices": self.notices,
                "entries_refilled": self.refilled,
                "objects_sent_again": self.sent_again,
                "promises": self.promises,
                "checkpoints": self.checkpoints,
                "leaves": self.leaves,
                "lost": self.lost,
                "repair_seconds_p50": round(ordered[len(ordered) // 2], 2) if ordered else None,
                "repair_seconds_max": round(ordered[-1], 2) if ordered else None,
                "alarms": self.alarms,
                "wrong": self.wrong,
            }
        )


@dataclass(slots=True)
class Desks:
    """Devices that send, and keep what they sent in its order."""

    line: Line
    members: list[Member]
    kept: list[Kept] = field(default_factory=list)
    is_sending: bool = True

    async def send(self, sender: Member, receiver: Member) -> None:
        """Send envelopes, confirm some, and turn an epoch now and then, until it breaks."""
        world, ledger = self.line.world, self.line.ledger
        thread = None
        while self.is_sending:
            sealed = world.seal_act(
                sender, receiver.desk, lead(), thread=thread, seen=self.line.seen
            )
            core = sealed.upload.core
            what = core_hash(core)
            ledger.envelopes[sealed.id] = core
            await self.keep(Kept("/v1/envelopes", sealed.upload.serialize(), what, sender))
            thread = sealed.thread if secrets.randbelow(4) else None
            if secrets.randbelow(4) == 0:
                seq = world.directory.desk(receiver.desk).seq
                receipt = Receipt(receiver.desk, receiver.id, seq, held_of(sealed), self.line.seen)
                signed = sign_receipt(receiver.fast, receipt)
                what = receipt_hash(signed.payload)
                await self.keep(Kept("/v1/receipts", signed.serialize(), what, receiver))

    async def turn(self, desk: Member) -> None:
        """State something now and then."""
        world = self.line.world
        while self.is_sending:
            world.turn(desk.desk)
            _, signed = world.statements[-1]
            await self.keep(Kept("/v1/statements", signed.serialize(), signed.hash, None))
            await asyncio.sleep(0.1)

    async def keep(self, kept: Kept) -> None:
        """Keep something and send it until it is promised, or the relay is gone."""
        self.kept.append(kept)
        while self.is_sending:
            try:
                promise = await self.line.post(kept.path, kept.body, kept.member)
            except AgainError:
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                self.line.ledger.promises[kept.what] = promise
                return

    async def send_again(self) -> int:
        """Send everything again, in its order, until all of it is promised; give how often."""
        waiting, count = list(self.kept), 0
        while waiting and self.is_sending:
            rest: list[Kept] = []
            for kept in waiting:
                # A statement follows the one before it, which the relay may take a moment later.
                if kept.member is None and any(one.member is None for one in rest):
                    rest.append(kept)
                    continue
                try:
                    promise = await self._post(kept)
                    count += 1
                except AgainError:
                    rest.append(kept)
                else:
                    self.line.ledger.promises[kept.what] = promise
            waiting = rest
            await asyncio.sleep(_PAUSE_SECONDS)
        return count

    async def _post(self, kept: Kept) -> Signed:
        for _ in range(3):
            try:
                return await self.line.post(kept.path, kept.body, kept.member)
            except AgainError as again:
                if str(again) != "use-nonce":
                    raise
        raise AgainError("use-nonce")


@asynccontextmanager
async def mirror_witness(
    folder: Path, name: str, line: Line, served: ServedLog
) -> AsyncIterator[ServedLog]:
    """Run a witness that keeps all entries before it cosigns, and serves them."""
    key = WitnessKey(name, line.world.witness_keys[name])
    state = WitnessState.create(folder / f"{name}.sqlite", key.verifier_key)
    app = serve_witness(Witness(state, key, [line.world.genesis.log], lambda: int(_now())))
    entries: list[bytes] = []
    served.entries = entries

    @web.middleware
    async def first_keep(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method != "POST":
            return await served.answer(request)
        note = AddCheckpoint.parse(await request.read()).note
        served.offered.add(note)
        with suppress(ClientError, OSError, TimeoutError):
            await _fetch(line, entries, int(note.split(b"\n")[1]))
        root = parse_note(note).text.split("\n")[2]
        size = int(note.split(b"\n")[1])
        if len(entries) < size or _root(entries[:size]) != root:
            return web.Response(status=503)
        answer = await handler(request)
        if answer.status == 200 and isinstance(answer, web.Response):
            line.ledger.notes.add(note)
            served.cosigned = note + bytes(answer.body or b"")  # type: ignore[arg-type]  # bytes it is
            del entries[size:]
        return answer

    app.middlewares.append(first_keep)
    runner = make_witness_runner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        served.url = f"http://{host}:{port}"
        yield served
        # A log that showed a witness two pasts would be convicted by what the witness kept.
        assert state.evidence() == ()
    finally:
        await runner.cleanup()
        state.close()


async def _fetch(line: Line, entries: list[bytes], size: int) -> None:
    while len(entries) < size:
        async with line.session.get(f"{line.url}/v1/leaves/{len(entries)}") as response:
            data = await response.read()
        if response.status != 200 or not data:
            return
        entries += [data[at : at + LEAF_BYTES] for at in range(0, len(data), LEAF_BYTES)]


def _root(entries: list[bytes]) -> str:
    return encode_base64(Frontier().extend(map(leaf_hash, entries)).root)


class Backups(Protocol):
    """How the database is copied, and put back."""

    def back_up(self) -> None:
        """Copy it while it is used."""

    def restore(self) -> None:
        """Put the copy in its place, while nobody uses it."""


@dataclass(frozen=True, slots=True)
class SqliteBackups:
    """By SQLite's own way to copy a file that is written to."""

    path: Path

    def back_up(self) -> None:
        """See ``Backups``."""
        _copy(self.path)

    def restore(self) -> None:
        """See ``Backups``."""
        _put_back(self.path)


@dataclass(slots=True)
class PostgresBackups:
    """By ``pg_dump`` and ``pg_restore``."""

    server: PostgresServer
    url: str
    file: Path | None = None

    def back_up(self) -> None:
        """See ``Backups``."""
        self.file = self.server.back_up(self.url)

    def restore(self) -> None:
        """See ``Backups``."""
        assert self.file is not None
        self.server.restore(self.url, self.file)


async def _size_of(url: str) -> int:
    store = open_store(url)
    try:
        return (await store.head()).size
    finally:
        await store.close()


async def restore_drill(
    folder: Path,
    *,
    rounds: int,
    database: str = "",
    backups: Backups | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run it; give what came out.

    Args:
        folder: For the data of relay and witnesses.
        rounds: How often to restore.
        database: Its address; SQLite in the folder when empty.
        backups: How it is copied; needed with an address.
        report: Called now and then with a line.
    """
    backups = backups or SqliteBackups(folder / "relay" / "relay.sqlite")
    outcome = Outcome()
    world = World.found()
    desks = [world.create_desk(code) for code in ("XA", "XB", "XA")]
    members = [world.active(desk)[0] for desk in desks]
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            ClientSession(
                auto_decompress=False,
                connector=TCPConnector(limit=0, force_close=True),
                cookie_jar=DummyCookieJar(),
            )
        )
        line = Line(world, Ledger(), session, passing=PASSING | _OUT_OF_ORDER)
        mirrors = [
            await stack.enter_async_context(mirror_witness(folder, name, line, ServedLog()))
            for name in sorted(world.witness_keys)
        ]
        relay = RelayProcess(
            folder / "relay", world, witnesses=[one.url for one in mirrors], database=database
        )
        stack.push_async_callback(relay.kill)
        sending = Desks(line, members)
        await _start(relay, line)
        for _, signed in world.statements[1:]:
            await sending.keep(Kept("/v1/statements", signed.serialize(), signed.hash, None))
        await _wait_until_sealed(line)
        line.seen = note_hash(await _checkpoint(line))
        for number in range(rounds):
            await _round(relay, backups, sending, mirrors, outcome, number)
            if number % 20 == 19:
                report(outcome.figures())
        await _wait_until_sealed(line)
        outcome.promises = len(line.ledger.promises)
        outcome.checkpoints = len(line.ledger.notes)
        asker = Asker(line)
        notices = await _notices(asker, members[0])
        outcome.notices = len(notices)
        outcome.lost = sum(notice.lost for notice in notices)
        outcome.wrong += await recount(asker, world, members, line.ledger)
        if outcome.notices != outcome.restores:
            outcome.wrong.append(f"{outcome.notices} notices of {outcome.restores} restores")
        if outcome.lost:
            outcome.wrong.append(f"{outcome.lost} entries lost their objects")
        outcome.leaves = int((await _checkpoint(line)).split(b"\n")[1])
        assert await relay.stop() == 0, relay.log_text()[-4_000:]
        for event in relay.events():
            outcome.alarms[event] = outcome.alarms.get(event, 0) + 1
    return outcome


async def _round(
    relay: RelayProcess,
    backups: Backups,
    sending: Desks,
    mirrors: list[ServedLog],
    outcome: Outcome,
    number: int,
) -> None:
    one, other, third = sending.members
    # All of it is promised and will be in the backup; a few are sent again all the same.
    del sending.kept[:-KEPT_FROM_BEFORE]
    sending.is_sending = True
    tasks = [
        asyncio.create_task(_until_it_breaks(work))
        for work in (
            sending.send(one, other),
            sending.send(other, one),
            sending.turn(third),
            _keep_polling(sending),
        )
    ]
    await asyncio.sleep(_moment(0.3))
    signer = relay.folder / "signer.sqlite"
    await asyncio.to_thread(_copy, signer)
    await asyncio.to_thread(backups.back_up)
    await asyncio.sleep(_moment(0.5))
    await relay.kill()
    sending.is_sending = False
    await asyncio.gather(*tasks)
    is_signer_too = number % SIGNER_TOO_ONE_IN == 1
    signed = max(
        [int(one.cosigned.split(b"\n")[1]) for one in mirrors],
        default=0,
    )
    if not is_signer_too:
        state = SignerState(signer, sending.line.world.genesis.origin)
        signed = max(signed, state.read().size)
        state.close()
    await asyncio.to_thread(backups.restore)
    had = await _size_of(relay.database)
    if is_signer_too:
        _put_back(signer)
    # What was offered and not cosigned is remembered by the signer alone, and believed by nobody. A
    # signer that was restored does not know of it any more; every other one never contradicts it.
    for mirror in mirrors:
        if not is_signer_too:
            sending.line.ledger.notes |= mirror.offered
        mirror.offered.clear()
    outcome.rounds += 1
    outcome.signers_restored += is_signer_too
    outcome.restores += signed > had
    outcome.refilled += max(0, signed - had)
    await _repair(relay, sending, outcome, kill=number % KILLED_AGAIN_ONE_IN == 2)


async def _repair(relay: RelayProcess, sending: Desks, outcome: Outcome, *, kill: bool) -> None:
    began = time.monotonic()
    sending.is_sending = True
    await _start(relay, sending.line)
    if kill:
        outcome.killed_in_repair += 1
        task = asyncio.create_task(_until_it_breaks(sending.send_again()))
        await asyncio.sleep(_moment(0.6))
        await relay.kill()
        sending.is_sending = False
        await task
        sending.is_sending = True
        await _start(relay, sending.line)
    async with asyncio.timeout(_REPAIRED_SECONDS_MAX):
        outcome.sent_again += await sending.send_again()
        await _wait_until_ready(sending.line)
    outcome.repair_seconds.append(time.monotonic() - began)


async def _start(relay: RelayProcess, line: Line) -> None:
    await relay.spawn()
    await relay.wait_until_listening()
    line.url = relay.url


async def _until_it_breaks(work: Awaitable[object]) -> None:
    with suppress(ClientError, OSError, TimeoutError):
        await work


async def _keep_polling(sending: Desks) -> None:
    """Collect every checkpoint that the relay shows."""
    line = sending.line
    while sending.is_sending:
        async with line.session.get(line.url + "/checkpoint") as response:
            if response.status == 200:
                line.ledger.notes.add(await response.read())
        await asyncio.sleep(_PAUSE_SECONDS)


async def _checkpoint(line: Line) -> bytes:
    async with line.session.get(line.url + "/checkpoint") as response:
        note = await response.read()
        assert response.status == 200, note
    line.ledger.notes.add(note)
    return note


async def _wait_until_ready(line: Line) -> None:
    status = 0
    while status != 200:
        async with line.session.get(line.url + "/readyz") as response:
            await response.read()
            status = response.status
        await asyncio.sleep(_PAUSE_SECONDS)


async def _wait_until_sealed(line: Line) -> None:
    """Wait until the witnessed checkpoint covers all that the relay has."""
    async with asyncio.timeout(_REPAIRED_SECONDS_MAX):
        while True:
            async with line.session.get(line.url + "/metrics") as response:
                text = (await response.read()).decode()
            values = dict(row.split(" ") for row in text.splitlines() if not row.startswith("#"))
            if values["comity_log_leaves"] == values["comity_checkpoint_leaves"] != "0.0":
                return
            await asyncio.sleep(_PAUSE_SECONDS)


async def _notices(asker: Asker, member: Member) -> list[Restored]:
    answer = await asker.as_device(member, "GET", "/v1/notices?after=-1")
    found = [parse_notice(payload) for _, payload, _ in answer.value["items"]]
    return [notice for notice in found if isinstance(notice, Restored)]


def _copy(path: Path) -> None:
    """Copy an SQLite file that is written to."""
    with (
        closing(sqlite3.connect(path, timeout=10)) as source,
        closing(sqlite3.connect(_copy_of(path))) as target,
    ):
        source.backup(target)


def _put_back(path: Path) -> None:
    """Put the copy of an SQLite file in its place."""
    for end in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    shutil.copy(_copy_of(path), path)


def _copy_of(path: Path) -> Path:
    return path.with_name(path.name + ".backup")


def _moment(seconds_max: float) -> float:
    return secrets.randbelow(1_000_000) / 1_000_000 * seconds_max


def _now() -> float:
    return time.time()  # noqa: TID251 - the outermost place, as in __main__
