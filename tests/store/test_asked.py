"""Transactions that a provider opens by asking, and what becomes of what they were to pay: Payme's and
Click's own bytes on both databases, with a clock that the test moves."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pytest

from support.till import Clock, Till, open_till
from tillgate.domain.errors import Unreachable, Unsure
from tillgate.domain.payment import Payment
from tillgate.hub import Intent
from tillgate.hub.standing import StandingIntent
from tillgate.providers.click import PROVIDER as CLICK
from tillgate.providers.payme import PROVIDER as PAYME
from tillgate.spi import HttpCall, HttpReply, Inbound
from tillgate.store import audit
from tillgate.store.directory import Account, Merchant

KEY = "the-key-of-this-cash-desk-36-letters"
SECRET = "TEST-click-secret"
PRICE = 1_500_050
HOUR_S = 3600
PAYME_CONFIG = {"merchant_id": "587f72c72cac0d162c722ae2", "key": KEY}
CLICK_CONFIG = {"service_id": 12345, "merchant_id": 54321, "secret_key": SECRET, "merchant_user_id": 777}


def status_is(status: int) -> dict[str, Any]:
    return {"error_code": 0, "error_note": "", "payment_id": 71, "payment_status": status}


@dataclass
class Shop:
    till: Till
    clock: Clock
    merchant: Merchant
    sent: list[HttpCall] = field(default_factory=list)
    answer: Callable[[HttpCall], dict[str, Any]] = lambda _: status_is(0)
    """What Click's Merchant API says."""

    async def send(self, call: HttpCall) -> HttpReply:
        self.sent.append(call)
        return HttpReply(200, {}, json.dumps(self.answer(call)).encode())

    def account(self, name: str) -> Account:
        return next(one for one in self.merchant.accounts if one.name == name)

    async def switch(self, name: str, on: bool) -> None:
        await self.till.hub.accounts.switch(self.merchant, self.account(name).id, on)
        self.till.directory.forget()
        self.merchant = await self.till.directory.merchant(self.merchant.id)

    async def order(self, order_id: str, channel: str) -> Payment:
        return (await self.till.hub.open(self.merchant, Intent(order_id, PRICE, "UZS", channel))).payment

    async def standing(self, order_id: str, channel: str) -> None:
        intent = StandingIntent(order_id, "UZS", channel)
        await self.till.hub.standing.open(self.merchant, intent, None, lambda *_: b"")

    async def _receive(self, name: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        call = Inbound("POST", f"/in/{name}", "", headers, body, "127.0.0.1", self.clock())
        reply = await self.till.hub.receive(self.merchant, self.account(name), call)
        assert reply.status == 200
        found: dict[str, Any] = json.loads(reply.body)
        return found

    async def payme(self, method: str, **params: Any) -> Any:
        """The result, or the code of the error."""
        door = base64.b64encode(f"Paycom:{KEY}".encode()).decode()
        body = json.dumps({"method": method, "params": params, "id": 1}).encode()
        found = await self._receive("payme", {"authorization": f"Basic {door}"}, body)
        return found["result"] if "result" in found else found["error"]["code"]

    async def create(self, name: str, order_id: str) -> Any:
        moment, account = self.clock(), {"order_id": order_id}
        return await self.payme("CreateTransaction", id=name, time=moment, amount=PRICE, account=account)

    async def click(
        self, action: int, trans: int, order_id: str, *, paydoc: int = 71, prepare: int | None = None,
        amount: str = "15000.50", error: int = 0,
    ) -> dict[str, Any]:  # fmt: skip
        signed_at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.clock() // 1000 + 5 * HOUR_S))
        linked = "" if prepare is None else str(prepare)
        text = f"{trans}12345{SECRET}{order_id}{linked}{amount}{action}{signed_at}"
        form = {
            "click_trans_id": trans, "service_id": 12345, "click_paydoc_id": paydoc, "amount": amount,
            "merchant_trans_id": order_id, "action": action, "error": error, "error_note": "",
            "sign_time": signed_at, "sign_string": hashlib.md5(text.encode()).hexdigest(),
        }  # fmt: skip
        if prepare is not None:
            form["merchant_prepare_id"] = prepare
        return await self._receive("click", {}, urlencode(form).encode())

    async def prepared(self, trans: int, order_id: str, paydoc: int = 71) -> int:
        answer = await self.click(0, trans, order_id, paydoc=paydoc)
        assert answer["error"] == 0
        number: int = answer["merchant_prepare_id"]
        return number

    async def payments(self) -> list[Payment]:
        """The payments, in the order in which they were opened."""
        events = await self.events()
        subjects = [row[4] for row in events if row[4].startswith("pay_")]
        found = [await self.till.kit.reads.payment(one) for one in dict.fromkeys(subjects)]
        return [one for one in found if one is not None]

    async def events(self) -> list[Any]:
        return await self.till.kit.reads.events(self.merchant.id, 0, 200)

    async def kinds(self) -> list[str]:
        return [row[3] for row in await self.events()]

    async def balances(self) -> dict[str, int]:
        rows = await self.till.kit.reads.balances(self.merchant.id)
        return {name: minor for name, _, minor in rows if minor}


@pytest.fixture
async def shop(database_url: str, clock: Clock) -> AsyncIterator[Shop]:
    known = {"payme": PAYME, "click": CLICK}
    sends: list[Shop] = []

    async def send(call: HttpCall) -> HttpReply:
        return await sends[0].send(call)

    async with open_till(database_url, clock=clock, known=known, send=send) as till:
        made = await till.directory.create_merchant("bazaar", clock())
        for name, config in (("payme", PAYME_CONFIG), ("click", CLICK_CONFIG)):
            await till.directory.create_account(made.merchant_id, name, name, config, clock())
        sends.append(Shop(till, clock, await till.directory.merchant(made.merchant_id)))
        yield sends[0]
        report = await audit.verify(till.database, None)
        assert report.clean, report.text()


# --- standing orders ----------------------------------------------------------------------------------------


async def test_a_payment_under_a_standing_order_ends_with_its_transaction(shop: Shop) -> None:
    """Nobody else could ever pay it: it must not wait for money for ever."""
    await shop.standing("anna", "payme")
    await shop.create("given-up", "anna")
    await shop.create("forgotten", "anna")
    assert (await shop.balances()) == {"memo:open": -2 * PRICE, "memo:due": 2 * PRICE}
    await shop.payme("CancelTransaction", id="given-up", reason=3)
    shop.clock.on(s=12 * HOUR_S + 1)
    await shop.till.worker.drain()

    assert [(one.status, one.closed) for one in await shop.payments()] == [
        ("cancelled", "cancelled"), ("expired", "expired"),
    ]  # fmt: skip
    assert await shop.balances() == {}
    assert [kind for kind in await shop.kinds() if kind.startswith("payment.")] == [
        "payment.pending", "payment.pending", "payment.cancelled", "payment.expired",
    ]  # fmt: skip
    # Payme is told what it would be told of an order's.
    assert (await shop.payme("CancelTransaction", id="given-up", reason=5))["state"] == -1
    assert (await shop.payme("CheckTransaction", id="forgotten"))["reason"] == 4
    assert await shop.payme("PerformTransaction", id="forgotten") == -31008
    assert (await shop.create("next", "anna"))["state"] == 1


async def test_one_payment_of_clicks_is_booked_once_whatever_attempt_it_comes_as(shop: Shop) -> None:
    """Click prepares anew where our answer to Complete was lost; that its attempt's number stays is not
    said. Its payment's number does."""
    await shop.standing("anna", "click")
    number = await shop.prepared(1001, "anna", paydoc=77)
    early = await shop.prepared(1002, "anna", paydoc=77)  # before the first is answered
    assert (await shop.click(1, 1001, "anna", paydoc=77, prepare=number))["error"] == 0
    assert (await shop.click(0, 1003, "anna", paydoc=77))["error"] == -4
    assert (await shop.click(1, 1002, "anna", paydoc=77, prepare=early))["error"] == -4
    assert (await shop.balances())["merchant"] == PRICE
    assert (await shop.kinds()).count("payment.discrepancy") == 1

    other = await shop.prepared(1004, "anna", paydoc=78)  # another payment
    assert (await shop.click(1, 1004, "anna", paydoc=78, prepare=other))["error"] == 0
    shop.clock.on(ms=1)
    assert (await shop.click(1, 1001, "anna", paydoc=77, prepare=number))["error"] == -4  # its own repeat
    assert (await shop.balances())["merchant"] == 2 * PRICE


@pytest.mark.parametrize("swept", [True, False])
@pytest.mark.parametrize("kind", ["order", "standing"])
async def test_a_debit_after_the_reservations_end_is_held(shop: Shop, kind: str, swept: bool) -> None:
    if kind == "order":
        await shop.order("A", "click")
    else:
        await shop.standing("A", "click")
    number = await shop.prepared(1, "A")
    shop.clock.on(s=31 * 60)
    if swept:
        await shop.till.worker.drain()
    assert (await shop.click(1, 1, "A", prepare=number))["error"] == -9
    [payment] = await shop.payments()
    assert (payment.status, payment.hold, payment.paid_minor) == ("review", "contradicted", 0)
    assert "payment.discrepancy" in await shop.kinds()


@pytest.mark.parametrize(("status", "outcome"), [(2, "paid"), (1, "expired"), (-1, "expired")])
async def test_a_debit_that_was_said_while_we_were_away_is_looked_up(
    shop: Shop, status: int, outcome: str
) -> None:
    """Where the account has Click's Merchant API; while it does not answer, nothing is decided."""
    await shop.order("A", "click")
    number = await shop.prepared(1, "A")
    shop.clock.on(s=31 * 60)

    def away(call: HttpCall) -> dict[str, Any]:
        raise Unreachable("no route to Click")

    shop.answer = away
    await shop.till.worker.drain()
    [waits] = await shop.payments()
    assert waits.status == "pending"

    shop.answer = lambda _: status_is(status)
    shop.clock.on(s=120)
    await shop.till.worker.drain()
    [payment] = await shop.payments()
    assert payment.status == outcome
    shop.clock.on(ms=1)
    assert (await shop.click(1, 1, "A", prepare=number))["error"] == (-4 if outcome == "paid" else -9)


# --- orders -------------------------------------------------------------------------------------------------


async def test_an_order_whose_time_ran_out_while_it_was_held_ends_when_it_is_let_go(shop: Shop) -> None:
    await shop.order("A", "payme")  # for a quarter of an hour
    await shop.create("held", "A")
    shop.clock.on(s=16 * 60)
    await shop.till.worker.drain()
    assert [one.status for one in await shop.payments()] == ["pending"]  # Payme may still perform it
    await shop.payme("CancelTransaction", id="held", reason=3)
    await shop.till.worker.drain()
    assert [one.status for one in await shop.payments()] == ["expired"]
    again = await shop.order("A", "payme")
    assert again.expires_at > shop.clock()
    assert (await shop.create("anew", "A"))["state"] == 1


async def test_an_order_that_is_let_go_in_its_time_can_still_be_paid(shop: Shop) -> None:
    await shop.order("A", "payme")
    await shop.create("first", "A")
    await shop.payme("CancelTransaction", id="first", reason=3)
    await shop.till.worker.drain()
    assert (await shop.create("second", "A"))["state"] == 1
    assert (await shop.payme("PerformTransaction", id="second"))["state"] == 2


# --- what Click says was debited ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "code"),
    [({"amount": "300"}, -2), ({"order_id": "B"}, -5), ({"prepare": 999_999_999}, -6)],
    ids=["amount", "order", "reservation"],
)
async def test_a_debit_that_is_not_booked_is_told_and_kept(shop: Shop, wrong: Any, code: int) -> None:
    opened = await shop.order("A", "click")
    await shop.order("B", "click")
    number = await shop.prepared(1, "A")
    asked = {"action": 1, "trans": 1, "order_id": "A", "prepare": number} | wrong
    for _ in range(2):  # Click repeats it, and it is told once
        assert (await shop.click(**asked))["error"] == code
    told = [row for row in await shop.events() if row[3] == "payment.discrepancy"]
    assert [row[4] for row in told] == [opened.id]
    assert "said to be paid" in bytes(told[0][6]).decode()
    # It is no more than told: Click's own matrix goes on and pays it (scenarios 5 and 6, 10 and 11).
    assert (await shop.click(1, 1, "A", prepare=number))["error"] == 0
    assert (await shop.balances())["merchant"] == PRICE


