"""`tillgate export payments|postings`: a merchant's rows as CSV, to a file or to standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from tillgate.commands import context
from tillgate.commands.context import Database, Sandbox
from tillgate.commands.output import Json, command, emit_json
from tillgate.domain.errors import InvalidRequest, Misconfigured

app = typer.Typer(help="Payments and postings as CSV, for the accountant.", no_args_is_help=True)

MerchantName = Annotated[str, typer.Option("--merchant", help="Name or id of the merchant.")]
Since = Annotated[
    str | None, typer.Option("--from", help="From this date or time on; a date begins at its midnight.")
]
Until = Annotated[str | None, typer.Option("--to", help="Up to, and without, this date or time.")]
Zone = Annotated[str, typer.Option("--tz", help="Time zone of dates and of times in the file.")]
To = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write, whole or not at all; default: print it.")
]


@app.command()
@command
async def payments(
    merchant: MerchantName = "default",
    since: Since = None,
    until: Until = None,
    tz: Zone = "UTC",
    status: Annotated[str | None, typer.Option(help="Only those that stand so now, such as paid.")] = None,
    output: To = None,
    database: Database = None,
    sandbox: Sandbox = None,
    as_json: Json = False,
) -> None:
    """Payments that were created in a period, as they stand now, oldest first."""
    from typing import get_args

    from tillgate.domain.payment import Status
    from tillgate.hub.exporting import Exporting

    if status is not None and status not in get_args(Status):
        raise InvalidRequest(f"--status is one of {', '.join(get_args(Status))}")
    period = _period(since, until, tz)
    async with context.hub(database, sandbox) as runtime:
        [owner] = await context.merchants(runtime, merchant)
        await _written(Exporting(runtime.pages, *_whose(owner)).payments(period, status), output, as_json)


@app.command()
@command
async def postings(
    merchant: MerchantName = "default",
    since: Since = None,
    until: Until = None,
    tz: Zone = "UTC",
    output: To = None,
    database: Database = None,
    sandbox: Sandbox = None,
    as_json: Json = False,
) -> None:
    """What was booked in a period, oldest first; these rows never change."""
    from tillgate.hub.exporting import Exporting

    period = _period(since, until, tz)
    async with context.hub(database, sandbox) as runtime:
        [owner] = await context.merchants(runtime, merchant)
        pieces = await Exporting(runtime.pages, *_whose(owner)).postings(period)
        await _written(pieces, output, as_json)


def _whose(owner: Any) -> tuple[str, dict[str, str]]:
    return owner.id, {one.id: one.name for one in owner.accounts}


def _period(since: str | None, until: str | None, tz: str) -> Any:
    from tillgate.hub.exporting import Period, moment, zone

    where = zone(tz, "--tz")
    return Period(moment(since, where, "--from"), moment(until, where, "--to"), where)


async def _written(pieces: AsyncIterator[bytes], output: Path | None, as_json: bool) -> None:
    """With `--json`, rows as JSON lists of texts by column, or a line about the file."""
    if output is None:
        if as_json:
            emit_json(_rows(b"".join([piece async for piece in pieces])))
            return
        try:
            await _copy(pieces, sys.stdout.buffer)
            sys.stdout.flush()
        except BrokenPipeError:  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    growing = output.with_name(f".{output.name}.part")
    try:
        with _private(growing) as file:
            lines = await _copy(pieces, file)
        growing.replace(output)
    except OSError as error:
        raise Misconfigured(f"{output} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            growing.unlink(missing_ok=True)
    if as_json:
        emit_json({"path": str(output), "rows": lines - 1})
    else:
        typer.echo(f"{output}: {lines - 1} rows")


def _private(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


async def _copy(pieces: AsyncIterator[bytes], to: BinaryIO) -> int:
    lines = 0
    async for piece in pieces:
        to.write(piece)
        lines += piece.count(b"\r\n")
    return lines


def _rows(text: bytes) -> list[dict[str, str]]:
    import csv
    import io

    return list(csv.DictReader(io.StringIO(text.decode(), newline="")))
