"""One contract for both databases: whose copy goes, what stays, and what keeps it from going."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from comity_protocol.keys import random_bytes
from comity_protocol.leaves import notice_leaf
from comity_server.store import (
    AUDIT_KIND,
    ERASED_COPIES_MAX,
    EVERYONE,
    PENDING_ROWS_MAX,
    Accepted,
    Copy,
    DirectoryMovedError,
    EnvelopeRow,
    ErasuresMovedError,
    NoticeRow,
    OnHoldError,
    Recipient,
    Store,
)
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
    name,
    notice,
    receipt,
    recipient,
    statement,
    whole_mailbox,
)

AUDITED = (recipient(ALPHA), recipient(AUDITOR, kind=AUDIT_KIND), recipient(BETA))


async def give(
    store: Store, row: NoticeRow, *, buried: list[Copy] | None = None, statements: int = 0
) -> Accepted:
    """Accept a notice; what is buried is put into a list."""
    graves = [] if buried is None else buried
    return await store.accept_notice(row, statements=statements, bury=graves.extend)


async def wraps_of(store: Store, row: EnvelopeRow) -> dict[bytes, bytes | None]:
    """The wraps that the database holds, by desk."""
    stored = await store.envelope(row.id)
    assert stored is not None
    return {to.desk: to.wrap for to in stored.recipients}


def reference(number: int, to: EnvelopeRow) -> EnvelopeRow:
    """An envelope that reuses another one's wraps."""
    bare = [replace(one, wrap=None) for one in to.recipients]
    return envelope(number, to=bare, ref=to.id)


# Notices.


async def test_a_notice_is_logged_and_given_to_the_desks_that_its_envelopes_address(
    store: Store,
) -> None:
    """[R-1] [R-14]"""
    await accept(store, envelope(1, to=AUDITED))
    row = notice(1, "stamped", envelope(1), readers=(ALPHA, AUDITOR, BETA))

    done = await give(store, row)

    placed = replace(row, leaf_index=1)
    stored = replace(placed, envelope_ids=())
    assert (done.notices, done.integrated) == ((placed,), (placed,))
    assert (await all_leaves(store))[1] == notice_leaf(row.payload)
    assert done.head.root == frontier_of(await all_leaves(store)).root
    for desk in (ALPHA, AUDITOR, BETA):
        assert await store.notices(desk, -1, 10) == [stored]
    assert await store.notices(GAMMA, -1, 10) == []
    assert await store.notices(ALPHA, 1, 10) == []


async def test_a_notice_for_everyone_is_given_to_every_desk_in_leaf_order(store: Store) -> None:
    rows = [
        notice(1, "hold", readers=(ALPHA,)),
        notice(2, "restored", desk=None, readers=(EVERYONE,)),
        notice(3, "hold", readers=(ALPHA, BETA)),
    ]
    for row in rows:
        await give(store, row)

    async def hashes(desk: bytes, after: int, limit: int) -> list[bytes]:
        return [row.hash for row in await store.notices(desk, after, limit)]

    one, two, three = (row.hash for row in rows)
    assert await hashes(ALPHA, -1, 10) == [one, two, three]
    assert await hashes(ALPHA, -1, 2) == [one, two]
    assert await hashes(ALPHA, 0, 1) == [two]
    assert await hashes(GAMMA, -1, 10) == [two]
    assert (await store.notices(GAMMA, -1, 10))[0].readers == (EVERYONE,)


async def test_a_known_notice_returns_the_original_promise_and_changes_nothing(
    store: Store,
) -> None:
    """[R-2] A hold that came in between does not make the first answer another one."""
    await accept(store, envelope(1))
    first = await give(store, notice(1, "erase", envelope(1)))
    await give(store, notice(2, "hold", envelope(1), desk=ALPHA))
    buried: list[Copy] = []

    again = await give(
        store, replace(notice(1, "erase", envelope(1)), promise=b"another"), buried=buried
    )

    assert again.notices[0].promise == first.notices[0].promise
    assert (again.integrated, buried) == ((), [])
    assert (await store.head()).size == 3


