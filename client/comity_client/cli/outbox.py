"""``comity outbox`` and ``comity status``: what is on its way, and how far it came."""

from typing import TYPE_CHECKING

import click

from comity_client.cli.shell import Shell, Verb

if TYPE_CHECKING:
    from comity_client.desk import Desk
    from comity_client.envelopes import Status

_LINES_MAX = 10_000


@click.command(cls=Verb)
@click.option("--limit", type=click.IntRange(1, _LINES_MAX), default=100, show_default=True)
@click.pass_obj
def outbox(shell: Shell, limit: int) -> None:
    """List what this device sent, the newest last. Needs no passphrase and no network."""
    from comity_client.cli.known import Known
    from comity_client.glance import outbox as look

    with Known.open(shell) as known:
        found = look(known.state, limit=limit)[::-1]
        lines = [
            f"{one.envelope.hex()[:8]}  {one.stage:<9} {one.event:<8} to"
            f" {known.name(one.receiver):<24} exchange {one.exchange.hex()[:8]}"
            f"{f'  problem: {one.problem}' if one.problem else ''}"
            for one in found
        ]
    document = {
        "envelopes": [
            {
                "envelope": one.envelope.hex(),
                "receiver": one.receiver.hex(),
                "exchange": one.exchange.hex(),
                "event": one.event,
                "stage": one.stage,
                "problem": one.problem,
            }
            for one in found
        ]
    }
    shell.give("outbox", document, lines or ["nothing was sent from this device"])


@click.command(cls=Verb)
@click.argument("envelope")
@click.option(
    "--until",
    type=click.Choice(["sealed", "stored"]),
    help="Ask the relay until it has come so far, for at most 60 seconds.",
)
@click.pass_obj
def status(shell: Shell, envelope: str, until: str | None) -> int:
    """Say how far ENVELOPE is proven to have come.

    Without --until it asks nobody: it tells what the last `comity sync` brought.
    """
    from comity_client.cli.acts import find_envelope
    from comity_client.cli.dates import (
        stamped_document,
        stamped_lines,
        times_document,
    )
    from comity_client.cli.online import (
        exit_of_status,
        status_document,
        status_lines,
        wait_until,
        with_desk,
    )

    id_ = find_envelope(shell, envelope)

    async def do(desk: "Desk") -> "tuple[Status, dict[str, object], list[str]]":
        if until is not None:
            await wait_until(shell, desk, id_, until)
        found, stamped = desk.status(id_), desk.stamped(id_)
        times = desk.times().get(found.envelope)
        document = {
            **status_document(found),
            **times_document(times),
            "stamps": stamped_document(stamped),
        }
        lines = [*status_lines(found, times), *stamped_lines(stamped, found.envelope)]
        return found, document, lines

    found, document, lines = with_desk(shell, do)
    shell.give("status", document, lines)
    return exit_of_status(found)
