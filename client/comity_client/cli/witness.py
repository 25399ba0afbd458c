"""``comity witness``: the witness's own options, handed on as they are."""

import click

from comity_client.cli.shell import Shell


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def witness(shell: Shell, arguments: tuple[str, ...]) -> int:
    """Run a witness."""
    from comity_client.witness_program import main

    return main(arguments, shell.now)
