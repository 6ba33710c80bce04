"""Payme's side of the Merchant API: requests out over real HTTP, answers in, repeats compared byte for byte.

Written from Payme's manual. Nothing of the connector, its vocabulary or the rules is used here.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

TIMEOUT_S: Final = 15.0
MAX_ANSWER_BYTES: Final = 8 << 20
SYSTEM_ERROR: Final = -32400
MAX_STEPS: Final = 10_000


class Refused(Exception):
    """The merchant answered with an error; `code` and `message` are the merchant's."""

    def __init__(self, method: str, code: int, message: Any, data: Any = None) -> None:
        super().__init__(f"{method} was answered {code}: {shown(message)}")
        self.method = method
        self.code = code
        self.message = message
        self.data = data


class Inconsistent(Exception):
    """The merchant answered the same question in two ways, or in a way that cannot be understood."""


class Silent(Exception):
    """No answer came: the line was cut, or time ran out."""


@dataclass(frozen=True, slots=True)
class Step:
    """One request and what came back; no key is in it."""

    method: str
    params: Mapping[str, Any]
    status: int | None
    answer: Mapping[str, Any] | None
    elapsed_ms: float
    trouble: str = ""

    @property
    def code(self) -> int | None:
        error = (self.answer or {}).get("error")
        return error.get("code") if isinstance(error, dict) else None


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Desk:
    """One cash desk at Payme, talking to one merchant endpoint."""

    url: str
    key: str = field(repr=False)
    login: str = "Paycom"
    timeout_s: float = TIMEOUT_S
    clock: Callable[[], int] = now_ms
    steps: list[Step] = field(default_factory=list)
    _session: aiohttp.ClientSession | None = None
    _ids: Any = field(default_factory=lambda: itertools.count(1))
    _first: dict[tuple[str, str], tuple[int, bytes]] = field(default_factory=dict)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # --- one request ----------------------------------------------------------------------------------------

    async def call(self, method: str, params: Mapping[str, Any], *, key: str | None = None) -> dict[str, Any]:
        """The `result`. Raises `Refused`, `Inconsistent` or `Silent`.

        A request made before is sent under the id it had, and a success must be answered as it was then.
        """
        known = self._first.get(_name(method, params))
        rpc_id = known[0] if known else next(self._ids)
        status, content = await self._post(body_of(method, params, rpc_id), method, params, key)
        envelope = self._envelope(method, status, content, rpc_id)
        if "result" in envelope and key is None and method in REPEATABLE:
            name = _name(method, params)
            first = self._first.setdefault(name, (rpc_id, content))
            if first[1] != content:
                raise Inconsistent(f"{method} was first answered {first[1]!r}, now {content!r}")
        return _result(method, envelope)

    async def insist(self, method: str, params: Mapping[str, Any], times: int = 4) -> dict[str, Any]:
        """As Payme does: a lost answer or a system error is asked for again."""
        for left in reversed(range(times)):
            try:
                return await self.call(method, params)
            except Refused as refused:
                if refused.code != SYSTEM_ERROR or not left:
                    raise
            except Silent:
                if not left:
                    raise
            await asyncio.sleep(0.05 * (times - left))
        raise AssertionError("unreachable")

    async def at_once(self, method: str, params: Mapping[str, Any], times: int) -> dict[str, Any]:
        """The same request many times at once; every answer must be the same."""
        known = self._first.get(_name(method, params))
        rpc_id = known[0] if known else next(self._ids)
        body = body_of(method, params, rpc_id)
        replies = await asyncio.gather(*(self._post(body, method, params, None) for _ in range(times)))
        answers = {content for _, content in replies}
        if len(answers) != 1:
            raise Inconsistent(f"{times} {method} at once were answered in {len(answers)} ways: {answers!r}")
        envelope = self._envelope(method, *replies[0], rpc_id)
        if "result" in envelope and method in REPEATABLE:
            self._first.setdefault(_name(method, params), (rpc_id, replies[0][1]))
        return _result(method, envelope)

    async def lose(self, method: str, params: Mapping[str, Any]) -> None:
        """Send the whole request and hang up before a byte of the answer is read."""
        name = _name(method, params)
        rpc_id = self._first[name][0] if name in self._first else next(self._ids)
        body = body_of(method, params, rpc_id)
        to = urlsplit(self.url)
        port = to.port or (443 if to.scheme == "https" else 80)
        tls = ssl.create_default_context() if to.scheme == "https" else None
        path = (to.path or "/") + (f"?{to.query}" if to.query else "")
        head = [f"POST {path} HTTP/1.1", f"Host: {to.netloc}", f"Content-Length: {len(body)}"]
        head += [f"{name}: {value}" for name, value in self.headers().items()]
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(to.hostname, port, ssl=tls), self.timeout_s
        )
        writer.write("\r\n".join([*head, "Connection: close", "", ""]).encode() + body)
        await writer.drain()
        writer.close()
        del reader
        self._keep(Step(method, params, None, None, 0.0, "hung up before the answer"))
        await asyncio.sleep(0.05)

    async def garbage(self, content: bytes) -> dict[str, Any]:
        """Bytes that are no request; the answer's envelope."""
        status, answer = await self._post(content, "garbage", {}, None)
        return self._envelope("garbage", status, answer, None)

    def headers(self, key: str | None = None) -> dict[str, str]:
        credentials = f"{self.login}:{self.key if key is None else key}".encode()
        return {
            "Content-Type": "text/json; charset=UTF-8",
            "Authorization": f"Basic {base64.b64encode(credentials).decode()}",
        }

    # --- inside ---------------------------------------------------------------------------------------------

    async def _post(
        self, body: bytes, method: str, params: Mapping[str, Any], key: str | None
    ) -> tuple[int, bytes]:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=100)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        begun = time.perf_counter()
        try:
            async with self._session.post(
                self.url,
                data=body,
                headers=self.headers(key),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self.timeout_s),
            ) as reply:
                content = await reply.content.read(MAX_ANSWER_BYTES)
                while not reply.content.at_eof() and len(content) < MAX_ANSWER_BYTES:
                    content += await reply.content.read(MAX_ANSWER_BYTES - len(content))
                status = reply.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            elapsed_ms = (time.perf_counter() - begun) * 1000
            self._keep(Step(method, params, None, None, elapsed_ms, type(error).__name__))
            raise Silent(f"{method}: {type(error).__name__}") from None
        elapsed_ms = (time.perf_counter() - begun) * 1000
        self._keep(Step(method, params, status, _parsed(content), elapsed_ms))
        return status, content

    def _envelope(self, method: str, status: int, content: bytes, rpc_id: int | None) -> dict[str, Any]:
        if status != 200:
            raise Refused(method, SYSTEM_ERROR, f"HTTP {status}")
        envelope = _parsed(content)
        if envelope is None:
            raise Inconsistent(f"{method} was not answered with a JSON object: {content[:200]!r}")
        given = {name for name in ("result", "error") if envelope.get(name) is not None}
        if len(given) != 1:
            raise Inconsistent(f"{method}: an answer holds either result or error, this one {sorted(given)}")
        if rpc_id is not None and envelope.get("id") != rpc_id:
            raise Inconsistent(f"{method}: request {rpc_id} was answered under id {envelope.get('id')!r}")
        return {name: value for name, value in envelope.items() if value is not None}

    def _keep(self, step: Step) -> None:
        self.steps.append(step)
        del self.steps[:-MAX_STEPS]


REPEATABLE: Final = frozenset({"CreateTransaction", "PerformTransaction", "CancelTransaction"})
"""A repeat of these is answered as the first time; the others tell how things stand now."""


def body_of(method: str, params: Mapping[str, Any], rpc_id: int) -> bytes:
    """As the manual writes a request: no `jsonrpc` member."""
    return json.dumps({"method": method, "params": params, "id": rpc_id}, ensure_ascii=False).encode()


def new_id() -> str:
    return secrets.token_hex(12)


def shown(message: Any) -> str:
    if isinstance(message, dict):
        return str(message.get("en") or message.get("ru") or next(iter(message.values()), ""))[:300]
    return str(message)[:300]


def _name(method: str, params: Mapping[str, Any]) -> tuple[str, str]:
    return method, json.dumps(params, sort_keys=True)


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _result(method: str, envelope: Mapping[str, Any]) -> dict[str, Any]:
    error = envelope.get("error")
    if isinstance(error, dict):
        raise Refused(method, error.get("code", 0), error.get("message"), error.get("data"))
    found = envelope.get("result")
    if not isinstance(found, dict):
        raise Inconsistent(f"{method}: result is {type(found).__name__}, not an object")
    return found
