"""An open hub for commands, without the web and without a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillgate.domain.errors import Misconfigured, NotFound

if TYPE_CHECKING:
    from tillgate.runtime import Runtime
    from tillgate.store.directory import Merchant

Database = Annotated[
    str | None,
    typer.Option("--database", help="Database URL; default TILLGATE_DATABASE_URL.", show_default=False),
]
Sandbox = Annotated[
    bool | None, typer.Option("--sandbox/--no-sandbox", help="Pretended wallets; no money moves.")
]


ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="File that declares merchants and accounts; default TILLGATE_CONFIG.",
        show_default=False,
    ),
]


def overrides(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


@asynccontextmanager
async def hub(database: str | None = None, sandbox: bool | None = None) -> AsyncIterator[Runtime]:
    from tillgate.logs import configure
    from tillgate.runtime import Runtime
    from tillgate.settings import load
    from tillgate.store import schema

    settings = load(overrides(database_url=database, sandbox=sandbox))
    configure("error", settings.log_format)
    import asyncio

    if not await asyncio.to_thread(schema.usable, settings.database_url):
        raise Misconfigured("the database is not at this version's tables; run: tillgate migrate")
    async with Runtime(settings, migrate=False, declare=False) as runtime:
        yield runtime


async def merchants(runtime: Runtime, name: str | None) -> list[Merchant]:
    """The merchant named (by name or id), or all. Raises `NotFound`."""
    if name is None:
        return await runtime.directory.merchants()
    if name.startswith("mer_"):
        return [await runtime.directory.merchant(name)]
    found = await runtime.directory.merchant_named(name)
    if found is None:
        raise NotFound(f"there is no merchant named {name}")
    return [found]
