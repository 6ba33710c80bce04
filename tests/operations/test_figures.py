"""Figures from the database: found by an index, bounded, right about damage; and who may see `/metrics`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy.dialects import sqlite

from support.serving import hub_in_thread, rows
from support.till import Clock, open_till
from tillgate.domain.errors import Misconfigured
from tillgate.metrics import Histogram
from tillgate.settings import load
from tillgate.store import condition as conditions
from tillgate.store.condition import Condition, condition, drift

STRONG = "0123456789abcdef" * 4


async def test_what_is_stuck_overdue_and_broken(database_url: str) -> None:
    clock = Clock()
    async with open_till(database_url, clock=clock) as till:
        shop, other = await till.merchant("shop"), await till.merchant("other")
        assert await condition(till.database, clock()) == Condition(0, 0, {}, 0, 0, 0, 0)
        for number in range(3):
            await till.paid(shop, f"paid-{number}")
        await till.paid(other, "paid")
        await till.worker.drain()
        await till.open(shop, "late")
        assert set((await drift(till.database)).values()) == {0}
        clock.on(s=3600)
        found = await condition(till.database, clock())
        assert (found.unsure, found.held, found.pending_deliveries) == (0, 0, 0)
        assert found.overdue == {"expire": 1}
        assert 0 < found.due_lag_ms <= 3_600_000

        await rows(database_url, "UPDATE payments SET status = 'review' WHERE order_id = 'paid-0'")
        await rows(
            database_url, "UPDATE payments SET status = 'unsure' WHERE order_id IN ('paid-1', 'paid-2')"
        )
        at = clock()
        await rows(
            database_url,
            f"UPDATE deliveries SET state = 'pending', created_at = {at - 7_200_000}, next_at = {at - 500}"
            " WHERE id = (SELECT min(id) FROM deliveries)",
        )
        found = await condition(till.database, clock())
        assert (found.unsure, found.held) == (2, 1)
        assert (found.pending_deliveries, found.oldest_delivery_ms) == (1, 7_200_000)
        assert found.delivery_lag_ms == 500

        # One has a surplus, the other the same deficit: both are damage.
        for merchant, change in ((shop, "+ 7"), (other, "- 7")):
            await rows(
                database_url,
                f"UPDATE balances SET amount_minor = amount_minor {change} WHERE account = 'merchant'"
                f" AND merchant_id = '{merchant.id}'",
            )
        assert await drift(till.database) == {"IDR": 14}


async def test_each_read_goes_along_an_index(sqlite_url: str) -> None:
    """A table without one of its indexes would be walked at every scrape."""
    async with open_till(sqlite_url):
        pass
    wanted = {
        "_UNSURE": "ix_payments_stuck",
        "_HELD": "ix_payments_stuck",
        "_OVERDUE": "ix_due_run_at",
        "_PENDING_DELIVERIES": "ix_deliveries_next",
    }
    for name, index in wanted.items():
        statement: Any = getattr(conditions, name)
        made = str(
            statement.params(now=0).compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
        )
        plan = " ".join(str(row[-1]) for row in await rows(sqlite_url, f"EXPLAIN QUERY PLAN {made}"))
        assert index in plan, (name, plan)
        assert f"LIMIT {conditions.COUNTED}" in made


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({}, {"": 404, "Bearer x": 404}),
        ({"sandbox": True, "secret_key": ""}, {"": 200, "Bearer x": 200}),
        (
            {"metrics_token": "let-the-scraper-in"},
            {
                "": 401,
                "Bearer x": 401,
                "Bearer let-the-scraper-i": 401,
                "Basic bGV0": 401,
                "Bearer let-the-scraper-in": 200,
            },
        ),
    ],
    ids=["off", "sandbox", "token"],
)
async def test_who_may_see_them(sqlite_url: str, given: dict[str, Any], status: dict[str, int]) -> None:
    settings = {"sandbox": False, "secret_key": STRONG, **given}
    with hub_in_thread(sqlite_url, **settings) as url:
        async with aiohttp.ClientSession() as http:
            found = {}
            for authorization in status:
                headers = {"Authorization": authorization} if authorization else {}
                async with http.get(f"{url}/metrics", headers=headers) as reply:
                    found[authorization] = reply.status
                    assert reply.headers["Cache-Control"] == "no-store"
            assert found == status
            async with http.get(f"{url}/openapi.json") as reply:
                described = (await reply.json())["paths"]
            assert ("/metrics" in described) == (404 not in status.values())


async def test_a_knock_at_a_providers_door_is_counted_once(sqlite_url: str) -> None:
    """By every verb, also those that a route adds by itself and those that it refuses."""
    with hub_in_thread(sqlite_url, sandbox=True, secret_key="") as url:
        async with aiohttp.ClientSession() as http:
            for verb in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"):
                async with http.request(verb, f"{url}/in/nobody") as reply:
                    assert reply.status == (405 if verb == "PROPFIND" else 404)
            async with http.get(f"{url}/metrics") as reply:
                lines = (await reply.text()).splitlines()
    counted = sorted(
        line for line in lines if line.startswith("tillgate_http_requests_total{") and "/in/" in line
    )
    name = "tillgate_http_requests_total{method="
    assert counted == [
        f'{name}"",route="/in/{{account_id}}",status="405"}} 1.0',
        f'{name}"DELETE",route="/in/{{account_id}}",status="404"}} 1.0',
        f'{name}"GET",route="/in/{{account_id}}",status="404"}} 1.0',
        f'{name}"HEAD",route="/in/{{account_id}}",status="404"}} 1.0',
        f'{name}"OPTIONS",route="/in/{{account_id}}",status="404"}} 1.0',
        f'{name}"PATCH",route="/in/{{account_id}}",status="404"}} 1.0',
        f'{name}"POST",route="/in/{{account_id}}",status="404"}} 1.0',
        f'{name}"PUT",route="/in/{{account_id}}",status="404"}} 1.0',
    ]


def test_settings_that_cannot_be_meant(tmp_path: Path) -> None:
    for address in ("9464", ":9464", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:70000"):
        with pytest.raises(Misconfigured, match="TILLGATE_OPS_LISTEN"):
            load({"ops_listen": address}).ops_address()
    assert load({"ops_listen": "[::1]:9464"}).ops_address() == ("::1", 9464)
    with pytest.raises(Misconfigured, match="TILLGATE_METRICS_TOKEN"):
        load({"metrics_token": "short"}).metrics_bearer()
    assert load({"metrics_token": "short", "sandbox": True}).metrics_bearer() == "short"


def test_a_histogram_counts_a_bound_as_within() -> None:
    one = Histogram((1.0, 5.0))
    for value in (0.5, 1.0, 1.1, 5.0, 5.1):
        one.observe(value)
    assert (one.counts, one.total) == ([2, 2, 1], pytest.approx(12.7))
