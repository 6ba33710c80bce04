"""The command line. Commands import what they need when they run, so that `--help` is at once."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Annotated

import typer

from tillgate.commands import (
    account,
    backup,
    config,
    conform,
    deliveries,
    demo,
    export,
    ipn,
    kiosk,
    ledger,
    listen,
    merchant,
    providers,
    qr,
    reconcile,
    resolve,
    server,
    simulate,
)

app = typer.Typer(
    name="tillgate",
    help="Tillgate: one till for every way to pay.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    pretty_exceptions_short=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tillgate {installed('tillgate')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """One till for every way to pay."""


app.command()(demo.demo)
app.command()(server.up)
app.command()(server.worker)
app.command()(server.migrate)
app.add_typer(merchant.app, name="merchant")
app.add_typer(account.app, name="account")
app.command()(providers.providers)
app.add_typer(config.app, name="config")
app.add_typer(ledger.app, name="ledger")
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(export.app, name="export")
app.add_typer(reconcile.app, name="reconcile")
app.add_typer(ipn.app, name="ipn")
app.command()(listen.listen)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(backup.completion)
app.command()(ledger.events)
app.command()(resolve.resolve)
app.command()(conform.conform)
app.command()(kiosk.kiosk)
app.command()(kiosk.terminal)
app.add_typer(qr.app, name="qr")
app.add_typer(simulate.app, name="simulate")


def main() -> None:
    app()
