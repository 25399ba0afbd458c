"""Takes a desk's copies of envelopes out of the database: plain functions over a connection.

A copy is what is kept of an envelope for one desk: the wrap by which the desk opens it, and the
ciphertexts as long as somebody has a wrap for them. The envelope's row, core, signature and places
stay, so its entry in the log, every proof and every counter stay what they were.

The caller holds the directory and the head row, so nothing refers to a wrap while it goes.

Rules:

* [H-3] An erasure takes away only the copy of the desk that states it.
* [H-4] What is on hold is not erased.
* [H-5] After an erasure or the end of retention neither the desk's wrap is there, nor the body
  once no desk may open it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    Connection,
    Row,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    text,
    update,
)

from comity_server.store import AUDIT_KIND, ERASED_KIND, Copy, Recipient
from comity_server.store_reads import Among
from comity_server.store_values import pack_recipients, unpack_counters, unpack_recipients
from comity_server.tables import envelopes, holds, mailbox_items, statements
from comity_server.tables import head as heads

_Row: TypeAlias = "Row[*tuple[Any, ...]]"

_BY_KEY: Final = update(envelopes).where(envelopes.c.id == bindparam("key_"))
_SET_RECIPIENTS: Final = _BY_KEY.values(recipients=bindparam("recipients_"))
_TAKE_BODY: Final = _BY_KEY.values(body=b"")
_TAKE_AUDIT: Final = _BY_KEY.values(audit=b"")
_TAKE_ITEM: Final = (
    update(mailbox_items)
    .where(mailbox_items.c.desk == bindparam("desk_"))
    .where(mailbox_items.c.counter == bindparam("counter_"))
    .values(kind=ERASED_KIND)
)
_COUNT: Final = update(heads).values(erasures=heads.c.erasures + 1)
_HOLD: Final = text(
    "INSERT INTO holds (envelope_id, desk) VALUES (:envelope_id, :desk) "
    "ON CONFLICT (envelope_id, desk) DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An envelope without its ciphertexts."""

    id: bytes
    ref: bytes | None
    recipients: tuple[Recipient, ...]
    counters: tuple[int, ...]


def erase(connection: Connection, among: Among, copies: Sequence[Copy]) -> int:
    """Take copies away and count this as one erasure; give how many were there.

    1. Each copy is marked, so that it is not served any more.
    2. A wrap goes when no copy of its desk needs it: the envelope's own, or one that refers to it.
    3. A ciphertext goes when nobody who may open it has a copy.
    """
    desks: dict[bytes, set[bytes]] = {}
    for copy in copies:
        desks.setdefault(copy.envelope, set()).add(copy.desk)
    # (1)
    named = _read(connection, envelopes.c.leaf_index.is_not(None), among(envelopes.c.id, [*desks]))
    marked = [
        (entry, after)
        for entry in named.values()
        if (after := _mark(entry, desks[entry.id])) != entry
    ]
    if not marked:
        return 0
    changed = {after.id: after for _, after in marked}
    taken = [place for before, after in marked for place in _places(before, after)]
    # (2)
    roots = {entry.ref or entry.id for entry in changed.values()}
    family = _read(
        connection, or_(among(envelopes.c.id, [*roots]), among(envelopes.c.ref, [*roots]))
    )
    family |= changed
    for root in roots & family.keys():
        after = _without_wraps(family[root], _needed(root, family.values()))
        if after != family[root]:
            changed[root] = after
    # (3)
    nobody_reads = [one.id for one in changed.values() if _is_gone(one, but_for=AUDIT_KIND)]
    nobody_counts = [one.id for one in changed.values() if _is_gone(one)]
    _run(connection, _SET_RECIPIENTS, [_values(one) for one in changed.values()])
    _run(connection, _TAKE_BODY, [{"key_": id_} for id_ in nobody_reads])
    _run(connection, _TAKE_AUDIT, [{"key_": id_} for id_ in nobody_counts])
    _run(connection, _TAKE_ITEM, [{"desk_": desk, "counter_": at} for desk, at in taken])
    connection.execute(_COUNT)
    return len(taken)


def is_held(connection: Connection, among: Among, ids: Sequence[bytes]) -> bool:
    """Whether any desk holds any of these envelopes."""
    query = select(holds.c.desk).where(among(holds.c.envelope_id, ids))
    return connection.execute(query.limit(1)).first() is not None


def without_held(connection: Connection, among: Among, copies: Sequence[Copy]) -> list[Copy]:
    """Give the copies of envelopes that no desk holds."""
    ids = {copy.envelope for copy in copies}
    found = connection.execute(
        select(holds.c.envelope_id).where(among(holds.c.envelope_id, [*ids]))
    )
    held = {bytes(id_) for (id_,) in found}
    return [copy for copy in copies if copy.envelope not in held]


