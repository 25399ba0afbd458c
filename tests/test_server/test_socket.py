"""The WebSocket: one token, many envelopes, and what follows is complete."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import WSMsgType

from comity_protocol.core import Part, core_hash
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.keys import Context, random_bytes
from comity_protocol.receipts import Receipt, Signed, sign_receipt, verify_promise
from comity_server import socket as sockets
from comity_server.socket import HELD_FRAMES_MAX, Held
from support.relay import Relay, Socket, Stand, relay, small_world, wait_until
from support.world import Member, core_of, held_of


async def _items(socket: Socket, count: int) -> list[int]:
    """Take that many pushed envelopes; give their counters."""
    frames = [await socket.get() for _ in range(count)]
    assert {frame[0] for frame in frames} == {"item"}
    return [frame[1] for frame in frames]


async def _last_words(socket: Socket) -> tuple[str, int | None]:
    """Read until the relay closes; give the code of its refusal and the close code."""
    code = ""
    while True:
        message = await socket.raw.receive(timeout=20)
        if message.type is WSMsgType.BINARY:
            frame = parse(message.data)
            assert isinstance(frame, list)
            if frame[0] == "refused" and frame[1] == 0:
                code = json.loads(frame[2])["code"]
        else:
            return code, socket.raw.close_code


async def _upload(stand: Relay, member: Member, socket: Socket, to: Member, number: int) -> None:
    sealed = stand.seal_lead(member, to.desk)
    await socket.put("send", number, sealed.upload.serialize())


async def test_an_envelope_sent_over_the_socket_is_promised(stand: Stand) -> None:
    sealed = stand.relay.seal_lead(stand.sender, stand.to)
    async with stand.relay.socket(stand.sender) as socket:
        await socket.put("send", 41, sealed.upload.serialize())
        name, number, payload, signature = await socket.get()

    assert (name, number) == ("accepted", 41)
    verify_promise(
        Signed(payload, signature),
        stand.relay.world.genesis.relay_key,
        core_hash(sealed.upload.core),
    )


async def test_a_refused_envelope_does_not_end_the_connection(stand: Stand) -> None:
    """[R-12]"""
    taken = EnvelopeId(random_bytes(16))
    first = stand.relay.seal_lead(stand.sender, stand.to, envelope_id=taken)
    second = stand.relay.seal_lead(stand.sender, stand.to, envelope_id=taken)
    async with stand.relay.socket(stand.sender) as socket:
        await socket.put("send", 1, first.upload.serialize())
        accepted = await socket.get()
        await socket.put("send", 2, second.upload.serialize())
        refused = await socket.get()
        await socket.put("send", 3, b"\xf6")
        unreadable = await socket.get()
        await socket.put("send", 4, first.upload.serialize())
        again = await socket.get()

    assert accepted[2:] == again[2:]
    assert refused[:2] == ["refused", 2]
    assert json.loads(refused[2])["code"] == "id-taken"
    assert json.loads(refused[2])["remedy"]
    assert json.loads(unreadable[2])["code"] == "malformed"


async def test_a_follower_gets_what_was_there_and_what_comes_without_gaps(stand: Stand) -> None:
    for _ in range(3):
        await stand.relay.send(stand.sender, stand.to)
    async with stand.relay.socket(stand.receiver) as following:
        await following.put("follow", 1)
        assert await _items(following, 2) == [2, 3]
        async with stand.relay.socket(stand.sender) as sending:
            for number in range(80):
                await _upload(stand.relay, stand.sender, sending, stand.receiver, number)
                await sending.get()

        assert await _items(following, 80) == list(range(4, 84))


async def test_a_pushed_envelope_is_what_the_mailbox_has(stand: Stand) -> None:
    """Out of memory and out of the store, it is the same."""
    async with stand.relay.socket(stand.receiver) as following:
        await following.put("follow", 0)
        await stand.relay.send(stand.sender, stand.to)
        pushed = await following.get()
    answer = await stand.relay.as_device(stand.receiver, "GET", "/v1/mailbox")

    assert pushed[1:] == answer.value["items"][0]


async def test_receipts_are_pushed_to_the_sender(stand: Stand) -> None:
    sealed, _ = await stand.relay.send(stand.sender, stand.to)
    async with stand.relay.socket(stand.sender) as following:
        await following.put("follow", 1)
        receipt = Receipt(
            stand.to,
            stand.receiver.id,
            0,
            held_of(sealed),
            stand.relay.context.log.newest().note_hash,
        )
        signed = sign_receipt(stand.receiver.fast, receipt)
        await wait_until(lambda: stand.sender.desk in stand.relay.context.relay.hub._followers)
        await stand.relay.as_device(stand.receiver, "POST", "/v1/receipts", signed.serialize())
        name, index, payload, signature = await following.get()

    assert (name, payload, signature) == ("receipt", signed.payload, signed.signature)
    assert index == stand.relay.context.relay.size - 1


async def test_a_follower_is_served_only_its_own_mailbox(stand: Stand) -> None:
    """[R-14]"""
    third = stand.relay.world.create_desk("XA")
    await stand.relay.publish()
    stranger = stand.relay.world.active(third)[0]
    async with stand.relay.socket(stranger) as following:
        await following.put("follow", 0)
        await stand.relay.send(stand.sender, stand.to)
        await stand.relay.send(stand.sender, third)

        assert await _items(following, 1) == [1]
        with pytest.raises(TimeoutError):
            await following.raw.receive_bytes(timeout=0.1)


async def test_a_removed_devices_socket_is_closed_at_once(stand: Stand) -> None:
    """[R-6]"""
    world = stand.relay.world
    async with stand.relay.socket(stand.receiver) as following:
        await following.put("follow", 0)
        async with stand.relay.socket(stand.receiver) as idle:
            world.remove(stand.to, [stand.receiver])
            await stand.relay.publish()

            assert await _last_words(following) == ("not-active", 1008)
            assert await _last_words(idle) == ("not-active", 1008)
    await wait_until(lambda: stand.relay.context.sockets.total() == 0)


async def test_a_socket_needs_a_token_of_its_own(stand: Stand) -> None:
    """[T-1] [T-3]"""
    await stand.relay.ask("GET", "/v1/nonce")
    used = stand.relay.token(stand.sender, "GET", "/v1/socket")
    first_frames: dict[str, Value] = {
        "another path": ["token", stand.relay.token(stand.sender, "GET", "/v1/mailbox")],
        "another method": ["token", stand.relay.token(stand.sender, "POST", "/v1/socket")],
        "with a body": ["token", stand.relay.token(stand.sender, "GET", "/v1/socket", b"x")],
        "nothing": ["token", ""],
        "not text": ["token", b"x"],
        "another frame": ["follow", 0],
        "no frame": 7,
    }
    codes = {}
    for name, frame in first_frames.items():
        async with stand.relay.session.ws_connect(stand.relay.url + "/v1/socket") as raw:
            await raw.send_bytes(serialize(frame))
            codes[name] = await _last_words(Socket(raw))
    replays = []
    for _ in range(2):
        async with stand.relay.session.ws_connect(stand.relay.url + "/v1/socket") as raw:
            await Socket(raw).put("token", used)
            replays.append((await Socket(raw).get())[0])

    assert codes == dict.fromkeys(first_frames, ("unauthenticated", 1008))
    assert replays == ["ready", "refused"]


async def test_a_socket_without_a_token_is_closed(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-15]"""
    monkeypatch.setattr(sockets, "TOKEN_SECONDS_MAX", 0.05)
    async with stand.relay.session.ws_connect(stand.relay.url + "/v1/socket") as raw:
        assert await _last_words(Socket(raw)) == ("timeout", 1008)


