"""What a member or an auditor is served, kept as it was served, so that it outlasts the relay.

    desk/mailbox/AFTER      pages of the own mailbox, an auditor's without bodies
    desk/receipts/AFTER     pages of receipts
    desk/notices/AFTER      pages of notices

A page is named by the place after which it begins and is never written again, so a later fetch goes
on after the last one. The first checkpoint that covers each object is kept with the others: it
dates the object. Nothing is opened here; what the pages hold is verified when it is used.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from comity_client.audit_archive import CHECKPOINTS, DESK, Archive
from comity_client.audit_fetch import note_name, read_checkpoint
from comity_client.audit_findings import Report
from comity_client.audit_source import PAGES_MAX
from comity_client.audit_statements import keep_statements, read_statements
from comity_client.relay_answers import PAGE_ENVELOPES, PAGE_STATEMENTS
from comity_client.transport import RelayClient, RelayRefusedError
from comity_protocol import wire
from comity_protocol.checkpoint import verify_quorum
from comity_protocol.encoding import Value, parse
from comity_protocol.fields import Fields, array_of, integer_of
from comity_protocol.genesis import Genesis
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.statements import SignedStatement

PAGE_BYTES_MAX: Final = 64 * 1024 * 1024

_COUNTER, _LEAF = 0, 1
"""Places in a mailbox item; a receipt's and a notice's leaf index comes first."""


class MemberRelay(RelayClient):
    """A relay as a member sees it, whose answers are taken as they are."""

    async def page(self, path: str, after: int, limit: int) -> bytes:
        """Fetch a page without reading it."""
        return await self._get(path, after=after, limit=limit)


async def fetch_desk(archive: Archive, relay: MemberRelay, genesis: Genesis, report: Report) -> int:
    """Fetch statements, mailbox, receipts and notices; gives how many objects are new.

    Raises:
        OfflineError, RelayRefusedError: The relay is not there, or refuses.
        MalformedError, VerificationError: It answers something else.
    """
    known = read_statements(archive) or []
    given = [one async for one in _new_statements(relay, len(known))]
    newest = read_checkpoint(archive, genesis)
    size = 0 if newest is None else newest[1].checkpoint.size
    keep_statements(archive, known, given, size, report, wire.STATEMENTS)
    leaves: set[int] = set()
    new = await _pages(archive, relay, wire.MAILBOX, 0, _COUNTER, leaves)
    for path in (wire.RECEIPTS, wire.NOTICES):
        new += await _pages(archive, relay, path, -1, 0, leaves)
    await _date(archive, relay, genesis, sorted(leaves))
    return new


async def _new_statements(relay: RelayClient, after: int) -> AsyncIterator[SignedStatement]:
    for _ in range(PAGES_MAX):
        page = await relay.statements(after)
        for item in page.items:
            yield SignedStatement(item.signed.payload, item.signed.signatures)
        after += len(page.items)
        if len(page.items) < PAGE_STATEMENTS:
            return


async def _pages(
    archive: Archive,
    relay: MemberRelay,
    path: str,
    first: int,
    order: int,
    leaves: set[int],
) -> int:
    """Fetch the pages after the last one that is kept; notes the leaf index of each new item."""
    folder = f"{DESK}/{path.rpartition('/')[2]}"
    after, new = _last(archive, folder, first, order), 0
    leaf = _LEAF if path == wire.MAILBOX else 0
    for _ in range(PAGES_MAX):
        try:
            data = await relay.page(path, after, PAGE_ENVELOPES)
        except RelayRefusedError as error:
            # A relay of an earlier version has no notices, and an auditor may have no receipts.
            if error.code in {"not-found", "not-active"} and path != wire.MAILBOX:
                return new
            raise
        items = items_of(data)
        if not items:
            return new
        leaves |= {integer_of(item[leaf], "leaf index", high=SIZE_MAX) for item in items}
        archive.put(f"{folder}/{after + 1:012}", data)
        after = integer_of(items[-1][order], "place of an item", high=SIZE_MAX)
        new += len(items)
    return new


def items_of(data: bytes) -> list[Sequence[Value]]:
    """Read the items of a page, not yet verified.

    Raises:
        MalformedError: It is no page.
    """
    fields = Fields.of(parse(data), "page", {"items"})
    return [
        array_of(item, "item", low=3, high=8) for item in fields.array("items", high=PAGE_ENVELOPES)
    ]


def _last(archive: Archive, folder: str, first: int, order: int) -> int:
    name = max(archive.names(folder), default="")
    data = archive.read(name, PAGE_BYTES_MAX) if name else None
    items = items_of(data) if data else []
    return integer_of(items[-1][order], "place of an item", high=SIZE_MAX) if items else first


async def _date(archive: Archive, relay: RelayClient, genesis: Genesis, leaves: list[int]) -> None:
    """Keep the first checkpoint that covers each leaf; one covers all up to its size."""
    covered = 0
    for index in leaves:
        if index < covered:
            continue
        try:
            note = await relay.covering(index)
        except RelayRefusedError as error:
            if error.code == "not-yet":
                return
            raise
        head = verify_quorum(note, genesis.log, genesis.quorum).checkpoint
        covered = head.size
        archive.put(note_name(CHECKPOINTS, head.size, note), note)
