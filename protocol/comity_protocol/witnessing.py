"""The talk of a log with a witness: C2SP tlog-witness `add-checkpoint`, byte for byte.

The log sends a checkpoint and the proof that it continues the one that the witness cosigned last;
the witness answers with its cosignature, with the size that it knows, or with a refusal. When it
cosigns is decided by the witness, a program of the client.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from comity_protocol.checkpoint import Cosignature, cosignatures
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.log_proof import parse_hashes, split_head
from comity_protocol.signed_note import (
    Note,
    SignatureLine,
    VerifierKey,
    decode_text,
    encode_base64,
    parse_decimal,
    parse_note,
    parse_signature_lines,
    serialize_note,
)

SIZE_CONTENT_TYPE: Final = "text/x.tlog.size"

ADD_CHECKPOINT: Final = "/add-checkpoint"
ANCHOR_QUERY: Final = "anchor"
"""With this query a witness adds its ML-DSA-44 line; one that has none ignores it."""

STAMP: Final = "/stamp"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCheckpoint:
    """The body of a request to a witness: please cosign this, it continues what you know.

    Attributes:
        old_size: the size that the witness cosigned last, or zero.
        hashes: the consistency proof from that size; empty from zero.
        note: the new checkpoint, with the log's signature.
    """

    old_size: int
    hashes: tuple[bytes, ...]
    note: bytes

    def serialize(self) -> bytes:
        """Return the bytes of the request's body."""
        lines = [f"old {self.old_size}\n", *(f"{encode_base64(h)}\n" for h in self.hashes), "\n"]
        return "".join(lines).encode() + self.note

    @classmethod
    def parse(cls, data: bytes) -> "AddCheckpoint":
        """Read a request's body, refusing whatever `serialize` would not have written.

        Raises:
            MalformedError, LimitError: it breaks the format, or the note in it does.

        Source: C2SP tlog-witness, add-checkpoint.
        """
        head, note = split_head(data, "request")
        if not head[0].startswith("old "):
            raise MalformedError("request does not begin with the old size")
        old_size = parse_decimal(head[0].removeprefix("old "), "old size")
        return cls(old_size=old_size, hashes=parse_hashes(head[1:]), note=note)


@dataclass(frozen=True, slots=True)
class Cosigned:
    """The witness cosigned: its line, verified, to be added to the note.

    `anchor` is its line for an anchor, verified, when it was asked for one and gave it.
    """

    line: SignatureLine
    cosignature: Cosignature
    anchor: SignatureLine | None = None


@dataclass(frozen=True, slots=True)
class KnownSize:
    """The witness knows another size than the old one offered; ask again from this one."""

    size: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The witness refused; `status` says why: 400, 403, 404, 409 (another root), 422 or 5xx."""

    status: int


WitnessAnswer = Cosigned | KnownSize | Refused


def parse_witness_answer(
    *,
    status: int,
    content_type: str,
    body: bytes,
    note: bytes,
    witness: VerifierKey,
    anchor: VerifierKey | None = None,
) -> WitnessAnswer:
    """Read what a witness answered to `AddCheckpoint`.

    Args:
        status: the HTTP status.
        content_type: the header as received.
        body: the body as received; the caller bounds it.
        note: the checkpoint that was offered.
        witness: the pinned key of the witness that was asked.
        anchor: its pinned ML-DSA-44 key, when it was asked for an anchor.

    Raises:
        MalformedError, LimitError: the answer breaks the format.
        VerificationError: the witness claims success without a cosignature that verifies.

    Source: C2SP tlog-witness, add-checkpoint.
    """
    if status == HTTPStatus.OK:
        lines = parse_signature_lines(decode_text(body, "answer"))
        answered = Note(parse_note(note).text, lines)
        line = answered.line_by(witness)
        if line is None:
            raise VerificationError(f"answer has no cosignature by {witness.name}")
        whole = serialize_note(answered)
        (cosignature,) = cosignatures(whole, [witness])
        added = None if anchor is None else answered.line_by(anchor)
        if anchor is not None:
            cosignatures(whole, [anchor])  # Verifies the line, when there is one.
        return Cosigned(line, cosignature, added)
    if (
        status == HTTPStatus.CONFLICT
        and content_type.partition(";")[0].strip() == SIZE_CONTENT_TYPE
    ):
        return KnownSize(parse_decimal(decode_text(body, "answer")[:-1], "known size"))
    return Refused(status)
