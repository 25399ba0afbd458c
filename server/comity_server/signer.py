"""The log's signer, which trusts neither the database nor the relay more than a witness does.

It keeps its own memory, in its own file on other storage than the database: the size, the root and
the frontier of what it signed last, and the newest entries themselves, so that a database that lost
them can be given them back. Whoever alters or restores the database meets a signer that remembers;
whoever restores both, or loses the signer's file, meets the witnesses.

What the witnesses know is not told but shown: a checkpoint with cosignatures of this moment. A
witness cosigns nothing smaller than what it knows, so who cosigned just now knows no more.

Rules:

* [G-1] The signer re-reads leaf bytes and re-derives the root before it signs.
* [G-2] Its state is durable before it signs.
* [G-3] It never signs a smaller size, or another root for a size.
* [G-4] Before its first signature after a start it wants fresh cosignatures of so many witnesses
  that the others, silent or ahead, make no quorum without them.
* [G-5] Behind what witnesses cosigned, it signs again only after its entries lead to the root of a
  witnessed checkpoint of at least their size.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from nacl.signing import SigningKey

from comity_protocol.checkpoint import (
    Checkpoint,
    cosignatures,
    open_checkpoint,
    sign_checkpoint,
    verify_quorum,
)
from comity_protocol.errors import ComityError
from comity_protocol.leaves import LEAF_BYTES
from comity_protocol.merkle import Frontier, leaf_hash
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import KeyType, VerifierKey
from comity_server.durable import open_durable
from comity_server.store import Head

READ_LEAVES: Final = 4_096
"""Entries read at once: 266 kB."""

KEPT_ENTRIES: Final = 65_536
"""Newest entries in the signer's memory: 4.3 MB."""

FRESH_SECONDS: Final = 2 * 86_400
"""How far a witness's clock may be from the signer's for a cosignature to be of this moment.

A machine whose clock is a day off has to be able to run. An honest relay shows what was made since
it asked, whatever the clocks say; this bounds what a hostile one, which kept old cosignatures, can
do to a signer whose file was restored: head a log that no witness goes along with.
"""


class SignerError(ComityError):
    """The signer will not sign; nothing but an operator's look can change that."""

    code = "internal"
    remedy = "stop the relay and follow the page on a damaged or restored log"


class SignerNotClearedError(SignerError):
    """The witnesses were not asked since the signer started; the relay does that and asks again."""


class LogSigner(Protocol):
    """What the relay asks of the signer, in this process or in its own."""

    async def probe(self) -> bytes:
        """Give a note of what the signer's memory holds."""

    async def entries(self, start: int) -> list[bytes]:
        """Give entries of the signer's memory from ``start`` on."""

    async def clear(self, note: bytes) -> None:
        """Show what the witnesses know."""

    async def sign(self) -> tuple[int, bytes]:
        """Sign the log's present head."""


class Entries(Protocol):
    """Where the signer reads the log: the store, of which it needs no more."""

    async def head(self) -> Head:
        """Where the log stands, which is not trusted."""

    async def leaves(self, start: int, count: int) -> list[bytes]:
        """Entries from ``start``, fewer when the log ends before; not trusted."""


