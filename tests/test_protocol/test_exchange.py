"""The exchange: every pair of state and event, and what parties and auditors agree on."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity_protocol.acts import Act, Event
from comity_protocol.audit import AuditRecord, project
from comity_protocol.core import Kind
from comity_protocol.exchange import (
    By,
    Exchange,
    RefusedError,
    State,
    Step,
    apply,
    legal_events,
)
from comity_protocol.identifiers import DeskId, EnvelopeId, ExchangeId
from comity_protocol.profiles import PROFILES
from comity_protocol.statements import Authority
from support.world import lead, reply, request

HOME, AWAY, THIRD = (DeskId(bytes([number]) * 16) for number in (1, 2, 3))
KEY = bytes(32)
OPENINGS: Final[dict[str, Act]] = {"lead": lead(), "untoc18": request()}

# (state, event, side) -> state after it, written out by hand after PROTOCOL section 11. Everything
# else is illegal. A lead may follow in an exchange of leads only.
DIALOGUE: Final[dict[tuple[State, Event, By], State]] = {
    (State.SUBMITTED, Event.ACKNOWLEDGE, By.RESPONDER): State.ACKNOWLEDGED,
    (State.ACKNOWLEDGED, Event.CONSULT, By.RESPONDER): State.CONSULTING,
    (State.CONSULTING, Event.CONSULT, By.RESPONDER): State.CONSULTING,
    (State.CONSULTING, Event.CONSULT, By.INITIATOR): State.CONSULTING,
    (State.SUBMITTED, Event.ANSWER, By.RESPONDER): State.ANSWERED,
    (State.ACKNOWLEDGED, Event.ANSWER, By.RESPONDER): State.ANSWERED,
    (State.CONSULTING, Event.ANSWER, By.RESPONDER): State.ANSWERED,
    (State.SUBMITTED, Event.REFUSE, By.RESPONDER): State.REFUSED,
    (State.ACKNOWLEDGED, Event.REFUSE, By.RESPONDER): State.REFUSED,
    (State.CONSULTING, Event.REFUSE, By.RESPONDER): State.REFUSED,
    (State.ANSWERED, Event.CLOSE, By.INITIATOR): State.CLOSED,
    (State.REFUSED, Event.CLOSE, By.INITIATOR): State.CLOSED,
}
FURTHER_LEADS: Final[dict[tuple[State, Event, By], State]] = {
    (state, Event.LEAD, side): state
    for state, side in product(State, (By.INITIATOR, By.RESPONDER))
    if state is not State.CLOSED
}
LEGAL: Final = {"lead": DIALOGUE | FURTHER_LEADS, "untoc18": DIALOGUE}
TRIPLES: Final = [
    pytest.param(code, state, event, side, id=f"{code} {state.value} {event.value} {side.value}")
    for code, state, event, side in product(PROFILES, State, Event, (By.INITIATOR, By.RESPONDER))
]


def _step(act: Act, index: int, *, side: By = By.INITIATOR, **changes: object) -> Step:
    sender, receiver = (HOME, AWAY) if side is By.INITIATOR else (AWAY, HOME)
    step = Step(
        index=index,
        envelope=EnvelopeId(index.to_bytes(16, "big")),
        sender=sender,
        receiver=receiver,
        authority=Authority.PROSECUTION,
        kind=Kind.FILE if act.event is Event.REQUEST else Kind.LEAD,
        record=project(act, None if act.head is None else KEY),
    )
    return replace(step, **changes)  # type: ignore[arg-type]  # the test's own keywords


def _opened(code: str = "lead") -> Exchange:
    return apply(None, _step(OPENINGS[code], 1))


def _reply(
    exchange: Exchange,
    event: Event,
    side: By,
    *,
    says: dict[str, object] | None = None,
    **changes: object,
) -> Step:
    act = reply(event, OPENINGS[exchange.profile.code], exchange.head, **(says or {}))
    step = _step(act, exchange.steps[-1].index + 1, side=side, kind=exchange.profile.kind)
    return replace(step, **changes)  # type: ignore[arg-type]  # the test's own keywords


def _consulted(exchange: Exchange, state: State) -> Exchange:
    """An exchange in any state, in which a refusal has been consulted about."""
    exchange = apply(exchange, _reply(exchange, Event.ACKNOWLEDGE, By.RESPONDER))
    exchange = apply(exchange, _reply(exchange, Event.CONSULT, By.RESPONDER))
    return replace(exchange, state=state)


def _refuse(exchange: Exchange | None, step: Step, rule: str, message: str) -> None:
    with pytest.raises(RefusedError, match=rf"{message} \[{rule}\]$") as caught:
        apply(exchange, step)

    assert caught.value.rule == rule


# --- The table: [X-4] -------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "state", "event", "side"), TRIPLES)
def test_every_pair_of_state_and_event_is_as_the_protocol_says(
    code: str, state: State, event: Event, side: By
) -> None:
    """[X-4]"""
    exchange = _consulted(_opened(code), state)
    act = (
        replace(request(), exchange=exchange.id, head=exchange.head, profile=None)
        if event is Event.REQUEST
        else reply(event, OPENINGS[code], exchange.head)
    )
    step = _step(act, 9, side=side, kind=exchange.profile.kind)
    expected = LEGAL[code].get((state, event, side))
    desk = HOME if side is By.INITIATOR else AWAY

    assert (event in legal_events(exchange, desk)) == (expected is not None)
    if expected is None:
        _refuse(
            exchange,
            step,
            "X-4",
            f"{event.value} by the {side.value} is not possible while {state.value}",
        )
    else:
        after = apply(exchange, step)
        assert after.state is expected
        assert after.steps == (*exchange.steps, step)
        assert after.head == step.envelope


def test_the_leaves_that_clocks_run_between_are_kept() -> None:
    """[X-2]"""
    exchange = _opened("untoc18")
    for event in (Event.ACKNOWLEDGE, Event.CONSULT, Event.ANSWER):
        exchange = apply(exchange, _reply(exchange, event, By.RESPONDER))
    exchange = apply(exchange, _reply(exchange, Event.CLOSE, By.INITIATOR))

    assert exchange.state is State.CLOSED
    assert (exchange.opened_index, exchange.acknowledged_index, exchange.final_index) == (1, 2, 4)


# --- Refusals by rule -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        reply(Event.ANSWER, lead(), EnvelopeId(bytes(16))),
        replace(lead(), profile=None),
        replace(lead(), profile="untoc18"),
        replace(request(), profile="lead"),
        replace(lead(), head=EnvelopeId(bytes(16))),
        replace(lead(), profile="eio"),
    ],
)
def test_an_exchange_that_does_not_begin_with_its_opening_act_is_refused(act: Act) -> None:
    """[X-1]"""
    _refuse(None, _step(act, 1), "X-1", "exchange does not begin with an opening act")


def test_a_later_act_that_names_a_procedure_is_refused() -> None:
    """[X-1] An informal lead cannot turn into a formal request half way."""
    exchange = _opened()
    step = _reply(exchange, Event.LEAD, By.INITIATOR, says={"profile": "lead"})

    _refuse(exchange, step, "X-1", "a later act names a procedure")


@pytest.mark.parametrize("index", [0, 1])
def test_an_act_out_of_leaf_order_is_refused(index: int) -> None:
    """[X-2]"""
    exchange = _opened()
    step = _reply(exchange, Event.ACKNOWLEDGE, By.RESPONDER, index=index)

    _refuse(exchange, step, "X-2", f"act at leaf {index} comes after a later one")


@pytest.mark.parametrize(
    ("sender", "receiver"), [(THIRD, HOME), (HOME, THIRD), (THIRD, AWAY), (HOME, HOME)]
)
def test_an_act_of_a_third_desk_is_refused(sender: DeskId, receiver: DeskId) -> None:
    """[X-3]"""
    exchange = _opened()
    step = _reply(exchange, Event.ANSWER, By.RESPONDER, sender=sender, receiver=receiver)

    _refuse(exchange, step, "X-3", "act is not between the two desks of its exchange")


def test_the_initiator_cannot_answer_its_own_request() -> None:
    """[X-3] [X-4]"""
    exchange = _opened("untoc18")

    _refuse(
        exchange,
        _reply(exchange, Event.ANSWER, By.INITIATOR),
        "X-4",
        "answer by the initiator is not possible while submitted",
    )


def test_a_third_desk_has_nothing_to_say_next() -> None:
    """[X-3]"""
    assert legal_events(_opened(), THIRD) == frozenset()


def test_an_act_of_another_exchange_is_refused() -> None:
    """[X-5]"""
    exchange = _opened()
    step = _reply(exchange, Event.ANSWER, By.RESPONDER)
    moved = replace(step, record=replace(step.record, exchange=ExchangeId(bytes(16))))

    _refuse(exchange, moved, "X-5", "act is of another exchange")


@pytest.mark.parametrize("head", [None, EnvelopeId(b"\xff" * 16)])
def test_an_act_that_names_no_earlier_act_of_its_exchange_is_refused(
    head: EnvelopeId | None,
) -> None:
    """[X-5]"""
    exchange = _opened()
    step = _reply(exchange, Event.ANSWER, By.RESPONDER)
    step = replace(step, record=replace(step.record, head=head))

    _refuse(exchange, step, "X-5", "act does not name an earlier act of its exchange")


def test_an_act_may_name_an_older_act_that_its_author_had_seen() -> None:
    """[X-5] Two acts that cross on the way are both legal where the table lets them be."""
    exchange = _opened()
    first = exchange.head
    exchange = apply(exchange, _reply(exchange, Event.LEAD, By.INITIATOR))
    late = _reply(exchange, Event.ACKNOWLEDGE, By.RESPONDER)

    after = apply(exchange, replace(late, record=replace(late.record, head=first)))

    assert after.state is State.ACKNOWLEDGED


def test_a_refused_act_cannot_be_built_upon() -> None:
    """[X-5]"""
    exchange = _opened()
    illegal = _reply(exchange, Event.CLOSE, By.INITIATOR)
    with pytest.raises(RefusedError):
        apply(exchange, illegal)
    step = _reply(exchange, Event.ANSWER, By.RESPONDER, index=5)

    _refuse(
        exchange,
        replace(step, record=replace(step.record, head=illegal.envelope)),
        "X-5",
        "act does not name an earlier act of its exchange",
    )


@pytest.mark.parametrize("authority", list(Authority))
@pytest.mark.parametrize("code", PROFILES)
def test_only_the_right_authority_opens_an_exchange(code: str, authority: Authority) -> None:
    """[X-6] [P-2]"""
    profile = PROFILES[code]
    step = _step(OPENINGS[code], 1, authority=authority)

    if authority in profile.authorities:
        assert apply(None, step).profile is profile
    else:
        _refuse(None, step, "X-6", f"a {authority.value} desk may not open a {profile.title}")


@pytest.mark.parametrize("authority", list(Authority))
def test_only_the_right_authority_answers_a_formal_request(authority: Authority) -> None:
    """[X-6] [P-2] A police desk may acknowledge a formal request, and not answer it."""
    exchange = _acknowledged()
    step = _reply(exchange, Event.ANSWER, By.RESPONDER, authority=authority)

    if authority in exchange.profile.authorities:
        assert apply(exchange, step).state is State.ANSWERED
    else:
        message = f"a {authority.value} desk may not answer a mutual legal assistance"
        _refuse(exchange, step, "X-6", message)


def test_a_consultation_that_only_the_initiator_begins_permits_no_refusal() -> None:
    """[X-8] UNTOC art. 18(26): the duty to consult is the requested State's."""
    exchange = _acknowledged()
    cost = _reply(exchange, Event.CONSULT, By.RESPONDER, says={"topic": "COST"})
    exchange = apply(exchange, cost)
    exchange = apply(exchange, _reply(exchange, Event.CONSULT, By.INITIATOR))

    _refuse(
        exchange,
        _reply(exchange, Event.REFUSE, By.RESPONDER),
        "X-8",
        "refusal without the consultation that is owed before it",
    )


