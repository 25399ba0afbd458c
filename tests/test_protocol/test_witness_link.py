"""The frames of a link, and the proof with which it begins: [C-1] [K-1]."""

import pytest
from nacl.signing import SigningKey

from comity_protocol.encoding import Value, serialize
from comity_protocol.errors import ComityError, LimitError, MalformedError, VerificationError
from comity_protocol.identifiers import DeploymentId
from comity_protocol.limits import WITNESS_ANSWER_BYTES_MAX, WITNESS_REQUEST_BYTES_MAX
from comity_protocol.signed_note import KeyType, VerifierKey
from comity_protocol.witness_link import (
    ANSWER_BYTES_MAX,
    ASK_BYTES_MAX,
    NUMBER_MAX,
    Ask,
    Challenge,
    LinkAnswer,
    Proof,
)

KEY = SigningKey(b"K" * 32)
NAME = "witness.example/w1"
WITNESS = VerifierKey(NAME, KeyType.COSIGNATURE_V1, bytes(KEY.verify_key))
DEPLOYMENT = DeploymentId(b"D" * 16)
CHALLENGE = Challenge(b"N" * 32)


def test_every_frame_is_read_as_it_was_written() -> None:
    proof = Proof.make(NAME, KEY, DEPLOYMENT, CHALLENGE)
    ask = Ask(7, "/add-checkpoint?anchor", b"old 0\n")
    answer = LinkAnswer(7, 409, "text/x.tlog.size", b"12\n")

    assert Challenge.parse(CHALLENGE.serialize()) == CHALLENGE
    assert Proof.parse(proof.serialize()) == proof
    assert Ask.parse(ask.serialize()) == ask
    assert LinkAnswer.parse(answer.serialize()) == answer


def test_the_largest_request_and_answer_fit_into_a_frame() -> None:
    ask = Ask(NUMBER_MAX, "/" + "p" * 127, bytes(WITNESS_REQUEST_BYTES_MAX))
    answer = LinkAnswer(NUMBER_MAX, 599, "t" * 128, bytes(WITNESS_ANSWER_BYTES_MAX))

    assert len(ask.serialize()) <= ASK_BYTES_MAX
    assert len(answer.serialize()) <= ANSWER_BYTES_MAX
    assert Ask.parse(ask.serialize()) == ask
    assert LinkAnswer.parse(answer.serialize()) == answer


def test_a_proof_holds_for_its_witness_its_deployment_and_its_challenge_alone() -> None:
    """[K-1]"""
    proof = Proof.make(NAME, KEY, DEPLOYMENT, CHALLENGE)
    proof.verify(WITNESS, DEPLOYMENT, CHALLENGE)

    other_key = VerifierKey(NAME, KeyType.COSIGNATURE_V1, bytes(SigningKey(b"O" * 32).verify_key))
    for witness, deployment, challenge in [
        (other_key, DEPLOYMENT, CHALLENGE),
        (WITNESS, DeploymentId(b"E" * 16), CHALLENGE),
        (WITNESS, DEPLOYMENT, Challenge(b"M" * 32)),
    ]:
        with pytest.raises(VerificationError):
            proof.verify(witness, deployment, challenge)


def test_a_proof_under_anothers_name_is_refused() -> None:
    proof = Proof.make("witness.example/w2", KEY, DEPLOYMENT, CHALLENGE)

    with pytest.raises(VerificationError, match="link names another witness"):
        proof.verify(WITNESS, DEPLOYMENT, CHALLENGE)


FRAMES: list[tuple[type[Challenge | Proof | Ask | LinkAnswer], Value]] = [
    (Challenge, ["challenge"]),
    (Challenge, ["challenge", bytes(31)]),
    (Challenge, ["challenge", bytes(32), 1]),
    (Challenge, ["witness", bytes(32)]),
    (Proof, ["witness", NAME, bytes(63)]),
    (Proof, ["witness", "n" * 129, bytes(64)]),
    (Proof, ["witness", b"name", bytes(64)]),
    (Ask, ["ask", -1, "/", b""]),
    (Ask, ["ask", NUMBER_MAX + 1, "/", b""]),
    (Ask, ["ask", 1, "/" * 129, b""]),
    (Ask, ["ask", 1, "/\n", b""]),
    (Ask, ["ask", 1, "/"]),
    (Ask, {"ask": 1}),
    (LinkAnswer, ["answer", 1, 99, "t", b""]),
    (LinkAnswer, ["answer", 1, 600, "t", b""]),
    (LinkAnswer, ["answer", 1, 200, "t", "text"]),
    (LinkAnswer, ["answer", 1, 200, b""]),
]


@pytest.mark.parametrize(("kind", "value"), FRAMES)
def test_a_frame_in_another_form_is_refused(
    kind: type[Challenge | Proof | Ask | LinkAnswer], value: Value
) -> None:
    with pytest.raises(MalformedError):
        kind.parse(serialize(value))


def test_a_frame_that_is_too_long_is_refused_before_it_is_read() -> None:
    """[E-9]"""
    with pytest.raises(LimitError, match="frame is"):
        Ask.parse(bytes(ASK_BYTES_MAX + 1))
    with pytest.raises(LimitError, match="frame is"):
        LinkAnswer.parse(bytes(ANSWER_BYTES_MAX + 1))
    body = bytes(WITNESS_ANSWER_BYTES_MAX + 1)
    with pytest.raises(ComityError):
        LinkAnswer.parse(LinkAnswer(1, 200, "t", body).serialize())
