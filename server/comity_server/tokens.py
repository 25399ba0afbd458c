"""Request tokens: who asks, for exactly which request, once, and lately.

A device signs its own token with its fast key; there is no log-in and no bearer secret. A token is
a JSON Web Token of type ``comity+jwt``, checked with PyJWT::

    header  alg "EdDSA", typ "comity+jwt", kid device id in hexadecimal, or a witness's public key
    claims  aud deployment id in hexadecimal, htm method, htu path and query,
            bh base64url SHA-256 of the body, n nonce, jti 16 to 64 characters of base64url

Rules:

* [T-1] All of these and no others are there, and each is exact.
* [T-2] The nonce is one that this process gave out at most ten minutes ago.
* [T-3] A token is taken once: its (kid, jti) is remembered as long as its nonce is good.
* [T-4] A token is written in canonical base64url, without padding.

A token only says who talks. Nothing in it decides what is stored, decrypted or believed: the
objects that it comes with carry signatures of their own.
"""

import hmac
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter, OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from comity_protocol.keys import is_same_secret, random_bytes
from comity_protocol.wire import TOKEN_ALGORITHM, TOKEN_CLAIMS, TOKEN_TYPE
from comity_server.problems import Refused

TOKEN_CHARACTERS_MAX: Final = 4_096
"""A token is about 500 characters; a query with many arguments makes it longer."""

NONCE_MINUTES: Final = 10
REPLAY_ENTRIES_MAX: Final = 1_048_576
REPLAY_DEVICE_ENTRIES_MAX: Final = 131_072
"""No device may fill the memory of all: half an hour of its quota fits well below this."""

_HEADER: Final = frozenset({"alg", "typ", "kid"})
_CLAIMS: Final = frozenset(TOKEN_CLAIMS)
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_KID: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}", re.ASCII)
_JTI: Final = re.compile(r"[A-Za-z0-9_-]{16,64}", re.ASCII)
_MINUTE_BYTES: Final = 8
_MAC_BYTES: Final = 16
_SECONDS: Final = 60

