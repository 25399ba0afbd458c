"""``comity secretariat``: how long requests took to be answered."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from comity_client.cli.shell import Shell, Verb

if TYPE_CHECKING:
    from comity_client.desk import Desk
    from comity_protocol.counting import Response, Statistics


@click.command(cls=Verb)
@click.option(
    "--archive",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Count from a folder that `comity audit fetch --desk` wrote, without the relay.",
)
@click.pass_obj
def secretariat(shell: Shell, archive: Path | None) -> None:
    """Say how long requests took to be answered, open ones included.

    Times run from when witnesses had the request to when they had the answer; nobody's own clock
    counts. Who has the same records computes the same digest.
    """
    from comity_client.cli.online import with_desk
    from comity_client.secretariat import statistics
    from comity_protocol.counting import digest_of
    from comity_protocol.keys import fingerprint

    async def do(desk: "Desk") -> "Statistics":
        with shell.step("fetching audit records"):
            if not shell.is_offline:
                await desk.sync()
                await desk.fetch()
            return await statistics(desk, is_online=not shell.is_offline)

    counted = _from_archive(shell, archive) if archive else with_desk(shell, do)
    lines = [
        *(_line(row, counted.is_ranked) for row in counted.rows),
        *(f"{party}  {count} not accounted for" for party, count in counted.charged),
        f"digest  {fingerprint(digest_of(counted))}",
    ]
    shell.give("response-times", _document(counted), lines)
    if not counted.rows:
        shell.hint(
            "no records: no desk that names this one as its auditor has written or answered yet"
        )
    elif not counted.is_ranked:
        shell.hint(
            f"of {counted.witnesses} witnesses it takes {counted.least} to move a time, too few to"
            " rank anybody by it; the times are shown alone"
        )


def _document(counted: "Statistics") -> dict[str, object]:
    from comity_protocol.counting import digest_of

    return {
        "digest": digest_of(counted).hex(),
        "size": counted.size,
        "as_of": counted.as_of,
        "witnesses": counted.witnesses,
        "is_ranked": counted.is_ranked,
        "responses": [_row(row) for row in counted.rows],
        "unaccounted": [
            {
                "leaf_index": one.index,
                "envelope": one.envelope.hex(),
                "sender": one.sender.hex(),
                "fault": one.fault.value,
            }
            for one in counted.unaccounted
        ],
        "unaccounted_by": dict(counted.charged),
        "outages": [{"start": one.start, "end": one.end} for one in counted.outages],
    }


def _from_archive(shell: Shell, folder: Path) -> "Statistics":
    """Count from a folder; the profile gives the keys, and nothing in it is changed."""
    import asyncio

    from comity_client.audit_archive import Archive
    from comity_client.cli.known import Known
    from comity_client.relay_answers import Boxes
    from comity_client.secretariat import statistics_of

    keys = shell.device_keys()
    with Known.open(shell) as known:
        boxes = Boxes(*known.state.boxes())
        profile = known.profile
    with shell.step("verifying the folder"):
        return asyncio.run(statistics_of(Archive(folder), profile, keys, boxes, shell.now))


def _row(row: "Response") -> dict[str, object]:
    return {
        "exchange": row.exchange.hex(),
        "profile": row.profile,
        "initiator": row.initiator,
        "responder": row.responder,
        "urgency": row.urgency,
        "state": row.state,
        "opened": [row.opened.not_before, row.opened.not_after],
        "final": [row.final.not_before, row.final.not_after] if row.final else None,
        "opened_at": row.opened_at,
        "acknowledged_at": row.acknowledged_at,
        "delivered_at": row.delivered_at,
        "final_at": row.final_at,
        "response_seconds": row.response_seconds,
        "response_seconds_min": row.response_seconds_min,
        "pickup_seconds": row.pickup_seconds,
        "handling_seconds": row.handling_seconds,
        "timeliness": None if row.timeliness is None else row.timeliness.value,
        "outage_seconds": row.outage_seconds,
        "stamped_seconds": row.stamped_seconds,
        "refused_steps": row.refused_steps,
    }


def _line(row: "Response", is_ranked: bool) -> str:
    seconds, least = row.response_seconds, row.response_seconds_min
    if seconds is None:
        answer = "open"
    elif is_ranked or least is None:
        answer = f"{seconds} s"
    else:
        # SPEC [M-6]: with too few witnesses the interval is given, and nobody is ranked by it.
        answer = f"{max(0, least)} to {seconds} s"
    return (
        f"{row.initiator} to {row.responder}  {row.profile:<8} {row.urgency}"
        f"  {answer:>10}  {row.state}"
    )
