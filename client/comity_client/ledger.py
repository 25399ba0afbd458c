"""Exchanges as this desk sees them: stored acts folded in leaf order, queued ones behind.

Nothing is cached: the fold is over a few columns that an auditor sees anyway, so it is always what
``comity_protocol.exchange`` says of what is stored, and 10,000 acts take a moment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from comity_client.state import State
from comity_protocol.acts import Event
from comity_protocol.audit import AuditRecord
from comity_protocol.core import Kind
from comity_protocol.directory import Directory
from comity_protocol.errors import ComityError
from comity_protocol.exchange import Exchange, RefusedError, Step, apply
from comity_protocol.identifiers import DeskId, EnvelopeId, ExchangeId, short
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.profiles import PROFILES, Profile

_COLUMNS: Final = "envelope, sender, receiver, kind, exchange, event, head, profile, topic"
_QUEUED_FROM: Final = SIZE_MAX // 2
"""Leaf indexes of acts that are not in the log yet: after everything that is."""


class UnknownExchangeError(ComityError):
    """An exchange that this desk does not have."""

    code = "unknown-exchange"
    remedy = "fetch the mailbox, and check the number of the exchange"


@dataclass(frozen=True, slots=True)
class Fold:
    """What comes of folding.

    Attributes:
        exchanges: By id, in the order in which they were opened.
        refused: What is wrong with an act that is illegal where it stands, by envelope.
        rules: The rule that it breaks, by envelope.
    """

    exchanges: Mapping[ExchangeId, Exchange]
    refused: Mapping[EnvelopeId, str]
    rules: Mapping[EnvelopeId, str]


def fold(steps: Sequence[Step]) -> Fold:
    """Fold steps in leaf order; an illegal one changes nothing."""
    exchanges: dict[ExchangeId, Exchange] = {}
    refused: dict[EnvelopeId, str] = {}
    rules: dict[EnvelopeId, str] = {}
    for step in steps:
        id_ = step.record.exchange
        try:
            exchanges[id_] = apply(exchanges.get(id_), step)
        except RefusedError as error:
            refused[step.envelope], rules[step.envelope] = str(error), error.rule
    return Fold(exchanges, refused, rules)


def stored_steps(
    state: State, directory: Directory, exchange: ExchangeId | None = None
) -> list[Step]:
    """Give the steps that are proven to be in the log, in leaf order."""
    rows = state.connection.execute(
        f"SELECT leaf_index, {_COLUMNS} FROM inbox"  # noqa: S608  # constants only
        " WHERE is_settled = 1 AND refused IS NULL AND (?1 IS NULL OR exchange = ?1)"
        " ORDER BY leaf_index",
        (exchange,),
    )
    return [_step(row, directory) for row in rows]


def queued_steps(
    state: State, directory: Directory, own: DeskId, exchange: ExchangeId
) -> list[Step]:
    """Give the own steps that are not proven to be in the log, in the order of writing."""
    rows = state.connection.execute(
        "SELECT id + ?, envelope, ?, receiver, kind, exchange, event, head, profile, topic"
        " FROM outbox WHERE stage <> 'rejected' AND exchange = ? AND envelope NOT IN"
        " (SELECT envelope FROM inbox WHERE is_settled = 1 AND sealed_at IS NOT NULL)"
        " ORDER BY id",
        (_QUEUED_FROM, own, exchange),
    )
    return [_step(row, directory) for row in rows]


def find_profile(state: State, exchange: ExchangeId) -> Profile | None:
    """Give the procedure of an exchange, from the act that opened it or is queued to."""
    row = state.connection.execute(
        "SELECT profile FROM (SELECT leaf_index AS place, profile FROM inbox WHERE exchange = ?1"
        " AND profile IS NOT NULL AND refused IS NULL AND is_settled = 1"
        " UNION ALL SELECT ?2 + id, profile FROM outbox WHERE exchange = ?1"
        " AND profile IS NOT NULL AND stage <> 'rejected') ORDER BY place LIMIT 1",
        (exchange, _QUEUED_FROM),
    ).fetchone()
    return None if row is None else PROFILES.get(row[0])


def require(exchanges: Mapping[ExchangeId, Exchange], id_: ExchangeId) -> Exchange:
    """Give an exchange.

    Raises:
        UnknownExchangeError: There is none of this id.
    """
    if id_ not in exchanges:
        raise UnknownExchangeError(f"exchange {short(id_)} is not known to this desk")
    return exchanges[id_]


def _step(row: tuple[object, ...], directory: Directory) -> Step:
    index, envelope, sender, receiver, kind, exchange, event, head, profile, topic = row
    assert isinstance(index, int) and isinstance(sender, bytes)  # noqa: S101, PT018  # the schema
    assert isinstance(kind, int) and isinstance(exchange, bytes)  # noqa: S101, PT018
    assert isinstance(envelope, bytes) and isinstance(receiver, bytes)  # noqa: S101, PT018
    return Step(
        index=index,
        envelope=EnvelopeId(envelope),
        sender=DeskId(sender),
        receiver=DeskId(receiver),
        authority=directory.desk(DeskId(sender)).authority,
        kind=Kind(kind),
        record=AuditRecord(
            event=Event(event),
            exchange=ExchangeId(exchange),
            head=EnvelopeId(head) if isinstance(head, bytes) else None,
            profile=profile if isinstance(profile, str) else None,
            topic=topic if isinstance(topic, str) else None,
        ),
    )
