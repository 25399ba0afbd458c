"""Suite 1 does what it says, and refuses what it says: [K-1] to [K-6]."""

import doctest
import hashlib
import hmac
import unicodedata
from collections.abc import Callable
from itertools import permutations

import pytest
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given
from hypothesis import strategies as st

from comity_protocol import keys
from comity_protocol.errors import LimitError, MalformedError, OpenError, VerificationError
from comity_protocol.keys import Context, FastKey, FullKey, SealKey
from comity_protocol.limits import (
    STRETCH_MEMORY_BYTES_MAX,
    STRETCH_MEMORY_BYTES_MIN,
    STRETCH_OPS_MAX,
    STRETCH_OPS_MIN,
)
from support.cobblestone import read_cobblestone

FAST = FastKey.from_seed(bytes(range(32)))
FULL = FullKey.from_seed(bytes(range(64)))
SEAL = SealKey.from_seed(bytes(range(32)))
KEY = bytes(range(32, 64))
ORDER = 2**252 + 27742317777372353535851937790883648493
FIELD = 2**255 - 19

# All eight points of order 1, 2, 4 and 8, and their second encodings.
LOW_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]

# y from p to 2^255 - 1, both signs: each is a second encoding of y - p.
NON_CANONICAL = [
    (FIELD + y | sign << 255).to_bytes(32, "little").hex() for y in range(2, 19) for sign in (0, 1)
]


def _flipped(data: bytes, step: int = 1) -> list[bytes]:
    """Give the data with one bit changed, at every ``step``-th byte."""
    return [
        data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :]
        for at in range(0, len(data), step)
    ]


def test_the_example_in_the_documentation_works() -> None:
    assert doctest.testmod(keys) == (0, 3)


# --- Contexts ---------------------------------------------------------------------------------


def test_no_bound_context_begins_another() -> None:
    """[K-1]: with its zero byte the list is prefix-free, so no data turns one kind into another."""
    bound = [keys.bind(context, b"") for context in Context]

    assert len(set(bound)) == len(bound)
    assert not [pair for pair in permutations(bound, 2) if pair[0].startswith(pair[1])]


@pytest.mark.parametrize("context", Context)
def test_a_context_is_named_after_its_kind_and_version(context: Context) -> None:
    """[K-1]: and is short enough for the one length byte of the composite."""
    assert context.label == b"comity/1/" + context.value.encode()
    assert b"\x00" not in context.label
    assert len(context.label) < 256


def test_a_digest_is_sha_256_of_the_bound_data() -> None:
    expected = hashlib.sha256(b"comity/1/act-id\x00data").digest()

    assert keys.digest(Context.ACT_ID, b"data") == expected


def test_derived_keys_are_hkdf_of_the_bound_info() -> None:
    """[K-1], against RFC 5869 written out: extract with a salt of zeros, then one expand."""
    extracted = hmac.digest(bytes(32), KEY, "sha256")
    expanded = hmac.digest(extracted, b"comity/1/body-key\x00info\x01", "sha256")

    assert keys.derive(Context.BODY_KEY, KEY, b"info") == expanded
    assert keys.derive(Context.BODY_KEY, KEY, b"info", length=16) == expanded[:16]


@pytest.mark.parametrize("make", [keys.digest, lambda c, d: keys.derive(c, KEY, d)])
def test_one_input_gives_other_bytes_in_every_context(
    make: Callable[[Context, bytes], bytes],
) -> None:
    """[K-1]."""
    assert len({make(context, b"same") for context in Context}) == len(Context)


# --- Fast signatures --------------------------------------------------------------------------


def test_a_fast_signature_verifies() -> None:
    signature = FAST.sign(Context.RECEIPT, b"message")

    assert (len(FAST.public), len(signature)) == (32, 64)
    keys.verify_fast(FAST.public, Context.RECEIPT, b"message", signature)


