"""A certificate shows one act to a stranger who has the printed hash, and nothing false holds."""

import json
import re
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity_client.certificate.check import Checked, check_certificate
from comity_client.certificate.facts import Language, meanings, notes, sections, texts
from comity_client.certificate.gather import NotOpenedError, gather
from comity_client.certificate.page import content_policy, find_certificate, render_page, script
from comity_client.certificate.record import Certificate
from comity_client.cli import run
from comity_client.cli.exits import Exit
from comity_client.envelopes import UnknownEnvelopeError
from comity_protocol.codes import MEASURES, REFUSALS
from comity_protocol.errors import ComityError, LimitError, MalformedError, VerificationError
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.limits import CERTIFICATE_BYTES_MAX
from comity_protocol.log_proof import LogProof
from comity_protocol.statements import Role
from support.certificates import HOSTILE_NAME, Made, alterations, flip
from support.desks import LEAD, enrol, open_desk
from support.documents import document
from support.relay import audited_world, relay
from test_client.conftest import Pair


def shown(checked: Checked) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {}
    for section in sections(checked, Language.ENGLISH):
        for row in section.rows:
            rows.setdefault(row.label, []).append(row.value)
    return rows


def test_a_certificate_has_one_form(certificates: Made) -> None:
    for one in (certificates.opened, certificates.closed, certificates.other):
        data = one.certificate.serialize()

        assert Certificate.parse(data) == one.certificate
        assert Certificate.parse(data).serialize() == data


def test_a_certificate_holds_with_nothing_but_itself_and_the_printed_hash(
    certificates: Made,
) -> None:
    # [V-4] [D-1] [L-8]
    data = certificates.opened.certificate.serialize()

    checked = check_certificate(Certificate.parse(data), certificates.opened.genesis_hash)

    assert checked == certificates.opened
    assert checked.not_before is not None
    assert checked.not_before <= checked.under.sealed_time
    assert len(checked.under.cosignatures) == 3
    assert checked.stamped_at == 1_700_000_000
    (receipt,) = checked.confirmed
    assert receipt.receipt.desk == checked.core.counterpart
    assert checked.opened is not None
    assert checked.opened.is_signed


def test_a_stamp_of_a_time_that_no_calendar_can_show_is_refused(certificates: Made) -> None:
    """[C-5] One witness signs it, and nobody could print the certificate any more."""
    right = certificates.opened.certificate
    stamps = (replace(right.stamps[0], at=253_402_300_800), *right.stamps[1:])

    with pytest.raises(MalformedError, match="certificate, at"):
        Certificate.parse(replace(right, stamps=stamps).serialize())


def test_under_another_printed_hash_nothing_holds(certificates: Made) -> None:
    # [V-4] [D-1]
    with pytest.raises(VerificationError, match="another genesis than the printed hash"):
        check_certificate(
            certificates.opened.certificate, flip(certificates.opened.genesis_hash, 0)
        )


def test_no_altered_certificate_holds_and_says_the_same(certificates: Made) -> None:
    # [V-4] [L-2] [L-3] [E-1] [E-2] [E-5] [K-3] [Q-1] [Q-3] [S-3] [S-4]
    right = certificates.opened
    rows = sections(right, Language.ENGLISH)
    wrong = dict(alterations(right.certificate, certificates.other.certificate))
    believed = []
    for name, data in wrong.items():
        try:
            checked = check_certificate(Certificate.parse(data), right.genesis_hash)
        except ComityError:
            continue
        if sections(checked, Language.ENGLISH) == rows:
            believed.append(name)

    assert len(wrong) > 140
    assert believed == []


def test_what_was_not_opened_is_shown_by_size_and_hash(certificates: Made) -> None:
    # [V-4]
    closed, opened, t = certificates.closed, certificates.opened, texts(Language.ENGLISH)

    assert shown(closed)[t["body"]] == [t["not_opened"]]
    assert closed.core.body.hash.hex() in shown(closed)[t["body_hash"]]
    assert t["l_closed"] in notes(closed, Language.ENGLISH)
    assert t["body_key"] not in shown(closed)
    # The audit part stays closed even when the act is opened.
    assert shown(opened)[t["audit"]] == [t["not_opened"]]
    assert opened.core.audit.hash.hex() in shown(opened)[t["audit_hash"]]