async def test_a_debit_of_what_nobody_prepared_is_told(shop: Shop) -> None:
    await shop.order("A", "click")
    assert (await shop.click(1, 9, "A", prepare=5))["error"] == -6
    assert (await shop.kinds()).count("inbound.unmatched") == 1


# --- a disabled account -------------------------------------------------------------------------------------


async def test_a_disabled_account_ends_what_it_began_and_begins_nothing(shop: Shop) -> None:
    for name in ("A", "B", "C"):
        await shop.order(name, "payme")
    await shop.standing("anna", "payme")
    await shop.create("a", "A")
    await shop.create("b", "B")
    await shop.payme("PerformTransaction", id="b")
    await shop.switch("payme", False)

    assert (await shop.create("a", "A"))["state"] == 1  # a repeat
    assert (await shop.payme("PerformTransaction", id="a"))["state"] == 2
    assert (await shop.payme("CancelTransaction", id="b", reason=5))["state"] == -2
    assert (await shop.payme("CheckTransaction", id="b"))["state"] == -2
    for reference in ("C", "anna"):
        assert await shop.create("c", reference) == -31050
        account = {"order_id": reference}
        assert await shop.payme("CheckPerformTransaction", amount=PRICE, account=account) == -31050
    assert (await shop.balances())["merchant"] == PRICE
    await shop.switch("payme", True)
    assert (await shop.create("c", "C"))["state"] == 1


