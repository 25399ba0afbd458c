"""P6: every act traces to a key of its desk that was valid then, across handovers.

Found by: every client, the counting and the relay, when the act is read. Acts from before a
handover stay good for ever.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import pytest

from comity_protocol.acts import Event, sign_act, verify_act
from comity_protocol.audit import AuditRecord, project
from comity_protocol.core import Kind
from comity_protocol.envelope import Sealed, verify_core
from comity_protocol.errors import ComityError
from comity_protocol.exchange import RefusedError, Step, apply
from comity_protocol.identifiers import DeskId, EnvelopeId
from comity_protocol.keys import Context
from comity_protocol.receipts import Receipt, sign_receipt, verify_receipt
from comity_protocol.statements import Authority, Role
from support.draws import Draws
from support.world import Member, World, core_of, held_of, lead, reply, request

LOW_ORDER: Final = (
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
)
"""Points on which anybody's signature may seem to hold."""


@dataclass
class Office:
    """A desk whose focal point changes, and the desk that reads it.

    Attributes:
        left_at: Leaf index of the removal of the former focal point.
        joined_at: Leaf index at which the new one was let in.
    """

    world: World
    former: Member
    new: Member
    reader: Member
    joined_at: int
    left_at: int


def handover() -> Office:
    """Let a focal point be followed by another."""
    world = World.found()
    desk, other = world.create_desk("XA"), world.create_desk("XB")
    former = world.active(desk)[1]
    new = world.admit(desk, role=Role.OFFICER)
    joined_at = world.directory.index
    world.remove(desk, [former])
    return Office(world, former, new, world.active(other)[0], joined_at, world.directory.index)


def sent_by(office: Office, member: Member) -> Sealed:
    """Seal a lead as a member, who has a copy of the newest secrets."""
    admin = office.world.active(member.desk)[0]
    return office.world.seal_act(
        replace(member, secrets=dict(admin.secrets)), office.reader.desk, lead()
    )


def is_believed(office: Office, sealed: Sealed, index: int) -> bool:
    """Whether a client believes who sent it, were it at that leaf."""
    upload = sealed.upload
    try:
        verify_core(upload.core, upload.signature, office.world.directory, index=index)
    except ComityError:
        return False
    return True


def test_an_act_counts_from_the_leaf_at_which_its_device_joined_to_that_at_which_it_left() -> None:
    """[E-1] One leaf makes the difference, at both ends."""
    office = handover()
    old, young = sent_by(office, office.former), sent_by(office, office.new)

    assert is_believed(office, old, office.left_at - 1)
    assert not is_believed(office, old, office.left_at)
    assert not is_believed(office, old, office.left_at + 1)
    assert not is_believed(office, young, office.joined_at - 1)
    assert is_believed(office, young, office.joined_at + 1)


def test_a_receipt_of_the_former_focal_point_counts_as_long() -> None:
    """[Q-1]"""
    office = handover()
    sealed = office.world.seal_act(office.reader, office.former.desk, lead())
    receipt = Receipt(office.former.desk, office.former.id, 4, held_of(sealed), bytes(32))
    signed = sign_receipt(office.former.fast, receipt)

    verify_receipt(signed, office.world.directory, index=office.left_at - 1)
    with pytest.raises(ComityError):
        verify_receipt(signed, office.world.directory, index=office.left_at + 1)


def test_a_key_of_low_order_joins_no_desk() -> None:
    """[K-2]"""
    for key in LOW_ORDER:
        world = World.found()
        desk = world.create_desk("XA")
        weak = Member(desk, world.active(desk)[0].officer, Role.OFFICER)
        weak.fast = _Weak(key)  # type: ignore[assignment]  # a key that the class would refuse
        with pytest.raises(ComityError, match="low order"):
            world.publish(world.admission(weak, by=world.custodians(desk)))


class _Weak:
    """A public key without a secret one."""

    def __init__(self, public: bytes) -> None:
        self.public = public


REPLAYS: Final = ("deployment", "sender", "receiver", "act")


def replays(count: int) -> dict[str, int]:
    """Show a true signature over an act elsewhere; gives tries and those believed."""
    world = World.found()
    desks = [world.create_desk(code, Authority.PROSECUTION) for code in ("XA", "XB")]
    member = world.active(desks[0])[0]
    act = request().serialize()
    true: dict[str, bytes] = {
        "deployment": world.genesis.deployment,
        "sender": desks[0],
        "receiver": desks[1],
        "act": act,
    }

    def check(place: dict[str, bytes], signature: bytes) -> None:
        verify_act(
            member.full.public,
            place["act"],
            signature,
            deployment=place["deployment"],  # type: ignore[arg-type]  # ids are bytes
            sender=DeskId(place["sender"]),
            receiver=DeskId(place["receiver"]),
        )

    signature = sign_act(
        member.full, act, deployment=world.genesis.deployment, sender=desks[0], receiver=desks[1]
    )
    check(true, signature)
    draws, believed = Draws("P6"), 0
    for number in range(count):
        field = REPLAYS[number % len(REPLAYS)]
        try:
            check({**true, field: draws.flip(true[field])}, signature)
            believed += 1
        except ComityError:
            pass
    return {"tried": count, "believed": believed}


def test_a_signed_act_is_worth_nothing_between_other_desks_or_in_another_deployment() -> None:
    """[A-1] [P-4]"""
    assert replays(40) == {"tried": 40, "believed": 0}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_signed_act_is_worth_nothing_in_twenty_thousand_other_places() -> None:
    """[A-1] [P-4]"""
    assert replays(20_000) == {"tried": 20_000, "believed": 0}


ATTACKS: Final[dict[str, Callable[[AuditRecord, EnvelopeId], AuditRecord]]] = {
    "as it was": lambda record, _: record,
    "with the other's opening as head": lambda record, head: replace(record, head=head),
}


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_an_answer_is_worth_nothing_in_another_exchange(attack: str) -> None:
    """[X-5] The recipient's own answer, shown again in the exchange next to it."""
    desks = DeskId(b"a" * 16), DeskId(b"b" * 16)
    openings = [lead(), lead()]
    ids = [EnvelopeId(bytes([number]) * 16) for number in (1, 2, 3)]
    steps = [
        Step(n, ids[n], *desks, Authority.POLICE, Kind.LEAD, project(act, None))
        for n, act in enumerate(openings)
    ]
    answer = project(reply(Event.ANSWER, openings[0], ids[0]), bytes(32))
    record = ATTACKS[attack](answer, ids[1])
    replayed = Step(2, ids[2], *desks[::-1], Authority.POLICE, Kind.LEAD, record)

    with pytest.raises(RefusedError) as refused:
        apply(apply(None, steps[1]), replayed)
    assert refused.value.rule == "X-5"
    assert apply(apply(None, steps[0]), replace(replayed, record=answer)).final_index == 2


def test_an_envelope_s_signature_is_that_of_no_other_kind() -> None:
    """[K-1]"""
    office = handover()
    sealed = sent_by(office, office.new)
    for kind in Context:
        if kind is not Context.ENVELOPE:
            forged = replace(
                sealed,
                upload=replace(
                    sealed.upload, signature=office.new.fast.sign(kind, sealed.upload.core)
                ),
            )
            assert not is_believed(office, forged, office.left_at + 1)
    assert core_of(sealed).device == office.new.id