async def test_a_notice_under_an_older_directory_is_refused(store: Store) -> None:
    """[R-6]"""
    await accept(store, envelope(1))
    await store.accept_statement(statement(1), expected_ordinal=0)
    buried: list[Copy] = []

    with pytest.raises(DirectoryMovedError):
        await give(store, notice(1, "erase", envelope(1)), buried=buried)

    assert buried == []
    assert (await wraps_of(store, envelope(1)))[BETA] is not None


async def test_a_notice_behind_a_long_backlog_takes_effect_and_is_handed_over_later(
    store: Store,
) -> None:
    """[R-3]"""
    await accept(store, envelope(0))
    for start in range(1, PENDING_ROWS_MAX + 2, 120):
        rows = [envelope(n) for n in range(start, start + 120)]
        await accept(store, *rows, integrate=False)

    done = await give(store, notice(1, "erase", envelope(0)))

    assert done.notices[0].leaf_index is None
    assert (await wraps_of(store, envelope(0)))[BETA] is None
    assert await store.notices(BETA, -1, 10) == []
    await integrate_all(store)
    (stored,) = await store.notices(BETA, -1, 10)
    assert stored.leaf_index == (await store.head()).size - 1


# Whose copy goes.


async def test_an_erasure_takes_away_the_desk_s_copy_and_nobody_else_s(store: Store) -> None:
    """[H-3] [H-5]"""
    row = envelope(1, to=AUDITED)
    await accept(store, row)
    before = {desk: await store.mailbox(desk, 0, 10) for desk in (ALPHA, AUDITOR, BETA)}

    await give(store, notice(1, "erase", row))

    (item,) = await store.mailbox(BETA, 0, 10)
    assert item == replace(before[BETA][0], body=None, wrap=None)
    assert item.audit == row.audit
    assert await store.wrap(row.id, BETA) is None
    assert (await wraps_of(store, row))[BETA] is None
    for desk in (ALPHA, AUDITOR):
        assert await store.mailbox(desk, 0, 10) == before[desk]
        assert await store.wrap(row.id, desk) == (await wraps_of(store, row))[desk] is not None


async def test_the_body_goes_with_the_last_desk_that_may_open_it(store: Store) -> None:
    """[H-5] An auditor's copy holds the audit part, and never the body."""
    row = envelope(1, to=AUDITED)
    await accept(store, row)

    async def parts() -> tuple[bytes, bytes]:
        stored = await store.envelope(row.id)
        assert stored is not None
        return stored.body, stored.audit

    await give(store, notice(1, "erase", row, desk=BETA))
    assert await parts() == (row.body, row.audit)
    await give(store, notice(2, "erase", row, desk=ALPHA))
    assert await parts() == (b"", row.audit)
    (item,) = await store.mailbox(AUDITOR, 0, 10)
    assert (item.audit, item.wrap) == (row.audit, AUDITED[1].wrap)
    await give(store, notice(3, "erase", row, desk=AUDITOR))
    assert await parts() == (b"", b"")
    assert (await store.mailbox(AUDITOR, 0, 10))[0].audit == b""


async def test_an_auditor_s_erasure_takes_the_audit_part_from_it_alone(store: Store) -> None:
    """[H-3]"""
    row = envelope(1, to=AUDITED)
    await accept(store, row)

    await give(store, notice(1, "erase", row, desk=AUDITOR))

    (item,) = await store.mailbox(AUDITOR, 0, 10)
    assert (item.body, item.audit, item.wrap) == (None, b"", None)
    (item,) = await store.mailbox(BETA, 0, 10)
    assert (item.body, item.audit, item.wrap) == (row.body, row.audit, AUDITED[2].wrap)


async def test_a_desk_that_is_not_addressed_takes_nothing_away(store: Store) -> None:
    """[H-3]"""
    await accept(store, envelope(1))
    before = await store.envelope(envelope(1).id)

    assert await store.erase([Copy(envelope(1).id, GAMMA)]) == 0
    assert await store.envelope(envelope(1).id) == before


