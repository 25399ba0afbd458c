"""A desk's chain: what lets somebody in, what throws somebody out, and every attack on it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from comity_protocol import chain
from comity_protocol.chain import Desk, apply
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.epochs import NewEpoch, box_for, box_hash
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.identifiers import DeploymentId, DeskId, DeviceId, OfficerId
from comity_protocol.keys import Context, FastKey, FullKey, SealKey, random_bytes
from comity_protocol.statements import (
    Authority,
    DeskStatement,
    DeviceStatement,
    EpochKeys,
    EpochStatement,
    Link,
    Policy,
    PolicyStatement,
    Reason,
    RemovalStatement,
    Role,
    SignedStatement,
    boxes_hash,
    parse_statement,
    sign_statement,
)
from support.world import Member, Party, World

LOW_ORDER = b"\x01" + bytes(31)
"""The neutral element of Ed25519: every signature of a certain form fits it."""


@pytest.fixture
def world() -> World:
    return World.found()


@pytest.fixture
def desk(world: World) -> DeskId:
    """A desk of two admins and two plain officers, in its first epoch."""
    return world.create_desk("XA", officers=4, admins=2)


def _of(world: World, desk: DeskId, role: Role) -> list[Member]:
    return [member for member in world.active(desk) if member.role is role]


def _admins(world: World, desk: DeskId) -> list[Member]:
    return _of(world, desk, Role.ADMIN)


def _officers(world: World, desk: DeskId) -> list[Member]:
    return _of(world, desk, Role.OFFICER)


def _newcomer(desk: DeskId, role: Role = Role.OFFICER, officer: bytes | None = None) -> Member:
    return Member(desk, OfficerId(officer or random_bytes(16)), role)


def _keep(world: World, member: Member, giver: Member) -> None:
    world.members[member.id] = replace(member, secrets=dict(giver.secrets))


def _admission(world: World, member: Member, *by: Member) -> SignedStatement:
    giver = world.active(member.desk)[0]
    return world.admission(member, by=[signer.full for signer in by], giver=giver)


def _statement_of(signed: SignedStatement) -> DeviceStatement:
    statement = parse_statement(signed.payload)
    assert isinstance(statement, DeviceStatement)
    return statement


def _epoch_statement(
    world: World, desk: DeskId, keys: EpochKeys, epoch: NewEpoch, *by: Member
) -> SignedStatement:
    return sign_statement(
        EpochStatement(world.link(desk), keys).serialize(),
        [signer.full for signer in by],
        boxes=epoch.boxes,
        previous=epoch.previous,
    )


def _refuse(world: World, signed: SignedStatement, message: str) -> None:
    before = world.directory
    with pytest.raises(VerificationError, match=message):
        world.publish(signed)

    assert world.directory is before


def _refuse_removal(
    world: World, desk: DeskId, gone: Sequence[Member], by: Sequence[FullKey], message: str
) -> None:
    signed, _ = world.removal(desk, gone, by=by)
    _refuse(world, signed, message)


# --- What is allowed --------------------------------------------------------------------------


def test_a_new_desk_has_its_devices_its_policy_and_an_epoch_for_all_of_them(
    world: World, desk: DeskId
) -> None:
    made = world.directory.desk(desk)

    assert (made.party, made.authority, made.policy) == ("XA", Authority.POLICE, Policy())
    assert made.seq == 5
    assert made.epoch is not None
    assert made.epoch.number == 1
    assert made.epoch.members == tuple(made.active)
    assert made.is_sealable


def test_a_desk_without_an_epoch_is_not_sealable(world: World) -> None:
    desk = DeskId(random_bytes(16))
    party = world.parties["XA"]
    link = Link(world.genesis.deployment, desk, 0, SignedStatement(party.root.serialize(), ()).hash)
    statement = DeskStatement(link, "XA", Authority.POLICE, Policy())

    world.publish(sign_statement(statement.serialize(), party.quorum))

    assert world.directory.desk(desk).epoch is None
    assert not world.directory.desk(desk).is_sealable


def test_a_desk_whose_epoch_has_a_member_who_is_gone_is_not_sealable(
    world: World, desk: DeskId
) -> None:
    """[E-7] The chain never lets this happen; a sender asks all the same."""
    made = world.directory.desk(desk)
    gone = next(iter(made.active))
    devices = {**made.devices, gone: replace(made.devices[gone], removed_index=99)}

    assert not replace(made, devices=devices).is_sealable


def test_two_admins_let_a_plain_device_in(world: World, desk: DeskId) -> None:
    """[S-3]"""
    member = _newcomer(desk)

    world.publish(_admission(world, member, *_admins(world, desk)))

    assert world.directory.desk(desk).active[member.id].role is Role.OFFICER


def test_custodians_let_an_admins_device_in(world: World, desk: DeskId) -> None:
    """[S-3]"""
    member = world.admit(desk, role=Role.ADMIN)

    assert world.directory.desk(desk).active[member.id].role is Role.ADMIN


def test_a_device_may_sign_after_its_admission_and_before_its_removal(
    world: World, desk: DeskId
) -> None:
    """[E-1] At its admission's own leaf and at its removal's it may not."""
    officer = _officers(world, desk)[0]
    device = world.directory.desk(desk).devices[officer.id]
    world.remove(desk, [officer])
    removed = world.directory.desk(desk).devices[officer.id]

    assert removed.removed_index == world.directory.index
    assert not device.is_active_at(device.added_index)
    assert device.is_active_at(device.added_index + 1)
    assert removed.is_active_at(removed.removed_index - 1)
    assert not removed.is_active_at(removed.removed_index)


def test_one_admin_throws_out_another_and_the_epoch_turns_in_the_same_statement(
    world: World, desk: DeskId
) -> None:
    """[S-5] [S-6]"""
    first, second = _admins(world, desk)

    world.remove(desk, [second], by=first)

    after = world.directory.desk(desk)
    assert second.id not in after.active
    assert after.epoch is not None
    assert after.epoch.number == 2
    assert second.id not in after.epoch.members


def test_an_officer_throws_out_a_lost_device_of_his_own(world: World, desk: DeskId) -> None:
    """[S-5]"""
    officer = _officers(world, desk)[0]
    second = _newcomer(desk, officer=officer.officer)
    world.publish(_admission(world, second, *_admins(world, desk)))
    _keep(world, second, officer)

    world.remove(desk, [second], by=officer)

    assert second.id not in world.directory.desk(desk).active


def test_a_statement_out_of_the_directory_is_folded_without_its_boxes(
    world: World, desk: DeskId
) -> None:
    """[S-9] Boxes are for those who open them; what readers fold is the same."""
    world.admit(desk)
    world.remove(desk, [_officers(world, desk)[0]])
    folded = None

    for index, signed in world.statements[1:]:
        bare = SignedStatement(signed.payload, signed.signatures, is_bare=True)
        folded = apply(folded, bare, genesis=world.genesis, index=index)

    assert folded == world.directory.desk(desk)


# --- Place in the chain: [S-1], [S-10] ---------------------------------------------------------


def test_a_statement_for_another_deployment_is_refused(world: World, desk: DeskId) -> None:
    """[S-1]"""
    link = replace(world.link(desk), deployment=DeploymentId(random_bytes(16)))
    signed = sign_statement(PolicyStatement(link, Policy()).serialize(), world.custodians(desk))

    _refuse(world, signed, r"statement is for another deployment \[S-1\]")


def test_a_statement_replayed_into_another_desk_is_refused(world: World, desk: DeskId) -> None:
    """[S-1] The custodians of both desks are the same: only the name in it stops the replay."""
    other_id = world.create_desk("XA", officers=4, admins=2)
    other = world.directory.desk(other_id)
    link = Link(world.genesis.deployment, desk, other.seq + 1, other.head)
    signed = sign_statement(PolicyStatement(link, Policy()).serialize(), world.custodians(desk))

    with pytest.raises(VerificationError, match=r"statement is for another desk \[S-1\]"):
        apply(other, signed, genesis=world.genesis, index=world.next_index)


def test_a_statement_that_skips_a_position_is_refused(world: World, desk: DeskId) -> None:
    """[S-1]"""
    link = replace(world.link(desk), seq=world.link(desk).seq + 1)
    signed = sign_statement(PolicyStatement(link, Policy()).serialize(), world.custodians(desk))

    _refuse(world, signed, r"statement 7 does not follow statement 5 of desk \w{8} \[S-1\]")


def test_a_forked_chain_is_refused(world: World, desk: DeskId) -> None:
    """[S-1] Two statements on one head: the first in leaf order stands, the other never does."""
    fork = sign_statement(
        PolicyStatement(world.link(desk), Policy(epoch_days=7)).serialize(), world.custodians(desk)
    )
    world.set_policy(desk, Policy(epoch_days=9))

    _refuse(world, fork, r"statement 6 does not follow statement 6 of desk \w{8} \[S-1\]")


def test_a_statement_on_a_head_that_never_was_is_refused(world: World, desk: DeskId) -> None:
    """[S-1]"""
    link = replace(world.link(desk), previous=random_bytes(32))
    signed = sign_statement(PolicyStatement(link, Policy()).serialize(), world.custodians(desk))

    _refuse(world, signed, r"does not follow .* \[S-1\]")


def test_a_statement_replayed_into_its_own_desk_is_refused(world: World, desk: DeskId) -> None:
    """[S-1]"""
    world.set_policy(desk, Policy(epoch_days=9))

    _refuse(world, world.statements[-1][1], r"does not follow .* \[S-1\]")


def test_a_desk_cannot_be_created_a_second_time(world: World, desk: DeskId) -> None:
    """[S-1] [S-10] Else custodians could silently give a desk other officers."""
    party = world.parties["XA"]
    link = Link(world.genesis.deployment, desk, 0, SignedStatement(party.root.serialize(), ()).hash)
    again = DeskStatement(link, "XA", Authority.COURT, Policy())

    _refuse(world, sign_statement(again.serialize(), party.quorum), r"does not follow .* \[S-1\]")


def test_a_desk_cannot_change_its_authority_type_later(world: World, desk: DeskId) -> None:
    """[S-10]"""
    again = DeskStatement(world.link(desk), "XA", Authority.COURT, Policy())

    _refuse(
        world,
        sign_statement(again.serialize(), world.custodians(desk)),
        r"desk statement after the first \[S-1\]",
    )


def test_a_chain_that_begins_with_an_epoch_is_refused(world: World, desk: DeskId) -> None:
    """[S-1]"""
    ghost = DeskId(random_bytes(16))
    link = replace(world.link(desk), desk=ghost, seq=0)
    signed = sign_statement(PolicyStatement(link, Policy()).serialize(), world.custodians(desk))

    _refuse(world, signed, r"chain begins with another statement than a desk's \[S-1\]")


@pytest.mark.parametrize("wrong", ["deployment", "seq", "previous"])
def test_a_desk_that_does_not_follow_its_root_is_refused(world: World, wrong: str) -> None:
    """[S-1]"""
    party = world.parties["XA"]
    link = Link(
        DeploymentId(random_bytes(16)) if wrong == "deployment" else world.genesis.deployment,
        DeskId(random_bytes(16)),
        1 if wrong == "seq" else 0,
        SignedStatement(world.parties["XB"].root.serialize(), ()).hash
        if wrong == "previous"
        else SignedStatement(party.root.serialize(), ()).hash,
    )
    statement = DeskStatement(link, "XA", Authority.POLICE, Policy())

    _refuse(
        world,
        sign_statement(statement.serialize(), party.quorum),
        r"desk statement does not follow its State root \[S-1\]",
    )


def test_a_desk_of_a_state_that_never_joined_is_refused(world: World) -> None:
    """[S-1]"""
    party = Party.new("XZ")
    link = Link(
        world.genesis.deployment,
        DeskId(random_bytes(16)),
        0,
        SignedStatement(party.root.serialize(), ()).hash,
    )
    statement = DeskStatement(link, "XZ", Authority.POLICE, Policy())

    _refuse(
        world,
        sign_statement(statement.serialize(), party.quorum),
        "XZ is not a party of this deployment",
    )


def test_a_chain_has_an_end(world: World, desk: DeskId, monkeypatch: pytest.MonkeyPatch) -> None:
    """[E-9] Every size has a bound."""
    monkeypatch.setattr(chain, "CHAIN_STATEMENTS_MAX", 6)

    with pytest.raises(VerificationError, match="chain is longer than 6 statements"):
        world.set_policy(desk, Policy())


# --- Signers: [S-2] ---------------------------------------------------------------------------


def test_a_signature_given_twice_does_not_count_as_two(world: World, desk: DeskId) -> None:
    """[S-2]"""
    signed = sign_statement(
        PolicyStatement(world.link(desk), Policy()).serialize(), world.custodians(desk)[:1]
    )
    twice = replace(signed, signatures=signed.signatures * 2)

    _refuse(world, twice, r"a signer signed twice \[S-2\]")


def test_the_same_admin_twice_is_malformed_on_the_wire(world: World, desk: DeskId) -> None:
    """[S-2]"""
    admin = _admins(world, desk)[0]
    signed = _admission(world, _newcomer(desk), admin, admin)

    with pytest.raises(MalformedError, match="signatures are not ascending, each once"):
        SignedStatement.parse(signed.serialize())


def test_a_strangers_signature_is_refused(world: World, desk: DeskId) -> None:
    """[S-2] Even beside enough good ones."""
    signed = sign_statement(
        PolicyStatement(world.link(desk), Policy()).serialize(),
        [*world.custodians(desk), FullKey.generate()],
    )

    _refuse(world, signed, r"signer \w{8} may not sign here \[S-2\]")


def test_custodians_of_another_state_may_not_sign(world: World, desk: DeskId) -> None:
    """[S-2]"""
    signed = sign_statement(
        PolicyStatement(world.link(desk), Policy()).serialize(), world.parties["XB"].quorum
    )

    _refuse(world, signed, r"may not sign here \[S-2\]")


def test_an_admin_of_another_desk_may_not_sign(world: World, desk: DeskId) -> None:
    """[S-2]"""
    other = world.create_desk("XA", officers=2, admins=2)
    signed = _admission(world, _newcomer(desk), *_admins(world, other))

    _refuse(world, signed, r"may not sign here \[S-2\]")


def test_a_removed_admin_lets_nobody_in(world: World, desk: DeskId) -> None:
    """[S-2]"""
    first, second = _admins(world, desk)
    world.remove(desk, [second], by=first)

    signed = _admission(world, _newcomer(desk), first, second)

    _refuse(world, signed, r"may not sign here \[S-2\]")


def test_a_leaver_cannot_publish_an_epoch(world: World, desk: DeskId) -> None:
    """[S-2]"""
    leaver = _officers(world, desk)[0]
    world.remove(desk, [leaver])
    epoch = world.prepare_epoch(desk)

    _refuse(
        world,
        _epoch_statement(world, desk, epoch.keys, epoch, leaver),
        r"may not sign here \[S-2\]",
    )


def test_custodians_cannot_publish_an_epoch_alone(world: World, desk: DeskId) -> None:
    """[S-2] Whoever makes an epoch knows its secrets; custodians are no readers."""
    epoch = world.prepare_epoch(desk)
    signed = sign_statement(
        EpochStatement(world.link(desk), epoch.keys).serialize(),
        world.custodians(desk),
        boxes=epoch.boxes,
        previous=epoch.previous,
    )

    _refuse(world, signed, r"an epoch is signed by the desk's active devices only \[S-2\]")


def test_a_signature_over_other_bytes_is_refused(world: World, desk: DeskId) -> None:
    """[K-3] [S-2]"""
    mine = PolicyStatement(world.link(desk), Policy(epoch_days=9)).serialize()
    theirs = PolicyStatement(world.link(desk), Policy(epoch_days=90)).serialize()
    signed = replace(sign_statement(mine, world.custodians(desk)), payload=theirs)

    _refuse(world, signed, "half of the full signature does not verify")


def test_an_act_signature_is_no_statement_signature(world: World, desk: DeskId) -> None:
    """[K-1]"""
    payload = PolicyStatement(world.link(desk), Policy()).serialize()
    keys = world.custodians(desk)
    signed = sign_statement(payload, keys)
    forged = [
        (id_, key.sign(Context.ACT, payload))
        for (id_, _), key in zip(signed.signatures, keys, strict=True)
    ]

    _refuse(world, replace(signed, signatures=tuple(forged)), "half of the full signature does not")


# --- Letting in: [S-3], [S-4], [S-8] ----------------------------------------------------------


def test_one_admin_cannot_let_a_ghost_device_in(world: World, desk: DeskId) -> None:
    """[S-3]"""
    signed = _admission(world, _newcomer(desk), _admins(world, desk)[0])

    _refuse(
        world,
        signed,
        r"admission has 1 admins' signatures, expected 2 or the custodians' \[S-3\]",
    )


def test_an_admin_and_a_plain_officer_cannot_let_a_ghost_device_in(
    world: World, desk: DeskId
) -> None:
    """[S-3]"""
    signed = _admission(world, _newcomer(desk), _admins(world, desk)[0], _officers(world, desk)[0])

    _refuse(world, signed, r"admission has 1 admins' signatures, expected 2 .* \[S-3\]")


def test_two_devices_of_one_admin_cannot_let_a_ghost_device_in(world: World, desk: DeskId) -> None:
    """[S-3] Whoever steals one officer's laptop and telephone is still one officer."""
    admin = _admins(world, desk)[0]
    second = _newcomer(desk, Role.ADMIN, admin.officer)
    giver = world.active(desk)[0]
    world.publish(world.admission(second, by=world.custodians(desk), giver=giver))
    _keep(world, second, admin)

    signed = _admission(world, _newcomer(desk), admin, second)

    _refuse(world, signed, r"admission has 1 admins' signatures, expected 2 .* \[S-3\]")


