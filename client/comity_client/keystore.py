"""The key store: a device's or a custodian's secret keys in one file, under a passphrase.

The passphrase is stretched with Argon2id and opens a small XChaCha20-Poly1305 box. The parameters
stand beside the box and are bound to it. Nothing else of a profile is secret by itself: sealed
boxes and sealed envelopes lie in the state database and open only with these keys.

Rules:

* [B-9] The file is readable by its owner alone, and a looser one is refused.
* [B-10] An unknown version or kind, and parameters below the floor, are refused.

A thief of the file has to guess the passphrase at 256 MiB and about a second a guess. Python cannot
wipe memory reliably, so keys of an open desk must be taken to lie in the machine's memory.
"""

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity_client.files import is_private, write_private
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import ComityError, OpenError
from comity_protocol.fields import Fields
from comity_protocol.identifiers import DeviceId
from comity_protocol.keys import (
    FULL_SEED_BYTES,
    KEY_BYTES,
    SALT_BYTES,
    Context,
    FastKey,
    FullKey,
    SealKey,
    box_decrypt,
    box_encrypt,
    key_id,
    random_bytes,
    stretch,
)
from comity_protocol.limits import STRETCH_MEMORY_BYTES_MAX, STRETCH_OPS_MAX

PASSPHRASE_CHARACTERS_MIN: Final = 12
"""Shorter ones are guessed even at a second a guess."""

_FILE_BYTES_MAX: Final = 4_096
_BOX_BYTES_MAX: Final = 1_024


class KeyStoreError(ComityError):
    """A key store that is missing, damaged, too open, or of an unknown kind."""

    code = "key-store"
    remedy = "restore the file from your own backup, or enrol this device anew"


class WrongPassphraseError(ComityError):
    """The passphrase does not open the key store."""

    code = "wrong-passphrase"
    remedy = "type the passphrase again; if it is lost, enrol this device anew"


class WeakPassphraseError(ComityError):
    """A new passphrase that is too short."""

    code = "weak-passphrase"
    remedy = "choose at least 12 characters, for example four words that do not belong together"


@dataclass(frozen=True, slots=True)
class Cost:
    """How much a guess costs: Argon2id passes and bytes of memory."""

    ops: int = 3
    memory_bytes: int = 256 * 1024 * 1024


DEFAULT_COST: Final = Cost()


@dataclass(frozen=True, slots=True, repr=False)
class DeviceKeys:
    """The three keys of an officer's device; none is ever used for another's purpose.

    Attributes:
        fast: Signs envelopes, receipts and request tokens.
        full: Signs statements and formal acts.
        seal: Opens the epoch boxes that are sealed to this device.
    """

    fast: FastKey
    full: FullKey
    seal: SealKey

    @classmethod
    def generate(cls) -> "DeviceKeys":
        """Make new random keys."""
        return cls(FastKey.generate(), FullKey.generate(), SealKey.generate())

    @property
    def device(self) -> DeviceId:
        """The device's id, which its composite key gives it."""
        return DeviceId(key_id(self.full.public))

    def __repr__(self) -> str:
        """Show the device only, because a repr ends in logs."""
        return f"DeviceKeys(device={self.device.hex()})"


@dataclass(frozen=True, slots=True, repr=False)
class CustodianKey:
    """The key of one of a State's custodians."""

    full: FullKey

    @classmethod
    def generate(cls) -> "CustodianKey":
        """Make a new random key."""
        return cls(FullKey.generate())

    @property
    def id(self) -> bytes:
        """The key id by which roots and signatures name the custodian."""
        return key_id(self.full.public)

    def __repr__(self) -> str:
        """Show the id only, because a repr ends in logs."""
        return f"CustodianKey(id={self.id.hex()})"


Keys = DeviceKeys | CustodianKey


def write_keys(path: Path, keys: Keys, passphrase: str, cost: Cost = DEFAULT_COST) -> None:
    """Write a new key store, or replace one, durably and readable by its owner alone.

    Raises:
        WeakPassphraseError: The passphrase is too short.
        LimitError: The cost is below the floor or above the ceiling.
    """
    if len(unicodedata.normalize("NFKC", passphrase)) < PASSPHRASE_CHARACTERS_MIN:
        raise WeakPassphraseError(
            f"passphrase is shorter than {PASSPHRASE_CHARACTERS_MIN} characters"
        )
    salt = random_bytes(SALT_BYTES)
    key = stretch(passphrase, salt, cost.ops, cost.memory_bytes)
    box = box_encrypt(key, Context.KEY_STORE, _info(salt, cost), _write(keys))
    file: dict[str, Value] = {
        "v": 1,
        "t": "keys",
        "ops": cost.ops,
        "memory": cost.memory_bytes,
        "salt": salt,
        "box": box,
    }
    write_private(path, serialize(file))


