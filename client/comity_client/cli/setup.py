"""``comity setup``: a whole deployment on this machine, for trying and for nothing else.

One person holds every key here, under one passphrase that lies beside them. Real deployments are
founded by several people, with the commands that this one stands for: see ``docs/OPERATIONS.md``.
"""

import json
import signal
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click

from comity_client.ceremonies import found, new_root, start_desk
from comity_client.cli.enrol import make_device
from comity_client.cli.online import with_desk
from comity_client.cli.relay import fetch_genesis, post
from comity_client.cli.shell import Shell, Verb
from comity_client.files import write_private
from comity_client.keystore import CustodianKey, read_custodian_key, write_keys
from comity_client.local import (
    ChildError,
    relay_once,
    settle,
    start_relay,
    start_witnesses,
)
from comity_client.profile import Deployment, Profile, read_profile, write_profile
from comity_client.witness_file import WitnessFile, flat_policies
from comity_protocol.genesis import Root
from comity_protocol.identifiers import DeskId
from comity_protocol.keys import random_bytes
from comity_protocol.signed_note import VerifierKey
from comity_protocol.statements import Authority, Policy, Role, SignedStatement

STATES: Final = (("XA", Authority.PROSECUTION), ("XB", Authority.CENTRAL_AUTHORITY))
"""Codes that ISO 3166 leaves to users, so that no real State is shown."""

_ORIGIN: Final = "try.invalid/comity"
_LOOK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of a deployment for trying."""

    folder: Path

    @property
    def relay(self) -> Path:
        """Data of the relay."""
        return self.folder / "relay"

    @property
    def link(self) -> Path:
        """The deployment line; it is there once the first start went through."""
        return self.folder / "deployment"

    @property
    def passphrase(self) -> Path:
        """The one passphrase of every key here."""
        return self.folder / "passphrase"

    def key(self, code: str) -> Path:
        """Key of a State's only custodian."""
        return self.folder / f"{code}-custodian.key"

    def profile(self, code: str) -> Path:
        """Profile of a State's only desk."""
        return self.folder / code


