"""Officers come and go in any order: who signs and who reads stays what the statements say.

A machine of random steps keeps a model beside the chain: who is active, which secrets each device
was given. After each step everyone who is active, and nobody else, opens the newest epoch.
"""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from comity_protocol.core import Core, Kind
from comity_protocol.envelope import Sealed, open_body, open_wrap, verify_core
from comity_protocol.epochs import EpochSecret, box_for, open_box, open_previous
from comity_protocol.errors import MalformedError, OpenError, VerificationError
from comity_protocol.identifiers import DeskId, DeviceId, OfficerId
from comity_protocol.keys import FullKey, SealKey, random_bytes
from comity_protocol.limits import LEAD_SEEDS_MAX
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.statements import (
    EpochStatement,
    Policy,
    PolicyStatement,
    Role,
    SignedStatement,
    sign_statement,
)
from support.world import Member, World, lead

_PICK = st.integers(min_value=0, max_value=1 << 16)


class Membership(RuleBasedStateMachine):
    """A desk under a random history of honest and hostile statements."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World.found()
        self.other = self.world.create_desk("XB")
        self.desk = self.world.create_desk("XA", officers=3, admins=2)
        self.model: set[DeviceId] = {member.id for member in self.world.active(self.desk)}
        self.gone: list[Member] = []
        self.boxes = dict(self.world.statements[-1][1].boxes)
        self.previous: dict[int, bytes] = {}
        self.first_file = self.world.active(self.desk)[0].secrets[1].file
        self.deleted: set[int] = set()
        self.after_removal: list[tuple[Sealed, frozenset[DeviceId]]] = []

    # Honest steps.

    @precondition(lambda self: len(self.model) < 6)
    @rule(role=st.sampled_from(Role), by_admins=st.booleans(), pick=_PICK)
    def admit(self, role: Role, by_admins: bool, pick: int) -> None:
        giver = self._member(pick)
        member = Member(self.desk, OfficerId(random_bytes(16)), role)
        admins = self._admins()
        enough = by_admins and role is Role.OFFICER and len(admins) >= 2
        keys = [admin.full for admin in admins[:2]] if enough else self.custodians()
        signed = self.world.publish(self.world.admission(member, by=keys, giver=giver))
        self.world.members[member.id] = member
        self.boxes[member.id] = signed.boxes[0][1]
        member.secrets[giver.secret.number] = self._open(member)
        assert set(member.secret.leads) == set(giver.secret.leads)
        self.model.add(member.id)

    @precondition(lambda self: len(self.model) > 1)
    @rule(pick=_PICK, by=_PICK)
    def remove(self, pick: int, by: int) -> None:
        leaver = self._member(pick)
        admins = [admin for admin in self._admins() if admin is not leaver]
        keys = [admins[by % len(admins)].full] if admins and by % 2 else self.custodians()
        signed, _ = self.world.removal(self.desk, [leaver], by=keys)
        self.model.remove(leaver.id)
        self.gone.append(leaver)
        self._publish_epoch(signed)
        self._seal_something()

    @rule()
    def turn(self) -> None:
        epoch = self.world.prepare_epoch(self.desk)
        statement = EpochStatement(self.world.link(self.desk), epoch.keys)
        self._publish_epoch(
            sign_statement(
                statement.serialize(),
                [self._member(0).full],
                boxes=epoch.boxes,
                previous=epoch.previous,
            )
        )

    @rule(days=st.integers(min_value=1, max_value=366))
    def set_policy(self, days: int) -> None:
        self.world.set_policy(self.desk, Policy(epoch_days=days))

    @rule()
    def delete_old_leads(self) -> None:
        """Everyone deletes the lead seeds before the newest, as the clients do in time."""
        for member in self.world.active(self.desk):
            secret = member.secret
            kept = {secret.number: secret.leads[secret.number]}
            self.deleted |= secret.leads.keys() - kept.keys()
            member.secrets = {secret.number: replace(secret, leads=kept)}

    # Hostile steps: each is refused and changes nothing.

    @precondition(lambda self: self.gone)
    @rule(pick=_PICK)
    def a_leaver_comes_back(self, pick: int) -> None:
        leaver = self.gone[pick % len(self.gone)]
        again = replace(leaver, seal=SealKey.generate())
        self._refused(
            self.world.admission(again, by=self.custodians(), giver=self._member(pick)), r"\[S-8\]"
        )

    @precondition(lambda self: self.gone)
    @rule(pick=_PICK)
    def a_leaver_publishes_an_epoch(self, pick: int) -> None:
        epoch = self.world.prepare_epoch(self.desk)
        statement = EpochStatement(self.world.link(self.desk), epoch.keys)
        self._refused(
            sign_statement(
                statement.serialize(),
                [self.gone[pick % len(self.gone)].full],
                boxes=epoch.boxes,
                previous=epoch.previous,
            ),
            r"\[S-2\]",
        )

    @rule(pick=_PICK)
    def one_device_lets_a_ghost_in(self, pick: int) -> None:
        ghost = Member(self.desk, OfficerId(random_bytes(16)), Role.OFFICER)
        by = self._member(pick)
        self._refused(self.world.admission(ghost, by=[by.full], giver=by), r"\[S-3\]")

    @rule(pick=_PICK)
    def a_member_changes_the_policy(self, pick: int) -> None:
        payload = PolicyStatement(self.world.link(self.desk), Policy(add_admins=1)).serialize()
        self._refused(sign_statement(payload, [self._member(pick).full]), r"\[S-11\]")

    @precondition(lambda self: len(self.model) > 1)
    @rule(pick=_PICK)
    def a_maker_shuts_a_colleague_out(self, pick: int) -> None:
        maker, *others = self.world.active(self.desk)
        devices = self.world.directory.desk(self.desk).active
        chosen = [devices[member.id] for member in [maker, *others[1:]]]
        epoch = self.world.prepare_epoch(self.desk, chosen)
        statement = EpochStatement(self.world.link(self.desk), epoch.keys)
        self._refused(
            sign_statement(
                statement.serialize(), [maker.full], boxes=epoch.boxes, previous=epoch.previous
            ),
            r"\[S-7\]",
        )

    @rule(pick=_PICK)
    def an_old_statement_is_replayed(self, pick: int) -> None:
        replayed = self.world.statements[1 + pick % (len(self.world.statements) - 1)][1]
        self._refused(replayed, r"\[S-1\]")

    @rule(pick=_PICK)
    def a_box_with_other_keys_is_handed_out(self, pick: int) -> None:
        member = self._member(pick)
        forged = replace(member.secret, file=random_bytes(32))
        box = box_for(self.desk, member.id, member.seal.public, forged)
        with pytest.raises(VerificationError, match=r"\[S-13\]"):
            self._open(member, box)

    # What always holds.

    @invariant()
    def active_devices_are_those_of_the_model(self) -> None:
        """[S-2] [S-3] [S-5]"""
        desk = self.world.directory.desk(self.desk)
        assert desk.active.keys() == self.model
        assert desk.is_sealable

    @invariant()
    def boxes_open_for_active_devices_alone(self) -> None:
        """[S-7] [S-9] [S-13]"""
        for member in self.world.active(self.desk):
            secret = self._open(member)
            assert secret.number == self._number()
        for leaver in self.gone:
            for box in self.boxes.values():
                with pytest.raises(OpenError):
                    self._open(leaver, box)

    @invariant()
    def any_member_walks_back_to_the_first_epoch(self) -> None:
        """[S-13]"""
        desk = self.world.directory.desk(self.desk)
        seed = self._open(self._member(0)).file
        for number in range(self._number(), 1, -1):
            seed = open_previous(
                self.previous[number],
                seed,
                desk=self.desk,
                epoch=desk.epochs[number - 1].keys,
                before=desk.epochs[number - 2].keys,
            )
        assert seed == self.first_file

    @invariant()
    def lead_seeds_are_handed_on_until_they_are_deleted(self) -> None:
        """[S-13] Neither fewer nor more."""
        held = set(self._member(0).secret.leads)
        newest = range(max(1, self._number() - LEAD_SEEDS_MAX + 1), self._number() + 1)
        assert held & set(newest) == set(newest) - self.deleted

    @invariant()
    def nothing_sealed_after_a_removal_opens_for_a_leaver(self) -> None:
        """[S-6] [E-4] [E-7]"""
        for sealed, gone in self.after_removal[-2:]:
            core = verify_core(
                sealed.upload.core, sealed.upload.signature, self.world.directory, index=SIZE_MAX
            )
            for leaver in (member for member in self.gone if member.id in gone):
                self._assert_closed(core, sealed, leaver)

    # Helpers.

    def custodians(self) -> list[FullKey]:
        return list(self.world.custodians(self.desk))

    def _assert_closed(self, core: Core, sealed: Sealed, leaver: Member) -> None:
        entry = core.recipient(self.desk)
        assert entry is not None
        wrap = sealed.upload.wraps[core.to.index(entry)]
        for secret in leaver.secrets.values():
            for seed in (secret.file, *secret.leads.values()):
                with pytest.raises(OpenError):
                    open_wrap(core, wrap, entry, seed)
                with pytest.raises(OpenError):
                    open_body(core, sealed.upload.body, seed)

    def _seal_something(self) -> None:
        """The other desk writes to this one, to the epoch that the removal made."""
        sealed = self.world.seal_act(self.world.active(self.other)[0], self.desk, lead())
        gone = frozenset(member.id for member in self.gone)
        self.after_removal.append((sealed, gone))
        core = Core.parse(sealed.upload.core)
        entry = core.recipient(self.desk)
        assert entry is not None
        assert (entry.epoch, entry.kind) == (self._number(), Kind.LEAD)
        seed = self._open(self._member(0)).leads[entry.epoch]
        open_wrap(core, sealed.upload.wraps[core.to.index(entry)], entry, seed)

    def _publish_epoch(self, signed: SignedStatement) -> None:
        self.world.publish(signed)
        self.boxes = dict(signed.boxes)
        assert signed.previous is not None
        self.previous[self._number()] = signed.previous
        for member in self.world.active(self.desk):
            member.secrets[self._number()] = self._open(member)

    def _refused(self, signed: SignedStatement, message: str) -> None:
        before = self.world.directory
        with pytest.raises((VerificationError, MalformedError), match=message):
            self.world.publish(signed)
        assert self.world.directory is before

    def _open(self, member: Member, box: bytes | None = None) -> EpochSecret:
        desk = self.world.directory.desk(self.desk)
        assert desk.epoch is not None
        return open_box(
            self.boxes[member.id] if box is None else box,
            member.seal,
            desk=desk,
            device=member.id,
            epoch=desk.epoch,
        )

    def _number(self) -> int:
        epoch = self.world.directory.desk(self.desk).epoch
        assert epoch is not None
        return epoch.number

    def _member(self, pick: int) -> Member:
        active = self.world.active(self.desk)
        return active[pick % len(active)]

    def _admins(self) -> list[Member]:
        return [member for member in self.world.active(self.desk) if member.role is Role.ADMIN]


_LONG = settings.get_profile("long").max_examples
_IS_LONG = settings().max_examples == _LONG

TestMembership = Membership.TestCase
TestMembership.settings = settings(
    max_examples=150 if _IS_LONG else 8, stateful_step_count=40 if _IS_LONG else 15
)


def test_a_leavers_box_of_an_epoch_before_stays_open_to_him_and_that_is_known() -> None:
    """[S-6] A removal shuts out of the future; what he could read, he may have copied."""
    world = World.found(("XA",))
    desk: DeskId = world.create_desk("XA", officers=3)
    box = dict(world.statements[-1][1].boxes)
    leaver = world.active(desk)[0]
    before = world.directory.desk(desk)
    world.remove(desk, [leaver])

    assert before.epoch is not None
    secret = open_box(
        box[leaver.id], leaver.seal, desk=before, device=leaver.id, epoch=before.epoch
    )

    assert secret.file == leaver.secret.file