@pytest.mark.parametrize("made", Context)
def test_a_fast_signature_for_one_kind_is_worth_nothing_as_another(made: Context) -> None:
    """[K-1]: cross-protocol reuse, every ordered pair of kinds."""
    signature = FAST.sign(made, b"message")

    for claimed in set(Context) - {made}:
        with pytest.raises(VerificationError, match="fast signature does not verify"):
            keys.verify_fast(FAST.public, claimed, b"message", signature)


def test_a_fast_signature_with_a_bit_changed_is_refused() -> None:
    signature = FAST.sign(Context.RECEIPT, b"message")

    for changed in _flipped(signature):
        with pytest.raises(VerificationError):
            keys.verify_fast(FAST.public, Context.RECEIPT, b"message", changed)
    for changed in _flipped(b"message"):
        with pytest.raises(VerificationError):
            keys.verify_fast(FAST.public, Context.RECEIPT, changed, signature)
    for changed in _flipped(FAST.public):
        with pytest.raises(VerificationError):
            keys.verify_fast(changed, Context.RECEIPT, b"message", signature)


def test_a_fast_signature_has_one_form_only() -> None:
    """S plus the order of the group is the same number to a careless verifier."""
    signature = FAST.sign(Context.RECEIPT, b"message")
    larger = int.from_bytes(signature[32:], "little") + ORDER

    with pytest.raises(VerificationError):
        keys.verify_fast(
            FAST.public,
            Context.RECEIPT,
            b"message",
            signature[:32] + larger.to_bytes(32, "little"),
        )


@pytest.mark.parametrize(
    ("public", "signature"),
    [(31, 64), (33, 64), (0, 64), (32, 63), (32, 65), (32, 0), (1_984, 3_373)],
)
def test_a_fast_signature_or_key_of_another_length_is_refused(public: int, signature: int) -> None:
    with pytest.raises(VerificationError, match=r"expected 32 and 64"):
        keys.verify_fast(bytes(public), Context.ACT, b"", bytes(signature))


@pytest.mark.parametrize("public", LOW_ORDER + NON_CANONICAL)
def test_a_low_order_or_non_canonical_fast_key_is_refused(public: str) -> None:
    """[K-2]: at enrolment and again at verification, with the signature that fits everything."""
    point = bytes.fromhex(public)
    fits_everything = bytes.fromhex(LOW_ORDER[0]) + bytes(32)

    with pytest.raises(MalformedError, match="low order, not canonical or not on the curve"):
        keys.check_fast_public(point)
    with pytest.raises(VerificationError):
        keys.verify_fast(point, Context.ACT, b"message", fits_everything)


def test_a_fast_key_off_the_curve_or_of_another_length_is_refused() -> None:
    """[K-2]: y = 2 is on no point of the curve."""
    with pytest.raises(MalformedError, match="not on the curve"):
        keys.check_fast_public((2).to_bytes(32, "little"))
    with pytest.raises(MalformedError, match="fast public key has 31 bytes, expected 32"):
        keys.check_fast_public(bytes(31))


def test_an_honest_fast_key_is_taken() -> None:
    keys.check_fast_public(FastKey.generate().public)


# --- Full signatures --------------------------------------------------------------------------


def test_a_full_signature_verifies_and_has_its_published_sizes() -> None:
    signature = FULL.sign(Context.ACT, b"message")

    assert (len(FULL.public), len(signature)) == (1_984, 3_373)
    keys.verify_full(FULL.public, Context.ACT, b"message", signature)


def test_a_full_signature_is_other_bytes_each_time() -> None:
    """[K-5]: which is why no identifier may hash one."""
    assert FULL.sign(Context.ACT, b"message") != FULL.sign(Context.ACT, b"message")


@pytest.mark.parametrize("made", Context)
def test_a_full_signature_for_one_kind_is_worth_nothing_as_another(made: Context) -> None:
    """[K-1]: cross-protocol reuse, every ordered pair of kinds."""
    signature = FULL.sign(made, b"message")

    for claimed in set(Context) - {made}:
        with pytest.raises(VerificationError):
            keys.verify_full(FULL.public, claimed, b"message", signature)


