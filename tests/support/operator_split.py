"""Split views: two halves of the desks are shown two histories, each signed with the log key.

Alice's half goes on from where the log stands; bob's half from where it stood two stages earlier,
with another message in it. Of three witnesses with a quorum of two some are bribed: they have two
memories, one for each half. The others are honest and are asked by one half or the other.
"""

import asyncio
import shutil
from contextlib import AsyncExitStack
from typing import Final

from comity_client.desk import Desk
from comity_client.drafts import Draft
from comity_client.envelopes import Stage
from comity_protocol.checkpoint import note_hash
from comity_protocol.errors import ComityError
from support.desks import Meddler
from support.operator_run import (
    DATABASE,
    SECONDS_MAX,
    By,
    Noticed,
    Run,
    Scene,
    When,
    served,
)
from support.operator_world import Sent, repost

BRIBED: Final = (0, 1, 2, 3)
BEGINS: Final = 2
"""Stage after which the second history goes its own way."""


async def split(scene: Scene, bribed: int, *, is_carried: bool) -> Noticed:
    """Show two histories, let alice write to bob, and find out who notices.

    Args:
        scene: Of alice's half; bob's is made of an older copy.
        bribed: How many of the three witnesses lie.
        is_carried: Whether the operator carries alice's message over to bob's half, so that it
            arrives at all.
    """
    past, names = scene.past, sorted(scene.past.world.witness_keys)
    other = Scene.copy(past, scene.folder.with_name(f"{scene.folder.name}-other"))
    for name in (DATABASE, "signer.sqlite"):
        shutil.copy(past.older(BEGINS) / name, other.data / name)
    shutil.rmtree(other.folder / "witnesses")
    shutil.copytree(past.older(BEGINS) / "witnesses", other.folder / "witnesses")
    # Those who write to each other have joined since, so neither has seen the other half's past.
    for half in (scene, other):
        shutil.rmtree(half.folder / "desks")
    honest = names[bribed:]
    scene.witnesses = (*names[:bribed], *honest[: (len(honest) + 1) // 2])
    other.witnesses = (*names[:bribed], *honest[(len(honest) + 1) // 2 :])
    async with asyncio.timeout(SECONDS_MAX), AsyncExitStack() as stack:
        mine = await stack.enter_async_context(served(scene, is_accomplice=True))
        its = await stack.enter_async_context(served(other, is_accomplice=True))
        return await _play(mine, its, is_carried=is_carried)


async def _play(mine: Run, its: Run, *, is_carried: bool) -> Noticed:
    try:
        alice, bob = await mine.open("alice"), await its.open("bob")
        await alice.sync()
        await bob.fetch()
        # The second history gets an entry of its own.
        own = bob.lead(mine.past.members["alice"].desk, Draft(text="other", language="en"))
        await bob.flush()
        await its.seal()
        await bob.fetch()
        if bob.status(own).stage is not Stage.SEALED:
            return Noticed(By.WITNESS, When.CHECKPOINT, "no quorum cosigns the second history")
        sent = alice.lead(mine.past.members["bob"].desk, Draft(text="across", language="en"))
        await alice.flush()
        await mine.seal()
        if is_carried:
            await _carry(alice, mine, its)
        await bob.fetch()
        await its.seal()
        await alice.fetch()
    except ComityError as error:
        return Noticed(By.DESK, When.MESSAGE, f"{type(error).__name__}: {error}")
    for desk in (bob, alice):
        if alarms := desk.alarms():
            return Noticed(By.DESK, When.MESSAGE, f"{alarms[0].kind}: {alarms[0].text}")
    stage = alice.status(sent).stage
    if stage is not Stage.STORED:
        return Noticed(By.DESK, When.MESSAGE, f"act is {stage.value}, expected stored")
    return Noticed(By.NOBODY, When.NEVER)


async def _carry(alice: Desk, mine: Run, its: Run) -> None:
    """Put alice's message into the second history, whose relay is made to take it."""
    assert isinstance(alice.relay, Meddler)
    seen = alice.newest.note
    # Under a size that no desk asks for: the second history has another newest checkpoint.
    its.scene.execute("INSERT INTO checkpoints VALUES (?, 1, ?, 0)", note_hash(seen), seen)
    (upload,) = [body for kind, body in alice.relay.posted if kind == "envelope"]
    answer = await repost(its.relay, Sent("/v1/envelopes", upload, mine.past.members["alice"], b""))
    assert answer.status == 200, answer.body
    await its.seal()
