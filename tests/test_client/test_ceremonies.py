"""Ceremonies: what is made here is what the protocol's fold accepts, and nothing less is."""

from dataclasses import dataclass, field, replace

import pytest

from comity_client.ceremonies import (
    Custodian,
    Enrolment,
    admit,
    change_policy,
    create_desk,
    found,
    new_root,
    remove,
    root_of,
    start_desk,
    turn,
)
from comity_client.pending import Ceremony, CeremonyError, Pending
from comity_client.words import describe, key_fingerprint
from comity_protocol.chain import Desk
from comity_protocol.directory import Directory
from comity_protocol.epochs import EpochSecret, open_box
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.genesis import Genesis, parse_genesis
from comity_protocol.identifiers import DeskId, OfficerId
from comity_protocol.keys import FastKey, FullKey, SealKey, random_bytes
from comity_protocol.policy import Policy as WitnessPolicy
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import KeyType, VerifierKey
from comity_protocol.statements import Authority, Policy, Reason, Role


@dataclass
class Hands:
    """The keys of one device."""

    fast: FastKey = field(default_factory=FastKey.generate)
    full: FullKey = field(default_factory=FullKey.generate)
    seal: SealKey = field(default_factory=SealKey.generate)

    def enrolment(self, genesis: Genesis, desk: DeskId, role: Role = Role.ADMIN) -> Enrolment:
        return Enrolment(
            genesis.deployment,
            desk,
            OfficerId(random_bytes(16)),
            role,
            self.fast.public,
            self.full.public,
            self.seal.public,
        )


def verifier_key(name: str, type_: KeyType = KeyType.COSIGNATURE_V1) -> VerifierKey:
    return VerifierKey(name, type_, FastKey.generate().public)


def policy_of(*witnesses: VerifierKey) -> WitnessPolicy:
    return WitnessPolicy(verifier_key("relay.example/log", KeyType.ED25519), Quorum(1, witnesses))


class Place:
    """A deployment founded by ceremonies, with one State whose threshold is two of three."""

    def __init__(self) -> None:
        self.custodians = [FullKey.generate() for _ in range(3)]
        self.root = new_root("XA", 2, [key.public for key in self.custodians])
        self.founding = found(
            policy=policy_of(verifier_key("w1.example")),
            relay_key=FastKey.generate().public,
            roots=[self.root],
        )
        signed = sign_all(self.founding, self.custodians[:2]).finish()[0]
        self.directory = Directory.begin(signed, signed.hash)
        self.desk_id = DeskId(random_bytes(16))
        self.first = Hands()

    @property
    def genesis(self) -> Genesis:
        return self.directory.genesis

    @property
    def desk(self) -> Desk:
        return self.directory.desk(self.desk_id)

    @property
    def secret(self) -> EpochSecret:
        """What the first device holds now."""
        return self.secrets[max(self.secrets)]

    def publish(self, ceremony: Ceremony) -> None:
        for signed in ceremony.finish():
            self.directory = self.directory.apply(signed, self.directory.index + 1)

    def starting(self, policy: Policy | None = None) -> Ceremony:
        return start_desk(
            self.genesis,
            self.first.enrolment(self.genesis, self.desk_id),
            party="XA",
            authority=Authority.POLICE,
            policy=policy or Policy(add_admins=1),
            key=self.first.full,
        )

    def start(self, policy: Policy | None = None) -> None:
        ceremony = sign_all(self.starting(policy), self.custodians[:2])
        self.publish(ceremony)
        self.secrets = {1: self.read_box(ceremony.items[-1], self.first)}

    def read_box(self, item: Pending, hands: Hands) -> EpochSecret:
        device = hands.enrolment(self.genesis, self.desk_id).device
        epoch = self.desk.epoch
        assert epoch is not None
        return open_box(
            dict(item.boxes)[device], hands.seal, desk=self.desk, device=device, epoch=epoch
        )

    def let_in(self, role: Role = Role.OFFICER) -> Hands:
        hands = Hands()
        pending = admit(
            self.genesis,
            self.desk,
            hands.enrolment(self.genesis, self.desk_id, role),
            secret=self.secret,
        )
        self.publish(sign_all(Ceremony((pending,)), [hands.full, *self.custodians[:2]]))
        return hands


