"""What the log holds: one entry of 33 bytes for each accepted object.

The first byte says whether the object is a statement, so that whoever reads the log knows how
many statements there are and cannot be kept from one of them; the other 32 are a hash, so that
the log can be shown to anyone. Hashes cover what is signed, never a signature.
"""

from collections.abc import Sequence
from typing import Final

from comity_protocol.encoding import serialize
from comity_protocol.keys import Context, digest

LEAF_BYTES: Final = 33
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


def envelope_leaf(core_hash: bytes, counters: Sequence[int]) -> bytes:
    """Give the log entry of an envelope.

    Args:
        core_hash: 32 bytes, from ``envelope.core_hash``.
        counters: The mailbox counter that each recipient got, in the order of the core's ``to``.

    Source: PROTOCOL [R-3]: a mailbox cannot be reordered or thinned out without another root.
    """
    content = serialize([core_hash, list(counters)])
    return _OTHER + digest(Context.LEAF_ENVELOPE, content)


def receipt_leaf(payload: bytes) -> bytes:
    """Give the log entry of a receipt."""
    return _OTHER + receipt_hash(payload)


def is_statement_leaf(leaf: bytes) -> bool:
    """Whether a log entry stands for a statement."""
    return leaf[:1] == _STATEMENT
