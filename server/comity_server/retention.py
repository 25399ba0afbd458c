"""Takes away copies that are older than their desk's policy allows, and empties what was erased.

* File-key envelopes: the desk's ``history_days`` after the relay accepted them.
* Lead-key envelopes: 30 days after the desk's epoch that they are sealed to was superseded.
* Auditors' copies: the relay's ``statistics_days``, alike for all.

Age is counted up to the newest witnessed checkpoint and never beyond the relay's clock, so that a
clock that runs ahead deletes nothing. Nobody's evidence of time rests on this. What is on hold
stays, and while a restored database is being repaired everything does, because the holds may be
among what is missing. One process at a time does it, in small transactions.

Rules:

* [H-4] What is on hold is passed over.
* [H-5] After an erasure or the end of retention neither wrap nor body is there.
* [R-15] Every wait has a bound.
"""

import asyncio
from typing import Final

from comity_protocol.chain import Desk
from comity_protocol.checkpoint import verify_quorum
from comity_protocol.core import Kind
from comity_protocol.errors import ComityError
from comity_protocol.genesis import Genesis
from comity_server import observe
from comity_server.log import Log
from comity_server.metrics import Metrics
from comity_server.problems import Refused
from comity_server.relay import Relay
from comity_server.settings import Settings
from comity_server.store import ERASED_COPIES_MAX, StoreError

DAY_SECONDS: Final = 86_400
LEAD_DAYS: Final = 30
"""Days after its epoch was superseded for which a lead is kept."""

BATCHES_MAX: Final = 10_000
"""Transactions for one desk and kind in one run; the next run goes on."""

SCRUBS_MAX: Final = 60
PAUSE_SECONDS: Final = 1.0
LEASE: Final = "retention"
LEASE_SECONDS: Final = 60


class Retention:
    """The one task that makes things disappear for good."""

    def __init__(
        self,
        *,
        relay: Relay,
        log: Log,
        genesis: Genesis,
        settings: Settings,
        metrics: Metrics,
        holder: str,
    ) -> None:
        """Put the parts together.

        Args:
            relay: Whose store and clock it uses, and which tells when something was erased.
            log: Whose newest checkpoint says how late it is.
            genesis: With the quorum that this checkpoint must have.
            settings: How often, and for how long auditors' copies are kept.
            metrics: Where to count.
            holder: Name of this process for the lease.
        """
        self._relay: Final = relay
        self._store: Final = relay.store
        self._log: Final = log
        self._genesis: Final = genesis
        self._settings: Final = settings
        self._metrics: Final = metrics
        self._holder: Final = holder

    async def run(self) -> None:
        """Work for ever: at every interval, and soon after something was erased."""
        # What a process that was killed had erased may still stand in the files.
        self._relay.erased.set()
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self._wait_until(due)
            try:
                if not await self._take_lease():
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                if loop.time() >= due:
                    await self.expire()
                    is_whole = self._relay.gate is None
                    pause = self._settings.retention_seconds if is_whole else PAUSE_SECONDS
                    due = loop.time() + pause
                if self._relay.erased.is_set():
                    self._relay.erased.clear()
                    await self.scrub()
                await self._give_lease_back()
            except StoreError as error:
                observe.alarm("retention-failed", error)
                self._relay.erased.set()
                await asyncio.sleep(PAUSE_SECONDS)

    async def begin(self) -> None:
        """Take away what is too old before anything is served: the database may be an older one.

        Raises:
            StoreError: The database failed.
        """
        if await self._take_lease():
            await self.expire()
            await self._give_lease_back()

    async def expire(self) -> int:
        """Take away every copy that is too old; give how many. The caller has the lease.

        Raises:
            StoreError: The database failed; what was taken until then stays taken.
        """
        now = self._now()
        # SPEC [H-4]: what is on hold does not end by age, also when the hold has to come back.
        if now is None or self._relay.gate is not None:
            return 0
        audit_below = await self._below(now, self._settings.statistics_days)
        taken = 0
        for desk in list(self._relay.members.view.directory.desks.values()):
            for kind, below in (
                (Kind.FILE, await self._below(now, desk.policy.history_days)),
                (Kind.LEAD, await self._leads_below(now, desk)),
                (Kind.AUDIT, audit_below),
            ):
                taken += await self._expire(desk, kind, below)
        if taken:
            observe.event("copies-expired", copies=taken)
        return taken

    async def scrub(self) -> None:
        """Make what was erased unreadable in the database's files; try again while others read.

        Raises:
            StoreError: The database failed.
        """
        self._metrics.scrub_due.set(1)
        for _ in range(SCRUBS_MAX):
            await self._take_lease()
            # SPEC [H-5]: after an erasure the relay does not hold it, in no file either.
            if await self._store.scrub():
                self._metrics.scrub_due.set(0)
                return
            await asyncio.sleep(PAUSE_SECONDS)
        observe.alarm("scrub-late", tries=SCRUBS_MAX)
        self._relay.erased.set()

    def _now(self) -> int | None:
        """The time up to which age is counted; None while nobody vouches for any.

        Stops a relay whose clock jumped by years from deleting all that its desks have.
        """
        try:
            newest = self._log.newest()
            witnessed = verify_quorum(newest.note, self._genesis.log, self._genesis.quorum)
        except (Refused, ComityError):
            return None
        return min(witnessed.sealed_time, int(self._relay.clock()))

    async def _below(self, now: int, days: int) -> int:
        return await self._store.index_at(now - days * DAY_SECONDS)

    async def _leads_below(self, now: int, desk: Desk) -> int:
        # Whatever stands below a turn of the epoch is sealed to an earlier one.
        return await self._store.superseded_below(desk.id, now - LEAD_DAYS * DAY_SECONDS)

    async def _expire(self, desk: Desk, kind: Kind, below: int) -> int:
        total = 0
        for _ in range(BATCHES_MAX if below else 0):
            taken = await self._store.expire(
                desk.id, int(kind), below_index=below, limit=ERASED_COPIES_MAX
            )
            total += taken
            if taken < ERASED_COPIES_MAX:
                break
            await self._take_lease()
        if total:
            self._metrics.copies_erased.labels("age").inc(total)
            self._relay.forget_erased((await self._store.head()).erasures)
        return total

    async def _take_lease(self) -> bool:
        """Take or prolong the lease; whoever is without it leaves the work to another process."""
        now = int(self._relay.clock())
        return await self._store.take_lease(LEASE, self._holder, until=now + LEASE_SECONDS, now=now)

    async def _give_lease_back(self) -> None:
        now = int(self._relay.clock())
        await self._store.take_lease(LEASE, self._holder, until=now - 1, now=now)

    async def _wait_until(self, due: float) -> None:
        """Wait until something was erased, or until the time has come."""
        try:
            async with asyncio.timeout_at(due):
                await self._relay.erased.wait()
        except TimeoutError:
            return
