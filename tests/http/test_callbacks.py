"""Callbacks to a real server of the merchant's, verified by the Standard Webhooks project's own library."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from support.postgres import free_port
from support.serving import Client, Credentials, Served, client, hub_in_thread, new_merchant, rows
from support.sink import Callback, Sink, hurry, sink

STATUS_KEYS = ["payment_id", "order_id", "status", "amount", "currency", "wallet_id", "paid_at"]


@pytest.fixture
async def ear(served: Served) -> AsyncIterator[Sink]:
    """The merchant's server."""
    async with sink(served.callback_ports[0]) as opened:
        yield opened


@pytest.fixture
async def deaf(served: Served) -> AsyncIterator[Sink]:
    """Another server, which a test lets misbehave."""
    async with sink(served.callback_ports[1]) as opened:
        yield opened


def kinds(callbacks: list[Callback]) -> list[str]:
    return [json.loads(one.body)["type"] for one in callbacks]


async def deliveries(served: Served, payment_id: str) -> list[tuple[Any, ...]]:
    """State, tries, last status of a payment's deliveries, oldest first."""
    return await rows(
        served.database_url,
        "SELECT d.state, d.tries, d.last_status FROM deliveries d JOIN events e"
        " ON e.merchant_id = d.merchant_id AND e.seq = d.seq"
        f" WHERE e.subject = '{payment_id}' ORDER BY d.seq",
    )


async def tries(served: Served, payment_id: str) -> list[tuple[Any, ...]]:
    """Number, status, answer, error of every try for a payment, in order."""
    return await rows(
        served.database_url,
        "SELECT t.number, t.status, t.answer, t.error FROM delivery_tries t"
        " JOIN deliveries d ON d.id = t.delivery_id"
        " JOIN events e ON e.merchant_id = d.merchant_id AND e.seq = d.seq"
        f" WHERE e.subject = '{payment_id}' ORDER BY d.seq, t.number",
    )


async def tried(served: Served, payment_id: str) -> list[tuple[Any, ...]]:
    """`tries`, once there is one."""
    deadline = time.monotonic() + 15
    while not (found := await tries(served, payment_id)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return found


async def settled(served: Served, payment_id: str, *wanted: tuple[Any, ...]) -> None:
    deadline = time.monotonic() + 15
    while (found := await deliveries(served, payment_id)) != list(wanted):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)


