"""``comity audit certificate``: one act and its time, for a court that has no account.

It is made by a desk that holds the act, and checked by anybody, out of the certificate, the page
or the attachment of the paper.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from comity_client.cli.shell import FileError, Shell, Verb, read_file, write_new_file
from comity_protocol.limits import CERTIFICATE_BYTES_MAX

if TYPE_CHECKING:
    from comity_client.certificate.check import Checked
    from comity_client.desk import Desk

_PAGE_BYTES_MAX = 4 * CERTIFICATE_BYTES_MAX
"""A page holds a certificate in base64, its text once more, and a program."""

_LANGUAGES = ("en", "fr", "es", "pt", "ar")
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Verb)
@click.argument("source", metavar="ENVELOPE|FILE")
@click.option(
    "--open", "is_open", is_flag=True, help="Let whoever holds it read the act, for ever."
)
@click.option("--language", type=click.Choice(_LANGUAGES), default="en", show_default=True)
@click.option("--certificate", "plain", type=_FILE, help="Write the certificate alone.")
@click.option("--html", type=_FILE, help="Write a page that verifies itself in a browser.")
@click.option("--pdf", type=_FILE, help="Write a paper with all of it attached.")
@click.option("--genesis", metavar="HASH|LINE", help="For FILE: which deployment you expect.")
@click.pass_obj
def certificate(
    shell: Shell,
    source: str,
    is_open: bool,
    language: str,
    plain: Path | None,
    html: Path | None,
    pdf: Path | None,
    genesis: str | None,
) -> None:
    """Certify an act: ENVELOPE by its id or first digits, or a FILE that was made before.

    A FILE is a certificate, or a page that holds one. It is checked anew, with the network off;
    without --genesis and without a profile, compare the hash that is shown with the printed one.
    """
    from comity_client.certificate.facts import Language
    from comity_client.certificate.page import render_page

    is_file = Path(source).is_file()
    if is_file and is_open:
        raise click.UsageError("a file is opened or not as it was made; leave out --open")
    if shell.is_offline and not is_file:
        raise click.UsageError("a certificate needs the relay's tiles; leave out --offline")
    for path in (plain, html, pdf):
        if path is not None and path.exists():
            raise FileError(f"{path} is there already; choose another name, or move it away")
    pinned = _pinned(shell, genesis) if is_file else None
    checked = _read(Path(source), pinned) if is_file else _gather(shell, source, is_open)
    chosen = Language(language)
    if plain is not None:
        write_new_file(plain, checked.certificate.serialize())
    if html is not None:
        write_new_file(html, render_page(checked, chosen))
    if pdf is not None:
        from comity_client.certificate.paper import render_paper

        with shell.step("setting the paper"):
            write_new_file(pdf, render_paper(checked, chosen))
    written = [str(path) for path in (plain, html, pdf) if path is not None]
    is_compared = pinned is not None or not is_file
    shell.give("certificate", _document(checked, written), _lines(checked, written, is_compared))


def _document(checked: "Checked", written: list[str]) -> dict[str, object]:
    under, opened = checked.under, checked.opened
    return {
        "genesis": checked.genesis_hash.hex(),
        "envelope": checked.core.id.hex(),
        "sender": checked.core.sender.hex(),
        "leaf_index": checked.index,
        "size": under.checkpoint.size,
        "not_before": checked.not_before,
        "sealed_at": under.sealed_time,
        "stamped_at": checked.stamped_at,
        "witnesses": [one.witness for one in under.cosignatures],
        "receipts": len(checked.confirmed),
        "opened": opened is not None,
        "signed": opened.is_signed if opened else None,
        "files": written,
    }


def _lines(checked: "Checked", written: list[str], is_compared: bool) -> list[str]:
    from comity_client.cli.online import moment

    under = checked.under
    holds = "everything in the certificate holds"
    earliest = "unknown" if checked.not_before is None else moment(checked.not_before)
    return [
        holds if is_compared else f"{holds}, if this is the hash that you were given:",
        f"genesis   {checked.genesis_hash.hex()}",
        f"envelope  {checked.core.id.hex()}, leaf {checked.index} of {under.checkpoint.size}",
        f"proven    not before {earliest}, not after {moment(under.sealed_time)}",
        f"cosigned  {', '.join(sorted(one.witness for one in under.cosignatures))}",
        f"receipts  {len(checked.confirmed)}",
        f"act       {'opened' if checked.opened else 'not opened'}",
        *(f"wrote     {path}" for path in written),
    ]


def _gather(shell: Shell, source: str, is_open: bool) -> "Checked":
    from comity_client.certificate.gather import gather
    from comity_client.cli.acts import find_envelope
    from comity_client.cli.online import with_desk

    id_ = find_envelope(shell, source)

    async def do(desk: "Desk") -> "Checked":
        with shell.step("proving its place in the log"):
            await desk.sync()
            return await gather(desk, id_, is_open=is_open)

    return with_desk(shell, do)


def _read(path: Path, pinned: bytes | None) -> "Checked":
    from comity_client.certificate.check import check_certificate
    from comity_client.certificate.page import find_certificate
    from comity_client.certificate.record import Certificate
    from comity_protocol.leaves import statement_hash

    data = read_file(path, _PAGE_BYTES_MAX)
    if data.startswith(b"%PDF-"):
        raise click.UsageError(
            f"{path} is a paper: take the certificate out of it, as with"
            f" `pdfdetach -saveall {path}`, and check that file"
        )
    found = Certificate.parse(find_certificate(data) if data[:1] == b"<" else data)
    return check_certificate(found, pinned or statement_hash(found.genesis))


def _pinned(shell: Shell, genesis: str | None) -> bytes | None:
    """Give the expected hash: as named, or of the profile if there is one."""
    from comity_client.profile import Deployment, ProfileError

    if genesis is not None:
        line = genesis if genesis.startswith("comity:") else f"comity:http://localhost#{genesis}"
        return Deployment.parse(line).genesis_hash
    try:
        return shell.read_profile().deployment.genesis_hash
    except ProfileError:
        return None
