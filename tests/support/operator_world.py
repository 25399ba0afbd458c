"""A deployment with a past, stopped, in one folder: what an operator has in his hands.

    relay/          the relay's data: database, signer's file, tombstones
    witnesses/      what each witness remembers; the operator cannot write there
    desks/NAME      devices of three desks that have verified the log, one of them an auditor's
    archive/        a copy of the log that somebody fetched before the last stage
    older0/ ...     the relay's folder as it was after each stage

The log has more than 256 entries, so that it has a complete tile. Clocks stand still, so that two
runs over the same bytes answer with the same bytes.
"""

import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import chain, combinations, islice
from pathlib import Path
from typing import Final

from comity_client.audit_archive import Archive
from comity_client.audit_desk import MemberRelay, fetch_desk
from comity_client.audit_fetch import fetch, read_genesis
from comity_client.audit_findings import Finding
from comity_client.audit_source import Source
from comity_client.desk import Desk
from comity_client.drafts import Draft
from comity_client.profile import Deployment, read_profile, write_profile
from comity_client.tokens import TokenMaker
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.notices import EraseBasis, HoldBasis
from comity_protocol.receipts import Receipt, Signed, sign_receipt
from comity_protocol.statements import Authority, Policy
from support.desks import LEAD, REQUEST, Meddler, enrol, open_desk
from support.relay import Answer, Clock, Relay, relay, witness
from support.world import Member, World, held_of

BEGAN_AT: Final = 1_800_000_000
STEP: Final = 900
"""Seconds between two steps of the story: longer than a promise, shorter than an outage."""

FILLING: Final = 240
DESKS: Final = ("alice", "bob", "auditor")
STAGES: Final = 4
_UNAUTHORIZED: Final = 401


class Still(Clock):
    """A clock that moves only when it is told to."""

    def __init__(self, at: int = BEGAN_AT) -> None:
        """Begin at a time, UTC seconds."""
        super().__init__()
        self.at = at

    def __call__(self) -> float:
        """Give UTC seconds."""
        return float(self.at)


@dataclass(frozen=True, slots=True)
class Sent:
    """Something that a device posted, and the promise that it got for it.

    Attributes:
        path: Where it was posted.
        by: None for a statement, which anybody may post.
    """

    path: str
    body: bytes
    by: Member | None
    promise: bytes


@dataclass(slots=True)
class Past:
    """What happened, and who knows it.

    Attributes:
        members: By name: those of ``DESKS``, a second device of each, carol, dave, the leaver,
            and who came late to alice's desk.
        sent: What was posted, in order.
        envelopes: What the desks of ``DESKS`` sent each other, in order; ``erased`` is one of them.
        sizes: Of the log after each stage.
        at: When the story ended, UTC seconds.
    """

    folder: Path
    world: World
    members: dict[str, Member]
    sent: list[Sent] = field(default_factory=list)
    envelopes: list[EnvelopeId] = field(default_factory=list)
    erased: EnvelopeId = field(default_factory=lambda: EnvelopeId(bytes(16)))
    sizes: list[int] = field(default_factory=list)
    at: int = BEGAN_AT

    @property
    def pinned(self) -> bytes:
        """Hash of the genesis."""
        return self.world.statements[0][1].hash

    def older(self, stage: int) -> Path:
        """The relay's folder as it was after a stage."""
        return self.folder / f"older{stage}"


def open_member(past: Past, desks: Path, name: str, url: str, clock: Clock) -> tuple[Desk, Meddler]:
    """Open the desk of a member at an address of the relay; enrols it the first time."""
    folder, member = desks / name, past.members[name]
    if folder.exists():
        profile = read_profile(folder)
        write_profile(folder, replace(profile, deployment=Deployment(url, past.pinned)))
    else:
        enrol(folder, past.world, member, url)
    return open_desk(folder, member, clock)


