"""The program of a witness: what it makes, what it says, what it refuses to be started with."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from comity_client.witness_folder import PUBLIC_FILE, RETIRED_FILE, WitnessFolder, _write_key
from comity_client.witness_program import WitnessSettings, main, run_witness
from comity_client.witness_state import KEY_FILE, STATE_FILE, WitnessKey, WitnessState
from comity_client.witness_watch import RetireError
from comity_protocol.identifiers import ID_BYTES, DeploymentId
from comity_protocol.receipts import Signed
from comity_protocol.signed_note import KeyType, VerifierKey
from comity_protocol.stamps import StampRequest, open_stamp
from support.relay import Relay, relay, small_world, wait_until
from support.world import World

NAME: Final = "witness.example/w1"
NOW: Final = 1_800_000_000
LINE: Final = "comity:https://relay.example#" + "ab" * 32
KEY: Final = "relay.example+c34eee73+AdG5"


@pytest.fixture
def world() -> World:
    return small_world()[0]


def start(data: Path, *more: str, now: int = NOW) -> int:
    return main(["--data", str(data), "--name", NAME, *more], lambda: now)


def test_init_makes_the_keys_and_writes_what_others_pin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(tmp_path, "--init", "--url", "https://w1.example") == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / PUBLIC_FILE).read_text())

    assert printed == written
    assert VerifierKey.parse(written["verifier_key"]).type is KeyType.COSIGNATURE_V1
    assert VerifierKey.parse(written["anchor_key"]).type is KeyType.MLDSA44
    assert written["url"] == "https://w1.example"
    assert "PRIVATE" not in json.dumps(written)

    assert start(tmp_path, "--init") == 0
    again = json.loads(capsys.readouterr().out)
    assert again == {key: written[key] for key in ("verifier_key", "anchor_key")}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "no log is named; give --log-key or --genesis"),
        (["--relay", "https://r.example", "--log-key", "LOG"], "--relay needs one log, and its"),
        (["--mirror", "--log-key", "LOG"], "--mirror and --no-listen need --relay"),
        (["--no-listen", "--log-key", "LOG"], "--mirror and --no-listen need --relay"),
        (
            [
                *("--relay", "https://r.example", "--log-key", "LOG", "--deployment", LINE),
                *("--mirror", "--no-replay"),
            ],
            "a mirror replays",
        ),
        (["--genesis", "missing"], "file cannot be read"),
        (["--genesis", "GENESIS", "--deployment", LINE], "--genesis is not the one that"),
    ],
)
def test_a_wrong_choice_is_explained(
    tmp_path: Path,
    world: World,
    capsys: pytest.CaptureFixture[str],
    more: Sequence[str],
    message: str,
) -> None:
    (tmp_path / "genesis").write_bytes(world.statements[0][1].serialize())
    words = {"LOG": world.genesis.log.serialize(), "GENESIS": str(tmp_path / "genesis")}

    with pytest.raises(SystemExit) as stopped:
        start(tmp_path / "w", *(words.get(word, word) for word in more))

    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "more",
    [
        ["--relay", "http://relay.example", "--deployment", LINE],
        ["--deployment", "comity:nonsense"],
    ],
)
def test_an_address_that_would_send_in_the_clear_is_refused(
    tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    assert start(tmp_path, "--log-key", world.genesis.log.serialize(), *more) == 1
    assert "; copy the whole line" in capsys.readouterr().err


@asynccontextmanager
async def running(
    settings: WitnessSettings, clock: Callable[[], float] = lambda: NOW
) -> AsyncIterator[tuple[dict[str, str], asyncio.Task[None]]]:
    """Run the program in this process; it is cancelled with the block."""
    announced: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(run_witness(settings, lambda: int(clock()), announced.put_nowait))
    async with asyncio.timeout(20):
        ready = json.loads(await announced.get())
    yield ready, task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_witness_that_knows_the_deployment_stamps(tmp_path: Path, world: World) -> None:
    pinned = world.statements[0][1].hash
    settings = WitnessSettings(data=tmp_path, name=NAME, logs=(world.genesis.log,), pinned=pinned)
    async with running(settings) as (ready, _):
        deployment = DeploymentId(pinned[:ID_BYTES])
        body = StampRequest(deployment, b"W" * 32).serialize()
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{ready['address']}/stamp", data=body) as response,
        ):
            signed = Signed.parse(await response.read())
        key = VerifierKey.parse(ready["verifier_key"])
        assert open_stamp(signed, deployment, b"W" * 32, key).at == NOW


def give_key(data: Path, name: str, world: World) -> None:
    """Make the folder of a witness of the world."""
    data.mkdir()
    public = WitnessKey(name, world.witness_keys[name]).verifier_key
    WitnessState.create(data / STATE_FILE, public).close()
    _write_key(data / KEY_FILE, public, bytes(world.witness_keys[name]))


def calling(data: Path, name: str, relay: Relay) -> WitnessSettings:
    return WitnessSettings(
        data=data,
        name=name,
        logs=(relay.world.genesis.log,),
        pinned=relay.world.statements[0][1].hash,
        relay=relay.url,
        is_listening=False,
    )


async def test_a_folder_put_back_from_a_backup_stops_the_program_for_ever(
    tmp_path: Path, world: World
) -> None:
    """[W-8]"""
    name = sorted(world.witness_keys)[0]
    give_key(tmp_path / "w", name, world)
    async with relay(tmp_path, world, witnesses=0, witness_links=True) as one:
        other = sorted(world.witness_keys)[1]
        give_key(tmp_path / "other", other, world)
        async with running(calling(tmp_path / "other", other, one), one.clock):
            async with running(calling(tmp_path / "w", name, one), one.clock):
                await wait_until(lambda: one.context.relay.gate is None)
                await one.seal()
            shutil.copytree(tmp_path / "w", tmp_path / "backup")
            async with running(calling(tmp_path / "w", name, one), one.clock):
                await one.publish()
        with pytest.raises(RetireError, match="put back from a backup"):
            async with running(calling(tmp_path / "backup", name, one), one.clock) as (_, task):
                await task
    assert (tmp_path / "backup" / RETIRED_FILE).exists()
    # The true one has nothing to fear.
    with closing(WitnessFolder.open(tmp_path / "w", name)) as folder:
        seen = folder.state.seen(world.genesis.origin)
        assert seen is not None
        assert seen.size == folder.state.replayed().size == len(world.statements)
