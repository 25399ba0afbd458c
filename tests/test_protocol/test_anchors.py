"""Anchors: what stays proven when Ed25519 is broken, and what an attacker may try. [L-10]"""

from dataclasses import replace
from typing import Final

import pytest

from comity_protocol.checkpoint import (
    COSIGNED_TIME_MAX,
    Checkpoint,
    add_signatures,
    cosign_anchor,
    cosignatures,
    sign_checkpoint,
    verify_anchor,
    verify_quorum,
)
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.keys import AnchorKey, verify_anchor_signature
from comity_protocol.limits import NOTE_BYTES_MAX
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import (
    KeyType,
    Note,
    SignatureLine,
    VerifierKey,
    parse_note,
    serialize_note,
)
from support.notes import (
    LOG,
    LOG_KEY,
    NOTE,
    NOW,
    ORIGIN,
    ROOT,
    SIZE,
    cosignature_by,
    cosigned,
    signing_key,
)
from support.notes import QUORUM as ED25519_QUORUM

SECRETS: Final = {number: AnchorKey.from_seed(bytes([number]) * 32) for number in range(1, 8)}


def name_of(number: int) -> str:
    return f"witness.example/w{number}"


def anchor_key(number: int) -> VerifierKey:
    return VerifierKey(name_of(number), KeyType.MLDSA44, SECRETS[number].public)


QUORUM: Final = Quorum(2, tuple(anchor_key(number) for number in (1, 2, 3)))
LINES: Final = {
    number: cosign_anchor(NOTE, name_of(number), SECRETS[number], NOW + number)
    for number in SECRETS
}


def anchored(*numbers: int, note: bytes = NOTE) -> bytes:
    """The note with the ML-DSA-44 lines of these witnesses."""
    return add_signatures(note, [LINES[number] for number in numbers])


# What is signed.


def test_an_anchor_signs_the_bytes_that_the_specification_gives() -> None:
    """[L-10]"""
    name, origin = name_of(1).encode(), ORIGIN.encode()
    message = (
        b"subtree/v1\n\x00"
        + bytes([len(name)]) + name
        + (NOW + 1).to_bytes(8, "big")
        + bytes([len(origin)]) + origin
        + bytes(8) + SIZE.to_bytes(8, "big") + ROOT
    )  # fmt: skip

    assert len(LINES[1].signature) == 8 + 2_420
    assert LINES[1].signature[:8] == (NOW + 1).to_bytes(8, "big")
    verify_anchor_signature(SECRETS[1].public, message, LINES[1].signature[8:])


def test_an_anchor_with_its_quorum_is_believed() -> None:
    """[L-10] [L-5]"""
    witnessed = verify_anchor(anchored(1, 2, 3), ORIGIN, QUORUM)

    assert witnessed.checkpoint == Checkpoint(origin=ORIGIN, size=SIZE, root=ROOT)
    assert witnessed.sealed_time == NOW + 2
    assert [one.witness for one in witnessed.cosignatures] == [name_of(n) for n in (1, 2, 3)]


def test_a_nested_anchor_is_believed_with_its_tree_alone() -> None:
    """[L-10]"""
    tree = Quorum(
        2, (replace(QUORUM, name="States"), Quorum(1, (anchor_key(4), anchor_key(5)), "neutral"))
    )

    assert verify_anchor(anchored(1, 2, 4), ORIGIN, tree).sealed_time == NOW + 4
    for numbers in ((1, 2, 3), (1, 4, 5)):
        with pytest.raises(VerificationError, match="has 3 cosignatures of pinned witnesses, expe"):
            verify_anchor(anchored(*numbers), ORIGIN, tree)


def test_cosignatures_of_both_kinds_are_read_side_by_side() -> None:
    note = anchored(1, note=cosigned(NOW))

    assert [one.time for one in cosignatures(note, [anchor_key(1)])] == [NOW + 1]
    assert [one.time for one in cosignatures(note, ED25519_QUORUM.witnesses)] == [NOW]


def test_a_note_with_seven_anchor_lines_has_room() -> None:
    """Measured: 1 log line, 7 of Ed25519, 7 of ML-DSA-44."""
    keys = tuple(map(anchor_key, range(1, 8)))
    note = anchored(*range(1, 8), note=cosigned(*[NOW] * 7))

    assert len(anchored(1)) - len(NOTE) == 3_268
    assert len(cosigned(*[NOW] * 7)) == 1_077
    assert len(note) == 1_077 + 7 * 3_268 == 23_953
    assert len(note) < NOTE_BYTES_MAX
    assert verify_anchor(note, ORIGIN, Quorum(7, keys)).sealed_time == NOW + 4


# When Ed25519 is broken.


