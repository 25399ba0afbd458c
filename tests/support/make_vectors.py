"""Writes ``protocol/vectors/objects``: one object, or one failure, a file.

Keys and identifiers come from fixed seeds. Composite signatures, seals and ciphertexts are random
by nature, so a second run writes other, equally valid bytes: run it only when a format changes.

    PYTHONPATH=tests python -m support.make_vectors
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from comity_protocol.acts import Act, Body, Event, Gossip, act_id, sign_act
from comity_protocol.audit import project
from comity_protocol.core import Core, Kind, Recipient, core_hash
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.envelope import Address, Sealed, Sender, Thread, audit_key, audit_root, seal
from comity_protocol.epochs import EpochSecret, NewEpoch, box_for, box_hash
from comity_protocol.genesis import Genesis, Root
from comity_protocol.identifiers import DeploymentId, DeskId, DeviceId, EnvelopeId, OfficerId
from comity_protocol.keys import (
    AnchorKey,
    Context,
    FastKey,
    FullKey,
    SealKey,
    box_encrypt,
    derive,
    key_id,
)
from comity_protocol.leaves import (
    commit_counters,
    envelope_blind,
    envelope_leaf,
    notice_leaf,
    prove_counter,
    receipt_leaf,
    statement_leaf,
    tags_of_promise,
)
from comity_protocol.padding import pad_audit, pad_body
from comity_protocol.policy import Policy as WitnessPolicy
from comity_protocol.quorum import Quorum
from comity_protocol.receipts import Promise, Receipt, Signed, sign_promise, sign_receipt
from comity_protocol.signed_note import KeyType, VerifierKey
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
    boxes_hash,
    sign_statement,
)
from support.world import lead, reply, request

FOLDER: Final = Path(__file__).parents[2] / "protocol" / "vectors" / "objects"

Json = str | int | None | list["Json"] | dict[str, "Json"]


def fixed(name: str, count: int) -> bytes:
    """Give bytes that are the same on every run."""
    return hashlib.shake_256(name.encode()).digest(count)


def b64(data: bytes) -> str:
    """Write bytes as they stand in a vector."""
    return base64.b64encode(data).decode("ascii")


def write(name: str, operation: str, rule: str, outcome: str, about: str, **inputs: Json) -> None:
    """Write one vector."""
    value = {
        "about": about,
        "operation": operation,
        "rule": rule,
        "outcome": outcome,
        "input": {key: item for key, item in inputs.items() if key != "expect"},
        "expect": inputs.get("expect"),
    }
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


def altered(data: bytes, **changes: Value) -> bytes:
    """Change fields of a serialized map."""
    value = parse(data)
    assert isinstance(value, Mapping)
    return serialize({**value, **changes})


HOME, AWAY, AUDITOR = (DeskId(fixed(name, 16)) for name in ("home", "away", "auditor"))
EXCHANGE = fixed("exchange", 16)
DEPLOYMENT = DeploymentId(fixed("deployment", 16))
FAST = FastKey.from_seed(fixed("fast", 32))
FULL = FullKey.from_seed(fixed("full", 64))
RELAY = FastKey.from_seed(fixed("relay", 32))
SEEDS: Final = {desk: fixed(f"seed {desk.hex()}", 32) for desk in (HOME, AWAY, AUDITOR)}
LEAD = lead(exchange=EXCHANGE, salt=fixed("salt", 32))
REQUEST = request(exchange=EXCHANGE, salt=fixed("salt of the request", 32))


def make_acts() -> None:
    """Acts, bodies, their ids and signatures, and audit records."""
    act = REQUEST.serialize()
    write("act", "parse act", "A-4", "accepted", "a formal request", bytes=b64(act))
    failures = {
        "act-empty-field": ("P-1", "blank text in a field", altered(act, facts=" ")),
        "act-unknown-code": ("A-4", "an offence out of no list", altered(act, offences=["TAX"])),
        "act-control-character": ("A-3", "an escape sequence", altered(act, facts="\x1b[2J")),
        "act-no-day": ("A-4", "30 February", altered(act, due_on="2026-02-30", due_reason="x")),
        "act-short-salt": ("A-2", "31 random bytes", altered(act, salt=bytes(31))),
    }
    for name, (rule, about, data) in failures.items():
        write(name, "parse act", rule, "malformed", about, bytes=b64(data))
    desks = {"deployment": DEPLOYMENT, "sender": HOME, "receiver": AWAY}
    between: dict[str, Json] = {name: b64(id_) for name, id_ in desks.items()}
    signature = sign_act(FULL, act, deployment=DEPLOYMENT, sender=HOME, receiver=AWAY)
    signed: dict[str, Json] = {
        "public": b64(FULL.public),
        "act": b64(act),
        "signature": b64(signature),
    }
    id_ = act_id(act, deployment=DEPLOYMENT, sender=HOME, receiver=AWAY)
    write("act-id", "act id", "A-1", "accepted", "the id", act=b64(act), expect=b64(id_), **between)
    write("act-signature", "verify act", "A-1", "accepted", "signed", **signed, **between)
    moved: dict[str, Json] = {**between, "receiver": b64(AUDITOR)}
    write(
        "act-signature-other-desk", "verify act", "A-1", "verification-failed",
        "shown to a third desk", **signed, **moved,
    )  # fmt: skip
    body = Body(act, signature, Gossip(7, fixed("root", 32), fixed("note", 64))).serialize()
    write("body", "parse body", "C-5", "accepted", "with signature and gossip", bytes=b64(body))
    make_records()


def make_records() -> None:
    """Audit records and what auditors may be told."""
    answer = reply(Event.ANSWER, REQUEST, EnvelopeId(fixed("head", 16)), salt=fixed("s", 32))
    key = fixed("audit key of head", 32)
    record = project(answer, key)
    pair: dict[str, Json] = {"act": b64(answer.serialize()), "head_key": b64(key)}
    write(
        "record", "verify projection", "U-1", "accepted", "an answer's record",
        record=b64(record.serialize()), **pair,
    )  # fmt: skip
    for name, rule, about, lie in (
        ("record-lie", "U-1", "auditors are told a refusal", replace(record, event=Event.REFUSE)),
        ("record-wrong-key", "U-3", "another key for the head", replace(record, head_key=SALT)),
    ):
        write(
            name, "verify projection", rule, "verification-failed", about,
            record=b64(lie.serialize()), **pair,
        )  # fmt: skip
    data = altered(record.serialize(), p="mrs-smith")
    write("record-name", "parse record", "U-2", "malformed", "a name", bytes=b64(data))


SALT: Final = fixed("another", 32)


def seal_fixed(name: str, act: Act, thread: Thread | None = None) -> Sealed:
    """Seal an act from the home desk to the away desk and the auditor."""
    kinds = {HOME: Kind.LEAD, AWAY: Kind.LEAD, AUDITOR: Kind.AUDIT}
    return seal(
        body=Body(act.serialize()).serialize(),
        audit=project(act, SALT if act.head else None).serialize(),
        to=[
            Address(desk, 1, kind, SealKey.from_seed(SEEDS[desk]).public)
            for desk, kind in sorted(kinds.items())
        ],
        sender=Sender(
            HOME, DeviceId(key_id(FULL.public)), 4, FAST, {Kind.LEAD: SEEDS[HOME], Kind.FILE: SALT}
        ),
        seen=fixed("seen", 32),
        envelope_id=EnvelopeId(fixed(name, 16)),
        thread=thread,
    )


def make_envelopes() -> None:
    """Cores, uploads, wraps, bodies and audit parts."""
    sealed = seal_fixed("first", LEAD)
    later = seal_fixed("later", reply(Event.LEAD, LEAD, sealed.id, salt=SALT), sealed.thread)
    core = Core.parse(sealed.upload.core)
    upload = sealed.upload
    write("core", "parse core", "E-3", "accepted", "a lead's core", bytes=b64(upload.core))
    write(
        "core-hash", "core hash", "K-1", "accepted", "named by promises and by the log",
        core=b64(upload.core), expect=b64(core_hash(upload.core)),
    )  # fmt: skip
    third = Recipient(DeskId(b"\xff" * 16), 1, Kind.LEAD, SALT)
    mixed = tuple(replace(e, kind=Kind.FILE) if e.desk == AWAY else e for e in core.to)
    for name, rule, about, data in (
        ("core-order", "E-3", "recipients descending", replace(core, to=core.to[::-1]).serialize()),
        ("core-third-reader", "E-3", "one more", replace(core, to=(*core.to, third)).serialize()),
        ("core-mixed-kinds", "E-3", "file and lead keys", replace(core, to=mixed).serialize()),
        ("core-unknown-field", "C-5", "a field", altered(upload.core, urgent=True)),
        ("core-version", "C-6", "version 2", altered(upload.core, v=2)),
    ):
        write(name, "parse core", rule, "malformed", about, bytes=b64(data))
    public = b64(FAST.public)
    write(
        "core-signature", "verify signature", "E-1", "accepted", "by the device's fast key",
        public=public, context="envelope", message=b64(upload.core),
        signature=b64(upload.signature),
    )  # fmt: skip
    write("upload", "parse upload", "E-2", "accepted", "a lead", bytes=b64(upload.serialize()))
    swapped = replace(upload, body=later.upload.body)
    write(
        "upload-swapped-body", "parse upload", "E-2", "verification-failed", "another's body",
        bytes=b64(swapped.serialize()),
    )  # fmt: skip
    references: dict[str, Json] = {"referred": b64(upload.core)}
    write(
        "reference", "check reference", "E-6", "accepted", "a later lead of the thread",
        core=b64(later.upload.core), **references,
    )  # fmt: skip
    later_core = Core.parse(later.upload.core)
    stale = replace(later_core, to=(replace(later_core.to[0], epoch=2), *later_core.to[1:]))
    write(
        "reference-other-epoch", "check reference", "E-6", "verification-failed", "another epoch",
        core=b64(stale.serialize()), **references,
    )  # fmt: skip
    make_openings(sealed, core)


def make_openings(sealed: Sealed, core: Core) -> None:
    """What each recipient opens, and what it does not."""
    upload = sealed.upload
    held = {HOME: sealed.thread.root, AWAY: sealed.thread.root}
    held[AUDITOR] = audit_root(sealed.thread.root)
    for name, desk in (("home", HOME), ("away", AWAY), ("auditor", AUDITOR)):
        wrap = next(w for entry, w in zip(core.to, upload.wraps, strict=True) if entry.desk == desk)
        write(
            f"wrap-{name}", "open wrap", "E-4", "accepted", f"by the {name} desk",
            core=b64(upload.core), desk=b64(desk), wrap=b64(wrap), seed=b64(SEEDS[desk]),
            expect=b64(held[desk]),
        )  # fmt: skip
        if desk == AWAY:
            moved = replace(core, id=EnvelopeId(SALT[:16])).serialize()
            write(
                "wrap-other-envelope", "open wrap", "E-4", "cannot-open", "moved elsewhere",
                core=b64(moved), desk=b64(desk), wrap=b64(wrap), seed=b64(SEEDS[desk]),
            )  # fmt: skip
    body: dict[str, Json] = {"core": b64(upload.core), "body": b64(upload.body)}
    write(
        "open-body", "open body", "E-5", "accepted", "with the root key",
        root=b64(sealed.thread.root), expect=b64(Body(LEAD.serialize()).serialize()), **body,
    )  # fmt: skip
    write(
        "open-body-auditor", "open body", "E-5", "cannot-open", "with the audit root",
        root=b64(held[AUDITOR]), **body,
    )  # fmt: skip
    write(
        "open-audit", "open audit", "E-5", "accepted", "with the envelope's audit key",
        core=b64(upload.core), audit=b64(upload.audit),
        key=b64(audit_key(held[AUDITOR], sealed.id)),
        expect=b64(project(LEAD, None).serialize()),
    )  # fmt: skip


def make_receipts() -> None:
    """Receipts, promises, leaves and padding."""
    held = ((EnvelopeId(bytes(16)), fixed("core", 32)),)
    receipt = Receipt(AWAY, DeviceId(key_id(FULL.public)), 4, held, fixed("seen", 32), 7)
    signed = sign_receipt(FAST, receipt)
    write("receipt", "parse receipt", "Q-1", "accepted", "one id", bytes=b64(signed.payload))
    pair = [bytes(16), fixed("core", 32)]
    twice = altered(signed.payload, held=[pair, pair])
    write("receipt-twice", "parse receipt", "Q-1", "malformed", "one id twice", bytes=b64(twice))
    write(
        "receipt-number-zero", "parse receipt", "Q-4", "malformed", "numbers begin at 1",
        bytes=b64(altered(signed.payload, n=0)),
    )  # fmt: skip
    for name, context, outcome in (
        ("receipt-signature", Context.RECEIPT, "accepted"),
        ("receipt-signature-other-kind", Context.ENVELOPE, "verification-failed"),
    ):
        write(
            name, "verify signature", "K-1", outcome, f"signed as {context.value}",
            public=b64(FAST.public), context="receipt", message=b64(signed.payload),
            signature=b64(FAST.sign(context, signed.payload)),
        )  # fmt: skip
    what = fixed("what", 32)
    promise = sign_promise(RELAY, Promise(what, 1_800_000_000))
    other = Signed(Promise(what, 1_800_000_000, 9).serialize(), promise.signature)
    for name, outcome, given, asked in (
        ("promise", "accepted", promise, what),
        ("promise-altered", "verification-failed", other, what),
        ("promise-other", "verification-failed", promise, SALT),
    ):
        write(
            name, "verify promise", "Q-2", outcome, "by the relay key", relay=b64(RELAY.public),
            what=b64(asked), signed=b64(given.serialize()),
        )  # fmt: skip
    desks, id_ = [fixed("desk a", 16), fixed("desk b", 16)], fixed("envelope", 16)
    blind = envelope_blind(RELAY, id_)
    hidden = commit_counters(desks, [1, 300], blind)
    write(
        "leaves", "leaves", "L-8", "accepted",
        "statement, envelope with counters 1 and 300, receipt, notice; what the second desk is"
        " given; the tags that keep a promise of the core hash",
        payload=b64(b"payload"), core_hash=b64(what), relay_seed=b64(RELAY.seed), envelope=b64(id_),
        desks=[b64(desk) for desk in desks],
        expect=[b64(value) for value in (
            statement_leaf(b"payload"), envelope_leaf(what, hidden), receipt_leaf(b"payload"),
            notice_leaf(b"payload"),
            serialize(prove_counter(1, desks[1], blind, hidden).to_value()), *tags_of_promise(what),
        )],
    )  # fmt: skip
    lengths = [0, 127, 128, 255, 256, 511, 1_023, 1_024, 2_000, 100_000]
    padded: list[Json] = [
        [length, len(pad_body(bytes(length))), len(pad_audit(bytes(min(length, 511))))]
        for length in lengths
    ]
    write(
        "padding", "padding", "E-10", "accepted",
        "[content, padded body, padded record of at most 511]", expect=padded,
    )  # fmt: skip


def witness_policy(type_: KeyType, public: bytes) -> WitnessPolicy:
    """Give a policy with one witness, or its anchors."""
    log_key = FastKey.from_seed(fixed("log", 32)).public
    log = VerifierKey("comity.example/vectors", KeyType.ED25519, log_key)
    return WitnessPolicy(log, Quorum(1, (VerifierKey("witness.example", type_, public),)))


class Chain:
    """A small chain with fixed keys: one custodian, two admins, an officer."""

    def __init__(self) -> None:
        """Found the deployment and the desk."""
        self.custodian = FullKey.from_seed(fixed("custodian", 64))
        self.root = Root("XA", 1, (self.custodian.public,))
        genesis = Genesis(
            witness_policy(KeyType.COSIGNATURE_V1, FastKey.from_seed(fixed("witness", 32)).public),
            witness_policy(KeyType.MLDSA44, AnchorKey.from_seed(fixed("anchor", 32)).public),
            RELAY.public,
            (self.root,),
        )
        self.genesis = sign_statement(genesis.serialize(), [self.custodian])
        self.deployment = genesis.deployment
        self.signed: list[SignedStatement] = []
        self.head = SignedStatement(self.root.serialize(), ()).hash

    def link(self) -> Link:
        """Give the next link."""
        return Link(self.deployment, HOME, len(self.signed), self.head)

    def add(self, signed: SignedStatement) -> None:
        """Take a statement into the chain."""
        self.signed.append(signed)
        self.head = signed.hash

    def device(self, name: str, role: Role, box: bytes | None = None) -> DeviceStatement:
        """State a device with keys out of its name."""
        return DeviceStatement(
            self.link(),
            FastKey.from_seed(fixed(f"{name} fast", 32)).public,
            self.full(name).public,
            self.seal(name).public,
            OfficerId(fixed(f"{name} officer", 16)),
            role,
            None if box is None else box_hash(box),
        )

    def full(self, name: str) -> FullKey:
        """Give a device's composite key."""
        return FullKey.from_seed(fixed(f"{name} full", 64))

    def seal(self, name: str) -> SealKey:
        """Give a device's sealing key."""
        return SealKey.from_seed(fixed(f"{name} seal", 32))

    def id(self, name: str) -> DeviceId:
        """Give a device's id."""
        return DeviceId(key_id(self.full(name).public))

    def epoch(self, number: int, names: Sequence[str]) -> NewEpoch:
        """Make an epoch with seeds out of its number."""
        file, leads = self.file(number), {n: fixed(f"lead {n}", 32) for n in range(1, number + 1)}
        secret = EpochSecret(number, file, leads)
        boxes = tuple(
            sorted(
                (self.id(name), box_for(HOME, self.id(name), self.seal(name).public, secret))
                for name in names
            )
        )
        previous = None
        if number > 1:
            label = HOME + number.to_bytes(8, "big")
            key = derive(Context.PREVIOUS_EPOCH, file, label)
            previous = box_encrypt(key, Context.PREVIOUS_EPOCH, label, self.file(number - 1))
        keys = EpochKeys(
            number,
            SealKey.from_seed(file).public,
            SealKey.from_seed(leads[number]).public,
            tuple(id_ for id_, _ in boxes),
            boxes_hash(boxes, previous),
        )
        return NewEpoch(keys, boxes, previous, secret)

    def file(self, number: int) -> bytes:
        """Give an epoch's file seed."""
        return fixed(f"file {number}", 32)


