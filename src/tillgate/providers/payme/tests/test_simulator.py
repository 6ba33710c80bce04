"""Payme, played over HTTP against the drop-in handler, with every fault of the menu."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI, Request

from tillgate.providers.payme.links import checkout_form, checkout_link
from tillgate.providers.payme.simulator import (
    FAULTS,
    Inconsistent,
    PaymeSimulator,
    Receipt,
    Refused,
    Silent,
    create_app,
    read_link,
)
from tillgate.providers.payme.tests.payme_kit import (
    KEY,
    MERCHANT,
    PRICE_TIYIN,
    Caller,
    Host,
    calling,
    host_on,
    now_ms,
    serve,
)

ACCOUNT = {"order_id": "1"}
# What the order must look like after each fault: (state at Payme, times paid, times cancelled)
ENDS = {
    "none": (2, 1, 0),
    "repeat": (2, 1, 0),
    "crowd": (2, 1, 0),
    "lost_answer": (2, 1, 0),
    "late": (2, 1, 0),
    "reorder": (2, 1, 0),
    "expired": (-1, 0, 1),
    "wrong_key": (2, 1, 0),
    "wrong_amount": (2, 1, 0),
    "garbage": (2, 1, 0),
    "cancel": (-1, 0, 1),
    "perform_after_cancel": (-1, 0, 1),
}


@pytest.fixture
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    async with host_on("sqlite-sync", request) as made:
        yield made


@pytest.fixture
async def caller(host: Host) -> AsyncIterator[Caller]:
    async with calling(host) as made:
        yield made


@pytest.fixture
async def payme(caller: Caller) -> AsyncIterator[PaymeSimulator]:
    async with PaymeSimulator.of(caller.url, KEY, merchant_id=MERCHANT) as made:
        yield made


def test_the_menu_is_the_one_this_test_knows() -> None:
    assert set(FAULTS) == set(ENDS)


@pytest.mark.parametrize("fault", ENDS)
async def test_one_payment_moves_money_once_however_it_is_delivered(
    host: Host, payme: PaymeSimulator, fault: str
) -> None:
    receipt = await payme.pay(ACCOUNT, PRICE_TIYIN, fault)

    order = await host.order(1)
    assert (receipt.state, order.paid, order.cancelled) == ENDS[fault]
    assert order.reserved == 1
    assert len(await host.transactions()) == 1
    rows = await payme.statement(receipt.time, receipt.time)
    assert [(row["id"], row["state"]) for row in rows] == [(receipt.id, receipt.state)]


async def test_from_a_link_to_a_refund_and_its_fiscal_receipts(host: Host, payme: PaymeSimulator) -> None:
    link = checkout_link(MERCHANT, ACCOUNT, PRICE_TIYIN, return_url="https://shop.uz/?a=b")
    receipt = await payme.pay_link(link)
    await payme.fiscal(receipt)
    await payme.refund(receipt)
    await payme.fiscal(receipt, "CANCEL")
    await payme.look(receipt)

    order, (row,) = await host.order(1), await host.transactions()
    assert (order.status, order.paid, order.cancelled) == ("cancelled", 1, 1)
    assert (row.state, row.reason) == (-2, 5)
    assert row.extra_data is not None
    assert (
        row.extra_data["fiscal.perform"]["receipt_id"] == row.extra_data["fiscal.cancel"]["receipt_id"] == 121
    )


async def test_both_scenarios_of_the_sandbox(host: Host, payme: PaymeSimulator) -> None:
    await payme.scenario_one({"order_id": "1"}, PRICE_TIYIN)
    await payme.scenario_two({"order_id": "2"}, PRICE_TIYIN)
    assert ((await host.order(1)).paid, (await host.order(2)).paid) == (0, 1)


async def test_a_payer_sees_why_he_cannot_pay(payme: PaymeSimulator) -> None:
    for account, amount, code in [
        ({"order_id": "404"}, PRICE_TIYIN, -31050),
        ({"order_id": "1"}, PRICE_TIYIN - 1, -31001),
    ]:
        with pytest.raises(Refused) as refused:
            await payme.pay(account, amount)
        assert refused.value.code == code
    await payme.pay(ACCOUNT, PRICE_TIYIN)
    with pytest.raises(Refused) as again:
        await payme.pay(ACCOUNT, PRICE_TIYIN)
    assert again.value.code == -31051


async def test_a_merchant_that_forgets_is_found_out() -> None:
    app, times = FastAPI(), iter(range(1_700_000_000_000, 1_800_000_000_000))

    @app.post("/payme")
    async def payme_endpoint(request: Request) -> Any:
        message = await request.json()
        method = message["method"]
        result = {
            "allow": True,
            "state": {"CreateTransaction": 1, "PerformTransaction": 2, "CheckTransaction": 2}.get(method),
            "transaction": "1",
            "create_time": 1,
            "perform_time": next(times) if method == "PerformTransaction" else 1,  # another each time
            "cancel_time": 0,
            "reason": None,
        }
        return {"id": message["id"], "result": result}

    async with serve(app) as base, PaymeSimulator.of(f"{base}/payme", KEY) as payme:
        with pytest.raises(Inconsistent, match="PerformTransaction was first answered"):
            await payme.pay(ACCOUNT, PRICE_TIYIN, "repeat")
        with pytest.raises(Inconsistent, match="answered in"):
            await payme.pay(ACCOUNT, PRICE_TIYIN, "crowd")
        with pytest.raises(Inconsistent, match="perform_time"):
            await payme.pay(ACCOUNT, PRICE_TIYIN)
        with pytest.raises(Inconsistent, match="should have been refused"):
            await payme.pay(ACCOUNT, PRICE_TIYIN, "wrong_key")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"id":1}',
        b'{"id":1,"result":null}',
        b'{"id":1,"result":[]}',
        b'{"id":1,"result":{},"error":{"code":1}}',
        b'{"id":99,"result":{}}',
    ],
)
async def test_an_answer_that_is_none_is_found_out(body: bytes) -> None:
    app = FastAPI()

    @app.post("/payme")
    async def payme_endpoint() -> Any:
        from fastapi import Response

        return Response(body, media_type="application/json")

    async with serve(app) as base, PaymeSimulator.of(f"{base}/payme", KEY) as payme:
        with pytest.raises(Inconsistent):
            await payme.check(ACCOUNT, 1)


async def test_nobody_there_is_silence_after_four_tries() -> None:
    async with PaymeSimulator.of("http://127.0.0.1:9/payme", KEY) as payme:
        with pytest.raises(Silent):
            await payme.pay(ACCOUNT, 1)
        assert [step.trouble for step in payme.desk.steps] == ["ClientConnectorError"] * 4


def test_no_key_is_in_a_repr_or_a_step() -> None:
    payme = PaymeSimulator.of("http://127.0.0.1:9", KEY)
    assert KEY not in repr(payme)


@pytest.mark.parametrize(
    "text",
    [
        "m=1;ac.o=1;a=1.5",
        "m=1;ac.o=1;a=-1",
        "m=1;a=1",
        "ac.o=1;a=1",
        "m=1;ac.o=1;a=1;a=2",
        "m=1;ac.o=1;ac.o=2;a=1",
        "nonsense",
    ],
)
def test_a_link_that_says_nothing_clear_is_not_paid(text: str) -> None:
    with pytest.raises(ValueError, match="link"):
        read_link("https://checkout.paycom.uz/" + base64.b64encode(text.encode()).decode())


# --- the page -----------------------------------------------------------------------------------------------


async def test_a_person_pays_on_the_page(host: Host, payme: PaymeSimulator) -> None:
    link = checkout_link(MERCHANT, ACCOUNT, PRICE_TIYIN, return_url="https://shop.uz/<b>?t=:transaction")
    path = link.removeprefix("https://checkout.paycom.uz")
    async with serve(create_app(payme)) as base, aiohttp.ClientSession() as browser:
        async with browser.get(base + path) as shown:
            page = await shown.text()
            assert shown.status == 200
            assert "default-src 'none'" in shown.headers["Content-Security-Policy"]
        assert "15 000.50 som" in page
        assert "Powered by Payme" in page
        async with browser.post(f"{base}/pay", data={"link": path[1:], "fault": "crowd"}) as done:
            page = await done.text()
        assert "<h1>Paid</h1>" in page
        assert "https://shop.uz/&lt;b&gt;?t=" in page
        async with browser.post(f"{base}/pay", data={"link": path[1:]}) as again:
            assert "The order is already paid." in await again.text()
        async with browser.get(f"{base}/") as index:
            assert "state 2" in await index.text()
    assert (await host.order(1)).paid == 1


async def test_the_merchants_form_leads_to_the_same_page(payme: PaymeSimulator) -> None:
    fields = checkout_form(MERCHANT, ACCOUNT, PRICE_TIYIN, callback="https://shop.uz/")
    async with (
        serve(create_app(payme)) as base,
        aiohttp.ClientSession() as browser,
        browser.post(f"{base}/", data=fields, allow_redirects=True) as shown,
    ):
        page = await shown.text()
    assert "15 000.50 som" in page


async def test_nonsense_on_the_page_is_told_politely(payme: PaymeSimulator) -> None:
    async with serve(create_app(payme)) as base, aiohttp.ClientSession() as browser:
        async with browser.get(f"{base}/%00%ff<script>") as shown:
            assert shown.status == 400
            assert "<script>" not in await shown.text()
        for data in ({}, {"link": "x"}, {"link": base64.b64encode(b"m=2;ac.o=1;a=1").decode()}):
            async with browser.post(f"{base}/pay", data=data) as shown:
                assert "Not paid" in await shown.text()
        for body in (b"", b"[]", b"{", b'{"method":"_class__","params":{},"id":1}', b"x" * 100_000):
            async with browser.post(f"{base}/api", data=body) as shown:
                assert "error" in json.loads(await shown.text())


async def test_an_open_amount_is_the_payers(request: pytest.FixtureRequest) -> None:
    async with (
        host_on("sqlite-sync", request, one_time=False) as host,
        calling(host) as caller,
        PaymeSimulator.of(caller.url, KEY) as payme,
    ):
        link = checkout_link(MERCHANT, ACCOUNT, 0)
        for amount in (1, 700):
            receipt: Receipt = await payme.pay_link(link, amount=amount)
            assert receipt.state == 2
        await payme.scenario_one({"order_id": "2"}, 500, one_time=False)
        await payme.scenario_two({"order_id": "2"}, 500, one_time=False)
        assert (await host.order(1)).balance == 701
        assert len(await payme.statement(0, now_ms())) == 4
