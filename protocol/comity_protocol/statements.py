"""What custodians, admins and devices state about who may sign and read for which desk.

A statement is a payload and composite signatures over exactly those bytes. Here is what each says
and how it is written; whether it may be said, by whom and after what, is ``chain.py``'s question.
What the chains of a deployment rest on, its genesis and the States' roots, is in ``genesis.py``.

=========  ============================================================  =======================
type       says                                                          signed by
=========  ============================================================  =======================
desk       a desk exists, of which authority type, under which policy    k custodians
device     a device belongs to an officer of the desk                    itself, and admins or
                                                                         custodians
epoch      the desk's new sealing keys and who holds them                an active device
removal    devices gone, and the new epoch without them                  an admin, a device of the
                                                                         same officer, or custodians
policy     the desk's new policy                                         k custodians
=========  ============================================================  =======================
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256
from typing import Final, TypeAlias

from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.fields import Fields, array_of, bytes_of, check_ascending
from comity_protocol.identifiers import ID_BYTES, DeploymentId, DeskId, DeviceId, OfficerId, short
from comity_protocol.keys import (
    FAST_PUBLIC_BYTES,
    FULL_PUBLIC_BYTES,
    FULL_SIGNATURE_BYTES,
    SEAL_PUBLIC_BYTES,
    Context,
    FullKey,
    digest,
    key_id,
    verify_full,
)
from comity_protocol.leaves import statement_hash
from comity_protocol.limits import (
    AUDITORS_MAX,
    BOX_BYTES_MAX,
    DEVICES_MAX,
    EPOCH_DAYS_MAX,
    EPOCH_NUMBER_MAX,
    FRESH_HOURS_MAX,
    HISTORY_DAYS_MAX,
    PARTY_BYTES_MAX,
    PREVIOUS_BOX_BYTES_MAX,
    SEQ_MAX,
    SIGNATURES_MAX,
    STATEMENT_BYTES_MAX,
)
from comity_protocol.merkle import HASH_BYTES


class Authority(Enum):
    """What kind of office a desk is; it decides which acts it may send."""

    POLICE = "police"
    PROSECUTION = "prosecution"
    CENTRAL_AUTHORITY = "central-authority"
    COURT = "court"
    FINANCIAL_INTELLIGENCE = "fiu"
    PROTECTION = "protection"
    SECRETARIAT = "secretariat"
    ORGANISATION = "organisation"


class Role(Enum):
    """What an officer may do in the desk."""

    OFFICER = "officer"
    ADMIN = "admin"


class Reason(Enum):
    """Why devices were removed."""

    LEAVER = "leaver"
    LOST = "lost"
    COMPROMISED = "compromised"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a desk's custodians decided for it, visible to every member.

    Attributes:
        add_admins: How many admins, of distinct officers, let a device in.
        epoch_days: Days after which the desk should turn its epoch.
        fresh_hours: Oldest witnessed checkpoint, in hours, against which to seal for this desk.
        history_days: Days for which the relay keeps sealed envelopes for this desk.
        auditors_file: Desks that must get the audit part of what is sealed to the file key.
        auditors_lead: The same for the lead key.
    """

    add_admins: int = 2
    epoch_days: int = 30
    fresh_hours: int = 72
    history_days: int = 3650
    auditors_file: tuple[DeskId, ...] = ()
    auditors_lead: tuple[DeskId, ...] = ()

    def to_value(self) -> dict[str, Value]:
        """Give the map that stands in the statement."""
        return {
            "add": self.add_admins,
            "auditors_file": list(self.auditors_file),
            "auditors_lead": list(self.auditors_lead),
            "epoch_days": self.epoch_days,
            "fresh_hours": self.fresh_hours,
            "history_days": self.history_days,
        }


_POLICY_FIELDS: Final = frozenset(Policy().to_value())


@dataclass(frozen=True, slots=True)
class Link:
    """What places a statement in a desk's chain.

    Attributes:
        deployment: The deployment it is for.
        desk: The desk it is about.
        seq: Position in the chain, from 0, without gaps.
        previous: Hash of the statement before, or of the State root for ``seq`` 0.
    """

    deployment: DeploymentId
    desk: DeskId
    seq: int
    previous: bytes

    def to_value(self) -> dict[str, Value]:
        """Give the fields that stand in the statement."""
        return {
            "deployment": self.deployment,
            "desk": self.desk,
            "seq": self.seq,
            "prev": self.previous,
        }


@dataclass(frozen=True, slots=True)
class DeskStatement:
    """A desk exists."""

    link: Link
    party: str
    authority: Authority
    policy: Policy

    def serialize(self) -> bytes:
        """Give the bytes to sign."""
        return _serialize(
            "desk",
            self.link,
            {
                "party": self.party,
                "authority": self.authority.value,
                "policy": self.policy.to_value(),
            },
        )


