"""The sandbox's menu of faults: what goes wrong at the bank, and what a merchant sees of it."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.serving import Client, Served, rows
from support.sink import Sink, sink


@pytest.fixture
async def ear(served: Served) -> AsyncIterator[Sink]:
    async with sink(served.callback_ports[3]) as opened:
        yield opened


async def due_now(served: Served, subject: str, kind: str) -> None:
    """Let time pass for one piece of due work."""
    change = f"UPDATE due SET run_at = 0 WHERE subject = '{subject}' AND kind = '{kind}'"
    await rows(served.database_url, change)


async def attempt_of(served: Served, payment_id: str) -> str:
    found = await rows(served.database_url, f"SELECT live_attempt_id FROM payments WHERE id = '{payment_id}'")
    return str(found[0][0])


async def told(ear: Sink, payment_id: str, *expected: str) -> None:
    """Exactly these callbacks, in this order, for the payment."""
    deadline = time.monotonic() + 15
    while True:
        bodies = [json.loads(one.body) for one in ear.got]
        found = [one["type"] for one in bodies if one["payment_id"] == payment_id]
        if len(found) >= len(expected):
            break
        assert time.monotonic() < deadline, (found, expected)
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    bodies = [json.loads(one.body) for one in ear.got]
    assert [one["type"] for one in bodies if one["payment_id"] == payment_id] == list(expected)


async def verdicts(served: Served, payment_id: str) -> list[str]:
    """What became of the bank's notices about a payment, in order."""
    found = await rows(
        served.database_url,
        f"SELECT verdict FROM inbound WHERE payment_id = '{payment_id}' ORDER BY received_at, id",
    )
    return [row[0] for row in found]


# --- faults of a payer's action -----------------------------------------------------------------------------


async def test_no_fault_and_a_notice_told_twice(served: Served, shop: Client, ear: Sink) -> None:
    for fault in ("", "none", "twice"):
        payment_id = await shop.open(callback_url=ear.url)
        answer = await shop.act(payment_id, "pay", fault)
        assert (answer.status, answer.json["status"], answer.json["status_detail"]) == (
            200,
            "success",
            "paid",
        )
        await told(ear, payment_id, "payment.success")
        assert len(await verdicts(served, payment_id)) == (3 if fault == "twice" else 1)


async def test_a_notice_that_comes_late(shop: Client, ear: Sink) -> None:
    payment_id = await shop.open(callback_url=ear.url)
    begun = time.monotonic()
    answer = await shop.act(payment_id, "pay", "late")
    assert (answer.status, answer.json["status"]) == (200, "pending")
    body = await shop.until(payment_id, status="success")
    assert 1.5 < time.monotonic() - begun < 8
    assert body["status_detail"] == "paid"
    await told(ear, payment_id, "payment.success")


@pytest.mark.parametrize("action", ["pay", "fail"])
async def test_a_notice_that_never_comes(served: Served, shop: Client, ear: Sink, action: str) -> None:
    """The hub asks the bank before it lets a payment expire: whoever paid has paid."""
    payment_id = await shop.open(callback_url=ear.url)
    assert (await shop.act(payment_id, action, "lost")).json["status"] == "pending"
    await rows(served.database_url, f"UPDATE payments SET expires_at = 1 WHERE id = '{payment_id}'")
    await due_now(served, payment_id, "expire")
    if action == "pay":
        body = await shop.until(payment_id, status="success")
        assert (body["status_detail"], body["paid_with"]) == ("paid", "GoPay")
        await told(ear, payment_id, "payment.success")
    else:
        body = await shop.until(payment_id, status="failed")
        assert body["status_detail"] == "failed"
        await told(ear, payment_id, "payment.failed")


async def test_notices_out_of_order(served: Served, shop: Client, ear: Sink) -> None:
    payment_id = await shop.open(callback_url=ear.url)
    body = (await shop.act(payment_id, "pay", "out_of_order")).json
    assert (body["status"], body["status_detail"]) == ("success", "paid")
    await told(ear, payment_id, "payment.success")
    assert len(await verdicts(served, payment_id)) == 3  # paid, then pending, then expired


async def test_a_forged_notice(served: Served, shop: Client, ear: Sink) -> None:
    counted = "SELECT COUNT(*) FROM inbound WHERE verdict = 'unauthenticated'"
    [(before,)] = await rows(served.database_url, counted)
    payment_id = await shop.open(callback_url=ear.url)
    assert (await shop.act(payment_id, "pay", "forged")).json["status"] == "success"
    await told(ear, payment_id, "payment.success")  # the genuine one, which came behind it
    assert await rows(served.database_url, counted) == [(before + 1,)]
    assert await verdicts(served, payment_id) == ["applied"]


