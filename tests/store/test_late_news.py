"""News of what is over already: hints about payments and refunds that were closed, paid or given up, looks
that nobody answers, and codes that a provider will not take back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text

from support.till import Clock, Till, begun_look
from support.tinybank import SECRET, Charge
from tillgate.domain.errors import NotAllowed, OrderConflict
from tillgate.domain.payment import Payment
from tillgate.hub import Opened
from tillgate.hub.links import LinkIntent
from tillgate.spi import Inbound
from tillgate.store.directory import Merchant

HOUR_S = 3600


@pytest.fixture
async def shop(till: Till) -> Merchant:
    return await till.merchant()


async def hinted(till: Till, shop: Merchant, operation_id: str, account: str = "calling") -> None:
    """The bank mentions an operation, is answered, and does not say it again."""
    body = json.dumps({"hint": True, "operation_id": operation_id}).encode()
    call = Inbound("POST", "/in/x", "", {"x-secret": SECRET}, body, "127.0.0.1", till.clock())
    found = shop.account(account)
    assert found is not None
    assert (await till.hub.receive(shop, found, call)).status == 200


async def days(till: Till, clock: Clock, hours: int = 50) -> None:
    for _ in range(hours):
        clock.on(s=HOUR_S)
        await till.worker.drain()


async def due(till: Till) -> list[str]:
    return [row[0] for row in await till.database.read(text("SELECT kind FROM due"))]


async def payment(till: Till, opened: Opened) -> Payment:
    found = await till.kit.reads.payment(opened.payment.id)
    assert found is not None
    return found


# --- hints about what is over -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["never_got", "unreachable", "declined"])
async def test_a_hint_about_an_expired_payment_outlives_a_look_in_vain(
    till: Till, shop: Merchant, clock: Clock, fault: str
) -> None:
    opened = await till.open(shop, "ORD-1", channel="calling_qr")
    clock.on(s=72 * HOUR_S)
    await till.worker.drain()
    assert (await payment(till, opened)).status == "expired"
    charge = till.bank.charges[opened.attempt.id]
    charge.state, charge.paid_minor = "paid", charge.amount_minor  # the payer was quicker
    till.bank.fail("look", fault)
    await hinted(till, shop, opened.attempt.id)
    await till.worker.drain()
    await days(till, clock)
    booked = await payment(till, opened)
    assert (booked.paid_minor, booked.late) == (10_000, True)
    assert await due(till) == []


async def test_a_look_in_vain_at_what_is_over_ends_some_day(till: Till, shop: Merchant, clock: Clock) -> None:
    opened = await till.open(shop, "ORD-1", channel="calling_qr")
    clock.on(s=72 * HOUR_S)
    await till.worker.drain()
    till.bank.fail("look", *["never_got"] * 100)
    await hinted(till, shop, opened.attempt.id)
    await days(till, clock, 100)
    assert await due(till) == []
    assert till.bank.calls["look"] < 25


async def test_a_dashboards_refund_outlives_a_look_in_vain(till: Till, shop: Merchant, clock: Clock) -> None:
    opened = await till.open(shop, "ORD-1", channel="calling_qr")
    till.bank.pay(opened.attempt.id)
    await till.told(shop, opened.attempt.id, till.bank.charges[opened.attempt.id])
    till.bank.charges[opened.attempt.id].refunded_minor = 10_000
    till.bank.fail("look", "never_got")
    await hinted(till, shop, opened.attempt.id)
    await till.worker.drain()
    await days(till, clock)
    assert (await payment(till, opened)).refunded_minor == 10_000


async def test_a_hint_about_a_refund_that_failed_outlives_a_look_in_vain(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    opened = await till.open(shop, "ORD-1", channel="calling_qr")
    till.bank.pay(opened.attempt.id)
    await till.told(shop, opened.attempt.id, till.bank.charges[opened.attempt.id])
    till.bank.fail("refund", "declined")
    asked = (await till.hub.refund(shop, opened.payment.id, 4_000, "why")).refund
    assert asked is not None
    await till.worker.drain()
    known = await till.kit.reads.refund(asked.id)
    assert known is not None
    assert known.phase == "failed"
    till.bank.refunds[asked.id] = (opened.attempt.id, 4_000, "succeeded")  # it was given after all
    till.bank.charges[opened.attempt.id].refunded_minor = 4_000
    till.bank.fail("look_refund", "never_got")
    await hinted(till, shop, asked.id)
    await till.worker.drain()
    await days(till, clock)
    back = await payment(till, opened)
    assert (back.refunded_minor, back.hold) == (4_000, None)
    assert await due(till) == []


@pytest.mark.parametrize("ours_known", [True, False])
async def test_a_refund_of_anothers_that_is_told_beside_ours_is_booked(
    till: Till, shop: Merchant, clock: Clock, ours_known: bool
) -> None:
    """Midtrans lists both in one notice, and names the first."""
    opened = await till.open(shop, "ORD-1", channel="calling_qr")
    till.bank.pay(opened.attempt.id)
    await till.told(shop, opened.attempt.id, till.bank.charges[opened.attempt.id])
    till.bank.refunds_end = "succeeded" if ours_known else "pending"
    asked = (await till.hub.refund(shop, opened.payment.id, 3_000, "why")).refund
    assert asked is not None
    await till.worker.drain()
    if not ours_known:
        till.bank.end_refund(asked.id, "succeeded")
    till.bank.charges[opened.attempt.id].refunded_minor += 2_000  # in the bank's own dashboard
    await hinted(till, shop, asked.id)
    await till.worker.drain()
    await days(till, clock, 3)
    back = await payment(till, opened)
    assert (back.refunded_minor, back.refunding_minor, back.hold) == (5_000, 0, None)
    assert await due(till) == []


# --- hints that come while it is being closed ---------------------------------------------------------------


async def test_a_hint_during_the_look_that_gives_up_is_followed(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    """The request was still on its way when the bank said that it never had it."""
    till.bank.fail("start", "never_got")
    opened = await till.open(shop, "ORD-1", channel="calling_qr")
    clock.on(s=6)
    looking = await begun_look(till)
    till.bank.charges[opened.attempt.id] = Charge(10_000, "IDR")
    till.bank.pay(opened.attempt.id)
    await hinted(till, shop, opened.attempt.id)
    till.bank.go_on.set()
    await looking
    await days(till, clock, 3)
    assert (await payment(till, opened)).paid_minor == 10_000
    assert await due(till) == []


async def test_a_hint_during_the_last_look_before_expiry_is_followed(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    opened = await till.open(shop, "ORD-1", channel="calling_qr")
    clock.on(s=700)
    await till.worker.drain()  # the looks that are due on the way
    clock.now = opened.payment.expires_at
    till.bank.fail("cancel", "declined")
    expiring = await begun_look(till)
    till.bank.pay(opened.attempt.id)
    await hinted(till, shop, opened.attempt.id)
    till.bank.go_on.set()
    await expiring
    await days(till, clock, 3)
    assert (await payment(till, opened)).paid_minor == 10_000
    assert await due(till) == []


# --- what a provider will not take back ---------------------------------------------------------------------


async def test_a_links_second_way_is_not_opened_beside_a_code_that_can_still_be_paid(
    till: Till, shop: Merchant
) -> None:
    made = await till.hub.links.create(
        shop, LinkIntent("Invoice", "IDR", amount_minor=10_000, once=True), None, lambda _: b""
    )
    first = await till.hub.links.use(shop, made.link, "calling_qr", None, "u1")
    till.bank.fail("cancel", "declined")  # and a look says that it is open
    second = await till.hub.links.use(shop, made.link, "inviting_qr", None, "u2")
    assert (second.id, second.channel, second.status) == (first.id, "calling_qr", "pending")
    assert len(till.bank.charges) == 1
    third = await till.hub.links.use(shop, made.link, "inviting_qr", None, "u3")  # now it lets go
    assert (third.channel, third.status) == ("inviting_qr", "pending")


async def test_what_is_unsure_where_nobody_can_be_asked_is_not_cancelled(till: Till, shop: Merchant) -> None:
    till.bank.fail("start", "lost")
    opened = await till.open(shop, "ORD-1", channel="blind_qr")
    assert opened.payment.status == "unsure"
    with pytest.raises(NotAllowed, match="resolve"):
        await till.hub.cancel(shop, opened.payment.id)
    assert (await payment(till, opened)).status == "unsure"
    resolved = await till.hub.resolve(shop, opened.payment.id, "failed", "the bank has nothing")
    assert resolved.status == "failed"


# --- another try of an order --------------------------------------------------------------------------------


async def test_a_new_try_says_what_it_was_given_anew(till: Till, shop: Merchant) -> None:
    """A wallet rings the telephone in `metadata`: it must be the one of this try."""

    async def opened(**more: Any) -> dict[str, str]:
        found = await till.open(shop, "ORD-1", channel="calling_qr", **more)
        await till.told(shop, found.attempt.id, Charge(10_000, "IDR", state="failed"))
        stored = await payment(till, found)
        assert stored.status == "failed"
        known: dict[str, str] = json.loads(stored.metadata or "{}")
        return known

    assert await opened(metadata='{"phone":"1"}') == {"phone": "1"}
    assert await opened(metadata='{"phone":"2"}') == {"phone": "2"}
    assert await opened() == {"phone": "2"}


async def test_a_links_reference_that_is_an_orders_opens_nothing(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "INV-1", channel="calling_qr")
    await till.told(shop, opened.attempt.id, Charge(10_000, "IDR", state="failed"))
    intent = LinkIntent("Invoice", "IDR", amount_minor=10_000, once=True, reference="INV-1")
    made = await till.hub.links.create(shop, intent, None, lambda _: b"")
    with pytest.raises(OrderConflict):
        await till.hub.links.use(shop, made.link, "calling_qr", None, "u1")
    assert (await payment(till, opened)).status == "failed"
