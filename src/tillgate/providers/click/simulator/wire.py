"""Click's side of the SHOP API wire: signed forms out, JSON in."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode

import aiohttp

UZBEKISTAN = timezone(timedelta(hours=5))
MAX_ANSWER_BYTES = 64 * 1024
SHOWN = frozenset({"error", "error_note", "click_trans_id", "merchant_trans_id"})


@dataclass(frozen=True, slots=True)
class Step:
    """One request that Click made and what came back; `code` is None where no readable answer came."""

    name: str  # prepare | complete | garbage
    sent: Mapping[str, str]
    status: int | None
    answer: Mapping[str, Any] | None
    elapsed_ms: float
    trouble: str = ""  # why there is no answer, or what is wrong with its shape

    @property
    def code(self) -> int | None:
        code = self.answer.get("error") if self.answer else None
        return code if type(code) is int else None


@dataclass(slots=True)
class Wire:
    """Sends to one merchant. `complete_url` where Complete has an address of its own."""

    prepare_url: str
    secret_key: str = field(repr=False)
    complete_url: str | None = None
    timeout_s: float = 15.0
    _session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=100)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self._session

    async def shop(self, fields: Mapping[str, str], *, sign: str | None = None, lose: bool = False) -> Step:
        """Sign and send one Prepare or Complete; `lose` cuts the line before its answer is read."""
        name = "prepare" if fields["action"] == "0" else "complete"
        signed = {**fields, "sign_string": sign or sign_string(fields, self.secret_key)}
        return await self.post(name, urlencode(signed).encode(), signed, lose=lose)

    async def post(
        self, name: str, body: bytes, shown: Mapping[str, str] | None = None, *, lose: bool = False
    ) -> Step:
        url = self.complete_url if name == "complete" and self.complete_url else self.prepare_url
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        sent = dict(shown or {"body": body[:200].decode("utf-8", "replace")})
        begun = time.perf_counter()
        status: int | None = None
        answer: dict[str, Any] | None = None
        try:
            async with self.session().post(
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self.timeout_s),
            ) as reply:
                status = reply.status
                if lose:
                    reply.close()
                    trouble = "the answer was lost on purpose"
                else:
                    answer, trouble = read_answer(status, await _whole(reply.content))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            trouble = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
        return Step(name, sent, status, answer, (time.perf_counter() - begun) * 1000, trouble)


async def _whole(content: aiohttp.StreamReader) -> bytes:
    """One `read` gives what has come so far, and an answer may come in pieces."""
    body = bytearray()
    while len(body) <= MAX_ANSWER_BYTES and (piece := await content.read(MAX_ANSWER_BYTES + 1 - len(body))):
        body += piece
    return bytes(body)


def read_answer(status: int, body: bytes) -> tuple[dict[str, Any] | None, str]:
    """The JSON object that Click expects, and what is wrong with it."""
    if status != 200:
        return None, f"HTTP {status}"
    if len(body) > MAX_ANSWER_BYTES:
        return None, f"the answer is longer than {MAX_ANSWER_BYTES} bytes"
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None, "the answer is not JSON"
    if not isinstance(found, dict):
        return None, "the answer is not an object"
    if type(found.get("error")) is not int:
        return found, "error is not an integer"
    if not isinstance(found.get("error_note"), str):
        return found, "error_note is missing"
    return found, ""


def sign_string(fields: Mapping[str, str], secret_key: str) -> str:
    """SHOP API: MD5 of the values as sent; Complete has merchant_prepare_id after merchant_trans_id."""
    parts = [fields["click_trans_id"], fields["service_id"], secret_key, fields["merchant_trans_id"]]
    if fields["action"] == "1":
        parts.append(fields.get("merchant_prepare_id", ""))
    parts += [fields["amount"], fields["action"], fields["sign_time"]]
    return hashlib.md5("".join(parts).encode(), usedforsecurity=False).hexdigest()


def sign_time(now_s: float) -> str:
    return datetime.fromtimestamp(now_s, UZBEKISTAN).strftime("%Y-%m-%d %H:%M:%S")


def tiyin(text: str) -> int:
    """`"1500.50"` som as people and links write them. Raises `ValueError`."""
    found = re.fullmatch(r"(\d{1,13})(?:\.(\d{1,2}))?", text.strip(), re.ASCII)
    if not found:
        raise ValueError(f"not an amount of som: {text[:40]!r}")
    amount = int(found[1]) * 100 + int((found[2] or "").ljust(2, "0"))
    if amount <= 0:
        raise ValueError("an amount is more than nothing")
    return amount


def som(amount: int) -> str:
    return f"{amount // 100}.{amount % 100:02}"
