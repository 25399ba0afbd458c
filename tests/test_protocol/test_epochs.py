"""The secrets of epochs: who opens them, who is cheated, and how far back a successor reads."""

from dataclasses import replace

import pytest

from comity_protocol.chain import Desk
from comity_protocol.epochs import (
    EpochSecret,
    NewEpoch,
    box_for,
    box_hash,
    new_epoch,
    open_box,
    open_previous,
)
from comity_protocol.errors import MalformedError, OpenError, VerificationError
from comity_protocol.identifiers import DeskId
from comity_protocol.keys import (
    Context,
    SealKey,
    box_encrypt,
    derive,
    random_bytes,
    seal_to,
)
from comity_protocol.limits import BOX_BYTES_MAX, LEAD_SEEDS_MAX, PREVIOUS_BOX_BYTES_MAX
from comity_protocol.statements import boxes_hash
from support.world import Member, World


@pytest.fixture
def world() -> World:
    return World.found(("XA",))


@pytest.fixture
def desk(world: World) -> DeskId:
    return world.create_desk("XA", officers=2)


def _desk(world: World, desk: DeskId) -> Desk:
    return world.directory.desk(desk)


def _open(world: World, member: Member, box: bytes) -> EpochSecret:
    desk = world.directory.desk(member.desk)
    assert desk.epoch is not None
    return open_box(box, member.seal, desk=desk, device=member.id, epoch=desk.epoch)


def _box_with(world: World, member: Member, plaintext: bytes) -> bytes:
    """Seal chosen bytes to a member as the box of the desk's newest epoch."""
    epoch = world.directory.desk(member.desk).epoch
    assert epoch is not None
    info = member.desk + epoch.number.to_bytes(8, "big") + member.id
    return seal_to(member.seal.public, Context.EPOCH_BOX, info, plaintext)


def _same(one: EpochSecret, other: EpochSecret) -> bool:
    return (one.number, one.file, dict(one.leads)) == (other.number, other.file, dict(other.leads))


def test_every_member_opens_his_box_to_the_stated_keys(world: World, desk: DeskId) -> None:
    """[S-13]"""
    epoch = world.turn(desk)

    for member in world.active(desk):
        secret = _open(world, member, dict(epoch.boxes)[member.id])
        assert _same(secret, epoch.secret)
        assert SealKey.from_seed(secret.file).public == epoch.keys.file
        assert SealKey.from_seed(secret.leads[2]).public == epoch.keys.lead


def test_a_box_is_for_one_device_only(world: World, desk: DeskId) -> None:
    """[S-9]"""
    epoch = world.turn(desk)
    one, other = world.active(desk)

    with pytest.raises(OpenError, match="epoch-box is not sealed to this key, or was altered"):
        _open(world, one, dict(epoch.boxes)[other.id])


def test_a_box_of_another_desk_does_not_open(world: World, desk: DeskId) -> None:
    """[S-9] Sealed to the right device, but under another desk's name."""
    world.turn(desk)
    member = world.active(desk)[0]
    box = box_for(DeskId(random_bytes(16)), member.id, member.seal.public, member.secret)

    with pytest.raises(OpenError):
        _open(world, member, box)


def test_a_box_of_another_epoch_does_not_open(world: World, desk: DeskId) -> None:
    """[S-9] A relay cannot hand an old secret out as the new one."""
    old = world.turn(desk)
    world.turn(desk)
    member = world.active(desk)[0]

    with pytest.raises(OpenError):
        _open(world, member, dict(old.boxes)[member.id])


@pytest.mark.parametrize("wrong", ["file", "lead"])
def test_a_box_with_other_keys_than_stated_is_an_alarm(
    world: World, desk: DeskId, wrong: str
) -> None:
    """[S-13] Stops a maker who keeps a member from reading what is sealed to the desk."""
    member = world.active(desk)[0]
    secret = member.secret
    forged = (
        replace(secret, file=random_bytes(32))
        if wrong == "file"
        else replace(secret, leads={1: random_bytes(32)})
    )
    box = box_for(desk, member.id, member.seal.public, forged)

    with pytest.raises(
        VerificationError,
        match=r"box of epoch 1 of desk \w{8} holds other keys than were stated \[S-13\]",
    ):
        _open(world, member, box)


def test_a_box_with_the_secret_of_another_epoch_is_an_alarm(world: World, desk: DeskId) -> None:
    """[S-13]"""
    old = world.active(desk)[0].secret
    world.turn(desk)
    member = world.active(desk)[0]

    with pytest.raises(VerificationError, match=r"\[S-13\]"):
        _open(world, member, _box_with(world, member, old.serialize()))


def test_a_box_with_a_wrong_earlier_lead_seed_is_an_alarm(world: World, desk: DeskId) -> None:
    """[S-13] Else one officer could cut all others off from leads that are not yet deleted."""
    epoch = world.turn(desk)
    member = world.active(desk)[0]
    forged = replace(epoch.secret, leads={**epoch.secret.leads, 1: random_bytes(32)})

    with pytest.raises(VerificationError, match=r"\[S-13\]"):
        _open(world, member, _box_with(world, member, forged.serialize()))


def test_a_box_with_a_lead_seed_of_an_epoch_that_never_was_is_an_alarm(
    world: World, desk: DeskId
) -> None:
    """[S-13] A planted seed of a later epoch would shadow the true one."""
    member = world.active(desk)[0]
    plaintext = member.secret.serialize() + (9).to_bytes(4, "big") + random_bytes(32)

    with pytest.raises(VerificationError, match=r"\[S-13\]"):
        _open(world, member, _box_with(world, member, plaintext))


