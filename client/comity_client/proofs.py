"""Proofs of an envelope's place in the log, kept as files, so that they are checked offline.

A proof is a C2SP tlog-proof: leaf index, hashes, and the checkpoint with its cosignatures. Its
extra line is the second half of the log entry, a hash over the commitments to mailbox counters, and
so tells nobody a counter; the first half follows from the core. Whoever has the envelope's core,
the genesis and this file needs neither the relay nor this program's memory.
"""

from pathlib import Path
from typing import Final

from comity_client.desk import Desk
from comity_client.envelopes import UnknownEnvelopeError
from comity_client.files import write_private
from comity_client.state import Newest
from comity_protocol.checkpoint import WitnessedCheckpoint
from comity_protocol.core import Core, core_hash
from comity_protocol.encoding import parse
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.genesis import Genesis
from comity_protocol.identifiers import EnvelopeId, short
from comity_protocol.leaves import PLACES_BYTES, CounterProof, envelope_leaf_of, places_of
from comity_protocol.log_proof import LogProof, verify_log_proof
from comity_protocol.merkle import leaf_hash

FOLDER: Final = "proofs"
PROOF_BYTES_MAX: Final = 262_144


async def fetch_proof(desk: Desk, envelope: EnvelopeId, under: Newest | None = None) -> LogProof:
    """Compute the proof of an envelope from the relay's tiles.

    Args:
        desk: It holds the envelope.
        envelope: Its id.
        under: A verified checkpoint that covers it; None for the newest.

    Raises:
        UnknownEnvelopeError: It is not in the log as far as this device knows.
        OfflineError: The relay is not there.
    """
    row = desk.state.connection.execute(
        "SELECT leaf_index, counter, proof, core FROM inbox"
        " WHERE envelope = ? AND sealed_at IS NOT NULL"
        " ORDER BY counter LIMIT 1",
        (envelope,),
    ).fetchone()
    if row is None:
        raise UnknownEnvelopeError(f"envelope {short(envelope)} is not in the log yet")
    index, counter, proof, core = row
    own = desk.profile.desk
    position = [entry.desk for entry in Core.parse(core).to].index(own)
    commitments = CounterProof.of(parse(proof)).commitments(position, own, counter)
    under = under or desk.newest
    hashes = await desk.log.inclusion_proof(index, under)
    return LogProof(index=index, hashes=hashes, note=under.note, extra=places_of(commitments))


def verify_proof(proof: LogProof, core: bytes, genesis: Genesis) -> WitnessedCheckpoint:
    """Check that an envelope is in the log, with nothing but these three.

    Args:
        proof: As computed or read from a file.
        core: The envelope's core, as stored.
        genesis: Verified against the pinned hash.

    Raises:
        MalformedError: The proof cannot be read.
        VerificationError: The log, the quorum or the proof does not hold.

    Source: PROTOCOL [L-2], [L-3], [L-8], [R-3].
    """
    if len(proof.extra) != PLACES_BYTES:
        text = f"proof has an extra line of {len(proof.extra)} bytes, expected {PLACES_BYTES}"
        raise MalformedError(text)
    # SPEC [L-8]: the first half of the entry follows from the core alone.
    leaf = leaf_hash(envelope_leaf_of(core_hash(core), proof.extra))
    return verify_log_proof(proof, leaf, genesis.log, genesis.quorum)


def core_of(desk: Desk, envelope: EnvelopeId) -> bytes:
    """Give the core of an envelope in the log, as it was received."""
    row = desk.state.connection.execute(
        "SELECT core FROM inbox WHERE envelope = ? AND sealed_at IS NOT NULL"
        " ORDER BY counter LIMIT 1",
        (envelope,),
    ).fetchone()
    if row is None:
        raise VerificationError(f"envelope {short(envelope)} is not in the log yet")
    return bytes(row[0])


def proof_path(profile: Path, envelope: EnvelopeId) -> Path:
    """Give the file in which a proof is kept."""
    return profile / FOLDER / f"{envelope.hex()}.tlog-proof"


def keep_proof(path: Path, proof: LogProof) -> None:
    """Keep a proof, readable by its owner alone."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_private(path, proof.serialize())


def read_proof(path: Path) -> LogProof | None:
    """Read a kept proof; None when there is none.

    Raises:
        MalformedError: The file is damaged.
    """
    try:
        with path.open("rb") as file:
            return LogProof.parse(file.read(PROOF_BYTES_MAX))
    except FileNotFoundError:
        return None
