"""Reads a parsed map into typed fields, so that no dict travels further.

``encoding.parse`` says that bytes are well written; this says that they are the right object: which
keys, of which type, within which bounds. Every wire object is read through it, once, at the edge,
and becomes a frozen dataclass. Messages name the field, what was got and what was expected, and
never repeat text or bytes out of the object, which may be a person's name.

Rules:

* [C-5] Unknown or missing keys are refused.
* Text is in Unicode normal form C and free of control characters, so that what two people see as
  the same is the same bytes, and so that a name cannot rewrite the line that it is printed on.

Example:
    >>> fields = Fields.of({"n": 3, "id": bytes(16)}, "epoch", required={"n", "id"})
    >>> fields.integer("n", low=1), fields.bytes("id", length=16) == bytes(16)
    (3, True)

The functions ``integer_of``, ``bytes_of``, ``text_of``, ``prose_of``, ``array_of`` and ``map_of``
do the same for a value that stands alone, such as an item of an array.
"""

import builtins
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

from comity_protocol.encoding import Value
from comity_protocol.errors import MalformedError

INTEGER_MAX: Final = (1 << 64) - 1
"""The largest integer that the encoding holds."""

# Controls of both blocks, line and paragraph separators, and what turns the reading direction.
_NOT_IN_LINES: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

# The same but for new line, tab and the direction marks that right-to-left letters need.
_NOT_IN_PROSE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Fields:
    """A map whose keys are known to be the expected ones, read field by field.

    Attributes:
        what: What the map is, for messages, such as ``envelope core``.
        values: The parsed map; its values are not yet verified.
    """

    what: str
    values: Mapping[str, Value]

    @classmethod
    def of(
        cls,
        value: Value,
        what: str,
        required: Collection[str],
        optional: Collection[str] = (),
    ) -> Self:
        """Take a parsed value that must be a map with the required and maybe the optional keys.

        Raises:
            MalformedError: It is not a map, or a key is missing or unknown.

        Source: PROTOCOL [C-5].
        """
        values = map_of(value, what)
        # SPEC [C-5]: unknown or missing keys are refused.
        if missing := sorted(set(required) - values.keys()):
            raise MalformedError(f"{what} has no field {missing[0]!a}, expected it")
        if unknown := sorted(values.keys() - set(required) - set(optional)):
            raise MalformedError(f"{what} has the unknown field {unknown[0][:40]!a}")
        return cls(what, values)

    def is_present(self, name: str) -> bool:
        """Whether an optional field is there."""
        return name in self.values

    def value(self, name: str) -> Value:
        """Give a field unread, for another reader."""
        return self.values[name]

    def integer(self, name: str, *, low: int = 0, high: int = INTEGER_MAX) -> int:
        """Read an integer in ``low`` .. ``high``, both included."""
        return integer_of(self.values[name], self._name(name), low=low, high=high)

    def text(
        self, name: str, *, bytes_max: int | None = None, choices: Collection[str] = ()
    ) -> str:
        """Read one line of text: a code out of ``choices``, or free up to ``bytes_max``."""
        return text_of(self.values[name], self._name(name), bytes_max=bytes_max, choices=choices)

    def prose(self, name: str, *, bytes_max: int) -> str:
        """Read text that may have lines and tabs."""
        return prose_of(self.values[name], self._name(name), bytes_max=bytes_max)

    def array(self, name: str, *, low: int = 0, high: int) -> tuple[Value, ...]:
        """Read an array of ``low`` .. ``high`` items, both included."""
        return array_of(self.values[name], self._name(name), low=low, high=high)

    def map(self, name: str, *, high: int) -> Mapping[str, Value]:
        """Read a map with keys that are not known beforehand, at most ``high`` of them."""
        values = map_of(self.values[name], self._name(name))
        _check_bounds(len(values), self._name(name), "fields", 0, high)
        return values

    def fields(
        self, name: str, required: Collection[str], optional: Collection[str] = ()
    ) -> "Fields":
        """Read a map inside this one, with known keys."""
        return Fields.of(self.values[name], self._name(name), required, optional)

    def bytes(
        self, name: str, *, length: int | None = None, low: int = 0, high: int | None = None
    ) -> builtins.bytes:
        """Read a byte string of exactly ``length`` bytes, or of ``low`` .. ``high`` bytes."""
        return bytes_of(self.values[name], self._name(name), length=length, low=low, high=high)

    def _name(self, name: str) -> str:
        return f"{self.what}, {name}"


