"""The relay's one pipeline: check what arrives, commit it in groups, answer, hand it out.

    offer ──> waiting ──check, in one worker thread──> ready ──one commit──> promise and push

What arrives together is checked together, beside the event loop, and committed together: at most
128 rows or 256 KiB share one transaction and one fsync. Two tasks run the two stages, so the next
batch is checked while the last one is being committed.

Rules:

* [R-1] The relay acknowledges only after a durable commit.
* [R-2] A known id returns the original promise and changes nothing; another core under it is
  refused.
* [R-6] A removed device's next request fails, also when the removal came while it was waiting.
* [R-10] ``seen`` is a checkpoint that the relay has published.
* [R-11] A wrap reference is accepted only if the relay holds the wraps for exactly these
  recipients.
* [R-13] Each desk has a quota.
* [R-15] Every queue and wait has a bound.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Final, Protocol

from comity_protocol.core import Core, Kind, core_hash
from comity_protocol.envelope import parse_upload
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import DeskId
from comity_protocol.keys import FastKey
from comity_protocol.leaves import envelope_blind
from comity_protocol.receipts import Promise, Signed, sign_promise
from comity_protocol.statements import SignedStatement, parse_statement
from comity_server import observe
from comity_server.checks import (
    Caller,
    Checked,
    CheckedEnvelope,
    CheckedReceipt,
    Posted,
    check_envelope,
    check_receipt,
)
from comity_server.hub import Hub
from comity_server.members import Members, View
from comity_server.metrics import Metrics
from comity_server.problems import Refused, of_error
from comity_server.quotas import Bucket, Quotas
from comity_server.recent import Facts, Recent
from comity_server.settings import Settings
from comity_server.statement_rows import statement_row
from comity_server.store import (
    Accepted,
    DirectoryMovedError,
    EnvelopeRow,
    ErasuresMovedError,
    ReceiptRow,
    Recipient,
    Store,
    StoreError,
)

BATCH_ROWS_MAX: Final = 128
WAITED_ROWS_MAX: Final = 32
BATCH_BYTES_MAX: Final = 262_144
TRIES_MAX: Final = 8
BACKLOG_ROUNDS_MAX: Final = 1_000
LEASE: Final = "log"
LEASE_POLLS: Final = 5

Clock = Callable[[], float]


@dataclass(slots=True)
class Entry:
    """One upload on its way through the pipeline.

    Attributes:
        answer: Gets the promise, or the refusal.
        checked: Set by the first stage.
        view: The view that it was checked against.
        erasures: How often copies had been erased when it was checked.
        held: For a receipt, whose envelopes it confirms; set by the first stage.
    """

    thing: Posted | Signed
    size: int
    caller: Caller
    answer: "asyncio.Future[Signed]"
    checked: Checked | None = None
    view: View | None = None
    erasures: int = 0
    held: "Held | None" = None

    def refuse(self, error: ComityError | Refused) -> None:
        """Answer with a refusal, unless nobody waits any more."""
        if not self.answer.done():
            self.answer.set_exception(error if isinstance(error, Refused) else of_error(error))


@dataclass(frozen=True, slots=True)
class Held:
    """Who is given a receipt: the one desk that sent what it confirms, and the auditors of that."""

    sender: bytes
    auditors: tuple[bytes, ...]


class Gate(Protocol):
    """Stands before the pipeline until it is known where the log stands; see ``repair``."""

    @property
    def is_repairing(self) -> bool:
        """Whether only what a restored database lost is taken."""

    @property
    def may_promise(self) -> bool:
        """Whether envelopes and receipts are taken as usual, and wait for their places."""

    def offer_envelope(self, data: bytes, caller: Caller) -> "asyncio.Future[Signed]":
        """Take an envelope that was lost."""

    def offer_receipt(self, data: bytes, caller: Caller) -> "asyncio.Future[Signed]":
        """Take a receipt, likewise."""

    async def accept_statement(self, data: bytes) -> Signed:
        """Take a statement, likewise."""

    async def accept_notice(self, data: bytes, caller: Caller) -> Signed:
        """Take a notice, likewise."""

    def require_whole(self) -> None:
        """Refuse what cannot be answered from a database that is not whole."""


class Relay:
    """Accepts envelopes, receipts and statements."""

    def __init__(
        self,
        *,
        store: Store,
        members: Members,
        key: FastKey,
        settings: Settings,
        metrics: Metrics,
        clock: Clock,
        holder: str,
    ) -> None:
        """Put the parts together; nothing runs before ``run``.

        Args:
            store: Opened.
            members: With the newest view.
            key: The relay's, for promises.
            settings: Quotas and bounds.
            metrics: Where to count.
            clock: Seconds since 1970 UTC.
            holder: Name of this process for the lease of the log.
        """
        self.store: Final = store
        self.members: Final = members
        self.hub: Final = Hub()
        self.recent: Final = Recent()
        self.clock: Final = clock
        self.grown: Final = asyncio.Event()
        self.erased: Final = asyncio.Event()
        self.is_stopping = False
        self.is_holder = False
        self.gate: Gate | None = None
        self.size = 0
        self._witnessed_from = 0.0
        self._key: Final = key
        self._settings: Final = settings
        self._metrics: Final = metrics
        self._holder: Final = holder
        self._quotas: Final = Quotas(
            envelopes=(settings.desk_envelopes_per_second, settings.desk_envelopes_burst),
            volume=(settings.desk_bytes_per_second, settings.desk_bytes_burst),
        )
        self._statements: Final = Bucket(
            settings.statements_per_second,
            settings.statements_burst,
            settings.statements_burst,
            clock(),
        )
        self._stating: Final = asyncio.Lock()
        self._waiting: Final[deque[Entry]] = deque()
        self._ready: Final[deque[Entry]] = deque()
        self._has_waiting: Final = asyncio.Event()
        self._has_ready: Final = asyncio.Event()
        self._idle: Final = asyncio.Event()
        self._idle.set()
        self._is_checking = False
        self._entries = 0
        self._bytes = 0
        self._checker: Final = ThreadPoolExecutor(1, thread_name_prefix="checker")
        members.listen(self.hub.recheck)
        metrics.queue_entries.set_function(lambda: self._entries)

    @property
    def integrates(self) -> bool:
        """Whether this process gives places: it holds the lease, and the log is known to be whole.

        What is accepted otherwise waits, so that no place is given twice after a restore.
        """
        return self.is_holder and self.gate is None

    @property
    def is_placed(self) -> bool:
        """Whether it is known where the log stands; before, its head may leave out what waits."""
        return self.gate is None or self.gate.is_repairing

    # What handlers call.

    def offer_envelope(self, data: bytes, caller: Caller) -> "asyncio.Future[Signed]":
        """Take an uploaded envelope; the future gives the promise once it is committed.

        Raises:
            ComityError: It cannot be read, or a part is not the one that its core names.
            Refused: The queue is full, the quota is used up, or the relay stops.
        """
        if self.gate is not None and not self.gate.may_promise:
            return self.gate.offer_envelope(data, caller)
        self.take_quota(caller, len(data))
        return self._enqueue(Posted(*parse_upload(data)), len(data), caller)

    def offer_receipt(self, data: bytes, caller: Caller) -> "asyncio.Future[Signed]":
        """Take a receipt, likewise."""
        if self.gate is not None and not self.gate.may_promise:
            return self.gate.offer_receipt(data, caller)
        self.take_quota(caller, len(data))
        return self._enqueue(Signed.parse(data), len(data), caller)

    async def accept_statement(self, data: bytes) -> Signed:
        """Check and commit a statement; give the promise.

        Raises:
            ComityError: It is malformed, or does not follow its desk's chain.
            Refused: Too many statements arrive, or the directory keeps moving.
        """
        self._require_running()
        if self.gate is not None:
            return await self.gate.accept_statement(data)
        now = self.clock()
        if wait := self._statements.wait(1, now):
            raise Refused("quota", "too many statements for now", retry_after=int(wait) + 1)
        self._statements.take(1)
        signed = SignedStatement.parse(data)
        async with self._stating:
            for _ in range(TRIES_MAX):
                # SPEC: a known id returns the original promise and changes nothing.
                if known := self.members.promise_of(signed.hash):
                    return Signed.parse(known)
                try:
                    return await self._state(signed)
                except DirectoryMovedError:
                    await self.members.refresh()
        raise Refused("busy", "other statements kept coming first", retry_after=1)

    def hear_time(self, at: int) -> None:
        """Take notice of the earliest cosignature of a checkpoint that was published just now.

        Args:
            at: Of a quorum's, so not after the clock of an honest witness; UTC seconds.
        """
        self._witnessed_from = max(self._witnessed_from, at - monotonic())

    def promised_at(self) -> int:
        """Give the time of a promise that is made now, UTC seconds.

        It is this clock's, or the witnesses' where this clock is behind it: a promise that is dated
        a minute too early would look broken in the next checkpoint (V-2), though it is kept.
        """
        return max(int(self.clock()), int(self._witnessed_from + monotonic()))

    # The tasks.

    async def run(self) -> None:
        """Run both stages until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._check_forever())
            tasks.create_task(self._commit_forever())
            tasks.create_task(self._poll_forever())

    async def drain(self, seconds: float) -> None:
        """Take nothing new, and finish what was begun, within ``seconds``."""
        self.is_stopping = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            observe.alarm("drain-timeout", entries=self._entries)

    async def close(self) -> None:
        """Give the lease back and stop the worker thread."""
        if self.is_holder:
            self.is_holder = False
            now = int(self.clock())
            await self.store.take_lease(LEASE, self._holder, until=now - 1, now=now)
        self._checker.shutdown(wait=False, cancel_futures=True)

    def take_quota(self, caller: Caller, size: int) -> None:
        """Count something against the quota of a desk.

        Raises:
            Refused: The quota is used up, or the relay stops.
        """
        self._require_running()
        # SPEC: each desk has a quota.
        if wait := self._quotas.take(caller.desk, size, self.clock()):
            raise Refused("quota", "the desk's quota is used up for now", retry_after=wait)

    async def require_published(self, note_hash: bytes) -> None:
        """Check that what an object has seen is a checkpoint of this relay.

        Raises:
            Refused: It is not.
        """
        # SPEC: ``seen`` is a checkpoint that the relay has published.
        if self.recent.checkpoints.get(note_hash):
            return
        if not await self.store.has_checkpoint(note_hash):
            raise Refused("unknown-checkpoint", "seen is no checkpoint that was published here")
        self.recent.checkpoints.put(note_hash, True)

    async def catch_up(self) -> None:
        """Give a place to everything that was accepted and waits for one, if this process does."""
        for _ in range(BACKLOG_ROUNDS_MAX if self.integrates else 0):
            done = await self.store.integrate()
            self.publish(done)
            if not done.integrated:
                break

    async def poll(self) -> None:
        """Keep the lease, and take notice of what other processes have accepted."""
        now = int(self.clock())
        until = now + int(LEASE_POLLS * self._settings.poll_seconds) + 1
        self.is_holder = await self.store.take_lease(LEASE, self._holder, until=until, now=now)
        await self.catch_up()
        head = await self.store.head()
        if head.statements != self.members.view.ordinal:
            await self.members.refresh()
        self.forget_erased(head.erasures)
        if head.size > self.size:
            self.size = head.size
            self._metrics.log_size.set(head.size)
            self.hub.look_again()
            self.grown.set()

    # The first stage.

    def _require_running(self) -> None:
        if self.is_stopping:
            raise Refused("draining", "the relay is stopping", retry_after=2)

    def _enqueue(
        self, thing: Posted | Signed, size: int, caller: Caller
    ) -> "asyncio.Future[Signed]":
        settings = self._settings
        # SPEC: every queue has a bound.
        if self._entries >= settings.queue_entries or self._bytes + size > settings.queue_bytes:
            raise Refused("busy", "too many uploads are waiting", retry_after=1)
        answer: asyncio.Future[Signed] = asyncio.get_running_loop().create_future()
        self._waiting.append(Entry(thing, size, caller, answer))
        self._entries += 1
        self._bytes += size
        self._idle.clear()
        self._has_waiting.set()
        answer.add_done_callback(lambda _: self._leave(size))
        return answer

    def _leave(self, size: int) -> None:
        self._entries -= 1
        self._bytes -= size
        if self._entries == 0:
            self._idle.set()

    async def _check_forever(self) -> None:
        while True:
            await self._has_waiting.wait()
            batch = _take(self._waiting)
            if not self._waiting:
                self._has_waiting.clear()
            self._is_checking = True
            try:
                self._ready.extend(await self._check(batch, self.members.view))
            except Exception as error:  # noqa: BLE001 - the outermost loop of a task
                _fail(batch, error)
            self._is_checking = False
            if self._ready:
                self._has_ready.set()

    async def _check(self, batch: Sequence[Entry], view: View) -> list[Entry]:
        """Check a batch against a view; refuse what does not hold, give what does."""
        loop = asyncio.get_running_loop()
        at = self.promised_at()
        erasures = self.recent.erasures
        refusals = await loop.run_in_executor(
            self._checker, _check_batch, batch, view, self._key, at
        )
        passed: list[Entry] = []
        for entry in batch:
            entry.view = view
            entry.erasures = erasures
        for entry, refusal in zip(batch, refusals, strict=True):
            if entry.answer.done():
                continue
            error = refusal or await self._check_with_store(entry)
            if error is None:
                passed.append(entry)
            else:
                await self._refuse_unless_known(entry, error)
        return passed

    async def _check_with_store(self, entry: Entry) -> Refused | None:
        """Check what is not in the bytes and not in the directory."""
        try:
            match entry.checked:
                case CheckedEnvelope(core=core):
                    await self.require_published(core.seen)
                    await self._require_wraps(core)
                case CheckedReceipt(receipt=receipt):
                    await self.require_published(receipt.seen)
                    entry.held = await self._require_held(receipt.desk, receipt.envelopes)
                case None:
                    raise AssertionError("an entry passed that was not checked")
        except Refused as refused:
            return refused
        except StoreError as error:
            observe.alarm("check-failed", error)
            return Refused("busy", "the store could not be asked", retry_after=2)
        return None

    async def _require_wraps(self, core: Core) -> None:
        if core.ref is None:
            return
        facts = await self._facts(core.ref)
        to = tuple((entry.desk, entry.epoch, int(entry.kind)) for entry in core.to)
        # SPEC: a wrap reference is accepted only if the relay holds the wraps for exactly
        # these recipients. An unknown envelope and another desk's get the same answer.
        if facts is None or not facts.has_wraps or (facts.sender, facts.to) != (core.sender, to):
            raise Refused("unknown-reference", "the wraps that it refers to are not here")

    async def _require_held(self, desk: DeskId, envelopes: Sequence[bytes]) -> Held:
        """Give who sent all these envelopes to ``desk``, and who audits any of them."""
        recent = [self.recent.envelopes.get(id_) for id_ in envelopes]
        known = [facts for facts in recent if facts is not None and facts.is_read_by(desk)]
        if len(known) == len(envelopes):
            senders = {facts.sender for facts in known}
            auditors = {auditor for facts in known for auditor in facts.auditors}
        else:
            found = await self.store.cores(envelopes)
            cores = [core for core in map(Core.parse, found.values()) if core.recipient(desk)]
            is_whole = len(cores) == len(envelopes)
            senders = {bytes(core.sender) for core in cores} if is_whole else set()
            auditors = {
                bytes(entry.desk) for core in cores for entry in core.to if entry.kind is Kind.AUDIT
            }
        if len(senders) != 1:
            raise Refused("not-found", "not all of these are envelopes of one sender to your desk")
        return Held(senders.pop(), tuple(sorted(auditors)))

    async def _facts(self, envelope_id: bytes) -> Facts | None:
        facts = self.recent.envelopes.get(envelope_id)
        if facts is None:
            erasures = self.recent.erasures
            row = await self.store.envelope(envelope_id)
            facts = None if row is None else Facts.of(row)
            if facts is not None and erasures == self.recent.erasures:
                self.recent.envelopes.put(envelope_id, facts)
        return facts

    async def _refuse_unless_known(self, entry: Entry, error: ComityError | Refused) -> None:
        """Refuse, unless the very same was accepted before the world moved on.

        Stops a sender whose first answer was lost from being told to seal again what is already
        in the log.
        """
        if isinstance(entry.thing, Posted):
            row = await self.store.envelope(entry.thing.core.id)
            # SPEC: a known id returns the original promise and changes nothing.
            if (
                row is not None
                and row.sender_desk == entry.caller.desk
                and row.core_hash == core_hash(entry.thing.upload.core)
            ):
                _resolve(entry, row.promise)
                return
        entry.refuse(error)

    # The second stage.

    async def _commit_forever(self) -> None:
        while True:
            await self._has_ready.wait()
            if self._is_worth_waiting():
                self._has_ready.clear()
                continue
            batch = _take(self._ready)
            if not self._ready:
                self._has_ready.clear()
            try:
                await self._commit(batch)
            except StoreError as error:
                observe.alarm("commit-failed", error, rows=len(batch))
                for entry in batch:
                    entry.refuse(Refused("busy", "the store could not take it", retry_after=2))
            except Exception as error:  # noqa: BLE001 - the outermost loop of a task
                _fail(batch, error)

    def _is_worth_waiting(self) -> bool:
        """Whether more is being checked that fits into the same commit.

        A commit costs as much as five rows, so waiting for more than some dozens saves nothing, and
        the disk can work while more is being checked. What is ready waits at most until there are
        so many or nothing is being checked; the end of every check asks again.
        """
        is_more_coming = self._is_checking or bool(self._waiting)
        return (
            is_more_coming
            and len(self._ready) < WAITED_ROWS_MAX
            and sum(entry.size for entry in self._ready) < BATCH_BYTES_MAX
        )

    async def _commit(self, batch: list[Entry]) -> None:
        for _ in range(TRIES_MAX):
            view = self.members.view
            # SPEC: what was checked against an older directory than the newest is checked
            # again before it is accepted. The directory may have moved between the two stages.
            # SPEC: so is what was checked before copies were erased, for the wraps that it
            # refers to may be gone.
            erasures = self.recent.erasures
            if any(entry.view is not view or entry.erasures != erasures for entry in batch):
                batch = await self._check(batch, view)
            batch = [entry for entry in batch if not entry.answer.done()]
            if not batch:
                return
            try:
                await self._commit_once(batch, view)
            except DirectoryMovedError:
                await self.members.refresh()
            except ErasuresMovedError as error:
                self.forget_erased(error.newest)
            else:
                return
        for entry in batch:
            entry.refuse(Refused("busy", "the directory kept moving", retry_after=1))

    async def _commit_once(self, batch: Sequence[Entry], view: View) -> None:
        envelopes: list[EnvelopeRow] = []
        receipts: list[ReceiptRow] = []
        order: list[tuple[Entry, bool, int]] = []
        for entry in batch:
            match entry.checked:
                case CheckedEnvelope() as checked:
                    order.append((entry, True, len(envelopes)))
                    envelopes.append(envelope_row(checked, self._key))
                case CheckedReceipt() as checked:
                    order.append((entry, False, len(receipts)))
                    receipts.append(receipt_row(checked, entry.held))
                case None:
                    raise AssertionError("an entry was to be committed that was not checked")
        started = perf_counter()
        done = await self.store.accept(
            envelopes,
            receipts,
            statements=view.ordinal,
            integrate=self.integrates,
            erasures=batch[0].erasures,
        )
        # SPEC: the relay acknowledges only after a durable commit. Nothing above this line
        # has told anyone of a promise.
        self._metrics.commit_seconds.observe(perf_counter() - started)
        self._metrics.batch_rows.observe(len(batch))
        for entry, is_envelope, position in order:
            if is_envelope:
                self._answer_envelope(entry, done.envelopes[position])
            else:
                _resolve(entry, done.receipts[position].promise)
        self._count(batch)
        self.publish(done)

    def _answer_envelope(self, entry: Entry, row: EnvelopeRow) -> None:
        checked = entry.checked
        # SPEC: another core under a known id is refused.
        if checked is None or row.core_hash != checked.hash:
            entry.refuse(Refused("id-taken", "another envelope has this id"))
        else:
            _resolve(entry, row.promise)

    def _count(self, batch: Sequence[Entry]) -> None:
        envelopes = sum(isinstance(entry.checked, CheckedEnvelope) for entry in batch)
        self._metrics.accepted.labels("envelope").inc(envelopes)
        self._metrics.accepted.labels("receipt").inc(len(batch) - envelopes)
        self._metrics.accepted_bytes.inc(sum(entry.size for entry in batch))

    # Statements.

    async def _state(self, signed: SignedStatement) -> Signed:
        view = self.members.view
        link = parse_statement(signed.payload).link
        desk = view.directory.desks.get(link.desk)
        if desk is not None and (link.seq, link.previous) != (desk.seq + 1, desk.head):
            raise Refused(
                "chain-moved",
                f"the chain is at statement {desk.seq}, and this is number {link.seq}",
            )
        # The real leaf index is not known yet; any above all statements proves the same.
        await asyncio.to_thread(view.directory.apply, signed, view.directory.index + 1)
        at = self.promised_at()
        promise = sign_promise(self._key, Promise(signed.hash, at))
        row = statement_row(signed, desk, promise, at)
        # SPEC: the relay acknowledges only after a durable commit.
        done = await self.store.accept_statement(row, expected_ordinal=view.ordinal)
        stored = done.statements[0]
        await self.members.add(stored, signed)
        self._metrics.accepted.labels("statement").inc()
        self.publish(done)
        return Signed.parse(stored.promise)

    # Afterwards.

    def forget_erased(self, erasures: int) -> None:
        """Let nothing in memory outlive its copies, which were erased so often by now."""
        if erasures > self.recent.erasures:
            self.recent.forget(erasures)
            self.hub.forget()
            self.erased.set()

    def publish(self, done: Accepted) -> None:
        """Hand out what was integrated just now."""
        self.forget_erased(done.head.erasures)
        for parked in done.parked:
            self._metrics.parked.inc()
            observe.alarm("row-parked", kind=parked.kind.value, key=parked.key.hex())
        if not done.integrated:
            return
        if done.head.erasures == self.recent.erasures:
            self.recent.keep(done.integrated)
        self.hub.publish(done.integrated)
        first = done.integrated[0].leaf_index
        if first is not None and first > self.size:
            # Another process has integrated something between; its rows are only in the store.
            self.hub.look_again()
        self.size = max(self.size, done.head.size)
        self._metrics.log_size.set(self.size)
        self.grown.set()

    async def _poll_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.poll_seconds)
            try:
                await self.poll()
            except StoreError as error:
                observe.alarm("poll-failed", error)


