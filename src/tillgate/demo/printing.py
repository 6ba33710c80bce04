"""What the show prints: the table of payments, the books, and where to look next."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tillgate.demo.scene import Scene
from tillgate.demo.stage import Stage
from tillgate.domain.money import Money
from tillgate.store import audit


def show(
    console: Console,
    stage: Stage,
    played: Sequence[Scene],
    books: list[dict[str, Any]],
    report: audit.Report,
) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "what happened", "channel", "amount", "status", "detail", "callbacks received"):
        table.add_column(name, justify="right" if name == "amount" else "left")
    for one in played:
        mark, came = (Text("✓", "green") if one.right else Text("✗", "red")), one.came
        assert came is not None
        callbacks = ", ".join(came.callbacks) or "none"
        table.add_row(
            mark, one.title, one.channel, _readable(one.amount), came.status, came.detail, callbacks
        )
    console.print(table)
    for book in books:
        console.print()
        console.print(_book(book))
    console.print(f"\n{report.text()}")
    _next(console, stage, played)


def _readable(amount: Money) -> str:
    """`150,000 IDR`, `15,000.50 UZS`."""
    whole, _, rest = amount.decimal().partition(".")
    return f"{int(whole):,}{f'.{rest}' if rest.strip('0') else ''} {amount.currency}"


def _book(book: dict[str, Any]) -> Table:
    table = Table(title=f"Books of {book['merchant']}", title_justify="left", box=None, pad_edge=False)
    table.add_column("account")
    table.add_column("balance", justify="right")
    for row in book["rows"]:
        table.add_row(row["account"], str(Money(row["amount_minor"], row["currency"])))
    table.add_row("sum", "0, balanced" if book["sum"] == 0 else f"{book['sum']} minor units: NOT balanced")
    return table


def _next(console: Console, stage: Stage, played: Sequence[Scene]) -> None:
    say, base = console.out, stage.shop.base
    paid = next(one.came.payment["payment_id"] for one in played if one.came and one.came.payment)
    say(f"\nWhere to look\n  a checkout page   {base}/pay/{paid}")
    say(f"  the API           {base}/openapi.json")
    for name, place in stage.places.items():
        say(f"  {name:<17} {place}")
    secret = stage.settings.bootstrap_api_secret.get_secret_value()
    say("\nTry it")
    json_header = "-H 'Content-Type: application/json'"
    say(f"  TOKEN=$(curl -s {base}/token {json_header} \\")
    say(f"""    -d '{{"api_key":"demo","api_secret":"{secret}"}}' \\""")
    say("""    | sed 's/.*access_token":"\\([^"]*\\).*/\\1/')""")
    say(f'  curl -s {base}/payments {json_header} -H "Authorization: Bearer $TOKEN" \\')
    say("""    -d '{"wallet_id":"gopay","amount":25000,"currency":"IDR","order_id":"MY-1"}'""")
    say("  …then open the qr_url it prints, and play the payer.")


def print_json(
    played: Sequence[Scene], books: list[dict[str, Any]], report: audit.Report, right: bool
) -> None:
    shown = [
        {
            "title": one.title,
            "payment": dict(one.came.payment) if one.came else {},
            "callbacks": list(one.came.callbacks) if one.came else [],
            "right": one.right,
        }
        for one in played
    ]
    result = {"payments": shown, "books": books, "verify": report.as_dict(), "right": right}
    print(json.dumps(result, indent=2, ensure_ascii=False), file=sys.stdout)
