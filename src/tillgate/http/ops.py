"""What operators' machines ask: `/healthz`, `/readyz`, `/metrics`; also on a listener of their own."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tillgate.domain.errors import Unavailable
from tillgate.http.metrics import CONTENT_TYPE, Scrape
from tillgate.http.server import Server, listen
from tillgate.runtime import Runtime

log = structlog.get_logger("tillgate.http")

_NO_STORE = {"cache-control": "no-store"}


def health(runtime: Runtime) -> list[BaseRoute]:
    async def alive(_request: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_NO_STORE)

    async def ready(_request: Request) -> Response:
        """Ready to take money: the store answers and has this version's tables."""
        try:
            await runtime.kit.reads.ping()
        except Unavailable as error:
            return JSONResponse({"status": "unavailable", "reason": str(error)}, 503, {"retry-after": "1"})
        status = 503 if runtime.closing else 200
        return JSONResponse({"status": "draining" if runtime.closing else "ready"}, status)

    return [Route("/healthz", alive), Route("/readyz", ready)]


def figures(scrape: Scrape, token: str | None) -> list[BaseRoute]:
    """`/metrics`; with a token only to who holds it."""
    wanted = None if token is None else f"Bearer {token}".encode()

    async def metrics(request: Request) -> Response:
        given = request.headers.get("authorization", "").encode("latin-1")
        if wanted is not None and not hmac.compare_digest(given, wanted):
            headers = {"www-authenticate": 'Bearer realm="tillgate metrics"', **_NO_STORE}
            return JSONResponse({"error": "unauthorized"}, 401, headers)
        return Response(await scrape.text(), 200, _NO_STORE, CONTENT_TYPE)

    return [Route("/metrics", metrics)]


@asynccontextmanager
async def listening(runtime: Runtime, scrape: Scrape) -> AsyncIterator[str | None]:
    """Serve all three at `TILLGATE_OPS_LISTEN` while the block lasts; the address, or None where it is unset.

    Raises `Misconfigured` where it cannot listen there."""
    where = runtime.settings.ops_address()
    if where is None:
        yield None
        return
    taken = listen(*where, said_by="TILLGATE_OPS_LISTEN")
    app = Starlette(routes=[*health(runtime), *figures(scrape, None)])
    server = Server(app)
    task = asyncio.create_task(server.serve(sockets=[taken]), name="operations")
    try:
        host, port = taken.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        log.info("operations are served", url=url)
        yield url
    finally:
        server.stop()
        with suppress(asyncio.CancelledError):
            await task
