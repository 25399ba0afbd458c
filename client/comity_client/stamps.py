"""Stamps of witnesses on what the relay does not take: how a desk stays in time without it.

When an act was not promised within ten minutes, the desk asks every witness that has an address for
a stamp on the hash of the act's core. The witness learns 32 bytes. A quorum of stamps dates the act
for everyone, and is stated in the log by a notice as soon as the relay takes the act.

Rules:

* [B-15] A stamp is kept, durably, once it was verified, and only stamps that verify are spoken of.
  Stamps of an act that was sealed again stay with the core that they are for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from comity_client.state import State
from comity_protocol.core import Core, core_hash
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.envelope import Upload
from comity_protocol.errors import ComityError, VerificationError
from comity_protocol.fields import Fields
from comity_protocol.genesis import Genesis
from comity_protocol.identifiers import ID_BYTES, EnvelopeId
from comity_protocol.keys import FAST_SIGNATURE_BYTES
from comity_protocol.limits import CORE_BYTES_MAX, WITNESSES_MAX
from comity_protocol.receipts import Signed
from comity_protocol.stamps import Stamp, StampRequest, open_stamp, stamped_at, verify_stamp

STAMP_AFTER_SECONDS: Final = 600
"""How long an act may wait for the relay's promise before witnesses are asked."""

STAMPED_AT_ONCE_MAX: Final = 256
"""Acts for which witnesses are asked in one go; the rest waits for the next time."""

ASKED_AT_ONCE_MAX: Final = 16

Ask = Callable[[str, bytes], Awaitable[bytes]]
"""Posts a body to an address and gives the answer; raises a ComityError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamped:
    """How far one core is stamped.

    Attributes:
        envelope: The id under which the act was sealed then.
        core: The core, as it was signed.
        signature: The sending device's, over the core.
        stamps: Verified, by name of the witness.
        at: The time that they give the act; None while they are no quorum.
        witnesses: How many the genesis names.
    """

    envelope: EnvelopeId
    core: bytes
    signature: bytes
    stamps: tuple[Stamp, ...]
    at: int | None
    witnesses: int


class Stamps:
    """Asks for stamps and keeps them."""

    def __init__(self, state: State, ask: Ask, now: Callable[[], int]) -> None:
        """Take where they are kept, the way to witnesses, and this machine's clock."""
        self._state: Final = state
        self._ask: Final = ask
        self._now: Final = now

    def due(self, sealed_at: int) -> tuple[EnvelopeId, ...]:
        """Give the acts that waited too long for the relay's promise, or for what it promised.

        Whose clock says so does not matter: an act that is stamped in vain loses nothing.

        Args:
            sealed_at: Of the newest verified checkpoint.
        """
        now = self._now()
        rows = self._state.connection.execute(
            "SELECT envelope, queued_at, stage, due_at FROM outbox"
            " WHERE stage IN ('queued', 'accepted') AND envelope NOT IN"
            " (SELECT envelope FROM inbox WHERE sealed_at IS NOT NULL)"
            " ORDER BY id LIMIT ?",
            (STAMPED_AT_ONCE_MAX,),
        )
        return tuple(
            EnvelopeId(envelope)
            for envelope, queued_at, stage, due_at in rows
            if (
                not 0 <= max(now, sealed_at) - queued_at <= STAMP_AFTER_SECONDS
                if stage == "queued"
                else due_at < max(now - STAMP_AFTER_SECONDS, sealed_at)
            )
        )

    async def collect(
        self, envelopes: Collection[EnvelopeId], genesis: Genesis, extra: Sequence[str] = ()
    ) -> None:
        """Ask every witness that has an address for what it has not stamped yet.

        Witnesses that do not answer, or answer wrongly, are left out.

        Args:
            envelopes: Own acts that are not in the log.
            genesis: The deployment's, verified.
            extra: Further addresses, of witnesses that the policy names without one.
        """
        slots = asyncio.Semaphore(ASKED_AT_ONCE_MAX)
        urls = {**{url: name for name, url in genesis.policy.urls.items()}, **dict.fromkeys(extra)}
        async with asyncio.TaskGroup() as group:
            for envelope in envelopes:
                core, signature = self._own(envelope)
                what = core_hash(core)
                known = self._kept(what)
                if stamped_at(known.values(), genesis.deployment, what, genesis.quorum) is not None:
                    continue
                self._begin(what, envelope, core, signature)
                for url, name in urls.items():
                    if name is None or name not in known:
                        group.create_task(self._one(url, name, what, genesis, slots))

    def find(self, envelope: EnvelopeId, genesis: Genesis) -> tuple[Stamped, ...]:
        """Give what is stamped of an act, under this id and those that it had before.

        Returns:
            The newest first; only what has a stamp.
        """
        ids, found = [envelope], []
        for id_ in ids:
            rows = self._state.connection.execute(
                "SELECT what, core, signature FROM stamped WHERE envelope = ?", (id_,)
            )
            for what, core, signature in rows.fetchall():
                if stamps := tuple(sorted(self._kept(what).values())):
                    found.append(
                        Stamped(
                            envelope=id_,
                            core=core,
                            signature=signature,
                            stamps=stamps,
                            at=stamped_at(stamps, genesis.deployment, what, genesis.quorum),
                            witnesses=len(genesis.quorum.witnesses),
                        )
                    )
            ids += [
                EnvelopeId(row[0])
                for row in self._state.connection.execute(
                    "SELECT old FROM replaced WHERE new = ?", (id_,)
                )
                if row[0] not in ids
            ]
        return tuple(found)

    def to_state(self, genesis: Genesis) -> tuple[Stamped, ...]:
        """Give what a quorum stamped, the relay has taken, and no notice states yet."""
        rows = self._state.connection.execute(
            "SELECT envelope FROM stamped JOIN outbox USING (envelope)"
            " WHERE stage = 'accepted' AND core_hash = what AND (notice IS NULL OR notice NOT IN"
            " (SELECT what FROM kept UNION SELECT hash FROM notices))"
        ).fetchall()
        found = [one for row in rows for one in self.find(EnvelopeId(row[0]), genesis)[:1]]
        return tuple(one for one in found if one.at is not None)

    def stated(self, core: bytes, notice: bytes) -> None:
        """Keep which notice states the stamps of a core, by its hash."""
        with self._state.transaction() as connection:
            connection.execute(
                "UPDATE stamped SET notice = ? WHERE what = ?", (notice, core_hash(core))
            )

    async def _one(
        self, url: str, name: str | None, what: bytes, genesis: Genesis, slots: asyncio.Semaphore
    ) -> None:
        async with slots:
            request = StampRequest(genesis.deployment, what).serialize()
            try:
                signed = Signed.parse(await self._ask(f"{url.rstrip('/')}/stamp", request))
                stamp = _open(signed, name, what, genesis)
            except ComityError:
                # A witness that is away or lies takes nothing from the others.
                return
            # SPEC [B-15]: a stamp is kept, durably, once it was verified.
            with self._state.transaction() as connection:
                connection.execute(
                    "INSERT INTO stamps VALUES (?, ?, ?, ?) ON CONFLICT (what, witness)"
                    " DO UPDATE SET at = excluded.at, signature = excluded.signature"
                    " WHERE excluded.at < at",
                    (what, stamp.witness, stamp.at, stamp.signature),
                )

    def _begin(self, what: bytes, envelope: EnvelopeId, core: bytes, signature: bytes) -> None:
        # The core stays even when the act is sealed again: without it the stamps are of nothing.
        with self._state.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO stamped (what, envelope, core, signature)"
                " VALUES (?, ?, ?, ?)",
                (what, envelope, core, signature),
            )

    def _kept(self, what: bytes) -> Mapping[str, Stamp]:
        rows = self._state.connection.execute(
            "SELECT witness, at, signature FROM stamps WHERE what = ?", (what,)
        )
        return {witness: Stamp(witness, at, signature) for witness, at, signature in rows}

    def _own(self, envelope: EnvelopeId) -> tuple[bytes, bytes]:
        row = self._state.connection.execute(
            "SELECT upload FROM outbox WHERE envelope = ?", (envelope,)
        ).fetchone()
        upload = Upload.parse(row[0])
        return upload.core, upload.signature


