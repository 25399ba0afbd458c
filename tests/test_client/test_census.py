"""A relay that hides a statement from a desk is found by whoever counts the log."""

import pytest

from comity_client.census import Count, WithheldStatementError
from comity_client.cli.online import wait_until
from comity_client.cli.shell import Shell
from comity_client.envelopes import Stage
from comity_client.relay_answers import StatementPage
from comity_protocol.errors import VerificationError
from support.desks import LEAD
from test_client.conftest import Pair


async def test_a_log_with_nothing_hidden_is_counted_to_its_end_and_on(pair: Pair) -> None:
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.relay.seal()
    first = await pair.bob.desk.sync()
    assert await pair.bob.desk.count_statements() == Count(first.size, first.size)
    pair.world.turn(pair.alice.id)
    await pair.relay.publish()
    second = await pair.bob.desk.sync()

    assert second.size > first.size
    assert await pair.bob.desk.count_statements() == Count(second.size, second.size)
    assert not pair.bob.desk.alarms()


async def test_a_hidden_removal_is_found(pair: Pair) -> None:
    # [B-13]
    world = pair.world
    world.remove(pair.alice.id, [world.active(pair.alice.id)[1]])
    await pair.relay.publish()
    pair.bob.relay.on_statements = lambda page: StatementPage(page.note, page.items[:-1])
    await pair.bob.desk.sync()

    with pytest.raises(WithheldStatementError, match="did not give to this desk"):
        await pair.bob.desk.count_statements()
    assert [alarm.kind for alarm in pair.bob.desk.alarms()] == ["withheld"]


async def test_a_hidden_removal_is_found_before_a_command_seals(pair: Pair) -> None:
    # [B-13]
    world = pair.world
    world.remove(pair.alice.id, [world.active(pair.alice.id)[1]])
    await pair.relay.publish()
    pair.bob.relay.on_statements = lambda page: StatementPage(page.note, page.items[:-1])
    shell = Shell(now=lambda: int(pair.relay.clock()), is_quiet=True)
    envelope = pair.bob.desk.lead(pair.alice.id, LEAD)

    with pytest.raises(WithheldStatementError):
        await wait_until(shell, pair.bob.desk, envelope, "accepted")
    assert pair.bob.desk.status(envelope).stage is Stage.QUEUED


async def test_entries_that_are_not_the_logs_are_refused(pair: Pair) -> None:
    await pair.bob.desk.sync()
    pair.bob.relay.on_entries = lambda entries: (bytes(65),) * len(entries)

    with pytest.raises(VerificationError, match="L-2"):
        await pair.bob.desk.count_statements()
