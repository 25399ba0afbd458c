"""Makes an act, checks that it may be said, and seals it: what stands before the outbox.

1. The act says what its procedure demands, and is legal where the exchange stands [P-1, X-4].
2. The newest verified checkpoint is fresh enough for every desk that is addressed [B-4].
3. Formal acts are signed by the officer's device; the body gossips the checkpoint [A-1].
4. The projection goes to the auditors of both policies, and to nobody else [U-1, R-9].

Rules:

* [B-4] Nothing is sealed against a checkpoint that is older than the smallest ``fresh_hours`` of
  the desks addressed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from comity_client.keystore import DeviceKeys
from comity_client.ledger import find_profile
from comity_client.opener import Opener, Parts
from comity_client.seeds import Seeds
from comity_client.state import Newest, State
from comity_client.sync import Synchroniser
from comity_client.threads import Threads, read_own_upload
from comity_protocol.acts import Act, Body, Gossip, sign_act
from comity_protocol.audit import project
from comity_protocol.checkpoint import note_hash
from comity_protocol.core import Core, Kind
from comity_protocol.directory import Directory
from comity_protocol.envelope import Address, Sealed, Sender, addresses, seal
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import ID_BYTES, DeskId, EnvelopeId
from comity_protocol.keys import random_bytes
from comity_protocol.profiles import PROFILES, Profile, check_says
from comity_protocol.signed_note import parse_note

_HOUR: Final = 3_600


class StaleCheckpointError(ComityError):
    """The newest verified checkpoint is too old to seal against."""

    code = "stale-checkpoint"
    remedy = (
        "synchronise with the relay and check this computer's clock, then try again: keys may have"
        " changed since"
    )


@dataclass(frozen=True, slots=True)
class Composed:
    """A sealed act and what an auditor may know of it, for the own tables."""

    sealed: Sealed
    act: Act
    receiver: DeskId
    kind: Kind

    def columns(self) -> tuple[bytes | int | str | None, ...]:
        """Give receiver, kind, exchange, event, head, profile and topic."""
        act = self.act
        return (
            self.receiver,
            int(self.kind),
            act.exchange,
            act.event.value,
            act.head,
            act.profile,
            act.topic,
        )


@dataclass(frozen=True, slots=True)
class Reopened:
    """A queued envelope, opened again to be sealed anew."""

    core: Core
    act: Act

    def builds_on(self, replaced: Mapping[EnvelopeId, EnvelopeId]) -> bool:
        """Whether it refers to, or answers, an envelope that was sealed anew."""
        return self.core.ref in replaced or self.act.head in replaced


class Composer:
    """Seals acts for one device."""

    def __init__(
        self,
        *,
        state: State,
        sync: Synchroniser,
        seeds: Seeds,
        threads: Threads,
        opener: Opener,
        keys: DeviceKeys,
        own: DeskId,
        now: Callable[[], int],
    ) -> None:
        """Put the parts together."""
        self._state: Final = state
        self._sync: Final = sync
        self._seeds: Final = seeds
        self._threads: Final = threads
        self._opener: Final = opener
        self._keys: Final = keys
        self._own: Final = own
        self._now: Final = now

    def compose(self, act: Act, to: DeskId, profile: Profile) -> Composed:
        """Check, sign and seal an act; it is legal where the exchange stands.

        Raises:
            MalformedError: It does not say what its procedure demands, or the reader could not
                read it: a code that does not exist, a text that is too long.
            LimitError: It is too long, or has too many codes for one audit record.
            StaleCheckpointError: The directory may be out of date.
            UnknownDeskError, VerificationError: The desk cannot be sealed to now.
            NoKeyError: This device does not hold its own desk's key.
        """
        check_says(act, profile)
        directory, newest = self._sync.directory, self._sync.newest
        addressed = addresses(directory, self._own, to, profile.kind)
        self._require_fresh(addressed, directory, newest)
        data = act.serialize()
        # The reader refuses a field that is no code or too long; the writer can still repair it.
        Act.parse(data)
        signature = None
        if act.event in profile.signed:
            signature = sign_act(
                self._keys.full,
                data,
                deployment=directory.genesis.deployment,
                sender=self._own,
                receiver=to,
            )
        desk = directory.desk(self._own)
        head_key = None if act.head is None else self._threads.audit_key(act.head, desk)
        sealed = seal(
            body=Body(data, signature, self._gossip(newest)).serialize(),
            audit=project(act, head_key).serialize(),
            to=addressed,
            sender=self._sender(directory),
            seen=note_hash(newest.note),
            envelope_id=EnvelopeId(random_bytes(ID_BYTES)),
            thread=self._threads.reusable(act.exchange, addressed, desk),
        )
        return Composed(sealed, act, to, profile.kind)

    def again(self, queued: Reopened, replaced: Mapping[EnvelopeId, EnvelopeId]) -> Composed:
        """Seal the act of a queued envelope anew, under a new id, naming new heads.

        The act keeps its random bytes, so unless its head changed it keeps its own id.
        """
        core, act = queued.core, queued.act
        if act.head is not None:
            act = replace(act, head=replaced.get(act.head, act.head))
        profile = find_profile(self._state, act.exchange) or PROFILES[act.profile or ""]
        for stale in (core.id, core.ref):
            if stale is not None:
                self._threads.forget(stale)
        return self.compose(act, core.counterpart, profile)

    def reopen(self, serialized: bytes) -> Reopened:
        """Open an own queued envelope again."""
        upload, core, wrap = read_own_upload(serialized)
        parts = Parts(core=core, body=upload.body, audit=upload.audit, wrap=wrap)
        return Reopened(core, self._opener.act(parts, self._sync.directory.desk(self._own)))

    def _require_fresh(
        self, addressed: tuple[Address, ...], directory: Directory, newest: Newest
    ) -> None:
        hours = min(directory.desk(entry.desk).policy.fresh_hours for entry in addressed)
        age = self._now() - newest.sealed_at
        # With a clock that is behind, every checkpoint would be fresh.
        if age < -hours * _HOUR:
            raise StaleCheckpointError(
                f"newest checkpoint is {-age // _HOUR} hours ahead of this computer's clock [B-4]"
            )
        # SPEC [B-4]: nothing is sealed against a checkpoint that is older than fresh_hours.
        if age > hours * _HOUR:
            raise StaleCheckpointError(
                f"newest checkpoint is {age // _HOUR} hours old, at most {hours} for these desks"
                " [B-4]"
            )

    def _sender(self, directory: Directory) -> Sender:
        desk = directory.desk(self._own)
        secret = self._seeds.newest(desk)
        return Sender(
            desk=self._own,
            device=self._keys.device,
            seq=desk.seq,
            key=self._keys.fast,
            seeds={Kind.FILE: secret.file, Kind.LEAD: secret.leads[secret.number]},
        )

    def _gossip(self, newest: Newest) -> Gossip:
        line = parse_note(newest.note).line_by(self._sync.directory.genesis.log)
        if line is None:
            raise AssertionError("a verified checkpoint has the log's signature")
        return Gossip(newest.size, newest.root, line.signature)
