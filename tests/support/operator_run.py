"""Lets a relay run over what an operator altered, and finds out who notices first, and when.

Whoever notices does so by an alarm or a refusal that this project's own programs give. In order:

1. the relay itself, with its signer, at its start and at its next checkpoint;
2. a witness that refuses and keeps the evidence;
3. a desk that had verified the log before, when it synchronises; then when it sends and receives;
   then when it asks again for a promise that it holds;
4. a device that is new and reads everything from the beginning;
5. an auditor's desk;
6. an audit, over a copy that somebody kept and over a fresh one.

Where the relay's own program notices, the attack is tried again with a signer that signs whatever
the database holds: then somebody else has to notice.

What nobody notices has to be without effect: every answer to everybody is the same, byte by byte,
as before the alteration.
"""

import asyncio
import logging
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final

from nacl.signing import SigningKey

from comity_client.audit_archive import Archive
from comity_client.audit_findings import Grade
from comity_client.audit_verify import Audit, Objects
from comity_client.desk import Desk
from comity_client.drafts import Draft
from comity_client.envelopes import Stage
from comity_protocol.checkpoint import open_checkpoint, sign_checkpoint
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.merkle import Frontier, leaf_hash
from comity_protocol.notices import HoldBasis, Restored
from comity_protocol.receipts import Promise, Signed, verify_promise
from comity_server import fsck
from comity_server.signer_process import answering
from comity_server.store import Store
from support.operator_lies import Lie, lying
from support.operator_world import (
    DESKS,
    STEP,
    Past,
    Still,
    bring,
    open_member,
    promises_of,
    repost,
)
from support.relay import Answer, Relay, opened, relay, wait_until, witness
from support.world import Member, World

DATABASE: Final = "relay.sqlite"
SECONDS_MAX: Final = 20.0


class By(Enum):
    """Who notices."""

    RELAY = "the relay or its signer"
    WITNESS = "a witness"
    DESK = "a desk that knew the log"
    NEWCOMER = "a new device"
    AUDITOR = "the auditor's desk"
    AUDIT = "an audit"
    NOBODY = "nobody"


class When(Enum):
    """How long it takes."""

    START = "at the start"
    CHECKPOINT = "within one checkpoint"
    SYNC = "at the desk's next synchronisation"
    MESSAGE = "at the next message across"
    AGAIN = "when it is asked for again"
    JOIN = "when a device is added"
    AUDIT = "at the next audit"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Noticed:
    """Who noticed an attack first, when, and by which words."""

    by: By
    when: When
    text: str = ""


class CrashError(Exception):
    """A program failed on what was altered instead of refusing it."""


@dataclass(slots=True)
class Scene:
    """What an operator has before him: a copy of everything, while nothing runs.

    Attributes:
        folder: The copy; the relay's data lies in ``relay``.
        world: With the keys that the relay is given.
        lie: What a liar before the relay does to its answers.
        witnesses: Those whom the relay asks.
    """

    past: Past
    folder: Path
    world: World
    lie: Lie | None = None
    witnesses: Sequence[str] = ()

    @classmethod
    def copy(cls, past: Past, folder: Path) -> "Scene":
        """Copy what is left of a deployment."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("relay", "witnesses", "desks", "archive"):
            shutil.copytree(past.folder / name, folder / name)
        return cls(past, folder, past.world, witnesses=tuple(past.world.witness_keys))

    @property
    def data(self) -> Path:
        """The relay's folder."""
        return self.folder / "relay"

    def database(self) -> "closing[sqlite3.Connection]":
        """Open the database with every right."""
        return closing(sqlite3.connect(self.data / DATABASE, isolation_level=None))

    def execute(self, query: str, *values: object) -> None:
        """Run one statement on the database, which has to change something."""
        with self.database() as connection:
            changed = connection.execute(query, values).rowcount
        if changed == 0:
            raise AssertionError(f"nothing was altered by: {query}")

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Read from the database."""
        with self.database() as connection:
            return connection.execute(query, values).fetchall()


class Accomplice:
    """A signer that signs whatever the database holds, with the true key of the log."""

    def __init__(self, store: Store, key: SigningKey, origin: str) -> None:
        """Take what it reads and signs with."""
        self._store: Final = store
        self._key: Final = key
        self._origin: Final = origin

    async def probe(self) -> bytes:
        """Claim that what the database holds is what was signed last."""
        return (await self.sign())[1]

    async def entries(self, start: int) -> list[bytes]:
        """Remember nothing."""
        del start
        return []

    async def clear(self, note: bytes) -> None:
        """Be content with whatever the witnesses know."""
        del note

    async def sign(self) -> tuple[int, bytes]:
        """Sign all entries, whatever they are."""
        leaves = await self._store.leaves(0, 1_000_000)
        frontier = Frontier().extend([leaf_hash(leaf) for leaf in leaves])
        note = sign_checkpoint(
            origin=self._origin, size=frontier.size, root=frontier.root, key=self._key
        )
        return frontier.size, note


class _Ear(logging.Handler):
    """Hears what the relay's program says to its operator."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.alarms: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        text = f"{record.msg}: {error}" if error is not None else str(record.msg)
        fields = getattr(record, "fields", {})
        if error is None and fields.get("reason"):
            text = f"{record.msg}: {fields['reason']}"
        if error is not None and not isinstance(error, ComityError):
            text = f"CRASH {type(error).__name__} {text}"
        self.alarms.append(text)

    @property
    def crash(self) -> str:
        """What failed, if anything did."""
        return next((text for text in self.alarms if text.startswith("CRASH")), "")


