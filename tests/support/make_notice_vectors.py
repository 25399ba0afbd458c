"""Writes the vectors of stamps, notices, times, evidence and statistics.

All their keys are from fixed seeds and all their signatures are Ed25519, so a second run writes the
same bytes.

    PYTHONPATH=tests python -m support.make_notice_vectors
"""

from dataclasses import replace
from typing import Final

from nacl.signing import SigningKey

from comity_protocol.acts import Event
from comity_protocol.audit import AuditRecord
from comity_protocol.checkpoint import add_signatures, cosign, sign_checkpoint
from comity_protocol.core import Kind
from comity_protocol.counting import Clock, Delivery, Fault, Unaccounted, count, digest_of
from comity_protocol.encoding import Value
from comity_protocol.evidence import BrokenPromise, Fork
from comity_protocol.exchange import Step
from comity_protocol.genesis import Genesis, Root
from comity_protocol.identifiers import DeviceId, EnvelopeId, ExchangeId
from comity_protocol.keys import key_id
from comity_protocol.leaves import envelope_leaf_of, receipt_leaf
from comity_protocol.merkle import Frontier, consistency_proof, leaf_hash
from comity_protocol.notices import (
    Author,
    Erase,
    EraseBasis,
    Hold,
    HoldBasis,
    Notice,
    Release,
    Restored,
    Stamped,
)
from comity_protocol.policy import Policy
from comity_protocol.quorum import Quorum
from comity_protocol.receipts import Promise, Signed, sign_promise
from comity_protocol.signed_note import KeyType, VerifierKey
from comity_protocol.stamps import open_stamp, sign_stamp
from comity_protocol.statements import Authority
from support.make_vectors import AWAY, FULL, HOME, RELAY, altered, b64, fixed, write

AT: Final = 1_800_000_000
ORIGIN: Final = "comity.example/vectors"
LOG_KEY: Final = SigningKey(fixed("log", 32))
NAMES: Final = ("one.example", "three.example", "two.example")
WITNESS_KEYS: Final = {name: SigningKey(fixed(name, 32)) for name in NAMES}
LOG: Final = VerifierKey(ORIGIN, KeyType.ED25519, bytes(LOG_KEY.verify_key))
WITNESSES: Final = tuple(
    VerifierKey(name, KeyType.COSIGNATURE_V1, bytes(key.verify_key))
    for name, key in WITNESS_KEYS.items()
)
GENESIS: Final = Genesis(
    Policy(LOG, Quorum(2, WITNESSES)), None, RELAY.public, (Root("XA", 1, (FULL.public,)),)
)
CORE: Final = fixed("core", 32)
ENVELOPE: Final = EnvelopeId(fixed("envelope", 16))
AUTHOR: Final = Author(
    GENESIS.deployment, HOME, DeviceId(key_id(FULL.public)), 4, fixed("seen", 32), 3
)


def stamp(number: int, at: int, what: bytes = CORE) -> Signed:
    """Give a witness's stamp."""
    return sign_stamp(WITNESS_KEYS[NAMES[number]], GENESIS.deployment, what, at)


def make_stamps() -> None:
    """Stamps, alone and as a quorum."""
    for name, outcome, signed, about in (
        ("stamp", "accepted", stamp(0, AT), "by the witness that was asked"),
        ("stamp-other-core", "verification-failed", stamp(0, AT, bytes(32)), "of another core"),
        ("stamp-other-witness", "verification-failed", stamp(1, AT), "by another witness"),
    ):
        write(
            name, "open stamp", "M-2", outcome, about, genesis=b64(GENESIS.serialize()),
            what=b64(CORE), witness=NAMES[0], signed=b64(signed.serialize()),
            expect=AT if outcome == "accepted" else None,
        )  # fmt: skip
    stamps = [stamp(0, AT + 40), stamp(1, AT), stamp(2, AT + 3), stamp(2, AT + 30)]
    by = [NAMES[0], NAMES[1], NAMES[2], NAMES[2]]
    write(
        "stamped-time", "date core", "M-2", "accepted",
        "two of three witnesses are needed and one stamped twice, so the second of three times",
        genesis=b64(GENESIS.serialize()), what=b64(CORE),
        stamps=[[name, b64(one.serialize())] for name, one in zip(by, stamps, strict=True)],
        expect=AT + 3,
    )  # fmt: skip


