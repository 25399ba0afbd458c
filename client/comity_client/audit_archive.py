"""The folder of an audited log: plain C2SP tlog-tiles, and what Comity adds in names of its own.

    checkpoint              the newest witnessed checkpoint that the tiles lead to
    tile/L/N, .p/W          hashes, as any C2SP tool reads them
    tile/entries/N, .p/W    entries
    genesis.cbor            signed genesis
    statements.cbor         signed statements, in the order of the log
    checkpoints/SIZE-HASH   other witnessed checkpoints that were published
    anchors/SIZE-HASH       checkpoints with the witnesses' ML-DSA-44 cosignatures
    desk/                   what a member was served: raw answers of the relay
    evidence/               pairs of checkpoints and other proofs of misconduct

A folder may come from somebody else, so names in it are never followed out of it: no name is taken
from a server, and neither links nor anything but plain files are read. What was verified is written
once; the same name with another content is refused.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from comity_client.files import sync_folder
from comity_protocol.errors import ComityError
from comity_protocol.leaves import LEAF_BYTES
from comity_protocol.merkle import HASH_BYTES, TILE_WIDTH

CHECKPOINT: Final = "checkpoint"
GENESIS: Final = "genesis.cbor"
STATEMENTS: Final = "statements.cbor"
CHECKPOINTS: Final = "checkpoints"
ANCHORS: Final = "anchors"
EVIDENCE: Final = "evidence"
DESK: Final = "desk"
ENTRIES: Final = "entries"

LENGTH_BYTES: Final = 2
"""Before each entry of a bundle, its length."""

_GROUP: Final = 1_000
_NAME_MAX: Final = 255
_PART: Final = ".part"


class ArchiveError(ComityError):
    """A folder of an audited log that cannot be used as it is."""

    code: ClassVar[str] = "archive"
    remedy: ClassVar[str] = (
        "look at the file that is named; `comity audit fsck FOLDER` says what else is wrong"
    )


@dataclass(frozen=True, slots=True)
class Tile:
    """One file of the tree.

    Attributes:
        level: Of its hashes, 0 for those of entries; None for a bundle of entries.
        index: From the left.
        width: How many hashes or entries it holds, 256 unless it is the last of its level.
    """

    level: int | None
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Its name as C2SP tlog-tiles gives it."""
        rest = self.index
        groups = [f"{rest % _GROUP:03}"]
        while rest := rest // _GROUP:
            groups.insert(0, f"x{rest % _GROUP:03}")
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        level = ENTRIES if self.level is None else self.level
        return f"tile/{level}/{'/'.join(groups)}{partial}"

    @property
    def byte_size(self) -> int:
        """How long its file is, when the entries are those of Comity."""
        each = LENGTH_BYTES + LEAF_BYTES if self.level is None else HASH_BYTES
        return self.width * each


def tile_at(level: int | None, index: int, size: int) -> Tile:
    """Give a tile of the tree of a size, partial when it is the last one of its level."""
    count = size >> (8 * (level or 0))
    return Tile(level, index, min(TILE_WIDTH, count - index * TILE_WIDTH))


def tiles_of(size: int) -> Iterator[Tile]:
    """Give every tile and bundle of the tree of a size, the highest level first."""
    for level in range(levels_of(size) - 1, -1, -1):
        for index in range(-(-(size >> (8 * level)) // TILE_WIDTH)):
            yield tile_at(level, index, size)
    for index in range(-(-size // TILE_WIDTH)):
        yield tile_at(None, index, size)


def levels_of(size: int) -> int:
    """Give how many levels of tiles a tree of a size has."""
    levels = 0
    while size >> (8 * levels):
        levels += 1
    return levels


class Archive:
    """One folder; everything in it is named by a path relative to it, with slashes."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; it is made with the first file."""
        self.folder: Final = folder
        self._plain: Final[set[str]] = set()

    def read(self, name: str, bytes_max: int) -> bytes | None:
        """Read a file; None when there is none.

        Raises:
            ArchiveError: It is a link, no plain file, or larger than ``bytes_max``.
        """
        try:
            descriptor = os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ArchiveError(f"{name} cannot be read: {error.strerror}") from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise ArchiveError(f"{name or self.folder} is no plain file; refusing to read it")
        with os.fdopen(descriptor, "rb") as file:
            if status.st_size > bytes_max:
                raise ArchiveError(
                    f"{name} is {status.st_size:,} bytes, expected at most {bytes_max:,}"
                )
            return file.read(bytes_max)

    def has(self, name: str, byte_size: int) -> bool:
        """Whether a plain file of exactly so many bytes is there."""
        try:
            status = os.lstat(self._path(name))
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == byte_size

    def put(self, name: str, data: bytes) -> None:
        """Write a verified file once.

        Raises:
            ArchiveError: Another content is there already; neither is changed.
        """
        there = self.read(name, max(len(data), 1))
        if there is not None and there != data:
            raise ArchiveError(f"{name} is there with another content; refusing to overwrite it")
        if there is None:
            self.replace(name, data)

    def replace(self, name: str, data: bytes, *, durably: bool = False) -> None:
        """Write a file, all of it or nothing, over whatever has its name."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + _PART)
        new.unlink(missing_ok=True)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
        with os.fdopen(os.open(new, flags, 0o644), "wb") as file:
            file.write(data)
            if durably:
                file.flush()
                os.fsync(file.fileno())
        new.replace(path)
        if durably:
            sync_folder(path.parent)

    def remove(self, name: str) -> None:
        """Take a file away, and its folder when that held nothing else."""
        path = self._path(name)
        path.unlink(missing_ok=True)
        if path.parent.name.endswith(".p") and not any(path.parent.iterdir()):
            path.parent.rmdir()

    def names(self, folder: str = "") -> Iterator[str]:
        """Give the names of everything below a folder that is no folder itself, sorted.

        Links are given, never followed. What a broken-off write left behind is passed over.
        """
        path = self._path(folder)
        if folder and path.is_symlink():
            yield folder
            return
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self.names(name)
            elif not entry.name.endswith(_PART):
                yield name

    def _path(self, name: str) -> Path:
        """Find a file, with no link on the way to it.

        Raises:
            ArchiveError: A folder on the way is a link, or the name leaves the folder.
        """
        parts = name.split("/") if name else []
        if any(part in ("", ".", "..") or len(part) > _NAME_MAX or "\0" in part for part in parts):
            raise ArchiveError(f"{name!r} is no name inside the folder")
        path = self.folder
        for part in parts[:-1]:
            path /= part
            key = str(path)
            if key in self._plain:
                continue
            if path.is_symlink():
                raise ArchiveError(f"{path} is a link; refusing to follow it out of the folder")
            if path.is_dir():
                self._plain.add(key)
        return path / parts[-1] if parts else path