def test_a_full_signature_needs_both_halves() -> None:
    """[K-3]: a forger of either half alone has nothing."""
    ours = FULL.sign(Context.ACT, b"message")
    other = FULL.sign(Context.ACT, b"other message")

    with pytest.raises(VerificationError, match="Ed25519 half"):
        keys.verify_full(FULL.public, Context.ACT, b"message", ours[:3_309] + other[3_309:])
    with pytest.raises(VerificationError, match="ML-DSA half"):
        keys.verify_full(FULL.public, Context.ACT, b"message", other[:3_309] + ours[3_309:])


def test_a_full_signature_is_over_the_context_with_its_length_and_the_hash_of_the_message() -> None:
    """[K-1]: the length keeps a context and a message from flowing into each other."""
    framed = keys._composite_message(Context.ACT.label, b"message")

    assert framed == (
        b"CompositeAlgorithmSignatures2025"
        b"COMPSIG-MLDSA65-Ed25519-SHA512"
        b"\x0ccomity/1/act" + hashlib.sha512(b"message").digest()
    )


def test_halves_of_two_keys_do_not_make_a_third() -> None:
    """[K-3] [K-4]: keys and signatures of two owners do not mix."""
    other = FullKey.generate()
    ours, theirs = FULL.sign(Context.ACT, b"m"), other.sign(Context.ACT, b"m")
    mixed = FULL.public[:1_952] + other.public[1_952:]

    keys.verify_full(mixed, Context.ACT, b"m", ours[:3_309] + theirs[3_309:])
    assert keys.key_id(mixed) not in (keys.key_id(FULL.public), keys.key_id(other.public))
    with pytest.raises(VerificationError):
        keys.verify_full(FULL.public, Context.ACT, b"m", ours[:3_309] + theirs[3_309:])


def test_no_half_of_a_full_signature_is_a_fast_signature() -> None:
    """[K-4]: even an owner who enrolled the same Ed25519 key twice is protected by the framing."""
    half = FULL.sign(Context.ACT, b"message")[3_309:]

    for context in Context:
        with pytest.raises(VerificationError):
            keys.verify_fast(FULL.public[1_952:], context, b"message", half)


def test_a_full_signature_with_a_bit_changed_is_refused() -> None:
    signature = FULL.sign(Context.ACT, b"message")

    for changed in _flipped(signature, step=31):
        with pytest.raises(VerificationError):
            keys.verify_full(FULL.public, Context.ACT, b"message", changed)
    for changed in _flipped(FULL.public, step=31):
        with pytest.raises(VerificationError):
            keys.verify_full(changed, Context.ACT, b"message", signature)
    with pytest.raises(VerificationError):
        keys.verify_full(FULL.public, Context.ACT, b"massage", signature)


@pytest.mark.parametrize(("public", "signature"), [(1_983, 3_373), (1_984, 3_372), (32, 64)])
def test_a_full_signature_or_key_of_another_length_is_refused(public: int, signature: int) -> None:
    with pytest.raises(VerificationError, match=r"expected 1984 and 3373"):
        keys.verify_full(bytes(public), Context.ACT, b"", bytes(signature))


@pytest.mark.parametrize("public", LOW_ORDER + NON_CANONICAL)
def test_a_full_key_with_a_low_order_or_non_canonical_half_is_refused(public: str) -> None:
    """[K-2]: the Ed25519 half of a composite is no exception."""
    with pytest.raises(MalformedError, match="low order"):
        keys.check_full_public(FULL.public[:1_952] + bytes.fromhex(public))


def test_an_honest_full_key_is_taken_and_one_of_another_length_refused() -> None:
    keys.check_full_public(FULL.public)
    with pytest.raises(MalformedError, match="full public key has 1983 bytes, expected 1984"):
        keys.check_full_public(FULL.public[:-1])


