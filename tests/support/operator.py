"""Everything that an operator with every right may try, and a table of who notices it.

    PYTHONPATH=tests python -m support.operator --write docs/ATTACKS.md

runs all of it and writes the table. Each attack begins from a copy of the same past.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.operator_by_hand import by_hand
from support.operator_lies import Lie, tell_all
from support.operator_rows import generate
from support.operator_run import By, CrashError, Noticed, Scene, faults_of, knowledge, look, outputs
from support.operator_split import BRIBED, split
from support.operator_world import Past, tell

FAMILIES: Final = (
    "change",
    "delete",
    "swap",
    "insert",
    "roll back",
    "back-date",
    "split view",
    "withheld tail",
    "forged",
)


OUTCOMES: Final = ("noticed", "without effect", "unnoticed")


@dataclass(frozen=True, slots=True)
class Attack:
    """One alteration.

    Attributes:
        name: Unique; it says what is done.
        family: One of ``FAMILIES``.
        what: What is altered.
        strike: Alters a scene; looks at nothing.
        play: Looks by itself, where more than one relay is needed.
    """

    name: str
    family: str
    what: str
    strike: Callable[[Scene], None] | None = None
    play: Callable[[Scene], Awaitable[Noticed]] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an attack.

    Attributes:
        first: Who noticed first.
        beyond: Who notices when the relay's own signer is the operator's too; the same when it was
            not the relay that noticed.
        effects: Answers that differ, when nobody noticed; ``beyond`` counts too.
        faults: Rows that the operator's own check names, when nobody noticed.
    """

    attack: Attack
    first: Noticed
    beyond: Noticed
    effects: tuple[str, ...] = ()
    faults: int = 0

    @property
    def outcome(self) -> str:
        """One of noticed, without effect, unnoticed."""
        if self.beyond.by is By.NOBODY and self.effects:
            return "unnoticed"
        return "without effect" if self.first.by is By.NOBODY else "noticed"


def _lie(make: Callable[[Past], Lie]) -> Callable[[Scene], None]:
    def strike(scene: Scene) -> None:
        scene.lie = make(scene.past)

    return strike


def _split(bribed: int, *, is_carried: bool) -> Callable[[Scene], Awaitable[Noticed]]:
    return lambda scene: split(scene, bribed, is_carried=is_carried)


def catalogue() -> tuple[Attack, ...]:
    """Give all attacks, in the order of the table."""
    attacks = [Attack(*one) for one in (*generate(), *by_hand())]
    attacks += [Attack(name, family, what, _lie(make)) for name, family, what, make in tell_all()]
    for bribed in BRIBED:
        for is_carried in (True, False):
            words = "carried across" if is_carried else "kept back"
            attacks.append(
                Attack(
                    f"two histories, {bribed} of 3 witnesses bribed, message {words}",
                    "split view",
                    "everything",
                    play=_split(bribed, is_carried=is_carried),
                )
            )
    return tuple(attacks)


class Bench:
    """Runs attacks, each over a copy of one past."""

    def __init__(self, folder: Path, past: Past) -> None:
        """Take a folder for the copies."""
        self._folder: Final = folder
        self._past: Final = past
        self._known: Final[dict[tuple[bool, bool], Mapping[str, bytes]]] = {}

    def run(self, attack: Attack) -> Result:
        """Try one attack.

        Raises:
            CrashError: A program failed instead of refusing.
        """
        first = self._look(attack, is_accomplice=False)
        beyond = first
        if first.by is By.RELAY:
            beyond = self._look(attack, is_accomplice=True)
        if By.NOBODY not in (first.by, beyond.by):
            return Result(attack, first, beyond)
        is_accomplice = first.by is By.RELAY
        scene = self._scene(attack)
        given, true = self._give(scene, is_accomplice), self._true(scene, is_accomplice)
        effects = tuple(name for name in given if given[name] != true.get(name))
        return Result(attack, first, beyond, effects, asyncio.run(faults_of(scene)))

    def _look(self, attack: Attack, *, is_accomplice: bool) -> Noticed:
        scene = self._scene(attack)
        if attack.play is not None:
            return asyncio.run(_awaited(attack.play(scene)))
        return asyncio.run(look(scene, is_accomplice=is_accomplice))

    def _scene(self, attack: Attack) -> Scene:
        scene = Scene.copy(self._past, self._folder / "scene")
        if attack.strike is not None:
            attack.strike(scene)
        return scene

    def _true(self, scene: Scene, is_accomplice: bool) -> Mapping[str, bytes]:
        key = (scene.lie is None, is_accomplice)
        if key not in self._known:
            true = Scene.copy(self._past, self._folder / "true")
            true.lie = None if scene.lie is None else lambda _, body: body
            self._known[key] = self._give(true, is_accomplice)
        return self._known[key]

    def _give(self, scene: Scene, is_accomplice: bool) -> Mapping[str, bytes]:
        """Give all answers to everybody; of a liar's, what devices make of them."""
        if scene.lie is None:
            return asyncio.run(outputs(scene, is_accomplice=is_accomplice))
        return asyncio.run(knowledge(scene))


