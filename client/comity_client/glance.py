"""A look at what is kept, without keys and without the network.

Who wrote, when, in which exchange and which kind of act is known from the state file; what they say
stays sealed until somebody opens it with the passphrase.
"""

from dataclasses import dataclass

from comity_client.state import State
from comity_protocol.identifiers import DeskId, EnvelopeId, ExchangeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """One envelope of the inbox.

    Attributes:
        envelope: None when not even its core could be read.
        sealed_at: Sealed time, UTC seconds by the witnesses; None when it is not checked yet or its
            place in the log does not hold.
        refused: The rule that it breaks, or a code; None when nothing is wrong.
        text: What is wrong, in words.
    """

    counter: int
    leaf_index: int
    envelope: EnvelopeId | None
    sender: DeskId | None
    receiver: DeskId | None
    exchange: ExchangeId | None
    event: str | None
    sealed_at: int | None
    is_checked: bool
    refused: str | None
    text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One envelope of the outbox.

    Attributes:
        stage: ``queued``, ``accepted`` or ``rejected``.
        problem: The relay's code when it was rejected.
    """

    envelope: EnvelopeId
    receiver: DeskId
    exchange: ExchangeId
    event: str
    stage: str
    problem: str | None


def inbox(state: State, *, limit: int) -> tuple[Glance, ...]:
    """Give the newest envelopes of the inbox, own ones too, the newest first."""
    rows = state.connection.execute(
        "SELECT counter, leaf_index, envelope, sender, receiver, exchange, event, sealed_at,"
        " is_settled, refused, text FROM inbox ORDER BY counter DESC LIMIT ?",
        (limit,),
    )
    return tuple(
        Glance(
            counter=counter,
            leaf_index=leaf_index,
            envelope=envelope,
            sender=sender,
            receiver=receiver,
            exchange=exchange,
            event=event,
            sealed_at=sealed_at,
            is_checked=bool(is_settled),
            refused=refused,
            text=text,
        )
        for (
            counter,
            leaf_index,
            envelope,
            sender,
            receiver,
            exchange,
            event,
            sealed_at,
            is_settled,
            refused,
            text,
        ) in rows
    )


def outbox(state: State, *, limit: int) -> tuple[Waiting, ...]:
    """Give the newest envelopes that this device sent, the newest first."""
    rows = state.connection.execute(
        "SELECT envelope, receiver, exchange, event, stage, problem FROM outbox"
        " ORDER BY id DESC LIMIT ?",
        (limit,),
    )
    return tuple(
        Waiting(
            envelope=envelope,
            receiver=receiver,
            exchange=exchange,
            event=event,
            stage=stage,
            problem=problem,
        )
        for envelope, receiver, exchange, event, stage, problem in rows
    )


def envelopes(state: State, digits: str, *, limit: int) -> tuple[EnvelopeId, ...]:
    """Find envelopes, received or sent, whose id begins with these hexadecimal digits."""
    rows = state.connection.execute(
        "SELECT envelope FROM (SELECT envelope FROM inbox UNION SELECT envelope FROM outbox)"
        " WHERE envelope IS NOT NULL AND instr(lower(hex(envelope)), ?) = 1"
        " ORDER BY envelope LIMIT ?",
        (digits.lower(), limit),
    )
    return tuple(EnvelopeId(row[0]) for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptReceipt:
    """A receipt for an envelope that this desk sent, as it was received."""

    desk: DeskId
    leaf_index: int
    payload: bytes
    signature: bytes


def receipts(state: State, envelope: EnvelopeId) -> tuple[KeptReceipt, ...]:
    """Give the receipts that are kept for an envelope, by desk."""
    rows = state.connection.execute(
        "SELECT desk, leaf_index, payload, signature FROM stored WHERE envelope = ? ORDER BY desk",
        (envelope,),
    )
    return tuple(
        KeptReceipt(desk=desk, leaf_index=leaf_index, payload=payload, signature=signature)
        for desk, leaf_index, payload, signature in rows
    )
