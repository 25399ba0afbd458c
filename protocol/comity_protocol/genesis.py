"""What the chains of a deployment rest on: its genesis and the roots of the founding States.

    root        a State's or organisation's custodians, and how many of them decide
    genesis     log, relay and witness keys, quorum, and the roots of the founding States

What custodians, admins and devices state after that is in ``statements.py``.

Rules:

* [S-12] A genesis is signed by the threshold of each founding root.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from comity_protocol.encoding import parse, serialize
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.fields import Fields, array_of, bytes_of, check_ascending, text_of
from comity_protocol.identifiers import ID_BYTES, DeploymentId
from comity_protocol.keys import (
    FAST_PUBLIC_BYTES,
    FULL_PUBLIC_BYTES,
    check_fast_public,
    check_full_public,
    key_id,
)
from comity_protocol.leaves import statement_hash
from comity_protocol.limits import (
    CUSTODIANS_MAX,
    NAME_BYTES_MAX,
    ROOTS_MAX,
    STATEMENT_BYTES_MAX,
    WITNESSES_MAX,
)
from comity_protocol.statements import (
    SignedStatement,
    check_type,
    party_of,
    verify_signatures,
)


@dataclass(frozen=True, slots=True)
class Root:
    """A State's or organisation's custodians and how many of them decide."""

    code: str
    threshold: int
    custodians: tuple[bytes, ...]

    @property
    def custodian_keys(self) -> dict[bytes, bytes]:
        """Composite public keys by key id."""
        return {key_id(public): public for public in self.custodians}

    def serialize(self) -> bytes:
        """Give the bytes whose hash names this root."""
        ordered: list[bytes] = sorted(self.custodians, key=key_id)
        return serialize(
            {
                "v": 1,
                "t": "root",
                "code": self.code,
                "version": 1,
                "k": self.threshold,
                "custodians": ordered,
            }
        )


@dataclass(frozen=True, slots=True)
class Genesis:
    """The founding States' word on which log, relay and witnesses to believe."""

    origin: str
    log_key: bytes
    relay_key: bytes
    witnesses: tuple[tuple[str, bytes], ...]
    quorum: int
    roots: tuple[Root, ...]

    def serialize(self) -> bytes:
        """Give the bytes that the founding custodians sign."""
        return serialize(
            {
                "v": 1,
                "t": "genesis",
                "origin": self.origin,
                "log": self.log_key,
                "relay": self.relay_key,
                "witnesses": [[name, key] for name, key in self.witnesses],
                "quorum": self.quorum,
                "roots": [root.serialize() for root in self.roots],
            }
        )

    @property
    def deployment(self) -> DeploymentId:
        """The id that every later statement names, so that none fits another deployment."""
        return DeploymentId(statement_hash(self.serialize())[:ID_BYTES])


def parse_root(payload: bytes) -> Root:
    """Read a State root.

    Raises:
        MalformedError: It is not what ``Root.serialize`` gives, or no set of its custodians can
            ever reach the threshold.
    """
    what = "root"
    fields = Fields.of(parse(payload), what, {"v", "t", "code", "version", "k", "custodians"})
    check_type(fields, "root")
    fields.integer("version", low=1, high=1)
    custodians = tuple(
        bytes_of(item, "custodian", length=FULL_PUBLIC_BYTES)
        for item in fields.array("custodians", low=1, high=CUSTODIANS_MAX)
    )
    check_ascending([key_id(public) for public in custodians], "custodians")
    return Root(
        code=party_of(fields, "code"),
        threshold=fields.integer("k", low=1, high=len(custodians)),
        custodians=custodians,
    )


def parse_genesis(payload: bytes) -> Genesis:
    """Read the genesis of a deployment; its signatures are ``verify_genesis``'s matter.

    Raises:
        MalformedError: It is not what ``Genesis.serialize`` gives.
    """
    names = {"v", "t", "origin", "log", "relay", "witnesses", "quorum", "roots"}
    fields = Fields.of(parse(payload), "genesis", names)
    check_type(fields, "genesis")
    witnesses = tuple(
        (
            text_of(name, "witness name", bytes_max=NAME_BYTES_MAX),
            bytes_of(key, "witness key", length=FAST_PUBLIC_BYTES),
        )
        for name, key in (
            array_of(item, "witness", low=2, high=2)
            for item in fields.array("witnesses", low=1, high=WITNESSES_MAX)
        )
    )
    roots = tuple(
        parse_root(bytes_of(item, "root", low=1, high=STATEMENT_BYTES_MAX))
        for item in fields.array("roots", low=1, high=ROOTS_MAX)
    )
    _check_unique([name for name, _ in witnesses], "witness names")
    _check_unique([key for _, key in witnesses], "witness keys")
    _check_unique([root.code for root in roots], "founding roots")
    log_key = fields.bytes("log", length=FAST_PUBLIC_BYTES)
    relay_key = fields.bytes("relay", length=FAST_PUBLIC_BYTES)
    # A log that is its own witness would need nobody else to rewrite its past.
    _check_unique([log_key, relay_key, *(key for _, key in witnesses)], "keys of log and witnesses")
    return Genesis(
        origin=fields.text("origin", bytes_max=NAME_BYTES_MAX),
        log_key=log_key,
        relay_key=relay_key,
        witnesses=witnesses,
        quorum=fields.integer("quorum", low=1, high=len(witnesses)),
        roots=roots,
    )


def verify_genesis(signed: SignedStatement) -> Genesis:
    """Read a genesis and check that every founding root stands behind it.

    The caller compares ``Genesis.deployment`` with what it has pinned: signatures alone prove
    only that somebody with some keys wrote it.

    Raises:
        MalformedError: The payload is not a genesis.
        VerificationError: A root's threshold is not reached, or a key is unusable.

    Source: PROTOCOL [S-12]: a genesis is signed by the threshold of each founding root.
    """
    genesis = parse_genesis(signed.payload)
    if signed.boxes or signed.previous is not None:
        raise VerificationError("genesis comes with boxes, expected none")
    for key in (genesis.log_key, genesis.relay_key, *(key for _, key in genesis.witnesses)):
        check_fast_public(key)
    for root in genesis.roots:
        for public in root.custodians:
            check_full_public(public)
    known = {id_: key for root in genesis.roots for id_, key in root.custodian_keys.items()}
    if sum(len(root.custodians) for root in genesis.roots) != len(known):
        raise VerificationError("a custodian's key stands in two founding roots")
    signers = verify_signatures(signed, known)
    for root in genesis.roots:
        # SPEC [S-12]: a genesis is signed by the threshold of each founding root.
        if len(signers & root.custodian_keys.keys()) < root.threshold:
            raise VerificationError(
                f"genesis has too few signatures of {root.code}, expected {root.threshold}"
            )
    return genesis


def _check_unique(names: Sequence[str] | Sequence[bytes], what: str) -> None:
    if len(set(names)) != len(names):
        raise MalformedError(f"{what} are not each there once")
