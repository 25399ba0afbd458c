"""What the log holds: 65 bytes for each object, which tell statements apart and name a tag."""

import pytest

from comity_protocol.encoding import Value, serialize
from comity_protocol.errors import MalformedError
from comity_protocol.keys import Context, FastKey, derive, digest
from comity_protocol.leaves import (
    LEAF_BYTES,
    CounterProof,
    commit_counter,
    commit_counters,
    counter_blind,
    envelope_blind,
    envelope_leaf,
    envelope_leaf_of,
    is_statement_leaf,
    notice_hash,
    notice_leaf,
    places_of,
    prove_counter,
    receipt_hash,
    receipt_leaf,
    statement_hash,
    statement_leaf,
    tag_of,
    tags_of_promise,
)

DESKS = [bytes([number]) * 16 for number in (1, 2, 3)]
BLIND = bytes(range(16))


def leaf(counters: list[int], blind: bytes = BLIND) -> bytes:
    return envelope_leaf(bytes(32), commit_counters(DESKS[: len(counters)], counters, blind))


def view(position: int, counters: list[int]) -> CounterProof:
    """What one recipient is given."""
    commitments = commit_counters(DESKS, counters, BLIND)
    return prove_counter(position, DESKS[position], BLIND, commitments)


def test_every_leaf_has_65_bytes_and_tells_whether_it_is_a_statement() -> None:
    """[K-5]"""
    leaves = [statement_leaf(b"x"), leaf([1, 2]), receipt_leaf(b"x"), notice_leaf(b"x")]

    assert LEAF_BYTES == 65
    assert [len(leaf) for leaf in leaves] == [LEAF_BYTES] * 4
    assert [is_statement_leaf(leaf) for leaf in leaves] == [True, False, False, False]
    assert not is_statement_leaf(b"")


def test_the_same_bytes_give_another_leaf_for_each_kind_of_object() -> None:
    """[K-1]"""
    kinds = (Context.LEAF_ENVELOPE, Context.LEAF_COUNTER, Context.LEAF_BLIND, Context.LEAF_PLACES)
    hashes = {statement_hash(b"x"), receipt_hash(b"x"), notice_hash(b"x")}

    assert len(hashes | {digest(kind, b"x") for kind in kinds}) == 7


def test_a_leaf_is_a_byte_a_tag_and_a_hash_over_the_places() -> None:
    """[L-8] Written out, byte for byte."""
    commitments = list(commit_counters(DESKS, [1, 2, 3], BLIND))
    payload_hash = digest(Context.LEAF_PLACES, b"x")

    assert statement_leaf(b"x") == b"\x01" + statement_hash(b"x") + payload_hash
    assert receipt_leaf(b"x") == b"\x00" + receipt_hash(b"x") + payload_hash
    assert notice_leaf(b"x") == b"\x00" + notice_hash(b"x") + payload_hash
    assert leaf([1, 2, 3]) == b"\x00" + digest(Context.LEAF_ENVELOPE, bytes(32)) + digest(
        Context.LEAF_PLACES, serialize(commitments)
    )


def test_an_envelopes_leaf_follows_from_its_core_hash_and_the_hash_of_its_places() -> None:
    """[L-8] So a kept proof needs 32 bytes beside the core, whatever the number of recipients."""
    commitments = commit_counters(DESKS, [1, 2, 3], BLIND)

    assert envelope_leaf_of(bytes(32), places_of(commitments)) == leaf([1, 2, 3])
    assert len(places_of(commitments)) == len(places_of(commitments[:1])) == 32


def test_a_promise_alone_tells_which_entry_would_keep_it() -> None:
    """[L-8] Nobody needs counters, blinds or the object to look for what was promised."""
    kept = {
        bytes(32): leaf([1, 2]),
        statement_hash(b"x"): statement_leaf(b"x"),
        receipt_hash(b"x"): receipt_leaf(b"x"),
        notice_hash(b"x"): notice_leaf(b"x"),
    }

    found = {
        what: [one for one in kept.values() if tag_of(one) in tags_of_promise(what)]
        for what in kept
    }

    assert found == {what: [entry] for what, entry in kept.items()}
    assert not {tag_of(one) for one in kept.values()} & set(tags_of_promise(bytes(31) + b"x"))


def test_two_envelopes_cannot_share_an_entry() -> None:
    """[L-8] [R-3] Not even two with the same recipients, counters and blind."""
    commitments = commit_counters(DESKS, [1, 2, 3], BLIND)

    first, second = (envelope_leaf(bytes([number]) * 32, commitments) for number in (1, 2))

    assert tag_of(first) != tag_of(second)
    assert first[33:] == second[33:]


