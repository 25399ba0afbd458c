"""Checks a certificate with nothing but itself and the hash of the genesis.

1. The genesis is the one whose hash was pinned, or printed; it names log, witnesses and quorum.
2. The envelope's entry, made of the core and the places, leads to a root that the log signed and
   a quorum of witnesses cosigned.
3. Desk and device were stated under that root, and signed for by custodians of a founding root or
   by an admin for whom they signed.
4. That device signed the core.
5. What else is there holds too: the checkpoint that the author had seen, receipts, stamps.
6. What opens the body opens the ciphertext that the core names, and a full signature in it is by
   the same device.

It does not show that the device had not been removed before the act: that takes all statements,
which an auditor has and a court can ask any witness for. The relay refuses, and a witness that
replays does not cosign, what a removed device signs.

Rules:

* [V-4] A certificate is verified with nothing but itself and the printed hash of the genesis, and
  shows what was not opened.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from comity_client.certificate.record import Admission, Certificate, KeptReceipt
from comity_client.proofs import verify_proof
from comity_protocol.acts import Act, Body, act_id, verify_act
from comity_protocol.checkpoint import Checkpoint, WitnessedCheckpoint, note_hash, verify_quorum
from comity_protocol.core import Core, Part, core_hash
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.genesis import Genesis, Root, parse_genesis
from comity_protocol.identifiers import DeskId, DeviceId, short
from comity_protocol.keys import Context, decrypt, key_id, verify_fast
from comity_protocol.leaves import receipt_leaf, statement_hash, statement_leaf
from comity_protocol.log_proof import LogProof, verify_log_proof
from comity_protocol.merkle import leaf_hash, verify_inclusion
from comity_protocol.padding import unpad
from comity_protocol.receipts import Receipt, Signed, check_confirms
from comity_protocol.stamps import stamped_at, verify_stamp
from comity_protocol.statements import (
    DeskStatement,
    DeviceStatement,
    Role,
    parse_statement,
    verify_signatures,
)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A device as the statement says that let it in, and where that stands in the log."""

    index: int
    statement: DeviceStatement


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A receipt that holds: by which desk, and when it was in the log."""

    receipt: Receipt
    index: int
    under: WitnessedCheckpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What the body says.

    Attributes:
        act: The act.
        act_id: Its id, 32 bytes.
        is_signed: Whether it carries the full signature of the device, which was verified.
    """

    act: Act
    act_id: bytes
    is_signed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A certificate that holds, and what follows from it.

    Attributes:
        certificate: As it was read.
        genesis: Of the deployment.
        genesis_hash: As pinned.
        core: Of the envelope.
        index: Its leaf index.
        places: The second half of its entry.
        under: The checkpoint that covers it; its sealed time is when the act is proven.
        not_before: Sealed time of what the author had seen, UTC seconds; None when unknown.
        desks: What the certificate shows of desks, by id.
        device: The device that signed.
        confirmed: Receipts, in the certificate's order.
        stamped_at: When a quorum of witnesses stamped it; None without a quorum of stamps.
        opened: What the body says; None when it stays closed.
    """

    certificate: Certificate
    genesis: Genesis
    genesis_hash: bytes
    core: Core
    index: int
    places: bytes
    under: WitnessedCheckpoint
    not_before: int | None
    desks: Mapping[DeskId, DeskStatement]
    device: Admitted
    confirmed: tuple[Confirmed, ...]
    stamped_at: int | None
    opened: Opened | None


def check_certificate(certificate: Certificate, genesis_hash: bytes) -> Checked:
    """Check everything that a certificate shows.

    Args:
        certificate: As read; nothing in it is believed.
        genesis_hash: 32 bytes, pinned at enrolment or read from paper.

    Raises:
        MalformedError, LimitError: A part cannot be read.
        VerificationError: A part does not hold; the message says which.
        OpenError: The key does not open the body.

    Source: PROTOCOL [V-4], [D-1], [L-2], [L-3], [L-8], [E-1], [E-2], [Q-1], [Q-3], [P-4].
    """
    # (1)
    # SPEC [V-4]: with nothing but itself and the printed hash of the genesis.
    if statement_hash(certificate.genesis) != genesis_hash:
        raise VerificationError("certificate is of another genesis than the printed hash")
    genesis = parse_genesis(certificate.genesis)
    # (2)
    core = Core.parse(certificate.core)
    proof = LogProof.parse(certificate.proof)
    under = verify_proof(proof, certificate.core, genesis)
    # (3)
    received = [_receipt(one, genesis) for one in certificate.receipts]
    largest = max((under, *(one.under for one in received)), key=lambda one: one.checkpoint.size)
    known = _Admissions(genesis)
    for admission in certificate.admissions:
        known.take(admission, largest.checkpoint)
    device = known.device(core.device, core.sender, before=proof.index)
    # (4)
    verify_fast(device.statement.fast, Context.ENVELOPE, certificate.core, certificate.signature)
    # (5)
    not_before = _seen(certificate, core, genesis)
    for kept, confirmed in zip(certificate.receipts, received, strict=True):
        _check_receipt(kept.signed, confirmed, core, known)
    stamped = _stamped(certificate, genesis)
    # (6)
    opened = _opened(certificate, core, genesis, device)
    known.require_used(core)
    if not {desk for desk, _ in certificate.names} <= {to.desk for to in core.to}:
        raise MalformedError("certificate names a desk that is not addressed")
    return Checked(
        certificate=certificate,
        genesis=genesis,
        genesis_hash=genesis_hash,
        core=core,
        index=proof.index,
        places=proof.extra,
        under=under,
        not_before=not_before,
        desks=known.desks,
        device=device,
        confirmed=tuple(received),
        stamped_at=stamped,
        opened=opened,
    )


@dataclass(slots=True)
class _Admissions:
    """Desks and devices as the certificate's statements say, each verified."""

    genesis: Genesis
    desks: dict[DeskId, DeskStatement] = field(default_factory=dict)
    _devices: dict[DeviceId, Admitted] = field(default_factory=dict)
    _used: set[bytes] = field(default_factory=set)

    def take(self, one: Admission, checkpoint: Checkpoint) -> None:
        """Verify a statement's place and its signers, and remember what it says."""
        leaf = leaf_hash(statement_leaf(one.signed.payload))
        verify_inclusion(leaf, one.index, checkpoint.size, checkpoint.root, one.hashes)
        match parse_statement(one.signed.payload):
            case DeskStatement() as desk:
                self._take_desk(desk, one)
            case DeviceStatement() as device:
                self._take_device(device, one)
            case _:
                raise MalformedError("certificate has a statement that admits nobody")

    def device(self, id_: DeviceId, desk: DeskId, *, before: int) -> Admitted:
        """Give a device of a desk that was admitted before a leaf.

        Raises:
            VerificationError: The certificate shows none.
        """
        found = self._devices.get(id_)
        # SPEC [E-1]: the signature is by a device of the sending desk.
        if found is None or found.statement.link.desk != desk:
            raise VerificationError(
                f"certificate does not show that device {short(id_)} is of desk {short(desk)} [E-1]"
            )
        if found.index >= before:
            raise VerificationError(f"device {short(id_)} was admitted only later [E-1]")
        self._used.add(id_)
        return found

    def require_used(self, core: Core) -> None:
        """Refuse statements about others, which a reader could take for part of the act."""
        used = self._used | {to.desk for to in core.to}
        if not self._devices.keys() | self.desks.keys() <= used:
            raise MalformedError("certificate has statements about others")

    def _take_desk(self, desk: DeskStatement, one: Admission) -> None:
        root = self._root(desk.party)
        link = desk.link
        expected = self.genesis.deployment, 0, statement_hash(root.serialize())
        # SPEC [S-1]: a desk statement has seq 0 and names its root's hash.
        if (link.deployment, link.seq, link.previous) != expected or link.desk in self.desks:
            raise VerificationError("certificate has a desk statement out of its place [S-1]")
        # SPEC [S-11]: a desk statement is a custodians' decision.
        if len(verify_signatures(one.signed, root.custodian_keys)) < root.threshold:
            raise VerificationError("certificate has a desk without its custodians' word [S-11]")
        self.desks[link.desk] = desk

    def _take_device(self, device: DeviceStatement, one: Admission) -> None:
        desk = self.desks.get(device.link.desk)
        if desk is None or device.link.deployment != self.genesis.deployment:
            raise VerificationError("certificate has a device of a desk that it does not show")
        root = self._root(desk.party)
        own = DeviceId(key_id(device.full))
        admins: dict[bytes, bytes] = {
            id_: other.statement.full
            for id_, other in self._devices.items()
            if other.statement.role is Role.ADMIN and other.statement.link.desk == desk.link.desk
        }
        signers = verify_signatures(one.signed, {**admins, **root.custodian_keys, own: device.full})
        # SPEC [S-3]: by admins or a custodians' decision; an admin's device by the custodians'.
        is_decided = len(signers & root.custodian_keys.keys()) >= root.threshold
        by_admins = signers & admins.keys()
        is_admitted = is_decided or (device.role is not Role.ADMIN and bool(by_admins))
        # SPEC [S-4]: a device signs its own admission.
        if own not in signers or not is_admitted or own in self._devices:
            raise VerificationError(f"device {short(own)} is not admitted by who may [S-3] [S-4]")
        self._devices[own] = Admitted(one.index, device)
        self._used.update(by_admins)

    def _root(self, party: str) -> Root:
        for root in self.genesis.roots:
            if root.code == party:
                return root
        raise VerificationError("certificate has a desk of a party that did not found")


