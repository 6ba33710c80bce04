"""The simulator plays Click over real HTTP against the connector, and tells good merchants from bad."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs, urlencode

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from tillgate.domain.money import Money
from tillgate.providers.click.simulator import FAULTS, ClickSimulator, build_app
from tillgate.spi import Order

# how each fault must end at a merchant who follows Click's manual
ENDS = {
    "none": "paid",
    "cancel": "cancelled",
    "repeat": "paid",
    "concurrent": "paid",
    "lost_prepare": "cancelled",
    "lost_complete": "paid",
    "complete_not_sent": "paid",
    "late": "paid",
    "reorder": "paid",
    "wrong_sign": "cancelled",
    "wrong_amount": "cancelled",
    "unknown_order": "refused",
    "foreign_prepare_id": "paid",
    "cancel_after_paid": "paid",
    "paid_after_cancel": "cancelled",
    "second_payer": "paid",
    "garbage": "paid",
}


def simulator(url: str, **over: Any) -> ClickSimulator:
    options = {"service_id": 12345, "secret_key": "TEST-click-secret", "merchant_user_id": 777}
    return ClickSimulator(url, **(options | {"late_s": 0.05} | over))


@pytest.fixture
async def served(till: Any) -> AsyncIterator[Any]:
    till.order("A", 1_500_050)
    async with till.serve() as url:
        till.url = url
        yield till


@pytest.mark.parametrize("fault", FAULTS)
async def test_one_order_is_paid_at_most_once_however_click_behaves(served: Any, fault: str) -> None:
    async with simulator(served.url) as click:
        receipt = await click.pay("A", "15000.50", fault=fault)

    assert receipt.surprises == ()
    assert receipt.status == ENDS[fault]
    assert Counter(served.paid) == ({"A": 1} if receipt.status == "paid" else {})
    assert served.live() == []


def test_every_fault_has_an_expected_end() -> None:
    assert set(ENDS) == set(FAULTS)


async def test_a_payer_follows_the_pay_link(served: Any) -> None:
    order = Order("op", "pay-1", "A", "click", Money(1_500_050, "UZS"), 0, 0)
    link = served.connector.invite(order).url
    async with simulator(served.url) as click:
        receipt = await click.follow(link)
    assert (receipt.status, served.paid) == ("paid", ["A"])
    assert receipt.codes == [0, 0]


async def test_when_complete_comes_after_the_reservation_the_payer_gets_the_money_back(served: Any) -> None:
    async def the_till_sleeps() -> None:
        while not served.live():
            await asyncio.sleep(0.01)
        served.now += 31 * 60_000

    async with simulator(served.url, late_s=0.3) as click, asyncio.TaskGroup() as group:
        group.create_task(the_till_sleeps())
        receipt = await click.pay("A", "15000.50", fault="late")
    assert (receipt.status, receipt.surprises, served.paid) == ("cancelled", (), [])


async def test_a_careless_merchant_is_found_out(open_app: Callable[..., Any]) -> None:
    """Says yes to everything, as text: the simulator must not be satisfied."""

    async def yes(request: Request) -> JSONResponse:
        fields = parse_qs((await request.body()).decode("latin-1"))
        answer = {"error": 0, "error_note": "Success", "merchant_prepare_id": fields.get("x", ["7"])[0]}
        return JSONResponse(answer)

    app = Starlette(routes=[Route("/", yes, methods=["POST"])])
    async with open_app(app) as base, simulator(base) as click:
        for fault in ("none", "cancel", "wrong_sign", "wrong_amount", "reorder", "garbage", "second_payer"):
            receipt = await click.pay("A", "1.00", fault=fault)
            assert receipt.surprises, fault


@pytest.mark.parametrize(("padding", "surprise"), [(0, None), (70_000, "longer than 65536 bytes")])
async def test_an_answer_is_read_to_its_end_however_it_is_cut(
    till: Any, open_app: Callable[..., Any], padding: int, surprise: str | None
) -> None:
    till.order("A", 1_500_050)

    async def shop(request: Request) -> StreamingResponse:
        answer = till.receive(await request.body()).body + b" " * padding

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(answer), 1 + len(answer) // 3):
                yield answer[start : start + 1 + len(answer) // 3]
                await asyncio.sleep(0.02)

        return StreamingResponse(pieces(), media_type="application/json")

    app = Starlette(routes=[Route("/", shop, methods=["POST"])])
    async with open_app(app) as base, simulator(base + "/") as click:
        receipt = await click.pay("A", "15000.50")
    if surprise is None:
        assert (receipt.status, receipt.surprises) == ("paid", ())
    else:
        assert surprise in receipt.surprises[0]


async def test_a_dead_endpoint_is_an_answer_too() -> None:
    async with simulator("http://127.0.0.1:9/") as click:
        receipt = await click.pay("A", "1.00")
    assert receipt.status == "refused"
    assert "ClientConnectorError" in receipt.surprises[0]


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("https://my.click.uz/services/pay?service_id=12345&merchant_id=1&amount=1.00", "transaction_param"),
        ("?service_id=9&merchant_id=1&amount=1.00&transaction_param=A", "another service"),
        ("?service_id=12345&merchant_id=1&amount=1e5&transaction_param=A", "not an amount"),
        ("?service_id=12345&merchant_id=1&amount=1&amount=2&transaction_param=A", "twice"),
    ],
)
async def test_click_shows_no_page_for_a_broken_link(link: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        simulator("http://127.0.0.1:9/").read_link(link)


async def test_a_person_can_play_the_payer(served: Any, open_app: Callable[..., Any]) -> None:
    query = urlencode(
        {
            "service_id": 12345,
            "merchant_id": 1,
            "amount": "15000.50",
            "transaction_param": "A",
            "return_url": "https://shop.uz/back",
        }
    )
    async with (
        simulator(served.url) as click,
        open_app(build_app(click)) as base,
        aiohttp.ClientSession() as person,
    ):
        async with person.get(f"{base}/services/pay?{query}") as page:
            text = await page.text()
            assert (page.status, "15000.50 som" in text, "<script" in text) == (200, True, False)
        form = {"link": f"?{query}", "fault": "none"}
        async with person.post(f"{base}/pay", data=form) as page:
            text = await page.text()
            assert "paid" in text
            assert "https://shop.uz/back" in text
        async with person.get(f"{base}/") as page:
            assert "15000.50" in await page.text()
        async with person.get(f"{base}/services/pay?amount=<script>") as page:
            assert (page.status, "<script>" in await page.text()) == (400, False)
    assert served.paid == ["A"]


async def test_no_page_and_no_step_shows_the_key(served: Any) -> None:
    async with simulator(served.url) as click:
        receipt = await click.pay("A", "15000.50")
        shown = repr(click.wire) + json.dumps([dict(step.sent) for step in receipt.steps])
    assert "TEST-click-secret" not in shown
