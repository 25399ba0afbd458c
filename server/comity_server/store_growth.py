"""What one commit adds to the log, computed in memory: a pure function of where the log stood.

It touches no database. Whoever writes a step has to hold the head row, or to write only if the head
row is still the one that the step was computed from; both databases do either.

Rules:

* [R-3] Leaf index and mailbox counters are assigned together, without gaps, in the order of
  integration.
* [R-5] Index order is the order of integration.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from comity_protocol.leaves import (
    commit_counters,
    envelope_leaf,
    notice_leaf,
    receipt_leaf,
    statement_leaf,
)
from comity_protocol.merkle import Frontier, leaf_hash
from comity_server.store import EnvelopeRow, Head, NoticeRow, ReceiptRow, Row, StatementRow
from comity_server.store_values import mailbox_values, notice_readers, receipt_readers


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the log stood after the last commit that is known, and the counters then.

    The root in the head covers the counters of all mailboxes. So as long as the head row is this
    one, the counters are these.

    Attributes:
        frontier: That of the head, parsed.
        counters: Last counter of some mailboxes, 0 where nothing came yet.
    """

    head: Head
    frontier: Frontier
    counters: dict[bytes, int]

    @classmethod
    def at(cls, head: Head) -> "Standing":
        """Know a head and no counters yet."""
        return cls(head, Frontier.parse(head.frontier), {})

    def after(self, step: "Step") -> "Standing":
        """Give where the log stands once a step is committed; the counters become the new ones."""
        self.counters.update(step.counters)
        return Standing(step.head, step.frontier, self.counters)


@dataclass(frozen=True, slots=True)
class Step:
    """What one commit writes.

    Attributes:
        before: The head that it was computed from.
        head: The head after it.
        frontier: That of the head after it.
        rows: The rows with their places, in leaf order.
        counters: Of the mailboxes that got something, the new last one.
        leaves: Rows of the table ``leaves``.
        tiles: Rows of the table ``tile_hashes``.
        items: Rows of the table ``mailbox_items``.
        receipt_readers: Rows of the table ``receipt_readers``.
        notice_readers: Rows of the table ``notice_readers``.
    """

    before: Head
    head: Head
    frontier: Frontier
    rows: tuple[Row, ...]
    counters: dict[bytes, int]
    leaves: list[tuple[object, ...]]
    tiles: list[tuple[object, ...]]
    items: list[tuple[object, ...]]
    receipt_readers: list[tuple[object, ...]]
    notice_readers: list[tuple[object, ...]]


def mailboxes_of(rows: Iterable[Row]) -> set[bytes]:
    """Give the desks whose counters are needed to place rows."""
    return {to.desk for row in rows if isinstance(row, EnvelopeRow) for to in row.recipients}


def grow(
    head: Head, frontier: Frontier, counters: Mapping[bytes, int], rows: Sequence[Row]
) -> Step:
    """Place rows behind what is in the log.

    Args:
        head: Where the log stands.
        frontier: That of the head.
        counters: The last counter of each mailbox that gets something; one that is not there is
            empty.
        rows: Without places, in the order in which they get them.
    """
    last: dict[bytes, int] = {}
    placed: list[Row] = []
    data: list[bytes] = []
    items: list[tuple[object, ...]] = []
    receipts: list[tuple[object, ...]] = []
    notices: list[tuple[object, ...]] = []
    # SPEC: leaf index and mailbox counters are assigned together, without gaps, in the order
    # of integration.
    # SPEC: index order is the order of integration, never that of a sequence.
    for index, row in enumerate(rows, start=head.size):
        match row:
            case EnvelopeRow():
                desks = [to.desk for to in row.recipients]
                for desk in desks:
                    last[desk] = last.get(desk, counters.get(desk, 0)) + 1
                given = tuple([last[desk] for desk in desks])
                commitments = commit_counters(desks, given, row.blind)
                own = row.placed(index, given, commitments)
                data.append(envelope_leaf(own.core_hash, commitments))
                items += mailbox_values(own)
                placed.append(own)
            case ReceiptRow():
                data.append(receipt_leaf(row.payload))
                receipt = replace(row, leaf_index=index)
                receipts += receipt_readers(receipt)
                placed.append(receipt)
            case NoticeRow():
                data.append(notice_leaf(row.payload))
                notice = replace(row, leaf_index=index)
                notices += notice_readers(notice)
                placed.append(notice)
            case StatementRow():
                data.append(statement_leaf(row.payload))
                placed.append(replace(row, leaf_index=index))
            case _:
                assert_never(row)
    growth = frontier.grow(map(leaf_hash, data))
    after = growth.frontier
    return Step(
        before=head,
        head=replace(head, size=after.size, root=after.root, frontier=after.serialize()),
        frontier=after,
        rows=tuple(placed),
        counters=last,
        leaves=list(enumerate(data, start=head.size)),
        tiles=[(tile.level, tile.index, tile.hash) for tile in growth.tile_hashes],
        items=items,
        receipt_readers=receipts,
        notice_readers=notices,
    )