def found() -> tuple[World, dict[str, Member]]:
    """Found the deployment: two prosecutors' desks, their auditor, two desks that fill the log."""
    world = World.found(("XA", "XB", "SEC"))
    auditor = world.create_desk("SEC", Authority.SECRETARIAT)
    policy = Policy(auditors_file=(auditor,), auditors_lead=(auditor,))
    desks = {
        "alice": world.create_desk("XA", Authority.PROSECUTION, policy=policy, officers=3),
        "bob": world.create_desk("XB", Authority.PROSECUTION, policy=policy),
        "auditor": auditor,
        "carol": world.create_desk("XA", officers=1),
        "dave": world.create_desk("XB", officers=1),
    }
    members = {name: world.active(desk)[0] for name, desk in desks.items()}
    members |= {f"{name}2": world.active(desks[name])[1] for name in DESKS}
    members["leaver"] = world.active(desks["alice"])[2]
    return world, members


async def tell(folder: Path) -> Past:
    """Let the deployment work, stop it, and give what is left of it in a folder."""
    world, members = found()
    past = Past(folder, world, members)
    data, witnesses = folder / "relay", folder / "witnesses"
    data.mkdir(parents=True)
    witnesses.mkdir()
    clock = Still()
    for stage in range(STAGES):
        async with AsyncExitStack() as stack:
            urls = [
                await stack.enter_async_context(witness(witnesses, name, world, clock))
                for name in world.witness_keys
            ]
            running = await stack.enter_async_context(
                relay(
                    data,
                    world,
                    clock=clock,
                    witnesses=0,
                    urls=urls,
                    desk_envelopes_burst=5_000,
                    # Quiet but for what the story does.
                    checkpoint_seconds=0.001,
                )
            )
            told = _Stage(past, running, clock, stack)
            await told.publish()
            await _STAGES[stage](told)
            await running.seal()
            past.sizes.append(running.context.log.size)
        past.at = clock.at
        shutil.copytree(data, past.older(stage))
        shutil.copytree(witnesses, past.older(stage) / "witnesses")
        clock.at += STEP
    return past


@dataclass(slots=True)
class _Stage:
    """A running relay in the middle of the story."""

    past: Past
    running: Relay
    clock: Still
    stack: AsyncExitStack
    desks: dict[str, tuple[Desk, Meddler]] = field(default_factory=dict)

    async def open(self) -> Sequence[Desk]:
        """Open the desks."""
        folder = self.past.folder / "desks"
        for name in DESKS:
            desk, meddler = open_member(self.past, folder, name, self.running.url, self.clock)
            self.desks[name] = (await self.stack.enter_async_context(desk), meddler)
        return [self.desks[name][0] for name in DESKS]

    async def publish(self) -> None:
        """Post the world's statements that the relay does not have."""
        self.running.posted = await self._ordinal()
        for _, signed in self.past.world.statements[self.running.posted :]:
            await self.post("/v1/statements", signed.serialize(), None)
        await self.tick()

    async def _ordinal(self) -> int:
        return (await self.running.context.store.head()).statements

    async def post(self, path: str, body: bytes, by: Member | None) -> None:
        """Post something, and remember the promise."""
        answer = await repost(self.running, Sent(path, body, by, b""))
        self.past.sent.append(Sent(path, body, by, answer.promise.serialize()))

    async def tick(self) -> None:
        """Let a step go by, under a checkpoint of its own."""
        await self.running.seal()
        self.clock.at += STEP

    async def deliver(self) -> None:
        """Send what is queued, fetch, and exchange receipts."""
        for name in DESKS:
            await self.desks[name][0].flush()
            await self.tick()
        for name in (*DESKS[1:], *DESKS):
            await self.desks[name][0].fetch()
            await self.tick()

    async def remember(self) -> None:
        """Ask for the promise of everything that the desks posted, as after a lost answer."""
        for name, (_, meddler) in self.desks.items():
            for kind, body in meddler.posted:
                await self.post(f"/v1/{kind}s", body, self.past.members[name])
            meddler.posted.clear()


async def _talk(stage: _Stage) -> None:
    """Two leads, one with an answer, and a formal request."""
    alice, bob, auditor = await stage.open()
    for desk in (alice, bob, auditor):
        await desk.sync()
    to = stage.past.members["bob"].desk
    two = Draft(text="two", language="en")
    stage.past.envelopes += [alice.lead(to, LEAD), alice.lead(to, two), alice.request(to, REQUEST)]
    await stage.deliver()
    exchange = bob.exchange(alice.exchanges()[0].id)
    stage.past.envelopes.append(bob.answer(exchange.id, Draft(text="nothing is known here")))
    await stage.deliver()
    await stage.remember()


