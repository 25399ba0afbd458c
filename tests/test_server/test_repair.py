"""A relay whose database was restored: it never forks its log, and gets everything back.

Every test lets a relay work, takes its database back to an earlier copy as a restore does, and
starts it again. Witnesses, and unless it says so the signer, remember.
"""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from comity_protocol.checkpoint import add_signatures, cosign, sign_checkpoint
from comity_protocol.core import core_hash
from comity_protocol.envelope import Sealed, Upload
from comity_protocol.identifiers import DeskId
from comity_protocol.leaves import tags_of_promise
from comity_protocol.merkle import Frontier, leaf_hash
from comity_protocol.notices import Author, Hold, HoldBasis, Restored, parse_notice, sign_notice
from comity_protocol.receipts import Receipt, sign_receipt
from comity_server import commands
from comity_server.handlers import vacancies
from comity_server.refilling import TAKING_OF_DESK_MAX
from comity_server.repair import Repairer
from comity_server.store import EnvelopeRow
from support.liars import Liar, Lie, served
from support.load import Ledger
from support.mirror import ServedLog, mirroring
from support.recount import recount
from support.relay import Answer, Clock, Relay, opened, relay, small_world, wait_until
from support.rows import envelope
from support.world import Member, World, held_of, lead

Place = tuple[int, tuple[int, ...]]
"""Leaf index, and the counters that the sender and the receiver were told."""

SENT_BEFORE = 3
SENT_AFTER = 6


@dataclass(slots=True)
class Story:
    """What happened before the restore.

    Attributes:
        bodies: What was posted after the backup: path, body, and the device.
        places: Of each envelope: leaf index and counters, as the sender and the receiver saw them.
        log: What an honest mirror has.
    """

    path: Path
    world: World
    sender: Member
    receiver: Member
    bodies: list[tuple[str, bytes, Member]] = field(default_factory=list)
    sealed: list[Sealed] = field(default_factory=list)
    places: dict[bytes, Place] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    log: ServedLog = field(default_factory=ServedLog)
    had: int = 0
    size: int = 0

    async def post(self, running: Relay, path: str, body: bytes, member: Member) -> Answer:
        answer = await running.as_device(member, "POST", path, body)
        assert answer.status == 200, answer.body
        return answer

    async def send(self, running: Relay, count: int, *, member: Member | None = None) -> None:
        """Send envelopes, and remember them as a client does."""
        member = member or self.sender
        for _ in range(count):
            sealed = running.seal_lead(member, self.to(member))
            body = sealed.upload.serialize()
            answer = await self.post(running, "/v1/envelopes", body, member)
            self.bodies.append(("/v1/envelopes", body, member))
            self.sealed.append(sealed)
            self.ledger.envelopes[sealed.id] = sealed.upload.core
            self.ledger.promised(core_hash(sealed.upload.core), answer.promise)

    def to(self, member: Member) -> DeskId:
        return self.receiver.desk if member.desk == self.sender.desk else self.sender.desk

    async def note_places(self, running: Relay) -> dict[bytes, Place]:
        """Ask where every envelope is."""
        found: dict[bytes, Place] = {}
        for sealed in self.sealed:
            path = f"/v1/envelopes/{sealed.id.hex()}"
            values = [
                (await running.as_device(member, "GET", path)).value
                for member in (self.sender, self.receiver)
            ]
            found[sealed.id] = values[0]["index"], tuple(value["counter"] for value in values)
        return found

    async def note_places_of(
        self, running: Relay, *, leave_out: Sequence[int]
    ) -> dict[bytes, Place]:
        """The same, but for some of what was sent after the backup."""
        whole = list(self.sealed)
        self.sealed = [one for at, one in enumerate(whole) if at - SENT_BEFORE not in leave_out]
        found = await self.note_places(running)
        self.sealed = whole
        return found

    async def send_again(self, running: Relay, *, leave_out: Sequence[int] = ()) -> None:
        """Bring back what was sent after the backup, as often as the relay asks for it."""
        waiting = [body for at, body in enumerate(self.bodies) if at not in leave_out]
        for _ in range(50):
            rest = []
            for path, body, member in waiting:
                answer = await running.as_device(member, "POST", path, body)
                if answer.status != 200:
                    assert answer.code in {"repairing", "use-nonce"}, answer.body
                    rest.append((path, body, member))
            if not rest:
                return
            waiting = rest
            await asyncio.sleep(0.02)
        raise AssertionError(f"{len(waiting)} of {len(self.bodies)} were not taken back")

    def restore(self, *, signer: bool = False) -> None:
        """Put the backup back."""
        for name in ("relay.sqlite", *(("signer.sqlite",) if signer else ())):
            for end in ("", "-wal", "-shm", "-journal"):
                (self.path / (name + end)).unlink(missing_ok=True)
            shutil.copy(self.path / f"{name}.backup", self.path / name)

    @asynccontextmanager
    async def restored(self, *mirrors: ServedLog, **settings: object) -> AsyncIterator[Relay]:
        """Start the relay again."""
        async with AsyncExitStack() as stack:
            for log in mirrors:
                await stack.enter_async_context(mirroring(log))
            given: dict[str, Any] = {"mirrors": tuple(log.url for log in mirrors)} | settings
            running = await stack.enter_async_context(relay(self.path, self.world, **given))
            running.posted = len(self.world.statements)
            yield running


