"""A small deployment in memory: founding States, desks, officers, devices, and their statements.

Everything is real but the wires: real keys, real statements folded by the real directory, real
envelopes. States carry the invented codes XA to XZ.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from nacl.signing import SigningKey

from comity_protocol.acts import Act, Body, Event, Handling, Item, Person, sign_act
from comity_protocol.audit import AuditRecord, project
from comity_protocol.chain import Device
from comity_protocol.core import Core, Kind, core_hash
from comity_protocol.directory import Directory
from comity_protocol.envelope import (
    Address,
    Sealed,
    Sender,
    Thread,
    addresses,
    audit_key,
    audit_root,
    seal,
)
from comity_protocol.epochs import EpochSecret, NewEpoch, box_for, box_hash, new_epoch
from comity_protocol.genesis import Genesis, Root
from comity_protocol.identifiers import DeskId, DeviceId, EnvelopeId, ExchangeId, OfficerId
from comity_protocol.keys import AnchorKey, FastKey, FullKey, SealKey, key_id, random_bytes
from comity_protocol.policy import Policy as WitnessPolicy
from comity_protocol.profiles import PROFILES
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import KeyType, VerifierKey
from comity_protocol.statements import (
    Authority,
    DeskStatement,
    DeviceStatement,
    EpochStatement,
    Link,
    Policy,
    PolicyStatement,
    Reason,
    RemovalStatement,
    Role,
    SignedStatement,
    sign_statement,
)

ORIGIN: Final = "comity.example/test"


@dataclass(frozen=True, slots=True)
class Party:
    """A State's custodians with their keys."""

    root: Root
    keys: tuple[FullKey, ...]

    @classmethod
    def new(cls, code: str, custodians: int = 3, threshold: int = 2) -> "Party":
        """Make a root of fresh custodians."""
        keys = tuple(sorted((FullKey.generate() for _ in range(custodians)), key=_id_of))
        return cls(Root(code, threshold, tuple(key.public for key in keys)), keys)

    @property
    def quorum(self) -> tuple[FullKey, ...]:
        """Just enough custodians."""
        return self.keys[: self.root.threshold]


@dataclass(slots=True)
class Member:
    """An officer's device with all it holds.

    Attributes:
        secrets: Epoch secrets that it was given, by epoch number.
    """

    desk: DeskId
    officer: OfficerId
    role: Role
    fast: FastKey = field(default_factory=FastKey.generate)
    full: FullKey = field(default_factory=FullKey.generate)
    seal: SealKey = field(default_factory=SealKey.generate)
    secrets: dict[int, EpochSecret] = field(default_factory=dict)

    @property
    def id(self) -> DeviceId:
        """Its device id."""
        return DeviceId(key_id(self.full.public))

    @property
    def secret(self) -> EpochSecret:
        """The newest secret it was given."""
        return self.secrets[max(self.secrets)]


