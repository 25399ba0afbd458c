"""P5, the whole way: a relay logs its forgeries in earnest, and clients and figures pass them by.

It has its keys and its database: what it forged gets entries, counters, promises and witnessed
checkpoints like everything else. Nobody who reads the log takes it for what it says it is.
"""

from dataclasses import replace
from pathlib import Path

from comity_client.audit_archive import Archive
from comity_client.audit_desk import MemberRelay, fetch_desk
from comity_client.audit_fetch import fetch
from comity_client.audit_findings import Finding, Kind
from comity_client.audit_source import Source
from comity_client.audit_verify import Audit, Objects
from comity_client.desk import token_maker
from comity_client.envelopes import Stage
from comity_client.secretariat import statistics
from comity_protocol.acts import Event
from comity_protocol.core import Core, core_hash
from comity_protocol.envelope import Sealed
from comity_protocol.exchange import State
from comity_protocol.keys import random_bytes
from comity_protocol.leaves import notice_hash, receipt_hash
from comity_protocol.notices import Author, Erase, EraseBasis, sign_notice
from comity_protocol.receipts import Promise, Receipt, Signed, sign_promise, sign_receipt
from comity_server.checks import CheckedEnvelope
from comity_server.relay import envelope_row
from comity_server.store import NoticeRow, ReceiptRow
from support.desks import LEAD
from support.relay import Relay
from support.world import Member, lead, reply
from test_client.test_secretariat import Region, region


async def log_envelope(relay: Relay, sealed: Sealed) -> None:
    """Log an envelope without any check."""
    key, upload = relay.world.relay_key, sealed.upload
    hashed, at = core_hash(upload.core), int(relay.clock())
    promise = sign_promise(key, Promise(hashed, at))
    checked = CheckedEnvelope(upload, Core.parse(upload.core), hashed, promise, at)
    store, view = relay.context.store, relay.context.relay.members.view
    done = await store.accept(
        [envelope_row(checked, key)], [], statements=view.ordinal, integrate=True
    )
    relay.context.relay.publish(done)


async def log_receipt(relay: Relay, signed: Signed, receipt: Receipt, sender: Member) -> None:
    """Log a receipt without any check."""
    what, at = receipt_hash(signed.payload), int(relay.clock())
    row = ReceiptRow(
        hash=what,
        payload=signed.payload,
        signature=signed.signature,
        desk=receipt.desk,
        sender_desk=sender.desk,
        envelope_ids=receipt.envelopes,
        accepted_at=at,
        promise=sign_promise(relay.world.relay_key, Promise(what, at)).serialize(),
    )
    store, view = relay.context.store, relay.context.relay.members.view
    relay.context.relay.publish(
        await store.accept([], [row], statements=view.ordinal, integrate=True)
    )


async def log_notice(relay: Relay, signed: Signed, notice: Erase, readers: list[bytes]) -> None:
    """Log a notice without any check."""
    what, at = notice_hash(signed.payload), int(relay.clock())
    row = NoticeRow(
        hash=what,
        payload=signed.payload,
        signature=signed.signature,
        kind=notice.kind,
        desk=notice.author.desk,
        envelope_ids=notice.envelopes,
        readers=tuple(sorted(readers)),
        accepted_at=at,
        promise=sign_promise(relay.world.relay_key, Promise(what, at)).serialize(),
    )
    store, view = relay.context.store, relay.context.relay.members.view
    done = await store.accept_notice(row, statements=view.ordinal, bury=lambda _: None)
    relay.context.relay.publish(done)


async def test_what_a_relay_forges_into_its_own_log_changes_nothing_for_anybody(
    tmp_path: Path,
) -> None:
    """[E-1] [Q-1] [H-1] [B-1] [B-7] An answer, a lead, a receipt and an erasure."""
    async with region(tmp_path) as here:
        relay, world = here.relay, here.relay.world
        first = here.alice.lead(here.receiver, LEAD)
        await here.alice.flush()
        await relay.seal()
        await here.alice.fetch()
        await here.secretariat.fetch()
        before = (await statistics(here.secretariat)).rows
        bob = world.active(here.receiver)[0]
        forged = await forge(here, replace(bob, fast=world.relay_key))

        await relay.seal()
        # The receiver comes last: what it receives it confirms in earnest.
        for desk in (here.alice, here.secretariat, here.bob):
            await desk.fetch()
        after = (await statistics(here.secretariat)).rows
        alarms = {alarm.kind for alarm in here.alice.alarms()}
        (exchange,) = here.alice.exchanges()
        assert exchange.state is State.SUBMITTED
        assert here.alice.status(first).stage is Stage.SEALED
        assert here.alice.read(first).act is not None
        assert [line.refused for line in here.alice.inbox()] == [None, "verification-failed"]
        assert after == before
        assert [row.delivered_at for row in after] == [None]
        assert (await statistics(here.secretariat)).charged == ()
        # The receipt and the notice are evidence: they stand in the log under a false signature.
        assert alarms == {"receipt", "notice"}
        assert set(await audited(here, tmp_path / "folder", forged)) == {Kind.SIGNED_OBJECT}


async def forge(here: Region, thief: Member) -> Objects:
    """Log an answer, a receipt for the lead and an erasure of it, all by the relay's own key."""
    relay, world = here.relay, here.relay.world
    opening = here.alice.exchanges()[0].steps[0]
    act = reply(Event.ANSWER, replace(lead(), exchange=opening.record.exchange), opening.envelope)
    seen = relay.context.log.newest().note_hash
    answer = world.seal_act(
        thief, here.member.desk, act, profile="lead", head_key=random_bytes(32), seen=seen
    )
    await log_envelope(relay, answer)
    core = here.alice.read(opening.envelope).core
    seq = world.directory.desk(thief.desk).seq
    held = ((core.id, core_hash(core.serialize())),)
    receipt = Receipt(thief.desk, thief.id, seq, held, seen)
    signed = sign_receipt(world.relay_key, receipt)
    await log_receipt(relay, signed, receipt, here.member)
    author = Author(world.genesis.deployment, here.member.desk, here.member.id, 1, seen)
    erase = Erase(author, (core.id,), EraseBasis.CASE_CLOSED)
    notice = sign_notice(world.relay_key, erase)
    await log_notice(relay, notice, erase, [entry.desk for entry in core.to])
    return Objects(receipts={"receipt": signed}, notices={"notice": notice})


async def audited(here: Region, folder: Path, objects: Objects) -> list[Kind]:
    """Fetch the log as an auditor does and look for what was forged."""
    archive, found, desk = Archive(folder), list[Finding](), here.secretariat
    async with Source(here.relay.url) as source:
        pinned = desk.profile.deployment.genesis_hash
        await fetch(archive, source, pinned, report=found.append)
    async with MemberRelay(here.relay.url, token_maker(desk.profile, desk.keys)) as own:
        assert isinstance(own, MemberRelay)
        await fetch_desk(archive, own, here.relay.world.genesis, found.append)
    Audit(archive, found.append, objects).run(None)
    return [one.kind for one in found]
