"""The rule by which a witness cosigns: what continues what it cosigned last, and nothing else.

Pure: no clock, no network, no storage. The web server around it is in `witness`, its memory in
`witness_state`.

Rules:

* [W-2] a witness cosigns only after a consistency proof from its stored size;
* [W-3] a witness whose clock went back refuses.
"""

from dataclasses import dataclass
from http import HTTPStatus

from comity_client.witness_state import Evidence, Seen
from comity_protocol.checkpoint import Checkpoint
from comity_protocol.errors import VerificationError
from comity_protocol.merkle import EMPTY_ROOT, verify_consistency
from comity_protocol.witnessing import SIZE_CONTENT_TYPE


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A request whose log signature has been verified."""

    old_size: int
    hashes: tuple[bytes, ...]
    checkpoint: Checkpoint
    note: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back, over HTTP or over a link."""

    status: int
    body: bytes
    content_type: str = "text/plain"

    @classmethod
    def say(cls, status: int, text: str, content_type: str = "text/plain") -> "Answer":
        """Answer with a line of text."""
        return cls(status, f"{text}\n".encode(), content_type)


class RefusedOfferError(Exception):
    """The offer is not cosigned; `evidence` is there when the log has to explain itself."""

    def __init__(self, answer: Answer, evidence: Evidence | None = None) -> None:
        super().__init__(answer.body.decode("utf-8", "replace"))
        self.answer = answer
        self.evidence = evidence


def decide(seen: Seen | None, offer: Offer, now: int) -> Seen:
    """Say what to remember if the offer may be cosigned.

    1. The old size is not beyond the new one.
    2. The old size is the one remembered, and one size has one root.
    3. The proof leads from the remembered root to the new one.
    4. The clock has not gone back since the last cosignature for this log.

    Stops: rollback, fork, rewriting of the past, back-dating by a clock that was set back.

    Raises:
        RefusedOfferError: one of these does not hold.

    Source: PROTOCOL [W-2], [W-3], [L-6]; C2SP tlog-witness, add-checkpoint.
    """
    new = offer.checkpoint
    known_size, known_root = (seen.size, seen.root) if seen else (0, EMPTY_ROOT)
    # (1)
    if offer.old_size > new.size:
        raise RefusedOfferError(
            Answer.say(HTTPStatus.BAD_REQUEST, "old size is beyond the new size")
        )
    # (2)
    # SPEC [L-6]: a size never goes back and one size has one root.
    is_fork = new.size == known_size and new.root != known_root
    fork = convict("fork", seen, offer, now) if is_fork else None
    # SPEC [W-2]: a witness cosigns only after a consistency proof from its stored size.
    if offer.old_size != known_size:
        answer = Answer.say(HTTPStatus.CONFLICT, f"{known_size}", SIZE_CONTENT_TYPE)
        raise RefusedOfferError(answer, fork)
    if is_fork:
        answer = Answer.say(HTTPStatus.CONFLICT, "another root is known for this size")
        raise RefusedOfferError(answer, fork)
    # (3)
    try:
        verify_consistency(known_size, known_root, new.size, new.root, offer.hashes)
    except VerificationError as error:
        answer = Answer.say(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        raise RefusedOfferError(answer, convict("unproven", seen, offer, now)) from error
    # (4)
    # SPEC [W-3]: a witness whose clock went back refuses.
    if seen and now < seen.cosigned_at:
        answer = Answer.say(HTTPStatus.SERVICE_UNAVAILABLE, "clock of the witness went back")
        raise RefusedOfferError(answer)
    return Seen(size=new.size, root=new.root, note=offer.note, cosigned_at=now)


def convict(kind: str, seen: Seen | None, offer: Offer, now: int) -> Evidence | None:
    """Put the two checkpoints side by side; before the first one there is nothing to compare."""
    if seen is None:
        return None
    return Evidence(
        origin=offer.checkpoint.origin,
        kind=kind,
        known=seen.note,
        offered=offer.note,
        noticed_at=now,
    )
