"""What was lately accepted and published, so that the hot path asks the database nothing.

Everything here can be forgotten at any time; whoever does not find it asks the store.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from comity_server.store import AUDIT_KIND, EnvelopeRow, Row

ENVELOPES_MAX: Final = 65_536
CHECKPOINTS_MAX: Final = 16_384

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Facts:
    """What later envelopes and receipts are checked against.

    Attributes:
        sender: The desk that sent it.
        to: (desk, epoch, kind) in the order of the core.
        has_wraps: Whether it brought wraps of its own, and all are here, so that it may be referred
            to.
    """

    sender: bytes
    to: tuple[tuple[bytes, int, int], ...]
    has_wraps: bool

    @classmethod
    def of(cls, row: EnvelopeRow) -> "Facts":
        """Keep the little that is needed of a row."""
        to = tuple((entry.desk, entry.epoch, entry.kind) for entry in row.recipients)
        return cls(row.sender_desk, to, all(entry.wrap for entry in row.recipients))

    def is_read_by(self, desk: bytes) -> bool:
        """Whether a desk, not as an auditor, is addressed."""
        return any(to == desk and kind != AUDIT_KIND for to, _, kind in self.to)

    @property
    def auditors(self) -> tuple[bytes, ...]:
        """The desks that are addressed as auditors."""
        return tuple(to for to, _, kind in self.to if kind == AUDIT_KIND)


class Bounded(Generic[Key, Value]):
    """A dictionary that forgets what was longest unused."""

    def __init__(self, entries_max: int) -> None:
        """Set how many entries it holds."""
        self._entries_max: Final = entries_max
        self._entries: Final[OrderedDict[Key, Value]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """Give an entry, or None."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Keep an entry."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


class Recent:
    """Facts of integrated envelopes, and hashes of published checkpoints.

    Attributes:
        erasures: How often copies had been erased when the facts held. What was erased since may
            be among them, so facts of another count must not be mixed in.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self.erasures = 0
        self.envelopes: Final[Bounded[bytes, Facts]] = Bounded(ENVELOPES_MAX)
        self.checkpoints: Final[Bounded[bytes, bool]] = Bounded(CHECKPOINTS_MAX)

    def keep(self, rows: Iterable[Row]) -> None:
        """Keep what was just integrated."""
        for row in rows:
            if isinstance(row, EnvelopeRow):
                self.envelopes.put(row.id, Facts.of(row))

    def forget(self, erasures: int) -> None:
        """Forget what may not hold any more: copies were erased, so often by now."""
        self.erasures = erasures
        self.envelopes.clear()
