"""When something happened, as witnesses saw it, and what follows from that. In integers alone.

Nobody's own clock counts: not the relay's, not that of a computer in an office. What counts is
what witnesses signed, so the time of an act is a bracket between two of their times. All times
are seconds since 1970-01-01T00:00:00Z.

Rules:

* [M-1] an act is not before the sealed time of what its author had seen and not after that of the
  first known witnessed checkpoint that covers it;
* [M-2] the earliest proof counts: sealed, or stamped by a quorum of witnesses;
* [M-3] a duration is in time, late or undetermined;
* [M-4] outages follow from sealed times alone, so that everyone finds the same;
* [M-5] no party's own clock is counted; how far witnesses are apart is shown;
* [M-6] with fewer than three witnesses, or where one alone can move the time, nobody is ranked.

Example:
    >>> opened = bracket_of(seen_at=90, sealed_at=100)
    >>> closed = bracket_of(seen_at=150, sealed_at=400, stamped_at=170)
    >>> judge(opened, closed, 60), judge(opened, closed, 70), judge(opened, closed, 40)
    (<Verdict.UNDETERMINED: 'undetermined'>, <Verdict.IN_TIME: 'in-time'>, <Verdict.LATE: 'late'>)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from comity_protocol.checkpoint import WitnessedCheckpoint
from comity_protocol.limits import OUTAGE_GAP_SECONDS_MIN, RANKED_WITNESSES_MIN


@dataclass(frozen=True, slots=True)
class Bracket:
    """When an act happened.

    Attributes:
        not_before: its author had seen something that witnesses sealed then.
        not_after: witnesses had it then; by this the act is proven, and figures run from it.

    Raises:
        ValueError: the end is before the beginning.
    """

    not_before: int
    not_after: int

    def __post_init__(self) -> None:
        if self.not_after < self.not_before:
            raise ValueError(f"bracket ends at {self.not_after}, before {self.not_before}")

    @property
    def width(self) -> int:
        """Seconds between the two; long for an office that was offline."""
        return self.not_after - self.not_before


def bracket_of(
    *, seen_at: int | None, sealed_at: int | None, stamped_at: int | None = None
) -> Bracket:
    """Date an act.

    Args:
        seen_at: sealed time of the checkpoint that its core names as `seen`; None when it is not
            known, which leaves the beginning open.
        sealed_at: sealed time of the first known witnessed checkpoint that covers it; None while
            none does.
        stamped_at: what `stamps.stamped_at` gives for its core.

    Stops: a relay that logs late what witnesses stamped in time; a sender that names an old
    checkpoint in order to look earlier, because the end of the bracket does not depend on it.

    Raises:
        ValueError: it is neither sealed nor stamped, so that nothing is proven.

    Source: PROTOCOL [M-1], [M-2].
    """
    # SPEC [M-2]: the earliest proof counts.
    proven = [at for at in (sealed_at, stamped_at) if at is not None]
    if not proven:
        raise ValueError("act is neither sealed nor stamped, so it has no time yet")
    not_after = min(proven)
    # SPEC [M-1]: not before the sealed time of what was seen. Clocks of witnesses differ by
    # seconds, so that may be a little above the end, and never moves it.
    return Bracket(min(seen_at or 0, not_after), not_after)


class Verdict(Enum):
    """What can be said of a duration and a limit."""

    IN_TIME = "in-time"
    LATE = "late"
    UNDETERMINED = "undetermined"


def judge(opened: Bracket, closed: Bracket, limit_seconds: int) -> Verdict:
    """Say whether what was opened was closed within a limit.

    The clock starts at the end of the opening bracket, because before that nobody can be expected
    to have had the act.

    Args:
        opened: Of the opening act, without its stamps: see ``counting`` on N-5.
        closed: Of the answer, with its stamps.
        limit_seconds: Within which it was due.

    Source: PROTOCOL [M-3].
    """
    # SPEC [M-3]: in time, late or undetermined.
    if closed.not_after - opened.not_after <= limit_seconds:
        return Verdict.IN_TIME
    if closed.not_before - opened.not_after > limit_seconds:
        return Verdict.LATE
    return Verdict.UNDETERMINED


@dataclass(frozen=True, slots=True, order=True)
class Outage:
    """A time without a witnessed checkpoint: sealed time of the one before and of the one after."""

    start: int
    end: int

    @property
    def seconds(self) -> int:
        """How long it was."""
        return self.end - self.start


def outages(
    sealed_times: Iterable[int], gap_seconds: int = OUTAGE_GAP_SECONDS_MIN
) -> tuple[Outage, ...]:
    """Find the gaps between published checkpoints.

    Args:
        sealed_times: of all published checkpoints, in any order.
        gap_seconds: a longer time than this without a checkpoint is an outage.

    Returns:
        The outages, ascending. They are shown beside a clock and stop none.

    Source: PROTOCOL [M-4].
    """
    # SPEC [M-4]: from the sealed times of the published checkpoints alone.
    return tuple(
        Outage(start, end)
        for start, end in pairwise(sorted(set(sealed_times)))
        if end - start > gap_seconds
    )


def outage_seconds(found: Iterable[Outage], start: int, end: int) -> int:
    """Count the seconds of outages between two times.

    Args:
        found: what `outages` gave: they do not overlap.
        start: from when.
        end: until when; not later than `start` gives 0.
    """
    return sum(max(0, min(one.end, end) - max(one.start, start)) for one in found)


def skews(witnessed: WitnessedCheckpoint) -> dict[str, int]:
    """Say how many seconds the clock of each witness was ahead of a checkpoint's sealed time.

    Source: PROTOCOL [M-5].
    """
    # SPEC [M-5]: no party's own clock is counted; how far witnesses are apart is shown.
    return {one.witness: one.time - witnessed.sealed_time for one in witnessed.cosignatures}


def is_ranked(*, witnesses: int, least: int) -> bool:
    """Whether times may rank States against each other.

    Args:
        witnesses: How many the genesis has.
        least: How many of them it takes at least to move a time, as ``Quorum.movers`` says.

    Source: PROTOCOL [M-6]. Stops a single witness from deciding who is called slow.
    """
    # SPEC [M-6]: with fewer than three witnesses, or where one alone can move the time, nobody is
    # ranked.
    return witnesses >= RANKED_WITNESSES_MIN and least > 1
