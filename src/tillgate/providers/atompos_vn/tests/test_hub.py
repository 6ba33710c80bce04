"""ATOM POS in the hub: pushed once, paid by an IPN, and by a late one too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tillgate.http.app import create_app
from tillgate.hub import Intent
from tillgate.providers.atompos_vn import PROVIDER
from tillgate.providers.atompos_vn.simulator import Terminal
from tillgate.runtime import Runtime
from tillgate.settings import Settings

from .conftest import serving


@dataclass
class Place:
    runtime: Runtime
    terminal: Terminal
    base_url: str
    merchant_id: str
    account_id: str
    http: aiohttp.ClientSession

    async def open(self, order_id: str, **metadata: Any) -> Any:
        merchant = await self.runtime.directory.merchant(self.merchant_id)
        intent = Intent(order_id, 10_000, "VND", "atompos", metadata=json.dumps(metadata))
        return await self.runtime.hub.open(merchant, intent)

    async def approve(self, **asked: Any) -> None:
        async with self.http.post(f"{self.base_url}/sim/approve", json=asked) as reply:
            assert reply.status == 200
        await self.terminal.quiet()

    async def payment(self, payment_id: str) -> Any:
        return await self.runtime.kit.reads.payment(payment_id)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    terminal = Terminal(resend_s=0.01)
    app = create_app(Settings(database_url=f"sqlite:///{tmp_path}/hub.db", sandbox=True))
    async with serving(terminal.app, app) as [base_url, hub_url], aiohttp.ClientSession() as http:
        runtime: Runtime = app.state.runtime
        runtime.kit.public_url = hub_url
        made = await runtime.create_merchant("shop")
        config = {**PROVIDER.example, "auth": "path", "pos_url": base_url, "pos_timeout_s": 0.5}
        account_id = await runtime.directory.create_account(
            made.merchant_id, "atompos_vn", "till 1", config, runtime.kit.clock()
        )
        yield Place(runtime, terminal, base_url, made.merchant_id, account_id, http)


async def test_a_sale_is_pushed_and_paid_once_with_its_tip_apart(place: Place) -> None:
    opened = await place.open("HD-17", tip=500)
    assert opened.attempt.phase == "pending"
    await place.approve(
        requestID=opened.attempt.id, paymentType="CreditCard", faults={"copies": 2, "deaf": 2}
    )
    payment = await place.payment(opened.payment.id)
    assert (payment.status, payment.paid_minor, payment.tip_minor, payment.paid_with) == (
        "paid",
        10_000,
        500,
        "card",
    )
    found = await place.runtime.kit.reads.balances(place.merchant_id)
    books = {name: minor for name, currency, minor in found if currency == "VND"}
    assert (books["merchant"], books["tips"], books[f"provider:{place.account_id}"]) == (10_000, 500, -10_500)


async def test_the_merchants_own_request_id_finds_the_payment(place: Place) -> None:
    opened = await place.open("HD-17", requestId="00017-058-0001")
    await place.approve(requestID="00017-058-0001")
    assert (await place.payment(opened.payment.id)).status == "paid"


async def test_a_lost_answer_is_unsure_not_pushed_again_and_a_late_ipn_wins(place: Place) -> None:
    place.terminal.behaviour = "silent"
    opened = await place.open("HD-17")
    assert (await place.payment(opened.payment.id)).status == "unsure"
    again = await place.open("HD-17")
    assert again.payment.id == opened.payment.id
    await asyncio.sleep(0.2)
    [sale] = place.terminal.sales.values()
    assert sale["pushed"] == 1
    place.terminal.behaviour = "normal"
    await place.approve(requestID=sale["requestID"])
    assert (await place.payment(opened.payment.id)).status == "paid"


async def test_another_amount_is_held(place: Place) -> None:
    opened = await place.open("HD-17")
    await place.approve(requestID=opened.attempt.id, faults={"set": {"amount": "9000"}})
    assert (await place.payment(opened.payment.id)).status == "review"
