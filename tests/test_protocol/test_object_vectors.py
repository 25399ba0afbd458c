"""The protocol's own vectors, one object or one failure a file, with the outcome class it names.

They are for implementations in other languages; here they make sure that no change of ours alters
what bytes mean. ``tests/support/make_vectors.py`` and ``make_notice_vectors.py`` wrote them,
once for each format.
"""

import base64
import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from comity_protocol.acts import Act, Body, act_id, verify_act
from comity_protocol.audit import AuditRecord, verify_projection
from comity_protocol.core import Core, core_hash
from comity_protocol.directory import Directory
from comity_protocol.encoding import serialize
from comity_protocol.envelope import Upload, check_reference, open_audit, open_body, open_wrap
from comity_protocol.epochs import open_box
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import DeploymentId, DeskId, DeviceId
from comity_protocol.keys import Context, FastKey, SealKey, verify_fast
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
from comity_protocol.receipts import Receipt, Signed, verify_promise
from comity_protocol.statements import SignedStatement
from support.notice_operations import OPERATIONS as NOTICE_OPERATIONS
from support.policy_operations import OPERATIONS as POLICY_OPERATIONS

FOLDER: Final = Path(__file__).parents[2] / "protocol" / "vectors" / "objects"
FILES: Final = sorted(FOLDER.glob("*.json"))

# JSON of many shapes, read by the operation that knows its own.
_Input = dict[str, Any]


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _load(name: str) -> _Input:
    vector: _Input = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return vector


def _same(given: _Input, read: Callable[[bytes], Any]) -> None:
    """Read an object, which must be written back to the same bytes."""
    data = _bytes(given["bytes"])
    assert read(data).serialize() == data


def _between(given: _Input) -> tuple[DeploymentId, DeskId, DeskId]:
    return (
        DeploymentId(_bytes(given["deployment"])),
        DeskId(_bytes(given["sender"])),
        DeskId(_bytes(given["receiver"])),
    )


def _act_id(given: _Input) -> str:
    deployment, sender, receiver = _between(given)
    id_ = act_id(_bytes(given["act"]), deployment=deployment, sender=sender, receiver=receiver)
    return base64.b64encode(id_).decode()


def _verify_act(given: _Input) -> None:
    deployment, sender, receiver = _between(given)
    public, act, signature = (_bytes(given[name]) for name in ("public", "act", "signature"))
    verify_act(public, act, signature, deployment=deployment, sender=sender, receiver=receiver)


def _verify_projection(given: _Input) -> None:
    record, act = AuditRecord.parse(_bytes(given["record"])), Act.parse(_bytes(given["act"]))
    verify_projection(record, act, _bytes(given["head_key"]))


def _verify_signature(given: _Input) -> None:
    public, message, signature = (_bytes(given[key]) for key in ("public", "message", "signature"))
    verify_fast(public, Context(given["context"]), message, signature)


def _check_reference(given: _Input) -> None:
    check_reference(Core.parse(_bytes(given["core"])), Core.parse(_bytes(given["referred"])))


def _open_wrap(given: _Input) -> str:
    core = Core.parse(_bytes(given["core"]))
    entry = core.recipient(DeskId(_bytes(given["desk"])))
    assert entry is not None
    root = open_wrap(core, _bytes(given["wrap"]), entry, _bytes(given["seed"]))
    return base64.b64encode(root).decode()


def _open_body(given: _Input) -> str:
    core = Core.parse(_bytes(given["core"]))
    body = open_body(core, _bytes(given["body"]), _bytes(given["root"]))
    return base64.b64encode(body).decode()


def _open_audit(given: _Input) -> str:
    core = Core.parse(_bytes(given["core"]))
    record = open_audit(core, _bytes(given["audit"]), _bytes(given["key"]))
    return base64.b64encode(record).decode()


def _verify_promise(given: _Input) -> None:
    signed = Signed.parse(_bytes(given["signed"]))
    verify_promise(signed, _bytes(given["relay"]), _bytes(given["what"]))


def _leaves(given: _Input) -> list[str]:
    payload, what = _bytes(given["payload"]), _bytes(given["core_hash"])
    blind = envelope_blind(
        FastKey.from_seed(_bytes(given["relay_seed"])), _bytes(given["envelope"])
    )
    desks = [_bytes(desk) for desk in given["desks"]]
    hidden = commit_counters(desks, [1, 300], blind)
    leaves = (
        statement_leaf(payload),
        envelope_leaf(what, hidden),
        receipt_leaf(payload),
        notice_leaf(payload),
        serialize(prove_counter(1, desks[1], blind, hidden).to_value()),
        *tags_of_promise(what),
    )
    return [base64.b64encode(leaf).decode() for leaf in leaves]