def test_the_blind_of_an_envelope_is_that_of_one_relay_and_one_envelope() -> None:
    """[L-7] Derived, so that a restored relay has it again; nobody else can derive it."""
    keys = [FastKey.from_seed(bytes([number]) * 32) for number in (1, 2)]

    blinds = {envelope_blind(key, bytes([number]) * 16) for key in keys for number in (1, 2)}

    assert len(blinds) == 4
    assert envelope_blind(keys[0], bytes(16)) == envelope_blind(keys[0], bytes(16))
    assert (
        envelope_blind(keys[0], bytes(16))
        == derive(Context.LEAF_BLIND, keys[0].seed, bytes(16))[:16]
    )
    # The public half, which everyone has, is no help.
    assert envelope_blind(FastKey.from_seed(keys[0].public), bytes(16)) != envelope_blind(
        keys[0], bytes(16)
    )


def test_an_envelopes_leaf_commits_to_every_mailbox_counter() -> None:
    """[R-3] A relay cannot reorder a mailbox or thin it out without another root."""
    leaves = {leaf(counters) for counters in ([1, 2], [2, 1], [1, 3], [1, 2, 3], [1], [12])}

    assert len(leaves) == 6


def test_a_commitment_is_to_one_desk_one_counter_and_one_blind() -> None:
    """[R-3]"""
    one, other = (counter_blind(BLIND, desk) for desk in DESKS[:2])
    commitments = {
        commit_counter(desk, counter, blind)
        for desk in DESKS[:2]
        for counter in (1, 2, 256)
        for blind in (one, other)
    }

    assert len(commitments) == 12
    assert [len(one), len(other)] == [12, 12]
    assert commit_counter(DESKS[0], 7, one) == digest(
        Context.LEAF_COUNTER, serialize([DESKS[0], 7, one])
    )


def test_all_recipients_recompute_the_same_leaf_each_from_its_own_view() -> None:
    """[L-7]"""
    counters = [7, 1_000_000, 3]
    views = [view(position, counters) for position in range(3)]

    leaves = {
        envelope_leaf(bytes(32), seen.commitments(position, DESKS[position], counters[position]))
        for position, seen in enumerate(views)
    }

    assert leaves == {leaf(counters)}
    assert len({seen.blind for seen in views}) == 3


def test_a_recipient_with_another_counter_than_its_own_gets_another_leaf() -> None:
    """[L-7] [R-3]"""
    seen = view(1, [7, 8, 9])

    others = {envelope_leaf(bytes(32), seen.commitments(1, DESKS[1], n)) for n in range(20)}

    assert leaf([7, 8, 9]) == envelope_leaf(bytes(32), seen.commitments(1, DESKS[1], 8))
    assert len(others) == 20


def test_anothers_counter_is_not_found_by_trying_all_of_them() -> None:
    """[L-7] Not with the blinds that a recipient has or can make, and not without any."""
    seen, target = view(0, [7, 4_711, 9]), commit_counters(DESKS, [7, 4_711, 9], BLIND)[1]
    assert seen.others[0] == target
    blinds = [seen.blind, counter_blind(seen.blind, DESKS[1]), bytes(12), b""]

    tried = {
        commit_counter(DESKS[1], counter, blind) for blind in blinds for counter in range(1, 10_001)
    }

    assert len(tried) == 40_000
    assert target not in tried
    assert commit_counter(DESKS[1], 4_711, counter_blind(BLIND, DESKS[1])) == target


def test_what_a_recipient_is_given_does_not_change_with_anothers_blind_or_counter_but_by_hash() -> (
    None
):
    """[L-7] Its size, its own blind and the third desk's commitment say nothing of the second."""
    few, many = view(0, [7, 1, 9]), view(0, [7, 2**60, 9])

    assert (few.blind, few.others[1]) == (many.blind, many.others[1])
    assert len(serialize(few.to_value())) == len(serialize(many.to_value()))
    assert few.others[0] != many.others[0]


def test_two_envelopes_with_the_same_counters_have_nothing_in_common() -> None:
    """[L-7] Nobody sees that a mailbox got nothing in between."""
    first = commit_counters(DESKS, [1, 2, 3], BLIND)
    second = commit_counters(DESKS, [1, 2, 3], bytes(16))

    assert not set(first) & set(second)


def test_a_counter_proof_is_written_and_read() -> None:
    seen = view(2, [1, 2, 3])

    assert CounterProof.of(seen.to_value()) == seen
    assert seen.to_value() == [seen.blind, list(seen.others)]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [bytes(12)],
        [bytes(11), []],
        [bytes(12), [bytes(31)]],
        [bytes(12), [7]],
        [bytes(12), [bytes(32)] * 10],
        [bytes(12), [bytes(32)], 1],
    ],
)
def test_what_is_no_counter_proof_is_refused(value: Value) -> None:
    """[L-7]"""
    with pytest.raises(MalformedError):
        CounterProof.of(value)