def test_a_device_that_admins_let_in_is_shown_with_them(certificates: Made) -> None:
    # [S-3]
    checked = certificates.other
    certificate = checked.certificate
    own = [one for one in certificate.admissions if one.index == checked.device.index]
    signers = {signer for signer, _ in own[0].signed.signatures}

    assert checked.device.statement.role is Role.OFFICER
    assert len(signers) == 3
    # Without one of the admins his signature is nobody's.
    for one in certificate.admissions:
        rest = tuple(other for other in certificate.admissions if other != one)
        with pytest.raises(VerificationError):
            check_certificate(replace(certificate, admissions=rest), checked.genesis_hash)


def test_statements_about_others_are_refused(certificates: Made) -> None:
    one, other = certificates.closed.certificate, certificates.other.certificate
    both = {admission.index: admission for admission in other.admissions}
    both |= {admission.index: admission for admission in one.admissions}
    mixed = replace(other, admissions=tuple(both[index] for index in sorted(both)))

    with pytest.raises((MalformedError, VerificationError)):
        check_certificate(mixed, certificates.other.genesis_hash)


def test_parts_out_of_order_or_too_many_bytes_are_refused(certificates: Made) -> None:
    certificate = certificates.opened.certificate
    turned = replace(certificate, admissions=certificate.admissions[::-1])

    with pytest.raises(MalformedError, match="statements are not ascending"):
        Certificate.parse(turned.serialize())
    with pytest.raises(LimitError, match="certificate is"):
        Certificate.parse(bytes(CERTIFICATE_BYTES_MAX + 1))


@given(st.binary(max_size=200), st.integers(0, 70_000), st.integers(0, 70_000))
def test_no_bytes_make_the_reader_stumble(
    certificates: Made, junk: bytes, at: int, to: int
) -> None:
    data = certificates.opened.certificate.serialize()
    for hostile in (junk, data[:at] + junk + data[to:]):
        try:
            found = Certificate.parse(hostile)
            check_certificate(found, certificates.opened.genesis_hash)
        except ComityError:
            continue
        assert hostile == data


def test_names_that_somebody_gave_are_marked_and_never_markup(certificates: Made) -> None:
    t, page = texts(Language.ENGLISH), render_page(certificates.opened, Language.ENGLISH)

    assert shown(certificates.opened)[t["named"]][0].endswith(HOSTILE_NAME)
    assert b"<img" not in page
    assert page.count(b"<script") == page.count(b"</script>") == 2
    assert "default-src 'none'" in content_policy()
    assert "unsafe" not in content_policy()
    assert "</script" not in script()


def test_a_page_gives_its_certificate_back_and_is_the_same_each_time(certificates: Made) -> None:
    page = render_page(certificates.opened, Language.ARABIC)

    assert find_certificate(page) == certificates.opened.certificate.serialize()
    assert render_page(certificates.opened, Language.ARABIC) == page
    with pytest.raises(MalformedError, match="page has 0 certificates"):
        find_certificate(b"<!doctype html>")
    with pytest.raises(MalformedError, match="page has 2 certificates"):
        find_certificate(page + page)


def test_the_program_of_pages_is_the_one_that_the_documents_name() -> None:
    # Whoever changes it changes the printed hash in the same commit.
    (hashed,) = re.findall(r"script-src '(sha256-[A-Za-z0-9+/=]+)'", content_policy())

    assert f"    {hashed}\n" in document("CERTIFICATE.md")


def test_every_text_is_there_in_every_language() -> None:
    names = {language: texts(language) for language in Language}

    for language, known in names.items():
        assert known.keys() == names[Language.ENGLISH].keys()
        assert all(known.values()), language
    # In English a code means what the documents say that it means.
    listed = dict(
        re.findall(r"^\| ([MN][0-9]{2}) \| (.+?) \|$", document("CODES.md"), re.MULTILINE)
    )
    assert dict(meanings(Language.ENGLISH)) == listed
    assert {code for language in Language for code in meanings(language)} == MEASURES | REFUSALS
    arabic = names[Language.ARABIC]
    assert all(
        arabic[name] != text for name, text in names[Language.ENGLISH].items() if name != "p_sha"
    )


