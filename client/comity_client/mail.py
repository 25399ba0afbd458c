"""Fetches the mailbox and receipts, and gives receipts: the inbox's way to and from the relay.

Rules:

* [B-5] *Sealed* is said only of what a checkpoint with its quorum covers. A promise that a later
  checkpoint shows to be broken is an alarm.
* [B-7] A receipt is given for what is stored and opens; one received is verified before *stored*
  is said.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Final

from comity_client.inbox import Checked, Inbox, Stored, commitments_of
from comity_client.keystore import DeviceKeys
from comity_client.relay_answers import ReceiptItem
from comity_client.state import Newest, State
from comity_client.sync import Synchroniser
from comity_client.tiles import LogReader, UnprovenError
from comity_client.transport import OfflineError, RelayClient, RelayRefusedError, Sleep
from comity_protocol.acts import Gossip
from comity_protocol.checkpoint import Checkpoint, note_hash
from comity_protocol.core import Core, core_hash
from comity_protocol.encoding import Value
from comity_protocol.envelope import Upload, verify_core
from comity_protocol.errors import ComityError, VerificationError
from comity_protocol.identifiers import DeskId, EnvelopeId, short
from comity_protocol.leaves import envelope_leaf, receipt_hash, receipt_leaf
from comity_protocol.limits import RECEIPT_IDS_MAX
from comity_protocol.receipts import (
    Receipt,
    Signed,
    check_confirms,
    sign_receipt,
    verify_promise,
    verify_receipt,
)
from comity_protocol.signed_note import verify_ed25519

PAGES_MAX: Final = 100_000
SETTLE_PAGE: Final = 500
WITNESS_WAITS: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between looks for the checkpoint that covers what just arrived; then the next fetch."""


