"""The PostgreSQL that the tests bring along keeps the promises that the relay relies on."""

import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from support.postgres import PostgresServer


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncConnection]:
    """A connection in a transaction that is rolled back unless the test commits it."""
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


async def count_marks(url: str) -> int:
    async with connected(url) as connection:
        count: int = (await connection.execute(text("SELECT count(*) FROM mark"))).scalar_one()
        return count


async def insert_mark(url: str) -> None:
    async with connected(url) as connection:
        await connection.execute(text("CREATE TABLE mark (id integer)"))
        await connection.execute(text("INSERT INTO mark VALUES (1)"))
        await connection.commit()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
async def test_a_durability_setting_is_on(postgres_url: str, setting: str) -> None:
    async with connected(postgres_url) as connection:
        value = (await connection.execute(text(f"SHOW {setting}"))).scalar_one()

    assert value == "on"


async def test_the_server_listens_on_no_network_address(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        value = (await connection.execute(text("SHOW listen_addresses"))).scalar_one()

    assert value == ""


async def test_a_new_database_is_empty_and_not_shared(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    await insert_mark(postgres_url)

    other = postgres_server.create_database()
    async with connected(other) as connection:
        tables = (
            await connection.execute(
                text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            )
        ).scalar_one()
    postgres_server.drop_database(other)

    assert tables == 0


async def test_a_committed_row_survives_the_death_of_the_server(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    await insert_mark(postgres_url)

    postgres_server.kill()
    postgres_server.start()

    assert await count_marks(postgres_url) == 1


async def test_a_row_not_committed_is_gone_after_the_death_of_the_server(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    await insert_mark(postgres_url)
    engine = create_async_engine(postgres_url)
    connection = await engine.connect()
    await connection.execute(text("INSERT INTO mark VALUES (2)"))

    postgres_server.kill()
    await connection.invalidate()
    await connection.close()
    await engine.dispose()
    postgres_server.start()

    assert await count_marks(postgres_url) == 1


async def test_a_server_that_was_stopped_starts_again_with_its_rows(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    await insert_mark(postgres_url)

    postgres_server.stop()
    postgres_server.start()

    assert await count_marks(postgres_url) == 1


def test_a_server_that_does_not_run_has_no_pid(postgres_server: PostgresServer) -> None:
    postgres_server.stop()

    with pytest.raises(RuntimeError, match="does not run; call start"):
        _ = postgres_server.pid


def test_closing_removes_every_file() -> None:
    with PostgresServer() as server:
        directory = server.socket_path.parent
        existed = directory.exists()

    assert (existed, directory.exists()) == (True, False)


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()

    with pytest.raises(RuntimeError, match="set TMPDIR to a shorter path"):
        PostgresServer(deep)

    assert list(deep.iterdir()) == []


def test_the_server_ends_with_the_program_that_started_it() -> None:
    program = (
        "import sys; from support.postgres import PostgresServer\n"
        "server = PostgresServer(); server.start()\n"
        "print(server.socket_path, flush=True); sys.stdin.read()"
    )
    with (
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as owner,
        socket.socket(socket.AF_UNIX) as client,
    ):
        assert owner.stdout is not None
        client.connect(owner.stdout.readline().strip())

        owner.kill()

        assert client.recv(1) == b""  # The end of the stream: the server closed its side and ended.
