"""HTTP around the handlers: problems for every error, bounds on every body, and how it stops."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comity_protocol.errors import ComityError, LimitError, OpenError
from comity_protocol.wire import PROBLEMS
from comity_server import body
from comity_server.handlers import health
from comity_server.hub import Hub
from comity_server.problems import of_error
from comity_server.quotas import DESKS_MAX, Bucket, Quotas
from comity_server.recent import Bounded
from comity_server.store import StoreUnavailableError
from support.relay import Relay, Stand, relay, small_world, wait_until

MEMBERS = {"type", "title", "status", "code", "detail", "remedy", "trace_id"}


async def _raw(stand: Relay, request: bytes) -> bytes:
    """Send bytes as they are; give the answer up to the end of the connection."""
    host, _, port = stand.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


async def test_every_kind_of_refusal_is_a_problem(stand: Stand) -> None:
    """[R-12]"""
    ask = stand.relay.ask
    answers = [
        await ask("GET", "/nothing"),
        await ask("GET", "/v1/"),
        await ask("GET", "/v1/mailbox/"),
        await ask("DELETE", "/v1/mailbox"),
        await ask("HEAD", "/v1/genesis"),
        await ask("OPTIONS", "/v1/envelopes"),
        await ask("PROPFIND", "/checkpoint"),
        await ask("POST", "/v1/statements", b"x", Content_Type="text/plain"),
        await ask("GET", "/v1/genesis?x=1"),
        await ask("GET", "/v1/genesis", b"a body"),
        await ask("POST", "/v1/envelopes", b"x"),
    ]
    codes = [
        (answer.status, answer.code if answer.body else answer.headers["Content-Type"])
        for answer in answers
    ]

    assert codes == [
        (404, "not-found"),
        (404, "not-found"),
        (404, "not-found"),
        (405, "method-not-allowed"),
        (405, "application/problem+json"),
        (405, "method-not-allowed"),
        (405, "method-not-allowed"),
        (415, "unsupported-media"),
        (400, "bad-request"),
        (400, "bad-request"),
        (401, "unauthenticated"),
    ]
    for answer in answers:
        if answer.body:
            problem = answer.problem
            assert problem.keys() == MEMBERS
            assert problem["status"] == answer.status
            assert problem["type"] == f"urn:comity:problem:{problem['code']}"
            assert problem["remedy"] == PROBLEMS[problem["code"]].remedy
            assert problem["trace_id"] == answer.headers["Comity-Trace"]


async def test_a_refused_method_is_told_the_methods_of_the_path(stand: Stand) -> None:
    """[R-12]"""
    one = await stand.relay.ask("PUT", "/v1/envelopes")
    two = await stand.relay.ask("PUT", "/v1/statements")

    assert one.headers["Allow"] == "POST"
    assert two.headers["Allow"] == "GET, POST"


async def test_a_failure_inside_says_nothing_of_itself(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[R-12]"""

    async def fail(_: object) -> None:
        raise RuntimeError("secret of the machine")

    monkeypatch.setattr(type(stand.relay.context.store), "head", fail)
    answer = await stand.relay.ask("GET", "/readyz")

    assert (answer.status, answer.code) == (500, "internal")
    assert b"secret" not in answer.body
    assert any(answer.problem["trace_id"] in str(record.__dict__) for record in caplog.records)


