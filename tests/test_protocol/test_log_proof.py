"""Proofs are believed without a relay, and read in one form: [L-2] to [L-4]."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity_protocol.checkpoint import Checkpoint, add_signatures, cosign, sign_checkpoint
from comity_protocol.errors import ComityError, LimitError, MalformedError, VerificationError
from comity_protocol.limits import PROOF_HASHES_MAX
from comity_protocol.log_proof import LogProof, parse_hashes, split_head, verify_log_proof
from comity_protocol.merkle import plan_inclusion
from support.notes import (
    HASH_LINE,
    LEAVES,
    LOG,
    LOG_KEY,
    NOTE,
    NOW,
    ORIGIN,
    PROOF,
    QUORUM,
    ROOT,
    SIZE,
    cosignature_by,
    cosigned,
)
from support.world import World


def test_a_proof_of_a_leaf_is_believed_without_a_relay() -> None:
    """[L-2] [L-3]"""
    read = LogProof.parse(PROOF.serialize())

    assert read == PROOF
    assert verify_log_proof(read, LEAVES[3], LOG, QUORUM).sealed_time == NOW


def test_a_proof_is_written_as_the_specification_says() -> None:
    hashes = "".join(f"{b64encode(hashed).decode()}\n" for hashed in PROOF.hashes)
    extra = LogProof(index=3, hashes=PROOF.hashes, note=PROOF.note, extra=b"comity")

    assert PROOF.serialize() == (
        f"c2sp.org/tlog-proof@v1\nindex 3\n{hashes}\n".encode() + PROOF.note
    )
    assert extra.serialize() == (
        f"c2sp.org/tlog-proof@v1\nextra Y29taXR5\nindex 3\n{hashes}\n".encode() + PROOF.note
    )
    assert LogProof.parse(extra.serialize()) == extra


def test_the_proof_of_the_only_leaf_has_no_hashes() -> None:
    note = sign_checkpoint(origin=ORIGIN, size=1, root=LEAVES[0], key=LOG_KEY)
    note = add_signatures(note, [cosignature_by(number, NOW, note) for number in (1, 2, 3)])
    proof = LogProof(index=0, hashes=(), note=note)

    assert LogProof.parse(proof.serialize()) == proof
    assert verify_log_proof(proof, LEAVES[0], LOG, QUORUM).checkpoint.size == 1


@pytest.mark.parametrize(
    ("proof", "leaf"),
    [
        (PROOF, LEAVES[4]),
        (LogProof(index=4, hashes=PROOF.hashes, note=PROOF.note), LEAVES[3]),
        (LogProof(index=7, hashes=PROOF.hashes, note=PROOF.note), LEAVES[3]),
        (LogProof(index=3, hashes=PROOF.hashes[:-1], note=PROOF.note), LEAVES[3]),
        (LogProof(index=3, hashes=PROOF.hashes, note=cosigned(NOW, NOW)), LEAVES[3]),
    ],
    ids=["other leaf", "other index", "index outside", "too short", "thin quorum"],
)
def test_a_proof_of_something_else_is_refused(proof: LogProof, leaf: bytes) -> None:
    """[L-2] [L-3]"""
    with pytest.raises(VerificationError):
        verify_log_proof(proof, leaf, LOG, QUORUM)


PROOF_TEXT = PROOF.serialize().decode()
HOSTILE_PROOFS: dict[str, tuple[str, type[ComityError], str]] = {
    "nothing": ("", MalformedError, "no empty line"),
    "another version": (PROOF_TEXT.replace("@v1", "@v2"), MalformedError, "does not begin with"),
    "no index": (PROOF_TEXT.replace("index 3\n", ""), MalformedError, "no index line"),
    "header alone": (
        "c2sp.org/tlog-proof@v1\n\n" + NOTE.decode(),
        MalformedError,
        "no index line",
    ),
    "negative index": (PROOF_TEXT.replace("index 3", "index -3"), MalformedError, "leaf index is"),
    "leading zero": (PROOF_TEXT.replace("index 3", "index 03"), MalformedError, "leaf index is"),
    "empty extra": (PROOF_TEXT.replace("index", "extra \nindex"), MalformedError, "extra data is"),
    "extra after the index": (
        PROOF_TEXT.replace("index 3\n", "index 3\nextra eA==\n"),
        MalformedError,
        "proof hash is not base64",
    ),
    "short hash": (
        PROOF_TEXT.replace(HASH_LINE, "eA==\n"),
        MalformedError,
        "hash that is not 32 bytes",
    ),
    "stray bits": (
        PROOF_TEXT.replace(HASH_LINE, f"{'A' * 42}B=\n"),
        MalformedError,
        "not canonical base64",
    ),
    "carriage return": (PROOF_TEXT.replace("3\n", "3\r\n"), MalformedError, "control characters"),
    "trailing line": (f"{PROOF_TEXT}more\n", MalformedError, "does not begin with a dash"),
    "no checkpoint": (PROOF_TEXT.partition("\n\n")[0] + "\n\n", MalformedError, "newline"),
    "a note that is no checkpoint": (
        PROOF_TEXT.replace("\n7\n", "\nseven\n"),
        MalformedError,
        "tree size",
    ),
    "64 hashes": (
        PROOF_TEXT.replace(HASH_LINE, HASH_LINE * (PROOF_HASHES_MAX - 1)),
        LimitError,
        "proof has 64 hashes, expected at most 63",
    ),
}


@pytest.mark.parametrize("name", HOSTILE_PROOFS)
def test_a_proof_in_another_form_is_refused(name: str) -> None:
    """[L-4]"""
    text, error, message = HOSTILE_PROOFS[name]

    with pytest.raises(error, match=message):
        LogProof.parse(text.encode())


@given(st.data())
def test_a_proof_changed_at_one_place_is_refused(data: st.DataObject) -> None:
    """[L-2] [L-3] [L-4]"""
    changed = bytearray(PROOF.serialize())
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= 1 << data.draw(st.integers(0, 7))

    # A changed name or key id makes a line a stranger's, and three of three are needed.
    with pytest.raises((MalformedError, VerificationError)):
        verify_log_proof(LogProof.parse(bytes(changed)), LEAVES[3], LOG, QUORUM)


@given(st.data())
def test_a_proof_with_lines_moved_is_refused_or_says_the_same(data: st.DataObject) -> None:
    """[L-4]"""
    lines = PROOF_TEXT.splitlines(keepends=True)
    taken = lines.pop(data.draw(st.integers(0, len(lines) - 1)))
    lines.insert(data.draw(st.integers(0, len(lines))), taken)
    text = "".join(lines)
    try:
        proof = LogProof.parse(text.encode())
        witnessed = verify_log_proof(proof, LEAVES[3], LOG, QUORUM)
    except (MalformedError, VerificationError):
        return
    # Only the order of the signature lines may differ.
    assert sorted(text.splitlines()) == sorted(PROOF_TEXT.splitlines())
    assert witnessed.checkpoint == Checkpoint(origin=ORIGIN, size=SIZE, root=ROOT)


# What stands before a checkpoint.


def test_lines_before_a_checkpoint_are_split_from_it() -> None:
    assert split_head(b"one\ntwo\n\n" + NOTE, "proof") == (["one", "two"], NOTE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"one\ntwo\n", "proof has no empty line before its checkpoint"),
        (b"one\n\n" + NOTE.replace(b"\n7\n", b"\nseven\n"), "tree size is not a whole number"),
    ],
)
def test_lines_without_a_checkpoint_are_refused(data: bytes, message: str) -> None:
    """[L-4]"""
    with pytest.raises(MalformedError, match=message):
        split_head(data, "proof")


def test_hashes_of_a_proof_are_read_up_to_the_height_of_any_tree() -> None:
    line = b64encode(ROOT).decode()

    assert parse_hashes([line] * PROOF_HASHES_MAX) == (ROOT,) * PROOF_HASHES_MAX
    with pytest.raises(LimitError, match="proof has 64 hashes, expected at most 63"):
        parse_hashes([line] * (PROOF_HASHES_MAX + 1))
    with pytest.raises(MalformedError, match="proof has a hash that is not 32 bytes"):
        parse_hashes(["eA=="])


def test_a_proof_in_a_million_entries_with_five_cosignatures_is_below_two_kilobytes() -> None:
    """It fits one QR code, and a page of paper; `make bench` shows the size of a real one."""
    size, witnesses = 1_000_000, 5
    world = World.found(witnesses=witnesses)
    note = sign_checkpoint(
        origin=world.genesis.origin, size=size, root=bytes(32), key=world.log_key
    )
    lines = [cosign(note, name, key, 2**32) for name, key in world.witness_keys.items()]
    longest = max(len(plan_inclusion(index, size).ranges) for index in (0, size // 2, size - 65))
    proof = LogProof(
        index=size - 1,
        hashes=(bytes(32),) * longest,
        note=add_signatures(note, lines),
        extra=bytes(32),
    )

    assert longest == (size - 1).bit_length()
    assert len(lines) == witnesses
    assert len(proof.serialize()) <= 2_048
