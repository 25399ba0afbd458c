"""How far clocks are from the witnesses' time: this machine's, the relay's, each witness's."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from comity_client.cli.known import Known
    from comity_client.state import Newest

_ACTS_MAX: Final = 20


def read_skews(known: "Known", newest: "Newest") -> dict[str, int]:
    """Give by how many seconds each clock was last proven to be ahead; 0 when nothing is proven.

    A clock that named a time inside the bracket of an act is taken to be right.

    Source: PROTOCOL [M-5].
    """
    from contextlib import suppress

    from comity_protocol.checkpoint import verify_quorum
    from comity_protocol.errors import VerificationError
    from comity_protocol.times import skews

    genesis = known.genesis
    if genesis is None:
        return {}
    machine, relay = _own(known)
    apart = {"this machine": machine, "relay": relay}
    # SPEC [M-5]: how far each witness is from the sealed time is shown.
    with suppress(VerificationError):
        apart |= skews(verify_quorum(newest.note, genesis.log, genesis.quorum))
    return apart


def _own(known: "Known") -> tuple[int, int]:
    """Compare what this machine and the relay said of the newest own acts with their brackets."""
    from comity_client.brackets import read_times
    from comity_protocol.identifiers import EnvelopeId
    from comity_protocol.receipts import Promise, Signed

    rows = known.state.connection.execute(
        "SELECT envelope, queued_at, promise FROM outbox WHERE promise IS NOT NULL"
        " AND envelope NOT IN (SELECT new FROM replaced)"
        " ORDER BY id DESC LIMIT ?",
        (_ACTS_MAX,),
    ).fetchall()
    times = read_times(known.state, known.genesis, {EnvelopeId(row[0]) for row in rows})
    for envelope, queued_at, signed in rows:
        time = times.get(envelope)
        if time is None or time.seen_at is None or time.sealed_at is None:
            continue
        promised_at = Promise.parse(Signed.parse(signed).payload).at
        low, high = time.seen_at, time.sealed_at
        return _outside(queued_at, low, high), _outside(promised_at, low, high)
    return 0, 0


def _outside(at: int, low: int, high: int) -> int:
    return at - high if at > high else min(0, at - low)
