"""Notices over HTTP: who may give which, what they do, and who is given them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from comity_protocol.core import core_hash
from comity_protocol.encoding import serialize
from comity_protocol.envelope import Sealed
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.keys import random_bytes
from comity_protocol.leaves import notice_hash, notice_leaf
from comity_protocol.merkle import leaf_hash, verify_inclusion
from comity_protocol.notices import (
    DeskNotice,
    Restored,
    Stamped,
    parse_notice,
    sign_notice,
)
from comity_protocol.receipts import Receipt, Signed, sign_receipt, verify_promise
from comity_protocol.stamps import Stamp, sign_stamp
from comity_protocol.statements import Role
from support.notices import author, device_of, erase, give, hold, post, release
from support.relay import Answer, Relay, Stand, audited_world, relay, wait_until
from support.world import Member, held_of

UNKNOWN = EnvelopeId(bytes(16))


async def sent(stand: Stand, count: int = 1) -> list[Sealed]:
    """Envelopes from the sender to the receiver."""
    return [(await stand.relay.send(stand.sender, stand.to))[0] for _ in range(count)]


def admin_of(stand: Stand, member: Member) -> Member:
    return device_of(stand.relay, member, Role.ADMIN)


def officer_of(stand: Stand, member: Member) -> Member:
    return device_of(stand.relay, member, Role.OFFICER)


async def notices_for(stand: Relay, member: Member, query: str = "") -> list[tuple[int, bytes]]:
    answer = await stand.as_device(member, "GET", "/v1/notices" + query)
    assert answer.status == 200, answer.body
    return [(index, payload) for index, payload, _ in answer.value["items"]]


async def mailbox(stand: Relay, member: Member, query: str = "") -> list[list[object]]:
    answer = await stand.as_device(member, "GET", "/v1/mailbox" + query)
    assert answer.status == 200, answer.body
    items: list[list[object]] = answer.value["items"]
    return items


def stamps(stand: Stand, core: bytes, count: int = 2) -> tuple[Stamp, ...]:
    keys = sorted(stand.relay.world.witness_keys.items())[:count]
    deployment = stand.relay.world.genesis.deployment
    return tuple(
        Stamp(name, 1_800_000_000, sign_stamp(key, deployment, core, 1_800_000_000).signature)
        for name, key in keys
    )


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.code


# What is accepted.


async def test_a_notice_is_promised_logged_and_proven(stand: Stand) -> None:
    """[R-1] [Q-2]"""
    (sealed,) = await sent(stand)
    notice = hold(stand.relay, stand.receiver, [sealed.id])

    answer = await give(stand.relay, stand.receiver, notice)

    genesis = stand.relay.world.genesis
    verify_promise(answer.promise, genesis.relay_key, notice_hash(notice.serialize()))
    ((index, payload),) = await notices_for(stand.relay, stand.sender)
    assert parse_notice(payload) == notice
    await stand.relay.seal()
    log = stand.relay.context.log
    newest = log.newest()
    head = await stand.relay.context.store.head()
    assert newest.size == head.size
    verify_inclusion(
        leaf_hash(notice_leaf(payload)),
        index=index,
        size=newest.size,
        root=head.root,
        proof=await log.inclusion(index, newest.size),
    )


async def test_a_notice_that_is_sent_again_gets_the_original_promise(stand: Stand) -> None:
    """[R-2]"""
    (sealed,) = await sent(stand)
    notice = hold(stand.relay, stand.receiver, [sealed.id])

    first = await give(stand.relay, stand.receiver, notice)
    stand.relay.clock.ahead += 5
    again = await give(stand.relay, stand.receiver, notice)

    assert again.promise == first.promise
    assert len(await notices_for(stand.relay, stand.sender)) == 1


async def test_stamps_are_taken_from_the_desk_that_sent_the_envelope(stand: Stand) -> None:
    """[H-2]"""
    (sealed,) = await sent(stand)
    core = core_hash(sealed.upload.core)
    by = author(stand.relay, stand.sender)
    notice = Stamped(by, sealed.id, core, stamps(stand, core))

    assert (await give(stand.relay, stand.sender, notice)).status == 200
    assert [payload for _, payload in await notices_for(stand.relay, stand.receiver)] == [
        notice.serialize()
    ]


async def test_stamps_by_others_or_of_another_core_are_refused(stand: Stand) -> None:
    """[H-2]"""
    sealed, other = await sent(stand, 2)
    core, wrong = (core_hash(one.upload.core) for one in (sealed, other))
    by, not_by = author(stand.relay, stand.sender), author(stand.relay, stand.receiver)

    lies: list[tuple[Member, DeskNotice]] = [
        (stand.receiver, Stamped(not_by, sealed.id, core, stamps(stand, core))),
        (stand.sender, Stamped(by, sealed.id, wrong, stamps(stand, wrong))),
        (stand.sender, Stamped(by, sealed.id, core, stamps(stand, wrong))),
    ]
    answers = [await give(stand.relay, member, lie) for member, lie in lies]

    assert [refusal(answer) for answer in answers] == [(422, "verification-failed")] * 3
    assert await notices_for(stand.relay, stand.sender) == []


# Who is given them.


async def test_a_stranger_is_given_no_notice_and_an_auditor_is(tmp_path: Path) -> None:
    """[R-14]"""
    world, sender, receiver, auditor = audited_world()
    stranger = world.create_desk("XA")
    async with relay(tmp_path, world) as running:
        await running.publish()
        stand = Stand(running, world.active(sender)[0], world.active(receiver)[0])
        (sealed,) = await sent(stand)
        await give(running, stand.receiver, hold(running, stand.receiver, [sealed.id]))

        counts = [
            len(await notices_for(running, world.active(desk)[0]))
            for desk in (sender, receiver, auditor, stranger)
        ]

    assert counts == [1, 1, 1, 0]


async def test_notices_are_read_in_pages_and_waited_for(stand: Stand) -> None:
    """[R-15]"""
    (sealed,) = await sent(stand)
    waiting = asyncio.create_task(notices_for(stand.relay, stand.sender, "?wait=30"))
    await wait_until(lambda: stand.relay.context.waiting == 1)
    for make in (hold, release):
        admin = admin_of(stand, stand.receiver)
        await give(stand.relay, admin, make(stand.relay, admin, [sealed.id]))

    async with asyncio.timeout(10):
        (first,) = (await waiting)[:1]
    everything = await notices_for(stand.relay, stand.sender)
    assert [parse_notice(payload).kind for _, payload in everything] == ["hold", "release"]
    assert everything[0] == first
    assert await notices_for(stand.relay, stand.sender, "?limit=1") == everything[:1]
    assert await notices_for(stand.relay, stand.sender, f"?after={first[0]}") == everything[1:]


async def test_the_relay_s_own_notice_of_a_restore_is_given_to_every_member(stand: Stand) -> None:
    """[H-1]"""
    third = stand.relay.world.create_desk("XA")
    await stand.relay.publish()
    restored = Restored(
        deployment=stand.relay.world.genesis.deployment,
        incarnation=bytes(16),
        had=3,
        size=5,
        lost=1,
        at=1_800_000_000,
    )

    await stand.relay.context.notices.state_restored(restored)

    members = (stand.sender, stand.receiver, stand.relay.world.active(third)[0])
    for member in members:
        ((_, payload),) = await notices_for(stand.relay, member)
        assert parse_notice(payload) == restored


async def test_nobody_else_states_a_restore(stand: Stand) -> None:
    """[H-1] Not even with the relay's own signature."""
    restored = Restored(
        deployment=stand.relay.world.genesis.deployment,
        incarnation=bytes(16),
        had=3,
        size=5,
        lost=1,
        at=1_800_000_000,
    )

    for key in (stand.sender.fast, stand.relay.world.relay_key):
        answer = await post(stand.relay, stand.sender, sign_notice(key, restored))
        assert refusal(answer) == (422, "verification-failed")