def _seen(certificate: Certificate, core: Core, genesis: Genesis) -> int | None:
    if certificate.seen is None:
        return None
    # SPEC [M-1]: not before the sealed time of its `seen`.
    if note_hash(certificate.seen) != core.seen:
        raise VerificationError("checkpoint is not the one that the author had seen [M-1]")
    return verify_quorum(certificate.seen, genesis.log, genesis.quorum).sealed_time


def _receipt(kept: KeptReceipt, genesis: Genesis) -> Confirmed:
    """Read a receipt that is in the log; by whom it is, is not known yet."""
    proof = LogProof.parse(kept.proof)
    if proof.extra:
        raise MalformedError("proof of a receipt has an extra line, expected none")
    leaf = leaf_hash(receipt_leaf(kept.signed.payload))
    under = verify_log_proof(proof, leaf, genesis.log, genesis.quorum)
    return Confirmed(Receipt.parse(kept.signed.payload), proof.index, under)


def _check_receipt(signed: Signed, confirmed: Confirmed, core: Core, known: _Admissions) -> None:
    receipt = confirmed.receipt
    # SPEC: a receipt is by a device of an addressed desk.
    device = known.device(receipt.device, receipt.desk, before=confirmed.index)
    verify_fast(device.statement.fast, Context.RECEIPT, signed.payload, signed.signature)
    check_confirms(receipt, core)


