"""``comity audit``: the whole log, checked by whoever likes to, with the relay off.

With ``--json`` each finding is one line, and the last line is the answer.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from comity_client.cli.certificate import certificate
from comity_client.cli.shell import FileError, Noun, Shell, read_file

if TYPE_CHECKING:
    from comity_client.audit_fetch import Progress
    from comity_client.audit_findings import Finding
    from comity_client.audit_source import Source
    from comity_protocol.genesis import Genesis
    from comity_protocol.receipts import Signed

_FILE_BYTES_MAX = 4 * 1024 * 1024
_PAUSE_SECONDS_MIN = 1
_STAMPS = b"\xa6atfstamps"
"""How a file of stamps begins in canonical CBOR."""

_GENESIS = click.option(
    "--genesis",
    metavar="HASH|LINE|FILE",
    help="Which deployment you expect: hash of its genesis, line comity:...#..., or a file.",
)
_FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
_PATH = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Noun)
def audit() -> None:
    """Fetch a whole log, check it with the relay off, and watch it.

    Nothing of the relay or of a mirror is believed. The folder is plain C2SP tlog-tiles, so other
    people's tools read it too.

    Exit codes: 0 nothing found, 7 not what it says, 8 copy damaged or incomplete,
    9 misconduct proven, 10 alarm.
    """


audit.add_command(certificate)


@audit.command()
@click.argument("source")
@_FOLDER
@_GENESIS
@click.option("--desk", is_flag=True, help="Also what your own desk is served; needs a profile.")
@click.pass_obj
def fetch(shell: Shell, source: str, folder: Path, genesis: str | None, desk: bool) -> int:
    """Fetch the log of SOURCE, a relay or a mirror, into FOLDER; run it again to go on.

    What was fetched before is kept and never replaced by something else.
    """
    import asyncio

    from comity_client import audit_fetch
    from comity_client.audit_archive import Archive

    archive = Archive(folder)
    pinned = _pinned(genesis) or (shell.read_profile().deployment.genesis_hash if desk else None)
    found: list[Finding] = []

    async def run() -> audit_fetch.Fetched:
        async with _source(source) as opened:
            return await audit_fetch.fetch(
                archive, opened, pinned, report=found.append, progress=_progress(shell)
            )

    fetched = asyncio.run(run())
    objects = _fetch_desk(shell, archive, found) if desk else 0
    _tell(shell, found)
    document = {
        "entries": fetched.size,
        "files": fetched.files,
        "checkpoints": fetched.checkpoints,
        "objects": objects,
        "findings": len(found),
    }
    lines = [f"{fetched.size:,} entries in {folder}, {fetched.files:,} files are new"]
    if desk:
        lines.append(f"{objects:,} objects of your desk are new")
    shell.give("audit-fetch", document, [*lines, _verdict(found)])
    return _exit(found)


@audit.command()
@_FOLDER
@_GENESIS
@click.option("--promise", "promises", type=_PATH, multiple=True, help="A promise to look for.")
@click.option("--receipt", "receipts", type=_PATH, multiple=True, help="A receipt to look for.")
@click.option("--notice", "notices", type=_PATH, multiple=True, help="A notice to look for.")
@click.pass_obj
def verify(
    shell: Shell,
    folder: Path,
    genesis: str | None,
    promises: tuple[Path, ...],
    receipts: tuple[Path, ...],
    notices: tuple[Path, ...],
) -> int:
    """Check FOLDER with everything off: every entry, every tile, every statement.

    Each finding says which file it is about. Without --genesis the hash of the folder's genesis is
    shown; compare it with the one that your State handed out.
    """
    from comity_client.audit_archive import Archive
    from comity_client.audit_verify import Audit, Objects
    from comity_client.cli.online import moment

    objects = Objects(_signed(promises), _signed(receipts), _signed(notices))
    found: list[Finding] = []
    with shell.step("hashing every entry"):
        verified = Audit(Archive(folder), found.append, objects).run(_pinned(genesis))
    _tell(shell, found)
    document = {
        "genesis": verified.genesis_hash.hex(),
        "entries": verified.size,
        "sealed_at": verified.sealed_time,
        "statements": verified.statements,
        "desks": verified.desks,
        "checkpoints": verified.checkpoints,
        "anchors": verified.anchors,
        "objects": verified.objects,
        "whole": verified.is_whole,
        "findings": len(found),
    }
    how = "as you expect" if genesis else "compare it with the one that you were given"
    lines = [
        f"genesis      {verified.genesis_hash.hex()}, {how}",
        f"entries      {verified.size:,}, sealed {moment(verified.sealed_time)}",
        f"statements   {verified.statements:,} of {verified.desks:,} desks",
        f"checkpoints  {verified.checkpoints:,} others, {verified.anchors:,} of them anchors",
        _verdict(found),
    ]
    shell.give("audit", document, lines)
    return _exit(found)


@audit.command()
@click.argument("file", type=_PATH)
@_GENESIS
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="For the genesis.")
@click.option("--core", type=_PATH, help="Core of the envelope that the proof is for.")
@click.option("--entry", metavar="HEX", help="The entry itself, 65 bytes.")
@click.pass_obj
def receipt(
    shell: Shell,
    file: Path,
    genesis: str | None,
    folder: Path | None,
    core: Path | None,
    entry: str | None,
) -> int:
    """Check one proof, a C2SP tlog-proof in FILE, with nothing but the genesis."""
    from comity_client.cli.online import moment
    from comity_protocol.core import core_hash
    from comity_protocol.leaves import envelope_leaf_of
    from comity_protocol.log_proof import LogProof, verify_log_proof
    from comity_protocol.merkle import leaf_hash

    if (core is None) == (entry is None):
        raise click.UsageError("say what the proof is for, with either --core or --entry")
    proof = LogProof.parse(read_file(file, _FILE_BYTES_MAX))
    if core is not None:
        leaf = envelope_leaf_of(core_hash(read_file(core, _FILE_BYTES_MAX)), proof.extra)
    else:
        leaf = _hex(entry or "", "entry")
    pinned = _genesis_of(genesis, folder)
    under = verify_log_proof(proof, leaf_hash(leaf), pinned.log, pinned.quorum)
    names = sorted(one.witness for one in under.cosignatures)
    document = {
        "index": proof.index,
        "size": under.checkpoint.size,
        "sealed_at": under.sealed_time,
        "witnesses": names,
    }
    line = (
        f"entry {proof.index} of {under.checkpoint.size}, {moment(under.sealed_time)}, cosigned by"
        f" {', '.join(names)}"
    )
    shell.give("audit-receipt", document, [line, "verified"])
    return 0


@audit.command()
@click.argument("source")
@_FOLDER
@_GENESIS
@click.option("--every", type=click.IntRange(min=_PAUSE_SECONDS_MIN), default=60, metavar="SECONDS")
@click.option("--rounds", type=click.IntRange(min=1), help="Stop after so many; else go on.")
@click.option("--desk", "desks", multiple=True, metavar="ID", help="Tell each statement of it.")
@click.option("--promise", "promises", type=_PATH, multiple=True, help="A promise to look for.")
@click.pass_obj
def watch(
    shell: Shell,
    source: str,
    folder: Path,
    genesis: str | None,
    every: int,
    rounds: int | None,
    desks: tuple[str, ...],
    promises: tuple[Path, ...],
) -> int:
    """Watch the log of SOURCE, keep it in FOLDER, and say what is wrong as it happens.

    It ends with --rounds or Ctrl-C; the exit code is that of the worst finding.
    """
    import asyncio
    from itertools import count

    from comity_client.audit_archive import Archive
    from comity_client.audit_watch import Watch
    from comity_client.cli.shell import typed_id
    from comity_protocol.identifiers import DeskId

    found: list[Finding] = []
    watched = [DeskId(typed_id(text, "desk")) for text in desks]

    async def run() -> None:
        async with _source(source) as opened:
            watch_ = Watch(Archive(folder), opened, watched, _signed(promises))
            for done in count(1):
                new = await watch_.round(_pinned(genesis), shell.now(), _progress(shell))
                found.extend(new)
                _tell(shell, new)
                if done == rounds:
                    return
                await asyncio.sleep(every)

    asyncio.run(run())
    shell.give("audit-watch", {"findings": len(found)}, [_verdict(found)])
    return _exit(found)


@audit.command()
@_FOLDER
@click.option("--repair", metavar="SOURCE", help="Fetch again what is damaged or missing.")
@click.pass_obj
def fsck(shell: Shell, folder: Path, repair: str | None) -> int:
    """Say which files of FOLDER are damaged or missing; with --repair fetch them again."""
    import asyncio

    from comity_client import audit_repair
    from comity_client.audit_archive import Archive

    archive = Archive(folder)
    found = audit_repair.damage(archive)
    _tell(shell, found)
    repaired: list[str] = []
    if repair and found:

        async def run() -> list[str]:
            async with _source(repair) as opened:
                return await audit_repair.repair(archive, found, opened)

        repaired = asyncio.run(run())
        found = audit_repair.damage(archive)
        _tell(shell, found)
    lines = [*(f"repaired  {name}" for name in repaired), _verdict(found)]
    shell.give("audit-fsck", {"repaired": repaired, "findings": len(found)}, lines)
    return _exit(found)


@audit.command()
@click.argument("file", type=_PATH)
@_GENESIS
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="An audited log, for its genesis and, for a broken promise, its entries.",
)
@click.pass_obj
def evidence(shell: Shell, file: Path, genesis: str | None, folder: Path | None) -> int:
    """Check a file of evidence, or of stamps, as a third party, and say what it proves."""
    from comity_client.audit_archive import Archive
    from comity_client.audit_tree import read_entries
    from comity_protocol.checkpoint import Checkpoint
    from comity_protocol.evidence import BrokenPromise, parse_evidence, verify_evidence
    from comity_protocol.signed_note import parse_note

    data = read_file(file, _FILE_BYTES_MAX)
    if data.startswith(_STAMPS):
        return _give_stamps(shell, data, _genesis_of(genesis, folder))
    parsed = parse_evidence(data)
    entries: Iterable[bytes] = ()
    if isinstance(parsed, BrokenPromise):
        if folder is None:
            raise click.UsageError("a broken promise is shown by all entries: give --folder")
        entries = read_entries(Archive(folder), Checkpoint.parse(parse_note(parsed.note).text).size)
    sentence = verify_evidence(data, _genesis_of(genesis, folder), entries)
    shell.give("audit-evidence", {"evidence": parsed.kind, "text": sentence}, [sentence, "proven"])
    return 0


def _give_stamps(shell: Shell, data: bytes, genesis: "Genesis") -> int:
    """Say what a file of `comity stamp --out` proves."""
    from comity_client.cli.dates import stamped_document, stamped_lines
    from comity_client.cli.exits import Exit
    from comity_client.stamps import read_stamps

    found = read_stamps(data, genesis)
    shell.give(
        "audit-stamps",
        {"stamps": stamped_document([found])},
        [
            f"envelope  {found.envelope.hex()}",
            *stamped_lines([found], found.envelope),
            "proven" if found.at is not None else "not proven",
        ],
    )
    return Exit.OK if found.at is not None else Exit.UNVERIFIED


# --- What the commands share


def _source(url: str) -> "Source":
    from comity_client.audit_source import Source

    try:
        return Source(url)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _hex(text: str, what: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise click.UsageError(f"{what} is not in hexadecimal digits") from error


def _pinned(given: str | None) -> bytes | None:
    """Give the hash of the genesis that somebody named."""
    from comity_client.profile import Deployment
    from comity_protocol.merkle import HASH_BYTES
    from comity_protocol.statements import SignedStatement

    if given is None:
        return None
    if given.startswith("comity:"):
        return Deployment.parse(given).genesis_hash
    if len(given) == 2 * HASH_BYTES and all(digit in "0123456789abcdef" for digit in given):
        return bytes.fromhex(given)
    return SignedStatement.parse(read_file(Path(given), _FILE_BYTES_MAX)).hash


def _genesis_of(given: str | None, folder: Path | None) -> "Genesis":
    """Give the genesis itself, out of a folder or a file."""
    from comity_client.audit_archive import Archive
    from comity_client.audit_fetch import read_genesis
    from comity_protocol.genesis import verify_genesis
    from comity_protocol.statements import SignedStatement

    if folder is not None:
        found = read_genesis(Archive(folder), _pinned(given))
        if found is None:
            raise FileError(f"{folder} has no genesis; fetch the log into it first")
        return found
    if given is None or not Path(given).is_file():
        raise click.UsageError("give the genesis, as a file with --genesis or with --folder")
    return verify_genesis(SignedStatement.parse(read_file(Path(given), _FILE_BYTES_MAX)))


def _signed(paths: Iterable[Path]) -> "dict[str, Signed]":
    from comity_protocol.receipts import Signed

    return {str(path): Signed.parse(read_file(path, _FILE_BYTES_MAX)) for path in paths}


def _fetch_desk(shell: Shell, archive: object, found: "list[Finding]") -> int:
    """Fetch what the profile's own desk is served."""
    import asyncio

    from comity_client.audit_archive import Archive
    from comity_client.audit_desk import MemberRelay, fetch_desk
    from comity_client.audit_fetch import read_genesis
    from comity_client.tokens import TokenMaker

    assert isinstance(archive, Archive)  # noqa: S101  # not imported at the top, for speed
    profile, keys = shell.read_profile(), shell.device_keys()
    genesis = read_genesis(archive, profile.deployment.genesis_hash)
    assert genesis is not None  # noqa: S101  # the log was fetched before
    maker = TokenMaker(keys.device, profile.deployment.id, keys.fast)

    async def run() -> int:
        relay = MemberRelay(profile.deployment.url, maker)
        async with relay:
            return await fetch_desk(archive, relay, genesis, found.append)

    return asyncio.run(run())


