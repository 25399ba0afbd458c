"""``comity names`` and ``comity contacts``: what you call other desks, and which there are."""

from dataclasses import replace
from types import MappingProxyType

import click

from comity_client.cli.shell import NotFoundError, Noun, Shell, Verb
from comity_protocol.limits import NAME_BYTES_MAX


@click.group(cls=Noun)
def names() -> None:
    """Your own names for desks. They stay on this device."""


@names.command("add")
@click.argument("name")
@click.argument("desk")
@click.pass_obj
def add_name(shell: Shell, name: str, desk: str) -> None:
    """Call DESK by NAME from now on."""
    from comity_client.cli.known import Known
    from comity_client.profile import write_profile
    from comity_protocol.fields import text_of

    text_of(name, "name", bytes_max=NAME_BYTES_MAX)
    with Known.open(shell) as known:
        id_ = known.find(desk)
        profile = known.profile
    if any(called == name and other != id_ for other, called in profile.names.items()):
        raise click.UsageError(f"another desk is called {name!r}; choose another name")
    write_profile(
        shell.folder, replace(profile, names=MappingProxyType({**profile.names, id_: name}))
    )
    shell.give("name", {"name": name, "desk": id_.hex()}, [f"{id_.hex()} is now {name}"])


@names.command("remove")
@click.argument("name")
@click.pass_obj
def remove_name(shell: Shell, name: str) -> None:
    """Forget NAME."""
    from comity_client.profile import write_profile

    profile = shell.read_profile()
    rest = {desk: called for desk, called in profile.names.items() if called != name}
    if len(rest) == len(profile.names):
        raise NotFoundError(f"no desk is called {name!r}; see `comity names list`")
    write_profile(shell.folder, replace(profile, names=MappingProxyType(rest)))
    shell.give("name", {"name": name}, [f"forgot {name}"])


@names.command("list")
@click.pass_obj
def list_names(shell: Shell) -> None:
    """List your names."""
    profile = shell.read_profile()
    pairs = sorted(profile.names.items(), key=lambda pair: pair[1].casefold())
    shell.give(
        "names",
        {"names": [{"name": name, "desk": desk.hex()} for desk, name in pairs]},
        [f"{name:<24} {desk.hex()}" for desk, name in pairs] or ["no names yet"],
    )


@click.command(cls=Verb)
@click.pass_obj
def contacts(shell: Shell) -> None:
    """List the desks of this deployment, as last synchronised."""
    from comity_client.cli.known import Known

    with Known.open(shell) as known:
        desks = sorted(known.desks.values(), key=lambda desk: (desk.party, desk.authority.value))
        rows = [
            {
                "desk": desk.id.hex(),
                "name": known.profile.names.get(desk.id),
                "party": desk.party,
                "authority": desk.authority.value,
                "own": desk.id == known.profile.desk,
                "sealable": desk.is_sealable,
            }
            for desk in desks
        ]
    lines = [
        f"{row['party']}/{row['authority']:<18} {row['desk']}  {row['name'] or ''}"
        f"{'(you)' if row['own'] else ''}"
        f"{'' if row['sealable'] else '  cannot be written to: no valid keys'}".rstrip()
        for row in rows
    ]
    shell.give("contacts", {"desks": rows}, lines or ["no desks known; run `comity sync`"])
