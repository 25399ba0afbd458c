"""Counts the statements in the log itself, so that the relay cannot keep one from this desk.

A chain is linked, so a statement in its middle cannot be left out; the last one can. A relay that
hides a removal from a sender would let her seal to a key that a leaver still holds. But every entry
of the log shows whether it is a statement, and every entry is proven, so whoever reads them all
knows how many there are and where.

Rules:

* [B-13] A log with a statement that this desk was not given is refused, with an alarm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from comity_client.keeping import Keeping
from comity_client.state import Newest, State
from comity_client.tiles import LogReader
from comity_protocol.errors import VerificationError
from comity_protocol.leaves import is_statement_leaf, statement_leaf, tag_of
from comity_protocol.merkle import TILE_WIDTH

BUNDLES_MAX: Final = 256
"""Bundles of 256 entries read in one go: 65,536 entries, 4.4 MB."""

BUNDLES_BEFORE_SENDING: Final = 16
"""Bundles read before something is sealed or sent: enough for whoever counted lately, and no long
wait on a bad line for whoever did not."""

_MARK: Final = "counted"


class WithheldStatementError(VerificationError):
    """The log has a statement that the relay did not give to this desk."""

    code = "withheld-statement"
    remedy = (
        "synchronise and count again; if it persists, seal nothing and tell your administrator:"
        " the relay hides who may read"
    )


class EntrySource(Protocol):
    """Where entries come from; they are not believed."""

    async def entries(self, index: int, width: int) -> tuple[bytes, ...]:
        """Fetch the first ``width`` entries of a bundle."""


@dataclass(frozen=True, slots=True)
class Count:
    """How far the log was counted, in entries, and how many there are."""

    counted: int
    size: int


class Census:
    """Reads the log's entries on from where it last stopped."""

    def __init__(
        self,
        *,
        state: State,
        relay: EntrySource,
        log: LogReader,
        keeping: Keeping,
        now: Callable[[], int],
    ) -> None:
        """Take where the count is kept, where entries come from and what proves them."""
        self._state: Final = state
        self._keeping: Final = keeping
        self._relay: Final = relay
        self._log: Final = log
        self._now: Final = now

    async def run(self, under: Newest, bundles: int) -> Count:
        """Count on; raises as ``Desk.count_statements`` says."""
        counted = self._state.mark(_MARK) or 0
        for _ in range(bundles):
            if counted >= under.size:
                break
            counted = await self._count(counted, under)
            self._state.set_mark(_MARK, counted)
        return Count(counted, under.size)

    async def _count(self, start: int, under: Newest) -> int:
        bundle = start // TILE_WIDTH
        first = bundle * TILE_WIDTH
        end = min(first + TILE_WIDTH, under.size)
        entries = await self._relay.entries(bundle, end - first)
        known = self._known(start, end)
        for index in range(start, end):
            entry = entries[index - first]
            await self._log.verify_leaf(entry, index, under)
            # SPEC [B-13]: a log with a statement that this desk was not given is refused.
            if is_statement_leaf(entry) and known.get(index) != entry:
                raise self._convict(index, entry, under)
        # What this device handed over is known in the log by the tags of its entries.
        tags = [tag_of(entry) for entry in entries[start - first : end - first]]
        self._keeping.seen(tags, under.sealed_at)
        return end

    def _known(self, start: int, end: int) -> dict[int, bytes]:
        rows = self._state.connection.execute(
            "SELECT leaf_index, payload FROM statements WHERE leaf_index >= ? AND leaf_index < ?",
            (start, end),
        )
        return {index: statement_leaf(payload) for index, payload in rows}

    def _convict(self, index: int, entry: bytes, under: Newest) -> WithheldStatementError:
        text = f"log has a statement at leaf {index} that the relay did not give to this desk"
        self._state.alarm("withheld", text, [index, entry, under.note], self._now())
        return WithheldStatementError(text)