def test_admins_cannot_make_an_admin_without_the_custodians(world: World, desk: DeskId) -> None:
    """[S-3]"""
    signed = _admission(world, _newcomer(desk, Role.ADMIN), *_admins(world, desk))

    _refuse(world, signed, r"an admin's device needs the custodians' signatures \[S-3\]")


def test_one_custodian_is_no_custodians_decision(world: World, desk: DeskId) -> None:
    """[S-3]"""
    signed = world.admission(
        _newcomer(desk), by=world.custodians(desk)[:1], giver=world.active(desk)[0]
    )

    _refuse(world, signed, r"admission has 0 admins' signatures, expected 2 .* \[S-3\]")


def test_one_custodian_and_one_admin_do_not_add_up(world: World, desk: DeskId) -> None:
    """[S-3]"""
    by = [world.custodians(desk)[0], _admins(world, desk)[0].full]
    signed = world.admission(_newcomer(desk), by=by, giver=world.active(desk)[0])

    _refuse(world, signed, r"admission has 1 admins' signatures, expected 2 .* \[S-3\]")


def test_a_policy_may_ask_for_three_admins(world: World, desk: DeskId) -> None:
    """[S-3]"""
    world.set_policy(desk, Policy(add_admins=3))
    signed = _admission(world, _newcomer(desk), *_admins(world, desk))

    _refuse(world, signed, r"admission has 2 admins' signatures, expected 3 .* \[S-3\]")


