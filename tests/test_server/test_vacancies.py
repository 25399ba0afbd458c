"""Finding counters again: the next ones at the first try, and others within a bound."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity_protocol.leaves import commit_counters, places_of
from comity_server import vacancies
from comity_server.vacancies import TRIES_MAX, find_counters

BLIND = b"B" * 16
DESKS = [sha256(bytes([number])).digest()[:16] for number in range(10)]


def places(desks: list[bytes], counters: list[int]) -> bytes:
    return places_of(commit_counters(desks, counters, BLIND))


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3), st.integers(0, 3)), max_size=4),
)
def test_counters_are_found_when_what_was_lost_can_explain_them(
    given_: list[tuple[int, int, int]],
) -> None:
    """[R-3]"""
    desks = DESKS[: len(given_)]
    last = {desk: known for desk, (known, _, _) in zip(desks, given_, strict=True)}
    lost = {desk: more for desk, (_, more, _) in zip(desks, given_, strict=True)}
    counters = [known + 1 + skipped for known, _, skipped in given_]
    found = find_counters(desks, blind=BLIND, places=places(desks, counters), last=last, lost=lost)

    can_be = all(skipped <= more for _, more, skipped in given_)
    assert found == (tuple(counters) if can_be else None)


def test_the_next_counters_are_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """[R-15] Nothing lost costs one try, whatever might be possible."""
    tried: list[object] = []

    def count(commitments: list[bytes]) -> bytes:
        tried.append(commitments)
        return places_of(commitments)

    monkeypatch.setattr(vacancies, "places_of", count)
    found = find_counters(
        DESKS,
        blind=BLIND,
        places=places(DESKS, [8] * 10),
        last=dict.fromkeys(DESKS, 7),
        lost=dict.fromkeys(DESKS, 1_000),
    )

    assert found == (8,) * 10
    assert len(tried) == 1


def test_an_office_that_stays_closed_loses_nothing_of_the_others() -> None:
    """[R-16] Hundreds of its acts to one desk, with one auditor, do not come back."""
    desks = DESKS[:3]
    counters = [1, 501, 501]

    found = find_counters(
        desks,
        blind=BLIND,
        places=places(desks, counters),
        last={},
        lost=dict.fromkeys(desks, 2_000),
    )

    assert found == tuple(counters)


def test_the_search_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """[R-15] Entries that nobody can explain do not keep the relay busy for ever."""
    tried: list[object] = []

    def count(commitments: list[bytes]) -> bytes:
        tried.append(commitments)
        return b""

    monkeypatch.setattr(vacancies, "places_of", count)
    found = find_counters(
        DESKS, blind=BLIND, places=bytes(32), last={}, lost=dict.fromkeys(DESKS, 1_000_000)
    )

    assert found is None
    assert len(tried) == TRIES_MAX
