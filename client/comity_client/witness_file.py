"""What a witness hands to those who found a deployment, and the policies made of several.

A witness writes ``witness.json``: ``verifier_key``, maybe ``anchor_key`` for ML-DSA-44, maybe
``url`` where a relay can reach it. Nothing in it is believed: the custodians see every key before
they sign the genesis, and compare it with the witness's operator.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from comity_client.pending import CeremonyError
from comity_protocol.errors import MalformedError
from comity_protocol.policy import Policy
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import KeyType, VerifierKey

WITNESS_FILE_BYTES_MAX: Final = 16_384


@dataclass(frozen=True, slots=True)
class WitnessFile:
    """The public side of one witness.

    Attributes:
        key: With which it cosigns every checkpoint.
        anchor: With which it cosigns anchors; None when it does not.
        url: Its submission prefix; empty when it has no address of its own.
    """

    key: VerifierKey
    anchor: VerifierKey | None = None
    url: str = ""

    @classmethod
    def of(cls, document: Mapping[str, object]) -> "WitnessFile":
        """Take what was read from the file; names that it may have besides are passed over.

        Raises:
            MalformedError: A key is missing, unusable or of the wrong kind.
        """
        anchor = document.get("anchor_key")
        return cls(
            _key(document.get("verifier_key"), KeyType.COSIGNATURE_V1),
            None if anchor is None else _key(anchor, KeyType.MLDSA44),
            str(document.get("url") or ""),
        )

    @classmethod
    def parse(cls, data: bytes) -> "WitnessFile":
        """Read the file.

        Raises:
            MalformedError: It is not what a witness writes.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise MalformedError("witness's file is not JSON") from error
        if not isinstance(document, dict):
            raise MalformedError("witness's file is not an object of JSON")
        return cls.of(document)


def flat_policies(
    log: VerifierKey, witnesses: Sequence[WitnessFile], threshold: int
) -> tuple[Policy, Policy | None]:
    """Make the policy in which so many of these witnesses are enough, and its anchors.

    Returns:
        The policy; and the anchors, when every witness has a key for them.

    Raises:
        CeremonyError: The quorum can never be reached, or a witness is there twice or unusable.
    """
    anchors = [one.anchor for one in witnesses if one.anchor is not None]
    try:
        policy = Policy(
            log,
            Quorum(threshold, tuple(one.key for one in witnesses)),
            {one.key.name: one.url for one in witnesses if one.url},
        )
        if len(anchors) < len(witnesses):
            return policy, None
        return policy, Policy(log, Quorum(threshold, tuple(anchors)))
    except ValueError as error:
        raise CeremonyError(f"policy is not usable: {error}") from error


def _key(text: object, expected: KeyType) -> VerifierKey:
    if not isinstance(text, str):
        raise MalformedError("witness's file has no verifier key")
    key = VerifierKey.parse(text)
    if key.type is not expected:
        raise MalformedError(f"key of {key.name} is of type {key.type}, expected {expected}")
    return key