def make_notices() -> None:
    """Notices of each kind."""
    stamps = tuple(
        open_stamp(stamp(number, AT), GENESIS.deployment, CORE, WITNESSES[number])
        for number in (0, 1)
    )
    notices: tuple[Notice, ...] = (
        Stamped(AUTHOR, ENVELOPE, CORE, stamps),
        Erase(AUTHOR, (ENVELOPE,), EraseBasis.COURT_ORDER),
        Hold(AUTHOR, (ENVELOPE,), HoldBasis.PROCEEDINGS),
        Release(AUTHOR, (ENVELOPE,)),
        Restored(
            deployment=GENESIS.deployment, incarnation=fixed("incarnation", 16), had=900,
            size=1_000, lost=3, at=AT,
        ),
    )  # fmt: skip
    for notice in notices:
        write(
            f"notice-{notice.kind}", "parse notice", "H-1", "accepted", notice.kind,
            bytes=b64(notice.serialize()),
        )  # fmt: skip
    hold = notices[2].serialize()
    rows: list[Value] = [[one.witness, one.at, one.signature] for one in (stamps[0], stamps[0])]
    for name, about, data in (
        ("notice-order", "envelopes descending", altered(hold, envelopes=[ENVELOPE, bytes(16)])),
        ("notice-number-zero", "numbers begin at 1", altered(hold, n=0)),
        ("notice-basis", "a hold for a reason to erase", altered(hold, basis="MISTAKE")),
        (
            "notice-witness-twice",
            "stamps of one witness twice",
            altered(notices[0].serialize(), stamps=rows),
        ),
    ):
        write(name, "parse notice", "H-1", "malformed", about, bytes=b64(data))


def make_times() -> None:
    """Brackets, verdicts and outages."""
    write(
        "verdicts", "judge", "M-3", "accepted",
        "[[seen, sealed, stamped] of the opening act, the same of the answer, limit]; null is"
        " not known; the answer's bracket and the verdict",
        rows=[
            [[90, 100, None], [150, 200, None], 100],
            [[90, 100, None], [150, 201, None], 100],
            [[90, 100, None], [201, 201, None], 100],
            [[90, 100, None], [150, 9_000, 160], 100],
            [[None, 100, None], [None, 300, None], 100],
            [[104, 100, None], [203, 200, None], 100],
        ],
        expect=[
            [150, 200, "in-time"], [150, 201, "undetermined"], [201, 201, "late"],
            [150, 160, "in-time"], [0, 300, "undetermined"], [200, 200, "in-time"],
        ],
    )  # fmt: skip
    write(
        "outages", "outages", "M-4", "accepted", "sealed times in any order",
        times=[9_000, 0, 1_200, 2_401, 2_401, 8_999], expect=[[1_200, 2_401], [2_401, 8_999]],
    )  # fmt: skip


def head(entries: list[bytes], at: int | None = None) -> bytes:
    """Sign a head, and have two witnesses cosign it at a time."""
    root = Frontier().extend(map(leaf_hash, entries)).root
    note = sign_checkpoint(origin=ORIGIN, size=len(entries), root=root, key=LOG_KEY)
    if at is None:
        return note
    keys = list(WITNESS_KEYS.items())[:2]
    return add_signatures(note, [cosign(note, name, key, at) for name, key in keys])


