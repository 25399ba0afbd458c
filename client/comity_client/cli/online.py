"""A desk with its keys open: synchronise, send, and say honestly how far it came."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from comity_client.brackets import Times
from comity_client.census import BUNDLES_BEFORE_SENDING
from comity_client.cli.dates import after_words, stamped_lines
from comity_client.cli.exits import Exit
from comity_client.cli.known import DIGITS_MIN, find_desk, name_of
from comity_client.cli.shell import NotFoundError, Shell
from comity_client.desk import Desk
from comity_client.drafts import DraftError
from comity_client.envelopes import Stage, Status
from comity_client.refill import REPAIRING
from comity_client.transport import OfflineError, RelayRefusedError
from comity_protocol.errors import MalformedError
from comity_protocol.identifiers import DeskId, EnvelopeId, ExchangeId, short

Result = TypeVar("Result")

WAIT_TRIES_MAX: Final = 120
WAIT_SECONDS: Final = 0.5

STAGE_WORDS: Final = {
    Stage.QUEUED: "queued: on this machine only, goes out with the next `comity sync`",
    Stage.ACCEPTED: "accepted: the relay has it and promised to log it",
    Stage.SEALED: "sealed: in the log, cosigned by the witnesses",
    Stage.STORED: "stored: the other desk holds it and can open it",
    Stage.ACKNOWLEDGED: "acknowledged: the other desk named who is competent",
    Stage.ANSWERED: "answered",
    Stage.REJECTED: "rejected: the relay refused it, and it was not sent",
}


def with_desk(shell: Shell, do: Callable[[Desk], Awaitable[Result]]) -> Result:
    """Open the desk, do something with it, close it."""
    keys = shell.device_keys()

    async def run() -> Result:
        async with Desk.open(shell.folder, keys, now=shell.now) as desk:
            return await do(desk)

    return asyncio.run(run())


def send(shell: Shell, seal: Callable[[Desk], EnvelopeId]) -> int:
    """Synchronise, seal an act, send it, and say how far it came.

    Without a network the act is sealed to what was last synchronised and queued.

    Returns:
        0 when the relay has it, 5 when the relay refused it, 6 when it is queued.
    """

    async def do(desk: Desk) -> tuple[Status, str, str, list[str]]:
        is_online = await _sync(shell, desk)
        try:
            envelope = seal(desk)
        except MalformedError as error:
            # The writer is here, and can repair what another sender would be asked to.
            raise DraftError(str(error)) from error
        if is_online:
            with shell.step("sending"):
                await _flush(shell, desk)
        opened = desk.read(envelope)
        to = name_of(opened.core.counterpart, desk.profile, dict(desk.directory.desks))
        heading = f"{opened.record.event.value} to {to}"
        status = desk.status(envelope)
        more = stamped_lines(desk.stamped(envelope), status.envelope)
        return status, heading, opened.record.exchange.hex(), more

    status, heading, exchange, more = with_desk(shell, do)
    document = {**status_document(status), "exchange": exchange}
    shell.give(
        "sent",
        document,
        [
            heading,
            f"envelope  {status.envelope.hex()}",
            f"exchange  {exchange}",
            *status_lines(status),
            *more,
        ],
    )
    return exit_of_status(status)


def status_document(status: Status) -> dict[str, object]:
    """Give a status as a document."""
    return {
        "envelope": status.envelope.hex(),
        "stage": status.stage.value,
        "leaf_index": status.leaf_index,
        "sealed_at": status.sealed_at,
        "problem": status.problem,
        "broken_promise": status.is_broken,
    }


def status_lines(status: Status, times: Times | None = None) -> list[str]:
    """Say how far an envelope has come, and when the witnesses had it."""
    lines = [STAGE_WORDS[status.stage]]
    bracket = times.bracket if times else None
    sealed_at = status.sealed_at if bracket is None else bracket.not_after
    if status.sealed_at is not None and sealed_at is not None:
        lines.append(f"leaf {status.leaf_index}, {moment(sealed_at)} by the witnesses")
        lines.append(after_words(times))
    if status.problem:
        lines.append(f"problem: {status.problem}")
    if status.is_broken:
        lines.append("the relay broke its promise to log it; the proof is kept, tell the operator")
    return lines


def exit_of_status(status: Status) -> int:
    """Give the exit code that says how far an envelope has come."""
    match status.stage:
        case Stage.QUEUED:
            return Exit.OFFLINE
        case Stage.REJECTED:
            return Exit.REFUSED
        case _:
            return Exit.OK


def moment(seconds: int) -> str:
    """Write a time as people read it: UTC, to the second."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def find_to(desk: Desk, text: str) -> DeskId:
    """Give the desk that somebody means; see ``known.find_desk``."""
    return find_desk(text, desk.profile, dict(desk.directory.desks))


def find_exchange(desk: Desk, text: str) -> ExchangeId:
    """Give the exchange whose id begins so, with eight digits or more.

    Raises:
        NotFoundError: None does, or several do.
    """
    # Fewer digits are a slip of the hand, which must not answer another exchange.
    if len(text) < DIGITS_MIN:
        raise NotFoundError(
            f"exchange {text!r} has {len(text)} digits, expected {DIGITS_MIN} or more; see"
            " `comity exchange list`"
        )
    found = sorted(one.id for one in desk.exchanges() if one.id.hex().startswith(text.lower()))
    if len(found) != 1:
        listed = f": {', '.join(short(id_) for id_ in found)}" if found else _other(desk, text)
        raise NotFoundError(
            f"{len(found) or 'no'} exchanges begin with {text!r}{listed}; see"
            " `comity exchange list`"
        )
    return found[0]


def _other(desk: Desk, text: str) -> str:
    """Name the exchange of the envelope that was taken for one."""
    for line in desk.inbox():
        if line.envelope and line.exchange and line.envelope.hex().startswith(text.lower()):
            return f", but an envelope does, and its exchange is {short(line.exchange)}"
    return ""


async def _sync(shell: Shell, desk: Desk) -> bool:
    """Synchronise; whether the relay was there."""
    if shell.is_offline:
        return False
    try:
        with shell.step("synchronising"):
            await desk.sync()
            # SPEC [B-13]: a removal that is hidden is found before anything is sealed.
            await desk.count_statements(BUNDLES_BEFORE_SENDING)
            await desk.fetch()
    except OfflineError as error:
        shell.hint(f"offline: {error}")
        # Witnesses may answer where the relay does not.
        await desk.stamp()
        return False
    except RelayRefusedError as error:
        await desk.stamp()
        if error.code != REPAIRING:
            raise
        # What is written meanwhile is queued, as without a network.
        shell.hint(f"queued: {error}")
        return False
    return True


async def _flush(shell: Shell, desk: Desk) -> None:
    try:
        await desk.flush()
    except OfflineError as error:
        shell.hint(f"offline: {error}")


async def wait_until(shell: Shell, desk: Desk, envelope: EnvelopeId, stage: str) -> None:
    """Ask the relay until an envelope has come so far, for a bounded time."""
    order = list(Stage)
    wanted = order.index(Stage(stage))
    for _ in range(WAIT_TRIES_MAX):
        found = desk.status(envelope).stage
        if found is Stage.REJECTED or order.index(found) >= wanted:
            return
        if not await _sync(shell, desk):
            return
        await _flush(shell, desk)
        await asyncio.sleep(WAIT_SECONDS)
