"""Click in the hub: both databases, real HTTP, the simulator as Click, the conformance suite as judge."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from sqlalchemy import select
from starlette.applications import Starlette

from tillgate import conform
from tillgate.conform import Payable
from tillgate.http import inbound
from tillgate.http.app import create_app
from tillgate.hub import Intent
from tillgate.providers.click.conformance import CONFORMANCE, target
from tillgate.providers.click.simulator import FAULTS, ClickSimulator
from tillgate.providers.payme.simulator import PaymeSimulator
from tillgate.runtime import Runtime
from tillgate.settings import Settings
from tillgate.store import audit, tables

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

        async with open_app(Starlette(routes=inbound.routes(inbound.doors(runtime)))) as base:
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
    home = "held" if fault == "cancel_after_paid" else "merchant"
    assert books.get(home, 0) == (PRICE if receipt.status == "paid" else 0)
    assert books.get(home, 0) == -books.get(f"provider:{hub.account}", 0)


async def kinds(hub: Any) -> list[str]:
    return [row[3] for row in await hub.runtime.kit.reads.events(hub.merchant.id, 0, 100)]


async def verdicts(hub: Any) -> list[str]:
    rows = await hub.runtime.database.read(select(tables.inbound.c.verdict).order_by(tables.inbound.c.id))
    return [row[0] for row in rows]


async def test_what_contradicts_the_books_waits_for_an_operator(hub: Any) -> None:
    """Scenario 8 of the official matrix, and a debit for what was given up: -9, told, held, and resolved."""
    opened = {n: await hub.runtime.hub.open(hub.merchant, Intent(n, PRICE, "UZS", "click")) for n in "AB"}
    async with click(hub) as payer:
        taken_back = await payer.pay("A", "15000.50", fault="cancel_after_paid")
        again = await payer.wire.shop(payer.fields(taken_back.payment, 1, error="-5017"))
        late = await payer.pay("B", "15000.50", fault="paid_after_cancel")
        assert (again.code, late.codes[-1]) == (-9, -9)
        assert (await payer.pay("B", "15000.50")).status == "refused"  # not before somebody looked

        read, resolve = hub.runtime.kit.reads.payment, hub.runtime.hub.resolve
        held = [await read(one.payment.id) for one in opened.values()]
        assert [(one.hold, one.status, one.paid_minor) for one in held] == [
            ("contradicted", "review", PRICE), ("contradicted", "review", 0),
        ]  # fmt: skip
        assert (await kinds(hub)).count("payment.review") == 2

        paid = await resolve(hub.merchant, held[0].id, "accept", "Click confirms it by telephone")
        assert paid.status == "paid"
        repeated = await payer.wire.shop(payer.fields(taken_back.payment, 1, error="-5017"))
        assert (repeated.code, (await read(held[0].id)).status) == (-9, "paid")  # it was looked at
        free = await resolve(hub.merchant, held[1].id, "failed", "Click gave the money back")
        assert free.status == "pending"
        assert (await payer.pay("B", "15000.50")).status == "paid"
    assert (await balances(hub))["merchant"] == 2 * PRICE
    report = await audit.verify(hub.runtime.database, None)
    assert report.clean, report.text()


async def test_a_repeat_is_kept_as_one(hub: Any) -> None:
    reference = (await hub.order()).reference
    async with click(hub) as payer:
        await payer.pay(reference, "15000.50", fault="repeat")
    assert await verdicts(hub) == ["answered", "repeated", "answered", "repeated"]


async def test_a_payer_goes_from_the_link_to_paid(hub: Any) -> None:
    opened = await hub.runtime.hub.open(hub.merchant, Intent("ORD-link", PRICE, "UZS", "click"))
    _, account = await hub.runtime.directory.account(hub.account)
    show = hub.runtime.kit.invitation(opened.payment, account)
    async with click(hub) as payer:
        receipt = await payer.follow(show.url)
    assert receipt.status == "paid"
    payment = await hub.runtime.kit.reads.payment(opened.payment.id)
    assert (payment.status, payment.paid_minor) == ("paid", PRICE)


async def test_the_documented_paths_serve_the_default_accounts(
    hub: Any, open_app: Callable[..., Any]
) -> None:
    """Payme's and Click's, in the whole application; where there is no default account they are not found."""
    runtime, now = hub.runtime, hub.runtime.kit.clock()
    app = create_app(Settings(database_url=runtime.settings.database_url, sandbox=True), worker=False)
    async with app.router.lifespan_context(app), open_app(app) as base, aiohttp.ClientSession() as http:

        async def status(path: str) -> int:
            async with http.post(base + path, data=b"x") as reply:
                return reply.status

        paths = ["/payments/payme/webhook", "/payments/click/webhook", "/payments/click/prepare"]
        paths += ["/payments/click/complete", "/payments/click/complete/"]
        assert [await status(path) for path in paths] == [404] * len(paths)

        made = await runtime.create_merchant("bazaar")
        create = runtime.directory.create_account
        payme_config = {
            "merchant_id": "587f72c72cac0d162c722ae2",
            "key": "a-key-as-payme-gives-them-to-a-desk",
        }
        await create(made.merchant_id, "payme", "payme", payme_config, now, is_default=True)
        await create(made.merchant_id, "click", "click", CONFIG, now, is_default=True)
        assert [await status(path) for path in paths] == [200] * len(paths)

        merchant = await runtime.directory.merchant(made.merchant_id)
        await runtime.hub.open(merchant, Intent("P-1", PRICE, "UZS", "payme"))
        async with PaymeSimulator.of(base + paths[0], payme_config["key"]) as payme:
            assert (await payme.pay({"order_id": "P-1"}, PRICE)).state == 2
        for number, (prepare, complete) in enumerate([(paths[1], None), (paths[2], base + paths[3])]):
            await runtime.hub.open(merchant, Intent(f"C-{number}", PRICE, "UZS", "click"))
            async with ClickSimulator(
                base + prepare, service_id=12345, secret_key=KEY, complete_url=complete
            ) as payer:
                assert (await payer.pay(f"C-{number}", "15000.50")).status == "paid"


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