async def test_what_is_not_in_the_log_or_not_held_is_not_certified(pair: Pair) -> None:
    with pytest.raises(UnknownEnvelopeError):
        await gather(pair.alice.desk, EnvelopeId(bytes(16)))
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    with pytest.raises(UnknownEnvelopeError, match="not in the log yet"):
        await gather(pair.alice.desk, envelope)
    await pair.deliver()
    pair.bob.desk.state.connection.execute("UPDATE inbox SET body = NULL")

    checked = await gather(pair.bob.desk, envelope)

    assert checked.opened is None
    assert checked.confirmed == ()
    with pytest.raises(NotOpenedError, match="not held any more"):
        await gather(pair.bob.desk, envelope, is_open=True)


async def test_an_auditor_certifies_and_opens_nothing(tmp_path: Path) -> None:
    # [V-4]
    world, sender, receiver, auditor = audited_world()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(relay(tmp_path, world))
        await running.publish()
        desks = []
        for name, id_ in (("a", sender), ("s", auditor)):
            member = world.active(id_)[0]
            desk, _ = open_desk(
                enrol(tmp_path / name, world, member, running.url), member, running.clock
            )
            desks.append(await stack.enter_async_context(desk))
            await desk.sync()
        envelope = desks[0].lead(receiver, LEAD)
        await desks[0].flush()
        await running.seal()
        await desks[1].fetch()

        checked = await gather(desks[1], envelope)

        t = texts(Language.ENGLISH)
        assert shown(checked)[t["auditor"]] == [f"SEC/secretariat {auditor.hex()}"]
        assert shown(checked)[t["body"]] == [t["not_opened"]]
        with pytest.raises(NotOpenedError, match="sealed to other desks"):
            await gather(desks[1], envelope, is_open=True)


async def test_the_act_is_dated_by_the_first_checkpoint_that_covers_it(pair: Pair) -> None:
    # [M-1]
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.deliver()
    before = await gather(pair.alice.desk, envelope)
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.deliver(rounds=2)

    after = await gather(pair.alice.desk, envelope)

    assert pair.alice.desk.newest.size > after.under.checkpoint.size
    assert after.under.sealed_time == before.under.sealed_time
    assert (
        LogProof.parse(after.certificate.proof).note
        == LogProof.parse(before.certificate.proof).note
    )


def test_the_command_checks_a_file_anew_and_writes_pages_from_it(
    certificates: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # [V-4]
    file, page, none = tmp_path / "act.certificate", tmp_path / "act.html", tmp_path / "none"
    file.write_bytes(certificates.opened.certificate.serialize())
    digits = certificates.opened.genesis_hash.hex()
    own = ["--profile", str(none)]

    def call(*arguments: str) -> int:
        return run(["audit", "certificate", *arguments, *own], lambda: 0)

    assert call(str(file), "--html", str(page), "--language", "fr") == Exit.OK
    assert "if this is the hash that you were given" in capsys.readouterr().out
    assert page.read_bytes() == render_page(certificates.opened, Language.FRENCH)
    assert call(str(page), "--genesis", digits, "--json") == Exit.OK
    document = json.loads(capsys.readouterr().out)
    assert (document["kind"], document["genesis"]) == ("certificate", digits)
    assert document["opened"]
    assert call(str(page), "--genesis", digits[::-1]) == Exit.UNVERIFIED
    assert "another genesis" in capsys.readouterr().err
    assert call(str(file), "--open") == Exit.USAGE
    assert call("ffffffff", "--offline") == Exit.USAGE
    assert "leave out --offline" in capsys.readouterr().err
    assert call(str(file), "--html", str(page)) == Exit.NOT_FOUND
    file.write_bytes(flip(file.read_bytes(), -2))
    assert call(str(file)) == Exit.UNVERIFIED