def make_chain() -> None:
    """A chain with every kind of statement, and statements that may not follow it."""
    chain, names = Chain(), ["first", "second", "officer"]
    desk = DeskStatement(chain.link(), "XA", Authority.PROSECUTION, Policy())
    chain.add(sign_statement(desk.serialize(), [chain.custodian]))
    for name in names:
        role = Role.OFFICER if name == "officer" else Role.ADMIN
        device = chain.device(name, role)
        chain.add(sign_statement(device.serialize(), [chain.full(name), chain.custodian]))
    first = chain.epoch(1, names)
    statement = EpochStatement(chain.link(), first.keys)
    chain.add(sign_statement(statement.serialize(), [chain.full("first")], boxes=first.boxes))
    make_boxes(chain, first)
    make_chain_failures(chain)
    second = chain.epoch(2, names[:2])
    gone = (chain.id("officer"),)
    removal = RemovalStatement(chain.link(), gone, Reason.LEAVER, second.keys)
    signed = sign_statement(
        removal.serialize(), [chain.full("second")], boxes=second.boxes, previous=second.previous
    )
    chain.add(signed)
    policy = PolicyStatement(chain.link(), Policy(epoch_days=7))
    chain.add(sign_statement(policy.serialize(), [chain.custodian]))
    write(
        "chain", "fold chain", "S-1", "accepted",
        "genesis, desk, two admins, an officer, an epoch, the officer's removal, a policy",
        genesis=b64(chain.genesis.serialize()),
        statements=[b64(item.serialize()) for item in chain.signed],
        expect=b64(chain.head),
    )  # fmt: skip


