"""Payme's `account` object and our one reference text for it.

A cash desk names its account fields itself. With one field its plain value is the reference; with several the
reference is `field=value;field=value` in the order of the settings, values percent-encoded, so that two
different accounts never share a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

MAX_VALUE_CHARS: Final = 255
MAX_FIELDS: Final = 16


class BadAccount(ValueError):
    """The account lacks a field, or a field cannot be read; `field` names it."""

    def __init__(self, field: str, why: str | None = None) -> None:
        super().__init__(why or f"account field {field} is missing or unreadable")
        self.field = field


def reference(account: Any, fields: Sequence[str]) -> str:
    """The reference for an `account` as Payme sends it. Raises `BadAccount`."""
    if not isinstance(account, dict) or len(account) > MAX_FIELDS:
        raise BadAccount(fields[0])
    values = [_value(account, field) for field in fields]
    if len(values) == 1:
        return values[0]
    return ";".join(f"{field}={quote(value, safe='')}" for field, value in zip(fields, values, strict=True))


def kept(account: Mapping[str, Any]) -> dict[str, str | int]:
    """What a statement gives back: the fields as they came, without what no cash desk can have asked for."""
    return {field: value for field, value in account.items() if _plain(field) and _plain(value)}


def account(reference_text: str, fields: Sequence[str]) -> dict[str, str]:
    """The `account` Payme will send for a reference.

    Raises `BadAccount`, also where what Payme sends would be another reference: nobody could pay that one.
    """
    found = _fields(reference_text, fields)
    known = reference(found, fields)
    if known != reference_text:
        raise BadAccount(fields[0], f"what Payme will send is known as {known!r}: write it so")
    return found


def _fields(reference_text: str, fields: Sequence[str]) -> dict[str, str]:
    if len(fields) == 1:
        return {fields[0]: _value({fields[0]: reference_text}, fields[0])}
    parts = reference_text.split(";")
    found: dict[str, str] = {}
    for field, part in zip(fields, parts, strict=False):
        name, _, value = part.partition("=")
        if name != field:
            raise BadAccount(field)
        found[field] = _value({field: unquote(value)}, field)
    if len(parts) != len(fields):
        raise BadAccount(fields[-1])
    return found


def _value(account: Mapping[str, Any], field: str) -> str:
    value = account.get(field)
    if type(value) is int and abs(value) < 10**18:
        value = str(value)
    if not isinstance(value, str):
        raise BadAccount(field)
    value = value.strip()
    if not value or len(value) > MAX_VALUE_CHARS or not value.isprintable():
        raise BadAccount(field)
    return value


def _plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_VALUE_CHARS and value.isprintable()
    return type(value) is int and abs(value) < 10**18
