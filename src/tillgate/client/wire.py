"""The wire below the client: tokens, time-outs, limits, and repeating what is safe to repeat."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from tillgate.client.errors import BY_STATUS, ApiError, NoAnswer

T = TypeVar("T")

MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 5.0
_EARLY_S: Final = 30.0  # a token is renewed so long before its end, for clocks and for the way


class _Problem(msgspec.Struct):
    detail: str = ""
    code: str = "error"
    param: str | None = None
    request_id: str | None = None


class _Token(msgspec.Struct):
    access_token: str
    expires_in: int


class _PageOf(msgspec.Struct):
    data: list[msgspec.Raw]
    next_cursor: str | None


@dataclass(slots=True)
class _Patience:
    """When to try again, until the time for that is over."""

    ends: float
    tries: int = 0

    async def wait(self, asked_s: float = 0.0) -> bool:
        """Wait for the next try, at least as long as was asked for; False: there is none."""
        backoff = min(_FIRST_WAIT_S * 2**self.tries, _LONGEST_WAIT_S) * random.uniform(0.5, 1)  # noqa: S311
        wait_s = max(backoff, asked_s)
        if monotonic() + wait_s > self.ends:
            return False
        self.tries += 1
        await asyncio.sleep(wait_s)
        return True


class Wire:
    """One merchant's way to a hub."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        api_secret: str,
        *,
        timeout_s: float = 30.0,
        patience_s: float = 20.0,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        """`timeout_s` bounds each try and `patience_s` how long a request is repeated. A `session` that is
        given is used and left open. Raises `ValueError` for what is no http(s) URL."""
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("base_url is the hub's address, such as https://till.example")
        self._base = base_url.rstrip("/")
        self._key, self._secret = api_key, api_secret
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        # A file takes as long as it takes; what is bounded is how long nothing comes.
        self._streaming = aiohttp.ClientTimeout(total=None, sock_connect=timeout_s, sock_read=timeout_s)
        self._patience_s = patience_s
        self._given, self._session = session, session
        self._token, self._token_ends = "", 0.0
        self._login = asyncio.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._base!r}, api_key={self._key!r})"

    async def __aenter__(self) -> Self:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, self._given
        if session is not None and session is not self._given:
            await session.close()

    # --- for the verbs ---

    async def _get(self, path: str, kind: type[T]) -> T:
        return _decoded(await self._send("GET", path), kind)

    async def _post(
        self, path: str, kind: type[T], body: Any = None, idempotency_key: str | None = None
    ) -> T:
        """The key is made here if none is given, and stays the same over all tries."""
        key = idempotency_key or f"tillgate-{secrets.token_hex(16)}"
        return _decoded(await self._send("POST", path, body, {"Idempotency-Key": key}), kind)

    async def _patch(self, path: str, kind: type[T], body: Mapping[str, Any]) -> T:
        return _decoded(await self._send("PATCH", path, body), kind)

    async def _delete(self, path: str) -> None:
        await self._send("DELETE", path)

    async def _all(self, path: str, kind: type[T], filters: Mapping[str, Any]) -> AsyncIterator[T]:
        """Every row, a page at a time, as they are asked for."""
        params = dict(filters)
        while True:
            page = _decoded(await self._send("GET", path, params=params), _PageOf)
            for one in page.data:
                yield _decoded(one, kind)
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor

    async def _pieces(self, path: str, params: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """A long answer as it comes. Repeated until it begins; raises `NoAnswer` where it is cut off."""
        patience, renewed = self._patience(), False
        while True:
            token = await self._bearer()
            try:
                async with self._request(
                    "GET", path, None, _bearing(token), params, self._streaming
                ) as reply:
                    if reply.status == 200:
                        async for piece in reply.content.iter_any():
                            patience.ends = 0  # a second try would begin anew
                            yield piece
                        return
                    problem, after = _refusal(reply.status, await _read(reply)), _after(reply)
            except (aiohttp.ClientError, OSError) as error:
                if not await patience.wait():
                    raise self._lost(error) from None
                continue
            if problem.http_status == 401 and not renewed:
                renewed = True
                self._forget(token)
            elif problem.http_status not in (429, 503) or not await patience.wait(after):
                raise problem

    async def _send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> bytes:
        """One request, repeated while that is safe. Raises `ApiError` or `NoAnswer`.

        429 and 503 say that nothing was done. A lost answer may mean that it was: then only what reads,
        carries a key or deletes is sent again."""
        harmless = method in ("GET", "DELETE") or bool(headers)
        patience, renewed, lost = self._patience(), False, False
        while True:
            token = await self._bearer()
            try:
                status, answer, after = await self._once(
                    method, path, body, {**(headers or {}), **_bearing(token)}, params
                )
            except (aiohttp.ClientError, OSError) as error:
                lost = True
                if not harmless or not await patience.wait():
                    raise self._lost(error) from None
                continue
            if 200 <= status < 300:
                return answer
            problem = _refusal(status, answer)
            if status == 401 and not renewed:
                renewed = True
                self._forget(token)
                continue
            if method == "DELETE" and status == 404 and lost:
                return b""  # the try before, whose answer was lost, did it
            untouched = status in (429, 503) or problem.error_code == "in_flight"
            # A proxy that lost the hub on the way says so without a problem of the hub's.
            unknown = status in (502, 504) and problem.error_code == "error"
            lost = lost or unknown
            if not (untouched or (unknown and harmless)) or not await patience.wait(after):
                raise problem

    # --- tokens ---

    async def _bearer(self) -> str:
        """The token, a new one where it is about to end; many requests at once ask for one together."""
        async with self._login:
            if not self._token or monotonic() > self._token_ends:
                token = await self._new_token()
                early = min(_EARLY_S, token.expires_in / 2)
                self._token, self._token_ends = token.access_token, monotonic() + token.expires_in - early
            return self._token

    def _forget(self, token: str) -> None:
        if self._token == token:  # another request may have renewed it already
            self._token = ""

    async def _new_token(self) -> _Token:
        body = {"api_key": self._key, "api_secret": self._secret}
        patience = self._patience()
        while True:
            try:
                status, answer, after = await self._once("POST", "/v1/token", body, {}, None)
            except (aiohttp.ClientError, OSError) as error:
                if not await patience.wait():
                    raise self._lost(error) from None
                continue
            if status == 200:
                return _decoded(answer, _Token)
            if status not in (429, 502, 503, 504) or not await patience.wait(after):
                raise _refusal(status, answer)

    # --- one try ---

    async def _once(
        self, method: str, path: str, body: Any, headers: Mapping[str, str], params: Mapping[str, Any] | None
    ) -> tuple[int, bytes, float]:
        async with self._request(method, path, body, headers, params, self._timeout) as reply:
            return reply.status, await _read(reply), _after(reply)

    def _request(
        self,
        method: str,
        path: str,
        body: Any,
        headers: Mapping[str, str],
        params: Mapping[str, Any] | None,
        timeout: aiohttp.ClientTimeout,
    ) -> Any:
        if self._session is None:
            raise RuntimeError("use it as: async with Tillgate(…) as till")
        sent = {"User-Agent": f"tillgate-python/{version('tillgate')}", **headers}
        data = None if body is None else msgspec.json.encode(body)
        if data is not None:
            sent["Content-Type"] = "application/json"
        return self._session.request(
            method,
            self._base + path,
            data=data,
            headers=sent,
            params=_texts(params or {}),
            timeout=timeout,
            allow_redirects=False,  # a token goes nowhere but to the hub
        )

    def _patience(self) -> _Patience:
        return _Patience(monotonic() + self._patience_s)

    def _lost(self, error: BaseException) -> NoAnswer:
        return NoAnswer(f"{self._base} did not answer: {type(error).__name__}")


def _bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def params(**given: Any) -> dict[str, str]:
    """As they go into a query or a body. Raises `ValueError` for a time without a zone."""
    return _texts(given)


def _texts(given: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, value in given.items():
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise ValueError(f"{name} needs a time zone: datetime.now(UTC), for example")
            found[name] = value.isoformat()
        elif value is not None:
            found[name] = str(value)
    return found


async def _read(reply: aiohttp.ClientResponse) -> bytes:
    """The whole answer. Raises `NoAnswer` for one that no hub gives."""
    found = bytearray()
    async for piece in reply.content.iter_any():
        found += piece
        if len(found) > MAX_ANSWER_BYTES:
            reply.close()
            raise NoAnswer("the answer is too large")
    return bytes(found)


def _after(reply: aiohttp.ClientResponse) -> float:
    text = reply.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0


def _decoded(raw: bytes | msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NoAnswer("the answer cannot be read: it is not a hub's, or a newer hub's") from None


def _refusal(status: int, answer: bytes) -> ApiError:
    try:
        problem = msgspec.json.decode(answer, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = _Problem(detail="the answer is not a hub's")
    kind = BY_STATUS.get(status, ApiError)
    return kind(status, problem.code, problem.detail, problem.param, problem.request_id)
