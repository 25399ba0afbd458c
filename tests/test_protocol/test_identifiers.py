"""Identifiers as people and files write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity_protocol.errors import MalformedError
from comity_protocol.identifiers import ID_BYTES, parse_id, short


@given(st.binary(min_size=ID_BYTES, max_size=ID_BYTES))
def test_an_identifier_reads_as_it_was_written(identifier: bytes) -> None:
    """[C-1]"""
    assert parse_id(identifier.hex(), "desk") == identifier


def test_people_see_eight_digits() -> None:
    assert short(bytes.fromhex("0123456789abcdef0123456789abcdef")) == "01234567"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0123",
        "0123456789ABCDEF0123456789abcdef",
        "0123456789abcdef 0123456789abcdef",
        "0123456789abcdef0123456789abcdeg",
        "0123456789abcdef0123456789abcdef0",
        "0123456789abcdef0123456789abcdef00",
        "\u0660123456789abcdef0123456789abcdef",
    ],
)
def test_another_form_of_an_identifier_is_malformed(text: str) -> None:
    """[C-1] One identifier has one form, so that two lists of them can be compared as text."""
    with pytest.raises(MalformedError, match="desk is not 32 lower-case hexadecimal digits"):
        parse_id(text, "desk")
