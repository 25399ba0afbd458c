"""When each act was done, as witnesses saw it: between what its author had seen and what covers it.

Nobody's own clock is asked. What is learned once is kept, because it cannot change: of two
checkpoints that cover an act the earlier one counts, and of stamps and checkpoints the earlier
proof.

Rules:

* [M-1] An act is dated not before the sealed time of its ``seen`` and not after that of the first
  known witnessed checkpoint that covers it.
* [M-2] Of a sealed time and the time of a quorum of stamps the earlier counts.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from comity_client.noticed import fold_notices
from comity_client.state import State
from comity_protocol.core import Core, core_hash
from comity_protocol.genesis import Genesis
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.stamps import Stamp, stamped_at
from comity_protocol.times import Bracket, bracket_of

READ_UNTIL: Final = "published until"
"""Mark: every published checkpoint was read up to this sealed time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What is proven of when an act was done; UTC seconds by the witnesses.

    Attributes:
        seen_at: Sealed time of what its author had seen; None while that is not known.
        sealed_at: Sealed time of the first known checkpoint that covers it; None before there is
            one.
        stamped_at: Time of a quorum of stamps; None without.
    """

    seen_at: int | None
    sealed_at: int | None
    stamped_at: int | None

    @property
    def bracket(self) -> Bracket | None:
        """The bracket; it begins at 0 while its beginning is not known. None if nothing proves."""
        if self.sealed_at is None and self.stamped_at is None:
            return None
        return bracket_of(
            seen_at=self.seen_at, sealed_at=self.sealed_at, stamped_at=self.stamped_at
        )


class Calendar:
    """The sealed times of all checkpoints that are known."""

    def __init__(self, dated: Iterable[tuple[bytes, int, int]]) -> None:
        """Take (hash of the note, size, sealed time) of each."""
        rows = list(dated)
        self._by_hash: Final = {hash_: sealed_at for hash_, _, sealed_at in rows}
        by_size = sorted((size, sealed_at) for _, size, sealed_at in rows)
        self._sizes: Final = [size for size, _ in by_size]
        minima = accumulate((sealed_at for _, sealed_at in reversed(by_size)), min)
        self._minima: Final = list(minima)[::-1]

    def seen(self, hash_: bytes) -> int | None:
        """Give the sealed time of a checkpoint that somebody names."""
        return self._by_hash.get(hash_)

    def sealed(self, index: int) -> int | None:
        """Give the earliest sealed time of a checkpoint that covers a leaf."""
        # SPEC [M-1]: not after that of the first known witnessed checkpoint that covers it.
        at = bisect_right(self._sizes, index)
        return self._minima[at] if at < len(self._minima) else None

    @property
    def all(self) -> tuple[int, ...]:
        """The sealed times of all of them, ascending, each once."""
        return tuple(sorted(set(self._by_hash.values())))


def read_calendar(state: State, until: int = SIZE_MAX) -> Calendar:
    """Give the checkpoints that this device has verified, sealed at a time or before."""
    return Calendar(
        state.connection.execute(
            "SELECT hash, size, sealed_at FROM checkpoints WHERE sealed_at <= ?", (until,)
        )
    )


def read_times(
    state: State, genesis: Genesis | None, only: Collection[EnvelopeId | None] | None = None
) -> Mapping[EnvelopeId, Times]:
    """Give the times of every act in the log, and of own ones that are stamped.

    Args:
        state: What is known.
        genesis: Whose witnesses count; without it nothing is dated.
        only: Of these acts alone.
    """
    if genesis is None:
        return {}
    calendar, stamps = read_calendar(state), _stamps(state)
    times: dict[EnvelopeId, Times] = {}
    rows: list[tuple[int | None, EnvelopeId, bytes]] = state.connection.execute(
        "SELECT leaf_index, envelope, core FROM inbox WHERE sealed_at IS NOT NULL"
        " UNION ALL SELECT NULL, envelope, core FROM stamped"
    ).fetchall()
    for index, id_, data in rows:
        if id_ in times or (only is not None and id_ not in only):
            continue
        core, what = Core.parse(data), core_hash(data)
        times[core.id] = Times(
            seen_at=calendar.seen(core.seen),
            sealed_at=None if index is None else calendar.sealed(index),
            # SPEC [M-2]: of a sealed time and the time of stamps the earlier counts.
            stamped_at=stamped_at(stamps.get(what, ()), genesis.deployment, what, genesis.quorum),
        )
    return times


def _stamps(state: State) -> dict[bytes, set[Stamp]]:
    """Give all stamps by the hash of the core: those of notices, and own ones not stated yet."""
    found = {what: set(stamps) for what, stamps in fold_notices(state).stamps.items()}
    rows = state.connection.execute("SELECT what, witness, at, signature FROM stamps")
    for what, witness, at, signature in rows:
        found.setdefault(what, set()).add(Stamp(witness, at, signature))
    return found
