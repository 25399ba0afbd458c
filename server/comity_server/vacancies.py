"""Entries whose objects a restored database has lost, and how their counters are found again.

An entry of an envelope commits to the counters that its recipients were given, and the relay can
derive the blind. So what was given can be found again by trying: as long as nothing stayed lost,
the next counter of each mailbox fits at the first try; each entry that stayed lost may have taken
one counter of any mailbox. Nothing here touches a database.

Rules:

* [R-16] Counters are given again only when they make the entry that the log has.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Final

from comity_protocol.leaves import commit_counter, counter_blind, places_of

TRIES_MAX: Final = 65_536
"""Combinations of counters that are tried for one envelope: half a second."""


@dataclass(frozen=True, slots=True)
class Vacancy:
    """An entry of the log whose object is not in its place.

    Attributes:
        leaf_index: Its place in the log.
        leaf: The entry, 65 bytes.
        key: Id of the envelope that fits it and waits for its counters; None while nothing came.
    """

    leaf_index: int
    leaf: bytes
    key: bytes | None


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair of a restored database that is not finished.

    Attributes:
        had: Entries that the restored database had.
        size: Entries that it has since, all of which were signed before.
        began_at: When, UTC seconds.
        seconds_left: How long the members are still waited for; 0 when ended by hand, too.
        is_placing: Whether nothing is taken any more, because counters are being given.
        lost: Entries whose objects did not come back; None until that is known.
        ended_at: When that was known, UTC seconds; None before.
        incarnation: Of the database since then, 16 bytes; None before.
        open: Vacancies for which nothing came yet.
        open_statement: Place in the log of the first of them that is a statement's.
    """

    had: int
    size: int
    began_at: int
    seconds_left: int
    is_placing: bool
    lost: int | None
    ended_at: int | None
    incarnation: bytes | None
    open: int
    open_statement: int | None


def find_counters(
    desks: Sequence[bytes],
    *,
    blind: bytes,
    places: bytes,
    last: Mapping[bytes, int],
    lost: Mapping[bytes, int],
) -> tuple[int, ...] | None:
    """Find the counters that an envelope was given.

    Args:
        desks: Its recipients, in the order of the core's ``to``.
        blind: The envelope's.
        places: The second half of its entry.
        last: The last known counter of each of these mailboxes.
        lost: How many entries after that one may have taken counters of each.

    Returns:
        None when no combination fits, or none of the first ``TRIES_MAX``: half of them at most with
        equal numbers, and then those in which the fewest counters were lost.
    """
    blinds = [counter_blind(blind, desk) for desk in desks]
    bounds = [lost.get(desk, 0) for desk in desks]
    made: dict[tuple[int, int], bytes] = {}
    for skipped in islice(_guesses(bounds), TRIES_MAX):
        counters = [last.get(desk, 0) + 1 + more for desk, more in zip(desks, skipped, strict=True)]
        for at, counter in enumerate(counters):
            if (at, counter) not in made:
                made[at, counter] = commit_counter(desks[at], counter, blinds[at])
        # SPEC: counters are given again only when they make the entry of the log.
        if places_of([made[place] for place in enumerate(counters)]) == places:
            return tuple(counters)
    return None


def _guesses(bounds: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Give what may have been lost of each mailbox, the likeliest first.

    One desk that did not come back leaves out as many of its counterpart as of the auditors that
    they share, so an equal number is tried for all sets of few mailboxes before the sums.
    """
    yield tuple(0 for _ in bounds)
    equal = (
        tuple(more if at in chosen else 0 for at in range(len(bounds)))
        for more in range(1, max(bounds, default=0) + 1)
        for chosen in _sets([at for at, bound in enumerate(bounds) if bound >= more])
    )
    yield from islice(equal, TRIES_MAX // 2)
    for total in range(1, sum(bounds) + 1):
        yield from _splits(total, bounds)


def _sets(places: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Give every choice of some of these, the largest first."""
    for size in range(len(places), 0, -1):
        yield from combinations(places, size)


def _splits(total: int, bounds: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Give every way to write a number as a sum of parts within bounds."""
    if not bounds:
        if total == 0:
            yield ()
        return
    rest = sum(bounds[1:])
    for part in range(max(0, total - rest), min(total, bounds[0]) + 1):
        for parts in _splits(total - part, bounds[1:]):
            yield (part, *parts)
