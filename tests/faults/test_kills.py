"""A relay that is killed loses nothing that it promised, and its log keeps one past.

Promise P1 and rules [R-1], [R-2], [R-3], [R-5], [G-3]: ``kill -9`` of the relay's process, and of
PostgreSQL, at random moments under load. The long form kills more often; its figures are in
docs/EVIDENCE.md.
"""

import sys
from pathlib import Path

import pytest

from support.kills import Outcome, kill_loop
from support.postgres import PostgresServer

KILLS = 8
KILLS_LONG = 200


async def test_sqlite_relay_that_is_killed_loses_no_promised_object(tmp_path: Path) -> None:
    outcome = await kill_loop(tmp_path, kills=KILLS)

    require_nothing_lost(outcome, KILLS)


async def test_postgresql_relay_that_is_killed_loses_no_promised_object(
    tmp_path: Path, postgres_url: str
) -> None:
    outcome = await kill_loop(tmp_path, kills=KILLS, database=postgres_url)

    require_nothing_lost(outcome, KILLS)


@pytest.mark.long
async def test_sqlite_relay_loses_nothing_in_200_kills(tmp_path: Path) -> None:
    outcome = await kill_loop(tmp_path, kills=KILLS_LONG, alive_seconds_max=1.5, report=report)

    require_nothing_lost(outcome, KILLS_LONG)


@pytest.mark.long
async def test_postgresql_relay_loses_nothing_in_200_kills_of_it_and_its_database(
    tmp_path: Path,
) -> None:
    with PostgresServer() as server:

        def kill_database() -> None:
            server.kill()
            server.start()

        outcome = await kill_loop(
            tmp_path,
            kills=KILLS_LONG,
            database=server.create_database(),
            alive_seconds_max=1.5,
            kill_database=kill_database,
            report=report,
        )

    require_nothing_lost(outcome, KILLS_LONG * 3 // 4)
    assert outcome.kills_of_database >= 5


def report(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def require_nothing_lost(outcome: Outcome, kills: int) -> None:
    report(outcome.figures())
    assert outcome.wrong == []
    assert outcome.kills >= kills
    assert len(outcome.ledger.envelopes) >= 10 * kills, "the load was too thin to prove anything"
    assert outcome.ledger.repeated > 0
    assert len(outcome.ledger.receipts) > 0
    # What a relay logs as an error is a fault of its own; only lost witnesses and databases pass.
    assert not outcome.alarms.keys() & {"pipeline-failed", "request-crashed", "socket-failed"}
