"""Suite 1, the only one: everything cryptographic below the envelope.

Nothing here is home-made. Signatures, sealing and hashing are those of ``cryptography`` and PyNaCl;
this file binds each use to a context, fixes the sizes, and turns every failure into one of two
errors. No other module of the protocol calls a cryptographic library, but for ``signed_note`` and
``checkpoint``: what they sign is fixed byte for byte by C2SP, which knows no contexts.

    use                        algorithm                                              bytes added
    fast signature             Ed25519 (cores, receipts, promises)                    64
    full signature             LAMPS composite MLDSA65-Ed25519-SHA512 (statements)    3,373
    anchor signature           ML-DSA-44 (witnesses, on one checkpoint a day)         2,420
    sealing to a public key    HPKE base, X-Wing, HKDF-SHA256, ChaCha20-Poly1305      1,136
    bulk, committing to a key  Cobblestone-256 (bodies, audit records, attachments)   72 and more
    small box                  XChaCha20-Poly1305 (epoch chain, own wraps, key store) 40
    hash, key derivation       SHA-256, HKDF-SHA256
    passphrase                 Argon2id

Rules:

* [K-1] Every signature, seal, key derivation and hash is bound to a context ``comity/1/<kind>``.
* [K-2] Low-order and non-canonical Ed25519 public keys are refused.
* [K-3] A composite signature is valid only if both halves are.
* [K-4] Composite component keys are used nowhere else.
* [K-5] Identifiers and leaves never hash a signature: an ML-DSA signature has many valid forms.
* [K-6] Passphrase stretching below the floor is refused.

Example:
    >>> key = FastKey.generate()
    >>> signature = key.sign(Context.RECEIPT, b"stored")
    >>> verify_fast(key.public, Context.RECEIPT, b"stored", signature)
"""

import base64
import hashlib
import unicodedata
from enum import Enum
from functools import lru_cache
from typing import Final, Self, final

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA44PublicKey,
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_core_ed25519_is_valid_point,
    sodium_memcmp,
)
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.pwhash import argon2id
from nacl.signing import SigningKey, VerifyKey
from nacl.utils import random

from comity_protocol.errors import LimitError, MalformedError, OpenError, VerificationError
from comity_protocol.limits import (
    PUBLIC_KEYS_CACHED_MAX,
    STRETCH_MEMORY_BYTES_MAX,
    STRETCH_MEMORY_BYTES_MIN,
    STRETCH_OPS_MAX,
    STRETCH_OPS_MIN,
)

DIGEST_BYTES: Final = 32
KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 16
SALT_BYTES: Final = 16

FAST_PUBLIC_BYTES: Final = 32
FAST_SIGNATURE_BYTES: Final = 64

ANCHOR_PUBLIC_BYTES: Final = 1_312
ANCHOR_SIGNATURE_BYTES: Final = 2_420

FULL_SEED_BYTES: Final = 64
FULL_PUBLIC_BYTES: Final = 1_984
FULL_SIGNATURE_BYTES: Final = 3_373

SEAL_PUBLIC_BYTES: Final = 1_216
SEAL_OVERHEAD: Final = 1_136
"""Bytes that sealing adds: 1,120 of encapsulated key, 16 of tag."""

BULK_CHUNK_BYTES: Final = 16_384
BULK_OVERHEAD: Final = 72
"""Bytes that bulk encryption adds below one chunk; each full chunk adds 16 more."""

BOX_OVERHEAD: Final = 40
"""Bytes that a small box adds: 24 of nonce, 16 of tag."""

_MLDSA_SEED_BYTES: Final = 32
_MLDSA_PUBLIC_BYTES: Final = 1_952
_MLDSA_SIGNATURE_BYTES: Final = 3_309
_MLKEM_PUBLIC_BYTES: Final = 1_184
_MLKEM_SEED_BYTES: Final = 64
_NONCE_BYTES: Final = 24
_FINGERPRINT_BYTES: Final = 20

_COMPOSITE_PREFIX: Final = b"CompositeAlgorithmSignatures2025"
_COMPOSITE_LABEL: Final = b"COMPSIG-MLDSA65-Ed25519-SHA512"

