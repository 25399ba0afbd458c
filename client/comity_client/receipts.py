"""Receipts: what this desk says it holds, and what other desks say they hold.

Rules:

* [B-7] A receipt is given for what is stored and opens; one received is verified before *stored*
  is said.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Final

from comity_client.keeping import Keeping, Kind, Posted
from comity_client.keystore import DeviceKeys
from comity_client.numbers import Heard, Numbers, readers_of
from comity_client.relay_answers import ReceiptItem
from comity_client.state import Newest, State
from comity_client.sync import Synchroniser
from comity_client.tiles import LogReader, UnprovenError
from comity_client.transport import OfflineError, RelayClient, RelayRefusedError
from comity_protocol.checkpoint import note_hash
from comity_protocol.core import Core, core_hash
from comity_protocol.encoding import Value
from comity_protocol.envelope import Upload
from comity_protocol.errors import ComityError, VerificationError
from comity_protocol.identifiers import DeskId, EnvelopeId
from comity_protocol.leaves import receipt_hash, receipt_leaf
from comity_protocol.limits import RECEIPT_IDS_MAX
from comity_protocol.receipts import (
    Receipt,
    Signed,
    check_confirms,
    sign_receipt,
    verify_promise,
    verify_receipt,
)

PAGES_MAX: Final = 100_000


class Receipts:
    """Gives and takes the receipts of one desk."""

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

    async def give(self) -> None:
        """Write receipts for what opens, then hand over all that were not accepted yet."""
        self._write()
        refused: set[bytes] = set()
        for posted in self._keeping.unpromised(Kind.RECEIPT):
            readers = self._readers(posted)
            # Of the same readers none overtakes another, so that a gap means something.
            if readers not in refused and not await self._post(posted, readers):
                refused.add(readers)

    def _write(self) -> None:
        with self._state.transaction() as connection:
            # SPEC [B-7]: a receipt is given for what is stored and opens.
            rows = connection.execute(
                "SELECT envelope, core FROM inbox WHERE receipted = 0 AND opens = 1"
                " AND sender <> ?1 AND receiver = ?1",
                (self._own,),
            ).fetchall()
            found = sorted(
                (readers_of(Core.parse(core), self._own), EnvelopeId(id_), core_hash(core))
                for id_, core in rows
            )
            for readers, group in groupby(found, key=lambda one: one[0]):
                held = [(id_, core) for _, id_, core in group]
                for start in range(0, len(held), RECEIPT_IDS_MAX):
                    signed = self._sign(held[start : start + RECEIPT_IDS_MAX], readers)
                    what = receipt_hash(signed.payload)
                    self._keeping.add(
                        Posted(kind=Kind.RECEIPT, tag=what, what=what, data=signed.serialize())
                    )
            connection.execute("UPDATE inbox SET receipted = 1 WHERE receipted = 0 AND opens = 1")

    def _sign(self, held: Iterable[tuple[EnvelopeId, bytes]], readers: bytes) -> Signed:
        receipt = Receipt(
            desk=self._own,
            device=self._keys.device,
            seq=self._sync.directory.desk(self._own).seq,
            held=tuple(held),
            seen=note_hash(self._sync.newest.note),
            # SPEC: numbered from 1 without a gap.
            number=self._numbers.take(Kind.RECEIPT, readers),
        )
        return sign_receipt(self._keys.fast, receipt)

    def _readers(self, posted: Posted) -> bytes:
        receipt = Receipt.parse(Signed.parse(posted.data).payload)
        row = self._state.connection.execute(
            "SELECT core FROM inbox WHERE envelope = ? AND sealed_at IS NOT NULL",
            (receipt.envelopes[0],),
        ).fetchone()
        return readers_of(Core.parse(row[0]), self._own)

    async def _post(self, posted: Posted, readers: bytes) -> bool:
        signed = Signed.parse(posted.data)
        try:
            answer = await self._relay.post_receipt(signed)
        except RelayRefusedError as error:
            if error.retry_after is None:
                self._take_back(readers)
            return False
        relay_key = self._sync.directory.genesis.relay_key
        self._keeping.promised(posted.tag, answer, verify_promise(answer, relay_key, posted.what))
        return True

    def _take_back(self, readers: bytes) -> None:
        """Let a refused receipt be written anew next time, under the newest checkpoint.

        What follows it to the same readers is taken back too, so that no number is left out.
        """
        with self._state.transaction() as connection:
            for posted in self._keeping.unpromised(Kind.RECEIPT):
                if self._readers(posted) != readers:
                    continue
                receipt = Receipt.parse(Signed.parse(posted.data).payload)
                self._keeping.drop(posted.tag)
                self._numbers.take_back(Kind.RECEIPT, readers, receipt.number)
                connection.executemany(
                    "UPDATE inbox SET receipted = 0 WHERE envelope = ?",
                    [(id_,) for id_ in receipt.envelopes],
                )

    async def take(self) -> None:
        """Fetch and keep the receipts of others, as far as the newest checkpoint covers them."""
        newest = self._sync.newest
        for _ in range(PAGES_MAX):
            after = self._state.mark("receipts")
            after = -1 if after is None else after
            page = await self._relay.receipts(after)
            covered = [item for item in page if after < item.leaf_index < newest.size]
            for item in covered:
                await self._take(item, newest)
                self._state.set_mark("receipts", item.leaf_index)
            if not covered or len(covered) < len(page):
                await self._numbers.look(Kind.RECEIPT, newest)
                self._numbers.look_at_answers(newest)
                break

    async def _take(self, item: ReceiptItem, newest: Newest) -> None:
        """Keep a receipt whose place, signature and envelopes hold; else keep an alarm."""
        try:
            # SPEC [B-7]: a receipt received is verified before *stored* is said.
            leaf = receipt_leaf(item.signed.payload)
            await self._log.verify_leaf(leaf, item.leaf_index, newest)
            receipt = verify_receipt(item.signed, self._sync.directory, index=item.leaf_index)
            with self._state.transaction() as connection:
                cores = self._cores(receipt)
                for core in cores:
                    check_confirms(receipt, core)
                    connection.execute(
                        "INSERT OR IGNORE INTO stored VALUES (?, ?, ?, ?, ?)",
                        (
                            core.id,
                            receipt.desk,
                            item.leaf_index,
                            item.signed.payload,
                            item.signed.signature,
                        ),
                    )
                heard = Heard(
                    kind=Kind.RECEIPT,
                    device=receipt.device,
                    readers=readers_of(cores[0], receipt.desk),
                    number=receipt.number,
                    leaf_index=item.leaf_index,
                    signed=item.signed,
                )
                self._numbers.hear(heard, newest)
        except (OfflineError, RelayRefusedError, UnprovenError):
            raise
        except ComityError as error:
            evidence: list[Value] = [item.leaf_index, item.signed.payload, item.signed.signature]
            self._state.alarm("receipt", str(error), evidence, self._now())

    def _cores(self, receipt: Receipt) -> list[Core]:
        """Give the cores of what a receipt names, as far as this desk must know them.

        A sender knows all of them; an auditor knows those that address it.
        """
        found = [self._core(envelope) for envelope in receipt.envelopes]
        known = [core for core in found if core is not None]
        if not known or (known[0].sender == self._own and len(known) < len(found)):
            raise VerificationError("receipt is for an envelope that this desk did not send [Q-1]")
        return known

    def _core(self, envelope: EnvelopeId) -> Core | None:
        """Give the core of an envelope that this desk sent, from any of its devices, or audits."""
        row = self._state.connection.execute(
            "SELECT core FROM inbox WHERE envelope = ? AND sealed_at IS NOT NULL"
            " AND receiver <> ? ORDER BY counter LIMIT 1",
            (envelope, self._own),
        ).fetchone()
        if row is not None:
            return Core.parse(row[0])
        row = self._state.connection.execute(
            "SELECT upload FROM outbox WHERE envelope = ? AND upload IS NOT NULL", (envelope,)
        ).fetchone()
        return None if row is None else Core.parse(Upload.parse(row[0]).core)