def make_boxes(chain: Chain, epoch: NewEpoch) -> None:
    """A box that opens to the stated keys, and one that does not."""
    id_ = chain.id("first")
    forged = replace(epoch.secret, file=SALT)
    boxes = {
        "box": ("accepted", dict(epoch.boxes)[id_]),
        "box-other-keys": (
            "verification-failed", box_for(HOME, id_, chain.seal("first").public, forged),
        ),
    }  # fmt: skip
    for name, (outcome, box) in boxes.items():
        write(
            name, "open box", "S-13", outcome, "the first admin's box of epoch 1 of chain.json",
            box=b64(box), seed=b64(chain.seal("first").seed), device=b64(id_),
            expect=b64(epoch.secret.file) if outcome == "accepted" else None,
        )  # fmt: skip


def make_chain_failures(chain: Chain) -> None:
    """One statement each that may not be the sixth of chain.json."""

    def failure(name: str, rule: str, outcome: str, about: str, signed: SignedStatement) -> None:
        write(
            name, "follow chain", rule, outcome, f"as sixth statement of chain.json: {about}",
            statement=b64(signed.serialize()),
        )  # fmt: skip

    admin, officer = chain.full("first"), chain.full("officer")
    box = box_for(HOME, chain.id("ghost"), chain.seal("ghost").public, chain.epoch(1, []).secret)
    ghost = chain.device("ghost", Role.OFFICER, box)
    failure(
        "chain-ghost", "S-3", "verification-failed", "a ghost let in by one admin and an officer",
        sign_statement(
            ghost.serialize(), [chain.full("ghost"), admin, officer],
            boxes=[(chain.id("ghost"), box)],
        ),
    )  # fmt: skip
    short = chain.epoch(2, ["first", "second"])
    failure(
        "chain-epoch-member", "S-7", "verification-failed", "an epoch without the officer",
        sign_statement(
            EpochStatement(chain.link(), short.keys).serialize(), [admin],
            boxes=short.boxes, previous=short.previous,
        ),
    )  # fmt: skip
    removal = RemovalStatement(chain.link(), (chain.id("first"),), Reason.LOST, short.keys)
    value = parse(removal.serialize())
    assert isinstance(value, Mapping)
    bare = serialize({name: item for name, item in value.items() if name != "epoch"})
    failure(
        "chain-removal-bare", "S-6", "malformed", "a removal without an epoch",
        sign_statement(bare, [chain.full("second")]),
    )  # fmt: skip
    fork = replace(chain.link(), previous=chain.signed[-2].hash)
    failure(
        "chain-fork", "S-1", "verification-failed", "a fork",
        sign_statement(PolicyStatement(fork, Policy()).serialize(), [chain.custodian]),
    )  # fmt: skip
    failure(
        "chain-policy", "S-11", "verification-failed", "a policy by an admin",
        sign_statement(PolicyStatement(chain.link(), Policy()).serialize(), [admin]),
    )  # fmt: skip


def main() -> None:
    """Write every vector."""
    FOLDER.mkdir(exist_ok=True)
    make_acts()
    make_envelopes()
    make_receipts()
    make_chain()


if __name__ == "__main__":
    main()
