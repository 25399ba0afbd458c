"""The numbers of receipts and notices: given without a gap, and looked at for gaps.

A device numbers its receipts, and its notices, to the same readers from 1. So one that a relay
keeps back shows at the next one by the same device to the same readers.

Rules:

* [B-20] A gap in the numbers, or an act that answers an envelope for which its desk gave no
  receipt, is an alarm.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from comity_client.keeping import Kind
from comity_client.noticed import kept_notices
from comity_client.state import Newest, State
from comity_client.sync import NewerCheckpointError, Synchroniser
from comity_client.transport import RelayRefusedError
from comity_protocol.core import Core
from comity_protocol.encoding import Value, serialize
from comity_protocol.identifiers import DeskId, DeviceId, short
from comity_protocol.limits import PROMISE_WITHIN_SECONDS
from comity_protocol.notices import Restored
from comity_protocol.receipts import Signed

ANSWERED_SECONDS_MAX: Final = 86_400
"""Witnessed time within which a desk that answered an envelope has given a receipt for it."""

_LOOK_SECONDS: Final = 3_600
_LOOKED: Final = "answers looked at"

GAPS_AT_ONCE_MAX: Final = 8
"""Questions to the relay after a fetch, of when something was sealed."""


def readers_of(core: Core, author: DeskId) -> bytes:
    """Give who reads what a desk says of an envelope: the other desks of it, ascending."""
    return b"".join(sorted(to.desk for to in core.to if to.desk != author))


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A verified receipt or notice of somebody.

    Attributes:
        readers: From ``readers_of``; empty when no envelope of it is known here.
        number: Of the device, to these readers.
    """

    kind: Kind
    device: DeviceId
    readers: bytes
    number: int
    leaf_index: int
    signed: Signed


@dataclass(frozen=True, slots=True)
class _Gap:
    before: Heard | None
    after: Heard
    sealed_at: int


