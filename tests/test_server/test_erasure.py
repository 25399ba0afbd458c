"""What is gone stays gone: erasure over HTTP, tombstones after crash and restore, and age."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from comity_protocol.envelope import Sealed
from comity_protocol.identifiers import DeskId
from comity_protocol.merkle import leaf_hash, verify_inclusion
from comity_protocol.statements import Policy, Role
from comity_server.settings import Settings, SettingsError
from comity_server.socket import Held
from comity_server.store import Copy, StoreUnavailableError
from comity_server.tombstones import Tombstones, TombstonesError, carry_out
from support.notices import device_of, erase, give, hold, release
from support.relay import Clock, Relay, Stand, opened, relay, small_world, wait_until, witness
from support.rows import ALPHA, BETA, accept, envelope, notice
from support.world import Member, World, request

DAY = 86_400


def admin_of(stand: Relay, desk: DeskId) -> Member:
    return device_of(stand, stand.world.active(desk)[0], Role.ADMIN)


async def bodies(stand: Relay, member: Member) -> list[bool]:
    """Whether each envelope of a mailbox can still be opened."""
    answer = await stand.as_device(member, "GET", "/v1/mailbox")
    assert [item[0] for item in answer.value["items"]] == [
        number + 1 for number in range(len(answer.value["items"]))
    ]
    return [item[4] is not None for item in answer.value["items"]]


async def erase_all(stand: Stand, *sealed: Sealed) -> None:
    """Let both desks erase their copies."""
    for desk in (stand.sender.desk, stand.to):
        admin = admin_of(stand.relay, desk)
        ids = [one.id for one in sealed]
        answer = await give(stand.relay, admin, erase(stand.relay, admin, ids))
        assert answer.status == 200, answer.body


def found_in(folder: Path, *sealed: Sealed) -> list[bool]:
    """Whether any file holds the body or a wrap of each envelope."""
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return [
        any(part[40:104] in file for part in (one.upload.body, *one.upload.wraps) for file in files)
        for one in sealed
    ]


# Erasing.


async def test_what_both_desks_erased_is_in_no_file_soon_after(
    stand: Stand, tmp_path: Path
) -> None:
    """[H-5] The control: what was not erased is found, and so was this before."""
    gone, kept = [(await stand.relay.send(stand.sender, stand.to))[0] for _ in range(2)]
    before = found_in(tmp_path, gone, kept)

    await erase_all(stand, gone)

    await wait_until(lambda: found_in(tmp_path, gone, kept) == [False, True])
    assert before == [True, True]
    assert await bodies(stand.relay, stand.receiver) == [False, True]


async def test_an_erased_envelope_that_is_sent_again_brings_nothing_back(stand: Stand) -> None:
    """[R-2] [H-5] The attack: the counterpart sends it once more."""
    sealed, first = await stand.relay.send(stand.sender, stand.to)
    await erase_all(stand, sealed)

    again = await stand.relay.post(stand.sender, sealed)

    assert again.promise == first.promise
    assert await bodies(stand.relay, stand.receiver) == [False]


async def test_wraps_that_were_erased_are_not_referred_to(stand: Stand) -> None:
    """[R-11] Although the relay knew them a moment ago."""
    first, _ = await stand.relay.send(stand.sender, stand.to)
    second, answer = await stand.relay.send(stand.sender, stand.to, thread=first.thread)
    admin = admin_of(stand.relay, stand.to)
    await give(stand.relay, admin, erase(stand.relay, admin, [first.id]))
    # The second one still needs the wrap of the first, so a third may refer to it.
    third, still = await stand.relay.send(stand.sender, stand.to, thread=first.thread)
    path = f"/v1/wraps/{third.id.hex()}"
    wrap = await stand.relay.as_device(stand.receiver, "GET", path)
    await give(stand.relay, admin, erase(stand.relay, admin, [second.id, third.id]))
    _, refused = await stand.relay.send(stand.sender, stand.to, thread=first.thread)

    assert [answer.status, still.status, wrap.status] == [200, 200, 200]
    assert (refused.status, refused.code) == (409, "unknown-reference")


async def test_an_envelope_that_was_checked_before_the_erasure_is_checked_again(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-11] The race: the wrap goes between the look and the commit."""
    first, _ = await stand.relay.send(stand.sender, stand.to)
    pipeline = stand.relay.context.relay
    reached, may_commit = asyncio.Event(), asyncio.Event()
    commit_once = pipeline._commit_once

    async def slow(*arguments: object) -> None:
        reached.set()
        await may_commit.wait()
        await commit_once(*arguments)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(pipeline, "_commit_once", slow)
    sending = asyncio.create_task(stand.relay.send(stand.sender, stand.to, thread=first.thread))
    await reached.wait()
    copy = Copy(first.id, stand.to)
    assert await stand.relay.context.store.erase([copy]) == 1
    may_commit.set()
    _, answer = await sending

    assert (answer.status, answer.code) == (409, "unknown-reference")


