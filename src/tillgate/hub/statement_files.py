"""A provider's statement as a file, CSV or JSON, read by a map of its columns.

Nothing is guessed and nothing is skipped: a row that does not read refuses the whole file, with its number.
Half a statement would find differences that are none.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal, TypeAlias

from tillgate.domain.errors import InvalidRequest
from tillgate.domain.money import EXPONENTS, MAX_MINOR
from tillgate.domain.record import record
from tillgate.spi import StatementLine

MAX_LINES: Final = 50_000
MAX_TEXT: Final = 255
SHOWN: Final = 5
COLUMNS: Final = ("kind", "reference", "external_id", "amount", "currency", "fee", "at", "settled_on")
Unit: TypeAlias = Literal["major", "minor"]

_AMOUNT: Final = re.compile(r"[+-]?\d{1,15}(?:\.\d{1,6})?", re.ASCII)
_OFFSET: Final = re.compile(r"([+-])(\d\d):(\d\d)", re.ASCII)
_DATES: Final = ("%Y-%m-%d", "%d-%m-%Y", "%d/%m/%Y", "%d-%b-%Y", "%d.%m.%Y")
_TIMES: Final = ("", " %H:%M", " %H:%M:%S")


@record
class Layout:
    """How a file is to be read. `columns`: our name → the file's; without one, the file uses ours.

    `kinds`: the file's word → payment or refund, other words are passed over where `passed_over` names them.
    Without a kind, an amount below zero is a refund."""

    columns: Mapping[str, str]
    currency: str | None = None  # where the file has no column for it
    unit: Unit = "major"
    utc_offset: str = "+00:00"  # of times without one
    kinds: Mapping[str, str] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()


def offset_ms(text: str) -> int:
    """`+07:00` in milliseconds. Raises `InvalidRequest`."""
    found = _OFFSET.fullmatch(text)
    if found is None or int(found[2]) > 14 or int(found[3]) > 59:
        raise InvalidRequest("utc_offset is such as +07:00", param="utc_offset")
    return (-1 if found[1] == "-" else 1) * (int(found[2]) * 60 + int(found[3])) * 60_000


def read(content: str, layout: Layout) -> list[StatementLine]:
    """Raises `InvalidRequest` that names the rows which do not read (the first few of them)."""
    _check(layout)
    zone = timezone(timedelta(milliseconds=offset_ms(layout.utc_offset)))
    lines: list[StatementLine] = []
    wrong: list[str] = []
    for number, row in enumerate(_rows(content, layout), 1):
        if number > MAX_LINES:
            raise InvalidRequest(f"the file has more than {MAX_LINES} rows", param="content")
        try:
            line = _line(row, layout, zone)
        except ValueError as error:
            wrong.append(f"row {number}: {error}")
            if len(wrong) > SHOWN:
                break
            continue
        if line is not None:
            lines.append(line)
    if wrong:
        more = " …" if len(wrong) > SHOWN else ""
        raise InvalidRequest("; ".join(wrong[:SHOWN]) + more, param="content")
    return lines


def _check(layout: Layout) -> None:
    unknown = sorted(set(layout.columns) - set(COLUMNS))
    if unknown:
        ours = ", ".join(COLUMNS)
        raise InvalidRequest(f"{unknown[0][:40]!r} is no column of ours; there are {ours}", param="columns")
    if layout.currency is not None and layout.currency not in EXPONENTS:
        raise InvalidRequest("this currency is not known", param="currency")
    if set(layout.kinds.values()) - {"payment", "refund"}:
        raise InvalidRequest("kinds are payment and refund", param="kinds")


def _rows(content: str, layout: Layout) -> Iterator[Mapping[str, Any]]:
    content = content.removeprefix("\ufeff")
    if content.lstrip()[:1] in ("[", "{"):
        yield from _json_rows(content)
        return
    head = content.partition("\n")[0]
    delimiter = max(",;\t|", key=head.count)
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        if len(set(names)) != len(names):
            raise InvalidRequest("two columns have the same name", param="content")
        needed = [layout.columns.get(one, one) for one in ("amount", *layout.columns)]
        absent = [name for name in needed if name not in names]
        if absent:
            raise InvalidRequest(f"the file has no column {absent[0][:60]!r}", param="columns")
        yield from reader
    except csv.Error as error:
        raise InvalidRequest(f"the file is neither CSV nor JSON: {error}", param="content") from None


def _json_rows(content: str) -> list[Mapping[str, Any]]:
    """A list of objects, or the one list in an object."""
    try:
        found = json.loads(content, parse_float=Decimal, parse_constant=str)
    except (ValueError, ArithmeticError, RecursionError):
        raise InvalidRequest("the file is not JSON", param="content") from None
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list)]
        found = lists[0] if len(lists) == 1 else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InvalidRequest("the file holds no list of rows", param="content")
    return found


def _line(row: Mapping[str, Any], layout: Layout, zone: timezone) -> StatementLine | None:
    """None for a row that is passed over. Raises `ValueError` with the reason."""

    def text(name: str) -> str:
        value = row.get(layout.columns.get(name, name))
        if value is None:
            return ""
        if isinstance(value, (dict, list, bool)):
            raise ValueError(f"{name} is no text or number")
        found = str(value).strip()
        if len(found) > MAX_TEXT or not found.isprintable():
            raise ValueError(f"{name} is too long or not printable")
        return found

    word = text("kind")
    if word in layout.passed_over and word:
        return None
    if None in row:
        raise ValueError("it has more fields than the head")
    currency = text("currency") or layout.currency or ""
    if currency not in EXPONENTS:
        raise ValueError(f"{currency[:10]!a} is no currency that is known")
    amount = _minor(text("amount"), currency, layout.unit, "amount")
    kind = layout.kinds.get(word, word) or ("refund" if amount < 0 else "payment")
    if kind not in ("payment", "refund"):
        raise ValueError(f"{word[:40]!a} is neither payment nor refund: name it in kinds or passed_over")
    if amount == 0:
        raise ValueError("the amount is 0")
    fee = text("fee")
    return StatementLine(
        kind=kind,
        amount_minor=abs(amount),
        currency=currency,
        reference=text("reference") or None,
        external_id=text("external_id") or None,
        at=_time(text("at"), zone),
        fee_minor=abs(_minor(fee, currency, layout.unit, "fee")) if fee else None,
        settled_on=_day(text("settled_on")),
    )


def _minor(text: str, currency: str, unit: Unit, name: str) -> int:
    if not _AMOUNT.fullmatch(text):
        raise ValueError(f"{name} is no amount: {text[:40]!a} (no thousands, a point for decimals)")
    try:
        value = Decimal(text).scaleb(EXPONENTS[currency] if unit == "major" else 0)
    except InvalidOperation:
        raise ValueError(f"{name} is no amount") from None
    if value != value.to_integral_value() or abs(value) > MAX_MINOR:
        raise ValueError(f"{name} has more decimals than {currency}, or is too large: {text[:40]!a}")
    return int(value)


def _time(text: str, zone: timezone) -> int | None:
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) in (10, 13):
        return int(text) * (1000 if len(text) == 10 else 1)
    found: datetime | None = None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        for form in (day + time for day in _DATES for time in _TIMES):
            try:
                found = datetime.strptime(text, form)  # noqa: DTZ007 - its zone is the file's
                break
            except ValueError:
                continue
    if found is None:
        raise ValueError(f"at is no time: {text[:40]!a}")
    return int((found if found.tzinfo else found.replace(tzinfo=zone)).timestamp() * 1000)


def _day(text: str) -> str | None:
    if not text:
        return None
    for form in _DATES:
        try:
            return datetime.strptime(text, form).date().isoformat()  # noqa: DTZ007 - a date has no zone
        except ValueError:
            continue
    try:
        return date.fromisoformat(text[:10]).isoformat()
    except ValueError:
        raise ValueError(f"settled_on is no date: {text[:40]!a}") from None