class SignerState:
    """The signer's memory: a SQLite file of its own."""

    def __init__(self, path: Path, origin: str) -> None:
        """Open or create the file.

        Raises:
            SignerError: It is another log's, or cannot be made durable.
        """
        self._origin: Final = origin
        # A cancelled task leaves its thread at work; closing the file under it would be fatal.
        self._lock: Final = threading.Lock()
        try:
            self._connection: Final = open_durable(path)
            found = self._prepare()
        except sqlite3.Error as error:
            raise _unusable(error) from error
        if found != origin:
            raise SignerError("signer's file is another log's; give each log its own")

    def _prepare(self) -> str:
        """Make the file whole; give whose log's it is."""
        execute = self._connection.execute
        execute(
            "CREATE TABLE IF NOT EXISTS signer (one INTEGER PRIMARY KEY CHECK (one = 1),"
            " origin TEXT NOT NULL, frontier BLOB NOT NULL) STRICT"
        )
        execute(
            "CREATE TABLE IF NOT EXISTS entries (first INTEGER PRIMARY KEY, data BLOB NOT NULL)"
            " STRICT"
        )
        execute(
            "INSERT INTO signer VALUES (1, ?, ?) ON CONFLICT DO NOTHING",
            (self._origin, Frontier().serialize()),
        )
        (found,) = execute("SELECT origin FROM signer").fetchone()
        return str(found)

    def read(self) -> Frontier:
        """Give what was signed last.

        Raises:
            SignerError: The file cannot be read.
        """
        with self._lock:
            try:
                (frontier,) = self._connection.execute("SELECT frontier FROM signer").fetchone()
            except sqlite3.Error as error:
                raise _unusable(error) from error
        return Frontier.parse(frontier)

    def entries(self, start: int) -> list[bytes]:
        """Give up to ``READ_LEAVES`` of the newest entries; none when ``start`` is not kept.

        Raises:
            SignerError: The file cannot be read.
        """
        with self._lock:
            try:
                found = self._connection.execute(
                    "SELECT first, data FROM entries WHERE first <= ? ORDER BY first DESC LIMIT 1",
                    (start,),
                ).fetchone()
            except sqlite3.Error as error:
                raise _unusable(error) from error
        if found is None:
            return []
        first, data = found
        return _split(data[(start - first) * LEAF_BYTES :][: READ_LEAVES * LEAF_BYTES])

    def replace(self, old: Frontier, new: Frontier, newest: Sequence[bytes] = ()) -> None:
        """Remember ``new``, durably, if what is remembered is still ``old``.

        Args:
            old: What ``read`` gave.
            new: A continuation of it.
            newest: The last entries of ``new``, so many as are known.

        Raises:
            SignerError: Another process signed meanwhile, or the file cannot be written, as when
                the disk is full; then nothing changed and nothing is signed.
        """
        kept = newest[-KEPT_ENTRIES:]
        # A full disk must not end the relay: nothing is signed until there is room again.
        with self._lock:
            try:
                is_done = self._replace(old, new, kept)
            except sqlite3.Error as error:
                raise _unusable(error) from error
        if not is_done:
            raise SignerError("another process has signed with this state; run only one signer")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _replace(self, old: Frontier, new: Frontier, kept: Sequence[bytes]) -> bool:
        # SPEC [G-2]: its state is durable before it signs. SQLite has flushed the file and its
        # folder when this returns.
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            changed = execute(
                "UPDATE signer SET frontier = ? WHERE frontier = ? AND origin = ?",
                (new.serialize(), old.serialize(), self._origin),
            )
            for at in range(0, len(kept), READ_LEAVES):
                data = b"".join(kept[at : at + READ_LEAVES])
                execute(
                    "INSERT OR REPLACE INTO entries VALUES (?, ?)",
                    (new.size - len(kept) + at, data),
                )
            execute("DELETE FROM entries WHERE first < ?", (new.size - KEPT_ENTRIES,))
            is_done = changed.rowcount == 1
            execute("COMMIT" if is_done else "ROLLBACK")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise
        return is_done


