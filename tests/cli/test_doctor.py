"""The doctor finds what is wrong, says what to do, and fails with the right code."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import pytest

from comity_client.cli import run
from comity_client.cli.exits import Exit
from comity_client.cli.known import find_desk, name_of
from comity_client.cli.shell import NotFoundError
from comity_client.desk import Desk
from comity_client.keystore import Cost, DeviceKeys
from comity_client.profile import STATE_FILE, Deployment, Profile, read_profile
from comity_client.state import Newest, State, open_state
from comity_protocol.checkpoint import add_signatures, cosign, sign_checkpoint
from comity_protocol.identifiers import DeskId
from comity_protocol.keys import FastKey
from comity_protocol.merkle import EMPTY_ROOT
from comity_protocol.quorum import Quorum
from comity_protocol.statements import Authority
from support.world import ORIGIN, Member, World

NOW = 1_790_000_000
DAY = 86_400
PASSPHRASE = "correct horse battery staple"  # noqa: S105  # a test's
FLOOR = Cost(3, 64 * 1024 * 1024)


@dataclass
class Clinic:
    """A profile that was synchronised a moment ago, and a way to look at it."""

    folder: Path
    world: World
    member: Member
    capsys: pytest.CaptureFixture[str]

    def state(self) -> State:
        profile = read_profile(self.folder)
        return open_state(
            self.folder / STATE_FILE,
            genesis_hash=profile.deployment.genesis_hash,
            desk=profile.desk,
            device=profile.device,
        )

    def keep(
        self,
        *,
        sealed_at: int = NOW - 60,
        witnesses: int = 3,
        clocks: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Keep a checkpoint that so many witnesses cosigned then, or when their own clocks said."""
        note = sign_checkpoint(origin=ORIGIN, size=0, root=EMPTY_ROOT, key=self.world.log_key)
        keys = sorted(self.world.witness_keys.items())[:witnesses]
        note = add_signatures(
            note, [cosign(note, name, key, clocks.get(name, sealed_at)) for name, key in keys]
        )
        state = self.state()
        state.keep_newest(Newest(size=0, root=EMPTY_ROOT, note=note, sealed_at=sealed_at))
        state.close()

    def change(self, do: Callable[[State], None]) -> None:
        state = self.state()
        with state.transaction():
            do(state)
        state.close()

    def look(self) -> tuple[int, dict[str, tuple[str, str]]]:
        """Give the exit code, and level and text of each check by name."""
        code = run(["doctor", "--offline", "--json"], lambda: NOW)
        document = json.loads(self.capsys.readouterr().out)
        return code, {one["name"]: (one["level"], one["text"]) for one in document["checks"]}


@pytest.fixture
def clinic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Clinic:
    world = World.found()
    desk = world.create_desk("XA")
    member = world.active(desk)[0]
    folder = tmp_path / "profile"
    keys = DeviceKeys(member.fast, member.full, member.seal)
    deployment = Deployment("https://relay.example", world.statements[0][1].hash)
    Desk.create(folder, Profile(deployment, desk, member.id), keys, PASSPHRASE, cost=FLOOR)
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE)
    secret.chmod(0o600)
    monkeypatch.setenv("COMITY_PASSPHRASE_FILE", str(secret))
    monkeypatch.setenv("COMITY_PROFILE", str(folder))
    clinic = Clinic(folder, world, member, capsys)

    def fill(state: State) -> None:
        state.keep_genesis(world.statements[0][1].serialize())
        state.keep_desk(world.directory.desk(desk))
        box = dict(world.statements[-1][1].boxes)[member.id]
        state.keep_boxes({1: box}, {})

    clinic.change(fill)
    return clinic


def test_a_healthy_device_has_nothing_to_do(clinic: Clinic) -> None:
    clinic.keep()

    code, checks = clinic.look()

    assert code == Exit.OK
    assert {name for name, (level, _) in checks.items() if level != "ok"} == {"relay"}
    assert checks["witnesses"][1] == "3 of 3 cosigned the newest checkpoint, 2 needed"
    assert checks["desk keys"][1] == "this device reads epoch 1"


def test_a_profile_that_others_can_read_fails(clinic: Clinic) -> None:
    """[B-9]."""
    clinic.keep()
    (clinic.folder / "profile.json").chmod(0o644)

    code, checks = clinic.look()

    assert code == Exit.FAILED
    assert checks["permissions"][0] == "fail"


def test_a_clock_behind_the_witnesses_fails(clinic: Clinic) -> None:
    clinic.keep(sealed_at=NOW + 2 * 3_600)

    code, checks = clinic.look()

    assert code == Exit.FAILED
    assert checks["clock"] == ("fail", "this machine is 2 hours behind the witnesses")


@pytest.mark.parametrize("years", [10, -10])
def test_a_witness_whose_clock_is_years_off_is_named_and_fails_nothing(
    clinic: Clinic, years: int
) -> None:
    """[M-5]."""
    off = years * 365 * DAY
    clinic.keep(clocks={"witness1.example": NOW + off})

    code, checks = clinic.look()

    level, text = checks["clocks"]
    assert code == Exit.OK
    assert level == "warn"
    assert f"witness1.example {off + 60:+} s" in text
    assert checks["clock"][0] == "ok"


