"""Statements on their way between the people who have to sign them, as one file.

A ceremony is one file that travels by mail, stick or share from custodian to custodian. It holds
one or more statements in the order in which they will be published, and for each who may still
sign it. Who may sign is a *hint* of the one who prepared the file: it saves a custodian from
signing what nobody asked of her and tells when the file is complete. What counts is decided by
``comity_protocol.chain``, at the relay and at every desk, from the signatures alone.

The file holds public things only: payloads, signatures, public keys, and sealed boxes.

    {v:1, t:"ceremony", items: [{p: payload, s: [[signer, signature], ...],
     needs: [[[label, count, [[who, public key], ...]], ...], ...], boxes?, previous?}, ...]}

``needs`` is a list of which *all* must be met; each is a list of options of which *one* suffices.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import ComityError, MalformedError, VerificationError
from comity_protocol.fields import Fields, array_of, bytes_of, integer_of, text_of
from comity_protocol.genesis import parse_genesis
from comity_protocol.identifiers import ID_BYTES, DeviceId, short
from comity_protocol.keys import (
    FULL_PUBLIC_BYTES,
    FULL_SIGNATURE_BYTES,
    Context,
    FullKey,
    key_id,
    verify_full,
)
from comity_protocol.limits import (
    BOX_BYTES_MAX,
    DEVICES_MAX,
    NAME_BYTES_MAX,
    PREVIOUS_BOX_BYTES_MAX,
    ROOTS_MAX,
    SIGNATURES_MAX,
    STATEMENT_BYTES_MAX,
)
from comity_protocol.statements import SignedStatement, parse_statement

ITEMS_MAX: Final = 16
"""Statements of one file: a desk, its first devices and its first epoch are four or five."""

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Larger than any ceremony: 16 statements with all signatures and boxes."""

_NEEDS_MAX: Final = ROOTS_MAX + 1
_OPTIONS_MAX: Final = 3


class CeremonyError(ComityError):
    """A step of a ceremony that is not possible, or not possible yet."""

    code = "ceremony"
    remedy = "read what is missing with `comity sign FILE --show`"


@dataclass(frozen=True, slots=True)
class Signer:
    """Someone who may sign.

    Attributes:
        who: Whom the signature counts for, 16 bytes: the officer of an admin's device, otherwise
            the key's own id. Two signers with the same ``who`` count once.
        public: Composite public key, 1,984 bytes.
    """

    who: bytes
    public: bytes


@dataclass(frozen=True, slots=True)
class Option:
    """One way to meet a need: so many distinct signers out of these."""

    label: str
    count: int
    signers: tuple[Signer, ...]

    def given(self, signed: set[bytes]) -> int:
        """Count the distinct people of this option among key ids that have signed."""
        return len({signer.who for signer in self.signers if key_id(signer.public) in signed})


Need = tuple[Option, ...]
"""Options of which one suffices."""


