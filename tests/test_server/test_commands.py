"""``comity-relay``: settings, keys, genesis, and a process that serves and stops."""

import asyncio
import json
import logging
import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import ClientSession
from nacl.signing import SigningKey

from comity_protocol.errors import VerificationError
from comity_protocol.keys import FastKey
from comity_protocol.signed_note import KeyType, VerifierKey
from comity_protocol.statements import SignedStatement, sign_statement
from comity_server import __main__, keyfiles, observe
from comity_server.settings import Settings, SettingsError, load
from support.relay import Clock, relay, small_world, witness
from support.world import World


def test_settings_that_are_not_given_work() -> None:
    settings = load(environment={})

    assert settings.database_url == "sqlite:///comity-relay/relay.sqlite"
    assert settings.signer_path == Path("comity-relay/signer.sqlite")
    assert settings.host == "127.0.0.1"


def test_arguments_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('port = 1\nhost = "127.0.0.2"\nsockets = 3\nwitnesses = ["http://a"]\n')
    settings = load(
        file=file,
        environment={"COMITY_PORT": "2", "COMITY_HOST": "127.0.0.3", "COMITY_LONG": "1"},
        arguments={"port": 3, "database": None, "witnesses": ()},
    )

    assert (settings.port, settings.host, settings.sockets) == (3, "127.0.0.3", 3)
    assert settings.witnesses == ("http://a",)


UNSAFE = {
    "reachable without TLS": ({"host": "0.0.0.0"}, "speaks no TLS"),  # noqa: S104 - what is refused
    "a name without TLS": ({"host": "relay.example"}, "speaks no TLS"),
    "no port": ({"port": 70_000}, "port is 70000"),
    "no bound": ({"queue_entries": 0}, "queue_entries is 0, expected more than zero"),
    "a negative quota": ({"desk_bytes_per_second": -1.0}, "desk_bytes_per_second is -1.0"),
    "a file as witness": ({"witnesses": ("file:///x",)}, "is not an http or https address"),
    "one witness twice": ({"witnesses": ("http://a", "http://a")}, "one witness is there twice"),
    "a slow heart": ({"heartbeat_seconds": 0.1}, "heartbeat_seconds is shorter"),
    "one file for two": (
        {"data": Path("d"), "signer": "d/relay.sqlite"},
        "signer and database are one file",
    ),
}


