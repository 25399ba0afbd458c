"""Envelopes: who reads which part, and every attack on what the relay carries."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256

import pytest

from comity_protocol.acts import Body
from comity_protocol.core import Core, Kind, Part, Recipient
from comity_protocol.directory import UnknownDeskError
from comity_protocol.envelope import (
    Sealed,
    Upload,
    addresses,
    audit_key,
    audit_root,
    body_key,
    check_parts,
    check_reference,
    open_audit,
    open_body,
    open_wrap,
    required_auditors,
    seal,
    thread_of,
    verify_core,
)
from comity_protocol.errors import LimitError, MalformedError, OpenError, VerificationError
from comity_protocol.identifiers import DeskId, DeviceId, EnvelopeId
from comity_protocol.keys import (
    Context,
    FastKey,
    box_encrypt,
    derive,
    encrypt,
    random_bytes,
    seal_to,
)
from comity_protocol.limits import (
    BODY_BYTES_MAX,
    UPLOAD_BYTES_MAX,
)
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.padding import pad_body
from comity_protocol.statements import Authority, Policy
from support.world import Member, World, core_of, lead

BODY = b"a vehicle was seen at the border"
RECORD = b"\xa0"


@dataclass(slots=True)
class Post:
    """Two desks, an auditor of the first, and a third desk that is addressed by nobody."""

    world: World
    home: DeskId
    away: DeskId
    auditor: DeskId
    third: DeskId

    def one(self, desk: DeskId) -> Member:
        return self.world.active(desk)[0]

    def seal(
        self, member: Member | None = None, kind: Kind = Kind.LEAD, **changes: object
    ) -> Sealed:
        member = member or self.one(self.home)
        to = self.home if member.desk == self.away else self.away
        fields: dict[str, object] = {
            "body": BODY,
            "audit": RECORD,
            "to": self.world.addresses(member, to, kind),
            "sender": self.world.sender(member),
            "seen": bytes(32),
            "envelope_id": EnvelopeId(random_bytes(16)),
        }
        return seal(**(fields | changes))  # type: ignore[arg-type]  # the test's own keywords

    def seed(self, desk: DeskId, kind: Kind, epoch: int | None = None) -> bytes:
        """The seed that a member of a desk holds for a kind of key."""
        member = self.one(desk)
        secret = member.secrets[epoch] if epoch else member.secret
        return secret.leads[secret.number] if kind is Kind.LEAD else secret.file

    def wrap(self, sealed: Sealed, desk: DeskId) -> tuple[Recipient, bytes]:
        core = core_of(sealed)
        entry = core.recipient(desk)
        assert entry is not None
        return entry, sealed.upload.wraps[core.to.index(entry)]

    def root(self, sealed: Sealed, desk: DeskId) -> bytes:
        entry, wrap = self.wrap(sealed, desk)
        return open_wrap(core_of(sealed), wrap, entry, self.seed(desk, entry.kind))

    def signed_core(self, core: Core, member: Member | None = None) -> tuple[bytes, bytes]:
        member = member or self.one(self.home)
        data = core.serialize()
        return data, member.fast.sign(Context.ENVELOPE, data)

    def verify(self, core: bytes, signature: bytes, index: int = SIZE_MAX) -> Core:
        return verify_core(core, signature, self.world.directory, index=index)


@pytest.fixture
def post() -> Post:
    world = World.found(("XA", "XB", "XC"))
    auditor = world.create_desk("XC", Authority.SECRETARIAT)
    audited = Policy(auditors_file=(auditor,), auditors_lead=(auditor,))
    home = world.create_desk("XA", policy=audited, officers=3)
    return Post(world, home, world.create_desk("XB"), auditor, world.create_desk("XC"))


# --- What is allowed --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.LEAD])
def test_both_desks_read_the_body_and_the_auditor_only_its_part(post: Post, kind: Kind) -> None:
    """[E-4] [E-5]"""
    sealed = post.seal(kind=kind)
    core = check_parts(sealed.upload)

    assert core.kind is kind
    assert core.counterpart == post.away
    for desk in (post.home, post.away):
        root = post.root(sealed, desk)
        assert open_body(core, sealed.upload.body, root) == BODY
        key = audit_key(audit_root(root), core.id)
        assert open_audit(core, sealed.upload.audit, key) == RECORD
    key = audit_key(post.root(sealed, post.auditor), core.id)
    assert open_audit(core, sealed.upload.audit, key) == RECORD


def test_an_upload_reads_as_it_was_written(post: Post) -> None:
    """[C-1]"""
    upload = post.seal().upload

    assert Upload.parse(upload.serialize()) == upload


def test_a_verified_core_names_its_recipients(post: Post) -> None:
    """[E-1] [E-3]"""
    upload = post.seal().upload

    core = post.verify(upload.core, upload.signature)

    assert [entry.desk for entry in core.to] == sorted([post.home, post.away, post.auditor])
    assert core.recipient(post.third) is None


def test_wraps_take_72_bytes_for_the_own_desk_and_1168_for_others(post: Post) -> None:
    """[E-4]"""
    sealed = post.seal()

    assert len(post.wrap(sealed, post.home)[1]) == 72
    assert len(post.wrap(sealed, post.away)[1]) == 1168
    assert len(post.wrap(sealed, post.auditor)[1]) == 1168


def test_a_later_envelope_of_a_thread_opens_with_the_wraps_of_the_first(post: Post) -> None:
    """[E-6]"""
    first = post.seal()
    later = post.seal(body=b"more on this", thread=first.thread)
    core = check_parts(later.upload)
    brought = core_of(first)

    check_reference(core, brought)

    assert core.ref == first.id
    assert later.upload.wraps == ()
    root = post.root(first, post.away)
    assert open_body(core, later.upload.body, root) == b"more on this"
    assert thread_of(brought, root) == first.thread == later.thread


# --- Who sent it: [E-1] -----------------------------------------------------------------------


def test_a_co_recipient_cannot_send_in_the_senders_name(post: Post) -> None:
    """[E-1] He knows the root key, but his device is not the sender's."""
    his_body = core_of(post.seal(post.one(post.away))).body
    forged = replace(core_of(post.seal()), body=his_body)
    data, signature = post.signed_core(forged, post.one(post.away))

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        post.verify(data, signature)


