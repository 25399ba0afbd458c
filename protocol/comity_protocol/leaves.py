"""What the log holds: one entry of 33 bytes for each accepted object.

The first byte says whether the object is a statement, so that whoever reads the log knows how
many statements there are and cannot be kept from one of them; the other 32 are a hash, so that
the log can be shown to anyone. Hashes cover what is signed, never a signature.

An envelope's entry commits to the place that it got in each recipient's mailbox. Each place is
hidden in a commitment of its own, so that a recipient can check its own place and learns nothing
about how much mail the others get::

    blind of a desk       first 12 bytes of digest(leaf-blind, blind of the envelope || desk)
    commitment of a desk  digest(leaf-counter, serialize([desk, counter, blind of the desk]))
    entry                 00 || digest(leaf-envelope, serialize([core hash, [commitment, ...]]))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from comity_protocol.encoding import Value, serialize
from comity_protocol.fields import array_of, bytes_of
from comity_protocol.keys import Context, digest
from comity_protocol.limits import RECIPIENTS_MAX

LEAF_BYTES: Final = 33
BLIND_BYTES: Final = 16
"""The blind of an envelope, which the relay draws and keeps."""

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


def statement_leaf(payload: bytes) -> bytes:
    """Give the log entry of a statement."""
    return _STATEMENT + statement_hash(payload)


def envelope_leaf(core_hash: bytes, commitments: Sequence[bytes]) -> bytes:
    """Give the log entry of an envelope.

    Args:
        core_hash: 32 bytes, from ``core.core_hash``.
        commitments: To the mailbox counter that each recipient got, in the order of the core's
            ``to``; from ``commit_counters`` or ``CounterProof.commitments``.

    Source: PROTOCOL [R-3]: a mailbox cannot be reordered or thinned out without another root.
    """
    return _OTHER + digest(Context.LEAF_ENVELOPE, serialize([core_hash, list(commitments)]))


def receipt_leaf(payload: bytes) -> bytes:
    """Give the log entry of a receipt."""
    return _OTHER + receipt_hash(payload)


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
        blind: The envelope's, 16 random bytes that only the relay has.
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
