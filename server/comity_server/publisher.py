"""Publishes witnessed checkpoints: sign, have it cosigned, keep it, show it.

When nothing was added the last head is cosigned again, as a heartbeat: an outage then shows.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final

from comity_protocol.checkpoint import (
    add_signatures,
    note_hash,
    open_checkpoint,
    verify_quorum,
)
from comity_protocol.errors import ComityError
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import VerifierKey
from comity_server import observe
from comity_server.anchors import Anchors
from comity_server.log import Log
from comity_server.metrics import Metrics
from comity_server.relay import Relay
from comity_server.settings import Settings
from comity_server.signer import LogSigner, SignerError, SignerNotClearedError
from comity_server.witnesses import Witnesses

BACKOFF_SECONDS_MAX: Final = 30.0


class Publisher:
    """The one task that moves the witnessed checkpoint forward."""

    def __init__(
        self,
        *,
        relay: Relay,
        log: Log,
        signer: LogSigner,
        witnesses: Witnesses,
        anchors: Anchors,
        key: VerifierKey,
        quorum: Quorum,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        """Put the parts together; ``key`` and ``quorum`` are those of the genesis."""
        self._relay: Final = relay
        self._log: Final = log
        self._signer: Final = signer
        self._witnesses: Final = witnesses
        self._anchors: Final = anchors
        self._key: Final = key
        self._quorum: Final = quorum
        self._settings: Final = settings
        self._metrics: Final = metrics
        self._clock: Final = clock

    async def run(self) -> None:
        """Publish for ever: soon after the log grew, and at every heartbeat."""
        settings, loop = self._settings, asyncio.get_running_loop()
        backoff = settings.checkpoint_seconds
        while True:
            try:
                await self._wait_for_work()
                began = loop.time()
                if self._relay.is_holder and self._relay.is_placed:
                    await self.publish()
                else:
                    await self.show()
                backoff = settings.checkpoint_seconds
                # From beginning to beginning: what waits must not wait for far witnesses twice.
                pause = max(0.0, began + backoff - loop.time())
            except ComityError as error:
                if isinstance(error, SignerError):
                    self._metrics.signer_refusals.inc()
                observe.alarm("checkpoint-failed", error, reason=str(error))
                self._relay.grown.set()
                pause = backoff = min(2 * backoff, BACKOFF_SECONDS_MAX)
            await asyncio.sleep(pause)

    async def publish(self) -> None:
        """Sign the present head, have it cosigned and publish it.

        Raises:
            SignerError: The signer refuses.
            ComityError: There is no quorum; nothing is published.
        """
        # What was accepted while the relay could not give places is promised; a head that leaves it
        # out would prove a promise broken that is kept a moment later.
        await self._relay.catch_up()
        size, note = await self._sign()
        is_anchor = await self._anchors.is_due()
        answered = await self._witnesses.cosign(
            note,
            size,
            self._log.consistency,
            is_enough=self._quorum.is_met,
            is_anchor=is_anchor,
        )
        lines, anchoring = self._anchors.split(answered)
        witnessed = add_signatures(note, lines)
        # What is published is checked exactly as a client will check it.
        verify_quorum(witnessed, self._key, self._quorum)
        hashed = note_hash(witnessed)
        await self._relay.store.publish_checkpoint(size, witnessed, hashed, int(self._clock()))
        self._relay.recent.checkpoints.put(hashed, True)
        self._metrics.checkpoints.inc()
        await self.show()
        if is_anchor:
            await self._anchors.keep(note, size, anchoring)

    async def show(self) -> None:
        """Take the newest published checkpoint, of this process or another, into use."""
        if await self._log.refresh():
            newest = self._log.newest()
            self._metrics.checkpoint_size.set(newest.size)
            self._metrics.checkpoint_at.set(newest.at)
            witnessed = verify_quorum(newest.note, self._key, self._quorum)
            self._relay.hear_time(witnessed.earliest_time)
            observe.event("checkpoint-published", size=newest.size, hash=newest.note_hash.hex())

    async def _sign(self) -> tuple[int, bytes]:
        try:
            return await self._signer.sign()
        except SignerNotClearedError:
            await self.clear()
            return await self._signer.sign()

    async def clear(self, shown: Sequence[bytes] = ()) -> None:
        """Show the signer what the witnesses know: a checkpoint that they cosign at this moment.

        It is the one of the signer's memory, or a newer one when that memory is lost or older.

        Args:
            shown: Notes that mirrors have shown, signed by the log.

        Raises:
            SignerError: The signer refuses.
            ComityError: A note is not the log's, or the database is not whole.
        """
        probe = await self._signer.probe()
        claims = await self._witnesses.ask(probe)
        newest = await self._relay.store.newest_checkpoint()
        published = () if newest is None else (newest.note,)
        notes = {self._size_of(note): note for note in (*shown, *published, probe)}
        size = max(notes)
        lines = await self._witnesses.cosign(
            notes[size], size, self._log.consistency, is_enough=self._leaves_no_quorum
        )
        # SPEC [G-4]: fresh is what was made because it was asked for now. The note has the
        # cosignatures of its first day too, and by a clock alone those of yesterday's backup would
        # pass for new ones.
        # A witness that claims to be ahead does not cosign, so it counts as a silent one does. Its
        # number alone stops nothing: anybody on the way to it can say one.
        if not self._leaves_no_quorum({line.name for line in lines}):
            ahead = [claim for claim in claims if claim > size]
            more = (
                f"; {len(ahead)} of them say that they know more, up to {max(ahead):,} entries, and"
                f" no checkpoint of more than {size:,} can be had: name the mirror that has it with"
                " --mirror"
                if ahead
                else ""
            )
            raise SignerError(
                f"{len({line.name for line in lines})} of {len(self._quorum.witnesses)} witnesses"
                " cosigned again when they were asked, too few to know that no quorum is ahead;"
                f" look at the witnesses{more}; not signing before"
            )
        await self._signer.clear(add_signatures(notes[size], lines))

    def _size_of(self, note: bytes) -> int:
        return open_checkpoint(note, self._key).size

    def _leaves_no_quorum(self, names: Collection[str]) -> bool:
        """Whether all the other witnesses together are no quorum."""
        others = {key.name for key in self._quorum.witnesses} - set(names)
        return not self._quorum.is_met(others)

    async def _wait_for_work(self) -> None:
        """Wait until the log grew or the heartbeat is due.

        Who does not publish looks regularly what another process has published.
        """
        settings = self._settings
        due = settings.heartbeat_seconds if self._relay.is_holder else settings.poll_seconds
        try:
            async with asyncio.timeout(due):
                await self._relay.grown.wait()
        except TimeoutError:
            return
        self._relay.grown.clear()
