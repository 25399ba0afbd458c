"""Requests that nobody honest makes, by the hundred, and what an answer to one may look like.

Three kinds: an HTTP request with something wrong in it (`Case`), bytes on a connection that are
hardly HTTP (`Raw`), and WebSocket frames (`Frames`). Objects are altered in two ways: any bytes may
be flipped or cut, and any member may be replaced by any other value and *signed again* by the
device, because a member of the deployment can be hostile too.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.envelope import Upload
from comity_protocol.identifiers import EnvelopeId
from comity_protocol.keys import Context
from comity_protocol.notices import Author, Hold, HoldBasis, sign_notice
from comity_protocol.receipts import Receipt, Signed, sign_receipt
from comity_protocol.statements import SignedStatement, sign_statement
from comity_protocol.wire import PROBLEM_TYPE, PROBLEMS
from support.load import Line
from support.relay import base64url
from support.world import Member, World

ANSWER_SECONDS_MAX: Final = 40.0
QUIET_SECONDS: Final = 0.3
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
CBOR: Final = ("Content-Type", "application/cbor")

HOSTILE_VALUES: Final[tuple[Value, ...]] = (
    None,
    True,
    -1,
    0,
    1,
    2**64 - 1,
    -(2**64),
    b"",
    bytes(16),
    bytes(32),
    b"\xff" * 4_096,
    "",
    "\x00",
    "\u202e" * 300,
    "' OR 1=1 --",
    [],
    [[]] * 300,
    [[[[[[]]]]]],
    {},
    {"v": 1},
    {str(number): number for number in range(300)},
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; `status` is 0 when nothing did before the connection was closed."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def wrong(self, method: str = "") -> str:
        """What no answer may be, in words; empty when it is as it should be."""
        if self.status >= 500:
            return f"status {self.status}: {self.body[:300]!r}"
        if self.status < 400:
            return ""
        if "comity-trace" not in self.headers:
            # The web server's parser answers before anything is routed; it must say nothing of us.
            return "" if self.status == 400 and b"Traceback" not in self.body else "unrouted"
        if self.headers.get("content-type") != PROBLEM_TYPE:
            return f"status {self.status} is no problem+json"
        if method == "HEAD":
            return "" if not self.body else "an answer to HEAD has a body"
        try:
            problem = json.loads(self.body)
        except ValueError:
            return f"problem of status {self.status} is {self.body[:100]!r}, {self.headers}"
        known = PROBLEMS.get(problem.get("code"))
        if known is None or (known.status, known.remedy) != (self.status, problem["remedy"]):
            return f"problem {problem.get('code')} is not of the table"
        return ""


@dataclass(frozen=True, slots=True)
class Case:
    """An HTTP request with something wrong in it.

    Attributes:
        as_device: Whether it carries a token of its own that holds for exactly it.
        is_partial: Whether the relay may rightly wait for more.
    """

    name: str
    method: str
    target: str
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    as_device: bool = False
    is_partial: bool = False

    def bytes_for(self, line: Line, member: Member) -> bytes:
        """Write the request as it goes over the wire."""
        headers = [("Host", urlsplit(line.url).netloc), ("Connection", "close"), *self.headers]
        if self.as_device:
            token = line.token(member, self.method, self.target, self.body)
            headers.append(("Authorization", f"Comity {token}"))
        names = {name.lower() for name, _ in headers}
        if self.body and not names & {"content-length", "transfer-encoding"}:
            headers.append(("Content-Length", str(len(self.body))))
        head = f"{self.method} {self.target} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
        return head.encode("utf-8", "surrogateescape") + self.body


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes on a connection; afterwards the sender says no more."""

    name: str
    data: bytes


async def exchange(url: str, data: bytes, *, patience_seconds: float) -> Reply:
    """Send bytes on a fresh connection and read until the relay closes it.

    Args:
        url: Of the relay.
        data: What to send.
        patience_seconds: After so long without an answer the sender ends its side: what was sent
            may not be a whole request. Not before, because a relay need not answer whoever left.
    """
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    received = b""
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            # Who sends too much is cut off; the answer may be there all the same.
            with suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
            received = await _read_until_quiet(reader, patience_seconds)
            if not reader.at_eof():
                with suppress(ConnectionError):
                    writer.write_eof()
                received += await _read_until_quiet(reader, ANSWER_SECONDS_MAX)
    finally:
        writer.close()
    return read_reply(received)


