"""A second count of response times, from what a secretariat's folder holds, in another way.

It shares no code with ``comity_protocol.counting``, ``times``, ``exchange`` or ``checkpoint``: it
reads pages and notes with a CBOR library and string methods, and plays each exchange by a small
table of its own. Only opening the audit records is left to the client, for that takes keys.
"""

from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cbor2

NEXT: Final = {
    "ack": ({"new"}, "acknowledged"),
    "consult": ({"acknowledged", "consulting"}, "consulting"),
    "answer": ({"new", "acknowledged", "consulting"}, "answered"),
    "refuse": ({"new", "acknowledged", "consulting"}, "refused"),
    "close": ({"answered", "refused"}, "closed"),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """One opened audit record.

    Attributes:
        record: As it was opened, not read.
    """

    index: int
    sender: bytes
    receiver: bytes
    envelope: bytes
    record: bytes


@dataclass(slots=True)
class Line:
    """What is found of one exchange; seconds since 1970 UTC, or None."""

    asker: bytes
    opening: bytes
    opened_at: int
    heads: set[bytes]
    state: str = "new"
    final_at: int | None = None
    delivered_at: int | None = None
    refused: int = 0

    @property
    def seconds(self) -> int | None:
        """From request to answer or refusal."""
        return None if self.final_at is None else max(0, self.final_at - self.opened_at)


class Dates:
    """Sealed times, read from the notes of a folder."""

    def __init__(self, folder: Path, quorum: int) -> None:
        """Read all published checkpoints."""
        notes = [path.read_bytes() for path in sorted((folder / "checkpoints").iterdir())]
        notes.append((folder / "checkpoint").read_bytes())
        self._dated: Final = sorted(_dated(note, quorum) for note in notes)

    def of(self, index: int) -> int:
        """Give the earliest time of a checkpoint that covers a leaf."""
        return min(at for size, at in self._dated if size > index)


def _dated(note: bytes, quorum: int) -> tuple[int, int]:
    text, _, lines = note.decode().partition("\n\n")
    times = sorted(
        int.from_bytes(b64decode(line.split(" ")[2])[4:12], "big")
        for line in lines.splitlines()
        # After its id a cosignature has 8 bytes of time and 64 of signature; the log's has 64.
        if len(b64decode(line.split(" ")[2])) == 76
    )
    return int(text.split("\n")[1]), times[quorum // 2]


def stamps_of(folder: Path, quorum: int) -> dict[bytes, int]:
    """Give the time of stamps by envelope, from the pages of notices."""
    found: dict[bytes, int] = {}
    for item in _items(folder / "desk" / "notices"):
        notice = cbor2.loads(item[1])
        if notice["t"] == "stamped":
            found[notice["envelope"]] = sorted(at for _, at, _ in notice["stamps"])[quorum // 2]
    return found


def receipts_of(folder: Path) -> list[tuple[int, bytes, list[bytes]]]:
    """Give leaf index, desk and envelopes of each receipt."""
    found = []
    for item in _items(folder / "desk" / "receipts"):
        receipt = cbor2.loads(item[1])
        found.append((item[0], receipt["desk"], [one[0] for one in receipt["held"]]))
    return found


def _items(place: Path) -> Iterator[Any]:
    for path in sorted(place.iterdir()) if place.exists() else []:
        yield from cbor2.loads(path.read_bytes())["items"]


def count_again(folder: Path, opened: Iterable[Seen], quorum: int) -> Mapping[bytes, Line]:
    """Count; gives a line for each exchange by its id.

    Args:
        folder: As ``comity audit fetch --desk`` wrote it.
        opened: Records in any order.
        quorum: Of how many witnesses, without groups.
    """
    dates, stamps, lines = Dates(folder, quorum), stamps_of(folder, quorum), dict[bytes, Line]()
    for one in sorted(opened, key=lambda one: one.index):
        record = cbor2.loads(one.record)
        line = lines.get(record["x"])
        if line is None:
            if "p" in record and "h" not in record:
                lines[record["x"]] = Line(
                    one.sender, one.envelope, dates.of(one.index), {one.envelope}
                )
            continue
        sources, target = NEXT[record["e"]]
        is_asker = one.sender == line.asker
        if (
            record["h"] not in line.heads
            or line.state not in sources
            or is_asker != (record["e"] == "close")
        ):
            line.refused += 1
            continue
        at = min(dates.of(one.index), stamps.get(one.envelope, 2**40))
        line.state = target
        line.heads.add(one.envelope)
        if target in ("answered", "refused"):
            line.final_at = at
        if not is_asker:
            line.delivered_at = min(at, line.delivered_at or at)
    by_opening = {line.opening: line for line in lines.values()}
    for index, desk, envelopes in receipts_of(folder):
        for line in (by_opening[one] for one in envelopes if one in by_opening):
            if desk != line.asker:
                at = dates.of(index)
                line.delivered_at = min(at, line.delivered_at or at)
    return lines