async def _awaited(given: Awaitable[Noticed]) -> Noticed:
    return await given


# --- The table

_HEAD: Final = """# Attacks by whoever runs the relay

Every row is an alteration that the operator bench makes, with full write access to database, disk
and signer's host, and with the keys of the relay and of the log; then a relay runs over what was
altered, and the programs of everybody else look at it. This file is written by

    PYTHONPATH=tests python -m support.operator --write docs/ATTACKS.md

`make long` runs all of it again and compares; `make check` runs some of it, and compares the names.

*First* is who notices first when the operator's machine is altered and the relay's own program
runs on it. *With the signer too* is who notices when the signer is the operator's as well and signs
whatever the database holds; where somebody else was first, this is the same. An attack is
*without effect* when every answer to every device and to the public is the same, byte by byte, as
before (of a liar's answers: when every device comes to know the same); why is said below. What is
*unnoticed* is a known gap, explained in the last section.
"""


def table(results: Iterable[Result]) -> str:
    """Write the table."""
    found = list(results)
    lines = [_HEAD, _counts(found), ""]
    for family in FAMILIES:
        lines += [
            f"## {family.capitalize()}",
            "",
            "| attack | what is altered | outcome | first | delay | with the signer too | delay |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [_row(one) for one in found if one.attack.family == family]
        lines.append("")
    for outcome, text in (("without effect", _WITHOUT), ("unnoticed", _UNNOTICED)):
        lines += [text, ""]
        lines += [f"- {one.attack.name}: {why(one)}" for one in found if one.outcome == outcome]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _counts(results: Sequence[Result]) -> str:
    count = Counter(one.outcome for one in results)
    return ", ".join(
        [f"{len(results)} attacks", *(f"{count[outcome]} {outcome}" for outcome in OUTCOMES)]
    )


def _row(one: Result) -> str:
    first, beyond, attack = one.first, one.beyond, one.attack
    cells = (
        attack.name,
        attack.what,
        one.outcome,
        first.by.value,
        first.when.value,
        beyond.by.value,
        beyond.when.value,
    )
    return f"| {' | '.join(cells)} |"


def outcomes_in(text: str) -> dict[str, str]:
    """Give the outcome of each attack that a written table lists, in its order."""
    rows = [line.removeprefix("| ").split(" | ") for line in text.splitlines() if "| " in line[:2]]
    return {row[0]: row[2] for row in rows if row[0] != "attack"}


_WITHOUT: Final = """## Without effect

Nobody is given these values, and nothing that anybody is given follows from them."""

_UNNOTICED: Final = """## Unnoticed

Known gaps: something true is kept back from a device that did not have it yet, or told to who need
not know it, and no program alarms. Nothing false is believed, and whoever has what was kept back
can prove it. Receipts and notices are numbered, so what is kept back shows at the next one by the
same device to the same readers; what is left is the tail, after which nothing is handed out."""

_NOTICE: Final = (
    "the newest notices are kept back, so no later number shows it; whoever stated them proves it"
    " with the notice and its place in the log, and nothing that they forbid becomes possible"
)
_TOLD: Final = (
    "a notice is given to every member; those whom it does not concern learn that it was given and"
    " for which ids, as they may from an operator at any time, and nobody believes anything else"
)

_DATED: Final = (
    "the first checkpoint that covers an act is kept back from a device that did not know it, so"
    " that the act looks later there, never earlier [M-1]; whoever has the earlier one shows it"
)

_WHY: Final[Mapping[str, str]] = {
    "head.incarnation": "nobody is given it before a restore; then it is drawn anew",
    "head.erasures": "it only makes relay processes look again at what they remember",
    "statements.kind": "it is for the operator's eyes; the kind follows from the payload",
    "statements.desk": "it is for the operator's eyes; the desk follows from the payload",
    "statements.accepted_at": "nothing is dated by it but when leads end by age, which no copy did",
    "statements": "the same promise and the same statement are given",
    "epoch_boxes": "of several boxes of one epoch the newest is given, which is the same one",
    "last row of epoch_boxes": "the copy is for no epoch and no device that there is",
    "previous_epochs": "of several of one epoch the newest is given, which is the same one",
    "first row of previous_epochs": "the copy is for an epoch that there is not",
    "envelopes.sender_device": "it is for the operator's eyes; the device follows from the core",
    "envelopes.accepted_at": "only retention counts by it, and no copy became old by this much",
    "mailbox_items.kind": "only an auditor's and an erased copy are told from the others by it",
    "first row of mailbox_items": "the copy is in a mailbox of no desk",
    "receipts.desk": "it is for the operator's eyes; the desk follows from the payload",
    "receipts.envelope_ids": "it is for the operator's eyes; they follow from the payload",
    "receipts.accepted_at": "nothing is dated by it",
    "receipts.readers": "it is what the readers' table was made of, and is not read any more",
    "receipt_readers.leaf_index, first row: swapped": "both rows are of one desk, so none changed",
    "first row of receipt_readers copied": "the copy is for no desk",
    "notices.kind": "it is for the operator's eyes; the kind follows from the payload",
    "notices.desk": "it is for the operator's eyes; the desk follows from the payload",
    "notices.accepted_at": "nothing is dated by it",
    "notices.readers": "it is what the readers' table was made of, and is not read any more",
    "first row of notice_readers copied": "the copy is for no desk",
    "notice_readers.desk, first row: swapped": "both desks are given the notice, as before",
    "reference to other wraps": "the envelope has wraps of its own, which are given",
    "frontier of the signer": "a signer that is the operator's has no memory",
    "signer.sqlite": "a signer that is the operator's has no memory",
    "answer: bit flipped in /v1/leaves": "only a witness that replays reads it, and compares [W-5]",
    "first row of notices copied": "no reader is given the copy",
    "notice_readers.leaf_index, first row: swapped": "both rows are of one desk, so none changed",
    "first row of mailboxes": "it is the mailbox of a desk to which nothing was sent then",
    "holds": "a hold only stops an erasure; one that comes then is logged by the desk that states"
    " it, and what ends by age is noticed as when envelopes are accepted 20 years earlier",
    "first row of holds": "a hold only stops an erasure, and there was none",
    "all of holds": "a hold only stops an erasure, and there was none",
    "leases": "a lease only says which process works; an old one is taken over",
    "first row of leases": "a lease only says which process works; an old one is taken over",
    "all of leases": "a lease only says which process works; an old one is taken over",
    "mailboxes": "it is the mailbox of a desk to which nothing was sent then",
    "checkpoints.note_hash": "it only says which checkpoints were published; nobody names this one",
    "checkpoints.at": "the time that counts is in the cosignatures; this one orders a page",
    "signer as after": "witnesses cosigned more, so it reads on in the same log [G-5]",
    "entr": "it is only read after a restore, and what does not lead to the root is refused",
    "tombstone": "it is only read after a restore; what comes back is noticed when it is given",
    "tombstones.sqlite deleted": "as a tombstone deleted",
    "erased copies brought back": "tombstones are carried out again at the start [R-18]",
    "parked row invented": "it is for the operator's eyes",
    "pending row": "it names nothing that could be given a place, and is set aside",
    "all of receipts accepted": "nothing is dated by it",
    "all of notices accepted": "nothing is dated by it",
    "all of statements accepted": "nothing is dated by it but when leads end by age",
    "genesis with": "the statement is the same without the one signature that was not needed",
}


def why(result: Result) -> str:
    """Say why nobody notices an attack."""
    name = result.attack.name
    if result.outcome == "unnoticed":
        gaps = {"emptied": _TOLD, "notice": _NOTICE, "checkpoint": _DATED}
        return next((text for what, text in gaps.items() if what in name), "")
    found = [text for what, text in _WHY.items() if name.startswith(what)]
    return found[-1] if found else ""


def run_all(folder: Path, attacks: Sequence[Attack]) -> list[Result]:
    """Let a deployment work once, and try attacks on copies of it.

    Raises:
        CrashError: A program failed instead of refusing; its name comes first.
    """
    past = asyncio.run(tell(folder / "past"))
    bench = Bench(folder, past)
    results: list[Result] = []
    for attack in attacks:
        try:
            results.append(bench.run(attack))
        except (CrashError, TimeoutError) as error:
            raise CrashError(f"{attack.name}: {error}") from error
    return results


def main(arguments: Sequence[str]) -> int:
    """Run everything and write the table."""
    parser = argparse.ArgumentParser(prog="operator", description="try what an operator may try")
    parser.add_argument("--write", type=Path, required=True, help="file of the table")
    chosen = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="operator-"))
    try:
        chosen.write.write_text(table(run_all(folder, catalogue())), "utf-8")
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
