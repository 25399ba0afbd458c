"""Proofs that a stranger can check without any relay: C2SP tlog-proof, byte for byte.

A proof is a leaf's index, the hashes that lead from it to a root, and the checkpoint that states
this root, with its cosignatures. Hashes are computed and checked in `merkle`, checkpoints in
`checkpoint`. A witness is sent hashes and a checkpoint in the same frame; see `witnessing`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from comity_protocol.checkpoint import Checkpoint, WitnessedCheckpoint, verify_quorum
from comity_protocol.errors import LimitError, MalformedError
from comity_protocol.limits import PROOF_HASHES_MAX
from comity_protocol.merkle import HASH_BYTES, verify_inclusion
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import (
    VerifierKey,
    decode_base64,
    decode_text,
    encode_base64,
    parse_decimal,
    parse_note,
)

PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProof:
    """A tlog-proof: where a leaf is in the log, and the checkpoint and hashes that prove it.

    Attributes:
        index: the leaf's, counted from zero.
        hashes: the inclusion proof, from the leaf's sibling upwards.
        note: the checkpoint, verbatim, with its cosignatures.
        extra: what an application wishes to add; authenticated by nothing; empty for none.
    """

    index: int
    hashes: tuple[bytes, ...]
    note: bytes
    extra: bytes = b""

    def serialize(self) -> bytes:
        """Return the bytes of a `.tlog-proof` file."""
        return (
            "".join(
                [
                    f"{PROOF_HEADER}\n",
                    f"extra {encode_base64(self.extra)}\n" if self.extra else "",
                    f"index {self.index}\n",
                    *(f"{encode_base64(hashed)}\n" for hashed in self.hashes),
                    "\n",
                ]
            ).encode()
            + self.note
        )

    @classmethod
    def parse(cls, data: bytes) -> "LogProof":
        """Read a `.tlog-proof` file, refusing whatever `serialize` would not have written.

        Raises:
            MalformedError, LimitError: it breaks the format, or the note in it does.

        Source: PROTOCOL [L-4]; C2SP tlog-proof, Format.
        """
        head, note = split_head(data, "proof")
        if head[0] != PROOF_HEADER:
            raise MalformedError(f"proof does not begin with {PROOF_HEADER}")
        extra = b""
        if len(head) > 1 and head[1].startswith("extra "):
            extra = decode_base64(head.pop(1).removeprefix("extra "), "extra data")
        if len(head) == 1 or not head[1].startswith("index "):
            raise MalformedError("proof has no index line")
        index = parse_decimal(head[1].removeprefix("index "), "leaf index")
        return cls(index=index, hashes=parse_hashes(head[2:]), note=note, extra=extra)


def verify_log_proof(
    proof: LogProof, leaf_hash: bytes, log: VerifierKey, quorum: Quorum
) -> WitnessedCheckpoint:
    """Check that a leaf is in the log and that a quorum of witnesses vouches for that log.

    Returns:
        The checkpoint, with the time at which the leaf is proven to have been in the log.

    Raises:
        MalformedError, LimitError: the note is not a checkpoint in canonical form.
        VerificationError: a signature, the quorum or the inclusion proof does not hold.

    Source: PROTOCOL [L-2], [L-3].
    """
    witnessed = verify_quorum(proof.note, log, quorum)
    checkpoint = witnessed.checkpoint
    verify_inclusion(leaf_hash, proof.index, checkpoint.size, checkpoint.root, proof.hashes)
    return witnessed


def split_head(data: bytes, what: str) -> tuple[list[str], bytes]:
    """Split what stands before a checkpoint from it: lines, an empty line, and the note verbatim.

    Args:
        data: as received.
        what: its name, for messages.

    Raises:
        MalformedError, LimitError: there is no empty line, or the note is no checkpoint.
    """
    head, gap, note = data.partition(b"\n\n")
    if not gap:
        raise MalformedError(f"{what} has no empty line before its checkpoint")
    Checkpoint.parse(parse_note(note).text)
    return decode_text(head + b"\n", what)[:-1].split("\n"), note


def parse_hashes(lines: Sequence[str]) -> tuple[bytes, ...]:
    """Read the hashes of a proof, one a line.

    Raises:
        LimitError: there are more than a proof in any tree has.
        MalformedError: one is not 32 bytes in canonical base64.
    """
    if len(lines) > PROOF_HASHES_MAX:
        raise LimitError(f"proof has {len(lines)} hashes, expected at most {PROOF_HASHES_MAX}")
    hashes = tuple(decode_base64(line, "proof hash") for line in lines)
    if any(len(hashed) != HASH_BYTES for hashed in hashes):
        raise MalformedError(f"proof has a hash that is not {HASH_BYTES} bytes")
    return hashes
