"""Other processes: start them, end them, and see what they cost. Linux, by /proc."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS_MAX: Final = 30.0
_AFTER_NAME: Final = 2
"""Fields of /proc/PID/stat before and with the program's name, which may hold spaces."""


@contextmanager
def running(
    arguments: Sequence[str | Path], *, environment: Mapping[str, str] | None = None, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with our Python until the end of the block.

    Args:
        arguments: Of the interpreter, such as ``("-m", "comity_server", "serve")``.
        environment: Added to ours.
        log: Where its errors go. Its standard output can be read.
    """
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_SECONDS_MAX)
        if process.stdout is not None:
            process.stdout.close()


def first_line(process: subprocess.Popen[bytes]) -> str:
    """Wait for the line by which a program says that it is ready; it ends the wait if it ends."""
    assert process.stdout is not None
    line = process.stdout.readline().decode().strip()
    if not line:
        raise RuntimeError(f"program ended with {process.wait(_STOP_SECONDS_MAX)} at its start")
    return line


def cpu_seconds(*roots: int) -> float:
    """Processor time of processes, their present children and those of them that have ended."""
    ticks = 0
    for root in roots:
        for pid in [root, *_children(root)]:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            # utime, stime, cutime, cstime are fields 14 to 17, counted from one.
            ticks += sum(int(field) for field in fields[13 - _AFTER_NAME : 17 - _AFTER_NAME])
    return ticks / _TICKS


def own_cpu_seconds() -> float:
    """Processor time of this process, the load generator."""
    times = os.times()
    return times.user + times.system


def pss_bytes(pid: int) -> int:
    """Memory of a process, with its share of what it shares: proportional set size."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "Pss":
            return int(rest.split()[0]) * 1024
    raise RuntimeError("kernel does not tell the proportional set size")


def load_average() -> float:
    """Processes that wanted to run during the last minute."""
    return os.getloadavg()[0]


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    children = [int(word) for word in text.split()]
    return children + [below for child in children for below in _children(child)]
