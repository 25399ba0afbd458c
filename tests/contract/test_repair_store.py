"""The contract for a restored database: entries come back, and each object under its old place.

What was lost is written by a store of its own first, so that old places are those that a store
really gave. The restored database is SQLite and PostgreSQL in turn.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import update

from comity_protocol.leaves import notice_hash, receipt_hash, statement_hash, tag_of
from comity_server import store_repair, tables
from comity_server.store import (
    DirectoryMovedError,
    EnvelopeRow,
    NoticeRow,
    ReceiptRow,
    Row,
    StatementRow,
    Store,
)
from comity_server.vacancies import Vacancy
from support.rows import (
    ALPHA,
    AUDITOR,
    BETA,
    GAMMA,
    Place,
    accept,
    all_leaves,
    envelope,
    integrate_all,
    receipt,
    recipient,
    statement,
    whole_mailbox,
)

DESKS: Final = (ALPHA, BETA, GAMMA, AUDITOR)
NOW: Final = 1_800_000_000
HAD: Final = 5


@dataclass(frozen=True, slots=True)
class Lost:
    """A log as it was before the restore: its entries, and its rows in leaf order."""

    leaves: list[bytes]
    rows: list[Row]
    incarnation: bytes

    @property
    def missing(self) -> list[Row]:
        return self.rows[HAD:]


def stated(number: int) -> StatementRow:
    row = statement(number)
    return replace(row, hash=statement_hash(row.payload))


def received(number: int, *ids: bytes) -> ReceiptRow:
    row = receipt(number, ids=ids)
    return replace(row, hash=receipt_hash(row.payload), readers=(AUDITOR,))


def noticed(number: int) -> NoticeRow:
    payload = b"notice %d" % number
    return NoticeRow(
        hash=notice_hash(payload),
        payload=payload,
        signature=bytes(64),
        kind="stamped",
        desk=ALPHA,
        envelope_ids=(),
        readers=(BETA,),
        accepted_at=NOW,
        promise=b"promise",
    )


def written() -> list[Row]:
    """What is sent, in that order: mailboxes of three desks grow unevenly."""
    to = [recipient(desk) for desk in (ALPHA, BETA, GAMMA)]
    return [
        stated(0),
        envelope(1, to=to[:2]),
        envelope(2, to=to),
        envelope(3, to=to[1:]),
        received(1, envelope(1).id),
        stated(1),
        envelope(4, to=to[:1]),
        envelope(5, to=to),
        noticed(1),
        envelope(6, to=to[1:2]),
        envelope(7, to=to[:2]),
        received(2, envelope(5).id),
        envelope(8, to=to),
        stated(2),
        envelope(9, to=to[::2]),
    ]


async def send(store: Store, row: Row) -> Row:
    """Accept a row as a relay does; give it with its places."""
    statements = (await store.head()).statements
    match row:
        case StatementRow():
            return (await store.accept_statement(row, expected_ordinal=statements)).statements[0]
        case NoticeRow():
            done = await store.accept_notice(row, statements=statements, bury=lambda _: None)
            return done.notices[0]
        case ReceiptRow():
            return (await accept(store, receipts=[row], statements=statements)).receipts[0]
        case EnvelopeRow():
            return (await accept(store, row, statements=statements)).envelopes[0]


@pytest.fixture
async def lost(tmp_path: Path) -> Lost:
    async with Place(f"sqlite:///{tmp_path}/before.sqlite").opened() as (before,):
        rows = [await send(before, row) for row in written()]
        return Lost(await all_leaves(before), rows, (await before.head()).incarnation)


@pytest.fixture
async def restored(store: Store, lost: Lost) -> Store:
    """A database with the first rows, which got its entries back."""
    for row in written()[:HAD]:
        await send(store, row)
    await refill(store, lost.leaves[HAD:])
    return store


async def refill(store: Store, leaves: Sequence[bytes], expected_size: int = HAD) -> None:
    await store.refill(leaves, expected_size=expected_size, at=NOW, seconds=60)


async def fill(store: Store, row: Row) -> Row | None:
    """Bring a row again, without its places, as a member does."""
    bare = replace(row, leaf_index=None)
    if isinstance(bare, EnvelopeRow):
        bare = replace(bare, counters=None, commitments=None)
    if isinstance(bare, StatementRow):
        bare = replace(bare, ordinal=None)
    return await store.fill(bare, statements=(await store.head()).statements)


async def finish(store: Store, *, step: int = 100) -> None:
    """End a repair as the relay does."""
    while not (await store.place(step)).is_done:
        pass
    await store.settle(DESKS, at=NOW)
    await store.close_repair()


async def places(store: Store) -> dict[bytes, list[tuple[int, int, bytes]]]:
    return {
        desk: [
            (item.counter, item.leaf_index, item.core) for item in await whole_mailbox(store, desk)
        ]
        for desk in DESKS
    }


async def test_the_log_has_its_old_head_and_all_else_is_vacant(restored: Store, lost: Lost) -> None:
    """[R-16]"""
    head, repair = await restored.head(), await restored.repair()

    assert await all_leaves(restored) == lost.leaves
    assert head.size == len(lost.leaves)
    assert repair is not None
    assert (repair.had, repair.size, repair.seconds_left) == (HAD, len(lost.leaves), 60)
    assert (repair.open, repair.open_statement) == (len(lost.missing), 5)
    missing = [(HAD + at, tag_of(leaf)) for at, leaf in enumerate(lost.leaves[HAD:])]
    assert await restored.missing(-1, 100) == missing
    assert await restored.missing(-1, 2) == missing[:2]
    assert await restored.missing(HAD + 1, 2) == missing[2:4]


async def test_what_comes_back_gets_its_old_places(
    restored: Store, lost: Lost, tmp_path: Path
) -> None:
    """[R-3] [R-16] In whatever order, and statements in theirs."""
    statements = [row for row in lost.missing if isinstance(row, StatementRow)]
    others = [row for row in lost.missing if not isinstance(row, StatementRow)]
    for row in [*reversed(others), *statements]:
        assert await fill(restored, row) is not None
    repair = await restored.repair()
    assert repair is not None
    assert (repair.open, repair.open_statement) == (0, None)
    await finish(restored, step=3)

    async with Place(f"sqlite:///{tmp_path}/before.sqlite").opened() as (before,):
        assert await places(restored) == await places(before)
        for desk in DESKS:
            assert await restored.receipts(desk, -1, 100) == await before.receipts(desk, -1, 100)
            assert await restored.notices(desk, -1, 100) == await before.notices(desk, -1, 100)
        assert await restored.statements(0, 100) == await before.statements(0, 100)
    for row in lost.missing:
        if isinstance(row, EnvelopeRow):
            assert await restored.envelope(row.id) == row
    assert await restored.repair() is None
    assert (await restored.head()).incarnation != lost.incarnation


async def test_after_a_whole_repair_the_log_goes_on_as_if_nothing_had_been(
    restored: Store, lost: Lost, tmp_path: Path
) -> None:
    """[R-3]"""
    for row in lost.missing:
        await fill(restored, row)
    await finish(restored)
    new = envelope(20, to=[recipient(desk) for desk in (ALPHA, BETA, GAMMA)])
    after = await send(restored, new)

    async with Place(f"sqlite:///{tmp_path}/before.sqlite").opened() as (before,):
        assert after == await send(before, new)
        assert (await restored.head()).root == (await before.head()).root


LOST: Final = {
    "the first": {6},
    "the last": {14},
    "one to all in the middle": {7},
    "several": {6, 7, 9, 12},
    "a receipt and a notice": {8, 11},
    "all but one": {6, 7, 8, 9, 10, 11, 14},
}


@pytest.mark.parametrize("gone", LOST.values(), ids=LOST.keys())
async def test_what_comes_back_gets_its_old_places_although_other_things_stay_lost(
    restored: Store, lost: Lost, gone: set[int]
) -> None:
    """[R-3] And no counter is given twice, neither of what is back nor of what is lost."""
    for row in lost.missing:
        if row.leaf_index not in gone:
            assert await fill(restored, row) is not None
    await finish(restored, step=2)
    old = [row for row in lost.rows if isinstance(row, EnvelopeRow)]
    new = await send(restored, envelope(20, to=[recipient(desk) for desk in (ALPHA, BETA, GAMMA)]))

    assert isinstance(new, EnvelopeRow)
    assert new.counters is not None
    for row in old:
        if row.leaf_index not in gone:
            assert await restored.envelope(row.id) == row
        for to, counter in zip(row.recipients, row.counters or (), strict=True):
            assert new.counters[(ALPHA, BETA, GAMMA).index(to.desk)] > counter


async def test_the_repair_says_how_much_stayed_lost(restored: Store, lost: Lost) -> None:
    """[R-17]"""
    for row in lost.missing[:-3]:
        await fill(restored, row)
    await restored.place(100)
    first = await restored.settle(DESKS, at=NOW + 9)
    again = await restored.settle(DESKS, at=NOW + 10)

    assert (first.lost, first.ended_at) == (3, NOW + 9)
    assert again == first
    assert first.incarnation == (await restored.head()).incarnation


async def test_each_step_can_be_done_again_by_another_process(place: Place, lost: Lost) -> None:
    """[R-16] Killed between any two steps, the repair ends in the same way."""

    @asynccontextmanager
    async def process() -> AsyncIterator[Store]:
        async with place.opened() as (store,):
            yield store

    async with process() as store:
        for row in written()[:HAD]:
            await send(store, row)
        await refill(store, lost.leaves[HAD:9])
    async with process() as store:
        await refill(store, lost.leaves[HAD:9])
        await refill(store, lost.leaves[9:], expected_size=9)
        repair = await store.repair()
        assert repair is not None
        assert (repair.had, repair.size) == (HAD, len(lost.leaves))
    for row in lost.missing:
        async with process() as store:
            first = await fill(store, row)
            assert first is not None
            assert await fill(store, row) == first
    for _ in range(len(lost.missing)):
        async with process() as store:
            await store.place(1)
    async with process() as store:
        await finish(store)
        await finish_again(store)

        assert await all_leaves(store) == lost.leaves
        for row in lost.missing:
            if isinstance(row, EnvelopeRow):
                assert await store.envelope(row.id) == row


async def test_a_long_search_for_counters_is_cut_into_short_transactions(
    restored: Store, lost: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-15] Whoever waits for the head gets it after one search, and the end is the same."""
    monkeypatch.setattr(store_repair, "PLACING_SECONDS_MAX", -1)
    for row in lost.missing:
        await fill(restored, row)
    envelopes = [row for row in lost.missing if isinstance(row, EnvelopeRow)]
    steps = [await restored.place(100) for _ in range(len(envelopes) + 1)]

    assert [step.rows for step in steps] == [*((row,) for row in envelopes), ()]
    assert [step.is_done for step in steps] == [False] * len(envelopes) + [True]


