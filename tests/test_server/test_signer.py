"""The signer trusts nobody: [G-1] to [G-5], and the checkpoints it leads to."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from comity_protocol.checkpoint import (
    add_signatures,
    cosign,
    cosignatures,
    open_checkpoint,
    sign_checkpoint,
    verify_quorum,
)
from comity_protocol.keys import FastKey
from comity_protocol.merkle import Frontier, leaf_hash
from comity_protocol.receipts import Promise, sign_promise
from comity_server.settings import SettingsError
from comity_server.signer import (
    FRESH_SECONDS,
    KEPT_ENTRIES,
    Entries,
    Signer,
    SignerError,
    SignerNotClearedError,
    SignerState,
)
from comity_server.statement_rows import genesis_row, statement_row
from comity_server.store import Head, Store
from comity_server.witnesses import Witnesses
from support.relay import Clock, opened, relay, small_world, wait_until, witness
from support.world import ORIGIN, World

NOW = 1_800_000_000


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()[0]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(f"sqlite:///{tmp_path / 'relay.sqlite'}") as store:
        yield store


async def _state(store: Store, world: World, count: int) -> None:
    """Put the first statements of a world into a store."""
    relay_key = FastKey.generate()
    for ordinal, (_, signed) in enumerate(world.statements[:count]):
        if (await store.head()).statements > ordinal:
            continue
        promise = sign_promise(relay_key, Promise(signed.hash, 0))
        row = (
            genesis_row(signed, promise, 0)
            if ordinal == 0
            else statement_row(signed, None, promise, 0)
        )
        await store.accept_statement(row, expected_ordinal=ordinal)


def make_signer(path: Path, store: Entries, world: World) -> Signer:
    return Signer(
        SignerState(path, ORIGIN),
        store,
        world.log_key,
        origin=ORIGIN,
        quorum=world.genesis.quorum,
        clock=lambda: NOW,
    )


def shown(world: World, note: bytes, *, witnesses: int = 3, at: int = NOW) -> bytes:
    """A note as witnesses of the world cosign it."""
    keys = sorted(world.witness_keys.items())[:witnesses]
    return add_signatures(note, [cosign(note, name, key, at) for name, key in keys])


async def cleared(path: Path, store: Entries, world: World) -> Signer:
    signer = make_signer(path, store, world)
    await signer.clear(shown(world, await signer.probe()))
    return signer


class Altered:
    """A store in which somebody changed something."""

    def __init__(
        self, store: Store, *, head: Head | None = None, leaves: dict[int, bytes] | None = None
    ) -> None:
        self._store = store
        self._head = head
        self._leaves = leaves or {}

    async def head(self) -> Head:
        return self._head or await self._store.head()

    async def leaves(self, start: int, count: int) -> list[bytes]:
        leaves = await self._store.leaves(start, count)
        return [self._leaves.get(start + at, leaf) for at, leaf in enumerate(leaves)]


async def test_the_signer_signs_what_the_leaves_give(
    tmp_path: Path, store: Store, world: World
) -> None:
    await _state(store, world, 4)
    signer = await cleared(tmp_path / "signer", store, world)
    size, note = await signer.sign()

    expected = Frontier().extend([leaf_hash(leaf) for leaf in await store.leaves(0, 4)])
    checkpoint = open_checkpoint(note, world.genesis.log)
    assert (size, checkpoint.size, checkpoint.root) == (4, 4, expected.root)


async def test_the_signer_signs_nothing_when_a_leaf_was_changed(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-1] One flipped bit in the bytes, while every cached hash still fits."""
    await _state(store, world, 4)
    (leaf,) = await store.leaves(2, 1)
    flipped = Altered(store, leaves={2: leaf[:-1] + bytes([leaf[-1] ^ 1])})
    signer = await cleared(tmp_path / "signer", flipped, world)

    with pytest.raises(SignerError, match="do not give its root at 4"):
        await signer.sign()
    assert SignerState(tmp_path / "signer", ORIGIN).read() == Frontier()


