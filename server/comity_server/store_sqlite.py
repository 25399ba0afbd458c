"""The store in an SQLite file: one process or a few on one host, nothing to administer.

One thread writes, over one connection; a few others read, each over its own, and never wait for the
writer. A transaction that writes begins as the only one (BEGIN IMMEDIATE), so it waits for others
here and in other processes before it has read anything, and the locks of ``store_sql`` are nothing
more to take. A whole transaction runs in its thread without coming back to the event loop; when its
caller is cancelled it still ends whole [R-1].

What is deleted is overwritten with zeros where it stood, and stays in the write-ahead log until
that is emptied [H-5].
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields
from time import sleep
from typing import Any, Final, TypeVar, cast

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Connection,
    Engine,
    Table,
    bindparam,
    create_engine,
    event,
    exists,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from comity_server import tables
from comity_server.store import Head, Row, StoreUnavailableError, UnsafeStoreError
from comity_server.store_growth import Standing, Step, grow, mailboxes_of
from comity_server.store_sql import SqlStore, Work, create_tables, inserted_columns, rows_of

READERS: Final = 4

# How often, and after how long each time, a new connection asks for its settings again.
_OPEN_TRIES_MAX: Final = 1_000
_OPEN_SECONDS: Final = 0.01

# The bits of a result code that do not say more precisely why.
_PRIMARY_CODE: Final = 0xFF

# How long a transaction waits for another process before it gives up.
_LOCK_SECONDS_MAX: Final = 10

# How long emptying the write-ahead log waits for readers, while nobody can write.
_SCRUB_MILLISECONDS_MAX: Final = 200

_SETTINGS: Final = (
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("fullfsync", "ON", 1),
    ("checkpoint_fullfsync", "ON", 1),
    # SPEC [H-5]: after an erasure the relay does not hold it, so freed space is zeroed.
    ("secure_delete", "ON", 1),
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
        # Only the writer thread touches it.
        self._standing: Standing | None = None
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

    async def scrub(self) -> bool:
        """See ``Store.scrub``."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._writer, self._scrub_now)
        except (sqlite3.Error, SQLAlchemyError) as error:
            raise StoreUnavailableError.of(error) from error

    def _scrub_now(self) -> bool:
        """Put what the write-ahead log holds in its place and empty it; runs in the writer."""
        with closing(self._writing.raw_connection()) as pooled:
            driver = cast("sqlite3.Connection", pooled.driver_connection)
            driver.execute(f"PRAGMA busy_timeout = {_SCRUB_MILLISECONDS_MAX}")
            try:
                (is_busy, _, _) = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                driver.execute(f"PRAGMA busy_timeout = {1_000 * _LOCK_SECONDS_MAX}")
        return not is_busy

    async def _add(self, rows: Sequence[Row], statements: int, erasures: int | None) -> Step | None:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._writer, self._add_now, rows, statements, erasures
            )
        except sqlite3.IntegrityError:
            return None  # A key is there already.
        except (sqlite3.Error, SQLAlchemyError) as error:
            raise StoreUnavailableError.of(error) from error

    def _add_now(self, rows: Sequence[Row], statements: int, erasures: int | None) -> Step | None:
        """Add rows over the driver itself; runs in the writer thread."""
        with closing(self._writing.raw_connection()) as pooled:
            driver = cast("sqlite3.Connection", pooled.driver_connection)
            driver.execute("BEGIN IMMEDIATE")
            try:
                step = self._write_now(driver, rows, statements, erasures)
                driver.execute("ROLLBACK" if step is None else "COMMIT")
            except BaseException:
                if driver.in_transaction:
                    driver.execute("ROLLBACK")
                raise
        if step is not None and self._standing is not None:
            self._standing = self._standing.after(step)
        return step

    def _write_now(
        self,
        driver: sqlite3.Connection,
        rows: Sequence[Row],
        statements: int,
        erasures: int | None,
    ) -> Step | None:
        (is_pending, *columns) = driver.execute(_READ_HEAD).fetchone()
        head = Head(*columns)
        if is_pending or head.statements != statements or erasures not in (None, head.erasures):
            return None
        if self._standing is None or self._standing.head != head:
            self._standing = Standing.at(head)
        counters = self._standing.counters
        for desk in mailboxes_of(rows) - counters.keys():
            found = driver.execute(_READ_COUNTER, (desk,)).fetchone()
            counters[desk] = 0 if found is None else found[0]
        step = grow(head, self._standing.frontier, counters, rows)
        for table, values in rows_of(step):
            driver.executemany(_INSERTS[table], values)
        driver.execute(_MOVE_HEAD, (step.head.size, step.head.root, step.head.frontier))
        return step

    def _among(self, column: ColumnElement[Any], values: Sequence[object]) -> ColumnElement[bool]:
        # SQLAlchemy looks at each value of a list, but takes those of one parameter as they are.
        return column.in_(bindparam(None, list(values), expanding=True, type_=column.type))


def _compile(query: ClauseElement, columns: Sequence[str] | None = None) -> str:
    """Write a query of the schema's once, as the driver takes it."""
    return str(query.compile(dialect=sqlite.dialect(), column_keys=columns))


def _inserting(table: Table) -> str:
    query = sqlite.insert(table)
    if table is tables.mailboxes:
        counter = {"counter": query.excluded.counter}
        query = query.on_conflict_do_update(index_elements=[table.c.desk], set_=counter)
    return _compile(query, [column.name for column in inserted_columns(table)])


_INSERTS: Final = {table: _inserting(table) for table in tables.metadata.sorted_tables}
"""For rows given as tuples, which the driver takes as they are and SQLAlchemy would take apart."""

_READ_HEAD: Final = _compile(
    select(
        exists(select(tables.pending.c.arrival)) | exists(select(tables.repair.c.one)),
        *(tables.head.c[field.name] for field in fields(Head)),
    )
)
_READ_COUNTER: Final = _compile(
    select(tables.mailboxes.c.counter).where(tables.mailboxes.c.desk == bindparam("desk"))
)
_MOVE_HEAD: Final = _compile(update(tables.head), ["size", "root", "frontier"])


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
