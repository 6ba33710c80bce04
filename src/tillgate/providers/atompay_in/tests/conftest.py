"""AtomPay's simulator and a shop in front of the connector, each on a real port."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tillgate.domain.errors import Refusal
from tillgate.domain.money import Money
from tillgate.outgoing import Outgoing
from tillgate.providers.atompay_in import PROVIDER, AtomPay, Config
from tillgate.providers.atompay_in.simulator import Simulator
from tillgate.spi import Heard, Inbound, Order, Send


def config(**changes: Any) -> Config:
    return msgspec.convert({**PROVIDER.example, **changes}, Config)


def order(**changes: Any) -> Order:
    now = int(time.time() * 1000)
    plain: dict[str, Any] = {
        "operation_id": "0198a1b2c3d4e5f60718293a4b5c6d7e",
        "payment_id": "pay-1",
        "order_id": "ORD-1",
        "channel": "atompay",
        "amount": Money.parse("319.00", "INR"),
        "created_at": now,
        "expires_at": now + 900_000,
        "metadata": {"email": "payer@example.com", "mobile": "8888888800", "udf1": "event 7"},
        "notify_url": "http://127.0.0.1:1/in/acc",
        "return_url": "http://127.0.0.1:1/pay/x",
    }
    return Order(**{**plain, **changes})


def post(body: bytes, *, query: str = "", at: int | None = None) -> Inbound:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return Inbound("POST", "/in/acc", query, headers, body, "203.0.113.9", at or int(time.time() * 1000))


@contextlib.asynccontextmanager
async def serving(*apps: Any) -> AsyncIterator[list[str]]:
    """Each app on a port of its own, all stopped together: a server takes its time to stop."""
    servers = []
    for app in apps:
        config = uvicorn.Config(
            app, host="127.0.0.1", port=0, log_level="critical", timeout_graceful_shutdown=1
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        servers.append(server)
    ports = [server.servers[0].sockets[0].getsockname()[1] for server in servers]
    try:
        yield [f"http://127.0.0.1:{port}" for port in ports]
    finally:
        await asyncio.gather(*(server.shutdown() for server in servers))


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    async with serving(app) as [url]:
        yield url


@dataclass
class Shop:
    """What the hub does with a provider's messages, without its store."""

    connector: AtomPay
    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    @property
    def messages(self) -> list[Any]:
        return [heard.message for heard in self.heard]

    async def inbound(self, request: Request) -> Response:
        call = Inbound(
            request.method,
            request.url.path,
            request.url.query,
            dict(request.headers),
            await request.body(),
            "127.0.0.1",
            int(time.time() * 1000),
        )
        heard, refusal = None, None
        try:
            heard = self.connector.hear(call)
            if call.method == "POST":
                self.heard.append(heard)
        except Refusal as error:
            refusal = error
            self.refused.append(error)
        reply = self.connector.answer(call, heard, refusal)
        self.answers.append(reply.status)
        return Response(reply.body, reply.status, dict(reply.headers), reply.content_type)

    async def state(self, _: Request) -> Response:
        return Response("Your payment is being checked", media_type="text/plain")

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[Route("/in/acc", self.inbound, methods=["GET", "POST"]), Route("/pay/x", self.state)]
        )


@dataclass
class World:
    simulator: Simulator
    base_url: str
    shop: Shop
    connector: AtomPay
    send: Send
    http: aiohttp.ClientSession

    def order(self, **changes: Any) -> Order:
        here = {"notify_url": f"{self.shop.url}/in/acc", "return_url": f"{self.shop.url}/pay/x"}
        return order(**{**here, **changes})

    async def pay(self, token: str, mode: str = "NB", outcome: str = "success") -> dict[str, Any]:
        asked = {"token": token, "mode": mode, "outcome": outcome}
        async with self.http.post(f"{self.base_url}/sim/pay", json=asked) as reply:
            assert reply.status == 200, await reply.text()
            paid: dict[str, Any] = await reply.json()
        await self.simulator.quiet()
        return paid

    async def sim(self, verb: str, **asked: Any) -> dict[str, Any]:
        async with self.http.post(f"{self.base_url}/sim/{verb}", json=asked) as reply:
            assert reply.status == 200, await reply.text()
            answer: dict[str, Any] = await reply.json()
        await self.simulator.quiet()
        return answer

    def faults(self, *names: str) -> None:
        self.simulator.gateway.state["faults"] = list(names)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    simulator, shop = Simulator(), Shop(AtomPay(config()))
    simulator.gateway.surcharge = "17.67"
    async with serving(simulator.app, shop.app) as [base_url, shop.url]:
        shop.connector = AtomPay(config(base_url=base_url))
        simulator.callback_url = f"{shop.url}/in/acc"
        async with Outgoing(guard=False) as outgoing, aiohttp.ClientSession() as http:
            yield World(simulator, base_url, shop, shop.connector, outgoing.send, http)
