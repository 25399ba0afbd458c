"""What was said of envelopes later, as it is kept: read without keys and without the network."""

from collections.abc import Mapping
from dataclasses import dataclass

from comity_client.state import State
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.noticed import Noticed
from comity_protocol.notices import Notice, parse_notice


@dataclass(frozen=True, slots=True)
class Kept:
    """A notice that was verified.

    Attributes:
        sealed_at: Sealed time of the checkpoint by which it was proven, UTC seconds.
    """

    leaf_index: int
    notice: Notice
    sealed_at: int


@dataclass(frozen=True, slots=True)
class Erased:
    """That an envelope's copy is gone.

    Attributes:
        basis: Why, a code of ``EraseBasis``.
        at: UTC seconds: the sealed time of the notice, or this machine's time before that.
    """

    basis: str
    at: int


def kept_notices(state: State) -> tuple[Kept, ...]:
    """Give every verified notice in leaf order."""
    rows = state.connection.execute(
        "SELECT leaf_index, payload, sealed_at FROM notices ORDER BY leaf_index"
    )
    return tuple(
        Kept(index, parse_notice(payload), sealed_at) for index, payload, sealed_at in rows
    )


def fold_notices(state: State) -> Noticed:
    """Give what all notices say together: holds, erasures, stamps, restores."""
    return Noticed.fold((kept.leaf_index, kept.notice) for kept in kept_notices(state))


def read_erased(state: State) -> Mapping[EnvelopeId, Erased]:
    """Give what was erased on this machine."""
    rows = state.connection.execute(
        "SELECT envelope, basis, coalesce(notices.sealed_at, erased_at) FROM erased"
        " LEFT JOIN notices ON notices.hash = erased.notice"
    )
    return {EnvelopeId(envelope): Erased(basis, at) for envelope, basis, at in rows}
