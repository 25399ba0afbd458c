"""The rows of the table: which measurements, beside which floors, with which goals."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median
from typing import Final

import archive
import audits
import catchup
import floors
import idle
import latency
import logs
import mirrors
import program
import sealing
import sizes
import stored
import throughput
import traffic
from deployment import Deployment
from envelopes import fill
from figures import Bound, Figure, Goal
from relays import POSTGRESQL, SQLITE, database, relay, scratch
from throughput import Burst, Load


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long and how often.

    Attributes:
        rounds: Repetitions; figures are their medians.
        seconds: Of each closed loop.
        frames: Sealed envelopes for each desk: the closed loops end when they are used up.
        latency_seconds: Of the open loop.
        stored: Envelopes in store, beside those to catch up on, when a relay starts cold.
        leaves: Of the log that is proven and audited.
        seal_seconds: Of each loop that waits for seals.
        signed: Envelopes of the auditor's archive.
        replayed: Entries of the log that a witness replays.
    """

    rounds: int
    seconds: float
    frames: int
    latency_seconds: float
    stored: int
    leaves: int
    seal_seconds: float
    signed: int
    replayed: int


QUICK: Final = Effort(
    rounds=1,
    seconds=2.0,
    frames=700,
    latency_seconds=4.0,
    stored=10_000,
    leaves=200_000,
    seal_seconds=5.0,
    signed=2_000,
    replayed=50_000,
)
FULL: Final = Effort(
    rounds=3,
    seconds=4.0,
    frames=3_000,
    latency_seconds=10.0,
    stored=90_000,
    leaves=1_000_000,
    seal_seconds=30.0,
    signed=10_000,
    replayed=500_000,
)

_KIB: Final = 1_024
_MIB: Final = 1_048_576
_T_GOALS: Final = {1: 1.5, 16: 2.0}


async def throughput_and_cost(effort: Effort) -> list[Figure]:
    """T and C on both databases, after the floors."""
    deployment = Deployment.found()
    pools = fill(deployment, effort.frames)
    bare, base, lite, single, many = [], [], [], [], []
    bursts: dict[str, dict[int, list[Burst]]] = {
        kind: {window: [] for window in throughput.WINDOWS} for kind in (POSTGRESQL, SQLITE)
    }
    async with AsyncExitStack() as stack:
        folders = {kind: stack.enter_context(scratch()) for kind in bursts}
        bases = {kind: stack.enter_context(database(kind, folders[kind])) for kind in bursts}
        spare = stack.enter_context(database(POSTGRESQL, folders[POSTGRESQL]))
        for _ in range(effort.rounds):
            folder = stack.enter_context(scratch())
            empty = stack.enter_context(database(POSTGRESQL, folder))
            bare.append((await floors.http_rate(effort.seconds, folder)).per_second)
            base.append(
                await floors.http_rate(
                    effort.seconds, folder, address=empty.address, postmaster=empty.postmaster
                )
            )
            lite.append(floors.sqlite_rate(effort.seconds / 2, folder))
            single.append(await floors.postgresql_rate(effort.seconds / 2, spare.address, 1))
            many.append(await floors.postgresql_rate(effort.seconds / 2, spare.address, 32))
        for kind, measured in bursts.items():
            async with relay(deployment, bases[kind], folders[kind]) as running:
                got = await throughput.run(
                    running,
                    deployment,
                    Load(pools),
                    seconds=effort.seconds,
                    rounds=effort.rounds,
                )
            for window, found in got.items():
                measured[window] += found
    rate = median(one.per_second for one in base)
    cost = median(one.cpu_per_1000 for one in base)
    return [
        _floor("T", "bare POST handler, no store", "/s", bare),
        _floor("T", "base: bare POST handler + INSERT", "/s", [one.per_second for one in base]),
        _floor("T", "SQLite insert + commit, one row", "/s", lite),
        _floor("T", "PostgreSQL insert + commit, 1 connection", "/s", single),
        _floor("T", "PostgreSQL insert + commit, 32 connections", "/s", many),
        *_rates(bursts, rate),
        _floor("C", "base, its PostgreSQL included", "s/1,000", [one.cpu_per_1000 for one in base]),
        *_costs(bursts, cost),
    ]