def _padding(_: _Input) -> list[list[int]]:
    rows: list[list[int]] = _load("padding")["expect"]
    return [
        [length, len(pad_body(bytes(length))), len(pad_audit(bytes(min(length, 511))))]
        for length, _body, _record in rows
    ]


@cache
def _directory(statements: int) -> Directory:
    """The directory after some statements of ``chain.json``."""
    chain = _load("chain")["input"]
    genesis = SignedStatement.parse(_bytes(chain["genesis"]))
    directory = Directory.begin(genesis, genesis.hash)
    for index, text in enumerate(chain["statements"][:statements], 1):
        directory = directory.apply(SignedStatement.parse(_bytes(text)), index)
    return directory


def _fold_chain(given: _Input) -> str:
    (desk,) = _directory(len(given["statements"])).desks.values()
    return base64.b64encode(desk.head).decode()


_BASE: Final = 5
"""Statements of ``chain.json`` up to its first epoch, which the failures follow."""


def _follow_chain(given: _Input) -> None:
    signed = SignedStatement.parse(_bytes(given["statement"]))
    _directory(_BASE).apply(signed, _BASE + 1)


def _open_box(given: _Input) -> str:
    (desk,) = _directory(_BASE).desks.values()
    assert desk.epoch is not None
    secret = open_box(
        _bytes(given["box"]),
        SealKey.from_seed(_bytes(given["seed"])),
        desk=desk,
        device=DeviceId(_bytes(given["device"])),
        epoch=desk.epoch,
    )
    return base64.b64encode(secret.file).decode()


OPERATIONS: Final[dict[str, Callable[[_Input], object]]] = {
    "parse act": lambda given: _same(given, Act.parse),
    "parse body": lambda given: _same(given, Body.parse),
    "parse core": lambda given: _same(given, Core.parse),
    "parse receipt": lambda given: _same(given, Receipt.parse),
    "parse record": lambda given: _same(given, AuditRecord.parse),
    "parse upload": lambda given: _same(given, Upload.parse),
    "act id": _act_id,
    "core hash": lambda given: base64.b64encode(core_hash(_bytes(given["core"]))).decode(),
    "check reference": _check_reference,
    "fold chain": _fold_chain,
    "follow chain": _follow_chain,
    "leaves": _leaves,
    "open audit": _open_audit,
    "open body": _open_body,
    "open box": _open_box,
    "open wrap": _open_wrap,
    "padding": _padding,
    "verify act": _verify_act,
    "verify projection": _verify_projection,
    "verify promise": _verify_promise,
    "verify signature": _verify_signature,
    **NOTICE_OPERATIONS,
    **POLICY_OPERATIONS,
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_vector_has_the_outcome_that_it_names(path: Path) -> None:
    """[C-1] [K-1] [S-1] [E-2] [A-1] [U-1] [Q-2] [H-1] [L-9] [M-2] [V-1]"""
    vector = _load(path.stem)

    try:
        result = OPERATIONS[vector["operation"]](vector["input"])
        outcome = "accepted"
    except ComityError as error:
        result, outcome = None, error.code

    assert outcome == vector["outcome"]
    assert result == vector["expect"]


_NAMED_IN_MESSAGES: Final = {"S-1", "S-3", "S-7", "S-11", "S-13", "E-2", "E-3", "E-6", "U-1", "U-3"}
_FAILURES: Final = [
    path.stem
    for path in FILES
    if (vector := _load(path.stem))["outcome"] != "accepted"
    and vector["rule"] in _NAMED_IN_MESSAGES
]


@pytest.mark.parametrize("name", _FAILURES)
def test_a_failure_is_refused_for_the_rule_that_it_names(name: str) -> None:
    """[C-5] A vector that failed for another reason would test nothing."""
    vector = _load(name)

    with pytest.raises(ComityError, match=rf"\[{vector['rule']}\]"):
        OPERATIONS[vector["operation"]](vector["input"])


def test_there_is_a_vector_for_every_operation_and_every_class_of_failure() -> None:
    """[C-1]"""
    vectors = [_load(path.stem) for path in FILES]

    assert {vector["operation"] for vector in vectors} == set(OPERATIONS)
    assert Counter(vector["outcome"] for vector in vectors) == {
        "accepted": 39,
        "malformed": 28,
        "verification-failed": 24,
        "cannot-open": 2,
    }
