"""``comity lead`` and ``comity request``: what opens an exchange."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from comity_client.cli.drafting import draft_options, make_draft
from comity_client.cli.shell import Shell, Verb

if TYPE_CHECKING:
    from comity_client.desk import Desk
    from comity_protocol.identifiers import EnvelopeId


_REQUEST = """\b
A file to start from; docs/CODES.md has the measures:
{"reference": "XA-1", "language": "en", "basis": ["UNTOC18"], "offences": ["TIP"],
 "urgency": "U0", "authority": "who conducts it", "proceeding": "its subject",
 "facts": "a summary", "items": [{"measure": "M14", "wanted": "what exactly"}],
 "persons": [{"role": "SUSPECT", "known": "what is known"}],
 "purpose": "what for", "cases": 1, "victims": 0, "children": "UNKNOWN",
 "handling": {"purpose": "THIS_INVESTIGATION", "evidence": "YES",
              "onward": "AUTHORITY"}}
"""


@click.command(cls=Verb)
@click.argument("to")
@click.argument("text", required=False)
@draft_options
@click.pass_obj
def lead(shell: Shell, /, to: str, text: str | None, draft: Path | None, **fields: object) -> int:
    """Send an informal lead to the desk TO. TEXT may be - for standard input.

    TO is your name for the desk, PARTY or PARTY/authority, or the first digits of its id.
    """
    from comity_client.cli.online import find_to, send

    said = make_draft(text, draft, fields)

    def seal(desk: "Desk") -> "EnvelopeId":
        return desk.lead(find_to(desk, to), said)

    return send(shell, seal)


@click.command(cls=Verb, epilog=_REQUEST)
@click.argument("to")
@click.argument("draft", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def request(shell: Shell, to: str, draft: Path) -> int:
    """Send a formal request (UNTOC art. 18) to the desk TO, from a JSON file.

    The file has the fields of art. 18(15): reference, language, basis, offences, urgency,
    authority, proceeding, facts, items, persons, purpose, handling.
    """
    from comity_client.cli.online import find_to, send

    said = make_draft(None, draft, {})

    def seal(desk: "Desk") -> "EnvelopeId":
        return desk.request(find_to(desk, to), said)

    return send(shell, seal)
