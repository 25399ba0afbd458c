"""The signer in a process of its own: what the relay may ask, and what it cannot talk it into."""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, UnixConnector

from comity_protocol.checkpoint import add_signatures, cosign, open_checkpoint
from comity_protocol.encoding import parse, serialize
from comity_protocol.receipts import Promise, sign_promise
from comity_server.settings import SettingsError
from comity_server.signer import Signer, SignerError, SignerNotClearedError, SignerState
from comity_server.signer_client import SignerClient, signer_session
from comity_server.signer_process import QUESTION_BYTES_MAX, answering
from comity_server.statement_rows import genesis_row
from comity_server.stores import open_store
from support.process import RelayProcess
from support.relay import opened, relay, small_world, wait_until
from support.world import ORIGIN, World

NOW = 1_800_000_000
CBOR = {"Content-Type": "application/cbor"}


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()[0]


@pytest.fixture
async def client(tmp_path: Path, world: World) -> AsyncIterator[SignerClient]:
    """A client of a signer whose database has the genesis."""
    url = f"sqlite:///{tmp_path / 'relay.sqlite'}"
    async with opened(url) as store, signing(tmp_path, world):
        signed = world.statements[0][1]
        promise = sign_promise(world.relay_key, Promise(signed.hash, 0))
        await store.accept_statement(genesis_row(signed, promise, 0), expected_ordinal=0)
        async with signer_session(tmp_path / "socket") as session:
            yield SignerClient(tmp_path / "socket", session)


@asynccontextmanager
async def signing(path: Path, world: World) -> AsyncIterator[None]:
    """Run a signer behind a socket in ``path``."""
    store = open_store(f"sqlite:///{path / 'relay.sqlite'}")
    state = SignerState(path / "signer.sqlite", ORIGIN)
    signer = Signer(
        state,
        store,
        world.log_key,
        origin=ORIGIN,
        quorum=world.genesis.quorum,
        clock=lambda: NOW,
    )
    try:
        async with answering(signer, path / "socket"):
            yield
    finally:
        state.close()
        await store.close()


def shown(world: World, note: bytes, count: int = 3) -> bytes:
    keys = sorted(world.witness_keys.items())[:count]
    return add_signatures(note, [cosign(note, name, key, NOW) for name, key in keys])


async def test_a_relay_gets_signatures_over_the_socket(client: SignerClient, world: World) -> None:
    with pytest.raises(SignerNotClearedError, match="not asked yet"):
        await client.sign()
    await client.clear(shown(world, await client.probe()))
    size, note = await client.sign()

    assert (size, open_checkpoint(note, world.genesis.log).size) == (1, 1)
    (entry,) = await client.entries(0)
    assert entry[:1] == b"\x01"


async def test_what_the_relay_says_of_the_witnesses_is_not_believed(
    client: SignerClient, world: World
) -> None:
    """[G-4] That no quorum is ahead is not said but shown."""
    with pytest.raises(SignerError, match="1 of 3 witnesses cosigned"):
        await client.clear(shown(world, await client.probe(), 1))
    with pytest.raises(SignerNotClearedError):
        await client.sign()


async def test_only_owner_and_group_may_speak_to_the_signer(
    client: SignerClient, tmp_path: Path
) -> None:
    assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o660


QUESTIONS = {
    "nothing": ("sign", b"", 400),
    "no encoding of ours": ("sign", b"\xff", 400),
    "an unknown field": ("sign", serialize({"root": bytes(32)}), 400),
    "no note": ("clear", serialize({}), 400),
    "a size below zero": ("entries", b"\xa1estart\x20", 400),
    "a size above all sizes": ("entries", serialize({"start": 1 << 63}), 400),
    "more than a note": ("clear", serialize({"note": b"", "sizes": [0]}), 400),
    "no checkpoint": ("clear", serialize({"note": b"x"}), 409),
    "too long a body": ("sign", bytes(QUESTION_BYTES_MAX + 1), 400),
    "another verb": ("key", serialize({}), 404),
}


@pytest.mark.parametrize(("verb", "body", "status"), QUESTIONS.values(), ids=QUESTIONS.keys())
async def test_a_malformed_question_is_refused_and_signs_nothing(
    client: SignerClient, tmp_path: Path, verb: str, body: bytes, status: int
) -> None:
    """[R-15]"""
    connector = UnixConnector(str(tmp_path / "socket"))
    async with (
        ClientSession(connector=connector) as session,
        session.post(f"http://signer/{verb}", data=body, headers=CBOR) as response,
    ):
        answered = response.status

    assert answered == status
    with sqlite3.connect(tmp_path / "signer.sqlite") as connection:
        assert connection.execute("SELECT frontier FROM signer").fetchone() == (bytes(8),)


