"""A real relay is audited: by a stranger, by a member, by an auditor, and by a monitor."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comity_client.audit_archive import Archive
from comity_client.audit_desk import MemberRelay, fetch_desk, items_of
from comity_client.audit_fetch import fetch, read_genesis
from comity_client.audit_findings import Finding, Kind
from comity_client.audit_source import Source
from comity_client.audit_verify import Audit, Objects
from comity_client.audit_watch import Watch
from comity_client.tokens import TokenMaker
from comity_protocol.encoding import serialize
from comity_protocol.evidence import verify_evidence
from comity_protocol.receipts import Promise, Receipt, Signed, sign_promise, sign_receipt
from support.paper_log import NOW, PaperLog, mirror
from support.relay import Relay, audited_world, relay
from support.world import Member, World, held_of


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[tuple[Relay, Member, Member, Member, Signed]]:
    """A relay with a sent lead and its receipt; sender, receiver, auditor, and the receipt."""
    world, sender, receiver, auditor = audited_world()
    (tmp_path / "relay").mkdir()
    async with relay(tmp_path / "relay", world) as running:
        await running.publish()
        one, other, third = (world.active(desk)[0] for desk in (sender, receiver, auditor))
        sealed, _ = await running.send(one, receiver)
        seq, seen = world.directory.desk(receiver).seq, await running.seal()
        given = sign_receipt(other.fast, Receipt(receiver, other.id, seq, held_of(sealed), seen))
        await running.as_device(other, "POST", "/v1/receipts", given.serialize())
        await running.seal()
        yield running, one, other, third, given


async def bring(folder: Path, running: Relay, member: Member | None) -> tuple[int, list[Finding]]:
    found: list[Finding] = []
    archive = Archive(folder)
    async with Source(running.url) as source:
        await fetch(archive, source, running.world.statements[0][1].hash, report=found.append)
    if member is None:
        return 0, found
    genesis = read_genesis(archive, None)
    assert genesis is not None
    maker = TokenMaker(member.id, genesis.deployment, member.fast)
    async with MemberRelay(running.url, maker) as own:
        assert isinstance(own, MemberRelay)
        return await fetch_desk(archive, own, genesis, found.append), found


def findings(folder: Path, objects: Objects | None = None) -> list[Kind]:
    found: list[Finding] = []
    Audit(Archive(folder), found.append, objects).run(None)
    return [one.kind for one in found]


async def test_a_relay_is_audited_by_strangers_and_members(
    running: tuple[Relay, Member, Member, Member, Signed], tmp_path: Path
) -> None:
    """[V-3] [R-14] Each gets its own; pages are kept as served, and never written again."""
    relay_, one, other, auditor, given = running
    assert await bring(tmp_path / "stranger", relay_, None) == (0, [])
    assert findings(tmp_path / "stranger") == [Kind.NO_STATEMENTS]
    for name, member, count in (("one", one, 2), ("other", other, 1), ("auditor", auditor, 1)):
        folder = tmp_path / name
        new, found = await bring(folder, relay_, member)
        assert found == []
        assert new >= count, name
        assert (await bring(folder, relay_, member))[0] == 0
        (page,) = Archive(folder).names("desk/mailbox")
        assert items_of((folder / page).read_bytes())[0][0] == 1
        assert findings(folder, Objects(receipts={"receipt": given})) == []
        assert list(Archive(folder).names("checkpoints"))
    folder = tmp_path / "one"
    for kind in ("mailbox", "receipts"):
        (name,) = Archive(folder).names(f"desk/{kind}")
        data = (folder / name).read_bytes()
        (item,) = [list(one) for one in items_of(data)]
        place = 1 if kind == "mailbox" else 0
        moved = [*item[:place], 0, *item[place + 1 :]]
        (folder / name).write_bytes(serialize({"items": [moved]}))
        assert findings(folder) == [Kind.SIGNED_OBJECT]
        (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert set(findings(folder)) & {Kind.SIGNED_OBJECT, Kind.DAMAGED_FILE}
        (folder / name).write_bytes(data)
    forged = Signed(given.payload, bytes(64))
    missing = Signed(given.payload + b"x", given.signature)
    objects = Objects(receipts={"forged": forged, "missing": missing})
    assert findings(tmp_path / "one", objects) == [Kind.SIGNED_OBJECT, Kind.NOT_LOGGED]


async def watched(watch: Watch, log: PaperLog, now: int = NOW) -> list[tuple[Kind, str]]:
    return [(one.kind, one.evidence) for one in await watch.round(log.pinned, now)]


async def test_a_monitor_tells_each_alarm_once_until_it_ends(tmp_path: Path) -> None:
    """[V-1] [V-2]"""
    world = World.found(witnesses=4, quorum=2)
    desk = world.create_desk("XA")
    log = PaperLog(world, 300)
    what = sign_promise(world.relay_key, Promise(bytes(32), NOW))
    kept = sign_promise(world.relay_key, Promise(log.statements[2].hash, NOW - 100))
    async with mirror(log.files()) as served, Source(served.url) as source:
        promises = {"broken": what, "kept": kept}
        watch = Watch(Archive(tmp_path), source, {desk}, promises)
        assert await watched(watch, log) == []
        assert await watched(watch, log, NOW + 1_201) == [(Kind.STALE, "")]
        assert await watched(watch, log, NOW + 1_300) == []

        later = NOW + 90_000
        served.files["checkpoint"] = log.note(at=later, by=2)
        first = await watch.round(None, later)
        thin = [one for one in first if one.kind is Kind.RETIRED_WITNESS]
        assert {one.kind for one in first} == {
            Kind.THIN_QUORUM,
            Kind.RETIRED_WITNESS,
            Kind.BROKEN_PROMISE,
        }
        assert len(thin) == 2
        (broken,) = (one for one in first if one.kind is Kind.BROKEN_PROMISE)
        evidence = (tmp_path / broken.evidence).read_bytes()
        assert "promised" in verify_evidence(evidence, world.genesis, log.entries)
        assert await watched(watch, log, later) == []

        other = PaperLog(world, 400, salt=b"other")
        served.files.update(other.files())
        told = await watched(watch, log, later)
        assert [kind for kind, _ in told] == [Kind.FORK]
        served.files["tile/0/000"] = b"x"
        served.files["tile/1/000.p/1"] = b"x"
        assert Kind.SOURCE in [kind for kind, _ in await watched(watch, log, later)]


async def test_a_monitor_tells_a_statement_that_its_office_must_know_of(tmp_path: Path) -> None:
    world = World.found()
    desk, other = world.create_desk("XA"), world.create_desk("XB")
    log = PaperLog(world, len(world.statements))
    async with mirror(log.files()) as served, Source(served.url) as source:
        watch = Watch(Archive(tmp_path), source, {desk})
        assert await watched(watch, log) == []
        for one in (other, desk, desk):
            world.turn(one)
        grown = PaperLog(world, 300)
        new = PaperLog(world, 3, statements=grown.statements[log.size :])
        served.files.update(grown.files())
        served.files[f"statements?after={log.size}"] = new.statement_list
        told = await watch.round(None, NOW)

    assert [one.kind for one in told] == [Kind.OWN_KEY, Kind.OWN_KEY]
    assert all(desk.hex()[:8] in one.text for one in told)
