"""A day of payments beside a statement with every kind of difference in it: all are found, none invented.

What two sides really book is compared in `test_simulated_day`; here rows and lines are made as wanted."""

from __future__ import annotations

import csv
import io
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from support import records
from support.serving import rows as query
from tillgate.domain.payment import Attempt, Payment, Refund
from tillgate.hub.kit import order_key
from tillgate.hub.statement_files import Layout, offset_ms, read
from tillgate.runtime import Runtime
from tillgate.settings import Settings
from tillgate.store import tables as t
from tillgate.store.book import row_of
from tillgate.store.database import Tx

PAYMENTS = 3_000
JAKARTA = offset_ms("+07:00")
DAY = 86_400_000
MIDNIGHT = 1_790_000_000_000 // DAY * DAY - JAKARTA  # a day of Jakarta, in 2026
LAYOUT = Layout(
    columns={
        "kind": "Type", "reference": "Merchant Ref", "external_id": "Transaction", "amount": "Gross",
        "currency": "Ccy", "fee": "MDR", "at": "Time", "settled_on": "Settlement",
    },
    kinds={"SALE": "payment", "REVERSE": "refund"},
    passed_over=("TRANSFER",),
    utc_offset="+07:00",
)  # fmt: skip


@dataclass
class Rows:
    """Rows put into the store in bulk, past the hub."""

    payments: list[Payment] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)

    async def run(self, tx: Tx, now: int) -> None:
        await tx.insert(t.payments, [row_of(one) for one in self.payments])
        await tx.insert(t.attempts, [row_of(one) for one in self.attempts])
        if self.refunds:
            await tx.insert(t.refunds, [row_of(one) for one in self.refunds])