async def test_a_copy_that_is_gone_does_not_matter(store: Store) -> None:
    await accept(store, envelope(1))
    copies = [Copy(envelope(1).id, BETA), Copy(bytes(16), BETA)]

    assert [await store.erase(copies), await store.erase(copies)] == [1, 0]
    assert (await store.head()).erasures == 1


async def test_what_waits_for_its_place_is_not_erased(store: Store) -> None:
    await accept(store, envelope(1), integrate=False)

    assert await store.erase([Copy(envelope(1).id, BETA)]) == 0
    (step,) = await integrate_all(store)
    assert step.integrated == (replace(envelope(1), leaf_index=0, counters=(1, 1)),)


async def test_a_wrap_stays_while_a_later_envelope_refers_to_it(store: Store) -> None:
    """[H-5] Of the first one it is not served any more; it goes with the last one."""
    first = envelope(1, to=AUDITED)
    second, third = reference(2, first), reference(3, first)
    await accept(store, first, second)
    await accept(store, third, integrate=False)

    await give(store, notice(1, "erase", first))
    assert (await store.mailbox(BETA, 0, 1))[0].wrap is None
    assert await store.wrap(first.id, BETA) is None
    assert await store.wrap(second.id, BETA) == AUDITED[2].wrap
    assert await store.wrap(third.id, BETA) == AUDITED[2].wrap
    await give(store, notice(2, "erase", second))
    # The third has a place only now; until then nobody could erase it.
    await integrate_all(store)
    assert (await wraps_of(store, first))[BETA] == AUDITED[2].wrap
    await give(store, notice(3, "erase", third))

    assert await store.wrap(third.id, BETA) is None
    assert (await wraps_of(store, first))[BETA] is None
    assert (await wraps_of(store, first))[ALPHA] == AUDITED[0].wrap


async def test_an_erasure_of_a_later_envelope_alone_leaves_the_first_one_open(
    store: Store,
) -> None:
    first = envelope(1)
    second = reference(2, first)
    await accept(store, first, second)

    await give(store, notice(1, "erase", second))

    assert await store.wrap(second.id, BETA) is None
    assert await store.wrap(first.id, BETA) == recipient(BETA).wrap
    assert (await store.mailbox(BETA, 0, 1))[0].wrap == recipient(BETA).wrap


async def test_nothing_that_was_proven_changes(store: Store) -> None:
    """[H-5] Counters have no gap, and log, places, promises and receipts stay what they were."""
    rows = [envelope(n, to=AUDITED) for n in range(5)]
    await accept(store, *rows, receipts=[receipt(1, ids=[rows[0].id])])
    leaves, items = await all_leaves(store), await whole_mailbox(store, BETA)
    receipts = await store.receipts(ALPHA, -1, 10)

    await give(store, notice(1, "erase", *sorted(rows[1:4], key=lambda row: row.id)))

    after = await whole_mailbox(store, BETA)
    assert [item.counter for item in after] == [1, 2, 3, 4, 5]
    assert after == [
        replace(item, body=None, wrap=None) if 1 <= n <= 3 else item for n, item in enumerate(items)
    ]
    assert [item.counter for item in await store.mailbox(BETA, 2, 1)] == [3]
    assert (await all_leaves(store))[: len(leaves)] == leaves
    assert await store.receipts(ALPHA, -1, 10) == receipts
    for number, row in enumerate(rows):
        stored = await store.envelope(row.id)
        assert stored is not None
        assert (stored.promise, stored.leaf_index, stored.core) == (row.promise, number, row.core)


async def test_an_erased_envelope_that_is_sent_again_brings_nothing_back(store: Store) -> None:
    """[R-2] [H-5]"""
    await accept(store, envelope(1))
    await store.erase([Copy(envelope(1).id, desk) for desk in (ALPHA, BETA)])

    again = await accept(store, replace(envelope(1), promise=b"another"))

    assert (again.envelopes[0].promise, again.integrated) == (envelope(1).promise, ())
    (item,) = await store.mailbox(BETA, 0, 10)
    assert (item.body, item.audit, item.wrap) == (None, b"", None)


# What rests on wraps.


