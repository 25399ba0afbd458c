"""A deployment to measure: desks with real keys, and stores that know them from the start.

Statements and a first checkpoint are put into a store through the relay's own ``Store``, so that
a relay starts on it as it would after its ceremonies, and every envelope can be sealed beforehand.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from comity_protocol.checkpoint import add_signatures, cosign, note_hash, sign_checkpoint
from comity_protocol.identifiers import DeskId
from comity_protocol.leaves import statement_leaf
from comity_protocol.merkle import Frontier, leaf_hash
from comity_protocol.receipts import Promise, sign_promise
from comity_protocol.statements import Authority, Policy, parse_statement
from comity_server.statement_rows import genesis_row, statement_row
from comity_server.store import StatementRow, Store
from comity_server.stores import open_store
from support.world import Member, World

DESKS: Final = 32
_STATES: Final = ("XA", "XB", "XC", "XD")


@dataclass(frozen=True, slots=True)
class Deployment:
    """Desks with one device each, and what a store of theirs holds before the first envelope.

    Attributes:
        members: The one device of each desk; the first sends to the second and so on, round.
        rows: The statements as a store keeps them, in order.
        note: A witnessed checkpoint over them, which sealed envelopes name.
        at: When all this was, seconds since 1970 UTC.
    """

    world: World
    members: tuple[Member, ...]
    rows: tuple[StatementRow, ...]
    note: bytes
    at: int

    @classmethod
    def found(cls, desks: int = DESKS, *, witnesses: int = 1, quorum: int = 1) -> "Deployment":
        """Make one."""
        world = World.found(_STATES, witnesses=witnesses, quorum=quorum)
        ids = [
            world.create_desk(_STATES[number % len(_STATES)], officers=1) for number in range(desks)
        ]
        at = int(time.time())
        return cls(world, _members(world, ids), _statement_rows(world, at), _note(world, at), at)

    @property
    def seen(self) -> bytes:
        """What an envelope of a device that knows ``note`` names."""
        return note_hash(self.note)

    async def prepare(self, url: str) -> Store:
        """Put statements and checkpoint into an empty store; give it, opened."""
        store = open_store(url)
        await store.open()
        for ordinal, row in enumerate(self.rows):
            await store.accept_statement(row, expected_ordinal=ordinal)
        await store.publish_checkpoint(len(self.rows), self.note, self.seen, self.at)
        return store


def with_auditor() -> tuple[World, Member, DeskId, DeskId]:
    """Make two desks and their auditor; give a sending device, the other desk and the auditor.

    Both desks are of the same policy, which has the auditor read the records of leads and files.
    """
    world = World.found(_STATES[:3], witnesses=1, quorum=1)
    auditor = world.create_desk("XC", Authority.SECRETARIAT, officers=1)
    policy = Policy(auditors_file=(auditor,), auditors_lead=(auditor,))
    sender, receiver = (
        world.create_desk(code, Authority.PROSECUTION, policy=policy, officers=1)
        for code in _STATES[:2]
    )
    return world, world.active(sender)[0], receiver, auditor


def _members(world: World, desks: Sequence[DeskId]) -> tuple[Member, ...]:
    return tuple(world.active(desk)[0] for desk in desks)


def _statement_rows(world: World, at: int) -> tuple[StatementRow, ...]:
    (_, genesis), *others = world.statements
    key = world.relay_key
    rows = [genesis_row(genesis, sign_promise(key, Promise(genesis.hash, at)), at)]
    for _, signed in others:
        desk = world.directory.desks[parse_statement(signed.payload).link.desk]
        # Every desk is in its first epoch, so its newest state tells the epoch of any box.
        promise = sign_promise(key, Promise(signed.hash, at))
        rows.append(statement_row(signed, desk, promise, at))
    return tuple(rows)


def _note(world: World, at: int) -> bytes:
    frontier = Frontier().extend(
        leaf_hash(statement_leaf(signed.payload)) for _, signed in world.statements
    )
    note = sign_checkpoint(
        origin=world.genesis.origin, size=frontier.size, root=frontier.root, key=world.log_key
    )
    keys = world.witness_keys.items()
    return add_signatures(note, [cosign(note, name, key, at) for name, key in keys])
