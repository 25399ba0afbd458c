"""Acts on the screen: every field that an act says, in the order of the form."""

import re
from typing import TYPE_CHECKING, Final

from comity_client.cli.shell import NotFoundError, Shell
from comity_protocol.acts import Act, Handling, Item, Person

if TYPE_CHECKING:
    from comity_protocol.identifiers import EnvelopeId

_SHOWN_MAX: Final = 8
_WIDTH: Final = 15
_OVERRIDES: Final = re.compile("[\u202d\u202e]")
_SILENT: Final = frozenset({"event", "exchange", "salt", "head"})
_LABELS: Final = {
    "urgency_reason": "urgent for",
    "due_on": "wished by",
    "due_reason": "because",
    "authority": "authority",
}


def find_envelope(shell: Shell, text: str) -> "EnvelopeId":
    """Give the envelope, received or sent, whose id begins so.

    Raises:
        NotFoundError: None does, or several do.
    """
    from comity_client.cli.known import Known
    from comity_client.glance import envelopes
    from comity_protocol.identifiers import short

    with Known.open(shell) as known:
        found = envelopes(known.state, text, limit=_SHOWN_MAX)
    if len(found) != 1:
        listed = f": {', '.join(short(id_) for id_ in found)}" if found else ""
        raise NotFoundError(
            f"{len(found) or 'no'} envelopes begin with {text!r}{listed};"
            " see `comity inbox` and `comity outbox`"
        )
    return found[0]


def act_document(act: Act | None) -> dict[str, object] | None:
    """Give what an act says as a document; None for an auditor."""
    if act is None:
        return None
    document: dict[str, object] = {}
    for name in act.__dataclass_fields__:
        if name in _SILENT or not act.says(name):
            continue
        document[name] = _plain(getattr(act, name))
    return document


def act_lines(act: Act | None) -> list[str]:
    """Write what an act says: each field under its label, and its text last.

    Lines of a field after its first are indented, so that what somebody wrote into one does not
    look like another. Characters that override the reading direction are written out.
    """
    document = act_document(act)
    if document is None:
        return ["the body is sealed to others; your desk gets the audit record"]
    text = document.pop("text", None)
    lines = []
    for name, value in document.items():
        label = _LABELS.get(name, name)
        match value:
            case list():
                lines += [line for one in value for line in _lines(label, one)]
            case _:
                lines += _lines(label, value)
    return [*lines, "", *_visible(str(text)).split("\n")] if text is not None else lines


def _lines(label: str, value: object) -> list[str]:
    first, *rest = _visible(_line(value)).split("\n")
    return [f"{label:<{_WIDTH}}{first}", *(f"{'':<{_WIDTH}}{line}" for line in rest)]


def _visible(text: str) -> str:
    return _OVERRIDES.sub(lambda found: f"<U+{ord(found[0]):04X}>", text)


def _plain(value: object) -> object:
    """Turn a field's value into what JSON knows."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Item | Person | Handling):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    return value


def _line(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(str(part) for part in value.values())
    return str(value)