def test_a_device_cannot_send_for_another_desk(post: Post) -> None:
    """[E-1]"""
    spoofed = replace(core_of(post.seal()), device=post.one(post.away).id)
    data, signature = post.signed_core(spoofed, post.one(post.away))

    with pytest.raises(VerificationError, match=r"device \w{8} is not of desk \w{8} \[E-1\]"):
        post.verify(data, signature)


def test_a_removed_device_sends_nothing_after_its_leaf(post: Post) -> None:
    """[E-1] What it sent before stays valid."""
    leaver = post.world.active(post.home)[-1]
    upload = post.seal(leaver).upload
    before = post.world.next_index
    post.world.remove(post.home, [leaver])

    post.verify(upload.core, upload.signature, before - 1)
    with pytest.raises(
        VerificationError, match=rf"device \w{{8}} was not active at leaf {before} \[E-1\]"
    ):
        post.verify(upload.core, upload.signature, before)
    with pytest.raises(VerificationError, match=r"was not active at leaf .* \[E-1\]"):
        post.verify(upload.core, upload.signature)


def test_a_device_sends_nothing_before_its_admission(post: Post) -> None:
    """[E-1]"""
    upload = post.seal().upload
    device = post.world.directory.device(core_of(post.seal()).device)[1]

    with pytest.raises(VerificationError, match=r"was not active at leaf .* \[E-1\]"):
        post.verify(upload.core, upload.signature, device.added_index)