async def finish_again(store: Store) -> None:
    await store.place(1)
    await store.close_repair()
    assert not await store.end_repair()


async def test_entries_that_do_not_continue_the_log_change_nothing(
    store: Store, lost: Lost
) -> None:
    """[R-16] Another process was first."""
    await send(store, written()[0])
    before = await store.head()
    await refill(store, lost.leaves[HAD:])

    assert await store.head() == before
    assert await store.repair() is None


async def test_nothing_is_given_a_place_during_a_repair(restored: Store, lost: Lost) -> None:
    """[R-3] Counters are not known yet; what is accepted all the same waits."""
    (row,) = (await accept(restored, envelope(20), statements=1)).envelopes
    await restored.integrate()

    assert row.leaf_index is None
    assert (await restored.head()).size == len(lost.leaves)
    for missing in lost.missing:
        await fill(restored, missing)
    await finish(restored)
    await integrate_all(restored)
    placed = await restored.envelope(row.id)
    assert placed is not None
    assert placed.leaf_index == len(lost.leaves)


async def test_what_was_pending_in_the_backup_takes_its_old_place(store: Store, lost: Lost) -> None:
    """[R-16]"""
    rows = written()
    for row in rows[:HAD]:
        await send(store, row)
    pending = [row for row in rows[HAD:] if isinstance(row, EnvelopeRow | ReceiptRow)]
    await accept(
        store,
        *[row for row in pending if isinstance(row, EnvelopeRow)],
        envelope(30),
        receipts=[row for row in pending if isinstance(row, ReceiptRow)],
        statements=1,
        integrate=False,
    )
    await refill(store, lost.leaves[HAD:])
    repair = await store.repair()
    assert repair is not None
    assert repair.open == len(lost.missing) - len(pending)
    for row in lost.missing:
        await fill(store, row)
    await finish(store)
    await integrate_all(store)

    for row in lost.missing:
        if isinstance(row, EnvelopeRow):
            assert await store.envelope(row.id) == row
    assert await store.receipts(ALPHA, -1, 10) == [
        row for row in lost.rows if isinstance(row, ReceiptRow)
    ]
    new = await store.envelope(envelope(30).id)
    assert new is not None
    assert new.leaf_index == len(lost.leaves)


