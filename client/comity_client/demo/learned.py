"""What the relay learned: read out of its own files, not out of our promises."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from comity_protocol.core import Core
from comity_protocol.identifiers import DeskId


@dataclass(frozen=True, slots=True)
class Learned:
    """What stands in the relay's files after the cases were played.

    Attributes:
        pairs: (sending desk, receiving desk, envelopes), by party code.
        sizes: The distinct body sizes, in bytes, ascending: classes, not lengths of texts.
        bytes_searched: How much of the relay's files was searched.
        phrases: How many phrases of the cases were searched for.
        found: Phrases that were found in the clear. There must be none.
    """

    envelopes: int
    pairs: tuple[tuple[str, str, int], ...]
    sizes: tuple[int, ...]
    bytes_searched: int
    phrases: int
    found: tuple[str, ...]


def look(data: Path, journal: Path, phrases: Iterable[str], codes: Mapping[DeskId, str]) -> Learned:
    """Read the relay's database and search all its files for phrases of the cases.

    Args:
        data: The relay's folder.
        journal: What it wrote to its log output.
        phrases: Free texts of the cases.
        codes: Party code of each desk.
    """
    with closing(sqlite3.connect(data / "relay.sqlite")) as connection:
        rows = connection.execute("SELECT core FROM envelopes").fetchall()
    cores = [Core.parse(core) for (core,) in rows]
    pairs = Counter((codes[core.sender], codes[core.counterpart]) for core in cores)
    files = [journal, *(path for path in data.rglob("*") if path.is_file())]
    contents = [path.read_bytes() for path in files]
    wanted = sorted(set(phrases))
    return Learned(
        envelopes=len(cores),
        pairs=tuple((*pair, count) for pair, count in sorted(pairs.items())),
        sizes=tuple(sorted({core.body.size for core in cores})),
        bytes_searched=sum(len(content) for content in contents),
        phrases=len(wanted),
        found=tuple(
            phrase for phrase in wanted if any(phrase.encode() in content for content in contents)
        ),
    )
