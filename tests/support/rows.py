"""Rows for tests of the store, the same on every run, and databases to put them into."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Executable, create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from comity_protocol.leaves import (
    CounterProof,
    commit_counters,
    counter_blind,
    envelope_leaf,
)
from comity_protocol.merkle import Frontier, leaf_hash
from comity_server.store import (
    Accepted,
    EnvelopeRow,
    MailboxItem,
    NoticeRow,
    ReceiptRow,
    Recipient,
    StatementRow,
    Store,
)
from comity_server.stores import open_store


def name(*parts: object) -> bytes:
    """A 32-byte name that is the same on every run."""
    return sha256(repr(parts).encode()).digest()


ALPHA, BETA, GAMMA, AUDITOR = (name("desk", n)[:16] for n in range(4))


def recipient(desk: bytes, *, kind: int = 0, wrap: bytes | None = b"wrap") -> Recipient:
    return Recipient(desk, epoch=7, kind=kind, wrap=wrap and wrap + desk)


def envelope(
    number: int,
    *,
    sender: bytes = ALPHA,
    to: Sequence[Recipient] = (recipient(ALPHA), recipient(BETA)),
    body: bytes = b"body",
    ref: bytes | None = None,
) -> EnvelopeRow:
    core = b"core %d" % number
    return EnvelopeRow(
        id=name("envelope", number)[:16],
        core_hash=sha256(core).digest(),
        core=core,
        signature=bytes(64),
        body=body,
        audit=b"audit",
        sender_desk=sender,
        sender_device=name("device")[:16],
        recipients=tuple(to),
        accepted_at=1_800_000_000 + number,
        promise=b"promise %d" % number,
        blind=name("blind", number)[:16],
        ref=ref,
    )


def receipt(
    number: int, *, sender: bytes = ALPHA, ids: Sequence[bytes] = (bytes(16),)
) -> ReceiptRow:
    payload = b"receipt %d" % number
    return ReceiptRow(
        hash=name("receipt", number),
        payload=payload,
        signature=bytes(64),
        desk=BETA,
        sender_desk=sender,
        envelope_ids=tuple(ids),
        accepted_at=1_800_000_000,
        promise=b"promise",
    )


def leaf(row: EnvelopeRow, *counters: int) -> bytes:
    """The log entry of an envelope that got these counters."""
    return envelope_leaf(row.core_hash, commitments(row, *counters))


def proof(row: EnvelopeRow, *counters: int, position: int = 0) -> CounterProof:
    """What one recipient of an envelope is given."""
    hidden = list(commitments(row, *counters))
    del hidden[position]
    return CounterProof(counter_blind(row.blind, row.recipients[position].desk), tuple(hidden))


def commitments(row: EnvelopeRow, *counters: int) -> tuple[bytes, ...]:
    return commit_counters([to.desk for to in row.recipients], counters, row.blind)


def statement(number: int, *, desk: bytes | None = ALPHA) -> StatementRow:
    payload = b"statement %d" % number
    return StatementRow(
        hash=name("statement", number),
        payload=payload,
        signatures=b"signatures",
        kind="removal",
        desk=desk,
        accepted_at=1_800_000_000,
        promise=b"promise",
    )


@dataclass(frozen=True, slots=True)
class Place:
    """A database of this test's own, which any number of stores may open."""

    url: str

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    @asynccontextmanager
    async def opened(self, count: int = 1) -> AsyncIterator[list[Store]]:
        stores = [open_store(self.url) for _ in range(count)]
        async with AsyncExitStack() as stack:
            for store in stores:
                stack.push_async_callback(store.close)
            await asyncio.gather(*(store.open() for store in stores))
            yield stores

    async def execute(self, *queries: Executable) -> None:
        """Change the database behind the store's back."""
        if self.is_sqlite:
            with create_engine(self.url, isolation_level="AUTOCOMMIT").connect() as connection:
                for query in queries:
                    connection.execute(query)
            connection.engine.dispose()
        else:
            engine = create_async_engine(self.url, isolation_level="AUTOCOMMIT")
            async with engine.connect() as session:
                for query in queries:
                    await session.execute(query)
            await engine.dispose()

    async def change_setting(self, setting: str, value: str) -> None:
        """Set a PostgreSQL setting for all sessions that begin later."""
        name = make_url(self.url).database
        await self.execute(text(f"ALTER DATABASE {name} SET {setting} = {value}"))


async def accept(
    store: Store,
    *rows: EnvelopeRow,
    receipts: Sequence[ReceiptRow] = (),
    statements: int = 0,
    integrate: bool = True,
) -> Accepted:
    return await store.accept(rows, receipts, statements=statements, integrate=integrate)


async def integrate_all(store: Store) -> list[Accepted]:
    done: list[Accepted] = []
    while (step := await store.integrate()).integrated or step.parked:
        done.append(step)
        assert len(done) < 1_000
    return done


async def whole_mailbox(store: Store, desk: bytes) -> list[MailboxItem]:
    items: list[MailboxItem] = []
    while page := await store.mailbox(desk, items[-1].counter if items else 0, 100):
        items += page
        assert len(items) < 10_000
    return items


async def all_leaves(store: Store) -> list[bytes]:
    return await store.leaves(0, (await store.head()).size + 1)


def frontier_of(leaves: Sequence[bytes]) -> Frontier:
    return Frontier().extend(leaf_hash(leaf) for leaf in leaves)


def notice(
    number: int,
    kind: str,
    *about: EnvelopeRow,
    desk: bytes | None = BETA,
    readers: Sequence[bytes] = (ALPHA, BETA),
) -> NoticeRow:
    payload = b"notice %d" % number
    return NoticeRow(
        hash=name("notice", number),
        payload=payload,
        signature=bytes(64),
        kind=kind,
        desk=desk,
        envelope_ids=tuple(row.id for row in about),
        readers=tuple(readers),
        accepted_at=1_800_000_000,
        promise=b"promise %d" % number,
    )
