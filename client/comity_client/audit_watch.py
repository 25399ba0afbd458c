"""Watches a log as a monitor: fetches what is new, and says what should make somebody look.

* a fork, with a file that proves it to others;
* a newest checkpoint older than 20 minutes, by this machine's clock against the witnesses';
* a quorum without a spare witness, or a witness that has not cosigned for a day;
* a statement of a desk that is watched, which its office must know of;
* a promise that ran out and is not in the log.

Each alarm is given once until it ends; what proves misconduct stays in the folder.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from comity_client.audit_archive import CHECKPOINTS, EVIDENCE, STATEMENTS, Archive
from comity_client.audit_fetch import Progress, fetch, read_checkpoint, read_genesis
from comity_client.audit_findings import Finding, Kind
from comity_client.audit_source import Source
from comity_client.audit_statements import read_statements
from comity_client.audit_tree import read_entries
from comity_client.transport import OfflineError
from comity_protocol.checkpoint import WitnessedCheckpoint, verify_quorum
from comity_protocol.errors import ComityError
from comity_protocol.evidence import BrokenPromise
from comity_protocol.genesis import Genesis
from comity_protocol.identifiers import DeskId, short
from comity_protocol.leaves import tag_of, tags_of_promise
from comity_protocol.limits import NOTE_BYTES_MAX
from comity_protocol.receipts import Promise, Signed, verify_promise
from comity_protocol.statements import parse_statement

STALE_SECONDS: Final = 1_200
"""A log whose newest checkpoint is older is late: witnesses cosign at least every ten minutes."""

ABSENT_SECONDS: Final = 86_400
"""A witness that did not cosign for a day is told: its key may be lost or retired."""


@dataclass(slots=True)
class Watch:
    """One log that is watched.

    Attributes:
        archive: The folder that is fetched into.
        source: Where from.
        desks: Whose statements are told, because their office must know of each.
        promises: Signed promises of the relay, by the name of their file.
    """

    archive: Archive
    source: Source
    desks: Collection[DeskId] = ()
    promises: Mapping[str, Signed] = field(default_factory=dict)
    _standing: set[tuple[Kind, str]] = field(default_factory=set)
    _statements: int | None = None
    _scanned: int = 0
    _kept: set[str] = field(default_factory=set)
    _tags: dict[bytes, str] | None = None
    _last: dict[str, int] = field(default_factory=dict)
    _read: set[str] = field(default_factory=set)

    async def round(
        self, pinned: bytes | None, now: int, progress: Progress = lambda _done, _of: None
    ) -> list[Finding]:
        """Fetch what is new; gives what is new to be told.

        Args:
            pinned: Hash of the genesis, for the first round into an empty folder.
            now: Seconds since 1970 UTC.
            progress: Is called from time to time.
        """
        found: list[Finding] = []
        try:
            await fetch(self.archive, self.source, pinned, report=found.append, progress=progress)
        except OfflineError as error:
            found.append(Finding(kind=Kind.STALE, text=str(error), where=self.source.url))
        except ComityError as error:
            found.append(Finding(kind=Kind.SOURCE, text=str(error), where=self.source.url))
        genesis = read_genesis(self.archive, pinned)
        newest = None if genesis is None else read_checkpoint(self.archive, genesis)
        if genesis is not None and newest is not None:
            found += self._freshness(newest[1], now)
            found += self._witnesses(newest[1], genesis)
            found += self._own_statements()
            found += self._broken(genesis, *newest)
        return self._new(found)

    def _new(self, found: list[Finding]) -> list[Finding]:
        """Leave out what was told before and has not ended."""
        standing = {(one.kind, one.where) for one in found}
        new = [one for one in found if (one.kind, one.where) not in self._standing]
        self._standing = standing
        return new

    def _freshness(self, newest: WitnessedCheckpoint, now: int) -> Iterable[Finding]:
        age = now - newest.sealed_time
        if age > STALE_SECONDS:
            text = f"newest checkpoint is {age // 60} minutes old, expected at most 20"
            yield Finding(kind=Kind.STALE, text=text, where="checkpoint")

    def _witnesses(self, newest: WitnessedCheckpoint, genesis: Genesis) -> Iterable[Finding]:
        names = {one.witness for one in newest.cosignatures}
        if any(not genesis.quorum.is_met(names - {name}) for name in names):
            text = f"{len(names)} witnesses cosigned; one less and nothing is sealed any more"
            yield Finding(kind=Kind.THIN_QUORUM, text=text, where="checkpoint")
        last = self._last_cosigned(genesis) | {one.witness: one.time for one in newest.cosignatures}
        began = min(last.values(), default=newest.sealed_time)
        for key in genesis.quorum.witnesses:
            absent = newest.sealed_time - last.get(key.name, began)
            if absent > ABSENT_SECONDS:
                text = f"witness {key.name} has not cosigned for {absent // 3_600} hours"
                yield Finding(kind=Kind.RETIRED_WITNESS, text=text, where=key.name)

    def _last_cosigned(self, genesis: Genesis) -> dict[str, int]:
        """Read when each witness cosigned last, from the checkpoints that are kept."""
        last = self._last
        for name in self.archive.names(CHECKPOINTS):
            if name in self._read:
                continue
            self._read.add(name)
            note = self.archive.read(name, NOTE_BYTES_MAX) or b""
            try:
                found = verify_quorum(note, genesis.log, genesis.quorum).cosignatures
            except ComityError:
                continue
            for one in found:
                last[one.witness] = max(one.time, last.get(one.witness, 0))
        return last

    def _own_statements(self) -> Iterable[Finding]:
        statements = read_statements(self.archive) or []
        before, self._statements = self._statements, len(statements)
        for signed in statements[before:] if before is not None else ():
            desk = parse_statement(signed.payload).link.desk
            if desk in self.desks:
                text = (
                    f"desk {short(desk)} has a new statement {signed.hash.hex()[:16]}; if your"
                    " office did not make it, a key of it is used by somebody else"
                )
                where = f"{STATEMENTS}#{signed.hash.hex()}"
                yield Finding(kind=Kind.OWN_KEY, text=text, where=where)

    def _broken(
        self, genesis: Genesis, note: bytes, newest: WitnessedCheckpoint
    ) -> Iterable[Finding]:
        if not self.promises:
            return
        self._scan(newest.checkpoint.size)
        for name, signed in self.promises.items():
            if name in self._kept:
                continue
            promise = Promise.parse(signed.payload)
            verify_promise(signed, genesis.relay_key, promise.what)
            late = newest.earliest_time - promise.at - promise.within
            if late <= 0:
                continue
            # SPEC [V-2]: none of the entries of a later checkpoint is what was promised.
            data = BrokenPromise(genesis.deployment, signed, note).serialize()
            evidence = f"{EVIDENCE}/promise-{sha256(signed.payload).hexdigest()[:16]}.cbor"
            self.archive.replace(evidence, data)
            text = f"relay promised to log {promise.what.hex()[:16]}; {late} s late it is not there"
            yield Finding(kind=Kind.BROKEN_PROMISE, text=text, where=name, evidence=evidence)

    def _scan(self, size: int) -> None:
        """Look through the entries that are new since the last round."""
        if self._tags is None:
            self._tags = {
                tag: name
                for name, signed in self.promises.items()
                for tag in tags_of_promise(Promise.parse(signed.payload).what)
            }
        for entry in read_entries(self.archive, size, self._scanned):
            if (name := self._tags.get(tag_of(entry))) is not None:
                self._kept.add(name)
        self._scanned = size
