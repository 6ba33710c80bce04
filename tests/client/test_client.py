"""The client against hubs that misbehave on a real socket, and against the real one with all its verbs."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from support.postgres import free_port
from support.serving import Credentials, hub, new_merchant
from support.sink import sink
from tillgate.client import (
    ApiError,
    BadRequest,
    Conflict,
    HubUnavailable,
    NoAnswer,
    NotFound,
    ProviderFailed,
    RateLimited,
    Tillgate,
    Unauthorized,
    WebhookVerificationError,
    verify_event,
)

KEY, SECRET = "key_of_the_shop", "a secret that is never said aloud"
PAID = {
    "id": "pay_1", "order_id": "A", "status": "pending", "amount_minor": 100, "currency": "IDR",
    "channel": "gopay", "paid_minor": 0, "tip_minor": 0, "fee_minor": 0, "refunding_minor": 0,
    "refunded_minor": 0, "reversed_minor": 0, "hold": None, "late": False, "paid_with": None,
    "account": "acc", "standing_order": None, "callback_url": None, "metadata": {},
    "created_at": "2026-11-21T00:00:00.000Z", "expires_at": "2026-11-21T00:15:00.000Z", "paid_at": None,
}  # fmt: skip

Calls = Counter[tuple[str, str]]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def problem(status: int, code: str, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        body = {"status": status, "code": code, "detail": "said", "param": "x", "request_id": "req_1"}
        return web.json_response(body, status=status, headers=headers)

    return answer


async def good(_: web.Request) -> web.Response:
    return web.json_response(PAID | {"a_field_of_tomorrow": 1}, status=201)


async def cut(request: web.Request) -> web.Response:
    """Takes the request, and its answer is lost."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hang(_: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return web.Response()


async def page_of_a_proxy(_: web.Request) -> web.Response:
    return web.Response(text="<h1>Welcome</h1>", content_type="text/html")


async def bad_gateway(_: web.Request) -> web.Response:
    return web.Response(status=502, text="<h1>Bad gateway</h1>", content_type="text/html")


async def elsewhere(_: web.Request) -> web.Response:
    return web.Response(status=307, headers={"Location": "/v1/payments/other"})


async def endless(request: web.Request) -> web.StreamResponse:
    reply = web.StreamResponse()
    await reply.prepare(request)
    while True:
        await reply.write(b" " * 2**20)


