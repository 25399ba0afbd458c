"""A witness cosigns only what continues what it has seen: [W-1] [W-2] [W-3] [W-4] [L-6].

Requests go over HTTP on 127.0.0.1. The process tests start the program itself and kill it.
"""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from aiohttp import web
from nacl.signing import SigningKey

from comity_client.witness import Witness, make_witness_runner, serve_witness
from comity_client.witness_folder import (
    WitnessFolder,
)
from comity_client.witness_program import WitnessSettings, main, run_witness
from comity_client.witness_state import (
    ANCHOR_FILE,
    KEY_FILE,
    STATE_FILE,
    Evidence,
    Seen,
    WitnessKey,
    WitnessState,
    WitnessStateError,
)
from comity_protocol.checkpoint import (
    add_signatures,
    cosignatures,
    sign_checkpoint,
)
from comity_protocol.limits import (
    WITNESS_EVIDENCE_MAX,
    WITNESS_REQUEST_BYTES_MAX,
    WITNESS_REQUESTS_AT_ONCE_MAX,
)
from comity_protocol.merkle import EMPTY_ROOT, Frontier, consistency_proof, leaf_hash
from comity_protocol.signed_note import KeyType, Note, VerifierKey, parse_note, serialize_note
from comity_protocol.witnessing import (
    AddCheckpoint,
    Cosigned,
    KnownSize,
    Refused,
    WitnessAnswer,
    parse_witness_answer,
)

ORIGIN: Final = "relay.example/log"
NAME: Final = "witness.example/w1"
NOW: Final = 1_800_000_000
LOG_KEY = SigningKey(b"L" * 32)
LOG = VerifierKey(ORIGIN, KeyType.ED25519, bytes(LOG_KEY.verify_key))

# The witness as its own process, with a clock that can be set back.
PROGRAM: Final = (
    "import sys, time; from comity_client.witness_program import main; "
    "sys.exit(main(sys.argv[2:], lambda: int(time.time()) + int(sys.argv[1])))"
)


class Tree:
    """A log, honest or not: its leaves, and whatever heads and proofs it cares to sign."""

    def __init__(self, word: str = "leaf", size: int = 50) -> None:
        self.leaves = [leaf_hash(f"{word} {index}".encode()) for index in range(size)]

    def root(self, size: int) -> bytes:
        return Frontier().extend(self.leaves[:size]).root

    def note(self, size: int, key: SigningKey = LOG_KEY, origin: str = ORIGIN) -> bytes:
        return sign_checkpoint(origin=origin, size=size, root=self.root(size), key=key)

    def request(self, old: int, new: int) -> AddCheckpoint:
        hashes = consistency_proof(old, new, lambda _, start, n: self.leaves[start : start + n])
        return AddCheckpoint(old_size=old, hashes=hashes, note=self.note(new))


HONEST, FORKED = Tree(), Tree("other leaf")


@dataclass
class Client:
    """Talks to a witness as the relay does."""

    address: str
    verifier_key: VerifierKey
    session: aiohttp.ClientSession

    async def post(self, body: bytes, **headers: str) -> tuple[int, str, bytes]:
        url = f"{self.address}/add-checkpoint"
        async with self.session.post(url, data=body, headers=headers) as response:
            return response.status, response.headers["Content-Type"], await response.read()

    async def ask(self, request: AddCheckpoint) -> WitnessAnswer:
        status, content_type, body = await self.post(request.serialize())
        return parse_witness_answer(
            status=status,
            content_type=content_type,
            body=body,
            note=request.note,
            witness=self.verifier_key,
        )


@dataclass
class Running(Client):
    """A witness in this process, with its memory and a clock that the test sets."""

    data: Path
    state: WitnessState
    now: int