def test_an_anchor_is_believed_although_every_ed25519_line_is_forged() -> None:
    """[L-10] Whoever can forge Ed25519 must not be able to spoil an anchor either."""
    parsed = parse_note(anchored(1, 2, note=cosigned(NOW, NOW, NOW)))
    spoilt = tuple(
        line if len(line.signature) > 72 else replace(line, signature=bytes(len(line.signature)))
        for line in parsed.signatures
    )
    note = serialize_note(Note(parsed.text, spoilt))

    assert verify_anchor(note, ORIGIN, QUORUM).checkpoint.size == SIZE
    with pytest.raises(VerificationError, match="does not verify"):
        verify_quorum(note, LOG, ED25519_QUORUM)


def test_an_anchor_is_believed_without_the_log_s_signature() -> None:
    """[L-10]"""
    parsed = parse_note(anchored(1, 3))
    note = serialize_note(Note(parsed.text, parsed.signatures[1:]))

    assert verify_anchor(note, ORIGIN, QUORUM).sealed_time == NOW + 3


def test_whoever_can_forge_ed25519_makes_no_anchor() -> None:
    """[L-10] A second head, with genuine Ed25519 lines of everybody, is not believed."""
    other = sign_checkpoint(origin=ORIGIN, size=SIZE, root=bytes(32), key=LOG_KEY)
    forged = add_signatures(
        other, [cosignature_by(number, NOW, other) for number in (1, 2, 3, 4, 5)]
    )

    assert verify_quorum(forged, LOG, ED25519_QUORUM).checkpoint.root == bytes(32)
    with pytest.raises(VerificationError, match="has 0 cosignatures of pinned witnesses"):
        verify_anchor(forged, ORIGIN, QUORUM)


# Attacks.


def moved(origin: str = ORIGIN, size: int = SIZE, root: bytes = ROOT) -> bytes:
    """Another checkpoint, with the anchor lines of this one."""
    return anchored(1, 2, 3, note=sign_checkpoint(origin=origin, size=size, root=root, key=LOG_KEY))


@pytest.mark.parametrize(
    ("note", "origin"),
    [
        (moved(origin="other.example/log"), "other.example/log"),
        (moved(size=SIZE + 1), ORIGIN),
        (moved(size=SIZE - 1), ORIGIN),
        (moved(root=bytes(32)), ORIGIN),
    ],
    ids=["another log", "larger", "smaller", "another root"],
)
def test_lines_of_one_anchor_do_not_prove_another(note: bytes, origin: str) -> None:
    """[L-10]"""
    with pytest.raises(VerificationError, match="w1: anchor signature does not verify"):
        verify_anchor(note, origin, QUORUM)


def test_an_anchor_of_another_log_is_refused() -> None:
    """[L-10]"""
    note = sign_checkpoint(origin="other.example/log", size=SIZE, root=ROOT, key=LOG_KEY)
    lines = [cosign_anchor(note, name_of(n), SECRETS[n], NOW) for n in (1, 2)]

    with pytest.raises(VerificationError, match=r"of another origin than relay.example/log"):
        verify_anchor(add_signatures(note, lines), ORIGIN, QUORUM)


def test_a_subtree_that_does_not_begin_at_the_first_leaf_is_no_anchor() -> None:
    """[L-10] C2SP lets the same key sign any subtree; only those from 0 are checkpoints."""
    name, origin = name_of(1).encode(), ORIGIN.encode()
    message = (
        b"subtree/v1\n\x00" + bytes([len(name)]) + name + (NOW + 1).to_bytes(8, "big")
        + bytes([len(origin)]) + origin + (4).to_bytes(8, "big") + SIZE.to_bytes(8, "big") + ROOT
    )  # fmt: skip
    signature = LINES[1].signature[:8] + SECRETS[1].sign(message)
    note = add_signatures(anchored(2, 3), [replace(LINES[1], signature=signature)])

    with pytest.raises(VerificationError, match="w1: anchor signature does not verify"):
        verify_anchor(note, ORIGIN, QUORUM)


def test_a_line_made_under_another_witness_s_name_is_refused() -> None:
    """[L-10] The message names the cosigner, which `cosignature/v1` does not."""
    made = cosign_anchor(NOTE, name_of(9), SECRETS[1], NOW)
    renamed = SignatureLine(name_of(1), anchor_key(1).key_id, made.signature)

    with pytest.raises(VerificationError, match="w1: anchor signature does not verify"):
        verify_anchor(add_signatures(anchored(2, 3), [renamed]), ORIGIN, QUORUM)


