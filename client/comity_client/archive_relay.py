"""A relay that is a folder: what `comity audit fetch --desk` wrote, served as the relay did.

Everything that reads a relay reads this one with the same checks, so that what is computed from a
folder is what was computed from the relay, with the relay switched off.
"""

from collections.abc import Callable, Iterator
from typing import Final, NoReturn, TypeVar

from comity_client.audit_archive import (
    CHECKPOINT,
    CHECKPOINTS,
    DESK,
    GENESIS,
    Archive,
    ArchiveError,
    Tile,
    tile_at,
)
from comity_client.audit_desk import PAGE_BYTES_MAX
from comity_client.audit_statements import read_statements
from comity_client.relay_answers import (
    PAGE_ENVELOPES,
    PAGE_STATEMENTS,
    Arrived,
    Boxes,
    Logged,
    NoticeItem,
    ReceiptItem,
    StatementPage,
    Vacancies,
    parse_entries,
    parse_hashes,
    parse_mailbox,
    parse_notices,
    parse_receipts,
)
from comity_client.transport import OfflineError, RelayClient
from comity_protocol.checkpoint import Checkpoint, verify_quorum
from comity_protocol.errors import VerificationError
from comity_protocol.genesis import Genesis, parse_genesis
from comity_protocol.leaves import is_statement_leaf
from comity_protocol.limits import CHECKPOINTS_PAGE_MAX, NOTE_BYTES_MAX, STATEMENT_BYTES_MAX
from comity_protocol.merkle import TILE_WIDTH, Read, plan_inclusion, prove
from comity_protocol.receipts import Signed
from comity_protocol.statements import SignedStatement

_NOWHERE: Final = "https://archive.invalid"

Item = TypeVar("Item", Arrived, ReceiptItem, NoticeItem)


