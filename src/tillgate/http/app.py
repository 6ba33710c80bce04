"""The application: a FastAPI shell around raw operations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tillgate import schemas
from tillgate.domain.errors import InvalidRequest, Misconfigured, NotFound, TillgateError, Unavailable
from tillgate.http import checkout, docs, inbound, merchant, openapi, openapi_plain, sandbox, v1
from tillgate.http.limits import RateLimit
from tillgate.http.operation import Bound, MethodNotAllowed, Operation, Web, named
from tillgate.http.tokens import Tokens
from tillgate.hub.endpoints import EVENT_KINDS
from tillgate.runtime import Runtime
from tillgate.settings import Settings
from tillgate.store import schema


class Application(FastAPI):
    """FastAPI, with a front door: an operation without a parameter in its path is found by one look-up and
    passes none of the shell's layers. It answers every error itself, so it needs none of them."""

    front: dict[tuple[str, str], Bound]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            bound = self.front.get((scope["method"], scope["path"]))
            if bound is not None:
                await bound(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


def create_app(settings: Settings, *, worker: bool = True, migrate: bool = True) -> Application:
    """The hub as an ASGI application. Its store is opened and closed by its lifespan."""
    runtime = Runtime(settings, worker=worker, migrate=migrate)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with runtime:
            mount(app, runtime)
            yield

    app = Application(
        title="Tillgate",
        version=version("tillgate"),
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.front = {}
    app.router.redirect_slashes = False
    app.state.runtime = runtime
    app.add_exception_handler(HTTPException, _http_error)
    return app


def mount(app: Application, runtime: Runtime) -> None:
    """Put the routes of an open runtime into the application."""
    settings = runtime.settings
    web = Web(
        runtime,
        Tokens(runtime.token_keys, settings.token_ttl_s, runtime.kit.clock),
        RateLimit(settings.rate_limit),
        RateLimit(settings.rate_limit),
    )
    dialect = merchant.DocumentDialect(legacy_error_code_200=settings.legacy_error_code_200)
    operations = merchant.operations(dialect)
    if settings.sandbox:
        operations += sandbox.operations(dialect)
    operations += v1.operations()
    described = openapi.document(
        operations,
        version=version("tillgate"),
        url=settings.url,
        plain=openapi_plain.paths(sandbox=settings.sandbox),
        events=EVENT_KINDS,
    )

    routes = app.router.routes
    for path, found in _by_path(operations, web).items():
        routes.append(Route(path, _Methods(found)))
        if "{" not in path:
            app.front |= {(method, path): bound for method, bound in found.items()}
    routes += inbound.routes(runtime)
    routes += checkout.routes(runtime)
    if settings.sandbox:
        routes += sandbox.routes(runtime)
    routes += [*docs.routes(described), *_health(runtime)]


def _by_path(operations: list[Operation], web: Web) -> dict[str, dict[str, Bound]]:
    found: dict[str, dict[str, Bound]] = {}
    for one in operations:
        bound = one.bind(web)
        for path in one.paths:
            # A slash at the end is served, never redirected: a redirect makes some clients send twice.
            for spelling in (path, f"{path}/"):
                found.setdefault(spelling, {})[one.method] = bound
    return found


class _Methods:
    """The operations of one path; an ASGI application, so that a request passes no needless layer."""

    def __init__(self, by_method: dict[str, Bound]) -> None:
        self._by_method = by_method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp | None = self._by_method.get(scope["method"])
        if app is None:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self._by_method))})
        await app(scope, receive, send)


async def _http_error(request: Request, error: Exception) -> Response:
    """Unknown paths and methods, in the document's shape, or as a problem."""
    assert isinstance(error, HTTPException)
    if request.url.path.startswith("/v1/"):
        return _problem(request, error)
    kind, message = {
        404: ("not_found", "There is nothing at this address"),
        405: (MethodNotAllowed.code, MethodNotAllowed.__doc__ or ""),
    }.get(error.status_code, ("invalid_request", str(error.detail)))
    request_id = named(request.headers.get("x-request-id", "").encode("latin-1")).decode()
    out = schemas.ErrorOut(
        status="failed",
        errorCode=str(error.status_code),
        errorType=kind,
        errorMessage=message,
        request_id=request_id,
    )
    content: Any = msgspec.to_builtins(out)
    headers = {"cache-control": "no-store", "x-request-id": request_id, **(error.headers or {})}
    return JSONResponse(content, error.status_code, headers)


def _problem(request: Request, error: HTTPException) -> Response:
    kinds: dict[int, TillgateError] = {
        404: NotFound("There is nothing at this address"),
        405: MethodNotAllowed(),
    }
    said = kinds.get(error.status_code, InvalidRequest(str(error.detail)))
    request_id = named(request.headers.get("x-request-id", "").encode("latin-1")).decode()
    status, body, kind = v1.DIALECT.error(said, request_id)
    headers = {"cache-control": "no-store", "x-request-id": request_id, **(error.headers or {})}
    return Response(body, status, headers, kind)


def _health(runtime: Runtime) -> list[Route]:
    async def alive(_request: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers={"cache-control": "no-store"})

    async def ready(_request: Request) -> Response:
        """Ready to take money: the store answers and has this version's tables."""
        try:
            await runtime.kit.reads.ping()
        except Unavailable as error:
            return JSONResponse({"status": "unavailable", "reason": str(error)}, 503, {"retry-after": "1"})
        status = 503 if runtime.closing else 200
        return JSONResponse({"status": "draining" if runtime.closing else "ready"}, status)

    return [Route("/healthz", alive), Route("/readyz", ready)]


__all__ = ["Misconfigured", "create_app", "schema"]