@pytest.mark.parametrize("integrate", [True, False])
async def test_nothing_is_stored_on_wraps_that_were_looked_for_before_an_erasure(
    store: Store, *, integrate: bool
) -> None:
    """[R-11]"""
    await accept(store, envelope(1), envelope(2))
    await store.erase([Copy(envelope(1).id, BETA)])
    late = reference(3, envelope(1))

    with pytest.raises(ErasuresMovedError) as refused:
        await store.accept([late], [], statements=0, integrate=integrate, erasures=0)
    assert refused.value.newest == 1
    assert await store.envelope(late.id) is None
    other = reference(4, envelope(2))
    done = await store.accept([other], [], statements=0, integrate=integrate, erasures=1)
    assert done.head.erasures == 1
    assert await store.envelope(other.id) is not None


async def test_erasing_and_accepting_at_once_leaves_no_envelope_without_its_wrap(
    place: Place,
) -> None:
    """[R-11] Whoever looked before the erasure is refused after it."""
    async with place.opened(2) as (one, other):
        rows = [envelope(n) for n in range(20)]
        await accept(one, *rows)

        async def refer(number: int, row: EnvelopeRow) -> bool:
            erasures = (await one.head()).erasures
            if (await wraps_of(one, row))[BETA] is None:
                return False
            try:
                await one.accept(
                    [reference(100 + number, row)],
                    [],
                    statements=0,
                    integrate=number % 2 == 0,
                    erasures=erasures,
                )
            except ErasuresMovedError:
                return False
            return True

        tasks = [
            asyncio.gather(refer(n, row), other.erase([Copy(row.id, BETA)]))
            for n, row in enumerate(rows)
        ]
        for number, (is_stored, _) in enumerate(await asyncio.gather(*tasks)):
            if is_stored:
                assert await one.wrap(reference(100 + number, rows[number]).id, BETA) is not None


# Holds.


async def test_what_any_desk_holds_is_erased_by_nobody(store: Store) -> None:
    """[H-4]"""
    await accept(store, envelope(1), envelope(2))
    await give(store, notice(1, "hold", envelope(1), desk=ALPHA))
    size = (await store.head()).size
    buried: list[Copy] = []

    for number, desk in ((2, ALPHA), (3, BETA)):
        with pytest.raises(OnHoldError):
            await give(
                store,
                notice(number, "erase", envelope(2), envelope(1), desk=desk),
                buried=buried,
            )

    assert (buried, (await store.head()).size) == ([], size)
    assert None not in (await wraps_of(store, envelope(1))).values()
    assert None not in (await wraps_of(store, envelope(2))).values()


async def test_only_the_desk_that_holds_it_releases_it(store: Store) -> None:
    """[H-4]"""
    row = envelope(1)
    await accept(store, row)
    for number, desk in ((1, ALPHA), (2, ALPHA), (3, BETA)):
        await give(store, notice(number, "hold", row, desk=desk))

    await give(store, notice(4, "release", row, desk=ALPHA))
    with pytest.raises(OnHoldError):
        await give(store, notice(5, "erase", row))
    await give(store, notice(6, "release", row, desk=BETA))
    await give(store, notice(5, "erase", row))

    assert (await wraps_of(store, row))[BETA] is None


async def test_of_a_hold_and_an_erasure_at_once_one_counts(place: Place) -> None:
    """[H-4] No erasure is buried or carried out after the hold was accepted."""
    async with place.opened(2) as (one, other):
        rows = [envelope(n) for n in range(10)]
        await accept(one, *rows)
        for number, row in enumerate(rows):
            buried: list[Copy] = []
            held, erased = await asyncio.gather(
                give(one, notice(2 * number, "hold", row, desk=ALPHA)),
                give(other, notice(2 * number + 1, "erase", row), buried=buried),
                return_exceptions=True,
            )
            assert isinstance(held, Accepted)
            is_erased = isinstance(erased, Accepted)
            assert is_erased or isinstance(erased, OnHoldError)
            assert bool(buried) is is_erased
            assert ((await wraps_of(one, row))[BETA] is None) is is_erased