@dataclass(frozen=True, slots=True)
class DeviceStatement:
    """A device belongs to an officer of the desk.

    Attributes:
        fast: Ed25519 public key for envelopes, receipts and request tokens, 32 bytes.
        full: Composite public key for statements and formal acts, 1,984 bytes.
        seal: X-Wing public key to which epoch secrets are sealed, 1,216 bytes.
        box_hash: SHA-256 of the sealed epoch secret for it; None while the desk has no epoch.
    """

    link: Link
    fast: bytes
    full: bytes
    seal: bytes
    officer: OfficerId
    role: Role
    box_hash: bytes | None

    def serialize(self) -> bytes:
        """Give the bytes to sign."""
        return _serialize(
            "device",
            self.link,
            {
                "fast": self.fast,
                "full": self.full,
                "seal": self.seal,
                "officer": self.officer,
                "role": self.role.value,
                "box": self.box_hash,
            },
        )


@dataclass(frozen=True, slots=True)
class EpochKeys:
    """A desk's sealing keys for one epoch and who holds their secrets.

    Attributes:
        number: From 1, without gaps.
        file: X-Wing public key for case files, 1,216 bytes.
        lead: X-Wing public key for leads, 1,216 bytes.
        members: Devices to which the secrets were sealed, ascending.
        boxes_hash: Hash over the list of boxes, see ``boxes_hash``.
    """

    number: int
    file: bytes
    lead: bytes
    members: tuple[DeviceId, ...]
    boxes_hash: bytes

    def to_value(self) -> dict[str, Value]:
        """Give the fields that stand in the statement."""
        return {
            "n": self.number,
            "file": self.file,
            "lead": self.lead,
            "members": list(self.members),
            "boxes": self.boxes_hash,
        }


@dataclass(frozen=True, slots=True)
class EpochStatement:
    """The desk's new epoch, for the officers it has."""

    link: Link
    epoch: EpochKeys

    def serialize(self) -> bytes:
        """Give the bytes to sign."""
        return _serialize("epoch", self.link, self.epoch.to_value())


@dataclass(frozen=True, slots=True)
class RemovalStatement:
    """Devices are gone, and with them, in the same statement, every key they held."""

    link: Link
    gone: tuple[DeviceId, ...]
    reason: Reason
    epoch: EpochKeys

    def serialize(self) -> bytes:
        """Give the bytes to sign."""
        return _serialize(
            "removal",
            self.link,
            {
                "gone": list(self.gone),
                "reason": self.reason.value,
                "epoch": self.epoch.to_value(),
            },
        )


@dataclass(frozen=True, slots=True)
class PolicyStatement:
    """The desk's new policy."""

    link: Link
    policy: Policy

    def serialize(self) -> bytes:
        """Give the bytes to sign."""
        return _serialize("policy", self.link, {"policy": self.policy.to_value()})


