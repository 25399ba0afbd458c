"""A desk erases its own copies: here, at the relay, and nowhere else; a hold stops everybody."""

import pytest

from comity_client.drafts import Draft
from comity_client.erasing import ErasedError, HoldError, UnderWayError
from comity_client.noticed import read_erased
from comity_client.relay_answers import NoticeItem
from comity_client.transport import OfflineError, RelayRefusedError
from comity_protocol.envelope import Upload
from comity_protocol.identifiers import EnvelopeId, ExchangeId
from comity_protocol.leaves import notice_hash
from comity_protocol.notices import (
    Author,
    Erase,
    EraseBasis,
    Hold,
    HoldBasis,
    Restored,
    sign_notice,
)
from comity_protocol.receipts import Signed
from comity_server.store import NoticeRow
from support.desks import REQUEST
from test_client.conftest import Pair, Side

ANSWER = Draft(text="the flat was searched", outcomes=("DONE",))


async def talk(pair: Pair) -> tuple[ExchangeId, EnvelopeId, EnvelopeId]:
    """Let two desks exchange a request and an answer."""
    request = pair.alice.desk.request(pair.bob.id, REQUEST)
    await pair.deliver()
    exchange = pair.alice.desk.read(request).record.exchange
    answer = pair.bob.desk.answer(exchange, ANSWER)
    await pair.deliver(rounds=2)
    return exchange, request, answer


def sealed_parts(side: Side) -> list[bytes]:
    """Give every ciphertext and wrap that a desk keeps; the cores stay, they hold hashes alone."""
    connection = side.desk.state.connection
    rows = connection.execute("SELECT body, wrap, audit FROM inbox").fetchall()
    for (data,) in connection.execute("SELECT upload FROM outbox WHERE upload IS NOT NULL"):
        upload = Upload.parse(data)
        rows.append((upload.body, upload.audit, *upload.wraps))
    return [part for row in rows for part in row if part]


def on_disk(side: Side, parts: list[bytes]) -> list[bytes]:
    """Give the parts of which any 24 bytes in a row are in a file of the profile."""
    files = [path.read_bytes() for path in side.folder.rglob("*") if path.is_file()]
    return [
        part
        for part in parts
        if any(part[at : at + 24] in data for at in range(0, len(part) - 24, 24) for data in files)
    ]


async def test_an_erased_exchange_is_in_no_file_of_the_profile(pair: Pair) -> None:
    # [B-16] [H-3] Searched by what lay there before: bodies, audit parts, wraps, uploads.
    exchange, request, answer = await talk(pair)
    planted = sealed_parts(pair.alice)
    assert len(on_disk(pair.alice, planted)) == len(planted) > 4
    assert await pair.alice.desk.erase(exchange, EraseBasis.CASE_CLOSED) == 2

    assert on_disk(pair.alice, planted) == []
    with pytest.raises(ErasedError, match="CASE_CLOSED"):
        pair.alice.desk.read(request)
    # The exchange is still shown, and every proof holds; the other desk keeps its copy.
    assert len(pair.alice.desk.exchange(exchange).steps) == 2
    assert pair.bob.desk.read(answer).act is not None
    await pair.alice.desk.fetch()
    assert not pair.alice.desk.alarms()


async def test_the_other_desk_is_told_that_a_copy_is_gone(pair: Pair) -> None:
    # [B-18] [H-3]
    exchange, request, _ = await talk(pair)
    await pair.alice.desk.erase(exchange, EraseBasis.RETENTION)
    await pair.relay.seal()
    await pair.bob.desk.fetch()

    (kept,) = pair.bob.desk.notices()
    assert isinstance(kept.notice, Erase)
    assert request in kept.notice.envelopes
    assert pair.bob.desk.read(request).act is not None
    assert read_erased(pair.bob.desk.state) == {}


