"""CheckPerformTransaction and CheckTransaction wait for no disk, keep no row, and promise nothing that the
hub could not keep just now."""

from __future__ import annotations

import asyncio
import base64
import itertools
import time
from typing import Any

import aiohttp
from sqlalchemy import select

from support.disk import no_file_may_grow
from tillgate.hub.standing import StandingIntent
from tillgate.providers.payme.tests.payme_kit import KEY, PRICE_TIYIN
from tillgate.providers.payme.tests.test_hub import Shop, shop_on
from tillgate.store import tables
from tillgate.store.work import ClaimDue

HOURS_12_MS = 43_200_000
_ids = itertools.count(1)


async def say(shop: Shop, method: str, **params: Any) -> dict[str, Any]:
    door = {"authorization": "Basic " + base64.b64encode(f"Paycom:{KEY}".encode()).decode()}
    async with (
        aiohttp.ClientSession(headers=door) as http,
        http.post(shop.url, json={"method": method, "params": params, "id": 1}) as reply,
    ):
        found: dict[str, Any] = await reply.json()
        return found


def code(answer: dict[str, Any]) -> int:
    found: int = answer["error"]["code"]
    return found


async def create(shop: Shop, order_id: str, ago_ms: int = 0) -> tuple[str, dict[str, Any]]:
    name = f"{next(_ids):024x}"
    now = time.time_ns() // 1_000_000 - ago_ms
    account = {"order_id": order_id}
    return name, await say(shop, "CreateTransaction", id=name, time=now, amount=PRICE_TIYIN, account=account)


async def kept(shop: Shop) -> list[str]:
    rows = await shop.runtime.database.read(select(tables.inbound.c.verdict).order_by(tables.inbound.c.id))
    return [row[0] for row in rows]


async def test_an_answer_is_not_kept_and_a_refusal_is(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        await shop.order("ORD-1")
        account = {"order_id": "ORD-1"}
        allowed = await say(shop, "CheckPerformTransaction", amount=PRICE_TIYIN, account=account)
        assert allowed["result"] == {"allow": True}
        assert await kept(shop) == []
        assert code(await say(shop, "CheckPerformTransaction", amount=1, account=account)) == -31001
        nobody = {"order_id": "nobody"}
        refused = await say(shop, "CheckPerformTransaction", amount=PRICE_TIYIN, account=nobody)
        assert -31099 <= code(refused) <= -31050
        assert code(await say(shop, "CheckTransaction", id="f" * 24)) == -31003
        assert len(await kept(shop)) == 3
        name, made = await create(shop, "ORD-1")
        looked = await say(shop, "CheckTransaction", id=name)
        assert looked["result"]["transaction"] == made["result"]["transaction"]
        assert looked["result"]["state"] == 1
        busy = await say(shop, "CheckPerformTransaction", amount=PRICE_TIYIN, account=account)
        assert "error" in busy
        assert len(await kept(shop)) == 5


async def test_whoever_is_first_to_look_closes_what_outlived_its_time(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        await shop.order("ORD-1")
        name, made = await create(shop, "ORD-1", ago_ms=HOURS_12_MS - 700)
        assert made["result"]["state"] == 1
        await asyncio.sleep(0.9)
        answers = await asyncio.gather(*(say(shop, "CheckTransaction", id=name) for _ in range(20)))
        assert {(one["result"]["state"], one["result"]["reason"]) for one in answers} == {(-1, 4)}
        events = await shop.runtime.kit.reads.events(shop.merchant.id, 0, 100)
        closed = [row for row in events if b'"expired"' in bytes(row[6]) or b'"timeout"' in bytes(row[6])]
        assert len(closed) == 1


async def test_a_time_ahead_of_ours_holds_an_order_for_12_hours(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        await shop.order("ORD-1")
        year_ms = 365 * 86_400_000
        name, made = await create(shop, "ORD-1", ago_ms=-year_ms)
        attempt = await shop.runtime.kit.reads.external(shop.account.id, name)
        assert attempt is not None
        assert attempt.expires_at is not None
        assert 0 <= attempt.created_at + HOURS_12_MS - attempt.expires_at < 60_000
        assert attempt.provider_at is not None
        again = await say(
            shop, "CreateTransaction", id=name, time=attempt.provider_at, amount=PRICE_TIYIN,
            account={"order_id": "ORD-1"},
        )  # fmt: skip
        assert again == made
        stands = await shop.runtime.kit.reads.external(shop.account.id, name)
        assert stands == attempt
        # The statement goes by Payme's time all the same.
        rows = (await say(shop, "GetStatement", **{"from": attempt.provider_at, "to": 10**13}))["result"]
        assert [row["time"] for row in rows["transactions"]] == [attempt.provider_at]


async def test_the_check_shows_what_a_standing_order_says_of_itself(sqlite_url: str) -> None:
    async with shop_on(sqlite_url) as shop:
        extra = '{"payme": {"additional": {"name": "Anna"}}}'
        intent = StandingIntent("anna", "UZS", "payme", metadata=extra)
        await shop.runtime.hub.standing.open(shop.merchant, intent, None, lambda *_: b"")
        account = {"order_id": "anna"}
        answer = await say(shop, "CheckPerformTransaction", amount=PRICE_TIYIN, account=account)
        assert answer["result"] == {"allow": True, "additional": {"name": "Anna"}}


async def test_a_check_promises_nothing_while_nothing_can_be_written(sqlite_url: str) -> None:
    """Payme's document: -32400 where a system that Create and Perform need is down."""
    async with shop_on(sqlite_url) as shop:
        await shop.order("ORD-1")
        account = {"order_id": "ORD-1"}

        async def check() -> dict[str, Any]:
            return await say(shop, "CheckPerformTransaction", amount=PRICE_TIYIN, account=account)

        assert (await check())["result"] == {"allow": True}
        with no_file_may_grow(0):
            _, made = await create(shop, "ORD-1")
            assert code(made) == -32400
            for _ in range(3):
                assert code(await check()) == -32400
                # A worker finds nothing to do: a commit that writes nothing proves nothing.
                await shop.runtime.kit.journal.run(ClaimDue(1))
        assert (await check())["result"] == {"allow": True}
        before = len(await kept(shop))
        assert (await check())["result"] == {"allow": True}
        assert len(await kept(shop)) == before  # and is a mere question again
        assert (await create(shop, "ORD-1"))[1]["result"]["state"] == 1
