"""`kill -9` of the journal, the hub and the worker in the middle of their work, many times a minute.

The kill comes at any moment of a few hundred milliseconds of full load; on PostgreSQL the server itself is
killed at times. Afterwards each acknowledged payment, money notice and refund is there, exactly once; the
bank gave every refund once; the shop heard of everything under one id; the books are proved.
`TILLGATE_CRASH_ROUNDS` says how often (some in CI, thousands by `make crash`).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import select

from crash.load import BACK, PRICE, LastingBank, Notes, Orders
from support.fixtures import fresh_database
from support.postgres import Server
from support.till import Clock, Till, open_till
from tillgate.domain.payment import Payment, Refund
from tillgate.hub.kit import CALLBACK_KINDS
from tillgate.outgoing import Outgoing
from tillgate.ssrf import AllowList
from tillgate.store import audit, tables
from tillgate.store.book import record_of
from tillgate.store.directory import MerchantSettings
from tillgate.worker import Worker

ROUNDS = int(os.environ.get("TILLGATE_CRASH_ROUNDS", "20"))
LEASE_MS = 61_000
SEED = int(os.environ.get("TILLGATE_CRASH_SEED", time.time_ns() % 10**6))

pytestmark = pytest.mark.timeout(300 + ROUNDS * 10)


class Shop:
    """The merchant's server: what it was told, under which ids."""

    def __init__(self) -> None:
        self.heard: dict[str, set[bytes]] = defaultdict(set)  # webhook-id → bodies
        self.port = 0

    async def callback(self, request: web.Request) -> web.Response:
        self.heard[request.headers["webhook-id"]].add(await request.read())
        return web.Response(status=random.choice([200, 200, 200, 500]))


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    made = Shop()
    app = web.Application()
    app.router.add_post("/callback", made.callback)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


