"""Many callers at once, in one process and in four: one row, one hook call, one answer; and kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import Integer, create_engine, text

from tillgate.providers.payme.handler import PaymeWebhookHandler
from tillgate.providers.payme.tests.payme_kit import (
    HOMES,
    KEY,
    PRICE_TIYIN,
    Caller,
    Host,
    calling,
    code,
    creation,
    host_on,
)

CROWD = 20
PROCESSES = 4


async def crowd(payme: Caller, method: str, params: Any) -> set[bytes]:
    return set(await asyncio.gather(*(payme.bytes(method, params) for _ in range(CROWD))))


@pytest.mark.parametrize("home", HOMES)
async def test_identical_calls_at_once_are_one_call(home: str, request: pytest.FixtureRequest) -> None:
    async with host_on(home, request) as host, calling(host) as payme:
        for number in range(1, 4):
            params = creation(number)
            assert len(await crowd(payme, "CreateTransaction", params)) == 1
            assert len(await crowd(payme, "PerformTransaction", {"id": params["id"]})) == 1
            order = await host.order(number)
            assert (order.reserved, order.paid, order.balance) == (1, 1, PRICE_TIYIN)
            assert len(await crowd(payme, "CancelTransaction", {"id": params["id"], "reason": 5})) == 1
            assert (await host.order(number)).cancelled == 1
        assert [row.state for row in await host.transactions()] == [-2, -2, -2]


@pytest.mark.parametrize("home", HOMES)
async def test_identical_calls_at_once_are_one_call_where_no_hook_wants_them(
    home: str, request: pytest.FixtureRequest
) -> None:
    """Without hooks less is read and locked: the shop that only looks at `payments` is safe all the same."""
    async with host_on(home, request, handler=PaymeWebhookHandler) as host, calling(host) as payme:
        for number in range(1, 9):
            params = creation(number)
            (said,) = await crowd(payme, "CreateTransaction", params)
            assert b'"state":1' in said
            assert len(await crowd(payme, "PerformTransaction", {"id": params["id"]})) == 1
        assert [row.state for row in await host.transactions()] == [2] * 8


@pytest.mark.parametrize("home", HOMES)
async def test_of_many_transactions_at_once_one_gets_the_order(
    home: str, request: pytest.FixtureRequest
) -> None:
    async with host_on(home, request) as host, calling(host) as payme:
        answers = await asyncio.gather(*(payme("CreateTransaction", creation(1)) for _ in range(CROWD)))
        assert sorted(map(code, answers), key=str) == [-31008] * (CROWD - 1) + [None]
        assert len(await host.transactions()) == 1
        assert (await host.order(1)).reserved == 1


@pytest.mark.parametrize("home", HOMES)
async def test_payments_of_one_account_at_once_all_count(home: str, request: pytest.FixtureRequest) -> None:
    """A balance that every hook reads, adds to and writes: none may be lost."""
    async with host_on(home, request, one_time=False) as host, calling(host) as payme:
        made = await asyncio.gather(*(payme.created(1, 100 + number) for number in range(CROWD)))
        done = await asyncio.gather(*(payme("PerformTransaction", {"id": name}) for name in made))
        assert {answer["result"]["state"] for answer in done} == {2}
        order = await host.order(1)
        assert (order.paid, order.balance) == (CROWD, sum(100 + number for number in range(CROWD)))


# --- processes ----------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, os, sys
import uvicorn
from tillgate.providers.payme.tests.payme_kit import AsyncHandler, Host, SyncHandler

home, url, port = sys.argv[1:4]
host = Host(home, url)
if host.is_async:
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
    host.engine = create_async_engine(url)
    host.sessions = async_sessionmaker(host.engine)
else:
    from sqlalchemy import create_engine
    from sqlalchemy.orm import sessionmaker
    host.engine = create_engine(url)
    host.sessions = sessionmaker(host.engine, autoflush=False)
if len(sys.argv) > 4:
    # Dies without a word in the hook, after the row has moved and the order has been written.
    kind = AsyncHandler if host.is_async else SyncHandler
    class Dying(kind):
        def successfully_payment(self, params, transaction):
            super().successfully_payment(params, transaction)
            os.kill(os.getpid(), 9)
    class DyingAsync(kind):
        async def successfully_payment(self, params, transaction):
            await super().successfully_payment(params, transaction)
            os.kill(os.getpid(), 9)
    host.handler = DyingAsync if host.is_async else Dying
uvicorn.run(host.app(), host="127.0.0.1", port=int(port), log_level="critical", access_log=False)
"""


@contextlib.asynccontextmanager
async def processes(host: Host, count: int, tmp_path: Path, *more: str) -> AsyncIterator[list[str]]:
    """`count` servers of the same host on ports of their own; their addresses."""
    program = tmp_path / "server.py"
    program.write_text(PROGRAM)
    running, urls = [], []
    try:
        for _ in range(count):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            arguments = [sys.executable, str(program), host.home, host.url, str(port), *more]
            running.append(subprocess.Popen(arguments, env={**os.environ}))
            urls.append(f"http://127.0.0.1:{port}/payme")
        for url in urls:
            port = int(url.split(":")[2].split("/")[0])
            for _ in range(600):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                    break
                await asyncio.sleep(0.05)
        yield urls
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


FOUR = ["sqlite-sync", "postgresql-sync"]


@pytest.mark.parametrize("home", FOUR)
async def test_four_processes_are_one_handler(
    home: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with (
        host_on(home, request) as host,
        processes(host, PROCESSES, tmp_path) as urls,
        aiohttp.ClientSession() as session,
    ):
        callers = [Caller(url, session) for url in urls]

        async def everywhere(method: str, params: Any) -> set[bytes]:
            calls = (callers[number % PROCESSES].bytes(method, params) for number in range(CROWD))
            return set(await asyncio.gather(*calls))

        for number in range(1, 4):
            params = creation(number)
            assert len(await everywhere("CreateTransaction", params)) == 1
            assert len(await everywhere("PerformTransaction", {"id": params["id"]})) == 1
            order = await host.order(number)
            assert (order.reserved, order.paid, order.balance) == (1, 1, PRICE_TIYIN)
        rivals = await asyncio.gather(
            *(callers[n % PROCESSES]("CreateTransaction", creation(9)) for n in range(CROWD))
        )
        assert sum(code(answer) is None for answer in rivals) == 1
        assert len(await host.transactions()) == 4


@pytest.mark.parametrize("home", FOUR)
async def test_a_process_killed_inside_the_hook_leaves_nothing_behind(
    home: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with host_on(home, request) as host, aiohttp.ClientSession() as session:
        async with processes(host, 1, tmp_path, "dying") as (url,):
            payme = Caller(url, session)
            transaction = await payme.created(1)
            with pytest.raises(aiohttp.ClientError):
                await payme("PerformTransaction", {"id": transaction})
        order, (row,) = await host.order(1), await host.transactions()
        assert (order.status, order.paid, row.state) == ("new", 0, 1)

        async with calling(host) as again:
            assert (await again("PerformTransaction", {"id": transaction}))["result"]["state"] == 2
        order, (row,) = await host.order(1), await host.transactions()
        assert (order.status, order.paid, row.state) == ("paid", 1, 2)
        assert KEY


def test_the_table_is_made_once_by_many_starting_at_once(tmp_path: Path) -> None:
    program = f"""
from sqlalchemy import create_engine
from tillgate.integrations.fastapi import run_migrations
run_migrations(create_engine("sqlite:///{tmp_path}/x.db"))
"""
    running = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) for _ in range(4)]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM payments").columns(n=Integer)) == 0
    engine.dispose()
