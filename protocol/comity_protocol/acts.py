"""Acts: what one desk says to another in an exchange, in the clear of a sealed body.

An act is structured fields; a letter is only a rendering of them. Its id hashes the act with the
32 random bytes inside it and the two desks around it, so that citing it discloses nothing that
could be guessed, and so that it fits no other pair of desks. Formal acts carry the officer's
composite signature over the same bytes; what an event must say is ``profiles.py``'s matter and
whether it may be said now is ``exchange.py``'s.

Rules:

* [A-1] An act's id and signature cover deployment, sending desk and receiving desk.
* [A-2] An act has 32 random bytes.
* [A-3] Free text is in Unicode form C without control characters, and bounded.
* [A-4] Codes are out of the closed lists.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Final

from comity_protocol import codes
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.fields import Fields, array_of, bytes_of, integer_of, prose_of, text_of
from comity_protocol.identifiers import ID_BYTES, DeploymentId, DeskId, EnvelopeId, ExchangeId
from comity_protocol.keys import (
    FAST_SIGNATURE_BYTES,
    FULL_SIGNATURE_BYTES,
    Context,
    FullKey,
    digest,
    verify_full,
)
from comity_protocol.limits import (
    BODY_BYTES_MAX,
    CODES_MAX,
    COUNT_MAX,
    ITEMS_MAX,
    NAME_BYTES_MAX,
    PERSONS_MAX,
    PROSE_BYTES_MAX,
)
from comity_protocol.merkle import HASH_BYTES, SIZE_MAX

SALT_BYTES: Final = 32
_DATE_BYTES: Final = 10
_LANGUAGE_BYTES: Final = 2
_LANGUAGE: Final = re.compile("[a-z]{2}")


class Event(Enum):
    """What an act does. More events join as the dialogue grows."""

    LEAD = "lead"
    REQUEST = "request"
    ACKNOWLEDGE = "ack"
    CONSULT = "consult"
    ANSWER = "answer"
    REFUSE = "refuse"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Item:
    """One measure asked for (UNTOC art. 18(3)): its code and what exactly is wanted."""

    measure: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Person:
    """A person concerned (UNTOC art. 18(15)(e)): the role and what is known, or ``unknown``."""

    role: str
    known: str


@dataclass(frozen=True, slots=True)
class Handling:
    """What the reader may do with it: purpose, evidence, onward (UNTOC art. 18(5), 18(19))."""

    purpose: str
    evidence: str
    onward: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One act. Fields that an event does not use are empty.

    Attributes:
        event: What it does.
        exchange: The thread it belongs to.
        salt: 32 random bytes.
        head: The newest act of the exchange that its author had seen, by envelope id; None for
            the act that opens the exchange.
        profile: Code of the procedure; in the opening act only.
        reference: The author's own file number.
        language: ISO 639-1 code of the free text.
        basis: Legal bases.
        offences: Offence classes.
        urgency: One of ``codes.URGENCIES``.
        urgency_reason: Why; with an urgency above U0.
        due_on: Date by which an answer is wished, ``YYYY-MM-DD`` (UNTOC art. 18(24)).
        due_reason: Why that date: a suggested deadline counts only with its reason.
        text: The lead, the answer, the reasons for a refusal, the question.
        authority: Requesting authority, or at an acknowledgement the competent one (18(15)(a)).
        proceeding: Subject and nature of the proceeding and who conducts it (18(15)(b)).
        facts: Summary of the relevant facts (18(15)(c)).
        items: Assistance sought, one measure each (18(15)(d)).
        persons: Identity, location, nationality of persons (18(15)(e)).
        purpose: What the evidence is sought for (18(15)(f)).
        cases: How many cases it concerns; None when unknown. Never added to victims.
        victims: How many victims it concerns; None when unknown.
        children: YES, NO or UNKNOWN.
        handling: What the reader may do with it.
        topic: What a consultation is about.
        grounds: Grounds for refusal (18(21), 18(23)).
        outcomes: How each item ended, in the order of the request's items.
    """

    event: Event
    exchange: ExchangeId
    salt: bytes
    head: EnvelopeId | None = None
    profile: str | None = None
    reference: str | None = None
    language: str | None = None
    basis: tuple[str, ...] = ()
    offences: tuple[str, ...] = ()
    urgency: str | None = None
    urgency_reason: str | None = None
    due_on: str | None = None
    due_reason: str | None = None
    text: str | None = None
    authority: str | None = None
    proceeding: str | None = None
    facts: str | None = None
    items: tuple[Item, ...] = ()
    persons: tuple[Person, ...] = ()
    purpose: str | None = None
    cases: int | None = None
    victims: int | None = None
    children: str | None = None
    handling: Handling | None = None
    topic: str | None = None
    grounds: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()

    def says(self, field: str) -> bool:
        """Whether the act says anything in a field; blank text says nothing."""
        value = getattr(self, field)
        return bool(value.strip()) if isinstance(value, str) else value not in (None, ())

    def serialize(self) -> bytes:
        """Give the bytes that the id covers and that a formal act's author signs."""
        value: dict[str, Value] = {
            "v": 1,
            "t": "act",
            "e": self.event.value,
            "x": self.exchange,
            "salt": self.salt,
        }
        if self.head is not None:
            value["head"] = self.head
        for name, (write, _) in _FIELDS.items():
            if self.says(name):
                value[name] = write(getattr(self, name))
        return serialize(value)

    @classmethod
    def parse(cls, data: bytes) -> "Act":
        """Read an act out of an opened body.

        Raises:
            MalformedError: It is not what ``serialize`` gives, or breaks [A-2], [A-3] or [A-4].
        """
        if len(data) > BODY_BYTES_MAX:
            raise MalformedError(f"act is {len(data):,} bytes, expected at most {BODY_BYTES_MAX:,}")
        fields = Fields.of(parse(data), "act", {"v", "t", "e", "x", "salt"}, {"head", *_FIELDS})
        fields.integer("v", low=1, high=1)
        fields.text("t", choices=["act"])
        optional = {
            name: read(fields, name)
            for name, (_, read) in _FIELDS.items()
            if fields.is_present(name)
        }
        head = fields.bytes("head", length=ID_BYTES) if fields.is_present("head") else None
        act = cls(
            event=Event(fields.text("e", choices=[event.value for event in Event])),
            exchange=ExchangeId(fields.bytes("x", length=ID_BYTES)),
            # SPEC: an act has 32 random bytes.
            salt=fields.bytes("salt", length=SALT_BYTES),
            head=None if head is None else EnvelopeId(head),
            **optional,  # type: ignore[arg-type]  # each reader gives its own field's type
        )
        if act.serialize() != data:
            raise MalformedError("act states an empty field, expected it left out")
        return act


