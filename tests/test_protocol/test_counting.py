"""Statistics from audit records and witnessed times alone."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity_protocol.acts import Act, Event
from comity_protocol.audit import AuditRecord, project
from comity_protocol.core import Kind
from comity_protocol.counting import (
    Clock,
    Delivery,
    Fault,
    Response,
    Statistics,
    Timeliness,
    Unaccounted,
    count,
    digest_of,
    fold,
    total,
)
from comity_protocol.encoding import parse
from comity_protocol.exchange import Step
from comity_protocol.identifiers import DeskId, EnvelopeId, ExchangeId
from comity_protocol.statements import Authority
from comity_protocol.times import Bracket, Outage
from support.world import lead, reply

ASKER, ANSWERER, AUDITOR = DeskId(b"a" * 16), DeskId(b"b" * 16), DeskId(b"c" * 16)
PARTY = {ASKER: "XA", ANSWERER: "XB", AUDITOR: "XS"}
KEY = bytes(32)
LIMITS = {("lead", "U0"): 50}

OPENED, ACKNOWLEDGED, ANSWERED, CLOSED = 10, 20, 60, 70
"""Leaf indexes; an act is sealed 1,000 seconds above its leaf index."""


def step(index: int, act: Act, *, by: DeskId = ASKER) -> Step:
    receiver = ANSWERER if by == ASKER else ASKER
    record = project(act, KEY if act.head else None)
    return Step(
        index,
        name(index),
        by,
        receiver,
        Authority.POLICE,
        Kind.LEAD,
        AuditRecord.parse(record.serialize()),
    )


def name(index: int) -> EnvelopeId:
    return EnvelopeId(index.to_bytes(16, "big"))


def steps_of(number: int = 0, *, last: int = CLOSED) -> list[Step]:
    """An answered exchange; further ones of higher number stand between its leaves."""
    opening = lead(exchange=ExchangeId(bytes([number]) * 16))
    acts = [
        (OPENED, opening, ASKER),
        (ACKNOWLEDGED, reply(Event.ACKNOWLEDGE, opening, name(OPENED + number)), ANSWERER),
        (ANSWERED, reply(Event.ANSWER, opening, name(ACKNOWLEDGED + number)), ANSWERER),
        (CLOSED, reply(Event.CLOSE, opening, name(ANSWERED + number)), ASKER),
    ]
    return [step(index + number, act, by=by) for index, act, by in acts if index <= last]


CLOCK = Clock(
    sealed={index: 1_000 + index for index in range(100)},
    seen={index: 990 + index for index in range(100)},
    size=100,
    as_of=1_099,
    witnesses=3,
    least=2,
)


def counted(steps: list[Step], **changes: object) -> Statistics:
    given_: dict[str, object] = {"clock": CLOCK, "party": PARTY, "limits": LIMITS}
    return count(steps, **(given_ | changes))  # type: ignore[arg-type]  # the test's own keywords


def row_of(steps: list[Step], **changes: object) -> Response:
    (row,) = counted(steps, **changes).rows
    return row


# --- One exchange: [N-1] [N-2] [N-3] ----------------------------------------------------------


def test_response_runs_from_proven_to_proven() -> None:
    """[N-2]"""
    row = row_of(steps_of())

    assert (row.opened, row.final) == (Bracket(1_000, 1_010), Bracket(1_050, 1_060))
    assert (row.opened_at, row.acknowledged_at, row.final_at) == (1_010, 1_020, 1_060)
    assert (row.response_seconds, row.response_seconds_min, row.acknowledge_seconds) == (50, 40, 10)
    assert (row.initiator, row.responder, row.state) == ("XA", "XB", "closed")
    assert (row.initiator_desk, row.responder_desk) == (ASKER, ANSWERER)
    assert row.final_event is Event.ANSWER


def test_an_answer_that_witnesses_stamped_counts_from_the_stamp() -> None:
    """[N-2] [M-2] The relay held it back; its State is not slow."""
    held_back = replace(CLOCK, stamped={ANSWERED: 1_055})

    assert row_of(steps_of(), clock=held_back).response_seconds == 45


def test_a_request_that_was_stamped_and_kept_makes_nobody_late() -> None:
    """[N-5] A desk stamps its request in January and sends it in March."""
    stamped = replace(CLOCK, stamped={OPENED: 10})

    for last in (OPENED, ANSWERED):
        assert row_of(steps_of(last=last), clock=stamped) == row_of(steps_of(last=last))


def test_an_answer_that_was_stamped_and_kept_is_seen_to_be() -> None:
    """[N-5] A desk stamps its answer in time and sends it when it pleases."""
    stamped = replace(CLOCK, stamped={ANSWERED: 1_025})
    row = row_of(steps_of(), clock=stamped)

    assert (row.response_seconds, row.stamped_seconds) == (15, 35)
    assert row_of(steps_of()).stamped_seconds == row_of(steps_of(last=OPENED)).stamped_seconds == 0


@given(st.dictionaries(st.sampled_from([OPENED, ACKNOWLEDGED, ANSWERED]), st.integers(0, 2_000)))
def test_no_stamp_makes_a_response_longer(stamped: dict[int, int]) -> None:
    """[N-5] [M-2] Whatever either side has stamped."""
    with_stamps = row_of(steps_of(), clock=replace(CLOCK, stamped=stamped)).response_seconds
    without = row_of(steps_of()).response_seconds

    assert with_stamps is not None
    assert without is not None
    assert with_stamps <= without


def test_an_unanswered_exchange_stays_in_as_open() -> None:
    """[N-3]"""
    row = row_of(steps_of(last=ACKNOWLEDGED))

    assert (row.final, row.final_event, row.final_at) == (None, None, None)
    assert (row.response_seconds, row.response_seconds_min, row.handling_seconds) == (None,) * 3
    assert row.state == "acknowledged"


def test_a_refusal_ends_the_response_as_an_answer_does() -> None:
    """[N-2]"""
    (opening,) = steps_of(last=OPENED)
    refusal = reply(Event.REFUSE, lead(exchange=opening.record.exchange), opening.envelope)

    row = row_of([opening, step(30, refusal, by=ANSWERER)])

    assert (row.final_event, row.response_seconds, row.acknowledged_at) == (Event.REFUSE, 20, None)


def test_a_refused_step_moves_no_clock_and_is_counted_apart() -> None:
    """[N-1]"""
    steps = steps_of()
    forged = step(OPENED + 1, reply(Event.ANSWER, lead(), name(OPENED)), by=ASKER)
    forged = replace(forged, record=replace(forged.record, exchange=steps[0].record.exchange))

    row = row_of([steps[0], forged, *steps[1:]])

    assert row.refused_steps == 1
    assert row.final_at == 1_060


def test_steps_without_an_opening_act_make_no_exchange() -> None:
    """[N-1]"""
    exchanges, refused = fold(steps_of()[1:])

    assert exchanges == {}
    assert list(refused.values()) == [3]


def test_two_steps_at_one_leaf_are_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="two steps claim leaf 10"):
        fold([step(OPENED, lead()), step(OPENED, lead())])


# --- Pickup and handling ----------------------------------------------------------------------


def test_pickup_and_handling_are_parted_by_the_first_receipt_of_the_responder() -> None:
    """[N-2] Nobody else's receipt, and for no other envelope."""
    row = row_of(
        steps_of(),
        deliveries=[
            Delivery(17, name(OPENED), ANSWERER),
            Delivery(15, name(OPENED), ANSWERER),
            Delivery(19, name(OPENED), ANSWERER),
            Delivery(12, name(OPENED), AUDITOR),
            Delivery(13, name(ANSWERED), ANSWERER),
        ],
    )

    assert (row.delivered_at, row.pickup_seconds, row.handling_seconds) == (1_015, 5, 45)


