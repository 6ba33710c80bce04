"""The journal's promises, the same on both databases: many commands in one commit, each for itself; one line
of events per merchant, whoever writes; an answer only after the commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import select

from support.decisions import Does
from support.records import payment
from support.till import Clock, Till, open_till
from tillgate.domain.errors import Fault, NotAllowed, NotFound, Unavailable
from tillgate.hub import Opened
from tillgate.store import audit, tables
from tillgate.store.book import Needs, Plan
from tillgate.store.database import Database, Tx
from tillgate.store.directory import Merchant
from tillgate.store.journal import Journal


@dataclass(frozen=True)
class Runs:
    """Work in SQL."""

    work: Callable[[Tx, int], Any]

    async def run(self, tx: Tx, now: int) -> Any:
        return await self.work(tx, now)


class Counting:
    """A database that counts its transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.begun = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Tx]:
        self.begun += 1
        async with self._database.begin() as tx:
            yield tx


async def numbers(till: Till, merchant: Merchant) -> list[int]:
    return [row[1] for row in await till.kit.reads.events(merchant.id, 0, 10_000)]


async def due(till: Till) -> list[str]:
    return sorted(row[0] for row in await till.database.read(select(tables.due)))


async def orders(till: Till, *ids: str) -> list[str]:
    found = [await till.kit.reads.payment(one) for one in ids]
    return [one.order_id for one in found if one is not None]


# --- batches ------------------------------------------------------------------------------------------------


async def test_many_commands_share_few_commits(till: Till, shop: Merchant) -> None:
    counting = Counting(till.database)
    till.journal._database = counting
    opened = await asyncio.gather(*(till.open(shop, f"ORD-{number}") for number in range(300)))
    assert len({one.payment.id for one in opened}) == 300
    assert counting.begun <= 10
    assert await numbers(till, shop) == list(range(1, 301))
    assert len(await orders(till, *(one.payment.id for one in opened))) == 300
    assert (await audit.verify(till.database)).clean


async def test_commands_of_many_merchants_share_a_batch(till: Till) -> None:
    shops = [await till.merchant(f"shop {number}") for number in range(5)]
    await asyncio.gather(*(till.open(one, f"ORD-{n}") for n in range(20) for one in shops))
    for one in shops:
        assert await numbers(till, one) == list(range(1, 21))
    assert (await audit.verify(till.database)).clean


async def test_a_failure_is_its_own(till: Till, shop: Merchant) -> None:
    """A decision that breaks or refuses leaves nothing behind, not even what it had planned before."""

    def breaks(plan: Plan) -> None:
        plan.at("look", "nothing", shop.id, 5)
        raise ZeroDivisionError

    def refuses(plan: Plan) -> None:
        plan.at("look", "nothing", shop.id, 5)
        raise NotAllowed("no")

    before, broken, refused, nobody, after = await asyncio.gather(
        till.open(shop, "BEFORE"),
        till.journal.submit(Does(shop.id, breaks)),
        till.journal.submit(Does(shop.id, refuses)),
        till.journal.submit(Does("mer_nobody", breaks)),
        till.open(shop, "AFTER"),
        return_exceptions=True,
    )
    assert isinstance(broken, ZeroDivisionError)
    assert isinstance(refused, NotAllowed)
    assert isinstance(nobody, NotFound)
    assert isinstance(before, Opened)
    assert isinstance(after, Opened)
    assert await orders(till, before.payment.id, after.payment.id) == ["BEFORE", "AFTER"]
    assert [one for one in await due(till) if one.startswith("look")] == []


