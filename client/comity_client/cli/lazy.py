"""Commands that are imported when they are called, and help that needs no import at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import click


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command is and what the list of commands says of it.

    Attributes:
        target: ``module:attribute`` of the click command.
        help: One line for the list.
        section: The heading under which it is listed.
    """

    target: str
    help: str
    section: str = "Commands"

    @property
    def module(self) -> str:
        """The module that holds the command."""
        return self.target.partition(":")[0]

    def load(self) -> click.Command:
        """Import the command."""
        module, _, attribute = self.target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101  # the table names commands only
        return command


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the one that is called."""

    entries: Mapping[str, Entry]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the commands that this installation has, in the table's order."""
        del ctx
        return [name for name, entry in self.entries.items() if _is_there(entry.module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None when there is none of this name."""
        del ctx
        entry = self.entries.get(cmd_name)
        return entry.load() if entry and _is_there(entry.module) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was asked for, or say which one may have been meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches  # only after a slip

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            text = f"there is no command {args[0]!r}"
            raise click.UsageError(
                f"{text}; did you mean {near[0]!r}?" if near else text, ctx
            ) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, without importing any."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            entry = self.entries[name]
            sections.setdefault(entry.section, []).append((name, entry.help))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def _is_there(module: str) -> bool:
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return False
    # A folder without __init__.py has a specification but no origin.
    return spec is not None and spec.origin is not None
