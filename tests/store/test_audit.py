"""`ledger verify`: silent over honest books, and it names whatever was changed behind the hub's back."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import asyncpg
import pytest

from support.till import Till, open_till
from support.tinybank import Charge
from tillgate.store import audit
from tillgate.store.audit import Report
from tillgate.store.database import open_database
from tillgate.store.directory import Merchant


async def vandalise(url: str, statement: str, *values: Any) -> None:
    """Change the database as somebody with a password would: no journal, no constraints in the way."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            done = connection.execute(statement, values).rowcount
            connection.commit()
    else:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("SET session_replication_role = replica")
            for number in range(len(values)):
                statement = statement.replace("?", f"${number + 1}", 1)
            done = int((await connection.execute(statement, *values)).split()[-1])
        finally:
            await connection.close()
    assert done == 1, f"{done} rows: {statement}"


async def story(till: Till, shop: Merchant) -> dict[str, Any]:
    """A bit of everything: ids by what happened to them."""
    ids: dict[str, Any] = {}
    open_ = await till.open(shop, "OPEN")
    ids["open"] = open_.payment.id
    paid = await till.paid(shop, "PAID", 50_000)
    ids["paid"], ids["attempt"] = paid.payment.id, paid.attempt.id
    for amount in (10_000, 5_000):
        opened = await till.hub.refund(shop, paid.payment.id, amount, "wrong size")
        ids["refund"] = opened.refund.id
    failed = await till.open(shop, "FAILED")
    await till.told(shop, failed.attempt.id, Charge(10_000, "IDR", "failed"))
    held = await till.open(shop, "HELD")
    await till.told(shop, held.attempt.id, Charge(10_000, "IDR", "paid", 9_000))
    foreign = await till.open(shop, "FOREIGN")
    await till.told(shop, foreign.attempt.id, Charge(10_000, "MYR", "paid", 700))
    late = await till.open(shop, "LATE")
    await till.told(shop, late.attempt.id, Charge(10_000, "IDR", "expired"))
    again = await till.open(shop, "LATE")
    ids["second"] = again.attempt.id
    await till.told(shop, late.attempt.id, Charge(10_000, "IDR", "paid", 10_000))
    await till.worker.drain()
    body = bytearray((await till.kit.reads.events(shop.id, 5, 1))[0][6])
    at = body.index(b"10000")
    body[at : at + 5] = b"10001"
    ids["flipped"] = bytes(body)
    return ids


def named(report: Report) -> set[str]:
    return {f"{one.what} | {one.where}" for one in report.findings}


async def test_honest_books_are_clean(till: Till, shop: Merchant) -> None:
    await story(till, shop)
    other = await till.merchant("other")
    await till.paid(other, "PAID")
    report = await audit.verify(till.database)
    assert report.clean, report.text()
    assert report.counts["merchants"] == 2
    assert report.counts["payments"] == 7
    assert report.counts["attempts"] == 8
    assert report.counts["refunds"] == 2
    assert report.text().startswith("Everything fits: ")
    assert report.as_dict()["clean"] is True
    mine = await audit.verify(till.database, [other.id])
    assert (mine.clean, mine.counts["payments"], mine.counts["merchants"]) == (True, 1, 1)


@pytest.mark.parametrize("page", [1, 2, 3])
async def test_pages_of_any_size_read_the_same(till: Till, shop: Merchant, page: int) -> None:
    await story(till, shop)
    seen: list[tuple[str, int]] = []
    report = await audit.verify(till.database, page=page, progress=lambda *at: seen.append(at))
    assert report.clean, report.text()
    whole = await audit.verify(till.database)
    assert report.counts == whole.counts
    assert ("payments", whole.counts["payments"]) in seen
    assert len(seen) > whole.counts["events"] // page


async def test_an_empty_database_is_clean(till: Till) -> None:
    assert (await audit.verify(till.database)).clean


Damage = tuple[str, Callable[[dict[str, Any]], tuple[Any, ...]], Callable[[dict[str, Any]], set[str]]]