@pytest.mark.parametrize("code", PROFILES)
def test_an_act_sealed_to_the_wrong_kind_of_key_is_refused(code: str) -> None:
    """[X-7] A request that is forgotten with the lead keys could never be proven."""
    wrong = Kind.LEAD if code == "untoc18" else Kind.FILE
    exchange = _opened(code)

    _refuse(
        None, _step(OPENINGS[code], 1, kind=wrong), "X-7", "act is sealed to the wrong kind of key"
    )
    _refuse(
        exchange,
        _reply(exchange, Event.ANSWER, By.RESPONDER, kind=wrong),
        "X-7",
        "act is sealed to the wrong kind of key",
    )


def _acknowledged() -> Exchange:
    exchange = _opened("untoc18")
    return apply(exchange, _reply(exchange, Event.ACKNOWLEDGE, By.RESPONDER))


def test_a_refusal_without_a_consultation_is_refused() -> None:
    """[X-8] UNTOC art. 18(26)"""
    exchange = _acknowledged()

    assert Event.REFUSE not in legal_events(exchange, AWAY)
    _refuse(
        exchange,
        _reply(exchange, Event.REFUSE, By.RESPONDER),
        "X-8",
        "refusal without the consultation that is owed before it",
    )


def test_a_consultation_about_costs_is_none_about_refusing() -> None:
    """[X-8]"""
    exchange = _acknowledged()
    exchange = apply(
        exchange, _reply(exchange, Event.CONSULT, By.RESPONDER, says={"topic": "COST"})
    )

    _refuse(
        exchange,
        _reply(exchange, Event.REFUSE, By.RESPONDER),
        "X-8",
        "refusal without the consultation that is owed before it",
    )