@asynccontextmanager
async def serving(data: Path, *, body_seconds_max: float = 10) -> AsyncIterator[Running]:
    folder = WitnessFolder.open(data, NAME)
    key, state = folder.key, folder.state
    async with aiohttp.ClientSession() as session:
        running = Running("", key.verifier_key, session, data, state, NOW)
        runner = make_witness_runner(
            serve_witness(
                Witness(state, key, [LOG], lambda: running.now), body_seconds_max=body_seconds_max
            )
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        running.address = f"http://{host}:{port}"
        yield running
    await runner.cleanup()
    folder.close()


@pytest.fixture
async def witness(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path) as running:
        yield running


# What it cosigns.


async def test_a_witness_cosigns_a_growing_log(witness: Running) -> None:
    """[W-2]"""
    sizes = [0, 1, 1, 7, 8, 50]
    for old, new in pairwise(sizes):
        witness.now += 1
        answer = await witness.ask(HONEST.request(old, new))

        assert isinstance(answer, Cosigned)
        assert answer.cosignature.time == witness.now
        note = add_signatures(HONEST.note(new), [answer.line])
        assert cosignatures(note, [witness.verifier_key]) == (answer.cosignature,)


async def test_an_empty_log_is_cosigned_and_may_grow(witness: Running) -> None:
    empty = sign_checkpoint(origin=ORIGIN, size=0, root=EMPTY_ROOT, key=LOG_KEY)

    assert isinstance(await witness.ask(AddCheckpoint(old_size=0, hashes=(), note=empty)), Cosigned)
    assert isinstance(await witness.ask(HONEST.request(0, 3)), Cosigned)


async def test_the_checkpoint_is_stored_before_the_answer(witness: Running) -> None:
    """[W-1]"""
    answer = await witness.ask(HONEST.request(0, 7))

    assert isinstance(answer, Cosigned)
    # Another connection sees only what was committed.
    with closing(WitnessState.open(witness.data / STATE_FILE, witness.verifier_key)) as state:
        assert state.seen(ORIGIN) == Seen(
            size=7, root=HONEST.root(7), note=HONEST.note(7), cosigned_at=NOW
        )


async def test_every_transaction_waits_for_the_disk(witness: Running) -> None:
    """[W-1]"""
    ask = witness.state._connection.execute

    assert ask("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ask("PRAGMA synchronous").fetchone() == (2,)  # FULL


async def test_what_cannot_be_stored_is_not_cosigned(witness: Running) -> None:
    """[W-1]"""
    witness.state._connection.execute("PRAGMA query_only = 1")
    status, _, body = await witness.post(HONEST.request(0, 7).serialize())
    witness.state._connection.execute("PRAGMA query_only = 0")

    assert status == 500
    assert NAME.encode() not in body
    assert witness.state.seen(ORIGIN) is None
    assert isinstance(await witness.ask(HONEST.request(0, 7)), Cosigned)


async def test_signatures_of_strangers_are_ignored_and_not_kept(witness: Running) -> None:
    request = HONEST.request(0, 7)
    stranger = parse_note(HONEST.note(7, SigningKey(b"S" * 32))).signatures
    crowded = AddCheckpoint(old_size=0, hashes=(), note=add_signatures(request.note, stranger))

    answer = await witness.ask(crowded)

    assert isinstance(answer, Cosigned)
    seen = witness.state.seen(ORIGIN)
    assert seen is not None
    assert seen.note == request.note


async def test_the_same_checkpoint_may_be_cosigned_again_later(witness: Running) -> None:
    await witness.ask(HONEST.request(0, 7))
    witness.now += 600

    answer = await witness.ask(HONEST.request(7, 7))

    assert isinstance(answer, Cosigned)
    assert answer.cosignature.time == NOW + 600


async def test_a_witness_answers_that_it_lives(witness: Running) -> None:
    async with witness.session.get(f"{witness.address}/livez") as response:
        assert (response.status, await response.text()) == (200, "ok\n")


# What it refuses.


async def test_another_old_size_is_answered_with_the_known_one(witness: Running) -> None:
    """[W-2]"""
    await witness.ask(HONEST.request(0, 7))

    for old, new in [(0, 7), (0, 9), (6, 9), (8, 9), (0, 3)]:
        assert await witness.ask(HONEST.request(old, new)) == KnownSize(7)
    status, content_type, body = await witness.post(HONEST.request(0, 9).serialize())
    assert (status, content_type, body) == (409, "text/x.tlog.size", b"7\n")


async def test_a_log_that_was_never_seen_has_the_known_size_zero(witness: Running) -> None:
    assert await witness.ask(HONEST.request(3, 7)) == KnownSize(0)


async def test_a_rollback_is_refused(witness: Running) -> None:
    """[L-6] [W-2]"""
    await witness.ask(HONEST.request(0, 9))

    smaller = AddCheckpoint(old_size=9, hashes=(), note=HONEST.note(7))

    assert await witness.ask(smaller) == Refused(400)
    assert await witness.ask(HONEST.request(7, 7)) == KnownSize(9)


async def test_another_root_of_the_same_size_is_refused_and_both_notes_are_kept(
    witness: Running,
) -> None:
    """[L-6]"""
    await witness.ask(HONEST.request(0, 9))

    # A log that asks from zero is told the size first, as the specification demands, and convicted.
    assert await witness.ask(FORKED.request(0, 9)) == KnownSize(9)
    witness.now += 1
    assert await witness.ask(FORKED.request(9, 9)) == Refused(409)

    assert witness.state.evidence() == (
        Evidence(
            origin=ORIGIN,
            kind="fork",
            known=HONEST.note(9),
            offered=FORKED.note(9),
            noticed_at=NOW,
        ),
    )
    assert await witness.ask(HONEST.request(9, 10)) != Refused(409)


async def test_a_larger_fork_is_refused_and_both_notes_are_kept(witness: Running) -> None:
    """[W-2]"""
    await witness.ask(HONEST.request(0, 9))

    assert await witness.ask(FORKED.request(9, 20)) == Refused(422)

    (evidence,) = witness.state.evidence()
    assert (evidence.kind, evidence.known, evidence.offered) == (
        "unproven",
        HONEST.note(9),
        FORKED.note(20),
    )


@pytest.mark.parametrize("wrong", ["none", "cut", "longer", "another"])
async def test_a_proof_that_does_not_hold_is_refused(witness: Running, wrong: str) -> None:
    """[W-2]"""
    await witness.ask(HONEST.request(0, 7))
    good = HONEST.request(7, 20)
    hashes = {
        "none": (),
        "cut": good.hashes[1:],
        "longer": (*good.hashes, good.hashes[0]),
        "another": HONEST.request(6, 20).hashes,
    }[wrong]

    offered = AddCheckpoint(old_size=7, hashes=hashes, note=good.note)

    assert await witness.ask(offered) == Refused(422)
    assert isinstance(await witness.ask(good), Cosigned)


async def test_a_proof_from_nothing_must_be_empty(witness: Running) -> None:
    offered = AddCheckpoint(old_size=0, hashes=HONEST.request(3, 7).hashes, note=HONEST.note(7))

    assert await witness.ask(offered) == Refused(422)
    assert witness.state.evidence() == ()


async def test_an_unknown_log_is_refused(witness: Running) -> None:
    note = HONEST.note(7, origin="other.example/log")

    assert await witness.ask(AddCheckpoint(old_size=0, hashes=(), note=note)) == Refused(404)


async def test_a_checkpoint_that_the_log_did_not_sign_is_refused(witness: Running) -> None:
    stranger = HONEST.note(7, SigningKey(b"S" * 32))
    changed = HONEST.note(7).replace(b"\n7\n", b"\n8\n")

    for note in (stranger, changed):
        assert await witness.ask(AddCheckpoint(old_size=0, hashes=(), note=note)) == Refused(403)
    assert witness.state.seen(ORIGIN) is None


EXTENDED = parse_note(HONEST.note(7)).text + "extension\n"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0\n",
        b"old 00\n\n" + HONEST.note(7),
        b"old 0\r\n\r\n" + HONEST.note(7),
        HONEST.note(7),
        b"old 0\n\n" + HONEST.note(7) + b"x",
        b"old 0\n\n" + HONEST.note(7).replace(b"\n7\n", b"\n07\n"),
        b"old 0\n\n" + serialize_note(Note(EXTENDED, parse_note(HONEST.note(7)).signatures)),
        b"old 0\n" + b"AAAA\n" * 70 + b"\n" + HONEST.note(7),
    ],
    ids=[
        "nothing",
        "no note",
        "leading zero",
        "carriage returns",
        "no old size",
        "trailing byte",
        "size in another form",
        "extension line",
        "too many hashes",
    ],
)
async def test_a_request_in_another_form_is_refused(witness: Running, body: bytes) -> None:
    """[L-4]"""
    status, _, _ = await witness.post(body)

    assert status == 400


