"""The description and the hub agree: what is described is served, what is served is described, bodies fit."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import jsonschema_rs
import pytest
from starlette.requests import Request

from support.serving import Client, Served
from support.sink import sink

DOCUMENTED = {
    "/token": {"post"},
    "/auth/token": {"post"},
    "/wallets": {"get"},
    "/payment": {"post"},
    "/payments": {"post"},
    "/payment/{payment_id}": {"get"},
    "/payments/{payment_id}": {"get"},
    "/payment/{payment_id}/refund": {"post"},
    "/payments/{payment_id}/refund": {"post"},
    "/payment/{payment_id}/refunds": {"get"},
    "/payments/{payment_id}/refunds": {"get"},
    "/sandbox/payments/{payment_id}/pay": {"post"},
    "/sandbox/payments/{payment_id}/fail": {"post"},
    "/sandbox/payments/{payment_id}/expire": {"post"},
    "/sandbox/payments/{payment_id}/pay-late": {"post"},
    "/sandbox/pay/{payment_id}/{action}": {"post"},
    "/pay/{payment_id}": {"get"},
    "/pay/{payment_id}.png": {"get"},
    "/pay/{payment_id}.svg": {"get"},
    "/pay/{payment_id}/state": {"get"},
    "/pay/{payment_id}/events": {"get"},
    "/in/{account_id}": {"get", "post", "put"},
    "/healthz": {"get"},
    "/readyz": {"get"},
    "/openapi.json": {"get"},
}
FOR_PEOPLE = ("/docs", "/problems", "/static")  # pages and their files


@pytest.fixture
async def described(shop: Client) -> dict[str, Any]:
    found: dict[str, Any] = (await shop.ask("GET", "/openapi.json")).json
    return found


def schema_of(described: dict[str, Any], path: str, method: str, status: int) -> dict[str, Any]:
    responses = described["paths"][path][method]["responses"]
    assert str(status) in responses, f"{method} {path} does not describe {status}"
    found: dict[str, Any] = responses[str(status)]["content"]["application/json"]["schema"]
    return {**found, "components": described["components"]}


def fits(schema: dict[str, Any], body: Any) -> None:
    jsonschema_rs.Draft202012Validator(schema, validate_formats=True).validate(body)


async def test_it_is_openapi_3_1(described: dict[str, Any]) -> None:
    assert described["openapi"] == "3.1.0"
    names = [one["operationId"] for item in described["paths"].values() for one in item.values()]
    assert len(set(names)) == len(names)
    for name, component in described["components"]["schemas"].items():
        jsonschema_rs.meta.validate(component)
        assert component["title"] == name
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described)))
    assert referred <= set(described["components"]["schemas"])


async def test_the_documented_addresses_are_there(described: dict[str, Any]) -> None:
    found = {path: set(item) for path, item in described["paths"].items()}
    assert {path: found.get(path) for path in DOCUMENTED} == DOCUMENTED


async def test_what_is_routed_is_described(sqlite_url: str) -> None:
    from tillgate.http.app import create_app
    from tillgate.settings import load

    app = create_app(load({"database_url": sqlite_url, "sandbox": True}))
    async with app.router.lifespan_context(app):
        routed = {getattr(one, "path", str(one)).rstrip("/") or "/" for one in app.routes}
        # What is below a path of a provider's own is refused in its words, not described.
        routed = {path for path in routed if not path.endswith("/{rest:path}")}
        answer = next(one for one in app.routes if getattr(one, "path", "") == "/openapi.json")
        body = json.loads((await answer.endpoint(Request({"type": "http", "headers": []}))).body)
    assert [path for path in routed - set(body["paths"]) if not path.startswith(FOR_PEOPLE)] == []
    assert set(body["paths"]) <= routed


async def test_without_the_sandbox_there_is_no_way_to_play_the_payer(sqlite_url: str) -> None:
    from tillgate.http.app import create_app
    from tillgate.settings import load

    settings = load({"database_url": sqlite_url, "secret_key": "0123456789abcdef" * 4})
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        paths = {getattr(one, "path", str(one)) for one in app.routes}
    assert "/payments/{payment_id}" in paths
    assert not [path for path in paths if "sandbox" in path]


async def test_bodies_fit_what_is_described(shop: Client, rival: Client, described: dict[str, Any]) -> None:
    paid, pending, failed, late = await asyncio.gather(*(shop.open(amount=1000) for _ in range(4)))
    await shop.act(paid, "pay")
    await shop.act(failed, "fail")
    await shop.act(late, "pay-late")
    theirs = await rival.open()
    good = {"wallet_id": "ovo", "amount": 1000, "currency": "IDR"}
    credentials = {"api_key": shop.credentials.api_key, "api_secret": shop.credentials.api_secret}
    refund = {"amount": 100, "reason": "x"}
    key = {"Idempotency-Key": "openapi"}
    table: list[tuple[str, str, str, int, Any, dict[str, str]]] = [
        ("POST", "/token", "", 200, credentials, {}),
        ("POST", "/token", "", 401, {"api_key": "x", "api_secret": "x"}, {}),
        ("POST", "/auth/token", "", 400, {}, {}),
        ("POST", "/token", "", 415, {}, {"Content-Type": "text/plain"}),
        ("POST", "/token", "", 413, {"x": "x" * 70_000}, {}),
        ("GET", "/wallets", "", 200, None, {}),
        ("GET", "/wallets", "", 401, None, {"Authorization": ""}),
        ("POST", "/payments", "", 200, good | {"order_id": "openapi 1"}, key),
        ("POST", "/payments", "", 200, good | {"order_id": "openapi 1"}, key),
        ("POST", "/payments", "", 422, good | {"order_id": "openapi 2"}, key),
        ("POST", "/payment", "", 200, good | {"order_id": "openapi 3", "amount": 20_901}, {}),
        ("POST", "/payment", "", 200, good | {"order_id": "openapi 4", "amount": 904}, {}),
        ("POST", "/payment", "", 409, good | {"order_id": "openapi 1", "amount": 1}, {}),
        ("POST", "/payment", "", 400, good, {}),
        ("POST", "/payment", "", 401, good, {"Authorization": "Bearer x"}),
        ("GET", "/payments/{payment_id}", paid, 200, None, {}),
        ("GET", "/payments/{payment_id}", pending, 200, None, {}),
        ("GET", "/payment/{payment_id}", failed, 200, None, {}),
        ("GET", "/payment/{payment_id}", late, 200, None, {}),
        ("GET", "/payment/{payment_id}", theirs, 404, None, {}),
        ("POST", "/payments/{payment_id}/refund", paid, 200, refund, {}),
        ("POST", "/payments/{payment_id}/refund", paid, 409, refund | {"amount": 1000}, {}),
        ("POST", "/payment/{payment_id}/refund", pending, 409, refund, {}),
        ("POST", "/payment/{payment_id}/refund", theirs, 404, refund, {}),
        ("POST", "/payment/{payment_id}/refund", paid, 400, {"amount": 1}, {}),
        ("GET", "/payment/{payment_id}/refunds", paid, 200, None, {}),
        ("GET", "/payments/{payment_id}/refunds", pending, 200, None, {}),
        ("GET", "/payments/{payment_id}/refunds", "x", 404, None, {}),
        ("POST", "/sandbox/payments/{payment_id}/pay", pending, 200, None, {}),
        ("POST", "/sandbox/payments/{payment_id}/fail", pending, 409, None, {}),
        ("POST", "/sandbox/payments/{payment_id}/expire", "x", 404, None, {}),
        ("GET", "/healthz", "", 200, None, {}),
        ("GET", "/readyz", "", 200, None, {}),
    ]
    for method, path, payment_id, status, body, headers in table:
        answer = await shop.ask(method, path.replace("{payment_id}", payment_id), body, headers=headers)
        assert answer.status == status, (path, answer)
        assert answer.headers["Content-Type"] == "application/json"
        fits(schema_of(described, path, method.lower(), status), answer.json)
        response = described["paths"][path][method.lower()]["responses"][str(status)]
        for name, header in response.get("headers", {}).items():
            assert name in answer.headers or not header["required"], (path, status, name)


async def test_schemas_say_no_less_than_is_checked(described: dict[str, Any]) -> None:
    """A client that validates by the description is not surprised by a refusal, and the other way round."""
    components = {"components": described["components"]}
    payment = {"$ref": "#/components/schemas/PaymentIn", **components}
    good = {"wallet_id": "gopay", "amount": 1, "currency": "IDR", "order_id": "x"}
    for body in (good, good | {"callback_url": None}, good | {"callback_url": "https://a.example/"}):
        fits(payment, body)
    for change in (
        {"amount": 0}, {"amount": 1.5}, {"amount": "1"}, {"amount": 10**12 + 1}, {"amount": None},
        {"order_id": ""}, {"order_id": "x" * 256}, {"wallet_id": ""}, {"currency": "idr"}, {"currency": ""},
        {"callback_url": 1},
    ):  # fmt: skip
        with pytest.raises(jsonschema_rs.ValidationError):
            fits(payment, good | change)
    for missing in good:
        with pytest.raises(jsonschema_rs.ValidationError):
            fits(payment, {name: value for name, value in good.items() if name != missing})


async def test_callbacks_fit_what_is_described(
    served: Served, shop: Client, described: dict[str, Any]
) -> None:
    content = described["webhooks"]["callback"]["post"]["requestBody"]["content"]
    schema = {**content["application/json"]["schema"], "components": described["components"]}
    headers = {one["name"] for one in described["webhooks"]["callback"]["post"]["parameters"]}
    async with sink(served.callback_ports[4]) as ear:
        paid = await shop.paid(callback_url=ear.url)
        await ear.until(1)
        await shop.refund(paid, 1000)
        await ear.until(2)
        await shop.refund(paid, 1013)
        await ear.until(3)
        await shop.act(await shop.open(callback_url=ear.url), "pay-late")
        await ear.until(5)
        for one in ear.got:
            fits(schema, json.loads(one.body))
            assert headers <= {name.lower() for name in one.headers}
        kinds = {json.loads(one.body)["type"] for one in ear.got}
    assert kinds == {"payment.success", "payment.expired", "refund.success", "refund.failed"}
