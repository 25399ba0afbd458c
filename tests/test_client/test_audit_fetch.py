"""A fetch believes nothing, resumes where it stopped, and never replaces what was verified."""

from collections.abc import Callable
from pathlib import Path

import pytest

from comity_client.audit_archive import Archive, ArchiveError
from comity_client.audit_fetch import Fetched, fetch
from comity_client.audit_findings import Finding, Kind
from comity_client.audit_source import Source, SourceError
from comity_client.audit_tree import read_entries
from comity_client.audit_verify import Audit
from comity_client.transport import OfflineError
from comity_protocol.encoding import serialize
from comity_protocol.errors import ComityError, VerificationError
from comity_protocol.evidence import verify_evidence
from support.paper_log import NOW, Mirror, PaperLog, mirror
from support.world import World


@pytest.fixture(scope="module")
def world() -> World:
    world = World.found(has_anchors=True)
    world.create_desk("XA")
    return world


@pytest.fixture(scope="module")
def log(world: World) -> PaperLog:
    return PaperLog(world, 1_300)


async def no_pause(_seconds: float) -> None:
    """Wait for nothing."""


async def bring(
    folder: Path, served: Mirror, pinned: bytes | None, *, seconds_max: float = 10
) -> tuple[Fetched, list[Finding]]:
    found: list[Finding] = []
    async with Source(served.url, sleep=no_pause, seconds_max=seconds_max) as source:
        return await fetch(Archive(folder), source, pinned, report=found.append), found


def findings(folder: Path) -> list[Finding]:
    found: list[Finding] = []
    Audit(Archive(folder), found.append).run(None)
    return [one for one in found if one.kind is not Kind.NO_ANCHORS]


async def test_a_log_is_fetched_whole_and_again_costs_nothing(
    tmp_path: Path, log: PaperLog
) -> None:
    async with mirror(log.files()) as served:
        fetched, found = await bring(tmp_path, served, log.pinned)
        assert (fetched.size, found, findings(tmp_path)) == (1_300, [], [])
        served.asked.clear()
        again, _ = await bring(tmp_path, served, None)

    assert again.files == 0
    assert [name for name in served.asked if name.startswith("tile")] == []
    assert list(read_entries(Archive(tmp_path), 1_300)) == log.entries


async def test_a_fetch_goes_on_where_it_was_broken_off(tmp_path: Path, log: PaperLog) -> None:
    files = log.files()
    held_back = files.pop("tile/entries/003")
    async with mirror(files) as served:
        with pytest.raises(SourceError, match="has no tile/entries/003"):
            await bring(tmp_path, served, log.pinned)
        assert not (tmp_path / "checkpoint").exists()
        served.files["tile/entries/003"] = held_back
        (tmp_path / "tile/entries/000").write_bytes(b"half a fi")
        served.asked.clear()
        await bring(tmp_path, served, None)

    assert findings(tmp_path) == []
    asked = [name for name in served.asked if name.startswith("tile/entries")]
    assert "tile/entries/000" in asked
    assert len(asked) < 6


async def test_a_log_that_grew_replaces_its_partial_tiles(tmp_path: Path, log: PaperLog) -> None:
    for size in (20, 255, 256, 300, 1_280, 1_300):
        async with mirror(log.files(size)) as served:
            fetched, found = await bring(tmp_path, served, log.pinned)

        assert (fetched.size, found, findings(tmp_path)) == (size, [], [])
    names = set(Archive(tmp_path).names())
    assert {name for name in names if name.startswith("tile")} == {
        name for name in log.files() if name.startswith("tile")
    }
    assert len([name for name in names if name.startswith("checkpoints/")]) == 5


async def test_a_partial_tile_that_is_gone_is_cut_from_the_full_one(
    tmp_path: Path, log: PaperLog
) -> None:
    """C2SP tlog-tiles allows a server to drop partial tiles once the full one is there."""
    files = log.files() | {"checkpoint": log.note(1_000)}
    files["tile/1/000.p/3"] = files["tile/1/000.p/5"][: 3 * 32]
    async with mirror(files) as served:
        fetched, _ = await bring(tmp_path, served, log.pinned)

    assert (fetched.size, findings(tmp_path)) == (1_000, [])


