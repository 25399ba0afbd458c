"""Erases this desk's own copies, and says so in the log.

An admin states which envelopes and why. Once the relay has promised to log that, and dropped what
it held for this desk, every device of the desk deletes what would open them: bodies, audit parts,
wraps and uploads. What an auditor sees anyway stays, so that the exchange is still shown; every
proof stays valid, because the log holds hashes alone. The other desk decides for its own copy.

Rules:

* [B-16] Once its own desk's erasure was promised or seen in the log, a device deletes bodies, audit
  parts, wraps and uploads of these envelopes, so that its files do not hold them any more.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from comity_client.noticed import fold_notices, kept_notices, read_erased
from comity_client.notices import Notices
from comity_client.state import State
from comity_client.threads import Threads
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import DeskId, EnvelopeId, ExchangeId, short
from comity_protocol.notices import Author, Erase, EraseBasis, Hold, HoldBasis, Release


class HoldError(ComityError):
    """Something is on hold, and stays."""

    code = "held"
    remedy = "ask the desk that holds it for a release: `comity release` on its machine"


class ErasedError(ComityError):
    """Something was erased here."""

    code = "erased"
    remedy = (
        "nothing brings it back on this machine; the log still proves that it was sent, and the"
        " other desk may have its copy"
    )


class UnderWayError(ComityError):
    """An act that is on its way; what becomes of it is not known yet."""

    code = "under-way"
    remedy = "run `comity sync` until `comity outbox` shows nothing queued, then try again"


class Erasing:
    """Erases, holds and releases for one desk."""

    def __init__(
        self,
        state: State,
        notices: Notices,
        threads: Threads,
        own: DeskId,
        now: Callable[[], int],
    ) -> None:
        """Take what is kept, what states notices, and what remembers keys."""
        self._state: Final = state
        self._notices: Final = notices
        self._threads: Final = threads
        self._own: Final = own
        self._now: Final = now

    async def erase(self, exchange: ExchangeId, basis: EraseBasis) -> int:
        """State the erasure of an exchange and delete this device's copies; give how many.

        Raises:
            HoldError: A desk holds something of it.
            UnderWayError: An act of it is not in the log yet.
            OfflineError, RelayRefusedError: The relay does not promise it; nothing is deleted.
        """
        envelopes = self._sealed(exchange)
        # SPEC [H-4]: what is on hold is not erased by any desk.
        self._require_free(envelopes)
        self._require_logged(exchange)
        for part in self._notices.parts(envelopes):
            notice = await self._notices.give(part, partial(_erase, part, basis))
            self._wipe(part, basis.value, notice)
        with self._state.transaction() as connection:
            # What the relay refused was never sent, and lies here alone.
            connection.execute("UPDATE outbox SET upload = NULL WHERE exchange = ?", (exchange,))
        self._compact()
        return len(envelopes)

    async def hold(self, exchange: ExchangeId, basis: HoldBasis) -> int:
        """State that nothing of an exchange may be erased; give how many envelopes."""
        envelopes = self._sealed(exchange)
        for part in self._notices.parts(envelopes):
            await self._notices.give(part, partial(_hold, part, basis))
        return len(envelopes)

    async def release(self, exchange: ExchangeId) -> int:
        """End this desk's hold of an exchange; give how many envelopes it was."""
        ledger = fold_notices(self._state)
        held = tuple(
            envelope for envelope in self._sealed(exchange) if self._own in ledger.held_by(envelope)
        )
        for part in self._notices.parts(held):
            await self._notices.give(part, partial(_release, part))
        return len(held)

    def carry_out(self, read_at: int, before: Collection[int]) -> int:
        """Delete what another device of this desk erased, or what a crash left; give how many.

        Stops a relay that brings back what was erased: it must not have had it any more.

        Args:
            read_at: Size of a verified checkpoint after which the mailbox was read.
            before: Counters of the mailbox that were here before.
        """
        gone, allowed = 0, fold_notices(self._state).erased
        for kept in kept_notices(self._state):
            notice = kept.notice
            if not isinstance(notice, Erase) or notice.author.desk != self._own:
                continue
            left = [
                one for one in notice.envelopes if (one, self._own) in allowed and self._has(one)
            ]
            if left:
                if kept.leaf_index < read_at:
                    self._accuse(left, before, kept.leaf_index)
                self._wipe(left, notice.basis.value, self._hash_at(kept.leaf_index))
                gone += len(left)
        if gone:
            self._compact()
        return gone

    def _accuse(
        self, envelopes: Collection[EnvelopeId], before: Collection[int], index: int
    ) -> None:
        """Keep an alarm for each copy that the relay gave although its erasure was logged."""
        for envelope in envelopes:
            row = self._state.connection.execute(
                "SELECT counter FROM inbox WHERE envelope = ? AND wrap IS NOT NULL", (envelope,)
            ).fetchone()
            # SPEC [H-5]: after an erasure the relay does not hold the desk's wrap.
            if row is not None and row[0] not in before:
                text = f"relay gave envelope {short(envelope)}, which this desk had erased"
                self._state.alarm("unerased", text, [row[0], envelope, index], self._now())

    def _sealed(self, exchange: ExchangeId) -> tuple[EnvelopeId, ...]:
        """Give the envelopes of an exchange that are in the log, ascending by id."""
        rows = self._state.connection.execute(
            "SELECT DISTINCT envelope FROM inbox WHERE exchange = ? AND sealed_at IS NOT NULL"
            " AND envelope NOT IN (SELECT envelope FROM erased) ORDER BY envelope",
            (exchange,),
        )
        return tuple(EnvelopeId(row[0]) for row in rows)

    def _require_free(self, envelopes: Collection[EnvelopeId]) -> None:
        ledger = fold_notices(self._state)
        if holders := {desk for one in envelopes for desk in ledger.held_by(one)}:
            who = ", ".join(short(desk) for desk in sorted(holders))
            raise HoldError(f"this exchange is on hold by desk {who} [H-4]")

    def _require_logged(self, exchange: ExchangeId) -> None:
        row = self._state.connection.execute(
            "SELECT count(*) FROM outbox WHERE exchange = ? AND stage <> 'rejected'"
            " AND envelope NOT IN (SELECT envelope FROM inbox WHERE sealed_at IS NOT NULL)",
            (exchange,),
        ).fetchone()
        if row[0]:
            raise UnderWayError(f"{row[0]} of this exchange are not in the log yet")

    def _has(self, envelope: EnvelopeId) -> bool:
        row = self._state.connection.execute(
            "SELECT 1 FROM inbox WHERE envelope = ?1 AND (body IS NOT NULL OR wrap IS NOT NULL"
            " OR length(audit) > 0)"
            " UNION SELECT 1 FROM outbox WHERE envelope = ?1 AND upload IS NOT NULL",
            (envelope,),
        ).fetchone()
        return row is not None

    def _wipe(self, envelopes: Collection[EnvelopeId], basis: str, notice: bytes) -> None:
        # SPEC [B-16]: bodies, audit parts, wraps and uploads go.
        with self._state.transaction() as connection:
            for envelope in envelopes:
                connection.execute(
                    "INSERT OR IGNORE INTO erased SELECT ?1, (SELECT exchange FROM inbox"
                    " WHERE envelope = ?1), ?2, ?3, ?4",
                    (envelope, basis, notice, self._now()),
                )
                connection.execute(
                    "UPDATE inbox SET body = NULL, wrap = NULL, audit = x'', receipted = 1"
                    " WHERE envelope = ?",
                    (envelope,),
                )
                connection.execute(
                    "UPDATE outbox SET upload = NULL WHERE envelope = ?", (envelope,)
                )
                self._threads.forget(envelope)

    def _compact(self) -> None:
        """Write the file anew without what was deleted, and empty the journal beside it."""
        # SPEC [B-16]: its files do not hold them any more.
        self._state.connection.execute("VACUUM")
        self._state.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _hash_at(self, index: int) -> bytes:
        row = self._state.connection.execute(
            "SELECT hash FROM notices WHERE leaf_index = ?", (index,)
        ).fetchone()
        return bytes(row[0])


def _erase(part: tuple[EnvelopeId, ...], basis: EraseBasis, author: Author) -> Erase:
    return Erase(author, part, basis)


def _hold(part: tuple[EnvelopeId, ...], basis: HoldBasis, author: Author) -> Hold:
    return Hold(author, part, basis)


def _release(part: tuple[EnvelopeId, ...], author: Author) -> Release:
    return Release(author, part)


def require_there(state: State, envelope: EnvelopeId) -> None:
    """Refuse what was erased here.

    Raises:
        ErasedError: It was.
    """
    found = read_erased(state).get(envelope)
    if found is not None:
        raise ErasedError(f"envelope {short(envelope)} was erased here, basis {found.basis}")
