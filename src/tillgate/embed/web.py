"""A web framework's request as the bytes that a gateway sent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tillgate.spi import Inbound

if TYPE_CHECKING:
    from starlette.requests import Request


async def inbound(request: Request, max_body_bytes: int) -> Inbound:
    """A body that is too long is cut after its limit: it is refused unread, and the rest is not waited for.

    Raises Starlette's `ClientDisconnect`.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_body_bytes:
            break
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
