"""A web framework's request as the bytes that a gateway sent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from tillgate.spi import Inbound

if TYPE_CHECKING:
    from starlette.requests import Request


class BodyGone(Exception):
    """The route read the body before us, and nothing keeps it."""


async def inbound(request: Request, max_body_bytes: int) -> Inbound:
    """A body that is too long is cut after its limit: it is refused unread, and the rest is not waited for.

    Raises Starlette's `ClientDisconnect`, and `BodyGone`.
    """
    return described(request, await _body(request, max_body_bytes))


def described(request: Request, body: bytes) -> Inbound:
    """The request with this body."""
    scope = request.scope  # `request.url` and `.headers` would be put together only to be taken apart
    client = scope.get("client")
    return Inbound(
        method=scope["method"],
        path=scope["path"],
        query=scope.get("query_string", b"").decode("latin-1"),
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
        body=body,
        peer=client[0] if client else "",
        received_at=time.time_ns() // 1_000_000,
    )


async def _body(request: Request, max_body_bytes: int) -> bytes:
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_body_bytes:
                break
    except RuntimeError as consumed:  # `body()` and `json()` keep what they read, `form()` keeps its fields
        form = getattr(request, "_form", None)
        if body or not form:
            raise BodyGone(
                "the body was read before the handler: read it by body(), json() or form()"
            ) from consumed
        texts = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        return urlencode(texts).encode()
    return body
