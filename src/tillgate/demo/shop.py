"""The merchants' side of the show: a till, and the server that callbacks come to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
from aiohttp import web

from tillgate import webhooks
from tillgate.domain.errors import Unavailable
from tillgate.domain.money import Money
from tillgate.runtime import Runtime

PATIENCE_S = 15.0


class Shop:
    """One merchant's till, written from the merchant API document and the description of `/v1`."""

    def __init__(self, base: str, key: str, secret: str, sink: Sink) -> None:
        self.base = base
        self.key = key
        self._secret, self._token = secret, ""
        self.callback_url = f"{sink.url}/callback/{key}"
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))

    async def close(self) -> None:
        await self._http.close()

    async def login(self) -> None:
        body = {"api_key": self.key, "api_secret": self._secret}
        self._token = (await self.call("POST", "/token", body))["access_token"]

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON answer. Raises `Unavailable` with the hub's words where it says no."""
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        async with self._http.request(method, self.base + path, json=body, headers=headers) as reply:
            found: dict[str, Any] = json.loads(await reply.read())
        if reply.status >= 400:
            raise Unavailable(f"{method} {path}: {found.get('errorMessage') or found.get('detail')}")
        return found

    async def open(self, order_id: str, wallet: str, amount: Money) -> str:
        """By the merchant API document. Gives the payment's id."""
        made = await self.call(
            "POST",
            "/payments",
            {
                "wallet_id": wallet,
                "amount": amount.major,
                "currency": amount.currency,
                "order_id": order_id,
                "callback_url": self.callback_url,
            },
        )
        return str(made["payment_id"])

    async def invite(self, order_id: str, channel: str, amount: Money, **more: Any) -> dict[str, Any]:
        """By `/v1/payments`: its answer says in `next_action` what the payer is shown. `more`: `account`…"""
        body = {
            "order_id": order_id,
            "amount_minor": amount.minor,
            "currency": amount.currency,
            "channel": channel,
            "callback_url": self.callback_url,
        }
        return await self.call("POST", "/v1/payments", body | more)

    async def until(self, payment_id: str, detail: str) -> dict[str, Any]:
        """Poll as a till does, until the payment says `detail` or patience ends."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            found = await self.call("GET", f"/payments/{payment_id}")
            if found["status_detail"] == detail or asyncio.get_running_loop().time() > deadline:
                return found
            await asyncio.sleep(0.1)


@dataclass(slots=True)
class Sink:
    """The shops' own server: `/callback/{api key}` believes only callbacks that are signed."""

    url: str = ""
    runtime: Runtime | None = None
    heard: dict[str, list[str]] = field(default_factory=dict)  # event types by payment id
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/callback/{key}", self._callback)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _callback(self, request: web.Request) -> web.Response:
        body, runtime = await request.read(), self.runtime
        assert runtime is not None
        owner = await runtime.directory.credential(request.match_info["key"])
        assert owner is not None
        merchant = await runtime.directory.merchant(owner.merchant_id)
        headers = {name.lower(): value for name, value in request.headers.items()}
        webhooks.verify(merchant.webhook_secrets, headers, body, now_s=runtime.kit.clock() // 1000)
        news = json.loads(body)
        self.heard.setdefault(news["payment_id"], []).append(news["type"])
        return web.Response()

    async def until(self, payment_id: str, callbacks: tuple[str, ...]) -> tuple[str, ...]:
        """What was heard of a payment: these callbacks, or whatever came when patience ends."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while tuple(self.heard.get(payment_id, ())) != callbacks:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.05)  # the shop is told from outside, at its own pace
        return tuple(self.heard.get(payment_id, ()))
