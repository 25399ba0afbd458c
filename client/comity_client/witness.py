"""A witness: a small program of a State that remembers the log and cosigns only what continues it.

It speaks C2SP tlog-witness: `POST /add-checkpoint` with an old size, a consistency proof and a
checkpoint. It trusts nobody: not the relay, not its own clock once that has gone back, and not its
own memory once that has been lost. It also stamps hashes, and as a mirror serves the log.

Here lives what it answers to a request, and the web server around it. The rule by which it cosigns
is in `witness_rule`, its memory in `witness_state`, the program in `witness_program`.

Rules:

* [W-1] a witness stores the new checkpoint durably before it answers.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final

from aiohttp import web

from comity_client.witness_mirror import Mirror
from comity_client.witness_replay import Replay
from comity_client.witness_rule import Answer, Offer, RefusedOfferError, decide
from comity_client.witness_stamps import Stamper
from comity_client.witness_state import WitnessKey, WitnessState
from comity_client.witness_watch import Watch
from comity_protocol.checkpoint import claimed_origin, cosign, cosign_anchor, open_checkpoint
from comity_protocol.errors import LimitError, MalformedError, VerificationError
from comity_protocol.limits import (
    WITNESS_BODY_SECONDS_MAX,
    WITNESS_IDLE_SECONDS_MAX,
    WITNESS_LINGER_SECONDS_MAX,
    WITNESS_REQUEST_BYTES_MAX,
    WITNESS_REQUESTS_AT_ONCE_MAX,
    WITNESS_STOP_SECONDS_MAX,
)
from comity_protocol.merkle import Frontier
from comity_protocol.signed_note import Note, VerifierKey, parse_note, serialize_note
from comity_protocol.witnessing import ADD_CHECKPOINT, ANCHOR_QUERY, STAMP, AddCheckpoint

Clock = Callable[[], int]
"""Gives whole seconds since 1970-01-01T00:00:00Z."""

_NOT_FOUND: Final = Answer.say(HTTPStatus.NOT_FOUND, "there is nothing here")

logger = logging.getLogger(__name__)


class Witness:
    """Answers requests: the rule, the memory and the clock put together, without HTTP."""

    def __init__(
        self,
        state: WitnessState,
        key: WitnessKey,
        logs: Sequence[VerifierKey],
        clock: Clock,
        *,
        stamper: Stamper | None = None,
        watch: Watch | None = None,
        replay: Replay | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            state: its memory, which the caller closes.
            key: its private keys.
            logs: the keys of the logs that it watches; the key name is the origin.
            clock: its own clock.
            stamper: stamps hashes, when the deployment is known.
            watch: looks for cosignatures of its own that it does not remember.
            replay: replays the entries of the one log before a checkpoint is cosigned.
            mirror: keeps and serves the log.
        """
        self._state: Final = state
        self._key: Final = key
        self._logs: Final[Mapping[str, VerifierKey]] = {log.name: log for log in logs}
        self._clock: Final = clock
        self._stamper: Final = stamper
        self._watch: Final = watch
        self._replay: Final = replay
        self._mirror: Final = mirror

    async def answer(self, target: str, body: bytes) -> Answer:
        """Answer a request, wherever it came from.

        Args:
            target: path and query.
            body: empty for what is only read.
        """
        path, _, query = target.partition("?")
        if path == ADD_CHECKPOINT:
            return await self.add_checkpoint(body, is_anchor=query == ANCHOR_QUERY)
        if path == STAMP and self._stamper is not None:
            return self._stamper.stamp(body)
        if self._mirror is not None and not body:
            return self._mirror.answer(path, query)
        return _NOT_FOUND

    async def add_checkpoint(self, body: bytes, *, is_anchor: bool = False) -> Answer:
        """Cosign a checkpoint, or say why not.

        From the rule to the answer it does not await and is not interrupted: a client that hangs up
        half-way changes nothing.

        Args:
            body: of the request.
            is_anchor: whether to cosign with ML-DSA-44 as well.

        Source: PROTOCOL [W-1]; C2SP tlog-witness, add-checkpoint.
        """
        try:
            offer = self._open_offer(body)
            # What is refused without a look at the entries costs no look at them.
            origin = offer.checkpoint.origin
            decide(self._state.seen(origin), offer, self._clock())
            if self._watch is not None:
                await self._watch.require_looked()
            if self._replay is None:
                return self._cosign(offer, None, is_anchor)
            async with self._replay.following(offer, self._clock()) as replayed:
                return self._cosign(offer, replayed, is_anchor)
        except RefusedOfferError as refused:
            if refused.evidence:
                kind, origin = refused.evidence.kind, refused.evidence.origin
                logger.warning(
                    "alarm: evidence of kind %s against the log %s is kept", kind, origin
                )
                self._state.keep_evidence(refused.evidence)
            return refused.answer

    def _open_offer(self, body: bytes) -> Offer:
        try:
            request = AddCheckpoint.parse(body)
        except (LimitError, MalformedError) as error:
            raise _refused(HTTPStatus.BAD_REQUEST, str(error)) from error
        log = self._logs.get(claimed_origin(request.note))
        if log is None:
            raise _refused(HTTPStatus.NOT_FOUND, "log is not known here")
        try:
            checkpoint = open_checkpoint(request.note, log)
        except VerificationError as error:
            raise _refused(HTTPStatus.FORBIDDEN, str(error)) from error
        if self._watch is not None:
            self._watch.meet(request.note)
        return Offer(
            old_size=request.old_size,
            hashes=request.hashes,
            checkpoint=checkpoint,
            note=_only_lines_by(log, request.note),
        )

    def _cosign(self, offer: Offer, replayed: Frontier | None, is_anchor: bool) -> Answer:
        # SPEC [W-1]: a witness stores the new checkpoint durably before it answers.
        new = self._state.replace(
            offer.checkpoint.origin, lambda seen: decide(seen, offer, self._clock()), replayed
        )
        key, at = self._key, new.cosigned_at
        lines = cosign(offer.note, key.name, key.signing_key, at).serialize()
        if is_anchor and key.anchor_key is not None:
            lines += cosign_anchor(offer.note, key.name, key.anchor_key, at).serialize()
        if self._watch is not None:
            self._watch.look_soon()
        return Answer(HTTPStatus.OK, lines.encode())


