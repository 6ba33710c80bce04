"""`tillgate reconcile`: a provider's statement beside our books; what differs is listed and resolved."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from tillgate.commands import context
from tillgate.commands.context import Database, Sandbox
from tillgate.commands.output import Json, command, emit_json, table
from tillgate.domain.errors import InvalidRequest, Misconfigured, NotFound

app = typer.Typer(help="Compare a provider's statement with the books.", no_args_is_help=True)

MerchantName = Annotated[str, typer.Option("--merchant", help="Name or id of the merchant.")]
MAX_FILE = 64 * 1024 * 1024


@app.command()
@command
async def run(
    account: Annotated[str, typer.Option(help="The account, by name or id.")],
    day: Annotated[str, typer.Option(help="The statement's day, such as 2026-11-21.")],
    merchant: MerchantName = "default",
    days: Annotated[int, typer.Option(help="How many days it is of.", min=1, max=93)] = 1,
    utc_offset: Annotated[str, typer.Option(help="Where its days and times are, such as +07:00.")] = "+00:00",
    file: Annotated[
        Path | None, typer.Option(help="CSV or JSON. Without it the provider is asked, where it can be.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="OURS=THEIRS, again and again; ours: kind, reference, external_id, amount, currency, fee,"
            " at, settled_on. Without any, the file that the provider itself writes."
        ),
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="WORD=payment or WORD=refund: the file's words for them.")
    ] = None,
    passed_over: Annotated[
        list[str] | None, typer.Option("--pass-over", help="The file's word for lines of no concern.")
    ] = None,
    currency: Annotated[str | None, typer.Option(help="Where the file has no column for it.")] = None,
    minor: Annotated[bool, typer.Option("--minor", help="The file's amounts are minor units.")] = False,
    database: Database = None,
    sandbox: Sandbox = None,
    as_json: Json = False,
) -> None:
    """Compare one statement with the books. Exit code 1 if there is a new finding."""
    from tillgate.hub.statement_files import Layout, offset_ms

    offset = offset_ms(utc_offset)
    begins = _midnight(day, offset)
    layout = None
    if column or currency:
        layout = Layout(
            columns=_pairs(column, "--column"),
            currency=currency,
            unit="minor" if minor else "major",
            utc_offset=utc_offset,
            kinds=_pairs(kind, "--kind"),
            passed_over=tuple(passed_over or ()),
        )
    content = None if file is None else await asyncio.to_thread(_content, file)
    async with context.hub(database, sandbox) as runtime:
        [owner] = await context.merchants(runtime, merchant)
        found = owner.account(account)
        if found is None:
            raise NotFound(f"{owner.name} has no account {account}")
        reconciling, ends = runtime.hub.reconciling, begins + days * 86_400_000
        if content is None:
            lines = await reconciling.pull(owner, found, begins, ends)
        else:
            lines = await reconciling.read_file(found, content, layout)
        made = await reconciling.compare(
            owner, found, lines, source="api" if content is None else "file", from_ms=begins, to_ms=ends,
            day_offset_ms=offset,
        )  # fmt: skip
    if as_json:
        emit_json({"id": made.id, "account": made.account_id, "source": made.source, **made.summary})
    else:
        _tell(made.summary)
    if made.summary["new_findings"]:
        raise typer.Exit(1)


def _tell(summary: dict[str, Any]) -> None:
    typer.echo(f"{summary['lines']} lines, {summary['ours']} movements of ours, {summary['matched']} matched")
    for name, row in summary["money"].items():
        typer.echo(
            f"  {name}: gross {row['gross_minor']}, fees {row['fee_minor']}, net {row['net_minor']}"
            " (minor units)"
        )
    for name, count in summary["findings"].items():
        typer.echo(f"  {name}: {count}")
    typer.echo(f"{summary['new_findings']} new findings" if summary["findings"] else "nothing differs")


@app.command()
@command
async def findings(
    merchant: MerchantName = "default",
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones, too.")] = False,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=10_000)] = 200,
    database: Database = None,
    sandbox: Sandbox = None,
    as_json: Json = False,
) -> None:
    """What comparisons found and nobody has resolved, the newest first."""
    from tillgate.store.reads_pages import Wanted

    rows: list[dict[str, Any]] = []
    async with context.hub(database, sandbox) as runtime:
        [owner] = await context.merchants(runtime, merchant)
        after = None
        while len(rows) < limit:
            page = await runtime.pages.page(Wanted("findings", owner.id, 1000, after))
            rows += [_row(one) for one in page.rows if everything or one["resolved_at"] is None]
            after = page.next
            if after is None:
                break
    names = (
        "id",
        "kind",
        "subject",
        "reference",
        "external_id",
        "ours",
        "theirs",
        "currency",
        "at",
        "reason",
    )
    table(rows[:limit], names, empty="nothing to look at", as_json=as_json)


def _row(one: Any) -> dict[str, Any]:
    at = one["at"] and datetime.fromtimestamp(one["at"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    kept = ("id", "kind", "subject", "reference", "external_id", "currency", "reason")
    return {
        **{name: one[name] for name in kept},
        "ours": one["ours_minor"],
        "theirs": one["theirs_minor"],
        "at": at,
    }


@app.command()
@command
async def resolve(
    finding: Annotated[str, typer.Argument(help="Its id, fnd_….")],
    reason: Annotated[str, typer.Option(help="What became of it.")],
    merchant: MerchantName = "default",
    database: Database = None,
    sandbox: Sandbox = None,
) -> None:
    """Put a finding away with a reason. No money moves."""
    if not 1 <= len(reason) <= 300 or not reason.isprintable() or not reason.strip():
        raise InvalidRequest("--reason is 1 to 300 printable characters")
    async with context.hub(database, sandbox) as runtime:
        [owner] = await context.merchants(runtime, merchant)
        await runtime.hub.reconciling.resolve(owner, finding, reason)
    typer.echo(f"{finding}: {reason}")


def _midnight(day: str, offset_ms: int) -> int:
    try:
        found = date.fromisoformat(day)
    except ValueError:
        raise InvalidRequest("--day is a date such as 2026-11-21") from None
    return (found - date(1970, 1, 1)) // timedelta(milliseconds=1) - offset_ms


def _pairs(given: list[str] | None, name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given or ():
        pair = re.fullmatch(r"([^=]+)=(.+)", text)
        if pair is None:
            raise InvalidRequest(f"{name} is WORD=WORD, not {text[:60]!r}")
        found[pair[1]] = pair[2]
    return found


def _content(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_FILE:
            raise InvalidRequest(f"{file} is larger than {MAX_FILE >> 20} MiB")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest(f"{file} is not in UTF-8") from None
    except OSError as error:
        raise Misconfigured(f"{file} cannot be read: {error.strerror}") from None