def test_a_device_that_does_not_prove_possession_is_refused(world: World, desk: DeskId) -> None:
    """[S-4] Else an admin could enrol somebody else's key under a false officer."""
    signed = _admission(world, member := _newcomer(desk), *_admins(world, desk))
    without = tuple(pair for pair in signed.signatures if pair[0] != member.id)

    _refuse(
        world,
        replace(signed, signatures=without),
        r"device \w{8} did not sign its own admission \[S-4\]",
    )


def test_a_relay_that_swaps_the_sealing_key_is_refused(world: World, desk: DeskId) -> None:
    """[S-4] The signatures cover the key to which the epoch's secret is sealed."""
    signed = _admission(world, _newcomer(desk), *_admins(world, desk))
    swapped = replace(_statement_of(signed), seal=SealKey.generate().public)

    _refuse(
        world,
        replace(signed, payload=swapped.serialize()),
        "half of the full signature does not verify",
    )


def test_a_dead_device_never_returns(world: World, desk: DeskId) -> None:
    """[S-8]"""
    leaver = _officers(world, desk)[0]
    world.remove(desk, [leaver])
    again = replace(leaver, fast=FastKey.generate(), seal=SealKey.generate())

    _refuse(
        world,
        world.admission(again, by=world.custodians(desk), giver=world.active(desk)[0]),
        r"device \w{8} was here before \[S-8\]",
    )


