"""Who may sign and read now: the newest directory that this process has folded from the store.

The directory is an immutable value; this holds the newest one and the ordinal of the newest
statement in it. Every decision is made against one such pair, and the store refuses to commit on
an older one, so a removal by another process is effective at once.

Rules:

* [R-6] A removed device's next request fails.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from comity_protocol.chain import Desk, Device
from comity_protocol.directory import Directory, UnknownDeskError
from comity_protocol.encoding import parse
from comity_protocol.identifiers import DeviceId
from comity_protocol.statements import SignedStatement, parse_signatures
from comity_server.problems import Refused
from comity_server.store import StatementRow, Store

PAGE_STATEMENTS: Final = 500
_ROUNDS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class View:
    """What a decision rests on.

    Attributes:
        directory: All desks.
        ordinal: Ordinal of the newest statement in it.
    """

    directory: Directory
    ordinal: int


class Members:
    """The newest view, kept up with the store."""

    def __init__(self, store: Store, genesis: SignedStatement) -> None:
        """Start from the genesis, whose hash the operator's installation has pinned.

        Raises:
            VerificationError: The genesis is not signed by its founding States.
        """
        self._store: Final = store
        self._lock: Final = asyncio.Lock()
        self._promises: Final[dict[bytes, bytes]] = {}
        self._listeners: Final[list[Callable[[], None]]] = []
        # The genesis is statement 1 and leaf 0, so the empty directory is the view of ordinal 1.
        self.view = View(Directory.begin(genesis, genesis.hash), 1)

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after every change of the view."""
        self._listeners.append(listener)

    def active(self, device: DeviceId) -> tuple[Desk, Device]:
        """Give an active device and its desk.

        Raises:
            Refused: It is unknown or was removed.
        """
        # SPEC: a removed device's next request fails.
        found = self.find(device)
        if found is None or found[1].removed_index is not None:
            raise Refused("not-active", "the device is not active in its desk")
        return found

    def is_active(self, device: DeviceId) -> bool:
        """Whether a device may ask for anything now."""
        found = self.find(device)
        return found is not None and found[1].removed_index is None

    def find(self, device: DeviceId) -> tuple[Desk, Device] | None:
        """Give a device, active or removed, and its desk; None when there is none."""
        try:
            return self.view.directory.device(device)
        except UnknownDeskError:
            return None

    def promise_of(self, statement_hash: bytes) -> bytes | None:
        """Give the promise of a statement that is in the view; None when it is not."""
        return self._promises.get(statement_hash)

    async def refresh(self) -> None:
        """Fold in what the store has and this process has not seen.

        Raises:
            ComityError: The store gives a statement that does not hold; the database was altered.
        """
        async with self._lock:
            before = self.view
            for _ in range(_ROUNDS_MAX):
                rows = await self._store.statements(self.view.ordinal, PAGE_STATEMENTS)
                if not rows or not await self._fold(rows):
                    break
            if self.view is not before:
                self._tell()

    async def add(self, row: StatementRow, signed: SignedStatement) -> None:
        """Fold in a statement that was just accepted, together with any that came before it."""
        if row.ordinal != self.view.ordinal + 1 or row.leaf_index is None:
            await self.refresh()
        async with self._lock:
            if row.ordinal == self.view.ordinal + 1:
                await self._apply(row, signed)
                self._tell()

    async def _fold(self, rows: Sequence[StatementRow]) -> bool:
        """Fold statements in, in order; give whether it is worth asking for more."""
        for row in rows:
            if row.leaf_index is None:
                # It waits behind a long backlog; what follows it must wait too. One for which
                # nothing is done any more was altered: its place was taken from it.
                done = await self._store.integrate()
                return bool(done.integrated or done.parked)
            # The store keeps boxes apart, for those who can open them.
            signatures = parse_signatures(parse(row.signatures))
            await self._apply(row, SignedStatement(row.payload, signatures, is_bare=True))
        return True

    async def _apply(self, row: StatementRow, signed: SignedStatement) -> None:
        if row.ordinal is None or row.leaf_index is None:
            raise AssertionError("a statement without its place was to be folded in")
        # Composite signatures cost a millisecond, so they are checked beside the event loop.
        directory = await asyncio.to_thread(self.view.directory.apply, signed, row.leaf_index)
        self.view = View(directory, row.ordinal)
        self._promises[row.hash] = row.promise

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
