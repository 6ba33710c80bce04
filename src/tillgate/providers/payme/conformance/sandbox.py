"""The two official scenarios of Payme's sandbox, step by step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tillgate.conform import Check, Wire, expect
from tillgate.providers.payme.conformance.client import (
    ACCOUNT,
    CANNOT_PERFORM,
    FORBIDDEN,
    WRONG_AMOUNT,
    Client,
    is_time,
    new_id,
    now_ms,
    refusal_of,
)

METHODS = (
    "CheckPerformTransaction",
    "CreateTransaction",
    "PerformTransaction",
    "CancelTransaction",
    "CheckTransaction",
    "GetStatement",
)


def forbidden(method: str) -> Callable[[Wire], Awaitable[None]]:
    async def run(wire: Wire) -> None:
        client = Client(wire)
        order = await client.order()
        params: dict[str, Any] = {
            "CheckPerformTransaction": {"amount": order.amount_minor, "account": dict(order.account)},
            "CreateTransaction": client.creation(order),
            "CancelTransaction": {"id": new_id(), "reason": 3},
            "GetStatement": {"from": now_ms() - 1000, "to": now_ms()},
        }.get(method, {"id": new_id()})
        for why, headers in {
            "the password is wrong": client.headers("wrong-" + client.settings.key),
            "the password is empty": client.headers(""),
            "there is no Authorization": {"Content-Type": "text/json; charset=UTF-8"},
            "Authorization is not Base64": {"Authorization": "Basic ???"},
        }.items():
            said = await client.ask(method, params, headers=headers, echoed=False)
            refusal_of(method, said, FORBIDDEN, why)

    return run


async def wrong_login(wire: Wire) -> None:
    client = Client(wire)
    headers = client.headers(login="Somebody")
    said = await client.ask("CheckTransaction", {"id": new_id()}, headers=headers, echoed=False)
    refusal_of("CheckTransaction", said, FORBIDDEN, "the login is not the agreed one")


async def wrong_amount(wire: Wire) -> None:
    client = Client(wire)
    order = await client.order()
    # An accumulative account takes any positive amount.
    amounts = [order.amount_minor - 1, order.amount_minor + 1] if client.settings.one_time else [0]
    for amount in amounts:
        params = {"amount": amount, "account": dict(order.account)}
        why = f"{amount} tiyin is not what is due"
        await client.refused("CheckPerformTransaction", params, WRONG_AMOUNT, why)
        await client.refused("CreateTransaction", client.creation(order, amount=amount), WRONG_AMOUNT, why)


async def missing_account(wire: Wire) -> None:
    client = Client(wire)
    order = await client.order()
    account = dict(client.settings.missing_account or {})
    why = "nobody has this account"
    params = {"amount": order.amount_minor, "account": account}
    await client.refused("CheckPerformTransaction", params, ACCOUNT, why)
    await client.refused("CreateTransaction", client.creation(order, account=account), ACCOUNT, why)


async def allowed(wire: Wire) -> None:
    client = Client(wire)
    order = await client.order()
    params = {"amount": order.amount_minor, "account": dict(order.account)}
    found = await client.result("CheckPerformTransaction", params)
    expect(found.get("allow") is True, f"`allow` is {found.get('allow')!r}, not true")


async def created(wire: Wire) -> None:
    client = Client(wire)
    order = await client.order()
    made = await client.result("CreateTransaction", client.creation(order))
    expect(made.get("state") == 1, f"state is {made.get('state')!r}, not 1")
    expect(is_time(made.get("create_time")), f"create_time {made.get('create_time')!r} is no 13-digit time")
    number = made.get("transaction")
    expect(isinstance(number, str) and number, f"transaction {number!r} is no text")


async def created_twice(wire: Wire) -> None:
    client = Client(wire)
    params = client.creation(await client.order())
    made = await client.repeated("CreateTransaction", params)
    expect(made.get("state") == 1, f"state is {made.get('state')!r}, not 1")


async def created_looked(wire: Wire) -> None:
    client = Client(wire)
    params = client.creation(await client.order())
    made = await client.result("CreateTransaction", params)
    found = await client.stands(params["id"], 1)
    for name in ("create_time", "transaction"):
        expect(found.get(name) == made.get(name), f"{name} is {found.get(name)!r}, was {made.get(name)!r}")
    for name in ("perform_time", "cancel_time"):
        expect(found.get(name) == 0, f"{name} is {found.get(name)!r}, not 0")
    expect("reason" in found and found["reason"] is None, "reason must be null")


async def other_id(wire: Wire) -> None:
    client = Client(wire)
    order = await client.order()
    first = await client.create(order)
    if client.settings.one_time:
        why = "another transaction is waiting for payment on this one-time account"
        await client.refused("CreateTransaction", client.creation(order), CANNOT_PERFORM, why)
    else:
        await client.create(order)
    await client.stands(first["id"], 1)


async def cancelled(wire: Wire) -> None:
    client = Client(wire)
    params = await client.create(await client.order())
    done = await client.repeated("CancelTransaction", {"id": params["id"], "reason": 3})
    expect(done.get("state") == -1, f"state is {done.get('state')!r}, not -1")
    expect(is_time(done.get("cancel_time")), f"cancel_time {done.get('cancel_time')!r} is no 13-digit time")
    found = await client.stands(params["id"], -1)
    expect(found.get("cancel_time") == done.get("cancel_time"), "CheckTransaction tells another cancel_time")
    expect(found.get("reason") == 3, f"reason is {found.get('reason')!r}, 3 was given")
    expect(found.get("perform_time") == 0, f"perform_time is {found.get('perform_time')!r}, not 0")


async def performed(wire: Wire) -> None:
    client = Client(wire)
    params = await client.create(await client.order())
    done = await client.result("PerformTransaction", {"id": params["id"]})
    expect(done.get("state") == 2, f"state is {done.get('state')!r}, not 2")
    expect(
        is_time(done.get("perform_time")), f"perform_time {done.get('perform_time')!r} is no 13-digit time"
    )
    expect(isinstance(done.get("transaction"), str), f"transaction {done.get('transaction')!r} is no text")


async def performed_twice(wire: Wire) -> None:
    client = Client(wire)
    params = await client.create(await client.order())
    done = await client.repeated("PerformTransaction", {"id": params["id"]})
    expect(done.get("state") == 2, f"state is {done.get('state')!r}, not 2")


async def performed_looked(wire: Wire) -> None:
    client = Client(wire)
    params = await client.create(await client.order())
    done = await client.result("PerformTransaction", {"id": params["id"]})
    found = await client.stands(params["id"], 2)
    expect(
        found.get("perform_time") == done.get("perform_time"), "CheckTransaction tells another perform_time"
    )
    expect(found.get("cancel_time") == 0, f"cancel_time is {found.get('cancel_time')!r}, not 0")
    expect(found.get("reason") is None, f"reason is {found.get('reason')!r}, not null")


async def refunded(wire: Wire) -> None:
    client = Client(wire)
    params = await client.perform(await client.order())
    before = await client.stands(params["id"], 2)
    done = await client.repeated("CancelTransaction", {"id": params["id"], "reason": 5})
    expect(done.get("state") == -2, f"state is {done.get('state')!r}, not -2")
    found = await client.stands(params["id"], -2)
    expect(found.get("perform_time") == before.get("perform_time"), "the refund changed perform_time")
    expect(found.get("cancel_time") == done.get("cancel_time"), "CheckTransaction tells another cancel_time")
    expect(found.get("reason") == 5, f"reason is {found.get('reason')!r}, 5 was given")


ONE, TWO = "sandbox scenario 1: unconfirmed", "sandbox scenario 2: confirmed"

CHECKS: tuple[Check, ...] = (
    *(
        Check(
            f"auth.{method}",
            f"{method} with wrong, empty or no credentials is answered -32504",
            "sandbox, scenario 1, step 1",
            forbidden(method),
            ONE,
        )
        for method in METHODS
    ),
    Check(
        "auth.login",
        "the right password under another login is answered -32504",
        "Merchant API, protocol: login and password are agreed",
        wrong_login,
        ONE,
    ),
    Check(
        "amount.wrong",
        "CheckPerformTransaction and CreateTransaction with a wrong amount are answered -31001",
        "sandbox, scenario 1, step 2",
        wrong_amount,
        ONE,
    ),
    Check(
        "account.missing",
        "CheckPerformTransaction and CreateTransaction for nobody's account are answered -31050..-31099",
        "sandbox, scenario 1, step 3",
        missing_account,
        ONE,
    ),
    Check(
        "check.allow",
        "CheckPerformTransaction for a payable order answers allow: true",
        "sandbox, scenario 1, step 4",
        allowed,
        ONE,
    ),
    Check(
        "create.new",
        "CreateTransaction answers create_time, transaction (text) and state 1",
        "sandbox, scenario 1, step 5",
        created,
        ONE,
    ),
    Check(
        "create.repeat",
        "a repeated CreateTransaction is answered with the same bytes",
        "sandbox, scenario 1, step 5",
        created_twice,
        ONE,
    ),
    Check(
        "create.look",
        "CheckTransaction after CreateTransaction tells state 1 and the same times",
        "sandbox, scenario 1, step 5",
        created_looked,
        ONE,
    ),
    Check(
        "create.other-id",
        "a second transaction on an account that waits for payment is answered -31008 (accumulative: made)",
        "sandbox, scenario 1, step 5",
        other_id,
        ONE,
    ),
    Check(
        "cancel.created",
        "CancelTransaction of state 1 gives -1, the same again when repeated",
        "sandbox, scenario 1, step 6",
        cancelled,
        ONE,
    ),
    Check(
        "perform.new",
        "PerformTransaction answers transaction, perform_time and state 2",
        "sandbox, scenario 2, step 3",
        performed,
        TWO,
    ),
    Check(
        "perform.repeat",
        "a repeated PerformTransaction is answered with the same bytes",
        "sandbox, scenario 2, step 3",
        performed_twice,
        TWO,
    ),
    Check(
        "perform.look",
        "CheckTransaction after PerformTransaction tells state 2 and the same times",
        "sandbox, scenario 2, step 3",
        performed_looked,
        TWO,
    ),
    Check(
        "cancel.performed",
        "CancelTransaction of state 2 gives -2 and keeps perform_time",
        "sandbox, scenario 2, step 4",
        refunded,
        TWO,
    ),
)