@dataclass
class Shop:
    runtime: Runtime
    merchant: Any
    account: Any
    url: str
    chance: random.Random
    made: Rows = field(default_factory=Rows)
    lines: list[list[str]] = field(default_factory=list)  # of the statement, as the provider writes them

    def pay(self, number: int, status: str = "paid", *, at: int | None = None, tip: int = 0) -> Payment:
        """One payment through one attempt; `at`: when its money came."""
        at = MIDNIGHT + 1_000 + number * 8_000 if at is None else at
        created = at - 60_000
        hexed = f"{created:012x}{number:020x}"
        paid, amount = status == "paid", 100_000 * self.chance.randint(10, 500)
        payment = records.payment(
            id=f"pay_{hexed}", merchant_id=self.merchant.id, order_id=f"ORD-{number}",
            order_key=order_key(self.merchant.id, f"ORD-{number}"), account_id=self.account.id, status=status,
            amount_minor=amount, paid_minor=amount if paid else 0, tip_minor=tip,
            closed=status if status in ("failed", "expired") else None, created_at=created,
            paid_at=at if paid else None,
        )  # fmt: skip
        attempt = records.attempt(
            {"paid": "paid", "pending": "pending"}.get(status, "closed"),
            id=f"att_{hexed}", payment_id=payment.id, merchant_id=self.merchant.id,
            account_id=self.account.id,
            external_id=f"EXT-{number}" if number % 5 else None, amount_minor=amount,
            paid_minor=amount if paid else 0, tip_minor=tip, created_at=created, paid_at=at if paid else None,
            live_of=payment.id if status == "pending" else None,
        )  # fmt: skip
        self.made.payments.append(payment)
        self.made.attempts.append(attempt)
        return payment

    def give_back(self, number: int, payment: Payment, amount: int, at: int, part: int = 0) -> Refund:
        made = records.refund(
            "succeeded", id=f"refund_{at:012x}{number:016x}{part:04x}", payment_id=payment.id,
            attempt_id=payment.id.replace("pay_", "att_"), merchant_id=self.merchant.id, amount_minor=amount,
            created_at=at, done_at=at,
        )  # fmt: skip
        self.made.refunds.append(made)
        return made

    def state(
        self, kind: str, amount: int, at: int, external: str = "", reference: str = "", ccy: str = "IDR"
    ) -> None:
        """One line, in whole and hundredth rupiah, in Jakarta's time."""
        moment = datetime.fromtimestamp((at + JAKARTA) / 1000, UTC).strftime("%d/%m/%Y %H:%M:%S")
        sign = "-" if kind == "REVERSE" else ""
        fee = amount * 7 // 1000
        self.lines.append([
            kind, reference, external, f"{sign}{amount // 100}.{amount % 100:02d}", ccy,
            f"{fee // 100}.{fee % 100:02d}", moment, "22-09-2026",
        ])  # fmt: skip

    def sale(self, payment: Payment, **changed: Any) -> None:
        """The line of a payment, named as this provider names: by its own id, else by ours."""
        number = int(payment.order_id.removeprefix("ORD-"))
        assert payment.created_at
        given: dict[str, Any] = {
            "amount": payment.amount_minor + payment.tip_minor,
            "at": (payment.paid_at or payment.created_at) + self.chance.randint(-900, 900),
            "external": f"EXT-{number}" if number % 5 else "",
            "reference": "" if number % 5 else (payment.order_id, payment.id)[number % 2],
        }
        self.state("SALE", **{**given, **changed})

    def file(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, delimiter=";")
        writer.writerow(
            ["No", "Type", "Merchant Ref", "Transaction", "Gross", "Ccy", "MDR", "Time", "Settlement"]
        )
        self.chance.shuffle(self.lines)
        for number, line in enumerate(self.lines):
            writer.writerow([number, *line])
        writer.writerow(
            [0, "TRANSFER", "", "", "1.00", "IDR", "0", "", "22-09-2026"]
        )  # to the merchant's bank
        return out.getvalue()

    async def keep(self) -> None:
        await self.runtime.journal.run(self.made)
        self.made = Rows()

    async def compare(self, day: int = 0) -> Any:
        begin = MIDNIGHT + day * DAY
        return await self.runtime.hub.reconciling.compare(
            self.merchant, self.account, read(self.file(), LAYOUT), source="file", from_ms=begin,
            to_ms=begin + DAY, day_offset_ms=JAKARTA,
        )  # fmt: skip

    async def findings(self, *, resolved: bool = False) -> list[Sequence[Any]]:
        where = "NOT NULL" if resolved else "NULL"
        return await query(
            self.url,
            "SELECT kind, subject, reference, external_id, ours_minor, theirs_minor, currency, id, reason"
            f" FROM findings WHERE resolved_at IS {where} ORDER BY id",
        )


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    settings = Settings(database_url=database_url, sandbox=True)
    async with Runtime(settings) as runtime:
        made = await runtime.create_merchant("Kopi Senja")
        merchant = await runtime.directory.merchant(made.merchant_id)
        account = next(one for one in merchant.accounts if one.provider == "sandbox")
        yield Shop(runtime, merchant, account, database_url, random.Random(7))


