"""Nothing of a merchant is there for another one, and no secret is in anything that is ever shown."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import quote

import pytest

from support.serving import Answer, Client, Served, rows
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
    titled = {"title": "Tea", "currency": "IDR", "amount_minor": 100_000}
    link = (await shop.ask("POST", "/v1/payment-links", titled)).json
    file = {
        "content": "amount,id\n7,T-1",
        "columns": {"amount": "amount", "external_id": "id"},
        "currency": "IDR",
    }
    day = {
        "account": "sandbox",
        "since": "2026-01-01T00:00:00Z",
        "until": "2026-01-02T00:00:00Z",
        "file": file,
    }
    reconciliation = (await shop.ask("POST", "/v1/reconciliations", day)).json
    finding = (await shop.ask("GET", "/v1/findings")).json["data"][0]
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
        "link_id": link["id"],
        "reconciliation_id": reconciliation["id"],
        "finding_id": finding["id"],
        "endpoint_id": endpoint.id,
        "delivery_id": delivery.id,
        "event_id": event.id,
        "message_id": message.id,
    }


BODIES = {
    "v1_choose_plan": {"plan_id": "x"},
    "v1_create_refund": {"amount_minor": 1, "reason": "x"},
    "v1_resolve_payment": {"outcome": "accept", "reason": "x"},
    "v1_resolve_finding": {"reason": "x"},
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
        "/v1/payment-links", "/v1/reconciliations", "/v1/findings",
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


class Recorded:
    """All that a client is answered: head and body."""

    def __init__(self, shop: Client) -> None:
        self._shop = shop
        self.answers: list[str] = []

    async def ask(self, method: str, path: str, *given: Any, **more: Any) -> Answer:
        answer = await self._shop.ask(method, path, *given, **more)
        self.answers.append(f"{answer.headers}\n{answer.body.decode(errors='replace')}")
        return answer


async def misplace(asked: Recorded, secret: str) -> None:
    """Say a secret wherever somebody might by mistake. Their refusals must not repeat it, nor the log."""
    key = asked._shop.credentials.api_key
    for body in (
        {"api_key": secret, "api_secret": "wrong"}, {"api_key": key, "api_secret": secret + "x"},
        {"api_key": key, "api_secret": [secret]}, {"api_key": key, "secret": secret}, {"api_secret": secret},
    ):  # fmt: skip
        for path in ("/v1/token", "/token"):
            assert (await asked.ask("POST", path, body, headers={"Authorization": ""})).status >= 400
    half = f'{{"api_secret":"{secret}'.encode()
    await asked.ask("POST", "/v1/token", raw=half, headers={"Authorization": ""})
    for scheme in ("Bearer", "Basic", "Token"):
        await asked.ask("GET", "/v1/payments", headers={"Authorization": f"{scheme} {secret}"})
    for path in (f"/v1/payments?access_token={secret}", "/v1/payments?limit=" + secret):
        await asked.ask("GET", path)
    await asked.ask("POST", "/v1/payments", {"order_id": "Z", "amount_minor": secret})
    await asked.ask("GET", f"/v1/payments/{quote(secret, safe='')}")
    await asked.ask("GET", f"/no/such/{quote(secret, safe='')}")


async def test_no_secret_is_ever_shown(served: Served, till: Tillgate, shop: Client) -> None:
    """A full run, then a search of every answer and its head, every page, all that was sent, the log at its
    most talkative, and every column of every table."""
    asked, sent = Recorded(shop), list[str]()
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
                asked.answers.append(str(refused.value))
        payment = await till.create_payment(
            order_id="A", amount_minor=1_000_000, currency="IDR", channel="gopay", callback_url=ear.url
        )
        for fault in ("forged", "none"):
            await shop.act(payment.id, "pay", fault)
        await till.create_refund(payment.id, 1000, "x")
        basic = {"Authorization": "Basic UGF5Y29tOnBheW1lLUtFWS10aGF0LW5vYm9keS1tYXktc2VlLTAwMDI="}
        body = {"id": 1, "method": "CheckTransaction", "params": {"id": "5305e3bab097f420a62ced0b"}}
        for headers in (basic, {"Authorization": "Basic UGF5Y29tOndyb25n"}):
            assert (await asked.ask("POST", f"/in/{account.id}", body, headers=headers)).status == 200
        for secret in (shop.credentials.api_secret, newer["key"]):
            await misplace(asked, secret)
        await asyncio.sleep(0.5)
        sent += [f"{dict(one.headers)}\n{one.body.decode()}" for one in ear.got]
    kept = await every_column(served.database_url)
    # What a stranger writes into a message is kept as it came; who reads the message is not shown it.
    await asked.ask("POST", f"/in/{account.id}?key={newer['key']}", {"id": 1, "key": newer["key"]})
    await every_page(asked, till, payment.id)
    secrets = [
        endpoint.secret, rotated.secret, callback.secret, shop.credentials.webhook_secret,
        shop.credentials.api_secret, PAYME["key"], newer["key"], CLICK["secret_key"],
        basic["Authorization"].split()[1], await till._bearer(), shop.token,
    ]  # fmt: skip
    assert len(asked.answers) > 60
    assert sent
    places = {"answer": asked.answers, "sent": sent, "log": [served.process.log], "row": kept}
    for secret in secrets:
        core = str(secret).removeprefix("whsec_")
        for place, texts in places.items():
            assert not [text[:300] for text in texts if core in text], (place, secret)


async def every_page(asked: Recorded, till: Tillgate, payment_id: str) -> None:
    described = (await asked.ask("GET", "/openapi.json")).json["paths"]
    for path in (one for one, item in described.items() if "get" in item and "{" not in one):
        await asked.ask("GET", path)
    for path in (
        f"/pay/{payment_id}",
        f"/v1/payments/{payment_id}",
        "/healthz",
        "/readyz",
        "/metrics",
        "/docs",
    ):
        await asked.ask("GET", path)
    for resource, rows_ in (("inbound", till.inbound()), ("deliveries", till.deliveries())):
        for one in [one async for one in rows_]:
            await asked.ask("GET", f"/v1/{resource}/{one.id}")
    for event in [one async for one in till.events()]:
        await asked.ask("GET", f"/v1/events/{event.id}")


async def every_column(database_url: str) -> list[str]:
    """All rows of all tables, as text; what is encrypted or hashed in them stays so."""
    names = (
        "SELECT name FROM sqlite_master WHERE type = 'table'"
        if database_url.startswith("sqlite")
        else "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    )
    tables = [name for (name,) in await rows(database_url, names)]
    assert len(tables) > 10
    found = [row for table in tables for row in await rows(database_url, f'SELECT * FROM "{table}"')]
    return [" ".join(_text(one) for one in row) for row in found]


def _text(value: Any) -> str:
    return bytes(value).decode("latin-1") if isinstance(value, bytes) else str(value)
