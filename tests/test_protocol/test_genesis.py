"""What chains rest on: who may found a deployment, and what a genesis cannot be."""

from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from typing import Final

import pytest

from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.genesis import Genesis, Root, parse_genesis, parse_root, verify_genesis
from comity_protocol.identifiers import DeviceId
from comity_protocol.keys import AnchorKey, FastKey, FullKey, key_id
from comity_protocol.leaves import statement_hash
from comity_protocol.policy import Policy
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import KeyType, VerifierKey
from comity_protocol.statements import SignedStatement, parse_statement, sign_statement
from support.world import World

LOW_ORDER = b"\x01" + bytes(31)
"""The neutral element of Ed25519: every signature of a certain form fits it."""

CUSTODIANS: Final = tuple(sorted((bytes([number]) * 1984 for number in range(3)), key=key_id))
ROOT: Final = Root("XA", 2, CUSTODIANS)
KEYS: Final = tuple(FastKey.from_seed(bytes([number]) * 32).public for number in range(4))
LOG: Final = VerifierKey("comity.example", KeyType.ED25519, KEYS[0])
ANCHORS: Final = tuple(AnchorKey.from_seed(bytes([number]) * 32).public for number in range(2))


def _policy(*keys: bytes, type_: KeyType = KeyType.COSIGNATURE_V1, threshold: int = 2) -> Policy:
    named = (VerifierKey(f"w{number}", type_, key) for number, key in enumerate(keys, start=1))
    return Policy(LOG, Quorum(threshold, tuple(named)))


POLICY: Final = _policy(KEYS[1], KEYS[2])
GENESIS: Final = Genesis(POLICY, _policy(*ANCHORS, type_=KeyType.MLDSA44), KEYS[3], (ROOT,))


@pytest.fixture
def world() -> World:
    return World.found()


def _field(payload: bytes, name: str, value: Value) -> bytes:
    values = parse(payload)
    assert isinstance(values, dict)
    return serialize({**values, name: value})


# --- Form -------------------------------------------------------------------------------------


def test_a_genesis_and_its_roots_read_as_they_were_written() -> None:
    """[C-1]"""
    without_anchors = replace(GENESIS, anchors=None)

    assert parse_genesis(GENESIS.serialize()) == GENESIS
    assert parse_genesis(without_anchors.serialize()) == without_anchors
    assert parse_root(ROOT.serialize()) == ROOT


def test_a_root_has_one_form_whatever_the_order_of_its_custodians() -> None:
    """[C-1] [S-1] The first statement of a desk names the root's hash."""
    turned = replace(ROOT, custodians=CUSTODIANS[::-1])

    assert turned.serialize() == ROOT.serialize()
    assert turned.custodian_keys == ROOT.custodian_keys


def test_a_deployment_is_named_by_its_genesis() -> None:
    """[D-1]"""
    assert GENESIS.deployment == statement_hash(GENESIS.serialize())[:16]
    looser = replace(GENESIS, policy=_policy(KEYS[1], KEYS[2], threshold=1))
    assert looser.deployment != GENESIS.deployment
    assert replace(GENESIS, anchors=None).deployment != GENESIS.deployment


def test_a_genesis_is_no_statement_of_a_chain() -> None:
    """[C-6] [S-1]"""
    with pytest.raises(MalformedError, match="statement is not one of"):
        parse_statement(GENESIS.serialize())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("k", 0, "root, k is 0, expected 1 to 3"),
        ("k", 4, "root, k is 4, expected 1 to 3"),
        ("version", 2, "root, version is 2, expected 1 to 1"),
        ("t", "desk", "root, t is not one of root"),
        ("custodians", [], "root, custodians has 0 items, expected 1 to 9"),
        ("custodians", [bytes(1983)], "custodian has 1983 bytes, expected 1984"),
        ("custodians", list(CUSTODIANS[::-1]), "custodians are not ascending, each once"),
        ("custodians", [CUSTODIANS[0]] * 2, "custodians are not ascending, each once"),
    ],
)
def test_a_root_out_of_form_is_malformed(name: str, value: Value, message: str) -> None:
    """[S-12] A threshold that can never be reached, or that one person reaches alone."""
    with pytest.raises(MalformedError, match=message):
        parse_root(_field(ROOT.serialize(), name, value))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relay_key": KEYS[0]}, "keys of relay, log and witnesses are not each there once"),
        ({"relay_key": KEYS[2]}, "keys of relay, log and witnesses are not each there once"),
        ({"relay_key": b""}, "genesis, relay has 0 bytes, expected 32"),
        ({"policy": GENESIS.anchors}, "genesis has a policy of ML-DSA-44 keys"),
        ({"anchors": POLICY}, "anchors have Ed25519 keys"),
        ({"roots": ()}, "genesis, roots has 0 items, expected 1 to 16"),
        ({"roots": (ROOT, ROOT)}, "founding roots are not each there once"),
    ],
)
def test_a_genesis_out_of_form_is_malformed(changes: dict[str, object], message: str) -> None:
    """[S-12] [L-9] [L-10]"""
    genesis = replace(GENESIS, **changes)  # type: ignore[arg-type]  # the test's own keywords

    with pytest.raises(MalformedError, match=message):
        parse_genesis(genesis.serialize())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "policy does not end in its quorum"),
        (POLICY.serialize().replace("quorum quorum", "quorum none"), "on no earlier line"),
        (POLICY.serialize().replace("\n", "\r\n"), r"has the character U\+000D"),
        (POLICY.serialize() + " ", "not in its one canonical form"),
        ("e\u0301", "is not in Unicode normal form C"),
    ],
)
def test_a_genesis_with_a_policy_out_of_form_is_malformed(text: str, message: str) -> None:
    """[L-9]"""
    with pytest.raises(MalformedError, match=message):
        parse_genesis(_field(GENESIS.serialize(), "policy", text))


