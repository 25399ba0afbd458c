"""Times that witnesses give: brackets, verdicts, outages, and who can move them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity_protocol.checkpoint import Cosignature, verify_quorum
from comity_protocol.limits import OUTAGE_GAP_SECONDS_MIN
from comity_protocol.times import (
    Bracket,
    Outage,
    Verdict,
    bracket_of,
    is_ranked,
    judge,
    outage_seconds,
    outages,
    skews,
)
from support.notes import LOG, NOW, QUORUM, cosigned

TIMES = st.integers(0, 10_000)
PAIRS = st.tuples(TIMES, TIMES).map(sorted)
BRACKETS = PAIRS.map(lambda pair: Bracket(*pair))


# --- Brackets: [M-1] [M-2] --------------------------------------------------------------------


def test_an_act_is_between_what_its_author_had_seen_and_the_checkpoint_that_covers_it() -> None:
    """[M-1]"""
    assert bracket_of(seen_at=100, sealed_at=160) == Bracket(100, 160)
    assert bracket_of(seen_at=100, sealed_at=160).width == 60


def test_what_witnesses_stamped_counts_when_the_relay_logged_it_late() -> None:
    """[M-2] The relay let an answer lie for a week; its State is not late."""
    assert bracket_of(seen_at=100, sealed_at=604_800, stamped_at=130) == Bracket(100, 130)


def test_a_stamp_alone_dates_an_act_that_was_never_logged() -> None:
    """[M-2]"""
    assert bracket_of(seen_at=100, sealed_at=None, stamped_at=130) == Bracket(100, 130)


@given(TIMES, TIMES, TIMES)
def test_a_stamp_never_makes_an_act_later(seen: int, sealed: int, stamped: int) -> None:
    """[M-2]"""
    without = bracket_of(seen_at=seen, sealed_at=sealed)

    assert bracket_of(seen_at=seen, sealed_at=sealed, stamped_at=stamped).not_after <= (
        without.not_after
    )


@given(TIMES, TIMES, TIMES)
def test_an_older_seen_only_widens_the_bracket(seen: int, older: int, sealed: int) -> None:
    """[M-1] A sender names a checkpoint of last year, so as to seem to have written then."""
    true = bracket_of(seen_at=seen, sealed_at=sealed)
    stale = bracket_of(seen_at=min(seen, older), sealed_at=sealed)

    assert stale.not_after == true.not_after
    assert stale.not_before <= true.not_before


def test_a_seen_that_nobody_knows_leaves_the_beginning_open() -> None:
    """[M-1]"""
    assert bracket_of(seen_at=None, sealed_at=160) == Bracket(0, 160)


def test_witnesses_that_are_seconds_apart_give_no_bracket_that_ends_before_it_begins() -> None:
    """[M-1]"""
    assert bracket_of(seen_at=163, sealed_at=160) == Bracket(160, 160)


def test_what_is_neither_sealed_nor_stamped_has_no_time() -> None:
    """[M-1]"""
    with pytest.raises(ValueError, match="act is neither sealed nor stamped"):
        bracket_of(seen_at=100, sealed_at=None)


def test_a_bracket_does_not_end_before_it_begins() -> None:
    with pytest.raises(ValueError, match="bracket ends at 1, before 2"):
        Bracket(2, 1)


# --- Verdicts: [M-3] --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("closed", "verdict"),
    [
        (Bracket(150, 200), Verdict.IN_TIME),
        (Bracket(150, 201), Verdict.UNDETERMINED),
        (Bracket(200, 201), Verdict.UNDETERMINED),
        (Bracket(201, 201), Verdict.LATE),
    ],
)
def test_a_duration_is_judged_by_both_ends_of_its_brackets(
    closed: Bracket, verdict: Verdict
) -> None:
    """[M-3] The limit of 100 seconds is over at 200."""
    assert judge(Bracket(90, 100), closed, 100) is verdict


RANK = [Verdict.IN_TIME, Verdict.UNDETERMINED, Verdict.LATE]


@given(BRACKETS, BRACKETS, TIMES, TIMES)
def test_a_later_answer_is_never_judged_better(
    opened: Bracket, closed: Bracket, delay: int, limit: int
) -> None:
    """[M-3]"""
    later = Bracket(closed.not_before + delay, closed.not_after + delay)

    assert RANK.index(judge(opened, closed, limit)) <= RANK.index(judge(opened, later, limit))


@given(BRACKETS, BRACKETS, TIMES, TIMES)
def test_a_longer_limit_is_never_judged_worse(
    opened: Bracket, closed: Bracket, limit: int, more: int
) -> None:
    """[M-3]"""
    longer = judge(opened, closed, limit + more)

    assert RANK.index(longer) <= RANK.index(judge(opened, closed, limit))


@given(BRACKETS, BRACKETS, TIMES, TIMES)
def test_a_wider_bracket_turns_no_verdict_into_its_opposite(
    opened: Bracket, closed: Bracket, limit: int, stale: int
) -> None:
    """[M-3]"""
    wide = Bracket(max(0, closed.not_before - stale), closed.not_after)

    assert judge(opened, wide, limit) in (judge(opened, closed, limit), Verdict.UNDETERMINED)


# --- Outages: [M-4] ---------------------------------------------------------------------------


def test_a_gap_above_twenty_minutes_is_an_outage() -> None:
    """[M-4]"""
    times = [0, 1_200, 2_401, 2_500]

    assert outages(times) == (Outage(1_200, 2_401),)
    assert outages(times)[0].seconds == 1_201


def test_no_checkpoint_and_one_checkpoint_show_no_outage() -> None:
    """[M-4]"""
    assert outages([]) == outages([5]) == ()


@given(st.data(), st.lists(TIMES, max_size=20))
def test_outages_are_the_same_in_whatever_order_checkpoints_came(
    data: st.DataObject, times: list[int]
) -> None:
    """[M-4] One fetched them forwards, another backwards and some of them twice."""
    again = data.draw(st.permutations([*times, *times]))

    assert outages(again) == outages(times)


@given(st.lists(TIMES, max_size=20), st.lists(TIMES, max_size=5))
def test_one_more_checkpoint_never_makes_an_outage_longer(
    times: list[int], more: list[int]
) -> None:
    """[M-4]"""
    span = (min(times, default=0), max(times, default=0))

    assert outage_seconds(outages([*times, *more]), *span) <= outage_seconds(outages(times), *span)


@given(st.lists(TIMES, max_size=20), PAIRS)
def test_seconds_of_outages_are_those_that_a_count_second_by_second_finds(
    times: list[int], span: list[int]
) -> None:
    """[M-4]"""
    start, end = span
    found = outages(times)
    dark = {second for one in found for second in range(one.start, one.end)}

    assert outage_seconds(found, start, end) == len(dark & set(range(start, end)))
    assert all(one.seconds > OUTAGE_GAP_SECONDS_MIN for one in found)


# --- Witnesses: [M-5] [M-6] -------------------------------------------------------------------


def test_how_far_witnesses_are_apart_is_shown() -> None:
    """[M-5]"""
    witnessed = verify_quorum(cosigned(NOW + 40, NOW, NOW - 3), LOG, QUORUM)

    assert witnessed.cosignatures[0] == Cosignature(NOW - 3, "witness.example/w3")
    assert skews(witnessed) == {
        "witness.example/w3": -3,
        "witness.example/w2": 0,
        "witness.example/w1": 40,
    }


@pytest.mark.parametrize(
    ("witnesses", "least", "expected"),
    [(1, 1, False), (2, 2, False), (3, 1, False), (3, 2, True), (7, 5, True)],
)
def test_few_witnesses_and_one_that_moves_a_time_alone_rank_nobody(
    witnesses: int, least: int, *, expected: bool
) -> None:
    """[M-6]"""
    assert is_ranked(witnesses=witnesses, least=least) is expected
