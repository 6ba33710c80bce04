"""AtomPay's checkout in a browser: the hub's page opens the gateway's, which sends the payer back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browser.checkout_hub import CheckoutHub, open_checkout
from tillgate.http.server import Server, listen
from tillgate.hub import Intent
from tillgate.providers.atompay_in import PROVIDER
from tillgate.providers.atompay_in.simulator import Simulator
from tillgate.store.work import Due

if TYPE_CHECKING:
    from playwright.async_api import Page

PAYER = json.dumps({"email": "payer@example.com", "mobile": "8888888800"})


@dataclass
class Place:
    hub: CheckoutHub
    gateway: Simulator
    base_url: str
    shots: Path

    async def open(self, order_id: str) -> tuple[str, str, str]:
        """The payment's id, the address of its page, and the gateway's name for the attempt."""
        runtime = self.hub.runtime
        merchant = await runtime.directory.merchant(self.hub.merchant.id)
        opened = await runtime.hub.open(merchant, Intent(order_id, 31_900, "INR", "atompay", metadata=PAYER))
        assert opened.attempt is not None
        return opened.payment.id, json.loads(opened.attempt.show or "{}")["url"], opened.attempt.id

    async def pays(self, page: Page, url: str, outcome: str, mode: str = "UP") -> None:
        """Opens the page, is taken to the gateway, chooses, and lets it end as `outcome`."""
        await page.goto(url)
        await page.wait_for_url("**/checkout?**")
        await page.select_option("select", mode)
        await self.shot(page, f"gateway-{outcome}")
        await page.click(f"button[value={outcome}]")

    async def shot(self, page: Page, name: str) -> None:
        await page.screenshot(path=self.shots / f"{name}.png")

    async def status(self, payment_id: str, wanted: str) -> Any:
        end = time.monotonic() + 10
        while True:
            payment = await self.hub.runtime.kit.reads.payment(payment_id)
            assert payment is not None
            if payment.status == wanted:
                return payment
            assert time.monotonic() < end, payment
            await asyncio.sleep(0.05)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    gateway = Simulator()
    listening = listen("127.0.0.1", 0)
    base_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = Server(gateway.app)
    serving = asyncio.create_task(server.serve([listening]))
    async with open_checkout(tmp_path, worker=True) as hub:
        config = {**PROVIDER.example, "base_url": base_url}
        runtime = hub.runtime
        account = await runtime.directory.create_account(
            hub.merchant.id, "atompay_in", "atompay", config, runtime.kit.clock()
        )
        gateway.callback_url = f"{hub.url}/in/{account}"
        yield Place(hub, gateway, base_url, tmp_path)
    server.stop()
    await serving


async def test_the_ways_in_which_a_payer_comes_back(place: Place, browser_page: Page) -> None:
    page, hub = browser_page, place.hub

    # Success: back at the shop's page, which shows it.
    paid, url, _ = await place.open("ORD-1")
    await place.pays(page, url, "success")
    await page.wait_for_url(f"**/pay/{paid}")
    await place.status(paid, "paid")
    await page.get_by_text("Paid").first.wait_for()
    await place.shot(page, "back-paid")

    # Failure: the page says so, and the order can be tried again.
    failed, url, _ = await place.open("ORD-2")
    await place.pays(page, url, "failed")
    await page.wait_for_url(f"**/pay/{failed}")
    await place.status(failed, "failed")
    await place.shot(page, "back-failed")

    # Pending at the bank, and a success later while the page is open: nobody has to load it again.
    slow, url, attempt = await place.open("ORD-3")
    await place.pays(page, url, "pending", "NB")
    await page.wait_for_url(f"**/pay/{slow}")
    await place.status(slow, "pending")
    await place.shot(page, "back-pending")
    asked = {"merchTxnId": attempt, "outcome": "success", "callback": True}
    async with hub.web.post(f"{place.base_url}/sim/settle", json=asked) as reply:
        assert reply.status == 200
    await place.status(slow, "paid")
    await page.get_by_text("Paid").first.wait_for()

    # A closed browser and a lost callback: found by looking.
    place.gateway.gateway.state["faults"] = ["callback_lost"]
    closed, url, attempt = await place.open("ORD-4")
    await place.pays(page, url, "close")
    await page.get_by_text("Nobody returns to the shop").wait_for()
    assert (await hub.runtime.kit.reads.payment(closed)).status == "pending"  # type: ignore[union-attr]
    await hub.runtime.hub.due_work["look"](Due("look", attempt, 1, 0))
    await place.status(closed, "paid")

    # Leaving the gateway is no proof of anything: the payment stays open, and its page can be opened again.
    left, url, _ = await place.open("ORD-5")
    await place.pays(page, url, "cancelTransaction")
    await page.wait_for_url(f"**/pay/{left}")
    await place.status(left, "pending")
    await place.shot(page, "back-left")
