"""``comity epoch``: the desk's keys, turned by any of its devices."""

import click

from comity_client.cli.shell import Noun, Shell


@click.group(cls=Noun)
def epoch() -> None:
    """Turn the desk's keys."""


@epoch.command("turn")
@click.option("--yes", is_flag=True, help="Do it without being asked.")
@click.pass_obj
def turn_epoch(shell: Shell, yes: bool) -> None:
    """Begin a new epoch for exactly the devices that the desk has."""
    from comity_client.ceremonies import turn
    from comity_client.cli.member import publish_signed, sync_member
    from comity_client.pending import CeremonyError

    member = sync_member(shell)
    if member.secret is None:
        raise CeremonyError("your desk has no epoch yet; run `comity desk start`")
    number = member.secret.number + 1
    shell.confirm(f"begin epoch {number} with {len(member.desk.active)} devices", is_given=yes)
    pending, _ = turn(member.genesis, member.desk, member.keys.full.public, last=member.secret)
    publish_signed(shell, member, pending.sign(member.keys.full))
    shell.give("epoch", {"desk": member.desk.id.hex(), "epoch": number}, [f"epoch {number} begins"])