@dataclass(frozen=True, slots=True)
class Pending:
    """One statement that may lack signatures.

    Attributes:
        payload: What is signed; a genesis or a statement of a desk's chain.
        needs: Whose signatures it takes.
        signatures: Those given, verified, ascending by key id.
        boxes: As in ``SignedStatement``.
        previous: As in ``SignedStatement``.
    """

    payload: bytes
    needs: tuple[Need, ...]
    signatures: tuple[tuple[bytes, bytes], ...] = ()
    boxes: tuple[tuple[DeviceId, bytes], ...] = ()
    previous: bytes | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """What is still needed, in words; empty when nothing is."""
        signed = {signer for signer, _ in self.signatures}
        return tuple(
            " or ".join(_lacking(option, signed) for option in need)
            for need in self.needs
            if not any(option.given(signed) >= option.count for option in need)
        )

    @property
    def is_complete(self) -> bool:
        """Whether it can be published, as far as the hints tell."""
        return not self.missing

    def asks(self, public: bytes) -> bool:
        """Whether this key is among those that may sign."""
        return public in self._publics().values()

    def has_signed(self, public: bytes) -> bool:
        """Whether this key has signed."""
        return key_id(public) in dict(self.signatures)

    def sign(self, key: FullKey) -> "Pending":
        """Add a signature; one that is there already stays as it is.

        Raises:
            CeremonyError: The key is not asked to sign this.
        """
        if not self.asks(key.public):
            raise CeremonyError(
                f"key {short(key_id(key.public))} is not asked to sign this; still missing:"
                f" {', '.join(self.missing) or 'nothing'}"
            )
        if self.has_signed(key.public):
            return self
        return self._with({key_id(key.public): key.sign(Context.STATEMENT, self.payload)})

    def merge(self, other: "Pending") -> "Pending":
        """Add the signatures of a copy that went another way.

        Raises:
            CeremonyError: The copy is of another statement.
        """
        if (other.payload, other.boxes, other.previous) != (
            self.payload,
            self.boxes,
            self.previous,
        ):
            raise CeremonyError("the two files are of different statements")
        return self._with(dict(other.signatures))

    def finish(self) -> SignedStatement:
        """Give the statement as it is published.

        Raises:
            CeremonyError: Signatures are missing; the message says whose.
        """
        if self.missing:
            raise CeremonyError(f"signatures are missing: {', '.join(self.missing)}")
        return SignedStatement(self.payload, self.signatures, self.boxes, self.previous)

    def _with(self, signatures: dict[bytes, bytes]) -> "Pending":
        merged = sorted({**signatures, **dict(self.signatures)}.items())
        return replace(self, signatures=tuple(merged))

    def _publics(self) -> dict[bytes, bytes]:
        return {
            key_id(signer.public): signer.public
            for need in self.needs
            for option in need
            for signer in option.signers
        }

    def verify(self) -> None:
        """Check the signatures that are there.

        Raises:
            VerificationError: One is not by a key that is asked, or does not hold.
        """
        publics = self._publics()
        for signer, signature in self.signatures:
            if signer not in publics:
                raise VerificationError(f"signer {short(signer)} is not asked to sign this")
            verify_full(publics[signer], Context.STATEMENT, self.payload, signature)


