"""The use cases on both databases, through the hub's own front door, against a bank outside of it.

After each test the books are proved, and no work is left over that nobody will ever do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import pytest
from sqlalchemy import select

from support.till import CALLBACK, Clock, Till, begun_look, open_till
from support.tinybank import Charge, notice
from tillgate.domain.errors import (
    IdempotencyMismatch,
    InFlight,
    NotAllowed,
    NotFound,
    OrderConflict,
    RefundNotAllowed,
    Unreachable,
    Unsure,
)
from tillgate.domain.payment import Payment, Refund
from tillgate.hub import Intent, Key, Opened
from tillgate.store import audit, tables
from tillgate.store.directory import Merchant, MerchantSettings
from tillgate.store.ids import digest


@pytest.fixture(autouse=True)
async def proved(till: Till) -> AsyncIterator[None]:
    yield
    report = await audit.verify(till.database)
    assert report.clean, report.text()


@pytest.fixture
async def second(till: Till) -> AsyncIterator[Till]:
    """Another process on the same database."""
    async with open_till(till.url, bank=till.bank, sink=till.sink, clock=till.clock) as opened:
        yield opened


async def payment(till: Till, opened: Opened) -> Payment:
    found = await till.kit.reads.payment(opened.payment.id)
    assert found is not None
    return found


async def refund(till: Till, refund_id: str) -> Refund:
    found = await till.kit.reads.refund(refund_id)
    assert found is not None
    return found


async def due(till: Till) -> list[str]:
    """Kinds of work that wait."""
    return sorted(row[1] for row in await till.database.read(select(tables.due)))


async def books(till: Till, shop: Merchant) -> dict[str, int]:
    rows = await till.kit.reads.balances(shop.id)
    return {name.partition(":")[0] if name[0] != "m" else name: amount for name, _, amount in rows if amount}


async def kinds(till: Till, shop: Merchant) -> list[str]:
    return [row[3] for row in await till.kit.reads.events(shop.id, 0, 1_000)]


async def on(till: Till, clock: Clock, *, s: int) -> None:
    """Let time pass, and do what is due then."""
    clock.on(s=s)
    await till.worker.drain()


def key(name: str, content: str = "the same") -> Key:
    return Key(digest("key", name), digest("content", content), 201)


# --- a payment's straight way -------------------------------------------------------------------------------


async def test_a_payment_is_opened_paid_and_told(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    assert opened.payment.status == "pending"
    assert await books(till, shop) == {"memo:open": -10_000, "memo:due": 10_000}
    assert (await till.pay(shop, opened, "evt-1")).status == 200
    assert (await payment(till, opened)).status == "paid"
    assert await books(till, shop) == {"merchant": 10_000, "provider": -10_000}
    await till.worker.drain()
    assert [url for url, _, _ in till.sink.got] == [CALLBACK]
    assert await kinds(till, shop) == ["payment.pending", "payment.paid"]
    assert await due(till) == []


async def test_a_payment_that_nobody_pays_expires(till: Till, shop: Merchant, clock: Clock) -> None:
    opened = await till.open(shop, "ORD-1")
    await on(till, clock, s=899)
    assert (await payment(till, opened)).status == "pending"
    await on(till, clock, s=2)
    assert (await payment(till, opened)).status == "expired"
    assert till.bank.charges[opened.attempt.id].state == "cancelled"
    assert (await till.kit.reads.attempts(opened.payment.id))[0].reason == "the bank says cancelled"
    assert await books(till, shop) == {}
    assert await kinds(till, shop) == ["payment.pending", "payment.expired"]
    assert await due(till) == []


async def test_a_payer_who_was_quicker_than_the_clock(till: Till, shop: Merchant, clock: Clock) -> None:
    """Paid, the notice lost: found before anything is called expired."""
    opened = await till.open(shop, "ORD-1")
    till.bank.pay(opened.attempt.id)
    await on(till, clock, s=901)
    paid = await payment(till, opened)
    assert (paid.status, paid.late) == ("paid", False)
    assert await due(till) == []


@pytest.mark.parametrize("fault", ["unreachable", "never_got", "broken"])
async def test_a_bank_that_does_not_answer_when_time_is_over(
    till: Till, shop: Merchant, clock: Clock, fault: str
) -> None:
    """It stays open until the bank says how it stands, and is asked again."""
    opened = await till.open(shop, "ORD-1")
    till.bank.fail("cancel", fault)
    await on(till, clock, s=901)
    assert (await payment(till, opened)).status == "pending"
    till.bank.pay(opened.attempt.id)
    await on(till, clock, s=61)
    assert (await payment(till, opened)).status == "paid"
    assert await due(till) == []


async def test_a_bank_that_will_not_withdraw_a_charge_is_asked_how_it_stands(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    unpaid, paid = await till.open(shop, "ORD-1"), await till.open(shop, "ORD-2")
    till.bank.pay(paid.attempt.id)
    till.bank.fail("cancel", "declined", "declined")
    await on(till, clock, s=901)
    assert (await payment(till, unpaid)).status == "expired"
    assert (await payment(till, paid)).status == "paid"
    assert await due(till) == []


async def test_late_money_is_kept(till: Till, shop: Merchant, clock: Clock) -> None:
    opened = await till.open(shop, "ORD-1")
    await on(till, clock, s=901)
    till.bank.charges[opened.attempt.id].state = "pending"
    await till.pay(shop, opened)
    paid = await payment(till, opened)
    assert (paid.status, paid.late) == ("paid", True)
    assert await books(till, shop) == {"merchant": 10_000, "provider": -10_000}


async def test_late_money_is_held_where_the_merchant_wants_that(till: Till, clock: Clock) -> None:
    shop = await till.merchant("careful", MerchantSettings(late_money="review"))
    opened = await till.open(shop, "ORD-1")
    await on(till, clock, s=901)
    await till.pay(shop, opened)
    held = await payment(till, opened)
    assert (held.status, held.hold) == ("review", "late_money")
    accepted = await till.hub.resolve(shop, opened.payment.id, "accept", "the goods were kept")
    assert accepted.status == "paid"
    assert await books(till, shop) == {"merchant": 10_000, "provider": -10_000}


async def test_late_money_while_another_attempt_is_open(till: Till, shop: Merchant, clock: Clock) -> None:
    """The second is withdrawn, so that nobody pays twice."""
    first = await till.open(shop, "ORD-1")
    await on(till, clock, s=901)
    again = await till.open(shop, "ORD-1")
    assert again.payment.id == first.payment.id
    assert again.attempt.id != first.attempt.id
    await till.pay(shop, first)
    await till.worker.drain()
    assert (await payment(till, first)).status == "paid"
    assert till.bank.charges[again.attempt.id].state == "cancelled"
    phases = [one.phase for one in await till.kit.reads.attempts(first.payment.id)]
    assert phases == ["paid", "closed"]
    assert await due(till) == []


async def test_money_that_comes_twice_is_held(till: Till, shop: Merchant, clock: Clock) -> None:
    first = await till.open(shop, "ORD-1")
    await on(till, clock, s=901)
    again = await till.open(shop, "ORD-1")
    await till.pay(shop, again)
    await till.pay(shop, first)
    held = await payment(till, first)
    assert (held.status, held.hold, held.paid_minor) == ("review", "overpaid", 20_000)
    assert await books(till, shop) == {"held": 20_000, "provider": -20_000}


async def test_two_attempts_are_never_live_at_once(till: Till, second: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    await till.told(shop, opened.attempt.id, Charge(10_000, "IDR", "failed"))
    again = await asyncio.gather(*(side.open(shop, "ORD-1") for _ in range(8) for side in (till, second)))
    assert len({one.attempt.id for one in again}) == 1
    live = [one for one in await till.kit.reads.attempts(opened.payment.id) if one.live_of]
    assert len(live) == 1


# --- a call before the payer can pay ------------------------------------------------------------------------


async def test_a_bank_that_must_be_told_is_told_once(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1", channel="calling_qr")
    assert (opened.payment.status, opened.attempt.phase) == ("pending", "pending")
    assert till.bank.calls["start"] == 1
    again = await till.open(shop, "ORD-1", channel="calling_qr")
    assert (again.replayed, again.attempt.id) == (True, opened.attempt.id)
    assert till.bank.calls["start"] == 1
    assert await due(till) == ["expire", "look"]  # its notice may be lost


@pytest.mark.parametrize("fault", ["declined", "unreachable"])
async def test_a_charge_that_the_bank_never_took(till: Till, shop: Merchant, fault: str) -> None:
    till.bank.fail("start", fault)
    opened = await till.open(shop, "ORD-1", channel="calling_qr")
    assert (opened.payment.status, opened.attempt.phase) == ("failed", "closed")
    assert await due(till) == []
    again = await till.open(shop, "ORD-1", channel="calling_qr")
    assert (again.payment.status, again.payment.id) == ("pending", opened.payment.id)


@pytest.mark.parametrize("fault", ["lost", "broken"])
async def test_a_lost_answer_is_looked_up(till: Till, shop: Merchant, clock: Clock, fault: str) -> None:
    till.bank.fail("start", fault)
    opened = await till.open(shop, "ORD-1", channel="calling_qr")
    assert opened.payment.status == "unsure"
    if fault == "broken":
        till.bank.open(till.kit.order(opened.payment, opened.attempt, shop.accounts[1]))
    await on(till, clock, s=6)
    assert (await payment(till, opened)).status == "pending"
    assert till.bank.calls["start"] == 1


async def test_a_lost_question_is_no_charge(till: Till, shop: Merchant, clock: Clock) -> None:
    till.bank.fail("start", "never_got")
    opened = await till.open(shop, "ORD-1", channel="calling_qr")
    assert opened.payment.status == "unsure"
    await on(till, clock, s=6)
    failed = await payment(till, opened)
    assert (failed.status, till.bank.calls["start"]) == ("failed", 1)
    assert await due(till) == []


async def test_looking_is_repeated_ever_less_often(till: Till, shop: Merchant, clock: Clock) -> None:
    till.bank.fail("start", "lost")
    till.bank.fail("look", *["unreachable"] * 100)
    opened = await till.open(shop, "ORD-1", channel="calling_qr", ttl_s=86_400)
    times: list[int] = []
    while len(times) < 7:
        [row] = [one for one in await till.database.read(select(tables.due)) if one[1] == "look"]
        clock.now = row[4]
        times.append(clock.now)
        await till.worker.drain()
    assert till.bank.calls["look"] == 7
    gaps_s = [(later - sooner) // 1_000 for sooner, later in pairwise(times)]
    assert gaps_s == [15, 60, 300, 1_800, 7_200, 7_200]
    assert (await payment(till, opened)).status == "unsure"


async def test_a_bank_that_cannot_be_asked_leaves_it_to_an_operator(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    till.bank.fail("start", "lost", "lost")
    paid = await till.open(shop, "ORD-1", channel="blind_qr")
    failed = await till.open(shop, "ORD-2", channel="blind_qr")
    for _ in range(5):
        await on(till, clock, s=7_300)
    assert (await payment(till, paid)).status == "unsure"
    with pytest.raises(NotAllowed):
        await till.hub.resolve(shop, paid.payment.id, "accept", "there is nothing to accept")
    await till.hub.resolve(shop, paid.payment.id, "paid", "on the bank's statement")
    await till.hub.resolve(shop, failed.payment.id, "failed", "not on the bank's statement")
    assert (await payment(till, paid)).status == "paid"
    assert (await payment(till, failed)).status == "failed"
    await on(till, clock, s=7_300)
    assert await due(till) == []


async def test_what_was_unsure_past_its_time_and_turns_out_to_be_open_expires(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    till.bank.fail("start", "lost", "lost")
    late = await till.open(shop, "ORD-1", channel="blind_qr")
    for _ in range(2):
        await on(till, clock, s=7_300)
    assert (await payment(till, late)).status == "unsure"
    early = await till.open(shop, "ORD-2", channel="blind_qr")
    for opened in (late, early):  # the bank sends word that it has the charge, and nobody paid it yet
        await till.told(shop, opened.attempt.id, till.bank.charges[opened.attempt.id])
        assert (await payment(till, opened)).status == "pending"
    await till.worker.drain()
    assert [(await payment(till, one)).status for one in (late, early)] == ["expired", "pending"]
    await till.pay(shop, late)
    assert (await payment(till, late)).late
    await on(till, clock, s=901)
    assert (await payment(till, early)).status == "expired"
    await on(till, clock, s=7_300)  # what is given up is looked at for a last time
    assert await due(till) == []


async def test_a_process_that_died_before_its_call(till: Till, shop: Merchant, clock: Clock) -> None:
    """Cancelling the request stands for the process's death: nothing runs after it."""
    till.bank.fail("start", "hang")
    dying = asyncio.create_task(till.open(shop, "ORD-1", channel="calling_qr"))
    while not till.bank.calls["start"]:
        await asyncio.sleep(0.001)
    dying.cancel()
    await asyncio.wait([dying])
    again = await till.open(shop, "ORD-1", channel="calling_qr")
    assert again.attempt.phase == "created"
    await on(till, clock, s=61)
    assert (await payment(till, again)).status == "failed"  # the bank never got it
    assert await due(till) == []