_HPKE: Final = hpke.Suite(
    hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305
)


class Context(Enum):
    """What a signature, seal, derived key or hash is for: the closed list of kinds.

    A byte string made for one kind is worth nothing as another. This stops an attacker who gets a
    device to sign a receipt and shows the signature as that of an act.
    """

    STATEMENT = "statement"
    ENVELOPE = "envelope"
    RECEIPT = "receipt"
    PROMISE = "promise"
    ACT = "act"
    NOTICE = "notice"
    STAMP = "stamp"
    WITNESS_LINK = "witness-link"
    WRAP = "wrap"
    EPOCH_BOX = "epoch-box"
    PREVIOUS_EPOCH = "previous-epoch"
    BODY = "body"
    AUDIT = "audit"
    KEY = "key"
    LEAF_STATEMENT = "leaf-statement"
    LEAF_ENVELOPE = "leaf-envelope"
    LEAF_RECEIPT = "leaf-receipt"
    LEAF_NOTICE = "leaf-notice"
    LEAF_PLACES = "leaf-places"
    LEAF_BLIND = "leaf-blind"
    LEAF_COUNTER = "leaf-counter"
    BODY_KEY = "body-key"
    AUDIT_KEY = "audit-key"
    ACT_ID = "act-id"
    KEY_STORE = "key-store"
    STATISTICS = "statistics"

    @property
    def label(self) -> bytes:
        """The ASCII string ``comity/1/<kind>`` that is put before what is signed or hashed."""
        return _LABELS[self]


_LABELS: Final = {kind: b"comity/1/" + kind.value.encode("ascii") for kind in Context}
_PREFIXES: Final = {kind: label + b"\x00" for kind, label in _LABELS.items()}


def bind(context: Context, data: bytes) -> bytes:
    """Put the context and a zero byte before data.

    The zero byte makes the list prefix-free: ``key`` followed by data is never ``key-store``.
    """
    # SPEC [K-1]: every signature, seal, key derivation and hash is bound to a context.
    return _PREFIXES[context] + data


def digest(context: Context, data: bytes) -> bytes:
    """Hash data for one use: SHA-256 over the bound data, 32 bytes."""
    return hashlib.sha256(bind(context, data)).digest()


