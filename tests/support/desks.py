"""Desks of a world as the client library runs them, each in a folder of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from comity_client.desk import Desk, token_maker
from comity_client.drafts import Draft, DraftHandling, DraftItem, DraftPerson
from comity_client.keystore import DeviceKeys
from comity_client.profile import STATE_FILE, Deployment, Profile, read_profile, write_profile
from comity_client.relay_answers import (
    PAGE_ENVELOPES,
    PAGE_STATEMENTS,
    Arrived,
    Boxes,
    ReceiptItem,
    StatementPage,
)
from comity_client.state import create_state
from comity_client.tokens import TokenMaker
from comity_client.transport import RelayClient
from comity_protocol.receipts import Signed
from support.world import Member, World

Answer = TypeVar("Answer")

LEAD = Draft(text="a vehicle was seen at the border", language="en", offences=("TIP",))

REQUEST = Draft(
    reference="XA-2026-0001",
    language="en",
    basis=("UNTOC18",),
    offences=("TIP",),
    urgency="U3",
    urgency_reason="LIFE",
    authority="Office of the Prosecutor of XA",
    proceeding="investigation 1/26, trafficking in persons, public prosecutor",
    facts="two women were moved across the border in March",
    items=(DraftItem("M05", "search of the flat"),),
    persons=(DraftPerson("VICTIM", "unknown"),),
    purpose="evidence in investigation 1/26",
    victims=2,
    children="NO",
    handling=DraftHandling("THIS_INVESTIGATION", "YES", "AUTHORITY"),
)


def enrol(folder: Path, world: World, member: Member, url: str) -> Path:
    """Make the profile of a member of the world, without a key store, which is slow."""
    genesis_hash = world.statements[0][1].hash
    write_profile(folder, Profile(Deployment(url, genesis_hash), member.desk, member.id))
    create_state(
        folder / STATE_FILE, genesis_hash=genesis_hash, desk=member.desk, device=member.id
    ).close()
    return folder


class Meddler(RelayClient):
    """A relay that lies where a test tells it to; else the real one.

    Each attribute that is set changes the answer of the method of its name.
    """

    def __init__(self, url: str, maker: TokenMaker) -> None:
        super().__init__(url, maker)
        self.on_mailbox: Callable[[list[Arrived]], list[Arrived]] = _as_is
        self.on_statements: Callable[[StatementPage], StatementPage] = _as_is
        self.on_receipts: Callable[[list[ReceiptItem]], list[ReceiptItem]] = _as_is
        self.on_boxes: Callable[[Boxes], Boxes] = _as_is
        self.on_tile: Callable[[tuple[bytes, ...]], tuple[bytes, ...]] = _as_is
        self.on_entries: Callable[[tuple[bytes, ...]], tuple[bytes, ...]] = _as_is
        self.instead_of_tile: Callable[[int], tuple[bytes, ...]] | None = None
        self.on_post: Callable[[bytes], Signed | None] = lambda _: None
        self.after_post: Callable[[Signed], Signed] = _as_is

    async def mailbox(
        self, after: int, *, limit: int = PAGE_ENVELOPES, wait: int = 0
    ) -> tuple[Arrived, ...]:
        page = await super().mailbox(after, limit=limit, wait=wait)
        return tuple(self.on_mailbox(list(page)))

    async def statements(self, after: int, limit: int = PAGE_STATEMENTS) -> StatementPage:
        return self.on_statements(await super().statements(after, limit))

    async def receipts(
        self, after: int, *, limit: int = PAGE_ENVELOPES, wait: int = 0
    ) -> tuple[ReceiptItem, ...]:
        page = await super().receipts(after, limit=limit, wait=wait)
        return tuple(self.on_receipts(list(page)))

    async def boxes(self) -> Boxes:
        return self.on_boxes(await super().boxes())

    async def tile(self, level: int, index: int, width: int) -> tuple[bytes, ...]:
        if self.instead_of_tile is not None:
            return self.instead_of_tile(width)
        return self.on_tile(await super().tile(level, index, width))

    async def entries(self, index: int, width: int) -> tuple[bytes, ...]:
        return self.on_entries(await super().entries(index, width))

    async def post_envelope(self, upload: bytes) -> Signed:
        answer = self.on_post(upload)
        return answer or self.after_post(await super().post_envelope(upload))


def open_desk(folder: Path, member: Member, now: Callable[[], float]) -> tuple[Desk, Meddler]:
    """Open an enrolled member's desk, and the relay as it sees it."""
    keys = DeviceKeys(member.fast, member.full, member.seal)
    profile = read_profile(folder)
    relay = Meddler(profile.deployment.url, token_maker(profile, keys))
    return Desk.open(folder, keys, now=lambda: int(now()), relay=relay), relay


def _as_is(answer: Answer) -> Answer:
    return answer