def test_a_receipt_that_is_held_back_moves_nothing() -> None:
    """[N-2] [M-2] A desk acknowledges first and gives its receipt a week later."""
    late = row_of(steps_of(), deliveries=[Delivery(99, name(OPENED), ANSWERER)])

    assert late.delivered_at == row_of(steps_of()).delivered_at == 1_020


def test_what_nobody_has_confirmed_was_not_picked_up() -> None:
    row = row_of(steps_of(last=OPENED))

    assert (row.delivered_at, row.pickup_seconds, row.handling_seconds) == (None, None, None)


def test_a_picked_up_exchange_without_answer_has_no_handling() -> None:
    row = row_of(steps_of(last=OPENED), deliveries=[Delivery(15, name(OPENED), ANSWERER)])

    assert (row.pickup_seconds, row.handling_seconds) == (5, None)


def test_witnesses_that_are_seconds_apart_give_no_negative_duration() -> None:
    skewed = replace(CLOCK, sealed={**CLOCK.sealed, OPENED: 1_024})

    assert row_of(steps_of(), clock=skewed).acknowledge_seconds == 0


# --- Limits: [M-3] ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "timeliness"),
    [(50, Timeliness.IN_TIME), (49, Timeliness.UNDETERMINED), (39, Timeliness.LATE)],
)
def test_an_answer_is_judged_by_the_limit_of_its_profile_and_urgency(
    limit: int, timeliness: Timeliness
) -> None:
    """[M-3]"""
    row = row_of(steps_of(), limits={("lead", "U0"): limit, ("lead", "U4"): 0})

    assert (row.limit_seconds, row.timeliness) == (limit, timeliness)