# Who may give which.


async def test_an_erasure_takes_the_own_copy_only(stand: Stand) -> None:
    """[H-3] The attack: the receiver states that the sender's copy goes."""
    (sealed,) = await sent(stand)
    mine, theirs = (admin_of(stand, one) for one in (stand.receiver, stand.sender))

    as_another = await give(stand.relay, theirs, erase(stand.relay, theirs, [sealed.id]), by=mine)
    before = await mailbox(stand.relay, stand.sender)
    await give(stand.relay, mine, erase(stand.relay, mine, [sealed.id]))

    assert refusal(as_another) == (422, "verification-failed")
    assert await mailbox(stand.relay, stand.sender) == before
    (item,) = await mailbox(stand.relay, stand.receiver)
    assert (item[4], item[6]) == (None, None)
    wrap = await stand.relay.as_device(stand.receiver, "GET", f"/v1/wraps/{sealed.id.hex()}")
    assert refusal(wrap) == (404, "not-found")


async def test_an_officer_who_is_no_admin_neither_erases_nor_releases(stand: Stand) -> None:
    """[H-1]"""
    (sealed,) = await sent(stand)
    officer = officer_of(stand, stand.receiver)
    before = await mailbox(stand.relay, stand.receiver)

    answers = [
        await give(stand.relay, officer, make(stand.relay, officer, [sealed.id]))
        for make in (erase, release)
    ]

    assert [refusal(answer) for answer in answers] == [(422, "verification-failed")] * 2
    assert await mailbox(stand.relay, stand.receiver) == before


