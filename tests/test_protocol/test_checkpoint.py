"""Checkpoints are believed by signature and quorum, and read in one form: [L-2] to [L-6]."""

from base64 import b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity_protocol.checkpoint import (
    COSIGNED_TIME_MAX,
    Checkpoint,
    Cosignature,
    WitnessedCheckpoint,
    add_signatures,
    claimed_origin,
    cosign,
    cosignatures,
    note_hash,
    open_checkpoint,
    sign_checkpoint,
    verify_quorum,
)
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.limits import WITNESSES_MAX
from comity_protocol.merkle import EMPTY_ROOT
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import (
    KeyType,
    Note,
    SignatureLine,
    VerifierKey,
    parse_note,
    serialize_note,
    verify_ed25519,
)
from support.notes import (
    LOG,
    LOG_KEY,
    NOTE,
    NOW,
    ORIGIN,
    QUORUM,
    ROOT,
    SIZE,
    WITNESSES,
    cosignature_by,
    cosigned,
    signing_key,
    witness_key,
)

# Checkpoints.


def test_a_checkpoint_is_signed_and_opened() -> None:
    """[L-3]"""
    expected = Checkpoint(origin=ORIGIN, size=SIZE, root=ROOT)

    assert open_checkpoint(NOTE, LOG) == expected
    assert claimed_origin(NOTE) == ORIGIN
    assert NOTE.decode().startswith(f"{ORIGIN}\n7\n{b64encode(ROOT).decode()}\n\n— {ORIGIN} ")
    assert note_hash(NOTE) == sha256(NOTE).digest()


def test_the_example_of_the_specification_is_read() -> None:
    # From C2SP tlog-cosignature; the keys are not published, so only the form can be checked.
    note = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/"
        "Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
        "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJs"
        "X3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
    ).encode()
    parsed = parse_note(note)

    assert Checkpoint.parse(parsed.text).size == 20_852_163
    assert Checkpoint.parse(parsed.text).serialize() == parsed.text
    assert int.from_bytes(parsed.signatures[1].signature[:8], "big") == 1_679_315_147
    assert len(parsed.signatures[1].signature) == 72


def test_an_empty_log_has_a_checkpoint() -> None:
    note = sign_checkpoint(origin=ORIGIN, size=0, root=EMPTY_ROOT, key=LOG_KEY)

    assert open_checkpoint(note, LOG).size == 0


def test_a_checkpoint_of_another_log_is_refused() -> None:
    """[L-3]"""
    forged = sign_checkpoint(origin=ORIGIN, size=SIZE, root=ROOT, key=signing_key(1))
    other = sign_checkpoint(origin="other.example/log", size=SIZE, root=ROOT, key=LOG_KEY)

    for note in (forged, other):
        with pytest.raises(VerificationError, match=r"note has no signature by relay.example/log"):
            open_checkpoint(note, LOG)


def test_a_key_does_not_vouch_for_the_origin_of_another_log() -> None:
    """[L-3]"""
    text = Checkpoint(origin="other.example/log", size=SIZE, root=ROOT).serialize()
    signature = LOG_KEY.sign(text.encode()).signature
    note = serialize_note(Note(text, (SignatureLine(ORIGIN, LOG.key_id, signature),)))

    with pytest.raises(VerificationError, match="checkpoint is of another origin"):
        open_checkpoint(note, LOG)


def test_a_changed_checkpoint_is_refused() -> None:
    """[L-3]"""
    with pytest.raises(VerificationError, match=r"signature by relay.example/log does not verify"):
        open_checkpoint(NOTE.replace(b"\n7\n", b"\n8\n"), LOG)


def test_a_witness_key_does_not_open_a_checkpoint() -> None:
    with pytest.raises(ValueError, match=r"key witness.example/w1 is of type 4, expected 1"):
        open_checkpoint(NOTE, WITNESSES[0])