@pytest.mark.parametrize(
    ("as_of", "timeliness"), [(1_060, Timeliness.OPEN_IN_TIME), (1_061, Timeliness.OPEN_LATE)]
)
def test_an_open_exchange_is_late_when_its_limit_has_passed(
    as_of: int, timeliness: Timeliness
) -> None:
    """[N-3] [M-3] Silence does not look fast."""
    row = row_of(steps_of(last=OPENED), clock=replace(CLOCK, as_of=as_of))

    assert row.timeliness is timeliness


def test_without_a_limit_nothing_is_judged() -> None:
    row = row_of(steps_of(), limits=None)

    assert (row.limit_seconds, row.timeliness) == (None, None)


def test_a_later_stale_seen_turns_late_into_undetermined_at_most() -> None:
    """[M-1] [M-3] A desk names an old checkpoint in a late answer; its seconds stay."""
    late = row_of(steps_of(), limits={("lead", "U0"): 10})
    stale = row_of(
        steps_of(),
        limits={("lead", "U0"): 10},
        clock=replace(CLOCK, seen={**CLOCK.seen, ANSWERED: 0}),
    )

    assert (late.timeliness, stale.timeliness) == (Timeliness.LATE, Timeliness.UNDETERMINED)
    assert late.response_seconds == stale.response_seconds


# --- Outages: [M-4] ---------------------------------------------------------------------------


def test_outages_are_shown_beside_a_response_and_stop_no_clock() -> None:
    """[M-4]"""
    clock = replace(
        CLOCK,
        sealed={**CLOCK.sealed, ANSWERED: 9_000},
        published=(9_000, 0, 1_005, 4_000, 4_100, 8_000, 20_000),
        as_of=20_000,
    )
    statistics = counted(steps_of(last=ANSWERED), clock=clock)

    assert statistics.outages[:2] == (Outage(1_005, 4_000), Outage(4_100, 8_000))
    assert statistics.outages[2:] == (Outage(9_000, 20_000),)
    assert statistics.rows[0].outage_seconds == (4_000 - 1_010) + (8_000 - 4_100)
    assert statistics.rows[0].response_seconds == 9_000 - 1_010


