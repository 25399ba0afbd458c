"""What every handler of one relay process shares."""

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from comity_protocol.genesis import Genesis
from comity_protocol.statements import SignedStatement
from comity_server.links import LinkChannel
from comity_server.log import Log
from comity_server.members import Members
from comity_server.metrics import Metrics
from comity_server.notices import Notices
from comity_server.relay import Relay
from comity_server.settings import Settings
from comity_server.store import Store
from comity_server.tokens import Nonces, ReplayCache
from comity_server.witnesses import Witnesses

TRACE_HEADER: Final = "Comity-Trace"
_TRACE_BYTES: Final = 8


@dataclass(slots=True)
class Context:
    """The parts of a running relay.

    Attributes:
        genesis: Of the deployment.
        signed_genesis: The same with its signatures, as served.
        clock: Seconds since 1970 UTC.
        waiting: Long polls that wait now.
        reading: Bodies of requests without a token that are being read now.
        sockets: Open WebSockets by device.
        witnesses: Every way to a witness.
        links: Connections that witnesses opened, proven or not.
        channels: The proven ones by the witness's name.
    """

    genesis: Genesis
    signed_genesis: SignedStatement
    settings: Settings
    store: Store
    members: Members
    relay: Relay
    log: Log
    metrics: Metrics
    clock: Callable[[], float]
    notices: Notices
    nonces: Nonces = field(default_factory=Nonces)
    replays: ReplayCache = field(default_factory=ReplayCache)
    waiting: int = 0
    reading: int = 0
    sockets: Counter[bytes] = field(default_factory=Counter)
    witnesses: Witnesses = field(default_factory=Witnesses)
    links: int = 0
    channels: dict[str, LinkChannel] = field(default_factory=dict)
    is_stopping: bool = False

    @property
    def witness_keys(self) -> frozenset[bytes]:
        """The public keys of the genesis's witnesses, by which their tokens name them."""
        return frozenset(key.public_key for key in self.genesis.quorum.witnesses)


CONTEXT: Final = web.AppKey("context", Context)
TRACE: Final = web.RequestKey("trace", str)


def trace_of(request: web.Request) -> str:
    """Give the id of a request, by which an operator finds it in the log."""
    if TRACE not in request:
        request[TRACE] = secrets.token_hex(_TRACE_BYTES)
    return request[TRACE]
