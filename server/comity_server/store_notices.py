"""What desks are given besides their mailbox: receipts and notices, paged by leaf index."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Row, bindparam, select

from comity_server.store import EVERYONE, NoticeRow, ReceiptRow
from comity_server.store_reads import Among, receipt_of
from comity_server.store_values import unpack_notice_readers
from comity_server.tables import notice_readers, notices, receipt_readers, receipts

_Row: TypeAlias = "Row[*tuple[Any, ...]]"

# Written once: to write them takes as long as to run them, and receipts are asked for often.
_SENT: Final = (
    select(receipts)
    .where(receipts.c.sender_desk == bindparam("desk"), receipts.c.leaf_index > bindparam("after"))
    .order_by(receipts.c.leaf_index)
    .limit(bindparam("limit"))
)
_AUDITED: Final = (
    select(receipts)
    .join(receipt_readers, receipt_readers.c.leaf_index == receipts.c.leaf_index)
    .where(
        receipt_readers.c.desk == bindparam("desk"),
        receipt_readers.c.leaf_index > bindparam("after"),
    )
    .order_by(receipt_readers.c.leaf_index)
    .limit(bindparam("limit"))
)
_ABOUT: Final = (
    select(notices)
    .join(notice_readers, notice_readers.c.leaf_index == notices.c.leaf_index)
    .where(
        notice_readers.c.desk == bindparam("desk"),
        notice_readers.c.leaf_index > bindparam("after"),
    )
    .order_by(notice_readers.c.leaf_index)
    .limit(bindparam("limit"))
)


def read_receipts(
    connection: Connection, desk: bytes, after_index: int, limit: int
) -> list[ReceiptRow]:
    """Read a page of the receipts that a desk is given as a sender or as an auditor."""
    page = {"desk": desk, "after": after_index, "limit": limit}
    rows = {
        row.leaf_index: row
        for query in (_SENT, _AUDITED)
        for row in connection.execute(query, page)
    }
    return [receipt_of(rows[index]) for index in sorted(rows)[:limit]]


def read_notices(
    connection: Connection, desk: bytes, after_index: int, limit: int
) -> list[NoticeRow]:
    """Read a page of the notices that are for a desk or for everyone, by ascending leaf index."""
    rows = {
        row.leaf_index: row
        for reader in (desk, EVERYONE)
        for row in connection.execute(
            _ABOUT, {"desk": reader, "after": after_index, "limit": limit}
        )
    }
    return [notice_of(rows[index]) for index in sorted(rows)[:limit]]


def find_notices(
    connection: Connection, among: Among, hashes: Sequence[bytes]
) -> dict[bytes, NoticeRow]:
    """Read those of these notices that are there, by hash."""
    rows = connection.execute(select(notices).where(among(notices.c.hash, hashes)))
    return {row.hash: notice_of(row) for row in rows}


def notice_of(row: _Row) -> NoticeRow:
    """Make a notice of a row of its table."""
    return NoticeRow(
        hash=row.hash,
        payload=row.payload,
        signature=row.signature,
        kind=row.kind,
        desk=row.desk,
        envelope_ids=(),
        readers=unpack_notice_readers(row.readers),
        accepted_at=row.accepted_at,
        promise=row.promise,
        leaf_index=row.leaf_index,
    )
