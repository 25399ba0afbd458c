"""The audit record: codes, bands and counters, the same for everyone who opened the act."""

from dataclasses import replace
from itertools import product

import pytest

from comity_protocol import codes
from comity_protocol.acts import Act, Event, Item, Person
from comity_protocol.audit import AuditRecord, project, verify_projection
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import LimitError, MalformedError, VerificationError
from comity_protocol.identifiers import EnvelopeId, ExchangeId
from comity_protocol.keys import random_bytes
from comity_protocol.padding import AUDIT_CLASSES
from support.world import lead, reply, request

HEAD = EnvelopeId(b"\x07" * 16)
HEAD_KEY = b"\x08" * 32
FULLEST = request(
    cases=3,
    due_on="2026-02-28",
    due_reason="hearing",
    topic="COST",
    grounds=("N01",),
    outcomes=("DONE", "NEGATIVE", "DONE"),
    head=HEAD,
)


def _field(name: str, value: Value) -> bytes:
    values = parse(project(FULLEST, HEAD_KEY).serialize())
    assert isinstance(values, dict)
    return serialize({**values, name: value})


@pytest.mark.parametrize(
    ("act", "key"),
    [
        (lead(), None),
        (request(), None),
        (FULLEST, HEAD_KEY),
        *((reply(event, lead(), HEAD), HEAD_KEY) for event in Event if event is not Event.REQUEST),
    ],
)
def test_a_record_reads_as_it_was_written_and_is_what_the_reader_computes(
    act: Act, key: bytes | None
) -> None:
    """[U-1] [C-1]"""
    record = project(act, key)

    read = AuditRecord.parse(record.serialize())

    assert read == record
    verify_projection(read, Act.parse(act.serialize()), key)


def test_no_word_of_an_act_survives_into_its_record() -> None:
    """[U-2] Names, references, dates, free text, and the act's salt, all planted."""
    words = [f"canary{number}" for number in range(11)]
    act = replace(
        FULLEST,
        reference=words[0],
        text=words[1],
        authority=words[2],
        proceeding=words[3],
        facts=words[4],
        purpose=words[5],
        due_reason=words[6],
        due_on="2031-07-19",
        items=(Item("M05", words[7]), Item("M19", words[8])),
        persons=(Person("VICTIM", words[9]), Person("SUSPECT", words[10])),
        cases=123_456,
        victims=654_321,
    )

    data = project(act, HEAD_KEY).serialize()

    assert b"canary" not in data
    assert b"2031-07-19" not in data
    assert act.salt not in data
    assert all(serialize(count) not in data for count in (123_456, 654_321))
    assert all(word.encode() not in data for word in ("VICTIM", "SUSPECT", "THIS_INVESTIGATION"))


def test_an_auditor_sees_bands_distinct_measures_and_counts_of_outcomes() -> None:
    """[U-2] Cases and victims stay apart."""
    items = tuple(Item(measure, "x") for measure in ("M19", "M05", "M19"))
    record = project(replace(FULLEST, items=items, victims=60), HEAD_KEY)

    assert (record.cases, record.victims) == ("2-4", "50+")
    assert (record.measures, record.items) == (("M05", "M19"), 3)
    assert record.outcomes == (("DONE", 2), ("NEGATIVE", 1))
    assert project(lead(), None).items is None


def test_a_request_with_more_than_16_kinds_of_measures_says_only_how_many_items() -> None:
    """[U-2]"""
    items = tuple(Item(measure, "x") for measure in sorted(codes.MEASURES)[:17])

    record = project(replace(request(), items=items), None)

    assert (record.measures, record.items) == ((), 17)


