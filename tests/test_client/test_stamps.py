"""A relay that refuses or stalls cannot make a desk late: witnesses stamp the act directly."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from comity_client.asking import STAMP_ANSWER_BYTES_MAX, WitnessSilentError, ask
from comity_client.drafts import Draft
from comity_client.envelopes import Stage
from comity_client.profile import write_profile
from comity_client.relay_answers import NoticeItem
from comity_client.secretariat import statistics
from comity_client.stamps import STAMP_AFTER_SECONDS, read_stamps, write_stamps
from comity_client.transport import OfflineError, RelayRefusedError
from comity_client.witness import Witness, serve_witness
from comity_client.witness_stamps import Stamper
from comity_client.witness_state import WitnessKey, WitnessState
from comity_protocol.acts import Event
from comity_protocol.core import core_hash
from comity_protocol.encoding import parse, serialize
from comity_protocol.errors import VerificationError
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.leaves import notice_hash
from comity_protocol.notices import Stamped
from comity_protocol.quorum import Quorum
from comity_protocol.receipts import Promise, Signed, sign_promise
from comity_protocol.stamps import Stamp, stamped_at
from comity_protocol.statements import Authority, Policy
from support.desks import LEAD, REQUEST
from test_client.conftest import Pair, Side

DAY = 86_400
ANSWER = Draft(text="the flat was searched", outcomes=("DONE",))


def refuse(_: bytes) -> Signed | None:
    """Answer as a relay that is always busy."""
    busy = type("RelayRefusedError", (RelayRefusedError,), {"code": "quota"})
    raise busy("quota", status=429, retry_after=3600.0, trace_id="")


def away(_: bytes) -> Signed | None:
    """Answer as no relay does."""
    raise OfflineError("line was cut")


async def send_late(pair: Pair, side: Side, envelope: EnvelopeId, seconds: int) -> int:
    """Let the relay refuse a desk for so long; gives the time at which witnesses were asked."""
    side.relay.on_post = refuse
    pair.relay.clock.ahead += STAMP_AFTER_SECONDS + 1
    asked_at = int(pair.relay.clock())
    with pytest.raises(RelayRefusedError):
        await side.desk.flush()
    pair.relay.clock.ahead += seconds
    side.relay.on_post = lambda _: None
    assert side.desk.status(envelope).stage is Stage.QUEUED
    return asked_at


async def test_a_relay_that_refuses_a_desk_for_a_day_makes_it_late_for_nobody(pair: Pair) -> None:
    # [M-1] [M-2] [B-15] The other desk and the secretariat see the same time.
    world, alice, bob = pair.world, pair.alice, pair.bob
    ngo = world.create_desk("XA", Authority.SECRETARIAT)
    for desk in (alice.id, bob.id):
        world.set_policy(desk, Policy(auditors_file=(ngo,), auditors_lead=(ngo,)))
    await pair.relay.publish()
    office = await pair.join(world.active(ngo)[0], "office")
    await pair.witnesses(alice)
    await alice.desk.sync()
    await bob.desk.sync()
    request = bob.desk.request(alice.id, REQUEST)
    await pair.deliver()
    exchange = bob.desk.read(request).record.exchange
    answer = alice.desk.answer(exchange, ANSWER)
    asked_at = await send_late(pair, alice, answer, DAY)
    await pair.deliver(rounds=2)
    await pair.relay.seal()
    for side in (alice, bob, office):
        await side.desk.fetch()

    times = [side.desk.times()[answer] for side in (alice, bob, office)]
    brackets = [one.bracket for one in times]
    # Desks know the whole bracket; an office that audits learns its beginning when it counts.
    assert all(one.seen_at is not None for one in times[:2])
    assert brackets[0] == brackets[1]
    assert brackets[0] is not None
    assert 0 <= brackets[0].not_after - asked_at < 60
    assert brackets[2] is not None
    assert brackets[2].not_after == brackets[0].not_after
    assert all(one.sealed_at is not None and one.sealed_at - asked_at >= DAY for one in times)
    (row,) = (await statistics(office.desk)).rows
    assert row.final == brackets[0]
    assert row.final_event is Event.ANSWER
    assert not [alarm for side in (alice, bob, office) for alarm in side.desk.alarms()]


async def test_an_act_is_stamped_while_the_relay_is_unreachable(pair: Pair) -> None:
    # [B-15] Stamps are on the disk: a crash loses none.
    witnesses = await pair.witnesses(pair.alice)
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    pair.alice.relay.on_post = away
    with pytest.raises(OfflineError):
        await pair.alice.desk.flush()
    assert pair.alice.desk.stamped(envelope) == ()
    pair.relay.clock.ahead += STAMP_AFTER_SECONDS + 1
    with pytest.raises(OfflineError):
        await pair.alice.desk.flush()
    await pair.reopen(pair.alice, witnesses)

    (stamped,) = pair.alice.desk.stamped(envelope)
    assert (len(stamped.stamps), stamped.witnesses) == (3, 3)
    assert stamped.at is not None
    assert pair.alice.desk.times()[envelope].stamped_at == stamped.at


async def test_witnesses_are_asked_once_and_only_for_a_hash(pair: Pair) -> None:
    # [B-15]
    witnesses = await pair.witnesses(pair.alice)
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.stamp([envelope])
    await pair.alice.desk.stamp([envelope])

    what = core_hash(pair.alice.desk.stamped(envelope)[0].core)
    assert witnesses.asked == [what] * 3


async def test_an_act_that_the_relay_promised_in_time_needs_no_witness(pair: Pair) -> None:
    witnesses = await pair.witnesses(pair.alice)
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.deliver()
    pair.relay.clock.ahead += DAY
    await pair.alice.desk.flush()

    assert witnesses.asked == []
    assert [kind for kind, _ in pair.alice.relay.posted if kind == "notice"] == []


async def test_a_promise_that_is_overdue_is_stamped(pair: Pair) -> None:
    # [B-15]
    witnesses = await pair.witnesses(pair.alice)
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    pair.relay.clock.ahead += 3_600
    await pair.alice.desk.flush()

    assert len(witnesses.asked) == 3
    assert pair.alice.desk.stamped(envelope)[0].at is not None


@pytest.mark.parametrize(
    ("skew", "away", "strange", "stamps", "is_dated"),
    [
        pytest.param({}, {"witness0.example"}, set(), 2, True, id="one is away"),
        pytest.param({}, {"witness0.example", "witness1.example"}, set(), 1, False, id="two are"),
        pytest.param({}, set(), {"witness0.example"}, 2, True, id="one stamps another hash"),
        pytest.param({"witness0.example": -DAY}, set(), set(), 3, True, id="one is early"),
        pytest.param({"witness0.example": DAY}, set(), set(), 3, True, id="one is late"),
    ],
)
async def test_one_witness_that_lies_moves_no_time(  # a table's columns
    pair: Pair,
    skew: dict[str, int],
    away: set[str],
    strange: set[str],
    stamps: int,
    is_dated: bool,
) -> None:
    # [M-2] [B-15]
    witnesses = await pair.witnesses(pair.alice)
    witnesses.skew, witnesses.away, witnesses.strange = skew, away, strange
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    now = int(pair.relay.clock())
    await pair.alice.desk.stamp([envelope])

    (stamped,) = pair.alice.desk.stamped(envelope)
    assert len(stamped.stamps) == stamps
    assert (stamped.at is not None) == is_dated
    if stamped.at is not None:
        assert abs(stamped.at - now) < 60
    # [B-15] Until they are a quorum, nothing is stated.
    await pair.alice.desk.flush()
    assert ("notice" in [kind for kind, _ in pair.alice.relay.posted]) == is_dated


async def test_an_act_that_is_sealed_again_keeps_the_stamps_of_its_first_core(pair: Pair) -> None:
    # [B-15]
    await pair.witnesses(pair.alice)
    first = pair.alice.desk.lead(pair.bob.id, LEAD)
    old_at = await send_late(pair, pair.alice, first, 3_600)
    pair.world.turn(pair.bob.id)
    await pair.relay.publish()
    await pair.deliver(rounds=2)

    (old,) = pair.alice.desk.stamped(first)
    assert old.envelope == first
    assert pair.alice.desk.status(first).envelope != first
    assert old.at is not None
    assert abs(old.at - old_at) < 60
    # A stranger checks the old core with its stamps; the log has only the new one.
    genesis = pair.world.genesis
    file = parse(write_stamps(old, genesis))
    assert isinstance(file, dict)
    assert file["core"] == old.core
    assert dated(file, genesis.quorum, genesis.deployment) == old.at
    assert read_stamps(serialize(file), genesis) == old
    stamps = file["stamps"]
    assert isinstance(stamps, list)
    name, at, signature = stamps[0]
    for wrong in (
        {**file, "deployment": bytes(16)},
        {**file, "stamps": [[name, at + 1, signature]]},
        {**file, "stamps": [["stranger.example", at, signature]]},
    ):
        with pytest.raises(VerificationError):
            read_stamps(serialize(wrong), genesis)


async def test_a_relay_that_keeps_the_stamps_to_itself_is_noticed_by_the_sender(pair: Pair) -> None:
    # [B-5] [B-15] It promises the notice and never logs it.
    await pair.witnesses(pair.alice)
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    asked_at = await send_late(pair, pair.alice, envelope, DAY)
    swallowed: list[Signed] = []

    def swallow(signed: Signed) -> Signed:
        swallowed.append(signed)
        promise = Promise(notice_hash(signed.payload), int(pair.relay.clock()))
        return sign_promise(pair.world.relay_key, promise)

    pair.alice.relay.on_post_notice = swallow
    await pair.deliver()
    pair.relay.clock.ahead += 3_600
    pair.bob.desk.lead(pair.alice.id, LEAD)
    await pair.deliver()

    alarms = pair.alice.desk.alarms()
    assert [alarm.kind for alarm in alarms] == ["broken-promise"]
    assert "promised to log notice" in alarms[0].text
    # Its own stamps still prove the time, to anybody.
    genesis = pair.world.genesis
    file = parse(write_stamps(pair.alice.desk.stamped(envelope)[0], genesis))
    assert isinstance(file, dict)
    at = dated(file, genesis.quorum, genesis.deployment)
    assert at is not None
    assert abs(at - asked_at) < 60


async def test_a_relay_that_logs_the_stamps_and_hands_them_to_nobody_is_noticed(pair: Pair) -> None:
    # [B-18]
    await pair.witnesses(pair.alice)
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    await send_late(pair, pair.alice, envelope, DAY)
    withhold: list[NoticeItem] = []
    pair.alice.relay.on_notices = lambda page: withhold
    await pair.deliver()
    await pair.alice.desk.count_statements()
    pair.relay.clock.ahead += 60
    pair.bob.desk.lead(pair.alice.id, LEAD)
    await pair.deliver()

    assert [alarm.kind for alarm in pair.alice.desk.alarms()] == ["withheld"]


async def test_stamps_of_a_notice_are_the_senders_and_the_cores(pair: Pair) -> None:
    # [H-2] [B-18]
    await pair.witnesses(pair.alice)
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    await send_late(pair, pair.alice, envelope, 60)
    await pair.deliver(rounds=2)

    (kept,) = pair.bob.desk.notices()
    assert isinstance(kept.notice, Stamped)
    assert kept.notice.envelope == envelope
    assert kept.notice.core == core_hash(pair.alice.desk.stamped(envelope)[0].core)


# --- Over HTTP


async def test_witness_programs_stamp_for_a_desk_that_the_relay_refuses(
    pair: Pair, tmp_path: Path
) -> None:
    # [B-15] [W-7] The programs that States run, asked as an office asks them.
    genesis = pair.world.genesis

    def clock() -> int:
        return int(pair.relay.clock())

    async with AsyncExitStack() as stack:
        urls = []
        for name, secret in pair.world.witness_keys.items():
            key = WitnessKey(name, secret)
            state = WitnessState.create(tmp_path / f"{name}.stamping", key.verifier_key)
            stack.callback(state.close)
            stamper = Stamper(key, state, genesis.deployment, clock)
            app = serve_witness(Witness(state, key, [genesis.log], clock, stamper=stamper))
            urls.append(await stack.enter_async_context(serving(app)))
        profile = replace(pair.alice.desk.profile, witnesses=(*urls, "http://127.0.0.1:1"))
        write_profile(pair.alice.folder, profile)
        await pair.reopen(pair.alice, ask)
        envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
        await send_late(pair, pair.alice, envelope, DAY)

    (stamped,) = pair.alice.desk.stamped(envelope)
    assert [stamp.witness for stamp in stamped.stamps] == sorted(pair.world.witness_keys)
    await pair.deliver(rounds=2)
    bracket = pair.bob.desk.times()[envelope].bracket
    assert bracket is not None
    assert bracket.not_after == stamped.at


@asynccontextmanager
async def answering(handler: web.RequestHandler | object) -> AsyncIterator[str]:
    """Run a server with one answer."""
    app = web.Application()
    app.router.add_post("/stamp", handler)  # type: ignore[arg-type]  # a test's own handlers
    async with serving(app) as url:
        yield f"{url}/stamp"


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """Run a server; give its address."""
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def test_a_witness_is_asked_over_http() -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=b"seen " + await request.read())

    async with answering(echo) as url:
        assert await ask(url, b"hash") == b"seen hash"


@pytest.mark.parametrize("fault", ["redirect", "too long", "refusal", "cut"])
async def test_a_witness_that_answers_wrongly_is_as_good_as_silent(fault: str) -> None:
    # [B-11]
    async def answer(request: web.Request) -> web.Response:
        if fault == "redirect":
            raise web.HTTPFound("/elsewhere")
        if fault == "cut":
            assert request.transport is not None
            request.transport.close()
        body = bytes(STAMP_ANSWER_BYTES_MAX + 1) if fault == "too long" else b""
        return web.Response(status=503 if fault == "refusal" else 200, body=body)

    async with answering(answer) as url:
        with pytest.raises(WitnessSilentError):
            await ask(url, b"hash")


async def test_a_witness_that_is_not_there_is_silent() -> None:
    with pytest.raises(WitnessSilentError):
        await ask("http://127.0.0.1:1/stamp", b"hash")


def dated(file: dict[str, object], quorum: Quorum, deployment: bytes) -> int | None:
    """Date a file of stamps as a stranger does."""
    core, stamps = file["core"], file["stamps"]
    assert isinstance(core, bytes)
    assert isinstance(stamps, list)
    parsed = [Stamp(*one) for one in stamps]
    return stamped_at(parsed, deployment, core_hash(core), quorum)  # type: ignore[arg-type]