async def test_what_fits_no_vacancy_is_not_stored(restored: Store) -> None:
    """[R-16]"""
    row = envelope(20)

    assert await fill(restored, row) is None
    assert await restored.envelope(row.id) is None


async def test_what_fits_a_tag_but_not_the_places_is_not_kept(
    restored: Store, place: Place, lost: Lost
) -> None:
    """[R-16] An entry that commits to other counters than any that can have been given."""
    index = 7
    leaf = lost.leaves[index][:33] + bytes(32)
    vacancies = tables.vacancies
    await place.execute(update(vacancies).where(vacancies.c.leaf_index == index).values(leaf=leaf))
    for row in lost.missing:
        await fill(restored, row)
    placed = await restored.place(100)
    await finish(restored)

    refused = lost.rows[index]
    assert isinstance(refused, EnvelopeRow)
    assert placed.refused == (refused.id,)
    assert await restored.envelope(refused.id) is None
    for row in lost.missing:
        if isinstance(row, EnvelopeRow) and row.leaf_index != index:
            assert await restored.envelope(row.id) == row


async def test_nothing_is_taken_once_counters_are_given(restored: Store, lost: Lost) -> None:
    """[R-3] A late one would need counters that are behind those that others got."""
    await restored.place(1)

    assert await fill(restored, lost.missing[-3]) is None


