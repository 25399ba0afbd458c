"""P2: two views of one log cannot both be believed.

The log's key serves two histories, one to each half of the desks, and asks each honest witness for
one of them, in every way in which they can be split. Liars cosign both. Of ``k`` of ``n`` witnesses
fewer than ``2k - n`` liars are not enough, however the honest ones are split.

Found by: the half that is shown too few cosignatures, at once; with so many liars that both are
believed, by the first message that crosses, because it names the checkpoint that its sender had
seen. The two notes convict the log before a stranger.
"""

from itertools import product
from typing import Final

import pytest

from comity_protocol.checkpoint import add_signatures, cosign, sign_checkpoint, verify_quorum
from comity_protocol.errors import VerificationError
from comity_protocol.evidence import Fork, verify_evidence, verify_fork
from support.world import World

SIZE: Final = 500
NOW: Final = 1_800_000_000
QUORUMS: Final = ((2, 3), (3, 4), (3, 5))
QUORUMS_LONG: Final = ((4, 5), (4, 7), (5, 7), (5, 9), (6, 9))


def is_believed(world: World, note: bytes) -> bool:
    """Whether a client believes a head."""
    try:
        verify_quorum(note, world.genesis.log, world.genesis.quorum)
    except VerificationError:
        return False
    return True


def heads(world: World) -> tuple[bytes, bytes]:
    """Sign two histories of one size."""
    first, second = (
        sign_checkpoint(
            origin=world.genesis.origin, size=SIZE, root=bytes([half]) * 32, key=world.log_key
        )
        for half in (1, 2)
    )
    return first, second


def split(threshold: int, count: int) -> dict[int, int]:
    """Split the witnesses in every way; gives in how many ways both are believed, by liars."""
    world = World.found(witnesses=count, quorum=threshold)
    notes, names = heads(world), sorted(world.witness_keys)
    lines = [
        {name: cosign(note, name, world.witness_keys[name], NOW) for name in names}
        for note in notes
    ]
    both: dict[int, int] = {}
    for liars in range(count + 1):
        both[liars] = 0
        for half in product((0, 1), repeat=count - liars):
            shown = [
                add_signatures(
                    note,
                    [lines[place][name] for name in names[:liars]]
                    + [
                        lines[place][name]
                        for name, own in zip(names[liars:], half, strict=True)
                        if own == place
                    ],
                )
                for place, note in enumerate(notes)
            ]
            both[liars] += all(is_believed(world, note) for note in shown)
    return both


def check(threshold: int, count: int) -> int:
    """Check every number of liars; gives how many splits were tried."""
    both = split(threshold, count)
    enough = 2 * threshold - count
    assert all(ways == 0 for liars, ways in both.items() if liars < enough)
    # The control: with so many liars there is a split in which both halves are fooled.
    assert all(ways > 0 for liars, ways in both.items() if liars >= enough)
    return sum(2 ** (count - liars) for liars in both)


@pytest.mark.parametrize(("threshold", "count"), QUORUMS)
def test_no_split_of_honest_witnesses_makes_two_views_believed(threshold: int, count: int) -> None:
    """[L-3]"""
    assert check(threshold, count) == 2 ** (count + 1) - 1


@pytest.mark.long
@pytest.mark.timeout(600)
def test_no_split_of_up_to_nine_witnesses_makes_two_views_believed() -> None:
    """[L-3]"""
    tried = sum(check(threshold, count) for threshold, count in QUORUMS_LONG)

    assert tried == 63 + 2 * 255 + 2 * 1_023


def test_two_heads_that_everybody_cosigned_convict_the_log() -> None:
    """[V-1] All witnesses are bribed; a stranger needs the two notes and the genesis."""
    world = World.found()
    first, second = (
        add_signatures(
            note, [cosign(note, name, key, NOW) for name, key in world.witness_keys.items()]
        )
        for note in heads(world)
    )
    assert is_believed(world, first)
    assert is_believed(world, second)

    verify_fork(first, second, world.genesis.log)
    said = verify_evidence(Fork(world.genesis.deployment, first, second).serialize(), world.genesis)
    assert all(name in said for name in world.witness_keys)