async def test_a_notice_signed_by_another_device_is_refused(stand: Stand) -> None:
    """[H-1] The attack: an officer writes the admin's device into the notice."""
    (sealed,) = await sent(stand)
    admin, officer = admin_of(stand, stand.receiver), officer_of(stand, stand.receiver)
    forged = sign_notice(officer.fast, erase(stand.relay, admin, [sealed.id]))

    answers = [await post(stand.relay, member, forged) for member in (admin, officer)]

    assert [refusal(answer) for answer in answers] == [(422, "verification-failed")] * 2


async def test_what_is_not_there_and_what_is_another_s_get_the_same_answer(stand: Stand) -> None:
    """[R-14] [H-1]"""
    (sealed,) = await sent(stand)
    third = stand.relay.world.create_desk("XA")
    await stand.relay.publish()
    stranger = device_of(stand.relay, stand.relay.world.active(third)[0], Role.ADMIN)

    problems = []
    for ids in ([sealed.id], [UNKNOWN], [UNKNOWN, sealed.id]):
        for make in (erase, hold, release):
            answer = await give(stand.relay, stranger, make(stand.relay, stranger, ids))
            problems.append({**answer.problem, "trace_id": ""})

    assert problems == [problems[0]] * 9
    assert problems[0]["code"] == "not-found"


async def test_a_removed_device_gives_no_notice(stand: Stand) -> None:
    """[R-6] [H-1]"""
    (sealed,) = await sent(stand)
    admin = admin_of(stand, stand.receiver)
    notice = erase(stand.relay, admin, [sealed.id])
    stand.relay.world.remove(stand.to, [admin])
    await stand.relay.publish()

    answer = await give(stand.relay, admin, notice)

    assert refusal(answer) == (403, "not-active")
    assert (await mailbox(stand.relay, officer_of(stand, stand.receiver)))[0][4] is not None


async def test_a_notice_about_two_counterparts_is_refused(stand: Stand) -> None:
    """[H-6]"""
    third = stand.relay.world.create_desk("XA")
    await stand.relay.publish()
    (sealed,) = await sent(stand)
    other, _ = await stand.relay.send(stand.relay.world.active(third)[0], stand.to)

    answer = await give(
        stand.relay, stand.receiver, hold(stand.relay, stand.receiver, [sealed.id, other.id])
    )

    assert refusal(answer) == (422, "verification-failed")
    assert "[H-6]" in answer.problem["detail"]


async def test_a_notice_that_has_seen_no_checkpoint_of_this_relay_is_refused(
    stand: Stand,
) -> None:
    """[R-10]"""
    (sealed,) = await sent(stand)
    by = author(stand.relay, stand.receiver)
    notice = type(hold(stand.relay, stand.receiver, [sealed.id]))(
        type(by)(by.deployment, by.desk, by.device, by.seq, bytes(32)),
        (sealed.id,),
        hold(stand.relay, stand.receiver, [sealed.id]).basis,
    )

    assert refusal(await give(stand.relay, stand.receiver, notice)) == (409, "unknown-checkpoint")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff", "malformed"),
        (serialize([b"payload", bytes(64)]), "malformed"),
        (serialize([serialize({"v": 1, "t": "unknown"}), bytes(64)]), "malformed"),
        (bytes(20_000), "too-large"),
    ],
)
async def test_what_is_no_notice_is_refused(stand: Stand, data: bytes, code: str) -> None:
    answer = await stand.relay.as_device(stand.sender, "POST", "/v1/notices", data)

    assert answer.code == code


# Holds.


