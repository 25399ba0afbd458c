"""Lengths that tell little: contents are padded to classes before they are encrypted.

Padded = content, one byte 0x80, then zeros up to the class. Bodies take Padmé lengths (at most
12 % more, and few enough classes that a length names no document); audit records take one of three
fixed classes.
"""

from typing import Final

from comity_protocol.errors import MalformedError
from comity_protocol.limits import BODY_CLASS_BYTES_MIN

AUDIT_CLASSES: Final = (128, 256, 512)
"""Padded lengths of an audit record, in bytes."""

_MARK: Final = b"\x80"


def pad_body(content: bytes) -> bytes:
    """Pad to the next Padmé length, at least ``BODY_CLASS_BYTES_MIN`` bytes.

    Source: PROTOCOL [E-10]; Padmé, "Reducing Metadata Leakage from Encrypted Files" (PURBs, 2019).
    """
    return _fill(content, max(_padme(len(content) + 1), BODY_CLASS_BYTES_MIN))


def pad_audit(content: bytes) -> bytes:
    """Pad to the next audit class.

    Raises:
        ValueError: The record does not fit the largest class; the projection bounds it.
    """
    for length in AUDIT_CLASSES:
        if len(content) < length:
            return _fill(content, length)
    raise ValueError(f"audit record is {len(content)} bytes, expected below {AUDIT_CLASSES[-1]}")


def unpad(padded: bytes) -> bytes:
    """Take the padding off.

    Raises:
        MalformedError: There is none.
    """
    content = padded.rstrip(b"\x00")
    if not content.endswith(_MARK):
        raise MalformedError("padding is missing")
    return content[:-1]


def _fill(content: bytes, length: int) -> bytes:
    # SPEC [E-10]: body and audit record are padded to their size classes.
    return (content + _MARK).ljust(length, b"\x00")


def _padme(length: int) -> int:
    """Round up so that only as many leading bits vary as the exponent has digits."""
    exponent = length.bit_length() - 1
    low_bits = exponent - exponent.bit_length()
    mask = (1 << max(low_bits, 0)) - 1
    return (length + mask) & ~mask
