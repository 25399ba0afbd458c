"""The exchange: one state machine for every procedure, folded in leaf order. Read this first.

``apply`` is pure: it takes an exchange and one step and gives the exchange after it, or refuses. A
step is what parties *and* auditors know, the audit record and the envelope's core, so both compute
the same state. A refused act stays in the log, is shown with the rule that it breaks, and changes
neither state nor clock.

Rules:

* [X-1] An exchange begins with its profile's opening event, without a head.
* [X-2] Acts are folded in leaf order.
* [X-3] Only the two desks of the exchange act in it, each in its own role.
* [X-4] An act is legal only where the table has a row for it.
* [X-5] An act names as head an act of this exchange that stands before it.
* [X-6] An exchange is opened, and its formal acts are sent, by authorities that its profile admits.
* [X-7] Acts are sealed to the key kind of their profile.
* [X-8] Where the profile says so, a refusal follows the responder's consultation about it
  (UNTOC art. 18(26)).
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from comity_protocol.acts import Event
from comity_protocol.audit import AuditRecord
from comity_protocol.core import Kind
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import DeskId, EnvelopeId, ExchangeId
from comity_protocol.profiles import PROFILES, Profile
from comity_protocol.statements import Authority


class State(Enum):
    """Where an exchange stands."""

    SUBMITTED = "submitted"
    ACKNOWLEDGED = "acknowledged"
    CONSULTING = "consulting"
    ANSWERED = "answered"
    REFUSED = "refused"
    CLOSED = "closed"


class By(Enum):
    """Which side an event belongs to."""

    INITIATOR = "initiator"
    RESPONDER = "responder"
    EITHER = "either"


_OPEN: Final = frozenset({State.SUBMITTED, State.ACKNOWLEDGED, State.CONSULTING})
_FINAL: Final = frozenset({State.ANSWERED, State.REFUSED})


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: in these states this event, by this side, leads there.

    Attributes:
        sources: States in which the event is legal; empty for the opening event.
        target: State after it; None when it changes none.
    """

    event: Event
    by: By
    sources: frozenset[State]
    target: State | None


TABLE: Final = (
    # event            by             from                                  to
    Row(Event.LEAD, By.INITIATOR, frozenset(), State.SUBMITTED),
    Row(Event.REQUEST, By.INITIATOR, frozenset(), State.SUBMITTED),
    Row(Event.LEAD, By.EITHER, _OPEN | _FINAL, None),
    Row(Event.ACKNOWLEDGE, By.RESPONDER, frozenset({State.SUBMITTED}), State.ACKNOWLEDGED),
    Row(Event.CONSULT, By.RESPONDER, frozenset({State.ACKNOWLEDGED}), State.CONSULTING),
    Row(Event.CONSULT, By.EITHER, frozenset({State.CONSULTING}), None),
    Row(Event.ANSWER, By.RESPONDER, _OPEN, State.ANSWERED),
    Row(Event.REFUSE, By.RESPONDER, _OPEN, State.REFUSED),
    Row(Event.CLOSE, By.INITIATOR, _FINAL, State.CLOSED),
)
"""Every legal step. What is not here is refused."""


class RefusedError(ComityError):
    """An act that is illegal where it stands. It has no effect and stays visible.

    Attributes:
        rule: The id of the rule that it breaks.
    """

    code = "act-refused"
    remedy = "synchronise, look at the exchange as it stands now, and act on that"

    def __init__(self, rule: str, message: str) -> None:
        """Keep the rule beside the message."""
        super().__init__(f"{message} [{rule}]")
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Step:
    """One act as parties and auditors alike see it.

    Attributes:
        index: Leaf index of its envelope.
        envelope: Id of its envelope.
        sender: Desk that sent it.
        receiver: The other desk.
        authority: Authority type of the sending desk.
        kind: Key kind of the envelope.
        record: The audit record.
    """

    index: int
    envelope: EnvelopeId
    sender: DeskId
    receiver: DeskId
    authority: Authority
    kind: Kind
    record: AuditRecord


@dataclass(frozen=True, slots=True)
class Exchange:
    """A thread between an initiator and a responder, after a prefix of the log.

    Attributes:
        steps: The legal steps in leaf order, the opening one first.
        final_index: Leaf index of the answer or refusal; None while there is none.
    """

    id: ExchangeId
    profile: Profile
    initiator: DeskId
    responder: DeskId
    state: State
    steps: tuple[Step, ...]
    acknowledged_index: int | None = None
    final_index: int | None = None

    @property
    def opened_index(self) -> int:
        """Leaf index of the opening act."""
        return self.steps[0].index

    @property
    def head(self) -> EnvelopeId:
        """The newest legal act, which the next one names."""
        return self.steps[-1].envelope


