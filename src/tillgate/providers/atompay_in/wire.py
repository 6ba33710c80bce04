"""AtomPay's JSON, amounts and times: read without loss, written without floats.

Rupees have two decimals on this wire, numbers or text; times are Asia/Kolkata local time without an offset.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

IST: Final = timezone(timedelta(hours=5, minutes=30), "IST")
_AMOUNT: Final = re.compile(r"([0-9]{1,13})(?:\.([0-9]{1,2})0*)?", re.ASCII)


def loads(data: bytes) -> Any:
    """Strict JSON: UTF-8, no member twice, no NaN, exact decimals. Raises `ValueError`."""
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_once,
            parse_float=Decimal,
            parse_constant=_refuse,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except InvalidOperation:
        raise ValueError("an exponent without measure") from None


def dumps(message: Any) -> bytes:
    """Compact JSON; a `Literal` from `literal()` is written as it stands."""
    return msgspec.json.encode(message)


def literal(amount_minor: int) -> msgspec.Raw:
    """Paise as a number literal with two decimals: what is signed must be what is written."""
    return msgspec.Raw(rupees(amount_minor).encode())


def rupees(amount_minor: int) -> str:
    """Paise as text with two decimals: 123405 → "1234.05"."""
    assert amount_minor >= 0
    whole, paise = divmod(amount_minor, 100)
    return f"{whole}.{paise:02d}"


def paise(value: Any) -> int:
    """A JSON amount, number or text, in paise. Raises `ValueError` for signs and for digits we would lose."""
    if isinstance(value, Decimal):
        if not -13 < value.adjusted() < 13:
            raise ValueError("not an amount")
        value = format(value, "f")
    elif type(value) is int:
        value = str(value)
    if not isinstance(value, str) or (found := _AMOUNT.fullmatch(value)) is None:
        raise ValueError("not an amount")
    return int(found[1]) * 100 + int((found[2] or "").ljust(2, "0"))


def text(value: Any) -> str:
    """An identifier that comes as a number from one endpoint and as text from another; "" where absent."""
    if type(value) is int:
        return str(value)
    return value if isinstance(value, str) else ""


def part(message: Any, *path: str) -> Any:
    """`message[a][b]…`, or None where anything on the way is absent or is no object."""
    for name in path:
        message = message.get(name) if isinstance(message, dict) else None
    return message


def stamp(at_ms: int) -> str:
    """`merchTxnDate` of a request: "2026-11-21 00:03:59", Indian time."""
    return _local(at_ms).strftime("%Y-%m-%d %H:%M:%S")


def days(from_ms: int, to_ms: int) -> tuple[str, ...]:
    """Indian dates from one moment to another, at most two: what a requery may have to be asked under."""
    first, last = _local(from_ms).date(), _local(max(from_ms, to_ms)).date()
    return tuple(d.isoformat() for d in (first, first + timedelta(days=1)) if d <= last)


def day(at_ms: int) -> date:
    return _local(at_ms).date()


def at_ms(day: date, hour: int) -> int:
    """Epoch milliseconds of a full hour of an Indian day."""
    return int(datetime(day.year, day.month, day.day, hour, tzinfo=IST).timestamp()) * 1000


def moment(value: Any) -> int | None:
    """Epoch milliseconds of "2026-11-21 00:03:59" (or with a T), Indian time; None where it says nothing."""
    if not isinstance(value, str):
        return None
    try:
        read = datetime.strptime(value[:19].replace("T", " ") + "+0530", "%Y-%m-%d %H:%M:%S%z")
    except ValueError:
        return None
    return int(read.timestamp()) * 1000


def _local(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms // 1000, UTC).astimezone(IST)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no number")
