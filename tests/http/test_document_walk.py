"""The walk of the merchant API document by a client that knows only the document.

Expectations are literals from the document and its rulings (the merchant API, §1.2 to §1.5).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support.serving import Client, Credentials, Served, client, hub, new_merchant
from support.wallets import account_at

WALLETS = (
    '{"status":"success","message":"Wallet channels retrieved successfully","data":{"wallets":['
    '{"id":"gopay","name":"GoPay","currency":"IDR"},'
    '{"id":"ovo","name":"OVO","currency":"IDR"},'
    '{"id":"dana","name":"Dana","currency":"IDR"},'
    '{"id":"shopeepay","name":"ShopeePay","currency":"IDR"}]}}'
)
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")
CODED = [
    pytest.param(False, "401", id="as it should be"),
    pytest.param(True, "200", id="as early documents printed it"),
]


def error(answer: Any) -> tuple[int, str, str, str]:
    """The documented keys of an error body; the envelope has `status` first."""
    body = answer.json
    assert list(body)[:4] == ["status", "errorCode", "errorType", "errorMessage"], body
    assert body["status"] == "failed"
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.status, body["errorCode"], body["errorType"], body["errorMessage"]


@pytest.fixture
async def walker(request: pytest.FixtureRequest, served: Served) -> AsyncIterator[tuple[Client, Credentials]]:
    """A merchant whose wallets are behind a provider: the sandbox, or one that is simulated."""
    made = new_merchant(served.database_url)
    async with AsyncExitStack() as stack:
        if request.param != "sandbox":
            await stack.enter_async_context(
                account_at(request.param, served.url, served.database_url, made.merchant_id)
            )
        yield await stack.enter_async_context(client(served.url, made)), made


@pytest.mark.parametrize(
    ("walker", "token", "payments", "slash"),
    [
        ("sandbox", "/token", "/payment", ""),
        ("sandbox", "/token", "/payment", "/"),
        ("sandbox", "/auth/token", "/payments", ""),
        ("sandbox", "/auth/token", "/payments", "/"),
        ("xendit", "/token", "/payment", ""),
        ("midtrans", "/auth/token", "/payments", ""),
    ],
    indirect=["walker"],
)
async def test_the_whole_walk(
    walker: tuple[Client, Credentials], token: str, payments: str, slash: str
) -> None:
    shop, merchant = walker
    order_id = f"INV/2026 {payments}{slash or '-'}"
    shop.token = ""

    # The document's own example sends an Authorization header that cannot be there yet.
    answer = await shop.ask(
        "POST",
        token + slash,
        {"api_key": merchant.api_key, "api_secret": merchant.api_secret},
        headers={"Authorization": 'Bearer <access_token>/(example : "eyJ…",)'.encode().decode("latin-1")},
    )
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert list(answer.json) == ["access_token", "expires_in", "token_type"]
    assert answer.json["access_token"].startswith("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.")
    assert answer.json["expires_in"] == 3600
    assert type(answer.json["expires_in"]) is int
    assert answer.json["token_type"] == "Bearer"
    shop.token = answer.json["access_token"]

    answer = await shop.ask("GET", "/wallets" + slash)
    assert (answer.status, answer.body.decode()) == (200, WALLETS)

    wanted = {"wallet_id": "dana", "amount": 150000, "currency": "IDR", "order_id": order_id}
    answer = await shop.ask("POST", payments + slash, {**wanted, "unknown_field": {"is": ["ignored"]}})
    assert answer.status == 200
    opened = answer.json
    assert list(opened)[:4] == ["payment_id", "status", "qr_url", "expires_at"]
    payment_id = opened["payment_id"]
    assert re.fullmatch(r"pay_\w+", payment_id)
    assert opened["status"] == "pending"
    assert opened["qr_url"].startswith(shop.base + "/")
    assert RFC3339.fullmatch(opened["expires_at"])
    assert datetime.fromisoformat(opened["expires_at"]) > datetime.now(UTC)
    assert "Idempotent-Replayed" not in answer.headers

    again = await shop.ask("POST", payments + slash, wanted)
    assert (again.status, again.json) == (200, opened)
    assert again.headers["Idempotent-Replayed"] == "true"

    documented = {
        "payment_id": payment_id,
        "order_id": order_id,
        "status": "pending",
        "amount": 150000,
        "currency": "IDR",
        "wallet_id": "dana",
        "paid_at": None,
    }
    answer = await shop.ask("GET", f"{payments}/{payment_id}{slash}")
    assert answer.status == 200
    assert list(answer.json.items())[:7] == list(documented.items())
    assert b'"amount":150000,' in answer.body

    answer = await shop.ask("POST", f"/sandbox/payments/{payment_id}/pay{slash}")
    assert answer.status == 200
    paid = (await shop.ask("GET", f"{payments}/{payment_id}{slash}")).json
    assert RFC3339.fullmatch(paid["paid_at"])
    assert list(paid.items())[:6] == list({**documented, "status": "success"}.items())[:6]
    assert (paid["status_detail"], paid["paid_with"]) == ("paid", "DANA")

    body = {"amount": 50000, "reason": "returned goods"}
    answer = await shop.ask("POST", f"{payments}/{payment_id}/refund{slash}", body)
    assert answer.status == 200
    assert list(answer.json) == ["refund_id", "payment_id", "status", "amount"]
    assert re.fullmatch(r"refund_\w+", answer.json["refund_id"])
    assert answer.json | {"refund_id": ""} == {
        "refund_id": "",
        "payment_id": payment_id,
        "status": "processing",
        "amount": 50000,
    }
    # Refunds leave the document's `status` alone: its clients know no fourth word.
    after = await shop.until(payment_id, status_detail="partially_refunded")
    assert (after["status"], after["refunded_amount"]) == ("success", 50000)
    listed = (await shop.ask("GET", f"{payments}/{payment_id}/refunds{slash}")).json
    assert [(one["refund_id"], one["status"]) for one in listed["refunds"]] == [
        (answer.json["refund_id"], "success")
    ]
    answer = await shop.ask("POST", f"{payments}/{payment_id}/refund{slash}", {**body, "amount": 100000})
    assert answer.status == 200
    assert (await shop.until(payment_id, status_detail="refunded"))["status"] == "success"


async def test_a_body_on_a_get_is_ignored(shop: Client) -> None:
    payment_id = await shop.open()
    for path in ("/wallets", f"/payments/{payment_id}", f"/payment/{payment_id}/refunds"):
        for raw in (b'{"wallets":[]}', b"not json \xff\x00", b"[" * 5000):
            answer = await shop.ask("GET", path, raw=raw)
            assert answer.status == 200
        answer = await shop.ask("GET", path, raw=b"{}", headers={"Content-Type": "text/plain"})
        assert answer.status == 200


@pytest.mark.parametrize("action", ["fail", "expire"])
async def test_what_fails_and_what_expires_is_failed(shop: Client, action: str) -> None:
    order_id = f"again after {action}"
    payment_id = await shop.open(order_id)
    assert (await shop.act(payment_id, action)).json["status"] == "failed"
    body = await shop.status(payment_id)
    assert body["status_detail"] == {"fail": "failed", "expire": "expired"}[action]
    assert body["paid_at"] is None

    # The cashier tries again, with another wallet: the same payment goes on with a new attempt.
    again = await shop.open(order_id, wallet_id="ovo")
    assert again == payment_id
    body = await shop.status(payment_id)
    assert (body["status"], body["wallet_id"]) == ("pending", "ovo")
    assert (await shop.act(payment_id, "pay")).json["status"] == "success"


async def test_paid_late_is_paid(shop: Client) -> None:
    payment_id = await shop.open()
    assert (await shop.act(payment_id, "pay-late")).json["status"] == "success"
    assert (await shop.status(payment_id))["status_detail"] == "paid_late"


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("legacy", "code"), CODED)
async def test_bad_credentials(tmp_path: Path, sqlite_url: str, legacy: bool, code: str) -> None:
    """A token's error has no `status` in any version of the document; HTTP stays 401 in both spellings."""
    with hub(tmp_path, sqlite_url, legacy_error_code_200=int(legacy)) as process:
        known = new_merchant(sqlite_url)
        async with client(process.url, known) as shop:
            for key, secret in (
                (known.api_key, "wrong"),
                ("nobody", known.api_secret),
                (known.api_key, known.api_secret + " "),
                (known.api_key.upper(), known.api_secret),
                ("", ""),
                ("ключ", "ключ"),
                ("nul\0", "nul\0"),
                ("x" * 5000, "y" * 5000),
            ):
                for path in ("/token", "/auth/token"):
                    answer = await shop.ask("POST", path, {"api_key": key, "api_secret": secret})
                    assert answer.status == 401
                    assert answer.json == {
                        "errorCode": code,
                        "errorType": "invalid_credentials",
                        "errorMessage": "API key or secret is incorrect.",
                        "request_id": answer.headers["X-Request-ID"],
                    }
                    assert answer.headers["Cache-Control"] == "no-store"
                    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            # The switch is for this one error: the other operations never print "200".
            answer = await shop.ask("GET", "/wallets", token="nonsense")
            assert error(answer)[:3] == (401, "401", "unauthorized")
            answer = await shop.ask("POST", "/token", {"api_key": "x"})
            assert (answer.status, answer.json["errorCode"]) == (400, "400")
            assert answer.json["errorMessage"] == "Missing field: api_secret"
            assert "status" not in answer.json
        assert process.stop() == 0
        assert "Traceback" not in process.log


