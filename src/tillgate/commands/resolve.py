"""`tillgate resolve`: an operator's word on a payment that is unsure or held for review."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tillgate.commands import context
from tillgate.commands.context import Database, Sandbox
from tillgate.commands.output import Json, command, emit_json
from tillgate.domain.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from tillgate.domain.payment import Payment
    from tillgate.runtime import Runtime
    from tillgate.store.directory import Merchant

Outcome = Literal["paid", "failed", "accept"]


@command
async def resolve(
    payment: Annotated[str, typer.Argument(help="The payment's id, or its order_id with --merchant.")],
    outcome: Annotated[
        str, typer.Argument(help="paid or failed, for an unsure one; accept, for one held for review.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; the event keeps it.")],
    by: Annotated[str | None, typer.Option("--by", help="Who decides; default the user's name.")] = None,
    merchant: Annotated[str | None, typer.Option("--merchant", help="Name or id of the merchant.")] = None,
    database: Database = None,
    sandbox: Sandbox = None,
    as_json: Json = False,
) -> None:
    """Say how an unsure payment ended, or let pass what is held for review. The event names who and why."""
    given: dict[str, Outcome] = {"paid": "paid", "failed": "failed", "accept": "accept"}
    if outcome not in given:
        raise InvalidRequest("the outcome is paid, failed or accept")
    if not 1 <= len(reason) <= 300 or not reason.isprintable():
        raise InvalidRequest("a reason has 1 to 300 printable characters")
    who = by if by is not None else f"{_user()} at the command line"
    if not 1 <= len(who) <= 100 or not who.isprintable():
        raise InvalidRequest("--by has 1 to 100 printable characters")
    async with context.hub(database, sandbox) as runtime:
        owner, found = await _found(runtime, payment, merchant)
        done = await runtime.hub.resolve(owner, found.id, given[outcome], reason, who)
    if as_json:
        emit_json({"id": done.id, "order_id": done.order_id, "status": done.status, "by": who})
    else:
        typer.echo(f"{done.id} ({done.order_id}) is {done.status}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "somebody"


async def _found(runtime: Runtime, name: str, merchant: str | None) -> tuple[Merchant, Payment]:
    from tillgate.hub.kit import order_key

    found = await runtime.kit.reads.payment(name[:80])
    if found is not None:
        return await runtime.directory.merchant(found.merchant_id), found
    owners = await context.merchants(runtime, merchant)
    by_order = [(one, await runtime.kit.reads.order(order_key(one.id, name))) for one in owners]
    named = [(owner, payment) for owner, payment in by_order if payment is not None]
    if len(named) > 1:
        raise InvalidRequest("several merchants have such an order: say whose with --merchant")
    if not named:
        raise NotFound(f"there is no payment {name[:80]}")
    return named[0]
