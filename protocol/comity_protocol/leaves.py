"""What the log holds: one entry of 65 bytes for each accepted object.

The first byte says whether the object is a statement, so that whoever reads the log knows how
many statements there are and cannot be kept from one of them. Then come two hashes, so that the
log can be shown to anyone. Hashes cover what is signed, never a signature::

    statement  01 || statement hash                   || digest(leaf-places, payload)
    envelope   00 || digest(leaf-envelope, core hash) || digest(leaf-places, serialize([...]))
    receipt    00 || digest(leaf-receipt, payload)    || digest(leaf-places, payload)
    notice     00 || digest(leaf-notice, payload)     || digest(leaf-places, payload)

The first hash is the entry's *tag*. It follows from what a promise names and from nothing else, so
whoever holds a promise can show from the public entries alone that it was broken.

The second hash, the *places*, commits to the place that an envelope got in each recipient's
mailbox. Each place is hidden in a commitment of its own, so that a recipient can check its own
place and learns nothing about how much mail the others get; the hash covers the list of all
commitments, in the order of the core's ``to``::

    blind of an envelope  first 16 bytes of derive(leaf-blind, seed of the relay key, envelope id)
    blind of a desk       first 12 bytes of digest(leaf-blind, blind of the envelope || desk)
    commitment of a desk  digest(leaf-counter, serialize([desk, counter, blind of the desk]))

What is in no mailbox has the hash of its payload there, so that all entries look alike.

Rules:

* [L-7] A recipient is given its own mailbox counter and, of the others', the commitment alone.
* [L-8] An entry of an envelope begins with the digest of its core hash, so that its absence can be
  proven.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from comity_protocol.encoding import Value, serialize
from comity_protocol.fields import array_of, bytes_of
from comity_protocol.keys import Context, FastKey, derive, digest
from comity_protocol.limits import RECIPIENTS_MAX

LEAF_BYTES: Final = 65
"""An entry: one byte, the tag, the places."""

TAG_BYTES: Final = 32
PLACES_BYTES: Final = 32

BLIND_BYTES: Final = 16
"""The blind of an envelope, which only the relay can derive."""

COUNTER_BLIND_BYTES: Final = 12
"""What of it a recipient is given: too long to be guessed, and short on the wire."""

COMMITMENT_BYTES: Final = 32

_STATEMENT: Final = b"\x01"
_OTHER: Final = b"\x00"


def statement_hash(payload: bytes) -> bytes:
    """Hash the signed bytes of a statement; the next statement of its chain names this hash."""
    # SPEC [K-5]: identifiers and leaves never hash a signature.
    return digest(Context.LEAF_STATEMENT, payload)


def receipt_hash(payload: bytes) -> bytes:
    """Hash the signed bytes of a receipt."""
    return digest(Context.LEAF_RECEIPT, payload)


def notice_hash(payload: bytes) -> bytes:
    """Hash the signed bytes of a notice."""
    return digest(Context.LEAF_NOTICE, payload)


def statement_leaf(payload: bytes) -> bytes:
    """Give the log entry of a statement."""
    return _STATEMENT + statement_hash(payload) + _no_places(payload)


def envelope_leaf(core_hash: bytes, commitments: Sequence[bytes]) -> bytes:
    """Give the log entry of an envelope.

    Args:
        core_hash: 32 bytes, from ``core.core_hash``.
        commitments: To the mailbox counter that each recipient got, in the order of the core's
            ``to``; from ``commit_counters`` or ``CounterProof.commitments``.

    Source: PROTOCOL [R-3]: a mailbox cannot be reordered or thinned out without another root.
    """
    return envelope_leaf_of(core_hash, places_of(commitments))


def envelope_leaf_of(core_hash: bytes, places: bytes) -> bytes:
    """Give the log entry of an envelope whose places are known by their hash alone.

    Args:
        core_hash: 32 bytes, from ``core.core_hash``.
        places: 32 bytes, such as the extra line of a kept proof; not trusted.
    """
    # SPEC [L-8]: an entry of an envelope begins with the digest of its core hash, so that its
    # absence can be proven. Stops a relay that logs something and calls it the promised envelope.
    return _OTHER + _envelope_tag(core_hash) + places


def places_of(commitments: Sequence[bytes]) -> bytes:
    """Give the second half of an envelope's entry, 32 bytes; it tells nobody a counter.

    Args:
        commitments: Of all recipients, in the order of the core's ``to``.
    """
    return digest(Context.LEAF_PLACES, serialize(list(commitments)))


def receipt_leaf(payload: bytes) -> bytes:
    """Give the log entry of a receipt."""
    return _OTHER + receipt_hash(payload) + _no_places(payload)


def notice_leaf(payload: bytes) -> bytes:
    """Give the log entry of a notice."""
    return _OTHER + notice_hash(payload) + _no_places(payload)


def tag_of(leaf: bytes) -> bytes:
    """Give the part of a log entry by which the object is recognised, 32 bytes."""
    return leaf[1 : 1 + TAG_BYTES]


def tags_of_promise(what: bytes) -> tuple[bytes, bytes]:
    """Give the tags of the entries that would keep a promise.

    Args:
        what: What the promise names, 32 bytes: the hash of a statement, receipt or notice, which
            is its tag, or the hash of a core. A promise does not say which of them it is.
    """
    return what, _envelope_tag(what)


def is_statement_leaf(leaf: bytes) -> bool:
    """Whether a log entry stands for a statement."""
    return leaf[:1] == _STATEMENT


@dataclass(frozen=True, slots=True)
class CounterProof:
    """What one recipient is given, beside its own counter, to recompute an envelope's entry.

    Attributes:
        blind: Hides its own counter, 12 bytes.
        others: Commitments to the counters of the other recipients, in the order of the core's
            ``to``, 32 bytes each.
    """

    blind: bytes
    others: tuple[bytes, ...]

    def commitments(self, position: int, desk: bytes, counter: int) -> tuple[bytes, ...]:
        """Give the commitments of all recipients.

        Args:
            position: Of the desk in the core's ``to``, from 0; at most the number of ``others``.
            desk: Whose proof it is, 16 bytes.
            counter: Its mailbox counter.
        """
        own = commit_counter(desk, counter, self.blind)
        return (*self.others[:position], own, *self.others[position:])

    def to_value(self) -> list[Value]:
        """Give it as it stands on the wire."""
        return [self.blind, list(self.others)]

    @classmethod
    def of(cls, value: Value) -> "CounterProof":
        """Read what ``to_value`` gave.

        Raises:
            MalformedError: It is something else.
        """
        blind, others = array_of(value, "counter proof", low=2, high=2)
        return cls(
            bytes_of(blind, "counter proof, blind", length=COUNTER_BLIND_BYTES),
            tuple(
                bytes_of(other, "counter proof, commitment", length=COMMITMENT_BYTES)
                for other in array_of(others, "counter proof, others", high=RECIPIENTS_MAX - 1)
            ),
        )


def commit_counters(
    desks: Sequence[bytes], counters: Sequence[int], blind: bytes
) -> tuple[bytes, ...]:
    """Commit to the mailbox counter of each recipient of an envelope.

    Args:
        desks: The recipients, 16 bytes each, in the order of the core's ``to``.
        counters: Their counters, in the same order.
        blind: The envelope's, from ``envelope_blind``; only the relay has it.
    """
    return tuple(
        commit_counter(desk, counter, counter_blind(blind, desk))
        for desk, counter in zip(desks, counters, strict=True)
    )


def commit_counter(desk: bytes, counter: int, blind: bytes) -> bytes:
    """Commit to one recipient's counter under the blind that this recipient has.

    Source: PROTOCOL [L-7]: whoever has no blind cannot try all counters.
    """
    return digest(Context.LEAF_COUNTER, serialize([desk, counter, blind]))


def envelope_blind(relay_key: FastKey, envelope: bytes) -> bytes:
    """Derive the blind of an envelope, 16 bytes; a relay that was restored finds the same again.

    Args:
        relay_key: The relay's own; who has it can derive the blind of every envelope.
        envelope: Its id, 16 bytes. No two envelopes in a log have the same [R-2].
    """
    return derive(Context.LEAF_BLIND, relay_key.seed, envelope, BLIND_BYTES)


def counter_blind(blind: bytes, desk: bytes) -> bytes:
    """Derive the blind of one recipient from that of the envelope; one says nothing of another."""
    return digest(Context.LEAF_BLIND, blind + desk)[:COUNTER_BLIND_BYTES]


def prove_counter(
    position: int, desk: bytes, blind: bytes, commitments: Sequence[bytes]
) -> CounterProof:
    """Give one recipient what it needs, and nothing of the others' counters.

    Args:
        position: Of the recipient among the commitments, from 0.
        desk: The recipient.
        blind: The envelope's.
        commitments: Of all recipients, from ``commit_counters``.
    """
    # SPEC [L-7]: a recipient learns its own mailbox counter and nobody else's.
    others = (*commitments[:position], *commitments[position + 1 :])
    return CounterProof(counter_blind(blind, desk), others)


def _envelope_tag(core_hash: bytes) -> bytes:
    return digest(Context.LEAF_ENVELOPE, core_hash)


def _no_places(payload: bytes) -> bytes:
    """Fill the second half for what is in no mailbox, so that a stranger cannot tell it apart."""
    return digest(Context.LEAF_PLACES, payload)
