"""Learns from the relay when acts were sealed, and keeps it for ``brackets``."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from comity_client.brackets import READ_UNTIL
from comity_client.state import State
from comity_client.sync import NewerCheckpointError, Synchroniser
from comity_client.transport import RelayClient, RelayRefusedError
from comity_protocol.checkpoint import note_hash
from comity_protocol.core import Core
from comity_protocol.limits import CHECKPOINTS_PAGE_MAX

LEARNED_AT_ONCE_MAX: Final = 64
"""Questions to the relay after a fetch; what is not learned then is learned the next time."""

SEEN_PAGES_MAX: Final = 4
"""Pages of checkpoints of one size that are read to find the one that somebody had seen."""

UNSEEN_AT_ONCE_MAX: Final = 500

PUBLISHED_PAGES_MAX: Final = 1_000
"""Pages of published checkpoints read in one go: 200,000 checkpoints, nearly four quiet years."""

_AFTER: Final = "published after"
_SKIP: Final = "published skip"


class Dating:
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
