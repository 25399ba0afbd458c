"""A mirror holds the whole log on its own disk and serves it to anybody: [W-6]."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web

from comity_client.audit_archive import Archive
from comity_client.audit_fetch import fetch
from comity_client.audit_findings import Finding
from comity_client.audit_source import Source
from comity_client.audit_statements import read_statements
from comity_client.witness import make_witness_runner, serve_witness
from comity_client.witness_mirror import ENTRIES_FILE, Mirror
from comity_client.witness_rule import Answer
from comity_protocol.checkpoint import add_signatures, cosign
from comity_protocol.encoding import parse, serialize
from comity_protocol.errors import VerificationError
from comity_protocol.leaves import LEAF_BYTES
from comity_protocol.limits import MIRROR_STATEMENTS_MAX
from comity_protocol.merkle import TILE_WIDTH, Frontier, leaf_hash
from comity_protocol.statements import SignedStatement
from comity_protocol.witnessing import Cosigned, Refused
from support.hostile_log import HostileLog, Replaying, replaying
from support.relay import small_world

NOW: Final = 1_800_000_000


@pytest.fixture
def log() -> HostileLog:
    world, *_ = small_world()
    return HostileLog.of(world)


def published(log: HostileLog, size: int | None = None, *, witnesses: int = 2) -> bytes:
    """The checkpoint as the relay publishes it, with cosignatures of the genesis's witnesses."""
    note = log.offer(0, size).note
    keys = list(log.world.witness_keys.items())[:witnesses]
    return add_signatures(note, [cosign(note, name, key, NOW) for name, key in keys])


def served(witness: Replaying, path: str, query: str = "") -> bytes:
    answer = asked(witness, path, query)
    assert answer.status == 200, answer
    return answer.body


def asked(witness: Replaying, path: str, query: str = "") -> Answer:
    assert witness.mirror is not None
    return witness.mirror.answer(path, query)


async def test_a_mirror_serves_the_log_as_tiles(tmp_path: Path, log: HostileLog) -> None:
    log.carry(TILE_WIDTH + 10)
    with replaying(tmp_path, log, has_mirror=True) as witness:
        assert isinstance(await witness.ask_for_all(), Cosigned)
        assert witness.mirror is not None
        note = published(log)
        witness.mirror.take_note(note, log.world.genesis)

        hashes = [leaf_hash(leaf) for leaf in log.leaves_]
        rest = log.size - TILE_WIDTH
        assert served(witness, "/checkpoint") == note
        assert served(witness, "/tile/0/000") == b"".join(hashes[:TILE_WIDTH])
        assert served(witness, f"/tile/0/001.p/{rest}") == b"".join(hashes[TILE_WIDTH:])
        root = Frontier().extend(hashes[:TILE_WIDTH]).root
        assert served(witness, "/tile/1/000.p/1") == root
        bundle = served(witness, f"/tile/entries/001.p/{rest}")
        length = LEAF_BYTES.to_bytes(2, "big")
        assert bundle == b"".join(length + leaf for leaf in log.leaves_[TILE_WIDTH:])


async def test_a_mirror_serves_the_statements_that_it_replayed(
    tmp_path: Path, log: HostileLog
) -> None:
    with replaying(tmp_path, log, has_mirror=True) as witness:
        await witness.ask_for_all()

        def statements(skip: int) -> list[bytes]:
            items = parse(served(witness, "/statements", f"after={skip}"))
            assert isinstance(items, list)
            return [SignedStatement.parse(serialize(item)).payload for item in items]

        payloads = [signed.payload for signed in log.given]
        assert statements(0) == payloads[:MIRROR_STATEMENTS_MAX]
        assert statements(3) == payloads[3:]
        assert statements(len(payloads)) == []


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/tile/0/001", ""),
        ("/tile/0/000", ""),
        ("/tile/0/000.p/0", ""),
        ("/tile/0/000.p/256", ""),
        ("/tile/0/000.p/01", ""),
        ("/tile/0/0", ""),
        ("/tile/0/x000/000", ""),
        ("/tile/0/x001/000", ""),
        ("/tile/0/x999/x999/x999/x999/x999/x999/x999/000", ""),
        ("/tile/8/000.p/1", ""),
        ("/tile/-1/000.p/1", ""),
        ("/tile/0/000.p/1", "x=1"),
        ("/tile/0/../../witness.key", ""),
        ("/tile/entries/000.p/200", ""),
        ("/tile", ""),
        ("/tile/entries", ""),
        ("/witness.key", ""),
        ("/checkpoint", "x"),
    ],
)
async def test_a_mirror_serves_nothing_else(
    tmp_path: Path, log: HostileLog, path: str, query: str
) -> None:
    with replaying(tmp_path, log, has_mirror=True) as witness:
        await witness.ask_for_all()
        assert witness.mirror is not None
        witness.mirror.take_note(published(log), log.world.genesis)

        assert asked(witness, path, query).status == 404


