"""``comity completion``: the script that teaches a shell to complete commands and options."""

import click

from comity_client.cli.shell import Shell, Verb


@click.command(
    cls=Verb,
    epilog="\b\nbash   comity completion bash > ~/.local/share/bash-completion/completions/comity\n"
    "zsh    comity completion zsh > ~/.zfunc/_comity\n"
    "fish   comity completion fish > ~/.config/fish/completions/comity.fish",
)
@click.argument("name", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_obj
def completion(shell: Shell, name: str) -> None:
    """Print the completion script for SHELL."""
    from click.shell_completion import get_completion_class

    from comity_client.cli import comity

    kind = get_completion_class(name)
    if kind is None:
        raise click.UsageError(f"no completion for {name}")
    source = kind(comity, {}, "comity", "_COMITY_COMPLETE").source()
    shell.give("completion", {"shell": name, "script": source}, [source])