def test_an_unknown_device_sends_nothing(post: Post) -> None:
    """[E-1]"""
    data, signature = post.signed_core(
        replace(core_of(post.seal()), device=DeviceId(random_bytes(16)))
    )

    with pytest.raises(UnknownDeskError, match=r"device \w{8} is not in the directory"):
        post.verify(data, signature)


def test_a_core_from_the_future_of_its_chain_is_refused(post: Post) -> None:
    """[E-1] The reader's directory is behind, or the relay withholds statements."""
    seq = post.world.directory.desk(post.home).seq
    data, signature = post.signed_core(replace(core_of(post.seal()), seq=seq + 1))

    with pytest.raises(
        VerificationError, match=rf"core names statement {seq + 1}, the chain ends at {seq}"
    ):
        post.verify(data, signature)


def test_a_receipts_signature_is_no_envelopes_signature(post: Post) -> None:
    """[K-1]"""
    upload = post.seal().upload
    signature = post.one(post.home).fast.sign(Context.RECEIPT, upload.core)

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        post.verify(upload.core, signature)


def test_another_devices_signature_is_refused(post: Post) -> None:
    """[E-1] Also a colleague's: he answers for what he signs himself."""
    upload = post.seal().upload
    _, signature = post.signed_core(Core.parse(upload.core), post.world.active(post.home)[1])

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        post.verify(upload.core, signature)


# --- Parts: [E-2] -----------------------------------------------------------------------------


def test_a_body_of_another_envelope_is_refused(post: Post) -> None:
    """[E-2]"""
    one, other = post.seal().upload, post.seal().upload

    with pytest.raises(VerificationError, match=r"body is not the one that the core names \[E-2\]"):
        check_parts(replace(one, body=other.body))


def test_an_audit_part_of_another_envelope_is_refused(post: Post) -> None:
    """[E-2]"""
    one, other = post.seal().upload, post.seal().upload

    with pytest.raises(VerificationError, match=r"audit part is not the one .* \[E-2\]"):
        check_parts(replace(one, audit=other.audit))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda wraps: tuple(reversed(wraps)), id="swapped"),
        pytest.param(lambda wraps: wraps[1:], id="left out"),
        pytest.param(lambda wraps: (*wraps, wraps[0]), id="added"),
        pytest.param(lambda wraps: (), id="none"),
    ],
)
def test_wraps_that_the_core_does_not_name_are_refused(
    post: Post, change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]
) -> None:
    """[E-2]"""
    upload = post.seal().upload

    with pytest.raises(VerificationError, match=r"wraps are not those .* \[E-2\]"):
        check_parts(replace(upload, wraps=change(upload.wraps)))


def test_a_reference_brings_no_wraps(post: Post) -> None:
    """[E-2] [E-6]"""
    first = post.seal()
    upload = post.seal(thread=first.thread).upload

    with pytest.raises(VerificationError, match=r"wraps are not those .* \[E-2\]"):
        Upload.parse(replace(upload, wraps=first.upload.wraps).serialize())


def test_a_reader_refuses_swapped_parts_too(post: Post) -> None:
    """[E-2] The relay can swap them after it has checked them."""
    one, other = post.seal(), post.seal()
    core, root = core_of(one), post.root(one, post.away)
    entry, _ = post.wrap(one, post.away)

    with pytest.raises(VerificationError, match=r"body is not the one .* \[E-2\]"):
        open_body(core, other.upload.body, root)
    with pytest.raises(VerificationError, match=r"audit part is not the one .* \[E-2\]"):
        open_audit(core, other.upload.audit, audit_key(audit_root(root), core.id))
    with pytest.raises(VerificationError, match=r"wrap is not the one .* \[E-2\]"):
        open_wrap(core, post.wrap(other, post.away)[1], entry, post.seed(post.away, Kind.LEAD))


# --- Recipients: [E-3] ------------------------------------------------------------------------


