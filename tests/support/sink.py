"""A merchant's own server: keeps every callback it is sent, and answers as it is told."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from multidict import CIMultiDictProxy

from support.serving import rows

Answering = Callable[["Callback"], "Awaitable[web.StreamResponse | int] | web.StreamResponse | int"]


@dataclass(frozen=True)
class Callback:
    headers: CIMultiDictProxy[str]
    body: bytes
    at: float
    number: int  # of this webhook-id, from 1

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Sink:
    """`url` is what a merchant gives as its `callback_url`."""

    url: str
    answer: Answering = lambda _: 200
    got: list[Callback] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)  # paths asked for that are not the callback's

    async def until(self, count: int, timeout_s: float = 15) -> list[Callback]:
        """Wait for this many, and a moment for one too many."""
        deadline = time.monotonic() + timeout_s
        while len(self.got) < count:
            assert time.monotonic() < deadline, f"{len(self.got)} of {count} callbacks came"
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.15)
        assert len(self.got) == count, [one.body for one in self.got]
        return self.got


@asynccontextmanager
async def sink(port: int) -> AsyncIterator[Sink]:
    path = f"/callback/{secrets.token_hex(8)}"
    opened = Sink(f"http://127.0.0.1:{port}{path}")

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path != path or request.method != "POST":
            opened.strays.append(f"{request.method} {request.path}")
            return web.Response(status=404)
        number = 1 + sum(one.id == request.headers["webhook-id"] for one in opened.got)
        callback = Callback(request.headers, await request.read(), time.time(), number)
        opened.got.append(callback)
        answer: Any = opened.answer(callback)
        if asyncio.iscoroutine(answer):
            answer = await answer
        return web.Response(status=answer, text=f"answer {number}") if isinstance(answer, int) else answer

    app = web.Application(client_max_size=10**6)
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    try:
        yield opened
    finally:
        await runner.cleanup()


async def hurry(database_url: str) -> None:
    """Bring the next tries of all failed deliveries forward to now."""
    await rows(
        database_url,
        "UPDATE deliveries SET next_at = 0 WHERE state = 'pending' AND EXISTS (SELECT 1 FROM delivery_tries"
        " WHERE delivery_id = deliveries.id AND number = deliveries.tries)",
    )
