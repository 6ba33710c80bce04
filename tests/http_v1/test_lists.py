"""Lists: every row once, in order, whatever happens meanwhile; cursors that nobody else can make or use."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from support.serving import Client
from tillgate.client import Tillgate


async def make(till: Tillgate, count: int, prefix: str = "L", channel: str = "gopay") -> list[str]:
    """Ids, the newest first."""
    return [
        (
            await till.create_payment(
                order_id=f"{prefix}-{number}", amount_minor=100_000, currency="IDR", channel=channel
            )
        ).id
        for number in range(count)
    ][::-1]


async def pages(shop: Client, path: str) -> list[list[Any]]:
    """By `Link: rel="next"` alone."""
    found = []
    while path:
        answer = await shop.ask("GET", path)
        assert answer.status == 200, answer
        found.append(answer.json["data"])
        links = dict(
            reversed(one.strip().split(">; rel="))
            for one in answer.headers["Link"].replace("<", "").split(",")
        )
        path = links.get('"next"', "")
        assert bool(path) == (answer.json["next_cursor"] is not None)
    return found


async def test_every_row_once_in_pages_of_any_size(till: Tillgate, shop: Client) -> None:
    made = await make(till, 7)
    for limit, sizes in ((1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (100, [7])):
        found = await pages(shop, f"/v1/payments?limit={limit}")
        assert [len(page) for page in found if page] == sizes
        assert [one["id"] for page in found for one in page] == made


async def test_rows_made_meanwhile_disturb_no_later_page(till: Tillgate, shop: Client) -> None:
    made = await make(till, 4)
    first = (await shop.ask("GET", "/v1/payments?limit=2")).json
    await make(till, 3, "M")
    second = (await shop.ask("GET", f"/v1/payments?limit=2&cursor={first['next_cursor']}")).json
    assert [one["id"] for one in first["data"] + second["data"]] == made


async def test_filters(till: Tillgate, shop: Client) -> None:
    old = await make(till, 2)
    ovo = await make(till, 2, "O", "ovo")
    await shop.act(ovo[0], "pay")

    async def ids(**filters: str) -> list[str]:
        return [one.id async for one in till.payments(**filters, limit=1)]

    assert await ids(channel="ovo") == ovo
    assert await ids(status="paid") == [ovo[0]]
    assert await ids(status="pending", channel="ovo") == [ovo[1]]
    assert await ids(status="review") == []
    assert await ids(order_id="L-1") == [old[0]]
    assert await ids(order_id="no such order") == []
    between = (await till.get_payment(ovo[1])).created_at
    assert await ids(created_after=between) == ovo
    assert await ids(created_before=between) == old
    assert await ids(created_after=between, created_before=between) == []
    assert await ids(created_after="2000-01-01T00:00:00+07:00") == ovo + old


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=-1", "limit"),
        ("limit=1.0", "limit"),
        ("status=done", "status"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-11-21T09:45:00", "created_after"),  # whose time?
        ("created_before=99999-01-01T00:00:00Z", "created_before"),
        ("cursor=x", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=" + "A" * 2000, "cursor"),
    ],
)
async def test_what_no_list_understands(shop: Client, query: str, param: str) -> None:
    answer = await shop.ask("GET", f"/v1/payments?{query}")
    assert (answer.status, answer.json["param"]) == (400, param)


async def test_a_cursor_is_good_for_its_list_filters_and_merchant_only(
    till: Tillgate, shop: Client, rival: Client
) -> None:
    await make(till, 3)
    cursor = (await shop.ask("GET", "/v1/payments?limit=1&channel=gopay")).json["next_cursor"]
    good = await shop.ask("GET", f"/v1/payments?limit=1&channel=gopay&cursor={cursor}")
    assert good.status == 200
    for client, path in (
        (shop, "/v1/payments?"),
        (shop, "/v1/payments?channel=ovo&"),
        (shop, "/v1/payments?channel=gopay&status=paid&"),
        (shop, "/v1/refunds?"),
        (shop, "/v1/events?"),
        (rival, "/v1/payments?channel=gopay&"),
    ):
        answer = await client.ask("GET", f"{path}cursor={cursor}")
        assert (answer.status, answer.json["param"]) == (400, "cursor"), path


async def test_a_cursor_cannot_be_changed(till: Tillgate, shop: Client) -> None:
    made = await make(till, 3)
    cursor = (await shop.ask("GET", "/v1/payments?limit=1")).json["next_cursor"]
    raw = bytearray(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    assert json.loads(raw[:-16]) == [made[0]]  # it says where to go on, and nothing else
    for place in (2, 10, len(raw) - 1, len(raw) - 16):
        forged = bytearray(raw)
        forged[place] ^= 1
        text = base64.urlsafe_b64encode(bytes(forged)).decode().rstrip("=")
        answer = await shop.ask("GET", f"/v1/payments?cursor={text}")
        assert (answer.status, answer.json["param"]) == (400, "cursor")


async def test_every_list_pages(till: Tillgate, shop: Client) -> None:
    for payment_id in await make(till, 2):
        await shop.act(payment_id, "pay")
        for number in (1, 2):
            await till.create_refund(payment_id, 1000 * number, "x")
    whole = {
        path: (await shop.ask("GET", f"{path}?limit=100")).json["data"]
        for path in ("/v1/refunds", "/v1/events", "/v1/ledger/postings", "/v1/inbound")
    }
    assert len(whole["/v1/refunds"]) == 4
    for path in ("/v1/refunds", "/v1/ledger/postings"):
        found = [one for page in await pages(shop, f"{path}?limit=3") for one in page]
        known = [json.dumps(one, sort_keys=True) for one in found]
        assert len(known) == len(set(known))
    numbers = [one.number async for one in till.events(limit=3)]
    assert numbers == list(range(numbers[0], 0, -1))


async def test_events_from_a_time_on(till: Tillgate) -> None:
    await make(till, 3)
    events = [one async for one in till.events()]
    middle = events[1].timestamp
    assert [one.number async for one in till.events(created_after=middle)] == [3, 2]
    assert [one.number async for one in till.events(created_before=middle)] == [1]
    assert [one.number async for one in till.events(type="payment.paid")] == []
    assert (await till.get_event(events[0].id)) == events[0]
