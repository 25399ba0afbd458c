"""An operator with every right on database, disk and signer's host alters nothing unnoticed.

The bench is ``support.operator``; its table, docs/ATTACKS.md, lists all that it does.
"""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from support.operator import FAMILIES, OUTCOMES, Attack, Bench, catalogue, outcomes_in
from support.operator_run import By
from support.operator_world import tell

ROOT = Path(__file__).parents[2]
LISTED = outcomes_in((ROOT / "docs" / "ATTACKS.md").read_text("utf-8"))
ATTACKS = {attack.name: attack for attack in catalogue()}
NOTHING = Attack("nothing", "change", "nothing")

SPREAD = (
    "leaves.data, last row: bit in the middle flipped",
    "tile_hashes.hash, first row: bit in the middle flipped",
    "head.size, first row: made one smaller",
    "envelopes.recipients, first row: bit in the middle flipped",
    "notices.payload, first row: swapped with another row",
    "envelopes.counters, first row: last byte cut off",
    "statements.signatures, last row: last byte cut off",
    "first row of receipts deleted",
    "first row of receipt_readers deleted",
    "all of notice_readers deleted",
    "last row of statements copied",
    "all of epoch_boxes deleted",
    "entry 100 altered, tree recomputed and signed",
    "statement that nobody made logged",
    "device admitted by the operator's keys",
    "receipt signed by the relay's key",
    "database as after stage 2",
    "database and signer as after stage 1",
    "promise in envelopes back-dated by a day",
    "one mailbox counter given twice",
    "removal withheld from everybody",
    "all of statements deleted",
    "statements.leaf_index, last row: taken away",
    "erased copies brought back, tombstones deleted",
    "vacancy invented",
    "another log key",
    "answer: last item left out of mailbox",
    "two histories, 1 of 3 witnesses bribed, message carried across",
    "two histories, 3 of 3 witnesses bribed, message carried across",
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("operator")
    return Bench(folder, asyncio.run(tell(folder / "past")))


def test_the_table_lists_exactly_the_attacks_that_the_bench_makes() -> None:
    assert sorted(LISTED) == sorted(ATTACKS)
    assert {attack.family for attack in ATTACKS.values()} == set(FAMILIES)
    assert Counter(LISTED.values())["noticed"] >= 300
    assert set(LISTED.values()) <= set(OUTCOMES)
    # What is kept back from a device that did not have it yet: the gaps that the table explains.
    unnoticed = [name for name, outcome in LISTED.items() if outcome == "unnoticed"]
    gaps = ("receipt", "notice", "checkpoint")
    assert [name for name in unnoticed if not any(gap in name for gap in gaps)] == []


def test_nobody_is_alarmed_by_what_was_not_altered(bench: Bench) -> None:
    result = bench.run(NOTHING)

    assert (result.first.by, result.effects, result.faults) == (By.NOBODY, (), 0)


@pytest.mark.parametrize("name", SPREAD)
def test_an_attack_is_noticed(bench: Bench, name: str) -> None:
    """[G-1] [G-3] [G-4] [B-1] [B-2] [B-6] [B-13] [B-17] [L-7] [V-3] [W-2] [H-5] [B-20]"""
    assert bench.run(ATTACKS[name]).outcome == "noticed"


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_every_attack_ends_as_the_table_says(bench: Bench) -> None:
    """[G-1] [G-3] [G-4] [B-1] [B-2] [B-6] [B-13] [B-17] [L-7] [V-3] [W-2] [H-5]"""
    results = [bench.run(attack) for attack in ATTACKS.values()]

    print(Counter(result.outcome for result in results))  # noqa: T201 - the figures of a long run
    print(Counter(result.first.by.value for result in results))  # noqa: T201
    assert {result.attack.name: result.outcome for result in results} == LISTED
