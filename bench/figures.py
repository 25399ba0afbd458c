"""Figures: what was measured, what it is compared with, and what the goal is."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import median
from typing import Any, Final


class Bound(StrEnum):
    """What a goal bounds: the figure itself, or its ratio to the floor."""

    AT_MOST = "<="
    AT_LEAST = ">="
    TIMES_AT_MOST = "x <="
    TIMES_AT_LEAST = "x >="


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure's goal, such as "at least 1.5 times the floor"."""

    bound: Bound
    limit: float

    def is_met(self, value: float, ratio: float | None) -> bool:
        """Whether a figure reaches it; a goal on a ratio is missed where there is no floor."""
        match self.bound:
            case Bound.AT_MOST:
                return value <= self.limit
            case Bound.AT_LEAST:
                return value >= self.limit
            case Bound.TIMES_AT_MOST:
                return ratio is not None and ratio <= self.limit
            case Bound.TIMES_AT_LEAST:
                return ratio is not None and ratio >= self.limit

    def __str__(self) -> str:
        return f"{self.bound} {_number(self.limit)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table.

    Attributes:
        row: Letter of the measure, as in ``--only``.
        name: What was measured.
        unit: Of the value and of the floor.
        samples: One for each repetition; the value is their median.
        floor: The median of what it is compared with, measured in the same run.
        floor_name: What that is.
        goal: None for a figure that only explains others.
    """

    row: str
    name: str
    unit: str
    samples: tuple[float, ...]
    floor: float | None = None
    floor_name: str = ""
    goal: Goal | None = None

    @property
    def value(self) -> float:
        """The median."""
        return median(self.samples)

    @property
    def ratio(self) -> float | None:
        """The value in units of the floor."""
        return self.value / self.floor if self.floor else None

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        return None if self.goal is None else self.goal.is_met(self.value, self.ratio)

    def to_json(self) -> dict[str, Any]:
        """Give everything, for ``--json``."""
        return {
            **asdict(self),
            "goal": None if self.goal is None else str(self.goal),
            "value": self.value,
            "ratio": self.ratio,
            "met": self.is_met,
        }


_COLUMNS: Final = ("row", "measure", "figure", "unit", "floor", "ratio", "goal", "")


def table(figures: Sequence[Figure]) -> str:
    """Lay figures out for a screen."""
    rows = [_COLUMNS, *(_cells(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    right = {2, 4, 5}
    lines = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def document(figures: Sequence[Figure], **about: object) -> str:
    """Write figures as JSON, with what is known about the run."""
    content = {**about, "figures": [figure.to_json() for figure in figures]}
    return json.dumps(content, indent=1) + "\n"


def _cells(figure: Figure) -> tuple[str, ...]:
    met = {None: "", True: "met", False: "not met"}[figure.is_met]
    return (
        figure.row,
        figure.name,
        _number(figure.value),
        figure.unit,
        "" if figure.floor is None else f"{_number(figure.floor)} {figure.floor_name}",
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        "" if figure.goal is None else str(figure.goal),
        met,
    )


def _number(value: float) -> str:
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"