async def test_a_clock_that_went_back_stops_the_witness(witness: Running) -> None:
    """[W-3]"""
    await witness.ask(HONEST.request(0, 7))
    witness.now -= 1

    assert await witness.ask(HONEST.request(7, 8)) == Refused(503)
    assert await witness.ask(HONEST.request(7, 7)) == Refused(503)
    witness.now += 1
    assert isinstance(await witness.ask(HONEST.request(7, 8)), Cosigned)


async def test_of_two_requests_at_once_only_one_history_is_cosigned(tmp_path: Path) -> None:
    """[L-6]"""
    async with serving(tmp_path) as running:
        answers = await asyncio.gather(
            *(running.ask(tree.request(0, 9)) for tree in (HONEST, FORKED) * 10)
        )

    (cosigned,) = [answer for answer in answers if isinstance(answer, Cosigned)]
    assert answers.count(KnownSize(9)) == len(answers) - 1
    assert cosigned.cosignature.time == NOW


def test_evidence_is_kept_up_to_a_bound(tmp_path: Path) -> None:
    folder = WitnessFolder.open(tmp_path, NAME)
    with closing(folder):
        state = folder.state
        state._connection.execute("PRAGMA synchronous = OFF")  # For speed; nothing is answered.
        for number in range(WITNESS_EVIDENCE_MAX + 2):
            for kind in ("fork", "unproven"):
                state.keep_evidence(
                    Evidence(
                        origin=ORIGIN,
                        kind=kind,
                        known=b"known",
                        offered=b"%d" % number,
                        noticed_at=NOW,
                    )
                )

        assert len(state.evidence()) == 2 * WITNESS_EVIDENCE_MAX


