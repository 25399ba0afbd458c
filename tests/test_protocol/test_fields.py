"""A parsed map becomes typed values only if it is exactly what was expected: [C-5]."""

import doctest

import pytest

from comity_protocol import fields
from comity_protocol.encoding import Value
from comity_protocol.errors import MalformedError
from comity_protocol.fields import (
    INTEGER_MAX,
    Fields,
    array_of,
    bytes_of,
    check_ascending,
    integer_of,
    map_of,
    prose_of,
    text_of,
)


def _fields(**values: Value) -> Fields:
    return Fields.of(values, "letter", required=values.keys())


def test_fields_give_every_kind_of_value() -> None:
    fields = Fields.of(
        {
            "n": 7,
            "id": b"1234",
            "code": "file",
            "name": "Zoë",
            "text": "one\n\ttwo",
            "to": [b"a", b"b"],
            "free": {"x": 1},
            "inner": {"k": 2},
        },
        "letter",
        required={"n", "id", "code", "name", "text", "to", "free", "inner"},
        optional={"late"},
    )

    assert fields.integer("n", low=7, high=7) == 7
    assert fields.bytes("id", length=4) == b"1234"
    assert fields.bytes("id", low=1, high=9) == b"1234"
    assert fields.text("code", choices={"file", "lead"}) == "file"
    assert fields.text("name", bytes_max=4) == "Zoë"
    assert fields.prose("text", bytes_max=8) == "one\n\ttwo"
    assert fields.array("to", low=2, high=2) == (b"a", b"b")
    assert fields.map("free", high=1) == {"x": 1}
    assert fields.fields("inner", required={"k"}).integer("k") == 2
    assert fields.value("n") == 7
    assert fields.is_present("n")
    assert not fields.is_present("late")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([], "letter is of type list, expected a map"),
        (None, "letter is of type NoneType, expected a map"),
        ({}, "letter has no field 'a', expected it"),
        ({"b": 1}, "letter has no field 'a', expected it"),
        ({"a": 1, "d": 1}, "letter has the unknown field 'd'"),
        ({"a": 1, "e\n\u202e": 1}, r"letter has the unknown field 'e\n\u202e'"),
    ],
)
def test_a_map_with_other_keys_is_refused(value: Value, why: str) -> None:
    """[C-5]: neither an unknown nor a missing key passes."""
    with pytest.raises(MalformedError) as refusal:
        Fields.of(value, "letter", required={"a"}, optional={"c"})

    assert str(refusal.value) == why


def test_a_long_unknown_key_is_cut_in_the_message() -> None:
    """[C-5]: the message must not carry what an attacker wants in a log."""
    with pytest.raises(MalformedError, match=r"unknown field 'x{40}'$"):
        Fields.of({"x" * 1000: 1}, "letter", required=())


def test_an_optional_key_may_be_there_or_not() -> None:
    assert Fields.of({"a": 1, "c": 2}, "letter", {"a"}, {"c"}).is_present("c")
    assert not Fields.of({"a": 1}, "letter", {"a"}, {"c"}).is_present("c")


def test_a_message_names_the_object_and_the_field() -> None:
    with pytest.raises(MalformedError, match=r"^letter, inner, k is 9, expected 0 to 8$"):
        _fields(inner={"k": 9}).fields("inner", required={"k"}).integer("k", high=8)


@pytest.mark.parametrize("value", [True, "1", b"2", None, [1]])
def test_what_is_not_an_integer_is_refused(value: Value) -> None:
    with pytest.raises(MalformedError, match="expected an integer"):
        integer_of(value, "n")


@pytest.mark.parametrize(("value", "low", "high"), [(-1, 0, 5), (6, 0, 5), (0, 1, INTEGER_MAX)])
def test_an_integer_outside_its_bounds_is_refused(value: int, low: int, high: int) -> None:
    with pytest.raises(MalformedError, match=f"^n is {value}, expected {low} to {high}$"):
        integer_of(value, "n", low=low, high=high)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("12", "id is of type str, expected a byte string"),
        (b"123", "id has 3 bytes, expected 2$"),
        (b"1", "id has 1 bytes, expected 2$"),
    ],
)
def test_bytes_of_another_length_or_type_are_refused(value: Value, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        bytes_of(value, "id", length=2)


@pytest.mark.parametrize("size", [1, 5])
def test_bytes_outside_their_bounds_are_refused(size: int) -> None:
    with pytest.raises(MalformedError, match=f"id has {size} bytes, expected 2 to 4"):
        bytes_of(bytes(size), "id", low=2, high=4)


def test_bytes_and_text_without_bound_are_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="needs length or high"):
        bytes_of(b"", "id")
    with pytest.raises(ValueError, match="needs bytes_max or choices"):
        text_of("", "name")