async def _fill(stage: _Stage) -> None:
    """Eight leads and as many receipts as there are ways to name some of them."""
    carol, dave = stage.past.members["carol"], stage.past.members["dave"]
    running, world = stage.running, stage.past.world
    sealed = []
    for _ in range(8):
        one = running.seal_lead(carol, dave.desk)
        await stage.post("/v1/envelopes", one.upload.serialize(), carol)
        sealed.append(one)
    await stage.tick()
    some = chain.from_iterable(combinations(sealed, count) for count in range(1, 9))
    seq, seen = world.directory.desk(dave.desk).seq, await running.seal()
    for number, held in enumerate(islice(some, FILLING), start=1):
        receipt = Receipt(dave.desk, dave.id, seq, held_of(*held), seen, number)
        await stage.post("/v1/receipts", sign_receipt(dave.fast, receipt).serialize(), dave)
    await stage.tick()


async def _change(stage: _Stage) -> None:
    """A removal, a newcomer, an erasure, a hold; somebody fetches the log."""
    world, members = stage.past.world, stage.past.members
    world.remove(members["alice"].desk, [members["leaver"]])
    members["late"] = world.admit(members["alice"].desk)
    await stage.publish()
    alice, bob, auditor = await stage.open()
    for desk in (alice, bob, auditor):
        await desk.sync()
    stage.past.erased = alice.lead(members["bob"].desk, Draft(text="three", language="en"))
    stage.past.envelopes.append(stage.past.erased)
    await stage.deliver()
    first, second, _, third = (one.id for one in alice.exchanges())
    await bob.hold(first, HoldBasis.PROCEEDINGS)
    await bob.hold(second, HoldBasis.COMPLAINT)
    await bob.release(second)
    await bob.erase(third, EraseBasis.CASE_CLOSED)
    await alice.erase(third, EraseBasis.CASE_CLOSED)
    await stage.deliver()
    await stage.remember()
    await bring(stage.past.folder / "archive", stage.running.url, stage.past, "bob")


async def _go_on(stage: _Stage) -> None:
    """One more exchange, after a backup was made."""
    alice, bob, _ = await stage.open()
    lead = Draft(text="four", language="en")
    stage.past.envelopes.append(alice.lead(stage.past.members["bob"].desk, lead))
    await stage.deliver()
    exchange = bob.exchanges()[-1].id
    stage.past.envelopes.append(bob.answer(exchange, Draft(text="four is known")))
    await stage.deliver()
    await stage.remember()


_STAGES: Final[Sequence[Callable[[_Stage], Awaitable[None]]]] = (_talk, _fill, _change, _go_on)


async def repost(running: Relay, one: Sent) -> Answer:
    """Post something, again with a fresh nonce when the clock has moved on."""
    if one.by is None:
        return await running.ask("POST", one.path, one.body)
    answer = await running.as_device(one.by, "POST", one.path, one.body)
    if answer.status == _UNAUTHORIZED:
        answer = await running.as_device(one.by, "POST", one.path, one.body)
    return answer


async def bring(folder: Path, url: str, past: Past, name: str) -> list[Finding]:
    """Fetch the log into a folder as a member does; give what was found while doing it."""
    found: list[Finding] = []
    archive = Archive(folder)
    async with Source(url) as source:
        await fetch(archive, source, past.pinned, report=found.append)
    genesis = read_genesis(archive, past.pinned)
    assert genesis is not None
    member = past.members[name]
    maker = TokenMaker(member.id, genesis.deployment, member.fast)
    async with MemberRelay(url, maker) as own:
        assert isinstance(own, MemberRelay)
        await fetch_desk(archive, own, genesis, found.append)
    return found


def promises_of(past: Past) -> dict[str, Signed]:
    """Give every promise that somebody holds, by a name."""
    return {f"{at}": Signed.parse(one.promise) for at, one in enumerate(past.sent)}