async def test_a_wrong_amount_is_held(served: Served, shop: Client, ear: Sink) -> None:
    order_id = f"short {secrets.token_hex(4)}"
    payment_id = await shop.open(order_id, 64_000, callback_url=ear.url)
    body = (await shop.act(payment_id, "pay", "wrong_amount")).json
    assert (body["status"], body["status_detail"]) == ("pending", "review")
    # Nothing is fulfilled, refunded or taken a second time until an operator has looked.
    assert (await shop.refund(payment_id, 1)).json["errorType"] == "refund_not_allowed"
    assert await shop.open(order_id, 64_000) == payment_id
    held = f"SELECT hold, paid_minor FROM payments WHERE id = '{payment_id}'"
    assert await rows(served.database_url, held) == [("amount_mismatch", 6_399_900)]
    await asyncio.sleep(0.3)
    assert ear.got == []


async def test_actions_that_the_bank_refuses(shop: Client) -> None:
    for first, then in (
        ("pay", ("fail", "expire")),
        ("fail", ("pay", "expire")),
        ("expire", ("pay", "fail")),
    ):
        payment_id = await shop.open()
        body = (await shop.act(payment_id, first)).json
        assert (await shop.act(payment_id, first)).json == body  # a repeat is the same
        for action in then:
            answer = await shop.act(payment_id, action)
            assert (answer.status, answer.json["errorType"]) == (409, "not_allowed")
        assert await shop.status(payment_id) == body
    # Money after all, when the bank had already given up.
    payment_id = await shop.open()
    await shop.act(payment_id, "expire")
    assert (await shop.act(payment_id, "pay-late")).json["status_detail"] == "paid_late"
    payment_id = await shop.open()
    await shop.act(payment_id, "fail")
    assert (await shop.act(payment_id, "pay-late")).json["status_detail"] == "paid_late"


# --- amounts that end in 901 to 905 -------------------------------------------------------------------------


async def opened(shop: Client, amount: int, **more: Any) -> tuple[dict[str, Any], str]:
    body = {"wallet_id": "ovo", "amount": amount, "currency": "IDR", "order_id": secrets.token_hex(8), **more}
    answer = await shop.ask("POST", "/payments", body)
    assert answer.status == 200
    return answer.json, body["order_id"]


async def test_901_the_answer_is_lost_and_the_bank_has_it(served: Served, shop: Client, ear: Sink) -> None:
    made, _ = await opened(shop, 20_901, callback_url=ear.url)
    payment_id = made["payment_id"]
    assert (made["status"], made["status_detail"]) == ("pending", "unsure")
    assert "qr_string" not in made
    assert (await shop.status(payment_id))["status_detail"] == "unsure"
    await due_now(served, await attempt_of(served, payment_id), "look")
    await shop.until(payment_id, status="pending", status_detail="pending")
    assert (await shop.act(payment_id, "pay")).json["status"] == "success"
    await told(ear, payment_id, "payment.success")


async def test_901_paid_before_anybody_looked(shop: Client) -> None:
    made, _ = await opened(shop, 20_901)
    assert (await shop.act(made["payment_id"], "pay")).json["status_detail"] == "paid"


@pytest.mark.parametrize("amount", [20_902, 1_905])
async def test_902_and_905_the_bank_never_had_it(
    served: Served, shop: Client, ear: Sink, amount: int
) -> None:
    made, order_id = await opened(shop, amount, callback_url=ear.url)
    payment_id = made["payment_id"]
    assert (made["status"], made["status_detail"]) == ("pending", "unsure")
    await due_now(served, await attempt_of(served, payment_id), "look")
    body = await shop.until(payment_id, status="failed")
    assert body["status_detail"] == "failed"
    await told(ear, payment_id, "payment.failed")
    body = {"wallet_id": "dana", "amount": amount, "currency": "IDR", "order_id": order_id}
    assert (await shop.ask("POST", "/payments", body)).json["payment_id"] == payment_id  # a new attempt


async def test_903_the_bank_is_slow(shop: Client) -> None:
    begun = time.monotonic()
    made, _ = await opened(shop, 903)
    assert 1.9 < time.monotonic() - begun < 6
    assert (made["status"], "qr_string" in made) == ("pending", True)


