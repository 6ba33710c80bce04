"""`tillgate deliveries list|resend`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillgate.commands import context
from tillgate.commands.context import Database, Sandbox
from tillgate.commands.output import Json, command, emit_json, table
from tillgate.domain.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from tillgate.runtime import Runtime
    from tillgate.store.directory import Merchant

app = typer.Typer(help="What was sent to merchants, and sending it again.", no_args_is_help=True)

STATES = ("pending", "delivered", "failed")


@app.command("list")
@command
async def list_(
    merchant: Annotated[str | None, typer.Option("--merchant", help="Name or id; default all.")] = None,
    status: Annotated[str | None, typer.Option(help="pending, delivered or failed; default all.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most of each merchant.", min=1, max=1000)] = 50,
    database: Database = None,
    sandbox: Sandbox = None,
    as_json: Json = False,
) -> None:
    """List deliveries, the newest events first."""
    from tillgate import schemas
    from tillgate.store.reads_pages import Wanted

    if status is not None and status not in STATES:
        raise InvalidRequest(f"--status is one of {', '.join(STATES)}")
    rows = []
    async with context.hub(database, sandbox) as runtime:
        for owner in await context.merchants(runtime, merchant):
            after, left = None, limit
            while left:
                sifted = {"state": status} if status else {}
                page = await runtime.pages.page(Wanted("deliveries", owner.id, left, after, sifted=sifted))
                rows += [
                    {
                        "id": row["id"],
                        "merchant": owner.name,
                        "event": row["seq"],
                        "status": row["state"],
                        "tries": row["tries"],
                        "url": row["url"],
                        "last": row["last_error"] or row["last_status"],
                        "next_at": schemas.rfc3339(row["next_at"]) if row["state"] == "pending" else None,
                    }
                    for row in page.rows
                ]
                left, after = left - len(page.rows), page.next
                if after is None:
                    break
    columns = ("id", "merchant", "event", "status", "tries", "url", "last", "next_at")
    table(rows, columns, empty="Nothing was sent yet.", as_json=as_json)


@app.command()
@command
async def resend(
    delivery: Annotated[str | None, typer.Argument(help="Id of one delivery.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Or: all that this webhook endpoint missed, in order.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="With --endpoint: also what it has had.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="With --endpoint: from this time on, as 2026-11-21T09:45:00Z.")
    ] = None,
    database: Database = None,
    sandbox: Sandbox = None,
    as_json: Json = False,
) -> None:
    """Put a delivery, or all that an endpoint missed, on its way again; a worker sends it."""
    if (delivery is None) == (endpoint is None):
        raise InvalidRequest("give the id of a delivery, or --endpoint")
    if endpoint is None and (everything or since is not None):
        raise InvalidRequest("--everything and --since go with --endpoint")
    async with context.hub(database, sandbox) as runtime:
        merchants = await runtime.directory.merchants()
        if delivery is not None:
            sent: Any = await _one(runtime, merchants, delivery)
        else:
            sent = await _all(runtime, merchants, endpoint or "", since, everything)
    if as_json:
        emit_json(sent)
    elif "id" in sent:
        typer.echo(f"{sent['id']} is on its way to {sent['url']}")
    else:
        typer.echo(f"{sent['replayed']} deliveries are on their way")


async def _one(runtime: Runtime, merchants: list[Merchant], delivery_id: str) -> dict[str, Any]:
    for merchant in merchants:
        row = await runtime.pages.one("deliveries", merchant.id, delivery_id)
        if row is not None:
            made, _ = await runtime.hub.resending.one(merchant, row, None, lambda _row: b"")
            return {"id": made["id"], "url": made["url"], "event": made["seq"]}
    raise NotFound("there is no such delivery")


async def _all(
    runtime: Runtime, merchants: list[Merchant], endpoint_id: str, since: str | None, everything: bool
) -> dict[str, Any]:
    from tillgate.http.v1.pages import parse_time
    from tillgate.hub.resending import Span

    at = parse_time(since, "since")
    for merchant in merchants:
        endpoint = next((one for one in merchant.endpoints if one.id == endpoint_id), None)
        if endpoint is None:
            continue
        first = await runtime.pages.seq_at(merchant.id, at) if at else 1
        after, replayed = first - 1, 0
        while True:
            span = Span(after=after, since=at or 0, everything=everything)
            done, _ = await runtime.hub.resending.replay(merchant, endpoint, span, None, lambda _done: b"")
            assert done is not None
            replayed += done.replayed
            if done.last is None:
                return {"replayed": replayed}
            after = done.last
    raise NotFound("there is no such webhook endpoint")
