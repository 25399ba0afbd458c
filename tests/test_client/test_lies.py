"""A relay or a sender that lies is found out: nothing false is shown, and evidence is kept."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from nacl.signing import SigningKey

from comity_client.envelopes import Stage
from comity_client.gossip import Hearsay
from comity_client.inbox import AGAIN_TIMES_MAX
from comity_client.relay_answers import Arrived, Boxes, ReceiptItem, StatementPage
from comity_client.sync import LogForkError
from comity_client.tiles import UnprovenError
from comity_protocol.acts import Act, Body, Gossip
from comity_protocol.audit import AuditRecord, project
from comity_protocol.checkpoint import Checkpoint, add_signatures, cosign, sign_checkpoint
from comity_protocol.core import Kind, core_hash
from comity_protocol.envelope import Sealed, Upload, seal
from comity_protocol.errors import VerificationError
from comity_protocol.evidence import verify_evidence
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.keys import FastKey, random_bytes
from comity_protocol.leaves import CounterProof, envelope_leaf, places_of, receipt_leaf
from comity_protocol.merkle import Frontier
from comity_protocol.receipts import Promise, Receipt, Signed, sign_promise, sign_receipt
from comity_protocol.signed_note import parse_note
from support.desks import LEAD
from support.world import lead, request
from test_client.conftest import Pair

Change = Callable[[Arrived], Arrived]


def flip(data: bytes | None) -> bytes:
    """Alter one bit in the middle."""
    assert data
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def blinded_anew(proof: CounterProof) -> CounterProof:
    return CounterProof(flip(proof.blind), proof.others)


def moved(proof: CounterProof) -> CounterProof:
    """Give the other desk another counter."""
    return CounterProof(proof.blind, tuple(flip(other) for other in proof.others))


def proven(proof: CounterProof, others: int) -> CounterProof:
    """Name another number of recipients."""
    return CounterProof(proof.blind, proof.others * others)


TAMPERED: dict[str, tuple[Change, str]] = {
    "signature": (
        lambda item: replace(item, signature=flip(item.signature)),
        "verification-failed",
    ),
    "core": (lambda item: replace(item, core=flip(item.core)), "verification-failed"),
    "body": (lambda item: replace(item, body=flip(item.body)), "E-2"),
    "no body": (lambda item: replace(item, body=None), "E-2"),
    "audit part": (lambda item: replace(item, audit=flip(item.audit)), "E-2"),
    "wrap": (lambda item: replace(item, wrap=flip(item.wrap)), "E-2"),
    "no wrap": (lambda item: replace(item, wrap=None), "E-2"),
    "place": (lambda item: replace(item, leaf_index=item.leaf_index - 1), "L-2"),
    "own blind": (lambda item: replace(item, proof=blinded_anew(item.proof)), "L-2"),
    "another's counter": (lambda item: replace(item, proof=moved(item.proof)), "L-2"),
    "fewer commitments": (lambda item: replace(item, proof=proven(item.proof, 0)), "L-7"),
    "more commitments": (lambda item: replace(item, proof=proven(item.proof, 2)), "L-7"),
}
"""What a relay may alter in an envelope, and the rule by which it is found."""


@pytest.mark.parametrize("tampered", list(TAMPERED))
async def test_a_tampered_envelope_is_kept_refused_and_does_not_block_the_next(
    pair: Pair, tampered: str
) -> None:
    # [B-1] [E-1] [E-2] [L-2]
    change, rule = TAMPERED[tampered]
    pair.alice.desk.lead(pair.bob.id, LEAD)
    good = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    pair.bob.relay.on_mailbox = lambda page: [change(item) for item in page[:1]] + page[1:]
    await pair.bob.desk.fetch()

    bad, fine = pair.bob.desk.inbox()
    assert bad.refused == rule
    assert bad.event is None
    assert (fine.envelope, fine.refused) == (good, None)
    assert len(pair.bob.desk.exchanges()) == 1


FALSE_ENTRIES: dict[str, Callable[[bytes, Sequence[bytes]], bytes]] = {
    "another tag": lambda core_hash, hidden: envelope_leaf(flip(core_hash), hidden),
    "the bare core hash": lambda core_hash, hidden: b"\0" + core_hash + places_of(hidden),
    "no core hash": lambda _, hidden: b"\0" + bytes(32) + places_of(hidden),
    "other places": lambda core_hash, hidden: envelope_leaf(core_hash, hidden[::-1]),
    "halves swapped": lambda core_hash, hidden: (
        b"\0" + envelope_leaf(core_hash, hidden)[33:] + envelope_leaf(core_hash, hidden)[1:33]
    ),
    "as a receipt": lambda core_hash, _: receipt_leaf(core_hash),
}
"""What a relay may log in the place of an envelope."""


@pytest.mark.parametrize("entry", list(FALSE_ENTRIES))
async def test_an_envelope_that_is_logged_as_something_else_is_refused(
    pair: Pair, entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # [L-8] [B-1] [L-2]: nobody could show later whether it was ever in the log.
    with monkeypatch.context() as lie:
        lie.setattr("comity_server.store_growth.envelope_leaf", FALSE_ENTRIES[entry])
        pair.alice.desk.lead(pair.bob.id, LEAD)
        await pair.alice.desk.flush()
    good = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.bob.desk.fetch()

    bad, fine = pair.bob.desk.inbox()
    assert bad.refused == "L-2"
    assert (fine.envelope, fine.refused) == (good, None)


async def test_an_envelope_that_is_not_in_the_log_is_not_shown(pair: Pair) -> None:
    # [B-1] [B-5]
    sealed = pair.relay.seal_lead(pair.alice.member, pair.bob.id)
    forged = Arrived(
        counter=1,
        leaf_index=pair.relay.context.log.size + 5,
        core=sealed.upload.core,
        signature=sealed.upload.signature,
        body=sealed.upload.body,
        audit=sealed.upload.audit,
        wrap=sealed.upload.wraps[0],
        proof=CounterProof(bytes(12), (bytes(32),)),
    )
    pair.bob.relay.on_mailbox = lambda page: page or [forged]
    await pair.bob.desk.fetch()

    assert pair.bob.desk.inbox() == ()


async def test_an_envelope_in_place_of_another_is_refused(pair: Pair) -> None:
    # [B-1] [L-2]
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    sealed = pair.relay.seal_lead(pair.alice.member, pair.bob.id)
    wraps = dict(zip(sorted([pair.alice.id, pair.bob.id]), sealed.upload.wraps, strict=True))
    upload = sealed.upload
    pair.bob.relay.on_mailbox = lambda page: [
        replace(
            item,
            core=upload.core,
            signature=upload.signature,
            body=upload.body,
            audit=upload.audit,
            wrap=wraps[pair.bob.id],
        )
        for item in page
    ]
    await pair.bob.desk.fetch()

    assert [line.refused for line in pair.bob.desk.inbox()] == ["L-2"]


async def test_a_relay_that_cannot_prove_its_log_shows_nothing(pair: Pair) -> None:
    # [B-1] [B-6]
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.bob.desk.sync()
    await pair.relay.seal()
    pair.bob.relay.on_tile = lambda hashes: tuple(flip(hash_) for hash_ in hashes)
    with pytest.raises((LogForkError, UnprovenError)):
        await pair.bob.desk.fetch()
    assert pair.bob.desk.inbox() == ()
    # [B-17] Tiles that prove nothing accuse nobody of a fork.
    assert [alarm.kind for alarm in pair.bob.desk.alarms()] == ["unproven"]
    pair.bob.relay.on_tile = lambda hashes: hashes
    await pair.bob.desk.fetch()

    assert [line.refused for line in pair.bob.desk.inbox()] == [None]


async def test_a_left_out_envelope_is_an_alarm(pair: Pair) -> None:
    # [B-2]
    for _ in range(3):
        pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    pair.bob.relay.on_mailbox = lambda page: [item for item in page if item.counter != 2]
    await pair.bob.desk.fetch()

    assert [line.counter for line in pair.bob.desk.inbox()] == [1, 3]
    assert [(alarm.kind, alarm.text) for alarm in pair.bob.desk.alarms()] == [
        ("gap", "relay left out counter 2 before 3")
    ]


async def test_a_repeated_counter_is_an_alarm_and_has_no_effect(pair: Pair) -> None:
    # [B-2]
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    pair.bob.relay.on_mailbox = lambda page: [*page, *page]
    await pair.bob.desk.fetch()

    assert [line.counter for line in pair.bob.desk.inbox()] == [1]
    assert [alarm.kind for alarm in pair.bob.desk.alarms()] == ["repeat"]


async def test_an_envelope_at_another_counter_than_the_log_s_is_refused(pair: Pair) -> None:
    # [R-3] [L-2]
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    pair.bob.relay.on_mailbox = lambda page: [*page, *(replace(one, counter=2) for one in page)]
    await pair.bob.desk.fetch()

    assert [line.refused for line in pair.bob.desk.inbox()] == [None, "L-2"]
    assert len(pair.bob.desk.exchanges()) == 1


async def test_an_envelope_twice_in_the_mailbox_has_one_effect(pair: Pair) -> None:
    # [B-2] Also when the relay puts it into its log a second time.
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    store = pair.relay.context.store
    row = await store.envelope(envelope)
    assert row is not None
    again = replace(row, id=random_bytes(16), leaf_index=None, counters=None)
    statements = (await store.head()).statements
    await store.accept([again], [], statements=statements, integrate=True)
    pair.relay.context.relay.grown.set()
    await pair.relay.context.relay.poll()
    await pair.relay.seal()
    await pair.bob.desk.fetch()

    assert [line.refused for line in pair.bob.desk.inbox()] == [None, "B-2"]
    assert [alarm.kind for alarm in pair.bob.desk.alarms()] == ["repeat"]
    assert len(pair.bob.desk.exchanges()) == 1


async def test_a_promise_by_another_key_is_no_promise(pair: Pair) -> None:
    # [B-5]
    forger = FastKey.generate()
    pair.alice.relay.after_post = lambda signed: sign_promise(forger, Promise(what=bytes(32), at=0))
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    with pytest.raises(VerificationError):
        await pair.alice.desk.flush()

    assert pair.alice.desk.status(envelope).stage is Stage.QUEUED


async def test_a_broken_promise_is_reported_with_its_evidence(pair: Pair) -> None:
    # [B-5]
    def swallow(upload: bytes) -> Signed:
        core = envelope_core(upload)
        at = int(pair.relay.clock()) - 3600
        return sign_promise(pair.world.relay_key, Promise(core_hash(core), at))

    pair.alice.relay.on_post = swallow
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.alice.desk.fetch()

    status = pair.alice.desk.status(envelope)
    assert (status.stage, status.is_broken) == (Stage.ACCEPTED, True)
    (alarm,) = pair.alice.desk.alarms()
    assert alarm.kind == "broken-promise"
    # [V-2] A stranger with the log's entries is convinced.
    entries = await pair.relay.context.store.leaves(0, 4096)
    assert "none of the" in verify_evidence(alarm.evidence, pair.world.genesis, entries)


async def test_an_older_checkpoint_is_refused_and_kept(pair: Pair) -> None:
    # [B-6]
    old = await pair.bob.relay.statements(0)
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.relay.seal()
    newest = await pair.bob.desk.sync()
    pair.bob.relay.on_statements = lambda page: StatementPage(old.note, page.items)
    with pytest.raises(LogForkError, match="older checkpoint"):
        await pair.bob.desk.sync()

    assert pair.bob.desk.newest == newest
    (alarm,) = pair.bob.desk.alarms()
    assert alarm.kind == "rollback"
    assert old.note in alarm.evidence


@pytest.mark.parametrize("growth", [0, 3])
async def test_a_fork_with_everyones_signature_is_refused_and_kept(pair: Pair, growth: int) -> None:
    # [B-6] [B-17] [V-1]
    newest = await pair.bob.desk.sync()
    hashes = tuple(random_bytes(32) for _ in range(newest.size + growth))
    note = witnessed(pair, len(hashes), Frontier().extend(hashes).root)
    pair.bob.relay.on_statements = lambda page: StatementPage(note, page.items)
    pair.bob.relay.instead_of_tile = lambda width: hashes[:width]
    with pytest.raises(LogForkError):
        await pair.bob.desk.sync()

    assert pair.bob.desk.newest == newest
    (alarm,) = pair.bob.desk.alarms()
    assert alarm.kind == "fork"
    assert "both were cosigned by" in verify_evidence(alarm.evidence, pair.world.genesis)


async def test_a_head_that_its_tiles_do_not_lead_to_is_refused_and_no_fork(pair: Pair) -> None:
    # [B-6] [B-17]
    newest = await pair.bob.desk.sync()
    note = witnessed(pair, newest.size + 3, random_bytes(32))
    pair.bob.relay.on_statements = lambda page: StatementPage(note, page.items)
    pair.bob.relay.instead_of_tile = lambda width: (bytes(32),) * width
    with pytest.raises(UnprovenError):
        await pair.bob.desk.sync()

    assert pair.bob.desk.newest == newest
    assert [alarm.kind for alarm in pair.bob.desk.alarms()] == ["unproven"]


async def test_a_checkpoint_without_its_quorum_is_not_believed(pair: Pair) -> None:
    # [B-5] [L-3]
    note = sign_checkpoint(
        origin=pair.world.genesis.origin, size=99, root=bytes(32), key=pair.world.log_key
    )
    pair.bob.relay.on_statements = lambda page: StatementPage(note, page.items)
    with pytest.raises(VerificationError, match="0 cosignatures"):
        await pair.bob.desk.sync()


async def test_a_left_out_statement_is_found(pair: Pair) -> None:
    pair.world.turn(pair.alice.id)
    pair.world.turn(pair.bob.id)
    await pair.relay.publish()
    pair.bob.relay.on_statements = lambda page: StatementPage(page.note, page.items[1:])
    with pytest.raises(VerificationError, match="leaves one out"):
        await pair.bob.desk.sync()


async def test_a_forged_receipt_proves_nothing(pair: Pair) -> None:
    # [B-7]
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.alice.desk.fetch()
    index = pair.alice.desk.status(envelope).leaf_index
    assert index is not None
    receipt = Receipt(pair.bob.id, pair.bob.member.id, 1, ((envelope, bytes(32)),), bytes(32))
    forged = ReceiptItem(index, sign_receipt(FastKey.generate(), receipt))
    pair.alice.relay.on_receipts = lambda page: page or [forged]
    await pair.alice.desk.fetch()

    assert pair.alice.desk.status(envelope).stage is Stage.SEALED
    assert [alarm.kind for alarm in pair.alice.desk.alarms()] == ["receipt"]


async def test_a_box_with_other_keys_is_an_alarm(pair: Pair) -> None:
    # [B-8] [S-13]
    other = pair.world.prepare_epoch(pair.bob.id)
    pair.world.turn(pair.bob.id)
    await pair.relay.publish()
    box = dict(other.boxes)[pair.bob.member.id]
    pair.bob.relay.on_boxes = lambda boxes: Boxes({**boxes.own, 2: box}, boxes.previous)
    await pair.bob.desk.sync()

    assert [alarm.kind for alarm in pair.bob.desk.alarms()] == ["box"]


async def test_gossip_of_another_past_convicts_the_log(pair: Pair) -> None:
    # [B-1] [B-6] [B-17]
    await send(pair, lead(), gossip=forked(pair, pair.world.log_key))
    await pair.bob.desk.fetch()

    (alarm,) = pair.bob.desk.alarms()
    assert alarm.kind == "fork"
    assert [line.refused for line in pair.bob.desk.inbox()] == [None]
    # [V-1] A stranger is convinced.
    assert "exclude each other" in verify_evidence(alarm.evidence, pair.world.genesis)


async def test_tiles_that_prove_nothing_while_gossip_is_compared_accuse_nobody(pair: Pair) -> None:
    # [B-17] The log is honest; a relay, or a fault, serves other tiles for a moment.
    early = await pair.bob.desk.sync()
    await send(pair, lead())
    await pair.relay.seal()
    await pair.bob.desk.fetch()
    await pair.reopen(pair.bob)
    desk, genesis = pair.bob.desk, pair.world.genesis
    line = parse_note(early.note).line_by(genesis.log)
    assert line is not None
    hearsay = Hearsay(desk.state, desk.log, lambda: 0)
    hearsay.hear(Gossip(early.size, early.root, line.signature), genesis)
    pair.bob.relay.on_tile = lambda hashes: tuple(flip(hash_) for hash_ in hashes)
    with pytest.raises(UnprovenError):
        await desk.fetch()
    pair.bob.relay.on_tile = lambda hashes: hashes
    await desk.fetch()

    assert [alarm.kind for alarm in desk.alarms()] == ["unproven"]
    waiting = "SELECT count(*) FROM gossip WHERE is_checked = 0"
    assert desk.state.connection.execute(waiting).fetchone() == (0,)


async def test_what_was_refused_as_the_relay_served_it_is_fetched_again(pair: Pair) -> None:
    # [B-1] A relay that spoils one answer does not take the envelope away.
    first = pair.alice.desk.lead(pair.bob.id, LEAD)
    second = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.relay.seal()
    spoil = TAMPERED["core"][0]
    pair.bob.relay.on_mailbox = lambda page: [
        spoil(item) if item.counter == 1 else item for item in page
    ]
    await pair.bob.desk.fetch()
    assert [line.envelope for line in pair.bob.desk.inbox()] == [None, second]
    pair.bob.relay.on_mailbox = lambda page: page
    await pair.bob.desk.fetch()

    assert [(line.envelope, line.refused) for line in pair.bob.desk.inbox()] == [
        (first, None),
        (second, None),
    ]


async def test_what_stays_refused_is_not_fetched_for_ever(pair: Pair) -> None:
    # [B-11]
    pair.alice.desk.lead(pair.bob.id, LEAD)
    pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    asked: list[int] = []

    def spoil(page: list[Arrived]) -> list[Arrived]:
        asked.extend(item.counter for item in page if item.counter == 1)
        return [TAMPERED["core"][0](item) if item.counter == 1 else item for item in page]

    pair.bob.relay.on_mailbox = spoil
    await pair.relay.seal()
    for _ in range(AGAIN_TIMES_MAX + 4):
        await pair.bob.desk.fetch()

    assert len(asked) == 1 + AGAIN_TIMES_MAX


async def test_inventions_do_not_fill_the_disk(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    # [B-11] What came is checked before more than a bound is fetched.
    monkeypatch.setattr("comity_client.mail.UNCHECKED_BYTES_MAX", 10_000)
    asked: list[int] = []

    def invent(_: list[Arrived]) -> list[Arrived]:
        asked.append(len(asked))
        sealed = pair.relay.seal_lead(pair.alice.member, pair.bob.id)
        upload = sealed.upload
        return [
            Arrived(
                counter=10 * len(asked) + number,
                leaf_index=pair.relay.context.log.size + 100,
                core=upload.core,
                signature=upload.signature,
                body=bytes(1_000),
                audit=upload.audit,
                wrap=upload.wraps[0],
                proof=CounterProof(bytes(12), (bytes(32),)),
            )
            for number in range(4)
        ]

    pair.bob.relay.on_mailbox = invent
    await pair.bob.desk.fetch()

    assert len(asked) < 8


async def test_a_relay_that_logs_an_act_and_keeps_its_copy_back_broke_no_promise(
    pair: Pair,
) -> None:
    # [B-5] It is told apart: the log has the entry, the mailbox does not.
    envelope = pair.alice.desk.lead(pair.bob.id, LEAD)
    await pair.alice.desk.flush()
    await pair.relay.seal()
    pair.relay.clock.ahead += 3_600
    pair.bob.desk.lead(pair.alice.id, LEAD)
    await pair.bob.desk.flush()
    await pair.relay.seal()
    pair.alice.relay.on_mailbox = lambda page: [one for one in page if one.counter != 1]
    await pair.alice.desk.fetch()

    kinds = {alarm.kind for alarm in pair.alice.desk.alarms()}
    assert "withheld" in kinds
    assert "broken-promise" not in kinds
    assert pair.alice.desk.status(envelope).stage is Stage.ACCEPTED


async def test_gossip_that_the_log_did_not_sign_accuses_nobody(pair: Pair) -> None:
    # [B-1]
    await send(pair, lead(), gossip=forked(pair, SigningKey.generate()))
    await pair.bob.desk.fetch()

    assert [alarm.kind for alarm in pair.bob.desk.alarms()] == ["gossip"]


async def test_auditors_that_were_told_something_else_are_noticed(pair: Pair) -> None:
    # [B-1] [U-1]
    act = lead()
    await send(pair, act, record=replace(project(act, None), urgency="U4", urgency_reason="LIFE"))
    await pair.bob.desk.fetch()

    assert [line.refused for line in pair.bob.desk.inbox()] == ["verification-failed"]
    assert "told its auditors something else" in str(pair.bob.desk.inbox()[0].text)
    assert not pair.bob.desk.exchanges()


async def test_a_formal_act_without_its_signature_is_refused(pair: Pair) -> None:
    # [B-1] [P-4]
    await send(pair, request(), kind=Kind.FILE)
    await pair.bob.desk.fetch()

    (line,) = pair.bob.desk.inbox()
    assert line.refused is not None
    assert "formal act is not signed" in str(line.text)


async def test_an_act_that_does_not_say_what_is_owed_is_refused(pair: Pair) -> None:
    # [B-1] [P-1]
    await send(pair, replace(lead(), text=None))
    await pair.bob.desk.fetch()

    assert [line.refused for line in pair.bob.desk.inbox()] == ["P-1"]
    # [B-7] Nothing is confirmed that could not be opened to something readable.
    count = pair.bob.desk.state.connection.execute("SELECT count(*) FROM kept").fetchone()
    assert count == (0,)


async def test_an_act_in_an_unknown_exchange_is_shown_refused(pair: Pair) -> None:
    # [B-1]
    await send(pair, replace(lead(), profile=None))
    await pair.bob.desk.fetch()

    assert [line.refused for line in pair.bob.desk.inbox()] == ["X-1"]


async def test_the_relay_of_another_deployment_is_refused(pair: Pair) -> None:
    # [D-1]
    pair.bob.desk.state.connection.execute("DELETE FROM genesis")
    await pair.reopen(pair.bob)
    pair.bob.desk._sync._pinned = bytes(32)  # type: ignore[misc]  # what an enrolment pins

    with pytest.raises(VerificationError, match="D-1"):
        await pair.bob.desk.sync()


def envelope_core(upload: bytes) -> bytes:
    """Give the core of a posted envelope."""
    return Upload.parse(upload).core


def witnessed(pair: Pair, size: int, root: bytes) -> bytes:
    """Sign a checkpoint with everybody's keys, as if all had been turned."""
    note = sign_checkpoint(
        origin=pair.world.genesis.origin, size=size, root=root, key=pair.world.log_key
    )
    now = int(pair.relay.clock())
    lines = [cosign(note, name, key, now) for name, key in pair.world.witness_keys.items()]
    return add_signatures(note, lines)


def forked(pair: Pair, key: SigningKey) -> Gossip:
    """Give gossip of a past that never was, signed by a key."""
    size, root = pair.relay.context.log.size, random_bytes(32)
    text = Checkpoint(origin=pair.world.genesis.origin, size=size, root=root).serialize()
    return Gossip(size, root, key.sign(text.encode()).signature)


async def send(
    pair: Pair,
    act: Act,
    *,
    gossip: Gossip | None = None,
    record: AuditRecord | None = None,
    kind: Kind = Kind.LEAD,
) -> Sealed:
    """Send an act as a client does that checks and signs nothing."""
    sealed = seal(
        body=Body(act.serialize(), None, gossip).serialize(),
        audit=(record or project(act, None)).serialize(),
        to=pair.world.addresses(pair.alice.member, pair.bob.id, kind),
        sender=pair.world.sender(pair.alice.member),
        seen=pair.relay.context.log.newest().note_hash,
        envelope_id=EnvelopeId(random_bytes(16)),
    )
    answer: Any = await pair.relay.post(pair.alice.member, sealed)
    assert answer.status == 200, answer.body
    return sealed
