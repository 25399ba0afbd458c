"""Acts as people write them: a JSON file with the field names of ``acts.Act``.

One reader for the command line and the demonstration's cases. A draft is checked for its form
here and for what its procedure demands in ``comity_protocol.profiles``; an unknown field is
refused with its name, so that a slip of the pen is not a silent omission.

Example:
    {"text": "Please confirm the keeper of the vehicle", "language": "en", "offences": ["TIP"]}
"""

import unicodedata
from pathlib import Path
from typing import Any, Final

import msgspec

from comity_protocol.acts import Act, Event, Handling, Item, Person
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import EnvelopeId, ExchangeId

DRAFT_BYTES_MAX: Final = 1_048_576
"""A draft's file: more is not typed by a person."""


class DraftError(ComityError):
    """A draft that cannot be read."""

    code = "malformed-draft"
    remedy = "correct the named field and try again; nothing was sent"


class DraftItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One measure that is sought."""

    measure: str
    wanted: str


class DraftPerson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One person concerned."""

    role: str
    known: str


class DraftHandling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the reader may do with it; the default is the strictest that still helps."""

    purpose: str = "THIS_INVESTIGATION"
    evidence: str = "ASK"
    onward: str = "OFFICE"


class Draft(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a person fills in of an act; see ``acts.Act`` for each field."""

    reference: str | None = None
    language: str | None = None
    basis: tuple[str, ...] = ()
    offences: tuple[str, ...] = ()
    urgency: str | None = None
    urgency_reason: str | None = None
    due_on: str | None = None
    due_reason: str | None = None
    text: str | None = None
    authority: str | None = None
    proceeding: str | None = None
    facts: str | None = None
    items: tuple[DraftItem, ...] = ()
    persons: tuple[DraftPerson, ...] = ()
    purpose: str | None = None
    cases: int | None = None
    victims: int | None = None
    children: str | None = None
    handling: DraftHandling | None = None
    topic: str | None = None
    grounds: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()

    def act(
        self,
        event: Event,
        exchange: ExchangeId,
        salt: bytes,
        *,
        head: EnvelopeId | None = None,
        profile: str | None = None,
    ) -> Act:
        """Make the act that this draft becomes, with its text in the form that acts have.

        Args:
            event: What it does.
            exchange: The thread it belongs to, or opens.
            salt: 32 random bytes.
            head: The newest act of the exchange; None when it opens one.
            profile: The procedure; for an opening act.
        """
        plain: dict[str, Any] = {
            name: _tidy(value) if isinstance(value := getattr(self, name), str) else value
            for name in self.__struct_fields__
            if name not in ("items", "persons", "handling")
        }
        return Act(
            event=event,
            exchange=exchange,
            salt=salt,
            head=head,
            profile=profile,
            items=tuple(Item(item.measure, _tidy(item.wanted)) for item in self.items),
            persons=tuple(Person(person.role, _tidy(person.known)) for person in self.persons),
            handling=(
                Handling(self.handling.purpose, self.handling.evidence, self.handling.onward)
                if self.handling
                else None
            ),
            **plain,
        )


def _tidy(text: str) -> str:
    """Give text as acts have it: some systems write accents apart, and lines end in two ways."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n"))


def read_draft(path: Path) -> Draft:
    """Read a draft from a JSON file.

    Raises:
        DraftError: The file is missing, too large, or not a draft; the message names the place.
    """
    try:
        with path.open("rb") as file:
            data = file.read(DRAFT_BYTES_MAX + 1)
    except OSError as error:
        raise DraftError(f"{path.name} cannot be read: {error.strerror}") from error
    if len(data) > DRAFT_BYTES_MAX:
        raise DraftError(f"{path.name} is larger than {DRAFT_BYTES_MAX:,} bytes")
    return parse_draft(data, path.name)


def parse_draft(data: bytes, name: str) -> Draft:
    """Read a draft from JSON bytes; ``name`` is for messages."""
    try:
        return msgspec.json.decode(data, type=Draft)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DraftError(f"{name} is not a draft: {error}") from error
