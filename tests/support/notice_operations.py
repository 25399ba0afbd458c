"""How the vectors of stamps, notices, times, evidence and statistics are tried.

Each takes the input of a vector, gives what it is to expect, or raises the error that it names.
"""

import base64
from collections.abc import Callable
from typing import Any, Final

from comity_protocol.audit import AuditRecord
from comity_protocol.core import Kind
from comity_protocol.counting import Clock, Delivery, Fault, Unaccounted, count, digest_of
from comity_protocol.evidence import verify_evidence
from comity_protocol.exchange import Step
from comity_protocol.genesis import Genesis, parse_genesis
from comity_protocol.identifiers import DeskId, EnvelopeId
from comity_protocol.notices import parse_notice
from comity_protocol.receipts import Signed
from comity_protocol.stamps import Stamp, open_stamp, stamped_at
from comity_protocol.statements import Authority
from comity_protocol.times import bracket_of, judge, outages

# JSON of many shapes, read by the operation that knows its own.
_Input = dict[str, Any]


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _genesis(given: _Input) -> Genesis:
    return parse_genesis(_bytes(given["genesis"]))


def _open(given: _Input, witness: str, signed: str) -> Stamp:
    genesis = _genesis(given)
    (key,) = [key for key in genesis.quorum.witnesses if key.name == witness]
    what = _bytes(given["what"])
    return open_stamp(Signed.parse(_bytes(signed)), genesis.deployment, what, key)


def _open_stamp(given: _Input) -> int:
    return _open(given, given["witness"], given["signed"]).at


def _date_core(given: _Input) -> int | None:
    genesis = _genesis(given)
    stamps = [_open(given, witness, signed) for witness, signed in given["stamps"]]
    return stamped_at(stamps, genesis.deployment, _bytes(given["what"]), genesis.quorum)


def _parse_notice(given: _Input) -> None:
    data = _bytes(given["bytes"])
    assert parse_notice(data).serialize() == data


def _judge(given: _Input) -> list[list[int | str]]:
    rows: list[list[int | str]] = []
    for *acts, limit in given["rows"]:
        opened, closed = (
            bracket_of(seen_at=seen, sealed_at=sealed, stamped_at=stamped)
            for seen, sealed, stamped in acts
        )
        rows.append([closed.not_before, closed.not_after, judge(opened, closed, limit).value])
    return rows


def _outages(given: _Input) -> list[list[int]]:
    return [[one.start, one.end] for one in outages(given["times"])]


def _verify_evidence(given: _Input) -> None:
    entries = [_bytes(entry) for entry in given["entries"]]
    verify_evidence(_bytes(given["evidence"]), _genesis(given), entries)


def _count(given: _Input) -> list[str]:
    steps = [
        Step(
            index,
            EnvelopeId(_bytes(envelope)),
            DeskId(_bytes(sender)),
            DeskId(_bytes(receiver)),
            Authority(authority),
            Kind.LEAD,
            AuditRecord.parse(_bytes(record)),
        )
        for index, envelope, sender, receiver, authority, record in given["steps"]
    ]
    counted = count(
        steps,
        clock=Clock(
            sealed=dict(given["sealed"]),
            seen=dict(given["seen"]),
            stamped=dict(given["stamped"]),
            published=tuple(given["published"]),
            size=given["size"],
            as_of=given["as_of"],
            witnesses=given["witnesses"],
            least=given["least"],
        ),
        party={DeskId(_bytes(desk)): code for desk, code in given["party"]},
        deliveries=[
            Delivery(index, EnvelopeId(_bytes(envelope)), DeskId(_bytes(desk)))
            for index, envelope, desk in given["deliveries"]
        ],
        unaccounted=[
            Unaccounted(index, EnvelopeId(_bytes(envelope)), DeskId(_bytes(desk)), Fault(fault))
            for index, envelope, desk, fault in given["unaccounted"]
        ],
        limits={(profile, urgency): seconds for profile, urgency, seconds in given["limits"]},
    )
    return [base64.b64encode(data).decode() for data in (digest_of(counted), counted.serialize())]


OPERATIONS: Final[dict[str, Callable[[_Input], object]]] = {
    "count": _count,
    "date core": _date_core,
    "judge": _judge,
    "open stamp": _open_stamp,
    "outages": _outages,
    "parse notice": _parse_notice,
    "verify evidence": _verify_evidence,
}
