"""``comity root``: a State's custodians. Their keys decide who its desks are."""

from pathlib import Path

import click

from comity_client.cli.shell import FileError, Noun, Shell, read_file, write_new_file
from comity_protocol.limits import CUSTODIANS_MAX


@click.group(cls=Noun)
def root() -> None:
    """A State's custodians."""


@root.command("custodian")
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.pass_obj
def new_custodian(shell: Shell, name: str, folder: Path) -> None:
    """Make one custodian's key, on the custodian's own machine.

    Writes NAME.key, which stays with the custodian, and NAME.custodian, which goes to whoever
    makes the root.
    """
    public = _make(shell, name, folder, None)
    shell.give(
        "custodian",
        {"name": name, "key": f"{name}.key", "public": f"{name}.custodian", **_show(public)},
        [
            f"wrote {folder / name}.key (secret: stays with the custodian)",
            f"wrote {folder / name}.custodian (public)",
            f"fingerprint {_show(public)['fingerprint']}",
        ],
    )


@root.command("new")
@click.argument("code")
@click.option("--new", "names", multiple=True, metavar="NAME", help="Make this custodian here.")
@click.option(
    "--custodian",
    "publics",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="NAME.custodian file of a custodian who made the key elsewhere.",
)
@click.option("--threshold", type=click.IntRange(1, CUSTODIANS_MAX), required=True)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option(
    "--new-passphrase-file",
    "passphrases",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="One for each --new, in the same order; otherwise each is asked for.",
)
@click.pass_obj
def new_root(
    shell: Shell,
    code: str,
    names: tuple[str, ...],
    publics: tuple[Path, ...],
    threshold: int,
    folder: Path,
    passphrases: tuple[Path, ...],
) -> None:
    """Make the root of the State or organisation CODE: who decides, and how many of them.

    Writes CODE.root and, for each --new, CODE-NAME.key with its own passphrase.
    """
    from comity_client import ceremonies
    from comity_client.words import describe_root
    from comity_protocol.keys import FULL_PUBLIC_BYTES

    if passphrases and len(passphrases) != len(names):
        raise click.UsageError(
            f"{len(passphrases)} passphrase files for {len(names)} new custodians, expected one"
            " each"
        )
    if (folder / f"{code}.root").exists():
        raise FileError(f"{folder / code}.root is there already; a root is made once")
    given = [
        ceremonies.Custodian.parse(read_file(path, ceremonies.CUSTODIAN_FILE_BYTES_MAX)).full
        for path in publics
    ]
    # A rehearsal with other keys: no key file is written for a root that cannot be.
    stand_ins = [bytes([number]) * FULL_PUBLIC_BYTES for number in range(len(given) + len(names))]
    ceremonies.new_root(code, threshold, stand_ins)
    made = [
        _make(shell, f"{code}-{name}", folder, passphrases[number] if passphrases else None)
        for number, name in enumerate(names)
    ]
    state_root = ceremonies.new_root(code, threshold, [*given, *made])
    write_new_file(folder / f"{code}.root", state_root.serialize())
    shell.give(
        "root",
        {
            "code": code,
            "threshold": threshold,
            "file": str(folder / f"{code}.root"),
            "custodians": [_show(public)["fingerprint"] for public in state_root.custodians],
        },
        [f"wrote {folder / code}.root", *describe_root(state_root)],
    )


@root.command("show")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def show_root(shell: Shell, file: Path) -> None:
    """Show who decides for a State."""
    from comity_client.words import describe_root
    from comity_protocol.genesis import parse_root
    from comity_protocol.limits import STATEMENT_BYTES_MAX

    state_root = parse_root(read_file(file, STATEMENT_BYTES_MAX))
    shell.give(
        "root",
        {
            "code": state_root.code,
            "threshold": state_root.threshold,
            "custodians": [_show(public)["fingerprint"] for public in state_root.custodians],
        },
        describe_root(state_root),
    )


def _make(shell: Shell, name: str, folder: Path, passphrase_file: Path | None) -> bytes:
    """Make a custodian's key and its public file; give the public key."""
    from comity_client.ceremonies import Custodian
    from comity_client.keystore import CustodianKey, write_keys

    path = folder / f"{name}.key"
    if path.exists():
        raise FileError(f"{path} is there already; a key is never made twice under one name")
    passphrase = shell.new_passphrase(f"custodian {name}", passphrase_file)
    key = CustodianKey.generate()
    folder.mkdir(parents=True, exist_ok=True)
    with shell.step("making the key store"):
        write_keys(path, key, passphrase, shell.key_store_cost())
    write_new_file(folder / f"{name}.custodian", Custodian(name, key.full.public).serialize())
    return key.full.public


def _show(public: bytes) -> dict[str, str]:
    from comity_client.words import key_fingerprint
    from comity_protocol.keys import key_id

    return {"id": key_id(public).hex(), "fingerprint": key_fingerprint(public)}