def test_a_refusal_after_its_consultation_is_legal_and_so_is_one_of_a_lead() -> None:
    """[X-8]"""
    exchange = _acknowledged()
    exchange = apply(exchange, _reply(exchange, Event.CONSULT, By.RESPONDER))
    informal = _opened()

    for legal in (exchange, informal):
        after = apply(legal, _reply(legal, Event.REFUSE, By.RESPONDER))
        assert after.state is State.REFUSED


# --- Parties and auditors agree ---------------------------------------------------------------

_EVENTS = st.sampled_from(Event)
_STEPS = st.lists(
    st.tuples(
        _EVENTS,
        st.sampled_from((By.INITIATOR, By.RESPONDER, By.EITHER)),
        st.sampled_from(("newest", "first", "illegal", "none")),
        st.sampled_from((Kind.FILE, Kind.LEAD)),
        st.sampled_from(("REFUSE", "COST")),
        st.sampled_from((0, 1, 1, 1, 7)),
    ),
    max_size=12,
)


def _random_act(event: Event, opening: Act, head: EnvelopeId | None, topic: str) -> Act:
    if event is Event.REQUEST:
        return replace(request(), exchange=opening.exchange, head=head)
    act = reply(event, opening, head or EnvelopeId(bytes(16)))
    if event is Event.CONSULT:
        act = replace(act, topic=topic)
    return replace(act, head=head)


