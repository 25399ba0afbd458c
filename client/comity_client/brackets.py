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
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from comity_client.notices import fold_notices
from comity_client.state import State
from comity_client.sync import NewerCheckpointError, Synchroniser
from comity_client.transport import RelayClient, RelayRefusedError
from comity_protocol.checkpoint import note_hash
from comity_protocol.core import Core, core_hash
from comity_protocol.genesis import Genesis
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.limits import CHECKPOINTS_PAGE_MAX
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.stamps import Stamp, stamped_at
from comity_protocol.times import Bracket, bracket_of

LEARNED_AT_ONCE_MAX: Final = 64
"""Questions to the relay after a fetch; what is not learned then is learned the next time."""

SEEN_PAGES_MAX: Final = 4
"""Pages of checkpoints of one size that are read to find the one that somebody had seen."""

UNSEEN_AT_ONCE_MAX: Final = 500

PUBLISHED_PAGES_MAX: Final = 1_000
"""Pages of published checkpoints read in one go: 200,000 checkpoints, nearly four quiet years."""

READ_UNTIL: Final = "published until"
"""Mark: every published checkpoint was read up to this sealed time."""

_AFTER: Final = "published after"
_SKIP: Final = "published skip"


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


class Brackets:
    """Learns from the relay when acts were sealed, and keeps it."""

    def __init__(self, state: State, relay: RelayClient, sync: Synchroniser) -> None:
        """Take where it is kept, who is asked, and what checks the answers."""
        self._state: Final = state
        self._relay: Final = relay
        self._sync: Final = sync

    async def learn(self) -> None:
        """Ask for what is not known of the acts in the inbox, a bounded number of times.

        What the relay does not say now is asked for the next time.

        Raises:
            OfflineError, VerificationError: As ``Synchroniser.past``.
        """
        with suppress(RelayRefusedError, NewerCheckpointError):
            await self._learn()

    async def _learn(self) -> None:
        left = await self.cover(self._uncovered(), LEARNED_AT_ONCE_MAX)
        for counter, seen, size in self._unseen():
            if self._state.dated(seen) is None:
                if left <= 0:
                    break
                left -= 1
                await self._find(seen, size)
            # Found or not, it is asked for once.
            with self._state.transaction() as connection:
                connection.execute(
                    "UPDATE inbox SET seen_size = NULL WHERE counter = ?", (counter,)
                )

    async def cover(self, indexes: Iterable[int], limit: int) -> int:
        """Learn the first checkpoint that covers each leaf; give how many questions are left.

        Args:
            indexes: Ascending; below the size of the newest verified checkpoint.
            limit: Questions that may be asked.
        """
        until, sealed_at = 0, 0
        for index in indexes:
            if index >= until:
                if limit <= 0:
                    break
                limit -= 1
                first = await self._sync.covering(index)
                # Whatever lies between this leaf and the size is first covered by the same one.
                until, sealed_at = first.size, first.sealed_at
            with self._state.transaction() as connection:
                connection.execute(
                    "INSERT OR IGNORE INTO covering VALUES (?, ?)", (index, sealed_at)
                )
        return limit

    async def read_published(self, pages: int = PUBLISHED_PAGES_MAX) -> bool:
        """Read all published checkpoints on from where it last stopped; whether it is at the end.

        Args:
            pages: Pages of 200 that are read at most.

        Raises:
            OfflineError, RelayRefusedError, VerificationError: As ``Synchroniser.past``.
        """
        for _ in range(pages):
            after = self._state.mark(_AFTER)
            after, skip = -1 if after is None else after, self._state.mark(_SKIP) or 0
            page = await self._relay.checkpoints(after, skip)
            for note in page:
                try:
                    found = await self._sync.past(note)
                except NewerCheckpointError:
                    return True
                skip = skip + 1 if found.size == after + 1 else 1
                after = found.size - 1
                self._state.set_mark(READ_UNTIL, found.sealed_at)
            self._state.put_mark(_AFTER, after)
            self._state.put_mark(_SKIP, skip)
            if len(page) < CHECKPOINTS_PAGE_MAX:
                return True
        return False

    async def _find(self, seen: bytes, size: int) -> None:
        """Look for the published checkpoint of a size whose note has a hash, and learn it."""
        for number in range(SEEN_PAGES_MAX):
            page = await self._relay.checkpoints(size - 1, number * CHECKPOINTS_PAGE_MAX)
            for note in page:
                if note_hash(note) == seen:
                    await self._sync.past(note)
                    return
            if len(page) < CHECKPOINTS_PAGE_MAX:
                break

    def _uncovered(self) -> list[int]:
        rows = self._state.connection.execute(
            "SELECT leaf_index FROM inbox WHERE sealed_at IS NOT NULL"
            " AND leaf_index NOT IN (SELECT leaf_index FROM covering) ORDER BY leaf_index"
        )
        return [row[0] for row in rows]

    def _unseen(self) -> list[tuple[int, bytes, int]]:
        rows = self._state.connection.execute(
            "SELECT counter, core, seen_size FROM inbox"
            " WHERE sealed_at IS NOT NULL AND seen_size IS NOT NULL ORDER BY counter LIMIT ?",
            (UNSEEN_AT_ONCE_MAX,),
        )
        return [(counter, Core.parse(core).seen, size) for counter, core, size in rows]
