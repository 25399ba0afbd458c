"""Response times, as a secretariat computes them: from audit records, without opening a body.

The secretariat's desk is an auditor of the desks of its region: it gets the audit part of every
envelope and the key for nothing else. What is said here, anyone who holds the same records can
compute again and compare by digest.
"""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from comity_client.archive_relay import ArchiveRelay
from comity_client.audit_archive import Archive
from comity_client.brackets import read_calendar
from comity_client.desk import Desk
from comity_client.keystore import DeviceKeys
from comity_client.profile import STATE_FILE, Profile
from comity_client.relay_answers import Boxes
from comity_client.seeds import NoKeyError
from comity_client.state import create_state
from comity_protocol.counting import Clock, Delivery, Fault, Statistics, Unaccounted, count
from comity_protocol.errors import ComityError, OpenError
from comity_protocol.exchange import Step
from comity_protocol.identifiers import DeskId, EnvelopeId


def audited(desk: Desk) -> tuple[tuple[Step, ...], tuple[Unaccounted, ...]]:
    """Give every act that this desk audits, verified, and every envelope that it cannot count.

    Raises:
        NoKeyError: This device was not given its own desk's keys, so that it cannot tell what
            others hid from it.
    """
    gone = {
        row[0]
        for row in desk.state.connection.execute("SELECT envelope FROM inbox WHERE audit = x''")
    }
    steps: list[Step] = []
    unaccounted: list[Unaccounted] = []
    for line in desk.inbox():
        if line.envelope is None or line.sender is None or line.sealed_at is None:
            # By whom it is, or that it is in the log, is not proven: it counts against nobody.
            continue
        if desk.profile.desk in (line.sender, line.receiver):
            # An act of the secretariat's own exchanges is not one that it audits.
            continue
        if line.envelope in gone:
            # Erased by this desk, or ended at the relay: no sender has a hand in that.
            fault = Fault.GONE
            unaccounted.append(Unaccounted(line.leaf_index, line.envelope, line.sender, fault))
            continue
        try:
            opened = desk.read(line.envelope)
        except NoKeyError:
            raise
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


async def statistics(desk: Desk, *, is_online: bool = True) -> Statistics:
    """Count every exchange that this desk audits, as of the newest verified checkpoint.

    Args:
        desk: Synchronised and fetched.
        is_online: Whether the relay is asked for published checkpoints; without it those that are
            known date the acts.

    Raises:
        OfflineError: The relay is not there to date the acts.
        VerificationError: It dates them with a checkpoint that does not hold.
    """
    if is_online:
        await desk.dating.read_published()
    steps, unaccounted = audited(desk)
    as_of, genesis = desk.newest, desk.genesis
    calendar, times = read_calendar(desk.state, as_of.sealed_at), desk.times()
    deliveries = tuple(_deliveries(desk, {step.envelope for step in steps}))
    leaves = {step.index for step in steps} | {one.index for one in deliveries}
    seen = {step.index: times[step.envelope].seen_at for step in steps}
    stamped = {step.index: times[step.envelope].stamped_at for step in steps}
    return count(
        steps,
        clock=Clock(
            sealed={index: calendar.sealed(index) or as_of.sealed_at for index in leaves},
            seen={index: at for index, at in seen.items() if at is not None},
            stamped={index: at for index, at in stamped.items() if at is not None},
            published=calendar.all,
            size=as_of.size,
            as_of=as_of.sealed_at,
            witnesses=len(genesis.quorum.witnesses),
            least=genesis.quorum.movers,
        ),
        party={id_: member.party for id_, member in desk.directory.desks.items()},
        deliveries=deliveries,
        unaccounted=unaccounted,
    )


async def statistics_of(
    archive: Archive, profile: Profile, keys: DeviceKeys, boxes: Boxes, now: Callable[[], int]
) -> Statistics:
    """Count the same from a folder that ``comity audit fetch --desk`` wrote, without the relay.

    Everything in the folder is verified as if the relay had just served it. The work is done in a
    folder of its own, which is removed; nothing in the profile is changed.

    Args:
        archive: The folder.
        profile: Whose desk audits.
        keys: Of its device.
        boxes: What opens the desk's secrets; no folder has them.
        now: Gives UTC seconds.

    Raises:
        ArchiveError, OfflineError: Something is missing in the folder, or unreadable.
        VerificationError: Something in it does not hold.
    """
    pins = {
        "genesis_hash": profile.deployment.genesis_hash,
        "desk": profile.desk,
        "device": profile.device,
    }
    with TemporaryDirectory(prefix="comity-") as folder:
        state = create_state(Path(folder) / STATE_FILE, **pins)
        relay = ArchiveRelay(archive, boxes)
        async with Desk(profile, keys, state, now=now, relay=relay) as desk:
            await desk.sync()
            await desk.receive()
            return await statistics(desk)


def _deliveries(desk: Desk, counted: Collection[EnvelopeId]) -> Iterator[Delivery]:
    rows = desk.state.connection.execute("SELECT envelope, desk, leaf_index FROM stored")
    for envelope, receiver, index in rows:
        if envelope in counted:
            yield Delivery(index, EnvelopeId(envelope), DeskId(receiver))