def _refused(status: HTTPStatus, reason: str) -> RefusedOfferError:
    return RefusedOfferError(Answer.say(status, reason))


def _only_lines_by(log: VerifierKey, note: bytes) -> bytes:
    """Leave out all other lines: nobody vouches for them, and they would fill the memory."""
    parsed, wanted = parse_note(note), (log.name, log.key_id)
    lines = tuple(line for line in parsed.signatures if (line.name, line.key_id) == wanted)
    return serialize_note(Note(parsed.text, lines))


def serve_witness(
    witness: Witness, *, body_seconds_max: float = WITNESS_BODY_SECONDS_MAX
) -> web.Application:
    """Make the web application of a witness, for `make_witness_runner`.

    Args:
        witness: what answers.
        body_seconds_max: how long a body may take to arrive.
    """
    slots = asyncio.Semaphore(WITNESS_REQUESTS_AT_ONCE_MAX)

    async def ask(request: web.Request) -> web.Response:
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
            answer = await witness.answer(request.path_qs, body)
        return web.Response(
            status=answer.status, body=answer.body, content_type=answer.content_type
        )

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application(client_max_size=WITNESS_REQUEST_BYTES_MAX)
    app.router.add_post(ADD_CHECKPOINT, ask)
    app.router.add_post(STAMP, ask)
    app.router.add_get("/livez", livez)
    for path in ("/checkpoint", "/tile/{place:.+}", "/statements"):
        app.router.add_get(path, ask)
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
