"""What the relay answers, parsed once into types. Nothing in it is believed yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from comity_protocol.encoding import Value, parse
from comity_protocol.errors import MalformedError
from comity_protocol.fields import Fields, array_of, bytes_of, integer_of
from comity_protocol.keys import FAST_SIGNATURE_BYTES
from comity_protocol.leaves import LEAF_BYTES, CounterProof
from comity_protocol.limits import (
    AUDIT_BYTES_MAX,
    BODY_BYTES_MAX,
    BOX_BYTES_MAX,
    CHAIN_STATEMENTS_MAX,
    CHECKPOINTS_PAGE_MAX,
    CORE_BYTES_MAX,
    LEAVES_PAGE_MAX,
    NOTE_BYTES_MAX,
    NOTICE_BYTES_MAX,
    PREVIOUS_BOX_BYTES_MAX,
    PROOF_HASHES_MAX,
    RECEIPT_BYTES_MAX,
    STATEMENT_BYTES_MAX,
    WRAP_BYTES_MAX,
)
from comity_protocol.merkle import HASH_BYTES, SIZE_MAX
from comity_protocol.receipts import Signed
from comity_protocol.statements import SignedStatement, parse_signatures

PAGE_STATEMENTS: Final = 200
PAGE_ENVELOPES: Final = 500

VACANCIES_MAX: Final = 65_536
"""Entries that one answer may ask for: a relay that lost more has lost its backups too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A statement with its place in the log and the proof of it."""

    ordinal: int
    leaf_index: int
    signed: SignedStatement
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class StatementPage:
    """Statements under a checkpoint, by ascending ordinal."""

    note: bytes
    items: tuple[Logged, ...]


@dataclass(frozen=True, slots=True)
class Boxes:
    """The calling device's sealed secrets, and its desk's chain of previous seeds, by epoch."""

    own: dict[int, bytes]
    previous: dict[int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """An envelope out of a mailbox.

    Attributes:
        proof: With the counter, what shows its place in the log.
    """

    counter: int
    leaf_index: int
    core: bytes
    signature: bytes
    body: bytes | None
    audit: bytes
    wrap: bytes | None
    proof: CounterProof

    @property
    def size(self) -> int:
        """Bytes that it takes on the disk, nearly."""
        return len(self.core) + len(self.body or b"") + len(self.audit) + len(self.wrap or b"")


@dataclass(frozen=True, slots=True)
class ReceiptItem:
    """A receipt and its place in the log."""

    leaf_index: int
    signed: Signed


@dataclass(frozen=True, slots=True)
class NoticeItem:
    """A notice and its place in the log."""

    leaf_index: int
    signed: Signed


@dataclass(frozen=True, slots=True)
class Vacancies:
    """What a relay that was restored is missing.

    Attributes:
        had: Entries that its database had.
        size: Entries that the log had signed.
        tags: Of the entries whose objects it asks for, in this page.
        next: The leaf index after which the next page begins; None after the last.
    """

    had: int
    size: int
    tags: frozenset[bytes]
    next: int | None = None


def parse_statements(data: bytes) -> StatementPage:
    """Read a page of statements."""
    fields = Fields.of(parse(data), "page of statements", {"note", "size", "items"})
    fields.integer("size", high=SIZE_MAX)
    return StatementPage(
        fields.bytes("note", high=NOTE_BYTES_MAX),
        tuple(_logged(item) for item in fields.array("items", high=PAGE_STATEMENTS)),
    )


def _logged(value: Value) -> Logged:
    what = "logged statement"
    ordinal, index, payload, signatures, proof = array_of(value, what, low=5, high=5)
    return Logged(
        ordinal=integer_of(ordinal, f"{what}, ordinal", low=1, high=SIZE_MAX),
        leaf_index=_index(index, what),
        signed=SignedStatement(
            bytes_of(payload, f"{what}, payload", low=1, high=STATEMENT_BYTES_MAX),
            parse_signatures(signatures),
            is_bare=True,
        ),
        proof=tuple(
            bytes_of(hash_, f"{what}, proof", length=HASH_BYTES)
            for hash_ in array_of(proof, f"{what}, proof", high=PROOF_HASHES_MAX)
        ),
    )


def parse_boxes(data: bytes) -> Boxes:
    """Read the boxes of a device."""
    fields = Fields.of(parse(data), "boxes", {"boxes", "previous"})
    return Boxes(
        _by_epoch(fields, "boxes", BOX_BYTES_MAX),
        _by_epoch(fields, "previous", PREVIOUS_BOX_BYTES_MAX),
    )


def _by_epoch(fields: Fields, name: str, bytes_max: int) -> dict[int, bytes]:
    pairs = (
        array_of(item, name, low=2, high=2)
        for item in fields.array(name, high=CHAIN_STATEMENTS_MAX)
    )
    return {
        integer_of(epoch, f"{name}, epoch", low=1, high=1 << 32): bytes_of(
            box, name, low=1, high=bytes_max
        )
        for epoch, box in pairs
    }


def parse_mailbox(data: bytes) -> tuple[Arrived, ...]:
    """Read a page of a mailbox."""
    fields = Fields.of(parse(data), "page of the mailbox", {"items"})
    return tuple(arrived(item) for item in fields.array("items", high=PAGE_ENVELOPES))


def arrived(value: Value) -> Arrived:
    """Read an envelope out of a page or a pushed frame."""
    what = "arrived envelope"
    counter, index, core, signature, body, audit, wrap, proof = array_of(value, what, low=8, high=8)
    return Arrived(
        counter=integer_of(counter, f"{what}, counter", low=1, high=SIZE_MAX),
        leaf_index=_index(index, what),
        core=bytes_of(core, f"{what}, core", high=CORE_BYTES_MAX),
        signature=bytes_of(signature, f"{what}, signature", length=FAST_SIGNATURE_BYTES),
        body=None if body is None else bytes_of(body, f"{what}, body", high=BODY_BYTES_MAX),
        audit=bytes_of(audit, f"{what}, audit", high=AUDIT_BYTES_MAX),
        wrap=None if wrap is None else bytes_of(wrap, f"{what}, wrap", high=WRAP_BYTES_MAX),
        proof=CounterProof.of(proof),
    )


def parse_receipts(data: bytes) -> tuple[ReceiptItem, ...]:
    """Read a page of receipts."""
    fields = Fields.of(parse(data), "page of receipts", {"items"})
    found = tuple(_receipt(item) for item in fields.array("items", high=PAGE_ENVELOPES))
    _require_ascending([item.leaf_index for item in found], "receipts")
    return found


def _require_ascending(places: Sequence[int], what: str) -> None:
    """Refuse another order than that of the log: the first receipt dates a delivery."""
    if any(later <= earlier for earlier, later in pairwise(places)):
        raise MalformedError(f"page of {what} is not in the order of the log")


def _receipt(value: Value) -> ReceiptItem:
    index, payload, signature = array_of(value, "receipt item", low=3, high=3)
    return ReceiptItem(
        _index(index, "receipt item"),
        Signed(
            bytes_of(payload, "receipt", low=1, high=RECEIPT_BYTES_MAX),
            bytes_of(signature, "receipt, signature", length=FAST_SIGNATURE_BYTES),
        ),
    )


def parse_notices(data: bytes) -> tuple[NoticeItem, ...]:
    """Read a page of notices."""
    fields = Fields.of(parse(data), "page of notices", {"items"})
    found = tuple(_notice(item) for item in fields.array("items", high=PAGE_ENVELOPES))
    _require_ascending([item.leaf_index for item in found], "notices")
    return found


def _notice(value: Value) -> NoticeItem:
    index, payload, signature = array_of(value, "notice item", low=3, high=3)
    return NoticeItem(
        _index(index, "notice item"),
        Signed(
            bytes_of(payload, "notice", low=1, high=NOTICE_BYTES_MAX),
            bytes_of(signature, "notice, signature", length=FAST_SIGNATURE_BYTES),
        ),
    )


def parse_vacancies(data: bytes) -> Vacancies:
    """Read what a relay says that it lost."""
    fields = Fields.of(parse(data), "vacancies", {"had", "size", "tags", "next"})
    size = fields.integer("size", high=SIZE_MAX)
    return Vacancies(
        fields.integer("had", high=size),
        size,
        frozenset(
            bytes_of(tag, "vacancies, tag", length=HASH_BYTES)
            for tag in fields.array("tags", high=VACANCIES_MAX)
        ),
        None if fields.value("next") is None else fields.integer("next", high=size),
    )


def parse_notes(data: bytes) -> tuple[bytes, ...]:
    """Read published checkpoints."""
    fields = Fields.of(parse(data), "page of checkpoints", {"items"})
    return tuple(
        bytes_of(item, "checkpoint", low=1, high=NOTE_BYTES_MAX)
        for item in fields.array("items", high=CHECKPOINTS_PAGE_MAX)
    )


def parse_hashes(data: bytes, width: int) -> tuple[bytes, ...]:
    """Read a tile of the log (C2SP tlog-tiles)."""
    if len(data) != width * HASH_BYTES:
        raise MalformedError(f"tile is {len(data)} bytes, expected {width * HASH_BYTES}")
    return tuple(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))


def parse_entries(data: bytes, width: int) -> tuple[bytes, ...]:
    """Read a bundle of log entries, each after its length in two bytes (C2SP tlog-tiles)."""
    entries: list[bytes] = []
    at = 0
    for _ in range(width):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        entries.append(data[at + 2 : end])
        at = end
    if at != len(data):
        raise MalformedError(f"entry bundle does not hold {width} entries")
    return tuple(entries)


def parse_leaves(data: bytes) -> tuple[bytes, ...]:
    """Read entries that stand one after the other."""
    if len(data) % LEAF_BYTES or len(data) > LEAVES_PAGE_MAX * LEAF_BYTES:
        raise MalformedError(f"page of entries is {len(data):,} bytes, expected whole entries")
    return tuple(data[at : at + LEAF_BYTES] for at in range(0, len(data), LEAF_BYTES))


def _index(value: Value, what: str) -> int:
    return integer_of(value, f"{what}, leaf index", high=SIZE_MAX)
