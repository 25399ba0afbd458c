"""Padding: few lengths, and nothing but the content comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity_protocol.errors import MalformedError
from comity_protocol.padding import AUDIT_CLASSES, pad_audit, pad_body, unpad


@given(st.binary(max_size=2_000))
def test_a_body_comes_back_as_it_was(content: bytes) -> None:
    """[E-10]"""
    assert unpad(pad_body(content)) == content


@given(st.binary(max_size=511))
def test_an_audit_record_comes_back_as_it_was(content: bytes) -> None:
    """[E-10]"""
    assert unpad(pad_audit(content)) == content


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x80\x00\x00", b"\x00", b"a\x80\x00"])
def test_content_that_looks_like_padding_comes_back_as_it_was(content: bytes) -> None:
    """[E-10]"""
    assert unpad(pad_body(content)) == unpad(pad_audit(content)) == content


@pytest.mark.parametrize(
    ("length", "padded"),
    [
        (0, 256),
        (255, 256),
        (256, 272),
        (271, 272),
        (272, 288),
        (1_000, 1_024),
        (1_023, 1_024),
        (1_024, 1_088),
        (2_000, 2_048),
        (10_000, 10_240),
        (100_000, 100_352),
        (253_951, 253_952),
    ],
)
def test_a_body_takes_padme_lengths_of_at_least_256(length: int, padded: int) -> None:
    """[E-10]"""
    assert len(pad_body(bytes(length))) == padded


@given(st.integers(min_value=256, max_value=300_000))
def test_a_body_above_the_smallest_class_grows_by_an_eighth_at_most(length: int) -> None:
    """[E-10]"""
    assert len(pad_body(bytes(length))) <= (length + 1) * 1.125


@pytest.mark.parametrize(("length", "padded"), [(0, 128), (127, 128), (128, 256), (511, 512)])
def test_an_audit_record_takes_one_of_three_lengths(length: int, padded: int) -> None:
    """[E-10]"""
    assert len(pad_audit(bytes(length))) == padded
    assert padded in AUDIT_CLASSES


def test_an_audit_record_above_the_largest_class_is_the_callers_mistake() -> None:
    """[E-10]"""
    with pytest.raises(ValueError, match="audit record is 512 bytes, expected below 512"):
        pad_audit(bytes(512))


@pytest.mark.parametrize("padded", [b"", b"\x00", bytes(256), b"text", b"text\x80\x00\x01"])
def test_bytes_without_padding_are_malformed(padded: bytes) -> None:
    """[E-10]"""
    with pytest.raises(MalformedError, match="padding is missing"):
        unpad(padded)
