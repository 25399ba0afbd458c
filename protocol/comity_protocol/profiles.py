"""Procedures as data: what each event must say, who may say it, and how it is sealed.

A new procedure is a new row here; the machine in ``exchange.py`` does not change. Fields are named
as in ``acts.Act``.

Rules:

* [P-1] An act says every field that its profile demands of its event, and none without meaning.
* [P-2] Only the profile's authority types may open an exchange under it or send a formal act.
* [P-3] Urgency above U0 and a wished date come with their reasons (UNTOC art. 18(24)).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from comity_protocol.acts import Act, Event
from comity_protocol.core import Kind
from comity_protocol.errors import MalformedError
from comity_protocol.statements import Authority

_ANYBODY: Final = frozenset(Authority) - {Authority.SECRETARIAT}
_REPLY: Final = frozenset({"reference", "language", "text", "handling"})
_COUNTS: Final = frozenset({"cases", "victims", "children"})
_URGENCY: Final = frozenset({"urgency", "urgency_reason", "due_on", "due_reason"})
_OPENING: Final = (_REPLY - {"text"}) | _COUNTS | _URGENCY | {"profile", "basis", "offences"}


@dataclass(frozen=True, slots=True)
class Profile:
    """One procedure.

    Attributes:
        code: Its stable code.
        title: What people call it, in English.
        anchor: The rule of law it follows.
        kind: The key that its acts are sealed to.
        authorities: Authority types that may open an exchange and send its formal acts.
        opens: The event that opens it.
        signed: Events that carry the composite signature of the officer's device.
        must: What each event must say: field -> why, with the rule that demands it.
        may: What each event may say besides.
        consults_before_refusal: Whether a refusal needs a consultation first.
    """

    code: str
    title: str
    anchor: str
    kind: Kind
    authorities: frozenset[Authority]
    opens: Event
    signed: frozenset[Event]
    must: Mapping[Event, Mapping[str, str]]
    may: Mapping[Event, frozenset[str]]
    consults_before_refusal: bool


_REPLIES_MUST: Final[Mapping[Event, Mapping[str, str]]] = {
    Event.ACKNOWLEDGE: {"authority": "which authority is competent"},
    Event.CONSULT: {"topic": "what to consult about", "text": "terms and conditions"},
    Event.ANSWER: {"text": "the answer"},
    Event.REFUSE: {
        "grounds": "the ground as a code",
        "text": "reasons, which are owed for any refusal (UNTOC art. 18(23))",
    },
    Event.CLOSE: {},
}
_REPLIES_MAY: Final[Mapping[Event, frozenset[str]]] = {
    Event.ACKNOWLEDGE: _REPLY,
    Event.CONSULT: _REPLY,
    Event.ANSWER: _REPLY | _COUNTS | {"outcomes"},
    Event.REFUSE: _REPLY,
    Event.CLOSE: _REPLY,
}

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        profile.code: profile
        for profile in (
            Profile(
                code="lead",
                title="informal lead",
                anchor="UNTOC art. 27(1), 18(4)",
                kind=Kind.LEAD,
                authorities=_ANYBODY,
                opens=Event.LEAD,
                signed=frozenset(),
                must={Event.LEAD: {"text": "what the lead is"}, **_REPLIES_MUST},
                may={Event.LEAD: _OPENING | {"items", "persons"}, **_REPLIES_MAY},
                consults_before_refusal=False,
            ),
            Profile(
                code="untoc18",
                title="mutual legal assistance",
                anchor="UNTOC art. 18",
                kind=Kind.FILE,
                authorities=frozenset(
                    {Authority.PROSECUTION, Authority.CENTRAL_AUTHORITY, Authority.COURT}
                ),
                opens=Event.REQUEST,
                signed=frozenset({Event.REQUEST, Event.ANSWER, Event.REFUSE}),
                must={
                    Event.REQUEST: {
                        "reference": "the own reference",
                        "language": "the language of the request (UNTOC art. 18(14))",
                        "basis": "the legal basis",
                        "offences": "the offence",
                        "urgency": "how urgent it is",
                        "authority": "the requesting authority (UNTOC art. 18(15)(a))",
                        "proceeding": "subject, nature and conducting authority (18(15)(b))",
                        "facts": "a summary of the facts (18(15)(c))",
                        "items": "the assistance sought (18(15)(d))",
                        "persons": "the persons, or one entry 'unknown' (18(15)(e))",
                        "purpose": "the purpose (18(15)(f))",
                        "handling": "what may be done with it (18(19))",
                    },
                    **_REPLIES_MUST,
                },
                may={Event.REQUEST: _OPENING | {"text"}, **_REPLIES_MAY},
                consults_before_refusal=True,
            ),
        )
    }
)
"""Every procedure by its code."""


def check_says(act: Act, profile: Profile) -> None:
    """Check that an act says what its profile demands, before signing and after opening.

    Raises:
        MalformedError: Something is missing, or stands where it has no meaning; the message says
            what and why.

    Source: PROTOCOL [P-1], [P-3].
    """
    event = act.event
    if event not in profile.must:
        raise MalformedError(f"a {profile.title} has no {event.value} [P-1]")
    must, may = profile.must[event], profile.may[event]
    for field, why in must.items():
        # SPEC [P-1]: an act says every field that its profile demands of its event.
        if not act.says(field):
            raise MalformedError(f"{event.value} does not say {field}: {why} [P-1]")
    for field in _ALL_FIELDS:
        if act.says(field) and field not in must and field not in may:
            raise MalformedError(f"{event.value} says {field}, which has no meaning there [P-1]")
    # SPEC [P-3]: urgency above U0 and a wished date come with their reasons.
    if (act.urgency or "U0") != "U0" and act.urgency_reason is None:
        raise MalformedError("urgency has no reason; choose why it is urgent [P-3]")
    if act.due_on is not None and act.due_reason is None:
        raise MalformedError(
            "wished date has no reason; a deadline counts only with one (UNTOC art. 18(24)) [P-3]"
        )


_ALL_FIELDS: Final = tuple(
    field
    for field in Act.__dataclass_fields__
    if field not in ("event", "exchange", "salt", "head")
)