async def _read_until_quiet(reader: asyncio.StreamReader, seconds: float) -> bytes:
    """Read until the other side closes, or says nothing for so long."""
    received = b""
    with suppress(ConnectionError, TimeoutError):
        while True:
            async with asyncio.timeout(seconds):
                part = await reader.read(65_536)
            if not part:
                return received
            received += part
            assert len(received) < ANSWER_BYTES_MAX
    return received


def read_reply(data: bytes) -> Reply:
    """Read the first final answer out of what came back."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    if not lines[0].startswith("HTTP/1."):
        return Reply(0, {}, data)
    status = int(lines[0].split(" ")[1])
    if status == 100:
        return read_reply(body)
    pairs = (line.partition(":") for line in lines[1:])
    return Reply(status, {name.lower(): value.strip() for name, _, value in pairs}, body)


# Bodies.


def mangled(good: bytes, *, cuts: int, flips: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Cut and flip bytes, the same ones in each run."""
    state = seed
    for number in range(cuts):
        yield f"cut {number}", good[: len(good) * number // cuts]
    for number in range(flips):
        state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
        # Two in three near the start, where the structure is.
        at = (state >> 16) % (len(good) if number % 3 == 0 else min(64, len(good)))
        bit = 1 << ((state >> 8) % 8)
        yield f"flip {number}", good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :]
    yield "twice", good + good
    yield "one byte more", good + b"\x00"


