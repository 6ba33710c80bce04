"""Providers' messages: raw bytes in, the provider's dialect out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any, Final, TypeAlias

import structlog
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from tillgate.domain.errors import Misconfigured, NotFound, Unauthorized, Unavailable
from tillgate.http.operation import identify, peer
from tillgate.http.tokens import Tokens
from tillgate.metrics import RouteFigures
from tillgate.runtime import Runtime
from tillgate.spi import Hears, Inbound, Provider, Reply, can
from tillgate.store.directory import Account, Merchant

log = structlog.get_logger("tillgate.http")

LIMIT_BYTES: Final = 1024 * 1024
METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
"""Which of them a dialect takes, and how it refuses the others, is its own."""
NAMED: Final = "/in/{account_id}"
_NOT_FOUND: Final = Reply(404, b'{"error":"not_found"}')
_TOO_LARGE: Final = Reply(413, b'{"error":"payload_too_large"}')
_NOT_NOW: Final = Reply(503, b'{"error":"service_unavailable"}', headers={"retry-after": "5"})
Found: TypeAlias = Callable[[Scope], Awaitable[tuple[Merchant, Account]]]


class Door:
    """Where providers' messages come in: an ASGI application that needs no layer around it. It answers
    whatever fails and counts itself."""

    def __init__(self, runtime: Runtime, path: str, found: Found, *, owns: bool = False) -> None:
        """`owns`: what is below the path is the dialect's, too."""
        self._runtime, self._path, self._found = runtime, path, found
        self.owns = owns
        self.methods = METHODS
        self.figures: dict[str, RouteFigures] = {}  # by method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun, method = perf_counter(), scope["method"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        identify(scope)
        try:
            merchant, account = await self._found(scope)
            reply = await self._reply(merchant, account, scope, receive, headers)
        except NotFound:
            reply = _NOT_FOUND
        except Exception as error:
            if not isinstance(error, Unavailable):
                log.error("a message could not be taken", path=self._path, exc_info=True)
            reply = _NOT_NOW
        raw = [
            (b"content-length", b"%d" % len(reply.body)),
            (b"content-type", reply.content_type.encode("latin-1")),
        ]
        for name, value in reply.headers.items():
            raw.append((name.lower().encode("latin-1"), value.encode("latin-1")))
        await send({"type": "http.response.start", "status": reply.status, "headers": raw})
        await send({"type": "http.response.body", "body": reply.body})
        if method not in self.figures:
            self.figures[method] = RouteFigures(method, self._path)
        self.figures[method].answered(reply.status, perf_counter() - begun)

    async def _reply(
        self, merchant: Merchant, account: Account, scope: Scope, receive: Receive, headers: dict[str, str]
    ) -> Reply:
        kit = self._runtime.kit
        connector = kit.connector(account)
        if not can(connector, Hears):
            return _NOT_FOUND
        # A dialect with a word for "too large" says it itself.
        body = await read(receive, cut=hasattr(connector, "max_body"))
        if body is None:
            return _TOO_LARGE
        call = inbound(scope, headers, body, kit.clock())
        return await self._runtime.hub.receive(merchant, account, call)


class ServingDoor(Door):
    """Where a payment is asked for, by a token of the merchant's or as its account says."""

    def __init__(self, runtime: Runtime, path: str, found: Found, *, owns: bool = False) -> None:
        super().__init__(runtime, path, found, owns=owns)
        self._tokens = Tokens(runtime.token_keys, runtime.settings.token_ttl_s, runtime.kit.clock)

    async def _reply(
        self, merchant: Merchant, account: Account, scope: Scope, receive: Receive, headers: dict[str, str]
    ) -> Reply:
        runtime = self._runtime
        if account.disabled:
            return _NOT_FOUND
        body = await read(receive)
        if body is None:
            return _TOO_LARGE
        call = inbound(scope, headers, body, runtime.kit.clock())
        trusted = _own_token(call, merchant, self._tokens)
        return await runtime.hub.serve(merchant, account, call, trusted=trusted)


def doors(runtime: Runtime) -> dict[str, Door]:
    """Path → door: `/in/{account_id}`, and each provider's documented paths for its default account."""

    async def by_name(scope: Scope) -> tuple[Merchant, Account]:
        return await runtime.directory.account(scope["path"].rpartition("/")[2][:80], disabled=True)

    made = {NAMED: Door(runtime, NAMED, by_name)}
    for path, provider in documented(runtime.providers).items():
        kind = ServingDoor if path in provider.serves else Door
        made[path] = kind(runtime, path, _default(runtime, provider.name), owns=path in provider.owns)
    return made


def routes(doors: Mapping[str, Door]) -> list[BaseRoute]:
    """The doors at all their spellings."""
    made: list[BaseRoute] = []
    for path, door in doors.items():
        also = [] if path == NAMED else [f"{path}/"]
        if door.owns:
            also.append(f"{path}/{{rest:path}}")
        made += [Route(spelling, door, methods=door.methods) for spelling in (path, *also)]
    return made


def documented(providers: Mapping[str, Provider[Any]]) -> dict[str, Provider[Any]]:
    """Documented path → provider. Raises `Misconfigured` where two want the same."""
    found: dict[str, Provider[Any]] = {}
    for provider in providers.values():
        for path in (*provider.paths, *provider.serves):
            if path in found:
                raise Misconfigured(f"{provider.name} and {found[path].name} both document {path}")
            found[path] = provider
    return found


def described(providers: Mapping[str, Provider[Any]]) -> dict[str, Any]:
    """The documented paths, for OpenAPI."""
    paths = {}
    for path, provider in documented(providers).items():
        name = path.strip("/").replace("/", "_").replace("-", "_")
        what = provider.serves.get(path) or f"{provider.paths[path]}; the same as /in/ of its default account"
        said = {
            "summary": f"{provider.title}: {what}",
            "tags": ["Providers"],
            "responses": {"default": {"description": "The provider's dialect."}},
        }
        body: dict[str, Any] = {"requestBody": {"content": {"*/*": {}}}}
        paths[path] = {
            "get": {"operationId": f"inbound_{name}_get", **said},
            "post": {"operationId": f"inbound_{name}", **said, **body},
            "put": {"operationId": f"inbound_{name}_put", **said, **body},
        }
    return paths


def _default(runtime: Runtime, provider: str) -> Found:
    async def found(_scope: Scope) -> tuple[Merchant, Account]:
        return await runtime.directory.default_account(provider)

    return found


def _own_token(call: Inbound, merchant: Merchant, tokens: Tokens) -> bool:
    """Whether it bears an access token of this merchant's."""
    scheme, _, token = call.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    try:
        claims = tokens.read(token.strip())
    except Unauthorized:
        return False
    ends = merchant.credentials.get(claims.credential_id, 0)
    return claims.merchant_id == merchant.id and (ends is None or call.received_at < ends)


async def read(receive: Receive, *, cut: bool = False) -> bytes | None:
    """The whole body; None if it is larger than any provider's, or one byte more than that, if `cut`."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body") and len(body) <= LIMIT_BYTES:
        message = await receive()
        body += message.get("body", b"")
    if message["type"] == "http.disconnect":
        return None
    if len(body) > LIMIT_BYTES:
        return bytes(body[: LIMIT_BYTES + 1]) if cut else None
    return bytes(body)


def inbound(scope: Scope, headers: Mapping[str, str], body: bytes, now: int) -> Inbound:
    query = scope["query_string"].decode("latin-1")
    return Inbound(scope["method"], scope["path"], query, headers, body, peer(scope), now)
