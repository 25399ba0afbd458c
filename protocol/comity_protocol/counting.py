"""What a secretariat can say, from audit records and witnessed times alone.

A pure fold in integers: the same facts, in whatever order they came, give the same rows and the
same digest on every machine. Unanswered exchanges stay in, cases and victims are never added up,
and times are those at which witnesses saw the log, not anybody's clock.

Of each exchange there is one row. Ready for print beside each other are its *response*, from
request to answer; its *pickup*, from request to the responder's first receipt, which a relay or a
poor line may delay; and its *handling*, from there to the answer. All run from proven to proven.

Rules:

* [N-1] Only steps that the exchange machine accepts count; refused ones are counted apart.
* [N-2] A time is the end of an act's bracket: when witnesses had it.
* [N-3] An exchange without an answer is listed as open, never left out.
* [N-4] An audit part that does not open counts against its sender and is listed.
* [N-5] A clock starts when the opening act is sealed, whatever stamps it has; by how much stamps
  date an answer before it was sealed is shown.
* [M-6] With fewer than three witnesses, or where one alone can move the time, nobody is ranked.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from comity_protocol.acts import Event
from comity_protocol.encoding import Value, serialize
from comity_protocol.exchange import Exchange, RefusedError, Step, apply
from comity_protocol.identifiers import DeskId, EnvelopeId, ExchangeId
from comity_protocol.keys import Context, digest
from comity_protocol.times import (
    Bracket,
    Outage,
    Verdict,
    bracket_of,
    is_ranked,
    judge,
    outage_seconds,
    outages,
)

Key = tuple[ExchangeId, DeskId, DeskId]
"""An exchange as auditors name it: its id and its two desks, ascending."""

Limits = Mapping[tuple[str, str], int]
"""Seconds within which an answer is due, by code of the profile and of the urgency."""


# --- What goes in -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """When things of the log happened, as witnesses saw it.

    Attributes:
        sealed: By leaf index, the sealed time of the first known witnessed checkpoint that covers
            it: of every act and receipt that is counted.
        seen: By leaf index, the sealed time of the checkpoint that the act names as `seen`; of an
            act that is not here the beginning is open.
        stamped: By leaf index, what ``stamps.stamped_at`` gives; only of acts that have stamps.
        published: Sealed times of all published checkpoints, in any order, for outages.
        size: Of the checkpoint as of which is counted; what stands above it is left out, so that
            whoever has more by now finds the same.
        as_of: Sealed time of that checkpoint.
        witnesses: How many the genesis has.
        least: How many of them it takes at least to move a time, as ``Quorum.movers`` says.
    """

    sealed: Mapping[int, int]
    seen: Mapping[int, int] = field(default_factory=dict)
    stamped: Mapping[int, int] = field(default_factory=dict)
    published: tuple[int, ...] = ()
    size: int
    as_of: int
    witnesses: int
    least: int

    def bracket(self, index: int) -> Bracket:
        """Date what stands at a leaf.

        Raises:
            KeyError: It is not known when the leaf was sealed; the caller forgot it.
        """
        return bracket_of(
            seen_at=self.seen.get(index),
            sealed_at=self.sealed[index],
            stamped_at=self.stamped.get(index),
        )

    def start(self, index: int) -> Bracket:
        """Date an opening act, from which a clock runs against the other desk.

        Stops: a desk that has its request stamped, keeps it for weeks, and so makes the other late.
        """
        # SPEC [N-5]: a clock starts when the opening act is sealed. Nobody can be expected to have
        # what is not in the log.
        return bracket_of(seen_at=self.seen.get(index), sealed_at=self.sealed[index])


@dataclass(frozen=True, slots=True)
class Delivery:
    """A desk's receipt for an envelope, checked by ``verify_receipt`` and ``check_confirms``.

    Attributes:
        index: Leaf index of the receipt.
    """

    index: int
    envelope: EnvelopeId
    desk: DeskId


class Fault(Enum):
    """Why an auditor cannot count an envelope."""

    UNOPENED = "unopened"
    """The auditor's wrap or the audit part does not open."""

    UNVERIFIED = "unverified"
    """It opens and is no audit record."""

    GONE = "gone"
    """The auditor's own copy was erased or has ended: listed, and counted against nobody."""


@dataclass(frozen=True, slots=True)
class Unaccounted:
    """An envelope in the log whose audit part says nothing; its core is verified.

    Attributes:
        index: Leaf index of the envelope.
        sender: The desk that it counts against, unless the copy is gone.
    """

    index: int
    envelope: EnvelopeId
    sender: DeskId
    fault: Fault


