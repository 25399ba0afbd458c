"""What this device handed over and may be asked for again: sealed, as it was posted.

A relay that lost its database is filled again by its senders. So whatever it promised stays here
until it has been in the log for longer than a relay keeps backups, and goes after that. Envelopes
lie in the outbox; receipts, statements with their boxes, and notices lie here.

Rules:

* [B-14] What the relay promised is kept for ``KEPT_DAYS`` after it was seen in the log, and as long
  as it was not seen there.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from comity_client.state import State
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.leaves import tags_of_promise
from comity_protocol.limits import KEPT_DAYS
from comity_protocol.receipts import Promise, Signed

_DAY: Final = 86_400


class Kind(Enum):
    """What was handed over."""

    ENVELOPE = "envelope"
    RECEIPT = "receipt"
    STATEMENT = "statement"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """One thing as it goes to the relay.

    Attributes:
        tag: By which its entry in the log is known, 32 bytes.
        what: What its promise names, 32 bytes.
        data: The bytes that are posted.
    """

    kind: Kind
    tag: bytes
    what: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Unlogged:
    """Something that the relay promised and that a complete count of the log did not show."""

    kind: Kind
    what: bytes
    promise: bytes


class Keeping:
    """Keeps what was posted. Each method is one transaction."""

    def __init__(self, state: State) -> None:
        """Take the file."""
        self._state: Final = state

    def add(self, posted: Posted) -> None:
        """Keep something before it is posted; the same a second time changes nothing."""
        with self._state.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO kept (tag, what, kind, data) VALUES (?, ?, ?, ?)",
                (posted.tag, posted.what, posted.kind.value, posted.data),
            )

    def drop(self, tag: bytes) -> None:
        """Forget what the relay refused for good."""
        with self._state.transaction() as connection:
            connection.execute("DELETE FROM kept WHERE tag = ? AND promise IS NULL", (tag,))

    def promised(self, tag: bytes, signed: Signed, promise: Promise) -> None:
        """Keep the relay's promise, verified; the first one stays."""
        with self._state.transaction() as connection:
            connection.execute(
                "UPDATE kept SET promise = ?, due_at = ? WHERE tag = ? AND promise IS NULL",
                (signed.serialize(), promise.at + promise.within, tag),
            )

    def unpromised(self, kind: Kind) -> tuple[Posted, ...]:
        """Give what is still to be handed over, in the order in which it was kept."""
        rows = self._state.connection.execute(
            "SELECT tag, what, data FROM kept WHERE kind = ? AND promise IS NULL ORDER BY rowid",
            (kind.value,),
        )
        return tuple(Posted(kind=kind, tag=tag, what=what, data=data) for tag, what, data in rows)

    def seen(self, tags: Iterable[bytes], sealed_at: int) -> None:
        """Mark what was seen in the log under a checkpoint of that sealed time."""
        waiting = self._waiting()
        found = [(sealed_at, waiting[tag]) for tag in tags if tag in waiting]
        with self._state.transaction() as connection:
            for table, column in (("kept", "sealed_at"), ("outbox", "logged_at")):
                connection.executemany(
                    f"UPDATE {table} SET {column} = ? WHERE {column} IS NULL"  # noqa: S608  # constants
                    f" AND {'what' if table == 'kept' else 'core_hash'} = ?",
                    found,
                )

    def _waiting(self) -> dict[bytes, bytes]:
        """Give what was promised and not seen in the log, by its tag."""
        connection = self._state.connection
        kept = connection.execute("SELECT tag, what FROM kept WHERE sealed_at IS NULL")
        sent = connection.execute("SELECT core_hash FROM outbox WHERE logged_at IS NULL")
        return dict(kept.fetchall()) | {envelope_tag(what): what for (what,) in sent}

    def missing(self, tags: Collection[bytes]) -> Iterator[Posted]:
        """Give what is here of what a relay says that it lost, envelopes first."""
        wanted = frozenset(tags)
        for id_, what in self._envelopes():
            tag = envelope_tag(what)
            if tag in wanted:
                yield Posted(kind=Kind.ENVELOPE, tag=tag, what=what, data=self._upload(id_))
        for tag in wanted:
            row = self._state.connection.execute(
                "SELECT what, kind, data FROM kept WHERE tag = ?", (tag,)
            ).fetchone()
            if row is not None:
                what, kind, data = row
                yield Posted(kind=Kind(kind), tag=tag, what=what, data=data)

    def unlogged(self, at: int) -> tuple[Unlogged, ...]:
        """Give what a checkpoint shows to be promised and not logged.

        Args:
            at: Earliest time of the cosignatures of a checkpoint whose entries were all counted.
        """
        rows = self._state.connection.execute(
            "SELECT kind, what, promise FROM kept WHERE sealed_at IS NULL AND due_at < ?",
            (at,),
        )
        return tuple(Unlogged(Kind(kind), what, promise) for kind, what, promise in rows)

    def prune(self, sealed_at: int) -> None:
        """Let go of what has been in the log for long enough.

        Args:
            sealed_at: Of the newest verified checkpoint: the witnesses' clocks, not this machine's.
        """
        # SPEC [B-14]: kept for KEPT_DAYS after it was seen in the log, and longer when it was not.
        before = sealed_at - KEPT_DAYS * _DAY
        with self._state.transaction() as connection:
            connection.execute("DELETE FROM kept WHERE sealed_at < ?", (before,))
            connection.execute(
                "UPDATE outbox SET upload = NULL WHERE upload IS NOT NULL AND stage = 'accepted'"
                " AND envelope IN (SELECT envelope FROM inbox WHERE sealed_at < ?)",
                (before,),
            )

    def _envelopes(self) -> list[tuple[EnvelopeId, bytes]]:
        rows = self._state.connection.execute(
            "SELECT envelope, core_hash FROM outbox WHERE stage = 'accepted'"
            " AND upload IS NOT NULL ORDER BY id"
        )
        return [(EnvelopeId(id_), what) for id_, what in rows]

    def _upload(self, envelope: EnvelopeId) -> bytes:
        row = self._state.connection.execute(
            "SELECT upload FROM outbox WHERE envelope = ?", (envelope,)
        ).fetchone()
        return bytes(row[0])


def envelope_tag(core_hash: bytes) -> bytes:
    """Give the tag of an envelope's entry."""
    _, tag = tags_of_promise(core_hash)
    return tag
