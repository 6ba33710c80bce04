"""How commands speak: a table for people, JSON for programs, one clear line for a mistake."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from tillgate.domain.errors import TillgateError

P = ParamSpec("P")
T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def command(run: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Run an async command; a `TillgateError` is one line on stderr and exit code 1."""

    @wraps(run)
    def runs(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return asyncio.run(run(*args, **kwargs))
        except TillgateError as error:
            fail(str(error))
            raise AssertionError from None  # fail does not return

    return runs


def fail(message: str, code: int = 1) -> None:
    typer.echo(f"tillgate: {message}", err=True)
    raise typer.Exit(code)


def emit_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def table(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, empty: str, as_json: bool, title: str = ""
) -> None:
    """Rows as a table, or as a JSON list; `empty` is said where there are none."""
    found = list(rows)
    if as_json:
        emit_json(found)
        return
    if not found:
        typer.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, no_wrap=name in ("id", "merchant"))
    for row in found:
        made.add_row(*(Text("" if row[name] is None else str(row[name])) for name in columns))
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console = Console(file=sys.stdout, width=200)
    console.print(made)
