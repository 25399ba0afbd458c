"""The own desk's seeds, opened from its sealed boxes as they are needed and kept in memory only.

Rules:

* [B-8] The own box is opened and compared with the stated keys; a difference is an alarm. History
  is walked back one epoch at a time, only as far as something needs it.
"""

from collections.abc import Mapping
from typing import Final

from comity_client.keystore import DeviceKeys
from comity_client.state import State
from comity_protocol.chain import Desk
from comity_protocol.core import Kind
from comity_protocol.epochs import EpochSecret, open_box, open_previous
from comity_protocol.errors import ComityError, OpenError, VerificationError


class NoKeyError(OpenError):
    """This device does not hold the key of an epoch."""

    code = "no-key"
    remedy = "synchronise; if it persists, ask your desk's admin to turn the epoch with this device"


class Seeds:
    """Opens and remembers the seeds of one desk for one device."""

    def __init__(self, state: State, keys: DeviceKeys) -> None:
        """Take where the sealed boxes lie and the key that opens them."""
        self._state: Final = state
        self._keys: Final = keys
        self._secrets: Final[dict[int, EpochSecret]] = {}
        self._files: Final[dict[int, bytes]] = {}
        self._leads: Final[dict[int, bytes]] = {}

    def newest(self, desk: Desk) -> EpochSecret:
        """Give the secret of the desk's newest epoch.

        Raises:
            NoKeyError: There is no box for this device.
            OpenError, VerificationError: The box is another's or holds other keys than stated.
        """
        if desk.epoch is None:
            raise NoKeyError("the desk has no epoch yet")
        return self.secret(desk, desk.epoch.number)

    def secret(self, desk: Desk, number: int) -> EpochSecret:
        """Open this device's own box of an epoch; raises as ``newest`` does."""
        if number not in self._secrets:
            boxes, _ = self._state.boxes()
            if number not in boxes or number > len(desk.epochs):
                raise NoKeyError(f"this device has no box of epoch {number}")
            # SPEC [B-8]: the own box is opened and compared with the stated keys.
            secret = self._open(desk, number, boxes[number])
            self._secrets[number] = secret
            self._files[number] = secret.file
        return self._secrets[number]

    def seed(self, desk: Desk, number: int, kind: Kind) -> bytes:
        """Give the seed that opens what was sealed to an epoch; audit parts take the file seed.

        Raises:
            NoKeyError: This device was never given it, or it was deleted.
        """
        if kind is Kind.LEAD:
            return self._lead(desk, number)
        return self._file(desk, number)

    def take(
        self, desk: Desk, own: Mapping[int, bytes], previous: Mapping[int, bytes]
    ) -> list[tuple[int, bytes, str]]:
        """Keep the boxes that open and hold what was stated, and none that does not.

        What is kept is never replaced, so a relay that gives rubbish later, or first, or for epochs
        that never were, takes nothing away for longer than it goes on.

        Returns:
            Epoch, box and what is wrong with it, of each that was not kept.
        """
        wrong = []
        known, chain = self._state.boxes()
        for epoch in sorted(own.keys() - known.keys(), reverse=True):
            try:
                self._check(desk, epoch, own[epoch])
            except ComityError as error:
                wrong.append((epoch, own[epoch], str(error)))
            else:
                self._state.keep_boxes({epoch: own[epoch]}, {})
        # From the newest back, because each opens with the seed that the one above it gave.
        for epoch in sorted(previous.keys() - chain.keys(), reverse=True):
            try:
                self._check_previous(desk, epoch, previous[epoch])
            except NoKeyError:
                continue
            except ComityError as error:
                wrong.append((epoch, previous[epoch], str(error)))
            else:
                self._state.keep_boxes({}, {epoch: previous[epoch]})
        return wrong

    def _check(self, desk: Desk, number: int, box: bytes) -> None:
        if number > len(desk.epochs):
            raise VerificationError(f"relay gave a box of epoch {number}, which there is not")
        self._open(desk, number, box)

    def _check_previous(self, desk: Desk, number: int, box: bytes) -> None:
        if not 1 < number <= len(desk.epochs):
            raise VerificationError(f"relay gave a seed before epoch {number}, which there is not")
        self._step_back(desk, number, self._file(desk, number), box)

    def _lead(self, desk: Desk, number: int) -> bytes:
        if number not in self._leads:
            boxes, _ = self._state.boxes()
            for epoch in sorted((epoch for epoch in boxes if epoch >= number), reverse=True):
                seed = self.secret(desk, epoch).leads.get(number)
                if seed is not None:
                    self._leads[number] = seed
                    break
            else:
                raise NoKeyError(f"this device does not hold the lead key of epoch {number}")
        return self._leads[number]

    def _file(self, desk: Desk, number: int) -> bytes:
        if number in self._files:
            return self._files[number]
        boxes, previous = self._state.boxes()
        if number in boxes:
            return self.secret(desk, number).file
        # The nearest later epoch that is known, from which to walk back.
        later = [epoch for epoch in {*self._files, *boxes} if epoch > number]
        if not later:
            raise NoKeyError(f"this device does not hold the file key of epoch {number}")
        at = min(later)
        seed = self._file(desk, at)
        while at > number:
            if at not in previous:
                raise NoKeyError(f"the seed before epoch {at} is not here")
            # SPEC [B-8]: history is walked back one epoch at a time.
            seed = self._step_back(desk, at, seed, previous[at])
            at -= 1
            self._files[at] = seed
        return seed

    def _open(self, desk: Desk, number: int, box: bytes) -> EpochSecret:
        return open_box(
            box,
            self._keys.seal,
            desk=desk,
            device=self._keys.device,
            epoch=desk.epochs[number - 1].keys,
        )

    def _step_back(self, desk: Desk, number: int, seed: bytes, box: bytes) -> bytes:
        return open_previous(
            box,
            seed,
            desk=desk.id,
            epoch=desk.epochs[number - 1].keys,
            before=desk.epochs[number - 2].keys,
        )
