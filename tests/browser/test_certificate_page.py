"""The page of a certificate judges itself in a browser, from a file, and nothing fools it."""

import base64
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from comity_client.certificate import facts
from comity_client.certificate.facts import Language, meanings, texts
from comity_client.certificate.page import render_page
from comity_protocol.acts import Handling, Item, Person
from comity_protocol.keys import Context, FullKey
from support.browser import Page, browser, page
from support.certificates import HOSTILE_TEXT, Made, alterations, embed, flip

_OLD_BROWSER = """
const known = crypto.subtle.importKey.bind(crypto.subtle);
crypto.subtle.importKey = (format, key, algorithm, ...rest) =>
  algorithm === "Ed25519"
    ? Promise.reject(new DOMException("Unrecognized name", "NotSupportedError"))
    : known(format, key, algorithm, ...rest);
"""

_YES_SAYER = """
crypto.subtle.verify = () => Promise.resolve(true);
"""

_JUDGED = """
(async () => {
  const [believed, t] = [[], textsOf("en")];
  for (const [name, data] of Object.entries(%s)) {
    try {
      await judge(fromBase64(data, "certificate"), t, (_, act) => act());
      believed.push(name);
    } catch (error) {
      if (error instanceof ReferenceError) throw error;
    }
  }
  return believed;
})()
"""

