"""Payments and postings as CSV (RFC 4180, UTF-8), the oldest first: what an accountant takes home.

Amounts stand twice: as whole minor units, to add up exactly, and with the currency's decimals, to read. Times
are ISO 8601 with the offset of the zone that was asked for. Text that a spreadsheet would run is disarmed.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo

from tillgate.domain.errors import InvalidRequest
from tillgate.domain.money import Money
from tillgate.domain.payment import Payment
from tillgate.domain.record import record, replace
from tillgate.store.book import record_of
from tillgate.store.reads_pages import Key, Page, Pages, Wanted

PIECE: Final = 500
"""Rows that are read, and sent, at a time."""

What: TypeAlias = Literal["payments", "postings"]

PAYMENT_COLUMNS: Final = (
    "id", "order_id", "status", "currency", "amount_minor", "amount", "paid_minor", "paid", "tip_minor",
    "tip", "fee_minor", "fee", "refunded_minor", "refunded", "reversed_minor", "reversed", "channel",
    "account", "paid_with", "created_at", "paid_at",
)  # fmt: skip
POSTING_COLUMNS: Final = (
    "at", "event", "event_number", "line", "subject", "kind", "source", "destination", "currency",
    "amount_minor", "amount",
)  # fmt: skip

# A cell that begins so is a formula to some spreadsheet, also in the wide forms of Asian keyboards
# (OWASP, "CSV Injection").
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z0-9_+-]{1,31}){0,2}", re.ASCII)
_OFFSET: Final = re.compile(r"([+-])(0[0-9]|1[0-4]):?([0-5][0-9])", re.ASCII)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@record
class Period:
    """Rows at or after `since` and before `until`, epoch ms; None is open on that side."""

    since: int | None = None
    until: int | None = None
    zone: tzinfo = field(default=UTC)

    def shows(self, ms: int | None) -> str:
        """Exact to the millisecond, as ISO 8601."""
        if ms is None:
            return ""
        try:
            return (_EPOCH + timedelta(milliseconds=ms)).astimezone(self.zone).isoformat("T", "milliseconds")
        except OverflowError:
            return ""


def zone(name: str | None, param: str = "tz") -> tzinfo:
    """`Asia/Jakarta`, `UTC` or `+07:00`. Raises `InvalidRequest`."""
    if not name or name in ("UTC", "Z"):
        return UTC
    # A plus sign that nobody encoded arrives as a space.
    if found := _OFFSET.fullmatch(name.replace(" ", "+")):
        away = timedelta(hours=int(found[2]), minutes=int(found[3]))
        return timezone(-away if found[1] == "-" else away)
    try:
        if _ZONE.fullmatch(name):
            return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not known here, or a directory of zones
        pass
    raise InvalidRequest(f"{param} is a time zone such as Asia/Jakarta, UTC or +07:00", param=param)


def moment(text: str | None, where: tzinfo, param: str) -> int | None:
    """Epoch ms of a time (RFC 3339), or of a date's midnight in the zone `where`. Raises `InvalidRequest`."""
    if text is None:
        return None
    try:
        if _DATE.fullmatch(text):
            found = datetime.combine(date.fromisoformat(text), time(), where)
        else:
            found = datetime.fromisoformat(text[:41].replace(" ", "+"))
        if found.tzinfo is None or len(text) > 40:  # without a zone it would be anyone's guess
            raise ValueError
        return max(0, (found - _EPOCH) // timedelta(milliseconds=1))
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{param} is a date such as 2026-11-21, or a time such as 2026-11-21T09:45:00Z", param=param
        ) from None


class Exporting:
    """One merchant's rows; a piece at a time, so that an export of any size takes the memory of one."""

    def __init__(self, pages: Pages, merchant_id: str, names: Mapping[str, str]) -> None:
        """`names`: accounts' names by their ids."""
        self._pages, self._merchant_id, self._names = pages, merchant_id, names

    def payments(self, period: Period, status: str | None = None) -> AsyncIterator[bytes]:
        """Payments that were created in the period, as they stand now."""
        wanted = Wanted(
            "payments",
            self._merchant_id,
            PIECE,
            sifted={} if status is None else {"status": status},
            low=_first_id(period.since),
            high=_first_id(period.until),
            oldest_first=True,
        )
        return self._written(PAYMENT_COLUMNS, wanted, lambda row: self._payment(row, period))

    async def postings(self, period: Period) -> AsyncIterator[bytes]:
        """Postings that were booked in the period; they never change."""
        seq_at, owner = self._pages.seq_at, self._merchant_id
        wanted = Wanted(
            "postings",
            owner,
            PIECE,
            low=None if period.since is None else await seq_at(owner, period.since),
            high=None if period.until is None else await seq_at(owner, period.until),
            oldest_first=True,
        )
        return self._written(POSTING_COLUMNS, wanted, lambda row: self._posting(row, period))

    async def _written(
        self, columns: Sequence[str], wanted: Wanted, cells: Callable[[Mapping[str, Any]], Sequence[Any]]
    ) -> AsyncIterator[bytes]:
        yield csv_line(columns)
        while True:
            page: Page = await self._pages.page(wanted)
            if page.rows:
                yield b"".join(csv_line(cells(row)) for row in page.rows)
            if page.next is None:
                return
            behind: Key = page.next
            wanted = replace(wanted, after=behind)

    def _payment(self, row: Mapping[str, Any], period: Period) -> Sequence[Any]:
        one = record_of(Payment, list(row.values()))
        amounts = (
            one.amount_minor, one.paid_minor, one.tip_minor, one.fee_minor, one.refunded_minor,
            one.reversed_minor,
        )  # fmt: skip
        both = [cell for minor in amounts for cell in (minor, _decimal(minor, one.currency))]
        return (
            one.id, one.order_id, one.status, one.currency, *both, one.channel,
            self._names.get(one.account_id, one.account_id), one.paid_with, period.shows(one.created_at),
            period.shows(one.paid_at),
        )  # fmt: skip

    def _posting(self, row: Mapping[str, Any], period: Period) -> Sequence[Any]:
        return (
            period.shows(row["event_occurred_at"]), row["event_id"], row["seq"], row["line"],
            row["event_subject"], row["kind"], self._ledger(row["source"]), self._ledger(row["destination"]),
            row["currency"], row["amount_minor"], _decimal(row["amount_minor"], row["currency"]),
        )  # fmt: skip

    def _ledger(self, account: str) -> str:
        """`provider:acc_…` by the name that the merchant gave it."""
        kind, _, account_id = account.partition(":")
        return f"{kind}:{self._names[account_id]}" if account_id in self._names else account


def _decimal(minor: int, currency: str) -> Decimal:
    return Decimal(Money(minor, currency).decimal())


def csv_line(cells: Sequence[Any]) -> bytes:
    """One line. A text that a spreadsheet would take for a formula gets an apostrophe."""
    out = io.StringIO()
    csv.writer(out).writerow(
        f"'{one}" if isinstance(one, str) and one.startswith(_FORMULA) else "" if one is None else str(one)
        for one in cells
    )
    return out.getvalue().encode("utf-8", "replace")


def _first_id(at: int | None) -> str | None:
    """Where payments' ids begin that were made at a time: ids start with it."""
    return None if at is None else f"pay_{min(at, 2**48 - 1):012x}"
