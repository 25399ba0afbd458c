"""Keeps all entries of the log on disk, and serves them as C2SP tlog-tiles.

When the relay's database is lost, or its operator is gone, the log lives on here. Entries lie one
after the other in one file. What the file holds beyond the last cosignature is cut when it is
opened, whole entries and torn ones alike; what it lacks is fetched again.

Rules:

* [W-6] a mirror holds all entries durably before it cosigns.
"""

import os
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final

from comity_client.files import sync_folder, write_private
from comity_client.witness_rule import Answer
from comity_protocol.checkpoint import Checkpoint, verify_quorum
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import VerificationError
from comity_protocol.genesis import Genesis
from comity_protocol.leaves import LEAF_BYTES
from comity_protocol.limits import MIRROR_STATEMENTS_MAX
from comity_protocol.merkle import (
    HASH_BYTES,
    SIZE_MAX,
    TILE_WIDTH,
    Frontier,
    consistency_proof,
    leaf_hash,
    verify_consistency,
)
from comity_protocol.signed_note import parse_note
from comity_protocol.statements import SignedStatement
from comity_protocol.wire import MEDIA_TYPE

ENTRIES_FILE: Final = "entries"
NOTE_FILE: Final = "checkpoint"

COSIGNED_QUERY: Final = "cosigned"
"""Asks for the checkpoint that this witness cosigned last, published or not."""

LEVEL_MAX: Final = 7
_READ_ENTRIES: Final = 16_384
_STATEMENTS_BYTES_MAX: Final = 4_194_304
_NUMBER_DIGITS_MAX: Final = 19
_GROUP_DIGITS: Final = 3
_LENGTH: Final = LEAF_BYTES.to_bytes(2, "big")
_BYTES: Final = "application/octet-stream"

Statements = Callable[[int, int], Sequence[SignedStatement]]
"""Gives statements in leaf order: how many to leave out, and at most how many."""