LINE = "kind, source, destination, amount_minor, currency"
# Statement, its values, and what must be named (more may be: one lie contradicts many rows).
DAMAGES: dict[str, Damage] = {
    "one digit of an event's body": (
        "UPDATE events SET body = ? WHERE seq = 6",
        lambda ids: (ids["flipped"],),
        lambda ids: {"event or posting changed | events MER 6"},
    ),
    "a byte of an event's body": (
        "UPDATE events SET body = ? WHERE seq = 1",
        lambda ids: (b'{"payment":{"id":"pay_0"}}',),
        lambda ids: {"event or posting changed | events MER 1"},
    ),
    "an event's body is no JSON": (
        "UPDATE events SET body = ? WHERE seq = 2",
        lambda ids: (b"\xff\xfe\x00",),
        lambda ids: {"event or posting changed | events MER 2", "unreadable | events MER 2"},
    ),
    "a link of the chain": (
        "UPDATE events SET chain = ? WHERE seq = 3",
        lambda ids: (bytes(32),),
        lambda ids: {"event or posting changed | events MER 3", "event or posting changed | events MER 4"},
    ),
    "an event's type": (
        "UPDATE events SET type = 'payment.paid' WHERE seq = 1",
        lambda ids: (),
        lambda ids: {"event or posting changed | events MER 1"},
    ),
    "an event's time": (
        "UPDATE events SET occurred_at = occurred_at + 1 WHERE seq = 4",
        lambda ids: (),
        lambda ids: {"event or posting changed | events MER 4"},
    ),
    "an event is gone": (
        "DELETE FROM events WHERE seq = 5",
        lambda ids: (),
        lambda ids: {"missing row | events MER 5"},
    ),
    "the last event is gone": (
        "DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)",
        lambda ids: (),
        lambda ids: {"sequence | heads MER", "end of the chain | heads MER"},
    ),
    "the end of the chain": (
        "UPDATE heads SET chain = ?",
        lambda ids: (bytes(32),),
        lambda ids: {"end of the chain | heads MER"},
    ),
    "the number of the last event": (
        "UPDATE heads SET seq = seq - 1",
        lambda ids: (),
        lambda ids: {"sequence | heads MER"},
    ),
    "a posting's amount": (
        "UPDATE postings SET amount_minor = amount_minor + 1 WHERE seq = 1",
        lambda ids: (),
        lambda ids: {"event or posting changed | events MER 1", "balance | balances MER memo:due IDR"},
    ),
    "a posting's account": (
        "UPDATE postings SET destination = 'tips' WHERE seq = 1",
        lambda ids: (),
        lambda ids: {
            "event or posting changed | events MER 1",
            "balance | balances MER tips IDR",
            "books | postings MER tips IDR",
        },
    ),
    "a posting is gone": (
        "DELETE FROM postings WHERE seq = 1",
        lambda ids: (),
        lambda ids: {"event or posting changed | events MER 1"},
    ),
    "a posting too many": (
        f"INSERT INTO postings SELECT merchant_id, seq, 9, {LINE} FROM postings WHERE seq = 1",
        lambda ids: (),
        lambda ids: {"event or posting changed | events MER 1"},
    ),
    "a posting of no event": (
        f"INSERT INTO postings SELECT merchant_id, 9999, 0, {LINE} FROM postings WHERE seq = 1",
        lambda ids: (),
        lambda ids: {"posting without its event | postings MER 9999"},
    ),
    "a balance": (
        "UPDATE balances SET amount_minor = amount_minor + 100 WHERE account = 'merchant'",
        lambda ids: (),
        lambda ids: {"balance | balances MER merchant IDR"},
    ),
    "a balance is gone": (
        "DELETE FROM balances WHERE account = 'refunding'",
        lambda ids: (),
        lambda ids: set(),  # it is zero: nothing is lost
    ),
    "a balance that is not zero is gone": (
        "DELETE FROM balances WHERE account = 'merchant'",
        lambda ids: (),
        lambda ids: {"balance | balances MER merchant IDR"},
    ),
    "what was paid": (
        "UPDATE payments SET paid_minor = paid_minor + 1 WHERE id = ?",
        lambda ids: (ids["paid"],),
        lambda ids: {
            f"row | payments {ids['paid']} paid_minor",
            f"total | payments {ids['paid']} paid_minor",
        },
    ),
    "a payment's status": (
        "UPDATE payments SET status = 'paid' WHERE id = ?",
        lambda ids: (ids["open"],),
        lambda ids: {f"row | payments {ids['open']} status", f"status | payments {ids['open']} status"},
    ),
    "where a payment reports": (
        "UPDATE payments SET callback_url = 'https://evil.example/' WHERE id = ?",
        lambda ids: (ids["open"],),
        lambda ids: {f"row | payments {ids['open']} callback_url"},
    ),
    "a payment's version": (
        "UPDATE payments SET version = version + 1 WHERE id = ?",
        lambda ids: (ids["paid"],),
        lambda ids: {f"row | payments {ids['paid']} version"},
    ),
    "what makes an order unique": (
        "UPDATE payments SET order_key = ? WHERE id = ?",
        lambda ids: (b"k" * 16, ids["paid"]),
        lambda ids: {f"row | payments {ids['paid']} order_key"},
    ),
    "whether it was late": (
        "UPDATE payments SET late = NOT late WHERE id = ?",
        lambda ids: (ids["paid"],),
        lambda ids: {f"row | payments {ids['paid']} late"},
    ),
    "a payment is gone": (
        "DELETE FROM payments WHERE id = ?",
        lambda ids: (ids["paid"],),
        lambda ids: {
            f"missing row | payments {ids['paid']}",
            f"row without its payment | attempts {ids['attempt']}",
        },
    ),
    "a payment under another name": (
        "UPDATE payments SET id = 'pay_0123456789' WHERE id = ?",
        lambda ids: (ids["open"],),
        lambda ids: {
            f"missing row | payments {ids['open']}",
            "row that no event tells of | payments pay_0123456789",
        },
    ),
    "an attempt's phase": (
        "UPDATE attempts SET phase = 'closed' WHERE id = ?",
        lambda ids: (ids["attempt"],),
        lambda ids: {f"row | attempts {ids['attempt']} phase"},
    ),
    "an attempt is live again": (
        "UPDATE attempts SET phase = 'pending' WHERE id = ?",
        lambda ids: (ids["second"],),
        lambda ids: {
            f"row | attempts {ids['second']} phase",
            f"live attempt | attempts {ids['second']} live_of",
        },
    ),
    "an attempt is gone": (
        "DELETE FROM attempts WHERE id = ?",
        lambda ids: (ids["second"],),
        lambda ids: {f"missing row | attempts {ids['second']}"},
    ),
    "a refund's amount": (
        "UPDATE refunds SET amount_minor = amount_minor - 1 WHERE id = ?",
        lambda ids: (ids["refund"],),
        lambda ids: {f"row | refunds {ids['refund']} amount_minor"},
    ),
    "a refund's phase": (
        "UPDATE refunds SET phase = 'pending' WHERE id = ?",
        lambda ids: (ids["refund"],),
        lambda ids: {f"row | refunds {ids['refund']} phase"},
    ),
    "a refund is gone": (
        "DELETE FROM refunds WHERE id = ?",
        lambda ids: (ids["refund"],),
        lambda ids: {f"missing row | refunds {ids['refund']}"},
    ),
    "the head is gone": (
        "DELETE FROM heads",
        lambda ids: (),
        lambda ids: {"missing row | heads MER", "rows of no merchant | events"},
    ),
    "a delivery of no event": (
        "UPDATE deliveries SET seq = 9999 WHERE id = (SELECT min(id) FROM deliveries)",
        lambda ids: (),
        lambda ids: {"delivery without its event | deliveries DLV"},
    ),
}


