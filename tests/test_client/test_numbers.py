"""Receipts and notices that a relay keeps back show at the next ones [B-20] [Q-4] [H-7]."""

from collections.abc import Callable, Sequence

import pytest

from comity_client.drafts import Draft
from comity_client.numbers import ANSWERED_SECONDS_MAX
from comity_client.relay_answers import NoticeItem, ReceiptItem
from comity_client.transport import OfflineError, RelayRefusedError
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.limits import PROMISE_WITHIN_SECONDS
from comity_protocol.notices import HoldBasis, Restored, parse_notice, sign_notice
from comity_protocol.receipts import Receipt, Signed
from support.desks import LEAD
from test_client.conftest import Pair, Side
from test_client.test_erasing import log_notices

LATER = PROMISE_WITHIN_SECONDS + 2


async def talk(pair: Pair, seconds: int = LATER) -> EnvelopeId:
    """Send a lead and its receipt, and let time go by."""
    pair.relay.clock.ahead += seconds
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.deliver()
    return envelope


def numbers_of(side: Side, kind: str) -> list[int]:
    """Give the numbers of what a device posted."""
    payloads = [Signed.parse(body).payload for what, body in side.relay.posted if what == kind]
    if kind == "receipt":
        return [Receipt.parse(payload).number for payload in payloads]
    notices = [parse_notice(payload) for payload in payloads]
    return [one.author.number for one in notices if not isinstance(one, Restored)]


def without_receipt(number: int) -> Callable[[list[ReceiptItem]], list[ReceiptItem]]:
    def drop(page: list[ReceiptItem]) -> list[ReceiptItem]:
        return [one for one in page if Receipt.parse(one.signed.payload).number != number]

    return drop


def without_notice(number: int) -> Callable[[list[NoticeItem]], list[NoticeItem]]:
    def is_it(item: NoticeItem) -> bool:
        notice = parse_notice(item.signed.payload)
        return not isinstance(notice, Restored) and notice.author.number == number

    return lambda page: [one for one in page if not is_it(one)]


def alarms_of(side: Side) -> Sequence[str]:
    return [alarm.kind for alarm in side.desk.alarms()]


async def test_receipts_to_the_same_readers_are_numbered_from_one(pair: Pair) -> None:
    #
    for _ in range(3):
        await talk(pair)

    assert numbers_of(pair.bob, "receipt") == [1, 2, 3]
    assert alarms_of(pair.alice) == []


@pytest.mark.parametrize("number", [1, 2])
async def test_a_receipt_that_is_kept_back_shows_at_the_next(pair: Pair, number: int) -> None:
    # [B-20]
    pair.alice.relay.on_receipts = without_receipt(number)
    for _ in range(5):
        await talk(pair)

    assert alarms_of(pair.alice) == ["withheld"]
    (alarm,) = pair.alice.desk.alarms()
    assert f"keeps back receipt {number} of device" in alarm.text


async def test_a_receipt_that_may_still_be_on_its_way_is_no_alarm(pair: Pair) -> None:
    # [B-20] The relay has its promise's seconds.
    pair.alice.relay.on_receipts = without_receipt(1)
    for _ in range(3):
        await talk(pair, seconds=0)

    assert alarms_of(pair.alice) == []


async def test_a_refused_receipt_leaves_no_number_out(pair: Pair) -> None:
    #
    answers = [RelayRefusedError("unknown", status=409, retry_after=None, trace_id="")]

    def refuse(_: Signed) -> Signed | None:
        if answers:
            raise answers.pop()
        return None

    pair.bob.relay.on_post_receipt = refuse
    for _ in range(4):
        await talk(pair)

    assert not answers
    assert numbers_of(pair.bob, "receipt") == [1, 2, 3]
    assert alarms_of(pair.alice) == []


