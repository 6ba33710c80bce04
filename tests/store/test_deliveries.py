"""Outgoing callbacks: every event at least once, in its payment's order, under one id, until it is taken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import select, text

from support.till import CALLBACK, Clock, Till, open_till
from support.tinybank import Charge
from tillgate import webhooks
from tillgate.hub import Opened
from tillgate.spi import HttpCall, HttpReply
from tillgate.store import tables
from tillgate.store.directory import Merchant, MerchantSettings
from tillgate.store.work import ClaimDeliveries

# Standard Webhooks, "Reference retry schedule": seconds after the try before.
WAITS_S = [5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600]


@pytest.fixture
async def second(till: Till) -> AsyncIterator[Till]:
    async with open_till(till.url, bank=till.bank, sink=till.sink, clock=till.clock) as opened:
        yield opened


async def deliveries(till: Till) -> list[dict[str, Any]]:
    rows = await till.database.read(select(tables.deliveries).order_by(tables.deliveries.c.seq))
    names = [one.name for one in tables.deliveries.columns]
    return [dict(zip(names, row, strict=True)) for row in rows]


async def tries(till: Till) -> list[tuple[Any, ...]]:
    table = tables.delivery_tries
    rows = await till.database.read(select(table).order_by(table.c.delivery_id, table.c.number))
    return [tuple(row) for row in rows]


async def news(till: Till, shop: Merchant, order: str, refunds: int = 2) -> Opened:
    """A payment and its refunds, all told to the callback's queue, none sent."""
    opened = await till.paid(shop, order)
    for number in range(refunds):
        made = await till.hub.refund(shop, opened.payment.id, 1_000 + number, "why")
        await till.told(shop, made.refund.id, "succeeded")
    return opened


def told(till: Till, url: str = CALLBACK) -> list[str]:
    return [json.loads(body)["type"] for to, _, body in till.sink.got if to == url]


async def test_news_is_signed_and_says_how_it_stands(till: Till, shop: Merchant) -> None:
    calls: list[HttpCall] = []

    async def keep(call: HttpCall) -> HttpReply:
        calls.append(call)
        return HttpReply(204, {}, b"")

    till.worker._deliver = keep
    opened = await till.paid(shop, "ORD-1", 150_000_00)
    await till.worker.drain()
    [call] = calls
    assert (call.method, call.url) == ("POST", CALLBACK)
    webhooks.verify(shop.webhook_secrets, call.headers, call.body, now_s=till.clock() / 1000)
    body = json.loads(call.body)
    assert body["type"] == "payment.success"
    assert {name: body[name] for name in ("payment_id", "order_id", "status", "amount", "currency")} == {
        "payment_id": opened.payment.id,
        "order_id": "ORD-1",
        "status": "success",
        "amount": 150_000,
        "currency": "IDR",
    }
    [row] = await deliveries(till)
    assert (row["state"], row["tries"], row["last_status"]) == ("delivered", 1, 204)
    events = await till.kit.reads.events(shop.id, 0, 10)
    assert call.headers["webhook-id"] == events[-1][2]


async def test_one_payments_news_comes_in_order(till: Till, shop: Merchant) -> None:
    for number in range(5):
        await news(till, shop, f"ORD-{number}")
    await till.worker.drain()
    assert len(till.sink.got) == 15
    for number in range(5):
        mine = [body for _, _, body in till.sink.got if json.loads(body)["order_id"] == f"ORD-{number}"]
        assert [json.loads(body)["refunded_amount"] for body in mine] == [0, 10, 20.01]
    assert len(set(till.sink.ids())) == 15


async def test_nothing_overtakes_what_was_not_taken(till: Till, shop: Merchant, clock: Clock) -> None:
    await news(till, shop, "ORD-1")
    till.sink.answers[CALLBACK].extend([500, 500])
    await till.worker.drain()
    assert told(till) == ["payment.success"]
    clock.on(s=7)
    await till.worker.drain()
    assert told(till) == ["payment.success"] * 2
    clock.on(s=400)
    await till.worker.drain()
    assert told(till) == ["payment.success"] * 3 + ["refund.success"] * 2
    assert len(set(till.sink.ids())) == 3


