"""Notices: what is said about envelopes later, in the log, for their parties and auditors.

    stamped   witnesses saw this envelope's core at these times, before or without the relay
    erase     our desk's copy goes, and why
    hold      nothing of this may be erased by any desk, and why
    release   our desk's hold ends
    restored  the relay's database was restored, and what that left (signed by the relay)

Here live their forms and who may give them. What follows from them in leaf order is in ``noticed``;
carrying an erasure out is the relay's and the clients' matter.

Rules:

* [H-1] A notice is by a device active in a desk that each named envelope addresses; `restored` is
  by the relay key.
* [H-2] Stamps of a notice are by witnesses of the genesis over the core hash of that envelope,
  sent by the notice's desk.
* [H-7] A device numbers its notices to the same readers from 1 without a gap.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import ClassVar, Final

from comity_protocol.checkpoint import COSIGNED_TIME_MAX
from comity_protocol.core import Core, core_hash
from comity_protocol.directory import Directory
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.fields import (
    Fields,
    bytes_of,
    check_ascending,
    map_of,
    text_of,
)
from comity_protocol.genesis import Genesis
from comity_protocol.identifiers import (
    ID_BYTES,
    DeploymentId,
    DeskId,
    DeviceId,
    EnvelopeId,
    short,
)
from comity_protocol.keys import Context, FastKey, verify_fast
from comity_protocol.limits import (
    NOTICE_BYTES_MAX,
    NOTICE_IDS_MAX,
    NUMBER_MAX,
    SEQ_MAX,
    WITNESSES_MAX,
)
from comity_protocol.merkle import HASH_BYTES, SIZE_MAX
from comity_protocol.receipts import Signed
from comity_protocol.stamps import Stamp, verify_stamp
from comity_protocol.statements import Role


class EraseBasis(Enum):
    """Why a desk's copy goes."""

    RETENTION = "RETENTION"
    COURT_ORDER = "COURT_ORDER"
    DATA_SUBJECT = "DATA_SUBJECT"
    MISTAKE = "MISTAKE"
    CASE_CLOSED = "CASE_CLOSED"


class HoldBasis(Enum):
    """Why nothing may be erased."""

    PROCEEDINGS = "PROCEEDINGS"
    COMPLAINT = "COMPLAINT"
    AUDIT = "AUDIT"


@dataclass(frozen=True, slots=True)
class Author:
    """Which device gives a notice, for which desk, and what it knew.

    Attributes:
        seq: Position of the newest statement of the desk that the device knew.
        seen: Hash of the newest cosigned checkpoint that the device had verified.
        number: The how-manieth notice of the device to the same readers, from 1.
    """

    deployment: DeploymentId
    desk: DeskId
    device: DeviceId
    seq: int
    seen: bytes
    number: int = 1

    def to_value(self) -> dict[str, Value]:
        """Give the fields that every desk's notice begins with."""
        return {
            "deployment": self.deployment,
            "desk": self.desk,
            "dev": self.device,
            "seq": self.seq,
            "seen": self.seen,
            "n": self.number,
        }


@dataclass(frozen=True, slots=True)
class Stamped:
    """Witnesses stamped the core of an envelope that this desk sent.

    Attributes:
        core: Hash of the envelope's core, which they stamped.
        stamps: Ascending by name of the witness, each witness once.
    """

    kind: ClassVar[str] = "stamped"
    author: Author
    envelope: EnvelopeId
    core: bytes
    stamps: tuple[Stamp, ...]

    @property
    def envelopes(self) -> tuple[EnvelopeId, ...]:
        """The one envelope that it is about."""
        return (self.envelope,)

    def serialize(self) -> bytes:
        """Give the bytes that the device signs."""
        stamps: list[Value] = [one.to_value() for one in self.stamps]
        return _serialize(
            self.kind, self.author, {"envelope": self.envelope, "core": self.core, "stamps": stamps}
        )


@dataclass(frozen=True, slots=True)
class Erase:
    """This desk's copies of envelopes go; their entries stay in the log.

    Attributes:
        envelopes: Ascending, 1 to 128.
    """

    kind: ClassVar[str] = "erase"
    author: Author
    envelopes: tuple[EnvelopeId, ...]
    basis: EraseBasis

    def serialize(self) -> bytes:
        """Give the bytes that the device signs."""
        return _serialize(
            self.kind,
            self.author,
            {"envelopes": list(self.envelopes), "basis": self.basis.value},
        )


@dataclass(frozen=True, slots=True)
class Hold:
    """No desk may erase these envelopes until this desk releases them; ``envelopes`` ascending."""

    kind: ClassVar[str] = "hold"
    author: Author
    envelopes: tuple[EnvelopeId, ...]
    basis: HoldBasis

    def serialize(self) -> bytes:
        """Give the bytes that the device signs."""
        return _serialize(
            self.kind,
            self.author,
            {"envelopes": list(self.envelopes), "basis": self.basis.value},
        )


