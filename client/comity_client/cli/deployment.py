"""``comity deployment``: the genesis that founds a deployment, and the line that names it."""

import json
from pathlib import Path

import click

from comity_client.cli.shell import FileError, Noun, Shell, read_file, write_new_file
from comity_protocol.limits import STATEMENT_BYTES_MAX, WITNESSES_MAX

_RELAY_KEYS_BYTES_MAX = 4_096


@click.group(cls=Noun)
def deployment() -> None:
    """Found a deployment, and show one."""


@deployment.command("new")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--root",
    "roots",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="CODE.root file of a founding State; repeat.",
)
@click.option(
    "--relay-keys",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="What `comity-relay keys` printed, as a file.",
)
@click.option(
    "--witness",
    "witnesses",
    multiple=True,
    required=True,
    metavar="VKEY",
    help="Verifier key of a witness, name+id+key; repeat.",
)
@click.option("--quorum", type=click.IntRange(1, WITNESSES_MAX), required=True)
@click.pass_obj
def new_deployment(
    shell: Shell,
    file: Path,
    roots: tuple[Path, ...],
    relay_keys: Path,
    witnesses: tuple[str, ...],
    quorum: int,
) -> None:
    """Write the genesis to FILE, for the custodians of every founding State to sign."""
    from comity_client.ceremonies import found
    from comity_client.words import describe
    from comity_protocol.genesis import parse_root

    origin, log_key, relay_key = _read_relay_keys(relay_keys)
    ceremony = found(
        origin=origin,
        log_key=log_key,
        relay_key=relay_key,
        witnesses=[_witness(text) for text in witnesses],
        quorum=quorum,
        roots=[parse_root(read_file(path, STATEMENT_BYTES_MAX)) for path in roots],
    )
    write_new_file(file, ceremony.serialize())
    shell.give(
        "ceremony",
        {"file": str(file), "missing": list(ceremony.missing)},
        [
            f"wrote {file}",
            *describe(ceremony.items[0].payload),
            f"missing: {', '.join(ceremony.missing)}",
        ],
    )
    shell.hint(f"next: each of them runs  comity sign {file} --key CUSTODIAN.key")


@deployment.command("link")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--relay", required=True, metavar="URL", help="Address of the relay, https.")
@click.pass_obj
def link(shell: Shell, file: Path, relay: str) -> None:
    """Give the line by which newcomers join, from a signed genesis.

    Hand it over by a channel that is not the relay: all trust begins with it.
    """
    from comity_client.profile import Deployment
    from comity_protocol.errors import MalformedError
    from comity_protocol.genesis import verify_genesis
    from comity_protocol.statements import SignedStatement

    try:
        signed = SignedStatement.parse(read_file(file, 4 * STATEMENT_BYTES_MAX))
    except MalformedError as error:
        raise click.UsageError(
            f"{file} is not a signed genesis; name the FILE.signed that the last signature wrote"
        ) from error
    verify_genesis(signed)
    line = Deployment(relay.rstrip("/"), signed.hash).serialize()
    shell.give("deployment-link", {"link": line}, [line])


@deployment.command("show")
@click.argument("line", required=False)
@click.pass_obj
def show(shell: Shell, line: str | None) -> None:
    """Show the deployment that LINE names, or the profile's, as its relay serves it."""
    from comity_client.cli.relay import fetch_genesis, pinned
    from comity_client.words import describe

    chosen = pinned(shell, line)
    signed, genesis = fetch_genesis(shell, chosen)
    shell.give(
        "deployment",
        {
            "link": chosen.serialize(),
            "deployment": genesis.deployment.hex(),
            "origin": genesis.origin,
            "log_key": genesis.log_key.hex(),
            "relay_key": genesis.relay_key.hex(),
            "witnesses": [{"name": name, "key": key.hex()} for name, key in genesis.witnesses],
            "quorum": genesis.quorum,
            "parties": [root.code for root in genesis.roots],
        },
        [chosen.serialize(), *describe(signed.payload)],
    )


def _witness(text: str) -> tuple[str, bytes]:
    from comity_protocol.signed_note import KeyType, VerifierKey

    key = VerifierKey.parse(text)
    if key.type is not KeyType.COSIGNATURE_V1:
        raise click.UsageError(f"{key.name} is a log's key, expected a witness's")
    return key.name, key.public_key


def _read_relay_keys(path: Path) -> tuple[str, bytes, bytes]:
    """Read origin, log key and relay key out of what the relay printed."""
    try:
        keys = json.loads(read_file(path, _RELAY_KEYS_BYTES_MAX))
        return str(keys["origin"]), bytes.fromhex(keys["log"]), bytes.fromhex(keys["relay"])
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} is not what `comity-relay keys` prints") from error