_TYPED = """
(() => {
  const input = document.querySelector("#compare input");
  input.value = %s;
  input.dispatchEvent(new Event("input"));
  return document.documentElement.dataset.state;
})()
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
async def tab(address: str) -> AsyncIterator[Page]:
    async with page(address) as opened:
        yield opened


def write(folder: Path, data: bytes) -> Path:
    path = folder / "page.html"
    path.write_bytes(data)
    return path


async def judged(tab: Page, certificates: dict[str, bytes]) -> object:
    """Give the names of the certificates that an open page would call right."""
    given = {name: base64.b64encode(data).decode() for name, data in certificates.items()}
    return await tab.evaluate(_JUDGED % json.dumps(given))


@pytest.mark.parametrize("language", list(Language))
async def test_a_right_page_is_green_in_every_language(
    language: Language, certificates: Made, tab: Page, tmp_path: Path
) -> None:
    # [V-4]
    others = [certificates.closed, certificates.other] if language is Language.ENGLISH else []
    for checked in (certificates.opened, *others):
        found = await tab.open(write(tmp_path, render_page(checked, language)))

        assert (found["state"], found["bad"]) == ("ok", "")
        assert found["status"] == texts(language)["status_ok"]


async def test_a_page_asks_the_network_for_nothing_and_runs_nothing_that_somebody_wrote(
    certificates: Made, tab: Page, tmp_path: Path
) -> None:
    path = write(tmp_path, render_page(certificates.opened, Language.ENGLISH))

    found = await tab.open(path)
    shown = await tab.evaluate("document.querySelector('main').textContent")
    inside = await tab.evaluate("document.querySelectorAll('img, svg, a, iframe, i').length")

    assert (found["state"], found["harmed"], inside) == ("ok", "", 0)
    assert HOSTILE_TEXT.split("\n")[0] in str(shown)
    assert set(tab.requests) == {path.as_uri()}


async def test_even_without_the_page_s_own_guard_its_policy_lets_no_script_in(
    certificates: Made, tab: Page, tmp_path: Path
) -> None:
    right = render_page(certificates.opened, Language.ENGLISH)
    harm = b"<script>document.documentElement.dataset.harmed=1</script>"
    altered = right.replace(b"</main>", harm + b"<img src=x onerror='harm()'></main>", 1)

    found = await tab.open(write(tmp_path, altered))

    assert found["harmed"] == ""
    assert found["state"] == "bad"


async def test_no_altered_certificate_is_believed(
    certificates: Made, tab: Page, tmp_path: Path
) -> None:
    # [V-4] [L-2] [L-3] [L-8] [E-1] [E-2]
    right = render_page(certificates.opened, Language.ENGLISH)
    await tab.open(write(tmp_path, right))
    every = list(alterations(certificates.opened.certificate, certificates.other.certificate))
    # The page judges about 30 a second: two of five, and all with `make long`.
    is_long = os.environ.get("COMITY_LONG") == "1"
    wrong = {name: data for at, (name, data) in enumerate(every) if is_long or at % 5 in {0, 3}}
    right_again = certificates.opened.certificate.serialize()

    believed = await judged(tab, {**wrong, "right": right_again})

    assert len(wrong) > 60
    assert believed == ["right"]


@pytest.mark.long
async def test_no_certificate_with_a_flipped_bit_is_believed(
    certificates: Made, tab: Page, tmp_path: Path
) -> None:
    # [V-4]
    await tab.open(write(tmp_path, render_page(certificates.opened, Language.ENGLISH)))
    data = certificates.opened.certificate.serialize()
    for first in range(0, 2_000, 50):
        places = [(number * 7_919) % len(data) for number in range(first, first + 50)]

        assert await judged(tab, {str(at): flip(data, at) for at in places}) == []


ALTERED = {
    "heading": (b"<h1>Certificate", b"<h1>True certificate"),
    "title": (b"<title>Certificate", b"<title>Other"),
    "label": (b">From</th>", b">To</th>"),
    "time": (b" UTC</td>", b" GMT</td>"),
    "act's text": (b"two women were moved", b"two women were seen"),
    "row added": (b"</table>", b"<tr><th>Judge</th><td>approved</td></tr></table>"),
    "note left out": (b"<li>", b"<li hidden>"),
    "text beside": (b"</header>", b"</header><p>Everything here is true.</p>"),
    "banner": (b'class="none" role', b'class="ok" role'),
    "language": (b'<html lang="en"', b'<html lang="fr"'),
    "program": (b'"use strict";', b'"use strict" ;'),
    "policy of the page": (b"script-src 'sha256-", b"script-src 'sha256-A"),
    "certificate": (b'id="certificate">', b'id="certificate">A'),
    "certificate away": (b'id="certificate">', b'id="certificates">'),
    "main away": (b"<main>", b"<div>"),
}


async def test_no_page_that_shows_something_else_is_green(
    certificates: Made, tab: Page, tmp_path: Path
) -> None:
    right = render_page(certificates.opened, Language.ENGLISH)
    green = []
    for name, (before, after) in ALTERED.items():
        assert before in right, name
        altered = right.replace(before, after, 1)
        found = await tab.open(write(tmp_path, altered))
        if found["state"] == "ok":
            green.append(name)
    for cut in (len(right) // 4, len(right) // 2, len(right) - 20_000):
        found = await tab.open(write(tmp_path, right[:cut]))
        green += [f"cut at {cut}"] if found["state"] == "ok" else []
    swapped = embed(right, certificates.other.certificate.serialize())
    found = await tab.open(write(tmp_path, swapped))

    assert green == []
    assert found["state"] == "bad"
    assert "the page shows something else" in found["bad"]


async def test_a_browser_that_cannot_check_signatures_says_so(
    certificates: Made, tab: Page, tmp_path: Path
) -> None:
    path = write(tmp_path, render_page(certificates.opened, Language.FRENCH))
    for program in (_OLD_BROWSER, _YES_SAYER):
        added = await tab.ask("Page.addScriptToEvaluateOnNewDocument", source=program)
        found = await tab.open(path)
        await tab.ask("Page.removeScriptToEvaluateOnNewDocument", **added)

        assert found["state"] == "unable"
        assert found["status"] == texts(Language.FRENCH)["status_unable"]


async def test_without_scripts_a_page_reads_as_a_document_that_was_not_verified(
    certificates: Made, tab: Page, tmp_path: Path
) -> None:
    # [V-4]
    await tab.ask("Emulation.setScriptExecutionDisabled", value=True)
    found = await tab.open(write(tmp_path, render_page(certificates.closed, Language.SPANISH)))
    shown = await tab.evaluate("document.body.innerText")
    t = texts(Language.SPANISH)

    assert found["state"] == "none"
    assert found["status"] == t["status_static"]
    assert t["not_opened"] in str(shown)
    assert certificates.closed.core.id.hex() in str(shown)


async def test_the_typed_hash_decides(certificates: Made, tab: Page, tmp_path: Path) -> None:
    # [V-4]
    await tab.open(write(tmp_path, render_page(certificates.closed, Language.ENGLISH)))
    digits = certificates.closed.genesis_hash.hex()
    other = "0" if digits[-1] != "0" else "1"

    async def typed(text: str) -> tuple[object, object]:
        state = await tab.evaluate(_TYPED % json.dumps(text))
        return state, await tab.evaluate("document.getElementById('status').textContent")

    assert await typed(digits.upper()) == ("ok", texts(Language.ENGLISH)["status_same"])
    assert await typed(digits[:20]) == ("ok", texts(Language.ENGLISH)["status_ok"])
    assert (await typed(digits[:-1] + other))[0] == "bad"
    assert (await typed(digits + "0"))[0] == "bad"


async def test_page_and_program_write_the_fields_of_an_act_alike(
    certificates: Made, tab: Page, tmp_path: Path
) -> None:
    await tab.open(write(tmp_path, render_page(certificates.closed, Language.ENGLISH)))
    fields: dict[str, list[object]] = {
        "grounds": ["N05", "N11"],
        "offences": ["TIP", "SOM"],
        "outcomes": ["DONE"],
        "handling": ["THIS_INVESTIGATION", "YES", "AUTHORITY"],
        "items": [["M05", "one\nM06: another"], ["M40", "x"]],
        "persons": [["VICTIM", "unknown\nSUSPECT: somebody"]],
    }
    values: list[object] = [
        ("N05", "N11"),
        ("TIP", "SOM"),
        ("DONE",),
        Handling("THIS_INVESTIGATION", "YES", "AUTHORITY"),
        (Item("M05", "one\nM06: another"), Item("M40", "x")),
        (Person("VICTIM", "unknown\nSUSPECT: somebody"),),
    ]

    for language in Language:
        written = await tab.evaluate(
            f"""Object.entries({json.dumps(fields)}).map(([name, value]) =>
                  actValues(name, value, textsOf("{language.value}").means))"""
        )

        expected = [list(facts._values(value, meanings(language))) for value in values]
        assert written == expected
        # What somebody wrote on a new line is no further item.
        assert [len(rows) for rows in expected] == [2, 1, 1, 1, 2, 1]


async def test_the_page_s_ml_dsa_agrees_with_the_library(
    certificates: Made, tab: Page, tmp_path: Path
) -> None:
    # [K-3]
    await tab.open(write(tmp_path, render_page(certificates.closed, Language.ENGLISH)))
    key = FullKey.generate()
    cases = []
    for number in range(6):
        message = bytes([number]) * (number * 70)
        signature = key.sign(Context.ACT, message)
        cases.append([message.hex(), signature.hex()])

    held = await tab.evaluate(
        f"""(async () => {{
          const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (p) => parseInt(p, 16));
          const holds = async (...given) => {{
            try {{ await verifyFull(...given, "it"); return true; }} catch {{ return false; }}
          }};
          const key = unhex("{key.public.hex()}");
          const found = [];
          for (const [message, signature] of {json.dumps(cases)}) {{
            const [m, s] = [unhex(message), unhex(signature)];
            found.push(await holds(key, "act", m, s), await holds(key, "receipt", m, s));
            for (const at of [0, 47, 48, 1000, 3247, 3250, 3303, 3308, 3309, 3372]) {{
              const other = s.slice();
              other[at] ^= 1;
              found.push(await holds(key, "act", m, other));
            }}
          }}
          return found;
        }})()"""
    )

    assert held == [True, *[False] * 11] * len(cases)


def test_without_a_browser_the_tests_fail_unless_somebody_leaves_them_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.delenv("COMITY_NO_BROWSER", raising=False)
    with (
        pytest.raises(pytest.fail.Exception, match="install the package chromium"),
        browser(tmp_path),
    ):
        pass
    monkeypatch.setenv("COMITY_NO_BROWSER", "1")
    with pytest.raises(pytest.skip.Exception, match="COMITY_NO_BROWSER"), browser(tmp_path):
        pass