ROOT_LINE = b64encode(ROOT).decode()
HOSTILE_TEXTS = {
    "nothing": ("", "has 0 lines"),
    "two lines": (f"{ORIGIN}\n7\n", "has 2 lines"),
    "an extension line": (f"{ORIGIN}\n7\n{ROOT_LINE}\nmore\n", "has 4 lines"),
    "an empty extension line": (f"{ORIGIN}\n7\n{ROOT_LINE}\n\n", "has 4 lines"),
    "no final newline": (f"{ORIGIN}\n7\n{ROOT_LINE}", "has 2 lines"),
    "no origin": (f"\n7\n{ROOT_LINE}\n", "origin is empty"),
    "leading zero": (f"{ORIGIN}\n07\n{ROOT_LINE}\n", "tree size is not"),
    "size with a sign": (f"{ORIGIN}\n+7\n{ROOT_LINE}\n", "tree size is not"),
    "size of 2**63": (f"{ORIGIN}\n{2**63}\n{ROOT_LINE}\n", "tree size is not"),
    "space after the size": (f"{ORIGIN}\n7 \n{ROOT_LINE}\n", "tree size is not"),
    "root without padding": (f"{ORIGIN}\n7\n{ROOT_LINE[:-1]}\n", "root is not base64"),
    "root of 31 bytes": (f"{ORIGIN}\n7\n{b64encode(ROOT[1:]).decode()}\n", "root hash is 31"),
    "root in hexadecimal": (f"{ORIGIN}\n7\n{ROOT.hex()}\n", "root hash is 48 bytes"),
    "empty tree, some root": (f"{ORIGIN}\n0\n{ROOT_LINE}\n", "empty tree is not the hash of"),
}


@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_a_checkpoint_in_another_form_is_refused(name: str) -> None:
    """[L-4] [L-6]"""
    text, message = HOSTILE_TEXTS[name]

    with pytest.raises(MalformedError, match=message):
        Checkpoint.parse(text)


def test_a_signature_does_not_make_extension_lines_acceptable() -> None:
    """[L-4]"""
    text = f"{ORIGIN}\n7\n{ROOT_LINE}\nmore\n"
    signature = LOG_KEY.sign(text.encode()).signature
    note = serialize_note(Note(text, (SignatureLine(ORIGIN, LOG.key_id, signature),)))

    with pytest.raises(MalformedError, match="checkpoint has 4 lines, expected 3"):
        open_checkpoint(note, LOG)


PIECES = st.sampled_from(
    ["a", " ", "0", "7", "\n", "\r", "=", ORIGIN, ROOT_LINE, f"\n{ROOT_LINE}\n"]
)


@given(st.text(max_size=60) | st.lists(PIECES, max_size=8).map("".join))
def test_reading_any_text_refuses_or_gives_what_would_be_written(text: str) -> None:
    """[L-4]"""
    try:
        checkpoint = Checkpoint.parse(text)
    except MalformedError:
        return
    assert checkpoint.serialize() == text


