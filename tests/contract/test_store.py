"""One contract for both databases: what the relay stored stays, once, in one order.

Every test runs on SQLite and on PostgreSQL, over the interface alone; those that break a database's
settings or tables know which one it is. Several stores on one database stand for several workers.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, make_url, text, update

from comity_protocol.leaves import (
    envelope_leaf,
    receipt_leaf,
    statement_leaf,
)
from comity_protocol.merkle import EMPTY_ROOT, Frontier, leaf_hash
from comity_server import tables
from comity_server.store import (
    AUDIT_KIND,
    MAILBOX_BYTES_MAX,
    PENDING_ROWS_MAX,
    Checkpoint,
    Copy,
    DirectoryMovedError,
    EnvelopeRow,
    Kind,
    MailboxItem,
    Parked,
    SchemaError,
    StatementRow,
    Store,
    StoreError,
    StoreUnavailableError,
    UnsafeStoreError,
)
from comity_server.store_postgresql import PostgresqlStore
from comity_server.store_sqlite import make_safe
from comity_server.stores import open_store
from support.postgres import PostgresServer
from support.rows import (
    ALPHA,
    AUDITOR,
    BETA,
    GAMMA,
    Place,
    accept,
    all_leaves,
    envelope,
    frontier_of,
    integrate_all,
    leaf,
    name,
    proof,
    receipt,
    recipient,
    statement,
    whole_mailbox,
)

# A new store.


async def test_a_new_store_has_an_empty_log(store: Store) -> None:
    head = await store.head()

    assert (head.size, head.root, head.statements) == (0, EMPTY_ROOT, 0)
    assert head.frontier == Frontier().serialize()
    assert len(head.incarnation) == 16


async def test_an_empty_store_answers_every_question(store: Store) -> None:
    assert await store.statements(0, 10) == []
    assert await store.boxes(ALPHA, bytes(16)) == ([], [])
    assert await store.mailbox(ALPHA, 0, 10) == []
    assert await store.wrap(bytes(16), ALPHA) is None
    assert await store.envelope(bytes(16)) is None
    assert await store.cores([bytes(16)]) == {}
    assert await store.receipts(ALPHA, -1, 10) == []
    assert await store.notices(ALPHA, -1, 10) == []
    assert await store.erase([Copy(bytes(16), ALPHA)]) == 0
    assert await store.expire(ALPHA, 0, below_index=1, limit=1) == 0
    assert await store.index_at(1_800_000_000) == 0
    assert await store.superseded_below(ALPHA, 1_800_000_000) == 0
    assert await store.leaves(0, 10) == []
    assert await store.hashes(0, 0, 10) == []
    assert await store.hashes(1, 0, 10) == []
    assert await store.newest_checkpoint() is None
    assert not await store.has_checkpoint(bytes(32))
    assert await store.parked(10) == []
    assert (await store.integrate()).integrated == ()


async def test_two_stores_that_open_an_empty_database_at_once_agree(place: Place) -> None:
    async with place.opened(4) as stores:
        heads = [await store.head() for store in stores]

    assert len({head.incarnation for head in heads}) == 1


async def test_two_databases_have_different_incarnations(store: Store, tmp_path: Path) -> None:
    other = Place(f"sqlite:///{tmp_path}/other.sqlite")

    async with other.opened() as (second,):
        assert (await second.head()).incarnation != (await store.head()).incarnation


async def test_closing_twice_is_harmless(place: Place) -> None:
    store = open_store(place.url)
    await store.open()

    await store.close()
    await store.close()


# Accepting envelopes and receipts.


async def test_a_new_envelope_gets_its_leaf_index_and_counters(store: Store) -> None:
    """[R-3]"""
    first = envelope(1)
    second = envelope(2, to=(recipient(BETA), recipient(GAMMA)))

    done = await accept(store, first, second)

    assert done.envelopes == (
        replace(first, leaf_index=0, counters=(1, 1)),
        replace(second, leaf_index=1, counters=(2, 1)),
    )
    assert done.integrated == done.envelopes
    assert done.head == await store.head()


async def test_an_accepted_envelope_is_read_back_whole(store: Store) -> None:
    row = envelope(
        1,
        to=(recipient(ALPHA), recipient(AUDITOR, kind=AUDIT_KIND), recipient(BETA, kind=1)),
        body=bytes(range(256)) * 1024,
    )

    (stored,) = (await accept(store, row)).envelopes

    assert stored == replace(row, leaf_index=0, counters=(1, 1, 1))
    assert await store.envelope(row.id) == stored


async def test_an_accepted_envelope_is_on_disk_when_the_store_says_so(place: Place) -> None:
    """[R-1] A second connection, opened after the answer, has it."""
    async with place.opened() as (store,):
        await accept(store, envelope(1), integrate=False)
        async with place.opened() as (other,):
            seen = await other.envelope(envelope(1).id)

    assert seen == envelope(1)


async def test_a_known_id_returns_the_original_promise_and_changes_nothing(store: Store) -> None:
    """[R-2]"""
    (original,) = (await accept(store, envelope(1))).envelopes
    head = await store.head()

    again = await accept(
        store, replace(envelope(1), promise=b"another", accepted_at=0, core_hash=bytes(32))
    )

    assert again.envelopes == (original,)
    assert again.integrated == ()
    assert await store.head() == head
    assert len(await store.mailbox(BETA, 0, 10)) == 1


async def test_a_known_pending_id_returns_the_original_promise(store: Store) -> None:
    """[R-2]"""
    await accept(store, envelope(1), integrate=False)

    again = await accept(store, replace(envelope(1), promise=b"another"), integrate=False)
    (step,) = await integrate_all(store)

    assert again.envelopes == (envelope(1),)
    assert len(step.integrated) == 1


async def test_a_known_pending_id_is_integrated_when_it_comes_again(store: Store) -> None:
    """[R-2] The answer need not say so yet; what was pending is integrated all the same."""
    await accept(store, envelope(1), integrate=False)

    again = await accept(store, envelope(1))

    assert again.integrated == (replace(envelope(1), leaf_index=0, counters=(1, 1)),)
    assert again.envelopes[0].promise == envelope(1).promise


async def test_an_id_twice_in_one_batch_is_stored_once(store: Store) -> None:
    """[R-2]"""
    clash = replace(envelope(1), core_hash=bytes(32), promise=b"another")

    done = await accept(store, envelope(1), envelope(2), clash)

    assert done.envelopes[2] == done.envelopes[0]
    assert done.envelopes[0].promise == envelope(1).promise
    assert [row.leaf_index for row in done.integrated] == [0, 1]


async def test_known_and_new_ids_in_one_batch_come_back_in_the_order_given(store: Store) -> None:
    """[R-2]"""
    await accept(store, envelope(1))

    done = await accept(store, envelope(2), envelope(1), envelope(3))

    assert [row.core for row in done.envelopes] == [b"core 2", b"core 1", b"core 3"]
    assert [row.leaf_index for row in done.envelopes] == [1, 0, 2]


async def test_the_same_id_at_the_same_time_from_two_stores_is_stored_once(place: Place) -> None:
    """[R-2] Whoever comes second is given what the first one stored, pending or integrated."""
    async with place.opened(2) as stores:
        for number in range(12):
            offers = [
                accept(
                    store,
                    *(replace(envelope(n), promise=b"by %d" % i) for n in order),
                    integrate=(number + i) % 3 == 0,
                )
                for i, (store, order) in enumerate(
                    (store, order)
                    for store in stores
                    for order in ((number, number + 100), (number + 100, number))
                )
            ]
            answers = await asyncio.gather(*offers)
            promises = {row.id: set[bytes]() for row in answers[0].envelopes}
            for row in (row for answer in answers for row in answer.envelopes):
                promises[row.id].add(row.promise)
            assert all(len(given) == 1 for given in promises.values())
        await integrate_all(stores[0])

        items = await whole_mailbox(stores[1], BETA)

    assert [item.counter for item in items] == list(range(1, 25))
    assert len({item.core for item in items}) == 24


async def test_a_receipt_is_stored_once_and_integrated_after_the_envelopes(store: Store) -> None:
    """[R-2] [R-3]"""
    done = await accept(store, envelope(1), receipts=[receipt(1), receipt(1)])
    again = await accept(store, receipts=[replace(receipt(1), promise=b"another")])

    stored = replace(receipt(1), leaf_index=1)
    assert done.receipts == (stored, stored)
    assert again.receipts == (stored,)
    assert await store.leaves(0, 10) == [
        leaf(envelope(1), 1, 1),
        receipt_leaf(receipt(1).payload),
    ]


# Order and gaplessness.


async def test_pending_rows_are_integrated_in_the_order_of_arrival_before_new_ones(
    store: Store,
) -> None:
    """[R-5]"""
    pending = await accept(store, envelope(1), receipts=[receipt(1)], integrate=False)
    await accept(store, envelope(2), integrate=False)

    done = await accept(store, envelope(3))

    assert pending.envelopes == (envelope(1),)
    assert pending.integrated == ()
    assert done.integrated == (
        replace(envelope(1), leaf_index=0, counters=(1, 1)),
        replace(receipt(1), leaf_index=1),
        replace(envelope(2), leaf_index=2, counters=(2, 2)),
        replace(envelope(3), leaf_index=3, counters=(3, 3)),
    )
    assert await store.envelope(envelope(2).id) == done.integrated[2]


async def test_stores_that_take_turns_go_on_where_the_other_one_stopped(place: Place) -> None:
    """[R-3] What a store remembers of the log is worth nothing once another one has written."""
    async with place.opened(2) as (left, right):
        await accept(left, envelope(1), envelope(2))
        await accept(right, envelope(3))
        await right.accept_statement(statement(1), expected_ordinal=0)
        await accept(left, envelope(4), statements=1, integrate=False)
        turns = [
            await accept(store, envelope(number), receipts=[receipt(number)], statements=1)
            for number, store in enumerate((left, right, right, left), start=5)
        ]
        leaves = await all_leaves(left)
        items = await whole_mailbox(right, BETA)

    assert [row.leaf_index for row in turns[0].integrated] == [4, 5, 6]
    assert [turn.envelopes[0].counters for turn in turns] == [(n, n) for n in range(5, 9)]
    assert [turn.receipts[0].leaf_index for turn in turns] == [6, 8, 10, 12]
    assert [item.counter for item in items] == list(range(1, 9))
    assert turns[-1].head.root == frontier_of(leaves).root


async def test_a_pending_envelope_is_in_no_mailbox_and_has_no_leaf(store: Store) -> None:
    await accept(store, envelope(1), receipts=[receipt(1)], integrate=False)

    assert await store.mailbox(BETA, 0, 10) == []
    assert await store.receipts(ALPHA, -1, 10) == []
    assert await store.notices(ALPHA, -1, 10) == []
    assert await store.erase([Copy(bytes(16), ALPHA)]) == 0
    assert await store.expire(ALPHA, 0, below_index=1, limit=1) == 0
    assert await store.index_at(1_800_000_000) == 0
    assert await store.superseded_below(ALPHA, 1_800_000_000) == 0
    assert await store.leaves(0, 10) == []
    assert (await store.head()).size == 0


async def test_a_long_backlog_is_integrated_in_steps_and_new_rows_queue_behind_it(
    store: Store,
) -> None:
    """[R-5] The lock is not held for long, and nobody overtakes."""
    count = PENDING_ROWS_MAX + 5
    for start in range(0, count, 128):
        rows = [envelope(n) for n in range(start, min(start + 128, count))]
        await accept(store, *rows, integrate=False)

    first = await accept(store, envelope(5_000))
    second = await store.accept_statement(statement(1), expected_ordinal=0)

    assert len(first.integrated) == PENDING_ROWS_MAX
    assert first.envelopes[0].leaf_index is None
    assert second.statements[0].leaf_index == count + 1
    assert (await store.envelope(envelope(5_000).id) or envelope(0)).leaf_index == count
    assert [item.core for item in await whole_mailbox(store, BETA)] == [
        *(b"core %d" % n for n in range(count)),
        b"core 5000",
    ]


async def test_a_statement_behind_a_long_backlog_waits_its_turn(store: Store) -> None:
    """[R-6] What was accepted before a removal gets its index before it."""
    count = PENDING_ROWS_MAX + 1
    for start in range(0, count, 128):
        rows = [envelope(n) for n in range(start, min(start + 128, count))]
        await accept(store, *rows, integrate=False)

    done = await store.accept_statement(statement(1), expected_ordinal=0)
    (step,) = await integrate_all(store)

    assert done.statements[0].ordinal == 1
    assert done.statements[0].leaf_index is None
    assert done.head.statements == 1
    assert [type(row) for row in step.integrated] == [EnvelopeRow, StatementRow]
    assert (await store.statements(0, 10))[0].leaf_index == count


async def test_two_integrators_leave_no_gap_and_lose_nothing(place: Place) -> None:
    """[R-3] [R-5] 500 envelopes from two stores that both accept, leave pending and integrate."""
    desks = [name("many", n)[:16] for n in range(7)]

    def row(number: int) -> EnvelopeRow:
        to = {desks[number % 7], desks[number % 3], desks[number % 5]}
        return envelope(number, to=[recipient(desk) for desk in sorted(to)])

    async def work(store: Store, numbers: Sequence[int], *, integrate: bool) -> None:
        for start in range(0, len(numbers), 8):
            rows = [row(number) for number in numbers[start : start + 8]]
            await accept(store, *rows, integrate=integrate)
            if not integrate and start % 3 == 0:
                await store.integrate()

    async with place.opened(2) as (left, right):
        await asyncio.gather(
            work(left, range(125), integrate=True),
            work(left, range(125, 250), integrate=False),
            work(right, range(250, 375), integrate=True),
            work(right, range(375, 500), integrate=False),
        )
        await integrate_all(left)

        stored = [await right.envelope(row(number).id) for number in range(500)]
        placed = sorted(
            (found for found in stored if found), key=lambda found: found.leaf_index or 0
        )
        mailboxes = {desk: await whole_mailbox(right, desk) for desk in desks}
        leaves = await all_leaves(right)
        head = await right.head()

    assert [found.leaf_index for found in placed] == list(range(500))
    for desk, items in mailboxes.items():
        assert [item.counter for item in items] == list(range(1, len(items) + 1))
        # Leaf order and counter order are the same order.
        assert [item.leaf_index for item in items] == [
            found.leaf_index for found in placed if desk in {to.desk for to in found.recipients}
        ]
    assert leaves == [leaf(found, *(found.counters or ())) for found in placed]
    assert (head.size, head.root) == (500, frontier_of(leaves).root)


# The log.


async def test_the_root_and_the_frontier_are_those_of_the_leaves(store: Store) -> None:
    """[R-3]"""
    done = await accept(store, *(envelope(n) for n in range(5)), receipts=[receipt(1)])
    moved = await store.accept_statement(statement(1), expected_ordinal=0)

    leaves = await all_leaves(store)
    assert leaves == [
        *(leaf(envelope(n), n + 1, n + 1) for n in range(5)),
        receipt_leaf(receipt(1).payload),
        statement_leaf(statement(1).payload),
    ]
    assert done.head.root == frontier_of(leaves[:6]).root
    assert moved.head.root == frontier_of(leaves).root
    assert moved.head.frontier == frontier_of(leaves).serialize()
    assert await store.head() == moved.head


async def test_tile_hashes_are_the_roots_of_complete_tiles(store: Store) -> None:
    for start in range(0, 600, 100):
        await accept(store, *(envelope(n) for n in range(start, start + 100)))

    leaves = await store.leaves(0, 600)
    hashed = [leaf_hash(leaf) for leaf in leaves]
    assert await store.hashes(0, 0, 600) == hashed
    assert await store.hashes(0, 254, 4) == hashed[254:258]
    assert await store.hashes(0, 598, 10) == hashed[598:]
    assert await store.hashes(1, 0, 256) == [
        frontier_of(leaves[:256]).root,
        frontier_of(leaves[256:512]).root,
    ]
    assert await store.hashes(1, 1, 1) == [frontier_of(leaves[256:512]).root]
    assert await store.hashes(2, 0, 256) == []
    assert await store.leaves(255, 2) == leaves[255:257]


# The directory.


async def test_statements_are_numbered_in_the_order_of_acceptance(store: Store) -> None:
    first = await store.accept_statement(statement(1, desk=None), expected_ordinal=0)
    second = await store.accept_statement(statement(2), expected_ordinal=1)

    expected = [
        replace(statement(1, desk=None), ordinal=1, leaf_index=0),
        replace(statement(2), ordinal=2, leaf_index=1),
    ]
    assert [*first.statements, *second.statements] == expected
    assert [*first.integrated, *second.integrated] == expected
    assert await store.statements(0, 10) == expected
    assert (await store.head()).statements == 2


async def test_a_known_statement_returns_the_original_even_if_the_directory_moved(
    store: Store,
) -> None:
    """[R-2]"""
    first = await store.accept_statement(statement(1), expected_ordinal=0)
    await store.accept_statement(statement(2), expected_ordinal=1)

    again = await store.accept_statement(
        replace(statement(1), promise=b"another", boxes=((1, bytes(16), b"box"),)),
        expected_ordinal=0,
    )

    assert again.statements == first.statements
    assert again.integrated == ()
    assert await store.boxes(ALPHA, bytes(16)) == ([], [])


async def test_a_statement_under_an_older_directory_is_refused(store: Store) -> None:
    """[R-6]"""
    await store.accept_statement(statement(1), expected_ordinal=0)

    with pytest.raises(DirectoryMovedError, match="at statement 1, expected 0") as caught:
        await store.accept_statement(statement(2), expected_ordinal=0)

    assert caught.value.newest == 1
    assert len(await store.statements(0, 10)) == 1


@pytest.mark.parametrize("integrate", [True, False])
async def test_a_batch_under_an_older_directory_is_refused_whole(
    store: Store, *, integrate: bool
) -> None:
    """[R-6]"""
    await accept(store, envelope(1), integrate=integrate)
    await store.accept_statement(statement(1), expected_ordinal=0)

    with pytest.raises(DirectoryMovedError):
        await accept(store, envelope(1), envelope(2), receipts=[receipt(1)], integrate=integrate)

    assert await store.envelope(envelope(2).id) is None
    assert await integrate_all(store) == []


@pytest.mark.parametrize("integrate", [True, False])
async def test_known_ids_return_the_original_even_if_the_directory_moved(
    store: Store, *, integrate: bool
) -> None:
    """[R-2]"""
    await accept(store, envelope(1), receipts=[receipt(1)])
    await store.accept_statement(statement(1), expected_ordinal=0)

    again = await accept(store, envelope(1), receipts=[receipt(1)], integrate=integrate)

    assert again.envelopes[0].leaf_index == 0
    assert again.receipts[0].leaf_index == 1


async def test_nothing_slips_in_behind_a_removal(place: Place) -> None:
    """[R-6] While statements are accepted, no envelope is placed after one that it did not know."""
    known: dict[bytes, int] = {}

    async def send(store: Store, numbers: Sequence[int], *, integrate: bool) -> None:
        newest = 0
        for number in numbers:
            for _ in range(100):
                known[envelope(number).id] = newest
                try:
                    await accept(store, envelope(number), statements=newest, integrate=integrate)
                    break
                except DirectoryMovedError as moved:
                    newest = moved.newest

    async def remove(store: Store) -> None:
        for ordinal in range(10):
            await store.accept_statement(statement(ordinal), expected_ordinal=ordinal)

    async with place.opened(2) as (left, right):
        await asyncio.gather(
            send(left, range(40), integrate=True),
            send(left, range(40, 80), integrate=False),
            send(right, range(80, 120), integrate=False),
            remove(right),
        )
        await integrate_all(left)

        indexes = [row.leaf_index or 0 for row in await left.statements(0, 100)]
        rows = [await left.envelope(envelope(number).id) for number in range(120)]

    for row in rows:
        assert row is not None
        assert row.leaf_index is not None
        assert sum(index < row.leaf_index for index in indexes) == known[row.id]


async def test_statements_come_in_pages_and_below_a_size(store: Store) -> None:
    for ordinal in range(5):
        await accept(store, envelope(ordinal), statements=ordinal)
        await store.accept_statement(statement(ordinal), expected_ordinal=ordinal)

    async def page(after: int, limit: int, below: int | None = None) -> list[int | None]:
        rows = await store.statements(after, limit, below_index=below)
        return [row.ordinal for row in rows]

    assert await page(0, 3) == [1, 2, 3]
    assert await page(3, 3) == [4, 5]
    assert await page(5, 3) == []
    # Their leaf indexes are 1, 3, 5, 7, 9.
    assert await page(0, 10, 5) == [1, 2]
    assert await page(0, 10, 6) == [1, 2, 3]
    assert await page(2, 10, 0) == []


async def test_a_device_gets_its_boxes_and_its_desk_s_chain(store: Store) -> None:
    device, other = name("device", 1)[:16], name("device", 2)[:16]
    rows = [
        replace(statement(1), boxes=((1, device, b"one"), (1, other, b"not yours"))),
        replace(statement(2), boxes=((2, device, b"two"),), previous=(2, b"seed of 1")),
        replace(statement(3), boxes=((1, device, b"one anew"),)),
        replace(statement(4, desk=BETA), boxes=((3, device, b"of beta"),), previous=(3, b"beta")),
    ]
    for ordinal, row in enumerate(rows):
        await store.accept_statement(row, expected_ordinal=ordinal)

    assert await store.boxes(ALPHA, device) == (
        [(1, b"one anew"), (2, b"two")],
        [(2, b"seed of 1")],
    )
    assert await store.boxes(ALPHA, other) == ([(1, b"not yours")], [(2, b"seed of 1")])
    assert await store.boxes(GAMMA, device) == ([], [])


# Handing over.


async def test_a_mailbox_holds_what_is_addressed_to_the_desk_and_nothing_else(
    store: Store,
) -> None:
    first = envelope(1)
    third = envelope(3, sender=GAMMA, to=(recipient(ALPHA), recipient(GAMMA)))
    await accept(store, first, envelope(2, to=(recipient(GAMMA),)), third)

    assert await store.mailbox(ALPHA, 0, 10) == [
        MailboxItem(
            counter,
            index,
            row.core,
            bytes(64),
            b"body",
            b"audit",
            b"wrap" + ALPHA,
            proof(row, *counters),
        )
        for counter, index, row, counters in ((1, 0, first, (1, 1)), (2, 2, third, (2, 2)))
    ]


async def test_a_mailbox_item_leads_to_the_leaf_and_holds_nobody_else_s_counter(
    store: Store,
) -> None:
    """[L-7] [R-3] Each recipient comes to the same leaf from what it alone is given."""
    to = (recipient(ALPHA), recipient(AUDITOR, kind=AUDIT_KIND), recipient(BETA))
    await accept(store, envelope(1), envelope(2, to=(recipient(BETA),)), row := envelope(3, to=to))

    items = [(await store.mailbox(entry.desk, 0, 10))[-1] for entry in to]

    assert [item.counter for item in items] == [2, 1, 3]
    assert [item.proof for item in items] == [
        proof(row, 2, 1, 3, position=position) for position in range(3)
    ]
    assert {
        envelope_leaf(row.core_hash, item.proof.commitments(position, to[position].desk, counter))
        for position, (item, counter) in enumerate(zip(items, (2, 1, 3), strict=True))
    } == {(await all_leaves(store))[2]}


async def test_an_envelope_that_comes_again_keeps_its_first_blind(store: Store) -> None:
    """[R-2] [L-7]"""
    await accept(store, envelope(1), integrate=False)

    again = await accept(store, replace(envelope(1), blind=bytes(16)))

    assert again.envelopes[0].blind == envelope(1).blind
    assert await all_leaves(store) == [leaf(envelope(1), 1, 1)]


async def test_a_mailbox_is_read_in_pages(store: Store) -> None:
    await accept(store, *(envelope(n) for n in range(5)))

    async def page(after: int, limit: int) -> list[int]:
        return [item.counter for item in await store.mailbox(BETA, after, limit)]

    assert [await page(0, 2), await page(2, 2), await page(4, 2)] == [[1, 2], [3, 4], [5]]
    assert await page(5, 2) == []


async def test_a_page_of_large_envelopes_is_shorter_but_never_empty(store: Store) -> None:
    large = bytes(MAILBOX_BYTES_MAX // 2)
    huge = bytes(MAILBOX_BYTES_MAX + 1)
    bodies = [b"", large, large, huge, b""]
    for number, body in enumerate(bodies):
        await accept(store, envelope(number, body=body))

    pages: list[list[int]] = []
    while page := await store.mailbox(BETA, pages[-1][-1] if pages else 0, 10):
        pages.append([item.counter for item in page])
        assert len(pages) <= len(bodies)

    assert pages == [[1, 2], [3], [4], [5]]


async def test_an_auditor_is_given_no_body(store: Store) -> None:
    to = (recipient(ALPHA), recipient(AUDITOR, kind=AUDIT_KIND), recipient(BETA))
    await accept(store, envelope(1, to=to))

    (item,) = await store.mailbox(AUDITOR, 0, 10)

    assert (item.body, item.audit, item.wrap) == (None, b"audit", b"wrap" + AUDITOR)


async def test_an_auditor_s_page_is_not_shortened_by_bodies_it_does_not_get(store: Store) -> None:
    to = (recipient(AUDITOR, kind=AUDIT_KIND), recipient(BETA))
    for number in range(3):
        await accept(store, envelope(number, to=to, body=bytes(MAILBOX_BYTES_MAX)))

    assert len(await store.mailbox(AUDITOR, 0, 10)) == 3


async def test_an_envelope_that_reuses_wraps_is_opened_by_those_of_the_other(
    store: Store,
) -> None:
    original = envelope(1)
    bare = [recipient(ALPHA, wrap=None), recipient(BETA, wrap=None)]
    await accept(store, original, envelope(2, to=bare, ref=original.id))

    items = await store.mailbox(BETA, 0, 10)

    assert [item.wrap for item in items] == [b"wrap" + BETA, None]
    assert await store.wrap(original.id, BETA) == b"wrap" + BETA
    assert await store.wrap(envelope(2).id, BETA) == b"wrap" + BETA


async def test_a_wrap_is_given_only_to_a_desk_that_the_envelope_addresses(store: Store) -> None:
    original = envelope(1, to=[recipient(ALPHA), recipient(BETA), recipient(GAMMA)])
    bare = [recipient(ALPHA, wrap=None), recipient(BETA, wrap=None)]
    await accept(store, original, envelope(2, to=bare, ref=original.id))

    assert await store.wrap(original.id, AUDITOR) is None
    assert await store.wrap(envelope(2).id, GAMMA) is None
    assert await store.wrap(envelope(3).id, BETA) is None


async def test_cores_are_known_of_integrated_envelopes(store: Store) -> None:
    await accept(store, envelope(1), envelope(2))
    await accept(store, envelope(4), integrate=False)
    ids = [envelope(n).id for n in range(1, 6)]

    assert await store.cores(ids) == {ids[0]: envelope(1).core, ids[1]: envelope(2).core}


async def test_a_sender_gets_the_receipts_for_its_envelopes_in_leaf_order(store: Store) -> None:
    ids = [name("some", n)[:16] for n in range(128)]
    rows = [receipt(1, ids=ids), receipt(2, sender=GAMMA), receipt(3), receipt(4)]
    await accept(store, receipts=rows)

    placed = [replace(row, leaf_index=index) for index, row in enumerate(rows)]
    assert await store.receipts(ALPHA, -1, 10) == [placed[0], placed[2], placed[3]]
    assert await store.receipts(ALPHA, 0, 1) == [placed[2]]
    assert await store.receipts(ALPHA, 3, 10) == []
    assert await store.receipts(GAMMA, -1, 10) == [placed[1]]


# Checkpoints and leases.


async def test_the_first_checkpoint_over_a_leaf_is_the_smallest_and_then_the_earliest(
    store: Store,
) -> None:
    for size, note, at in [(5, b"a", 100), (9, b"c", 102), (9, b"b", 101), (12, b"d", 103)]:
        await store.publish_checkpoint(size, note, name(note), at)

    assert await store.first_checkpoint_over(4) == Checkpoint(5, b"a", name(b"a"), 100)
    assert await store.first_checkpoint_over(5) == Checkpoint(9, b"b", name(b"b"), 101)
    assert await store.first_checkpoint_over(12) is None


async def test_checkpoints_come_by_size_and_age_and_a_page_of_one_size_can_be_continued(
    store: Store,
) -> None:
    for size, note, at in [(9, b"d", 103), (5, b"a", 100), (9, b"b", 101), (9, b"c", 102)]:
        await store.publish_checkpoint(size, note, name(note), at)

    async def notes(after: int, skip: int, limit: int) -> list[bytes]:
        return [one.note for one in await store.checkpoints(after, skip, limit)]

    assert await notes(-1, 0, 2) == [b"a", b"b"]
    assert await notes(8, 1, 10) == [b"c", b"d"]
    assert await notes(5, 0, 10) == [b"b", b"c", b"d"]
    assert await notes(9, 0, 10) == []


async def test_a_day_keeps_its_first_anchor_and_anchors_come_by_size_and_day(store: Store) -> None:
    assert not await store.has_anchor(7)
    for day, size, note in [(7, 5, b"a"), (8, 5, b"b"), (7, 9, b"other"), (9, 12, b"c")]:
        await store.keep_anchor(day, size, note)

    assert await store.has_anchor(7)
    assert await store.anchors(-1, 0, 10) == [b"a", b"b", b"c"]
    assert await store.anchors(4, 1, 1) == [b"b"]
    assert await store.anchors(5, 0, 10) == [b"c"]


async def test_the_newest_checkpoint_is_the_largest_and_then_the_latest(store: Store) -> None:
    for size, note, at in ((5, b"a", 100), (9, b"b", 101), (9, b"c", 102), (7, b"d", 103)):
        await store.publish_checkpoint(size, note, name(note), at)
    await store.publish_checkpoint(9, b"c", name(b"c"), 200)

    assert await store.newest_checkpoint() == Checkpoint(9, b"c", name(b"c"), 102)
    assert [await store.has_checkpoint(name(note)) for note in (b"a", b"d", b"e")] == [
        True,
        True,
        False,
    ]


async def test_a_lease_has_one_holder_until_it_ends(place: Place) -> None:
    async with place.opened(2) as (left, right):
        assert await left.take_lease("job", "left", until=20, now=10)
        assert not await right.take_lease("job", "right", until=30, now=20)
        assert await left.take_lease("job", "left", until=25, now=20)
        assert await right.take_lease("other job", "right", until=30, now=20)
        assert await right.take_lease("job", "right", until=40, now=26)
        assert not await left.take_lease("job", "left", until=50, now=27)


async def test_of_many_who_want_a_lease_at_once_one_gets_it(place: Place) -> None:
    async with place.opened(3) as stores:
        answers = await asyncio.gather(
            *(
                store.take_lease("job", f"holder {n}", until=20, now=10)
                for n, store in enumerate(stores)
            )
        )

    assert sorted(answers) == [False, False, True]


# What must not stop the relay.


async def test_a_poison_pending_row_is_parked_and_the_others_go_on(
    place: Place, store: Store
) -> None:
    """[R-7]"""
    await accept(store, envelope(1))
    await accept(store, envelope(2), envelope(3), envelope(4), integrate=False)
    table = tables.envelopes
    await place.execute(
        delete(table).where(table.c.id == envelope(2).id),
        update(table).where(table.c.id == envelope(3).id).values(recipients=b""),
        insert(tables.pending).values(kind="envelope", key=envelope(1).id),
    )

    (step,) = await integrate_all(store)

    assert step.integrated == (replace(envelope(4), leaf_index=1, counters=(2, 2)),)
    assert step.parked == (
        Parked(Kind.ENVELOPE, envelope(2).id, "nothing is stored under this key"),
        Parked(Kind.ENVELOPE, envelope(3).id, "envelope has no recipients"),
        Parked(Kind.ENVELOPE, envelope(1).id, "has leaf index 0 already"),
    )
    assert await store.parked(2) == list(step.parked[:2])
    assert (await store.envelope(envelope(1).id) or envelope(0)).counters == (1, 1)


async def test_a_cancelled_caller_leaves_the_state_whole(place: Place) -> None:
    """[R-1] [R-3] Each batch is there whole or not at all, and the log goes on."""
    async with place.opened(2) as (store, other):
        for start in range(0, 200, 10):
            rows = [envelope(n) for n in range(start, start + 10)]
            task = asyncio.create_task(accept(store, *rows, integrate=start % 20 == 0))
            for _ in range(start // 8):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await accept(store, envelope(1_000))
        await integrate_all(other)

        stored = [await other.envelope(envelope(n).id) is not None for n in range(200)]
        items = await whole_mailbox(other, BETA)
        leaves = await all_leaves(other)
        head = await other.head()

    assert all(len(set(stored[n : n + 10])) == 1 for n in range(0, 200, 10))
    assert [item.counter for item in items] == list(range(1, sum(stored) + 2))
    assert head.root == frontier_of(leaves).root


async def test_a_cancelled_caller_may_ask_again(place: Place) -> None:
    """[R-1] [R-2]"""
    async with place.opened() as (store,):
        task = asyncio.create_task(accept(store, envelope(1)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        again = await accept(store, envelope(1))

    assert again.envelopes == (replace(envelope(1), leaf_index=0, counters=(1, 1)),)


async def test_reopening_goes_on_where_the_log_stood(place: Place) -> None:
    """[R-3]"""
    async with place.opened() as (store,):
        await accept(store, *(envelope(n) for n in range(300)))
        await store.accept_statement(statement(1), expected_ordinal=0)
        await accept(store, envelope(300), statements=1, integrate=False)
        before = await store.head()

    async with place.opened() as (store,):
        reopened = await store.head()
        done = await accept(store, envelope(301), statements=1)
        leaves = await all_leaves(store)

    assert reopened == before
    assert done.envelopes[0].counters == (302, 302)
    assert done.head.incarnation == before.incarnation
    assert done.head.root == frontier_of(leaves).root


async def test_a_log_whose_head_was_set_back_is_not_written_over(
    place: Place, store: Store
) -> None:
    """[R-3] The keys refuse a second leaf at one index, and nothing of the batch stays."""
    await accept(store, envelope(1))
    empty = Frontier()
    await place.execute(
        update(tables.head).values(size=0, root=empty.root, frontier=empty.serialize())
    )

    with pytest.raises(StoreError, match=r"others changed the same rows|IntegrityError"):
        await accept(store, envelope(2))

    assert await store.envelope(envelope(2).id) is None
    assert await store.leaves(0, 10) == [leaf(envelope(1), 1, 1)]


# Databases that the relay must not start on.


async def test_tables_of_another_version_are_refused(place: Place) -> None:
    async with place.opened():
        pass
    await place.execute(update(tables.schema_version).values(version=tables.SCHEMA_VERSION + 1))

    with pytest.raises(SchemaError, match=r"tables of version \d, expected \d"):
        async with place.opened():
            pass


def test_a_connection_in_which_commits_do_not_last_is_refused() -> None:
    """[R-4]"""
    with (
        closing(sqlite3.connect(":memory:")) as connection,
        pytest.raises(UnsafeStoreError, match="journal_mode is memory, expected WAL"),
    ):
        make_safe(connection, None)


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///:memory:", "sqlite:///a?mode=memory"])
def test_a_store_in_memory_is_refused(address: str) -> None:
    """[R-4]"""
    with pytest.raises(UnsafeStoreError, match="expected sqlite:/// and a file's path"):
        open_store(address)


async def test_a_file_in_another_journal_mode_is_put_in_the_safe_one(tmp_path: Path) -> None:
    """[R-4]"""
    path = tmp_path / "relay.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = TRUNCATE")
    connection.execute("CREATE TABLE something_else (id INTEGER)")
    connection.close()

    async with Place(f"sqlite:///{path}").opened() as (store,):
        await accept(store, envelope(1))

    connection = sqlite3.connect(path)
    mode = connection.execute("PRAGMA journal_mode").fetchone()
    connection.close()
    assert mode == ("wal",)


async def test_opening_waits_until_another_process_lets_go_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "relay.sqlite"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE something_else (id INTEGER)")
    other.execute("BEGIN EXCLUSIVE")
    store = open_store(f"sqlite:///{path}")

    opening = asyncio.create_task(store.open())
    waited, _ = await asyncio.wait([opening], timeout=0.1)
    other.execute("COMMIT")
    other.close()
    await opening

    assert not waited
    await store.close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("synchronous_commit", "off"),
        ("synchronous_commit", "local"),
        ("default_transaction_read_only", "on"),
    ],
)
async def test_an_unsafe_postgresql_database_is_refused(
    postgres_url: str, setting: str, value: str
) -> None:
    """[R-4]"""
    place = Place(postgres_url)
    await place.change_setting(setting, value)

    with pytest.raises(UnsafeStoreError, match=f"{setting.removeprefix('default_')} is {value}"):
        async with place.opened():
            pass


async def test_a_setting_that_turns_unsafe_does_not_reach_the_relay(postgres_url: str) -> None:
    """[R-4] A new connection is refused, an old one keeps its setting."""
    place = Place(postgres_url)

    async with place.opened() as (store,):
        await place.change_setting("synchronous_commit", "off")
        with pytest.raises(UnsafeStoreError):
            async with place.opened():
                pass
        done = await accept(store, envelope(1))

    assert done.head.size == 1


async def test_the_setting_of_a_connection_is_pinned(postgres_url: str) -> None:
    """[R-4] A later change of the server's configuration does not reach it."""
    store = PostgresqlStore(make_url(postgres_url))
    await store.open()

    async with store._writing.connect() as connection:
        source = await connection.execute(
            text("SELECT source FROM pg_settings WHERE name = 'synchronous_commit'")
        )
        assert source.scalar_one() == "session"

    await store.close()


