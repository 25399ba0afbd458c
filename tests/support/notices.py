"""Notices as devices sign them."""

from collections.abc import Sequence

from comity_protocol.identifiers import EnvelopeId
from comity_protocol.notices import (
    Author,
    DeskNotice,
    Erase,
    EraseBasis,
    Hold,
    HoldBasis,
    Release,
    sign_notice,
)
from comity_protocol.receipts import Signed
from comity_protocol.statements import Role
from support.relay import Answer, Relay
from support.world import Member


def author(relay: Relay, member: Member) -> Author:
    """Who gives a notice, having seen the newest checkpoint."""
    genesis = relay.world.genesis
    seq = relay.world.directory.desk(member.desk).seq
    seen = relay.context.log.newest().note_hash
    return Author(genesis.deployment, member.desk, member.id, seq, seen)


def erase(relay: Relay, member: Member, ids: Sequence[EnvelopeId]) -> Erase:
    return Erase(author(relay, member), tuple(sorted(ids)), EraseBasis.CASE_CLOSED)


def hold(relay: Relay, member: Member, ids: Sequence[EnvelopeId]) -> Hold:
    return Hold(author(relay, member), tuple(sorted(ids)), HoldBasis.PROCEEDINGS)


def release(relay: Relay, member: Member, ids: Sequence[EnvelopeId]) -> Release:
    return Release(author(relay, member), tuple(sorted(ids)))


async def give(
    relay: Relay, member: Member, notice: DeskNotice, *, by: Member | None = None
) -> Answer:
    """Sign a notice as one device and post it, as the same unless another is given."""
    return await post(relay, by or member, sign_notice(member.fast, notice))


async def post(relay: Relay, member: Member, signed: Signed) -> Answer:
    return await relay.as_device(member, "POST", "/v1/notices", signed.serialize())


def device_of(relay: Relay, member: Member, role: Role) -> Member:
    """A device of the same desk with this role."""
    return next(one for one in relay.world.active(member.desk) if one.role is role)
