"""A relay that works together with a member, or at the wrong moment, gains nothing that lasts."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from comity_client.compose import StaleCheckpointError
from comity_client.envelopes import Stage
from comity_client.relay_answers import Arrived, Boxes, StatementPage
from comity_client.state import ALARMS_MAX
from comity_client.transport import RelayRefusedError
from comity_protocol.acts import Body, Gossip
from comity_protocol.audit import project
from comity_protocol.checkpoint import (
    add_signatures,
    cosign,
    sign_checkpoint,
    verify_quorum,
)
from comity_protocol.core import Kind, core_hash
from comity_protocol.envelope import Sealed, Upload, seal
from comity_protocol.errors import ComityError, MalformedError, VerificationError
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.receipts import Promise, Signed, sign_promise
from support.desks import LEAD, open_desk
from support.world import lead
from test_client.conftest import Pair, Side
from test_client.test_lies import forked, send

YEAR = 365 * 24 * 3600


def seal_under(pair: Pair, sender: Side, to: Side, envelope: EnvelopeId) -> Sealed:
    """Seal a lead under an id that somebody else drew."""
    act = lead()
    return seal(
        body=Body(act.serialize(), None, None).serialize(),
        audit=project(act, None).serialize(),
        to=pair.world.addresses(sender.member, to.id, Kind.LEAD),
        sender=pair.world.sender(sender.member),
        seen=pair.relay.context.log.newest().note_hash,
        envelope_id=envelope,
    )


def swallow(pair: Pair) -> Callable[[bytes], Signed]:
    """Give a relay's answer that promises and drops."""

    def answer(upload: bytes) -> Signed:
        at = int(pair.relay.clock()) - 3600
        return sign_promise(pair.world.relay_key, Promise(core_hash(Upload.parse(upload).core), at))

    return answer


async def test_one_witness_with_a_wrong_clock_lets_no_desk_accuse_the_relay(pair: Pair) -> None:
    """[V-2] [B-5] Its time is the sealed one in a quorum of two, and strangers count the earlier.

    An alarm comes with evidence that everybody accepts, so it waits until both are past the time.
    """
    desk, world = pair.alice.desk, pair.world

    def promise_and_drop(upload: bytes) -> Signed:
        what = core_hash(Upload.parse(upload).core)
        return sign_promise(world.relay_key, Promise(what, int(pair.relay.clock())))

    pair.alice.relay.on_post = promise_and_drop
    envelope = desk.lead(pair.bob.id, LEAD)
    await desk.flush()
    await desk.fetch()
    head, now = desk.newest, int(pair.relay.clock())
    bare = sign_checkpoint(
        origin=world.genesis.origin, size=head.size, root=head.root, key=world.log_key
    )
    said = []
    for times in ((now, now + YEAR), (now + YEAR, now + YEAR)):
        keys = zip(sorted(world.witness_keys.items()), times, strict=False)
        note = add_signatures(bare, [cosign(bare, name, key, at) for (name, key), at in keys])
        at = verify_quorum(note, world.genesis.log, world.genesis.quorum).sealed_time
        await desk._promises.look(replace(head, note=note, sealed_at=at))
        said.append((at, desk.status(envelope).is_broken, [one.kind for one in desk.alarms()]))

    assert said == [(now + YEAR, False, []), (now + YEAR, True, ["broken-promise"])]


async def test_another_desks_envelope_of_the_same_id_does_not_make_a_dropped_one_sealed(
    pair: Pair,
) -> None:
    # [B-5] A relay drops an act and has a member send one of the same id to its author.
    pair.alice.relay.on_post = swallow(pair)
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.relay.post(pair.bob.member, seal_under(pair, pair.bob, pair.alice, envelope))
    await pair.alice.desk.fetch()

    status = pair.alice.desk.status(envelope)
    assert (status.stage, status.is_broken) == (Stage.ACCEPTED, True)
    kinds = {alarm.kind for alarm in pair.alice.desk.alarms()}
    assert kinds == {"repeat", "broken-promise"}
    opened = pair.alice.desk.read(envelope).act
    assert opened is not None
    assert opened.text == LEAD.text


