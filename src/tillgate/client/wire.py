"""The wire below the client: tokens, time-outs, and repeating what is safe to repeat."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
import msgspec

from tillgate.domain.errors import TillgateError

T = TypeVar("T")
_TRIES: Final = 4
_EARLY_S: Final = 30.0


class ApiError(TillgateError):
    """The hub refused the request."""

    def __init__(
        self, status: int, code: str, detail: str, param: str | None, request_id: str | None
    ) -> None:
        super().__init__(f"{detail} ({code}, HTTP {status})")
        self.http_status, self.error_code, self.detail = status, code, detail
        self.param, self.request_id = param, request_id


class NoAnswer(TillgateError):
    """The hub did not answer. What was asked may have happened: repeat it with the same idempotency_key."""


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


class Wire:
    """One merchant's way to a hub; use as an async context manager. `timeout_s` bounds each try."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        api_secret: str,
        *,
        timeout_s: float = 30.0,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self._base = base_url.rstrip("/")
        self._key, self._secret = api_key, api_secret
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
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

    async def _get(self, path: str, kind: type[T]) -> T:
        return await self._call("GET", path, kind)

    async def _post(
        self, path: str, kind: type[T], body: Any = None, idempotency_key: str | None = None
    ) -> T:
        key = idempotency_key or f"tillgate-{secrets.token_hex(16)}"
        return await self._call("POST", path, kind, body, {"Idempotency-Key": key})

    async def _call(
        self,
        method: str,
        path: str,
        kind: type[T],
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        return msgspec.json.decode(await self._send(method, path, body, headers), type=kind)

    async def _all(self, path: str, kind: type[T], filters: Mapping[str, Any]) -> AsyncIterator[T]:
        params = dict(filters)
        while True:
            raw = await self._send("GET", path, params=params)
            page = msgspec.json.decode(raw, type=_PageOf)
            for one in page.data:
                yield msgspec.json.decode(one, type=kind)
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor

    async def _send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> bytes:
        """One request, repeated while that is safe: it is a read, or it carries a key, and nothing was
        decided yet. Raises `ApiError` or `NoAnswer`."""
        repeatable = method == "GET" or bool(headers)
        renewed = False
        for number in range(1, _TRIES + 1):
            wait_s = 0.2 * 2**number
            sent = {**(headers or {}), "Authorization": f"Bearer {await self._bearer()}"}
            try:
                status, answer, after = await self._once(method, path, body, sent, params)
            except (aiohttp.ClientError, TimeoutError) as error:
                if not repeatable or number == _TRIES:
                    raise NoAnswer(f"{self._base}: {type(error).__name__}") from None
            else:
                if status < 400:
                    return answer
                if status == 401 and not renewed:
                    renewed, self._token = True, ""
                    continue
                problem = _problem(answer)
                again = status in (429, 503) or problem.code == "in_flight"
                if not again or not repeatable or number == _TRIES:
                    raise ApiError(status, problem.code, problem.detail, problem.param, problem.request_id)
                wait_s = max(wait_s, after)
            await asyncio.sleep(min(wait_s, 30.0))
        raise NoAnswer(self._base)

    async def _once(
        self, method: str, path: str, body: Any, headers: Mapping[str, str], params: Mapping[str, Any] | None
    ) -> tuple[int, bytes, float]:
        if self._session is None:
            raise RuntimeError("use it as: async with Tillgate(…) as till")
        data = None if body is None else msgspec.json.encode(body)
        sent = {**headers, "Content-Type": "application/json"} if data is not None else headers
        given = {name: str(value) for name, value in (params or {}).items() if value is not None}
        async with self._session.request(
            method,
            self._base + path,
            data=data,
            headers=sent,
            params=given,
            timeout=self._timeout,
            allow_redirects=False,
        ) as reply:
            answer = await reply.read()
            after = reply.headers.get("Retry-After", "")
            return reply.status, answer, float(after) if after.isdigit() else 0.0

    async def _bearer(self) -> str:
        async with self._login:
            if not self._token or monotonic() > self._token_ends:
                body = {"api_key": self._key, "api_secret": self._secret}
                for number in range(1, _TRIES + 1):
                    try:
                        status, answer, _ = await self._once("POST", "/v1/token", body, {}, None)
                        break
                    except (aiohttp.ClientError, TimeoutError) as error:
                        if number == _TRIES:
                            raise NoAnswer(f"{self._base}: {type(error).__name__}") from None
                        await asyncio.sleep(0.2 * 2**number)
                if status != 200:
                    problem = _problem(answer)
                    raise ApiError(status, problem.code, problem.detail, problem.param, problem.request_id)
                token = msgspec.json.decode(answer, type=_Token)
                self._token, self._token_ends = token.access_token, monotonic() + token.expires_in - _EARLY_S
            return self._token


def _problem(answer: bytes) -> _Problem:
    try:
        return msgspec.json.decode(answer, type=_Problem)
    except msgspec.DecodeError:
        return _Problem(detail="the answer is not from a hub")
