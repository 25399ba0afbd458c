"""Children of ``comity setup``: programs that say in one line of JSON when they are ready."""

import json
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from comity_protocol.errors import ComityError

READY_SECONDS_MAX: Final = 60
STOP_SECONDS_MAX: Final = 25
_LOG_LINES: Final = 3


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
