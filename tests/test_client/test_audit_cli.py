"""``comity audit`` says what it found, in words and in JSON, and ends with a fixed code."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from comity_client.audit_findings import GRADES, Kind
from comity_client.cli import run
from comity_client.cli.exits import Exit
from comity_protocol.core import core_hash
from comity_protocol.evidence import Fork
from comity_protocol.leaves import envelope_leaf_of
from comity_protocol.log_proof import LogProof
from comity_protocol.merkle import inclusion_proof
from comity_protocol.receipts import Promise, Signed, sign_promise
from support.paper_log import NOW, PaperLog, mirror_in_a_thread
from support.world import World, core_of, lead

Say = Callable[..., tuple[int, list[dict[str, object]], str]]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world() -> World:
    world = World.found()
    world.create_desk("XA")
    world.create_desk("XB")
    return world


@pytest.fixture(scope="module")
def log(world: World) -> PaperLog:
    return PaperLog(world, 700)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def say(*arguments: object, now: int = NOW) -> tuple[int, list[dict[str, object]], str]:
        code = run([str(argument) for argument in ("audit", *arguments)], lambda: now)
        out, err = capsys.readouterr()
        lines = [json.loads(line) for line in out.splitlines()] if "--json" in arguments else []
        return code, lines, out + err

    return say


@pytest.fixture
def folder(log: PaperLog, tmp_path: Path) -> Path:
    log.write(tmp_path / "log")
    return tmp_path / "log"


def test_a_log_is_fetched_and_verified_without_a_profile(
    log: PaperLog, tmp_path: Path, say: Say
) -> None:
    with mirror_in_a_thread(log.files()) as url:
        code, _, text = say("fetch", url, tmp_path / "log", "--genesis", log.pinned.hex())
        assert (code, "700 entries" in text) == (Exit.OK, True)
        line = f"comity:{url}#{log.pinned.hex()}"
        code, lines, _ = say("fetch", url, tmp_path / "log", "--genesis", line, "--json")
        assert (code, lines[-1]["files"]) == (Exit.OK, 0)
    code, _, text = say("verify", tmp_path / "log", "--genesis", log.pinned.hex())

    assert code == Exit.OK
    assert "entries      700" in text
    assert "nothing found" in text


def test_each_finding_is_one_line_of_json(folder: Path, say: Say) -> None:
    (folder / "tile/entries/001").unlink()
    (folder / "tile/0/000").write_bytes(bytes(8_192))
    code, lines, _ = say("verify", folder, "--json")

    assert code == Exit.DAMAGED
    assert [line["kind"] for line in lines] == ["damaged-tile", "missing-file", "audit"]
    assert set(lines[0]) == {"version", "kind", "grade", "text", "where", "evidence"}
    assert lines[-1]["whole"] is False


def test_a_copy_is_repaired_from_a_mirror(log: PaperLog, folder: Path, say: Say) -> None:
    for name in ("tile/entries/001", "tile/0/000", "tile/1/000.p/2", "tile/entries/002.p/188"):
        (folder / name).write_bytes(b"damaged")
    (folder / "statements.cbor").write_bytes(b"damaged")
    assert say("fsck", folder)[0] == Exit.DAMAGED
    with mirror_in_a_thread(log.files()) as url:
        code, lines, _ = say("fsck", folder, "--repair", url, "--json")
        assert code == Exit.OK
        assert len(lines[-1]["repaired"]) == 5  # type: ignore[arg-type]

    assert say("verify", folder)[0] == Exit.OK


def test_a_damaged_checkpoint_and_signature_are_repaired_and_a_fork_is_not_taken_for_one(
    log: PaperLog, folder: Path, say: Say
) -> None:
    """[L-6] What was seen before is compared although the newest checkpoint is gone."""
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/000000000600-x").write_bytes(log.note(600))
    statements = (folder / "statements.cbor").read_bytes()
    at = len(statements) - 9
    damaged = statements[:at] + bytes([statements[at] ^ 1]) + statements[at + 1 :]
    (folder / "statements.cbor").write_bytes(damaged)
    with mirror_in_a_thread(log.files()) as url:
        code, lines, _ = say("fsck", folder, "--repair", url, "--json")
        assert (code, lines[0]["where"]) == (Exit.OK, "statements.cbor")
        (folder / "checkpoint").write_bytes(b"damaged")
        code, _, text = say("verify", folder)
        assert (code, "checkpoint: " in text) == (Exit.UNVERIFIED, True)
        assert say("fsck", folder, "--repair", url)[0] == Exit.OK
        assert say("verify", folder)[0] == Exit.OK
    (folder / "checkpoint").unlink()
    other = PaperLog(log.world, 900, salt=b"other")
    with mirror_in_a_thread(other.files()) as url:
        assert say("fetch", url, folder)[0] == Exit.MISCONDUCT
    assert not (folder / "checkpoint").exists()


def test_a_fork_is_kept_and_proven_to_a_third_party(
    log: PaperLog, folder: Path, tmp_path: Path, say: Say
) -> None:
    """[V-1]"""
    other = PaperLog(log.world, 900, salt=b"other")
    with mirror_in_a_thread(other.files()) as url:
        code, lines, _ = say("fetch", url, folder, "--json")
    assert (code, lines[0]["kind"]) == (Exit.MISCONDUCT, "fork")
    file = folder / str(lines[0]["evidence"])

    code, _, text = say("evidence", file, "--genesis", folder / "genesis.cbor")
    assert (code, "exclude each other" in text) == (Exit.OK, True)
    note = log.note()
    file.write_bytes(Fork(log.world.genesis.deployment, note, note).serialize())
    assert say("evidence", file, "--folder", folder)[0] == Exit.UNVERIFIED


def test_a_broken_promise_is_found_and_proven(
    log: PaperLog, folder: Path, tmp_path: Path, say: Say
) -> None:
    """[V-2] A kept promise and one that has time left are no findings."""
    key = log.world.relay_key
    for name, what, at in (
        ("broken", bytes(32), NOW - 100),
        ("early", bytes(32), NOW),
        ("kept", log.statements[1].hash, NOW - 100),
    ):
        (tmp_path / name).write_bytes(sign_promise(key, Promise(what, at)).serialize())
    forged = sign_promise(key, Promise(bytes(32), NOW - 100))
    (tmp_path / "forged").write_bytes(Signed(forged.payload, bytes(64)).serialize())

    code, _, _ = say(
        "verify", folder, "--promise", tmp_path / "kept", "--promise", tmp_path / "early"
    )
    assert code == Exit.OK
    code, lines, _ = say("verify", folder, "--promise", tmp_path / "broken", "--json")
    assert (code, lines[0]["kind"]) == (Exit.MISCONDUCT, "broken-promise")
    file = folder / str(lines[0]["evidence"])
    assert say("evidence", file, "--folder", folder)[0] == Exit.OK
    assert say("evidence", file)[0] == Exit.USAGE
    code, lines, _ = say("verify", folder, "--promise", tmp_path / "forged", "--json")
    assert (code, lines[0]["kind"]) == (Exit.UNVERIFIED, "promise")


def test_one_proof_is_checked_offline(world: World, tmp_path: Path, say: Say) -> None:
    """[L-2] [L-8] By the core, and by the entry itself."""
    desks = list(world.directory.desks)
    sealed = world.seal_act(world.active(desks[0])[0], desks[1], lead())
    core = sealed.upload.core
    places = bytes(range(32))
    log = PaperLog(world, 300)
    log.entries[280] = envelope_leaf_of(core_hash(core), places)
    log.write(tmp_path / "log")
    proof = LogProof(
        index=280, hashes=inclusion_proof(280, 300, log.read), note=log.note(), extra=places
    )
    file, core_file = tmp_path / "x.tlog-proof", tmp_path / "x.core"
    file.write_bytes(proof.serialize())
    core_file.write_bytes(core)
    genesis = tmp_path / "log/genesis.cbor"

    assert core_of(sealed).id
    code, _, text = say("receipt", file, "--core", core_file, "--genesis", genesis)
    assert (code, "entry 280 of 300" in text) == (Exit.OK, True)
    assert (
        say("receipt", file, "--entry", log.entries[280].hex(), "--folder", tmp_path / "log")[0]
        == 0
    )
    code, _, _ = say("receipt", file, "--entry", log.entries[281].hex(), "--genesis", genesis)
    assert code == Exit.UNVERIFIED
    assert say("receipt", file, "--genesis", genesis)[0] == Exit.USAGE
    assert say("receipt", file, "--core", core_file)[0] == Exit.USAGE


def test_a_monitor_alarms_and_ends_with_the_worst(log: PaperLog, tmp_path: Path, say: Say) -> None:
    genesis = ("--genesis", log.pinned.hex(), "--rounds", 1)
    with mirror_in_a_thread(log.files()) as url:
        assert say("watch", url, tmp_path / "a", *genesis)[0] == Exit.OK
        code, lines, _ = say("watch", url, tmp_path / "a", *genesis, "--json", now=NOW + 1_300)
        assert (code, lines[0]["kind"]) == (Exit.ALARM, "stale")
    with mirror_in_a_thread(log.files() | {"checkpoint": log.note(by=2)}) as url:
        code, lines, _ = say("watch", url, tmp_path / "b", *genesis, "--json")
        assert (code, lines[0]["kind"]) == (Exit.ALARM, "thin-quorum")


def test_a_wrong_address_a_folder_without_a_log_and_another_genesis_have_their_codes(
    log: PaperLog, folder: Path, tmp_path: Path, say: Say
) -> None:
    assert say("fetch", "http://relay.example", tmp_path / "x")[0] == Exit.USAGE
    assert (
        say("fetch", "http://127.0.0.1:9", tmp_path / "x", "--genesis", "0" * 64)[0] == Exit.OFFLINE
    )
    assert say("verify", tmp_path / "x")[0] == Exit.DAMAGED
    assert say("verify", folder, "--genesis", "0" * 64)[0] == Exit.UNVERIFIED
    (folder / "checkpoint").write_bytes(log.note(by=1))
    assert say("verify", folder)[0] == Exit.UNVERIFIED


def test_the_page_for_strangers_explains_every_finding() -> None:
    page = (ROOT / "docs/AUDITING.md").read_text("utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    told = {kind.strip(" `"): grade.strip() for kind, grade in rows}

    assert told == {kind.value: GRADES[kind].name.lower() for kind in Kind}