async def test_a_store_that_is_down_is_said_to_be_busy(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-12]"""

    async def fail(*_: object) -> None:
        raise StoreUnavailableError("disk is full")

    monkeypatch.setattr(stand.relay.context.store, "mailbox", fail)
    answer = await stand.relay.as_device(stand.receiver, "GET", "/v1/mailbox")

    assert (answer.status, answer.code) == (503, "busy")
    assert answer.headers["Retry-After"]


def test_errors_of_the_protocol_have_their_problems() -> None:
    """[R-12]"""
    errors = [LimitError("x"), OpenError("x"), ComityError("x")]

    assert [of_error(error).code for error in errors] == ["too-large", "internal", "internal"]


async def test_every_answer_carries_a_nonce_and_a_trace(stand: Stand) -> None:
    """[T-2]"""
    paths = ["/livez", "/nothing", "/v1/mailbox", "/checkpoint", "/v1/genesis", "/metrics"]
    answers = [await stand.relay.ask("GET", path) for path in paths]
    async with stand.relay.session.ws_connect(stand.relay.url + "/v1/socket") as raw:
        upgraded = raw._response.headers

    assert all(len(answer.headers["Comity-Nonce"]) == 32 for answer in answers)
    assert len({answer.headers["Comity-Trace"] for answer in answers}) == len(paths)
    assert all(answer.headers["X-Content-Type-Options"] == "nosniff" for answer in answers)
    assert len(upgraded["Comity-Nonce"]) == 32


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x-unknown", "gzip, gzip"])
async def test_a_body_with_an_encoding_is_refused(stand: Stand, encoding: str) -> None:
    """[R-15] Neither decompressed, so no bomb, nor failed upon when it lies."""
    bomb = gzip.compress(bytes(1_000_000))
    for data in (bomb, b"no such encoding"):
        answer = await stand.relay.ask("POST", "/v1/statements", data, Content_Encoding=encoding)
        assert (answer.status, answer.code) == (415, "unsupported-media")


async def test_a_body_of_a_declared_length_above_the_bound_is_not_read(stand: Stand) -> None:
    """[R-15]"""
    head = b"POST /v1/statements HTTP/1.1\r\nHost: x\r\nContent-Type: application/cbor\r\n"
    answer = await _raw(stand.relay, head + b"Content-Length: 999999999\r\n\r\nx")

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"too-large"' in answer


async def test_a_body_without_a_declared_length_is_bounded_too(stand: Stand) -> None:
    """[R-15]"""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield bytes(65_536)

    headers = {"Content-Type": "application/cbor"}
    async with stand.relay.session.post(
        stand.relay.url + "/v1/statements", data=endless(), headers=headers
    ) as response:
        assert response.status == 413


async def test_a_body_that_stops_is_given_up(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """[R-15]"""
    monkeypatch.setattr(body, "IDLE_SECONDS_MAX", 0.05)
    head = b"POST /v1/statements HTTP/1.1\r\nHost: x\r\nContent-Type: application/cbor\r\n"
    answer = await _raw(stand.relay, head + b"Content-Length: 100\r\n\r\nfirst")

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"timeout"' in answer


async def test_a_body_that_trickles_is_given_up(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-15] Always a byte in time, but never enough of them."""
    monkeypatch.setattr(body, "IDLE_SECONDS_MAX", 5.0)
    monkeypatch.setattr(body, "GRACE_SECONDS", 0.1)
    host, _, port = stand.relay.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = b"POST /v1/statements HTTP/1.1\r\nHost: x\r\nContent-Type: application/cbor\r\n"
    writer.write(head + b"Content-Length: 100\r\n\r\n")
    answer = asyncio.create_task(reader.readline())
    async with asyncio.timeout(10):
        while not answer.done():
            writer.write(b"x")
            await asyncio.wait([answer], timeout=0.02)
    writer.close()

    assert answer.result().startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_stops_being_http_is_given_up(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-15] The web server tells the reader of a body nothing of a broken chunk."""
    monkeypatch.setattr(body, "IDLE_SECONDS_MAX", 0.05)
    host, _, port = stand.relay.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = b"POST /v1/statements HTTP/1.1\r\nHost: x\r\nContent-Type: application/cbor\r\n"
    writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
    await writer.drain()
    writer.write(b"zz\r\nx\r\n")
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()

    assert answer.startswith((b"HTTP/1.1 408 ", b"HTTP/1.0 400 "))


async def test_a_client_that_holds_its_body_back_is_asked_for_it(stand: Stand) -> None:
    head = b"POST /v1/statements HTTP/1.1\r\nHost: x\r\nContent-Type: application/cbor\r\n"
    rest = b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"
    answer = await _raw(stand.relay, head + rest)

    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 422 ")


async def test_a_client_that_expects_something_else_is_refused(stand: Stand) -> None:
    """[R-12]"""
    answer = await stand.relay.ask("GET", "/v1/genesis", Expect="a miracle")

    assert (answer.status, answer.code) == (400, "bad-request")


async def test_strangers_are_refused_before_their_body_is_read(stand: Stand) -> None:
    """[R-15]"""
    head = b"POST /v1/envelopes HTTP/1.1\r\nHost: x\r\nContent-Type: application/cbor\r\n"
    answer = await _raw(stand.relay, head + b"Content-Length: 1000\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_only_so_many_bodies_of_strangers_are_read_at_once(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R-15]"""
    monkeypatch.setattr(stand.relay.context, "reading", 64)
    answer = await stand.relay.ask("POST", "/v1/statements", b"x")

    assert (answer.status, answer.code) == (503, "busy")