class Mirror:
    """The entries of one log, its newest published checkpoint, and what is served of them."""

    def __init__(self, folder: Path, statements: Statements, cosigned: Callable[[], bytes]) -> None:
        """Open the file, or begin it; what it holds counts only after ``keep_only``.

        Args:
            folder: of the mirror alone.
            statements: what was replayed.
            cosigned: gives the checkpoint that was cosigned last, with the log's signature; empty
                before the first.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder: Final = folder
        self._statements: Final = statements
        self._cosigned: Final = cosigned
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
        self._file: Final = os.open(folder / ENTRIES_FILE, flags, 0o600)
        sync_folder(folder)
        self._frontier = Frontier()
        self._levels: dict[int, bytearray] = {}
        self._note = self._read_note()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    @property
    def frontier(self) -> Frontier:
        """Of all entries that it holds."""
        return self._frontier

    def keep_only(self, frontier: Frontier) -> bool:
        """Cut what is beyond a frontier.

        Returns:
            Whether the entries before it are all there and unchanged; else the mirror is empty.
        """
        if frontier.size < self._frontier.size:
            self._frontier = frontier
            for level, hashes in self._levels.items():
                del hashes[(frontier.size >> (8 * level)) * HASH_BYTES :]
        else:
            self._read_up_to(frontier.size)
        if self._frontier != frontier:
            self._frontier = Frontier()
            self._levels.clear()
        os.ftruncate(self._file, self._frontier.size * LEAF_BYTES)
        return self._frontier == frontier

    def append(self, leaves: Sequence[bytes]) -> None:
        """Write entries after the last; they are on the disk after ``sync``."""
        data = memoryview(b"".join(leaves))
        place = self._frontier.size * LEAF_BYTES
        while data:
            written = os.pwrite(self._file, data, place)
            data, place = data[written:], place + written
        self._grow(leaves)

    def sync(self) -> None:
        """Wait until everything appended is on the disk."""
        os.fsync(self._file)

    def take_note(self, note: bytes, genesis: Genesis) -> None:
        """Show a published checkpoint from now on, when it is witnessed and covers what is here.

        Raises:
            ComityError: it has no quorum, or is of another history than the entries here.
        """
        checkpoint = verify_quorum(note, genesis.log, genesis.quorum).checkpoint
        held = self._frontier
        if not self._covered() <= checkpoint.size <= held.size:
            return
        proof = consistency_proof(checkpoint.size, held.size, self.hashes)
        try:
            verify_consistency(checkpoint.size, checkpoint.root, held.size, held.root, proof)
        except VerificationError as error:
            raise VerificationError(
                "published checkpoint is of another history than the entries of this mirror"
            ) from error
        if note != self._note:
            write_private(self._folder / NOTE_FILE, note)
            self._note = note

    # --- What is served --------------------------------------------------------------------------

    def answer(self, path: str, query: str) -> Answer:
        """Answer a request for what is only read.

        Source: C2SP tlog-tiles.
        """
        match path.split("/"):
            case ["", "checkpoint"] if query == COSIGNED_QUERY and self._size_of(self._cosigned()):
                return Answer(HTTPStatus.OK, self._cosigned())
            case ["", "checkpoint"] if self._covered() and not query:
                return Answer(HTTPStatus.OK, self._note)
            case ["", "statements"]:
                return self._answer_statements(query)
            case ["", "tile", "entries", *place] if not query:
                return self._answer_tile(None, place)
            case ["", "tile", level, *place] if not query and _is_number(level):
                return self._answer_tile(int(level), place)
            case _:
                return _nothing()

    def hashes(self, level: int, start: int, count: int) -> tuple[bytes, ...]:
        """Give hashes of a tile level; fewer where the log ends."""
        if level == 0:
            return tuple(map(leaf_hash, self.entries(start, count)))
        held = self._levels.get(level, bytearray())
        data = bytes(held[start * HASH_BYTES : (start + count) * HASH_BYTES])
        return tuple(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))

    def entries(self, start: int, count: int) -> tuple[bytes, ...]:
        """Give entries; fewer where the log ends."""
        count = max(0, min(count, self._frontier.size - start))
        data = os.pread(self._file, count * LEAF_BYTES, start * LEAF_BYTES)
        return _cut(data)

    def _answer_tile(self, level: int | None, place: Sequence[str]) -> Answer:
        found = _tile_of(place)
        if found is None or (level is not None and level > LEVEL_MAX):
            return _nothing()
        index, width = found
        # Served is what a checkpoint covers: a published one, as of every C2SP log, or the one that
        # was cosigned last, which a relay may not have lived to publish.
        complete = max(self._covered(), self._size_of(self._cosigned())) >> (8 * (level or 0))
        if index * TILE_WIDTH + width > complete:
            return _nothing()
        if level is None:
            leaves = self.entries(index * TILE_WIDTH, width)
            return Answer(HTTPStatus.OK, b"".join(_LENGTH + leaf for leaf in leaves), _BYTES)
        hashes = self.hashes(level, index * TILE_WIDTH, width)
        return Answer(HTTPStatus.OK, b"".join(hashes), _BYTES)

    def _answer_statements(self, query: str) -> Answer:
        name, _, skip = (query or "after=0").partition("=")
        if name != "after" or not _is_number(skip):
            return Answer.say(HTTPStatus.BAD_REQUEST, "query is not after and a whole number")
        items: list[Value] = []
        size = 0
        for signed in self._statements(int(skip), MIRROR_STATEMENTS_MAX):
            data = signed.serialize()
            size += len(data)
            if items and size > _STATEMENTS_BYTES_MAX:
                break
            items.append(parse(data))
        return Answer(HTTPStatus.OK, serialize(items), MEDIA_TYPE)

    # --- Below -----------------------------------------------------------------------------------

    def _covered(self) -> int:
        return self._size_of(self._note)

    def _size_of(self, note: bytes) -> int:
        """How many entries a checkpoint covers; 0 while they are not all here."""
        size = Checkpoint.parse(parse_note(note).text).size if note else 0
        return size if size <= self._frontier.size else 0

    def _read_note(self) -> bytes:
        try:
            return (self._folder / NOTE_FILE).read_bytes()
        except FileNotFoundError:
            return b""

    def _read_up_to(self, size: int) -> None:
        """Read and hash what the file has, up to a size."""
        while self._frontier.size < size:
            count = min(_READ_ENTRIES, size - self._frontier.size)
            place = self._frontier.size * LEAF_BYTES
            leaves = _cut(os.pread(self._file, count * LEAF_BYTES, place))
            if not leaves:
                return
            self._grow(leaves)

    def _grow(self, leaves: Sequence[bytes]) -> None:
        growth = self._frontier.grow(map(leaf_hash, leaves))
        for tile in growth.tile_hashes:
            self._levels.setdefault(tile.level, bytearray()).extend(tile.hash)
        self._frontier = growth.frontier


def _cut(data: bytes) -> tuple[bytes, ...]:
    """Cut into whole entries; what is left of a torn one is no entry."""
    whole = len(data) // LEAF_BYTES * LEAF_BYTES
    return tuple(data[at : at + LEAF_BYTES] for at in range(0, whole, LEAF_BYTES))


def _nothing() -> Answer:
    return Answer.say(HTTPStatus.NOT_FOUND, "there is nothing here")


def _is_number(text: str) -> bool:
    is_whole = text.isascii() and text.isdecimal() and len(text) <= _NUMBER_DIGITS_MAX
    return is_whole and int(text) <= SIZE_MAX


def _tile_of(place: Sequence[str]) -> tuple[int, int] | None:
    """Read `x001/x234/067` and, for a partial tile, `.p/W` after it; None when it is neither."""
    *groups, last = place or [""]
    width = TILE_WIDTH
    if groups and groups[-1].endswith(".p"):
        if not _is_number(last) or not 0 < int(last) < TILE_WIDTH or str(int(last)) != last:
            return None
        width, last = int(last), groups.pop().removesuffix(".p")
    digits = [group.removeprefix("x") for group in (*groups, last)]
    if any(len(one) != _GROUP_DIGITS or not _is_number(one) for one in digits):
        return None
    index = int("".join(digits))
    return (index, width) if _tile_path(index) == "/".join((*groups, last)) else None


def _tile_path(index: int) -> str:
    path = f"{index % 1000:03}"
    while index := index // 1000:
        path = f"x{index % 1000:03}/{path}"
    return path
