"""Webhook endpoints over real HTTP: signed, rotated with two live secrets, tested, resent, replayed."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from support.serving import Client, Served
from support.sink import Callback, hurry, sink
from tillgate.client import ApiError, Tillgate, verify_event


def signed_by(secret: str, one: Callback) -> bool:
    """By somebody else's library, from the published rules."""
    try:
        Webhook(secret).verify(one.body, dict(one.headers))
    except WebhookVerificationError:
        return False
    return True


async def test_events_arrive_signed_and_as_described(served: Served, till: Tillgate, shop: Client) -> None:
    described = (await shop.ask("GET", "/openapi.json")).json
    async with sink(served.callback_ports[0]) as ear:
        endpoint = await till.create_endpoint(ear.url, ["payment.*", "refund.*"], description="the shop")
        payment = await till.create_payment(
            order_id="A", amount_minor=1_000_000, currency="IDR", channel="gopay", metadata={"table": 7}
        )
        await shop.act(payment.id, "pay")
        await till.create_refund(payment.id, 1000, "x")
        await ear.until(5)
        kinds = []
        for one in ear.got:
            assert signed_by(endpoint.secret, one)
            event = verify_event([endpoint.secret], one.headers, one.body)
            assert event.id == one.id
            assert event.data.payment is not None
            assert event.data.payment.metadata == {"table": 7}
            kinds.append(event.type)
            webhook = described["webhooks"][event.type]["post"]
            schema = webhook["requestBody"]["content"]["application/json"]["schema"]
            whole = {**schema, "components": described["components"]}
            jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(json.loads(one.body))
            shown = await shop.ask("GET", f"/v1/events/{event.id}")
            assert shown.body == one.body  # what is delivered is what the API shows
    assert kinds == [
        "payment.pending", "payment.paid", "refund.created", "refund.pending", "refund.succeeded",
    ]  # fmt: skip


async def test_two_secrets_sign_while_one_is_replaced(served: Served, till: Tillgate) -> None:
    async with sink(served.callback_ports[1]) as ear:
        first = await till.create_endpoint(ear.url)
        second = await till.rotate_endpoint(first.id, overlap_s=3600)
        await till.test_endpoint(first.id)
        await ear.until(1)
        assert second.secret != first.secret
        assert second.signing_secrets == 2
        assert signed_by(first.secret, ear.got[0])
        assert signed_by(second.secret, ear.got[0])

        third = await till.rotate_endpoint(first.id, overlap_s=0)
        await till.test_endpoint(first.id)
        await ear.until(2)
        assert [signed_by(one.secret, ear.got[1]) for one in (first, second, third)] == [False, False, True]
        assert third.signing_secrets == 1

        fourth = await till.rotate_endpoint(first.id)
        fifth = await till.rotate_endpoint(first.id)
        await till.test_endpoint(first.id)
        await ear.until(3)
        assert [signed_by(one.secret, ear.got[2]) for one in (third, fourth, fifth)] == [False, True, True]


async def test_a_secret_is_shown_once(till: Tillgate, shop: Client) -> None:
    made = await till.create_endpoint("https://hook.example/x")
    for path in (f"/v1/webhook-endpoints/{made.id}", "/v1/webhook-endpoints", "/v1/events", "/v1/settings"):
        assert "whsec_" not in (await shop.ask("GET", path)).body.decode()
    callback = await till.rotate_callback_secret()
    assert callback.secret.startswith("whsec_")
    assert callback.previous_until is not None
    assert callback.secret not in (await shop.ask("GET", "/v1/settings")).body.decode()


async def test_a_callback_is_signed_by_both_secrets_while_one_is_replaced(
    served: Served, till: Tillgate, shop: Client
) -> None:
    async with sink(served.callback_ports[2]) as ear:
        await till.update_settings(callback_url=ear.url)
        new = await till.rotate_callback_secret(overlap_s=3600)
        await shop.act(await shop.open(), "pay")
        await ear.until(1)
        assert signed_by(shop.credentials.webhook_secret, ear.got[0])
        assert signed_by(new.secret, ear.got[0])


