"""Direct stamps: whose word counts, for what, and what liars can do."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity_protocol.checkpoint import COSIGNED_TIME_MAX
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.identifiers import DeploymentId
from comity_protocol.keys import Context, FastKey
from comity_protocol.limits import STAMP_BYTES_MAX
from comity_protocol.quorum import Quorum
from comity_protocol.receipts import Signed
from comity_protocol.stamps import (
    Stamp,
    StampRequest,
    open_stamp,
    sign_stamp,
    stamp_payload,
    stamped_at,
    verify_stamp,
)
from support.notes import NOW, WITNESSES, signing_key, witness_key

HERE = DeploymentId(b"h" * 16)
CORE = b"c" * 32
QUORUM = Quorum(3, WITNESSES)


def stamp_by(number: int, at: int = NOW, *, what: bytes = CORE) -> Stamp:
    signed = sign_stamp(signing_key(number), HERE, what, at)
    return open_stamp(signed, HERE, what, witness_key(number))


# --- One stamp --------------------------------------------------------------------------------


def test_a_witness_stamps_what_it_was_asked() -> None:
    """[M-2]"""
    asked = StampRequest.parse(StampRequest(HERE, CORE).serialize())
    answer = sign_stamp(signing_key(1), asked.deployment, asked.what, NOW).serialize()

    stamp = open_stamp(Signed.parse(answer), HERE, CORE, witness_key(1))

    assert stamp == Stamp("witness.example/w1", NOW, Signed.parse(answer).signature)
    verify_stamp(stamp, HERE, CORE, witness_key(1))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (["w1", NOW], "notice, stamp"),
        ([7, NOW, bytes(64)], "notice, witness"),
        (["w1", COSIGNED_TIME_MAX + 1, bytes(64)], "notice, at"),
        (["w1", NOW, bytes(63)], "notice, signature"),
    ],
)
def test_a_stamp_in_something_else_has_one_form(item: Value, message: str) -> None:
    """[C-5]"""
    stamp = stamp_by(1)

    assert Stamp.of(stamp.to_value(), "notice") == stamp
    with pytest.raises(MalformedError, match=message):
        Stamp.of(item, "notice")


@pytest.mark.parametrize("value", [[HERE], [HERE, CORE, 1], [CORE, HERE], [HERE, "c"], HERE])
def test_a_request_out_of_form_is_malformed(value: Value) -> None:
    """[C-5]"""
    with pytest.raises(MalformedError):
        StampRequest.parse(serialize(value))


def test_an_oversize_request_is_refused_before_it_is_parsed() -> None:
    """[E-9]"""
    with pytest.raises(MalformedError, match="stamp request is 129 bytes, expected at most 128"):
        StampRequest.parse(bytes(STAMP_BYTES_MAX + 1))


def test_an_oversize_answer_is_refused_before_it_is_parsed() -> None:
    """[E-9]"""
    with pytest.raises(MalformedError, match="stamp is 129 bytes"):
        open_stamp(Signed(bytes(129), bytes(64)), HERE, CORE, witness_key(1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"v": 2}, "stamp, v is 2, expected 1 to 1"),
        ({"t": "promise"}, "stamp, t is not one of stamp"),
        ({"at": COSIGNED_TIME_MAX + 1}, "stamp, at is 253402300800, expected 0 to 253402300799"),
        ({"what": bytes(31)}, "stamp, what has 31 bytes, expected 32"),
        ({"deployment": bytes(15)}, "stamp, deployment has 15 bytes, expected 16"),
        ({"by": "w1"}, "stamp has the unknown field 'by'"),
    ],
)
def test_a_stamp_out_of_form_is_malformed(changes: dict[str, Value], message: str) -> None:
    """[C-5]"""
    values = parse(stamp_payload(HERE, CORE, NOW))
    assert isinstance(values, dict)
    payload = serialize(values | changes)
    signed = Signed(payload, FastKey(bytes(signing_key(1))).sign(Context.STAMP, payload))

    with pytest.raises(MalformedError, match=message):
        open_stamp(signed, HERE, CORE, witness_key(1))


@pytest.mark.parametrize("at", [-1, COSIGNED_TIME_MAX + 1])
def test_a_witness_stamps_no_time_that_a_calendar_cannot_show(at: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 253402300799 seconds"):
        sign_stamp(signing_key(1), HERE, CORE, at)


def test_the_longest_stamp_fits_its_bound() -> None:
    """[E-9]"""
    assert len(stamp_payload(HERE, CORE, COSIGNED_TIME_MAX)) <= STAMP_BYTES_MAX


def test_an_answer_about_another_core_is_refused() -> None:
    """[M-2] A witness, or who stands before it, answers with a stamp that it gave earlier."""
    old = sign_stamp(signing_key(1), HERE, b"o" * 32, NOW - 1_000)

    with pytest.raises(
        VerificationError, match=r"witness\.example/w1 stamped something else than it was asked"
    ):
        open_stamp(old, HERE, CORE, witness_key(1))


def test_an_answer_of_another_deployment_is_refused() -> None:
    """[M-2]"""
    other = sign_stamp(signing_key(1), DeploymentId(b"o" * 16), CORE, NOW)

    with pytest.raises(VerificationError, match="stamped something else"):
        open_stamp(other, HERE, CORE, witness_key(1))


def test_an_answer_by_another_key_is_refused() -> None:
    """[M-2]"""
    with pytest.raises(VerificationError, match="fast signature does not verify"):
        open_stamp(sign_stamp(signing_key(2), HERE, CORE, NOW), HERE, CORE, witness_key(1))


@pytest.mark.parametrize(
    ("deployment", "what", "earlier"),
    [
        (DeploymentId(b"o" * 16), CORE, 0),
        (HERE, b"o" * 32, 0),
        (HERE, CORE, 1),
    ],
    ids=["another deployment", "another core", "another time"],
)
def test_a_stamp_cannot_be_moved(deployment: DeploymentId, what: bytes, earlier: int) -> None:
    """[M-2]"""
    stamp = stamp_by(1)
    moved = replace(stamp, at=stamp.at - earlier)

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        verify_stamp(moved, deployment, what, witness_key(1))


def test_a_stamp_under_another_witnesss_name_is_refused() -> None:
    """[M-2]"""
    with pytest.raises(VerificationError, match=r"stamp names another witness than .*/w2"):
        verify_stamp(stamp_by(1), HERE, CORE, witness_key(2))


def test_a_witnesss_signature_of_another_kind_is_no_stamp() -> None:
    """[K-1]"""
    payload = stamp_payload(HERE, CORE, NOW)
    forged = Stamp(
        "witness.example/w1", NOW, FastKey(bytes(signing_key(1))).sign(Context.RECEIPT, payload)
    )

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        verify_stamp(forged, HERE, CORE, witness_key(1))


# --- A quorum of them: [M-2] ------------------------------------------------------------------


def test_a_quorum_of_stamps_dates_a_core() -> None:
    """[M-2] Of three, the one in the middle."""
    stamps = [stamp_by(1, 100), stamp_by(2, 130), stamp_by(3, 110)]

    assert stamped_at(stamps, HERE, CORE, QUORUM) == 110


def test_two_of_three_needed_date_nothing() -> None:
    """[M-2]"""
    assert stamped_at([stamp_by(1), stamp_by(2)], HERE, CORE, QUORUM) is None


def test_one_witness_twice_counts_once_with_its_earliest_stamp() -> None:
    """[M-2]"""
    twice = [stamp_by(1, 120), stamp_by(1, 100), stamp_by(1, 110), stamp_by(2, 130)]

    assert stamped_at(twice, HERE, CORE, QUORUM) is None
    assert stamped_at([*twice, stamp_by(3, 90)], HERE, CORE, QUORUM) == 100


def test_a_witness_that_the_genesis_does_not_have_does_not_count() -> None:
    """[M-2]"""
    strangers = [stamp_by(number) for number in (1, 2, 7, 8, 9)]

    assert stamped_at(strangers, HERE, CORE, QUORUM) is None


def test_a_stamp_for_another_core_does_not_count() -> None:
    """[M-2] A desk stamped a letter in January and shows the stamps for an answer of March."""
    stamps = [stamp_by(number, what=b"j" * 32) for number in (1, 2, 3)]

    assert stamped_at(stamps, HERE, CORE, QUORUM) is None


def test_a_bad_stamp_does_not_take_the_others_away() -> None:
    """[M-2]"""
    bad = replace(stamp_by(4), at=1)

    assert stamped_at([bad, *(stamp_by(n) for n in (1, 2, 3))], HERE, CORE, QUORUM) == NOW


SIGNED = {(number, at): stamp_by(number, at) for number in range(1, 6) for at in range(40, 60)}
HONEST = st.integers(45, 54)
LIES = st.integers(40, 59)


@given(st.lists(HONEST, min_size=5, max_size=5), st.integers(1, 5), LIES, st.data())
@settings(max_examples=60, deadline=None)
def test_fewer_liars_than_half_of_the_quorum_cannot_leave_the_honest_clocks(
    honest: list[int], liar: int, lie: int, data: st.DataObject
) -> None:
    """[M-2] Three of five are needed, so one of them may lie, whichever stamps are shown."""
    times = dict(enumerate(honest, start=1)) | {liar: lie}
    true = [at for number, at in times.items() if number != liar]
    shown = data.draw(st.permutations(sorted(times)))[: data.draw(st.integers(3, 5))]

    dated = stamped_at([SIGNED[n, times[n]] for n in shown], HERE, CORE, QUORUM)

    assert dated is not None
    assert min(true) <= dated <= max(true)


@given(st.lists(st.sampled_from(sorted(SIGNED)), max_size=6), st.sampled_from(sorted(SIGNED)))
@settings(max_examples=60, deadline=None)
def test_one_more_stamp_never_makes_it_later(
    some: list[tuple[int, int]], more: tuple[int, int]
) -> None:
    """[M-2]"""
    stamps = [SIGNED[one] for one in some]
    before = stamped_at(stamps, HERE, CORE, QUORUM)
    after = stamped_at([*stamps, SIGNED[more]], HERE, CORE, QUORUM)

    assert before is None or (after is not None and after <= before)
    assert stamped_at(stamps[::-1], HERE, CORE, QUORUM) == before