def read_device_keys(path: Path, passphrase: str) -> DeviceKeys:
    """Open the key store of a device.

    Raises:
        KeyStoreError: It is missing, damaged, readable by others, or not a device's.
        WrongPassphraseError: The passphrase does not open it.
        LimitError: It asks for a cheaper or a more expensive guess than allowed.
    """
    keys = _read(path, passphrase)
    if not isinstance(keys, DeviceKeys):
        raise KeyStoreError(f"{path.name} holds a custodian's key, expected a device's keys")
    return keys


def read_custodian_key(path: Path, passphrase: str) -> CustodianKey:
    """Open the key store of a custodian; raises as ``read_device_keys`` does."""
    keys = _read(path, passphrase)
    if not isinstance(keys, CustodianKey):
        raise KeyStoreError(f"{path.name} holds a device's keys, expected a custodian's key")
    return keys


def _read(path: Path, passphrase: str) -> Keys:
    data = _read_file(path)
    try:
        fields = Fields.of(parse(data), "key store", {"v", "t", "ops", "memory", "salt", "box"})
        # SPEC [B-10]: an unknown version or kind, and parameters below the floor, are refused.
        fields.integer("v", low=1, high=1)
        fields.text("t", choices=["keys"])
        cost = Cost(
            fields.integer("ops", high=STRETCH_OPS_MAX),
            fields.integer("memory", high=STRETCH_MEMORY_BYTES_MAX),
        )
        salt = fields.bytes("salt", length=SALT_BYTES)
        box = fields.bytes("box", high=_BOX_BYTES_MAX)
    except ComityError as error:
        raise KeyStoreError(f"{path.name} is not a key store of this version: {error}") from error
    key = stretch(passphrase, salt, cost.ops, cost.memory_bytes)
    try:
        plaintext = box_decrypt(key, Context.KEY_STORE, _info(salt, cost), box)
    except OpenError as error:
        raise WrongPassphraseError(
            f"key file {path.name} does not open with this passphrase"
        ) from error
    return _parse(plaintext)


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # SPEC [B-9]: the file is readable by its owner alone, and a looser one is refused.
            if not is_private(file.fileno()):
                raise KeyStoreError(f"{path.name} can be read by others, expected mode 600")
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise KeyStoreError(f"{path.name} cannot be read: {error.strerror}") from error
    if len(data) > _FILE_BYTES_MAX:
        raise KeyStoreError(f"{path.name} is larger than {_FILE_BYTES_MAX:,} bytes")
    return data


def _write(keys: Keys) -> bytes:
    match keys:
        case DeviceKeys(fast, full, seal):
            seeds = {"fast": fast.seed, "full": full.seed, "seal": seal.seed}
            return serialize({"v": 1, "t": "device", **seeds})
        case CustodianKey(full):
            return serialize({"v": 1, "t": "custodian", "full": full.seed})


def _parse(plaintext: bytes) -> Keys:
    try:
        fields = Fields.of(parse(plaintext), "keys", {"v", "t", "full"}, {"fast", "seal"})
        fields.integer("v", low=1, high=1)
        full = FullKey.from_seed(fields.bytes("full", length=FULL_SEED_BYTES))
        if fields.text("t", choices=["device", "custodian"]) == "custodian":
            return CustodianKey(full)
        return DeviceKeys(
            FastKey.from_seed(fields.bytes("fast", length=KEY_BYTES)),
            full,
            SealKey.from_seed(fields.bytes("seal", length=KEY_BYTES)),
        )
    except (ComityError, KeyError) as error:
        raise KeyStoreError("key store opens but holds keys of another version") from error


def _info(salt: bytes, cost: Cost) -> bytes:
    """Bind the parameters, so that a file cannot be edited into one that asks for others."""
    return serialize([salt, cost.ops, cost.memory_bytes])
