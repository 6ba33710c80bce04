"""Providers' messages: raw bytes in, the provider's dialect out."""

from __future__ import annotations

from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tillgate.domain.errors import NotFound, Unavailable
from tillgate.http.operation import peer
from tillgate.runtime import Runtime
from tillgate.spi import Hears, Inbound, Reply

LIMIT_BYTES: Final = 1024 * 1024


def routes(runtime: Runtime) -> list[BaseRoute]:
    async def heard(request: Request) -> Response:
        account_id = request.path_params["account_id"]
        try:
            merchant, account = await runtime.directory.account(account_id[:80])
        except NotFound:
            return Response(b'{"error":"not_found"}', 404, media_type="application/json")
        except Unavailable:
            return Response(b'{"error":"service_unavailable"}', 503, {"retry-after": "5"}, "application/json")
        if not isinstance(runtime.kit.connector(account), Hears):
            return Response(b'{"error":"not_found"}', 404, media_type="application/json")
        body = await read(request)
        if body is None:
            return Response(b'{"error":"payload_too_large"}', 413, media_type="application/json")
        reply = await runtime.hub.receive(merchant, account, inbound(request, body, runtime.kit.clock()))
        return response(reply)

    return [Route("/in/{account_id}", heard, methods=["GET", "POST", "PUT"])]


async def read(request: Request) -> bytes | None:
    """The whole body; None if it is larger than any provider's."""
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > LIMIT_BYTES:
                return None
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
