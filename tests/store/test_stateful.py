"""A merchant, payers, a bank and two processes, in any order that hypothesis can think of, with every fault.

At the end all is told and done, and then: the books are the bank's books, no order has two live attempts, no
more went back than came, and the merchant heard of everything at least once, in order, under one id each.
`TILLGATE_TEST_EXAMPLES` says how many stories are played (on PostgreSQL half of them).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from copy import copy
from dataclasses import fields
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select

from support.till import CALLBACK, Clock, Sink, Till, open_till
from support.tinybank import Bank, Charge
from tillgate.domain.errors import TillgateError
from tillgate.domain.payment import Attempt, Payment, Refund
from tillgate.hub import Key
from tillgate.hub.kit import CALLBACK_KINDS
from tillgate.store import audit, tables
from tillgate.store.book import TABLE_OF, record_of
from tillgate.store.directory import Merchant
from tillgate.store.ids import digest

T = TypeVar("T")
EXAMPLES = int(os.environ.get("TILLGATE_TEST_EXAMPLES", "20"))
STEPS = 35
WIPED = [table for table in tables.metadata.sorted_tables if table.name != "meta"]


class World:
    """Two processes on one database, kept open over all stories."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.bank, self.sink, self.clock = Bank(), Sink(), Clock()
        self.tills: list[Till] = []
        self.url, self._stack = url, AsyncExitStack()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    async def open(self) -> None:
        for _ in range(2):
            one = open_till(self.url, bank=self.bank, sink=self.sink, clock=self.clock)
            self.tills.append(await self._stack.enter_async_context(one))

    async def wipe(self) -> Merchant:
        class Wipe:
            async def run(self, tx: Any, now: int) -> None:
                for table in reversed(WIPED):
                    await tx.execute(delete(table), {})

        await self.tills[0].journal.run(Wipe())
        for one in self.tills:
            one.directory.forget()
        for instance, fresh in ((self.bank, Bank()), (self.sink, Sink())):
            for field in fields(fresh):
                setattr(instance, field.name, getattr(fresh, field.name))
        self.clock.now = Clock().now
        return await self.tills[0].merchant()

    def close(self) -> None:
        self.run(self._stack.aclose())
        self.loop.close()


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    made = World(database_url)
    made.run(made.open())
    yield made
    made.close()


sides = st.integers(0, 1)
numbers = st.integers(0, 20)
orders = st.sampled_from(["ORD-1", "ORD-2", "ORD-3"])
channels = st.sampled_from(["inviting_qr", "inviting_qr", "calling_qr", "blind_qr"])
faults = st.sampled_from(["none", "none", "none", "lost", "never_got", "unreachable", "declined", "broken"])
keys = st.sampled_from([None, None, "a", "b"])
seconds = st.sampled_from([0, 1, 6, 20, 61, 400, 901, 8_000])