def integer_of(value: Value, what: str, *, low: int = 0, high: int = INTEGER_MAX) -> int:
    """Check that a value is an integer in ``low`` .. ``high``, both included."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise _mistyped(value, what, "an integer")
    if not low <= value <= high:
        raise MalformedError(f"{what} is {value}, expected {low} to {high}")
    return value


def bytes_of(
    value: Value,
    what: str,
    *,
    length: int | None = None,
    low: int = 0,
    high: int | None = None,
) -> bytes:
    """Check that a value is a byte string of ``length``, or of ``low`` .. ``high``, bytes.

    Raises:
        ValueError: The caller gave neither ``length`` nor ``high``; everything has a bound.
    """
    low, high = (low, high) if length is None else (length, length)
    if high is None:
        raise ValueError("bytes_of needs length or high")
    if not isinstance(value, bytes):
        raise _mistyped(value, what, "a byte string")
    _check_bounds(len(value), what, "bytes", low, high)
    return value


def text_of(
    value: Value, what: str, *, bytes_max: int | None = None, choices: Collection[str] = ()
) -> str:
    """Check that a value is one line of text: one of ``choices``, or up to ``bytes_max`` bytes.

    Stops a name or a code that turns the reading direction or forges a second line.

    Raises:
        ValueError: The caller gave neither ``bytes_max`` nor ``choices``.
    """
    if choices:
        if not isinstance(value, str):
            raise _mistyped(value, what, "text")
        if value not in choices:
            raise MalformedError(f"{what} is not one of {', '.join(sorted(choices))}")
        return value
    if bytes_max is None:
        raise ValueError("text_of needs bytes_max or choices")
    return _clean(value, what, bytes_max, _NOT_IN_LINES)


def prose_of(value: Value, what: str, *, bytes_max: int) -> str:
    """Check that a value is text of up to ``bytes_max`` bytes, lines and tabs allowed."""
    return _clean(value, what, bytes_max, _NOT_IN_PROSE)


def array_of(value: Value, what: str, *, low: int = 0, high: int) -> tuple[Value, ...]:
    """Check that a value is an array of ``low`` .. ``high`` items, both included."""
    if not isinstance(value, list):
        raise _mistyped(value, what, "an array")
    _check_bounds(len(value), what, "items", low, high)
    return tuple(value)


def map_of(value: Value, what: str) -> Mapping[str, Value]:
    """Check that a value is a map."""
    if not isinstance(value, Mapping):
        raise _mistyped(value, what, "a map")
    return value


def check_ascending(ids: Sequence[bytes], what: str) -> None:
    """Check that ids are bytewise ascending, each once, so that one set has one form."""
    if any(left >= right for left, right in pairwise(ids)):
        raise MalformedError(f"{what} are not ascending, each once")


def _clean(value: Value, what: str, bytes_max: int, refused: re.Pattern[str]) -> str:
    if not isinstance(value, str):
        raise _mistyped(value, what, "text")
    _check_bounds(len(value.encode("utf-8")), what, "bytes", 0, bytes_max)
    if found := refused.search(value):
        raise MalformedError(f"{what} has the character U+{ord(found[0]):04X}, expected none such")
    if not unicodedata.is_normalized("NFC", value):
        raise MalformedError(f"{what} is not in Unicode normal form C")
    return value


def _check_bounds(size: int, what: str, unit: str, low: int, high: int) -> None:
    if not low <= size <= high:
        expected = f"{low}" if low == high else f"{low} to {high}"
        raise MalformedError(f"{what} has {size} {unit}, expected {expected}")


def _mistyped(value: Value, what: str, expected: str) -> MalformedError:
    return MalformedError(f"{what} is of type {type(value).__name__}, expected {expected}")