def sign_all(ceremony: Ceremony, keys: list[FullKey]) -> Ceremony:
    for key in keys:
        ceremony = ceremony.sign(key)
    return ceremony


@pytest.fixture
def place() -> Place:
    return Place()


def test_a_genesis_needs_the_threshold_of_each_root(place: Place) -> None:
    """[S-12]."""
    once = place.founding.sign(place.custodians[0])

    assert place.founding.missing == ("2 of custodians of XA",)
    assert once.missing == ("1 more of custodians of XA",)
    with pytest.raises(CeremonyError, match="signatures are missing: 1 more of custodians of XA"):
        once.finish()
    assert once.sign(place.custodians[2]).is_complete


def test_one_custodian_who_signs_twice_counts_once(place: Place) -> None:
    """[S-2]."""
    twice = place.founding.sign(place.custodians[0]).sign(place.custodians[0])

    assert twice.missing == ("1 more of custodians of XA",)


def test_a_stranger_is_not_asked_to_sign(place: Place) -> None:
    with pytest.raises(CeremonyError, match="is not asked to sign this"):
        place.founding.sign(FullKey.generate())


def test_a_root_whose_threshold_can_never_be_reached_is_refused() -> None:
    public = FullKey.generate().public

    with pytest.raises(CeremonyError, match="root is 2 of 1 custodians"):
        new_root("XA", 2, [public])
    with pytest.raises(CeremonyError, match="one custodian is there twice"):
        new_root("XA", 1, [public, public])
    with pytest.raises(MalformedError, match="not a State's or organisation's code"):
        new_root("xa", 1, [public])


def test_a_deployment_without_a_founding_state_is_refused() -> None:
    policy = policy_of(verifier_key("w1.example"))

    with pytest.raises(CeremonyError, match="no founding State"):
        found(policy=policy, relay_key=FastKey.generate().public, roots=[])


def test_a_relay_that_is_its_own_witness_is_refused(place: Place) -> None:
    """[S-12]"""
    witness = verifier_key("w1.example")

    with pytest.raises(MalformedError, match="keys of relay, log and witnesses are not each there"):
        found(policy=policy_of(witness), relay_key=witness.public_key, roots=[place.root])


def test_a_ceremony_comes_back_from_its_file_with_its_signatures(place: Place) -> None:
    once = place.starting().sign(place.custodians[1])

    assert Ceremony.parse(once.serialize()) == once


def test_a_file_with_a_forged_signature_is_refused(place: Place) -> None:
    once = place.founding.sign(place.custodians[0])
    signer, signature = once.items[0].signatures[0]
    forged = replace(once.items[0], signatures=((signer, bytes(len(signature))),))

    with pytest.raises(VerificationError):
        Ceremony.parse(Ceremony((forged,)).serialize())


def test_a_file_with_anything_else_than_statements_is_refused(place: Place) -> None:
    """Stops a custodian from being shown nothing and signing something."""
    other = replace(place.founding.items[0], payload=b"\xa0")

    with pytest.raises(MalformedError):
        Ceremony.parse(Ceremony((other,)).serialize())


def test_signatures_that_went_two_ways_come_together(place: Place) -> None:
    one = place.founding.sign(place.custodians[0])
    two = place.founding.sign(place.custodians[1])

    assert one.merge(two).is_complete
    assert one.merge(two) == two.merge(one)


def test_files_of_different_statements_do_not_merge(place: Place) -> None:
    with pytest.raises(CeremonyError, match="different statements"):
        place.founding.merge(Place().founding)


def test_a_desk_starts_with_one_file_and_the_custodians_signatures(place: Place) -> None:
    """[S-1], [S-4], [S-7], [S-9]."""
    place.start()

    assert place.desk.authority is Authority.POLICE
    assert place.desk.is_sealable
    assert place.secret.number == 1


def test_the_first_device_alone_cannot_start_a_desk(place: Place) -> None:
    """[S-3]."""
    assert place.starting().missing == ("2 of custodians of XA",)


