"""Reading and writing Midtrans' JSON: codes as text, rupiah with two decimals, times in Jakarta's zone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import msgspec

_decode: Final = msgspec.json.Decoder().decode
_ID: Final = re.compile(r"[A-Za-z0-9_~.-]{1,64}", re.ASCII)
_AMOUNT: Final = re.compile(r"(\d{1,13})(?:\.(\d{1,2}))?", re.ASCII)
_CODE: Final = re.compile(r"[1-5]\d\d", re.ASCII)
WIB: Final = timezone(timedelta(hours=7))


def json_object(body: bytes) -> dict[str, Any] | None:
    """None for everything that is not a JSON object."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def text(found: dict[str, Any], name: str) -> str:
    """A string member; empty where it is absent or something else."""
    value = found.get(name)
    return value if isinstance(value, str) else ""


def identifier(found: dict[str, Any], name: str) -> str:
    value = text(found, name)
    return value if _ID.fullmatch(value) else ""


def parts(found: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The objects of a list, at most a hundred."""
    value = found.get(name)
    for one in value[:100] if isinstance(value, list) else ():
        if isinstance(one, dict):
            yield one


def code(status: int, found: dict[str, Any] | None) -> int:
    """What an answer says: the body's `status_code`, for an error may come with HTTP 200; else HTTP's."""
    said = text(found or {}, "status_code")
    if status >= 500 or not _CODE.fullmatch(said):
        return status if found is not None or status >= 400 else 0
    return int(said)


def minor(value: Any) -> int | None:
    """`"150000.00"` in sen; None for what is no amount."""
    found = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if type(value) is int and 0 <= value < 10**13:
        return value * 100
    return int(found[1]) * 100 + int((found[2] or "0").ljust(2, "0")) if found else None


def moment_ms(value: str) -> int | None:
    """`2026-11-21 10:15:30`, Jakarta's time without saying so, as epoch ms."""
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=WIB)
    return int(at.timestamp() * 1000)


def order_time(at_ms: int) -> str:
    """Epoch ms as `custom_expiry` wants it: `2026-11-21 10:15:30 +0700`."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).astimezone(WIB).strftime("%Y-%m-%d %H:%M:%S %z")
