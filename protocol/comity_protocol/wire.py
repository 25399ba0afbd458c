"""Paths, headers, media types and problem codes: once, for both sides.

What travels in bodies is written by the modules of the objects; here is only how they are put on
HTTP. Everything binary is this protocol's CBOR; problems are RFC 9457 JSON.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

MEDIA_TYPE: Final = "application/cbor"
PROBLEM_TYPE: Final = "application/problem+json"

STATEMENTS: Final = "/v1/statements"
GENESIS: Final = "/v1/genesis"
BOXES: Final = "/v1/boxes"
ENVELOPES: Final = "/v1/envelopes"
MAILBOX: Final = "/v1/mailbox"
WRAPS: Final = "/v1/wraps"
RECEIPTS: Final = "/v1/receipts"
NOTICES: Final = "/v1/notices"
PROOF: Final = "/v1/proof"
COVERING: Final = "/v1/covering"
LEAVES: Final = "/v1/leaves"
CHECKPOINTS: Final = "/v1/checkpoints"
ANCHORS: Final = "/v1/anchors"
VACANCIES: Final = "/v1/vacancies"
WITNESS_LINK: Final = "/v1/witness-link"
SOCKET: Final = "/v1/socket"
NONCE: Final = "/v1/nonce"
CHECKPOINT: Final = "/checkpoint"
TILE: Final = "/tile"

AUTHORIZATION: Final = "Authorization"
SCHEME: Final = "Comity"
NONCE_HEADER: Final = "Comity-Nonce"

TOKEN_TYPE: Final = "comity+jwt"  # noqa: S105  # a media type, no secret
TOKEN_ALGORITHM: Final = "EdDSA"  # noqa: S105  # an algorithm, no secret
TOKEN_CLAIMS: Final = ("aud", "bh", "htm", "htu", "jti", "n")
"""Deployment, body hash, method, path with query, token id, nonce: all required, no others."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that a relay may answer instead of doing what was asked.

    Attributes:
        status: HTTP status.
        title: What happened, for people; the same for every occurrence.
        remedy: What to do next, for people.
    """

    status: int
    title: str
    remedy: str


PROBLEMS: Final = MappingProxyType(
    {
        "malformed": Problem(
            422, "the object cannot be read", "update the program that made it and send again"
        ),
        "bad-request": Problem(
            400, "the request cannot be read", "check path, query and body against /openapi.yaml"
        ),
        "verification-failed": Problem(
            422,
            "a signature, hash or rule does not hold",
            "synchronise and make the object again; if it persists, tell your administrator",
        ),
        "unauthenticated": Problem(
            401,
            "the request token is missing or wrong",
            "ask your desk's admin whether this device was admitted; an active device signs a token"
            " for each request",
        ),
        "use-nonce": Problem(
            401,
            "the token's nonce is stale or another worker's",
            "sign again with the nonce in the Comity-Nonce header of this answer",
        ),
        "replayed-token": Problem(
            401, "this token was used before", "sign a new token for each request"
        ),
        "not-active": Problem(
            403,
            "this device may not act for its desk",
            "ask your desk's admin whether the device was removed",
        ),
        "not-found": Problem(
            404, "there is nothing here for you", "check the identifier, and that you are addressed"
        ),
        "not-yet": Problem(
            404,
            "not covered by a witnessed checkpoint yet",
            "ask again after the time in Retry-After",
        ),
        "method-not-allowed": Problem(
            405, "this path does not take this method", "use a method out of the Allow header"
        ),
        "too-large": Problem(
            413, "the body is larger than allowed", "make it smaller or send it as an attachment"
        ),
        "unsupported-media": Problem(
            415, "the body has another media type or an encoding", "send application/cbor as it is"
        ),
        "stale-epoch": Problem(
            409,
            "a recipient has turned its epoch",
            "synchronise the directory, seal again to the newest epoch, and send again",
        ),
        "unknown-checkpoint": Problem(
            409,
            "the checkpoint that the object names was not published by this relay",
            "fetch the newest checkpoint, verify it, and make the object again",
        ),
        "id-taken": Problem(
            409, "another object has this id", "choose a new random id and send again"
        ),
        "on-hold": Problem(
            409,
            "an envelope is on hold, so nobody may erase it",
            "see the notices for the desk that holds it, and ask it for a release",
        ),
        "chain-moved": Problem(
            409,
            "the desk's chain has moved on",
            "synchronise the directory and make the statement again",
        ),
        "auditor-missing": Problem(
            403,
            "an auditor that a desk's policy demands is not addressed",
            "synchronise the directory and seal again to every auditor of both desks",
        ),
        "unknown-reference": Problem(
            409,
            "the relay does not hold the wraps that the envelope refers to",
            "seal again with wraps of its own",
        ),
        "unknown-blob": Problem(
            409, "an attachment that the envelope names was not uploaded", "upload it first"
        ),
        "unknown-desk": Problem(
            422, "a desk or device is not in the directory", "synchronise and try again"
        ),
        "quota": Problem(
            429, "your desk's quota is used up", "wait for the time in Retry-After; nothing is lost"
        ),
        "busy": Problem(
            503,
            "the relay has more waiting than it may hold",
            "wait for the time in Retry-After and send the same again; nothing is lost",
        ),
        "repairing": Problem(
            503,
            "the relay takes back what a restore of its database lost",
            "synchronise now and again in some minutes, which sends again what this device sent in"
            " the last 35 days; nothing is lost",
        ),
        "draining": Problem(
            503, "the relay is stopping", "send the same again in a few seconds; nothing is lost"
        ),
        "timeout": Problem(
            408, "the body did not arrive in time", "send again; a smaller body passes sooner"
        ),
        "internal": Problem(
            500, "the relay failed", "send the same again; tell the operator the trace id"
        ),
    }
)
"""Every problem code, with its status and remedy. A code is never reused."""
