"""What the relay accepts and what it refuses: [R-1], [R-2], [R-6], [R-8] to [R-13]."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from comity_protocol.core import Core, Kind, Part, core_hash
from comity_protocol.encoding import serialize
from comity_protocol.envelope import Sealed, Upload, seal
from comity_protocol.identifiers import DeskId, EnvelopeId
from comity_protocol.keys import Context, random_bytes
from comity_protocol.leaves import (
    CounterProof,
    counter_blind,
    envelope_blind,
    envelope_leaf,
    receipt_hash,
)
from comity_protocol.receipts import Receipt, Signed, sign_receipt, verify_promise
from comity_protocol.statements import Policy
from comity_server.members import View
from comity_server.relay import Entry
from comity_server.relay import Relay as Pipeline
from comity_server.store import (
    Accepted,
    DirectoryMovedError,
    EnvelopeRow,
    ReceiptRow,
    StoreUnavailableError,
)
from support.relay import Relay, Stand, audited_world, relay, small_world, wait_until
from support.world import Member, core_of, lead

Codes = tuple[int, str]


def _resign(member: Member, sealed: Sealed, **changes: object) -> bytes:
    """Change a sealed envelope's core and sign it again."""
    core = replace(Core.parse(sealed.upload.core), **changes).serialize()  # type: ignore[arg-type]  # the test's own keywords
    return replace(
        sealed.upload, core=core, signature=member.fast.sign(Context.ENVELOPE, core)
    ).serialize()


async def _post(stand: Stand, data: bytes, *, by: Member | None = None) -> Codes:
    answer = await stand.relay.as_device(by or stand.sender, "POST", "/v1/envelopes", data)
    return answer.status, "" if answer.status == 200 else answer.code


async def _receive(stand: Relay, member: Member) -> list[bytes]:
    answer = await stand.as_device(member, "GET", "/v1/mailbox")
    return [item[2] for item in answer.value["items"]]


async def test_an_accepted_envelope_is_promised_by_the_relay_key(stand: Stand) -> None:
    sealed, answer = await stand.relay.send(stand.sender, stand.to)

    what = core_hash(sealed.upload.core)
    verify_promise(answer.promise, stand.relay.world.genesis.relay_key, what)
    assert await _receive(stand.relay, stand.receiver) == [sealed.upload.core]
    assert await _receive(stand.relay, stand.sender) == [sealed.upload.core]


