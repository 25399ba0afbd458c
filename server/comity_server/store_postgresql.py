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
from dataclasses import fields, replace
from typing import Any, Final, TypeVar, cast

import asyncpg
from sqlalchemy import (
    ARRAY,
    BindParameter,
    ClauseElement,
    Column,
    ColumnElement,
    Connection,
    Select,
    Table,
    bindparam,
    event,
    exists,
    func,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from comity_server import tables
from comity_server.store import Head, Row, StoreUnavailableError, UnsafeStoreError
from comity_server.store_growth import Standing, Step, grow, mailboxes_of
from comity_server.store_sql import SqlStore, Work, create_tables, inserted_columns, rows_of

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

# Not in a hurry, and never waiting with a lock that keeps others out.
_MAINTENANCE: Final = _SESSION | {"statement_timeout": "1h", "lock_timeout": "1h"}
_MAINTENANCE_SECONDS_MAX: Final = 3_700
_VACUUM: Final = text("VACUUM envelopes")

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
        self._url: Final = url
        self._standing: Standing | None = None
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

    async def scrub(self) -> bool:
        """See ``Store.scrub``."""
        engine = _create_engine(
            self._url,
            connections=1,
            isolation="AUTOCOMMIT",
            session=_MAINTENANCE,
            seconds_max=_MAINTENANCE_SECONDS_MAX,
        )
        try:
            async with engine.connect() as connection:
                await connection.execute(_VACUUM)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise StoreUnavailableError.of(error) from error
        finally:
            await engine.dispose()
        return True

    async def _add(self, rows: Sequence[Row], statements: int, erasures: int | None) -> Step | None:
        try:
            async with self._writing.connect() as connection:
                pooled = await connection.get_raw_connection()
                driver = cast("asyncpg.Connection[asyncpg.Record]", pooled.driver_connection)
                return await self._add_now(driver, rows, statements, erasures)
        except asyncpg.IntegrityConstraintViolationError:
            return None  # Another transaction was first.
        except (asyncpg.PostgresError, asyncpg.InterfaceError, SQLAlchemyError, OSError):
            return None  # The long way meets it again, and knows what may be repeated.

    async def _add_now(
        self,
        driver: "asyncpg.Connection[asyncpg.Record]",
        rows: Sequence[Row],
        statements: int,
        erasures: int | None,
    ) -> Step | None:
        """Add rows by one statement, which changes nothing if the log is not where it stood."""
        standing = self._standing
        if standing is None:
            standing = Standing.at(Head(**await driver.fetchrow(_READ_HEAD)))
            self._standing = standing
        if unknown := mailboxes_of(rows) - standing.counters.keys():
            found = dict(await driver.fetch(_READ_COUNTERS, list(unknown)))
            if self._standing is not standing:
                return None
            # They are those of the head that stood; if it moved since, the statement does nothing.
            standing.counters.update({desk: found.get(desk, 0) for desk in unknown})
        # Nothing is written unless the head row says the same.
        head = standing.head
        head = replace(
            head, statements=statements, erasures=head.erasures if erasures is None else erasures
        )
        step = grow(head, standing.frontier, standing.counters, rows)
        is_done = await driver.fetchval(_ADD, *_arguments(step))
        if self._standing is standing:
            self._standing = standing.after(step) if is_done else None
        return step if is_done else None

    def _among(self, column: ColumnElement[Any], values: Sequence[object]) -> ColumnElement[bool]:
        return column == func.any(literal(list(values), ARRAY(column.type)))


_DIALECT: Final = URL.create("postgresql+asyncpg").get_dialect()()


def _compile(query: ClauseElement) -> str:
    """Write a query of the schema's once, as the driver takes it."""
    return str(query.compile(dialect=_DIALECT))


def _array(table: Table, column: Column[Any]) -> BindParameter[Any]:
    return bindparam(f"{table.name}.{column.name}", type_=ARRAY(column.type))


def _inserting(table: Table, *conditions: ColumnElement[bool]) -> postgresql.Insert:
    """Insert as many rows as the arrays, one for each column, have items."""
    columns = inserted_columns(table)
    values = select(*(func.unnest(_array(table, column)) for column in columns))
    names = [column.name for column in columns]
    query = postgresql.insert(table).from_select(names, values.where(*conditions))
    if table is tables.mailboxes:
        counter = {"counter": query.excluded.counter}
        return query.on_conflict_do_update(index_elements=[table.c.desk], set_=counter)
    return query


_INSERTS: Final = {table: _compile(_inserting(table)) for table in tables.metadata.sorted_tables}
"""For arrays that the driver takes as they are and SQLAlchemy would look through."""

_GROWING: Final = (
    tables.envelopes,
    tables.receipts,
    tables.leaves,
    tables.tile_hashes,
    tables.mailbox_items,
    tables.mailboxes,
    tables.receipt_readers,
)
"""What a batch is written to."""


def _adding() -> Select[Any]:
    """Move the head if it is where it stood and nothing else is to be seen to; then insert.

    One statement is one transaction and one way to the server and back. The head row is locked by
    being changed, and its conditions hold of the row as it is then. The other conditions may miss
    what is committed in the same moment: an id that is inserted twice fails by its key, and what
    became pending is integrated the next time.
    """
    head = tables.head
    keys = ((tables.envelopes, tables.envelopes.c.id), (tables.receipts, tables.receipts.c.hash))
    moved = (
        update(head)
        .where(
            *(head.c[name] == bindparam(f"old.{name}") for name in _STOOD),
            ~exists(select(tables.pending.c.arrival)),
            ~exists(select(tables.repair.c.one)),
            *(
                ~exists(select(key).where(key == func.any(_array(table, key))))
                for table, key in keys
            ),
        )
        .values({name: bindparam(f"new.{name}") for name in _MOVED})
        .returning(head.c.size)
        .cte("moved")
    )
    is_moved = exists(select(moved.c.size))
    inserts = [_inserting(table, is_moved).cte(f"new_{table.name}") for table in _GROWING]
    return select(is_moved).add_cte(*inserts)


_STOOD: Final = ("size", "root", "statements", "incarnation", "erasures")
_MOVED: Final = ("size", "root", "frontier")
_ADDING: Final = _adding().compile(dialect=_DIALECT)
_ADD: Final = str(_ADDING)
_ADD_NAMES: Final = tuple(_ADDING.positiontup or ())
_ARRAYS: Final = {
    table: tuple(_array(table, column).key for column in inserted_columns(table))
    for table in _GROWING
}
_READ_HEAD: Final = _compile(select(*(tables.head.c[field.name] for field in fields(Head))))
_READ_COUNTERS: Final = _compile(
    select(tables.mailboxes).where(
        tables.mailboxes.c.desk == func.any(_array(tables.mailboxes, tables.mailboxes.c.desk))
    )
)


def _arguments(step: Step) -> list[object]:
    """Give the arguments of ``_ADD`` in their order."""
    values: dict[str, object] = {
        **{f"old.{name}": getattr(step.before, name) for name in _STOOD},
        **{f"new.{name}": getattr(step.head, name) for name in _MOVED},
    }
    given = dict(rows_of(step))
    for table, names in _ARRAYS.items():
        rows = given.get(table, ())
        columns = map(list, zip(*rows, strict=True)) if rows else ([] for _ in names)
        values.update(zip(names, columns, strict=True))
    return [values[name] for name in _ADD_NAMES]


def _create_engine(
    url: URL,
    *,
    connections: int,
    isolation: str,
    session: Mapping[str, str] = _SESSION,
    seconds_max: int = _ANSWER_SECONDS_MAX,
) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=_CONNECTION_SECONDS_MAX,
        isolation_level=isolation,
        connect_args={
            "timeout": _CONNECTION_SECONDS_MAX,
            "command_timeout": seconds_max,
            "server_settings": dict(session),
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
