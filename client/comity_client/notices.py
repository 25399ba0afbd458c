"""Notices: what is said about envelopes after they were sent, by either desk or by the relay.

Rules:

* [B-18] A notice is believed when its place in the log, its signature and its right to speak of
  each envelope that this desk has are verified; the same a second time changes nothing.
"""

from collections.abc import Callable, Collection, Iterator
from itertools import groupby
from typing import Final

from comity_client.keeping import Keeping, Kind, Posted
from comity_client.keystore import DeviceKeys
from comity_client.numbers import Heard, Numbers, readers_of
from comity_client.relay_answers import NoticeItem
from comity_client.state import Newest, State
from comity_client.sync import Synchroniser
from comity_client.tiles import LogReader, UnprovenError
from comity_client.transport import OfflineError, RelayClient, RelayRefusedError
from comity_protocol.checkpoint import note_hash
from comity_protocol.core import Core
from comity_protocol.encoding import Value
from comity_protocol.envelope import Upload
from comity_protocol.errors import ComityError, VerificationError
from comity_protocol.identifiers import DeskId, EnvelopeId, short
from comity_protocol.leaves import notice_hash, notice_leaf
from comity_protocol.limits import NOTICE_IDS_MAX
from comity_protocol.notices import (
    Author,
    DeskNotice,
    Notice,
    Restored,
    check_concerns,
    parse_notice,
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
        numbers: Numbers,
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
        self._numbers: Final = numbers
        self._keys: Final = keys
        self._own: Final = own
        self._now: Final = now

    # --- Given --------------------------------------------------------------------------------

    def parts(self, envelopes: Collection[EnvelopeId]) -> Iterator[tuple[EnvelopeId, ...]]:
        """Split envelopes of one exchange into what one notice may name: one set of readers."""
        found = sorted((self._readers((id_,)), id_) for id_ in envelopes)
        for _, group in groupby(found, key=lambda one: one[0]):
            ids = [id_ for _, id_ in group]
            for start in range(0, len(ids), NOTICE_IDS_MAX):
                yield tuple(ids[start : start + NOTICE_IDS_MAX])

    async def give(
        self, envelopes: tuple[EnvelopeId, ...], make: Callable[[Author], DeskNotice]
    ) -> bytes:
        """State a notice now; gives its hash once the relay has promised to log it.

        Args:
            envelopes: What it names, one of ``parts``.
            make: Gives the notice of an author.

        Raises:
            OfflineError: The relay does not answer. As it may have taken the notice all the same,
                the next ``flush`` states it again, under the same number.
            RelayRefusedError: It does not take it; it is as if it had never been said.
        """
        # One is stated after the other, so that a refusal leaves no number out.
        await self.flush()
        posted = self.keep(envelopes, make)
        try:
            answer = await self._relay.post_notice(Signed.parse(posted.data))
        except RelayRefusedError:
            self._take_back(posted)
            raise
        self._promised(posted, answer)
        return posted.what

    def keep(
        self, envelopes: tuple[EnvelopeId, ...], make: Callable[[Author], DeskNotice]
    ) -> Posted:
        """Keep a notice that ``flush`` states; nothing else may be waiting then."""
        directory = self._sync.directory
        with self._state.transaction():
            author = Author(
                deployment=directory.genesis.deployment,
                desk=self._own,
                device=self._keys.device,
                seq=directory.desk(self._own).seq,
                seen=note_hash(self._sync.newest.note),
                # SPEC [H-7]: numbered from 1 without a gap.
                number=self._numbers.take(Kind.NOTICE, self._readers(envelopes)),
            )
            signed = sign_notice(self._keys.fast, make(author))
            what = notice_hash(signed.payload)
            posted = Posted(kind=Kind.NOTICE, tag=what, what=what, data=signed.serialize())
            self._keeping.add(posted)
        return posted

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
                self._take_back(posted)
                text = f"relay refused a notice for good: {error.code}"
                self._state.alarm("notice", text, [posted.data], self._now())
                continue
            self._promised(posted, answer)

    def _take_back(self, posted: Posted) -> None:
        notice = parse_notice(Signed.parse(posted.data).payload)
        with self._state.transaction():
            self._keeping.drop(posted.tag)
            if not isinstance(notice, Restored):
                readers = self._readers(notice.envelopes)
                self._numbers.take_back(Kind.NOTICE, readers, notice.author.number)

    def _readers(self, envelopes: Collection[EnvelopeId], author: DeskId | None = None) -> bytes:
        """Give who reads a notice about envelopes; nothing when none of them is known."""
        cores = (self._core(envelope) or self._sent(envelope) for envelope in envelopes)
        first = next((core for core in cores if core is not None), None)
        return b"" if first is None else readers_of(first, author or self._own)

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
                await self._numbers.look(Kind.NOTICE, newest)
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
            if not isinstance(notice, Restored):
                heard = Heard(
                    kind=Kind.NOTICE,
                    device=notice.author.device,
                    readers=self._readers(notice.envelopes, notice.author.desk),
                    number=notice.author.number,
                    leaf_index=item.leaf_index,
                    signed=item.signed,
                )
                self._numbers.hear(heard, newest)

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

    def _sent(self, envelope: EnvelopeId) -> Core | None:
        """Give the core of an own envelope that is not seen in the log yet."""
        row = self._state.connection.execute(
            "SELECT upload FROM outbox WHERE envelope = ? AND upload IS NOT NULL", (envelope,)
        ).fetchone()
        return None if row is None else Core.parse(Upload.parse(row[0]).core)
