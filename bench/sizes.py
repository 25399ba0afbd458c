"""W: bytes on both links of an envelope, exact, from the code that makes the frames.

Up is the sender's link in both directions: the sent frame and the answer. Down is the recipient's:
the pushed frame, and the receipt for it alone with its answer (a receipt for many costs 17 bytes an
envelope). WebSocket heads count; TCP, IP and TLS (22 bytes a record) do not.
"""

from dataclasses import dataclass
from typing import Final

from comity_protocol.acts import Event
from comity_protocol.core import Core, core_hash
from comity_protocol.encoding import serialize
from comity_protocol.envelope import Sealed
from comity_protocol.identifiers import DeskId
from comity_protocol.leaves import CounterProof
from comity_protocol.receipts import Promise, Receipt, Signed, sign_promise, sign_receipt
from comity_server.hub import item_frame
from comity_server.store import AUDIT_KIND, MailboxItem
from deployment import with_auditor
from support.world import Member, World, audit_key_of, lead, reply, request

LEAD_TEXT_BYTES: Final = 1_024
REQUEST_BYTES: Final = 2_000
_COUNTER: Final = 10_000
_INDEX: Final = 1_000_000
_NOW: Final = 1_800_000_000
_SHORT: Final = 125
_MEDIUM: Final = 65_535
_MASK: Final = 4


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of one envelope.

    Attributes:
        up: On the sender's link, both directions.
        down: On the recipient's link, both directions.
        receipt: Of ``down`` and again for the sender, the receipt alone with its answer.
        copy: What the sender's link carries besides when it follows its own mailbox.
        auditor: What the auditor's link carries.
    """

    up: int
    down: int
    receipt: int
    copy: int
    auditor: int


def leads() -> tuple[Sizes, Sizes]:
    """Measure the first lead of a thread, with an auditor, and a later one."""
    world, member, receiver, auditor = with_auditor()
    text = "x" * LEAD_TEXT_BYTES
    opening = lead(text)
    first = world.seal_act(member, receiver, opening)
    later = world.seal_act(
        member,
        receiver,
        reply(Event.LEAD, opening, first.id, text=text),
        profile="lead",
        head_key=audit_key_of(first),
        thread=first.thread,
    )
    return (
        _measure(world, member, receiver, auditor, first),
        _measure(world, member, receiver, auditor, later),
    )


def formal() -> tuple[Sizes, Sizes]:
    """Measure a formal request whose act is 2,000 bytes, and a status act after it."""
    world, member, receiver, auditor = with_auditor()
    missing = REQUEST_BYTES - len(request("x").serialize())
    opening = request("x" * (missing + 1))
    first = world.seal_act(member, receiver, opening)
    answering = world.active(receiver)[0]
    # The other side's first envelope brings wraps of its own; its later ones refer to them.
    thread = world.seal_act(
        answering,
        member.desk,
        reply(Event.ACKNOWLEDGE, opening, first.id),
        profile="untoc18",
        head_key=audit_key_of(first),
    ).thread
    status = world.seal_act(
        answering,
        member.desk,
        reply(Event.ACKNOWLEDGE, opening, first.id),
        profile="untoc18",
        head_key=audit_key_of(first),
        thread=thread,
    )
    return (
        _measure(world, member, receiver, auditor, first),
        _measure(world, answering, member.desk, auditor, status),
    )


def _measure(
    world: World, sender: Member, receiver: DeskId, auditor: DeskId, sealed: Sealed
) -> Sizes:
    upload = sealed.upload
    sent = serialize(["send", 100, upload.serialize()])
    accepted = _answer(sign_promise(world.relay_key, Promise(core_hash(upload.core), _NOW)))
    receipt = _receipt(world, receiver, sealed)
    return Sizes(
        up=to_relay(sent) + from_relay(accepted),
        down=from_relay(_item(sealed, receiver)) + receipt,
        receipt=receipt,
        copy=from_relay(_item(sealed, sender.desk)),
        auditor=from_relay(_item(sealed, auditor)),
    )


def _item(sealed: Sealed, desk: DeskId) -> bytes:
    upload = sealed.upload
    core = Core.parse(upload.core)
    place = next(place for place, entry in enumerate(core.to) if entry.desk == desk)
    return item_frame(
        MailboxItem(
            counter=_COUNTER,
            leaf_index=_INDEX,
            core=upload.core,
            signature=upload.signature,
            body=None if core.to[place].kind == AUDIT_KIND else upload.body,
            audit=upload.audit,
            wrap=upload.wraps[place] if upload.wraps else None,
            proof=CounterProof(bytes(12), (bytes(32),) * (len(core.to) - 1)),
        )
    )


def _receipt(world: World, receiver: DeskId, sealed: Sealed) -> int:
    member = world.active(receiver)[0]
    receipt = Receipt(
        desk=receiver,
        device=member.id,
        seq=world.directory.desk(receiver).seq,
        held=((sealed.id, core_hash(sealed.upload.core)),),
        seen=bytes(32),
    )
    signed = sign_receipt(member.fast, receipt)
    promise = sign_promise(world.relay_key, Promise(bytes(32), _NOW))
    # Receipts are posted; only what they hold is counted, as heads of HTTP differ by client.
    return len(signed.serialize()) + len(promise.serialize())


def _answer(promise: Signed) -> bytes:
    return serialize(["accepted", 100, promise.payload, promise.signature])


def from_relay(frame: bytes) -> int:
    """Bytes of a frame with its WebSocket head."""
    if len(frame) <= _SHORT:
        return 2 + len(frame)
    return len(frame) + (4 if len(frame) <= _MEDIUM else 10)


def to_relay(frame: bytes) -> int:
    """The same for a client, which masks what it sends."""
    return from_relay(frame) + _MASK
