"""A witness: a small program of a State that remembers the log and cosigns only what continues it.

It speaks C2SP tlog-witness: `POST /add-checkpoint` with an old size, a consistency proof and a
checkpoint. It trusts nobody: not the relay, not its own clock once that has gone back, and not its
own memory once that has been lost.

Here live the rule by which it cosigns (`decide`) and the web server around it. Its key and its
memory are in `witness_state`; formats and proofs are those of `comity_protocol`.

Rules:

* [W-1] a witness stores the new checkpoint durably before it answers;
* [W-2] a witness cosigns only after a consistency proof from its stored size;
* [W-3] a witness whose clock went back refuses.
"""

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

from comity_client.witness_state import Evidence, Seen, WitnessKey, WitnessState, open_witness
from comity_protocol.checkpoint import (
    Checkpoint,
    claimed_origin,
    cosign,
    open_checkpoint,
)
from comity_protocol.errors import ComityError, LimitError, MalformedError, VerificationError
from comity_protocol.limits import (
    WITNESS_BODY_SECONDS_MAX,
    WITNESS_IDLE_SECONDS_MAX,
    WITNESS_LINGER_SECONDS_MAX,
    WITNESS_REQUEST_BYTES_MAX,
    WITNESS_REQUESTS_AT_ONCE_MAX,
    WITNESS_STOP_SECONDS_MAX,
)
from comity_protocol.merkle import EMPTY_ROOT, verify_consistency
from comity_protocol.signed_note import (
    KeyType,
    Note,
    VerifierKey,
    parse_note,
    require_key_name,
    serialize_note,
)
from comity_protocol.witnessing import SIZE_CONTENT_TYPE, AddCheckpoint

Clock = Callable[[], int]
"""Gives whole seconds since 1970-01-01T00:00:00Z."""

logger = logging.getLogger(__name__)


# The rule.


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A request whose log signature has been verified."""

    old_size: int
    hashes: tuple[bytes, ...]
    checkpoint: Checkpoint
    note: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back over HTTP."""

    status: int
    text: str
    content_type: str = "text/plain"


class RefusedOfferError(Exception):
    """The offer is not cosigned; `evidence` is there when the log has to explain itself."""

    def __init__(self, answer: Answer, evidence: Evidence | None = None) -> None:
        super().__init__(answer.text)
        self.answer = answer
        self.evidence = evidence


def decide(seen: Seen | None, offer: Offer, now: int) -> Seen:
    """Say what to remember if the offer may be cosigned.

    1. The old size is not beyond the new one.
    2. The old size is the one remembered, and one size has one root.
    3. The proof leads from the remembered root to the new one.
    4. The clock has not gone back since the last cosignature for this log.

    Stops: rollback, fork, rewriting of the past, back-dating by a clock that was set back.

    Raises:
        RefusedOfferError: one of these does not hold.

    Source: PROTOCOL [W-2], [W-3], [L-6]; C2SP tlog-witness, add-checkpoint.
    """
    new = offer.checkpoint
    known_size, known_root = (seen.size, seen.root) if seen else (0, EMPTY_ROOT)
    # (1)
    if offer.old_size > new.size:
        raise RefusedOfferError(Answer(HTTPStatus.BAD_REQUEST, "old size is beyond the new size\n"))
    # (2)
    # SPEC [L-6]: a size never goes back and one size has one root.
    is_fork = new.size == known_size and new.root != known_root
    fork = _evidence("fork", seen, offer, now) if is_fork else None
    # SPEC [W-2]: a witness cosigns only after a consistency proof from its stored size.
    if offer.old_size != known_size:
        answer = Answer(HTTPStatus.CONFLICT, f"{known_size}\n", SIZE_CONTENT_TYPE)
        raise RefusedOfferError(answer, fork)
    if is_fork:
        answer = Answer(HTTPStatus.CONFLICT, "another root is known for this size\n")
        raise RefusedOfferError(answer, fork)
    # (3)
    try:
        verify_consistency(known_size, known_root, new.size, new.root, offer.hashes)
    except VerificationError as error:
        answer = Answer(HTTPStatus.UNPROCESSABLE_ENTITY, f"{error}\n")
        raise RefusedOfferError(answer, _evidence("unproven", seen, offer, now)) from error
    # (4)
    # SPEC [W-3]: a witness whose clock went back refuses.
    if seen and now < seen.cosigned_at:
        answer = Answer(HTTPStatus.SERVICE_UNAVAILABLE, "clock of the witness went back\n")
        raise RefusedOfferError(answer)
    return Seen(size=new.size, root=new.root, note=offer.note, cosigned_at=now)