def test_a_device_is_not_admitted_a_second_time(world: World, desk: DeskId) -> None:
    """[S-8] Else a plain officer's device could come back as an admin's."""
    officer = _officers(world, desk)[0]
    again = replace(officer, role=Role.ADMIN, fast=FastKey.generate(), seal=SealKey.generate())

    _refuse(
        world,
        world.admission(again, by=world.custodians(desk), giver=world.active(desk)[0]),
        r"device \w{8} was here before \[S-8\]",
    )


def test_a_custodians_key_is_no_device(world: World, desk: DeskId) -> None:
    """[S-8]"""
    custodian = replace(_newcomer(desk), full=world.custodians(desk)[0])
    signed = world.admission(custodian, by=world.custodians(desk)[1:], giver=world.active(desk)[0])

    _refuse(world, signed, r"device \w{8} was here before \[S-8\]")


@pytest.mark.parametrize("key", ["fast", "seal"])
def test_a_dead_devices_key_never_returns(world: World, desk: DeskId, key: str) -> None:
    """[S-8] Under a fresh id the leaver would read or sign again."""
    leaver = _officers(world, desk)[0]
    world.remove(desk, [leaver])
    ghost = _newcomer(desk)
    ghost = replace(ghost, fast=leaver.fast) if key == "fast" else replace(ghost, seal=leaver.seal)

    _refuse(
        world,
        world.admission(ghost, by=world.custodians(desk), giver=world.active(desk)[0]),
        r"a key of the new device was another's before \[S-8\]",
    )