@pytest.mark.parametrize(("age", "level"), [(600, "ok"), (3_600, "warn"), (4 * DAY, "fail")])
def test_a_checkpoint_ages(clinic: Clinic, age: int, level: str) -> None:
    clinic.keep(sealed_at=NOW - age)

    assert clinic.look()[1]["checkpoint"][0] == level


def test_a_missing_witness_is_named(clinic: Clinic) -> None:
    clinic.keep(witnesses=2)

    code, checks = clinic.look()

    assert code == Exit.OK
    assert checks["witnesses"] == ("warn", "2 of 3 cosigned the newest checkpoint, 2 needed")


def test_a_quorum_that_is_not_reached_is_a_failed_verification(clinic: Clinic) -> None:
    """[L-3]."""
    clinic.keep(witnesses=1)

    code, checks = clinic.look()

    assert code == Exit.UNVERIFIED
    assert checks["witnesses"][0] == "fail"


def test_enough_witnesses_of_the_wrong_group_are_a_failed_verification(clinic: Clinic) -> None:
    """[L-3]"""
    policy = clinic.world.genesis.policy
    *states, neutral = policy.quorum.witnesses
    tree = Quorum(2, (Quorum(1, tuple(states), "States"), neutral), "both")
    nested = clinic.world.refounded(replace(policy, quorum=tree)).statements[0][1]
    clinic.keep(witnesses=2)

    def replace_genesis(state: State) -> None:
        state.connection.execute("UPDATE genesis SET signed = ?", (nested.serialize(),))

    clinic.change(replace_genesis)

    code, checks = clinic.look()

    assert code == Exit.UNVERIFIED
    expected = (
        "2 of 3 cosigned the newest checkpoint, 2 of States (1 of 2), witness2.example needed"
    )
    assert checks["witnesses"] == ("fail", expected)


def test_other_keys_in_the_directory_are_a_failed_verification(clinic: Clinic) -> None:
    clinic.keep()
    own = clinic.world.directory.desk(clinic.member.desk)
    swapped = replace(own.devices[clinic.member.id], fast=FastKey.generate().public)
    devices = MappingProxyType({**own.devices, clinic.member.id: swapped})
    clinic.change(lambda state: state.keep_desk(replace(own, devices=devices)))

    code, checks = clinic.look()

    assert code == Exit.UNVERIFIED
    assert checks["own entry"][1] == "the directory has other keys for this device than it holds"


@pytest.mark.parametrize(("days", "level"), [(29, "ok"), (31, "warn")])
def test_an_old_epoch_is_to_be_turned(clinic: Clinic, days: int, level: str) -> None:
    clinic.keep()
    clinic.change(lambda state: state.set_mark("epoch 1 seen at", NOW - 60 - days * DAY))

    code, checks = clinic.look()

    assert code == Exit.OK
    assert checks["epoch"] == (level, f"epoch 1, known here for {days} of 30 days")


def test_an_alarm_is_a_failed_verification(clinic: Clinic) -> None:
    clinic.keep()
    clinic.change(lambda state: state.alarm("fork", "two pasts", [b"evidence"], NOW))

    code, checks = clinic.look()

    assert code == Exit.UNVERIFIED
    assert checks["alarms"] == ("fail", "1; the newest: fork: two pasts")


def test_a_device_that_was_never_admitted_is_told_to_wait(
    tmp_path: Path, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new"
    keys = DeviceKeys.generate()
    deployment = Deployment("https://relay.example", bytes(32))
    Desk.create(
        folder, Profile(deployment, DeskId(bytes(16)), keys.device), keys, PASSPHRASE, cost=FLOOR
    )
    monkeypatch.setenv("COMITY_PROFILE", str(folder))

    code, checks = clinic.look()

    assert code == Exit.OK
    assert checks["desk"][0] == "warn"


def test_colours_are_left_out_when_nobody_looks(clinic: Clinic) -> None:
    clinic.keep()

    run(["doctor", "--offline"], lambda: NOW)

    assert "\x1b" not in clinic.capsys.readouterr().out


def test_a_desk_is_found_by_name_party_authority_or_digits() -> None:
    world = World.found()
    own, police, court = (
        world.create_desk("XA"),
        world.create_desk("XB"),
        world.create_desk("XB", Authority.COURT),
    )
    desks = dict(world.directory.desks)
    deployment = Deployment("https://relay.example", bytes(32))
    member = world.active(own)[0]
    profile = Profile(deployment, own, member.id, {police: "Colleagues"})

    assert find_desk("colleagues", profile, desks) == police
    assert find_desk("XB/court", profile, desks) == court
    assert find_desk("xb/police", profile, desks) == police
    assert find_desk(court.hex(), profile, desks) == court
    assert name_of(police, profile, desks) == "Colleagues"
    assert name_of(court, profile, desks) == f"XB/court {court.hex()[:8]}"
    with pytest.raises(NotFoundError, match=r"2 desks fit 'XB': XB/.*; write PARTY/authority"):
        find_desk("XB", profile, desks)
    assert find_desk(court.hex()[:8], profile, desks) == court
    with pytest.raises(NotFoundError, match="no desk is called 'XZ'"):
        find_desk("XZ", profile, desks)
    # A State's code may be made of hexadecimal digits, as DE and BE are.
    with pytest.raises(NotFoundError, match="no desk is called"):
        find_desk(court.hex()[:2], profile, desks)
