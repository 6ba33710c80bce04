"""`tillgate ledger verify|balances` and `tillgate events`."""

from __future__ import annotations

from typing import Annotated

import typer

from tillgate.commands import context
from tillgate.commands.context import Database, Sandbox
from tillgate.commands.output import Json, command, emit_json, table
from tillgate.domain.money import Money

app = typer.Typer(help="The books: prove them, read them.", no_args_is_help=True)

MerchantName = Annotated[str | None, typer.Option("--merchant", help="Name or id; default all.")]


@app.command()
@command
async def balances(
    merchant: MerchantName = None, database: Database = None, sandbox: Sandbox = None, as_json: Json = False
) -> None:
    """What every account holds."""
    rows = []
    async with context.hub(database, sandbox) as runtime:
        for one in await context.merchants(runtime, merchant):
            names = {account.id: account.name for account in one.accounts}
            for account, currency, amount_minor in await runtime.kit.reads.balances(one.id):
                kind, _, account_id = account.partition(":")
                rows.append(
                    {
                        "merchant": one.name,
                        "account": f"{kind}:{names.get(account_id, account_id)}" if account_id else account,
                        "currency": currency,
                        "amount_minor": amount_minor,
                        "amount": Money(amount_minor, currency).decimal(),
                    }
                )
    table(
        rows,
        ("merchant", "account", "currency", "amount"),
        empty="The books are empty: nothing was opened yet.",
        as_json=as_json,
    )


@app.command()
@command
async def verify(
    merchant: MerchantName = None, database: Database = None, sandbox: Sandbox = None, as_json: Json = False
) -> None:
    """Prove the books and the chain of events; exit code 1 if anything does not fit."""
    from tillgate.store import audit

    async with context.hub(database, sandbox) as runtime:
        wanted = [one.id for one in await context.merchants(runtime, merchant)]
        report = await audit.verify(runtime.database, wanted if merchant else None)
    if as_json:
        emit_json(report.as_dict())
    else:
        typer.echo(report.text())
    if not report.clean:
        raise typer.Exit(1)


@command
async def events(
    merchant: MerchantName = None,
    after: Annotated[int, typer.Option(help="Start behind this number.", min=0)] = 0,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=10_000)] = 100,
    database: Database = None,
    sandbox: Sandbox = None,
    as_json: Json = False,
) -> None:
    """What happened, oldest first."""
    from tillgate import schemas

    rows = []
    async with context.hub(database, sandbox) as runtime:
        for one in await context.merchants(runtime, merchant):
            for row in await runtime.kit.reads.events(one.id, after, limit):
                payment = schemas.event_body(bytes(row[6])).payment
                rows.append(
                    {
                        "merchant": one.name,
                        "seq": row[1],
                        "at": schemas.rfc3339(row[5]),
                        "type": row[3],
                        "order_id": payment.order_id if payment else None,
                        "amount": str(Money(payment.amount_minor, payment.currency)) if payment else None,
                        "id": row[2],
                    }
                )
    table(
        rows,
        ("merchant", "seq", "at", "type", "order_id", "amount"),
        empty="Nothing has happened yet.",
        as_json=as_json,
    )
