"""Compares what other desks were shown of the log with what this one was shown.

Every body carries the newest checkpoint that its sender had verified, with the log's signature. A
relay that shows different logs to different desks is convicted by the first such body.

Rules:

* [B-17] A fork is alarmed only when what the log signed contradicts itself; a relay that does
  not prove its log is another alarm, and what could not be compared is compared again.
"""

from collections.abc import Callable
from typing import Final

from comity_client.state import Newest, State
from comity_client.tiles import LogReader, UnprovenError
from comity_protocol.acts import Gossip
from comity_protocol.checkpoint import Checkpoint
from comity_protocol.encoding import Value
from comity_protocol.errors import ComityError
from comity_protocol.evidence import Fork
from comity_protocol.genesis import Genesis
from comity_protocol.signed_note import Note, SignatureLine, serialize_note, verify_ed25519

HEARD_MAX: Final = 10_000
"""Checkpoints that are compared in one go; the rest waits for the next time."""


class Hearsay:
    """What senders had seen of the log."""

    def __init__(self, state: State, log: LogReader, now: Callable[[], int]) -> None:
        """Take where it is kept, what proves the log, and this machine's clock."""
        self._state: Final = state
        self._log: Final = log
        self._now: Final = now

    def hear(self, gossip: Gossip, genesis: Genesis) -> None:
        """Keep a checkpoint that a sender names."""
        # Only what the log signed is kept, so that a forgery cannot take the place of the truth.
        try:
            checkpoint = Checkpoint(origin=genesis.origin, size=gossip.size, root=gossip.root)
            verify_ed25519(genesis.log, checkpoint.serialize().encode(), gossip.signature)
        except (ComityError, ValueError):
            text = "a sender names a checkpoint that the log did not sign"
            self._state.alarm("gossip", text, _evidence(gossip), self._now())
            return
        with self._state.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO gossip (size, root, signature) VALUES (?, ?, ?)",
                (gossip.size, gossip.root, gossip.signature),
            )

    async def compare(self, newest: Newest, genesis: Genesis) -> None:
        """Compare what was heard with what this desk was shown, each checkpoint once.

        Raises:
            UnprovenError: The relay does not prove its log now; nothing is said of anybody, and
                what was heard is compared the next time.
        """
        rows = self._state.connection.execute(
            "SELECT size, root, signature FROM gossip WHERE is_checked = 0 AND size <= ?"
            " ORDER BY size LIMIT ?",
            (newest.size, HEARD_MAX),
        ).fetchall()
        for size, root, signature in rows:
            try:
                true_root, proof = await self._log.root_at(size, newest)
            except UnprovenError as error:
                self.doubt(error, newest)
                raise
            # SPEC [B-17]: a fork is alarmed only when what the log signed contradicts itself.
            if true_root != root:
                text = "log signed another past for another desk than for this one"
                fork = Fork(
                    genesis.deployment,
                    _note(Gossip(size, root, signature), genesis),
                    newest.note,
                    () if size == newest.size else (true_root, *proof),
                )
                self._state.alarm("fork", text, fork.serialize(), self._now())
            with self._state.transaction() as connection:
                connection.execute(
                    "UPDATE gossip SET is_checked = 1 WHERE size = ? AND root = ?", (size, root)
                )

    def doubt(self, error: UnprovenError, newest: Newest) -> None:
        """Keep an alarm that the relay does not prove its own log."""
        self._state.alarm("unproven", str(error), [newest.note], self._now())


def _note(gossip: Gossip, genesis: Genesis) -> bytes:
    """Write what a sender named as the note that the log signed."""
    text = Checkpoint(origin=genesis.origin, size=gossip.size, root=gossip.root).serialize()
    line = SignatureLine(genesis.log.name, genesis.log.key_id, gossip.signature)
    return serialize_note(Note(text, (line,)))


def _evidence(gossip: Gossip) -> list[Value]:
    return [gossip.size, gossip.root, gossip.signature]
