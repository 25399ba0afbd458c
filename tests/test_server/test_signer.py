"""The signer trusts nobody: [G-1], [G-2], [G-3], [G-4], and the checkpoints it leads to."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from comity_protocol.checkpoint import Quorum, open_checkpoint, verify_quorum
from comity_protocol.keys import FastKey
from comity_protocol.merkle import Frontier, leaf_hash
from comity_protocol.receipts import Promise, sign_promise
from comity_protocol.signed_note import KeyType, VerifierKey
from comity_server.settings import SettingsError
from comity_server.signer import Signer, SignerError, SignerState
from comity_server.statement_rows import genesis_row, statement_row
from comity_server.store import Head, Store
from comity_server.witnesses import Witnesses
from support.relay import Clock, opened, relay, small_world, wait_until
from support.world import ORIGIN, World

KEY = SigningKey.generate()
LOG = VerifierKey(ORIGIN, KeyType.ED25519, bytes(KEY.verify_key))


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


async def _signer(path: Path, store: Store, *, knows: Sequence[int] = (0,)) -> Signer:
    signer = Signer(SignerState(path, ORIGIN), store, KEY, ORIGIN)
    await signer.clear(knows, answers_min=1)
    return signer


class Altered:
    """A store in which somebody changed something."""

    def __init__(
        self, store: Store, *, head: Head | None = None, leaves: dict[int, bytes] | None = None
    ) -> None:
        self._store = store
        self._head = head
        self._leaves = leaves or {}

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def head(self) -> Head:
        return self._head or await self._store.head()

    async def leaves(self, start: int, count: int) -> list[bytes]:
        leaves = await self._store.leaves(start, count)
        return [self._leaves.get(start + at, leaf) for at, leaf in enumerate(leaves)]


async def test_the_signer_signs_what_the_leaves_give(
    tmp_path: Path, store: Store, world: World
) -> None:
    await _state(store, world, 4)
    signer = await _signer(tmp_path / "signer", store)
    size, note = await signer.sign()

    expected = Frontier().extend([leaf_hash(leaf) for leaf in await store.leaves(0, 4)])
    checkpoint = open_checkpoint(note, LOG)
    assert (size, checkpoint.size, checkpoint.root) == (4, 4, expected.root)


async def test_the_signer_signs_nothing_when_a_leaf_was_changed(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-1] One flipped bit in the bytes, while every cached hash still fits."""
    await _state(store, world, 4)
    (leaf,) = await store.leaves(2, 1)
    flipped = Altered(store, leaves={2: leaf[:-1] + bytes([leaf[-1] ^ 1])})
    signer = await _signer(tmp_path / "signer", flipped)  # type: ignore[arg-type]  # only what the signer uses

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
    signer = await _signer(tmp_path / "signer", longer)  # type: ignore[arg-type]  # only what the signer uses

    with pytest.raises(SignerError, match="lacks leaves below 9"):
        await signer.sign()


async def test_the_signers_memory_is_written_before_it_signs(
    tmp_path: Path, store: Store, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[G-2] When the memory cannot be written, no signature exists."""
    await _state(store, world, 4)
    signer = await _signer(tmp_path / "signer", store)
    signed: list[int] = []

    def fail(_self: SignerState, _old: Frontier, _new: Frontier) -> None:
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
    await (await _signer(tmp_path / "signer", store)).sign()
    async with opened(f"sqlite:///{tmp_path / 'backup.sqlite'}") as backup:
        await _state(backup, world, 3)
        signer = await _signer(tmp_path / "signer", backup)

        with pytest.raises(SignerError, match="has 3 leaves and 5 were signed"):
            await signer.sign()


async def test_the_signer_never_signs_another_root_for_a_size(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-3] A database with another past of the same length, and one that grew from it."""
    await _state(store, world, 5)
    await (await _signer(tmp_path / "signer", store)).sign()
    other = World.found()
    other.create_desk("XA")
    other.create_desk("XB")
    async with opened(f"sqlite:///{tmp_path / 'fork.sqlite'}") as fork:
        await _state(fork, other, 5)
        signer = await _signer(tmp_path / "signer", fork)
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
    signer = await _signer(tmp_path / "signer", store)

    assert await signer.sign() == await signer.sign()


async def test_the_signer_signs_nothing_before_it_has_asked_the_witnesses(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-4]"""
    await _state(store, world, 3)
    signer = Signer(SignerState(tmp_path / "signer", ORIGIN), store, KEY, ORIGIN)

    with pytest.raises(SignerError, match="not asked yet"):
        await signer.sign()


async def test_the_signer_signs_nothing_when_a_witness_is_ahead(
    tmp_path: Path, store: Store, world: World
) -> None:
    """[G-4] The signer's file was lost or restored together with the database."""
    await _state(store, world, 3)
    signer = Signer(SignerState(tmp_path / "signer", ORIGIN), store, KEY, ORIGIN)

    with pytest.raises(SignerError, match=r"knows 2 leaves and this signer 0"):
        await signer.clear([0, 2, 0], answers_min=1)
    with pytest.raises(SignerError, match="not asked yet"):
        await signer.sign()


async def test_the_signer_waits_until_enough_witnesses_have_answered(
    tmp_path: Path, store: Store
) -> None:
    """[G-4] Any quorum that ever cosigned has a witness among those who answered."""
    signer = Signer(SignerState(tmp_path / "signer", ORIGIN), store, KEY, ORIGIN)

    with pytest.raises(SignerError, match="1 witnesses said what they know, expected at least 2"):
        await signer.clear([0], answers_min=2)
    await signer.clear([0, 0], answers_min=2)
    assert signer.is_cleared


async def test_a_relay_whose_signer_forgot_publishes_nothing(tmp_path: Path) -> None:
    """[G-4] Against real witnesses: the file is gone, the witnesses remember."""
    world, _, _ = small_world()
    async with relay(tmp_path, world) as running:
        await running.publish()
        before = running.context.log.newest().note
    (tmp_path / "signer.sqlite").unlink()
    async with relay(tmp_path, world) as running:
        await wait_until(
            lambda: b"comity_signer_refusals_total 0.0" not in running.context.metrics.text()
        )
        answer = await running.ask("GET", "/checkpoint")

        assert answer.body == before
        with sqlite3.connect(tmp_path / "signer.sqlite") as connection:
            assert connection.execute("SELECT frontier FROM signer").fetchone() == (bytes(8),)


async def test_a_restored_database_does_not_fork_the_log(tmp_path: Path) -> None:
    """[G-3] Database back, signer's file not: nothing is signed."""
    world, _, _ = small_world()
    async with relay(tmp_path, world) as running:
        for at in range(1, 4):
            await running.ask("POST", "/v1/statements", world.statements[at][1].serialize())
        await running.seal()
    backup = (tmp_path / "relay.sqlite").read_bytes()
    async with relay(tmp_path, world) as running:
        await running.publish()
        sizes = running.context.log.size
    (tmp_path / "relay.sqlite").write_bytes(backup)
    async with relay(tmp_path, world) as running:
        await wait_until(
            lambda: b"comity_signer_refusals_total 0.0" not in running.context.metrics.text()
        )

        assert sizes == len(world.statements)
        assert running.context.log.size == 4


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

    quorum = Quorum(
        world.genesis.quorum,
        tuple(
            VerifierKey(name, KeyType.COSIGNATURE_V1, key) for name, key in world.genesis.witnesses
        ),
    )
    log = VerifierKey(world.genesis.origin, KeyType.ED25519, world.genesis.log_key)
    witnessed = verify_quorum(answer.body, log, quorum)
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
