"""Everyone's view of all desks: pinned, in leaf order, one desk for each device."""

from dataclasses import replace

import pytest

from comity_protocol.directory import Directory, UnknownDeskError
from comity_protocol.errors import VerificationError
from comity_protocol.identifiers import DeskId, DeviceId, OfficerId
from comity_protocol.keys import random_bytes
from comity_protocol.statements import Policy, PolicyStatement, Role, sign_statement
from support.world import Member, World


@pytest.fixture
def world() -> World:
    return World.found()


def test_every_desk_and_device_is_found_dead_or_alive(world: World) -> None:
    """[D-3]"""
    desk = world.create_desk("XA", officers=3)
    leaver = world.active(desk)[0]
    world.remove(desk, [leaver])

    found, device = world.directory.device(leaver.id)

    assert found == world.directory.desk(desk)
    assert device.removed_index == world.directory.index
    assert set(world.directory.devices.values()) == {desk}


def test_another_deployments_genesis_is_refused(world: World) -> None:
    """[D-1] A relay cannot move an office into a deployment of its own making."""
    other = World.found()

    with pytest.raises(
        VerificationError, match=r"serves another deployment than the one you enrolled in \[D-1\]"
    ):
        Directory.begin(other.statements[0][1], world.statements[0][1].hash)


def test_a_pinned_genesis_without_its_signatures_is_refused(world: World) -> None:
    """[D-1] [S-12]"""
    signed = world.statements[0][1]

    with pytest.raises(VerificationError, match="genesis has too few signatures"):
        Directory.begin(replace(signed, signatures=signed.signatures[:1]), signed.hash)


@pytest.mark.parametrize("back", [0, 1])
def test_a_statement_at_a_leaf_that_is_folded_already_is_refused(world: World, back: int) -> None:
    """[D-2] Rollback: an older directory, or the same leaf with another content."""
    desk = world.create_desk("XA")
    newest = world.directory.index
    signed = sign_statement(
        PolicyStatement(world.link(desk), Policy()).serialize(), world.custodians(desk)
    )

    with pytest.raises(
        VerificationError,
        match=rf"statement at leaf {newest - back} comes after leaf {newest};"
        r" refusing replay or rollback \[D-2\]",
    ):
        world.publish(signed, newest - back)


def test_statements_may_have_other_leaves_between_them(world: World) -> None:
    """[D-2]"""
    desk = world.create_desk("XA")
    signed = sign_statement(
        PolicyStatement(world.link(desk), Policy()).serialize(), world.custodians(desk)
    )

    world.publish(signed, world.next_index + 1_000)

    assert world.directory.index == world.statements[-1][0]


@pytest.mark.parametrize("is_dead", [False, True])
def test_a_device_of_another_desk_is_refused(world: World, is_dead: bool) -> None:
    """[D-3] Else an officer who was thrown out of one desk could turn up in another's name."""
    home = world.create_desk("XA", officers=3)
    other = world.create_desk("XB")
    device = world.active(home)[-1]
    if is_dead:
        world.remove(home, [device])
    moved = Member(other, OfficerId(random_bytes(16)), Role.OFFICER, full=device.full)

    signed = world.admission(moved, by=world.custodians(other), giver=world.active(other)[0])

    with pytest.raises(
        VerificationError, match=r"device \w{8} belongs to another desk already \[D-3\]"
    ):
        world.publish(signed)


def test_a_directory_is_a_value_and_the_one_before_stays(world: World) -> None:
    """[D-2]"""
    before = world.directory
    world.create_desk("XA")

    assert before.desks == {}
    assert before.index == 0


def test_two_who_fold_the_same_statements_have_equal_directories(world: World) -> None:
    """[D-2]"""
    for code in ("XA", "XB"):
        desk = world.create_desk(code, officers=3)
        world.remove(desk, [world.active(desk)[1]])
        world.turn(desk)
    (_, genesis), *rest = world.statements
    other = Directory.begin(genesis, genesis.hash)

    for index, signed in rest:
        other = other.apply(replace(signed, boxes=(), previous=None, is_bare=True), index)

    assert other == world.directory


def test_an_unknown_desk_or_device_has_its_own_error(world: World) -> None:
    """[D-3]"""
    with pytest.raises(UnknownDeskError, match=r"desk 0{8} is not in the directory"):
        world.directory.desk(DeskId(bytes(16)))
    with pytest.raises(UnknownDeskError, match=r"device 0{8} is not in the directory"):
        world.directory.device(DeviceId(bytes(16)))
