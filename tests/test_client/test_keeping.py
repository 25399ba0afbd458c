"""What was handed over is kept for as long as a restored relay may ask for it."""

from comity_client.keeping import Keeping, Kind
from comity_protocol.leaves import tags_of_promise
from comity_protocol.limits import KEPT_DAYS
from support.desks import LEAD
from test_client.conftest import Pair

DAY = 86_400


async def test_what_was_sealed_is_kept_for_its_days_and_not_longer(pair: Pair) -> None:
    # [B-14]
    alice, bob = pair.alice.desk, pair.bob.desk
    envelope = alice.lead(pair.bob.id, LEAD)
    await pair.deliver()
    await alice.count_statements()
    await pair.relay.seal()
    await bob.sync()
    await bob.count_statements()
    (what,) = pair.alice.desk.state.connection.execute("SELECT core_hash FROM outbox").fetchone()
    tag = tags_of_promise(what)[1]
    (receipt,) = bob.state.connection.execute("SELECT tag FROM kept").fetchone()
    sealed_at = alice.newest.sealed_at
    for desk, wanted in ((alice, tag), (bob, receipt)):
        keeping = Keeping(desk.state)
        keeping.prune(sealed_at + KEPT_DAYS * DAY - 60)
        (kept,) = keeping.missing([wanted])
        assert kept.tag == wanted
        keeping.prune(sealed_at + KEPT_DAYS * DAY + 60)
        assert list(keeping.missing([wanted])) == []

    # It is still read, from the mailbox, and known as this device's own.
    assert alice.read(envelope).act is not None
    await alice.fetch()
    assert not alice.alarms()


async def test_what_was_never_seen_in_the_log_is_kept(pair: Pair) -> None:
    # [B-14]
    alice = pair.alice.desk
    alice.lead(pair.bob.id, LEAD)
    await alice.flush()
    keeping = Keeping(alice.state)
    keeping.prune(alice.newest.sealed_at + 2 * KEPT_DAYS * DAY)
    (what,) = alice.state.connection.execute("SELECT core_hash FROM outbox").fetchone()

    (kept,) = keeping.missing([tags_of_promise(what)[1], bytes(32)])
    assert (kept.kind, kept.what) == (Kind.ENVELOPE, what)


async def test_a_receipt_that_was_promised_and_not_logged_is_a_broken_promise(pair: Pair) -> None:
    # [B-5] [B-14]
    alice, bob = pair.alice.desk, pair.bob.desk
    alice.lead(pair.bob.id, LEAD)
    await alice.flush()
    await pair.relay.seal()
    await bob.fetch()
    bob.state.connection.execute("UPDATE kept SET tag = ?, what = ?", (bytes(32), bytes(32)))
    pair.relay.clock.ahead += 3_600
    alice.lead(pair.bob.id, LEAD)
    await alice.flush()
    await pair.relay.seal()
    await bob.fetch()

    (alarm,) = bob.alarms()
    assert alarm.kind == "broken-promise"
    assert "promised to log receipt" in alarm.text