def hold(connection: Connection, ids: Sequence[bytes], desk: bytes) -> None:
    """Let nobody erase these envelopes until this desk releases them."""
    _run(connection, _HOLD, [{"envelope_id": id_, "desk": desk} for id_ in ids])


def release(connection: Connection, among: Among, ids: Sequence[bytes], desk: bytes) -> None:
    """End the holds of this desk, and of no other, on these envelopes."""
    connection.execute(delete(holds).where(among(holds.c.envelope_id, ids), holds.c.desk == desk))


def find_expired(
    connection: Connection, desk: bytes, kind: int, below_index: int, limit: int
) -> list[Copy]:
    """Find a desk's oldest copies of a kind below a leaf, but for those on hold."""
    # SPEC [H-4]: what is on hold is not erased by any desk, nor by age.
    is_free = ~exists(select(holds.c.desk).where(holds.c.envelope_id == envelopes.c.id))
    ids = connection.execute(
        select(envelopes.c.id)
        .join(mailbox_items, envelopes.c.leaf_index == mailbox_items.c.leaf_index)
        .where(
            mailbox_items.c.desk == desk,
            mailbox_items.c.kind == kind,
            mailbox_items.c.leaf_index < below_index,
            is_free,
        )
        .order_by(mailbox_items.c.counter)
        .limit(limit)
    )
    return [Copy(id_, desk) for id_ in ids.scalars()]


def find_index_at(connection: Connection, instant: int) -> int:
    """Find the leaf index below which all envelopes were accepted before an instant."""
    low, high = 0, connection.execute(select(heads.c.size)).scalar_one()
    query = (
        select(envelopes.c.leaf_index, envelopes.c.accepted_at)
        .where(envelopes.c.leaf_index >= bindparam("start"))
        .order_by(envelopes.c.leaf_index)
        .limit(1)
    )
    # Half of what is left goes each time, so there are at most as many as the size has bits.
    while low < high:
        middle = (low + high) // 2
        found = connection.execute(query, {"start": middle}).first()
        if found is None or found.accepted_at >= instant:
            high = middle
        else:
            low = found.leaf_index + 1
    return int(low)


def find_superseded_below(connection: Connection, desk: bytes, instant: int) -> int:
    """Find the leaf index of the newest epoch of a desk that was accepted before an instant."""
    query = select(func.max(statements.c.leaf_index)).where(
        statements.c.desk == desk,
        statements.c.kind.in_(("epoch", "removal")),
        statements.c.accepted_at < instant,
    )
    return connection.execute(query).scalar() or 0


def _read(connection: Connection, *conditions: Any) -> dict[bytes, _Entry]:  # noqa: ANN401 - SQL
    rows = connection.execute(
        select(envelopes.c.id, envelopes.c.ref, envelopes.c.recipients, envelopes.c.counters).where(
            *conditions
        )
    )
    return {row.id: _entry(row) for row in rows}


def _entry(row: _Row) -> _Entry:
    counters = () if row.counters is None else unpack_counters(row.counters)
    return _Entry(row.id, row.ref, unpack_recipients(row.recipients), counters)


def _mark(entry: _Entry, desks: set[bytes]) -> _Entry:
    # SPEC [H-3]: only the copy of the desk that states it.
    return replace(
        entry,
        recipients=tuple(
            replace(to, is_erased=True) if to.desk in desks else to for to in entry.recipients
        ),
    )


def _places(before: _Entry, after: _Entry) -> list[tuple[bytes, int]]:
    """Give the places in mailboxes of the copies that one has and the other has not."""
    return [
        (new.desk, counter)
        for old, new, counter in zip(
            before.recipients, after.recipients, before.counters, strict=True
        )
        if old != new
    ]


def _needed(root: bytes, family: Iterable[_Entry]) -> set[bytes]:
    """Give the desks that still need their wrap of an envelope, for it or for one after it."""
    return {
        to.desk
        for entry in family
        if root in (entry.id, entry.ref)
        for to in entry.recipients
        if not to.is_erased
    }


def _without_wraps(root: _Entry, needed: set[bytes]) -> _Entry:
    # SPEC [H-5]: after an erasure the relay does not hold the desk's wrap.
    return replace(
        root,
        recipients=tuple(
            to if to.desk in needed else replace(to, wrap=None) for to in root.recipients
        ),
    )


def _is_gone(entry: _Entry, *, but_for: int | None = None) -> bool:
    """Whether every desk's copy was erased; those of auditors may be left out."""
    # SPEC [H-5]: nor the body once no desk may open it.
    return all(to.is_erased for to in entry.recipients if to.kind != but_for)


def _values(entry: _Entry) -> Mapping[str, object]:
    return {"key_": entry.id, "recipients_": pack_recipients(entry.recipients)}


def _run(connection: Connection, query: Any, rows: Sequence[Mapping[str, object]]) -> None:  # noqa: ANN401 - SQL
    if rows:
        connection.execute(query, rows)
