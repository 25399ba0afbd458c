"""The relay keeps one checkpoint a day that ML-DSA-44 alone proves: [L-10]."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from comity_protocol.checkpoint import cosign, cosign_anchor, sign_checkpoint, verify_anchor
from comity_protocol.merkle import EMPTY_ROOT
from comity_protocol.signed_note import SignatureLine
from comity_server.anchors import DAY_SECONDS, RETRY_SECONDS, Anchors
from comity_server.store import Store
from support.relay import opened
from support.world import World

NOW: Final = 20_000 * DAY_SECONDS + 1_000


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def world() -> World:
    return World.found(has_anchors=True)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(f"sqlite:///{tmp_path / 'relay.sqlite'}") as store:
        yield store


@pytest.fixture
def clock() -> Clock:
    return Clock()


def anchors_of(world: World, store: Store, clock: Clock) -> Anchors:
    assert world.genesis.anchors is not None
    return Anchors(store, world.genesis.origin, world.genesis.anchors.quorum, clock)


def note_of(world: World) -> bytes:
    return sign_checkpoint(origin=world.genesis.origin, size=0, root=EMPTY_ROOT, key=world.log_key)


def lines_of(world: World, count: int) -> list[SignatureLine]:
    """Both lines of so many witnesses, as they answer them."""
    note, names = note_of(world), sorted(world.witness_keys)[:count]
    return [
        line
        for name in names
        for line in (
            cosign(note, name, world.witness_keys[name], NOW),
            cosign_anchor(note, name, world.anchor_keys[name], NOW),
        )
    ]


async def test_a_quorum_of_lines_makes_the_anchor_of_the_day(
    world: World, store: Store, clock: Clock
) -> None:
    """[L-10]"""
    anchors = anchors_of(world, store, clock)
    assert await anchors.is_due()
    ordinary, own = anchors.split(lines_of(world, 2))
    await anchors.keep(note_of(world), 0, own)

    (note,) = await store.anchors(-1, 0, 10)
    assert world.genesis.anchors is not None
    verify_anchor(note, world.genesis.origin, world.genesis.anchors.quorum)
    assert len(ordinary) == len(own) == 2
    # The ordinary lines are not in it, so that those of all witnesses fit into a note.
    assert note.count(b"\n\xe2\x80\x94 ") == 3
    assert not await anchors.is_due()


async def test_the_next_day_has_an_anchor_of_its_own(
    world: World, store: Store, clock: Clock
) -> None:
    anchors = anchors_of(world, store, clock)
    for _ in range(2):
        assert await anchors.is_due()
        await anchors.keep(note_of(world), 0, anchors.split(lines_of(world, 3))[1])
        assert not await anchors.is_due()
        clock.now += DAY_SECONDS

    assert len(await store.anchors(-1, 0, 10)) == 2


async def test_another_process_does_not_ask_again_on_the_same_day(
    world: World, store: Store, clock: Clock
) -> None:
    anchors = anchors_of(world, store, clock)
    await anchors.keep(note_of(world), 0, anchors.split(lines_of(world, 2))[1])

    assert not await anchors_of(world, store, clock).is_due()


@pytest.mark.parametrize("count", [0, 1])
async def test_too_few_lines_make_no_anchor_and_are_asked_for_later(
    world: World, store: Store, clock: Clock, count: int
) -> None:
    """[L-10]"""
    anchors = anchors_of(world, store, clock)
    await anchors.keep(note_of(world), 0, anchors.split(lines_of(world, count))[1])

    assert await store.anchors(-1, 0, 10) == []
    assert not await anchors.is_due()
    clock.now += RETRY_SECONDS
    assert await anchors.is_due()


async def test_a_deployment_without_anchors_asks_for_none(
    world: World, store: Store, clock: Clock
) -> None:
    anchors = Anchors(store, world.genesis.origin, None, clock)

    assert not await anchors.is_due()
    assert anchors.split(lines_of(world, 2))[1] == []
    await anchors.keep(note_of(world), 0, [])
    assert await store.anchors(-1, 0, 10) == []
