"""Checks the pages that a member was served against the entries of the log: each has its place.

A mailbox item leads to its entry by its core and its counter proof, a receipt and a notice by what
was signed. Whoever computes figures from these pages later relies on nothing but the log.
"""

from collections.abc import Sequence

from comity_client.audit_archive import DESK, Archive, tile_at
from comity_client.audit_desk import PAGE_BYTES_MAX, items_of
from comity_client.audit_findings import Finding, Kind, Report
from comity_client.audit_tree import split_entries
from comity_client.relay_answers import arrived
from comity_protocol.core import Core, core_hash
from comity_protocol.directory import Directory
from comity_protocol.encoding import Value
from comity_protocol.errors import ComityError, VerificationError
from comity_protocol.fields import bytes_of, integer_of
from comity_protocol.keys import FAST_SIGNATURE_BYTES, Context, verify_fast
from comity_protocol.leaves import envelope_leaf, notice_leaf, receipt_leaf
from comity_protocol.limits import NOTICE_BYTES_MAX, RECEIPT_BYTES_MAX
from comity_protocol.merkle import SIZE_MAX, TILE_WIDTH
from comity_protocol.notices import verify_notice
from comity_protocol.receipts import Signed, verify_receipt


class Pages:
    """The pages of one folder, whose entries are known to be right."""

    def __init__(
        self, archive: Archive, size: int, directory: Directory | None, report: Report
    ) -> None:
        """Take the folder, its entries up to ``size``, and who may sign; None for unknown."""
        self._archive = archive
        self._size = size
        self._directory = directory
        self._report = report
        self._bundle: tuple[int, list[bytes]] = (-1, [])

    def check(self) -> int:
        """Check every page; gives how many objects are right."""
        checks = {
            "mailbox": self._envelope,
            "receipts": self._receipt,
            "notices": self._notice,
        }
        right = 0
        for folder, check in checks.items():
            for name in self._archive.names(f"{DESK}/{folder}"):
                try:
                    items = items_of(self._archive.read(name, PAGE_BYTES_MAX) or b"")
                except ComityError as error:
                    self._report(Finding(kind=Kind.DAMAGED_FILE, text=str(error), where=name))
                    continue
                for number, item in enumerate(items):
                    try:
                        check(item)
                        right += 1
                    except ComityError as error:
                        text = f"item {number}: {error}"
                        self._report(Finding(kind=Kind.SIGNED_OBJECT, text=text, where=name))
        return right

    def _envelope(self, item: Sequence[Value]) -> None:
        found = arrived(list(item))
        core = Core.parse(found.core)
        entry = self._entry(found.leaf_index)
        leaves = (
            envelope_leaf(
                core_hash(found.core), found.proof.commitments(position, to.desk, found.counter)
            )
            for position, to in enumerate(core.to)
        )
        # SPEC: core and own counter lead to the entry; whose mailbox it is, follows.
        if entry is not None and entry not in leaves:
            raise VerificationError(f"envelope does not lead to entry {found.leaf_index} [R-3]")
        if self._directory is not None:
            desk, device = self._directory.device(core.device)
            # SPEC [E-1]: the core's signature is by a device that is active in the sending desk.
            if desk.id != core.sender or not device.is_active_at(found.leaf_index):
                raise VerificationError("sender's device was not active in the sending desk [E-1]")
            verify_fast(device.fast, Context.ENVELOPE, found.core, found.signature)

    def _receipt(self, item: Sequence[Value]) -> None:
        index, signed = _signed(item, RECEIPT_BYTES_MAX)
        self._compare(index, receipt_leaf(signed.payload))
        if self._directory is not None:
            verify_receipt(signed, self._directory, index=index)

    def _notice(self, item: Sequence[Value]) -> None:
        index, signed = _signed(item, NOTICE_BYTES_MAX)
        self._compare(index, notice_leaf(signed.payload))
        if self._directory is not None:
            verify_notice(signed, self._directory, index=index)

    def _compare(self, index: int, leaf: bytes) -> None:
        entry = self._entry(index)
        if entry is not None and entry != leaf:
            raise VerificationError(f"another object is in the log at entry {index} [L-2]")

    def _entry(self, index: int) -> bytes | None:
        """Give an entry; None for one that is newer than the checkpoint of the folder."""
        if index >= self._size:
            return None
        number = index // TILE_WIDTH
        if self._bundle[0] != number:
            tile = tile_at(None, number, self._size)
            data = self._archive.read(tile.path, tile.byte_size) or b""
            self._bundle = number, split_entries(data, tile.width) or []
        return self._bundle[1][index % TILE_WIDTH]


def _signed(item: Sequence[Value], bytes_max: int) -> tuple[int, Signed]:
    index, payload, signature = item
    return integer_of(index, "leaf index", high=SIZE_MAX), Signed(
        bytes_of(payload, "payload", low=1, high=bytes_max),
        bytes_of(signature, "signature", length=FAST_SIGNATURE_BYTES),
    )
