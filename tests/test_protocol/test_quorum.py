"""Who counts how: trees of witnesses against a brute-force reading of them. [L-3] [L-5]"""

from collections.abc import Collection, Iterator, Mapping
from itertools import combinations
from typing import Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from comity_protocol.checkpoint import add_signatures, cosign, verify_quorum
from comity_protocol.errors import VerificationError
from comity_protocol.limits import GROUP_DEPTH_MAX, GROUPS_MAX, NAME_BYTES_MAX
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import KeyType, VerifierKey
from support.notes import LOG, NOTE, NOW, cosigned, signing_key, witness_key

STATES: Final = Quorum(2, tuple(witness_key(number) for number in (1, 2, 3)), "States")
NEUTRAL: Final = Quorum(1, tuple(witness_key(number) for number in (4, 5)), "neutral")
NESTED: Final = Quorum(2, (STATES, NEUTRAL))
"""Two of three States and any neutral body."""

NAMES: Final = tuple(key.name for key in NESTED.witnesses)


def subsets(names: Collection[str]) -> Iterator[frozenset[str]]:
    for count in range(len(names) + 1):
        yield from map(frozenset, combinations(sorted(names), count))


def oracle_is_met(names: Collection[str]) -> bool:
    """Written out by hand: two States and any neutral body."""
    w1, w2, w3, w4, w5 = (name in names for name in NAMES)
    return ((w1 and w2) or (w1 and w3) or (w2 and w3)) and (w4 or w5)


def oracle_time(group: Quorum, times: Mapping[str, int]) -> int | None:
    """Count by trying: the rank of L-5, found without sorting."""
    found = []
    for one in group.members:
        time = oracle_time(one, times) if isinstance(one, Quorum) else times.get(one.name)
        if time is not None:
            found.append(time)
    if len(found) < group.threshold:
        return None
    rank = group.threshold // 2
    return next(
        time
        for time in found
        if sum(other < time for other in found) <= rank < sum(other <= time for other in found)
    )


# Who is enough.


def test_a_nested_quorum_is_met_by_exactly_those_sets_that_it_says() -> None:
    met = [names for names in subsets(NAMES) if NESTED.is_met(names)]

    assert met == [names for names in subsets(NAMES) if oracle_is_met(names)]
    assert len(met) == 12


def test_a_checkpoint_is_believed_with_exactly_those_sets() -> None:
    """[L-3]"""
    believed = set()
    for names in subsets(NAMES):
        numbers = [number for number in range(1, 6) if NAMES[number - 1] in names]
        try:
            verify_quorum(note_by(dict.fromkeys(numbers, NOW)), LOG, NESTED)
        except VerificationError:
            continue
        believed.add(names)

    assert believed == {names for names in subsets(NAMES) if oracle_is_met(names)}


def note_by(times: Mapping[int, int]) -> bytes:
    lines = [cosign(NOTE, f"witness.example/w{n}", signing_key(n), at) for n, at in times.items()]
    return add_signatures(NOTE, lines)


def test_three_states_without_a_neutral_body_are_told_what_it_takes() -> None:
    """[L-3]"""
    expected = (
        r"has 3 cosignatures of pinned witnesses, expected 2 of States \(2 of 3\), neutral \(1"
    )

    with pytest.raises(VerificationError, match=expected):
        verify_quorum(cosigned(NOW, NOW, NOW), LOG, NESTED)


def test_names_of_nobody_do_not_count() -> None:
    assert not NESTED.is_met({"States", "neutral", "quorum", "w.example"})


def test_the_least_that_it_takes_is_the_smallest_set_that_meets_it() -> None:
    smallest = min(len(names) for names in subsets(NAMES) if NESTED.is_met(names))

    assert NESTED.least == smallest == 3
    assert Quorum(1, (STATES, witness_key(6))).least == 1


FIVE: Final = tuple(witness_key(number) for number in (1, 2, 3, 4, 5))
MOVED: Final = {
    "1 of 3": (Quorum(1, FIVE[:3]), 1),
    "2 of 3": (Quorum(2, FIVE[:3]), 1),
    "3 of 3": (Quorum(3, FIVE[:3]), 2),
    "3 of 5": (Quorum(3, FIVE), 2),
    "5 of 5": (Quorum(5, FIVE), 3),
    "two of three States and any neutral body": (NESTED, 1),
}


@pytest.mark.parametrize(("quorum", "movers"), MOVED.values(), ids=MOVED)
def test_so_many_witnesses_move_a_time_and_no_fewer(quorum: Quorum, movers: int) -> None:
    """[L-5] [M-6] Every set of liars, early or late, with every set of those who cosigned."""
    names = [key.name for key in quorum.witnesses]
    honest = {name: 100 + number for number, name in enumerate(names)}
    moving = [
        len(liars)
        for signers in subsets(names)
        if quorum.is_met(signers)
        for liars in subsets(signers)
        for lie in (0, 1_000)
        if quorum.time_of({name: lie if name in liars else honest[name] for name in signers}) == lie
    ]

    assert min(moving) == movers == quorum.movers


def test_those_who_did_not_answer_must_not_be_a_quorum() -> None:
    """[G-4] In a flat quorum of 2 of 3 it takes two answers; here which ones matters."""
    unanswered = {names for names in subsets(NAMES) if not NESTED.is_met(set(NAMES) - names)}

    assert {frozenset(NAMES[:2]), frozenset(NAMES[3:])} <= unanswered
    assert frozenset({NAMES[0], NAMES[3]}) not in unanswered


# What time it gives.

