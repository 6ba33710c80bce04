"""Nothing of a merchant is there for another one, and no secret is in anything that is ever shown."""

from __future__ import annotations

import asyncio
import re

import pytest

from support.serving import Client, Served, rows
from support.sink import sink
from tillgate.client import ApiError, Tillgate

PAYME = {"merchant_id": "587f72c72cac0d162c722ae2", "key": "payme-KEY-that-nobody-may-see-0001"}
CLICK = {
    "service_id": 1,
    "merchant_id": 2,
    "merchant_user_id": 3,
    "secret_key": "click-SECRET-that-nobody-may-see",
}


async def everything(till: Tillgate, shop: Client) -> dict[str, str]:
    payment = await till.create_payment(order_id="A", amount_minor=1_000_000, currency="IDR", channel="gopay")
    await shop.act(payment.id, "pay")
    refund = await till.create_refund(payment.id, 1000, "x")
    account = await till.create_account("payme", "main", PAYME)
    standing = await till.create_standing_order(order_id="S", currency="UZS", channel="payme")
    endpoint = await till.create_endpoint("https://hook.example/x")
    await till.test_endpoint(endpoint.id)
    delivery = await anext(aiter(till.deliveries()))
    event = await anext(aiter(till.events()))
    message = await anext(aiter(till.inbound()))
    return {
        "payment_id": payment.id,
        "refund_id": refund.id,
        "account_id": account.id,
        "standing_id": standing.id,
        "endpoint_id": endpoint.id,
        "delivery_id": delivery.id,
        "event_id": event.id,
        "message_id": message.id,
    }


BODIES = {
    "v1_create_refund": {"amount_minor": 1, "reason": "x"},
    "v1_resolve_payment": {"outcome": "accept", "reason": "x"},
    "v1_rotate_account": {"config": {"key": "k" * 20}},
    "v1_update_endpoint": {"description": "theirs now"},
}


async def test_another_merchants_things_are_not_found(till: Tillgate, shop: Client, rival: Client) -> None:
    known = await everything(till, shop)
    await shop.ask("GET", "/v1/payments")
    described = (await shop.ask("GET", "/openapi.json")).json["paths"]
    tried = 0
    for path, item in described.items():
        if not path.startswith("/v1/") or "{" not in path:
            continue
        [name] = re.findall("{(.*?)}", path)
        for method, operation in item.items():
            tried += 1
            body = BODIES.get(operation["operationId"])
            theirs = path.replace(f"{{{name}}}", known[name])
            answer = await rival.ask(method.upper(), theirs, body)
            assert (answer.status, answer.json["code"]) == (404, "not_found"), (method, path)
            for wrong in ("x", "%00", "x" * 300, "..%2f..", known[name][:-1] + "z"):
                answer = await rival.ask(method.upper(), path.replace(f"{{{name}}}", wrong), body)
                assert answer.status == 404, (method, path, wrong, answer)
    assert tried >= 25
    for path in (
        "/v1/payments", "/v1/refunds", "/v1/standing-orders", "/v1/events", "/v1/webhook-endpoints",
        "/v1/deliveries", "/v1/inbound", "/v1/ledger/balances", "/v1/ledger/postings",
    ):  # fmt: skip
        assert (await rival.ask("GET", path)).json["data"] == [], path
    for path in (
        "/v1/payments?order_id=A", f"/v1/events?subject={known['payment_id']}",
        f"/v1/deliveries?endpoint={known['endpoint_id']}", f"/v1/deliveries?event={known['event_id']}",
        f"/v1/inbound?payment={known['payment_id']}", f"/v1/inbound?account={known['account_id']}",
    ):  # fmt: skip
        assert (await rival.ask("GET", path)).json["data"] == [], path
    ours = [one["id"] for one in (await shop.ask("GET", "/v1/accounts")).json["data"]]
    assert not {one["id"] for one in (await rival.ask("GET", "/v1/accounts")).json["data"]} & set(ours)
    csv = (await rival.ask("GET", "/v1/exports/payments.csv")).body.decode()
    assert len(csv.splitlines()) == 1
    borrowed = {"order_id": "B", "amount_minor": 100, "currency": "UZS", "channel": "payme"}
    answer = await rival.ask("POST", "/v1/payments", borrowed | {"account": known["account_id"]})
    assert (answer.status, answer.json["param"]) == (400, "account")
    assert (await till.get_payment(known["payment_id"])).status == "paid"
    assert (await till.get_endpoint(known["endpoint_id"])).description is None


