"""A code as a list a person can read: every object with its tag path and its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from .emv import Qr
from .profiles import PRIMITIVES, QRIS, recognise
from .tlv import DataObject

NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "00": "payload format",
        "01": "initiation",
        "52": "merchant category code",
        "53": "currency",
        "54": "amount",
        "55": "tip indicator",
        "56": "fixed fee",
        "57": "percentage fee",
        "58": "country",
        "59": "merchant name",
        "60": "city",
        "61": "postal code",
        "62": "additional data",
        "62.01": "bill number",
        "62.02": "mobile number",
        "62.03": "store",
        "62.04": "loyalty number",
        "62.05": "reference",
        "62.06": "customer",
        "62.07": "terminal",
        "62.08": "purpose",
        "62.09": "consumer data request",
        "62.10": "merchant tax id",
        "62.11": "merchant channel",
        "64": "other language",
        "64.00": "language",
        "64.01": "merchant name",
        "64.02": "city",
    }
)


def outline(qr: Qr) -> list[tuple[str, str, str]]:
    """(path, name, value) of every object in order; a template's own row has an empty value.

    Values are as written: escape them before they reach a screen.
    """
    indonesian = qr.get("53") == QRIS.currency and qr.get("58") == QRIS.country
    rows: list[tuple[str, str, str]] = []
    for item in qr.objects:
        names: Mapping[str, str] = NAMES
        title = NAMES.get(item.tag, "")
        number = int(item.tag)
        if 2 <= number <= 25:
            title = "account, " + next(name for name, tags in PRIMITIVES if number in tags)
        elif 26 <= number <= 51:
            known = recognise(item, indonesian=indonesian)
            title = f"account, {known[0].title}" if known else "account"
            parts = known[1].parts if known else {}
            names = {f"{item.tag}.00": "identifier"} | {f"{item.tag}.{at}": p.name for at, p in parts.items()}
        rows.extend(_rows(item, item.tag, title, names))
    return rows


def _rows(
    item: DataObject, path: str, title: str, names: Mapping[str, str]
) -> Iterator[tuple[str, str, str]]:
    yield path, title, "" if item.children else item.value
    for child in item.children:
        here = f"{path}.{child.tag}"
        yield from _rows(child, here, names.get(here, ""), names)
