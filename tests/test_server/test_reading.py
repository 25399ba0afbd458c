"""What the relay hands over: mailbox, receipts, statements, boxes, and the log."""

import asyncio
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest

from comity_protocol.checkpoint import open_checkpoint
from comity_protocol.core import Core, Part, core_hash
from comity_protocol.directory import Directory
from comity_protocol.encoding import parse
from comity_protocol.keys import Context, random_bytes
from comity_protocol.leaves import CounterProof, envelope_leaf, statement_leaf
from comity_protocol.merkle import leaf_hash, verify_inclusion
from comity_protocol.statements import SignedStatement, parse_signatures
from comity_server.log import parse_tile_index, serialize_tile_index
from comity_server.problems import Refused
from comity_server.store import MAILBOX_BYTES_MAX
from support.relay import Relay, Stand, relay, small_world, wait_until
from support.world import Member, core_of


async def _counters(stand: Relay, member: Member, query: str = "") -> list[int]:
    answer = await stand.as_device(member, "GET", "/v1/mailbox" + query)
    assert answer.status == 200, answer.body
    return [item[0] for item in answer.value["items"]]


async def test_a_mailbox_is_read_in_pages_without_gaps(stand: Stand) -> None:
    for _ in range(5):
        await stand.relay.send(stand.sender, stand.to)

    assert await _counters(stand.relay, stand.receiver) == [1, 2, 3, 4, 5]
    assert await _counters(stand.relay, stand.receiver, "?limit=2") == [1, 2]
    assert await _counters(stand.relay, stand.receiver, "?after=2&limit=2") == [3, 4]
    assert await _counters(stand.relay, stand.receiver, "?after=5") == []


async def test_a_mailbox_is_served_only_to_its_desk(stand: Stand) -> None:
    """[R-14]"""
    await stand.relay.send(stand.sender, stand.to)
    third = stand.relay.world.create_desk("XA")
    await stand.relay.publish()

    assert await _counters(stand.relay, stand.relay.world.active(third)[0]) == []


async def test_a_page_is_bounded_in_bytes(stand: Stand) -> None:
    """[R-15]"""
    for _ in range(20):
        sealed = stand.relay.seal_lead(stand.sender, stand.to)
        body = random_bytes(262_144)
        core = replace(Core.parse(sealed.upload.core), body=Part.of(body)).serialize()
        signature = stand.sender.fast.sign(Context.ENVELOPE, core)
        upload = replace(sealed.upload, core=core, signature=signature, body=body)
        await stand.relay.post(stand.sender, replace(sealed, upload=upload))
    first = await stand.relay.as_device(stand.receiver, "GET", "/v1/mailbox")
    count = len(first.value["items"])
    rest = await _counters(stand.relay, stand.receiver, f"?after={count}")

    assert len(first.body) < MAILBOX_BYTES_MAX + 50_000
    assert 10 < count < 20
    assert count + len(rest) == 20


BAD_QUERIES = [
    "?limit=0",
    "?limit=501",
    "?limit=-1",
    "?limit=01",
    "?limit=1e2",
    "?limit=",
    "?limit=1&limit=2",
    "?after=-1",
    "?after=9223372036854775808",
    "?wait=31",
    "?wait=1.5",
    "?desk=00",
    "?%00=1",
]


async def test_a_query_out_of_bounds_is_refused(stand: Stand) -> None:
    """[R-15]"""
    answers = {
        query: await stand.relay.as_device(stand.receiver, "GET", "/v1/mailbox" + query)
        for query in BAD_QUERIES
    }
    codes = {query: answer.code for query, answer in answers.items()}

    assert codes == dict.fromkeys(BAD_QUERIES, "bad-request")


async def test_a_waiting_request_is_answered_by_the_next_envelope(stand: Stand) -> None:
    asking = asyncio.create_task(_counters(stand.relay, stand.receiver, "?wait=30"))
    await wait_until(lambda: stand.relay.context.waiting == 1)
    await stand.relay.send(stand.sender, stand.to)

    async with asyncio.timeout(10):
        assert await asking == [1]
    assert stand.relay.context.waiting == 0


async def test_a_wait_without_an_envelope_ends(stand: Stand) -> None:
    """[R-15]"""
    assert await _counters(stand.relay, stand.receiver, "?wait=1") == []