async def test_an_erasure_under_another_desk_s_hold_is_refused(stand: Stand) -> None:
    """[H-4]"""
    sealed, other = await sent(stand, 2)
    admin, officer = admin_of(stand, stand.receiver), officer_of(stand, stand.sender)
    await give(stand.relay, officer, hold(stand.relay, officer, [sealed.id]))
    erasing = erase(stand.relay, admin, [sealed.id, other.id])

    refused = await give(stand.relay, admin, erasing)
    # Neither does the desk that would erase end the other one's hold.
    await give(stand.relay, admin, release(stand.relay, admin, [sealed.id]))
    still = await give(stand.relay, admin, erasing)
    before = await mailbox(stand.relay, stand.receiver)
    holder = admin_of(stand, stand.sender)
    await give(stand.relay, holder, release(stand.relay, holder, [sealed.id]))
    done = await give(stand.relay, admin, erasing)

    assert [refusal(refused), refusal(still)] == [(409, "on-hold")] * 2
    assert all(item[4] is not None for item in before)
    assert done.status == 200
    assert all(item[4] is None for item in await mailbox(stand.relay, stand.receiver))


# Receipts.


async def confirm(stand: Stand, *sealed: Sealed) -> Signed:
    member = stand.receiver
    receipt = Receipt(
        desk=member.desk,
        device=member.id,
        seq=stand.relay.world.directory.desk(member.desk).seq,
        held=held_of(*sealed),
        seen=stand.relay.context.log.newest().note_hash,
    )
    signed = sign_receipt(member.fast, receipt)
    answer = await stand.relay.as_device(member, "POST", "/v1/receipts", signed.serialize())
    assert answer.status == 200, answer.body
    return signed


async def receipts_for(stand: Relay, member: Member, query: str = "") -> Sequence[bytes]:
    answer = await stand.as_device(member, "GET", "/v1/receipts" + query)
    return [payload for _, payload, _ in answer.value["items"]]


async def test_an_auditor_is_given_the_receipts_for_what_addresses_it(tmp_path: Path) -> None:
    """[R-14] And nothing of envelopes that do not address it; a socket has them pushed."""
    world, sender, receiver, auditor = audited_world()
    other = world.create_desk("XA")
    unaudited = world.create_desk("XB")
    async with relay(tmp_path, world) as running:
        await running.publish()
        stand = Stand(running, world.active(sender)[0], world.active(receiver)[0])
        second = Stand(running, world.active(other)[0], world.active(unaudited)[0])
        watcher = world.active(auditor)[0]
        one, two = await sent(stand, 2)
        (private,) = await sent(second)
        async with running.socket(watcher) as socket:
            await socket.put("follow", 2)
            # The first is in memory; the second is looked up, as after a restart.
            held = await confirm(stand, one)
            pushed = await socket.get()
            running.context.relay.recent.forget(0)
            later = await confirm(stand, two)
            await confirm(second, private)

            assert await receipts_for(running, watcher) == [held.payload, later.payload]
            assert await receipts_for(running, watcher, f"?after={pushed[1]}") == [later.payload]
            assert await receipts_for(running, stand.sender) == [held.payload, later.payload]
            assert pushed[0] == "receipt"
            assert pushed[2:] == [held.payload, held.signature]
            assert (await socket.get())[2] == later.payload
        assert await receipts_for(running, world.active(unaudited)[0]) == []


async def test_a_receipt_for_envelopes_of_no_desk_is_refused(stand: Stand) -> None:
    """[R-14] The same for an unknown id and for what was sent to others."""
    (sealed,) = await sent(stand)
    third = stand.relay.world.create_desk("XB")
    await stand.relay.publish()
    stranger = stand.relay.world.active(third)[0]
    core = random_bytes(32)
    details = set()
    for held in (((UNKNOWN, core),), ((sealed.id, core_hash(sealed.upload.core)),)):
        receipt = Receipt(
            desk=stranger.desk,
            device=stranger.id,
            seq=stand.relay.world.directory.desk(third).seq,
            held=held,
            seen=stand.relay.context.log.newest().note_hash,
        )
        signed = sign_receipt(stranger.fast, receipt).serialize()
        answer = await stand.relay.as_device(stranger, "POST", "/v1/receipts", signed)
        details.add((answer.code, answer.problem["detail"]))

    assert len(details) == 1
    assert details.pop()[0] == "not-found"
