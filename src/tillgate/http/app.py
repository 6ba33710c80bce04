"""The application: a FastAPI shell around raw operations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tillgate.domain.errors import Fault, InvalidRequest, Misconfigured, NotFound, TillgateError, Unavailable
from tillgate.http import checkout, docs, inbound, merchant, openapi, openapi_plain, sandbox, v1
from tillgate.http.limits import RateLimit
from tillgate.http.operation import Bound, Dialect, MethodNotAllowed, Operation, Web, named
from tillgate.http.tokens import Tokens
from tillgate.hub.endpoints import EVENT_KINDS
from tillgate.runtime import Runtime
from tillgate.settings import Settings
from tillgate.store import schema

log = structlog.get_logger("tillgate.http")


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
    answer = _answering(merchant.DocumentDialect(legacy_error_code_200=settings.legacy_error_code_200))
    for kind in (HTTPException, TillgateError, Exception):
        app.add_exception_handler(kind, answer)
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
        plain={**openapi_plain.paths(sandbox=settings.sandbox), **inbound.described(runtime.providers)},
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


def _answering(document: Dialect) -> Callable[[Request, Exception], Awaitable[Response]]:
    """What no operation answered: unknown paths and methods, and what broke behind a page or a door."""

    async def answer(request: Request, error: Exception) -> Response:
        said = _ours(error)
        if isinstance(error, Fault) and not isinstance(error, Unavailable):
            log.error("a request failed", route=request.url.path[:100], exc_info=error)
        dialect = v1.DIALECT if request.url.path.startswith("/v1/") else document
        request_id = named(request.headers.get("x-request-id", "").encode("latin-1")).decode()
        status, body, kind = dialect.error(said, request_id, None)
        headers = {"cache-control": "no-store", "x-request-id": request_id}
        headers |= {"retry-after": "1"} if status == 503 else {}
        headers |= dict(getattr(error, "headers", None) or {})
        return Response(body, status, headers, kind)

    return answer


def _ours(error: Exception) -> TillgateError:
    if isinstance(error, TillgateError):
        return error
    if isinstance(error, HTTPException):
        known: dict[int, TillgateError] = {
            404: NotFound("There is nothing at this address"),
            405: MethodNotAllowed(),
        }
        return known.get(error.status_code, InvalidRequest(str(error.detail)))
    return Fault()


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
