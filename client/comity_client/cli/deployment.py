"""``comity deployment``: the genesis that founds a deployment, and the line that names it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from comity_client.cli.shell import FileError, Noun, Shell, read_file, write_new_file
from comity_protocol.limits import STATEMENT_BYTES_MAX, WITNESSES_MAX

if TYPE_CHECKING:
    from comity_client.witness_file import WitnessFile
    from comity_protocol.policy import Policy
    from comity_protocol.signed_note import VerifierKey

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
    metavar="WITNESS",
    help="A witness's witness.json, or its verifier key name+id+key; repeat.",
)
@click.option(
    "--quorum",
    type=click.IntRange(1, WITNESSES_MAX),
    help="How many of these witnesses must have cosigned.",
)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Instead of witnesses and quorum: a C2SP tlog-policy, with groups.",
)
@click.option(
    "--anchors",
    "anchors_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --policy: the same with the witnesses' ML-DSA-44 keys.",
)
@click.pass_obj
def new_deployment(
    shell: Shell,
    file: Path,
    roots: tuple[Path, ...],
    relay_keys: Path,
    witnesses: tuple[str, ...],
    quorum: int | None,
    policy_file: Path | None,
    anchors_file: Path | None,
) -> None:
    """Write the genesis to FILE, for the custodians of every founding State to sign."""
    from comity_client.ceremonies import found
    from comity_client.witness_file import flat_policies
    from comity_client.words import describe
    from comity_protocol.genesis import parse_root

    log, relay_key = _read_relay_keys(relay_keys)
    if policy_file is not None and not witnesses and quorum is None:
        policy = _read_policy(policy_file)
        anchors = None if anchors_file is None else _read_policy(anchors_file)
    elif policy_file is None and anchors_file is None and witnesses and quorum is not None:
        policy, anchors = flat_policies(log, [_witness(text) for text in witnesses], quorum)
    else:
        raise click.UsageError(
            "name the witnesses with --witness and --quorum, or a file with --policy"
        )
    if policy.log != log:
        raise click.UsageError(f"{policy_file} is a policy for another log than {relay_keys}")
    ceremony = found(
        policy=policy,
        anchors=anchors,
        relay_key=relay_key,
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
    from comity_client.words import describe, needed

    chosen = pinned(shell, line)
    signed, genesis = fetch_genesis(shell, chosen)
    shell.give(
        "deployment",
        {
            "link": chosen.serialize(),
            "deployment": genesis.deployment.hex(),
            "origin": genesis.origin,
            "log_key": genesis.log.public_key.hex(),
            "relay_key": genesis.relay_key.hex(),
            "witnesses": [
                {"name": key.name, "key": key.public_key.hex()} for key in genesis.quorum.witnesses
            ],
            "quorum": needed(genesis.quorum),
            "policy": genesis.policy.serialize(),
            "anchors": genesis.anchors.serialize() if genesis.anchors else None,
            "parties": [root.code for root in genesis.roots],
        },
        [chosen.serialize(), *describe(signed.payload)],
    )


def _witness(text: str) -> "WitnessFile":
    """Read a witness's file, or take its verifier key."""
    from comity_client.witness_file import WITNESS_FILE_BYTES_MAX, WitnessFile

    if "+" in text and not Path(text).exists():
        return WitnessFile.of({"verifier_key": text})
    return WitnessFile.parse(read_file(Path(text), WITNESS_FILE_BYTES_MAX))


def _read_policy(path: Path) -> "Policy":
    from comity_protocol.limits import POLICY_BYTES_MAX
    from comity_protocol.policy import Policy

    try:
        return Policy.parse(read_file(path, POLICY_BYTES_MAX).decode())
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not UTF-8, expected a tlog-policy") from error


def _read_relay_keys(path: Path) -> "tuple[VerifierKey, bytes]":
    """Read log key and relay key out of what the relay printed."""
    from comity_protocol.signed_note import VerifierKey

    try:
        keys = json.loads(read_file(path, _RELAY_KEYS_BYTES_MAX))
        return VerifierKey.parse(keys["vkey"]), bytes.fromhex(keys["relay"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path} is not what `comity-relay keys` prints") from error