async def test_log_proofs_and_promises_hold_after_an_erasure(stand: Stand) -> None:
    """[H-5]"""
    sent = [await stand.relay.send(stand.sender, stand.to) for _ in range(4)]
    await stand.relay.seal()
    store, log = stand.relay.context.store, stand.relay.context.log
    size = log.size
    before = await store.leaves(0, size)

    await erase_all(stand, *(sealed for sealed, _ in sent))
    await stand.relay.seal()

    leaves = await store.leaves(0, 1_000)
    root = (await store.head()).root
    assert leaves[:size] == before
    assert log.size == len(leaves) == size + 2
    for index, leaf in enumerate(leaves):
        proof = await log.inclusion(index, log.size)
        verify_inclusion(leaf_hash(leaf), index=index, size=log.size, root=root, proof=proof)
    for sealed, answer in sent:
        place = await stand.relay.as_device(
            stand.receiver, "GET", f"/v1/envelopes/{sealed.id.hex()}"
        )
        assert place.value["promise"] == [answer.promise.payload, answer.promise.signature]


async def test_a_follower_is_not_given_out_of_memory_what_was_erased() -> None:
    """[H-3]"""
    held = Held(is_dense=True)
    held.fill([(1, b"stored")])
    held.put(2, b"frame")

    held.forget()

    assert held.take_next() is None
    assert (held.cursor, held.is_behind) == (0, True)


# Tombstones.


async def test_a_crash_between_tombstone_and_database_erases_at_the_next_start(
    tmp_path: Path,
) -> None:
    """[R-18] A process is killed when the tombstone is on disk and the commit is not."""
    url = f"sqlite:///{tmp_path}/relay.sqlite"
    async with opened(url) as store:
        await accept(store, envelope(1))
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED, url, str(tmp_path)], timeout=60, check=False
    )
    assert killed.returncode == -9

    async with opened(url) as store:
        (item,) = await store.mailbox(BETA, 0, 1)
        assert (item.wrap is not None, await store.notices(BETA, -1, 1)) == (True, [])
        with closing(Tombstones(tmp_path / "tombstones.sqlite")) as tombstones:
            erased = [await carry_out(tombstones, store) for _ in range(2)]
        (item,) = await store.mailbox(BETA, 0, 1)

    assert erased == [1, 0]
    assert item.wrap is None


KILLED = f"""
import asyncio, os, signal, sys
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from comity_server.stores import open_store
from comity_server.tombstones import Tombstones
from support.rows import envelope, notice

async def main():
    store = open_store(sys.argv[1])
    await store.open()
    tombstones = Tombstones(Path(sys.argv[2]) / "tombstones.sqlite")
    def bury(copies):
        tombstones.add(copies)
        os.kill(os.getpid(), signal.SIGKILL)
    await store.accept_notice(notice(1, "erase", envelope(1)), statements=0, bury=bury)

asyncio.run(main())
"""