async def test_a_known_id_gives_what_is_stored(restored: Store, lost: Lost) -> None:
    """[R-2]"""
    row = lost.rows[6]
    assert isinstance(row, EnvelopeRow)
    await fill(restored, row)
    again = await fill(restored, replace(row, promise=b"another", core_hash=bytes(32)))

    assert isinstance(again, EnvelopeRow)
    assert (again.promise, again.core_hash) == (row.promise, row.core_hash)
    vacancy = (await restored.vacancies([tag_of(lost.leaves[6])]))[tag_of(lost.leaves[6])]
    assert vacancy == Vacancy(6, lost.leaves[6], row.id)


async def test_statements_come_back_in_leaf_order(restored: Store, lost: Lost) -> None:
    """[R-6] The directory is folded in leaf order."""
    first, second = (row for row in lost.missing if isinstance(row, StatementRow))

    assert await fill(restored, second) is None
    with pytest.raises(DirectoryMovedError):
        await restored.fill(replace(first, ordinal=None, leaf_index=None), statements=0)
    assert await fill(restored, first) == first
    assert await fill(restored, second) == second


async def test_a_statement_that_came_back_without_boxes_is_given_them_later(
    restored: Store, lost: Lost
) -> None:
    (first, _) = (row for row in lost.missing if isinstance(row, StatementRow))
    device = bytes(16)
    boxed = replace(first, boxes=((3, device, b"box"),), previous=(3, b"before"))
    await fill(restored, first)
    assert await restored.boxes(ALPHA, device) == ([], [])
    for _ in range(2):
        assert await fill(restored, boxed) == first

    assert await restored.boxes(ALPHA, device) == ([(3, b"box")], [(3, b"before")])


async def test_a_repair_is_ended_by_hand(restored: Store) -> None:
    assert await restored.end_repair()

    repair = await restored.repair()
    assert repair is not None
    assert repair.seconds_left == 0


async def test_a_repair_that_is_not_settled_is_not_forgotten(restored: Store) -> None:
    """[R-17]"""
    await restored.close_repair()

    assert await restored.repair() is not None