async def test_a_burial_that_fails_leaves_everything(store: Store) -> None:
    """[R-18]"""
    await accept(store, envelope(1))
    before, head = await store.envelope(envelope(1).id), await store.head()

    def fail(_: Sequence[Copy]) -> None:
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        await store.accept_notice(notice(1, "erase", envelope(1)), statements=0, bury=fail)

    assert (await store.envelope(envelope(1).id), await store.head()) == (before, head)
    assert await store.notices(BETA, -1, 10) == []


# Age.


async def test_copies_end_by_age_kind_and_desk_but_for_those_on_hold(store: Store) -> None:
    """[H-4] [H-5]"""
    leads = tuple(recipient(desk, kind=1) for desk in (ALPHA, BETA))
    rows = [envelope(n, to=leads if n == 2 else AUDITED) for n in range(6)]
    await accept(store, *rows)
    await give(store, notice(1, "hold", rows[1], desk=ALPHA))

    taken = [await store.expire(BETA, 0, below_index=5, limit=limit) for limit in (2, 10, 10)]

    assert taken == [2, 1, 0]
    gone = [item.wrap is None for item in await whole_mailbox(store, BETA)]
    assert gone == [True, False, False, True, True, False]
    assert all(item.wrap for item in await whole_mailbox(store, ALPHA))
    assert await store.expire(BETA, 1, below_index=2, limit=10) == 0
    assert await store.expire(BETA, 1, below_index=3, limit=10) == 1
    assert await store.expire(AUDITOR, AUDIT_KIND, below_index=1, limit=10) == 1
    await give(store, notice(2, "release", rows[1], desk=ALPHA))
    assert await store.expire(BETA, 0, below_index=5, limit=10) == 1


async def test_the_index_of_an_instant_is_where_the_envelopes_before_it_end(store: Store) -> None:
    await accept(store, *[envelope(n) for n in range(0, 40, 2)], receipts=[receipt(1)])
    await accept(store, *[envelope(n) for n in range(40, 50)])
    start = 1_800_000_000

    assert await store.index_at(start) == 0
    assert await store.index_at(start + 1) == 1
    assert await store.index_at(start + 21) == 11
    # Between the last of the first twenty and the next envelope stands the receipt, at leaf 20.
    assert await store.index_at(start + 39) in (20, 21)
    assert await store.index_at(start + 45) == 26
    assert await store.index_at(start + 1_000) >= 31


async def test_an_epoch_is_superseded_where_the_newest_turn_before_an_instant_stands(
    store: Store,
) -> None:
    for number, (kind, desk, at) in enumerate(
        [
            ("epoch", ALPHA, 100),
            ("policy", ALPHA, 110),
            ("removal", ALPHA, 120),
            ("epoch", BETA, 130),
            ("epoch", ALPHA, 140),
        ]
    ):
        row = replace(statement(number, desk=desk), kind=kind, accepted_at=at)
        await store.accept_statement(row, expected_ordinal=number)

    below = {at: await store.superseded_below(ALPHA, at) for at in (100, 101, 121, 140, 141)}

    assert below == {100: 0, 101: 0, 121: 2, 140: 2, 141: 4}


# Receipts.


async def test_an_auditor_gets_receipts_for_envelopes_that_address_it_in_leaf_order(
    store: Store,
) -> None:
    """[R-14]"""
    rows = [
        replace(receipt(1), readers=(AUDITOR,)),
        receipt(2),
        replace(receipt(3, sender=AUDITOR), readers=(GAMMA,)),
        replace(receipt(4), readers=(AUDITOR, GAMMA)),
    ]
    await accept(store, receipts=rows[:2])
    await accept(store, receipts=rows[2:], integrate=False)
    assert len(await store.receipts(AUDITOR, -1, 10)) == 1
    await integrate_all(store)

    placed = [replace(row, leaf_index=index) for index, row in enumerate(rows)]
    assert await store.receipts(AUDITOR, -1, 10) == [placed[0], placed[2], placed[3]]
    assert await store.receipts(AUDITOR, -1, 2) == [placed[0], placed[2]]
    assert await store.receipts(AUDITOR, 2, 10) == [placed[3]]
    assert await store.receipts(GAMMA, -1, 10) == [placed[2], placed[3]]
    assert await store.receipts(BETA, -1, 10) == []


