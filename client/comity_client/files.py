"""Files that only their owner reads and that are on the disk before anyone relies on them."""

import os
import stat
from pathlib import Path
from typing import Final

_MODE: Final = 0o600


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 600, durably, all of it or nothing.

    The new content is beside the old one until it is on the disk, so that a power cut leaves one
    of the two.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _MODE), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_private(descriptor: int) -> bool:
    """Whether nobody but the owner may read or write an open file."""
    return not os.fstat(descriptor).st_mode & (stat.S_IRWXG | stat.S_IRWXO)
