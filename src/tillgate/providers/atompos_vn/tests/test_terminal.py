"""With the virtual terminal, over real sockets: push, pay, walk away, lose answers, resend."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tillgate.domain.dialogue import Tell
from tillgate.domain.errors import Declined, Unsure
from tillgate.domain.money import Money
from tillgate.domain.payment import Paid
from tillgate.providers.atompos_vn import AtomPos
from tillgate.spi import Hears, Looks, Refunds, Starts

from .conftest import World, config, order

if TYPE_CHECKING:
    from playwright.async_api import Page


def test_it_can_start_and_hear_and_does_not_promise_more() -> None:
    connector = AtomPos(config())
    assert isinstance(connector, Starts)
    assert isinstance(connector, Hears)
    assert not isinstance(connector, Looks)
    assert not isinstance(connector, Refunds)


async def test_a_sale_is_pushed_paid_and_told(world: World) -> None:
    asked = world.order(metadata={"tip": 500, "extraData": {"cashier": "Lan"}})
    begun = await world.connector.start(asked, world.send)
    assert (begun.external_id, begun.show.type) == (asked.operation_id, "terminal")
    [sale] = world.terminal.sales.values()
    assert (sale["amount"], sale["tip"], sale["orderId"]) == (10_000, 500, "1234:5263763487")
    assert sale["extraData"] == [{"cashier": "Lan"}]
    await world.sim("approve", requestID=asked.operation_id, paymentType="CreditCard")
    assert world.terminal.sent[-1]["text"] == '{"code":"00","message":"success"}'
    told = world.listener.heard[-1].message
    assert isinstance(told, Tell)
    assert told.operation_id == asked.operation_id
    assert told.facts == (
        Paid(10_000, "VND", tip_minor=500, paid_with="card", external_id=asked.operation_id),
    )


async def test_the_merchants_own_request_id_travels_to_the_terminal_and_back(world: World) -> None:
    begun = await world.connector.start(world.order(metadata={"requestId": "00017-058-0009"}), world.send)
    assert begun.external_id == "00017-058-0009"
    await world.sim("approve", requestID="00017-058-0009")
    told = world.listener.heard[-1].message
    assert isinstance(told, Tell)
    assert told.external_id == "00017-058-0009"


async def test_a_person_pays_at_the_terminals_page(world: World, browser_page: Page) -> None:
    asked = world.order()
    await world.connector.start(asked, world.send)
    await browser_page.goto(world.base_url)
    assert "10,000" in await browser_page.inner_text("article")
    await browser_page.click("button[value=QR]")
    await browser_page.wait_for_selector("text=Ready")
    await world.terminal.quiet()
    assert isinstance(world.listener.heard[-1].message, Tell)


async def test_walking_away_is_silence(world: World, browser_page: Page) -> None:
    await world.connector.start(world.order(), world.send)
    await browser_page.goto(world.base_url)
    await browser_page.click("button[value=walk]")
    await browser_page.wait_for_selector("text=Ready")
    await world.terminal.quiet()
    assert world.terminal.sent == []
    assert world.listener.heard == []


@pytest.mark.parametrize(
    ("behaviour", "error", "shown"),
    [
        ("silent", Unsure, 1),
        ("lost", Unsure, 1),
        ("error", Unsure, 0),
        ("busy", Declined, 0),
        ("redirect", Declined, 0),
    ],
)
async def test_what_may_have_reached_the_payer_is_unsure(
    world: World, behaviour: str, error: type[Exception], shown: int
) -> None:
    async with world.http.put(f"{world.base_url}/sim/behaviour", json=behaviour) as reply:
        assert reply.status == 200
    with pytest.raises(error) as raised:
        await world.connector.start(world.order(), world.send)
    assert len(world.terminal.sales) == shown
    assert "123456" not in str(raised.value)
    assert raised.value.__cause__ is None


async def test_a_payment_after_a_lost_answer_is_told_all_the_same(world: World) -> None:
    world.terminal.behaviour = "silent"
    asked = world.order()
    with pytest.raises(Unsure):
        await world.connector.start(asked, world.send)
    await world.sim("approve", requestID=asked.operation_id)
    told = world.listener.heard[-1].message
    assert isinstance(told, Tell)
    assert told.operation_id == asked.operation_id


async def test_a_terminal_that_is_off_was_certainly_not_told(world: World) -> None:
    off = AtomPos(config(pos_url="http://127.0.0.1:1"))
    with pytest.raises(Declined) as raised:
        await off.start(world.order(), world.send)
    assert "123456" not in f"{raised.value!r} {raised.value.__cause__!r}"


async def test_a_wrong_pairing_code_is_declined(world: World) -> None:
    wrong = AtomPos(config(pos_url=world.base_url, verify_code="654321"))
    with pytest.raises(Declined, match="401"):
        await wrong.start(world.order(), world.send)


async def test_the_pairing_code_is_not_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await world.connector.start(world.order(), world.send)
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("uvicorn")]
    assert not any("123456" in line for line in ours)


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": Money(100, "INR")},
        {"notify_url": None},
        {"metadata": {"tip": -1}},
        {"metadata": {"tip": 1.5}},
        {"metadata": {"requestId": 5}},
        {"metadata": {"requestId": "x" * 129}},
        {"metadata": {"extraData": "text"}},
    ],
    ids=str,
)
async def test_an_order_it_cannot_take_is_declined_before_anything_is_sent(
    world: World, changes: dict[str, Any]
) -> None:
    with pytest.raises(Declined):
        await world.connector.start(world.order(**changes), world.send)
    assert world.terminal.sales == {}
    with pytest.raises(Declined, match="no terminal"):
        await AtomPos(config(pos_url="", verify_code="")).start(order(), world.send)


async def test_an_expired_token_is_fetched_anew_and_the_ipn_sent_again(world: World) -> None:
    world.terminal._token = ("an.old.token", 1e12)
    await world.connector.start(world.order(), world.send)
    await world.sim("approve", requestID=world.order().operation_id)
    assert [sent["status"] for sent in world.terminal.sent] == [401, 200]


async def test_a_terminal_resends_while_it_is_not_understood_and_two_come_at_once(world: World) -> None:
    await world.sim("sale", amount=10_000, faults={"drop": ["tip"]})
    assert len(world.terminal.sent) == 21  # it gives up only because the simulator does
    assert {sent["status"] for sent in world.terminal.sent} == {400}
    world.terminal.sent.clear()
    await world.sim("sale", amount=10_000, faults={"copies": 2, "deaf": 3})
    assert len(world.terminal.sent) == 8
    assert (
        len({heard.message.event_id for heard in world.listener.heard if isinstance(heard.message, Tell)})
        == 1
    )


async def test_the_older_terminals_are_heard(world: World) -> None:
    await world.sim("sale", amount=10_000, faults={"old": True})
    told = world.listener.heard[-1].message
    assert isinstance(told, Tell)
    assert isinstance(told.facts[0], Paid)


async def test_an_endless_sender_ends_with_its_terminal(world: World) -> None:
    async with world.http.post(
        f"{world.base_url}/sim/sale", json={"amount": 1, "faults": {"endless": True, "drop": ["tip"]}}
    ) as reply:
        assert reply.status == 200
    async with asyncio.timeout(20):
        while len(world.terminal.sent) <= 21:  # more than a terminal that gives up
            await asyncio.sleep(0.02)
