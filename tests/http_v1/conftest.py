"""A hub on each database for the whole run, and two merchants: one with the client, one by bare HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from support.fixtures import fresh_database
from support.postgres import free_port
from support.serving import Client, Credentials, Served, client, hub, new_merchant
from tillgate.client import Tillgate


@pytest.fixture(scope="session")
def v1_ports() -> tuple[int, ...]:
    return tuple({free_port() for _ in range(6)})


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, v1_ports: tuple[int, ...]
) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("hub")
    with ExitStack() as stack:
        database_url = f"sqlite:///{directory}/hub.db"
        if request.param == "postgresql":
            database_url = stack.enter_context(fresh_database(request.getfixturevalue("pg_server_url")))
        allow = ",".join(f"127.0.0.1:{port}" for port in v1_ports)
        process = stack.enter_context(hub(directory, database_url, callback_allow=allow, log_level="debug"))
        yield Served(process, database_url, v1_ports)
        assert process.stop() == 0
        assert "Traceback" not in process.log
        assert '"level": "error"' not in process.log


@pytest.fixture
def merchant(served: Served) -> Credentials:
    """A merchant of the test's own."""
    return new_merchant(served.database_url)


@pytest.fixture
async def till(served: Served, merchant: Credentials) -> AsyncIterator[Tillgate]:
    async with Tillgate(served.url, merchant.api_key, merchant.api_secret) as opened:
        yield opened


@pytest.fixture
async def shop(served: Served, merchant: Credentials) -> AsyncIterator[Client]:
    """The same merchant by bare HTTP."""
    async with client(served.url, merchant) as opened:
        yield opened


@pytest.fixture
async def rival(served: Served) -> AsyncIterator[Client]:
    """Another merchant of the same hub."""
    async with client(served.url, new_merchant(served.database_url)) as opened:
        yield opened
