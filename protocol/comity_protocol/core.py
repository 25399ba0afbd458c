"""The core of an envelope: who sends to which desks under which epochs, and hashes of the rest.

It is all that the relay sees, and what the device signs. How the parts that it names are sealed,
verified and opened is in ``envelope.py``.

Rules:

* [E-3] ``to`` is ascending and names the own desk, exactly one other desk, and auditors.
* [E-9] Every size has a bound.
"""

from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from itertools import pairwise
from typing import Final

from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import MalformedError
from comity_protocol.fields import Fields, array_of, bytes_of, integer_of
from comity_protocol.identifiers import ID_BYTES, DeskId, DeviceId, EnvelopeId
from comity_protocol.keys import Context, digest
from comity_protocol.limits import (
    AUDIT_BYTES_MAX,
    BLOBS_MAX,
    BODY_BYTES_MAX,
    CORE_BYTES_MAX,
    EPOCH_NUMBER_MAX,
    RECIPIENTS_MAX,
    SEQ_MAX,
)
from comity_protocol.merkle import HASH_BYTES

_READERS: Final = 2
"""An exchange is bilateral: the own desk and one other read the body."""


class Kind(IntEnum):
    """Which key of a desk a wrap is for, and which part of the envelope it opens."""

    FILE = 0
    LEAD = 1
    AUDIT = 2
    """The file key of an auditor's desk; opens the audit part only."""


_KIND_MAX: Final = max(Kind)


@dataclass(frozen=True, slots=True)
class Part:
    """A ciphertext as the core names it: its length and SHA-256."""

    size: int
    hash: bytes

    @classmethod
    def of(cls, ciphertext: bytes) -> "Part":
        """Measure and hash a ciphertext."""
        return cls(len(ciphertext), sha256(ciphertext).digest())


@dataclass(frozen=True, slots=True)
class Recipient:
    """A desk that gets the envelope, the epoch and kind of its key, and its wrap's hash.

    Attributes:
        wrap_hash: SHA-256 of the wrap; None when the envelope refers to another's wraps.
    """

    desk: DeskId
    epoch: int
    kind: Kind
    wrap_hash: bytes | None = None

    def to_value(self) -> list[Value]:
        """Give the row that stands in the core."""
        row: list[Value] = [self.desk, self.epoch, int(self.kind)]
        return row if self.wrap_hash is None else [*row, self.wrap_hash]

    def without_wrap(self) -> "Recipient":
        """Give the same recipient for an envelope that refers to this one."""
        return Recipient(self.desk, self.epoch, self.kind)


