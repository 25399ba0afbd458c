"""Accepts notices: what desks, or the relay itself, say about envelopes afterwards.

Notices are rare, so they go one by one: checked, and committed together with what they do.

Rules:

* [R-1] The relay acknowledges only after a durable commit.
* [R-2] A known notice gets its original promise and changes nothing.
* [R-14] An envelope that is not there and one that is not the desk's get the same answer.
* [R-18] Erasures are carried out again after a restore: a tombstone comes before the commit.
* [H-1] Each envelope that a notice names addresses its desk.
* [H-4] What is on hold is not erased by any desk.
* [H-6] The envelopes of a notice are between the same two desks.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from comity_protocol.core import Core
from comity_protocol.errors import VerificationError
from comity_protocol.keys import FastKey
from comity_protocol.leaves import notice_hash
from comity_protocol.limits import NOTICE_BYTES_MAX
from comity_protocol.notices import (
    DeskNotice,
    Notice,
    Restored,
    check_concerns,
    sign_notice,
)
from comity_protocol.receipts import Promise, Signed, sign_promise
from comity_server import observe
from comity_server.checks import Caller, check_notice
from comity_server.metrics import Metrics
from comity_server.problems import Refused
from comity_server.relay import TRIES_MAX, Relay
from comity_server.store import (
    EVERYONE,
    Copy,
    DirectoryMovedError,
    NoticeRow,
    OnHoldError,
)
from comity_server.tombstones import Tombstones, TombstonesError, carry_out


class Notices:
    """The one way by which a notice gets into the log."""

    def __init__(
        self, *, relay: Relay, key: FastKey, tombstones: Tombstones, metrics: Metrics
    ) -> None:
        """Put the parts together; ``key`` is the relay's, for promises and its own notices."""
        self._relay: Final = relay
        self._key: Final = key
        self._tombstones: Final = tombstones
        self._metrics: Final = metrics
        self._accepting: Final = asyncio.Lock()
        # Tombstones whose copies may still be in the database, because a commit failed.
        self._is_unsettled = False
        self._buried: tuple[Copy, ...] = ()

    async def accept(self, data: bytes, caller: Caller) -> Signed:
        """Check and commit a desk's notice; give the promise.

        Raises:
            ComityError: It is malformed, or a signature or a rule of it does not hold.
            Refused: It is not the caller's, one of its envelopes is not the desk's or is on hold,
                or it cannot be taken now.
        """
        if self._relay.gate is not None:
            return await self._relay.gate.accept_notice(data, caller)
        self._relay.take_quota(caller, len(data))
        signed = Signed.parse(data, NOTICE_BYTES_MAX)
        async with self._accepting:
            for _ in range(TRIES_MAX):
                view = self._relay.members.view
                notice = await asyncio.to_thread(check_notice, signed, caller, view.directory)
                await self._relay.require_published(notice.author.seen)
                readers = _readers(notice, await self._cores(notice))
                try:
                    return await self._commit(signed, notice, readers, view.ordinal)
                except DirectoryMovedError:
                    await self._relay.members.refresh()
        raise Refused("busy", "the directory kept moving", retry_after=1)

    async def state_restored(self, notice: Restored) -> Signed:
        """Sign and commit the relay's own notice of a restore, for every member."""
        signed = sign_notice(self._key, notice)
        async with self._accepting:
            for _ in range(TRIES_MAX):
                ordinal = self._relay.members.view.ordinal
                try:
                    return await self._commit(signed, notice, (EVERYONE,), ordinal)
                except DirectoryMovedError:
                    await self._relay.members.refresh()
        raise Refused("busy", "the directory kept moving", retry_after=1)

    async def do_again(self, row: NoticeRow, envelopes: Sequence[bytes]) -> None:
        """Do what a notice says that came back after a restore.

        Raises:
            OnHoldError: It is an erasure, and one of the envelopes is on hold.
        """
        again = replace(row, envelope_ids=tuple(envelopes))
        async with self._accepting:
            self._buried = ()
            await self._relay.store.carry_out(again, bury=self._bury)
            self._settle()

    async def carry_out(self) -> int:
        """Erase whatever has a tombstone; give how many copies were still there.

        Raises:
            TombstonesError: The file cannot be read.
            StoreError: The database failed.
        """
        # SPEC: erasures are carried out again after a restore.
        erased = await carry_out(self._tombstones, self._relay.store)
        self._is_unsettled = False
        if erased:
            observe.event("tombstones-carried-out", copies=erased)
            self._metrics.copies_erased.labels("tombstone").inc(erased)
            self._relay.forget_erased((await self._relay.store.head()).erasures)
        return erased

    async def _cores(self, notice: DeskNotice) -> list[Core]:
        """Give the cores of what a notice is about, all of them addressed to its desk."""
        found = await self._relay.store.cores(notice.envelopes)
        cores = [Core.parse(core) for core in found.values()]
        # SPEC [H-1]: each named envelope addresses the desk.
        # SPEC: what is not the caller's gets the answer of what does not exist.
        addressed = [core for core in cores if core.recipient(notice.author.desk) is not None]
        if len(addressed) != len(notice.envelopes):
            raise Refused("not-found", "not all of these are envelopes of your desk")
        for core in addressed:
            check_concerns(notice, core)
        return addressed

    async def _commit(
        self, signed: Signed, notice: Notice, readers: tuple[bytes, ...], ordinal: int
    ) -> Signed:
        if self._is_unsettled:
            # A hold that came now would come after an erasure that is half done.
            await self.carry_out()
        self._buried = ()
        row = self._row(signed, notice, readers)
        try:
            done = await self._relay.store.accept_notice(row, statements=ordinal, bury=self._bury)
        except OnHoldError:
            # SPEC [H-4]: what is on hold is not erased by any desk.
            raise Refused("on-hold", "a desk holds one of these envelopes") from None
        except TombstonesError as error:
            observe.alarm("tombstones-failed", error)
            raise Refused("busy", "erasures cannot be taken now", retry_after=60) from error
        # SPEC: the relay acknowledges only after a durable commit.
        self._settle()
        self._metrics.accepted.labels("notice").inc()
        self._relay.publish(done)
        # SPEC: a known id returns the original promise.
        return Signed.parse(done.notices[0].promise)

    def _row(self, signed: Signed, notice: Notice, readers: tuple[bytes, ...]) -> NoticeRow:
        what = notice_hash(signed.payload)
        at = self._relay.promised_at()
        return NoticeRow(
            hash=what,
            payload=signed.payload,
            signature=signed.signature,
            kind=notice.kind,
            desk=None if isinstance(notice, Restored) else notice.author.desk,
            envelope_ids=notice.envelopes,
            readers=readers,
            accepted_at=at,
            promise=sign_promise(self._key, Promise(what, at)).serialize(),
        )

    def _bury(self, copies: Sequence[Copy]) -> None:
        """Write tombstones; called inside the transaction, maybe in another thread."""
        self._is_unsettled = True
        self._buried = tuple(copies)
        self._tombstones.add(copies)

    def _settle(self) -> None:
        """Take notice that what was buried last is committed."""
        self._is_unsettled = False
        if self._buried:
            try:
                self._tombstones.settle(self._buried)
            except TombstonesError as error:
                # They are only looked at once more before they are carried out again.
                observe.alarm("tombstones-failed", error)
        self._buried = ()


def _readers(notice: DeskNotice, cores: Sequence[Core]) -> tuple[bytes, ...]:
    """Give all desks that the envelopes of a notice address."""
    pairs = {frozenset((core.sender, core.counterpart)) for core in cores}
    # SPEC [H-6]: the envelopes of a notice are between the same two desks. Stops a desk from
    # learning of what another one wrote to third ones.
    if len(pairs) != 1:
        raise VerificationError(
            f"{notice.kind} notice names envelopes with {len(pairs)} counterparts, expected one;"
            " give a notice for each [H-6]"
        )
    return tuple(sorted({bytes(entry.desk) for core in cores for entry in core.to}))
