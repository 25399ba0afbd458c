"""What two desks say to each other arrives, is proven, and is lost or doubled by nothing."""

import pytest

from comity_client.compose import StaleCheckpointError
from comity_client.drafts import Draft
from comity_client.envelopes import Stage, UnknownEnvelopeError
from comity_client.ledger import UnknownExchangeError
from comity_client.transport import OfflineError
from comity_protocol.acts import Event
from comity_protocol.errors import MalformedError
from comity_protocol.exchange import RefusedError, State
from comity_protocol.identifiers import DeskId, EnvelopeId, ExchangeId
from comity_protocol.limits import PROSE_BYTES_MAX
from comity_protocol.receipts import Signed
from comity_protocol.statements import Policy
from support.desks import LEAD, REQUEST
from test_client.conftest import Pair

MORE = Draft(text="more on this", language="en")


async def test_a_lead_is_shown_verified_and_its_stages_are_said_when_proven(pair: Pair) -> None:
    # [B-1] [B-5] [B-7]
    alice, bob = pair.alice.desk, pair.bob.desk
    envelope = alice.lead(pair.bob.id, LEAD)
    stages = [alice.status(envelope).stage]
    await alice.flush()
    stages.append(alice.status(envelope).stage)
    await alice.fetch()
    stages.append(alice.status(envelope).stage)
    new = await bob.fetch()
    await pair.relay.seal()
    await alice.fetch()
    stages.append(alice.status(envelope).stage)

    opened = bob.read(envelope)
    assert opened.act is not None
    assert opened.act.text == LEAD.text
    assert [line.envelope for line in new] == [envelope]
    assert stages == [Stage.QUEUED, Stage.ACCEPTED, Stage.SEALED, Stage.STORED]
    assert bob.exchanges() == alice.exchanges()
    assert (await bob.verify(envelope)).act == opened.act
    assert not alice.alarms()
    assert not bob.alarms()


async def test_a_formal_request_goes_from_request_to_closure(pair: Pair) -> None:
    # [B-1] [P-4] [B-12]
    alice, bob = pair.alice.desk, pair.bob.desk
    envelope = alice.request(pair.bob.id, REQUEST)
    await pair.deliver()
    (exchange,) = (found.id for found in bob.exchanges())
    bob.acknowledge(exchange, Draft(authority="Central Authority of XB"))
    bob.consult(exchange, Draft(topic="COST", text="who pays for the flight"))
    await pair.deliver()
    assert alice.status(envelope).stage is Stage.ACKNOWLEDGED
    answer = bob.answer(exchange, Draft(text="the flat was searched", outcomes=("DONE",)))
    await pair.deliver()
    alice.close(exchange, Draft())
    await pair.deliver()

    assert alice.exchange(exchange).state is State.CLOSED
    assert bob.exchange(exchange) == alice.exchange(exchange)
    assert alice.status(envelope).stage is Stage.ANSWERED
    assert [alice.read(one).is_signed for one in (envelope, answer)] == [True, True]
    assert not [line for line in (*alice.inbox(), *bob.inbox()) if line.refused]


async def test_later_acts_refer_to_the_first_wraps_and_replies_bring_their_own(pair: Pair) -> None:
    # [B-12]
    alice, bob = pair.alice.desk, pair.bob.desk
    first = alice.lead(pair.bob.id, LEAD)
    (exchange,) = (alice.read(first).record.exchange,)
    second = alice.add(exchange, MORE)
    await pair.deliver()
    reply = bob.add(exchange, MORE)
    another = bob.add(exchange, MORE)
    await pair.deliver()
    other = alice.lead(pair.bob.id, LEAD)

    refs = [alice.read(one).core.ref for one in (first, second, reply, another, other)]
    assert refs == [None, first, None, reply, None]
    assert len(bob.exchange(exchange).steps) == 4


async def test_what_was_verified_is_there_after_a_restart_without_the_relay(pair: Pair) -> None:
    # [B-1]
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.deliver()
    before = pair.bob.desk.inbox(), pair.bob.desk.exchanges(), pair.bob.desk.directory
    await pair.reopen(pair.bob)

    bob = pair.bob.desk
    assert (bob.inbox(), bob.exchanges(), bob.directory) == before
    assert bob.read(envelope).act is not None


