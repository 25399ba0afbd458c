"""A database that is put back from a backup forks nothing and loses nothing that was promised.

Rules [R-16], [R-17], [G-3], [G-4], [G-5], [R-2], [R-3]: the real program is backed up at a random
moment, works on, is killed with ``kill -9`` and restored, in a third of the rounds together with
its signer. The long form has 200 rounds; its figures are in docs/EVIDENCE.md.
"""

import sys
from pathlib import Path

import pytest

from support.postgres import PostgresServer
from support.restores import Outcome, PostgresBackups, restore_drill

ROUNDS = 3
ROUNDS_LONG = 200
ROUNDS_POSTGRESQL = 40


async def test_restored_relay_forks_nothing_and_gets_everything_back(tmp_path: Path) -> None:
    require_whole(await restore_drill(tmp_path, rounds=ROUNDS), ROUNDS)


@pytest.mark.long
@pytest.mark.timeout(3_600)
async def test_restored_relay_on_postgresql_forks_nothing_in_40_restores(tmp_path: Path) -> None:
    with PostgresServer() as server:
        url = server.create_database()
        outcome = await restore_drill(
            tmp_path,
            rounds=ROUNDS_POSTGRESQL,
            database=url,
            backups=PostgresBackups(server, url),
            report=report,
        )

    require_whole(outcome, ROUNDS_POSTGRESQL)


@pytest.mark.long
@pytest.mark.timeout(3_600)
async def test_restored_relay_forks_nothing_in_200_restores(tmp_path: Path) -> None:
    require_whole(await restore_drill(tmp_path, rounds=ROUNDS_LONG, report=report), ROUNDS_LONG)


def report(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def require_whole(outcome: Outcome, rounds: int) -> None:
    report(outcome.figures())
    assert outcome.wrong == []
    assert outcome.rounds == rounds
    assert outcome.signers_restored >= rounds // 3
    assert outcome.killed_in_repair >= rounds // 4
    assert outcome.refilled > 0, "nothing was lost, so nothing was proven"
    assert not outcome.alarms.keys() & {"pipeline-failed", "request-crashed", "upload-unplaced"}
