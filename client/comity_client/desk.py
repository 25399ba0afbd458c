"""A desk as a program uses it: verbs of the domain over keys, state, relay and rules.

Verbs that speak with the relay are awaited: ``sync``, ``flush``, ``fetch``, ``verify``. All others
work from the disk and without a network: a verb such as ``lead`` seals an act and queues it
durably, and ``flush`` sends what is queued.

Example:
    async with Desk.open(folder, passphrase, now=clock) as desk:
        await desk.sync()
        envelope = desk.lead(counterpart, Draft(text="...", language="en"))
        await desk.flush()
        await desk.fetch()
        for line in desk.inbox():
            print(line.event, desk.read(line.envelope).act)

What it says of an envelope, and what each stage means, is in ``envelopes.py``.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from comity_client.asking import ask
from comity_client.brackets import Times, read_times
from comity_client.census import BUNDLES_MAX, Census, Count
from comity_client.compose import Composed, Composer
from comity_client.dating import Dating
from comity_client.drafts import Draft
from comity_client.envelopes import (
    Line,
    Opened,
    Status,
    UnknownEnvelopeError,
    read_lines,
    read_status,
)
from comity_client.erasing import Erasing, require_there
from comity_client.gossip import Hearsay
from comity_client.inbox import Inbox
from comity_client.keeping import Keeping
from comity_client.keystore import DEFAULT_COST, Cost, DeviceKeys, read_device_keys, write_keys
from comity_client.ledger import (
    Fold,
    find_profile,
    fold,
    queued_steps,
    require,
    stored_steps,
)
from comity_client.mail import Mail
from comity_client.noticed import Kept, kept_notices
from comity_client.notices import Notices
from comity_client.numbers import Numbers
from comity_client.opener import Content, Opener, Parts
from comity_client.outbox import Outbox
from comity_client.profile import KEYS_FILE, STATE_FILE, Profile, read_profile, write_profile
from comity_client.promises import Promises
from comity_client.receipts import Receipts
from comity_client.refill import REPAIRING, Refill
from comity_client.seeds import Seeds
from comity_client.stamps import Ask, Stamped, Stamps
from comity_client.state import Alarm, Newest, State, create_state, open_state
from comity_client.sync import Synchroniser
from comity_client.threads import Threads, read_own_upload
from comity_client.tiles import LogReader
from comity_client.tokens import TokenMaker
from comity_client.transport import RelayClient, RelayRefusedError, Sleep
from comity_protocol.acts import SALT_BYTES, Event
from comity_protocol.audit import AuditRecord
from comity_protocol.core import Core, core_hash
from comity_protocol.directory import Directory
from comity_protocol.envelope import verify_core
from comity_protocol.epochs import EpochSecret
from comity_protocol.errors import ComityError
from comity_protocol.exchange import Exchange, RefusedError, Step, apply
from comity_protocol.genesis import Genesis
from comity_protocol.identifiers import (
    ID_BYTES,
    DeskId,
    EnvelopeId,
    ExchangeId,
    short,
)
from comity_protocol.keys import random_bytes
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.notices import Author, EraseBasis, HoldBasis, Restored
from comity_protocol.notices import Stamped as StampedNotice
from comity_protocol.profiles import PROFILES

Result = TypeVar("Result")

Clock = Callable[[], int]
"""Gives whole seconds since 1970-01-01T00:00:00Z."""


class Desk:
    """One officer's device at its desk. Use as ``async with Desk.open(...) as desk``."""

    def __init__(
        self,
        profile: Profile,
        keys: DeviceKeys,
        state: State,
        *,
        now: Clock,
        sleep: Sleep = asyncio.sleep,
        relay: RelayClient | None = None,
        ask: Ask = ask,
    ) -> None:
        """Put the parts together; ``open`` is the usual way."""
        self.profile: Final = profile
        self.keys: Final = keys
        self.state: Final = state
        self.relay: Final = relay or RelayClient(
            profile.deployment.url, token_maker(profile, keys), sleep=sleep
        )
        self._own: Final = profile.desk
        self._seeds: Final = Seeds(state, keys)
        self._threads: Final = Threads(state, self._seeds)
        self._opener: Final = Opener(self._threads)
        self.log: Final = LogReader(self.relay)
        self._sync: Final = Synchroniser(
            state=state,
            relay=self.relay,
            log=self.log,
            seeds=self._seeds,
            pinned=profile.deployment.genesis_hash,
            own=self._own,
            now=now,
        )
        self._composer: Final = Composer(
            state=state,
            sync=self._sync,
            seeds=self._seeds,
            threads=self._threads,
            opener=self._opener,
            keys=keys,
            own=self._own,
            now=now,
        )
        self._outbox: Final = Outbox(state, self.relay, self._sync, self._composer, now)
        self._keeping: Final = Keeping(state)
        self._census: Final = Census(
            state=state, relay=self.relay, log=self.log, keeping=self._keeping, now=now
        )
        self._promises: Final = Promises(
            state, self._sync, self._census, self._keeping, profile.deployment.id, now
        )
        numbers = Numbers(state, self._sync, self._own, now)
        self._notices: Final = Notices(
            state=state,
            relay=self.relay,
            log=self.log,
            sync=self._sync,
            keeping=self._keeping,
            numbers=numbers,
            keys=keys,
            own=self._own,
            now=now,
        )
        self._stamps: Final = Stamps(state, ask, now)
        self._refill: Final = Refill(state, self.relay, self._keeping, now)
        self._erasing: Final = Erasing(state, self._notices, self._threads, self._own, now)
        self.dating: Final = Dating(state, self.relay, self._sync)
        self._receipts: Final = Receipts(
            state=state,
            relay=self.relay,
            log=self.log,
            sync=self._sync,
            keeping=self._keeping,
            numbers=numbers,
            keys=keys,
            own=self._own,
            now=now,
        )
        self._mail: Final = Mail(
            relay=self.relay,
            log=self.log,
            sync=self._sync,
            inbox=Inbox(state, self._opener, self._own, now),
            hearsay=Hearsay(state, self.log, now),
            own=self._own,
            sleep=sleep,
        )

    @staticmethod
    def create(
        folder: Path,
        profile: Profile,
        keys: DeviceKeys,
        passphrase: str,
        *,
        cost: Cost = DEFAULT_COST,
    ) -> None:
        """Begin a profile in an empty folder: its pins, the key store and an empty memory.

        Raises:
            StateError: The folder has a memory already.
            WeakPassphraseError: The passphrase is too short.
        """
        create_state(folder / STATE_FILE, **_pins(profile)).close()
        write_keys(folder / KEYS_FILE, keys, passphrase, cost)
        # The profile comes last: a folder with a profile has everything else.
        write_profile(folder, profile)

    @classmethod
    def open(
        cls,
        folder: Path,
        unlock: str | DeviceKeys,
        *,
        now: Clock,
        sleep: Sleep = asyncio.sleep,
        relay: RelayClient | None = None,
        ask: Ask = ask,
    ) -> "Desk":
        """Open a profile.

        Args:
            folder: The profile's.
            unlock: The passphrase, or the keys when they are open already.
            now: Gives UTC seconds.
            sleep: Waits; tests pass their own.
            relay: The way to the relay; None for the one of the profile.
            ask: The way to witnesses.

        Raises:
            ProfileError, KeyStoreError, StateError: A file is missing, damaged or another's.
            WrongPassphraseError: The passphrase does not open the keys.
        """
        profile = read_profile(folder)
        keys = read_device_keys(folder / KEYS_FILE, unlock) if isinstance(unlock, str) else unlock
        state = open_state(folder / STATE_FILE, **_pins(profile))
        return cls(profile, keys, state, now=now, sleep=sleep, relay=relay, ask=ask)

    async def __aenter__(self) -> "Desk":
        """Use the desk."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close connections and files."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close connections and files."""
        await self.relay.close()
        self.state.close()

    # --- With the relay -----------------------------------------------------------------------

    async def sync(self) -> Newest:
        """Bring directory and checkpoint up to date; gives the newest verified checkpoint.

        Raises:
            OfflineError, RelayRefusedError: The relay is not there, or refuses.
            LogForkError: The relay shows another past than before; the evidence is kept.
            VerificationError: Something that it serves does not hold.
        """
        # Every command begins here, and a relay that is being repaired refuses this as well.
        await self._refilled(self._sync.run)
        return self._sync.newest

    async def flush(self) -> tuple[Status, ...]:
        """Send what is queued, in order; gives where each envelope is then.

        Raises:
            OfflineError, RelayRefusedError: The relay is not there, or asks to come back; what was
                not sent stays queued.
        """
        try:
            tried = await self._refilled(self._outbox.flush)
        except ComityError:
            # Witnesses are asked just when the relay is away or refuses.
            await self.stamp()
            raise
        await self.stamp()
        await self._state_stamps()
        return tuple(self.status(envelope) for envelope in tried)

    async def fetch(self, *, wait_seconds: int = 0) -> tuple[Line, ...]:
        """Fetch and verify what arrived, and exchange receipts; gives the new lines.

        Args:
            wait_seconds: How long to wait for something when there is nothing, 0 to 30.

        Raises:
            OfflineError, RelayRefusedError, LogForkError, VerificationError: As ``sync``.
        """
        before, held = self._settled(), self._held()
        complete = await self._refilled(lambda: self._mail.fetch(wait_seconds))
        await self._receipts.give()
        await self._notices.flush()
        await self._take()
        await self._refill_restored()
        self._erasing.carry_out(complete.size, held)
        await self._promises.look(complete)
        await self.dating.learn()
        self._refill.ended()
        self._keeping.prune(complete.sealed_at)
        return tuple(line for line in self.inbox() if line.counter not in before)

    async def receive(self) -> None:
        """Fetch and verify what arrived, as ``fetch``, and give nothing: for a folder."""
        await self._mail.fetch(0)
        await self._take()

    async def _take(self) -> None:
        await self._receipts.take()
        await self._notices.fetch()

    # --- Notices ------------------------------------------------------------------------------

    async def stamp(self, envelopes: Sequence[EnvelopeId] | None = None) -> None:
        """Ask witnesses for stamps; works without the relay.

        Args:
            envelopes: Own acts that are not in the log yet; None for those that wait too long.
        """
        if envelopes is None:
            newest = self.state.newest()
            envelopes = self._stamps.due(newest.sealed_at if newest else 0)
        if envelopes:
            current = [self._outbox.current(envelope) for envelope in envelopes]
            await self._stamps.collect(current, self.genesis, self.profile.witnesses)

    def stamped(self, envelope: EnvelopeId) -> tuple[Stamped, ...]:
        """Give what witnesses stamped of an own act, under all its ids, the newest first."""
        return self._stamps.find(self._outbox.current(envelope), self.genesis)

    async def erase(self, exchange: ExchangeId, basis: EraseBasis) -> int:
        """Erase this desk's copies of an exchange; see ``Erasing.erase``."""
        return await self._erasing.erase(exchange, basis)

    async def hold(self, exchange: ExchangeId, basis: HoldBasis) -> int:
        """Keep every desk from erasing an exchange; see ``Erasing.hold``."""
        return await self._erasing.hold(exchange, basis)

    async def release(self, exchange: ExchangeId) -> int:
        """End this desk's hold of an exchange; see ``Erasing.release``."""
        return await self._erasing.release(exchange)

    # --- Acts: sealed and queued --------------------------------------------------------------

    def lead(self, to: DeskId, draft: Draft) -> EnvelopeId:
        """Open an informal exchange with a lead; see ``act`` for what may be refused."""
        return self.begin(to, "lead", draft)

    def request(self, to: DeskId, draft: Draft) -> EnvelopeId:
        """Open a formal exchange with a request for mutual legal assistance, signed."""
        return self.begin(to, "untoc18", draft)

    def begin(self, to: DeskId, profile: str, draft: Draft) -> EnvelopeId:
        """Open an exchange under a procedure; raises as ``act`` does."""
        rules = PROFILES[profile]
        exchange = ExchangeId(random_bytes(ID_BYTES))

        def compose() -> Composed:
            act = draft.act(rules.opens, exchange, random_bytes(SALT_BYTES), profile=profile)
            composed = self._composer.compose(act, to, rules)
            apply(None, self._step(composed))
            return composed

        return self._outbox.add(compose)

    def add(self, exchange: ExchangeId, draft: Draft) -> EnvelopeId:
        """Say more in an informal exchange."""
        return self.act(exchange, Event.LEAD, draft)

    def acknowledge(self, exchange: ExchangeId, draft: Draft) -> EnvelopeId:
        """Confirm to the initiator which authority is competent."""
        return self.act(exchange, Event.ACKNOWLEDGE, draft)

    def consult(self, exchange: ExchangeId, draft: Draft) -> EnvelopeId:
        """Consult the other desk, as is owed before a refusal (UNTOC art. 18(26))."""
        return self.act(exchange, Event.CONSULT, draft)

    def answer(self, exchange: ExchangeId, draft: Draft) -> EnvelopeId:
        """Answer."""
        return self.act(exchange, Event.ANSWER, draft)

    def refuse(self, exchange: ExchangeId, draft: Draft) -> EnvelopeId:
        """Refuse, on a permitted ground and with reasons."""
        return self.act(exchange, Event.REFUSE, draft)

    def close(self, exchange: ExchangeId, draft: Draft) -> EnvelopeId:
        """Close an exchange that was answered or refused."""
        return self.act(exchange, Event.CLOSE, draft)

    def act(self, exchange: ExchangeId, event: Event, draft: Draft) -> EnvelopeId:
        """Act in an exchange: check, seal, and queue durably.

        Raises:
            UnknownExchangeError: This desk does not have the exchange.
            RefusedError: The act is not possible as the exchange stands, queued acts included.
            MalformedError: It does not say what its procedure demands; the message names it.
            StaleCheckpointError: Synchronise first.
            UnknownDeskError, VerificationError: The other desk cannot be sealed to now.
        """

        def compose() -> Composed:
            steps = stored_steps(self.state, self.directory, exchange)
            steps += queued_steps(self.state, self.directory, self._own, exchange)
            current = require(fold(steps).exchanges, exchange)
            if self._own not in (current.initiator, current.responder):
                raise RefusedError("X-3", "this desk is no party of the exchange")
            is_initiator = current.initiator == self._own
            to = current.responder if is_initiator else current.initiator
            act = draft.act(event, exchange, random_bytes(SALT_BYTES), head=current.head)
            composed = self._composer.compose(act, to, current.profile)
            apply(current, self._step(composed))
            return composed

        return self._outbox.add(compose)

    # --- What is known ------------------------------------------------------------------------

    @property
    def directory(self) -> Directory:
        """All desks as far as synchronised; raises NotSynchronisedError before that."""
        return self._sync.directory

    @property
    def genesis(self) -> Genesis:
        """The deployment's genesis; raises as ``directory``."""
        return self.directory.genesis

    @property
    def newest(self) -> Newest:
        """The newest verified checkpoint; raises NotSynchronisedError before there is one."""
        return self._sync.newest

    def secret(self) -> EpochSecret:
        """Give the desk's newest epoch secret, for a ceremony that hands it on.

        Raises:
            NoKeyError: This device was not given it.
        """
        return self._seeds.newest(self.directory.desk(self._own))

    def inbox(self) -> tuple[Line, ...]:
        """Give every envelope that was checked, own ones included, by counter; opens nothing."""
        return read_lines(self.state, self._fold)

    def exchanges(self) -> Sequence[Exchange]:
        """Give every exchange as proven in the log, by the order of opening."""
        return tuple(self._fold().exchanges.values())

    def exchange(self, exchange: ExchangeId) -> Exchange:
        """Give one exchange as proven in the log; raises UnknownExchangeError."""
        steps = stored_steps(self.state, self.directory, exchange)
        return require(fold(steps).exchanges, exchange)

    def read(self, envelope: EnvelopeId) -> Opened:
        """Open an envelope that was received, sent or is queued.

        It is checked again while it is opened, all but its place in the log.

        Raises:
            UnknownEnvelopeError: This device does not have it.
            ComityError: It was refused; the error is the finding.
        """
        envelope = self._outbox.current(envelope)
        require_there(self.state, envelope)
        row = self.state.connection.execute(
            "SELECT core, signature, body, audit, wrap, leaf_index FROM inbox WHERE envelope = ?"
            " AND is_settled = 1 AND (sealed_at IS NOT NULL OR NOT EXISTS"
            " (SELECT 1 FROM outbox WHERE outbox.envelope = inbox.envelope))"
            " ORDER BY sealed_at IS NULL, counter LIMIT 1",
            (envelope,),
        ).fetchone()
        if row is None:
            return self._read_queued(envelope)
        core_bytes, signature, body, audit, wrap, index = row
        # SPEC [E-8]: nothing is opened before its core is verified.
        core = verify_core(core_bytes, signature, self.directory, index=index)
        return self._open(Parts(core=core, body=body, audit=audit, wrap=wrap), index)

    def status(self, envelope: EnvelopeId) -> Status:
        """Say how far an own envelope is proven to have come; raises UnknownEnvelopeError."""
        return read_status(self.state, self._outbox.current(envelope), self._fold)

    async def verify(self, envelope: EnvelopeId) -> Opened:
        """Check everything about an envelope anew: signature, place in the log now, content.

        Raises:
            OfflineError: The log's tiles cannot be fetched.
            UnknownEnvelopeError: It is not here, or not in the log yet.
            ComityError: What does not hold.
        """
        opened = self.read(envelope)
        if opened.leaf_index is None:
            raise UnknownEnvelopeError(f"envelope {short(envelope)} is not in the log yet")
        await self._mail.verify_place(opened.core.id)
        return opened

    def alarms(self) -> tuple[Alarm, ...]:
        """Give what must not have happened, with its evidence."""
        return self.state.alarms()

    async def count_statements(self, bundles: int = BUNDLES_MAX) -> Count:
        """Read the log's entries on from where it last stopped, and count its statements.

        This finds a relay that keeps a statement from this desk, such as a removal. It costs 35
        bytes for each entry of the log, so it is asked for and not done by ``sync``.

        Raises:
            WithheldStatementError: The log has a statement that this desk was not given.
            OfflineError, RelayRefusedError, UnprovenError: The log cannot be read now.
        """
        return await self._census.run(self.newest, bundles)

    def queued(self) -> tuple[Status, ...]:
        """Give every own envelope that is not proven to be in the log, in order of writing."""
        rows = self.state.connection.execute(
            "SELECT envelope FROM outbox WHERE envelope NOT IN"
            " (SELECT envelope FROM inbox WHERE sealed_at IS NOT NULL) ORDER BY id"
        ).fetchall()
        return tuple(self.status(EnvelopeId(row[0])) for row in rows)

    def times(self) -> Mapping[EnvelopeId, Times]:
        """Say when every act was done, as far as it is proven."""
        return read_times(self.state, self.genesis)

    def notices(self) -> tuple[Kept, ...]:
        """Give every verified notice on envelopes of this desk, in leaf order."""
        return kept_notices(self.state)

    # --- Below --------------------------------------------------------------------------------

    async def _refilled(self, do: Callable[[], Awaitable[Result]]) -> Result:
        """Do something; when the relay is being repaired, fill it again first, once."""
        try:
            return await do()
        except RelayRefusedError as error:
            if error.code != REPAIRING:
                raise
            self._refill.begun()
            # SPEC [B-19]: before anything new.
            await self._refill.run(self.genesis.relay_key)
            return await do()

    async def _refill_restored(self) -> None:
        """Ask once what the relay is missing after each restore that it states."""
        for kept in kept_notices(self.state):
            notice = kept.notice
            if isinstance(notice, Restored):
                name = f"restored {notice.incarnation.hex()}"
                if self.state.mark(name) is None:
                    await self._refill.run(self.genesis.relay_key)
                    self.state.set_mark(name, notice.size)

    async def _state_stamps(self) -> None:
        """State what a quorum stamped in the log, once the relay has taken the act."""
        await self._notices.flush()
        for one in self._stamps.to_state(self.genesis):
            with self.state.transaction():
                notice = self._notices.keep((one.envelope,), partial(_stamped, one))
                self._stamps.stated(one.core, notice.what)
            await self._notices.flush()

    def _fold(self) -> Fold:
        return fold(stored_steps(self.state, self.directory))

    def _step(self, composed: Composed) -> Step:
        """Give the step that an act will be, at the end of the log."""
        core = Core.parse(composed.sealed.upload.core)
        act = composed.act
        return Step(
            index=SIZE_MAX,
            envelope=core.id,
            sender=core.sender,
            receiver=core.counterpart,
            authority=self.directory.desk(core.sender).authority,
            kind=core.kind,
            record=AuditRecord(
                event=act.event,
                exchange=act.exchange,
                head=act.head,
                profile=act.profile,
                topic=act.topic,
            ),
        )

    def _open(self, parts: Parts, index: int | None) -> Opened:
        content: Content = self._opener.open(
            parts,
            lambda exchange: find_profile(self.state, exchange),
            self.directory,
            self._own,
        )
        return Opened(
            core=parts.core,
            act=content.act,
            act_bytes=content.act_bytes,
            record=content.record,
            leaf_index=index,
            is_signed=content.is_signed,
        )

    def _read_queued(self, envelope: EnvelopeId) -> Opened:
        row = self.state.connection.execute(
            "SELECT upload FROM outbox WHERE envelope = ?", (envelope,)
        ).fetchone()
        if row is None:
            raise UnknownEnvelopeError(f"envelope {short(envelope)} is not on this device")
        upload, core, wrap = read_own_upload(row[0])
        return self._open(Parts(core=core, body=upload.body, audit=upload.audit, wrap=wrap), None)

    def _held(self) -> frozenset[int]:
        rows = self.state.connection.execute("SELECT counter FROM inbox")
        return frozenset(row[0] for row in rows)

    def _settled(self) -> frozenset[int]:
        rows = self.state.connection.execute("SELECT counter FROM inbox WHERE is_settled = 1")
        return frozenset(row[0] for row in rows)


def _stamped(one: Stamped, author: Author) -> StampedNotice:
    return StampedNotice(author, one.envelope, core_hash(one.core), one.stamps)


def token_maker(profile: Profile, keys: DeviceKeys) -> TokenMaker:
    """Give what signs this device's requests."""
    return TokenMaker(keys.device, profile.deployment.id, keys.fast)


def _pins(profile: Profile) -> dict[str, bytes]:
    return {
        "genesis_hash": profile.deployment.genesis_hash,
        "desk": profile.desk,
        "device": profile.device,
    }
