"""Acts and bodies: what is said, signed and cited."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity_protocol.acts import (
    Act,
    Body,
    Event,
    Gossip,
    Handling,
    Item,
    Person,
    act_id,
    sign_act,
    verify_act,
)
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.identifiers import DeploymentId, DeskId, EnvelopeId
from comity_protocol.keys import Context, FullKey
from comity_protocol.limits import BODY_BYTES_MAX
from support.world import lead, reply, request

DEPLOYMENT = DeploymentId(b"\x01" * 16)
HOME, AWAY, THIRD = (DeskId(bytes([number]) * 16) for number in (2, 3, 4))
KEY = FullKey.from_seed(bytes(64))
FULL_ACT = request(
    text="line one\nline two\t\u05e9\u05dc\u05d5\u05dd",
    due_on="2026-02-28",
    due_reason="hearing",
    cases=1,
    head=EnvelopeId(bytes(16)),
    topic="COST",
    grounds=("N01", "N22"),
    outcomes=("DONE", "NEGATIVE"),
)


def _field(act: Act, name: str, value: Value) -> bytes:
    values = parse(act.serialize())
    assert isinstance(values, dict)
    return serialize({**values, name: value})


# --- Round trips ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        lead(),
        request(),
        FULL_ACT,
        *(
            reply(event, lead(), EnvelopeId(bytes(16)))
            for event in Event
            if event is not Event.REQUEST
        ),
    ],
)
def test_an_act_reads_as_it_was_written(act: Act) -> None:
    """[C-1]"""
    assert Act.parse(act.serialize()) == act


@given(st.text(max_size=50), st.integers(min_value=0, max_value=1_000_000), st.sampled_from(Event))
def test_whatever_is_written_is_read_or_refused(text: str, count: int, event: Event) -> None:
    """[A-3]"""
    act = replace(lead(text), event=event, victims=count)

    try:
        parsed = Act.parse(act.serialize())
    except MalformedError:
        return

    assert parsed == act or not act.says("text")


def test_fields_that_say_nothing_are_left_out() -> None:
    """[C-1] Silence has one form."""
    act = replace(lead(), text="", reference="  ", offences=(), victims=0)

    assert [name for name in ("text", "reference", "offences") if act.says(name)] == []
    assert act.says("victims")
    assert Act.parse(act.serialize()).text is None


@pytest.mark.parametrize("signature", [None, bytes(3373)])
@pytest.mark.parametrize("gossip", [None, Gossip(7, bytes(32), bytes(64))])
def test_a_body_reads_as_it_was_written(signature: bytes | None, gossip: Gossip | None) -> None:
    """[C-1]"""
    body = Body(b"act", signature, gossip)

    assert Body.parse(body.serialize()) == body


# --- Id and signature, [A-2] -----------------------------------------------------------


def test_a_formal_act_verifies_between_its_two_desks() -> None:
    """[A-1]"""
    act = request().serialize()
    signature = sign_act(KEY, act, deployment=DEPLOYMENT, sender=HOME, receiver=AWAY)

    verify_act(KEY.public, act, signature, deployment=DEPLOYMENT, sender=HOME, receiver=AWAY)


@pytest.mark.parametrize(
    ("deployment", "sender", "receiver"),
    [
        pytest.param(DEPLOYMENT, HOME, THIRD, id="shown to a third desk"),
        pytest.param(DEPLOYMENT, THIRD, AWAY, id="passed off as a third desk's"),
        pytest.param(DEPLOYMENT, AWAY, HOME, id="sent back to its author"),
        pytest.param(DeploymentId(bytes(16)), HOME, AWAY, id="in another deployment"),
    ],
)
def test_an_acts_signature_fits_no_other_desks_and_no_other_deployment(
    deployment: DeploymentId, sender: DeskId, receiver: DeskId
) -> None:
    """[A-1] A request that one State got cannot be forwarded as if it were for another."""
    act = request().serialize()
    signature = sign_act(KEY, act, deployment=DEPLOYMENT, sender=HOME, receiver=AWAY)

    with pytest.raises(VerificationError, match="half of the full signature does not verify"):
        verify_act(
            KEY.public, act, signature, deployment=deployment, sender=sender, receiver=receiver
        )


def test_an_altered_act_is_refused() -> None:
    """[A-1]"""
    act = request()
    signature = sign_act(KEY, act.serialize(), deployment=DEPLOYMENT, sender=HOME, receiver=AWAY)
    altered = replace(act, victims=3).serialize()

    with pytest.raises(VerificationError):
        verify_act(
            KEY.public, altered, signature, deployment=DEPLOYMENT, sender=HOME, receiver=AWAY
        )


def test_a_formal_act_without_a_signature_is_refused() -> None:
    """[A-1]"""
    with pytest.raises(VerificationError, match="formal act is not signed; ask the sender to sign"):
        verify_act(KEY.public, b"act", None, deployment=DEPLOYMENT, sender=HOME, receiver=AWAY)


def test_a_statements_signature_is_no_acts_signature() -> None:
    """[K-1]"""
    act = request().serialize()
    signature = KEY.sign(Context.STATEMENT, DEPLOYMENT + HOME + AWAY + act)

    with pytest.raises(VerificationError):
        verify_act(KEY.public, act, signature, deployment=DEPLOYMENT, sender=HOME, receiver=AWAY)


def test_an_acts_id_depends_on_act_deployment_and_both_desks_in_order() -> None:
    """[A-1]"""
    act = lead().serialize()
    ids = {
        act_id(act, deployment=DEPLOYMENT, sender=HOME, receiver=AWAY),
        act_id(act, deployment=DEPLOYMENT, sender=AWAY, receiver=HOME),
        act_id(act, deployment=DEPLOYMENT, sender=HOME, receiver=THIRD),
        act_id(act, deployment=DeploymentId(bytes(16)), sender=HOME, receiver=AWAY),
        act_id(lead().serialize(), deployment=DEPLOYMENT, sender=HOME, receiver=AWAY),
    }

    assert len(ids) == 5


@pytest.mark.parametrize("salt", [b"", bytes(31), bytes(33), "x" * 32])
def test_an_act_without_32_random_bytes_is_malformed(salt: Value) -> None:
    """[A-2] Else citing it by hash would let others guess what it says."""
    with pytest.raises(MalformedError, match="act, salt"):
        Act.parse(_field(lead(), "salt", salt))


# --- Free text: [A-3] -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["text", "authority", "proceeding", "facts", "purpose", "due_reason", "reference", "profile"],
)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\x1b[2J", r"has the character U\+001B"),
        ("a\u0000b", r"has the character U\+0000"),
        ("e\u0301", "is not in Unicode normal form C"),
        ("\u2028", r"has the character U\+2028"),
        ("x" * 65_537, "has 65537 bytes, expected 0 to"),
    ],
)
def test_free_text_with_control_characters_or_above_its_bound_is_malformed(
    name: str, text: str, message: str
) -> None:
    """[A-3]"""
    with pytest.raises(MalformedError, match=f"act, {name} {message}"):
        Act.parse(_field(FULL_ACT, name, text))


@pytest.mark.parametrize("name", ["text", "facts", "purpose", "reference", "authority"])
@pytest.mark.parametrize("blank", ["", " ", "\u3000\u00a0"])
def test_an_act_that_claims_an_empty_field_is_malformed(name: str, blank: str) -> None:
    """[P-1] [C-1] Blanks would else pass for the summary of facts that a request owes."""
    with pytest.raises(MalformedError, match="act states an empty field, expected it left out"):
        Act.parse(_field(FULL_ACT, name, blank))


@pytest.mark.parametrize("name", ["basis", "offences", "items", "persons", "grounds", "outcomes"])
def test_an_act_that_claims_an_empty_list_is_malformed(name: str) -> None:
    """[C-1]"""
    with pytest.raises(MalformedError, match=f"act, {name} has 0 items, expected 1 to"):
        Act.parse(_field(FULL_ACT, name, []))


@pytest.mark.parametrize(("name", "code"), [("items", "M05"), ("persons", "VICTIM")])
def test_an_item_or_a_person_without_words_is_malformed(name: str, code: str) -> None:
    """[P-1] UNTOC art. 18(15)(d), (e): what is sought, and who, or 'unknown'."""
    with pytest.raises(MalformedError, match=f"act, {name} has an entry without words"):
        Act.parse(_field(FULL_ACT, name, [[code, " "]]))


# --- Codes: [A-4] -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("basis", ["NATO"], "act, basis is not one of"),
        ("offences", ["TAX"], "act, offences is not one of"),
        ("offences", ["TIP"] * 17, "act, offences has 17 items, expected 1 to 16"),
        ("urgency", "U5", "act, urgency is not one of U0, U1, U2, U3, U4"),
        ("urgency_reason", "MINISTER", "act, urgency_reason is not one of"),
        ("children", "MAYBE", "act, children is not one of NO, UNKNOWN, YES"),
        ("topic", "WEATHER", "act, topic is not one of"),
        ("grounds", ["N23"], "act, grounds is not one of"),
        ("outcomes", ["LOST"], "act, outcomes is not one of"),
        ("items", [["M41", "x"]], "act, items is not one of"),
        ("items", [["M01"]], "act, items has 1 items, expected 2"),
        ("items", [["M01", "x"]] * 65, "act, items has 65 items, expected 1 to 64"),
        ("persons", [["SPY", "x"]], "act, persons is not one of"),
        ("persons", [["VICTIM", "x"]] * 257, "act, persons has 257 items, expected 1 to 256"),
        ("handling", ["FUN", "NO", "ASK"], "act, purpose is not one of"),
        ("handling", ["HUMANITARIAN_RETURN", "NEVER", "ASK"], "act, evidence is not one of"),
        ("handling", ["HUMANITARIAN_RETURN", "NO", "ALL"], "act, onward is not one of"),
        ("handling", ["HUMANITARIAN_RETURN", "NO"], "act, handling has 2 items, expected 3"),
        ("victims", -1, "act, victims is -1, expected 0 to 1000000"),
        ("cases", 1_000_001, "act, cases is 1000001, expected 0 to 1000000"),
        ("e", "recall", "act, e is not one of"),
        ("x", bytes(15), "act, x has 15 bytes, expected 16"),
        ("head", bytes(15), "act, head has 15 bytes, expected 16"),
        ("v", 2, "act, v is 2, expected 1 to 1"),
        ("t", "body", "act, t is not one of act"),
        ("verdict", "guilty", "act has the unknown field 'verdict'"),
    ],
)
def test_an_act_with_a_value_out_of_its_list_is_malformed(
    name: str, value: Value, message: str
) -> None:
    """[A-4] [C-5] [C-6]"""
    with pytest.raises(MalformedError, match=message):
        Act.parse(_field(FULL_ACT, name, value))


@pytest.mark.parametrize("code", ["e", "EN", "a1", "a-", "\u00e9", "1a", "  "])
def test_a_language_that_is_not_two_letters_is_malformed(code: str) -> None:
    """[A-4]"""
    with pytest.raises(MalformedError, match="act, language is not a two-letter language code"):
        Act.parse(_field(FULL_ACT, "language", code))


@pytest.mark.parametrize(
    "text",
    ["2026-1-1", "20260131", "2026-W01-1", "2026-02-30", "2026-13-01", "0000-01-01", "tomorrow"],
)
def test_a_date_that_is_no_day_is_malformed(text: str) -> None:
    """[A-4] Every reader must be able to count days with it."""
    with pytest.raises(MalformedError, match="act, due_on is not a date like 2026-01-31"):
        Act.parse(_field(FULL_ACT, "due_on", text))


# --- Sizes and bodies -------------------------------------------------------------------------


def test_an_oversize_act_or_body_is_refused_before_it_is_parsed() -> None:
    """[E-9]"""
    with pytest.raises(MalformedError, match="act is 262,145 bytes, expected at most 262,144"):
        Act.parse(bytes(BODY_BYTES_MAX + 1))
    with pytest.raises(MalformedError, match="body is 262,145 bytes, expected at most 262,144"):
        Body.parse(bytes(BODY_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"act": b""}, "body, act has 0 bytes, expected 1 to 262144"),
        ({"sig": bytes(3372)}, "body, sig has 3372 bytes, expected 3373"),
        ({"cp": [7, bytes(32)]}, "body, cp has 2 items, expected 3"),
        ({"cp": [-1, bytes(32), bytes(64)]}, "gossip, size is -1, expected 0 to"),
        ({"cp": [7, bytes(31), bytes(64)]}, "gossip, root has 31 bytes, expected 32"),
        ({"cp": [7, bytes(32), "x"]}, "gossip, signature is of type str, expected a byte string"),
        ({"v": 2}, "body, v is 2, expected 1 to 1"),
        ({"bcc": bytes(16)}, "body has the unknown field 'bcc'"),
    ],
)
def test_a_body_out_of_form_is_malformed(changes: dict[str, Value], message: str) -> None:
    """[C-5] [C-6]"""
    values = parse(Body(b"act").serialize())
    assert isinstance(values, dict)

    with pytest.raises(MalformedError, match=message):
        Body.parse(serialize({**values, **changes}))


def test_every_field_of_the_fullest_act_is_on_the_wire() -> None:
    """[C-1] A field that were forgotten in the table would be lost in silence."""
    values = parse(replace(FULL_ACT, text="more").serialize())
    assert isinstance(values, dict)

    short = {"event": "e", "exchange": "x"}
    expected = {short.get(field.name, field.name) for field in fields(Act)} | {"v", "t"}

    assert set(values) == expected


def test_the_words_of_an_act_stay_apart() -> None:
    """[A-1] Items, persons and handling come back as the types they are."""
    act = Act.parse(FULL_ACT.serialize())

    assert all(isinstance(item, Item) for item in act.items)
    assert all(isinstance(person, Person) for person in act.persons)
    assert isinstance(act.handling, Handling)