def test_an_epochs_key_is_no_devices_key(world: World, desk: DeskId) -> None:
    """[S-8]"""
    secret = world.active(desk)[0].secret
    ghost = replace(_newcomer(desk), seal=SealKey.from_seed(secret.file))

    _refuse(
        world,
        world.admission(ghost, by=world.custodians(desk), giver=world.active(desk)[0]),
        r"a key of the new device was another's before \[S-8\]",
    )


def test_a_low_order_fast_key_is_refused(world: World, desk: DeskId) -> None:
    """[K-2]"""
    member = _newcomer(desk)
    signed = _admission(world, member, *_admins(world, desk))
    payload = replace(_statement_of(signed), fast=LOW_ORDER).serialize()
    keys = [member.full, *(admin.full for admin in _admins(world, desk))]

    with pytest.raises(MalformedError, match="fast public key is of low order"):
        world.publish(sign_statement(payload, keys, boxes=signed.boxes))


def test_a_composite_key_with_a_low_order_half_is_refused(world: World, desk: DeskId) -> None:
    """[K-2] It cannot even prove possession, because no signature by it verifies."""
    signed = _admission(world, member := _newcomer(desk), *_admins(world, desk))
    weak = replace(_statement_of(signed), full=member.full.public[:1952] + LOW_ORDER)

    with pytest.raises(VerificationError):
        world.publish(replace(signed, payload=weak.serialize()))


def test_a_sealing_key_that_is_not_reduced_is_refused(world: World, desk: DeskId) -> None:
    """[S-3] A desk with it would be one to which nobody can seal."""
    member = _newcomer(desk)
    signed = _admission(world, member, *_admins(world, desk))
    payload = replace(_statement_of(signed), seal=b"\xff" * 1216).serialize()
    keys = [member.full, *(admin.full for admin in _admins(world, desk))]

    with pytest.raises(MalformedError, match="sealing key has a number that is not reduced"):
        world.publish(sign_statement(payload, keys, boxes=signed.boxes))


