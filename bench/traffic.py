"""B: what a light witness costs on its line: bytes of asking and answering, exact.

Over HTTP the relay's own code asks a witness through a proxy that counts, one connection for each
question, as ten minutes are longer than a connection is kept. Over a link the frames are those of
the code that makes them, with WebSocket heads and the pings between them. TLS is not counted in
either; what one handshake adds is measured beside them.
"""

import secrets
import ssl
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from aiohttp import ClientSession, TCPConnector
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from comity_client.witness import Witness as LightWitness
from comity_client.witness import serve_witness
from comity_client.witness_link import HEARTBEAT_SECONDS
from comity_client.witness_state import WitnessKey, WitnessState
from comity_protocol.checkpoint import cosign, sign_checkpoint
from comity_protocol.merkle import Frontier, consistency_proof
from comity_protocol.witness_link import Ask, LinkAnswer
from comity_protocol.witnessing import ADD_CHECKPOINT, AddCheckpoint
from comity_server.metrics import Metrics
from comity_server.witnesses import Address, Witness
from sizes import from_relay, to_relay
from support.liars import served
from support.meter import Meter, metered
from support.world import World

ENTRIES: Final = 1_000_000
HEARTBEATS: Final = 144
MINUTES: Final = 1_440
DAY_SECONDS: Final = 86_400
GROWTH: Final = 50
"""Entries between two checkpoints when there is one a minute."""

_ASKED: Final = 40
_PING_BYTES: Final = 2 + 6
_WAIT_SECONDS: Final = 10.0
_ANSWER_TYPE: Final = "text/plain"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of a day, both directions.

    Attributes:
        http_quiet: Over HTTP with a heartbeat every ten minutes and nothing added.
        http_busy: Over HTTP with a checkpoint a minute over more entries.
        link_quiet: The first over a link.
        link_busy: The second over a link.
        handshake: Of one TLS 1.3 handshake with a chain of two certificates, which each question
            over HTTPS costs besides.
    """

    http_quiet: float
    http_busy: float
    link_quiet: float
    link_busy: float
    handshake: int


class _Log:
    """A log of random hashes, with all tile hashes in memory."""

    def __init__(self, world: World, size: int) -> None:
        self._world: Final = world
        self._frontier = Frontier()
        self._hashes: Final[dict[int, list[bytes]]] = {0: []}
        self.grow(size)

    @property
    def size(self) -> int:
        return self._frontier.size

    def grow(self, count: int) -> None:
        """Add entries."""
        leaves = [secrets.token_bytes(32) for _ in range(count)]
        growth = self._frontier.grow(leaves)
        self._hashes[0] += leaves
        for tile in growth.tile_hashes:
            self._hashes.setdefault(tile.level, []).append(tile.hash)
        self._frontier = growth.frontier

    def note(self) -> bytes:
        """The head with the log's signature, as witnesses are asked to cosign it."""
        world = self._world
        return sign_checkpoint(
            origin=world.genesis.origin,
            size=self.size,
            root=self._frontier.root,
            key=world.log_key,
        )

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """Prove, as ``comity_server.log`` does."""
        return consistency_proof(
            old, new, lambda level, start, count: self._hashes[level][start : start + count]
        )


async def run(folder: Path, size: int) -> Traffic:
    """Ask a witness of a log of ``size`` entries, quiet and growing."""
    world = World.found(witnesses=1, quorum=1)
    log = _Log(world, size)
    quiet = await _over_http(folder / "quiet", world, log, 0)
    busy = await _over_http(folder / "busy", world, log, GROWTH)
    pings = DAY_SECONDS / HEARTBEAT_SECONDS * _PING_BYTES
    link_quiet = await _over_link(world, log, 0)
    link_busy = await _over_link(world, log, GROWTH)
    return Traffic(
        http_quiet=HEARTBEATS * quiet,
        http_busy=MINUTES * busy,
        link_quiet=HEARTBEATS * link_quiet + pings,
        link_busy=MINUTES * link_busy + pings,
        handshake=_handshake(folder),
    )


async def _over_http(memory: Path, world: World, log: _Log, growth: int) -> float:
    """Give the bytes of one question with its answer."""
    ((name, key),) = world.witness_keys.items()
    own, meter = WitnessKey(name, key), Meter()
    state = WitnessState.create(memory, own.verifier_key)
    app = serve_witness(LightWitness(state, own, [world.genesis.log], lambda: int(time.time())))
    async with (
        served(app) as there,
        metered(there, meter) as url,
        ClientSession(connector=TCPConnector(force_close=True)) as session,
    ):
        address = Address(url, session, _WAIT_SECONDS)
        witness = Witness(address, [own.verifier_key], Metrics())
        # The first question is another one: nothing is known of the witness yet.
        assert await witness.cosign(log.note(), log.size, log.consistency, is_anchor=False)
        before = meter.count
        for _ in range(_ASKED):
            log.grow(growth)
            assert await witness.cosign(log.note(), log.size, log.consistency, is_anchor=False)
        asked = (meter.count - before) / _ASKED
    state.close()
    return asked


async def _over_link(world: World, log: _Log, growth: int) -> float:
    """Give the bytes of one question with its answer, from the code that makes the frames."""
    ((name, key),) = world.witness_keys.items()
    count = 0
    for number in range(1, _ASKED + 1):
        old = log.size
        log.grow(growth)
        note, hashes = log.note(), await log.consistency(old, log.size)
        body = AddCheckpoint(old_size=old, hashes=hashes, note=note).serialize()
        line = cosign(note, name, key, int(time.time())).serialize().encode()
        count += from_relay(Ask(number, ADD_CHECKPOINT, body).serialize())
        count += to_relay(LinkAnswer(number, 200, _ANSWER_TYPE, line).serialize())
    return count / _ASKED


def _handshake(folder: Path) -> int:
    """Count what two ends of TLS write until both are ready."""
    _write_chain(folder)
    answering = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    answering.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    asking = ssl.create_default_context(cafile=str(folder / "root.pem"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        asking.wrap_bio(to_client, to_server, server_hostname="witness.example"),
        answering.wrap_bio(to_server, to_client, server_side=True),
    ]
    count, ready = 0, set[int]()
    written = (to_server, to_client)
    while len(ready) < len(ends):
        for place, end in enumerate(ends):
            try:
                end.do_handshake()
                ready.add(place)
            except ssl.SSLWantReadError:
                pass
            data = written[place].read()
            count += len(data)
            written[place].write(data)
    return count


def _write_chain(folder: Path) -> None:
    """Write a root, and a chain of a leaf and one authority between, of P-256 keys."""
    names = ("Root of the measurement", "Authority of the measurement", "witness.example")
    now = datetime.now().astimezone()
    above: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None = None
    made: list[x509.Certificate] = []
    key = ec.generate_private_key(ec.SECP256R1())
    for common in names:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
        issuer, signer = above or (name, key)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(common != names[-1], None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(names[-1])]), critical=False)
            .sign(signer, SHA256())
        )
        made.append(certificate)
        above = name, key
    pem = [one.public_bytes(Encoding.PEM) for one in made]
    (folder / "root.pem").write_bytes(pem[0])
    (folder / "chain.pem").write_bytes(pem[2] + pem[1])
    (folder / "key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
