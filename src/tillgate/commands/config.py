"""`tillgate config check`."""

from __future__ import annotations

from typing import Annotated

import typer

from tillgate.commands.context import Sandbox, overrides
from tillgate.commands.output import Json, emit_json, fail
from tillgate.domain.errors import TillgateError

app = typer.Typer(help="The settings and the configuration file.", no_args_is_help=True)


@app.command()
def check(
    file: Annotated[
        str | None, typer.Argument(help="The file; default TILLGATE_CONFIG.", show_default=False)
    ] = None,
    sandbox: Sandbox = None,
    as_json: Json = False,
) -> None:
    """Say whether a hub would start with these settings and this file; touches no database."""
    from tillgate import declarations
    from tillgate.hub import declaring
    from tillgate.registry import providers
    from tillgate.settings import load
    from tillgate.ssrf import AllowList

    try:
        settings = load(overrides(sandbox=sandbox, config=file))
        settings.secret_keys()
        settings.bootstrap()
        allow = AllowList.parse(settings.callback_allow)
        declared = declarations.read(settings.config) if settings.config else None
        if declared is not None:
            known = {
                name: one for name, one in providers().items() if settings.sandbox or not one.sandbox_only
            }
            declaring.check(declared, known, sandbox=settings.sandbox, allow=allow)
    except TillgateError as error:
        if as_json:
            emit_json({"ok": False, "mistakes": str(error).splitlines()})
            raise typer.Exit(1) from None
        fail(str(error))
        return
    merchants = [one.name for one in declared.merchants] if declared else []
    accounts = [
        {"name": one.name, "merchant": one.merchant, "provider": one.provider, "default": one.default}
        for one in (declared.accounts if declared else ())
    ]
    if as_json:
        emit_json({"ok": True, "merchants": merchants, "accounts": accounts})
        return
    if declared is None:
        typer.echo("The settings are good; there is no configuration file (TILLGATE_CONFIG).")
        return
    counted = [
        f"{len(found)} {what if len(found) == 1 else f'{what}s'}"
        for what, found in (("merchant", merchants), ("account", accounts))
    ]
    typer.echo(f"{settings.config} is good: {', '.join(counted)}.")
