"""How the vectors of policies and anchors are tried; see ``notice_operations``."""

import base64
from collections.abc import Callable
from typing import Any, Final

from comity_protocol.checkpoint import verify_anchor
from comity_protocol.policy import Policy, check_anchors

# JSON of many shapes, read by the operation that knows its own.
_Input = dict[str, Any]


def _parse_policy(given: _Input) -> None:
    assert Policy.parse(given["text"]).serialize() == given["text"]


def _check_anchors(given: _Input) -> None:
    check_anchors(Policy.parse(given["anchors"]), Policy.parse(given["policy"]))


def _date_quorum(given: _Input) -> list[int | None]:
    quorum = Policy.parse(given["policy"]).quorum
    return [quorum.time_of(times) for times in given["rows"]]


def _verify_anchor(given: _Input) -> list[int | str]:
    anchors = Policy.parse(given["anchors"])
    note = base64.b64decode(given["note"], validate=True)
    witnessed = verify_anchor(note, anchors.log.name, anchors.quorum)
    root = base64.b64encode(witnessed.checkpoint.root).decode()
    return [witnessed.checkpoint.size, root, witnessed.sealed_time]


OPERATIONS: Final[dict[str, Callable[[_Input], object]]] = {
    "check anchors": _check_anchors,
    "date quorum": _date_quorum,
    "parse policy": _parse_policy,
    "verify anchor": _verify_anchor,
}