@pytest.mark.parametrize("failure", ["busy", "malformed"])
async def test_tiles_that_fail_for_a_moment_cost_no_envelope(pair: Pair, failure: str) -> None:
    # [B-1] What could not be checked is not refused: it is checked again.
    errors: dict[str, ComityError] = {
        "busy": RelayRefusedError("x", status=503, retry_after=1.0, trace_id=""),
        "malformed": MalformedError("tile is 3 bytes, expected 32"),
    }

    def fail(_: int) -> tuple[bytes, ...]:
        raise errors[failure]

    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.relay.seal()
    await pair.bob.desk.sync()
    await pair.reopen(pair.bob)
    pair.bob.relay.instead_of_tile = fail
    with pytest.raises(type(errors[failure])):
        await pair.bob.desk.fetch()
    pair.bob.relay.instead_of_tile = None
    await pair.bob.desk.fetch()

    assert [line.refused for line in pair.bob.desk.inbox()] == [None]


async def test_an_invented_epoch_among_the_boxes_does_not_lock_the_leads(pair: Pair) -> None:
    # [B-8] What a relay invents once must not stand in the way for ever.
    pair.world.turn(pair.bob.id)
    await pair.relay.publish()
    pair.bob.relay.on_boxes = lambda boxes: Boxes({**boxes.own, 77: bytes(1200)}, boxes.previous)
    await pair.bob.desk.sync()
    await pair.alice.desk.sync()
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.bob.desk.fetch()

    assert [line.refused for line in pair.bob.desk.inbox()] == [None]


async def test_a_good_box_is_not_replaced_by_a_bad_one(pair: Pair) -> None:
    # [B-8] With the next epoch a relay gives rubbish for an older one, whose mail is unread.
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    pair.world.turn(pair.bob.id)
    await pair.relay.publish()
    pair.bob.relay.on_boxes = lambda boxes: Boxes(
        {**boxes.own, 1: bytes(1200)}, {epoch: bytes(72) for epoch in boxes.previous}
    )
    await pair.bob.desk.sync()
    own, _ = pair.bob.desk.state.boxes()

    assert own[1] != bytes(1200)


async def test_a_box_that_comes_late_opens_what_came_before_it(pair: Pair) -> None:
    # [B-1] [B-8] A relay keeps a box back for a while, then the mail is readable all the same.
    pair.world.turn(pair.bob.id)
    await pair.relay.publish()
    pair.bob.relay.on_boxes = lambda boxes: Boxes({1: boxes.own[1]}, {})
    await pair.alice.desk.sync()
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.bob.desk.fetch()
    assert [line.refused for line in pair.bob.desk.inbox()] == ["no-key"]
    pair.bob.relay.on_boxes = lambda boxes: boxes
    await pair.bob.desk.fetch()

    assert [line.refused for line in pair.bob.desk.inbox()] == [None]
    assert len(pair.bob.desk.exchanges()) == 1


async def test_an_invented_counter_does_not_close_the_mailbox(pair: Pair) -> None:
    # [B-2] One item with a counter beyond all others must not hide what comes after.
    def inflate(page: list[Arrived]) -> list[Arrived]:
        return [replace(item, counter=1 << 50, core=bytes(9)) for item in page]

    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    pair.bob.relay.on_mailbox = inflate
    await pair.bob.desk.fetch()
    pair.bob.relay.on_mailbox = lambda page: page
    await pair.bob.desk.fetch()

    assert 1 in [line.counter for line in pair.bob.desk.inbox() if line.refused is None]


