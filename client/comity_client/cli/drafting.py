"""What an act says, from options, from a JSON file, or from standard input."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from comity_client.drafts import Draft

Command = TypeVar("Command", bound=Callable[..., object])

_TEXT_BYTES_MAX = 65_536


def draft_options(command: Command) -> Command:
    """Add the options that most acts take."""
    for option in reversed(
        (
            click.option("--reference", metavar="TEXT", help="Your own file number."),
            click.option("--language", metavar="CODE", help="Of the text, such as en or fr."),
            click.option(
                "--offence", "offences", multiple=True, metavar="CODE", help="Such as TIP."
            ),
            click.option(
                "--urgency",
                metavar="CODE",
                help="U0 routine, U1 deadline with a reason, U2 urgent, U3 life or liberty at risk,"
                " U4 vessel or observation running.",
            ),
            click.option("--urgency-reason", metavar="CODE", help="Such as LIFE; with an urgency."),
            click.option(
                "--draft",
                type=click.Path(path_type=Path, dir_okay=False),
                help="JSON file with the fields of the act; options win over it.",
            ),
        )
    ):
        command = option(command)
    return command


def make_draft(text: str | None, file: Path | None, fields: Mapping[str, object]) -> "Draft":
    """Put a draft together.

    Raises:
        DraftError: The file cannot be read as a draft.
    """
    from msgspec.structs import replace

    from comity_client.drafts import Draft, read_draft

    draft = read_draft(file) if file else Draft()
    given = {name: value for name, value in fields.items() if value not in (None, ())}
    if text == "-":
        text = _read_input()
    if text is not None:
        given["text"] = text
    return replace(draft, **given)


def _read_input() -> str:
    data = sys.stdin.buffer.read(_TEXT_BYTES_MAX + 1)
    if len(data) > _TEXT_BYTES_MAX:
        raise click.UsageError(f"text is longer than {_TEXT_BYTES_MAX:,} bytes")
    try:
        return data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise click.UsageError("text is not in UTF-8; save it as UTF-8") from error
