"""Numbers that look random and are the same on every run."""

from collections.abc import Sequence
from hashlib import sha256
from typing import TypeVar

Item = TypeVar("Item")


class Draws:
    """Draws from a seed."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        self._count = 0

    def below(self, bound: int) -> int:
        """Draw a number from 0 up to a bound."""
        return int.from_bytes(self.noise(8), "big") % bound

    def noise(self, length: int) -> bytes:
        """Draw bytes."""
        data = b""
        while len(data) < length:
            self._count += 1
            data += sha256(self._seed + self._count.to_bytes(8, "big")).digest()
        return data[:length]

    def choice(self, items: Sequence[Item]) -> Item:
        """Draw one of some."""
        return items[self.below(len(items))]

    def flip(self, data: bytes) -> bytes:
        """Turn over one bit."""
        at = self.below(8 * len(data))
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        return bytes(changed)