def back_up(path: Path) -> None:
    """Copy the database and the signer's file as a backup does, while the relay runs."""
    for name in ("relay.sqlite", "signer.sqlite"):
        with (
            closing(sqlite3.connect(path / name)) as source,
            closing(sqlite3.connect(path / f"{name}.backup")) as target,
        ):
            source.backup(target)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A relay that worked, was backed up, and worked on; told once."""
    return asyncio.run(tell(tmp_path_factory.mktemp("story")))


@pytest.fixture
def story(told: Story, tmp_path: Path) -> Story:
    """A copy of that, to be gone on with."""
    path = tmp_path / "story"
    shutil.copytree(told.path, path)
    return replace(
        told,
        path=path,
        bodies=list(told.bodies),
        sealed=list(told.sealed),
        ledger=replace(
            told.ledger, envelopes=dict(told.ledger.envelopes), promises=dict(told.ledger.promises)
        ),
        log=replace(told.log, asked=[]),
    )


async def tell(path: Path, *, more: bool = False) -> Story:
    world, one, other = small_world()
    story = Story(path, world, world.active(one)[0], world.active(other)[0])
    async with relay(path, world) as running:
        await running.publish()
        await story.send(running, SENT_BEFORE)
        await running.seal()
        story.bodies.clear()
        back_up(path)
        story.had = (await running.context.store.head()).size
        await story.send(running, SENT_AFTER)
        await story.send(running, 2, member=story.receiver)
        if more:
            await _say_more(story, running)
        await running.seal()
        story.places = await story.note_places(running)
        story.size = running.context.log.size
        story.log = ServedLog(
            entries=await running.context.store.leaves(0, story.size),
            note=running.context.log.newest().note,
            statements=[signed for _, signed in world.statements],
        )
        story.ledger.notes.add(story.log.note)
    return story


async def _say_more(story: Story, running: Relay) -> None:
    """Turn an epoch, confirm, and hold."""
    world, sender, receiver = story.world, story.sender, story.receiver
    world.turn(sender.desk)
    _, turned = world.statements[-1]
    assert (await running.ask("POST", "/v1/statements", turned.serialize())).status == 200
    story.bodies.append(("/v1/statements", turned.serialize(), sender))
    running.posted = len(world.statements)
    seen = await running.seal()
    seq = world.directory.desk(receiver.desk).seq
    confirmed = sign_receipt(
        receiver.fast, Receipt(receiver.desk, receiver.id, seq, held_of(story.sealed[-4]), seen)
    )
    hold = Hold(
        Author(world.genesis.deployment, receiver.desk, receiver.id, seq, seen),
        (story.sealed[-4].id,),
        HoldBasis.COMPLAINT,
    )
    held = sign_notice(receiver.fast, hold)
    for path, signed in (("/v1/receipts", confirmed), ("/v1/notices", held)):
        await story.post(running, path, signed.serialize(), receiver)
        story.bodies.append((path, signed.serialize(), receiver))
    await story.send(running, 1)


async def whole(running: Relay) -> None:
    """Wait until the repair is over and all of it is sealed."""
    await wait_until(lambda: running.context.relay.gate is None)
    await running.context.relay.poll()
    await running.seal()


async def notices_of(running: Relay, member: Member) -> list[Restored]:
    answer = await running.as_device(member, "GET", "/v1/notices?after=-1")
    found = [parse_notice(payload) for _, payload, _ in answer.value["items"]]
    return [notice for notice in found if isinstance(notice, Restored)]


async def test_a_restored_relay_gets_everything_back_from_those_who_sent_it(story: Story) -> None:
    """[R-16] [R-17] [R-2] The signer remembers the entries; members have the rest."""
    story.restore()
    async with story.restored() as running:
        (state,) = [await running.context.store.repair()]
        assert state is not None
        assert (state.had, state.size, state.open) == (story.had, story.size, len(story.bodies))
        await story.send_again(running)
        await whole(running)

        assert await story.note_places(running) == story.places
        (notice,) = await notices_of(running, story.receiver)
        assert (notice.had, notice.size, notice.lost) == (story.had, story.size, 0)
        assert notice.incarnation == (await running.context.store.head()).incarnation
        assert running.context.log.size == story.size + 1
        await story.send(running, 1)
        await running.seal()
        members = [story.sender, story.receiver]
        story.ledger.promises.clear()
        assert [
            line
            for line in await recount(running, story.world, members, story.ledger)
            if f"leaf {story.size} " not in line
        ] == []
    async with story.restored() as running:
        assert running.context.relay.gate is None
        assert len(await notices_of(running, story.receiver)) == 1


async def test_a_relay_that_was_restored_with_its_signer_is_repaired_from_a_mirror(
    story: Story,
) -> None:
    """[G-5] [R-16] Nobody here remembers; the witnesses do, and a mirror has the entries."""
    story.restore(signer=True)
    async with story.restored(story.log) as running:
        await story.send_again(running)
        await whole(running)

        assert await story.note_places(running) == story.places
        assert (await notices_of(running, story.sender))[0].lost == 0
        assert running.context.log.size == story.size + 1


async def test_a_relay_that_lost_its_database_altogether_is_repaired(tmp_path: Path) -> None:
    """[R-16] Statements come from the mirror, their boxes from members."""
    story = await tell(tmp_path, more=True)
    world, device = story.world, story.sender
    async with relay(tmp_path, world) as running:
        boxes = (await running.as_device(device, "GET", "/v1/boxes")).value
    (tmp_path / "relay.sqlite.backup").write_bytes(b"")
    (tmp_path / "signer.sqlite.backup").write_bytes(b"")
    story.restore(signer=True)
    everything = [
        ("/v1/statements", signed.serialize(), device) for _, signed in world.statements[1:]
    ]
    bodies = [*everything, *story.bodies]
    story.bodies[:] = bodies
    async with story.restored(story.log) as running:
        assert running.context.members.view.ordinal == len(world.statements)
        await story.send_again(running)
        await running.context.store.end_repair()
        await whole(running)

        assert (await running.as_device(device, "GET", "/v1/boxes")).value == boxes
        assert (await notices_of(running, device))[0].had == 1


async def test_receipts_statements_and_notices_come_back(tmp_path: Path) -> None:
    """[R-16] And a hold holds again."""
    story = await tell(tmp_path, more=True)
    story.restore(signer=True)
    async with story.restored(story.log) as running:
        await story.send_again(running)
        await whole(running)
        receipts = await running.as_device(story.sender, "GET", "/v1/receipts?after=-1")
        notices = await running.as_device(story.sender, "GET", "/v1/notices?after=-1")

        assert await story.note_places(running) == story.places
        assert len(receipts.value["items"]) == 1
        assert [parse_notice(payload).kind for _, payload, _ in notices.value["items"]] == [
            "hold",
            "restored",
        ]
        head = await running.context.store.head()
        assert head.statements == len(story.world.statements)
    with sqlite3.connect(tmp_path / "relay.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM holds").fetchone() == (1,)
    connection.close()


async def waits(running: Relay, story: Story) -> None:
    """Nothing is repaired, nothing was changed, and nothing is promised."""
    relay_ = running.context.relay
    assert relay_.gate is not None
    assert not relay_.gate.is_repairing
    assert await running.context.store.repair() is None
    assert (await running.context.store.head()).size == story.had
    answer = await running.as_device(
        story.sender,
        "POST",
        "/v1/envelopes",
        running.seal_lead(story.sender, story.receiver.desk).upload.serialize(),
    )
    # [V-2] The repair would publish long before it got a place.
    assert (answer.status, answer.code) == (503, "repairing")
    assert (await running.context.store.head()).size == story.had


async def test_a_mirror_that_serves_other_entries_gets_nothing_appended(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    """[R-16] The entries do not lead to the root that the witnesses cosigned."""
    story.restore(signer=True)
    forged = list(story.log.entries)
    forged[story.had + 1] = forged[story.had + 1][:33] + bytes(32)
    async with story.restored(replace(story.log, entries=forged)) as running:
        await waits(running, story)

    assert reasons(caplog)[0].startswith(f"entries from {story.had} to {story.size} cannot be had")


async def test_a_mirror_with_a_note_that_nobody_cosigned_is_not_believed(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    """[R-16]"""
    story.restore(signer=True)
    bare = (
        story.log.note.split(b"\n\n")[0]
        + b"\n\n"
        + story.log.note.split(b"\n\n")[1].split(b"\n")[0]
        + b"\n"
    )
    async with story.restored(replace(story.log, note=bare)) as running:
        await waits(running, story)

    assert "no checkpoint of more than" in reasons(caplog)[0]


async def test_a_mirror_that_is_shorter_than_what_was_signed_does_not_do(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    """[R-16]"""
    story.restore(signer=True)
    short = replace(story.log, entries=story.log.entries[: story.size - 1])
    async with story.restored(short) as running:
        await waits(running, story)

    assert "name another mirror" in reasons(caplog)[0]


async def test_without_a_mirror_a_relay_that_was_restored_with_its_signer_waits(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    """[G-4] A quorum ahead of every checkpoint that can be shown stops it."""
    story.restore(signer=True)
    async with story.restored() as running:
        await waits(running, story)

    assert f"3 of them say that they know more, up to {story.size} entries" in reasons(caplog)[0]


async def test_a_number_of_one_witness_does_not_stop_a_repair(story: Story) -> None:
    """[G-4] Two of three cosign what the signer remembers; the third one claims and shows none."""
    story.restore()
    name, key = sorted(story.world.witness_keys.items())[-1]
    liar = Liar(name, key, [Lie.SIZE], Clock())
    async with (
        served(liar.make_app()) as url,
        story.restored(witnesses=2, urls=[url]) as running,
    ):
        await story.send_again(running)
        await whole(running)

        assert await story.note_places(running) == story.places
    assert liar.told


async def test_a_quorum_that_says_that_it_is_ahead_stops_a_repair_before_it_begins(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    """[G-4] Nothing is appended up to what the signer knows, so a mirror can be named later."""
    story.restore()
    async with AsyncExitStack() as stack:
        urls = []
        for name, key in sorted(story.world.witness_keys.items())[:2]:
            app = Liar(name, key, [Lie.SIZE], Clock()).make_app()
            urls.append(await stack.enter_async_context(served(app)))
        running = await stack.enter_async_context(story.restored(witnesses=0, urls=urls))
        await waits(running, story)

    assert f"no checkpoint of more than {story.size} can be had" in reasons(caplog)[0]


async def test_nothing_is_promised_before_the_entries_are_back(tmp_path: Path) -> None:
    """[V-2] Else a promise of 60 seconds is broken by the first checkpoint of the repair."""
    story = await tell(tmp_path, more=True)
    story.restore(signer=True)
    short = replace(story.log, entries=story.log.entries[: story.size - 1])
    async with story.restored(short) as running:
        receipt = next(one for one in story.bodies if one[0] == "/v1/receipts")
        new = running.seal_lead(story.sender, story.receiver.desk).upload.serialize()
        bodies = [receipt, ("/v1/envelopes", new, story.sender)]
        early = [
            await running.as_device(member, "POST", path, body) for path, body, member in bodies
        ]
        short.entries = story.log.entries
        gate = running.context.relay.gate
        assert gate is not None
        await wait_until(lambda: gate.is_repairing)
        await story.send_again(running)
        await whole(running)

        assert [(answer.status, answer.code) for answer in early] == [(503, "repairing")] * 2
        assert (await story.post(running, *bodies[1])).status == 200


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.fields["reason"]  # type: ignore[attr-defined]  # what observe adds
        for record in caplog.records
        if record.msg == "repair-waits"
    ]


async def test_an_honest_mirror_beside_a_hostile_one_is_enough(story: Story) -> None:
    """[R-16]"""
    story.restore(signer=True)
    forged = [entry[:33] + bytes(32) for entry in story.log.entries]
    hostile = replace(story.log, entries=forged, statements=(), asked=[])
    async with story.restored(hostile, story.log) as running:
        await story.send_again(running)
        await whole(running)

        assert await story.note_places(running) == story.places
    assert hostile.asked


async def test_what_a_witness_cosigned_alone_is_reached_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[G-5] Killed after the first of three witnesses cosigned: nobody published that."""
    story = await tell(tmp_path)
    last = story.log
    async with story.restored() as running:
        seen = running.context.log.size
        others = running.context.witnesses._called[1:]
        monkeypatch.setattr(
            running.context.witnesses, "_called", running.context.witnesses._called[:1]
        )
        await story.send(running, 1)
        await wait_until(lambda: running.context.witnesses._called[0].size == story.size + 1)
        entries = await running.context.store.leaves(0, story.size + 1)

        assert (running.context.log.size, len(others)) == (seen, 2)
    name, key = sorted(story.world.witness_keys.items())[0]
    probe = sign_checkpoint(
        origin=story.world.genesis.origin,
        size=story.size + 1,
        root=Frontier().extend(map(leaf_hash, entries)).root,
        key=story.world.log_key,
    )
    cosigned = add_signatures(probe, [cosign(probe, name, key, int(Clock()()))])
    story.restore(signer=True)
    async with story.restored(replace(last, entries=entries, cosigned=cosigned)) as running:
        await story.send_again(running)
        await whole(running)

        assert await story.note_places(running) == await story.note_places(running)
        assert running.context.log.size == story.size + 2


