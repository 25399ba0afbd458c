"""Receipts and promises: whose word counts, and for what."""

from dataclasses import replace

import pytest

from comity_protocol.core import Core, core_hash
from comity_protocol.directory import UnknownDeskError
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.identifiers import DeskId, DeviceId, EnvelopeId
from comity_protocol.keys import Context, FastKey, random_bytes
from comity_protocol.limits import (
    NUMBER_MAX,
    PROMISE_WITHIN_SECONDS,
    RECEIPT_BYTES_MAX,
    RECEIPT_IDS_MAX,
)
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.receipts import (
    Promise,
    Receipt,
    Signed,
    check_confirms,
    sign_promise,
    sign_receipt,
    verify_promise,
    verify_receipt,
)
from support.world import Member, World, core_of, lead


@pytest.fixture
def world() -> World:
    return World.found()


@pytest.fixture
def desk(world: World) -> DeskId:
    return world.create_desk("XB", officers=3)


def _receipt(member: Member, *held: tuple[bytes, bytes]) -> Receipt:
    pairs = sorted(held or [(random_bytes(16), random_bytes(32))])
    return Receipt(
        member.desk, member.id, 3, tuple((EnvelopeId(id_), core) for id_, core in pairs), bytes(32)
    )


def _pair(core: Core) -> tuple[bytes, bytes]:
    return core.id, core_hash(core.serialize())


def _sealed_core(world: World, to: DeskId) -> Core:
    home = world.create_desk("XA")
    return core_of(world.seal_act(world.active(home)[0], to, lead()))


# --- Receipts: [Q-1] --------------------------------------------------------------------------


def test_a_receipt_by_an_active_device_is_believed(world: World, desk: DeskId) -> None:
    """[Q-1]"""
    member = world.active(desk)[0]
    receipt = _receipt(member)

    signed = Signed.parse(sign_receipt(member.fast, receipt).serialize())

    assert verify_receipt(signed, world.directory, index=SIZE_MAX) == receipt


def test_the_relay_cannot_forge_a_receipt(world: World, desk: DeskId) -> None:
    """[Q-1]"""
    signed = sign_receipt(world.relay_key, _receipt(world.active(desk)[0]))

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        verify_receipt(signed, world.directory, index=SIZE_MAX)


def test_a_device_cannot_confirm_for_another_desk(world: World, desk: DeskId) -> None:
    """[Q-1]"""
    member = world.active(world.create_desk("XA"))[0]
    signed = sign_receipt(member.fast, replace(_receipt(member), desk=desk))

    with pytest.raises(
        VerificationError, match=r"device \w{8} may not confirm for desk \w{8} \[Q-1\]"
    ):
        verify_receipt(signed, world.directory, index=SIZE_MAX)


def test_a_removed_device_confirms_nothing_after_its_leaf(world: World, desk: DeskId) -> None:
    """[Q-1]"""
    leaver = world.active(desk)[0]
    signed = sign_receipt(leaver.fast, _receipt(leaver))
    world.remove(desk, [leaver])
    at = world.directory.index

    verify_receipt(signed, world.directory, index=at - 1)
    with pytest.raises(VerificationError, match=r"may not confirm for desk .* \[Q-1\]"):
        verify_receipt(signed, world.directory, index=at)


def test_an_unknown_device_confirms_nothing(world: World, desk: DeskId) -> None:
    """[Q-1]"""
    member = world.active(desk)[0]
    receipt = replace(_receipt(member), device=DeviceId(random_bytes(16)))

    with pytest.raises(UnknownDeskError):
        verify_receipt(sign_receipt(member.fast, receipt), world.directory, index=SIZE_MAX)


def test_an_envelopes_signature_is_no_receipts_signature(world: World, desk: DeskId) -> None:
    """[K-1]"""
    member = world.active(desk)[0]
    payload = _receipt(member).serialize()
    signed = Signed(payload, member.fast.sign(Context.ENVELOPE, payload))

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        verify_receipt(signed, world.directory, index=SIZE_MAX)


