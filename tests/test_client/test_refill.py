"""A relay that was restored is filled again by its senders, and can make them do nothing else."""

from collections.abc import Callable

import pytest

from comity_client.cli.said import restored_lines
from comity_client.envelopes import Stage
from comity_client.refill import REPAIR_SECONDS_MAX, Refill, is_overdue
from comity_client.relay_answers import StatementPage, Vacancies, parse_vacancies
from comity_client.transport import OfflineError, RelayRefusedError
from comity_protocol.encoding import serialize
from comity_protocol.errors import MalformedError
from comity_protocol.leaves import tags_of_promise
from comity_protocol.notices import Restored, sign_notice
from comity_protocol.receipts import Signed
from support.desks import LEAD
from test_client.conftest import Pair, Side
from test_client.test_erasing import log_notices


def repairing() -> RelayRefusedError:
    """Give the answer of a relay that is being repaired."""
    kind: type[RelayRefusedError] = type(
        "RelayRefusedError", (RelayRefusedError,), {"code": "repairing"}
    )
    return kind("the relay was restored", status=503, retry_after=5.0, trace_id="")


def until_filled(side: Side, wanted: bytes) -> Callable[[bytes], Signed | None]:
    """Refuse everything until an upload came again."""

    def answer(upload: bytes) -> Signed | None:
        if upload == wanted:
            side.relay.on_post = lambda _: None
        else:
            raise repairing()
        return None

    return answer


async def sent(pair: Pair) -> tuple[bytes, bytes]:
    """Let alice send a lead that is sealed; gives its upload and its tag."""
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.deliver()
    row = pair.alice.desk.state.connection.execute("SELECT upload, core_hash FROM outbox")
    upload, what = row.fetchone()
    return upload, tags_of_promise(what)[1]


def lost(*tags: bytes) -> Callable[[int], Vacancies]:
    """Say that these are missing."""
    return lambda _: Vacancies(1, 100, frozenset(tags))


async def test_what_the_relay_lost_goes_out_again_before_anything_new(pair: Pair) -> None:
    # [B-14] [B-19]
    upload, tag = await sent(pair)
    new = pair.alice.desk.lead(pair.bob.id, LEAD)
    pair.alice.relay.posted.clear()
    pair.alice.relay.instead_of_vacancies = lost(tag, bytes(32))
    pair.alice.relay.on_post = until_filled(pair.alice, upload)
    await pair.alice.desk.flush()

    tried = [data for kind, data in pair.alice.relay.posted if kind == "envelope"]
    # The new one told that the relay is repairing; then the old one, the same bytes, then the new.
    assert len(tried) == 3
    assert tried[1] == upload
    assert tried[0] == tried[2] != upload
    assert pair.alice.desk.status(new).stage is Stage.ACCEPTED


async def test_a_synchronisation_fills_a_relay_that_refuses_even_statements(pair: Pair) -> None:
    # [B-19] Every command synchronises first, and a restored relay serves no statements.
    upload, tag = await sent(pair)
    pair.alice.relay.posted.clear()
    pair.alice.relay.instead_of_vacancies = lost(tag)
    asked = []

    def answer(page: StatementPage) -> StatementPage:
        asked.append(page)
        if ("envelope", upload) not in pair.alice.relay.posted:
            raise repairing()
        return page

    pair.alice.relay.on_statements = answer
    await pair.alice.desk.sync()
    assert pair.alice.relay.posted == [("envelope", upload)]
    assert len(asked) == 2


async def test_a_relay_that_repairs_for_ever_is_asked_once_each_time(pair: Pair) -> None:
    # [B-19] [B-11]
    upload, tag = await sent(pair)
    new = pair.alice.desk.lead(pair.bob.id, LEAD)
    pair.alice.relay.posted.clear()
    pair.alice.relay.instead_of_vacancies = lost(tag)

    def never(_: bytes) -> Signed | None:
        raise repairing()

    pair.alice.relay.on_post = never
    for _ in range(2):
        with pytest.raises(RelayRefusedError):
            await pair.alice.desk.flush()
    desk = pair.alice.desk
    refill = Refill(desk.state, desk.relay, desk._keeping, lambda: int(pair.relay.clock()))

    assert [data == upload for _, data in pair.alice.relay.posted] == [False, True, False] * 2
    assert desk.status(new).stage is Stage.QUEUED
    # The officer is told when it takes longer than it may.
    assert refill.since is not None
    assert not is_overdue(refill.since, refill.since + REPAIR_SECONDS_MAX)
    assert is_overdue(refill.since, refill.since + REPAIR_SECONDS_MAX + 1)


