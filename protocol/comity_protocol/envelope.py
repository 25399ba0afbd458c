"""Envelopes: a signed core that the relay sees, and ciphertexts that it cannot open.

    core        who sends to which desks, see ``core.py``; signed by the device
    wraps       the root key, once for each recipient; in its own epoch's key
    body        the act, under a key that only the addressed desks derive
    audit part  the act's projection, under a key that auditors derive too

A root key of 32 bytes is wrapped once for each recipient; auditors get ``audit_root`` of it, from
which nothing leads back. The keys of one envelope derive from the root by the envelope's id, so a
later envelope may *refer* to an earlier one's wraps (PROTOCOL [E-6]), and disclosing one
envelope's key opens no other.

Rules:

* [E-1] The core's signature is by a device that is active in the sending desk at that leaf.
* [E-2] Body, audit part and wraps are those whose hashes the core signs.
* [E-4] A wrap is bound to envelope, sender, recipient, epoch and kind; none fits elsewhere.
* [E-5] Body and audit part are bound to the envelope and committed to their key.
* [E-6] A reference names an earlier envelope of the same desk with the same recipients and epochs.
* [E-7] Nothing is sealed to an epoch with a member outside the active set.
* [E-8] Nothing is opened before its core is verified.
* [E-9] Every size has a bound.
* [E-10] Body and audit record are padded to their classes, see ``padding.py``.

Swapped recipients, swapped bodies, ghost readers, re-used wraps, sender spoofing by a co-recipient
and two readings of one ciphertext all fail one of these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from comity_protocol.core import Core, Kind, Part, Recipient
from comity_protocol.directory import Directory
from comity_protocol.encoding import parse, serialize
from comity_protocol.errors import LimitError, MalformedError, VerificationError
from comity_protocol.fields import array_of, bytes_of
from comity_protocol.identifiers import DeskId, DeviceId, EnvelopeId, short
from comity_protocol.keys import (
    FAST_SIGNATURE_BYTES,
    KEY_BYTES,
    Context,
    FastKey,
    SealKey,
    box_decrypt,
    box_encrypt,
    decrypt,
    derive,
    encrypt,
    random_bytes,
    seal_to,
    verify_fast,
)
from comity_protocol.limits import (
    AUDIT_BYTES_MAX,
    BODY_BYTES_MAX,
    CORE_BYTES_MAX,
    RECIPIENTS_MAX,
    SEAL_KEYS_CACHED_MAX,
    UPLOAD_BYTES_MAX,
    WRAP_BYTES_MAX,
)
from comity_protocol.padding import pad_audit, pad_body, unpad


@dataclass(frozen=True, slots=True)
class Upload:
    """An envelope as it is posted: core, signature, ciphertexts and the wraps it brings."""

    core: bytes
    signature: bytes
    body: bytes
    audit: bytes
    wraps: tuple[bytes, ...]

    def serialize(self) -> bytes:
        """Give the bytes that are posted."""
        return serialize([self.core, self.signature, self.body, self.audit, list(self.wraps)])

    @classmethod
    def parse(cls, data: bytes) -> "Upload":
        """Read a posted envelope and check its parts against its core.

        Raises:
            MalformedError: It is not what ``serialize`` gives.
            VerificationError: A part is not the one that the core names.
        """
        return parse_upload(data)[0]


@dataclass(frozen=True, slots=True, repr=False)
class Thread:
    """What a desk keeps to send on, or to answer, without new wraps.

    Attributes:
        ref: The envelope that brought the wraps.
        root: The root key that they hold, 32 bytes, secret.
        to: Its recipients; a change of any epoch ends the thread's re-use.
    """

    ref: EnvelopeId
    root: bytes
    to: tuple[Recipient, ...]


@dataclass(frozen=True, slots=True)
class Address:
    """A recipient as the sender found it in the directory."""

    desk: DeskId
    epoch: int
    kind: Kind
    public: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Sender:
    """The device that sends, and its desk's current seeds.

    Attributes:
        seeds: Seed of the own desk's newest epoch for each of ``FILE`` and ``LEAD``.
    """

    desk: DeskId
    device: DeviceId
    seq: int
    key: FastKey
    seeds: Mapping[Kind, bytes]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed envelope and what its sender keeps of it."""

    id: EnvelopeId
    upload: Upload
    thread: Thread