def test_a_line_of_one_witness_does_not_count_for_another() -> None:
    """[L-10]"""
    copied = replace(LINES[1], name=name_of(2), key_id=anchor_key(2).key_id)

    with pytest.raises(VerificationError, match="w2: anchor signature does not verify"):
        verify_anchor(add_signatures(anchored(1), [copied]), ORIGIN, QUORUM)


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        (cosignature_by(1, NOW).signature, "key of 1312 and a signature of 64 bytes"),
        (LINES[1].signature[:-1], "key of 1312 and a signature of 2419 bytes"),
        (LINES[1].signature + b"\x00", "key of 1312 and a signature of 2421 bytes"),
        (b"\x00", "is of an impossible time"),
        ((NOW + 2).to_bytes(8, "big") + LINES[1].signature[8:], "does not verify"),
        (bytes(8) + LINES[1].signature[8:], "is of an impossible time"),
        ((COSIGNED_TIME_MAX + 1).to_bytes(8, "big") + bytes(2_420), "is of an impossible time"),
    ],
    ids=["Ed25519", "cut", "longer", "no time", "time set on", "time of zero", "year 10000"],
)
def test_a_wrong_line_of_a_pinned_witness_spoils_the_anchor(signature: bytes, message: str) -> None:
    """[L-10]"""
    note = add_signatures(anchored(2, 3), [replace(LINES[1], signature=signature)])

    with pytest.raises(VerificationError, match=message):
        verify_anchor(note, ORIGIN, QUORUM)


def test_a_subtree_signature_without_a_time_dates_nothing() -> None:
    """[L-5] [L-10] C2SP's time 0 states no time; taken as one it would date before everything."""
    name, origin = name_of(1).encode(), ORIGIN.encode()
    message = (
        b"subtree/v1\n\x00" + bytes([len(name)]) + name + bytes(8)
        + bytes([len(origin)]) + origin + bytes(8) + SIZE.to_bytes(8, "big") + ROOT
    )  # fmt: skip
    line = replace(LINES[1], signature=bytes(8) + SECRETS[1].sign(message))

    with pytest.raises(VerificationError, match="is of an impossible time"):
        verify_anchor(add_signatures(anchored(2, 3), [line]), ORIGIN, QUORUM)


def test_ed25519_lines_do_not_stand_in_for_anchor_lines() -> None:
    """[L-10]"""
    with pytest.raises(VerificationError, match="has 0 cosignatures of pinned witnesses"):
        verify_anchor(cosigned(NOW, NOW, NOW), ORIGIN, QUORUM)


def test_anchor_lines_do_not_stand_in_for_ed25519_lines() -> None:
    """[L-3]"""
    with pytest.raises(VerificationError, match="has 0 cosignatures of pinned witnesses"):
        verify_quorum(anchored(1, 2, 3), LOG, ED25519_QUORUM)


def test_an_anchor_without_its_quorum_is_refused() -> None:
    """[L-10]"""
    with pytest.raises(VerificationError, match="has 1 cosignatures of pinned witnesses, expected"):
        verify_anchor(anchored(1, 4, 5, 6), ORIGIN, QUORUM)


def test_an_anchor_in_another_form_is_refused() -> None:
    """[L-4] [L-10]"""
    parsed = parse_note(anchored(1, 2))
    note = serialize_note(Note(parsed.text + "more\n", parsed.signatures))

    with pytest.raises(MalformedError, match="checkpoint has 4 lines, expected 3"):
        verify_anchor(note, ORIGIN, QUORUM)


def test_each_check_takes_keys_of_its_own_kind() -> None:
    """[L-3] [L-10]"""
    with pytest.raises(ValueError, match="is of type 4, expected 6"):
        verify_anchor(NOTE, ORIGIN, ED25519_QUORUM)
    with pytest.raises(ValueError, match="is of type 6, expected 4"):
        verify_quorum(NOTE, LOG, QUORUM)


@pytest.mark.parametrize("time", [-1, 0, COSIGNED_TIME_MAX + 1])
def test_a_witness_does_not_anchor_at_an_impossible_time(time: int) -> None:
    with pytest.raises(ValueError, match="time is"):
        cosign_anchor(NOTE, name_of(1), SECRETS[1], time)


def test_a_witness_does_not_anchor_under_a_name_that_the_format_cannot_hold() -> None:
    with pytest.raises(ValueError, match="name is 256 bytes, expected at most 255"):
        cosign_anchor(NOTE, "w" * 256, SECRETS[1], NOW)


# Keys.


def test_an_anchor_key_has_a_text_form() -> None:
    """[L-4]"""
    text = anchor_key(1).serialize()

    assert VerifierKey.parse(text) == anchor_key(1)
    assert len(text) == len(name_of(1)) + 1 + 8 + 1 + 1_752


def test_a_key_of_the_other_kind_s_length_is_refused() -> None:
    with pytest.raises(ValueError, match="public key is 32 bytes, expected 1312"):
        VerifierKey("w", KeyType.MLDSA44, bytes(signing_key(1).verify_key))
    with pytest.raises(ValueError, match="public key is 1312 bytes, expected 32"):
        VerifierKey("w", KeyType.COSIGNATURE_V1, SECRETS[1].public)


def test_an_anchor_key_is_what_its_seed_makes_it_and_shows_no_secret() -> None:
    key = AnchorKey.generate()

    assert AnchorKey(key.seed).public == key.public
    assert key.seed.hex() not in repr(key)
    with pytest.raises(ValueError, match="anchor seed"):
        AnchorKey.from_seed(bytes(31))