async def test_the_signer_signs_nothing_when_leaves_are_missing(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-1]"""
    await _state(store, world, 4)
    head = await store.head()
    longer = Altered(store, head=Head(9, head.root, head.frontier, 9, head.incarnation))
    signer = await cleared(tmp_path / "signer", longer, world)

    with pytest.raises(SignerError, match="lacks leaves below 9"):
        await signer.sign()


async def test_the_signers_memory_is_written_before_it_signs(
    tmp_path: Path, store: Store, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[G-2] When the memory cannot be written, no signature exists."""
    await _state(store, world, 4)
    signer = await cleared(tmp_path / "signer", store, world)
    signed: list[int] = []

    def fail(_self: SignerState, *_: object) -> None:
        assert signed == []
        raise SignerError("disk is full")

    monkeypatch.setattr(SignerState, "replace", fail)
    monkeypatch.setattr(Signer, "_sign", lambda _self, frontier: signed.append(frontier.size))
    with pytest.raises(SignerError, match="disk is full"):
        await signer.sign()

    assert signed == []


def test_the_signers_memory_survives_and_is_flushed(tmp_path: Path) -> None:
    """[G-2]"""
    state = SignerState(tmp_path / "signer", ORIGIN)
    one = Frontier().append(leaf_hash(b"one"))
    state.replace(Frontier(), one)

    assert state._connection.execute("PRAGMA synchronous").fetchone() == (3,)
    assert state._connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert SignerState(tmp_path / "signer", ORIGIN).read() == one
    assert (tmp_path / "signer").stat().st_mode & 0o777 == 0o600


def test_two_signers_on_one_memory_do_not_both_move_it(tmp_path: Path) -> None:
    """[G-3]"""
    first, second = (SignerState(tmp_path / "signer", ORIGIN) for _ in range(2))
    first.replace(Frontier(), Frontier().append(leaf_hash(b"one")))

    with pytest.raises(SignerError, match="another process has signed"):
        second.replace(Frontier(), Frontier().append(leaf_hash(b"other")))


def test_a_memory_belongs_to_one_log(tmp_path: Path) -> None:
    SignerState(tmp_path / "signer", ORIGIN).close()

    with pytest.raises(SignerError, match="another log's"):
        SignerState(tmp_path / "signer", "other.example/log")


async def test_the_signer_never_signs_a_smaller_size(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-3] A database that was restored from a backup."""
    await _state(store, world, 5)
    await (await cleared(tmp_path / "signer", store, world)).sign()
    async with opened(f"sqlite:///{tmp_path / 'backup.sqlite'}") as backup:
        await _state(backup, world, 3)
        signer = await cleared(tmp_path / "signer", backup, world)

        with pytest.raises(SignerError, match="has 3 leaves and 5 were signed"):
            await signer.sign()


async def test_the_signer_never_signs_another_root_for_a_size(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-3] A database with another past of the same length, and one that grew from it."""
    await _state(store, world, 5)
    await (await cleared(tmp_path / "signer", store, world)).sign()
    other = World.found()
    other.create_desk("XA")
    other.create_desk("XB")
    async with opened(f"sqlite:///{tmp_path / 'fork.sqlite'}") as fork:
        await _state(fork, other, 5)
        signer = await cleared(tmp_path / "signer", fork, world)
        with pytest.raises(SignerError, match="do not give its root at 5"):
            await signer.sign()

        await _state(fork, other, 7)
        with pytest.raises(SignerError, match="do not give its root at 7"):
            await signer.sign()


async def test_the_same_head_is_signed_again_in_the_same_way(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-3] The heartbeat."""
    await _state(store, world, 3)
    signer = await cleared(tmp_path / "signer", store, world)

    assert await signer.sign() == await signer.sign()


async def test_the_signer_signs_nothing_before_it_has_asked_the_witnesses(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-4]"""
    await _state(store, world, 3)

    with pytest.raises(SignerNotClearedError, match="not asked yet"):
        await make_signer(tmp_path / "signer", store, world).sign()


