"""``comity sign`` and ``comity publish``: one signature after the other, then to the relay.

What is signed is shown in words first, made from the very bytes that are signed.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from comity_client.cli.shell import Shell, Verb, read_file

if TYPE_CHECKING:
    from comity_client.pending import Ceremony
    from comity_client.profile import Deployment
    from comity_protocol.keys import FullKey
    from comity_protocol.statements import SignedStatement


@click.command(cls=Verb)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A custodian's key file. Default: the profile's device.",
)
@click.option("--show", is_flag=True, help="Only show what it says and who is missing.")
@click.option("--yes", is_flag=True, help="Sign without being asked.")
@click.option(
    "--merge",
    "copies",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take over the signatures of a copy that others signed.",
)
@click.option("--publish", "is_publishing", is_flag=True, help="Publish when nobody is missing.")
@click.option("--deployment", "line", metavar="LINE", help="comity:<relay>#<hash>, to publish.")
@click.pass_obj
def sign(
    shell: Shell,
    file: Path,
    key: Path | None,
    show: bool,
    yes: bool,
    copies: tuple[Path, ...],
    is_publishing: bool,
    line: str | None,
) -> None:
    """Show what FILE says, ask, and add your signature to it.

    When a genesis is complete, FILE.signed is written beside it, for `comity-relay init`.
    """
    ceremony = _read(file)
    for copy in copies:
        ceremony = ceremony.merge(_read(copy))
    lines = _describe(ceremony)
    if show:
        shell.give("ceremony", _document(file, ceremony), [*lines, _missing(ceremony)])
        return
    if not copies or key is not None:
        for text in lines:
            shell.hint(text)
        shell.confirm("sign this", is_given=yes)
        ceremony = _sign(shell, ceremony, key)
    _replace(file, ceremony)
    told = [f"signed {file}", _missing(ceremony)]
    if ceremony.is_complete and (signed := _genesis(ceremony)) is not None:
        told.append(f"wrote {_write_signed(file, signed)}")
    elif ceremony.is_complete and is_publishing:
        told.append(_publish(shell, ceremony, line))
    shell.give("ceremony", _document(file, ceremony), told)


@click.command(cls=Verb)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--deployment", "line", metavar="LINE", help="Default: the profile's.")
@click.pass_obj
def publish(shell: Shell, file: Path, line: str | None) -> None:
    """Post the statements of a fully signed FILE to the relay."""
    ceremony = _read(file)
    text = _publish(shell, ceremony, line)
    shell.give("published", _document(file, ceremony), [text])


def _read(file: Path) -> "Ceremony":
    from comity_client.pending import FILE_BYTES_MAX, Ceremony

    return Ceremony.parse(read_file(file, FILE_BYTES_MAX))


def _replace(file: Path, ceremony: "Ceremony") -> None:
    from comity_client.files import write_private

    write_private(file, ceremony.serialize())


def _describe(ceremony: "Ceremony") -> list[str]:
    from comity_client.words import describe

    count = len(ceremony.items)
    lines: list[str] = []
    for number, item in enumerate(ceremony.items, 1):
        heading, *rest = describe(item.payload)
        lines += [f"{number} of {count}: {heading}" if count > 1 else heading, *rest]
    return lines


def _missing(ceremony: "Ceremony") -> str:
    if ceremony.is_complete:
        return "nobody is missing"
    return f"missing: {', '.join(ceremony.missing)}"


def _document(file: Path, ceremony: "Ceremony") -> dict[str, object]:
    from comity_client.words import describe

    return {
        "file": str(file),
        "complete": ceremony.is_complete,
        "missing": list(ceremony.missing),
        "statements": [
            {
                "says": describe(item.payload)[0],
                "signers": [signer.hex() for signer, _ in item.signatures],
            }
            for item in ceremony.items
        ],
    }


def _sign(shell: Shell, ceremony: "Ceremony", key: Path | None) -> "Ceremony":
    from comity_client.keystore import read_custodian_key

    if key is not None:
        passphrase = shell.passphrase(f"custodian {key.stem}")
        with shell.step("opening the key store"):
            full = read_custodian_key(key, passphrase).full
        return ceremony.sign(full)
    keys = shell.device_keys()
    _check_own_admission(ceremony, keys.full, keys.fast.public, keys.seal.public)
    return ceremony.sign(keys.full)


def _check_own_admission(ceremony: "Ceremony", full: "FullKey", fast: bytes, seal: bytes) -> None:
    """Refuse to sign an admission of this device with somebody else's keys in it.

    Stops whoever prepares the file from reading what is sealed to the newcomer.
    """
    from comity_protocol.errors import VerificationError
    from comity_protocol.statements import DeviceStatement, parse_statement

    for item in ceremony.items:
        if not item.asks(full.public):
            continue
        statement = parse_statement(item.payload)
        if (
            isinstance(statement, DeviceStatement)
            and statement.full == full.public
            and (statement.fast, statement.seal) != (fast, seal)
        ):
            raise VerificationError(
                "this admission of your device names keys that are not your device's"
            )


def _genesis(ceremony: "Ceremony") -> "SignedStatement | None":
    from comity_client.words import describe

    (signed, *rest) = ceremony.finish()
    return signed if not rest and describe(signed.payload)[0].startswith("genesis") else None


def _write_signed(file: Path, signed: "SignedStatement") -> Path:
    from comity_client.files import write_private

    path = file.with_name(f"{file.name}.signed")
    write_private(path, signed.serialize())
    return path


def _publish(shell: Shell, ceremony: "Ceremony", line: str | None) -> str:
    from comity_client.cli.relay import fetch_genesis, pinned, post

    statements = ceremony.finish()
    chosen: Deployment = pinned(shell, line)
    _, genesis = fetch_genesis(shell, chosen)
    post(shell, chosen, genesis, statements)
    count = len(statements)
    what = "1 statement" if count == 1 else f"{count} statements"
    return f"published {what}; the relay promised to log {'it' if count == 1 else 'them'}"