async def test_a_relay_that_is_killed_while_it_is_filled_loses_nothing(pair: Pair) -> None:
    # [B-14] [B-19]
    upload, tag = await sent(pair)
    pair.alice.desk.lead(pair.bob.id, LEAD)
    pair.alice.relay.instead_of_vacancies = lost(tag)
    calls: list[bytes] = []

    def die(data: bytes) -> Signed | None:
        calls.append(data)
        raise OfflineError("connection lost") if data == upload else repairing()

    pair.alice.relay.on_post = die
    with pytest.raises(OfflineError):
        await pair.alice.desk.flush()
    pair.alice.relay.on_post = until_filled(pair.alice, upload)
    await pair.alice.desk.flush()

    assert calls.count(upload) == 1
    assert [data for kind, data in pair.alice.relay.posted if kind == "envelope"].count(upload) == 3


async def test_a_restore_that_the_relay_states_is_answered_once(pair: Pair) -> None:
    # [B-19] [H-1]
    upload, tag = await sent(pair)
    genesis, size = pair.world.genesis, pair.relay.context.log.size
    notice = Restored(
        deployment=genesis.deployment, incarnation=bytes(16), had=5, size=size, lost=1, at=0
    )
    await log_notices(pair, [sign_notice(pair.world.relay_key, notice)], pair.alice)
    pair.alice.relay.posted.clear()
    pair.alice.relay.instead_of_vacancies = lost(tag)
    await pair.alice.desk.fetch()
    await pair.alice.desk.fetch()

    assert [data for kind, data in pair.alice.relay.posted if kind == "envelope"] == [upload]
    lines = restored_lines(pair.alice.desk.state)
    assert f"lost {size - 5} entries, and 1 were not brought back" in lines[0]
    assert "every device" in lines[1]
    assert "offline during the repair" in lines[2]


async def test_a_relay_that_asks_for_what_was_never_sent_gets_nothing(pair: Pair) -> None:
    # [B-19]
    await sent(pair)
    pair.alice.relay.posted.clear()
    desk = pair.alice.desk
    pair.alice.relay.instead_of_vacancies = lost(bytes(32), b"x" * 32)
    refill = Refill(desk.state, desk.relay, desk._keeping, lambda: 0)

    assert await refill.run(pair.world.relay_key.public) == 0
    assert pair.alice.relay.posted == []


async def test_every_page_of_what_is_missing_is_read_and_no_more(pair: Pair) -> None:
    # [B-19] What this device sent may be the last of all that is missing.
    _, tag = await sent(pair)
    desk = pair.alice.desk
    asked: list[int] = []

    def page(after: int) -> Vacancies:
        asked.append(after)
        return Vacancies(
            1, 100, frozenset([tag] if after == 60 else []), {-1: 30, 30: 60}.get(after)
        )

    pair.alice.relay.instead_of_vacancies = page
    refill = Refill(desk.state, desk.relay, desk._keeping, lambda: 0)
    taken = await refill.run(pair.world.relay_key.public)
    pair.alice.relay.instead_of_vacancies = lambda after: Vacancies(
        1, 9_999, frozenset(), after + 1
    )
    await refill.run(pair.world.relay_key.public)
    # A relay that goes in a circle is left at once.
    pair.alice.relay.instead_of_vacancies = lambda _: Vacancies(1, 100, frozenset(), 7)

    assert (asked, taken) == ([-1, 30, 60], 1)
    assert await refill.run(pair.world.relay_key.public) == 0


def test_vacancies_that_say_more_than_there_is_are_refused() -> None:
    # [B-19]
    with pytest.raises(MalformedError):
        parse_vacancies(serialize({"had": 9, "size": 8, "tags": [], "next": None}))