def test_a_desk_can_be_created_before_any_device(place: Place) -> None:
    pending = create_desk(
        place.genesis,
        place.desk_id,
        party="XA",
        authority=Authority.COURT,
        policy=Policy(),
    )
    place.publish(sign_all(Ceremony((pending,)), place.custodians[:2]))

    assert place.desk.epoch is None
    assert not place.desk.is_sealable


def test_an_unknown_party_is_told_who_is_known(place: Place) -> None:
    with pytest.raises(CeremonyError, match="XZ is not a party of this deployment, expected one"):
        root_of(place.genesis, "XZ")


def test_a_newcomer_needs_the_admins_or_the_custodians_and_the_own_signature(place: Place) -> None:
    """[S-3], [S-4]."""
    place.start()
    hands = Hands()
    enrolment = hands.enrolment(place.genesis, place.desk_id, Role.OFFICER)

    pending = admit(place.genesis, place.desk, enrolment, secret=place.secret)
    assert pending.missing[1] == "an admin or 2 of custodians of XA"
    admitted = pending.sign(place.first.full)
    assert admitted.missing == (f"the new device {enrolment.device.hex()[:8]}",)
    place.publish(Ceremony((admitted.sign(hands.full),)))

    assert enrolment.device in place.desk.active
    assert place.read_box(admitted, hands).file == place.secret.file


def test_two_devices_of_one_admin_count_once(place: Place) -> None:
    """[S-3]: admins of distinct officers."""
    place.start(Policy(add_admins=2))
    officer = next(iter(place.desk.active.values())).officer
    second = Hands()
    same = replace(second.enrolment(place.genesis, place.desk_id), officer=officer)
    third = Hands()
    for hands, enrolment in (
        (second, same),
        (third, third.enrolment(place.genesis, place.desk_id)),
    ):
        pending = admit(place.genesis, place.desk, enrolment, secret=place.secret)
        place.publish(sign_all(Ceremony((pending,)), [hands.full, *place.custodians[:2]]))
    newcomer = Hands()
    enrolment = newcomer.enrolment(place.genesis, place.desk_id, Role.OFFICER)
    pending = admit(place.genesis, place.desk, enrolment, secret=place.secret).sign(newcomer.full)

    by_one_officer = pending.sign(place.first.full).sign(second.full)

    assert by_one_officer.missing == ("1 more of the desk's admins or 2 of custodians of XA",)
    assert by_one_officer.sign(third.full).is_complete


def test_an_admin_is_let_in_by_custodians_only(place: Place) -> None:
    """[S-3]."""
    place.start()
    enrolment = Hands().enrolment(place.genesis, place.desk_id, Role.ADMIN)

    pending = admit(place.genesis, place.desk, enrolment, secret=place.secret)

    assert not pending.asks(place.first.full.public)


def test_nobody_is_let_in_without_the_desks_current_keys(place: Place) -> None:
    place.start()

    with pytest.raises(CeremonyError, match="current keys are needed"):
        admit(
            place.genesis,
            place.desk,
            Hands().enrolment(place.genesis, place.desk_id),
            secret=None,
        )


def test_a_request_for_another_desk_is_refused(place: Place) -> None:
    place.start()
    other = Hands().enrolment(place.genesis, DeskId(random_bytes(16)))

    with pytest.raises(CeremonyError, match="request is for desk"):
        admit(place.genesis, place.desk, other, secret=place.secret)


def test_a_device_that_was_there_is_not_let_in_again(place: Place) -> None:
    """[S-8]."""
    place.start()
    again = place.first.enrolment(place.genesis, place.desk_id)

    with pytest.raises(CeremonyError, match="is or was a device of this desk"):
        admit(place.genesis, place.desk, again, secret=place.secret)


def test_an_epoch_turns_by_one_device(place: Place) -> None:
    """[S-7]."""
    place.start()

    pending, epoch = turn(place.genesis, place.desk, place.first.full.public, last=place.secret)
    place.publish(Ceremony((pending.sign(place.first.full),)))

    assert place.desk.epoch == epoch.keys
    assert epoch.keys.number == 2


