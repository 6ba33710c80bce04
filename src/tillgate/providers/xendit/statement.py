"""What Xendit booked: its list of transactions, page by page (Transactions API, `GET /transactions`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final
from urllib.parse import urlencode

from tillgate.domain.errors import Unsure
from tillgate.domain.money import UNITS
from tillgate.providers.xendit import wire
from tillgate.spi import StatementLine

PAGE: Final = 50
MAX_PAGES: Final = 5_000
FEES: Final = ("xendit_fee", "value_added_tax", "xendit_withholding_tax", "third_party_withholding_tax")
JAKARTA: Final = timezone(timedelta(hours=7))

Fetch = Callable[[str], Awaitable[dict[str, Any] | None]]
"""From a path to the answer's object; None where there is no such path."""


async def lines(from_ms: int, to_ms: int, fetch: Fetch) -> AsyncIterator[StatementLine]:
    """Payments and refunds that succeeded. Raises `Unsure` for a page that does not read."""
    after = ""
    for _ in range(MAX_PAGES):
        query = [
            ("types", "PAYMENT"),
            ("types", "REFUND"),
            ("statuses", "SUCCESS"),
            ("created[gte]", _stamp(from_ms)),
            ("created[lte]", _stamp(to_ms - 1)),
            ("limit", str(PAGE)),
            *([("after_id", after)] if after else []),
        ]
        page = await fetch(f"/transactions?{urlencode(query)}") or {}
        rows = page.get("data")
        if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
            raise Unsure("Xendit's list of transactions cannot be read")
        for row in rows:
            line = _line(row)
            if line is not None:
                yield line
        if page.get("has_more") is not True:
            return
        after = wire.identifier(rows[-1], "id") if rows else ""
        if not after:
            raise Unsure("Xendit says that there is more and not where")
    raise Unsure("Xendit's list of transactions does not end")


def _line(row: dict[str, Any]) -> StatementLine | None:
    kind = {"PAYMENT": "payment", "REFUND": "refund"}.get(wire.text(row, "type"))
    if kind is None or wire.text(row, "status") != "SUCCESS":
        return None
    amount, currency = wire.minor(row.get("amount")), wire.text(row, "currency")
    at = wire.moment_ms(wire.text(row, "created"))
    if not amount or currency not in UNITS or at is None:
        raise Unsure("a transaction of Xendit's has no amount or no time")
    fee = wire.part(row, "fee")
    fees = [wire.minor(fee.get(name)) or 0 for name in FEES]
    product = wire.identifier(row, "product_id")
    return StatementLine(
        kind,
        amount,
        currency,
        reference=wire.text(row, "reference_id")[:255] or None,
        external_id=product if product.startswith(("pr-", "rfd-")) else None,
        at=at,
        fee_minor=sum(fees) if fee else None,
        settled_on=_settled_on(row),
    )


def _settled_on(row: dict[str, Any]) -> str | None:
    """The day in Jakarta, once it is settled."""
    at = wire.moment_ms(wire.text(row, "estimated_settlement_time"))
    if at is None or wire.text(row, "settlement_status") not in ("SETTLED", "EARLY_SETTLED"):
        return None
    return datetime.fromtimestamp(at // 1000, UTC).astimezone(JAKARTA).date().isoformat()


def _stamp(at_ms: int) -> str:
    text = datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{at_ms % 1000:03d}Z"