BAD_FRAMES: list[Value] = [
    ["send", 1],
    ["send", -1, b""],
    ["send", "1", b""],
    ["send", 1 << 32, b""],
    ["send", 1, "text"],
    ["follow"],
    ["follow", -1],
    ["follow", b"0"],
    ["token", "again"],
    ["unknown", 1],
    [],
    {"send": 1},
    None,
]


async def test_a_frame_that_cannot_be_read_ends_the_connection(stand: Stand) -> None:
    """[R-12]"""
    ends = []
    for frame in BAD_FRAMES:
        async with stand.relay.socket(stand.sender) as socket:
            await socket.raw.send_bytes(serialize(frame))
            ends.append(await _last_words(socket))

    assert ends == [("malformed", 1008)] * len(BAD_FRAMES)


async def test_a_text_frame_ends_the_connection(stand: Stand) -> None:
    async with stand.relay.socket(stand.sender) as socket:
        await socket.raw.send_str("hello")

        assert await _last_words(socket) == ("bad-request", 1008)


async def test_following_twice_ends_the_connection(stand: Stand) -> None:
    async with stand.relay.socket(stand.sender) as socket:
        await socket.put("follow", 0)
        await socket.put("follow", 0)

        assert await _last_words(socket) == ("malformed", 1008)


async def test_a_frame_that_is_too_large_ends_the_connection(stand: Stand) -> None:
    """[R-15]"""
    async with stand.relay.socket(stand.sender) as socket:
        await socket.raw.send_bytes(bytes(300_000))
        _, close_code = await _last_words(socket)

    assert close_code == 1009


async def test_a_device_may_open_only_so_many_sockets(tmp_path: Path) -> None:
    """[R-15]"""
    world, one, other = small_world()
    noisy, quiet = world.active(one)[0], world.active(other)[0]
    async with relay(tmp_path, world, device_sockets=1) as running:
        await running.publish()
        async with running.socket(noisy), running.socket(noisy) as second:
            assert await _last_words(second) == ("quota", 1013)
            async with running.socket(quiet):
                pass


async def test_the_relay_opens_only_so_many_sockets(tmp_path: Path) -> None:
    """[R-15]"""
    world, one, _ = small_world()
    async with relay(tmp_path, world, sockets=1) as running:
        await running.publish()
        async with running.socket(world.active(one)[0]):
            answer = await running.ask("GET", "/v1/socket")

            assert (answer.status, answer.code) == (503, "busy")


