"""`tillgate account create|list|rotate|disable|enable`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillgate.commands import context
from tillgate.commands.context import Database, Sandbox
from tillgate.commands.output import Json, command, emit_json, table
from tillgate.domain.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from tillgate.runtime import Runtime
    from tillgate.store.directory import Account, Merchant

app = typer.Typer(help="Merchants' accounts with providers.", no_args_is_help=True)

MAX_VALUE = 64 * 1024

MerchantName = Annotated[str, typer.Option("--merchant", help="Name or id of the merchant.")]
AccountName = Annotated[str, typer.Argument(help="Name or id of the account.")]
Given = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME=VALUE]...",
        help="The provider's settings; NAME=@FILE takes a file's text, NAME=- a line from standard input, "
        "NAME=@@x the text @x.",
    ),
]


@app.command()
@command
async def create(
    provider: Annotated[str, typer.Argument(help="As `tillgate providers` lists them.")],
    name: Annotated[str, typer.Argument(help="What you call this account.")],
    settings: Given = None,
    merchant: MerchantName = "default",
    default: Annotated[
        bool, typer.Option("--default", help="It serves the provider's documented paths.")
    ] = False,
    priority: Annotated[
        int, typer.Option(help="Of several accounts for one channel the lowest is taken.", min=0)
    ] = 0,
    database: Database = None,
    sandbox: Sandbox = None,
    as_json: Json = False,
) -> None:
    """Collect through a provider. Its settings are judged by it, and its secrets sealed."""
    given = _given(settings or [])
    async with context.hub(database, sandbox) as runtime:
        [owner] = await context.merchants(runtime, merchant)
        config = _typed(runtime, provider, given)
        if default:
            await _sole_default(runtime, provider)
        made = await runtime.hub.accounts.create(
            owner, provider, name, config, priority=priority, is_default=default
        )
        _show(_row(runtime, owner, made.account), as_json)


@app.command("list")
@command
async def list_(
    merchant: Annotated[str | None, typer.Option("--merchant", help="Name or id; default all.")] = None,
    database: Database = None,
    sandbox: Sandbox = None,
    as_json: Json = False,
) -> None:
    """List accounts; of secrets only which are set."""
    async with context.hub(database, sandbox) as runtime:
        rows = [
            _row(runtime, owner, account)
            for owner in await context.merchants(runtime, merchant)
            for account in owner.accounts
        ]
    columns = ("id", "merchant", "name", "provider", "state", "default", "secrets")
    if not as_json:
        for row in rows:
            row["secrets"] = ", ".join(row["secrets"])
    table(rows, columns, empty="There are no accounts yet.", as_json=as_json)


@app.command()
@command
async def rotate(
    account: AccountName,
    settings: Given = None,
    database: Database = None,
    sandbox: Sandbox = None,
    as_json: Json = False,
) -> None:
    """New values for some settings; an old secret goes on where the provider has a place for it."""
    given = _given(settings or [])
    if not given:
        raise InvalidRequest("give what is new as NAME=VALUE")
    async with context.hub(database, sandbox) as runtime:
        owner, found = await _found(runtime, account)
        config = _typed(runtime, found.provider, given)
        done = await runtime.hub.accounts.rotate(owner, found.id, config)
        _show(_row(runtime, owner, done.account), as_json)


@app.command()
@command
async def enrol(
    account: AccountName, database: Database = None, sandbox: Sandbox = None, as_json: Json = False
) -> None:
    """A code with which one kiosk enrols for this account, within the hour."""
    async with context.hub(database, sandbox) as runtime:
        owner, found = await _found(runtime, account)
        code, ends = await runtime.hub.kiosks.invite(owner, found)
        url = runtime.settings.url
    if as_json:
        emit_json({"code": code, "account": found.id, "expires_at": ends})
    else:
        typer.echo(f"At the kiosk, within the hour:\n  tillgate kiosk --hub {url} --enrol {code}")


@app.command()
@command
async def disable(
    account: AccountName, database: Database = None, sandbox: Sandbox = None, as_json: Json = False
) -> None:
    """Take nothing more through it; its provider's messages are no longer found."""
    await _switch(account, False, database, sandbox, as_json)


@app.command()
@command
async def enable(
    account: AccountName, database: Database = None, sandbox: Sandbox = None, as_json: Json = False
) -> None:
    """Take payments through it again."""
    await _switch(account, True, database, sandbox, as_json)


async def _switch(name: str, on: bool, database: str | None, sandbox: bool | None, as_json: bool) -> None:
    async with context.hub(database, sandbox) as runtime:
        owner, found = await _found(runtime, name)
        done = await runtime.hub.accounts.switch(owner, found.id, on)
        _show(_row(runtime, owner, done.account), as_json)


async def _found(runtime: Runtime, name: str) -> tuple[Merchant, Account]:
    """Raises `NotFound`, and `InvalidRequest` for a name that several merchants use."""
    every = await runtime.directory.merchants()
    found = [(owner, one) for owner in every if (one := owner.account(name)) is not None]
    if not found:
        raise NotFound(f"there is no account named {name}")
    if len(found) > 1:
        raise InvalidRequest(f"several merchants have an account named {name}; give its id")
    return found[0]


async def _sole_default(runtime: Runtime, provider: str) -> None:
    found = await runtime.directory.default_accounts(provider)
    if found:
        raise InvalidRequest(f"account {found[0]} serves the documented paths of {provider} already")


def _given(pairs: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, pair in enumerate(pairs, 1):
        name, equals, value = pair.partition("=")
        if not equals or not name:  # perhaps a secret without its name: it is not repeated
            raise InvalidRequest(f"setting {number} is not NAME=VALUE")
        if name in found:
            raise InvalidRequest(f"{name[:40]} is given twice")
        if value.startswith("@@"):
            value = value[1:]
        elif value.startswith("@"):
            value = _text_of(name, value[1:])
        elif value == "-":
            value = sys.stdin.readline(MAX_VALUE).strip()
        found[name] = value
    return found


def _text_of(name: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_VALUE + 1)
    except UnicodeDecodeError:
        raise InvalidRequest(f"{name}: the file {path} is not text") from None
    except OSError as error:
        raise InvalidRequest(f"{name}: the file {path} cannot be read: {error.strerror}") from None
    if len(text) > MAX_VALUE:
        raise InvalidRequest(f"{name}: the file {path} is too large")
    return text.strip()


def _typed(runtime: Runtime, provider: str, given: dict[str, str]) -> dict[str, Any]:
    from tillgate.declarations import Text
    from tillgate.hub.accounts import fields
    from tillgate.hub.declaring import typed

    known = runtime.providers.get(provider)
    takes = fields(known) if known else {}
    return {name: typed(Text(value), takes.get(name)) for name, value in given.items()}


def _row(runtime: Runtime, owner: Merchant, account: Account) -> dict[str, Any]:
    from tillgate.hub.accounts import public_config, secrets_set

    provider = runtime.providers.get(account.provider)
    return {
        "id": account.id,
        "merchant": owner.name,
        "name": account.name,
        "provider": account.provider,
        "state": "disabled" if account.disabled else "enabled",
        "default": account.is_default,
        "priority": account.priority,
        "config": public_config(provider, account.config),
        "secrets": secrets_set(provider, account.config),
        "inbound_url": f"{runtime.settings.url}/in/{account.id}",
    }


def _show(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json(row)
        return
    for name in ("id", "merchant", "name", "provider", "state", "default", "inbound_url"):
        typer.echo(f"{name:<12}{row[name]}")
    typer.echo(f"{'secrets':<12}{', '.join(row['secrets'])}")
