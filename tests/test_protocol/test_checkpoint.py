"""Checkpoints are believed by signature and quorum, and read in one form: [L-2] to [L-6]."""

from base64 import b64decode, b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from comity_protocol.checkpoint import (
    COSIGNED_TIME_MAX,
    AddCheckpoint,
    Checkpoint,
    Cosignature,
    Cosigned,
    KnownSize,
    LogProof,
    Quorum,
    Refused,
    WitnessAnswer,
    WitnessedCheckpoint,
    add_signatures,
    claimed_origin,
    cosign,
    cosignatures,
    note_hash,
    open_checkpoint,
    parse_witness_answer,
    sign_checkpoint,
    verify_log_proof,
    verify_quorum,
)
from comity_protocol.errors import ComityError, LimitError, MalformedError, VerificationError
from comity_protocol.limits import PROOF_HASHES_MAX, WITNESSES_MAX
from comity_protocol.merkle import EMPTY_ROOT, Frontier, inclusion_proof, leaf_hash
from comity_protocol.signed_note import (
    KeyType,
    Note,
    SignatureLine,
    VerifierKey,
    parse_note,
    serialize_note,
    verify_ed25519,
)

ORIGIN = "relay.example/log"
NOW = 1_800_000_000
SIZE = 7
LEAVES = [leaf_hash(b"leaf %d" % index) for index in range(SIZE)]
ROOT = Frontier().extend(LEAVES).root


def signing_key(number: int) -> SigningKey:
    return SigningKey(bytes([number]) * 32)


def witness_key(number: int) -> VerifierKey:
    public_key = bytes(signing_key(number).verify_key)
    return VerifierKey(f"witness.example/w{number}", KeyType.COSIGNATURE_V1, public_key)


LOG_KEY = signing_key(200)
LOG = VerifierKey(ORIGIN, KeyType.ED25519, bytes(LOG_KEY.verify_key))
WITNESSES = tuple(witness_key(number) for number in range(1, 6))
QUORUM = Quorum(3, WITNESSES)
NOTE = sign_checkpoint(origin=ORIGIN, size=SIZE, root=ROOT, key=LOG_KEY)


def cosignature_by(number: int, time: int, note: bytes = NOTE) -> SignatureLine:
    return cosign(note, f"witness.example/w{number}", signing_key(number), time)


def cosigned(*times: int, note: bytes = NOTE) -> bytes:
    """The note with cosignatures of the first witnesses, each at its time."""
    lines = [cosignature_by(number, time) for number, time in enumerate(times, start=1)]
    return add_signatures(note, lines)


PROOF = LogProof(
    index=3,
    hashes=inclusion_proof(3, SIZE, lambda _, start, count: LEAVES[start : start + count]),
    note=cosigned(NOW, NOW, NOW),
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


@pytest.mark.parametrize("time", [-1, COSIGNED_TIME_MAX + 1])
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
        (1, (LOG,), "is of type 1, expected 4"),
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


# Proofs for strangers.


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
HASH_LINE = f"{b64encode(PROOF.hashes[0]).decode()}\n"
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


# The conversation with a witness.


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


def test_a_published_cosignature_time_is_read() -> None:
    # From the tests of transparency-dev/formats: 2024-10-03T14:06:07Z.
    data = b64decode(
        "ZGhGuQAAAABm/qTPeyKXD+R2rzyQsxPiP8mXum7qq/iF0u4vanlqJyocWODBt97w9uL+8qT7S5gxEHWWOworDcFi"
        "EBYJXORmnFBOBA=="
    )

    assert int.from_bytes(data[4:12], "big") == 1_727_964_367
    assert len(data) == 4 + 8 + 64