async def test_a_mirror_serves_what_it_cosigned_and_nobody_lived_to_publish(
    tmp_path: Path, log: HostileLog
) -> None:
    """[G-5] From this a relay that lost its newest entries can be refilled."""
    with replaying(tmp_path, log, has_mirror=True) as witness:
        assert asked(witness, "/checkpoint", "cosigned").status == 404
        assert asked(witness, "/tile/0/000.p/1").status == 404
        await witness.ask_for_all()
        log.carry(2)
        await witness.replay.catch_up(log.size)

        assert asked(witness, "/checkpoint").status == 404
        assert served(witness, "/checkpoint", "cosigned") == log.offer(0, log.size - 2).note
        assert len(served(witness, f"/tile/0/000.p/{log.size - 2}")) == 32 * (log.size - 2)
        # What it has fetched and not cosigned yet may still turn out wrong.
        assert asked(witness, f"/tile/0/000.p/{log.size - 1}").status == 404
        assert asked(witness, "/statements", "before=1").status == 400


async def test_a_mirror_shows_only_checkpoints_with_their_quorum_and_of_its_own_history(
    tmp_path: Path, log: HostileLog
) -> None:
    with replaying(tmp_path, log, has_mirror=True) as witness:
        await witness.ask_for_all()
        mirror, genesis = witness.mirror, log.world.genesis
        assert mirror is not None
        with pytest.raises(VerificationError, match="has 1 cosignatures of pinned witnesses"):
            mirror.take_note(published(log, witnesses=1), genesis)
        good = published(log, log.size - 1)
        log.leaves_[2] = b"\x00" + bytes(LEAF_BYTES - 1)
        with pytest.raises(VerificationError, match="of another history than the entries"):
            mirror.take_note(published(log), genesis)
        assert asked(witness, "/checkpoint").status == 404

        mirror.take_note(good, genesis)
        assert served(witness, "/checkpoint") == good
        # Neither an older one nor one that covers more than is here takes its place.
        log.leaves_[2] = witness.mirror.entries(2, 1)[0] if witness.mirror else b""
        mirror.take_note(published(log, log.size - 2), genesis)
        log.carry(1)
        mirror.take_note(published(log), genesis)
        assert served(witness, "/checkpoint") == good


async def test_the_checkpoint_is_served_again_after_a_restart(
    tmp_path: Path, log: HostileLog
) -> None:
    with replaying(tmp_path, log, has_mirror=True) as witness:
        await witness.ask_for_all()
        assert witness.mirror is not None
        witness.mirror.take_note(published(log), log.world.genesis)
    with replaying(tmp_path, log, has_mirror=True) as witness:
        assert served(witness, "/checkpoint") == published(log)
        assert len(served(witness, "/tile/0/000.p/3")) == 96