# --- statements ---------------------------------------------------------------------------------------------


async def test_a_statement_shows_what_ran_out_as_a_look_does(shop: Shop) -> None:
    await shop.order("A", "payme")
    await shop.create("a", "A")
    begun = shop.clock()
    shop.clock.on(s=12 * HOUR_S)
    [row] = (await shop.payme("GetStatement", **{"from": begun, "to": begun}))["transactions"]
    assert (row["state"], row["reason"], row["cancel_time"]) == (-1, 4, shop.clock())
    seen = await shop.payme("CheckTransaction", id="a")
    assert (seen["state"], seen["reason"], seen["cancel_time"]) == (-1, 4, row["cancel_time"])


# --- a refund whose answer was lost -------------------------------------------------------------------------


async def test_a_refund_is_not_given_up_because_its_second_try_is_declined(shop: Shop) -> None:
    """The first reversal is on its way, its answer lost: that is why Click declines another."""
    await shop.order("A", "click")
    number = await shop.prepared(1, "A")
    await shop.click(1, 1, "A", prepare=number)
    [paid] = await shop.payments()
    status = 2

    def answer(call: HttpCall) -> dict[str, Any]:
        if call.method == "DELETE" and len([one for one in shop.sent if one.method == "DELETE"]) == 1:
            raise Unsure("no answer in time")
        if call.method == "DELETE":
            return {"error_code": -10, "error_note": "a reversal is in progress"}
        return status_is(status)

    shop.answer = answer
    await shop.till.hub.refund(shop.merchant, paid.id, PRICE, "sold out")
    for _ in range(3):
        await shop.till.worker.drain()
        shop.clock.on(s=20)
    [held] = await shop.payments()
    assert (held.refunding_minor, held.refunded_minor) == (PRICE, 0)

    status = -1
    shop.clock.on(s=HOUR_S)
    await shop.till.worker.drain()
    [back] = await shop.payments()
    assert (back.refunding_minor, back.refunded_minor) == (0, PRICE)
    assert "refund.failed" not in await shop.kinds()


async def test_a_refund_that_never_arrived_and_is_declined_for_good_fails(shop: Shop) -> None:
    await shop.order("A", "click")
    number = await shop.prepared(1, "A")
    await shop.click(1, 1, "A", prepare=number)
    [paid] = await shop.payments()

    def answer(call: HttpCall) -> dict[str, Any]:
        if call.method == "DELETE" and len([one for one in shop.sent if one.method == "DELETE"]) == 1:
            raise Unsure("no answer in time")
        if call.method == "DELETE":
            return {"error_code": -5, "error_note": "the reporting month is over"}
        return status_is(2)

    shop.answer = answer
    await shop.till.hub.refund(shop.merchant, paid.id, PRICE, "sold out")
    for _ in range(12):
        await shop.till.worker.drain()
        shop.clock.on(s=HOUR_S // 2)
    [still] = await shop.payments()
    assert (still.refunding_minor, still.refunded_minor, still.status) == (0, 0, "paid")
    assert (await shop.kinds())[-1] == "refund.failed"
