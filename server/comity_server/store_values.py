"""Rows as the tables hold them: tuples in the order of the columns, small lists packed into bytes.

The recipients of an envelope, with their wraps, and its counters are packed into one column each:
they are written with the envelope, read with it and erased with it, and as rows of their own they
would cost three more random writes an envelope.
"""

from struct import Struct, error, pack, unpack
from typing import Final

from comity_protocol.identifiers import ID_BYTES
from comity_protocol.leaves import commit_counters
from comity_server.store import (
    EVERYONE,
    DamagedRowError,
    EnvelopeRow,
    NoticeRow,
    ReceiptRow,
    Recipient,
    StatementRow,
)

# Desk, epoch, kind, length of the wrap that follows: 0 when there is none.
_RECIPIENT: Final = Struct(f">{ID_BYTES}sQBI")

# Beside the kind: the copy of this desk was erased.
_ERASED: Final = 0x80

_COUNTER_BYTES: Final = 8


def statement_values(row: StatementRow) -> tuple[object, ...]:
    """Give the columns of ``statements``."""
    return (
        row.ordinal,
        row.hash,
        row.payload,
        row.signatures,
        row.kind,
        row.desk,
        row.accepted_at,
        row.promise,
        row.leaf_index,
    )


def envelope_values(row: EnvelopeRow) -> tuple[object, ...]:
    """Give the columns of ``envelopes``."""
    return (
        row.id,
        row.core_hash,
        row.core,
        row.signature,
        row.body,
        row.audit,
        row.sender_desk,
        row.sender_device,
        pack_recipients(row.recipients),
        row.ref,
        row.accepted_at,
        row.promise,
        row.blind,
        row.leaf_index,
        None if row.counters is None else pack_counters(row.counters),
    )


def mailbox_values(row: EnvelopeRow) -> list[tuple[object, ...]]:
    """Give the columns of ``mailbox_items`` for each recipient of an integrated envelope."""
    return [
        (to.desk, counter, row.leaf_index, position, to.kind)
        for position, (to, counter) in enumerate(
            zip(row.recipients, row.counters or (), strict=True)
        )
    ]


def commitments_of(row: EnvelopeRow) -> tuple[bytes, ...]:
    """Give the commitments to an integrated envelope's counters, in the order of its recipients."""
    if row.commitments is not None:
        return row.commitments
    return commit_counters([to.desk for to in row.recipients], row.counters or (), row.blind)


def receipt_values(row: ReceiptRow) -> tuple[object, ...]:
    """Give the columns of ``receipts``."""
    return (
        row.hash,
        row.payload,
        row.signature,
        row.desk,
        row.sender_desk,
        b"".join(row.envelope_ids),
        row.accepted_at,
        row.promise,
        b"".join(row.readers) or None,
        row.leaf_index,
    )


def receipt_readers(row: ReceiptRow) -> list[tuple[object, ...]]:
    """Give the columns of ``receipt_readers`` for each auditor that is given a receipt."""
    return [(desk, row.leaf_index) for desk in row.readers]


def notice_values(row: NoticeRow) -> tuple[object, ...]:
    """Give the columns of ``notices``."""
    return (
        row.hash,
        row.payload,
        row.signature,
        row.kind,
        row.desk,
        row.accepted_at,
        row.promise,
        b"".join(row.readers) or None,
        row.leaf_index,
    )


def notice_readers(row: NoticeRow) -> list[tuple[object, ...]]:
    """Give the columns of ``notice_readers`` for each desk that is given a notice."""
    return [(desk, row.leaf_index) for desk in row.readers]


def unpack_notice_readers(data: bytes | None) -> tuple[bytes, ...]:
    """Read who is given a notice; nobody in particular means everyone."""
    return (EVERYONE,) if data is None else unpack_ids(data)


def pack_recipients(recipients: tuple[Recipient, ...]) -> bytes:
    """Write recipients one after the other."""
    parts: list[bytes] = []
    for to in recipients:
        wrap = to.wrap or b""
        kind = to.kind | _ERASED if to.is_erased else to.kind
        parts += (_RECIPIENT.pack(to.desk, to.epoch, kind, len(wrap)), wrap)
    return b"".join(parts)


def unpack_recipients(data: bytes) -> tuple[Recipient, ...]:
    """Read what ``pack_recipients`` wrote.

    Raises:
        DamagedRowError: It is something else.
    """
    recipients: list[Recipient] = []
    at = 0
    while at < len(data):
        try:
            desk, epoch, kind, length = _RECIPIENT.unpack_from(data, at)
        except error as damaged:
            raise DamagedRowError("recipients of an envelope cannot be read") from damaged
        start = at + _RECIPIENT.size
        at = start + length
        wrap = data[start:at] or None
        recipients.append(Recipient(desk, epoch, kind & ~_ERASED, wrap, bool(kind & _ERASED)))
    return tuple(recipients)


def pack_counters(counters: tuple[int, ...]) -> bytes:
    """Write counters, 8 bytes each."""
    return pack(f">{len(counters)}Q", *counters)


def unpack_counters(data: bytes) -> tuple[int, ...]:
    """Read what ``pack_counters`` wrote.

    Raises:
        DamagedRowError: It is something else.
    """
    if len(data) % _COUNTER_BYTES:
        raise DamagedRowError("counters of an envelope cannot be read")
    return unpack(f">{len(data) // _COUNTER_BYTES}Q", data)


def counters_for(recipients: tuple[Recipient, ...], data: bytes) -> tuple[int, ...]:
    """Read the counters of an integrated envelope, one for each recipient.

    Raises:
        DamagedRowError: There are more or fewer.
    """
    counters = unpack_counters(data)
    if len(counters) != len(recipients):
        raise DamagedRowError(f"envelope has {len(counters)} counters, expected {len(recipients)}")
    return counters


def unpack_ids(data: bytes) -> tuple[bytes, ...]:
    """Read identifiers that were written one after the other."""
    return tuple(data[at : at + ID_BYTES] for at in range(0, len(data), ID_BYTES))