@pytest.mark.parametrize(("changes", "message"), UNSAFE.values(), ids=UNSAFE.keys())
def test_unsafe_settings_are_refused_with_a_sentence(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings(**changes)  # type: ignore[arg-type]  # the test's own keywords


def test_a_proxy_that_ends_tls_makes_another_address_safe() -> None:
    assert Settings(host="0.0.0.0", behind_proxy=True).behind_proxy  # noqa: S104 - with a proxy


WRONG = {
    "an unknown name": "unknown = 1",
    "no number": 'port = "x"',
    "no choice": 'behind_proxy = "perhaps"',
    "not TOML": "port = = 1",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_a_settings_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(text)

    with pytest.raises(SettingsError, match="settings file"):
        load(file=file, environment={})


def test_choices_are_read_from_the_environment() -> None:
    values = {"true": True, "1": True, "no": False, "0": False}

    assert {
        text: load(environment={"COMITY_BEHIND_PROXY": text}).behind_proxy for text in values
    } == values


def test_keys_are_drawn_once_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    public = keyfiles.create_keys(settings, "relay.example/log")
    log_key, relay_key = keyfiles.read_log_key(settings), keyfiles.read_relay_key(settings)

    assert VerifierKey.parse(public["vkey"]).public_key == bytes(log_key.verify_key)
    assert public["relay"] == relay_key.public.hex()
    assert stat.S_IMODE(settings.log_key_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.relay_key_path.stat().st_mode) == 0o600
    with pytest.raises(SettingsError, match="a key is never drawn twice"):
        keyfiles.create_keys(settings, "relay.example/log")


def test_keys_that_others_may_read_are_refused(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    keyfiles.create_keys(settings, "relay.example/log")
    settings.log_key_path.chmod(0o640)
    with pytest.raises(SettingsError, match="can be read by others; run chmod 600"):
        keyfiles.read_log_key(settings)

    settings.log_key_path.chmod(0o600)
    settings.log_key_path.write_bytes(b"short")
    with pytest.raises(SettingsError, match="has 5 bytes, expected 32"):
        keyfiles.read_log_key(settings)
    settings.log_key_path.unlink()
    with pytest.raises(SettingsError, match="run comity-relay keys first"):
        keyfiles.read_log_key(settings)


def test_an_origin_that_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="origin cannot be used"):
        keyfiles.create_keys(Settings(data=tmp_path), "two words")


def _write_keys(settings: Settings, world: World) -> None:
    settings.data.mkdir(exist_ok=True)
    for path, seed in (
        (settings.log_key_path, bytes(world.log_key)),
        (settings.relay_key_path, world.relay_key.seed),
    ):
        path.write_bytes(seed)
        path.chmod(0o600)


def _write_genesis(path: Path, signed: SignedStatement) -> Path:
    path.write_bytes(signed.serialize())
    return path


def test_a_genesis_is_installed_once_its_signatures_and_keys_fit(tmp_path: Path) -> None:
    """[S-12]"""
    world, other = World.found(), World.found()
    settings = Settings(data=tmp_path / "data")
    _write_keys(settings, world)
    signed = world.statements[0][1]
    file = _write_genesis(tmp_path / "genesis", signed)
    half = _write_genesis(tmp_path / "half", replace(signed, signatures=signed.signatures[:2]))
    foreign = _write_genesis(tmp_path / "foreign", other.statements[0][1])

    with pytest.raises(VerificationError, match="too few signatures"):
        keyfiles.install_genesis(settings, half)
    with pytest.raises(SettingsError, match="log key of this folder is not the one"):
        keyfiles.install_genesis(settings, foreign)
    with pytest.raises(SettingsError, match="has no genesis; run comity-relay init"):
        keyfiles.read_genesis(settings)
    keyfiles.install_genesis(settings, file)
    keyfiles.install_genesis(settings, file)
    assert keyfiles.read_genesis(settings) == signed

    policy = world.genesis.policy
    looser = replace(policy, quorum=replace(policy.quorum, threshold=1))
    again = replace(world.genesis, policy=looser)
    keys = [key for party in world.parties.values() for key in party.quorum]
    newer = _write_genesis(tmp_path / "newer", sign_statement(again.serialize(), keys))
    with pytest.raises(SettingsError, match="a relay serves one deployment"):
        keyfiles.install_genesis(settings, newer)
    world.relay_key = FastKey.generate()
    _write_keys(settings, world)
    with pytest.raises(SettingsError, match="relay key of this folder is not the one"):
        keyfiles.install_genesis(settings, file)


async def test_a_database_of_another_deployment_is_refused(tmp_path: Path) -> None:
    world, other = World.found(), World.found()
    async with relay(tmp_path, world):
        pass
    (tmp_path / "signer.sqlite").unlink()

    with pytest.raises(SettingsError, match="database is another deployment's"):
        async with relay(tmp_path, replace_witness_files(other, tmp_path)):
            pass


def replace_witness_files(world: World, path: Path) -> World:
    """Let the witnesses of another world begin anew in the same folder."""
    for name in world.witness_keys:
        for file in path.glob(f"{name}.sqlite*"):
            file.unlink()
    return world


# The process.


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("COMITY_")}


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "comity_server", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=_environment(),
    )