async def test_a_database_that_was_killed_is_used_again_with_all_that_was_accepted(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """[R-1]"""
    async with Place(postgres_url).opened() as (store,):
        await accept(store, envelope(1))
        postgres_server.kill()
        postgres_server.start()
        done = await accept(store, envelope(1), envelope(2))
        postgres_server.kill()
        postgres_server.start()
        items = await store.mailbox(BETA, 0, 10)

    assert [row.counters for row in done.envelopes] == [(1, 1), (2, 2)]
    assert [item.counter for item in items] == [1, 2]


async def test_a_database_that_is_down_is_named_unavailable(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with Place(postgres_url).opened() as (store,):
        await store.head()
        postgres_server.stop()

        with pytest.raises(StoreUnavailableError, match="database failed"):
            await accept(store, envelope(1))
        with pytest.raises(StoreUnavailableError, match="database failed"):
            await store.head()
        postgres_server.start()

        assert (await accept(store, envelope(1))).head.size == 1


async def test_a_database_that_cannot_be_opened_is_named_unavailable(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/no/such/folder/relay.sqlite")

    with pytest.raises(StoreUnavailableError, match="database failed with OperationalError"):
        await store.open()

    await store.close()


@pytest.mark.parametrize("address", ["mysql://host/relay", "postgresql://host/relay", "relay"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(StoreError, match="expected sqlite"):
        open_store(address)