def derive(context: Context, secret: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
    """Derive ``length`` bytes for one use from a uniformly random secret (HKDF-SHA256, no salt).

    Args:
        context: The use.
        secret: 32 random bytes; never a passphrase, for which there is ``stretch``.
        info: What makes this key different from others of the same secret and use.
        length: Bytes wanted, 1 to 8,160.
    """
    return HKDF(SHA256(), length, salt=None, info=bind(context, info)).derive(secret)


def random_bytes(count: int) -> bytes:
    """Take ``count`` bytes from the operating system's random generator."""
    return random(count)


def is_same_secret(one: bytes, other: bytes) -> bool:
    """Compare two secrets in a time that tells only whether their lengths differ."""
    return sodium_memcmp(one, other)


def fingerprint(data_digest: bytes) -> str:
    """Write the first 20 bytes of a digest so that two people can compare it by voice.

    Returns:
        RFC 4648 base32 (letters and 2 to 7, so neither 0 and O nor 1 and I can be mixed up) in
        eight groups of four, such as ``ABCD EFGH ...``.

    Raises:
        ValueError: ``data_digest`` is not 32 bytes.
    """
    _require(data_digest, DIGEST_BYTES, "digest")
    text = base64.b32encode(data_digest[:_FINGERPRINT_BYTES]).decode("ascii")
    return " ".join(text[start : start + 4] for start in range(0, len(text), 4))


# --- Fast signature ---------------------------------------------------------------------------


@final
class FastKey:
    """An Ed25519 key for what is signed often: cores, receipts, promises, request tokens.

    Attributes:
        seed: The 32 secret bytes to keep.
        public: The 32 bytes to publish.
    """

    __slots__ = ("_key", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        """Rebuild the key from its seed; see ``from_seed``."""
        _require(seed, KEY_BYTES, "fast seed")
        self.seed: Final = seed
        self._key: Final = SigningKey(seed)
        self.public: Final = bytes(self._key.verify_key)

    @classmethod
    def generate(cls) -> Self:
        """Make a new random key."""
        return cls(random_bytes(KEY_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Rebuild the key from its 32-byte seed.

        Raises:
            ValueError: The seed has another length.
        """
        return cls(seed)

    def sign(self, context: Context, message: bytes) -> bytes:
        """Sign the bound message; gives 64 bytes, the same each time."""
        return self._key.sign(bind(context, message)).signature

    def __repr__(self) -> str:
        """Show the public half only, because a repr ends in logs."""
        return f"FastKey(public={self.public.hex()})"


def verify_fast(public: bytes, context: Context, message: bytes, signature: bytes) -> None:
    """Check a fast signature.

    Raises:
        VerificationError: The signature is not by this key over this message in this context, is
            not in its one canonical form, or the key is of low order or not canonical.

    Source: PROTOCOL [K-1], [K-2].
    """
    _verify_ed25519(public, bind(context, message), signature, "fast signature")


def check_fast_public(public: bytes) -> None:
    """Check a fast public key before it enters a chain.

    Stops keys under which one signature fits many messages, and keys with two encodings.

    Raises:
        MalformedError: It is not 32 bytes, not canonical, not on the curve, or not in the
            prime-order group.

    Source: PROTOCOL [K-2].
    """
    # SPEC [K-2]: low-order and non-canonical Ed25519 public keys are refused.
    if len(public) != FAST_PUBLIC_BYTES:
        raise MalformedError(f"fast public key has {len(public)} bytes, expected 32")
    if not crypto_core_ed25519_is_valid_point(public):
        raise MalformedError("fast public key is of low order, not canonical or not on the curve")


def _verify_ed25519(public: bytes, message: bytes, signature: bytes, what: str) -> None:
    """Check an Ed25519 signature the strict way.

    libsodium refuses low-order and non-canonical keys, low-order R, and S not below the order.
    """
    if len(public) != FAST_PUBLIC_BYTES or len(signature) != FAST_SIGNATURE_BYTES:
        raise VerificationError(
            f"{what} has a key of {len(public)} and a signature of {len(signature)} bytes,"
            " expected 32 and 64"
        )
    try:
        VerifyKey(public).verify(message, signature)
    except BadSignatureError as error:
        raise VerificationError(f"{what} does not verify") from error


# --- Full signature ---------------------------------------------------------------------------


@final
class FullKey:
    """A composite key for what has legal or membership weight: valid while either half holds.

    Attributes:
        seed: The 64 secret bytes to keep: 32 of ML-DSA-65, then 32 of Ed25519.
        public: The 1,984 bytes to publish: 1,952 of ML-DSA-65, then 32 of Ed25519.
    """

    # SPEC [K-4]: composite component keys are used nowhere else. They have no accessor.
    __slots__ = ("_ed25519", "_mldsa", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        """Rebuild the key from its seed; see ``from_seed``."""
        _require(seed, FULL_SEED_BYTES, "full seed")
        self.seed: Final = seed
        self._mldsa: Final = MLDSA65PrivateKey.from_seed_bytes(seed[:_MLDSA_SEED_BYTES])
        self._ed25519: Final = SigningKey(seed[_MLDSA_SEED_BYTES:])
        self.public: Final = self._mldsa.public_key().public_bytes_raw() + bytes(
            self._ed25519.verify_key
        )

    @classmethod
    def generate(cls) -> Self:
        """Make a new random key."""
        return cls(random_bytes(FULL_SEED_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Rebuild the key from its 64-byte seed.

        Raises:
            ValueError: The seed has another length.
        """
        return cls(seed)

    def sign(self, context: Context, message: bytes) -> bytes:
        """Sign the message; gives 3,373 bytes, other ones each time."""
        framed = _composite_message(context.label, message)
        return self._mldsa.sign(framed, _COMPOSITE_LABEL) + self._ed25519.sign(framed).signature

    def __repr__(self) -> str:
        """Show the key id only, because a repr ends in logs."""
        return f"FullKey(id={key_id(self.public).hex()})"


def verify_full(public: bytes, context: Context, message: bytes, signature: bytes) -> None:
    """Check a full signature.

    Stops a forger who has broken ML-DSA or Ed25519 but not both.

    Raises:
        VerificationError: Either half is not by this key over this message in this context.

    Source: PROTOCOL [K-1], [K-2], [K-3]; draft-ietf-lamps-pq-composite-sigs.
    """
    _verify_composite(public, context.label, message, signature)


def check_full_public(public: bytes) -> None:
    """Check a full public key before it enters a chain.

    Raises:
        MalformedError: It is not 1,984 bytes, or its Ed25519 half fails ``check_fast_public``.

    Source: PROTOCOL [K-2].
    """
    if len(public) != FULL_PUBLIC_BYTES:
        raise MalformedError(f"full public key has {len(public)} bytes, expected 1984")
    check_fast_public(public[_MLDSA_PUBLIC_BYTES:])


def key_id(public: bytes) -> bytes:
    """Name a full key, and the device that holds it: the first 16 bytes of its digest."""
    # SPEC [K-5]: identifiers and leaves never hash a signature.
    return digest(Context.KEY, public)[:KEY_ID_BYTES]


def _verify_composite(public: bytes, label: bytes, message: bytes, signature: bytes) -> None:
    if len(public) != FULL_PUBLIC_BYTES or len(signature) != FULL_SIGNATURE_BYTES:
        raise VerificationError(
            f"full signature has a key of {len(public)} and a signature of {len(signature)} bytes,"
            " expected 1984 and 3373"
        )
    framed = _composite_message(label, message)
    # SPEC [K-3]: a composite signature is valid only if both halves are.
    _verify_ed25519(
        public[_MLDSA_PUBLIC_BYTES:],
        framed,
        signature[_MLDSA_SIGNATURE_BYTES:],
        "Ed25519 half of the full signature",
    )
    try:
        _mldsa_public(public[:_MLDSA_PUBLIC_BYTES]).verify(
            signature[:_MLDSA_SIGNATURE_BYTES], framed, _COMPOSITE_LABEL
        )
    except InvalidSignature as error:
        raise VerificationError("ML-DSA half of the full signature does not verify") from error


def _composite_message(label: bytes, message: bytes) -> bytes:
    """Frame a message as the composite draft says; ``label`` is its application context."""
    return b"".join(
        (
            _COMPOSITE_PREFIX,
            _COMPOSITE_LABEL,
            bytes((len(label),)),
            label,
            hashlib.sha512(message).digest(),
        )
    )


@lru_cache(PUBLIC_KEYS_CACHED_MAX)
def _mldsa_public(public: bytes) -> MLDSA65PublicKey:
    return MLDSA65PublicKey.from_public_bytes(public)


# --- Anchor signature -------------------------------------------------------------------------


@final
class AnchorKey:
    """A witness's ML-DSA-44 key, for checkpoints that are to outlast Ed25519.

    C2SP fixes what it signs byte for byte, with a label of its own, so no context is put before it.

    Attributes:
        seed: The 32 secret bytes to keep.
        public: The 1,312 bytes to publish.
    """

    __slots__ = ("_key", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        """Rebuild the key from its seed; see ``from_seed``."""
        _require(seed, KEY_BYTES, "anchor seed")
        self.seed: Final = seed
        self._key: Final = MLDSA44PrivateKey.from_seed_bytes(seed)
        self.public: Final = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Self:
        """Make a new random key."""
        return cls(random_bytes(KEY_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Rebuild the key from its 32-byte seed.

        Raises:
            ValueError: The seed has another length.
        """
        return cls(seed)

    def sign(self, message: bytes) -> bytes:
        """Sign the message as it stands; gives 2,420 bytes, other ones each time."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        """Show a digest of the public half only, because a repr ends in logs."""
        return f"AnchorKey(digest={hashlib.sha256(self.public).hexdigest()[:16]})"


def verify_anchor_signature(public: bytes, message: bytes, signature: bytes) -> None:
    """Check a signature by an ``AnchorKey`` over the message as it stands.

    Raises:
        VerificationError: It is not by this key over this message.
    """
    if len(public) != ANCHOR_PUBLIC_BYTES or len(signature) != ANCHOR_SIGNATURE_BYTES:
        raise VerificationError(
            f"anchor signature has a key of {len(public)} and a signature of {len(signature)}"
            " bytes, expected 1312 and 2420"
        )
    try:
        MLDSA44PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature as error:
        raise VerificationError("anchor signature does not verify") from error


# --- Sealing to a public key ------------------------------------------------------------------


@final
class SealKey:
    """An X-Wing key that others seal to: an epoch key of a desk, or a device's own.

    Attributes:
        seed: The 32 secret bytes to keep.
        public: The 1,216 bytes to publish: 1,184 of ML-KEM-768, then 32 of X25519.
    """

    __slots__ = ("_key", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        """Rebuild the key from its seed; see ``from_seed``."""
        _require(seed, KEY_BYTES, "seal seed")
        self.seed: Final = seed
        expanded = hashlib.shake_256(seed).digest(_MLKEM_SEED_BYTES + KEY_BYTES)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_BYTES])
        x25519 = X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_BYTES:])
        self._key: Final = hpke.MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public: Final = (
            mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        )

    @classmethod
    def generate(cls) -> Self:
        """Make a new random key."""
        return cls(random_bytes(KEY_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Rebuild the key from its 32-byte seed. Costs 0.1 ms: keep the object, not the seed.

        Raises:
            ValueError: The seed has another length.
        """
        return cls(seed)

    def open(self, ciphertext: bytes, context: Context, info: bytes) -> bytes:
        """Open what ``seal_to`` sealed to this key, in the same context and with the same info.

        Raises:
            OpenError: It was sealed to another key, for another use, or altered.
        """
        try:
            return _HPKE.decrypt(ciphertext, self._key, info=bind(context, info))
        except InvalidTag as error:
            raise OpenError(f"{context.value} is not sealed to this key, or was altered") from error

    def __repr__(self) -> str:
        """Show a piece of the public half only, because a repr ends in logs."""
        return f"SealKey(public={self.public[:8].hex()}...)"


def seal_to(public: bytes, context: Context, info: bytes, plaintext: bytes) -> bytes:
    """Seal a small plaintext to a public key; gives 1,136 bytes more than the plaintext.

    Whoever has the public key can do this: it proves nothing of the sender, a signature must.

    Args:
        public: 1,216 bytes, out of a verified chain.
        context: The use.
        info: What the reader must already know and agree on; not sent.
        plaintext: Usually a 32-byte key.

    Raises:
        MalformedError: ``public`` is not a public key.
    """
    try:
        return _HPKE.encrypt(plaintext, _seal_public(public), info=bind(context, info))
    except ValueError as error:  # An X25519 half of low order shows only when it is used.
        raise MalformedError("sealing key is of low order") from error


def check_seal_public(public: bytes) -> None:
    """Check a sealing key before it enters a chain, by sealing to it once.

    Raises:
        MalformedError: It is not 1,216 bytes, its ML-KEM half is not reduced, or its X25519 half is
            of low order.
    """
    seal_to(public, Context.WRAP, b"", b"")


@lru_cache(PUBLIC_KEYS_CACHED_MAX)
def _seal_public(public: bytes) -> hpke.MLKEM768X25519PublicKey:
    if len(public) != SEAL_PUBLIC_BYTES:
        raise MalformedError(f"sealing key has {len(public)} bytes, expected 1216")
    try:
        mlkem = MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC_BYTES])
    except ValueError as error:
        raise MalformedError("sealing key has a number that is not reduced") from error
    x25519 = X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC_BYTES:])
    return hpke.MLKEM768X25519PublicKey(mlkem, x25519)


# --- Symmetric encryption ---------------------------------------------------------------------


def encrypt(key: bytes, context: Context, info: bytes, plaintext: bytes) -> bytes:
    """Encrypt a body, an audit record or an attachment part so that one key alone opens it.

    Stops a sender who would have two readers open one ciphertext to two texts.

    Args:
        key: 32 secret bytes.
        context: The use.
        info: What the reader must already know and agree on; not sent.
        plaintext: Any length.

    Returns:
        ``len(plaintext) + bulk_overhead(len(plaintext))`` bytes, other ones each time.
    """
    _require(key, KEY_BYTES, "key")
    encryptor = Cobblestone256Encryptor(key, bind(context, info))
    return encryptor.update(plaintext) + encryptor.finalize()


def decrypt(key: bytes, context: Context, info: bytes, ciphertext: bytes) -> bytes:
    """Decrypt what ``encrypt`` gave; all of it or nothing.

    Raises:
        OpenError: The key, context or info is another one, or a byte was altered or cut.
    """
    _require_to_open(key, context)
    decryptor = Cobblestone256Decryptor(key, bind(context, info))
    try:
        return decryptor.update(ciphertext) + decryptor.finalize()
    except InvalidTag as error:
        raise OpenError(f"{context.value} does not open with this key, or was altered") from error


def bulk_overhead(plaintext_bytes: int) -> int:
    """How many bytes ``encrypt`` adds to a plaintext of this length."""
    return BULK_OVERHEAD + 16 * (plaintext_bytes // BULK_CHUNK_BYTES)


def box_encrypt(key: bytes, context: Context, info: bytes, plaintext: bytes) -> bytes:
    """Encrypt something small that only its own maker reads, such as a key in a key store.

    It does not commit to the key; where two readers must see the same, use ``encrypt``.

    Returns:
        A random 24-byte nonce and the ciphertext, 40 bytes more than the plaintext.
    """
    _require(key, KEY_BYTES, "key")
    nonce = random_bytes(_NONCE_BYTES)
    return nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(
        plaintext, bind(context, info), nonce, key
    )


def box_decrypt(key: bytes, context: Context, info: bytes, ciphertext: bytes) -> bytes:
    """Decrypt what ``box_encrypt`` gave.

    Raises:
        OpenError: The key, context or info is another one, or a byte was altered or cut.
    """
    _require_to_open(key, context)
    if len(ciphertext) < BOX_OVERHEAD:
        raise OpenError(f"{context.value} has {len(ciphertext)} bytes, expected 40 or more")
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(
            ciphertext[_NONCE_BYTES:], bind(context, info), ciphertext[:_NONCE_BYTES], key
        )
    except CryptoError as error:
        raise OpenError(f"{context.value} does not open with this key, or was altered") from error


def stretch(passphrase: str, salt: bytes, ops: int, memory_bytes: int) -> bytes:
    """Turn a passphrase into a 32-byte key, slowly (Argon2id).

    The passphrase is put in Unicode form NFKC first: the same keys on two keyboards give the same.

    Args:
        passphrase: As typed.
        salt: 16 random bytes, kept beside what the key protects.
        ops: Argon2id passes, as kept beside the salt; not trusted.
        memory_bytes: Argon2id memory, as kept beside the salt; not trusted.

    Raises:
        LimitError: A parameter is below the floor, which stops a planted key store that asks for a
            cheap guess, or above the ceiling, which stops one that would hang the machine.
        ValueError: The salt has another length.

    Source: PROTOCOL [K-6].
    """
    _require(salt, SALT_BYTES, "salt")
    # SPEC [K-6]: passphrase stretching below the floor is refused.
    _check_range(ops, "passes", STRETCH_OPS_MIN, STRETCH_OPS_MAX)
    _check_range(
        memory_bytes, "bytes of memory", STRETCH_MEMORY_BYTES_MIN, STRETCH_MEMORY_BYTES_MAX
    )
    normal = unicodedata.normalize("NFKC", passphrase).encode("utf-8")
    return argon2id.kdf(KEY_BYTES, normal, salt, opslimit=ops, memlimit=memory_bytes)


def _check_range(value: int, unit: str, low: int, high: int) -> None:
    if not low <= value <= high:
        raise LimitError(f"stretching takes {value} {unit}, expected {low} to {high}")


def _require(data: bytes, length: int, what: str) -> None:
    if len(data) != length:
        raise ValueError(f"{what} has {len(data)} bytes, expected {length}")


def _require_to_open(key: bytes, context: Context) -> None:
    """Refuse a key of another length, which a hostile sender may have sealed, as unopenable."""
    if len(key) != KEY_BYTES:
        raise OpenError(f"{context.value} has a key of {len(key)} bytes, expected 32")
