"""Real hubs to speak to, one on each database for the whole run, and merchants in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from support.fixtures import fresh_database
from support.postgres import free_port
from support.serving import Client, Credentials, Served, client, hub, new_merchant


@pytest.fixture(scope="session")
def callback_ports() -> tuple[int, ...]:
    """Ports for merchants' own servers: a hub must know them when it starts."""
    return tuple({free_port() for _ in range(8)})


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def served(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    callback_ports: tuple[int, ...],
) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("hub")
    with ExitStack() as stack:
        database_url = f"sqlite:///{directory}/hub.db"
        if request.param == "postgresql":
            database_url = stack.enter_context(fresh_database(request.getfixturevalue("pg_server_url")))
        allow = ",".join(f"127.0.0.1:{port}" for port in callback_ports)
        process = stack.enter_context(hub(directory, database_url, callback_allow=allow))
        yield Served(process, database_url, callback_ports)
        assert process.stop() == 0
        assert "Traceback" not in process.log
        assert '"level": "error"' not in process.log


@pytest.fixture(scope="module")
def merchant(served: Served) -> Credentials:
    """A merchant of the module's own."""
    return new_merchant(served.database_url)


@pytest.fixture(scope="module")
def rival_merchant(served: Served) -> Credentials:
    return new_merchant(served.database_url)


@pytest.fixture
async def shop(served: Served, merchant: Credentials) -> AsyncIterator[Client]:
    async with client(served.url, merchant) as opened:
        yield opened


@pytest.fixture
async def rival(served: Served, rival_merchant: Credentials) -> AsyncIterator[Client]:
    """Another merchant of the same hub."""
    async with client(served.url, rival_merchant) as opened:
        yield opened