def _open(signed: Signed, name: str | None, what: bytes, genesis: Genesis) -> Stamp:
    """Read a witness's answer; of an address without a name any witness of the genesis may be it.

    Raises:
        ComityError: It is no stamp of this, or by none of them.
    """
    keys = {key.name: key for key in genesis.quorum.witnesses}
    if name is not None:
        return open_stamp(signed, genesis.deployment, what, keys[name])
    failure: ComityError | None = None
    for key in keys.values():
        try:
            return open_stamp(signed, genesis.deployment, what, key)
        except ComityError as error:
            failure = error
    raise failure or AssertionError("a genesis names witnesses")


def write_stamps(stamped: Stamped, genesis: Genesis) -> bytes:
    """Write stamps so that a third party can check them with nothing but the genesis."""
    stamps: list[Value] = [[one.witness, one.at, one.signature] for one in stamped.stamps]
    for one in stamped.stamps:
        key = next(key for key in genesis.quorum.witnesses if key.name == one.witness)
        verify_stamp(one, genesis.deployment, core_hash(stamped.core), key)
    return serialize(
        {
            "v": 1,
            "t": "stamps",
            "deployment": genesis.deployment,
            "core": stamped.core,
            "signature": stamped.signature,
            "stamps": stamps,
        }
    )


def read_stamps(data: bytes, genesis: Genesis) -> Stamped:
    """Check a file of ``write_stamps`` as a third party.

    That the device which the core names signed it is for the log's statements to show.

    Raises:
        MalformedError: It is no such file.
        VerificationError: A stamp does not hold, or it is of another deployment.
    """
    names = {"v", "t", "deployment", "core", "signature", "stamps"}
    fields = Fields.of(parse(data), "stamps", names)
    fields.integer("v", low=1, high=1)
    fields.text("t", choices=["stamps"])
    if fields.bytes("deployment", length=ID_BYTES) != genesis.deployment:
        raise VerificationError("stamps are of another deployment than the genesis")
    core = fields.bytes("core", low=1, high=CORE_BYTES_MAX)
    stamps = tuple(
        Stamp.of(item, "stamps") for item in fields.array("stamps", low=1, high=WITNESSES_MAX)
    )
    keys = {key.name: key for key in genesis.quorum.witnesses}
    for one in stamps:
        if one.witness not in keys:
            raise VerificationError(f"stamp is of {one.witness}, which the genesis does not name")
        verify_stamp(one, genesis.deployment, core_hash(core), keys[one.witness])
    return Stamped(
        envelope=Core.parse(core).id,
        core=core,
        signature=fields.bytes("signature", length=FAST_SIGNATURE_BYTES),
        stamps=stamps,
        at=stamped_at(stamps, genesis.deployment, core_hash(core), genesis.quorum),
        witnesses=len(keys),
    )