def make_evidence() -> None:
    """Forks and broken promises, and what only looks like them."""
    entries = [receipt_leaf(b"receipt %d" % number) for number in range(7)]
    other = [*entries[:2], receipt_leaf(b"another"), *entries[3:]]
    level = [leaf_hash(one) for one in entries]
    path = consistency_proof(5, 7, lambda _, start, count: level[start : start + count])
    deployment = GENESIS.deployment
    root = Frontier().extend(level[:5]).root
    for name, outcome, about, fork in (
        (
            "evidence-fork",
            "accepted",
            "two heads of one size",
            Fork(deployment, head(entries), head(other)),
        ),
        (
            "evidence-fork-sizes",
            "accepted",
            "a head of 5 entries that are not those of the head of 7",
            Fork(deployment, head(other[:5]), head(entries), (root, *path)),
        ),
        (
            "evidence-fork-growth",
            "verification-failed",
            "a log that grew",
            Fork(deployment, head(entries[:5]), head(entries), (root, *path)),
        ),
        (
            "evidence-fork-bad-proof",
            "verification-failed",
            "a proof that does not hold, against a log that grew",
            Fork(deployment, head(entries[:5]), head(entries), (bytes(32), *path)),
        ),
    ):
        write(
            name, "verify evidence", "V-1", outcome, about, genesis=b64(GENESIS.serialize()),
            evidence=b64(fork.serialize()), entries=[],
        )  # fmt: skip
    promise = sign_promise(RELAY, Promise(CORE, AT))
    kept = [*entries, envelope_leaf_of(CORE, fixed("places", 32))]
    for name, outcome, about, logged, at, shown in (
        ("", "accepted", "61 s later and not there", entries, AT + 61, entries),
        ("-kept", "verification-failed", "it is there", kept, AT + 61, kept),
        ("-early", "verification-failed", "60 s later", entries, AT + 60, entries),
        ("-left-out", "verification-failed", "its entry is left out", kept, AT + 61, entries),
    ):
        file = BrokenPromise(deployment, promise, head(logged, at))
        write(
            f"evidence-promise{name}", "verify evidence", "V-2", outcome, about,
            genesis=b64(GENESIS.serialize()), evidence=b64(file.serialize()),
            entries=[b64(entry) for entry in shown],
        )  # fmt: skip


def make_statistics() -> None:
    """Everything that is counted once, in small."""
    opening = AuditRecord(
        event=Event.LEAD,
        exchange=ExchangeId(fixed("exchange", 16)),
        profile="lead",
        language="en",
        urgency="U0",
    )
    acknowledgement = AuditRecord(
        event=Event.ACKNOWLEDGE, exchange=opening.exchange, head=ENVELOPE, head_key=bytes(32)
    )
    answer = replace(acknowledgement, event=Event.ANSWER)
    second = replace(opening, exchange=ExchangeId(fixed("second", 16)))
    acts = (
        (10, HOME, AWAY, opening),
        (12, AWAY, HOME, acknowledgement),
        (13, HOME, AWAY, answer),
        (20, AWAY, HOME, answer),
        (21, HOME, AWAY, second),
    )
    steps = [
        Step(
            index,
            ENVELOPE if index == acts[0][0] else EnvelopeId(fixed(f"envelope {index}", 16)),
            sender,
            receiver,
            Authority.POLICE,
            Kind.LEAD,
            record,
        )
        for index, sender, receiver, record in acts
    ]
    clock = Clock(
        sealed={index: AT + 60 * index for index in (10, 11, 12, 13, 20, 21)},
        seen={20: AT + 900},
        stamped={20: AT + 1_000},
        published=(AT, AT + 600, AT + 3_000),
        size=23,
        as_of=AT + 3_000,
        witnesses=3,
        least=2,
    )
    noise = Unaccounted(22, EnvelopeId(fixed("envelope 22", 16)), AWAY, Fault.UNOPENED)
    counted = count(
        steps,
        clock=clock,
        party={HOME: "XA", AWAY: "XB"},
        deliveries=[Delivery(11, ENVELOPE, AWAY)],
        unaccounted=[noise],
        limits={("lead", "U0"): 390},
    )
    write(
        "statistics", "count", "N-2", "accepted",
        "[leaf index, envelope, sender, receiver, authority, record], all sealed to lead keys: an"
        " answered lead with a refused step, and an open one; a desk gave its auditor noise;"
        " digest and what it covers",
        steps=[
            [
                step.index, b64(step.envelope), b64(step.sender), b64(step.receiver),
                step.authority.value, b64(step.record.serialize()),
            ]
            for step in steps
        ],
        sealed=[list(pair) for pair in clock.sealed.items()],
        seen=[list(pair) for pair in clock.seen.items()],
        stamped=[list(pair) for pair in clock.stamped.items()],
        published=list(clock.published), size=clock.size, as_of=clock.as_of,
        witnesses=clock.witnesses, least=clock.least,
        party=[[b64(HOME), "XA"], [b64(AWAY), "XB"]],
        deliveries=[[11, b64(ENVELOPE), b64(AWAY)]],
        unaccounted=[[noise.index, b64(noise.envelope), b64(noise.sender), noise.fault.value]],
        limits=[["lead", "U0", 390]],
        expect=[b64(digest_of(counted)), b64(counted.serialize())],
    )  # fmt: skip


def main() -> None:
    """Write every vector."""
    make_stamps()
    make_notices()
    make_times()
    make_evidence()
    make_statistics()


if __name__ == "__main__":
    main()
