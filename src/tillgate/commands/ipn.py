"""`tillgate ipn waiting|dead|replay`: what `TILLGATE_PROCESS_IPN` has still to see, and what it failed at."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tillgate.commands import context
from tillgate.commands.context import Database, Sandbox
from tillgate.commands.output import Json, command, table

app = typer.Typer(help="Messages for the function that TILLGATE_PROCESS_IPN names.", no_args_is_help=True)

Owner = Annotated[str | None, typer.Option("--merchant", help="Name or id; default all.")]


@app.command()
@command
async def waiting(
    merchant: Owner = None, database: Database = None, sandbox: Sandbox = None, as_json: Json = False
) -> None:
    """What waits for the function, the next try's time included."""
    from tillgate.hub.handing import KIND

    await _listed(KIND, merchant, database, sandbox, as_json)


@app.command()
@command
async def dead(
    merchant: Owner = None, database: Database = None, sandbox: Sandbox = None, as_json: Json = False
) -> None:
    """What the function failed at too often."""
    from tillgate.hub.handing import BURIED

    await _listed(BURIED, merchant, database, sandbox, as_json)


@app.command()
@command
async def replay(
    message: Annotated[str, typer.Argument(help="Id of a dead one, as `tillgate ipn dead` shows it.")],
    database: Database = None,
    sandbox: Sandbox = None,
) -> None:
    """Have a dead one tried again, from the first try; a worker does it."""
    from tillgate.domain.errors import NotFound

    async with context.hub(database, sandbox) as runtime:
        for owner in await runtime.directory.merchants():
            try:
                await runtime.hub.handing.replay(owner.id, message)
            except NotFound:
                continue
            typer.echo(f"{message} is tried again")
            return
    raise NotFound("there is no such dead message")


async def _listed(
    kind: str, merchant: str | None, database: str | None, sandbox: bool | None, as_json: bool
) -> None:
    from tillgate import schemas
    from tillgate.hub.handing import BURIED

    rows: list[dict[str, Any]] = []
    async with context.hub(database, sandbox) as runtime:
        for owner in await context.merchants(runtime, merchant):
            for subject, run_at, tries in await runtime.kit.reads.due_of(kind, owner.id):
                at = None if kind == BURIED else schemas.rfc3339(run_at)
                message = runtime.hub.handing.message(subject)
                rows.append({"message": message, "merchant": owner.name, "tries": tries, "next_at": at})
    table(rows, ("message", "merchant", "tries", "next_at"), empty="There are none.", as_json=as_json)