@click.command(cls=Verb)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--witnesses", "count", type=click.IntRange(1, 9), default=3, show_default=True)
@click.pass_obj
def setup(shell: Shell, folder: Path, count: int) -> None:
    """FOR TRYING ONLY: a relay, witnesses and two States XA and XB, on this machine.

    It runs until Ctrl-C. Run it again with the same FOLDER to go on.
    """
    if find_spec("comity_server") is None or find_spec("sqlalchemy") is None:
        raise ChildError(
            "the relay is not installed; run, in the folder of the source,  pip install '.[server]'"
        )
    place = Place(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        stop = _stop_on_signal(stack)
        deployment = _begin(shell, place, count, stack)
        shell.give(
            "setup",
            {
                "link": deployment.serialize(),
                "profiles": {code: str(place.profile(code)) for code, _ in STATES},
                "passphrase_file": str(place.passphrase),
            },
            [
                "FOR TRYING ONLY: every key lies in this folder, under one passphrase.",
                f"deployment  {deployment.serialize()}",
                *(
                    f"{code}          a {authority.value} desk, profile {place.profile(code)}"
                    for code, authority in STATES
                ),
                "",
                "In another terminal:",
                f"  export COMITY_PASSPHRASE_FILE={place.passphrase}",
                f'  comity lead XB "a first lead" --profile {place.profile("XA")}',
                f"  comity sync --profile {place.profile('XB')}",
                f"  comity inbox --profile {place.profile('XB')}",
                "",
                "Ctrl-C ends it.",
            ],
        )
        while not stop:
            time.sleep(_LOOK_SECONDS)


def _stop_on_signal(stack: ExitStack) -> list[int]:
    """Give a list that is empty until somebody asks to stop."""
    stop: list[int] = []

    def note(number: int, frame: object) -> None:
        del frame
        stop.append(number)

    for wanted in (signal.SIGINT, signal.SIGTERM):
        stack.callback(signal.signal, wanted, signal.signal(wanted, note))
    return stop


def _begin(shell: Shell, place: Place, count: int, stack: ExitStack) -> Deployment:
    """Start everything, making first what is not there yet."""
    is_new = not place.link.exists()
    _refuse_a_second(place, is_new=is_new)
    shell.passphrase_file = place.passphrase
    if is_new:
        write_private(place.passphrase, random_bytes(12).hex().encode() + b"\n")
        keys = relay_once(place.relay, "keys", "--origin", _ORIGIN)
        write_private(place.folder / "relay-keys.json", json.dumps(keys).encode())
    keys = json.loads((place.folder / "relay-keys.json").read_bytes())
    with shell.step("starting the witnesses"):
        names = {f"witness{number}": f"witness{number}.invalid" for number in range(1, count + 1)}
        witnesses = start_witnesses(stack, place.folder, names, keys["vkey"])
    if is_new:
        with shell.step("founding the deployment"):
            genesis = _found(shell, place, keys, [WitnessFile.of(ready) for ready in witnesses])
        write_private(place.folder / "genesis.signed", genesis.serialize())
        relay_once(place.relay, "init", "--genesis", str(place.folder / "genesis.signed"))
    port = 0 if is_new else _port(place)
    with shell.step("starting the relay"):
        addresses = [ready["address"] for ready in witnesses]
        url = start_relay(stack, place.relay, port, addresses)
    if not is_new:
        return _deployment(place)
    signed = SignedStatement.parse((place.folder / "genesis.signed").read_bytes())
    deployment = Deployment(url, signed.hash)
    with shell.step("creating two desks"):
        _create_desks(shell, place, deployment)
    with shell.step("waiting for the witnesses"):
        _settle(shell, place)
    write_private(place.link, deployment.serialize().encode() + b"\n")
    return deployment


def _refuse_a_second(place: Place, *, is_new: bool) -> None:
    """Refuse a folder whose relay runs already, or whose first start was cut off."""
    if is_new and place.passphrase.exists():
        raise click.UsageError(
            f"the first start in {place.folder} was cut off; delete that folder, or name another"
        )
    if is_new:
        return
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", _port(place))) == 0:
            raise click.UsageError(
                f"{place.folder} runs already, or another program has port {_port(place)};"
                " use what runs, or end it first"
            )


def _port(place: Place) -> int:
    return int(_deployment(place).url.rpartition(":")[2])


def _deployment(place: Place) -> Deployment:
    return Deployment.parse(place.link.read_text("utf-8"))


def _found(
    shell: Shell, place: Place, keys: dict[str, str], witnesses: list[WitnessFile]
) -> SignedStatement:
    """Make both States' roots and sign the genesis with their custodians."""
    roots: list[Root] = []
    custodians: list[CustodianKey] = []
    passphrase = shell.passphrase("everything")
    for code, _ in STATES:
        key = CustodianKey.generate()
        write_keys(place.key(code), key, passphrase, shell.key_store_cost())
        custodians.append(key)
        roots.append(new_root(code, 1, [key.full.public]))
    log = VerifierKey.parse(keys["vkey"])
    policy, anchors = flat_policies(log, witnesses, len(witnesses) // 2 + 1)
    ceremony = found(
        policy=policy, anchors=anchors, relay_key=bytes.fromhex(keys["relay"]), roots=roots
    )
    for custodian in custodians:
        ceremony = ceremony.sign(custodian.full)
    return ceremony.finish()[0]


def _create_desks(shell: Shell, place: Place, deployment: Deployment) -> None:
    _, genesis = fetch_genesis(shell, deployment)
    names: dict[str, DeskId] = {}
    for code, authority in STATES:
        shell.profile = str(place.profile(code))
        desk = names[code] = DeskId(random_bytes(16))
        device = make_device(
            shell, deployment, genesis.deployment, desk, role=Role.ADMIN, officer=None
        )
        ceremony = start_desk(
            genesis,
            device.enrolment,
            party=code,
            authority=authority,
            policy=Policy(add_admins=1),
            key=device.keys.full,
        )
        custodian = read_custodian_key(place.key(code), shell.passphrase(code))
        post(shell, deployment, genesis, ceremony.sign(custodian.full).finish())
    for code, _ in STATES:
        folder = place.profile(code)
        known = read_profile(folder)
        others = {desk: name for name, desk in names.items() if name != code}
        write_profile(folder, Profile(known.deployment, known.desk, known.device, others))


def _settle(shell: Shell, place: Place) -> None:
    """Synchronise both desks until each can write to the other."""
    for code, _ in STATES:
        shell.profile = str(place.profile(code))
        with_desk(shell, lambda desk: settle(desk, len(STATES)))
