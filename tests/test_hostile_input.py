"""Bad input cannot hurt: no answer of class 5xx, every error a problem with a code and a remedy.

Promise P9; rules [R-12] and [R-15]. The relay is a process of its own, as operators run it. First
come thousands of requests that are wrong in ways that somebody thought of, from strangers and from
a member of the deployment that signs what it likes; then those that schemathesis derives from
openapi.yaml, signed by a device for each request. After both the relay must work as before, must
have logged no error of its own, and must not have grown.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from aiohttp import ClientSession, DummyCookieJar
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from comity_protocol.checkpoint import note_hash
from comity_protocol.core import core_hash
from comity_protocol.encoding import Value, serialize
from comity_protocol.receipts import verify_promise
from comity_protocol.wire import MEDIA_TYPE
from support.hostile import (
    CBOR,
    Case,
    Frames,
    Raw,
    converse,
    exchange,
    frames_cases,
    header_cases,
    method_cases,
    notice_bodies,
    path_cases,
    raw_cases,
    receipt_bodies,
    statement_bodies,
    token_cases,
    upload_bodies,
)
from support.load import Ledger, Line, insist_on_statement
from support.process import RelayProcess, watching_witness
from support.relay import Clock
from support.world import Member, World, lead

AT_ONCE = 8
WHOLE_SECONDS = 10.0
PARTIAL_SECONDS = 0.5
GROWTH_KIB_MAX = 64 * 1024
LONG = os.environ.get("COMITY_LONG") == "1"
EXAMPLES = 300 if LONG else 20
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OWN_FAULTS = {
    *("request-crashed", "request-failed", "pipeline-failed", "socket-failed", "store-failed"),
    *("aiohttp.server", "asyncio"),
}


@dataclass(slots=True)
class Target:
    """A relay process and a member of it that is hostile."""

    process: RelayProcess
    line: Line
    member: Member
    other: Member

    def resident_kib(self) -> int:
        """Memory of the process that is in use, KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1])

    async def require_well(self) -> None:
        """The relay takes an envelope, logs it, and hands it over, as if nothing had been."""
        sealed = self.line.world.seal_act(self.member, self.other.desk, lead(), seen=self.line.seen)
        upload = sealed.upload.serialize()
        promise = await self.line.insist(
            lambda: self.line.post("/v1/envelopes", upload, self.member)
        )
        verify_promise(promise, self.line.world.genesis.relay_key, core_hash(sealed.upload.core))
        faults = [event for event in self.process.events() if event in OWN_FAULTS]
        assert faults == [], self.process.log_text()[-4_000:]


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    world = World.found()
    desks = [world.create_desk("XA"), world.create_desk("XB")]
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(watching_witness(tmp_path, name, world, set(), Clock()))
            for name in sorted(world.witness_keys)
        ]
        session = await stack.enter_async_context(ClientSession(cookie_jar=DummyCookieJar()))
        process = RelayProcess(tmp_path / "relay", world, witnesses=urls)
        stack.push_async_callback(process.kill)
        await process.start()
        line = Line(world, Ledger(), session, url=process.url)
        for _, signed in world.statements[1:]:
            await insist_on_statement(line, signed)
        note = b""
        while not note:
            async with session.get(line.url + "/checkpoint") as response:
                note = await response.read() if response.status == 200 else b""
        line.seen = note_hash(note)
        async with session.get(line.url + "/v1/nonce") as response:
            line.nonce = response.headers["Comity-Nonce"]
        yield Target(process, line, *(world.active(desk)[0] for desk in desks))


@dataclass(slots=True)
class Tally:
    """What came of an attack: how many cases, what was answered how often, what was wrong."""

    cases: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, case: str, answers: Iterable[str], wrong: Iterable[str]) -> None:
        """Count one case."""
        self.cases += 1
        self.answers.update(answers)
        self.wrong.extend(f"{case}: {text}" for text in wrong if text)


async def attack(target: Target, cases: Iterable[Case | Raw | Frames]) -> Tally:
    """Run cases, a few at a time."""
    tally, queue = Tally(), iter(cases)

    async def work() -> None:
        for case in queue:
            try:
                await _attack_once(target, case, tally)
            except TimeoutError:
                tally.note(case.name, (), ["no end"])

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work())
    return tally


async def _attack_once(target: Target, case: Case | Raw | Frames, tally: Tally) -> None:
    line, url = target.line, target.line.url
    match case:
        case Frames():
            tally.note(case.name, *await converse(line, target.member, case))
        case Case():
            data = case.bytes_for(line, target.member)
            reply = await exchange(url, data, patience_seconds=WHOLE_SECONDS)
            wrong = [reply.wrong(case.method), "" if reply.status or case.is_partial else "silence"]
            tally.note(case.name, [str(reply.status)], wrong)
        case Raw():
            reply = await exchange(url, case.data, patience_seconds=PARTIAL_SECONDS)
            tally.note(case.name, [str(reply.status)], [reply.wrong()])


def report(name: str, tally: Tally, before: int, after: int) -> None:
    """For docs/EVIDENCE.md; shown by pytest -s."""
    line = {
        "hostile": name,
        "cases": tally.cases,
        "answers": dict(sorted(tally.answers.items())),
        "grown_kib": after - before,
    }
    sys.stdout.write(json.dumps(line) + "\n")


async def run_attack(
    target: Target, name: str, cases: Iterable[Case | Raw | Frames], *, at_least: int
) -> None:
    """Run cases; the relay must answer each as it should, and be well afterwards."""
    await target.require_well()
    before = target.resident_kib()
    tally = await attack(target, cases)
    after = target.resident_kib()
    report(name, tally, before, after)

    assert tally.wrong == []
    assert tally.cases >= at_least
    await target.require_well()
    assert after - before < GROWTH_KIB_MAX