@dataclass(frozen=True, slots=True)
class Gossip:
    """The newest checkpoint that the author had verified, as the log signed it.

    Two desks that are shown different pasts find it out with the first act that one sends the
    other.

    Attributes:
        size: Entries of the log.
        root: Root hash, 32 bytes.
        signature: The log's Ed25519 signature over the checkpoint's text, 64 bytes.
    """

    size: int
    root: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """The plaintext of a body: the act as bytes, its signature when formal, and gossip."""

    act: bytes
    signature: bytes | None = None
    gossip: Gossip | None = None

    def serialize(self) -> bytes:
        """Give the plaintext to seal."""
        value: dict[str, Value] = {"v": 1, "t": "body", "act": self.act}
        if self.signature is not None:
            value["sig"] = self.signature
        if self.gossip is not None:
            value["cp"] = [self.gossip.size, self.gossip.root, self.gossip.signature]
        return serialize(value)

    @classmethod
    def parse(cls, data: bytes) -> "Body":
        """Read an opened body; the act's signature is not verified yet.

        Raises:
            MalformedError: It is not what ``serialize`` gives.
        """
        if len(data) > BODY_BYTES_MAX:
            raise MalformedError(
                f"body is {len(data):,} bytes, expected at most {BODY_BYTES_MAX:,}"
            )
        fields = Fields.of(parse(data), "body", {"v", "t", "act"}, {"sig", "cp"})
        fields.integer("v", low=1, high=1)
        fields.text("t", choices=["body"])
        gossip = None
        if fields.is_present("cp"):
            size, root, signature = fields.array("cp", low=3, high=3)
            gossip = Gossip(
                integer_of(size, "gossip, size", high=SIZE_MAX),
                bytes_of(root, "gossip, root", length=HASH_BYTES),
                bytes_of(signature, "gossip, signature", length=FAST_SIGNATURE_BYTES),
            )
        return cls(
            act=fields.bytes("act", low=1, high=BODY_BYTES_MAX),
            signature=(
                fields.bytes("sig", length=FULL_SIGNATURE_BYTES)
                if fields.is_present("sig")
                else None
            ),
            gossip=gossip,
        )


def act_id(act: bytes, *, deployment: DeploymentId, sender: DeskId, receiver: DeskId) -> bytes:
    """Name an act by hash, 32 bytes, for citing it elsewhere."""
    return digest(Context.ACT_ID, _bound(act, deployment, sender, receiver))


def sign_act(
    key: FullKey, act: bytes, *, deployment: DeploymentId, sender: DeskId, receiver: DeskId
) -> bytes:
    """Sign a formal act with the officer's device; gives 3,373 bytes."""
    return key.sign(Context.ACT, _bound(act, deployment, sender, receiver))


def verify_act(
    public: bytes,
    act: bytes,
    signature: bytes | None,
    *,
    deployment: DeploymentId,
    sender: DeskId,
    receiver: DeskId,
) -> None:
    """Check a formal act's signature.

    Raises:
        VerificationError: It is missing or not by this device over this act between these desks.
    """
    if signature is None:
        raise VerificationError("formal act is not signed; ask the sender to sign and send again")
    verify_full(public, Context.ACT, _bound(act, deployment, sender, receiver), signature)