async def test_nobody_is_told_of_a_promise_before_the_commit(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-1]"""
    store, may_commit = stand.relay.context.store, asyncio.Event()
    accept = store.accept
    reached = asyncio.Event()

    async def slow(
        envelopes: Sequence[EnvelopeRow],
        receipts: Sequence[ReceiptRow],
        *,
        statements: int,
        integrate: bool,
        erasures: int | None,
    ) -> Accepted:
        reached.set()
        await may_commit.wait()
        return await accept(
            envelopes, receipts, statements=statements, integrate=integrate, erasures=erasures
        )

    monkeypatch.setattr(store, "accept", slow)
    sending = asyncio.create_task(stand.relay.send(stand.sender, stand.to))
    async with asyncio.timeout(10):
        await reached.wait()
    await stand.relay.ask("GET", "/livez")

    assert not sending.done()
    may_commit.set()
    assert (await sending)[1].status == 200


async def test_an_envelope_whose_commit_fails_is_not_acknowledged(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-1]"""

    async def fail(*_: object, **__: object) -> Accepted:
        raise StoreUnavailableError("disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(stand.relay.context.store, "accept", fail)
        sealed, answer = await stand.relay.send(stand.sender, stand.to)

    assert (answer.status, answer.code) == (503, "busy")
    assert answer.headers["Retry-After"]
    assert (await stand.relay.post(stand.sender, sealed)).status == 200


async def test_the_same_envelope_again_gets_the_original_promise(stand: Stand) -> None:
    """[R-2]"""
    sealed, first = await stand.relay.send(stand.sender, stand.to)
    stand.relay.clock.ahead = 30
    again = await stand.relay.post(stand.sender, sealed)

    assert again.body == first.body
    assert len(await _receive(stand.relay, stand.receiver)) == 1


async def test_the_same_envelope_again_is_known_after_the_epoch_has_turned(stand: Stand) -> None:
    """[R-2] A lost answer must not make the sender seal again what is already in the log."""
    sealed, first = await stand.relay.send(stand.sender, stand.to)
    stand.relay.world.turn(stand.to)
    await stand.relay.publish()
    again = await stand.relay.post(stand.sender, sealed)

    assert again.body == first.body


async def test_another_core_under_a_known_id_is_refused(stand: Stand) -> None:
    """[R-2]"""
    taken = EnvelopeId(random_bytes(16))
    first, _ = await stand.relay.send(stand.sender, stand.to, envelope_id=taken)
    _, answer = await stand.relay.send(stand.sender, stand.to, envelope_id=taken)

    assert (answer.status, answer.code) == (409, "id-taken")
    assert await _receive(stand.relay, stand.receiver) == [first.upload.core]


async def test_two_cores_under_one_id_at_the_same_moment_leave_one(stand: Stand) -> None:
    """[R-2]"""
    taken = EnvelopeId(random_bytes(16))
    sealed = [stand.relay.seal_lead(stand.sender, stand.to, envelope_id=taken) for _ in range(6)]
    answers = await asyncio.gather(*(stand.relay.post(stand.sender, each) for each in sealed))

    assert sorted(answer.status for answer in answers) == [200] + [409] * 5
    assert len(await _receive(stand.relay, stand.receiver)) == 1


async def test_a_removed_device_sends_and_reads_nothing_more(stand: Stand) -> None:
    """[R-6]"""
    world = stand.relay.world
    sealed = stand.relay.seal_lead(stand.sender, stand.to)
    world.remove(stand.sender.desk, [stand.sender])
    await stand.relay.publish()
    asked = [
        await stand.relay.as_device(stand.sender, "GET", path)
        for path in ("/v1/mailbox", "/v1/receipts", "/v1/boxes", "/v1/statements")
    ]

    assert await _post(stand, sealed.upload.serialize()) == (403, "not-active")
    assert {(answer.status, answer.code) for answer in asked} == {(403, "not-active")}


async def test_a_removal_counts_that_comes_while_an_envelope_waits(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-6] The store refuses the older directory, and the relay checks again."""
    world, store = stand.relay.world, stand.relay.context.store
    accept = store.accept
    moved: list[int] = []

    async def after_a_removal(
        envelopes: Sequence[EnvelopeRow],
        receipts: Sequence[ReceiptRow],
        *,
        statements: int,
        integrate: bool,
        erasures: int | None,
    ) -> Accepted:
        if not moved:
            world.remove(stand.sender.desk, [stand.sender])
            _, removal = world.statements[-1]
            answer = await stand.relay.ask("POST", "/v1/statements", removal.serialize())
            assert answer.status == 200
        try:
            return await accept(
                envelopes, receipts, statements=statements, integrate=integrate, erasures=erasures
            )
        except DirectoryMovedError as error:
            moved.append(error.newest)
            raise

    monkeypatch.setattr(store, "accept", after_a_removal)
    sealed = stand.relay.seal_lead(stand.sender, stand.to)

    assert await _post(stand, sealed.upload.serialize()) == (403, "not-active")
    assert len(moved) == 1
    assert await _receive(stand.relay, stand.receiver) == []


async def test_a_removal_counts_that_comes_between_check_and_commit(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-6] The view has moved already, so that the store alone would see nothing wrong."""
    world, pipeline = stand.relay.world, stand.relay.context.relay
    check = type(pipeline)._check
    removed: list[int] = []

    async def then_remove(self: Pipeline, batch: Sequence[Entry], view: View) -> list[Entry]:
        passed = await check(self, batch, view)
        if not removed:
            world.remove(stand.sender.desk, [stand.sender])
            _, removal = world.statements[-1]
            answer = await stand.relay.ask("POST", "/v1/statements", removal.serialize())
            removed.append(answer.status)
        return passed

    monkeypatch.setattr(type(pipeline), "_check", then_remove)
    sealed = stand.relay.seal_lead(stand.sender, stand.to)

    assert await _post(stand, sealed.upload.serialize()) == (403, "not-active")
    assert removed == [200]


async def test_an_envelope_by_another_device_than_the_sender_is_refused(stand: Stand) -> None:
    """[E-1]"""
    sealed = stand.relay.seal_lead(stand.sender, stand.to)
    colleague = stand.relay.world.active(stand.sender.desk)[1]

    assert await _post(stand, sealed.upload.serialize(), by=colleague) == (
        422,
        "verification-failed",
    )
    assert await _post(stand, sealed.upload.serialize(), by=stand.receiver) == (
        422,
        "verification-failed",
    )


async def test_a_forged_or_altered_envelope_is_refused(stand: Stand) -> None:
    """[E-1] [E-2]"""
    sealed = stand.relay.seal_lead(stand.sender, stand.to)
    upload = sealed.upload
    spoiled = {
        "signature": replace(upload, signature=bytes(64)),
        "signed by another": replace(
            upload, signature=stand.receiver.fast.sign(Context.ENVELOPE, upload.core)
        ),
        "signed as a receipt": replace(
            upload, signature=stand.sender.fast.sign(Context.RECEIPT, upload.core)
        ),
        "body": replace(upload, body=upload.body[:-1] + b"x"),
        "audit part": replace(upload, audit=upload.audit + b"x"),
        "wrap": replace(upload, wraps=(upload.wraps[1], upload.wraps[0])),
        "wrap left out": replace(upload, wraps=upload.wraps[:1]),
        "wrap added": replace(upload, wraps=(*upload.wraps, bytes(72))),
    }
    codes = {name: await _post(stand, each.serialize()) for name, each in spoiled.items()}

    assert codes == dict.fromkeys(spoiled, (422, "verification-failed"))
    assert await _receive(stand.relay, stand.receiver) == []


async def test_what_cannot_be_read_is_refused(stand: Stand) -> None:
    """[R-12]"""
    sealed = stand.relay.seal_lead(stand.sender, stand.to)
    data = sealed.upload.serialize()
    unreadable = [b"\xf6", data[:-1], data + b"\x00", b"\x85" + b"\x40" * 5, serialize([1, 2])]
    codes = [await _post(stand, each) for each in unreadable]

    assert set(codes) == {(422, "malformed")}


async def test_an_envelope_sealed_to_an_old_epoch_is_told_the_newest(stand: Stand) -> None:
    """[R-8]"""
    sealed = stand.relay.seal_lead(stand.sender, stand.to)
    stand.relay.world.turn(stand.to)
    await stand.relay.publish()
    answer = await stand.relay.post(stand.sender, sealed)

    assert (answer.status, answer.code) == (409, "stale-epoch")
    assert answer.problem["desks"] == [{"desk": stand.to.hex(), "epoch": 2}]
    assert (await stand.relay.send(stand.sender, stand.to))[1].status == 200


async def test_an_envelope_sealed_to_an_epoch_to_come_is_refused(stand: Stand) -> None:
    """[R-8]"""
    sealed = stand.relay.seal_lead(stand.sender, stand.to)
    to = tuple(
        replace(entry, epoch=7) if entry.desk == stand.to else entry
        for entry in Core.parse(sealed.upload.core).to
    )

    assert await _post(stand, _resign(stand.sender, sealed, to=to)) == (409, "stale-epoch")


async def test_an_envelope_to_a_desk_that_nobody_admitted_is_refused(stand: Stand) -> None:
    sealed = stand.relay.seal_lead(stand.sender, stand.to)
    to = sorted(
        (
            replace(entry, desk=DeskId(b"\xff" * 16)) if entry.desk == stand.to else entry
            for entry in Core.parse(sealed.upload.core).to
        ),
        key=lambda entry: entry.desk,
    )
    wraps = tuple(
        wrap for _, wrap in sorted(zip(_desks(sealed, stand.to), sealed.upload.wraps, strict=True))
    )
    sealed = replace(sealed, upload=replace(sealed.upload, wraps=wraps))

    assert await _post(stand, _resign(stand.sender, sealed, to=tuple(to))) == (422, "unknown-desk")


def _desks(sealed: Sealed, renamed: DeskId) -> list[bytes]:
    to = Core.parse(sealed.upload.core).to
    return [b"\xff" * 16 if entry.desk == renamed else entry.desk for entry in to]


async def test_the_auditors_of_both_desks_are_demanded(tmp_path: Path) -> None:
    """[R-9]"""
    world, sender_desk, receiver_desk, auditor = audited_world()
    sender = world.active(sender_desk)[0]
    async with relay(tmp_path, world) as running:
        await running.publish()
        complete, accepted = await running.send(sender, receiver_desk)
        act = lead()
        without = seal(
            body=act.serialize(),
            audit=b"",
            to=[
                entry
                for entry in world.addresses(sender, receiver_desk, Kind.LEAD)
                if entry.desk != auditor
            ],
            sender=world.sender(sender),
            seen=running.context.log.newest().note_hash,
            envelope_id=EnvelopeId(random_bytes(16)),
        )
        refused = await running.post(sender, without)
        seen_by_auditor = await running.as_device(world.active(auditor)[0], "GET", "/v1/mailbox")

        assert accepted.status == 200
        assert (refused.status, refused.code) == (403, "auditor-missing")
        assert refused.problem["desks"] == [{"desk": auditor.hex()}]
        (item,) = seen_by_auditor.value["items"]
        assert item[2] == complete.upload.core
        assert item[4] is None, "an auditor was given the body"
        assert item[5] == complete.upload.audit


async def test_auditors_are_demanded_for_each_key_kind_apart(tmp_path: Path) -> None:
    """[R-9] The counterpart demands an auditor for files only, so a lead needs none."""
    world, sender_desk, receiver_desk, auditor = audited_world()
    world.set_policy(sender_desk, Policy())
    world.set_policy(receiver_desk, Policy(auditors_file=(auditor,)))
    sender = world.active(sender_desk)[0]
    async with relay(tmp_path, world) as running:
        await running.publish()
        parts: dict[Kind, int] = {}
        for kind in (Kind.LEAD, Kind.FILE):
            addresses = world.addresses(sender, receiver_desk, kind)
            sealed = seal(
                body=b"",
                audit=b"",
                to=[entry for entry in addresses if entry.desk != auditor],
                sender=world.sender(sender),
                seen=running.context.log.newest().note_hash,
                envelope_id=EnvelopeId(random_bytes(16)),
            )
            parts[kind] = (await running.post(sender, sealed)).status

        assert parts == {Kind.LEAD: 200, Kind.FILE: 403}


async def test_a_checkpoint_that_the_relay_never_published_is_refused(stand: Stand) -> None:
    """[R-10]"""
    _, answer = await stand.relay.send(stand.sender, stand.to, seen=bytes(32))

    assert (answer.status, answer.code) == (409, "unknown-checkpoint")


async def test_an_earlier_published_checkpoint_is_good(stand: Stand) -> None:
    """[R-10]"""
    early = stand.relay.context.log.newest().note_hash
    await stand.relay.send(stand.sender, stand.to)
    await stand.relay.seal()
    _, answer = await stand.relay.send(stand.sender, stand.to, seen=early)

    assert stand.relay.context.log.newest().note_hash != early
    assert answer.status == 200


async def test_an_envelope_may_refer_to_wraps_that_the_relay_holds(stand: Stand) -> None:
    """[R-11]"""
    first, _ = await stand.relay.send(stand.sender, stand.to)
    second, answer = await stand.relay.send(stand.sender, stand.to, thread=first.thread)
    items = (await stand.relay.as_device(stand.receiver, "GET", "/v1/mailbox")).value["items"]
    wrap = await stand.relay.as_device(stand.receiver, "GET", f"/v1/wraps/{second.id.hex()}")

    assert Core.parse(second.upload.core).ref == first.id
    assert answer.status == 200
    assert items[1][6] is None
    assert wrap.body == serialize(items[0][6])


async def test_a_reference_to_what_the_relay_does_not_hold_is_refused(stand: Stand) -> None:
    """[R-11] Nothing there, another desk's envelope, a reference itself: one answer."""
    first, _ = await stand.relay.send(stand.sender, stand.to)
    unsent = stand.relay.seal_lead(stand.sender, stand.to)
    reply, _ = await stand.relay.send(stand.receiver, stand.sender.desk)
    second, _ = await stand.relay.send(stand.sender, stand.to, thread=first.thread)
    again = stand.relay.seal_lead(stand.sender, stand.to, thread=first.thread)
    codes = {
        name: await _post(stand, _resign(stand.sender, again, ref=ref))
        for name, ref in {
            "unsent": unsent.id,
            "another desk's": reply.id,
            "a reference": second.id,
            "itself": again.id,
        }.items()
    }

    assert codes == dict.fromkeys(codes, (409, "unknown-reference"))


async def test_a_reference_for_other_recipients_is_refused(tmp_path: Path) -> None:
    """[R-11]"""
    world, one, other = small_world()
    third = world.create_desk("XB")
    sender = world.active(one)[0]
    async with relay(tmp_path, world) as running:
        await running.publish()
        first, _ = await running.send(sender, other)
        elsewhere = running.seal_lead(sender, third)
        core = Core.parse(elsewhere.upload.core)
        bare = tuple(entry.without_wrap() for entry in core.to)
        data = _resign(
            sender,
            replace(elsewhere, upload=replace(elsewhere.upload, wraps=())),
            ref=first.id,
            to=bare,
        )
        answer = await running.as_device(sender, "POST", "/v1/envelopes", data)

        assert (answer.status, answer.code) == (409, "unknown-reference")


async def test_a_reference_is_refused_once_an_epoch_has_turned(stand: Stand) -> None:
    """[R-11] [R-8]"""
    first, _ = await stand.relay.send(stand.sender, stand.to)
    again = stand.relay.seal_lead(stand.sender, stand.to, thread=first.thread)
    stand.relay.world.turn(stand.to)
    await stand.relay.publish()
    to = tuple(
        replace(entry, epoch=2) if entry.desk == stand.to else entry
        for entry in Core.parse(again.upload.core).to
    )

    assert await _post(stand, again.upload.serialize()) == (409, "stale-epoch")
    assert await _post(stand, _resign(stand.sender, again, to=to)) == (409, "unknown-reference")


async def test_attachments_that_are_not_here_are_refused(stand: Stand) -> None:
    sealed = stand.relay.seal_lead(stand.sender, stand.to)
    data = _resign(stand.sender, sealed, blobs=(random_bytes(16),))

    assert await _post(stand, data) == (409, "unknown-blob")


async def test_a_noisy_desk_uses_up_its_own_quota_only(tmp_path: Path) -> None:
    """[R-13]"""
    world, one, other = small_world()
    noisy, quiet = world.active(one)[0], world.active(other)[0]
    async with relay(
        tmp_path, world, desk_envelopes_burst=3, desk_envelopes_per_second=0.5
    ) as running:
        await running.publish()
        answers = [(await running.send(noisy, other))[1] for _ in range(4)]
        honest = (await running.send(quiet, one))[1]
        running.clock.ahead = 3
        later = (await running.send(noisy, other))[1]

        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert answers[3].code == "quota"
        assert 1 <= int(answers[3].headers["Retry-After"]) <= 2
        assert honest.status == 200
        assert later.status == 200


async def test_a_desk_has_a_quota_of_bytes(tmp_path: Path) -> None:
    """[R-13]"""
    world, one, other = small_world()
    sender = world.active(one)[0]
    async with relay(tmp_path, world, desk_bytes_burst=5_000, desk_bytes_per_second=10) as running:
        await running.publish()
        answers = [(await running.send(sender, other))[1] for _ in range(4)]

        assert answers[0].status == 200
        assert answers[-1].code == "quota"


async def test_a_full_queue_says_so_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-15]"""
    world, one, other = small_world()
    sender = world.active(one)[0]
    async with relay(tmp_path, world, queue_entries=2) as running:
        await running.publish()
        store, may_commit = running.context.store, asyncio.Event()
        accept = store.accept

        async def slow(
            envelopes: Sequence[EnvelopeRow],
            receipts: Sequence[ReceiptRow],
            *,
            statements: int,
            integrate: bool,
            erasures: int | None,
        ) -> Accepted:
            await may_commit.wait()
            return await accept(
                envelopes, receipts, statements=statements, integrate=integrate, erasures=erasures
            )

        monkeypatch.setattr(store, "accept", slow)
        held = [asyncio.create_task(running.send(sender, other)) for _ in range(2)]
        await wait_until(lambda: b"comity_queue_entries 2.0" in running.context.metrics.text())
        sealed, refused = await running.send(sender, other)
        may_commit.set()
        answers = [answer for _, answer in await asyncio.gather(*held)]

        assert (refused.status, refused.code) == (503, "busy")
        assert refused.headers["Retry-After"] == "1"
        assert [answer.status for answer in answers] == [200, 200]
        assert (await running.post(sender, sealed)).status == 200


async def test_what_arrives_together_is_committed_together(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, batches = stand.relay.context.store, []
    accept = store.accept

    async def count(
        envelopes: Sequence[EnvelopeRow],
        receipts: Sequence[ReceiptRow],
        *,
        statements: int,
        integrate: bool,
        erasures: int | None,
    ) -> Accepted:
        batches.append(len(envelopes))
        return await accept(
            envelopes, receipts, statements=statements, integrate=integrate, erasures=erasures
        )

    monkeypatch.setattr(store, "accept", count)
    async with stand.relay.socket(stand.sender) as socket:
        for number in range(16):
            upload = stand.relay.seal_lead(stand.sender, stand.to).upload
            await socket.put("send", number, upload.serialize())
        answers = [await socket.get() for _ in range(16)]

    assert {answer[0] for answer in answers} == {"accepted"}
    assert sum(batches) == 16
    assert len(batches) < 16


def _receipt(stand: Stand, member: Member, ids: Sequence[bytes], **changes: object) -> Signed:
    receipt = Receipt(
        desk=member.desk,
        device=member.id,
        seq=stand.relay.world.directory.desk(member.desk).seq,
        held=tuple((EnvelopeId(id_), bytes(32)) for id_ in sorted(ids)),
        seen=stand.relay.context.log.newest().note_hash,
    )
    return sign_receipt(member.fast, replace(receipt, **changes))  # type: ignore[arg-type]  # the test's own keywords


async def _confirm(stand: Stand, member: Member, signed: Signed) -> Codes:
    answer = await stand.relay.as_device(member, "POST", "/v1/receipts", signed.serialize())
    return answer.status, "" if answer.status == 200 else answer.code


async def test_a_receipt_reaches_the_sender(stand: Stand) -> None:
    """[Q-1]"""
    sealed, _ = await stand.relay.send(stand.sender, stand.to)
    signed = _receipt(stand, stand.receiver, [sealed.id])
    answer = await stand.relay.as_device(stand.receiver, "POST", "/v1/receipts", signed.serialize())
    items = (await stand.relay.as_device(stand.sender, "GET", "/v1/receipts")).value["items"]
    mine = (await stand.relay.as_device(stand.receiver, "GET", "/v1/receipts")).value["items"]

    what = receipt_hash(signed.payload)
    verify_promise(answer.promise, stand.relay.world.genesis.relay_key, what)
    assert [item[1:] for item in items] == [[signed.payload, signed.signature]]
    assert mine == []
    assert (await _confirm(stand, stand.receiver, signed))[0] == 200


async def test_a_receipt_for_what_is_not_ones_own_is_refused_in_one_way(stand: Stand) -> None:
    """[R-14]"""
    sealed, _ = await stand.relay.send(stand.sender, stand.to)
    back, _ = await stand.relay.send(stand.receiver, stand.sender.desk)
    unsent = random_bytes(16)
    third = stand.relay.world.create_desk("XA")
    await stand.relay.publish()
    stranger = stand.relay.world.active(third)[0]
    refused: dict[str, tuple[Member, list[bytes]]] = {
        "not there": (stand.receiver, [unsent]),
        "another desk's": (stranger, [sealed.id]),
        "one of two": (stand.receiver, [sealed.id, unsent]),
        "of two senders": (stand.receiver, [sealed.id, back.id]),
    }
    codes = {
        name: await _confirm(stand, member, _receipt(stand, member, ids))
        for name, (member, ids) in refused.items()
    }

    assert codes == dict.fromkeys(refused, (404, "not-found"))


async def test_a_forged_receipt_is_refused(stand: Stand) -> None:
    """[Q-1]"""
    sealed, _ = await stand.relay.send(stand.sender, stand.to)
    signed = _receipt(stand, stand.receiver, [sealed.id])
    colleague = stand.relay.world.active(stand.to)[1]
    other_desk = _receipt(stand, stand.receiver, [sealed.id], desk=stand.sender.desk)

    forged = replace(signed, signature=bytes(64))
    assert await _confirm(stand, stand.receiver, forged) == (422, "verification-failed")
    assert await _confirm(stand, colleague, signed) == (422, "verification-failed")
    assert await _confirm(stand, stand.receiver, other_desk) == (422, "verification-failed")


async def test_where_an_envelope_stands_is_told_to_those_whom_it_concerns(stand: Stand) -> None:
    """[R-14] The answer to a third desk is that to an envelope that is not there."""
    sealed, answer = await stand.relay.send(stand.sender, stand.to)
    third = stand.relay.world.create_desk("XB")
    await stand.relay.publish()
    stranger = stand.relay.world.active(third)[0]
    path = f"/v1/envelopes/{sealed.id.hex()}"
    wraps = f"/v1/wraps/{sealed.id.hex()}"
    by_sender = await stand.relay.as_device(stand.sender, "GET", path)
    by_receiver = await stand.relay.as_device(stand.receiver, "GET", path)
    refused = [
        await stand.relay.as_device(stranger, "GET", path),
        await stand.relay.as_device(stranger, "GET", f"/v1/envelopes/{random_bytes(16).hex()}"),
        await stand.relay.as_device(stranger, "GET", wraps),
        await stand.relay.as_device(stranger, "GET", f"/v1/wraps/{random_bytes(16).hex()}"),
        await stand.relay.as_device(stranger, "GET", "/v1/wraps/nothing"),
    ]

    for name in ("promise", "index", "counter"):
        assert by_sender.value[name] == by_receiver.value[name]
    assert by_sender.value["promise"] == [answer.promise.payload, answer.promise.signature]
    assert by_sender.value["index"] == stand.relay.context.relay.size - 4 - 1
    assert by_sender.value["counter"] == 1
    assert by_sender.value["proof"] != by_receiver.value["proof"]
    assert len({str(each.problem | {"trace_id": ""}) for each in refused}) == 1


async def test_nobody_is_told_how_much_mail_another_desk_gets(tmp_path: Path) -> None:
    """[L-7] Not in a page, not over the socket, and not of one envelope."""
    world, sender, receiver, auditor = audited_world()
    members = {id_: world.active(id_)[0] for id_ in (sender, receiver, auditor)}
    async with relay(tmp_path, world) as running:
        await running.publish()
        for _ in range(3):
            await running.send(members[receiver], sender)
        async with running.socket(members[auditor]) as socket:
            await socket.put("follow", 3)
            sealed, _ = await running.send(members[sender], receiver)
            pushed = await socket.get()
        third = world.create_desk("XB", policy=world.directory.desks[receiver].policy)
        await running.publish()
        skewed, _ = await running.send(members[sender], third)
        path = f"/v1/envelopes/{skewed.id.hex()}"
        places = {
            id_: (await running.as_device(members[id_], "GET", path)).value
            for id_ in (sender, auditor)
        }
        (stored,) = (await running.as_device(world.active(third)[0], "GET", "/v1/mailbox")).value[
            "items"
        ]

    assert (pushed[0], pushed[1], len(pushed)) == ("item", 4, 9)
    assert {id_: place["counter"] for id_, place in places.items()} == {sender: 5, auditor: 5}
    assert stored[0] == 1
    leaves = {
        envelope_leaf(
            core_hash(skewed.upload.core),
            CounterProof.of(proof).commitments(_place(skewed, id_), id_, counter),
        )
        for id_, counter, proof in (
            (third, stored[0], stored[7]),
            *((id_, place["counter"], place["proof"]) for id_, place in places.items()),
        )
    }
    assert len(leaves) == 1
    # [L-7] Blinds that only the relay can derive, and hashes, are all there is beside the counter.
    # They follow from its key, so that a relay that lost its database makes the same entry again.
    blind = envelope_blind(world.relay_key, skewed.id)
    assert stored[7][0] == counter_blind(blind, third)
    assert {id_: place["proof"][0] for id_, place in places.items()} == {
        id_: counter_blind(blind, id_) for id_ in (sender, auditor)
    }
    for proof in (pushed[8], stored[7], *(place["proof"] for place in places.values())):
        assert [len(proof[0]), *map(len, proof[1])] == [12, 32, 32]
    assert core_of(sealed).recipient(auditor) is not None


def _place(sealed: Sealed, desk: DeskId) -> int:
    return [entry.desk for entry in core_of(sealed).to].index(desk)


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(stand: Stand) -> None:
    """[R-15]"""
    answer = await stand.relay.as_device(stand.sender, "POST", "/v1/envelopes", bytes(300_000))

    assert (answer.status, answer.code) == (413, "too-large")


async def test_an_envelope_of_the_largest_size_passes(stand: Stand) -> None:
    sealed = stand.relay.seal_lead(stand.sender, stand.to)
    body = random_bytes(262_144)
    sealed = replace(sealed, upload=replace(sealed.upload, body=body))

    assert await _post(stand, _resign(stand.sender, sealed, body=Part.of(body))) == (200, "")
    assert Upload.parse(_resign(stand.sender, sealed, body=Part.of(body))).body == body