async def test_what_is_not_on_the_disk_is_not_cosigned(
    tmp_path: Path, log: HostileLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[W-6]"""
    with replaying(tmp_path, log, has_mirror=True) as witness:
        synced: list[int] = []

        def no_room(_: object) -> None:
            synced.append((tmp_path / "mirror" / ENTRIES_FILE).stat().st_size)
            raise OSError("no room")

        with monkeypatch.context() as patch:
            patch.setattr(Mirror, "sync", no_room)
            with pytest.raises(OSError, match="no room"):
                await witness.ask_for_all()

        assert synced == [log.size * LEAF_BYTES]
        assert witness.folder.state.seen(log.world.genesis.origin) is None
        assert isinstance(await witness.ask_for_all(), Cosigned)


@pytest.mark.parametrize("torn", [1, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1, 5 * LEAF_BYTES])
async def test_what_was_written_and_not_cosigned_is_cut(
    tmp_path: Path, log: HostileLog, torn: int
) -> None:
    """[W-6] As after a kill in the middle of an append, at any byte."""
    with replaying(tmp_path, log, has_mirror=True) as witness:
        await witness.ask_for_all()
    path = tmp_path / "mirror" / ENTRIES_FILE
    with path.open("ab") as file:
        file.write(b"\x01" * torn)
    with replaying(tmp_path, log, has_mirror=True) as witness:
        assert path.read_bytes() == b"".join(log.leaves_)
        log.carry(2)
        assert isinstance(await witness.ask_for_all(), Cosigned)
        assert path.read_bytes() == b"".join(log.leaves_)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("lose", [cut, empty, remove, alter])
async def test_a_mirror_that_lost_entries_fetches_all_before_it_cosigns_again(
    tmp_path: Path,
    log: HostileLog,
    lose: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[W-6]"""
    with replaying(tmp_path, log, has_mirror=True) as witness:
        await witness.ask_for_all()
    lose(tmp_path / "mirror" / ENTRIES_FILE)
    log.asked.clear()
    log.carry(1)
    with replaying(tmp_path, log, has_mirror=True) as witness:
        assert "alarm: the mirror has lost entries" in caplog.text
        log.is_gone = True
        assert await witness.ask_for_all() == Refused(503)
        log.is_gone = False
        assert isinstance(await witness.ask_for_all(), Cosigned)
        assert log.asked[-2] == 0
    assert (tmp_path / "mirror" / ENTRIES_FILE).read_bytes() == b"".join(log.leaves_)


async def test_a_witness_that_becomes_a_mirror_later_has_all_entries_before_it_cosigns(
    tmp_path: Path, log: HostileLog
) -> None:
    """[W-6]"""
    with replaying(tmp_path, log) as witness:
        await witness.ask_for_all()
    log.carry(1)
    with replaying(tmp_path, log, has_mirror=True) as witness:
        assert isinstance(await witness.ask_for_all(), Cosigned)
    assert (tmp_path / "mirror" / ENTRIES_FILE).read_bytes() == b"".join(log.leaves_)


async def test_entries_that_turned_out_wrong_do_not_stay_in_the_mirror(
    tmp_path: Path, log: HostileLog
) -> None:
    """[W-6]"""
    with replaying(tmp_path, log, has_mirror=True) as witness:
        await witness.ask_for_all()
        log.carry(TILE_WIDTH)
        log.shown[log.size - 1] = b"\x00" + bytes(LEAF_BYTES - 1)
        assert await witness.ask_for_all() == Refused(422)
        log.shown.clear()
        assert isinstance(await witness.ask_for_all(), Cosigned)
        assert witness.mirror is not None
        witness.mirror.take_note(published(log), log.world.genesis)
        root = Frontier().extend(map(leaf_hash, log.leaves_[:TILE_WIDTH])).root
        assert served(witness, "/tile/1/000.p/1") == root
    assert (tmp_path / "mirror" / ENTRIES_FILE).read_bytes() == b"".join(log.leaves_)


async def test_an_auditor_fetches_the_whole_log_from_a_mirror_when_the_relay_is_gone(
    tmp_path: Path, log: HostileLog
) -> None:
    """[W-6] [V-3]"""
    log.carry(2 * TILE_WIDTH)
    findings: list[Finding] = []
    with replaying(tmp_path / "w", log, has_mirror=True) as witness:
        await witness.ask_for_all()
        assert witness.mirror is not None
        witness.mirror.take_note(published(log), log.world.genesis)
        log.is_gone = True
        runner = make_witness_runner(serve_witness(witness.witness))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        pinned = log.world.statements[0][1].hash
        async with Source(f"http://{host}:{port}") as source:
            archive = Archive(tmp_path / "audit")
            fetched = await fetch(archive, source, pinned, report=findings.append)
        await runner.cleanup()

    assert findings == []
    assert fetched.size == log.size
    known = read_statements(archive)
    assert known is not None
    assert [one.payload for one in known] == [one.payload for one in log.given]