def test_a_receipt_cannot_be_moved_to_another_envelope(world: World, desk: DeskId) -> None:
    """[Q-1]"""
    member = world.active(desk)[0]
    signed = sign_receipt(member.fast, _receipt(member))

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        verify_receipt(
            replace(signed, payload=_receipt(member).serialize()), world.directory, index=SIZE_MAX
        )


def test_a_receipt_confirms_the_envelopes_that_its_desk_was_sent(
    world: World, desk: DeskId
) -> None:
    """[Q-1]"""
    core = _sealed_core(world, desk)

    check_confirms(
        _receipt(world.active(desk)[0], _pair(core), (random_bytes(16), bytes(32))), core
    )


def test_a_strangers_receipt_confirms_nothing(world: World, desk: DeskId) -> None:
    """[Q-1] A member State that was never addressed learnt the id of an envelope."""
    core = _sealed_core(world, desk)
    stranger = world.active(world.create_desk("XB"))[0]

    with pytest.raises(
        VerificationError, match=r"desk \w{8} confirms an envelope that was not sent to it \[Q-1\]"
    ):
        check_confirms(_receipt(stranger, _pair(core)), core)


def test_the_senders_own_receipt_confirms_nothing(world: World, desk: DeskId) -> None:
    """[Q-1] The own desk gets every envelope too; that it holds it says nothing of arrival."""
    core = _sealed_core(world, desk)
    sender = world.active(core.sender)[0]

    with pytest.raises(VerificationError, match=r"was not sent to it \[Q-1\]"):
        check_confirms(_receipt(sender, _pair(core)), core)


def test_a_receipt_for_other_envelopes_confirms_nothing(world: World, desk: DeskId) -> None:
    """[Q-3]"""
    core = _sealed_core(world, desk)

    with pytest.raises(VerificationError, match=r"receipt does not confirm envelope \w{8} \[Q-3\]"):
        check_confirms(_receipt(world.active(desk)[0]), core)


def test_a_receipt_for_another_envelope_of_the_same_id_confirms_nothing(
    world: World, desk: DeskId
) -> None:
    """[Q-3] The relay gave the recipient an accomplice's envelope under the id of this one."""
    core = _sealed_core(world, desk)
    other = replace(_sealed_core(world, desk), id=core.id)
    receipt = _receipt(world.active(desk)[0], _pair(other))

    with pytest.raises(VerificationError, match=r"does not confirm envelope \w{8} \[Q-3\]"):
        check_confirms(receipt, core)


def _receipt_map(world: World, desk: DeskId, **changes: Value) -> bytes:
    value = parse(_receipt(world.active(desk)[0]).serialize())
    assert isinstance(value, dict)
    return serialize({**value, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"v": 2}, "receipt, v is 2, expected 1 to 1"),
        ({"t": "env"}, "receipt, t is not one of receipt"),
        ({"n": 0}, "receipt, n is 0, expected 1 to 4294967296"),
        ({"n": NUMBER_MAX + 1}, "receipt, n is 4294967297, expected 1 to 4294967296"),
        ({"held": []}, "receipt, held has 0 items, expected 1 to 128"),
        (
            {"held": [[b"\x02" * 16, bytes(32)], [b"\x01" * 16, bytes(32)]]},
            "envelopes are not ascending, each once",
        ),
        ({"held": [[b"\x01" * 16, bytes(32)]] * 2}, "envelopes are not ascending, each once"),
        ({"held": [[bytes(15), bytes(32)]]}, "receipt, envelope has 15 bytes, expected 16"),
        ({"held": [[bytes(16), bytes(31)]]}, "receipt, core hash has 31 bytes, expected 32"),
        ({"held": [[bytes(16)]]}, "receipt, envelope has 1 items, expected 2"),
        ({"note": "seen by the minister"}, "receipt has the unknown field 'note'"),
    ],
)
def test_a_receipt_out_of_form_is_malformed(
    world: World, desk: DeskId, changes: dict[str, Value], message: str
) -> None:
    """[C-5] [Q-4] A receipt has no room for text."""
    with pytest.raises(MalformedError, match=message):
        Receipt.parse(_receipt_map(world, desk, **changes))


