"""Sealed envelopes, made before any clock starts: leads of 1 KiB, their wraps reused.

Each desk writes to the next one. Its first envelope brings the wraps and opens the thread; all
others refer to it, as a client's do until an epoch turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from comity_protocol.acts import Act, Body
from comity_protocol.audit import project
from comity_protocol.core import Kind
from comity_protocol.encoding import serialize
from comity_protocol.envelope import Sealed, Thread, Upload, seal
from comity_protocol.identifiers import DeskId, EnvelopeId
from comity_protocol.keys import random_bytes
from deployment import Deployment
from support.world import Member, World, lead

TEXT_BYTES: Final = 1_024

_ID: Final = b"\x62id\x50"
_FROM: Final = b"\x64from\x50"
_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Pool:
    """Frames of one desk, ready to be written to its socket.

    Attributes:
        desk: The sending desk.
        opening: Opens the thread; must be accepted before the others.
        frames: The others; the frame's number is its place, from 1.
    """

    desk: DeskId
    opening: bytes
    frames: Sequence[bytes]


def fill(deployment: Deployment, count: int) -> list[Pool]:
    """Seal ``count`` envelopes for each desk, beside the one that opens its thread."""
    members = deployment.members
    return [
        _fill_one(deployment, member, members[(place + 1) % len(members)].desk, count)
        for place, member in enumerate(members)
    ]


def send_frame(number: int, upload: Upload) -> bytes:
    """Write an upload as it is sent over a socket."""
    return serialize(["send", number, upload.serialize()])


def envelope_id_of(frame: bytes) -> bytes:
    """Find the envelope's id in a frame that holds a core, without reading all of it."""
    return _after(frame, _ID)


def sender_of(frame: bytes) -> bytes:
    """Find the sending desk's id, likewise."""
    return _after(frame, _FROM)


class Writer:
    """Seals leads of one member to one desk faster than a client does: the act is made once."""

    def __init__(self, world: World, member: Member, to: DeskId, seen: bytes) -> None:
        """Take everything that stays the same from one lead to the next."""
        act: Act = lead("x" * TEXT_BYTES)
        self._body: Final = Body(act.serialize(), None).serialize()
        self._record: Final = project(act, None).serialize()
        self._to: Final = world.addresses(member, to, Kind.LEAD)
        self._sender: Final = world.sender(member)
        self._seen: Final = seen
        self._thread: Thread | None = None

    def write(self) -> Sealed:
        """Seal the next one; the first opens the thread."""
        sealed = seal(
            body=self._body,
            audit=self._record,
            to=self._to,
            sender=self._sender,
            seen=self._seen,
            envelope_id=EnvelopeId(random_bytes(_ID_BYTES)),
            thread=self._thread,
        )
        self._thread = sealed.thread
        return sealed


def _fill_one(deployment: Deployment, member: Member, to: DeskId, count: int) -> Pool:
    writer = Writer(deployment.world, member, to, deployment.seen)
    opening = send_frame(0, writer.write().upload)
    frames = [send_frame(number, writer.write().upload) for number in range(1, count + 1)]
    return Pool(member.desk, opening, frames)


def _after(frame: bytes, name: bytes) -> bytes:
    start = frame.index(name) + len(name)
    return frame[start : start + _ID_BYTES]
