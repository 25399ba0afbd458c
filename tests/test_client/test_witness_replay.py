"""A witness that replays does not let a relay put into the log what nobody may state: [W-5].

The relay here holds the log key and says what it likes.
"""

from pathlib import Path

import pytest

from comity_protocol.encoding import parse
from comity_protocol.errors import VerificationError
from comity_protocol.identifiers import OfficerId
from comity_protocol.keys import random_bytes
from comity_protocol.leaves import LEAF_BYTES
from comity_protocol.statements import Role, SignedStatement
from comity_protocol.witnessing import Cosigned, Refused
from support.hostile_log import HostileLog, replaying
from support.relay import small_world
from support.world import Member, World

NOW = 1_800_000_000


@pytest.fixture
def log() -> HostileLog:
    world, *_ = small_world()
    return HostileLog.of(world)


def ghost(world: World) -> SignedStatement:
    """State that a device joins a desk, signed by nobody of that desk: the relay's own spy."""
    (desk, *_) = world.directory.desks
    return world.admission(Member(desk, OfficerId(random_bytes(16)), Role.OFFICER), by=())


async def test_a_witness_that_replays_cosigns_an_honest_log(
    tmp_path: Path, log: HostileLog
) -> None:
    """[W-5]"""
    with replaying(tmp_path, log) as witness:
        assert isinstance(await witness.ask_for_all(), Cosigned)
        log.carry(3)
        assert isinstance(await witness.ask_for_all(), Cosigned)
        (desk, *_) = log.world.directory.desks
        log.world.admit(desk)
        log.state(log.world.statements[-1][1])
        assert isinstance(await witness.ask_for_all(), Cosigned)

        directory = witness.replay.directory
        assert directory is not None
        assert directory.devices == log.world.directory.devices


async def test_a_device_that_nobody_let_in_is_not_witnessed(
    tmp_path: Path, log: HostileLog, caplog: pytest.LogCaptureFixture
) -> None:
    """[W-5] The ghost device: with it a relay could read what is sealed to the desk."""
    with replaying(tmp_path, log) as witness:
        await witness.ask_for_all()
        log.state(spy := ghost(log.world))
        log.carry(1)

        assert await witness.ask_for_all() == Refused(422)
        assert await witness.ask_for_all() == Refused(422)

        (evidence,) = witness.folder.state.evidence()
        known = parse(evidence.known)
        assert isinstance(known, dict)
        assert (evidence.kind, evidence.offered) == ("statement", log.offer(0).note)
        assert known["entry"] == log.leaves_[-2]
        assert SignedStatement.parse(bytes_of(known["statement"])).payload == spy.payload
        assert "alarm: checkpoint at size" in caplog.text
        assert "[S-3]" in caplog.text