@pytest.mark.parametrize(("as_of", "seconds"), [(2_999, 0), (3_000, 3_000 - 1_010)])
def test_an_outage_is_known_when_the_checkpoint_after_it_is(as_of: int, seconds: int) -> None:
    """[M-4]"""
    clock = replace(CLOCK, published=(1_000, 3_000), as_of=as_of)

    assert row_of(steps_of(last=OPENED), clock=clock).outage_seconds == seconds


# --- What cannot be counted: [N-4] ------------------------------------------------------------


def test_what_does_not_open_is_listed_and_counts_against_its_sender() -> None:
    """[N-4] A desk gives its auditor garbage so that its late answer is not seen."""
    hidden = Unaccounted(ANSWERED, name(ANSWERED), ANSWERER, Fault.UNOPENED)
    other = Unaccounted(5, name(5), ASKER, Fault.UNVERIFIED)
    again = Unaccounted(6, name(6), ANSWERER, Fault.UNOPENED)

    statistics = counted(steps_of(last=ACKNOWLEDGED), unaccounted=[hidden, again, other, hidden])

    assert statistics.unaccounted == (other, again, hidden)
    assert statistics.charged == (("XA", 1), ("XB", 2))
    assert statistics.totals.open == 1


def test_a_copy_that_is_gone_is_listed_and_counts_against_nobody() -> None:
    """[N-4] The auditor's own retention is no fault of the sender."""
    gone = Unaccounted(5, name(5), ASKER, Fault.GONE)
    statistics = counted(steps_of(), unaccounted=[gone])

    assert statistics.unaccounted == (gone,)
    assert statistics.charged == ()


def test_nothing_is_both_counted_and_unaccounted_for() -> None:
    """[N-4]"""
    with pytest.raises(ValueError, match="leaf 60 is counted and unaccounted for"):
        counted(
            steps_of(),
            unaccounted=[Unaccounted(ANSWERED, name(ANSWERED), ANSWERER, Fault.UNOPENED)],
        )


# --- Totals and digest ------------------------------------------------------------------------


def test_totals_add_up_to_all_exchanges() -> None:
    """[N-3]"""
    steps = [*steps_of(1), *steps_of(2, last=ANSWERED), *steps_of(3, last=OPENED)]
    totals = counted(steps, limits={("lead", "U0"): 30}).totals

    assert (totals.exchanges, totals.answered, totals.refused, totals.open) == (3, 2, 0, 1)
    assert {kind: found for kind, found in totals.timeliness.items() if found} == {
        Timeliness.LATE: 2,
        Timeliness.OPEN_LATE: 1,
    }
    assert totals.exchanges == totals.answered + totals.refused + totals.open


def test_totals_of_some_rows_are_those_of_a_cell() -> None:
    rows = counted([*steps_of(1), *steps_of(2, last=OPENED)]).rows

    assert total(rows[:1]).answered == total(rows[1:]).open == 1
    assert total([]).exchanges == 0


def test_fewer_than_three_witnesses_rank_nobody() -> None:
    """[M-6]"""
    assert counted(steps_of()).is_ranked
    assert not counted(steps_of(), clock=replace(CLOCK, witnesses=2)).is_ranked
    assert not counted(steps_of(), clock=replace(CLOCK, least=1)).is_ranked


def test_a_forgotten_time_is_the_callers_mistake() -> None:
    """[N-2] No time is ever made up."""
    with pytest.raises(KeyError):
        counted(steps_of(), clock=replace(CLOCK, sealed={}))


