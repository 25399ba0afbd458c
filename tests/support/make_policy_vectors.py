"""Writes the vectors of policies and anchors.

Keys come from fixed seeds. ML-DSA-44 signatures are random by nature, so a second run writes other,
equally valid anchors: run it only when a format changes.

    PYTHONPATH=tests python -m support.make_policy_vectors
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from nacl.signing import SigningKey

from comity_protocol.checkpoint import (
    add_signatures,
    cosign,
    cosign_anchor,
    sign_checkpoint,
)
from comity_protocol.keys import AnchorKey
from comity_protocol.policy import Policy
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import KeyType, SignatureLine, VerifierKey
from support.make_vectors import Json, b64, fixed, write

AT: Final = 1_800_000_000
SIZE: Final = 7
LOG_KEY: Final = SigningKey(fixed("log", 32))
LOG: Final = VerifierKey("comity.example/vectors", KeyType.ED25519, bytes(LOG_KEY.verify_key))
NAMES: Final = ("a.example", "b.example", "c.example", "n.example")
KEYS: Final = {name: SigningKey(fixed(name, 32)) for name in NAMES}
SECRETS: Final = {name: AnchorKey(fixed(f"anchor {name}", 32)) for name in NAMES}
NOTE: Final = sign_checkpoint(origin=LOG.name, size=SIZE, root=fixed("root", 32), key=LOG_KEY)


def policy(
    type_: KeyType, publics: Mapping[str, bytes], urls: Mapping[str, str] | None = None
) -> Policy:
    """Give two of three States and the neutral body."""
    keys = tuple(VerifierKey(name, type_, publics[name]) for name in NAMES)
    states, neutral = Quorum(2, keys[:3], "States"), Quorum(1, keys[3:], "neutral")
    return Policy(LOG, Quorum(2, (states, neutral), "both"), urls or {})


POLICY: Final = policy(
    KeyType.COSIGNATURE_V1,
    {name: bytes(key.verify_key) for name, key in KEYS.items()},
    {"b.example": "https://b.example/witness"},
)
ANCHORS: Final = policy(KeyType.MLDSA44, {name: key.public for name, key in SECRETS.items()})
LINES: Final = {
    name: cosign_anchor(NOTE, name, SECRETS[name], AT + 10 * number)
    for number, name in enumerate(NAMES)
}


def make_policies() -> None:
    """Write a policy, and other ways to write it or to count somebody twice."""
    text = POLICY.serialize()
    write(
        "policy", "parse policy", "L-9", "accepted", "2 of 3 States and a neutral body", text=text
    )
    lines = text.splitlines(keepends=True)
    turned = [lines[0], lines[2], lines[1], *lines[3:]]
    shared = text.replace("neutral 1 n.example", "neutral 1 a.example n.example")
    outside = text.replace("States 2 a.example ", "States 2 ")
    alias = f"witness c.example {replace(_key('a.example'), name='c.example').serialize()}\n"
    refused = {
        "comment": ("a comment", f"# ours\n{text}"),
        "space": ("two spaces", text.replace("group both 2 ", "group both  2 ")),
        "order": ("witnesses in another order", "".join(turned)),
        "all": ("all in place of a number", text.replace("both 2", "both all")),
        "none": ("no quorum", text.replace("quorum both", "quorum none")),
        "twice": ("a witness in two groups", shared),
        "outside": ("a witness outside the quorum", outside),
        "alias": ("one key under two names", text.replace(_line("c.example"), alias)),
        "zero": ("a threshold of zero", text.replace("States 2", "States 0")),
    }
    for name, (about, altered) in refused.items():
        assert altered != text, name
        write(f"policy-{name}", "parse policy", "L-9", "malformed", about, text=altered)


def make_times() -> None:
    """Write the times that follow from those of some witnesses."""
    rows: list[Mapping[str, int]] = [
        {"a.example": 10, "b.example": 20, "c.example": 30, "n.example": 15},
        {"a.example": 10, "b.example": 20, "n.example": 15},
        {"a.example": 10, "c.example": 30, "n.example": 40},
        {"a.example": 0, "b.example": 20, "c.example": 30, "n.example": 0},
        {"a.example": 10, "b.example": 20, "c.example": 30},
        {"a.example": 10, "n.example": 15},
        {},
    ]
    given: list[Json] = [dict(row) for row in rows]
    write(
        "policy-times", "date quorum", "L-5", "accepted", "times of witnesses, time of the quorum",
        policy=POLICY.serialize(), rows=given, expect=[POLICY.quorum.time_of(row) for row in rows],
    )  # fmt: skip


def make_anchors() -> None:
    """Write an anchor, and what is none."""
    write(
        "anchors", "check anchors", "L-10", "accepted", "anchors of a policy",
        policy=POLICY.serialize(), anchors=ANCHORS.serialize(),
    )  # fmt: skip
    weaker = replace(ANCHORS, quorum=replace(ANCHORS.quorum, threshold=1))
    write(
        "anchors-weaker", "check anchors", "L-10", "malformed", "anchors of a weaker quorum",
        policy=POLICY.serialize(), anchors=weaker.serialize(),
    )  # fmt: skip

    def anchor(name: str, outcome: str, about: str, note: bytes, *expect: Json) -> None:
        write(
            name, "verify anchor", "L-10", outcome, about,
            anchors=ANCHORS.serialize(), note=b64(note), expect=list(expect) or None,
        )  # fmt: skip

    ours = [LINES[name] for name in ("a.example", "b.example", "n.example")]
    forged = SignatureLine(LOG.name, LOG.key_id, bytes(64))
    anchor(
        "anchor", "accepted", "2 of 3 States and the neutral body, the log's signature forged",
        add_signatures(NOTE, [forged, *ours]), SIZE, b64(fixed("root", 32)), AT + 30,
    )  # fmt: skip
    ed25519 = [cosign(NOTE, name, key, AT) for name, key in KEYS.items()]
    anchor(
        "anchor-ed25519", "verification-failed", "Ed25519 lines only", add_signatures(NOTE, ed25519)
    )
    anchor("anchor-short", "verification-failed", "no neutral body", add_signatures(NOTE, ours[:2]))
    renamed = cosign_anchor(NOTE, "x.example", SECRETS["a.example"], AT)
    anchor(
        "anchor-name", "verification-failed", "a line made under another name",
        add_signatures(NOTE, [replace(ours[0], signature=renamed.signature), *ours[1:]]),
    )  # fmt: skip
    larger = sign_checkpoint(origin=LOG.name, size=SIZE + 1, root=fixed("root", 32), key=LOG_KEY)
    anchor("anchor-size", "verification-failed", "another size", add_signatures(larger, ours))


def _key(name: str) -> VerifierKey:
    (key,) = [key for key in POLICY.quorum.witnesses if key.name == name]
    return key


def _line(name: str) -> str:
    return f"witness {name} {_key(name).serialize()}\n"


def main() -> None:
    """Write every vector."""
    make_policies()
    make_times()
    make_anchors()


if __name__ == "__main__":
    main()
