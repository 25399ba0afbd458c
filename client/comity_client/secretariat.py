"""Response times, as a secretariat computes them: from audit records, without opening a body.

The secretariat's desk is an auditor of the desks of its region: it gets the audit part of every
envelope and the key for nothing else. What is said here, anyone who holds the same records can
compute again and compare by digest.
"""

from comity_client.desk import Desk
from comity_protocol.counting import Clock, Fault, Statistics, Unaccounted, count
from comity_protocol.errors import ComityError, OpenError
from comity_protocol.exchange import Step


def audited(desk: Desk) -> tuple[tuple[Step, ...], tuple[Unaccounted, ...]]:
    """Give every act that this desk audits, verified, and every envelope that it cannot count."""
    steps: list[Step] = []
    unaccounted: list[Unaccounted] = []
    for line in desk.inbox():
        if line.envelope is None or line.sender is None or line.sealed_at is None:
            # By whom it is, or that it is in the log, is not proven: it counts against nobody.
            continue
        if desk.profile.desk in (line.sender, line.receiver):
            # An act of the secretariat's own exchanges is not one that it audits.
            continue
        try:
            opened = desk.read(line.envelope)
        except ComityError as error:
            # SPEC [N-4]: an audit part that does not open counts against its sender.
            fault = Fault.UNOPENED if isinstance(error, OpenError) else Fault.UNVERIFIED
            unaccounted.append(Unaccounted(line.leaf_index, line.envelope, line.sender, fault))
            continue
        core = opened.core
        steps.append(
            Step(
                index=line.leaf_index,
                envelope=core.id,
                sender=core.sender,
                receiver=core.counterpart,
                authority=desk.directory.desk(core.sender).authority,
                kind=core.kind,
                record=opened.record,
            )
        )
    return tuple(steps), tuple(unaccounted)


async def statistics(desk: Desk) -> Statistics:
    """Count every exchange that this desk audits.

    Raises:
        OfflineError: The relay is not there to date the acts.
        VerificationError: It dates them with a checkpoint that does not hold.
    """
    steps, unaccounted = audited(desk)
    sealed = {step.index: await desk.sealed_at(step.index) for step in steps}
    return count(
        steps,
        clock=Clock(
            sealed=sealed,
            as_of=max(sealed.values(), default=0),
            witnesses=len(desk.directory.genesis.quorum.witnesses),
        ),
        party={id_: member.party for id_, member in desk.directory.desks.items()},
        unaccounted=unaccounted,
    )