def test_a_key_id_is_the_beginning_of_a_digest_of_the_public_key() -> None:
    """[K-5]: a hash of the key, never of a signature."""
    expected = hashlib.sha256(b"comity/1/key\x00" + FULL.public).digest()[:16]

    assert keys.key_id(FULL.public) == expected


# --- Sealing ----------------------------------------------------------------------------------


def test_what_is_sealed_to_a_key_opens_with_it() -> None:
    sealed = keys.seal_to(SEAL.public, Context.WRAP, b"info", KEY)

    assert (len(SEAL.public), len(sealed)) == (keys.SEAL_PUBLIC_BYTES, 32 + keys.SEAL_OVERHEAD)
    assert SEAL.open(sealed, Context.WRAP, b"info") == KEY
    assert keys.seal_to(SEAL.public, Context.WRAP, b"info", KEY) != sealed


def test_what_is_sealed_opens_only_in_its_context_with_its_info_and_key() -> None:
    """[K-1]: a wrap moved to another desk, epoch or use does not open."""
    sealed = keys.seal_to(SEAL.public, Context.WRAP, b"info", KEY)

    for context in set(Context) - {Context.WRAP}:
        with pytest.raises(OpenError, match=f"{context.value} is not sealed to this key"):
            SEAL.open(sealed, context, b"info")
    with pytest.raises(OpenError):
        SEAL.open(sealed, Context.WRAP, b"other")
    with pytest.raises(OpenError):
        SealKey.generate().open(sealed, Context.WRAP, b"info")


def test_what_is_sealed_does_not_open_with_a_bit_changed_or_cut() -> None:
    sealed = keys.seal_to(SEAL.public, Context.WRAP, b"info", KEY)

    for changed in [*_flipped(sealed, step=13), sealed[:-1], sealed + b"\x00", sealed[:31], b""]:
        with pytest.raises(OpenError):
            SEAL.open(changed, Context.WRAP, b"info")


def test_a_malformed_sealing_key_is_refused() -> None:
    """Non-reduced ML-KEM numbers, a low-order X25519 half, another length."""
    not_reduced = b"\xff" * 1_184 + SEAL.public[1_184:]
    low_order = SEAL.public[:1_184] + bytes(32)

    keys.check_seal_public(SEAL.public)
    with pytest.raises(MalformedError, match="a number that is not reduced"):
        keys.check_seal_public(not_reduced)
    with pytest.raises(MalformedError, match="is of low order"):
        keys.check_seal_public(low_order)
    with pytest.raises(MalformedError, match="is of low order"):
        keys.seal_to(low_order, Context.WRAP, b"", KEY)
    with pytest.raises(MalformedError, match="sealing key has 1215 bytes, expected 1216"):
        keys.check_seal_public(SEAL.public[:-1])


# --- Encoding confusion -----------------------------------------------------------------------


def test_no_public_key_is_taken_for_one_of_another_type() -> None:
    """[K-2]: each type's bytes are refused at the entrance of every other type."""
    entrances = {
        FAST.public: keys.check_fast_public,
        FULL.public: keys.check_full_public,
        SEAL.public: keys.check_seal_public,
    }

    for public, own in entrances.items():
        own(public)
        for other in set(entrances.values()) - {own}:
            with pytest.raises(MalformedError):
                other(public)


def test_no_seed_is_taken_for_one_of_another_type() -> None:
    for rebuild, length in ((FastKey, 32), (FullKey, 64), (SealKey, 32)):
        with pytest.raises(ValueError, match=f"seed has {length + 1} bytes, expected {length}"):
            rebuild.from_seed(bytes(length + 1))


@pytest.mark.parametrize("kind", [FastKey, FullKey, SealKey])
def test_a_key_comes_back_from_its_seed_and_no_two_are_alike(
    kind: type[FastKey | FullKey | SealKey],
) -> None:
    key = kind.generate()

    assert kind.from_seed(key.seed).public == key.public
    assert kind.generate().public != key.public


