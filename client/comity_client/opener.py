"""Opens and checks one envelope: everything that must hold before an act is shown.

1. The core is signed by a device active in the sending desk at that leaf [E-1].
2. Body, audit part and wrap are those of the core, and open with the own desk's key [E-2, E-4].
3. The act is readable and says what its procedure demands [P-1, P-3].
4. A formal act carries the composite signature of the device that sent it [P-4].
5. The auditors were told the same as this desk [U-1, U-3].

That the envelope is in the log is ``mail``'s to check, before; whether the act is legal where it
stands is the exchange's, after.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from comity_client.threads import Threads
from comity_protocol.acts import Act, Body, Gossip, verify_act
from comity_protocol.audit import AuditRecord, verify_projection
from comity_protocol.chain import Desk
from comity_protocol.core import Core, Kind
from comity_protocol.directory import Directory
from comity_protocol.envelope import audit_key, audit_root, open_audit, open_body
from comity_protocol.errors import VerificationError
from comity_protocol.identifiers import DeskId, ExchangeId
from comity_protocol.profiles import PROFILES, Profile, check_says

FindProfile = Callable[[ExchangeId], Profile | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """An envelope as it is stored."""

    core: Core
    body: bytes | None
    audit: bytes
    wrap: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What an envelope holds. Plaintext: it is never written to the disk.

    Attributes:
        act: None for an auditor, who is not given it.
        act_bytes: The act as it was signed and hashed; empty for an auditor.
        record: The audit record.
        is_signed: Whether the act carries a composite signature, which was verified.
        gossip: The checkpoint that the sender had seen, not yet compared.
    """

    act: Act | None
    act_bytes: bytes
    record: AuditRecord
    is_signed: bool
    gossip: Gossip | None


class Opener:
    """Opens envelopes for one desk."""

    def __init__(self, threads: Threads) -> None:
        """Take what finds root keys."""
        self._threads: Final = threads

    def open(
        self, parts: Parts, find_profile: FindProfile, directory: Directory, own: DeskId
    ) -> Content:
        """Open an envelope whose core was verified, and check its content.

        Args:
            parts: The envelope.
            find_profile: Gives the procedure of an exchange that is known, by its id.
            directory: Folded beyond the envelope.
            own: The own desk.

        Raises:
            MalformedError: The content is not readable or says too little or too much.
            OpenError: It does not open.
            VerificationError: A signature, hash or projection does not hold.
        """
        core, desk = parts.core, directory.desk(own)
        root = self._threads.root(core, parts.wrap, desk)
        entry = core.recipient(own)
        if entry is not None and entry.kind is Kind.AUDIT:
            plaintext = open_audit(core, parts.audit, audit_key(root, core.id))
            return Content(
                act=None,
                act_bytes=b"",
                record=AuditRecord.parse(plaintext),
                is_signed=False,
                gossip=None,
            )
        body = _open_body(parts, root)
        act = Act.parse(body.act)
        profile = find_profile(act.exchange) or PROFILES.get(act.profile or "")
        if profile is None:
            raise VerificationError("act belongs to no exchange that this desk knows [X-1]")
        _check_act(act, body, core, profile, directory)
        plaintext = open_audit(core, parts.audit, audit_key(audit_root(root), core.id))
        record = AuditRecord.parse(plaintext)
        self._check_record(record, act, desk)
        return Content(
            act=act,
            act_bytes=body.act,
            record=record,
            is_signed=body.signature is not None,
            gossip=body.gossip,
        )

    def act(self, parts: Parts, desk: Desk) -> Act:
        """Open the act of an own envelope again, which was checked before it was sealed."""
        return Act.parse(_open_body(parts, self._threads.root(parts.core, parts.wrap, desk)).act)

    def _check_record(self, record: AuditRecord, act: Act, desk: Desk) -> None:
        head_key = None if act.head is None else self._threads.audit_key(act.head, desk)
        verify_projection(record, act, head_key)


def _open_body(parts: Parts, root: bytes) -> Body:
    if parts.body is None:
        raise VerificationError("relay kept the body back from a desk that is addressed [E-2]")
    return Body.parse(open_body(parts.core, parts.body, root))


def _check_act(act: Act, body: Body, core: Core, profile: Profile, directory: Directory) -> None:
    check_says(act, profile)
    # SPEC [P-4]: a formal act carries the composite signature of the device that sent it.
    if act.event in profile.signed or body.signature is not None:
        _, device = directory.device(core.device)
        verify_act(
            device.full,
            body.act,
            body.signature,
            deployment=directory.genesis.deployment,
            sender=core.sender,
            receiver=core.counterpart,
        )
