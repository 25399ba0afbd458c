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
    Insert,
    LargeBinary,
    Table,
    bindparam,
    event,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from comity_server import tables
from comity_server.store import StoreUnavailableError, UnsafeStoreError
from comity_server.store_sql import SqlStore, Work, create_tables, inserted_columns

Result = TypeVar("Result")

CONNECTIONS: Final = 8
_CONNECTION_SECONDS_MAX: Final = 10

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

_SAFE: Final = {
    "fsync": {"on"},
    "full_page_writes": {"on"},
    "synchronous_commit": {"on", "remote_apply"},
    "transaction_read_only": {"off"},
}
"""Settings that must hold one of some values; the last one is that of a server that may write."""

# Another transaction was first: unique_violation, serialization_failure, deadlock_detected.
_CONFLICTS: Final = {"23505", "40001", "40P01"}


class PostgresqlStore(SqlStore):
    """``Store`` over one PostgreSQL database."""

    def __init__(self, url: URL) -> None:
        """Take the address ``postgresql+asyncpg://user@host/database``."""
        self._engine = _create_engine(url)

    async def open(self) -> None:
        """See ``Store.open``."""
        await self._change(_create_tables)

    async def close(self) -> None:
        """See ``Store.close``."""
        await self._engine.dispose()

    async def _transact(self, work: Work[Result]) -> Result:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def _ask(self, work: Work[Result]) -> Result:
        try:
            return await self._transact(work)
        except SQLAlchemyError as error:
            raise StoreUnavailableError.of(error) from error

    def _is_conflict(self, error: SQLAlchemyError) -> bool:
        return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", "") in _CONFLICTS

    def _share_directory(self, connection: Connection) -> None:
        connection.execute(_SHARE_DIRECTORY)

    def _hold_directory(self, connection: Connection) -> None:
        connection.execute(_HOLD_DIRECTORY)

    def _insert(
        self, connection: Connection, table: Table, rows: Sequence[tuple[object, ...]]
    ) -> None:
        if rows:
            names = [column.name for column in inserted_columns(table)]
            columns = map(list, zip(*rows, strict=True))
            connection.execute(_INSERTS[table], dict(zip(names, columns, strict=True)))

    def _advance(self, connection: Connection, amounts: Mapping[bytes, int]) -> dict[bytes, int]:
        rows = connection.execute(
            _ADVANCE, {"desk": list(amounts), "counter": list(amounts.values())}
        )
        return {row.desk: row.counter for row in rows}

    def _among(self, column: ColumnElement[Any], values: Sequence[object]) -> ColumnElement[bool]:
        return column == func.any(literal(list(values), ARRAY(column.type)))


def _from_arrays(table: Table) -> Insert:
    """Insert as many rows as the arrays, one for each column, have items."""
    columns = inserted_columns(table)
    names = [column.name for column in columns]
    arrays = [func.unnest(bindparam(column.name, type_=ARRAY(column.type))) for column in columns]
    return insert(table).from_select(names, select(*arrays))


_INSERTS: Final = {table: _from_arrays(table) for table in tables.metadata.sorted_tables}

_ADVANCE: Final = text(
    "INSERT INTO mailboxes (desk, counter) SELECT unnest(:desk), unnest(:counter) "
    "ON CONFLICT (desk) DO UPDATE SET counter = mailboxes.counter + excluded.counter "
    "RETURNING desk, counter"
).bindparams(
    bindparam("desk", type_=ARRAY(LargeBinary)), bindparam("counter", type_=ARRAY(BigInteger))
)


def _create_engine(url: URL) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=_CONNECTION_SECONDS_MAX,
        isolation_level="READ COMMITTED",
        connect_args={"timeout": _CONNECTION_SECONDS_MAX, "server_settings": _SESSION},
        hide_parameters=True,  # Rows hold other offices' identifiers, which a log must not show.
    )
    event.listen(engine.sync_engine, "connect", _require_safe)
    return engine


def _require_safe(connection: DBAPIConnection, _: object) -> None:
    """Check the settings that make a commit durable, and pin the one that a session can pin.

    Raises:
        UnsafeStoreError: A setting can lose committed rows [R-4].
    """
    cursor = connection.cursor()
    # SPEC: the relay refuses to start on database settings that can lose what it promised.
    # Asked on each new connection, because a role's or database's settings may change meanwhile.
    for setting, safe in _SAFE.items():
        cursor.execute(f"SHOW {setting}")
        (value,) = cursor.fetchall()[0]
        if value not in safe:
            raise UnsafeStoreError(
                f"postgresql {setting} is {value}, expected {' or '.join(sorted(safe))}"
            )
        if setting == "synchronous_commit":
            # Later changes of the server's configuration do not reach this session any more.
            cursor.execute(f"SET SESSION synchronous_commit = {value}")
    cursor.close()


def _create_tables(connection: Connection) -> None:
    connection.execute(_HOLD_DIRECTORY)
    create_tables(connection)
