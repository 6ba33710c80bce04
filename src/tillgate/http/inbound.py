"""Providers' messages: raw bytes in, the provider's dialect out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tillgate.domain.errors import Misconfigured, NotFound, Unauthorized, Unavailable
from tillgate.http.operation import peer
from tillgate.http.tokens import Tokens
from tillgate.runtime import Runtime
from tillgate.spi import Hears, Inbound, Provider, Reply
from tillgate.store.directory import Account, Merchant

LIMIT_BYTES: Final = 1024 * 1024


METHODS: Final = ["GET", "POST", "PUT"]
ALL_METHODS: Final = [*METHODS, "PATCH", "DELETE"]
Found: TypeAlias = Callable[[Request], Awaitable[tuple[Merchant, Account]]]


def routes(runtime: Runtime) -> list[BaseRoute]:
    """`/in/{account_id}`, and each provider's documented paths for its default account."""
    directory = runtime.directory

    async def named(request: Request) -> tuple[Merchant, Account]:
        return await directory.account(request.path_params["account_id"][:80])

    made: list[BaseRoute] = [Route("/in/{account_id}", _heard(runtime, named), methods=METHODS)]
    tokens = Tokens(runtime.token_keys, runtime.settings.token_ttl_s, runtime.kit.clock)
    for path, provider in documented(runtime.providers).items():
        found = _default(runtime, provider.name)
        door = _served(runtime, found, tokens) if path in provider.serves else _heard(runtime, found)
        # Every method, and what is below a path of its own, is the dialect's to refuse.
        below = [f"{path}/{{rest:path}}"] if path in provider.owns else []
        made += [Route(spelling, door, methods=ALL_METHODS) for spelling in (path, f"{path}/")]
        made += [Route(spelling, door, methods=ALL_METHODS) for spelling in below]
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
    async def found(_request: Request) -> tuple[Merchant, Account]:
        return await runtime.directory.default_account(provider)

    return found


def _heard(runtime: Runtime, found: Found) -> Callable[[Request], Awaitable[Response]]:
    async def heard(request: Request) -> Response:
        try:
            merchant, account = await found(request)
        except NotFound:
            return Response(b'{"error":"not_found"}', 404, media_type="application/json")
        except Unavailable:
            return Response(b'{"error":"service_unavailable"}', 503, {"retry-after": "5"}, "application/json")
        connector = runtime.kit.connector(account)
        if not isinstance(connector, Hears):
            return Response(b'{"error":"not_found"}', 404, media_type="application/json")
        # A dialect with a word for "too large" says it itself.
        body = await read(request, cut=hasattr(connector, "max_body"))
        if body is None:
            return Response(b'{"error":"payload_too_large"}', 413, media_type="application/json")
        reply = await runtime.hub.receive(merchant, account, inbound(request, body, runtime.kit.clock()))
        return response(reply)

    return heard


def _served(runtime: Runtime, found: Found, tokens: Tokens) -> Callable[[Request], Awaitable[Response]]:
    """Where a payment is asked for, by a token of the merchant's or as its account says."""

    async def served(request: Request) -> Response:
        try:
            merchant, account = await found(request)
        except NotFound:
            return Response(b'{"error":"not_found"}', 404, media_type="application/json")
        except Unavailable:
            return Response(b'{"error":"service_unavailable"}', 503, {"retry-after": "5"}, "application/json")
        body = await read(request)
        if body is None:
            return Response(b'{"error":"payload_too_large"}', 413, media_type="application/json")
        now = runtime.kit.clock()
        trusted = _own_token(request, merchant, tokens, now)
        reply = await runtime.hub.serve(merchant, account, inbound(request, body, now), trusted=trusted)
        return response(reply)

    return served


def _own_token(request: Request, merchant: Merchant, tokens: Tokens, now: int) -> bool:
    """Whether it bears an access token of this merchant's."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    try:
        claims = tokens.read(token.strip())
    except Unauthorized:
        return False
    ends = merchant.credentials.get(claims.credential_id, 0)
    return claims.merchant_id == merchant.id and (ends is None or now < ends)


async def read(request: Request, *, cut: bool = False) -> bytes | None:
    """The whole body; None if it is larger than any provider's, or one byte more than that, if `cut`."""
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > LIMIT_BYTES:
                return bytes(body[: LIMIT_BYTES + 1]) if cut else None
    except ClientDisconnect:
        return None
    return bytes(body)


def inbound(request: Request, body: bytes, now: int) -> Inbound:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Inbound(
        request.method, request.url.path, request.url.query, headers, body, peer(request.scope), now
    )


def response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, dict(reply.headers), reply.content_type)
