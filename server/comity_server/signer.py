"""The log's signer, which trusts the database no more than a witness does.

It keeps its own memory, in its own file on other storage than the database: the size, the root and
the frontier of what it signed last. Whoever alters or restores the database meets a signer that
remembers; whoever restores both meets the witnesses, whom the signer asks first.

Rules:

* [G-1] The signer re-reads leaf bytes and re-derives the root before it signs.
* [G-2] Its state is durable before it signs.
* [G-3] It never signs a smaller size, or another root for a size.
* [G-4] It asks the witnesses for their size before its first signature after a start, and refuses
  when one of them is ahead of it.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey

from comity_protocol.checkpoint import sign_checkpoint
from comity_protocol.errors import ComityError
from comity_protocol.merkle import Frontier, leaf_hash
from comity_server.store import Store

READ_LEAVES: Final = 4_096
"""Leaves read at once: 135 kB."""


class SignerError(ComityError):
    """The signer will not sign; nothing but an operator's look can change that."""

    code = "internal"
    remedy = "stop the relay and follow the page on a damaged or restored log"


class SignerState:
    """The signer's memory: one row in a SQLite file of its own."""

    def __init__(self, path: Path, origin: str) -> None:
        """Open or create the file.

        Raises:
            SignerError: It is another log's, or cannot be made durable.
        """
        self._origin: Final = origin
        # A cancelled task leaves its thread at work; closing the file under it would be fatal.
        self._lock: Final = threading.Lock()
        self._connection: Final = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=10
        )
        path.chmod(0o600)
        execute = self._connection.execute
        execute("PRAGMA journal_mode=DELETE")
        execute("PRAGMA synchronous=EXTRA")
        execute("PRAGMA fullfsync=ON")
        if execute("PRAGMA synchronous").fetchone() != (3,):
            raise SignerError("signer's file cannot be written durably")
        execute(
            "CREATE TABLE IF NOT EXISTS signer (one INTEGER PRIMARY KEY CHECK (one = 1),"
            " origin TEXT NOT NULL, frontier BLOB NOT NULL) STRICT"
        )
        execute(
            "INSERT INTO signer VALUES (1, ?, ?) ON CONFLICT DO NOTHING",
            (origin, Frontier().serialize()),
        )
        (found,) = execute("SELECT origin FROM signer").fetchone()
        if found != origin:
            raise SignerError("signer's file is another log's; give each log its own")

    def read(self) -> Frontier:
        """Give what was signed last.

        Raises:
            SignerError: The file cannot be read.
        """
        (frontier,) = self._execute("SELECT frontier FROM signer").fetchone()
        return Frontier.parse(frontier)

    def replace(self, old: Frontier, new: Frontier) -> None:
        """Remember ``new``, durably, if what is remembered is still ``old``.

        Raises:
            SignerError: Another process signed meanwhile, or the file cannot be written, as when
                the disk is full; then nothing changed and nothing is signed.
        """
        # SPEC [G-2]: its state is durable before it signs. SQLite has flushed the file and its
        # folder when this returns.
        changed = self._execute(
            "UPDATE signer SET frontier = ? WHERE frontier = ? AND origin = ?",
            new.serialize(),
            old.serialize(),
            self._origin,
        )
        if changed.rowcount != 1:
            raise SignerError("another process has signed with this state; run only one signer")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _execute(self, query: str, *values: bytes | str) -> sqlite3.Cursor:
        # A full disk must not end the relay: nothing is signed until there is room again.
        try:
            with self._lock:
                return self._connection.execute(query, values)
        except sqlite3.Error as error:
            raise SignerError(f"signer's file cannot be used: {error}") from error


class Signer:
    """Signs heads of the log, each a continuation of the last."""

    def __init__(self, state: SignerState, store: Store, key: SigningKey, origin: str) -> None:
        """Put the parts together.

        Args:
            state: The signer's memory.
            store: Where the leaves are; not trusted.
            key: The log's secret key.
            origin: Name of the log.
        """
        self._state: Final = state
        self._store: Final = store
        self._key: Final = key
        self._origin: Final = origin
        self._is_cleared = False

    @property
    def is_cleared(self) -> bool:
        """Whether the witnesses were asked since this process started."""
        return self._is_cleared

    async def probe(self) -> bytes:
        """Give a note with which the witnesses can be asked for their size.

        It states what the signer's memory already holds, so signing it again states nothing new.
        """
        frontier = await asyncio.to_thread(self._state.read)
        return self._sign(frontier)

    async def clear(self, sizes: Collection[int], *, answers_min: int) -> None:
        """Compare with what the witnesses know.

        Args:
            sizes: The size that each witness which answered has cosigned last.
            answers_min: How many answers it takes so that any quorum that ever cosigned has a
                witness among them: all witnesses, less the quorum, plus one.

        Raises:
            SignerError: Too few answered, or one of them is ahead.
        """
        frontier = await asyncio.to_thread(self._state.read)
        # SPEC [G-4]: it asks the witnesses first, and refuses when one of them is ahead of it.
        if len(sizes) < answers_min:
            raise SignerError(
                f"{len(sizes)} witnesses said what they know, expected at least {answers_min};"
                " not signing before"
            )
        if max(sizes, default=0) > frontier.size:
            raise SignerError(
                f"a witness knows {max(sizes):,} leaves and this signer {frontier.size:,};"
                " the signer's file is lost or was restored; not signing"
            )
        self._is_cleared = True

    async def sign(self) -> tuple[int, bytes]:
        """Sign the log's present head, or the last one again when nothing was added.

        Returns:
            Its size and the note, with the log's signature only.

        Raises:
            SignerError: The database does not hold what was signed before, or its leaves do not
                give its root; nothing is signed.
        """
        if not self._is_cleared:
            raise SignerError("the witnesses were not asked yet; not signing")
        head = await self._store.head()
        old = await asyncio.to_thread(self._state.read)
        # SPEC [G-3]: it never signs a smaller size, or another root for a size.
        if head.size < old.size:
            raise SignerError(
                f"database has {head.size:,} leaves and {old.size:,} were signed;"
                " it was restored; not signing"
            )
        new = await self._derive(old, head.size)
        # SPEC [G-1]: the signer re-reads leaf bytes and re-derives the root before it signs. Stops
        # a flipped bit, and whoever can write to the database but not here.
        if new.root != head.root:
            raise SignerError(f"leaves of the database do not give its root at {head.size:,}")
        if new != old:
            await asyncio.to_thread(self._state.replace, old, new)
        return new.size, self._sign(new)

    async def _derive(self, old: Frontier, size: int) -> Frontier:
        frontier = old
        while frontier.size < size:
            count = min(READ_LEAVES, size - frontier.size)
            leaves = await self._store.leaves(frontier.size, count)
            if len(leaves) != count:
                raise SignerError(f"database lacks leaves below {size:,}; not signing")
            frontier = frontier.extend([leaf_hash(leaf) for leaf in leaves])
        return frontier

    def _sign(self, frontier: Frontier) -> bytes:
        return sign_checkpoint(
            origin=self._origin, size=frontier.size, root=frontier.root, key=self._key
        )
