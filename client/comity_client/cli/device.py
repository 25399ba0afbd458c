"""``comity device``: a new device asks to join, is let in, and goes when its officer does."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import click

from comity_client.cli.shell import Noun, Shell, read_file, typed_id, write_new_file

if TYPE_CHECKING:
    from comity_protocol.identifiers import DeviceId


@click.group(cls=Noun)
def device() -> None:
    """New device, admit, remove."""


@device.command("new")
@click.argument("desk")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--deployment", "line", required=True, metavar="LINE", help="comity:<relay>#<hash>.")
@click.option("--role", type=click.Choice(["officer", "admin"]), default="officer")
@click.option("--officer", metavar="ID", help="Yours, if you have a device in this desk already.")
@click.pass_obj
def new_device(
    shell: Shell, desk: str, file: Path, line: str, role: str, officer: str | None
) -> None:
    """Make this device's keys and a request FILE to join DESK (32 hexadecimal digits).

    Give FILE to an admin of the desk and compare the fingerprint by voice.
    """
    from comity_client.cli.enrol import make_device
    from comity_client.profile import Deployment
    from comity_client.words import key_fingerprint
    from comity_protocol.identifiers import DeskId, OfficerId
    from comity_protocol.statements import Role

    deployment = Deployment.parse(line)
    made = make_device(
        shell,
        deployment,
        deployment.id,
        DeskId(typed_id(desk, "desk")),
        role=Role(role),
        officer=OfficerId(typed_id(officer, "officer")) if officer else None,
    )
    write_new_file(file, made.enrolment.serialize())
    fingerprint = key_fingerprint(made.keys.full.public)
    shell.give(
        "enrolment",
        {
            "file": str(file),
            "device": made.keys.device.hex(),
            "officer": made.enrolment.officer.hex(),
            "fingerprint": fingerprint,
            "profile": str(made.folder),
        },
        [
            f"device       {made.keys.device.hex()}",
            f"fingerprint  {fingerprint}",
            f"profile      {made.folder}",
            f"wrote        {file}",
        ],
    )
    shell.hint(f"next: an admin of the desk runs  comity device admit {file} ADMISSION")


@device.command("admit")
@click.argument("request", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--yes", is_flag=True, help="You have compared the fingerprint.")
@click.pass_obj
def admit_device(shell: Shell, request: Path, file: Path, yes: bool) -> None:
    """Make the admission FILE for a REQUEST, and sign it if you are an admin.

    The newcomer signs it too, with `comity sign FILE --publish`: that is the proof that the keys
    are the newcomer's.
    """
    from comity_client.ceremonies import ENROLMENT_BYTES_MAX, Enrolment, admit
    from comity_client.cli.member import sync_member
    from comity_client.pending import Ceremony
    from comity_client.words import describe

    newcomer = Enrolment.parse(read_file(request, ENROLMENT_BYTES_MAX))
    member = sync_member(shell)
    pending = admit(member.genesis, member.desk, newcomer, secret=member.secret)
    lines = describe(pending.payload)
    for line in lines:
        shell.hint(line)
    shell.confirm("admit it; is this the fingerprint that the newcomer reads out", is_given=yes)
    if pending.asks(member.keys.full.public):
        pending = pending.sign(member.keys.full)
    ceremony = Ceremony((pending,))
    write_new_file(file, ceremony.serialize())
    shell.give(
        "ceremony",
        {
            "file": str(file),
            "device": newcomer.device.hex(),
            "complete": ceremony.is_complete,
            "missing": list(ceremony.missing),
        },
        [f"wrote    {file}", f"missing  {', '.join(ceremony.missing)}"],
    )
    shell.hint(f"next: each of them runs  comity sign {file}; the last one adds  --publish")


@device.command("remove")
@click.argument("ids", metavar="DEVICE...", nargs=-1, required=True)
@click.option("--reason", type=click.Choice(["leaver", "lost", "compromised"]), default="leaver")
@click.option("--yes", is_flag=True, help="Do it without being asked.")
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the removal when custodians have to sign it.",
)
@click.pass_obj
def remove_device(
    shell: Shell, ids: tuple[str, ...], reason: str, yes: bool, file: Path | None
) -> None:
    """Remove devices of your desk, by their id or its first eight digits, and begin a new epoch.

    From then on they can read nothing new. An admin, or another device of the same officer, does it
    alone; otherwise the custodians sign.
    """
    from comity_client.ceremonies import remove
    from comity_client.cli.member import publish_signed, sync_member
    from comity_client.pending import Ceremony, CeremonyError
    from comity_client.words import describe
    from comity_protocol.statements import Reason

    member = sync_member(shell)
    if member.secret is None:
        raise CeremonyError("your desk has no epoch yet; run `comity desk start` first")
    gone = [_find(text, member.desk.active.keys()) for text in ids]
    pending, epoch = remove(member.genesis, member.desk, gone, Reason(reason), last=member.secret)
    for line in describe(pending.payload):
        shell.hint(line)
    is_enough = pending.asks(member.keys.full.public)
    if not is_enough and file is None:
        raise CeremonyError(
            "this takes an admin, a device of the same officer, or the custodians;"
            " name a --file for the custodians to sign"
        )
    shell.confirm("remove", is_given=yes)
    document: dict[str, object] = {"removed": [id_.hex() for id_ in gone]}
    if is_enough:
        publish_signed(shell, member, pending.sign(member.keys.full))
        document["epoch"] = epoch.keys.number
        shell.give("removal", document, [f"removed; epoch {epoch.keys.number} begins"])
        return
    assert file is not None  # noqa: S101  # checked above
    write_new_file(file, Ceremony((pending,)).serialize())
    document |= {"file": str(file), "missing": list(pending.missing)}
    shell.give("ceremony", document, [f"wrote    {file}", f"missing  {', '.join(pending.missing)}"])


@device.command("show")
@click.pass_obj
def show_device(shell: Shell) -> None:
    """Show this device and its fingerprint, to be read out to whoever admits it."""
    from comity_client.words import key_fingerprint

    keys = shell.device_keys()
    profile = shell.read_profile()
    fingerprint = key_fingerprint(keys.full.public)
    shell.give(
        "device",
        {
            "device": keys.device.hex(),
            "desk": profile.desk.hex(),
            "fingerprint": fingerprint,
            "deployment": profile.deployment.serialize(),
            "profile": str(shell.folder),
        },
        [
            f"device       {keys.device.hex()}",
            f"desk         {profile.desk.hex()}",
            f"fingerprint  {fingerprint}",
            f"deployment   {profile.deployment.serialize()}",
            f"profile      {shell.folder}",
        ],
    )


def _find(text: str, active: Collection["DeviceId"]) -> "DeviceId":
    from comity_client.cli.known import DIGITS_MIN
    from comity_client.pending import CeremonyError

    found = [id_ for id_ in active if id_.hex().startswith(text.lower())]
    if len(text) < DIGITS_MIN:
        raise CeremonyError(f"{text} is {len(text)} digits of a device, expected {DIGITS_MIN}")
    if len(found) != 1:
        raise CeremonyError(
            f"{len(found)} active devices of your desk begin with {text}, expected one;"
            " see `comity desk show`"
        )
    return found[0]