class Mail:
    """One desk's mailbox."""

    def __init__(
        self,
        *,
        state: State,
        relay: RelayClient,
        log: LogReader,
        sync: Synchroniser,
        inbox: Inbox,
        keys: DeviceKeys,
        own: DeskId,
        now: Callable[[], int],
        sleep: Sleep,
    ) -> None:
        """Put the parts together."""
        self._state: Final = state
        self._relay: Final = relay
        self._log: Final = log
        self._sync: Final = sync
        self._inbox: Final = inbox
        self._keys: Final = keys
        self._own: Final = own
        self._now: Final = now
        self._sleep: Final = sleep

    async def fetch(self, wait: int) -> None:
        """Fetch and check what arrived, and give and take receipts.

        1. What the newest checkpoint covers is in the mailbox when the mailbox has been read after
           it; so the checkpoint comes first.
        2. What came later waits a moment for the next checkpoint.
        3. Receipts go out for what opens, and come in for what was sent.

        Args:
            wait: Seconds to wait for the first envelope when there is none.
        """
        # (1)
        await self._sync.run()
        complete = self._sync.newest
        has_new = await self._drain(wait)
        await self._settle()
        # (2)
        for pause in WITNESS_WAITS if has_new else ():
            if not self._inbox.has_unsettled():
                break
            await self._sleep(pause)
            await self._sync.run()
            await self._settle()
        self._look_for_broken_promises(complete)
        # (3)
        await self.give_receipts()
        await self._take_receipts()

    async def _drain(self, wait: int) -> bool:
        """Store what is new in the mailbox; give whether there was anything."""
        after, new = self._inbox.proven, 0
        for _ in range(PAGES_MAX):
            page = await self._relay.mailbox(after, wait=0 if new else wait)
            new += self._inbox.store(page, after)
            if not page or page[-1].counter <= after:
                break
            after = page[-1].counter
        return new > 0

    async def _settle(self) -> None:
        newest, directory = self._sync.newest, self._sync.directory
        for _ in range(PAGES_MAX):
            rows = self._inbox.unsettled(newest.size, SETTLE_PAGE)
            if not rows:
                break
            checked = [await self._check(row, newest) for row in rows]
            for gossip in self._inbox.settle(checked, directory, newest):
                self._hear(gossip)
        await self._compare_gossip(newest)

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
            self._state.alarm("unproven", str(error), [newest.note], self._now())
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

    # --- Gossip -------------------------------------------------------------------------------

    def _hear(self, gossip: Gossip) -> None:
        # Only what the log signed is kept, so that a forgery cannot take the place of the truth.
        genesis = self._sync.directory.genesis
        try:
            checkpoint = Checkpoint(origin=genesis.origin, size=gossip.size, root=gossip.root)
            verify_ed25519(genesis.log, checkpoint.serialize().encode(), gossip.signature)
        except (ComityError, ValueError):
            text = "a sender names a checkpoint that the log did not sign"
            self._state.alarm("gossip", text, _evidence(gossip), self._now())
            return
        with self._state.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO gossip (size, root, signature) VALUES (?, ?, ?)",
                (gossip.size, gossip.root, gossip.signature),
            )

    async def _compare_gossip(self, newest: Newest) -> None:
        """Compare what senders had seen with what this desk was shown [B-1]."""
        rows = self._state.connection.execute(
            "SELECT size, root, signature FROM gossip WHERE is_checked = 0 AND size <= ?",
            (newest.size,),
        ).fetchall()
        for size, root, signature in rows:
            heard = Newest(size=size, root=root, note=b"", sealed_at=0)
            try:
                await self._log.verify_growth(heard, newest)
            except VerificationError:
                text = "log signed another past for another desk than for this one"
                evidence = [*_evidence(Gossip(size, root, signature)), newest.note]
                self._state.alarm("fork", text, evidence, self._now())
            with self._state.transaction() as connection:
                connection.execute(
                    "UPDATE gossip SET is_checked = 1 WHERE size = ? AND root = ?", (size, root)
                )

    # --- Promises -----------------------------------------------------------------------------

    def _look_for_broken_promises(self, complete: Newest) -> None:
        """Compare kept promises with a checkpoint after which the mailbox was read to its end."""
        self._state.set_mark("read_to", complete.sealed_at)
        rows = self._state.connection.execute(
            "SELECT envelope, promise FROM outbox WHERE stage = 'accepted' AND due_at < ?"
            " AND envelope NOT IN (SELECT envelope FROM inbox WHERE sealed_at IS NOT NULL)",
            (complete.sealed_at,),
        ).fetchall()
        for envelope, promise in rows:
            # SPEC [B-5]: a promise that a later checkpoint shows to be broken is an alarm.
            text = f"relay promised to log envelope {short(envelope)} and did not in time"
            evidence: list[Value] = [envelope, promise, complete.note]
            self._state.alarm("broken-promise", text, evidence, self._now())

    # --- Receipts -----------------------------------------------------------------------------

    async def give_receipts(self) -> None:
        """Write receipts for what opens, then hand over all that were not accepted yet."""
        self._write_receipts()
        rows = self._state.connection.execute(
            "SELECT hash, payload, signature FROM receipts WHERE promise IS NULL"
        ).fetchall()
        for hash_, payload, signature in rows:
            await self._give(hash_, Signed(payload, signature))

    def _write_receipts(self) -> None:
        with self._state.transaction() as connection:
            # SPEC [B-7]: a receipt is given for what is stored and opens.
            rows = connection.execute(
                "SELECT sender, envelope, core FROM inbox WHERE receipted = 0 AND opens = 1"
                " AND sender <> ?1 AND receiver = ?1 ORDER BY sender, envelope",
                (self._own,),
            ).fetchall()
            for _, group in groupby(rows, key=lambda row: row[0]):
                held = [(EnvelopeId(row[1]), core_hash(row[2])) for row in group]
                for start in range(0, len(held), RECEIPT_IDS_MAX):
                    signed = self._sign(held[start : start + RECEIPT_IDS_MAX])
                    connection.execute(
                        "INSERT INTO receipts (hash, payload, signature) VALUES (?, ?, ?)",
                        (receipt_hash(signed.payload), signed.payload, signed.signature),
                    )
            connection.execute("UPDATE inbox SET receipted = 1 WHERE receipted = 0 AND opens = 1")

    def _sign(self, held: Iterable[tuple[EnvelopeId, bytes]]) -> Signed:
        receipt = Receipt(
            desk=self._own,
            device=self._keys.device,
            seq=self._sync.directory.desk(self._own).seq,
            held=tuple(held),
            seen=note_hash(self._sync.newest.note),
        )
        return sign_receipt(self._keys.fast, receipt)

    async def _give(self, hash_: bytes, signed: Signed) -> None:
        try:
            promise = await self._relay.post_receipt(signed)
        except RelayRefusedError as error:
            if error.retry_after is None:
                self._take_back(hash_, signed)
            return
        verify_promise(promise, self._sync.directory.genesis.relay_key, hash_)
        with self._state.transaction() as connection:
            connection.execute(
                "UPDATE receipts SET promise = ? WHERE hash = ?", (promise.serialize(), hash_)
            )

    def _take_back(self, hash_: bytes, signed: Signed) -> None:
        """Let a refused receipt be written anew next time, under the newest checkpoint."""
        with self._state.transaction() as connection:
            connection.execute("DELETE FROM receipts WHERE hash = ?", (hash_,))
            connection.executemany(
                "UPDATE inbox SET receipted = 0 WHERE envelope = ?",
                [(id_,) for id_ in Receipt.parse(signed.payload).envelopes],
            )

    async def _take_receipts(self) -> None:
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
                break

    async def _take(self, item: ReceiptItem, newest: Newest) -> None:
        """Keep a receipt whose place, signature and envelopes hold; else keep an alarm."""
        try:
            # SPEC [B-7]: a receipt received is verified before *stored* is said.
            leaf = receipt_leaf(item.signed.payload)
            await self._log.verify_leaf(leaf, item.leaf_index, newest)
            receipt = verify_receipt(item.signed, self._sync.directory, index=item.leaf_index)
            with self._state.transaction() as connection:
                for envelope in receipt.envelopes:
                    check_confirms(receipt, self._sent(envelope))
                    connection.execute(
                        "INSERT OR IGNORE INTO stored VALUES (?, ?, ?, ?, ?)",
                        (
                            envelope,
                            receipt.desk,
                            item.leaf_index,
                            item.signed.payload,
                            item.signed.signature,
                        ),
                    )
        except (OfflineError, RelayRefusedError, UnprovenError):
            raise
        except ComityError as error:
            evidence: list[Value] = [item.leaf_index, item.signed.payload, item.signed.signature]
            self._state.alarm("receipt", str(error), evidence, self._now())

    def _sent(self, envelope: EnvelopeId) -> Core:
        """Give the core of an envelope that this desk sent, from any of its devices."""
        row = self._state.connection.execute(
            "SELECT core FROM inbox WHERE envelope = ? AND sealed_at IS NOT NULL AND sender = ?",
            (envelope, self._own),
        ).fetchone()
        if row is not None:
            return Core.parse(row[0])
        row = self._state.connection.execute(
            "SELECT upload FROM outbox WHERE envelope = ?", (envelope,)
        ).fetchone()
        if row is None:
            raise VerificationError("receipt is for an envelope that this desk did not send [Q-1]")
        return Core.parse(Upload.parse(row[0]).core)


def _evidence(gossip: Gossip) -> list[Value]:
    return [gossip.size, gossip.root, gossip.signature]