async def test_the_signer_wants_so_many_witnesses_that_no_quorum_is_left(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-4] Any quorum that ever cosigned has a witness among those who cosigned just now."""
    signer = make_signer(tmp_path / "signer", store, world)
    note = await signer.probe()

    with pytest.raises(SignerError, match="1 of 3 witnesses cosigned within 2 days"):
        await signer.clear(shown(world, note, witnesses=1))
    await signer.clear(shown(world, note, witnesses=2))
    assert (await signer.sign())[0] == 0


@pytest.mark.parametrize("at", [NOW - FRESH_SECONDS - 1, NOW + FRESH_SECONDS + 1])
async def test_a_relay_cannot_show_cosignatures_of_another_day(
    tmp_path: Path, store: Store, world: World, at: int
) -> None:
    """[G-4] What the witnesses knew before the restore says nothing of what they know now."""
    signer = make_signer(tmp_path / "signer", store, world)

    with pytest.raises(SignerError, match="0 of 3 witnesses cosigned"):
        await signer.clear(shown(world, await signer.probe(), at=at))


@pytest.mark.parametrize("days", [-1, 1])
async def test_a_machine_whose_clock_is_a_day_off_can_run(tmp_path: Path, days: int) -> None:
    """[G-4] Clocks do not decide: the witnesses are asked, whatever the time is here."""
    world, _, _ = small_world()
    clock, own = Clock(), Clock()
    clock.ahead = days * 86_400
    async with (
        witness(tmp_path, "witness0.example", world, own) as first,
        witness(tmp_path, "witness1.example", world, own) as second,
        relay(tmp_path, world, clock=clock, witnesses=0, urls=[first, second]) as running,
    ):
        await running.publish()

        assert running.context.log.size == len(world.statements)


async def test_cosignatures_that_were_not_asked_for_now_are_not_fresh(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """[G-4] Everything is put back a minute later and no witness answers: nothing is signed."""
    world, _, _ = small_world()
    async with relay(tmp_path, world) as running:
        await running.publish()
        note = running.context.log.newest().note
    assert len(cosignatures(note, world.genesis.quorum.witnesses)) >= 2
    silent = ["http://127.0.0.1:9/one", "http://127.0.0.1:9/two"]
    async with relay(tmp_path, world, witnesses=0, urls=silent) as running:
        assert running.context.relay.gate is not None

    assert "0 of 3 witnesses cosigned again" in caplog.text + str(
        [getattr(record, "fields", "") for record in caplog.records]
    )


async def test_a_relay_cannot_make_cosignatures_up(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-4] Strangers' lines do not count, and a line in a witness's name has to hold."""
    signer = make_signer(tmp_path / "signer", store, world)
    note = await signer.probe()
    strangers = [cosign(note, name, SigningKey.generate(), NOW) for name in world.witness_keys]
    line = cosign(note, "witness0.example", world.witness_keys["witness0.example"], NOW)
    forged = replace(line, signature=line.signature[:-1] + bytes([line.signature[-1] ^ 1]))

    with pytest.raises(SignerError, match="0 of 3 witnesses cosigned"):
        await signer.clear(add_signatures(note, strangers))
    with pytest.raises(SignerError, match="what the witnesses know is not shown"):
        await signer.clear(add_signatures(note, [forged]))


async def test_an_older_checkpoint_than_the_memory_shows_nothing(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-4]"""
    old = await make_signer(tmp_path / "signer", store, world).probe()
    await _state(store, world, 3)
    await (await cleared(tmp_path / "signer", store, world)).sign()

    with pytest.raises(SignerError, match="shown a checkpoint of 0 leaves and has signed 3"):
        await make_signer(tmp_path / "signer", store, world).clear(shown(world, old))


async def test_a_signer_that_lost_its_memory_goes_on_from_a_witnessed_checkpoint(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-5] The database is whole; the entries give the root that a quorum cosigned."""
    await _state(store, world, 4)
    _, note = await (await cleared(tmp_path / "signer", store, world)).sign()
    await _state(store, world, 5)
    signer = make_signer(tmp_path / "new", store, world)
    await signer.clear(shown(world, note, witnesses=2))

    assert SignerState(tmp_path / "new", ORIGIN).read().size == 4
    assert (await signer.sign())[0] == 5


