"""The audit record: what of an act an auditor may know, by one function.

Codes, bands and counters; never a name, a reference or free text. Everyone who opened the act
computes the same record, so a sender who tells the auditor something else is found by every
recipient. A reply carries the audit key of the act it answers, so that an auditor who was given
garbage once can open it with the next act of either side.

Rules:

* [U-1] The record is ``project(act)`` and nothing else; a recipient compares and complains.
* [U-2] The record holds only values of closed lists, bands and counters.
* [U-3] A reply's record carries the audit key of the act that it names as head.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from comity_protocol import codes
from comity_protocol.acts import Act, Event, read_language
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import LimitError, MalformedError, VerificationError
from comity_protocol.fields import Fields, array_of, integer_of, text_of
from comity_protocol.identifiers import ID_BYTES, EnvelopeId, ExchangeId
from comity_protocol.keys import KEY_BYTES, is_same_secret
from comity_protocol.limits import CODES_MAX, ITEMS_MAX
from comity_protocol.padding import AUDIT_CLASSES
from comity_protocol.profiles import PROFILES

_OPTIONAL: Final = frozenset(
    {"h", "k", "p", "l", "b", "o", "u", "ur", "m", "i", "c", "v", "ch", "t", "g", "r"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """What auditors see of an act; fields as in ``Act``, counts as bands.

    Attributes:
        head_key: Audit key of the envelope ``head``; None in the opening act.
        measures: Distinct measure codes asked for, ascending.
        items: How many items were asked for.
        victims: Band; None when unknown.
        outcomes: (outcome, how many items), ascending.
    """

    event: Event
    exchange: ExchangeId
    head: EnvelopeId | None = None
    head_key: bytes | None = None
    profile: str | None = None
    language: str | None = None
    basis: tuple[str, ...] = ()
    offences: tuple[str, ...] = ()
    urgency: str | None = None
    urgency_reason: str | None = None
    measures: tuple[str, ...] = ()
    items: int | None = None
    cases: str | None = None
    victims: str | None = None
    children: str | None = None
    topic: str | None = None
    grounds: tuple[str, ...] = ()
    outcomes: tuple[tuple[str, int], ...] = ()

    def serialize(self) -> bytes:
        """Give the record's plaintext, not padded."""
        value: dict[str, Value] = {"e": self.event.value, "x": self.exchange}
        plain: dict[str, Value] = {
            "h": self.head,
            "k": self.head_key,
            "p": self.profile,
            "l": self.language,
            "b": list(self.basis),
            "o": list(self.offences),
            "u": self.urgency,
            "ur": self.urgency_reason,
            "m": list(self.measures),
            "i": self.items,
            "c": self.cases,
            "v": self.victims,
            "ch": self.children,
            "t": self.topic,
            "g": list(self.grounds),
            "r": [[outcome, count] for outcome, count in self.outcomes],
        }
        return serialize(
            value | {key: item for key, item in plain.items() if item not in (None, [])}
        )

    @classmethod
    def parse(cls, data: bytes) -> "AuditRecord":
        """Read an opened record.

        Raises:
            MalformedError: It is not what ``serialize`` gives, or holds a value out of no list.
        """
        if len(data) >= AUDIT_CLASSES[-1]:
            raise MalformedError(
                f"audit record is {len(data)} bytes, expected below {AUDIT_CLASSES[-1]}"
            )
        fields = Fields.of(parse(data), "audit record", {"e", "x"}, _OPTIONAL)

        def code(name: str, choices: frozenset[str] | tuple[str, ...]) -> str | None:
            # SPEC [U-2]: only values of closed lists, bands and counters.
            return fields.text(name, choices=choices) if fields.is_present(name) else None

        def some(name: str, choices: frozenset[str]) -> tuple[str, ...]:
            if not fields.is_present(name):
                return ()
            return tuple(
                text_of(item, f"audit record, {name}", choices=choices)
                for item in fields.array(name, low=1, high=CODES_MAX)
            )

        head = fields.bytes("h", length=ID_BYTES) if fields.is_present("h") else None
        return cls(
            event=Event(fields.text("e", choices=[event.value for event in Event])),
            exchange=ExchangeId(fields.bytes("x", length=ID_BYTES)),
            head=None if head is None else EnvelopeId(head),
            head_key=fields.bytes("k", length=KEY_BYTES) if fields.is_present("k") else None,
            profile=code("p", tuple(PROFILES)),
            language=read_language(fields, "l") if fields.is_present("l") else None,
            basis=some("b", codes.LEGAL_BASES),
            offences=some("o", codes.OFFENCES),
            urgency=code("u", codes.URGENCIES),
            urgency_reason=code("ur", codes.URGENCY_REASONS),
            measures=some("m", codes.MEASURES),
            items=fields.integer("i", low=1, high=ITEMS_MAX) if fields.is_present("i") else None,
            cases=code("c", codes.BANDS),
            victims=code("v", codes.BANDS),
            children=code("ch", codes.ANSWERS),
            topic=code("t", codes.CONSULTATIONS),
            grounds=some("g", codes.REFUSALS),
            outcomes=_parse_outcomes(fields) if fields.is_present("r") else (),
        )


