"""The program of a witness: what an operator chooses, and everything put together.

comity witness --data DIR --name NAME --init
    makes the keys and writes witness.json, for whoever founds the deployment
comity witness --data DIR --name NAME --log-key KEY --port 8443
    cosigns for a relay that calls it
comity witness --data DIR --name NAME --genesis FILE --relay URL --no-listen
    calls the relay itself, replays the log and cosigns; with --mirror it keeps and serves it
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from comity_client.profile import Deployment
from comity_client.tokens import TokenMaker
from comity_client.transport import RelayClient
from comity_client.witness import Clock, Witness, make_witness_runner, serve_witness
from comity_client.witness_folder import WitnessFolder
from comity_client.witness_link import Link
from comity_client.witness_mirror import Mirror
from comity_client.witness_replay import Replay
from comity_client.witness_stamps import Stamper
from comity_client.witness_watch import RetireError, Watch
from comity_protocol.checkpoint import add_signatures, cosign, verify_quorum
from comity_protocol.errors import ComityError, MalformedError
from comity_protocol.genesis import verify_genesis
from comity_protocol.identifiers import ID_BYTES, DeploymentId, DeviceId
from comity_protocol.keys import FastKey
from comity_protocol.signed_note import KeyType, VerifierKey, require_key_name
from comity_protocol.statements import SignedStatement

MIRROR_FOLDER: Final = "mirror"
_GENESIS_BYTES_MAX: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessSettings:
    """What an operator chooses. Port 0 takes any free one.

    Attributes:
        data: folder of its keys and its memory.
        name: key name.
        logs: the keys of the logs that it watches.
        pinned: hash of the genesis, when the deployment is known; needed for stamps and a relay.
        relay: address of the relay that it calls, replays and watches; None when the relay calls.
        url: where others reach it, for ``witness.json``.
        host: address to listen on.
        port: port to listen on.
        is_listening: whether to listen at all.
        is_replaying: whether to replay entries and statements before it cosigns.
        is_mirror: whether to keep and serve the log.

    Raises:
        ValueError: the name cannot be a key name, a log's key is of the wrong type or doubled, or
            what is chosen does not work together.
    """

    data: Path
    name: str
    logs: tuple[VerifierKey, ...]
    pinned: bytes | None = None
    relay: str | None = None
    url: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    is_listening: bool = True
    is_replaying: bool = True
    is_mirror: bool = False

    def __post_init__(self) -> None:
        require_key_name(self.name)
        if any(log.type is not KeyType.ED25519 for log in self.logs):
            raise ValueError("key of a log is not of type Ed25519")
        if len({log.name for log in self.logs}) != len(self.logs):
            raise ValueError("two keys are given for one log")
        if not self.logs:
            raise ValueError("no log is named; give --log-key or --genesis")
        if self.relay is not None and (self.pinned is None or len(self.logs) != 1):
            raise ValueError("--relay needs one log, and its --genesis or --deployment")
        if self.relay is None and (self.is_mirror or not self.is_listening):
            raise ValueError("--mirror and --no-listen need --relay")
        if self.is_mirror and not self.is_replaying:
            raise ValueError("a mirror replays; leave out --no-replay or --mirror")

    @property
    def deployment(self) -> DeploymentId | None:
        """The deployment's id, when it is known."""
        return None if self.pinned is None else DeploymentId(self.pinned[:ID_BYTES])


async def run_witness(
    settings: WitnessSettings, clock: Clock, announce: Callable[[str], None]
) -> None:
    """Run a witness until SIGTERM or SIGINT, then finish what is under way and stop.

    Args:
        settings: what the operator chose.
        clock: its own clock.
        announce: called once, when requests are answered, with one line of JSON: `verifier_key`,
            `anchor_key`, `address` when it listens, `url` when it was given.

    Raises:
        ComityError: its key or its memory is lost, retired or in use; it must not start.
        RetireError: the relay shows more than it remembers; it was retired.
        OSError: the address cannot be bound.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        folder = WitnessFolder.open(settings.data, settings.name)
        stack.callback(folder.close)
        parts = await _assemble(settings, folder, clock, stack)
        ready = folder.describe(settings.url)
        if settings.is_listening:
            ready["address"] = await _listen(settings, parts.witness, stack)
        for wanted in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(wanted, stop.set)
            stack.callback(loop.remove_signal_handler, wanted)
        announce(json.dumps(ready))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(job) for job in parts.jobs()]
                await stop.wait()
                for task in tasks:
                    task.cancel()
        except* RetireError as group_error:
            error = group_error.exceptions[0]
            folder.retire(str(error))
            raise error from None


@dataclass(frozen=True, slots=True)
class _Parts:
    """A witness, and what it does by itself besides answering."""

    witness: Witness
    link: Link | None
    watch: Watch | None

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Start nothing yet: give what runs for as long as the witness does."""
        return [part.run() for part in (self.link, self.watch) if part is not None]