async def test_health_version_and_metrics(stand: Stand) -> None:
    genesis = stand.relay.world.genesis
    await stand.relay.send(stand.sender, stand.to)
    version = json.loads((await stand.relay.ask("GET", "/version")).body)
    metrics = (await stand.relay.ask("GET", "/metrics")).body.decode()
    names = {line.split()[2] for line in metrics.splitlines() if line.startswith("# TYPE")}

    assert (await stand.relay.ask("GET", "/livez")).body == b"ok\n"
    assert (await stand.relay.ask("GET", "/readyz")).body == b"ok\n"
    assert (version["origin"], version["deployment"]) == (
        genesis.origin,
        genesis.deployment.hex(),
    )
    assert version["version"] == health._version()
    assert 'comity_objects_accepted_total{kind="envelope"} 1.0' in metrics
    assert all(name.startswith("comity_") for name in names)


async def test_metrics_and_log_lines_name_nobody(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    sealed, _ = await stand.relay.send(stand.sender, stand.to)
    await stand.relay.ask("POST", "/v1/envelopes", b"x")
    await stand.relay.seal()
    metrics = (await stand.relay.ask("GET", "/metrics")).body.decode()
    lines = " ".join(str(record.__dict__) for record in caplog.records)

    for secret in (stand.sender.desk, stand.to, stand.sender.id, stand.receiver.id, sealed.id):
        assert secret.hex() not in metrics
        assert secret.hex() not in lines
    for state in ("XA", "XB"):
        assert f'"{state}"' not in metrics


async def test_a_stopping_relay_takes_nothing_new_and_finishes_what_it_has(
    tmp_path: Path,
) -> None:
    """[R-1] What was promised before the end is there after it."""
    world, one, other = small_world()
    sender, receiver = world.active(one)[0], world.active(other)[0]
    async with relay(tmp_path, world) as running:
        await running.publish()
        sealed = running.seal_lead(sender, other)
        sending = asyncio.create_task(running.post(sender, sealed))
        waiting = asyncio.create_task(
            running.as_device(receiver, "GET", "/v1/mailbox?after=1&wait=30")
        )
        answer = await sending
        await wait_until(lambda: running.context.waiting == 1)
        running.context.is_stopping = running.context.relay.is_stopping = True
        refused = await running.post(sender, running.seal_lead(sender, other))
        statement = await running.ask("POST", "/v1/statements", world.statements[1][1].serialize())
        running.context.relay.hub.end()
        async with asyncio.timeout(5):
            empty = await waiting

        assert answer.status == 200
        assert (refused.status, refused.code) == (503, "draining")
        assert (statement.status, statement.code) == (503, "draining")
        assert empty.value == {"items": []}
    async with relay(tmp_path, world) as again:
        items = (await again.as_device(receiver, "GET", "/v1/mailbox")).value["items"]

        assert [item[2] for item in items] == [sealed.upload.core]


# Small parts.


def test_a_bucket_fills_with_time_and_never_above_its_size() -> None:
    """[R-13]"""
    bucket = Bucket(rate=2, burst=4, level=4, at=100.0)
    bucket.take(4)

    assert bucket.wait(1, 100.0) == 0.5
    assert bucket.wait(1, 100.5) == 0.0
    assert bucket.wait(4, 100.5) == 1.5
    bucket.wait(1, 1_000.0)
    assert bucket.level == 4


def test_a_clock_that_goes_back_neither_empties_nor_freezes_a_bucket() -> None:
    """[R-13]"""
    bucket = Bucket(rate=1, burst=2, level=2, at=100.0)
    bucket.take(2)
    bucket.wait(1, 50.0)

    assert bucket.level == 0
    assert bucket.wait(1, 51.0) == 0.0


def test_something_larger_than_the_whole_quota_passes_when_it_is_full() -> None:
    """[R-13]"""
    quotas = Quotas(envelopes=(1, 10), volume=(10, 100))

    assert quotas.take(b"desk", 1_000, 0.0) == 0
    assert quotas.take(b"desk", 1, 0.0) == 91


def test_quotas_of_desks_long_gone_are_forgotten() -> None:
    """[R-15]"""
    quotas = Quotas(envelopes=(1, 1), volume=(1, 1))
    for number in range(DESKS_MAX + 10):
        quotas.take(number.to_bytes(4, "big"), 1, 0.0)

    assert len(quotas._desks) == DESKS_MAX


def test_what_is_remembered_is_bounded() -> None:
    """[R-15]"""
    kept: Bounded[int, int] = Bounded(2)
    kept.put(1, 1)
    kept.put(2, 2)
    kept.get(1)
    kept.put(3, 3)

    assert [kept.get(key) for key in (1, 2, 3)] == [1, None, 3]


def test_a_hub_forgets_desks_that_nobody_waits_for() -> None:
    """[R-15]"""
    hub = Hub()
    with hub.bell(b"desk") as bell:
        hub.look_again()
        assert bell.is_set()

    assert hub._bells == {}