async def test_an_erasure_whose_commit_failed_does_not_pass_a_hold_of_another_process(
    tmp_path: Path,
) -> None:
    """[H-4] It is on the file of tombstones alone; then a desk takes a hold, and is promised it."""
    copy = Copy(envelope(1).id, BETA)
    async with opened(f"sqlite:///{tmp_path}/relay.sqlite") as store:
        await accept(store, envelope(1))
        with closing(Tombstones(tmp_path / "tombstones.sqlite")) as tombstones:

            def bury(copies: Sequence[Copy]) -> None:
                tombstones.add(copies)
                raise TombstonesError("the process is gone")

            with pytest.raises(TombstonesError):
                await store.accept_notice(notice(1, "erase", envelope(1)), statements=0, bury=bury)
            held = notice(2, "hold", envelope(1), desk=ALPHA)
            await store.accept_notice(held, statements=0, bury=tombstones.add)
        with closing(Tombstones(tmp_path / "tombstones.sqlite")) as tombstones:
            while_held = await carry_out(tombstones, store)
            released = notice(3, "release", envelope(1), desk=ALPHA)
            await store.accept_notice(released, statements=0, bury=tombstones.add)
            after = [await carry_out(tombstones, store) for _ in range(2)]
            # Once it is committed it is carried out whatever came after it.
            tombstones.settle([copy])
            tombstones.add([copy])
            settled = tombstones.unsettled()

    assert (while_held, after, settled) == (0, [1, 0], frozenset())


async def test_a_database_that_was_put_back_erases_again_before_it_serves(tmp_path: Path) -> None:
    """[R-18] Everything but the file of tombstones is as it was before the erasure."""
    world, sender, receiver = small_world()
    folder, backup = tmp_path / "relay", tmp_path / "backup"
    folder.mkdir()
    async with relay(folder, world) as running:
        await running.publish()
        stand = Stand(running, world.active(sender)[0], world.active(receiver)[0])
        sealed, _ = await running.send(stand.sender, stand.to)
        await running.seal()
    shutil.copytree(folder, backup)
    async with relay(folder, world) as running:
        await erase_all(Stand(running, stand.sender, stand.receiver), sealed)
    shutil.copy(folder / "tombstones.sqlite", backup)

    async with relay(backup, world) as running:
        assert await bodies(running, stand.receiver) == [False]
        await wait_until(lambda: found_in(backup, sealed) == [False])


async def test_an_erasure_is_refused_while_its_tombstone_cannot_be_written(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-18]"""
    sealed, _ = await stand.relay.send(stand.sender, stand.to)
    admin = admin_of(stand.relay, stand.to)
    notice_ = erase(stand.relay, admin, [sealed.id])

    def fail(*_: object) -> None:
        raise TombstonesError("disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(Tombstones, "add", fail)
        refused = await give(stand.relay, admin, notice_)

    assert (refused.status, refused.code) == (503, "busy")
    assert await bodies(stand.relay, stand.receiver) == [True]
    assert (await give(stand.relay, admin, notice_)).status == 200


async def test_a_hold_does_not_come_between_a_tombstone_and_its_erasure(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[H-4] [R-18] A commit failed after the burial: the erasure is settled before a hold."""
    sealed, _ = await stand.relay.send(stand.sender, stand.to)
    admin, notices = admin_of(stand.relay, stand.to), stand.relay.context.notices
    store = stand.relay.context.store

    async def fail(row: object, *, statements: int, bury: object) -> None:
        notices._bury([Copy(sealed.id, stand.to)])
        raise StoreUnavailableError("database went away")

    with monkeypatch.context() as broken:
        broken.setattr(store, "accept_notice", fail)
        failed = await give(stand.relay, admin, erase(stand.relay, admin, [sealed.id]))
    held = await give(stand.relay, stand.sender, hold(stand.relay, stand.sender, [sealed.id]))

    assert (failed.status, held.status) == (503, 200)
    assert await bodies(stand.relay, stand.receiver) == [False]


