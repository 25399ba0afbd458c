"""A witness that nobody can call opens a link, and the relay asks over it: [R-15] [L-3].

The hostile ends of a link are played by hand, frame by frame.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType
from nacl.signing import SigningKey

from comity_client.witness import Witness
from comity_client.witness_link import Link
from comity_client.witness_rule import Answer
from comity_client.witness_state import WitnessKey, WitnessState
from comity_protocol.checkpoint import cosignatures, verify_anchor
from comity_protocol.encoding import serialize
from comity_protocol.errors import MalformedError
from comity_protocol.limits import WITNESS_LINK_ASKS_MAX
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.wire import WITNESS_LINK
from comity_protocol.witness_link import ANSWER_BYTES_MAX, Ask, Challenge, LinkAnswer, Proof
from comity_server.handlers import links as handler
from comity_server.links import SILENT_MAX, LinkChannel
from support.relay import Relay, relay, small_world, wait_until
from support.world import World

SLOW: Final = 0.2
"""How long a witness may take in these tests."""


@dataclass
class LinkedWitness:
    """A witness of the world without an address."""

    key: WitnessKey
    state: WitnessState
    witness: Witness


def witness_of(folder: Path, world: World, name: str, relay: Relay) -> LinkedWitness:
    key = WitnessKey(name, world.witness_keys[name], world.anchor_keys.get(name))
    path = folder / f"{name}.linked"
    is_new = not path.exists()
    state = (WitnessState.create if is_new else WitnessState.open)(path, key.verifier_key)
    clock = relay.clock
    witness = Witness(state, key, [world.genesis.log], lambda: int(clock()))
    return LinkedWitness(key, state, witness)


@asynccontextmanager
async def linked(relay: Relay, folder: Path, *names: str) -> AsyncIterator[None]:
    """Run the links of some witnesses."""
    world = relay.world
    ones = [witness_of(folder, world, name, relay) for name in names]
    tasks = [
        asyncio.create_task(
            Link(relay.url, one.key, world.genesis.deployment, one.witness.answer).run()
        )
        for one in ones
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in ones:
            one.state.close()


async def knock(
    relay: Relay, name: str, key: SigningKey | None = None, challenge: Challenge | None = None
) -> ClientWebSocketResponse:
    """Open a link by hand and prove to be somebody; by another key or challenge when given."""
    socket = await relay.session.ws_connect(relay.url + WITNESS_LINK)
    asked = Challenge.parse(await socket.receive_bytes(timeout=20))
    signing_key = key or relay.world.witness_keys[name]
    deployment = relay.world.genesis.deployment
    await socket.send_bytes(
        Proof.make(name, signing_key, deployment, challenge or asked).serialize()
    )
    return socket


async def is_closed(socket: ClientWebSocketResponse) -> bool:
    """Whether it is ended; a question that was on its way before is passed over."""
    message = await socket.receive(timeout=20)
    for _ in range(4):
        if message.type is not WSMsgType.BINARY:
            break
        message = await socket.receive(timeout=20)
    return message.type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING}


async def seal_one_more(relay: Relay) -> None:
    """Add to the log and wait for the checkpoint over it."""
    (desk, *_) = relay.world.directory.desks
    relay.world.admit(desk)
    await relay.publish()


@pytest.fixture
async def half(tmp_path: Path) -> AsyncIterator[Relay]:
    """A relay with just enough witnesses to call; the third may open a link."""
    world, *_ = small_world()
    async with relay(tmp_path, world, witnesses=2, checkpoint_wait_seconds=SLOW) as running:
        await wait_until(lambda: running.context.relay.gate is None)
        await running.publish()
        yield running


def third(relay: Relay) -> str:
    return sorted(relay.world.witness_keys)[2]


# What works.


async def test_a_relay_that_can_call_no_witness_is_witnessed_over_links(tmp_path: Path) -> None:
    """[L-3]"""
    world, *_ = small_world()
    names = sorted(world.witness_keys)
    async with (
        relay(tmp_path, world, witnesses=0, witness_links=True) as running,
        linked(running, tmp_path, *names[:2]),
    ):
        await wait_until(lambda: running.context.relay.gate is None)
        await running.publish()
        note = running.context.log.newest().note

        found = {one.witness for one in cosignatures(note, world.genesis.quorum.witnesses)}
        assert found == set(names[:2])


async def test_the_days_anchor_is_asked_for_over_links_too(tmp_path: Path) -> None:
    """[L-10]"""
    world = World.found(has_anchors=True)
    async with (
        relay(tmp_path, world, witnesses=0, witness_links=True) as running,
        linked(running, tmp_path, *world.witness_keys),
    ):
        await wait_until(lambda: running.context.relay.gate is None)
        await running.seal()
        items: list[bytes] = []
        for _ in range(200):
            items = (await running.ask("GET", "/v1/anchors")).value["items"]
            if items:
                break
            await asyncio.sleep(0.02)
        (note,) = items

        assert world.genesis.anchors is not None
        anchor = verify_anchor(note, world.genesis.origin, world.genesis.anchors.quorum)
        assert anchor.checkpoint.size >= 1
        # One a day, and the published checkpoints stay small.
        world.create_desk("XA")
        await running.publish()
        assert (await running.ask("GET", "/v1/anchors")).value["items"] == [note]
        assert len(running.context.log.newest().note) < 1_000


async def test_a_witness_whose_link_died_opens_another(tmp_path: Path, half: Relay) -> None:
    name = third(half)
    pauses: list[float] = []

    async def hurry(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    one = witness_of(tmp_path, half.world, name, half)
    deployment = half.world.genesis.deployment
    task = asyncio.create_task(
        Link(half.url, one.key, deployment, one.witness.answer, sleep=hurry).run()
    )
    ended: list[LinkChannel] = []
    for _ in range(3):
        await wait_until(lambda: half.context.channels.get(name) not in (None, *ended))
        ended.append(half.context.channels[name])
        ended[-1].end()
    await wait_until(lambda: half.context.channels.get(name) not in (None, *ended))
    await seal_one_more(half)
    await wait_until(lambda: one.state.seen(half.world.genesis.origin) is not None)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    one.state.close()


async def test_a_relay_that_is_not_there_is_tried_again_and_again_ever_more_slowly(
    tmp_path: Path,
) -> None:
    world, *_ = small_world()
    pauses: list[float] = []
    enough = asyncio.Event()

    async def hurry(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 9:
            enough.set()
            await asyncio.Event().wait()

    async def answer(_: str, __: bytes) -> Answer:
        raise AssertionError

    name = sorted(world.witness_keys)[0]
    key = WitnessKey(name, world.witness_keys[name])
    link = Link("http://127.0.0.1:1", key, world.genesis.deployment, answer, sleep=hurry)
    task = asyncio.create_task(link.run())
    async with asyncio.timeout(20):
        await enough.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


async def test_a_stopping_relay_ends_its_links_at_once(tmp_path: Path) -> None:
    world, *_ = small_world()
    loop = asyncio.get_running_loop()
    async with relay(tmp_path, world, witnesses=2, drain_seconds=20.0) as running:
        await running.seal()
        socket = await knock(running, third(running))
        await wait_until(lambda: third(running) in running.context.channels)
        started = loop.time()
    assert loop.time() - started < 10
    await socket.close()


# Who it is not.


@pytest.mark.parametrize("attack", ["forged", "stranger", "unknown", "replayed"])
async def test_who_cannot_prove_to_be_a_witness_gets_no_question(half: Relay, attack: str) -> None:
    """[K-1]"""
    name = third(half)
    stranger = SigningKey(b"S" * 32)
    attacks: dict[str, Callable[[], Awaitable[ClientWebSocketResponse]]] = {
        "forged": lambda: knock(half, name, stranger),
        "stranger": lambda: knock(half, "witness9.example", stranger),
        # A real witness under a name that the genesis does not have.
        "unknown": lambda: knock(half, "witness9.example", half.world.witness_keys[name]),
        "replayed": lambda: knock(half, name, challenge=Challenge(b"N" * 32)),
    }
    socket = await attacks[attack]()

    assert await is_closed(socket)
    assert half.context.channels == {}
    await seal_one_more(half)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xff" * 100,
        serialize(["witness", "x"]),
        serialize(["answer", 1, 200, "text/plain", b""]),
        serialize(["ask", 1, "/add-checkpoint", b""]),
        bytes(ANSWER_BYTES_MAX + 1),
    ],
    ids=["nothing", "noise", "short", "answer", "ask", "oversize"],
)
async def test_what_is_no_proof_ends_the_link(half: Relay, frame: bytes) -> None:
    socket = await half.session.ws_connect(half.url + WITNESS_LINK)
    await socket.receive_bytes(timeout=20)
    await socket.send_bytes(frame)

    assert await is_closed(socket)
    assert half.context.channels == {}


async def test_who_says_nothing_is_cut_off(half: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """[R-15]"""
    monkeypatch.setattr(handler, "WITNESS_LINK_SECONDS_MAX", 0.05)
    socket = await half.session.ws_connect(half.url + WITNESS_LINK)
    await socket.receive_bytes(timeout=20)

    assert await is_closed(socket)
    await wait_until(lambda: half.context.links == 0)


async def test_more_links_than_there_can_be_witnesses_are_refused(
    half: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-15]"""
    monkeypatch.setattr(handler, "LINKS_MAX", 1)
    socket = await half.session.ws_connect(half.url + WITNESS_LINK)
    answer = await half.ask("GET", WITNESS_LINK)
    assert answer.code == "busy"
    await socket.close()
    await wait_until(lambda: half.context.links == 0)
    assert (await half.ask("GET", WITNESS_LINK)).code == "bad-request"