async def test_no_plaintext_is_on_the_disk(pair: Pair) -> None:
    pair.alice.desk.request(pair.bob.id, REQUEST)
    await pair.deliver()

    for side in (pair.alice, pair.bob):
        files = [path.read_bytes() for path in side.folder.iterdir()]
        assert not [data for data in files if b"two women" in data or b"XA-2026-0001" in data]
        assert all(path.stat().st_mode & 0o077 == 0 for path in side.folder.glob("state.db"))


async def test_an_act_survives_a_crash_before_the_relay_had_it(pair: Pair) -> None:
    # [B-3]
    def cut(_: bytes) -> Signed | None:
        raise OfflineError("line was cut")

    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    pair.alice.relay.on_post = cut
    with pytest.raises(OfflineError):
        await pair.alice.desk.flush()
    await pair.reopen(pair.alice)
    assert pair.alice.desk.status(envelope).stage is Stage.QUEUED
    await pair.deliver()

    assert [line.envelope for line in pair.bob.desk.inbox()] == [envelope]


async def test_an_act_is_not_doubled_by_a_crash_after_the_relay_had_it(pair: Pair) -> None:
    # [B-3]
    def cut(_: Signed) -> Signed:
        raise OfflineError("line was cut")

    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    pair.alice.relay.after_post = cut
    with pytest.raises(OfflineError):
        await pair.alice.desk.flush()
    await pair.reopen(pair.alice)
    await pair.deliver()
    await pair.deliver()

    assert pair.alice.desk.status(envelope).stage is Stage.STORED
    assert [line.envelope for line in pair.bob.desk.inbox()] == [envelope]


async def test_queued_acts_are_sealed_again_when_an_epoch_has_turned(pair: Pair) -> None:
    # [B-3]
    alice, bob = pair.alice.desk, pair.bob.desk
    first = alice.lead(pair.bob.id, LEAD)
    exchange = alice.read(first).record.exchange
    second = alice.add(exchange, MORE)
    pair.world.turn(pair.bob.id)
    await pair.relay.publish()
    await pair.deliver()

    lines = bob.inbox()
    assert [line.event for line in lines] == [Event.LEAD, Event.LEAD]
    assert not [line for line in lines if line.refused]
    assert len(bob.exchange(exchange).steps) == 2
    assert first not in [line.envelope for line in lines]
    # The ids by which the acts were known lead to what they became.
    assert [alice.status(one).envelope for one in (first, second)] == [
        line.envelope for line in lines
    ]
    assert alice.read(first).act is not None


async def test_a_formal_act_sealed_again_is_signed_again_for_its_new_head(pair: Pair) -> None:
    # [B-3] [P-4]
    alice, bob = pair.alice.desk, pair.bob.desk
    request = alice.request(pair.bob.id, REQUEST)
    await pair.deliver()
    exchange = alice.read(request).record.exchange
    acknowledged = bob.acknowledge(exchange, Draft(authority="Central Authority of XB"))
    bob.answer(exchange, Draft(text="done"))
    pair.world.turn(pair.alice.id)
    await pair.relay.publish()
    await pair.deliver()

    assert alice.exchange(exchange).state is State.ANSWERED
    assert bob.status(acknowledged).envelope != acknowledged
    assert not [line for line in alice.inbox() if line.refused]


async def test_nothing_is_sealed_against_a_checkpoint_that_is_too_old(pair: Pair) -> None:
    # [B-4]
    pair.relay.clock.ahead += 73 * 3600

    with pytest.raises(StaleCheckpointError, match="73 hours old, at most 72") as caught:
        pair.alice.desk.lead(pair.bob.id, LEAD)
    assert "synchronise" in caught.value.remedy
    assert not pair.alice.desk.queued()