def test_a_relay_that_adds_a_ghost_recipient_breaks_the_signature(post: Post) -> None:
    """[E-1] [E-3]"""
    upload = post.seal().upload
    ghost = Recipient(post.third, 1, Kind.AUDIT, random_bytes(32))
    core = Core.parse(upload.core)
    altered = replace(core, to=tuple(sorted((*core.to, ghost), key=lambda entry: entry.desk)))

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        post.verify(altered.serialize(), upload.signature)


def test_a_relay_that_removes_the_auditor_breaks_the_signature(post: Post) -> None:
    """[E-1] [E-3]"""
    upload = post.seal().upload
    core = Core.parse(upload.core)
    altered = replace(core, to=tuple(entry for entry in core.to if entry.kind is not Kind.AUDIT))

    with pytest.raises(VerificationError, match="fast signature does not verify"):
        post.verify(altered.serialize(), upload.signature)


# --- Wraps: [E-4] -----------------------------------------------------------------------------


def _open_moved_wrap(
    post: Post, change: Callable[[Core, Recipient], tuple[Core, Recipient]]
) -> None:
    """Open the counterpart's true wrap as if it belonged elsewhere."""
    sealed = post.seal()
    entry, wrap = post.wrap(sealed, post.away)
    core, entry = change(core_of(sealed), entry)
    with pytest.raises(OpenError, match="wrap is not sealed to this key, or was altered"):
        open_wrap(core, wrap, entry, post.seed(post.away, Kind.LEAD))


def test_a_wrap_does_not_open_in_another_envelope(post: Post) -> None:
    """[E-4]"""
    other = EnvelopeId(random_bytes(16))
    _open_moved_wrap(post, lambda core, entry: (replace(core, id=other), entry))


def test_a_wrap_does_not_open_as_another_senders(post: Post) -> None:
    """[E-4] A third desk cannot pass a wrap that it saw off as its own."""
    _open_moved_wrap(post, lambda core, entry: (replace(core, sender=post.third), entry))


def test_a_wrap_does_not_open_for_another_desk(post: Post) -> None:
    """[E-4]"""
    _open_moved_wrap(post, lambda core, entry: (core, replace(entry, desk=post.third)))


def test_a_wrap_does_not_open_under_another_epoch(post: Post) -> None:
    """[E-4]"""
    _open_moved_wrap(post, lambda core, entry: (core, replace(entry, epoch=2)))


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.AUDIT])
def test_a_wrap_does_not_open_as_another_kind(post: Post, kind: Kind) -> None:
    """[E-4] An auditor cannot be given a body's key under an auditor's entry, nor the reverse."""
    _open_moved_wrap(post, lambda core, entry: (core, replace(entry, kind=kind)))


def test_the_own_desks_wrap_is_bound_as_well(post: Post) -> None:
    """[E-4]"""
    sealed = post.seal()
    entry, wrap = post.wrap(sealed, post.home)
    other = replace(core_of(sealed), id=EnvelopeId(random_bytes(16)))

    with pytest.raises(OpenError, match="wrap does not open with this key, or was altered"):
        open_wrap(other, wrap, entry, post.seed(post.home, Kind.LEAD))


def test_a_desk_that_is_not_addressed_opens_no_wrap(post: Post) -> None:
    """[E-4]"""
    sealed = post.seal()

    for entry, wrap in zip(core_of(sealed).to, sealed.upload.wraps, strict=True):
        with pytest.raises(OpenError):
            open_wrap(core_of(sealed), wrap, entry, post.seed(post.third, entry.kind))


def test_a_wrap_that_holds_no_key_is_malformed(post: Post) -> None:
    """[E-4] Whoever seals it chooses what is in it."""
    core = core_of(post.seal())
    entry = Recipient(post.away, 1, Kind.LEAD)
    info = core.id + core.sender + entry.desk + (1).to_bytes(8, "big") + b"\x01"
    epoch = post.world.directory.desk(post.away).epoch
    assert epoch is not None
    wrap = seal_to(epoch.lead, Context.WRAP, info, b"short")
    entry = replace(entry, wrap_hash=sha256(wrap).digest())

    with pytest.raises(MalformedError, match="wrap holds 5 bytes, expected 32"):
        open_wrap(core, wrap, entry, post.seed(post.away, Kind.LEAD))


