"""What a statement says, in words that a custodian can check before signing.

Every line is made from the payload that will be signed, from nothing beside it. Keys are shown as
fingerprints, so that two people can compare them by voice.
"""

from comity_protocol.errors import MalformedError
from comity_protocol.genesis import Genesis, Root, parse_genesis
from comity_protocol.identifiers import short
from comity_protocol.keys import Context, digest, fingerprint, key_id
from comity_protocol.policy import Policy as WitnessPolicy
from comity_protocol.quorum import Quorum
from comity_protocol.statements import (
    DeskStatement,
    DeviceStatement,
    EpochKeys,
    EpochStatement,
    Link,
    Policy,
    PolicyStatement,
    RemovalStatement,
    Role,
    Statement,
    parse_statement,
)


def key_fingerprint(public: bytes) -> str:
    """Give the fingerprint of a composite public key: eight groups of four."""
    return fingerprint(digest(Context.KEY, public))


def describe(payload: bytes) -> tuple[str, ...]:
    """Say what a genesis or a statement says, one line each; the first is its heading.

    Raises:
        MalformedError: It is neither.
    """
    try:
        statement = parse_statement(payload)
    except MalformedError:
        return _genesis(parse_genesis(payload))
    return _statement(statement)


def describe_root(root: Root) -> tuple[str, ...]:
    """Say who decides for a State."""
    return (
        f"root of {root.code}: {root.threshold} of {len(root.custodians)} custodians decide",
        *(f"  custodian {key_fingerprint(public)}" for public in root.custodians),
    )


def needed(quorum: Quorum) -> str:
    """Say how many must have cosigned: ``2``, or ``2 of States (2 of 3), neutral (1 of 2)``."""
    return str(quorum) if len(quorum.groups) > 1 else str(quorum.threshold)


def _genesis(genesis: Genesis) -> tuple[str, ...]:
    return (
        f"genesis: found the deployment {genesis.deployment.hex()}",
        f"  log          {genesis.origin}, key {genesis.log.public_key.hex()}",
        f"  relay        key {genesis.relay_key.hex()}",
        *_witnesses(genesis.policy),
        *_quorum(genesis.quorum),
        *_anchors(genesis.anchors),
        *(f"  {line}" for root in genesis.roots for line in describe_root(root)),
    )


def _witnesses(policy: WitnessPolicy) -> tuple[str, ...]:
    return tuple(
        f"  witness      {key.name}, key {key.public_key.hex()}"
        + (f", at {url}" if (url := policy.urls.get(key.name)) else "")
        for key in policy.quorum.witnesses
    )


def _quorum(quorum: Quorum) -> tuple[str, ...]:
    """Say who counts how, the whole before its parts."""
    *inner, whole = quorum.groups
    return (
        f"  quorum       {_counted(whole)}",
        *(f"  group        {group.name} counts with {_counted(group)}" for group in inner[::-1]),
    )


def _counted(group: Quorum) -> str:
    count = len(group.members)
    kinds = {isinstance(one, Quorum) for one in group.members}
    noun = "members" if len(kinds) > 1 else "group" if kinds == {True} else "witness"
    plural = {"group": "groups", "witness": "witnesses"}.get(noun, noun)
    names = ", ".join(one.name for one in group.members)
    return f"{group.threshold} of {count} {noun if count == 1 else plural}: {names}"


def _anchors(anchors: WitnessPolicy | None) -> tuple[str, ...]:
    if anchors is None:
        return ("  anchors      none: proofs last as long as Ed25519 does",)
    return (
        "  anchors      the same quorum signs one checkpoint a day with ML-DSA-44 too",
        *(
            f"  anchor key   {key.name}, fingerprint {key_fingerprint(key.public_key)}"
            for key in anchors.quorum.witnesses
        ),
    )


def _statement(statement: Statement) -> tuple[str, ...]:
    where = _where(statement.link)
    match statement:
        case DeskStatement(party=party, authority=authority, policy=policy):
            return (f"desk: create a {authority.value} desk of {party}", *where, *_policy(policy))
        case DeviceStatement():
            role = "an admin" if statement.role is Role.ADMIN else "an officer"
            return (
                f"device: admit a device of {role}",
                *where,
                f"  device       {key_id(statement.full).hex()}",
                f"  fingerprint  {key_fingerprint(statement.full)}",
                f"  officer      {statement.officer.hex()}",
                "  gets         "
                + ("the desk's current keys" if statement.box_hash else "no keys yet"),
            )
        case EpochStatement(epoch=epoch):
            return (f"epoch: begin epoch {epoch.number}", *where, *_members(epoch))
        case RemovalStatement(gone=gone, reason=reason, epoch=epoch):
            return (
                f"removal: remove {len(gone)} device{'s' if len(gone) > 1 else ''} ({reason.value})"
                f" and begin epoch {epoch.number}",
                *where,
                *(f"  removed      {device.hex()}" for device in gone),
                *_members(epoch),
            )
        case PolicyStatement(policy=policy):
            return ("policy: change the desk's policy", *where, *_policy(policy))


def _where(link: Link) -> tuple[str, ...]:
    return (
        f"  deployment   {link.deployment.hex()}",
        f"  desk         {link.desk.hex()}, statement {link.seq}",
    )


def _members(epoch: EpochKeys) -> tuple[str, ...]:
    return tuple(f"  member       {device.hex()}" for device in epoch.members)


def _policy(policy: Policy) -> tuple[str, ...]:
    def desks(ids: tuple[bytes, ...]) -> str:
        return ", ".join(short(id_) for id_ in ids) or "none"

    return (
        f"  admits by    {policy.add_admins} admin{'s' if policy.add_admins > 1 else ''}"
        " of distinct officers, or the custodians",
        f"  auditors     of files: {desks(policy.auditors_file)};"
        f" of leads: {desks(policy.auditors_lead)}",
        f"  epochs       turn after {policy.epoch_days} days",
        f"  freshness    others seal to it within {policy.fresh_hours} hours of a checkpoint",
        f"  history      the relay keeps sealed envelopes for {policy.history_days} days",
    )