class Numbers:
    """Gives the numbers of this device, and looks at those of others."""

    def __init__(
        self, state: State, sync: Synchroniser, own: DeskId, now: Callable[[], int]
    ) -> None:
        """Take where they are kept, and who says when something was sealed."""
        self._state: Final = state
        self._sync: Final = sync
        self._own: Final = own
        self._now: Final = now

    # --- Given --------------------------------------------------------------------------------

    def take(self, kind: Kind, readers: bytes) -> int:
        """Give the next number, in the transaction in which what bears it is kept."""
        with self._state.transaction() as connection:
            number = self._last(kind, readers) + 1
            connection.execute(
                "INSERT OR REPLACE INTO given VALUES (?, ?, ?)", (kind.value, readers, number)
            )
        return number

    def take_back(self, kind: Kind, readers: bytes, number: int) -> None:
        """Let a number and all above it be given again: nothing that bears them was accepted."""
        with self._state.transaction() as connection:
            connection.execute(
                "UPDATE given SET number = min(number, ?) WHERE kind = ? AND readers = ?",
                (number - 1, kind.value, readers),
            )

    def _last(self, kind: Kind, readers: bytes) -> int:
        """Give the highest number: of what this device gave, or read of itself in the log."""
        row = self._state.connection.execute(
            "SELECT max(number) FROM (SELECT number FROM given WHERE kind = ?1 AND readers = ?2"
            " UNION ALL SELECT number FROM numbered"
            " WHERE kind = ?1 AND readers = ?2 AND device = ?3)",
            (kind.value, readers, self._state.device),
        ).fetchone()
        return row[0] or 0

    # --- Heard --------------------------------------------------------------------------------

    def hear(self, heard: Heard, under: Newest) -> None:
        """Keep the number of something that was verified under a checkpoint."""
        with self._state.transaction() as connection:
            key = (heard.kind.value, heard.device, heard.readers, heard.number)
            known = connection.execute(
                "SELECT leaf_index, payload, signature FROM numbered"
                " WHERE kind = ? AND device = ? AND readers = ? AND number = ?",
                key,
            ).fetchone()
            if known is None:
                place = (heard.leaf_index, heard.signed.payload, heard.signed.signature)
                connection.execute(
                    "INSERT INTO numbered VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (*key, *place, under.sealed_at),
                )
            elif known[0] != heard.leaf_index and heard.readers:
                text = (
                    f"device {short(heard.device)} gave two {heard.kind.value}s of number"
                    f" {heard.number}: it lost its memory, was copied or restored, or somebody has"
                    " its keys"
                )
                evidence: list[Value] = [list(known), _item(heard)]
                self._state.alarm("clone", text, evidence, self._now())

    async def look(self, kind: Kind, under: Newest) -> None:
        """Look for gaps, after everything that a checkpoint covers was read.

        What a device says next it says after the relay promised to log what it said before. So
        what is missing must be in the log a promise's seconds after the later one was sealed.

        Raises:
            OfflineError, VerificationError: As ``Synchroniser.past``.
        """
        asked = 0
        for gap in self._gaps(kind):
            before = None if gap.before is None else _item(gap.before)
            evidence: list[Value] = [before, _item(gap.after)]
            if self._is_known(evidence) or self._is_lost(gap):
                continue
            sealed_at = gap.sealed_at
            if not sealed_at + PROMISE_WITHIN_SECONDS < under.sealed_at:
                if asked == GAPS_AT_ONCE_MAX:
                    continue
                asked += 1
                try:
                    sealed_at = (await self._sync.covering(gap.after.leaf_index)).sealed_at
                except (RelayRefusedError, NewerCheckpointError):
                    continue
            # SPEC [B-20]: a gap in these numbers is an alarm.
            if sealed_at + PROMISE_WITHIN_SECONDS < under.sealed_at:
                first = 1 if gap.before is None else gap.before.number + 1
                text = (
                    f"relay keeps back {kind.value} {first} of device {short(gap.after.device)},"
                    f" which gave number {gap.after.number}"
                )
                self._state.alarm("withheld", text, evidence, self._now())

    def look_at_answers(self, under: Newest) -> None:
        """Look for acts that answer an envelope for which their desk gave no receipt."""
        looked_at = self._state.mark(_LOOKED)
        if looked_at is not None and under.sealed_at < looked_at + _LOOK_SECONDS:
            return
        rows = self._state.connection.execute(
            "SELECT act.leaf_index, act.core, act.signature, asked.envelope, asked.leaf_index,"
            " act.sender FROM inbox AS act JOIN inbox AS asked ON asked.envelope = act.head"
            " WHERE act.sealed_at < ?1 AND asked.sealed_at IS NOT NULL AND act.sender <> ?2"
            " AND asked.receiver = act.sender AND asked.sender <> act.sender"
            " AND NOT EXISTS (SELECT 1 FROM stored WHERE stored.envelope = asked.envelope"
            " AND stored.desk = act.sender)",
            (under.sealed_at - ANSWERED_SECONDS_MAX, self._own),
        ).fetchall()
        for index, core, signature, envelope, asked, desk in rows:
            if any(asked < one.size for one in self._losses()):
                continue
            # SPEC [B-20]: an act whose head is an envelope that its desk gave no receipt for.
            text = (
                f"desk {short(desk)} answered envelope {short(envelope)}, and the relay hands out"
                " no receipt for it"
            )
            self._state.alarm("withheld", text, [index, core, signature], self._now())
        self._state.put_mark(_LOOKED, under.sealed_at)

    def _gaps(self, kind: Kind) -> Iterator[_Gap]:
        groups = self._state.connection.execute(
            "SELECT device, readers FROM numbered WHERE kind = ? AND readers <> x''"
            " GROUP BY device, readers HAVING max(number) > count(*)",
            (kind.value,),
        ).fetchall()
        for device, readers in groups:
            unplaced = {row[1] for row in self._rows(kind, device, b"")}
            before: Heard | None = None
            for row in self._rows(kind, device, readers):
                sealed_at, number, index, payload, signature = row
                heard = Heard(
                    kind=kind,
                    device=device,
                    readers=readers,
                    number=number,
                    leaf_index=index,
                    signed=Signed(payload, signature),
                )
                missing = range(1 if before is None else before.number + 1, number)
                # What names no envelope that is known here may be one of those that are missing.
                if any(one not in unplaced for one in _some(missing, len(unplaced) + 1)):
                    yield _Gap(before, heard, sealed_at)
                before = heard

    def _rows(
        self, kind: Kind, device: bytes, readers: bytes
    ) -> list[tuple[int, int, int, bytes, bytes]]:
        return self._state.connection.execute(
            "SELECT sealed_at, number, leaf_index, payload, signature FROM numbered"
            " WHERE kind = ? AND device = ? AND readers = ? ORDER BY number",
            (kind.value, device, readers),
        ).fetchall()

    def _is_known(self, evidence: list[Value]) -> bool:
        row = self._state.connection.execute(
            "SELECT 1 FROM alarms WHERE kind = 'withheld' AND evidence = ?", (serialize(evidence),)
        ).fetchone()
        return row is not None

    def _is_lost(self, gap: _Gap) -> bool:
        """Whether a relay has stated the loss of what lay there, which officers are shown."""
        low = -1 if gap.before is None else gap.before.leaf_index
        return any(low < one.size and gap.after.leaf_index >= one.had for one in self._losses())

    def _losses(self) -> list[Restored]:
        notices = (kept.notice for kept in kept_notices(self._state))
        return [one for one in notices if isinstance(one, Restored) and one.lost]


def _some(numbers: range, count: int) -> Iterable[int]:
    return numbers[:count]


def _item(heard: Heard) -> list[Value]:
    return [heard.leaf_index, heard.signed.payload, heard.signed.signature]