class Hubs:
    """Starts hubs, one after another, and kills them."""

    def __init__(self) -> None:
        here = Path(__file__).parent
        self._zygote = subprocess.Popen(
            [sys.executable, str(here / "load.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(here.parent)},
            text=True,
        )

    def start(self, orders: Orders) -> int:
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(json.dumps(asdict(orders)) + "\n")
        self._zygote.stdin.flush()
        return self._said()

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        assert self._said() == -signal.SIGKILL, "the hub had ended by itself"

    def _said(self) -> int:
        assert self._zygote.stdout is not None
        return int(self._zygote.stdout.readline())

    def close(self) -> None:
        with self._zygote:
            self._zygote.kill()


@pytest.fixture
def hubs() -> Iterator[Hubs]:
    made = Hubs()
    yield made
    made.close()


@contextmanager
def database(engine: str, request: pytest.FixtureRequest) -> Iterator[tuple[str, Server | None]]:
    if engine == "sqlite":
        yield request.getfixturevalue("sqlite_url"), None
        return
    server: Server = request.getfixturevalue("own_pg")
    with fresh_database(server.url) as url:
        yield url, server


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_nothing_is_lost_doubled_or_half_written(
    engine: str, shop: Shop, hubs: Hubs, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    chance, now = random.Random(SEED), Clock().now
    print(f"TILLGATE_CRASH_SEED={SEED}")
    callback = MerchantSettings(callback_url=f"http://127.0.0.1:{shop.port}/callback")
    with database(engine, request) as (url, server):
        async with open_till(url, bank=LastingBank(tmp_path / "bank"), clock=Clock(now)) as till:
            merchant = await till.merchant("shop", callback)
        for number in range(ROUNDS):
            now += LEASE_MS  # what the one before held comes up again
            orders = Orders(url, str(tmp_path), merchant.id, f"127.0.0.1:{shop.port}", number, now)
            pid = await asyncio.to_thread(hubs.start, orders)
            await asyncio.sleep(chance.uniform(0.05, 0.5))
            if server is not None and chance.random() < 0.15:
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(chance.uniform(0.0, 0.2))
                await asyncio.to_thread(server.start)
                await asyncio.sleep(chance.uniform(0.05, 0.3))
            await asyncio.to_thread(hubs.kill, pid)
        clock = Clock(now)
        async with open_till(url, bank=LastingBank(tmp_path / "bank"), clock=clock) as till:
            before = await audit.verify(till.database)
            assert before.clean, before.text()
            await finish(till, clock, shop)
            await prove(till, merchant.id, shop, tmp_path)


async def finish(till: Till, clock: Clock, shop: Shop) -> None:
    """What was pending goes on, by itself, until nothing is left to do."""
    async with Outgoing(guard=True, allow=AllowList.parse(f"127.0.0.1:{shop.port}")) as outgoing:
        worker = Worker(till.hub, outgoing.send)
        pending = select(tables.deliveries.c.id).where(tables.deliveries.c.state == "pending").limit(1)
        for _ in range(30):
            clock.on(s=3 * 3600)
            await worker.drain()
            if not await till.database.read(pending):
                break


async def prove(till: Till, merchant_id: str, shop: Shop, folder: Path) -> None:
    report = await audit.verify(till.database)
    assert report.clean, report.text()
    payments, refunds = (
        await stored(till, Payment, tables.payments),
        await stored(till, Refund, tables.refunds),
    )
    noted: dict[str, list[list[Any]]] = defaultdict(list)
    for what, *rest in Notes(folder / "acknowledged").all():
        noted[what].append(rest)
    assert noted["surprise"] == []
    assert len(noted["payment"]) > ROUNDS, "the load never got through"

    # Every acknowledged payment, once, and one payment for each order.
    assert {name: payments[name].order_id for name, _ in noted["payment"]} == dict(noted["payment"])
    assert max(Counter(one.order_id for one in payments.values()).values()) == 1

    # Every acknowledged notice of money, once.
    events = await everything(till, merchant_id)
    times_paid = Counter(subject for kind, subject, _ in events if kind == "payment.paid")
    for [payment_id] in noted["paid"]:
        assert times_paid[payment_id] == 1
    for one in payments.values():
        assert one.paid_minor in (0, PRICE)
        assert one.refunded_minor + one.refunding_minor <= one.paid_minor

    # Every acknowledged refund, once; and the bank did what is in the books, nothing more and nothing less.
    assert {name for _, name in noted["refund"]} <= refunds.keys()
    bank = LastingBank(folder / "bank")
    assert {one.phase for one in refunds.values()} <= {"succeeded"}
    assert refunds.keys() == bank.refunds.keys()
    given = [name for what, name, *_ in Notes(folder / "bank").all() if what == "refund"]
    assert len(given) == len(set(given))
    assert sum(one.refunded_minor for one in payments.values()) == BACK * len(given)

    # The shop heard of everything, under one id each, in the same words.
    wanted = {event_id for kind, _, event_id in events if kind in CALLBACK_KINDS}
    assert wanted <= shop.heard.keys()
    assert shop.heard.keys() <= wanted
    assert {len(bodies) for bodies in shop.heard.values()} == {1}

    left = await till.database.read(select(tables.due.c.kind))
    assert {row[0] for row in left} <= {"expire", "look"}
    print(f"{len(payments)} payments, {len(refunds)} refunds, {len(events)} events, {report.text()}")


async def stored(till: Till, kind: type[Any], table: Any) -> dict[str, Any]:
    return {row[0]: record_of(kind, row) for row in await till.database.read(select(table))}


async def everything(till: Till, merchant_id: str) -> list[tuple[str, str, str]]:
    """(type, subject, id) of all events."""
    found, after = list[tuple[str, str, str]](), 0
    while rows := await till.kit.reads.events(merchant_id, after, 1_000):
        found += [(row[3], row[4], row[2]) for row in rows]
        after = rows[-1][1]
    return found
