"""A hub on each database, and a merchant in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.till import Clock, Till, open_till
from tillgate.store.directory import Merchant


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def till(database_url: str, clock: Clock) -> AsyncIterator[Till]:
    async with open_till(database_url, clock=clock) as opened:
        yield opened


@pytest.fixture
async def shop(till: Till) -> Merchant:
    return await till.merchant("shop")