async def test_a_signer_that_lost_its_memory_does_not_go_on_without_a_quorum(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-5] Enough witnesses are silent or agree, but too few of them make it a witnessed one."""
    await _state(store, world, 4)
    _, note = await (await cleared(tmp_path / "signer", store, world)).sign()
    one_of_three = replace(world.genesis.quorum, threshold=3)
    signer = Signer(
        SignerState(tmp_path / "new", ORIGIN),
        store,
        world.log_key,
        origin=ORIGIN,
        quorum=one_of_three,
        clock=lambda: NOW,
    )

    with pytest.raises(SignerError, match="what the witnesses know is not shown"):
        await signer.clear(shown(world, note, witnesses=2))
    assert SignerState(tmp_path / "new", ORIGIN).read() == Frontier()


async def test_a_signer_that_lost_its_memory_refuses_entries_that_lead_elsewhere(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-5] A database with another past, shown with the true checkpoint."""
    await _state(store, world, 4)
    _, note = await (await cleared(tmp_path / "signer", store, world)).sign()
    (leaf,) = await store.leaves(2, 1)
    flipped = Altered(store, leaves={2: leaf[:-1] + bytes([leaf[-1] ^ 1])})
    signer = make_signer(tmp_path / "new", flipped, world)

    with pytest.raises(SignerError, match="do not lead to the witnessed root at 4"):
        await signer.clear(shown(world, note))
    assert SignerState(tmp_path / "new", ORIGIN).read() == Frontier()


async def test_two_roots_of_one_size_stop_the_signer(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-3] The log key signed elsewhere, and witnesses cosigned that."""
    await _state(store, world, 3)
    await (await cleared(tmp_path / "signer", store, world)).sign()
    other = sign_checkpoint(origin=ORIGIN, size=3, root=bytes(32), key=world.log_key)

    with pytest.raises(SignerError, match="signed two roots of size 3"):
        await make_signer(tmp_path / "signer", store, world).clear(shown(world, other))


async def test_the_signers_memory_gives_back_the_newest_entries(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[R-16] A database that lost them is given them back."""
    await _state(store, world, 3)
    signer = await cleared(tmp_path / "signer", store, world)
    await signer.sign()
    await _state(store, world, 5)
    await signer.sign()
    leaves = await store.leaves(0, 5)

    assert await signer.entries(1) == leaves[1:3]
    assert await signer.entries(3) == leaves[3:]
    assert await signer.entries(5) == []


def test_the_signers_memory_keeps_no_more_than_its_bound(tmp_path: Path) -> None:
    """[R-15]"""
    state = SignerState(tmp_path / "signer", ORIGIN)
    leaf = bytes(65)
    old = Frontier()
    for count in (30_000, 30_000, 30_000):
        new = old.extend([leaf_hash(leaf)] * count)
        state.replace(old, new, [leaf] * count)
        old = new

    assert state.entries(0) == []
    assert len(state.entries(90_000 - 30_000)) == 4_096
    ((kept,),) = state._connection.execute("SELECT sum(length(data)) / 65 FROM entries").fetchall()
    assert 60_000 <= kept <= KEPT_ENTRIES


async def test_a_relay_whose_signer_forgot_goes_on_from_what_the_witnesses_know(
    tmp_path: Path,
) -> None:
    """[G-5] Against real witnesses: the file is gone, the database and the witnesses remember."""
    world, _, _ = small_world()
    async with relay(tmp_path, world) as running:
        await running.publish()
        before = running.context.log.newest()
    (tmp_path / "signer.sqlite").unlink()
    async with relay(tmp_path, world, heartbeat_seconds=0.05) as running:
        await wait_until(lambda: running.context.log.newest().note != before.note)

        assert running.context.log.newest().size == before.size
    state = SignerState(tmp_path / "signer.sqlite", ORIGIN)
    assert state.read().size == before.size


