"""Who may ask, and who may read what: one gate for each kind of thing, and no other way in.

Rules:

* [R-6] A removed device's next request fails.
* [R-14] A mailbox is served only to its desk.

Something that does not exist and something that is not yours get the same answer after the same
work, so nobody learns of an envelope, a desk or a device by asking.

Mailbox, receipts and boxes take no desk as an argument at all: they are the caller's, by
construction.
"""

from dataclasses import dataclass

from aiohttp import web

from comity_protocol.errors import MalformedError
from comity_protocol.identifiers import DeviceId, parse_id
from comity_protocol.wire import AUTHORIZATION, SCHEME
from comity_server import tokens
from comity_server.body import read_body, require_no_body
from comity_server.checks import Caller
from comity_server.context import CONTEXT, Context
from comity_server.problems import Refused
from comity_server.store import EnvelopeRow


@dataclass(frozen=True, slots=True)
class Asking:
    """A verified token, its body not yet compared, and whose it is."""

    caller: Caller
    claims: tokens.Claims


async def caller_of_post(request: web.Request, *, bytes_max: int) -> tuple[Caller, bytes]:
    """Authenticate a request with a body, and read the body.

    The token is checked first, so that strangers cannot make the relay read bodies.

    Raises:
        Refused: Always with the reason that the caller may know.
    """
    asking = _authenticate(request)
    data = await read_body(request, bytes_max=bytes_max)
    tokens.check_body(asking.claims, data)
    return asking.caller, data


def caller_of_get(request: web.Request) -> Caller:
    """Authenticate a request without a body."""
    require_no_body(request)
    asking = _authenticate(request)
    tokens.check_body(asking.claims, b"")
    return asking.caller


def require_reader_of_get(request: web.Request) -> None:
    """Authenticate a request for what members and witnesses may read alike.

    Raises:
        Refused: It is by neither an active device nor a witness of the genesis.
    """
    context = request.app[CONTEXT]
    require_no_body(request)
    token = _token_of(request)
    claims = _read(context, token)
    if claims.kid in context.witness_keys:
        _check(context, token, claims, claims.kid, request.method, request.raw_path)
        context.replays.take(claims.kid, claims.jti, context.clock())
        tokens.check_body(claims, b"")
    else:
        caller_of_get(request)


def caller_of_token(context: Context, token: str, *, method: str, target: str) -> Asking:
    """Authenticate a token, wherever it came from.

    Raises:
        Refused: It is malformed, stale, replayed, for something else, or not by an active device.
    """
    claims = _read(context, token)
    found = context.members.find(DeviceId(claims.kid))
    # An unknown device costs the same check and gets the same answer as a wrong signature.
    _check(context, token, claims, None if found is None else found[1].fast, method, target)
    # SPEC: a removed device's next request fails.
    desk, device = context.members.active(DeviceId(claims.kid))
    context.replays.take(device.id, claims.jti, context.clock())
    return Asking(Caller(desk.id, device.id), claims)


def require_still_active(context: Context, caller: Caller) -> None:
    """Ask again after a wait: the device may have been removed meanwhile.

    Raises:
        Refused: It was.
    """
    # SPEC: a removed device's next request fails.
    context.members.active(caller.device)


async def envelope_for(context: Context, caller: Caller, envelope_id: bytes) -> EnvelopeRow:
    """Give an envelope's row to its sender's desk and to the desks that it addresses.

    Raises:
        Refused: There is none, or it is not for this desk.
    """
    row = await context.store.envelope(envelope_id)
    if row is None or caller.desk not in {row.sender_desk, *(to.desk for to in row.recipients)}:
        raise Refused("not-found", "there is no such envelope for you")
    return row


async def wrap_for(context: Context, caller: Caller, envelope_id: bytes) -> bytes:
    """Give a desk its own wrap of an envelope.

    Raises:
        Refused: There is none, or it is not for this desk.
    """
    wrap = await context.store.wrap(envelope_id, caller.desk)
    if wrap is None:
        raise Refused("not-found", "there is no such envelope for you")
    return wrap


def envelope_id_of(request: web.Request) -> bytes:
    """Read the envelope id in the path.

    Raises:
        Refused: It is no id; the same answer as for an envelope that is not there.
    """
    try:
        return parse_id(request.match_info["envelope"], "envelope")
    except MalformedError:
        raise Refused("not-found", "there is no such envelope for you") from None


def _authenticate(request: web.Request) -> Asking:
    return caller_of_token(
        request.app[CONTEXT],
        _token_of(request),
        method=request.method,
        target=request.raw_path,
    )


def _token_of(request: web.Request) -> str:
    # Two headers of a kind may be read as one by the one and as the other by another program.
    values = request.headers.getall(AUTHORIZATION, [])
    if len(values) != 1 or not values[0].startswith(SCHEME + " "):
        raise Refused("unauthenticated", "the request has no token of its scheme")
    return values[0].removeprefix(SCHEME + " ")


def _read(context: Context, token: str) -> tokens.Claims:
    claims = tokens.read(token)
    # SPEC [T-2]: the nonce is one that this process gave out at most ten minutes ago.
    if not context.nonces.is_good(claims.nonce, context.clock()):
        raise Refused("use-nonce", "the nonce is not one of the last ten minutes here")
    return claims


def _check(
    context: Context,
    token: str,
    claims: tokens.Claims,
    public: bytes | None,
    method: str,
    target: str,
) -> None:
    """Check that a token is by this key and for this request."""
    tokens.verify(token, public)
    tokens.check_request(
        claims, deployment=context.genesis.deployment.hex(), method=method, target=target
    )
