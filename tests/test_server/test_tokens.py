"""Request tokens: exact [T-1], lately [T-2], once [T-3], in one form [T-4]."""

import base64
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from comity_protocol.identifiers import DeskId, OfficerId
from comity_protocol.keys import Context
from comity_protocol.statements import Role
from comity_server.problems import Refused
from comity_server.tokens import Nonces, ReplayCache, encode
from support.relay import Stand, base64url
from support.world import Member

PATH = "/v1/mailbox"


def _key(member: Member) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(member.fast.seed)


def _raw(member: Member, header: bytes, claims: bytes) -> str:
    """Sign any two segments with the right key."""
    signed = f"{base64url(header)}.{base64url(claims)}"
    return f"{signed}.{base64url(_key(member).sign(signed.encode()))}"


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


async def _ask(stand: Stand, token: str, path: str = PATH) -> str:
    """Give the code of the answer to a token, or ``ok``."""
    answer = await stand.relay.ask("GET", path, Authorization=f"Comity {token}")
    return "ok" if answer.status == 200 else answer.code


@pytest.fixture
async def claims(stand: Stand) -> dict[str, Any]:
    await stand.relay.ask("GET", "/v1/nonce")
    return stand.relay.claims("GET", PATH)


def _fresh(stand: Stand) -> dict[str, Any]:
    """Make claims with a jti of their own: a wrong body hash uses the jti up."""
    return stand.relay.claims("GET", PATH)


def _header(member: Member, **changes: object) -> dict[str, object]:
    return {"alg": "EdDSA", "typ": "comity+jwt", "kid": member.id.hex()} | changes


async def test_a_token_that_is_exact_opens_the_mailbox(
    stand: Stand, claims: dict[str, Any]
) -> None:
    token = _raw(stand.sender, _json(_header(stand.sender)), _json(claims))

    assert await _ask(stand, token) == "ok"


