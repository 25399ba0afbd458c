"""How one relay is set up: from defaults that work, a TOML file, the environment and arguments.

Later sources win over earlier ones. The environment is read as ``COMITY_<NAME>``, such as
``COMITY_PORT``; a TOML file holds the same names in lower case. Nothing here opens a socket or a
database; what would be unsafe together is refused here, with a sentence that says what to do.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from comity_protocol.errors import ComityError

PREFIX: Final = "COMITY_"
_PORT_MAX: Final = 65_535
_LOOPBACK_NAMES: Final = frozenset({"localhost"})


class SettingsError(ComityError):
    """Settings that are malformed, or that would be unsafe together."""

    code: ClassVar[str] = "unsafe-settings"
    remedy: ClassVar[str] = "change the setting that the message names, then start the relay again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that an operator may decide for one relay process.

    Attributes:
        data: Folder of keys, genesis, signer state and, by default, the SQLite database.
        database: Address of the database; empty for ``relay.sqlite`` in ``data``.
        signer: File of the signer's own state; empty for ``signer.sqlite`` in ``data``. It belongs
            on other storage than the database, so that restoring one does not restore the other.
        signer_socket: Unix socket of a signer that is a process of its own; empty for one in this
            process.
        mirrors: Addresses of mirrors of the log, http or https, from which a restored database is
            refilled; the witnesses are asked too.
        repair_seconds: How long after a restore the members are waited for to send again.
        tombstones: File of what was erased; empty for ``tombstones.sqlite`` beside the signer's. It
            belongs on other storage than the database too.
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        behind_proxy: Whether a proxy ends TLS before this process; needed to listen elsewhere than
            on the loopback address.
        witnesses: Submission prefixes of the witnesses, http or https; empty for those that the
            genesis's policy names.
        witness_links: Whether witnesses call this relay, so that fewer addresses than a quorum are
            enough. A witness may call in any case.
        checkpoint_seconds: Shortest time between two checkpoints.
        heartbeat_seconds: Longest time between two, although nothing was added.
        poll_seconds: How often the database is asked what other processes have added.
        desk_envelopes_per_second: Envelopes and receipts that one desk may send, on average.
        desk_envelopes_burst: The same at once.
        desk_bytes_per_second: Bytes that one desk may send, on average.
        desk_bytes_burst: The same at once.
        statements_per_second: Statements that all together may post, on average.
        statements_burst: The same at once.
        queue_entries: Uploads that may wait for the committer.
        queue_bytes: The same in bytes.
        sockets: Open WebSockets.
        device_sockets: Open WebSockets of one device.
        waiting_requests: Long polls that may wait at once.
        drain_seconds: How long a stopping relay waits for what it has begun.
        checkpoint_wait_seconds: How long one witness may take to answer.
        retention_seconds: How often copies are looked for that are older than a policy allows.
        statistics_days: Days for which auditors' copies are kept.
    """

    data: Path = Path("comity-relay")
    database: str = ""
    signer: str = ""
    tombstones: str = ""
    signer_socket: str = ""
    mirrors: tuple[str, ...] = ()
    repair_seconds: float = 3_600.0
    host: str = "127.0.0.1"
    port: int = 8440
    behind_proxy: bool = False
    witnesses: tuple[str, ...] = ()
    witness_links: bool = False
    checkpoint_seconds: float = 0.5
    heartbeat_seconds: float = 600.0
    poll_seconds: float = 1.0
    desk_envelopes_per_second: float = 50.0
    desk_envelopes_burst: int = 2_000
    desk_bytes_per_second: float = 2_097_152.0
    desk_bytes_burst: int = 67_108_864
    statements_per_second: float = 5.0
    statements_burst: int = 500
    queue_entries: int = 1_024
    queue_bytes: int = 67_108_864
    sockets: int = 4_096
    device_sockets: int = 8
    waiting_requests: int = 4_096
    drain_seconds: float = 20.0
    checkpoint_wait_seconds: float = 10.0
    retention_seconds: float = 3_600.0
    statistics_days: int = 3_650

    def __post_init__(self) -> None:
        """Refuse what cannot work or would be unsafe.

        Raises:
            SettingsError: Always with a sentence that names the setting.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                _require_positive(field.name, value)
        if self.port > _PORT_MAX:
            raise SettingsError(f"port is {self.port}, expected 0 to {_PORT_MAX}")
        if not _is_loopback(self.host) and not self.behind_proxy:
            raise SettingsError(
                f"host {self.host} can be reached from outside and this process speaks no TLS;"
                " put a proxy that ends TLS before it and set behind_proxy, or listen on 127.0.0.1"
            )
        for name, urls in (("witness", self.witnesses), ("mirror", self.mirrors)):
            for url in urls:
                if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).netloc:
                    raise SettingsError(f"{name} {url} is not an http or https address")
        if len(set(self.witnesses)) != len(self.witnesses):
            raise SettingsError("one witness is there twice; name each witness once")
        if self.heartbeat_seconds < self.checkpoint_seconds:
            raise SettingsError("heartbeat_seconds is shorter than checkpoint_seconds")
        # The database file and the signer's memory must be two things: a restored database has to
        # meet a signer that remembers more.
        if self.database_url == f"sqlite:///{self.signer_path}":
            raise SettingsError("signer and database are one file; give the signer its own")
        # The same holds for what tells the restored database what it must not have any more.
        if self.database_url == f"sqlite:///{self.tombstones_path}":
            raise SettingsError("tombstones and database are one file; give tombstones their own")
        if self.signer_path == self.tombstones_path:
            raise SettingsError("tombstones and signer are one file; give each its own")

    @property
    def database_url(self) -> str:
        """Address of the database."""
        return self.database or f"sqlite:///{self.data / 'relay.sqlite'}"

    @property
    def signer_path(self) -> Path:
        """File of the signer's own state."""
        return Path(self.signer) if self.signer else self.data / "signer.sqlite"

    @property
    def tombstones_path(self) -> Path:
        """File of what was erased."""
        if self.tombstones:
            return Path(self.tombstones)
        return self.signer_path.with_name("tombstones.sqlite")

    @property
    def log_key_path(self) -> Path:
        """File of the log's secret key."""
        return self.data / "log.key"

    @property
    def relay_key_path(self) -> Path:
        """File of the secret key with which the relay signs its promises."""
        return self.data / "relay.key"

    @property
    def genesis_path(self) -> Path:
        """File of the installed genesis."""
        return self.data / "genesis.cbor"