def _progress(shell: Shell) -> "Progress":
    shown = 0

    def progress(done: int, of: int) -> None:
        nonlocal shown
        tenth = 10 * done // of if of else 10
        if of > 100 and tenth > shown:  # noqa: PLR2004  # small logs are done at once
            shown = tenth
            shell.hint(f"{done:,} of {of:,} files ...")

    return progress


def _tell(shell: Shell, found: "Iterable[Finding]") -> None:
    """Print each finding: one line of JSON, or one for people."""
    for one in found:
        if shell.is_json:
            click.echo(json.dumps({"version": 1, **one.document()}, ensure_ascii=False))
        else:
            click.echo(f"{one.grade.name.lower():<10}  {one.kind.value}: {one.where}: {one.text}")
            if one.evidence:
                click.echo(f"            evidence: {one.evidence}")


def _verdict(found: "list[Finding]") -> str:
    from comity_client.audit_findings import Grade

    wrong = sum(one.grade > Grade.NOTE for one in found)
    if not wrong:
        return "nothing found"
    return f"{wrong:,} finding{'s' * (wrong > 1)}; docs/AUDITING.md explains each"


def _exit(found: "list[Finding]") -> int:
    from comity_client.audit_findings import Grade, worst
    from comity_client.cli.exits import Exit

    return {
        Grade.NOTE: Exit.OK,
        Grade.ALARM: Exit.ALARM,
        Grade.DAMAGE: Exit.DAMAGED,
        Grade.UNPROVEN: Exit.UNVERIFIED,
        Grade.MISCONDUCT: Exit.MISCONDUCT,
    }[worst(found)]
