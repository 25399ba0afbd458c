"""What an act costs on the wire, to the byte: offices with 20 kB/s must be able to use this.

Up is the upload; down is the item of the mailbox that the counterpart fetches. Every act carries
gossip, and goes to a foreign desk, the own desk and the secretariat: 83 bytes of each item hide the
counters of the other two. A figure that changes here
changes the protocol: say so in the changelog.
"""

from dataclasses import dataclass

import pytest

from comity_protocol.acts import Act, Body, Event, Gossip, sign_act
from comity_protocol.audit import project
from comity_protocol.encoding import Value, serialize
from comity_protocol.envelope import Sealed, Thread, seal
from comity_protocol.identifiers import DeskId, EnvelopeId
from comity_protocol.keys import random_bytes
from comity_protocol.leaves import commit_counters, prove_counter
from comity_protocol.profiles import PROFILES
from comity_protocol.statements import Authority, Policy
from support.world import Member, World, audit_key_of, core_of, lead, reply, request

GOSSIP = Gossip(1_000_000, bytes(32), bytes(64))
COUNTER, LEAF_INDEX = 1_234, 56_789


@dataclass(slots=True)
class Office:
    world: World
    home: Member
    away: Member

    def seal(
        self,
        act: Act,
        *,
        profile: str = "lead",
        by: Member | None = None,
        head_key: bytes | None = None,
        thread: Thread | None = None,
    ) -> Sealed:
        by = by or self.home
        to = self.away.desk if by is self.home else self.home.desk
        rules, act_bytes = PROFILES[profile], act.serialize()
        signature = None
        if act.event in rules.signed:
            deployment = self.world.genesis.deployment
            signature = sign_act(
                by.full, act_bytes, deployment=deployment, sender=by.desk, receiver=to
            )
        return seal(
            body=Body(act_bytes, signature, GOSSIP).serialize(),
            audit=project(act, head_key).serialize(),
            to=self.world.addresses(by, to, rules.kind),
            sender=self.world.sender(by),
            seen=bytes(32),
            envelope_id=EnvelopeId(random_bytes(16)),
            thread=thread,
        )


@pytest.fixture
def office() -> Office:
    world = World.found(("XA", "XB", "XC"))
    secretariat = world.create_desk("XC", Authority.SECRETARIAT)
    policy = Policy(auditors_file=(secretariat,), auditors_lead=(secretariat,))
    home = world.create_desk("XA", Authority.PROSECUTION, policy=policy)
    away = world.create_desk("XB", Authority.CENTRAL_AUTHORITY, policy=policy)
    return Office(world, world.active(home)[0], world.active(away)[0])


def _sizes(sealed: Sealed, reader: DeskId) -> tuple[int, int]:
    """Bytes up, and bytes down for one reader."""
    upload, core = sealed.upload, core_of(sealed)
    entry = core.recipient(reader)
    assert entry is not None
    place = core.to.index(entry)
    wrap = upload.wraps[place] if upload.wraps else None
    hidden = commit_counters([to.desk for to in core.to], [COUNTER] * len(core.to), bytes(16))
    item: list[Value] = [
        COUNTER,
        LEAF_INDEX,
        upload.core,
        upload.signature,
        upload.body,
        upload.audit,
        wrap,
        prove_counter(place, reader, bytes(16), hidden).to_value(),
    ]
    return len(upload.serialize()), len(serialize(item))


def test_a_formal_request_of_2000_bytes(office: Office) -> None:
    """[E-10] The post-quantum signature is 3,373 of them, each post-quantum wrap 1,168."""
    sealed = office.seal(request("x" * 2_000), profile="untoc18")

    assert len(sealed.upload.core) == 362
    assert _sizes(sealed, office.away.desk) == (9_270, 8_113)
    assert _sizes(sealed, office.home.desk) == (9_270, 7_016)


def test_the_first_lead_of_1_kib(office: Office) -> None:
    """[E-10]"""
    sealed = office.seal(lead("x" * 1_024))

    assert _sizes(sealed, office.away.desk) == (4_470, 3_313)


def test_a_later_lead_of_1_kib_in_the_same_thread(office: Office) -> None:
    """[E-6] It refers to the wraps of the first."""
    opening = lead("x" * 1_024)
    first = office.seal(opening)
    act = reply(Event.LEAD, opening, first.id, text="y" * 1_024)

    later = office.seal(act, head_key=audit_key_of(first), thread=first.thread)

    assert len(later.upload.core) == 281
    assert _sizes(later, office.away.desk) == (1_909, 1_998)


def test_a_status_act_of_a_desk_that_has_written_before(office: Office) -> None:
    """[E-6]"""
    opening = lead("x" * 1_024)
    first = office.seal(opening)
    key = audit_key_of(first)
    answer = office.seal(reply(Event.LEAD, opening, first.id), by=office.away, head_key=key)
    acknowledge = reply(Event.ACKNOWLEDGE, opening, first.id)
    close = reply(Event.CLOSE, opening, first.id)

    acknowledged = office.seal(acknowledge, by=office.away, head_key=key, thread=answer.thread)
    closed = office.seal(close, head_key=key, thread=first.thread)

    assert _sizes(acknowledged, office.home.desk) == (901, 990)
    assert _sizes(closed, office.away.desk) == (885, 974)


def test_the_first_act_of_the_answering_desk_brings_its_own_wraps(office: Office) -> None:
    """[E-6] Only the desk that brought wraps may refer to them."""
    opening = lead("x" * 1_024)
    first = office.seal(opening)
    act = reply(Event.ACKNOWLEDGE, opening, first.id)

    sealed = office.seal(act, by=office.away, head_key=audit_key_of(first), thread=None)

    assert _sizes(sealed, office.home.desk) == (3_398, 2_241)