def addresses(
    directory: Directory, sender: DeskId, counterpart: DeskId, kind: Kind
) -> tuple[Address, ...]:
    """Find whom an envelope must address: both desks and the auditors of both policies.

    Raises:
        UnknownDeskError: A desk is not in the directory.
        VerificationError: A desk has no epoch, or one with a member who is gone.

    Source: PROTOCOL [E-7], [R-9].
    """
    if sender == counterpart:
        raise ValueError("the counterpart is the sending desk")
    parties = [directory.desk(sender), directory.desk(counterpart)]
    kinds = {desk.id: kind for desk in parties}
    for desk in parties:
        for auditor in required_auditors(directory, desk.id, kind):
            kinds.setdefault(auditor, Kind.AUDIT)
    return tuple(_address(directory, desk, kinds[desk]) for desk in sorted(kinds))


def required_auditors(directory: Directory, desk: DeskId, kind: Kind) -> tuple[DeskId, ...]:
    """Give the auditors that a desk's policy demands for a key kind."""
    policy = directory.desk(desk).policy
    return policy.auditors_lead if kind is Kind.LEAD else policy.auditors_file


def seal(
    *,
    body: bytes,
    audit: bytes,
    to: Sequence[Address],
    sender: Sender,
    seen: bytes,
    envelope_id: EnvelopeId,
    thread: Thread | None = None,
) -> Sealed:
    """Seal one act to its recipients.

    Args:
        body: Plaintext of the body, not padded.
        audit: Plaintext of the audit record, not padded.
        to: From ``addresses``.
        sender: The device and its desk's seeds.
        seen: Hash of the newest cosigned checkpoint, 32 bytes.
        envelope_id: 16 random bytes; the same again when this very envelope is sent again.
        thread: Wraps to refer to; ignored when they no longer fit the recipients.

    Raises:
        LimitError: The body is too long; the rest is bounded by its maker.

    Source: PROTOCOL [E-4], [E-5], [E-6].
    """
    entries = tuple(Recipient(entry.desk, entry.epoch, entry.kind) for entry in to)
    if thread is not None and thread.to == entries:
        root, ref, recipients = thread.root, thread.ref, entries
        wraps: tuple[bytes, ...] = ()
    else:
        root, ref = random_bytes(KEY_BYTES), None
        wraps = tuple(_wrap(envelope_id, sender, entry, root) for entry in to)
        recipients = tuple(
            Recipient(entry.desk, entry.epoch, entry.kind, sha256(wrap).digest())
            for entry, wrap in zip(entries, wraps, strict=True)
        )
        thread = Thread(envelope_id, root, entries)
    body_ct = encrypt(body_key(root, envelope_id), Context.BODY, envelope_id, pad_body(body))
    # SPEC [E-9]: every size has a bound.
    if len(body_ct) > BODY_BYTES_MAX:
        raise LimitError(
            f"body is {len(body_ct):,} bytes when sealed, expected at most {BODY_BYTES_MAX:,};"
            " shorten the text, or say the rest in another act"
        )
    audit_ct = encrypt(
        audit_key(audit_root(root), envelope_id), Context.AUDIT, envelope_id, pad_audit(audit)
    )
    core = Core(
        id=envelope_id,
        sender=sender.desk,
        device=sender.device,
        seq=sender.seq,
        seen=seen,
        body=Part.of(body_ct),
        audit=Part.of(audit_ct),
        to=recipients,
        ref=ref,
    ).serialize()
    signature = sender.key.sign(Context.ENVELOPE, core)
    return Sealed(envelope_id, Upload(core, signature, body_ct, audit_ct, wraps), thread)


def parse_upload(data: bytes) -> tuple[Upload, Core]:
    """Read a posted envelope as ``Upload.parse`` does, and give the core that was read for it.

    Reading a core is a good part of what an envelope costs the relay, which needs it again.
    """
    # SPEC [E-9]: every size has a bound.
    if len(data) > UPLOAD_BYTES_MAX:
        raise MalformedError(
            f"upload is {len(data):,} bytes, expected at most {UPLOAD_BYTES_MAX:,}"
        )
    core, signature, body, audit, wraps = array_of(parse(data), "upload", low=5, high=5)
    upload = Upload(
        core=bytes_of(core, "core", high=CORE_BYTES_MAX),
        signature=bytes_of(signature, "core signature", length=FAST_SIGNATURE_BYTES),
        body=bytes_of(body, "body", high=BODY_BYTES_MAX),
        audit=bytes_of(audit, "audit part", high=AUDIT_BYTES_MAX),
        wraps=tuple(
            bytes_of(wrap, "wrap", high=WRAP_BYTES_MAX)
            for wrap in array_of(wraps, "wraps", high=RECIPIENTS_MAX)
        ),
    )
    return upload, check_parts(upload)


