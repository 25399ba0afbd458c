"""Envelopes and receipts: sent by devices, and looked up by those whom they concern."""

from aiohttp import web

from comity_protocol.encoding import Value, parse
from comity_protocol.leaves import prove_counter
from comity_protocol.limits import RECEIPT_BYTES_MAX, UPLOAD_BYTES_MAX
from comity_server import access
from comity_server.context import CONTEXT
from comity_server.handlers import replies
from comity_server.query import require_none
from comity_server.store import EnvelopeRow
from comity_server.store_values import commitments_of

_SIGNED_RECEIPT_BYTES_MAX = RECEIPT_BYTES_MAX + 128


async def post_envelope(request: web.Request) -> web.Response:
    """Take an envelope; answer with the promise once it is committed."""
    caller, data = await access.caller_of_post(request, bytes_max=UPLOAD_BYTES_MAX)
    require_none(request)
    return replies.promise(await request.app[CONTEXT].relay.offer_envelope(data, caller))


async def post_receipt(request: web.Request) -> web.Response:
    """Take a receipt, likewise."""
    caller, data = await access.caller_of_post(request, bytes_max=_SIGNED_RECEIPT_BYTES_MAX)
    require_none(request)
    return replies.promise(await request.app[CONTEXT].relay.offer_receipt(data, caller))


async def get_envelope(request: web.Request) -> web.Response:
    """Tell where an envelope stands."""
    context = request.app[CONTEXT]
    caller = access.caller_of_get(request)
    require_none(request)
    row = await access.envelope_for(context, caller, access.envelope_id_of(request))
    counter, proof = _place(row, caller.desk)
    return replies.binary(
        {
            "promise": parse(row.promise),
            "index": row.leaf_index,
            "counter": counter,
            "proof": proof,
        }
    )


async def get_wrap(request: web.Request) -> web.Response:
    """Give the calling desk its wrap of an envelope, its own or that of the one it refers to."""
    context = request.app[CONTEXT]
    caller = access.caller_of_get(request)
    require_none(request)
    if context.relay.gate is not None:
        # SPEC: after a restore erasures are carried out again before anything is served.
        context.relay.gate.require_whole()
    return replies.binary(await access.wrap_for(context, caller, access.envelope_id_of(request)))


def _place(row: EnvelopeRow, desk: bytes) -> tuple[int | None, Value]:
    """Give the counter that an envelope has in the mailbox of a desk, and the proof of it."""
    places = [place for place, to in enumerate(row.recipients) if to.desk == desk]
    if row.counters is None or not places:
        return None, None
    # SPEC [L-7]: a recipient learns its own mailbox counter and nobody else's.
    proof = prove_counter(places[0], desk, row.blind, commitments_of(row))
    return row.counters[places[0]], proof.to_value()
