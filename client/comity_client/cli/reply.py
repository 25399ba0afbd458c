"""What a desk may say in an exchange that is open: acknowledge, consult, answer, refuse, close."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from comity_client.cli.drafting import draft_options, make_draft
from comity_client.cli.shell import Shell, Verb

if TYPE_CHECKING:
    from comity_client.desk import Desk
    from comity_protocol.identifiers import EnvelopeId


@click.command(cls=Verb)
@click.argument("exchange")
@click.option("--authority", metavar="TEXT", help="Which authority is competent.")
@draft_options
@click.pass_obj
def ack(shell: Shell, /, exchange: str, draft: Path | None, **fields: object) -> int:
    """Acknowledge EXCHANGE and name the competent authority (UNTOC art. 18(13))."""
    return _reply(shell, "ack", exchange, None, draft, fields)


@click.command(cls=Verb)
@click.argument("exchange")
@click.argument("text", required=False)
@click.option(
    "--topic",
    metavar="CODE",
    help="REFUSE, POSTPONE, CONDITION, COST, CONFIDENTIALITY or TRANSLATION.",
)
@draft_options
@click.pass_obj
def consult(
    shell: Shell, /, exchange: str, text: str | None, draft: Path | None, **fields: object
) -> int:
    """Consult in EXCHANGE, as is owed before a refusal (UNTOC art. 18(26))."""
    return _reply(shell, "consult", exchange, text, draft, fields)


@click.command(cls=Verb)
@click.argument("exchange")
@click.argument("text", required=False)
@click.option("--outcome", "outcomes", multiple=True, metavar="CODE", help="One for each item.")
@draft_options
@click.pass_obj
def answer(
    shell: Shell, /, exchange: str, text: str | None, draft: Path | None, **fields: object
) -> int:
    """Answer EXCHANGE. TEXT may be - for standard input."""
    return _reply(shell, "answer", exchange, text, draft, fields)


@click.command(cls=Verb)
@click.argument("exchange")
@click.argument("text", required=False)
@click.option(
    "--ground",
    "grounds",
    multiple=True,
    metavar="CODE",
    help="N01 to N22, explained in docs/CODES.md; repeat.",
)
@draft_options
@click.pass_obj
def refuse(
    shell: Shell, /, exchange: str, text: str | None, draft: Path | None, **fields: object
) -> int:
    """Refuse EXCHANGE, with a ground and with reasons (UNTOC art. 18(21), 18(23))."""
    return _reply(shell, "refuse", exchange, text, draft, fields)


@click.command(cls=Verb)
@click.argument("exchange")
@click.argument("text", required=False)
@draft_options
@click.pass_obj
def add(
    shell: Shell, /, exchange: str, text: str | None, draft: Path | None, **fields: object
) -> int:
    """Add something to an open lead."""
    return _reply(shell, "lead", exchange, text, draft, fields)


@click.command(cls=Verb)
@click.argument("exchange")
@click.argument("text", required=False)
@draft_options
@click.pass_obj
def close(
    shell: Shell, /, exchange: str, text: str | None, draft: Path | None, **fields: object
) -> int:
    """Close EXCHANGE, which was answered or refused."""
    return _reply(shell, "close", exchange, text, draft, fields)


def _reply(
    shell: Shell,
    event: str,
    exchange: str,
    text: str | None,
    draft: Path | None,
    fields: Mapping[str, object],
) -> int:
    from comity_client.cli.online import find_exchange, send
    from comity_protocol.acts import Event

    said = make_draft(text, draft, fields)

    def seal(desk: "Desk") -> "EnvelopeId":
        return desk.act(find_exchange(desk, exchange), Event(event), said)

    return send(shell, seal)
