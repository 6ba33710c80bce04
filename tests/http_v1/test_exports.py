"""Exports: every row once, exact, in the accountant's time zone, and harmless in a spreadsheet."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest

from support.serving import Client
from tillgate.client import ApiError, Tillgate


async def taken(till: Tillgate, what: str, **filters: Any) -> list[dict[str, str]]:
    raw = b"".join([piece async for piece in till.export(what, **filters)])  # type: ignore[arg-type]
    assert raw.endswith(b"\r\n")
    assert raw.count(b"\n") == raw.count(b"\r\n")  # RFC 4180
    return list(csv.DictReader(io.StringIO(raw.decode("utf-8"), newline=""), strict=True))


async def test_payments_are_all_there_and_exact(till: Tillgate, shop: Client) -> None:
    first, second = [
        await till.create_payment(order_id=name, amount_minor=123_400, currency="IDR", channel="gopay")
        for name in ("kopi, susu", '=HYPERLINK("http://x")')
    ]
    await shop.act(first.id, "pay")
    await till.create_refund(first.id, 3_400, "x")
    found = await taken(till, "payments")
    assert [row["id"] for row in found] == [first.id, second.id]  # the oldest first
    assert found[0]["order_id"] == "kopi, susu"
    assert found[1]["order_id"] == '\'=HYPERLINK("http://x")'
    assert {name: found[0][name] for name in (
        "status", "currency", "amount_minor", "amount", "paid_minor", "paid", "tip_minor", "tip", "channel",
        "account", "reversed",
    )} == {
        "status": "paid", "currency": "IDR", "amount_minor": "123400", "amount": "1234.00",
        "paid_minor": "123400", "paid": "1234.00", "tip_minor": "0", "tip": "0.00", "channel": "gopay",
        "account": "sandbox", "reversed": "0.00",
    }  # fmt: skip
    assert found[1]["paid_at"] == ""
    utc = datetime.fromisoformat(found[0]["created_at"])
    assert utc == datetime.fromisoformat(first.created_at)
    [jakarta, _] = [row["created_at"] for row in await taken(till, "payments", tz="Asia/Jakarta")]
    assert jakarta.endswith("+07:00")
    assert datetime.fromisoformat(jakarta) == utc
    assert [row["id"] for row in await taken(till, "payments", status="paid")] == [first.id]
    head = (await shop.ask("GET", "/v1/exports/payments.csv")).headers
    assert head["Content-Disposition"] == 'attachment; filename="payments.csv"'
    assert head["Content-Type"] == "text/csv; charset=utf-8; header=present"


async def test_postings_add_up(till: Tillgate, shop: Client) -> None:
    for name in ("A", "B"):
        made = await till.create_payment(order_id=name, amount_minor=50_000, currency="IDR", channel="ovo")
        await shop.act(made.id, "pay")
    found = await taken(till, "postings")
    listed = [one async for one in till.postings(limit=3)]
    assert [(row["event"], int(row["line"])) for row in found] == [
        (one.event, one.line) for one in reversed(listed)
    ]
    assert [int(row["event_number"]) for row in found] == sorted(int(row["event_number"]) for row in found)
    held: dict[tuple[str, str], int] = {}
    for row in found:
        amount = int(row["amount_minor"])
        assert row["amount"] == f"{amount // 100}.{amount % 100:02}"
        for side, sign in (("source", -1), ("destination", 1)):
            held[row[side], row["currency"]] = held.get((row[side], row["currency"]), 0) + sign * amount
    names = {one.id: one.name for one in await till.accounts()}
    balances = {}
    for one in await till.balances():
        kind, _, account = one.account.partition(":")
        balances[f"{kind}:{names[account]}" if account in names else one.account, one.currency] = (
            one.amount_minor
        )
    assert {name: value for name, value in held.items() if value} == {
        name: value for name, value in balances.items() if value
    }


async def test_a_period_of_days_in_the_merchants_zone(till: Tillgate) -> None:
    """Nothing falls between two neighbouring days, and nothing is in both."""
    made = await till.create_payment(order_id="A", amount_minor=100, currency="IDR", channel="gopay")
    zone = "Asia/Jakarta"
    here = datetime.fromisoformat(made.created_at) + timedelta(hours=7)
    days = [(here.date() + timedelta(days=n)).isoformat() for n in (-1, 0, 1, 2)]
    counts = [
        len(await taken(till, what, created_after=low, created_before=high, tz=zone))
        for what in ("payments", "postings")
        for low, high in itertools.pairwise(days)
    ]
    postings = len(await taken(till, "postings"))
    assert counts == [0, 1, 0, 0, postings, 0]
    exact = f"{days[1]}T00:00:00+07:00"  # the same by a time with its own zone
    assert len(await taken(till, "payments", created_after=exact)) == 1


async def test_more_rows_than_one_read(till: Tillgate) -> None:
    async def open_some(name: str) -> None:
        for number in range(32):
            await till.create_payment(
                order_id=f"{name}-{number}", amount_minor=100, currency="IDR", channel="gopay"
            )

    await asyncio.gather(*(open_some(f"T{number}") for number in range(16)))
    found = [row["id"] for row in await taken(till, "payments")]
    assert len(found) == 512
    assert found == sorted(set(found))
    assert len(await taken(till, "payments", status="paid")) == 0


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("status=x", "status"),
        ("tz=Mars/Base", "tz"),
        ("tz=../../etc/passwd", "tz"),
        ("tz=Asia", "tz"),
        ("tz=%2B99:00", "tz"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-02-30", "created_after"),
        ("created_before=2026-11-21T10:00:00", "created_before"),
        ("created_before=9999-12-31&tz=-14:00", None),
        ("created_after=0001-01-01&tz=%2B14:00", None),
    ],
)
async def test_what_cannot_be_asked(shop: Client, query: str, param: str | None) -> None:
    for what in ("payments", "postings"):
        if what == "postings" and param == "status":
            continue
        answer = await shop.ask("GET", f"/v1/exports/{what}.csv?{query}")
        if param is None:
            assert answer.status == 200, answer
        else:
            assert (answer.status, answer.json["param"]) == (400, param)


async def test_the_client_says_what_was_refused(till: Tillgate) -> None:
    with pytest.raises(ApiError) as refused:
        await taken(till, "payments", tz="Mars/Base")
    assert refused.value.param == "tz"
