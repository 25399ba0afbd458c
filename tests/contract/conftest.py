"""Each test of the contract runs on both databases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comity_server.store import Store
from support.rows import Place


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return Place(f"sqlite:///{tmp_path}/relay.sqlite")
    return Place(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    async with place.opened() as (store,):
        yield store