UNFIT: dict[str, Callable[[Plan], None]] = {
    "a number too large": lambda plan: plan.at("look", "x", "mer", 2**70),
    "half a character": lambda plan: plan.at("look", "\ud800", "mer", 5),
    "no number at all": lambda plan: plan.at("look", "x", "mer", "soon"),  # type: ignore[arg-type]
    "no value where one must be": lambda plan: plan.at("look", "x", None, 5),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", UNFIT)
async def test_what_the_database_cannot_keep_fails_alone(till: Till, shop: Merchant, name: str) -> None:
    before, unfit, after = await asyncio.gather(
        till.open(shop, "BEFORE"),
        till.journal.submit(Does(shop.id, UNFIT[name])),
        till.open(shop, "AFTER"),
        return_exceptions=True,
    )
    assert isinstance(unfit, Fault)
    assert not isinstance(unfit, Unavailable)
    assert [one for one in await due(till) if one.startswith("look")] == []
    assert isinstance(before, Opened)
    assert isinstance(after, Opened)
    assert (await audit.verify(till.database)).clean


async def test_a_nul_in_a_text_fails_alone(till: Till, shop: Merchant) -> None:
    """PostgreSQL keeps none; SQLite does."""
    first, second = await asyncio.gather(
        till.open(shop, "A\0B"), till.open(shop, "FINE"), return_exceptions=True
    )
    assert isinstance(second, Opened)
    assert isinstance(first, Opened if till.url.startswith("sqlite") else Fault)


async def test_what_cannot_be_in_the_database_is_not_found_in_it(till: Till) -> None:
    for strange in ("\ud800", "x" * 100_000, ""):
        assert await till.kit.reads.payment(strange) is None
    assert await till.kit.reads.events("mer", 2**70, 5) == []
    if not till.url.startswith("sqlite"):
        assert await till.kit.reads.payment("A\0B") is None


async def test_sql_work_that_breaks_fails_alone(till: Till, shop: Merchant) -> None:
    async def breaks(tx: Tx, now: int) -> None:
        raise KeyError("what is this")

    broken, opened = await asyncio.gather(
        till.journal.run(Runs(breaks)), till.open(shop, "FINE"), return_exceptions=True
    )
    assert isinstance(broken, Fault)
    assert isinstance(opened, Opened)


async def test_a_later_command_sees_an_earlier_one_of_its_batch(till: Till, shop: Merchant) -> None:
    new = payment(id="pay_new", merchant_id=shop.id)
    needs = Needs(orders=(new.order_key,))

    def look(plan: Plan) -> int | None:
        found = plan.order(new.order_key)
        return found.paid_minor if found else None

    def make(plan: Plan) -> None:
        plan.save(None, new)
        plan.event("payment.pending", new)

    def add(plan: Plan) -> int:
        found = plan.order(new.order_key)
        assert found is not None
        saved = plan.save(found, replace(found, paid_minor=found.paid_minor + 100))
        plan.event("payment.updated", saved)
        return saved.version

    def add_and_fail(plan: Plan) -> None:
        add(plan)
        raise NotAllowed("no")

    counting = Counting(till.database)
    till.journal._database = counting
    work = [look, make, look, add, add_and_fail, look, add, look]
    waiting = [till.journal.submit(Does(shop.id, one, needs)) for one in work]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [one for one in results if not isinstance(one, NotAllowed)] == [None, None, 0, 2, 100, 3, 200]
    assert counting.begun == 1
    stored = await till.kit.reads.payment("pay_new")
    assert stored is not None
    assert (stored.paid_minor, stored.version) == (200, 3)
    assert await numbers(till, shop) == [1, 2, 3]
    assert await till.journal.submit(Does(shop.id, add, needs)) == 4


async def test_two_creates_of_one_order_in_a_batch_are_one_payment(till: Till, shop: Merchant) -> None:
    first, second, other = await asyncio.gather(
        till.open(shop, "ORD-1"),
        till.open(shop, "ORD-1"),
        till.open(shop, "ORD-1", 20_000),
        return_exceptions=True,
    )
    assert isinstance(first, Opened)
    assert isinstance(second, Opened)
    assert first.payment.id == second.payment.id
    assert (first.replayed, second.replayed) == (False, True)
    assert type(other).__name__ == "OrderConflict"
    assert await numbers(till, shop) == [1]


# --- who waits, and who leaves ------------------------------------------------------------------------------


async def test_who_stops_waiting_breaks_nothing(till: Till, shop: Merchant) -> None:
    """Whether a cancelled request was in time or not: nothing of it is half there, and the rest is done."""
    for delay_s in (0, 0, 0.0005, 0.001, 0.002, 0.005):
        order = f"ORD-{len(await numbers(till, shop))}-{delay_s}"
        leaving = asyncio.create_task(till.open(shop, order))
        staying = asyncio.create_task(till.open(shop, f"{order}-stays"))
        await asyncio.sleep(delay_s)
        leaving.cancel()
        await asyncio.wait([leaving])
        await staying
    assert (await audit.verify(till.database)).clean
    again = await till.open(shop, order)
    assert again.payment.order_id == order


async def test_a_full_queue_says_so_at_once(till: Till, shop: Merchant) -> None:
    waiting = [till.journal.submit(Does(shop.id, lambda plan: plan.now)) for _ in range(25_000)]
    refused = [one for one in waiting if one.done()]
    assert len(refused) == 5_000
    assert all(isinstance(one.exception(), Unavailable) for one in refused)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(one, int) for one in results) == 20_000
    assert (await till.open(shop, "AFTER")).payment.order_id == "AFTER"


