"""Click in the hub: both databases, real HTTP, the simulator as Click, the conformance suite as judge."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select
from starlette.applications import Starlette

from tillgate import conform
from tillgate.conform import Payable
from tillgate.http import inbound
from tillgate.hub import Intent
from tillgate.providers.click.conformance import CONFORMANCE, target
from tillgate.providers.click.simulator import FAULTS, ClickSimulator
from tillgate.runtime import Runtime
from tillgate.settings import Settings
from tillgate.store import tables

KEY = "TEST-click-secret"
CONFIG = {"service_id": 12345, "merchant_id": 54321, "secret_key": KEY}
PRICE = 1_500_050


@pytest.fixture
async def hub(database_url: str, open_app: Callable[..., Any]) -> AsyncIterator[Any]:
    async with Runtime(Settings(database_url=database_url, sandbox=True)) as runtime:
        made = await runtime.create_merchant("choyxona")
        account = await runtime.directory.create_account(
            made.merchant_id, "click", "click", CONFIG, runtime.kit.clock()
        )
        merchant = await runtime.directory.merchant(made.merchant_id)
        numbers = itertools.count(1)

        async def order() -> Payable:
            reference = f"ORD-{next(numbers)}"
            await runtime.hub.open(merchant, Intent(reference, PRICE, "UZS", "click"))
            return Payable(reference, PRICE)

        async with open_app(Starlette(routes=inbound.routes(runtime))) as base:
            yield SimpleNamespace(
                runtime=runtime, merchant=merchant, order=order, url=f"{base}/in/{account}", account=account
            )


def click(hub: Any) -> ClickSimulator:
    return ClickSimulator(hub.url, service_id=12345, secret_key=KEY, late_s=0.05)


async def balances(hub: Any) -> dict[str, int]:
    return {name: minor for name, _, minor in await hub.runtime.kit.reads.balances(hub.merchant.id)}


async def test_every_rule_of_the_conformance_suite(hub: Any) -> None:
    described = target(hub.url, {"service-id": 12345, "key": KEY}, hub.order)
    report = await conform.run(CONFORMANCE.checks, described)
    assert [(o.check.id, o.why) for o in report.outcomes if o.verdict != "pass"] == []


@pytest.mark.parametrize("fault", FAULTS)
async def test_payment_and_books_agree_however_click_behaves(hub: Any, fault: str) -> None:
    reference = (await hub.order()).reference
    async with click(hub) as payer:
        receipt = await payer.pay(reference, "15000.50", fault=fault)
    assert receipt.surprises == ()
    books = await balances(hub)
    assert books.get("merchant", 0) == (PRICE if receipt.status == "paid" else 0)
    assert books.get("merchant", 0) == -books.get(f"provider:{hub.account}", 0)


async def test_a_payer_goes_from_the_link_to_paid(hub: Any) -> None:
    opened = await hub.runtime.hub.open(hub.merchant, Intent("ORD-link", PRICE, "UZS", "click"))
    _, account = await hub.runtime.directory.account(hub.account)
    show = hub.runtime.kit.invitation(opened.payment, account)
    async with click(hub) as payer:
        receipt = await payer.follow(show.url)
    assert receipt.status == "paid"
    payment = await hub.runtime.kit.reads.payment(opened.payment.id)
    assert (payment.status, payment.paid_minor) == ("paid", PRICE)


async def test_twenty_payers_at_once_pay_one_order_once(hub: Any) -> None:
    reference = (await hub.order()).reference
    async with click(hub) as payer:
        receipts = await asyncio.gather(*(payer.pay(reference, "15000.50") for _ in range(20)))
    assert sorted(receipt.status for receipt in receipts) == ["paid"] + ["refused"] * 19
    books = await balances(hub)
    assert books["merchant"] == PRICE


async def test_the_paydoc_of_a_paid_order_is_in_its_attempt(hub: Any) -> None:
    reference = (await hub.order()).reference
    async with click(hub) as payer:
        receipt = await payer.pay(reference, "15000.50")
    attempts = select(tables.attempts.c.external_id, tables.attempts.c.details)
    kept = dict(await hub.runtime.database.read(attempts, {}))
    assert json.loads(kept[str(receipt.payment.trans_id)]) == {"click_paydoc_id": receipt.payment.paydoc_id}