OPERATIONS = [
    ("GET", "/wallets", None),
    ("POST", "/payment", {"wallet_id": "gopay", "amount": 1, "currency": "IDR", "order_id": "x"}),
    ("POST", "/payments", {}),
    ("GET", "/payment/{}", None),
    ("GET", "/payments/{}", None),
    ("POST", "/payment/{}/refund", {"amount": 1, "reason": "x"}),
    ("POST", "/payments/{}/refund", {}),
    ("GET", "/payments/{}/refunds", None),
    ("POST", "/sandbox/payments/{}/pay", None),
]


@pytest.mark.parametrize(("method", "path", "body"), OPERATIONS, ids=[f"{m} {p}" for m, p, _ in OPERATIONS])
async def test_without_a_token(shop: Client, method: str, path: str, body: Any) -> None:
    payment_id = await shop.open()
    unauthorized = (401, "401", "unauthorized", "Access token is missing or expired.")
    for given in ("", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Token " + shop.token, shop.token):
        answer = await shop.ask(method, path.format(payment_id), body, headers={"Authorization": given})
        assert error(answer) == unauthorized
        # RFC 6750 §3.1: without credentials no error code is said.
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="tillgate"'
    answer = await shop.ask(method, path.format(payment_id), body, token=shop.token + "x")
    assert error(answer) == unauthorized
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="tillgate", error="invalid_token"'
    for scheme in ("bearer", "BEARER"):
        answer = await shop.ask(
            method, path.format(payment_id), body, headers={"Authorization": f"{scheme}  {shop.token}"}
        )
        assert answer.status != 401


@pytest.mark.parametrize("payments", ["/payment", "/payments"])
async def test_not_found_is_said_alike_for_nobodys_and_for_anothers(
    shop: Client, rival: Client, payments: str
) -> None:
    theirs = await rival.paid()
    not_found = (404, "404", "not_found", "Payment not found")
    strange = ("pay_0", "x" * 64, "x" * 2000, "%00", "pay_%00", "%ff", "%F0%9F%92%B0", "...", "%252e", "'")
    for payment_id in (theirs, theirs.upper(), *strange):
        answer = await shop.ask("GET", f"{payments}/{payment_id}")
        assert error(answer) == not_found
        answer = await shop.ask("POST", f"{payments}/{payment_id}/refund", {"amount": 1, "reason": "x"})
        assert answer.status == 404
        answer = await shop.ask("GET", f"{payments}/{payment_id}/refunds")
        assert answer.status == 404
    for action in ("pay", "fail", "expire", "pay-late"):
        answer = await shop.act(theirs, action)
        assert error(answer) == not_found
    answer = await shop.act(await shop.open(), "dance")
    assert answer.status == 404
    assert (await rival.status(theirs))["status"] == "success"


@pytest.mark.parametrize("field", ["wallet_id", "amount", "currency", "order_id"])
async def test_a_missing_field_of_create(shop: Client, field: str) -> None:
    body: dict[str, Any] = {"wallet_id": "ovo", "amount": 1000, "currency": "IDR", "order_id": "missing"}
    del body[field]
    for path in ("/payment", "/payments"):
        answer = await shop.ask("POST", path, body)
        assert error(answer) == (400, "400", "invalid_request", f"Missing field: {field}")
        assert answer.json["param"] == field


@pytest.mark.parametrize("field", ["amount", "reason"])
async def test_a_missing_field_of_refund(shop: Client, field: str) -> None:
    payment_id = await shop.paid()
    body: dict[str, Any] = {"amount": 1000, "reason": "x"}
    del body[field]
    answer = await shop.ask("POST", f"/payment/{payment_id}/refund", body)
    assert error(answer) == (400, "400", "invalid_request", f"Missing field: {field}")


async def test_an_order_with_other_content(shop: Client) -> None:
    wanted = {"wallet_id": "gopay", "amount": 5000, "currency": "IDR", "order_id": "conflict"}
    payment_id = (await shop.ask("POST", "/payments", wanted)).json["payment_id"]
    for other in ({"amount": 5001}, {"wallet_id": "ovo"}):
        answer = await shop.ask("POST", "/payments", wanted | other)
        assert error(answer)[:3] == (409, "409", "order_conflict")
    await shop.act(payment_id, "pay")
    for other in ({"amount": 5001}, {"wallet_id": "ovo"}):
        answer = await shop.ask("POST", "/payments", wanted | other)
        assert error(answer)[:3] == (409, "409", "order_conflict")
    answer = await shop.ask("POST", "/payments", wanted)
    assert (answer.status, answer.json["payment_id"], answer.json["status"]) == (200, payment_id, "success")
    await shop.act(failed := await shop.open("conflict 2", 5000), "fail")
    answer = await shop.ask("POST", "/payments", {**wanted, "order_id": "conflict 2", "amount": 6000})
    assert error(answer)[:3] == (409, "409", "order_conflict")
    assert (await shop.status(failed))["status"] == "failed"


async def test_one_order_id_of_two_merchants_is_two_orders(shop: Client, rival: Client) -> None:
    assert await shop.open("ours") != await rival.open("ours", 777)


async def test_refunds_that_are_not_allowed(shop: Client) -> None:
    refused = (409, "409", "refund_not_allowed", "Refund not allowed for this transaction")
    payment_id = await shop.open(amount=1000)
    assert error(await shop.refund(payment_id, 1000)) == refused
    await shop.act(payment_id, "fail")
    assert error(await shop.refund(payment_id, 1000)) == refused
    payment_id = await shop.paid(1000)
    assert error(await shop.refund(payment_id, 1001)) == refused
    assert (await shop.refund(payment_id, 600)).status == 200
    assert error(await shop.refund(payment_id, 401)) == refused
    assert (await shop.refund(payment_id, 400)).status == 200
    assert error(await shop.refund(payment_id, 1)) == refused
    assert (await shop.until(payment_id, status_detail="refunded"))["refunded_amount"] == 1000
    assert error(await shop.refund(payment_id, 1)) == refused


async def test_two_equal_refunds_are_two_and_with_one_key_they_are_one(shop: Client) -> None:
    payment_id = await shop.paid(1000)
    ids = {(await shop.refund(payment_id, 100)).json["refund_id"] for _ in range(2)}
    assert len(ids) == 2
    key = {"Idempotency-Key": f"refund {payment_id}"}
    first = await shop.refund(payment_id, 100, **key)
    again = await shop.refund(payment_id, 100, **key)
    assert again.body == first.body
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (await shop.until(payment_id, refunded_amount=300))["status_detail"] == "partially_refunded"


METHODS = [
    ("/token", "POST"),
    ("/auth/token", "POST"),
    ("/wallets", "GET"),
    ("/payment", "POST"),
    ("/payments", "POST"),
    ("/payment/pay_1", "GET"),
    ("/payments/pay_1", "GET"),
    ("/payment/pay_1/refund", "POST"),
    ("/payments/pay_1/refund", "POST"),
    ("/payments/pay_1/refunds", "GET"),
    ("/sandbox/payments/pay_1/pay", "POST"),
]


@pytest.mark.parametrize(("path", "allowed"), METHODS, ids=[path for path, _ in METHODS])
async def test_other_methods_are_answered_with_what_is_allowed(shop: Client, path: str, allowed: str) -> None:
    others = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND"} - {allowed}
    for method in sorted(others):
        answer = await shop.ask(method, path)
        assert answer.status == 405, method
        assert answer.headers["Allow"] == allowed
        if method == "HEAD":
            assert answer.body == b""
        else:
            assert error(answer)[1:3] == ("405", "method_not_allowed")


async def test_nothing_is_there(shop: Client) -> None:
    for path in ("/", "/nope", "/tokens", "/payments//", "/payment/pay_1/refund/x", "//wallets", "/Wallets"):
        answer = await shop.ask("GET", path)
        assert error(answer)[:3] == (404, "404", "not_found"), path


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        ("till-7:42.a_B", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("two words", False),
        ("a\tb", False),
        ("ümlaut", False),
        ('"quoted"', False),
    ],
)
async def test_the_request_id(shop: Client, given: str, echoed: bool) -> None:
    sent = given.encode().decode("latin-1")
    for path in ("/wallets", "/payments/nope", "/nope"):
        answer = await shop.ask("GET", path, headers={"X-Request-ID": sent})
        said = answer.headers["X-Request-ID"]
        assert (said == sent) is echoed
        assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", said)
        if answer.status != 200:
            assert answer.json["request_id"] == said


