"""Notices: who may say what about an envelope, and what follows from it."""

from dataclasses import replace

import pytest

from comity_protocol.directory import UnknownDeskError
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.identifiers import DeploymentId, DeviceId, EnvelopeId
from comity_protocol.keys import Context, FastKey, random_bytes
from comity_protocol.limits import (
    NAME_BYTES_MAX,
    NOTICE_BYTES_MAX,
    NOTICE_IDS_MAX,
    NUMBER_MAX,
    SEQ_MAX,
    WITNESSES_MAX,
)
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.notices import (
    Author,
    DeskNotice,
    Erase,
    EraseBasis,
    Hold,
    HoldBasis,
    Notice,
    Stamped,
    check_concerns,
    parse_notice,
    sign_notice,
    verify_notice,
)
from comity_protocol.receipts import Signed
from comity_protocol.stamps import Stamp
from comity_protocol.statements import Role
from support.scene import Scene, found_scene
from support.world import Member, World


@pytest.fixture(scope="module")
def scene() -> Scene:
    return found_scene()


def notices_of(scene: Scene, member: Member) -> list[DeskNotice]:
    return [
        scene.stamped(member),
        scene.erase(member),
        scene.hold(member),
        scene.release(member),
    ]


# --- Who gives it: [H-1] ----------------------------------------------------------------------


def test_an_admins_notice_of_each_kind_is_believed(scene: Scene) -> None:
    """[H-1]"""
    admin = scene.member(scene.home)

    for notice in notices_of(scene, admin):
        wire = sign_notice(admin.fast, notice).serialize()
        signed = Signed.parse(wire, NOTICE_BYTES_MAX)

        assert verify_notice(signed, scene.world.directory, index=SIZE_MAX) == notice
        check_concerns(notice, scene.core)


def test_an_officer_may_hold_but_neither_erase_nor_release(scene: Scene) -> None:
    """[H-1]"""
    officer = scene.member(scene.other, Role.OFFICER)

    scene.verify(officer, scene.hold(officer))
    for notice in (scene.erase(officer), scene.release(officer)):
        with pytest.raises(
            VerificationError, match=rf"is not an admin's, which {notice.kind} needs \[H-1\]"
        ):
            scene.verify(officer, notice)


def test_the_relay_cannot_forge_a_desks_notice(scene: Scene) -> None:
    """[H-1]"""
    for notice in notices_of(scene, scene.member(scene.home)):
        signed = sign_notice(scene.world.relay_key, notice)

        with pytest.raises(VerificationError, match="fast signature does not verify"):
            verify_notice(signed, scene.world.directory, index=SIZE_MAX)


def test_a_device_gives_no_notice_for_another_desk(scene: Scene) -> None:
    """[H-1]"""
    thief = scene.member(scene.other)
    notice = scene.erase(thief)
    notice = replace(notice, author=replace(notice.author, desk=scene.home))

    with pytest.raises(
        VerificationError, match=r"device \w{8} may give no notice for desk \w{8} \[H-1\]"
    ):
        scene.verify(thief, notice)


def test_a_removed_device_gives_no_notice_after_its_leaf() -> None:
    """[H-1]"""
    world = World.found()
    desk = world.create_desk("XA", officers=3, admins=2)
    leaver = world.active(desk)[0]
    author = Author(world.genesis.deployment, desk, leaver.id, 3, bytes(32))
    signed = sign_notice(leaver.fast, Hold(author, (EnvelopeId(bytes(16)),), HoldBasis.COMPLAINT))
    world.remove(desk, [leaver])
    at = world.directory.index

    verify_notice(signed, world.directory, index=at - 1)
    with pytest.raises(VerificationError, match=r"may give no notice for desk .* \[H-1\]"):
        verify_notice(signed, world.directory, index=at)


def test_an_unknown_device_gives_no_notice(scene: Scene) -> None:
    """[H-1]"""
    member = scene.member(scene.home)
    notice = scene.hold(member)
    notice = replace(notice, author=replace(notice.author, device=DeviceId(random_bytes(16))))

    with pytest.raises(UnknownDeskError):
        scene.verify(member, notice)


def test_a_notice_of_another_deployment_is_refused(scene: Scene) -> None:
    """[H-1]"""
    member = scene.member(scene.home)
    notice = scene.hold(member)
    other = DeploymentId(random_bytes(16))
    notice = replace(notice, author=replace(notice.author, deployment=other))

    with pytest.raises(VerificationError, match=r"notice is of another deployment \[H-1\]"):
        scene.verify(member, notice)


def test_a_receipts_signature_is_no_notices_signature(scene: Scene) -> None:
    """[K-1]"""
    member = scene.member(scene.home)
    payload = scene.hold(member).serialize()
    signed = Signed(payload, member.fast.sign(Context.RECEIPT, payload))

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        verify_notice(signed, scene.world.directory, index=SIZE_MAX)


