"""Lists stay fast: every page is found by an index, and what has none is looked for among so many rows only.

`TILLGATE_TEST_PAYMENTS=1000000` runs the same with a million.
"""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from support.serving import rows
from support.till import Till
from tillgate.store import statements
from tillgate.store.directory import Merchant
from tillgate.store.reads_pages import WINDOWS, Page, Pages, Wanted, _edge, _rows, _Shape

COUNT = int(os.environ.get("TILLGATE_TEST_PAYMENTS", "20000"))
START = 1_790_000_000_000
PAGE_S = 0.25  # on a busy machine; alone it is a few milliseconds

_COLUMNS = """id, merchant_id, order_id, order_key, standing_id, channel, account_id, currency, amount_minor,
status, closed, hold, late, paid_minor, tip_minor, fee_minor, refunding_minor, refunded_minor, reversed_minor,
live_attempt_id, live_phase, paid_with, callback_url, metadata, created_at, expires_at, paid_at, version"""
_VALUES = """{id}, '{merchant}', 'O-' || n, {key}, NULL,
CASE WHEN n % 10000 = 7 THEN 'ovo' ELSE 'gopay' END, 'acc_1', 'IDR', 100000,
CASE n % 1000 WHEN 1 THEN 'failed' WHEN 2 THEN 'review' ELSE 'paid' END, NULL, NULL, {no}, 100000,
0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, {start} + n, {start} + n + 900000, {start} + n, 1"""


async def fill(url: str, merchant: Merchant) -> None:
    if url.startswith("sqlite"):
        values = _VALUES.format(
            id=f"printf('pay_%012x%020d', {START} + n, n)", key="CAST(printf('%016d', n) AS BLOB)", no=0,
            merchant=merchant.id, start=START,
        )  # fmt: skip
        numbers = f"WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {COUNT})"
        await rows(url, f"INSERT INTO payments ({_COLUMNS}) {numbers} SELECT {values} FROM t")
        await rows(url, "ANALYZE")
        return
    values = _VALUES.format(
        id=f"'pay_' || lpad(to_hex({START} + n), 12, '0') || lpad(n::text, 20, '0')",
        key="decode(lpad(to_hex(n), 32, '0'), 'hex')", no="false", merchant=merchant.id, start=START,
    )  # fmt: skip
    await rows(
        url, f"INSERT INTO payments ({_COLUMNS}) SELECT {values} FROM generate_series(1, {COUNT}) AS t(n)"
    )
    await rows(url, "ANALYZE payments")


@pytest.fixture
async def full(database_url: str, till: Till, shop: Merchant) -> Pages:
    await fill(database_url, shop)
    return Pages(till.database)


async def timed(pages: Pages, wanted: Wanted) -> tuple[Page, float]:
    """The page, and the best of three times: a machine that does something else, too, is not its fault."""
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        page = await pages.page(wanted)
        took.append(time.perf_counter() - begun)
    return page, min(took)


def key(number: int) -> str:
    return f"pay_{START + number:012x}{number:020d}"


async def test_a_page_costs_the_same_at_any_depth(full: Pages, shop: Merchant) -> None:
    took = {}
    for depth in (0, COUNT // 100, COUNT // 2, COUNT - 200):
        after = (key(COUNT - depth + 1),) if depth else None
        page, took[depth] = await timed(full, Wanted("payments", shop.id, 100, after))
        assert [row["id"] for row in page.rows] == [key(COUNT - depth - n) for n in range(100)]
        assert page.next == (key(COUNT - depth - 99),)
    assert max(took.values()) < PAGE_S, took


async def test_what_is_rare_is_looked_for_in_bounded_steps(full: Pages, shop: Merchant) -> None:
    """One in 10,000: each page looks at so many rows, and all are found in the end."""
    found: list[str] = []
    pages, after = 0, None
    while True:
        page, took_s = await timed(full, Wanted("payments", shop.id, 100, after, sifted={"channel": "ovo"}))
        assert took_s < PAGE_S
        found += [row["id"] for row in page.rows]
        pages += 1
        if page.next is None:
            break
        after = page.next
    assert found == [key(n) for n in range(COUNT, 0, -1) if n % 10_000 == 7]
    assert pages <= COUNT // sum(WINDOWS) + len(found) // 100 + 1


async def test_what_waits_for_somebody_is_found_at_once(full: Pages, shop: Merchant) -> None:
    page, took_s = await timed(full, Wanted("payments", shop.id, 100, found={"status": "review"}))
    wanted = [key(n) for n in range(COUNT, 0, -1) if n % 1000 == 2][:100]
    assert [row["id"] for row in page.rows] == wanted
    assert took_s < PAGE_S


async def test_a_filter_gives_full_pages_where_there_is_enough(full: Pages, shop: Merchant) -> None:
    page, _ = await timed(full, Wanted("payments", shop.id, 5, sifted={"status": "failed"}))
    assert [row["id"] for row in page.rows] == [key(n) for n in range(COUNT, 0, -1) if n % 1000 == 1][:5]


async def test_the_oldest_come_first_where_that_is_wanted(full: Pages, shop: Merchant) -> None:
    failed = [key(n) for n in range(1, COUNT + 1) if n % 1000 == 1]
    for sifted, wanted in (({}, [key(n) for n in range(1, 121)]), ({"status": "failed"}, failed[:12])):
        found: list[str] = []
        after = None
        while len(found) < len(wanted):
            asked = Wanted("payments", shop.id, len(wanted) // 3, after, sifted=sifted, oldest_first=True)
            page, took_s = await timed(full, asked)
            assert took_s < PAGE_S
            found += [row["id"] for row in page.rows]
            after = page.next
        assert found[: len(wanted)] == wanted


SHAPES = [
    _Shape(table, found, sifted, True, False, False, status, rising)
    for rising in (False, True)
    for table, found, sifted, status in [
        ("payments", (), (), None),
        ("payments", (), ("status", "channel"), None),
        ("payments", ("status",), (), "review"),
        ("payments", ("order_key",), (), None),
        ("payments", ("standing_id",), ("status",), None),
        ("refunds", (), (), None),
        ("standing_orders", (), (), None),
        ("events", (), (), None),
        ("events", ("subject",), ("type",), None),
        ("deliveries", (), ("state", "endpoint_id"), None),
        ("deliveries", ("seq",), (), None),
        ("postings", (), (), None),
        ("inbound", (), ("verdict",), None),
        ("inbound", ("payment_id",), (), None),
    ]
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda one: f"{one.table}-{'-'.join(one.found + one.sifted)}")
async def test_no_list_scans_a_table(sqlite_url: str, shape: _Shape) -> None:
    """SQLite says how it would go about it."""
    from support.till import open_till

    async with open_till(sqlite_url) as till:
        for made in (_rows(shape), _edge(shape)) if shape.sifted else (_rows(shape),):
            text = statements.compiled("sqlite", made).text
            names = statements.compiled("sqlite", made).names
            plan: list[Any] = till.database._read.execute(  # type: ignore[attr-defined]
                f"EXPLAIN QUERY PLAN {text}", ["x"] * len(names)
            ).fetchall()
            steps = [row[3] for row in plan]
            scans = [one for one in steps if one.startswith("SCAN") and one != "SCAN scanned"]
            assert scans == [], steps
            assert all("INDEX" in one or "PRIMARY KEY" in one for one in steps if one.startswith("SEARCH"))