async def test_other_payments_do_not_wait(till: Till, shop: Merchant) -> None:
    stuck = await till.open(shop, "STUCK", callback_url="https://stuck.example/")
    till.sink.answers["https://stuck.example/"].extend([500] * 20)
    await till.pay(shop, stuck)
    await till.paid(shop, "FINE")
    await till.worker.drain()
    assert told(till) == ["payment.success"]


@pytest.mark.parametrize("failure", [500, 503, 404, 400, 301, 429, "unreachable", "lost", "broken"])
async def test_a_failing_endpoint_is_tried_for_three_days(
    till: Till, shop: Merchant, clock: Clock, failure: int | str
) -> None:
    till.sink.answers[CALLBACK].extend([failure] * 50)
    await till.paid(shop, "ORD-1")
    times = []
    for _ in range(30):
        [row] = await deliveries(till)
        if row["state"] != "pending":
            break
        clock.now = row["next_at"]
        times.append(clock.now)
        await till.worker.drain()
    [row] = await deliveries(till)
    assert (row["state"], row["tries"]) == ("failed", 10)
    assert len(await tries(till)) == 10
    waits_s = [(later - sooner) / 1000 for sooner, later in pairwise(times)]
    for waited, nominal in zip(waits_s, WAITS_S, strict=True):
        assert nominal * 0.9 <= waited <= nominal * 1.1
    assert len(set(till.sink.ids())) <= 1


async def test_the_queue_goes_on_behind_what_was_given_up(till: Till, shop: Merchant, clock: Clock) -> None:
    await news(till, shop, "ORD-1", 1)
    till.sink.answers[CALLBACK].extend([500] * 10)
    for _ in range(10):
        clock.now = (await deliveries(till))[0]["next_at"]
        await till.worker.drain()
    assert [row["state"] for row in await deliveries(till)] == ["failed", "delivered"]


async def test_every_try_is_kept_with_the_endpoints_answer(till: Till, shop: Merchant, clock: Clock) -> None:
    till.sink.answers[CALLBACK].extend([500, "unreachable", "lost"])
    await till.paid(shop, "ORD-1")
    for _ in range(4):
        [row] = await deliveries(till)
        clock.now = max(clock.now, row["next_at"])
        await till.worker.drain()
    kept = [(number, status, answer, error) for _, number, _, _, status, answer, error in await tries(till)]
    assert [one[0] for one in kept] == [1, 2, 3, 4]
    assert [one[1] for one in kept] == [500, None, None, 200]
    assert [one[2] for one in kept] == ["thanks", None, None, "thanks"]
    assert kept[0][3] == "answered 500"
    assert kept[1][3].startswith("unreachable")
    assert kept[2][3].startswith("unsure")
    assert len(set(till.sink.ids())) == 1


async def test_an_answer_of_any_bytes_is_kept(till: Till, shop: Merchant) -> None:
    async def strange(call: HttpCall) -> HttpReply:
        return HttpReply(200, {}, b"\0\xff\xfe" * 1_000)

    till.worker._deliver = strange
    await till.paid(shop, "ORD-1")
    await till.worker.drain()
    assert (await deliveries(till))[0]["state"] == "delivered"


async def test_gone_means_stop(till: Till, shop: Merchant) -> None:
    till.sink.answers[CALLBACK].append(410)
    await till.paid(shop, "ORD-1")
    await till.worker.drain()
    [row] = await deliveries(till)
    assert (row["state"], row["tries"]) == ("failed", 1)