# --- Binding and commitment: [E-5] ------------------------------------------------------------


def test_an_auditor_cannot_open_the_body(post: Post) -> None:
    """[E-5] Nothing leads from the audit root back to the root."""
    sealed = post.seal()
    core, held = core_of(sealed), post.root(sealed, post.auditor)

    for root in (held, audit_key(held, core.id), body_key(held, core.id)):
        with pytest.raises(OpenError, match="body does not open with this key"):
            open_body(core, sealed.upload.body, root)


def test_a_replys_audit_key_opens_no_other_envelope(post: Post) -> None:
    """[E-5] [U-3] What a reply discloses to auditors is the key of one audit part alone."""
    first = post.seal()
    later = post.seal(thread=first.thread)
    disclosed = audit_key(audit_root(first.thread.root), first.id)

    assert open_audit(core_of(first), first.upload.audit, disclosed) == RECORD
    with pytest.raises(OpenError, match="audit does not open with this key"):
        open_audit(core_of(later), later.upload.audit, disclosed)


def test_one_bodys_key_opens_no_other_body_of_its_thread(post: Post) -> None:
    """[E-6] What a court is given of a thread is one act."""
    first = post.seal()
    later = post.seal(thread=first.thread)
    disclosed = body_key(first.thread.root, first.id)

    assert disclosed != body_key(first.thread.root, later.id)
    with pytest.raises(OpenError):
        open_body(core_of(later), later.upload.body, disclosed)


def test_a_body_does_not_open_under_another_envelopes_id(post: Post) -> None:
    """[E-5]"""
    sealed = post.seal()
    moved = replace(core_of(sealed), id=EnvelopeId(random_bytes(16)))

    with pytest.raises(OpenError):
        open_body(moved, sealed.upload.body, sealed.thread.root)


def test_one_ciphertext_does_not_open_under_two_keys(post: Post) -> None:
    """[E-5] The sender cannot give the desk one root and its own desk, or a court, another.

    The ciphertext commits to its key, so the second root opens nothing, whatever it is; a cipher
    without commitment would let a sender choose two keys and two texts.
    """
    sealed = post.seal()
    core = core_of(sealed)
    commitment = sealed.upload.body[24:56]

    for root in (random_bytes(32), bytes(32), sealed.thread.root[::-1]):
        with pytest.raises(OpenError):
            open_body(core, sealed.upload.body, root)
        other = encrypt(body_key(root, core.id), Context.BODY, core.id, pad_body(BODY))
        graft = other[:24] + commitment + other[56:]
        with pytest.raises(OpenError):
            open_body(replace(core, body=Part.of(graft)), graft, root)


def test_truncated_padding_is_malformed(post: Post) -> None:
    """[E-10]"""
    sealed = post.seal()
    body = encrypt(body_key(sealed.thread.root, sealed.id), Context.BODY, sealed.id, bytes(256))
    core = replace(core_of(sealed), body=Part.of(body))

    with pytest.raises(MalformedError, match="padding is missing"):
        open_body(core, body, sealed.thread.root)


def test_a_truncated_ciphertext_does_not_open(post: Post) -> None:
    """[E-5]"""
    sealed = post.seal()
    body = sealed.upload.body[:-1]
    core = replace(core_of(sealed), body=Part.of(body))

    with pytest.raises(OpenError):
        open_body(core, body, sealed.thread.root)


def test_equal_texts_have_equal_lengths_and_other_bytes(post: Post) -> None:
    """[E-10]"""
    one, other = post.seal(body=b"yes").upload, post.seal(body=b"no, never").upload

    assert len(one.body) == len(other.body) == 256 + 72
    assert one.body != other.body


# --- References: [E-6] ------------------------------------------------------------------------


