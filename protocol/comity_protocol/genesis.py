"""What the chains of a deployment rest on: its genesis and the roots of the founding States.

    root        a State's or organisation's custodians, and how many of them decide
    genesis     witness policy, anchors, relay key, and the roots of the founding States

What custodians, admins and devices state after that is in ``statements.py``.

Rules:

* [S-12] A genesis is signed by the threshold of each founding root.
* [L-9] The quorum is that of the genesis's policy, which has one canonical form.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from comity_protocol.encoding import parse, serialize
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.fields import Fields, bytes_of, check_ascending
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
    POLICY_BYTES_MAX,
    ROOTS_MAX,
    STATEMENT_BYTES_MAX,
)
from comity_protocol.policy import Policy, check_anchors
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import KeyType, VerifierKey
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
    """The founding States' word on which log, relay and witnesses to believe.

    Attributes:
        policy: The log, and the witnesses that cosign every checkpoint with Ed25519.
        anchors: The same log and tree of witnesses with ML-DSA-44 keys; None when there are none.
        relay_key: Fast public key by which the relay promises.
        roots: Those of the founding States.
    """

    policy: Policy
    anchors: Policy | None
    relay_key: bytes
    roots: tuple[Root, ...]

    @property
    def origin(self) -> str:
        """Name of the log."""
        return self.policy.log.name

    @property
    def log(self) -> VerifierKey:
        """Key of the log."""
        return self.policy.log

    @property
    def quorum(self) -> Quorum:
        """The witnesses that must have cosigned a checkpoint."""
        return self.policy.quorum

    def serialize(self) -> bytes:
        """Give the bytes that the founding custodians sign."""
        return serialize(
            {
                "v": 1,
                "t": "genesis",
                "policy": self.policy.serialize(),
                "anchors": self.anchors.serialize() if self.anchors else "",
                "relay": self.relay_key,
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
    names = {"v", "t", "policy", "anchors", "relay", "roots"}
    fields = Fields.of(parse(payload), "genesis", names)
    check_type(fields, "genesis")
    # SPEC [L-9]: the quorum is that of the genesis's policy.
    policy = Policy.parse(fields.prose("policy", bytes_max=POLICY_BYTES_MAX))
    if policy.quorum.type is not KeyType.COSIGNATURE_V1:
        raise MalformedError("genesis has a policy of ML-DSA-44 keys, expected them as anchors")
    anchors_text = fields.prose("anchors", bytes_max=POLICY_BYTES_MAX)
    anchors = Policy.parse(anchors_text) if anchors_text else None
    if anchors is not None:
        check_anchors(anchors, policy)
    roots = tuple(
        parse_root(bytes_of(item, "root", low=1, high=STATEMENT_BYTES_MAX))
        for item in fields.array("roots", low=1, high=ROOTS_MAX)
    )
    _check_unique([root.code for root in roots], "founding roots")
    relay_key = fields.bytes("relay", length=FAST_PUBLIC_BYTES)
    keys = [policy.log.public_key, *(key.public_key for key in policy.quorum.witnesses)]
    _check_unique([relay_key, *keys], "keys of relay, log and witnesses")
    return Genesis(policy, anchors, relay_key, roots)


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
    check_fast_public(genesis.relay_key)
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
