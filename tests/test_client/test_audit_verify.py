"""An audit finds every damaged byte and names the file: [V-3].

The folder is checked with nothing running. Each test plants one fault and takes it away again.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from comity_client.audit_archive import Archive, ArchiveError, tile_at
from comity_client.audit_findings import Finding, Kind
from comity_client.audit_verify import Audit, Objects, Verified
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.leaves import notice_leaf
from comity_protocol.notices import Author, Hold, HoldBasis, sign_notice
from comity_protocol.receipts import Signed
from support.paper_log import PaperLog
from support.relay import small_world
from support.world import World

SIZE = 65_536 + 2 * 256 + 77
"""Three levels of tiles, each with full and partial ones."""


@pytest.fixture(scope="module")
def log() -> PaperLog:
    return PaperLog(small_world()[0], SIZE)


@pytest.fixture(scope="module")
def folder(log: PaperLog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit") / "log"
    log.write(folder)
    return folder


SMALL = 1_300


@pytest.fixture(scope="module")
def small_folder(log: PaperLog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit") / "small"
    PaperLog(log.world, SMALL).write(folder)
    return folder


def audit(folder: Path, pinned: bytes | None = None) -> tuple[Verified, list[Finding]]:
    found: list[Finding] = []
    verified = Audit(Archive(folder), found.append).run(pinned)
    return verified, found


@contextmanager
def altered(path: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    """Alter a file, and put it right again."""
    data = path.read_bytes()
    path.write_bytes(change(data))
    try:
        yield
    finally:
        path.write_bytes(data)


def flip(at: int, bit: int = 0) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        place = at % len(data)
        return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]

    return change


def given(data: bytes) -> Callable[[bytes], bytes]:
    return lambda _: data


def named(found: list[Finding]) -> set[tuple[Kind, str]]:
    return {(one.kind, one.where) for one in found}


def test_a_whole_folder_is_found_whole(folder: Path, log: PaperLog) -> None:
    """[V-3]"""
    verified, found = audit(folder, log.pinned)

    assert found == []
    assert verified.is_whole
    assert verified.size == SIZE
    assert verified.genesis_hash == log.pinned
    assert verified.statements == len(log.statements)
    assert verified.desks == 2


FILES = [
    tile_at(None, 255, SIZE).path,
    tile_at(None, 258, SIZE).path,
    tile_at(0, 256, SIZE).path,
    tile_at(1, 0, SIZE).path,
    tile_at(1, 1, SIZE).path,
    tile_at(2, 0, SIZE).path,
]


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_found_and_its_file_is_named(name: str, folder: Path) -> None:
    """[V-3]"""
    kind = Kind.DAMAGED_ENTRIES if "entries" in name else Kind.DAMAGED_TILE
    for at in (5, -1):
        with altered(folder / name, flip(at, bit=at % 8)):
            verified, found = audit(folder)

        assert named(found) == {(kind, name)}
        assert not verified.is_whole


SMALL_FILES = [
    tile_at(level, index, SMALL).path
    for level, index in ((None, 0), (None, 4), (None, 5), (0, 0), (0, 4), (0, 5), (1, 0))
]


@pytest.mark.parametrize("name", SMALL_FILES)
@pytest.mark.parametrize("width", [0, 1, -1])
def test_a_truncated_file_is_named(name: str, width: int, small_folder: Path) -> None:
    """[V-3]"""
    with altered(small_folder / name, lambda data: data[:width]):
        _, found = audit(small_folder)

    assert {where for _, where in named(found)} == {name}


@pytest.mark.parametrize("name", SMALL_FILES)
def test_a_missing_file_is_named(name: str, small_folder: Path) -> None:
    """[V-3]"""
    path = small_folder / name
    data = path.read_bytes()
    path.unlink()
    try:
        _, found = audit(small_folder)
    finally:
        path.write_bytes(data)

    assert named(found) == {(Kind.MISSING_FILE, name)}


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 512, 513])
def test_every_file_of_a_log_of_any_size_is_compared(
    size: int, log: PaperLog, tmp_path: Path
) -> None:
    """[V-3] Also where levels end in full tiles, or in tiles of one hash."""
    PaperLog(log.world, size, statements=log.statements[: min(size, 8)]).write(tmp_path)
    assert [one.kind for one in audit(tmp_path)[1]] == []
    for name in [*Archive(tmp_path).names("tile")]:
        data = (tmp_path / name).read_bytes()
        with altered(tmp_path / name, flip(len(data) // 2 + 3, 7)):
            _, found = audit(tmp_path)
        kind = Kind.DAMAGED_ENTRIES if "entries" in name else Kind.DAMAGED_TILE
        assert named(found) == {(kind, name)}


def test_swapped_tiles_are_named(folder: Path) -> None:
    """[V-3]"""
    for level in (None, 0):
        one, other = (tile_at(level, index, SIZE).path for index in (3, 200))
        kind = Kind.DAMAGED_ENTRIES if level is None else Kind.DAMAGED_TILE
        mine, theirs = ((folder / name).read_bytes() for name in (one, other))
        with altered(folder / one, given(theirs)), altered(folder / other, given(mine)):
            _, found = audit(folder)

        assert named(found) == {(kind, one), (kind, other)}


def test_entries_and_their_tile_from_another_log_are_named(folder: Path, log: PaperLog) -> None:
    """[V-3] A file that fits its neighbours but not the log."""
    other = PaperLog(log.world, SIZE, salt=b"another").tiles()
    names = [tile_at(None, 7, SIZE).path, tile_at(0, 7, SIZE).path]
    one, two = (given(other[name]) for name in names)
    with altered(folder / names[0], one), altered(folder / names[1], two):
        _, found = audit(folder)

    assert (Kind.DAMAGED_TILE, names[1]) in named(found)


def test_a_whole_log_of_another_history_is_refused(tmp_path: Path, log: PaperLog) -> None:
    """[V-3] Everything fits but the checkpoint."""
    PaperLog(log.world, 600, salt=b"another").write(tmp_path)
    (tmp_path / "checkpoint").write_bytes(PaperLog(log.world, 600).note())

    verified, found = audit(tmp_path)
    assert not verified.is_whole
    assert (Kind.ROOT, "checkpoint") in named(found)


@pytest.mark.parametrize("line", range(3))
def test_a_checkpoint_with_a_flipped_bit_is_not_believed(line: int, folder: Path) -> None:
    """[L-3]"""
    note = (folder / "checkpoint").read_bytes()
    starts = [0, *(at + 1 for at, byte in enumerate(note) if byte == 10)]
    with altered(folder / "checkpoint", flip(starts[line])), pytest.raises(ComityError):
        audit(folder)


def test_every_flipped_bit_of_the_cosignatures_is_found(tmp_path: Path, log: PaperLog) -> None:
    """[L-3] No bit of the note of a quorum can be changed."""
    small = PaperLog(log.world, 300)
    small.write(tmp_path)
    note = small.note(by=2)
    (tmp_path / "checkpoint").write_bytes(note)
    assert audit(tmp_path)[1] == []
    for at in range(len(note)):
        (tmp_path / "checkpoint").write_bytes(flip(at, at % 8)(note))
        with pytest.raises(ComityError):
            audit(tmp_path)


def test_a_flipped_bit_in_the_statements_is_found(tmp_path: Path, log: PaperLog) -> None:
    """[V-3] [S-2] Payloads, signatures and framing alike."""
    small = PaperLog(log.world, 300)
    small.write(tmp_path)
    path = tmp_path / "statements.cbor"
    length = path.stat().st_size
    for at in range(0, length, length // 24):
        with altered(path, flip(at, at % 8)):
            _, found = audit(tmp_path)

        assert found, f"byte {at} of {length}"


def test_a_withheld_statement_is_named(tmp_path: Path, log: PaperLog) -> None:
    """[B-13]"""
    small = PaperLog(log.world, 300)
    small.statements = small.statements[:-1]
    assert len(small.entries) == 300
    whole = PaperLog(log.world, 300)
    whole.write(tmp_path)
    (tmp_path / "statements.cbor").write_bytes(small.statement_list)

    _, found = audit(tmp_path)
    assert [one.kind for one in found] == [Kind.WITHHELD_STATEMENT]
    assert f"entry {len(whole.statements) - 1} " in found[0].text


def test_a_statement_that_breaks_a_rule_is_named(tmp_path: Path) -> None:
    """[S-1] A statement in the log is judged by the rules, not by being there."""
    world, desk, _ = small_world()
    state = world.admission(world.active(desk)[0], by=world.custodians(desk))
    world.statements.append((world.next_index, state))
    PaperLog(world, 300).write(tmp_path)

    _, found = audit(tmp_path)
    assert [one.kind for one in found] == [Kind.INVALID_STATEMENT]


def test_another_genesis_than_the_pinned_one_is_refused(folder: Path) -> None:
    """[D-1]"""
    with pytest.raises(ComityError, match="another deployment"):
        audit(folder, bytes(32))


def test_an_older_checkpoint_is_compared(tmp_path: Path, log: PaperLog) -> None:
    """[L-6] Each kept checkpoint is a past of the newest, at whatever size."""
    small = PaperLog(log.world, 1_300)
    small.write(tmp_path)
    other = PaperLog(log.world, 1_300, salt=b"other")
    (tmp_path / "checkpoints").mkdir()
    sizes = [1, 20, 255, 256, 257, 512, 768, 1_279, 1_280, 1_281, 1_299, 1_300]
    for size in sizes:
        (tmp_path / f"checkpoints/{size:012}-good").write_bytes(small.note(size))
    verified, found = audit(tmp_path)
    assert (found, verified.checkpoints) == ([], len(sizes))

    for size in sizes[2:]:
        path = tmp_path / f"checkpoints/{size:012}-zfork"
        path.write_bytes(other.note(size))
        _, found = audit(tmp_path)
        path.unlink()

        assert named(found) == {(Kind.FORK, f"checkpoints/{path.name}")}
        assert found[0].evidence


def test_a_withheld_tail_is_found(tmp_path: Path, log: PaperLog) -> None:
    """[L-6]"""
    small = PaperLog(log.world, 1_300)
    small.write(tmp_path, 900)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/000000001300-x").write_bytes(small.note())

    _, found = audit(tmp_path)
    assert named(found) == {(Kind.ROLLBACK, "checkpoints/000000001300-x")}


def test_anchors_are_checked_with_ml_dsa_alone(tmp_path: Path) -> None:
    """[L-10]"""
    log = PaperLog(World.found(has_anchors=True), 300)
    log.write(tmp_path)
    _, found = audit(tmp_path)
    assert [one.kind for one in found] == [Kind.NO_ANCHORS]

    path = tmp_path / "anchors/000000000200-x"
    path.parent.mkdir()
    path.write_bytes(log.anchor(200))
    verified, found = audit(tmp_path)
    assert (found, verified.anchors) == ([], 1)

    path.write_bytes(log.note(200))
    _, found = audit(tmp_path)
    assert named(found) == {(Kind.ANCHOR, "anchors/000000000200-x")}

    path.write_bytes(PaperLog(log.world, 300, salt=b"other").anchor(200))
    _, found = audit(tmp_path)
    assert named(found) == {(Kind.FORK, "anchors/000000000200-x")}


def test_a_file_that_is_none_of_the_trees_is_named(folder: Path) -> None:
    for name in (
        "tile/0/x999/000",
        "tile/9/000",
        "tile/0/00a",
        "tile/entries/257.p/255x",
        "tile/x",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        _, found = audit(folder)
        path.unlink()

        assert named(found) == {(Kind.EXTRA_FILE, name)}


def test_a_partial_tile_that_was_outgrown_is_compared(folder: Path, log: PaperLog) -> None:
    """[V-3]"""
    name = "tile/0/005.p/9"
    path = folder / name
    path.parent.mkdir()
    path.write_bytes(b"".join(log.hashes[0][5 * 256 : 5 * 256 + 9]))
    assert audit(folder)[1] == []
    with altered(path, flip(100)):
        _, found = audit(folder)
    path.unlink()
    path.parent.rmdir()

    assert named(found) == {(Kind.DAMAGED_TILE, name)}


@pytest.mark.parametrize("index", [3, 5], ids=["full", "last"])
def test_a_bundle_and_its_tile_that_are_both_damaged_are_both_named(
    index: int, small_folder: Path
) -> None:
    """[V-3]"""
    names = [tile_at(level, index, SMALL).path for level in (None, 0)]
    one, two = (small_folder / name for name in names)
    with altered(one, flip(900)), altered(two, flip(500)):
        _, found = audit(small_folder)

    assert set(names) <= {where for _, where in named(found)}


def test_an_entry_that_the_protocol_does_not_have_is_named(tmp_path: Path, log: PaperLog) -> None:
    small = PaperLog(log.world, 300)
    small.entries[290] = b"\x02" + small.entries[290][1:]
    small.write(tmp_path)

    _, found = audit(tmp_path)
    assert [(one.kind, one.where) for one in found] == [(Kind.ENTRY_FORM, "tile/entries/001.p/44")]


def test_a_notice_is_looked_for_and_judged(tmp_path: Path, log: PaperLog) -> None:
    """[H-1] In the log, and by a device of the desk that it names."""
    member = next(iter(log.world.members.values()))
    genesis = log.world.genesis
    author = Author(genesis.deployment, member.desk, member.id, 3, bytes(32))
    hold = sign_notice(member.fast, Hold(author, (EnvelopeId(bytes(16)),), HoldBasis.AUDIT))
    small = PaperLog(log.world, 300)
    small.entries[290] = notice_leaf(hold.payload)
    small.write(tmp_path)

    def kinds(signed: Signed) -> list[Kind]:
        found: list[Finding] = []
        Audit(Archive(tmp_path), found.append, Objects(notices={"x": signed})).run(None)
        return [one.kind for one in found]

    assert kinds(hold) == []
    assert kinds(Signed(hold.payload, bytes(64))) == [Kind.SIGNED_OBJECT]
    assert kinds(Signed(hold.payload + b"x", hold.signature)) == [Kind.NOT_LOGGED]


def test_a_link_in_the_folder_is_never_followed(tmp_path: Path, log: PaperLog) -> None:
    small = PaperLog(log.world, 300)
    small.write(tmp_path / "log")
    secret = tmp_path / "secret"
    (tmp_path / "log/tile/0/000").rename(secret)
    (tmp_path / "log/tile/0/000").symlink_to(secret)
    _, found = audit(tmp_path / "log")
    assert (Kind.DAMAGED_TILE, "tile/0/000") in named(found)

    (tmp_path / "log/tile/0/000").unlink()
    os.mkfifo(tmp_path / "log/tile/0/000")
    _, found = audit(tmp_path / "log")
    assert any("no plain file" in one.text for one in found)

    (tmp_path / "log/tile").rename(tmp_path / "elsewhere")
    (tmp_path / "log/tile").symlink_to(tmp_path / "elsewhere")
    _, found = audit(tmp_path / "log")
    assert all(one.kind is not Kind.EXTRA_FILE or one.where == "tile" for one in found)
    assert any("is a link" in one.text for one in found)
    for name in ("../secret", "tile/../../secret", "/etc/passwd", "a//b", ""):
        with pytest.raises(ArchiveError):
            Archive(tmp_path / "log").put(name, b"x")
