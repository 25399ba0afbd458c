"""Request tokens: the device signs each request it makes, for exactly that request, once.

There is no log-in. The token says nothing that the relay's answer could not be checked without.
"""

from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from comity_protocol.identifiers import DeploymentId, DeviceId
from comity_protocol.keys import FastKey, random_bytes
from comity_protocol.wire import SCHEME, TOKEN_ALGORITHM, TOKEN_TYPE

_JTI_BYTES: Final = 16


@dataclass(frozen=True, slots=True, repr=False)
class TokenMaker:
    """Makes the tokens of one device for one deployment."""

    device: DeviceId
    deployment: DeploymentId
    key: FastKey

    def make(self, *, method: str, target: str, body: bytes, nonce: str) -> str:
        """Give the value of the ``Authorization`` header.

        Args:
            method: Of the request, in capitals.
            target: Path and query exactly as they go on the request line.
            body: Of the request; empty for none.
            nonce: The newest that the relay gave out.
        """
        claims = {
            "aud": self.deployment.hex(),
            "bh": _encode(sha256(body).digest()),
            "htm": method,
            "htu": target,
            "jti": _encode(random_bytes(_JTI_BYTES)),
            "n": nonce,
        }
        token = jwt.encode(
            claims,
            Ed25519PrivateKey.from_private_bytes(self.key.seed),
            algorithm=TOKEN_ALGORITHM,
            headers={"typ": TOKEN_TYPE, "kid": self.device.hex()},
        )
        return f"{SCHEME} {token}"


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
