"""Evidence: what convicts a log or a relay, and what does not."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from comity_protocol.checkpoint import add_signatures, cosign, sign_checkpoint, verify_quorum
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import LimitError, MalformedError, VerificationError
from comity_protocol.evidence import (
    BrokenPromise,
    Fork,
    parse_evidence,
    verify_broken_promise,
    verify_evidence,
    verify_fork,
)
from comity_protocol.identifiers import DeploymentId
from comity_protocol.keys import FastKey
from comity_protocol.leaves import envelope_leaf_of, receipt_hash, receipt_leaf, statement_leaf
from comity_protocol.limits import EVIDENCE_BYTES_MAX, PROOF_HASHES_MAX
from comity_protocol.merkle import Frontier, consistency_proof, leaf_hash
from comity_protocol.receipts import Promise, Signed, sign_promise
from comity_protocol.signed_note import KeyType, SignatureLine, VerifierKey
from support.world import ORIGIN, World

NOW = 1_800_000_000
WHAT = b"w" * 32

WORLD = World.found(("XA",))
GENESIS = WORLD.genesis


def entry(number: int, of: str = "here") -> bytes:
    return receipt_leaf(f"receipt {number} {of}".encode())


ENTRIES = [entry(number) for number in range(20)]


def hashes(entries: list[bytes]) -> list[bytes]:
    return [leaf_hash(one) for one in entries]


def root_of(entries: list[bytes]) -> bytes:
    return Frontier().extend(hashes(entries)).root


def head(entries: list[bytes], *, origin: str = ORIGIN, key: SigningKey | None = None) -> bytes:
    return sign_checkpoint(
        origin=origin, size=len(entries), root=root_of(entries), key=key or WORLD.log_key
    )


def witnessed(entries: list[bytes], at: int = NOW, *, by: int = 2) -> bytes:
    note = head(entries)
    keys = list(WORLD.witness_keys.items())[:by]
    return add_signatures(note, [cosign(note, name, key, at) for name, key in keys])


def exclusion(small: list[bytes], large: list[bytes]) -> tuple[bytes, ...]:
    """The root that the larger log has at the smaller's size, and the proof from there."""
    level = hashes(large)
    path = consistency_proof(
        len(small), len(large), lambda _, start, count: level[start : start + count]
    )
    return (root_of(large[: len(small)]), *path)


def forked(size: int, at: int) -> list[bytes]:
    """The first entries with another one at a place."""
    return [*ENTRIES[:at], entry(at, of="elsewhere"), *ENTRIES[at + 1 : size]]


# --- Forks: [V-1] -----------------------------------------------------------------------------


def test_two_roots_of_one_size_are_a_fork() -> None:
    """[V-1] One half of the desks is shown another past than the other."""
    fork = Fork(GENESIS.deployment, head(ENTRIES[:7]), head(forked(7, 3)))

    assert verify_evidence(fork.serialize(), GENESIS) == (
        f"the log {ORIGIN} signed two heads that exclude each other, of 7 and of 7 entries"
    )


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_larger_head_of_another_past_is_a_fork(data: st.DataObject) -> None:
    """[V-1]"""
    large = data.draw(st.integers(2, 20))
    small = data.draw(st.integers(1, large - 1))
    at = data.draw(st.integers(0, small - 1))

    verify_fork(
        head(forked(small, at)),
        head(ENTRIES[:large]),
        GENESIS.log,
        exclusion(forked(small, at), ENTRIES[:large]),
    )


def test_witnesses_that_cosigned_both_heads_are_named() -> None:
    """[V-1] [W-2] Bribed witnesses are convicted by the same file."""
    fork = Fork(GENESIS.deployment, witnessed(ENTRIES[:7], by=2), witnessed(forked(7, 3), by=1))

    assert verify_evidence(fork.serialize(), GENESIS).endswith(
        "of 7 and of 7 entries, and both were cosigned by witness0.example"
    )


