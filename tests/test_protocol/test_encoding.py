"""The codec accepts exactly what it writes: [C-1] [C-2] [C-3] [C-4]."""

import doctest
import hashlib
from collections.abc import Iterator
from typing import Any

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from comity_protocol import encoding
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import MalformedError
from comity_protocol.limits import DEPTH_MAX

EXAMPLES: list[tuple[Value, str]] = [
    (0, "00"),
    (23, "17"),
    (24, "1818"),
    (255, "18ff"),
    (256, "190100"),
    (65_535, "19ffff"),
    (65_536, "1a00010000"),
    (2**32 - 1, "1affffffff"),
    (2**32, "1b0000000100000000"),
    (2**64 - 1, "1bffffffffffffffff"),
    (-1, "20"),
    (-24, "37"),
    (-25, "3818"),
    (-(2**64), "3bffffffffffffffff"),
    (False, "f4"),
    (True, "f5"),
    (None, "f6"),
    (b"", "40"),
    (b"\x01\x02", "420102"),
    (b"x" * 24, "5818" + "78" * 24),
    ("", "60"),
    ("ü", "62c3bc"),
    ("𐅑", "64f0908591"),
    ([], "80"),
    ([1, [2, b"3"]], "820182024133"),
    ({}, "a0"),
    ({"b": 1, "a": 2, "aa": 3}, "a3616102616201626161" + "03"),
    ({"v": 1, "to": [b"x"]}, "a261760162746f814178"),
]

HOSTILE = {
    "nothing": ("", "byte 0: ends early, expected a value"),
    "trailing byte [C-4]": ("0000", "byte 1: 1 bytes after the value, expected none"),
    "one byte for 23 [C-1]": ("1817", "number 23 is not in its shortest form"),
    "two bytes for 255 [C-1]": ("1900ff", "number 255 is not in its shortest form"),
    "four bytes for 65535 [C-1]": ("1a0000ffff", "number 65535 is not in its shortest form"),
    "eight bytes for 1 [C-1]": ("1b0000000000000001", "number 1 is not in its shortest form"),
    "long form of a length [C-1]": ("580161", "number 1 is not in its shortest form"),
    "number cut": ("19ff", "byte 0: ends early, 2 bytes of length expected"),
    "bytes cut": ("4201", "byte 0: ends early, 2 expected, 1 left"),
    "text cut": ("6261", "ends early, 2 expected, 1 left"),
    "array cut": ("8201", "ends early, 2 expected, 1 left"),
    "array cut inside": ("828100", "byte 3: ends early"),
    "map without value": ("a16161", "byte 3: ends early"),
    "array of 2^64-1": ("9bffffffffffffffff", "ends early"),
    "map of 2^32": ("bb0000000100000000", "ends early"),
    "reserved length 28": ("1c", "indefinite or reserved length"),
    "reserved length 30": ("5e", "indefinite or reserved length"),
    "indefinite bytes [C-4]": ("5f4100ff", "indefinite or reserved length"),
    "indefinite text [C-4]": ("7f6161ff", "indefinite or reserved length"),
    "indefinite array [C-4]": ("9f00ff", "indefinite or reserved length"),
    "indefinite map [C-4]": ("bf616100ff", "indefinite or reserved length"),
    "break alone [C-4]": ("ff", "first byte 0xff is a tag, a float or not assigned"),
    "half float [C-4]": ("f90000", "first byte 0xf9"),
    "single float [C-4]": ("fa00000000", "first byte 0xfa"),
    "double float [C-4]": ("fb0000000000000000", "first byte 0xfb"),
    "undefined [C-4]": ("f7", "first byte 0xf7"),
    "simple value 0 [C-4]": ("e0", "first byte 0xe0"),
    "long form of false [C-4]": ("f814", "first byte 0xf8"),
    "date tag [C-4]": ("c000", "first byte 0xc0"),
    "bignum tag [C-4]": ("c24101", "first byte 0xc2"),
    "regular expression tag [C-4]": ("d82361", "first byte 0xd8"),
    "shared reference tag [C-4]": ("d81c81d81d00", "first byte 0xd8"),
    "repeated key [C-3]": ("a2616100616101", "byte 4: map key is repeated or out of order"),
    "keys out of order [C-3]": ("a2616200616100", "map key is repeated or out of order"),
    "longer key first [C-3]": ("a262616100616200", "map key is repeated or out of order"),
    "number as key [C-3]": ("a10000", "byte 1: map key is int, expected text"),
    "bytes as key [C-3]": ("a1416100", "map key is bytes, expected text"),
    "null as key [C-3]": ("a1f600", "map key is NoneType, expected text"),
    "array as key [C-3]": ("a18000", "containers nest deeper"),
    "lone continuation byte": ("6180", "byte 1: text is not UTF-8"),
    "overlong slash": ("62c0af", "text is not UTF-8"),
    "unpaired surrogate": ("63eda080", "byte 1: text is not UTF-8"),
    "paired surrogates": ("66eda080edb080", "text is not UTF-8"),
    "above U+10FFFF": ("64f4908080", "text is not UTF-8"),
    "key that is not UTF-8": ("a161ff00", "byte 2: text is not UTF-8"),
    "nine arrays [C-2]": ("81" * 8 + "80", "byte 8: containers nest deeper than 8"),
    "nine maps [C-2]": ("a16161" * 8 + "a0", "containers nest deeper than 8"),
    "thousands of arrays [C-2]": ("81" * 100_000, "containers nest deeper than 8"),
}

# Of text that UTF-8 can carry, and integers that the encoding can.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=300)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
)


def _containers(inner: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    return st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5)