def project(act: Act, head_key: bytes | None) -> AuditRecord:
    """Give what an auditor may know of an act. This is the only way to a record.

    Args:
        act: The act.
        head_key: Audit key of the envelope that the act names as its head.

    Raises:
        ValueError: A head without its key, or a key without a head.
        LimitError: The act has too many codes for one record.

    Source: PROTOCOL [U-1].
    """
    if (act.head is None) != (head_key is None):
        raise ValueError("head and head key go together")
    measures = sorted({item.measure for item in act.items})
    record = AuditRecord(
        event=act.event,
        exchange=act.exchange,
        head=act.head,
        head_key=head_key,
        profile=act.profile,
        language=act.language,
        basis=act.basis,
        offences=act.offences,
        urgency=act.urgency,
        urgency_reason=act.urgency_reason,
        # A request with more kinds of measures says how many items, not which.
        measures=tuple(measures) if len(measures) <= CODES_MAX else (),
        items=len(act.items) or None,
        cases=None if act.cases is None else codes.band(act.cases),
        victims=None if act.victims is None else codes.band(act.victims),
        children=act.children,
        topic=act.topic,
        grounds=act.grounds,
        outcomes=tuple(sorted(Counter(act.outcomes).items())),
    )
    if len(record.serialize()) >= AUDIT_CLASSES[-1]:
        raise LimitError(
            f"audit record is {len(record.serialize())} bytes, expected below {AUDIT_CLASSES[-1]};"
            " leave out codes that you can do without"
        )
    return record


def verify_projection(record: AuditRecord, act: Act, head_key: bytes | None) -> None:
    """Check that the auditor was told what the desk was told.

    Args:
        record: As opened from the audit part.
        act: As opened from the body.
        head_key: The audit key of the act's head as the recipient knows it; None when the act
            opens the exchange.

    Raises:
        VerificationError: The sender told its auditors something else, or answers an act that
            this desk does not know.
        LimitError: The act has no projection, because it has too many codes.

    Source: PROTOCOL [U-1], [U-3].
    """
    if (act.head is None) != (head_key is None):
        raise VerificationError("act names as head an act that this desk does not know [U-3]")
    expected = project(act, head_key)
    # SPEC [U-3]: a reply's record carries the audit key of the act that it names as head.
    if record.head_key and head_key and not is_same_secret(record.head_key, head_key):
        raise VerificationError("sender gave its auditors a wrong key for the act before [U-3]")
    # SPEC [U-1]: the record is the projection of the act and nothing else.
    if record != expected:
        raise VerificationError(
            "sender told its auditors something else than your desk [U-1]; report it to them"
        )


def _parse_outcomes(fields: Fields) -> tuple[tuple[str, int], ...]:
    pairs = (
        array_of(pair, "audit record, outcome", low=2, high=2)
        for pair in fields.array("r", low=1, high=len(codes.OUTCOMES))
    )
    return tuple(
        (
            text_of(outcome, "audit record, outcome", choices=codes.OUTCOMES),
            integer_of(count, "audit record, outcome", low=1, high=ITEMS_MAX),
        )
        for outcome, count in pairs
    )