@pytest.mark.parametrize(
    ("size", "root", "message"),
    [
        (-1, ROOT, "tree size is -1"),
        (2**63, ROOT, "tree size is"),
        (1, b"", "root hash is 0 bytes"),
    ],
)
def test_what_is_not_a_checkpoint_is_not_signed(size: int, root: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sign_checkpoint(origin=ORIGIN, size=size, root=root, key=LOG_KEY)


# Cosignatures.


def test_a_cosignature_signs_the_bytes_that_the_specification_gives() -> None:
    line = cosignature_by(1, NOW)
    message = b"cosignature/v1\ntime 1800000000\n" + NOTE.partition(b"\n\n")[0] + b"\n"

    assert line.key_id == WITNESSES[0].key_id
    assert line.signature[:8] == NOW.to_bytes(8, "big")
    verify_ed25519(WITNESSES[0], message, line.signature[8:])


def test_the_key_id_of_a_witness_is_not_that_of_a_log_with_its_key() -> None:
    as_log = VerifierKey(WITNESSES[0].name, KeyType.ED25519, WITNESSES[0].public_key)

    assert as_log.key_id != WITNESSES[0].key_id
    with pytest.raises(ValueError, match="is of type 1, expected 4"):
        cosignatures(NOTE, [as_log])


def test_cosignatures_of_known_witnesses_are_listed_by_time() -> None:
    note = cosigned(NOW + 5, NOW, NOW + 3)

    assert cosignatures(note, WITNESSES) == (
        Cosignature(NOW, "witness.example/w2"),
        Cosignature(NOW + 3, "witness.example/w3"),
        Cosignature(NOW + 5, "witness.example/w1"),
    )
    assert cosignatures(note, WITNESSES[3:]) == ()


def test_a_later_cosignature_replaces_the_earlier_one() -> None:
    note = add_signatures(cosigned(NOW, NOW), [cosignature_by(1, NOW + 600)])

    assert len(parse_note(note).signatures) == 3
    assert cosignatures(note, WITNESSES[:1]) == (Cosignature(NOW + 600, "witness.example/w1"),)


@pytest.mark.parametrize("time", [-1, 0, COSIGNED_TIME_MAX + 1])
def test_a_witness_does_not_cosign_at_an_impossible_time(time: int) -> None:
    with pytest.raises(ValueError, match="time is"):
        cosignature_by(1, time)


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ((COSIGNED_TIME_MAX + 1).to_bytes(8, "big") + bytes(64), "is of an impossible time"),
        ((2**64 - 1).to_bytes(8, "big") + bytes(64), "is of an impossible time"),
        (NOW.to_bytes(8, "big") + bytes(64), "does not verify"),
        (NOW.to_bytes(8, "big") + bytes(63), "is 63 bytes, expected 64"),
        (b"\x00", "is 0 bytes, expected 64"),
        ((NOW - 1).to_bytes(8, "big") + cosignature_by(1, NOW).signature[8:], "does not verify"),
    ],
    ids=["year 10000", "largest time", "no signature", "cut", "no time", "time set back"],
)
def test_a_wrong_cosignature_of_a_pinned_witness_spoils_the_note(
    signature: bytes, message: str
) -> None:
    """[L-3]"""
    wrong = SignatureLine(WITNESSES[0].name, WITNESSES[0].key_id, signature)
    note = add_signatures(cosigned(NOW, NOW, NOW, NOW), [wrong])

    with pytest.raises(VerificationError, match=message):
        verify_quorum(note, LOG, QUORUM)


# The quorum.


def test_a_checkpoint_with_a_quorum_is_believed() -> None:
    """[L-3]"""
    note = cosigned(NOW, NOW + 1, NOW + 2)

    assert verify_quorum(note, LOG, QUORUM) == WitnessedCheckpoint(
        checkpoint=Checkpoint(origin=ORIGIN, size=SIZE, root=ROOT),
        cosignatures=cosignatures(note, WITNESSES),
        sealed_time=NOW + 1,
        note_hash=sha256(note).digest(),
    )


def test_one_witness_too_few_is_not_a_quorum() -> None:
    """[L-3]"""
    with pytest.raises(VerificationError, match="has 2 cosignatures of pinned witnesses, expected"):
        verify_quorum(cosigned(NOW, NOW), LOG, QUORUM)


def test_strangers_do_not_count() -> None:
    """[L-3]"""
    strangers = [cosignature_by(number, NOW) for number in range(50, 60)]
    note = add_signatures(cosigned(NOW, NOW), strangers)

    with pytest.raises(VerificationError, match="has 2 cosignatures"):
        verify_quorum(note, LOG, QUORUM)


def test_a_stranger_under_the_name_of_a_witness_does_not_count() -> None:
    """[L-3]"""
    impostor = cosign(NOTE, WITNESSES[2].name, signing_key(77), NOW)

    with pytest.raises(VerificationError, match="has 2 cosignatures"):
        verify_quorum(add_signatures(cosigned(NOW, NOW), [impostor]), LOG, QUORUM)


def test_cosignatures_do_not_replace_the_signature_of_the_log() -> None:
    """[L-3]"""
    parsed = parse_note(cosigned(NOW, NOW, NOW, NOW))
    note = serialize_note(Note(parsed.text, parsed.signatures[1:]))

    with pytest.raises(VerificationError, match=r"note has no signature by relay.example/log"):
        verify_quorum(note, LOG, QUORUM)


