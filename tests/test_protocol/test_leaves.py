"""What the log holds: 33 bytes for each object, of which the first tells statements apart."""

from comity_protocol.keys import Context, digest
from comity_protocol.leaves import (
    LEAF_BYTES,
    envelope_leaf,
    is_statement_leaf,
    receipt_hash,
    receipt_leaf,
    statement_hash,
    statement_leaf,
)


def test_every_leaf_has_33_bytes_and_tells_whether_it_is_a_statement() -> None:
    """[K-5]"""
    leaves = [statement_leaf(b"x"), envelope_leaf(bytes(32), [1, 2]), receipt_leaf(b"x")]

    assert [len(leaf) for leaf in leaves] == [LEAF_BYTES] * 3
    assert [is_statement_leaf(leaf) for leaf in leaves] == [True, False, False]
    assert not is_statement_leaf(b"")


def test_the_same_bytes_give_another_leaf_for_each_kind_of_object() -> None:
    """[K-1]"""
    hashes = {statement_hash(b"x"), receipt_hash(b"x"), digest(Context.LEAF_ENVELOPE, b"x")}

    assert len(hashes) == 3
    assert statement_leaf(b"x") == b"\x01" + statement_hash(b"x")
    assert receipt_leaf(b"x") == b"\x00" + receipt_hash(b"x")


def test_an_envelopes_leaf_commits_to_every_mailbox_counter() -> None:
    """[R-3] A relay cannot reorder a mailbox or thin it out without another root."""
    leaves = {
        envelope_leaf(bytes(32), counters) for counters in ([1, 2], [2, 1], [1, 2, 3], [1], [12])
    }

    assert len(leaves) == 5