# HTTP.


async def test_a_compressed_body_is_refused_unread(witness: Running) -> None:
    for encoding in ("gzip", "br", "identity"):
        status, _, _ = await witness.post(b"not compressed", **{"Content-Encoding": encoding})
        assert status == 415


async def test_a_body_that_is_too_long_is_refused(witness: Running) -> None:
    status, _, _ = await witness.post(b"x" * (WITNESS_REQUEST_BYTES_MAX + 1))

    assert status == 413


async def test_other_methods_and_paths_are_refused(witness: Running) -> None:
    async with witness.session.get(f"{witness.address}/add-checkpoint") as response:
        assert response.status == 405
    async with witness.session.get(f"{witness.address}/") as response:
        assert response.status == 404


async def start_of_a_request(
    running: Running, *headers: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and begin a request; returns when the witness reads its body."""
    host, _, port = running.address.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = ["POST /add-checkpoint HTTP/1.1", "Host: w", "Expect: 100-continue", *headers, "", ""]
    writer.write("\r\n".join(head).encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    return reader, writer


@pytest.mark.parametrize(
    ("header", "body"),
    [("Content-Length: 100", b"old 0"), ("Transfer-Encoding: chunked", b"no length\r\n")],
    ids=["unfinished", "broken"],
)
async def test_a_body_that_does_not_arrive_is_given_up(
    tmp_path: Path, header: str, body: bytes
) -> None:
    async with serving(tmp_path, body_seconds_max=0.05) as running:
        reader, writer = await start_of_a_request(running, header)
        writer.write(body)
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in answer


async def test_more_requests_than_a_witness_reads_at_once_are_asked_to_come_back(
    witness: Running,
) -> None:
    slow = [
        await start_of_a_request(witness, "Content-Length: 100")
        for _ in range(WITNESS_REQUESTS_AT_ONCE_MAX)
    ]
    answer = await witness.ask(HONEST.request(0, 7))
    for _, writer in slow:
        writer.close()

    assert answer == Refused(503)
    assert witness.state.seen(ORIGIN) is None


# Key and memory.


def test_a_witness_keeps_its_key_and_its_memory(tmp_path: Path) -> None:
    """[W-4]"""
    data = tmp_path / "new" / "witness"
    first = make_used(data)

    folder = WitnessFolder.open(data, NAME)
    with closing(folder):
        second = folder.key
        assert folder.state.seen(ORIGIN) == Seen(size=1, root=b"r", note=b"n", cosigned_at=NOW)

    assert second.verifier_key == first.verifier_key
    assert second.anchor_verifier_key == first.anchor_verifier_key
    assert (data / ANCHOR_FILE).stat().st_mode & 0o777 == 0o600
    assert (data / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert data.stat().st_mode & 0o777 == 0o700
    assert "SigningKey" not in repr(first)


def test_a_rule_that_refuses_changes_nothing(tmp_path: Path) -> None:
    folder = WitnessFolder.open(tmp_path, NAME)
    with closing(folder):
        state = folder.state
        state.replace(ORIGIN, lambda _: Seen(size=1, root=b"r", note=b"n", cosigned_at=NOW))

        with pytest.raises(LookupError):
            state.replace(ORIGIN, refuse)

        assert state.seen(ORIGIN) == Seen(size=1, root=b"r", note=b"n", cosigned_at=NOW)


def refuse(_: Seen | None) -> Seen:
    raise LookupError


def make_used(data: Path) -> WitnessKey:
    folder = WitnessFolder.open(data, NAME)
    with closing(folder):
        folder.state.replace(ORIGIN, lambda _: Seen(size=1, root=b"r", note=b"n", cosigned_at=NOW))
    return folder.key


def lose_state(data: Path) -> None:
    (data / STATE_FILE).unlink()


def empty_state(data: Path) -> None:
    (data / STATE_FILE).write_bytes(b"")


def overwrite_state(data: Path) -> None:
    (data / STATE_FILE).write_bytes(b"no database" * 1_000)


def damage_state(data: Path) -> None:
    with closing(sqlite3.connect(data / STATE_FILE)) as connection:
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'evidence'"
        ).fetchone()
    content = bytearray((data / STATE_FILE).read_bytes())
    start = (page - 1) * page_bytes
    content[start + 1 : start + 8] = b"\xff" * 7
    (data / STATE_FILE).write_bytes(content)


def swap_state(data: Path) -> None:
    make_used(data / "other")
    (data / "other" / STATE_FILE).replace(data / STATE_FILE)


def lose_key(data: Path) -> None:
    (data / KEY_FILE).unlink()


def open_key(data: Path) -> None:
    (data / KEY_FILE).chmod(0o640)


def cut_key(data: Path) -> None:
    (data / KEY_FILE).write_text((data / KEY_FILE).read_text()[:-9] + "\n")


def shorten_key(data: Path) -> None:
    (data / KEY_FILE).write_text(f"PRIVATE+KEY+{NAME}+00000000+BAAA\n")


def change_key_id(data: Path) -> None:
    head, _, material = (data / KEY_FILE).read_text().rpartition("+")
    (data / KEY_FILE).write_text(f"{head[:-8]}00000000+{material}")


def overwrite_key(data: Path) -> None:
    (data / KEY_FILE).write_bytes(b"\xff\xfe\n")


def rename_key(data: Path) -> None:
    text = (data / KEY_FILE).read_text()
    (data / KEY_FILE).write_text(text.replace("/w1", "/w2"))


def lose_anchor(data: Path) -> None:
    (data / ANCHOR_FILE).unlink()


def swap_anchor(data: Path) -> None:
    make_used(data / "other")
    (data / "other" / ANCHOR_FILE).replace(data / ANCHOR_FILE)


def cut_anchor(data: Path) -> None:
    (data / ANCHOR_FILE).write_text((data / ANCHOR_FILE).read_text()[:-9] + "\n")


@pytest.mark.parametrize(
    ("lose", "message"),
    [
        (lose_state, "witness.sqlite3 is missing or unreadable"),
        (empty_state, "witness.sqlite3 is missing or unreadable"),
        (overwrite_state, "witness.sqlite3 is missing or unreadable"),
        (damage_state, "witness.sqlite3 is (damaged|missing or unreadable)"),
        (swap_state, "witness.sqlite3 belongs to another key"),
        (lose_key, "witness.sqlite3 has cosignatures, but witness.key is missing"),
        (open_key, "witness.key can be read by others, expected mode 600"),
        (cut_key, "witness.key is damaged"),
        (shorten_key, "witness.key is damaged"),
        (change_key_id, "witness.key is damaged"),
        (overwrite_key, r"witness.key is not the key of the witness with the name given"),
        (rename_key, "witness.key is not the key of the witness with the name given"),
        (lose_anchor, "knows a key for anchors, but witness.anchor.key is missing"),
        (swap_anchor, "witness.sqlite3 belongs to another key than witness.anchor.key"),
        (cut_anchor, "witness.anchor.key is damaged"),
    ],
)
def test_a_witness_that_lost_its_key_or_its_memory_does_not_start(
    tmp_path: Path, lose: Callable[[Path], None], message: str
) -> None:
    """[W-4]"""
    make_used(tmp_path)
    lose(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    with pytest.raises(WitnessStateError, match=message):
        WitnessFolder.open(tmp_path, NAME)

    # It does not help itself either: no new memory, no new key.
    after = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before


def test_a_first_start_that_stopped_half_way_is_begun_again(tmp_path: Path) -> None:
    """[W-4]"""
    unused = WitnessFolder.open(tmp_path, NAME)
    unused.close()
    (tmp_path / KEY_FILE).unlink()
    (tmp_path / ANCHOR_FILE).unlink()

    fresh = WitnessFolder.open(tmp_path, NAME)
    fresh.close()

    assert fresh.key.verifier_key != unused.key.verifier_key
    assert fresh.key.anchor_verifier_key != unused.key.anchor_verifier_key


def test_a_memory_is_not_begun_over_another(tmp_path: Path) -> None:
    """[W-4]"""
    key = make_used(tmp_path)

    with pytest.raises(WitnessStateError, match="is there already"):
        WitnessState.create(tmp_path / STATE_FILE, key.verifier_key)


# The program.


def arguments(data: Path, *more: str) -> list[str]:
    return ["--data", str(data), "--name", NAME, "--log-key", LOG.serialize(), *more]


async def test_a_witness_says_where_it_is_and_stops_when_asked(tmp_path: Path) -> None:
    announced: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    settings = WitnessSettings(data=tmp_path, name=NAME, logs=(LOG,))

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(run_witness(settings, lambda: NOW, announced.set_result))
        ready = json.loads(await announced)
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{ready['address']}/livez") as response,
        ):
            assert response.status == 200
        os.kill(os.getpid(), signal.SIGTERM)

    assert ready["address"].startswith("http://127.0.0.1:")
    assert VerifierKey.parse(ready["verifier_key"]).name == NAME


def test_a_witness_that_must_not_start_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """[W-4]"""
    make_used(tmp_path)
    lose_state(tmp_path)

    assert main(arguments(tmp_path), lambda: NOW) == 1
    assert "witness.sqlite3 is missing or unreadable; never bring" in capsys.readouterr().err


def test_a_witness_that_cannot_listen_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path, "--port", "1", "--host", "192.0.2.1"), lambda: NOW) == 1
    assert "witness cannot start: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--name", "a b"], "key name is empty or has a space or a plus"),
        (["--log-key", "nonsense"], "verifier key has no key id"),
        (["--log-key", LOG.serialize()], "two keys are given for one log"),
        (
            ["--log-key", VerifierKey("x", KeyType.COSIGNATURE_V1, LOG.public_key).serialize()],
            "key of a log is not of type Ed25519",
        ),
    ],
)
def test_a_wrong_choice_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments(tmp_path, *more), lambda: NOW)

    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@asynccontextmanager
async def started(
    data: Path, *, seconds_ahead: int = 0
) -> AsyncIterator[tuple[Client, asyncio.subprocess.Process]]:
    """Run the program in its own process and stop it at the end, unless it was killed before."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, str(seconds_ahead)),
        *arguments(data),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30), aiohttp.ClientSession() as session:
            assert program.stdout is not None
            ready = json.loads(await program.stdout.readline())
            key = VerifierKey.parse(ready["verifier_key"])
            yield Client(ready["address"], key, session), program
    finally:
        if program.returncode is None:
            program.terminate()
        await program.wait()