def test_a_device_without_the_current_keys_cannot_turn_the_epoch(place: Place) -> None:
    place.start()

    with pytest.raises(CeremonyError, match="does not hold the desk's current keys"):
        turn(place.genesis, place.desk, place.first.full.public, last=None)


def test_an_admin_alone_throws_out_and_the_leaver_reads_no_further(place: Place) -> None:
    """[S-5], [S-6]."""
    place.start()
    leaver = place.let_in()
    device = leaver.enrolment(place.genesis, place.desk_id).device

    pending, epoch = remove(place.genesis, place.desk, [device], Reason.LEAVER, last=place.secret)
    assert not pending.asks(leaver.full.public)
    place.publish(Ceremony((pending.sign(place.first.full),)))

    assert device not in place.desk.active
    assert device not in epoch.keys.members


def test_an_officer_cannot_throw_out_a_colleague(place: Place) -> None:
    """[S-5]."""
    place.start()
    colleague, officer = place.let_in(), place.let_in()
    gone = colleague.enrolment(place.genesis, place.desk_id).device

    pending, _ = remove(place.genesis, place.desk, [gone], Reason.LOST, last=place.secret)

    assert not pending.asks(officer.full.public)


def test_the_last_device_is_not_removed(place: Place) -> None:
    place.start()
    (only,) = place.desk.active

    with pytest.raises(CeremonyError, match="without any device; admit the successor's"):
        remove(place.genesis, place.desk, [only], Reason.LEAVER, last=place.secret)


def test_only_custodians_change_a_policy(place: Place) -> None:
    """[S-11]."""
    place.start()

    pending = change_policy(place.genesis, place.desk, Policy(epoch_days=7))
    assert not pending.asks(place.first.full.public)
    place.publish(sign_all(Ceremony((pending,)), place.custodians[1:]))

    assert place.desk.policy.epoch_days == 7


def test_files_of_custodians_and_requests_come_back(place: Place) -> None:
    custodian = Custodian("first", place.custodians[0].public)
    enrolment = Hands().enrolment(place.genesis, place.desk_id)

    assert Custodian.parse(custodian.serialize()) == custodian
    assert Enrolment.parse(enrolment.serialize()) == enrolment
    with pytest.raises(MalformedError):
        Custodian.parse(enrolment.serialize())
    with pytest.raises(MalformedError):
        Enrolment.parse(custodian.serialize())


def test_a_request_with_a_key_of_low_order_is_refused(place: Place) -> None:
    """[K-2]."""
    weak = replace(Hands().enrolment(place.genesis, place.desk_id), fast=bytes(32))

    with pytest.raises(MalformedError, match="low order"):
        Enrolment.parse(weak.serialize())


def test_words_say_what_is_signed(place: Place) -> None:
    place.start()
    hands = Hands()
    enrolment = hands.enrolment(place.genesis, place.desk_id, Role.OFFICER)
    pending = admit(place.genesis, place.desk, enrolment, secret=place.secret)

    text = "\n".join(describe(pending.payload))

    assert text.startswith("device: admit a device of an officer")
    assert key_fingerprint(hands.full.public) in text
    assert place.desk_id.hex() in text
    assert describe(place.founding.items[0].payload)[0].startswith("genesis: found the deployment")
    assert parse_genesis(place.founding.items[0].payload).deployment.hex() in text


def test_words_exist_for_every_statement(place: Place) -> None:
    place.start()
    colleague = place.let_in()
    gone = colleague.enrolment(place.genesis, place.desk_id).device
    removal, _ = remove(place.genesis, place.desk, [gone], Reason.COMPROMISED, last=place.secret)
    policy = change_policy(place.genesis, place.desk, Policy(auditors_file=(place.desk_id,)))

    headings = [describe(item.payload)[0] for item in (*place.starting().items, removal, policy)]

    assert headings == [
        "desk: create a police desk of XA",
        "device: admit a device of an admin",
        "epoch: begin epoch 1",
        "removal: remove 1 device (compromised) and begin epoch 2",
        "policy: change the desk's policy",
    ]
