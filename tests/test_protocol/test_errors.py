"""Errors carry a stable code to machines and a remedy to people."""

import re

from comity_protocol.errors import (
    ComityError,
    LimitError,
    MalformedError,
    OpenError,
    VerificationError,
)

KINDS = (ComityError, MalformedError, LimitError, VerificationError, OpenError)


def test_every_kind_has_a_code_of_its_own_that_fits_the_wire() -> None:
    codes = [kind.code for kind in KINDS]

    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


def test_every_kind_tells_a_person_what_to_do_next_in_words_of_its_own() -> None:
    remedies = [kind.remedy for kind in KINDS]

    assert len(set(remedies)) == len(remedies)
    assert all(remedy[0].islower() and remedy[-1] != "." for remedy in remedies)


def test_an_error_is_caught_as_comity_error_and_reads_as_its_message() -> None:
    assert str(MalformedError("3 bytes, expected 4")) == "3 bytes, expected 4"
    assert all(issubclass(kind, ComityError) for kind in KINDS)