def test_a_forged_cosignature_convicts_no_witness_and_spoils_no_evidence() -> None:
    """[V-1] A log adds a bad line in order that its fork is refused."""
    (key, *_) = GENESIS.quorum.witnesses
    bad = SignatureLine(key.name, key.key_id, NOW.to_bytes(8, "big") + bytes(64))
    first, second = (add_signatures(head(one), [bad]) for one in (ENTRIES[:7], forked(7, 3)))

    sentence = verify_evidence(Fork(GENESIS.deployment, first, second).serialize(), GENESIS)

    assert sentence.endswith("of 7 and of 7 entries")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (ENTRIES[:7], ENTRIES[:7], r"heads of 7 entries do not exclude each other.* \[V-1\]"),
        (ENTRIES[:5], ENTRIES[:7], r"heads of 5 and 7 entries come without a proof .* \[V-1\]"),
        ([], ENTRIES[:7], r"heads of 0 and 7 entries come without a proof .* \[V-1\]"),
    ],
)
def test_two_heads_of_one_log_are_no_fork(
    first: list[bytes], second: list[bytes], message: str
) -> None:
    """[V-1] Nobody can be accused of having grown."""
    fork = Fork(GENESIS.deployment, head(first), head(second))

    with pytest.raises(VerificationError, match=message):
        verify_evidence(fork.serialize(), GENESIS)


def test_a_proof_that_two_heads_are_of_one_log_proves_no_fork() -> None:
    """[V-1]"""
    small, large = ENTRIES[:5], ENTRIES[:7]

    with pytest.raises(VerificationError, match=r"this proves no fork, but its absence \[V-1\]"):
        verify_fork(head(small), head(large), GENESIS.log, exclusion(small, large))


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_no_made_up_proof_convicts_an_honest_log(data: st.DataObject) -> None:
    """[V-1] The accuser has all entries and chooses root and path as it likes."""
    large = data.draw(st.integers(2, 20))
    small = data.draw(st.integers(0, large - 1))
    pool = [*hashes(ENTRIES), *(root_of(ENTRIES[:n]) for n in range(21)), bytes(32)]
    made_up = list(exclusion(ENTRIES[:small], ENTRIES[:large]))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(made_up) - 1))
        made_up[place : place + data.draw(st.integers(0, 1))] = [data.draw(st.sampled_from(pool))]

    with pytest.raises(VerificationError):
        verify_fork(head(ENTRIES[:small]), head(ENTRIES[:large]), GENESIS.log, tuple(made_up))


def test_a_proof_beside_heads_of_one_size_is_refused() -> None:
    """[V-1] One fork has one file."""
    with pytest.raises(VerificationError, match=r"this proves no fork \[V-1\]"):
        verify_fork(head(ENTRIES[:7]), head(forked(7, 3)), GENESIS.log, (bytes(32),))


def test_the_smaller_head_comes_first() -> None:
    """[V-1]"""
    small, large = forked(5, 3), ENTRIES[:7]

    with pytest.raises(VerificationError, match="tree size went from 7 to 5"):
        verify_fork(head(large), head(small), GENESIS.log, exclusion(small, large))


@pytest.mark.parametrize(
    "other",
    [
        head(forked(7, 3), key=SigningKey(bytes(32))),
        head(forked(7, 3), origin="other.example/log"),
    ],
    ids=["by another key", "of another origin"],
)
def test_a_head_of_another_log_is_no_fork_of_this(other: bytes) -> None:
    """[V-1] Anybody can sign a head with a key of one's own."""
    for notes in ((head(ENTRIES[:7]), other), (other, head(ENTRIES[:7]))):
        with pytest.raises(VerificationError):
            verify_fork(*notes, GENESIS.log)


def test_a_key_of_another_log_judges_only_its_own() -> None:
    """[V-1]"""
    key = SigningKey(bytes(32))
    log = VerifierKey("other.example/log", KeyType.ED25519, bytes(key.verify_key))

    with pytest.raises(VerificationError, match=r"note has no signature by other\.example/log"):
        verify_fork(head(ENTRIES[:7]), head(forked(7, 3)), log)


# --- Broken promises: [V-2] -------------------------------------------------------------------


