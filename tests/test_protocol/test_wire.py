"""Paths and problems: one table for both sides, safe to show."""

import re

import pytest

from comity_protocol import wire
from comity_protocol.errors import (
    ComityError,
    LimitError,
    MalformedError,
    OpenError,
    VerificationError,
)

PATHS = {
    name: value
    for name, value in vars(wire).items()
    if str(value).startswith("/") and name.isupper()
}


def test_every_problem_code_fits_the_wire() -> None:
    """[C-5] A code is on the wire and in other people's programs."""
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in wire.PROBLEMS)


@pytest.mark.parametrize("code", sorted(wire.PROBLEMS))
def test_every_problem_has_an_error_status_and_tells_what_to_do(code: str) -> None:
    problem = wire.PROBLEMS[code]

    assert 400 <= problem.status <= 503
    for words in (problem.title, problem.remedy):
        assert words[0].islower()
        assert words[-1] != "."


def test_the_table_of_problems_cannot_be_altered() -> None:
    with pytest.raises(TypeError):
        wire.PROBLEMS["new"] = wire.PROBLEMS["busy"]  # type: ignore[index]  # the point of the test


@pytest.mark.parametrize("error", [ComityError, MalformedError, VerificationError])
def test_what_the_protocol_raises_on_an_upload_has_a_problem(error: type[ComityError]) -> None:
    assert error.code in wire.PROBLEMS


@pytest.mark.parametrize("error", [LimitError, OpenError])
def test_what_only_a_desk_meets_has_no_problem(error: type[ComityError]) -> None:
    assert error.code not in wire.PROBLEMS


def test_every_path_is_named_once() -> None:
    assert PATHS
    assert len(set(PATHS.values())) == len(PATHS)


def test_a_token_has_six_claims_and_no_others() -> None:
    assert sorted(wire.TOKEN_CLAIMS) == ["aud", "bh", "htm", "htu", "jti", "n"]
