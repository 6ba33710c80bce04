"""Payme through the hub: opened as a merchant does, paid and given back as Payme does, on both databases."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from sqlalchemy import select
from starlette.applications import Starlette

from tillgate import conform
from tillgate.conform import Payable
from tillgate.domain.errors import InvalidRequest
from tillgate.http.inbound import doors, routes
from tillgate.hub import Intent
from tillgate.hub.standing import StandingIntent
from tillgate.providers.payme.conformance import CHECKS, CONFORMANCE, target
from tillgate.providers.payme.simulator import FAULTS, PaymeSimulator
from tillgate.providers.payme.tests.payme_kit import KEY, MERCHANT, PRICE_TIYIN, serve
from tillgate.runtime import Runtime
from tillgate.settings import Settings
from tillgate.store import tables


@dataclass
class Shop:
    """A merchant of a hub with a Payme account."""

    runtime: Runtime
    merchant: Any
    account: Any
    url: str
    opened: int = 0

    async def order(self, order_id: str | None = None) -> Payable:
        self.opened += 1
        reference = order_id or f"ORD-{self.opened}"
        await self.runtime.hub.open(self.merchant, Intent(reference, PRICE_TIYIN, "UZS", "payme"))
        return Payable(reference, PRICE_TIYIN, {"order_id": reference})

    async def balances(self) -> dict[str, int]:
        rows = await self.runtime.kit.reads.balances(self.merchant.id)
        return {name: minor for name, _, minor in rows}


@contextlib.asynccontextmanager
async def shop_on(database_url: str, **config: Any) -> AsyncIterator[Shop]:
    async with Runtime(Settings(database_url=database_url, sandbox=True)) as runtime:
        made = await runtime.create_merchant("bazaar")
        now = runtime.kit.clock()
        settings = {"merchant_id": MERCHANT, "key": KEY} | config
        account_id = await runtime.directory.create_account(made.merchant_id, "payme", "till", settings, now)
        merchant, account = await runtime.directory.account(account_id)
        async with serve(Starlette(routes=routes(doors(runtime)))) as base:
            yield Shop(runtime, merchant, account, f"{base}/in/{account_id}")


async def test_every_rule_holds_for_orders(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        report = await conform.run(
            CHECKS, target(shop.url, {"key": KEY}, orders=shop.order), title=CONFORMANCE.title
        )
    assert report.passed, conform.as_text(report)
    assert report.count("skip") == 0


async def test_every_rule_holds_for_standing_orders(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        for name in ("anna", "bob"):
            intent = StandingIntent(name, "UZS", "payme")
            await shop.runtime.hub.standing.open(shop.merchant, intent, None, lambda *_: b"")
        options = {"key": KEY, "kind": "accumulative", "order": ["anna:15000.50", "bob:700"]}
        report = await conform.run(CHECKS, CONFORMANCE.target(shop.url, options))
    assert report.passed, conform.as_text(report)


@pytest.mark.parametrize("fault", FAULTS)
async def test_money_moves_once_however_it_is_delivered(sqlite_url: str, fault: str) -> None:
    async with shop_on(sqlite_url) as shop, PaymeSimulator.of(shop.url, KEY) as payme:
        order = await shop.order()
        receipt = await payme.pay(order.account, order.amount_minor, fault)
        await payme.statement(0, 10**13)

        books = await shop.balances()
        expected = PRICE_TIYIN if receipt.state == 2 else 0
        assert books.get("merchant", 0) == expected == -books.get(f"provider:{shop.account.id}", 0)
        if receipt.state == 2:
            await payme.refund(receipt)
            assert (await shop.balances())["merchant"] == 0


async def test_a_payer_gets_a_link_that_pays_and_a_fiscal_detail(sqlite_url: str) -> None:
    detail = {"receipt_type": 0, "items": [{"title": "Tea", "price": PRICE_TIYIN, "count": 1}]}
    async with shop_on(sqlite_url) as shop, PaymeSimulator.of(shop.url, KEY, merchant_id=MERCHANT) as payme:
        metadata = json.dumps({"payme": {"detail": detail}})
        intent = Intent("ORD-1", PRICE_TIYIN, "UZS", "payme", metadata=metadata)
        opened = await shop.runtime.hub.open(shop.merchant, intent)
        shown = shop.runtime.kit.invitation(opened.payment, shop.account)
        assert shown is not None
        assert shown.account == {"order_id": "ORD-1"}
        assert shown.url == shown.qr_string

        assert (await payme.check({"order_id": "ORD-1"}, PRICE_TIYIN))["detail"] == detail
        receipt = await payme.pay_link(shown.url or "")
        await payme.fiscal(receipt)
        await payme.fiscal(receipt)
        await payme.look(receipt)
        assert (await shop.balances())["merchant"] == PRICE_TIYIN


async def test_several_account_fields_are_one_order(sqlite_url: str) -> None:
    async with (
        shop_on(sqlite_url, account_fields=["phone", "contract"]) as shop,
        PaymeSimulator.of(shop.url, KEY) as payme,
    ):
        await shop.order("phone=%2B998901234567;contract=5%3D6")  # as docs/payme.md writes it
        receipt = await payme.pay({"phone": "+998901234567", "contract": "5=6"}, PRICE_TIYIN)
        assert receipt.state == 2
        rows = await payme.statement(0, 10**13)
        assert rows[0]["account"] == {"phone": "+998901234567", "contract": "5=6"}


async def test_an_order_that_a_link_of_paymes_cannot_name_is_not_opened(sqlite_url: str) -> None:
    async with shop_on(sqlite_url) as shop:
        with pytest.raises(InvalidRequest, match="Payme cannot be given this order") as refused:
            await shop.order("ORD;a=1")
        assert refused.value.param == "order_id"
        intent = StandingIntent("anna;a=1", "UZS", "payme")
        with pytest.raises(InvalidRequest, match="Payme cannot be given this order"):
            await shop.runtime.hub.standing.open(shop.merchant, intent, None, lambda *_: b"")
        assert await shop.runtime.kit.reads.events(shop.merchant.id, 0, 10) == []


async def test_a_late_perform_is_refused_and_told_once(sqlite_url: str) -> None:
    """Payme has not taken the money yet: the order stays payable, but nothing vanishes."""
    async with shop_on(sqlite_url) as shop, PaymeSimulator.of(shop.url, KEY) as payme:
        order = await shop.order()
        receipt = await payme.pay(order.account, order.amount_minor, "perform_after_cancel")
        await payme.refused("PerformTransaction", {"id": receipt.id}, {-31008})
        events = [row[3] for row in await shop.runtime.kit.reads.events(shop.merchant.id, 0, 100)]
        assert events.count("payment.discrepancy") == 1
        assert (await payme.pay(order.account, order.amount_minor)).state == 2


async def test_what_is_no_json_is_not_kept_with_a_transaction(database_url: str) -> None:
    """It would stand in the transaction, its events and what the merchant is sent, and be read by nobody."""
    async with shop_on(database_url) as shop, PaymeSimulator.of(shop.url, KEY) as payme:
        order = await shop.order()
        receipt = await payme.pay(order.account, order.amount_minor)
        before = await shop.runtime.kit.reads.events(shop.merchant.id, 0, 100)
        for value in ("1e400", '"\\ud800"', "[" * 900 + "]" * 900):
            body = (
                f'{{"method":"SetFiscalData","params":{{"id":"{receipt.id}","type":"PERFORM",'
                f'"fiscal_data":{{"receipt_id":{value}}}}},"id":1}}'
            )
            said = await payme.desk.garbage(body.encode())
            assert said["error"]["code"] == -32700
            await payme.look(receipt)
        assert await shop.runtime.kit.reads.events(shop.merchant.id, 0, 100) == before
        await payme.fiscal(receipt)
        found = await shop.runtime.kit.reads.external(shop.account.id, receipt.id)
        assert found is not None
        assert "fiscal.perform" in msgspec.json.decode(found.details or "")


async def test_a_refused_password_is_not_kept(database_url: str) -> None:
    async with shop_on(database_url) as shop, PaymeSimulator.of(shop.url, KEY) as payme:
        for key in (None, "not the key"):
            params = {"password": "the-next-key-of-this-desk"}
            await payme.refused("ChangePassword", params, {-32504}, key=key)
        rows = await shop.runtime.database.read(select(tables.inbound.c.body))
        assert [msgspec.json.decode(row[0])["params"] for row in rows] == [{"password": ""}] * 2
