"""``comity demo``: two published cases over real HTTP, on this machine, with nothing to configure.

stage     real relay and witness processes; States founded, desks enrolled
cases     what is played, out of the files beside the package
play      every exchange to its end, and the states that its opening act passes
learned   what the relay's own files hold afterwards
tamper    one byte of one log entry altered, and who finds it
report    the outcome, for people and for machines
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import click

from comity_client.cli.exits import Exit
from comity_client.cli.shell import Shell, Verb
from comity_client.demo import cases as case_files
from comity_client.demo import report
from comity_client.demo.learned import look
from comity_client.demo.play import DemoError, Played, play
from comity_client.demo.stage import DESKS, QUORUM, SECRETARIAT, WITNESSES, Stage, set_up
from comity_client.demo.tamper import Tampering, tamper
from comity_client.secretariat import statistics
from comity_protocol.counting import digest_of

_NEXT = (
    "Next: comity setup --help (a deployment of your own to try), README.md, docs/PROTOCOL.md",
)


@click.command(cls=Verb)
@click.option("--headless", is_flag=True, help="Do not wait for anybody; end when it is over.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep every file here to look at; by default a temporary folder that is deleted.",
)
@click.pass_obj
def command(shell: Shell, headless: bool, folder: Path | None) -> None:
    """Play two published cases between four desks, with a secretariat that audits them."""
    del headless  # There is nothing to wait for: the desks' pages come later.
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        outcome = asyncio.run(_run(shell, folder))
    else:
        with tempfile.TemporaryDirectory(prefix="comity-demo-") as temporary:
            outcome = asyncio.run(_run(shell, Path(temporary)))
    if shell.is_json:
        sys.stdout.buffer.write(report.document(outcome) + b"\n")
    else:
        for line in (*report.lines(outcome), *_NEXT):
            click.echo(line)
    if not outcome.is_good:
        raise click.exceptions.Exit(int(Exit.UNVERIFIED))


async def _run(shell: Shell, folder: Path) -> report.Outcome:
    started = time.monotonic()

    def say(phase: str, text: str) -> None:
        shell.hint(f"{time.monotonic() - started:6.2f} s  {phase:<13} {text}")

    say(
        "setting up",
        f"a relay on SQLite, {WITNESSES} witnesses, {len(DESKS)} States, one desk each",
    )
    async with set_up(folder, shell.now) as stage:
        say("set up", "every desk's keys are stated, signed, logged and witnessed")
        cases = case_files.read_cases()
        for case in cases:
            shell.hint(f"          case {case.number}: {case.title}")
        played = await play(stage.desks, cases, say)
        secretariat = stage.desks[SECRETARIAT]
        await secretariat.sync()
        await secretariat.fetch()
        counted = await statistics(secretariat)
        say("counted", "the secretariat has computed response times and opened no body")
        phrases = [phrase for case in cases for phrase in case_files.words_of(case)]
        learned = look(stage.data, stage.folder / "relay.log", phrases, stage.codes)
        tampering = await _tamper(stage, played[0])
        say("tampered", "one byte of the log was altered in the relay's database")
        return report.Outcome(
            seconds=time.monotonic() - started,
            played=tuple(played),
            learned=learned,
            tampering=tampering,
            responses=counted.rows,
            digest=digest_of(counted),
            witnesses=WITNESSES,
            quorum=QUORUM,
            log_size=secretariat.newest.size,
        )


async def _tamper(stage: Stage, first: Played) -> Tampering:
    """Alter the log entry of the first opening act, and let its sender read the log again."""
    sender = stage.desks[first.file.from_]
    newest = await sender.sync()
    index = sender.status(first.opening).leaf_index
    if index is None:
        raise DemoError("the first act has no place in the log")
    return await tamper(
        stage.data / "relay.sqlite",
        stage.url,
        index=index,
        under=newest,
        reader=first.file.from_,
    )