async def test_two_workers_send_each_once(till: Till, second: Till, shop: Merchant) -> None:
    for number in range(40):
        await till.paid(shop, f"ORD-{number}")
    await asyncio.gather(*(side.worker.drain() for side in (till, second) for _ in range(2)))
    assert len(till.sink.got) == 40
    assert len(set(till.sink.ids())) == 40
    assert {row["tries"] for row in await deliveries(till)} == {1}


async def test_what_a_worker_held_when_it_died_goes_out_again(
    till: Till, second: Till, shop: Merchant, clock: Clock
) -> None:
    hanging = asyncio.Event()

    async def hang(call: HttpCall) -> HttpReply:
        hanging.set()
        await asyncio.Event().wait()
        raise AssertionError

    till.worker._deliver = hang
    await news(till, shop, "ORD-1")
    dying = asyncio.create_task(till.worker.drain())
    await hanging.wait()
    dying.cancel()
    await asyncio.wait([dying])
    await second.worker.drain()
    assert till.sink.got == []  # the lease still runs
    clock.on(s=61)
    await second.worker.drain()
    assert told(till) == ["payment.success", "refund.success", "refund.success"]


async def test_a_worker_that_comes_back_too_late_changes_nothing(
    till: Till, second: Till, shop: Merchant, clock: Clock
) -> None:
    """Its lease was over and another took the delivery: the other's word counts."""
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def slow(call: HttpCall) -> HttpReply:
        waiting.set()
        await go_on.wait()
        return HttpReply(500, {}, b"")

    till.worker._deliver = slow
    await till.paid(shop, "ORD-1")
    late = asyncio.create_task(till.worker.drain())
    await waiting.wait()
    clock.on(s=61)
    await second.worker.drain()
    go_on.set()
    await late
    [row] = await deliveries(till)
    assert (row["state"], row["last_status"]) == ("delivered", 200)


async def test_an_event_that_cannot_be_said_blocks_nobody(till: Till, shop: Merchant, clock: Clock) -> None:
    """Damaged behind our back: its stream goes on after three days, all others at once."""
    await news(till, shop, "ORD-1", 1)
    await till.paid(shop, "ORD-2")
    first = (await deliveries(till))[0]

    class Damage:
        async def run(self, tx: Any, now: int) -> None:
            statement = tables.events.update().where(tables.events.c.seq == first["seq"]).values(body=b"{")
            await tx.execute(statement, {})

    await till.journal.run(Damage())
    await till.worker.drain()
    assert told(till) == ["payment.success"]
    for _ in range(9):
        clock.now = (await deliveries(till))[0]["next_at"]
        await till.worker.drain()
    assert [row["state"] for row in await deliveries(till)] == ["failed", "delivered", "delivered"]
    assert [one[6] for one in await tries(till)].count("internal: it could not be sent") == 10


async def test_an_event_that_is_gone_blocks_nobody(till: Till, shop: Merchant) -> None:
    await till.paid(shop, "ORD-1")
    await till.paid(shop, "ORD-2")
    first = (await deliveries(till))[0]

    class Damage:
        async def run(self, tx: Any, now: int) -> None:
            await tx.execute(tables.events.delete().where(tables.events.c.seq == first["seq"]), {})

    await till.journal.run(Damage())
    await till.worker.drain()
    assert [row["state"] for row in await deliveries(till)] == ["failed", "delivered"]


async def test_a_running_worker_hears_the_bell(till: Till, shop: Merchant) -> None:
    till.worker._idle_s = 30
    till.kit.journal.kick = till.worker.kick
    running = asyncio.create_task(till.worker.run())
    await asyncio.sleep(0.05)
    await till.paid(shop, "ORD-1")
    async with asyncio.timeout(5):
        while not till.sink.got:
            await asyncio.sleep(0.005)
    till.worker.stop()
    async with asyncio.timeout(5):
        await running