@dataclass(frozen=True, slots=True)
class Release:
    """This desk's own hold on these envelopes ends; ``envelopes`` ascending."""

    kind: ClassVar[str] = "release"
    author: Author
    envelopes: tuple[EnvelopeId, ...]

    def serialize(self) -> bytes:
        """Give the bytes that the device signs."""
        return _serialize(self.kind, self.author, {"envelopes": list(self.envelopes)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The relay's database was restored from a copy.

    Attributes:
        incarnation: 16 random bytes that name the restored store.
        had: Entries that the database had when it started.
        size: Entries that the log had signed.
        lost: Entries whose objects nobody brought back.
        at: The relay's clock, seconds since 1970 UTC; informational.
    """

    kind: ClassVar[str] = "restored"
    deployment: DeploymentId
    incarnation: bytes
    had: int
    size: int
    lost: int
    at: int

    @property
    def envelopes(self) -> tuple[EnvelopeId, ...]:
        """None: it is for every member."""
        return ()

    def serialize(self) -> bytes:
        """Give the bytes that the relay signs."""
        return serialize(
            {
                "v": 1,
                "t": self.kind,
                "deployment": self.deployment,
                "incarnation": self.incarnation,
                "had": self.had,
                "size": self.size,
                "lost": self.lost,
                "at": self.at,
            }
        )


DeskNotice = Stamped | Erase | Hold | Release
Notice = DeskNotice | Restored

_AUTHOR: Final = frozenset({"v", "t", "deployment", "desk", "dev", "seq", "seen", "n"})
_FIELDS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        Stamped.kind: _AUTHOR | {"envelope", "core", "stamps"},
        Erase.kind: _AUTHOR | {"envelopes", "basis"},
        Hold.kind: _AUTHOR | {"envelopes", "basis"},
        Release.kind: _AUTHOR | {"envelopes"},
        Restored.kind: frozenset(
            {"v", "t", "deployment", "incarnation", "had", "size", "lost", "at"}
        ),
    }
)


def parse_notice(payload: bytes) -> Notice:
    """Read a notice's payload; its signature is not verified yet.

    Raises:
        MalformedError: It is too long or not what a ``serialize`` of this module gives.
    """
    if len(payload) > NOTICE_BYTES_MAX:
        raise MalformedError(
            f"notice is {len(payload):,} bytes, expected at most {NOTICE_BYTES_MAX:,}"
        )
    values = map_of(parse(payload), "notice")
    kind = text_of(values.get("t"), "notice, t", choices=list(_FIELDS))
    fields = Fields.of(dict(values), f"{kind} notice", _FIELDS[kind])
    fields.integer("v", low=1, high=1)
    if kind == Restored.kind:
        return _parse_restored(fields)
    author = Author(
        deployment=_deployment(fields),
        desk=DeskId(fields.bytes("desk", length=ID_BYTES)),
        device=DeviceId(fields.bytes("dev", length=ID_BYTES)),
        seq=fields.integer("seq", high=SEQ_MAX),
        seen=fields.bytes("seen", length=HASH_BYTES),
        # SPEC [H-7]: notices to the same readers are numbered from 1.
        number=fields.integer("n", low=1, high=NUMBER_MAX),
    )
    match kind:
        case Stamped.kind:
            return Stamped(
                author,
                EnvelopeId(fields.bytes("envelope", length=ID_BYTES)),
                fields.bytes("core", length=HASH_BYTES),
                _parse_stamps(fields),
            )
        case Erase.kind:
            basis = fields.text("basis", choices=[one.value for one in EraseBasis])
            return Erase(author, _parse_envelopes(fields), EraseBasis(basis))
        case Hold.kind:
            basis = fields.text("basis", choices=[one.value for one in HoldBasis])
            return Hold(author, _parse_envelopes(fields), HoldBasis(basis))
        case _:
            return Release(author, _parse_envelopes(fields))


def sign_notice(key: FastKey, notice: Notice) -> Signed:
    """Sign a notice with the device's fast key; ``restored`` with the relay key."""
    payload = notice.serialize()
    return Signed(payload, key.sign(Context.NOTICE, payload))


def verify_notice(signed: Signed, directory: Directory, *, index: int) -> Notice:
    """Check who gave a notice, and give it.

    Args:
        signed: As received.
        directory: Folded at least up to ``index``.
        index: Leaf index of the notice, or any that is higher than all statements.

    Raises:
        MalformedError: It is not a notice.
        UnknownDeskError: The directory has no such device.
        VerificationError: It is of another deployment; the device is not of the desk, was not
            active, is not an admin's where it must be, or did not sign; or a stamp does not hold.

    Source: PROTOCOL [H-1], [H-2]. Whether each envelope addresses the desk is
    ``check_concerns``'s question, which needs the envelope.
    """
    notice = parse_notice(signed.payload)
    if isinstance(notice, Restored):
        _check_deployment(notice.deployment, directory.genesis)
        # SPEC [H-1]: `restored` is by the relay key.
        relay_key = directory.genesis.relay_key
        verify_fast(relay_key, Context.NOTICE, signed.payload, signed.signature)
        return notice
    author = notice.author
    _check_deployment(author.deployment, directory.genesis)
    desk, device = directory.device(author.device)
    # SPEC [H-1]: a notice is by a device that is active in its desk.
    if desk.id != author.desk or not device.is_active_at(index):
        raise VerificationError(
            f"device {short(author.device)} may give no notice for desk {short(author.desk)} [H-1]"
        )
    if isinstance(notice, Erase | Release) and device.role is not Role.ADMIN:
        raise VerificationError(
            f"device {short(author.device)} is not an admin's, which {notice.kind} needs [H-1]"
        )
    verify_fast(device.fast, Context.NOTICE, signed.payload, signed.signature)
    if isinstance(notice, Stamped):
        _check_stamps(notice, directory.genesis)
    return notice


def check_concerns(notice: DeskNotice, core: Core) -> None:
    """Check that a verified notice may speak of an envelope that it names.

    Args:
        notice: From ``verify_notice``.
        core: Of one of ``notice.envelopes``; the caller does this for each.

    Raises:
        VerificationError: The envelope is not named or does not address the notice's desk, or it
            is not the one that the stamps are for.

    Source: PROTOCOL [H-1], [H-2]. Stops a member who was never addressed from holding, erasing or
    dating what is others', and stamps of one core shown for another.
    """
    if core.id not in notice.envelopes:
        raise VerificationError(f"notice does not name envelope {short(core.id)} [H-1]")
    # SPEC [H-1]: of a desk that each named envelope addresses.
    if core.recipient(notice.author.desk) is None:
        raise VerificationError(
            f"envelope {short(core.id)} does not address desk {short(notice.author.desk)} [H-1]"
        )
    # SPEC [H-2]: over the core hash of that envelope, sent by the notice's desk.
    if isinstance(notice, Stamped):
        if core.sender != notice.author.desk:
            raise VerificationError(
                f"envelope {short(core.id)} was not sent by desk"
                f" {short(notice.author.desk)}, which shows stamps for it [H-2]"
            )
        if core_hash(core.serialize()) != notice.core:
            raise VerificationError(f"stamps are for another envelope than {short(core.id)} [H-2]")


def _serialize(kind: str, author: Author, rest: dict[str, Value]) -> bytes:
    head: dict[str, Value] = {"v": 1, "t": kind}
    return serialize(head | author.to_value() | rest)


def _parse_restored(fields: Fields) -> Restored:
    size = fields.integer("size", high=SIZE_MAX)
    return Restored(
        deployment=_deployment(fields),
        incarnation=fields.bytes("incarnation", length=ID_BYTES),
        had=fields.integer("had", high=size),
        size=size,
        lost=fields.integer("lost", high=size),
        at=fields.integer("at", high=COSIGNED_TIME_MAX),
    )


def _parse_envelopes(fields: Fields) -> tuple[EnvelopeId, ...]:
    ids = tuple(
        EnvelopeId(bytes_of(item, f"{fields.what}, envelope", length=ID_BYTES))
        for item in fields.array("envelopes", low=1, high=NOTICE_IDS_MAX)
    )
    check_ascending(ids, f"{fields.what}, envelopes")
    return ids


def _parse_stamps(fields: Fields) -> tuple[Stamp, ...]:
    items = fields.array("stamps", low=1, high=WITNESSES_MAX)
    stamps = tuple(Stamp.of(item, fields.what) for item in items)
    check_ascending([one.witness.encode() for one in stamps], "stamped notice, stamps")
    return stamps


def _deployment(fields: Fields) -> DeploymentId:
    return DeploymentId(fields.bytes("deployment", length=ID_BYTES))


def _check_deployment(named: DeploymentId, genesis: Genesis) -> None:
    if named != genesis.deployment:
        raise VerificationError("notice is of another deployment [H-1]")


def _check_stamps(notice: Stamped, genesis: Genesis) -> None:
    witnesses = {key.name: key for key in genesis.quorum.witnesses}
    for stamp in notice.stamps:
        # SPEC [H-2]: by witnesses of the genesis over the core hash of that envelope.
        if stamp.witness not in witnesses:
            raise VerificationError("notice has a stamp by no witness of the genesis [H-2]")
        verify_stamp(stamp, genesis.deployment, notice.core, witnesses[stamp.witness])
