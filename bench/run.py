"""Measures Comity on this machine, beside floors measured in the same run; see README.md.

make bench                      all rows, some ten minutes
make bench ARGS="--quick"       below two minutes, one repetition
make bench ARGS="--only W"      one row (repeat it for more)
make bench ARGS="--json FILE"   the figures as JSON too
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Final

import rows
from figures import Figure, document, table
from machine import load_average
from rows import Effort

Row = Callable[[Effort], Coroutine[None, None, list[Figure]]]

ROWS: Final[dict[str, Row]] = {
    "T": rows.throughput_and_cost,
    "L": rows.latencies,
    "W": rows.bytes_on_the_wire,
    "K": rows.catch_up_start_and_memory,
    "G": rows.log_operations,
    "Z": rows.seals,
    "A": rows.audit_of_a_log,
    "B": rows.witness_traffic,
    "R": rows.witness_replay,
    "V": rows.program_and_installation,
}
"""What one letter measures; C comes with T, and S and M with K, because they share set-up."""

_ALSO: Final = {"C": "T", "S": "K", "M": "K"}


def main(arguments: Sequence[str]) -> int:
    """Measure and print; the exit status is 0 whether or not goals are met."""
    parser = argparse.ArgumentParser(prog="make bench", description="measure Comity")
    parser.add_argument("--quick", action="store_true", help="one short repetition of each row")
    parser.add_argument(
        "--only", action="append", choices=[*ROWS, *_ALSO], help="a row's letter; repeat for more"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    chosen = parser.parse_args(arguments)
    letters = [_ALSO.get(letter, letter) for letter in chosen.only or ROWS]
    effort = rows.QUICK if chosen.quick else rows.FULL
    started, load = time.time(), load_average()
    figures: list[Figure] = []
    for letter in dict.fromkeys(letters):
        print(f"measuring {letter} ...", file=sys.stderr, flush=True)
        figures += asyncio.run(ROWS[letter](effort))
    print(table(figures))
    about = {
        "seconds": round(time.time() - started, 1),
        "load_average_before": load,
        "load_average_after": load_average(),
        "repetitions": effort.rounds,
    }
    print("  ".join(f"{name} {value}" for name, value in about.items()))
    if chosen.json is not None:
        chosen.json.write_text(document(figures, **about), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