@contextmanager
def listening() -> Iterator[_Ear]:
    """Hear the relay's alarms."""
    logger, ear = logging.getLogger("comity.relay"), _Ear()
    logger.addHandler(ear)
    try:
        yield ear
    finally:
        logger.removeHandler(ear)


@dataclass(slots=True)
class Run:
    """A relay over a scene, with its witnesses, and all who look at it.

    Attributes:
        url: The relay's address, or that of the liar before it.
        seconds: How long a checkpoint is waited for.
    """

    scene: Scene
    clock: Still
    relay: Relay
    ear: _Ear
    stack: AsyncExitStack
    url: str
    seconds: float
    desks: dict[str, Desk] = field(default_factory=dict)

    @property
    def past(self) -> Past:
        """What happened before."""
        return self.scene.past

    async def open(self, name: str, folder: str = "desks") -> Desk:
        """Open a desk."""
        place, url = self.scene.folder / folder, self.url
        desk, _ = open_member(self.past, place, name, url, self.clock)
        self.desks[name] = await self.stack.enter_async_context(desk)
        return desk

    async def seal(self) -> None:
        """Wait a moment for a checkpoint of now over everything."""
        log, alarms = self.relay.context.log, len(self.ear.alarms)

        def is_done() -> bool:
            newest = log._newest
            is_new = newest is not None and newest.at == self.clock.at
            is_whole = is_new and log.size >= self.relay.context.relay.size
            return is_whole or len(self.ear.alarms) > alarms + 1

        try:
            await wait_until(is_done, self.seconds)
        except TimeoutError:
            self.ear.alarms.append("no checkpoint was published")


@asynccontextmanager
async def served(scene: Scene, *, is_accomplice: bool) -> AsyncIterator[Run]:
    """Run the relay of a scene, a while after the story ended."""
    clock = Still(scene.past.at + 2 * STEP)
    world = scene.world
    async with AsyncExitStack() as stack:
        ear = stack.enter_context(listening())
        urls = [
            await stack.enter_async_context(witness(scene.folder / "witnesses", name, world, clock))
            for name in scene.witnesses
        ]
        settings: dict[str, Any] = {"repair_seconds": 0.01, "witness_links": True}
        if is_accomplice:
            store = await stack.enter_async_context(opened(f"sqlite:///{scene.data / DATABASE}"))
            accomplice = Accomplice(store, world.log_key, world.genesis.origin)
            path = scene.folder / "signer.socket"
            await stack.enter_async_context(answering(accomplice, path))
            settings["signer_socket"] = str(path)
        running = await stack.enter_async_context(
            relay(scene.data, world, clock=clock, witnesses=0, urls=urls, **settings)
        )
        url = running.url
        if scene.lie is not None:
            url = await stack.enter_async_context(lying(url, scene.lie))
        run = Run(scene, clock, running, ear, stack, url, 1 if is_accomplice else 5)
        await run.seal()
        yield run


async def look(scene: Scene, *, is_accomplice: bool) -> Noticed:
    """Find out who notices first.

    Raises:
        CrashError: A program failed instead of refusing.
    """
    try:
        async with asyncio.timeout(SECONDS_MAX), served(scene, is_accomplice=is_accomplice) as run:
            return await _look(run, is_accomplice=is_accomplice)
    except ComityError as error:
        return Noticed(By.RELAY, When.START, str(error))
    except BaseExceptionGroup as group:
        raise CrashError(_text_of(group)) from group


