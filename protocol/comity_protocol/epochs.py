"""The secrets of a desk's epochs: made, sealed to members, and walked back by a successor.

An epoch has two seeds. The *file* seed seals case files; each new file seed carries the one before
it, so whoever holds the newest reads all history. The *lead* seed seals leads; it is never
chained, so what it opened is gone when it is deleted. A newcomer's box therefore holds the current
file seed and every lead seed that is not deleted yet.

    box       = seal(device, file seed 32 || (epoch number 4 || lead seed 32) ...)   current first
    previous  = small box under a key derived from file seed n, holding file seed n-1
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from comity_protocol.chain import Desk, Device
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.identifiers import DeskId, DeviceId, short
from comity_protocol.keys import (
    Context,
    SealKey,
    box_decrypt,
    box_encrypt,
    derive,
    seal_to,
)
from comity_protocol.limits import LEAD_SEEDS_MAX
from comity_protocol.statements import EpochKeys, boxes_hash

_SEED_BYTES: Final = 32
_NUMBER_BYTES: Final = 4


@dataclass(frozen=True, slots=True, repr=False)
class EpochSecret:
    """What a member of a desk holds for one epoch.

    Attributes:
        number: The epoch's.
        file: Seed of the file key, 32 bytes.
        leads: Lead seeds that are not deleted, by epoch number, this epoch's included.
    """

    number: int
    file: bytes
    leads: Mapping[int, bytes]

    def serialize(self) -> bytes:
        """Give the plaintext of a box: the file seed, then lead seeds, the newest first."""
        leads = sorted(self.leads.items(), reverse=True)[:LEAD_SEEDS_MAX]
        return self.file + b"".join(
            number.to_bytes(_NUMBER_BYTES, "big") + seed for number, seed in leads
        )


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """An epoch that is ready to be stated.

    Attributes:
        keys: What goes into the statement.
        boxes: The secret sealed to each member, ascending by device.
        previous: The previous file seed under the new one; None for the first epoch.
        secret: What the maker keeps.
    """

    keys: EpochKeys
    boxes: tuple[tuple[DeviceId, bytes], ...]
    previous: bytes | None
    secret: EpochSecret


def new_epoch(desk: Desk, members: Sequence[Device], last: EpochSecret | None) -> NewEpoch:
    """Make the next epoch of a desk for exactly these members.

    Args:
        desk: The desk as it is; gives the number.
        members: The active set after the statement that will carry the epoch.
        last: The current epoch's secret; None only for the desk's first epoch.

    Raises:
        ValueError: ``last`` is not the current epoch's.
    """
    current = desk.epoch.number if desk.epoch else 0
    if current != (last.number if last else 0):
        raise ValueError(f"the last epoch is {current}, expected its secret")
    number = current + 1
    file, lead = SealKey.generate(), SealKey.generate()
    secret = EpochSecret(number, file.seed, {**(last.leads if last else {}), number: lead.seed})
    boxes = tuple(
        (member.id, box_for(desk.id, member.id, member.seal, secret))
        for member in sorted(members, key=lambda member: member.id)
    )
    previous = None
    if last:
        previous = box_encrypt(
            _previous_key(desk.id, number, file.seed),
            Context.PREVIOUS_EPOCH,
            _label(desk.id, number),
            last.file,
        )
    keys = EpochKeys(
        number=number,
        file=file.public,
        lead=lead.public,
        members=tuple(device for device, _ in boxes),
        boxes_hash=boxes_hash(boxes, previous),
    )
    return NewEpoch(keys, boxes, previous, secret)


def box_for(desk: DeskId, device: DeviceId, seal_public: bytes, secret: EpochSecret) -> bytes:
    """Seal an epoch's secret to one device."""
    info = _label(desk, secret.number) + device
    return seal_to(seal_public, Context.EPOCH_BOX, info, secret.serialize())


def box_hash(box: bytes) -> bytes:
    """Give the hash that an admission signs."""
    return sha256(box).digest()


def open_box(
    box: bytes, key: SealKey, *, desk: Desk, device: DeviceId, epoch: EpochKeys
) -> EpochSecret:
    """Open one's own box and check that it holds the secrets of the stated keys.

    Stops the maker of an epoch, and the relay, from handing a member another secret than the
    one whose public key senders use, or wrong lead seeds in place of earlier ones.

    Args:
        box: As the relay gave it.
        key: The device's own.
        desk: The desk as folded at least up to ``epoch``.
        device: The own device.
        epoch: The keys of the epoch that the box is for.

    Raises:
        OpenError: The box is not for this device, desk and epoch, or was altered.
        MalformedError: It opens, but not to a list of seeds.
        VerificationError: It opens, but to other keys than the statements': alarm and complain.

    Source: PROTOCOL [S-13].
    """
    info = _label(desk.id, epoch.number) + device
    secret = _parse_secret(key.open(box, Context.EPOCH_BOX, info))
    stated = {past.keys.number: past.keys.lead for past in desk.epochs}
    # SPEC [S-13]: a member recomputes the public keys from the secret and compares.
    if (
        secret.number != epoch.number
        or SealKey.from_seed(secret.file).public != epoch.file
        or any(
            SealKey.from_seed(seed).public != stated.get(number)
            for number, seed in secret.leads.items()
        )
    ):
        raise VerificationError(
            f"box of epoch {epoch.number} of desk {short(desk.id)} holds other keys than were"
            " stated [S-13]; tell the desk's admin, who turns the epoch"
        )
    return secret


def open_previous(
    previous: bytes, file_seed: bytes, *, desk: DeskId, epoch: EpochKeys, before: EpochKeys
) -> bytes:
    """Walk one epoch back along the file seeds.

    Args:
        previous: The small box that came with ``epoch``.
        file_seed: The file seed of ``epoch``.
        desk: The desk.
        epoch: The keys of the epoch to walk back from.
        before: The keys of the epoch before it.

    Returns:
        The file seed of ``before``, 32 bytes.

    Raises:
        OpenError: The box was altered or belongs elsewhere.
        VerificationError: The seed is not that of ``before``.
    """
    key = _previous_key(desk, epoch.number, file_seed)
    seed = box_decrypt(key, Context.PREVIOUS_EPOCH, _label(desk, epoch.number), previous)
    if len(seed) != _SEED_BYTES or SealKey.from_seed(seed).public != before.file:
        raise VerificationError(
            f"epoch {epoch.number} of desk {short(desk)} carries another seed than"
            f" epoch {before.number} stated [S-13]"
        )
    return seed


def _parse_secret(plaintext: bytes) -> EpochSecret:
    step = _NUMBER_BYTES + _SEED_BYTES
    leads_bytes = plaintext[_SEED_BYTES:]
    if not leads_bytes or len(leads_bytes) % step or len(leads_bytes) > step * LEAD_SEEDS_MAX:
        raise MalformedError(f"box holds {len(plaintext)} bytes, expected 32 and 36 a lead seed")
    leads = {
        int.from_bytes(leads_bytes[at : at + _NUMBER_BYTES], "big"): leads_bytes[
            at + _NUMBER_BYTES : at + step
        ]
        for at in range(0, len(leads_bytes), step)
    }
    number = next(iter(leads))
    return EpochSecret(number, plaintext[:_SEED_BYTES], leads)


def _label(desk: DeskId, number: int) -> bytes:
    return desk + number.to_bytes(8, "big")


def _previous_key(desk: DeskId, number: int, file_seed: bytes) -> bytes:
    return derive(Context.PREVIOUS_EPOCH, file_seed, _label(desk, number))
