"""What a hostile operator could try, done for real: one byte of one log entry is altered.

The relay's own database is opened and written to while the relay runs. Then a desk reads the log
again, from the relay, against the checkpoint that the witnesses signed before.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from comity_client.state import Newest
from comity_client.tiles import LogReader
from comity_client.transport import RelayClient
from comity_protocol.errors import VerificationError
from comity_protocol.merkle import TILE_WIDTH


@dataclass(frozen=True, slots=True)
class Tampering:
    """One altered entry and what came of it.

    Attributes:
        leaf_index: The entry.
        caught_by: Who found out; empty when nobody did.
        message: What that desk was told.
    """

    leaf_index: int
    caught_by: str
    message: str


async def tamper(database: Path, url: str, *, index: int, under: Newest, reader: str) -> Tampering:
    """Alter the entry at ``index``, let a desk read the log, and put the entry back.

    Args:
        database: The relay's SQLite file.
        url: The relay's address.
        index: Leaf index of the entry.
        under: A checkpoint that the desk has verified.
        reader: Code of the desk that reads.
    """
    async with RelayClient(url) as client:
        leaf = await _read(client, index, under)
        # As it stands, the entry is proven: what follows is the alteration's doing alone.
        await LogReader(client).verify_leaf(leaf, index, under)
        return await _alter(database, client, leaf=leaf, index=index, under=under, reader=reader)


async def _alter(
    database: Path, client: RelayClient, *, leaf: bytes, index: int, under: Newest, reader: str
) -> Tampering:
    _write(database, index, leaf[:-1] + bytes((leaf[-1] ^ 1,)))
    try:
        await LogReader(client).verify_leaf(await _read(client, index, under), index, under)
    except VerificationError as error:
        return Tampering(index, reader, str(error))
    finally:
        _write(database, index, leaf)
    return Tampering(index, "", "")


async def _read(client: RelayClient, index: int, under: Newest) -> bytes:
    """Read an entry as the relay serves it."""
    tile, place = divmod(index, TILE_WIDTH)
    width = min(TILE_WIDTH, under.size - tile * TILE_WIDTH)
    return (await client.entries(tile, width))[place]


def _write(database: Path, index: int, leaf: bytes) -> None:
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        connection.execute("UPDATE leaves SET data = ? WHERE leaf_index = ?", (leaf, index))
