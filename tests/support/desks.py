"""Desks of a world as the client library runs them, each in a folder of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from comity_client.asking import WitnessSilentError
from comity_client.desk import Desk, token_maker
from comity_client.drafts import Draft, DraftHandling, DraftItem, DraftPerson
from comity_client.keystore import DeviceKeys
from comity_client.profile import STATE_FILE, Deployment, Profile, read_profile, write_profile
from comity_client.relay_answers import (
    PAGE_ENVELOPES,
    PAGE_STATEMENTS,
    Arrived,
    Boxes,
    NoticeItem,
    ReceiptItem,
    StatementPage,
    Vacancies,
)
from comity_client.stamps import Ask
from comity_client.state import create_state
from comity_client.tokens import TokenMaker
from comity_client.transport import RelayClient
from comity_protocol.receipts import Signed
from comity_protocol.stamps import StampRequest, sign_stamp
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


class StampingWitnesses:
    """The witnesses of a world as far as they stamp; each lies or is away where a test says so.

    Attributes:
        skew: Seconds that a witness's clock is ahead.
        away: Witnesses that do not answer.
        strange: Witnesses that stamp another hash than they are asked to.
        asked: What was asked, in order.
    """

    def __init__(self, world: World, now: Callable[[], float]) -> None:
        self._world = world
        self._now = now
        self.skew: dict[str, int] = {}
        self.away: set[str] = set()
        self.strange: set[str] = set()
        self.asked: list[bytes] = []

    @property
    def urls(self) -> tuple[str, ...]:
        """Their addresses."""
        return tuple(f"https://{name}" for name in sorted(self._world.witness_keys))

    async def __call__(self, url: str, body: bytes) -> bytes:
        """Answer a request, as ``asking.ask`` does."""
        name = url.removeprefix("https://").removesuffix("/stamp")
        if name in self.away:
            raise WitnessSilentError("witness is away")
        request = StampRequest.parse(body)
        self.asked.append(request.what)
        what = bytes(32) if name in self.strange else request.what
        at = int(self._now()) + self.skew.get(name, 0)
        key = self._world.witness_keys[name]
        return sign_stamp(key, request.deployment, what, at).serialize()


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
        self.on_notices: Callable[[list[NoticeItem]], list[NoticeItem]] = _as_is
        self.on_post_receipt: Callable[[Signed], Signed | None] = lambda _: None
        self.on_post_notice: Callable[[Signed], Signed | None] = lambda _: None
        self.instead_of_vacancies: Callable[[int], Vacancies] | None = None
        self.posted: list[tuple[str, bytes]] = []

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
        self.posted.append(("envelope", upload))
        answer = self.on_post(upload)
        return answer or self.after_post(await super().post_envelope(upload))

    async def post_receipt(self, signed: Signed) -> Signed:
        answer = self.on_post_receipt(signed)
        self.posted.append(("receipt", signed.serialize()))
        return answer or await super().post_receipt(signed)

    async def post_notice(self, signed: Signed) -> Signed:
        self.posted.append(("notice", signed.serialize()))
        return self.on_post_notice(signed) or await super().post_notice(signed)

    async def notices(
        self, after: int, *, limit: int = PAGE_ENVELOPES, wait: int = 0
    ) -> tuple[NoticeItem, ...]:
        page = await super().notices(after, limit=limit, wait=wait)
        return tuple(self.on_notices(list(page)))

    async def vacancies(self, after: int = -1) -> Vacancies:
        if self.instead_of_vacancies is not None:
            return self.instead_of_vacancies(after)
        return await super().vacancies(after)


async def nobody(url: str, body: bytes) -> bytes:
    """Ask a witness where there is none."""
    del url, body
    raise WitnessSilentError("there are no witnesses here")


def open_desk(
    folder: Path, member: Member, now: Callable[[], float], ask: Ask = nobody
) -> tuple[Desk, Meddler]:
    """Open an enrolled member's desk, and the relay as it sees it."""
    keys = DeviceKeys(member.fast, member.full, member.seal)
    profile = read_profile(folder)
    relay = Meddler(profile.deployment.url, token_maker(profile, keys))
    return Desk.open(folder, keys, now=lambda: int(now()), relay=relay, ask=ask), relay


def _as_is(answer: Answer) -> Answer:
    return answer
