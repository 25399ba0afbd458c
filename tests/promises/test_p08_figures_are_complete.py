"""P8: whoever holds the same log finds the same figures, and nothing can be left out unnoticed.

A secretariat's desk counts a mixed workload of three States: from a relay on SQLite, from one on
PostgreSQL, from a folder with every relay off, in other processes under other locales, time zones
and hash seeds, and with everything given in another order. A second count that shares no code with
the first finds the same seconds.

Found by: anyone who compares two digests; garbage by the secretariat's next count, against the
party of the sender.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import pytest

from comity_client.audit_archive import Archive
from comity_client.audit_desk import MemberRelay, fetch_desk
from comity_client.audit_fetch import fetch
from comity_client.audit_findings import Finding
from comity_client.audit_source import Source
from comity_client.brackets import read_calendar
from comity_client.desk import Desk, token_maker
from comity_client.keystore import DeviceKeys
from comity_client.relay_answers import Boxes
from comity_client.secretariat import audited, statistics, statistics_of
from comity_client.seeds import Seeds
from comity_client.threads import Threads
from comity_protocol.core import Core
from comity_protocol.counting import Clock, Delivery, Statistics, count, digest_of
from comity_protocol.envelope import audit_key, audit_root, open_body
from comity_protocol.errors import OpenError
from comity_protocol.identifiers import DeskId, EnvelopeId
from comity_protocol.keys import Context, decrypt
from comity_protocol.times import Verdict, judge
from support.desks import enrol, open_desk
from support.relay import Relay, relay
from support.second_count import Seen, count_again
from support.workload import Script, ScriptClock, play, write_script

EXCHANGES: Final = 40
EXCHANGES_LONG: Final = 96
LIMIT_SECONDS: Final = 6 * 3_600
QUORUM: Final = 2
MOVERS: Final = 1
"""Witnesses that can move the time of such a quorum."""
TESTS: Final = Path(__file__).parents[1]
ELSEWHERE: Final = (
    {"LC_ALL": "C", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "1"},
    {"LC_ALL": "tr_TR.UTF-8", "TZ": "America/St_Johns", "PYTHONHASHSEED": "4294967295"},
    {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0", "PYTHONUTF8": "0"},
)


@dataclass(frozen=True, slots=True)
class Office:
    """A secretariat that has counted a played script."""

    script: Script
    relay: Relay
    desk: Desk
    counted: Statistics


@asynccontextmanager
async def office(script: Script, path: Path, database: str = "") -> AsyncIterator[Office]:
    """Play a script to a relay and count it at the secretariat's desk."""
    await asyncio.to_thread(path.mkdir)
    clock = ScriptClock()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(
            relay(path, script.world, clock=clock, database=database)
        )
        await running.publish()
        await play(script, running, clock)
        folder = enrol(path / "office", script.world, script.officer, running.url)
        desk, _ = open_desk(folder, script.officer, clock)
        await stack.enter_async_context(desk)
        await desk.sync()
        await desk.fetch()
        counted = await statistics(desk)
        yield Office(script, running, desk, counted)


async def fetched(here: Office, folder: Path) -> Archive:
    """Fetch everything that the secretariat is served into a folder."""
    archive, found = Archive(folder), list[Finding]()
    async with Source(here.relay.url) as source:
        pinned = here.desk.profile.deployment.genesis_hash
        await fetch(archive, source, pinned, report=found.append)
    maker = token_maker(here.desk.profile, here.desk.keys)
    async with MemberRelay(here.relay.url, maker) as own:
        assert isinstance(own, MemberRelay)
        await fetch_desk(archive, own, here.script.world.genesis, found.append)
    assert found == []
    return archive


async def count_elsewhere(
    archive: Path, profile: Path, keys: DeviceKeys, settings: dict[str, str]
) -> str:
    """Count a folder in a process with another locale, time zone and hash seed."""
    environment = {"PATH": os.defpath, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(TESTS)}
    seeds = "\n".join(one.hex() for one in (keys.fast.seed, keys.full.seed, keys.seal.seed))
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "support.count_folder", str(archive), str(profile)],
        input=seeds.encode(),
        env=environment | settings,
        capture_output=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().split()[0]


