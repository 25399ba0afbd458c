"""Compares what the relay promised with what the log holds.

A promise is broken when a witnessed checkpoint of a later time covers no entry that would keep it.
Whoever has the log's entries can check that, because an entry is recognisable from what the promise
names. What is in the log and missing in the mailbox is another thing: the relay keeps it back.

Rules:

* [B-5] *Sealed* is said only of what a checkpoint with its quorum covers. A promise that a later
  checkpoint shows to be broken is an alarm.
"""

from collections.abc import Callable
from typing import Final

from comity_client.census import BUNDLES_MAX, Census
from comity_client.keeping import Keeping
from comity_client.state import Newest, State
from comity_client.sync import Synchroniser
from comity_protocol.checkpoint import verify_quorum
from comity_protocol.evidence import BrokenPromise
from comity_protocol.identifiers import DeploymentId, EnvelopeId, short
from comity_protocol.receipts import Signed


class Promises:
    """The relay's promises to one device."""

    def __init__(
        self,
        state: State,
        sync: Synchroniser,
        census: Census,
        keeping: Keeping,
        deployment: DeploymentId,
        now: Callable[[], int],
    ) -> None:
        """Take where promises lie, what reads and counts the log, whose it is, and this clock."""
        self._state: Final = state
        self._deployment: Final = deployment
        self._sync: Final = sync
        self._census: Final = census
        self._keeping: Final = keeping
        self._now: Final = now

    async def look(self, complete: Newest) -> None:
        """Look for promises that a checkpoint shows to be broken.

        Args:
            complete: A checkpoint after which the mailbox was read to its end.

        Raises:
            OfflineError, RelayRefusedError, UnprovenError, WithheldStatementError: The log cannot
                be counted now; the next time it is.
        """
        # SPEC [V-2]: all cosignatures are of times after it ran out. By the sealed time, which one
        # witness of two can move by years, this would accuse a relay that nobody else convicts.
        genesis = self._sync.directory.genesis
        at = verify_quorum(complete.note, genesis.log, genesis.quorum).earliest_time
        self._state.set_mark("read_to", at)
        if not self._overdue(at) and not self._keeping.unlogged(at):
            return
        # SPEC [B-5]: a promise is broken when the whole log was read and does not hold it.
        count = await self._census.run(complete, BUNDLES_MAX)
        for envelope, promise, is_logged in self._overdue(at):
            if is_logged:
                text = f"log has envelope {short(envelope)}, and the relay keeps this desk's copy"
                self._state.alarm("withheld", text, [envelope, complete.note], self._now())
            elif count.counted >= complete.size:
                self._convict(f"envelope {short(envelope)}", promise, complete)
        if count.counted >= complete.size:
            for one in self._keeping.unlogged(at):
                self._convict(f"{one.kind.value} {short(one.what)}", one.promise, complete)

    def _overdue(self, at: int) -> list[tuple[EnvelopeId, bytes, bool]]:
        rows = self._state.connection.execute(
            "SELECT envelope, promise, logged_at IS NOT NULL FROM outbox"
            " WHERE stage = 'accepted' AND due_at < ?"
            " AND envelope NOT IN (SELECT envelope FROM inbox WHERE sealed_at IS NOT NULL)",
            (at,),
        )
        return [(EnvelopeId(id_), promise, bool(logged)) for id_, promise, logged in rows]

    def _convict(self, what: str, promise: bytes, complete: Newest) -> None:
        text = f"relay promised to log {what} and did not in time"
        evidence = BrokenPromise(self._deployment, Signed.parse(promise), complete.note)
        self._state.alarm("broken-promise", text, evidence.serialize(), self._now())