def apply(exchange: Exchange | None, step: Step) -> Exchange:
    """Fold one step into an exchange.

    Args:
        exchange: The exchange before; None when the step opens it.
        step: The step; its envelope is verified and sealed in the log.

    Raises:
        RefusedError: The act is illegal here; ``rule`` says why.
    """
    if exchange is None:
        return _open(step)
    # SPEC: acts are folded in leaf order.
    if step.index <= exchange.steps[-1].index:
        raise RefusedError("X-2", f"act at leaf {step.index} comes after a later one")
    if step.record.exchange != exchange.id:
        raise RefusedError("X-5", "act is of another exchange")
    side = _side(exchange, step)
    row = _find_row(exchange.state, step.record.event, side, exchange.profile)
    # SPEC: an act names as head an act of this exchange that stands before it.
    if step.record.head not in {past.envelope for past in exchange.steps}:
        raise RefusedError("X-5", "act does not name an earlier act of its exchange")
    # SPEC: acts are sealed to the key kind of their profile.
    if step.kind is not exchange.profile.kind:
        raise RefusedError("X-7", "act is sealed to the wrong kind of key")
    if step.record.profile is not None:
        raise RefusedError("X-1", "a later act names a procedure")
    _check_authority(exchange.profile, step)
    _check_consulted(exchange, step.record.event)
    return _advance(exchange, step, row)


def legal_events(exchange: Exchange, desk: DeskId) -> frozenset[Event]:
    """Give the events that a desk may send next: none when it is no party of the exchange."""
    sides = {exchange.initiator: By.INITIATOR, exchange.responder: By.RESPONDER}
    return frozenset(
        row.event
        for row in TABLE
        if exchange.state in row.sources
        and desk in sides
        and row.by in (sides[desk], By.EITHER)
        and row.event in exchange.profile.must
        and (row.event is not Event.REFUSE or _has_consulted(exchange))
    )


def _open(step: Step) -> Exchange:
    record = step.record
    # SPEC: an exchange begins with its profile's opening event, without a head.
    profile = PROFILES.get(record.profile or "")
    if profile is None or record.event is not profile.opens or record.head is not None:
        raise RefusedError("X-1", "exchange does not begin with an opening act")
    # SPEC [X-6] [P-2]: opened only by an authority that the profile admits.
    if step.authority not in profile.authorities:
        raise RefusedError("X-6", f"a {step.authority.value} desk may not open a {profile.title}")
    if step.kind is not profile.kind:
        raise RefusedError("X-7", "act is sealed to the wrong kind of key")
    return Exchange(
        id=record.exchange,
        profile=profile,
        initiator=step.sender,
        responder=step.receiver,
        state=State.SUBMITTED,
        steps=(step,),
    )


def _side(exchange: Exchange, step: Step) -> By:
    # SPEC: only the two desks of the exchange act in it, each in its own role.
    if (step.sender, step.receiver) == (exchange.initiator, exchange.responder):
        return By.INITIATOR
    if (step.sender, step.receiver) == (exchange.responder, exchange.initiator):
        return By.RESPONDER
    raise RefusedError("X-3", "act is not between the two desks of its exchange")


def _find_row(state: State, event: Event, side: By, profile: Profile) -> Row:
    # SPEC: an act is legal only where the table has a row for it.
    for row in TABLE:
        if (
            row.event is event
            and state in row.sources
            and row.by in (side, By.EITHER)
            and event in profile.must
        ):
            return row
    raise RefusedError(
        "X-4", f"{event.value} by the {side.value} is not possible while {state.value}"
    )


def _check_authority(profile: Profile, step: Step) -> None:
    # SPEC: formal acts are sent by authorities that the profile admits.
    event = step.record.event
    if event in profile.signed and step.authority not in profile.authorities:
        raise RefusedError(
            "X-6", f"a {step.authority.value} desk may not {event.value} a {profile.title}"
        )


def _check_consulted(exchange: Exchange, event: Event) -> None:
    # SPEC: where the profile says so, a refusal follows a consultation about it.
    if event is Event.REFUSE and not _has_consulted(exchange):
        raise RefusedError("X-8", "refusal without the consultation that is owed before it")


def _has_consulted(exchange: Exchange) -> bool:
    return not exchange.profile.consults_before_refusal or any(
        step.record.event is Event.CONSULT
        and step.record.topic == "REFUSE"
        and step.sender == exchange.responder
        for step in exchange.steps
    )


def _advance(exchange: Exchange, step: Step, row: Row) -> Exchange:
    state = row.target or exchange.state
    return replace(
        exchange,
        state=state,
        steps=(*exchange.steps, step),
        acknowledged_index=(
            step.index if row.target is State.ACKNOWLEDGED else exchange.acknowledged_index
        ),
        final_index=step.index if row.target in _FINAL else exchange.final_index,
    )
