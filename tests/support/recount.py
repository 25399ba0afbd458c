"""Counts a relay again from what it hands out, and holds that against what it has promised.

Nothing in the relay's database is believed or even opened: mailboxes, receipts, statements, log
entries and checkpoints are read over HTTP, as desks and auditors read them.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from comity_protocol.checkpoint import open_checkpoint
from comity_protocol.core import Core, core_hash
from comity_protocol.identifiers import DeskId, EnvelopeId
from comity_protocol.leaves import (
    CounterProof,
    envelope_leaf,
    notice_hash,
    notice_leaf,
    receipt_hash,
    receipt_leaf,
    statement_hash,
    statement_leaf,
)
from comity_protocol.merkle import (
    Frontier,
    consistency_proof,
    leaf_hash,
    node_hash,
    verify_consistency,
)
from comity_protocol.signed_note import VerifierKey
from support.load import Ledger
from support.relay import Answer
from support.world import Member, World

PAGE: Final = 200
_TILE: Final = 256


class Ask(Protocol):
    """Asks the relay, such as `support.relay.Relay`."""

    async def as_device(self, member: Member, method: str, path: str) -> Answer:
        """Send a request with the token of a device."""

    async def ask(self, method: str, path: str) -> Answer:
        """Send a request without a token."""


@dataclass(slots=True)
class Recount:
    """What a relay hands out, read to the end.

    Attributes:
        leaves: What stands at each leaf index according to objects.
        whats: How often each thing that can be promised was found.
        ids: Which envelopes are in whose mailbox.
        envelopes: The leaf index of each envelope.
        wrong: What was found to be wrong, in words.
    """

    leaves: dict[int, bytes] = field(default_factory=dict)
    whats: Counter[bytes] = field(default_factory=Counter)
    ids: set[tuple[DeskId, EnvelopeId]] = field(default_factory=set)
    envelopes: dict[EnvelopeId, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def put(self, index: int, leaf: bytes) -> None:
        """Note the leaf of an object."""
        if self.leaves.setdefault(index, leaf) != leaf:
            self.wrong.append(f"two objects are at leaf {index}")


async def recount(ask: Ask, world: World, readers: Iterable[Member], ledger: Ledger) -> list[str]:
    """Read everything and compare; give what is wrong, in words. Empty when all is well.

    Args:
        ask: With `as_device` and `ask`, such as `support.relay.Relay`.
        world: Whose keys.
        readers: One member of each desk that sent or received.
        ledger: What the relay has promised and shown.
    """
    found = Recount()
    members = list(readers)
    for member in members:
        await _read_mailbox(found, ask, member)
        await _read_receipts(found, ask, member)
        await _read_notices(found, ask, member)
    await _read_statements(found, ask, members[0])
    note = (await ask.ask("GET", "/checkpoint")).body
    log = world.genesis.log
    newest = open_checkpoint(note, log)
    entries = [entry async for entry in _entries(ask, newest.size)]
    _compare_leaves(found, entries)
    _compare_promises(found, ledger)
    _compare_checkpoints(found, entries, {*ledger.notes, note}, log)
    return found.wrong


async def _read_mailbox(found: Recount, ask: Ask, member: Member) -> None:
    after = 0
    while True:
        answer = await ask.as_device(member, "GET", f"/v1/mailbox?after={after}&limit={PAGE}")
        items = answer.value["items"]
        if not items:
            return
        for counter, index, core_bytes, _, _, _, _, proof in items:
            after += 1
            if counter != after:
                found.wrong.append(f"counter {counter} stands where {after} should")
            core = Core.parse(core_bytes)
            position = [entry.desk for entry in core.to].index(member.desk)
            if (member.desk, core.id) in found.ids:
                found.wrong.append(f"envelope {core.id.hex()} is in a mailbox twice")
            found.ids.add((member.desk, core.id))
            if found.envelopes.setdefault(core.id, index) != index:
                found.wrong.append(f"envelope {core.id.hex()} is at two leaves")
            commitments = CounterProof.of(proof).commitments(position, member.desk, counter)
            found.put(index, envelope_leaf(core_hash(core_bytes), commitments))
            found.whats[core_hash(core_bytes)] += 1


async def _read_receipts(found: Recount, ask: Ask, member: Member) -> None:
    after = -1
    while True:
        answer = await ask.as_device(member, "GET", f"/v1/receipts?after={after}&limit={PAGE}")
        items = answer.value["items"]
        if not items:
            return
        for index, payload, _ in items:
            found.put(index, receipt_leaf(payload))
            found.whats[receipt_hash(payload)] += 1
            after = index


async def _read_notices(found: Recount, ask: Ask, member: Member) -> None:
    after = -1
    while True:
        answer = await ask.as_device(member, "GET", f"/v1/notices?after={after}&limit={PAGE}")
        items = answer.value["items"]
        if not items:
            return
        for index, payload, _ in items:
            found.put(index, notice_leaf(payload))
            found.whats[notice_hash(payload)] += 1
            after = index


async def _read_statements(found: Recount, ask: Ask, member: Member) -> None:
    after = 0
    while True:
        answer = await ask.as_device(member, "GET", f"/v1/statements?after={after}&limit={PAGE}")
        items = answer.value["items"]
        if not items:
            return
        for ordinal, index, payload, _, _ in items:
            after += 1
            if ordinal != after:
                found.wrong.append(f"statement {ordinal} stands where {after} should")
            found.put(index, statement_leaf(payload))
            found.whats[statement_hash(payload)] += 1


async def _entries(ask: Ask, size: int) -> AsyncIterator[bytes]:
    for tile in range(-(-size // _TILE)):
        width = min(_TILE, size - tile * _TILE)
        groups = f"{tile % 1000:03}" if tile < 1000 else f"x{tile // 1000:03}/{tile % 1000:03}"
        partial = "" if width == _TILE else f".p/{width}"
        data = (await ask.ask("GET", f"/tile/entries/{groups}{partial}")).body
        at = 0
        for _ in range(width):
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            yield data[at + 2 : end]
            at = end
        assert at == len(data), "an entry bundle is longer than its entries"


def _compare_leaves(found: Recount, entries: Sequence[bytes]) -> None:
    """Every leaf has its object and every object its leaf."""
    for index, entry in enumerate(entries):
        if found.leaves.get(index) != entry:
            found.wrong.append(f"leaf {index} is not what mailboxes and pages give")
    if beyond := [index for index in found.leaves if index >= len(entries)]:
        found.wrong.append(f"{len(beyond)} objects are beyond the newest checkpoint")
    if len(set(entries)) != len(entries):
        found.wrong.append("one leaf is in the log twice")


def _compare_promises(found: Recount, ledger: Ledger) -> None:
    lost = [what for what in ledger.promises if not found.whats[what]]
    if lost:
        found.wrong.append(f"{len(lost)} of {len(ledger.promises)} promised objects are lost")
    for id_, core in ledger.envelopes.items():
        for entry in Core.parse(core).to:
            if (entry.desk, id_) not in found.ids:
                found.wrong.append(f"envelope {id_.hex()} is missing from a mailbox")
    if extra := found.envelopes.keys() - ledger.envelopes.keys():
        found.wrong.append(f"{len(extra)} envelopes are there that nobody sent to the end")


def _compare_checkpoints(
    found: Recount, entries: Sequence[bytes], notes: Iterable[bytes], log: VerifierKey
) -> None:
    """Every checkpoint ever shown is a past of the newest one, by a proof made here."""
    levels = list(_tree([leaf_hash(entry) for entry in entries]))

    def read(level: int, start: int, count: int) -> list[bytes]:
        # Tile level n holds roots of 256**n leaves: every eighth level of the binary tree.
        return levels[8 * level][start : start + count]

    newest = Frontier().extend(levels[0])
    for note in notes:
        shown = open_checkpoint(note, log)
        try:
            proof = consistency_proof(shown.size, newest.size, read) if shown.size else ()
            verify_consistency(shown.size, shown.root, newest.size, newest.root, proof)
        except Exception as error:  # noqa: BLE001 - whatever is wrong is reported with its size
            found.wrong.append(f"checkpoint of size {shown.size} is no past of the last: {error}")


def _tree(hashes: list[bytes]) -> Iterator[list[bytes]]:
    """The levels of complete subtrees, the leaves' first."""
    yield hashes
    for _ in range(63):
        hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes) - 1, 2)]
        yield hashes
