"""Statements as the store keeps them: the signed bytes, and their boxes apart."""

from comity_protocol.chain import Desk
from comity_protocol.encoding import serialize
from comity_protocol.receipts import Signed
from comity_protocol.statements import (
    EpochStatement,
    RemovalStatement,
    SignedStatement,
    Statement,
    parse_statement,
)
from comity_server.store import StatementRow

_KIND_SUFFIX = "Statement"


def genesis_row(signed: SignedStatement, promise: Signed, at: int) -> StatementRow:
    """Write the genesis, which is statement 1 and leaf 0."""
    return _row(signed, promise, at, kind="genesis", desk=None)


def statement_row(
    signed: SignedStatement, desk: Desk | None, promise: Signed, at: int
) -> StatementRow:
    """Write a statement of a desk's chain.

    Args:
        signed: Verified.
        desk: The desk as it was before the statement; None when the statement creates it.
        promise: The relay's.
        at: The relay's clock, UTC seconds.
    """
    statement = parse_statement(signed.payload)
    number = _epoch_number(statement, desk)
    return _row(
        signed,
        promise,
        at,
        kind=type(statement).__name__.removesuffix(_KIND_SUFFIX).lower(),
        desk=statement.link.desk,
        boxes=tuple((number, device, box) for device, box in signed.boxes),
        previous=None if signed.previous is None else (number, signed.previous),
    )


def _epoch_number(statement: Statement, desk: Desk | None) -> int:
    """Which epoch the boxes of a statement are for."""
    if isinstance(statement, EpochStatement | RemovalStatement):
        return statement.epoch.number
    return desk.epoch.number if desk is not None and desk.epoch is not None else 0


def _row(
    signed: SignedStatement,
    promise: Signed,
    at: int,
    *,
    kind: str,
    desk: bytes | None,
    boxes: tuple[tuple[int, bytes, bytes], ...] = (),
    previous: tuple[int, bytes] | None = None,
) -> StatementRow:
    signatures = serialize([[signer, signature] for signer, signature in signed.signatures])
    return StatementRow(
        hash=signed.hash,
        payload=signed.payload,
        signatures=signatures,
        kind=kind,
        desk=desk,
        accepted_at=at,
        promise=promise.serialize(),
        boxes=boxes,
        previous=previous,
    )
