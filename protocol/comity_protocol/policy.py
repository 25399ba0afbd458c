"""A deployment's witness policy in its text form: C2SP tlog-policy, in one canonical form.

The genesis holds it, so that the founding States sign which log and which witnesses to believe, and
so that anybody's verifier can be configured with the same text:

    log relay.example/log+33d3f1a0+AdG5…
    witness w1.xa.example w1.xa.example+8d66cf3f+BIaW… https://w1.xa.example
    witness w1.xb.example w1.xb.example+1ad0d7ea+BHxx…
    witness w2.xa.example w2.xa.example+0f2c6ad1+BPd0…
    group States 2 w1.xa.example w1.xb.example w2.xa.example
    quorum States

C2SP leaves many ways to write one policy. Here there is one, so that two States that compare texts
or hashes compare meanings: one line of log, witnesses ascending by name, groups in the order of the
tree with members ascending by name, thresholds in decimal, one space, no comment, no blank line.

Rules:

* [L-9] the quorum is that of the genesis's policy, which has one canonical form;
* a witness is called as its key is, and stands in the quorum;
* a name is a member at most once, and of a group on a later line, so that no group holds itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from comity_protocol.errors import LimitError, MalformedError
from comity_protocol.fields import text_of
from comity_protocol.limits import (
    ANCHOR_WITNESSES_MAX,
    POLICY_BYTES_MAX,
    WITNESS_URL_BYTES_MAX,
)
from comity_protocol.quorum import Quorum, require_policy_name
from comity_protocol.signed_note import KeyType, VerifierKey, parse_decimal

_SCHEMES: Final = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class Policy:
    """One log and the witnesses of which a quorum must have cosigned it.

    Attributes:
        log: The log's key, whose name is the log's origin.
        quorum: The tree of witnesses.
        urls: Submission prefix by name of witness, for those that have one.

    Raises:
        ValueError: The log's key is not one or is among the witnesses, a name is unusable, or an
            address is not one, or of nobody, or of two.
    """

    log: VerifierKey
    quorum: Quorum
    urls: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.log.type is not KeyType.ED25519:
            raise ValueError(f"key of the log is of type {self.log.type}, expected 1")
        require_policy_name(self.log.name)
        # A log that is its own witness would need nobody else to rewrite its past.
        if any(key.public_key == self.log.public_key for key in self.quorum.witnesses):
            raise ValueError("key of the log is among its witnesses")
        if not self.urls.keys() <= {key.name for key in self.quorum.witnesses}:
            raise ValueError("policy has an address of somebody who is no witness")
        if len(set(self.urls.values())) != len(self.urls):
            raise ValueError("policy has one address for two witnesses")
        for url in self.urls.values():
            _require_url(url)

    @property
    def outline(self) -> tuple[str, ...]:
        """The lines that say who counts how, without keys and addresses."""
        groups = _sorted(self.quorum).groups
        return (
            *(
                f"group {group.name} {group.threshold} {' '.join(map(_name, group.members))}"
                for group in groups
            ),
            f"quorum {self.quorum.name}",
        )

    def serialize(self) -> str:
        """Give the text, each line with its newline."""
        witnesses = [
            " ".join(("witness", key.name, key.serialize(), *_if_any(self.urls.get(key.name))))
            for key in sorted(self.quorum.witnesses, key=_name)
        ]
        lines = (f"log {self.log.serialize()}", *witnesses, *self.outline)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """Read a policy, refusing whatever ``serialize`` would not have written.

        Raises:
            LimitError: It is too long.
            MalformedError: A line, a key or the tree is not usable, or there is another way to
                write the same policy.

        Source: PROTOCOL [L-9]; C2SP tlog-policy.
        """
        if len(text.encode()) > POLICY_BYTES_MAX:
            raise LimitError(
                f"policy is {len(text.encode()):,} bytes, expected at most {POLICY_BYTES_MAX:,}"
            )
        try:
            policy = _read(text.split("\n")[:-1])
        except ValueError as error:
            raise MalformedError(f"policy is not usable: {error}") from error
        # SPEC [L-9]: it has one canonical form.
        if policy.serialize() != text:
            raise MalformedError("policy is not in its one canonical form")
        return policy


def check_anchors(anchors: Policy, policy: Policy) -> None:
    """Check that anchors name the same log, witnesses and groups as the policy, with other keys.

    Raises:
        MalformedError: They do not, or are too many for one note.

    Source: PROTOCOL [L-10].
    """
    if anchors.quorum.type is not KeyType.MLDSA44:
        raise MalformedError("anchors have Ed25519 keys of witnesses, expected ML-DSA-44")
    # SPEC [L-10]: an anchor has its own quorum. It is the same tree, so that it is no weaker one.
    if anchors.log != policy.log or anchors.outline != policy.outline:
        raise MalformedError(
            "anchors are of another log, or other witnesses or groups, than policy"
        )
    if anchors.urls:
        raise MalformedError("anchors have addresses, expected them in the policy alone")
    if (count := len(anchors.quorum.witnesses)) > ANCHOR_WITNESSES_MAX:
        raise MalformedError(
            f"anchors have {count} witnesses, expected at most {ANCHOR_WITNESSES_MAX}"
        )


def _read(lines: Sequence[str]) -> Policy:
    """Read lines in order: what a name stands for, until it becomes a member and cannot again."""
    log: VerifierKey | None = None
    urls: dict[str, str] = {}
    free: dict[str, VerifierKey | Quorum] = {}
    for line in lines[:-1]:
        match text_of(line, "line of the policy", bytes_max=POLICY_BYTES_MAX).split(" "):
            case ["log", vkey] if log is None:
                log = VerifierKey.parse(vkey)
            case ["witness", name, vkey, *rest] if len(rest) <= 1 and name not in free:
                free[name] = _witness(name, vkey)
                if rest:
                    urls[name] = rest[0]
            case ["group", name, threshold, *members] if members and name not in free:
                taken = tuple(_take(free, member) for member in members)
                free[name] = Quorum(parse_decimal(threshold, "threshold of a group"), taken, name)
            case _:
                raise MalformedError("policy has a line that is unknown or there twice")
    match lines[-1:]:
        case [last] if last.startswith("quorum "):
            quorum = _take(free, last.removeprefix("quorum "))
        case _:
            raise MalformedError("policy does not end in its quorum")
    if log is None:
        raise MalformedError("policy names no log")
    if not isinstance(quorum, Quorum):
        raise MalformedError("policy has a witness as quorum, expected a group, if only of one")
    if free:
        raise MalformedError("policy has a witness or a group that is not in its quorum")
    return Policy(log, quorum, urls)


def _witness(name: str, vkey: str) -> VerifierKey:
    key = VerifierKey.parse(vkey)
    if key.name != name:
        raise MalformedError("policy calls a witness otherwise than its key does")
    return key


def _take(free: dict[str, VerifierKey | Quorum], name: str) -> VerifierKey | Quorum:
    try:
        return free.pop(name)
    except KeyError as error:
        raise MalformedError(
            "policy has a member that is on no earlier line or in another group already"
        ) from error


def _require_url(url: str) -> None:
    if len(url) > WITNESS_URL_BYTES_MAX:
        raise ValueError(f"address is {len(url)} bytes, expected at most {WITNESS_URL_BYTES_MAX}")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("address has letters beyond ASCII or spaces")
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.netloc:
        raise ValueError("address does not begin with http:// or https:// and a host")


def _sorted(quorum: Quorum) -> Quorum:
    """Give the same tree with all members ascending by name."""
    members = sorted(
        (_sorted(one) if isinstance(one, Quorum) else one for one in quorum.members), key=_name
    )
    return Quorum(quorum.threshold, tuple(members), quorum.name)


def _name(one: VerifierKey | Quorum) -> str:
    return one.name


def _if_any(text: str | None) -> tuple[str, ...]:
    return () if text is None else (text,)