async def test_a_removed_device_does_not_get_what_it_waited_for(stand: Stand) -> None:
    """[R-6]"""
    asking = asyncio.create_task(
        stand.relay.as_device(stand.receiver, "GET", "/v1/mailbox?wait=30")
    )
    await wait_until(lambda: stand.relay.context.waiting == 1)
    stand.relay.world.remove(stand.to, [stand.receiver])
    await stand.relay.publish()
    await stand.relay.send(stand.sender, stand.to)
    answer = await asking

    assert (answer.status, answer.code) == (403, "not-active")


async def test_too_many_waiting_requests_are_told_so(tmp_path: Path) -> None:
    """[R-15]"""
    world, one, other = small_world()
    async with relay(tmp_path, world, waiting_requests=1) as running:
        await running.publish()
        waiting = asyncio.create_task(
            running.as_device(world.active(one)[0], "GET", "/v1/mailbox?wait=30")
        )
        await wait_until(lambda: running.context.waiting == 1)
        refused = await running.as_device(world.active(other)[0], "GET", "/v1/receipts?wait=30")
        waiting.cancel()

        assert (refused.status, refused.code) == (503, "busy")


async def test_statements_are_served_with_proofs_and_give_the_same_directory(
    stand: Stand,
) -> None:
    """[L-2] [D-2]"""
    world = stand.relay.world
    answer = await stand.relay.as_device(stand.receiver, "GET", "/v1/statements")
    page = answer.value
    checkpoint = open_checkpoint(page["note"], stand.relay.world.genesis.log)
    directory = Directory.begin(world.statements[0][1], world.statements[0][1].hash)
    for ordinal, index, payload, signatures, proof in page["items"]:
        hashed = leaf_hash(statement_leaf(payload))
        verify_inclusion(hashed, index, checkpoint.size, checkpoint.root, proof)
        assert ordinal == index + 1
        if index:
            signed = SignedStatement(payload, parse_signatures(signatures), is_bare=True)
            directory = directory.apply(signed, index)

    assert page["size"] == checkpoint.size == len(world.statements)
    assert directory.desks.keys() == world.directory.desks.keys()


async def test_statements_are_read_in_pages(stand: Stand) -> None:
    page = await stand.relay.as_device(stand.receiver, "GET", "/v1/statements?after=2&limit=3")

    assert [item[0] for item in page.value["items"]] == [3, 4, 5]


async def test_the_genesis_is_served_to_everyone(stand: Stand) -> None:
    answer = await stand.relay.ask("GET", "/v1/genesis")

    assert answer.body == stand.relay.world.statements[0][1].serialize()


async def test_a_device_gets_its_own_boxes_and_the_chain_of_its_desk(stand: Stand) -> None:
    """[R-14]"""
    world = stand.relay.world
    world.turn(stand.to)
    await stand.relay.publish()
    mine = (await stand.relay.as_device(stand.receiver, "GET", "/v1/boxes")).value
    others = (await stand.relay.as_device(stand.sender, "GET", "/v1/boxes")).value
    stated = [
        dict(signed.boxes)[stand.receiver.id]
        for _, signed in world.statements
        if stand.receiver.id in dict(signed.boxes)
    ]

    assert [box for _, box in mine["boxes"]] == stated
    assert [epoch for epoch, _ in mine["boxes"]] == [1, 2]
    assert [epoch for epoch, _ in mine["previous"]] == [2]
    assert not set(stated) & {box for _, box in others["boxes"]}


async def test_a_known_statement_gets_its_original_promise(stand: Stand) -> None:
    """[R-2]"""
    _, signed = stand.relay.world.statements[3]
    first = await stand.relay.ask("POST", "/v1/statements", signed.serialize())
    stand.relay.clock.ahead = 50
    again = await stand.relay.ask("POST", "/v1/statements", signed.serialize())

    assert first.status == 200
    assert first.body == again.body


async def test_a_statement_that_does_not_follow_is_refused(stand: Stand) -> None:
    """[S-1] [S-2]"""
    world = stand.relay.world
    colleague = world.active(stand.to)[1]
    removal, _ = world.removal(stand.to, [colleague], by=[stand.receiver.full])
    world.turn(stand.to)
    await stand.relay.publish()
    late = await stand.relay.ask("POST", "/v1/statements", removal.serialize())
    forged, _ = world.removal(stand.to, [colleague], by=[stand.sender.full])
    unsigned = await stand.relay.ask("POST", "/v1/statements", forged.serialize())
    swapped = replace(world.statements[-1][1], boxes=())
    posted = await stand.relay.ask("POST", "/v1/statements", swapped.serialize())
    unreadable = await stand.relay.ask("POST", "/v1/statements", b"\xa0")

    assert (late.status, late.code) == (409, "chain-moved")
    assert (unsigned.status, unsigned.code) == (422, "verification-failed")
    assert posted.status == 200, "a known statement is known by its payload"
    assert (unreadable.status, unreadable.code) == (422, "malformed")


