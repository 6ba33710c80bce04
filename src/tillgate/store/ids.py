"""Names for things: an id starts with its time, so inserts are appends; 80 random bits hide it."""

from __future__ import annotations

import hashlib
import os
import re
from time import time_ns
from typing import Final

_EVENT_ID: Final = re.compile(r"evt_[0-9a-f]{32}", re.ASCII)


_PAGE_BYTES: Final = 4096
_page, _used = "", 0


def chance(size: int) -> str:
    """`size` bytes from the system's source, as hex. They are fetched by the page: a payment needs four
    pieces, and a call for each would cost more than all else that is done for its names."""
    global _page, _used
    first, _used = _used, _used + 2 * size
    if _used > len(_page):
        _page = os.urandom(_PAGE_BYTES).hex()
        first, _used = 0, 2 * size
    return _page[first:_used]


def _forget_page() -> None:
    """A child process must not go on with its parent's."""
    global _page, _used
    _page, _used = "", 0


os.register_at_fork(after_in_child=_forget_page)


def now_ms() -> int:
    return time_ns() // 1_000_000


def new_id(prefix: str, now: int) -> str:
    """`pay_` + 12 hex digits of time + 20 of chance."""
    return f"{prefix}{now:012x}{chance(10)}"


def event_id(seq: int) -> str:
    """An event's id starts with its number, so that it is found by its merchant's key without an index."""
    return f"evt_{seq:012x}{chance(10)}"


def event_seq(event_id: str) -> int | None:
    """The number that an event's id says; None for what is no such id."""
    return int(event_id[4:16], 16) if _EVENT_ID.fullmatch(event_id) else None


def digest(*parts: str) -> bytes:
    """16 bytes for a unique index instead of the client's text; lengths keep parts from running together."""
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
