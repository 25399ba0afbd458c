"""The paper of a certificate is read back by other people's programs."""

import shutil
import subprocess
import sys
from base64 import b64decode
from dataclasses import replace
from functools import cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
import typst
import zxingcpp
from pypdf import PdfReader
from pypdf.generic import DictionaryObject, StreamObject
from tlog_scales import signing, tlog

from comity_client.certificate import paper
from comity_client.certificate.check import Checked, check_certificate
from comity_client.certificate.facts import Language, texts
from comity_client.certificate.paper import (
    CODE_BYTES_MAX,
    CODES_MAX,
    PaperError,
    render_paper,
    split_proof,
)
from comity_client.certificate.record import Certificate
from comity_client.proofs import verify_proof
from comity_protocol.log_proof import LogProof
from support.certificates import Made

DOTS_PER_INCH = 150


@cache
def rasterizer() -> str:
    found = shutil.which("pdftoppm")
    assert found, "pdftoppm is not installed: install the package poppler-utils"
    return found


def codes_of(pdf: bytes, folder: Path) -> list[bytes]:
    """Give what the codes of a printed paper say, page by page from top to bottom."""
    (folder / "paper.pdf").write_bytes(pdf)
    command = [rasterizer(), "-gray", "-r", str(DOTS_PER_INCH), "paper.pdf", "page"]
    subprocess.run(command, cwd=folder, check=True, timeout=50)
    found = []
    for page in sorted(folder.glob("page*.pgm")):
        head, size, _, pixels = page.read_bytes().split(b"\n", 3)
        assert head == b"P5"
        width, height = map(int, size.split())
        picture = memoryview(pixels).cast("B", (height, width))
        on_page = zxingcpp.read_barcodes(picture)
        found += [one.bytes for one in sorted(on_page, key=lambda one: one.position.top_left.y)]
    return found


def text_of(pdf: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(BytesIO(pdf)).pages)


def squeezed(text: str) -> str:
    return "".join(text.replace("\u200b", "").split())


def with_proof(checked: Checked, proof: bytes) -> Checked:
    return replace(checked, certificate=replace(checked.certificate, proof=proof))


def test_a_paper_carries_proof_core_certificate_and_page(certificates: Made) -> None:
    # [V-4]
    checked = certificates.opened

    attached = PdfReader(BytesIO(render_paper(checked, Language.ENGLISH))).attachments

    stem = checked.core.id.hex()[:8]
    expected = {one.name: [one.data] for one in paper.attachments(checked, Language.ENGLISH)}
    assert dict(attached) == expected
    assert attached[f"{stem}.tlog-proof"] == [checked.certificate.proof]
    inside = Certificate.parse(attached[f"{stem}.certificate"][0])
    assert check_certificate(inside, checked.genesis_hash) == checked


def test_the_code_on_a_paper_is_the_proof_file(certificates: Made, tmp_path: Path) -> None:
    # [L-8]
    checked = certificates.closed

    (code,) = codes_of(render_paper(checked, Language.ENGLISH), tmp_path)

    assert code == checked.certificate.proof
    under = verify_proof(LogProof.parse(code), checked.certificate.core, checked.genesis)
    assert under == checked.under


def test_another_program_believes_the_code_with_the_policy_and_the_core_beside_it(
    certificates: Made, tmp_path: Path
) -> None:
    """What is hashed and read here is written out anew, so that nothing of ours vouches for it."""
    checked = certificates.opened
    pdf = render_paper(checked, Language.ENGLISH)
    stem = checked.core.id.hex()[:8]
    core = PdfReader(BytesIO(pdf)).attachments[f"{stem}.core"][0]
    (code,) = codes_of(pdf, tmp_path)

    head, note = code.decode().split("\n\n", 1)
    _, extra, index, *hashes = head.split("\n")
    places = b64decode(extra.removeprefix("extra "))
    named = sha256(b"comity/1/envelope\0" + core).digest()
    tag = sha256(b"comity/1/leaf-envelope\0" + named).digest()
    leaf = sha256(b"\0" + b"\0" + tag + places).digest()
    checkpoint = tlog.Checkpoint.from_text(note)
    policy = [line.split(" ") for line in checked.genesis.policy.serialize().splitlines()]
    checkpoint.verify(signing.Vkey.from_string(policy[0][1]))
    keys = [signing.Vkey.from_string(line[2]) for line in policy if line[0] == "witness"]
    cosigned = signing.VkeySet(*keys).verify(checkpoint.signatures, checkpoint)
    place = int(index.removeprefix("index "))
    proof = tlog.InclusionProof(place, checkpoint.size, [b64decode(line) for line in hashes])

    proof.check(leaf, checkpoint.root_hash)
    assert len(list(cosigned)) == 3
    with pytest.raises(tlog.InclusionProofInvalid):
        proof.check(sha256(leaf).digest(), checkpoint.root_hash)