class ArchiveRelay(RelayClient):
    """Serves a folder; takes nothing."""

    def __init__(self, archive: Archive, boxes: Boxes) -> None:
        """Take the folder, and the device's own boxes, which no folder has."""
        super().__init__(_NOWHERE)
        self._archive: Final = archive
        self._boxes: Final = boxes
        self._logged: list[Logged] | None = None
        self._dated: list[tuple[int, int, bytes]] | None = None

    async def genesis(self) -> SignedStatement:
        """Give the genesis of the folder, to be compared with the pinned hash."""
        return SignedStatement.parse(self._read(GENESIS, 4 * STATEMENT_BYTES_MAX))

    async def statements(self, after: int, limit: int = PAGE_STATEMENTS) -> StatementPage:
        """Give statements with the proofs that the folder's tiles give."""
        if self._logged is None:
            self._logged = list(self._all_statements())
        return StatementPage(self._note(), tuple(self._logged[after : after + limit]))

    async def covering(self, index: int) -> bytes:
        """Give the first checkpoint of the folder that covers a leaf."""
        for size, _, note in self._all_checkpoints():
            if size > index:
                return note
        raise OfflineError(f"the folder has no checkpoint that covers leaf {index}")

    async def checkpoints(self, after: int, skip: int = 0) -> tuple[bytes, ...]:
        """Give the folder's checkpoints as the relay published them."""
        found = [note for size, _, note in self._all_checkpoints() if size > after]
        return tuple(found[skip : skip + CHECKPOINTS_PAGE_MAX])

    async def checkpoint(self) -> bytes:
        """Give the folder's newest checkpoint."""
        return self._note()

    async def tile(self, level: int, index: int, width: int) -> tuple[bytes, ...]:
        """Give hashes of a tile."""
        tile = tile_at(level, index, self._head().size)
        return parse_hashes(self._read(tile.path, tile.byte_size), tile.width)[:width]

    async def entries(self, index: int, width: int) -> tuple[bytes, ...]:
        """Give entries of a bundle."""
        return self._bundle(index)[:width]

    async def boxes(self) -> Boxes:
        """Give the boxes that the device has."""
        return self._boxes

    async def mailbox(
        self, after: int, *, limit: int = PAGE_ENVELOPES, wait: int = 0
    ) -> tuple[Arrived, ...]:
        """Give a page of the mailbox."""
        del wait
        pages = self._pages("mailbox", parse_mailbox)
        return _after(pages, lambda item: item.counter, after, limit)

    async def receipts(
        self, after: int, *, limit: int = PAGE_ENVELOPES, wait: int = 0
    ) -> tuple[ReceiptItem, ...]:
        """Give a page of receipts."""
        del wait
        pages = self._pages("receipts", parse_receipts)
        return _after(pages, lambda item: item.leaf_index, after, limit)

    async def notices(
        self, after: int, *, limit: int = PAGE_ENVELOPES, wait: int = 0
    ) -> tuple[NoticeItem, ...]:
        """Give a page of notices."""
        del wait
        pages = self._pages("notices", parse_notices)
        return _after(pages, lambda item: item.leaf_index, after, limit)

    async def vacancies(self, after: int = -1) -> Vacancies:
        """Miss nothing: a folder is filled by nobody."""
        del after
        return Vacancies(0, 0, frozenset())

    async def post_envelope(self, upload: bytes) -> NoReturn:
        """Take nothing."""
        del upload
        raise OfflineError("a folder takes nothing")

    async def post_receipt(self, signed: Signed) -> NoReturn:
        """Take nothing."""
        del signed
        raise OfflineError("a folder takes nothing")

    async def post_notice(self, signed: Signed) -> NoReturn:
        """Take nothing."""
        del signed
        raise OfflineError("a folder takes nothing")

    # --- Below --------------------------------------------------------------------------------

    def _read(self, name: str, bytes_max: int) -> bytes:
        data = self._archive.read(name, bytes_max)
        if data is None:
            raise ArchiveError(f"the folder has no {name}; fetch it again with --desk")
        return data

    def _note(self) -> bytes:
        return self._read(CHECKPOINT, NOTE_BYTES_MAX)

    def _genesis(self) -> Genesis:
        data = self._read(GENESIS, 4 * STATEMENT_BYTES_MAX)
        return parse_genesis(SignedStatement.parse(data).payload)

    def _head(self) -> Checkpoint:
        genesis = self._genesis()
        return verify_quorum(self._note(), genesis.log, genesis.quorum).checkpoint

    def _bundle(self, index: int) -> tuple[bytes, ...]:
        bundle = tile_at(None, index, self._head().size)
        return parse_entries(self._read(bundle.path, bundle.byte_size), bundle.width)

    def _all_statements(self) -> Iterator[Logged]:
        """Find each statement's place among the entries; what is false in it is found later."""
        size = self._head().size
        places = (
            first * TILE_WIDTH + number
            for first in range(-(-size // TILE_WIDTH))
            for number, entry in enumerate(self._bundle(first))
            if is_statement_leaf(entry)
        )
        signed = read_statements(self._archive) or []
        for ordinal, (index, one) in enumerate(zip(places, signed, strict=False), 1):
            bare = SignedStatement(one.payload, one.signatures, is_bare=True)
            plan = plan_inclusion(index, size)
            hashes = [self._run(read, size) for read in plan.reads]
            yield Logged(ordinal=ordinal, leaf_index=index, signed=bare, proof=prove(plan, hashes))

    def _run(self, read: Read, size: int) -> tuple[bytes, ...]:
        number, first = divmod(read.start, TILE_WIDTH)
        tile: Tile = tile_at(read.level, number, size)
        hashes = parse_hashes(self._read(tile.path, tile.byte_size), tile.width)
        return hashes[first : first + read.count]

    def _all_checkpoints(self) -> list[tuple[int, int, bytes]]:
        """Give (size, sealed time, note) of all that have their quorum, in the relay's order."""
        if self._dated is None:
            genesis, found = self._genesis(), []
            for name in (*self._archive.names(CHECKPOINTS), CHECKPOINT):
                note = self._read(name, NOTE_BYTES_MAX)
                try:
                    witnessed = verify_quorum(note, genesis.log, genesis.quorum)
                except VerificationError:
                    continue
                found.append((witnessed.checkpoint.size, witnessed.sealed_time, note))
            self._dated = sorted(set(found))
        return self._dated

    def _pages(self, folder: str, parse: Callable[[bytes], tuple[Item, ...]]) -> Iterator[Item]:
        for name in self._archive.names(f"{DESK}/{folder}"):
            yield from parse(self._read(name, PAGE_BYTES_MAX))


def _after(
    items: Iterator[Item], place: Callable[[Item], int], after: int, limit: int
) -> tuple[Item, ...]:
    return tuple(item for item in items if place(item) > after)[:limit]
