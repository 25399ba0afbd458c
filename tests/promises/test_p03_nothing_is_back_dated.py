"""P3: nobody makes an act look earlier than the quorum saw it.

Clocks lie alone and together: the relay's is a month behind, the sender's too, as many witnesses
as the quorum bears are, and the act names a checkpoint of long ago. Its time stays that at which
honest witnesses saw it.

Found by: nobody has to; a wrong clock has no effect. A witness whose clock is off is shown by
``comity doctor`` against the sealed time.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import pytest

from comity_protocol.checkpoint import add_signatures, cosign, sign_checkpoint, verify_quorum
from comity_protocol.keys import random_bytes
from comity_protocol.stamps import Stamp, sign_stamp, stamped_at
from comity_protocol.times import bracket_of
from support.desks import enrol, open_desk
from support.draws import Draws
from support.relay import Clock, relay, witness
from support.world import World

DAY: Final = 86_400
MONTH: Final = 30 * DAY
NOW: Final = 1_800_000_000
SKEW: Final = 5
QUORUMS: Final = ((2, 3), (3, 5), (4, 7), (5, 7))
LIES: Final = (-MONTH, -SKEW - 1, MONTH, -NOW)
ROUNDS: Final = 10
ROUNDS_LONG: Final = 2_000


def shifted(clock: Clock, seconds: int) -> Callable[[], float]:
    """Give a clock that is off."""
    return lambda: clock() + seconds


def proven_by(world: World, threshold: int, draws: Draws, liars: int) -> tuple[int, int]:
    """Let witnesses see a log and a core, liars at any time; gives proven time and honest sight."""
    names = sorted(world.witness_keys)
    lying = set(names[:liars])
    seen = {name: NOW + draws.below(2 * SKEW + 1) - SKEW for name in names}
    told = {
        name: max(1, at + draws.choice(LIES)) if name in lying else at for name, at in seen.items()
    }
    # Any that make a quorum answer, the liars among them.
    honest = [name for name in names if name not in lying]
    asked = [*lying, *honest[: max(threshold - liars, 0) + draws.below(len(honest))]][: len(names)]
    if len(asked) < threshold:
        asked = names
    deployment, what = world.genesis.deployment, random_bytes(32)
    note = sign_checkpoint(
        origin=world.genesis.origin, size=1, root=random_bytes(32), key=world.log_key
    )
    lines = [cosign(note, name, world.witness_keys[name], told[name]) for name in asked]
    sealed = verify_quorum(
        add_signatures(note, lines), world.genesis.log, world.genesis.quorum
    ).sealed_time
    stamps = [
        Stamp(
            name,
            told[name],
            sign_stamp(world.witness_keys[name], deployment, what, told[name]).signature,
        )
        for name in asked
    ]
    stamped = stamped_at(stamps, deployment, what, world.genesis.quorum)
    seen_at = draws.choice((None, 0, NOW - MONTH))
    bracket = bracket_of(seen_at=seen_at, sealed_at=sealed, stamped_at=stamped)
    first = min(seen[name] for name in asked if name not in lying)
    return bracket.not_after, first


def run_matrix(rounds: int) -> dict[str, int]:
    """Try every quorum with every number of liars that it bears."""
    draws, tried, early = Draws("P3"), 0, 0
    for threshold, count in QUORUMS:
        world = World.found(witnesses=count, quorum=threshold)
        # Half of the threshold, rounded down, never moves a time before the honest clocks.
        for liars, _ in product(range(threshold // 2 + 1), range(rounds)):
            proven, honest = proven_by(world, threshold, draws, liars)
            tried += 1
            early += proven < honest
    return {"tried": tried, "earlier than honest witnesses": early}


def test_as_many_lying_witnesses_as_a_quorum_bears_make_nothing_earlier() -> None:
    """[L-5] [M-1] [M-2] Cosignatures and stamps of 2 of 3 to 5 of 7, with 0 to 2 liars."""
    assert run_matrix(ROUNDS)["earlier than honest witnesses"] == 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_lying_witnesses_make_nothing_earlier_in_twenty_thousand_rounds() -> None:
    """[L-5] [M-1] [M-2]"""
    assert run_matrix(ROUNDS_LONG) == {"tried": 20_000, "earlier than honest witnesses": 0}


def test_more_liars_than_that_do_make_it_earlier() -> None:
    """The control: one liar more, and the bound is gone."""
    world, draws = World.found(witnesses=5, quorum=3), Draws("control")
    assert any(
        proven < honest - 1 for proven, honest in (proven_by(world, 3, draws, 2) for _ in range(60))
    )


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong, in seconds that a clock is off.

    Attributes:
        is_stale: Whether the act names the first checkpoint of all as what it had seen.
    """

    relay: int = 0
    sender: int = 0
    witness: int = 0
    is_stale: bool = False


WRONG: Final = {
    "the relay's clock": Wrong(relay=-MONTH),
    "the sender's clock": Wrong(sender=-MONTH),
    "one witness of three": Wrong(witness=-MONTH),
    "a stale checkpoint": Wrong(is_stale=True),
    "all of them": Wrong(-MONTH, -MONTH, -MONTH, is_stale=True),
}
"""What is a month behind."""


@pytest.mark.parametrize(
    "wrong",
    [
        "all of them",
        *(pytest.param(one, marks=pytest.mark.long) for one in WRONG if one != "all of them"),
    ],
)
async def test_an_act_is_as_old_as_the_witnesses_say_whoever_s_clock_is_a_month_behind(
    tmp_path: Path, wrong: str
) -> None:
    """[M-1] [M-2] [M-5] [L-5] A real relay, real witnesses, real desks."""
    off = WRONG[wrong]
    world = World.found()
    one, other = world.create_desk("XA"), world.create_desk("XB")
    sender, reader = world.active(one)[0], world.active(other)[0]
    true = Clock()
    behind = Clock()
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(
                witness(tmp_path, name, world, shifted(true, 0 if place else off.witness))
            )
            for place, name in enumerate(sorted(world.witness_keys))
        ]
        running = await stack.enter_async_context(
            relay(tmp_path, world, clock=behind, witnesses=0, urls=urls)
        )
        first = await running.seal()
        await running.publish()
        true.ahead += 2 * DAY
        # The relay's own program does not begin to sign by such a clock; this one is hostile.
        behind.ahead = 2 * DAY + off.relay
        await running.ask("GET", "/v1/nonce")
        honest = int(true())
        seen = first if off.is_stale else running.context.log.newest().note_hash
        sealed, answer = await running.send(sender, other, seen=seen)
        assert answer.status == 200
        await running.seal()
        folder = enrol(tmp_path / "reader", world, reader, running.url)
        desk, _ = open_desk(folder, reader, shifted(true, off.sender))
        await stack.enter_async_context(desk)
        await desk.sync()
        await desk.fetch()
        bracket = desk.times()[sealed.id].bracket

    assert bracket is not None
    assert 0 <= bracket.not_after - honest < 60
    assert bracket.not_before <= honest