def _evidence(kind: str, seen: Seen | None, offer: Offer, now: int) -> Evidence | None:
    """Put the two checkpoints side by side; before the first one there is nothing to compare."""
    if seen is None:
        return None
    return Evidence(
        origin=offer.checkpoint.origin,
        kind=kind,
        known=seen.note,
        offered=offer.note,
        noticed_at=now,
    )


# The server.


class Witness:
    """Answers requests: the rule, the memory and the clock put together, without HTTP."""

    def __init__(
        self, state: WitnessState, key: WitnessKey, logs: Sequence[VerifierKey], clock: Clock
    ) -> None:
        self._state = state
        self._key = key
        self._logs: Mapping[str, VerifierKey] = {log.name: log for log in logs}
        self._clock = clock

    def add_checkpoint(self, body: bytes) -> Answer:
        """Cosign a checkpoint, or say why not.

        It does not await and is not interrupted: a client that hangs up half-way changes nothing.

        Source: PROTOCOL [W-1]; C2SP tlog-witness, add-checkpoint.
        """
        try:
            return self._cosign(self._open_offer(body))
        except RefusedOfferError as refused:
            if refused.evidence:
                kind, origin = refused.evidence.kind, refused.evidence.origin
                logger.warning("evidence of kind %s against the log %s is kept", kind, origin)
                self._state.keep_evidence(refused.evidence)
            return refused.answer

    def _open_offer(self, body: bytes) -> Offer:
        try:
            request = AddCheckpoint.parse(body)
        except (LimitError, MalformedError) as error:
            raise RefusedOfferError(Answer(HTTPStatus.BAD_REQUEST, f"{error}\n")) from error
        log = self._logs.get(claimed_origin(request.note))
        if log is None:
            raise RefusedOfferError(Answer(HTTPStatus.NOT_FOUND, "log is not known here\n"))
        try:
            checkpoint = open_checkpoint(request.note, log)
        except VerificationError as error:
            raise RefusedOfferError(Answer(HTTPStatus.FORBIDDEN, f"{error}\n")) from error
        return Offer(
            old_size=request.old_size,
            hashes=request.hashes,
            checkpoint=checkpoint,
            note=_only_lines_by(log, request.note),
        )

    def _cosign(self, offer: Offer) -> Answer:
        # SPEC [W-1]: a witness stores the new checkpoint durably before it answers.
        new = self._state.replace(
            offer.checkpoint.origin, lambda seen: decide(seen, offer, self._clock())
        )
        line = cosign(offer.note, self._key.name, self._key.signing_key, new.cosigned_at)
        return Answer(HTTPStatus.OK, line.serialize())


def _only_lines_by(log: VerifierKey, note: bytes) -> bytes:
    """Leave out all other lines: nobody vouches for them, and they would fill the memory."""
    parsed, wanted = parse_note(note), (log.name, log.key_id)
    lines = tuple(line for line in parsed.signatures if (line.name, line.key_id) == wanted)
    return serialize_note(Note(parsed.text, lines))


def make_witness_app(
    state: WitnessState,
    key: WitnessKey,
    clock: Clock,
    logs: Sequence[VerifierKey],
    *,
    body_seconds_max: float = WITNESS_BODY_SECONDS_MAX,
) -> web.Application:
    """Make the web application of a witness, for `make_witness_runner`.

    Args:
        state: its memory, which the caller closes.
        key: its private key.
        clock: its own clock.
        logs: the keys of the logs that it watches; the key name is the origin.
        body_seconds_max: how long a body may take to arrive.
    """
    witness = Witness(state, key, logs, clock)
    slots = asyncio.Semaphore(WITNESS_REQUESTS_AT_ONCE_MAX)

    async def add_checkpoint(request: web.Request) -> web.Response:
        if "Content-Encoding" in request.headers:
            return _refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "body is compressed")
        if slots.locked():
            return _refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at once")
        async with slots:
            try:
                async with asyncio.timeout(body_seconds_max):
                    body = await request.read()
            except TimeoutError:
                return _refuse(HTTPStatus.REQUEST_TIMEOUT, "body did not arrive in time")
            answer = witness.add_checkpoint(body)
        return web.Response(
            status=answer.status, body=answer.text.encode(), content_type=answer.content_type
        )

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application(client_max_size=WITNESS_REQUEST_BYTES_MAX)
    app.router.add_post("/add-checkpoint", add_checkpoint)
    app.router.add_get("/livez", livez)
    return app


