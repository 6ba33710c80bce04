"""Against AtomPay's simulator, over real sockets: start, pay, callback, requery, refund, and its faults."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillgate.domain.dialogue import Hint, Tell
from tillgate.domain.errors import Declined, Unreachable, Unsure
from tillgate.domain.money import Money
from tillgate.domain.payment import (
    Accepted,
    Closed,
    Paid,
    RefundAccepted,
    RefundAnswerLost,
    RefundFact,
    RefundFailed,
    RefundSucceeded,
    Reversed,
)
from tillgate.providers.atompay_in import AtomPay
from tillgate.providers.atompay_in.messages import refund_lines
from tillgate.providers.atompay_in.simulator_crypto import decrypt
from tillgate.spi import HttpCall, HttpReply, Looks, Order, RefundOrder, Refunds, Starts

from .conftest import World, config, order


async def started(world: World, **changes: Any) -> tuple[Order, str]:
    """An order with its token, shown to the payer."""
    asked = world.order(**changes)
    begun = await world.connector.start(asked, world.send)
    assert begun.external_id is None
    account = dict(begun.show.account or {})
    return replace(asked, show={"type": "redirect", "account": account}), account["atomTokenId"]


def test_it_can_start_look_and_refund() -> None:
    connector = AtomPay(config())
    assert isinstance(connector, Starts)
    assert isinstance(connector, Looks)
    assert isinstance(connector, Refunds)


async def test_a_payment_is_told_by_the_callback_and_confirmed_by_a_look(world: World) -> None:
    order, token = await started(world)
    paid = await world.pay(token, "UP")

    assert world.simulator.callbacks[0]["status"] == 200
    assert world.simulator.callbacks[0]["text"] == "OK"
    [told] = world.shop.messages
    assert isinstance(told, Tell)
    assert told.operation_id == order.operation_id
    [fact] = told.facts
    assert isinstance(fact, Paid)
    assert (fact.total_minor, fact.currency, fact.paid_with) == (31_900, "INR", "upi")
    assert fact.external_id == paid["transaction"]["atomTxnId"]
    assert fact.external_id.startswith("11000")

    looked = await world.connector.look(order, world.send)
    assert looked is not None
    assert looked.facts == (fact,)


async def test_what_the_payers_page_and_app_are_given(world: World) -> None:
    begun = await world.connector.start(world.order(), world.send)
    assert begun.show.type == "redirect"
    account = dict(begun.show.account or {})
    assert set(account) == {
        "atomTokenId",
        "merchId",
        "custEmail",
        "custMobile",
        "returnUrl",
        "amount",
        "merchTxnId",
    }
    assert account["atomTokenId"].startswith("15000")
    assert account["amount"] == "319.00"
    assert account["custEmail"] not in str(begun.show.url)  # sealed


async def test_the_request_carries_indian_time_and_no_injection(world: World) -> None:
    at = int(datetime(2026, 11, 20, 20, 0, 5, tzinfo=UTC).timestamp() * 1000)
    hostile = 'a"b,"amount":"1.00'
    await started(
        world, created_at=at, metadata={"email": "a@b.example", "mobile": "8888888800", "name": hostile}
    )
    [order] = world.simulator.gateway.state["tokens"].values()
    assert order["amount"] == "319.00"
    assert order["customer"]["custFirstName"] == hostile
    sent: list[HttpCall] = []

    async def record(call: HttpCall) -> HttpReply:
        sent.append(call)
        raise Unreachable

    with pytest.raises(Unreachable):
        await world.connector.start(world.order(created_at=at), record)
    assert re.fullmatch(rb"encData=[0-9A-F]+&merchId=317157", sent[0].body)
    message = decrypt(sent[0].body[8:].split(b"&")[0].decode(), "A4476C2062FFA58980DC8F79EB6A799E")
    assert message["payInstrument"]["merchDetails"]["merchTxnDate"] == "2026-11-21 01:30:05"
    assert message["payInstrument"]["extras"] == {"udf1": "event 7"}
    assert "payModeSpecificData" not in message["payInstrument"]


async def test_a_split_payment_names_its_products_and_a_mode_restricts_the_page(world: World) -> None:
    lines = [{"name": "NSE", "amount": "300.00"}, {"name": "BSE", "amount": "19.00"}]
    metadata = {"email": "a@b.example", "mobile": "8888888800", "products": lines, "mode": "UP"}
    await started(world, metadata=metadata)
    [order] = world.simulator.gateway.state["tokens"].values()
    assert order["products"] == [
        {"prodName": "NSE", "prodAmount": "300.00"},
        {"prodName": "BSE", "prodAmount": "19.00"},
    ]
    assert order["mode"] == "UP"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metadata": {}}, "e-mail"),
        ({"metadata": {"email": "a@b.example"}}, "mobile"),
        ({"metadata": {"email": "a b@c", "mobile": "8888888800"}}, "e-mail"),
        ({"amount": Money(100, "USD")}, "INR"),
        ({"notify_url": None}, "public URL"),
        ({"metadata": {"email": "a@b.example", "mobile": "8888888800", "mode": "XX"}}, "mode"),
        *(
            ({"metadata": {"email": "a@b.example", "mobile": "8888888800", "products": bad}}, "products")
            for bad in (
                [],
                {},
                [5],
                [{"name": "NSE", "amount": 319}],
                [{"name": "NSE", "amount": "318.99"}],
                [{"name": "NSE", "amount": "abc"}],
                [{"name": "A", "amount": "300"}, {"name": "A", "amount": "19"}],
            )
        ),
    ],
)
async def test_an_order_it_cannot_take_is_declined_before_anything_is_sent(
    world: World, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(Declined, match=words):
        await world.connector.start(world.order(**changes), world.send)
    assert world.simulator.gateway.state["tokens"] == {}


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("auth_empty", Declined, "check the request key"),
        ("auth_error", Declined, "OTS0600"),
        ("auth_html", Unsure, "cannot be read"),
        ("auth_500", Unsure, "HTTP 500"),
    ],
)
async def test_an_auth_that_fails_says_why(
    world: World, fault: str, error: type[Exception], words: str
) -> None:
    world.faults(fault)
    with pytest.raises(error, match=words):
        await world.connector.start(world.order(), world.send)


async def test_wrong_keys_are_named_and_not_taken_for_a_failed_payment(world: World) -> None:
    request = AtomPay(config(base_url=world.base_url, req_enc_key="0" * 32))
    with pytest.raises(Declined, match="check the request key"):
        await request.start(world.order(), world.send)
    response = AtomPay(config(base_url=world.base_url, res_dec_key="0" * 32))
    with pytest.raises(Unsure, match="check the response key"):
        await response.start(world.order(), world.send)
    order, token = await started(world)
    await world.pay(token)
    signing = AtomPay(config(base_url=world.base_url, req_hash_key="another hash key"))
    with pytest.raises(Declined, match="check the request hash key"):
        await signing.look(order, world.send)


@pytest.mark.parametrize(
    ("outcome", "fact"),
    [
        ("success", Paid),
        ("forced", Paid),
        ("pending", Accepted),
        ("timeout", Accepted),
        ("failed", Closed),
        ("cancelled", Closed),
    ],
)
@pytest.mark.parametrize("mode", ["NB", "CC", "DC", "UP", "BQ", "MW", "EM"])
async def test_every_mode_and_outcome_reads_alike_in_callback_and_look(
    world: World, mode: str, outcome: str, fact: type
) -> None:
    order, token = await started(world)
    await world.pay(token, mode, outcome)
    looked = await world.connector.look(order, world.send)
    assert looked is not None
    assert [type(said) for said in looked.facts] == [fact]
    [heard] = world.shop.messages
    if outcome == "cancelled":  # before the bank: nobody published what its signature covers
        assert isinstance(heard, Tell | Hint)
    else:
        assert isinstance(heard, Tell)
        assert [type(said) for said in heard.facts] == [fact]


async def test_a_challan_is_paid_only_when_a_look_shows_a_bank_reference(world: World) -> None:
    order, token = await started(world)
    paid = await world.pay(token, "NR", "success")
    assert world.shop.messages == [Hint(operation_id=order.operation_id)]
    looked = await world.connector.look(order, world.send)
    assert looked is not None
    assert isinstance(looked.facts[0], Paid)
    world.simulator.gateway.state["transactions"][0]["bankTxnId"] = ""
    looked = await world.connector.look(order, world.send)
    assert looked is not None
    assert looked.facts == (Accepted(),)
    assert paid["transaction"]["mode"] == "NR"


async def test_pending_turns_success_and_success_is_reversed(world: World) -> None:
    order, token = await started(world)
    await world.pay(token, "NB", "pending")
    await world.sim("settle", merchTxnId=order.operation_id, outcome="success", callback=True)
    looked = await world.connector.look(order, world.send)
    assert looked is not None
    assert isinstance(looked.facts[0], Paid)
    await world.sim("settle", merchTxnId=order.operation_id, outcome="reversed", callback=True)
    looked = await world.connector.look(order, world.send)
    assert looked is not None
    assert looked.facts[1:] == (Reversed(31_900),)
    kinds = [[type(fact) for fact in message.facts] for message in world.shop.messages]
    assert kinds == [[Accepted], [Paid], [Paid, Reversed]]
    assert len({message.event_id for message in world.shop.messages}) == 3


async def test_a_failed_try_does_not_hide_a_later_success_and_two_successes_are_summed(world: World) -> None:
    order, token = await started(world)
    await world.pay(token, "NB", "failed")
    second = await world.pay(token, "CC", "success")
    looked = await world.connector.look(order, world.send)
    assert looked is not None
    [fact] = looked.facts
    assert isinstance(fact, Paid)
    assert (fact.total_minor, fact.external_id) == (31_900, second["transaction"]["atomTxnId"])
    await world.pay(token, "CC", "success")
    looked = await world.connector.look(order, world.send)
    assert looked is not None
    assert isinstance(looked.facts[0], Paid)
    assert looked.facts[0].total_minor == 63_800


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("callback_json", "tell"),
        ("callback_array", "tell"),
        ("lower_hex", "tell"),
        ("callback_null_signature", "hint"),
        ("callback_no_signature", "hint"),
        ("callback_forged", "refused"),
        ("callback_merchant", "refused"),
        ("callback_tampered", "refused"),
    ],
)
async def test_callbacks_with_faults(world: World, fault: str, told: str) -> None:
    world.faults(fault)
    order, token = await started(world)
    await world.pay(token)
    if told == "refused":
        assert world.shop.messages == []
        assert len(world.shop.refused) == 1
        assert world.simulator.callbacks[0]["text"] == "The message cannot be accepted."
    elif told == "hint":
        assert world.shop.messages == [Hint(operation_id=order.operation_id)]
    else:
        [message] = world.shop.messages
        assert isinstance(message, Tell)
    world.faults()
    await world.sim("callback", merchTxnId=order.operation_id)  # the genuine one still works
    assert isinstance(world.shop.messages[-1], Tell)


async def test_an_amount_changed_under_a_right_signature_is_told_as_it_came(world: World) -> None:
    world.faults("callback_amount")
    _, token = await started(world)
    await world.pay(token)
    [message] = world.shop.messages
    assert message.facts[0].total_minor == 33_617  # the domain holds what is not 31 900
    world.faults("callback_currency")
    await world.pay(token)
    assert world.shop.messages[-1].facts[0].currency == "USD"


async def test_two_callbacks_at_once_say_the_same_with_one_event_id(world: World) -> None:
    world.faults("callback_twice")
    _, token = await started(world)
    await world.pay(token)
    one, two = world.shop.messages
    assert one == two
    assert [sent["status"] for sent in world.simulator.callbacks] == [200, 200]


# --- looking ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2", "otsv2"])
async def test_each_version_of_requery_finds_the_payment(world: World, version: str) -> None:
    order, token = await started(world)
    await world.pay(token)
    changes = {"requery": version} | ({"api_secret": "api-secret"} if version == "otsv2" else {})
    connector = AtomPay(config(base_url=world.base_url, **changes))
    looked = await connector.look(order, world.send)
    assert looked is not None
    assert isinstance(looked.facts[0], Paid)


async def test_otsv2_sends_its_bearer(world: World) -> None:
    sent: list[HttpCall] = []

    async def record(call: HttpCall) -> HttpReply:
        sent.append(call)
        return await world.send(call)

    connector = AtomPay(config(base_url=world.base_url, api="otsv2", requery="otsv2", api_secret="s3"))
    await connector.start(world.order(), record)
    assert sent[0].url.endswith("/otsv2/aipay/auth")
    assert sent[0].headers["authorization"] == "Bearer MzE3MTU3OnMz"


async def test_nothing_found_is_never_a_failure(world: World) -> None:
    order, _ = await started(world)
    looked = await world.connector.look(order, world.send)
    assert looked == Tell((), operation_id=order.operation_id)
    never_shown = world.order()
    assert await world.connector.look(never_shown, world.send) is None


async def test_a_payment_made_after_midnight_in_india_is_found(world: World) -> None:
    created = datetime(2026, 11, 20, 18, 20, tzinfo=UTC)  # 23:50 there
    world.simulator.gateway._now = lambda: created + timedelta(minutes=12)
    at = int(created.timestamp() * 1000)
    order, token = await started(world, created_at=at, expires_at=at + 900_000)
    await world.pay(token)
    assert world.simulator.gateway.state["transactions"][0]["at"] == "2026-11-21 00:02:00"
    looked = await world.connector.look(order, world.send)
    assert looked is not None
    assert isinstance(looked.facts[0], Paid)


async def test_a_failed_try_before_midnight_does_not_hide_the_success_after_it(world: World) -> None:
    created = datetime(2026, 11, 20, 18, 20, tzinfo=UTC)  # 23:50 there
    at = int(created.timestamp() * 1000)
    world.simulator.gateway._now = lambda: created + timedelta(minutes=2)
    order, token = await started(world, created_at=at, expires_at=at + 900_000)
    await world.pay(token, outcome="failed")
    looked = await world.connector.look(order, world.send)  # tomorrow has not begun: nothing is asked of it
    assert looked is not None
    assert isinstance(looked.facts[0], Closed)
    world.simulator.gateway._now = lambda: created + timedelta(minutes=12)
    done = await world.pay(token)
    for settled in ("success", "reversed"):
        await world.sim("settle", merchTxnId=order.operation_id, outcome=settled)
        looked = await world.connector.look(order, world.send)
        assert looked is not None
        assert isinstance(looked.facts[0], Paid)
        assert looked.facts[0].total_minor == 31_900
        assert looked.facts[0].external_id == done["transaction"]["atomTxnId"]
    assert looked.facts[1:] == (Reversed(31_900),)


async def test_a_clock_that_is_ahead_is_told_from_a_day_that_has_not_begun(world: World) -> None:
    at = int(datetime(2026, 11, 20, 18, 20, tzinfo=UTC).timestamp() * 1000)
    world.simulator.gateway._now = lambda: datetime(2026, 11, 20, 18, 20, tzinfo=UTC)
    order, _ = await started(world, created_at=at, expires_at=at + 900_000)
    world.simulator.gateway._now = lambda: datetime(2026, 11, 19, 18, 20, tzinfo=UTC)
    with pytest.raises(Declined, match="OTS0639"):
        await world.connector.look(order, world.send)


async def test_a_payment_at_night_in_utc_is_asked_for_under_its_indian_date(world: World) -> None:
    created = datetime(2026, 11, 20, 20, 0, tzinfo=UTC)  # 01:30 on the 21st there
    world.simulator.gateway._now = lambda: created
    at = int(created.timestamp() * 1000)
    order, token = await started(world, created_at=at, expires_at=at + 900_000)
    await world.pay(token)
    looked = await world.connector.look(order, world.send)
    assert looked is not None
    assert isinstance(looked.facts[0], Paid)


@pytest.mark.parametrize(
    ("fault", "error"),
    [("requery_empty", Declined), ("requery_html", Unsure), ("requery_500", Unsure)],
)
async def test_a_look_that_cannot_be_read_is_no_answer(
    world: World, fault: str, error: type[Exception]
) -> None:
    order, token = await started(world)
    await world.pay(token)
    world.faults(fault)
    with pytest.raises(error):
        await world.connector.look(order, world.send)


async def test_an_object_in_the_place_of_an_array_is_read(world: World) -> None:
    order, token = await started(world)
    await world.pay(token)
    world.faults("requery_object")
    looked = await world.connector.look(order, world.send)
    assert looked is not None
    assert isinstance(looked.facts[0], Paid)


# --- refunding ----------------------------------------------------------------------------------------------


@pytest.fixture
async def paid(world: World) -> Order:
    return await _paid(world)


async def _paid(world: World, **changes: Any) -> Order:
    order, token = await started(world, **changes)
    done = await world.pay(token)
    return replace(order, external_id=done["transaction"]["atomTxnId"])


def refund(paid: Order, amount: str = "100.00", number: int = 1) -> RefundOrder:
    return RefundOrder(f"refund-{number}", paid, Money.parse(amount, "INR"), "returned goods")


async def test_a_refund_is_accepted_then_looked_at_until_it_is_back(world: World, paid: Order) -> None:
    asked = refund(paid)
    told = await world.connector.refund(asked, world.send)
    assert told.operation_id == "refund-1"
    assert isinstance(told.facts[0], RefundAccepted)
    looked = await world.connector.look_refund(asked, world.send)
    assert looked is not None
    assert isinstance(looked.facts[0], RefundAccepted)  # REFUND INITIATED is not "refunded"
    await world.sim("refund", prodRefundId="refund-1", remarks="REFUND PROCESSED")
    looked = await world.connector.look_refund(asked, world.send)
    assert looked is not None
    assert isinstance(looked.facts[0], RefundSucceeded)


async def test_partial_refunds_have_lives_of_their_own(world: World, paid: Order) -> None:
    for number in (1, 2, 3):
        await world.connector.refund(refund(paid, "100.00", number), world.send)
    with pytest.raises(Declined, match="OTS0600"):
        await world.connector.refund(refund(paid, "19.01", 4), world.send)
    await world.sim("refund", prodRefundId="refund-2", remarks="Refund Rejected")
    looked = await world.connector.look_refund(refund(paid, "100.00", 2), world.send)
    assert looked is not None
    assert looked.facts == (RefundFailed("REFUND REJECTED"),)
    assert await world.connector.look_refund(refund(paid, "1.00", 9), world.send) is None


@pytest.mark.parametrize(
    ("remark", "fact"),
    [
        ("REFUND PROCESSED", RefundSucceeded),
        ("Refund  processed ", RefundSucceeded),
        ("PROCESSED", RefundSucceeded),
        ("SUCCESS", RefundSucceeded),
        ("REFUND SUCCESSFUL", RefundSucceeded),
        ("REFUND COMPLETED", RefundSucceeded),
        ("REFUNDED", RefundSucceeded),
        ("FAILED", RefundFailed),
        ("REFUND REJECTED", RefundFailed),
        ("REFUND UNSUCCESSFUL", RefundAccepted),
        ("NOT PROCESSED", RefundAccepted),
        ("NOT REFUNDED", RefundAccepted),
        ("TO BE PROCESSED IN 5 DAYS", RefundAccepted),
        ("NOT YET FAILED", RefundAccepted),
        ("PROCESSED, THEN FAILED", RefundAccepted),
        ("", RefundAccepted),
    ],
)
async def test_only_whole_remarks_settle_a_refund(
    world: World, paid: Order, remark: str, fact: type[RefundFact]
) -> None:
    await world.connector.refund(refund(paid), world.send)
    await world.sim("refund", prodRefundId="refund-1", remarks=remark)
    looked = await world.connector.look_refund(refund(paid), world.send)
    assert looked is not None
    assert isinstance(looked.facts[0], fact)


async def test_a_lost_answer_is_unsure_and_the_status_says_that_it_arrived(world: World, paid: Order) -> None:
    world.faults("refund_lost")
    with pytest.raises(Unsure):
        await world.connector.refund(refund(paid), world.send)
    looked = await world.connector.look_refund(refund(paid), world.send)
    assert looked is not None
    assert isinstance(looked.facts[0], RefundAccepted)


async def test_a_refusal_is_a_refusal(world: World, paid: Order) -> None:
    world.faults("refund_refused")
    with pytest.raises(Declined, match="OTS0600"):
        await world.connector.refund(refund(paid), world.send)
    with pytest.raises(Declined, match="transaction id"):
        await world.connector.refund(refund(world.order()), world.send)


async def test_a_refund_over_several_products(world: World) -> None:
    lines = [{"name": "NSE", "amount": "300.00"}, {"name": "BSE", "amount": "19.00"}]
    metadata = {"email": "a@b.example", "mobile": "8888888800", "products": lines}
    paid = await _paid(world, metadata=metadata)
    told = await world.connector.refund(refund(paid, "100.00"), world.send)
    assert isinstance(told.facts[0], RefundAccepted)
    shares = {r["prodName"]: (r["prodRefundId"], r["refundAmt"]) for r in _refunds(world)}
    assert shares == {"NSE": ("refund-1-1", "94.05"), "BSE": ("refund-1-2", "5.95")}
    looked = await world.connector.look_refund(refund(paid, "100.00"), world.send)
    assert looked is not None
    assert isinstance(looked.facts[0], RefundAccepted)


async def test_one_products_failure_under_an_overall_success_is_noticed(world: World) -> None:
    lines = [{"name": "NSE", "amount": "300.00"}, {"name": "BSE", "amount": "19.00"}]
    metadata = {"email": "a@b.example", "mobile": "8888888800", "products": lines}
    paid = await _paid(world, metadata=metadata)
    world.faults("refund_line")
    with pytest.raises(Unsure, match="part"):
        await world.connector.refund(refund(paid, "319.00"), world.send)
    looked = await world.connector.look_refund(refund(paid, "319.00"), world.send)
    assert looked is not None
    assert looked.facts == (RefundAnswerLost(),)


async def test_one_product_that_fails_under_an_overall_success_is_declined(world: World, paid: Order) -> None:
    world.faults("refund_line")
    with pytest.raises(Declined, match="OTS0600"):
        await world.connector.refund(refund(paid), world.send)


def _refunds(world: World) -> list[dict[str, str]]:
    refunds: list[dict[str, str]] = world.simulator.gateway.state["refunds"]
    return refunds


@pytest.mark.parametrize("part", [1, 2, 99, 100, 3333, 31_899, 31_900])
def test_shares_add_up_and_never_pass_what_a_product_was_paid(part: int) -> None:
    lines = [
        {"name": "A", "amount": "0.01"},
        {"name": "B", "amount": "18.99"},
        {"name": "C", "amount": "300"},
    ]
    whole = order(metadata={"products": lines})
    shares = refund_lines(RefundOrder("r", whole, Money(part, "INR"), ""), config())
    paid = {"A": 1, "B": 1899, "C": 30_000}
    assert sum(share.amount_minor for share in shares) == part
    assert all(0 < share.amount_minor <= paid[share.name] for share in shares)
    assert len({share.id for share in shares}) == len(shares)


@given(st.lists(st.integers(1, 5_000), min_size=2, max_size=6), st.lists(st.integers(1, 3_000), max_size=12))
def test_parts_of_a_split_payment_add_up_to_what_each_product_was_paid(
    amounts: list[int], parts: list[int]
) -> None:
    lines = [{"name": str(n), "amount": f"{minor / 100:.2f}"} for n, minor in enumerate(amounts)]
    whole = order(amount=Money(sum(amounts), "INR"), metadata={"products": lines})
    back, before = dict.fromkeys(map(str, range(len(amounts))), 0), 0
    for n, part in enumerate([*parts, sum(amounts)]):  # the last takes what is left
        part = min(part, sum(amounts) - before)
        shares = refund_lines(RefundOrder(f"r{n}", whole, Money(part, "INR"), "", None, before), config())
        assert sum(share.amount_minor for share in shares) == part
        for share in shares:
            assert share.amount_minor > 0
            back[share.name] += share.amount_minor
            assert back[share.name] <= amounts[int(share.name)]
        before += part
    assert list(back.values()) == amounts
