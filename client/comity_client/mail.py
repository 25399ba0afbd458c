"""Fetches the mailbox and checks what came: the inbox's way from the relay.

What is given back is in ``receipts``; what the relay promised and did not do, in ``promises``.

Rules:

* [B-1] Nothing received is shown before it is verified.
"""

from typing import Final

from comity_client.gossip import Hearsay
from comity_client.inbox import Checked, Inbox, Stored, commitments_of
from comity_client.state import Newest
from comity_client.sync import Synchroniser
from comity_client.tiles import LogReader, UnprovenError
from comity_client.transport import RelayClient, Sleep
from comity_protocol.core import Core, core_hash
from comity_protocol.envelope import verify_core
from comity_protocol.errors import ComityError, VerificationError
from comity_protocol.identifiers import DeskId, EnvelopeId
from comity_protocol.leaves import envelope_leaf

PAGES_MAX: Final = 100_000
SETTLE_PAGE: Final = 500
WITNESS_WAITS: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between looks for the checkpoint that covers what just arrived; then the next fetch."""

UNCHECKED_BYTES_MAX: Final = 32 * 1024 * 1024
"""What is fetched before what came is checked: a relay cannot fill the disk with inventions."""

AGAIN_MAX: Final = 64
"""Refused envelopes that are fetched again in one go."""


class Mail:
    """One desk's mailbox."""

    def __init__(
        self,
        *,
        relay: RelayClient,
        log: LogReader,
        sync: Synchroniser,
        inbox: Inbox,
        hearsay: Hearsay,
        own: DeskId,
        sleep: Sleep,
    ) -> None:
        """Put the parts together."""
        self._relay: Final = relay
        self._log: Final = log
        self._sync: Final = sync
        self._inbox: Final = inbox
        self._hearsay: Final = hearsay
        self._own: Final = own
        self._sleep: Final = sleep

    async def fetch(self, wait: int) -> Newest:
        """Fetch and check what arrived.

        1. What the newest checkpoint covers is in the mailbox when the mailbox has been read after
           it; so the checkpoint comes first.
        2. What was refused because the relay served it wrongly is asked for again.
        3. What came later waits a moment for the next checkpoint.

        Args:
            wait: Seconds to wait for the first envelope when there is none.

        Returns:
            The checkpoint under which the mailbox was read to its end.
        """
        # (1)
        await self._sync.run()
        complete = self._sync.newest
        has_new = await self._drain(wait)
        # (2)
        await self._fetch_again()
        await self._settle()
        # (3)
        for pause in WITNESS_WAITS if has_new else ():
            if not self._inbox.has_unsettled():
                break
            await self._sleep(pause)
            await self._sync.run()
            await self._settle()
        return complete

    async def _drain(self, wait: int) -> bool:
        """Store what is new in the mailbox; give whether there was anything."""
        after, new, unchecked = self._inbox.proven, 0, 0
        for _ in range(PAGES_MAX):
            page = await self._relay.mailbox(after, wait=0 if new else wait)
            new += self._inbox.store(page, after)
            if not page or page[-1].counter <= after:
                break
            after = page[-1].counter
            unchecked += sum(item.size for item in page)
            if unchecked > UNCHECKED_BYTES_MAX:
                await self._settle()
                if self._inbox.unsettled_bytes() > UNCHECKED_BYTES_MAX:
                    # Nothing of it is proven to be in the log: the rest comes when this is.
                    break
                unchecked = 0
        return new > 0

    async def _fetch_again(self) -> None:
        """Ask anew for what was refused before it was proven to be in the log, a few times each."""
        for counter in self._inbox.doubtful(AGAIN_MAX):
            page = await self._relay.mailbox(counter - 1, limit=1)
            self._inbox.store_again(page, counter)

    async def _settle(self) -> None:
        newest, directory = self._sync.newest, self._sync.directory
        for _ in range(PAGES_MAX):
            rows = self._inbox.unsettled(newest.size, SETTLE_PAGE)
            if not rows:
                break
            checked = [await self._check(row, newest) for row in rows]
            for gossip in self._inbox.settle(checked, directory, newest):
                self._hearsay.hear(gossip, directory.genesis)
        await self._hearsay.compare(newest, directory.genesis)

    async def _check(self, stored: Stored, newest: Newest) -> Checked:
        """Check who sent an envelope and its place in the log.

        What the envelope itself gets wrong is the finding. What the relay does not serve, or serves
        so that nothing can be told, is raised: the envelope is checked again the next time.
        """
        core: Core | None = None
        try:
            core = verify_core(
                stored.core,
                stored.signature,
                self._sync.directory,
                index=stored.leaf_index,
            )
            leaf = envelope_leaf(core_hash(stored.core), commitments_of(stored, core, self._own))
        except ComityError as error:
            return Checked(stored, core, error)
        try:
            # SPEC [B-1]: its leaf is in a witnessed checkpoint.
            # SPEC [L-8]: the entry there begins with the digest of this core's hash. Stops a relay
            # that logs an envelope under a tag by which nobody could look for it.
            await self._log.verify_leaf(leaf, stored.leaf_index, newest)
        except UnprovenError as error:
            self._hearsay.doubt(error, newest)
            raise
        except VerificationError as error:
            return Checked(stored, core, error)
        return Checked(stored, core, None)

    async def verify_place(self, envelope: EnvelopeId) -> None:
        """Check anew that an envelope is in the log under the newest checkpoint.

        Raises:
            VerificationError: It is not there.
        """
        checked = await self._check(self._inbox.find(envelope), self._sync.newest)
        if checked.error is not None:
            raise checked.error
