"""P4, one story: a relay refuses one desk for a day, and the desk is not late.

    09:00:00  A desk asks another. The answer is owed within two hours.
    09:20:00  The other desk answers; the relay refuses it, and nobody else.
    09:30:01  Its client asks the witnesses for stamps on the hash of the sealed answer.
    09:30:01  next day: the relay takes the answer; the client states the stamps in the log.

Both desks and the secretariat count up to the stamps, and find it in time. The control is the same
day without stamps: a day more is counted, and nobody can say any longer that it was in time.

Found by: the desk itself at the first refusal. The relay can do nothing about it: the witnesses are
asked directly, and get a hash.
"""

from dataclasses import dataclass
from typing import Final

import pytest

from comity_client.drafts import Draft
from comity_client.secretariat import statistics
from comity_client.stamps import STAMP_AFTER_SECONDS
from comity_client.transport import RelayRefusedError
from comity_protocol.receipts import Signed
from comity_protocol.statements import Authority, Policy
from comity_protocol.times import Bracket, Verdict, judge
from support.desks import REQUEST
from support.workload import beat
from test_client.conftest import Pair

DAY: Final = 86_400
LIMIT_SECONDS: Final = 2 * 3_600
ANSWERED_AFTER: Final = 1_200
ANSWER: Final = Draft(text="the flat was searched", outcomes=("DONE",))
TOLERANCE: Final = 60
"""Seconds that a busy machine needs for what takes none in the story."""


def refuse(_: bytes) -> Signed | None:
    """Answer as a relay that is always busy."""
    busy = type("RelayRefusedError", (RelayRefusedError,), {"code": "quota"})
    raise busy("quota", status=429, retry_after=3_600.0, trace_id="")


@dataclass(frozen=True, slots=True)
class Told:
    """What one of three says of the answer.

    Attributes:
        seconds: From request to answer, as counted; None where nobody counts.
        stamped_seconds: By which stamps, and not checkpoints, date the answer.
    """

    opened: Bracket
    answered: Bracket
    verdict: Verdict
    seconds: int | None = None
    stamped_seconds: int | None = None


async def the_day(pair: Pair, *, has_witnesses: bool) -> list[Told]:
    """Live through it; gives what both desks and the secretariat say."""
    world, clock = pair.world, pair.relay.clock
    ngo = world.create_desk("XA", Authority.SECRETARIAT)
    for desk in (pair.alice.id, pair.bob.id):
        world.set_policy(desk, Policy(auditors_file=(ngo,), auditors_lead=(ngo,)))
    await pair.relay.publish()
    office = await pair.join(world.active(ngo)[0], "office")
    if has_witnesses:
        await pair.witnesses(pair.alice)
    for side in (pair.alice, pair.bob):
        await side.desk.sync()
    # 09:00:00
    request = pair.bob.desk.request(pair.alice.id, REQUEST)
    await pair.deliver()
    exchange = pair.bob.desk.read(request).record.exchange
    await pair.relay.seal()
    # 09:20:00
    clock.ahead += ANSWERED_AFTER
    await beat(pair.relay)
    await pair.alice.desk.sync()
    answer = pair.alice.desk.answer(exchange, ANSWER)
    pair.alice.relay.on_post = refuse
    with pytest.raises(RelayRefusedError):
        await pair.alice.desk.flush()
    # 09:30:01
    clock.ahead += STAMP_AFTER_SECONDS + 1
    with pytest.raises(RelayRefusedError):
        await pair.alice.desk.flush()
    # 09:30:01, the next day
    clock.ahead += DAY
    pair.alice.relay.on_post = lambda _: None
    await pair.deliver(rounds=2)
    told: list[Told] = []
    for side in (pair.alice, pair.bob):
        times = side.desk.times()
        opened, answered = times[request].bracket, times[answer].bracket
        assert opened is not None
        assert answered is not None
        told.append(Told(opened, answered, judge(opened, answered, LIMIT_SECONDS)))
    await office.desk.fetch()
    (row,) = (await statistics(office.desk)).rows
    assert row.final is not None
    verdict = judge(row.opened, row.final, LIMIT_SECONDS)
    return [*told, Told(row.opened, row.final, verdict, row.response_seconds, row.stamped_seconds)]


def started(told: Told) -> int:
    """Seconds from the request to the beginning of the answer's bracket."""
    return told.answered.not_before - told.opened.not_after


async def test_a_desk_that_is_refused_for_a_day_is_in_time(pair: Pair) -> None:
    """[B-15] [M-2] [M-3] [N-2]"""
    told = await the_day(pair, has_witnesses=True)

    assert [one.verdict for one in told] == [Verdict.IN_TIME] * 3
    assert len({one.answered for one in told}) == 1
    (_, _, office) = told
    assert office.seconds is not None
    assert 0 <= office.seconds - ANSWERED_AFTER - STAMP_AFTER_SECONDS < TOLERANCE
    assert office.stamped_seconds is not None
    assert 0 <= office.stamped_seconds - DAY < TOLERANCE
    assert all(0 <= started(one) - ANSWERED_AFTER < TOLERANCE for one in told)


async def test_without_stamps_the_same_day_would_count_against_it(pair: Pair) -> None:
    """[M-3] The control: not surely late, as it may have been written in time, and never in it."""
    told = await the_day(pair, has_witnesses=False)

    assert [one.verdict for one in told] == [Verdict.UNDETERMINED] * 3
    assert all(one.answered.not_after - one.opened.not_after > DAY for one in told)
    assert all(0 <= started(one) - ANSWERED_AFTER < TOLERANCE for one in told)
    assert told[-1].stamped_seconds == 0
    (_, _, office) = told
    assert office.seconds is not None
    assert 0 <= office.seconds - ANSWERED_AFTER - STAMP_AFTER_SECONDS - DAY < TOLERANCE
