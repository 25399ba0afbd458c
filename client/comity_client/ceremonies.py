"""How a State's root, a deployment, a desk and its devices come to be: pure functions.

Each gives what there is to sign, as a ``Pending`` statement that names whose signatures it takes.
Nothing here reads a file, a clock or a network; keys come in as arguments, statements go out.

    new_root        k of n custodians decide for a State
    found           the genesis: roots, relay, witness policy
    create_desk     a desk's first statement
    start_desk      the same with its first device and first epoch, signed in one go
    admit           a device joins
    turn            a new epoch
    remove          devices go, with the new epoch
    change_policy   custodians decide anew
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from comity_client.pending import (
    Ceremony,
    CeremonyError,
    Need,
    Option,
    Pending,
    Signer,
    by_custodians,
    by_device,
)
from comity_protocol.chain import Desk, Device
from comity_protocol.encoding import parse, serialize
from comity_protocol.epochs import EpochSecret, NewEpoch, box_for, box_hash, new_epoch
from comity_protocol.errors import MalformedError
from comity_protocol.fields import Fields
from comity_protocol.genesis import Genesis, Root, parse_genesis, parse_root
from comity_protocol.identifiers import (
    ID_BYTES,
    DeploymentId,
    DeskId,
    DeviceId,
    OfficerId,
    short,
)
from comity_protocol.keys import (
    FAST_PUBLIC_BYTES,
    FULL_PUBLIC_BYTES,
    SEAL_PUBLIC_BYTES,
    FullKey,
    check_fast_public,
    check_full_public,
    check_seal_public,
    key_id,
)
from comity_protocol.leaves import statement_hash
from comity_protocol.limits import CUSTODIANS_MAX, NAME_BYTES_MAX
from comity_protocol.policy import Policy as WitnessPolicy
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
)

CUSTODIAN_FILE_BYTES_MAX: Final = 4_096
ENROLMENT_BYTES_MAX: Final = 8_192


@dataclass(frozen=True, slots=True)
class Custodian:
    """The public half of a custodian's key, as a file that goes to whoever makes the root.

    Attributes:
        name: What the office calls the custodian, such as ``first``; stays out of the root.
        full: Composite public key.
    """

    name: str
    full: bytes

    def serialize(self) -> bytes:
        """Give the bytes of the file."""
        return serialize({"v": 1, "t": "custodian", "name": self.name, "full": self.full})

    @classmethod
    def parse(cls, data: bytes) -> "Custodian":
        """Read the file.

        Raises:
            MalformedError: It is no custodian's, or its key is unusable.
        """
        _check_size(data, CUSTODIAN_FILE_BYTES_MAX)
        fields = Fields.of(parse(data), "custodian", {"v", "t", "name", "full"})
        fields.integer("v", low=1, high=1)
        fields.text("t", choices=["custodian"])
        full = fields.bytes("full", length=FULL_PUBLIC_BYTES)
        check_full_public(full)
        return cls(fields.text("name", bytes_max=NAME_BYTES_MAX), full)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a new device asks: to be admitted to a desk, with these keys.

    Nothing in it is believed: whoever admits it compares the fingerprint with the newcomer by
    voice, and the newcomer's own signature stands under the admission [S-4].
    """

    deployment: DeploymentId
    desk: DeskId
    officer: OfficerId
    role: Role
    fast: bytes
    full: bytes
    seal: bytes

    @property
    def device(self) -> DeviceId:
        """The id that the device will have."""
        return DeviceId(key_id(self.full))

    def serialize(self) -> bytes:
        """Give the bytes of the file."""
        return serialize(
            {
                "v": 1,
                "t": "enrolment",
                "deployment": self.deployment,
                "desk": self.desk,
                "officer": self.officer,
                "role": self.role.value,
                "fast": self.fast,
                "full": self.full,
                "seal": self.seal,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> "Enrolment":
        """Read the file.

        Raises:
            MalformedError: It is no enrolment, or a key is unusable.
        """
        _check_size(data, ENROLMENT_BYTES_MAX)
        names = {"v", "t", "deployment", "desk", "officer", "role", "fast", "full", "seal"}
        fields = Fields.of(parse(data), "enrolment", names)
        fields.integer("v", low=1, high=1)
        fields.text("t", choices=["enrolment"])
        enrolment = cls(
            deployment=DeploymentId(fields.bytes("deployment", length=ID_BYTES)),
            desk=DeskId(fields.bytes("desk", length=ID_BYTES)),
            officer=OfficerId(fields.bytes("officer", length=ID_BYTES)),
            role=Role(fields.text("role", choices=[role.value for role in Role])),
            fast=fields.bytes("fast", length=FAST_PUBLIC_BYTES),
            full=fields.bytes("full", length=FULL_PUBLIC_BYTES),
            seal=fields.bytes("seal", length=SEAL_PUBLIC_BYTES),
        )
        check_fast_public(enrolment.fast)
        check_full_public(enrolment.full)
        check_seal_public(enrolment.seal)
        return enrolment


def new_root(code: str, threshold: int, publics: Collection[bytes]) -> Root:
    """Make a State's root.

    Args:
        code: ISO 3166 code or an organisation's: upper-case letters, digits, hyphens.
        threshold: How many custodians decide.
        publics: Their composite public keys, in any order.

    Raises:
        CeremonyError: A key is there twice, or the threshold can never be reached.
        MalformedError: The code is not one.
    """
    if len(set(publics)) != len(publics):
        raise CeremonyError("one custodian is there twice")
    if not 1 <= threshold <= len(publics) <= CUSTODIANS_MAX:
        raise CeremonyError(
            f"root is {threshold} of {len(publics)} custodians,"
            f" expected 1 to {CUSTODIANS_MAX} custodians and a threshold among them"
        )
    root = Root(code, threshold, tuple(sorted(publics, key=key_id)))
    return parse_root(root.serialize())


def found(
    *,
    policy: WitnessPolicy,
    anchors: WitnessPolicy | None = None,
    relay_key: bytes,
    roots: Sequence[Root],
) -> Ceremony:
    """Make the genesis of a deployment, to be signed by the threshold of every root.

    Args:
        policy: The log and its witnesses.
        anchors: The same with the witnesses' ML-DSA-44 keys, or None.
        relay_key: Fast public key of the relay.
        roots: Those of the founding States, in any order.

    Raises:
        CeremonyError: There is no root.
        MalformedError: A root or a key is there twice, or the anchors are not those of the policy.
    """
    if not roots:
        raise CeremonyError("deployment has no founding State, expected at least one root")
    ordered = tuple(sorted(roots, key=lambda root: root.code))
    genesis = Genesis(policy, anchors, relay_key, ordered)
    check_fast_public(relay_key)
    payload = genesis.serialize()
    parse_genesis(payload)
    return Ceremony((Pending(payload, tuple((_custodians(root),) for root in genesis.roots)),))


def create_desk(
    genesis: Genesis,
    desk: DeskId,
    *,
    party: str,
    authority: Authority,
    policy: Policy,
) -> Pending:
    """Make a desk's first statement, to be signed by its State's custodians."""
    root = root_of(genesis, party)
    link = Link(genesis.deployment, desk, 0, statement_hash(root.serialize()))
    payload = DeskStatement(link, party, authority, policy).serialize()
    return Pending(payload, ((_custodians(root),),))


def start_desk(
    genesis: Genesis,
    first: Enrolment,
    *,
    party: str,
    authority: Authority,
    policy: Policy,
    key: FullKey,
) -> Ceremony:
    """Make a desk with its first device and first epoch, for custodians to sign in one go.

    The three statements follow each other by hash of payload, so all can be made before any is
    signed. The device signs its own two parts here.

    Args:
        genesis: The deployment's.
        first: The first device; it becomes an admin's or an officer's as it asks.
        party: The State.
        authority: The desk's type.
        policy: The desk's policy.
        key: The first device's composite key.
    """
    creation = create_desk(genesis, first.desk, party=party, authority=authority, policy=policy)
    desk = Desk(
        id=first.desk,
        party=party,
        authority=authority,
        policy=policy,
        seq=0,
        head=statement_hash(creation.payload),
        devices=MappingProxyType({}),
        epochs=(),
    )
    admission = admit(genesis, desk, first, secret=None).sign(key)
    device = Device(
        first.device, first.fast, first.full, first.seal, first.officer, first.role, added_index=0
    )
    desk = replace(
        desk,
        seq=1,
        head=statement_hash(admission.payload),
        devices=MappingProxyType({device.id: device}),
    )
    epoch, _ = turn(genesis, desk, key.public, last=None)
    return Ceremony((creation, admission, epoch.sign(key)))


def admit(
    genesis: Genesis, desk: Desk, newcomer: Enrolment, *, secret: EpochSecret | None
) -> Pending:
    """Make the statement that a device joins.

    It takes the newcomer's signature, and those of the custodians or, for an officer's device, of
    as many admins as the desk's policy says.

    Args:
        genesis: The deployment's.
        desk: The desk as it is.
        newcomer: The request; compare its fingerprint with the newcomer first.
        secret: The desk's current epoch secret, which is sealed to the newcomer; None while the
            desk has no epoch.

    Raises:
        CeremonyError: The request is for another desk, or the secret is not the current epoch's.
    """
    if (newcomer.deployment, newcomer.desk) != (genesis.deployment, desk.id):
        raise CeremonyError(f"request is for desk {short(newcomer.desk)}, not {short(desk.id)}")
    if newcomer.device in desk.devices:
        raise CeremonyError(
            f"device {short(newcomer.device)} is or was a device of this desk;"
            " make a new one with `comity device new`"
        )
    if (desk.epoch.number if desk.epoch else None) != (secret.number if secret else None):
        raise CeremonyError(
            "the desk's current keys are needed to let a device in; run this from"
            " a profile of the desk that is synchronised"
        )
    boxes: tuple[tuple[DeviceId, bytes], ...] = ()
    if secret is not None:
        boxes = ((newcomer.device, box_for(desk.id, newcomer.device, newcomer.seal, secret)),)
    statement = DeviceStatement(
        next_link(genesis, desk),
        fast=newcomer.fast,
        full=newcomer.full,
        seal=newcomer.seal,
        officer=newcomer.officer,
        role=newcomer.role,
        box_hash=box_hash(boxes[0][1]) if boxes else None,
    )
    needs: tuple[Need, ...] = (
        (by_device(f"the new device {short(newcomer.device)}", newcomer.full),),
        _letting_in(genesis, desk, newcomer.role),
    )
    return Pending(statement.serialize(), needs, boxes=boxes)


def turn(
    genesis: Genesis, desk: Desk, signer: bytes, *, last: EpochSecret | None
) -> tuple[Pending, NewEpoch]:
    """Make the statement of the desk's next epoch, for one of its devices to sign.

    Args:
        genesis: The deployment's.
        desk: The desk as it is.
        signer: Composite public key of the device that signs it.
        last: The current epoch's secret; None only before the first.
    """
    epoch = _next_epoch(desk, list(desk.active.values()), last)
    payload = EpochStatement(next_link(genesis, desk), epoch.keys).serialize()
    need = (by_device(f"device {short(key_id(signer))}", signer),)
    return Pending(payload, (need,), boxes=epoch.boxes, previous=epoch.previous), epoch


def remove(
    genesis: Genesis,
    desk: Desk,
    gone: Collection[DeviceId],
    reason: Reason,
    *,
    last: EpochSecret,
) -> tuple[Pending, NewEpoch]:
    """Make the statement that devices go, with the epoch that they cannot read.

    It takes one admin, or one device of the same officer, or the custodians; never one that goes.

    Raises:
        CeremonyError: A device is not active, or nobody would be left.
    """
    active = desk.active
    if unknown := sorted(set(gone) - active.keys()):
        raise CeremonyError(f"device {short(unknown[0])} is not an active device of this desk")
    stay = [device for id_, device in active.items() if id_ not in gone]
    if not stay:
        raise CeremonyError(
            "removal would leave the desk without any device; admit the successor's device first"
        )
    epoch = _next_epoch(desk, stay, last)
    statement = RemovalStatement(
        next_link(genesis, desk), tuple(sorted(set(gone))), reason, epoch.keys
    )
    officers = {active[id_].officer for id_ in gone}
    signers = tuple(
        Signer(device.id, device.full)
        for device in stay
        if device.role is Role.ADMIN or officers == {device.officer}
    )
    root = root_of(genesis, desk.party)
    options: Need = (_custodians(root),)
    if signers:
        options = (Option("an admin, or a device of the same officer", 1, signers), *options)
    return (
        Pending(statement.serialize(), (options,), boxes=epoch.boxes, previous=epoch.previous),
        epoch,
    )


def change_policy(genesis: Genesis, desk: Desk, policy: Policy) -> Pending:
    """Make the statement of a new policy, to be signed by the custodians."""
    payload = PolicyStatement(next_link(genesis, desk), policy).serialize()
    return Pending(payload, ((_custodians(root_of(genesis, desk.party)),),))


def next_link(genesis: Genesis, desk: Desk) -> Link:
    """Give the place of a desk's next statement."""
    return Link(genesis.deployment, desk.id, desk.seq + 1, desk.head)


def root_of(genesis: Genesis, party: str) -> Root:
    """Give the root of a party.

    Raises:
        CeremonyError: It did not found this deployment.
    """
    for root in genesis.roots:
        if root.code == party:
            return root
    known = ", ".join(root.code for root in genesis.roots)
    raise CeremonyError(f"{party} is not a party of this deployment, expected one of {known}")


def _next_epoch(desk: Desk, members: Sequence[Device], last: EpochSecret | None) -> NewEpoch:
    if (desk.epoch.number if desk.epoch else 0) != (last.number if last else 0):
        raise CeremonyError("this device does not hold the desk's current keys; run `comity sync`")
    return new_epoch(desk, members, last)


def _custodians(root: Root) -> Option:
    return by_custodians(root.code, root.threshold, root.custodians)


def _letting_in(genesis: Genesis, desk: Desk, role: Role) -> Need:
    custodians = _custodians(root_of(genesis, desk.party))
    admins = tuple(
        Signer(device.officer, device.full)
        for device in desk.active.values()
        if device.role is Role.ADMIN
    )
    count = desk.policy.add_admins
    # SPEC [S-3]: an admin's device always needs the custodians.
    if role is Role.ADMIN or len({admin.who for admin in admins}) < count:
        return (custodians,)
    return (Option("the desk's admins" if count > 1 else "an admin", count, admins), custodians)


def _check_size(data: bytes, bytes_max: int) -> None:
    if len(data) > bytes_max:
        raise MalformedError(f"file is {len(data):,} bytes, expected at most {bytes_max:,}")
