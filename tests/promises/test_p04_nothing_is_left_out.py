"""P4: what the relay accepted is in the log within a minute, or its author can prove the breach.

The relay promises everything, drops 1 in 20 and holds every third back for a day. Each author ends
with a proof of its act's place in the log, or with the relay's promise and the log without the act,
which convinces a stranger; in both cases with a quorum of stamps that dates the act.

Found by: the author's own client, at its first fetch after the promise ran out. What was held back
or dropped counts from its stamps once it is in the log, so no State is made late.
"""

from dataclasses import dataclass, field
from typing import Final

import pytest

from comity_client.drafts import Draft
from comity_client.envelopes import Stage
from comity_client.proofs import core_of, fetch_proof, verify_proof
from comity_client.secretariat import statistics
from comity_client.stamps import STAMP_AFTER_SECONDS
from comity_protocol.core import core_hash
from comity_protocol.counting import Statistics
from comity_protocol.envelope import Upload
from comity_protocol.evidence import (
    BrokenPromise,
    parse_evidence,
    verify_broken_promise,
    verify_evidence,
)
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.limits import PROMISE_WITHIN_SECONDS
from comity_protocol.receipts import Promise, Signed, sign_promise
from comity_protocol.statements import Authority, Policy
from comity_protocol.times import Verdict, judge
from support.desks import LEAD
from test_client.conftest import Pair, Side

ACTS: Final = 20
ACTS_LONG: Final = 200
DAY: Final = 86_400
LIMIT_SECONDS: Final = 2 * 3_600
ANSWER: Final = Draft(text="nothing is known here")


@dataclass(slots=True)
class Thief:
    """A relay that promises and does not keep its word.

    Attributes:
        dropped: Uploads that it drops: the first of each twenty.
        held: Uploads that it holds back: every third of the others.
    """

    pair: Pair
    dropped: list[bytes] = field(default_factory=list)
    held: list[bytes] = field(default_factory=list)
    count: int = 0

    def __call__(self, upload: bytes) -> Signed | None:
        """Promise, and log nothing; None to do what is right."""
        number, self.count = self.count, self.count + 1
        if number % 20 and number % 3:
            return None
        (self.held if number % 20 else self.dropped).append(upload)
        what = core_hash(Upload.parse(upload).core)
        promise = Promise(what, int(self.pair.relay.clock()))
        return sign_promise(self.pair.world.relay_key, promise)

    async def give(self, uploads: list[bytes], side: Side) -> None:
        """Log after all what it had not."""
        await self.pair.relay.ask("GET", "/v1/nonce")
        for upload in uploads:
            answer = await self.pair.relay.as_device(side.member, "POST", "/v1/envelopes", upload)
            assert answer.status == 200, answer.body


async def office_of(pair: Pair) -> Side:
    """Let both desks have a secretariat as auditor."""
    world = pair.world
    office = world.create_desk("XA", Authority.SECRETARIAT)
    for desk in (pair.alice.id, pair.bob.id):
        world.set_policy(desk, Policy(auditors_file=(office,), auditors_lead=(office,)))
    await pair.relay.publish()
    side = await pair.join(world.active(office)[0], "office")
    for one in (pair.alice, pair.bob):
        await one.desk.sync()
    return side


async def attack(pair: Pair, acts: int) -> dict[str, int]:
    """Let a thief stand between alice and so many answers; gives what came of it."""
    office = await office_of(pair)
    await pair.witnesses(pair.alice)
    for _ in range(acts):
        pair.bob.desk.lead(pair.alice.id, LEAD)
    await pair.deliver()
    thief = Thief(pair)
    pair.alice.relay.on_post = thief
    answers = [
        pair.alice.desk.answer(exchange.id, ANSWER) for exchange in pair.alice.desk.exchanges()
    ]
    answered_at = int(pair.relay.clock())
    await pair.alice.desk.flush()
    # The promise has run out; the desk looks, as it does every few minutes.
    pair.relay.clock.ahead += PROMISE_WITHIN_SECONDS + STAMP_AFTER_SECONDS + 1
    pair.bob.desk.lead(pair.alice.id, LEAD)
    await pair.bob.desk.flush()
    await pair.relay.seal()
    await pair.alice.desk.fetch()
    await pair.alice.desk.flush()
    convicted = _convicted(pair, await pair.relay.context.store.leaves(0, 65_536))
    missing = {core_hash(Upload.parse(one).core) for one in (*thief.dropped, *thief.held)}
    assert convicted == missing
    proven = [one for one in answers if pair.alice.desk.status(one).stage is not Stage.ACCEPTED]
    for one in proven[:: max(1, len(proven) // 10)]:
        proof = await fetch_proof(pair.alice.desk, one)
        verify_proof(proof, core_of(pair.alice.desk, one), pair.world.genesis)
    dates = _stamped(pair, [one for one in answers if one not in proven])
    assert all(0 <= at - answered_at < 900 for at in dates)

    # A day later it logs what it held back; what it dropped goes in by another hand.
    pair.relay.clock.ahead += DAY
    await thief.give(thief.held, pair.alice)
    await thief.give(thief.dropped, pair.alice)
    pair.alice.relay.on_post = lambda _: None
    await pair.deliver(rounds=2)
    await office.desk.fetch()
    counted = await statistics(office.desk)
    return {
        "acts": acts,
        "proven in the log": len(proven),
        "convicted": len(convicted),
        "stamped": len(dates),
        "late": _late(counted),
        "answered": counted.totals.answered,
    }


def _convicted(pair: Pair, entries: list[bytes]) -> set[bytes]:
    """Give the hashes of what alice can prove to a stranger that the relay left out."""
    genesis, found = pair.world.genesis, set[bytes]()
    for alarm in pair.alice.desk.alarms():
        if alarm.kind == "notice":
            # The relay refuses to log stamps of an act that it does not admit to have.
            continue
        assert alarm.kind == "broken-promise"
        assert "none of the" in verify_evidence(alarm.evidence, genesis, entries)
        evidence = parse_evidence(alarm.evidence)
        assert isinstance(evidence, BrokenPromise)
        verify_broken_promise(evidence.promise, evidence.note, genesis, entries)
        found.add(Promise.parse(evidence.promise.payload).what)
    return found


def _stamped(pair: Pair, acts: list[EnvelopeId]) -> list[int]:
    """Give the times that a quorum stamped; every act has one."""
    times = [pair.alice.desk.stamped(one)[0].at for one in acts]
    found = [at for at in times if at is not None]
    assert len(found) == len(acts)
    return found


def _late(counted: Statistics) -> int:
    return sum(
        judge(row.opened, row.final, LIMIT_SECONDS) is Verdict.LATE
        for row in counted.rows
        if row.final is not None
    )


async def test_a_relay_that_drops_and_delays_is_convicted_and_makes_nobody_late(
    pair: Pair,
) -> None:
    """[V-2] [B-5] [B-15] [M-2] [N-2]"""
    assert await attack(pair, ACTS) == {
        "acts": 20,
        "proven in the log": 13,
        "convicted": 7,
        "stamped": 7,
        "late": 0,
        "answered": 20,
    }


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_of_two_hundred_acts_none_is_lost_unproven_or_late(pair: Pair) -> None:
    """[V-2] [B-5] [B-15] [M-2] [N-2]"""
    found = await attack(pair, ACTS_LONG)

    assert found["proven in the log"] + found["convicted"] == ACTS_LONG
    assert found["convicted"] == found["stamped"]
    assert (found["late"], found["answered"]) == (0, ACTS_LONG)