Statement: TypeAlias = (
    DeskStatement | DeviceStatement | EpochStatement | RemovalStatement | PolicyStatement
)
"""A statement of a desk's chain."""


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A payload, the composite signatures over it, and the sealed secrets that go with it.

    Attributes:
        payload: The signed bytes, as received.
        signatures: (key id of the signer, signature), ascending by signer, each signer once.
        boxes: (device, sealed epoch secret); the payload commits to them by hash.
        previous: The previous file seed under the new one, for epochs after the first.
        is_bare: Whether it comes from the directory, which keeps boxes for those that open them. A
            member compares its own box with the stated keys instead, see ``epochs.open_box``.
    """

    payload: bytes
    signatures: tuple[tuple[bytes, bytes], ...]
    boxes: tuple[tuple[DeviceId, bytes], ...] = field(default=())
    previous: bytes | None = None
    is_bare: bool = False

    @property
    def hash(self) -> bytes:
        """The hash that the next statement and the log name."""
        return statement_hash(self.payload)

    def serialize(self) -> bytes:
        """Give the bytes that are posted."""
        value: dict[str, Value] = {
            "p": self.payload,
            "s": [[signer, signature] for signer, signature in self.signatures],
        }
        if self.boxes:
            value["boxes"] = [[device, box] for device, box in self.boxes]
        if self.previous is not None:
            value["previous"] = self.previous
        return serialize(value)

    @classmethod
    def parse(cls, data: bytes) -> "SignedStatement":
        """Read a posted statement; nothing is verified yet.

        Raises:
            MalformedError: It is not what ``serialize`` gives.
        """
        what = "signed statement"
        fields = Fields.of(parse(data), what, {"p", "s"}, {"boxes", "previous"})
        return cls(
            payload=fields.bytes("p", low=1, high=STATEMENT_BYTES_MAX),
            signatures=parse_signatures(fields.value("s")),
            boxes=_pairs(fields, "boxes", BOX_BYTES_MAX) if fields.is_present("boxes") else (),
            previous=(
                fields.bytes("previous", low=1, high=PREVIOUS_BOX_BYTES_MAX)
                if fields.is_present("previous")
                else None
            ),
        )


def parse_signatures(value: Value) -> tuple[tuple[bytes, bytes], ...]:
    """Read a list of (signer, signature) that is ascending by signer, each signer once."""
    pairs = tuple(
        (
            bytes_of(signer, "signature, signer", length=ID_BYTES),
            bytes_of(signature, "signature", length=FULL_SIGNATURE_BYTES),
        )
        for signer, signature in (
            array_of(item, "signature", low=2, high=2)
            for item in array_of(value, "signatures", low=1, high=SIGNATURES_MAX)
        )
    )
    # SPEC [S-2]: each signer counts once.
    check_ascending([signer for signer, _ in pairs], "signatures")
    return pairs


def sign_statement(
    payload: bytes,
    keys: Sequence[FullKey],
    *,
    boxes: Sequence[tuple[DeviceId, bytes]] = (),
    previous: bytes | None = None,
) -> SignedStatement:
    """Sign a payload with each of ``keys`` and put the signatures into their order."""
    signatures = sorted((key_id(key.public), key.sign(Context.STATEMENT, payload)) for key in keys)
    return SignedStatement(payload, tuple(signatures), tuple(sorted(boxes)), previous)


def verify_signatures(signed: SignedStatement, known: Mapping[bytes, bytes]) -> set[bytes]:
    """Check every signature, and that each signer is known.

    Args:
        signed: Not yet verified.
        known: Composite public keys that may sign here, by key id.

    Returns:
        The key ids of the signers.

    Raises:
        VerificationError: A signer is there twice or unknown, or a signature does not verify.

    Source: PROTOCOL [S-2].
    """
    signers = {signer for signer, _ in signed.signatures}
    # SPEC [S-2]: each signer counts once, and is known before the statement.
    if len(signers) != len(signed.signatures):
        raise VerificationError("a signer signed twice [S-2]")
    if unknown := sorted(signers - known.keys()):
        raise VerificationError(f"signer {short(unknown[0])} may not sign here [S-2]")
    for signer, signature in signed.signatures:
        verify_full(known[signer], Context.STATEMENT, signed.payload, signature)
    return signers


def boxes_hash(boxes: Sequence[tuple[DeviceId, bytes]], previous: bytes | None) -> bytes:
    """Hash the boxes of an epoch, so that a relay cannot swap one or leave one out.

    Args:
        boxes: (device, sealed secret) ascending by device.
        previous: The sealed previous file seed, if there is one.

    Source: PROTOCOL [S-9].
    """
    listed: list[Value] = [[device, sha256(box).digest()] for device, box in boxes]
    return digest(
        Context.EPOCH_BOX,
        serialize([listed, None if previous is None else sha256(previous).digest()]),
    )


_LINK_FIELDS: Final = frozenset({"v", "t", "deployment", "desk", "seq", "prev"})
_EPOCH_FIELDS: Final = frozenset({"n", "file", "lead", "members", "boxes"})
_OWN_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "desk": frozenset({"party", "authority", "policy"}),
    "device": frozenset({"fast", "full", "seal", "officer", "role", "box"}),
    "epoch": _EPOCH_FIELDS,
    "removal": frozenset({"gone", "reason", "epoch"}),
    "policy": frozenset({"policy"}),
}


def parse_statement(payload: bytes) -> Statement:
    """Read a statement of a desk's chain; nothing is verified yet.

    Raises:
        MalformedError: It is not what the statement's own ``serialize`` gives.
    """
    if len(payload) > STATEMENT_BYTES_MAX:
        raise MalformedError(
            f"statement is {len(payload):,} bytes, expected at most {STATEMENT_BYTES_MAX:,}"
        )
    value = parse(payload)
    kind = value.get("t") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in _OWN_FIELDS:
        raise MalformedError(f"statement is not one of {', '.join(sorted(_OWN_FIELDS))}")
    fields = Fields.of(value, f"{kind} statement", _LINK_FIELDS | _OWN_FIELDS[kind])
    check_type(fields, kind)
    link = Link(
        deployment=DeploymentId(fields.bytes("deployment", length=ID_BYTES)),
        desk=DeskId(fields.bytes("desk", length=ID_BYTES)),
        seq=fields.integer("seq", high=SEQ_MAX),
        previous=fields.bytes("prev", length=HASH_BYTES),
    )
    match kind:
        case "desk":
            authority = Authority(
                fields.text("authority", choices=[authority.value for authority in Authority])
            )
            return DeskStatement(link, party_of(fields, "party"), authority, _policy(fields))
        case "device":
            return _device(fields, link)
        case "epoch":
            return EpochStatement(link, _epoch(fields))
        case "removal":
            return RemovalStatement(
                link,
                gone=_device_ids(fields, "gone"),
                reason=Reason(fields.text("reason", choices=[reason.value for reason in Reason])),
                epoch=_epoch(fields.fields("epoch", _EPOCH_FIELDS)),
            )
        case _:
            return PolicyStatement(link, _policy(fields))


def _serialize(kind: str, link: Link, own: Mapping[str, Value]) -> bytes:
    return serialize({"v": 1, "t": kind, **link.to_value(), **own})


def check_type(fields: Fields, kind: str) -> None:
    """Check the version and the type that stand in a statement, a root and a genesis."""
    # SPEC [C-6]: an unknown version or type is refused.
    fields.integer("v", low=1, high=1)
    fields.text("t", choices=[kind])


def party_of(fields: Fields, name: str) -> str:
    """Read an ISO 3166 code or an organisation's code: upper-case letters, digits and hyphens."""
    code = fields.text(name, bytes_max=PARTY_BYTES_MAX)
    if not code or not all(c.isascii() and (c.isupper() or c.isdigit() or c == "-") for c in code):
        raise MalformedError(f"{fields.what}, {name} is not a State's or organisation's code")
    return code


