"""A device as a member of its desk: what turning epochs and letting in or throwing out takes."""

import asyncio
from dataclasses import dataclass

from comity_client.cli.relay import post
from comity_client.cli.shell import Shell
from comity_client.desk import Desk as OpenDesk
from comity_client.keystore import DeviceKeys
from comity_client.pending import Ceremony, Pending
from comity_client.profile import Profile
from comity_protocol.chain import Desk
from comity_protocol.epochs import EpochSecret
from comity_protocol.genesis import Genesis


@dataclass(frozen=True, slots=True)
class Member:
    """This device at its desk, as of the newest checkpoint.

    Attributes:
        secret: Of the desk's newest epoch; None before the first.
    """

    profile: Profile
    keys: DeviceKeys
    genesis: Genesis
    desk: Desk
    secret: EpochSecret | None


def sync_member(shell: Shell) -> Member:
    """Synchronise, then give this device's desk and its newest secret.

    Raises:
        NoKeyError: The desk has an epoch and this device no box of it.
    """
    keys = shell.device_keys()
    with shell.step("synchronising"):
        return asyncio.run(_sync(shell, keys))


def publish_signed(shell: Shell, member: Member, pending: Pending) -> None:
    """Publish a statement that this device has just signed."""
    post(shell, member.profile.deployment, member.genesis, Ceremony((pending,)).finish())


async def _sync(shell: Shell, keys: DeviceKeys) -> Member:
    async with OpenDesk.open(shell.folder, keys, now=shell.now) as opened:
        await opened.sync()
        own = opened.directory.desk(opened.profile.desk)
        secret = opened.secret() if own.epoch else None
        return Member(opened.profile, keys, opened.directory.genesis, own, secret)