def test_a_restore_is_the_relays_word(scene: Scene) -> None:
    """[H-1]"""
    notice = scene.restored()
    signed = sign_notice(scene.world.relay_key, notice)

    assert verify_notice(signed, scene.world.directory, index=SIZE_MAX) == notice
    assert notice.envelopes == ()


def test_a_desk_cannot_say_that_the_relay_was_restored(scene: Scene) -> None:
    """[H-1] It would make everybody send everything again."""
    with pytest.raises(VerificationError, match="fast signature does not verify"):
        scene.verify(scene.member(scene.home), scene.restored())


def test_a_restore_of_another_deployment_is_refused(scene: Scene) -> None:
    """[H-1]"""
    notice = replace(scene.restored(), deployment=DeploymentId(random_bytes(16)))

    with pytest.raises(VerificationError, match=r"notice is of another deployment \[H-1\]"):
        verify_notice(
            sign_notice(scene.world.relay_key, notice), scene.world.directory, index=SIZE_MAX
        )


# --- What it is about: [H-1] [H-2] ------------------------------------------------------------


def test_every_addressed_desk_may_hold_the_auditor_too(scene: Scene) -> None:
    """[H-1]"""
    for desk in (scene.home, scene.other, scene.auditor):
        check_concerns(scene.hold(scene.member(desk)), scene.core)


def test_a_desk_that_is_not_addressed_has_nothing_to_say(scene: Scene) -> None:
    """[H-1] A member State that was never addressed learnt the id of an envelope."""
    for notice in notices_of(scene, scene.member(scene.stranger)):
        with pytest.raises(
            VerificationError, match=r"envelope \w{8} does not address desk \w{8} \[H-1\]"
        ):
            check_concerns(notice, scene.core)


def test_a_notice_says_nothing_of_an_envelope_that_it_does_not_name(scene: Scene) -> None:
    """[H-1]"""
    notice = scene.hold(scene.member(scene.home), EnvelopeId(random_bytes(16)))

    with pytest.raises(VerificationError, match=r"notice does not name envelope \w{8} \[H-1\]"):
        check_concerns(notice, scene.core)


def test_a_recipient_cannot_date_what_was_sent_to_it(scene: Scene) -> None:
    """[H-2] It would make the other desk's request seem earlier, or its own reply's clock."""
    notice = scene.stamped(scene.member(scene.other))

    with pytest.raises(
        VerificationError, match=r"was not sent by desk \w{8}, which shows stamps for it \[H-2\]"
    ):
        check_concerns(notice, scene.core)


def test_stamps_of_another_core_are_refused_under_this_envelopes_id(scene: Scene) -> None:
    """[H-2] Stamps taken in January are shown for an envelope of March, with its id."""
    admin = scene.member(scene.home)
    january = random_bytes(32)
    notice = replace(
        scene.stamped(admin, scene.stamp(0, what=january), scene.stamp(1, what=january)),
        core=january,
    )

    scene.verify(admin, notice)
    with pytest.raises(VerificationError, match=r"stamps are for another envelope than .* \[H-2\]"):
        check_concerns(notice, scene.core)


def test_stamps_of_another_core_are_refused_under_this_cores_hash(scene: Scene) -> None:
    """[H-2]"""
    admin = scene.member(scene.home)
    notice = scene.stamped(admin, scene.stamp(0, what=random_bytes(32)))

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        scene.verify(admin, notice)


def test_stamps_by_a_stranger_are_refused(scene: Scene) -> None:
    """[H-2]"""
    admin = scene.member(scene.home)
    stranger = replace(scene.stamp(0), witness="friend.example")

    with pytest.raises(VerificationError, match=r"stamp by no witness of the genesis \[H-2\]"):
        scene.verify(admin, scene.stamped(admin, stranger))


def test_a_stamp_under_another_witnesss_name_is_refused(scene: Scene) -> None:
    """[H-2]"""
    admin = scene.member(scene.home)
    renamed = replace(scene.stamp(0), witness=scene.stamp(1).witness)

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        scene.verify(admin, scene.stamped(admin, renamed))


# --- Form -------------------------------------------------------------------------------------


