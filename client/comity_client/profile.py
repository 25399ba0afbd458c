"""A profile: the folder in which a device keeps what it needs to be its desk's.

    profile.json   what was pinned at enrolment and what the officer calls other desks; no secret
    keys           the key store
    state.db       what was received and is to be sent, sealed

A deployment is handed to a newcomer as one line, ``comity:<relay address>#<hash of the genesis>``,
over a channel that is not the relay: everything else is verified from that hash.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from comity_client.files import write_private
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import ID_BYTES, DeploymentId, DeskId, DeviceId, parse_id
from comity_protocol.merkle import HASH_BYTES

PROFILE_FILE: Final = "profile.json"
KEYS_FILE: Final = "keys"
STATE_FILE: Final = "state.db"

_SCHEME: Final = "comity:"
_PROFILE_BYTES_MAX: Final = 1_048_576
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class ProfileError(ComityError):
    """A profile or a deployment line that cannot be used."""

    code = "profile"
    remedy = "name the right folder with --profile, or enrol this device"


class DeploymentLineError(ProfileError):
    """A deployment line that cannot be used."""

    remedy = "copy the whole line, comity:https://...#..., as the operator handed it out"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where a relay is, and the genesis that it must serve.

    Attributes:
        url: Address of the relay, ``https://``, without a slash at the end; ``http://`` only for
            the own machine.
        genesis_hash: Hash of the genesis statement, 32 bytes; pinned.
    """

    url: str
    genesis_hash: bytes

    def __post_init__(self) -> None:
        """Refuse an address that would send anything in the clear."""
        parts = urlsplit(self.url)
        is_local = parts.scheme == "http" and parts.hostname in _LOOPBACK
        if not parts.hostname or not (parts.scheme == "https" or is_local):
            raise DeploymentLineError(
                "relay's address is not https, expected for example https://relay"
            )
        if parts.query or parts.fragment or parts.username or self.url.endswith("/"):
            raise DeploymentLineError("relay's address has more than host, port and path")
        if len(self.genesis_hash) != HASH_BYTES:
            raise DeploymentLineError("hash of the genesis is not 64 hexadecimal digits")

    @property
    def id(self) -> DeploymentId:
        """The id that every statement of this deployment names."""
        return DeploymentId(self.genesis_hash[:ID_BYTES])

    def serialize(self) -> str:
        """Give the line that is handed to newcomers."""
        return f"{_SCHEME}{self.url}#{self.genesis_hash.hex()}"

    @classmethod
    def parse(cls, line: str) -> "Deployment":
        """Read such a line.

        Raises:
            ProfileError: It is not one.
        """
        url, mark, digits = line.strip().removeprefix(_SCHEME).rpartition("#")
        if not line.strip().startswith(_SCHEME) or not mark:
            raise DeploymentLineError("deployment line does not read comity:<address>#<64 digits>")
        try:
            genesis_hash = bytes.fromhex(digits)
        except ValueError:
            genesis_hash = b""
        return cls(url, genesis_hash)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a device knows of itself and calls others.

    Attributes:
        deployment: Pinned at enrolment.
        desk: The desk it belongs to.
        device: Its id.
        names: The officer's own names of desks, by desk; never sent anywhere.
        witnesses: Addresses of witnesses that the policy names without one, for stamps.
    """

    deployment: Deployment
    desk: DeskId
    device: DeviceId
    names: Mapping[DeskId, str] = field(default_factory=lambda: MappingProxyType({}))
    witnesses: tuple[str, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    relay: str
    genesis: str
    desk: str
    device: str
    names: dict[str, str]
    witnesses: tuple[str, ...] = ()


def write_profile(folder: Path, profile: Profile) -> None:
    """Write a profile into its folder, which is made when it is not there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = _File(
        version=1,
        relay=profile.deployment.url,
        genesis=profile.deployment.genesis_hash.hex(),
        desk=profile.desk.hex(),
        device=profile.device.hex(),
        names={desk.hex(): name for desk, name in sorted(profile.names.items())},
        witnesses=profile.witnesses,
    )
    data = msgspec.json.format(msgspec.json.encode(file), indent=2)
    write_private(folder / PROFILE_FILE, data + b"\n")


def read_profile(folder: Path) -> Profile:
    """Read the profile of a folder.

    Raises:
        ProfileError: There is none, or it cannot be read.
    """
    try:
        with (folder / PROFILE_FILE).open("rb") as opened:
            data = opened.read(_PROFILE_BYTES_MAX)
    except OSError as error:
        raise ProfileError(f"no profile in this folder: {os.strerror(error.errno or 0)}") from error
    try:
        file = msgspec.json.decode(data, type=_File)
        return Profile(
            deployment=Deployment(file.relay, bytes.fromhex(file.genesis)),
            desk=DeskId(parse_id(file.desk, "desk")),
            device=DeviceId(parse_id(file.device, "device")),
            names=MappingProxyType(
                {DeskId(parse_id(desk, "desk")): name for desk, name in file.names.items()}
            ),
            witnesses=file.witnesses,
        )
    except (msgspec.DecodeError, ValueError, ComityError) as error:
        raise ProfileError(f"{PROFILE_FILE} cannot be read: {error}") from error
