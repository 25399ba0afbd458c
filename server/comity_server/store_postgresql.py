"""The store in PostgreSQL: any number of workers on any number of hosts.

Locks are taken in one order, the directory's before the log's, so that nobody waits in a circle.
The directory's is an advisory lock because those queue fairly: the removal of an officer is not
kept waiting by an unending stream of senders who share it. The log's is the ``head`` row itself.
Transactions are READ COMMITTED: each statement sees what was committed before it began, so what is
read after a lock was waited for is what the other one left.

Many rows go in by one statement over arrays, one array a column, which is the same statement
whatever their number and is prepared once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    LargeBinary,
    Table,
    bindparam,
    event,
    func,
    insert,
    literal,
    select,
    text,
)
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from comity_server import tables
from comity_server.store import UnsafeStoreError
from comity_server.store_sql import SqlStore, Work, create_tables, inserted_columns

Result = TypeVar("Result")

# Apart, so that no crowd of readers keeps what was accepted from being stored.
WRITERS: Final = 3
READERS: Final = 6
_CONNECTION_SECONDS_MAX: Final = 10

# Longer than the server's own bound below, which gives the better error.
_ANSWER_SECONDS_MAX: Final = 40

# Bounds of the server's, so that a worker that froze or lost its network lets go of the head row.
_SESSION: Final = {
    "application_name": "comity-relay",
    "lock_timeout": "10s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",
}

# Advisory locks share one space in a database, which belongs to the relay alone.
_DIRECTORY_LOCK: Final = 0x636F6D69
_SHARE_DIRECTORY: Final = text(f"SELECT pg_advisory_xact_lock_shared({_DIRECTORY_LOCK})")
_HOLD_DIRECTORY: Final = text(f"SELECT pg_advisory_xact_lock({_DIRECTORY_LOCK})")

_COMMIT: Final = "synchronous_commit"
_SAFE: Final = {
    "fsync": {"on"},
    "full_page_writes": {"on"},
    _COMMIT: {"on", "remote_apply"},
    "transaction_read_only": {"off"},
}
"""Settings that must hold one of some values; the last one is that of a server that may write."""

# Another transaction was first: unique_violation, serialization_failure, deadlock_detected.
_CONFLICTS: Final = {"23505", "40001", "40P01"}


class PostgresqlStore(SqlStore):
    """``Store`` over one PostgreSQL database."""

    def __init__(self, url: URL) -> None:
        """Take the address ``postgresql+asyncpg://user@host/database``."""
        self._writing = _create_engine(url, connections=WRITERS, isolation="READ COMMITTED")
        self._reading = _create_engine(url, connections=READERS, isolation="AUTOCOMMIT")

    async def open(self) -> None:
        """See ``Store.open``."""
        await self._change(_create_tables)

    async def close(self) -> None:
        """See ``Store.close``."""
        await self._writing.dispose()
        await self._reading.dispose()

    async def _transact(self, work: Work[Result]) -> Result:
        async with self._writing.begin() as connection:
            return await connection.run_sync(work)

    async def _read(self, work: Work[Result]) -> Result:
        async with self._reading.connect() as connection:
            return await connection.run_sync(work)

    def _may_repeat(self, error: SQLAlchemyError) -> bool:
        return isinstance(error, DBAPIError) and (
            # The server was started anew; what is in the pool from before is thrown away.
            error.connection_invalidated or getattr(error.orig, "sqlstate", "") in _CONFLICTS
        )

    def _share_directory(self, connection: Connection) -> None:
        connection.execute(_SHARE_DIRECTORY)

    def _hold_directory(self, connection: Connection) -> None:
        connection.execute(_HOLD_DIRECTORY)

    def _insert(
        self, connection: Connection, table: Table, rows: Sequence[tuple[object, ...]]
    ) -> None:
        if rows:
            columns = tuple(map(list, zip(*rows, strict=True)))
            connection.exec_driver_sql(_INSERTS[table], columns)

    def _advance(self, connection: Connection, amounts: Mapping[bytes, int]) -> dict[bytes, int]:
        rows = connection.execute(
            _ADVANCE, {"desk": list(amounts), "counter": list(amounts.values())}
        )
        return {row.desk: row.counter for row in rows}

    def _among(self, column: ColumnElement[Any], values: Sequence[object]) -> ColumnElement[bool]:
        return column == func.any(literal(list(values), ARRAY(column.type)))


def _from_arrays(table: Table) -> str:
    """Insert as many rows as the arrays, one for each column, have items."""
    columns = inserted_columns(table)
    arrays = [func.unnest(bindparam(column.name, type_=ARRAY(column.type))) for column in columns]
    query = insert(table).from_select([column.name for column in columns], select(*arrays))
    return str(query.compile(dialect=URL.create("postgresql+asyncpg").get_dialect()()))


_INSERTS: Final = {table: _from_arrays(table) for table in tables.metadata.sorted_tables}
"""For arrays that the driver takes as they are and SQLAlchemy would look through."""

_ADVANCE: Final = text(
    "INSERT INTO mailboxes (desk, counter) SELECT unnest(:desk), unnest(:counter) "
    "ON CONFLICT (desk) DO UPDATE SET counter = mailboxes.counter + excluded.counter "
    "RETURNING desk, counter"
).bindparams(
    bindparam("desk", type_=ARRAY(LargeBinary)), bindparam("counter", type_=ARRAY(BigInteger))
)


def _create_engine(url: URL, *, connections: int, isolation: str) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=_CONNECTION_SECONDS_MAX,
        isolation_level=isolation,
        connect_args={
            "timeout": _CONNECTION_SECONDS_MAX,
            "command_timeout": _ANSWER_SECONDS_MAX,
            "server_settings": _SESSION,
        },
        hide_parameters=True,  # Rows hold other offices' identifiers, which a log must not show.
    )
    event.listen(engine.sync_engine, "connect", _make_safe)
    return engine


def _make_safe(connection: DBAPIConnection, _: object) -> None:
    """Check a new connection, and pin what makes its commits durable; close it when it is unsafe.

    Raises:
        UnsafeStoreError: A setting can lose committed rows [R-4].
    """
    try:
        _require_safe(connection)
        # Later changes of the server's configuration do not reach this session any more.
        cursor = connection.cursor()
        cursor.execute(f"SET SESSION synchronous_commit = {_show(connection, _COMMIT)}")
        cursor.close()
        connection.commit()  # A setting is undone with the transaction that set it.
    except BaseException:
        connection.close()
        raise


def _require_safe(connection: DBAPIConnection) -> None:
    # SPEC: the relay refuses to start on database settings that can lose what it promised.
    # Asked on each new connection, because a role's or database's settings may change meanwhile.
    for setting, safe in _SAFE.items():
        value = _show(connection, setting)
        if value not in safe:
            expected = " or ".join(sorted(safe))
            raise UnsafeStoreError(f"postgresql {setting} is {value}, expected {expected}")


def _show(connection: DBAPIConnection, setting: str) -> str:
    cursor = connection.cursor()
    cursor.execute(f"SHOW {setting}")
    value: str = cursor.fetchall()[0][0]
    cursor.close()
    return value


def _create_tables(connection: Connection) -> None:
    connection.execute(_HOLD_DIRECTORY)
    create_tables(connection)