async def test_what_a_callback_says_and_how_it_is_signed(
    served: Served, shop: Client, merchant: Credentials, ear: Sink
) -> None:
    payment_id = await shop.open("told", callback_url=ear.url)
    await shop.act(payment_id, "pay")
    [callback] = await ear.until(1)

    assert callback.headers["Content-Type"] == "application/json"
    assert re.fullmatch(r"[A-Za-z0-9_-]+", callback.id)
    assert abs(int(callback.headers["webhook-timestamp"]) - callback.at) < 5
    assert re.fullmatch(r"v1,[A-Za-z0-9+/]{43}=", callback.headers["webhook-signature"])
    assert not {"Authorization", "Cookie"} & set(callback.headers)
    assert len(callback.body) < 20_000
    headers = dict(callback.headers)
    Webhook(merchant.webhook_secret).verify(callback.body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(merchant.webhook_secret).verify(callback.body.replace(b"150000", b"250000"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(merchant.webhook_secret).verify(callback.body, headers | {"webhook-id": "evt_other"})

    # A client of the document guesses at the status body: its keys are there, at the top and in order.
    body, status = callback.body.decode(), await shop.status(payment_id)
    said = json.loads(body)
    assert [key for key in said if key in STATUS_KEYS] == STATUS_KEYS
    assert {key: said[key] for key in status} == status
    assert said["status"] == "success"
    assert '"amount":150000,' in body
    assert said["type"] == "payment.success"
    assert said["timestamp"].endswith("Z")
    await settled(served, payment_id, ("delivered", 1, 200))
    assert await tries(served, payment_id) == [(1, 200, "answer 1", None)]


async def test_what_is_told_and_what_is_not(shop: Client, ear: Sink) -> None:
    """An old client may take any call for money, so that an opened payment is told to nobody."""
    for action, told in (
        ("fail", ["payment.failed"]),
        ("expire", ["payment.expired"]),
        ("pay-late", ["payment.expired", "payment.success"]),
    ):
        ear.got.clear()
        payment_id = await shop.open(callback_url=ear.url)
        await shop.act(payment_id, action)
        got = await ear.until(len(told))
        assert kinds(got) == told
        assert [json.loads(one.body)["status"] for one in got][-1] == (await shop.status(payment_id))[
            "status"
        ]


async def test_refunds_are_told(shop: Client, ear: Sink) -> None:
    payment_id = await shop.paid(callback_url=ear.url)
    await ear.until(1)
    refund = (await shop.refund(payment_id, 40_000)).json
    got = await ear.until(2)
    said = json.loads(got[1].body)
    assert (said["type"], said["status"]) == ("refund.success", "success")
    assert (said["status_detail"], said["refunded_amount"]) == ("partially_refunded", 40_000)
    assert {key: said["refund"][key] for key in ("refund_id", "payment_id", "status", "amount")} == {
        **refund,
        "status": "success",
    }
    assert said["refund"]["reason"] == "returned goods"


async def test_a_try_that_fails_is_repeated_under_one_id(
    served: Served, shop: Client, merchant: Credentials, ear: Sink
) -> None:
    ear.answer = lambda one: 500 if one.number < 3 else 204
    payment_id = await shop.paid(callback_url=ear.url)
    await ear.until(1)
    await settled(served, payment_id, ("pending", 1, 500))
    [(next_at, now)] = await rows(
        served.database_url,
        "SELECT d.next_at, t.at FROM deliveries d JOIN delivery_tries t ON t.delivery_id = d.id"
        f" JOIN events e ON e.merchant_id = d.merchant_id AND e.seq = d.seq WHERE e.subject = '{payment_id}'",
    )
    assert 4_400 < next_at - now < 7_000  # five seconds, and some chance
    for number in (2, 3):
        await hurry(served.database_url)
        await ear.until(number)
        state = ("pending", 2, 500) if number == 2 else ("delivered", 3, 204)
        await settled(served, payment_id, state)
    assert len({one.id for one in ear.got}) == 1
    assert len({one.body for one in ear.got}) == 1
    for one in ear.got:
        Webhook(merchant.webhook_secret).verify(one.body, dict(one.headers))
    assert [one[:3] for one in await tries(served, payment_id)] == [
        (1, 500, "answer 1"),
        (2, 500, "answer 2"),
        (3, 204, ""),
    ]


async def test_the_second_try_comes_by_itself(served: Served, shop: Client, ear: Sink) -> None:
    ear.answer = lambda one: 503 if one.number == 1 else 200
    payment_id = await shop.paid(callback_url=ear.url)
    first, second = await ear.until(2)
    assert first.id == second.id
    assert 4 < second.at - first.at < 9
    await settled(served, payment_id, ("delivered", 2, 200))


async def test_news_of_one_payment_keep_their_order(served: Served, shop: Client, ear: Sink) -> None:
    ear.answer = lambda _: 500
    payment_id = await shop.paid(callback_url=ear.url)
    await ear.until(1)
    ear.answer = lambda _: 200
    await shop.refund(payment_id, 10_000)
    await shop.until(payment_id, refunded_amount=10_000)
    other = await shop.paid(callback_url=ear.url)  # another payment's news need not wait
    await ear.until(2)
    await settled(served, other, ("delivered", 1, 200))
    await settled(served, payment_id, ("pending", 1, 500), ("pending", 0, None))
    await hurry(served.database_url)
    await settled(served, payment_id, ("delivered", 2, 200), ("delivered", 1, 200))
    told = [json.loads(one.body) for one in await ear.until(4)]
    ours = [one["type"] for one in told if one["payment_id"] == payment_id]
    assert ours == ["payment.success", "payment.success", "refund.success"]


async def test_gone_means_no_more(served: Served, shop: Client, ear: Sink) -> None:
    ear.answer = lambda _: 410
    payment_id = await shop.paid(callback_url=ear.url)
    await ear.until(1)
    await settled(served, payment_id, ("failed", 1, 410))
    await hurry(served.database_url)
    await asyncio.sleep(1)
    assert len(ear.got) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_and_is_not_followed(
    served: Served, shop: Client, ear: Sink, deaf: Sink, status: int
) -> None:
    ear.answer = lambda _: web.Response(status=status, headers={"Location": deaf.url})
    payment_id = await shop.paid(callback_url=ear.url)
    await ear.until(1)
    await settled(served, payment_id, ("pending", 1, status))
    assert (deaf.got, deaf.strays, ear.strays) == ([], [], [])


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_every_other_answer_is_tried_again(
    served: Served, shop: Client, ear: Sink, status: int
) -> None:
    ear.answer = lambda one: status if one.number == 1 else 200
    payment_id = await shop.paid(callback_url=ear.url)
    await ear.until(1)
    await settled(served, payment_id, ("pending", 1, status))
    await hurry(served.database_url)
    await settled(served, payment_id, ("delivered", 2, 200))


async def test_an_endpoint_may_ask_for_more_time(served: Served, shop: Client, ear: Sink) -> None:
    ear.answer = lambda _: web.Response(status=503, headers={"Retry-After": "120"})
    payment_id = await shop.paid(callback_url=ear.url)
    await ear.until(1)
    await settled(served, payment_id, ("pending", 1, 503))
    wait = (
        "SELECT next_at FROM deliveries d JOIN events e ON e.merchant_id = d.merchant_id AND e.seq = d.seq"
        f" WHERE e.subject = '{payment_id}'"
    )
    [(next_at,)] = await rows(served.database_url, wait)
    assert 110 < next_at / 1000 - time.time() < 125


async def test_a_hanging_endpoint_holds_up_nobody_else(shop: Client, ear: Sink, deaf: Sink) -> None:
    hold = asyncio.Event()

    async def hang(_: Callback) -> int:
        await hold.wait()
        return 200

    deaf.answer = hang
    for _ in range(40):  # more than are sent at once to one place
        await shop.paid(callback_url=deaf.url)
    begun = time.monotonic()
    for n in range(1, 4):
        await shop.paid(callback_url=ear.url)
        await ear.until(n, timeout_s=5)
    assert time.monotonic() - begun < 5
    hold.set()
    await deaf.until(40)


async def test_an_endless_answer_is_cut(served: Served, shop: Client, ear: Sink) -> None:
    async def large(one: Callback) -> web.Response | int:
        return web.Response(body=b"x" * 5_000_000) if one.number == 1 else 200

    ear.answer = large
    payment_id = await shop.paid(callback_url=ear.url)
    await ear.until(1)
    [(number, status, answer, error)] = await tried(served, payment_id)
    assert (number, status, answer) == (1, None, None)
    assert "longer than 65536 bytes" in error
    await hurry(served.database_url)
    await settled(served, payment_id, ("delivered", 2, 200))


async def test_strange_answers_are_logged_and_harmless(served: Served, shop: Client, ear: Sink) -> None:
    for body in (b"\xff\xfe\x00nul", b"<script>alert(1)</script>", "日本語".encode() * 1000, b""):
        ear.got.clear()
        ear.answer = lambda _, body=body: web.Response(body=body)
        payment_id = await shop.paid(callback_url=ear.url)
        await ear.until(1)
        await settled(served, payment_id, ("delivered", 1, 200))
        [(_, _, answer, _)] = await tries(served, payment_id)
        assert len(answer) <= 300
        assert "\0" not in answer


async def test_nobody_listens(served: Served, shop: Client) -> None:
    url = f"http://127.0.0.1:{served.callback_ports[2]}/hook?secret=dont-log-me"
    payment_id = await shop.paid(callback_url=url)
    [(_, status, answer, error)] = await tried(served, payment_id)
    assert (status, answer) == (None, None)
    assert "Connection refused" in error
    assert "dont-log-me" not in error + served.process.log


async def test_a_name_that_leads_inside_by_then(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    """The name was public when it was given. When it is called it leads to us, and to a cloud's metadata."""
    asked: list[str] = []
    port = free_port()
    known = socket.getaddrinfo

    def rebound(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name and name.endswith("rebind.example"):
            asked.append(name)
            host = "169.254.169.254" if name.startswith("meta") else "127.0.0.1"
        return known(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    async with sink(port) as inside:
        with hub_in_thread(sqlite_url) as url:
            async with client(url, new_merchant(sqlite_url)) as shop:
                for host in (f"rebind.example:{port}", f"meta.rebind.example:{port}"):
                    await shop.paid(callback_url=f"https://{host}/callback")
                failed: list[tuple[Any, ...]] = []
                deadline = time.monotonic() + 10
                while len(failed) < 2:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.05)
                    failed = await rows(sqlite_url, "SELECT status, error FROM delivery_tries")
        assert sorted(set(asked)) == ["meta.rebind.example", "rebind.example"]
        for status, error in failed:
            assert status is None
            assert "does not lead to a public address" in error
            assert "127.0.0.1" not in error
            assert "169.254" not in error
        assert (inside.got, inside.strays) == ([], [])
