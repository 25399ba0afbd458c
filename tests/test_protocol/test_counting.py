"""Response times from audit records alone."""

from dataclasses import replace

from comity_protocol.acts import Act, Event
from comity_protocol.audit import AuditRecord, project
from comity_protocol.core import Kind
from comity_protocol.counting import digest_of, fold, response_times
from comity_protocol.exchange import Step
from comity_protocol.identifiers import DeskId, EnvelopeId
from comity_protocol.statements import Authority
from support.world import lead, reply

ASKER, ANSWERER = DeskId(b"a" * 16), DeskId(b"b" * 16)
PARTY = {ASKER: "XA", ANSWERER: "XB"}
KEY = bytes(32)


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


def answered() -> list[Step]:
    opening = lead()
    return [
        step(10, opening),
        step(12, reply(Event.ACKNOWLEDGE, opening, name(10)), by=ANSWERER),
        step(20, reply(Event.ANSWER, opening, name(12)), by=ANSWERER),
    ]


def sealed_at(index: int) -> int:
    return 1_000 + index


def test_response_runs_from_sealed_to_sealed() -> None:
    """[N-2]"""
    (row,) = response_times(answered(), sealed_at=sealed_at, party=PARTY)

    assert (row.opened_at, row.acknowledged_at, row.final_at) == (1_010, 1_012, 1_020)
    assert row.response_seconds == 10
    assert (row.initiator, row.responder, row.state) == ("XA", "XB", "answered")


def test_an_unanswered_exchange_stays_in_as_open() -> None:
    """[N-3]"""
    (row,) = response_times(answered()[:1], sealed_at=sealed_at, party=PARTY)

    assert row.response_seconds is None
    assert row.state == "submitted"


def test_a_refused_step_moves_no_clock_and_is_counted_apart() -> None:
    """[N-1]"""
    steps = answered()
    forged = step(11, reply(Event.ANSWER, lead(), name(10)), by=ASKER)
    forged = replace(forged, record=replace(forged.record, exchange=steps[0].record.exchange))

    (row,) = response_times([steps[0], forged, *steps[1:]], sealed_at=sealed_at, party=PARTY)

    assert row.refused_steps == 1
    assert row.final_at == 1_020


def test_steps_without_an_opening_act_make_no_exchange() -> None:
    """[N-1]"""
    exchanges, refused = fold(answered()[1:])

    assert exchanges == {}
    assert list(refused.values()) == [2]


def test_equal_records_give_the_digest_in_whatever_order_exchanges_came() -> None:
    one, other = answered(), [replace(past, index=past.index + 1) for past in answered()]
    mixed = sorted([*one, *other], key=lambda past: past.index)

    digest = digest_of(response_times(mixed, sealed_at=sealed_at, party=PARTY))
    again = digest_of(response_times(mixed, sealed_at=sealed_at, party=dict(PARTY)))
    shorter = digest_of(response_times(one, sealed_at=sealed_at, party=PARTY))

    assert digest == again != shorter
