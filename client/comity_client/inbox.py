"""The mailbox as it is kept: every envelope as it came, and what was found when it was checked.

An envelope is stored before it is checked, and checked once. One that fails is kept with the rule
that it breaks and never blocks the next.

Rules:

* [B-1] Nothing received is shown before it is verified: its core, its place in a witnessed
  checkpoint, its wrap, its content, its signature, and what the auditors were told.
* [B-2] Counters are gapless; a gap or a repeated counter is an alarm; an envelope has one effect.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from comity_client.ledger import find_profile
from comity_client.opener import Content, Opener, Parts
from comity_client.relay_answers import Arrived
from comity_client.state import Newest, State
from comity_protocol.acts import Gossip
from comity_protocol.core import Core, core_hash
from comity_protocol.directory import Directory
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import ComityError, VerificationError
from comity_protocol.identifiers import DeskId, EnvelopeId, short
from comity_protocol.leaves import CounterProof

AGAIN_TIMES_MAX: Final = 5
"""Times that an envelope which was refused unproven is fetched again."""

_RULE: Final = re.compile(r"\[([A-Z]-[0-9]+)\]$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An envelope out of the inbox that is not checked yet."""

    counter: int
    leaf_index: int
    core: bytes
    signature: bytes
    body: bytes | None
    audit: bytes
    wrap: bytes | None
    proof: CounterProof


@dataclass(frozen=True, slots=True)
class Checked:
    """An envelope whose sender and place in the log were checked.

    Attributes:
        core: None when it is not by whom it claims.
        error: What does not hold; None when both do.
    """

    stored: Stored
    core: Core | None
    error: ComityError | None


