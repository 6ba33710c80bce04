"""A payment's state as a stream of server-sent events: bounded, with a heartbeat, ended by the last state."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tillgate.domain.errors import Unavailable

MAX_STREAMS: Final = 256
MAX_PER_PAYMENT: Final = 8
READ_EVERY_S: Final = 1.0
HEARTBEAT_S: Final = 15.0
LIFE_S: Final = 900.0  # the browser opens another; one that nobody holds any more does not stay for ever
RETRY_MS: Final = 3000

Read = Callable[[], Awaitable[tuple[int, bytes, bool]]]
"""The version, the JSON and whether it is the last one."""


class Streams:
    """The open streams of this process. Who finds no room is told to poll."""

    def __init__(self, closing: Callable[[], bool]) -> None:
        self._closing = closing
        self._open: Counter[str] = Counter()

    def has_room(self, payment_id: str) -> bool:
        return self._open.total() < MAX_STREAMS and self._open[payment_id] < MAX_PER_PAYMENT

    def stream(self, payment_id: str, read: Read, headers: dict[str, str]) -> Response:
        return _Stream(self, payment_id, read, headers)

    async def run(self, payment_id: str, read: Read, receive: Receive, send: Send) -> None:
        self._open[payment_id] += 1
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await self._send_states(read, gone, send)
        finally:
            gone.cancel()
            self._open[payment_id] -= 1
            self._open += Counter()  # drops what is zero

    async def _send_states(self, read: Read, gone: asyncio.Future[None], send: Send) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + LIFE_S
        silent_at = loop.time() + HEARTBEAT_S
        seen, last = -1, False
        await _part(send, f"retry: {RETRY_MS}\n\n")
        while not last and loop.time() < ends_at and not self._closing():
            # A store that is away for a moment is no reason to send a browser away.
            with suppress(Unavailable):
                version, body, last = await read()
                if version != seen:
                    seen, silent_at = version, loop.time() + HEARTBEAT_S
                    await _part(send, f"event: state\nid: {version}\ndata: {body.decode()}\n\n")
            if loop.time() >= silent_at:
                silent_at = loop.time() + HEARTBEAT_S
                await _part(send, ":\n\n")
            if not last:
                done, _ = await asyncio.wait([gone], timeout=READ_EVERY_S)
                if done:
                    return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Stream(Response):
    media_type = "text/event-stream"

    def __init__(self, streams: Streams, payment_id: str, read: Read, headers: dict[str, str]) -> None:
        super().__init__(headers={**headers, "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._run = streams.run
        self._payment_id, self._read = payment_id, read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        await self._run(self._payment_id, self._read, receive, send)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _part(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
