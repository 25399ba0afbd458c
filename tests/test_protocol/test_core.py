"""Cores: what the relay sees of an envelope, and every core that it refuses to read."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Final

import pytest

from comity_protocol.core import Core, Kind, Part, Recipient, core_hash
from comity_protocol.encoding import parse, serialize
from comity_protocol.errors import MalformedError
from comity_protocol.identifiers import DeskId, DeviceId, EnvelopeId
from comity_protocol.keys import random_bytes
from comity_protocol.limits import BLOBS_MAX, CORE_BYTES_MAX, RECIPIENTS_MAX

HOME, AWAY, AUDITOR, THIRD = (DeskId(bytes([number]) * 16) for number in range(1, 5))
CORE: Final = Core(
    id=EnvelopeId(b"e" * 16),
    sender=HOME,
    device=DeviceId(b"d" * 16),
    seq=7,
    seen=b"s" * 32,
    body=Part.of(b"body"),
    audit=Part.of(b"audit part"),
    to=(
        Recipient(HOME, 1, Kind.LEAD, b"h" * 32),
        Recipient(AWAY, 2, Kind.LEAD, b"a" * 32),
        Recipient(AUDITOR, 3, Kind.AUDIT, b"u" * 32),
    ),
)


def _reparse(change: Callable[[dict[str, object]], object]) -> Core:
    """Alter the core as a map and read it again."""
    value = parse(CORE.serialize())
    assert isinstance(value, dict)
    altered: dict[str, object] = dict(value)
    change(altered)
    return Core.parse(serialize(altered))  # type: ignore[arg-type]  # values out of a parsed map


def _alter_recipients(change: Callable[[list[Recipient]], list[Recipient]]) -> Core:
    return replace(CORE, to=tuple(change(list(CORE.to))))


# --- Round trips ------------------------------------------------------------------------------


def test_a_core_reads_as_it_was_written() -> None:
    """[C-1]"""
    assert Core.parse(CORE.serialize()) == CORE


def test_a_core_that_refers_to_anothers_wraps_reads_as_it_was_written() -> None:
    """[C-1] [E-6]"""
    to = tuple(entry.without_wrap() for entry in CORE.to)
    core = replace(CORE, ref=EnvelopeId(b"r" * 16), to=to)

    assert Core.parse(core.serialize()) == core


def test_a_core_with_attachments_reads_as_it_was_written() -> None:
    """[C-1]"""
    core = replace(CORE, blobs=(random_bytes(16), random_bytes(16)))

    assert Core.parse(core.serialize()) == core


def test_a_core_names_its_parts_by_length_and_hash() -> None:
    """[E-2]"""
    assert Part.of(b"body") == Part(4, sha256(b"body").digest())


def test_a_core_says_who_reads_the_body_under_which_kind_of_key() -> None:
    """[E-3] An auditor reads no body, wherever it stands in the order."""
    auditor, home, away = (
        replace(entry, desk=desk)
        for entry, desk in zip((CORE.to[2], *CORE.to[:2]), (HOME, AWAY, AUDITOR), strict=True)
    )
    core = replace(CORE, sender=AWAY, to=(auditor, home, away))

    assert core.counterpart == AUDITOR
    assert core.kind is Kind.LEAD
    assert core.recipient(HOME) == auditor
    assert core.recipient(THIRD) is None


def test_a_cores_hash_has_a_context_of_its_own() -> None:
    """[K-1]"""
    data = CORE.serialize()

    assert core_hash(data) != sha256(data).digest()
    assert core_hash(data) != core_hash(replace(CORE, seq=8).serialize())


# --- Recipients: [E-3] ------------------------------------------------------------------------


def test_recipients_out_of_order_are_malformed() -> None:
    """[E-3] One set of recipients has one form."""
    core = _alter_recipients(lambda entries: entries[::-1])

    with pytest.raises(MalformedError, match=r"recipients are not ascending, each once \[E-3\]"):
        Core.parse(core.serialize())


def test_a_recipient_twice_is_malformed() -> None:
    """[E-3]"""
    core = _alter_recipients(lambda entries: [entries[0], *entries])

    with pytest.raises(MalformedError, match=r"recipients are not ascending, each once \[E-3\]"):
        Core.parse(core.serialize())


def test_an_envelope_that_leaves_the_own_desk_out_is_malformed() -> None:
    """[E-3] Colleagues would not see what left the desk."""
    core = _alter_recipients(lambda entries: [entry for entry in entries if entry.desk != HOME])

    with pytest.raises(MalformedError, match=r"does not address the own desk and one other"):
        Core.parse(core.serialize())


def test_a_second_reader_beside_the_counterpart_is_malformed() -> None:
    """[E-3] An exchange is bilateral: nobody reads along."""
    ghost = Recipient(THIRD, 1, Kind.LEAD, random_bytes(32))
    core = _alter_recipients(
        lambda entries: sorted([*entries, ghost], key=lambda entry: entry.desk)
    )

    with pytest.raises(MalformedError, match=r"does not address the own desk and one other"):
        Core.parse(core.serialize())


def test_an_envelope_to_the_own_desk_and_auditors_alone_is_malformed() -> None:
    """[E-3]"""
    core = _alter_recipients(lambda entries: [entry for entry in entries if entry.desk != AWAY])

    with pytest.raises(MalformedError, match=r"does not address the own desk and one other"):
        Core.parse(core.serialize())


def test_file_and_lead_keys_in_one_envelope_are_malformed() -> None:
    """[E-3] Else what one desk forgets with its lead keys the other keeps with its file keys."""
    core = _alter_recipients(
        lambda entries: [
            replace(entry, kind=Kind.FILE) if entry.desk == AWAY else entry for entry in entries
        ],
    )

    with pytest.raises(MalformedError, match=r"core mixes file and lead keys \[E-3\]"):
        Core.parse(core.serialize())


def test_more_recipients_than_the_bound_are_malformed() -> None:
    """[E-9]"""
    entry = CORE.to[0]

    with pytest.raises(MalformedError, match="core, to has 11 items, expected 2 to 10"):
        Core.parse(replace(CORE, to=(entry,) * (RECIPIENTS_MAX + 1)).serialize())


# --- Sizes: [E-9] -----------------------------------------------------------------------------


def test_an_oversize_core_is_refused_before_it_is_parsed() -> None:
    """[E-9]"""
    with pytest.raises(MalformedError, match="core is 2,049 bytes, expected at most 2,048"):
        Core.parse(bytes(CORE_BYTES_MAX + 1))


@pytest.mark.parametrize(("part", "most"), [("b", 262_144), ("a", 584)])
def test_a_core_that_names_an_oversize_part_is_malformed(part: str, most: int) -> None:
    """[E-9]"""
    with pytest.raises(MalformedError, match=f"core, {part}, size is {most + 1}, expected 0 to"):
        _reparse(lambda value: value.update({part: [most + 1, bytes(32)]}))


def test_too_many_attachments_are_malformed() -> None:
    """[E-9]"""
    core = replace(CORE, blobs=(bytes(16),) * (BLOBS_MAX + 1))

    with pytest.raises(MalformedError, match="core, blobs has 17 items, expected 1 to 16"):
        Core.parse(core.serialize())


# --- Form: [C-5], [C-6] -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("v", 2, "core, v is 2, expected 1 to 1"),
        ("t", "act", "core, t is not one of env"),
        ("id", bytes(15), "core, id has 15 bytes, expected 16"),
        ("from", "desk", "core, from is of type str, expected a byte string"),
        ("seq", -1, "core, seq is -1, expected 0 to"),
        ("seen", bytes(31), "core, seen has 31 bytes, expected 32"),
        ("b", [1], "core, b has 1 items, expected 2"),
        ("ref", bytes(8), "core, ref has 8 bytes, expected 16"),
        ("blobs", [], "core, blobs has 0 items, expected 1 to 16"),
        ("urgent", True, "core has the unknown field 'urgent'"),
    ],
)
def test_a_core_with_a_field_out_of_form_is_malformed(
    name: str, value: object, message: str
) -> None:
    """[C-5] [C-6] A stripped or raised version, an unknown key, a wrong length."""
    with pytest.raises(MalformedError, match=message):
        _reparse(lambda values: values.update({name: value}))


@pytest.mark.parametrize("name", ["v", "t", "id", "from", "dev", "seq", "seen", "b", "a", "to"])
def test_a_core_without_a_field_is_malformed(name: str) -> None:
    """[C-5] Nothing can be stripped."""
    with pytest.raises(MalformedError, match=f"core has no field '{name}', expected it"):
        _reparse(lambda values: values.pop(name))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([bytes(16), 0, 1, bytes(32)], "core, epoch is 0, expected 1 to"),
        ([bytes(16), 1, 3, bytes(32)], "core, kind is 3, expected 0 to 2"),
        ([bytes(16), 1, 1], "core, recipient has 3 items, expected 4"),
        ([bytes(16), 1, 1, bytes(31)], "core, wrap hash has 31 bytes, expected 32"),
    ],
)
def test_a_recipient_out_of_form_is_malformed(row: list[object], message: str) -> None:
    """[C-5]"""
    with pytest.raises(MalformedError, match=message):
        _reparse(lambda values: values.update({"to": [row, row]}))
