"""How statements are written and read; whether they may be said is in ``test_chain.py``."""

from dataclasses import replace
from typing import Final

import pytest

from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.identifiers import DeploymentId, DeskId, DeviceId, OfficerId
from comity_protocol.keys import FullKey, key_id
from comity_protocol.leaves import statement_hash
from comity_protocol.limits import DEVICES_MAX, STATEMENT_BYTES_MAX
from comity_protocol.statements import (
    Authority,
    DeskStatement,
    DeviceStatement,
    EpochKeys,
    EpochStatement,
    Link,
    Policy,
    PolicyStatement,
    Reason,
    RemovalStatement,
    Role,
    SignedStatement,
    Statement,
    boxes_hash,
    parse_signatures,
    parse_statement,
    sign_statement,
    verify_signatures,
)

LINK: Final = Link(DeploymentId(bytes(16)), DeskId(b"\x01" * 16), 7, bytes(32))
A, B = DeviceId(b"\x0a" * 16), DeviceId(b"\x0b" * 16)
KEYS: Final = [FullKey.from_seed(bytes([number]) * 64) for number in range(4)]
EPOCH: Final = EpochKeys(3, b"f" * 1216, b"l" * 1216, (A, B), bytes(32))
STATEMENTS: Final[dict[str, Statement]] = {
    "desk": DeskStatement(LINK, "XA", Authority.POLICE, Policy()),
    "device": DeviceStatement(
        LINK, b"k" * 32, b"c" * 1984, b"s" * 1216, OfficerId(bytes(16)), Role.ADMIN, None
    ),
    "epoch": EpochStatement(LINK, EPOCH),
    "removal": RemovalStatement(LINK, (A,), Reason.LOST, EPOCH),
    "policy": PolicyStatement(
        LINK, Policy(auditors_file=(LINK.desk,), auditors_lead=(LINK.desk, DeskId(b"\x02" * 16)))
    ),
}


def _field(payload: bytes, name: str, value: Value) -> bytes:
    values = parse(payload)
    assert isinstance(values, dict)
    return serialize({**values, name: value})


# --- Round trips ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STATEMENTS)
def test_a_statement_reads_as_it_was_written(kind: str) -> None:
    """[C-1]"""
    statement = STATEMENTS[kind]

    assert parse_statement(statement.serialize()) == statement


def test_a_device_with_a_box_reads_as_it_was_written() -> None:
    """[C-1]"""
    device = STATEMENTS["device"]
    assert isinstance(device, DeviceStatement)
    boxed = replace(device, box_hash=bytes(32))

    assert parse_statement(boxed.serialize()) == boxed


@pytest.mark.parametrize("boxes", [(), ((A, b"one"), (B, b"two"))])
@pytest.mark.parametrize("previous", [None, bytes(72)])
def test_a_signed_statement_reads_as_it_was_written(
    boxes: tuple[tuple[DeviceId, bytes], ...], previous: bytes | None
) -> None:
    """[C-1]"""
    signed = SignedStatement(b"payload", ((bytes(16), bytes(3373)),), boxes, previous)

    assert SignedStatement.parse(signed.serialize()) == signed


def test_signatures_and_boxes_are_put_into_their_order() -> None:
    """[C-1] [S-2]"""
    signed = sign_statement(b"payload", KEYS, boxes=[(B, b"two"), (A, b"one")], previous=b"seed")

    assert SignedStatement.parse(signed.serialize()) == signed
    assert {signer for signer, _ in signed.signatures} == {key_id(key.public) for key in KEYS}
    assert signed.boxes == ((A, b"one"), (B, b"two"))


def test_the_hash_of_a_statement_covers_no_signature() -> None:
    """[K-5]"""
    signed = SignedStatement(b"payload", ((bytes(16), bytes(3373)),))

    assert signed.hash == replace(signed, signatures=()).hash == statement_hash(b"payload")