async def test_904_the_bank_declines(shop: Client, ear: Sink) -> None:
    made, order_id = await opened(shop, 77_904, callback_url=ear.url)
    assert made["status"] == "failed"
    assert (await shop.status(made["payment_id"]))["status_detail"] == "failed"
    await told(ear, made["payment_id"], "payment.failed")
    body = {"wallet_id": "dana", "amount": 77_904, "currency": "IDR", "order_id": order_id}
    again = (await shop.ask("POST", "/payments", body)).json
    assert (again["payment_id"], again["status"]) == (made["payment_id"], "failed")


# --- refunds that end in 13 to 15 ---------------------------------------------------------------------------


async def refunds(shop: Client, payment_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await shop.ask("GET", f"/payments/{payment_id}/refunds")).json["refunds"]
    return found


async def refund_ends(shop: Client, payment_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 15
    while (last := (await refunds(shop, payment_id))[-1])["status"] == "processing":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return last


@pytest.mark.parametrize(
    ("amount", "failure"), [(1_013, "the wallet refused it"), (1_015, "this wallet is closed")]
)
async def test_refunds_that_fail_give_their_amount_back(
    shop: Client, ear: Sink, amount: int, failure: str
) -> None:
    payment_id = await shop.paid(2_000, callback_url=ear.url)
    answer = await shop.refund(payment_id, amount)
    assert (answer.status, answer.json["status"]) == (200, "processing")
    ended = await refund_ends(shop, payment_id)
    assert (ended["status"], ended["failure"], ended["amount"]) == ("failed", failure, amount)
    body = await shop.status(payment_id)
    assert (body["status_detail"], body["refunded_amount"]) == ("paid", 0)
    await told(ear, payment_id, "payment.success", "refund.failed")
    assert json.loads(ear.got[-1].body)["refund"]["failure"] == failure
    assert (await shop.refund(payment_id, 2_000)).status == 200
    await shop.until(payment_id, status_detail="refunded")


async def test_a_refund_that_succeeds_in_silence_is_found(served: Served, shop: Client, ear: Sink) -> None:
    payment_id = await shop.paid(2_000, callback_url=ear.url)
    refund_id = (await shop.refund(payment_id, 1_014)).json["refund_id"]
    await asyncio.sleep(0.6)
    assert [one["status"] for one in await refunds(shop, payment_id)] == ["processing"]
    await due_now(served, refund_id, "look_refund")
    assert (await refund_ends(shop, payment_id))["status"] == "success"
    await told(ear, payment_id, "payment.success", "refund.success")


async def test_sen_cannot_go_back(shop: Client) -> None:
    """Rupiah have no decimals at any provider; `/v1` counts in sen, so that it could ask for one."""
    payment_id = await shop.paid(2_000)
    asked = {"amount_minor": 1, "reason": "x"}
    answer = await shop.ask("POST", f"/v1/payments/{payment_id}/refunds", asked)
    assert (answer.status, answer.json["param"]) == (400, "amount_minor")
    assert "multiples of 100 minor units" in answer.json["detail"]
    assert (await shop.ask("GET", f"/v1/payments/{payment_id}/refunds")).json["data"] == []


# --- where the sandbox is -----------------------------------------------------------------------------------


async def test_the_bank_s_door_takes_only_signed_notices(served: Served, shop: Client) -> None:
    payment_id = await shop.open()
    found = f"SELECT account_id FROM payments WHERE id = '{payment_id}'"
    [(account_id,)] = await rows(served.database_url, found)
    paid = {"state": "paid", "paid_minor": 15_000_000}
    notice = {"event_id": "x", "operation_id": await attempt_of(served, payment_id), "charge": paid}
    for headers in ({}, {"X-Sandbox-Signature": "0" * 64}, {"X-Sandbox-Signature": "ключ"}):
        answer = await shop.ask("POST", f"/in/{account_id}", notice, headers=headers)
        assert (answer.status, answer.json) == (401, {"error": "unauthenticated"})
    for name in ("acc_0", "%00", "x" * 3000, "%ff"):
        answer = await shop.ask("POST", f"/in/{name}", notice)
        assert (answer.status, answer.json) == (404, {"error": "not_found"})
    answer = await shop.ask("POST", f"/in/{account_id}", raw=io.BytesIO(b"x" * 1_100_000))
    assert answer.status == 413
    assert (await shop.status(payment_id))["status"] == "pending"
