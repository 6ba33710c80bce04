"""Lists: filters in, a page and the way to the next one out.

A cursor is the last key of a page, signed for its merchant, list and filters: what is changed in it, or taken
from another list, is refused. Nothing is kept for it, so it does not expire while the hub's key stays.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from tillgate import schemas_v1
from tillgate.domain.errors import InvalidRequest
from tillgate.http.operation import Answer, Call
from tillgate.store.reads_pages import Key, Page
from tillgate.store.sealing import derive

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100
_TAG: Final = 16
_MAX_CURSOR: Final = 400
_DIGITS: Final = re.compile(r"[0-9]{1,3}", re.ASCII)

LIMIT: Final = {
    "description": f"How many at most; {DEFAULT_LIMIT} if not said.",
    "type": "integer",
    "minimum": 1,
    "maximum": MAX_LIMIT,
    "default": DEFAULT_LIMIT,
}
CURSOR: Final = {
    "description": "`next_cursor` of the page before. A page may be shorter than `limit`, even empty, and "
    "still have a next one: go on until `next_cursor` is null.",
    "type": "string",
    "maxLength": _MAX_CURSOR,
}
PAGING: Final[Mapping[str, Any]] = {"limit": LIMIT, "cursor": CURSOR}


def time_filter(what: str) -> dict[str, Any]:
    return {"description": what, "type": "string", "format": "date-time"}


CREATED: Final[Mapping[str, Any]] = {
    "created_after": time_filter("Created at or after this time."),
    "created_before": time_filter("Created before this time."),
}


@lru_cache(maxsize=8)
def _signing_keys(secret_keys: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(derive(key, "cursors") for key in secret_keys)


def _tag(key: bytes, about: bytes, content: bytes) -> bytes:
    return hmac.digest(key, about + content, "sha256")[:_TAG]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says of a page of one list."""

    call: Call
    name: str  # of the list
    filters: Mapping[str, str]

    @property
    def limit(self) -> int:
        text = self.call.query.get("limit", str(DEFAULT_LIMIT))
        limit = int(text) if _DIGITS.fullmatch(text) else 0
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidRequest(f"limit is a whole number from 1 to {MAX_LIMIT}", param="limit")
        return limit

    @property
    def after(self) -> Key | None:
        """Raises `InvalidRequest` for a cursor that was not made for this list and these filters."""
        text = self.call.query.get("cursor")
        if text is None:
            return None
        try:
            if len(text) > _MAX_CURSOR:
                raise ValueError
            raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            content, tag = raw[:-_TAG], raw[-_TAG:]
            keys = _signing_keys(self.call.runtime.secret_keys)
            if not any(hmac.compare_digest(_tag(key, self._about(), content), tag) for key in keys):
                raise ValueError
            return tuple(msgspec.json.decode(content, type=list[Any]))
        except (ValueError, binascii.Error, msgspec.DecodeError):
            raise InvalidRequest(
                "This cursor is not of this list, or not with these filters: begin without one",
                param="cursor",
            ) from None

    def cursor(self, key: Key) -> str:
        content = msgspec.json.encode(list(key))
        tag = _tag(_signing_keys(self.call.runtime.secret_keys)[0], self._about(), content)
        return base64.urlsafe_b64encode(content + tag).rstrip(b"=").decode()

    def _about(self) -> bytes:
        filters = "&".join(f"{name}={value}" for name, value in sorted(self.filters.items()))
        return hashlib.sha256(f"{self.call.merchant.id}\n{self.name}\n{filters}\n".encode()).digest()

    def text(self, name: str, *, longest: int = 255) -> str | None:
        value = self.filters.get(name)
        if value is not None and (len(value) > longest or not value.isprintable()):
            raise InvalidRequest(f"{name} is not one of ours", param=name)
        return value

    def choice(self, name: str, of: Sequence[str]) -> str | None:
        value = self.filters.get(name)
        if value is not None and value not in of:
            raise InvalidRequest(f"{name} is one of {', '.join(of)}", param=name)
        return value

    def time(self, name: str) -> int | None:
        return parse_time(self.filters.get(name), name)

    def answer(self, page: Page, show: Callable[[Mapping[str, Any]], Any]) -> Answer:
        return self.shown([show(row) for row in page.rows], page.next)

    def shown(self, data: Sequence[Any], after: Key | None) -> Answer:
        """The page, with `next_cursor` and an RFC 8288 `Link`."""
        cursor = None if after is None else self.cursor(after)
        path = self.call.scope["path"]
        kept = {**self.filters, "limit": str(self.limit)}
        links = [f'<{path}?{urlencode(kept)}>; rel="first"']
        if cursor is not None:
            links.append(f'<{path}?{urlencode({**kept, "cursor": cursor})}>; rel="next"')
        body = schemas_v1.encode({"data": data, "next_cursor": cursor})
        return Answer(body, headers=((b"link", ", ".join(links).encode("ascii")),))


def whole(data: Sequence[Any]) -> Answer:
    """A list that is never long enough for pages."""
    return Answer(schemas_v1.encode({"data": data, "next_cursor": None}))


def asked(call: Call, name: str, *filters: str) -> Asked:
    return Asked(call, name, {one: call.query[one] for one in filters if one in call.query})


def parse_time(text: str | None, name: str) -> int | None:
    """RFC 3339 as epoch milliseconds. Raises `InvalidRequest`; without a zone it would be anyone's guess."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text.replace(" ", "+")) if len(text) <= 40 else None
        if found is None or found.tzinfo is None:
            raise ValueError
        return max(0, int(found.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise InvalidRequest(f"{name} is a time such as 2026-11-21T09:45:00Z", param=name) from None


def id_at(prefix: str, at: int | None) -> str | None:
    """Where ids that were made at a time begin: ids start with their time."""
    return None if at is None else f"{prefix}{min(at, 2**48 - 1):012x}"
