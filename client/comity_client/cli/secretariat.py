"""``comity secretariat``: how long requests took to be answered."""

from typing import TYPE_CHECKING

import click

from comity_client.cli.shell import Shell, Verb

if TYPE_CHECKING:
    from comity_client.desk import Desk
    from comity_protocol.counting import Response


@click.command(cls=Verb)
@click.pass_obj
def secretariat(shell: Shell) -> None:
    """Say how long requests took to be answered, open ones included."""
    from comity_client.cli.online import with_desk
    from comity_client.secretariat import responses
    from comity_protocol.counting import digest_of
    from comity_protocol.keys import fingerprint

    async def do(desk: "Desk") -> "tuple[Response, ...]":
        with shell.step("fetching audit records"):
            if not shell.is_offline:
                await desk.sync()
                await desk.fetch()
            return await responses(desk)

    rows = with_desk(shell, do)
    shell.give(
        "response-times",
        {"digest": digest_of(rows).hex(), "responses": [_row(row) for row in rows]},
        [*(_line(row) for row in rows), f"digest  {fingerprint(digest_of(rows))}"],
    )
    if not rows:
        shell.hint(
            "no records: no desk that names this one as its auditor has written or answered yet"
        )


def _row(row: "Response") -> dict[str, object]:
    return {
        "exchange": row.exchange.hex(),
        "profile": row.profile,
        "initiator": row.initiator,
        "responder": row.responder,
        "urgency": row.urgency,
        "state": row.state,
        "opened_at": row.opened_at,
        "acknowledged_at": row.acknowledged_at,
        "final_at": row.final_at,
        "response_seconds": row.response_seconds,
        "refused_steps": row.refused_steps,
    }


def _line(row: "Response") -> str:
    seconds = row.response_seconds
    answer = "open" if seconds is None else f"{seconds} s"
    return (
        f"{row.initiator} to {row.responder}  {row.profile:<8} {row.urgency}"
        f"  {answer:>10}  {row.state}"
    )