def recount(here: Office, archive: Path) -> dict[str, int]:
    """Count a second time in another way and compare every line; gives what was compared."""
    opened = [
        Seen(step.index, step.sender, step.receiver, step.envelope, step.record.serialize())
        for step in audited(here.desk)[0]
    ]
    lines, rows = count_again(archive, opened, QUORUM), here.counted.rows
    assert sorted(lines) == [row.exchange for row in rows]
    for row in rows:
        line = lines[row.exchange]
        assert line.seconds == row.response_seconds
        assert line.opened_at == row.opened_at
        assert line.final_at == row.final_at
        assert line.delivered_at == row.delivered_at
        assert line.refused == row.refused_steps
        assert line.asker == row.initiator_desk
    return {
        "exchanges": len(rows),
        "answered or refused": sum(line.seconds is not None for line in lines.values()),
        "refused steps": sum(line.refused for line in lines.values()),
    }


async def test_every_response_time_is_computed_alike_and_no_body_is_opened(tmp_path: Path) -> None:
    """[N-1] [N-2] [N-3] [N-4] The short form: 40 exchanges on SQLite, from a folder, elsewhere."""
    script = write_script(EXCHANGES)
    async with office(script, tmp_path / "sqlite") as here:
        archive = await fetched(here, tmp_path / "folder")
        counted, figures = here.counted, recount(here, tmp_path / "folder")
        boxes = Boxes(*here.desk.state.boxes())
        _check_stories(here)
        await _check_bodies(here)
        shuffled = [await _count_shuffled(here, salt) for salt in (b"1",)]
        removed = await _remove(here, every=40)
        assert here.desk.alarms() == ()

    # The relay is off.
    profile, keys = here.desk.profile, here.desk.keys
    from_folder = await statistics_of(archive, profile, keys, boxes, lambda: 0)
    elsewhere = await count_elsewhere(
        tmp_path / "folder", tmp_path / "sqlite" / "office", keys, ELSEWHERE[0]
    )
    assert from_folder == counted
    assert {elsewhere, *shuffled} == {digest_of(counted).hex()}
    assert figures == {"exchanges": 37, "answered or refused": 30, "refused steps": 5}
    assert removed == 3


def _check_stories(here: Office) -> None:
    """Every exchange stands where its story left it, garbage against the party that sent it."""
    script, rows = here.script, here.counted.rows
    garbage = {one.envelope for one in here.counted.unaccounted}
    assert garbage == script.garbage.keys()
    charged = [list(script.garbage.values()).count(code) for code in ("XA", "XB", "XC")]
    assert here.counted.charged == tuple(
        (code, times) for code, times in zip(("XA", "XB", "XC"), charged, strict=True) if times
    )
    assert sum(row.stamped_seconds > 0 for row in rows) == script.stories[7]
    states = [row.state for row in rows]
    assert states.count("closed") == script.stories[0]
    assert states.count("refused") == script.stories[2]
    verdicts = [
        judge(row.opened, row.final, LIMIT_SECONDS) for row in rows if row.final is not None
    ]
    # Who answers at the very end is late; whom the relay refused for a day is not.
    assert verdicts.count(Verdict.LATE) == script.stories[4]
    assert verdicts.count(Verdict.UNDETERMINED) == 0


async def _check_bodies(here: Office) -> None:
    """The secretariat is given no body, and would not open one that it had."""
    desk, script = here.desk, here.script
    rows = desk.state.connection.execute("SELECT envelope, body, wrap FROM inbox").fetchall()
    assert len(rows) == script.acts
    assert {body for _, body, _ in rows} == {None}
    held = [line for line in desk.inbox() if line.refused is None]
    # Refused are garbage and what the exchange machine refuses.
    assert len(held) == script.acts - len(script.garbage) - script.stories[5]
    # It gets hold of a body all the same, from a desk or a leaking relay.
    receiver = script.world.active(script.desks[0])[0]
    page = await here.relay.as_device(receiver, "GET", "/v1/mailbox?after=0&limit=1")
    _, _, core_bytes, _, stolen, *_ = page.value["items"][0]
    opened = desk.read(Core.parse(core_bytes).id)
    assert opened.act is None
    wrap = desk.state.connection.execute(
        "SELECT wrap FROM inbox WHERE envelope = ?", (opened.core.id,)
    ).fetchone()[0]
    threads = Threads(desk.state, Seeds(desk.state, desk.keys))
    own = threads.root(opened.core, wrap, desk.directory.desk(desk.profile.desk))
    for key in (own, audit_root(own), audit_key(own, opened.core.id)):
        with pytest.raises(OpenError):
            open_body(opened.core, stolen, key)
        with pytest.raises(OpenError):
            decrypt(key, Context.BODY, opened.core.id, stolen)


