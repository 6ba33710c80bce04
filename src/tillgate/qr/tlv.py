"""The grammar under every EMVCo payment code: tag, length, value, and the checksum at the end.

Tags and lengths are two ASCII digits each; a length counts characters, not bytes, and is never 00. A checksum
is CRC-16/CCITT-FALSE over the UTF-8 bytes of everything up to and including its own "6304". Both readings are
settled by EMVCo's own sample with Chinese text, whose checksum only comes out this way.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias, Union

EMVCO: Final = "EMVCo QRCPS merchant-presented mode 1.1"

MAX_TEXT: Final = 512
"""Characters of a payload we read or write. Codes in the field have 90 to 331."""

MAX_VALUE: Final = 99
MAX_DEPTH: Final = 4

Fields: TypeAlias = Mapping[str, Union[str, "Fields"]]
"""What a code says: two-digit tag → text or a template's fields, as `{"53": "360", "26": {"00": "…"}}`."""


class QrError(ValueError):
    """Not a payment code we can read, write or vouch for.

    `path` is where: dotted tags such as `"38.01"`, empty for the whole. `source` is the document that says
    so. The message never repeats an account number or a name: it may be shown and logged.
    """

    def __init__(self, message: str, path: str = "", source: str = EMVCO) -> None:
        super().__init__(f"tag {path}: {message}" if path else message)
        self.message = message
        self.path = path
        self.source = source


@dataclass(frozen=True, slots=True)
class DataObject:
    """One tag and its value exactly as written; `children` is the value read as a template, if it is one."""

    tag: str
    value: str = field(repr=False)
    children: tuple[DataObject, ...] = ()

    def get(self, path: str) -> str | None:
        """The value at a dotted path below this object: `"01"`, `"01.00"`."""
        return find(self.children, path)


def find(objects: tuple[DataObject, ...], path: str) -> str | None:
    """The value at a dotted path (`"62.05"`), or None."""
    tag, _, rest = path.partition(".")
    for item in objects:
        if item.tag == tag:
            return find(item.children, rest) if rest else item.value
    return None


def crc16(text: str) -> str:
    """CRC-16/CCITT-FALSE of the UTF-8 bytes, four upper-case hex digits: `"123456789"` → `"29B1"`."""
    return f"{binascii.crc_hqx(text.encode(), 0xFFFF):04X}"


def is_digits(text: str) -> bool:
    """ASCII digits only. `str.isdigit` and `int` also take Arabic-Indic and superscript ones."""
    return text.isascii() and text.isdigit()


def fold(guid: str) -> str:
    """An identifier for comparing, without regard to case. ASCII only: `"ı".upper()` is `"I"`."""
    return guid.upper() if guid.isascii() else guid


def check_text(text: object, limit: int = MAX_TEXT) -> str:
    """Text of a bearable length that has UTF-8 bytes, else QrError."""
    if not isinstance(text, str):
        raise QrError("a payment code is text")
    if not text:
        raise QrError("empty: there is no payment code here")
    if len(text) > limit:
        raise QrError(f"{len(text)} characters; a payment code has at most {limit}")
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise QrError("holds half a character (a lone surrogate) and has no UTF-8 form")
    return text


def parse(text: str, path: str = "") -> tuple[DataObject, ...]:
    """Every object of a template, in order, without looking inside their values.

    Raises QrError for anything that is not exactly a sequence of objects: short values, left-over characters,
    length 00, and repeated tags, because readers differ on which of two wins.
    """
    items: list[DataObject] = []
    seen: set[str] = set()
    at = 0
    while at < len(text):
        head = text[at : at + 4]
        if len(head) < 4:
            raise QrError(f"{len(head)} character(s) left over after the last object", path)
        if not is_digits(head):
            raise QrError(f"no tag and length (four digits) at character {at + 1}", path)
        tag, length = head[:2], int(head[2:])
        here = f"{path}.{tag}" if path else tag
        if length == 0:
            raise QrError("length 00; an object without a value is left out", here)
        value = text[at + 4 : at + 4 + length]
        if len(value) < length:
            raise QrError(f"says {length} characters, {len(value)} follow", here)
        if tag in seen:
            raise QrError("occurs twice", here)
        seen.add(tag)
        items.append(DataObject(tag, value))
        at += 4 + length
    return tuple(items)


def write(fields: Fields, path: str = "") -> str:
    """The objects in the order given. Raises QrError for what cannot be written."""
    parts: list[str] = []
    for tag, value in fields.items():
        if not (isinstance(tag, str) and len(tag) == 2 and is_digits(tag)):
            raise QrError(f"a tag is two digits, not {ascii(tag)[:40]}", path)
        here = f"{path}.{tag}" if path else tag
        if isinstance(value, Mapping):
            if here.count(".") + 1 >= MAX_DEPTH:
                raise QrError("templates are nested too deep", here)
            value = write(value, here)
        if not isinstance(value, str):
            raise QrError(f"a value is text, not {type(value).__name__}", here)
        if not 1 <= len(value) <= MAX_VALUE:
            raise QrError(f"{len(value)} characters; a value has 1 to {MAX_VALUE}", here)
        parts.append(f"{tag}{len(value):02d}{value}")
    return "".join(parts)
