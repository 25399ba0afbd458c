"""Keeps the directory and the newest checkpoint: everything else is verified against these two.

1. The genesis is the pinned one, and names log, witnesses and quorum.
2. A checkpoint is believed with the log's signature and the witness quorum of that genesis.
3. It continues the newest one that was believed; older or other ones are kept as evidence.
4. Every statement is proven to be in it, without a gap, and is folded in leaf order.
5. The own box of every new epoch is fetched and compared.

Rules:

* [B-6] A checkpoint older than the newest verified one, or inconsistent with it, is refused and
  kept as evidence.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import Final

from comity_client.relay_answers import PAGE_STATEMENTS, Logged, StatementPage
from comity_client.seeds import Seeds
from comity_client.state import Newest, State
from comity_client.tiles import LogReader, UnprovenError
from comity_client.transport import RelayClient
from comity_protocol.checkpoint import note_hash, verify_quorum
from comity_protocol.directory import Directory
from comity_protocol.encoding import Value, serialize
from comity_protocol.errors import ComityError, VerificationError
from comity_protocol.evidence import Fork
from comity_protocol.identifiers import DeskId
from comity_protocol.leaves import statement_leaf
from comity_protocol.merkle import leaf_hash, verify_inclusion
from comity_protocol.statements import SignedStatement, parse_statement

PAGES_MAX: Final = 10_000


class NotSynchronisedError(ComityError):
    """Something was asked of a directory that was never fetched."""

    code = "not-synchronised"
    remedy = "synchronise with the relay once before anything else"


class LogForkError(VerificationError):
    """The relay showed a checkpoint that cannot stand beside the one this device has verified."""

    code = "log-fork"
    remedy = (
        "do not rely on the relay; give the evidence to your administrator, who compares it with"
        " other States' desks and the witnesses"
    )


class NewerCheckpointError(VerificationError):
    """A checkpoint larger than the newest one that was verified; so far it proves nothing."""


class Synchroniser:
    """Directory and checkpoint of one device."""

    def __init__(
        self,
        *,
        state: State,
        relay: RelayClient,
        log: LogReader,
        seeds: Seeds,
        pinned: bytes,
        own: DeskId,
        now: Callable[[], int],
    ) -> None:
        """Load what was verified before; ``pinned`` is the genesis's hash, from enrolment."""
        self._state: Final = state
        self._relay: Final = relay
        self._log: Final = log
        self._seeds: Final = seeds
        self._pinned: Final = pinned
        self._own: Final = own
        self._now: Final = now
        self._directory = self._load()

    @property
    def directory(self) -> Directory:
        """The directory as far as it was synchronised.

        Raises:
            NotSynchronisedError: It never was.
        """
        if self._directory is None:
            raise NotSynchronisedError("the directory was never fetched")
        # Another program may have synchronised this profile meanwhile. Its checkpoint is in the
        # file; beside an older directory it would date mail that this one cannot judge.
        if self._state.last_statement()[1] != self._directory.index:
            self._directory = self._load()
        assert self._directory is not None  # noqa: S101  # the genesis is never deleted
        return self._directory

    @property
    def newest(self) -> Newest:
        """The newest verified checkpoint; raises as ``directory`` does."""
        newest = self._state.newest()
        if newest is None:
            raise NotSynchronisedError("no checkpoint was verified yet")
        return newest

    async def run(self) -> None:
        """Fetch, verify and keep what is new.

        Raises:
            OfflineError, RelayRefusedError: The relay is not there, or refuses.
            LogForkError: It shows another past than before; the evidence is kept.
            VerificationError: A signature, proof or statement does not hold.
        """
        if self._directory is None:
            signed = await self._relay.genesis()
            self._directory = Directory.begin(signed, self._pinned)
            self._state.keep_genesis(signed.serialize())
        believed = self._state.newest()
        for _ in range(PAGES_MAX):
            after, _ = self._state.last_statement()
            page = await self._relay.statements(after)
            believed = await self._believe(page.note, believed)
            is_last = len(page.items) < PAGE_STATEMENTS
            if self._fold(page, believed, after, is_last=is_last) and is_last:
                break
        await self._fetch_boxes()

    async def covering(self, index: int) -> Newest:
        """Give the first checkpoint that covers a leaf, as the relay names it.

        Args:
            index: Leaf index; covered by the newest verified checkpoint.

        Returns:
            The checkpoint, verified. A relay that holds the first one back can only make the leaf
            later, never earlier.

        Raises:
            VerificationError: The relay's note has no quorum, does not cover the leaf, or does
                not belong to the past of the newest verified checkpoint.

        Source: PROTOCOL [L-5], [M-1].
        """
        found = await self.past(await self._relay.covering(index))
        if not index < found.size:
            raise VerificationError(
                f"checkpoint of size {found.size} does not date leaf {index} [M-1]; synchronise"
            )
        return found

    async def past(self, note: bytes) -> Newest:
        """Check a published checkpoint of the past of the newest verified one, and remember it.

        Raises:
            LogForkError: Witnesses signed another past; the evidence is kept.
            NewerCheckpointError: It is of the future; synchronise first.
            UnprovenError: The relay does not prove its log now.
            VerificationError: The note has no quorum.
        """
        newest, genesis = self.newest, self.directory.genesis
        witnessed = verify_quorum(note, genesis.log, genesis.quorum)
        head = witnessed.checkpoint
        if head.size > newest.size:
            raise NewerCheckpointError(
                f"checkpoint of size {head.size} is newer than {newest.size}; synchronise"
            )
        found = Newest(size=head.size, root=head.root, note=note, sealed_at=witnessed.sealed_time)
        root, path = await self._log.root_at(head.size, newest)
        if root != head.root:
            proof = () if head.size == newest.size else (root, *path)
            fork = Fork(genesis.deployment, note, newest.note, proof).serialize()
            raise self._convict("fork", "log signed two pasts", fork, found)
        self._state.keep_dated(note_hash(note), head.size, witnessed.sealed_time)
        return found

    async def _believe(self, note: bytes, known: Newest | None) -> Newest:
        genesis = self.directory.genesis
        witnessed = verify_quorum(note, genesis.log, genesis.quorum)
        head = witnessed.checkpoint
        offered = Newest(size=head.size, root=head.root, note=note, sealed_at=witnessed.sealed_time)
        if known is None:
            return offered
        # SPEC [B-6]: an older or inconsistent checkpoint is refused and kept as evidence.
        if offered.size < known.size:
            evidence: list[Value] = [known.note, offered.note]
            raise self._convict("rollback", "relay showed an older checkpoint", evidence, known)
        try:
            root, path = await self._log.root_at(known.size, offered)
        except UnprovenError as error:
            text = "relay cannot prove that its log continues the one seen before"
            self._state.alarm("unproven", text, [known.note, offered.note], self._now())
            raise UnprovenError(f"{text}: size {offered.size} after {known.size} [B-6]") from error
        # SPEC [B-17]: a fork is alarmed only when what the log signed contradicts itself.
        if root != known.root:
            proof = () if offered.size == known.size else (root, *path)
            fork = Fork(genesis.deployment, known.note, offered.note, proof).serialize()
            raise self._convict("fork", "log signed two pasts", fork, known)
        return offered

    def _convict(
        self, kind: str, text: str, evidence: list[Value] | bytes, known: Newest
    ) -> LogForkError:
        self._state.alarm(kind, text, evidence, self._now())
        return LogForkError(f"{text} after size {known.size}; evidence is kept [B-6]")

    def _fold(self, page: StatementPage, believed: Newest, after: int, *, is_last: bool) -> bool:
        """Fold a page; False when another program folded one first, and this one is to be asked."""
        changed: set[DeskId] = set()
        with self._state.transaction():
            if self._state.last_statement()[0] != after:
                return False
            directory = self.directory
            for number, item in enumerate(page.items, after + 1):
                _check_place(item, number, believed)
                if item.ordinal > 1 or item.signed.hash != self._pinned:
                    directory = directory.apply(item.signed, item.leaf_index)
                    changed.add(parse_statement(item.signed.payload).link.desk)
                self._state.keep_statement(
                    ordinal=item.ordinal,
                    leaf_index=item.leaf_index,
                    payload=item.signed.payload,
                    signatures=serialize([list(pair) for pair in item.signed.signatures]),
                )
            for desk in changed:
                self._state.keep_desk(directory.desk(desk))
            # The checkpoint is kept with the last of its statements: what it covers is judged by
            # a directory that is complete up to there.
            if is_last:
                self._state.keep_newest(believed)
        self._directory = directory
        return True

    async def _fetch_boxes(self) -> None:
        desk = self.directory.desks.get(self._own)
        if desk is None or desk.epoch is None:
            return
        number = desk.epoch.number
        own, previous = self._state.boxes()
        if number in own and len(previous) >= number - 1:
            return
        boxes = await self._relay.boxes()
        # SPEC [B-8]: the own box is opened and compared.
        for epoch, box, problem in self._seeds.take(desk, boxes.own, boxes.previous):
            self._state.alarm("box", problem, [epoch, box], self._now())
        if self._state.boxes() != (own, previous):
            self._state.check_again()

    def _load(self) -> Directory | None:
        signed = self._state.genesis()
        if signed is None:
            return None
        begun = Directory.begin(SignedStatement.parse(signed), self._pinned)
        desks = {desk.id: desk for desk in self._state.desks()}
        devices = {device: desk.id for desk in desks.values() for device in desk.devices}
        _, index = self._state.last_statement()
        return Directory(begun.genesis, MappingProxyType(desks), index, MappingProxyType(devices))


def _check_place(item: Logged, expected: int, under: Newest) -> None:
    if item.ordinal != expected:
        raise VerificationError(
            f"relay gave statement {item.ordinal}, expected {expected}: it leaves one out"
        )
    hashed = leaf_hash(statement_leaf(item.signed.payload))
    verify_inclusion(hashed, item.leaf_index, under.size, under.root, item.proof)