def _rates(bursts: dict[str, dict[int, list[Burst]]], base: float) -> list[Figure]:
    figures: list[Figure] = []
    for window, times in _T_GOALS.items():
        rates = {
            kind: tuple(burst.per_second for burst in found[window])
            for kind, found in bursts.items()
        }
        name = f"T{1 if window == 1 else 2} {{}}, {window} in flight per desk"
        figures += [
            Figure(
                row="T",
                name=name.format("PostgreSQL"),
                unit="/s",
                samples=rates[POSTGRESQL],
                floor=base,
                floor_name="base",
                goal=Goal(Bound.TIMES_AT_LEAST, times),
            ),
            Figure(
                row="T",
                name=name.format("SQLite"),
                unit="/s",
                samples=rates[SQLITE],
                floor=median(rates[POSTGRESQL]),
                floor_name="PostgreSQL",
                goal=Goal(Bound.TIMES_AT_LEAST, 0.8),
            ),
        ]
    busy = [burst.client_busy for found in bursts.values() for burst in found[16]]
    return [*figures, _floor("T", "share of a core that the load took", "", busy)]


def _costs(bursts: dict[str, dict[int, list[Burst]]], base: float) -> list[Figure]:
    return [
        Figure(
            row="C",
            name=f"relay and database, {kind}, {window} in flight",
            unit="s/1,000",
            samples=tuple(burst.cpu_per_1000 for burst in found),
            floor=base,
            floor_name="base",
            goal=Goal(Bound.AT_MOST, 0.15),
        )
        for kind, by_window in bursts.items()
        for window, found in by_window.items()
    ]


async def latencies(effort: Effort) -> list[Figure]:
    """L on both databases."""
    deployment = Deployment.found()
    figures: list[Figure] = []
    for kind in (POSTGRESQL, SQLITE):
        middle, late = [], []
        for _ in range(effort.rounds):
            count = int(latency.PER_SECOND * effort.latency_seconds / len(deployment.members)) + 1
            pools = fill(deployment, count)
            with scratch() as folder, database(kind, folder) as empty:
                async with relay(deployment, empty, folder) as running:
                    delays = await latency.run(
                        running, deployment, pools, seconds=effort.latency_seconds
                    )
            middle.append(delays.percentile(0.5))
            late.append(delays.percentile(0.99))
        figures += [
            _goal("L", f"sent to delivered at 50/s, p50, {kind}", "ms", middle, 3),
            _goal("L", f"sent to delivered at 50/s, p99, {kind}", "ms", late, 10),
        ]
    return figures


async def bytes_on_the_wire(_: Effort) -> list[Figure]:
    """W: exact, so never repeated."""
    first, later = sizes.leads()
    request, status = sizes.formal()
    return [
        _goal("W", "lead 1 KiB with auditor, first of a thread, up", "B", [first.up], 4_500),
        _goal("W", "the same, down with a receipt of its own", "B", [first.down], 4_200),
        _goal("W", "later lead of the thread, up", "B", [later.up], 2_000),
        _goal("W", "the same, down with a receipt of its own", "B", [later.down], 2_000),
        _floor("W", "the same, down without the receipt", "B", [later.down - later.receipt]),
        _floor("W", "own copy of it, on a sender's link that follows", "B", [later.copy]),
        _floor("W", "the auditor's part of it", "B", [later.auditor]),
        _goal("W", "formal request 2,000 B with auditor, up", "B", [request.up], 10_800),
        _goal("W", "the same, down with a receipt of its own", "B", [request.down], 8_300),
        _goal("W", "status act after it, up", "B", [status.up], 1_300),
        _goal("W", "the same, down with a receipt of its own", "B", [status.down], 1_300),
    ]


