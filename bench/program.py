"""V: what the command line costs before it does anything, and how large an installation is."""

import resource
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

_PROJECT: Final = "comity"
_MEGABYTE: Final = 1e6
_WAIT_SECONDS_MAX: Final = 30.0


def version_milliseconds() -> float:
    """Processor time of ``comity --version`` in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "comity_client", "--version"],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=_WAIT_SECONDS_MAX,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent * 1_000


def installed_megabytes(extra: str | None) -> float:
    """Size of what the plain install puts on the disk here, compiled modules left out.

    Args:
        extra: ``server`` for the relay's; None for the light client's.
    """
    sizes: dict[str, int] = {}
    waiting = [(_PROJECT, extra or "")]
    while waiting:
        name, wanted = waiting.pop()
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        if name in sizes and not wanted:
            continue
        sizes[name] = _own_bytes() if name == _PROJECT else _bytes(found)
        for text in found.requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": wanted}):
                below = ["", *sorted(needed.extras)]
                waiting += [(needed.name.lower().replace("_", "-"), one) for one in below]
    return sum(sizes.values()) / _MEGABYTE


def _bytes(found: Distribution) -> int:
    paths = (Path(str(file.locate())) for file in found.files or () if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in paths if path.is_file())


def _own_bytes() -> int:
    # An editable installation lists no modules; they are in the tree.
    root = Path(__file__).parents[1]
    folders = ("protocol/comity_protocol", "client/comity_client", "server/comity_server")
    paths = (path for folder in folders for path in (root / folder).rglob("*"))
    return sum(path.stat().st_size for path in paths if path.is_file() and path.suffix != ".pyc")