async def test_the_bell_is_rung_where_there_is_something_to_do(till: Till, shop: Merchant) -> None:
    """A worker that is woken for nothing costs every message two claims."""
    rung: list[int] = []
    till.journal.kick = lambda: rung.append(1)
    opened = await till.open(shop, "ORD-1")  # to be expired in a quarter of an hour; nobody is told of it
    assert rung == []
    await till.pay(shop, opened)
    assert rung


async def test_a_slow_endpoint_holds_only_its_own_slots(till: Till, shop: Merchant) -> None:
    go_on, quick = asyncio.Event(), []

    async def deliver(call: HttpCall) -> HttpReply:
        if "slow" in call.url:
            await go_on.wait()
        else:
            quick.append(call.url)
        return HttpReply(200, {}, b"")

    till.worker._deliver = deliver
    for number in range(20):
        opened = await till.open(shop, f"SLOW-{number}", callback_url="https://slow.example/")
        await till.pay(shop, opened)
    running = asyncio.create_task(till.worker.run())
    await asyncio.sleep(0.1)
    for number in range(20):
        await till.paid(shop, f"QUICK-{number}")
    async with asyncio.timeout(10):
        while len(quick) < 20:
            await asyncio.sleep(0.01)
    go_on.set()
    till.worker.stop()
    await running


async def test_work_that_never_ends_gives_its_slot_back(
    till: Till, shop: Merchant, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tillgate.worker.WORK_TIMEOUT_S", 0.05)
    opened = await till.open(shop, "ORD-1")
    till.bank.fail("cancel", "hang")
    clock.on(s=901)
    async with asyncio.timeout(5):
        await till.worker.drain()
    clock.on(s=61)
    await till.worker.drain()
    found = await till.kit.reads.payment(opened.payment.id)
    assert found is not None
    assert found.status == "expired"


async def test_a_payments_own_callback_goes_before_the_merchants(till: Till) -> None:
    shop = await till.merchant("shop", MerchantSettings(callback_url="https://default.example/"))
    own = await till.open(shop, "OWN", callback_url="https://own.example/")
    other = await till.open(shop, "OTHER")
    for one in (own, other):
        await till.pay(shop, one)
    await till.worker.drain()
    assert sorted(url for url, _, _ in till.sink.got) == ["https://default.example/", "https://own.example/"]


async def test_no_news_of_what_is_not_decided(till: Till, shop: Merchant) -> None:
    """Pending, unsure and held are nothing to ship goods for."""
    await till.open(shop, "PENDING")
    till.bank.fail("start", "lost")
    await till.open(shop, "UNSURE", channel="calling_qr")
    held = await till.open(shop, "HELD")
    await till.told(shop, held.attempt.id, Charge(10_000, "IDR", "paid", 1))
    await till.worker.drain()
    assert till.sink.got == []


BACKLOG = """
INSERT INTO deliveries (id, merchant_id, seq, stream, url, state, tries, next_at, created_at)
SELECT 'd' || i, 'm', i, 'pay_' || i / 2, 'https://shop.example/', 'pending', 0, i, 0
FROM generate_series({0} + 1, {0} + 20000) i
"""
READ = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'deliveries'"


@pytest.mark.parametrize("known", ["nothing", "all was delivered"])
async def test_a_backlog_that_the_planner_knows_nothing_of_is_not_read_whole(
    pg_till_url: str, known: str
) -> None:
    """Endpoints were away for a night: the statistics are of the evening before, when nothing was waiting."""
    async with open_till(pg_till_url) as till, till.database.begin() as tx:
        if known == "all was delivered":
            await tx.execute(text(BACKLOG.format(20_000)), {})
            await tx.execute(text("UPDATE deliveries SET state = 'delivered'"), {})
            await tx.execute(text("ANALYZE deliveries"), {})
        await tx.execute(text(BACKLOG.format(0)), {})
        [(before,)] = await tx.execute(text(READ), {})
        await ClaimDeliveries(16).run(tx, 90_000)
        [(after,)] = await tx.execute(text(READ), {})
    assert 16 <= after - before < 300