def test_the_hash_of_boxes_covers_each_box_its_device_and_the_previous_seed() -> None:
    """[S-9]"""
    hashes = {
        boxes_hash([(A, b"one"), (B, b"two")], None),
        boxes_hash([(A, b"two"), (B, b"one")], None),
        boxes_hash([(A, b"one")], None),
        boxes_hash([(A, b"one"), (B, b"two")], b""),
        boxes_hash([(A, b"one"), (B, b"two")], b"seed"),
    }

    assert len(hashes) == 5


# --- Refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STATEMENTS)
def test_a_statement_with_an_unknown_or_a_missing_field_is_malformed(kind: str) -> None:
    """[C-5] Nothing can be stripped from a statement, or smuggled into it."""
    payload = STATEMENTS[kind].serialize()
    value = parse(payload)
    assert isinstance(value, dict)

    with pytest.raises(MalformedError, match=f"{kind} statement has the unknown field 'until'"):
        parse_statement(_field(payload, "until", 9))
    for name in value.keys() - {"t"}:
        without = {key: item for key, item in value.items() if key != name}
        with pytest.raises(MalformedError, match=f"{kind} statement has no field '{name}'"):
            parse_statement(serialize(without))


@pytest.mark.parametrize("payload", [b"\x01", b"\xa0", serialize({"t": 1}), serialize([])])
def test_a_statement_without_a_known_type_is_malformed(payload: bytes) -> None:
    """[C-6]"""
    with pytest.raises(
        MalformedError, match="statement is not one of desk, device, epoch, policy, removal"
    ):
        parse_statement(payload)


@pytest.mark.parametrize("kind", STATEMENTS)
def test_a_statement_of_another_version_is_malformed(kind: str) -> None:
    """[C-6]"""
    with pytest.raises(MalformedError, match=f"{kind} statement, v is 2, expected 1 to 1"):
        parse_statement(_field(STATEMENTS[kind].serialize(), "v", 2))