def check_parts(upload: Upload) -> Core:
    """Check that body, audit part and wraps are those that the core names.

    Raises:
        MalformedError: The core cannot be read.
        VerificationError: A part was swapped, altered, added or left out.

    Source: PROTOCOL [E-2].
    """
    core = Core.parse(upload.core)
    # SPEC [E-2]: body, audit part and wraps are those whose hashes the core signs.
    if Part.of(upload.body) != core.body:
        raise VerificationError("body is not the one that the core names [E-2]")
    if Part.of(upload.audit) != core.audit:
        raise VerificationError("audit part is not the one that the core names [E-2]")
    expected = [] if core.ref else [entry.wrap_hash for entry in core.to]
    if [sha256(wrap).digest() for wrap in upload.wraps] != expected:
        raise VerificationError("wraps are not those that the core names [E-2]")
    return core


def verify_core(core_bytes: bytes, signature: bytes, directory: Directory, *, index: int) -> Core:
    """Check who sent an envelope.

    Args:
        core_bytes: As received.
        signature: As received, 64 bytes.
        directory: Folded at least up to ``index``.
        index: Leaf index of the envelope; for one that is not in the log yet, any that is higher
            than all statements.

    Returns:
        The core, now to be believed.

    Raises:
        MalformedError: The core cannot be read.
        UnknownDeskError: The device or a desk is not in the directory.
        VerificationError: The device is not the sender's, was not active, or did not sign.

    Source: PROTOCOL [E-1]. Stops spoofing by a co-recipient, a removed officer, or the relay.
    """
    core = Core.parse(core_bytes)
    verify_sender(core, core_bytes, signature, directory, index=index)
    return core


def verify_sender(
    core: Core, core_bytes: bytes, signature: bytes, directory: Directory, *, index: int
) -> None:
    """Check who sent an envelope, as ``verify_core`` does, when its core was read already.

    Args:
        core: What ``Core.parse`` gave for ``core_bytes``.
        core_bytes: As received.
        signature: As received, 64 bytes.
        directory: As for ``verify_core``.
        index: As for ``verify_core``.

    Raises:
        UnknownDeskError: The device or a desk is not in the directory.
        VerificationError: The device is not the sender's, was not active, or did not sign.
    """
    desk, device = directory.device(core.device)
    # SPEC [E-1]: the signature is by a device active in the sending desk at that leaf.
    if desk.id != core.sender:
        raise VerificationError(
            f"device {short(core.device)} is not of desk {short(core.sender)} [E-1]"
        )
    if not device.is_active_at(index):
        raise VerificationError(f"device {short(core.device)} was not active at leaf {index} [E-1]")
    if core.seq > desk.seq:
        raise VerificationError(f"core names statement {core.seq}, the chain ends at {desk.seq}")
    verify_fast(device.fast, Context.ENVELOPE, core_bytes, signature)


def open_wrap(core: Core, wrap: bytes, recipient: Recipient, seed: bytes) -> bytes:
    """Open the wrap that ``core`` brings for a recipient.

    Args:
        core: The verified core that *brought* the wrap (for a reference, the earlier one).
        wrap: As received.
        recipient: The own desk's entry in ``core.to``.
        seed: The own desk's seed of the entry's epoch and kind.

    Returns:
        The root key for a desk; the audit root for an auditor; 32 bytes.

    Raises:
        VerificationError: It is not the wrap that the core names.
        OpenError: It is not sealed to this seed, envelope, sender, epoch or kind.
    """
    # SPEC [E-2]: wraps are those whose hashes the core signs.
    if sha256(wrap).digest() != recipient.wrap_hash:
        raise VerificationError("wrap is not the one that the core names [E-2]")
    info = _wrap_info(core.id, core.sender, recipient)
    if recipient.desk == core.sender:
        key = derive(Context.WRAP, seed, info)
        root = box_decrypt(key, Context.WRAP, info, wrap)
    else:
        root = _seal_key(seed).open(wrap, Context.WRAP, info)
    if len(root) != KEY_BYTES:
        raise MalformedError(f"wrap holds {len(root)} bytes, expected {KEY_BYTES}")
    return root


