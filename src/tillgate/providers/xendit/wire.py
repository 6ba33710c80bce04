"""Reading Xendit's JSON: leniently where a shape may vary, exactly where it is money."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

_decode: Final = msgspec.json.Decoder(float_hook=Decimal).decode
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,15}(\.\d{1,6})?", re.ASCII)
MAX_MINOR: Final = 10**15


def json_object(body: bytes) -> dict[str, Any] | None:
    """None for everything that is not a JSON object."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ArithmeticError):
        return None
    return found if isinstance(found, dict) else None


def text(found: dict[str, Any], name: str) -> str:
    """A string member; empty where it is absent or something else."""
    value = found.get(name)
    return value if isinstance(value, str) else ""


def identifier(found: dict[str, Any], name: str) -> str:
    """A name that may go into a path; empty for anything else."""
    value = text(found, name)
    return value if _ID.fullmatch(value) else ""


def part(found: dict[str, Any], name: str) -> dict[str, Any]:
    value = found.get(name)
    return value if isinstance(value, dict) else {}


def parts(found: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The objects of a list, at most a hundred."""
    value = found.get(name)
    for one in value[:100] if isinstance(value, list) else ():
        if isinstance(one, dict):
            yield one


def minor(value: Any) -> int | None:
    """Rupiah as Xendit writes them (`10000`, `10000.0`, `"10000.00"`) in sen; None for what is no amount."""
    if isinstance(value, str):
        value = Decimal(value) if _NUMBER.fullmatch(value) else None
    if type(value) is int:
        value = Decimal(value)
    if not isinstance(value, Decimal) or not value.is_finite() or not 0 <= value <= MAX_MINOR // 100:
        return None
    sen = value * 100
    return int(sen) if sen == int(sen) else None


def moment_ms(value: str) -> int | None:
    """`2021-12-02T14:52:21.566Z` as epoch ms; without an offset it is UTC."""
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return int(at.timestamp() * 1000)