@dataclass(slots=True)
class World:
    """A deployment and everyone's keys.

    Attributes:
        statements: (leaf index, statement) in log order, the genesis first.
        anchor_keys: Those of the same witnesses; empty without anchors.
    """

    parties: dict[str, Party]
    log_key: SigningKey
    relay_key: FastKey
    witness_keys: dict[str, SigningKey]
    anchor_keys: dict[str, AnchorKey]
    directory: Directory
    statements: list[tuple[int, SignedStatement]]
    members: dict[DeviceId, Member] = field(default_factory=dict)

    @classmethod
    def found(
        cls,
        codes: Sequence[str] = ("XA", "XB"),
        *,
        witnesses: int = 3,
        quorum: int = 2,
        has_anchors: bool = False,
    ) -> "World":
        """Found a deployment; with ``has_anchors`` its witnesses have ML-DSA-44 keys too."""
        parties = {code: Party.new(code) for code in codes}
        log_key, relay_key = SigningKey.generate(), FastKey.generate()
        witness_keys = {
            f"witness{number}.example": SigningKey.generate() for number in range(witnesses)
        }
        anchor_keys = {name: AnchorKey.generate() for name in witness_keys if has_anchors}
        log = VerifierKey(ORIGIN, KeyType.ED25519, bytes(log_key.verify_key))
        genesis = Genesis(
            policy=WitnessPolicy(
                log, Quorum(quorum, tuple(map(cosigning_key, witness_keys, witness_keys.values())))
            ),
            anchors=WitnessPolicy(
                log, Quorum(quorum, tuple(map(anchoring_key, anchor_keys, anchor_keys.values())))
            )
            if has_anchors
            else None,
            relay_key=relay_key.public,
            roots=tuple(party.root for party in parties.values()),
        )
        signed = sign_statement(
            genesis.serialize(), [key for party in parties.values() for key in party.quorum]
        )
        directory = Directory.begin(signed, signed.hash)
        return cls(parties, log_key, relay_key, witness_keys, anchor_keys, directory, [(0, signed)])

    def refounded(self, policy: WitnessPolicy, anchors: WitnessPolicy | None = None) -> "World":
        """Found the same anew under another witness policy; desks are gone."""
        genesis = replace(self.genesis, policy=policy, anchors=anchors)
        keys = [key for party in self.parties.values() for key in party.quorum]
        signed = sign_statement(genesis.serialize(), keys)
        directory = Directory.begin(signed, signed.hash)
        return replace(self, directory=directory, statements=[(0, signed)], members={})

    @property
    def genesis(self) -> Genesis:
        """The deployment's genesis."""
        return self.directory.genesis

    @property
    def next_index(self) -> int:
        """A leaf index above all statements."""
        return self.directory.index + 1

    def publish(self, signed: SignedStatement, index: int | None = None) -> SignedStatement:
        """Fold a statement into everyone's directory, at the next leaf unless another is given."""
        at = self.next_index if index is None else index
        self.directory = self.directory.apply(signed, at)
        self.statements.append((at, signed))
        return signed

    def link(self, desk: DeskId) -> Link:
        """Give the link that the next statement of a desk carries."""
        current = self.directory.desk(desk)
        return Link(self.genesis.deployment, desk, current.seq + 1, current.head)

    def create_desk(
        self,
        code: str,
        authority: Authority = Authority.POLICE,
        *,
        policy: Policy | None = None,
        officers: int = 2,
        admins: int = 1,
    ) -> DeskId:
        """Create a desk with its first devices and epoch; gives its id."""
        desk = DeskId(random_bytes(16))
        party = self.parties[code]
        root_hash = SignedStatement(party.root.serialize(), ()).hash
        statement = DeskStatement(
            Link(self.genesis.deployment, desk, 0, root_hash), code, authority, policy or Policy()
        )
        self.publish(sign_statement(statement.serialize(), party.quorum))
        for number in range(officers):
            self.admit(desk, role=Role.ADMIN if number < admins else Role.OFFICER)
        self.turn(desk)
        return desk

    def custodians(self, desk: DeskId) -> tuple[FullKey, ...]:
        """Just enough custodians of the desk's State."""
        return self.parties[self.directory.desk(desk).party].quorum

    def admission(
        self, member: Member, *, by: Iterable[FullKey], giver: Member | None = None
    ) -> SignedStatement:
        """State that a device joins; ``giver`` boxes the epoch's secret for it."""
        desk = self.directory.desk(member.desk)
        boxes: list[tuple[DeviceId, bytes]] = []
        if desk.epoch is not None and giver is not None:
            boxes = [(member.id, box_for(desk.id, member.id, member.seal.public, giver.secret))]
        statement = DeviceStatement(
            self.link(desk.id),
            fast=member.fast.public,
            full=member.full.public,
            seal=member.seal.public,
            officer=member.officer,
            role=member.role,
            box_hash=box_hash(boxes[0][1]) if boxes else None,
        )
        return sign_statement(statement.serialize(), [member.full, *by], boxes=boxes)

    def admit(self, desk: DeskId, *, role: Role = Role.OFFICER) -> Member:
        """Admit a new officer's device, by the custodians."""
        member = Member(desk, OfficerId(random_bytes(16)), role)
        present = self.active(desk)
        giver = present[0] if self.directory.desk(desk).epoch and present else None
        self.publish(self.admission(member, by=self.custodians(desk), giver=giver))
        self.members[member.id] = member
        if giver:
            member.secrets = dict(giver.secrets)
        return member

    def active(self, desk: DeskId) -> list[Member]:
        """The members of a desk that are active, admins first, each ascending by device id."""
        members = [self.members[id_] for id_ in self.directory.desk(desk).active]
        return sorted(members, key=lambda member: member.role is not Role.ADMIN)

    def prepare_epoch(self, desk: DeskId, members: Sequence[Device] | None = None) -> NewEpoch:
        """Make the next epoch of a desk without stating it."""
        current = self.directory.desk(desk)
        chosen = list(current.active.values()) if members is None else members
        last = self.active(desk)[0].secret if current.epoch else None
        return new_epoch(current, chosen, last)

    def turn(self, desk: DeskId) -> NewEpoch:
        """Turn a desk's epoch, by its first active device."""
        epoch = self.prepare_epoch(desk)
        maker = self.active(desk)[0]
        statement = EpochStatement(self.link(desk), epoch.keys)
        self.publish(
            sign_statement(
                statement.serialize(), [maker.full], boxes=epoch.boxes, previous=epoch.previous
            )
        )
        self.hand_out(desk, epoch)
        return epoch

    def removal(
        self,
        desk: DeskId,
        gone: Sequence[Member],
        *,
        by: Sequence[FullKey],
        reason: Reason = Reason.LEAVER,
        epoch: NewEpoch | None = None,
    ) -> tuple[SignedStatement, NewEpoch]:
        """State that devices are gone, with the new epoch."""
        ids = sorted(member.id for member in gone)
        stay = [
            device for id_, device in self.directory.desk(desk).active.items() if id_ not in ids
        ]
        epoch = epoch or self.prepare_epoch(desk, stay)
        statement = RemovalStatement(self.link(desk), tuple(ids), reason, epoch.keys)
        signed = sign_statement(
            statement.serialize(), by, boxes=epoch.boxes, previous=epoch.previous
        )
        return signed, epoch

    def remove(self, desk: DeskId, gone: Sequence[Member], *, by: Member | None = None) -> None:
        """Remove devices, by the custodians unless a member is given."""
        keys = [by.full] if by else list(self.custodians(desk))
        signed, epoch = self.removal(desk, gone, by=keys)
        self.publish(signed)
        self.hand_out(desk, epoch)

    def set_policy(self, desk: DeskId, policy: Policy) -> None:
        """Change a desk's policy, by the custodians."""
        statement = PolicyStatement(self.link(desk), policy)
        self.publish(sign_statement(statement.serialize(), self.custodians(desk)))

    def hand_out(self, desk: DeskId, epoch: NewEpoch) -> None:
        """Give every active member the new secret."""
        for member in self.active(desk):
            member.secrets[epoch.keys.number] = epoch.secret

    def sender(self, member: Member) -> Sender:
        """Give what sealing needs to know of the sending device."""
        secret = member.secret
        return Sender(
            desk=member.desk,
            device=member.id,
            seq=self.directory.desk(member.desk).seq,
            key=member.fast,
            seeds={Kind.FILE: secret.file, Kind.LEAD: secret.leads[secret.number]},
        )

    def addresses(self, member: Member, to: DeskId, kind: Kind) -> tuple[Address, ...]:
        """Find whom an envelope from a member to a desk addresses."""
        return addresses(self.directory, member.desk, to, kind)

    def seal_act(
        self,
        member: Member,
        to: DeskId,
        act: Act,
        *,
        profile: str | None = None,
        head_key: bytes | None = None,
        thread: Thread | None = None,
        seen: bytes = bytes(32),
        record: AuditRecord | None = None,
        envelope_id: EnvelopeId | None = None,
    ) -> Sealed:
        """Seal an act as a client does, signed when its profile says so."""
        rules = PROFILES[profile or act.profile or "lead"]
        act_bytes = act.serialize()
        signature = None
        if act.event in rules.signed:
            signature = sign_act(
                member.full,
                act_bytes,
                deployment=self.genesis.deployment,
                sender=member.desk,
                receiver=to,
            )
        return seal(
            body=Body(act_bytes, signature).serialize(),
            audit=(record or project(act, head_key)).serialize(),
            to=self.addresses(member, to, rules.kind),
            sender=self.sender(member),
            seen=seen,
            envelope_id=envelope_id or EnvelopeId(random_bytes(16)),
            thread=thread,
        )


