"""The relay's two secret keys and its genesis, as files that only their owner may read."""

import os
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey

from comity_protocol.errors import MalformedError
from comity_protocol.genesis import Genesis, verify_genesis
from comity_protocol.keys import FastKey
from comity_protocol.signed_note import KeyType, VerifierKey
from comity_protocol.statements import SignedStatement
from comity_server.settings import Settings, SettingsError

_SEED_BYTES: Final = 32
_OTHERS: Final = 0o077
_GENESIS_BYTES_MAX: Final = 4 * 1024 * 1024


def create_keys(settings: Settings, origin: str) -> dict[str, str]:
    """Draw the log's and the relay's keys; give their public halves, as the genesis needs them.

    Raises:
        SettingsError: There are keys already, or the origin cannot be a name of a log.
    """
    log_key, relay_key = SigningKey.generate(), FastKey.generate()
    try:
        vkey = VerifierKey(origin, KeyType.ED25519, bytes(log_key.verify_key)).serialize()
    except ValueError as error:
        raise SettingsError(f"origin cannot be used: {error}") from error
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (settings.log_key_path, settings.relay_key_path):
        if path.exists():
            raise SettingsError(f"{path} is there already; a key is never drawn twice")
    _write(settings.log_key_path, bytes(log_key))
    _write(settings.relay_key_path, relay_key.seed)
    return {
        "origin": origin,
        "vkey": vkey,
        "log": bytes(log_key.verify_key).hex(),
        "relay": relay_key.public.hex(),
    }


def read_log_key(settings: Settings) -> SigningKey:
    """Read the log's key, which only the signer needs.

    Raises:
        SettingsError: The file is missing, of another length, or readable by others.
    """
    return SigningKey(_read_secret(settings.log_key_path))


def read_relay_key(settings: Settings) -> FastKey:
    """Read the relay's key, likewise."""
    return FastKey(_read_secret(settings.relay_key_path))


def check_keys(genesis: Genesis, log_key: SigningKey | None, relay_key: FastKey | None) -> None:
    """Check that the keys here are those that the founding States named.

    Args:
        genesis: Of the deployment.
        log_key: None where the signer is elsewhere.
        relay_key: None where only the signer is.

    Raises:
        SettingsError: One is not.
    """
    if log_key is not None and bytes(log_key.verify_key) != genesis.log.public_key:
        raise SettingsError("log key of this folder is not the one that the genesis names")
    if relay_key is not None and relay_key.public != genesis.relay_key:
        raise SettingsError("relay key of this folder is not the one that the genesis names")


def install_genesis(settings: Settings, file: Path) -> Genesis:
    """Check a genesis against its founding States' signatures and the keys here, and keep it.

    Raises:
        ComityError: It is malformed, not fully signed, or names other keys.
        SettingsError: Another one is installed already.
    """
    signed = _read_genesis(file)
    genesis = verify_genesis(signed)
    has_log, has_relay = settings.log_key_path.exists(), settings.relay_key_path.exists()
    # The signer's folder has only the log's key, and that of a relay with such a signer only its
    # own. Where neither is, the relay's is missed by name.
    log_key = read_log_key(settings) if has_log else None
    relay_key = read_relay_key(settings) if has_relay or not has_log else None
    check_keys(genesis, log_key, relay_key)
    installed = settings.genesis_path
    if installed.exists() and _read_genesis(installed).hash != signed.hash:
        raise SettingsError(f"{installed} is another genesis; a relay serves one deployment")
    if not installed.exists():
        _write(installed, signed.serialize())
    return genesis


def read_genesis(settings: Settings) -> SignedStatement:
    """Read the installed genesis.

    Raises:
        SettingsError: None is installed.
    """
    if not settings.genesis_path.exists():
        raise SettingsError(
            f"{settings.data} has no genesis; run comity-relay init --data {settings.data}"
            " --genesis FILE first"
        )
    return _read_genesis(settings.genesis_path)


def _read_genesis(path: Path) -> SignedStatement:
    try:
        with path.open("rb") as file:
            data = file.read(_GENESIS_BYTES_MAX + 1)
    except OSError as error:
        raise SettingsError(f"genesis {path} cannot be read: {error.strerror}") from error
    if len(data) > _GENESIS_BYTES_MAX:
        raise MalformedError(f"genesis is longer than {_GENESIS_BYTES_MAX:,} bytes")
    try:
        return SignedStatement.parse(data)
    except MalformedError as error:
        raise SettingsError(
            f"{path} is not a signed genesis; name the FILE.signed that the last signature wrote"
        ) from error


def _write(path: Path, data: bytes) -> None:
    """Write a new file that only its owner may read, and flush it with its folder."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read_secret(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        seed = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"key {path} cannot be read: {error.strerror}; run comity-relay keys first"
        ) from error
    if mode & _OTHERS:
        raise SettingsError(f"key {path} can be read by others; run chmod 600 {path}")
    if len(seed) != _SEED_BYTES:
        raise SettingsError(f"key {path} has {len(seed)} bytes, expected {_SEED_BYTES}")
    return seed
