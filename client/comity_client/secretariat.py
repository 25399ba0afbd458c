"""Response times, as a secretariat computes them: from audit records, without opening a body.

The secretariat's desk is an auditor of the desks of its region: it gets the audit part of every
envelope and the key for nothing else. What is said here, anyone who holds the same records can
compute again and compare by digest.
"""

from comity_client.desk import Desk
from comity_protocol.counting import Response, fold, response_times
from comity_protocol.exchange import Step


def audited_steps(desk: Desk) -> tuple[Step, ...]:
    """Give every act that this desk audits, verified, ascending by leaf index."""
    steps = []
    for line in desk.inbox():
        if line.envelope is None or line.refused is not None:
            continue
        if desk.profile.desk in (line.sender, line.receiver):
            # An act of the secretariat's own exchanges is not one that it audits.
            continue
        opened = desk.read(line.envelope)
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
    return tuple(sorted(steps, key=lambda step: step.index))


async def responses(desk: Desk) -> tuple[Response, ...]:
    """Compute the response time of every exchange that this desk audits.

    Raises:
        OfflineError: The relay is not there to date the acts.
        VerificationError: It dates them with a checkpoint that does not hold.
    """
    steps = audited_steps(desk)
    exchanges, _ = fold(steps)
    wanted = {
        index
        for exchange in exchanges.values()
        for index in (exchange.opened_index, exchange.acknowledged_index, exchange.final_index)
        if index is not None
    }
    dated = {index: await desk.sealed_at(index) for index in sorted(wanted)}
    return response_times(
        steps,
        sealed_at=dated.__getitem__,
        party={id_: member.party for id_, member in desk.directory.desks.items()},
    )