async def catch_up_start_and_memory(effort: Effort) -> list[Figure]:
    """K, S and M, which share a store with many envelopes in it."""
    deployment = Deployment.found()
    figures: list[Figure] = []
    for kind in (POSTGRESQL, SQLITE):
        caught, starts, memories = [], [], []
        with scratch() as folder, database(kind, folder) as full:
            store = await deployment.prepare(full.url)
            await stored.fill(store, deployment, catchup.ENVELOPES)
            await stored.bulk(store, deployment, effort.stored)
            await store.close()
            for _ in range(effort.rounds):
                async with relay(deployment, full, folder, is_prepared=True) as running:
                    caught.append(await catchup.run(running, full, deployment))
            for _ in range(effort.rounds):
                async with idle.cold_start(deployment, full, folder) as (seconds, running):
                    starts.append(seconds)
                    memories.append(await idle.memory(running, deployment))
        count = catchup.ENVELOPES + effort.stored
        figures += [
            Figure(
                row="K",
                name=f"catch-up of 10,000, connect to last byte, {kind}",
                unit="s",
                samples=tuple(one.received for one in caught),
                floor=median(one.select for one in caught),
                floor_name="SELECT",
                goal=Goal(Bound.TIMES_AT_MOST, 2),
            ),
            _goal(
                "K",
                f"the same with verify and open, {kind}",
                "s",
                [one.received + one.opened for one in caught],
                8,
            ),
            _goal("S", f"cold start to acknowledged, {count:,} stored, {kind}", "s", starts, 1.0),
            _goal("M", f"idle relay, {kind}", "MiB", [one.relay / _MIB for one in memories], 80),
            _goal(
                "M",
                f"each idle socket of {idle.SOCKETS}, {kind}",
                "KiB",
                [one.socket / _KIB for one in memories],
                20,
            ),
        ]
    return figures


async def log_operations(effort: Effort) -> list[Figure]:
    """G: Merkle tree, head and proofs, in a log of a million entries also when in haste."""
    with scratch() as folder:
        times = await logs.run(folder, logs.ENTRIES)
    at = f"log of {logs.ENTRIES:,}:"
    return [
        _goal("G", f"{at} append, a leaf", "us", [times.append], 10),
        _goal("G", f"{at} head and signature, a batch", "us", [times.head], 250),
        _timed(f"{at} inclusion proof, p50", times.proof.middle, times.select.middle, "SELECT", 1),
        _timed(f"{at} inclusion proof, p99", times.proof.late, times.select.late, "SELECT", 2),
        _timed(f"{at} proof served, p50", times.served.middle, times.bare.middle, "bare POST", 3),
        _timed(f"{at} proof served, p99", times.served.late, times.bare.late, "bare POST", 10),
        _goal("G", f"{at} hashes of a proof", "B", [times.proof_bytes], 640),
    ]


def _timed(name: str, value: float, floor: float, floor_name: str, limit: float) -> Figure:
    return Figure(
        row="G",
        name=name,
        unit="ms",
        samples=(value,),
        floor=floor,
        floor_name=floor_name,
        goal=Goal(Bound.AT_MOST, limit),
    )


_WITNESSINGS: Final = {
    "7 on this machine": sealing.Witnessing(delay=0),
    "7 far": sealing.Witnessing(),
    "6 far, 1 away": sealing.Witnessing(away=1),
    "4 far, 2 lie, 1 away": sealing.Witnessing(liars=2, away=1),
}


async def seals(effort: Effort) -> list[Figure]:
    """Z: from sending to sealed, under a quorum of four of seven and one of five."""
    figures: list[Figure] = []
    near: dict[str, float] = {}
    for name, witnessing in _WITNESSINGS.items():
        middle, late = [], []
        for _ in range(effort.rounds):
            taken = await sealing.run(witnessing, effort.seal_seconds)
            middle.append(taken.percentile(0.5))
            late.append(taken.percentile(0.99))
        for share, found, limit in (("p50", middle, 1_000), ("p99", late, 2_500)):
            figures.append(
                Figure(
                    row="Z",
                    name=f"sent to sealed, 4 of 7, {name}, {share}",
                    unit="ms",
                    samples=tuple(found),
                    floor=near.get(share),
                    floor_name="none far" if near.get(share) else "",
                    goal=Goal(Bound.AT_MOST, limit),
                )
            )
            near.setdefault(share, median(found))
    blocked, returned = await sealing.return_of_a_witness()
    return [
        *figures,
        _goal("Z", "sealed in 5 s, 5 of 7, 4 far, 2 sign wrongly, 1 away", "", [blocked], 0),
        _goal("Z", "all sealed after that one is back", "s", [returned], 45),
    ]


