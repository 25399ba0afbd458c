"""Takes back what a restored database lost, while the repair lasts, and nothing else.

The relay has its old entries again, but not what they stand for. Whoever still holds an object
brings it; it is taken when its hash is that of a vacant entry. The relay's own rules about sending
are not asked again: that the entry is in a witnessed log proves that they held when it was made.
What the hash does not cover is checked: the signature, as of that entry's place in the log.

Rules:

* [R-1] The relay acknowledges only after a durable commit.
* [R-2] A known id returns the promise that is stored.
* [R-13] Each desk has a share of what is taken at once.
* [R-15] Every queue has a bound.
* [R-16] What takes a place is what the entry there stands for.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from comity_protocol.core import Core, Kind, core_hash
from comity_protocol.envelope import parse_upload, verify_sender
from comity_protocol.epochs import box_hash
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import DeviceId
from comity_protocol.keys import FastKey, key_id
from comity_protocol.leaves import notice_hash, receipt_hash, tags_of_promise
from comity_protocol.limits import NOTICE_BYTES_MAX
from comity_protocol.notices import Restored, check_concerns, verify_notice
from comity_protocol.receipts import Promise, Receipt, Signed, sign_promise, verify_receipt
from comity_protocol.statements import (
    DeviceStatement,
    EpochStatement,
    RemovalStatement,
    SignedStatement,
    Statement,
    boxes_hash,
    parse_statement,
)
from comity_server.checks import Caller, CheckedEnvelope, CheckedReceipt
from comity_server.problems import Refused, of_error
from comity_server.relay import Held, Relay, envelope_row, receipt_row
from comity_server.statement_rows import statement_row
from comity_server.store import (
    EVERYONE,
    DirectoryMovedError,
    EnvelopeRow,
    NoticeRow,
    Row,
)
from comity_server.store import (
    Kind as StoredKind,
)
from comity_server.vacancies import Vacancy

TAKING_MAX: Final = 256
"""Objects that are being taken at once."""

TAKING_OF_DESK_MAX: Final = 16
"""Of them so many that one desk brings, so that sixteen desks at least are heard."""

RETRY_SECONDS: Final = 2
_TRIES_MAX: Final = 8


class Refilling:
    """Takes objects for vacancies; a ``relay.Gate`` together with ``repair.Repairer``."""

    def __init__(self, relay: Relay, key: FastKey) -> None:
        """Take the relay's parts, and its key for promises and blinds."""
        self._relay: Final = relay
        self._key: Final = key
        self._stating: Final = asyncio.Lock()
        self._taking: Final[Counter[bytes]] = Counter()

    def offer_envelope(self, data: bytes, caller: Caller) -> "asyncio.Future[Signed]":
        """Take a lost envelope, whoever brings it; the future gives a promise of it."""
        return asyncio.ensure_future(self._bounded(caller.desk, lambda: self._take_envelope(data)))

    def offer_receipt(self, data: bytes, caller: Caller) -> "asyncio.Future[Signed]":
        """Take a lost receipt, likewise."""
        return asyncio.ensure_future(self._bounded(caller.desk, lambda: self._take_receipt(data)))

    async def accept_notice(self, data: bytes, caller: Caller) -> Signed:
        """Take a lost notice, likewise."""
        return await self._bounded(caller.desk, lambda: self._take_notice(data))

    async def accept_statement(self, data: bytes) -> Signed:
        """Take a lost statement, or the boxes of one that came back without."""
        signed = SignedStatement.parse(data)
        # Nobody is asked who he is who brings a statement: all of them have one share.
        return await self._bounded(b"", lambda: self.take_statement(signed))

    async def take_statement(self, signed: SignedStatement) -> Signed:
        """Take a lost statement; in leaf order, as the directory is folded.

        Raises:
            ComityError: It does not hold where the log has it.
            Refused: It was not lost, or an earlier one has to come first.
        """
        async with self._stating:
            for _ in range(_TRIES_MAX):
                if known := self._relay.members.promise_of(signed.hash):
                    await self._add_boxes(signed)
                    return Signed.parse(known)
                try:
                    return await self._state(signed)
                except DirectoryMovedError:
                    await self._relay.members.refresh()
        raise Refused("busy", "other statements kept coming first", retry_after=1)

    async def _bounded(self, desk: bytes, take: Callable[[], Awaitable[Signed]]) -> Signed:
        # SPEC: every queue has a bound.
        if self._taking.total() >= TAKING_MAX:
            raise Refused("busy", "too many uploads are waiting", retry_after=1)
        # SPEC: each desk has a share, so that one of them does not keep the others out.
        if self._taking[desk] >= TAKING_OF_DESK_MAX:
            raise Refused("quota", "the desk's uploads are being taken", retry_after=1)
        self._taking[desk] += 1
        try:
            return await take()
        except Refused:
            raise
        except ComityError as error:
            raise of_error(error) from error
        finally:
            self._taking[desk] -= 1
            if not self._taking[desk]:
                del self._taking[desk]

    # One kind of object each.

    async def _take_envelope(self, data: bytes) -> Signed:
        upload, core = parse_upload(data)
        what = core_hash(upload.core)
        stored: Row | None = await self._relay.store.envelope(core.id)
        if stored is None:
            vacancy = await self._require_vacancy(tags_of_promise(what)[1])
            await asyncio.to_thread(
                verify_sender,
                core,
                upload.core,
                upload.signature,
                self._relay.members.view.directory,
                index=vacancy.leaf_index,
            )
            promise, at = self._promise(what)
            row = envelope_row(CheckedEnvelope(upload, core, what, promise, at), self._key)
            stored = await self._relay.store.fill(row, statements=0)
        if stored is None:
            raise repairing()
        # SPEC: another core under a known id is refused.
        if not isinstance(stored, EnvelopeRow) or stored.core_hash != what:
            raise Refused("id-taken", "another envelope has this id")
        return Signed.parse(stored.promise)

    async def _take_receipt(self, data: bytes) -> Signed:
        signed = Signed.parse(data)
        receipt, what = Receipt.parse(signed.payload), receipt_hash(signed.payload)
        if (known := await self._relay.store.stored(StoredKind.RECEIPT, what)) is not None:
            return Signed.parse(known.promise)
        vacancy = await self._require_vacancy(what)
        directory = self._relay.members.view.directory
        await asyncio.to_thread(verify_receipt, signed, directory, index=vacancy.leaf_index)
        cores = await self._cores(receipt.envelopes)
        senders = {bytes(core.sender) for core in cores if core.recipient(receipt.desk)}
        if len(senders) != 1:
            raise repairing()
        auditors = {bytes(to.desk) for core in cores for to in core.to if to.kind is Kind.AUDIT}
        promise, at = self._promise(what)
        held = Held(senders.pop(), tuple(sorted(auditors)))
        row = receipt_row(CheckedReceipt(signed, receipt, what, promise, at), held)
        return await self._fill(row)

    async def _take_notice(self, data: bytes) -> Signed:
        signed = Signed.parse(data, NOTICE_BYTES_MAX)
        what = notice_hash(signed.payload)
        if (known := await self._relay.store.stored(StoredKind.NOTICE, what)) is not None:
            return Signed.parse(known.promise)
        vacancy = await self._require_vacancy(what)
        directory = self._relay.members.view.directory
        notice = await asyncio.to_thread(verify_notice, signed, directory, index=vacancy.leaf_index)
        readers: set[bytes] = {EVERYONE}
        desk: bytes | None = None
        if not isinstance(notice, Restored):
            cores = await self._cores(notice.envelopes)
            for core in cores:
                check_concerns(notice, core)
            desk = notice.author.desk
            readers = {bytes(to.desk) for core in cores for to in core.to}
        promise, at = self._promise(what)
        row = NoticeRow(
            hash=what,
            payload=signed.payload,
            signature=signed.signature,
            kind=notice.kind,
            desk=desk,
            envelope_ids=notice.envelopes,
            readers=tuple(sorted(readers)),
            accepted_at=at,
            promise=promise.serialize(),
        )
        return await self._fill(row)

    async def _state(self, signed: SignedStatement) -> Signed:
        vacancy = await self._require_vacancy(signed.hash)
        view = self._relay.members.view
        if vacancy.leaf_index <= view.directory.index:
            raise repairing()
        desk = view.directory.desks.get(parse_statement(signed.payload).link.desk)
        await asyncio.to_thread(view.directory.apply, signed, vacancy.leaf_index)
        promise, at = self._promise(signed.hash)
        row = statement_row(signed, desk, promise, at)
        stored = await self._fill(row, view.ordinal)
        await self._relay.members.refresh()
        return stored

    async def _add_boxes(self, signed: SignedStatement) -> None:
        """Keep the boxes of a statement that came back without them from a mirror."""
        statement = parse_statement(signed.payload)
        desk = self._relay.members.view.directory.desks.get(statement.link.desk)
        if desk is None or not _has_stated_boxes(statement, signed):
            return
        if isinstance(statement, DeviceStatement):
            # The box is of the epoch that the desk was in when the device came.
            joined = desk.devices[DeviceId(key_id(statement.full))].added_index
            epochs = tuple(epoch for epoch in desk.epochs if epoch.index < joined)
            desk = replace(desk, epochs=epochs)
        row = statement_row(signed, desk, self._promise(signed.hash)[0], 0)
        await self._relay.store.fill(row, statements=0)

    # What they share.

    async def _fill(self, row: Row, statements: int = 0) -> Signed:
        stored = await self._relay.store.fill(row, statements=statements)
        if stored is None:
            raise repairing()
        # SPEC: the relay acknowledges only after a durable commit.
        return Signed.parse(stored.promise)

    async def _require_vacancy(self, tag: bytes) -> Vacancy:
        # SPEC: what takes a place is what the entry there stands for.
        found = (await self._relay.store.vacancies([tag])).get(tag)
        if found is None:
            raise repairing()
        return found

    async def _cores(self, envelopes: Sequence[bytes]) -> list[Core]:
        """Give the cores of what an object is about; all of them have to be back first."""
        rows = [await self._relay.store.envelope(id_) for id_ in envelopes]
        if None in rows:
            raise repairing()
        return [Core.parse(row.core) for row in rows if row is not None]

    def _promise(self, what: bytes) -> tuple[Signed, int]:
        at = self._relay.promised_at()
        return sign_promise(self._key, Promise(what, at)), at


def repairing() -> Refused:
    """Give the refusal of everything that was not lost, or cannot be taken back yet."""
    return Refused(
        "repairing",
        "the relay's database was restored and takes back what it lost first",
        retry_after=RETRY_SECONDS,
    )


def _has_stated_boxes(statement: Statement, signed: SignedStatement) -> bool:
    """Whether the boxes that came with a statement are those that it was signed with."""
    match statement:
        case DeviceStatement(box_hash=stated):
            return [box_hash(box) for _, box in signed.boxes] == [stated]
        case EpochStatement(epoch=epoch) | RemovalStatement(epoch=epoch):
            return boxes_hash(signed.boxes, signed.previous) == epoch.boxes_hash
        case _:
            return False