def promise(what: bytes = WHAT, at: int = NOW - 100, key: FastKey | None = None) -> Signed:
    return sign_promise(key or WORLD.relay_key, Promise(what, at=at))


def broken(note: bytes, signed: Signed | None = None) -> bytes:
    return BrokenPromise(GENESIS.deployment, signed or promise(), note).serialize()


def test_a_log_that_went_on_without_what_was_promised_convicts_the_relay() -> None:
    """[V-2] [L-8]"""
    assert verify_evidence(broken(witnessed(ENTRIES)), GENESIS, ENTRIES) == (
        f"the relay of {ORIGIN} promised at 2027-01-15T07:58:20Z to log {WHAT.hex()} within 60 s,"
        " and at 2027-01-15T08:00:00Z none of the 20 entries was it"
    )


def test_entries_may_be_a_stream_and_go_on_after_the_checkpoint() -> None:
    """[V-2] A mirror has more by now, also what was promised, too late."""

    def stream() -> Iterator[bytes]:
        yield from ENTRIES
        yield envelope_leaf_of(WHAT, bytes(32))

    verify_evidence(broken(witnessed(ENTRIES)), GENESIS, stream())


def test_a_log_of_more_than_one_batch_is_read_to_its_end() -> None:
    """[V-2]"""
    many = [statement_leaf(number.to_bytes(4, "big")) for number in range(4_100)]
    note = witnessed(many)

    verify_broken_promise(promise(), note, GENESIS, iter(many))
    with pytest.raises(VerificationError, match="entry 4099 is what was promised"):
        verify_broken_promise(promise(many[-1][1:33]), note, GENESIS, iter(many))


@pytest.mark.parametrize(
    ("kept", "what"),
    [
        (envelope_leaf_of(WHAT, b"p" * 32), WHAT),
        (receipt_leaf(b"a receipt"), receipt_hash(b"a receipt")),
    ],
    ids=["an envelope", "a receipt"],
)
def test_a_relay_that_kept_its_word_is_not_convicted(kept: bytes, what: bytes) -> None:
    """[V-2] [L-8]"""
    entries = [*ENTRIES[:9], kept, *ENTRIES[9:]]

    with pytest.raises(
        VerificationError, match=r"entry 9 is what was promised; the relay kept its word \[V-2\]"
    ):
        verify_evidence(broken(witnessed(entries), promise(what)), GENESIS, entries)


@pytest.mark.parametrize("late", [0, -1, -3_600])
def test_a_checkpoint_within_the_promised_time_shows_nothing(late: int) -> None:
    """[V-2]"""
    note = witnessed(ENTRIES, NOW - 100 + 60 + late)

    with pytest.raises(
        VerificationError, match=rf"was cosigned {-late} s before the promise ran out.* \[V-2\]"
    ):
        verify_evidence(broken(note), GENESIS, ENTRIES)


def test_a_witness_whose_clock_lies_convicts_no_honest_relay() -> None:
    """[V-2] [L-5] Of two cosignatures the later one is the sealed time; it is not enough here."""
    (honest, key), (liar, other) = list(WORLD.witness_keys.items())[:2]
    note, at = head(ENTRIES), NOW - 100
    both = add_signatures(
        note, [cosign(note, honest, key, at), cosign(note, liar, other, at + 31_536_000)]
    )
    assert verify_quorum(both, GENESIS.log, GENESIS.quorum).sealed_time == at + 31_536_000

    with pytest.raises(VerificationError, match=r"was cosigned 60 s before .* \[V-2\]"):
        verify_evidence(broken(both), GENESIS, ENTRIES)


@pytest.mark.parametrize(
    "entries",
    [
        ENTRIES[:-1],
        ENTRIES[1:],
        [*ENTRIES[:9], *ENTRIES[10:]],
        forked(20, 9),
        [*ENTRIES[:9], ENTRIES[10], ENTRIES[9], *ENTRIES[11:]],
        [*ENTRIES[:9], *ENTRIES[10:], entry(99)],
        [],
    ],
    ids=["no last", "no first", "one left out", "one swapped in", "two swapped", "moved", "none"],
)
def test_entries_that_do_not_lead_to_the_root_show_nothing(entries: list[bytes]) -> None:
    """[V-2] The accuser leaves out the one entry that was promised."""
    with pytest.raises(
        VerificationError, match=r"entries do not lead to the root of the checkpoint of 20"
    ):
        verify_evidence(broken(witnessed(ENTRIES)), GENESIS, entries)


