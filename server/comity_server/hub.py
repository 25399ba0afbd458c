"""Tells those who wait that something is there for them.

What was just integrated goes to each follower out of memory; whoever is not listening, or cannot
keep up, finds it in the store by counter. A lost ring costs time and never an envelope.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from comity_protocol.encoding import Value, serialize
from comity_protocol.leaves import prove_counter
from comity_server.store import (
    AUDIT_KIND,
    EVERYONE,
    EnvelopeRow,
    MailboxItem,
    NoticeRow,
    ReceiptRow,
    Row,
)
from comity_server.store_values import commitments_of


class Follower(Protocol):
    """A connection that wants what arrives for its desk."""

    def take_item(self, counter: int, frame: bytes) -> None:
        """Take an envelope, as the frame to send, or remember to read from the store."""

    def take_receipt(self, index: int, frame: bytes) -> None:
        """Take a receipt, likewise."""

    def look(self) -> None:
        """Read from the store: other processes may have added something."""

    def forget(self) -> None:
        """Let go of the envelopes in memory and read the store: copies were erased."""

    def recheck(self) -> None:
        """Close if the device is not active any more."""

    def end(self) -> None:
        """Close, because the relay stops."""


class Hub:
    """Followers and waiting requests by desk."""

    def __init__(self) -> None:
        """Start with nobody waiting."""
        self._sessions: Final[set[Follower]] = set()
        self._followers: Final[defaultdict[bytes, set[Follower]]] = defaultdict(set)
        self._bells: Final[defaultdict[bytes, set[asyncio.Event]]] = defaultdict(set)

    def attend(self, session: Follower) -> None:
        """Tell ``session`` of removals and of the end, whether it follows or not."""
        self._sessions.add(session)

    def join(self, desk: bytes, follower: Follower) -> None:
        """Send what arrives for ``desk`` to ``follower`` from now on."""
        self._followers[desk].add(follower)

    def leave(self, desk: bytes, session: Follower) -> None:
        """Tell it nothing any more; harmless when it never joined."""
        self._sessions.discard(session)
        if desk in self._followers:
            self._followers[desk].discard(session)
            if not self._followers[desk]:
                del self._followers[desk]

    @contextmanager
    def bell(self, desk: bytes) -> Iterator[asyncio.Event]:
        """Give a bell that rings with the next arrival; take it before looking into the store."""
        bell = asyncio.Event()
        self._bells[desk].add(bell)
        try:
            yield bell
        finally:
            self._bells[desk].discard(bell)
            if not self._bells[desk]:
                del self._bells[desk]

    def publish(self, rows: Iterable[Row]) -> None:
        """Hand out what was just integrated, in leaf order."""
        for row in rows:
            if isinstance(row, EnvelopeRow):
                self._publish_envelope(row)
            elif isinstance(row, ReceiptRow):
                self._publish_receipt(row)
            elif isinstance(row, NoticeRow):
                for desk in list(self._bells) if EVERYONE in row.readers else row.readers:
                    self._ring(desk)

    def look_again(self) -> None:
        """Let everybody look into the store, because another process has added something."""
        for followers in self._followers.values():
            for follower in followers:
                follower.look()
        for desk in list(self._bells):
            self._ring(desk)

    def forget(self) -> None:
        """Let nobody be given out of memory what was erased."""
        for followers in self._followers.values():
            for follower in followers:
                follower.forget()

    def recheck(self) -> None:
        """Let every session check whether its device is still active."""
        for session in list(self._sessions):
            session.recheck()

    def end(self) -> None:
        """Let every session and every waiting request go, because the relay stops."""
        for session in list(self._sessions):
            session.end()
        for desk in list(self._bells):
            self._ring(desk)

    def _publish_envelope(self, row: EnvelopeRow) -> None:
        if row.leaf_index is None or row.counters is None:
            return
        commitments: tuple[bytes, ...] = ()
        for place, (recipient, counter) in enumerate(
            zip(row.recipients, row.counters, strict=True)
        ):
            self._ring(recipient.desk)
            if followers := self._followers.get(recipient.desk):
                commitments = commitments or commitments_of(row)
                body = None if recipient.kind == AUDIT_KIND else row.body
                frame = item_frame(
                    MailboxItem(
                        counter,
                        row.leaf_index,
                        row.core,
                        row.signature,
                        body,
                        row.audit,
                        recipient.wrap,
                        # SPEC [L-7]: a recipient learns its own mailbox counter and nobody else's.
                        prove_counter(place, recipient.desk, row.blind, commitments),
                    )
                )
                for follower in followers:
                    follower.take_item(counter, frame)

    def _publish_receipt(self, row: ReceiptRow) -> None:
        if row.leaf_index is None:
            return
        for desk in (row.sender_desk, *row.readers):
            self._ring(desk)
            for follower in self._followers.get(desk, ()):
                follower.take_receipt(row.leaf_index, receipt_frame(row))

    def _ring(self, desk: bytes) -> None:
        for bell in self._bells.get(desk, ()):
            bell.set()


def item_frame(item: MailboxItem) -> bytes:
    """Write an envelope as it is pushed."""
    return serialize(["item", *item_values(item)])


def item_values(item: MailboxItem) -> list[Value]:
    """Give an envelope as it stands in a page."""
    return [
        item.counter,
        item.leaf_index,
        item.core,
        item.signature,
        item.body,
        item.audit,
        item.wrap,
        item.proof.to_value(),
    ]


def receipt_frame(row: ReceiptRow) -> bytes:
    """Write a receipt as it is pushed."""
    return serialize(["receipt", *receipt_values(row)])


def receipt_values(row: ReceiptRow) -> list[int | bytes | None]:
    """Give a receipt as it stands in a page."""
    return [row.leaf_index, row.payload, row.signature]
