"""A link: a connection that a witness opens to the relay, to be asked over it.

A State's witness may stand where nobody can call it. It calls the relay, proves its key, and then
answers the very requests that it would answer over HTTP.

    relay    ["challenge", nonce bstr 32]
    witness  ["witness", name, signature]        of kind witness-link, over deployment || nonce
    relay    ["ask", n, path, body]
    witness  ["answer", n, status, content type, body]

A link carries nothing that is believed because it came over it: cosignatures prove themselves.
"""

from dataclasses import dataclass
from typing import Final

from nacl.signing import SigningKey

from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import LimitError, MalformedError, VerificationError
from comity_protocol.fields import array_of, bytes_of, integer_of, text_of
from comity_protocol.identifiers import DeploymentId
from comity_protocol.keys import FAST_SIGNATURE_BYTES, Context, FastKey, verify_fast
from comity_protocol.limits import (
    NAME_BYTES_MAX,
    WITNESS_ANSWER_BYTES_MAX,
    WITNESS_REQUEST_BYTES_MAX,
)
from comity_protocol.signed_note import VerifierKey

NONCE_BYTES: Final = 32
NUMBER_MAX: Final = (1 << 32) - 1

ASK_BYTES_MAX: Final = WITNESS_REQUEST_BYTES_MAX + 512
"""Of a frame from the relay: a request's body, its path and a few bytes around them."""

ANSWER_BYTES_MAX: Final = WITNESS_ANSWER_BYTES_MAX + 256
"""Of a frame from a witness."""

_STATUS_MIN: Final = 100
_STATUS_MAX: Final = 599


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the relay sends first: 32 random bytes, never used before."""

    nonce: bytes

    def serialize(self) -> bytes:
        """Give the frame."""
        return serialize(["challenge", self.nonce])

    @classmethod
    def parse(cls, data: bytes) -> "Challenge":
        """Read the frame.

        Raises:
            MalformedError: It is another one.
        """
        (nonce,) = _parts(data, "challenge", 1, ASK_BYTES_MAX)
        return cls(bytes_of(nonce, "challenge, nonce", length=NONCE_BYTES))


@dataclass(frozen=True, slots=True)
class Proof:
    """What a witness answers to the challenge; not verified until ``verify``."""

    name: str
    signature: bytes

    @classmethod
    def make(
        cls, name: str, key: SigningKey, deployment: DeploymentId, challenge: Challenge
    ) -> "Proof":
        """Prove to the relay of a deployment that this is the witness of this name."""
        signer = FastKey(bytes(key))
        return cls(name, signer.sign(Context.WITNESS_LINK, deployment + challenge.nonce))

    def serialize(self) -> bytes:
        """Give the frame."""
        return serialize(["witness", self.name, self.signature])

    @classmethod
    def parse(cls, data: bytes) -> "Proof":
        """Read the frame.

        Raises:
            MalformedError: It is another one.
        """
        name, signature = _parts(data, "witness", 2, ANSWER_BYTES_MAX)
        return cls(
            text_of(name, "witness, name", bytes_max=NAME_BYTES_MAX),
            bytes_of(signature, "witness, signature", length=FAST_SIGNATURE_BYTES),
        )

    def verify(self, witness: VerifierKey, deployment: DeploymentId, challenge: Challenge) -> None:
        """Check the proof.

        Args:
            witness: The key that the genesis has under this name.
            deployment: The relay's.
            challenge: What this connection was asked.

        Stops: another's name, a proof that was made for another connection or another relay.

        Raises:
            VerificationError: It is not this witness, or it was asked something else.
        """
        if self.name != witness.name:
            raise VerificationError(f"link names another witness than {witness.name}")
        message = deployment + challenge.nonce
        verify_fast(witness.public_key, Context.WITNESS_LINK, message, self.signature)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to the witness: what the path and the body of an HTTP request say."""

    number: int
    path: str
    body: bytes

    def serialize(self) -> bytes:
        """Give the frame."""
        return serialize(["ask", self.number, self.path, self.body])

    @classmethod
    def parse(cls, data: bytes) -> "Ask":
        """Read the frame.

        Raises:
            MalformedError, LimitError: It is another one, or too long.
        """
        number, path, body = _parts(data, "ask", 3, ASK_BYTES_MAX)
        return cls(
            integer_of(number, "ask, number", high=NUMBER_MAX),
            text_of(path, "ask, path", bytes_max=NAME_BYTES_MAX),
            bytes_of(body, "ask, body", high=WITNESS_REQUEST_BYTES_MAX),
        )


@dataclass(frozen=True, slots=True)
class LinkAnswer:
    """The answer to the request of the same number."""

    number: int
    status: int
    content_type: str
    body: bytes

    def serialize(self) -> bytes:
        """Give the frame."""
        return serialize(["answer", self.number, self.status, self.content_type, self.body])

    @classmethod
    def parse(cls, data: bytes) -> "LinkAnswer":
        """Read the frame.

        Raises:
            MalformedError, LimitError: It is another one, or too long.
        """
        number, status, content_type, body = _parts(data, "answer", 4, ANSWER_BYTES_MAX)
        return cls(
            integer_of(number, "answer, number", high=NUMBER_MAX),
            integer_of(status, "answer, status", low=_STATUS_MIN, high=_STATUS_MAX),
            text_of(content_type, "answer, content type", bytes_max=NAME_BYTES_MAX),
            bytes_of(body, "answer, body", high=WITNESS_ANSWER_BYTES_MAX),
        )


def _parts(data: bytes, name: str, count: int, bytes_max: int) -> tuple[Value, ...]:
    """Read what stands after the name of a frame."""
    if len(data) > bytes_max:
        raise LimitError(f"frame is {len(data):,} bytes, expected at most {bytes_max:,}")
    first, *rest = array_of(parse(data), "frame", low=count + 1, high=count + 1)
    if first != name:
        raise MalformedError(f"frame is not of kind {name}")
    return tuple(rest)
