"""What can go wrong because of the other side or the world, one class per wire code.

A caller's own mistake is a ``ValueError`` or ``TypeError`` and is not here. Everything here may
reach another machine as its ``code`` and a person as its message and ``remedy``::

    ComityError                    internal
    ├── MalformedError             malformed
    ├── LimitError                 limit-exceeded
    ├── VerificationError          verification-failed
    └── OpenError                  cannot-open

Rules:

* A code is stable: it is on the wire and in other people's programs. It is never reused.
* A message says what, got, expected, in lower case. It never holds plaintext, keys, names of
  persons or the existence of another office, because it may be logged anywhere.
* A new kind is a subclass with its own ``code`` and ``remedy``; nothing else needs a change.
"""

from typing import ClassVar


class ComityError(Exception):
    """Something that the other side or the world got wrong.

    Attributes:
        code: Stable wire code, lower case ASCII with hyphens.
        remedy: One sentence that tells a person what to do next.
    """

    code: ClassVar[str] = "internal"
    remedy: ClassVar[str] = "try again, and tell your administrator if it happens a second time"

    def __init__(self, message: str) -> None:
        """Keep the message, which must be safe to show to any party."""
        super().__init__(message)


class MalformedError(ComityError):
    """Bytes or fields that no correct sender would have written."""

    code = "malformed"
    remedy = "ask the sender to update the program and to send again"


class LimitError(ComityError):
    """Something larger, longer, more frequent or weaker than the protocol allows."""

    code = "limit-exceeded"
    remedy = "make it smaller, or split it, and send again"


class VerificationError(ComityError):
    """A signature, proof or binding that does not hold; treat the object as not sent."""

    code = "verification-failed"
    remedy = "do not act on it; confirm with the sender by a second channel"


class OpenError(ComityError):
    """A ciphertext that this key does not open, or that was altered on the way."""

    code = "cannot-open"
    remedy = "ask the sender to seal it again to your desk's current key"