def _text_of(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def _look(run: Run, *, is_accomplice: bool) -> Noticed:
    ear = run.ear
    if ear.crash:
        raise CrashError(ear.crash)
    if ear.alarms and not is_accomplice:
        return Noticed(By.RELAY, When.START, ear.alarms[0])
    if kept := evidence_of(run.scene):
        return Noticed(By.WITNESS, When.CHECKPOINT, kept)
    for detector in (_known, _across, _again, _new, _auditor, _audit):
        noticed = await detector(run)
        if ear.crash:
            raise CrashError(ear.crash)
        if noticed is not None:
            return noticed
        if ear.alarms and not is_accomplice:
            return Noticed(By.RELAY, When.CHECKPOINT, ear.alarms[0])
    return Noticed(By.NOBODY, When.NEVER)


def evidence_of(scene: Scene) -> str:
    """Say what a witness kept as evidence against the log."""
    for path in sorted((scene.folder / "witnesses").glob("*.sqlite")):
        with closing(sqlite3.connect(path)) as connection:
            kind = connection.execute("SELECT kind FROM evidence").fetchone()
        if kind is not None:
            return f"witness kept evidence: {kind[0]}"
    return ""


async def _try(by: By, when: When, desk: Desk, *steps: Callable[[], Any]) -> Noticed | None:
    """Do what a desk does; a refusal or an alarm is what it notices."""
    for step in steps:
        try:
            result = step()
            if asyncio.iscoroutine(result):
                await result
        except ComityError as error:
            return Noticed(by, when, f"{type(error).__name__}: {error}")
        # A device that lost its memory says so of itself, whatever the relay does.
        alarms = [alarm for alarm in desk.alarms() if alarm.kind != "clone"]
        if alarms:
            return Noticed(by, when, f"{alarms[0].kind}: {alarms[0].text}")
    return None


def _restored(desk: Desk) -> str:
    """Say what a relay stated of a restore, which a desk shows to its officers."""
    for kept in desk.notices():
        if isinstance(kept.notice, Restored):
            return f"relay states that it was restored at {kept.notice.had} entries"
    return ""


async def _known(run: Run) -> Noticed | None:
    for name in DESKS[:2]:
        desk = await run.open(name)
        noticed = await _try(By.DESK, When.SYNC, desk, desk.sync, desk.fetch, desk.count_statements)
        if noticed:
            return noticed
        if said := _restored(desk):
            return Noticed(By.DESK, When.SYNC, said)
    return None


async def _across(run: Run) -> Noticed | None:
    """An exchange that begins now: a lead, its receipt, an answer."""
    alice, bob = run.desks["alice"], run.desks["bob"]
    sent: list[EnvelopeId] = []

    def write() -> None:
        to = run.past.members["bob"].desk
        sent.append(alice.lead(to, Draft(text="five", language="en")))

    async def hold() -> None:
        await bob.hold(bob.exchanges()[-1].id, HoldBasis.AUDIT)

    def wait() -> None:
        # What was said is sealed for longer than a promise takes when the next is.
        run.clock.at += STEP

    for desk, steps in (
        (alice, (write, alice.flush, run.seal)),
        (bob, (bob.fetch, hold, run.seal)),
        (alice, (alice.fetch,)),
    ):
        noticed = await _try(By.DESK, When.MESSAGE, desk, *steps)
        if noticed:
            return noticed
    stage = alice.status(sent[0]).stage
    if stage is not Stage.STORED:
        return Noticed(By.DESK, When.MESSAGE, f"act is {stage.value}, expected stored")
    later = (wait, write, alice.flush, run.seal, alice.fetch)
    noticed = await _try(By.DESK, When.MESSAGE, alice, *later)
    return noticed or await _try(By.DESK, When.MESSAGE, bob, bob.fetch, run.seal)


async def _again(run: Run) -> Noticed | None:
    """Ask again for every promise, as a device does that lost the answer."""
    relay_key = run.past.world.genesis.relay_key
    for one in run.past.sent[:60] + run.past.sent[-40:]:
        answer = await repost(replace(run.relay, url=run.url), one)
        if answer.status != 200:
            return Noticed(By.DESK, When.AGAIN, f"refused: {answer.code}")
        promise = Signed.parse(one.promise)
        try:
            verify_promise(answer.promise, relay_key, Promise.parse(promise.payload).what)
        except ComityError as error:
            return Noticed(By.DESK, When.AGAIN, str(error))
        if answer.promise != promise:
            return Noticed(By.DESK, When.AGAIN, "another promise for the same thing")
    return None


async def _new(run: Run) -> Noticed | None:
    """Let devices begin with nothing: one that lost its memory, and new ones."""
    for name in ("alice", "alice2", "late", "bob2"):
        desk = await run.open(name, "newcomers")
        noticed = await _try(
            By.NEWCOMER, When.JOIN, desk, desk.sync, desk.fetch, desk.count_statements
        )
        if noticed:
            return noticed
        if refused := _refused(desk, run.past):
            return Noticed(By.NEWCOMER, When.JOIN, refused)
    return None


def _refused(desk: Desk, past: Past) -> str:
    """Say what the inbox shows as refused; what was erased is, for who never had it."""
    for line in desk.inbox():
        if line.refused is not None and line.envelope != past.erased:
            return f"envelope is refused: {line.text}"
    return ""


async def _auditor(run: Run) -> Noticed | None:
    for name, folder in (("auditor", "desks"), ("auditor2", "newcomers")):
        desk = await run.open(name, folder)
        noticed = await _try(
            By.AUDITOR, When.AUDIT, desk, desk.sync, desk.fetch, desk.count_statements
        )
        if noticed:
            return noticed
        if refused := _refused(desk, run.past):
            return Noticed(By.AUDITOR, When.AUDIT, refused)
    return None


async def _audit(run: Run) -> Noticed | None:
    """Fetch the log into a kept copy and into an empty folder, and verify both."""
    objects = Objects(promises=promises_of(run.past))
    for folder in ("archive", "fresh"):
        place = run.scene.folder / folder
        try:
            found = await bring(place, run.url, run.past, "bob")
            Audit(Archive(place), found.append, objects).run(run.past.pinned)
        except ComityError as error:
            return Noticed(By.AUDIT, When.AUDIT, f"{type(error).__name__}: {error}")
        bad = [one for one in found if one.grade > Grade.NOTE]
        if bad:
            return Noticed(By.AUDIT, When.AUDIT, f"{bad[0].kind.value}: {bad[0].text}")
    return None


async def faults_of(scene: Scene) -> int:
    """Count the rows that the operator's own check finds wrong; honest operators alone run it."""
    found = await fsck.run(f"sqlite:///{scene.data / DATABASE}", fsck.check)
    return len(found)


# --- Effect


async def outputs(scene: Scene, *, is_accomplice: bool = False) -> Mapping[str, bytes]:
    """Ask a relay over a scene for everything that it gives to anybody."""
    async with served(scene, is_accomplice=is_accomplice) as run:
        given: dict[str, bytes] = {}
        for name, member in run.past.members.items():
            for path in _PRIVATE:
                given[f"{name} {path}"] = await _ask(run, path, member)
            for envelope in run.past.envelopes:
                for path in (f"/v1/envelopes/{envelope.hex()}", f"/v1/wraps/{envelope.hex()}"):
                    given[f"{name} {path}"] = await _ask(run, path, member)
        for path in (*_PUBLIC, *_dated(run.past)):
            given[path] = await _ask(run, path, None)
        for at, one in enumerate(run.past.sent):
            given[f"sent {at}"] = (await repost(run.relay, one)).body
        return {name: _plain(run, body) for name, body in given.items()}


async def knowledge(scene: Scene) -> Mapping[str, bytes]:
    """Let devices fetch through a liar, and give what each then knows, whatever it was told."""
    async with served(scene, is_accomplice=False) as run:
        known: dict[str, bytes] = {}
        for folder, names in (("desks", DESKS), ("newcomers", ("alice2", "late", "auditor2"))):
            for name in names:
                desk = await run.open(name, folder)
                await desk.fetch()
                rows = [sorted(desk.state.connection.execute(query)) for query in _KNOWN]
                known[f"what {name} knows"] = repr(rows).encode()
        return known


_KNOWN: Final = (
    "SELECT counter, leaf_index, envelope, refused IS NULL FROM inbox",
    "SELECT envelope, desk, payload FROM stored",
    "SELECT leaf_index, hash FROM notices",
    "SELECT leaf_index, sealed_at FROM covering",
)

_PRIVATE: Final = (
    "/v1/mailbox?after=0",
    "/v1/receipts?after=-1",
    "/v1/notices?after=-1",
    "/v1/boxes",
    "/v1/statements",
    "/v1/vacancies",
)
_PUBLIC: Final = (
    "/v1/genesis",
    "/v1/leaves/0",
    "/v1/checkpoints?after=-1",
    "/v1/anchors?after=-1",
    "/tile/0/000",
    "/tile/1/000.p/1",
    "/tile/entries/000",
)


def _dated(past: Past) -> Iterator[str]:
    size = past.sizes[-1]
    yield f"/tile/0/001.p/{size - 256}"
    yield f"/tile/entries/001.p/{size - 256}"
    for index in {*range(0, size, 24), *range(past.sizes[1], size)}:
        yield f"/v1/covering/{index}"
        yield f"/v1/proof/{index}"


async def _ask(run: Run, path: str, member: Member | None) -> bytes:
    if member is None:
        answer: Answer = await run.relay.ask("GET", path)
    else:
        answer = await run.relay.as_device(member, "GET", path)
    return answer.body if answer.status == 200 else str(answer.status).encode()


def _plain(run: Run, body: bytes) -> bytes:
    """Leave out which witnesses happened to answer first just now."""
    genesis = run.past.world.genesis
    newest = run.relay.context.log.newest().note
    if newest in body:
        checkpoint = open_checkpoint(newest, genesis.log)
        body = body.replace(newest, checkpoint.serialize().encode())
    return body
