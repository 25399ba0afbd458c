"""Notices: what is said about envelopes after they were sent, by either desk or by the relay.

Rules:

* [B-18] A notice is believed when its place in the log, its signature and its right to speak of
  each envelope that this desk has are verified; the same a second time changes nothing.
"""

from collections.abc import Callable
from typing import Final

from comity_client.keeping import Keeping, Kind, Posted
from comity_client.keystore import DeviceKeys
from comity_client.relay_answers import NoticeItem
from comity_client.state import Newest, State
from comity_client.sync import Synchroniser
from comity_client.tiles import LogReader, UnprovenError
from comity_client.transport import OfflineError, RelayClient, RelayRefusedError
from comity_protocol.checkpoint import note_hash
from comity_protocol.core import Core
from comity_protocol.encoding import Value
from comity_protocol.errors import ComityError, VerificationError
from comity_protocol.identifiers import DeskId, EnvelopeId, short
from comity_protocol.leaves import notice_hash, notice_leaf
from comity_protocol.notices import (
    Author,
    DeskNotice,
    Notice,
    Restored,
    check_concerns,
    sign_notice,
    verify_notice,
)
from comity_protocol.receipts import Signed, verify_promise

PAGES_MAX: Final = 10_000


class Notices:
    """Gives and takes the notices of one desk."""

    def __init__(
        self,
        *,
        state: State,
        relay: RelayClient,
        log: LogReader,
        sync: Synchroniser,
        keeping: Keeping,
        keys: DeviceKeys,
        own: DeskId,
        now: Callable[[], int],
    ) -> None:
        """Put the parts together."""
        self._state: Final = state
        self._relay: Final = relay
        self._log: Final = log
        self._sync: Final = sync
        self._keeping: Final = keeping
        self._keys: Final = keys
        self._own: Final = own
        self._now: Final = now

    # --- Given --------------------------------------------------------------------------------

    @property
    def author(self) -> Author:
        """Who speaks when this device gives a notice."""
        directory = self._sync.directory
        return Author(
            deployment=directory.genesis.deployment,
            desk=self._own,
            device=self._keys.device,
            seq=directory.desk(self._own).seq,
            seen=note_hash(self._sync.newest.note),
        )

    async def give(self, notice: DeskNotice) -> bytes:
        """State a notice now; gives its hash once the relay has promised to log it.

        Raises:
            OfflineError: The relay does not answer.
            RelayRefusedError: It does not take it.
        """
        signed = sign_notice(self._keys.fast, notice)
        what = notice_hash(signed.payload)
        posted = Posted(kind=Kind.NOTICE, tag=what, what=what, data=signed.serialize())
        # One whose promise is lost on the way comes back with the others' notices.
        self._promised(posted, await self._relay.post_notice(signed))
        return what

    def keep(self, notice: DeskNotice) -> bytes:
        """Keep a notice that ``flush`` states; gives its hash."""
        signed = sign_notice(self._keys.fast, notice)
        what = notice_hash(signed.payload)
        self._keeping.add(Posted(kind=Kind.NOTICE, tag=what, what=what, data=signed.serialize()))
        return what

    async def flush(self) -> None:
        """State what is kept and was not promised yet; what is refused for good is dropped.

        Raises:
            OfflineError, RelayRefusedError: The relay is not there, or asks to come back.
        """
        for posted in self._keeping.unpromised(Kind.NOTICE):
            try:
                answer = await self._relay.post_notice(Signed.parse(posted.data))
            except RelayRefusedError as error:
                if error.retry_after is not None:
                    raise
                self._keeping.drop(posted.tag)
                text = f"relay refused a notice for good: {error.code}"
                self._state.alarm("notice", text, [posted.data], self._now())
                continue
            self._promised(posted, answer)

    def _promised(self, posted: Posted, answer: Signed) -> None:
        relay_key = self._sync.directory.genesis.relay_key
        promise = verify_promise(answer, relay_key, posted.what)
        with self._state.transaction():
            self._keeping.add(posted)
            self._keeping.promised(posted.tag, answer, promise)

    # --- Taken --------------------------------------------------------------------------------

    async def fetch(self) -> None:
        """Fetch and keep notices, as far as the newest checkpoint covers them."""
        newest = self._sync.newest
        for _ in range(PAGES_MAX):
            after = self._state.mark("notices")
            after = -1 if after is None else after
            page = await self._relay.notices(after)
            covered = [item for item in page if after < item.leaf_index < newest.size]
            for item in covered:
                await self._take(item, newest)
                self._state.set_mark("notices", item.leaf_index)
            if not covered or len(covered) < len(page):
                break
        self._look_for_withheld(newest)

    async def _take(self, item: NoticeItem, newest: Newest) -> None:
        try:
            # SPEC [B-18]: its place in the log, its signature, its right to speak.
            leaf = notice_leaf(item.signed.payload)
            await self._log.verify_leaf(leaf, item.leaf_index, newest)
            notice = verify_notice(item.signed, self._sync.directory, index=item.leaf_index)
            self._check(notice, item.leaf_index)
        except (OfflineError, RelayRefusedError, UnprovenError):
            raise
        except ComityError as error:
            evidence: list[Value] = [item.leaf_index, item.signed.payload, item.signed.signature]
            self._state.alarm("notice", str(error), evidence, self._now())
            return
        self._keep(item, notice, newest)

    def _check(self, notice: Notice, index: int) -> None:
        if isinstance(notice, Restored):
            if notice.size > index:
                raise VerificationError(
                    f"relay says that it was restored at {notice.size} entries, and says so in"
                    f" entry {index} [H-1]"
                )
            return
        # SPEC [H-1]: of a desk that each named envelope addresses. Of what this desk does not
        # have, it believes nothing either way.
        for envelope in notice.envelopes:
            core = self._core(envelope)
            if core is not None:
                check_concerns(notice, core)

    def _keep(self, item: NoticeItem, notice: Notice, newest: Newest) -> None:
        hash_ = notice_hash(item.signed.payload)
        desk = None if isinstance(notice, Restored) else notice.author.desk
        with self._state.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO notices VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    hash_,
                    item.leaf_index,
                    notice.kind,
                    desk,
                    item.signed.payload,
                    item.signed.signature,
                    newest.sealed_at,
                ),
            )
            self._keeping.seen([hash_], newest.sealed_at)

    def _look_for_withheld(self, newest: Newest) -> None:
        """Look for own notices that the log has and that the relay does not hand out."""
        rows = self._state.connection.execute(
            "SELECT what, data FROM kept WHERE kind = ? AND sealed_at < ?"
            " AND what NOT IN (SELECT hash FROM notices)",
            (Kind.NOTICE.value, newest.sealed_at),
        ).fetchall()
        for what, data in rows:
            text = f"log has this desk's notice {short(what)}, and the relay hands it to nobody"
            self._state.alarm("withheld", text, [data, newest.note], self._now())

    def _core(self, envelope: EnvelopeId) -> Core | None:
        row = self._state.connection.execute(
            "SELECT core FROM inbox WHERE envelope = ? AND sealed_at IS NOT NULL"
            " ORDER BY counter LIMIT 1",
            (envelope,),
        ).fetchone()
        return None if row is None else Core.parse(row[0])