async def test_a_process_that_does_not_publish_takes_no_link(half: Relay) -> None:
    half.context.relay.is_holder = False

    assert (await half.ask("GET", WITNESS_LINK)).code == "busy"


# What a proven witness may do wrong.


async def next_ask(socket: ClientWebSocketResponse) -> Ask:
    return Ask.parse(await socket.receive_bytes(timeout=20))


@pytest.mark.parametrize(
    "behaviour",
    ["silent", "dies", "other question", "nonsense", "oversize", "wrong", "text", "lies"],
)
async def test_a_link_that_misbehaves_costs_its_own_cosignature_alone(
    half: Relay, behaviour: str
) -> None:
    """[R-15]"""
    name = third(half)
    socket = await knock(half, name)
    await wait_until(lambda: name in half.context.channels)
    sealing = asyncio.create_task(seal_one_more(half))
    ask = await next_ask(socket)
    assert ask.path == "/add-checkpoint"
    match behaviour:
        case "dies":
            await socket.close()
        case "other question":
            await socket.send_bytes(LinkAnswer(99_999, 200, "text/plain", b"").serialize())
        case "nonsense":
            await socket.send_bytes(b"\xff\xff")
        case "oversize":
            await socket.send_bytes(bytes(ANSWER_BYTES_MAX + 1))
        case "wrong":
            await socket.send_bytes(LinkAnswer(ask.number, 200, "t", b"hello\n").serialize())
        case "lies":
            # It claims to know more than there is.
            body = f"{SIZE_MAX}\n".encode()
            kind = "text/x.tlog.size"
            await socket.send_bytes(LinkAnswer(ask.number, 409, kind, body).serialize())
        case "text":
            await socket.send_str("hello")
        case _:
            assert behaviour == "silent"
    await sealing
    ended = {"dies", "other question", "nonsense", "oversize", "text"}
    if behaviour in ended:
        await wait_until(lambda: name not in half.context.channels)
    else:
        assert name in half.context.channels
    await socket.close()

    note = half.context.log.newest().note
    assert len(cosignatures(note, half.world.genesis.quorum.witnesses)) == 2