async def _assemble(
    settings: WitnessSettings, folder: WitnessFolder, clock: Clock, stack: AsyncExitStack
) -> _Parts:
    key, state, deployment = folder.key, folder.state, settings.deployment
    stamper = None if deployment is None else Stamper(key, state, deployment, clock)
    if settings.relay is None or deployment is None or settings.pinned is None:
        watch = Watch(None, state, key, settings.logs, is_close=False)
        witness = Witness(state, key, settings.logs, clock, stamper=stamper, watch=watch)
        return _Parts(witness, None, watch)
    (log,) = settings.logs
    # A witness names its whole public key where a device names its id.
    kid = DeviceId(key.verifier_key.public_key)
    maker = TokenMaker(kid, deployment, FastKey(bytes(key.signing_key)))
    relay = await stack.enter_async_context(RelayClient(settings.relay, maker))
    mirror, replay, follow = None, None, None
    if settings.is_mirror:
        mirror = _open_mirror(folder, log.name)
        stack.callback(mirror.close)
    if settings.is_replaying:
        replay = Replay(state, relay, log.name, settings.pinned, mirror)
        follow = partial(_follow, replay, mirror)
    watch = Watch(relay, state, key, settings.logs, follow, is_close=mirror is not None)
    witness = Witness(
        state,
        key,
        settings.logs,
        clock,
        stamper=stamper,
        watch=watch,
        replay=replay,
        mirror=mirror,
    )
    return _Parts(witness, Link(settings.relay, key, deployment, witness.answer), watch)


def _open_mirror(folder: WitnessFolder, origin: str) -> Mirror:
    """Open the mirror of a log over what this witness has replayed and cosigned."""
    key, state = folder.key, folder.state

    def statements(skip: int, limit: int) -> list[SignedStatement]:
        size = state.replayed().size
        return [one for _, one in state.statements(skip, limit, below=size)]

    def cosigned() -> bytes:
        seen = state.seen(origin)
        if seen is None:
            return b""
        # The very line that was given then, without which nobody would believe the note.
        line = cosign(seen.note, key.name, key.signing_key, seen.cosigned_at)
        return add_signatures(seen.note, [line])

    return Mirror(folder.data / MIRROR_FOLDER, statements, cosigned)


async def _follow(replay: Replay, mirror: Mirror | None, note: bytes) -> None:
    """Be ready for the checkpoint after a published one, and show this one."""
    if replay.directory is None:
        return
    genesis = replay.directory.genesis
    await replay.catch_up(verify_quorum(note, genesis.log, genesis.quorum).checkpoint.size)
    if mirror is not None:
        mirror.take_note(note, genesis)


async def _listen(settings: WitnessSettings, witness: Witness, stack: AsyncExitStack) -> str:
    runner = make_witness_runner(serve_witness(witness))
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, settings.host, settings.port).start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"


def main(arguments: Sequence[str], clock: Clock) -> int:
    """Run a witness from the command line.

    Args:
        arguments: without the program's name.
        clock: its own clock.

    Returns:
        The exit status: 0 when it was asked to stop, 1 when it must not or cannot go on.
    """
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        if chosen.init:
            return _init(chosen)
        settings = _settings(chosen)
    except (ComityError, ValueError) as error:
        if isinstance(error, MalformedError) or not isinstance(error, ComityError):
            parser.error(str(error))
        return _fail(error)
    except OSError as error:
        parser.error(f"file cannot be read: {error.strerror}")
    try:
        asyncio.run(run_witness(settings, clock, _print_line))
    except ComityError as error:
        return _fail(error)
    except RetireError as error:
        sys.stderr.write(f"this witness is retired: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"witness cannot start: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="comity witness", description="cosign a relay's log")
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of its keys and memory")
    add("--name", required=True, help="key name, such as witness.example/w1")
    add("--init", action="store_true", help="make the keys, write witness.json, and end")
    add("--log-key", action="append", default=[], help="key of a log to watch; repeat")
    add("--genesis", type=Path, help="signed genesis of the deployment")
    add("--deployment", help="line comity:ADDRESS#HASH of the deployment, instead of its genesis")
    add("--relay", help="address of the relay, to call it and to replay its log")
    add("--no-replay", action="store_true", help="cosign without a look at entries and statements")
    add("--mirror", action="store_true", help="keep all entries and statements, and serve them")
    add("--no-listen", action="store_true", help="listen on no port; answer the relay alone")
    add("--url", help="where others reach it, for witness.json")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=0, help="port; 0 takes a free one")
    return parser


def _init(chosen: argparse.Namespace) -> int:
    require_key_name(chosen.name)
    folder = WitnessFolder.open(chosen.data, chosen.name)
    _print_line(json.dumps(folder.describe(chosen.url)))
    folder.close()
    return 0


def _settings(chosen: argparse.Namespace) -> WitnessSettings:
    """Read what the arguments name."""
    logs = [VerifierKey.parse(text) for text in chosen.log_key]
    pinned: bytes | None = None
    if chosen.genesis is not None:
        with chosen.genesis.open("rb") as file:
            signed = SignedStatement.parse(file.read(_GENESIS_BYTES_MAX))
        log, pinned = verify_genesis(signed).log, signed.hash
        logs = [*logs, log] if log not in logs else logs
    if chosen.deployment is not None:
        given = Deployment.parse(chosen.deployment).genesis_hash
        if pinned not in (None, given):
            raise ValueError("--genesis is not the one that --deployment names")
        pinned = given
    return WitnessSettings(
        data=chosen.data,
        name=chosen.name,
        logs=tuple(logs),
        pinned=pinned,
        relay=None if chosen.relay is None else _address(chosen.relay),
        url=chosen.url,
        host=chosen.host,
        port=chosen.port,
        is_listening=not chosen.no_listen,
        is_replaying=not chosen.no_replay,
        is_mirror=chosen.mirror,
    )


def _address(url: str) -> str:
    """Check a relay's address as a deployment line does: https, or this machine."""
    return Deployment(url.rstrip("/"), bytes(32)).url


def _fail(error: ComityError) -> int:
    sys.stderr.write(f"{error}; {error.remedy}\n")
    return 1


def _print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