def bytes_of(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value


async def test_a_statement_that_is_withheld_is_not_witnessed_until_it_is_given(
    tmp_path: Path, log: HostileLog
) -> None:
    """[W-5]"""
    withheld = log.given.pop()
    with replaying(tmp_path, log) as witness:
        assert await witness.ask_for_all() == Refused(422)
        (evidence,) = witness.folder.state.evidence()
        assert evidence.kind == "statement"

        log.given.append(withheld)
        assert isinstance(await witness.ask_for_all(), Cosigned)


async def test_another_statement_than_that_of_the_entry_is_not_witnessed(
    tmp_path: Path, log: HostileLog
) -> None:
    """[W-5]"""
    log.given[1], log.given[2] = log.given[2], log.given[1]
    with replaying(tmp_path, log) as witness:
        assert await witness.ask_for_all() == Refused(422)


async def test_a_statement_that_is_logged_twice_is_not_witnessed(
    tmp_path: Path, log: HostileLog
) -> None:
    """[W-5]"""
    log.state(log.given[-1])
    with replaying(tmp_path, log) as witness:
        assert await witness.ask_for_all() == Refused(422)


async def test_entries_other_than_those_signed_are_not_witnessed(
    tmp_path: Path, log: HostileLog
) -> None:
    """[W-5]"""
    with replaying(tmp_path, log) as witness:
        await witness.ask_for_all()
        log.carry(5)
        log.shown[log.size - 2] = b"\x00" + bytes(LEAF_BYTES - 1)

        assert await witness.ask_for_all() == Refused(422)
        assert [one.kind for one in witness.folder.state.evidence()] == ["unproven"]

        log.shown.clear()
        assert isinstance(await witness.ask_for_all(), Cosigned)


async def test_a_statement_hidden_as_another_entry_is_not_witnessed(
    tmp_path: Path, log: HostileLog
) -> None:
    """[W-5] The first byte says what is a statement; there is no third kind."""
    log.leaves_.append(b"\x02" + bytes(LEAF_BYTES - 1))
    with replaying(tmp_path, log) as witness:
        assert await witness.ask_for_all() == Refused(422)


async def test_a_log_that_does_not_begin_with_the_pinned_genesis_is_not_witnessed(
    tmp_path: Path, log: HostileLog
) -> None:
    """[D-1] [W-5]"""
    with replaying(tmp_path / "one", log, pinned=bytes(32)) as witness:
        assert await witness.ask_for_all() == Refused(422)
    log.leaves_.insert(0, b"\x00" + bytes(LEAF_BYTES - 1))
    with replaying(tmp_path / "other", log) as witness:
        assert await witness.ask_for_all() == Refused(422)


async def test_a_relay_that_does_not_show_its_entries_is_asked_again_later(
    tmp_path: Path, log: HostileLog
) -> None:
    with replaying(tmp_path, log) as witness:
        log.is_gone = True
        assert await witness.ask_for_all() == Refused(503)
        log.is_gone, hidden = False, log.leaves_[-1]
        request = log.offer(0)
        log.leaves_.pop()
        assert await witness.ask(request) == Refused(503)
        log.leaves_.append(hidden)

        assert witness.folder.state.evidence() == ()
        assert isinstance(await witness.ask_for_all(), Cosigned)


async def test_a_long_replay_goes_on_where_it_was(tmp_path: Path, log: HostileLog) -> None:
    log.page, log.stalls_at = 3, 6
    with replaying(tmp_path, log, seconds_max=0.5) as witness:
        assert await witness.ask_for_all() == Refused(503)
        assert log.asked == [0, 3, 6]
        log.stalls_at = None

        assert isinstance(await witness.ask_for_all(), Cosigned)
        assert log.asked[:5] == [0, 3, 6, 6, 9]


async def test_what_was_replayed_survives_a_restart(tmp_path: Path, log: HostileLog) -> None:
    """[W-5]"""
    with replaying(tmp_path, log) as witness:
        await witness.ask_for_all()
    log.asked.clear()
    size = log.size
    log.carry(1)
    with replaying(tmp_path, log) as witness:
        directory = witness.replay.directory
        assert directory is not None
        assert directory.desks.keys() == log.world.directory.desks.keys()
        assert isinstance(await witness.ask_for_all(), Cosigned)
        assert log.asked == [size]
        log.state(ghost(log.world))
        assert await witness.ask_for_all() == Refused(422)


async def test_what_was_replayed_and_not_cosigned_is_forgotten_by_a_restart(
    tmp_path: Path, log: HostileLog
) -> None:
    """[W-5] A relay that dies between its signature and the cosignature may sign other entries."""
    with replaying(tmp_path, log) as witness:
        await witness.ask_for_all()
        desk, *_ = log.world.directory.desks
        log.world.admit(desk)
        log.state(log.world.statements[-1][1])
        await witness.replay.catch_up(log.size)
        assert witness.replay.size == log.size
    log.leaves_.pop()
    log.given.pop()
    log.carry(1)
    with replaying(tmp_path, log) as witness:
        assert witness.replay.size == log.size - 1
        assert isinstance(await witness.ask_for_all(), Cosigned)


async def test_entries_that_were_replayed_early_and_changed_are_not_witnessed(
    tmp_path: Path, log: HostileLog
) -> None:
    with replaying(tmp_path, log) as witness:
        await witness.replay.catch_up(log.size)
        log.leaves_[-1] = b"\x00" + bytes(LEAF_BYTES - 1)

        assert await witness.ask_for_all() == Refused(422)
        # It has dropped what it had, and the next look is at what is signed now.
        assert isinstance(await witness.ask_for_all(), Cosigned)


async def test_a_witness_that_begins_to_replay_late_looks_at_all_that_it_cosigned(
    tmp_path: Path, log: HostileLog
) -> None:
    """[W-5]"""
    for folder in ("honest", "hostile"):
        with replaying(tmp_path / folder, log, is_replaying=False) as witness:
            await witness.ask_for_all()
    log.carry(1)
    with replaying(tmp_path / "honest", log) as witness:
        assert isinstance(await witness.ask_for_all(), Cosigned)
    log.shown[3] = b"\x00" + bytes(LEAF_BYTES - 1)
    with replaying(tmp_path / "hostile", log) as witness:
        assert await witness.ask_for_all() == Refused(422)


async def test_an_offer_that_is_refused_anyway_costs_no_look_at_the_entries(
    tmp_path: Path, log: HostileLog
) -> None:
    with replaying(tmp_path, log) as witness:
        await witness.ask_for_all()
        log.asked.clear()
        await witness.ask(log.offer(3))
        assert log.asked == []


async def test_a_clock_that_went_back_loses_nothing_of_the_replay(
    tmp_path: Path, log: HostileLog
) -> None:
    """[W-3] [W-5]"""
    with replaying(tmp_path, log, now=NOW + 10) as witness:
        await witness.ask_for_all()
    log.carry(2)
    with replaying(tmp_path, log, now=NOW) as witness:
        assert await witness.ask_for_all() == Refused(503)
    with replaying(tmp_path, log, now=NOW + 10) as witness:
        assert isinstance(await witness.ask_for_all(), Cosigned)


async def test_a_folder_of_another_deployment_is_not_used(tmp_path: Path, log: HostileLog) -> None:
    """[D-1]"""
    with replaying(tmp_path, log) as witness:
        await witness.ask_for_all()

    with (
        pytest.raises(VerificationError, match="another deployment"),
        replaying(tmp_path, log, pinned=bytes(32)),
    ):
        pass