async def test_the_strictest_desk_addressed_decides_how_fresh(pair: Pair) -> None:
    # [B-4]
    pair.world.set_policy(pair.bob.id, Policy(fresh_hours=1))
    await pair.relay.publish()
    await pair.alice.desk.sync()
    pair.relay.clock.ahead += 2 * 3600

    with pytest.raises(StaleCheckpointError, match="2 hours old, at most 1"):
        pair.alice.desk.lead(pair.bob.id, LEAD)


async def test_what_is_not_possible_is_refused_before_it_is_sealed(pair: Pair) -> None:
    alice = pair.alice.desk
    first = alice.lead(pair.bob.id, LEAD)
    exchange = alice.read(first).record.exchange

    with pytest.raises(RefusedError, match="X-4"):
        alice.acknowledge(exchange, Draft(authority="nobody"))
    with pytest.raises(MalformedError, match="P-1"):
        alice.lead(pair.bob.id, Draft(language="en"))
    with pytest.raises(UnknownExchangeError):
        alice.add(ExchangeId(bytes(16)), MORE)
    with pytest.raises(UnknownEnvelopeError):
        alice.status(EnvelopeId(bytes(16)))
    assert [status.envelope for status in alice.queued()] == [first]


@pytest.mark.parametrize(
    "slip",
    [
        pytest.param(Draft(text="x", offences=("TRAFFICKING",)), id="no such offence"),
        pytest.param(Draft(text="x", urgency="U1", urgency_reason="SOON"), id="no such reason"),
        pytest.param(Draft(text="x", language="english"), id="no code of a language"),
        pytest.param(Draft(text="bell\a"), id="control character"),
        pytest.param(Draft(text="x" * (PROSE_BYTES_MAX + 1)), id="too long"),
    ],
)
async def test_what_the_reader_could_not_read_is_refused_before_it_is_queued(
    pair: Pair, slip: Draft
) -> None:
    # [A-3] [B-3]
    with pytest.raises(MalformedError, match="act, "):
        pair.alice.desk.lead(pair.bob.id, slip)
    assert await pair.alice.desk.flush() == ()


async def test_text_arrives_however_the_writers_system_writes_accents_and_lines(pair: Pair) -> None:
    #
    envelope = pair.alice.desk.lead(pair.bob.id, Draft(text="e\u0301te\u0301\r\nsuite"))
    await pair.deliver()

    act = pair.bob.desk.read(envelope).act
    assert act is not None
    assert act.text == "\u00e9t\u00e9\nsuite"


async def test_an_act_that_came_too_late_stays_visible_with_its_rule(pair: Pair) -> None:
    # Two officers answer at once; the lower leaf index counts.
    alice, bob = pair.alice.desk, pair.bob.desk
    request = alice.request(pair.bob.id, REQUEST)
    await pair.deliver()
    exchange = alice.read(request).record.exchange
    colleague = await pair.join(pair.world.active(pair.bob.id)[1], "colleague")
    await colleague.desk.fetch()
    bob.answer(exchange, Draft(text="yes"))
    late = colleague.desk.answer(exchange, Draft(text="no"))
    await bob.flush()
    await colleague.desk.flush()
    await alice.fetch()

    assert [line.refused for line in alice.inbox()] == [None, None, "X-4"]
    assert alice.exchange(exchange).steps[-1].envelope != late
    assert alice.read(late).act is not None


async def test_a_newcomer_reads_history_through_the_chain_of_seeds(pair: Pair) -> None:
    # [B-8]
    request = pair.alice.desk.request(pair.bob.id, REQUEST)
    await pair.deliver()
    pair.world.turn(pair.bob.id)
    pair.world.turn(pair.bob.id)
    newcomer = pair.world.admit(pair.bob.id)
    await pair.relay.publish()
    side = await pair.join(newcomer, "newcomer")
    await side.desk.fetch()

    opened = side.desk.read(request)
    assert opened.act is not None
    assert opened.act.facts == REQUEST.facts
    assert not side.desk.alarms()


async def test_a_desk_that_is_unknown_is_named_so(pair: Pair) -> None:
    with pytest.raises(Exception, match="not in the directory"):
        pair.alice.desk.lead(DeskId(bytes(16)), LEAD)
