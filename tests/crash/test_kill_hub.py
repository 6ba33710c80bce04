"""`kill -9` at any moment, under load, on both databases: what was acknowledged is there exactly once.

The hub is a real process that is killed and started again; the till and the shop's server are on the other
side of real sockets. `TILLGATE_CRASH_ROUNDS` says how often (some in CI, thousands by `make crash`).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from support.postgres import free_port

ROUNDS = int(os.environ.get("TILLGATE_CRASH_ROUNDS", "8"))
TILLS = 12
LEASE_S = 60  # what a killed worker held comes up again after this long

pytestmark = pytest.mark.timeout(600 + ROUNDS * 10)


@dataclass
class Seen:
    """What the hub acknowledged, and what the shop's server received."""

    payments: dict[str, str] = field(default_factory=dict)  # payment id → order id
    paid: set[str] = field(default_factory=set)
    refunds: dict[str, str] = field(default_factory=dict)  # refund id → payment id
    callbacks: dict[tuple[str, str, str | None], set[str]] = field(default_factory=lambda: defaultdict(set))


class Killable:
    """`tillgate up` as a process of its own."""

    def __init__(self, url: str, sink_port: int) -> None:
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TILLGATE_")},
            "TILLGATE_DATABASE_URL": url,
            "TILLGATE_SANDBOX": "1",
            "TILLGATE_BOOTSTRAP_API_KEY": "shop",
            "TILLGATE_BOOTSTRAP_API_SECRET": "secret",
            "TILLGATE_RATE_LIMIT": "0",
            "TILLGATE_CALLBACK_ALLOW": f"127.0.0.1:{sink_port}",
        }
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        command = [sys.executable, "-m", "tillgate", "up", "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        async with aiohttp.ClientSession() as http:
            for _ in range(600):
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with http.get(f"{self.base}/readyz") as reply:
                        if reply.status == 200:
                            return
                assert self.process.poll() is None, "the hub ended by itself"
                await asyncio.sleep(0.05)
        raise AssertionError("the hub did not come up")

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def verify(self) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tillgate", "ledger", "verify"]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)


class Till:
    """Opens, is paid, refunds, as fast as it is answered; notes what it was told."""

    def __init__(self, hub: Killable, seen: Seen, callback_url: str) -> None:
        self._hub, self._seen, self._url = hub, seen, callback_url
        self._headers: dict[str, str] = {}

    async def login(self, http: aiohttp.ClientSession) -> None:
        body = {"api_key": "shop", "api_secret": "secret"}
        async with http.post(f"{self._hub.base}/token", json=body) as reply:
            self._headers = {"authorization": f"Bearer {(await reply.json())['access_token']}"}

    async def call(
        self, http: aiohttp.ClientSession, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        request = http.request(method, self._hub.base + path, json=body, headers=self._headers)
        async with request as reply:
            return reply.status, await reply.json()

    async def work(self, name: str) -> None:
        """Until the hub dies under it. Nothing but a lost connection or a 503 is allowed to go wrong."""
        number = 0
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
                await self.login(http)
                while True:
                    number += 1
                    await self._sale(http, f"{name}-{number}")
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            return

    async def _sale(self, http: aiohttp.ClientSession, order_id: str) -> None:
        body = {
            "wallet_id": "gopay", "amount": 10_000, "currency": "IDR", "order_id": order_id,
            "callback_url": self._url,
        }  # fmt: skip
        status, made = await self.call(http, "POST", "/payments", body)
        if status == 503:
            return
        assert status == 200, made
        self._seen.payments[made["payment_id"]] = order_id
        status, paid = await self.call(http, "POST", f"/sandbox/payments/{made['payment_id']}/pay")
        if status != 200 or paid["status"] != "success":
            return
        self._seen.paid.add(made["payment_id"])
        if random.random() < 0.5:
            wanted = {"amount": 4_000, "reason": "crash test"}
            status, refund = await self.call(http, "POST", f"/payments/{made['payment_id']}/refund", wanted)
            if status == 200:
                self._seen.refunds[refund["refund_id"]] = made["payment_id"]


@pytest.fixture
async def shop() -> AsyncIterator[tuple[Seen, int]]:
    seen = Seen()

    async def callback(request: web.Request) -> web.Response:
        news = await request.json()
        refund = news["refund"]["refund_id"] if news["refund"] else None
        seen.callbacks[news["payment_id"], news["type"], refund].add(request.headers["webhook-id"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/callback", callback)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield seen, runner.addresses[0][1]
    await runner.cleanup()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_nothing_that_was_acknowledged_is_lost_or_doubled(
    engine: str, shop: tuple[Seen, int], request: pytest.FixtureRequest
) -> None:
    seen, sink_port = shop
    url = request.getfixturevalue("sqlite_url" if engine == "sqlite" else "durable_pg_url")
    hub = Killable(url, sink_port)
    till = Till(hub, seen, f"http://127.0.0.1:{sink_port}/callback")
    try:
        for number in range(ROUNDS):
            await hub.start()
            tills = [asyncio.create_task(till.work(f"{number}-{one}")) for one in range(TILLS)]
            await asyncio.sleep(random.uniform(0.1, 1.2))
            hub.kill()
            await asyncio.gather(*tills)
        assert seen.payments, "the load never got through"
        await hub.start()
        await _all_told(seen)
        await _all_there(till, seen)
        done = hub.verify()
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        hub.kill()


async def _all_told(seen: Seen) -> None:
    """What was pending when the hub died goes on: each acknowledged result reaches the shop, under one id."""
    wanted: set[tuple[str, str, str | None]] = {(one, "payment.success", None) for one in seen.paid}
    wanted |= {(payment, "refund.success", refund) for refund, payment in seen.refunds.items()}
    for _ in range((2 * LEASE_S + 60) * 5):
        if wanted <= seen.callbacks.keys():
            break
        await asyncio.sleep(0.2)
    missing = wanted - seen.callbacks.keys()
    assert not missing, (
        f"{len(missing)} of {len(wanted)} results never reached the shop: {sorted(missing)[:5]}"
    )
    doubled = {what: ids for what, ids in seen.callbacks.items() if len(ids) != 1}
    assert not doubled, f"told under more than one id: {doubled}"


async def _all_there(till: Till, seen: Seen) -> None:
    async with aiohttp.ClientSession() as http:
        await till.login(http)
        for payment_id, order_id in seen.payments.items():
            status, found = await till.call(http, "GET", f"/payments/{payment_id}")
            assert (status, found["order_id"]) == (200, order_id)
            if payment_id in seen.paid:
                assert found["status"] == "success"
        for refund_id, payment_id in seen.refunds.items():
            _, listed = await till.call(http, "GET", f"/payments/{payment_id}/refunds")
            assert [one["refund_id"] for one in listed["refunds"]].count(refund_id) == 1
            assert sum(one["amount"] for one in listed["refunds"]) <= 10_000
    assert len(set(seen.payments.values())) == len(seen.payments), "an order has two payments"
