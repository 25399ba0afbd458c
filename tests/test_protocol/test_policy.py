"""The policy's text: what is written is read, and nothing else is. [L-9] [L-10]"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity_protocol.errors import ComityError, LimitError, MalformedError
from comity_protocol.keys import AnchorKey
from comity_protocol.limits import (
    ANCHOR_WITNESSES_MAX,
    GROUPS_MAX,
    NAME_BYTES_MAX,
    POLICY_BYTES_MAX,
    WITNESS_URL_BYTES_MAX,
    WITNESSES_MAX,
)
from comity_protocol.policy import Policy, check_anchors
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import KeyType, VerifierKey
from support.notes import LOG, signing_key, witness_key

KEYS: Final = tuple(witness_key(number) for number in range(1, 6))
STATES: Final = Quorum(2, KEYS[:3], "States")
NEUTRAL: Final = Quorum(1, KEYS[3:], "neutral")
POLICY: Final = Policy(
    LOG,
    Quorum(2, (STATES, NEUTRAL), "both"),
    {KEYS[0].name: "https://w1.example", KEYS[4].name: "http://127.0.0.1:8441/prefix"},
)
TEXT: Final = POLICY.serialize()
W: Final = tuple(key.name for key in KEYS)
V: Final = tuple(key.serialize() for key in KEYS)


def lines(*groups: str, witnesses: int = 5) -> str:
    """Write a policy of these group and quorum lines over the first witnesses."""
    named = (f"witness {name} {vkey}" for name, vkey in list(zip(W, V, strict=True))[:witnesses])
    return "".join(f"{line}\n" for line in (f"log {LOG.serialize()}", *named, *groups))


# Form.


def test_a_policy_is_written_as_the_specification_says() -> None:
    """[L-9]"""
    assert (
        f"log {LOG.serialize()}\n"
        f"witness {W[0]} {V[0]} https://w1.example\n"
        f"witness {W[1]} {V[1]}\n"
        f"witness {W[2]} {V[2]}\n"
        f"witness {W[3]} {V[3]}\n"
        f"witness {W[4]} {V[4]} http://127.0.0.1:8441/prefix\n"
        f"group States 2 {W[0]} {W[1]} {W[2]}\n"
        f"group neutral 1 {W[3]} {W[4]}\n"
        "group both 2 States neutral\n"
        "quorum both\n"
    ) == TEXT
    assert Policy.parse(TEXT) == POLICY


def test_a_policy_has_one_form_whatever_the_order_in_which_it_was_put_together() -> None:
    """[L-9] Two States that compare texts compare meanings."""
    turned = Quorum(
        2, (replace(NEUTRAL, members=KEYS[:2:-1]), replace(STATES, members=KEYS[2::-1])), "both"
    )

    assert replace(POLICY, quorum=turned).serialize() == TEXT


def test_the_largest_policies_that_the_limits_allow_fit() -> None:
    """[L-9] So no limit can be met only by breaking another."""

    def named(count: int, type_: KeyType) -> tuple[VerifierKey, ...]:
        return tuple(
            VerifierKey(
                f"w{n:02}.".ljust(NAME_BYTES_MAX, "x"),
                type_,
                bytes(signing_key(n).verify_key)
                if type_ is KeyType.COSIGNATURE_V1
                else bytes([n]) * 1_312,
            )
            for n in range(1, count + 1)
        )

    def spread(keys: tuple[VerifierKey, ...]) -> Quorum:
        groups = [
            Quorum(1, keys[n :: GROUPS_MAX - 1], f"g{n:02}.".ljust(NAME_BYTES_MAX, "x"))
            for n in range(GROUPS_MAX - 1)
        ]
        return Quorum(1, tuple(groups), "q".ljust(NAME_BYTES_MAX, "x"))

    log = VerifierKey("l".ljust(NAME_BYTES_MAX, "x"), KeyType.ED25519, LOG.public_key)
    keys = named(WITNESSES_MAX, KeyType.COSIGNATURE_V1)
    urls = {
        key.name: f"https://w{n}.".ljust(WITNESS_URL_BYTES_MAX, "x") for n, key in enumerate(keys)
    }
    for policy in (
        Policy(log, spread(keys), urls),
        Policy(log, spread(named(ANCHOR_WITNESSES_MAX, KeyType.MLDSA44))),
    ):
        assert Policy.parse(policy.serialize()).serialize() == policy.serialize()


HOSTILE: Final[dict[str, tuple[str, str]]] = {
    "nothing": ("", "does not end in its quorum"),
    "no final newline": (TEXT[:-1], "does not end in its quorum"),
    "a blank line after the quorum": (f"{TEXT}\n", "unknown or there twice"),
    "a line after the quorum": (f"{TEXT}{TEXT.splitlines()[1]}\n", "unknown or there twice"),
    "two quorums": (f"{TEXT}quorum both\n", "unknown or there twice"),
    "no quorum": (TEXT.removesuffix("quorum both\n"), "does not end in its quorum"),
    "quorum none": (lines("quorum none"), "on no earlier line"),
    "quorum of nobody known": (lines("quorum other"), "on no earlier line"),
    "quorum of two": (TEXT.replace("quorum both", "quorum both both"), "on no earlier line"),
    "quorum of a witness": (lines(f"quorum {W[0]}", witnesses=1), "a witness as quorum"),
    "no log": (TEXT.partition("\n")[2], "names no log"),
    "two logs": (f"log {LOG.serialize()}\n{TEXT}", "unknown or there twice"),
    "a log with an address": (TEXT.replace("\n", " https://l\n", 1), "unknown or there twice"),
    "a witness beside the quorum": (
        lines(f"group g 1 {W[0]}", "quorum g", witnesses=2),
        "a witness or a group that is not in its quorum",
    ),
    "a group beside the quorum": (
        lines(f"group g 1 {W[0]}", f"group h 1 {W[1]}", "quorum g", witnesses=2),
        "a witness or a group that is not in its quorum",
    ),
    "a group counted twice": (
        lines(f"group g 1 {W[0]}", "group h 2 g g", "quorum h", witnesses=1),
        "on no earlier line or in another group already",
    ),
    "a member twice": (
        lines(f"group g 2 {W[0]} {W[0]}", "quorum g", witnesses=1),
        "on no earlier line or in another group already",
    ),
    "a witness in two groups": (
        lines(f"group g 1 {W[0]}", f"group h 1 {W[0]}", "group i 2 g h", "quorum i", witnesses=1),
        "on no earlier line or in another group already",
    ),
    "a group in two groups": (
        lines(
            f"group g 1 {W[0]}", "group h 1 g", "group i 1 g", "group j 2 h i", "quorum j",
            witnesses=1,
        ),
        "on no earlier line or in another group already",
    ),
    "a group of itself": (
        lines("group g 1 g", "quorum g", witnesses=0), "on no earlier line"
    ),
    "a group of a later one": (
        lines("group g 1 h", f"group h 1 {W[0]}", "quorum g", witnesses=1), "on no earlier line"
    ),
    "groups of each other": (
        lines(f"group g 1 h {W[0]}", "group h 1 g", "quorum h", witnesses=1), "on no earlier line"
    ),
    "a quorum before its group": (
        lines("quorum g", f"group g 1 {W[0]}", witnesses=1), "unknown or there twice"
    ),
    "threshold 0": (lines(f"group g 0 {W[0]}", "quorum g", witnesses=1), "g is 0 of 1"),
    "threshold above": (lines(f"group g 2 {W[0]}", "quorum g", witnesses=1), "g is 2 of 1"),
    "threshold all": (
        lines(f"group g all {W[0]}", "quorum g", witnesses=1), "not a whole number"
    ),
    "threshold any": (
        lines(f"group g any {W[0]}", "quorum g", witnesses=1), "not a whole number"
    ),
    "threshold 01": (lines(f"group g 01 {W[0]}", "quorum g", witnesses=1), "not a whole number"),
    "threshold +1": (lines(f"group g +1 {W[0]}", "quorum g", witnesses=1), "not a whole number"),
    "threshold of other digits": (
        lines(f"group g \u0661 {W[0]}", "quorum g", witnesses=1), "not a whole number"
    ),
    "no members": (lines("group g 1", "quorum g", witnesses=0), "unknown or there twice"),
    "a witness twice": (
        lines(f"witness {W[0]} {V[0]}", f"group g 1 {W[0]}", "quorum g", witnesses=1),
        "unknown or there twice",
    ),
    "a witness under two names": (
        lines(
            f"witness alias {VerifierKey('alias', KEYS[0].type, KEYS[0].public_key).serialize()}",
            f"group g 1 {W[0]} alias", "quorum g", witnesses=1,
        ),
        "one witness is twice in the quorum, by its key",
    ),
    "a witness called otherwise than its key": (
        lines(f"witness alias {V[0]}", "group g 1 alias", "quorum g", witnesses=0),
        "calls a witness otherwise than its key does",
    ),
    "a group called as a witness": (
        lines(f"group {W[0]} 1 {W[1]}", f"quorum {W[0]}", witnesses=2), "unknown or there twice"
    ),
    "a group called as its member": (
        lines(f"group g 1 {W[0]}", f"group {W[0]} 1 g", f"quorum {W[0]}", witnesses=1),
        "or a name is",
    ),
    "a group called none": (
        lines(f"group none 1 {W[0]}", "quorum none", witnesses=1), "name none stands for no"
    ),
    "the log as witness": (
        TEXT.replace(
            V[1], VerifierKey(W[1], KEYS[1].type, LOG.public_key).serialize()
        ),
        "key of the log is among its witnesses",
    ),
    "a witness's key as log": (TEXT.replace(LOG.serialize(), V[0]), "is of type 4, expected 1"),
    "a log's key as witness": (
        lines(f"witness {LOG.name} {LOG.serialize()}", f"group g 1 {LOG.name}", "quorum g",
              witnesses=0),
        "is of type 1, expected 4 or 6",
    ),
    "a key cut": (TEXT.replace(V[2], V[2][:-4]), "public key is 29 bytes"),
    "one space more": (TEXT.replace("group neutral 1 ", "group neutral 1  "), "on no earlier"),
    "a space at the end": (TEXT.replace("quorum both\n", "quorum both \n"), "on no earlier"),
    "a space at the beginning": (f" {TEXT}", "unknown or there twice"),
    "a tab": (TEXT.replace("quorum both", "quorum\tboth"), "has the character U\\+0009|not end"),
    "a tab before": (TEXT.replace("group both", "group\tboth"), r"has the character U\+0009"),
    "CRLF": (TEXT.replace("\n", "\r\n"), r"has the character U\+000D"),
    "one CR": (TEXT.replace("\ngroup both", "\r\ngroup both"), r"has the character U\+000D"),
    "a comment": (f"# policy\n{TEXT}", "unknown or there twice"),
    "a comment at the end": (TEXT.replace("States neutral", "States neutral # x"), "no earlier"),
    "a blank line": (TEXT.replace("\nquorum", "\n\nquorum"), "unknown or there twice"),
    "an unknown line": (f"mirror m\n{TEXT}", "unknown or there twice"),
    "capitals": (TEXT.replace("quorum both", "Quorum both"), "does not end in its quorum"),
    "the log later": (
        "\n".join([*TEXT.split("\n")[1:3], TEXT.split("\n")[0], *TEXT.split("\n")[3:]]),
        "not in its one canonical form",
    ),
    "witnesses in another order": (
        "\n".join([TEXT.split("\n")[i] for i in (0, 2, 1, *range(3, 11))]),
        "not in its one canonical form",
    ),
    "groups in another order": (
        "\n".join([TEXT.split("\n")[i] for i in (0, 1, 2, 3, 4, 5, 7, 6, 8, 9, 10)]),
        "not in its one canonical form",
    ),
    "members in another order": (
        TEXT.replace("2 States neutral", "2 neutral States"), "not in its one canonical form"
    ),
    "an address twice": (
        TEXT.replace(f"{V[1]}\n", f"{V[1]} https://w1.example\n"), "one address for two"
    ),
    "two addresses": (
        TEXT.replace("https://w1.example", "https://w1.example https://b"), "there twice"
    ),
    "an address of a file": (
        TEXT.replace("https://w1.example", "file:///etc"), "does not begin with http"
    ),
    "an address without a host": (
        TEXT.replace("https://w1.example", "https:///x"), "does not begin with http"
    ),
    "an address that cannot be read": (
        TEXT.replace("https://w1.example", "https://[::1"), "policy is not usable"
    ),
    "an address in other letters": (
        TEXT.replace("https://w1.example", "https://w\u0456.example"), "letters beyond ASCII"
    ),
    "a long address": (
        TEXT.replace("https://w1.example", "https://w1.example/".ljust(257, "x")),
        "address is 257 bytes, expected at most 256",
    ),
    "letters that turn the reading direction": (
        TEXT.replace("neutral", "neu\u202etral"), r"has the character U\+202E"
    ),
    "a name in two forms": (TEXT.replace("States", "E\u0301tats"), "normal form C"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_policy_in_another_form_is_refused(name: str) -> None:
    """[L-9]"""
    text, message = HOSTILE[name]

    with pytest.raises(MalformedError, match=message):
        Policy.parse(text)


def test_a_policy_that_is_too_long_is_refused_before_it_is_read() -> None:
    """[L-9]"""
    with pytest.raises(LimitError, match="policy is 81,921 bytes, expected at most 81,920"):
        Policy.parse("x" * (POLICY_BYTES_MAX + 1))


PIECES: Final = st.sampled_from(
    [*TEXT.splitlines(keepends=True), "group g 1 ", "quorum ", "both", " ", "\n", "# x\n", *W]
)


@given(st.lists(PIECES, max_size=14).map("".join))
def test_reading_any_text_refuses_or_gives_what_would_be_written(text: str) -> None:
    """[L-9]"""
    try:
        policy = Policy.parse(text)
    except ComityError:
        return
    assert policy.serialize() == text


@given(st.data())
def test_a_policy_with_one_piece_changed_is_refused_or_another_policy(data: st.DataObject) -> None:
    """[L-9] So no two texts say the same."""
    at = data.draw(st.integers(0, len(TEXT) - 1))
    changed = TEXT[:at] + data.draw(st.sampled_from("aZ1 \n\t#+")) + TEXT[at + 1 :]
    try:
        policy = Policy.parse(changed)
    except ComityError:
        return
    assert (policy == POLICY) == (changed == TEXT)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Policy(KEYS[0], NEUTRAL), "key of the log is of type 4, expected 1"),
        (lambda: Policy(replace(LOG, name="x" * 129), STATES), "name has 129 bytes"),
        (lambda: Policy(LOG, STATES, {W[4]: "https://x"}), "an address of somebody who is no"),
    ],
)
def test_what_is_no_policy_cannot_be_made(make: Callable[[], Policy], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# Anchors.


def anchored(quorum: Quorum) -> Quorum:
    """Give the same tree with ML-DSA-44 keys."""
    members = (
        anchored(one)
        if isinstance(one, Quorum)
        else VerifierKey(one.name, KeyType.MLDSA44, AnchorKey(one.public_key).public)
        for one in quorum.members
    )
    return replace(quorum, members=tuple(members))


ANCHORS: Final = Policy(LOG, anchored(POLICY.quorum))


def test_anchors_of_the_same_tree_are_accepted() -> None:
    """[L-10]"""
    check_anchors(Policy.parse(ANCHORS.serialize()), POLICY)


OTHER_LOG: Final = VerifierKey("other.example", KeyType.ED25519, LOG.public_key)


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        (POLICY, "anchors have Ed25519 keys"),
        (replace(ANCHORS, log=OTHER_LOG), "anchors are of another log"),
        (Policy(LOG, anchored(STATES)), "or other witnesses or groups"),
        (
            replace(ANCHORS, quorum=replace(ANCHORS.quorum, threshold=1)),
            "or other witnesses or groups",
        ),
        (replace(ANCHORS, urls={W[0]: "https://w1.example"}), "anchors have addresses"),
    ],
    ids=["of Ed25519", "another log", "another tree", "a weaker tree", "with addresses"],
)
def test_anchors_that_are_not_those_of_the_policy_are_refused(
    anchors: Policy, message: str
) -> None:
    """[L-10] Anchors of a weaker quorum would be what an attacker shows."""
    with pytest.raises(MalformedError, match=message):
        check_anchors(anchors, POLICY)


def test_more_witnesses_than_fit_a_note_have_no_anchors() -> None:
    """[L-10]"""
    keys = tuple(witness_key(number) for number in range(1, ANCHOR_WITNESSES_MAX + 2))
    policy = Policy(LOG, Quorum(1, keys))

    with pytest.raises(MalformedError, match="anchors have 32 witnesses, expected at most 31"):
        check_anchors(Policy(LOG, anchored(policy.quorum)), policy)