async def test_off_on_resent_replayed(served: Served, till: Tillgate, shop: Client) -> None:
    async with sink(served.callback_ports[3]) as ear:
        endpoint = await till.create_endpoint(ear.url, ["payment.paid"])
        await shop.act(await shop.open("one"), "pay")
        await ear.until(1)
        off = await till.disable_endpoint(endpoint.id)
        assert (off.status, off.disabled_reason) == ("disabled", "switched off by the merchant")
        for refused in (till.test_endpoint(endpoint.id), till.replay_endpoint(endpoint.id)):
            with pytest.raises(ApiError) as error:
                await refused
            assert error.value.error_code == "not_allowed"
        for order in ("two", "three"):
            await shop.act(await shop.open(order), "pay")
        assert (await till.enable_endpoint(endpoint.id)).status == "enabled"
        assert await till.replay_endpoint(endpoint.id, since="2020-01-01T00:00:00Z") == 2
        await ear.until(3)
        orders = [verify_event([endpoint.secret], one.headers, one.body) for one in ear.got]
        assert [one.data.payment.order_id for one in orders if one.data.payment] == ["one", "two", "three"]

        first = [one async for one in till.deliveries(endpoint=endpoint.id)][-1]
        again = await till.resend_delivery(first.id)
        assert (again.status, again.event_number) == ("pending", first.event_number)
        await ear.until(4)
        assert ear.got[3].body == ear.got[0].body
        assert ear.got[3].id == ear.got[0].id
        detail = await till.get_delivery(again.id)
        assert (detail.status, detail.tries, detail.log[0].status, detail.log[0].answer) == (
            "delivered", 1, 200, "answer 2",
        )  # fmt: skip
        assert detail.event == orders[0]
        same = [one.id async for one in till.deliveries(event=orders[0].id)]
        assert sorted(same) == sorted([first.id, again.id])


async def test_an_endpoint_that_answers_late_large_or_elsewhere_is_a_failure(
    served: Served, till: Tillgate, shop: Client
) -> None:
    from aiohttp import web

    answers = [
        lambda: web.Response(status=302, headers={"Location": f"{ear.url}/stray"}),
        lambda: web.Response(status=200, body=b"x" * 5_000_000),
        lambda: web.Response(status=500),
        lambda: web.Response(status=200),
    ]
    async with sink(served.callback_ports[4]) as ear:
        ear.answer = lambda one: answers[one.number - 1]()
        endpoint = await till.create_endpoint(ear.url, ["payment.paid"])
        await shop.act(await shop.open(), "pay")
        for tries in (1, 2, 3, 4):
            await ear.until(tries)
            await hurry(served.database_url)
        assert ear.strays == []
    [delivery] = [one async for one in till.deliveries(endpoint=endpoint.id)]
    detail = await till.get_delivery(delivery.id)
    assert [one.status for one in detail.log] == [302, None, 500, 200]
    assert "longer than" in (detail.log[1].error or "")
    assert detail.status == "delivered"
    assert all(len(one.answer or "") <= 300 for one in detail.log)
    assert (await till.get_endpoint(endpoint.id)).failing_since is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"url": "http://shop.example/"}, "url"),
        ({"url": "https://localhost/"}, "url"),
        ({"url": "https://[::ffff:127.0.0.1]/"}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": "https://user:password@shop.example/"}, "url"),
        ({"url": ""}, "url"),
        ({}, "url"),
        ({"url": "https://shop.example/", "event_types": ["payment.paid", "payment.payed"]}, "event_types"),
        ({"url": "https://shop.example/", "event_types": ["*.*"]}, "event_types"),
        ({"url": "https://shop.example/", "event_types": ["[a-z]*"]}, "event_types"),
        ({"url": "https://shop.example/", "event_types": "payment.paid"}, "event_types"),
        ({"url": "https://shop.example/", "description": "x" * 201}, "description"),
        ({"url": "https://shop.example/", "description": "a\nb"}, "description"),
    ],
)
async def test_endpoints_that_cannot_be(shop: Client, body: dict[str, object], param: str) -> None:
    answer = await shop.ask("POST", "/v1/webhook-endpoints", body)
    assert (answer.status, answer.json["param"]) == (400, param)
    assert (await shop.ask("GET", "/v1/webhook-endpoints")).json["data"] == []


async def test_changed_and_deleted(till: Tillgate, shop: Client) -> None:
    made = await till.create_endpoint("https://hook.example/x", ["payment.*"], description="old")
    changed = await till.update_endpoint(made.id, description="new", event_types=[])
    assert (changed.url, changed.event_types, changed.description) == ("https://hook.example/x", [], "new")
    assert await till.get_endpoint(made.id) == changed
    refused = await shop.ask("PATCH", f"/v1/webhook-endpoints/{made.id}", {"url": "http://10.0.0.1/"})
    assert (refused.status, refused.json["param"]) == (400, "url")
    await till.delete_endpoint(made.id)
    assert await till.endpoints() == []
    assert (await shop.ask("DELETE", f"/v1/webhook-endpoints/{made.id}")).status == 404


async def test_there_is_an_end_to_endpoints(till: Tillgate) -> None:
    for number in range(32):
        await till.create_endpoint(f"https://hook.example/{number}", idempotency_key=f"e{number}")
    with pytest.raises(ApiError) as refused:
        await till.create_endpoint("https://hook.example/32")
    assert refused.value.error_code == "not_allowed"
    again = await till.create_endpoint("https://hook.example/31", idempotency_key="e31")
    assert again.url == "https://hook.example/31"  # a repeat is answered, however full it is
