"""Accounts, what their providers said, standing orders that Payme pays, and a merchant's settings."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from support.serving import Client
from tillgate.client import ApiError, Tillgate
from tillgate.http.v1.inbound import scrub

PAYME = {"merchant_id": "587f72c72cac0d162c722ae2", "key": "a-key-as-payme-gives-them-to-a-desk"}


async def payme(shop: Client, account_id: str, key: str, method: str, **params: Any) -> Any:
    """As Payme calls: JSON-RPC with Basic credentials."""
    login = base64.b64encode(f"Paycom:{key}".encode()).decode()
    body = {"id": 7, "method": method, "params": params}
    answer = await shop.ask("POST", f"/in/{account_id}", body, headers={"Authorization": f"Basic {login}"})
    assert answer.status == 200
    return answer.json


async def test_an_account_serves_its_channel_and_its_provider(till: Tillgate, shop: Client) -> None:
    assert "payme" not in [one.id for one in await till.channels()]
    account = await till.create_account("payme", "main", PAYME)
    assert account.channels == ["payme"]
    assert account.config == {"merchant_id": PAYME["merchant_id"]}
    assert account.secrets == ["key"]
    assert account.inbound_url == f"{shop.base}/in/{account.id}"
    assert account.default is False
    assert "payme" in [one.id for one in await till.channels()]

    payment = await till.create_payment(
        order_id="A-1", amount_minor=500_000, currency="UZS", channel="payme", account="main"
    )
    assert payment.next_action is not None
    assert payment.next_action.type == "redirect"
    link = base64.b64decode((payment.next_action.url or "").rpartition("/")[2]).decode()
    assert link.startswith(f"m={PAYME['merchant_id']};ac.order_id=A-1;a=500000")
    assert payment.account == account.id
    with pytest.raises(ApiError) as refused:
        await till.create_payment(order_id="a;b", amount_minor=500_000, currency="UZS", channel="payme")
    assert refused.value.param == "order_id"

    off = await till.disable_account(account.id)
    assert off.status == "disabled"
    # What it began may still be settled, so that its provider is answered; it begins nothing.
    asked = {"amount": 500_000, "account": {"order_id": "A-1"}}
    answer = await payme(shop, account.id, PAYME["key"], "CheckPerformTransaction", **asked)
    assert answer["error"]["code"] == -31050
    wanted = {"order_id": "A-2", "amount_minor": 500_000, "currency": "UZS", "channel": "payme"}
    assert (await shop.ask("POST", "/v1/payments", wanted)).status == 503  # the client would try for long
    assert (await till.enable_account(account.id)).status == "enabled"


async def test_a_rotated_key_lets_the_old_one_in_for_a_while(till: Tillgate, shop: Client) -> None:
    account = await till.create_account("payme", "main", PAYME)
    new = "another-key-as-payme-gives-them-to-a-desk"
    rotated = await till.rotate_account(account.id, {"key": new})
    assert rotated.secrets == ["key", "previous_key"]
    for key, code in ((new, -31003), (PAYME["key"], -31003), ("wrong", -32504)):
        answer = await payme(shop, account.id, key, "CheckTransaction", id="5305e3bab097f420a62ced0b")
        assert answer["error"]["code"] == code


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"provider": "paypal"}, "provider", "There is no such provider"),
        ({"name": "a b"}, "name", ""),
        ({"name": ""}, "name", ""),
        ({"name": "../x"}, "name", ""),
        ({"config": {"key": PAYME["key"]}}, "config.merchant_id", "merchant_id: is missing"),
        ({"config": PAYME | {"key": "short"}}, "config", "16 characters"),
        ({"config": PAYME | {"key": ""}}, "config", "key is empty"),
        ({"config": PAYME | {"keys": 1}}, "config", "no setting"),
        ({"config": PAYME | {"sandbox": "yes"}}, "config.sandbox", "sandbox"),
        ({"config": PAYME | {"source_ips": ["nowhere"]}}, "config", "source_ips"),
        ({"config": "x"}, "config", ""),
        ({"priority": -1}, "priority", ""),
        ({"default": True}, "default", ""),  # which account serves the documented paths, an operator says
    ],
)
async def test_accounts_that_cannot_be(shop: Client, body: dict[str, Any], param: str, says: str) -> None:
    answer = await shop.ask(
        "POST", "/v1/accounts", {"provider": "payme", "name": "x", "config": PAYME} | body
    )
    assert (answer.status, answer.json.get("param")) == (400, param), answer
    assert says in answer.json["detail"]
    assert [one["provider"] for one in (await shop.ask("GET", "/v1/accounts")).json["data"]] == ["sandbox"]


async def test_a_name_is_taken_once(till: Tillgate) -> None:
    await till.create_account("payme", "main", PAYME)
    with pytest.raises(ApiError) as refused:
        await till.create_account("payme", "main", PAYME)
    assert refused.value.http_status == 409


async def test_providers_say_what_they_take(till: Tillgate) -> None:
    found = {one.name: one for one in await till.providers()}
    assert {"payme", "click", "atompay_in", "atompos_vn", "sandbox"} <= set(found)
    fields = {one.name: one for one in found["payme"].config}
    assert (fields["merchant_id"].required, fields["merchant_id"].secret) == (True, False)
    assert (fields["key"].type, fields["key"].secret, fields["key"].default) == ("string", True, None)
    assert fields["account_fields"].default == ["order_id"]
    click = {one.name: one for one in found["click"].config}
    assert (click["service_id"].required, click["service_id"].type) == (True, "integer | string")
    assert (click["merchant_user_id"].required, click["secret_key"].required) == (False, True)
    assert found["payme"].asks
    assert found["payme"].paths == {"/payments/payme/webhook": "Payme Merchant API"}


async def test_a_standing_order_is_paid_many_times(till: Tillgate, shop: Client) -> None:
    account = await till.create_account("payme", "main", PAYME)
    standing = await till.create_standing_order(
        order_id="MEMBER-77", currency="UZS", channel="payme", min_minor=100_000, max_minor=900_000
    )
    assert (standing.status, standing.min_minor, standing.max_minor) == ("open", 100_000, 900_000)
    assert standing.next_action is not None
    link = base64.b64decode((standing.next_action.url or "").rpartition("/")[2]).decode()
    assert ";ac.order_id=MEMBER-77" in link
    assert ";a=" not in link  # the payer names the amount
    same = await till.create_standing_order(
        order_id="MEMBER-77", currency="UZS", channel="payme", min_minor=100_000, max_minor=900_000
    )
    assert same.id == standing.id
    for clash in (
        till.create_standing_order(order_id="MEMBER-77", currency="UZS", channel="payme"),
        till.create_payment(order_id="MEMBER-77", amount_minor=500_000, currency="UZS", channel="payme"),
    ):
        with pytest.raises(ApiError) as refused:
            await clash
        assert refused.value.error_code == "order_conflict"

    key, member = PAYME["key"], {"order_id": "MEMBER-77"}
    now = int(time.time() * 1000)
    for number, amount in enumerate((100_000, 450_000)):
        transaction = f"{number}305e3bab097f420a62ced0b"
        ask = {"id": transaction, "time": now + number, "amount": amount, "account": member}
        assert (await payme(shop, account.id, key, "CreateTransaction", **ask))["result"]["state"] == 1
        done = await payme(shop, account.id, key, "PerformTransaction", id=transaction)
        assert done["result"]["state"] == 2
    for amount in (99_999, 900_001):
        answer = await payme(shop, account.id, key, "CheckPerformTransaction", amount=amount, account=member)
        assert answer["error"]["code"] == -31001

    paid = [one async for one in till.payments(order_id="MEMBER-77")]
    assert [(one.paid_minor, one.status, one.standing_order) for one in paid] == [
        (450_000, "paid", standing.id),
        (100_000, "paid", standing.id),
    ]
    closed = await till.close_standing_order(standing.id)
    assert (closed.status, closed.next_action) == ("closed", None)
    answer = await payme(shop, account.id, key, "CheckPerformTransaction", amount=200_000, account=member)
    assert "error" in answer
    assert (await till.get_standing_order(standing.id)).status == "closed"
    assert [one.id async for one in till.standing_orders()] == [standing.id]
    kinds = [one.type async for one in till.events(subject=standing.id)]
    assert kinds == ["standing_order.closed", "standing_order.created"]


@pytest.mark.parametrize(
    ("change", "status", "named"),
    [
        ({"channel": "gopay", "currency": "IDR"}, 409, None),  # its provider does not ask
        ({"channel": "cash"}, 400, "channel"),
        ({"currency": "IDR"}, 400, "currency"),
        ({"min_minor": 0}, 400, "min_minor"),
        ({"min_minor": 10, "max_minor": 9}, 400, "max_minor"),
        ({"max_minor": 10**13 + 1}, 400, "max_minor"),
        ({"order_id": ""}, 400, "order_id"),
        ({"account": "none"}, 400, "account"),
    ],
)
async def test_standing_orders_that_cannot_be(
    till: Tillgate, shop: Client, change: dict[str, Any], status: int, named: str | None
) -> None:
    await till.create_account("payme", "main", PAYME)
    body = {"order_id": "S", "currency": "UZS", "channel": "payme"} | change
    answer = await shop.ask("POST", "/v1/standing-orders", body)
    assert (answer.status, answer.json.get("param")) == (status, named), answer


async def test_what_providers_said_is_kept_with_our_answer(till: Tillgate, shop: Client) -> None:
    account = await till.create_account("payme", "main", PAYME)
    payment = await till.create_payment(order_id="A", amount_minor=500_000, currency="UZS", channel="payme")
    ask = {"id": "5305e3bab097f420a62ced0b", "time": int(time.time() * 1000), "amount": 500_000}
    await payme(shop, account.id, PAYME["key"], "CreateTransaction", **ask, account={"order_id": "A"})
    await payme(shop, account.id, "wrong", "CheckTransaction", id=ask["id"])
    refused, answered = [one async for one in till.inbound(account=account.id)]
    assert (refused.verdict, refused.payment_id) == ("unauthenticated", None)
    assert (answered.verdict, answered.payment_id, answered.reply_status) == ("answered", payment.id, 200)
    detail = await till.get_inbound(answered.id)
    assert '"CreateTransaction"' in detail.body
    assert detail.headers["authorization"] == "…"
    assert '"state":1' in (detail.reply or "")
    assert [one.id async for one in till.inbound(payment=payment.id)] == [answered.id]
    assert [one.id async for one in till.inbound(verdict="unauthenticated")] == [refused.id]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"key":"S3cret/Key+1","n":1}', '{"key":"…","n":1}'),
        ("login=x&sign=S3cret%2FKey%2B1", "login=x&sign=…"),
        ("Basic UzNjcmV0L0tleSsx", "Basic …"),
        ('{"user":"atom","password":"hunter2"}', '{"user":"atom","password":"…"}'),
        ('{"access_token": "eyJ.a.b", "x": 1}', '{"access_token": "…", "x": 1}'),
        ("user=a&password=hunter2&x=1", "user=a&password=…&x=1"),
        ('{"card":"4111 1111 1111 1111"}', '{"card":"…1111"}'),
        ('{"card":"4111111111111112"}', '{"card":"4111111111111112"}'),  # no card: its digits do not add up
        (
            '{"id":"5305e3bab097f420a62ced0b","amount":500000}',
            '{"id":"5305e3bab097f420a62ced0b","amount":500000}',
        ),
    ],
)
def test_secrets_and_card_numbers_are_struck_out(text: str, shown: str) -> None:
    assert scrub(text, ["S3cret/Key+1"]) == shown


async def test_settings(till: Tillgate, shop: Client) -> None:
    before = await till.settings()
    assert (before.callback_url, before.payment_ttl_s, before.late_money) == (None, 900, "accept")
    after = await till.update_settings(
        callback_url="https://shop.example/cb", payment_ttl_s=3600, late_money="review"
    )
    assert (after.callback_url, after.payment_ttl_s, after.late_money) == (
        "https://shop.example/cb", 3600, "review",
    )  # fmt: skip
    assert await till.settings() == after
    assert (await till.update_settings(callback_url=None)).callback_url is None
    assert (await till.settings()).payment_ttl_s == 3600
    preferred = await till.update_settings(preferences={"gopay": ["sandbox"]})
    assert preferred.preferences == {"gopay": ("sandbox",)}
    assert (await till.settings()) == preferred
    for body, param in (
        ({"callback_url": "http://10.0.0.1/"}, "callback_url"),
        ({"payment_ttl_s": 5}, "payment_ttl_s"),
        ({"payment_ttl_s": None}, "payment_ttl_s"),
        ({"late_money": "keep"}, "late_money"),
        ({"preferences": {"gopay": ["nobody's"]}}, "preferences"),
        ({"preferences": {"payme": ["sandbox"]}}, "preferences"),
        ({"preferences": {"gopay": ["sandbox", "sandbox"]}}, "preferences"),
        ({"preferences": {"gopay": "sandbox"}}, "preferences[...]"),
        ({"ttl": 5}, "ttl"),
    ):
        answer = await shop.ask("PATCH", "/v1/settings", body)
        assert (answer.status, answer.json.get("param")) == (400, param), answer
    payment = await till.create_payment(order_id="A", amount_minor=100_000, currency="IDR", channel="gopay")
    assert payment.expires_at[:13] != payment.created_at[:13]  # an hour
