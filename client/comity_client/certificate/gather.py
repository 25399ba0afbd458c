"""Makes the certificate of an act that a desk sent or received.

The act is proven under the first checkpoint that covers it, because that one dates it. A relay that
holds an earlier one back makes the certificate say a later time, never an earlier one. What was
made is checked as a stranger would before anybody gets it.
"""

from collections.abc import Collection, Sequence
from typing import Final

from comity_client.certificate.check import Checked, check_certificate
from comity_client.certificate.record import Admission, Certificate, KeptReceipt, Opening
from comity_client.desk import Desk
from comity_client.envelopes import UnknownEnvelopeError
from comity_client.glance import KeptReceipt as Stored
from comity_client.glance import receipts
from comity_client.proofs import fetch_proof
from comity_client.seeds import Seeds
from comity_client.state import Newest
from comity_client.threads import Threads
from comity_protocol.checkpoint import note_hash, verify_quorum
from comity_protocol.core import Core, Kind, core_hash
from comity_protocol.encoding import parse
from comity_protocol.envelope import body_key
from comity_protocol.errors import OpenError, VerificationError
from comity_protocol.identifiers import DeskId, DeviceId, EnvelopeId, short
from comity_protocol.limits import CERTIFICATE_RECEIPTS_MAX
from comity_protocol.log_proof import LogProof
from comity_protocol.receipts import Receipt, Signed
from comity_protocol.stamps import Stamp
from comity_protocol.statements import (
    DeskStatement,
    SignedStatement,
    parse_signatures,
    parse_statement,
)

_COLUMNS: Final = "core, signature, body, wrap, leaf_index"


class NotOpenedError(OpenError):
    """An act that this device cannot open for others."""

    code = "not-opened"
    remedy = "make the certificate without --open, or ask a device of a desk that holds the act"


async def gather(desk: Desk, envelope: EnvelopeId, *, is_open: bool = False) -> Checked:
    """Make the certificate of an envelope that is in the log.

    Args:
        desk: Of the sender, the recipient or an auditor, synchronised.
        envelope: Its id.
        is_open: Whether the certificate opens the body to whoever holds it, for ever.

    Raises:
        UnknownEnvelopeError: It is not in the log as far as this device knows.
        OfflineError, RelayRefusedError: The relay is not there, or refuses.
        NotOpenedError: The body is not this desk's to open, or not held any more.
        VerificationError: Something does not hold.
    """
    row = desk.state.connection.execute(
        f"SELECT {_COLUMNS} FROM inbox WHERE envelope = ?"  # noqa: S608  # constants only
        " AND sealed_at IS NOT NULL ORDER BY counter LIMIT 1",
        (envelope,),
    ).fetchone()
    if row is None:
        raise UnknownEnvelopeError(f"envelope {short(envelope)} is not in the log yet")
    core_bytes, signature, body, wrap, index = row
    core = Core.parse(core_bytes)
    under = await _covering(desk, index)
    kept = [
        (one, await _covering(desk, one.leaf_index))
        for one in receipts(desk.state, core.id)[:CERTIFICATE_RECEIPTS_MAX]
    ]
    devices = {core.device, *(Receipt.parse(one.payload).device for one, _ in kept)}
    largest = max((under, *(covering for _, covering in kept)), key=lambda one: one.size)
    certificate = Certificate(
        genesis=desk.directory.genesis.serialize(),
        proof=(await fetch_proof(desk, envelope, under)).serialize(),
        core=core_bytes,
        signature=signature,
        seen=await _seen(desk, core),
        admissions=await _admissions(desk, core, devices, largest),
        receipts=await _receipts(desk, kept),
        stamps=_stamps(desk, core_bytes),
        names=tuple(
            (to.desk, desk.profile.names[to.desk])
            for to in core.to
            if to.desk in desk.profile.names
        ),
        opening=_opening(desk, core, body, wrap) if is_open else None,
    )
    return check_certificate(certificate, desk.profile.deployment.genesis_hash)