async def test_a_restored_database_does_not_fork_the_log(tmp_path: Path) -> None:
    """[G-3] Database back, signer's file not: the log goes on from what was signed."""
    world, _, _ = small_world()
    async with relay(tmp_path, world) as running:
        for at in range(1, 4):
            await running.ask("POST", "/v1/statements", world.statements[at][1].serialize())
        await running.seal()
    backup = (tmp_path / "relay.sqlite").read_bytes()
    async with relay(tmp_path, world) as running:
        await running.publish()
        before = open_checkpoint(running.context.log.newest().note, world.genesis.log)
    (tmp_path / "relay.sqlite").write_bytes(backup)
    async with relay(tmp_path, world) as running:
        after = open_checkpoint(running.context.log.newest().note, world.genesis.log)

    assert before.size == len(world.statements)
    assert (after.size, after.root) == (before.size, before.root)


async def test_a_restart_goes_on_where_it_stopped(tmp_path: Path) -> None:
    world, one, other = small_world()
    async with relay(tmp_path, world) as running:
        await running.publish()
    async with relay(tmp_path, world) as running:
        running.posted = len(world.statements)
        assert running.context.members.view.directory.desks.keys() == {one, other}
        _, answer = await running.send(world.active(one)[0], other)
        await running.seal()

        assert answer.status == 200
        assert running.context.log.size == len(world.statements) + 1


async def test_a_published_checkpoint_is_one_that_clients_believe(tmp_path: Path) -> None:
    """[L-3]"""
    world, _, _ = small_world()
    async with relay(tmp_path, world) as running:
        await running.publish()
        answer = await running.ask("GET", "/checkpoint")

    witnessed = verify_quorum(answer.body, world.genesis.log, world.genesis.quorum)
    assert witnessed.checkpoint.size == len(world.statements)
    assert len(witnessed.cosignatures) == 3


async def test_one_dead_witness_of_three_does_not_stop_the_log(tmp_path: Path) -> None:
    world, _, _ = small_world()
    async with relay(tmp_path, world, witnesses=2) as running:
        await running.publish()

        assert running.context.log.size == len(world.statements)


async def test_a_relay_with_too_few_witnesses_does_not_start(tmp_path: Path) -> None:
    world, _, _ = small_world()

    with pytest.raises(SettingsError, match="1 witnesses have an address"):
        async with relay(tmp_path, world, witnesses=1):
            pass


async def test_nothing_is_published_without_a_quorum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[L-3]"""
    world, _, _ = small_world()
    async with relay(tmp_path, world) as running:
        await running.publish()
        size = running.context.log.size
        cosign = Witnesses.cosign
        tried: list[int] = []

        async def only_one(self: Witnesses, *args: object, **kwargs: object) -> list[object]:
            lines = await cosign(self, *args, **kwargs)  # type: ignore[arg-type]  # passed on
            tried.append(len(lines))
            return list(lines[:1])

        monkeypatch.setattr(Witnesses, "cosign", only_one)
        world.create_desk("XA", officers=1)
        _, signed = world.statements[running.posted]
        await running.ask("POST", "/v1/statements", signed.serialize())
        await wait_until(lambda: len(tried) > 1)

        assert running.context.relay.size == size + 1
        assert running.context.log.size == size


async def test_an_idle_log_is_cosigned_again_as_a_heartbeat(tmp_path: Path) -> None:
    world, _, _ = small_world()
    clock = Clock()
    async with relay(tmp_path, world, clock=clock, heartbeat_seconds=0.05) as running:
        await running.publish()
        first = running.context.log.newest()
        clock.ahead = 100
        await wait_until(lambda: running.context.log.newest().note != first.note)

        assert running.context.log.newest().size == first.size
        assert running.context.log.newest().at >= first.at + 100