def test_tombstones_are_written_once_and_read_in_pages(tmp_path: Path) -> None:
    copies = sorted(Copy(envelope(n).id, desk) for n in range(5) for desk in (ALPHA, BETA))
    with closing(Tombstones(tmp_path / "tombstones.sqlite")) as tombstones:
        tombstones.add(copies[:6])
        tombstones.add(copies[4:])

        assert tombstones.page(None, 100) == copies
        assert tombstones.page(copies[2], 3) == copies[3:6]
        assert tombstones.page(copies[-1], 3) == []
    assert (tmp_path / "tombstones.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_file_that_holds_no_tombstones_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tombstones.sqlite"
    path.write_bytes(b"something else" * 100)

    with pytest.raises(TombstonesError, match="cannot be used"):
        Tombstones(path)


def test_tombstones_must_not_stand_in_the_database_or_the_signer_s_file(tmp_path: Path) -> None:
    """[R-18]"""
    assert Settings(data=tmp_path).tombstones_path == tmp_path / "tombstones.sqlite"
    beside = Settings(data=tmp_path, signer=str(tmp_path / "other" / "signer.sqlite"))
    assert beside.tombstones_path == tmp_path / "other" / "tombstones.sqlite"
    for name in ("relay.sqlite", "signer.sqlite"):
        with pytest.raises(SettingsError, match="tombstones and"):
            Settings(data=tmp_path, tombstones=str(tmp_path / name))


# Age.


async def aged(
    stack: AsyncExitStack, path: Path, *, days: int, of_witnesses: Clock | None = None
) -> tuple[Relay, Stand, Clock]:
    """A relay of desks that keep files for so many days, and one that keeps them longer."""
    clock = Clock()
    world = World.found(("XA", "XB"))
    sender = world.create_desk("XA", policy=Policy(history_days=days))
    receiver = world.create_desk("XB", policy=Policy(history_days=10 * days))
    urls = [
        await stack.enter_async_context(witness(path, name, world, of_witnesses or clock))
        for name in sorted(world.witness_keys)
    ]
    running = await stack.enter_async_context(
        relay(path, world, clock=clock, urls=urls, witnesses=0, retention_seconds=0.05)
    )
    await running.publish()
    return running, Stand(running, world.active(sender)[0], world.active(receiver)[0]), clock


async def send_file(stand: Stand) -> Sealed:
    seen = stand.relay.context.log.newest().note_hash
    sealed = stand.relay.world.seal_act(stand.sender, stand.to, request(), seen=seen)
    answer = await stand.relay.post(stand.sender, sealed)
    assert answer.status == 200, answer.body
    return sealed


async def pass_days(stand: Relay, clock: Clock, days: float) -> None:
    """Let time pass for the relay and its witnesses, and a checkpoint show it."""
    clock.ahead += days * DAY
    stand.nonce = ""
    before = stand.context.log.newest()
    stand.context.relay.grown.set()
    await wait_until(lambda: stand.context.log.newest() != before)


async def let_retention_run(stand: Relay) -> None:
    """Wait until the job, which is due every 0.05 seconds, went round more than once."""
    for _ in range(3):
        stand.context.relay.erased.set()
        await wait_until(lambda: not stand.context.relay.erased.is_set())
        await asyncio.sleep(0.06)


async def erased_for(stand: Relay, desk: DeskId, sealed: Sealed) -> bool:
    return await stand.context.store.wrap(sealed.id, desk) is None


async def until_erased(stand: Relay, desk: DeskId, sealed: Sealed) -> None:
    async with asyncio.timeout(20):
        for _ in count():
            if await erased_for(stand, desk, sealed):
                return
            await asyncio.sleep(0.01)


async def test_a_file_ends_with_the_days_of_each_desk_s_policy(tmp_path: Path) -> None:
    """[H-5]"""
    async with AsyncExitStack() as stack:
        running, stand, clock = await aged(stack, tmp_path, days=2)
        old = await send_file(stand)
        lead, _ = await running.send(stand.sender, stand.to)
        await pass_days(running, clock, 1)
        young = await send_file(stand)
        await pass_days(running, clock, 1.5)

        await until_erased(running, stand.sender.desk, old)

        assert not await erased_for(running, stand.sender.desk, young)
        assert not await erased_for(running, stand.sender.desk, lead)
        assert not await erased_for(running, stand.to, old)
        await pass_days(running, clock, 20)
        await until_erased(running, stand.to, old)
        await wait_until(lambda: found_in(tmp_path, old) == [False])


async def test_a_lead_ends_thirty_days_after_its_epoch(tmp_path: Path) -> None:
    """[H-5]"""
    async with AsyncExitStack() as stack:
        running, stand, clock = await aged(stack, tmp_path, days=1_000)
        old, _ = await running.send(stand.sender, stand.to)
        running.world.turn(stand.to)
        await running.publish()
        young, _ = await running.send(stand.sender, stand.to)
        await pass_days(running, clock, 31)

        await until_erased(running, stand.to, old)

        assert not await erased_for(running, stand.to, young)
        assert not await erased_for(running, stand.sender.desk, old)


async def test_a_hold_outlasts_the_end_of_retention(tmp_path: Path) -> None:
    """[H-4]"""
    async with AsyncExitStack() as stack:
        running, stand, clock = await aged(stack, tmp_path, days=1)
        held, free = await send_file(stand), await send_file(stand)
        admin = admin_of(running, stand.to)
        await give(running, admin, hold(running, admin, [held.id]))
        await pass_days(running, clock, 2)
        await until_erased(running, stand.sender.desk, free)

        assert not await erased_for(running, stand.sender.desk, held)
        await give(running, admin, release(running, admin, [held.id]))
        await until_erased(running, stand.sender.desk, held)


async def test_nothing_ends_by_age_while_a_restored_database_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[H-4] The hold that keeps it may be among what has to come back."""
    async with AsyncExitStack() as stack:
        running, stand, clock = await aged(stack, tmp_path, days=1)
        sealed = await send_file(stand)
        await pass_days(running, clock, 0.5)
        pipeline = running.context.relay
        with monkeypatch.context() as repairing:
            repairing.setattr(pipeline, "gate", SimpleNamespace(is_repairing=True))
            clock.ahead += DAY
            before = running.context.log.newest()
            pipeline.grown.set()
            await wait_until(lambda: running.context.log.newest() != before)
            await let_retention_run(running)

            assert not await erased_for(running, stand.sender.desk, sealed)
        await until_erased(running, stand.sender.desk, sealed)


async def test_a_relay_clock_that_runs_ahead_deletes_nothing(tmp_path: Path) -> None:
    """[H-5] The attack on everyone's history: ten years in a moment, and the witnesses disagree."""
    async with AsyncExitStack() as stack:
        running, stand, clock = await aged(stack, tmp_path, days=1, of_witnesses=Clock())
        sealed = await send_file(stand)
        await running.seal()
        clock.ahead += 3_650 * DAY
        taken = running.context.metrics.copies_erased.labels("age")
        await let_retention_run(running)

        assert not await erased_for(running, stand.sender.desk, sealed)
        assert taken._value.get() == 0


async def test_the_database_of_a_relay_that_runs_stays_whole(stand: Stand, tmp_path: Path) -> None:
    sealed = [(await stand.relay.send(stand.sender, stand.to))[0] for _ in range(20)]
    await erase_all(stand, *sealed[::2])

    with closing(sqlite3.connect(tmp_path / "relay.sqlite")) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert await bodies(stand.relay, stand.receiver) == [False, True] * 10
