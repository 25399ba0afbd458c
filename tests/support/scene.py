"""An envelope, and those who have something to say of it: notices of each kind, signed or not."""

from dataclasses import dataclass

from comity_protocol.core import Core, core_hash
from comity_protocol.identifiers import DeskId, EnvelopeId
from comity_protocol.keys import random_bytes
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.notices import (
    Author,
    Erase,
    EraseBasis,
    Hold,
    HoldBasis,
    Notice,
    Release,
    Restored,
    Stamped,
    sign_notice,
    verify_notice,
)
from comity_protocol.stamps import Stamp, open_stamp, sign_stamp
from comity_protocol.statements import Authority, Policy, Role
from support.world import Member, World, core_of, lead

NOW = 1_800_000_000


@dataclass(frozen=True)
class Scene:
    """An envelope from one desk to another, with an auditor, and a stranger."""

    world: World
    core: Core
    home: DeskId
    other: DeskId
    auditor: DeskId
    stranger: DeskId

    def member(self, desk: DeskId, role: Role = Role.ADMIN) -> Member:
        return next(one for one in self.world.active(desk) if one.role is role)

    def author(self, member: Member) -> Author:
        return Author(self.world.genesis.deployment, member.desk, member.id, 3, bytes(32))

    def stamp(self, number: int, at: int = NOW, *, what: bytes | None = None) -> Stamp:
        deployment = self.world.genesis.deployment
        stamped = core_hash(self.core.serialize()) if what is None else what
        key = self.world.genesis.quorum.witnesses[number]
        signed = sign_stamp(self.world.witness_keys[key.name], deployment, stamped, at)
        return open_stamp(signed, deployment, stamped, key)

    def stamped(self, member: Member, *stamps: Stamp) -> Stamped:
        shown = tuple(sorted(stamps)) or (self.stamp(0), self.stamp(1))
        hash_ = core_hash(self.core.serialize())
        return Stamped(self.author(member), self.core.id, hash_, shown)

    def erase(self, member: Member, *ids: EnvelopeId) -> Erase:
        return Erase(self.author(member), ids or (self.core.id,), EraseBasis.DATA_SUBJECT)

    def hold(self, member: Member, *ids: EnvelopeId) -> Hold:
        return Hold(self.author(member), ids or (self.core.id,), HoldBasis.PROCEEDINGS)

    def release(self, member: Member, *ids: EnvelopeId) -> Release:
        return Release(self.author(member), ids or (self.core.id,))

    def restored(self) -> Restored:
        return Restored(
            deployment=self.world.genesis.deployment,
            incarnation=random_bytes(16),
            had=900,
            size=1_000,
            lost=3,
            at=NOW,
        )

    def verify(self, member: Member, notice: Notice) -> Notice:
        return verify_notice(sign_notice(member.fast, notice), self.world.directory, index=SIZE_MAX)


def found_scene() -> Scene:
    """Let one desk send a lead to another."""
    world = World.found()
    auditor = world.create_desk("XA", Authority.SECRETARIAT)
    home = world.create_desk("XA", policy=Policy(auditors_lead=(auditor,)))
    other = world.create_desk("XB")
    core = core_of(world.seal_act(world.active(home)[0], other, lead()))
    return Scene(world, core, home, other, auditor, world.create_desk("XB"))
