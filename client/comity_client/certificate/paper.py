"""The paper of a certificate: a PDF with the proof, the core, the certificate and the page inside.

It is tagged, in the archive form PDF/A-3a, and the same bytes for the same certificate. What
somebody wrote reaches the typesetter as strings of a data file, never as markup.

The programs that set it come with the extra ``letters``; the page needs neither.
"""

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import as_file, files
from io import BytesIO
from pathlib import Path
from typing import Final

from comity_client.certificate.check import Checked
from comity_client.certificate.facts import NUMBERS, PACKAGE, Language, Row, notes, sections, texts
from comity_client.certificate.page import render_page
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import short

CODE_BYTES_MAX: Final = 2_953
"""What the largest QR code holds (ISO 18004, version 40, level L)."""

CODES_MAX: Final = 8
"""Codes on a paper. A larger proof is attached only, and the paper says so."""

_CODE_MILLIMETRES_MAX: Final = 160
_MODULE_MILLIMETRES: Final = 0.7
_QUIET_MODULES: Final = 4

_WORD_LETTERS_MAX: Final = 24
_WORD: Final = re.compile(rf"\S{{{_WORD_LETTERS_MAX}}}(?=\S)")
_BREAK: Final = "\u200b"

# What the fonts of the paper have, as tests/test_client/test_certificate_paper.py holds them to.
# Any other letter would make the typesetter refuse the whole paper.
_SHOWN: Final = re.compile(
    "[\n\u0020-\u007e\u00a0-\u00ac\u00ae-\u017f\u0384-\u038a\u038c\u038e-\u03a1\u03a3-\u03ce"
    "\u0400-\u045f\u0490-\u0493\u060c\u061b\u061f\u0621-\u063a\u0640-\u0655\u0660-\u066d"
    "\u0670-\u06d3\u06f0-\u06f9\u1e80-\u1e85\u1ef2\u1ef3\u2010-\u2014\u2018-\u201e\u2020-\u2022"
    "\u2026\u2030\u2032\u2033\u2039\u203a\u20ac]"
)
_LEFT_TO_RIGHT, _FIRST_STRONG, _END = "\u2066", "\u2068", "\u2069"


class PaperError(ComityError):
    """A paper that cannot be set."""

    code = "paper"
    remedy = "install the extra with the typesetter: pip install 'comity[letters]'"


@dataclass(frozen=True, slots=True)
class Attached:
    """A file inside the paper."""

    name: str
    data: bytes
    type: str
    relationship: str


def attachments(checked: Checked, language: Language) -> tuple[Attached, ...]:
    """Give the files that a paper carries."""
    stem, certificate = short(checked.core.id), checked.certificate
    binary = "application/octet-stream"
    return (
        Attached(f"{stem}.tlog-proof", certificate.proof, "text/plain", "data"),
        Attached(f"{stem}.core", certificate.core, binary, "data"),
        Attached(f"{stem}.certificate", certificate.serialize(), binary, "data"),
        Attached(f"{stem}.html", render_page(checked, language), "text/html", "alternative"),
    )


def render_paper(checked: Checked, language: Language) -> bytes:
    """Set the paper of a certificate that holds; the same bytes for the same certificate.

    Raises:
        PaperError: The extra ``letters`` is not installed, or the typesetter refuses.
    """
    try:
        import typst  # noqa: PLC0415  # only papers need it, and it is large
    except ImportError as error:
        raise PaperError("typesetter is not installed") from error
    with tempfile.TemporaryDirectory() as name, as_file(files(PACKAGE)) as package:
        folder = Path(name)
        _lay_out(folder, checked, language)
        (folder / "paper.typ").write_text(package.joinpath("paper.typ").read_text("utf-8"), "utf-8")
        try:
            compiled = typst.compile(
                folder / "paper.typ",
                root=folder,
                font_paths=[package / "fonts"],
                ignore_system_fonts=True,
                format="pdf",
                pdf_standards=["a-3a"],
                timestamp=checked.under.sealed_time,
            )
        except typst.TypstError as error:
            raise PaperError(f"typesetter refuses: {error.message}") from error
    assert isinstance(compiled, bytes)  # noqa: S101  # one PDF is one file
    return compiled


def split_proof(proof: bytes) -> tuple[bytes, ...]:
    """Cut a proof file into as few codes as hold it; none when it is too large for a paper."""
    count = -(-len(proof) // CODE_BYTES_MAX)
    if count > CODES_MAX:
        return ()
    each = -(-len(proof) // count)
    return tuple(proof[at : at + each] for at in range(0, len(proof), each))


def _lay_out(folder: Path, checked: Checked, language: Language) -> None:
    """Write everything that the typesetter reads into a folder."""
    t, is_rtl = texts(language), language.direction == "rtl"
    files_inside = attachments(checked, language)
    for one in files_inside:
        (folder / one.name).write_bytes(one.data)
    sealed = datetime.fromtimestamp(checked.under.sealed_time, UTC)
    data = {
        "language": language.value,
        "direction": language.direction,
        "words": t,
        "date": list(sealed.timetuple()[:6]),
        "short": checked.core.id.hex(),
        "sections": [
            {"title": section.title, "rows": [_row(row, is_rtl=is_rtl) for row in section.rows]}
            for section in sections(checked, language)
        ],
        "notes": list(notes(checked, language)),
        "attached": [
            {
                "name": one.name,
                "type": one.type,
                "relationship": one.relationship,
                "description": one.name,
                "sha256": sha256(one.data).hexdigest(),
            }
            for one in files_inside
        ],
        "codes": _draw_codes(folder, split_proof(checked.certificate.proof), t["p_code"]),
    }
    (folder / "data.json").write_text(json.dumps(data, ensure_ascii=False), "utf-8")


def _draw_codes(folder: Path, parts: Sequence[bytes], alt: str) -> list[dict[str, object]]:
    try:
        import segno  # noqa: PLC0415  # only papers need it
    except ImportError as error:
        raise PaperError("QR codes cannot be drawn") from error
    codes: list[dict[str, object]] = []
    for number, part in enumerate(parts, 1):
        code = segno.make_qr(part, error="l", mode="byte", boost_error=False)
        picture = BytesIO()
        code.save(picture, kind="png", scale=1, border=_QUIET_MODULES)
        name = f"code{number}.png"
        (folder / name).write_bytes(picture.getvalue())
        modules = code.symbol_size(border=_QUIET_MODULES)[0]
        width = min(_CODE_MILLIMETRES_MAX, modules * _MODULE_MILLIMETRES)
        codes.append({"name": name, "millimetres": width, "alt": f"{alt} {number}/{len(parts)}"})
    return codes


def _row(row: Row, *, is_rtl: bool) -> dict[str, object]:
    shown = _breakable(_written_out(row.value))
    if row.is_text:
        shown = NUMBERS.sub(rf"{_LEFT_TO_RIGHT}\g<0>{_END}", shown)
    # Digits and hostile text must not turn what stands beside them.
    mark = _FIRST_STRONG if row.is_text else _LEFT_TO_RIGHT if is_rtl else ""
    if mark:
        shown = "\n".join(f"{mark}{line}{_END}" for line in shown.split("\n"))
    return {"label": row.label, "value": shown, "text": row.is_text}


def _written_out(text: str) -> str:
    """Write letters that the fonts lack as their numbers; the attached page shows them."""
    return "".join(
        letter if _SHOWN.fullmatch(letter) else f"<U+{ord(letter):04X}>" for letter in text
    )


def _breakable(text: str) -> str:
    """Let a long word end a line inside, by a space without width."""
    return _WORD.sub(lambda found: found[0] + _BREAK, text)