@pytest.mark.parametrize("length", [0, 31, 32, 67, 69, 32 + 36 * (LEAD_SEEDS_MAX + 1)])
def test_a_box_that_holds_no_list_of_seeds_is_malformed(
    world: World, desk: DeskId, length: int
) -> None:
    """[S-13]"""
    member = world.active(desk)[0]

    with pytest.raises(
        MalformedError, match=f"box holds {length} bytes, expected 32 and 36 a lead seed"
    ):
        _open(world, member, _box_with(world, member, bytes(length)))


def test_a_newcomer_gets_the_lead_seeds_that_are_not_deleted(world: World, desk: DeskId) -> None:
    """[S-13]"""
    world.turn(desk)
    world.turn(desk)
    giver = world.active(desk)[0]
    kept = {number: seed for number, seed in giver.secret.leads.items() if number != 1}
    member = Member(desk, giver.officer, giver.role)
    box = box_for(desk, member.id, member.seal.public, replace(giver.secret, leads=kept))

    secret = _open(world, member, box)

    assert secret.leads == kept
    assert set(kept) == {2, 3}


def test_a_box_hands_on_twelve_lead_seeds_at_most_the_newest(world: World, desk: DeskId) -> None:
    """[E-9]"""
    epoch = [world.turn(desk) for _ in range(LEAD_SEEDS_MAX)][-1]
    member = world.active(desk)[0]

    box = dict(epoch.boxes)[member.id]

    assert len(box) == BOX_BYTES_MAX
    assert sorted(_open(world, member, box).leads) == list(range(2, LEAD_SEEDS_MAX + 2))


def test_a_successor_walks_back_to_the_first_epoch(world: World, desk: DeskId) -> None:
    """[S-13] With nothing but his own box and the small boxes beside the chain."""
    made = [world.turn(desk) for _ in range(5)]
    first = world.active(desk)[0].secrets[1]
    successor = world.admit(desk)
    box = world.statements[-1][1].boxes[0][1]
    seed = _open(world, successor, box).file
    keys = [epoch.keys for epoch in _desk(world, desk).epochs]

    for epoch in reversed(made):
        assert epoch.previous is not None
        number = epoch.keys.number
        seed = open_previous(
            epoch.previous, seed, desk=desk, epoch=keys[number - 1], before=keys[number - 2]
        )

    assert seed == first.file


def _walk_back(world: World, desk: DeskId, epoch: NewEpoch, previous: bytes) -> bytes:
    before, now = (past.keys for past in _desk(world, desk).epochs[-2:])
    return open_previous(previous, epoch.secret.file, desk=desk, epoch=now, before=before)


def _previous_with(desk: DeskId, epoch: NewEpoch, plaintext: bytes) -> bytes:
    label = desk + epoch.keys.number.to_bytes(8, "big")
    key = derive(Context.PREVIOUS_EPOCH, epoch.secret.file, label)
    return box_encrypt(key, Context.PREVIOUS_EPOCH, label, plaintext)


@pytest.mark.parametrize("plaintext", [bytes(32), bytes(31), b""])
def test_a_previous_seed_that_is_not_the_stated_one_is_an_alarm(
    world: World, desk: DeskId, plaintext: bytes
) -> None:
    """[S-13] Stops a maker who would cut successors off from history."""
    epoch = world.turn(desk)

    with pytest.raises(
        VerificationError, match=r"epoch 2 of desk \w{8} carries another seed than epoch 1 stated"
    ):
        _walk_back(world, desk, epoch, _previous_with(desk, epoch, plaintext))


def test_a_previous_seed_of_another_epoch_does_not_open(world: World, desk: DeskId) -> None:
    """[S-9]"""
    old = world.turn(desk)
    epoch = world.turn(desk)
    assert old.previous is not None

    with pytest.raises(OpenError, match="previous-epoch does not open with this key"):
        _walk_back(world, desk, epoch, old.previous)


def test_the_first_epoch_carries_no_seed_and_the_next_ones_72_bytes(
    world: World, desk: DeskId
) -> None:
    """[S-9]"""
    epoch = world.turn(desk)

    assert world.statements[-2][1].previous is None
    assert epoch.previous is not None
    assert len(epoch.previous) == PREVIOUS_BOX_BYTES_MAX


def test_an_epoch_is_not_made_without_the_secret_of_the_last(world: World, desk: DeskId) -> None:
    """[S-9]"""
    current = _desk(world, desk)

    with pytest.raises(ValueError, match="the last epoch is 1, expected its secret"):
        new_epoch(current, list(current.active.values()), None)


def test_an_epochs_members_and_boxes_are_ascending_and_hashed(world: World, desk: DeskId) -> None:
    """[S-7] [S-9]"""
    current = _desk(world, desk)
    members = sorted(current.active.values(), key=lambda device: device.id, reverse=True)

    epoch = new_epoch(current, members, world.active(desk)[0].secret)

    assert epoch.keys.members == tuple(sorted(current.active))
    assert tuple(device for device, _ in epoch.boxes) == epoch.keys.members
    assert epoch.keys.boxes_hash == boxes_hash(epoch.boxes, epoch.previous)


def test_an_admission_signs_the_sha256_of_its_box() -> None:
    """[S-9]"""
    assert box_hash(b"abc").hex().startswith("ba7816bf8f01cfea")


def test_a_secret_does_not_show_itself_in_a_log(world: World, desk: DeskId) -> None:
    """[K-1]"""
    secret = world.active(desk)[0].secret

    assert secret.file.hex() not in repr(secret)
    assert repr(secret.file) not in repr(secret)
