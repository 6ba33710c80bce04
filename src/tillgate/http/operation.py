"""One operation of the API, as an ASGI application: authenticate, limit, read, decode, answer.

The frame does what every operation needs and nothing is done twice; what an operation accepts and answers is
declared here, and the OpenAPI document is made from the same declaration.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import msgspec
import structlog
from starlette.types import Receive, Scope, Send

from tillgate.domain.errors import (
    Fault,
    InvalidRequest,
    NotFound,
    RequestError,
    TillgateError,
    Unauthorized,
)
from tillgate.domain.record import record
from tillgate.http.limits import Limited, RateLimit
from tillgate.http.tokens import Tokens
from tillgate.hub import Key
from tillgate.logs import REQUEST
from tillgate.metrics import RouteFigures
from tillgate.runtime import Runtime
from tillgate.store.directory import Merchant
from tillgate.store.ids import chance, digest

log = structlog.get_logger("tillgate.http")

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_CHALLENGE: Final = b'Bearer realm="tillgate"'
_MISSING: Final = re.compile(r"missing required field `([^`]+)`")
_TYPE: Final = re.compile(r"`([^`]+)`")
_JSON_TYPES: Final = {
    "int": "a whole number", "float": "a number", "str": "a string", "bool": "a boolean",
    "array": "an array", "object": "an object", "str | null": "a string",
}  # fmt: skip
_UNKNOWN: Final = re.compile(r"unknown field `([^`]+)`")
_AT: Final = re.compile(r"at `\$\.([^`]+)`")


class TooLarge(RequestError):
    """The body is too large."""

    code, status = "payload_too_large", 413


class UnsupportedMediaType(RequestError):
    """Send JSON, with Content-Type: application/json."""

    code, status = "unsupported_media_type", 415


class MethodNotAllowed(RequestError):
    """This path does not take that method."""

    code, status = "method_not_allowed", 405


class NoToken(Unauthorized):
    """Access token is missing or expired."""


class Dialect(Protocol):
    """How errors are said. `model` and `content_type` describe what `error` gives."""

    model: type[Any]
    content_type: str

    def error(
        self, error: TillgateError, request_id: str, operation: Operation | None
    ) -> tuple[int, bytes, str]:
        """Status, body, content type. No operation: nothing is served there, or something that is none."""


@dataclass(slots=True)
class Web:
    """What every operation of one process shares."""

    runtime: Runtime
    tokens: Tokens
    limit: RateLimit
    login_limit: RateLimit


@dataclass(slots=True)
class Call:
    """One request, as a handler sees it."""

    web: Web
    merchant: Merchant
    params: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    key: Key | None
    scope: Scope

    @property
    def runtime(self) -> Runtime:
        return self.web.runtime


@record
class Answer:
    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = b"application/json"
    pieces: AsyncIterator[bytes] | None = None  # instead of `body`: sent as they come


Handler = Callable[[Call], Awaitable[Answer]]


@record
class Operation:
    """`body` is the struct that a request is decoded into, `replies` what is answered, by status."""

    method: str
    paths: tuple[str, ...]
    name: str
    summary: str
    dialect: Dialect
    handler: Handler
    replies: Mapping[int, type[Any]]
    errors: tuple[int, ...] = ()
    body: type[Any] | None = None
    auth: bool = True
    idempotent: bool = False  # takes an Idempotency-Key
    query: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    """Name → description, or → a JSON schema with one."""
    shows_secret: bool = False  # its answer is kept sealed
    bare: bool = False  # the body may be left out
    media: str = "application/json"  # of what is answered
    body_limit: int = 0  # bytes, where the setting is too small for it
    tag: str = ""
    example: Mapping[str, Any] | None = None

    def bind(self, web: Web) -> Bound:
        return Bound(self, web)


class Bound:
    """An operation with the process it serves; an ASGI application."""

    __slots__ = ("_decoder", "_fields", "_operation", "_web", "figures")

    def __init__(self, operation: Operation, web: Web) -> None:
        self._operation, self._web = operation, web
        self.figures = RouteFigures(operation.method, operation.paths[0])
        body = operation.body
        self._decoder = None if body is None else msgspec.json.Decoder(body)
        names = [] if body is None else [one.encode_name for one in msgspec.structs.fields(body)]
        self._fields = [f'"{name}"'.encode() for name in names]

    @property
    def operation(self) -> Operation:
        return self._operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = perf_counter()
        headers = dict(scope["headers"])
        request_id = named(headers.get(b"x-request-id", b""))
        REQUEST.set(request_id)
        try:
            answer = await self._answer(scope, receive, headers)
            if answer.pieces is not None:
                self.figures.answered(answer.status, perf_counter() - begun)
                return await self._stream(answer, request_id, send)
            status, body, extra, kind = answer.status, answer.body, answer.headers, answer.content_type
        except TillgateError as error:
            status, body, extra, kind = self._refused(error, request_id.decode())
        except Exception:
            log.error("a request failed", operation=self._operation.name, exc_info=True)
            status, body, extra, kind = self._refused(Fault(), request_id.decode())
        raw = [
            (b"content-type", kind),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request_id),
            *extra,
        ]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})
        self.figures.answered(status, perf_counter() - begun)

    async def _stream(self, answer: Answer, request_id: bytes, send: Send) -> None:
        """A failure on the way cuts the connection, so that half an answer is not taken for a whole one."""
        assert answer.pieces is not None
        raw = [
            (b"content-type", answer.content_type),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request_id),
            *answer.headers,
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        async for piece in answer.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _refused(
        self, error: TillgateError, request_id: str
    ) -> tuple[int, bytes, tuple[tuple[bytes, bytes], ...], bytes]:
        status, body, kind = self._operation.dialect.error(error, request_id, self._operation)
        extra: list[tuple[bytes, bytes]] = []
        if status == 401:
            # RFC 6750, 3.1: who sent no token is not told that one was wrong.
            wrong = isinstance(error, Unauthorized) and not isinstance(error, NoToken)
            extra.append((b"www-authenticate", _CHALLENGE + (b', error="invalid_token"' if wrong else b"")))
        if status in (429, 503) or error.code == "in_flight":
            wait_s = error.wait_s if isinstance(error, Limited) else 1
            extra.append((b"retry-after", b"%d" % wait_s))
        return status, body, tuple(extra), kind.encode()

    async def _answer(self, scope: Scope, receive: Receive, headers: dict[bytes, bytes]) -> Answer:
        operation, web = self._operation, self._web
        merchant: Any = None
        if operation.auth:
            merchant = await self._merchant(headers)
            web.limit.take(merchant.id)
        else:
            web.login_limit.take(peer(scope))
        raw = await self._read(receive, headers)
        body = None
        if self._decoder is not None:
            kind = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
            if operation.bare and not raw:
                raw = b"{}"
            elif kind != b"application/json" and not kind.endswith(b"+json"):
                raise UnsupportedMediaType()
            body = self._decode(raw)
        key = None
        if operation.idempotent and b"idempotency-key" in headers:
            key = self._key(merchant, headers[b"idempotency-key"], scope, body)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"))) if operation.query else {}
        params = scope.get("path_params", {})
        return await operation.handler(Call(web, merchant, params, query, body, key, scope))

    async def _merchant(self, headers: dict[bytes, bytes]) -> Merchant:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not token.strip():
            raise NoToken()
        claims = self._web.tokens.read(token.strip().decode("latin-1"))
        directory = self._web.runtime.directory
        try:
            merchant = directory.known(claims.merchant_id) or await directory.merchant(claims.merchant_id)
        except NotFound:  # a token of another database under the same key
            raise Unauthorized() from None
        ends = merchant.credentials.get(claims.credential_id, 0)
        if merchant.disabled or (ends is not None and self._web.runtime.kit.clock() >= ends):
            raise Unauthorized()
        return merchant

    async def _read(self, receive: Receive, headers: dict[bytes, bytes]) -> bytes:
        """The whole body, however it is cut. Raises `TooLarge` before it is held."""
        limit = self._operation.body_limit or self._web.runtime.settings.body_limit_bytes
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            raise TooLarge()
        message = await receive()
        body = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
            if len(body) > limit:
                raise TooLarge()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("the request was cut off")
        return bytes(body)

    def _decode(self, raw: bytes) -> Any:
        assert self._decoder is not None
        try:
            # A name given twice would be decided by whichever parser is asked: refuse it where it may be so.
            if b"\\" in raw or self._repeats(raw):
                json.loads(raw, object_pairs_hook=_once)
            return self._decoder.decode(raw)
        except msgspec.ValidationError as error:
            raise _invalid(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise InvalidRequest(_unreadable(error)) from None

    def _repeats(self, raw: bytes) -> bool:
        count = raw.count
        for name in self._fields:  # noqa: SIM110 - a generator costs more than the counting
            if count(name) > 1:
                return True
        return False

    def _key(self, merchant: Merchant, given: bytes, scope: Scope, body: Any) -> Key:
        text = given.decode("latin-1")
        if not 1 <= len(text) <= 255 or not text.isascii() or not text.isprintable():
            raise InvalidRequest(
                "Idempotency-Key is 1 to 255 printable ASCII characters", param="Idempotency-Key"
            )
        about = f"{self._operation.name}:{scope.get('path_params', {})}"
        content = msgspec.json.encode(body).decode()
        replies = self._operation.replies
        sealer = self._web.runtime.directory.sealer if self._operation.shows_secret else None
        first = 201 if 201 in replies else min(replies)
        return Key(digest("key", merchant.id, text), digest(about, content), first, sealer)


def identify(scope: Scope) -> None:
    """Give a request its id, for what is logged while it is answered."""
    REQUEST.set(named(next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")))


def named(given: bytes) -> bytes:
    """The request's id: the caller's own, if it is one, else a new one."""
    if given and _REQUEST_ID.fullmatch(given):
        return given
    return b"req_" + chance(12).encode()


def peer(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "unknown"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidRequest("a field is given twice")
    return found


def _invalid(message: str) -> InvalidRequest:
    missing = _MISSING.search(message)
    if missing:
        return InvalidRequest(f"Missing field: {missing[1]}", param=missing[1])
    unknown = _UNKNOWN.search(message)
    if unknown:
        name = unknown[1][:60]
        return InvalidRequest(f"There is no field {name}", param=name)
    at = _AT.search(message)
    if at:
        return InvalidRequest(f"Invalid field: {at[1]}. {_said(message)}", param=at[1])
    return InvalidRequest(_said(message))


def _said(message: str) -> str:
    """The decoder's words in JSON's: "Expected `int`, got `str`" names Python's types."""
    return _TYPE.sub(lambda found: _JSON_TYPES.get(found[1], found[1]), message.partition(" - at ")[0])


def _unreadable(error: Exception) -> str:
    if isinstance(error, InvalidRequest):
        return str(error)
    return (
        "The body is not valid JSON"
        if not isinstance(error, RecursionError)
        else "The body is nested too deeply"
    )
