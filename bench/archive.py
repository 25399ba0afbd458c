"""A: what an auditor owes each envelope of its archive: sender, entry of the log, its own part."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from nacl.signing import SigningKey, VerifyKey

from comity_protocol.audit import AuditRecord
from comity_protocol.core import Core, core_hash
from comity_protocol.envelope import Sealed, audit_key, open_audit, open_wrap, verify_core
from comity_protocol.leaves import envelope_leaf_of
from comity_protocol.merkle import leaf_hash
from deployment import with_auditor
from envelopes import Writer
from support.world import Member, World

_PLACES = bytes(32)
_MESSAGE = bytes(400)
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class ArchiveTimes:
    """Seconds for a million envelopes, from those of ``count``.

    Attributes:
        signed: Sender, signature and entry of the log.
        opened: The same, and the auditor's part opened and read.
        floor: One Ed25519 verification each, of a core's length, and nothing else.
    """

    signed: float
    opened: float
    floor: float


def run(count: int) -> ArchiveTimes:
    """Seal so many envelopes with an auditor, and check them as the auditor does."""
    world, sender, receiver, auditor = with_auditor()
    writer = Writer(world, sender, receiver, bytes(32))
    archive = [writer.write() for _ in range(count)]
    reader = world.active(auditor)[0]
    million = _MILLION / count
    return ArchiveTimes(
        signed=_check(archive, world) * million,
        opened=_open(archive, world, reader) * million,
        floor=_verify(count) * million,
    )


def _check(archive: Sequence[Sealed], world: World) -> float:
    started = time.perf_counter()
    for sealed in archive:
        _verified(sealed, world)
    return time.perf_counter() - started


def _open(archive: Sequence[Sealed], world: World, reader: Member) -> float:
    roots: dict[bytes, bytes] = {}
    started = time.perf_counter()
    for sealed in archive:
        core, upload = _verified(sealed, world), sealed.upload
        root = roots.get(core.ref or core.id)
        if root is None:
            entry = core.recipient(reader.desk)
            assert entry is not None
            place = core.to.index(entry)
            root = open_wrap(core, upload.wraps[place], entry, reader.secret.file)
            roots[core.id] = root
        AuditRecord.parse(open_audit(core, upload.audit, audit_key(root, core.id)))
    return time.perf_counter() - started


def _verified(sealed: Sealed, world: World) -> Core:
    upload = sealed.upload
    core = verify_core(upload.core, upload.signature, world.directory, index=world.next_index)
    leaf_hash(envelope_leaf_of(core_hash(upload.core), _PLACES))
    return core


def _verify(count: int) -> float:
    key = SigningKey.generate()
    signature = key.sign(_MESSAGE).signature
    public = bytes(key.verify_key)
    started = time.perf_counter()
    for _ in range(count):
        VerifyKey(public).verify(_MESSAGE, signature)
    return time.perf_counter() - started
