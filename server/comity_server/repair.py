"""Finds out at the start whether the database was restored, and repairs it.

A restored database has fewer entries than the log has signed. To go on from there would fork the
log, so nothing gets a place before it is known where the log stands:

1. *Look.* The signer's memory, the witnesses and the mirrors say how many entries there are.
2. *Refill.* The missing entries come from the signer's memory or from mirrors. Each stretch has to
   lead to the root of a checkpoint that can be believed; then all of it is appended.
3. *Wait.* The members send again what they sent; see ``refilling``. Statements come from mirrors.
4. *Finish.* Counters are given again, the mailboxes go on above what stayed lost, and the log gets
   a notice of it all.

Every step can be done again: a relay that is killed in the middle starts at the same step.

Rules:

* [G-5] A signer that lost its memory is shown what mirrors have shown.
* [R-16] Entries are appended only after they led to the root of a witnessed checkpoint, and those
  above the newest one only to a root that the signer remembers or a witness cosigned.
* [R-17] A restore is logged as a notice.
* [R-18] Erasures are carried out again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Final

from comity_protocol.checkpoint import (
    cosignatures,
    note_hash,
    open_checkpoint,
    verify_quorum,
)
from comity_protocol.errors import ComityError
from comity_protocol.genesis import Genesis
from comity_protocol.keys import FastKey
from comity_protocol.leaves import LEAF_BYTES
from comity_protocol.merkle import Frontier, leaf_hash
from comity_protocol.notices import Restored, parse_notice
from comity_protocol.receipts import Signed
from comity_server import observe
from comity_server.checks import Caller
from comity_server.metrics import Metrics
from comity_server.mirrors import Mirror
from comity_server.notices import Notices
from comity_server.problems import Refused
from comity_server.refilling import RETRY_SECONDS, Refilling, repairing
from comity_server.relay import Relay
from comity_server.settings import Settings
from comity_server.signer import LogSigner, SignerError
from comity_server.store import OnHoldError
from comity_server.vacancies import Repair
from comity_server.witnesses import Witnesses

FIRST_SECONDS_MAX: Final = 5.0
"""How long a start waits for the first look before it serves without an answer."""

REFILL_ENTRIES_MAX: Final = 65_536
"""Entries appended in one transaction: 4.3 MB."""

LOST_ENTRIES_MAX: Final = 4_194_304
"""Entries that are fetched into memory and verified at once: 270 MB and a margin."""

PLACED_AT_ONCE: Final = 64
_NOTICES_AT_ONCE: Final = 128
_ROUNDS_MAX: Final = 1_000_000


class RepairError(ComityError):
    """The log cannot be repaired with what can be had; nothing was changed."""

    code: ClassVar[str] = "internal"
    remedy: ClassVar[str] = "follow the page on a restored database, section 6 of OPERATIONS"


@dataclass(frozen=True, slots=True)
class Known:
    """A head of the log that can be believed.

    Attributes:
        note: With the log's signature.
    """

    size: int
    root: bytes
    note: bytes


class Repairer:
    """Stands before the relay's pipeline until the log is known to be whole."""

    def __init__(
        self,
        *,
        relay: Relay,
        notices: Notices,
        signer: LogSigner,
        witnesses: Witnesses,
        mirrors: Sequence[Mirror],
        clear: Callable[[Sequence[bytes]], Awaitable[None]],
        publish: Callable[[], Awaitable[None]],
        genesis: Genesis,
        key: FastKey,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        """Put the parts together.

        Args:
            relay: Whose pipeline waits; this becomes its gate.
            notices: For the notice of the restore.
            signer: Asked for its memory.
            witnesses: Asked how much they know.
            mirrors: Asked when something is missing.
            clear: Shows the signer what the witnesses know, given what mirrors have shown.
            publish: Signs and publishes a checkpoint.
            genesis: Of the deployment.
            key: The relay's, for promises.
            settings: How long the members are waited for.
            metrics: Where to count.
        """
        self._relay: Final = relay
        self._notices: Final = notices
        self._signer: Final = signer
        self._witnesses: Final = witnesses
        self._mirrors: Final = mirrors
        self._clear: Final = clear
        self._publish: Final = publish
        self._genesis: Final = genesis
        self._settings: Final = settings
        self._metrics: Final = metrics
        self._refilling: Final = Refilling(relay, key)
        self.state: Repair | None = None
        self._left = 0.0
        self._counted_at: float | None = None
        self._is_short = False
        self._may_promise = False
        relay.gate = self

    # What the relay and the handlers ask.

    @property
    def is_repairing(self) -> bool:
        """Whether only what was lost is taken."""
        return self.state is not None

    @property
    def may_promise(self) -> bool:
        """See ``relay.Gate``.

        Only while nobody is known to be ahead, and the signer remembers all that was published:
        a signer's file that was lost could have told of more.
        """
        return self.state is None and self._may_promise and not self._is_short

    def offer_envelope(self, data: bytes, caller: Caller) -> "asyncio.Future[Signed]":
        """See ``relay.Gate``."""
        self._require_known()
        return self._refilling.offer_envelope(data, caller)

    def offer_receipt(self, data: bytes, caller: Caller) -> "asyncio.Future[Signed]":
        """See ``relay.Gate``."""
        self._require_known()
        return self._refilling.offer_receipt(data, caller)

    async def accept_statement(self, data: bytes) -> Signed:
        """See ``relay.Gate``."""
        self._require_known()
        return await self._refilling.accept_statement(data)

    async def accept_notice(self, data: bytes, caller: Caller) -> Signed:
        """See ``relay.Gate``."""
        self._require_known()
        return await self._refilling.accept_notice(data, caller)

    def require_whole(self) -> None:
        """See ``relay.Gate``."""
        if self.is_repairing:
            raise repairing()

    def _require_known(self) -> None:
        if self.state is not None:
            return
        if self._is_short:
            raise repairing()
        raise Refused(
            "busy",
            "the relay asks its witnesses where its log stands",
            retry_after=RETRY_SECONDS,
        )

    # The task.

    async def begin(self) -> None:
        """Look for the first time, for a moment; ``run`` goes on with it."""
        try:
            async with asyncio.timeout(FIRST_SECONDS_MAX):
                await self._step()
        except TimeoutError:
            observe.alarm("repair-waits", reason="the witnesses do not answer in time")
        except ComityError as error:
            self._report(error)

    async def run(self) -> None:
        """Look and repair until the log is whole, then end."""
        backoff = self._settings.poll_seconds
        while self._relay.gate is self:
            await asyncio.sleep(backoff)
            try:
                await self._step()
                backoff = self._settings.poll_seconds
            except ComityError as error:
                self._report(error)
                backoff = min(2 * backoff, 30 * self._settings.poll_seconds)

    def _report(self, error: ComityError) -> None:
        """Say why nothing goes on, and count what the publisher, which waits, does not count."""
        if isinstance(error, SignerError):
            self._metrics.signer_refusals.inc()
        observe.alarm("repair-waits", error, reason=str(error))

    async def _step(self) -> None:
        """Do what comes next."""
        store = self._relay.store
        if self.state is None:
            self.state = await store.repair()
        if self.state is None:
            await self._look()
            self.state = await store.repair()
            if self.state is None:
                self._open()
                return
            # Before anything is served: members have seen checkpoints of this size.
            await self._publish()
        await self._relay.members.refresh()
        await self._refill_statements()
        self.state = await store.repair()
        if self.state is None:
            # Another process has finished it.
            await self._relay.members.refresh()
            self._open()
            return
        self._metrics.vacancies.set(self.state.open)
        await self._count_down(self.state)
        if self._relay.is_holder and self._is_over(self.state):
            await self._finish()

    async def _count_down(self, state: Repair) -> None:
        """Count how long the members are still waited for, and remember it for another process.

        A clock that jumps when a machine has just begun must not end a repair, so what is counted
        are the seconds that a process ran.
        """
        now = asyncio.get_running_loop().time()
        if self._counted_at is None:
            self._left = min(self._settings.repair_seconds, state.seconds_left)
        else:
            self._left -= now - self._counted_at
        self._counted_at = now
        await self._relay.store.wait_less(max(1, ceil(self._left)))

    def _is_over(self, state: Repair) -> bool:
        if state.is_placing or state.seconds_left == 0 or state.open == 0:
            return True
        # Without a statement that the log has, no member could believe the directory any more.
        return state.open_statement is None and self._left < 1

    def _open(self) -> None:
        self.state = None
        self._metrics.vacancies.set(0)
        self._relay.gate = None
        self._relay.grown.set()
        self._relay.hub.look_again()

    # Look.

    async def _look(self) -> None:
        """Compare what the database has with what was signed; refill it when that is more."""
        probe = await self._signer.probe()
        memory = self._known(probe)
        claims = await self._witnesses.ask(probe)
        head = await self._relay.store.head()
        newest = await self._relay.store.newest_checkpoint()
        known_here = max(memory.size, newest.size if newest else 0)
        shown: list[Known] = []
        if max(memory.size, *claims, 0) > min(head.size, known_here):
            shown = await self._ask_mirrors()
        # What a witness claims is no target: whoever stands before it can say any number.
        target = max(known.size for known in (memory, *shown))
        claimed = self._claimed(claims, max(target, head.size))
        # What is promised now and waits for a repair would not be in the log in time. Once somebody
        # was ahead it stays so, though he does not answer the next time.
        self._is_short = self._is_short or target > head.size or claimed is not None
        self._may_promise = memory.size >= (newest.size if newest else 0)
        if target > head.size:
            if claimed is not None:
                raise RepairError(
                    f"so many witnesses that they could be a quorum say that they know up to"
                    f" {claimed:,} entries, and no checkpoint of more than {target:,} can be had"
                    " from the signer or a mirror; name the mirror that has it with --mirror;"
                    " nothing is given a place before"
                )
            await self._refill(Frontier.parse(head.frontier), target, [memory, *shown])
            observe.alarm("database-restored", had=head.size, size=target)
            await self._show_again(shown)
        await self._clear([known.note for known in shown])

    def _claimed(self, claims: Sequence[int], size: int) -> int | None:
        """Give the largest claim above a size when so many claim one that it could be a quorum.

        The signer is shown the same by signatures in the end; here it is looked at before anything
        is changed, so that a mirror can still be named. A number does not say whose it is, so any
        witnesses count as the cheapest quorum.
        """
        ahead = [claim for claim in claims if claim > size]
        silent = len(self._genesis.quorum.witnesses) - len(claims)
        # SPEC [G-4]: those who claim to be ahead and those who are silent are no quorum together.
        is_enough = len(ahead) + silent >= self._genesis.quorum.least
        return max(ahead) if ahead and is_enough else None

    async def _show_again(self, shown: Sequence[Known]) -> None:
        """Publish the newest checkpoint that mirrors have, so that no member sees an older one."""
        for known in sorted(shown, key=lambda known: known.size, reverse=True):
            try:
                verify_quorum(known.note, self._genesis.log, self._genesis.quorum)
            except ComityError:
                continue
            await self._relay.store.publish_checkpoint(
                known.size, known.note, note_hash(known.note), int(self._relay.clock())
            )
            return

    async def _ask_mirrors(self) -> list[Known]:
        """Give what mirrors show that the log signed and a witness of the genesis cosigned."""
        found = await asyncio.gather(*(mirror.notes() for mirror in self._mirrors))
        shown: list[Known] = []
        for mirror, notes in zip(self._mirrors, found, strict=True):
            for note in notes:
                try:
                    known = self._known(note)
                    if cosignatures(note, self._genesis.quorum.witnesses):
                        shown.append(known)
                except ComityError as error:
                    observe.event("mirror-failed", host=mirror.host, error=type(error).__name__)
        return shown

    def _known(self, note: bytes) -> Known:
        checkpoint = open_checkpoint(note, self._genesis.log)
        return Known(checkpoint.size, checkpoint.root, note)

    # Refill.

    async def _refill(self, had: Frontier, target: int, heads: Sequence[Known]) -> None:
        """Fetch what is missing, verify it, and append it."""
        ahead = sorted((known for known in heads if known.size > had.size), key=lambda k: k.size)
        _require_one_past(ahead)
        if target - had.size > LOST_ENTRIES_MAX:
            raise RepairError(
                f"database lacks {target - had.size:,} entries, expected at most"
                f" {LOST_ENTRIES_MAX:,}; restore a newer backup"
            )
        frontier, entries = had, list[bytes]()
        passed: list[Known] = []
        for known in ahead:
            passed.append(known)
            found = await self._fetch(frontier, passed)
            if found is not None:
                entries += found
                frontier = frontier.extend(map(leaf_hash, found))
                passed = []
        if frontier.size < target:
            raise RepairError(
                f"entries from {frontier.size:,} to {target:,} cannot be had: neither the signer's"
                f" memory nor one of {len(self._mirrors)} mirrors gives entries that lead from this"
                " database to the root of the checkpoint; name another mirror with --mirror, or"
                " restore a backup to which nothing was added"
            )
        await self._append(had.size, entries)

    async def _append(self, had: int, entries: Sequence[bytes]) -> None:
        now = int(self._relay.clock())
        for at in range(0, len(entries), REFILL_ENTRIES_MAX):
            await self._relay.store.refill(
                entries[at : at + REFILL_ENTRIES_MAX],
                expected_size=had + at,
                at=now,
                # 0 is for those who end it by hand, also while a statement is missing.
                seconds=max(1, int(self._settings.repair_seconds)),
            )

    async def _fetch(self, frontier: Frontier, heads: Sequence[Known]) -> list[bytes] | None:
        """Give the entries up to the last of some heads, from whoever has the right ones.

        Returns:
            None when nobody has.
        """
        size = heads[-1].size
        for source in (self._from_signer, *(mirror.entries for mirror in self._mirrors)):
            entries = await source(frontier.size, size)
            if len(entries) == size - frontier.size and _leads(frontier, entries, heads):
                return entries
        return None

    async def _from_signer(self, start: int, end: int) -> list[bytes]:
        entries: list[bytes] = []
        while start + len(entries) < end:
            page = await self._signer.entries(start + len(entries))
            if not page:
                break
            entries += page
        return entries[: end - start]

    async def _refill_statements(self) -> None:
        """Take statements from mirrors, so that the devices that they admit can send again."""
        store = self._relay.store
        for mirror in self._mirrors:
            for _ in range(_ROUNDS_MAX):
                state = await store.repair()
                if state is None or state.open_statement is None or state.is_placing:
                    return
                before = self._relay.members.view.ordinal
                for signed in await mirror.statements(before):
                    try:
                        await self._refilling.take_statement(signed)
                    except (ComityError, Refused) as error:
                        observe.event("mirror-failed", host=mirror.host, error=type(error).__name__)
                        break
                if self._relay.members.view.ordinal == before:
                    break

    # Finish.

    async def _finish(self) -> None:
        """Give counters again, say what was lost, and open the gate."""
        store = self._relay.store
        for _ in range(_ROUNDS_MAX):
            placed = await store.place(PLACED_AT_ONCE)
            for envelope in placed.refused:
                observe.alarm("upload-unplaced", key=envelope.hex())
            if placed.is_done:
                break
        directory = self._relay.members.view.directory
        state = await store.settle(
            [bytes(desk) for desk in directory.desks], at=int(self._relay.clock())
        )
        await self._carry_out(state.had)
        # SPEC: erasures are carried out again after a restore.
        await self._notices.carry_out()
        if state.lost is None or state.ended_at is None or state.incarnation is None:
            raise AssertionError("a repair was settled without a result")
        # SPEC: a restore is logged as a notice. It says the same each time it is tried.
        await self._notices.state_restored(
            Restored(
                deployment=self._genesis.deployment,
                incarnation=state.incarnation,
                had=state.had,
                size=state.size,
                lost=state.lost,
                at=state.ended_at,
            )
        )
        await store.close_repair()
        observe.event("repair-finished", had=state.had, size=state.size, lost=state.lost)
        self._open()
        await self._relay.poll()

    async def _carry_out(self, index: int) -> None:
        """Do again, in leaf order, what notices say that came back."""
        while rows := await self._relay.store.notices_since(index, _NOTICES_AT_ONCE):
            for row in rows:
                notice = parse_notice(row.payload)
                try:
                    await self._notices.do_again(row, notice.envelopes)
                except OnHoldError:
                    continue  # The desk that holds it came first, then as now.
            index = (rows[-1].leaf_index or index) + 1


def _leads(frontier: Frontier, entries: Sequence[bytes], heads: Sequence[Known]) -> bool:
    """Whether entries lead from a frontier through all of some heads, ascending by size."""
    # SPEC: entries are appended only after they led to the root of a checkpoint that can be
    # believed. Stops a mirror that serves another past, in whole or in part.
    start = frontier.size
    for head in heads:
        stretch = entries[frontier.size - start : head.size - start]
        if any(len(entry) != LEAF_BYTES for entry in stretch):
            return False
        frontier = frontier.extend(map(leaf_hash, stretch))
        if frontier.root != head.root:
            return False
    return True


def _require_one_past(heads: Sequence[Known]) -> None:
    roots: dict[int, bytes] = {}
    for known in heads:
        if roots.setdefault(known.size, known.root) != known.root:
            raise RepairError(
                f"the log has signed two roots of size {known.size:,}; keep all files of signer,"
                " witnesses and mirrors, and publish what they have"
            )
