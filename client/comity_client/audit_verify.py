"""Checks a folder with everything off: what the log says, against what everybody else said of it.

1. The genesis is the pinned one, and its founders signed it.
2. The newest checkpoint has the log's signature and the quorum of the genesis.
3. All entries lead to its root, and every tile of the folder is the one that follows from them.
4. Every other checkpoint and anchor of the folder is a past of it.
5. Every entry of a statement has its statement, and every statement obeys the rules of its chain.
6. What was promised is in the log, and so is what was signed.

It asks nobody, keeps no more in memory than the tree is high and the directory is large, and does
not stop at the first finding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Final

from comity_client.audit_archive import (
    ANCHORS,
    CHECKPOINT,
    CHECKPOINTS,
    EVIDENCE,
    GENESIS,
    STATEMENTS,
    Archive,
    ArchiveError,
    Tile,
    tile_at,
)
from comity_client.audit_fetch import read_checkpoint, read_genesis
from comity_client.audit_findings import Finding, Kind, Report
from comity_client.audit_pages import Pages
from comity_client.audit_statements import read_statements
from comity_client.audit_tree import TreeCheck
from comity_protocol.checkpoint import (
    Checkpoint,
    WitnessedCheckpoint,
    verify_anchor,
    verify_quorum,
)
from comity_protocol.directory import Directory
from comity_protocol.errors import ComityError, VerificationError
from comity_protocol.evidence import BrokenPromise, Fork
from comity_protocol.genesis import Genesis
from comity_protocol.leaves import (
    notice_leaf,
    receipt_leaf,
    statement_hash,
    statement_leaf,
    tag_of,
    tags_of_promise,
)
from comity_protocol.limits import NOTE_BYTES_MAX
from comity_protocol.merkle import TILE_WIDTH
from comity_protocol.notices import verify_notice
from comity_protocol.receipts import Promise, Signed, verify_promise, verify_receipt
from comity_protocol.statements import SignedStatement

FINDINGS_MAX: Final = 10_000
"""Findings of one kind that are reported one by one; a wholly wrong folder has a million."""

_STATEMENT_BYTE: Final = 1


@dataclass(frozen=True, slots=True)
class Objects:
    """What a party gives to be looked for in the log, by the name of its file.

    Attributes:
        promises: Signed promises of the relay.
        receipts: Signed receipts.
        notices: Signed notices.
    """

    promises: Mapping[str, Signed] = field(default_factory=dict)
    receipts: Mapping[str, Signed] = field(default_factory=dict)
    notices: Mapping[str, Signed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What an audit established.

    Attributes:
        genesis_hash: To be compared with the one that was handed over.
        size: Entries that were hashed.
        sealed_time: Of the newest checkpoint, seconds since 1970 UTC, by the witnesses' clocks.
        statements: That were folded.
        desks: That came of them.
        checkpoints: Other checkpoints that were compared.
        anchors: Of them with ML-DSA-44.
        objects: Of the own desk's pages, each found at its place in the log.
        is_whole: Whether all entries lead to the root.
    """

    genesis_hash: bytes
    size: int = 0
    sealed_time: int = 0
    statements: int = 0
    desks: int = 0
    checkpoints: int = 0
    anchors: int = 0
    objects: int = 0
    is_whole: bool = False


@dataclass(slots=True)
class _Scan:
    """What is looked for while the entries go by."""

    wanted: dict[bytes, int | None]
    statements: list[tuple[int, bytes]] = field(default_factory=list)
    malformed: list[int] = field(default_factory=list)

    def take(self, first: int, entries: Sequence[bytes]) -> None:
        kinds = bytes([entry[0] for entry in entries])
        if any(kinds):
            for place, kind in enumerate(kinds):
                if kind == _STATEMENT_BYTE:
                    self.statements.append((first + place, entries[place]))
                elif kind:
                    self.malformed.append(first + place)
        if self.wanted:
            for place, entry in enumerate(entries):
                tag = tag_of(entry)
                if tag in self.wanted and self.wanted[tag] is None:
                    self.wanted[tag] = first + place


