"""``comity desk``: a desk comes to be with its first device, and gets its first keys."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from comity_client.cli.shell import Noun, Shell, typed_id, write_new_file
from comity_protocol.limits import (
    AUDITORS_MAX,
    DEVICES_MAX,
    EPOCH_DAYS_MAX,
    FRESH_HOURS_MAX,
    HISTORY_DAYS_MAX,
)

if TYPE_CHECKING:
    from comity_protocol.identifiers import DeskId
    from comity_protocol.statements import Policy

Command = TypeVar("Command", bound=Callable[..., object])

_AUTHORITIES = (
    "police",
    "prosecution",
    "central-authority",
    "court",
    "fiu",
    "protection",
    "secretariat",
    "organisation",
)


def _policy_options(command: Command) -> Command:
    """Add the options of what custodians decide for a desk."""
    for option in reversed(
        (
            click.option(
                "--add-admins",
                type=click.IntRange(1, DEVICES_MAX),
                help="Admins of distinct officers who let a device in. At first: 2.",
            ),
            click.option(
                "--epoch-days",
                type=click.IntRange(1, EPOCH_DAYS_MAX),
                help="Days after which to turn the epoch. At first: 30.",
            ),
            click.option(
                "--fresh-hours",
                type=click.IntRange(1, FRESH_HOURS_MAX),
                help="Oldest checkpoint against which others seal to it. At first: 72.",
            ),
            click.option(
                "--history-days",
                type=click.IntRange(1, HISTORY_DAYS_MAX),
                help="How long the relay keeps sealed envelopes for it. At first: 3650.",
            ),
            click.option(
                "--auditor-of-files", multiple=True, metavar="DESK", help="All of them; repeat."
            ),
            click.option(
                "--auditor-of-leads", multiple=True, metavar="DESK", help="All of them; repeat."
            ),
        )
    ):
        command = option(command)
    return command


@click.group(cls=Noun)
def desk() -> None:
    """Create a desk, begin its first epoch."""


@desk.command("new")
@click.argument("party")
@click.argument("authority", type=click.Choice(_AUTHORITIES))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--deployment", "line", required=True, metavar="LINE", help="comity:<relay>#<hash>.")
@click.option(
    "--genesis",
    "genesis_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The signed genesis, when the relay cannot be reached now.",
)
@_policy_options
@click.option("--auditor", "auditors", multiple=True, metavar="DESK", help="Of files and leads.")
@click.option("--without-epoch", is_flag=True, help="The first keys come with `desk start`.")
@click.pass_obj
def new_desk(
    shell: Shell,
    /,
    party: str,
    authority: str,
    file: Path,
    line: str,
    genesis_file: Path | None,
    auditors: tuple[str, ...],
    without_epoch: bool,
    **decided: object,
) -> None:
    """Create a desk of PARTY, with this device as its first and an admin's.

    Makes the profile and writes FILE: the desk, the device and the first epoch in one, for the
    custodians of PARTY to sign.
    """
    from comity_client.ceremonies import root_of, start_desk
    from comity_client.cli.enrol import make_device
    from comity_client.cli.relay import fetch_genesis
    from comity_client.pending import Ceremony
    from comity_client.profile import Deployment
    from comity_client.words import key_fingerprint
    from comity_protocol.identifiers import ID_BYTES, DeskId
    from comity_protocol.keys import random_bytes
    from comity_protocol.statements import Authority, Policy, Role

    deployment = Deployment.parse(line)
    _, genesis = fetch_genesis(shell, deployment, genesis_file)
    root_of(genesis, party)
    id_ = DeskId(random_bytes(ID_BYTES))
    device = make_device(shell, deployment, genesis.deployment, id_, role=Role.ADMIN, officer=None)
    ceremony = start_desk(
        genesis,
        device.enrolment,
        party=party,
        authority=Authority(authority),
        policy=_policy(Policy(), decided, auditors),
        key=device.keys.full,
    )
    if without_epoch:
        ceremony = Ceremony(ceremony.items[:2])
    write_new_file(file, ceremony.serialize())
    shell.give(
        "ceremony",
        {
            "file": str(file),
            "desk": id_.hex(),
            "device": device.keys.device.hex(),
            "fingerprint": key_fingerprint(device.keys.full.public),
            "profile": str(device.folder),
            "missing": list(ceremony.missing),
        },
        [
            f"desk         {id_.hex()}",
            f"device       {device.keys.device.hex()}",
            f"fingerprint  {key_fingerprint(device.keys.full.public)}",
            f"profile      {device.folder}",
            f"wrote        {file}",
            f"missing      {', '.join(ceremony.missing)}",
        ],
    )
    shell.hint(
        f"next: custodians of {party} compare the fingerprint with you by voice, then run\n"
        f"  comity sign {file} --key CUSTODIAN.key --publish --deployment LINE"
    )


@desk.command("start")
@click.option("--yes", is_flag=True, help="Do it without being asked.")
@click.pass_obj
def start(shell: Shell, yes: bool) -> None:
    """Begin the first epoch of your desk: only then can anybody write to it."""
    from comity_client.ceremonies import turn
    from comity_client.cli.member import publish_signed, sync_member
    from comity_client.pending import CeremonyError

    member = sync_member(shell)
    if member.desk.epoch is not None:
        raise CeremonyError(
            f"your desk is in epoch {member.desk.epoch.number} already;"
            " to begin another run `comity epoch turn`"
        )
    shell.confirm(f"begin epoch 1 with {len(member.desk.active)} devices", is_given=yes)
    pending, _ = turn(member.genesis, member.desk, member.keys.full.public, last=None)
    publish_signed(shell, member, pending.sign(member.keys.full))
    shell.give("epoch", {"desk": member.desk.id.hex(), "epoch": 1}, ["epoch 1 begins"])


@desk.command("policy")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_policy_options
@click.pass_obj
def change_policy(shell: Shell, /, file: Path, **decided: object) -> None:
    """Write a new policy of your desk to FILE, for the custodians to sign.

    What is not given stays as it is.
    """
    from comity_client import ceremonies
    from comity_client.cli.member import sync_member
    from comity_client.pending import Ceremony
    from comity_client.words import describe

    member = sync_member(shell)
    policy = _policy(member.desk.policy, decided, ())
    pending = ceremonies.change_policy(member.genesis, member.desk, policy)
    write_new_file(file, Ceremony((pending,)).serialize())
    shell.give(
        "ceremony",
        {"file": str(file), "missing": list(pending.missing)},
        [*describe(pending.payload), f"wrote    {file}", f"missing  {', '.join(pending.missing)}"],
    )


@desk.command("show")
@click.argument("name", required=False)
@click.pass_obj
def show(shell: Shell, name: str | None) -> None:
    """Show a desk as last synchronised: devices, epoch, policy. Default: your own."""
    from comity_client.cli.known import Known

    with Known.open(shell) as known:
        shown = known.desk(known.profile.desk if name is None else known.find(name))
        document, lines = known.describe(shown)
    shell.give("desk", document, lines)


def _policy(before: "Policy", decided: Mapping[str, Any], auditors: tuple[str, ...]) -> "Policy":
    """Give the policy that was decided; what was not given stays as it was before.

    Args:
        before: The policy until now, or the first one.
        decided: What the options of ``_policy_options`` hold.
        auditors: Auditors of files and of leads, besides.
    """
    numbers = ("add_admins", "epoch_days", "fresh_hours", "history_days")
    return replace(
        before,
        auditors_file=_desks(auditors + decided["auditor_of_files"]) or before.auditors_file,
        auditors_lead=_desks(auditors + decided["auditor_of_leads"]) or before.auditors_lead,
        **{name: decided[name] for name in numbers if decided[name] is not None},
    )


def _desks(texts: tuple[str, ...]) -> tuple["DeskId", ...]:
    from comity_protocol.identifiers import DeskId

    if len(texts) > AUDITORS_MAX:
        raise click.UsageError(f"{len(texts)} auditors are named, expected at most {AUDITORS_MAX}")
    return tuple(sorted({DeskId(typed_id(text, "auditor")) for text in texts}))