VALUES: st.SearchStrategy[Value] = st.recursive(SCALARS, _containers, max_leaves=20).filter(
    lambda value: _depth(value) <= DEPTH_MAX
)


def _depth(value: object) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return 0
    return 1 + max(map(_depth, value), default=0)


def _accepts(data: bytes) -> bool:
    """Whether the bytes are accepted; if so, they must be what serializing gives [C-1]."""
    try:
        value = parse(data)
    except MalformedError:
        return False
    assert serialize(value) == data
    return True


@pytest.mark.parametrize(("value", "encoded"), EXAMPLES)
def test_an_example_is_written_and_read_as_the_standard_says(value: Value, encoded: str) -> None:
    assert serialize(value).hex() == encoded
    assert parse(bytes.fromhex(encoded)) == value


@pytest.mark.parametrize("name", HOSTILE)
def test_what_the_serializer_would_not_write_is_refused_with_its_position(name: str) -> None:
    encoded, why = HOSTILE[name]

    with pytest.raises(MalformedError) as refusal:
        parse(bytes.fromhex(encoded))

    assert str(refusal.value).startswith("encoding, byte ")
    assert why in str(refusal.value)


def test_eight_containers_inside_each_other_are_the_most() -> None:
    """[C-2] counts containers, so a scalar inside the eighth is fine."""
    deepest: Value = [1]
    for _ in range(DEPTH_MAX - 1):
        deepest = {"a": deepest}

    assert parse(serialize(deepest)) == deepest
    with pytest.raises(ValueError, match="containers nest deeper than 8"):
        serialize([deepest])


def test_true_and_one_stay_apart() -> None:
    assert serialize([True, 1, False, 0]).hex() == "84f501f400"
    assert repr(parse(bytes.fromhex("84f501f400"))) == "[True, 1, False, 0]"


def test_a_tuple_is_written_as_an_array() -> None:
    assert serialize((1, (2,))) == serialize([1, [2]])


@pytest.mark.parametrize("value", [1.0, {1, 2}, bytearray(b"x"), object(), [[2.5]], {"a": 1j}])
def test_a_value_without_encoding_is_the_callers_mistake(value: Value) -> None:
    with pytest.raises(TypeError, match="has no encoding"):
        serialize(value)


def test_a_key_that_is_not_text_is_the_callers_mistake() -> None:
    keyed_by_number: Any = {1: 2}

    with pytest.raises(TypeError, match="map key is int, expected text"):
        serialize(keyed_by_number)


@pytest.mark.parametrize("value", [2**64, -(2**64) - 1, [2**70]])
def test_an_integer_beyond_64_bits_is_the_callers_mistake(value: Value) -> None:
    with pytest.raises(ValueError, match=r"outside -2\^64 .. 2\^64-1"):
        serialize(value)


def test_a_surrogate_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        serialize("\ud800")


def test_a_cycle_ends_at_the_depth_limit() -> None:
    cycle: list[Value] = []
    cycle.append(cycle)

    with pytest.raises(ValueError, match="containers nest deeper than 8"):
        serialize(cycle)


@given(VALUES)
def test_every_value_comes_back_from_its_encoding(value: Value) -> None:
    assert parse(serialize(value)) == value


@given(st.binary(max_size=60))
@example(b"\xa1\x61a\x80")
def test_any_bytes_are_refused_or_are_the_only_encoding_of_what_they_say(data: bytes) -> None:
    """[C-1]: nothing but MalformedError ever comes out."""
    _accepts(data)


@given(VALUES, st.data())
def test_an_encoding_with_one_byte_changed_is_refused_or_another_only_encoding(
    value: Value, data: st.DataObject
) -> None:
    encoded = bytearray(serialize(value))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))

    _accepts(bytes(encoded))


@given(VALUES)
def test_another_implementation_writes_the_same_bytes_and_reads_ours(value: Value) -> None:
    assert cbor2.dumps(value, canonical=True) == serialize(value)
    assert cbor2.loads(serialize(value)) == value


@given(st.binary(max_size=40))
def test_what_we_accept_another_implementation_reads_alike(data: bytes) -> None:
    if _accepts(data):
        assert cbor2.loads(data) == parse(data)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_million_mutations_crash_nothing_and_find_no_second_encoding() -> None:
    seeds = [bytes.fromhex(encoded) for _, encoded in EXAMPLES]
    seeds += [bytes.fromhex(encoded)[:64] for encoded, _ in HOSTILE.values()]
    seeds.append(serialize({"a": [1, {"b": b"xy", "c": "ü"}], "bb": [None, True, -300]}))
    accepted = 0

    for mutant in _mutants(seeds, 10_000_000):
        accepted += _accepts(mutant)

    assert accepted > 100_000  # Else the mutations are too wild to have tested anything.


def _mutants(seeds: list[bytes], count: int) -> Iterator[bytes]:
    """Change, drop, repeat or splice up to three bytes, the same way on every run."""
    for number in range(count):
        dice = hashlib.shake_128(number.to_bytes(4, "big")).digest(16)
        data = bytearray(seeds[int.from_bytes(dice[:2], "big") % len(seeds)])
        for at in range(2, 2 + 4 * (1 + dice[15] % 3), 4):
            kind, where, what = dice[at], dice[at + 1] % (len(data) + 1), dice[at + 2]
            if kind % 4 == 0:
                data[where : where + 1] = b""
            elif kind % 4 == 1:
                data[where:where] = bytes((what,))
            elif kind % 4 == 2:
                data[where : where + 1] = bytes((what,))
            else:
                data[where:where] = seeds[what % len(seeds)]
        yield bytes(data)


def test_the_example_in_the_documentation_works() -> None:
    assert doctest.testmod(encoding) == (0, 2)