class Story(RuleBasedStateMachine):
    world: World

    @initialize()
    def begin(self) -> None:
        self.shop = self.world.run(self.world.wipe())
        self.told: list[tuple[str, Charge, str]] = []  # what the bank has said so far
        self.said = 0

    # --- helpers ---

    def try_(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Being refused is part of the story; a stack trace is not."""
        try:
            return self.world.run(work)
        except TillgateError as error:
            note(f"refused: {error!r}")
            return None

    def fail(self, call: str, how: str) -> None:
        self.world.bank.faults[call].clear()
        if how != "none":
            self.world.bank.fail(call, how)

    def one(self, number: int, known: Sequence[T]) -> Sequence[T]:
        """One of them, or nothing where there is none: what is drawn must not depend on who was quicker."""
        return [known[number % len(known)]] if known else []

    def rows(self, kind: type[T], table: Any) -> list[T]:
        database = self.world.tills[0].database
        return [record_of(kind, row) for row in self.world.run(database.read(select(table)))]  # type: ignore[type-var]

    def payments(self) -> list[Payment]:
        return self.rows(Payment, TABLE_OF[Payment])

    def attempts(self) -> list[Attempt]:
        return self.rows(Attempt, TABLE_OF[Attempt])

    def refunds(self) -> list[Refund]:
        return self.rows(Refund, TABLE_OF[Refund])

    # --- the merchant ---

    @rule(side=sides, order=orders, channel=channels, fault=faults, key=keys)
    def opens(self, side: int, order: str, channel: str, fault: str, key: str | None) -> None:
        self.fail("start", fault)
        given = None if key is None else Key(digest(key, order), digest(order, channel), 201)
        self.try_(self.world.tills[side].open(self.shop, order, 10_000, channel, key=given))

    @rule(order=orders, channel=channels)
    def opens_twice_at_once(self, order: str, channel: str) -> None:
        async def both() -> None:
            await asyncio.gather(
                *(one.open(self.shop, order, 10_000, channel) for one in self.world.tills),
                return_exceptions=True,
            )

        self.fail("start", "none")
        self.try_(both())

    @rule(side=sides, number=numbers, amount=st.sampled_from([1, 2_500, 6_000, 10_000]), fault=faults)
    def refunds_some(self, side: int, number: int, amount: int, fault: str) -> None:
        self.fail("refund", fault)
        for payment in self.one(number, self.payments()):
            self.try_(self.world.tills[side].hub.refund(self.shop, payment.id, amount, "why"))

    @rule(number=numbers, amount=st.sampled_from([2_500, 6_000]))
    def refunds_many_at_once(self, number: int, amount: int) -> None:
        async def many(payment_id: str) -> None:
            await asyncio.gather(
                *(
                    one.hub.refund(self.shop, payment_id, amount, "why")
                    for one in self.world.tills
                    for _ in range(3)
                ),
                return_exceptions=True,
            )

        for payment in self.one(number, self.payments()):
            self.try_(many(payment.id))

    @rule(side=sides, number=numbers, fault=faults)
    def cancels(self, side: int, number: int, fault: str) -> None:
        self.fail("cancel", fault)
        for payment in self.one(number, self.payments()):
            self.try_(self.world.tills[side].hub.cancel(self.shop, payment.id))

    @rule(number=numbers, outcome=st.sampled_from(["accept", "paid", "failed"]))
    def an_operator_decides(self, number: int, outcome: Any) -> None:
        for payment in self.one(number, self.payments()):
            attempt = next((one for one in self.attempts() if one.id == payment.live_attempt_id), None)
            if attempt is not None and outcome != "accept":
                charge = self.world.bank.charges.get(attempt.id)
                if (charge is not None and charge.state == "paid") != (outcome == "paid"):
                    return  # an operator reads the bank's statement
                if outcome == "paid" and charge is not None and charge.paid_minor != 10_000:
                    return
            self.try_(self.world.tills[0].hub.resolve(self.shop, payment.id, outcome, "by the statement"))

    # --- the payer and the bank ---

    @rule(number=numbers, amount=st.sampled_from([10_000, 10_000, 10_000, 9_000, 12_000]))
    def a_payer_pays(self, number: int, amount: int) -> None:
        """Also what was closed: late money."""
        for operation in self.one(number, sorted(self.world.bank.charges)):
            if self.world.bank.charges[operation].state != "paid":
                self.world.bank.pay(operation, amount)

    @rule(number=numbers)
    def a_charge_fails(self, number: int) -> None:
        for operation in self.one(number, sorted(self.world.bank.charges)):
            charge = self.world.bank.charges[operation]
            if charge.state == "pending":
                charge.state = "failed"

    @rule(end=st.sampled_from(["succeeded", "failed", "pending"]), parallel=st.booleans())
    def the_bank_changes_its_ways(self, end: str, parallel: bool) -> None:
        self.world.bank.refunds_end, self.world.bank.parallel_refunds = end, parallel

    @rule(number=numbers, state=st.sampled_from(["succeeded", "failed"]), tell=st.booleans())
    def a_refund_ends(self, number: int, state: str, tell: bool) -> None:
        bank = self.world.bank
        for refund_id in self.one(number, sorted(bank.refunds)):
            bank.end_refund(refund_id, state)
            if tell:
                self.try_(self.world.tills[0].told(self.shop, refund_id, bank.refunds[refund_id][2]))

    @rule(number=numbers, amount=st.sampled_from([500, 3_000]))
    def the_bank_gives_back_by_itself(self, number: int, amount: int) -> None:
        for operation in self.one(number, sorted(self.world.bank.charges)):
            if self.world.bank.left(operation) >= amount:
                self.world.bank.charges[operation].refunded_minor += amount

    @rule(side=sides, number=numbers, times=st.integers(1, 3))
    def the_bank_tells(self, side: int, number: int, times: int) -> None:
        for operation in self.one(number, sorted(self.world.bank.charges)):
            self.said += 1
            said = operation, copy(self.world.bank.charges[operation]), f"evt-{self.said}"
            self.told.append(said)
            for _ in range(times):
                self.try_(self.world.tills[side].told(self.shop, *said))

    @rule(side=sides, number=numbers, renamed=st.booleans())
    def old_news_comes_again(self, side: int, number: int, renamed: bool) -> None:
        for operation, charge, event in self.one(number, self.told):
            named = f"{event}-again" if renamed else event
            self.try_(self.world.tills[side].told(self.shop, operation, charge, named))

    # --- time and workers ---

    @rule(s=seconds)
    def time_passes(self, s: int) -> None:
        self.world.clock.on(s=s)

    @rule(side=sides, fault=faults, call=st.sampled_from(["look", "look_refund", "cancel", "refund"]))
    def a_worker_works(self, side: int, fault: str, call: str) -> None:
        self.fail(call, fault)
        self.try_(self.world.tills[side].worker.drain())

    @rule()
    def both_workers_work(self) -> None:
        async def both() -> None:
            await asyncio.gather(*(one.worker.drain() for one in self.world.tills))

        self.try_(both())

    @rule(side=sides, turns=st.integers(1, 60))
    def a_worker_is_cut_off(self, side: int, turns: int) -> None:
        async def cut() -> None:
            working = asyncio.create_task(self.world.tills[side].worker.drain())
            for _ in range(turns):
                await asyncio.sleep(0)
            working.cancel()
            await asyncio.wait([working])

        self.try_(cut())

    @rule(answers=st.lists(st.sampled_from([500, 200, "unreachable", "lost"]), max_size=4))
    def the_merchants_endpoint_fails(self, answers: list[int | str]) -> None:
        self.world.sink.answers[CALLBACK].extend(answers)

    # --- what always holds ---

    @invariant()
    def no_order_is_collected_twice(self) -> None:
        if not hasattr(self, "shop"):
            return
        attempts = self.attempts()
        for payment in self.payments():
            live = [one for one in attempts if one.payment_id == payment.id and one.live_of]
            assert len(live) <= 1
            if payment.hold is None:
                assert payment.refunded_minor + payment.refunding_minor <= payment.paid_minor
        orders = [one.order_id for one in self.payments()]
        assert len(orders) == len(set(orders))

    async def finish(self) -> None:
        """The bank says all there is to say, time passes, all work is done."""
        till, bank = self.world.tills[0], self.world.bank
        for waiting in bank.faults.values():
            waiting.clear()
        self.world.sink.answers.clear()
        bank.refunds_end, bank.parallel_refunds = "succeeded", True
        for _ in range(12):
            for refund_id in list(bank.refunds):
                bank.end_refund(refund_id, "succeeded")
            for one in await till.database.read(select(tables.attempts.c.id)):
                charge = bank.charges.get(one[0])
                if charge is not None:
                    await till.told(self.shop, one[0], charge)
            for row in await till.database.read(select(tables.refunds.c.id, tables.refunds.c.phase)):
                if row[0] in bank.refunds:
                    await till.told(self.shop, row[0], bank.refunds[row[0]][2])
                elif row[1] == "unsure":  # its bank cannot be asked: an operator read the statement
                    await till.told(self.shop, row[0], "failed")
            await till.worker.drain()
            self.world.clock.on(s=8_000)
        await till.worker.drain()

    def teardown(self) -> None:
        if not hasattr(self, "shop"):
            return
        self.world.run(self.finish())
        self.no_order_is_collected_twice()
        report = self.world.run(audit.verify(self.world.tills[0].database))
        assert report.clean, report.text()
        self.the_books_are_the_banks()
        self.the_merchant_heard_it_all()
        self.nothing_is_left_over()

    def the_books_are_the_banks(self) -> None:
        bank, attempts = self.world.bank, self.attempts()
        for attempt in attempts:
            charge = bank.charges.get(attempt.id)
            paid = (charge.paid_minor, charge.refunded_minor) if charge else (0, 0)
            assert (attempt.paid_minor, attempt.refunded_minor) == paid, attempt
        for refund in self.refunds():
            theirs = bank.refunds.get(refund.id)
            if refund.phase == "succeeded":
                assert theirs is not None
                assert theirs[2] == "succeeded"
            elif refund.phase == "failed":
                assert theirs is None or theirs[2] == "failed"
        for charge in bank.charges.values():
            assert charge.refunded_minor <= charge.paid_minor
        balances = self.world.run(self.world.tills[0].kit.reads.balances(self.shop.id))
        owed = sum(amount for name, _, amount in balances if name.startswith("provider:"))
        assert -owed == sum(one.paid_minor - one.refunded_minor for one in bank.charges.values())
        assert sum(amount for _, _, amount in balances) == 0

    def the_merchant_heard_it_all(self) -> None:
        till, got = self.world.tills[0], self.world.sink.got
        events = self.world.run(till.kit.reads.events(self.shop.id, 0, 10_000))
        wanted = [row[2] for row in events if row[3] in CALLBACK_KINDS]
        heard = [message_id for _, message_id, _ in got]
        assert set(heard) == set(wanted)
        number = {row[2]: row[1] for row in events}
        bodies: dict[str, bytes] = {}
        last: dict[str, int] = {}
        for _, message_id, body in got:
            assert bodies.setdefault(message_id, body) == body  # the same words each time
            payment_id = json.loads(body)["payment_id"]
            assert number[message_id] >= last.get(payment_id, 0)
            last[payment_id] = number[message_id]

    def nothing_is_left_over(self) -> None:
        """Only what an operator must decide may still be looked at from time to time."""
        till = self.world.tills[0]
        unsure = {one.id for one in (*self.attempts(), *self.refunds()) if one.phase == "unsure"}
        assert "pending" not in {one.status for one in self.payments()}
        due = self.world.run(till.database.read(select(tables.due)))
        assert [row for row in due if row[2] not in unsure] == []
        states = {row[6] for row in self.world.run(till.database.read(select(tables.deliveries)))}
        assert states <= {"delivered"}


@pytest.mark.timeout(0 if EXAMPLES > 100 else 180)
def test_money_is_conserved_whatever_happens(world: World) -> None:
    class Told(Story):
        pass

    Told.world = world
    run_state_machine_as_test(
        Told,
        settings=settings(
            max_examples=EXAMPLES if world.url.startswith("sqlite") else max(EXAMPLES // 2, 5),
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