# --- Signatures: [S-12] -----------------------------------------------------------------------


def _genesis_of(world: World) -> Genesis:
    return world.directory.genesis


def _sign_genesis(world: World, genesis: Genesis, *codes: str) -> SignedStatement:
    return _sign_payload(world, genesis.serialize(), *codes)


def _sign_payload(world: World, payload: bytes, *codes: str) -> SignedStatement:
    return sign_statement(payload, [key for code in codes for key in world.parties[code].quorum])


def test_a_genesis_signed_by_every_founding_state_is_accepted(world: World) -> None:
    """[S-12]"""
    assert verify_genesis(world.statements[0][1]) == _genesis_of(world)


def test_a_genesis_that_a_founding_state_did_not_sign_is_refused(world: World) -> None:
    """[S-12] One State cannot found a deployment in another's name."""
    signed = _sign_genesis(world, _genesis_of(world), "XA")

    with pytest.raises(
        VerificationError, match=r"genesis has too few signatures of XB, expected 2"
    ):
        verify_genesis(signed)


def test_a_genesis_that_one_custodian_signed_for_his_state_is_refused(world: World) -> None:
    """[S-12]"""
    keys = [*world.parties["XA"].quorum, world.parties["XB"].keys[0]]

    with pytest.raises(VerificationError, match="genesis has too few signatures of XB"):
        verify_genesis(sign_statement(_genesis_of(world).serialize(), keys))


def test_a_genesis_that_a_stranger_signed_too_is_refused(world: World) -> None:
    """[S-12] [S-2]"""
    keys = [key for party in world.parties.values() for key in party.quorum]
    signed = sign_statement(_genesis_of(world).serialize(), [*keys, FullKey.generate()])

    with pytest.raises(VerificationError, match=r"may not sign here \[S-2\]"):
        verify_genesis(signed)


def test_a_custodian_in_two_founding_roots_is_refused(world: World) -> None:
    """[S-12] One person would count for two States."""
    shared = replace(_genesis_of(world).roots[0], code="XC")
    genesis = replace(_genesis_of(world), roots=(*_genesis_of(world).roots, shared))

    with pytest.raises(VerificationError, match="a custodian's key stands in two founding roots"):
        verify_genesis(_sign_genesis(world, genesis, "XA", "XB"))


@pytest.mark.parametrize("where", ["log", "relay", "witness", "custodian"])
def test_a_genesis_with_a_low_order_key_is_refused(world: World, where: str) -> None:
    """[K-2]"""
    genesis = _genesis_of(world)
    payload = genesis.serialize()
    match where:
        case "log" | "witness":
            strong = genesis.log if where == "log" else genesis.quorum.witnesses[0]
            payload = _field(payload, "policy", _weakened(genesis.policy, strong))
        case "relay":
            payload = replace(genesis, relay_key=LOW_ORDER).serialize()
        case _:
            root = genesis.roots[0]
            weak = root.custodians[0][:1952] + LOW_ORDER
            roots = (replace(root, custodians=(weak, *root.custodians[1:])), genesis.roots[1])
            payload = replace(genesis, roots=roots).serialize()

    with pytest.raises(MalformedError, match="is of low order"):
        verify_genesis(_sign_payload(world, payload, "XA", "XB"))


def _weakened(policy: Policy, key: VerifierKey) -> str:
    """Write a policy with another key in place of one, which no `VerifierKey` can hold."""
    material = bytes([key.type]) + LOW_ORDER
    key_id_ = sha256(f"{key.name}\n".encode() + material).digest()[:4]
    weak = f"{key.name}+{key_id_.hex()}+{b64encode(material).decode()}"
    return policy.serialize().replace(key.serialize(), weak)


@pytest.mark.parametrize("extra", ["boxes", "previous"])
def test_a_genesis_with_boxes_is_refused(world: World, extra: str) -> None:
    """[S-12]"""
    signed = world.statements[0][1]
    signed = (
        replace(signed, boxes=((DeviceId(bytes(16)), b"box"),))
        if extra == "boxes"
        else replace(signed, previous=b"previous")
    )

    with pytest.raises(VerificationError, match="genesis comes with boxes, expected none"):
        verify_genesis(signed)
