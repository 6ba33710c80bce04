"""The application: a FastAPI shell around raw operations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from time import perf_counter
from typing import Any, Final

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tillgate.domain.errors import Fault, InvalidRequest, Misconfigured, NotFound, TillgateError, Unavailable
from tillgate.http import checkout, docs, inbound, kiosk, merchant, openapi, openapi_plain, ops, sandbox, v1
from tillgate.http.limits import RateLimit
from tillgate.http.metrics import Scrape
from tillgate.http.operation import Bound, Dialect, MethodNotAllowed, Web, identify, named
from tillgate.http.tokens import Tokens
from tillgate.hub.endpoints import EVENT_KINDS
from tillgate.logs import REQUEST
from tillgate.metrics import RouteFigures
from tillgate.runtime import Runtime
from tillgate.settings import Settings
from tillgate.store import schema

log = structlog.get_logger("tillgate.http")

_UNTRACED: Final = ("/healthz", "/readyz", "/metrics", "/openapi.json")


class Application(FastAPI):
    """FastAPI, with a front door: an operation without a parameter in its path, and a provider's message, is
    found by one look-up and passes none of the shell's layers. They answer every error themselves, so they
    need none of them."""

    front: dict[tuple[str, str], ASGIApp]
    routed: dict[str, str]  # a spelling of an operation's path → the template it is counted under
    figures: dict[tuple[str, str], RouteFigures]  # of what nothing answered that counts itself
    bounds: list[Bound]
    doors: list[inbound.Door]
    templates: dict[Any, str]  # endpoint → the path of its route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            method, path = scope["method"], scope["path"]
            if path.startswith("/in/") and path.count("/") == 2:
                path = inbound.NAMED
            served = self.front.get((method, path))
            if served is not None:
                await served(scope, receive, send)
                return
            identify(scope)
            send = self._counted(scope, send)
        await super().__call__(scope, receive, send)

    def _counted(self, scope: Scope, send: Send) -> Send:
        begun = perf_counter()

        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                served = scope.get("endpoint")
                if not isinstance(served, _Methods | inbound.Door) or scope["method"] not in served.methods:
                    # Only what we serve is told apart: anybody can ask for other paths and methods.
                    route = self.templates.get(served, "")
                    at = scope["method"] if route and message["status"] != 405 else "", route
                    if at not in self.figures:
                        self.figures[at] = RouteFigures(*at)
                    self.figures[at].answered(message["status"], perf_counter() - begun)
            await send(message)

        return count

    def routes_figures(self) -> list[RouteFigures]:
        heard = [figures for door in self.doors for figures in door.figures.values()]
        return [*(one.figures for one in self.bounds), *heard, *self.figures.values()]


def create_app(settings: Settings, *, worker: bool = True, migrate: bool = True) -> Application:
    """The hub as an ASGI application. Its store is opened and closed by its lifespan."""
    runtime = Runtime(settings, worker=worker, migrate=migrate)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with runtime:
            scrape = Scrape(runtime, app.routes_figures)
            mount(app, runtime, scrape)
            async with ops.listening(runtime, scrape):
                yield

    app = Application(
        title="Tillgate",
        version=version("tillgate"),
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # Ours are in `metrics` and `tracing`; its own would tell what exceptions say.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.front, app.routed, app.figures, app.bounds, app.doors, app.templates = {}, {}, {}, [], [], {}
    app.router.redirect_slashes = False
    app.state.runtime = runtime
    answer = _answering(merchant.DocumentDialect(legacy_error_code_200=settings.legacy_error_code_200))
    for kind in (HTTPException, TillgateError, Exception):
        app.add_exception_handler(kind, answer)
    return app


def mount(app: Application, runtime: Runtime, scrape: Scrape) -> None:
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
    operations += [*v1.operations(), *kiosk.operations()]
    token = settings.metrics_bearer()
    metrics = token is not None or settings.sandbox
    described = openapi.document(
        operations,
        version=version("tillgate"),
        url=settings.url,
        about=docs.ABOUT,
        plain={
            **openapi_plain.paths(sandbox=settings.sandbox, metrics=metrics),
            **inbound.described(runtime.providers),
        },
        events=EVENT_KINDS,
    )

    routes = app.router.routes
    app.bounds = [one.bind(web) for one in operations]
    for path, found in _by_path(app.bounds).items():
        routes.append(Route(path, _Methods(found)))
        app.routed[path] = next(iter(found.values())).figures.route
        if "{" not in path:
            app.front |= {(method, path): bound for method, bound in found.items()}
    doors = inbound.doors(runtime)
    app.doors = list(doors.values())
    for path, door in doors.items():
        app.routed[path] = path
        app.front |= {(method, path): door for method in door.methods}
    routes += inbound.routes(doors)
    routes += checkout.routes(runtime)
    if settings.sandbox:
        routes += sandbox.routes(runtime)
    routes += [*docs.routes(described), *ops.health(runtime)]
    if metrics:
        routes += ops.figures(scrape, token)
    for one in routes:
        if isinstance(one, Route):
            app.templates.setdefault(one.endpoint, one.path)
    if runtime.tracing is not None:
        _trace(app, runtime.tracing.served)


def _trace(app: Application, traced: Callable[[ASGIApp, str], ASGIApp]) -> None:
    """Put what takes or shows money under spans; health and figures are asked too often for that."""
    app.front = {
        (method, path): traced(served, app.routed[path]) for (method, path), served in app.front.items()
    }
    for one in app.router.routes:
        if isinstance(one, Route) and one.path not in _UNTRACED and not one.path.startswith("/docs"):
            one.app = traced(one.app, app.routed.get(one.path, one.path))


def _by_path(bounds: list[Bound]) -> dict[str, dict[str, Bound]]:
    found: dict[str, dict[str, Bound]] = {}
    for bound in bounds:
        for path in bound.operation.paths:
            # A slash at the end is served, never redirected: a redirect makes some clients send twice.
            for spelling in (path, f"{path}/"):
                found.setdefault(spelling, {})[bound.operation.method] = bound
    return found


class _Methods:
    """The operations of one path; an ASGI application, so that a request passes no needless layer."""

    def __init__(self, by_method: dict[str, Bound]) -> None:
        self.methods = by_method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp | None = self.methods.get(scope["method"])
        if app is None:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self.methods))})
        await app(scope, receive, send)


def _answering(document: Dialect) -> Callable[[Request, Exception], Awaitable[Response]]:
    """What no operation answered: unknown paths and methods, and what broke behind a page or a door."""

    async def answer(request: Request, error: Exception) -> Response:
        said = _ours(error)
        if isinstance(error, Fault) and not isinstance(error, Unavailable):
            log.error("a request failed", route=request.url.path[:100], exc_info=error)
        dialect = v1.DIALECT if request.url.path.startswith("/v1/") else document
        request_id = (REQUEST.get(b"") or named(b"")).decode()
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


__all__ = ["Misconfigured", "create_app", "schema"]
