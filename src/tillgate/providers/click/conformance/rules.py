"""What the manual says beyond the matrix: shapes, repeats, lost answers, many at once, money to the tiyin."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from tillgate.conform import Check, Skipped, Wire, expect
from tillgate.providers.click.conformance.client import (
    COMPLETE,
    DEBIT_FAILED,
    PREPARE,
    REFUSED,
    Client,
    must,
    som,
)

CROWD: Final = 20
REQUESTS, ERRORS = "Click, SHOP API: requests", "Click, SHOP API: errors"


# --- the shape of answers -----------------------------------------------------------------------------------


async def prepare_shape(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.begin()
    answer = await client.prepare(transaction)
    _echoes(answer, transaction.trans_id, transaction.order)
    await client.release(transaction)


async def complete_shape(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.begin()
    answer = await client.pay(transaction)
    _echoes(answer, transaction.trans_id, transaction.order)
    expect("merchant_confirm_id" in answer, "merchant_confirm_id is missing (NULL is allowed)")
    given = answer["merchant_confirm_id"]
    expect(given is None or type(given) is int, f"merchant_confirm_id is {given!r}, not an int")


def _echoes(answer: dict[str, object], trans_id: int, order: str) -> None:
    given = answer.get("click_trans_id")
    expect(
        given == trans_id and type(given) is int, f"click_trans_id is {given!r}, not the number {trans_id}"
    )
    given = answer.get("merchant_trans_id")
    expect(given == order, f"merchant_trans_id is {given!r}, not {order!r}")


# --- repeats and lost answers -------------------------------------------------------------------------------


async def prepare_repeated(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.begin()
    first = await client.prepare(transaction)
    again = await client.prepare(transaction)
    expect(first == again, f"the second answer was {again}, the first {first}")
    await client.release(transaction)


async def prepare_crowd(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.begin()
    answers = await client.at_once(client.signed(client.fields(transaction, PREPARE)), CROWD)
    for answer in answers:
        must(answer, (0,), f"{CROWD} times the same Prepare at once")
    ids = {str(answer.get("merchant_prepare_id")) for answer in answers}
    expect(len(ids) == 1, f"{len(ids)} different merchant_prepare_id for one transaction")
    transaction.prepare_id = answers[0].get("merchant_prepare_id")
    await client.complete(transaction, (0,), "Complete after them")


async def complete_crowd(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.begin()
    await client.prepare(transaction)
    answers = await client.at_once(client.signed(client.fields(transaction, COMPLETE)), CROWD)
    for answer in answers:
        must(answer, (0, -4), f"{CROWD} times the same Complete at once")
    expect(any(answer["error"] == 0 for answer in answers), "none of them was answered 0")


async def orders_crowd(wire: Wire) -> None:
    client = Client(wire)
    _one_time(client, "a standing account takes many payments")
    order = await client.settings.orders()
    crowd = [await client.begin(order) for _ in range(CROWD)]
    forms = [client.signed(client.fields(transaction, PREPARE)) for transaction in crowd]
    answers = await asyncio.gather(*(client.ask(form) for form in forms))
    taken = sum(answer["error"] == 0 for answer in answers)
    expect(taken == 1, f"one order was reserved for {taken} transactions")


async def lost_complete(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.begin()
    await client.pay(transaction)  # as if its answer had been lost
    answer = await client.ask(client.signed(client.fields(transaction, PREPARE)))
    must(answer, (-4, 0), "Prepare again, after a Complete whose answer was lost")
    await client.complete(transaction, (-4, 0), "and Complete again")


async def unsent_complete(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.begin()
    await client.prepare(transaction)
    await client.prepare(transaction)
    await client.complete(transaction, (0,), "Complete after two Prepares")


async def lost_prepare(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.begin()
    await client.prepare(transaction)
    transaction.prepare_id = None  # as if its answer had been lost
    await client.complete(transaction, (-9,), "a cancellation without a prepare id", error=DEBIT_FAILED)


# --- moves that are not allowed -----------------------------------------------------------------------------


async def no_prepare(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.begin()
    transaction.prepare_id = 1
    await client.complete(transaction, (-6, -5), "Complete without a Prepare")
    answer = await client.prepare(transaction)
    must(answer, (0,), "the order is still unpaid after it")
    await client.release(transaction)


async def foreign_prepare_id(wire: Wire) -> None:
    client = Client(wire)
    one, other = await client.begin(), await client.begin()
    await client.prepare(one)
    await client.prepare(other)
    if one.prepare_id == other.prepare_id and one.order == other.order:
        raise Skipped("it needs two accounts")
    expect(one.prepare_id != other.prepare_id, "the Prepares of two orders have one merchant_prepare_id")
    why = "Complete with the merchant_prepare_id of another order's transaction"
    await client.complete(one, (-6,), why, merchant_prepare_id=str(other.prepare_id))
    for transaction in (one, other):
        await client.complete(transaction, (0,), "Complete with its own, after it")


async def other_order(wire: Wire) -> None:
    client = Client(wire)
    transaction, other = await client.begin(), await client.begin()
    await client.prepare(transaction)
    named, amount = other.order, other.amount
    if named == transaction.order:  # one standing account is all there is
        named = client.settings.missing
    codes = (-5, -6) if amount == transaction.amount else (-5, -6, -2)
    why = "Complete that names another order than its Prepare"
    await client.complete(transaction, codes, why, merchant_trans_id=named, amount=amount)
    await client.prepare(other)  # it is still unpaid
    await client.release(other)
    await client.complete(transaction, (0,), "Complete of the order that was prepared, after it")


async def paid_again(wire: Wire) -> None:
    client = Client(wire)
    _one_time(client, "a standing account takes many payments")
    order = await client.settings.orders()
    await client.pay(await client.begin(order))
    other = await client.begin(order)
    answer = await client.ask(client.signed(client.fields(other, PREPARE)))
    must(answer, (-4,), "Prepare of a paid order by another transaction")


async def second_payer(wire: Wire) -> None:
    client = Client(wire)
    _one_time(client, "a standing account takes many payments")
    order = await client.settings.orders()
    transaction, other = await client.begin(order), await client.begin(order)
    await client.prepare(transaction)
    answer = await client.ask(client.signed(client.fields(other, PREPARE)))
    must(answer, REFUSED, "Prepare of a reserved order by another transaction")
    await client.complete(transaction, (0,), "the first one's Complete")


async def freed(wire: Wire) -> None:
    client = Client(wire)
    order = await client.settings.orders()
    transaction = await client.begin(order)
    await client.prepare(transaction)
    await client.release(transaction)
    await client.pay(await client.begin(order))


async def negative_prepare(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.idle()
    answer = await client.ask(client.signed(client.fields(transaction, PREPARE, error="-1")))
    must(answer, (-9,), "Prepare with a negative error")


async def cancelled_stays(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.begin()
    await client.prepare(transaction)
    await client.release(transaction)
    answer = await client.ask(client.signed(client.fields(transaction, PREPARE)))
    must(answer, (-9,), "Prepare of a cancelled transaction")


async def paid_stays(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.begin()
    await client.pay(transaction)
    why = "a negative error after success"
    await client.complete(transaction, (-9,), why, error=DEBIT_FAILED)
    answer = await client.ask(client.signed(client.fields(transaction, PREPARE)))
    must(answer, (-4,), "it is still paid: Prepare")


# --- money --------------------------------------------------------------------------------------------------


def amount(change: Callable[[int], str]) -> Callable[[Wire], Awaitable[None]]:
    async def run(wire: Wire) -> None:
        client = Client(wire)
        transaction = await client.begin()
        tiyin = int(transaction.amount.replace(".", ""))
        wrong = change(tiyin)
        if client.settings.one_time or not wrong.replace(".", "", 1).isdigit():
            answer = await client.ask(client.signed(client.fields(transaction, PREPARE, amount=wrong)))
            must(answer, (-2, -8), f"Prepare of {wrong} som")
        await client.prepare(transaction)
        await client.complete(transaction, (-2, -8), f"Complete of {wrong} som", amount=wrong)
        await client.complete(transaction, (0,), "Complete of the right amount after it")

    return run


async def zeros(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.begin()
    await client.prepare(transaction)
    other = transaction.amount.removesuffix("0").removesuffix(".0") or transaction.amount
    await client.complete(transaction, (0,), f"Complete of {other} som", amount=other)


def _one_time(client: Client, why: str) -> None:
    if not client.settings.one_time:
        raise Skipped(why)


_EXACT = "amounts are compared exactly"
CHECKS: Final = (
    Check("answer.prepare", "Prepare echoes both ids, with an int merchant_prepare_id", REQUESTS,
          prepare_shape, "answers"),
    Check("answer.complete", "Complete echoes both ids, with an int or NULL merchant_confirm_id", REQUESTS,
          complete_shape, "answers"),
    Check("prepare.repeat", "A repeated Prepare is answered the same", REQUESTS, prepare_repeated, "repeats"),
    Check("prepare.crowd", f"{CROWD} equal Prepares at once make one transaction", REQUESTS,
          prepare_crowd, "repeats"),
    Check("complete.crowd", f"{CROWD} equal Completes at once pay once and are no errors", REQUESTS,
          complete_crowd, "repeats"),
    Check("order.crowd", "One order is reserved for one transaction", f"{REQUESTS} (reserve the goods)",
          orders_crowd, "repeats"),
    Check("lost.complete", "After a lost Complete, Prepare and Complete say that it was paid", REQUESTS,
          lost_complete, "lost answers"),
    Check("lost.unsent", "After a Complete that never came, Prepare and Complete go through", REQUESTS,
          unsent_complete, "lost answers"),
    Check("lost.prepare", "Where the answer to Prepare was lost, Click can cancel without its id", ERRORS,
          lost_prepare, "lost answers"),
    Check("moves.no-prepare", "Complete without Prepare pays nothing", REQUESTS, no_prepare, "moves"),
    Check("moves.foreign-prepare-id", "Complete with another order's merchant_prepare_id is -6",
          ERRORS, foreign_prepare_id, "moves"),
    Check("moves.other-order", "A Complete that names another order than its Prepare pays neither", ERRORS,
          other_order, "moves"),
    Check("moves.paid-again", "A paid order is not paid by another transaction", REQUESTS, paid_again,
          "moves"),
    Check("moves.second-payer", "A reserved order is not given to another transaction", REQUESTS,
          second_payer, "moves"),
    Check("moves.freed", "A cancelled order can be paid by a new transaction", REQUESTS, freed, "moves"),
    Check("moves.negative-prepare", "Prepare with a negative error is answered -9", ERRORS,
          negative_prepare, "moves"),
    Check("moves.cancelled-stays", "A cancelled transaction is not prepared again", ERRORS,
          cancelled_stays, "moves"),
    Check("moves.paid-stays", "A negative error after success is -9 and takes nothing back",
          "Click, testing: the Postman matrix, scenarios 7 and 8", paid_stays, "moves"),
    Check("amount.more", f"A tiyin more is -2: {_EXACT}", ERRORS, amount(lambda t: som(t + 1)), "money"),
    Check("amount.less", f"A tiyin less is -2: {_EXACT}", ERRORS, amount(lambda t: som(t - 1)), "money"),
    Check("amount.nan", "`nan` is no amount", ERRORS, amount(lambda t: "nan"), "money"),
    Check("amount.infinity", "`inf` is no amount", ERRORS, amount(lambda t: "inf"), "money"),
    Check("amount.exponent", "`1e9` is no amount", ERRORS, amount(lambda t: "1e9"), "money"),
    Check("amount.negative", "A negative amount is none", ERRORS, amount(lambda t: f"-{som(t)}"), "money"),
    Check("amount.zeros", "5000.5 and 5000.50 are one amount", REQUESTS, zeros, "money"),
)  # fmt: skip
