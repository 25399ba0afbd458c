"""A folder that was fetched from a relay gives the same figures with the relay switched off."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from comity_client.audit_archive import Archive
from comity_client.audit_desk import MemberRelay, fetch_desk
from comity_client.audit_fetch import fetch
from comity_client.audit_findings import Finding
from comity_client.audit_source import Source
from comity_client.desk import token_maker
from comity_client.drafts import Draft
from comity_client.keystore import DeviceKeys
from comity_client.profile import Profile
from comity_client.relay_answers import Boxes
from comity_client.secretariat import statistics, statistics_of
from comity_protocol.counting import Statistics, digest_of
from comity_protocol.errors import ComityError
from support.desks import LEAD
from test_client.test_secretariat import region


@dataclass(frozen=True)
class Fetched:
    """A folder of a region's log, what a secretariat counted before, and what opens it."""

    folder: Path
    profile: Profile
    keys: DeviceKeys
    boxes: Boxes
    counted: Statistics

    async def count(self) -> Statistics:
        """Count from the folder; there is no relay any more."""
        return await statistics_of(
            Archive(self.folder), self.profile, self.keys, self.boxes, lambda: 0
        )


async def fetched(path: Path) -> Fetched:
    """Let a region speak, count, fetch its log into a folder, and switch everything off."""
    async with region(path) as here:
        for _ in range(3):
            here.alice.lead(here.receiver, LEAD)
        await here.alice.flush()
        await here.bob.fetch()
        here.bob.answer(here.bob.exchanges()[0].id, Draft(text="nothing is known here"))
        await here.bob.flush()
        await here.relay.seal()
        await here.alice.fetch()
        await here.relay.seal()
        desk, found = here.secretariat, list[Finding]()
        await desk.fetch()
        counted = await statistics(desk)
        archive, genesis = Archive(path / "folder"), here.relay.world.genesis
        maker = token_maker(desk.profile, desk.keys)
        async with Source(here.relay.url) as source:
            await fetch(archive, source, desk.profile.deployment.genesis_hash, report=found.append)
        async with MemberRelay(here.relay.url, maker) as relay:
            assert isinstance(relay, MemberRelay)
            await fetch_desk(archive, relay, genesis, found.append)
        assert found == []
        boxes = Boxes(*desk.state.boxes())
        return Fetched(archive.folder, desk.profile, desk.keys, boxes, counted)


async def test_a_folder_gives_the_same_digest_with_the_relay_switched_off(tmp_path: Path) -> None:
    """[N-1] [N-2] [M-1] Whoever keeps the folder needs neither the relay nor the program's file."""
    here = await fetched(tmp_path)

    counted = await here.count()

    assert counted.rows == here.counted.rows
    assert len(counted.rows) == 3
    assert [row.delivered_at is None for row in counted.rows] == [False] * 3
    assert digest_of(counted) == digest_of(here.counted)


@pytest.mark.parametrize("spoiled", ["tile/0/000.p", "desk/mailbox", "statements.cbor"])
async def test_a_folder_that_was_spoiled_gives_no_other_figures(
    tmp_path: Path, spoiled: str
) -> None:
    """[B-1] [L-2]"""
    here = await fetched(tmp_path)
    place = here.folder / spoiled
    (path, *_) = sorted(place.iterdir()) if place.is_dir() else [place]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))

    try:
        counted = await here.count()
    except ComityError:
        return
    # What cannot be proven any more is missing.
    assert digest_of(counted) != digest_of(here.counted)


async def test_counting_a_folder_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await fetched(tmp_path)
    scratch = tmp_path / "scratch"
    await asyncio.to_thread(scratch.mkdir)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))

    await here.count()

    assert list(scratch.iterdir()) == []