def _bound(act: bytes, deployment: DeploymentId, sender: DeskId, receiver: DeskId) -> bytes:
    # SPEC: id and signature cover deployment, sending desk and receiving desk.
    return deployment + sender + receiver + act


_Writer = Callable[[object], Value]
_Reader = Callable[[Fields, str], object]


def _same(value: object) -> Value:
    return value  # type: ignore[return-value]  # text and integers are values as they are


def _listed(value: object) -> Value:
    assert isinstance(value, tuple)  # noqa: S101  # the type of the field
    return list(value)


def _line(fields: Fields, name: str) -> object:
    return fields.text(name, bytes_max=NAME_BYTES_MAX)


def _prose(fields: Fields, name: str) -> object:
    # SPEC: free text is in Unicode form C without control characters, and bounded.
    return fields.prose(name, bytes_max=PROSE_BYTES_MAX)


def _one_of(choices: frozenset[str] | tuple[str, ...]) -> tuple[_Writer, _Reader]:
    # SPEC: codes are out of the closed lists.
    return _same, lambda fields, name: fields.text(name, choices=choices)


def _some_of(choices: frozenset[str], high: int = CODES_MAX) -> tuple[_Writer, _Reader]:
    def read(fields: Fields, name: str) -> object:
        items = fields.array(name, low=1, high=high)
        return tuple(text_of(item, f"act, {name}", choices=choices) for item in items)

    return _listed, read


def read_language(fields: Fields, name: str) -> str:
    """Read an ISO 639-1 code: two lower-case letters."""
    code = fields.text(name, bytes_max=_LANGUAGE_BYTES)
    if not _LANGUAGE.fullmatch(code):
        raise MalformedError(f"{fields.what}, {name} is not a two-letter language code")
    return code


def _date(fields: Fields, name: str) -> object:
    text = fields.text(name, bytes_max=_DATE_BYTES)
    try:
        # Only this form of ISO 8601 gives the same text again, and only real days give a date.
        is_date = date.fromisoformat(text).isoformat() == text
    except ValueError:
        is_date = False
    if not is_date:
        raise MalformedError(f"act, {name} is not a date like 2026-01-31")
    return text


def _count(fields: Fields, name: str) -> object:
    return fields.integer(name, high=COUNT_MAX)


def _write_pairs(value: object) -> Value:
    assert isinstance(value, tuple)  # noqa: S101  # the type of the field
    return [
        [pair.measure, pair.wanted] if isinstance(pair, Item) else [pair.role, pair.known]
        for pair in value
    ]


def _pairs(
    make: type[Item] | type[Person], choices: frozenset[str], high: int
) -> tuple[_Writer, _Reader]:
    def read(fields: Fields, name: str) -> object:
        pairs = (
            array_of(pair, f"act, {name}", low=2, high=2)
            for pair in fields.array(name, low=1, high=high)
        )
        return tuple(
            make(text_of(code, f"act, {name}", choices=choices), _words(text, f"act, {name}"))
            for code, text in pairs
        )

    return _write_pairs, read


def _words(value: Value, what: str) -> str:
    """Read the words beside a code: what exactly is wanted, or who it is."""
    text = prose_of(value, what, bytes_max=PROSE_BYTES_MAX)
    if not text.strip():
        raise MalformedError(f"{what} has an entry without words, expected them or 'unknown'")
    return text


def _write_handling(value: object) -> Value:
    assert isinstance(value, Handling)  # noqa: S101  # the type of the field
    return [value.purpose, value.evidence, value.onward]


def _handling(fields: Fields, name: str) -> object:
    purpose, evidence, onward = fields.array(name, low=3, high=3)
    return Handling(
        text_of(purpose, "act, purpose", choices=codes.PURPOSES),
        text_of(evidence, "act, evidence", choices=codes.EVIDENCE_USES),
        text_of(onward, "act, onward", choices=codes.ONWARD_USES),
    )


_FIELDS: Final[Mapping[str, tuple[_Writer, _Reader]]] = {
    "profile": (_same, _line),
    "reference": (_same, _line),
    "language": (_same, read_language),
    "basis": _some_of(codes.LEGAL_BASES),
    "offences": _some_of(codes.OFFENCES),
    "urgency": _one_of(codes.URGENCIES),
    "urgency_reason": _one_of(codes.URGENCY_REASONS),
    "due_on": (_same, _date),
    "due_reason": (_same, _prose),
    "text": (_same, _prose),
    "authority": (_same, _prose),
    "proceeding": (_same, _prose),
    "facts": (_same, _prose),
    "items": _pairs(Item, codes.MEASURES, ITEMS_MAX),
    "persons": _pairs(Person, codes.PERSON_ROLES, PERSONS_MAX),
    "purpose": (_same, _prose),
    "cases": (_same, _count),
    "victims": (_same, _count),
    "children": _one_of(codes.ANSWERS),
    "handling": (_write_handling, _handling),
    "topic": _one_of(codes.CONSULTATIONS),
    "grounds": _some_of(codes.REFUSALS),
    "outcomes": _some_of(codes.OUTCOMES, ITEMS_MAX),
}
"""Each field's writer and reader, in one row."""
