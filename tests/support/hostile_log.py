"""A relay that holds the log key, as a witness that replays meets it; it may lie as it likes.

Entries and statements are given to the witness by method calls; the notes are really signed.
"""

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from comity_client.transport import OfflineError
from comity_client.witness import Witness
from comity_client.witness_folder import WitnessFolder
from comity_client.witness_mirror import Mirror
from comity_client.witness_replay import Replay
from comity_protocol.checkpoint import sign_checkpoint
from comity_protocol.keys import random_bytes
from comity_protocol.leaves import LEAF_BYTES, statement_leaf
from comity_protocol.merkle import Frontier, consistency_proof, leaf_hash
from comity_protocol.statements import SignedStatement
from comity_protocol.witnessing import (
    AddCheckpoint,
    Cosigned,
    WitnessAnswer,
    parse_witness_answer,
)
from support.world import World

NAME: Final = "witness.example/w1"


@dataclass
class HostileLog:
    """What it signed, and what it shows.

    Attributes:
        leaves_: the entries that it signs.
        shown: entries that it shows instead, by index.
        given: statements as it gives them.
        page: entries that it shows at once.
        asked: the first index of each page of entries that it was asked for.
        stalls_at: the index from which it does not answer; None for always.
        is_gone: whether it cannot be reached.
    """

    world: World
    leaves_: list[bytes] = field(default_factory=list)
    shown: dict[int, bytes] = field(default_factory=dict)
    given: list[SignedStatement] = field(default_factory=list)
    page: int = 4_096
    asked: list[int] = field(default_factory=list)
    stalls_at: int | None = None
    is_gone: bool = False

    @classmethod
    def of(cls, world: World) -> "HostileLog":
        """Log the statements of a world, with an envelope after each."""
        log = cls(world)
        for _, signed in world.statements:
            log.state(signed)
            log.carry(1)
        return log

    @property
    def size(self) -> int:
        """How many entries there are."""
        return len(self.leaves_)

    def state(self, signed: SignedStatement) -> None:
        """Log a statement, legal or not, and give it."""
        bare = SignedStatement(signed.payload, signed.signatures, is_bare=True)
        self.leaves_.append(statement_leaf(signed.payload))
        self.given.append(bare)

    def carry(self, count: int) -> None:
        """Log entries that say nothing to a witness."""
        self.leaves_ += [b"\x00" + random_bytes(LEAF_BYTES - 1) for _ in range(count)]

    def offer(self, old: int, new: int | None = None) -> AddCheckpoint:
        """Sign a checkpoint over the entries and prove that it continues another."""
        size = self.size if new is None else new
        hashes = [leaf_hash(leaf) for leaf in self.leaves_[:size]]
        note = sign_checkpoint(
            origin=self.world.genesis.origin,
            size=size,
            root=Frontier().extend(hashes).root,
            key=self.world.log_key,
        )
        proof = consistency_proof(old, size, lambda _, start, n: hashes[start : start + n])
        return AddCheckpoint(old_size=old, hashes=proof, note=note)

    async def leaves(self, start: int) -> tuple[bytes, ...]:
        """Show entries."""
        self.asked.append(start)
        if self.is_gone:
            raise OfflineError("relay cannot be reached")
        if self.stalls_at is not None and start >= self.stalls_at:
            await asyncio.Event().wait()
        whole = [self.shown.get(at, leaf) for at, leaf in enumerate(self.leaves_)]
        return tuple(whole[start : start + self.page])

    async def all_statements(self, after: int) -> tuple[SignedStatement, ...]:
        """Give statements."""
        return tuple(self.given[after : after + 200])


@dataclass
class Replaying:
    """A witness that replays such a log."""

    log: HostileLog
    folder: WitnessFolder
    witness: Witness
    replay: Replay
    mirror: Mirror | None
    size: int = 0

    async def ask(self, request: AddCheckpoint) -> WitnessAnswer:
        """Offer a checkpoint as the relay does."""
        answer = await self.witness.add_checkpoint(request.serialize())
        return parse_witness_answer(
            status=answer.status,
            content_type=answer.content_type,
            body=answer.body,
            note=request.note,
            witness=self.folder.key.verifier_key,
        )

    async def ask_for_all(self) -> WitnessAnswer:
        """Offer a checkpoint over all that the log signs."""
        answer = await self.ask(self.log.offer(self.size))
        if isinstance(answer, Cosigned):
            self.size = self.log.size
        return answer


@contextmanager
def replaying(
    data: Path,
    log: HostileLog,
    *,
    now: int = 1_800_000_000,
    pinned: bytes | None = None,
    has_mirror: bool = False,
    is_replaying: bool = True,
    seconds_max: float = 8,
) -> Iterator[Replaying]:
    """Run a witness that replays a log; it remembers what is in the folder."""
    with closing(WitnessFolder.open(data, NAME)) as folder:
        state = folder.state
        mirror: Mirror | None = None
        if has_mirror:

            def statements(skip: int, limit: int) -> list[SignedStatement]:
                kept = state.statements(skip, limit, below=state.replayed().size)
                return [signed for _, signed in kept]

            def cosigned() -> bytes:
                seen = state.seen(log.world.genesis.origin)
                return seen.note if seen else b""

            mirror = Mirror(data / "mirror", statements, cosigned)
        genesis = log.world.genesis
        pinned = log.world.statements[0][1].hash if pinned is None else pinned
        replay = Replay(state, log, genesis.origin, pinned, mirror, seconds_max=seconds_max)
        witness = Witness(
            state,
            folder.key,
            [genesis.log],
            lambda: now,
            replay=replay if is_replaying else None,
            mirror=mirror,
        )
        seen = state.seen(genesis.origin)
        try:
            yield Replaying(log, folder, witness, replay, mirror, seen.size if seen else 0)
        finally:
            if mirror is not None:
                mirror.close()
