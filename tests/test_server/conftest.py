"""A running relay with two desks, for tests that need no other world."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.relay import Stand, relay, small_world


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    """Run it for one test."""
    world, sender, receiver = small_world()
    async with relay(tmp_path, world) as running:
        await running.publish()
        yield Stand(running, world.active(sender)[0], world.active(receiver)[0])
