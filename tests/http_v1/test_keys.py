"""`Idempotency-Key` on every POST of `/v1`, over real HTTP, by two processes, across a crash."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
from pathlib import Path
from typing import Any

import pytest

from support.serving import Answer, Client, Credentials, Process, Served, client, hub, new_merchant, rows
from tillgate.client import Tillgate

PAYME = {"merchant_id": "587f72c72cac0d162c722ae2", "key": "a-key-as-payme-gives-them-to-a-desk"}


def key(name: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": name or secrets.token_hex(8)}


LINKS = "/v1/payment-links"
LINK = {"title": "A", "currency": "IDR"}
FILE = {"content": "amount\n", "currency": "IDR", "columns": {"amount": "amount"}}
RECONCILED = {"account": "sandbox", "since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}


async def things(till: Tillgate, shop: Client) -> dict[str, str]:
    """One of everything that a POST is about."""
    paid, held, pending = [
        await till.create_payment(order_id=one, amount_minor=1_000_000, currency="IDR", channel="gopay")
        for one in ("paid", "held", "pending")
    ]
    await shop.act(paid.id, "pay")
    await shop.act(held.id, "pay", "wrong_amount")
    account = await till.create_account("payme", "main", PAYME)
    standing = await till.create_standing_order(order_id="standing", currency="UZS", channel="payme")
    endpoint = await till.create_endpoint("https://hook.example/x")
    refused = await till.create_endpoint("https://hook.example/y")
    await till.disable_endpoint(refused.id)
    await till.test_endpoint(endpoint.id)
    delivery = await anext(aiter(till.deliveries(endpoint=endpoint.id)))
    link = (await shop.ask("POST", LINKS, LINK)).json
    named = {"amount": "amount", "external_id": "id"}
    day = {**RECONCILED, "file": {**FILE, "columns": named, "content": "amount,id\n7,strange"}}
    await shop.ask("POST", "/v1/reconciliations", day)
    finding = (await shop.ask("GET", "/v1/findings?kind=missing_here")).json["data"][0]
    return {
        "link": link["id"],
        "finding": finding["id"],
        "paid": paid.id,
        "held": held.id,
        "pending": pending.id,
        "account": account.id,
        "standing": standing.id,
        "endpoint": endpoint.id,
        "off": refused.id,
        "delivery": delivery.id,
    }


ORDER = {"order_id": "new", "amount_minor": 1_000_000, "currency": "IDR", "channel": "ovo"}
POSTS: list[tuple[str, str, Any, Any, int]] = [
    # path of a thing in {braces}, a body, another body, the status
    ("v1_create_payment", "/v1/payments", ORDER, ORDER | {"amount_minor": 2_000_000}, 201),
    ("v1_cancel_payment", "/v1/payments/{pending}/cancel", {"reason": "a"}, {"reason": "b"}, 200),
    ("v1_resolve_payment", "/v1/payments/{held}/resolve", {"outcome": "accept", "reason": "a"},
     {"outcome": "accept", "reason": "b"}, 200),
    ("v1_create_refund", "/v1/payments/{paid}/refunds", {"amount_minor": 1000, "reason": "a"},
     {"amount_minor": 2000, "reason": "a"}, 201),
    ("v1_create_standing_order", "/v1/standing-orders",
     {"order_id": "so", "currency": "UZS", "channel": "payme"},
     {"order_id": "so2", "currency": "UZS", "channel": "payme"}, 201),
    ("v1_close_standing_order", "/v1/standing-orders/{standing}/close", None, None, 200),
    ("v1_create_endpoint", "/v1/webhook-endpoints", {"url": "https://a.example/"},
     {"url": "https://b.example/"}, 201),
    ("v1_disable_endpoint", "/v1/webhook-endpoints/{endpoint}/disable", None, None, 200),
    ("v1_enable_endpoint", "/v1/webhook-endpoints/{off}/enable", None, None, 200),
    ("v1_rotate_endpoint", "/v1/webhook-endpoints/{endpoint}/rotate", {"overlap_s": 60}, {"overlap_s": 61},
     200),
    ("v1_test_endpoint", "/v1/webhook-endpoints/{endpoint}/test", None, None, 202),
    ("v1_replay_endpoint", "/v1/webhook-endpoints/{endpoint}/replay", {}, {"what": "everything"}, 202),
    ("v1_resend_delivery", "/v1/deliveries/{delivery}/resend", None, None, 202),
    ("v1_create_payment_link", LINKS, LINK, LINK | {"title": "B"}, 201),
    ("v1_disable_payment_link", "/v1/payment-links/{link}/disable", None, None, 200),
    ("v1_create_reconciliation", "/v1/reconciliations", RECONCILED | {"file": FILE},
     RECONCILED | {"file": FILE, "utc_offset": "+07:00"}, 201),
    ("v1_resolve_finding", "/v1/findings/{finding}/resolve", {"reason": "a"}, {"reason": "b"}, 200),
    ("v1_create_account", "/v1/accounts", {"provider": "payme", "name": "new", "config": PAYME},
     {"provider": "payme", "name": "newer", "config": PAYME}, 201),
    ("v1_rotate_account", "/v1/accounts/{account}/rotate", {"config": {"key": PAYME["key"] + "-2"}},
     {"config": {"key": PAYME["key"] + "-3"}}, 200),
    ("v1_disable_account", "/v1/accounts/{account}/disable", None, None, 200),
    ("v1_enable_account", "/v1/accounts/{account}/enable", None, None, 200),
    ("v1_rotate_callback_secret", "/v1/settings/callback-secret", {}, {"overlap_s": 5}, 200),
]  # fmt: skip


# What they answer is secret, so that nothing is kept to repeat.
KEYLESS = {"v1_create_token", "v1_enrol_kiosk"}
AT_TERMINALS = {"v1_choose_plan"}  # tried where there is a terminal that offers plans


async def test_the_table_names_every_post(shop: Client) -> None:
    described = (await shop.ask("GET", "/openapi.json")).json["paths"]
    posts = {
        one["post"]["operationId"]: one["post"]
        for path, one in described.items()
        if path.startswith("/v1") and "post" in one
    }
    assert set(posts) - KEYLESS - AT_TERMINALS == {name for name, *_ in POSTS}
    for name, post in posts.items():
        takes = any(one["name"] == "Idempotency-Key" for one in post["parameters"])
        assert takes == (name not in KEYLESS)


async def test_every_post_has_one_answer_for_a_key(till: Tillgate, shop: Client) -> None:
    known = await things(till, shop)
    for name, path, body, other, status in POSTS:
        where, used = path.format(**known), key()
        events = (await shop.ask("GET", "/v1/events?limit=1")).json["data"][0]["number"]
        first = await shop.ask("POST", where, body, headers=used)
        assert (name, first.status) == (name, status), first
        after = (await shop.ask("GET", "/v1/events?limit=1")).json["data"][0]["number"]
        again = [await shop.ask("POST", where, body, headers=used) for _ in range(2)]
        assert {(one.status, one.body) for one in again} == {(first.status, first.body)}, name
        assert {one.headers.get("Idempotent-Replayed") for one in again} == {"true"}, name
        now = (await shop.ask("GET", "/v1/events?limit=1")).json["data"][0]["number"]
        assert now - after <= 2, name  # nothing happened again (a refund goes on by itself)
        assert after >= events
        if other is not None:
            mismatch = await shop.ask("POST", where, other, headers=used)
            assert (mismatch.status, mismatch.json["code"]) == (422, "idempotency_mismatch"), name
        elsewhere = await shop.ask(
            "POST", "/v1/payments", ORDER | {"order_id": secrets.token_hex(4)}, headers=used
        )
        assert elsewhere.status == 422, name
        if name == "v1_disable_endpoint":
            await till.enable_endpoint(known["endpoint"])
    assert len([one for one in await till.accounts() if one.name == "new"]) == 1
    assert len([one for one in await till.endpoints() if one.url == "https://a.example/"]) == 1
    assert [one.amount_minor async for one in till.refunds()] == [1000]


async def test_keys_of_two_merchants_do_not_meet(shop: Client, rival: Client) -> None:
    used = key()
    one = await shop.ask("POST", "/v1/payments", ORDER, headers=used)
    two = await rival.ask("POST", "/v1/payments", ORDER, headers=used)
    assert (one.status, two.status) == (201, 201)
    assert one.json["id"] != two.json["id"]


@pytest.mark.parametrize("name", ["", "x" * 256, "a\tb", "schl\xfcssel"])
async def test_keys_that_are_none(shop: Client, name: str) -> None:
    answer = await shop.ask("POST", "/v1/payments", ORDER, headers={"Idempotency-Key": name or " "})
    assert (answer.status, answer.json["param"]) == (400, "Idempotency-Key")


async def test_a_refusal_is_not_kept(shop: Client) -> None:
    """What was refused changed nothing, so the same request may be made again when it can be granted."""
    used, body = key(), {"amount_minor": 1000, "reason": "x"}
    payment_id = await shop.open()
    early = await shop.ask("POST", f"/v1/payments/{payment_id}/refunds", body, headers=used)
    await shop.act(payment_id, "pay")
    granted = await shop.ask("POST", f"/v1/payments/{payment_id}/refunds", body, headers=used)
    assert (early.status, granted.status) == (409, 201)


async def test_fifty_at_once_by_one_key_are_one(shop: Client) -> None:
    used = key()
    answers = await asyncio.gather(
        *(shop.ask("POST", "/v1/payments", ORDER | {"order_id": "rush"}, headers=used) for _ in range(50))
    )
    assert {one.status for one in answers} == {201}
    assert len({one.body for one in answers}) == 1
    assert len((await shop.ask("GET", "/v1/payments?order_id=rush")).json["data"]) == 1


async def test_in_flight_is_said_while_the_provider_thinks(shop: Client) -> None:
    """…903: the bank takes two seconds."""
    used, body = key(), ORDER | {"order_id": "slow", "amount_minor": 1_090_300}
    first = asyncio.create_task(shop.ask("POST", "/v1/payments", body, headers=used))
    await asyncio.sleep(0.7)
    second = await shop.ask("POST", "/v1/payments", body, headers=used)
    assert (second.status, second.json["code"]) == (409, "in_flight")
    assert int(second.headers["Retry-After"]) >= 1
    answered = await first
    again = await shop.ask("POST", "/v1/payments", body, headers=used)
    assert answered.status == 201
    assert answered.json["next_action"]["type"] == "qr"
    assert (again.status, again.body) == (201, answered.body)


async def ask_both(one: Client, two: Client, path: str, body: Any, used: dict[str, str]) -> list[Answer]:
    sent = [till.ask("POST", path, body, headers=used) for _ in range(8) for till in (one, two)]
    return await asyncio.gather(*sent)


async def test_two_processes_give_one_answer(pg_url: str, tmp_path: Path) -> None:
    with hub(tmp_path, pg_url) as first, hub(tmp_path, pg_url) as second:
        known = new_merchant(pg_url)
        async with client(first.url, known) as one, client(second.url, known) as two:
            for path, body in (
                ("/v1/payments", ORDER),
                ("/v1/webhook-endpoints", {"url": "https://hook.example/x"}),
                ("/v1/accounts", {"provider": "payme", "name": "main", "config": PAYME}),
                ("/v1/settings/callback-secret", {}),
            ):
                answers = await ask_both(one, two, path, body, key())
                assert {one.status for one in answers} <= {200, 201}, answers
                assert len({one.body for one in answers}) == 1, path
        for table, count in (("payments", 1), ("endpoints", 1), ("accounts", 2), ("events", 1)):
            [found] = await rows(pg_url, f"SELECT count(*) FROM {table}")
            assert (table, found[0]) == (table, count)


async def test_a_key_outlives_its_process(database_url: str, tmp_path: Path) -> None:
    """Killed while the provider is asked: in flight at first, then answered by what is known."""
    used, body = key(), ORDER | {"order_id": "killed", "amount_minor": 1_090_300}
    with hub(tmp_path, database_url, worker=0) as process:
        known: Credentials = new_merchant(database_url)
        async with client(process.url, known) as shop:
            done = key()
            kept = await shop.ask("POST", "/v1/payments", ORDER, headers=done)
            asked = asyncio.create_task(shop.ask("POST", "/v1/payments", body, headers=used))
            await asyncio.sleep(0.7)
            process.send(signal.SIGKILL)
            await asyncio.gather(asked, return_exceptions=True)
            process.wait()
    with hub(tmp_path, database_url, worker=0) as process:
        async with client(process.url, known) as shop:
            again = await shop.ask("POST", "/v1/payments", ORDER, headers=done)
            assert (again.status, again.body) == (201, kept.body)
            waiting = await shop.ask("POST", "/v1/payments", body, headers=used)
            assert (waiting.status, waiting.json["code"]) == (409, "in_flight")
            await rows(database_url, "UPDATE attempts SET created_at = created_at - 61000")
            healed = await shop.ask("POST", "/v1/payments", body, headers=used)
            assert (healed.status, healed.json["status"]) == (201, "unsure")
            last = await shop.ask("POST", "/v1/payments", body, headers=used)
            assert last.body == healed.body
        assert process.stop() == 0


async def test_rotated_and_ended_credentials(served: Served, merchant: Credentials) -> None:
    directory = served.process._directory
    command = Process(
        directory,
        ["merchant", "rotate", merchant.merchant_id, "--overlap-h", "0", "--json"],
        {"database_url": served.database_url, "sandbox": 1},
    )
    async with client(served.url, merchant) as shop:
        assert (await shop.ask("GET", "/v1/settings")).status == 200
        with command.start() as rotating:
            assert rotating.wait() == 0
            new = json.loads(rotating.log)
        await asyncio.sleep(2.2)  # another process's change is seen within two seconds
        gone = await shop.ask("GET", "/v1/settings")
        assert (gone.status, gone.json["code"]) == (401, "unauthorized")
        login = {"api_key": merchant.api_key, "api_secret": merchant.api_secret}
        assert (await shop.ask("POST", "/v1/token", login)).status == 401
        login = {"api_key": new["api_key"], "api_secret": new["api_secret"]}
        assert (await shop.ask("POST", "/v1/token", login)).status == 200
