"""What follows from notices, folded in leaf order."""

import pytest

from comity_protocol.core import core_hash
from comity_protocol.errors import VerificationError
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.keys import random_bytes
from comity_protocol.noticed import Noticed
from comity_protocol.notices import Notice
from comity_protocol.stamps import stamped_at
from support.scene import NOW, Scene, found_scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    return found_scene()


def test_an_erasure_takes_away_only_the_copy_of_its_desk(scene: Scene) -> None:
    """[H-3]"""
    noticed = Noticed.fold([(5, scene.erase(scene.member(scene.other)))])

    assert noticed.erased == {(scene.core.id, scene.other)}


def test_what_is_on_hold_is_erased_by_nobody_until_it_is_released(scene: Scene) -> None:
    """[H-3] The suspect's friend at one desk erases what the other desk has put on hold."""
    holder, eraser = scene.member(scene.home), scene.member(scene.other)
    noticed = Noticed.fold([(5, scene.hold(holder)), (6, scene.erase(eraser))])

    assert noticed.held_by(scene.core.id) == {scene.home}
    assert noticed.erased == set()

    noticed.add(7, scene.release(holder))
    noticed.add(8, scene.erase(eraser))

    assert noticed.held_by(scene.core.id) == frozenset()
    assert noticed.erased == {(scene.core.id, scene.other)}


def test_a_hold_is_ended_by_no_other_desk(scene: Scene) -> None:
    """[H-3]"""
    home, other = scene.member(scene.home), scene.member(scene.other)
    noticed = Noticed.fold([(5, scene.hold(home)), (6, scene.release(other))])

    assert noticed.held_by(scene.core.id) == {scene.home}

    noticed.add(7, scene.hold(other))
    noticed.add(8, scene.release(home))

    assert noticed.held_by(scene.core.id) == {scene.other}


def test_of_some_envelopes_on_hold_the_others_are_erased(scene: Scene) -> None:
    """[H-3]"""
    free = EnvelopeId(random_bytes(16))
    admin = scene.member(scene.home)
    ids = sorted((scene.core.id, free))
    noticed = Noticed.fold([(5, scene.hold(admin)), (6, scene.erase(admin, *ids))])

    assert noticed.erased == {(free, scene.home)}


def test_a_hold_after_an_erasure_does_not_bring_the_copy_back(scene: Scene) -> None:
    """[H-3]"""
    admin = scene.member(scene.home)
    noticed = Noticed.fold([(5, scene.erase(admin)), (6, scene.hold(admin))])

    assert noticed.erased == {(scene.core.id, scene.home)}


def test_stamps_of_two_notices_make_a_quorum_together(scene: Scene) -> None:
    """[M-2] One witness answered today, another tomorrow."""
    admin = scene.member(scene.home)
    first = scene.stamped(admin, scene.stamp(0, NOW))
    second = scene.stamped(admin, scene.stamp(1, NOW + 60))
    hash_ = core_hash(scene.core.serialize())
    genesis = scene.world.genesis

    def dated(*notices: Notice) -> int | None:
        stamps = Noticed.fold(enumerate(notices)).stamps.get(hash_, frozenset())
        return stamped_at(stamps, genesis.deployment, hash_, genesis.quorum)

    assert dated() is dated(first) is dated(second) is None
    assert dated(first, second) == dated(second, first) == NOW + 60


def test_restores_are_kept_in_leaf_order(scene: Scene) -> None:
    one, other = scene.restored(), scene.restored()

    assert Noticed.fold([(1, one), (2, other)]).restores == [one, other]


def test_a_notice_out_of_leaf_order_is_refused(scene: Scene) -> None:
    """[H-3] A relay shows a release before the hold that came first."""
    admin = scene.member(scene.home)
    noticed = Noticed.fold([(5, scene.hold(admin))])

    for index in (4, 5):
        with pytest.raises(VerificationError, match=f"notice at leaf {index} comes after leaf 5"):
            noticed.add(index, scene.release(admin))