def thread_of(core: Core, root: bytes) -> Thread:
    """Give what lets a later envelope of the same desk refer to this one's wraps."""
    return Thread(core.id, root, tuple(entry.without_wrap() for entry in core.to))


def check_reference(core: Core, referred: Core) -> None:
    """Check that a reference may be made.

    Raises:
        VerificationError: The earlier envelope is another desk's, has other recipients or epochs,
            or brings no wraps itself.

    Source: PROTOCOL [E-6]. Stops a sender from pointing a desk at a key that it never got.
    """
    # SPEC [E-6]: an earlier envelope of the same desk with the same recipients and epochs.
    fits = (
        core.ref == referred.id
        and core.sender == referred.sender
        and referred.ref is None
        and core.to == tuple(entry.without_wrap() for entry in referred.to)
    )
    if not fits:
        raise VerificationError("reference does not fit the envelope that it names [E-6]")


def open_body(core: Core, body: bytes, root: bytes) -> bytes:
    """Open the body; gives its plaintext without padding.

    Raises:
        VerificationError: It is not the body that the core names.
        OpenError: The root is another envelope's or another thread's.
    """
    if Part.of(body) != core.body:
        raise VerificationError("body is not the one that the core names [E-2]")
    # SPEC [E-5]: bound to the envelope and committed to its key.
    return unpad(decrypt(body_key(root, core.id), Context.BODY, core.id, body))


def open_audit(core: Core, audit: bytes, key: bytes) -> bytes:
    """Open the audit part with this envelope's audit key; gives the record without padding."""
    if Part.of(audit) != core.audit:
        raise VerificationError("audit part is not the one that the core names [E-2]")
    return unpad(decrypt(key, Context.AUDIT, core.id, audit))


def audit_root(root: bytes) -> bytes:
    """Give what auditors get of a root key."""
    return derive(Context.AUDIT_KEY, root, b"root")


def body_key(root: bytes, envelope_id: EnvelopeId) -> bytes:
    """Derive the body key of one envelope; disclosing it opens that body and no other."""
    return derive(Context.BODY_KEY, root, envelope_id)


def audit_key(audit_root_: bytes, envelope_id: EnvelopeId) -> bytes:
    """Derive the audit key of one envelope from the audit root."""
    return derive(Context.AUDIT_KEY, audit_root_, envelope_id)


def _address(directory: Directory, id_: DeskId, kind: Kind) -> Address:
    desk = directory.desk(id_)
    epoch = desk.epoch
    if epoch is None:
        raise VerificationError(f"desk {short(id_)} has no keys yet; ask it to turn its epoch")
    # SPEC [E-7]: nothing is sealed to an epoch with a member outside the active set.
    if not desk.is_sealable:
        raise VerificationError(f"desk {short(id_)} has an epoch with a member who is gone [E-7]")
    return Address(id_, epoch.number, kind, epoch.lead if kind is Kind.LEAD else epoch.file)


def _wrap(envelope_id: EnvelopeId, sender: Sender, entry: Address, root: bytes) -> bytes:
    info = _wrap_info(envelope_id, sender.desk, entry)
    if entry.desk == sender.desk:
        key = derive(Context.WRAP, sender.seeds[entry.kind], info)
        return box_encrypt(key, Context.WRAP, info, root)
    secret = audit_root(root) if entry.kind is Kind.AUDIT else root
    return seal_to(entry.public, Context.WRAP, info, secret)


def _wrap_info(envelope_id: EnvelopeId, sender: DeskId, entry: Address | Recipient) -> bytes:
    # SPEC [E-4]: a wrap is bound to envelope, sender, recipient, epoch and kind.
    return envelope_id + sender + entry.desk + entry.epoch.to_bytes(8, "big") + bytes((entry.kind,))


@lru_cache(SEAL_KEYS_CACHED_MAX)
def _seal_key(seed: bytes) -> SealKey:
    # A mailbox is opened with one or two epochs' keys, and parsing a key costs as much as opening.
    return SealKey.from_seed(seed)