async def test_broken_envelopes_receipts_notices_and_statements_are_refused(target: Target) -> None:
    """[R-12]"""
    world, member = target.line.world, target.member
    good = world.seal_act(member, target.other.desk, lead(), seen=target.line.seen).upload
    last = world.statements[-1][1]
    bodies = [
        *(("/v1/envelopes", *body) for body in upload_bodies(world, member, good)),
        *(("/v1/receipts", *body) for body in receipt_bodies(member, 3, target.line.seen)),
        *(("/v1/notices", *body) for body in notice_bodies(world, member, 3, target.line.seen)),
        *(("/v1/statements", *body) for body in statement_bodies(member, last)),
    ]
    cases = (
        Case(f"{path}: {name}", "POST", path, [CBOR], body, as_device=path != "/v1/statements")
        for path, name, body in bodies
    )

    await run_attack(target, "objects", cases, at_least=1_000)


async def test_broken_requests_are_refused(target: Target) -> None:
    """[R-12] [R-15]"""
    upload = target.line.world.seal_act(
        target.member, target.other.desk, lead(), seen=target.line.seen
    ).upload.serialize()
    cases: list[Case | Raw] = [
        *token_cases(target.line, target.member),
        *method_cases(sorted(_paths())),
        *path_cases(),
        *header_cases(upload),
        *raw_cases(target.line.url.removeprefix("http://")),
    ]

    await run_attack(target, "requests", cases, at_least=500)


async def test_broken_websocket_frames_are_refused(target: Target) -> None:
    """[R-12] [R-15]"""
    upload = target.line.world.seal_act(
        target.member, target.other.desk, lead(), seen=target.line.seen
    ).upload.serialize()

    await run_attack(target, "frames", frames_cases(upload), at_least=250)


@pytest.mark.long
async def test_bodies_that_stop_are_given_up(target: Target) -> None:
    """[R-15]"""
    head = (
        "POST /v1/statements HTTP/1.1\r\nHost: x\r\nContent-Type: application/cbor\r\n"
        "Content-Length: 1000\r\n\r\nabc"
    )
    host, _, port = target.line.url.removeprefix("http://").partition(":")
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
    for _, writer in connections:
        writer.write(head.encode())
    async with asyncio.timeout(30):
        answers = [await reader.read() for reader, _ in connections]
    for _, writer in connections:
        writer.close()

    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}
    await target.require_well()


# What schemathesis derives from the description of the interface.


class Signer(requests.auth.AuthBase):
    """Signs each request with a device, as it goes over the wire."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        data = body.encode() if isinstance(body, str) else body
        assert isinstance(data, bytes)
        token = self._target.line.token(
            self._target.member, str(request.method), request.path_url, data
        )
        request.headers["Authorization"] = f"Comity {token}"
        return request


_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=6),
    max_leaves=12,
)
schemathesis.openapi.media_type(MEDIA_TYPE, st.binary() | _values.map(serialize))


@schemathesis.serializer(MEDIA_TYPE)
def _serialize(_: schemathesis.SerializationContext, value: Value) -> bytes:
    return value if isinstance(value, bytes) else serialize(value)


def operations() -> Iterator[Any]:
    """What the description of the interface describes."""
    text = files("comity_server").joinpath("openapi.yaml").read_text("utf-8")
    for result in schemathesis.openapi.from_file(text).get_all_operations():
        assert isinstance(result, Ok), "the description has an error"
        yield result.ok()


def probe(target: Target, mode: GenerationMode, signer: Signer | None) -> Tally:
    """Send what schemathesis derives from each operation; every check of an answer must hold."""
    session = requests.Session()
    session.auth = signer or _NoToken()
    tally = Tally()
    for operation in operations():
        try:
            strategy = operation.as_strategy(generation_mode=mode)
        except Unsatisfiable:
            continue

        @seed(20_261_121)
        @settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def once(case: schemathesis.Case[Any]) -> None:
            if isinstance(case.query.get("wait"), int) and 0 <= case.query["wait"] <= 30:
                case.query["wait"] = 0  # A wait that is allowed is waited.
            response = case.call(base_url=target.line.url, session=session, timeout=30)
            tally.note("", [str(response.status_code)], ())
            target.line.nonce = response.headers["comity-nonce"][0]
            case.validate_response(response, checks=CHECKS)

        try:
            once()
        except Unsatisfiable:
            continue
    session.close()
    return tally


class _NoToken(requests.auth.AuthBase):
    """Leaves a request as it is."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


@pytest.mark.timeout(240)  # Half a minute alone, more in company.
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("signs", [True, False], ids=["signed", "unsigned"])
async def test_what_the_description_allows_and_forbids_is_answered_as_it_says(
    target: Target, mode: GenerationMode, *, signs: bool
) -> None:
    """[R-12] Also the routes that demand a token, with one for exactly each request."""
    before = target.resident_kib()
    signer = Signer(target) if signs else None
    tally = await asyncio.to_thread(probe, target, mode, signer)
    after = target.resident_kib()
    report(f"schemathesis, {mode.value}, {'signed' if signs else 'unsigned'}", tally, before, after)

    assert tally.cases >= 100
    await target.require_well()
    assert after - before < GROWTH_KIB_MAX


def _paths() -> set[str]:
    return {operation.path.partition("{")[0] for operation in operations()}
