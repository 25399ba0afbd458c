"""The key store: what it keeps, and what it refuses to open."""

from pathlib import Path

import pytest

from comity_client.keystore import (
    Cost,
    CustodianKey,
    DeviceKeys,
    KeyStoreError,
    WeakPassphraseError,
    WrongPassphraseError,
    read_custodian_key,
    read_device_keys,
    write_keys,
)
from comity_protocol.encoding import parse, serialize
from comity_protocol.errors import LimitError

WORDS = "four words that do not"
FLOOR = Cost(3, 64 * 1024 * 1024)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, DeviceKeys]:
    """One key store at the lowest cost, because stretching is slow by design."""
    path, keys = tmp_path_factory.mktemp("keys") / "keys", DeviceKeys.generate()
    write_keys(path, keys, WORDS, FLOOR)
    assert path.stat().st_mode & 0o777 == 0o600
    return path.read_bytes(), keys


def put(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_keys_come_back_as_they_were(tmp_path: Path, written: tuple[bytes, DeviceKeys]) -> None:
    data, keys = written
    found = read_device_keys(put(tmp_path / "keys", data), WORDS)

    assert (found.fast.seed, found.full.seed) == (keys.fast.seed, keys.full.seed)
    assert (found.seal.seed, found.device) == (keys.seal.seed, keys.device)


def test_a_passphrase_typed_on_another_keyboard_is_the_same(tmp_path: Path) -> None:
    key = CustodianKey.generate()
    write_keys(tmp_path / "keys", key, "caf\u00e9 caf\u00e9 caf\u00e9", FLOOR)

    found = read_custodian_key(tmp_path / "keys", "cafe\u0301 cafe\u0301 cafe\u0301")
    assert found.id == key.id


def test_a_wrong_passphrase_opens_nothing(
    tmp_path: Path, written: tuple[bytes, DeviceKeys]
) -> None:
    with pytest.raises(WrongPassphraseError, match="does not open with this passphrase"):
        read_device_keys(put(tmp_path / "keys", written[0]), WORDS + "x")


def test_a_short_passphrase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeakPassphraseError, match="shorter than 12"):
        write_keys(tmp_path / "keys", DeviceKeys.generate(), "short", FLOOR)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_store_that_others_can_read_is_refused(
    tmp_path: Path, written: tuple[bytes, DeviceKeys], mode: int
) -> None:
    # [B-9]
    with pytest.raises(KeyStoreError, match="can be read by others"):
        read_device_keys(put(tmp_path / "keys", written[0], mode), WORDS)


@pytest.mark.parametrize("change", [{"v": 2}, {"t": "other"}, {"more": 1}, {"salt": b"short"}])
def test_a_store_of_an_unknown_version_is_refused(
    tmp_path: Path, written: tuple[bytes, DeviceKeys], change: dict[str, int | str | bytes]
) -> None:
    # [B-10]
    header = parse(written[0])
    assert isinstance(header, dict)
    with pytest.raises(KeyStoreError, match="not a key store of this version"):
        read_device_keys(put(tmp_path / "keys", serialize({**header, **change})), WORDS)


@pytest.mark.parametrize("change", [{"ops": 1}, {"memory": 1024}])
def test_a_store_that_asks_for_a_cheap_guess_is_refused(
    tmp_path: Path, written: tuple[bytes, DeviceKeys], change: dict[str, int]
) -> None:
    # [B-10] [K-6]
    header = parse(written[0])
    assert isinstance(header, dict)
    with pytest.raises(LimitError):
        read_device_keys(put(tmp_path / "keys", serialize({**header, **change})), WORDS)


def test_parameters_are_bound_to_what_they_protect(
    tmp_path: Path, written: tuple[bytes, DeviceKeys]
) -> None:
    header = parse(written[0])
    assert isinstance(header, dict)
    with pytest.raises(WrongPassphraseError):
        read_device_keys(put(tmp_path / "keys", serialize({**header, "ops": 4})), WORDS)


def test_a_custodians_key_is_not_taken_for_a_devices(
    tmp_path: Path, written: tuple[bytes, DeviceKeys]
) -> None:
    with pytest.raises(KeyStoreError, match="expected a custodian's key"):
        read_custodian_key(put(tmp_path / "keys", written[0]), WORDS)


def test_a_missing_or_oversized_store_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreError, match="cannot be read"):
        read_device_keys(tmp_path / "keys", WORDS)
    with pytest.raises(KeyStoreError, match="larger than"):
        read_device_keys(put(tmp_path / "keys", bytes(5_000)), WORDS)


def test_secrets_do_not_stand_in_a_repr() -> None:
    keys, custodian = DeviceKeys.generate(), CustodianKey.generate()

    assert repr(keys) == f"DeviceKeys(device={keys.device.hex()})"
    assert custodian.full.seed.hex() not in repr(custodian)