class Signer:
    """Signs heads of the log, each a continuation of the last."""

    def __init__(
        self,
        state: SignerState,
        store: Entries,
        key: SigningKey,
        *,
        origin: str,
        quorum: Quorum,
        clock: Callable[[], float],
    ) -> None:
        """Put the parts together.

        Args:
            state: The signer's memory.
            store: Where the leaves are; not trusted.
            key: The log's secret key.
            origin: Name of the log.
            quorum: Of the genesis.
            clock: Seconds since 1970 UTC.
        """
        self._state: Final = state
        self._store: Final = store
        self._key: Final = key
        self._log: Final = VerifierKey(origin, KeyType.ED25519, bytes(key.verify_key))
        self._quorum: Final = quorum
        self._clock: Final = clock
        self._lock: Final = asyncio.Lock()
        self._is_cleared = False

    async def probe(self) -> bytes:
        """Give a note of what the signer's memory holds, for the witnesses to cosign again.

        It states what was signed before, so signing it again states nothing new.
        """
        return self._sign(await asyncio.to_thread(self._state.read))

    async def entries(self, start: int) -> list[bytes]:
        """Give entries of the signer's memory from ``start`` on; none when it has not kept them."""
        return await asyncio.to_thread(self._state.entries, start)

    async def clear(self, note: bytes) -> None:
        """Compare with what the witnesses know.

        1. The checkpoint is not older than the memory.
        2. Witnesses cosigned it just now, and those who did not make no quorum by themselves: so
           no quorum knows more. One that is ahead cannot cosign, so it is among the others; what
           it says is a number that anybody on the way can say, and is not asked for.
        3. It is what the memory holds; or a quorum cosigned it and the database leads from the
           memory to it, and the memory moves there.

        Stops: a relay that goes on from a restored or lost memory, and one that says of the
        witnesses what suits it.

        Args:
            note: From ``probe``, or the newest witnessed checkpoint when the memory is behind it;
                with the cosignatures that witnesses have just made.

        Raises:
            SignerError: One of this does not hold; nothing will be signed.
        """
        async with self._lock:
            old = await asyncio.to_thread(self._state.read)
            try:
                checkpoint = open_checkpoint(note, self._log)
                self._require_no_quorum_ahead(note, checkpoint, old)
                await self._reach(note, checkpoint, old)
            except SignerError:
                raise
            except ComityError as error:
                raise SignerError(f"what the witnesses know is not shown: {error}") from error
            self._is_cleared = True

    async def sign(self) -> tuple[int, bytes]:
        """Sign the log's present head, or the last one again when nothing was added.

        Returns:
            Its size and the note, with the log's signature only.

        Raises:
            SignerNotClearedError: The witnesses were not asked yet.
            SignerError: The database does not hold what was signed before, or its leaves do not
                give its root; nothing is signed.
        """
        async with self._lock:
            if not self._is_cleared:
                raise SignerNotClearedError("the witnesses were not asked yet; not signing")
            head = await self._store.head()
            old = await asyncio.to_thread(self._state.read)
            # SPEC [G-3]: it never signs a smaller size, or another root for a size.
            if head.size < old.size:
                raise SignerError(
                    f"database has {head.size:,} leaves and {old.size:,} were signed;"
                    " it was restored; not signing"
                )
            new, newest = await self._derive(old, head.size)
            # SPEC [G-1]: the signer re-reads leaf bytes and re-derives the root before it signs.
            # Stops a flipped bit, and whoever can write to the database but not here.
            if new.root != head.root:
                raise SignerError(f"leaves of the database do not give its root at {head.size:,}")
            if new != old:
                await asyncio.to_thread(self._state.replace, old, new, newest)
            return new.size, self._sign(new)

    def _require_no_quorum_ahead(self, note: bytes, checkpoint: Checkpoint, old: Frontier) -> None:
        # (1)
        if checkpoint.size < old.size:
            raise SignerError(
                f"was shown a checkpoint of {checkpoint.size:,} leaves and has signed {old.size:,};"
                " not signing"
            )
        # (2)
        now = self._clock()
        fresh = {
            line.witness
            for line in cosignatures(note, self._quorum.witnesses)
            if abs(line.time - now) <= FRESH_SECONDS
        }
        silent = {key.name for key in self._quorum.witnesses} - fresh
        # SPEC [G-4]: it wants fresh cosignatures of so many witnesses that none is left to make a
        # quorum without them.
        if self._quorum.is_met(silent):
            raise SignerError(
                f"{len(fresh)} of {len(fresh) + len(silent)} witnesses cosigned within"
                f" {FRESH_SECONDS // 86_400} days of this machine's clock, too few to know that no"
                " quorum is ahead; look at the witnesses and at the clock; not signing before"
            )

    async def _reach(self, note: bytes, checkpoint: Checkpoint, old: Frontier) -> None:
        # (3)
        if checkpoint.size == old.size:
            # SPEC [G-3]: it never signs another root for a size.
            if checkpoint.root != old.root:
                raise SignerError(f"the log key has signed two roots of size {old.size:,}")
            return
        # SPEC [G-5]: behind what witnesses cosigned, it signs again only after its entries lead to
        # the root of a witnessed checkpoint of at least their size.
        verify_quorum(note, self._log, self._quorum)
        new, newest = await self._derive(old, checkpoint.size)
        if new.root != checkpoint.root:
            raise SignerError(
                f"leaves of the database do not lead to the witnessed root at {checkpoint.size:,}"
            )
        await asyncio.to_thread(self._state.replace, old, new, newest)

    async def _derive(self, old: Frontier, size: int) -> tuple[Frontier, list[bytes]]:
        """Read on to a size; give the frontier there and the newest entries."""
        frontier = old
        newest: list[bytes] = []
        while frontier.size < size:
            count = min(READ_LEAVES, size - frontier.size)
            leaves = await self._store.leaves(frontier.size, count)
            if len(leaves) != count:
                raise SignerError(f"database lacks leaves below {size:,}; not signing")
            if any(len(leaf) != LEAF_BYTES for leaf in leaves):
                raise SignerError(f"database has a leaf below {size:,} that is no entry")
            frontier = frontier.extend([leaf_hash(leaf) for leaf in leaves])
            newest = [*newest, *leaves][-KEPT_ENTRIES:]
        return frontier, newest

    def _sign(self, frontier: Frontier) -> bytes:
        return sign_checkpoint(
            origin=self._log.name, size=frontier.size, root=frontier.root, key=self._key
        )


def _unusable(error: sqlite3.Error) -> SignerError:
    return SignerError(f"signer's file cannot be used: {error}")


def _split(data: bytes) -> list[bytes]:
    return [data[at : at + LEAF_BYTES] for at in range(0, len(data), LEAF_BYTES)]