def test_the_longest_receipt_fits_its_bound(world: World, desk: DeskId) -> None:
    """[E-9]"""
    held = [(number.to_bytes(16, "big"), bytes(32)) for number in range(RECEIPT_IDS_MAX)]
    receipt = replace(_receipt(world.active(desk)[0], *held), seq=30_000, number=NUMBER_MAX)

    assert Receipt.parse(receipt.serialize()) == receipt


def test_an_oversize_receipt_is_refused_before_it_is_parsed() -> None:
    """[E-9]"""
    with pytest.raises(MalformedError, match="receipt is 6,913 bytes, expected at most 6,912"):
        Receipt.parse(bytes(RECEIPT_BYTES_MAX + 1))


@pytest.mark.parametrize("value", [[b"x"], [b"x", bytes(63)], [b"", bytes(64)], b"x", [b"x", 1]])
def test_a_signed_object_out_of_form_is_malformed(value: Value) -> None:
    """[C-5]"""
    with pytest.raises(MalformedError):
        Signed.parse(serialize(value))


# --- Promises: [Q-2] --------------------------------------------------------------------------


def test_a_promise_for_what_was_posted_is_believed(world: World, desk: DeskId) -> None:
    """[Q-2]"""
    what = core_hash(_sealed_core(world, desk).serialize())
    promise = Promise(what, at=1_800_000_000)

    signed = sign_promise(world.relay_key, promise)

    assert verify_promise(signed, world.genesis.relay_key, what) == promise


def test_a_promise_for_something_else_is_refused(world: World) -> None:
    """[Q-2] A relay that kept another envelope, or none, has promised nothing of this one."""
    signed = sign_promise(world.relay_key, Promise(random_bytes(32), at=0))

    with pytest.raises(VerificationError, match=r"relay promised to log something else \[Q-2\]"):
        verify_promise(signed, world.genesis.relay_key, bytes(32))


def test_a_promise_by_another_key_is_refused(world: World) -> None:
    """[Q-2]"""
    signed = sign_promise(FastKey.generate(), Promise(bytes(32), at=0))

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        verify_promise(signed, world.genesis.relay_key, bytes(32))


def test_a_promise_cannot_be_stretched(world: World) -> None:
    """[Q-2]"""
    signed = sign_promise(world.relay_key, Promise(bytes(32), at=0, within=5))
    later = Promise(bytes(32), at=0, within=6).serialize()

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        verify_promise(replace(signed, payload=later), world.genesis.relay_key, bytes(32))


def test_a_receipts_signature_by_the_relay_key_is_no_promise(world: World) -> None:
    """[K-1]"""
    payload = Promise(bytes(32), at=0).serialize()
    signed = Signed(payload, world.relay_key.sign(Context.RECEIPT, payload))

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        verify_promise(signed, world.genesis.relay_key, bytes(32))


@pytest.mark.parametrize(
    ("promise", "message"),
    [
        (Promise(bytes(32), 0, PROMISE_WITHIN_SECONDS + 1), "within is 61, expected 1 to 60"),
        (Promise(bytes(32), 0, 0), "within is 0, expected 1 to 60"),
        (Promise(bytes(32), (1 << 40) + 1), "promise, at is 1099511627777, expected 0 to"),
        (Promise(bytes(31), 0), "promise, what has 31 bytes, expected 32"),
    ],
)
def test_a_promise_out_of_form_is_malformed(world: World, promise: Promise, message: str) -> None:
    """[Q-2] A promise to log it in a year is none."""
    signed = sign_promise(world.relay_key, promise)

    with pytest.raises(MalformedError, match=message):
        verify_promise(signed, world.genesis.relay_key, promise.what)


def test_an_oversize_promise_is_refused_before_it_is_parsed(world: World) -> None:
    """[E-9]"""
    with pytest.raises(MalformedError, match="promise is 129 bytes"):
        verify_promise(Signed(bytes(129), bytes(64)), world.genesis.relay_key, bytes(32))
