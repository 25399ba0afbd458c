"""Procedures: what each event must say, row by row."""

from dataclasses import replace

import pytest

from comity_protocol.acts import Act, Event
from comity_protocol.core import Kind
from comity_protocol.errors import MalformedError
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.profiles import PROFILES, Profile, check_says
from comity_protocol.statements import Authority
from support.world import lead, reply, request

HEAD = EnvelopeId(bytes(16))
EXAMPLES = {
    code: {
        event: opening if event is profile.opens else reply(event, opening, HEAD)
        for event in profile.must
    }
    for code, profile, opening in (
        ("lead", PROFILES["lead"], lead()),
        ("untoc18", PROFILES["untoc18"], request()),
    )
}
MUST = [
    pytest.param(code, event, field, id=f"{code} {event.value} {field}")
    for code, profile in PROFILES.items()
    for event, fields in profile.must.items()
    for field in fields
]
ROWS = [
    pytest.param(code, event, id=f"{code} {event.value}")
    for code, profile in PROFILES.items()
    for event in profile.must
]
SAYS: dict[str, object] = {
    "profile": "lead",
    "reference": "XA-1",
    "language": "en",
    "basis": ("UNTOC18",),
    "offences": ("TIP",),
    "urgency": "U0",
    "urgency_reason": "LIFE",
    "due_on": "2026-01-31",
    "due_reason": "hearing",
    "text": "x",
    "authority": "x",
    "proceeding": "x",
    "facts": "x",
    "items": request().items,
    "persons": request().persons,
    "purpose": "x",
    "cases": 1,
    "victims": 1,
    "children": "NO",
    "handling": request().handling,
    "topic": "COST",
    "grounds": ("N01",),
    "outcomes": ("DONE",),
}


def _without(act: Act, field: str) -> Act:
    empty: object = () if isinstance(getattr(act, field), tuple) else None
    return replace(act, **{field: empty})  # type: ignore[arg-type]  # the test's own keyword


def _saying(act: Act, field: str) -> Act:
    return replace(act, **{field: SAYS[field]})  # type: ignore[arg-type]  # the test's own keyword


@pytest.mark.parametrize(("code", "event"), ROWS)
def test_an_act_that_says_what_it_must_is_accepted(code: str, event: Event) -> None:
    """[P-1]"""
    check_says(EXAMPLES[code][event], PROFILES[code])


@pytest.mark.parametrize(("code", "event", "field"), MUST)
def test_an_act_that_leaves_out_what_it_must_say_is_refused(
    code: str, event: Event, field: str
) -> None:
    """[P-1] UNTOC art. 18(15): the message names the field and the rule of law."""
    why = PROFILES[code].must[event][field]

    with pytest.raises(MalformedError) as caught:
        check_says(_without(EXAMPLES[code][event], field), PROFILES[code])

    assert str(caught.value) == f"{event.value} does not say {field}: {why} [P-1]"


@pytest.mark.parametrize(("code", "event"), ROWS)
def test_an_act_says_nothing_where_it_has_no_meaning(code: str, event: Event) -> None:
    """[P-1] A ground in a request, or a topic in an answer, would mean two things to two people."""
    profile, act = PROFILES[code], EXAMPLES[code][event]
    allowed = {*profile.must[event], *profile.may[event]}
    complete = replace(act, urgency_reason="LIFE" if "urgency_reason" in allowed else None)

    for field in SAYS:
        said = _saying(complete, field)
        if field == "due_on" and field in allowed:
            said = _saying(said, "due_reason")
        if field in allowed:
            check_says(said, profile)
        else:
            with pytest.raises(
                MalformedError,
                match=rf"{event.value} says {field}, which has no meaning there \[P-1\]",
            ):
                check_says(said, profile)


def test_a_blank_summary_of_facts_is_none() -> None:
    """[P-1]"""
    with pytest.raises(MalformedError, match=r"request does not say facts: .* \[P-1\]"):
        check_says(replace(request(), facts=" \n"), PROFILES["untoc18"])


@pytest.mark.parametrize(("act", "code"), [(request(), "lead"), (lead(), "untoc18")])
def test_an_event_that_the_procedure_does_not_have_is_refused(act: Act, code: str) -> None:
    """[P-1]"""
    with pytest.raises(
        MalformedError, match=rf"a {PROFILES[code].title} has no {act.event.value} \[P-1\]"
    ):
        check_says(act, PROFILES[code])


@pytest.mark.parametrize("urgency", ["U1", "U2", "U3", "U4"])
def test_urgency_needs_a_reason(urgency: str) -> None:
    """[P-3]"""
    act = replace(request(), urgency=urgency, urgency_reason=None)

    with pytest.raises(MalformedError, match=r"urgency has no reason; .* \[P-3\]"):
        check_says(act, PROFILES["untoc18"])


def test_routine_needs_no_reason() -> None:
    """[P-3]"""
    check_says(replace(request(), urgency="U0", urgency_reason=None), PROFILES["untoc18"])


def test_a_wished_date_needs_a_reason() -> None:
    """[P-3] UNTOC art. 18(24)"""
    act = replace(request(), due_on="2026-03-01")

    with pytest.raises(MalformedError, match=r"wished date has no reason; .* \[P-3\]"):
        check_says(act, PROFILES["untoc18"])
    check_says(replace(act, due_reason="release of the suspect"), PROFILES["untoc18"])


def test_only_an_authority_of_justice_opens_a_formal_request() -> None:
    """[P-2] UNTOC art. 18(13)"""
    assert PROFILES["untoc18"].authorities == {
        Authority.PROSECUTION,
        Authority.CENTRAL_AUTHORITY,
        Authority.COURT,
    }
    assert PROFILES["lead"].authorities == frozenset(Authority) - {Authority.SECRETARIAT}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.code)
def test_a_profile_is_consistent(profile: Profile) -> None:
    """[P-1]"""
    assert PROFILES[profile.code] is profile
    assert profile.opens in profile.must
    assert profile.must.keys() == profile.may.keys()
    assert profile.signed <= profile.must.keys()
    assert set().union(*profile.must.values(), *profile.may.values()) <= set(SAYS)


def test_leads_are_sealed_to_lead_keys_and_requests_to_file_keys() -> None:
    """[X-7]"""
    assert (PROFILES["lead"].kind, PROFILES["untoc18"].kind) == (Kind.LEAD, Kind.FILE)
    assert PROFILES["lead"].signed == frozenset()