async def test_a_notice_that_is_kept_back_shows_at_the_next(pair: Pair) -> None:
    # [B-20] [H-7]
    await talk(pair)
    exchange = pair.bob.desk.exchanges()[0].id
    pair.alice.relay.on_notices = without_notice(1)
    await pair.bob.desk.hold(exchange, HoldBasis.AUDIT)
    await talk(pair)
    assert alarms_of(pair.alice) == []
    await pair.bob.desk.hold(exchange, HoldBasis.COMPLAINT)
    for _ in range(2):
        await talk(pair)

    assert alarms_of(pair.alice) == ["withheld"]
    assert "keeps back notice 1 of device" in pair.alice.desk.alarms()[0].text
    # The device that gave it, and saw it, has nothing to complain of.
    assert alarms_of(pair.bob) == []


async def test_a_notice_whose_promise_was_lost_keeps_its_number(pair: Pair) -> None:
    # [H-7] Nobody knows whether the relay took it, so the same one is stated again.
    await talk(pair)
    exchange = pair.bob.desk.exchanges()[0].id

    def lose(_: Signed) -> Signed | None:
        raise OfflineError("the line went dead")

    pair.bob.relay.on_post_notice = lose
    with pytest.raises(OfflineError):
        await pair.bob.desk.hold(exchange, HoldBasis.AUDIT)
    pair.bob.relay.on_post_notice = lambda _: None
    await pair.bob.desk.hold(exchange, HoldBasis.COMPLAINT)
    for _ in range(2):
        await talk(pair)

    said = [kept.notice for kept in pair.alice.desk.notices()]
    assert [one.author.number for one in said if not isinstance(one, Restored)] == [1, 2]
    assert alarms_of(pair.alice) == []


async def test_a_notice_that_the_relay_refused_was_never_said(pair: Pair) -> None:
    # [H-7]
    await talk(pair)
    exchange = pair.bob.desk.exchanges()[0].id

    def refuse(_: Signed) -> Signed | None:
        raise RelayRefusedError("no", status=403, retry_after=None, trace_id="")

    pair.bob.relay.on_post_notice = refuse
    with pytest.raises(RelayRefusedError):
        await pair.bob.desk.hold(exchange, HoldBasis.AUDIT)
    pair.bob.relay.on_post_notice = lambda _: None
    await pair.bob.desk.hold(exchange, HoldBasis.COMPLAINT)
    await talk(pair)

    (kept,) = pair.alice.desk.notices()
    assert not isinstance(kept.notice, Restored)
    assert kept.notice.author.number == 1


async def test_a_device_that_lost_its_memory_is_told_from_a_relay_that_keeps_back(
    pair: Pair,
) -> None:
    # [B-20] It gives its receipts again from number 1.
    await talk(pair)
    again = await pair.join(pair.bob.member, "again")
    await again.desk.sync()
    await again.desk.fetch()
    await talk(pair)

    assert alarms_of(pair.alice) == ["clone"]
    assert "gave two receipts of number 1" in pair.alice.desk.alarms()[0].text


async def test_an_answer_without_a_receipt_is_an_alarm_after_a_day(pair: Pair) -> None:
    # [B-20] Whoever answered had it; no later receipt is needed to see that.
    pair.alice.relay.on_receipts = lambda _: []
    await talk(pair)
    pair.bob.desk.answer(pair.bob.desk.exchanges()[0].id, Draft(text="nothing is known"))
    await pair.deliver()
    await talk(pair, seconds=7_200)
    assert alarms_of(pair.alice) == []
    await talk(pair, seconds=ANSWERED_SECONDS_MAX)

    assert alarms_of(pair.alice) == ["withheld"]
    assert "no receipt for it" in pair.alice.desk.alarms()[0].text


async def test_what_a_restore_lost_is_not_said_to_be_kept_back(pair: Pair) -> None:
    # [B-20] The relay has said in the log that it lost something, which officers are shown.
    pair.alice.relay.on_receipts = without_receipt(1)
    await talk(pair)
    lost = Restored(
        deployment=pair.world.genesis.deployment,
        incarnation=bytes(16),
        had=0,
        size=pair.relay.context.log.size,
        lost=1,
        at=0,
    )
    signed = sign_notice(pair.world.relay_key, lost)
    await log_notices(pair, [signed], pair.alice)
    await pair.alice.desk.fetch()
    for _ in range(3):
        await talk(pair)

    assert "withheld" not in alarms_of(pair.alice)