TABLES = (
    "events", "postings", "balances", "heads", "payments", "attempts", "refunds", "standing_orders",
    "deliveries",
)  # fmt: skip


async def run(url: str, *statements: str) -> None:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            connection.execute("BEGIN")
            for statement in statements:
                connection.execute(statement)
            connection.execute("COMMIT")
    else:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("SET session_replication_role = replica")
            await connection.execute(";".join(statements))
        finally:
            await connection.close()


async def test_damage_is_named(till: Till, shop: Merchant) -> None:
    """Each is done to the same honest books, which are put back after it."""
    ids = await story(till, shop)
    delivery = min(row[0] for row in await till.kit.reads.deliveries(shop.id, "", 100))
    await run(till.url, *(f"CREATE TABLE kept_{one} AS SELECT * FROM {one}" for one in TABLES))
    missed: dict[str, str] = {}
    for name, (statement, values, expected) in DAMAGES.items():
        await vandalise(till.url, statement, *values(ids))
        report = await audit.verify(till.database)
        wanted = {one.replace("MER", shop.id).replace("DLV", delivery) for one in expected(ids)}
        if not wanted <= named(report) or report.clean != (not wanted):
            missed[name] = f"{sorted(wanted)} not in\n{report.text()}"
        of_shop = await audit.verify(till.database, [shop.id])
        if name != "a delivery of no event" and of_shop.clean != (not wanted):
            missed[f"{name}, asked for one merchant"] = of_shop.text()
        await run(
            till.url,
            *(f"DELETE FROM {one}" for one in TABLES),
            *(f"INSERT INTO {one} SELECT * FROM kept_{one}" for one in TABLES),
        )
        assert (await audit.verify(till.database)).clean
    assert missed == {}, "\n\n".join(f"{name}: {said}" for name, said in missed.items())


