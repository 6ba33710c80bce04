"""The rows of payments, attempts, refunds and standing orders against the events that tell of them."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec
from sqlalchemy import Table, bindparam, select

from tillgate.domain.payment import LIVE, OPEN_REFUND, Payment, derived
from tillgate.store import tables as t
from tillgate.store.book import record_of
from tillgate.store.database import Tx
from tillgate.store.statements import Row, columns

_TABLES: Final[dict[str, Table]] = {
    "payment": t.payments,
    "attempt": t.attempts,
    "refund": t.refunds,
    "standing_order": t.standing_orders,
}
_TOTALS: Final = ("paid_minor", "tip_minor", "fee_minor", "refunded_minor", "reversed_minor")

Fields = dict[str, Any]


class Findings(Protocol):
    def add(self, what: str, where: str, expected: object, found: object) -> None: ...


def _page(table: Table, merchant: bool) -> Any:
    wanted = select(table).where(table.c.id > bindparam("after"))
    if merchant:
        wanted = wanted.where(table.c.merchant_id == bindparam("merchant"))
    return wanted.order_by(table.c.id).limit(bindparam("limit"))


_PAGES: Final = {
    (table.name, merchant): _page(table, merchant)
    for table in (t.payments, t.standing_orders)
    for merchant in (False, True)
}


class Rows:
    """`books` holds the sums of postings, by merchant; `tell` is given every event on the way."""

    def __init__(self, tx: Tx, report: Findings, counted: Callable[[str, int], None], page: int) -> None:
        self._tx, self._report, self._counted, self._size = tx, report, counted, page
        self.books: dict[str, Counter[tuple[str, str]]] = {}
        self._expected: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        self._made: dict[str, set[str]] = defaultdict(set)

    # --- events, as they are walked through ---

    def tell(self, merchant: str, event: Row, lines: Sequence[Any]) -> None:
        """Take note of what was made, and of money in a foreign currency, which is in events only."""
        body = decoded(event[6])
        if body is None:
            self._report.add("unreadable", f"events {merchant} {event[1]}", "a JSON object", "something else")
            return
        for part in ("payment", "standing_order"):
            snapshot = body.get(part)
            if isinstance(snapshot, dict) and snapshot.get("version") == 1:
                self._made[part].add(str(snapshot.get("id")))
        payment = body.get("payment")
        home = payment.get("currency") if isinstance(payment, dict) else None
        for line in lines:
            if line.kind == "payment" and line.currency != home and type(line.amount_minor) is int:
                self._move(merchant, line.source, line.destination, line.amount_minor, line.currency)

    async def look_for_made(self) -> None:
        """What the events since the last look say was made must be there."""
        for part, ids in self._made.items():
            table = _TABLES[part]
            there = {row[0] for row in await self._tx.select(table, ("id",), [(one,) for one in ids])}
            for missing in sorted(ids - there):
                self._report.add("missing row", f"{table.name} {missing}", "a row", "none")
        self._made.clear()

    def _move(self, merchant: str, source: str, destination: str, amount_minor: int, currency: str) -> None:
        self._expected[merchant][source, currency] -= amount_minor
        self._expected[merchant][destination, currency] += amount_minor

    # --- rows ---

    async def payments(self, merchants: Sequence[str] | None) -> None:
        async for rows in self._pages(t.payments, merchants):
            ids = [(row["id"],) for row in rows]
            attempts = await self._by(t.attempts, "payment_id", ids)
            refunds = await self._by(t.refunds, "payment_id", ids)
            events = await self._by(t.events, "subject", ids)
            for row in rows:
                mine = attempts.get(row["id"], []), refunds.get(row["id"], [])
                last, held = self._last(events.get(row["id"], []), row["merchant_id"])
                self._compare("payment", [row], last)
                self._compare("attempt", mine[0], last)
                self._compare("refund", mine[1], last)
                try:
                    self._sums(row, *mine, held=held)
                except (TypeError, KeyError, ValueError) as error:
                    self._report.add("unreadable", f"payments {row['id']}", "numbers", str(error))
            self._counted("payments", len(rows))
            self._counted("attempts", sum(map(len, attempts.values())))
            self._counted("refunds", sum(map(len, refunds.values())))

    async def standing_orders(self, merchants: Sequence[str] | None) -> None:
        async for rows in self._pages(t.standing_orders, merchants):
            events = await self._by(t.events, "subject", [(row["id"],) for row in rows])
            for row in rows:
                last, _ = self._last(events.get(row["id"], []), row["merchant_id"])
                self._compare("standing_order", [row], last)
            self._counted("standing orders", len(rows))

    async def _pages(self, table: Table, merchants: Sequence[str] | None) -> Any:
        names = columns(table)
        for merchant in (None,) if merchants is None else merchants:
            after = ""
            while True:
                params = {"after": after, "merchant": merchant, "limit": self._size}
                found = await self._tx.execute(_PAGES[table.name, merchant is not None], params)
                if not found:
                    break
                yield [dict(zip(names, row, strict=True)) for row in found]
                after = found[-1][0]
                await asyncio.sleep(0)

    async def _by(self, table: Table, column: str, keys: Sequence[Row]) -> dict[str, list[Fields]]:
        names, found = columns(table), defaultdict[str, list[Fields]](list)
        for row in await self._tx.select(table, (column,), keys):
            fields = dict(zip(names, row, strict=True))
            found[fields[column]].append(fields)
        return found

    def _last(self, events: Iterable[Fields], merchant: str) -> tuple[dict[tuple[str, str], Fields], bool]:
        """What the last events say of each row, and whether an operator ever had to look at an overdraft."""
        last: dict[tuple[str, str], Fields] = {}
        held = False
        for event in sorted(events, key=lambda one: one["seq"]):
            if event["merchant_id"] != merchant:
                where = f"events {event['merchant_id']} {event['seq']}"
                self._report.add("another merchant's event", where, merchant, event["merchant_id"])
                continue
            for part, snapshot in (decoded(event["body"]) or {}).items():
                if part not in _TABLES or not isinstance(snapshot, dict):
                    continue
                key = part, str(snapshot.get("id"))
                before = last.get(key, {}).get("version", 0)
                if _less(snapshot.get("version"), before):
                    where = f"events {merchant} {event['seq']}"
                    self._report.add("version", where, f"{before} or more", snapshot.get("version"))
                last[key] = snapshot
                held |= snapshot.get("hold") == "over_refunded"
        return last, held

    def _compare(self, part: str, rows: Sequence[Fields], last: dict[tuple[str, str], Fields]) -> None:
        table = _TABLES[part]
        for row in rows:
            where, told = f"{table.name} {row['id']}", last.pop((part, str(row["id"])), None)
            if told is None:
                self._report.add("row that no event tells of", where, "none", "a row")
                continue
            for name, expected, found in _differences(row, told):
                self._report.add("row", f"{where} {name}", expected, found)
        for key in [key for key in last if key[0] == part]:
            del last[key]
            self._report.add("missing row", f"{table.name} {key[1]}", "a row", "none")

    # --- sums ---

    def _sums(self, row: Fields, attempts: list[Fields], refunds: list[Fields], *, held: bool) -> None:
        where = f"payments {row['id']}"
        for name in _TOTALS:
            self._equal("total", f"{where} {name}", sum(one[name] for one in attempts), row[name])
        refunding = sum(one["amount_minor"] for one in refunds if one["phase"] in OPEN_REFUND)
        self._equal("total", f"{where} refunding_minor", refunding, row["refunding_minor"])
        for one in attempts:
            back = sum(
                refund["amount_minor"]
                for refund in refunds
                if refund["attempt_id"] == one["id"] and refund["phase"] == "succeeded"
            )
            if back > one["refunded_minor"]:
                self._report.add("refunds", f"attempts {one['id']}", f"{back} or more", one["refunded_minor"])
        if row["refunded_minor"] + row["refunding_minor"] > row["paid_minor"] and not held:
            gone = row["refunded_minor"] + row["refunding_minor"]
            self._report.add("more went back than came", where, f"{row['paid_minor']} at most", gone)
        self._live(row, attempts)
        status = derived(record_of(Payment, list(row.values()))).status
        self._equal("status", f"{where} status", status, row["status"])
        for one in (*attempts, *refunds):
            if (one["merchant_id"], one["currency"]) != (row["merchant_id"], row["currency"]):
                self._report.add("mixed up", where, row["currency"], f"{one['id']}: {one['currency']}")
        self._books(row, attempts)

    def _live(self, row: Fields, attempts: list[Fields]) -> None:
        where, live = f"payments {row['id']}", [one for one in attempts if one["phase"] in LIVE]
        if len(live) > 1:
            self._report.add("several live attempts", where, "one", ", ".join(one["id"] for one in live))
        for one in attempts:
            expected = row["id"] if one in live else None
            self._equal("live attempt", f"attempts {one['id']} live_of", expected, one["live_of"])
        named = (live[0]["id"], live[0]["phase"]) if live else (None, None)
        self._equal("live attempt", where, named, (row["live_attempt_id"], row["live_phase"]))

    def _equal(self, what: str, where: str, expected: object, found: object) -> None:
        if expected != found:
            self._report.add(what, where, expected, found)

    def _books(self, row: Fields, attempts: list[Fields]) -> None:
        """What this payment must have moved in its merchant's books; see `tillgate.domain.ledger`."""
        merchant, currency = row["merchant_id"], row["currency"]
        home = "merchant" if row["hold"] is None else "held"
        if row["status"] in ("pending", "unsure"):
            self._move(merchant, "memo:open", "memo:due", row["amount_minor"], currency)
        self._move(merchant, home, "refunding", row["refunding_minor"], currency)
        for one in attempts:
            provider = f"provider:{one['account_id']}"
            kept = one["paid_minor"] - one["refunded_minor"] - one["reversed_minor"]
            self._move(merchant, provider, home, kept, currency)
            self._move(merchant, provider, "tips", one["tip_minor"], currency)
            self._move(merchant, home, f"fees:{one['account_id']}", one["fee_minor"], currency)

    def compare_balances(self) -> None:
        """The books that follow from the rows are the books that were kept."""
        for merchant, sums in self.books.items():
            expected = self._expected[merchant]
            for account, currency in sorted(sums.keys() | expected.keys()):
                where = f"postings {merchant} {account} {currency}"
                self._equal("books", where, expected[account, currency], sums[account, currency])


def decoded(body: Any) -> Fields | None:
    """An event's body; None where it is none."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
        return None
    return found if isinstance(found, dict) else None


def _differences(row: Fields, told: Fields) -> Iterator[tuple[str, object, object]]:
    """What an event does not tell, because it was so or because it is older than the column, is null, zero
    or false."""
    for name, value in row.items():
        if name not in told:
            if value or value == "":
                yield name, None, value
            continue
        found: object = value
        if isinstance(value, bytes):
            found = base64.b64encode(value).decode()
        elif isinstance(told[name], bool) and value in (0, 1):
            found = bool(value)
        if found != told[name] or type(found) is not type(told[name]):
            yield name, told[name], found


def _less(version: object, before: object) -> bool:
    return not isinstance(version, int) or not isinstance(before, int) or version < before