def test_an_entry_of_another_length_is_malformed() -> None:
    """[V-2]"""
    with pytest.raises(MalformedError, match="entry is 64 bytes, expected 65"):
        verify_evidence(broken(witnessed(ENTRIES)), GENESIS, [ENTRIES[0][:-1]])


def test_a_checkpoint_that_no_quorum_saw_shows_nothing() -> None:
    """[V-2] [L-3]"""
    with pytest.raises(VerificationError, match="checkpoint"):
        verify_evidence(broken(witnessed(ENTRIES, by=1)), GENESIS, ENTRIES)


def test_a_promise_by_somebody_else_binds_no_relay() -> None:
    """[V-2] [Q-2]"""
    forged = promise(key=FastKey.generate())

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        verify_evidence(broken(witnessed(ENTRIES), forged), GENESIS, ENTRIES)


# --- Files ------------------------------------------------------------------------------------

FORK = Fork(GENESIS.deployment, b"one\n", b"two\n", (bytes(32),))
BROKEN = BrokenPromise(GENESIS.deployment, promise(), b"note\n")


@pytest.mark.parametrize("evidence", [FORK, BROKEN])
def test_a_file_is_read_back_as_it_was_written(evidence: Fork | BrokenPromise) -> None:
    assert parse_evidence(evidence.serialize()) == evidence


def test_evidence_about_another_deployment_is_refused() -> None:
    """[V-1]"""
    fork = Fork(DeploymentId(bytes(16)), head(ENTRIES[:7]), head(forked(7, 3)))

    with pytest.raises(VerificationError, match="evidence is about another deployment"):
        verify_evidence(fork.serialize(), GENESIS)


@pytest.mark.parametrize(
    ("evidence", "changes", "message"),
    [
        (FORK, {"v": 2}, "evidence of fork, v is 2, expected 1 to 1"),
        (FORK, {"t": "rumour"}, "evidence, t is not one of broken-promise, fork"),
        (FORK, {"t": "broken-promise"}, "evidence of broken-promise has no field 'note'"),
        (FORK, {"proof": [bytes(31)]}, "evidence of fork, proof has 31 bytes, expected 32"),
        (
            FORK,
            {"proof": [bytes(32)] * (PROOF_HASHES_MAX + 2)},
            "evidence of fork, proof has 65 items, expected 0 to 64",
        ),
        (FORK, {"first": b""}, "evidence of fork, first has 0 bytes, expected 1 to 131072"),
        (FORK, {"deployment": bytes(15)}, "deployment has 15 bytes, expected 16"),
        (FORK, {"by": "XA"}, "evidence of fork has the unknown field 'by'"),
        (BROKEN, {"promise": [b"p"]}, "evidence, promise has 1 items, expected 2"),
        (BROKEN, {"promise": [bytes(129), bytes(64)]}, "evidence, promise has 129 bytes"),
        (BROKEN, {"promise": [b"p", bytes(63)]}, "evidence, signature has 63 bytes, expected 64"),
    ],
)
def test_evidence_out_of_form_is_malformed(
    evidence: Fork | BrokenPromise, changes: dict[str, Value], message: str
) -> None:
    """[C-5] [C-6]"""
    values = parse(evidence.serialize())
    assert isinstance(values, dict)

    with pytest.raises(MalformedError, match=message):
        parse_evidence(serialize(values | changes))


def test_oversize_evidence_is_refused_before_it_is_parsed() -> None:
    """[E-9]"""
    with pytest.raises(LimitError, match="evidence is 266,241 bytes, expected at most 266,240"):
        parse_evidence(bytes(EVIDENCE_BYTES_MAX + 1))
