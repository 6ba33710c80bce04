"""Strict reading of `application/x-www-form-urlencoded`: every byte accounted for, or refused.

Click signs field values joined without separators, so whatever a lenient parser would mend (a repeated name,
a broken escape, a missing `=`) could make one signed text mean two things.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from tillgate.domain.errors import Unreadable

MAX_BODY_BYTES: Final = 8 * 1024
MAX_FIELDS: Final = 40
MAX_NAME_CHARS: Final = 64
MAX_VALUE_BYTES: Final = 1024

_NAME: Final = re.compile(rb"[A-Za-z0-9_.\[\]-]+")
_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def parse(body: bytes) -> dict[str, bytes]:
    """Names and their percent-decoded values, each name once. Raises `Unreadable`, quoting no value."""
    if len(body) > MAX_BODY_BYTES:
        raise Unreadable("the form is too large")
    pairs = [pair for pair in body.split(b"&") if pair]
    if len(pairs) > MAX_FIELDS:
        raise Unreadable("the form has too many fields")
    fields: dict[str, bytes] = {}
    for pair in pairs:
        raw_name, equals, raw_value = pair.partition(b"=")
        if not equals:
            raise Unreadable("a field of the form has no value")
        name = _decoded(raw_name)
        if not _NAME.fullmatch(name) or len(name) > MAX_NAME_CHARS:
            raise Unreadable("a field of the form has an unusable name")
        text = name.decode("ascii")
        if text in fields:
            raise Unreadable(f"{text} is sent twice")
        value = _decoded(raw_value)
        if len(value) > MAX_VALUE_BYTES:
            raise Unreadable(f"{text} is too long")
        fields[text] = value
    return fields


def _decoded(raw: bytes) -> bytes:
    if _BROKEN_ESCAPE.search(raw):
        raise Unreadable("the form has a broken escape")
    return unquote_to_bytes(raw.replace(b"+", b" "))
