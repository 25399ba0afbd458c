"""A desk's chain: who may sign and read for it, as the fold of its statements.

``apply`` takes a desk as it was and one signed statement and gives the desk as it is, or refuses.
Relay, clients, auditors and witnesses all run this same function over the same bytes in leaf
order, so nobody needs to believe another about a key. What a chain rests on is in ``genesis.py``.

Rules:

* [S-1] Every statement names this deployment and desk, the next position and the hash before it.
* [S-2] Each signer counts once, and is in the active set, or a custodian, before the statement.
* [S-3] Two to let in: a device needs the policy's number of admins of distinct officers, or the
  custodians' threshold; an admin's device always needs the custodians.
* [S-4] A device proves possession of its composite key by signing its own admission.
* [S-5] One to throw out: an admin, a device of the same officer, or the custodians; never one of
  those who go.
* [S-6] Removal and the new epoch are one statement.
* [S-7] An epoch's number is the last plus one and its members are exactly the active set.
* [S-8] A device id, and a key, never returns.
* [S-9] Boxes are those whose hash the statement signed, one for each member.
* [S-10] The desk's authority type and party are fixed at its creation.
* [S-11] Only custodians create a desk and change its policy.

Ghost devices, ghost officers, swapped keys, forked chains, replays into another desk or
deployment, and a leaver who publishes an epoch all fail one of these.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from types import MappingProxyType
from typing import assert_never

from comity_protocol.errors import VerificationError
from comity_protocol.genesis import Genesis, Root
from comity_protocol.identifiers import DeskId, DeviceId, OfficerId, short
from comity_protocol.keys import (
    check_fast_public,
    check_full_public,
    check_seal_public,
    key_id,
)
from comity_protocol.limits import CHAIN_STATEMENTS_MAX, DEVICES_MAX
from comity_protocol.statements import (
    Authority,
    DeskStatement,
    DeviceStatement,
    EpochKeys,
    EpochStatement,
    Link,
    Policy,
    PolicyStatement,
    RemovalStatement,
    Role,
    SignedStatement,
    Statement,
    boxes_hash,
    parse_statement,
    verify_signatures,
)


@dataclass(frozen=True, slots=True)
class Device:
    """A device of an officer, dead or alive.

    Attributes:
        added_index: Leaf index of its admission.
        removed_index: Leaf index of its removal; None while it is active.
    """

    id: DeviceId
    fast: bytes
    full: bytes
    seal: bytes
    officer: OfficerId
    role: Role
    added_index: int
    removed_index: int | None = None

    def is_active_at(self, index: int) -> bool:
        """Whether it could sign what stands at this leaf index."""
        if index <= self.added_index:
            return False
        return self.removed_index is None or index < self.removed_index


@dataclass(frozen=True, slots=True)
class Epoch:
    """Sealing keys of the desk and the leaf index from which they hold."""

    keys: EpochKeys
    index: int


@dataclass(frozen=True, slots=True)
class Desk:
    """A desk after a prefix of its chain.

    Attributes:
        seq: Position of its newest statement.
        head: Hash of its newest statement.
        devices: Every device it ever had, by id.
        epochs: Every epoch, the first at position 0.
    """

    id: DeskId
    party: str
    authority: Authority
    policy: Policy
    seq: int
    head: bytes
    devices: Mapping[DeviceId, Device]
    epochs: tuple[Epoch, ...]

    @property
    def active(self) -> dict[DeviceId, Device]:
        """The devices that may sign and read now, ascending by id."""
        return {
            id_: self.devices[id_]
            for id_ in sorted(self.devices)
            if self.devices[id_].removed_index is None
        }

    @property
    def epoch(self) -> EpochKeys | None:
        """The newest sealing keys; None before the first epoch."""
        return self.epochs[-1].keys if self.epochs else None

    @property
    def is_sealable(self) -> bool:
        """Whether nobody outside the active set holds the newest epoch's secrets."""
        return self.epoch is not None and self.active.keys() >= set(self.epoch.members)


def apply(desk: Desk | None, signed: SignedStatement, *, genesis: Genesis, index: int) -> Desk:
    """Fold one statement into a desk.

    Args:
        desk: The desk before; None when the statement creates it.
        signed: The statement; not yet verified.
        genesis: The deployment's, verified.
        index: Leaf index of the statement; higher than of any before.

    Raises:
        MalformedError: The payload is not a statement of a chain, or a key in it is unusable.
        VerificationError: A rule of the module's list is broken; the message names it.
    """
    statement = parse_statement(signed.payload)
    if desk is None:
        return _create(statement, signed, genesis, index)
    _check_link(statement.link, desk, genesis)
    root = _root_of(genesis, desk.party)
    known = {id_: device.full for id_, device in desk.active.items()} | root.custodian_keys
    if isinstance(statement, DeviceStatement):
        # The newcomer's own key counts as proof of possession only, see _admit.
        newcomer = DeviceId(key_id(statement.full))
        if newcomer in desk.devices or newcomer in known:
            # SPEC [S-8]: a device id, and a key, never returns.
            raise VerificationError(f"device {short(newcomer)} was here before [S-8]")
        known[newcomer] = statement.full
    signers = verify_signatures(signed, known)
    after = _fold(desk, statement, signed, root, signers, index)
    return replace(after, seq=statement.link.seq, head=signed.hash)