def test_cosignatures_of_another_checkpoint_do_not_count() -> None:
    """[L-3]"""
    other = sign_checkpoint(origin=ORIGIN, size=SIZE + 1, root=ROOT, key=LOG_KEY)
    moved = [line for line in parse_note(cosigned(NOW, NOW, NOW)).signatures if line.name != ORIGIN]

    with pytest.raises(VerificationError, match="does not verify"):
        verify_quorum(add_signatures(other, moved), LOG, QUORUM)


@given(
    st.integers(1, 5).flatmap(
        lambda k: st.tuples(st.just(k), st.lists(st.integers(0, 9), min_size=k, max_size=5))
    )
)
def test_the_sealed_time_is_an_element_of_the_sorted_times(
    drawn: tuple[int, list[int]],
) -> None:
    """[L-5]"""
    threshold, offsets = drawn
    note = cosigned(*(NOW + offset for offset in offsets))

    witnessed = verify_quorum(note, LOG, Quorum(threshold, WITNESSES))

    assert witnessed.sealed_time == NOW + sorted(offsets)[threshold // 2]


@pytest.mark.parametrize("lie", [-(10**8), 10**9])
@pytest.mark.parametrize("liars", [(1,), (2,), (1, 2), (2, 5)])
def test_fewer_liars_than_half_the_quorum_cannot_move_the_sealed_time(
    lie: int, liars: tuple[int, ...]
) -> None:
    """[L-5]"""
    times = [NOW + number for number in range(5)]
    for liar in liars:
        times[liar - 1] += lie
    honest = [time for time in times if abs(time - NOW) < 5]

    sealed_time = verify_quorum(cosigned(*times), LOG, Quorum(5, WITNESSES)).sealed_time

    assert min(honest) <= sealed_time <= max(honest)


def test_leaving_out_cosignatures_can_only_make_the_sealed_time_later() -> None:
    """[L-5]"""
    times = [NOW, NOW + 1, NOW + 2, NOW + 3, NOW + 4]

    all_of_them = verify_quorum(cosigned(*times), LOG, QUORUM).sealed_time
    parsed = parse_note(cosigned(*times))
    without_first = serialize_note(Note(parsed.text, parsed.signatures[:1] + parsed.signatures[2:]))

    assert all_of_them == NOW + 1
    assert verify_quorum(without_first, LOG, QUORUM).sealed_time == NOW + 2


MANY = tuple(witness_key(number) for number in range(1, WITNESSES_MAX + 2))
TWICE = VerifierKey("alias.example", KeyType.COSIGNATURE_V1, WITNESSES[0].public_key)
SAME_NAME = VerifierKey(WITNESSES[0].name, KeyType.COSIGNATURE_V1, WITNESSES[1].public_key)


@pytest.mark.parametrize(
    ("threshold", "witnesses", "message"),
    [
        (0, WITNESSES, "quorum is 0 of 5, expected 1 to 5"),
        (6, WITNESSES, "quorum is 6 of 5"),
        (1, (), "quorum is 1 of 0"),
        (1, MANY, f"quorum has {WITNESSES_MAX + 1} witnesses"),
        (1, (LOG,), "is of type 1, expected 4 or 6"),
        (1, (WITNESSES[0], TWICE), "one witness is twice in the quorum"),
        (1, (WITNESSES[0], SAME_NAME), "one witness is twice in the quorum"),
    ],
    ids=["none", "too many", "nobody", "crowd", "log key", "same key", "same name"],
)
def test_a_quorum_that_does_not_protect_cannot_be_made(
    threshold: int, witnesses: tuple[VerifierKey, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Quorum(threshold, witnesses)


def test_a_log_is_not_its_own_witness() -> None:
    own = VerifierKey("own.example", KeyType.COSIGNATURE_V1, LOG.public_key)

    with pytest.raises(ValueError, match="key of the log is among its witnesses"):
        verify_quorum(NOTE, LOG, Quorum(1, (own,)))
