"""``comity-relay fsck`` names the table and the row, and ``rebuild`` gives equal tables: [R-3]."""

import asyncio
import json
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from comity_protocol.receipts import Receipt, sign_receipt
from comity_server.commands import command
from comity_server.fsck import Fault, check, rebuild, run
from support.relay import relay, small_world
from support.world import held_of

DERIVED = ["head", "tile_hashes", "mailbox_items", "mailboxes", "receipt_readers", "notice_readers"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a relay that stopped: statements, 261 envelopes and a receipt."""
    path = tmp_path_factory.mktemp("fsck")
    # In a thread, because the loop of the first test is there already.
    with ThreadPoolExecutor(1) as threads:
        threads.submit(asyncio.run, _fill(path)).result()
    return path / "relay.sqlite"


async def _fill(path: Path) -> None:
    world, sender, receiver = small_world()
    async with relay(path, world) as running:
        await running.publish()
        one, other = world.active(sender)[0], world.active(receiver)[0]
        sealed, answer = await running.send(one, receiver)
        assert answer.status == 200
        pairs = [(one, receiver) if number % 3 else (other, sender) for number in range(260)]
        answers = await asyncio.gather(*(running.send(*pair) for pair in pairs))
        assert {answer.status for _, answer in answers} == {200}
        held = held_of(sealed)
        seq = world.directory.desk(receiver).seq
        seen = await running.seal()
        receipt = Receipt(receiver, other.id, seq, held, seen)
        body = sign_receipt(other.fast, receipt).serialize()
        assert (await running.as_device(other, "POST", "/v1/receipts", body)).status == 200
        await running.seal()


@pytest.fixture
def database(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "relay.sqlite"))


async def faults(database: Path) -> list[Fault]:
    return await run(f"sqlite:///{database}", check)


def rows(database: Path) -> dict[str, list[tuple[object, ...]]]:
    with sqlite3.connect(database) as connection:
        found = {name: sorted(connection.execute(f"SELECT * FROM {name}")) for name in DERIVED}  # noqa: S608
    connection.close()
    return found


def execute(database: Path, statement: str) -> None:
    with sqlite3.connect(database) as connection:
        assert connection.execute(statement).rowcount
    connection.close()


async def test_a_whole_database_has_no_fault(database: Path) -> None:
    assert await faults(database) == []


FAULTS = [
    ("UPDATE head SET size = size - 1", {"head"}),
    ("UPDATE head SET root = zeroblob(32)", {"head"}),
    ("UPDATE head SET frontier = zeroblob(8)", {"head"}),
    ("UPDATE head SET statements = 1", {"head"}),
    ("UPDATE tile_hashes SET hash = zeroblob(32)", {"tile_hashes"}),
    ("DELETE FROM tile_hashes", {"tile_hashes"}),
    ("INSERT INTO tile_hashes VALUES (2, 9, zeroblob(32))", {"tile_hashes"}),
    ("DELETE FROM mailbox_items WHERE counter = 7", {"mailbox_items"}),
    ("UPDATE mailbox_items SET leaf_index = 1 WHERE counter = 9", {"mailbox_items"}),
    ("UPDATE mailbox_items SET kind = 0 WHERE counter = 9", {"mailbox_items"}),
    ("INSERT INTO mailbox_items VALUES (zeroblob(16), 1, 30, 0, 0)", {"mailbox_items"}),
    ("UPDATE mailboxes SET counter = counter + 1", {"mailboxes"}),
    ("DELETE FROM mailboxes", {"mailboxes"}),
    ("INSERT INTO receipt_readers VALUES (zeroblob(16), 3)", {"receipt_readers"}),
    ("INSERT INTO notice_readers VALUES (zeroblob(16), 3)", {"notice_readers"}),
]


@pytest.mark.parametrize(("statement", "named"), FAULTS, ids=range(len(FAULTS)))
async def test_a_derived_row_that_is_wrong_is_named(
    statement: str, named: set[str], database: Path
) -> None:
    execute(database, statement)
    found = await faults(database)

    assert {one.table for one in found} == named
    assert all(one.is_derived and one.row for one in found)


async def test_derived_tables_are_rebuilt_equal(database: Path) -> None:
    """[R-3]"""
    before = rows(database)
    for statement, _ in FAULTS:
        execute(
            database, statement.replace("DELETE FROM mailboxes", "UPDATE mailboxes SET desk=desk")
        )
    assert rows(database) != before

    assert await run(f"sqlite:///{database}", rebuild) == []
    assert rows(database) == before


STORED = [
    ("UPDATE leaves SET data = zeroblob(65) WHERE leaf_index = 20", "envelopes"),
    ("DELETE FROM envelopes WHERE leaf_index = 25", "leaves"),
    ("UPDATE envelopes SET core = zeroblob(9) WHERE leaf_index = 25", "envelopes"),
    ("UPDATE envelopes SET core_hash = zeroblob(32) WHERE leaf_index = 25", "envelopes"),
    ("UPDATE envelopes SET counters = zeroblob(16) WHERE leaf_index = 25", "envelopes"),
    ("UPDATE envelopes SET counters = NULL WHERE leaf_index = 25", "envelopes"),
    ("UPDATE envelopes SET blind = zeroblob(16) WHERE leaf_index = 25", "envelopes"),
    ("UPDATE envelopes SET sender_desk = zeroblob(16) WHERE leaf_index = 25", "envelopes"),
    ("UPDATE receipts SET payload = zeroblob(9)", "receipts"),
    ("UPDATE statements SET signatures = x'80' WHERE ordinal = 3", "statements"),
    ("UPDATE statements SET hash = zeroblob(32) WHERE ordinal = 4", "statements"),
]


@pytest.mark.parametrize(("statement", "named"), STORED, ids=range(len(STORED)))
async def test_a_stored_row_that_is_wrong_is_named_and_nothing_is_rebuilt_from_it(
    statement: str, named: str, database: Path
) -> None:
    execute(database, statement)
    before = rows(database)
    found = await faults(database)

    assert named in {one.table for one in found if not one.is_derived}
    assert await run(f"sqlite:///{database}", rebuild) != []
    assert rows(database) == before


async def test_postgresql_is_checked_and_rebuilt_as_well(postgres_url: str, tmp_path: Path) -> None:
    world, sender, receiver = small_world()
    async with relay(tmp_path, world, database=postgres_url) as running:
        await running.publish()
        for _ in range(3):
            await running.send(world.active(sender)[0], receiver)
        await running.seal()
    assert await run(postgres_url, check) == []
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM mailbox_items"))
        await connection.execute(text("UPDATE head SET size = 1"))
    await engine.dispose()

    assert {one.table for one in await run(postgres_url, check)} == {"mailbox_items", "head"}
    assert await run(postgres_url, rebuild) == []
    assert await run(postgres_url, check) == []


def test_the_commands_print_each_fault_and_exit_with_1(database: Path) -> None:
    execute(database, "DELETE FROM mailboxes")
    address = f"sqlite:///{database}"
    ask = ["--data", str(database.parent), "--database", address]
    runner = CliRunner()
    found = runner.invoke(command, ["fsck", *ask])
    lines = [json.loads(line) for line in found.output.splitlines()]
    assert found.exit_code == 1
    assert lines[0]["table"] == "mailboxes"
    assert lines[-1] == {"faults": str(len(lines) - 1)}

    assert runner.invoke(command, ["rebuild", *ask]).output == '{"faults": "0"}\n'
    assert runner.invoke(command, ["fsck", *ask]).exit_code == 0
