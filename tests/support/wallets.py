"""A shop whose wallets are collected through simulated Xendit and Midtrans, everything over real sockets.

The clock stands still until a test moves it, for the hub and the simulators alike; `settle` does due work.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import aiohttp
import uvicorn
from aiohttp import web
from starlette.applications import Starlette

from support.till import Clock, Till, open_till
from tillgate import registry
from tillgate.domain.payment import Attempt, Payment, Refund
from tillgate.http.inbound import doors, routes
from tillgate.hub import Intent, Opened
from tillgate.outgoing import Outgoing
from tillgate.providers.midtrans.simulator import MidtransSimulator
from tillgate.providers.midtrans.simulator import create_app as midtrans_app
from tillgate.providers.xendit.simulator import XenditSimulator
from tillgate.providers.xendit.simulator import create_app as xendit_app
from tillgate.settings import load
from tillgate.store.directory import Account, Merchant

XENDIT_KEY = "xnd_development_KeyOfATestThatOpensNothing"
XENDIT_TOKEN = "a-callback-token-of-a-test-account"
MIDTRANS_KEY = "SB-Mid-server-KeyOfATestThatOpensNothing"


@asynccontextmanager
async def serve_asgi(app: Any) -> AsyncIterator[str]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off"))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running
        listener.close()


@asynccontextmanager
async def serve_aiohttp(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def xendit(**options: Any) -> AsyncIterator[XenditSimulator]:
    """Xendit on a port of its own."""
    options = {"secret_key": XENDIT_KEY, "callback_token": XENDIT_TOKEN, "refund_s": 0.02, **options}
    async with XenditSimulator(**options) as simulator, serve_aiohttp(xendit_app(simulator)) as base:
        simulator.base_url = base
        yield simulator


@asynccontextmanager
async def midtrans(**options: Any) -> AsyncIterator[MidtransSimulator]:
    """Midtrans on a port of its own."""
    options = {"server_key": MIDTRANS_KEY, "refund_s": 0.02, "retry_s": 0.05, **options}
    async with MidtransSimulator(**options) as simulator, serve_aiohttp(midtrans_app(simulator)) as base:
        simulator.base_url = base
        yield simulator


@dataclass
class Shop:
    till: Till
    clock: Clock
    base: str
    merchant: Merchant
    accounts: dict[str, Account]
    sims: dict[str, Any]
    http: aiohttp.ClientSession
    _numbers: int = field(default=0)

    @property
    def xendit(self) -> XenditSimulator:
        found: XenditSimulator = self.sims["xendit"]
        return found

    @property
    def midtrans(self) -> MidtransSimulator:
        found: MidtransSimulator = self.sims["midtrans"]
        return found

    async def open(
        self, channel: str = "gopay", rupiah: int = 150_000, order_id: str | None = None, **more: Any
    ) -> Opened:
        self._numbers += 1
        name = order_id or f"ORD-{self._numbers}"
        return await self.till.hub.open(self.merchant, Intent(name, rupiah * 100, "IDR", channel, **more))

    async def settle(self, *, s: float = 0) -> None:
        """Do what is due, after `s` seconds have passed."""
        self.clock.on(ms=int(s * 1000))
        await self.till.worker.drain()

    async def payment(self, opened: Opened) -> Payment:
        found = await self.till.kit.reads.payment(opened.payment.id)
        assert found is not None
        return found

    async def attempts(self, opened: Opened) -> list[Attempt]:
        return sorted(await self.till.kit.reads.attempts(opened.payment.id), key=lambda one: one.id)

    async def attempt(self, opened: Opened) -> Attempt:
        return (await self.attempts(opened))[-1]

    async def refund(self, opened: Opened, rupiah: int) -> str:
        made = await self.till.hub.refund(self.merchant, opened.payment.id, rupiah * 100, "returned goods")
        assert made.refund is not None
        return made.refund.id

    async def refunded(self, refund_id: str) -> Refund:
        """The refund once its fate is known."""
        for _ in range(100):
            await self.settle(s=5)
            found = await self.till.kit.reads.refund(refund_id)
            assert found is not None
            if found.phase in ("succeeded", "failed"):
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"never ended: {found}")

    async def post(self, provider: str, body: Any = None, *, raw: bytes = b"", **headers: str) -> int:
        """Somebody posts to the account's address."""
        url = f"{self.base}/in/{self.accounts[provider].id}"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        data = raw if body is None else json.dumps(body).encode()
        async with self.http.post(url, data=data, headers=sent) as reply:
            return reply.status

    async def books(self) -> dict[str, int]:
        rows = await self.till.kit.reads.balances(self.merchant.id)
        return {name: minor for name, _, minor in rows if minor}

    async def audited(self) -> None:
        """The books balance and the chain of events holds."""
        from tillgate.store import audit

        report = await audit.verify(self.till.database, None)
        assert report.clean, report.text()


