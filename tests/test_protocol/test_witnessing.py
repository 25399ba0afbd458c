"""What a log and a witness say to each other is read in one form: [L-4]."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity_protocol.checkpoint import Cosignature, sign_checkpoint
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.witnessing import (
    AddCheckpoint,
    Cosigned,
    KnownSize,
    Refused,
    WitnessAnswer,
    parse_witness_answer,
)
from support.notes import (
    HASH_LINE,
    LOG_KEY,
    NOTE,
    NOW,
    ORIGIN,
    PROOF,
    ROOT,
    WITNESSES,
    cosignature_by,
)


def test_a_request_is_written_as_the_specification_says() -> None:
    request = AddCheckpoint(old_size=3, hashes=PROOF.hashes[:1], note=NOTE)

    assert request.serialize() == f"old 3\n{HASH_LINE}\n".encode() + NOTE
    assert AddCheckpoint.parse(request.serialize()) == request


def test_the_example_request_of_the_specification_is_read() -> None:
    # From C2SP tlog-witness: two lines of one name, with different keys.
    body = (
        "old 20852014\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n"
        "jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n"
        "5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n"
        "/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\n"
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/"
        "Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
        "— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49"
        "/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n"
    ).encode()

    request = AddCheckpoint.parse(body)

    assert request.old_size == 20_852_014
    assert len(request.hashes) == 4
    assert request.serialize() == body


HOSTILE_REQUESTS = {
    "nothing": ("", "no empty line"),
    "note alone": (NOTE.decode(), "no empty line|does not begin|lines, expected 3"),
    "no old size": (f"{HASH_LINE}\n{NOTE.decode()}", "does not begin with the old size"),
    "old size in another form": (f"old 07\n\n{NOTE.decode()}", "old size is not"),
    "old size in capitals": (f"OLD 7\n\n{NOTE.decode()}", "does not begin with the old size"),
    "two old sizes": (f"old 7\nold 7\n\n{NOTE.decode()}", "proof hash is not base64"),
    "two empty lines": (f"old 7\n\n\n{NOTE.decode()}", "has 4 lines|origin is empty"),
    "no note": ("old 7\n\n", "does not end in a newline"),
}


@pytest.mark.parametrize("name", HOSTILE_REQUESTS)
def test_a_request_in_another_form_is_refused(name: str) -> None:
    """[L-4]"""
    body, message = HOSTILE_REQUESTS[name]

    with pytest.raises(MalformedError, match=message):
        AddCheckpoint.parse(body.encode())


@given(st.binary(max_size=150) | st.just(b"old 7\n\n" + NOTE))
def test_reading_any_request_refuses_or_gives_what_would_be_written(body: bytes) -> None:
    """[L-4]"""
    try:
        request = AddCheckpoint.parse(body)
    except MalformedError:
        return
    assert request.serialize() == body


def answer(status: int, body: str, content_type: str = "text/plain") -> WitnessAnswer:
    return parse_witness_answer(
        status=status,
        content_type=content_type,
        body=body.encode(),
        note=NOTE,
        witness=WITNESSES[0],
    )


def test_the_cosignature_that_a_witness_answers_is_taken() -> None:
    line, stranger = cosignature_by(1, NOW), cosignature_by(9, NOW)

    taken = answer(200, stranger.serialize() + line.serialize())

    assert taken == Cosigned(line, Cosignature(NOW, "witness.example/w1"))


def test_a_success_without_the_cosignature_asked_for_is_refused() -> None:
    with pytest.raises(VerificationError, match=r"answer has no cosignature by witness.example/w1"):
        answer(200, cosignature_by(2, NOW).serialize())
    other = sign_checkpoint(origin=ORIGIN, size=1, root=ROOT, key=LOG_KEY)
    with pytest.raises(VerificationError, match="does not verify"):
        answer(200, cosignature_by(1, NOW, other).serialize())


@pytest.mark.parametrize("body", ["", "ok\n", "\n", "— \n"])
def test_a_success_in_another_form_is_refused(body: str) -> None:
    with pytest.raises(MalformedError):
        answer(200, body)


@pytest.mark.parametrize("content_type", ["text/x.tlog.size", "text/x.tlog.size; charset=utf-8"])
def test_a_witness_tells_which_size_it_knows(content_type: str) -> None:
    assert answer(409, "6\n", content_type) == KnownSize(6)


@pytest.mark.parametrize("body", ["", "6", "06\n", "6\n\n", "6\r\n", "six\n"])
def test_a_known_size_in_another_form_is_refused(body: str) -> None:
    """[L-4]"""
    with pytest.raises(MalformedError):
        answer(409, body, "text/x.tlog.size")


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 500, 503, 301])
def test_a_refusal_says_its_status(status: int) -> None:
    assert answer(status, "whatever it says") == Refused(status)
