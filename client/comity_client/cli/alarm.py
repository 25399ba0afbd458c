"""``comity alarm``: what must not have happened, and the files that prove it to others."""

from pathlib import Path
from typing import Final

import click

from comity_client.cli.shell import NotFoundError, Noun, Shell

EVIDENT: Final = ("fork", "broken-promise")
"""Alarms whose evidence convinces a stranger."""


@click.group(cls=Noun)
def alarm() -> None:
    """List alarms, export their evidence."""


@alarm.command("list")
@click.pass_obj
def list_alarms(shell: Shell) -> None:
    """List every alarm. Needs no passphrase and no network."""
    from comity_client.cli.known import Known
    from comity_client.cli.online import moment

    with Known.open(shell) as known:
        alarms = known.state.alarms()
    shell.give(
        "alarms",
        {
            "alarms": [
                {
                    "number": one.id,
                    "kind": one.kind,
                    "text": one.text,
                    "noticed_at": one.noticed_at,
                    "evident": one.kind in EVIDENT,
                }
                for one in alarms
            ]
        },
        [f"{one.id:>4}  {moment(one.noticed_at)}  {one.kind:<14} {one.text}" for one in alarms]
        or ["none"],
    )


@alarm.command("export")
@click.argument("number", type=click.IntRange(1))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def export_alarm(shell: Shell, number: int, file: Path) -> None:
    """Write the evidence of alarm NUMBER to FILE. Needs no passphrase and no network.

    Of a fork and a broken promise it convinces whoever has the genesis and the log, with `comity
    audit evidence FILE`. Of other alarms it is what this device relies on, for your administrator.
    """
    from comity_client.cli.known import Known
    from comity_client.cli.shell import write_new_file

    with Known.open(shell) as known:
        found = next((one for one in known.state.alarms() if one.id == number), None)
    if found is None:
        raise NotFoundError(f"there is no alarm {number}; see `comity alarm list`")
    write_new_file(file, found.evidence)
    is_evident = found.kind in EVIDENT
    shell.give(
        "alarm",
        {"number": number, "kind": found.kind, "file": str(file), "evident": is_evident},
        [f"wrote {file}: {found.kind}, {found.text}"],
    )
    shell.hint(
        f"anybody can check it with  comity audit evidence {file}"
        if is_evident
        else "this convinces nobody by itself; give it to your administrator"
    )
