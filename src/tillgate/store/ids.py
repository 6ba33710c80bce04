"""Names for things: an id starts with its time, so inserts are appends; 80 random bits hide it."""

from __future__ import annotations

import hashlib
import os
from time import time_ns


def now_ms() -> int:
    return time_ns() // 1_000_000


def new_id(prefix: str, now: int) -> str:
    """`pay_` + 12 hex digits of time + 20 of chance."""
    return f"{prefix}{now:012x}{os.urandom(10).hex()}"


def digest(*parts: str) -> bytes:
    """16 bytes for a unique index instead of the client's text; lengths keep parts from running together."""
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
