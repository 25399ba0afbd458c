"""Full stores: filled through the relay's own ``Store``, in batches as the relay commits them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from comity_protocol.core import Core, core_hash
from comity_protocol.envelope import Upload
from comity_protocol.keys import random_bytes
from comity_protocol.leaves import envelope_blind
from comity_protocol.receipts import Promise, sign_promise
from comity_server.store import EnvelopeRow, Recipient, Store
from deployment import Deployment
from envelopes import Writer

_BATCH: Final = 128
_HASH_BYTES: Final = 32
_ID_BYTES: Final = 16


async def fill(store: Store, deployment: Deployment, count: int) -> None:
    """Store ``count`` envelopes from the first desk to the second."""
    sender, receiver = deployment.members[:2]
    writer = Writer(deployment.world, sender, receiver.desk, deployment.seen)
    rows = [_row(deployment, writer.write().upload) for _ in range(count)]
    await _accept(store, rows, deployment)


async def bulk(store: Store, deployment: Deployment, count: int) -> None:
    """Store ``count`` rows that are copies of one envelope under ids and hashes of their own."""
    sender, receiver = deployment.members[2:4]
    writer = Writer(deployment.world, sender, receiver.desk, deployment.seen)
    writer.write()
    row = _row(deployment, writer.write().upload)
    for start in range(0, count, _BATCH):
        copies = [
            replace(row, id=random_bytes(_ID_BYTES), core_hash=random_bytes(_HASH_BYTES))
            for _ in range(min(_BATCH, count - start))
        ]
        await _accept(store, copies, deployment)


async def _accept(store: Store, rows: Sequence[EnvelopeRow], deployment: Deployment) -> None:
    for start in range(0, len(rows), _BATCH):
        await store.accept(
            rows[start : start + _BATCH], (), statements=len(deployment.rows), integrate=True
        )


def _row(deployment: Deployment, upload: Upload) -> EnvelopeRow:
    core = Core.parse(upload.core)
    what = core_hash(upload.core)
    wraps = upload.wraps or (None,) * len(core.to)
    promise = sign_promise(deployment.world.relay_key, Promise(what, deployment.at))
    return EnvelopeRow(
        id=core.id,
        core_hash=what,
        core=upload.core,
        signature=upload.signature,
        body=upload.body,
        audit=upload.audit,
        sender_desk=core.sender,
        sender_device=core.device,
        recipients=tuple(
            Recipient(entry.desk, entry.epoch, int(entry.kind), wrap)
            for entry, wrap in zip(core.to, wraps, strict=True)
        ),
        accepted_at=deployment.at,
        promise=promise.serialize(),
        blind=envelope_blind(deployment.world.relay_key, core.id),
        ref=core.ref,
    )
