"""Which copies desks had erased, kept apart from the database, so that a restore erases again.

A file of its own, beside the signer's: whoever puts an older database back does not put back what
was erased, because every start carries all tombstones out before anything is served. Tombstones are
only ever added. One is *unsettled* until its erasure is committed. A desk may have taken a hold
since a commit that failed, through another process, so until then it is carried out only where
there is none. Copies that only grew old need no tombstone: the retention job finds them again by
their age.

Rules:

* [R-18] Erasures are carried out again after a restore.
* [H-4] What is on hold is not erased by any desk: neither by an erasure that never was committed.
"""

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from comity_protocol.errors import ComityError
from comity_server.durable import open_durable
from comity_server.store import ERASED_COPIES_MAX, Copy, Store

ROUNDS_MAX: Final = 1_000_000
"""Pages of tombstones that one start carries out."""


class TombstonesError(ComityError):
    """The file of tombstones cannot be used; nothing is erased without it."""

    code: ClassVar[str] = "internal"
    remedy: ClassVar[str] = "look at the file that the setting tombstones names, and at its disk"


class Tombstones:
    """The file. Safe to use from any thread, and from several processes on one host."""

    def __init__(self, path: Path) -> None:
        """Open or create it.

        Raises:
            TombstonesError: It cannot be written, or not durably.
        """
        self._lock: Final = threading.Lock()
        try:
            self._connection: Final = open_durable(path)
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS tombstones (envelope BLOB NOT NULL, desk BLOB NOT NULL,"
                " PRIMARY KEY (envelope, desk)) STRICT, WITHOUT ROWID"
            )
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS unsettled (envelope BLOB NOT NULL, desk BLOB NOT NULL,"
                " PRIMARY KEY (envelope, desk)) STRICT, WITHOUT ROWID"
            )
        except (sqlite3.Error, OSError) as error:
            raise TombstonesError(f"file of tombstones {path} cannot be used: {error}") from error

    def add(self, copies: Sequence[Copy]) -> None:
        """Add copies, unsettled; they are on disk when this returns. One that is there stays.

        Raises:
            TombstonesError: They could not be written; none of them counts.
        """
        try:
            with self._lock, self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(
                    "INSERT INTO unsettled SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM tombstones"
                    " WHERE envelope = ?1 AND desk = ?2) ON CONFLICT DO NOTHING",
                    copies,
                )
                self._connection.executemany(
                    "INSERT INTO tombstones VALUES (?, ?) ON CONFLICT DO NOTHING", copies
                )
        except sqlite3.Error as error:
            raise TombstonesError(f"file of tombstones cannot be used: {error}") from error

    def settle(self, copies: Sequence[Copy]) -> None:
        """Take notice that the erasure of these copies was committed.

        Raises:
            TombstonesError: It could not be written; they stay unsettled.
        """
        try:
            with self._lock, self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(
                    "DELETE FROM unsettled WHERE envelope = ? AND desk = ?", copies
                )
        except sqlite3.Error as error:
            raise TombstonesError(f"file of tombstones cannot be used: {error}") from error

    def unsettled(self) -> frozenset[Copy]:
        """Give the copies whose erasure may never have been committed; they are few."""
        try:
            with self._lock:
                found = self._connection.execute("SELECT envelope, desk FROM unsettled")
                return frozenset(Copy(*row) for row in found)
        except sqlite3.Error as error:
            raise TombstonesError(f"file of tombstones cannot be used: {error}") from error

    def page(self, after: Copy | None, limit: int) -> list[Copy]:
        """Give tombstones in their own order, after one of them; None for the first."""
        start = Copy(b"", b"") if after is None else after
        try:
            with self._lock:
                found = self._connection.execute(
                    "SELECT envelope, desk FROM tombstones WHERE (envelope, desk) > (?, ?)"
                    " ORDER BY envelope, desk LIMIT ?",
                    (*start, limit),
                )
                return [Copy(*row) for row in found]
        except sqlite3.Error as error:
            raise TombstonesError(f"file of tombstones cannot be used: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


async def carry_out(tombstones: Tombstones, store: Store) -> int:
    """Erase whatever has a tombstone; give how many copies were still there.

    It belongs before everything that serves: at a start, and after rows were brought back.

    Raises:
        TombstonesError: The file cannot be read.
        StoreError: The database failed; call it again.
    """
    unsettled = tombstones.unsettled()
    last: Copy | None = None
    erased = 0
    for _ in range(ROUNDS_MAX):
        page = tombstones.page(last, ERASED_COPIES_MAX)
        if not page:
            break
        # SPEC: erasures are carried out again after a restore.
        erased += await store.erase([copy for copy in page if copy not in unsettled])
        # SPEC [H-4]: what is on hold is not erased by any desk.
        unsure = [copy for copy in page if copy in unsettled]
        if unsure:
            erased += await store.erase(unsure, but_for_held=True)
        last = page[-1]
    return erased