# The files.


def needles(*rows: EnvelopeRow) -> dict[str, bytes]:
    """Bytes by which a database's files give away what they hold of the envelopes."""
    found = {f"body of {row.id.hex()}": row.body[1_000:1_064] for row in rows}
    for row in rows:
        found |= {
            f"wrap of {row.id.hex()} for {to.desk.hex()}": to.wrap[100:164]
            for to in row.recipients
            if to.wrap
        }
    return found


def sealed(number: int, *desks: bytes) -> EnvelopeRow:
    """An envelope of the size that clients send, with ciphertexts that nothing else holds."""
    to = [Recipient(desk, 1, 0, random_bytes(1_168)) for desk in desks]
    return envelope(number, to=to, body=random_bytes(3_000))


def held_in(folder: Path, searched: dict[str, bytes], *, pattern: str = "*") -> set[str]:
    contents = [path.read_bytes() for path in folder.rglob(pattern) if path.is_file()]
    return {what for what, needle in searched.items() if any(needle in one for one in contents)}


async def test_no_file_of_sqlite_holds_what_was_erased(tmp_path: Path) -> None:
    """[H-5] The control: before, the same search finds every part."""
    place = Place(f"sqlite:///{tmp_path}/relay.sqlite")
    async with place.opened() as (store,):
        rows = [sealed(n, ALPHA, BETA) for n in range(30)]
        await accept(store, *rows[:10])
        await accept(store, *rows[10:20], integrate=False)
        await accept(store, *rows[20:])
        searched = needles(*rows)
        assert held_in(tmp_path, searched) == searched.keys()

        await store.erase([Copy(row.id, BETA) for row in rows[::2]])
        await store.erase([Copy(row.id, ALPHA) for row in rows[::4]])
        assert await store.scrub()

        gone = needles(*rows[::4]).keys() | {
            what for what in needles(*rows[::2]) if what.endswith(BETA.hex())
        }
        assert held_in(tmp_path, searched) == searched.keys() - gone
        # What is left can be read, so nothing was damaged.
        assert [item.wrap is None for item in await whole_mailbox(store, BETA)] == [
            True,
            False,
        ] * 15
    with closing(sqlite3.connect(tmp_path / "relay.sqlite")) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_scrubbing_sqlite_says_so_when_a_reader_keeps_it_from_the_end(
    tmp_path: Path,
) -> None:
    """[H-5]"""
    place = Place(f"sqlite:///{tmp_path}/relay.sqlite")
    async with place.opened() as (store,):
        row = sealed(1, ALPHA, BETA)
        await accept(store, row)
        with closing(sqlite3.connect(tmp_path / "relay.sqlite", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM envelopes").fetchone()
            await store.erase([Copy(row.id, desk) for desk in (ALPHA, BETA)])
            is_done = await store.scrub()
            reader.execute("ROLLBACK")

        assert not is_done
        assert await store.scrub()
        assert held_in(tmp_path, needles(row)) == set()


async def test_the_tables_of_postgresql_written_anew_hold_nothing_erased(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """[H-5] VACUUM FULL, as OPERATIONS.md says; the control finds everything before."""
    place = Place(postgres_url)
    folder = postgres_server.data / "base"
    async with place.opened() as (store,):
        rows = [sealed(n, ALPHA, BETA) for n in range(6)]
        await accept(store, *rows)
        await place.execute(text("CHECKPOINT"))
        searched = needles(*rows)
        assert held_in(folder, searched) == searched.keys()

        await store.erase([Copy(row.id, desk) for row in rows[:3] for desk in (ALPHA, BETA)])
        assert await store.scrub()
        await place.execute(text("VACUUM FULL envelopes"), text("CHECKPOINT"))

        assert held_in(folder, searched) == needles(*rows[3:]).keys()


def test_one_transaction_takes_as_many_copies_as_a_notice_names() -> None:
    assert len([name("id", n) for n in range(128)]) == ERASED_COPIES_MAX