async def test_a_restarted_witness_goes_on_where_it_was(tmp_path: Path) -> None:
    """[W-1]"""
    async with started(tmp_path) as (client, program):
        assert isinstance(await client.ask(HONEST.request(0, 7)), Cosigned)
    assert program.returncode == 0

    async with started(tmp_path) as (client, _):
        assert await client.ask(FORKED.request(0, 7)) == KnownSize(7)
        assert isinstance(await client.ask(HONEST.request(7, 8)), Cosigned)


async def test_a_restarted_witness_whose_clock_went_back_refuses(tmp_path: Path) -> None:
    """[W-3]"""
    async with started(tmp_path, seconds_ahead=3_600) as (client, _):
        assert isinstance(await client.ask(HONEST.request(0, 7)), Cosigned)

    async with started(tmp_path) as (client, _):
        assert await client.ask(HONEST.request(7, 8)) == Refused(503)


@pytest.mark.parametrize("kill_after", [1, 4, 9])
async def test_a_killed_witness_remembers_all_that_it_cosigned(
    tmp_path: Path, kill_after: int
) -> None:
    """[W-1]"""
    cosigned = 0
    async with started(tmp_path) as (client, program):
        for size in range(1, kill_after + 1):
            assert isinstance(await client.ask(HONEST.request(cosigned, size)), Cosigned)
            cosigned = size
        under_way = asyncio.create_task(client.ask(HONEST.request(cosigned, cosigned + 1)))
        await asyncio.sleep(0)
        program.kill()
        (last,) = await asyncio.gather(under_way, return_exceptions=True)
        await program.wait()
    if isinstance(last, Cosigned):
        cosigned += 1

    async with started(tmp_path) as (client, _):
        known = await client.ask(FORKED.request(0, 50))

        # What was under way when it died may have been stored, but nothing is forgotten.
        assert isinstance(known, KnownSize)
        assert cosigned <= known.size <= kill_after + 1
        assert isinstance(await client.ask(HONEST.request(known.size, 50)), Cosigned)
