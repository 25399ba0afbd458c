"""A relay with its witnesses over real HTTP on 127.0.0.1, and devices that talk to it.

Everything is what a deployment runs: a SQLite file, the signer's own file, aiohttp servers on free
ports, and the witness program of the client.
"""

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final

import jwt
from aiohttp import ClientResponse, ClientSession, ClientWebSocketResponse, web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from comity_client.witness import Witness, serve_witness
from comity_client.witness_state import WitnessKey, WitnessState
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.envelope import Sealed
from comity_protocol.identifiers import DeskId
from comity_protocol.receipts import Signed
from comity_protocol.statements import Authority, Policy
from comity_server.app import listening, running
from comity_server.context import Context
from comity_server.settings import Settings
from comity_server.store import Store
from comity_server.stores import open_store
from support.world import Member, World, lead

CBOR: Final = {"Content-Type": "application/cbor"}


class Clock:
    """A clock that tests move; it starts at the real time and runs on from there."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead  # noqa: TID251 - the outermost place, as in __main__


@dataclass(slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> dict[str, Any]:
        """The body, a map in the protocol's encoding."""
        value = parse(self.body)
        assert isinstance(value, dict), value
        return value

    @property
    def promise(self) -> Signed:
        """The body, a promise."""
        assert self.status == 200, self.body
        return Signed.parse(self.body)

    @property
    def problem(self) -> dict[str, Any]:
        """The body as a problem."""
        assert self.headers["Content-Type"] == "application/problem+json", self.body
        problem: dict[str, Any] = json.loads(self.body)
        return problem

    @property
    def code(self) -> str:
        """The problem's stable code."""
        return str(self.problem["code"])


@dataclass(slots=True)
class Relay:
    """A running relay and the world that it serves."""

    world: World
    url: str
    context: Context
    session: ClientSession
    clock: Clock
    nonce: str = ""
    posted: int = 1
    answers: list[int] = field(default_factory=list)

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """Send a request without a token."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if body and "Content-Type" not in given:
            given |= CBOR
        async with self.session.request(
            method, self.url + path, data=body or None, headers=given
        ) as response:
            return await self._answer(response)

    async def as_device(
        self, member: Member, method: str, path: str, body: bytes = b"", **changes: object
    ) -> Answer:
        """Send a request with the token of a device; ``changes`` alter its claims."""
        if not self.nonce:
            await self.ask("GET", "/v1/nonce")
        token = self.token(member, method, path, body, **changes)
        return await self.ask(method, path, body, Authorization=f"Comity {token}")

    def token(
        self, member: Member, method: str, path: str, body: bytes = b"", **changes: object
    ) -> str:
        """Make a token."""
        claims = self.claims(method, path, body) | changes
        return sign_token(member, claims)

    def claims(self, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        """Make the claims of a token."""
        return {
            "aud": self.world.genesis.deployment.hex(),
            "htm": method,
            "htu": path,
            "bh": base64url(hashlib.sha256(body).digest()),
            "n": self.nonce,
            "jti": secrets.token_urlsafe(16),
        }

    async def publish(self) -> None:
        """Post the statements of the world that the relay does not have."""
        for _, signed in self.world.statements[self.posted :]:
            answer = await self.ask("POST", "/v1/statements", signed.serialize())
            assert answer.status == 200, answer.body
        self.posted = len(self.world.statements)
        await self.seal()

    async def seal(self) -> bytes:
        """Wait until the witnessed checkpoint covers everything; give the hash of its note."""
        await wait_until(lambda: self.context.log.size >= self.context.relay.size)
        return self.context.log.newest().note_hash

    async def send(self, member: Member, to: DeskId, **changes: object) -> tuple[Sealed, Answer]:
        """Seal a lead and post it."""
        sealed = self.seal_lead(member, to, **changes)
        return sealed, await self.post(member, sealed)

    def seal_lead(self, member: Member, to: DeskId, **changes: object) -> Sealed:
        """Seal a lead under the newest checkpoint."""
        seen = self.context.log.newest().note_hash
        given: dict[str, Any] = {"seen": seen} | changes
        return self.world.seal_act(member, to, lead(), **given)

    async def post(self, member: Member, sealed: Sealed) -> Answer:
        """Post a sealed envelope."""
        return await self.as_device(member, "POST", "/v1/envelopes", sealed.upload.serialize())

    @asynccontextmanager
    async def socket(self, member: Member) -> AsyncIterator["Socket"]:
        """Open a WebSocket and authenticate."""
        if not self.nonce:
            await self.ask("GET", "/v1/nonce")
        async with self.session.ws_connect(self.url + "/v1/socket") as raw:
            socket = Socket(raw)
            await socket.put("token", self.token(member, "GET", "/v1/socket"))
            assert await socket.get() == ["ready"]
            yield socket

    async def _answer(self, response: ClientResponse) -> Answer:
        self.nonce = response.headers["Comity-Nonce"]
        return Answer(response.status, dict(response.headers), await response.read())


@dataclass(frozen=True, slots=True)
class Stand:
    """A relay, two desks of two States, and a device of each."""

    relay: Relay
    sender: Member
    receiver: Member

    @property
    def to(self) -> DeskId:
        """The receiving desk."""
        return self.receiver.desk


@dataclass(slots=True)
class Socket:
    """The client's end of a WebSocket."""

    raw: ClientWebSocketResponse

    async def put(self, *parts: Value) -> None:
        """Send a frame."""
        await self.raw.send_bytes(serialize(list(parts)))

    async def get(self) -> list[Any]:
        """Take the next frame."""
        frame = parse(await self.raw.receive_bytes(timeout=20))
        assert isinstance(frame, list), frame
        return frame