async def _count_shuffled(here: Office, salt: bytes) -> str:
    """Count the same steps in another order; gives the digest."""
    desk, whole = here.desk, here.counted
    steps, unaccounted = audited(desk)
    calendar, times = read_calendar(desk.state, whole.as_of), desk.times()
    deliveries = [
        Delivery(index, EnvelopeId(envelope), DeskId(receiver))
        for envelope, receiver, index in desk.state.connection.execute(
            "SELECT envelope, desk, leaf_index FROM stored"
        )
        if envelope in times
    ]
    leaves = {step.index for step in steps} | {one.index for one in deliveries}
    counted = count(
        sorted([*steps, *steps], key=lambda step: sha256(salt + step.envelope).digest()),
        clock=Clock(
            sealed={index: calendar.sealed(index) or 0 for index in sorted(leaves, reverse=True)},
            seen={step.index: times[step.envelope].seen_at or 0 for step in steps},
            stamped={
                step.index: at
                for step in reversed(steps)
                if (at := times[step.envelope].stamped_at) is not None
            },
            published=calendar.all[::-1],
            size=whole.size,
            as_of=whole.as_of,
            witnesses=3,
            least=MOVERS,
        ),
        party={id_: one.party for id_, one in reversed(list(desk.directory.desks.items()))},
        deliveries=sorted(deliveries, key=lambda one: sha256(salt + one.envelope).digest()),
        unaccounted=unaccounted[::-1],
    )
    return digest_of(counted).hex()


async def _remove(here: Office, *, every: int) -> int:
    """Leave out one act at a time: no digest stays; gives how many were left out."""
    connection, whole = here.desk.state.connection, digest_of(here.counted)
    leaves = [row[0] for row in connection.execute("SELECT leaf_index FROM inbox").fetchall()]
    digests = {whole}
    for index in leaves[::every]:
        connection.execute("SAVEPOINT whole")
        connection.execute("DELETE FROM inbox WHERE leaf_index = ?", (index,))
        digests.add(digest_of(await statistics(here.desk, is_online=False)))
        connection.execute("ROLLBACK TO whole")
        connection.execute("RELEASE whole")
    assert len(digests) == 1 + len(leaves[::every])
    return len(leaves[::every])


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_five_set_ups_give_one_digest_and_nothing_can_be_left_out(
    tmp_path: Path, postgres_url: str
) -> None:
    """[N-1] [N-2] [N-3] [N-4] The long form: 96 exchanges, and each act left out once."""
    script = write_script(EXCHANGES_LONG)
    async with office(script, tmp_path / "sqlite") as here:
        await fetched(here, tmp_path / "folder")
        figures = recount(here, tmp_path / "folder")
        _check_stories(here)
        await _check_bodies(here)
        digests = {digest_of(here.counted).hex()}
        digests |= {await _count_shuffled(here, bytes([salt])) for salt in range(20)}
        removed = await _remove(here, every=1)
    async with office(script, tmp_path / "postgresql", postgres_url) as other:
        digests.add(digest_of(other.counted).hex())
    for settings in ELSEWHERE:
        profile = tmp_path / "sqlite" / "office"
        digests.add(await count_elsewhere(tmp_path / "folder", profile, here.desk.keys, settings))

    assert len(digests) == 1
    assert removed == script.acts
    assert figures == {"exchanges": 90, "answered or refused": 72, "refused steps": 12}
