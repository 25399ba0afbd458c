"""A desk as a program uses it: verbs of the domain over keys, state, relay and rules.

Example:
    async with Desk.open(folder, passphrase, now=clock) as desk:
        await desk.sync()
        envelope = desk.lead(counterpart, Draft(text="...", language="en"))
        await desk.flush()
        for line in desk.inbox():
            print(line.event, desk.read(line.envelope).act)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType

from comity_client.drafts import Draft
from comity_client.keystore import DeviceKeys
from comity_client.profile import Profile
from comity_protocol.acts import Act, Event
from comity_protocol.audit import AuditRecord
from comity_protocol.directory import Directory
from comity_protocol.envelope import Core, Kind
from comity_protocol.exchange import Exchange
from comity_protocol.identifiers import DeskId, EnvelopeId, ExchangeId

Clock = Callable[[], int]
"""Gives whole seconds since 1970-01-01T00:00:00Z."""


class Stage(Enum):
    """How far an envelope is proven to have come."""

    QUEUED = "queued"
    ACCEPTED = "accepted"
    SEALED = "sealed"
    STORED = "stored"
    ACKNOWLEDGED = "acknowledged"
    ANSWERED = "answered"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Stage of one envelope; `broken` when the relay's promise passed without inclusion."""

    envelope: EnvelopeId
    stage: Stage
    leaf_index: int | None
    sealed_at: int | None
    problem: str | None
    broken: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the inbox: what is known of an envelope without opening it.

    `refused` is None, or the rule that the envelope breaks.
    """

    counter: int
    leaf_index: int
    envelope: EnvelopeId
    sender: DeskId
    receiver: DeskId
    exchange: ExchangeId | None
    event: Event | None
    kind: Kind | None
    refused: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An opened envelope; `act` is None for an auditor. Plaintext: never write it to disk."""

    core: Core
    act: Act | None
    record: AuditRecord
    leaf_index: int | None
    is_signed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something that must not happen; its evidence is kept. `kind` is stable: fork, rollback,
    gap, repeat, broken-promise, box, gossip.
    """

    id: int
    kind: str
    text: str
    evidence: bytes
    noticed_at: int


class Desk:
    """One officer's device at its desk."""

    # Published signatures; the bodies follow in the next commits.
    @staticmethod
    def create(folder: Path, profile: Profile, keys: DeviceKeys, passphrase: str) -> None: ...
    @classmethod
    def open(cls, folder: Path, unlock: str | DeviceKeys, *, now: Clock) -> "Desk": ...
    async def __aenter__(self) -> "Desk": ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    profile: Profile
    directory: Directory

    # With the relay
    async def sync(self) -> None: ...
    async def flush(self) -> Sequence[Status]: ...
    async def fetch(self, *, wait_seconds: int = 0) -> Sequence[Line]: ...

    # Locally: seal, write to the outbox, give the envelope's id; `flush` sends
    def lead(self, to: DeskId, draft: Draft) -> EnvelopeId: ...
    def request(self, to: DeskId, draft: Draft) -> EnvelopeId: ...
    def add(self, exchange: ExchangeId, draft: Draft) -> EnvelopeId: ...
    def acknowledge(self, exchange: ExchangeId, draft: Draft) -> EnvelopeId: ...
    def consult(self, exchange: ExchangeId, draft: Draft) -> EnvelopeId: ...
    def answer(self, exchange: ExchangeId, draft: Draft) -> EnvelopeId: ...
    def refuse(self, exchange: ExchangeId, draft: Draft) -> EnvelopeId: ...
    def close(self, exchange: ExchangeId, draft: Draft) -> EnvelopeId: ...
    def act(self, exchange: ExchangeId, event: Event, draft: Draft) -> EnvelopeId: ...

    # Locally: look
    def inbox(self) -> Sequence[Line]: ...
    def exchanges(self) -> Sequence[Exchange]: ...
    def exchange(self, exchange: ExchangeId) -> Exchange: ...
    def read(self, envelope: EnvelopeId) -> Opened: ...
    def status(self, envelope: EnvelopeId) -> Status: ...
    def verify(self, envelope: EnvelopeId) -> Opened: ...
    def alarms(self) -> Sequence[Alarm]: ...
