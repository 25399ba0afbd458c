"""Fills a restored relay again with what this device had handed over.

A relay whose database was set back to an older copy knows from the log which entries it lost, and
answers ``repairing`` until their senders brought them back. So this device asks what is missing,
and sends what it has of it, as the same bytes as before, before it sends anything new.

Rules:

* [B-19] When a relay says that it is being repaired, or that it was restored, what it is missing is
  sent again, once each time it says so, before anything new.
"""

from collections.abc import Callable, Collection
from typing import Final

from comity_client.keeping import Keeping, Kind, Posted
from comity_client.state import State
from comity_client.transport import RelayClient, RelayRefusedError
from comity_protocol.receipts import Signed, verify_promise
from comity_protocol.statements import SignedStatement

REPAIRING: Final = "repairing"

REPAIR_SECONDS_MAX: Final = 4 * 3_600
"""A relay that has been repairing for longer asks its officers to wait in vain."""

PAGES_MAX: Final = 64
"""Pages that are asked for: more entries than a relay can lose at once."""

REPAIRING_SINCE: Final = "repairing since"
"""The mark under which a state remembers when the relay said first that it is being repaired."""


def is_overdue(since: int, now: int) -> bool:
    """Whether a repair that began then takes longer than any may; both UTC seconds."""
    return now - since > REPAIR_SECONDS_MAX


class Refill:
    """Sends again what a relay lost."""

    def __init__(
        self, state: State, relay: RelayClient, keeping: Keeping, now: Callable[[], int]
    ) -> None:
        """Take what is kept, whom it goes to, and this machine's clock."""
        self._state: Final = state
        self._relay: Final = relay
        self._keeping: Final = keeping
        self._now: Final = now

    async def run(self, relay_key: bytes) -> int:
        """Ask once what is missing and send what is here of it; give how many were taken.

        What the relay does not take now stays kept, so a relay that is killed half-way is asked
        again the next time.

        Args:
            relay_key: Of the genesis.

        Raises:
            OfflineError, RelayRefusedError: The relay is not there, or says nothing of it.
            VerificationError: A promise is not the relay's.
        """
        taken = 0
        after = -1
        for _ in range(PAGES_MAX):
            missing = await self._relay.vacancies(after)
            taken += await self._send(missing.tags, relay_key)
            if missing.next is None or missing.next <= after:
                break
            after = missing.next
        return taken

    async def _send(self, tags: Collection[bytes], relay_key: bytes) -> int:
        taken = 0
        # SPEC [B-19]: what it is missing is sent again, once each time it says so.
        for posted in self._keeping.missing(tags):
            try:
                answer = await self._post(posted)
            except RelayRefusedError as error:
                if error.code == REPAIRING or error.retry_after is None:
                    # Somebody else filled the place meanwhile, or the relay wants it no more.
                    continue
                raise
            verify_promise(answer, relay_key, posted.what)
            taken += 1
        return taken

    async def _post(self, posted: Posted) -> Signed:
        match posted.kind:
            case Kind.ENVELOPE:
                return await self._relay.post_envelope(posted.data)
            case Kind.RECEIPT:
                return await self._relay.post_receipt(Signed.parse(posted.data))
            case Kind.NOTICE:
                return await self._relay.post_notice(Signed.parse(posted.data))
            case Kind.STATEMENT:
                return await self._relay.post_statement(SignedStatement.parse(posted.data))

    # --- What the officer is told ---------------------------------------------------------------

    def begun(self) -> None:
        """Remember since when the relay says that it is being repaired."""
        if self.since is None:
            with self._state.transaction() as connection:
                connection.execute(
                    "INSERT INTO marks VALUES (?, ?)", (REPAIRING_SINCE, self._now())
                )

    def ended(self) -> None:
        """Remember that the relay works as usual again."""
        if self.since is not None:
            with self._state.transaction() as connection:
                connection.execute("DELETE FROM marks WHERE name = ?", (REPAIRING_SINCE,))

    @property
    def since(self) -> int | None:
        """Since when the relay is being repaired, by this machine's clock; None when it is not."""
        return self._state.mark(REPAIRING_SINCE)
