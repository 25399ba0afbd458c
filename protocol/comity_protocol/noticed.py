"""What notices say together: holds, erasures, stamps and restores, folded in leaf order.

Whoever was given the same notices finds the same. Who may give a notice is checked before, in
``notices``.

Rules:

* [H-3] An erasure takes away only the copy of the desk that states it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import assert_never

from comity_protocol.errors import VerificationError
from comity_protocol.identifiers import DeskId, EnvelopeId
from comity_protocol.notices import Erase, Hold, Notice, Release, Restored, Stamped
from comity_protocol.stamps import Stamp


@dataclass(slots=True)
class Noticed:
    """What notices say together, folded one after another in leaf order.

    Attributes:
        holds: Which desks hold an envelope; none is not there.
        erased: Copies that are to be gone: envelope and desk.
        stamps: All stamps of a core, by its hash.
        restores: What the relay said of restores, in leaf order.
        index: Leaf index of the newest notice; -1 before the first.
    """

    holds: dict[EnvelopeId, frozenset[DeskId]] = field(default_factory=dict)
    erased: set[tuple[EnvelopeId, DeskId]] = field(default_factory=set)
    stamps: dict[bytes, frozenset[Stamp]] = field(default_factory=dict)
    restores: list[Restored] = field(default_factory=list)
    index: int = -1

    @classmethod
    def fold(cls, notices: Iterable[tuple[int, Notice]]) -> "Noticed":
        """Fold verified notices, given with their leaf indexes, ascending."""
        noticed = cls()
        for index, notice in notices:
            noticed.add(index, notice)
        return noticed

    def add(self, index: int, notice: Notice) -> None:
        """Fold in one more.

        Args:
            index: Its leaf index, above that of every notice before.
            notice: Verified by ``verify_notice`` and, for each envelope, ``check_concerns``.

        Raises:
            VerificationError: It stands before one that was folded already.
        """
        if index <= self.index:
            raise VerificationError(
                f"notice at leaf {index} comes after leaf {self.index}; refusing replay"
            )
        self.index = index
        match notice:
            case Stamped():
                known = self.stamps.get(notice.core, frozenset())
                self.stamps[notice.core] = known | set(notice.stamps)
            case Hold():
                for envelope in notice.envelopes:
                    self.holds[envelope] = self.held_by(envelope) | {notice.author.desk}
            case Release():
                for envelope in notice.envelopes:
                    self._release(envelope, notice.author.desk)
            case Erase():
                # SPEC [H-3]: only the copy of the desk that states it. What another desk held
                # before stays: a hold that was logged first wins.
                free = (one for one in notice.envelopes if one not in self.holds)
                self.erased.update((envelope, notice.author.desk) for envelope in free)
            case Restored():
                self.restores.append(notice)
            case _:
                assert_never(notice)

    def held_by(self, envelope: EnvelopeId) -> frozenset[DeskId]:
        """Give the desks whose hold keeps an envelope from being erased."""
        return self.holds.get(envelope, frozenset())

    def _release(self, envelope: EnvelopeId, desk: DeskId) -> None:
        # A hold is ended by the desk that placed it and by nobody else.
        if remaining := self.held_by(envelope) - {desk}:
            self.holds[envelope] = remaining
        else:
            self.holds.pop(envelope, None)
