"""The page of a certificate: one file that a browser verifies from a disk, without a network.

Everything in it that is not a constant of this program is either the certificate itself, as base64,
or text in which no character can begin a tag. The page allows one script and one style, by their
hashes, and nothing else: no request, no frame, no form.
"""

import base64
import json
import re
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

from comity_client.certificate.check import Checked
from comity_client.certificate.facts import (
    NUMBERS,
    PACKAGE,
    Language,
    Row,
    Section,
    meanings_file,
    notes,
    sections,
    texts,
    texts_file,
)
from comity_protocol.errors import MalformedError

_CERTIFICATE: Final = re.compile(
    rb'<script type="application/octet-stream" id="certificate">([A-Za-z0-9+/=]+)</script>'
)


def render_page(checked: Checked, language: Language) -> bytes:
    """Write the page of a certificate that holds; the same bytes for the same certificate."""
    t = texts(language)
    certificate = base64.b64encode(checked.certificate.serialize()).decode()
    text = Template(_read("page.html")).substitute(
        language=language.value,
        direction=language.direction,
        policy=content_policy(),
        title=escape(t["title"]),
        style=_style(),
        header=_header(language),
        main=_main(sections(checked, language), notes(checked, language), language),
        certificate=certificate,
        script=script(),
    )
    return text.encode()


def find_certificate(page: bytes) -> bytes:
    """Take the certificate out of a page that somebody made; nothing in it is verified.

    Raises:
        MalformedError: There is none.
    """
    found = _CERTIFICATE.findall(page)
    if len(found) != 1:
        raise MalformedError(f"page has {len(found)} certificates, expected one")
    try:
        return base64.b64decode(found[0], validate=True)
    except ValueError as error:
        raise MalformedError("certificate in the page is not base64") from error


@cache
def script() -> str:
    """Give the program that verifies a page: the same one in every page of this version."""
    tables = (("TEXTS", texts_file()), ("MEANINGS", meanings_file()))
    parts = (
        '"use strict";',
        *(f"const {name} = {_harmless(table)};" for name, table in tables),
        _read("mldsa.js"),
        _read("page.js"),
    )
    return "\n".join(parts)


@cache
def content_policy() -> str:
    """Give what the page allows its browser to do."""
    return (
        f"default-src 'none'; script-src '{_source(script())}'; style-src '{_source(_style())}';"
        " base-uri 'none'; form-action 'none'"
    )


def _harmless(table: str) -> str:
    """Write a table without its spaces, and so that no end of a script can be read in it."""
    short = json.dumps(json.loads(table), ensure_ascii=False, separators=(",", ":"))
    return short.replace("</", "<\\/").replace("<!--", "<\\u0021--")


def _header(language: Language) -> str:
    t = texts(language)
    return "\n".join(
        (
            "<header>",
            f"<h1>{_escape(t['title'])}</h1>",
            f'<p id="status" class="none" role="status">{_escape(t["status_static"])}</p>',
            '<ul id="checks"></ul>',
            '<div id="compare"></div>',
            "</header>",
        )
    )


def _main(parts: tuple[Section, ...], ends: tuple[str, ...], language: Language) -> str:
    t = texts(language)
    lines = ["<main>", f"<p>{_escape(t['intro'])}</p>"]
    for part in parts:
        lines += ["<section>", f"<h2>{_escape(part.title)}</h2>", "<table>"]
        lines += [_row(row) for row in part.rows]
        lines += ["</table>", "</section>"]
    lines += ["<section>", f"<h2>{_escape(t['s_limits'])}</h2>", "<ul>"]
    lines += [f"<li>{_escape(end)}</li>" for end in ends]
    return "\n".join((*lines, "</ul>", "</section>", "</main>"))


def _row(row: Row) -> str:
    value = _escape(row.value)
    if row.is_text:
        # A date in an Arabic sentence would be shown from its day to its year.
        value = NUMBERS.sub(r'<bdi dir="ltr">\g<0></bdi>', value)
    cell = '<td dir="auto">' if row.is_text else '<td class="m" dir="ltr">'
    return f'<tr><th scope="row">{_escape(row.label)}</th>{cell}{value}</td></tr>'


def _escape(text: str) -> str:
    """Write text so that it is nothing but text; quotes stay, as it stands in no attribute."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@cache
def _style() -> str:
    return _read("page.css")


def _source(text: str) -> str:
    return f"sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}"


@cache
def _read(name: str) -> str:
    return files(PACKAGE).joinpath(name).read_text("utf-8")