async def test_strangers_can_post_only_so_many_statements(tmp_path: Path) -> None:
    """[R-15]"""
    world, _, _ = small_world()
    async with relay(tmp_path, world, statements_burst=2, statements_per_second=0.5) as running:
        data = world.statements[1][1].serialize()
        answers = [await running.ask("POST", "/v1/statements", data) for _ in range(3)]

        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[2].headers["Retry-After"]


async def test_statements_posted_at_the_same_moment_are_put_in_a_row(tmp_path: Path) -> None:
    world, _, _ = small_world()
    async with relay(tmp_path, world) as running:
        desks = [signed for _, signed in world.statements[1:] if b"authority" in signed.payload]
        answers = await asyncio.gather(
            *(running.ask("POST", "/v1/statements", each.serialize()) for each in desks * 2)
        )
        rows = await running.context.store.statements(0, 10)

        assert {answer.status for answer in answers} == {200}
        assert [row.ordinal for row in rows] == [1, 2, 3]


# The log, for everyone.


async def test_an_envelope_is_proven_to_be_in_the_log(stand: Stand) -> None:
    """[L-2]"""
    sealed, _ = await stand.relay.send(stand.sender, stand.to)
    await stand.relay.seal()
    path = f"/v1/envelopes/{sealed.id.hex()}"
    place = (await stand.relay.as_device(stand.sender, "GET", path)).value
    answer = await stand.relay.ask("GET", f"/v1/proof/{place['index']}")
    proof = answer.value
    checkpoint = open_checkpoint(proof["note"], stand.relay.world.genesis.log)

    to = [entry.desk for entry in core_of(sealed).to]
    commitments = CounterProof.of(place["proof"]).commitments(
        to.index(stand.sender.desk), stand.sender.desk, place["counter"]
    )
    hashed = leaf_hash(envelope_leaf(core_hash(sealed.upload.core), commitments))
    verify_inclusion(hashed, proof["index"], checkpoint.size, checkpoint.root, proof["proof"])


async def test_every_proof_holds_while_the_log_grows(stand: Stand) -> None:
    """[L-2] Tiles that still grow are kept in memory, and the next checkpoint has more."""
    for _ in range(3):
        await stand.relay.send(stand.sender, stand.to)
        await stand.relay.seal()
        size = stand.relay.context.log.size
        entries = (await stand.relay.ask("GET", f"/tile/entries/000.p/{size}")).body
        for index in range(size):
            proof = (await stand.relay.ask("GET", f"/v1/proof/{index}")).value
            head = open_checkpoint(proof["note"], stand.relay.world.genesis.log)
            hashed = leaf_hash(entries[67 * index + 2 : 67 * (index + 1)])

            assert head.size == size
            verify_inclusion(hashed, index, size, head.root, proof["proof"])


async def test_a_proof_of_what_is_not_covered_yet_is_refused(stand: Stand) -> None:
    size = stand.relay.context.log.size
    answers = [
        await stand.relay.ask("GET", f"/v1/proof/{index}") for index in (size, 2**62, 2**63 - 1)
    ]
    nothing = [
        await stand.relay.ask("GET", f"/v1/proof/{index}")
        for index in ("-1", "01", "x", "1.0", "9" * 30, "%31")[:5]
    ]

    assert {(answer.status, answer.code) for answer in answers} == {(404, "not-yet")}
    assert {(answer.status, answer.code) for answer in nothing} == {(404, "not-found")}