def _policy(fields: Fields) -> Policy:
    policy = fields.fields("policy", _POLICY_FIELDS)
    return Policy(
        add_admins=policy.integer("add", low=1, high=DEVICES_MAX),
        epoch_days=policy.integer("epoch_days", low=1, high=EPOCH_DAYS_MAX),
        fresh_hours=policy.integer("fresh_hours", low=1, high=FRESH_HOURS_MAX),
        history_days=policy.integer("history_days", low=1, high=HISTORY_DAYS_MAX),
        auditors_file=_auditors(policy, "auditors_file"),
        auditors_lead=_auditors(policy, "auditors_lead"),
    )


def _auditors(policy: Fields, name: str) -> tuple[DeskId, ...]:
    desks = tuple(
        DeskId(bytes_of(item, "auditor", length=ID_BYTES))
        for item in policy.array(name, high=AUDITORS_MAX)
    )
    check_ascending(desks, name)
    return desks


def _device(fields: Fields, link: Link) -> DeviceStatement:
    return DeviceStatement(
        link,
        fast=fields.bytes("fast", length=FAST_PUBLIC_BYTES),
        full=fields.bytes("full", length=FULL_PUBLIC_BYTES),
        seal=fields.bytes("seal", length=SEAL_PUBLIC_BYTES),
        officer=OfficerId(fields.bytes("officer", length=ID_BYTES)),
        role=Role(fields.text("role", choices=[role.value for role in Role])),
        box_hash=(None if fields.value("box") is None else fields.bytes("box", length=HASH_BYTES)),
    )


def _epoch(fields: Fields) -> EpochKeys:
    return EpochKeys(
        number=fields.integer("n", low=1, high=EPOCH_NUMBER_MAX),
        file=fields.bytes("file", length=SEAL_PUBLIC_BYTES),
        lead=fields.bytes("lead", length=SEAL_PUBLIC_BYTES),
        members=_device_ids(fields, "members"),
        boxes_hash=fields.bytes("boxes", length=HASH_BYTES),
    )


def _device_ids(fields: Fields, name: str) -> tuple[DeviceId, ...]:
    ids = tuple(
        DeviceId(bytes_of(item, f"{fields.what}, {name}", length=ID_BYTES))
        for item in fields.array(name, low=1, high=DEVICES_MAX)
    )
    check_ascending(ids, f"{fields.what}, {name}")
    return ids


def _pairs(fields: Fields, name: str, bytes_max: int) -> tuple[tuple[DeviceId, bytes], ...]:
    pairs = tuple(
        (
            DeviceId(bytes_of(device, f"{name}, device", length=ID_BYTES)),
            bytes_of(box, name, low=1, high=bytes_max),
        )
        for device, box in (
            array_of(item, name, low=2, high=2)
            for item in fields.array(name, low=1, high=DEVICES_MAX)
        )
    )
    check_ascending([device for device, _ in pairs], name)
    return pairs