def cosigning_key(name: str, key: SigningKey) -> VerifierKey:
    """Give the public half of a witness's key."""
    return VerifierKey(name, KeyType.COSIGNATURE_V1, bytes(key.verify_key))


def anchoring_key(name: str, key: AnchorKey) -> VerifierKey:
    """Give the public half of a witness's key for anchors."""
    return VerifierKey(name, KeyType.MLDSA44, key.public)


def lead(text: str = "a vehicle was seen at the border", **changes: object) -> Act:
    """Make an opening lead."""
    fields: dict[str, object] = {
        "event": Event.LEAD,
        "exchange": ExchangeId(random_bytes(16)),
        "salt": random_bytes(32),
        "profile": "lead",
        "language": "en",
        "offences": ("TIP",),
        "urgency": "U0",
        "text": text,
        "handling": Handling("THIS_INVESTIGATION", "ASK", "OFFICE"),
    }
    return Act(**(fields | changes))  # type: ignore[arg-type]  # the test's own keywords


def request(text: str = "", **changes: object) -> Act:
    """Make a complete formal request (UNTOC art. 18(15))."""
    fields: dict[str, object] = {
        "event": Event.REQUEST,
        "exchange": ExchangeId(random_bytes(16)),
        "salt": random_bytes(32),
        "profile": "untoc18",
        "reference": "XA-2026-0001",
        "language": "en",
        "basis": ("UNTOC18",),
        "offences": ("TIP",),
        "urgency": "U3",
        "urgency_reason": "LIFE",
        "authority": "Office of the Prosecutor of XA",
        "proceeding": "investigation 1/26, trafficking in persons, public prosecutor",
        "facts": text or "two women were moved across the border in March",
        "items": (Item("M05", "search of the flat"), Item("M19", "where the driver lives")),
        "persons": (Person("VICTIM", "unknown"),),
        "purpose": "evidence in investigation 1/26",
        "victims": 2,
        "children": "NO",
        "handling": Handling("THIS_INVESTIGATION", "YES", "AUTHORITY"),
    }
    return Act(**(fields | changes))  # type: ignore[arg-type]  # the test's own keywords


