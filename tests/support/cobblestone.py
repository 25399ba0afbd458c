"""A second reading of c2sp.org/chunked-encryption, to hold the library's against."""

from itertools import pairwise

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_CHUNK = 16_384 + 16


def read_cobblestone(
    hash_algorithm: HashAlgorithm, key: bytes, context: bytes, ciphertext: bytes
) -> bytes:
    """Open a message made with AES-256-GCM and HKDF-Expand over the given hash.

    Raises:
        ValueError: Key length, commitment or chunking is wrong.
        cryptography.exceptions.InvalidTag: A chunk is not authentic.
    """
    salt, commitment, chunks = ciphertext[:24], ciphertext[24:56], ciphertext[56:]
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00" + salt + context
    derived = HKDFExpand(hash_algorithm, 32 + 12 + 32, info).derive(key)
    if len(key) != 32 or derived[44:] != commitment or len(chunks) % _CHUNK < 16:
        raise ValueError("key length, commitment or chunking is wrong")
    aead, base = AESGCM(derived[:32]), int.from_bytes(derived[32:44], "big")
    bounds = pairwise([*range(0, len(chunks), _CHUNK), len(chunks)])
    return b"".join(
        aead.decrypt((base ^ number).to_bytes(12, "big"), chunks[start:end], None)
        for number, (start, end) in enumerate(bounds)
    )
