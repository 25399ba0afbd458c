"""When an act was done is what witnesses saw, and neither a relay nor a machine can move it."""

import pytest

from comity_client.brackets import READ_UNTIL, Calendar, read_calendar
from comity_client.cli.dates import long_words, short_words, times_document
from comity_client.sync import LogForkError
from comity_protocol.checkpoint import add_signatures, cosign, sign_checkpoint
from comity_protocol.keys import random_bytes
from comity_protocol.times import outages
from support.desks import LEAD
from test_client.conftest import Pair


def test_the_earliest_checkpoint_that_covers_a_leaf_dates_it() -> None:
    # [M-1] Witnesses' clocks differ, so a larger one may have been sealed a little earlier.
    calendar = Calendar([(b"a", 5, 100), (b"b", 9, 130), (b"c", 7, 131), (b"d", 12, 200)])

    assert [calendar.sealed(index) for index in (0, 4, 5, 7, 8, 11, 12)] == [
        100,
        100,
        130,
        130,
        130,
        200,
        None,
    ]
    assert calendar.seen(b"c") == 131
    assert calendar.seen(b"x") is None


async def test_both_desks_learn_the_same_bracket(pair: Pair) -> None:
    # [M-1] Not before what the author had seen, which the other desk asks the relay for.
    await pair.alice.desk.sync()
    seen = pair.alice.desk.newest
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    pair.relay.clock.ahead += 500
    await pair.deliver(rounds=2)

    own, other = (side.desk.times()[envelope] for side in (pair.alice, pair.bob))
    assert own == other
    assert own.seen_at == seen.sealed_at
    assert own.bracket is not None
    assert 490 < own.bracket.width < 600
    assert short_words(own) == "within 8 minutes"
    assert long_words(own).startswith("written after ")
    assert times_document(own)["not_before"] == own.seen_at


async def test_what_an_author_had_seen_may_stay_unknown(pair: Pair) -> None:
    # [M-1] A relay that shows no published checkpoint leaves the beginning open, not the end.
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.relay.seal()

    async def nothing(after: int, skip: int = 0) -> tuple[bytes, ...]:
        del after, skip
        return ()

    pair.bob.relay.checkpoints = nothing  # type: ignore[method-assign]  # what this relay shows
    pair.bob.desk.state.connection.execute("DELETE FROM checkpoints")
    await pair.bob.desk.fetch()

    times = pair.bob.desk.times()[envelope]
    assert times.seen_at is None
    assert times.bracket is not None
    assert short_words(times) == "beginning unknown"
    assert "not known here" in long_words(times)
    assert times_document(times)["not_before"] is None


async def test_many_acts_under_one_checkpoint_cost_one_question(pair: Pair) -> None:
    for _ in range(5):
        pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.relay.seal()
    asked: list[int] = []
    covering = pair.bob.relay.covering

    async def counted(index: int) -> bytes:
        asked.append(index)
        return await covering(index)

    pair.bob.relay.covering = counted  # type: ignore[method-assign]  # counts
    await pair.bob.desk.fetch()
    first = len(asked)
    await pair.bob.desk.fetch()

    assert first <= 5
    assert len(asked) == first
    assert (
        len(
            {
                pair.bob.desk.times()[line.envelope]
                for line in pair.bob.desk.inbox()
                if line.envelope
            }
        )
        <= first
    )


async def test_a_checkpoint_of_another_past_dates_nothing_and_convicts(pair: Pair) -> None:
    # [M-1] [B-6] [V-1] Log and witnesses lie together about the past.
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.relay.seal()
    size = pair.relay.context.log.size
    note = sign_checkpoint(
        origin=pair.world.genesis.origin, size=size, root=random_bytes(32), key=pair.world.log_key
    )
    lines = [cosign(note, name, key, 1) for name, key in pair.world.witness_keys.items()]

    async def forged(index: int) -> bytes:
        del index
        return add_signatures(note, lines)

    pair.bob.relay.covering = forged  # type: ignore[method-assign]  # lies
    with pytest.raises(LogForkError):
        await pair.bob.desk.fetch()

    assert [alarm.kind for alarm in pair.bob.desk.alarms()] == ["fork"]
    (line,) = pair.bob.desk.inbox()
    assert line.envelope is not None
    times = pair.bob.desk.times()[line.envelope]
    assert times.sealed_at is not None
    assert times.sealed_at > 1


async def test_outages_are_told_from_all_published_checkpoints(pair: Pair) -> None:
    # [M-4] A desk that was away itself for a day has seen no outage.
    desk = pair.bob.desk
    for _ in range(2):
        pair.relay.clock.ahead += 1_000
        pair.alice.desk.lead(pair.bob.id, LEAD)
        await pair.alice.desk.flush()
        await pair.relay.seal()
    await desk.sync()
    assert await desk.dating.read_published()
    until = desk.state.mark(READ_UNTIL)
    assert until is not None
    assert outages(read_calendar(desk.state, until).all) == ()
    pair.relay.clock.ahead += 5_000
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.relay.seal()
    await desk.sync()
    before = desk.state.connection.execute("SELECT count(*) FROM checkpoints").fetchone()
    assert await desk.dating.read_published()
    again = desk.state.connection.execute("SELECT count(*) FROM checkpoints").fetchone()

    assert again >= before
    (outage,) = outages(read_calendar(desk.state).all)
    assert 4_900 < outage.seconds < 5_200