def _check_altered_reference(post: Post, change: Callable[[Core, Core], tuple[Core, Core]]) -> None:
    first = post.seal()
    core, referred = core_of(post.seal(thread=first.thread)), core_of(first)
    check_reference(core, referred)

    with pytest.raises(
        VerificationError, match=r"reference does not fit the envelope that it names \[E-6\]"
    ):
        check_reference(*change(core, referred))


def test_a_reference_to_another_envelope_than_named_is_refused(post: Post) -> None:
    """[E-6]"""
    _check_altered_reference(post, lambda core, _: (core, core_of(post.seal())))


def test_a_reference_to_another_desks_envelope_is_refused(post: Post) -> None:
    """[E-6] The counterpart would be pointed at a key that it chose itself."""
    _check_altered_reference(
        post, lambda core, referred: (core, replace(referred, sender=post.away))
    )


def test_a_reference_with_another_recipient_is_refused(post: Post) -> None:
    """[E-6] A desk would get an envelope for which it never got a key."""
    _check_altered_reference(
        post,
        lambda core, referred: (
            replace(core, to=(*core.to[:-1], replace(core.to[-1], desk=DeskId(b"\xff" * 16)))),
            referred,
        ),
    )


def test_a_reference_with_another_epoch_is_refused(post: Post) -> None:
    """[E-6] A removed member holds the old epoch's key."""
    _check_altered_reference(
        post,
        lambda core, referred: (
            replace(core, to=(replace(core.to[0], epoch=2), *core.to[1:])),
            referred,
        ),
    )


def test_a_reference_that_leaves_the_auditor_out_is_refused(post: Post) -> None:
    """[E-6]"""
    _check_altered_reference(
        post,
        lambda core, referred: (
            replace(core, to=tuple(entry for entry in core.to if entry.kind is not Kind.AUDIT)),
            referred,
        ),
    )


def test_a_reference_to_a_reference_is_refused(post: Post) -> None:
    """[E-6] Chains of references would have to be walked by the relay."""
    first = post.seal()
    second = core_of(post.seal(thread=first.thread))
    third = replace(second, id=EnvelopeId(random_bytes(16)), ref=second.id)

    with pytest.raises(VerificationError, match=r"reference does not fit .* \[E-6\]"):
        check_reference(third, second)


def test_a_reference_to_itself_is_refused(post: Post) -> None:
    """[E-6]"""
    core = core_of(post.seal(thread=post.seal().thread))
    core = replace(core, ref=core.id)

    with pytest.raises(VerificationError, match=r"\[E-6\]"):
        check_reference(core, core)


def test_an_envelope_without_a_reference_refers_to_nothing(post: Post) -> None:
    """[E-6]"""
    core = core_of(post.seal())

    with pytest.raises(VerificationError, match=r"\[E-6\]"):
        check_reference(core, core)


@pytest.mark.parametrize("who", ["home", "away", "auditor"])
def test_a_thread_gets_new_wraps_when_any_epoch_has_turned(post: Post, who: str) -> None:
    """[E-6] [E-7]"""
    first = post.seal()
    post.world.turn(getattr(post, who))

    later = post.seal(thread=first.thread)

    assert core_of(later).ref is None
    assert len(later.upload.wraps) == 3
    assert later.thread.root != first.thread.root


# --- Addresses: [E-7], [R-9] ------------------------------------------------------------------


def test_an_envelope_addresses_both_desks_newest_epochs_and_the_auditors_of_both(
    post: Post,
) -> None:
    """[E-7] [R-9]"""
    post.world.turn(post.away)
    post.world.set_policy(post.away, Policy(auditors_lead=(post.third,)))

    found = post.world.addresses(post.one(post.home), post.away, Kind.LEAD)

    assert [entry.desk for entry in found] == sorted(
        [post.home, post.away, post.auditor, post.third]
    )
    by_desk = {entry.desk: entry for entry in found}
    assert (by_desk[post.away].epoch, by_desk[post.away].kind) == (2, Kind.LEAD)
    assert by_desk[post.third].kind is by_desk[post.auditor].kind is Kind.AUDIT
    assert required_auditors(post.world.directory, post.away, Kind.FILE) == ()


