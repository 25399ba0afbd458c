"""A mixed workload between three States and the secretariat that audits them, as a script.

The same script can be played to several relays: identifiers, acts and the clock are those of the
script, so that whoever counts must find the same. What is sealed is sealed anew for each relay.

Eight stories take turns: answered and closed; acknowledged and answered; refused after the
consultation that is owed; received and left open; answered at the very end; an act that the machine
refuses in between; an audit wrap of garbage; and an answer that the relay refuses for a day, which
the witnesses stamp meanwhile.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import groupby
from typing import Final

from comity_protocol.acts import Act, Event
from comity_protocol.core import Core, core_hash
from comity_protocol.envelope import Sealed
from comity_protocol.identifiers import DeskId, EnvelopeId
from comity_protocol.keys import Context, random_bytes
from comity_protocol.notices import Author, Stamped, sign_notice
from comity_protocol.receipts import Receipt, sign_receipt
from comity_protocol.stamps import Stamp, sign_stamp
from comity_protocol.statements import Authority, Policy
from support.relay import Clock, Relay, wait_until
from support.world import Member, World, audit_key_of, held_of, lead, reply, request

TICK_SECONDS: Final = 600
"""Between two checkpoints of the script: less than what counts as an outage."""

REFUSED_TICKS: Final = 144
"""How long the relay refuses an answer: a day."""

START: Final = 1_800_000_000


class ScriptClock(Clock):
    """A clock that stands still until the script moves it."""

    def __call__(self) -> float:
        return START + self.ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One thing that happens.

    Attributes:
        tick: When.
        by: Who acts.
        to: The other desk.
        envelope: The id of the act; of a receipt, of what it confirms.
        act: None for a receipt.
        profile: Of its exchange.
        head: The act that it names as its head.
        is_garbage: Whether the auditor's wrap is noise.
        stamped_tick: When witnesses stamped it; None when they did not.
    """

    tick: int
    by: DeskId
    to: DeskId
    envelope: EnvelopeId
    act: Act | None
    profile: str
    head: EnvelopeId | None = None
    is_garbage: bool = False
    stamped_tick: int | None = None


@dataclass(slots=True)
class Script:
    """Everything that happens, and what it was meant to show.

    Attributes:
        garbage: Ids of acts whose audit wrap is noise, with the party of the sender.
        stories: Number of exchanges of each story.
        said: How many receipts and notices each device has given to the same readers.
    """

    world: World
    desks: tuple[DeskId, ...]
    secretariat: DeskId
    deeds: list[Deed] = field(default_factory=list)
    garbage: dict[EnvelopeId, str] = field(default_factory=dict)
    stories: list[int] = field(default_factory=lambda: [0] * 8)
    said: Counter[tuple[str, DeskId, DeskId]] = field(default_factory=Counter)

    @property
    def officer(self) -> Member:
        """The officer of the secretariat."""
        return self.world.active(self.secretariat)[0]

    @property
    def acts(self) -> int:
        """How many acts are sent."""
        return sum(deed.act is not None for deed in self.deeds)


def write_script(exchanges: int) -> Script:
    """Write the script of so many exchanges."""
    world = World.found(("XA", "XB", "XC", "SEC"))
    secretariat = world.create_desk("SEC", Authority.SECRETARIAT)
    policy = Policy(auditors_file=(secretariat,), auditors_lead=(secretariat,))
    desks = tuple(
        world.create_desk(code, Authority.PROSECUTION, policy=policy) for code in ("XA", "XB", "XC")
    )
    script = Script(world, desks, secretariat)
    for number in range(exchanges):
        script.deeds += _story(script, number, exchanges)
    script.deeds.sort(key=lambda deed: deed.tick)
    return script


