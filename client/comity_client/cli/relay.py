"""The relay without a profile: what a custodian or a newcomer needs of it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from comity_client.cli.shell import Shell, read_file
from comity_client.profile import PROFILE_FILE, STATE_FILE, Deployment
from comity_protocol.errors import VerificationError
from comity_protocol.genesis import Genesis, verify_genesis
from comity_protocol.limits import STATEMENT_BYTES_MAX
from comity_protocol.receipts import Promise, Signed, verify_promise
from comity_protocol.statements import SignedStatement


def pinned(shell: Shell, line: str | None) -> Deployment:
    """Give the deployment that a line names, or that the profile has pinned."""
    return Deployment.parse(line) if line else shell.read_profile().deployment


def fetch_genesis(
    shell: Shell, deployment: Deployment, file: Path | None = None
) -> tuple[SignedStatement, Genesis]:
    """Get the genesis, from a file or the relay, and check it against the pinned hash.

    Raises:
        VerificationError: It is another one. [D-1]
    """
    if file is not None:
        signed = SignedStatement.parse(read_file(file, 4 * STATEMENT_BYTES_MAX))
    else:
        with shell.step("asking the relay for the genesis"):
            signed = asyncio.run(_get_genesis(deployment))
    if signed.hash != deployment.genesis_hash:
        raise VerificationError(
            "this is another deployment's genesis than the line names [D-1];"
            " check the line with whoever gave it to you"
        )
    return signed, verify_genesis(signed)


def post(
    shell: Shell, deployment: Deployment, genesis: Genesis, statements: Sequence[SignedStatement]
) -> None:
    """Publish statements in order; the relay promises each in writing.

    Raises:
        RelayRefusedError: The relay does not accept one; those before it stay published.
        VerificationError: A promise is not the relay's.
    """
    with shell.step("publishing"):
        promises = asyncio.run(_post(deployment, genesis, statements))
    _keep(shell, deployment, statements, promises)


async def _get_genesis(deployment: Deployment) -> SignedStatement:
    from comity_client.transport import RelayClient

    async with RelayClient(deployment.url) as relay:
        return await relay.genesis()


async def _post(
    deployment: Deployment, genesis: Genesis, statements: Sequence[SignedStatement]
) -> list[Signed]:
    from comity_client.transport import RelayClient

    promises = []
    async with RelayClient(deployment.url) as relay:
        for signed in statements:
            promise = await relay.post_statement(signed)
            verify_promise(promise, genesis.relay_key, signed.hash)
            promises.append(promise)
    return promises


def _keep(
    shell: Shell,
    deployment: Deployment,
    statements: Sequence[SignedStatement],
    promises: Sequence[Signed],
) -> None:
    """Keep what was published, with its boxes, when this is a device of the deployment.

    A custodian without a device has the file.
    """
    from comity_client.cli.known import Known
    from comity_client.keeping import Keeping, Kind, Posted

    if not (shell.folder / PROFILE_FILE).exists() or not (shell.folder / STATE_FILE).exists():
        return
    if shell.read_profile().deployment.genesis_hash != deployment.genesis_hash:
        return
    # SPEC [B-14]: what the relay promised is kept as it was posted.
    with Known.open(shell) as known:
        keeping = Keeping(known.state)
        for signed, answer in zip(statements, promises, strict=True):
            what = signed.hash
            keeping.add(Posted(kind=Kind.STATEMENT, tag=what, what=what, data=signed.serialize()))
            keeping.promised(what, answer, Promise.parse(answer.payload))