def test_a_desk_that_audits_and_answers_reads_the_body_only_once(post: Post) -> None:
    """[E-3] The auditor of the sender's policy may be the counterpart itself."""
    found = post.world.addresses(post.one(post.home), post.auditor, Kind.FILE)

    assert [(entry.desk, entry.kind) for entry in found] == sorted(
        [(post.home, Kind.FILE), (post.auditor, Kind.FILE)]
    )


def test_an_envelope_to_the_own_desk_is_the_callers_mistake(post: Post) -> None:
    """[E-3]"""
    with pytest.raises(ValueError, match="the counterpart is the sending desk"):
        addresses(post.world.directory, post.home, post.home, Kind.LEAD)


def test_a_desk_without_an_epoch_cannot_be_written_to(post: Post) -> None:
    """[E-7]"""
    desk = post.world.directory.desk(post.away)
    directory = replace(
        post.world.directory,
        desks={**post.world.directory.desks, post.away: replace(desk, epochs=())},
    )

    with pytest.raises(VerificationError, match=r"desk \w{8} has no keys yet"):
        addresses(directory, post.home, post.away, Kind.LEAD)


def test_an_epoch_with_a_member_who_is_gone_is_not_sealed_to(post: Post) -> None:
    """[E-7] Whatever the relay says, a removed officer reads nothing new."""
    desk = post.world.directory.desk(post.away)
    gone = next(iter(desk.devices))
    devices = {**desk.devices, gone: replace(desk.devices[gone], removed_index=99)}
    directory = replace(
        post.world.directory,
        desks={**post.world.directory.desks, post.away: replace(desk, devices=devices)},
    )

    with pytest.raises(VerificationError, match=r"has an epoch with a member who is gone \[E-7\]"):
        addresses(directory, post.home, post.away, Kind.LEAD)


def test_an_unknown_desk_cannot_be_written_to(post: Post) -> None:
    """[E-7]"""
    with pytest.raises(UnknownDeskError):
        addresses(post.world.directory, post.home, DeskId(bytes(16)), Kind.LEAD)


# --- Who reads after a removal ----------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.LEAD])
def test_nothing_that_a_leaver_holds_opens_a_later_envelope(post: Post, kind: Kind) -> None:
    """[S-6] [E-4] Not his epochs' seeds, not the roots of threads, in either desk."""
    leaver = post.world.active(post.away)[0]
    old_thread = post.seal(kind=kind)
    post.world.remove(post.away, [leaver])

    later = post.seal(kind=kind, thread=old_thread.thread)
    answer = post.seal(post.one(post.away), kind)

    seeds = [
        seed for secret in leaver.secrets.values() for seed in (secret.file, *secret.leads.values())
    ]
    for sealed in (later, answer):
        core = core_of(sealed)
        for entry, wrap in zip(core.to, sealed.upload.wraps, strict=True):
            for seed in seeds:
                with pytest.raises(OpenError):
                    open_wrap(core, wrap, entry, seed)
        for root in (old_thread.thread.root, *seeds):
            with pytest.raises(OpenError):
                open_body(core, sealed.upload.body, root)


def test_a_lead_whose_seed_is_deleted_stays_closed_to_everybody(post: Post) -> None:
    """[E-7] Leads are forward-secret: the chain of previous seeds does not lead to them."""
    sealed = post.seal(kind=Kind.LEAD)
    entry, wrap = post.wrap(sealed, post.away)
    post.world.turn(post.away)
    secret = post.one(post.away).secret
    kept = {number: seed for number, seed in secret.leads.items() if number != 1}

    for seed in (secret.file, post.one(post.away).secrets[1].file, *kept.values()):
        with pytest.raises(OpenError):
            open_wrap(core_of(sealed), wrap, entry, seed)


