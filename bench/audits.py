"""A: a check of a whole log from its tiles, beside the hashing that it cannot do without."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from comity_protocol.leaves import LEAF_BYTES
from comity_protocol.log_proof import LogProof
from comity_protocol.merkle import TILE_WIDTH, inclusion_proof
from support.paper_log import PaperLog
from support.world import World

_FRAME: Final = 2 + LEAF_BYTES
_WITNESSES: Final = 5
_KIB: Final = 1_024
_PAST_SIZES: Final = 20


@dataclass(frozen=True, slots=True)
class AuditTimes:
    """What one check took.

    Attributes:
        seconds: Of ``comity audit verify`` as a process of its own.
        mebibytes: Its largest resident set.
        small_mebibytes: The same for a log of one tile: what the program takes before it checks.
        floor_seconds: Reading the same files, with one hashlib call for each entry and each node.
        proof_bytes: Of one tlog-proof with five cosignatures.
    """

    seconds: float
    mebibytes: float
    small_mebibytes: float
    floor_seconds: float
    proof_bytes: int


def run(folder: Path, size: int) -> AuditTimes:
    """Write a log of ``size`` entries, check it, and hash the same bytes beside it."""
    world = World.found(witnesses=_WITNESSES, quorum=3)
    world.create_desk("XA")
    log = PaperLog(world, size)
    log.write(folder / "log")
    PaperLog(world, TILE_WIDTH).write(folder / "small")
    (folder / "log/checkpoints").mkdir()
    for number in range(1, _PAST_SIZES):
        past = number * size // _PAST_SIZES
        (folder / f"log/checkpoints/{past:012}-x").write_bytes(log.note(past))
    proof = LogProof(
        index=size // 3,
        hashes=inclusion_proof(size // 3, size, log.read),
        note=log.note(),
        extra=bytes(32),
    )
    floor = _hash_everything(folder / "log")
    seconds, mebibytes = _verify(folder / "log", size)
    _, small = _verify(folder / "small", TILE_WIDTH)
    return AuditTimes(seconds, mebibytes, small, floor, len(proof.serialize()))


def _hash_everything(folder: Path) -> float:
    started = time.perf_counter()
    for path in (folder / "tile").rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if "entries" in path.parts:
            for at in range(0, len(data), _FRAME):
                sha256(data[at : at + _FRAME]).digest()
                sha256(data[at : at + _FRAME]).digest()
    return time.perf_counter() - started


def _verify(folder: Path, size: int) -> tuple[float, float]:
    """Run the check; gives seconds, and the largest resident set in MiB."""
    # Not ru_maxrss: that of a child begins with what its parent has.
    program = (
        "import sys; from pathlib import Path; from comity_client.cli import run;"
        " code = run(['audit', 'verify', sys.argv[1], '--json'], lambda: 0);"
        " print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]);"
        " sys.exit(code)"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True, check=True
    )
    elapsed = time.perf_counter() - started
    said, resident = done.stdout.splitlines()
    answer = json.loads(said)
    assert answer["entries"] == size, answer
    assert answer["findings"] == 0, answer
    return elapsed, int(resident) / _KIB
