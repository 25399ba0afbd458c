"""Envelopes as a desk shows them: how far each has come, its line of the inbox, its content.

An envelope's stages are said only when they are proven:

    queued        sealed, on this machine's disk
    accepted      the relay's signed promise is here
    sealed        in the log under a checkpoint with its witness quorum, verified here
    stored        the other desk's device signed that it holds and can open it
    acknowledged  the other desk acknowledged the exchange that it opened
    answered      the exchange that it opened has an answer or a refusal
    rejected      the relay refused it for good; nothing was sent
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from comity_client.ledger import Fold
from comity_client.state import State
from comity_protocol.acts import Act, Event
from comity_protocol.audit import AuditRecord
from comity_protocol.core import Core, Kind
from comity_protocol.errors import ComityError, VerificationError
from comity_protocol.identifiers import DeskId, EnvelopeId, ExchangeId, short


class UnknownEnvelopeError(ComityError):
    """An envelope that this device does not have."""

    code = "unknown-envelope"
    remedy = "fetch the mailbox, and check the number of the envelope"


class Stage(Enum):
    """How far an envelope is proven to have come."""

    QUEUED = "queued"
    ACCEPTED = "accepted"
    SEALED = "sealed"
    STORED = "stored"
    ACKNOWLEDGED = "acknowledged"
    ANSWERED = "answered"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where one envelope is.

    Attributes:
        envelope: Its id now; another than asked for when it was sealed again.
        leaf_index: Its place in the log; None before it is proven.
        sealed_at: Sealed time of the checkpoint by which it was proven, UTC seconds.
        problem: The relay's code of a rejection, or the rule that the act breaks.
        is_broken: Whether the relay's promise passed without the envelope in the log.
    """

    envelope: EnvelopeId
    stage: Stage
    leaf_index: int | None
    sealed_at: int | None
    problem: str | None
    is_broken: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the inbox: what is known of an envelope without opening it.

    Attributes:
        envelope: None when its core was not by whom it claims.
        sender: None likewise; so are all below.
        refused: The rule that it breaks; None when it holds.
        text: What is wrong, in a sentence; None when nothing is.
    """

    counter: int
    leaf_index: int
    envelope: EnvelopeId | None
    sender: DeskId | None
    receiver: DeskId | None
    kind: Kind | None
    exchange: ExchangeId | None
    event: Event | None
    sealed_at: int | None
    refused: str | None
    text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An opened envelope. Plaintext: never write it to the disk.

    Attributes:
        act: None for an auditor, who is given the record only.
        act_bytes: The act as it was signed; empty for an auditor.
        leaf_index: None while it is queued.
        is_signed: Whether a composite signature stands under it, which was verified.
    """

    core: Core
    act: Act | None
    act_bytes: bytes
    record: AuditRecord
    leaf_index: int | None
    is_signed: bool


def read_lines(state: State, folded: Callable[[], Fold]) -> tuple[Line, ...]:
    """Give every envelope that was checked, own ones included, by counter; opens nothing.

    Args:
        state: The device's memory.
        folded: Gives the exchanges; asked only when there is an envelope.
    """
    rows = state.connection.execute(
        "SELECT counter, leaf_index, envelope, sender, receiver, kind, exchange, event,"
        " sealed_at, refused, text FROM inbox WHERE is_settled = 1 ORDER BY counter"
    ).fetchall()
    fold = folded() if rows else Fold({}, {}, {})
    return tuple(_line(row, fold) for row in rows)


def read_status(state: State, envelope: EnvelopeId, folded: Callable[[], Fold]) -> Status:
    """Say how far an own envelope is proven to have come.

    Args:
        state: The device's memory.
        envelope: Its id now.
        folded: Gives the exchanges; asked only when the envelope is proven to be in the log.

    Raises:
        UnknownEnvelopeError: This device has it neither proven nor queued.
    """
    placed = state.connection.execute(
        "SELECT leaf_index, sealed_at, refused FROM inbox WHERE envelope = ?"
        " AND sealed_at IS NOT NULL ORDER BY counter LIMIT 1",
        (envelope,),
    ).fetchone()
    if placed is None:
        return _unsealed(state, envelope)
    leaf_index, sealed_at, refused = placed
    fold = folded()
    # SPEC [B-5]: *sealed* is said only of what a checkpoint with its quorum covers.
    return Status(
        envelope=envelope,
        stage=_stage(state, envelope, fold),
        leaf_index=leaf_index,
        sealed_at=sealed_at,
        problem=refused or fold.rules.get(envelope),
        is_broken=False,
    )


def _unsealed(state: State, envelope: EnvelopeId) -> Status:
    row = state.connection.execute(
        "SELECT stage, problem, due_at FROM outbox WHERE envelope = ?", (envelope,)
    ).fetchone()
    if row is None:
        raise UnknownEnvelopeError(f"envelope {short(envelope)} is not on this device")
    stage, problem, due_at = row
    read_to = state.mark("read_to")
    return Status(
        envelope=envelope,
        stage=Stage(stage),
        leaf_index=None,
        sealed_at=None,
        problem=problem,
        is_broken=due_at is not None and read_to is not None and due_at < read_to,
    )


def _stage(state: State, envelope: EnvelopeId, folded: Fold) -> Stage:
    for exchange in folded.exchanges.values():
        if exchange.steps[0].envelope == envelope:
            if exchange.final_index is not None:
                return Stage.ANSWERED
            if exchange.acknowledged_index is not None:
                return Stage.ACKNOWLEDGED
    stored = state.connection.execute(
        "SELECT 1 FROM stored JOIN inbox USING (envelope) WHERE stored.envelope = ?"
        " AND stored.desk = inbox.receiver LIMIT 1",
        (envelope,),
    ).fetchone()
    return Stage.STORED if stored else Stage.SEALED


def _line(row: tuple[object, ...], folded: Fold) -> Line:
    counter, index, envelope, sender, receiver, kind, exchange, event, sealed_at, rule, text = row
    if not isinstance(counter, int) or not isinstance(index, int):
        raise VerificationError("inbox holds a line without counter")
    id_ = EnvelopeId(envelope) if isinstance(envelope, bytes) else None
    return Line(
        counter=counter,
        leaf_index=index,
        envelope=id_,
        sender=DeskId(sender) if isinstance(sender, bytes) else None,
        receiver=DeskId(receiver) if isinstance(receiver, bytes) else None,
        kind=Kind(kind) if isinstance(kind, int) else None,
        exchange=ExchangeId(exchange) if isinstance(exchange, bytes) else None,
        event=Event(event) if event is not None else None,
        sealed_at=sealed_at if isinstance(sealed_at, int) else None,
        refused=rule if isinstance(rule, str) else folded.rules.get(id_ or EnvelopeId(b"")),
        text=text if isinstance(text, str) else folded.refused.get(id_ or EnvelopeId(b"")),
    )
