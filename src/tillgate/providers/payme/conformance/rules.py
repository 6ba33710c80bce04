"""What the manual says beyond the sandbox's steps: forbidden moves, time-out, statement, many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tillgate.conform import Check, Failed, Payable, Skipped, Wire, expect
from tillgate.providers.payme.conformance.client import (
    CANNOT_PERFORM,
    NO_TRANSACTION,
    REFUSES,
    Client,
    Said,
    new_id,
    now_ms,
    same_bytes,
)

LIFETIME_MS = 43_200_000
CROWD = 20
CLOCK_SLACK_MS = 120_000

# --- moves that are not allowed -----------------------------------------------------------------------------


def unknown(method: str) -> Callable[[Wire], Awaitable[None]]:
    async def run(wire: Wire) -> None:
        params: dict[str, Any] = {"id": new_id()}
        if method == "CancelTransaction":
            params["reason"] = 3
        await Client(wire).refused(method, params, NO_TRANSACTION, "there is no such transaction")

    return run


async def perform_after_cancel(wire: Wire) -> None:
    client = Client(wire)
    params = await client.create(await client.order())
    await client.result("CancelTransaction", {"id": params["id"], "reason": 3})
    why = "the transaction was cancelled"
    await client.refused("PerformTransaction", {"id": params["id"]}, CANNOT_PERFORM, why)
    await client.stands(params["id"], -1)


async def perform_after_refund(wire: Wire) -> None:
    client = Client(wire)
    params = await client.perform(await client.order())
    await client.result("CancelTransaction", {"id": params["id"], "reason": 5})
    why = "its money was given back"
    await client.refused("PerformTransaction", {"id": params["id"]}, CANNOT_PERFORM, why)
    await client.stands(params["id"], -2)


async def create_after_end(wire: Wire) -> None:
    client = Client(wire)
    params = await client.create(await client.order())
    await client.result("CancelTransaction", {"id": params["id"], "reason": 3})
    await client.refused("CreateTransaction", params, CANNOT_PERFORM, "the transaction was cancelled")
    params = await client.perform(await client.order())
    await client.refused("CreateTransaction", params, CANNOT_PERFORM, "the transaction was performed")


async def first_reason_stays(wire: Wire) -> None:
    client = Client(wire)
    params = await client.create(await client.order())
    first = await client.result("CancelTransaction", {"id": params["id"], "reason": 3})
    again = await client.result("CancelTransaction", {"id": params["id"], "reason": 10})
    expect(again == first, f"the second cancellation was answered {again}, the first {first}")
    found = await client.stands(params["id"], -1)
    expect(found.get("reason") == 3, f"reason is {found.get('reason')!r}, the first one was 3")


async def reason_three_after_perform(wire: Wire) -> None:
    client = Client(wire)
    params = await client.perform(await client.order())
    done = await client.result("CancelTransaction", {"id": params["id"], "reason": 3})
    expect(done.get("state") == -2, f"a performed transaction went to {done.get('state')!r}, not -2")


async def paid_again(wire: Wire) -> None:
    client = Client(wire)
    if not client.settings.one_time:
        raise Skipped("an accumulative account is paid many times")
    order = await client.order()
    await client.perform(order)
    params = {"amount": order.amount_minor, "account": dict(order.account)}
    why = "the order is paid"
    await client.refused("CheckPerformTransaction", params, REFUSES, why)
    await client.refused("CreateTransaction", client.creation(order), REFUSES, why)


async def payable_after_cancel(wire: Wire) -> None:
    client = Client(wire)
    order = await client.order()
    params = await client.create(order)
    await client.result("CancelTransaction", {"id": params["id"], "reason": 3})
    await client.perform(order)


async def other_account(wire: Wire) -> None:
    client = Client(wire)
    one, two = await client.order(), await client.order()
    if one.account == two.account:
        raise Skipped("needs two different accounts")
    params = await client.create(one)
    stolen = {**params, "account": dict(two.account), "amount": two.amount_minor}
    codes = (*REFUSES, -31001)
    await client.refused("CreateTransaction", stolen, codes, "this transaction belongs to another account")


# --- time ---------------------------------------------------------------------------------------------------


async def times_are_now(wire: Wire) -> None:
    client = Client(wire)
    params = await client.perform(await client.order())
    await client.result("CancelTransaction", {"id": params["id"], "reason": 5})
    found, now = await client.look(params["id"]), now_ms()
    for name in ("create_time", "perform_time", "cancel_time"):
        away = abs(found.get(name, 0) - now)
        expect(away < CLOCK_SLACK_MS, f"{name} is {away / 3_600_000:.1f} h away from now (UTC)")


async def expires(wire: Wire) -> None:
    client = Client(wire)
    order = await client.order()
    params = await client.create(order, time=now_ms() - LIFETIME_MS + 3000)
    await asyncio.sleep(3.2)
    why = "Payme made it more than 12 hours ago"
    await client.refused("PerformTransaction", {"id": params["id"]}, CANNOT_PERFORM, why)
    found = await client.stands(params["id"], -1)
    expect(found.get("reason") == 4, f"reason is {found.get('reason')!r}, 4 (time-out) was due")
    await client.refused("CreateTransaction", params, CANNOT_PERFORM, why)
    if client.settings.one_time:
        await client.create(order)  # an abandoned transaction holds nothing


# --- statement ----------------------------------------------------------------------------------------------


async def statement_row(wire: Wire) -> None:
    client = Client(wire)
    order = await client.order()
    params = client.creation(order, time=now_ms() - 5_000)
    made = await client.result("CreateTransaction", params)
    await client.result("PerformTransaction", {"id": params["id"]})
    await client.result("CancelTransaction", {"id": params["id"], "reason": 5})
    found = await client.look(params["id"])
    row = one_row(await client.statement(params["time"], params["time"]), params["id"])
    due = {
        "time": params["time"],
        "amount": params["amount"],
        "account": params["account"],
        "transaction": made.get("transaction"),
        **{
            name: found.get(name)
            for name in ("create_time", "perform_time", "cancel_time", "state", "reason")
        },
    }
    for name, value in due.items():
        expect(row.get(name) == value, f"the row's {name} is {row.get(name)!r}, not {value!r}")


async def statement_window(wire: Wire) -> None:
    client = Client(wire)
    begin = now_ms() - 60_000
    times = [begin + 30, begin + 10, begin + 20]
    ids = [(await client.create(await client.order(), time=moment))["id"] for moment in times]
    rows = await client.statement(begin + 10, begin + 30)
    got = [row.get("id") for row in rows if row.get("id") in ids]
    expect(
        got == [ids[1], ids[2], ids[0]],
        "the rows are not exactly those between, in the order of Payme's time",
    )
    moments = [row.get("time") or 0 for row in rows]
    expect(moments == sorted(moments), "the rows are not in the order of their time")
    inside = await client.statement(begin + 11, begin + 29)
    expect([row.get("id") for row in inside if row.get("id") in ids] == [ids[2]], "the bounds are not kept")


async def statement_empty(wire: Wire) -> None:
    client = Client(wire)
    expect(await client.statement(10**12, 10**12 + 1) == [], "a time without transactions has rows")
    expect(isinstance(await client.statement(0, 10**13 - 1), list), "a long window is refused")


# --- many at once -------------------------------------------------------------------------------------------


async def crowd_creates(wire: Wire) -> None:
    client = Client(wire)
    params = client.creation(await client.order())
    said = await client.at_once("CreateTransaction", params, CROWD)
    same_bytes("CreateTransaction", said)
    expect(all(one.error is None for one in said), "a repeat was refused")
    day = 86_400_000
    rows = await client.statement(params["time"] - day, params["time"] + day)
    expect(sum(row.get("id") == params["id"] for row in rows) < 2, "the statement has it more than once")


async def crowd_performs(wire: Wire) -> None:
    client = Client(wire)
    params = await client.create(await client.order())
    said = await client.at_once("PerformTransaction", {"id": params["id"]}, CROWD)
    same_bytes("PerformTransaction", said)
    expect(all(one.error is None for one in said), "a repeat was refused")


async def crowd_cancels(wire: Wire) -> None:
    client = Client(wire)
    params = await client.perform(await client.order())
    said = await client.at_once("CancelTransaction", {"id": params["id"], "reason": 5}, CROWD)
    same_bytes("CancelTransaction", said)
    expect(all(one.error is None for one in said), "a repeat was refused")


async def crowd_rivals(wire: Wire) -> None:
    client = Client(wire)
    if not client.settings.one_time:
        raise Skipped("an accumulative account takes them all")
    order = await client.order()
    said = await rivals(client, order)
    accepted = sum(one.error is None for one in said)
    expect(accepted == 1, f"{accepted} of {CROWD} different transactions hold one order")


async def rivals(client: Client, order: Payable) -> list[Said]:
    asks = (client.ask("CreateTransaction", client.creation(order)) for _ in range(CROWD))
    return list(await asyncio.gather(*asks))


async def perform_against_cancel(wire: Wire) -> None:
    client = Client(wire)
    params = await client.create(await client.order())
    perform = [client.ask("PerformTransaction", {"id": params["id"]}) for _ in range(5)]
    cancel = [client.ask("CancelTransaction", {"id": params["id"], "reason": 3}) for _ in range(5)]
    said = await asyncio.gather(*perform, *cancel)
    performs = [one.error is None for one in said[:5]]
    found = await client.look(params["id"])
    expect(
        found.get("state") in (-1, -2),
        f"after Perform and Cancel at once the state is {found.get('state')!r}",
    )
    if found.get("state") == -1:
        expect(not any(performs), "PerformTransaction was confirmed, but the transaction was never performed")
    else:
        expect(any(performs), "the transaction was performed and given back, but every Perform was refused")


def one_row(rows: list[dict[str, Any]], transaction_id: str) -> dict[str, Any]:
    found = [row for row in rows if row.get("id") == transaction_id]
    if len(found) != 1:
        raise Failed(f"the statement has {len(found)} rows of the transaction")
    return found[0]


STATES, TIME, BOOKS, CROWDS = "allowed moves", "time", "statement", "many at once"
METHODS = "Merchant API, methods"

CHECKS: tuple[Check, ...] = (
    *(
        Check(
            f"unknown.{method}",
            f"{method} of an unknown id is answered -31003",
            METHODS,
            unknown(method),
            STATES,
        )
        for method in ("PerformTransaction", "CancelTransaction", "CheckTransaction")
    ),
    Check(
        "perform.after-cancel",
        "a cancelled transaction cannot be performed (-31008)",
        "Merchant API, data types: -1 is final",
        perform_after_cancel,
        STATES,
    ),
    Check(
        "perform.after-refund",
        "a refunded transaction cannot be performed again (-31008)",
        "Merchant API, data types: -2 is final",
        perform_after_refund,
        STATES,
    ),
    Check(
        "create.after-end",
        "CreateTransaction of a performed or cancelled transaction is answered -31008",
        f"{METHODS}: CreateTransaction",
        create_after_end,
        STATES,
    ),
    Check(
        "cancel.first-reason",
        "a repeated cancellation keeps the first reason and time",
        f"{METHODS}: CancelTransaction",
        first_reason_stays,
        STATES,
    ),
    Check(
        "cancel.reason-3",
        "a performed transaction goes to -2 whatever the reason",
        "Merchant API, data types: states",
        reason_three_after_perform,
        STATES,
    ),
    Check(
        "order.paid-again",
        "a paid one-time order can be neither checked nor reserved again",
        f"{METHODS}: CheckPerformTransaction, CreateTransaction",
        paid_again,
        STATES,
    ),
    Check(
        "order.after-cancel",
        "an order whose transaction was cancelled before payment can be paid by another",
        f"{METHODS}: CancelTransaction",
        payable_after_cancel,
        STATES,
    ),
    Check(
        "create.other-account",
        "a transaction's id cannot be used for another account",
        f"{METHODS}: CreateTransaction",
        other_account,
        STATES,
    ),
    Check(
        "time.utc",
        "create_time, perform_time and cancel_time are now, in UTC",
        "Merchant API, data types: Timestamp",
        times_are_now,
        TIME,
    ),
    Check(
        "time.12-hours",
        "12 hours after Payme's time a transaction is cancelled with reason 4 and cannot be performed",
        f"{METHODS}: CreateTransaction",
        expires,
        TIME,
    ),
    Check(
        "statement.row",
        "a row tells what was asked and answered",
        f"{METHODS}: GetStatement",
        statement_row,
        BOOKS,
    ),
    Check(
        "statement.window",
        "GetStatement goes by Payme's time, bounds included, oldest first",
        f"{METHODS}: GetStatement",
        statement_window,
        BOOKS,
    ),
    Check(
        "statement.empty",
        "a window without transactions gives an empty list",
        f"{METHODS}: GetStatement",
        statement_empty,
        BOOKS,
    ),
    Check(
        "crowd.create",
        f"{CROWD} identical CreateTransactions at once make one transaction and one answer",
        "Merchant API, interaction: a lost answer is asked for again",
        crowd_creates,
        CROWDS,
    ),
    Check(
        "crowd.perform",
        f"{CROWD} identical PerformTransactions at once get one answer",
        "Merchant API, interaction: a lost answer is asked for again",
        crowd_performs,
        CROWDS,
    ),
    Check(
        "crowd.cancel",
        f"{CROWD} identical CancelTransactions at once get one answer",
        "Merchant API, interaction: a lost answer is asked for again",
        crowd_cancels,
        CROWDS,
    ),
    Check(
        "crowd.rivals",
        f"of {CROWD} different transactions at once on a one-time order one is made",
        "sandbox, scenario 1, step 5",
        crowd_rivals,
        CROWDS,
    ),
    Check(
        "crowd.perform-cancel",
        "Perform and Cancel at once end in -1 or -2, and the answers agree with it",
        "Merchant API, data types: states",
        perform_against_cancel,
        CROWDS,
    ),
)
