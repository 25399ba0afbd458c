"""Reads pages out of the store so that neither their items nor their bytes have no bound.

Rules:

* [R-15] Every page has a bound.
"""

from typing import Final

from comity_server.store import MailboxItem, Store

PAGE_ITEMS_MAX: Final = 500
PAGE_BYTES_MAX: Final = 4_194_304
CHUNK_ITEMS: Final = 64


async def mailbox_page(store: Store, desk: bytes, after: int, limit: int) -> list[MailboxItem]:
    """Read the next envelopes of a desk: at most ``limit``, and not many past the bound of bytes.

    At least one is given when there is one, however large it is.
    """
    items: list[MailboxItem] = []
    size = 0
    # SPEC: every page has a bound.
    while len(items) < limit and size < PAGE_BYTES_MAX:
        count = min(CHUNK_ITEMS, limit - len(items))
        cursor = items[-1].counter if items else after
        chunk = await store.mailbox(desk, cursor, count)
        for item in chunk:
            if items and size >= PAGE_BYTES_MAX:
                return items
            items.append(item)
            size += item_bytes(item)
        if len(chunk) < count:
            break
    return items


def item_bytes(item: MailboxItem) -> int:
    """How many bytes an envelope takes, nearly."""
    return len(item.core) + len(item.body or b"") + len(item.audit) + len(item.wrap or b"")