def reply(event: Event, opening: Act, head: EnvelopeId, **changes: object) -> Act:
    """Make a later act of an exchange."""
    says: dict[Event, dict[str, object]] = {
        Event.LEAD: {"text": "more on this"},
        Event.ACKNOWLEDGE: {"authority": "Central Authority of XB"},
        Event.CONSULT: {"topic": "REFUSE", "text": "we may have to refuse"},
        Event.ANSWER: {"text": "the flat was searched"},
        Event.REFUSE: {"grounds": ("N03",), "text": "our law would not allow it"},
        Event.CLOSE: {},
    }
    fields: dict[str, object] = {
        "event": event,
        "exchange": opening.exchange,
        "salt": random_bytes(32),
        "head": head,
        **says[event],
    }
    return Act(**(fields | changes))  # type: ignore[arg-type]  # the test's own keywords


def audit_key_of(sealed: Sealed) -> bytes:
    """Give the audit key of a sealed envelope, which a reply's record carries."""
    return audit_key(audit_root(sealed.thread.root), sealed.id)


def held_of(*sealed: Sealed) -> tuple[tuple[EnvelopeId, bytes], ...]:
    """Give what a receipt for sealed envelopes names."""
    return tuple(sorted((one.id, core_hash(one.upload.core)) for one in sealed))


def core_of(sealed: Sealed) -> Core:
    """Read a sealed envelope's core."""
    return Core.parse(sealed.upload.core)


def _id_of(key: FullKey) -> bytes:
    return key_id(key.public)
