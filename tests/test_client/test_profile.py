"""The profile of a device, and the line by which a deployment is handed over."""

from pathlib import Path
from types import MappingProxyType

import pytest

from comity_client.profile import Deployment, Profile, ProfileError, read_profile, write_profile
from comity_client.state import Newest, StateError, create_state, open_state
from comity_protocol.identifiers import DeskId, DeviceId

HASH = bytes(range(32))
DESK = DeskId(bytes([1]) * 16)
OTHER = DeskId(bytes([2]) * 16)


def profile(url: str = "https://relay.example") -> Profile:
    names = MappingProxyType({OTHER: "Bravo"})
    return Profile(Deployment(url, HASH), DESK, DeviceId(bytes(16)), names)


def test_a_deployment_line_says_where_and_which() -> None:
    line = profile().deployment.serialize()

    assert line == f"comity:https://relay.example#{HASH.hex()}"
    assert Deployment.parse(line + "\n") == profile().deployment


@pytest.mark.parametrize(
    "line",
    [
        "https://relay.example#" + HASH.hex(),
        "comity:https://relay.example",
        "comity:https://relay.example#" + HASH.hex()[2:],
        "comity:https://relay.example#zz",
        "comity:http://relay.example#" + HASH.hex(),
        "comity:https://relay.example/#" + HASH.hex(),
        "comity:https://who@relay.example#" + HASH.hex(),
    ],
)
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(ProfileError):
        Deployment.parse(line)


def test_a_relay_on_the_own_machine_needs_no_tls() -> None:
    assert Deployment("http://127.0.0.1:8440", HASH).url == "http://127.0.0.1:8440"


def test_a_profile_comes_back_as_it_was(tmp_path: Path) -> None:
    write_profile(tmp_path / "new", profile())

    assert read_profile(tmp_path / "new") == profile()
    assert (tmp_path / "new" / "profile.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{}", '{"version": 2}', "[]"])
def test_a_profile_that_cannot_be_read_is_named_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "profile.json").write_text(text)

    with pytest.raises(ProfileError, match="cannot be read"):
        read_profile(tmp_path)


def test_no_profile_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no profile in this folder"):
        read_profile(tmp_path)


def test_a_memory_is_of_one_device_and_its_owners_alone(tmp_path: Path) -> None:
    # [B-9]
    path = tmp_path / "state.db"
    create_state(path, genesis_hash=HASH, desk=DESK, device=bytes(16)).close()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StateError, match="another version, deployment, desk or device"):
        open_state(path, genesis_hash=HASH, desk=OTHER, device=bytes(16))
    with pytest.raises(StateError, match="there already"):
        create_state(path, genesis_hash=HASH, desk=DESK, device=bytes(16))
    path.chmod(0o644)

    with pytest.raises(StateError, match="can be read by others"):
        open_state(path, genesis_hash=HASH, desk=DESK, device=bytes(16))


def test_a_damaged_or_missing_memory_is_named_so(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with pytest.raises(StateError, match="cannot be opened"):
        open_state(path, genesis_hash=HASH, desk=DESK, device=bytes(16))
    path.write_bytes(b"no database at all" * 100)
    path.chmod(0o600)

    with pytest.raises(StateError, match="is damaged"):
        open_state(path, genesis_hash=HASH, desk=DESK, device=bytes(16))


def test_the_newest_checkpoint_is_never_replaced_by_an_older_one(tmp_path: Path) -> None:
    # [B-6]
    state = create_state(tmp_path / "state.db", genesis_hash=HASH, desk=DESK, device=bytes(16))
    new = Newest(size=5, root=HASH, note=b"new", sealed_at=50)

    kept = [state.keep_newest(new)]
    for size, sealed_at in ((4, 60), (5, 50), (5, 40)):
        kept.append(
            state.keep_newest(Newest(size=size, root=HASH, note=b"old", sealed_at=sealed_at))
        )
    assert kept == [True, False, False, False]
    assert state.newest() == new
    state.close()


def test_an_alarm_is_kept_once(tmp_path: Path) -> None:
    state = create_state(tmp_path / "state.db", genesis_hash=HASH, desk=DESK, device=bytes(16))
    for _ in range(2):
        state.alarm("gap", "relay left out counter 2 before 3", [2, 3], 100)

    assert [(alarm.kind, alarm.noticed_at) for alarm in state.alarms()] == [("gap", 100)]
    state.close()
