"""`tillgate up`, `worker`, `migrate`."""

from __future__ import annotations

import asyncio
import gc
import signal
from typing import Annotated

import typer

from tillgate.commands.context import ConfigFile, Database, Sandbox, overrides
from tillgate.commands.output import Json, command, emit_json, fail
from tillgate.domain.errors import TillgateError


def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; default 8080.", min=0, max=65535)
    ] = None,
    database: Database = None,
    sandbox: Sandbox = None,
    worker: Annotated[bool | None, typer.Option(help="Run due work in this process.")] = None,
    config: ConfigFile = None,
) -> None:
    """Start the hub: the API, the checkout pages and, unless switched off, a worker."""
    from tillgate.http import server
    from tillgate.http.app import create_app
    from tillgate.logs import configure
    from tillgate.settings import load

    try:
        given = overrides(
            host=host, port=port, database_url=database, sandbox=sandbox, worker=worker, config=config
        )
        settings = load(given)
        configure(settings.log_level, settings.log_format)
        listening = server.listen(settings.host, settings.port)
        settings = settings.model_copy(update={"port": listening.getsockname()[1]})

        def started() -> None:
            quiet_collector()
            here = settings.model_copy(update={"public_url": ""}).url
            known = f", known as {settings.url}" if settings.url != here else ""
            mode = " (sandbox: no money moves)" if settings.sandbox else ""
            typer.echo(f"Tillgate listens on {here}{known}{mode}", err=True)

        app = create_app(settings, worker=settings.worker)
        server.run(server.Server(app, started=started), listening)
    except TillgateError as error:
        fail(str(error))


def quiet_collector() -> None:
    """What is loaded now stays: the garbage collector need not walk it, nor run after every few requests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@command
async def worker(database: Database = None, sandbox: Sandbox = None, config: ConfigFile = None) -> None:
    """Run due work alone: deliveries, looks, expiry, refunds. Any number of these may run."""
    from tillgate.http.metrics import Scrape
    from tillgate.http.ops import listening
    from tillgate.logs import configure
    from tillgate.runtime import Runtime
    from tillgate.settings import load

    settings = load(overrides(database_url=database, sandbox=sandbox, config=config))
    configure(settings.log_level, settings.log_format)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, ended.set)
    async with Runtime(settings, worker=True) as runtime, listening(runtime, Scrape(runtime)):
        typer.echo("Tillgate's worker runs", err=True)
        await ended.wait()


def migrate(
    database: Database = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether something is missing (exit code 1).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring the database to this version's tables."""
    from tillgate.settings import load
    from tillgate.store import schema

    try:
        url = load(overrides(database_url=database)).database_url
        before, wanted = schema.state(url)
        after = before if check else schema.upgrade(url)
        fit = schema.usable(url)
    except TillgateError as error:
        fail(str(error))
        return
    if as_json:
        emit_json({"before": before, "after": after, "wanted": wanted})
    elif after == wanted:
        typer.echo("The database is up to date." if before == after else f"Migrated to {after}.")
    elif fit:
        typer.echo(f"The database is at {after}, newer than this version's {wanted}, and fit for it.")
    else:
        typer.echo(f"The database is at {after or 'nothing'}; this version wants {wanted}.")
    if not fit:
        raise typer.Exit(1)