async def test_another_merchants_books_are_not_suspected(till: Till, shop: Merchant) -> None:
    other = await till.merchant("other")
    await till.paid(other, "PAID")
    await story(till, shop)
    await vandalise(
        till.url,
        "UPDATE balances SET amount_minor = 0 WHERE account = 'merchant' AND merchant_id = ?",
        shop.id,
    )
    assert not (await audit.verify(till.database, [shop.id])).clean
    assert (await audit.verify(till.database, [other.id])).clean


async def test_a_merchant_that_is_not_there(till: Till) -> None:
    report = await audit.verify(till.database, ["mer_nobody"])
    assert named(report) == {"missing row | heads mer_nobody"}


MISTYPED = [
    ("payments", "paid_minor", "much", ""),
    ("payments", "status", b"\xff\xfe", ""),
    ("payments", "late", "x", ""),
    ("payments", "metadata", "\0", ""),
    ("attempts", "paid_minor", b"\0", ""),
    ("postings", "amount_minor", "1.5", "seq = 1"),
    ("postings", "amount_minor", -5, "seq = 1"),
    ("postings", "currency", b"\xff", "seq = 1"),
    ("balances", "amount_minor", "1e9", "account = 'merchant'"),
    ("events", "body", 17, ""),
    ("events", "chain", "text", ""),
    ("events", "type", b"\xff", ""),
    ("heads", "chain", 1, ""),
]


async def test_sqlite_keeps_any_type_and_none_of_it_breaks_verify(sqlite_url: str) -> None:
    async with open_till(sqlite_url) as till:
        shop = await till.merchant()
        await story(till, shop)
        await run(till.url, *(f"CREATE TABLE kept_{one} AS SELECT * FROM {one}" for one in TABLES))
        for table, column, value, where in MISTYPED:
            where = where or f"rowid = (SELECT max(rowid) FROM {table})"
            where = "true" if table == "heads" else where
            await vandalise(till.url, f"UPDATE {table} SET {column} = ? WHERE {where}", value)
            assert not (await audit.verify(till.database)).clean, (table, column, value)
            await run(
                till.url,
                *(f"DELETE FROM {one}" for one in TABLES),
                *(f"INSERT INTO {one} SELECT * FROM kept_{one}" for one in TABLES),
            )
        assert (await audit.verify(till.database)).clean


async def test_a_damaged_file_is_reported(sqlite_url: str) -> None:
    async with open_till(sqlite_url) as till:
        shop = await till.merchant()
        for number in range(40):
            await till.paid(shop, f"ORD-{number}")
    path = sqlite_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name IN ('payments', 'postings')"
        )
        pages = [page for (page,) in found]
    with open(path, "r+b") as file:
        for page in pages:
            file.seek((page - 1) * 4096)
            file.write(b"\xa5" * 512)
    database = open_database(sqlite_url)
    await database.open()
    try:
        report = await audit.verify(database)
    finally:
        await database.close()
    assert not report.clean
    assert any(one.what in ("damaged file", "unreadable") for one in report.findings)


async def test_findings_are_counted_beyond_a_bound(till: Till, shop: Merchant) -> None:
    report = Report()
    for number in range(1_500):
        report.add("row", str(number), 1, 2)
    assert (len(report.findings), report.omitted) == (1_000, 500)
    assert "1500 things do not fit" in report.text()


async def test_it_runs_beside_a_hub_that_works(till: Till, shop: Merchant) -> None:
    """One snapshot: what is committed meanwhile is either all there or not at all."""
    for number in range(10):
        await till.paid(shop, f"BEFORE-{number}")

    async def trade() -> None:
        for number in range(30):
            await till.paid(shop, f"ORD-{number}")

    trading = asyncio.create_task(trade())
    rounds = 0
    while not trading.done():
        report = await audit.verify(till.database, page=3)
        assert report.clean, report.text()
        rounds += 1
    await trading
    assert rounds > 0
    assert (await audit.verify(till.database)).counts["payments"] == 40