async def witness_traffic(_: Effort) -> list[Figure]:
    """B: exact, so never repeated."""
    with scratch() as folder:
        day = await traffic.run(folder, traffic.ENTRIES)
    return [
        _goal("B", "light witness a day, heartbeats only, link", "B", [day.link_quiet], 500_000),
        _goal("B", "the same over HTTP", "B", [day.http_quiet], 500_000),
        _goal("B", "light witness a day, one a minute, link", "B", [day.link_busy], 500_000),
        _goal("B", "the same over HTTP", "B", [day.http_busy], 500_000),
        _floor("B", "TLS handshake, which each question over HTTPS adds", "B", [day.handshake]),
    ]


async def witness_replay(effort: Effort) -> list[Figure]:
    """R: replay and mirror."""
    taken = []
    for _ in range(effort.rounds):
        with scratch() as folder:
            taken.append(await mirrors.run(folder, effort.replayed))
    floor = median(one.floor for one in taken)
    timed = {"witness replays 1,000": "replay", "mirror takes 1,000": "mirror"}
    return [
        *(
            Figure(
                row="R",
                name=f"{name} entries",
                unit="ms",
                samples=tuple(getattr(one, field) for one in taken),
                floor=floor,
                floor_name="hash, append, flush",
            )
            for name, field in timed.items()
        ),
        _goal("R", "mirror grows by, 1,000 entries", "B", [one.disk for one in taken], 70_000),
        _floor("R", "fetched for 1,000 entries", "B", [one.fetched for one in taken]),
    ]


async def audit_of_a_log(effort: Effort) -> list[Figure]:
    """A: a stranger's check of a whole log from its tiles."""
    taken = []
    for _ in range(effort.rounds):
        with scratch() as folder:
            taken.append(audits.run(folder, effort.leaves))
    given = [archive.run(effort.signed) for _ in range(effort.rounds)]
    verified = median(one.floor for one in given)
    at = f"of {effort.leaves:,} entries"
    floor = median(one.floor_seconds for one in taken)
    small = median(one.small_mebibytes for one in taken)
    return [
        Figure(
            row="A",
            name=f"audit verify {at}",
            unit="s",
            samples=tuple(one.seconds for one in taken),
            floor=floor,
            floor_name="hashlib alone",
            goal=Goal(Bound.TIMES_AT_MOST, 4),
        ),
        Figure(
            row="A",
            name=f"audit verify {at}, memory",
            unit="MiB",
            samples=tuple(one.mebibytes for one in taken),
            floor=small,
            floor_name="256 entries",
            goal=Goal(Bound.TIMES_AT_MOST, 1.3),
        ),
        _goal("A", f"proof {at}, 5 cosignatures", "B", [one.proof_bytes for one in taken], 2_048),
        Figure(
            row="A",
            name="senders and entries of 1,000,000 envelopes",
            unit="s",
            samples=tuple(one.signed for one in given),
            floor=verified,
            floor_name="Ed25519 alone",
        ),
        Figure(
            row="A",
            name="the same, and the auditor's part opened",
            unit="s",
            samples=tuple(one.opened for one in given),
            floor=verified,
            floor_name="Ed25519 alone",
            goal=Goal(Bound.AT_MOST, 240),
        ),
    ]


async def program_and_installation(effort: Effort) -> list[Figure]:
    """V: the command line's start and the size of an installation."""
    spent = [program.version_milliseconds() for _ in range(2 * effort.rounds + 1)]
    return [
        _goal("V", "comity --version, processor time", "ms", spent, 120),
        _goal("V", "installation, client", "MB", [program.installed_megabytes(None)], 45),
        _goal("V", "installation, relay too", "MB", [program.installed_megabytes("server")], 90),
    ]


def _floor(row: str, name: str, unit: str, samples: list[float] | list[int]) -> Figure:
    return Figure(row=row, name=name, unit=unit, samples=tuple(samples))


def _goal(row: str, name: str, unit: str, samples: list[float] | list[int], limit: float) -> Figure:
    return Figure(
        row=row, name=name, unit=unit, samples=tuple(samples), goal=Goal(Bound.AT_MOST, limit)
    )
