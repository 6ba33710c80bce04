"""`tillgate merchant create|list|rotate|webhook-secret`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tillgate.commands import context
from tillgate.commands.context import Database, Sandbox
from tillgate.commands.output import Json, command, emit_json, table

app = typer.Typer(help="Merchants and their API keys.", no_args_is_help=True)


@app.command()
@command
async def create(
    name: Annotated[str, typer.Argument(help="What you call this merchant.")],
    database: Database = None,
    sandbox: Sandbox = None,
    as_json: Json = False,
) -> None:
    """Make a merchant; its API secret is shown this once."""
    async with context.hub(database, sandbox) as runtime:
        made = await runtime.create_merchant(name)
        merchant = await runtime.directory.merchant(made.merchant_id)
        _show(made, as_json, webhook_secret=merchant.webhook_secrets[0])


@app.command("list")
@command
async def list_(database: Database = None, sandbox: Sandbox = None, as_json: Json = False) -> None:
    """List merchants."""
    async with context.hub(database, sandbox) as runtime:
        rows = [
            {
                "id": one.id,
                "name": one.name,
                "state": "disabled" if one.disabled else "active",
                "accounts": ", ".join(account.name for account in one.accounts),
            }
            for one in await runtime.directory.merchants()
        ]
    empty = "There are no merchants yet. Make one: tillgate merchant create NAME"
    table(rows, ("id", "name", "state", "accounts"), empty=empty, as_json=as_json)


@app.command()
@command
async def rotate(
    name: Annotated[str, typer.Argument(help="Name or id of the merchant.")],
    overlap_h: Annotated[
        int, typer.Option(help="How long the old key goes on, in hours.", min=0, max=720)
    ] = 24,
    database: Database = None,
    sandbox: Sandbox = None,
    as_json: Json = False,
) -> None:
    """Make a new API key; the old one goes on for a while."""
    async with context.hub(database, sandbox) as runtime:
        [merchant] = await context.merchants(runtime, name)
        now = runtime.kit.clock()
        made = await runtime.directory.rotate_merchant(merchant.id, now, overlap_h * 3_600_000)
        _show(made, as_json)


@app.command("webhook-secret")
@command
async def webhook_secret(
    name: Annotated[str, typer.Argument(help="Name or id of the merchant.")],
    database: Database = None,
    sandbox: Sandbox = None,
    as_json: Json = False,
) -> None:
    """Show what the merchant's callbacks are signed with."""
    async with context.hub(database, sandbox) as runtime:
        [merchant] = await context.merchants(runtime, name)
    if as_json:
        emit_json({"merchant_id": merchant.id, "webhook_secrets": list(merchant.webhook_secrets)})
        return
    for secret in merchant.webhook_secrets:
        typer.echo(secret)


def _show(made: Any, as_json: bool, **more: str) -> None:
    shown = {"merchant_id": made.merchant_id, "api_key": made.api_key, "api_secret": made.api_secret, **more}
    if as_json:
        emit_json(shown)
        return
    for name, value in shown.items():
        once = "    (shown once: keep it now)" if name == "api_secret" else ""
        typer.echo(f"{name:<16}{value}{once}")
