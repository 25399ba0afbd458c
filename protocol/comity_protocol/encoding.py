"""The one encoding on the wire: a strict, deterministic subset of CBOR (RFC 8949).

Every value has exactly one encoding, and the parser refuses every byte string that the serializer
would not itself have written. So a hash or a signature over bytes is a hash or a signature over
the value, and nobody can write one thing in two ways.

Rules:

* [C-1] A byte string is accepted only if serializing what it parses to gives the same bytes.
* [C-2] Containers nest at most 8 deep.
* [C-3] Map keys are text, unique, bytewise ascending in their encoded form.
* [C-4] There is no tag, float, indefinite length or trailing byte.

Values are integers in -2^64 .. 2^64-1, byte strings, UTF-8 text, arrays, maps, true, false, null.
How long a byte string may be is for the caller to bound before parsing; the layer above, which
checks which keys a map has, is ``fields.py``.

Example:
    >>> serialize({"v": 1, "to": [b"x"]}).hex()
    'a261760162746f814178'
    >>> parse(bytes.fromhex("a261760162746f814178"))
    {'v': 1, 'to': [b'x']}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from comity_protocol.errors import MalformedError
from comity_protocol.limits import DEPTH_MAX

Value: TypeAlias = "int | bytes | str | bool | Sequence[Value] | Mapping[str, Value] | None"
"""What has an encoding. ``parse`` gives ``list`` and ``dict``; ``serialize`` also takes tuples."""

_UNSIGNED: Final = 0
_NEGATIVE: Final = 1
_BYTES: Final = 2
_TEXT: Final = 3
_ARRAY: Final = 4
_MAP: Final = 5

# What is an array: a list, or the tuple that a frozen value holds.
_ARRAYS: Final = (list, tuple)

_SIMPLE: Final[dict[int, bool | None]] = {0xF4: False, 0xF5: True, 0xF6: None}

# Arguments below this stand in the five low bits of the first byte.
_INLINE: Final = 24
_LOW: Final = 31

# Heads of short things by major type and argument, so that they need not be made.
_HEADS_MAX: Final = 256
_HEADS: Final = tuple(
    tuple(
        bytes((major << 5 | number,)) if number < _INLINE else bytes((major << 5 | 24, number))
        for number in range(_HEADS_MAX)
    )
    for major in range(_MAP + 1)
)

# Five low bits of a first byte -> (bytes of the argument, smallest argument that needs them).
_WIDTHS: Final = {24: (1, 24), 25: (2, 1 << 8), 26: (4, 1 << 16), 27: (8, 1 << 32)}


def serialize(value: Value) -> bytes:
    """Encode a value in its only encoding.

    Args:
        value: Anything of type ``Value``; text must be encodable as UTF-8.

    Raises:
        TypeError: A part is of another type, or a map key is not text.
        ValueError: An integer is out of range, nesting is too deep, or text holds a surrogate.

    Source: PROTOCOL [C-1].
    """
    parts: list[bytes] = []
    _write(value, DEPTH_MAX, parts.append)
    return b"".join(parts)


def parse(data: bytes) -> Value:
    """Decode the only encoding of a value; refuse everything else.

    Args:
        data: Untrusted bytes, already bounded in length by the caller.

    Raises:
        MalformedError: ``data`` is not what ``serialize`` gives for any value. The message names
            the position of the first byte that is wrong.

    Source: PROTOCOL [C-1].
    """
    value, end = _read(data, 0, DEPTH_MAX)
    if end != len(data):
        # SPEC [C-4]: there is no trailing byte.
        raise _malformed(end, f"{len(data) - end} bytes after the value, expected none")
    return value


def _write(value: object, depth: int, emit: Callable[[bytes], None]) -> None:
    """Emit the encoding of one value inside which ``depth`` containers may be opened.

    Most of what travels are byte strings in arrays, so they are asked for first.
    """
    if isinstance(value, bytes):
        emit(_head(_BYTES, len(value)))
        emit(value)
    elif isinstance(value, bool):  # Asked before int, of which Python makes bool a kind.
        emit(b"\xf5" if value else b"\xf4")
    elif isinstance(value, int):
        emit(_head(_UNSIGNED, value) if value >= 0 else _head(_NEGATIVE, -1 - value))
    elif isinstance(value, str):
        emit(_text(value))
    elif value is None:
        emit(b"\xf6")
    elif isinstance(value, _ARRAYS):
        _require_depth(depth)
        emit(_head(_ARRAY, len(value)))
        for item in value:
            _write(item, depth - 1, emit)
    elif isinstance(value, Mapping):
        _require_depth(depth)
        emit(_head(_MAP, len(value)))
        for key, item in sorted([(_text(key), item) for key, item in value.items()], key=_first):
            emit(key)
            _write(item, depth - 1, emit)
    else:
        raise TypeError(f"{type(value).__name__} has no encoding, expected one of Value")


def _require_depth(depth: int) -> None:
    if depth == 0:
        raise ValueError(f"containers nest deeper than {DEPTH_MAX}")


def _first(pair: tuple[bytes, object]) -> bytes:
    return pair[0]


def _text(text: object) -> bytes:
    """Encode text, which is also the form in which map keys are ordered."""
    if not isinstance(text, str):
        raise TypeError(f"map key is {type(text).__name__}, expected text")
    data = text.encode("utf-8")  # UnicodeEncodeError, a ValueError, for an unpaired surrogate.
    return _head(_TEXT, len(data)) + data


def _head(major: int, argument: int) -> bytes:
    """Encode a major type (0..5) with its argument in the fewest bytes."""
    if argument < _HEADS_MAX:
        return _HEADS[major][argument]
    for info, (width, _) in _WIDTHS.items():
        if argument < 1 << 8 * width:
            return bytes((major << 5 | info,)) + argument.to_bytes(width, "big")
    raise ValueError("integer is outside -2^64 .. 2^64-1")


def _read(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    """Read the value that starts at ``at``; give it with the position after it."""
    if at >= len(data):
        raise _malformed(at, "ends early, expected a value")
    first = data[at]
    major = first >> 5
    if major > _MAP:
        if first in _SIMPLE:
            return _SIMPLE[first], at + 1
        # SPEC [C-4]: there is no tag, float, indefinite length or trailing byte.
        raise _malformed(at, f"first byte 0x{first:02x} is a tag, a float or not assigned")
    argument, start = first & _LOW, at + 1
    if argument >= _INLINE:
        argument, start = _argument(data, at)
    if major == _UNSIGNED:
        return argument, start
    if major == _NEGATIVE:
        return -1 - argument, start
    if argument > len(data) - start:  # Every item of a container takes a byte or more, too.
        raise _malformed(at, f"ends early, {argument} expected, {len(data) - start} left")
    if major == _BYTES:
        return data[start : start + argument], start + argument
    if major == _TEXT:
        return _utf8(data, start, start + argument), start + argument
    if depth == 0:
        # SPEC [C-2]: containers nest at most 8 deep.
        raise _malformed(at, f"containers nest deeper than {DEPTH_MAX}")
    if major == _ARRAY:
        return _read_array(data, start, depth - 1, argument)
    return _read_map(data, start, depth - 1, argument)


def _argument(data: bytes, at: int) -> tuple[int, int]:
    """Read the argument that follows the byte at ``at``; give it with the position after it."""
    info = data[at] & _LOW
    if info not in _WIDTHS:
        raise _malformed(at, f"first byte 0x{data[at]:02x} has an indefinite or reserved length")
    width, smallest = _WIDTHS[info]
    end = at + 1 + width
    if end > len(data):
        raise _malformed(at, f"ends early, {width} bytes of length expected")
    argument = int.from_bytes(data[at + 1 : end], "big")
    if argument < smallest:
        # SPEC [C-1]: a byte string is accepted only if serializing what it parses to gives it.
        raise _malformed(at, f"number {argument} is not in its shortest form")
    return argument, end


def _utf8(data: bytes, start: int, end: int) -> str:
    """Decode text; overlong forms and surrogates are not UTF-8 and fail here as well."""
    try:
        return data[start:end].decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed(start + error.start, "text is not UTF-8") from error


def _read_array(data: bytes, at: int, depth: int, count: int) -> tuple[list[Value], int]:
    items: list[Value] = []
    for _ in range(count):
        item, at = _read(data, at, depth)
        items.append(item)
    return items, at


def _read_map(data: bytes, at: int, depth: int, count: int) -> tuple[dict[str, Value], int]:
    items: dict[str, Value] = {}
    previous = b""
    for _ in range(count):
        key, end = _read(data, at, 0)
        encoded = data[at:end]
        # SPEC [C-3]: map keys are text, unique, bytewise ascending in their encoded form.
        if not isinstance(key, str):
            raise _malformed(at, f"map key is {type(key).__name__}, expected text")
        if encoded <= previous:
            raise _malformed(at, "map key is repeated or out of order")
        previous = encoded
        items[key], at = _read(data, end, depth)
    return items, at


def _malformed(at: int, why: str) -> MalformedError:
    return MalformedError(f"encoding, byte {at}: {why}")
