"""Opens small SQLite files apart from the database: the signer's memory, and tombstones.

A power cut must not take back what was promised, so a commit waits for the disk, the folder's entry
of the journal included.
"""

import sqlite3
from pathlib import Path
from typing import Final

BUSY_SECONDS_MAX: Final = 10
"""How long another process on this host may hold the file."""

_EXTRA: Final = 3


def open_durable(path: Path) -> sqlite3.Connection:
    """Open or create a file, readable by its owner alone, whose every commit is on the disk.

    It may be used from any thread, one after the other; without BEGIN, each statement commits.

    Raises:
        sqlite3.Error: It is no database, or cannot be written durably.
        OSError: It cannot be made private.
    """
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS_MAX
    )
    try:
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA synchronous=EXTRA")
        connection.execute("PRAGMA fullfsync=ON")
        if connection.execute("PRAGMA synchronous").fetchone() != (_EXTRA,):
            raise sqlite3.OperationalError("file cannot be written durably")
    except (sqlite3.Error, OSError):
        connection.close()
        raise
    return connection