def _fold(
    steps: list[Step], read: Callable[[AuditRecord], AuditRecord]
) -> tuple[Exchange | None, list[str]]:
    exchange: Exchange | None = None
    rules = []
    for step in steps:
        try:
            exchange = apply(exchange, replace(step, record=read(step.record)))
            rules.append("legal")
        except RefusedError as refused:
            rules.append(refused.rule)
    return exchange, rules


@given(st.sampled_from(sorted(OPENINGS)), _STEPS)
def test_parties_and_auditors_reach_the_same_state_from_any_acts(
    code: str, drawn: list[tuple[Event, By, str, Kind, str, int]]
) -> None:
    """[X-2] [X-4] [U-1] Whatever anybody sends in whatever order, nobody crashes or disagrees."""
    opening = OPENINGS[code]
    steps = [_step(opening, 1)]
    for event, side, choice, kind, topic, gap in drawn:
        heads = {
            "newest": steps[-1].envelope,
            "first": steps[0].envelope,
            "illegal": EnvelopeId(b"\xee" * 16),
            "none": None,
        }
        act = _random_act(event, opening, heads[choice], topic)
        step = _step(act, steps[-1].index + gap, side=side, kind=kind)
        if side is By.EITHER:
            step = replace(step, sender=THIRD)
        steps.append(step)

    party = _fold(steps, lambda record: record)
    auditor = _fold(steps, lambda record: AuditRecord.parse(record.serialize()))

    assert party == auditor
    exchange, rules = party
    assert exchange is not None
    assert len(exchange.steps) == rules.count("legal")
    assert exchange.state is not State.CLOSED or exchange.final_index is not None
    assert legal_events(exchange, HOME) | legal_events(exchange, AWAY) or (
        exchange.state is State.CLOSED
    )
