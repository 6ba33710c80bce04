"""The virtual terminal's browser page and its HTTP API, on loopback: what a person presses, a test
can press too.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from tillgate.providers.mobypay.loopback import LOOPBACK_HOSTS, LoopbackServer
from tillgate.providers.mobypay.simulator import ACTIONS, ON_CANCEL, VirtualTerminal

PAGE: Final = Path(__file__).with_name("terminal_page")
FILES: Final = {
    "": ("index.html", "text/html; charset=utf-8"),
    "terminal.css": ("terminal.css", "text/css; charset=utf-8"),
    "terminal.js": ("terminal.js", "text/javascript; charset=utf-8"),
}
MAX_BODY: Final = 64 * 1024
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


def terminal_app(terminal: VirtualTerminal) -> Starlette:
    """The page at `/`, and `GET /state`, `POST /act`, `POST /script`, `POST /settings`."""

    async def page(request: Request) -> Response:
        name, kind = FILES[request.url.path.lstrip("/")]
        return FileResponse(PAGE / name, media_type=kind, headers=HEADERS)

    async def state(_: Request) -> Response:
        return JSONResponse(terminal.snapshot(), headers=HEADERS)

    async def act(request: Request) -> Response:
        """`{"action": "approve", "txn_id"?, "after_s"?, "amount"?, "message"?, "status"?}`"""
        body = await _body(request)
        terminal.act(**_options(body))
        return await state(request)

    async def script(request: Request) -> Response:
        """`{"steps": [{"action": "decline", "after_s"?, …}]}`: what to do with the next requests, one
        each.
        """
        steps = (await _body(request)).get("steps")
        if not isinstance(steps, list) or len(steps) > 100:
            raise ValueError("steps is a list of at most 100 actions")
        checked = [_options(step) for step in steps]
        terminal.script.clear()
        terminal.script.extend(checked)
        return await state(request)

    async def settings(request: Request) -> Response:
        """`{"auto"?: action or null, "on_cancel"?: "fail" | "ack" | "result_first" | "ignore"}`"""
        body = await _body(request)
        if "auto" in body:
            if body["auto"] is not None and body["auto"] not in ACTIONS:
                raise ValueError("auto is an action or null")
            terminal.auto = body["auto"]
        if "on_cancel" in body:
            if body["on_cancel"] not in ON_CANCEL:
                raise ValueError("on_cancel is one of " + ", ".join(ON_CANCEL))
            terminal.on_cancel = body["on_cancel"]
        return await state(request)

    async def wrong(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, 422, headers=HEADERS)

    routes = [
        Route("/state", state),
        Route("/act", act, methods=["POST"]),
        Route("/script", script, methods=["POST"]),
        Route("/settings", settings, methods=["POST"]),
        *(Route(f"/{name}", page) for name in FILES),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={ValueError: wrong, TypeError: wrong},
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK_HOSTS))],
    )


async def _body(request: Request) -> dict[str, Any]:
    # A page of another site cannot send this type without asking first, and is never allowed to.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ValueError("send application/json")
    raw = b""
    async for piece in request.stream():
        raw += piece
        if len(raw) > MAX_BODY:
            raise ValueError("the body is too large")
    body = json.loads(raw)
    if not isinstance(body, dict):
        raise ValueError("send a JSON object")
    return body


def _options(step: Any) -> dict[str, Any]:
    kinds: dict[str, Any] = {
        "action": str, "txn_id": str, "after_s": (int, float), "amount": (int, float), "message": str,
        "status": str, "plans": list,
    }  # fmt: skip
    if not isinstance(step, dict) or step.get("action") not in ACTIONS:
        raise ValueError("action is one of " + ", ".join(ACTIONS))
    for name, value in step.items():
        if name not in kinds or not isinstance(value, kinds[name]) or isinstance(value, bool):
            raise ValueError(f"{name} is not an option, or not of the right type")
    if not 0 <= step.get("after_s", 0) <= 600:
        raise ValueError("after_s is from 0 to 600")
    return step


@contextlib.asynccontextmanager
async def serve_page(terminal: VirtualTerminal, port: int = 0) -> AsyncIterator[int]:
    """Serve the page on 127.0.0.1 while the block runs; yields the port. Raises BadRequest if it is taken."""
    server = LoopbackServer(terminal_app(terminal), "127.0.0.1", port)
    serving = asyncio.create_task(server.serve())
    try:
        yield await server.bound_port(serving)
    finally:
        server.should_exit = True
        await serving
