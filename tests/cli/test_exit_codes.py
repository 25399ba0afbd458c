"""Each documented exit code, met by the real command under the condition that it stands for."""

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from comity_client.ceremonies import create_desk
from comity_client.cli import ENTRIES, comity, run
from comity_client.cli.exits import Exit
from comity_client.desk import Desk
from comity_client.keystore import Cost, DeviceKeys
from comity_client.pending import Ceremony
from comity_client.profile import Deployment, Profile
from comity_protocol.identifiers import DeskId
from comity_protocol.statements import Authority, Policy
from comity_protocol.wire import PROBLEM_TYPE
from support.world import World

NOW = 1_790_000_000
PASSPHRASE = "correct horse battery staple"  # noqa: S105  # a test's
FLOOR = Cost(3, 64 * 1024 * 1024)
CLOSED_PORT = 9  # The discard service: nobody listens there.


def call(*arguments: str) -> int:
    return run(arguments, lambda: NOW)


def problem_of(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """Read the one document that an error is with --json."""
    captured = capsys.readouterr()
    assert captured.out == ""
    document = json.loads(captured.err)
    assert isinstance(document, dict)
    return document


@pytest.fixture(scope="module")
def world() -> World:
    return World.found()


@pytest.fixture
def relay(world: World) -> Iterator["Answering"]:
    """Something at the relay's address that gives one prepared answer."""
    server = Answering(world)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Answering(HTTPServer):
    """Answers every request the same."""

    def __init__(self, world: World) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = world.statements[0][1].serialize()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def refuse(self, status: int, code: str, retry_after: int) -> None:
        self.status = status
        self.headers = {"Content-Type": PROBLEM_TYPE, "Retry-After": str(retry_after)}
        self.body = json.dumps({"code": code, "detail": "not now"}).encode()


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name there
        del format, args


@pytest.fixture
def profile(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A profile whose relay cannot be reached."""
    folder = tmp_path / "profile"
    keys = DeviceKeys.generate()
    deployment = Deployment(f"http://127.0.0.1:{CLOSED_PORT}", world.statements[0][1].hash)
    Desk.create(
        folder, Profile(deployment, DeskId(bytes(16)), keys.device), keys, PASSPHRASE, cost=FLOOR
    )
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE + "\n")
    secret.chmod(0o600)
    monkeypatch.setenv("COMITY_PASSPHRASE_FILE", str(secret))
    monkeypatch.setenv("COMITY_PROFILE", str(folder))
    return folder


def test_0_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version", "--json") == Exit.OK
    assert json.loads(capsys.readouterr().out)["kind"] == "version"


def test_1_failed_for_another_reason(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (profile / "state.db").write_bytes(b"not a database, but long enough to be taken for one" * 90)

    assert call("inbox", "--json") == Exit.FAILED
    assert problem_of(capsys)["code"] == "state"


def test_2_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("inbux", "--json") == Exit.USAGE
    assert problem_of(capsys)["detail"] == "there is no command 'inbux'; did you mean 'inbox'?"


def test_2_nothing_asked_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert call() == Exit.USAGE
    assert capsys.readouterr().err.startswith("Usage: comity ")


def test_2_setup_in_a_folder_whose_first_start_was_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "passphrase").touch()

    assert call("setup", str(tmp_path)) == Exit.USAGE
    assert "was cut off; delete that folder" in capsys.readouterr().err


def test_2_not_confirmed(
    profile: Path, tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = create_desk(
        world.genesis,
        DeskId(bytes(16)),
        party="XA",
        authority=Authority.POLICE,
        policy=Policy(),
    )
    file = tmp_path / "desk"
    file.write_bytes(Ceremony((desk,)).serialize())

    assert call("sign", str(file), "--json") == Exit.USAGE
    assert problem_of(capsys)["detail"] == "nobody is there to say yes to: sign this"
    del profile


def test_a_root_that_cannot_be_leaves_no_key_behind(
    profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "root"

    code = call("root", "new", "XA", "--new", "a", "--threshold", "2", "--folder", str(folder))

    assert code == Exit.REFUSED
    assert "root is 2 of 1 custodians" in capsys.readouterr().err
    assert not folder.exists()
    del profile


def test_3_not_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("inbox", "--json", "--profile", f"{tmp_path}/nobody") == Exit.NOT_FOUND
    assert problem_of(capsys)["detail"] == f"there is no profile in {tmp_path}/nobody"


def test_4_wrong_passphrase(
    profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.write_text("another passphrase altogether")
    other.chmod(0o600)

    code = call("sync", "--json", "--passphrase-file", str(other))

    assert code == Exit.AUTHENTICATION
    assert problem_of(capsys)["code"] == "wrong-passphrase"
    del profile


def test_4_nobody_to_ask(
    profile: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COMITY_PASSPHRASE_FILE")

    assert call("sync", "--json") == Exit.AUTHENTICATION
    assert problem_of(capsys)["code"] == "passphrase-needed"
    del profile


def test_4_a_passphrase_that_others_can_read(
    profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "passphrase").chmod(0o644)

    assert call("sync") == Exit.AUTHENTICATION
    assert "can be read by others, expected mode 600" in capsys.readouterr().err
    del profile


def test_5_refused_by_a_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weak = tmp_path / "weak"
    weak.write_text("short")
    weak.chmod(0o600)

    code = call(
        "root", "custodian", "anna", "--folder", str(tmp_path), "--passphrase-file", str(weak),
        "--json",
    )  # fmt: skip

    assert code == Exit.REFUSED
    assert problem_of(capsys)["code"] == "weak-passphrase"


def test_6_offline(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("deployment", "show", "--json") == Exit.OFFLINE
    assert problem_of(capsys)["code"] == "offline"
    del profile


def test_7_verification_failed(
    profile: Path, relay: Answering, capsys: pytest.CaptureFixture[str]
) -> None:
    """[D-1]: another genesis than the pinned one."""
    line = Deployment(relay.url, bytes(32)).serialize()

    assert call("deployment", "show", line, "--json") == Exit.UNVERIFIED
    assert "another deployment's genesis than the line names" in str(problem_of(capsys)["detail"])
    del profile


@pytest.mark.parametrize(("status", "code"), [(503, "busy"), (429, "quota"), (503, "draining")])
def test_75_temporary(
    profile: Path, relay: Answering, status: int, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    relay.refuse(status, code, retry_after=60)
    line = Deployment(relay.url, bytes(32)).serialize()

    assert call("deployment", "show", line, "--json") == Exit.TEMPORARY
    assert problem_of(capsys)["code"] == code
    del profile


def test_an_error_says_what_happened_and_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("inbox", "--profile", f"{tmp_path}/nobody")

    what, then = capsys.readouterr().err.splitlines()
    assert what == f"error: there is no profile in {tmp_path}/nobody"
    assert then.startswith("next:  ")


def test_every_command_is_there_and_takes_the_common_options() -> None:
    """The table of names is what the modules hold."""
    context = comity.make_context("comity", ["inbox"], resilient_parsing=True)
    for name in comity.list_commands(context):
        command = comity.get_command(context, name)
        assert command is not None
        if name in ("witness", "demo", "secretariat"):
            continue
        verbs = list(getattr(command, "commands", {name: command}).values())
        for verb in verbs:
            options = {option for parameter in verb.params for option in parameter.opts}
            assert {"--json", "--profile", "--offline", "--quiet"} <= options, verb.name
            assert verb.help, verb.name
    assert set(ENTRIES) >= set(comity.list_commands(context))


def test_authorities_on_the_command_line_are_those_of_the_protocol() -> None:
    context = comity.make_context("comity", ["desk"], resilient_parsing=True)
    group = comity.get_command(context, "desk")
    new = getattr(group, "commands", {})["new"]
    choices = next(one.type.choices for one in new.params if one.name == "authority")

    assert list(choices) == [authority.value for authority in Authority]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("completion", shell) == Exit.OK
    assert "_COMITY_COMPLETE" in capsys.readouterr().out


def imported_by(*arguments: str) -> set[str]:
    """Give the names of all modules that a command imports, in a process of its own."""
    code = (
        "import sys; from comity_client.cli import run;"
        f"run({list(arguments)!r}, lambda: 1790000000);"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    return set(done.stderr.split())


def test_version_imports_neither_cryptography_nor_the_network() -> None:
    modules = imported_by("--version")

    assert not modules & {"aiohttp", "asyncio", "cryptography", "nacl", "sqlite3", "msgspec"}


def test_inbox_does_not_import_the_network(profile: Path) -> None:
    modules = imported_by("inbox")

    assert "sqlite3" in modules
    assert not modules & {"aiohttp", "asyncio"}
    del profile
