"""A database that is gone for a while costs time and nothing else.

Rules [R-1], [R-12]: while the store cannot commit nobody gets a promise; everybody is told to send
the same again; when the database is back everything goes on.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import WSCloseCode

from comity_protocol.receipts import Receipt, sign_receipt
from support.postgres import PostgresServer
from support.relay import Answer, Stand, relay, small_world
from support.world import held_of


@pytest.fixture
async def outage(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str
) -> AsyncIterator[Stand]:
    """A relay over PostgreSQL, of which nothing that it has read is remembered any more."""
    world, sender, receiver = small_world()
    async with relay(tmp_path, world, database=postgres_url) as running:
        await running.publish()
        yield Stand(running, world.active(sender)[0], world.active(receiver)[0])
        postgres_server.start()  # The relay stops in good order.


def is_busy(answer: Answer) -> bool:
    return (answer.status, answer.code) == (503, "busy") and int(answer.headers["Retry-After"]) > 0


async def test_nobody_gets_a_promise_while_the_database_is_gone(
    outage: Stand, postgres_server: PostgresServer
) -> None:
    """[R-1]"""
    running = outage.relay
    first, answer = await running.send(outage.sender, outage.to)
    assert answer.status == 200
    await running.seal()
    seen = running.context.log.newest().note_hash
    sealed = running.seal_lead(outage.sender, outage.to)
    receipt = sign_receipt(
        outage.receiver.fast, Receipt(outage.to, outage.receiver.id, 4, held_of(first), seen)
    )
    world = running.world
    world.turn(outage.to)
    statement = world.statements[-1][1].serialize()
    postgres_server.kill()
    running.context.relay.recent.checkpoints._entries.clear()
    running.context.relay.recent.envelopes._entries.clear()

    assert is_busy(await running.post(outage.sender, sealed))
    confirmed = await running.as_device(
        outage.receiver, "POST", "/v1/receipts", receipt.serialize()
    )
    assert is_busy(confirmed)
    assert is_busy(await running.ask("POST", "/v1/statements", statement))
    postgres_server.start()
    assert (await running.post(outage.sender, sealed)).status == 200
    assert (await running.ask("POST", "/v1/statements", statement)).status == 200


async def test_readers_are_told_to_come_back(
    outage: Stand, postgres_server: PostgresServer
) -> None:
    """[R-12]"""
    noone = "0" * 32
    paths = ["/v1/mailbox", "/v1/receipts", "/v1/statements", "/v1/boxes", f"/v1/envelopes/{noone}"]
    postgres_server.kill()
    during = [await outage.relay.as_device(outage.sender, "GET", path) for path in paths]
    postgres_server.start()
    after = [await outage.relay.as_device(outage.sender, "GET", path) for path in paths]

    assert all(is_busy(answer) for answer in during)
    assert [answer.status for answer in after] == [200, 200, 200, 200, 404]


async def test_what_is_sent_over_a_socket_is_refused_as_busy(
    outage: Stand, postgres_server: PostgresServer
) -> None:
    """[R-1] [R-12]"""
    sealed = outage.relay.seal_lead(outage.sender, outage.to)
    async with outage.relay.socket(outage.sender) as socket:
        postgres_server.kill()
        outage.relay.context.relay.recent.checkpoints._entries.clear()
        await socket.put("send", 7, sealed.upload.serialize())
        name, number, problem = await socket.get()

        assert (name, number) == ("refused", 7)
        assert json.loads(problem)["code"] == "busy"
        postgres_server.start()
        await socket.put("send", 8, sealed.upload.serialize())
        assert (await socket.get())[:2] == ["accepted", 8]


async def test_a_follower_is_closed_with_a_reason_and_can_come_back(
    outage: Stand, postgres_server: PostgresServer
) -> None:
    """[R-12]"""
    await outage.relay.send(outage.sender, outage.to)
    await outage.relay.seal()
    async with outage.relay.socket(outage.receiver) as socket:
        postgres_server.kill()
        await socket.put("follow", 0)

        name, number, problem = await socket.get()
        assert (name, number, json.loads(problem)["code"]) == ("refused", 0, "busy")
        await socket.raw.receive(timeout=20)
        assert socket.raw.close_code == WSCloseCode.TRY_AGAIN_LATER
    postgres_server.start()
    async with outage.relay.socket(outage.receiver) as socket:
        await socket.put("follow", 0)
        assert (await socket.get())[:2] == ["item", 1]
