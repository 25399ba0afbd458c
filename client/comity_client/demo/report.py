"""The demonstration's outcome, as one document for machines and as lines for people."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import msgspec

from comity_client.demo.learned import Learned
from comity_client.demo.play import Played
from comity_client.demo.tamper import Tampering
from comity_protocol.counting import Response
from comity_protocol.keys import fingerprint

VERSION = 1
"""Of the document; it grows when a field changes its meaning."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that the demonstration showed."""

    seconds: float
    played: tuple[Played, ...]
    learned: Learned
    tampering: Tampering
    responses: tuple[Response, ...]
    digest: bytes
    witnesses: int
    quorum: int
    log_size: int

    @property
    def is_good(self) -> bool:
        """Whether everything came out as promised."""
        return (
            not self.learned.found
            and bool(self.tampering.caught_by)
            and len(self.responses) == len(self.played)
            and all(row.state == "closed" for row in self.responses)
        )


def document(outcome: Outcome) -> bytes:
    """Give the outcome as one JSON document."""
    return msgspec.json.encode(
        {
            "version": VERSION,
            "ok": outcome.is_good,
            "seconds": round(outcome.seconds, 2),
            "exchanges": [
                {
                    "case": item.case,
                    "from": item.file.from_,
                    "to": item.file.to,
                    "procedure": item.file.procedure,
                    "exchange": item.exchange.hex(),
                    "ending": item.file.ending,
                    "stages": [{"stage": stage, "seconds": at} for stage, at in item.stages],
                }
                for item in outcome.played
            ],
            "relay_learned": asdict(outcome.learned),
            "tampering": asdict(outcome.tampering),
            "secretariat": {
                "digest": outcome.digest.hex(),
                "bodies_opened": 0,
                "responses": [
                    {
                        "exchange": row.exchange.hex(),
                        "profile": row.profile,
                        "initiator": row.initiator,
                        "responder": row.responder,
                        "urgency": row.urgency,
                        "state": row.state,
                        "response_seconds": row.response_seconds,
                    }
                    for row in outcome.responses
                ],
            },
            "log": {
                "size": outcome.log_size,
                "witnesses": outcome.witnesses,
                "quorum": outcome.quorum,
            },
        }
    )


def lines(outcome: Outcome) -> Iterable[str]:
    """Give the outcome as lines for people."""
    yield ""
    yield "Each opening act, as its sender saw it (seconds after it was written)"
    for item in outcome.played:
        stages = " > ".join(f"{stage} {at:.2f}" for stage, at in item.stages)
        yield f"  case {item.case}  {item.file.from_} to {item.file.to}  {stages}"
    learned = outcome.learned
    yield ""
    yield f"What the relay learned from {learned.envelopes} envelopes"
    yield "  who wrote to whom: " + ", ".join(
        f"{sender}-{receiver} {count}" for sender, receiver, count in learned.pairs
    )
    yield "  sizes in classes:  " + ", ".join(f"{size:,}" for size in learned.sizes) + " bytes"
    yield (
        f"  readable words:    {len(learned.found)} of {learned.phrases} phrases found"
        f" in {learned.bytes_searched:,} bytes of its files"
    )
    tampering = outcome.tampering
    yield ""
    yield f"One byte of log entry {tampering.leaf_index} was altered in the relay's database"
    caught = tampering.caught_by
    yield f"  caught by {caught}: {tampering.message}" if caught else "  NOBODY NOTICED"
    yield ""
    yield (
        "What the secretariat can say, from codes and witnessed times alone"
        " (no body opened, no name known)"
    )
    for row in outcome.responses:
        seconds = row.response_seconds
        answer = "open" if seconds is None else f"answered in {seconds} s"
        yield (
            f"  {row.initiator} to {row.responder}  {row.profile:<8} {row.urgency}"
            f"  {answer}, {row.state}"
        )
    yield f"  anyone with these records gets the same: {fingerprint(outcome.digest)}"
    yield ""
    yield (
        f"{outcome.log_size} log entries, {outcome.quorum} of {outcome.witnesses} witnesses,"
        f" {outcome.seconds:.1f} s. Nothing left this machine."
    )