class Inbox:
    """Keeps and checks what arrives for one desk."""

    def __init__(self, state: State, opener: Opener, own: DeskId, now: Callable[[], int]) -> None:
        """Take where it is kept and what opens it."""
        self._state: Final = state
        self._opener: Final = opener
        self._own: Final = own
        self._now: Final = now
        self._device: Final = state.device

    @property
    def proven(self) -> int:
        """The highest counter whose envelope is proven to be in the log; 0 when none is.

        The mailbox is read on from here, so that nothing that a relay invents moves the place.
        """
        row = self._state.connection.execute(
            "SELECT max(counter) FROM inbox WHERE sealed_at IS NOT NULL"
        ).fetchone()
        return row[0] or 0

    def store(self, items: Sequence[Arrived], after: int) -> int:
        """Store a page as it came, in one transaction; give how many are new.

        Args:
            items: The page.
            after: The counter after which it was asked for.
        """
        new, last = 0, after
        with self._state.transaction():
            for item in items:
                # SPEC [B-2]: a gap or a repeated counter is an alarm.
                if item.counter <= last:
                    self._alarm("repeat", f"relay gave counter {item.counter} again", item)
                    continue
                new += self._store(item, last)
                last = item.counter
        return new

    def _store(self, item: Arrived, last: int) -> bool:
        known = self._state.connection.execute(
            "SELECT sealed_at IS NOT NULL, leaf_index, core, signature, body, audit, wrap, proof"
            " FROM inbox WHERE counter = ?",
            (item.counter,),
        ).fetchone()
        if known is None:
            if item.counter > last + 1:
                text = f"relay left out counter {last + 1} before {item.counter}"
                self._alarm("gap", text, item)
        else:
            is_proven, *parts = known
            if parts == _parts(item):
                return False
            self._alarm("repeat", f"relay gave counter {item.counter} again as another", item)
            if is_proven:
                return False
        self._state.connection.execute(
            "INSERT OR REPLACE INTO inbox (counter, leaf_index, core, signature, body, audit, wrap,"
            " proof) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (item.counter, *_parts(item)),
        )
        return True

    def doubtful(self, limit: int) -> tuple[int, ...]:
        """Give counters of envelopes that were refused before they were proven to be in the log.

        The relay may have served them wrongly once; each is given a few times and then left.
        """
        rows = self._state.connection.execute(
            "SELECT counter FROM inbox WHERE is_settled = 1 AND sealed_at IS NULL AND again < ?"
            " AND counter < ? ORDER BY again, counter LIMIT ?",
            (AGAIN_TIMES_MAX, self.proven, limit),
        )
        return tuple(row[0] for row in rows)

    def store_again(self, items: Sequence[Arrived], counter: int) -> None:
        """Store what the relay gives now for a doubtful counter, to be checked anew."""
        with self._state.transaction() as connection:
            again = connection.execute(
                "SELECT again FROM inbox WHERE counter = ?", (counter,)
            ).fetchone()[0]
            for item in items:
                if item.counter == counter:
                    self._store(item, counter - 1)
            connection.execute("UPDATE inbox SET again = ? WHERE counter = ?", (again + 1, counter))

    def unsettled_bytes(self) -> int:
        """Give how much is stored that is not checked yet."""
        row = self._state.connection.execute(
            "SELECT coalesce(sum(coalesce(length(body), 0) + length(core) + length(audit)), 0)"
            " FROM inbox WHERE is_settled = 0"
        ).fetchone()
        return int(row[0])

    def unsettled(self, below: int, limit: int) -> tuple[Stored, ...]:
        """Give envelopes that are not checked yet and lie below a leaf index, by counter."""
        rows = self._state.connection.execute(
            "SELECT counter, leaf_index, core, signature, body, audit, wrap, proof FROM inbox"
            " WHERE is_settled = 0 AND leaf_index < ? ORDER BY counter LIMIT ?",
            (below, limit),
        )
        return tuple(_stored(row) for row in rows)

    def find(self, envelope: EnvelopeId) -> Stored:
        """Give a checked envelope as it was stored.

        Raises:
            VerificationError: There is none of this id that was proven to be in the log.
        """
        row = self._state.connection.execute(
            "SELECT counter, leaf_index, core, signature, body, audit, wrap, proof FROM inbox"
            " WHERE envelope = ? AND sealed_at IS NOT NULL ORDER BY counter LIMIT 1",
            (envelope,),
        ).fetchone()
        if row is None:
            raise VerificationError(f"envelope {short(envelope)} was not proven to be in the log")
        return _stored(row)

    def has_unsettled(self) -> bool:
        """Whether something is stored that is not checked yet."""
        row = self._state.connection.execute(
            "SELECT 1 FROM inbox WHERE is_settled = 0 LIMIT 1"
        ).fetchone()
        return row is not None

    def settle(
        self,
        rows: Sequence[Checked],
        directory: Directory,
        under: Newest,
    ) -> tuple[Gossip, ...]:
        """Check envelopes and keep what was found, in one transaction.

        Args:
            rows: By counter.
            directory: Folded up to the checkpoint.
            under: The checkpoint that covers them.

        Returns:
            The checkpoints that their senders had seen, each once.
        """
        gossips: dict[Gossip, None] = {}
        with self._state.transaction():
            for row in rows:
                gossip = self._settle(row, directory, under)
                if gossip is not None:
                    gossips[gossip] = None
        return tuple(gossips)

    def _settle(self, row: Checked, directory: Directory, under: Newest) -> Gossip | None:
        stored, refused = row.stored, row.error
        content: Content | None = None
        sealed_at: int | None = None
        # SPEC [B-1]: nothing is opened before its sender and its place were verified.
        if row.core is not None and refused is None:
            try:
                self._require_first(row.core, stored)
                self._require_own(row.core, stored)
                sealed_at = under.sealed_at
                content = self._open(row.core, stored, directory)
            except ComityError as error:
                refused = error
        self._keep(stored, row.core, content, sealed_at, refused)
        return content.gossip if content else None

    def _open(self, core: Core, stored: Stored, directory: Directory) -> Content:
        parts = Parts(core=core, body=stored.body, audit=stored.audit, wrap=stored.wrap)
        return self._opener.open(
            parts, lambda exchange: find_profile(self._state, exchange), directory, self._own
        )

    def _require_first(self, core: Core, stored: Stored) -> None:
        found = self._state.connection.execute(
            "SELECT counter FROM inbox WHERE envelope = ? AND counter < ?"
            " AND sealed_at IS NOT NULL",
            (core.id, stored.counter),
        ).fetchone()
        if found is not None:
            # SPEC [B-2]: an envelope has one effect.
            text = f"envelope {short(core.id)} is in the mailbox twice"
            evidence: list[Value] = [found[0], stored.counter, stored.core]
            self._state.alarm("repeat", text, evidence, self._now())
            raise VerificationError(f"{text} [B-2]")

    def _require_own(self, core: Core, stored: Stored) -> None:
        """Compare an envelope with what this device sent: under its id, and by its keys."""
        row = self._state.connection.execute(
            "SELECT core_hash FROM outbox WHERE envelope = ?", (core.id,)
        ).fetchone()
        if row is not None and row[0] != core_hash(stored.core):
            # SPEC [B-5]: sealed is said only of what a checkpoint covers, so another's envelope
            # must not stand for an own one that a relay dropped.
            text = f"envelope {short(core.id)} came under the id of one that this device wrote"
            self._state.alarm("repeat", text, [stored.counter, stored.core], self._now())
            raise VerificationError(f"{text} [B-5]")
        if row is None and core.device == self._device and not self._was_replaced(core.id):
            text = (
                f"envelope {short(core.id)} was sent with this device's keys and not by this"
                " profile: it was copied or restored, or somebody has its keys"
            )
            self._state.alarm("clone", text, [stored.counter, stored.core], self._now())

    def _was_replaced(self, envelope: EnvelopeId) -> bool:
        row = self._state.connection.execute(
            "SELECT 1 FROM replaced WHERE old = ?", (envelope,)
        ).fetchone()
        return row is not None

    def _keep(
        self,
        stored: Stored,
        core: Core | None,
        content: Content | None,
        sealed_at: int | None,
        refused: ComityError | None,
    ) -> None:
        record = content.record if content else None
        self._state.connection.execute(
            "UPDATE inbox SET is_settled = 1, envelope = ?, sealed_at = coalesce(sealed_at, ?),"
            " refused = ?, text = ?, opens = ?, sender = ?, receiver = ?, kind = ?, exchange = ?,"
            " event = ?, head = ?, profile = ?, topic = ?, seen_size = ? WHERE counter = ?",
            (
                core.id if core else None,
                sealed_at,
                _rule_of(refused) if refused else None,
                str(refused) if refused else None,
                content is not None,
                core.sender if core else None,
                core.counterpart if core else None,
                int(core.kind) if core else None,
                record.exchange if record else None,
                record.event.value if record else None,
                record.head if record else None,
                record.profile if record else None,
                record.topic if record else None,
                content.gossip.size if content and content.gossip else None,
                stored.counter,
            ),
        )

    def _alarm(self, kind: str, text: str, item: Arrived) -> None:
        evidence: list[Value] = [item.counter, item.leaf_index, item.core, item.signature]
        self._state.alarm(kind, text, evidence, self._now())