async def test_an_answer_that_comes_too_late_is_passed_over(half: Relay) -> None:
    name = third(half)
    socket = await knock(half, name)
    await wait_until(lambda: name in half.context.channels)
    await seal_one_more(half)
    late = await next_ask(socket)
    channel = half.context.channels[name]
    await wait_until(lambda: not channel._asked)
    await socket.send_bytes(LinkAnswer(late.number, 503, "text/plain", b"").serialize())
    await seal_one_more(half)

    assert half.context.channels[name] is channel
    await socket.close()


async def test_a_newer_link_takes_the_place_of_an_older_once_it_is_proven(half: Relay) -> None:
    name = third(half)
    older = await knock(half, name)
    await wait_until(lambda: name in half.context.channels)
    channel = half.context.channels[name]

    forger = await knock(half, name, SigningKey(b"S" * 32))
    assert await is_closed(forger)
    unproven = await half.session.ws_connect(half.url + WITNESS_LINK)
    await unproven.receive_bytes(timeout=20)
    assert half.context.channels[name] is channel
    await unproven.close()

    newer = await knock(half, name)
    assert await is_closed(older)
    await wait_until(lambda: half.context.channels.get(name) not in (None, channel))
    sealing = asyncio.create_task(seal_one_more(half))
    assert (await next_ask(newer)).path == "/add-checkpoint"
    await sealing
    await newer.close()


# The channel alone.


class Sent:
    """What was sent."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    async def send_bytes(self, data: bytes) -> None:
        self.frames.append(data)


async def test_a_link_carries_a_bounded_number_of_questions() -> None:
    """[R-15]"""
    sent = Sent()
    channel = LinkChannel("w", sent, 20)
    asking = [
        asyncio.create_task(channel.post("/add-checkpoint", b""))
        for _ in range(WITNESS_LINK_ASKS_MAX)
    ]
    await asyncio.sleep(0)
    with pytest.raises(ConnectionError):
        await channel.post("/add-checkpoint", b"")
    numbers = [Ask.parse(frame).number for frame in sent.frames]
    for number in reversed(numbers):
        channel.take(LinkAnswer(number, 200, "t", b"%d" % number).serialize())

    # Each gets the answer to its own question, in whatever order they come.
    assert [(await one).body for one in asking] == [b"%d" % number for number in numbers]
    assert len(set(numbers)) == WITNESS_LINK_ASKS_MAX


async def test_a_link_that_ends_tells_who_waits() -> None:
    channel = LinkChannel("w", Sent(), 20)
    asking = asyncio.create_task(channel.post("/add-checkpoint", b""))
    await asyncio.sleep(0)
    channel.end()

    with pytest.raises(ConnectionError):
        await asking
    with pytest.raises(ConnectionError):
        await channel.post("/add-checkpoint", b"")


async def test_a_link_over_which_nobody_answers_any_more_is_ended() -> None:
    """[R-15]"""
    channel = LinkChannel("w", Sent(), 0.001)
    for _ in range(SILENT_MAX):
        assert not channel.ended.is_set()
        with pytest.raises(TimeoutError):
            await channel.post("/add-checkpoint", b"")

    assert channel.ended.is_set()


async def test_an_answer_to_what_was_never_asked_is_refused() -> None:
    channel = LinkChannel("w", Sent(), 20)
    for number in (0, 1, 2):
        with pytest.raises(MalformedError, match="which was never asked"):
            channel.take(LinkAnswer(number, 200, "t", b"").serialize())
