"""Payments and refunds on `/v1`: created, read, cancelled, resolved, refunded; each refusal in its words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.serving import Client
from tillgate.client import ApiError, Tillgate
from tillgate.schemas_v1 import PaymentV1

GOOD: dict[str, Any] = {
    "order_id": "A-1",
    "amount_minor": 1_500_000,
    "currency": "IDR",
    "channel": "gopay",
}


async def opened(
    till: Tillgate, order_id: str = "A-1", amount_minor: int = 1_500_000, **more: Any
) -> PaymentV1:
    return await till.create_payment(
        order_id=order_id, amount_minor=amount_minor, currency="IDR", channel="gopay", **more
    )


async def test_a_payment_is_created_with_what_its_payer_is_shown(shop: Client) -> None:
    answer = await shop.ask("POST", "/v1/payments", {**GOOD, "metadata": {"table": 7, "tags": ["a"]}})

    assert answer.status == 201
    body = answer.json
    assert {name: body[name] for name in ("order_id", "amount_minor", "currency", "channel", "status")} == {
        **GOOD,
        "status": "pending",
    }
    assert (body["paid_minor"], body["refunded_minor"], body["metadata"]) == (
        0,
        0,
        {"table": 7, "tags": ["a"]},
    )
    action = body["next_action"]
    assert action["type"] == "qr"
    assert action["qr_string"].startswith("000201")
    assert action["qr_url"] == action["url"] == f"{shop.base}/pay/{body['id']}"
    assert body["expires_at"] > body["created_at"]
    assert body["created_at"].endswith("Z")
    picture = await shop.ask("GET", f"/pay/{body['id']}", headers={"Accept": "image/*", "Authorization": ""})
    assert picture.body.startswith(b"\x89PNG")


async def test_the_same_order_again_is_the_same_payment(shop: Client) -> None:
    first = await shop.ask("POST", "/v1/payments", GOOD)
    again = await shop.ask("POST", "/v1/payments", GOOD)
    other = await shop.ask("POST", "/v1/payments", {**GOOD, "amount_minor": 100_000})

    assert (first.status, again.status, other.status) == (201, 200, 409)
    assert again.json["id"] == first.json["id"]
    assert other.json["code"] == "order_conflict"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"order_id": ""}, "order_id"),
        ({"order_id": "x" * 256}, "order_id"),
        ({"order_id": "a\u0000b"}, "order_id"),
        ({"order_id": "a\nb"}, "order_id"),
        ({"amount_minor": 0}, "amount_minor"),
        ({"amount_minor": -5}, "amount_minor"),
        ({"amount_minor": 1.5}, "amount_minor"),
        ({"amount_minor": "15000"}, "amount_minor"),
        ({"amount_minor": True}, "amount_minor"),
        ({"amount_minor": 10**14}, "amount_minor"),
        ({"amount_minor": 10**12}, "amount_minor"),  # more than the wallet takes
        ({"amount_minor": 1_500_050}, "amount_minor"),  # half a rupiah
        ({"amount_minor": None}, "amount_minor"),
        ({"currency": "UZS"}, "currency"),
        ({"currency": "idr"}, "currency"),
        ({"currency": "IDRX"}, "currency"),
        ({"channel": "cash"}, "channel"),
        ({"account": "acc_00000000000000000000000000000000"}, "account"),
        ({"callback_url": "http://169.254.169.254/latest"}, "callback_url"),
        ({"callback_url": "https://127.0.0.1/x"}, "callback_url"),
        ({"callback_url": "ftp://shop.example/"}, "callback_url"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"x": "y" * 9000}}, "metadata"),
        ({"metadata": {str(number): 1 for number in range(51)}}, "metadata"),
        ({"expires_in_s": 1}, "expires_in_s"),
        ({"terminal": "a", "metadata": {"terminal": "b"}}, "terminal"),
    ],
)
async def test_what_cannot_be_is_refused_and_named(shop: Client, change: dict[str, Any], param: str) -> None:
    answer = await shop.ask("POST", "/v1/payments", GOOD | change)

    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json
    assert (problem["status"], problem["code"], problem["param"]) == (400, "invalid_request", param)
    assert problem["type"] == "/problems/invalid_request"
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert problem["title"]
    assert problem["detail"]


@pytest.mark.parametrize(
    ("raw", "status", "headers"),
    [
        (b"", 400, {}),
        (b"{", 400, {}),
        (b"[]", 400, {}),
        (b"null", 400, {}),
        (b'{"order_id":"a","order_id":"b"}', 400, {}),
        (b'{"order_id":"\xff"}', 400, {}),
        (b"{" + b'"a":' * 10_000, 400, {}),
        (b"x" * 70_000, 413, {}),
        (b"order_id=1", 415, {"Content-Type": "application/x-www-form-urlencoded"}),
        (b'{"order_id":"a","amount_minor":1,"currency":"IDR","channel":"gopay","amount":1}', 400, {}),
        (b'{"order_id":"a","amount_minor":NaN,"currency":"IDR","channel":"gopay"}', 400, {}),
    ],
)
async def test_bodies_that_are_none(shop: Client, raw: bytes, status: int, headers: dict[str, str]) -> None:
    answer = await shop.ask("POST", "/v1/payments", raw=raw, headers=headers)

    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")


async def test_unknown_addresses_and_methods_are_problems(shop: Client) -> None:
    nothing = await shop.ask("GET", "/v1/nothing")
    method = await shop.ask("DELETE", "/v1/payments")

    assert (nothing.status, nothing.json["code"]) == (404, "not_found")
    assert (method.status, method.json["code"]) == (405, "method_not_allowed")
    assert method.headers["Allow"] == "GET, POST"
    explained = await shop.ask("GET", nothing.json["type"])
    assert explained.json["status"] == 404


async def test_paid_refunded_and_told_step_by_step(till: Tillgate, shop: Client) -> None:
    payment = await opened(till)
    await shop.act(payment.id, "pay")
    paid = await till.get_payment(payment.id)
    assert (paid.status, paid.paid_minor, paid.next_action, paid.paid_with) == (
        "paid",
        1_500_000,
        None,
        "GoPay",
    )

    refund = await till.create_refund(payment.id, 500_000, "one of three came back")
    assert (refund.status, refund.amount_minor, refund.payment_id) == ("pending", 500_000, payment.id)
    while (refund := await till.get_refund(refund.id)).status == "pending":
        await asyncio.sleep(0.05)
    assert refund.status == "succeeded"
    assert refund.done_at is not None
    assert (await till.get_payment(payment.id)).refunded_minor == 500_000
    assert [one.id for one in await till.payment_refunds(payment.id)] == [refund.id]
    assert [one.id async for one in till.refunds()] == [refund.id]
    with pytest.raises(ApiError) as refused:
        await till.create_refund(payment.id, 1_000_001, "too much")
    assert (refused.value.http_status, refused.value.error_code) == (409, "refund_not_allowed")
    [attempt] = await till.attempts(payment.id)
    assert (attempt.status, attempt.provider, attempt.paid_minor) == ("paid", "sandbox", 1_500_000)

    kinds = [one.type async for one in till.events(subject=payment.id)]
    assert kinds[0] == "refund.succeeded"
    assert kinds[-2:] == ["payment.paid", "payment.pending"]


async def test_cancelled_once_and_for_all(till: Tillgate, shop: Client) -> None:
    payment = await opened(till)
    cancelled = await till.cancel_payment(payment.id, reason="changed their mind")
    assert (cancelled.status, cancelled.next_action) == ("cancelled", None)
    assert (await till.cancel_payment(payment.id)).status == "cancelled"
    assert [one.type async for one in till.events(subject=payment.id)] == [
        "payment.cancelled",
        "payment.pending",
    ]

    paid = await opened(till, "A-2")
    await shop.act(paid.id, "pay")
    with pytest.raises(ApiError) as refused:
        await till.cancel_payment(paid.id)
    assert refused.value.error_code == "not_allowed"
    assert (await till.get_payment(paid.id)).status == "paid"


async def test_money_that_does_not_fit_is_held_until_somebody_decides(till: Tillgate, shop: Client) -> None:
    payment = await opened(till)
    await shop.act(payment.id, "pay", "wrong_amount")
    held = await till.get_payment(payment.id)
    assert (held.status, held.hold, held.paid_minor) == ("review", "amount_mismatch", 1_499_900)
    assert [one.id async for one in till.payments(status="review")] == [payment.id]

    resolved = await till.resolve_payment(payment.id, "accept", "one rupiah is forgiven")
    assert (resolved.status, resolved.hold) == ("paid", None)
    with pytest.raises(ApiError) as refused:
        await till.resolve_payment(payment.id, "accept", "again")
    assert refused.value.error_code == "not_allowed"
    [note] = [one.data.note async for one in till.events(subject=payment.id) if one.data.note]
    assert note.pop("by").startswith("the merchant ")
    assert note == {"resolved": "accept", "reason": "one rupiah is forgiven"}


async def test_a_lost_answer_is_unsure_and_decided_by_an_operator(till: Tillgate) -> None:
    """905: the bank never got the charge and its answer is lost; nobody has looked yet."""
    payment = await opened(till, amount_minor=90_500)
    assert payment.status == "unsure"
    assert payment.next_action is None

    failed = await till.resolve_payment(payment.id, "failed", "the bank says no such charge")
    assert failed.status == "failed"


@pytest.mark.parametrize("token", ["", "x", "Bearer", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."])
async def test_without_a_token_nothing_is_said(shop: Client, token: str) -> None:
    for method, path in (("GET", "/v1/payments"), ("POST", "/v1/payments"), ("GET", "/v1/accounts")):
        answer = await shop.ask(method, path, headers={"Authorization": f"Bearer {token}" if token else ""})
        assert (answer.status, answer.json["code"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_wrong_credentials_are_a_problem(shop: Client) -> None:
    for key, secret in ((shop.credentials.api_key, "wrong"), ("nobody", shop.credentials.api_secret)):
        answer = await shop.ask("POST", "/v1/token", {"api_key": key, "api_secret": secret})
        assert (answer.status, answer.json["code"]) == (401, "invalid_credentials")
        assert shop.credentials.api_secret not in answer.body.decode()
