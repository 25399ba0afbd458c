"""The worked example of docs/PROTOCOL.md, section 24, recomputed by this implementation.

It holds [E-3], [E-4], [E-5], [E-6], [K-1], [L-1] and the key schedule to the bytes of the law.
"""

from functools import cache
from hashlib import sha256

from comity_protocol.audit import AuditRecord
from comity_protocol.core import Core, Kind, Part, Recipient, core_hash
from comity_protocol.envelope import audit_key, audit_root, body_key, open_audit, open_wrap
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.keys import Context, FastKey, derive, verify_fast
from comity_protocol.leaves import (
    commit_counters,
    counter_blind,
    envelope_blind,
    envelope_leaf,
    places_of,
    tag_of,
)
from comity_protocol.merkle import leaf_hash
from support.documents import code_block, document, hex_values


@cache
def example() -> dict[str, bytes]:
    return hex_values(code_block(document("PROTOCOL.md"), "## 24. Worked example"))


def core() -> Core:
    return Core.parse(example()["core"])


def test_keys_of_the_example_derive_from_its_root_key() -> None:
    root, id_ = example()["root key"], EnvelopeId(example()["envelope id"])

    assert audit_root(root) == example()["audit root"]
    assert body_key(root, id_) == example()["body key"]
    assert audit_key(example()["audit root"], id_) == example()["audit key"]


def test_the_audit_part_of_the_example_opens_to_its_record() -> None:
    opened = open_audit(core(), example()["audit ciphertext"], example()["audit key"])

    assert opened == example()["audit record"]
    assert AuditRecord.parse(opened).serialize() == opened


def test_the_own_wrap_of_the_example_opens_to_its_root_key() -> None:
    referred = core().ref
    own = core().recipient(core().sender)
    assert referred is not None
    assert own is not None
    bringer = Core(
        id=referred,
        sender=core().sender,
        device=core().device,
        seq=core().seq,
        seen=core().seen,
        body=core().body,
        audit=core().audit,
        to=core().to,
    )
    wrapped = Recipient(own.desk, own.epoch, own.kind, sha256(example()["own wrap"]).digest())

    root = open_wrap(bringer, example()["own wrap"], wrapped, example()["lead seed"])

    assert root == example()["root key"]
    assert (
        derive(Context.WRAP, example()["lead seed"], example()["wrap info"])
        == example()["wrap key"]
    )


def test_the_core_of_the_example_says_what_the_text_around_it_says() -> None:
    assert core().serialize() == example()["core"]
    assert core().id == example()["envelope id"]
    assert core().ref == bytes(range(0xF0, 0x100))
    assert core().kind is Kind.LEAD
    assert core().body == Part(328, sha256(b"body").digest())


def test_the_core_of_the_example_is_signed_by_its_key() -> None:
    key = FastKey.from_seed(example()["fast seed"])

    assert key.public == example()["fast public"]
    assert key.sign(Context.ENVELOPE, example()["core"]) == example()["core signature"]
    verify_fast(key.public, Context.ENVELOPE, example()["core"], example()["core signature"])


def test_the_leaf_of_the_example_commits_to_core_and_counters() -> None:
    """[L-7] [L-8]"""
    relay = FastKey.from_seed(example()["relay seed"])
    hashed = core_hash(example()["core"])
    desks = [entry.desk for entry in core().to]
    first, second = commit_counters(desks, [5, 9], example()["blind"])

    assert hashed == example()["core hash"]
    assert envelope_blind(relay, core().id) == example()["blind"]
    assert counter_blind(example()["blind"], desks[0]) == example()["first blind"]
    assert (first, second) == (example()["first commitment"], example()["other commitment"])
    assert places_of([first, second]) == example()["places"]
    assert tag_of(example()["leaf data"]) == example()["leaf tag"]
    assert envelope_leaf(hashed, [first, second]) == example()["leaf data"]
    assert leaf_hash(example()["leaf data"]) == example()["leaf hash"]