async def test_tiles_and_entries_give_the_checkpoint(tmp_path: Path) -> None:
    """[L-1] A stranger who reads entries and tiles comes to the root that was signed."""
    world, one, other = small_world()
    sender = world.active(one)[0]
    async with relay(tmp_path, world) as running:
        await running.publish()
        async with running.socket(sender) as socket:
            for number in range(264):
                upload = running.seal_lead(sender, other).upload
                await socket.put("send", number, upload.serialize())
                await socket.get()
        await running.seal()
        size = running.context.log.size
        note = (await running.ask("GET", "/checkpoint")).body
        full = await running.ask("GET", "/tile/entries/000")
        partial = await running.ask("GET", f"/tile/entries/001.p/{size - 256}")
        level0 = [
            (await running.ask("GET", path)).body
            for path in ("/tile/0/000", f"/tile/0/001.p/{size - 256}")
        ]
        level1 = await running.ask("GET", "/tile/1/000.p/1")
        proofs = [
            (index, (await running.ask("GET", f"/v1/proof/{index}")).value["proof"])
            for index in (0, 255, 256, size - 1, 0, 100)
        ]

        bundle = full.body + partial.body
        entries = [bundle[at + 2 : at + 67] for at in range(0, len(bundle), 67)]
        checkpoint = open_checkpoint(note, running.world.genesis.log)
        assert bundle[:2] == (65).to_bytes(2, "big")
        assert b"".join(map(leaf_hash, entries)) == b"".join(level0)
        assert _root([leaf_hash(entry) for entry in entries]) == checkpoint.root
        assert level1.body == _root([leaf_hash(entry) for entry in entries[:256]])
        assert full.headers["Cache-Control"].endswith("immutable")
        for index, proof in proofs:
            verify_inclusion(leaf_hash(entries[index]), index, size, checkpoint.root, proof)


def _root(hashes: list[bytes]) -> bytes:
    """Compute an RFC 6962 root, independently and slowly."""
    if len(hashes) == 1:
        return hashes[0]
    middle = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\x01" + _root(hashes[:middle]) + _root(hashes[middle:])).digest()


NO_TILES = [
    "/tile/0/001",
    "/tile/0/000",
    "/tile/1/000",
    "/tile/0/000.p/0",
    "/tile/0/000.p/256",
    "/tile/0/000.p/255",
    "/tile/0/000.p/01",
    "/tile/8/000",
    "/tile/00/000.p/1",
    "/tile/0/0",
    "/tile/0/0000",
    "/tile/0/x000/000.p/1",
    "/tile/0/x001",
    "/tile/0/-01",
    "/tile/entries/001",
    "/tile/entries/000.p/x",
    "/tile/0/" + "x999/" * 40 + "999",
]


async def test_tiles_that_the_checkpoint_has_not_are_not_there(stand: Stand) -> None:
    answers = {path: await stand.relay.ask("GET", path) for path in NO_TILES}

    assert {path: answer.status for path, answer in answers.items()} == dict.fromkeys(NO_TILES, 404)
    assert {answer.code for answer in answers.values()} == {"not-found"}


def test_tile_numbers_are_written_in_one_way() -> None:
    numbers = [0, 1, 999, 1_000, 1_234_067, 999_999_999, 2**55]

    assert serialize_tile_index(1_234_067) == "x001/x234/067"
    assert [parse_tile_index(serialize_tile_index(number)) for number in numbers] == numbers
    for text in ("", "x", "00", "x001/x000/x001", "001/002", "\u0660\u0660\u0661"):
        with pytest.raises(Refused):
            parse_tile_index(text)


async def test_before_the_first_checkpoint_there_is_none(tmp_path: Path) -> None:
    world, _, _ = small_world()
    async with relay(tmp_path, world, checkpoint_seconds=500, heartbeat_seconds=600) as running:
        log = running.context.log
        log._newest = None
        answer = await running.ask("GET", "/checkpoint")

        assert (answer.status, answer.code) == (404, "not-yet")
        assert answer.headers["Retry-After"]


async def test_checkpoints_only_grow(stand: Stand) -> None:
    """[L-6]"""
    sizes = [stand.relay.context.log.size]
    for _ in range(3):
        await stand.relay.send(stand.sender, stand.to)
        await stand.relay.seal()
        note = (await stand.relay.ask("GET", "/checkpoint")).body
        sizes.append(open_checkpoint(note, stand.relay.world.genesis.log).size)

    assert all(left < right for left, right in pairwise(sizes))


async def test_the_wrap_of_an_envelope_is_served_to_each_addressed_desk(stand: Stand) -> None:
    sealed, _ = await stand.relay.send(stand.sender, stand.to)
    path = f"/v1/wraps/{sealed.id.hex()}"
    wraps = [
        parse((await stand.relay.as_device(member, "GET", path)).body)
        for member in (stand.sender, stand.receiver)
    ]

    assert sorted(wraps, key=repr) == sorted(sealed.upload.wraps, key=repr)