async def test_alarms_of_one_kind_leave_room_for_the_others(pair: Pair) -> None:
    # [B-6] A relay that makes noise first must not stay without evidence of a fork.
    state = pair.bob.desk.state
    for number in range(ALARMS_MAX + 5):
        state.alarm("repeat", "noise", [number], 0)
    old = await pair.bob.relay.statements(0)
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.relay.seal()
    await pair.bob.desk.sync()
    pair.bob.relay.on_statements = lambda page: StatementPage(old.note, page.items)
    with pytest.raises(VerificationError):
        await pair.bob.desk.sync()

    kinds = [alarm.kind for alarm in state.alarms()]
    assert kinds.count("repeat") == ALARMS_MAX
    assert kinds.count("rollback") == 1


async def test_a_false_accusation_does_not_hide_a_true_one(pair: Pair) -> None:
    # [B-1] [B-6] The same head with a wrong signature first, with the log's own after it.
    true = forked(pair, pair.world.log_key)
    await send(pair, lead(), gossip=Gossip(true.size, true.root, bytes(64)))
    await pair.bob.desk.fetch()
    await send(pair, lead(), gossip=true)
    await pair.bob.desk.fetch()

    assert [alarm.kind for alarm in pair.bob.desk.alarms()] == ["gossip", "fork"]


async def test_a_clock_that_is_behind_does_not_make_a_checkpoint_fresh(pair: Pair) -> None:
    # [B-4] With a clock ten years behind every checkpoint would be fresh for ten years.
    pair.alice.desk._composer._now = lambda: int(pair.relay.clock()) - 10 * YEAR  # type: ignore[misc]  # the computer's clock

    with pytest.raises(StaleCheckpointError, match="clock"):
        pair.alice.desk.lead(pair.bob.id, LEAD)


async def test_two_synchronisations_of_one_profile_accuse_nobody(pair: Pair) -> None:
    # [B-2] [B-6] An officer and a timer synchronise at the same time.
    pair.world.turn(pair.alice.id)
    pair.world.turn(pair.bob.id)
    await pair.relay.publish()
    desk, _ = open_desk(pair.bob.folder, pair.bob.member, pair.relay.clock)
    await pair.stack.enter_async_context(desk)
    for _ in range(3):
        pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await asyncio.gather(pair.bob.desk.fetch(), desk.fetch())

    assert not pair.bob.desk.alarms()
    assert [line.refused for line in pair.bob.desk.inbox()] == [None] * 3


async def test_a_program_that_runs_on_sees_what_another_synchronised(pair: Pair) -> None:
    # [E-1] Checkpoint and directory are of one moment, or mail of a newcomer would be refused.
    desk, _ = open_desk(pair.bob.folder, pair.bob.member, pair.relay.clock)
    await pair.stack.enter_async_context(desk)
    pair.world.turn(pair.alice.id)
    await pair.relay.publish()
    await desk.sync()

    assert pair.bob.desk.directory.index == desk.directory.index


async def test_an_envelope_by_this_devices_keys_that_it_did_not_send_is_an_alarm(
    pair: Pair,
) -> None:
    # A copied profile, or a thief with the open keys, is noticed by the device itself.
    sent = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.deliver()
    assert not pair.alice.desk.alarms()
    await pair.relay.send(pair.alice.member, pair.bob.id)
    await pair.alice.desk.fetch()

    assert [alarm.kind for alarm in pair.alice.desk.alarms()] == ["clone"]
    assert pair.alice.desk.status(sent).stage is not Stage.QUEUED


async def test_the_genesis_twice_is_refused_in_words(pair: Pair) -> None:
    # [D-2] A leaf that is named twice is a lie of the relay, not a fault of the state file.
    pair.world.turn(pair.bob.id)
    await pair.relay.publish()
    whole = await pair.bob.relay.statements(0)
    known = pair.bob.desk.state.last_statement()[0]
    again = replace(whole.items[0], ordinal=known + 1)
    pair.bob.relay.on_statements = lambda page: StatementPage(page.note, (again,))
    with pytest.raises(VerificationError, match="leaf"):
        await pair.bob.desk.sync()
