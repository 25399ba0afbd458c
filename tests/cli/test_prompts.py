"""What is asked when somebody is there: typed at a real terminal."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

from comity_client.ceremonies import create_desk
from comity_client.cli.exits import Exit
from comity_client.keystore import Cost, CustodianKey, read_custodian_key, write_keys
from comity_client.pending import Ceremony
from comity_protocol.identifiers import DeskId
from comity_protocol.statements import Authority, Policy
from support.world import World

PASSPHRASE = "correct horse battery staple"  # noqa: S105  # a test's
SECONDS_MAX = 30


def talk(folder: Path, arguments: list[str], answers: list[tuple[str, str]]) -> tuple[int, str]:
    """Run a command at a terminal and type each answer after its question; give code and screen."""
    ours, theirs = pty.openpty()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COMITY_")
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "comity_client", *arguments],
        cwd=folder,
        env={**environment, "COMITY_KEY_STORE_MIB": "64"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    screen, fresh = "", ""
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 0.1)[0]:
            continue
        try:
            read = os.read(ours, 4_096).decode()
        except OSError:  # The other end is closed: it is over.
            break
        screen, fresh = screen + read, fresh + read
        if answers and answers[0][0] in fresh:
            os.write(ours, f"{answers.pop(0)[1]}\n".encode())
            fresh = ""
    os.close(ours)
    return process.wait(SECONDS_MAX), screen


def test_a_new_passphrase_is_typed_twice_and_never_shown(tmp_path: Path) -> None:
    code, screen = talk(
        tmp_path,
        ["root", "custodian", "anna"],
        [("new passphrase of custodian anna", PASSPHRASE), ("the same again", PASSPHRASE)],
    )

    assert code == Exit.OK, screen
    assert PASSPHRASE not in screen
    assert read_custodian_key(tmp_path / "anna.key", PASSPHRASE).full.public


def test_a_custodian_reads_what_it_says_before_saying_yes_and_may_say_no(tmp_path: Path) -> None:
    world = World.found()
    desk = create_desk(
        world.genesis,
        DeskId(bytes(16)),
        party="XA",
        authority=Authority.COURT,
        policy=Policy(),
    )
    (tmp_path / "desk").write_bytes(Ceremony((desk,)).serialize())
    key = CustodianKey(world.parties["XA"].keys[0])
    write_keys(tmp_path / "c.key", key, PASSPHRASE, Cost(3, 64 * 1024 * 1024))
    command = ["sign", "desk", "--key", "c.key"]

    no, screen = talk(tmp_path, command, [("sign this", "n")])

    assert no == Exit.USAGE
    assert screen.index("desk: create a court desk of XA") < screen.index("sign this")
    assert not Ceremony.parse((tmp_path / "desk").read_bytes()).items[0].signatures

    yes, screen = talk(
        tmp_path, command, [("sign this", "y"), ("passphrase of custodian c", PASSPHRASE)]
    )

    assert yes == Exit.OK, screen
    assert "missing: 1 more of custodians of XA" in screen