def sign_token(member: Member, claims: dict[str, Any], **headers: object) -> str:
    """Sign a token with a device's fast key, as another implementation would."""
    key = Ed25519PrivateKey.from_private_bytes(member.fast.seed)
    header = {"typ": "comity+jwt", "kid": member.id.hex()} | headers
    return jwt.encode(claims, key, algorithm="EdDSA", headers=header)


def base64url(data: bytes) -> str:
    """Write base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Let the relay work until something holds."""
    async with asyncio.timeout(seconds):
        for _ in count():
            if holds():
                return
            await asyncio.sleep(0.002)


@asynccontextmanager
async def witness(
    path: Path, name: str, world: World, clock: Callable[[], float]
) -> AsyncIterator[str]:
    """Run one witness of the world; give its URL."""
    key = WitnessKey(name, world.witness_keys[name])
    memory = path / f"{name}.sqlite"
    state = (
        WitnessState.open(memory, key.verifier_key)
        if memory.exists()
        else WitnessState.create(memory, key.verifier_key)
    )
    log = world.genesis.log
    runner = web.AppRunner(serve_witness(Witness(state, key, [log], lambda: int(clock()))))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
        state.close()


@asynccontextmanager
async def relay(
    path: Path,
    world: World,
    *,
    clock: Clock | None = None,
    witnesses: int | None = None,
    urls: Sequence[str] = (),
    database: str = "",
    **settings: object,
) -> AsyncIterator[Relay]:
    """Run the relay of a world with its witnesses.

    Args:
        path: Folder of everything that it keeps.
        world: Whose genesis and keys it has.
        clock: The relay's and the witnesses'.
        witnesses: How many of the world's to run; all unless given.
        urls: Witnesses that run already.
        database: Its address; an SQLite file in ``path`` unless given.
        settings: Of the relay, other than those that tests always want.
    """
    clock = clock or Clock()
    async with AsyncExitStack() as stack:
        names = sorted(world.witness_keys)[:witnesses]
        urls = [
            *urls,
            *[await stack.enter_async_context(witness(path, name, world, clock)) for name in names],
        ]
        given: dict[str, Any] = {
            "data": path,
            "database": database,
            "port": 0,
            "witnesses": tuple(urls),
            "checkpoint_seconds": 0.01,
            "poll_seconds": 0.05,
            "drain_seconds": 5.0,
        }
        chosen = Settings(**(given | settings))
        store = await stack.enter_async_context(opened(chosen.database_url))
        context = await stack.enter_async_context(
            running(
                settings=chosen,
                store=store,
                genesis=world.statements[0][1],
                log_key=world.log_key,
                relay_key=world.relay_key,
                clock=clock,
            )
        )
        url = await stack.enter_async_context(listening(context))
        session = await stack.enter_async_context(ClientSession(auto_decompress=False))
        yield Relay(world, url, context, session, clock)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    """Open a store and close it."""
    store = open_store(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def small_world() -> tuple[World, DeskId, DeskId]:
    """Found a deployment with one police desk in each of two States."""
    world, one, other = _founded()
    members = {
        id_: replace(member, secrets=dict(member.secrets)) for id_, member in world.members.items()
    }
    return replace(world, statements=list(world.statements), members=members), one, other


@cache
def _founded() -> tuple[World, DeskId, DeskId]:
    """Draw the keys once for the whole run; each test gets a copy that it may change."""
    world = World.found()
    return world, world.create_desk("XA"), world.create_desk("XB")


def audited_world() -> tuple[World, DeskId, DeskId, DeskId]:
    """The same with a secretariat that both desks' policies demand as auditor."""
    world = World.found(("XA", "XB", "SEC"))
    auditor = world.create_desk("SEC", Authority.SECRETARIAT)
    policy = Policy(auditors_file=(auditor,), auditors_lead=(auditor,))
    sender = world.create_desk("XA", policy=policy)
    return world, sender, world.create_desk("XB", policy=policy), auditor
