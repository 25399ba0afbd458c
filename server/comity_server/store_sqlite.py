"""The store in an SQLite file: one process or a few on one host, nothing to administer.

One thread writes, over one connection; a few others read, each over its own, and never wait for the
writer. A transaction that writes begins as the only one (BEGIN IMMEDIATE), so it waits for others
here and in other processes before it has read anything, and the locks of ``store_sql`` are nothing
more to take. A whole transaction runs in its thread without coming back to the event loop; when its
caller is cancelled it still ends whole [R-1].
"""

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any, Final, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Table,
    bindparam,
    create_engine,
    event,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from comity_server import tables
from comity_server.store import UnsafeStoreError
from comity_server.store_sql import SqlStore, Work, create_tables, inserted_columns

READERS: Final = 4

# How often, and after how long each time, a new connection asks for its settings again.
_OPEN_TRIES_MAX: Final = 1_000
_OPEN_SECONDS: Final = 0.01

# The bits of a result code that do not say more precisely why.
_PRIMARY_CODE: Final = 0xFF

# How long a transaction waits for another process before it gives up.
_LOCK_SECONDS_MAX: Final = 10

_SETTINGS: Final = (
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("fullfsync", "ON", 1),
    ("checkpoint_fullfsync", "ON", 1),
)
"""Name, what is asked for, and how the answer looks when it holds."""

Result = TypeVar("Result")


class SqliteStore(SqlStore):
    """``Store`` over one SQLite file."""

    def __init__(self, url: URL) -> None:
        """Take the address of a file, ``sqlite:///relative`` or ``sqlite:////absolute``.

        Raises:
            UnsafeStoreError: The address names no file, so everything would be in memory [R-4].
        """
        if not url.database or url.database == ":memory:" or url.query:
            raise UnsafeStoreError(f"store address is {url}, expected sqlite:/// and a file's path")
        self._writing = _create_engine(url, connections=1, begin="BEGIN IMMEDIATE")
        self._reading = _create_engine(url, connections=READERS, begin="BEGIN")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")

    async def open(self) -> None:
        """See ``Store.open``."""
        await self._change(create_tables)

    async def close(self) -> None:
        """See ``Store.close``."""
        for threads, engine in ((self._writer, self._writing), (self._readers, self._reading)):
            await asyncio.to_thread(threads.shutdown)
            engine.dispose()

    async def _transact(self, work: Work[Result]) -> Result:
        return await _run(self._writer, self._writing, work)

    async def _read(self, work: Work[Result]) -> Result:
        return await _run(self._readers, self._reading, work)

    def _may_repeat(self, error: SQLAlchemyError) -> bool:
        # The writer is alone from before it reads until it commits.
        return False

    def _share_directory(self, connection: Connection) -> None:
        """Nothing to do: the transaction was begun as the only one."""

    def _hold_directory(self, connection: Connection) -> None:
        """Nothing to do: the transaction was begun as the only one."""

    def _insert(
        self, connection: Connection, table: Table, rows: Sequence[tuple[object, ...]]
    ) -> None:
        if rows:
            connection.exec_driver_sql(_INSERTS[table], list(rows))

    def _advance(self, connection: Connection, amounts: Mapping[bytes, int]) -> dict[bytes, int]:
        connection.exec_driver_sql(_ADVANCE, list(amounts.items()))
        mailboxes = tables.mailboxes
        counters = select(mailboxes).where(self._among(mailboxes.c.desk, list(amounts)))
        return {row.desk: row.counter for row in connection.execute(counters)}

    def _among(self, column: ColumnElement[Any], values: Sequence[object]) -> ColumnElement[bool]:
        # SQLAlchemy looks at each value of a list, but takes those of one parameter as they are.
        return column.in_(bindparam(None, list(values), expanding=True, type_=column.type))


_INSERTS: Final = {
    table: str(
        table.insert().compile(
            dialect=sqlite.dialect(),
            column_keys=[column.name for column in inserted_columns(table)],
        )
    )
    for table in tables.metadata.sorted_tables
}
"""For rows given as tuples, which the driver takes as they are and SQLAlchemy would take apart."""


_ADVANCE: Final = (
    "INSERT INTO mailboxes (desk, counter) VALUES (?, ?) "
    "ON CONFLICT (desk) DO UPDATE SET counter = counter + excluded.counter"
)


async def _run(threads: ThreadPoolExecutor, engine: Engine, work: Work[Result]) -> Result:
    def transaction() -> Result:
        with engine.begin() as connection:
            return work(connection)

    return await asyncio.get_running_loop().run_in_executor(threads, transaction)


def _create_engine(url: URL, *, connections: int, begin: str) -> Engine:
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite"),
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        connect_args={"timeout": _LOCK_SECONDS_MAX},
        hide_parameters=True,  # Rows hold other offices' identifiers, which a log must not show.
    )
    event.listen(engine, "connect", make_safe)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def make_safe(connection: sqlite3.Connection, _: object) -> None:
    """Set what makes a commit durable on a new connection, and check that it is set.

    Raises:
        UnsafeStoreError: The file cannot be put in a mode in which commits last [R-4].
    """
    connection.isolation_level = None  # SQLAlchemy's events begin transactions, not the driver.
    # SPEC: the relay refuses to start on database settings that can lose what it promised.
    # A write-ahead log that is flushed at each commit loses nothing when the power fails; the full
    # flushes are for macOS, whose plain one does not reach the disk.
    for setting, wanted, effective in _SETTINGS:
        _set_patiently(connection, f"PRAGMA {setting} = {wanted}")
        (got,) = connection.execute(f"PRAGMA {setting}").fetchone()
        if got != effective:
            raise UnsafeStoreError(f"sqlite {setting} is {got}, expected {wanted}")


def _set_patiently(connection: sqlite3.Connection, query: str) -> None:
    """Run a query that SQLite refuses at once, without waiting, while another one opens the file.

    Raises:
        sqlite3.OperationalError: It was still refused after 10 seconds, or for another reason.
    """
    for tries_left in range(_OPEN_TRIES_MAX, -1, -1):
        try:
            connection.execute(query)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY or tries_left == 0:
                raise
            sleep(_OPEN_SECONDS)
        else:
            return