def load(
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    arguments: Mapping[str, object] | None = None,
) -> Settings:
    """Put settings together: defaults, then the file, the environment, the arguments.

    Args:
        file: A TOML file, or None.
        environment: By default that of the process.
        arguments: Values by field name; None and nothing mean not given.

    Raises:
        SettingsError: A name is unknown, a value is of the wrong kind, or they are unsafe together.
    """
    settings = Settings()
    if file is not None:
        try:
            table = tomllib.loads(file.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"settings file {file} cannot be read: {error}") from error
        settings = _with(settings, table, f"settings file {file}")
    environment = os.environ if environment is None else environment
    own = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() in _names()
    }
    settings = _with(settings, own, "environment")
    given = {name: value for name, value in (arguments or {}).items() if value not in (None, ())}
    return _with(settings, given, "arguments")


def _names() -> frozenset[str]:
    return frozenset(field.name for field in fields(Settings))


def _with(settings: Settings, values: Mapping[str, Any], where: str) -> Settings:
    if unknown := sorted(values.keys() - _names()):
        raise SettingsError(f"{where} has the unknown setting {unknown[0]}")
    changes = {
        name: _read(value, getattr(settings, name), f"{where}, {name}")
        for name, value in values.items()
    }
    return replace(settings, **changes)


def _read(value: object, default: object, what: str) -> Any:  # noqa: ANN401 - the field's type
    """Give a value the type of the default; text, as in the environment, is read as one."""
    try:
        match default:
            case bool():
                return _boolean(value)
            case int():
                return int(str(value))
            case float():
                return float(str(value))
            case Path():
                return Path(str(value))
            case tuple():
                words = value.split() if isinstance(value, str) else value
                return tuple(map(str, words if isinstance(words, list | tuple) else [words]))
            case _:
                return str(value)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{what} is {value!r}, which is not usable there") from error


def _boolean(value: object) -> bool:
    match value:
        case bool():
            return value
        case "1" | "true" | "yes":
            return True
        case "0" | "false" | "no":
            return False
        case _:
            raise ValueError("expected true or false")


def _require_positive(name: str, value: float) -> None:
    # Zero would switch a bound off by silence; only the port has a meaning for it.
    if value < 0 or (value == 0 and name != "port"):
        raise SettingsError(f"{name} is {value}, expected more than zero")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in _LOOPBACK_NAMES
