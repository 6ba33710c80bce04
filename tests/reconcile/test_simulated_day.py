"""A day of 10,000 mixed payments, taken through both simulators with faults, beside what each says it booked.

Whatever went wrong between us, both sides' books must agree at the end, but for what is seeded here.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest

from support.serving import rows as query
from support.wallets import Shop, wallet_shop
from tillgate.hub import Opened
from tillgate.hub.statement_files import Layout, offset_ms
from tillgate.spi import StatementLine

PAYMENTS = 10_000
ROUNDS = 8
HANDS = 128  # payers at once
EACH = 4  # of each kind of difference, at each provider
DAY = 86_400_000
JAKARTA = offset_ms("+07:00")
PROVIDERS = ("xendit", "midtrans")
WALLETS = ("gopay", "ovo", "dana", "shopeepay")
REPORT = Layout(
    columns={
        "kind": "Type", "reference": "Refund Key", "external_id": "Transaction ID", "amount": "Amount",
        "fee": "Fee", "at": "Time", "settled_on": "Settlement Date",
    },
    currency="IDR",
    kinds={"Payment": "payment", "Refund": "refund"},
    utc_offset="+07:00",
)  # fmt: skip

# Of each thousand payments so many go like this, and end so; all others are simply paid.
LIFE = (
    ("declined", 40, "failed"), ("left", 40, "expired"), ("twice", 30, "paid"), ("lost", 15, "paid"),
    ("out_of_order", 20, "paid"), ("edited", 15, "paid"), ("forged", 10, "paid"), ("late", 15, "paid"),
    ("wrong_amount", 5, "review"), ("pay_twice", 5, "review"), ("after_expiry", 10, "paid"),
    ("answer_lost", 10, "paid"), ("never_sent", 5, "failed"), ("garbled", 5, "paid"),
    ("refunded", 25, "paid"), ("untold", 2, "expired"),
)  # fmt: skip
ENDS = {what: status for what, _, status in LIFE} | {"paid": "paid"}


@dataclass
class Order:
    number: int
    provider: str
    life: str
    rupiah: int
    opened: Opened | None = None

    @property
    def minor(self) -> int:
        return self.rupiah * 100

    @property
    def payment_id(self) -> str:
        assert self.opened is not None
        return self.opened.payment.id


Seeded: TypeAlias = tuple[str, str, str | None, int | None, int | None]
"""Provider, kind of finding, our payment or refund, our amount, theirs."""


@dataclass
class Day:
    shop: Shop
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    orders: list[Order] = field(default_factory=list)
    begin: int = 0

    def plan(self) -> None:
        lives = [what for what, often, _ in LIFE for _ in range(often * PAYMENTS // 1000)]
        lives += ["paid"] * (PAYMENTS - len(lives))
        for number, life in enumerate(lives):
            one = Order(number, PROVIDERS[number % 2], life, self.chance.randint(10, 9_000))
            if one.life == "pay_twice" and one.provider == "midtrans":
                one.life = "paid"  # Midtrans takes one payment of a code
            self.orders.append(one)
        self.chance.shuffle(self.orders)

    async def hour(self, orders: list[Order]) -> None:
        """Orders are opened, payers act, time passes, and work that is due is done."""
        plain = [one for one in orders if one.life not in ("answer_lost", "never_sent", "garbled")]
        await each(plain, self.open)
        for one in orders:
            if one not in plain:  # one by one: the fault is for the provider's next call
                call = {"xendit": "create", "midtrans": "charge"}[one.provider]
                fault = {"answer_lost": "lost", "never_sent": "never", "garbled": "types"}[one.life]
                self.shop.sims[one.provider].fail(call, fault)
                await self.open(one)
        await self.shop.settle(s=10)  # what was unsure is looked up
        await each([one for one in orders if one.life not in ("left", "after_expiry", "untold")], self.act)
        await self.shop.settle()
        await asyncio.sleep(0.06)  # late webhooks are on their way
        await self.shop.settle(s=61)
        await each([one for one in orders if one.life == "refunded"], self.refund)
        await self.shop.settle(s=5)
        await asyncio.sleep(0.05)
        await self.shop.settle(s=61)
        await self.shop.settle(s=1_800)
        await each([one for one in orders if one.life == "after_expiry"], self.act)
        await self.shop.settle()
        await self.shop.settle(s=600)  # what was given up is looked at for a last time
        await each([one for one in orders if one.life == "untold"], self.act)

    async def open(self, one: Order) -> None:
        one.opened = await self.shop.open(
            WALLETS[one.number // 2 % 4], one.rupiah, f"ORD-{one.number}", account=one.provider
        )

    async def act(self, one: Order) -> None:
        if one.life == "never_sent":
            return
        sim, name = self.shop.sims[one.provider], await self.name(one)
        if one.life == "declined":
            await sim.act(name, "fail")
        elif one.life == "untold":
            self.desk_pays(one, name)
        elif one.life == "after_expiry":
            if one.provider == "xendit":
                await sim.pay(name)
            else:
                await sim.pay(name, late=True)
        else:
            fault = one.life if one.life in SPOKEN else "none"
            await sim.act(name, "pay", fault)

    def desk_pays(self, one: Order, name: str) -> None:
        """Money comes long after we closed the payment, and nobody tells us."""
        desk = self.shop.sims[one.provider].desk
        if one.provider == "xendit":
            desk.pay(name)
        else:
            desk.pay(name, late=True)

    async def name(self, one: Order) -> str:
        """Theirs: what the payer's wallet read from the code."""
        assert one.opened is not None
        found = (await self.shop.attempt(one.opened)).external_id
        assert found
        return found

    async def refund(self, one: Order) -> None:
        assert one.opened is not None
        await self.shop.refund(one.opened, max(1, one.rupiah // 3))

    # --- the two statements ---

    async def lines(self, provider: str) -> list[StatementLine]:
        shop, reconciling = self.shop, self.shop.till.hub.reconciling
        if provider == "xendit":
            return await reconciling.pull(
                shop.merchant, shop.accounts[provider], self.begin, self.begin + DAY
            )
        async with shop.http.get(f"{shop.midtrans.base_url}/report.csv") as reply:
            return await reconciling.read_file(shop.accounts[provider], await reply.text(), REPORT)

    async def compare(self, provider: str) -> dict[str, Any]:
        made = await self.shop.till.hub.reconciling.compare(
            self.shop.merchant, self.shop.accounts[provider], await self.lines(provider),
            source="api" if provider == "xendit" else "file", from_ms=self.begin, to_ms=self.begin + DAY,
            day_offset_ms=JAKARTA,
        )  # fmt: skip
        return made.summary

    async def findings(self) -> Counter[Seeded]:
        providers = {one.id: name for name, one in self.shop.accounts.items()}
        found = await query(
            self.shop.till.url, "SELECT account_id, kind, subject, ours_minor, theirs_minor FROM findings"
        )
        return Counter((providers[row[0]], row[1], row[2], row[3], row[4]) for row in found)

    def untold(self) -> Counter[Seeded]:
        return Counter(
            (one.provider, "unpaid_here", one.payment_id, 0, one.rupiah * 100)
            for one in self.orders
            if one.life == "untold"
        )

    # --- what is wrong with a statement ---

    async def seed_xendit(self) -> Counter[Seeded]:
        desk = self.shop.xendit.desk
        found: Counter[Seeded] = Counter()
        plain = iter([one for one in self.orders if (one.provider, one.life) == ("xendit", "paid")])
        rows = {row["reference_id"]: row for row in desk.transactions()}
        for _ in range(EACH):
            one, row = await self.booked(next(plain), rows)
            desk.altered[row["product_id"]] = None
            found["xendit", "missing_there", one.payment_id, one.minor, None] += 1
            one, row = await self.booked(next(plain), rows)
            desk.altered[row["product_id"]] = {"amount": one.rupiah + 1}
            found["xendit", "amount_differs", one.payment_id, one.minor, one.minor + 100] += 1
            one, row = await self.booked(next(plain), rows)
            desk.altered[row["product_id"]] = {"currency": "MYR"}
            found["xendit", "currency_differs", one.payment_id, one.minor, one.minor] += 1
            one, row = await self.booked(next(plain), rows)
            desk.unknown.append({**row, "id": f"{row['id']}-again"})
            found["xendit", "repeated_there", one.payment_id, one.minor, one.minor] += 1
            desk.unknown.append({**row, "id": f"{row['id']}-else", "reference_id": f"somebody's {row['id']}"})
            found["xendit", "missing_here", None, None, one.minor] += 1
        for back in list(desk.refunds.values())[:EACH]:
            desk.altered[back.id] = None
            found["xendit", "missing_there", back.reference_id, back.amount * 100, None] += 1
        return found

    async def seed_midtrans(self) -> Counter[Seeded]:
        desk = self.shop.midtrans.desk
        found: Counter[Seeded] = Counter()
        plain = iter([one for one in self.orders if (one.provider, one.life) == ("midtrans", "paid")])
        rows = {row["Order ID"].removesuffix("-t"): row for row in desk.report() if row["Type"] == "Payment"}
        for _ in range(EACH):
            one, row = await self.booked(next(plain), rows)
            desk.altered[row["Transaction ID"]] = None
            found["midtrans", "missing_there", one.payment_id, one.minor, None] += 1
            one, row = await self.booked(next(plain), rows)
            desk.altered[row["Transaction ID"]] = {"Amount": f"{one.rupiah - 1}.00"}
            found["midtrans", "amount_differs", one.payment_id, one.minor, one.minor - 100] += 1
            one, row = await self.booked(next(plain), rows)
            desk.unknown.append(row)
            found["midtrans", "repeated_there", one.payment_id, one.minor, one.minor] += 1
            desk.unknown.append({**row, "Transaction ID": f"else-{one.number}"})
            found["midtrans", "missing_here", None, None, one.minor] += 1
        given_back = [back for one in desk.transactions.values() for back in one.refunds]
        for back in given_back[:EACH]:
            desk.altered[back.key] = None
            found["midtrans", "missing_there", back.key, back.amount * 100, None] += 1
        return found

    async def booked(self, one: Order, rows: dict[str, dict[str, Any]]) -> tuple[Order, dict[str, Any]]:
        """An order and the provider's row of it."""
        assert one.opened is not None
        return one, rows[(await self.shop.attempt(one.opened)).id]


SPOKEN = ("twice", "lost", "out_of_order", "edited", "forged", "late", "wrong_amount", "pay_twice")


async def each(orders: Iterable[Order], work: Callable[[Order], Awaitable[None]]) -> None:
    hands = asyncio.Semaphore(HANDS)

    async def one_at_hand(one: Order) -> None:
        async with hands:
            await work(one)

    await asyncio.gather(*(one_at_hand(one) for one in orders))


@pytest.fixture
async def day(sqlite_url: str) -> AsyncIterator[Day]:
    before = gc.get_threshold()
    gc.set_threshold(200_000, 50, 50)  # all that is made here stays: looking for garbage costs a fifth
    async with wallet_shop(sqlite_url, ["xendit", "midtrans"]) as shop:
        for simulator in shop.sims.values():
            simulator.late_s, simulator.refund_s = 0.02, 0.01
        found = Day(shop)
        shop.clock.now = found.begin = shop.clock() // DAY * DAY - JAKARTA  # midnight in Jakarta
        found.plan()
        yield found
        await shop.audited()
    gc.set_threshold(*before)


@pytest.mark.timeout(600)  # half a minute on a quiet machine
async def test_what_is_seeded_is_found_and_nothing_else(day: Day) -> None:
    shop = day.shop
    size = PAYMENTS // ROUNDS
    for number in range(ROUNDS):
        await day.hour(day.orders[number * size : (number + 1) * size])
    assert shop.clock() < day.begin + DAY

    statuses = dict(await query(shop.till.url, "SELECT order_id, status FROM payments"))
    wrong = [(one.life, one.provider, statuses[f"ORD-{one.number}"]) for one in day.orders
             if statuses[f"ORD-{one.number}"] != ENDS[one.life]]  # fmt: skip
    assert Counter(wrong) == {}
    assert await query(shop.till.url, "SELECT phase, COUNT(*) FROM refunds GROUP BY phase") == [
        ("succeeded", PAYMENTS * 25 // 1000)
    ]

    # Both sides agree on every rupiah, but for the money that nobody told us of.
    books, untold = await shop.books(), day.untold()
    for provider in PROVIDERS:
        summary = await day.compare(provider)
        quiet = sum(theirs or 0 for (name, *_, theirs) in untold if name == provider)
        ours = -books[f"provider:{shop.accounts[provider].id}"]
        assert summary["money"]["IDR"]["gross_minor"] - quiet == ours
        assert summary["findings"] == {"unpaid_here": PAYMENTS // 1000}
    assert await day.findings() == untold

    # Now the providers' books are spoilt.
    seeded = await day.seed_xendit() + await day.seed_midtrans()
    for provider in PROVIDERS:
        await day.compare(provider)
    assert await day.findings() == seeded + untold
    assert await query(shop.till.url, "SELECT order_id, status FROM payments") == list(statuses.items())