# --- Sizes: [E-9] -----------------------------------------------------------------------------


def test_an_oversize_upload_is_refused_before_it_is_parsed() -> None:
    """[E-9]"""
    with pytest.raises(MalformedError, match="upload is 281,601 bytes, expected at most 281,600"):
        Upload.parse(bytes(UPLOAD_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"body": bytes(262_145)}, "body has 262145 bytes, expected 0 to 262144"),
        ({"audit": bytes(585)}, "audit part has 585 bytes, expected 0 to 584"),
        ({"wraps": (bytes(1_169),)}, "wrap has 1169 bytes, expected 0 to 1168"),
        ({"wraps": (b"",) * 11}, "wraps has 11 items, expected 0 to 10"),
        ({"core": bytes(2_049)}, "core has 2049 bytes, expected 0 to 2048"),
        ({"signature": bytes(63)}, "core signature has 63 bytes, expected 64"),
    ],
)
def test_an_upload_with_an_oversize_part_is_malformed(
    post: Post, changes: dict[str, bytes], message: str
) -> None:
    """[E-9]"""
    upload = post.seal().upload

    with pytest.raises(MalformedError, match=message):
        Upload.parse(replace(upload, **changes).serialize())  # type: ignore[arg-type]  # own keywords


def test_a_text_that_is_too_long_is_refused_before_it_is_sent(post: Post) -> None:
    """[E-9] Else it would wait in the outbox for a relay that never takes it."""
    with pytest.raises(
        LimitError, match=r"body is [\d,]+ bytes when sealed, expected at most 262,144"
    ):
        post.seal(body=bytes(BODY_BYTES_MAX))


def test_the_longest_body_fits_an_upload(post: Post) -> None:
    """[E-9]"""
    sealed = post.seal(body=bytes(253_951))

    assert len(sealed.upload.body) > 250_000
    assert Upload.parse(sealed.upload.serialize()) == sealed.upload


def test_a_body_cannot_be_opened_with_an_unverified_wrap_of_another_length(post: Post) -> None:
    """[E-8] A wrap that the core does not name is never given to the cipher."""
    sealed = post.seal()
    entry, _ = post.wrap(sealed, post.home)

    with pytest.raises(VerificationError, match=r"\[E-2\]"):
        open_wrap(core_of(sealed), b"", entry, post.seed(post.home, Kind.LEAD))


def test_a_sealed_act_comes_out_as_the_body_that_went_in(post: Post) -> None:
    """[E-5]"""
    act = lead("a vehicle was seen")
    sealed = post.world.seal_act(post.one(post.home), post.away, act)

    opened = open_body(core_of(sealed), sealed.upload.body, post.root(sealed, post.away))

    assert Body.parse(opened).act == act.serialize()


def test_an_own_wrap_forged_by_the_relay_does_not_open(post: Post) -> None:
    """[E-4] Only a holder of the desk's epoch seed makes it."""
    sealed = post.seal()
    core = core_of(sealed)
    entry, _ = post.wrap(sealed, post.home)
    info = core.id + core.sender + entry.desk + (1).to_bytes(8, "big") + b"\x01"
    key = derive(Context.WRAP, random_bytes(32), info)
    forged = box_encrypt(key, Context.WRAP, info, random_bytes(32))
    entry = replace(entry, wrap_hash=sha256(forged).digest())

    with pytest.raises(OpenError, match="wrap does not open with this key"):
        open_wrap(core, forged, entry, post.seed(post.home, Kind.LEAD))


def test_a_stolen_fast_key_alone_reads_nothing(post: Post) -> None:
    """[K-1] The key that signs cores opens no wrap."""
    sealed = post.seal()
    entry, wrap = post.wrap(sealed, post.home)
    fast = FastKey.from_seed(post.one(post.home).fast.seed)

    with pytest.raises(OpenError):
        open_wrap(core_of(sealed), wrap, entry, fast.seed)
