"""Request tokens of any key, as another implementation would sign them."""

from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from comity_protocol.keys import FastKey


def sign_as(key: FastKey, kid: str, claims: dict[str, Any]) -> str:
    """Sign a token with a key under the name of any key."""
    secret = Ed25519PrivateKey.from_private_bytes(key.seed)
    headers = {"typ": "comity+jwt", "kid": kid}
    return jwt.encode(claims, secret, algorithm="EdDSA", headers=headers)