def _fold(
    desk: Desk,
    statement: Statement,
    signed: SignedStatement,
    root: Root,
    signers: set[bytes],
    index: int,
) -> Desk:
    match statement:
        case DeviceStatement():
            return _admit(desk, statement, signed, root, signers, index)
        case EpochStatement():
            return _turn(desk, statement.epoch, signed, signers, index)
        case RemovalStatement():
            return _remove(desk, statement, signed, root, signers, index)
        case PolicyStatement():
            return _change_policy(desk, statement, signed, root, signers)
        case DeskStatement():
            # SPEC [S-10]: the desk's authority type and party are fixed at its creation.
            raise VerificationError("desk statement after the first [S-1]")
        case _:
            assert_never(statement)


def _create(statement: Statement, signed: SignedStatement, genesis: Genesis, index: int) -> Desk:
    if not isinstance(statement, DeskStatement):
        raise VerificationError("chain begins with another statement than a desk's [S-1]")
    link = statement.link
    root = _root_of(genesis, statement.party)
    signers = verify_signatures(signed, root.custodian_keys)
    expected = Link(genesis.deployment, link.desk, 0, SignedStatement(root.serialize(), ()).hash)
    # SPEC [S-1]: every statement names this deployment and desk, position and hash before it.
    if link != expected:
        raise VerificationError("desk statement does not follow its State root [S-1]")
    _require_custodians(root, signers)
    _check_no_boxes(signed)
    return Desk(
        id=link.desk,
        party=statement.party,
        authority=statement.authority,
        policy=statement.policy,
        seq=0,
        head=signed.hash,
        devices=MappingProxyType({}),
        epochs=(),
    )


def _check_link(link: Link, desk: Desk, genesis: Genesis) -> None:
    # SPEC [S-1]: every statement names this deployment and desk, position and hash before it.
    if link.deployment != genesis.deployment:
        raise VerificationError("statement is for another deployment [S-1]")
    if link.desk != desk.id:
        raise VerificationError("statement is for another desk [S-1]")
    if link.seq != desk.seq + 1 or link.previous != desk.head:
        raise VerificationError(
            f"statement {link.seq} does not follow statement {desk.seq} of desk"
            f" {short(desk.id)} [S-1]; fetch the chain and make it again"
        )
    if link.seq >= CHAIN_STATEMENTS_MAX:
        raise VerificationError(f"chain is longer than {CHAIN_STATEMENTS_MAX:,} statements")


def _root_of(genesis: Genesis, party: str) -> Root:
    for root in genesis.roots:
        if root.code == party:
            return root
    raise VerificationError(f"{party} is not a party of this deployment")


def _require_custodians(root: Root, signers: Collection[bytes]) -> None:
    given = len(root.custodian_keys.keys() & set(signers))
    if given < root.threshold:
        raise VerificationError(
            f"statement has {given} signatures of {root.code}'s custodians,"
            f" expected {root.threshold} [S-11]"
        )


def _has_custodians(root: Root, signers: Collection[bytes]) -> bool:
    return len(root.custodian_keys.keys() & set(signers)) >= root.threshold


def _admit(
    desk: Desk,
    statement: DeviceStatement,
    signed: SignedStatement,
    root: Root,
    signers: set[bytes],
    index: int,
) -> Desk:
    newcomer = DeviceId(key_id(statement.full))
    # SPEC [S-4]: a device proves possession of its composite key by signing its own admission.
    if newcomer not in signers:
        raise VerificationError(f"device {short(newcomer)} did not sign its own admission [S-4]")
    fast_keys = {device.fast for device in desk.devices.values()}
    # SPEC [S-8]: a device id, and a key, never returns.
    if statement.fast in fast_keys or statement.seal in _seal_keys(desk):
        raise VerificationError("a key of the new device was another's before [S-8]")
    check_fast_public(statement.fast)
    check_full_public(statement.full)
    check_seal_public(statement.seal)
    admins = {
        device.officer
        for id_, device in desk.active.items()
        if id_ in signers and device.role is Role.ADMIN
    }
    # SPEC [S-3]: two to let in; an admin's device always needs the custodians.
    if not _has_custodians(root, signers):
        if statement.role is Role.ADMIN:
            raise VerificationError("an admin's device needs the custodians' signatures [S-3]")
        if len(admins) < desk.policy.add_admins:
            raise VerificationError(
                f"admission has {len(admins)} admins' signatures,"
                f" expected {desk.policy.add_admins} or the custodians' [S-3]"
            )
    if len(desk.active) >= DEVICES_MAX:
        raise VerificationError(f"desk has {DEVICES_MAX} devices already; remove one first")
    _check_admission_box(desk, statement, signed, newcomer)
    device = Device(
        id=newcomer,
        fast=statement.fast,
        full=statement.full,
        seal=statement.seal,
        officer=statement.officer,
        role=statement.role,
        added_index=index,
    )
    return replace(desk, devices=MappingProxyType({**desk.devices, newcomer: device}))