async def test_no_secret_is_ever_shown(served: Served, till: Tillgate, shop: Client) -> None:
    """A full run, then a search of every answer, the log, the events, and all but the sealed columns."""
    answers: list[str] = []
    async with sink(served.callback_ports[5]) as ear:
        endpoint = await till.create_endpoint(ear.url)
        rotated = await till.rotate_endpoint(endpoint.id)
        callback = await till.rotate_callback_secret()
        account = await till.create_account("payme", "main", PAYME)
        await till.create_account("click", "click", CLICK)
        newer = {"key": "payme-KEY-that-nobody-may-see-0002"}
        await till.rotate_account(account.id, newer)
        for wrong in (
            {**PAYME, "key": 12345}, {**PAYME, "sandbox": PAYME["key"]}, {**PAYME, PAYME["key"]: 1},
            {**PAYME, "key": "short"}, {**PAYME, "language": PAYME["key"]},
        ):  # fmt: skip
            with pytest.raises(ApiError) as refused:
                await till.create_account("payme", "wrong", wrong)
            # (a secret that was put in the place of a setting's name is cut off, not hidden)
            if PAYME["key"] not in wrong:
                answers.append(str(refused.value))
        payment = await till.create_payment(
            order_id="A", amount_minor=1_000_000, currency="IDR", channel="gopay", callback_url=ear.url
        )
        for fault in ("forged", "none"):
            await shop.act(payment.id, "pay", fault)
        await till.create_refund(payment.id, 1000, "x")
        login = f"/in/{account.id}"
        basic = {"Authorization": "Basic UGF5Y29tOnBheW1lLUtFWS10aGF0LW5vYm9keS1tYXktc2VlLTAwMDI="}
        body = {"id": 1, "method": "CheckTransaction", "params": {"id": "5305e3bab097f420a62ced0b"}}
        for headers in (basic, {"Authorization": "Basic UGF5Y29tOndyb25n"}):
            assert (await shop.ask("POST", login, body, headers=headers)).status == 200
        await asyncio.sleep(0.5)
        answers += [one.body.decode() for one in ear.got]
    described = (await shop.ask("GET", "/openapi.json")).json["paths"]
    for path in (one for one, item in described.items() if one.startswith("/v1/") and "get" in item):
        if "{" not in path:
            answers.append((await shop.ask("GET", path)).body.decode())
    for one in [one async for one in till.inbound()]:
        answers.append((await shop.ask("GET", f"/v1/inbound/{one.id}")).body.decode())
    for one in [one async for one in till.deliveries()]:
        answers.append((await shop.ask("GET", f"/v1/deliveries/{one.id}")).body.decode())
    stored = []
    for table, columns in (
        ("events", "body"), ("inbound", "request"), ("inbound", "reply"), ("deliveries", "last_error"),
        ("delivery_tries", "answer"), ("accounts", "config"), ("endpoints", "secrets"),
        ("merchants", "webhook_secrets"), ("merchants", "settings"), ("idempotency", "body"),
    ):  # fmt: skip
        for (value,) in await rows(served.database_url, f"SELECT {columns} FROM {table}"):
            stored.append(bytes(value).decode("latin-1") if isinstance(value, bytes) else str(value))
    secrets = [
        endpoint.secret, rotated.secret, callback.secret, shop.credentials.webhook_secret,
        shop.credentials.api_secret, PAYME["key"], newer["key"], CLICK["secret_key"],
        basic["Authorization"].split()[1], await till._bearer(),
    ]  # fmt: skip
    assert len(answers) > 20
    for secret in secrets:
        for place, texts in (("answer", answers), ("log", [served.process.log]), ("row", stored)):
            assert not [text[:200] for text in texts if str(secret) in text], (place, secret)
