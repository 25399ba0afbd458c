"""The closed lists: what an auditor may be told, because it names nobody."""

import re

import pytest

from comity_protocol import codes

LISTS = {
    name: value
    for name, value in vars(codes).items()
    if name.isupper() and isinstance(value, frozenset | tuple) and not name.startswith("_")
}


@pytest.mark.parametrize("name", [name for name in LISTS if name != "BANDS"])
def test_every_code_is_short_upper_case_ascii(name: str) -> None:
    """[A-4] [U-2] A code has no room for a person's name, and prints the same everywhere."""
    assert LISTS[name]
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]{1,21}", code) for code in LISTS[name])


def test_bank_secrecy_and_fiscal_matters_are_no_grounds_for_refusal() -> None:
    """[A-4] UNTOC art. 18(8), 18(22): the grounds run from N01 to N22 without them."""
    assert sorted(codes.REFUSALS) == [f"N{number:02}" for number in range(1, 23)]


def test_measures_run_from_m01_to_m40() -> None:
    """[A-4]"""
    assert sorted(codes.MEASURES) == [f"M{number:02}" for number in range(1, 41)]


@pytest.mark.parametrize(
    ("count", "band"),
    [
        (0, "0"),
        (1, "1"),
        (2, "2-4"),
        (4, "2-4"),
        (5, "5-9"),
        (9, "5-9"),
        (10, "10-49"),
        (49, "10-49"),
        (50, "50+"),
        (1_000_000, "50+"),
    ],
)
def test_an_auditor_sees_a_band_and_never_a_count_above_one(count: int, band: str) -> None:
    """[U-2]"""
    assert codes.band(count) == band
    assert band in codes.BANDS
