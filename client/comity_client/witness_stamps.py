"""Direct stamps: a witness's word that it saw a hash, for desks that a relay refuses or stalls.

Whoever can reach a witness may ask, so the rate is bounded. A witness learns a hash and nothing
else, and keeps nothing of it.

Rules:

* [W-7] a witness does not stamp when its clock is behind its last cosignature.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from comity_client.witness_rule import Answer
from comity_client.witness_state import WitnessKey, WitnessState
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import DeploymentId
from comity_protocol.limits import WITNESS_STAMPS_BURST, WITNESS_STAMPS_PER_SECOND
from comity_protocol.stamps import StampRequest, sign_stamp
from comity_protocol.wire import MEDIA_TYPE


class Stamper:
    """Stamps for one deployment."""

    def __init__(
        self,
        key: WitnessKey,
        state: WitnessState,
        deployment: DeploymentId,
        clock: Callable[[], int],
    ) -> None:
        """Start with the whole burst to give."""
        self._key: Final = key
        self._state: Final = state
        self._deployment: Final = deployment
        self._clock: Final = clock
        self._left = float(WITNESS_STAMPS_BURST)
        self._at = clock()

    def stamp(self, body: bytes) -> Answer:
        """Stamp what is asked, or say why not.

        Stops: back-dating by a clock that was set back, a flood, a stamp for another deployment.
        """
        now = self._clock()
        try:
            request = StampRequest.parse(body)
        except ComityError as error:
            return Answer.say(HTTPStatus.BAD_REQUEST, str(error))
        if request.deployment != self._deployment:
            return Answer.say(HTTPStatus.NOT_FOUND, "deployment is not known here")
        # SPEC [W-7]: a witness does not stamp when its clock is behind its last cosignature.
        if now < self._state.last_cosigned_at():
            return Answer.say(HTTPStatus.SERVICE_UNAVAILABLE, "clock of the witness went back")
        if not self._take(now):
            return Answer.say(HTTPStatus.TOO_MANY_REQUESTS, "too many stamps for now")
        signed = sign_stamp(self._key.signing_key, request.deployment, request.what, now)
        return Answer(HTTPStatus.OK, signed.serialize(), MEDIA_TYPE)

    def _take(self, now: int) -> bool:
        # A clock that goes back fills nothing.
        self._left += max(0, now - self._at) * WITNESS_STAMPS_PER_SECOND
        self._left, self._at = min(self._left, WITNESS_STAMPS_BURST), now
        if self._left < 1:
            return False
        self._left -= 1
        return True
