"""The relay as a web application: every route on one page.

    comity-relay serve --data DIR --witness URL

starts it; ``running`` below does the same inside a program, for tests and for the demo.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import ClientSession, web
from nacl.signing import SigningKey

from comity_protocol import wire
from comity_protocol.genesis import Genesis
from comity_protocol.keys import FastKey
from comity_protocol.receipts import Promise, sign_promise
from comity_protocol.statements import SignedStatement
from comity_server import middlewares, observe
from comity_server.anchors import Anchors
from comity_server.context import CONTEXT, Context
from comity_server.handlers import (
    envelopes,
    health,
    links,
    log,
    mailbox,
    notices,
    statements,
    vacancies,
)
from comity_server.keyfiles import check_keys
from comity_server.log import Log
from comity_server.members import Members
from comity_server.metrics import Metrics
from comity_server.mirrors import Mirror
from comity_server.notices import Notices
from comity_server.publisher import Publisher
from comity_server.relay import Relay
from comity_server.repair import Repairer
from comity_server.retention import Retention
from comity_server.settings import Settings, SettingsError
from comity_server.signer import LogSigner, Signer, SignerState
from comity_server.signer_client import SignerClient, signer_session
from comity_server.socket import get_socket
from comity_server.statement_rows import genesis_row
from comity_server.store import Store
from comity_server.tombstones import Tombstones
from comity_server.witnesses import Address, Witness, Witnesses

KEEPALIVE_SECONDS: Final = 30.0
LINGERING_SECONDS: Final = 1.0
"""How long the rest of a refused body is read, so that its sender sees the refusal."""

BACKLOG: Final = 1_024


def make_app(context: Context) -> web.Application:
    """Put routes and middlewares around a relay's parts."""
    app = web.Application(middlewares=[middlewares.account, middlewares.problems])
    app[CONTEXT] = context
    app.on_response_prepare.append(middlewares.stamp)
    get = partial(web.get, allow_head=False, expect_handler=middlewares.expect)
    post = partial(web.post, expect_handler=middlewares.expect)
    app.router.add_routes(
        [
            # The deployment and who is in it.
            get(wire.GENESIS, statements.get_genesis),
            post(wire.STATEMENTS, statements.post_statement),
            get(wire.STATEMENTS, statements.get_statements),
            get(wire.BOXES, statements.get_boxes),
            # Sending.
            post(wire.ENVELOPES, envelopes.post_envelope),
            get(wire.ENVELOPES + "/{envelope}", envelopes.get_envelope),
            post(wire.RECEIPTS, envelopes.post_receipt),
            post(wire.NOTICES, notices.post_notice),
            # Receiving.
            get(wire.MAILBOX, mailbox.get_mailbox),
            get(wire.RECEIPTS, mailbox.get_receipts),
            get(wire.VACANCIES, vacancies.get_vacancies),
            get(wire.NOTICES, notices.get_notices),
            get(wire.WRAPS + "/{envelope}", envelopes.get_wrap),
            get(wire.SOCKET, get_socket),
            # The log, for everyone.
            get(wire.PROOF + "/{index}", log.get_proof),
            get(wire.COVERING + "/{index}", log.get_covering),
            get(wire.WITNESS_LINK, links.get_witness_link),
            get(wire.LEAVES + "/{start}", log.get_leaves),
            get(wire.CHECKPOINTS, log.get_checkpoints),
            get(wire.ANCHORS, log.get_anchors),
            get(wire.CHECKPOINT, log.get_checkpoint),
            get(wire.TILE + "/entries/{place:.+}", log.get_entries),
            get(wire.TILE + "/{level:[0-9]+}/{place:.+}", log.get_tile),
            # Health.
            get(wire.NONCE, health.get_nonce),
            get("/livez", health.get_livez),
            get("/readyz", health.get_readyz),
            get("/metrics", health.get_metrics),
            get("/version", health.get_version),
            get("/openapi.yaml", health.get_openapi),
        ]
    )
    return app