TREES: Final = st.recursive(
    st.just(None), lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=6
).filter(lambda shape: shape is not None)


def depth_of(shape: object) -> int:
    return 1 + max(map(depth_of, shape)) if isinstance(shape, list) else 0


def tree_of(shape: object, draw: st.DataObject) -> Quorum:
    """Make a tree of a shape, with fresh witnesses and drawn thresholds."""
    assume(depth_of(shape) <= GROUP_DEPTH_MAX)
    counter = iter(range(1, 100))

    def build(part: object) -> VerifierKey | Quorum:
        if part is None:
            return witness_key(next(counter))
        assert isinstance(part, list)
        members = tuple(build(one) for one in part)
        threshold = draw.draw(st.integers(1, len(members)))
        return Quorum(threshold, members, f"group{next(counter)}")

    built = build(shape)
    assert isinstance(built, Quorum)
    return built


@given(TREES, st.data())
def test_the_time_of_any_tree_is_that_of_the_oracle(shape: object, data: st.DataObject) -> None:
    """[L-5]"""
    tree = tree_of(shape, data)
    names = [key.name for key in tree.witnesses]
    times = data.draw(st.dictionaries(st.sampled_from(names), st.integers(0, 9)))

    assert tree.time_of(times) == oracle_time(tree, times)
    assert (tree.time_of(times) is not None) == tree.is_met(times)


@given(TREES, st.data())
def test_leaving_out_times_of_any_tree_can_only_make_its_time_later(
    shape: object, data: st.DataObject
) -> None:
    """[L-5] A relay that picks the cosignatures that it shows cannot date an act earlier."""
    tree = tree_of(shape, data)
    names = [key.name for key in tree.witnesses]
    times = {name: data.draw(st.integers(0, 9)) for name in names}
    shown = data.draw(st.sets(st.sampled_from(names)))

    time, all_of_them = tree.time_of({n: times[n] for n in shown}), tree.time_of(times)

    assert all_of_them is not None
    assert time is None or time >= all_of_them


@pytest.mark.parametrize("liar", range(1, 6))
@pytest.mark.parametrize("lie", [-(10**8), 10**8])
def test_one_liar_of_a_nested_quorum_cannot_move_its_time(liar: int, lie: int) -> None:
    """[L-5] Not early, whatever is left out; and not late, when all cosigned."""
    times = {number: NOW + number for number in range(1, 6)} | {liar: NOW + lie}
    early = min(time for number, time in times.items() if number != liar)

    for names in subsets(NAMES):
        shown = {number: at for number, at in times.items() if NAMES[number - 1] in names}
        if NESTED.is_met(names):
            sealed_time = verify_quorum(note_by(shown), LOG, NESTED).sealed_time
            assert sealed_time >= early
    assert verify_quorum(note_by(times), LOG, NESTED).sealed_time <= NOW + 5


def test_a_neutral_liar_alone_would_date_early_if_it_were_the_quorum() -> None:
    """What the test above would find if the tree did not protect."""
    assert NEUTRAL.time_of({NAMES[3]: 0, NAMES[4]: NOW}) == 0
    assert NESTED.time_of({NAMES[0]: NOW, NAMES[1]: NOW, NAMES[3]: 0}) == NOW


# What cannot be made.

ANCHOR: Final = VerifierKey("w.example", KeyType.MLDSA44, bytes(1_312))
W1, W2 = witness_key(1), witness_key(2)


def deep(levels: int) -> Quorum:
    made = Quorum(1, (W1,), "group1")
    for number in range(2, levels + 1):
        made = Quorum(1, (made,), f"group{number}")
    return made


def test_groups_stand_inside_each_other_up_to_the_limit() -> None:
    assert deep(GROUP_DEPTH_MAX).depth == GROUP_DEPTH_MAX
    with pytest.raises(ValueError, match="group5 is 5 deep, expected at most 4"):
        deep(GROUP_DEPTH_MAX + 1)


def test_a_quorum_has_so_many_groups_and_no_more() -> None:
    groups = [Quorum(1, (witness_key(number),), f"group{number}") for number in range(1, 33)]

    assert len(Quorum(1, tuple(groups[: GROUPS_MAX - 1])).groups) == GROUPS_MAX
    with pytest.raises(ValueError, match="quorum has 33 groups, expected at most 32"):
        Quorum(1, tuple(groups))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ((STATES, STATES), "one witness is twice in the quorum"),
        ((STATES, Quorum(1, (W1,), "other")), "one witness is twice in the quorum"),
        ((STATES, W1), "one witness is twice in the quorum"),
        (
            (W1, VerifierKey("alias.example", W1.type, W1.public_key)),
            "one witness is twice in the quorum, by its key",
        ),
        ((W1, Quorum(1, (W2,), W1.name)), "or a name is"),
        ((Quorum(1, (W1,)), W2), "or a name is"),
        ((W1, ANCHOR), "keys of types 4 and 6, expected one type"),
    ],
    ids=[
        "a group twice",
        "a witness in two groups",
        "a witness in a group and beside it",
        "a key under two names",
        "a group called as a witness",
        "a group called as another",
        "two ways of cosigning",
    ],
)
def test_a_tree_in_which_somebody_could_count_twice_cannot_be_made(
    members: tuple[VerifierKey | Quorum, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Quorum(1, members)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "name none stands for no witness"),
        ("", "key name is empty"),
        ("two words", "has a space or a plus"),
        ("x" * (NAME_BYTES_MAX + 1), "name has 129 bytes, expected at most 128"),
    ],
)
def test_a_group_that_a_policy_cannot_name_cannot_be_made(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Quorum(1, (W1,), name)
