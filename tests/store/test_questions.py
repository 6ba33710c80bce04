"""Questions are answered from what is committed, beside whoever writes; what is no mere question is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import select, text

from support.decisions import Does
from support.till import Clock, Till, open_till
from tillgate.domain.errors import NotAllowed, Unavailable
from tillgate.store import tables
from tillgate.store.book import Needs, Plan
from tillgate.store.database import Database
from tillgate.store.directory import Merchant


def standing(shop: Merchant, payment_id: str) -> Does:
    """How does a payment stand?"""

    def decide(plan: Plan) -> tuple[bool, str]:
        payment = plan.payment(payment_id)
        assert payment is not None
        return plan.is_view, payment.status

    return Does(shop.id, decide, Needs(payments=(payment_id,)))


@asynccontextmanager
async def somebody_writes(database: Database, shop: Merchant) -> AsyncIterator[None]:
    """Another process in the middle of a change to the merchant's books."""
    async with database.begin() as tx:
        await tx.execute(text("UPDATE heads SET seq = seq WHERE merchant_id = :id"), {"id": shop.id})
        yield


async def due(till: Till) -> list[str]:
    return sorted(row[0] for row in await till.database.read(select(tables.due)))


async def test_it_waits_for_nobody_who_writes(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    async with open_till(till.url) as second, somebody_writes(second.database, shop):
        writes = asyncio.create_task(till.open(shop, "ORD-2"))
        answers = await asyncio.gather(
            *(till.journal.ask(standing(shop, opened.payment.id)) for _ in range(300))
        )
        assert not writes.done()
    assert answers == [(True, "pending")] * 300
    await writes


async def test_it_sees_what_was_acknowledged(till: Till, shop: Merchant) -> None:
    for number in range(30):
        opened = await till.open(shop, f"ORD-{number}")
        assert await till.journal.ask(standing(shop, opened.payment.id)) == (True, "pending")
        await till.pay(shop, opened)
        assert await till.journal.ask(standing(shop, opened.payment.id)) == (True, "paid")


async def test_what_wants_to_change_something_is_ruled_on_in_a_batch_and_kept_once(
    till: Till, shop: Merchant
) -> None:
    before = await due(till)

    def decide(plan: Plan) -> bool:
        plan.at("look", "later", shop.id, plan.now + 10**9)
        return plan.is_view

    assert await till.journal.ask(Does(shop.id, decide)) is False
    assert await due(till) == [*before, "look:later"]


async def test_what_is_refused_is_refused_by_a_batch(till: Till, shop: Merchant) -> None:
    views: list[bool] = []

    def decide(plan: Plan) -> None:
        views.append(plan.is_view)
        raise NotAllowed("no")

    with pytest.raises(NotAllowed, match="no"):
        await till.journal.ask(Does(shop.id, decide))
    assert views == [True, False]


async def test_one_that_cannot_be_looked_up_troubles_no_other(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    plain = standing(shop, opened.payment.id)
    odd = Does(shop.id, lambda plan: plan.payment("pay_\ud800"), Needs(payments=("pay_\ud800",)))
    asked = [plain, odd, plain]
    answers = await asyncio.gather(*map(till.journal.ask, asked), return_exceptions=True)
    assert [answers[0], answers[2]] == [(False, "pending")] * 2  # ruled on together, then each alone
    assert isinstance(answers[1], Exception)
    assert await till.journal.ask(plain) == (True, "pending")


async def test_who_stops_waiting_breaks_nothing(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    left, stays = (till.journal.ask(standing(shop, opened.payment.id)) for _ in range(2))
    left.cancel()
    assert await stays == (True, "pending")

    leaves = till.journal.ask(Does(shop.id, lambda _: leaves.cancel()))  # while it is being looked up
    stays = till.journal.ask(standing(shop, opened.payment.id))
    async with asyncio.timeout(5):
        assert await stays == (True, "pending")
    assert leaves.cancelled()


async def test_a_look_that_does_not_end_is_given_up(pg_till_url: str) -> None:
    """Here for a lock on a table; a connection that died in silence is the same."""
    async with open_till(pg_till_url) as till:
        shop = await till.merchant()
        opened = await till.open(shop, "ORD-1")
        plain = standing(shop, opened.payment.id)
        other = await asyncpg.connect(pg_till_url)
        held = other.transaction()
        await held.start()
        await other.execute("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE")
        asked = till.journal.ask(plain)
        async with asyncio.timeout(30):
            while till.journal._questions.waiting:
                await asyncio.sleep(0.01)
        await held.rollback()
        await other.close()
        assert await asked == (False, "pending")
        assert await till.journal.ask(plain) == (True, "pending")


async def test_stopping_leaves_no_question_without_an_answer(database_url: str, clock: Clock) -> None:
    async with open_till(database_url, clock=clock) as till:
        shop = await till.merchant()
        opened = await till.open(shop, "ORD-1")

        def refuses(plan: Plan) -> None:
            raise NotAllowed("no")

        plain = till.journal.ask(standing(shop, opened.payment.id))
        refused = till.journal.ask(Does(shop.id, refuses))
        stopping = asyncio.create_task(till.journal.stop())
        async with asyncio.timeout(5):
            assert await plain == (True, "pending")
            with pytest.raises(NotAllowed):
                await refused
            await stopping
        with pytest.raises(Unavailable):
            await till.journal.ask(standing(shop, opened.payment.id))
