"""The names of things on the wire: 16 random bytes each, or the first 16 of a hash.

An identifier says nothing about what it names. People see its first eight hexadecimal digits;
machines and files carry all 32.
"""

from typing import Final, NewType

from comity_protocol.errors import MalformedError

DeploymentId = NewType("DeploymentId", bytes)
"""First 16 bytes of the hash of the genesis statement."""

DeskId = NewType("DeskId", bytes)
DeviceId = NewType("DeviceId", bytes)
"""First 16 bytes of the hash of the device's composite public key; dead ids never return."""

OfficerId = NewType("OfficerId", bytes)
"""A pseudonym; rank and name travel only inside sealed acts."""

EnvelopeId = NewType("EnvelopeId", bytes)
ExchangeId = NewType("ExchangeId", bytes)

ID_BYTES: Final = 16
_SHORT_DIGITS: Final = 8


def short(identifier: bytes) -> str:
    """Give the first eight hexadecimal digits, for people and log lines."""
    return identifier.hex()[:_SHORT_DIGITS]


def parse_id(text: str, what: str) -> bytes:
    """Read 32 lower-case hexadecimal digits.

    Raises:
        MalformedError: ``text`` is anything else.
    """
    try:
        identifier = bytes.fromhex(text)
    except ValueError:
        identifier = b""
    if len(identifier) != ID_BYTES or identifier.hex() != text:
        raise MalformedError(f"{what} is not 32 lower-case hexadecimal digits")
    return identifier