async def test_stopping_commits_what_waits_and_takes_nothing_more(till: Till, shop: Merchant) -> None:
    waiting = [asyncio.create_task(till.open(shop, f"ORD-{number}")) for number in range(50)]
    await asyncio.sleep(0)
    await till.journal.stop()
    done = await asyncio.gather(*waiting)
    assert len({one.payment.id for one in done}) == 50
    with pytest.raises(Unavailable):
        await till.open(shop, "LATE")


# --- several processes --------------------------------------------------------------------------------------


@pytest.fixture
async def second(till: Till) -> AsyncIterator[Till]:
    """Another process on the same database."""
    async with open_till(till.url, bank=till.bank, sink=till.sink, clock=till.clock) as opened:
        yield opened


async def test_two_processes_number_events_without_a_gap(till: Till, second: Till, shop: Merchant) -> None:
    await asyncio.gather(
        *(till.open(shop, f"A-{number}") for number in range(150)),
        *(second.open(shop, f"B-{number}") for number in range(150)),
    )
    assert await numbers(till, shop) == list(range(1, 301))
    report = await audit.verify(till.database)
    assert report.clean, report.text()


async def test_one_order_opened_by_twenty_at_once(till: Till, second: Till, shop: Merchant) -> None:
    for round_ in range(5):
        made = await asyncio.gather(
            *(side.open(shop, f"ORD-{round_}") for _ in range(10) for side in (till, second))
        )
        assert len({one.payment.id for one in made}) == 1
        assert sum(not one.replayed for one in made) == 1
        assert len(await till.kit.reads.attempts(made[0].payment.id)) == 1
    assert await numbers(till, shop) == [1, 2, 3, 4, 5]


async def test_one_order_with_other_amounts_has_one_winner(till: Till, second: Till, shop: Merchant) -> None:
    made = await asyncio.gather(
        *(side.open(shop, "ORD-1", 1_000 + n) for n in range(10) for side in (till, second)),
        return_exceptions=True,
    )
    won = {one.payment.id for one in made if isinstance(one, Opened)}
    lost = [one for one in made if not isinstance(one, Opened)]
    assert len(won) == 1
    assert {type(one).__name__ for one in lost} == {"OrderConflict"}
    assert len(lost) == 18


async def test_a_name_is_taken_once(till: Till, second: Till) -> None:
    now = till.clock()
    made = await asyncio.gather(
        *(side.directory.create_merchant("one name", now) for _ in range(4) for side in (till, second)),
        return_exceptions=True,
    )
    refused = [one for one in made if isinstance(one, Exception)]
    assert len(refused) == 7
    assert all(isinstance(one, NotAllowed) for one in refused), refused
    assert len(await till.directory.merchants()) == 1


async def test_changes_to_a_merchants_books_take_turns(till: Till, second: Till, shop: Merchant) -> None:
    """Read, think, write from both sides at once: no update is lost."""
    opened = [await till.open(shop, f"ORD-{number}", 1_000) for number in range(40)]
    await asyncio.gather(
        *(side.pay(shop, one) for one in opened for side in (till, second)),
    )
    books = {name: amount for name, _, amount in await till.kit.reads.balances(shop.id)}
    assert (books["merchant"], books["memo:due"], books["memo:open"]) == (40_000, 0, 0)
    report = await audit.verify(till.database)
    assert report.clean, report.text()


async def test_reads_see_committed_rows_of_others(till: Till, second: Till, shop: Merchant) -> None:
    made = await till.open(shop, "ORD-1")
    assert await second.kit.reads.payment(made.payment.id) == await till.kit.reads.payment(made.payment.id)


async def test_a_journal_starts_where_another_stopped(database_url: str, clock: Clock) -> None:
    async with open_till(database_url, clock=clock) as first:
        shop = await first.merchant()
        await asyncio.gather(*(first.open(shop, f"A-{number}") for number in range(20)))
    async with open_till(database_url, clock=clock) as again:
        shop = await again.directory.merchant(shop.id)
        await asyncio.gather(*(again.open(shop, f"B-{number}") for number in range(20)))
        assert await numbers(again, shop) == list(range(1, 41))
        assert (await audit.verify(again.database)).clean


async def test_a_journal_that_was_never_started_answers_nobody(till: Till, shop: Merchant) -> None:
    """Only `start` makes it answer; `stop` before it must not hang."""
    idle = Journal(till.database, till.clock)
    future = idle.submit(Does(shop.id, lambda plan: 1))
    await idle.stop()
    assert not future.done()
    future.cancel()