def _stamped(certificate: Certificate, genesis: Genesis) -> int | None:
    what = core_hash(certificate.core)
    witnesses = {key.name: key for key in genesis.quorum.witnesses}
    for stamp in certificate.stamps:
        if stamp.witness not in witnesses:
            raise VerificationError("certificate has a stamp of somebody who is no witness")
        verify_stamp(stamp, genesis.deployment, what, witnesses[stamp.witness])
    return stamped_at(certificate.stamps, genesis.deployment, what, genesis.quorum)


def _opened(
    certificate: Certificate, core: Core, genesis: Genesis, device: Admitted
) -> Opened | None:
    opening = certificate.opening
    if opening is None:
        return None
    # SPEC [E-2]: the body is the one that the core names.
    if Part.of(opening.body) != core.body:
        raise VerificationError("body is not the one that the core names [E-2]")
    body = Body.parse(unpad(decrypt(opening.key, Context.BODY, core.id, opening.body)))
    if body.signature is not None:
        verify_act(
            device.statement.full,
            body.act,
            body.signature,
            deployment=genesis.deployment,
            sender=core.sender,
            receiver=core.counterpart,
        )
    return Opened(
        act=Act.parse(body.act),
        act_id=act_id(
            body.act,
            deployment=genesis.deployment,
            sender=core.sender,
            receiver=core.counterpart,
        ),
        is_signed=body.signature is not None,
    )
