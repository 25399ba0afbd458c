"""Which witnesses must have cosigned: a tree of groups, each met by some of its members.

A group has a threshold and members, each of which is a witness or another group. So "two of three
States and any neutral body" is a group of two groups, and no State counts twice.

    States = Quorum(2, (xa, xb, xc), "States")
    neutral = Quorum(1, (court, university), "neutral")
    quorum = Quorum(2, (States, neutral))

How a quorum is written down is in ``policy``; what it makes of a checkpoint, in ``checkpoint``.

Rules:

* each name and each key stands in a tree once, so that nobody counts twice;
* [L-5] a group's time is element floor(k/2) of the sorted times of its members that have one.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from comity_protocol.limits import GROUP_DEPTH_MAX, GROUPS_MAX, NAME_BYTES_MAX, WITNESSES_MAX
from comity_protocol.signed_note import KeyType, VerifierKey, require_key_name

_COSIGNING = frozenset({KeyType.COSIGNATURE_V1, KeyType.MLDSA44})


@dataclass(frozen=True, slots=True)
class Quorum:
    """A group of witnesses and groups, of which at least ``threshold`` must have cosigned.

    Attributes:
        threshold: How many members it takes, each of which has cosigned or is itself met.
        members: Witnesses and groups, in any order.
        name: What the policy calls the group.

    Raises:
        ValueError: The threshold cannot be met or is zero; a key does not cosign or cosigns in
            another way than the others; a name, of a witness or a group, or a key is there twice;
            or the tree is larger or deeper than allowed.
    """

    threshold: int
    members: tuple["VerifierKey | Quorum", ...]
    name: str = "quorum"

    def __post_init__(self) -> None:
        count = len(self.members)
        if not 1 <= self.threshold <= count:
            raise ValueError(f"{self.name} is {self.threshold} of {count}, expected 1 to {count}")
        if self.depth > GROUP_DEPTH_MAX:
            raise ValueError(
                f"{self.name} is {self.depth} deep, expected at most {GROUP_DEPTH_MAX}"
            )
        keys, groups = self.witnesses, self.groups
        if len(keys) > WITNESSES_MAX:
            raise ValueError(f"quorum has {len(keys)} witnesses, expected at most {WITNESSES_MAX}")
        if len(groups) > GROUPS_MAX:
            raise ValueError(f"quorum has {len(groups)} groups, expected at most {GROUPS_MAX}")
        # A key that also signs as a log could pass off one signature as the other.
        for key in keys:
            if key.type not in _COSIGNING:
                raise ValueError(f"key {key.name} is of type {key.type}, expected 4 or 6")
        if len({key.type for key in keys}) != 1:
            raise ValueError("quorum has keys of types 4 and 6, expected one type")
        # One key under two names, or one group in two places, would let one witness count as two.
        if len({key.public_key for key in keys}) != len(keys):
            raise ValueError("one witness is twice in the quorum, by its key")
        names = [*(key.name for key in keys), *(group.name for group in groups)]
        if len(set(names)) != len(names):
            raise ValueError("one witness is twice in the quorum, or a name is")
        for name in names:
            require_policy_name(name)

    def __str__(self) -> str:
        """Say who is needed: ``2 of 3``, or ``2 of States (2 of 3), neutral (1 of 2)``."""
        groups = [one for one in self.members if isinstance(one, Quorum)]
        if not groups:
            return f"{self.threshold} of {len(self.members)}"
        each = (
            f"{one.name} ({one})" if isinstance(one, Quorum) else one.name for one in self.members
        )
        return f"{self.threshold} of {', '.join(each)}"

    @property
    def witnesses(self) -> tuple[VerifierKey, ...]:
        """All witnesses of the tree, in the order of its members."""
        return tuple(
            key
            for one in self.members
            for key in ((one,) if isinstance(one, VerifierKey) else one.witnesses)
        )

    @property
    def groups(self) -> tuple["Quorum", ...]:
        """All groups of the tree, each after its members, so this one last."""
        below = (one.groups for one in self.members if isinstance(one, Quorum))
        return (*(group for groups in below for group in groups), self)

    @property
    def depth(self) -> int:
        """How many groups stand inside each other: 1 for a flat one."""
        return 1 + max((one.depth for one in self.members if isinstance(one, Quorum)), default=0)

    @property
    def type(self) -> KeyType:
        """How all its witnesses cosign."""
        return self.witnesses[0].type

    @property
    def least(self) -> int:
        """How many witnesses it takes at least."""
        costs = sorted(one.least if isinstance(one, Quorum) else 1 for one in self.members)
        return sum(costs[: self.threshold])

    @property
    def movers(self) -> int:
        """How many witnesses it takes at least to move its time outside the honest clocks.

        Of k times the element floor(k/2) counts, so k - floor(k/2) that are too late move it there,
        and one more than floor(k/2) that are too early. In groups of two or one a single one does.
        """
        costs = sorted(one.movers if isinstance(one, Quorum) else 1 for one in self.members)
        return sum(costs[: self.threshold - self.threshold // 2])

    def is_met(self, names: Collection[str]) -> bool:
        """Whether the witnesses of these names are enough; unknown names do not count."""
        met = sum(
            one.is_met(names) if isinstance(one, Quorum) else one.name in names
            for one in self.members
        )
        return met >= self.threshold

    def time_of(self, times: Mapping[str, int]) -> int | None:
        """Give the time that follows from those of the witnesses; None when they are too few.

        Of the sorted times of the members that have one it is element floor(k/2). So in a group
        fewer liars than half of its threshold cannot move it outside the honest clocks, and leaving
        times out can only make it later.

        Args:
            times: Seconds since 1970-01-01T00:00:00Z by name of witness; others do not count.

        Source: PROTOCOL [L-5].
        """
        each = (
            one.time_of(times) if isinstance(one, Quorum) else times.get(one.name)
            for one in self.members
        )
        found = sorted(time for time in each if time is not None)
        # SPEC [L-5]: element floor(k/2) of the sorted times of the members that have one.
        return found[self.threshold // 2] if len(found) >= self.threshold else None


def require_policy_name(name: str) -> None:
    """Check that a text can name a witness or a group of a policy.

    Raises:
        ValueError: It cannot name a key, is too long, or is the word for no quorum at all.
    """
    require_key_name(name)
    if name == "none":
        raise ValueError("name none stands for no witness at all, expected another")
    if len(name.encode()) > NAME_BYTES_MAX:
        raise ValueError(f"name has {len(name.encode())} bytes, expected at most {NAME_BYTES_MAX}")
