"""`tillgate backup`, `restore`, `completion`."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from tillgate.commands.context import Database, overrides
from tillgate.commands.output import Json, emit_json, fail
from tillgate.domain.errors import TillgateError


def backup(
    directory: Annotated[Path, typer.Argument(help="Where to put the copy.")] = Path("backups"),
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Copy a SQLite database while the hub runs; with a manifest to prove the copy by.

    TILLGATE_SECRET_KEY is not in it, and without that key no account in it can be opened: keep both."""
    from tillgate.settings import load
    from tillgate.store import backup as store

    try:
        url = load(overrides(database_url=database)).database_url
        file, manifest = store.backup(url, directory, version("tillgate"))
    except TillgateError as error:
        fail(str(error))
        return
    if as_json:
        import msgspec

        emit_json({"path": str(file), **msgspec.to_builtins(manifest)})
        return
    typer.echo(f"{file}: {manifest.rows['payments']} payments, {manifest.size} bytes")


def restore(
    file: Annotated[Path, typer.Argument(help="What `tillgate backup` made; its manifest stands beside it.")],
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace a database that is there, and keep it beside. No hub may run on it."
        ),
    ] = False,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Put a backup, once it is proven, where the database is."""
    from tillgate.settings import load
    from tillgate.store import backup as store
    from tillgate.store import schema

    try:
        url = load(overrides(database_url=database)).database_url
        manifest, kept = store.restore(url, file, force=force, known=schema.known)
    except TillgateError as error:
        fail(str(error))
        return
    old = manifest.revision != schema.head()
    if as_json:
        import msgspec

        done = {"restored": str(store.path_of(url)), "kept": str(kept) if kept else None}
        emit_json({**done, "migrate": old, **msgspec.to_builtins(manifest)})
        return
    typer.echo(f"Restored what was there at {manifest.made_at}: {manifest.rows['payments']} payments")
    if kept:
        typer.echo(f"What it replaced is kept as {kept}")
    if old:
        typer.echo("Its tables are an earlier version's; before the hub starts, run: tillgate migrate")


def completion(
    shell: Annotated[str, typer.Argument(help="bash, zsh or fish.")],
) -> None:
    """Print a completion script: `source <(tillgate completion bash)`."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    if shell not in ("bash", "zsh", "fish"):
        fail(f"there is no completion for {shell[:20]}; there is bash, zsh and fish", code=2)
    typer.echo(get_completion_script(prog_name="tillgate", complete_var="_TILLGATE_COMPLETE", shell=shell))