class Audit:
    """One check of one folder."""

    def __init__(self, archive: Archive, report: Report, objects: Objects | None = None) -> None:
        """Take the folder, who is told, and what else is to be looked for."""
        self._archive: Final = archive
        self._objects: Final = objects or Objects()
        self._tell: Final = report
        self._told: Final[dict[Kind, int]] = {}
        self._size = 0

    def run(self, pinned: bytes | None) -> Verified:
        """Check everything.

        Args:
            pinned: Hash of the genesis, as it was handed over; None to take the folder's, which
                the caller then shows.

        Raises:
            ArchiveError: There is no genesis or no checkpoint in the folder, so nothing to check.
            MalformedError, VerificationError: The genesis or the checkpoint is not believable.
        """
        genesis = read_genesis(self._archive, pinned)
        newest = None if genesis is None else read_checkpoint(self._archive, genesis)
        if genesis is None or newest is None:
            missing = GENESIS if genesis is None else CHECKPOINT
            raise ArchiveError(f"{self._archive.folder} has no {missing}; fetch the log first")
        note, witnessed = newest
        others = [*self._notes(CHECKPOINTS, genesis), *self._notes(ANCHORS, genesis)]
        scan = _Scan(self._tags())
        head = witnessed.checkpoint
        self._size = head.size
        past = sorted({o.head.size for o in others if o.head.size <= head.size})
        check = TreeCheck(self._archive, head.size, head.root, self._report, scan.take, past)
        is_whole = check.run()
        self._extra_files(head.size)
        self._compare_notes(others, note, witnessed, genesis, check.roots)
        given = self._statements()
        statements, directory, objects = 0, None, 0
        # Of entries that are damaged nothing is known; whoever repairs them checks again.
        if check.are_entries_sound:
            self._forms(scan)
            if given is not None:
                statements, directory = self._fold(genesis, scan, given)
            objects = Pages(self._archive, head.size, directory, self._report).check()
            self._look(scan, genesis, directory, note, witnessed)
        return Verified(
            genesis_hash=statement_hash(genesis.serialize()),
            size=head.size,
            sealed_time=witnessed.sealed_time,
            statements=statements,
            desks=0 if directory is None else len(directory.desks),
            checkpoints=len(others),
            anchors=sum(one.is_anchor for one in others),
            objects=objects,
            is_whole=is_whole,
        )

    # --- Files

    def _extra_files(self, size: int) -> None:
        """Name what stands between the tiles and is none of the tree's."""
        for name in self._archive.names("tile"):
            tile = parse_tile_path(name)
            if tile is None or not _is_of_tree(tile, size):
                text = "file does not belong to the log of this checkpoint"
                self._report(Finding(kind=Kind.EXTRA_FILE, text=text, where=name))
            else:
                self._compare_older(tile, size)

    def _compare_older(self, tile: Tile, size: int) -> None:
        """Compare a partial tile that the log has outgrown with the one that took its place."""
        newer = tile_at(tile.level, tile.index, size)
        if newer.path == tile.path:
            return
        old = self._archive.read(tile.path, tile.byte_size)
        new = self._archive.read(newer.path, newer.byte_size)
        # SPEC [V-3]: every tile is compared.
        if old is not None and new is not None and new[: tile.byte_size] != old:
            kind = Kind.DAMAGED_ENTRIES if tile.level is None else Kind.DAMAGED_TILE
            text = f"partial tile is not the beginning of {newer.path}"
            self._report(Finding(kind=kind, text=text, where=tile.path))

    # --- Checkpoints

    def _notes(self, folder: str, genesis: Genesis) -> Iterator["_Other"]:
        """Read the kept checkpoints or anchors, and report those that are not believable."""
        names = list(self._archive.names(folder))
        verify = _verifier(folder, genesis)
        if folder == ANCHORS and genesis.anchors is not None and not names:
            text = "folder holds no anchor, so nothing here outlasts Ed25519"
            self._report(Finding(kind=Kind.NO_ANCHORS, text=text, where=folder))
        for name in names:
            kind = Kind.ANCHOR if folder == ANCHORS else Kind.CHECKPOINT
            try:
                note = self._archive.read(name, NOTE_BYTES_MAX) or b""
                if verify is None:
                    raise VerificationError("genesis names no anchors")
                witnessed = verify(note)
            except (ComityError, ValueError) as error:
                self._report(Finding(kind=kind, text=str(error), where=name))
                continue
            yield _Other(name, witnessed.checkpoint, folder == ANCHORS)

    def _compare_notes(
        self,
        others: Sequence["_Other"],
        note: bytes,
        newest: WitnessedCheckpoint,
        genesis: Genesis,
        roots: Mapping[int, bytes],
    ) -> None:
        seen: dict[int, _Other] = {}
        for other in others:
            size = other.head.size
            first = seen.setdefault(size, other)
            if size > newest.checkpoint.size:
                text = (
                    f"a checkpoint of {size:,} entries was published, and the folder covers"
                    f" {newest.checkpoint.size:,}: its tail is withheld"
                )
                self._report(Finding(kind=Kind.ROLLBACK, text=text, where=other.name))
            elif first.head.root != other.head.root:
                self._forked(other, self._note_of(first), genesis)
            elif roots.get(size, other.head.root) != other.head.root:
                at_head = note if size == newest.checkpoint.size else b""
                self._forked(other, at_head, genesis)

    def _note_of(self, other: "_Other") -> bytes:
        return self._archive.read(other.name, NOTE_BYTES_MAX) or b""

    def _forked(self, other: "_Other", second: bytes, genesis: Genesis) -> None:
        evidence = ""
        if second:
            data = Fork(genesis.deployment, self._note_of(other), second).serialize()
            evidence = f"{EVIDENCE}/fork-{sha256(data).hexdigest()[:16]}.cbor"
            self._archive.put(evidence, data)
        text = f"checkpoint of {other.head.size:,} entries is no past of this log: it has forked"
        self._report(Finding(kind=Kind.FORK, text=text, where=other.name, evidence=evidence))

    # --- Statements

    def _statements(self) -> list[SignedStatement] | None:
        try:
            found = read_statements(self._archive)
        except ComityError as error:
            self._report(Finding(kind=Kind.DAMAGED_FILE, text=str(error), where=STATEMENTS))
            return None
        if found is None:
            text = "no statement is here, so none of those in the log is judged"
            self._report(Finding(kind=Kind.NO_STATEMENTS, text=text, where=STATEMENTS))
        return found

    def _fold(
        self, genesis: Genesis, scan: _Scan, statements: Sequence[SignedStatement]
    ) -> tuple[int, Directory | None]:
        """Match statements with their entries and fold them by all rules."""
        by_leaf = {statement_leaf(one.payload): one for one in statements}
        directory, count, is_complete = None, 0, True
        pinned = statement_hash(genesis.serialize())
        for index, entry in scan.statements:
            signed = by_leaf.pop(entry, None)
            if signed is None:
                # SPEC [B-13]: a log with a statement that was not given is refused.
                is_complete = False
                text = f"entry {index} is a statement that was not given"
                self._report(
                    Finding(kind=Kind.WITHHELD_STATEMENT, text=text, where=self._place(index))
                )
                continue
            try:
                if directory is None:
                    directory = Directory.begin(signed, pinned)
                else:
                    directory = directory.apply(_bare(signed), index)
                count += 1
            except ComityError as error:
                # After a missing statement the next ones of its chain break rules, too.
                if is_complete:
                    text = f"statement at entry {index} breaks a rule: {error}"
                    where = self._place(index)
                    self._report(Finding(kind=Kind.INVALID_STATEMENT, text=text, where=where))
                if directory is None:
                    break
        for signed in _before_last(statements, by_leaf):
            text = f"statement {signed.hash.hex()[:16]} is not in the log"
            self._report(Finding(kind=Kind.SIGNED_OBJECT, text=text, where=STATEMENTS))
        return count, directory

    def _forms(self, scan: _Scan) -> None:
        for index in scan.malformed:
            text = f"entry {index} begins with neither 00 nor 01"
            self._report(Finding(kind=Kind.ENTRY_FORM, text=text, where=self._place(index)))

    # --- What parties hold

    def _tags(self) -> dict[bytes, int | None]:
        tags: dict[bytes, int | None] = {}
        for signed in self._objects.promises.values():
            for tag in _promised_tags(signed):
                tags[tag] = None
        for signed in self._objects.receipts.values():
            tags[tag_of(receipt_leaf(signed.payload))] = None
        for signed in self._objects.notices.values():
            tags[tag_of(notice_leaf(signed.payload))] = None
        return tags

    def _look(
        self,
        scan: _Scan,
        genesis: Genesis,
        directory: Directory | None,
        note: bytes,
        newest: WitnessedCheckpoint,
    ) -> None:
        for name, signed in self._objects.promises.items():
            self._promise(name, signed, scan, genesis, note, newest)
        for name, signed in self._objects.receipts.items():
            place = scan.wanted[tag_of(receipt_leaf(signed.payload))]
            self._object(name, place, partial(_verify_receipt, signed, directory))
        for name, signed in self._objects.notices.items():
            place = scan.wanted[tag_of(notice_leaf(signed.payload))]
            self._object(name, place, partial(_verify_notice, signed, directory))

    def _promise(
        self,
        name: str,
        signed: Signed,
        scan: _Scan,
        genesis: Genesis,
        note: bytes,
        newest: WitnessedCheckpoint,
    ) -> None:
        try:
            promise = Promise.parse(signed.payload)
            verify_promise(signed, genesis.relay_key, promise.what)
        except ComityError as error:
            self._report(Finding(kind=Kind.PROMISE, text=str(error), where=name))
            return
        kept = any(scan.wanted[tag] is not None for tag in tags_of_promise(promise.what))
        late = newest.earliest_time - promise.at - promise.within
        if kept or late <= 0:
            return
        # SPEC [V-2]: none of the entries of a later checkpoint is what was promised.
        data = BrokenPromise(genesis.deployment, signed, note).serialize()
        evidence = f"{EVIDENCE}/promise-{sha256(data).hexdigest()[:16]}.cbor"
        self._archive.put(evidence, data)
        text = (
            f"relay promised to log {promise.what.hex()[:16]} within {promise.within} s; {late} s"
            f" later none of {newest.checkpoint.size:,} entries is it"
        )
        self._report(Finding(kind=Kind.BROKEN_PROMISE, text=text, where=name, evidence=evidence))

    def _object(self, name: str, place: int | None, verify: Callable[[int], object]) -> None:
        if place is None:
            text = "it is not in the log that this checkpoint covers"
            self._report(Finding(kind=Kind.NOT_LOGGED, text=text, where=name))
            return
        try:
            verify(place)
        except ComityError as error:
            text = f"at entry {place}: {error}"
            self._report(Finding(kind=Kind.SIGNED_OBJECT, text=text, where=name))

    # --- Findings

    def _place(self, index: int) -> str:
        """Name the file that an entry is in."""
        return tile_at(None, index // TILE_WIDTH, self._size).path

    def _report(self, finding: Finding) -> None:
        told = self._told.get(finding.kind, 0) + 1
        self._told[finding.kind] = told
        if told <= FINDINGS_MAX:
            self._tell(finding)


@dataclass(frozen=True, slots=True)
class _Other:
    """A checkpoint of the folder beside the newest; there may be many, so it is small."""

    name: str
    head: Checkpoint
    is_anchor: bool


def _verifier(folder: str, genesis: Genesis) -> Callable[[bytes], WitnessedCheckpoint] | None:
    if folder == CHECKPOINTS:
        return lambda note: verify_quorum(note, genesis.log, genesis.quorum)
    anchors = genesis.anchors
    if anchors is None:
        return None
    # SPEC [L-10]: an anchor is believed with the ML-DSA-44 cosignatures of its own quorum alone.
    return lambda note: verify_anchor(note, genesis.origin, anchors.quorum)


def _before_last(
    statements: Sequence[SignedStatement], unmatched: Mapping[bytes, SignedStatement]
) -> Iterator[SignedStatement]:
    """Give the unmatched statements that stand before a matched one.

    Those after the last one are newer than the checkpoint: a mirror serves what it has replayed.
    """
    waiting: list[SignedStatement] = []
    for one in statements:
        if statement_leaf(one.payload) in unmatched:
            waiting.append(one)
        else:
            yield from waiting
            waiting.clear()


def _promised_tags(signed: Signed) -> Sequence[bytes]:
    try:
        return tuple(tags_of_promise(Promise.parse(signed.payload).what))
    except ComityError:
        return ()


def _verify_receipt(signed: Signed, directory: Directory | None, index: int) -> None:
    if directory is not None:
        verify_receipt(signed, directory, index=index)


def _verify_notice(signed: Signed, directory: Directory | None, index: int) -> None:
    if directory is not None:
        verify_notice(signed, directory, index=index)


def _bare(signed: SignedStatement) -> SignedStatement:
    """Leave the sealed boxes out: each is checked by the one member who can open it."""
    return SignedStatement(signed.payload, signed.signatures, is_bare=True)


def parse_tile_path(name: str) -> Tile | None:
    """Read the name of a tile or bundle; None when it is none."""
    parts = name.split("/")
    width = TILE_WIDTH
    if len(parts) > 3 and parts[-2].endswith(".p"):  # noqa: PLR2004  # tile, level, number.p, width
        if not _is_number(parts[-1]):
            return None
        width = int(parts.pop())
        parts[-1] = parts[-1].removesuffix(".p")
    if len(parts) < 3 or parts[0] != "tile" or not 0 < width <= TILE_WIDTH:  # noqa: PLR2004
        return None
    digits = "".join(part.removeprefix("x") for part in parts[2:])
    is_level = parts[1] == "entries" or _is_number(parts[1])
    if not is_level or not (digits.isascii() and digits.isdecimal()):
        return None
    tile = Tile(None if parts[1] == "entries" else int(parts[1]), int(digits), width)
    return tile if tile.path == name else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 3  # noqa: PLR2004  # 0 to 255


def _is_of_tree(tile: Tile, size: int) -> bool:
    count = size >> (8 * (tile.level or 0))
    return tile.index * TILE_WIDTH + tile.width <= count