BROKEN_CBOR: Final[tuple[tuple[str, bytes], ...]] = (
    ("one byte", b"\x00"),
    ("break", b"\xff"),
    ("float", b"\xfb" + bytes(8)),
    ("tag", b"\xc0\x00"),
    ("undefined", b"\xf7"),
    ("indefinite array", b"\x9f\x01\xff"),
    ("indefinite bytes", b"\x5f\x41\x00\xff"),
    ("indefinite map", b"\xbf\xff"),
    ("length beyond the end", b"\x5b" + b"\xff" * 8),
    ("array of 2^64 - 1", b"\x9b" + b"\xff" * 8),
    ("map of 2^32", b"\xba\xff\xff\xff\xff"),
    ("long form of a short number", b"\x18\x00"),
    ("reserved length", b"\x1c"),
    ("deep", b"\x81" * 100_000),
    ("deep maps", b"\xa1\x61\x61" * 50_000),
    ("doubled key", b"\xa2\x61\x61\x01\x61\x61\x02"),
    ("keys out of order", b"\xa2\x61\x62\x01\x61\x61\x02"),
    ("text that is not UTF-8", b"\x62\xff\xfe"),
    ("text with a surrogate", b"\x63\xed\xa0\x80"),
    ("number as key", b"\xa1\x01\x01"),
    ("JSON", b'{"v":1}'),
    ("XML", b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'),
    ("zeros", bytes(70_000)),
    ("text", b"\x7a\x00\x01\x00\x00" + b"a" * 65_536),
)


def upload_bodies(world: World, member: Member, good: Upload) -> Iterator[tuple[str, bytes]]:
    """Uploads with something wrong; those with a wrong core are signed again by the device."""
    data = good.serialize()
    yield from BROKEN_CBOR
    yield from mangled(data, cuts=24, flips=60, seed=1)
    parts: list[Value] = [good.core, good.signature, good.body, good.audit, list(good.wraps)]
    for position in range(len(parts)):
        for value in HOSTILE_VALUES:
            changed: list[Value] = [*parts[:position], value, *parts[position + 1 :]]
            yield f"part {position} is {_show(value)}", serialize(changed)
    for name, core in altered_maps(good.core):
        signature = member.fast.sign(Context.ENVELOPE, core)
        yield (
            f"core with {name}",
            serialize([core, signature, good.body, good.audit, list(good.wraps)]),
        )


def receipt_bodies(member: Member, seq: int, seen: bytes) -> Iterator[tuple[str, bytes]]:
    """Receipts with something wrong, signed again by the device."""
    good = sign_receipt(
        member.fast,
        Receipt(member.desk, member.id, seq, ((EnvelopeId(bytes(16)), bytes(32)),), seen),
    )
    yield from BROKEN_CBOR
    yield from mangled(good.serialize(), cuts=12, flips=30, seed=2)
    for name, payload in altered_maps(good.payload):
        signed = Signed(payload, member.fast.sign(Context.RECEIPT, payload))
        yield f"receipt with {name}", signed.serialize()


def notice_bodies(
    world: World, member: Member, seq: int, seen: bytes
) -> Iterator[tuple[str, bytes]]:
    """Notices with something wrong, signed again by the device."""
    by = Author(world.genesis.deployment, member.desk, member.id, seq, seen)
    good = sign_notice(member.fast, Hold(by, (EnvelopeId(bytes(16)),), HoldBasis.COMPLAINT))
    yield from BROKEN_CBOR
    yield from mangled(good.serialize(), cuts=12, flips=30, seed=4)
    for name, payload in altered_maps(good.payload):
        signed = Signed(payload, member.fast.sign(Context.NOTICE, payload))
        yield f"notice with {name}", signed.serialize()


def statement_bodies(member: Member, good: SignedStatement) -> Iterator[tuple[str, bytes]]:
    """Statements with something wrong, signed again by the device's full key."""
    yield from BROKEN_CBOR
    yield from mangled(good.serialize(), cuts=12, flips=30, seed=3)
    for name, payload in altered_maps(good.payload):
        yield f"statement with {name}", sign_statement(payload, [member.full]).serialize()
    for name, data in altered_maps(good.serialize()):
        yield f"signed statement with {name}", data


def altered_maps(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Replace each member of a map by each hostile value; leave one out; add one."""
    good = parse(data)
    assert isinstance(good, dict)
    for key in good:
        yield f"no {key}", serialize({k: v for k, v in good.items() if k != key})
        for value in HOSTILE_VALUES:
            yield f"{key} {_show(value)}", serialize(good | {key: value})
        inner = good[key]
        if isinstance(inner, list) and inner:
            yield f"{key} twice as long", serialize(good | {key: inner * 2})
            yield f"{key} turned round", serialize(good | {key: inner[::-1]})
            yield f"{key} of 4,000", serialize(good | {key: [inner[0]] * 4_000})
    for key in ("zz", "ref", "blobs", "__class__"):
        for value in (bytes(16), [bytes(16)], {}):
            yield f"{key} more", serialize(good | {key: value})


# Requests.


def token_cases(line: Line, member: Member) -> Iterator[Case]:
    """Tokens that do not hold, on a route that demands one."""
    path = "/v1/mailbox"
    good = line.token(member, "GET", path)
    head, claims, signature = good.split(".")
    wrong = {
        "none": "",
        "scheme only": "Comity ",
        "bearer": f"Bearer {good}",
        "lower case": f"comity {good}",
        "padded": f"Comity {good}==",
        "two spaces": f"Comity  {good}",
        "no signature": f"Comity {head}.{claims}.",
        "two parts": f"Comity {head}.{claims}",
        "four parts": f"Comity {good}.x",
        "swapped": f"Comity {claims}.{head}.{signature}",
        "long": f"Comity {'A' * 7_000}",
        "dots": f"Comity {'.' * 500}",
        "NUL as text": f"Comity {head}%00.{claims}.{signature}",
        "not ASCII": f"Comity {good}é",
        "another path": f"Comity {line.token(member, 'GET', '/v1/boxes')}",
        "another method": f"Comity {line.token(member, 'POST', path)}",
        "another body": f"Comity {line.token(member, 'GET', path, b'x')}",
        "deep JSON": _token(b"[" * 2_000, claims, signature),
        "number as kid": _token(b'{"alg":"EdDSA","typ":"comity+jwt","kid":1}', claims, signature),
        "algorithm none": _token(
            b'{"alg":"none","typ":"comity+jwt","kid":"' + b"0" * 32 + b'"}', claims, ""
        ),
        "surrogate": _token(b'{"alg":"\\ud800"}', claims, signature),
        "huge number": _token(b'{"alg":' + b"9" * 2_900 + b"}", claims, signature),
    }
    for name, value in wrong.items():
        yield Case(f"token: {name}", "GET", path, [("Authorization", value)])
    yield Case("token: two", "GET", path, [("Authorization", f"Comity {good}")] * 2)
    yield Case("token: with a body", "GET", path, [CBOR], b"\x80", as_device=True)


def method_cases(paths: Sequence[str]) -> Iterator[Case]:
    """Every path with methods that it does not take, and some that do not exist."""
    for path in paths:
        for method in ("HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST", "BREW", "get"):
            if method == "POST" and path in _POSTED:
                continue
            yield Case(f"{method} {path}", method, path)


_POSTED: Final = {"/v1/statements", "/v1/envelopes", "/v1/receipts", "/v1/notices"}


def path_cases() -> Iterator[Case]:
    """Paths and queries that try to be somewhere else."""
    for target in (
        *("/", "//", "/v1", "/v1/", "/v1//mailbox", "/v1/mailbox/", "/V1/mailbox", "/v1/mailbox;a"),
        *(
            "/../etc/passwd",
            "/v1/../version",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/..%2f..%2fetc%2fpasswd",
        ),
        *("/tile/../../etc/passwd", "/tile/0/../../version", "/tile/entries/../../metrics"),
        *("/tile/0/%2e%2e%2f000", "/tile/0/x001/x002", "/tile/0/x/000", "/tile/0/000.p/0"),
        *("/tile/0/000.p/256", "/tile/0/000.p/-1", "/tile/0/000.p/1.p/1", "/tile/00/000"),
        *("/tile/8/000", "/tile/99999999999999999999/000", "/tile/0/" + "x999/" * 6 + "999"),
        *("/tile/0/" + "x000/" * 500 + "000", "/tile/entries/x999/x999/x999/x999/999"),
        *(
            "/tile/0/\u0660\u0660\u0660",
            "/tile/\u0660/000",
            "/v1/proof/\u0663",
            "/v1/proof/-1",
            "/v1/proof/01",
        ),
        *("/v1/proof/9223372036854775807", "/v1/proof/9223372036854775808", "/v1/proof/1e3"),
        *("/v1/proof/" + "9" * 5_000, "/v1/proof/0x10", "/v1/proof/%00", "/v1/proof/1%2f2"),
        *("/v1/envelopes/" + "0" * 31, "/v1/envelopes/" + "0" * 33, "/v1/envelopes/" + "G" * 32),
        *("/v1/envelopes/" + "A" * 32, "/v1/envelopes/%00", "/v1/wraps/..", "/v1/wraps/' OR 1=1"),
        *("/checkpoint?x=1", "/checkpoint?", "/checkpoint#x", "/v1/nonce?a=b", "/livez?%ff=%fe"),
        *("/%00", "/%ff%fe", "/%c0%af", "/\x7f", "/é", "/%F0%9F%92%A9", "/" + "a" * 7_000),
        *("/metrics/..;/x", "/.git/config", "/openapi.json", "/docs", "*", "http://evil.example/"),
        *(
            "http://evil.example/v1/mailbox",
            "//evil.example/v1/mailbox",
            "evil",
            "?",
            "#",
            "/?" * 99,
        ),
    ):
        yield Case(f"path {target[:60]!r}", "GET", target.replace(" ", "%20"))
    for query in (
        *("?limit=0", "?limit=501", "?limit=", "?limit=1&limit=1", "?limit=%31", "?limit=+1"),
        *("?limit=1.0", "?limit=1_0", "?limit=\u0663", "?limit=true", "?limit=null", "?limit[]=1"),
        *("?after=18446744073709551616", "?after=-2", "?after=-0", "?after=00", "?after=NaN"),
        *("?after=0;limit=1", "?after=0&", "?&&&", "?=", "?after", "?wait=31", "?wait=-1"),
        *(
            "?desk=" + "0" * 32,
            "?after=1' OR '1'='1",
            "?order=desk",
            "?%00=%00",
            "?a=" + "b" * 6_000,
        ),
        "?" + "&".join(f"k{number}=1" for number in range(500)),
    ):
        for path in ("/v1/mailbox", "/v1/receipts", "/v1/notices", "/v1/statements"):
            target = (path + query).replace(" ", "%20").replace("'", "%27")
            if query == "?%31" or query in ("?limit=%31", "?after=0&", "?&&&"):
                continue  # These may be read as well-formed queries.
            yield Case(f"query {target[:70]}", "GET", target, as_device=True)


def header_cases(upload: bytes) -> Iterator[Case]:
    """Bodies whose headers lie."""
    post = "/v1/envelopes"
    for name, value in (
        *(("Content-Encoding", coding) for coding in ("gzip", "br", "deflate", "zstd", "x", "")),
        ("Content-Encoding", "gzip, gzip"),
        ("Content-Encoding", "identity, gzip"),
        *(("Content-Type", kind) for kind in ("", "text/plain", "application/json", 'a/b; c="d')),
        ("Content-Type", "application/cbor-seq"),
        ("Content-Type", "multipart/form-data; boundary=x"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Content-Type", "é/ü"),
    ):
        given = [(name, value)] if name == "Content-Type" else [CBOR, (name, value)]
        yield Case(f"{name} {value}", "POST", post, given, upload, as_device=True)
    bomb = gzip.compress(bytes(32 * 1024 * 1024), 9)
    deflated = zlib.compress(bytes(32 * 1024 * 1024), 9)
    for path in ("/v1/envelopes", "/v1/statements"):
        signed = path == post
        yield Case("gzip bomb", "POST", path, [CBOR, ("Content-Encoding", "gzip")], bomb, signed)
        yield Case(
            "deflate bomb", "POST", path, [CBOR, ("Content-Encoding", "deflate")], deflated, signed
        )
        yield Case("too large", "POST", path, [CBOR], bytes(9 * 1024 * 1024), signed)
        yield Case(
            "large by its own word",
            "POST",
            path,
            [CBOR, ("Content-Length", "9" * 18)],
            b"x",
            signed,
        )
        yield Case("empty", "POST", path, [CBOR, ("Content-Length", "0")], b"", signed)
        yield Case("expect", "POST", path, [CBOR, ("Expect", "200-maybe")], b"\x80", signed)
        yield Case("continue", "POST", path, [CBOR, ("Expect", "100-continue")], b"\x80", signed)
        yield Case(
            "chunks of no length",
            "POST",
            path,
            [CBOR, ("Transfer-Encoding", "chunked")],
            b"zz\r\n\x80\r\n0\r\n\r\n",
            signed,
        )
    for name, value in (
        *(("Upgrade", "websocket"), ("Upgrade", "h2c"), ("Connection", "upgrade, close")),
        *(("X-Forwarded-For", "127.0.0.1"), ("X-HTTP-Method-Override", "DELETE")),
        *(("Range", "bytes=0-1,2-3,5-"), ("If-None-Match", "*"), ("Cookie", "a=" + "b" * 4_000)),
        *(("Accept", "text/html"), ("Accept-Encoding", "gzip;q=x"), ("Origin", "http://evil")),
        *(("Comity-Trace", "x" * 999), ("Comity-Nonce", "x"), ("X", "\udc80\udcff")),
    ):
        for path in ("/version", "/v1/socket", "/checkpoint"):
            yield Case(f"{name} on {path}", "GET", path, [(name, value)])


def raw_cases(host: str) -> Iterator[Raw]:
    """Bytes that are hardly HTTP."""
    line, end = f"GET /version HTTP/1.1\r\nHost: {host}\r\n", "Connection: close\r\n\r\n"
    post = f"POST /v1/statements HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/cbor\r\n"
    texts = {
        "nothing": "",
        "one byte": "G",
        "newlines": "\r\n" * 50,
        "half a head": line,
        "no version": "GET /version\r\n\r\n",
        "HTTP/0.9": "GET /version HTTP/0.9\r\n\r\n",
        "HTTP/1.0": "GET /version HTTP/1.0\r\n\r\n",
        "HTTP/2.0": "GET /version HTTP/2.0\r\n\r\n",
        "HTTP/9.99999": "GET /version HTTP/9.99999\r\n\r\n",
        "preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "spaces": "GET  /version  HTTP/1.1\r\n\r\n",
        "tabs": "GET\t/version\tHTTP/1.1\r\n\r\n",
        "bare newlines": f"GET /version HTTP/1.1\nHost: {host}\n\n",
        "no host": "GET /version HTTP/1.1\r\n" + end,
        "two hosts": line + "Host: evil.example\r\n" + end,
        "space before colon": line + "X : y\r\n" + end,
        "folded header": line + "X: a\r\n b\r\n" + end,
        "header without colon": line + "nonsense\r\n" + end,
        "empty name": line + ": x\r\n" + end,
        "NUL in header": line + "X: a\x00b\r\n" + end,
        "lone return": line + "X: a\rY: b\r\n" + end,
        "10,000 headers": line + "X: y\r\n" * 10_000 + end,
        "header of a megabyte": line + f"X: {'a' * 1_000_000}\r\n" + end,
        "name of 100,000": line + f"{'X' * 100_000}: a\r\n" + end,
        "path of a megabyte": f"GET /{'a' * 1_000_000} HTTP/1.1\r\nHost: {host}\r\n" + end,
        "method of 100,000": f"{'A' * 100_000} / HTTP/1.1\r\nHost: {host}\r\n" + end,
        "CONNECT": f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n" + end,
        "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "a" * 512,
        "SMTP": "EHLO x\r\n",
        "pipelined": line + "\r\n" + line + "\r\n" + line + end,
        "2,000 pipelined": (line + "\r\n") * 2_000 + line + end,
        "body short": post + "Content-Length: 100\r\n" + end + "abc",
        "body long": post + "Content-Length: 1\r\n" + end + "\x00GET /metrics HTTP/1.1\r\n\r\n",
        "length negative": post + "Content-Length: -1\r\n" + end,
        "length signed": post + "Content-Length: +1\r\n" + end + "a",
        "length hexadecimal": post + "Content-Length: 0x10\r\n" + end,
        "length with underscore": post + "Content-Length: 1_0\r\n" + end,
        "length of 2^64": post + "Content-Length: 18446744073709551616\r\n" + end,
        "two lengths": post + "Content-Length: 1\r\nContent-Length: 2\r\n" + end + "ab",
        "list of lengths": post + "Content-Length: 1, 1\r\n" + end + "a",
        "length and chunks": post
        + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"
        + end
        + "0\r\n\r\n",
        "chunked twice": post + "Transfer-Encoding: chunked, chunked\r\n" + end + "0\r\n\r\n",
        "chunked not last": post + "Transfer-Encoding: chunked, gzip\r\n" + end + "0\r\n\r\n",
        "coding unknown": post + "Transfer-Encoding: cow\r\n" + end + "0\r\n\r\n",
        "coding obscured": post + "Transfer-Encoding:\x0bchunked\r\n" + end + "0\r\n\r\n",
        "chunk size not hexadecimal": post + "Transfer-Encoding: chunked\r\n" + end + "g\r\n",
        "chunk size negative": post + "Transfer-Encoding: chunked\r\n" + end + "-1\r\n",
        "chunk size huge": post + "Transfer-Encoding: chunked\r\n" + end + "f" * 17 + "\r\n",
        "chunk size of a megabyte": post + "Transfer-Encoding: chunked\r\n" + end + "0" * 1_000_000,
        "chunk extension of 100,000": post
        + "Transfer-Encoding: chunked\r\n"
        + end
        + f"1;{'a' * 100_000}\r\na\r\n0\r\n\r\n",
        "chunk cut": post + "Transfer-Encoding: chunked\r\n" + end + "ff\r\nabc",
        "chunk without end": post
        + "Transfer-Encoding: chunked\r\n"
        + end
        + "3\r\nabcd\r\n0\r\n\r\n",
        "bare newline chunks": post + "Transfer-Encoding: chunked\r\n" + end + "1\na\n0\n\n",
        "50,000 chunks": post + "Transfer-Encoding: chunked\r\n" + end + "1\r\na\r\n" * 50_000,
        "trailers": post
        + "Transfer-Encoding: chunked\r\n"
        + end
        + "0\r\nX: y\r\n" * 2_000
        + "\r\n",
        "chunks in HTTP/1.0": post.replace("1.1", "1.0")
        + "Transfer-Encoding: chunked\r\n"
        + end
        + "0\r\n\r\n",
    }
    for name, text in texts.items():
        yield Raw(name, text.encode("latin-1"))
    for number in range(24):
        yield Raw(f"noise {number}", _noise(number, 400))
    good = (line + end).encode()
    for name, data in mangled(good, cuts=10, flips=40, seed=4):
        yield Raw(f"head, {name}", data)


def _noise(seed: int, length: int) -> bytes:
    state, data = seed + 1, bytearray()
    while len(data) < length:
        state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
        data += state.to_bytes(8, "big")
    return bytes(data[:length])


# WebSocket frames.


@dataclass(frozen=True, slots=True)
class Frames:
    """What a client writes on a WebSocket after the handshake; `token` first, when it has one."""

    name: str
    data: Callable[[Line, Member], bytes]


def frame(
    payload: bytes,
    *,
    opcode: int = 2,
    is_final: bool = True,
    reserved: int = 0,
    masked: bool = True,
) -> bytes:
    """Write one frame, right or wrong."""
    head = bytes([(0x80 if is_final else 0) | reserved << 4 | opcode])
    mask_bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 65_536:
        head += bytes([mask_bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([mask_bit | 127]) + size.to_bytes(8, "big")
    # A mask of zeros leaves the payload as it is.
    return head + (bytes(4) if masked else b"") + payload


def token_frame(line: Line, member: Member) -> bytes:
    """The first frame of an honest client."""
    return frame(serialize(["token", line.token(member, "GET", "/v1/socket")]))


def frames_cases(upload: bytes) -> Iterator[Frames]:
    """Conversations that no honest client has."""

    def before(name: str, data: bytes) -> Frames:
        return Frames(f"socket, no token: {name}", lambda _line, _member: data)

    def after(name: str, data: bytes) -> Frames:
        return Frames(f"socket: {name}", lambda line, member: token_frame(line, member) + data)

    shapes = {
        "nothing": b"",
        "text": frame(b"hello", opcode=1),
        "text that is not UTF-8": frame(b"\xff\xfe", opcode=1),
        "empty": frame(b""),
        "not masked": frame(b"\x80", masked=False),
        "reserved bits": frame(b"\x80", reserved=7),
        "opcode 3": frame(b"\x80", opcode=3),
        "opcode 11": frame(b"\x80", opcode=11),
        "continuation of nothing": frame(b"\x80", opcode=0),
        "fragments in fragments": frame(b"\x80", is_final=False) * 3,
        "1,000 fragments": frame(b"\x81", is_final=False)
        + frame(b"", opcode=0, is_final=False) * 999,
        "ping of 125": frame(bytes(125), opcode=9),
        "ping of 126": frame(bytes(126), opcode=9),
        "fragmented ping": frame(b"", opcode=9, is_final=False),
        "1,000 pings": frame(b"x", opcode=9) * 1_000,
        "pong of nothing": frame(b"", opcode=10),
        "close": frame(b"", opcode=8),
        "close with one byte": frame(b"\x03", opcode=8),
        "close 999": frame((999).to_bytes(2, "big"), opcode=8),
        "close 65535": frame(b"\xff\xff", opcode=8),
        "close with wrong text": frame(b"\x03\xe8\xff\xff", opcode=8),
        "length of 2^63": b"\x82\xff" + b"\xff" * 8,
        "length beyond the bound": b"\x82\xff" + (1 << 30).to_bytes(8, "big") + bytes(4),
        "one byte": b"\x82",
        "zeros": bytes(500),
        "noise": _noise(99, 500),
        "compressed": frame(b"\x00", reserved=4),
    }
    for name, data in shapes.items():
        yield before(name, data)
        yield after(name, data)
    for name, data in BROKEN_CBOR:
        yield before(name, frame(data))
        yield after(name, frame(data))
    for value in HOSTILE_VALUES:
        yield before(f"token {_show(value)}", frame(serialize(["token", value])))
        yield after(f"value {_show(value)}", frame(serialize(value)))
        yield after(f"name {_show(value)}", frame(serialize([value, 1])))
        yield after(f"follow {_show(value)}", frame(serialize(["follow", value])))
        yield after(f"number {_show(value)}", frame(serialize(["send", value, upload])))
        yield after(f"upload {_show(value)}", frame(serialize(["send", 1, value])))
    conversations: dict[str, list[Value]] = {
        "token again": ["token", "x"],
        "ready": ["ready"],
        "accepted": ["accepted", 1, b"", b""],
        "item": ["item", 1, 1, b"", b"", b"", b"", b""],
        "send without upload": ["send", 1],
        "send with more": ["send", 1, upload, 1],
        "follow with more": ["follow", 0, 0],
        "many parts": ["send"] * 1_000,
    }
    for name, parts in conversations.items():
        yield after(name, frame(serialize(parts)))
    yield after("200 uploads at once", frame(serialize(["send", 1, upload])) * 200)
    yield after("follow 500 times", frame(serialize(["follow", 0])) * 500)
    for name, data in mangled(frame(serialize(["send", 1, upload])), cuts=12, flips=24, seed=5):
        yield after(f"send, {name}", data)


async def converse(line: Line, member: Member, frames: Frames) -> tuple[list[str], list[str]]:
    """Shake hands, write the frames, read to the end; give what came back and what is wrong."""
    parts = urlsplit(line.url)
    handshake = (
        f"GET /v1/socket HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    received = b""
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            writer.write(handshake.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            # Each step, so that what can be answered is answered before the next is said.
            for data in (frames.data(line, member), frame(b"\x03\xe8", opcode=8), b""):
                with suppress(ConnectionError):
                    writer.write(data) if data else writer.write_eof()
                    await writer.drain()
                received += await _read_until_quiet(reader, QUIET_SECONDS)
                if reader.at_eof():
                    break
    finally:
        writer.close()
    if b" 101 " not in head.split(b"\r\n")[0]:
        return [], [f"no WebSocket: {head[:200]!r}"]
    answers = [_read_answer(payload) for payload in read_frames(received)]
    return [what for what, _ in answers], [wrong for _, wrong in answers if wrong]


def read_frames(data: bytes) -> Iterator[bytes]:
    """Give the payloads of the binary frames that a server sent, as far as they are whole."""
    at = 0
    while at + 2 <= len(data):
        opcode, size = data[at] & 15, data[at + 1] & 127
        at += 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size = int.from_bytes(data[at : at + width], "big")
            at += width
        if opcode == 2 and at + size <= len(data):
            yield data[at : at + size]
        at += size


def _read_answer(payload: bytes) -> tuple[str, str]:
    """Give what a frame of the relay is, and what is wrong with it."""
    value: Any = parse(payload)
    if value[0] != "refused":
        known_names = {"ready", "accepted", "item", "receipt"}
        return value[0], "" if value[0] in known_names else f"frame {value[0]}"
    problem = json.loads(value[2])
    known = PROBLEMS.get(problem["code"])
    if known is None or known.remedy != problem["remedy"] or known.status != problem["status"]:
        return "refused", f"problem {problem['code']} is not of the table"
    return problem["code"], f"{problem}" if known.status >= 500 else ""


def _token(header: bytes, claims: str, signature: str) -> str:
    return f"Comity {base64url(header)}.{claims}.{signature}"


def _show(value: Value) -> str:
    text = repr(value)
    return text if len(text) < 30 else text[:27] + "..."