async def test_every_seeded_difference_is_found_and_none_invented(shop: Shop) -> None:
    seeded: Counter[tuple[str, str | None, int | None, int | None]] = Counter()
    for number in range(PAYMENTS):
        seed = number % 1000
        if number % 10 == 7:  # not paid, and not on the statement…
            payment = shop.pay(number, ("failed", "pending", "expired")[number % 3])
            if seed == 57:  # …but for these
                shop.sale(payment)
                seeded["unpaid_here", payment.id, 0, payment.amount_minor] += 1
            continue
        payment = shop.pay(number, tip=200_000 if number % 50 == 3 else 0)
        if seed == 11:
            seeded["missing_there", payment.id, payment.amount_minor, None] += 1
            continue
        if seed == 22:
            shop.sale(payment, amount=payment.amount_minor + payment.tip_minor + 1)
            ours, theirs = payment.amount_minor, payment.amount_minor + payment.tip_minor + 1
            seeded["amount_differs", payment.id, ours, theirs] += 1
        elif seed == 33:
            shop.sale(payment, ccy="MYR")
            ours, theirs = payment.amount_minor, payment.amount_minor + payment.tip_minor
            seeded["currency_differs", payment.id, ours, theirs] += 1
        elif seed == 444:  # named by nothing at all: told by its amount and day
            shop.sale(payment, external="", reference="")
        else:
            shop.sale(payment)
        if seed == 55:  # twice
            shop.sale(payment)
            both = payment.amount_minor + payment.tip_minor
            seeded["repeated_there", payment.id, payment.amount_minor, both] += 1
        if seed == 66:  # of somebody else, with an amount that we know
            shop.state("SALE", payment.amount_minor, payment.paid_at or 0, external=f"ELSE-{number}")
            seeded["missing_here", None, None, payment.amount_minor] += 1
        if number % 20 == 1:
            at = (payment.paid_at or 0) + 30_000
            for part in range(1 + number % 3):
                refund = shop.give_back(number, payment, 50_000 * (part + 1), at, part)
                if seed == 121 and part == 0:
                    seeded["missing_there", refund.id, 50_000, None] += 1
                    continue
                # By its own id, or by no more than its payment's.
                by = {"reference": refund.id} if number % 40 == 1 else {"reference": payment.id}
                shop.state("REVERSE", refund.amount_minor, at, **by)
    # A minute before midnight here is tomorrow there, and yesterday's last one stands on today's.
    late = shop.pay(PAYMENTS + 1, at=MIDNIGHT + DAY - 500)
    seeded["missing_there", late.id, late.amount_minor, None] += 1
    early = shop.pay(PAYMENTS + 2, at=MIDNIGHT - 500)
    shop.sale(early, at=MIDNIGHT + 200)
    await shop.keep()

    done = await shop.compare()

    found = await shop.findings()
    assert Counter((row[0], row[1], row[4], row[5]) for row in found) == seeded
    assert sum(seeded.values()) == 7 * PAYMENTS // 1000 + 1
    assert done.summary["findings"] == dict(Counter(kind for kind, *_ in seeded.elements()))
    assert done.summary["new_findings"] == len(found)
    assert done.summary["lines"] == len(shop.lines)
    assert done.summary["settled"] == {"2026-09-22": done.summary["money"]}
    assert done.summary["money"]["IDR"]["fee_minor"] > 0

    # The same file again finds nothing new; no payment was touched by any of it.
    again = await shop.compare()
    assert again.summary["new_findings"] == 0
    assert len(await shop.findings()) == len(found)
    [(versions,)] = await query(shop.url, "SELECT MAX(version) FROM payments")
    assert versions == 1

    # Tomorrow's statement has the one of midnight, and what was told twice of today is no news.
    shop.lines.clear()
    shop.sale(late, at=MIDNIGHT + DAY + 100)
    assert (await shop.compare(1)).summary["findings"] == {}
    assert len(await shop.findings()) == len(found) - 1
    [closed] = await shop.findings(resolved=True)
    assert closed[1] == late.id
    assert "later statement" in closed[8]


async def test_old_and_second_money_is_found_by_its_name(shop: Shop) -> None:
    old = shop.pay(1, at=MIDNIGHT - 90 * DAY)
    shop.sale(old, at=MIDNIGHT + 5_000)
    unnamed = [shop.pay(number, at=MIDNIGHT + 1_000 * number) for number in (2, 3)]
    for payment in unnamed:
        shop.sale(payment, external="", reference="")
    stranger = shop.pay(5, at=MIDNIGHT + 9_000)
    shop.sale(stranger, external="UNKNOWN", reference="")  # the same amount under a strange name: no pair
    await shop.keep()

    await shop.compare()

    assert sorted((row[0], row[1]) for row in await shop.findings()) == [
        ("missing_here", None),
        ("missing_there", stranger.id),
    ]
