"""Receipts and promises: what a recipient and the relay give in writing.

A receipt says *this device holds these envelopes and can open them*; it is signed by the recipient,
never by the relay, and has no text. A promise says *I have this on disk and it will be in the log
within this many seconds*; a relay that breaks it has signed the proof.

Rules:

* [Q-1] A receipt is by a device that is active in an addressed desk; nobody else's counts.
* [Q-4] A device numbers its receipts to the same readers from 1 without a gap.
* [Q-3] A receipt confirms an envelope only with the hash of its core; an id alone confirms nothing.
* [Q-2] A promise is by the relay key of the genesis and names the hash of what was accepted.
"""

from dataclasses import dataclass
from itertools import pairwise

from comity_protocol.core import Core, core_hash
from comity_protocol.directory import Directory
from comity_protocol.encoding import parse, serialize
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.fields import Fields, array_of, bytes_of
from comity_protocol.identifiers import ID_BYTES, DeskId, DeviceId, EnvelopeId, short
from comity_protocol.keys import FAST_SIGNATURE_BYTES, Context, FastKey, verify_fast
from comity_protocol.limits import (
    NUMBER_MAX,
    PROMISE_AT_MAX,
    PROMISE_BYTES_MAX,
    PROMISE_WITHIN_SECONDS,
    RECEIPT_BYTES_MAX,
    RECEIPT_IDS_MAX,
    SEQ_MAX,
)
from comity_protocol.merkle import HASH_BYTES