@pytest.mark.parametrize("key", [FAST, FULL, SEAL], ids=["fast", "full", "seal"])
def test_a_printed_key_does_not_show_its_seed(key: FastKey | FullKey | SealKey) -> None:
    assert key.seed.hex() not in repr(key)
    assert type(key).__name__ in repr(key)


# --- Symmetric encryption ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 16_385, 40_000])
def test_bulk_comes_back_and_has_the_size_that_was_said(size: int) -> None:
    plaintext = bytes(size)
    ciphertext = keys.encrypt(KEY, Context.BODY, b"info", plaintext)

    assert keys.decrypt(KEY, Context.BODY, b"info", ciphertext) == plaintext
    assert len(ciphertext) == size + keys.bulk_overhead(size)


def test_bulk_of_less_than_a_chunk_adds_72_bytes() -> None:
    assert keys.bulk_overhead(keys.BULK_CHUNK_BYTES - 1) == keys.BULK_OVERHEAD == 72


def test_a_second_reading_of_the_specification_opens_our_bulk() -> None:
    """[K-1]: and says that our context is the context of the derivation."""
    plaintext = bytes(range(256)) * 150
    ciphertext = keys.encrypt(KEY, Context.AUDIT, b"info", plaintext)

    opened = read_cobblestone(SHA512(), KEY, b"comity/1/audit\x00info", ciphertext)
    assert opened == plaintext


@pytest.mark.parametrize("use", ["bulk", "box"])
def test_a_ciphertext_opens_only_with_its_key_context_and_info(use: str) -> None:
    """[K-1]; for bulk this is also the commitment: no second key opens it."""
    close, open_ = _cipher(use)
    ciphertext = close(KEY, Context.BODY, b"info", b"plaintext")

    assert open_(KEY, Context.BODY, b"info", ciphertext) == b"plaintext"
    for context in set(Context) - {Context.BODY}:
        with pytest.raises(OpenError, match=f"{context.value} does not open with this key"):
            open_(KEY, context, b"info", ciphertext)
    with pytest.raises(OpenError):
        open_(KEY, Context.BODY, b"other", ciphertext)
    for other in _flipped(KEY):
        with pytest.raises(OpenError):
            open_(other, Context.BODY, b"info", ciphertext)


@pytest.mark.parametrize("use", ["bulk", "box"])
def test_a_ciphertext_with_a_bit_changed_or_cut_does_not_open(use: str) -> None:
    close, open_ = _cipher(use)
    ciphertext = close(KEY, Context.BODY, b"info", b"plaintext")

    for changed in [
        *_flipped(ciphertext),
        *(ciphertext[:size] for size in range(len(ciphertext))),
        ciphertext + b"\x00",
    ]:
        with pytest.raises(OpenError):
            open_(KEY, Context.BODY, b"info", changed)


def test_bulk_cut_at_a_chunk_or_with_chunks_swapped_does_not_open() -> None:
    ciphertext = keys.encrypt(KEY, Context.BODY, b"", bytes(40_000))
    head, one, two, rest = (
        ciphertext[:56],
        ciphertext[56:16_456],
        ciphertext[16_456:32_856],
        ciphertext[32_856:],
    )

    for changed in (head + one, head + one + two, head + two + one + rest, head + one + rest):
        with pytest.raises(OpenError):
            keys.decrypt(KEY, Context.BODY, b"", changed)


@pytest.mark.parametrize("use", ["bulk", "box"])
@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_length_is_a_mistake_to_close_and_an_error_to_open(
    use: str, size: int
) -> None:
    """A sealed key of another length comes from a hostile sender, not from our own code."""
    close, open_ = _cipher(use)

    with pytest.raises(ValueError, match=f"key has {size} bytes, expected 32"):
        close(bytes(size), Context.BODY, b"", b"")
    with pytest.raises(OpenError, match=f"body has a key of {size} bytes, expected 32"):
        open_(bytes(size), Context.BODY, b"", bytes(99))