# Whoever names a device that does not exist waits for a signature check too, against this key.
_NOBODY: Final = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def encode(data: bytes) -> str:
    """Write base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes | None:
    """Read base64url without padding; None when it is not in its one canonical form."""
    if not _SEGMENT.fullmatch(text):
        return None
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return data if encode(data) == text else None


class Nonces:
    """Nonces that need no memory: the minute, and a MAC under a key of this process."""

    def __init__(self) -> None:
        """Draw the key; it lives and dies with the process, like the replay cache beside it."""
        self._key: Final = random_bytes(32)
        self._newest: tuple[int, str] = (-1, "")

    def issue(self, now: float) -> str:
        """Give the nonce of this minute."""
        minute = int(now) // _SECONDS
        if self._newest[0] != minute:
            data = minute.to_bytes(_MINUTE_BYTES, "big")
            self._newest = (minute, encode(data + self._mac(data)))
        return self._newest[1]

    def is_good(self, nonce: str, now: float) -> bool:
        """Whether this process gave it out, at most ten minutes ago."""
        data = decode(nonce)
        if data is None or len(data) != _MINUTE_BYTES + _MAC_BYTES:
            return False
        minute, mac = data[:_MINUTE_BYTES], data[_MINUTE_BYTES:]
        if not is_same_secret(mac, self._mac(minute)):
            return False
        age = int(now) // _SECONDS - int.from_bytes(minute, "big")
        return 0 <= age <= NONCE_MINUTES

    def _mac(self, minute: bytes) -> bytes:
        return hmac.digest(self._key, minute, "sha256")[:_MAC_BYTES]


class ReplayCache:
    """The (kid, jti) of every token taken while its nonce can still be good."""

    def __init__(
        self,
        entries_max: int = REPLAY_ENTRIES_MAX,
        device_entries_max: int = REPLAY_DEVICE_ENTRIES_MAX,
    ) -> None:
        """Set the bounds; what does not fit is refused, never forgotten early."""
        self._entries_max: Final = entries_max
        self._device_entries_max: Final = device_entries_max
        self._taken: Final[OrderedDict[tuple[bytes, str], int]] = OrderedDict()
        self._counts: Final[Counter[bytes]] = Counter()

    def take(self, device: bytes, jti: str, now: float) -> None:
        """Remember a token of a device or a witness.

        Raises:
            Refused: It was taken before, or there is no room to remember it.
        """
        minute = int(now) // _SECONDS
        self._forget(minute)
        key = (device, jti)
        # SPEC [T-3]: a token is taken once.
        if key in self._taken:
            raise Refused("replayed-token", "a token with this jti was used before")
        if (
            len(self._taken) >= self._entries_max
            or self._counts[device] >= self._device_entries_max
        ):
            raise Refused("quota", "too many tokens within ten minutes", retry_after=_SECONDS)
        self._taken[key] = minute
        self._counts[device] += 1

    def _forget(self, minute: int) -> None:
        while self._taken:
            key, taken = next(iter(self._taken.items()))
            if minute - taken <= NONCE_MINUTES:
                return
            del self._taken[key]
            self._counts[key[0]] -= 1
            if not self._counts[key[0]]:
                del self._counts[key[0]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """A token as read; nothing in it is verified but its form.

    Attributes:
        kid: Device id, 16 bytes, or the public key of a witness, 32 bytes.
    """

    kid: bytes
    audience: str
    method: str
    target: str
    body_hash: bytes
    nonce: str
    jti: str


def read(token: str) -> Claims:
    """Read a token whose form is exact.

    Raises:
        Refused: A segment is not canonical, a member is missing, unknown or of the wrong kind.

    Source: PROTOCOL [T-1], [T-4].
    """
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise _invalid("token is too long")
    parts = token.split(".")
    decoded = [decode(part) for part in parts]
    # SPEC [T-4]: a token is written in canonical base64url, without padding.
    if len(decoded) != 3 or None in decoded:  # noqa: PLR2004 - the three segments of any token
        raise _invalid("token is not three segments of canonical base64url")
    header, claims = (_members(data or b"") for data in decoded[:2])
    # SPEC [T-1]: all of these and no others are there, and each is exact.
    if header.keys() != _HEADER or claims.keys() != _CLAIMS:
        raise _invalid("token has a member too many or too few")
    if not all(isinstance(value, str) for value in (*header.values(), *claims.values())):
        raise _invalid("token has a member that is not text")
    if header["alg"] != TOKEN_ALGORITHM or header["typ"] != TOKEN_TYPE:
        raise _invalid("token is of another type or algorithm")
    if not _KID.fullmatch(header["kid"]) or not _JTI.fullmatch(claims["jti"]):
        raise _invalid("token has a kid or jti of another form")
    body_hash = decode(claims["bh"])
    if body_hash is None:
        raise _invalid("token has a body hash that is not canonical base64url")
    return Claims(
        kid=bytes.fromhex(header["kid"]),
        audience=claims["aud"],
        method=claims["htm"],
        target=claims["htu"],
        body_hash=body_hash,
        nonce=claims["n"],
        jti=claims["jti"],
    )


def verify(token: str, public: bytes | None) -> None:
    """Check a token's signature.

    Args:
        token: Read by ``read`` before.
        public: The device's fast key; None when there is no such device, which costs the same.

    Raises:
        Refused: The signature is not by this key.
    """
    try:
        jwt.decode(
            token,
            _key(public or _NOBODY),
            algorithms=[TOKEN_ALGORITHM],
            options={
                "require": sorted(_CLAIMS),
                "verify_aud": False,
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
    except jwt.PyJWTError as error:
        raise _invalid("token is not signed by an active device") from error
    if public is None:
        raise _invalid("token is not signed by an active device")


def check_request(claims: Claims, *, deployment: str, method: str, target: str) -> None:
    """Check that a token is for this request.

    Args:
        claims: Of a verified token.
        deployment: This deployment's id in hexadecimal.
        method: As in the request line.
        target: Path and query as in the request line.

    Raises:
        Refused: It is for another one.
    """
    # SPEC [T-1]: each is exact. Stops a token that was made for one thing from doing another.
    if claims.audience != deployment:
        raise _invalid("token is for another deployment")
    if claims.method != method or claims.target != target:
        raise _invalid("token is for another method, path or query")


def check_body(claims: Claims, body: bytes) -> None:
    """Check that a token is for this body.

    Raises:
        Refused: It is for another one.
    """
    # SPEC [T-1]: each is exact.
    if claims.body_hash != sha256(body).digest():
        raise _invalid("token is for another body")


def _members(data: bytes) -> dict[str, Any]:
    """Read a JSON object in which no name stands twice."""
    try:
        value = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _invalid("token is not JSON") from error
    if not isinstance(value, dict):
        raise _invalid("token is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice")
    return members


@lru_cache(4_096)
def _key(public: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public)


def _invalid(detail: str) -> Refused:
    return Refused("unauthenticated", detail)