async def test_entries_that_were_added_after_a_restore_are_not_repaired_over(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    """[G-3] [R-16] The operator skipped the repair, and an older program went on."""
    story.restore()
    async with opened(f"sqlite:///{story.path / 'relay.sqlite'}") as store:
        row = envelope(1)
        head = await store.head()
        await store.accept([row], [], statements=head.statements, integrate=True)
    story.had += 1
    async with story.restored(story.log) as running:
        await waits(running, story)

    assert "restore a backup to which nothing was added" in reasons(caplog)[0]


async def test_during_a_repair_everything_else_is_told_to_wait(story: Story) -> None:
    """[R-12] [R-18] A desk does not get a wrap either: it may have erased it."""
    story.restore()
    async with story.restored() as running:
        new = running.seal_lead(story.sender, story.receiver.desk).upload.serialize()
        answers = [
            await running.as_device(story.sender, "POST", "/v1/envelopes", new),
            await running.as_device(story.sender, "GET", "/v1/mailbox"),
            await running.as_device(story.sender, "GET", f"/v1/wraps/{story.sealed[0].id.hex()}"),
            await running.as_device(story.sender, "GET", "/v1/receipts"),
            await running.as_device(story.sender, "GET", "/v1/notices"),
            await running.as_device(story.sender, "GET", "/v1/statements"),
            await running.ask("GET", "/readyz"),
        ]
        async with running.socket(story.sender) as socket:
            await socket.put("send", 1, new)
            refused = await socket.get()

        assert [(answer.status, answer.code) for answer in answers] == [(503, "repairing")] * 7
        assert {answer.headers["Retry-After"] for answer in answers} == {"2"}
        assert answers[-1].problem["vacancies"] == len(story.bodies)
        assert json.loads(refused[2])["code"] == "repairing"
        assert b"comity_repair_vacancies 8.0" in running.context.metrics.text()
        assert (await running.ask("GET", "/checkpoint")).body.split(b"\n")[1] == b"%d" % story.size


async def test_vacancies_are_told_to_members_and_to_nobody_else(story: Story) -> None:
    """[R-14]"""
    story.restore()
    async with story.restored() as running:
        stranger = await running.ask("GET", "/v1/vacancies")
        told = (await running.as_device(story.receiver, "GET", "/v1/vacancies")).value
        await story.send_again(running)
        await whole(running)
        after = (await running.as_device(story.receiver, "GET", "/v1/vacancies")).value

    expected = [tags_of_promise(core_hash(sealed.upload.core))[1] for sealed in story.sealed]
    assert stranger.code == "unauthenticated"
    assert (told["had"], told["size"]) == (story.had, story.size)
    assert told["tags"] == expected[SENT_BEFORE:]
    assert (after["had"], after["size"], after["tags"]) == (story.size + 1, story.size + 1, [])


async def test_vacancies_are_told_page_by_page(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-15] Whoever has only the last of them finds that too."""
    monkeypatch.setattr(vacancies, "TAGS_MAX", 3)
    story.restore()
    tags: list[bytes] = []
    after: int | None = -1
    async with story.restored() as running:
        for _ in story.bodies:
            if after is None:
                break
            path = f"/v1/vacancies?after={after}"
            told = (await running.as_device(story.receiver, "GET", path)).value
            tags += told["tags"]
            after = told["next"]

    expected = [tags_of_promise(core_hash(sealed.upload.core))[1] for sealed in story.sealed]
    assert tags == expected[SENT_BEFORE:]


async def test_what_did_not_come_back_in_time_is_counted_and_no_counter_given_twice(
    story: Story,
) -> None:
    """[R-17] [R-3]"""
    story.restore()
    async with story.restored(repair_seconds=300) as running:
        await story.send_again(running, leave_out=[1, 4])
        repairer_of(running)._left = 0
        await whole(running)
        places = await story.note_places_of(running, leave_out=[1, 4])
        (notice,) = await notices_of(running, story.sender)
        sealed, answer = await running.send(story.sender, story.receiver.desk)
        await running.seal()
        path = f"/v1/envelopes/{sealed.id.hex()}"
        counter = (await running.as_device(story.receiver, "GET", path)).value["counter"]

        assert answer.status == 200
        assert notice.lost == 2
        assert places == {id_: story.places[id_] for id_ in places}
        assert len(places) == SENT_BEFORE + len(story.bodies) - 2
        assert counter > max(counters[1] for _, counters in story.places.values())


def repairer_of(running: Relay) -> Repairer:
    gate = running.context.relay.gate
    assert isinstance(gate, Repairer)
    return gate


async def test_a_clock_that_jumps_does_not_end_a_repair(story: Story) -> None:
    """[R-16] A machine that has just begun sets its clock; only seconds that ran are counted."""
    story.restore()
    async with story.restored(repair_seconds=300) as running:
        running.clock.ahead = 86_400
        await repairer_of(running)._step()
        repairer_of(running)._left = 99.5
        await repairer_of(running)._step()
        assert repairer_of(running).is_repairing
    async with story.restored(repair_seconds=300) as running:
        running.clock.ahead = 86_400
        await repairer_of(running)._step()
        assert 0 < repairer_of(running)._left <= 100
        assert repairer_of(running).is_repairing


async def test_an_operator_ends_a_repair_by_hand(story: Story) -> None:
    """[R-17]"""
    story.restore()
    async with story.restored() as running:
        await story.send_again(running, leave_out=[7])
        shown = await asyncio.to_thread(run_repair, story.path)
        done = await asyncio.to_thread(run_repair, story.path, "--finish")
        await whole(running)
        (notice,) = await notices_of(running, story.sender)
    after = await asyncio.to_thread(run_repair, story.path)

    assert (shown["had"], shown["size"], shown["vacancies"]) == (story.had, story.size, 1)
    assert done["finishing"] is True
    assert notice.lost == 1
    assert after == {"repairing": False}


def run_repair(path: Path, *options: str) -> dict[str, Any]:
    result = CliRunner().invoke(commands.command, ["repair", "--data", str(path), *options])
    assert result.exit_code == 0, result.output
    shown: dict[str, Any] = json.loads(result.output)
    return shown


async def test_a_relay_that_stops_in_the_middle_goes_on_with_the_repair(story: Story) -> None:
    """[R-16] The mirror is not needed any more."""
    story.restore(signer=True)
    async with story.restored(story.log) as running:
        for path, body, member in story.bodies[::2]:
            await story.post(running, path, body, member)
    async with story.restored() as running:
        assert running.context.relay.gate is not None
        await story.send_again(running)
        await whole(running)

        assert await story.note_places(running) == story.places
        assert len(await notices_of(running, story.sender)) == 1


async def test_anybody_may_bring_back_what_was_lost_but_nobody_may_alter_it(story: Story) -> None:
    """[R-16] [E-1] The entry says what it is; the signature has to hold as well."""
    story.restore()
    async with story.restored() as running:
        path, body, _ = story.bodies[0]
        upload = Upload.parse(body)
        forged = replace(upload, signature=bytes(64)).serialize()
        refused = await running.as_device(story.receiver, "POST", path, forged)
        taken = await running.as_device(story.receiver, "POST", path, body)
        again = await running.as_device(story.sender, "POST", path, body)
        other = story.world.seal_act(
            story.sender,
            story.receiver.desk,
            lead(),
            seen=running.context.log.newest().note_hash,
            envelope_id=story.sealed[SENT_BEFORE].id,
        )
        taken_id = await running.as_device(story.sender, "POST", path, other.upload.serialize())

        assert refused.code == "verification-failed"
        assert taken.promise == again.promise
        assert (taken_id.status, taken_id.code) == (409, "id-taken")


async def test_one_desk_does_not_take_all_the_places_of_a_repair(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-13] Its uploads hang in the store; another desk is heard all the same."""
    story.restore()
    path, body, _ = story.bodies[0]
    async with story.restored() as running:
        store, held = running.context.store, asyncio.Event()
        find = store.envelope
        entered: list[bytes] = []

        async def hang(envelope_id: bytes) -> EnvelopeRow | None:
            if len(entered) < TAKING_OF_DESK_MAX:
                entered.append(envelope_id)
                await held.wait()
            return await find(envelope_id)

        monkeypatch.setattr(store, "envelope", hang)
        hanging = [
            asyncio.create_task(running.as_device(story.sender, "POST", path, body))
            for _ in range(TAKING_OF_DESK_MAX)
        ]
        await wait_until(lambda: len(entered) == TAKING_OF_DESK_MAX)
        more = await running.as_device(story.sender, "POST", path, body)
        other = await running.as_device(story.receiver, "POST", path, body)
        held.set()
        answers = await asyncio.gather(*hanging)
        after = await running.as_device(story.sender, "POST", path, body)

    assert (more.status, more.code) == (429, "quota")
    assert other.status == after.status == 200
    assert {answer.promise for answer in answers} == {after.promise}


async def test_a_receipt_waits_for_what_it_confirms(tmp_path: Path) -> None:
    """[Q-1]"""
    story = await tell(tmp_path, more=True)
    story.restore()
    receipt = next(one for one in story.bodies if one[0] == "/v1/receipts")
    async with story.restored(story.log) as running:
        before = await running.as_device(receipt[2], "POST", receipt[0], receipt[1])
        await story.send_again(running)
        after = await running.as_device(receipt[2], "POST", receipt[0], receipt[1])

        assert before.code == "repairing"
        assert after.status == 200
