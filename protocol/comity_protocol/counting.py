"""What a secretariat can say: response times per exchange, from audit records alone.

A pure fold in integers: the same records give the same rows and the same digest on every machine.
Unanswered exchanges stay in, cases and victims are never added up, and times are those at which
witnesses saw the log, not anybody's clock.

Rules:

* [N-1] Only steps that the exchange machine accepts count; refused ones are counted apart.
* [N-2] A time is the sealed time of the first known checkpoint that includes the act.
* [N-3] An exchange without an answer is listed as open, never left out.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from comity_protocol.encoding import Value, serialize
from comity_protocol.exchange import Exchange, RefusedError, Step, apply
from comity_protocol.identifiers import DeskId, ExchangeId

Key = tuple[ExchangeId, DeskId, DeskId]
"""An exchange as auditors name it: its id and its two desks, ascending."""


@dataclass(frozen=True, slots=True)
class Response:
    """One exchange as a secretariat sees it; times are seconds since 1970 UTC.

    Attributes:
        initiator: Code of the initiating party.
        responder: Code of the responding party.
        urgency: As stated by the initiator; ``U0`` when not stated.
        opened_at: Sealed time of the opening act.
        acknowledged_at: Sealed time of the acknowledgement; None while there is none.
        final_at: Sealed time of the answer or refusal; None while the exchange is open.
        refused_steps: Acts that the machine refused.
    """

    exchange: ExchangeId
    profile: str
    initiator: str
    responder: str
    urgency: str
    state: str
    opened_at: int
    acknowledged_at: int | None
    final_at: int | None
    refused_steps: int

    @property
    def response_seconds(self) -> int | None:
        """Seconds from request to answer or refusal; None while open."""
        return None if self.final_at is None else self.final_at - self.opened_at

    def to_value(self) -> list[Value]:
        """Give the row that the digest covers."""
        return [
            self.exchange,
            self.profile,
            self.initiator,
            self.responder,
            self.urgency,
            self.state,
            self.opened_at,
            self.acknowledged_at,
            self.final_at,
            self.refused_steps,
        ]


def fold(steps: Iterable[Step]) -> tuple[dict[Key, Exchange], dict[Key, int]]:
    """Fold audit steps into exchanges.

    Args:
        steps: Verified steps of any exchanges, ascending by leaf index.

    Returns:
        The exchanges, and how many steps of each were refused. Steps before a legal opening act
        count as refused under their key too.
    """
    exchanges: dict[Key, Exchange] = {}
    refused: dict[Key, int] = {}
    for step in steps:
        first, second = sorted((step.sender, step.receiver))
        key = (step.record.exchange, first, second)
        try:
            exchanges[key] = apply(exchanges.get(key), step)
        except RefusedError:
            # SPEC [N-1]: only steps that the exchange machine accepts count.
            refused[key] = refused.get(key, 0) + 1
    return exchanges, refused


def response_times(
    steps: Iterable[Step],
    *,
    sealed_at: Callable[[int], int],
    party: Mapping[DeskId, str],
) -> tuple[Response, ...]:
    """Compute every exchange's response time.

    Args:
        steps: Verified steps, ascending by leaf index.
        sealed_at: Sealed time of a leaf: that of the first known checkpoint that includes it.
        party: Code of each desk's party.

    Returns:
        Rows ascending by exchange id and desks.
    """
    exchanges, refused = fold(steps)

    def at(index: int | None) -> int | None:
        # SPEC [N-2]: the sealed time of the first known checkpoint that includes the act.
        return None if index is None else sealed_at(index)

    return tuple(
        Response(
            exchange=exchange.id,
            profile=exchange.profile.code,
            initiator=party[exchange.initiator],
            responder=party[exchange.responder],
            urgency=exchange.steps[0].record.urgency or "U0",
            state=exchange.state.value,
            opened_at=sealed_at(exchange.opened_index),
            acknowledged_at=at(exchange.acknowledged_index),
            final_at=at(exchange.final_index),
            refused_steps=refused.get(key, 0),
        )
        # SPEC [N-3]: an exchange without an answer is listed as open.
        for key, exchange in sorted(exchanges.items())
    )


def digest_of(responses: Iterable[Response]) -> bytes:
    """Give the SHA-256 that two who counted the same records can compare, 32 bytes."""
    return sha256(serialize([row.to_value() for row in responses])).digest()