async def test_every_device_of_the_desk_erases(pair: Pair) -> None:
    # [B-16] [H-3]
    exchange, request, _ = await talk(pair)
    colleague = await pair.join(pair.world.active(pair.alice.id)[1], "colleague")
    await colleague.desk.fetch()
    planted = sealed_parts(colleague)
    await pair.alice.desk.erase(exchange, EraseBasis.MISTAKE)
    await pair.relay.seal()
    await colleague.desk.fetch()

    assert on_disk(colleague, planted) == []
    assert list(read_erased(colleague.desk.state)) == sorted(read_erased(colleague.desk.state))
    with pytest.raises(ErasedError, match="MISTAKE"):
        colleague.desk.read(request)


async def test_an_erasure_whose_promise_was_lost_is_carried_out_when_it_comes_back(
    pair: Pair,
) -> None:
    # [B-16]
    exchange, request, _ = await talk(pair)
    planted = sealed_parts(pair.alice)
    post = pair.alice.relay.post_notice

    async def lose(signed: Signed) -> Signed:
        await post(signed)
        raise OfflineError("line was cut")

    pair.alice.relay.post_notice = lose  # type: ignore[method-assign]  # the line of this test
    with pytest.raises(OfflineError):
        await pair.alice.desk.erase(exchange, EraseBasis.MISTAKE)
    assert pair.alice.desk.read(request).act is not None
    await pair.reopen(pair.alice)
    await pair.relay.seal()
    await pair.alice.desk.fetch()

    assert on_disk(pair.alice, planted) == []


async def test_nothing_is_deleted_when_the_relay_refuses(pair: Pair) -> None:
    # [B-16]
    exchange, request, _ = await talk(pair)

    def refuse(_: Signed) -> Signed:
        raise OfflineError("line was cut")

    pair.alice.relay.on_post_notice = refuse
    with pytest.raises(OfflineError):
        await pair.alice.desk.erase(exchange, EraseBasis.MISTAKE)

    assert pair.alice.desk.read(request).act is not None


async def test_what_is_on_its_way_is_not_erased(pair: Pair) -> None:
    exchange, _, _ = await talk(pair)
    pair.alice.desk.close(exchange, Draft())

    with pytest.raises(UnderWayError, match="1 of this exchange"):
        await pair.alice.desk.erase(exchange, EraseBasis.MISTAKE)


async def test_a_hold_of_either_desk_stops_an_erasure_until_it_is_released(pair: Pair) -> None:
    # [H-4]
    exchange, request, _ = await talk(pair)
    assert await pair.bob.desk.hold(exchange, HoldBasis.PROCEEDINGS) == 2
    await pair.relay.seal()
    # The relay stops whoever has not heard of it.
    with pytest.raises(RelayRefusedError) as caught:
        await pair.alice.desk.erase(exchange, EraseBasis.RETENTION)
    assert caught.value.code == "on-hold"
    await pair.alice.desk.fetch()
    with pytest.raises(HoldError, match="on hold by desk"):
        await pair.alice.desk.erase(exchange, EraseBasis.RETENTION)
    assert pair.alice.desk.read(request).act is not None
    await pair.bob.desk.fetch()
    assert await pair.bob.desk.release(exchange) == 2
    await pair.relay.seal()
    await pair.alice.desk.fetch()

    assert await pair.alice.desk.erase(exchange, EraseBasis.RETENTION) == 2


async def test_an_erasure_that_is_replayed_to_another_device_has_one_effect(pair: Pair) -> None:
    # [B-18] The relay gives the same notice again, at the same and at another place.
    exchange, request, _ = await talk(pair)
    await pair.alice.desk.erase(exchange, EraseBasis.RETENTION)
    await pair.relay.seal()
    again: list[NoticeItem] = []

    def replay(page: list[NoticeItem]) -> list[NoticeItem]:
        again.extend(page)
        moved = [NoticeItem(one.leaf_index + 1, one.signed) for one in again]
        return [*page, *moved]

    pair.bob.relay.on_notices = replay
    await pair.relay.send(pair.alice.member, pair.bob.id)
    await pair.relay.seal()
    await pair.bob.desk.fetch()

    assert len(again) == 1
    assert len(pair.bob.desk.notices()) == 1
    assert pair.bob.desk.read(request).act is not None
    # [L-2] At another place it is not in the log.
    assert [alarm.kind for alarm in pair.bob.desk.alarms()] == ["notice"]


