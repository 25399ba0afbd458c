"""The WebSocket that a witness opens: who it is, and then only what the relay asks.

Rules:

* [R-15] Frames, queues and waits have bounds.
"""

import asyncio
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

from comity_protocol.errors import ComityError
from comity_protocol.keys import random_bytes
from comity_protocol.limits import WITNESS_LINK_SECONDS_MAX
from comity_protocol.witness_link import ANSWER_BYTES_MAX, NONCE_BYTES, Challenge, Proof
from comity_server import observe
from comity_server.context import CONTEXT, Context
from comity_server.links import LinkChannel
from comity_server.problems import Refused
from comity_server.query import require_none
from comity_server.witnesses import Witness

CLOSE_SECONDS_MAX: Final = 2.0
HOLDER_SECONDS: Final = 5.0
"""How often it is asked whether this process still publishes."""

LINKS_MAX: Final = 128
"""Links that are open or being proven: twice as many as a genesis may have witnesses."""


async def get_witness_link(request: web.Request) -> web.WebSocketResponse:
    """Serve one link until either side closes it."""
    context = request.app[CONTEXT]
    require_none(request)
    if context.is_stopping:
        raise Refused("draining", "the relay is stopping", retry_after=2)
    if not context.relay.is_holder:
        # Only the process that publishes has anything to ask; behind a proxy the next try finds it.
        raise Refused("busy", "another process of this relay publishes", retry_after=1)
    # SPEC: every queue has a bound.
    if context.links >= LINKS_MAX:
        raise Refused("busy", "too many links are open", retry_after=5)
    socket = web.WebSocketResponse(
        timeout=CLOSE_SECONDS_MAX,
        max_msg_size=ANSWER_BYTES_MAX,
        compress=False,
    )
    if not socket.can_prepare(request):
        raise Refused("bad-request", "this path speaks WebSocket only")
    context.links += 1
    try:
        await socket.prepare(request)
        name = await _prove(context, socket)
        await _serve(context, socket, name)
    except (ComityError, ConnectionError, TimeoutError) as error:
        observe.event("witness-link-refused", error=type(error).__name__)
        await socket.close(code=WSCloseCode.POLICY_VIOLATION)
    finally:
        context.links -= 1
    return socket


async def _prove(context: Context, socket: web.WebSocketResponse) -> str:
    """Find out which witness this is.

    Raises:
        ComityError: It is none of the genesis's, or cannot prove it.
        TimeoutError: It does not answer.
    """
    challenge = Challenge(random_bytes(NONCE_BYTES))
    async with asyncio.timeout(WITNESS_LINK_SECONDS_MAX):
        await socket.send_bytes(challenge.serialize())
        message = await socket.receive()
    if message.type is not WSMsgType.BINARY:
        raise ConnectionError("link ended before it was proven")
    proof = Proof.parse(message.data)
    # A name that the genesis does not have costs the same check, against a key that it has.
    keys = {key.name: key for key in context.genesis.quorum.witnesses}
    key = keys.get(proof.name, context.genesis.quorum.witnesses[0])
    proof.verify(key, context.genesis.deployment, challenge)
    return proof.name


async def _serve(context: Context, socket: web.WebSocketResponse, name: str) -> None:
    """Let the witness be asked over this link, until it ends or a newer one takes its place."""
    genesis = context.genesis
    channel = LinkChannel(name, socket, context.settings.checkpoint_wait_seconds)
    keys = [key for key in genesis.quorum.witnesses if key.name == name]
    anchors = genesis.anchors.quorum.witnesses if genesis.anchors else ()
    witness = Witness(channel, keys, context.metrics, anchors)
    reader = asyncio.create_task(_read_forever(socket, channel))
    ender = asyncio.create_task(channel.ended.wait())
    if (older := context.channels.get(name)) is not None:
        older.end()
    context.channels[name] = channel
    context.witnesses.link(name, witness)
    observe.event("witness-linked", host=name)
    if context.log.size < context.relay.size:
        # A quorum may be there now; nobody needs to wait for the next try.
        context.relay.grown.set()
    try:
        while context.relay.is_holder:
            done, _ = await asyncio.wait(
                {reader, ender}, timeout=HOLDER_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                break
    finally:
        context.witnesses.unlink(name, witness)
        if context.channels.get(name) is channel:
            del context.channels[name]
        channel.end()
        for task in (reader, ender):
            task.cancel()
        await asyncio.gather(reader, ender, return_exceptions=True)
        observe.event("witness-unlinked", host=name)
    if not reader.cancelled():
        reader.result()
    await socket.close(code=WSCloseCode.GOING_AWAY)


async def _read_forever(socket: web.WebSocketResponse, channel: LinkChannel) -> None:
    async for message in socket:
        if message.type is not WSMsgType.BINARY:
            raise ConnectionError("a frame is not binary")
        channel.take(message.data)