async def test_a_process_that_died_by_a_bank_that_cannot_be_asked(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    till.bank.fail("start", "hang")
    dying = asyncio.create_task(till.open(shop, "ORD-1", channel="blind_qr"))
    while not till.bank.calls["start"]:
        await asyncio.sleep(0.001)
    dying.cancel()
    await asyncio.wait([dying])
    await on(till, clock, s=61)
    again = await till.open(shop, "ORD-1", channel="blind_qr")
    assert again.payment.status == "unsure"


# --- idempotency keys ---------------------------------------------------------------------------------------


async def test_a_repeated_request_has_its_first_answer(till: Till, shop: Merchant) -> None:
    first = await till.open(shop, "ORD-1", key=key("k"))
    assert first.stored is None
    await till.pay(shop, first)
    again = await till.open(shop, "ORD-1", key=key("k"))
    assert again.stored is not None
    status, body = again.stored
    assert status == 201
    assert body == f"{first.payment.id} pending {first.attempt.show}".encode()
    assert (await till.open(shop, "ORD-1", key=key("k"))).stored == again.stored


async def test_a_key_with_another_body(till: Till, shop: Merchant) -> None:
    await till.open(shop, "ORD-1", key=key("k"))
    with pytest.raises(IdempotencyMismatch):
        await till.open(shop, "ORD-2", key=key("k", "another"))
    assert await kinds(till, shop) == ["payment.pending"]


async def test_one_key_from_many_at_once(till: Till, second: Till, shop: Merchant) -> None:
    made = await asyncio.gather(
        *(side.open(shop, "ORD-1", key=key("k")) for _ in range(10) for side in (till, second))
    )
    assert len({one.payment.id for one in made}) == 1
    assert sum(one.stored is None for one in made) == 1
    assert len({one.stored for one in made if one.stored}) == 1


async def test_a_key_with_two_bodies_at_once_has_one_winner(till: Till, second: Till, shop: Merchant) -> None:
    made = await asyncio.gather(
        *(till.open(shop, f"ORD-{n}", key=key("k", f"body {n}")) for n in range(5)),
        *(second.open(shop, f"ORD-{n}", key=key("k", f"body {n}")) for n in range(5)),
        return_exceptions=True,
    )
    won = {one.payment.id for one in made if isinstance(one, Opened)}
    assert len(won) == 1
    assert {type(one) for one in made if isinstance(one, Exception)} == {IdempotencyMismatch}
    assert await kinds(till, shop) == ["payment.pending"]


async def test_a_request_that_waits_for_the_bank_is_in_flight(
    till: Till, second: Till, shop: Merchant
) -> None:
    till.bank.fail("start", "hang")
    waiting = asyncio.create_task(till.open(shop, "ORD-1", channel="calling_qr", key=key("k")))
    while not till.bank.calls["start"]:
        await asyncio.sleep(0.001)
    for side in (till, second):
        with pytest.raises(InFlight):
            await side.open(shop, "ORD-1", channel="calling_qr", key=key("k"))
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_request_whose_process_died_is_not_in_flight_for_ever(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    till.bank.fail("start", "hang")
    waiting = asyncio.create_task(till.open(shop, "ORD-1", channel="calling_qr", key=key("k")))
    while not till.bank.calls["start"]:
        await asyncio.sleep(0.001)
    waiting.cancel()
    await asyncio.wait([waiting])
    await on(till, clock, s=61)
    answered = await till.open(shop, "ORD-1", channel="calling_qr", key=key("k"))
    assert answered.payment.status == "failed"
    repeated = await till.open(shop, "ORD-1", channel="calling_qr", key=key("k"))
    assert repeated.stored == (201, f"{answered.payment.id} failed None".encode())


async def test_refunds_have_keys_too(till: Till, second: Till, shop: Merchant) -> None:
    opened = await till.paid(shop, "ORD-1")

    def render(_: Payment, made: Refund) -> bytes:
        return made.id.encode()

    made = await asyncio.gather(
        *(
            side.hub.refund(shop, opened.payment.id, 1_000, "why", key("k"), render)
            for _ in range(5)
            for side in (till, second)
        )
    )
    new = [one.refund.id for one in made if one.refund]
    assert len(new) == 1
    assert {one.stored for one in made if one.stored} == {(201, new[0].encode())}
    assert (await payment(till, opened)).refunding_minor == 1_000
    with pytest.raises(IdempotencyMismatch):
        await till.hub.refund(shop, opened.payment.id, 1_001, "why", key("k", "another"), render)


# --- what the bank says -------------------------------------------------------------------------------------


async def test_one_notice_twice(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    for _ in range(3):
        assert (await till.pay(shop, opened, "evt-1")).status == 200
    assert await kinds(till, shop) == ["payment.pending", "payment.paid"]
    verdicts = [row[8] for row in await till.database.read(select(tables.inbound))]
    assert sorted(verdicts) == ["applied", "repeated", "repeated"]


async def test_one_notice_at_two_processes_at_once(till: Till, second: Till, shop: Merchant) -> None:
    opened = [await till.open(shop, f"ORD-{number}") for number in range(10)]
    for one in opened:
        till.bank.pay(one.attempt.id)
    replies = await asyncio.gather(
        *(
            side.told(shop, one.attempt.id, till.bank.charges[one.attempt.id], f"evt-{number}")
            for number, one in enumerate(opened)
            for _ in range(3)
            for side in (till, second)
        )
    )
    assert {one.status for one in replies} == {200}
    assert (await kinds(till, shop)).count("payment.paid") == 10
    assert await books(till, shop) == {"merchant": 100_000, "provider": -100_000}
    verdicts = [row[8] for row in await till.database.read(select(tables.inbound))]
    assert (verdicts.count("applied"), verdicts.count("repeated")) == (10, 50)


async def test_other_notices_of_the_same_money(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    for number in range(3):
        await till.pay(shop, opened, f"evt-{number}")
    assert (await payment(till, opened)).paid_minor == 10_000
    assert await kinds(till, shop) == ["payment.pending", "payment.paid"]


async def test_news_out_of_order(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    for state in ("paid", "pending", "expired", "failed"):
        charge = Charge(10_000, "IDR", state, 10_000 if state == "paid" else 0)
        await till.told(shop, opened.attempt.id, charge, f"evt-{state}")
    assert (await payment(till, opened)).status == "paid"
    told = ["payment.pending", "payment.paid", "payment.discrepancy", "payment.discrepancy"]
    assert await kinds(till, shop) == told  # what is paid stays paid; what was said against it is told


async def test_a_refund_before_anything_was_paid_makes_us_look(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    """It cannot be true yet: the payment's own notice is on its way."""
    opened = await till.open(shop, "ORD-1")
    charge = till.bank.pay(opened.attempt.id)
    charge.refunded_minor = 4_000
    call = notice(opened.attempt.id, charge)
    call = replace(call, body=call.body.replace(b'"event_id": null', b'"only_last": true'))
    assert (await till.hub.receive(shop, shop.account("inviting"), call)).status == 200
    assert (await payment(till, opened)).status == "pending"
    await till.worker.drain()
    found = await payment(till, opened)
    assert (found.status, found.paid_minor, found.refunded_minor) == ("paid", 10_000, 4_000)
    assert await due(till) == []


async def test_a_notice_of_nothing_we_know(till: Till, shop: Merchant) -> None:
    reply = await till.told(shop, "att_nobody", Charge(10_000, "IDR", "paid", 10_000), "evt-1")
    assert reply.status == 200
    [row] = await till.database.read(select(tables.inbound))
    assert row[8] == "unmatched"
    await till.told(shop, "att_nobody", Charge(10_000, "IDR", "paid", 10_000), "evt-1")
    assert await kinds(till, shop) == ["inbound.unmatched"]  # a person has to know, once


async def test_a_notice_that_could_not_be_matched_counts_when_it_can(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    account = shop.account("inviting")
    for operation in ("att_nobody", opened.attempt.id):
        await till.hub.receive(
            shop, account, notice(operation, Charge(10_000, "IDR", "paid", 10_000), "evt-1")
        )
    assert (await payment(till, opened)).status == "paid"


async def test_a_forged_notice_changes_nothing(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    said = Charge(10_000, "IDR", "paid", 10_000)
    call = notice(opened.attempt.id, said, "evt-1", secret="guessed")
    reply = await till.hub.receive(shop, shop.account("inviting"), call)
    assert (reply.status, reply.body) == (401, b"unauthenticated")
    assert (await payment(till, opened)).status == "pending"
    [row] = await till.database.read(select(tables.inbound))
    assert row[8] == "unauthenticated"


async def test_an_account_speaks_of_its_own_money_only(till: Till, shop: Merchant) -> None:
    """Who holds the keys of one account, even of the same merchant, says nothing about another's."""
    opened = await till.open(shop, "ORD-1")
    paid = await till.paid(shop, "ORD-2")
    made = await till.hub.refund(shop, paid.payment.id, 1_000, "why")
    other = await till.merchant("other")
    said = Charge(10_000, "IDR", "paid", 10_000)
    for merchant, account in ((shop, shop.account("calling")), (other, other.account("inviting"))):
        await till.hub.receive(merchant, account, notice(opened.attempt.id, said, "evt-1"))
        await till.hub.receive(merchant, account, notice(made.refund.id, "succeeded", "evt-2"))
    assert (await payment(till, opened)).status == "pending"
    assert (await refund(till, made.refund.id)).phase == "created"
    assert await books(till, other) == {}


async def hint(till: Till, shop: Merchant, opened: Opened, account: str = "inviting") -> None:
    call = notice(opened.attempt.id, Charge(10_000, "IDR"))
    body = call.body.replace(b'"event_id": null', b'"hint": true')
    await till.hub.receive(shop, shop.account(account), replace(call, body=body))


async def test_a_hint_sends_us_to_look(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    till.bank.pay(opened.attempt.id)
    await hint(till, shop, opened)
    assert (await payment(till, opened)).status == "pending"  # it proves nothing
    await till.worker.drain()
    assert (await payment(till, opened)).status == "paid"
    assert await due(till) == []


async def test_a_hint_that_comes_during_a_look_is_not_forgotten(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    """The look that is running has not seen what the hint hints at."""
    till.bank.fail("start", "lost")
    opened = await till.open(shop, "ORD-1", channel="calling_qr")
    clock.on(s=6)
    looking = await begun_look(till)
    await hint(till, shop, opened, "calling")
    till.bank.pay(opened.attempt.id)
    till.bank.go_on.set()
    await looking  # without any time passing
    assert till.bank.calls["look"] == 2
    assert (await payment(till, opened)).status == "paid"


async def test_a_look_that_finds_it_paid_does_not_end_what_a_hint_wished_since(
    till: Till, shop: Merchant
) -> None:
    """The bank gives some back while the look that will find the payment is under way."""
    opened = await till.open(shop, "ORD-1")
    till.bank.pay(opened.attempt.id)
    await hint(till, shop, opened)
    slow = await begun_look(till)
    till.bank.charges[opened.attempt.id].refunded_minor += 500
    await hint(till, shop, opened)
    till.bank.go_on.set()
    await slow  # without any time passing
    found = await payment(till, opened)
    assert (found.paid_minor, found.refunded_minor) == (10_000, 500)
    assert await due(till) == []


async def test_a_look_that_ends_last_does_not_end_a_later_one(
    till: Till, second: Till, shop: Merchant, clock: Clock
) -> None:
    """What the later one found can only be booked after a refund of ours: it has to be looked for again."""
    opened = await till.paid(shop, "ORD-1")
    till.bank.refunds_end = "pending"
    made = await till.hub.refund(shop, opened.payment.id, 4_000, "why")
    await till.worker.drain()
    await hint(till, shop, opened)
    slow = await begun_look(till)
    clock.on(s=1)
    till.bank.charges[opened.attempt.id].refunded_minor += 500  # on the bank's own pages
    await hint(till, shop, opened)
    await second.worker.drain()
    assert till.bank.calls["look"] == 2
    till.bank.go_on.set()
    await slow
    till.bank.end_refund(made.refund.id, "succeeded")
    await till.told(shop, made.refund.id, "succeeded")
    await on(till, clock, s=7_300)
    assert (await payment(till, opened)).refunded_minor == 4_500
    assert await due(till) == []


@pytest.mark.parametrize("total", [9_000, 11_000])
async def test_a_wrong_amount_is_held_until_an_operator_accepts_it(
    till: Till, shop: Merchant, total: int
) -> None:
    opened = await till.open(shop, "ORD-1")
    said = Charge(10_000, "IDR", "paid", total)
    await till.told(shop, opened.attempt.id, said, "evt-1")
    assert (await payment(till, opened)).hold == "amount_mismatch"
    assert await books(till, shop) == {"held": total, "provider": -total}
    await till.worker.drain()
    assert till.sink.got == []  # nothing to be fulfilled yet
    with pytest.raises(RefundNotAllowed):
        await till.hub.refund(shop, opened.payment.id, 1_000, "why")
    accepted = await till.hub.resolve(shop, opened.payment.id, "accept", "the boss said so")
    assert accepted.status == "paid"
    await till.told(shop, opened.attempt.id, said, "evt-2")  # told again, and again
    assert (await payment(till, opened)).status == "paid"
    assert await books(till, shop) == {"merchant": total, "provider": -total}
    await till.worker.drain()
    assert len(till.sink.got) == 1


async def test_foreign_money_is_held_as_it_came(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    said = Charge(10_000, "MYR", "paid", 10_000)
    for number in range(3):
        await till.told(shop, opened.attempt.id, said, f"evt-{number}")
    held = await payment(till, opened)
    assert (held.status, held.hold, held.paid_minor) == ("review", "currency_mismatch", 0)
    rows = {(name, currency): amount for name, currency, amount in await till.kit.reads.balances(shop.id)}
    assert rows["held", "MYR"] == 10_000
    assert rows[f"provider:{opened.payment.account_id}", "MYR"] == -10_000
    with pytest.raises(NotAllowed):
        await till.hub.resolve(shop, opened.payment.id, "accept", "take it")
    free = await till.hub.resolve(shop, opened.payment.id, "failed", "it was sent back")
    await till.told(shop, opened.attempt.id, said, "evt-9")
    assert (free.status, (await payment(till, opened)).status) == ("pending", "pending")


# --- refunds ------------------------------------------------------------------------------------------------


async def test_a_refund_goes_out_and_comes_through(till: Till, shop: Merchant) -> None:
    opened = await till.paid(shop, "ORD-1")
    made = await till.hub.refund(shop, opened.payment.id, 4_000, "wrong size")
    assert (made.payment.refunding_minor, made.refund.phase) == (4_000, "created")
    assert await books(till, shop) == {"merchant": 6_000, "refunding": 4_000, "provider": -10_000}
    await till.worker.drain()
    assert (await refund(till, made.refund.id)).phase == "succeeded"
    assert till.bank.refunds[made.refund.id][1:] == (4_000, "succeeded")
    after = await payment(till, opened)
    assert (after.refunding_minor, after.refunded_minor) == (0, 4_000)
    assert await books(till, shop) == {"merchant": 6_000, "provider": -6_000}
    assert await due(till) == []


async def test_fifty_refunds_at_once_never_exceed_the_payment(
    till: Till, second: Till, shop: Merchant
) -> None:
    opened = await till.paid(shop, "ORD-1", 10_000)
    made = await asyncio.gather(
        *(
            side.hub.refund(shop, opened.payment.id, 700, f"number {number}")
            for number in range(25)
            for side in (till, second)
        ),
        return_exceptions=True,
    )
    refused = [one for one in made if isinstance(one, Exception)]
    assert len(made) - len(refused) == 14
    assert {type(one) for one in refused} == {RefundNotAllowed}
    await asyncio.gather(till.worker.drain(), second.worker.drain())
    after = await payment(till, opened)
    assert (after.refunded_minor, after.refunding_minor) == (9_800, 0)
    assert till.bank.charges[opened.attempt.id].refunded_minor == 9_800
    assert len(till.bank.refunds) == 14


async def test_a_refund_that_the_bank_refuses_can_be_asked_for_again(till: Till, shop: Merchant) -> None:
    opened = await till.paid(shop, "ORD-1")
    till.bank.fail("refund", "declined")
    first = await till.hub.refund(shop, opened.payment.id, 10_000, "why")
    await till.worker.drain()
    assert (await refund(till, first.refund.id)).phase == "failed"
    again = await till.hub.refund(shop, opened.payment.id, 10_000, "why")
    await till.worker.drain()
    assert (await refund(till, again.refund.id)).phase == "succeeded"
    assert await books(till, shop) == {}
    assert await due(till) == []


@pytest.mark.parametrize("lost", ["lost", "never_got", "broken"])
@pytest.mark.parametrize("looks", [[], ["unreachable"], ["never_got", "declined"], ["broken"]])
async def test_a_refund_whose_answer_was_lost_goes_out_once(
    till: Till, shop: Merchant, clock: Clock, lost: str, looks: list[str]
) -> None:
    """However the look goes wrong, too: the bank gives the money back exactly once."""
    opened = await till.paid(shop, "ORD-1")
    till.bank.fail("refund", lost)
    till.bank.fail("look_refund", *looks)
    made = await till.hub.refund(shop, opened.payment.id, 4_000, "why")
    await till.worker.drain()
    assert (await refund(till, made.refund.id)).phase == "unsure"
    assert (await payment(till, opened)).refunding_minor == 4_000
    for _ in range(6):
        await on(till, clock, s=120)
    assert (await refund(till, made.refund.id)).phase == "succeeded"
    assert till.bank.charges[opened.attempt.id].refunded_minor == 4_000
    assert await due(till) == []


@pytest.mark.parametrize("looks", [[], ["unreachable"], ["declined"], ["never_got"], ["broken"]])
async def test_a_refund_whose_worker_died_goes_out_once(
    till: Till, shop: Merchant, clock: Clock, looks: list[str]
) -> None:
    """The money is on its way back and nobody has written it down."""
    opened = await till.paid(shop, "ORD-1")
    till.bank.fail("refund", "died")  # done, and then never a word
    till.bank.fail("look_refund", *looks)
    made = await till.hub.refund(shop, opened.payment.id, 4_000, "why")
    dying = asyncio.create_task(till.worker.drain())
    while not till.bank.refunds:
        await asyncio.sleep(0.001)
    dying.cancel()
    await asyncio.wait([dying])
    assert (await refund(till, made.refund.id)).phase == "created"
    for _ in range(6):
        await on(till, clock, s=120)
    assert (await refund(till, made.refund.id)).phase == "succeeded"
    assert (till.bank.calls["refund"], till.bank.charges[opened.attempt.id].refunded_minor) == (1, 4_000)
    assert await due(till) == []


async def test_a_refund_by_a_bank_that_cannot_be_asked_is_never_repeated(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    opened = await till.open(shop, "ORD-1", channel="blind_qr")
    await till.pay(shop, opened)
    till.bank.fail("refund", "never_got")
    made = await till.hub.refund(shop, opened.payment.id, 4_000, "why")
    for _ in range(5):
        await on(till, clock, s=7_300)
    assert (await refund(till, made.refund.id)).phase == "unsure"
    assert till.bank.calls["refund"] == 1
    await till.told(shop, made.refund.id, "succeeded")  # its statement, entered by hand
    assert (await refund(till, made.refund.id)).phase == "succeeded"
    assert await due(till) == []


async def test_a_refund_waits_for_a_bank_that_cannot_be_reached(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    opened = await till.paid(shop, "ORD-1")
    till.bank.fail("refund", "unreachable", "unreachable", "unreachable")
    made = await till.hub.refund(shop, opened.payment.id, 4_000, "why")
    await till.worker.drain()
    assert (await refund(till, made.refund.id)).phase == "created"
    for _ in range(5):
        await on(till, clock, s=30)
    assert (await refund(till, made.refund.id)).phase == "succeeded"
    assert (till.bank.calls["refund"], till.bank.calls["look_refund"]) == (4, 0)


async def test_a_refund_that_ends_later_is_told_or_found(till: Till, shop: Merchant, clock: Clock) -> None:
    till.bank.refunds_end = "pending"
    opened = await till.paid(shop, "ORD-1")
    told = await till.hub.refund(shop, opened.payment.id, 1_000, "by notice")
    found = await till.hub.refund(shop, opened.payment.id, 2_000, "by looking")
    failed = await till.hub.refund(shop, opened.payment.id, 3_000, "fails later")
    await till.worker.drain()
    for one in (told, found, failed):
        assert (await refund(till, one.refund.id)).phase == "pending"
    till.bank.end_refund(told.refund.id, "succeeded")
    for _ in range(2):
        await till.told(shop, told.refund.id, "succeeded", "evt-1")
    assert (await refund(till, told.refund.id)).phase == "succeeded"
    till.bank.end_refund(found.refund.id, "succeeded")
    till.bank.end_refund(failed.refund.id, "failed")
    for _ in range(3):
        await on(till, clock, s=30)
    assert (await refund(till, found.refund.id)).phase == "succeeded"
    assert (await refund(till, failed.refund.id)).phase == "failed"
    after = await payment(till, opened)
    assert (after.refunded_minor, after.refunding_minor, after.refundable_minor) == (3_000, 0, 7_000)
    assert await due(till) == []


async def test_refunds_go_one_at_a_time_where_the_bank_wants_that(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    till.bank.parallel_refunds = False
    till.bank.refunds_end = "pending"
    opened = await till.paid(shop, "ORD-1")
    made = []
    for amount in (1_000, 2_000, 3_000):
        made.append(await till.hub.refund(shop, opened.payment.id, amount, "why"))
        clock.on(ms=1)
    await till.worker.drain()
    assert list(till.bank.refunds) == [made[0].refund.id]
    for number, one in enumerate(made, 1):
        till.bank.end_refund(one.refund.id, "succeeded")
        for _ in range(4):
            await on(till, clock, s=150)
        assert len(till.bank.refunds) == min(number + 1, 3)
    assert (await payment(till, opened)).refunded_minor == 6_000
    assert await due(till) == []


async def test_the_bank_gave_money_back_by_itself(till: Till, shop: Merchant) -> None:
    opened = await till.paid(shop, "ORD-1")
    charge = till.bank.charges[opened.attempt.id]
    charge.refunded_minor = 2_500
    await till.told(shop, opened.attempt.id, charge, "evt-2")
    after = await payment(till, opened)
    assert (after.refunded_minor, after.refundable_minor) == (2_500, 7_500)
    assert await books(till, shop) == {"merchant": 7_500, "provider": -7_500}


async def test_the_bank_gave_money_back_while_a_refund_of_ours_runs(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    """Its total does not say which is which: we wait for ours to end, then look, and book the rest."""
    till.bank.refunds_end = "pending"
    opened = await till.paid(shop, "ORD-1")
    ours = await till.hub.refund(shop, opened.payment.id, 4_000, "why")
    await till.worker.drain()
    charge = till.bank.charges[opened.attempt.id]
    charge.refunded_minor += 1_000  # from the bank's own back office
    await till.told(shop, opened.attempt.id, charge, "evt-2")
    assert (await payment(till, opened)).refunded_minor == 0
    till.bank.end_refund(ours.refund.id, "succeeded")
    for _ in range(8):
        await on(till, clock, s=120)
    after = await payment(till, opened)
    assert (after.refunded_minor, after.refunding_minor) == (5_000, 0)
    assert charge.refunded_minor == 5_000
    assert await due(till) == []


async def test_a_refund_said_to_have_failed_after_it_succeeded(till: Till, shop: Merchant) -> None:
    opened = await till.paid(shop, "ORD-1")
    made = await till.hub.refund(shop, opened.payment.id, 4_000, "why")
    await till.worker.drain()
    await till.told(shop, made.refund.id, "failed", "evt-9")
    held = await payment(till, opened)
    assert (held.status, held.hold) == ("review", "over_refunded")
    assert (await refund(till, made.refund.id)).phase == "succeeded"


@pytest.mark.parametrize("amount", [0, -1, 10_001, 10**18])
async def test_a_refund_of_too_much_or_too_little(till: Till, shop: Merchant, amount: int) -> None:
    opened = await till.paid(shop, "ORD-1")
    with pytest.raises(RefundNotAllowed):
        await till.hub.refund(shop, opened.payment.id, amount, "why")


async def test_another_merchants_payment_is_not_found(till: Till, shop: Merchant) -> None:
    opened = await till.paid(shop, "ORD-1")
    other = await till.merchant("other")
    for call in (
        till.hub.refund(other, opened.payment.id, 1_000, "mine now"),
        till.hub.cancel(other, opened.payment.id),
        till.hub.resolve(other, opened.payment.id, "accept", "mine now"),
    ):
        with pytest.raises(NotFound):
            await call
    same_order = await till.open(other, "ORD-1")
    assert same_order.payment.id != opened.payment.id


# --- cancelling ---------------------------------------------------------------------------------------------


async def test_a_merchant_cancels(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    assert (await till.hub.cancel(shop, opened.payment.id)).status == "cancelled"
    assert (await till.hub.cancel(shop, opened.payment.id)).status == "cancelled"
    assert till.bank.charges[opened.attempt.id].state == "cancelled"
    assert await books(till, shop) == {}
    assert await due(till) == []


async def test_a_payer_is_quicker_than_a_cancellation(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    till.bank.pay(opened.attempt.id)
    with pytest.raises(NotAllowed):
        await till.hub.cancel(shop, opened.payment.id)
    assert (await payment(till, opened)).status == "paid"


async def test_a_cancellation_that_the_bank_does_not_hear(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    till.bank.fail("cancel", "unreachable")
    with pytest.raises(Unreachable):
        await till.hub.cancel(shop, opened.payment.id)
    assert (await payment(till, opened)).status == "pending"


@pytest.mark.parametrize("look", ["broken", "never_got", "unreachable"])
async def test_a_refused_cancellation_that_cannot_be_looked_up(till: Till, shop: Merchant, look: str) -> None:
    opened = await till.open(shop, "ORD-1")
    till.bank.fail("cancel", "declined")
    till.bank.fail("look", look)
    with pytest.raises(Unreachable if look == "unreachable" else Unsure):
        await till.hub.cancel(shop, opened.payment.id)
    assert (await payment(till, opened)).status == "pending"
    assert (await till.hub.cancel(shop, opened.payment.id)).status == "cancelled"


# --- due work -----------------------------------------------------------------------------------------------


async def test_two_workers_share_due_work(till: Till, second: Till, shop: Merchant, clock: Clock) -> None:
    opened = [await till.open(shop, f"ORD-{number}") for number in range(60)]
    clock.on(s=901)
    await asyncio.gather(*(side.worker.drain() for side in (till, second)))
    assert {(await payment(till, one)).status for one in opened} == {"expired"}
    assert till.bank.calls["cancel"] == 60
    assert await due(till) == []


async def test_work_that_was_cut_off_comes_up_again(till: Till, shop: Merchant, clock: Clock) -> None:
    opened = await till.open(shop, "ORD-1")
    till.bank.fail("cancel", "hang")
    clock.on(s=901)
    dying = asyncio.create_task(till.worker.drain())
    while not till.bank.calls["cancel"]:
        await asyncio.sleep(0.001)
    dying.cancel()
    await asyncio.wait([dying])
    await on(till, clock, s=30)
    assert (await payment(till, opened)).status == "pending"  # somebody may still be at it
    await on(till, clock, s=31)
    assert (await payment(till, opened)).status == "expired"


async def test_an_order_is_compared_with_the_first(till: Till, shop: Merchant) -> None:
    await till.open(shop, "ORD-1")
    for other in ({"amount_minor": 20_000}, {"channel": "calling_qr"}):
        with pytest.raises(OrderConflict):
            await till.open(shop, "ORD-1", **other)


async def test_what_nobody_can_answer_is_said(till: Till, shop: Merchant) -> None:
    with pytest.raises(Exception, match="wallet"):
        await till.hub.open(shop, Intent("ORD-1", 1_000, "IDR", "no such"), None, None)