# --- What comes out ---------------------------------------------------------------------------


class Timeliness(Enum):
    """How an exchange stands against its limit."""

    IN_TIME = "in-time"
    LATE = "late"
    UNDETERMINED = "undetermined"
    OPEN_IN_TIME = "open-in-time"
    OPEN_LATE = "open-late"


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One exchange as a secretariat sees it; times are seconds since 1970 UTC.

    Attributes:
        initiator: Code of the initiating party.
        responder: Code of the responding party.
        urgency: As stated by the initiator; ``U0`` when not stated.
        opened: When it was opened: never by a stamp.
        acknowledged_at: When the acknowledgement was proven; None while there is none.
        delivered_at: When it was proven that the responder has the opening act: its first receipt
            or its first own act. None while neither is there.
        final: When it was answered or refused; None while it is open.
        final_event: The answer or the refusal; None while it is open.
        limit_seconds: Within which it is to be answered; None when nothing says so.
        timeliness: What follows from that; None without a limit.
        outage_seconds: Seconds without a witnessed checkpoint while it was open; they stop no
            clock.
        stamped_seconds: Seconds by which stamps, and not checkpoints, date the answer. Without an
            outage of the relay they say that it was kept after it had been stamped.
        refused_steps: Acts that the machine refused.
    """

    exchange: ExchangeId
    profile: str
    initiator: str
    responder: str
    initiator_desk: DeskId
    responder_desk: DeskId
    urgency: str
    state: str
    opened: Bracket
    acknowledged_at: int | None
    delivered_at: int | None
    final: Bracket | None
    final_event: Event | None
    limit_seconds: int | None
    timeliness: Timeliness | None
    outage_seconds: int
    stamped_seconds: int
    refused_steps: int

    @property
    def opened_at(self) -> int:
        """When the opening act was sealed; every figure of the row runs from here."""
        return self.opened.not_after

    @property
    def final_at(self) -> int | None:
        """When the answer or refusal was proven; None while the exchange is open."""
        return None if self.final is None else self.final.not_after

    @property
    def response_seconds(self) -> int | None:
        """Seconds from request to answer or refusal; None while open."""
        return _between(self.opened_at, self.final_at)

    @property
    def response_seconds_min(self) -> int | None:
        """The same if the answer was written right after what its author had seen."""
        return None if self.final is None else _between(self.opened_at, self.final.not_before)

    @property
    def acknowledge_seconds(self) -> int | None:
        """Seconds from request to acknowledgement; None while there is none."""
        return _between(self.opened_at, self.acknowledged_at)

    @property
    def pickup_seconds(self) -> int | None:
        """Seconds from request to delivery; None while it is not proven to be delivered."""
        return _between(self.opened_at, self.delivered_at)

    @property
    def handling_seconds(self) -> int | None:
        """Seconds from delivery to answer or refusal; None while either is missing."""
        return None if self.delivered_at is None else _between(self.delivered_at, self.final_at)

    def to_value(self) -> list[Value]:
        """Give the row that the digest covers."""
        return [
            self.exchange,
            self.profile,
            [self.initiator, self.initiator_desk],
            [self.responder, self.responder_desk],
            self.urgency,
            self.state,
            _pair(self.opened),
            self.acknowledged_at,
            self.delivered_at,
            None if self.final is None else _pair(self.final),
            None if self.final_event is None else self.final_event.value,
            self.limit_seconds,
            None if self.timeliness is None else self.timeliness.value,
            self.outage_seconds,
            self.stamped_seconds,
            self.refused_steps,
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How many exchanges; of each kind. ``exchanges`` = answered + refused + still open.

    Attributes:
        timeliness: Exchanges by how they stand against their limit; those without one nowhere.
        refused_steps: Acts that the machine refused; not exchanges.
    """

    exchanges: int
    answered: int
    refused: int
    open: int
    timeliness: Mapping[Timeliness, int]
    refused_steps: int

    def to_value(self) -> list[Value]:
        """Give the line that the digest covers."""
        each: list[Value] = [self.timeliness[kind] for kind in Timeliness]
        return [self.exchanges, self.answered, self.refused, self.open, each, self.refused_steps]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Everything that was counted.

    Attributes:
        size: Of the checkpoint as of which was counted.
        as_of: Its sealed time.
        witnesses: How many the genesis has.
        least: How many of them it takes at least to move a time.
        rows: One for each exchange, ascending by exchange id and desks.
        unaccounted: What could not be counted, ascending by leaf index.
        charged: How many of those count against each party, ascending by code.
        outages: Times without a witnessed checkpoint, ascending.
    """

    size: int
    as_of: int
    witnesses: int
    least: int
    rows: tuple[Response, ...]
    unaccounted: tuple[Unaccounted, ...]
    charged: tuple[tuple[str, int], ...]
    outages: tuple[Outage, ...]

    @property
    def is_ranked(self) -> bool:
        """Whether parties may be ranked against each other by these times."""
        # SPEC [M-6]: with fewer than three witnesses, or where one can move the time, nobody is.
        return is_ranked(witnesses=self.witnesses, least=self.least)

    @property
    def totals(self) -> Totals:
        """The totals of all rows."""
        return total(self.rows)

    def serialize(self) -> bytes:
        """Give the bytes that the digest covers."""
        return serialize(
            {
                "v": 1,
                "t": "statistics",
                "size": self.size,
                "as_of": self.as_of,
                "witnesses": self.witnesses,
                "least": self.least,
                "rows": [row.to_value() for row in self.rows],
                "totals": self.totals.to_value(),
                "unaccounted": [
                    [one.index, one.envelope, one.sender, one.fault.value]
                    for one in self.unaccounted
                ],
                "charged": [[party, count] for party, count in self.charged],
                "outages": [[one.start, one.end] for one in self.outages],
            }
        )


# --- The fold ---------------------------------------------------------------------------------


def fold(steps: Iterable[Step]) -> tuple[dict[Key, Exchange], dict[Key, int]]:
    """Fold audit steps into exchanges.

    Args:
        steps: Verified steps of any exchanges, in any order; the same one twice counts once.

    Returns:
        The exchanges, and how many steps of each were refused. Steps before a legal opening act
        count as refused under their key too.

    Raises:
        ValueError: Two different steps claim one leaf.
    """
    exchanges: dict[Key, Exchange] = {}
    refused: dict[Key, int] = {}
    for step in _in_leaf_order(steps):
        first, second = sorted((step.sender, step.receiver))
        key = (step.record.exchange, first, second)
        try:
            exchanges[key] = apply(exchanges.get(key), step)
        except RefusedError:
            # SPEC [N-1]: only steps that the exchange machine accepts count.
            refused[key] = refused.get(key, 0) + 1
    return exchanges, refused


def count(
    steps: Iterable[Step],
    *,
    clock: Clock,
    party: Mapping[DeskId, str],
    deliveries: Iterable[Delivery] = (),
    unaccounted: Iterable[Unaccounted] = (),
    limits: Limits | None = None,
) -> Statistics:
    """Count everything that an auditor was given, as of one checkpoint.

    Nothing depends on the order in which it was given, or on what came after that checkpoint. The
    caller leaves out stamps of notices that stand above it.

    Args:
        steps: Verified steps; the auditor opened their audit parts.
        clock: Dates every step and delivery.
        party: Code of each desk's party.
        deliveries: Checked receipts.
        unaccounted: Envelopes whose audit part did not open or did not verify.
        limits: Within how many seconds an answer is due; None sets no limit.

    Raises:
        ValueError: Two different steps claim one leaf, or one is counted and unaccounted.
        KeyError: The clock lacks a leaf, or the parties a desk.

    Source: PROTOCOL [N-1], [N-2], [N-3], [N-4].
    """
    ordered = _in_leaf_order(step for step in steps if step.index < clock.size)
    missing = tuple(
        sorted({one for one in unaccounted if one.index < clock.size}, key=lambda one: one.index)
    )
    if counted_twice := {one.index for one in missing} & {step.index for step in ordered}:
        raise ValueError(f"leaf {min(counted_twice)} is counted and unaccounted for")
    exchanges, refused = fold(ordered)
    dark = outages(at for at in clock.published if at <= clock.as_of)
    received = _first_receipts(deliveries, clock)
    # SPEC [N-4]: what does not open counts against its sender and is listed.
    charged = Counter(party[one.sender] for one in missing if one.fault is not Fault.GONE)
    return Statistics(
        size=clock.size,
        as_of=clock.as_of,
        witnesses=clock.witnesses,
        least=clock.least,
        rows=tuple(
            _row(exchange, refused.get(key, 0), clock, party, received, limits or {}, dark)
            # SPEC [N-3]: an exchange without an answer is listed as open.
            for key, exchange in sorted(exchanges.items(), key=lambda item: item[0])
        ),
        unaccounted=missing,
        charged=tuple(sorted(charged.items())),
        outages=dark,
    )


def total(rows: Iterable[Response]) -> Totals:
    """Add up rows: all of them, or those of one pair of States, one profile, one urgency."""
    rows = tuple(rows)
    events = Counter(row.final_event for row in rows)
    standing = Counter(row.timeliness for row in rows)
    return Totals(
        exchanges=len(rows),
        answered=events[Event.ANSWER],
        refused=events[Event.REFUSE],
        open=events[None],
        timeliness={kind: standing[kind] for kind in Timeliness},
        refused_steps=sum(row.refused_steps for row in rows),
    )


def digest_of(statistics: Statistics) -> bytes:
    """Give the 32 bytes that two who counted the same log can compare."""
    return digest(Context.STATISTICS, statistics.serialize())


def _in_leaf_order(steps: Iterable[Step]) -> tuple[Step, ...]:
    by_index: dict[int, Step] = {}
    for step in steps:
        if by_index.setdefault(step.index, step) != step:
            raise ValueError(f"two steps claim leaf {step.index}")
    return tuple(by_index[index] for index in sorted(by_index))


def _first_receipts(
    deliveries: Iterable[Delivery], clock: Clock
) -> dict[tuple[EnvelopeId, DeskId], int]:
    first: dict[tuple[EnvelopeId, DeskId], int] = {}
    for one in deliveries:
        if one.index >= clock.size:
            continue
        at, key = clock.bracket(one.index).not_after, (one.envelope, one.desk)
        first[key] = min(at, first.get(key, at))
    return first


def _row(
    exchange: Exchange,
    refused_steps: int,
    clock: Clock,
    party: Mapping[DeskId, str],
    received: Mapping[tuple[EnvelopeId, DeskId], int],
    limits: Limits,
    dark: tuple[Outage, ...],
) -> Response:
    # SPEC [N-2]: a time is the end of an act's bracket.
    opening = exchange.steps[0]
    opened = clock.start(opening.index)
    final = None if exchange.final_index is None else clock.bracket(exchange.final_index)
    urgency = opening.record.urgency or "U0"
    limit = limits.get((exchange.profile.code, urgency))
    return Response(
        exchange=exchange.id,
        profile=exchange.profile.code,
        initiator=party[exchange.initiator],
        responder=party[exchange.responder],
        initiator_desk=exchange.initiator,
        responder_desk=exchange.responder,
        urgency=urgency,
        state=exchange.state.value,
        opened=opened,
        acknowledged_at=(
            None
            if exchange.acknowledged_index is None
            else clock.bracket(exchange.acknowledged_index).not_after
        ),
        delivered_at=_delivered_at(exchange, clock, received),
        final=final,
        final_event=next(
            (one.record.event for one in exchange.steps if one.index == exchange.final_index), None
        ),
        limit_seconds=limit,
        timeliness=None if limit is None else _stand(opened, final, limit, clock.as_of),
        outage_seconds=outage_seconds(
            dark, opened.not_after, clock.as_of if final is None else final.not_after
        ),
        # SPEC [N-5]: by how much stamps date an answer before it was sealed is shown.
        stamped_seconds=(
            0
            if exchange.final_index is None or final is None
            else clock.sealed[exchange.final_index] - final.not_after
        ),
        refused_steps=refused_steps,
    )


def _delivered_at(
    exchange: Exchange, clock: Clock, received: Mapping[tuple[EnvelopeId, DeskId], int]
) -> int | None:
    # SPEC [M-2]: the earliest proof counts. Who has replied has received, so that holding a
    # receipt back moves nothing.
    proofs = [
        clock.bracket(step.index).not_after
        for step in exchange.steps
        if step.sender == exchange.responder
    ]
    receipt = received.get((exchange.steps[0].envelope, exchange.responder))
    return min(proofs if receipt is None else [*proofs, receipt], default=None)


def _stand(opened: Bracket, final: Bracket | None, limit: int, as_of: int) -> Timeliness:
    if final is None:
        is_late = as_of - opened.not_after > limit
        return Timeliness.OPEN_LATE if is_late else Timeliness.OPEN_IN_TIME
    return _OF_VERDICT[judge(opened, final, limit)]


_OF_VERDICT: Mapping[Verdict, Timeliness] = {
    Verdict.IN_TIME: Timeliness.IN_TIME,
    Verdict.LATE: Timeliness.LATE,
    Verdict.UNDETERMINED: Timeliness.UNDETERMINED,
}


def _between(start: int, end: int | None) -> int | None:
    # Clocks of witnesses differ by seconds, so what follows at once may be dated a little before.
    return None if end is None else max(0, end - start)


def _pair(bracket: Bracket) -> list[Value]:
    return [bracket.not_before, bracket.not_after]