async def test_request_ids_differ(shop: Client) -> None:
    answers = await asyncio.gather(*(shop.ask("GET", "/wallets") for _ in range(20)))
    assert len({answer.headers["X-Request-ID"] for answer in answers}) == 20


async def test_whole_numbers_however_json_writes_them(shop: Client) -> None:
    """`150000.0` may be taken as 150000 or refused; it is never kept as a fraction."""
    for text in ("1500.0", "15e2", "1.5e3"):
        raw = b'{"wallet_id":"gopay","amount":%s,"currency":"IDR","order_id":"%s"}' % (
            text.encode(),
            f"number {text}".encode(),
        )
        answer = await shop.ask("POST", "/payments", raw=raw)
        if answer.status == 200:
            body = await shop.status(answer.json["payment_id"])
            assert (body["amount"], type(body["amount"])) == (1500, int)
        else:
            assert error(answer)[:3] == (400, "400", "invalid_request")


async def test_amounts_at_the_edges(shop: Client) -> None:
    for amount in (1, 999_999_999):
        payment_id = await shop.open(amount=amount)
        assert (await shop.status(payment_id))["amount"] == amount
        assert (await shop.act(payment_id, "pay")).json["amount"] == amount


@pytest.mark.parametrize(
    "order_id",
    [
        "a",
        "x" * 255,
        "日本語の注文",
        "💰" * 10,
        "../../etc/passwd",
        "' OR 1=1 --",
        "<script>",
        "%00",
        "\\u0000",
    ],
)
async def test_any_printable_order_id_comes_back_as_it_was(shop: Client, order_id: str) -> None:
    payment_id = await shop.open(order_id)
    assert (await shop.status(payment_id))["order_id"] == order_id
    assert await shop.open(order_id) == payment_id


async def test_json_spelled_otherwise_is_the_same_order(shop: Client) -> None:
    first = await shop.open("JSON-1", 900)
    spelled = (
        ' \n{"\\u006frder_id":"JS\\u004fN-1","currency":"IDR" ,"amount":900,\t"wallet_id":"gopay","x":null}'
    )
    answer = await shop.ask("POST", "/payments", raw=spelled.encode())
    assert (answer.status, answer.json["payment_id"]) == (200, first)


async def test_health_and_description_are_public(shop: Client) -> None:
    for path, body in (("/healthz", {"status": "ok"}), ("/readyz", {"status": "ready"})):
        answer = await shop.ask("GET", path, headers={"Authorization": ""})
        assert (answer.status, answer.json) == (200, body)
    answer = await shop.ask("GET", "/openapi.json", headers={"Authorization": ""})
    assert answer.status == 200
    assert json.loads(answer.body)["openapi"].startswith("3.1")
