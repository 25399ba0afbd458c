"""A new device: its keys, its profile, and what it asks to be admitted with."""

from dataclasses import dataclass
from pathlib import Path

from comity_client.ceremonies import Enrolment
from comity_client.cli.shell import FileError, Shell
from comity_client.desk import Desk
from comity_client.keystore import DeviceKeys
from comity_client.profile import KEYS_FILE, PROFILE_FILE, Deployment, Profile
from comity_protocol.identifiers import DeploymentId, DeskId, OfficerId
from comity_protocol.keys import random_bytes
from comity_protocol.statements import Role


@dataclass(frozen=True, slots=True)
class NewDevice:
    """A device whose profile was just written."""

    folder: Path
    keys: DeviceKeys
    enrolment: Enrolment


def make_device(
    shell: Shell,
    deployment: Deployment,
    deployment_id: DeploymentId,
    desk: DeskId,
    *,
    role: Role,
    officer: OfficerId | None,
) -> NewDevice:
    """Make a device's keys and profile in the shell's folder.

    Args:
        shell: Gives folder and passphrase.
        deployment: Pinned from now on.
        deployment_id: Its id, from the verified genesis.
        desk: The desk it is to join.
        role: What it asks to be.
        officer: The pseudonym of an officer who has a device already; None for a new one.

    Raises:
        FileError: There is a profile in the folder already.
    """
    folder = shell.folder
    if (folder / PROFILE_FILE).exists() or (folder / KEYS_FILE).exists():
        raise FileError(f"there is a profile in {folder} already; choose another with --profile")
    passphrase = shell.new_passphrase(f"profile {folder.name}")
    keys = DeviceKeys.generate()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    profile = Profile(deployment, desk, keys.device)
    with shell.step("making the key store"):
        Desk.create(folder, profile, keys, passphrase, cost=shell.key_store_cost())
    enrolment = Enrolment(
        deployment=deployment_id,
        desk=desk,
        officer=officer or OfficerId(random_bytes(16)),
        role=role,
        fast=keys.fast.public,
        full=keys.full.public,
        seal=keys.seal.public,
    )
    return NewDevice(folder, keys, enrolment)
