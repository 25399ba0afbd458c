"""What an audit can find, what each finding means, and what a person does about it.

A finding names a place and a reason, so that a stranger can look for herself. Kinds are stable
words for scripts; `docs/AUDITING.md` explains each of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Final


class Grade(IntEnum):
    """How bad a finding is; the worst one of an audit decides its exit code."""

    NOTE = 0
    """Worth knowing; nothing is wrong."""
    ALARM = 1
    """The log is late, or fewer witnesses are at work than should be."""
    DAMAGE = 2
    """This copy is damaged or incomplete; another copy may be whole."""
    UNPROVEN = 3
    """Something is not what it says that it is; nothing follows from it."""
    MISCONDUCT = 4
    """The relay did what it must not, and what is in the folder proves it to a stranger."""


class Kind(Enum):
    """Every kind of finding."""

    MISSING_FILE = "missing-file"
    DAMAGED_ENTRIES = "damaged-entries"
    DAMAGED_TILE = "damaged-tile"
    DAMAGED_FILE = "damaged-file"
    EXTRA_FILE = "extra-file"
    NO_STATEMENTS = "no-statements"
    NO_ANCHORS = "no-anchors"
    GENESIS = "genesis"
    CHECKPOINT = "checkpoint"
    ANCHOR = "anchor"
    ROOT = "root"
    SOURCE = "source"
    PROMISE = "promise"
    SIGNED_OBJECT = "signed-object"
    FORK = "fork"
    ROLLBACK = "rollback"
    ENTRY_FORM = "entry-form"
    WITHHELD_STATEMENT = "withheld-statement"
    INVALID_STATEMENT = "invalid-statement"
    BROKEN_PROMISE = "broken-promise"
    NOT_LOGGED = "not-logged"
    STALE = "stale"
    THIN_QUORUM = "thin-quorum"
    RETIRED_WITNESS = "retired-witness"
    OWN_KEY = "own-key"


GRADES: Final = MappingProxyType(
    {
        Kind.MISSING_FILE: Grade.DAMAGE,
        Kind.DAMAGED_ENTRIES: Grade.DAMAGE,
        Kind.DAMAGED_TILE: Grade.DAMAGE,
        Kind.DAMAGED_FILE: Grade.DAMAGE,
        Kind.EXTRA_FILE: Grade.DAMAGE,
        Kind.NO_STATEMENTS: Grade.NOTE,
        Kind.NO_ANCHORS: Grade.NOTE,
        Kind.GENESIS: Grade.UNPROVEN,
        Kind.CHECKPOINT: Grade.UNPROVEN,
        Kind.ANCHOR: Grade.UNPROVEN,
        Kind.ROOT: Grade.UNPROVEN,
        Kind.SOURCE: Grade.UNPROVEN,
        Kind.PROMISE: Grade.UNPROVEN,
        Kind.SIGNED_OBJECT: Grade.UNPROVEN,
        Kind.FORK: Grade.MISCONDUCT,
        Kind.ROLLBACK: Grade.UNPROVEN,
        Kind.ENTRY_FORM: Grade.MISCONDUCT,
        Kind.WITHHELD_STATEMENT: Grade.UNPROVEN,
        Kind.INVALID_STATEMENT: Grade.UNPROVEN,
        Kind.BROKEN_PROMISE: Grade.MISCONDUCT,
        Kind.NOT_LOGGED: Grade.UNPROVEN,
        Kind.STALE: Grade.ALARM,
        Kind.THIN_QUORUM: Grade.ALARM,
        Kind.RETIRED_WITNESS: Grade.ALARM,
        Kind.OWN_KEY: Grade.ALARM,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that an audit found.

    Attributes:
        kind: Stable word.
        text: One sentence for people, without secrets.
        where: The file inside the folder, or the address, that it is about.
        evidence: The file inside the folder that proves it to others; empty when there is none.
    """

    kind: Kind
    text: str
    where: str = ""
    evidence: str = ""

    @property
    def grade(self) -> Grade:
        """How bad it is."""
        return GRADES[self.kind]

    def document(self) -> dict[str, object]:
        """Give it as one line of JSON says it."""
        return {
            "kind": self.kind.value,
            "grade": self.grade.name.lower(),
            "text": self.text,
            "where": self.where,
            "evidence": self.evidence,
        }


Report = Callable[[Finding], None]


def worst(findings: list[Finding]) -> Grade:
    """Give the grade of the worst finding; that of a note when there is none."""
    return max((finding.grade for finding in findings), default=Grade.NOTE)