@asynccontextmanager
async def running(
    *,
    settings: Settings,
    store: Store,
    genesis: SignedStatement,
    log_key: SigningKey | None,
    relay_key: FastKey,
    clock: Callable[[], float],
) -> AsyncIterator[Context]:
    """Run a relay's parts around an opened store, without listening yet.

    Args:
        settings: How it is set up.
        store: Opened by the caller, who also closes it.
        genesis: The deployment's, as installed.
        log_key: Secret key of the log; None when the signer is a process of its own.
        relay_key: Secret key for promises.
        clock: Seconds since 1970 UTC.

    Raises:
        SettingsError: A key is not the genesis's, or too few witnesses have an address.
        ComityError: The store or the signer's state is another deployment's, or damaged.
    """
    metrics = Metrics()
    holder = secrets.token_hex(8)
    members = Members(store, genesis)
    founding = members.view.directory.genesis
    check_keys(founding, log_key, relay_key)
    _check_witnesses(founding, settings)
    relay = Relay(
        store=store,
        members=members,
        key=relay_key,
        settings=settings,
        metrics=metrics,
        clock=clock,
        holder=holder,
    )
    await _install(store, genesis, relay_key, int(clock()))
    await members.refresh()
    log_ = Log(store, founding.log)
    async with (
        ClientSession(auto_decompress=False) as session,
        _signing(founding, settings, store, log_key, clock) as signer,
        _buried(settings) as tombstones,
    ):
        notices_ = Notices(relay=relay, key=relay_key, tombstones=tombstones, metrics=metrics)
        context = Context(
            founding, genesis, settings, store, members, relay, log_, metrics, clock, notices_
        )
        retention = Retention(
            relay=relay,
            log=log_,
            genesis=founding,
            settings=settings,
            metrics=metrics,
            holder=holder,
        )
        anchors = Anchors(
            store,
            founding.origin,
            founding.anchors.quorum if founding.anchors else None,
            clock,
        )
        context.witnesses = _witnesses(founding, settings, session, metrics, anchors)
        publisher = Publisher(
            relay=relay,
            log=log_,
            signer=signer,
            witnesses=context.witnesses,
            anchors=anchors,
            key=founding.log,
            quorum=founding.quorum,
            settings=settings,
            metrics=metrics,
            clock=clock,
        )
        repairer = Repairer(
            relay=relay,
            notices=notices_,
            signer=signer,
            witnesses=context.witnesses,
            mirrors=_mirrors(founding, settings, session),
            clear=publisher.clear,
            publish=publisher.publish,
            genesis=founding,
            key=relay_key,
            settings=settings,
            metrics=metrics,
        )
        await repairer.begin()
        await publisher.show()
        await relay.poll()
        # Before anything is served: the database may be one that was put back.
        await notices_.carry_out()
        await retention.begin()
        async with _background(relay.run(), publisher.run(), retention.run(), repairer.run()):
            yield context
            await relay.drain(settings.drain_seconds)
        await relay.close()


@asynccontextmanager
async def _buried(settings: Settings) -> AsyncIterator[Tombstones]:
    """Open the file of what was erased."""
    with closing(Tombstones(settings.tombstones_path)) as tombstones:
        yield tombstones


@asynccontextmanager
async def _signing(
    genesis: Genesis,
    settings: Settings,
    store: Store,
    log_key: SigningKey | None,
    clock: Callable[[], float],
) -> AsyncIterator[LogSigner]:
    """Give the signer: behind its socket, or in this process when none is set."""
    if settings.signer_socket:
        path = Path(settings.signer_socket)
        async with signer_session(path) as session:
            yield SignerClient(path, session)
        return
    if log_key is None:
        raise SettingsError("there is no log key here; set signer_socket, or bring the key back")
    state = SignerState(settings.signer_path, genesis.origin)
    try:
        yield Signer(
            state,
            store,
            log_key,
            origin=genesis.origin,
            quorum=genesis.quorum,
            clock=clock,
        )
    finally:
        state.close()


@asynccontextmanager
async def listening(context: Context) -> AsyncIterator[str]:
    """Serve a running relay over HTTP; give its URL. On leaving, sockets and requests are ended."""
    settings = context.settings
    runner = web.AppRunner(
        make_app(context),
        handle_signals=False,
        access_log=None,
        # A body with a lying Content-Encoding would fail inside the web server; it is refused.
        auto_decompress=False,
        keepalive_timeout=KEEPALIVE_SECONDS,
        lingering_time=LINGERING_SECONDS,
        shutdown_timeout=settings.drain_seconds,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        context.is_stopping = True
        context.relay.is_stopping = True
        await site.stop()
        context.relay.hub.look_again()
        context.relay.hub.end()
        for channel in tuple(context.channels.values()):
            channel.end()
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _background(*jobs: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run jobs beside the body; when one fails the body is cancelled and the error raised."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(job) for job in jobs]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _install(store: Store, genesis: SignedStatement, key: FastKey, at: int) -> None:
    """Make the genesis statement 1 and leaf 0 of an empty store."""
    if (await store.head()).statements == 0:
        promise = sign_promise(key, Promise(genesis.hash, at))
        await store.accept_statement(genesis_row(genesis, promise, at), expected_ordinal=0)
        observe.event("genesis-installed", hash=genesis.hash.hex())
    first = await store.statements(0, 1)
    if [(row.payload, row.leaf_index) for row in first] != [(genesis.payload, 0)]:
        raise SettingsError("database is another deployment's; give each deployment its own")


def _check_witnesses(genesis: Genesis, settings: Settings) -> None:
    count, least = len(_addresses(genesis, settings)), genesis.quorum.least
    if count < least and not settings.witness_links:
        raise SettingsError(
            f"{count} witnesses have an address and the genesis demands {least};"
            " name the others with --witness, or say --witness-links when they call this relay"
        )


def _addresses(genesis: Genesis, settings: Settings) -> Collection[str]:
    """Give the witnesses' addresses: those of the settings, or else those of the policy."""
    return settings.witnesses or tuple(genesis.policy.urls.values())


def _witnesses(
    genesis: Genesis,
    settings: Settings,
    session: ClientSession,
    metrics: Metrics,
    anchors: Anchors,
) -> Witnesses:
    keys, seconds = genesis.quorum.witnesses, settings.checkpoint_wait_seconds
    return Witnesses(
        [
            Witness(Address(url, session, seconds), keys, metrics, anchors.keys)
            for url in _addresses(genesis, settings)
        ]
    )


def _mirrors(genesis: Genesis, settings: Settings, session: ClientSession) -> list[Mirror]:
    """Give the mirrors that are named, and the witnesses, which may be mirrors too."""
    urls = dict.fromkeys((*settings.mirrors, *_addresses(genesis, settings)))
    return [Mirror(url, session, settings.checkpoint_wait_seconds) for url in urls]