def test_a_proof_too_large_for_one_code_takes_several_in_order(
    certificates: Made, tmp_path: Path
) -> None:
    proof = bytes(range(256)) * 20

    found = codes_of(
        render_paper(with_proof(certificates.closed, proof), Language.FRENCH), tmp_path
    )

    assert len(found) == 2
    assert b"".join(found) == proof


def test_a_proof_too_large_for_all_codes_is_attached_only(
    certificates: Made, tmp_path: Path
) -> None:
    proof = bytes(CODES_MAX * CODE_BYTES_MAX + 1)

    pdf = render_paper(with_proof(certificates.closed, proof), Language.ENGLISH)

    assert split_proof(proof) == ()
    assert len(split_proof(proof[:-1])) == CODES_MAX
    assert codes_of(pdf, tmp_path) == []
    assert squeezed(texts(Language.ENGLISH)["p_code_none"]) in squeezed(text_of(pdf))


def test_a_paper_is_tagged_archivable_and_the_same_each_time(certificates: Made) -> None:
    pdf = render_paper(certificates.opened, Language.ENGLISH)
    catalog = PdfReader(BytesIO(pdf)).root_object
    metadata, marks = catalog["/Metadata"].get_object(), catalog["/MarkInfo"].get_object()
    assert isinstance(metadata, StreamObject)
    assert isinstance(marks, DictionaryObject)
    described = metadata.get_data()

    assert render_paper(certificates.opened, Language.ENGLISH) == pdf
    assert bool(marks["/Marked"])
    assert str(catalog["/Lang"]) == "en"
    assert b"<pdfaid:part>3</pdfaid:part>" in described
    assert b"<pdfaid:conformance>A</pdfaid:conformance>" in described


@pytest.mark.parametrize("language", list(Language))
def test_every_language_has_its_paper(language: Language, certificates: Made) -> None:
    checked = certificates.opened

    text = squeezed(text_of(render_paper(checked, language)))

    # Digits keep their order also between words that run from right to left.
    assert checked.core.id.hex() in text
    assert checked.genesis_hash.hex() in text
    assert "2023-11-1422:13:20UTC" in text
    if language is not Language.ARABIC:
        assert squeezed(texts(language)["title"]) in text


def test_hostile_words_are_printed_and_nothing_else(certificates: Made) -> None:
    text = squeezed(text_of(render_paper(certificates.opened, Language.ENGLISH)))

    assert '#eval("panic()")#image("/etc/passwd")$x$*bold*`raw`\\#panic()<label>@ref//' in text
    assert "</script><imgsrc=xonerror=document.documentElement.dataset.harmed=1>" in text
    # What would turn the reading direction, and letters that no font has, are written out.
    assert "U+202E>righttoleft<U+202C" in text
    assert "<U+4E2D><U+6587>" in text
    # A date is no other date because it stands in an Arabic sentence.
    assert "2026-01-31" in text


def test_every_letter_that_is_said_to_be_shown_has_a_form(tmp_path: Path) -> None:
    letters = "".join(
        chr(code) for code in range(0x20, 0x2100) if paper._SHOWN.fullmatch(chr(code))
    )
    fonts = Path(paper.__file__).parent / "fonts"
    (tmp_path / "letters").write_text(letters, "utf-8")
    for first in ("Libertinus Serif", "DejaVu Sans Mono"):
        source = (
            '#set document(title: "letters", date: datetime(year: 2026, month: 1, day: 1))\n'
            f'#set text(font: ("{first}", "Libertinus Serif", "Noto Naskh Arabic"), lang: "en")\n'
            '#for letter in read("letters").clusters() [#letter ]'
        )
        (tmp_path / "main.typ").write_text(source, "utf-8")

        pdf = typst.compile(
            tmp_path / "main.typ",
            root=tmp_path,
            font_paths=[fonts],
            ignore_system_fonts=True,
            pdf_standards=["a-3a"],
        )

        assert pdf


def test_without_the_typesetter_the_command_says_what_to_install(
    certificates: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("typst", "segno"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(PaperError) as raised:
            render_paper(certificates.closed, Language.ENGLISH)
        assert "comity[letters]" in raised.value.remedy
        monkeypatch.undo()