def _check_admission_box(
    desk: Desk, statement: DeviceStatement, signed: SignedStatement, newcomer: DeviceId
) -> None:
    """The newcomer gets exactly one box when the desk has an epoch, and none before."""
    # SPEC [S-9]: a box for a newcomer once the desk has an epoch, none before.
    if (statement.box_hash is None) != (desk.epoch is None):
        raise VerificationError(
            "admission must name a box once the desk has an epoch, and none before [S-9]"
        )
    if signed.is_bare:
        _check_no_boxes(signed)
        return
    hashes = [(device, sha256(box).digest()) for device, box in signed.boxes]
    expected = [] if statement.box_hash is None else [(newcomer, statement.box_hash)]
    # SPEC [S-9]: boxes are those whose hash the statement signed.
    if hashes != expected or signed.previous is not None:
        raise VerificationError("admission's box is not the one that was signed [S-9]")


def _turn(
    desk: Desk, epoch: EpochKeys, signed: SignedStatement, signers: set[bytes], index: int
) -> Desk:
    if not signers <= desk.active.keys():
        raise VerificationError("an epoch is signed by the desk's active devices only [S-2]")
    return _with_epoch(desk, epoch, signed, index)


def _remove(
    desk: Desk,
    statement: RemovalStatement,
    signed: SignedStatement,
    root: Root,
    signers: set[bytes],
    index: int,
) -> Desk:
    gone = set(statement.gone)
    if not gone <= desk.active.keys():
        raise VerificationError("removal names a device that is not active [S-5]")
    # SPEC [S-5]: one to throw out, never one of those who go.
    if gone & signers:
        raise VerificationError("a device that goes signed its own removal and new epoch [S-5]")
    officers = {desk.devices[device].officer for device in gone}
    if not _has_custodians(root, signers) and not any(
        device.role is Role.ADMIN or officers == {device.officer}
        for id_, device in desk.active.items()
        if id_ in signers
    ):
        raise VerificationError(
            "removal needs an admin, a device of the same officer, or the custodians [S-5]"
        )
    devices = {
        id_: replace(device, removed_index=index) if id_ in gone else device
        for id_, device in desk.devices.items()
    }
    # SPEC [S-6]: removal and the new epoch are one statement.
    return _with_epoch(
        replace(desk, devices=MappingProxyType(devices)), statement.epoch, signed, index
    )


def _with_epoch(desk: Desk, epoch: EpochKeys, signed: SignedStatement, index: int) -> Desk:
    # SPEC [S-7]: the number is the last plus one and members are exactly the active set.
    number = desk.epoch.number + 1 if desk.epoch else 1
    if epoch.number != number:
        raise VerificationError(f"epoch is {epoch.number}, expected {number} [S-7]")
    if epoch.members != tuple(desk.active):
        raise VerificationError("epoch's members are not exactly the active devices [S-7]")
    if signed.is_bare:
        _check_no_boxes(signed)
    else:
        _check_epoch_boxes(epoch, signed)
    check_seal_public(epoch.file)
    check_seal_public(epoch.lead)
    # SPEC [S-8]: a device id, and a key, never returns.
    if epoch.file == epoch.lead or _seal_keys(desk) & {epoch.file, epoch.lead}:
        raise VerificationError("epoch's keys are not fresh [S-8]")
    return replace(desk, epochs=(*desk.epochs, Epoch(epoch, index)))


def _check_epoch_boxes(epoch: EpochKeys, signed: SignedStatement) -> None:
    # SPEC [S-9]: boxes are those whose hash the statement signed, one for each member.
    if tuple(device for device, _ in signed.boxes) != epoch.members:
        raise VerificationError("epoch does not have one box for each member [S-9]")
    if (signed.previous is None) != (epoch.number == 1):
        raise VerificationError("every epoch but the first seals the seed before it [S-9]")
    if boxes_hash(signed.boxes, signed.previous) != epoch.boxes_hash:
        raise VerificationError("epoch's boxes are not those that were signed [S-9]")


def _seal_keys(desk: Desk) -> set[bytes]:
    """Give every sealing key that the desk ever had, its devices' and its epochs'."""
    epochs = {key for past in desk.epochs for key in (past.keys.file, past.keys.lead)}
    return epochs | {device.seal for device in desk.devices.values()}


def _change_policy(
    desk: Desk,
    statement: PolicyStatement,
    signed: SignedStatement,
    root: Root,
    signers: set[bytes],
) -> Desk:
    # SPEC [S-11]: only custodians create a desk and change its policy.
    _require_custodians(root, signers)
    _check_no_boxes(signed)
    return replace(desk, policy=statement.policy)


def _check_no_boxes(signed: SignedStatement) -> None:
    if signed.boxes or signed.previous is not None:
        raise VerificationError("statement comes with boxes, expected none [S-9]")
