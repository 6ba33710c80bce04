"""AtomPay in the hub: money comes by callback or by a look, once; what does not match waits for a person."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tillgate.http.app import create_app
from tillgate.hub import Intent
from tillgate.providers.atompay_in import PROVIDER
from tillgate.providers.atompay_in.simulator import Simulator
from tillgate.runtime import Runtime
from tillgate.settings import Settings

from .conftest import serving

PAYER = {"email": "payer@example.com", "mobile": "8888888800", "udf1": "event 7"}


@dataclass
class Place:
    runtime: Runtime
    simulator: Simulator
    base_url: str
    merchant_id: str
    account_id: str
    http: aiohttp.ClientSession

    async def open(
        self, order_id: str, amount_minor: int = 31_900, **metadata: Any
    ) -> tuple[str, dict[str, str]]:
        """The payment's id and what the payer's page is given."""
        merchant = await self.runtime.directory.merchant(self.merchant_id)
        about = json.dumps({**PAYER, **metadata})
        intent = Intent(order_id, amount_minor, "INR", "atompay", metadata=about)
        opened = await self.runtime.hub.open(merchant, intent)
        assert opened.attempt is not None
        assert opened.attempt.phase == "pending"
        account: dict[str, str] = json.loads(opened.attempt.show or "{}")["account"]
        return opened.payment.id, account

    async def pay(self, account: dict[str, str], outcome: str = "success") -> dict[str, Any]:
        asked = {"token": account["atomTokenId"], "mode": "UP", "outcome": outcome}
        async with self.http.post(f"{self.base_url}/sim/pay", json=asked) as reply:
            done: dict[str, Any] = await reply.json()
        await self.simulator.quiet()
        return done

    async def payment(self, payment_id: str) -> Any:
        return await self.runtime.kit.reads.payment(payment_id)

    async def until(self, payment_id: str, true: Callable[[Any], bool], within_s: float = 10) -> Any:
        end = time.monotonic() + within_s
        while not true(payment := await self.payment(payment_id)):
            assert time.monotonic() < end, payment
            await asyncio.sleep(0.02)
        return payment

    async def balances(self) -> dict[str, int]:
        found = await self.runtime.kit.reads.balances(self.merchant_id)
        return {name: minor for name, currency, minor in found if currency == "INR"}


@asynccontextmanager
async def placed(tmp_path: Path) -> AsyncIterator[Place]:
    simulator = Simulator()
    simulator.gateway.surcharge = "17.67"
    app = create_app(Settings(database_url=f"sqlite:///{tmp_path}/hub.db", sandbox=True))
    async with serving(simulator.app, app) as [base_url, hub_url], aiohttp.ClientSession() as http:
        runtime: Runtime = app.state.runtime
        runtime.kit.public_url = hub_url
        made = await runtime.create_merchant("shop")
        config = {**PROVIDER.example, "base_url": base_url}
        account_id = await runtime.directory.create_account(
            made.merchant_id, "atompay_in", "atompay", config, runtime.kit.clock()
        )
        simulator.callback_url = f"{hub_url}/in/{account_id}"
        yield Place(runtime, simulator, base_url, made.merchant_id, account_id, http)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as found:
        yield found


async def test_a_payment_is_paid_once_however_often_it_is_told(place: Place) -> None:
    place.simulator.gateway.state["faults"] = ["callback_twice"]
    payment_id, account = await place.open("ORD-1")
    done = await place.pay(account)
    async with place.http.post(account["returnUrl"], data=done["return"], allow_redirects=False) as reply:
        assert reply.status == 303
        assert reply.headers["location"].endswith(f"/pay/{payment_id}")
    payment = await place.payment(payment_id)
    assert (payment.status, payment.paid_minor, payment.paid_with) == ("paid", 31_900, "upi")
    books = await place.balances()
    assert books["merchant"] == 31_900 == -books[f"provider:{place.account_id}"]
    [attempt] = await place.runtime.kit.reads.attempts(payment_id)
    assert attempt.external_id == done["transaction"]["atomTxnId"]


async def test_an_unsigned_callback_is_looked_into_before_it_is_believed(place: Place) -> None:
    place.simulator.gateway.state["faults"] = ["callback_null_signature"]
    payment_id, account = await place.open("ORD-1")
    await place.pay(account)
    await place.until(payment_id, lambda payment: payment.status == "paid")


async def test_a_forged_callback_changes_nothing_and_the_genuine_one_works(place: Place) -> None:
    place.simulator.gateway.state["faults"] = ["callback_forged"]
    payment_id, account = await place.open("ORD-1")
    await place.pay(account)
    assert (await place.payment(payment_id)).status == "pending"
    place.simulator.gateway.state["faults"] = []
    async with place.http.post(
        f"{place.base_url}/sim/callback", json={"merchTxnId": account["merchTxnId"]}
    ) as reply:
        assert reply.status == 200
    await place.until(payment_id, lambda payment: payment.status == "paid")


@pytest.mark.parametrize("fault", ["callback_amount", "callback_currency"])
async def test_money_that_does_not_match_is_held(place: Place, fault: str) -> None:
    place.simulator.gateway.state["faults"] = [fault]
    payment_id, account = await place.open("ORD-1")
    await place.pay(account)
    assert (await place.payment(payment_id)).status == "review"


async def test_a_failure_then_a_late_success(place: Place) -> None:
    payment_id, account = await place.open("ORD-1")
    await place.pay(account, "failed")
    assert (await place.payment(payment_id)).status == "failed"
    await place.pay(account)
    payment = await place.payment(payment_id)
    assert payment.paid_minor == 31_900
    assert payment.late


async def test_a_reversal_takes_the_money_back(place: Place) -> None:
    payment_id, account = await place.open("ORD-1")
    await place.pay(account)
    asked = {"merchTxnId": account["merchTxnId"], "outcome": "reversed", "callback": True}
    async with place.http.post(f"{place.base_url}/sim/settle", json=asked) as reply:
        assert reply.status == 200
    payment = await place.until(payment_id, lambda payment: payment.reversed_minor == 31_900)
    assert payment.status == "failed"


async def test_a_refund_goes_out_and_is_waited_for(place: Place) -> None:
    payment_id, account = await place.open("ORD-1")
    await place.pay(account)
    merchant = await place.runtime.directory.merchant(place.merchant_id)
    opened = await place.runtime.hub.refund(merchant, payment_id, 10_000, "returned goods")
    await place.until(payment_id, lambda _: bool(place.simulator.gateway.state["refunds"]))
    [sent] = place.simulator.gateway.state["refunds"]
    assert (sent["prodRefundId"], sent["refundAmt"]) == (opened.refund.id, "100.00")
    payment = await place.payment(payment_id)
    assert payment.refunding_minor == 10_000


async def test_parts_of_a_split_payment_come_back_of_each_product_as_it_was_paid(place: Place) -> None:
    lines = [{"name": "NSE", "amount": "1.00"}, {"name": "BSE", "amount": "2.00"}]
    payment_id, account = await place.open("ORD-1", 300, products=lines)
    await place.pay(account)
    merchant = await place.runtime.directory.merchant(place.merchant_id)
    # Opened together, so that each has to know its place whichever is sent first.
    refunds = [place.runtime.hub.refund(merchant, payment_id, 100, "returned goods") for _ in range(3)]
    opened = await asyncio.gather(*refunds)
    sent: list[dict[str, Any]] = place.simulator.gateway.state["refunds"]

    async def phases() -> set[str]:
        return {(await place.runtime.kit.reads.refund(one.refund.id)).phase for one in opened}

    async with asyncio.timeout(10):
        while await phases() != {"pending"}:
            await asyncio.sleep(0.02)
    back = {
        name: sum(round(float(one["refundAmt"]) * 100) for one in sent if one["prodName"] == name)
        for name in ("NSE", "BSE")
    }
    assert back == {"NSE": 100, "BSE": 200}


async def test_the_checkout_page_is_served_by_the_accounts_own_address(place: Place) -> None:
    payment_id, _ = await place.open("ORD-1")
    [attempt] = await place.runtime.kit.reads.attempts(payment_id)
    url = json.loads(attempt.show or "{}")["url"]
    async with place.http.get(url) as reply:
        assert reply.status == 200
        assert "₹ 319.00" in await reply.text()
