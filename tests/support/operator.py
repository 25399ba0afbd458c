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
from support.operator_run import By, CrashError, Noticed, Scene, faults_of, look, outputs
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
        if By.NOBODY not in (self.first.by, self.beyond.by):
            return "noticed"
        return "unnoticed" if self.effects else "without effect"


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
        self._true: Mapping[bool, Mapping[str, bytes]] = {}

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
        given = asyncio.run(outputs(scene, is_accomplice=is_accomplice))
        true = self._outputs(is_accomplice=is_accomplice)
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

    def _outputs(self, *, is_accomplice: bool) -> Mapping[str, bytes]:
        if is_accomplice not in self._true:
            scene = Scene.copy(self._past, self._folder / "scene")
            given = asyncio.run(outputs(scene, is_accomplice=is_accomplice))
            self._true = {**self._true, is_accomplice: given}
        return self._true[is_accomplice]


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
whatever the database holds; where somebody else was first, this is the same. An attack that nobody
notices has to be without effect: every answer to every device and to the public is the same, byte
by byte, as before; why is in the last section.
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

Known gaps: no program alarms, and somebody is given something else than before."""

_WHY: Final[Mapping[str, str]] = {
    "head.root": "only the signer compares it; the root that is signed follows from the entries",
}


def why(result: Result) -> str:
    """Say why nobody notices an attack."""
    name = result.attack.name
    return next((text for what, text in _WHY.items() if name.startswith(what)), "")


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
