"""The kiosk's calls to its hub, against a server that answers as it likes."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer

from tillgate.providers.mobypay.uplink import Hub


class _Answer(msgspec.Struct):
    words: str


async def test_an_answer_that_comes_in_pieces_is_read_to_its_end() -> None:
    words = "x" * 50_000

    async def in_pieces(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        await reply.prepare(request)
        body = msgspec.json.encode({"words": words})
        for start in range(0, len(body), 10_000):
            await reply.write(body[start : start + 10_000])
            await asyncio.sleep(0.01)
        await reply.write_eof()
        return reply

    app = web.Application()
    app.router.add_post("/call", in_pieces)
    async with TestServer(app) as server:
        hub = Hub(str(server.make_url("")), None)
        try:
            assert (await hub.call("/call", {}, _Answer)).words == words
        finally:
            await hub.close()