async def test_a_notice_by_somebody_who_may_not_speak_has_no_effect(pair: Pair) -> None:
    # [H-1] [B-18] Forged by the relay, which can log what it likes.
    exchange, request, _ = await talk(pair)
    del exchange
    world, author = pair.world, author_of(pair, pair.bob)
    stranger = world.active(world.create_desk("XA"))[0]
    await pair.relay.publish()
    foreign = Author(author.deployment, stranger.desk, stranger.id, 3, author.seen)
    forged = [
        # Bob's officer who is no admin; a desk that is not addressed; alice's key under bob's name.
        sign_notice(world.active(pair.bob.id)[1].fast, erase_by(pair, 1, request)),
        sign_notice(stranger.fast, Erase(foreign, (request,), EraseBasis.MISTAKE)),
        sign_notice(pair.alice.member.fast, erase_by(pair, 0, request)),
        sign_notice(stranger.fast, Hold(foreign, (request,), HoldBasis.AUDIT)),
        sign_notice(pair.alice.member.fast, restored(pair, had=1, size=2)),
    ]
    await log_notices(pair, forged)
    await pair.bob.desk.fetch()

    assert pair.bob.desk.notices() == ()
    assert pair.bob.desk.read(request).act is not None
    assert [alarm.kind for alarm in pair.bob.desk.alarms()] == ["notice"] * len(forged)


async def test_a_restore_of_more_entries_than_there_are_is_a_lie(pair: Pair) -> None:
    # [H-1] [B-18]
    await talk(pair)
    forged = [sign_notice(pair.world.relay_key, restored(pair, had=1, size=1_000_000))]
    await log_notices(pair, forged)
    await pair.bob.desk.fetch()

    assert pair.bob.desk.notices() == ()
    assert [alarm.kind for alarm in pair.bob.desk.alarms()] == ["notice"]


def author_of(pair: Pair, side: Side, number: int = 0) -> Author:
    """Give the author that a device of a desk is."""
    member = pair.world.active(side.id)[number]
    seen = pair.relay.context.log.newest().note_hash
    deployment = pair.world.genesis.deployment
    return Author(deployment, side.id, member.id, pair.world.directory.desk(side.id).seq, seen)


def erase_by(pair: Pair, number: int, envelope: EnvelopeId) -> Erase:
    """Erase an envelope in the name of a device of bob's desk."""
    return Erase(author_of(pair, pair.bob, number), (envelope,), EraseBasis.MISTAKE)


def restored(pair: Pair, *, had: int, size: int) -> Restored:
    """Say that the relay was restored."""
    return Restored(
        deployment=pair.world.genesis.deployment,
        incarnation=bytes(16),
        had=had,
        size=size,
        lost=0,
        at=0,
    )


async def log_notices(pair: Pair, notices: list[Signed], side: Side | None = None) -> None:
    """Let the relay log notices for a desk, bob's unless given, that it may have had to refuse."""
    context = pair.relay.context
    for signed in notices:
        row = NoticeRow(
            hash=notice_hash(signed.payload),
            payload=signed.payload,
            signature=signed.signature,
            kind="stamped",
            desk=None,
            envelope_ids=(),
            readers=((side or pair.bob).id,),
            accepted_at=int(pair.relay.clock()),
            promise=b"none",
        )
        statements = (await context.store.head()).statements
        done = await context.store.accept_notice(row, statements=statements, bury=lambda _: None)
        context.relay.publish(done)
    await pair.relay.seal()