RECORDS = [*steps_of(0), *steps_of(1, last=ANSWERED), *steps_of(2, last=OPENED)]
DELIVERIES = [Delivery(15 + n, name(OPENED + n), ANSWERER) for n in range(3)]
MISSING = [Unaccounted(80 + n, name(80 + n), ASKER, Fault.UNOPENED) for n in range(3)]
PUBLISHED = (1_000, 3_000, 3_100, 9_000)
LATER = replace(CLOCK, published=PUBLISHED, as_of=9_000)
WHOLE = counted(
    RECORDS,
    deliveries=DELIVERIES,
    unaccounted=MISSING,
    clock=LATER,
)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_the_digest_is_the_same_in_whatever_order_facts_came(data: st.DataObject) -> None:
    """[N-2] Two auditors got the same facts on different days, some of them twice."""
    again = counted(
        data.draw(st.permutations([*RECORDS, *RECORDS[:3]])),
        deliveries=data.draw(st.permutations([*DELIVERIES, *DELIVERIES[:1]])),
        unaccounted=data.draw(st.permutations([*MISSING, *MISSING[:1]])),
        party=dict(data.draw(st.permutations(list(PARTY.items())))),
        clock=replace(LATER, published=tuple(data.draw(st.permutations(PUBLISHED)))),
    )

    assert digest_of(again) == digest_of(WHOLE)


def test_what_came_after_the_checkpoint_changes_nothing() -> None:
    """[N-2] An auditor that has more by now counts again as of the published checkpoint."""
    clock = replace(CLOCK, published=PUBLISHED, size=OPENED + 2)
    before = counted(
        [step for step in RECORDS if step.index < clock.size],
        clock=replace(clock, published=tuple(at for at in PUBLISHED if at <= clock.as_of)),
    )
    after = counted(
        RECORDS,
        deliveries=DELIVERIES,
        unaccounted=MISSING,
        clock=replace(clock, sealed={**CLOCK.sealed, 200: 1}),
    )

    assert before.totals.open == 2
    assert after == before


@pytest.mark.parametrize("place", range(len(RECORDS)))
def test_leaving_out_any_record_changes_the_digest(place: int) -> None:
    """[N-3] [N-4]"""
    fewer = counted(
        [*RECORDS[:place], *RECORDS[place + 1 :]],
        deliveries=DELIVERIES,
        unaccounted=MISSING,
        clock=LATER,
    )

    assert digest_of(fewer) != digest_of(WHOLE)


@pytest.mark.parametrize(
    "changes",
    [
        {"deliveries": DELIVERIES[1:]},
        {"unaccounted": MISSING[1:]},
        {"limits": {}},
        {"party": PARTY | {ASKER: "XC"}},
        {"clock": replace(LATER, witnesses=4)},
        {"clock": replace(LATER, least=3)},
        {"clock": replace(LATER, size=101)},
        {"clock": replace(LATER, published=PUBLISHED[1:])},
        {"clock": replace(LATER, as_of=9_001)},
    ],
    ids=[
        "receipts",
        "unaccounted",
        "limits",
        "parties",
        "witnesses",
        "least",
        "size",
        "outages",
        "as of",
    ],
)
def test_any_other_fact_changes_the_digest(changes: dict[str, object]) -> None:
    facts: dict[str, object] = {
        "deliveries": DELIVERIES,
        "unaccounted": MISSING,
        "clock": LATER,
    }

    assert digest_of(counted(RECORDS, **(facts | changes))) != digest_of(WHOLE)


def test_what_the_digest_covers_is_canonical() -> None:
    """[C-1]"""
    assert isinstance(parse(WHOLE.serialize()), dict)


PROGRAM = """
from test_protocol.test_counting import steps_fixed
from comity_protocol.counting import digest_of
print(digest_of(steps_fixed()).hex())
"""


def steps_fixed() -> Statistics:
    """Statistics without a random byte, for another process to repeat."""
    return counted([*steps_of(7), *steps_of(8, last=OPENED)], unaccounted=MISSING)


def test_the_digest_does_not_depend_on_locale_time_zone_or_hash_seed() -> None:
    """[N-2]"""
    tests = Path(__file__).parent.parent
    found = set()
    for locale, zone, seed in (("C", "UTC", "0"), ("tr_TR.UTF-8", "Pacific/Apia", "4711")):
        environment = os.environ | {
            "LC_ALL": locale,
            "TZ": zone,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(tests),
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        )
        found.add(done.stdout.strip())

    assert found == {digest_of(steps_fixed()).hex()}
