"""The published cases that the demonstration plays, typed in as files beside the package.

What a source does not say is ``unknown`` in the file; persons are invented or ``unknown``.
"""

from importlib.resources import files
from typing import Final

import msgspec

from comity_client.drafts import Draft
from comity_protocol.acts import Event

CASES: Final = ("case09.json", "case06.json")


class ThreadFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """One exchange of a case: who asks whom, with what, and how it ends."""

    from_: str
    to: str
    procedure: str
    opening: Draft
    acknowledgement: Draft
    ending: str
    reply: Draft

    @property
    def ending_event(self) -> Event:
        """The responder's last act."""
        return Event(self.ending)


class CaseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A case: where its facts were published, and its exchanges."""

    number: int
    title: str
    source: str
    published: tuple[str, ...]
    plays: dict[str, str]
    threads: tuple[ThreadFile, ...]


def read_cases() -> tuple[CaseFile, ...]:
    """Read every case, in the order in which they are played."""
    folder = files("comity_client") / "cases"
    return tuple(msgspec.json.decode((folder / name).read_bytes(), type=CaseFile) for name in CASES)


def words_of(case: CaseFile) -> tuple[str, ...]:
    """Give the free texts of a case, which nobody but its two desks may ever read."""
    texts: list[str | None] = []
    for thread in case.threads:
        for draft in (thread.opening, thread.acknowledgement, thread.reply):
            texts += [draft.text, draft.facts, draft.proceeding, draft.authority, draft.purpose]
            texts += [draft.reference]
            texts += [item.wanted for item in draft.items]
    return tuple(text for text in texts if text)
