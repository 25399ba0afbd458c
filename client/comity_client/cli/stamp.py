"""``comity stamp``: what witnesses say when the relay does not take an act."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from comity_client.cli.shell import Shell, Verb

if TYPE_CHECKING:
    from comity_client.desk import Desk
    from comity_client.stamps import Stamped
    from comity_protocol.identifiers import EnvelopeId


@click.command(cls=Verb)
@click.argument("envelope", required=False)
@click.option("--now", "is_now", is_flag=True, help="Everything that waits, however short.")
@click.option(
    "--witness",
    "urls",
    multiple=True,
    metavar="URL",
    help="Address of a witness that the policy names without one; kept in the profile.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write core and stamps of ENVELOPE to a file that anybody can check.",
)
@click.pass_obj
def stamp(
    shell: Shell, envelope: str | None, is_now: bool, urls: tuple[str, ...], out: Path | None
) -> None:
    """Have the witnesses stamp ENVELOPE, or what waits for the relay for too long.

    Use it when the relay refuses or is away and an act must be in time: the earliest time that
    enough witnesses prove counts. They learn a hash, and nothing of the act. `comity sync` does
    it by itself for whatever waited ten minutes.
    """
    from comity_client.cli.acts import find_envelope
    from comity_client.cli.dates import stamped_document, stamped_lines
    from comity_client.cli.online import with_desk

    if out is not None and envelope is None:
        raise click.UsageError("--out needs ENVELOPE")
    if urls:
        _keep(shell, urls)
    id_ = find_envelope(shell, envelope) if envelope else None

    async def do(desk: "Desk") -> "dict[EnvelopeId, tuple[Stamped, ...]]":
        waiting = [one.envelope for one in desk.queued() if one.stage.value != "rejected"]
        with shell.step("asking the witnesses"):
            if shell.is_offline:
                pass
            elif id_ is None:
                await desk.stamp(waiting if is_now else None)
            else:
                await desk.stamp([one for one in waiting if one == desk.status(id_).envelope])
        if out is not None and id_ is not None:
            _write(desk, id_, out)
        wanted = waiting if id_ is None else [desk.status(id_).envelope]
        return {one: found for one in wanted if (found := desk.stamped(one))}

    found = with_desk(shell, do)
    lines = []
    for one, stamped in found.items():
        lines += [f"envelope  {one.hex()}", *stamped_lines(stamped, one)]
    shell.give(
        "stamps",
        {"stamps": [line for stamped in found.values() for line in stamped_document(stamped)]},
        lines or ["nothing is stamped, and nothing has waited long enough"],
    )
    if out is not None:
        shell.hint(f"wrote {out}: whoever has the genesis can check it")


def _keep(shell: Shell, urls: tuple[str, ...]) -> None:
    from dataclasses import replace

    from comity_client.profile import write_profile

    profile = shell.read_profile()
    kept = tuple(dict.fromkeys((*profile.witnesses, *urls)))
    write_profile(shell.folder, replace(profile, witnesses=kept))


def _write(desk: "Desk", envelope: "EnvelopeId", out: Path) -> None:
    from comity_client.cli.shell import NotFoundError, write_new_file
    from comity_client.stamps import write_stamps

    found = desk.stamped(envelope)
    if not found:
        raise NotFoundError(f"envelope {envelope.hex()[:8]} has no stamps; see `comity status`")
    write_new_file(out, write_stamps(found[-1], desk.genesis))