# --- A sender who lies to auditors: [U-1], [U-3] ----------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"event": Event.CLOSE},
        {"exchange": ExchangeId(bytes(16))},
        {"head": EnvelopeId(bytes(16))},
        {"profile": "lead"},
        {"language": "fr"},
        {"basis": ()},
        {"offences": ("DRUGS",)},
        {"urgency": "U0"},
        {"urgency_reason": None},
        {"measures": ("M01",)},
        {"items": 1},
        {"cases": None},
        {"victims": "0"},
        {"children": "YES"},
        {"topic": "REFUSE"},
        {"grounds": ()},
        {"outcomes": (("DONE", 3),)},
        {"head_key": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_sender_who_tells_auditors_something_else_is_found_out(
    changes: dict[str, object],
) -> None:
    """[U-1]"""
    record = replace(project(FULLEST, HEAD_KEY), **changes)  # type: ignore[arg-type]  # own keywords

    with pytest.raises(
        VerificationError, match=r"sender told its auditors something else than your desk \[U-1\]"
    ):
        verify_projection(record, FULLEST, HEAD_KEY)


def test_a_wrong_key_for_the_act_before_is_found_out() -> None:
    """[U-3] Else an auditor who got garbage once would never see that act."""
    record = project(FULLEST, random_bytes(32))

    with pytest.raises(
        VerificationError, match=r"gave its auditors a wrong key for the act before \[U-3\]"
    ):
        verify_projection(record, FULLEST, HEAD_KEY)


@pytest.mark.parametrize(
    ("act", "key"), [(FULLEST, None), (request(), HEAD_KEY)], ids=["unknown head", "no head"]
)
def test_an_act_whose_head_this_desk_does_not_know_is_refused(act: Act, key: bytes | None) -> None:
    """[U-3] A hostile act must not crash its reader."""
    record = project(act, None if act.head is None else HEAD_KEY)

    with pytest.raises(VerificationError, match=r"names as head an act .* not know \[U-3\]"):
        verify_projection(record, act, key)


@pytest.mark.parametrize(("act", "key"), [(FULLEST, None), (request(), HEAD_KEY)])
def test_a_record_is_not_made_without_the_key_of_its_head(act: Act, key: bytes | None) -> None:
    """[U-3]"""
    with pytest.raises(ValueError, match="head and head key go together"):
        project(act, key)


def test_an_act_with_too_many_codes_is_refused_and_does_not_crash_its_reader() -> None:
    """[E-10] Every record fits the largest class, so lengths tell three things at most."""
    greedy = replace(
        FULLEST,
        basis=tuple(sorted(codes.LEGAL_BASES, key=len)[-16:]),
        offences=tuple(sorted(codes.OFFENCES)) + ("CORRUPTION",) * 6,
        grounds=tuple(sorted(codes.REFUSALS)[:16]),
        items=tuple(Item(measure, "x") for measure in sorted(codes.MEASURES)[:16]),
        outcomes=tuple(sorted(codes.OUTCOMES)),
    )
    assert Act.parse(greedy.serialize()) == greedy

    with pytest.raises(LimitError, match=r"audit record is \d+ bytes, expected below 512"):
        project(greedy, HEAD_KEY)
    with pytest.raises(LimitError):
        verify_projection(project(FULLEST, HEAD_KEY), greedy, HEAD_KEY)


# --- Form: [U-2], [C-5] -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("e", "recall", "audit record, e is not one of"),
        ("x", bytes(15), "audit record, x has 15 bytes, expected 16"),
        ("h", bytes(15), "audit record, h has 15 bytes, expected 16"),
        ("k", bytes(31), "audit record, k has 31 bytes, expected 32"),
        ("p", "mrs-smith", "audit record, p is not one of lead, untoc18"),
        ("l", "<>", "audit record, l is not a two-letter language code"),
        ("b", ["SMITH"], "audit record, b is not one of"),
        ("b", [], "audit record, b has 0 items, expected 1 to 16"),
        ("o", ["TIP"] * 17, "audit record, o has 17 items, expected 1 to 16"),
        ("u", "U9", "audit record, u is not one of"),
        ("ur", "SMITH", "audit record, ur is not one of"),
        ("m", ["M99"], "audit record, m is not one of"),
        ("i", 0, "audit record, i is 0, expected 1 to 64"),
        ("c", "3", "audit record, c is not one of"),
        ("v", 3, "audit record, v is of type int, expected text"),
        ("ch", "SMITH", "audit record, ch is not one of"),
        ("t", "SMITH", "audit record, t is not one of"),
        ("g", ["SMITH"], "audit record, g is not one of"),
        ("r", [["SMITH", 1]], "audit record, outcome is not one of"),
        ("r", [["DONE", 0]], "audit record, outcome is 0, expected 1 to 64"),
        ("r", [["DONE"]], "audit record, outcome has 1 items, expected 2"),
        ("r", [], "audit record, r has 0 items, expected 1 to 6"),
        ("text", "Smith", "audit record has the unknown field 'text'"),
    ],
)
def test_a_record_with_anything_but_codes_and_counters_is_malformed(
    name: str, value: Value, message: str
) -> None:
    """[U-2] A record has no place in which a name could stand."""
    with pytest.raises(MalformedError, match=message):
        AuditRecord.parse(_field(name, value))


def test_an_oversize_record_is_refused_before_it_is_parsed() -> None:
    """[E-9]"""
    with pytest.raises(MalformedError, match="audit record is 512 bytes, expected below 512"):
        AuditRecord.parse(bytes(AUDIT_CLASSES[-1]))


def test_a_common_record_takes_the_second_class_and_a_reply_the_first_or_second() -> None:
    """[E-10]"""
    assert len(project(request(), None).serialize()) < AUDIT_CLASSES[1]
    for event, key in product((Event.ACKNOWLEDGE, Event.CLOSE, Event.CONSULT), (HEAD_KEY,)):
        assert len(project(reply(event, request(), HEAD), key).serialize()) < AUDIT_CLASSES[0]