def test_a_desk_that_is_full_admits_nobody(
    world: World, desk: DeskId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[E-9]"""
    monkeypatch.setattr(chain, "DEVICES_MAX", 4)

    with pytest.raises(VerificationError, match="desk has 4 devices already; remove one first"):
        world.admit(desk)


# --- Throwing out: [S-5], [S-6] ---------------------------------------------------------------


def test_a_leaver_cannot_sign_his_own_removal_and_the_epoch_after_it(
    world: World, desk: DeskId
) -> None:
    """[S-5] He would know the secrets of the epoch that is to shut him out."""
    admin = _admins(world, desk)[0]

    _refuse_removal(
        world,
        desk,
        [admin],
        [admin.full],
        r"a device that goes signed its own removal and new epoch \[S-5\]",
    )


def test_a_leaver_cannot_sign_beside_an_admin(world: World, desk: DeskId) -> None:
    """[S-5]"""
    admin, leaver = _admins(world, desk)[0], _officers(world, desk)[0]

    _refuse_removal(
        world, desk, [leaver], [admin.full, leaver.full], r"signed its own removal .* \[S-5\]"
    )


def test_a_plain_officer_cannot_throw_an_admin_out(world: World, desk: DeskId) -> None:
    """[S-5]"""
    admin, officer = _admins(world, desk)[0], _officers(world, desk)[0]

    _refuse_removal(
        world,
        desk,
        [admin],
        [officer.full],
        r"removal needs an admin, a device of the same officer, or the custodians \[S-5\]",
    )


def test_a_plain_officer_cannot_throw_a_colleague_out_with_a_device_of_his_own(
    world: World, desk: DeskId
) -> None:
    """[S-5]"""
    officer, colleague = _officers(world, desk)
    second = _newcomer(desk, officer=officer.officer)
    world.publish(_admission(world, second, *_admins(world, desk)))
    _keep(world, second, officer)

    _refuse_removal(world, desk, [second, colleague], [officer.full], r"\[S-5\]")


def test_one_custodian_cannot_throw_anybody_out(world: World, desk: DeskId) -> None:
    """[S-5]"""
    _refuse_removal(
        world, desk, [_officers(world, desk)[0]], world.custodians(desk)[:1], r"\[S-5\]"
    )


def test_a_removal_of_a_device_that_is_gone_is_refused(world: World, desk: DeskId) -> None:
    """[S-5]"""
    leaver = _officers(world, desk)[0]
    world.remove(desk, [leaver])

    _refuse_removal(
        world,
        desk,
        [leaver],
        [_admins(world, desk)[0].full],
        r"removal names a device that is not active \[S-5\]",
    )


def test_a_removal_without_an_epoch_is_malformed(world: World, desk: DeskId) -> None:
    """[S-6]"""
    admin, leaver = _admins(world, desk)[0], _officers(world, desk)[0]
    signed, _ = world.removal(desk, [leaver], by=[admin.full])
    value = parse(signed.payload)
    assert isinstance(value, dict)
    without: dict[str, Value] = {name: item for name, item in value.items() if name != "epoch"}

    with pytest.raises(MalformedError, match="removal statement has no field 'epoch'"):
        world.publish(sign_statement(serialize(without), [admin.full]))


# --- Epochs: [S-7], [S-8], [S-9] --------------------------------------------------------------


def test_an_epoch_without_one_of_the_active_devices_is_refused(world: World, desk: DeskId) -> None:
    """[S-7] An officer cannot be shut out in silence."""
    maker, *others = world.active(desk)
    devices = world.directory.desk(desk).active
    epoch = world.prepare_epoch(desk, [devices[member.id] for member in [maker, *others[1:]]])

    _refuse(
        world,
        _epoch_statement(world, desk, epoch.keys, epoch, maker),
        r"epoch's members are not exactly the active devices \[S-7\]",
    )


def test_an_epoch_with_a_ghost_member_is_refused(world: World, desk: DeskId) -> None:
    """[S-7]"""
    active = world.directory.desk(desk).active
    some = next(iter(active.values()))
    ghost = replace(some, id=DeviceId(random_bytes(16)), seal=SealKey.generate().public)
    epoch = world.prepare_epoch(desk, [*active.values(), ghost])

    _refuse(
        world,
        _epoch_statement(world, desk, epoch.keys, epoch, world.active(desk)[0]),
        r"epoch's members are not exactly the active devices \[S-7\]",
    )


def test_a_removal_whose_epoch_keeps_the_leaver_is_refused(world: World, desk: DeskId) -> None:
    """[S-7]"""
    admin, leaver = _admins(world, desk)[0], _officers(world, desk)[0]
    epoch = world.prepare_epoch(desk)
    signed, _ = world.removal(desk, [leaver], by=[admin.full], epoch=epoch)

    _refuse(world, signed, r"epoch's members are not exactly the active devices \[S-7\]")


@pytest.mark.parametrize("number", [1, 3])
def test_an_epoch_number_that_is_skipped_or_repeated_is_refused(
    world: World, desk: DeskId, number: int
) -> None:
    """[S-7]"""
    epoch = world.prepare_epoch(desk)
    keys = replace(epoch.keys, number=number)

    _refuse(
        world,
        _epoch_statement(world, desk, keys, epoch, world.active(desk)[0]),
        rf"epoch is {number}, expected 2 \[S-7\]",
    )


def test_an_epochs_key_never_returns(world: World, desk: DeskId) -> None:
    """[S-8] A removed member holds the old one's secret."""
    first = world.directory.desk(desk).epoch
    assert first is not None
    world.remove(desk, [_officers(world, desk)[0]])

    for key in (first.file, first.lead):
        epoch = world.prepare_epoch(desk)
        keys = replace(epoch.keys, file=key)
        _refuse(
            world,
            _epoch_statement(world, desk, keys, epoch, world.active(desk)[0]),
            r"epoch's keys are not fresh \[S-8\]",
        )


def test_one_key_for_files_and_leads_is_refused(world: World, desk: DeskId) -> None:
    """[S-8] Leads would no longer be forgotten."""
    epoch = world.prepare_epoch(desk)
    keys = replace(epoch.keys, lead=epoch.keys.file)

    _refuse(
        world,
        _epoch_statement(world, desk, keys, epoch, world.active(desk)[0]),
        r"epoch's keys are not fresh \[S-8\]",
    )


def test_a_leavers_own_key_cannot_become_the_epochs(world: World, desk: DeskId) -> None:
    """[S-8] Members would notice, but only after senders had sealed to the leaver."""
    leaver = _officers(world, desk)[0]
    world.remove(desk, [leaver])
    epoch = world.prepare_epoch(desk)
    keys = replace(epoch.keys, lead=leaver.seal.public)

    _refuse(
        world,
        _epoch_statement(world, desk, keys, epoch, world.active(desk)[0]),
        r"epoch's keys are not fresh \[S-8\]",
    )


def test_an_epoch_key_that_nobody_can_seal_to_is_refused(world: World, desk: DeskId) -> None:
    """[K-2]"""
    epoch = world.prepare_epoch(desk)
    keys = replace(epoch.keys, file=b"\xff" * 1216)

    with pytest.raises(MalformedError, match="sealing key has a number that is not reduced"):
        world.publish(_epoch_statement(world, desk, keys, epoch, world.active(desk)[0]))


def _with_boxes(
    world: World, desk: DeskId, epoch: NewEpoch, boxes: Sequence[tuple[DeviceId, bytes]]
) -> SignedStatement:
    signed = _epoch_statement(world, desk, epoch.keys, epoch, world.active(desk)[0])
    return replace(signed, boxes=tuple(boxes))


def test_two_members_boxes_swapped_are_refused(world: World, desk: DeskId) -> None:
    """[S-9]"""
    epoch = world.prepare_epoch(desk)
    (one, first), (two, second), *rest = epoch.boxes

    _refuse(
        world,
        _with_boxes(world, desk, epoch, [(one, second), (two, first), *rest]),
        r"epoch's boxes are not those that were signed \[S-9\]",
    )


def test_a_box_left_out_is_refused(world: World, desk: DeskId) -> None:
    """[S-9]"""
    epoch = world.prepare_epoch(desk)

    _refuse(
        world,
        _with_boxes(world, desk, epoch, epoch.boxes[1:]),
        r"epoch does not have one box for each member \[S-9\]",
    )


def test_a_box_added_is_refused(world: World, desk: DeskId) -> None:
    """[S-9]"""
    epoch = world.prepare_epoch(desk)
    extra = (DeviceId(b"\xff" * 16), epoch.boxes[0][1])

    _refuse(
        world,
        _with_boxes(world, desk, epoch, [*epoch.boxes, extra]),
        r"epoch does not have one box for each member \[S-9\]",
    )


def test_another_previous_seed_is_refused(world: World, desk: DeskId) -> None:
    """[S-9] Successors could not walk back."""
    epoch = world.prepare_epoch(desk)
    signed = _epoch_statement(world, desk, epoch.keys, epoch, world.active(desk)[0])

    _refuse(
        world,
        replace(signed, previous=random_bytes(72)),
        r"epoch's boxes are not those that were signed \[S-9\]",
    )


def test_a_previous_seed_left_out_is_refused(world: World, desk: DeskId) -> None:
    """[S-9]"""
    epoch = world.prepare_epoch(desk)
    keys = replace(epoch.keys, boxes_hash=boxes_hash(epoch.boxes, None))
    signed = _epoch_statement(
        world, desk, keys, replace(epoch, previous=None), world.active(desk)[0]
    )

    _refuse(world, signed, r"every epoch but the first seals the seed before it \[S-9\]")


def test_an_admissions_box_swapped_is_refused(world: World, desk: DeskId) -> None:
    """[S-9]"""
    member = _newcomer(desk)
    signed = _admission(world, member, *_admins(world, desk))
    other = box_for(desk, member.id, member.seal.public, world.active(desk)[0].secret)

    _refuse(
        world,
        replace(signed, boxes=((member.id, other),)),
        r"admission's box is not the one that was signed \[S-9\]",
    )


def test_an_admissions_box_left_out_is_refused(world: World, desk: DeskId) -> None:
    """[S-9]"""
    signed = _admission(world, _newcomer(desk), *_admins(world, desk))

    _refuse(
        world,
        replace(signed, boxes=()),
        r"admission's box is not the one that was signed \[S-9\]",
    )


def test_an_admission_without_a_box_is_refused_once_there_is_an_epoch(
    world: World, desk: DeskId
) -> None:
    """[S-9] The same rule for the relay and for readers who get no boxes."""
    signed = world.admission(_newcomer(desk), by=world.custodians(desk))

    message = r"admission must name a box once the desk has an epoch, and none before \[S-9\]"
    _refuse(world, signed, message)
    _refuse(world, replace(signed, is_bare=True), message)


def test_an_admission_with_a_box_is_refused_before_the_first_epoch(world: World) -> None:
    """[S-9]"""
    desk = DeskId(random_bytes(16))
    party = world.parties["XA"]
    link = Link(world.genesis.deployment, desk, 0, SignedStatement(party.root.serialize(), ()).hash)
    created = DeskStatement(link, "XA", Authority.POLICE, Policy())
    world.publish(sign_statement(created.serialize(), party.quorum))
    member = _newcomer(desk)
    signed = world.admission(member, by=party.quorum)
    statement = replace(_statement_of(signed), box_hash=box_hash(b"box"))

    _refuse(
        world,
        sign_statement(
            statement.serialize(), [member.full, *party.quorum], boxes=[(member.id, b"box")]
        ),
        r"admission must name a box once the desk has an epoch, and none before \[S-9\]",
    )


def test_a_policy_with_boxes_is_refused(world: World, desk: DeskId) -> None:
    """[S-9] A relay could else make every reader carry its load."""
    payload = PolicyStatement(world.link(desk), Policy()).serialize()
    boxes = [(DeviceId(bytes(16)), b"box")]

    _refuse(
        world,
        sign_statement(payload, world.custodians(desk), boxes=boxes),
        r"statement comes with boxes, expected none \[S-9\]",
    )


def test_a_statement_out_of_the_directory_brings_no_boxes(world: World, desk: DeskId) -> None:
    """[S-9]"""
    epoch = world.prepare_epoch(desk)
    turned = _epoch_statement(world, desk, epoch.keys, epoch, world.active(desk)[0])
    admitted = _admission(world, _newcomer(desk), *_admins(world, desk))

    for signed in (turned, admitted):
        _refuse(
            world,
            replace(signed, is_bare=True),
            r"statement comes with boxes, expected none \[S-9\]",
        )


# --- Custodians' decisions: [S-11] ------------------------------------------------------------


def test_admins_cannot_change_the_policy(world: World, desk: DeskId) -> None:
    """[S-11] Else they could let themselves in with one signature, or drop the auditors."""
    payload = PolicyStatement(world.link(desk), Policy(add_admins=1)).serialize()
    keys = [admin.full for admin in _admins(world, desk)]

    _refuse(
        world,
        sign_statement(payload, keys),
        r"statement has 0 signatures of XA's custodians, expected 2 \[S-11\]",
    )


def test_one_custodian_cannot_create_a_desk(world: World) -> None:
    """[S-11]"""
    party = world.parties["XA"]
    root_hash = SignedStatement(party.root.serialize(), ()).hash
    link = Link(world.genesis.deployment, DeskId(random_bytes(16)), 0, root_hash)
    statement = DeskStatement(link, "XA", Authority.POLICE, Policy())

    _refuse(
        world,
        sign_statement(statement.serialize(), party.quorum[:1]),
        r"statement has 1 signatures of XA's custodians, expected 2 \[S-11\]",
    )


def test_a_removal_names_its_reason_and_keeps_it(world: World, desk: DeskId) -> None:
    """[S-6]"""
    leaver = _officers(world, desk)[0]
    signed, _ = world.removal(desk, [leaver], by=world.custodians(desk), reason=Reason.COMPROMISED)

    statement = parse_statement(world.publish(signed).payload)

    assert isinstance(statement, RemovalStatement)
    assert statement.reason is Reason.COMPROMISED


def test_a_folded_desk_cannot_be_altered_in_place(world: World, desk: DeskId) -> None:
    """[S-8] Views are shared between threads."""
    made: Desk = world.directory.desk(desk)

    with pytest.raises(TypeError):
        made.devices[DeviceId(bytes(16))] = next(iter(made.devices.values()))  # type: ignore[index]  # the point of the test