@dataclass(frozen=True, slots=True)
class Receipt:
    """One device's word that its desk holds envelopes and can open them.

    Attributes:
        desk: The desk that received.
        device: Its device.
        seq: Position of the newest statement of the desk that the device knew.
        held: (envelope id, core hash), ascending by id; all sent by one desk. The hash keeps a
            relay from showing a receipt for another envelope of the same id.
        seen: Hash of the newest cosigned checkpoint that the device had verified.
        number: The how-manieth receipt of the device to the same readers, from 1.
    """

    desk: DeskId
    device: DeviceId
    seq: int
    held: tuple[tuple[EnvelopeId, bytes], ...]
    seen: bytes
    number: int = 1

    @property
    def envelopes(self) -> tuple[EnvelopeId, ...]:
        """The ids of what is confirmed."""
        return tuple(id_ for id_, _ in self.held)

    def serialize(self) -> bytes:
        """Give the bytes that the device signs."""
        return serialize(
            {
                "v": 1,
                "t": "receipt",
                "desk": self.desk,
                "dev": self.device,
                "seq": self.seq,
                "held": [[id_, core] for id_, core in self.held],
                "seen": self.seen,
                "n": self.number,
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> "Receipt":
        """Read a receipt's payload; its signature is not verified yet."""
        if len(payload) > RECEIPT_BYTES_MAX:
            raise MalformedError(
                f"receipt is {len(payload):,} bytes, expected at most {RECEIPT_BYTES_MAX:,}"
            )
        names = {"v", "t", "desk", "dev", "seq", "held", "seen", "n"}
        fields = Fields.of(parse(payload), "receipt", names)
        fields.integer("v", low=1, high=1)
        fields.text("t", choices=["receipt"])
        held = tuple(
            (
                EnvelopeId(bytes_of(envelope, "receipt, envelope", length=ID_BYTES)),
                bytes_of(core, "receipt, core hash", length=HASH_BYTES),
            )
            for envelope, core in (
                array_of(item, "receipt, envelope", low=2, high=2)
                for item in fields.array("held", low=1, high=RECEIPT_IDS_MAX)
            )
        )
        if any(left >= right for (left, _), (right, _) in pairwise(held)):
            raise MalformedError("receipt's envelopes are not ascending, each once")
        return cls(
            desk=DeskId(fields.bytes("desk", length=ID_BYTES)),
            device=DeviceId(fields.bytes("dev", length=ID_BYTES)),
            seq=fields.integer("seq", high=SEQ_MAX),
            held=held,
            seen=fields.bytes("seen", length=HASH_BYTES),
            # SPEC: receipts to the same readers are numbered from 1.
            number=fields.integer("n", low=1, high=NUMBER_MAX),
        )


@dataclass(frozen=True, slots=True)
class Signed:
    """A payload and a fast signature over it, for receipts, promises, notices and stamps."""

    payload: bytes
    signature: bytes

    def serialize(self) -> bytes:
        """Give the bytes on the wire."""
        return serialize([self.payload, self.signature])

    @classmethod
    def parse(cls, data: bytes, bytes_max: int = RECEIPT_BYTES_MAX) -> "Signed":
        """Read a payload of at most so many bytes with its signature; neither is verified yet."""
        payload, signature = array_of(parse(data), "signed object", low=2, high=2)
        return cls(
            bytes_of(payload, "payload", low=1, high=bytes_max),
            bytes_of(signature, "signature", length=FAST_SIGNATURE_BYTES),
        )


def sign_receipt(key: FastKey, receipt: Receipt) -> Signed:
    """Sign a receipt with the device's fast key."""
    payload = receipt.serialize()
    return Signed(payload, key.sign(Context.RECEIPT, payload))


def verify_receipt(signed: Signed, directory: Directory, *, index: int) -> Receipt:
    """Check who gave a receipt.

    Args:
        signed: As received.
        directory: Folded at least up to ``index``.
        index: Leaf index of the receipt, or any that is higher than all statements.

    Raises:
        VerificationError: The device is not of the desk, was not active, or did not sign.

    Source: PROTOCOL [Q-1]. Stops a relay that forges delivery. Whether the desk was addressed is
    ``check_confirms``'s question, which needs the envelope.
    """
    receipt = Receipt.parse(signed.payload)
    desk, device = directory.device(receipt.device)
    # SPEC: a receipt is by a device that is active in an addressed desk.
    if desk.id != receipt.desk or not device.is_active_at(index):
        raise VerificationError(
            f"device {short(receipt.device)} may not confirm for desk {short(receipt.desk)} [Q-1]"
        )
    verify_fast(device.fast, Context.RECEIPT, signed.payload, signed.signature)
    return receipt


def check_confirms(receipt: Receipt, core: Core) -> None:
    """Check that a verified receipt speaks of an envelope and for another desk that got it.

    Raises:
        VerificationError: It is of a stranger, of the sender itself, or of other envelopes.

    Source: PROTOCOL [Q-1], [Q-3]. Stops a member who was never addressed from confirming, and a
    relay that gave the recipient another envelope of the same id.
    """
    # SPEC: a receipt is by a device that is active in an addressed desk.
    if receipt.desk == core.sender or core.recipient(receipt.desk) is None:
        raise VerificationError(
            f"desk {short(receipt.desk)} confirms an envelope that was not sent to it [Q-1]"
        )
    # SPEC: a receipt confirms an envelope only with the hash of its core.
    if (core.id, core_hash(core.serialize())) not in receipt.held:
        raise VerificationError(f"receipt does not confirm envelope {short(core.id)} [Q-3]")


@dataclass(frozen=True, slots=True)
class Promise:
    """The relay's word that it holds something.

    Attributes:
        what: Hash of what was accepted: of an envelope's core, a statement or a receipt.
        at: The relay's clock, seconds since 1970 UTC; informational, it starts no clock.
        within: Seconds within which it will be in the log.
    """

    what: bytes
    at: int
    within: int = PROMISE_WITHIN_SECONDS

    def serialize(self) -> bytes:
        """Give the bytes that the relay signs."""
        return serialize(
            {"v": 1, "t": "promise", "what": self.what, "at": self.at, "within": self.within}
        )

    @classmethod
    def parse(cls, payload: bytes) -> "Promise":
        """Read a promise's payload; its signature is not verified yet."""
        if len(payload) > PROMISE_BYTES_MAX:
            raise MalformedError(
                f"promise is {len(payload):,} bytes, expected at most {PROMISE_BYTES_MAX}"
            )
        fields = Fields.of(parse(payload), "promise", {"v", "t", "what", "at", "within"})
        fields.integer("v", low=1, high=1)
        fields.text("t", choices=["promise"])
        return cls(
            what=fields.bytes("what", length=HASH_BYTES),
            at=fields.integer("at", high=PROMISE_AT_MAX),
            within=fields.integer("within", low=1, high=PROMISE_WITHIN_SECONDS),
        )


def sign_promise(key: FastKey, promise: Promise) -> Signed:
    """Sign a promise with the relay key."""
    payload = promise.serialize()
    return Signed(payload, key.sign(Context.PROMISE, payload))


def verify_promise(signed: Signed, relay_key: bytes, what: bytes) -> Promise:
    """Check that the relay promised to log exactly this.

    Args:
        signed: As received.
        relay_key: Of the genesis.
        what: The hash that must stand in it.

    Raises:
        VerificationError: It is for something else or not by the relay.

    Source: PROTOCOL [Q-2].
    """
    promise = Promise.parse(signed.payload)
    # SPEC: by the relay key of the genesis, and it names the hash of what was accepted.
    if promise.what != what:
        raise VerificationError("relay promised to log something else [Q-2]")
    verify_fast(relay_key, Context.PROMISE, signed.payload, signed.signature)
    return promise
