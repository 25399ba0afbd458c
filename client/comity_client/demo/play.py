"""Plays the cases over real HTTP, one phase for all exchanges at a time.

Every figure that is shown is read back from the desks: nothing here is told what should come out.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from comity_client.demo.cases import CaseFile, ThreadFile
from comity_client.desk import Desk
from comity_client.drafts import Draft
from comity_client.envelopes import Stage
from comity_protocol.acts import Event
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import EnvelopeId, ExchangeId
from comity_protocol.profiles import PROFILES

_WAITS_MAX: Final = 100
_WAIT_SECONDS: Final = 0.1

Report = Callable[[str, str], None]
"""Takes what happened, as a phase and a line for people."""


class DemoError(ComityError):
    """The demonstration did not come to its end; the message says where."""

    code = "demo"
    remedy = "run it again with --folder FOLDER and look at the relay's log in it"


@dataclass(slots=True)
class Played:
    """One exchange as it was played.

    Attributes:
        stages: Every state that the opening act was seen in, in order, with seconds since it was
            queued.
    """

    case: int
    file: ThreadFile
    exchange: ExchangeId
    opening: EnvelopeId
    queued_at: float
    stages: list[tuple[str, float]] = field(default_factory=list)

    def note(self, stage: Stage) -> None:
        """Keep a state when it is new."""
        if not self.stages or self.stages[-1][0] != stage.value:
            self.stages.append((stage.value, round(time.monotonic() - self.queued_at, 3)))


async def play(desks: dict[str, Desk], cases: Iterable[CaseFile], report: Report) -> list[Played]:
    """Play every exchange of every case to its end.

    Raises:
        DemoError: A state that must come did not come in time.
    """
    played = [
        _open(desks[thread.from_], desks[thread.to], case.number, thread)
        for case in cases
        for thread in case.threads
    ]
    report("queued", f"{len(played)} exchanges written and sealed on the officers' machines")
    await _send(desks, played)
    await _until(played, desks, Stage.SEALED)
    report("sealed", "each act is in the log, under a checkpoint that a quorum of witnesses signed")

    await _fetch(desks)
    await _until(played, desks, Stage.STORED)
    report("stored", "each recipient's device says: I hold it and can open it")

    await _reply(desks, played, Event.ACKNOWLEDGE, lambda file: file.acknowledgement)
    await _until(played, desks, Stage.ACKNOWLEDGED)
    report("acknowledged", "a competent authority has taken each matter up")

    await _reply(desks, played, None, lambda file: file.reply)
    await _until(played, desks, Stage.ANSWERED)
    report("answered", "answers and one reasoned refusal have come back")

    for item in played:
        desks[item.file.from_].close(item.exchange, Draft())
    await _send(desks, played)
    await _fetch(desks)
    report("closed", "each initiator has confirmed what it received")
    return played


def _open(initiator: Desk, responder: Desk, case: int, thread: ThreadFile) -> Played:
    opens = PROFILES[thread.procedure].opens
    verb = initiator.lead if opens is Event.LEAD else initiator.request
    queued_at = time.monotonic()
    envelope = verb(responder.profile.desk, thread.opening)
    act = initiator.read(envelope).act
    if act is None:
        raise DemoError("the own act cannot be read back")
    played = Played(case, thread, act.exchange, envelope, queued_at)
    played.note(initiator.status(envelope).stage)
    return played


async def _reply(
    desks: dict[str, Desk],
    played: list[Played],
    event: Event | None,
    draft: Callable[[ThreadFile], Draft],
) -> None:
    for item in played:
        responder = desks[item.file.to]
        responder.act(item.exchange, event or item.file.ending_event, draft(item.file))
    await _send(desks, played)
    await _fetch(desks)


async def _send(desks: dict[str, Desk], played: list[Played]) -> None:
    await _each(desks, lambda desk: desk.flush())
    for item in played:
        item.note(desks[item.file.from_].status(item.opening).stage)


async def _fetch(desks: dict[str, Desk]) -> None:
    await _each(desks, lambda desk: desk.fetch())


async def _each(desks: dict[str, Desk], verb: Callable[[Desk], Awaitable[object]]) -> None:
    async with asyncio.TaskGroup() as group:
        for desk in desks.values():
            group.create_task(_run(verb(desk)))


async def _run(awaitable: Awaitable[object]) -> None:
    await awaitable


async def _until(played: list[Played], desks: dict[str, Desk], stage: Stage) -> None:
    """Synchronise until every opening act has reached a state."""
    order = list(Stage)
    for _ in range(_WAITS_MAX):
        late = []
        for item in played:
            status = desks[item.file.from_].status(item.opening)
            item.note(status.stage)
            if order.index(status.stage) < order.index(stage):
                late.append(item)
        if not late:
            return
        for desk in {item.file.from_: desks[item.file.from_] for item in late}.values():
            await desk.sync()
            await desk.fetch()
        await asyncio.sleep(_WAIT_SECONDS)
    raise DemoError(f"an act did not become {stage.value} in time")