def make_witness_runner(app: web.Application) -> web.AppRunner:
    """Prepare the web server of a witness, with a bound on every wait."""
    return web.AppRunner(
        app,
        access_log=None,
        # A body that lies about its encoding must meet our refusal, not a decompressor.
        auto_decompress=False,
        keepalive_timeout=WITNESS_IDLE_SECONDS_MAX,
        lingering_time=WITNESS_LINGER_SECONDS_MAX,
        shutdown_timeout=WITNESS_STOP_SECONDS_MAX,
    )


def _refuse(status: HTTPStatus, reason: str) -> web.Response:
    response = web.Response(status=status, text=f"{reason}\n")
    response.force_close()  # The rest of the body would be read as the next request.
    return response


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessSettings:
    """What an operator chooses. Port 0 takes any free one.

    Raises:
        ValueError: the name cannot be a key name, or a log's key is of the wrong type or doubled.
    """

    data: Path
    name: str
    logs: tuple[VerifierKey, ...]
    host: str = "127.0.0.1"
    port: int = 0

    def __post_init__(self) -> None:
        require_key_name(self.name)
        if any(log.type is not KeyType.ED25519 for log in self.logs):
            raise ValueError("key of a log is not of type Ed25519")
        if len({log.name for log in self.logs}) != len(self.logs):
            raise ValueError("two keys are given for one log")


async def run_witness(
    settings: WitnessSettings, clock: Clock, announce: Callable[[str], None]
) -> None:
    """Run a witness until SIGTERM or SIGINT, then finish what is under way and stop.

    Args:
        settings: what the operator chose.
        clock: its own clock.
        announce: called once, when requests are answered, with one line of JSON: `address` and
            `verifier_key`.

    Raises:
        WitnessStateError: its key or its memory is lost; it must not start.
        OSError: the address cannot be bound.
    """
    key, state = open_witness(settings.data, settings.name)
    runner = make_witness_runner(make_witness_app(state, key, clock, settings.logs))
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    try:
        await runner.setup()
        await web.TCPSite(runner, settings.host, settings.port).start()
        for wanted in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(wanted, stop.set)
        host, port = runner.addresses[0][:2]
        ready = {"address": f"http://{host}:{port}", "verifier_key": key.verifier_key.serialize()}
        announce(json.dumps(ready))
        await stop.wait()
    finally:
        for wanted in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(wanted)
        await runner.cleanup()
        state.close()


def main(arguments: Sequence[str], clock: Clock) -> int:
    """Run a witness from the command line.

    Args:
        arguments: without the program's name.
        clock: its own clock.

    Returns:
        The exit status: 0 when it was asked to stop, 1 when it must not or cannot start.
    """
    parser = argparse.ArgumentParser(prog="comity witness", description="cosign a relay's log")
    parser.add_argument("--data", type=Path, required=True, help="folder of its key and memory")
    parser.add_argument("--name", required=True, help="key name, such as witness.example/w1")
    parser.add_argument("--log-key", action="append", required=True, help="key of a log to watch")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port; 0 takes a free one")
    chosen = parser.parse_args(arguments)
    try:
        logs = tuple(VerifierKey.parse(text) for text in chosen.log_key)
        settings = WitnessSettings(
            data=chosen.data, name=chosen.name, logs=logs, host=chosen.host, port=chosen.port
        )
    except (MalformedError, ValueError) as error:
        parser.error(str(error))
    try:
        asyncio.run(run_witness(settings, clock, _print_line))
    except ComityError as error:
        sys.stderr.write(f"{error}; {error.remedy}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"witness cannot start: {error}\n")
        return 1
    return 0


def _print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