@asynccontextmanager
async def wallet_shop(
    database_url: str, providers: Sequence[str], config: dict[str, dict[str, Any]] | None = None
) -> AsyncIterator[Shop]:
    """A shop with an account at each of `providers`, the first preferred."""
    clock = Clock()
    seconds = {"clock": lambda: clock() / 1000}
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        till = await enter(open_till(database_url, clock=clock, known=registry.providers()))
        till.kit.send = (await enter(Outgoing(guard=False))).send
        inbound: Any = SimpleNamespace(
            directory=till.directory,
            providers=till.kit.providers,
            kit=till.kit,
            hub=till.hub,
            settings=load({"database_url": database_url, "sandbox": True}),
            token_keys=("a key that signs this test's tokens, long enough",),
        )
        till.kit.public_url = base = await enter(serve_asgi(Starlette(routes=routes(doors(inbound)))))
        made = await till.directory.create_merchant("warung", clock())
        sims: dict[str, Any] = {}
        ids: dict[str, str] = {}
        for number, name in enumerate(providers):
            sims[name] = await enter(_SIMULATORS[name](**seconds))
            settings = {**_CONFIGS[name], "base_url": sims[name].base_url, **(config or {}).get(name, {})}
            ids[name] = await till.directory.create_account(
                made.merchant_id, name, name, settings, clock(), priority=number
            )
            sims[name].webhook_url = f"{base}/in/{ids[name]}"
        merchant = await till.directory.merchant(made.merchant_id)
        accounts = {name: next(one for one in merchant.accounts if one.id == ids[name]) for name in providers}
        http = await enter(aiohttp.ClientSession())
        yield Shop(till, clock, base, merchant, accounts, sims, http)


_SIMULATORS: dict[str, Any] = {"xendit": xendit, "midtrans": midtrans}
_CONFIGS: dict[str, dict[str, Any]] = {
    "xendit": {"secret_key": XENDIT_KEY, "callback_token": XENDIT_TOKEN, "timeout_s": 5.0},
    "midtrans": {"server_key": MIDTRANS_KEY, "timeout_s": 5.0},
}


@asynccontextmanager
async def account_at(
    provider: str, hub_url: str, database_url: str, merchant_id: str
) -> AsyncIterator[XenditSimulator | MidtransSimulator]:
    """An account of a merchant of a hub that runs elsewhere, at a provider that is simulated here."""
    from tillgate.runtime import Runtime

    async with _SIMULATORS[provider]() as simulator:
        settings = {**_CONFIGS[provider], "base_url": simulator.base_url}
        sandbox = load({"database_url": database_url, "sandbox": True})
        async with Runtime(sandbox, migrate=False) as runtime:
            now = runtime.kit.clock()
            made = await runtime.directory.create_account(merchant_id, provider, provider, settings, now)
        simulator.webhook_url = f"{hub_url}/in/{made}"
        yield simulator