async def test_a_plain_request_to_the_socket_is_refused(stand: Stand) -> None:
    answer = await stand.relay.ask("GET", "/v1/socket")

    assert (answer.status, answer.code) == (400, "bad-request")


async def test_a_stopping_relay_answers_what_it_has_begun_and_closes(tmp_path: Path) -> None:
    """[R-1]"""
    world, one, other = small_world()
    sender = world.active(one)[0]
    async with relay(tmp_path, world) as running:
        await running.publish()
        async with running.socket(sender) as socket:
            await socket.put("send", 1, running.seal_lead(sender, other).upload.serialize())
            answered = asyncio.create_task(socket.get())
            await answered
            running.context.is_stopping = True
            running.context.relay.hub.end()

            assert answered.result()[0] == "accepted"
            assert await _last_words(socket) == ("draining", 1001)
            refused = await running.ask("GET", "/readyz")
            assert (refused.status, refused.code) == (503, "draining")


async def test_sockets_go_on_when_the_client_breaks_off(stand: Stand) -> None:
    async with stand.relay.session.ws_connect(stand.relay.url + "/v1/socket") as raw:
        await Socket(raw).put("token", stand.relay.token(stand.sender, "GET", "/v1/socket"))
        assert await Socket(raw).get() == ["ready"]
        transport = raw.get_extra_info("socket")
        transport.shutdown(2)
    await wait_until(lambda: stand.relay.context.sockets.total() == 0)

    assert (await stand.relay.send(stand.sender, stand.to))[1].status == 200


def test_frames_that_do_not_fit_into_memory_are_read_from_the_store() -> None:
    """[R-15]"""
    held = Held(is_dense=True)
    for place in range(1, HELD_FRAMES_MAX + 1):
        held.put(place, b"frame")

    assert held.take_next() == b"frame"
    held.put(HELD_FRAMES_MAX + 1, b"frame")
    is_behind_when_full = held.is_behind
    held.put(HELD_FRAMES_MAX + 2, b"one too many")
    assert (is_behind_when_full, held.is_behind) == (False, True)
    assert held.take_next() is None
    assert held.cursor == 1


def test_a_gap_in_memory_is_filled_from_the_store() -> None:
    held = Held(is_dense=True)
    held.put(2, b"second")

    assert held.take_next() is None
    assert held.is_behind
    held.cursor, held.is_behind = 1, False
    assert held.take_next() == b"second"


def test_what_was_written_from_the_store_is_not_written_again() -> None:
    held = Held(is_dense=True)
    held.put(1, b"first")
    held.put(2, b"second")
    held.cursor = 2

    assert held.take_next() is None
    assert not held.is_behind


async def test_a_follower_that_missed_what_another_process_added_reads_the_store(
    stand: Stand,
) -> None:
    async with stand.relay.socket(stand.receiver) as following:
        await following.put("follow", 0)
        hub = stand.relay.context.relay.hub
        await wait_until(lambda: stand.to in hub._followers)
        (session,) = hub._followers[stand.to]
        hub.leave(stand.to, session)
        await stand.relay.send(stand.sender, stand.to)
        hub.join(stand.to, session)
        hub.look_again()

        assert await _items(following, 1) == [1]


async def test_much_is_written_in_order_to_one_who_reads_it_late(stand: Stand) -> None:
    """[R-15] More than the buffers of both ends hold, in frames of all lengths."""
    sizes = [200_000, 10, 60_000, 70_000, 1] * 6
    async with (
        stand.relay.socket(stand.sender) as sending,
        stand.relay.socket(stand.receiver) as following,
    ):
        await following.put("follow", 0)
        for number, size in enumerate(sizes):
            sealed = stand.relay.seal_lead(stand.sender, stand.to)
            body = random_bytes(size)
            core = replace(core_of(sealed), body=Part.of(body)).serialize()
            signature = stand.sender.fast.sign(Context.ENVELOPE, core)
            upload = replace(sealed.upload, core=core, signature=signature, body=body)
            await sending.put("send", number, upload.serialize())
            assert (await sending.get())[:2] == ["accepted", number]
        frames = [await following.get() for _ in sizes]

    assert [len(frame[5]) for frame in frames] == sizes
    assert [frame[1] for frame in frames] == list(range(1, len(sizes) + 1))


async def test_a_reader_that_is_too_slow_is_closed(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-15]"""
    monkeypatch.setattr(sockets, "SEND_SECONDS_MAX", 0.05)

    async with stand.relay.socket(stand.receiver) as following:
        await following.put("follow", 0)
        # As if nothing of what is written ever went.
        monkeypatch.setattr(sockets, "BUFFERED_BYTES_MAX", -1)
        await stand.relay.send(stand.sender, stand.to)
        assert (await following.get())[0] == "item"
        message = await following.raw.receive(timeout=20)

        assert message.type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR}
    await wait_until(lambda: stand.relay.context.sockets.total() == 0)
