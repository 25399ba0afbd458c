"""The rows that a reader of a certificate sees, in the reader's language.

``page.js`` makes the same rows from what it verified itself, and refuses a page that shows others.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from comity_client.certificate.check import Checked, Opened
from comity_protocol.acts import Act, Handling, Item, Person
from comity_protocol.checkpoint import WitnessedCheckpoint
from comity_protocol.core import Kind, core_hash
from comity_protocol.identifiers import DeskId

PACKAGE: Final = "comity_client.certificate"
_GROUP: Final = 4
_OVERRIDES: Final = {ord(mark): f"<U+{ord(mark):04X}>" for mark in "\u202a\u202b\u202c\u202d\u202e"}
"""Characters that would let one text look like another are written out."""

NUMBERS: Final = re.compile(r"[0-9]+(?:[-/.:][0-9]+)+")
"""Dates, times and file numbers, which keep their order also in words from right to left."""

_FREE_TEXT: Final = frozenset(
    {
        "reference",
        "due_reason",
        "text",
        "authority",
        "proceeding",
        "facts",
        "items",
        "persons",
        "purpose",
        "grounds",
    }
)


class Language(Enum):
    """The languages in which a certificate is written."""

    ENGLISH = "en"
    FRENCH = "fr"
    SPANISH = "es"
    PORTUGUESE = "pt"
    ARABIC = "ar"

    @property
    def direction(self) -> str:
        """From which side it is read."""
        return "rtl" if self is Language.ARABIC else "ltr"


@dataclass(frozen=True, slots=True)
class Row:
    """A label and what stands beside it.

    Attributes:
        is_text: Whether the value is words, in any direction; else digits and names.
    """

    label: str
    value: str
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """Rows under a heading."""

    title: str
    rows: tuple[Row, ...]


@cache
def texts_file() -> str:
    """Give all texts in all languages, as JSON."""
    return files(PACKAGE).joinpath("texts.json").read_text("utf-8")


@cache
def texts(language: Language) -> Mapping[str, str]:
    """Give the texts of a language by name."""
    return {name: each[language.value] for name, each in json.loads(texts_file()).items()}


@cache
def meanings_file() -> str:
    """Give what the numbered codes mean in all languages, as JSON."""
    return files(PACKAGE).joinpath("meanings.json").read_text("utf-8")


@cache
def meanings(language: Language) -> Mapping[str, str]:
    """Give the meanings of the numbered codes in a language, by code."""
    return {code: each[language.value] for code, each in json.loads(meanings_file()).items()}


def sections(checked: Checked, language: Language) -> tuple[Section, ...]:
    """Say everything that a certificate shows."""
    t = texts(language)
    receipts = tuple(_receipts(checked, t)) or (Row(t["receipt"], t["none"], is_text=True),)
    stamps = tuple(_stamps(checked, t)) or (Row(t["stamp"], t["none"], is_text=True),)
    return (
        Section(t["s_deployment"], tuple(_deployment(checked, t))),
        Section(t["s_act"], tuple(_act(checked, t))),
        Section(t["s_place"], tuple(_place(checked, t))),
        Section(t["s_witnesses"], tuple(_witnesses(checked, t))),
        Section(t["s_receipts"], receipts),
        Section(t["s_stamps"], stamps),
        Section(t["s_content"], tuple(_content(checked, t, language))),
    )


def notes(checked: Checked, language: Language) -> tuple[str, ...]:
    """Say what a certificate does not show."""
    t = texts(language)
    first = "l_closed" if checked.opened is None else "l_open"
    return t[first], t["l_removed"], t["l_names"], t["l_program"]


def _deployment(checked: Checked, t: Mapping[str, str]) -> Iterator[Row]:
    genesis, policy = checked.genesis, checked.genesis.policy.serialize()
    digits = checked.genesis_hash.hex()
    groups = [digits[at : at + _GROUP] for at in range(0, len(digits), _GROUP)]
    lines = (groups[: len(groups) // 2], groups[len(groups) // 2 :])
    yield Row(t["genesis"], "\n".join(map(" ".join, lines)))
    yield Row(t["deployment"], genesis.deployment.hex())
    yield Row(t["log"], genesis.origin)
    yield Row(t["policy_hash"], sha256(policy.encode()).hexdigest())
    yield Row(t["policy"], policy.removesuffix("\n"))


def _act(checked: Checked, t: Mapping[str, str]) -> Iterator[Row]:
    core, certificate = checked.core, checked.certificate
    yield Row(t["envelope"], core.id.hex())
    yield Row(t["from"], _describe(checked, core.sender))
    yield Row(t["to"], _describe(checked, core.counterpart))
    for to in core.to:
        if to.kind is Kind.AUDIT:
            yield Row(t["auditor"], _describe(checked, to.desk))
    yield Row(t["device"], core.device.hex())
    yield Row(t["device_key"], checked.device.statement.fast.hex())
    yield Row(t["admitted"], str(checked.device.index))
    yield Row(t["core_hash"], core_hash(certificate.core).hex())
    yield Row(t["core_signature"], certificate.signature.hex())
    for desk, name in certificate.names:
        yield Row(t["named"], f"{desk.hex()}: {_visible(name)}", is_text=True)


def _place(checked: Checked, t: Mapping[str, str]) -> Iterator[Row]:
    under = checked.under
    yield Row(t["index"], str(checked.index))
    yield Row(t["size"], str(under.checkpoint.size))
    yield Row(t["root"], under.checkpoint.root.hex())
    yield Row(t["places"], checked.places.hex())
    yield Row(t["sealed"], moment(under.sealed_time))
    if checked.not_before is None:
        yield Row(t["not_before"], t["unknown"], is_text=True)
    else:
        yield Row(t["not_before"], moment(checked.not_before))


def _witnesses(checked: Checked, t: Mapping[str, str]) -> Iterator[Row]:
    yield Row(t["quorum"], "\n".join(checked.genesis.policy.outline))
    yield from _cosigned(checked.under, t)


def _cosigned(under: WitnessedCheckpoint, t: Mapping[str, str]) -> Iterator[Row]:
    for one in under.cosignatures:
        yield Row(t["witness"], f"{one.witness}  {moment(one.time)}")


def _receipts(checked: Checked, t: Mapping[str, str]) -> Iterator[Row]:
    for one in checked.confirmed:
        yield Row(t["receipt"], _describe(checked, one.receipt.desk))
        yield Row(t["device"], one.receipt.device.hex())
        yield Row(t["index"], str(one.index))
        yield Row(t["sealed"], moment(one.under.sealed_time))
        yield from _cosigned(one.under, t)


def _stamps(checked: Checked, t: Mapping[str, str]) -> Iterator[Row]:
    stamps = checked.certificate.stamps
    for one in stamps:
        yield Row(t["stamp"], f"{one.witness}  {moment(one.at)}")
    if stamps and checked.stamped_at is None:
        yield Row(t["stamped"], t["no_quorum"], is_text=True)
    elif checked.stamped_at is not None:
        yield Row(t["stamped"], moment(checked.stamped_at))


def _content(checked: Checked, t: Mapping[str, str], language: Language) -> Iterator[Row]:
    core, opened = checked.core, checked.opened
    # SPEC [V-4]: a certificate shows what was not opened.
    yield Row(t["body"], t["opened" if opened else "not_opened"], is_text=True)
    yield Row(t["body_size"], str(core.body.size))
    yield Row(t["body_hash"], core.body.hash.hex())
    if opened is not None and checked.certificate.opening is not None:
        yield Row(t["body_key"], checked.certificate.opening.key.hex())
        yield from _opened(opened, t, meanings(language))
    yield Row(t["audit"], t["not_opened"], is_text=True)
    yield Row(t["audit_size"], str(core.audit.size))
    yield Row(t["audit_hash"], core.audit.hash.hex())
    if core.blobs:
        yield Row(t["blobs"], str(len(core.blobs)))


def _opened(opened: Opened, t: Mapping[str, str], means: Mapping[str, str]) -> Iterator[Row]:
    act = opened.act
    yield Row(t["act_id"], opened.act_id.hex())
    yield Row(t["full_signature"], t["present" if opened.is_signed else "absent"], is_text=True)
    yield Row(t["event"], t[f"e_{act.event.value}"], is_text=True)
    yield Row(t["exchange"], act.exchange.hex())
    if act.head is not None:
        yield Row(t["head"], act.head.hex())
    for name in fields_of(act):
        for value in _values(getattr(act, name), means):
            yield Row(t[f"f_{name}"], _visible(value), is_text=name in _FREE_TEXT)


def fields_of(act: Act) -> tuple[str, ...]:
    """Give the names of the fields in which an act says something, in the order of the form."""
    apart = {"event", "exchange", "salt", "head"}
    return tuple(name for name in act.__dataclass_fields__ if name not in apart and act.says(name))


def moment(seconds: int) -> str:
    """Write a time as people read it: UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _describe(checked: Checked, id_: DeskId) -> str:
    stated = checked.desks.get(id_)
    return id_.hex() if stated is None else f"{stated.party}/{stated.authority.value} {id_.hex()}"


def _values(value: object, means: Mapping[str, str]) -> tuple[str, ...]:
    """Give what stands in each row of a field: one for each item or person with its words.

    In one row, what somebody wrote on a new line could pass for the next person.
    """
    match value:
        case Handling():
            return (f"{value.purpose}, {value.evidence}, {value.onward}",)
        case tuple():
            parts = tuple(_part(part, means) for part in value)
            has_words = any(" " in part for part in parts)
            return parts if has_words else (", ".join(parts),)
        case _:
            return (str(value),)


def _part(part: object, means: Mapping[str, str]) -> str:
    match part:
        case Item():
            return f"{_meant(part.measure, means)}: {part.wanted}"
        case Person():
            return f"{part.role}: {part.known}"
        case _:
            return _meant(str(part), means)


def _meant(code: str, means: Mapping[str, str]) -> str:
    return f"{code} ({means[code]})" if code in means else code


def _visible(text: str) -> str:
    return text.translate(_OVERRIDES)
