"""The example shop, as it stands: bought, paid, paid late; forged, old and repeated news change nothing."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from support.serving import Client, Credentials, Served
from tillgate.client import Tillgate

SHOP = Path(__file__).parents[2] / "examples" / "shop_v1" / "shop.py"


@asynccontextmanager
async def opened(port: int) -> AsyncIterator[aiohttp.ClientSession]:
    """The shop as it stands in its file, and somebody who looks at it."""
    spec = importlib.util.spec_from_file_location("example_shop_v1", SHOP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    runner = web.AppRunner(module.shop(), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as visitor:
            yield visitor
    finally:
        await runner.cleanup()


async def states(visitor: aiohttp.ClientSession) -> list[str]:
    async with visitor.get("/orders") as answer:
        return [one["state"] for one in await answer.json()]


async def test_tea_is_brewed_once(
    served: Served,
    merchant: Credentials,
    till: Tillgate,
    shop: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = served.callback_ports[3]
    endpoint = await till.create_endpoint(f"http://127.0.0.1:{port}/hook")
    settings = {
        "TILLGATE_URL": served.url,
        "TILLGATE_API_KEY": merchant.api_key,
        "TILLGATE_API_SECRET": merchant.api_secret,
        "WEBHOOK_SECRET": endpoint.secret,
        "SHOP_DB": str(tmp_path / "shop.db"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    async with opened(port) as visitor:
        for _ in range(3):
            async with visitor.post("/buy", allow_redirects=False) as answer:
                assert answer.status == 303
                assert answer.headers["location"].startswith(f"{served.url}/pay/pay_")
        async with visitor.get("/orders") as answer:
            payments = [one["payment"] for one in await answer.json()]
        for payment, action in zip(payments, ("pay", "expire", "pay-late"), strict=True):
            await shop.act(payment, action)
        deadline = time.monotonic() + 30
        while (found := await states(visitor)) != ["brewing", "gone", "brewing"]:
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.05)
        for forged in (b"{}", b'{"type":"payment.paid","data":{"payment":{"order_id":"TEA-2"}}}'):
            async with visitor.post("/hook", data=forged, headers={"webhook-id": "evt_1"}) as answer:
                assert answer.status == 401
        # All of it once more, the old news of the second pot too.
        done = await till.replay_endpoint(endpoint.id, what="everything")
        while [one async for one in till.deliveries(endpoint=endpoint.id, status="pending")]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert done >= 6
        assert await states(visitor) == ["brewing", "gone", "brewing"]