def _payload(notice: Notice, **changes: Value) -> bytes:
    values = parse(notice.serialize())
    assert isinstance(values, dict)
    return serialize(values | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"v": 2}, "hold notice, v is 2, expected 1 to 1"),
        ({"t": "burn"}, "notice, t is not one of erase, hold, release, restored, stamped"),
        ({"t": 1}, "notice, t is of type int, expected text"),
        ({"t": "release"}, "release notice has the unknown field 'basis'"),
        ({"basis": "MISTAKE"}, "hold notice, basis is not one of AUDIT, COMPLAINT, PROCEEDINGS"),
        ({"envelopes": []}, "hold notice, envelopes has 0 items, expected 1 to 128"),
        ({"envelopes": [bytes(15)]}, "hold notice, envelope has 15 bytes, expected 16"),
        (
            {"envelopes": [bytes([1]) * 16, bytes(16)]},
            "hold notice, envelopes are not ascending, each once",
        ),
        ({"envelopes": [bytes(16)] * 2}, "hold notice, envelopes are not ascending, each once"),
        (
            {"envelopes": [number.to_bytes(16, "big") for number in range(NOTICE_IDS_MAX + 1)]},
            "hold notice, envelopes has 129 items, expected 1 to 128",
        ),
        ({"seq": SEQ_MAX + 1}, "hold notice, seq is 4294967297, expected 0 to 4294967296"),
        ({"n": 0}, "hold notice, n is 0, expected 1 to 4294967296"),
        ({"n": NUMBER_MAX + 1}, "hold notice, n is 4294967297, expected 1 to 4294967296"),
        ({"seen": bytes(31)}, "hold notice, seen has 31 bytes, expected 32"),
        ({"note": "the minister asked"}, "hold notice has the unknown field 'note'"),
    ],
)
def test_a_notice_out_of_form_is_malformed(
    scene: Scene, changes: dict[str, Value], message: str
) -> None:
    """[C-5] [C-6] [H-7] A notice has no room for text."""
    payload = _payload(scene.hold(scene.member(scene.home)), **changes)

    with pytest.raises(MalformedError, match=message):
        parse_notice(payload)


def test_a_notice_without_a_type_is_malformed(scene: Scene) -> None:
    """[C-6]"""
    with pytest.raises(MalformedError, match="notice, t is of type NoneType, expected text"):
        parse_notice(serialize({"v": 1}))


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        ([], "stamped notice, stamps has 0 items, expected 1 to 63"),
        ([["w", 1]], "stamped notice, stamp has 2 items, expected 3"),
        ([["w", 1, bytes(63)]], "stamped notice, signature has 63 bytes, expected 64"),
        ([["w", 1 << 40, bytes(64)]], "stamped notice, at is 1099511627776, expected 0 to"),
        ([["w" * 129, 1, bytes(64)]], "stamped notice, witness has 129 bytes, expected 0 to 128"),
        ([["w", 1, bytes(64)], ["w", 2, bytes(64)]], "stamps are not ascending, each once"),
        ([["x", 1, bytes(64)], ["w", 2, bytes(64)]], "stamps are not ascending, each once"),
    ],
)
def test_stamps_out_of_form_are_malformed(scene: Scene, stamps: list[Value], message: str) -> None:
    """[C-5] [H-2] One witness twice is not two witnesses."""
    payload = _payload(scene.stamped(scene.member(scene.home)), stamps=stamps)

    with pytest.raises(MalformedError, match=message):
        parse_notice(payload)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"had": 1_001}, "restored notice, had is 1001, expected 0 to 1000"),
        ({"lost": 1_001}, "restored notice, lost is 1001, expected 0 to 1000"),
        ({"size": SIZE_MAX + 1}, "restored notice, size is 9223372036854775808, expected 0 to"),
        ({"incarnation": bytes(15)}, "restored notice, incarnation has 15 bytes, expected 16"),
        ({"at": -1}, "restored notice, at is -1, expected 0 to"),
        ({"desk": bytes(16)}, "restored notice has the unknown field 'desk'"),
    ],
)
def test_a_restore_out_of_form_is_malformed(
    scene: Scene, changes: dict[str, Value], message: str
) -> None:
    """[C-5]"""
    with pytest.raises(MalformedError, match=message):
        parse_notice(_payload(scene.restored(), **changes))


def test_the_longest_notices_fit_their_bound(scene: Scene) -> None:
    """[E-9]"""
    author = replace(scene.author(scene.member(scene.home)), seq=SEQ_MAX, number=NUMBER_MAX)
    names = [f"{number:0{NAME_BYTES_MAX}}" for number in range(WITNESSES_MAX)]
    stamps = tuple(Stamp(name, 253_402_300_799, bytes(64)) for name in names)
    stamped = Stamped(author, EnvelopeId(bytes(16)), bytes(32), stamps)
    ids = tuple(EnvelopeId(number.to_bytes(16, "big")) for number in range(NOTICE_IDS_MAX))
    erase = Erase(author, ids, EraseBasis.COURT_ORDER)

    assert parse_notice(stamped.serialize()) == stamped
    assert parse_notice(erase.serialize()) == erase


def test_an_oversize_notice_is_refused_before_it_is_parsed() -> None:
    """[E-9]"""
    with pytest.raises(MalformedError, match="notice is 13,313 bytes, expected at most 13,312"):
        parse_notice(bytes(NOTICE_BYTES_MAX + 1))


def test_a_notice_by_a_key_of_no_device_is_refused(scene: Scene) -> None:
    """[H-1]"""
    signed = sign_notice(FastKey.generate(), scene.hold(scene.member(scene.home)))

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        verify_notice(signed, scene.world.directory, index=SIZE_MAX)
