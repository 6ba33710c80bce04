"""The Merchant API client against the simulated desk, over real HTTP; the wire is stated by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from tillgate.domain.dialogue import Tell
from tillgate.domain.errors import Declined, Misconfigured, Unsure
from tillgate.domain.money import Money
from tillgate.domain.payment import Accepted, Closed, Paid, RefundAccepted, RefundSucceeded
from tillgate.providers.click import PROVIDER
from tillgate.providers.click.merchant_api import FiscalItem, MerchantApi, PaymentUnsure
from tillgate.spi import HttpCall, HttpReply, Looks, Order, RefundOrder, Refunds

NOW_S = 1_795_255_445.0  # 2026-11-21 15:04:05 in Tashkent
PRICE = Money(500_050, "UZS")
ITEM = FiscalItem("Choy 1 dona", "10202001002000000", "1545643", 500_050, 1, 53_577, 12, tin="123456789")


class Recorder:
    """Keeps calls and answers them from a list."""

    def __init__(self, *replies: tuple[int, object]) -> None:
        self.calls: list[HttpCall] = []
        self.replies = list(replies)

    async def __call__(self, call: HttpCall) -> HttpReply:
        self.calls.append(call)
        status, body = self.replies.pop(0) if self.replies else (200, {"error_code": 0})
        return HttpReply(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def api(config: dict[str, Any], send: Any) -> MerchantApi:
    return MerchantApi(PROVIDER.config(**config), send, now_s=lambda: NOW_S)


# sha1("1795255445" + "TEST-click-secret"), by `printf '1795255445TEST-click-secret' | sha1sum`
AUTH = "777:af759ca4a952aefa1a5d4556f11d0c282f3645bc:1795255445"
OK = {"error_code": 0, "error_note": "Success"}
CALLS = [
    ("invoice", lambda a: a.create_invoice(PRICE, "998901234567", "A"), {**OK, "invoice_id": 5},
     "POST", "invoice/create",
     {"service_id": 12345, "phone_number": "998901234567", "merchant_trans_id": "A", "amount": 5000.5}),
    ("invoice status", lambda a: a.invoice_status(5), {**OK, "invoice_status": -99},
     "GET", "invoice/status/12345/5", None),
    ("status", lambda a: a.payment_status(9), {**OK, "payment_id": 9, "payment_status": 2},
     "GET", "payment/status/12345/9", None),
    ("by reference", lambda a: a.payment_by_reference("a/b", datetime(2026, 11, 21, tzinfo=UTC).date()),
     {**OK, "payment_id": 9}, "GET", "payment/status_by_mti/12345/a%2Fb/2026-11-21", None),
    ("reversal", lambda a: a.reverse(9), {**OK, "payment_id": 9}, "DELETE", "payment/reversal/12345/9", None),
    ("token", lambda a: a.request_card_token("8600123412341234", "0528", temporary=True),
     {**OK, "card_token": "T", "phone_number": "99890***1234", "temporary": True},
     "POST", "card_token/request",
     {"service_id": 12345, "card_number": "8600123412341234", "expire_date": "0528", "temporary": 1}),
    ("verify", lambda a: a.verify_card_token("T", "012345"), {**OK, "card_number": "8600 55** **** 3244"},
     "POST", "card_token/verify", {"service_id": 12345, "card_token": "T", "sms_code": 12345}),
    ("token payment", lambda a: a.pay_with_token("T", Money(1_000_00, "UZS"), "A"),
     {**OK, "payment_id": "598761234", "payment_status": 1}, "POST", "card_token/payment",
     {"service_id": 12345, "card_token": "T", "amount": 1000, "transaction_parameter": "A"}),
    ("token delete", lambda a: a.delete_card_token("T"), OK, "DELETE", "card_token/12345/T", None),
    ("pass", lambda a: a.click_pass("1234567415821", Money(500_00, "UZS"), cashbox="KASSA-1", reference="A"),
     {**OK, "payment_id": 7, "payment_status": 2, "confirm_mode": 0}, "POST", "click_pass/payment",
     {"service_id": 12345, "otp_data": "1234567415821", "amount": 500, "cashbox_code": "KASSA-1",
      "transaction_id": "A"}),
    ("confirm", lambda a: a.confirm_pass(7), OK, "POST", "click_pass/confirm",
     {"service_id": 12345, "payment_id": 7}),
    ("mode on", lambda a: a.set_pass_confirmation(on=True), OK, "PUT", "click_pass/confirmation/12345", None),
    ("mode off", lambda a: a.set_pass_confirmation(on=False), OK, "DELETE",
     "click_pass/confirmation/12345", None),
    ("items", lambda a: a.submit_items(9, [ITEM], received_card=500_050), OK, "POST",
     "payment/ofd_data/submit_items",
     {"service_id": 12345, "payment_id": 9, "received_ecash": 0, "received_cash": 0,
      "received_card": 500050,
      "items": [{"Name": "Choy 1 dona", "SPIC": "10202001002000000", "PackageCode": "1545643",
                 "Price": 500050, "Amount": 1, "VAT": 53577, "VATPercent": 12,
                 "CommissionInfo": {"TIN": "123456789"}}]}),
    ("receipt", lambda a: a.submit_receipt(9, "https://ofd.soliq.uz/epi?t=1"), OK, "POST",
     "payment/ofd_data/submit_qrcode",
     {"service_id": 12345, "payment_id": 9, "qrcode": "https://ofd.soliq.uz/epi?t=1"}),
    ("fiscal", lambda a: a.fiscal_receipt(9), {"paymentId": 9, "qrCodeURL": "https://ofd.soliq.uz/epi"},
     "GET", "payment/ofd_data/12345/9", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "answer", "method", "path", "body"), [row[1:] for row in CALLS], ids=[row[0] for row in CALLS]
)
async def test_each_call_is_what_the_documentation_shows(
    config: dict[str, Any], call: Any, answer: object, method: str, path: str, body: object
) -> None:
    send = Recorder((200, answer))
    await call(api(config, send))
    (sent,) = send.calls
    assert (sent.method, sent.url) == (method, f"https://api.click.uz/v2/merchant/{path}")
    assert (json.loads(sent.body) if sent.body else None) == body
    assert sent.headers["Auth"] == AUTH
    assert sent.headers["Accept"] == sent.headers["Content-Type"] == "application/json"


async def test_amounts_are_exact_on_the_wire(config: dict[str, Any]) -> None:
    for tiyin, text in (
        (1, b"0.01"),
        (115, b"1.15"),
        (1999, b"19.99"),
        (99_999_999_999_999, b"999999999999.99"),
    ):
        send = Recorder((200, {**OK, "invoice_id": 1}))
        await api(config, send).create_invoice(Money(tiyin, "UZS"), "998901234567", "A")
        assert text in send.calls[0].body
    with pytest.raises(ValueError, match="UZS"):
        await api(config, Recorder()).create_invoice(Money(1, "USD"), "998901234567", "A")


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, {"error_code": -5017, "error_note": "Insufficient\nfunds"}, Declined),
        (401, b"", Declined),
        (404, {"error_note": "Not found"}, Declined),
        (500, b"", Unsure),
        (502, b"<html>", Unsure),
        (408, b"", Unsure),
        (429, b"", Unsure),
        (302, b"", Unsure),
        (200, b"<html>", Unsure),
        (200, b"[]", Unsure),
        (200, b"", Unsure),
        (200, {"payment_id": 9, "payment_status": 2}, Unsure),
        (200, {"error_code": 0}, Unsure),
    ],
)
async def test_only_an_explicit_success_is_believed(
    config: dict[str, Any], status: int, body: object, error: type[Exception]
) -> None:
    with pytest.raises(error) as raised:
        await api(config, Recorder((status, body))).pay_with_token("T-secret", PRICE, "A")
    assert "T-secret" not in str(raised.value)
    assert "TEST-click-secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"error_code":0,"error_note":null,"payment_id":9,"payment_status":2}', None),
        (b'{"error_code":0,"error_note":{"ru":"x"},"payment_id":9,"payment_status":2}', None),
        (b'{"error_code":-1,"error_note":null}', Declined),
        (b'{"error_code":"-1","error_note":["x"]}', Declined),
        (b'{"error_code":null,"payment_id":9,"payment_status":2}', PaymentUnsure),
        (b'{"error_code":"OK","payment_id":9,"payment_status":2}', PaymentUnsure),
        (b'{"error_code":true,"payment_id":9,"payment_status":2}', PaymentUnsure),
        (b'{"error_code":0.5,"payment_id":9,"payment_status":2}', PaymentUnsure),
        (b'{"error_code":0,"payment_id":9,"payment_status":"done"}', PaymentUnsure),
        (b'{"error_code":0,"payment_id":0,"payment_status":2}', Unsure),
        (b'{"error_code":0,"payment_id":1e30,"payment_status":2}', Unsure),
        (b'{"error_code":0,"error_note":"\xff","payment_id":9,"payment_status":2}', PaymentUnsure),
        (b'{"error_code":0,"x":' + b"[" * 100_000, Unsure),
        (b'{"error_code":0,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", Unsure),
    ],
)
async def test_an_odd_answer_is_unsure_and_names_the_payment_where_it_can(
    config: dict[str, Any], body: bytes, error: type[Exception] | None
) -> None:
    call = api(config, Recorder((200, body))).pay_with_token("T", PRICE, "A")
    if error is None:
        assert (await call).payment_id == 9
        return
    with pytest.raises(error) as raised:
        await call
    assert type(raised.value) is error
    assert getattr(raised.value, "payment_id", 9) == 9


async def test_a_refusal_that_says_success_is_neither(config: dict[str, Any]) -> None:
    with pytest.raises(Unsure):
        await api(config, Recorder((400, {"error_code": 0}))).reverse(9)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda a: a.payment_status(9), {"payment_id": 8, "payment_status": 2}),
        (lambda a: a.payment_status(9), {"payment_id": 9}),
        (lambda a: a.payment_status(9), {"payment_id": 9, "payment_status": None}),
        (lambda a: a.reverse(9), {"payment_id": 8}),
        (lambda a: a.invoice_status(5), {"invoice_status_note": "Created"}),
        (lambda a: a.create_invoice(PRICE, "998901234567", "A"), {"invoice_id": None}),
        (lambda a: a.request_card_token("8600123412341234", "0528", temporary=True), {"card_token": None}),
        (lambda a: a.click_pass("1", PRICE, reference="A"), {"payment_status": 2}),
        (lambda a: a.click_pass("1", PRICE, reference="A"), {"payment_id": 7}),
    ],
)
async def test_an_answer_without_what_was_asked_or_about_another_payment_is_unsure(
    config: dict[str, Any], call: Any, answer: dict[str, object]
) -> None:
    with pytest.raises(Unsure):
        await call(api(config, Recorder((200, {**OK, **answer}))))


@pytest.mark.parametrize("reference", ["", ".", ".."])
async def test_a_reference_that_could_not_be_asked_by_is_refused(
    config: dict[str, Any], reference: str
) -> None:
    """A path with `..` for a part names another call."""
    send = Recorder()
    asked = api(config, send)
    for call in (
        asked.charge_pass("1234567415821", PRICE, reference=reference),
        asked.pay_with_token("T", PRICE, reference),
        asked.payment_by_reference(reference, datetime(2026, 11, 21, tzinfo=UTC).date()),
        asked.delete_card_token(reference),
    ):
        with pytest.raises(ValueError, match="text"):
            await call
    assert send.calls == []


def test_the_merchant_api_needs_its_user(config: dict[str, Any]) -> None:
    del config["merchant_user_id"]
    with pytest.raises(Misconfigured, match="merchant_user_id"):
        api(config, Recorder())
    connector = PROVIDER.connect(PROVIDER.config(**config))
    assert not isinstance(connector, Looks)
    assert not isinstance(connector, Refunds)


@pytest.mark.parametrize(
    "over",
    [{"spic": "1"}, {"name": ""}, {"name": "x" * 64}, {"tin": None}, {"pinfl": "1" * 14}, {"price": 1.5},
     {"price": True}, {"vat": -1}, {"package_code": ""}, {"tin": "12345678x"}, {"labels": ("x" * 22,)}],
)  # fmt: skip
def test_a_line_that_the_tax_office_would_refuse_is_refused_here(over: dict[str, Any]) -> None:
    good = {"name": "Choy", "spic": "1" * 17, "package_code": "1", "price": 1, "amount": 1, "vat": 0}
    good |= {"vat_percent": 12, "tin": "123456789"}
    FiscalItem(**good)
    with pytest.raises(ValueError, match=r"."):
        FiscalItem(**(good | over))


# --- against the desk ---------------------------------------------------------------------------------------


async def test_a_payment_is_looked_up_and_reversed(desk: SimpleNamespace) -> None:
    receipt = await desk.click.pay("A", "5000.50")
    number = receipt.payment.paydoc_id
    assert (await desk.api.payment_status(number)).payment_status == 2
    day = datetime(2026, 11, 21, tzinfo=UTC).date()
    assert (await desk.api.payment_by_reference("A", day)).payment_id == number
    await desk.api.reverse(number)
    assert (await desk.api.payment_status(number)).payment_status == -1
    with pytest.raises(Declined):
        await desk.api.reverse(number)


async def test_an_old_payment_is_reversed_on_the_first_of_the_month_only(desk: SimpleNamespace) -> None:
    receipt = await desk.click.pay("A", "5000.50")
    desk.clock.now = NOW_S + 11 * 86_400  # 2 December
    with pytest.raises(Declined, match="month"):
        await desk.api.reverse(receipt.payment.paydoc_id)
    desk.clock.now = NOW_S + 10 * 86_400  # 1 December
    await desk.api.reverse(receipt.payment.paydoc_id)


async def test_a_wrong_key_a_wrong_clock_and_another_service_are_refused(
    desk: SimpleNamespace, config: dict[str, Any]
) -> None:
    url = f"{desk.base}/v2/merchant"
    for over, now in (({"secret_key": "WRONG-secret"}, NOW_S), ({"merchant_user_id": 1}, NOW_S),
                      ({}, NOW_S + 3600), ({"service_id": 1}, NOW_S)):  # fmt: skip
        other = PROVIDER.config(**(config | {"api_url": url} | over))
        with pytest.raises(Declined, match=r"401|404"):
            await MerchantApi(other, desk.send, now_s=lambda now=now: now).invoice_status(1)


async def test_a_card_is_linked_charged_and_forgotten(desk: SimpleNamespace) -> None:
    token = (await desk.api.request_card_token("8600123412341234", "0528", temporary=False)).card_token
    with pytest.raises(Declined):
        await desk.api.pay_with_token(token, PRICE, "A")
    with pytest.raises(Declined):
        await desk.api.verify_card_token(token, "00000")
    await desk.api.verify_card_token(token, "12345")
    paid = await desk.api.pay_with_token(token, PRICE, "A")
    assert paid.payment_status == 2
    assert desk.till.paid == ["A"]
    await desk.api.delete_card_token(token)
    with pytest.raises(Declined):
        await desk.api.delete_card_token(token)


async def test_an_invoice_is_asked_for_and_its_state_read(desk: SimpleNamespace) -> None:
    made = await desk.api.create_invoice(PRICE, "998901234567", "A")
    assert (await desk.api.invoice_status(made.invoice_id)).value == 0
    with pytest.raises(Declined):
        await desk.api.create_invoice(PRICE, "+998901234567", "A")


async def test_a_receipt_is_sent_in_tiyin(desk: SimpleNamespace) -> None:
    number = (await desk.click.pay("A", "5000.50")).payment.paydoc_id
    assert await desk.api.fiscal_receipt(number) is None
    with pytest.raises(Declined):
        await desk.api.submit_items(number, [ITEM], received_card=5_000)
    await desk.api.submit_items(number, [ITEM], received_card=500_050)
    assert (await desk.api.fiscal_receipt(number) or "").startswith("https://")


# --- as a connector: looks and refunds ----------------------------------------------------------------------


def order(details: str | None, amount: Money = PRICE) -> Order:
    made = Order("att-1", "pay-1", "A", "click", amount, 0, 0, external_id="1")
    return replace(made, details=details)


@pytest.mark.parametrize(
    ("status", "fact"),
    [
        (2, Paid(500_050, "UZS")),
        (-1, Closed("failed", "click payment_status -1")),
        (0, Accepted()),
        (1, Accepted()),
    ],
)
async def test_a_look_says_what_click_says(config: dict[str, Any], status: int, fact: object) -> None:
    send = Recorder((200, {**OK, "payment_id": 9, "payment_status": status}))
    connector = PROVIDER.connect(PROVIDER.config(**config))
    told = await connector.look(order('{"click_paydoc_id":9}'), send)
    assert told == Tell((fact,), operation_id="att-1")
    assert send.calls[0].url.endswith("/payment/status/12345/9")


async def test_without_clicks_number_nothing_is_claimed_and_nothing_sent(config: dict[str, Any]) -> None:
    send = Recorder()
    connector = PROVIDER.connect(PROVIDER.config(**config))
    assert await connector.look(order(None), send) == Tell((Accepted(),), operation_id="att-1")
    with pytest.raises(Declined):
        await connector.refund(RefundOrder("ref-1", order(None), PRICE, "why"), send)
    assert send.calls == []


async def test_a_refund_is_a_reversal_of_the_whole(config: dict[str, Any]) -> None:
    connector = PROVIDER.connect(PROVIDER.config(**config))
    kept = order('{"click_paydoc_id":9,"fiscal.perform":{}}')
    send = Recorder((200, {**OK, "payment_id": 9}))
    told = await connector.refund(RefundOrder("ref-1", kept, PRICE, "why"), send)
    assert told == Tell((RefundSucceeded("9"),), operation_id="ref-1")
    assert send.calls[0].method == "DELETE"
    assert send.calls[0].url.endswith("/payment/reversal/12345/9")
    with pytest.raises(Declined, match="whole"):
        await connector.refund(RefundOrder("ref-2", kept, Money(1, "UZS"), "why"), send)
    assert connector.refund_rules("click").partial is False


@pytest.mark.parametrize(("status", "fact"), [(2, None), (-1, RefundSucceeded("9")), (1, RefundAccepted())])
async def test_a_lost_refund_is_looked_up(config: dict[str, Any], status: int, fact: Any) -> None:
    send = Recorder((200, {**OK, "payment_id": 9, "payment_status": status}))
    connector = PROVIDER.connect(PROVIDER.config(**config))
    refund = RefundOrder("ref-1", order('{"click_paydoc_id":9}'), PRICE, "why")
    told = await connector.look_refund(refund, send)
    assert told == (None if fact is None else Tell((fact,), operation_id="ref-1"))