@pytest.mark.parametrize("value", [b"file", 1, None])
def test_what_is_not_text_is_refused(value: Value) -> None:
    with pytest.raises(MalformedError, match="expected text"):
        text_of(value, "code", choices={"file"})
    with pytest.raises(MalformedError, match="expected text"):
        text_of(value, "code", bytes_max=9)
    with pytest.raises(MalformedError, match="expected text"):
        prose_of(value, "code", bytes_max=9)


def test_a_code_that_is_not_known_is_refused_without_repeating_it() -> None:
    with pytest.raises(MalformedError, match=r"^code is not one of file, lead$"):
        text_of("NAME OF A WITNESS", "code", choices={"lead", "file"})


def test_text_is_measured_in_bytes() -> None:
    assert text_of("üü", "name", bytes_max=4) == "üü"
    with pytest.raises(MalformedError, match="name has 4 bytes, expected 0 to 3"):
        text_of("üü", "name", bytes_max=3)


@pytest.mark.parametrize(
    "character",
    list("\x00\t\n\r\x1b\x7f\x85\x9b\u2028\u2029\u202a\u202e\u2066\u2069"),
)
def test_a_line_with_a_control_or_a_turn_of_direction_is_refused(character: str) -> None:
    with pytest.raises(MalformedError, match=rf"name has the character U\+{ord(character):04X}"):
        text_of(f"a{character}b", "name", bytes_max=9)


@pytest.mark.parametrize("character", ["\x00", "\x0b", "\r", "\x1b", "\x7f", "\x9b", "\u2028"])
def test_prose_with_a_control_is_refused(character: str) -> None:
    with pytest.raises(MalformedError, match=r"has the character U\+"):
        prose_of(f"a{character}b", "text", bytes_max=9)


def test_prose_may_have_lines_tabs_and_marks_of_direction() -> None:
    text = "a\n\tb \u2067שלם\u2069"

    assert prose_of(text, "text", bytes_max=99) == text


def test_text_that_is_not_in_normal_form_c_is_refused() -> None:
    """Else two people see the same name and the bytes differ."""
    with pytest.raises(MalformedError, match="name is not in Unicode normal form C"):
        text_of("Zoe\u0308", "name", bytes_max=9)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({}, "to is of type dict, expected an array"),
        ("ab", "to is of type str, expected an array"),
        ([], "to has 0 items, expected 1 to 2"),
        ([1, 2, 3], "to has 3 items, expected 1 to 2"),
    ],
)
def test_an_array_of_another_size_or_type_is_refused(value: Value, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        array_of(value, "to", low=1, high=2)


def test_a_free_map_has_a_bound_too() -> None:
    assert map_of({}, "free") == {}
    with pytest.raises(MalformedError, match="letter, free has 2 fields, expected 0 to 1"):
        _fields(free={"a": 1, "b": 2}).map("free", high=1)


def test_the_example_in_the_documentation_works() -> None:
    assert doctest.testmod(fields) == (0, 2)


@pytest.mark.parametrize("ids", [(), (b"a",), (b"a", b"b", b"c")])
def test_ids_that_ascend_are_in_order(ids: tuple[bytes, ...]) -> None:
    check_ascending(ids, "letters")


@pytest.mark.parametrize("ids", [(b"b", b"a"), (b"a", b"a"), (b"a", b"c", b"b")])
def test_ids_out_of_order_or_twice_are_malformed(ids: tuple[bytes, ...]) -> None:
    """[C-1] One set of ids has one form."""
    with pytest.raises(MalformedError, match="letters are not ascending, each once"):
        check_ascending(ids, "letters")
