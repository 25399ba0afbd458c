"""Root keys: which envelope's wraps open another, found through what is stored.

A later envelope may refer to an earlier one's wraps. The wrap lies in the inbox, as it came, or in
the outbox, as it was sealed; the root key that it holds is kept in memory only.

Rules:

* [B-12] Wraps are re-used within one exchange, one direction, the same recipients and epochs.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from comity_client.seeds import Seeds
from comity_client.state import State
from comity_protocol.chain import Desk
from comity_protocol.core import Core, Kind
from comity_protocol.envelope import (
    Address,
    Thread,
    Upload,
    audit_key,
    audit_root,
    check_reference,
    open_wrap,
    parse_upload,
    thread_of,
)
from comity_protocol.errors import VerificationError
from comity_protocol.identifiers import DeskId, EnvelopeId, ExchangeId

ROOTS_CACHED_MAX: Final = 4_096


class Threads:
    """Finds and remembers root keys for one desk."""

    def __init__(self, state: State, seeds: Seeds) -> None:
        """Take where wraps lie and what opens them."""
        self._state: Final = state
        self._seeds: Final = seeds
        self._gone: Final[set[EnvelopeId]] = set()
        self._roots: Final[OrderedDict[EnvelopeId, tuple[Core, bytes]]] = OrderedDict()

    def root(self, core: Core, wrap: bytes | None, desk: Desk) -> bytes:
        """Give the root key of an envelope; for an auditor, the audit root.

        Args:
            core: Of the envelope, verified.
            wrap: The own desk's wrap if the envelope brings wraps.
            desk: The own desk.

        Raises:
            VerificationError: The wrap is missing or another's, or the reference does not fit.
            OpenError: The wrap does not open, or this device does not hold the key.
        """
        if core.ref is not None:
            referred, root = self._stored(core.ref, desk)
            check_reference(core, referred)
        else:
            own = core.recipient(desk.id)
            if own is None or wrap is None:
                raise VerificationError("envelope brings no wrap for this desk [E-2]")
            root = open_wrap(core, wrap, own, self._seeds.seed(desk, own.epoch, own.kind))
        self._keep(core, root)
        return root

    def audit_key(self, envelope: EnvelopeId, desk: Desk) -> bytes:
        """Give the audit key of an envelope that is stored here.

        Raises:
            VerificationError: It is not stored here.
        """
        core, root = self._stored(envelope, desk)
        own = core.recipient(desk.id)
        is_auditor = own is not None and own.kind is Kind.AUDIT
        return audit_key(root if is_auditor else audit_root(root), envelope)

    def reusable(
        self, exchange: ExchangeId, addressed: Sequence[Address], desk: Desk
    ) -> Thread | None:
        """Find the own envelope of an exchange whose wraps fit these recipients; None if none.

        Source: PROTOCOL [B-12], [E-6].
        """
        # SPEC [B-12]: within one exchange, one direction, the same recipients and epochs.
        wanted = [(entry.desk, entry.epoch, entry.kind) for entry in addressed]
        for envelope in self._own(exchange, desk.id):
            core, wrap = self._find(envelope)
            if core.ref is None and [(to.desk, to.epoch, to.kind) for to in core.to] == wanted:
                return thread_of(core, self.root(core, wrap, desk))
        return None

    def forget(self, envelope: EnvelopeId) -> None:
        """Forget an envelope that is sealed anew, so that nothing refers to it."""
        self._roots.pop(envelope, None)
        self._gone.add(envelope)

    def _stored(self, envelope: EnvelopeId, desk: Desk) -> tuple[Core, bytes]:
        """Give core and root of a stored envelope; a reference goes one step deep at most."""
        found = self._roots.get(envelope)
        if found is None:
            core, wrap = self._find(envelope)
            found = core, self.root(core, wrap, desk)
        return found

    def _find(self, envelope: EnvelopeId) -> tuple[Core, bytes | None]:
        """Give core and own wrap of a stored envelope whose sender was verified, or an own one."""
        row = self._state.connection.execute(
            "SELECT core, wrap FROM inbox WHERE envelope = ? AND is_settled = 1"
            " AND sealed_at IS NOT NULL ORDER BY counter LIMIT 1",
            (envelope,),
        ).fetchone()
        if row is not None:
            return Core.parse(row[0]), row[1]
        row = self._state.connection.execute(
            "SELECT upload FROM outbox WHERE envelope = ?", (envelope,)
        ).fetchone()
        if row is None:
            raise VerificationError("act names an envelope that this desk does not hold [X-5]")
        _, core, wrap = read_own_upload(row[0])
        return core, wrap

    def _own(self, exchange: ExchangeId, desk: DeskId) -> list[EnvelopeId]:
        rows = self._state.connection.execute(
            "SELECT envelope FROM outbox WHERE exchange = ? AND stage IN ('queued', 'accepted')"
            " UNION SELECT envelope FROM inbox WHERE exchange = ? AND sender = ?"
            " AND refused IS NULL AND opens = 1",
            (exchange, exchange, desk),
        )
        return [EnvelopeId(row[0]) for row in rows if row[0] not in self._gone]

    def _keep(self, core: Core, root: bytes) -> None:
        self._roots[core.id] = (core, root)
        if len(self._roots) > ROOTS_CACHED_MAX:
            self._roots.popitem(last=False)


def read_own_upload(data: bytes) -> tuple[Upload, Core, bytes | None]:
    """Read an envelope as the own desk posts it; give it with its core and the own desk's wrap.

    The wrap is None when the envelope refers to an earlier one's.
    """
    upload, core = parse_upload(data)
    wraps = dict(zip((entry.desk for entry in core.to), upload.wraps, strict=False))
    return upload, core, wraps.get(core.sender)
