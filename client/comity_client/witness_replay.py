"""Replays what a checkpoint covers before it is cosigned: all entries, and all statements in them.

A relay that holds the log key could put a statement into the log that nobody was entitled to make,
and have it witnessed. A witness that replays folds the directory itself and does not cosign.

Rules:

* [W-5] a witness that replays does not cosign a checkpoint with a statement that it was not given
  or that breaks a rule of sections 5 and 6;
* [W-6] a mirror holds all entries durably before it cosigns.

What was replayed is remembered together with what was cosigned, in one transaction. After a restart
the directory is folded again from the statements kept. What goes beyond the last cosignature is
worth nothing until a checkpoint over it is cosigned; it is dropped when its root does not come out.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

from comity_client.transport import OfflineError, RelayRefusedError
from comity_client.witness_mirror import Mirror
from comity_client.witness_rule import Answer, Offer, RefusedOfferError, convict
from comity_client.witness_state import Evidence, Seen, WitnessState
from comity_protocol.directory import Directory
from comity_protocol.encoding import Value, serialize
from comity_protocol.errors import ComityError
from comity_protocol.leaves import is_statement_leaf, statement_leaf
from comity_protocol.limits import WITNESS_REPLAY_SECONDS_MAX
from comity_protocol.merkle import Frontier, leaf_hash
from comity_protocol.statements import SignedStatement

FOLD_PAGE: Final = 200
"""Statements that are folded without letting anything else run."""

_KINDS: Final = (b"\x00", b"\x01")

logger = logging.getLogger(__name__)


class EntrySource(Protocol):
    """Where entries and statements come from; they are not believed."""

    async def leaves(self, start: int) -> tuple[bytes, ...]:
        """Fetch entries from an index, as many as the relay gives at once."""

    async def all_statements(self, after: int) -> tuple[SignedStatement, ...]:
        """Fetch statements after an ordinal, also what no checkpoint covers yet."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the log was replayed.

    Attributes:
        frontier: of the entries.
        count: of statements among them.
        directory: folded from these; None before the genesis.
    """

    frontier: Frontier
    count: int
    directory: Directory | None


class Replay:
    """The log as this witness has folded it."""

    def __init__(
        self,
        state: WitnessState,
        source: EntrySource,
        origin: str,
        pinned: bytes,
        mirror: Mirror | None = None,
        *,
        seconds_max: float = WITNESS_REPLAY_SECONDS_MAX,
    ) -> None:
        """Fold what is kept, and drop what was not cosigned over.

        Args:
            state: its memory.
            source: the relay.
            origin: of its log.
            pinned: hash of the genesis, 32 bytes.
            mirror: keeps the entries too; None to keep none.
            seconds_max: how long one request may go on replaying.

        Raises:
            ComityError: the statements kept are of another deployment.
        """
        self._state: Final = state
        self._source: Final = source
        self._origin: Final = origin
        self._pinned: Final = pinned
        self._mirror: Final = mirror
        self._seconds_max: Final = seconds_max
        self._lock: Final = asyncio.Lock()
        if mirror is not None and not mirror.keep_only(state.replayed()):
            logger.warning("alarm: the mirror has lost entries; the log is replayed from its start")
            state.forget_replay()
            mirror.keep_only(state.replayed())
        self._cosigned = self._fold_again(state.replayed())
        self._progress = self._cosigned
        state.forget_statements_from(self._cosigned.frontier.size)

    @property
    def directory(self) -> Directory | None:
        """The directory as far as it was replayed."""
        return self._progress.directory

    @property
    def size(self) -> int:
        """How many entries were replayed."""
        return self._progress.frontier.size

    @asynccontextmanager
    async def following(self, offer: Offer, now: int) -> AsyncIterator[Frontier]:
        """Replay everything that an offered checkpoint covers, for as long as it is being cosigned.

        1. All entries since the last are fetched and lead to the root of the last cosignature and
           of the offered checkpoint.
        2. Each entry of a statement has its statement, and that follows from those before it.
        3. A mirror has the entries on its disk.

        Gives:
            What to remember with the cosignature.

        Raises:
            RefusedOfferError: one of these does not hold, or cannot be found out now.
        """
        try:
            async with asyncio.timeout(self._seconds_max), self._lock:
                await self._reach(offer, now)
        except (TimeoutError, OfflineError, RelayRefusedError) as error:
            answer = Answer.say(HTTPStatus.SERVICE_UNAVAILABLE, "entries are not replayed yet")
            raise RefusedOfferError(answer) from error
        # From here to the end of the body nothing awaits, so nobody replays further meanwhile.
        if self._mirror is not None:
            # SPEC [W-6]: a mirror holds all entries durably before it cosigns.
            self._mirror.sync()
        yield self._progress.frontier
        self._cosigned = self._progress

    async def catch_up(self, size: int) -> None:
        """Replay up to a size, before anybody asks; a witness that begins late has much to do."""
        try:
            while self.size < size:
                async with self._lock:
                    await self._step(size, self._state.seen(self._origin))
        except _ReplayError as error:
            logger.warning("alarm: the log cannot be replayed to size %d: %s", size, error)
            self._drop()

    # --- Below -----------------------------------------------------------------------------------

    async def _reach(self, offer: Offer, now: int) -> None:
        size, seen = offer.checkpoint.size, self._state.seen(offer.checkpoint.origin)
        if self.size > size:
            self._drop()
        try:
            while self.size < size:
                await self._step(size, seen)
            self._require_root(offer.checkpoint.root)
        except _ReplayError as error:
            self._drop()
            logger.warning("alarm: checkpoint at size %d is not cosigned: %s", size, error)
            answer = Answer.say(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
            raise RefusedOfferError(answer, error.convict(seen, offer, now)) from error

    def _require_root(self, root: bytes) -> None:
        if self._progress.frontier.root != root:
            raise _ReplayError("entries that the relay shows are not those it signed")

    def _drop(self) -> None:
        """Go back to what was cosigned."""
        self._progress = self._cosigned
        self._state.forget_statements_from(self.size)
        if self._mirror is not None:
            self._mirror.keep_only(self._cosigned.frontier)

    async def _step(self, size: int, seen: Seen | None) -> None:
        """Replay what the relay gives at once, but not beyond a root that has to be compared."""
        start = self.size
        until = seen.size if seen is not None and start < seen.size else size
        leaves = (await self._source.leaves(start))[: until - start]
        if not leaves:
            raise OfflineError("relay does not show the entries of its checkpoint yet")
        await self._take(leaves)
        frontier = self._progress.frontier
        if seen is not None and frontier.size == seen.size and frontier.root != seen.root:
            raise _ReplayError("entries that the relay shows are not those cosigned before")

    async def _take(self, leaves: Sequence[bytes]) -> None:
        """Fold entries; where a page of statements ends, what was folded so far is kept."""
        at = 0
        while at < len(leaves):
            rest = leaves[at:]
            given: Sequence[SignedStatement] = ()
            if any(map(is_statement_leaf, rest)):
                given = await self._source.all_statements(self._progress.count)
            at += self._take_page(rest, given)

    def _take_page(self, leaves: Sequence[bytes], given: Sequence[SignedStatement]) -> int:
        """Fold entries up to the last statement given; gives how many entries that were."""
        start, directory = self.size, self._progress.directory
        found: list[tuple[int, SignedStatement]] = []
        taken = 0
        for leaf in leaves:
            if leaf[:1] not in _KINDS:
                raise _ReplayError(f"entry {start + taken} is of no kind")
            if is_statement_leaf(leaf):
                if len(found) == min(len(given), FOLD_PAGE):
                    break
                signed, index = given[len(found)], start + taken
                directory = self._apply(directory, leaf, index, signed)
                found.append((index, signed))
            elif directory is None:
                raise _ReplayError("first entry is not the genesis")
            taken += 1
        if not taken:
            # SPEC [W-5]: not with a statement that it was not given.
            raise _ReplayError(f"statement of entry {start} is withheld", leaf=leaves[0])
        if self._mirror is not None:
            self._mirror.append(leaves[:taken])
        if found:
            self._state.keep_statements(found)
        frontier = self._progress.frontier.extend(map(leaf_hash, leaves[:taken]))
        self._progress = Progress(frontier, self._progress.count + len(found), directory)
        return taken

    def _apply(
        self, directory: Directory | None, leaf: bytes, index: int, signed: SignedStatement
    ) -> Directory:
        # SPEC [W-5]: not with a statement that it was not given or that breaks a rule.
        if statement_leaf(signed.payload) != leaf:
            raise _ReplayError(f"statement of entry {index} is withheld", leaf=leaf)
        try:
            if directory is None:
                return Directory.begin(signed, self._pinned)
            return directory.apply(signed, index)
        except ComityError as error:
            text = f"statement of entry {index} is refused: {error}"
            raise _ReplayError(text, leaf=leaf, signed=signed) from error

    def _fold_again(self, frontier: Frontier) -> Progress:
        """Fold the statements that are kept below what was cosigned."""
        directory: Directory | None = None
        count = 0
        while page := self._state.statements(count, FOLD_PAGE, below=frontier.size):
            for index, signed in page:
                directory = (
                    Directory.begin(signed, self._pinned)
                    if directory is None
                    else directory.apply(signed, index)
                )
            count += len(page)
        return Progress(frontier, count, directory)


class _ReplayError(Exception):
    """What the relay signed does not stand; with the statement that is to blame, if one is."""

    def __init__(
        self, message: str, leaf: bytes = b"", signed: SignedStatement | None = None
    ) -> None:
        super().__init__(message)
        self._leaf = leaf
        self._signed = signed

    def convict(self, seen: Seen | None, offer: Offer, now: int) -> Evidence | None:
        """Put what is known beside the checkpoint that was offered."""
        if not self._leaf:
            return convict("unproven", seen, offer, now)
        found: Value = None if self._signed is None else self._signed.serialize()
        return Evidence(
            origin=offer.checkpoint.origin,
            kind="statement",
            known=serialize({"entry": self._leaf, "statement": found}),
            offered=offer.note,
            noticed_at=now,
        )
