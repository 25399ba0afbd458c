"""What this desk says: sealed, on the disk before the first network byte, sent until accepted.

    queued ──promise──> accepted ──own copy in the log──> sealed (see the inbox)
      │  └─stale epoch──> sealed again under a new id, in the same transaction, still queued
      └──refused for good──> rejected, with the relay's code

Rules:

* [B-3] An act is on the disk before the first network byte, and sending it again sends the same
  bytes. It is sealed again under a new id only when the relay says that it refused the old one.
* [B-5] A promise is verified and kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from comity_client.compose import Composed, Composer
from comity_client.state import State
from comity_client.sync import Synchroniser
from comity_client.transport import RelayClient, RelayRefusedError
from comity_protocol.core import core_hash
from comity_protocol.envelope import Upload
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.receipts import Signed, verify_promise

QUEUE_MAX: Final = 100_000
RESEALS_MAX: Final = 3
"""Times that one envelope is sealed again in one go; then it waits for the next."""

# With these the relay says that it does not hold the envelope and would take one made anew.
_RESEALED: Final = frozenset(
    {"stale-epoch", "auditor-missing", "unknown-checkpoint", "unknown-reference", "id-taken"}
)
# With these it says that the same bytes may pass later.
_PASSING: Final = frozenset(
    {"quota", "busy", "draining", "timeout", "internal", "not-yet", "use-nonce", "replayed-token"}
    | {"unauthenticated", "not-active", "repairing"}
)


@dataclass(frozen=True, slots=True)
class Queued:
    """An envelope that the relay has not promised yet; ``id`` keeps its place in the queue."""

    id: int
    envelope: EnvelopeId
    upload: bytes


class Outbox:
    """The queue of one device."""

    def __init__(
        self,
        state: State,
        relay: RelayClient,
        sync: Synchroniser,
        composer: Composer,
        now: Callable[[], int],
    ) -> None:
        """Take where it is kept, whom it goes to, what seals anew, and this machine's clock."""
        self._state: Final = state
        self._relay: Final = relay
        self._sync: Final = sync
        self._composer: Final = composer
        self._now: Final = now

    def add(self, compose: Callable[[], Composed]) -> EnvelopeId:
        """Compose an act and put it into the queue, in one transaction, durably.

        Composing happens inside, so that of two programs that act in one exchange at the same time
        the second sees the first.
        """
        with self._state.transaction() as connection:
            made = compose()
            # SPEC [B-3]: an act is on the disk before the first network byte.
            connection.execute(
                "INSERT INTO outbox (queued_at, envelope, upload, core_hash, stage, receiver, kind,"
                " exchange, event, head, profile, topic)"
                " VALUES (?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?)",
                (self._now(), *_sealed_columns(made), *made.columns()),
            )
        return made.sealed.id

    async def flush(self) -> tuple[EnvelopeId, ...]:
        """Send what is queued, in the order of writing.

        Returns:
            The envelopes that were tried, under the ids that they have now.

        Raises:
            OfflineError: The relay is not there; the rest stays queued.
            RelayRefusedError: It asks to come back later; the rest stays queued.
        """
        tried: list[EnvelopeId] = []
        reseals: dict[int, int] = {}
        last = 0
        for _ in range(QUEUE_MAX):
            queued = self._next(last)
            if queued is None:
                break
            try:
                await self._send(queued)
            except RelayRefusedError as error:
                if error.code in _PASSING:
                    raise
                reseals[queued.id] = reseals.get(queued.id, 0) + 1
                if error.code in _RESEALED and reseals[queued.id] <= RESEALS_MAX:
                    await self._seal_again(queued)
                    continue
                self._reject(queued, error.code)
            tried.append(queued.envelope)
            last = queued.id
        return tuple(tried)

    def current(self, envelope: EnvelopeId) -> EnvelopeId:
        """Give the id under which an envelope was sealed last; itself when it never was again."""
        for _ in range(QUEUE_MAX):
            row = self._state.connection.execute(
                "SELECT new FROM replaced WHERE old = ?", (envelope,)
            ).fetchone()
            if row is None:
                break
            envelope = EnvelopeId(row[0])
        return envelope

    def _next(self, after: int) -> Queued | None:
        row = self._state.connection.execute(
            "SELECT id, envelope, upload FROM outbox WHERE stage = 'queued' AND id > ?"
            " ORDER BY id LIMIT 1",
            (after,),
        ).fetchone()
        return None if row is None else Queued(row[0], EnvelopeId(row[1]), row[2])

    async def _send(self, queued: Queued) -> None:
        # SPEC [B-3]: sending it again sends the same bytes.
        signed = await self._relay.post_envelope(queued.upload)
        what = core_hash(Upload.parse(queued.upload).core)
        # SPEC [B-5]: a promise is verified and kept.
        promise = verify_promise(signed, self._sync.directory.genesis.relay_key, what)
        self._accept(queued, signed, promise.at + promise.within)

    def _accept(self, queued: Queued, signed: Signed, due_at: int) -> None:
        with self._state.transaction() as connection:
            connection.execute(
                "UPDATE outbox SET stage = 'accepted', promise = ?, due_at = ?, problem = NULL"
                " WHERE id = ? AND envelope = ? AND stage = 'queued'",
                (signed.serialize(), due_at, queued.id, queued.envelope),
            )

    def _reject(self, queued: Queued, problem: str) -> None:
        with self._state.transaction() as connection:
            connection.execute(
                "UPDATE outbox SET stage = 'rejected', problem = ?"
                " WHERE id = ? AND envelope = ? AND stage = 'queued'",
                (problem, queued.id, queued.envelope),
            )

    async def _seal_again(self, refused: Queued) -> None:
        """Seal a refused envelope anew, and whatever queued envelope builds on it."""
        await self._sync.run()
        with self._state.transaction() as connection:
            # What builds on it names it as head or refers to its wraps, so it is of its exchange.
            rows = connection.execute(
                "SELECT id, upload FROM outbox WHERE stage = 'queued' AND id >= ?1 AND exchange ="
                " (SELECT exchange FROM outbox WHERE id = ?1) ORDER BY id",
                (refused.id,),
            ).fetchall()
            # All are opened first: once an envelope is replaced, its wraps are gone.
            drafts = [(id_, self._composer.reopen(upload)) for id_, upload in rows]
            new: dict[EnvelopeId, EnvelopeId] = {}
            for id_, draft in drafts:
                if draft.core.id == refused.envelope or draft.builds_on(new):
                    made = self._composer.again(draft, new)
                    new[draft.core.id] = self._replace(id_, draft.core.id, made)

    def _replace(self, id_: int, old: EnvelopeId, made: Composed) -> EnvelopeId:
        """Put a newly sealed envelope at the same place of the queue, inside a transaction."""
        connection = self._state.connection
        connection.execute(
            "UPDATE outbox SET envelope = ?, upload = ?, core_hash = ?, receiver = ?, kind = ?,"
            " exchange = ?, event = ?, head = ?, profile = ?, topic = ? WHERE id = ?",
            (*_sealed_columns(made), *made.columns(), id_),
        )
        connection.execute("INSERT INTO replaced VALUES (?, ?)", (old, made.sealed.id))
        return made.sealed.id


def _sealed_columns(made: Composed) -> tuple[bytes, bytes, bytes]:
    """Give id, upload and core hash."""
    upload = made.sealed.upload
    return made.sealed.id, upload.serialize(), core_hash(upload.core)
