"""Webhook endpoints under a worker: failing for days, gone, switched off and on, replayed in order."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import pytest

from support.till import Clock, Till
from tillgate.domain.errors import NotAllowed
from tillgate.hub.endpoints import Wanted
from tillgate.hub.resending import Span
from tillgate.store.directory import Endpoint, Merchant
from tillgate.store.reads_pages import Wanted as Rows

GOOD, BAD = "https://good.example/hook", "https://bad.example/hook"


def shown(_: Any) -> bytes:
    return b"{}"


async def endpoint(till: Till, shop: Merchant, url: str = GOOD, *types: str) -> tuple[Merchant, Endpoint]:
    made = await till.hub.endpoints.create(shop, Wanted(url, types), None, shown)
    return await till.directory.merchant(shop.id), made.endpoint


def told(till: Till, url: str) -> list[tuple[str, str]]:
    """(type, what it is about) of what an endpoint was sent, in order."""
    found = []
    for to, _, body in till.sink.got:
        if to == url:
            said = json.loads(body)
            about = said["data"].get("payment", {}).get("order_id") or said["data"].get("endpoint", {}).get(
                "id"
            )
            found.append((said["type"], about))
    return found


async def deliveries(till: Till, shop: Merchant) -> list[dict[str, Any]]:
    """Oldest event first."""
    page = await till_pages(till).page(Rows("deliveries", shop.id, 100))
    return [dict(row) for row in reversed(page.rows)]


def till_pages(till: Till) -> Any:
    from tillgate.store.reads_pages import Pages

    return Pages(till.database)


async def test_an_endpoint_hears_what_it_asked_for(till: Till, shop: Merchant) -> None:
    shop, _ = await endpoint(till, shop, GOOD, "payment.paid", "refund.*")
    paid = await till.paid(shop, "A")
    await till.hub.refund(shop, paid.payment.id, 100, "x")
    await till.worker.drain()

    assert [kind for kind, _ in told(till, GOOD)] == ["payment.paid", "refund.created", "refund.succeeded"]
    event = json.loads(next(body for url, _, body in till.sink.got if url == GOOD))
    assert event["number"] == 2
    assert event["id"] == next(name for url, name, _ in till.sink.got if url == GOOD)
    assert event["data"]["payment"]["paid_minor"] == 10_000


async def test_days_of_failure_switch_an_endpoint_off_and_say_so(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    shop, bad = await endpoint(till, shop, BAD)
    shop, _ = await endpoint(till, shop, GOOD, "endpoint.*")
    till.sink.answers[BAD] = deque([500] * 1000)
    for day in range(5):
        await till.paid(shop, f"day {day}")
        await till.worker.drain()
        [now] = [one for one in (await till.directory.merchant(shop.id)).endpoints if one.id == bad.id]
        assert not now.disabled
        assert now.failing_since is not None
        clock.on(s=86_400 - 3600)  # a little less than five days in all
    assert told(till, GOOD) == []

    clock.on(s=5 * 3600)
    await till.paid(shop, "the last")
    await till.worker.drain()
    [now] = [one for one in (await till.directory.merchant(shop.id)).endpoints if one.id == bad.id]
    assert now.disabled
    assert now.disabled_why == "nothing was delivered for 120 hours"
    assert told(till, GOOD) == [("endpoint.disabled", bad.id)]
    before = len(till.sink.got)
    clock.on(s=10 * 86_400)
    await till.worker.drain()
    assert len(till.sink.got) == before  # it is left alone
    assert {row["state"] for row in await deliveries(till, shop) if row["endpoint_id"] == bad.id} == {
        "failed"
    }


async def test_one_success_forgets_the_failures(till: Till, shop: Merchant, clock: Clock) -> None:
    shop, bad = await endpoint(till, shop, BAD)
    for _ in range(4):
        till.sink.answers[BAD] = deque([500])
        await till.paid(shop, f"{clock.now}")
        await till.worker.drain()
        clock.on(s=2 * 86_400)
        await till.worker.drain()
        [now] = (await till.directory.merchant(shop.id)).endpoints
        assert (now.disabled, now.failing_since) == (False, None)
    assert bad.id == now.id


async def test_gone_is_gone_at_once(till: Till, shop: Merchant) -> None:
    shop, bad = await endpoint(till, shop, BAD, "payment.paid")
    till.sink.answers[BAD] = deque([410])
    await till.paid(shop, "A")
    await till.worker.drain()
    [now] = (await till.directory.merchant(shop.id)).endpoints
    assert (now.disabled, now.disabled_why) == (True, "it answered 410 Gone")
    events = [row for row in await till.kit.reads.events(shop.id, 0, 100) if row[3] == "endpoint.disabled"]
    assert [row[4] for row in events] == [bad.id]


async def test_replay_after_recovery_sends_all_that_was_missed_in_order(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    shop, one = await endpoint(till, shop, GOOD, "payment.*")
    await till.paid(shop, "before")
    await till.worker.drain()
    till.sink.answers[GOOD] = deque([500] * 4)
    await till.paid(shop, "failing")  # under way when the endpoint is switched off
    await till.worker.drain()
    await till.hub.endpoints.switch(shop, one.id, False, None, shown)
    shop = await till.directory.merchant(shop.id)
    for number in range(3):
        await till.paid(shop, f"missed {number}")  # no delivery is made for these
    clock.on(s=10)
    await till.worker.drain()
    assert told(till, GOOD)[:2] == [("payment.pending", "before"), ("payment.paid", "before")]
    heard = len(till.sink.got)

    till.sink.answers[GOOD].clear()
    off = (await till.directory.merchant(shop.id)).endpoints[0]
    with pytest.raises(NotAllowed):
        await till.hub.resending.replay(shop, off, Span(), None, shown)
    await till.hub.endpoints.switch(shop, one.id, True, None, shown)
    shop = await till.directory.merchant(shop.id)
    done, _ = await till.hub.resending.replay(shop, shop.endpoints[0], Span(), None, shown)
    assert done is not None
    assert done.replayed == 8  # two each of `failing` and three missed; nothing of `before`
    await till.worker.drain()

    again = told(till, GOOD)[len([one for one in till.sink.got[:heard] if one[0] == GOOD]) :]
    for order in ("failing", "missed 0", "missed 1", "missed 2"):
        assert [kind for kind, about in again if about == order] == ["payment.pending", "payment.paid"]
    assert not [about for _, about in again if about == "before"]
    done, _ = await till.hub.resending.replay(shop, shop.endpoints[0], Span(), None, shown)
    assert done is not None
    assert done.replayed == 0  # a second replay finds nothing
    done, _ = await till.hub.resending.replay(shop, shop.endpoints[0], Span(everything=True), None, shown)
    assert done is not None
    assert done.replayed == 10


async def test_nothing_overtakes_what_is_not_delivered(till: Till, shop: Merchant, clock: Clock) -> None:
    shop, _ = await endpoint(till, shop, GOOD, "payment.*")
    till.sink.answers[GOOD] = deque([500])
    await till.paid(shop, "A")
    await till.worker.drain()
    assert told(till, GOOD) == [("payment.pending", "A")]  # tried, and failed
    clock.on(s=10)
    await till.worker.drain()
    assert told(till, GOOD)[1:] == [("payment.pending", "A"), ("payment.paid", "A")]


async def test_one_delivery_again_is_a_new_one_of_the_same_event(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    shop, _ = await endpoint(till, shop, GOOD, "payment.paid")
    await till.paid(shop, "A")
    await till.worker.drain()
    [first] = [one for one in await deliveries(till, shop) if one["endpoint_id"]]
    row, _ = await till.hub.resending.one(shop, first, None, shown)
    await till.worker.drain()

    sent = [(name, body) for url, name, body in till.sink.got if url == GOOD]
    assert sent[0] == sent[1]  # webhook-id and body, byte for byte
    assert row["id"] != first["id"]
    states = {one["id"]: one["state"] for one in await deliveries(till, shop)}
    assert (states[first["id"]], states[str(row["id"])]) == ("delivered", "delivered")


async def test_one_that_waits_is_hurried_not_doubled(till: Till, shop: Merchant, clock: Clock) -> None:
    shop, _ = await endpoint(till, shop, GOOD, "payment.paid")
    till.sink.answers[GOOD] = deque([500])
    await till.paid(shop, "A")
    await till.worker.drain()
    [waiting] = [one for one in await deliveries(till, shop) if one["endpoint_id"]]
    assert waiting["state"] == "pending"
    row, _ = await till.hub.resending.one(shop, waiting, None, shown)
    await till.worker.drain()
    assert row["id"] == waiting["id"]
    assert len([url for url, _, _ in till.sink.got if url == GOOD]) == 2
    assert len([one for one in await deliveries(till, shop) if one["endpoint_id"]]) == 1


async def test_what_was_for_an_endpoint_that_is_deleted_is_not_sent(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    shop, one = await endpoint(till, shop, BAD, "payment.paid")
    till.sink.answers[BAD] = deque([500])
    await till.paid(shop, "A")
    await till.worker.drain()
    await till.hub.endpoints.remove(shop, one.id)
    clock.on(s=10)
    await till.worker.drain()
    [row] = [row for row in await deliveries(till, shop) if row["endpoint_id"]]
    assert (row["state"], row["last_error"]) == ("failed", "not sent: the endpoint is deleted")
    assert len([url for url, _, _ in till.sink.got if url == BAD]) == 1


async def test_a_replay_is_bounded_and_says_where_to_go_on(till: Till, shop: Merchant) -> None:
    shop, one = await endpoint(till, shop, GOOD, "payment.pending")
    await till.hub.endpoints.switch(shop, one.id, False, None, shown)
    shop = await till.directory.merchant(shop.id)
    count = 1010  # more than one replay looks at
    for number in range(count):
        await till.open(shop, f"{number}")
    await till.hub.endpoints.switch(shop, one.id, True, None, shown)
    shop = await till.directory.merchant(shop.id)
    span, replayed, rounds = Span(), 0, 0
    while True:
        done, _ = await till.hub.resending.replay(shop, shop.endpoints[0], span, None, shown)
        assert done is not None
        replayed, rounds = replayed + done.replayed, rounds + 1
        if done.last is None:
            break
        span = Span(after=done.last)
    assert (replayed, rounds) == (count, 2)
