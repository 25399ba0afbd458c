"""A relay and witnesses on this machine, for trying and for demonstrations.

Each is a process of its own, as in a deployment, and says in one line of JSON when it is ready.
"""

import asyncio
import json
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final

from comity_client.desk import Desk
from comity_protocol.errors import ComityError

READY_SECONDS_MAX: Final = 60
STOP_SECONDS_MAX: Final = 25
_LOG_LINES: Final = 3
_SETTLE_TRIES_MAX: Final = 300
_SETTLE_SECONDS: Final = 0.1


class ChildError(ComityError):
    """A program of the deployment did not start."""

    code: ClassVar[str] = "child"
    remedy: ClassVar[str] = "read its log in the folder, repair what it names, and run it again"


class Child:
    """One running program."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", log: Path) -> None:
        """Take a process that was just started; see ``start``."""
        self.name: Final = name
        self._process: Final = process
        self._log: Final = log

    @classmethod
    def start(cls, name: str, arguments: Sequence[str], folder: Path) -> "Child":
        """Start ``python -m`` with these arguments; its log lines go to ``NAME.log``."""
        log = folder / f"{name}.log"
        with log.open("ab") as errors:
            process = subprocess.Popen(  # noqa: S603  # our own programs, no shell
                [sys.executable, "-P", "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        return cls(name, process, log)

    def ready(self) -> dict[str, str]:
        """Wait for its line and read it.

        Raises:
            ChildError: It ended, or said nothing in time.
        """
        out = self._process.stdout
        assert out is not None  # noqa: S101  # it was started with a pipe
        seen, _, _ = select.select([out], [], [], READY_SECONDS_MAX)
        line = out.readline() if seen else ""
        if not line:
            raise ChildError(f"{self.name} did not start: {self._last_words()}")
        document = json.loads(line)
        return {key: str(value) for key, value in document.items()}

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ask it to stop; end it when it does not in time."""
        if self.is_alive:
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", errors="replace").splitlines()
        return " ".join(lines[-_LOG_LINES:]) or f"no word in {READY_SECONDS_MAX} seconds"


def relay_once(data: Path, *arguments: str) -> dict[str, str]:
    """Run a command of the relay that ends by itself; gives the line that it prints."""
    child = Child.start("relay", ["comity_server", *arguments, "--data", str(data)], data.parent)
    try:
        return child.ready()
    finally:
        child.stop()


def start_witnesses(
    stack: ExitStack, folder: Path, names: Mapping[str, str], log_key: str
) -> list[dict[str, str]]:
    """Start witnesses side by side until ``stack`` is closed.

    Args:
        stack: Ends them.
        folder: Holds a folder and a log for each.
        names: Key name of each witness by the name of its folder.
        log_key: Verifier key of the log that they watch.

    Returns:
        The lines that they print: ``address`` and ``verifier_key``.
    """
    children = []
    for name, key_name in names.items():
        arguments = ["comity_client", "witness", "--name", key_name]
        arguments += ["--data", str(folder / name), "--log-key", log_key]
        children.append(Child.start(name, arguments, folder))
        stack.callback(children[-1].stop)
    return [child.ready() for child in children]


def start_relay(stack: ExitStack, data: Path, port: int, witnesses: Sequence[str]) -> str:
    """Start the relay until ``stack`` is closed; gives its address."""
    arguments = ["comity_server", "serve", "--data", str(data), "--port", str(port)]
    for address in witnesses:
        arguments += ["--witness", address]
    child = Child.start("relay", arguments, data.parent)
    stack.callback(child.stop)
    return child.ready()["url"]


async def settle(desk: Desk, count: int) -> None:
    """Synchronise a desk until ``count`` desks can be written to, itself among them.

    Raises:
        ChildError: The witnesses did not cosign the desks' statements in time.
    """
    for _ in range(_SETTLE_TRIES_MAX):
        await desk.sync()
        if sum(one.is_sealable for one in desk.directory.desks.values()) == count:
            return
        await asyncio.sleep(_SETTLE_SECONDS)
    raise ChildError("the witnesses did not cosign the desks' statements in time")
