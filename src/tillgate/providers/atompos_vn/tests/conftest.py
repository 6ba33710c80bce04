"""A virtual terminal and a listener in front of the connector, each on a real port."""

from __future__ import annotations

import asyncio
import contextlib
import json
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
from tillgate.providers.atompos_vn import PROVIDER, AtomPos, Config
from tillgate.providers.atompos_vn.simulator import Terminal
from tillgate.spi import Heard, Inbound, Order, Send

SECRET = "an-example-secret-of-at-least-32-bytes"


def config(**changes: Any) -> Config:
    return msgspec.convert({**PROVIDER.example, **changes}, Config)


def ipn(**changes: Any) -> dict[str, Any]:
    """The document's own example."""
    return {
        "requestId": "00017-058-0001",
        "orderId": "1234:5263763487",
        "amount": "10000",
        "tip": "500",
        "paymentType": "QR",
        "narrative": "Thanh toán đơn hàng 🧾 ",
        "fromAccNo": "0011004123456",
        "extraData": {"key1": "value1"},
        **changes,
    }


def post(
    message: Any, *, token: str | None = None, path: str = "/ipn", at: int | None = None, **changes: Any
) -> Inbound:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    body = message if isinstance(message, bytes) else json.dumps(message, ensure_ascii=False).encode()
    plain = {"peer": "192.168.1.20", "method": "POST", "headers": headers, **changes}
    return Inbound(path=path, query="", body=body, received_at=at or int(time.time() * 1000), **plain)


def order(**changes: Any) -> Order:
    plain: dict[str, Any] = {
        "operation_id": "0198a1b2c3d4e5f60718293a4b5c6d7e",
        "payment_id": "pay-1",
        "order_id": "1234:5263763487",
        "channel": "atompos",
        "amount": Money(10_000, "VND"),
        "created_at": 1,
        "expires_at": 2,
        "notify_url": "http://192.168.1.5:8000/in/acc",
    }
    return Order(**{**plain, **changes})


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
class Listener:
    """What the hub does with a partner's messages, without its store."""

    connector: AtomPos
    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

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
            self.heard.append(heard)
        except Refusal as error:
            refusal = error
            self.refused.append(error)
        reply = self.connector.answer(call, heard, refusal)
        return Response(reply.body, reply.status, dict(reply.headers), reply.content_type)

    @property
    def app(self) -> Starlette:
        paths = ("/in/acc", "/ipn", "/authorize")
        return Starlette(routes=[Route(path, self.inbound, methods=["POST"]) for path in paths])


@dataclass
class World:
    terminal: Terminal
    base_url: str
    listener: Listener
    connector: AtomPos
    send: Send
    http: aiohttp.ClientSession

    def order(self, **changes: Any) -> Order:
        return order(**{"notify_url": f"{self.listener.url}/in/acc", **changes})

    async def sim(self, verb: str, **asked: Any) -> None:
        async with self.http.post(f"{self.base_url}/sim/{verb}", json=asked) as reply:
            assert reply.status == 200, await reply.text()
        await self.terminal.quiet()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    terminal, listener = Terminal(resend_s=0.01), Listener(AtomPos(config()))
    async with serving(terminal.app, listener.app) as [base_url, listener.url]:
        listener.connector = AtomPos(config(pos_url=base_url, pos_timeout_s=0.5))
        terminal.authorize_url = f"{listener.url}/authorize"
        terminal.user, terminal.password = "atom", "an-example-password"
        terminal.ipn_url = f"{listener.url}/ipn"
        async with Outgoing(guard=False) as outgoing, aiohttp.ClientSession() as http:
            yield World(terminal, base_url, listener, listener.connector, outgoing.send, http)