async def _covering(desk: Desk, index: int) -> Newest:
    """Fetch the first checkpoint that covers a leaf, and see that it belongs to our log's past."""
    note = await desk.relay.covering(index)
    genesis = desk.directory.genesis
    witnessed = verify_quorum(note, genesis.log, genesis.quorum)
    head = witnessed.checkpoint
    if not index < head.size <= desk.newest.size:
        raise VerificationError(f"checkpoint of size {head.size} does not date leaf {index} [N-2]")
    found = Newest(size=head.size, root=head.root, note=note, sealed_at=witnessed.sealed_time)
    await desk.log.verify_growth(found, desk.newest)
    return found


async def _receipts(desk: Desk, kept: Sequence[tuple[Stored, Newest]]) -> tuple[KeptReceipt, ...]:
    found = []
    for one, under in kept:
        hashes = await desk.log.inclusion_proof(one.leaf_index, under)
        proof = LogProof(index=one.leaf_index, hashes=hashes, note=under.note)
        found.append(KeptReceipt(proof.serialize(), Signed(one.payload, one.signature)))
    return tuple(sorted(found, key=lambda one: one.signed.payload))


async def _seen(desk: Desk, core: Core) -> bytes | None:
    """Fetch the note that the author had seen, when this device knows how large its log was."""
    row = desk.state.connection.execute(
        "SELECT size FROM checkpoints WHERE hash = ?", (core.seen,)
    ).fetchone()
    if row is None:
        return None
    note = await desk.relay.covering(row[0] - 1)
    # The relay may have more cosignatures on that checkpoint by now; then it is another note.
    return note if note_hash(note) == core.seen else None


async def _admissions(
    desk: Desk, core: Core, devices: Collection[DeviceId], under: Newest
) -> tuple[Admission, ...]:
    """Give what admitted these devices, the admins who let them in, and all desks addressed."""
    todo = [desk.directory.device(device) for device in devices]
    indexes = [_index_of_desk(desk, to.desk) for to in core.to]
    wanted = {index: await _admission(desk, index, under) for index in indexes}
    while todo:
        owner, device = todo.pop()
        wanted[device.added_index] = await _admission(desk, device.added_index, under)
        # Admins are let in by custodians [S-3], so this goes one step and ends.
        signers = {signer for signer, _ in wanted[device.added_index].signed.signatures}
        todo += [
            (owner, owner.devices[id_])
            for id_ in owner.devices
            if id_ in signers and owner.devices[id_].added_index not in wanted
        ]
    return tuple(wanted[index] for index in sorted(wanted))


async def _admission(desk: Desk, index: int, under: Newest) -> Admission:
    payload, signatures = desk.state.connection.execute(
        "SELECT payload, signatures FROM statements WHERE leaf_index = ?", (index,)
    ).fetchone()
    signed = SignedStatement(payload, parse_signatures(parse(signatures)))
    return Admission(index, signed, await desk.log.inclusion_proof(index, under))


def _index_of_desk(desk: Desk, id_: DeskId) -> int:
    rows = desk.state.connection.execute(
        "SELECT leaf_index, payload FROM statements WHERE instr(payload, ?) > 0 ORDER BY ordinal",
        (id_,),
    )
    for index, payload in rows:
        # Another desk's policy may have named it as an auditor before.
        statement = parse_statement(payload)
        if isinstance(statement, DeskStatement) and statement.link.desk == id_:
            return int(index)
    raise VerificationError(f"desk {short(id_)} was never stated")


def _stamps(desk: Desk, core: bytes) -> tuple[Stamp, ...]:
    rows = desk.state.connection.execute(
        "SELECT witness, at, signature FROM stamps WHERE what = ?", (core_hash(core),)
    )
    return tuple(sorted(Stamp(*row) for row in rows))


def _opening(desk: Desk, core: Core, body: bytes | None, wrap: bytes | None) -> Opening:
    own = core.recipient(desk.profile.desk)
    if own is None or own.kind is Kind.AUDIT:
        raise NotOpenedError("body is sealed to other desks, and cannot be opened here")
    if body is None:
        raise NotOpenedError("body is not held any more")
    threads = Threads(desk.state, Seeds(desk.state, desk.keys))
    root = threads.root(core, wrap, desk.directory.desk(own.desk))
    return Opening(body, body_key(root, core.id))
