"""Token buckets: how much one desk may send, so that none can hurt the others.

A bucket fills with time and is emptied by what is sent. Whoever finds it empty is told how long to
wait. Buckets live in this process only: with several processes a desk has a bucket in each, which
loosens the quota and breaks nothing.

Rules:

* [R-13] Each desk has a quota of envelopes and of bytes.
"""

from collections import OrderedDict
from dataclasses import dataclass
from math import ceil
from typing import Final

DESKS_MAX: Final = 4_096
"""Buckets remembered; the longest unused is forgotten, by which time it is full again."""


@dataclass(slots=True)
class Bucket:
    """What is left of one quota.

    Attributes:
        rate: Units that come back each second.
        burst: Units that it holds when full.
        level: Units in it at ``at``; below zero after something larger than was left.
        at: Seconds of the clock that the caller passes in.
    """

    rate: float
    burst: float
    level: float
    at: float

    def wait(self, units: float, now: float) -> float:
        """How many seconds until ``units`` may be taken; 0 when they may be taken now.

        Something larger than the whole bucket may be taken when the bucket is full.
        """
        # A clock that was set back must neither empty a bucket nor freeze it.
        self.level = min(self.burst, self.level + max(0.0, now - self.at) * self.rate)
        self.at = now
        missing = min(units, self.burst) - self.level
        return max(0.0, missing / self.rate)

    def take(self, units: float) -> None:
        """Take units; ask ``wait`` first."""
        self.level -= units


class Quotas:
    """The buckets of all desks, two each: envelopes and bytes."""

    def __init__(self, *, envelopes: tuple[float, float], volume: tuple[float, float]) -> None:
        """Set (rate per second, burst) for the number of envelopes and for their bytes."""
        self._envelopes: Final = envelopes
        self._volume: Final = volume
        self._desks: Final[OrderedDict[bytes, tuple[Bucket, Bucket]]] = OrderedDict()

    def take(self, desk: bytes, octets: int, now: float) -> int:
        """Take one envelope of ``octets`` bytes out of a desk's quota.

        Returns:
            0 when it was taken; otherwise nothing was, and it is the whole seconds to wait.
        """
        # SPEC: each desk has a quota of envelopes and of bytes.
        envelopes, volume = self._of(desk, now)
        wait = max(envelopes.wait(1, now), volume.wait(octets, now))
        if wait > 0:
            return max(1, ceil(wait))
        envelopes.take(1)
        volume.take(octets)
        return 0

    def _of(self, desk: bytes, now: float) -> tuple[Bucket, Bucket]:
        buckets = self._desks.get(desk)
        if buckets is None:
            buckets = (
                Bucket(*self._envelopes, self._envelopes[1], now),
                Bucket(*self._volume, self._volume[1], now),
            )
            self._desks[desk] = buckets
            if len(self._desks) > DESKS_MAX:
                self._desks.popitem(last=False)
        self._desks.move_to_end(desk)
        return buckets
