"""What is read from the store: plain functions over a connection, one for each question.

They return finished rows, decide nothing and change nothing. Lists come in the order that the
``Store`` promises; every one of them has a bound.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, case, func, select

from comity_protocol.leaves import commit_counters, prove_counter
from comity_protocol.merkle import leaf_hash
from comity_server.store import (
    AUDIT_KIND,
    ERASED_KIND,
    MAILBOX_BYTES_MAX,
    Checkpoint,
    DamagedRowError,
    EnvelopeRow,
    Head,
    Kind,
    MailboxItem,
    Parked,
    ReceiptRow,
    StatementRow,
)
from comity_server.store_values import counters_for, unpack_ids, unpack_recipients
from comity_server.tables import (
    anchors,
    checkpoints,
    envelopes,
    epoch_boxes,
    leaves,
    mailbox_items,
    parked,
    previous_epochs,
    receipts,
    statements,
    tile_hashes,
)
from comity_server.tables import head as heads

Among = Callable[[ColumnElement[Any], Sequence[object]], ColumnElement[bool]]
"""Gives the condition that a column holds one of some values, as the database likes it best."""

_Row: TypeAlias = "Row[*tuple[Any, ...]]"

# Neither an auditor is given the body, nor a desk whose copy was erased.
_BODY: Final = case(
    (mailbox_items.c.kind.in_((AUDIT_KIND, ERASED_KIND)), None), else_=envelopes.c.body
).label("body")


# Written once: to write them takes as long as to run them, and proofs ask often.
_LEAVES: Final = (
    select(leaves.c.data)
    .where(leaves.c.leaf_index >= bindparam("start"), leaves.c.leaf_index < bindparam("end"))
    .order_by(leaves.c.leaf_index)
)
_TILE_HASHES: Final = (
    select(tile_hashes.c.hash)
    .where(
        tile_hashes.c.level == bindparam("level"),
        tile_hashes.c.position >= bindparam("start"),
        tile_hashes.c.position < bindparam("end"),
    )
    .order_by(tile_hashes.c.position)
)


def read_head(connection: Connection) -> Head:
    """Read where the log stands."""
    return head_of(connection.execute(select(heads)).one())


def head_of(row: _Row) -> Head:
    """Make a head of a row of its table."""
    return Head(
        size=row.size,
        root=row.root,
        frontier=row.frontier,
        statements=row.statements,
        incarnation=row.incarnation,
        erasures=row.erasures,
    )


def read_statements(
    connection: Connection, after_ordinal: int, limit: int, below_index: int | None
) -> list[StatementRow]:
    """Read a page of statements by ascending ordinal."""
    query = select(statements).where(statements.c.ordinal > after_ordinal)
    if below_index is not None:
        query = query.where(statements.c.leaf_index < below_index)
    rows = connection.execute(query.order_by(statements.c.ordinal).limit(limit))
    return [_statement(row) for row in rows]


def find_statements(
    connection: Connection, among: Among, hashes: Sequence[bytes]
) -> dict[bytes, StatementRow]:
    """Read those of these statements that are there, by hash."""
    rows = connection.execute(select(statements).where(among(statements.c.hash, hashes)))
    return {row.hash: _statement(row) for row in rows}


def find_envelopes(
    connection: Connection, among: Among, ids: Sequence[bytes]
) -> dict[bytes, EnvelopeRow]:
    """Read those of these envelopes that are there, by id."""
    rows = connection.execute(select(envelopes).where(among(envelopes.c.id, ids)))
    return {row.id: _envelope(row) for row in rows}


def find_receipts(
    connection: Connection, among: Among, hashes: Sequence[bytes]
) -> dict[bytes, ReceiptRow]:
    """Read those of these receipts that are there, by hash."""
    rows = connection.execute(select(receipts).where(among(receipts.c.hash, hashes)))
    return {row.hash: receipt_of(row) for row in rows}


def find_cores(connection: Connection, among: Among, ids: Sequence[bytes]) -> dict[bytes, bytes]:
    """Read the cores of those of these envelopes that have their places, by id."""
    rows = connection.execute(
        select(envelopes.c.id, envelopes.c.core).where(
            among(envelopes.c.id, ids), envelopes.c.leaf_index.is_not(None)
        )
    )
    return {row.id: row.core for row in rows}


def read_boxes(
    connection: Connection, desk: bytes, device: bytes
) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """Read the newest box of each epoch for a device, and the newest chain of previous seeds."""
    boxes = connection.execute(
        select(epoch_boxes.c.epoch, epoch_boxes.c.box)
        .where(epoch_boxes.c.desk == desk, epoch_boxes.c.device == device)
        .order_by(epoch_boxes.c.epoch, epoch_boxes.c.ordinal)
    )
    chain = connection.execute(
        select(previous_epochs.c.epoch, previous_epochs.c.previous)
        .where(previous_epochs.c.desk == desk)
        .order_by(previous_epochs.c.epoch, previous_epochs.c.ordinal)
    )
    # Of an epoch that comes twice the later one stays, at the place of the first.
    return (
        list({row.epoch: (row.epoch, row.box) for row in boxes}.values()),
        list({row.epoch: (row.epoch, row.previous) for row in chain}.values()),
    )


def read_mailbox(
    connection: Connection, desk: bytes, after_counter: int, limit: int
) -> list[MailboxItem]:
    """Read a page of a mailbox by ascending counter: at least one item, if there is any."""
    addressed = and_(mailbox_items.c.desk == desk, mailbox_items.c.counter > after_counter)
    last = _last_that_fits(connection, addressed, limit)
    if last is None:
        return []
    rows = connection.execute(
        select(
            mailbox_items.c.counter,
            mailbox_items.c.position,
            envelopes.c.leaf_index,
            envelopes.c.core,
            envelopes.c.signature,
            _BODY,
            envelopes.c.audit,
            envelopes.c.recipients,
            envelopes.c.blind,
            envelopes.c.counters,
        )
        .join(envelopes, envelopes.c.leaf_index == mailbox_items.c.leaf_index)
        .where(addressed, mailbox_items.c.counter <= last)
        .order_by(mailbox_items.c.counter)
    )
    return [_item(row) for row in rows]


def read_wrap(connection: Connection, envelope_id: bytes, desk: bytes) -> bytes | None:
    """Read the wrap of a desk for an envelope, or for the one whose wraps the envelope reuses."""
    query = select(envelopes.c.recipients, envelopes.c.ref)
    found = connection.execute(query.where(envelopes.c.id == envelope_id)).first()
    # A desk that this envelope is not addressed to, or whose copy of it is gone, gets nothing.
    if found is None or not _has_copy(found, desk):
        return None
    if found.ref is not None:
        # What it refers to may be erased for the desk, which keeps the wrap for this one.
        found = connection.execute(query.where(envelopes.c.id == found.ref)).first()
    addressed = () if found is None else unpack_recipients(found.recipients)
    return next((to.wrap for to in addressed if to.desk == desk), None)


def _has_copy(row: _Row, desk: bytes) -> bool:
    return any(to.desk == desk and not to.is_erased for to in unpack_recipients(row.recipients))


def read_leaves(connection: Connection, start: int, count: int) -> list[bytes]:
    """Read leaf data in leaf order."""
    return list(connection.execute(_LEAVES, {"start": start, "end": start + count}).scalars())


def read_hashes(connection: Connection, level: int, start: int, count: int) -> list[bytes]:
    """Read hashes of a tile level; those of level 0 are computed from the leaves."""
    if level == 0:
        return [leaf_hash(data) for data in read_leaves(connection, start, count)]
    place = {"level": level, "start": start, "end": start + count}
    return list(connection.execute(_TILE_HASHES, place).scalars())


def read_newest_checkpoint(connection: Connection) -> Checkpoint | None:
    """Read the checkpoint of the largest size, and of those the last published."""
    by_age = (checkpoints.c.size.desc(), checkpoints.c.at.desc())
    return _checkpoint(connection, select(checkpoints).order_by(*by_age).limit(1))


def read_first_checkpoint_over(connection: Connection, index: int) -> Checkpoint | None:
    """Read the checkpoint of the smallest size above a leaf, and of those the first published."""
    covering = select(checkpoints).where(checkpoints.c.size > index)
    by_age = (checkpoints.c.size, checkpoints.c.at)
    return _checkpoint(connection, covering.order_by(*by_age).limit(1))


def _checkpoint(connection: Connection, query: Select[Any]) -> Checkpoint | None:
    row = connection.execute(query).first()
    if row is None:
        return None
    return Checkpoint(size=row.size, note=row.note, note_hash=row.note_hash, at=row.at)


def read_checkpoints(
    connection: Connection, after_size: int, skip: int, limit: int
) -> list[Checkpoint]:
    """Read a page of checkpoints by ascending size and age."""
    by_age = (checkpoints.c.size, checkpoints.c.at, checkpoints.c.note_hash)
    query = select(checkpoints).where(checkpoints.c.size > after_size).order_by(*by_age)
    rows = connection.execute(query.offset(skip).limit(limit))
    return [
        Checkpoint(size=row.size, note=row.note, note_hash=row.note_hash, at=row.at) for row in rows
    ]


def has_anchor(connection: Connection, day: int) -> bool:
    """Whether the anchor of a day is there."""
    return connection.execute(select(anchors.c.day).where(anchors.c.day == day)).first() is not None


def read_anchors(connection: Connection, after_size: int, skip: int, limit: int) -> list[bytes]:
    """Read a page of the notes of anchors by ascending size and day."""
    query = select(anchors.c.note).where(anchors.c.size > after_size)
    page = query.order_by(anchors.c.size, anchors.c.day).offset(skip).limit(limit)
    return list(connection.execute(page).scalars())


def has_checkpoint(connection: Connection, note_hash: bytes) -> bool:
    """Whether a checkpoint is there."""
    query = select(checkpoints.c.note_hash).where(checkpoints.c.note_hash == note_hash)
    return connection.execute(query).first() is not None


def read_parked(connection: Connection, limit: int) -> list[Parked]:
    """Read what was parked, oldest first."""
    rows = connection.execute(select(parked).order_by(parked.c.arrival).limit(limit))
    return [Parked(Kind(row.kind), row.key, row.reason) for row in rows]


def _last_that_fits(
    connection: Connection, addressed: ColumnElement[bool], limit: int
) -> int | None:
    """The last counter of a page that stays below the limit of bytes, but for its first item."""
    # The lengths stand beside the values, so that this reads no ciphertext.
    sizes = connection.execute(
        select(
            mailbox_items.c.counter,
            func.length(envelopes.c.core)
            + func.length(envelopes.c.audit)
            + func.length(envelopes.c.recipients)
            + func.coalesce(func.length(_BODY), 0),
        )
        .join(envelopes, envelopes.c.leaf_index == mailbox_items.c.leaf_index)
        .where(addressed)
        .order_by(mailbox_items.c.counter)
        .limit(limit)
    )
    last: int | None = None
    total = 0
    for counter, size in sizes.all():
        total += size
        if last is not None and total > MAILBOX_BYTES_MAX:
            break
        last = counter
    return last


def _statement(row: _Row) -> StatementRow:
    return StatementRow(
        hash=row.hash,
        payload=row.payload,
        signatures=row.signatures,
        kind=row.kind,
        desk=row.desk,
        accepted_at=row.accepted_at,
        promise=row.promise,
        ordinal=row.ordinal,
        leaf_index=row.leaf_index,
    )


def _envelope(row: _Row) -> EnvelopeRow:
    recipients = unpack_recipients(row.recipients)
    return EnvelopeRow(
        id=row.id,
        core_hash=row.core_hash,
        core=row.core,
        signature=row.signature,
        body=row.body,
        audit=row.audit,
        sender_desk=row.sender_desk,
        sender_device=row.sender_device,
        recipients=recipients,
        accepted_at=row.accepted_at,
        promise=row.promise,
        blind=row.blind,
        ref=row.ref,
        leaf_index=row.leaf_index,
        counters=None if row.counters is None else counters_for(recipients, row.counters),
    )


def _item(row: _Row) -> MailboxItem:
    recipients = unpack_recipients(row.recipients)
    if not 0 <= row.position < len(recipients):
        raise DamagedRowError(f"mailbox item is for recipient {row.position} of {len(recipients)}")
    own = recipients[row.position]
    counters = counters_for(recipients, row.counters or b"")
    commitments = commit_counters([to.desk for to in recipients], counters, row.blind)
    return MailboxItem(
        counter=row.counter,
        leaf_index=row.leaf_index,
        core=row.core,
        signature=row.signature,
        body=row.body or None,
        audit=b"" if own.is_erased and own.kind == AUDIT_KIND else row.audit,
        # SPEC [H-3]: of what the desk erased it is not given the wrap, even while a later envelope
        # needs it.
        wrap=None if own.is_erased else own.wrap,
        # SPEC [L-7]: a recipient learns its own mailbox counter and nobody else's.
        proof=prove_counter(row.position, own.desk, row.blind, commitments),
    )


def receipt_of(row: _Row) -> ReceiptRow:
    """Make a receipt of a row of its table."""
    return ReceiptRow(
        hash=row.hash,
        payload=row.payload,
        signature=row.signature,
        desk=row.desk,
        sender_desk=row.sender_desk,
        envelope_ids=unpack_ids(row.envelope_ids),
        accepted_at=row.accepted_at,
        promise=row.promise,
        readers=unpack_ids(row.readers or b""),
        leaf_index=row.leaf_index,
    )
