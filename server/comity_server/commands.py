"""What ``comity-relay`` does: draw keys, install a genesis, serve.

Each command prints one line of JSON on standard output; log lines go to standard error.
"""

import asyncio
import gc
import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from comity_server.keyfiles import (
    check_keys,
    create_keys,
    install_genesis,
    read_genesis,
    read_log_key,
    read_relay_key,
)
from comity_server.settings import Settings, load

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from comity_server.fsck import Fault

Clock = Callable[[], float]

GARBAGE_THRESHOLDS: Final = (20_000, 20, 20)

_DATA: Final = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of keys, genesis, signer state and the SQLite database.",
)
_SETTINGS: Final = click.option(
    "--settings",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML file with settings; the environment (COMITY_...) and options win over it.",
)
_DATABASE: Final = click.option(
    "--database", help="sqlite:///path or postgresql+asyncpg://user@host/name."
)


@click.group()
def command() -> None:
    """Run a Comity relay, which carries sealed objects and cannot read them."""


@command.command()
@_DATA
@_SETTINGS
@click.option("--origin", required=True, help="Name of the log, such as relay.example/comity.")
def keys(origin: str, file: Path | None, **options: object) -> None:
    """Draw the log's and the relay's keys, and print their public halves for the genesis."""
    _print(create_keys(load(file=file, arguments=options), origin))


@command.command()
@_DATA
@_SETTINGS
@click.option(
    "--genesis",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The genesis, signed by every founding State.",
)
def init(genesis: Path, file: Path | None, **options: object) -> None:
    """Check a genesis and install it."""
    installed = install_genesis(load(file=file, arguments=options), genesis)
    _print({"deployment": installed.deployment.hex(), "origin": installed.origin})


@command.command()
@_DATA
@_SETTINGS
@_DATABASE
@click.option("--signer", help="File of the signer's own state, on other storage.")
@click.option("--signer-socket", help="Socket of a signer that is a process of its own.")
@click.option("--mirror", "mirrors", multiple=True, help="Address of a mirror of the log; repeat.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port; 0 takes a free one.")
@click.option("--behind-proxy/--no-proxy", default=None, help="A proxy before this ends TLS.")
@click.option("--witness", "witnesses", multiple=True, help="Address of a witness; repeat.")
@click.option("--witness-links/--no-witness-links", default=None, help="Witnesses call this relay.")
@click.option("--checkpoint-seconds", type=float, help="Shortest time between checkpoints.")
@click.pass_obj
def serve(clock: Clock, /, file: Path | None, **options: object) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was begun."""
    from comity_server import observe

    observe.configure()
    asyncio.run(_serve(load(file=file, arguments=options), clock))


async def _serve(settings: Settings, clock: Clock) -> None:
    # Half a second of imports that drawing keys and installing a genesis can do without.
    from comity_server.app import listening, running
    from comity_server.stores import open_store

    log_key = None if settings.signer_socket else read_log_key(settings)
    relay_key = read_relay_key(settings)
    genesis = read_genesis(settings)
    stop = _stopping()
    store = open_store(settings.database_url)
    await store.open()
    try:
        async with (
            running(
                settings=settings,
                store=store,
                genesis=genesis,
                log_key=log_key,
                relay_key=relay_key,
                clock=clock,
            ) as context,
            listening(context) as url,
        ):
            _spare_garbage_collector()
            _print({"url": url})
            await stop.wait()
    finally:
        await store.close()


@command.command("signer")
@_DATA
@_SETTINGS
@click.option(
    "--socket",
    "path",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Unix socket at which the relay asks.",
)
@_DATABASE
@click.option("--signer", help="File of the signer's own state, on other storage.")
@click.pass_obj
def sign(clock: Clock, /, path: Path, file: Path | None, **options: object) -> None:
    """Hold the log's key, and sign what continues the log, until SIGTERM or SIGINT."""
    from comity_server import observe

    observe.configure()
    asyncio.run(_sign(load(file=file, arguments=options), path, clock))


async def _sign(settings: Settings, path: Path, clock: Clock) -> None:
    from comity_protocol.genesis import verify_genesis
    from comity_server.signer import Signer, SignerState
    from comity_server.signer_process import answering
    from comity_server.stores import open_store

    key, genesis = read_log_key(settings), verify_genesis(read_genesis(settings))
    check_keys(genesis, key, None)
    stop = _stopping()
    state = SignerState(settings.signer_path, genesis.origin)
    # Not opened: that would create tables. The signer only reads.
    store = open_store(settings.database_url)
    signer = Signer(state, store, key, origin=genesis.origin, quorum=genesis.quorum, clock=clock)
    try:
        async with answering(signer, path):
            _print({"socket": str(path)})
            await stop.wait()
    finally:
        state.close()
        await store.close()


@command.command()
@_DATA
@_SETTINGS
@_DATABASE
def fsck(file: Path | None, **options: object) -> None:
    """Compare every derived row with what follows from the stored objects; changes nothing."""
    from comity_server.fsck import check

    _report(load(file=file, arguments=options), check)


@command.command()
@_DATA
@_SETTINGS
@_DATABASE
def rebuild(file: Path | None, **options: object) -> None:
    """Write the derived tables anew from the stored objects; stop the relay first."""
    from comity_server.fsck import rebuild

    _report(load(file=file, arguments=options), rebuild)


def _report(settings: Settings, work: "Callable[[Connection], list[Fault]]") -> None:
    """Print each fault as a line of JSON; exit with 1 when there is one."""
    from comity_server.fsck import run

    faults = asyncio.run(run(settings.database_url, work))
    for fault in faults:
        _print(fault.document())
    _print({"faults": str(len(faults))})
    if faults:
        click.get_current_context().exit(1)


@command.command("repair")
@_DATA
@_SETTINGS
@_DATABASE
@click.option("--finish", is_flag=True, help="Wait for nobody any more; what is missing is lost.")
def show_repair(file: Path | None, *, finish: bool, **options: object) -> None:
    """Show how far the repair of a restored database is, or end it."""
    asyncio.run(_show_repair(load(file=file, arguments=options), is_finishing=finish))


async def _show_repair(settings: Settings, *, is_finishing: bool) -> None:
    from comity_server.stores import open_store

    store = open_store(settings.database_url)
    await store.open()
    try:
        if is_finishing:
            await store.end_repair()
        repair = await store.repair()
    finally:
        await store.close()
    if repair is None:
        _print({"repairing": False})
        return
    _print(
        {
            "repairing": True,
            "had": repair.had,
            "size": repair.size,
            "vacancies": repair.open,
            "seconds_left": repair.seconds_left,
            "finishing": is_finishing or repair.is_placing,
        }
    )


def _stopping() -> asyncio.Event:
    """Give an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for wanted in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(wanted, stop.set)
    return stop


def _spare_garbage_collector() -> None:
    """Let the garbage collector look at new objects only, and at many of them at a time.

    Under load it took an eighth of the processor time to find nothing: what an envelope leaves
    behind has no cycles. What is there after the start stays until the end.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def _print(line: Mapping[str, str | int | bool]) -> None:
    click.echo(json.dumps(line))