def _take(queue: deque[Entry]) -> list[Entry]:
    """Take what waits, up to one batch."""
    batch: list[Entry] = []
    size = 0
    while queue and len(batch) < BATCH_ROWS_MAX:
        size += queue[0].size
        if batch and size > BATCH_BYTES_MAX:
            break
        batch.append(queue.popleft())
    return batch


def _check_batch(
    batch: Sequence[Entry], view: View, key: FastKey, at: int
) -> list[ComityError | Refused | None]:
    """Check each entry; runs in the worker thread and touches only what it is given."""
    refusals: list[ComityError | Refused | None] = []
    for entry in batch:
        try:
            if isinstance(entry.thing, Posted):
                entry.checked = check_envelope(entry.thing, entry.caller, view.directory, key, at)
            else:
                entry.checked = check_receipt(entry.thing, entry.caller, view.directory, key, at)
        except (ComityError, Refused) as error:
            refusals.append(error)
        else:
            refusals.append(None)
    return refusals


def envelope_row(checked: CheckedEnvelope, key: FastKey) -> EnvelopeRow:
    """Write an envelope as the store keeps it; ``key`` is the relay's, for the blind."""
    upload, core = checked.upload, checked.core
    wraps = upload.wraps or (None,) * len(core.to)
    return EnvelopeRow(
        id=core.id,
        core_hash=checked.hash,
        core=upload.core,
        signature=upload.signature,
        body=upload.body,
        audit=upload.audit,
        sender_desk=core.sender,
        sender_device=core.device,
        recipients=tuple(
            Recipient(entry.desk, entry.epoch, int(entry.kind), wrap)
            for entry, wrap in zip(core.to, wraps, strict=True)
        ),
        accepted_at=checked.at,
        promise=checked.promise.serialize(),
        blind=envelope_blind(key, core.id),
        ref=core.ref,
    )


def receipt_row(checked: CheckedReceipt, held: Held | None) -> ReceiptRow:
    """Write a receipt as the store keeps it."""
    if held is None:
        raise AssertionError("a receipt was to be committed for nobody")
    return ReceiptRow(
        hash=checked.hash,
        payload=checked.signed.payload,
        signature=checked.signed.signature,
        desk=checked.receipt.desk,
        sender_desk=held.sender,
        readers=held.auditors,
        envelope_ids=checked.receipt.envelopes,
        accepted_at=checked.at,
        promise=checked.promise.serialize(),
    )


def _resolve(entry: Entry, promise: bytes) -> None:
    if not entry.answer.done():
        entry.answer.set_result(Signed.parse(promise))


def _fail(batch: Sequence[Entry], error: Exception) -> None:
    """Refuse a whole batch: as busy when the store could not be asked, else as a fault of ours."""
    if isinstance(error, StoreError):
        observe.alarm("check-failed", error)
        refused = Refused("busy", "the store could not be asked", retry_after=2)
    else:
        observe.alarm("pipeline-failed", error, rows=len(batch))
        refused = Refused("internal", "the relay could not do it")
    for entry in batch:
        entry.refuse(refused)