async def test_the_command_draws_keys_installs_a_genesis_serves_and_stops(tmp_path: Path) -> None:
    """From nothing to a witnessed checkpoint, and a clean end on SIGTERM."""
    data = tmp_path / "data"
    keys = json.loads(_run("keys", "--data", str(data), "--origin", "relay.example/log").stdout)
    world, _, _ = small_world()
    log_seed, relay_seed = (data / "log.key").read_bytes(), (data / "relay.key").read_bytes()
    world = _founded_with(world, keys["origin"], SigningKey(log_seed), FastKey(relay_seed))
    genesis = _write_genesis(tmp_path / "genesis", world.statements[0][1])
    installed = json.loads(_run("init", "--data", str(data), "--genesis", str(genesis)).stdout)
    async with (
        witness(tmp_path, "witness0.example", world, Clock()) as one,
        witness(tmp_path, "witness1.example", world, Clock()) as two,
    ):
        arguments = ["--data", str(data), "--port", "0", "--witness", one, "--witness", two]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "comity_server",
            "serve",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )
        assert process.stdout is not None
        async with asyncio.timeout(30):
            url = json.loads(await process.stdout.readline())["url"]
            checkpoint = await _checkpoint(url)
            process.send_signal(signal.SIGTERM)
            rest, log = await process.communicate()

    assert installed["deployment"] == world.genesis.deployment.hex()
    assert checkpoint.startswith(b"relay.example/log\n1\n")
    assert (process.returncode, rest) == (0, b"")
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert "checkpoint-published" in events


async def _checkpoint(url: str) -> bytes:
    async with ClientSession() as session:
        for _ in range(2_000):
            async with session.get(url + "/checkpoint") as response:
                if response.status == 200:
                    return await response.read()
            await asyncio.sleep(0.01)
    raise AssertionError("no checkpoint was published")


def _founded_with(world: World, origin: str, log_key: SigningKey, relay_key: FastKey) -> World:
    log = VerifierKey(origin, KeyType.ED25519, bytes(log_key.verify_key))
    genesis = replace(
        world.genesis,
        policy=replace(world.genesis.policy, log=log),
        relay_key=relay_key.public,
    )
    keys = [key for party in world.parties.values() for key in party.quorum]
    signed = sign_statement(genesis.serialize(), keys)
    directory = type(world.directory).begin(signed, signed.hash)
    return replace(
        world,
        directory=directory,
        statements=[(0, signed)],
        log_key=log_key,
        relay_key=relay_key,
    )


def _fail(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str | int | None:
    """Run the command in this process; give how it ends."""
    monkeypatch.setattr(sys, "argv", ["comity-relay", *arguments])
    for name in [name for name in os.environ if name.startswith("COMITY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(observe, "configure", lambda: None)
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    return ended.value.code


def test_a_failure_is_one_sentence_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = _fail(monkeypatch, "serve", "--data", str(tmp_path))
    unsafe = _fail(monkeypatch, "serve", "--data", str(tmp_path), "--host", "relay.example")
    wrong = _fail(monkeypatch, "serve", "--nonsense")

    assert missing == (
        f"comity-relay: key {tmp_path}/log.key cannot be read: No such file or directory;"
        " run comity-relay keys first; change the setting that the message names, then start"
        " the relay again"
    )
    assert "put a proxy that ends TLS before it" in str(unsafe)
    assert wrong == 2
    assert "No such option" in capsys.readouterr().err


def test_a_database_that_is_none_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "relay.sqlite").write_bytes(b"not a database, " * 64)
    monkeypatch.setattr(sys, "argv", ["comity-relay", "fsck", "--data", str(tmp_path)])

    with pytest.raises(SystemExit, match="file is not a database; if a backup was put back"):
        __main__.main()


def test_without_its_extra_the_relay_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(__main__, "_NEEDED", ("sqlalchemy", "no_such_package"))

    with pytest.raises(SystemExit, match=r"needs no_such_package; .*pip install '\.\[server\]'"):
        __main__.main()


def test_log_lines_are_json_with_codes_and_the_place_of_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        observe.configure()
        observe.event("something-happened", size=7, hash="ab")
        try:
            int("a name that must not be seen")
        except ValueError as error:
            observe.alarm("something-failed", error, code="x")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    assert [line["event"] for line in lines] == ["something-happened", "something-failed"]
    assert lines[0]["size"] == 7
    assert lines[1]["error"] == "ValueError"
    assert lines[1]["where"].startswith("test_commands.py:")
    assert "must not be seen" not in str(lines)