async def test_a_signer_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with signer_session(tmp_path / "socket") as session:
        with pytest.raises(SignerError, match=r"does not answer .*; start comity-relay signer"):
            await SignerClient(tmp_path / "socket", session).sign()


async def test_a_database_that_fails_stops_the_signer_with_a_sentence(
    tmp_path: Path, world: World
) -> None:
    async with signing(tmp_path, world), signer_session(tmp_path / "socket") as session:
        client = SignerClient(tmp_path / "socket", session)
        await client.clear(shown(world, await client.probe()))

        with pytest.raises(SignerError, match="the signer cannot read the log"):
            await client.sign()


async def test_a_second_signer_does_not_take_the_socket(tmp_path: Path, world: World) -> None:
    """[G-3]"""
    async with signing(tmp_path, world):
        with pytest.raises(SettingsError, match="another signer listens"):
            async with signing(tmp_path, world):
                pass


async def test_a_socket_that_a_killed_signer_left_is_taken_over(
    tmp_path: Path, world: World
) -> None:
    async with signing(tmp_path, world):
        (tmp_path / "socket").rename(tmp_path / "left")
    (tmp_path / "left").rename(tmp_path / "socket")
    assert (tmp_path / "socket").is_socket()
    async with signing(tmp_path, world), signer_session(tmp_path / "socket") as session:
        assert await SignerClient(tmp_path / "socket", session).probe()


async def test_no_file_is_overwritten_by_the_socket(tmp_path: Path, world: World) -> None:
    (tmp_path / "socket").write_text("mine")

    with pytest.raises(SettingsError, match="is a file already"):
        async with signing(tmp_path, world):
            pass
    assert (tmp_path / "socket").read_text() == "mine"


async def test_two_relays_share_one_signer(tmp_path: Path, postgres_url: str) -> None:
    """[G-3] Whoever holds the lease asks the same signer, which is a process of its own."""
    fresh, one, other = small_world()
    folder = tmp_path / "signer"
    (tmp_path / "1").mkdir()
    process = await start_signer(folder, fresh, tmp_path / "socket", postgres_url)
    try:
        given = {"database": postgres_url, "signer_socket": str(tmp_path / "socket")}
        async with relay(tmp_path / "1", fresh, **given) as first:  # type: ignore[arg-type]  # settings
            await first.publish()
            size = first.context.log.size
        async with relay(tmp_path / "1", fresh, **given) as second:  # type: ignore[arg-type]  # settings
            second.posted = len(fresh.statements)
            await second.send(fresh.active(one)[0], other)
            await second.seal()

            assert second.context.log.size == size + 1
        assert not (tmp_path / "1" / "signer.sqlite").exists()
        assert not (tmp_path / "1" / "log.key").exists()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    assert not (tmp_path / "socket").exists()


async def start_signer(
    folder: Path, world: World, socket: Path, database: str
) -> asyncio.subprocess.Process:
    """Start the real command; wait until it says that it answers."""
    RelayProcess(folder, world, witnesses=())
    (folder / "relay.key").unlink()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "comity_server", "signer", "--data", str(folder)),
        *("--socket", str(socket), "--database", database),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.defpath, "PYTHONSAFEPATH": "1", "LC_ALL": "C.UTF-8"},
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 30)
    assert json.loads(line) == {"socket": str(socket)}
    return process


async def test_a_relay_without_its_signer_takes_what_is_sent_and_publishes_nothing(
    tmp_path: Path,
) -> None:
    fresh, _, _ = small_world()
    async with relay(tmp_path, fresh, signer_socket=str(tmp_path / "none")) as running:
        answer = await running.ask("POST", "/v1/statements", fresh.statements[1][1].serialize())
        await wait_until(
            lambda: b"comity_signer_refusals_total 0.0" not in running.context.metrics.text()
        )

        assert answer.status in {200, 503}
        assert running.context.log.size == 0


def test_what_the_signer_answers_is_in_the_protocols_encoding() -> None:
    assert parse(serialize({"note": b"x"})) == {"note": b"x"}