def test_a_box_adds_40_bytes_and_never_repeats() -> None:
    one = keys.box_encrypt(KEY, Context.PREVIOUS_EPOCH, b"", KEY)

    assert len(one) == 32 + keys.BOX_OVERHEAD == 72
    assert keys.box_encrypt(KEY, Context.PREVIOUS_EPOCH, b"", KEY) != one


@given(st.binary(max_size=2_000))
def test_any_plaintext_comes_back(plaintext: bytes) -> None:
    bulk = keys.encrypt(KEY, Context.BODY, b"", plaintext)
    box = keys.box_encrypt(KEY, Context.KEY_STORE, b"", plaintext)

    assert keys.decrypt(KEY, Context.BODY, b"", bulk) == plaintext
    assert keys.box_decrypt(KEY, Context.KEY_STORE, b"", box) == plaintext


Close = Callable[[bytes, Context, bytes, bytes], bytes]


def _cipher(use: str) -> tuple[Close, Close]:
    if use == "bulk":
        return keys.encrypt, keys.decrypt
    return keys.box_encrypt, keys.box_decrypt


# --- Passphrases, random bytes, fingerprints --------------------------------------------------


def test_stretching_is_argon2id() -> None:
    """Against the other library's Argon2id; the passphrase is in normal form KC first."""
    salt = bytes(range(16))
    stretched = keys.stretch("Stra\u00dfe \ufb01", salt, STRETCH_OPS_MIN, STRETCH_MEMORY_BYTES_MIN)
    other = Argon2id(salt=salt, length=32, iterations=3, lanes=1, memory_cost=64 * 1024)

    assert stretched == other.derive("Stra\u00dfe fi".encode())


def test_the_same_passphrase_from_two_keyboards_is_the_same_key() -> None:
    salt = bytes(16)
    composed, decomposed = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))

    assert composed != decomposed
    assert keys.stretch(composed, salt, 3, STRETCH_MEMORY_BYTES_MIN) == keys.stretch(
        decomposed, salt, 3, STRETCH_MEMORY_BYTES_MIN
    )


@pytest.mark.parametrize(
    ("ops", "memory_bytes"),
    [
        (STRETCH_OPS_MIN - 1, STRETCH_MEMORY_BYTES_MIN),
        (STRETCH_OPS_MAX + 1, STRETCH_MEMORY_BYTES_MIN),
        (STRETCH_OPS_MIN, STRETCH_MEMORY_BYTES_MIN - 1),
        (STRETCH_OPS_MIN, STRETCH_MEMORY_BYTES_MAX + 1),
    ],
)
def test_stretching_below_the_floor_or_above_the_ceiling_is_refused(
    ops: int, memory_bytes: int
) -> None:
    """[K-6]: a planted key store can neither cheapen the guess nor hang the machine."""
    with pytest.raises(LimitError, match=r"stretching takes \d+ (passes|bytes of memory)"):
        keys.stretch("passphrase", bytes(16), ops, memory_bytes)


def test_a_salt_of_another_length_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="salt has 15 bytes, expected 16"):
        keys.stretch("passphrase", bytes(15), STRETCH_OPS_MIN, STRETCH_MEMORY_BYTES_MIN)


def test_random_bytes_have_the_length_asked_for_and_differ() -> None:
    assert [len(keys.random_bytes(count)) for count in (0, 1, 32)] == [0, 1, 32]
    assert keys.random_bytes(32) != keys.random_bytes(32)


def test_secrets_are_compared_whole() -> None:
    assert keys.is_same_secret(KEY, bytes(KEY))
    assert not any(keys.is_same_secret(KEY, changed) for changed in _flipped(KEY))
    assert not keys.is_same_secret(KEY, KEY[:-1])


def test_a_fingerprint_is_eight_groups_of_four_letters() -> None:
    digest = bytes.fromhex("00443214c74254b635cf84653a56d7c675be77df" + "ff" * 12)

    assert keys.fingerprint(digest) == "ABCD EFGH IJKL MNOP QRST UVWX YZ23 4567"
    with pytest.raises(ValueError, match="digest has 20 bytes, expected 32"):
        keys.fingerprint(digest[:20])