def _story(script: Script, number: int, exchanges: int) -> Iterator[Deed]:
    story = number % 8
    script.stories[story] += 1
    asker, answerer = script.desks[number % 3], script.desks[(number + 1 + number // 3 % 2) % 3]
    is_formal = story in (1, 2, 5)
    opening = request() if is_formal else lead()
    last: list[EnvelopeId] = []

    def deed(tick: int, event: Event | None, *, by: DeskId = answerer, **changes: object) -> Deed:
        head = last[-1] if last else None
        if event is not None:
            last.append(EnvelopeId(random_bytes(16)))
        act = None
        if event is not None:
            act = opening if head is None else reply(event, opening, head)
        fields: dict[str, object] = {
            "tick": tick,
            "by": by,
            "to": asker if by == answerer else answerer,
            "envelope": last[-1],
            "act": act,
            "profile": opening.profile,
            "head": head,
        }
        return Deed(**(fields | changes))  # type: ignore[arg-type]  # the story's own keywords

    def garbage(one: Deed) -> Deed:
        script.garbage[one.envelope] = script.world.directory.desk(one.by).party
        return replace(one, is_garbage=True)

    begin = number // 2
    opened = deed(begin, opening.event, by=asker)
    yield garbage(opened) if story == 6 and number % 16 == 6 else opened
    yield deed(begin + 1, None)
    match story:
        case 0:
            yield deed(begin + 2, Event.ANSWER)
            yield deed(begin + 4, Event.CLOSE, by=asker)
        case 1:
            yield deed(begin + 2, Event.ACKNOWLEDGE)
            yield deed(begin + 5, Event.ANSWER)
        case 2:
            yield deed(begin + 2, Event.ACKNOWLEDGE)
            yield deed(begin + 3, Event.CONSULT)
            yield deed(begin + 6, Event.REFUSE)
        case 4:
            yield deed(begin + 2, Event.ACKNOWLEDGE)
            yield deed(exchanges + 60, Event.ANSWER)
        case 5:
            # The asker answers its own request; then the one who was asked does.
            yield deed(begin + 2, Event.ANSWER, by=asker)
            last.pop()
            yield deed(begin + 4, Event.ANSWER)
        case 6:
            yield garbage(deed(begin + 3, Event.ANSWER))
        case 7:
            tick = begin + 3
            yield deed(tick + REFUSED_TICKS, Event.ANSWER, stamped_tick=tick)
        case _:
            pass


async def play(script: Script, relay: Relay, clock: ScriptClock) -> None:
    """Do to a relay what the script says; the clock is the relay's and the witnesses'."""
    sealed: dict[EnvelopeId, Sealed] = {}
    last = 0
    for tick, deeds in groupby(script.deeds, key=lambda deed: deed.tick):
        if last < tick - 1:
            clock.ahead = (tick - 1) * TICK_SECONDS
            await beat(relay)
        last = tick
        clock.ahead = tick * TICK_SECONDS
        await relay.ask("GET", "/v1/nonce")
        seen = relay.context.log.newest().note_hash
        for deed in deeds:
            await _do(script, relay, deed, sealed, seen)
        await relay.seal()


async def beat(relay: Relay) -> None:
    """Let the relay publish its head again, as it does when nothing is added for a while."""
    began = int(relay.clock())
    relay.context.relay.grown.set()
    await wait_until(lambda: relay.context.log.newest().at >= began)


async def _do(
    script: Script, relay: Relay, deed: Deed, sealed: dict[EnvelopeId, Sealed], seen: bytes
) -> None:
    member = script.world.active(deed.by)[0]
    if deed.act is None:
        held = held_of(sealed[deed.envelope])
        seq = script.world.directory.desk(deed.by).seq
        script.said["receipt", deed.by, deed.to] += 1
        number = script.said["receipt", deed.by, deed.to]
        signed = sign_receipt(member.fast, Receipt(deed.by, member.id, seq, held, seen, number))
        answer = await relay.as_device(member, "POST", "/v1/receipts", signed.serialize())
        assert answer.status == 200, answer.body
        return
    one = script.world.seal_act(
        member,
        deed.to,
        deed.act,
        profile=deed.profile,
        head_key=None if deed.head is None else audit_key_of(sealed[deed.head]),
        seen=seen,
        envelope_id=deed.envelope,
    )
    if deed.is_garbage:
        one = with_garbage_for(one, script.secretariat, member)
    sealed[deed.envelope] = one
    answer = await relay.post(member, one)
    assert answer.status == 200, answer.body
    if deed.stamped_tick is not None:
        script.said["notice", deed.by, deed.to] += 1
        number = script.said["notice", deed.by, deed.to]
        at = START + deed.stamped_tick * TICK_SECONDS
        await _state_stamps(script, relay, member, one, at, number)


async def _state_stamps(
    script: Script, relay: Relay, member: Member, sealed: Sealed, at: int, number: int
) -> None:
    await relay.seal()
    world, what = script.world, core_hash(sealed.upload.core)
    deployment = world.genesis.deployment
    stamps = tuple(
        Stamp(name, at + off, sign_stamp(key, deployment, what, at + off).signature)
        for off, (name, key) in enumerate(sorted(world.witness_keys.items()))
    )
    seq = world.directory.desk(member.desk).seq
    seen = relay.context.log.newest().note_hash
    author = Author(deployment, member.desk, member.id, seq, seen, number)
    signed = sign_notice(member.fast, Stamped(author, sealed.id, what, stamps))
    answer = await relay.as_device(member, "POST", "/v1/notices", signed.serialize())
    assert answer.status == 200, answer.body


def with_garbage_for(sealed: Sealed, auditor: DeskId, member: Member) -> Sealed:
    """Give the auditor random bytes where its wrap should be, and sign that."""
    core = Core.parse(sealed.upload.core)
    place = [entry.desk for entry in core.to].index(auditor)
    wraps, to = list(sealed.upload.wraps), list(core.to)
    wraps[place] = random_bytes(len(wraps[place]))
    to[place] = replace(to[place], wrap_hash=sha256(wraps[place]).digest())
    data = replace(core, to=tuple(to)).serialize()
    signature = member.fast.sign(Context.ENVELOPE, data)
    upload = replace(sealed.upload, core=data, signature=signature, wraps=tuple(wraps))
    return replace(sealed, upload=upload)