class Crooked:
    """A hub that answers as it was told, one answer after the other, then well; keeps what it is asked."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str, str | None, bytes]] = []
        self.logins = 0
        self.token_lasts_s = 3600

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/token":
            self.logins += 1
            given = await request.json()
            if given != {"api_key": KEY, "api_secret": SECRET}:
                return await problem(401, "invalid_credentials")(request)
            token = {"access_token": f"token-{self.logins}", "expires_in": self.token_lasts_s}
            return web.json_response(token)
        key = request.headers.get("Idempotency-Key")
        self.asked.append((request.method, request.path_qs, key, await request.read()))
        if request.headers["Authorization"] != f"Bearer token-{self.logins}":
            return await problem(401, "unauthorized")(request)
        return await (self.answers.pop(0) if self.answers else good)(request)


@pytest.fixture
async def crooked() -> AsyncIterator[Crooked]:
    opened = Crooked()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", opened.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    opened.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield opened
    await runner.cleanup()


def client(crooked: Crooked, **more: Any) -> Tillgate:
    return Tillgate(crooked.url, KEY, SECRET, **{"timeout_s": 2, "patience_s": 3, **more})


async def open_one(till: Tillgate, **more: Any) -> Any:
    return await till.create_payment(order_id="A", amount_minor=100, currency="IDR", channel="gopay", **more)


@pytest.mark.parametrize(
    "fault",
    [cut, bad_gateway, problem(503, "service_unavailable"), problem(429, "rate_limited"),
     problem(409, "in_flight")],
    ids=["the answer is lost", "a proxy loses it", "away", "too fast", "in flight"],
)  # fmt: skip
async def test_a_post_is_repeated_under_one_key(crooked: Crooked, fault: Answer) -> None:
    crooked.answers = [fault, fault]
    async with client(crooked) as till:
        assert (await open_one(till)).id == "pay_1"
        assert (await open_one(till, idempotency_key="mine")).id == "pay_1"
    (first, *others), last = crooked.asked[:3], crooked.asked[3]
    assert first[2] is not None
    assert others == [first, first]
    assert last[2] == "mine"
    assert len({key for _, _, key, _ in crooked.asked}) == 2


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_request", BadRequest), (404, "not_found", NotFound), (409, "not_allowed", Conflict),
        (422, "idempotency_mismatch", BadRequest), (502, "unsure", ProviderFailed),
        (500, "server_error", ApiError),
    ],
)  # fmt: skip
async def test_a_refusal_is_said_once_with_all_it_says(
    crooked: Crooked, status: int, code: str, kind: type[ApiError]
) -> None:
    crooked.answers = [problem(status, code)]
    async with client(crooked) as till:
        with pytest.raises(kind) as refused:
            await open_one(till)
    assert len(crooked.asked) == 1
    said = refused.value
    assert (said.http_status, said.error_code, said.detail) == (status, code, "said")
    assert (said.param, said.request_id) == ("x", "req_1")
    assert type(said) is kind


async def test_it_waits_as_long_as_it_is_asked_to_and_no_longer_than_it_may(crooked: Crooked) -> None:
    crooked.answers = [problem(429, "rate_limited", **{"Retry-After": "1"})]
    begun = time.monotonic()
    async with client(crooked) as till:
        await open_one(till)
        assert time.monotonic() - begun >= 1
        for status, code, kind in ((429, "x", RateLimited), (503, "y", HubUnavailable)):
            crooked.answers = [problem(status, code, **{"Retry-After": "3600"})]
            begun = time.monotonic()
            with pytest.raises(kind):
                await open_one(till)
            assert time.monotonic() - begun < 10


async def test_what_changes_without_a_key_is_not_sent_twice(crooked: Crooked) -> None:
    async with client(crooked) as till:
        crooked.answers = [cut]
        with pytest.raises(NoAnswer):
            await till.update_settings(payment_ttl_s=60)
        assert len(crooked.asked) == 1
        crooked.answers = [problem(503, "service_unavailable")]  # nothing was done: this may be
        with pytest.raises(NoAnswer, match="cannot be read"):
            await till.update_settings(payment_ttl_s=60)
        assert len(crooked.asked) == 3


async def test_a_deletion_whose_answer_was_lost_is_done(crooked: Crooked) -> None:
    async with client(crooked) as till:
        crooked.answers = [bad_gateway, problem(404, "not_found")]
        await till.delete_endpoint("we_1")
        crooked.answers = [problem(404, "not_found")]
        with pytest.raises(NotFound):
            await till.delete_endpoint("we_1")


async def test_nobody_there_is_said_when_patience_ends() -> None:
    async with Tillgate("http://127.0.0.1:1", KEY, SECRET, patience_s=0.5) as till:
        begun = time.monotonic()
        with pytest.raises(NoAnswer) as gone:
            await till.balances()
        assert time.monotonic() - begun < 10
    assert SECRET not in str(gone.value)
    assert SECRET not in repr(till)


@pytest.mark.parametrize("fault", [page_of_a_proxy, elsewhere, endless, hang])
async def test_what_is_no_answer_of_a_hub(crooked: Crooked, fault: Answer) -> None:
    crooked.answers = [fault]
    async with client(crooked, timeout_s=0.5, patience_s=0.1) as till:
        with pytest.raises((NoAnswer, ApiError)):
            await till.get_payment("pay_1")
    assert len(crooked.asked) == 1


async def test_tokens_are_renewed_before_they_end_and_when_they_are_refused(crooked: Crooked) -> None:
    async with client(crooked) as till:
        await asyncio.gather(*(till.get_payment(f"pay_{n}") for n in range(20)))
        assert crooked.logins == 1
        crooked.logins = 7  # another key now: the hub knows none of our tokens
        await asyncio.gather(*(till.get_payment(f"pay_{n}") for n in range(20)))
        assert crooked.logins == 8  # together, once
        crooked.token_lasts_s = 0
        crooked.logins = 9
        for _ in range(3):
            await till.get_payment("pay_1")
        assert crooked.logins > 11
        crooked.answers = [problem(401, "unauthorized")] * 2
        with pytest.raises(Unauthorized):
            await till.get_payment("pay_1")
    async with Tillgate(crooked.url, KEY, "wrong") as till:
        with pytest.raises(Unauthorized) as refused:
            await till.get_payment("pay_1")
        assert refused.value.error_code == "invalid_credentials"


async def test_a_cut_export_is_no_file(crooked: Crooked, tmp_path: Path) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        reply.enable_chunked_encoding()
        await reply.prepare(request)
        await reply.write(b"id\r\npay_1\r\n")
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.abort()
        return reply

    crooked.answers = [cut, problem(503, "service_unavailable"), half]
    async with client(crooked) as till:
        with pytest.raises(NoAnswer):
            await till.export_to(tmp_path / "till.csv", "payments")
    assert list(tmp_path.iterdir()) == []
    assert len(crooked.asked) == 3


async def test_addresses_ids_and_times_go_out_whole(crooked: Crooked) -> None:
    for wrong in ("till.example", "ftp://till.example", "http://", "http://till.example/?a=b"):
        with pytest.raises(ValueError, match="base_url"):
            Tillgate(wrong, KEY, SECRET)
    empty = {"data": [], "next_cursor": None}

    async def nothing(_: web.Request) -> web.Response:
        return web.json_response(empty)

    async with client(crooked) as till:
        await till.get_payment("../accounts?x=/%2e")
        crooked.answers = [nothing]
        assert [one async for one in till.payments(created_after=datetime(2026, 11, 21, tzinfo=UTC))] == []
        with pytest.raises(ValueError, match="created_before needs a time zone"):
            [one async for one in till.payments(created_before=datetime(2026, 11, 21))]  # noqa: DTZ001
        for no_id in ("", ".", ".."):  # would be another address
            with pytest.raises(ValueError, match="no id"):
                await till.get_payment(no_id)
    assert crooked.asked[0][1] == "/v1/payments/..%2Faccounts%3Fx=%2F%252e"
    assert crooked.asked[1][1] in (
        "/v1/payments?created_after=2026-11-21T00:00:00%2B00:00",
        "/v1/payments?created_after=2026-11-21T00%3A00%3A00%2B00%3A00",
    )
    with pytest.raises(RuntimeError, match="async with"):
        await client(crooked).balances()


# --- every verb, against a hub ---

COVERED = """
POST token · GET PATCH settings · POST settings/callback-secret
GET POST payments · GET payments/{payment_id} · POST payments/{payment_id}/cancel
POST payments/{payment_id}/resolve · GET payments/{payment_id}/attempts
GET POST payments/{payment_id}/refunds · GET refunds · GET refunds/{refund_id}
GET POST standing-orders · GET standing-orders/{standing_id} · POST standing-orders/{standing_id}/close
GET events · GET events/{event_id}
GET POST payment-links · GET payment-links/{link_id} · POST payment-links/{link_id}/disable
GET POST webhook-endpoints · GET PATCH DELETE webhook-endpoints/{endpoint_id}
POST webhook-endpoints/{endpoint_id}/disable · POST webhook-endpoints/{endpoint_id}/enable
POST webhook-endpoints/{endpoint_id}/rotate · POST webhook-endpoints/{endpoint_id}/test
POST webhook-endpoints/{endpoint_id}/replay
GET deliveries · GET deliveries/{delivery_id} · POST deliveries/{delivery_id}/resend
GET providers · GET channels · GET POST accounts · GET accounts/{account_id}
POST accounts/{account_id}/rotate · POST accounts/{account_id}/disable · POST accounts/{account_id}/enable
GET ledger/balances · GET ledger/postings · GET exports/payments.csv · GET exports/postings.csv
GET inbound · GET inbound/{message_id}
"""


@asynccontextmanager
async def watched(url: str, merchant: Credentials, calls: Calls) -> AsyncIterator[Tillgate]:
    trace = aiohttp.TraceConfig()

    async def saw(_: Any, __: Any, given: aiohttp.TraceRequestEndParams) -> None:
        calls[given.method, given.url.path] += given.response.status < 300

    trace.on_request_end.append(saw)
    async with (
        aiohttp.ClientSession(trace_configs=[trace]) as session,
        Tillgate(url, merchant.api_key, merchant.api_secret, session=session) as till,
    ):
        yield till
        assert not session.closed


async def test_every_verb_of_v1_has_a_method_that_works(sqlite_url: str, tmp_path: Path) -> None:
    calls: Calls = Counter()
    port = free_port()
    async with sink(port) as ear:
        with hub(tmp_path, sqlite_url, callback_allow=f"127.0.0.1:{port}") as process:
            merchant = new_merchant(sqlite_url)
            async with watched(process.url, merchant, calls) as till:
                await every_verb(till, process.url, ear)
                assert till._session is not None
                described = await (await till._session.get(f"{process.url}/openapi.json")).json()
            assert process.stop() == 0
    wanted = {
        (verb, f"/v1/{words[-1]}")
        for one in COVERED.replace("\n", "·").split("·")
        if (words := one.split())
        for verb in words[:-1]
    }
    assert len(wanted) == 51
    assert all(verb.lower() in described["paths"][path] for verb, path in wanted)
    unheard = {
        (method, path)
        for method, path in wanted
        if not any(
            done and verb == method and re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), called)
            for (verb, called), done in calls.items()
        )
    }
    assert unheard == set()


async def every_verb(till: Tillgate, url: str, ear: Any) -> None:
    endpoint = await till.create_endpoint(ear.url, ["payment.*"], description="ours")
    other = await till.create_endpoint(ear.url + "/2", ["refund.*"])
    changed = await till.update_endpoint(endpoint.id, event_types=["payment.*", "refund.*"])
    assert changed.event_types == ["payment.*", "refund.*"]
    assert changed.description == "ours"
    payment = await till.create_payment(
        order_id="A", amount_minor=15_000_000, currency="IDR", channel="gopay", metadata={"table": 7}
    )
    assert payment.next_action is not None
    assert payment.next_action.qr_string
    assert payment.metadata == {"table": 7}
    assert (await till.play(payment.id, "pay", fault="twice")).status == "paid"
    assert [one.status for one in await till.attempts(payment.id)] == ["paid"]
    refund = await till.create_refund(payment.id, 5_000_000, "one item")
    assert (await till.get_refund(refund.id)).amount_minor == 5_000_000
    assert [one.id for one in await till.payment_refunds(payment.id)] == [refund.id]
    assert [one.id async for one in till.refunds()] == [refund.id]
    second = await till.create_payment(order_id="B", amount_minor=100_000, currency="IDR", channel="ovo")
    assert (await till.cancel_payment(second.id, reason="gone")).status == "cancelled"
    lost = await till.create_payment(order_id="C", amount_minor=90_500, currency="IDR", channel="ovo")
    assert lost.status == "unsure"
    assert (await till.resolve_payment(lost.id, "failed", "seen at the bank", by="Sari")).status == "failed"
    assert [one.id async for one in till.payments(status="paid", limit=1)] == [payment.id]

    link = await till.create_payment_link("Tea", "IDR", amount_minor=100_000, channels=["gopay"], once=True)
    assert (await till.get_payment_link(link.id)).url == link.url
    assert [one.id async for one in till.payment_links()] == [link.id]
    assert (await till.disable_payment_link(link.id)).disabled_at is not None

    payme = {"merchant_id": "587f72c72cac0d162c722ae2", "key": "a-key-as-payme-gives-them-to-a-desk"}
    account = await till.create_account("payme", "main", payme, priority=3)
    assert account.secrets == ["key"]
    assert (await till.rotate_account(account.id, {"key": payme["key"] + "-2"})).name == "main"
    standing = await till.create_standing_order(
        order_id="S", currency="UZS", channel="payme", min_minor=100, metadata={"flat": "12"}
    )
    assert (await till.get_standing_order(standing.id)).metadata == {"flat": "12"}
    assert [one.id async for one in till.standing_orders()] == [standing.id]
    async with till._session.post(
        f"{url}/in/{account.id}", json={"id": 1, "method": "x", "params": {}}
    ) as reply:
        assert reply.status == 200
    [message] = [one async for one in till.inbound(account=account.id)]
    assert (await till.get_inbound(message.id)).verdict == message.verdict
    assert (await till.close_standing_order(standing.id)).status == "closed"
    assert (await till.disable_account(account.id)).status == "disabled"
    assert (await till.enable_account(account.id)).status == "enabled"
    assert (await till.get_account(account.id)).priority == 3
    assert {one.provider for one in await till.accounts()} == {"payme", "sandbox"}
    assert "payme" in {one.name for one in await till.providers()}
    assert "gopay" in {one.id for one in await till.channels()}

    await till.test_endpoint(endpoint.id)
    await until_delivered(till, ear)
    event = verify_event([endpoint.secret], ear.got[0].headers, ear.got[0].body)
    assert event.data.payment is not None
    assert event.data.payment.id == payment.id
    with pytest.raises(WebhookVerificationError):
        verify_event([endpoint.secret], ear.got[0].headers, ear.got[0].body + b" ")
    assert (await till.get_event(event.id)).number == event.number
    assert event.id in [one.id async for one in till.events(subject=payment.id)]
    delivery = [one async for one in till.deliveries(endpoint=endpoint.id, status="delivered")][-1]
    detail = await till.get_delivery(delivery.id)
    assert detail.event is not None
    assert [one.status for one in detail.log] == [200]
    again = await till.resend_delivery(delivery.id)
    assert again.event_number == delivery.event_number
    rotated = await till.rotate_endpoint(endpoint.id, overlap_s=60)
    assert rotated.signing_secrets == 2
    assert (await till.disable_endpoint(endpoint.id)).status == "disabled"
    assert (await till.enable_endpoint(endpoint.id)).status == "enabled"
    assert (
        await till.replay_endpoint(endpoint.id, what="everything", since=datetime(2026, 1, 1, tzinfo=UTC)) > 3
    )
    await till.delete_endpoint(other.id)
    assert [one.id for one in await till.endpoints()] == [endpoint.id]
    assert (await till.get_endpoint(endpoint.id)).url == ear.url

    assert (await till.update_settings(payment_ttl_s=600, callback_url=ear.url)).callback_url == ear.url
    assert (await till.update_settings(callback_url=None)).callback_url is None
    assert (await till.settings()).payment_ttl_s == 600
    assert (await till.rotate_callback_secret(overlap_s=0)).secret.startswith("whsec_")
    assert sum(one.amount_minor for one in await till.balances()) == 0
    booked: list[Any] = []
    while booked != (
        listed := [one async for one in till.postings(limit=2)]
    ):  # until nothing is booked between
        booked, lines = listed, b"".join([piece async for piece in till.export("postings")]).splitlines()
    assert len(lines) == 1 + len(booked)
    assert b"A,paid,IDR" in b"".join([piece async for piece in till.export("payments", tz="Asia/Jakarta")])


async def until_delivered(till: Tillgate, ear: Any) -> None:
    deadline = time.monotonic() + 15
    while not [one async for one in till.deliveries(status="delivered")]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