def test_an_oversize_statement_is_refused_before_it_is_parsed() -> None:
    """[E-9]"""
    with pytest.raises(
        MalformedError, match="statement is 524,289 bytes, expected at most 524,288"
    ):
        parse_statement(bytes(STATEMENT_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("kind", "name", "value", "message"),
    [
        ("desk", "authority", "ministry", "desk statement, authority is not one of"),
        ("desk", "party", "xa", "desk statement, party is not a State's or organisation's code"),
        ("desk", "party", "", "desk statement, party is not a State's or organisation's code"),
        ("desk", "party", "X_A", "party is not a State's or organisation's code"),
        ("desk", "party", "\u00c4A", "party is not a State's or organisation's code"),
        ("desk", "party", "X" * 17, "desk statement, party has 17 bytes, expected 0 to 16"),
        ("desk", "seq", -1, "desk statement, seq is -1, expected 0 to"),
        ("desk", "prev", bytes(31), "desk statement, prev has 31 bytes, expected 32"),
        ("desk", "desk", bytes(15), "desk statement, desk has 15 bytes, expected 16"),
        ("device", "fast", bytes(31), "device statement, fast has 31 bytes, expected 32"),
        ("device", "full", bytes(1983), "device statement, full has 1983 bytes, expected 1984"),
        ("device", "seal", bytes(1217), "device statement, seal has 1217 bytes, expected 1216"),
        ("device", "role", "owner", "device statement, role is not one of admin, officer"),
        ("device", "box", b"", "device statement, box has 0 bytes, expected 32"),
        ("epoch", "n", 0, "epoch statement, n is 0, expected 1 to"),
        ("epoch", "members", [], "epoch statement, members has 0 items, expected 1 to 128"),
        ("epoch", "members", [B, A], "epoch statement, members are not ascending, each once"),
        ("epoch", "members", [A, A], "epoch statement, members are not ascending, each once"),
        ("epoch", "members", [A] * (DEVICES_MAX + 1), "members has 129 items, expected 1 to 128"),
        ("removal", "gone", [], "removal statement, gone has 0 items, expected 1 to 128"),
        ("removal", "reason", "retired", "removal statement, reason is not one of"),
        ("removal", "epoch", None, "removal statement, epoch is of type NoneType, expected a map"),
    ],
)
def test_a_statement_with_a_field_out_of_form_is_malformed(
    kind: str, name: str, value: Value, message: str
) -> None:
    """[C-5]"""
    with pytest.raises(MalformedError, match=message):
        parse_statement(_field(STATEMENTS[kind].serialize(), name, value))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("add", 0, "policy, add is 0, expected 1 to 128"),
        ("epoch_days", 367, "policy, epoch_days is 367, expected 1 to 366"),
        ("fresh_hours", 73, "policy, fresh_hours is 73, expected 1 to 72"),
        ("history_days", 0, "policy, history_days is 0, expected 1 to 10957"),
        ("auditors_file", [bytes(16)] * 5, "policy, auditors_file has 5 items, expected 0 to 4"),
        ("auditors_lead", [B, A], "auditors_lead are not ascending, each once"),
    ],
)
def test_a_policy_out_of_bounds_is_malformed(name: str, value: Value, message: str) -> None:
    """[E-9] Nobody may be let in by no admin at all."""
    policy = {**Policy().to_value(), name: value}

    with pytest.raises(MalformedError, match=message):
        parse_statement(_field(STATEMENTS["policy"].serialize(), "policy", policy))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "signatures has 0 items, expected 1 to 144"),
        ([[bytes(16), bytes(3372)]], "signature has 3372 bytes, expected 3373"),
        ([[bytes(15), bytes(3373)]], "signature, signer has 15 bytes, expected 16"),
        ([[bytes(16)]], "signature has 1 items, expected 2"),
        ([[bytes(16), bytes(3373)]] * 2, "signatures are not ascending, each once"),
    ],
)
def test_signatures_out_of_form_are_malformed(value: Value, message: str) -> None:
    """[S-2]"""
    with pytest.raises(MalformedError, match=message):
        parse_signatures(value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("boxes", [], "boxes has 0 items, expected 1 to 128"),
        ("boxes", [[B, b"x"], [A, b"x"]], "boxes are not ascending, each once"),
        ("boxes", [[A, bytes(1601)]], "boxes has 1601 bytes, expected 1 to 1600"),
        ("previous", bytes(73), "signed statement, previous has 73 bytes, expected 1 to 72"),
        ("p", b"", "signed statement, p has 0 bytes, expected 1 to 524288"),
        ("note", "x", "signed statement has the unknown field 'note'"),
    ],
)
def test_a_signed_statement_out_of_form_is_malformed(name: str, value: Value, message: str) -> None:
    """[C-5] [E-9]"""
    signed = SignedStatement(b"payload", ((bytes(16), bytes(3373)),))

    with pytest.raises(MalformedError, match=message):
        SignedStatement.parse(_field(signed.serialize(), name, value))


# --- Signatures: [S-2] ------------------------------------------------------------------------


def test_the_signers_are_those_whose_signatures_were_verified() -> None:
    """[S-2]"""
    known = {key_id(key.public): key.public for key in KEYS}

    signers = verify_signatures(sign_statement(b"payload", KEYS[:2]), known)

    assert signers == {key_id(key.public) for key in KEYS[:2]}


def test_a_signer_who_is_not_known_or_who_comes_twice_is_refused() -> None:
    """[S-2]"""
    signed = sign_statement(b"payload", KEYS[:1])
    known = {key_id(KEYS[0].public): KEYS[0].public}

    with pytest.raises(VerificationError, match=r"signer \w{8} may not sign here \[S-2\]"):
        verify_signatures(signed, {})
    with pytest.raises(VerificationError, match=r"a signer signed twice \[S-2\]"):
        verify_signatures(replace(signed, signatures=signed.signatures * 2), known)


def test_a_signature_over_another_payload_is_refused() -> None:
    """[S-2]"""
    signed = sign_statement(b"payload", KEYS[:1])
    known = {key_id(KEYS[0].public): KEYS[0].public}

    with pytest.raises(VerificationError, match="signature does not verify"):
        verify_signatures(replace(signed, payload=b"other"), known)