def commitments_of(stored: Stored, core: Core, own: DeskId) -> tuple[bytes, ...]:
    """Give what an envelope's log entry must hold besides its core.

    Args:
        stored: The envelope, with the counter that it has in this mailbox.
        core: Its core, verified.
        own: The own desk.

    Raises:
        VerificationError: The desk is not addressed, or the proof is not for these recipients.
    """
    desks = [entry.desk for entry in core.to]
    if own not in desks:
        raise VerificationError("envelope is not addressed to this desk [E-3]")
    # SPEC [L-7]: of the other recipients' counters there are commitments, one for each.
    if len(stored.proof.others) != len(desks) - 1:
        text = f"counter proof has {len(stored.proof.others)} commitments"
        raise VerificationError(f"{text}, expected {len(desks) - 1} [L-7]")
    # SPEC: the leaf commits to the counter of each recipient, so that this envelope cannot
    # be moved to another place of the mailbox.
    return stored.proof.commitments(desks.index(own), own, stored.counter)


def _parts(item: Arrived) -> list[int | bytes | None]:
    return [
        item.leaf_index,
        item.core,
        item.signature,
        item.body,
        item.audit,
        item.wrap,
        serialize(item.proof.to_value()),
    ]


def _rule_of(error: ComityError) -> str:
    """Give the rule that an error names at its end, or the error's code."""
    found = _RULE.search(str(error))
    return found[1] if found else error.code


def _stored(row: tuple[Any, ...]) -> Stored:
    counter, index, core, signature, body, audit, wrap, proof = row
    return Stored(
        counter=counter,
        leaf_index=index,
        core=core,
        signature=signature,
        body=body,
        audit=audit,
        wrap=wrap,
        proof=CounterProof.of(parse(proof)),
    )