WRONG_CLAIMS: dict[str, dict[str, object]] = {
    "another deployment": {"aud": "00" * 16},
    "audience in upper case": {"aud": "AB" * 16},
    "audience as a list": {"aud": ["x"]},
    "empty audience": {"aud": ""},
    "another method": {"htm": "POST"},
    "method in lower case": {"htm": "get"},
    "another path": {"htu": "/v1/receipts"},
    "a query that the request has not": {"htu": PATH + "?after=1"},
    "a trailing slash": {"htu": PATH + "/"},
    "a whole address": {"htu": "http://127.0.0.1/v1/mailbox"},
    "an escaped path": {"htu": "/v1/%6dailbox"},
    "hash of another body": {"bh": base64url(bytes(32))},
    "short body hash": {"bh": base64url(bytes(31))},
    "empty body hash": {"bh": ""},
    "body hash in hexadecimal": {"bh": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b"},
    "padded body hash": {"bh": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU="},
    "body hash with loose bits": {"bh": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFV"},
    "short jti": {"jti": "a" * 15},
    "long jti": {"jti": "a" * 65},
    "jti with a dot": {"jti": "a.b" * 8},
    "jti as a number": {"jti": 12345678901234567},
    "jti as null": {"jti": None},
    "nonce as a number": {"n": 7},
    "an expiry beside": {"exp": 4_000_000_000},
    "a subject beside": {"sub": "somebody"},
    "a nested claim beside": {"cnf": {"jwk": {}}},
}


async def test_a_token_with_another_claim_is_refused(stand: Stand, claims: dict[str, Any]) -> None:
    """[T-1]"""
    header = _json(_header(stand.sender))
    codes = {
        name: await _ask(stand, _raw(stand.sender, header, _json(_fresh(stand) | change)))
        for name, change in WRONG_CLAIMS.items()
    }

    assert codes == dict.fromkeys(WRONG_CLAIMS, "unauthenticated")


async def test_a_token_without_one_of_its_claims_is_refused(
    stand: Stand, claims: dict[str, Any]
) -> None:
    """[T-1]"""
    header = _json(_header(stand.sender))
    without = {name: {k: v for k, v in claims.items() if k != name} for name in claims}
    codes = {
        name: await _ask(stand, _raw(stand.sender, header, _json(rest)))
        for name, rest in without.items()
    }

    assert codes == dict.fromkeys(claims, "unauthenticated")


async def test_a_token_without_one_of_its_headers_is_refused(
    stand: Stand, claims: dict[str, Any]
) -> None:
    """[T-1]"""
    header = _header(stand.sender)
    without = {name: {k: v for k, v in header.items() if k != name} for name in header}
    codes = {
        name: await _ask(stand, _raw(stand.sender, _json(rest), _json(claims)))
        for name, rest in without.items()
    }

    assert codes == dict.fromkeys(header, "unauthenticated")


WRONG_HEADERS: dict[str, dict[str, object]] = {
    "no algorithm at all": {"alg": "none"},
    "NONE in capitals": {"alg": "NONE"},
    "symmetric algorithm": {"alg": "HS256"},
    "another curve": {"alg": "ES256"},
    "the curve's own name": {"alg": "Ed25519"},
    "algorithm as a list": {"alg": ["EdDSA"]},
    "plain type": {"typ": "JWT"},
    "type in capitals": {"typ": "COMITY+JWT"},
    "kid of nobody": {"kid": "00" * 16},
    "kid in capitals": {"kid": "AB" * 16},
    "kid too short": {"kid": "00" * 15},
    "kid as a path": {"kid": "../../dev/null"},
    "kid as null": {"kid": None},
    "a key of its own": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AA"}},
    "an address of keys": {"jku": "https://example.com/keys"},
    "a critical extension": {"crit": ["b64"], "b64": False},
    "a detached payload": {"b64": False},
    "compression": {"zip": "DEF"},
    "a certificate": {"x5c": []},
}


async def test_a_token_with_another_header_is_refused(stand: Stand, claims: dict[str, Any]) -> None:
    """[T-1]"""
    codes = {
        name: await _ask(
            stand,
            _raw(stand.sender, _json(_header(stand.sender, **change)), _json(claims)),
        )
        for name, change in WRONG_HEADERS.items()
    }

    assert codes == dict.fromkeys(WRONG_HEADERS, "unauthenticated")


FORMS: dict[str, Callable[[str], str]] = {
    "padding": lambda token: token + "==",
    "one equals sign": lambda token: token + "=",
    "a space at the end": lambda token: token + " x",
    "a second signature": lambda token: token + ".AA",
    "no signature": lambda token: token.rpartition(".")[0] + ".",
    "two segments": lambda token: token.rpartition(".")[0],
    "one segment": lambda token: token.partition(".")[0],
    "nothing": lambda token: "",
    "three dots": lambda token: "...",
    "plain base64": lambda token: token.replace("-", "+").replace("_", "/") + "+",
    "a cut signature": lambda token: token[:-2],
    "a flipped signature": lambda token: (
        token[:-20] + ("B" if token[-20] == "A" else "A") + token[-19:]
    ),
    "loose bits at the end": lambda token: token[:-1] + _next_letter(token[-1]),
    "padding inside": lambda token: token.replace(".", "=.", 1),
    "a line break": lambda token: token.replace(".", "%0a.", 1),
    "very long": lambda token: token + "A" * 5_000,
}


def _next_letter(letter: str) -> str:
    """Give the letter that decodes to the same bits, and one more that must be zero."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return alphabet[alphabet.index(letter) ^ 1]


async def test_a_token_in_another_form_is_refused(stand: Stand, claims: dict[str, Any]) -> None:
    """[T-4]"""
    token = _raw(stand.sender, _json(_header(stand.sender)), _json(claims))
    codes = {name: await _ask(stand, spoil(token)) for name, spoil in FORMS.items()}

    assert codes == dict.fromkeys(FORMS, "unauthenticated")


async def test_the_padded_form_of_a_good_token_is_a_replay_of_nothing(
    stand: Stand, claims: dict[str, Any]
) -> None:
    """[T-4] A refused form does not use up the jti, and the good form then works once."""
    token = _raw(stand.sender, _json(_header(stand.sender)), _json(claims))

    assert await _ask(stand, token + "==") == "unauthenticated"
    assert await _ask(stand, token) == "ok"
    assert await _ask(stand, token) == "replayed-token"


NO_OBJECTS = [b"[]", b"null", b'"x"', b"{", b"\xff\xfe", b"{}" * 2, b"[" * 2_000, b"1" * 3_000]


async def test_a_token_whose_segments_are_no_object_is_refused(
    stand: Stand, claims: dict[str, Any]
) -> None:
    """[T-1]"""
    codes = [
        await _ask(stand, token)
        for segment in NO_OBJECTS
        for token in (
            _raw(stand.sender, segment, _json(claims)),
            _raw(stand.sender, _json(_header(stand.sender)), segment),
        )
    ]

    assert set(codes) == {"unauthenticated"}


async def test_a_token_with_a_name_twice_is_refused(stand: Stand, claims: dict[str, Any]) -> None:
    """[T-1] Stops a token that two programs read in two ways."""
    twice = _json(claims)[:-1] + b', "htm": "GET"}'
    token = _raw(stand.sender, _json(_header(stand.sender)), twice)

    assert await _ask(stand, token) == "unauthenticated"


async def test_a_token_under_another_devices_name_is_refused(
    stand: Stand, claims: dict[str, Any]
) -> None:
    """[T-1]"""
    token = _raw(stand.sender, _json(_header(stand.receiver)), _json(claims))

    assert await _ask(stand, token) == "unauthenticated"


async def test_a_token_by_a_device_that_never_joined_is_refused_like_a_wrong_signature(
    stand: Stand, claims: dict[str, Any]
) -> None:
    stranger = Member(DeskId(bytes(16)), OfficerId(bytes(16)), Role.OFFICER)
    token = _raw(stranger, _json(_header(stranger)), _json(claims))
    forged = _raw(stranger, _json(_header(stand.sender)), _json(claims))
    answers = [
        await stand.relay.ask("GET", PATH, Authorization=f"Comity {each}")
        for each in (token, forged)
    ]

    problems = [answer.problem | {"trace_id": ""} for answer in answers]
    assert problems[0] == problems[1]
    assert problems[0]["code"] == "unauthenticated"


async def test_a_token_signed_by_another_kind_of_key_is_refused(
    stand: Stand, claims: dict[str, Any]
) -> None:
    """[T-1] The public key of a device as a shared secret, and a key of another curve."""
    member = stand.sender
    headers = {"typ": "comity+jwt", "kid": member.id.hex()}
    shared = jwt.encode(claims, member.fast.public, algorithm="HS256", headers=headers)
    curve = jwt.encode(
        claims, generate_private_key(SECP256R1()), algorithm="ES256", headers=headers
    )

    assert await _ask(stand, shared) == "unauthenticated"
    assert await _ask(stand, curve) == "unauthenticated"


async def test_a_signature_of_another_kind_by_the_same_key_is_no_token(
    stand: Stand, claims: dict[str, Any]
) -> None:
    header, body = _json(_header(stand.sender)), _json(claims)
    signed = f"{base64url(header)}.{base64url(body)}"
    token = signed + "." + base64url(stand.sender.fast.sign(Context.RECEIPT, signed.encode()))

    assert await _ask(stand, token) == "unauthenticated"


SCHEMES = ["", "Bearer x", "comity x", "Comity", "Comityx", "Comity  ", "Basic Og=="]


async def test_another_scheme_is_refused(stand: Stand) -> None:
    answers = [await stand.relay.ask("GET", PATH, Authorization=header) for header in SCHEMES]

    assert {(answer.status, answer.code) for answer in answers} == {(401, "unauthenticated")}


async def test_two_tokens_at_once_are_refused(stand: Stand, claims: dict[str, Any]) -> None:
    token = _raw(stand.sender, _json(_header(stand.sender)), _json(claims))
    headers = [("Authorization", f"Comity {token}")] * 2
    async with stand.relay.session.get(stand.relay.url + PATH, headers=headers) as response:
        assert response.status == 401


NONCES = ["", "x", "AAAAAAAAAAA", *(base64url(bytes(size)) for size in (23, 24, 25))]


async def test_a_nonce_that_was_not_given_out_is_refused_with_a_fresh_one(
    stand: Stand, claims: dict[str, Any]
) -> None:
    """[T-2]"""
    header = _json(_header(stand.sender))
    codes = [
        await _ask(stand, _raw(stand.sender, header, _json(claims | {"n": nonce})))
        for nonce in NONCES
    ]

    assert set(codes) == {"use-nonce"}
    fresh = stand.relay.claims("GET", PATH)
    assert await _ask(stand, _raw(stand.sender, header, _json(fresh))) == "ok"


async def test_a_nonce_is_good_for_ten_minutes(stand: Stand, claims: dict[str, Any]) -> None:
    """[T-2]"""
    stand.relay.clock.ahead = 9 * 60
    in_time = _raw(stand.sender, _json(_header(stand.sender)), _json(claims))
    late = _raw(stand.sender, _json(_header(stand.sender)), _json(claims | {"jti": "b" * 20}))

    assert await _ask(stand, in_time) == "ok"
    stand.relay.clock.ahead = 11 * 60 + 1
    assert await _ask(stand, late) == "use-nonce"


def test_a_nonce_of_another_process_or_of_the_future_is_not_good() -> None:
    """[T-2]"""
    here, there = Nonces(), Nonces()
    nonce = here.issue(6_000.0)

    assert here.is_good(nonce, 6_000.0)
    assert here.is_good(nonce, 6_000.0 + 10 * 60)
    assert not here.is_good(nonce, 6_000.0 + 11 * 60)
    assert not here.is_good(nonce, 6_000.0 - 60)
    assert not there.is_good(nonce, 6_000.0)
    assert not here.is_good(nonce + "=", 6_000.0)


async def test_a_token_is_taken_once_however_it_is_signed_again(
    stand: Stand, claims: dict[str, Any]
) -> None:
    """[T-3] The same (kid, jti) in another text is the same token."""
    first = _raw(stand.sender, _json(_header(stand.sender)), _json(claims))
    again = _raw(
        stand.sender,
        json.dumps(_header(stand.sender), indent=1).encode(),
        _json(dict(reversed(claims.items()))),
    )

    assert first != again
    assert await _ask(stand, first) == "ok"
    assert await _ask(stand, again) == "replayed-token"


async def test_two_devices_may_use_the_same_jti(stand: Stand, claims: dict[str, Any]) -> None:
    """[T-3]"""
    one = _raw(stand.sender, _json(_header(stand.sender)), _json(claims))
    other = _raw(stand.receiver, _json(_header(stand.receiver)), _json(claims))

    assert await _ask(stand, one) == "ok"
    assert await _ask(stand, other) == "ok"


def test_the_replay_cache_forgets_only_what_no_nonce_can_bring_back() -> None:
    """[T-3]"""
    cache = ReplayCache()
    cache.take(b"d", "jti", 0.0)

    with pytest.raises(Refused, match="used before"):
        cache.take(b"d", "jti", 10 * 60 + 59.0)
    cache.take(b"d", "jti", 11 * 60.0)


def test_one_device_cannot_fill_the_replay_cache_of_all() -> None:
    """[R-15]"""
    cache = ReplayCache(entries_max=4, device_entries_max=2)
    cache.take(b"noisy", "1", 0.0)
    cache.take(b"noisy", "2", 0.0)

    with pytest.raises(Refused, match="too many tokens"):
        cache.take(b"noisy", "3", 0.0)
    cache.take(b"quiet", "1", 0.0)
    cache.take(b"other", "1", 0.0)
    with pytest.raises(Refused, match="too many tokens"):
        cache.take(b"fifth", "1", 0.0)
    cache.take(b"noisy", "1", 11 * 60.0)


async def test_a_body_that_was_changed_on_the_way_is_refused(stand: Stand) -> None:
    """[T-1]"""
    sealed = stand.relay.seal_lead(stand.sender, stand.to)
    data = sealed.upload.serialize()
    await stand.relay.ask("GET", "/v1/nonce")
    token = stand.relay.token(stand.sender, "POST", "/v1/envelopes", data)
    changed = data[:-1] + bytes([data[-1] ^ 1])
    answer = await stand.relay.ask(
        "POST", "/v1/envelopes", changed, Authorization=f"Comity {token}"
    )

    assert (answer.status, answer.code) == (401, "unauthenticated")


def test_base64url_is_written_without_padding() -> None:
    """[T-4]"""
    data = bytes(range(32))

    assert encode(data) == base64.urlsafe_b64encode(data).decode().rstrip("=")
