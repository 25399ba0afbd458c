"""The count that judges the kill loop finds what it is there to find.

Control for tests/faults/test_kills.py: each fault is planted in the database, or shown to a
witness, and the count must name it.
"""

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from comity_protocol.checkpoint import sign_checkpoint
from comity_protocol.core import core_hash
from comity_protocol.receipts import Promise, sign_promise
from support.load import Ledger
from support.recount import recount
from support.relay import Stand, relay, small_world


@dataclass(slots=True)
class Counted:
    """A relay with some envelopes, and what it has promised."""

    stand: Stand
    ledger: Ledger
    database: Path

    async def wrong(self) -> list[str]:
        """Count."""
        readers = [self.stand.sender, self.stand.receiver]
        return await recount(self.stand.relay, self.stand.relay.world, readers, self.ledger)

    def execute(self, *statements: str) -> None:
        """Alter the database behind the relay's back."""
        with sqlite3.connect(self.database) as connection:
            for statement in statements:
                assert connection.execute(statement).rowcount
        connection.close()


@pytest.fixture
async def counted(tmp_path: Path) -> AsyncIterator[Counted]:
    world, sender, receiver = small_world()
    ledger = Ledger()
    async with relay(tmp_path, world) as running:
        await running.publish()
        stand = Stand(running, world.active(sender)[0], world.active(receiver)[0])
        for _ in range(3):
            sealed, answer = await running.send(stand.sender, receiver)
            ledger.envelopes[sealed.id] = sealed.upload.core
            ledger.promised(core_hash(sealed.upload.core), answer.promise)
        await running.seal()
        yield Counted(stand, ledger, tmp_path / "relay.sqlite")


async def test_a_whole_log_is_found_whole(counted: Counted) -> None:
    assert await counted.wrong() == []


async def test_a_promised_object_that_is_nowhere_is_found(counted: Counted) -> None:
    what = bytes(32)
    counted.ledger.promised(
        what, sign_promise(counted.stand.relay.world.relay_key, Promise(what, 1))
    )

    assert await counted.wrong() == ["1 of 4 promised objects are lost"]


async def test_an_envelope_that_nobody_sent_is_found(counted: Counted) -> None:
    counted.ledger.envelopes.popitem()

    assert await counted.wrong() == ["1 envelopes are there that nobody sent to the end"]


async def test_a_lost_envelope_is_found(counted: Counted) -> None:
    counted.execute(
        "DELETE FROM mailbox_items WHERE leaf_index = (SELECT max(leaf_index) FROM envelopes)"
    )

    wrong = await counted.wrong()
    assert "1 of 3 promised objects are lost" in wrong
    assert any(line.endswith("is missing from a mailbox") for line in wrong)
    assert any(line.endswith("is not what mailboxes and pages give") for line in wrong)


async def test_a_gap_in_the_counters_is_found(counted: Counted) -> None:
    counted.execute("UPDATE mailbox_items SET counter = 4 WHERE counter = 3")

    assert "counter 4 stands where 3 should" in await counted.wrong()


async def test_an_envelope_twice_in_a_mailbox_is_found(counted: Counted) -> None:
    counted.execute(
        "INSERT INTO mailbox_items SELECT desk, 4, leaf_index, position, kind"
        " FROM mailbox_items WHERE counter = 3"
    )

    assert any(line.endswith("is in a mailbox twice") for line in await counted.wrong())


async def test_an_altered_leaf_is_found(counted: Counted) -> None:
    counted.execute("UPDATE leaves SET data = zeroblob(65) WHERE leaf_index = 2")

    wrong = await counted.wrong()
    assert "leaf 2 is not what mailboxes and pages give" in wrong
    assert any("is no past of the last" in line for line in wrong)


async def test_a_second_past_shown_to_one_witness_is_found(counted: Counted) -> None:
    world = counted.stand.relay.world
    other = sign_checkpoint(origin=world.genesis.origin, size=5, root=bytes(32), key=world.log_key)
    counted.ledger.notes.add(other)

    (wrong,) = await counted.wrong()
    assert wrong.startswith("checkpoint of size 5 is no past of the last")