@dataclass(frozen=True, slots=True)
class Core:
    """What the relay sees of an envelope, and all that it needs to see.

    Attributes:
        id: 16 random bytes, chosen by the sender.
        sender: The sending desk.
        device: The sending device.
        seq: Position of the newest statement of the sending desk that the device knew.
        seen: Hash of the newest cosigned checkpoint that the device had verified.
        to: Recipients, ascending by desk.
        ref: The envelope whose wraps open this one too; None when it brings its own.
        blobs: Attachments that its body names.
    """

    id: EnvelopeId
    sender: DeskId
    device: DeviceId
    seq: int
    seen: bytes
    body: Part
    audit: Part
    to: tuple[Recipient, ...]
    ref: EnvelopeId | None = None
    blobs: tuple[bytes, ...] = ()

    @property
    def counterpart(self) -> DeskId:
        """The one desk beside the sender's that can read the body."""
        return next(
            entry.desk
            for entry in self.to
            if entry.kind is not Kind.AUDIT and entry.desk != self.sender
        )

    @property
    def kind(self) -> Kind:
        """Whether the body is sealed to file keys or to lead keys."""
        return next(entry.kind for entry in self.to if entry.desk == self.sender)

    def recipient(self, desk: DeskId) -> Recipient | None:
        """Give a desk's entry; None when it is not addressed."""
        return next((entry for entry in self.to if entry.desk == desk), None)

    def serialize(self) -> bytes:
        """Give the bytes that the device signs."""
        value: dict[str, Value] = {
            "v": 1,
            "t": "env",
            "id": self.id,
            "from": self.sender,
            "dev": self.device,
            "seq": self.seq,
            "seen": self.seen,
            "b": [self.body.size, self.body.hash],
            "a": [self.audit.size, self.audit.hash],
            "to": [entry.to_value() for entry in self.to],
        }
        if self.ref is not None:
            value["ref"] = self.ref
        if self.blobs:
            value["blobs"] = list(self.blobs)
        return serialize(value)

    @classmethod
    def parse(cls, data: bytes) -> "Core":
        """Read a core; its signature is not verified yet.

        Raises:
            MalformedError: It is not what ``serialize`` gives, or breaks [E-3] or [E-9].
        """
        if len(data) > CORE_BYTES_MAX:
            raise MalformedError(
                f"core is {len(data):,} bytes, expected at most {CORE_BYTES_MAX:,}"
            )
        required = {"v", "t", "id", "from", "dev", "seq", "seen", "b", "a", "to"}
        fields = Fields.of(parse(data), "core", required, {"ref", "blobs"})
        fields.integer("v", low=1, high=1)
        fields.text("t", choices=["env"])
        ref = EnvelopeId(fields.bytes("ref", length=ID_BYTES)) if fields.is_present("ref") else None
        core = cls(
            id=EnvelopeId(fields.bytes("id", length=ID_BYTES)),
            sender=DeskId(fields.bytes("from", length=ID_BYTES)),
            device=DeviceId(fields.bytes("dev", length=ID_BYTES)),
            seq=fields.integer("seq", high=SEQ_MAX),
            seen=fields.bytes("seen", length=HASH_BYTES),
            body=_parse_part(fields, "b", BODY_BYTES_MAX),
            audit=_parse_part(fields, "a", AUDIT_BYTES_MAX),
            to=tuple(
                _parse_recipient(item, has_wrap=ref is None)
                for item in fields.array("to", low=2, high=RECIPIENTS_MAX)
            ),
            ref=ref,
            blobs=tuple(
                bytes_of(item, "blob id", length=ID_BYTES)
                for item in fields.array("blobs", low=1, high=BLOBS_MAX)
            )
            if fields.is_present("blobs")
            else (),
        )
        _check_recipients(core)
        return core


def core_hash(core: bytes) -> bytes:
    """Hash a core; promises and the log name this hash."""
    return digest(Context.ENVELOPE, core)


def _parse_part(fields: Fields, name: str, bytes_max: int) -> Part:
    size, hash_ = fields.array(name, low=2, high=2)
    return Part(
        integer_of(size, f"core, {name}, size", high=bytes_max),
        bytes_of(hash_, f"core, {name}, hash", length=HASH_BYTES),
    )


def _parse_recipient(item: Value, *, has_wrap: bool) -> Recipient:
    count = 4 if has_wrap else 3
    desk, epoch, kind, *wrap = array_of(item, "core, recipient", low=count, high=count)
    return Recipient(
        desk=DeskId(bytes_of(desk, "core, recipient", length=ID_BYTES)),
        epoch=integer_of(epoch, "core, epoch", low=1, high=EPOCH_NUMBER_MAX),
        kind=Kind(integer_of(kind, "core, kind", high=_KIND_MAX)),
        wrap_hash=bytes_of(wrap[0], "core, wrap hash", length=HASH_BYTES) if wrap else None,
    )


def _check_recipients(core: Core) -> None:
    desks = [entry.desk for entry in core.to]
    # SPEC [E-3]: ascending, the own desk, exactly one other desk, and auditors.
    if any(left >= right for left, right in pairwise(desks)):
        raise MalformedError("core's recipients are not ascending, each once [E-3]")
    readers = [entry for entry in core.to if entry.kind is not Kind.AUDIT]
    if core.sender not in [entry.desk for entry in readers] or len(readers) != _READERS:
        raise MalformedError("core does not address the own desk and one other [E-3]")
    if len({entry.kind for entry in readers}) != 1:
        raise MalformedError("core mixes file and lead keys [E-3]")