LIES: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("tile/0/002", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    ("tile/0/005.p/20", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    ("tile/1/000.p/5", lambda data: bytes([data[0] ^ 1]) + data[1:]),
    ("tile/entries/002", lambda data: data[:70] + bytes([data[70] ^ 1]) + data[71:]),
    ("tile/entries/002", lambda data: data[67:] + data[:67]),
    ("tile/entries/005.p/20", lambda data: data[:-1] + bytes([data[-1] ^ 128])),
    ("tile/0/003", lambda data: data[:-32]),
    ("tile/entries/003", lambda data: data[:-1]),
    ("checkpoint", lambda data: data.replace(b"1300", b"1301")),
]


@pytest.mark.parametrize(("name", "lie"), LIES, ids=range(len(LIES)))
async def test_nothing_of_a_lie_is_written(
    name: str, lie: Callable[[bytes], bytes], tmp_path: Path, log: PaperLog
) -> None:
    """[V-3]"""
    files = log.files()
    files[name] = lie(files[name])
    async with mirror(files) as served:
        with pytest.raises(VerificationError):
            await bring(tmp_path, served, log.pinned)

    assert not (tmp_path / name).exists()
    assert not (tmp_path / "checkpoint").exists()


async def test_other_content_on_the_second_fetch_is_a_fork_with_evidence(
    tmp_path: Path, log: PaperLog
) -> None:
    """[V-1] [L-6] Nothing in the folder changes, and a third party can check the file."""
    other = PaperLog(log.world, 1_300, salt=b"other")
    async with mirror(log.files(1_000)) as served:
        await bring(tmp_path, served, log.pinned)
    before = {name: (tmp_path / name).read_bytes() for name in Archive(tmp_path).names()}
    for size in (900, 1_000, 1_300):
        async with mirror(other.files(size)) as served:
            fetched, found = await bring(tmp_path, served, log.pinned)

        assert (fetched.size, [one.kind for one in found]) == (1_000, [Kind.FORK])
        evidence = (tmp_path / found[0].evidence).read_bytes()
        assert "exclude each other" in verify_evidence(evidence, log.world.genesis)
    for name, data in before.items():
        assert (tmp_path / name).read_bytes() == data


async def test_a_source_that_is_behind_is_reported_and_changes_nothing(
    tmp_path: Path, log: PaperLog
) -> None:
    async with mirror(log.files()) as served:
        await bring(tmp_path, served, log.pinned)
    async with mirror(log.files(900)) as served:
        fetched, found = await bring(tmp_path, served, None)

    assert [one.kind for one in found] == [Kind.ROLLBACK]
    assert (fetched.size, findings(tmp_path)) == (1_300, [])


async def test_a_damaged_tile_of_the_folder_is_named_and_not_blamed_on_the_source(
    tmp_path: Path, log: PaperLog
) -> None:
    async with mirror(log.files(1_000)) as served:
        await bring(tmp_path, served, log.pinned)
    path = tmp_path / "tile/0/002"
    path.write_bytes(bytes(len(path.read_bytes())))
    (tmp_path / "tile/entries/002").unlink()
    async with mirror(log.files()) as served:
        fetched, found = await bring(tmp_path, served, None)

    assert fetched.size == 1_300
    assert [(one.kind, one.where) for one in found] == [(Kind.DAMAGED_TILE, "tile/0/002")]
    assert [one.where for one in findings(tmp_path)] == ["tile/0/002"]


async def test_a_mirror_without_a_genesis_gives_it_as_its_first_statement(
    tmp_path: Path, log: PaperLog
) -> None:
    files = log.files()
    del files["v1/genesis"]
    async with mirror(files) as served:
        _, found = await bring(tmp_path, served, log.pinned)

    assert (found, findings(tmp_path)) == ([], [])


@pytest.mark.parametrize("name", ["checkpoint", "tile/0/001", "tile/entries/001", "v1/genesis"])
async def test_an_endless_answer_is_cut_off(name: str, tmp_path: Path, log: PaperLog) -> None:
    """[B-11]"""
    async with mirror(log.files()) as served:
        served.endless.add(name)
        with pytest.raises(OfflineError, match="is larger than"):
            await bring(tmp_path, served, log.pinned)


async def test_a_slow_answer_is_cut_off(tmp_path: Path, log: PaperLog) -> None:
    """[B-11]"""
    async with mirror(log.files()) as served:
        served.slow.add("tile/entries/001")
        with pytest.raises(OfflineError, match="TimeoutError"):
            await bring(tmp_path, served, log.pinned, seconds_max=0.3)


async def test_another_deployment_is_refused(tmp_path: Path, log: PaperLog) -> None:
    """[D-1]"""
    async with mirror(log.files()) as served:
        with pytest.raises(VerificationError, match="another deployment"):
            await bring(tmp_path, served, bytes(32))
        with pytest.raises(ArchiveError, match="--genesis"):
            await bring(tmp_path, served, None)

    assert list(Archive(tmp_path).names()) == []


def page(*notes: bytes) -> bytes:
    return serialize({"items": list(notes)})


async def test_published_checkpoints_and_anchors_are_kept(tmp_path: Path, log: PaperLog) -> None:
    """[L-10] As far as they are pasts of the log; what is not is a fork."""
    other = PaperLog(log.world, 1_300, salt=b"other")
    files = log.files() | {
        "v1/checkpoints?after=-1&skip=0&limit=200": page(
            *(log.note(size) for size in (3, 256, 700))
        ),
        "v1/checkpoints?after=699&skip=1&limit=200": page(
            log.note(700, at=NOW + 1), other.note(900)
        ),
        "v1/anchors?after=-1&skip=0&limit=16": page(log.anchor(256), log.anchor(700)),
    }
    async with mirror(files) as served:
        fetched, found = await bring(tmp_path, served, log.pinned)
        assert (fetched.checkpoints, found) == (5, [])
        again, found = await bring(tmp_path, served, log.pinned)
        assert again.checkpoints == 1
        assert [one.kind for one in found] == [Kind.FORK]
        assert verify_evidence((tmp_path / found[0].evidence).read_bytes(), log.world.genesis)
        served.files["v1/anchors?after=699&skip=1&limit=16"] = page(log.note(800))
        _, found = await bring(tmp_path, served, log.pinned)
        assert [one.kind for one in found] == [Kind.ANCHOR]

    assert findings(tmp_path) == []


async def test_statements_are_continued_and_never_replaced(tmp_path: Path, log: PaperLog) -> None:
    """[B-13] Only what the log holds at the next place is kept."""
    stranger = PaperLog(World.found(), 9).statements[0]
    part = PaperLog(log.world, 9, statements=log.statements[:4])
    files = log.files() | {"statements?after=0": part.statement_list}
    async with mirror(files) as served:
        await bring(tmp_path, served, log.pinned)
        kept = (tmp_path / "statements.cbor").read_bytes()
        assert kept == part.statement_list
        served.files["statements?after=4"] = PaperLog(
            log.world, 9, statements=[stranger]
        ).statement_list
        _, found = await bring(tmp_path, served, log.pinned)
        assert [one.kind for one in found] == [Kind.SOURCE]
        assert (tmp_path / "statements.cbor").read_bytes() == kept

        rest = [*log.statements[4:], stranger]
        served.files["statements?after=4"] = PaperLog(log.world, 9, statements=rest).statement_list
        _, found = await bring(tmp_path, served, log.pinned)
        assert (found, findings(tmp_path)) == ([], [])
        served.files[f"statements?after={len(log.statements)}"] = b"\x82\x00"
        with pytest.raises(ComityError):
            await bring(tmp_path, served, log.pinned)

    assert (tmp_path / "statements.cbor").read_bytes() == log.statement_list


async def test_endless_statements_are_cut_off(tmp_path: Path, log: PaperLog) -> None:
    """[B-11] A log cannot hold more statements than entries."""
    small = PaperLog(log.world, 20)
    files = small.files()
    for page in range(9):
        files[f"statements?after={page * len(small.statements)}"] = small.statement_list
    async with mirror(files) as served:
        with pytest.raises(SourceError, match="more statements"):
            await bring(tmp_path, served, log.pinned)


@pytest.mark.parametrize("url", ["http://relay.example", "ftp://x", "https://a/?q", "https://u@h"])
def test_an_address_that_would_send_in_the_clear_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Source(url)
