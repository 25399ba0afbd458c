"""``comity sync``: everything out, everything in."""

from typing import TYPE_CHECKING

import click

from comity_client.cli.shell import Shell, Verb

if TYPE_CHECKING:
    from comity_client.desk import Desk

_WAIT_SECONDS_MAX = 30
_TOLD_SECONDS = 7 * 86_400
"""For so long every synchronisation tells that the relay was restored."""


@click.command(cls=Verb)
@click.option(
    "--wait",
    type=click.IntRange(0, _WAIT_SECONDS_MAX),
    default=0,
    metavar="SECONDS",
    help="Wait so long for something new when there is nothing.",
)
@click.pass_obj
def sync(shell: Shell, wait: int) -> int:
    """Exchange everything with the relay: directory, outbox, inbox, receipts."""
    from comity_client.census import BUNDLES_BEFORE_SENDING
    from comity_client.cli.exits import Exit
    from comity_client.cli.known import Known
    from comity_client.cli.online import with_desk
    from comity_client.cli.said import restored_lines
    from comity_client.transport import OfflineError, RelayRefusedError

    async def do(desk: "Desk") -> dict[str, int]:
        try:
            return await exchange(desk)
        except (OfflineError, RelayRefusedError):
            # Witnesses may answer where the relay does not.
            with shell.step("asking the witnesses"):
                await desk.stamp()
            raise

    async def exchange(desk: "Desk") -> dict[str, int]:
        with shell.step("synchronising the directory"):
            await desk.sync()
            await desk.count_statements(BUNDLES_BEFORE_SENDING)
        with shell.step("sending"):
            sent = await desk.flush()
        with shell.step("receiving"):
            new = await desk.fetch(wait_seconds=wait)
        with shell.step("counting statements in the log"):
            # SPEC [B-13]: what was too much before sending is counted when everything else is done.
            count = await desk.count_statements()
        return {
            "entries_counted": count.counted,
            "entries": count.size,
            "desks": len(desk.directory.desks),
            "sent": len([status for status in sent if status.stage.value == "accepted"]),
            "queued": len([status for status in sent if status.stage.value == "queued"]),
            "rejected": len([status for status in sent if status.stage.value == "rejected"]),
            "received": len(new),
            "alarms": len(desk.alarms()),
        }

    counts = with_desk(shell, do)
    with Known.open(shell) as known:
        restores = restored_lines(known.state, shell.now() - _TOLD_SECONDS)
    lines = [
        *restores,
        f"{counts['desks']} desks, {counts['sent']} sent, {counts['received']} received",
        *([f"{counts['queued']} still queued"] if counts["queued"] else []),
        *(
            [f"{counts['rejected']} refused by the relay; see `comity outbox`"]
            if counts["rejected"]
            else []
        ),
        *(
            [f"{counts['entries_counted']} of {counts['entries']} log entries counted; sync again"]
            if counts["entries_counted"] < counts["entries"]
            else []
        ),
        *([f"{counts['alarms']} alarms; see `comity alarm list`"] if counts["alarms"] else []),
    ]
    shell.give("sync", counts, lines)
    return Exit.UNVERIFIED if counts["alarms"] else Exit.OK