@dataclass(frozen=True, slots=True)
class Ceremony:
    """Statements that are signed and published together, in this order."""

    items: tuple[Pending, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """What is still needed over all statements, each once, in order."""
        return tuple(dict.fromkeys(text for item in self.items for text in item.missing))

    @property
    def is_complete(self) -> bool:
        """Whether everything can be published."""
        return not self.missing

    def asks(self, public: bytes) -> bool:
        """Whether any statement asks for this key's signature."""
        return any(item.asks(public) for item in self.items)

    def sign(self, key: FullKey) -> "Ceremony":
        """Sign every statement that asks for this key.

        Raises:
            CeremonyError: None does.
        """
        if not self.asks(key.public):
            raise CeremonyError(
                f"key {short(key_id(key.public))} is not asked to sign this; still missing:"
                f" {', '.join(self.missing) or 'nothing'}"
            )
        return Ceremony(
            tuple(item.sign(key) if item.asks(key.public) else item for item in self.items)
        )

    def merge(self, other: "Ceremony") -> "Ceremony":
        """Add the signatures of a copy; see ``Pending.merge``."""
        if len(other.items) != len(self.items):
            raise CeremonyError("the two files are of different statements")
        pairs = zip(self.items, other.items, strict=True)
        return Ceremony(tuple(one.merge(two) for one, two in pairs))

    def finish(self) -> tuple[SignedStatement, ...]:
        """Give the statements as they are published; see ``Pending.finish``."""
        return tuple(item.finish() for item in self.items)

    def serialize(self) -> bytes:
        """Give the bytes of the file."""
        items: list[Value] = [_item_value(item) for item in self.items]
        return serialize({"v": 1, "t": "ceremony", "items": items})

    @classmethod
    def parse(cls, data: bytes) -> "Ceremony":
        """Read a file that came from somewhere.

        Raises:
            MalformedError: It is no ceremony, or a payload is no statement.
            VerificationError: A signature in it does not hold.
        """
        if len(data) > FILE_BYTES_MAX:
            raise MalformedError(
                f"file is {len(data):,} bytes, expected at most {FILE_BYTES_MAX:,}"
            )
        fields = Fields.of(parse(data), "ceremony", {"v", "t", "items"})
        fields.integer("v", low=1, high=1)
        fields.text("t", choices=["ceremony"])
        items = tuple(_parse_item(value) for value in fields.array("items", low=1, high=ITEMS_MAX))
        return cls(items)


def by_custodians(code: str, threshold: int, publics: Iterable[bytes]) -> Option:
    """Give the option that a State's custodians sign."""
    signers = tuple(Signer(key_id(public), public) for public in publics)
    label = f"custodians of {code}" if threshold > 1 else f"a custodian of {code}"
    return Option(label, threshold, signers)


def by_device(label: str, public: bytes) -> Option:
    """Give the option that one certain device signs."""
    return Option(label, 1, (Signer(key_id(public), public),))


def _lacking(option: Option, signed: set[bytes]) -> str:
    given = option.given(signed)
    if option.count == 1:
        return option.label
    left = option.count - given
    return f"{left} {'more ' if given else ''}of {option.label}"


def _item_value(item: Pending) -> dict[str, Value]:
    value: dict[str, Value] = {
        "p": item.payload,
        "s": [[signer, signature] for signer, signature in item.signatures],
        "needs": [[_option_value(option) for option in need] for need in item.needs],
    }
    if item.boxes:
        value["boxes"] = [[device, box] for device, box in item.boxes]
    if item.previous is not None:
        value["previous"] = item.previous
    return value


def _option_value(option: Option) -> list[Value]:
    signers: list[Value] = [[signer.who, signer.public] for signer in option.signers]
    return [option.label, option.count, signers]


def _parse_item(value: Value) -> Pending:
    fields = Fields.of(value, "pending statement", {"p", "s", "needs"}, {"boxes", "previous"})
    pending = Pending(
        payload=fields.bytes("p", low=1, high=STATEMENT_BYTES_MAX),
        needs=tuple(
            tuple(
                _parse_option(option) for option in array_of(need, "need", low=1, high=_OPTIONS_MAX)
            )
            for need in fields.array("needs", low=1, high=_NEEDS_MAX)
        ),
        signatures=_pairs(fields, "s", SIGNATURES_MAX, FULL_SIGNATURE_BYTES),
        boxes=tuple(
            (DeviceId(device), box)
            for device, box in _pairs(fields, "boxes", DEVICES_MAX, BOX_BYTES_MAX)
        ),
        previous=(
            fields.bytes("previous", low=1, high=PREVIOUS_BOX_BYTES_MAX)
            if fields.is_present("previous")
            else None
        ),
    )
    _check_payload(pending.payload)
    pending.verify()
    return pending


def _parse_option(value: Value) -> Option:
    label, count, signers = array_of(value, "need", low=3, high=3)
    pairs: Sequence[tuple[Value, ...]] = [
        array_of(pair, "signer", low=2, high=2)
        for pair in array_of(signers, "signers", low=1, high=DEVICES_MAX)
    ]
    return Option(
        text_of(label, "need, label", bytes_max=NAME_BYTES_MAX),
        integer_of(count, "need, count", low=1, high=DEVICES_MAX),
        tuple(
            Signer(
                bytes_of(who, "signer", length=ID_BYTES),
                bytes_of(public, "signer, key", length=FULL_PUBLIC_BYTES),
            )
            for who, public in pairs
        ),
    )


def _pairs(fields: Fields, name: str, high: int, bytes_max: int) -> tuple[tuple[bytes, bytes], ...]:
    if not fields.is_present(name):
        return ()
    return tuple(
        (bytes_of(one, name, length=ID_BYTES), bytes_of(two, name, low=1, high=bytes_max))
        for one, two in (
            array_of(pair, name, low=2, high=2) for pair in fields.array(name, high=high)
        )
    )


def _check_payload(payload: bytes) -> None:
    """Refuse to pass on, and so to sign, anything that cannot be put into words."""
    try:
        parse_statement(payload)
    except MalformedError:
        parse_genesis(payload)
