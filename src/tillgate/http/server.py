"""The socket in front of the application: uvicorn, with the limits that it lacks.

A request has so long to arrive, its head is only so big, and so many connections are held. Whoever passes a
limit is answered in JSON and closed, so that no client can hold the hub by sending nothing.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tillgate.domain.errors import Misconfigured

KEEP_ALIVE_S: Final = 620
"""Payme keeps its connections for ten minutes; closing one earlier costs a payment's round trip."""
PATIENCE_S: Final = 20.0
DRAIN_S: Final = 20
HEAD_BYTES: Final = 64 * 1024
CONNECTIONS: Final = 8192
BACKLOG: Final = 2048


class _Joined:
    """A transport that sends the head of an answer together with what follows it in the same turn of the
    loop: one packet and one call to the system instead of two of each, as uvicorn would write them."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
            self._transport.write(data)
        elif data.startswith(b"HTTP/"):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def _flush(self) -> None:
        if self._head:
            data, self._head = self._head, b""
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(HttpToolsProtocol):
    """One connection. `since` is when the request began to arrive that has not arrived yet."""

    since: float | None = None
    _in_head = True
    _head_bytes = 0
    _refusal = HTTPStatus.BAD_REQUEST

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Joined(transport, self.loop))  # type: ignore[arg-type]  # duck typing
        self.since = self.loop.time()  # a connection that never says anything is late, too
        if len(self.connections) > CONNECTIONS:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)

    def data_received(self, data: bytes) -> None:
        if self.since is None:
            self.since = self.loop.time()
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_bytes > HEAD_BYTES:  # seldom, and then a body may be part of it
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > HEAD_BYTES:
                self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                raise ValueError  # the parser stops, and `send_400_response` says why
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.since, self._in_head, self._head_bytes = None, True, 0

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal)

    def give_up(self) -> None:
        """The request did not arrive in time."""
        if self.transport.is_closing():
            return
        unanswered = self._in_head or not self.cycle.response_started
        begun = self._head_bytes or not self._in_head
        if begun and unanswered:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus) -> None:
        kind, message = _WORDS[status]
        error = {"errorCode": str(int(status)), "errorType": kind, "errorMessage": message}
        body = json.dumps({"status": "failed", **error}).encode()
        head = (
            f"HTTP/1.1 {int(status)} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


_WORDS: Final = {
    HTTPStatus.BAD_REQUEST: ("invalid_request", "This is not an HTTP request"),
    HTTPStatus.REQUEST_TIMEOUT: ("request_timeout", "The request did not arrive in time"),
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: ("headers_too_large", "The headers are too large"),
    HTTPStatus.SERVICE_UNAVAILABLE: ("service_unavailable", "Too many connections. Please try again later"),
}


class Server(uvicorn.Server):
    """`await serve(sockets)` until `stop()`; takes no signals by itself."""

    def __init__(
        self, app: Starlette, *, patience_s: float = PATIENCE_S, started: Callable[[], None] | None = None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                access_log=False,
                log_level="error",
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=DRAIN_S,
                server_header=False,
                date_header=False,
                backlog=BACKLOG,
                lifespan="off",
            )
        )
        self._app, self._patience_s, self._on_start = app, patience_s, started

    def stop(self) -> None:
        """Take no new connection, answer what is in flight, end. A second call does not wait."""
        self.force_exit = self.should_exit
        self.should_exit = True
        if (runtime := getattr(self._app.state, "runtime", None)) is not None:
            runtime.closing = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Raises what the application's start raises (`Misconfigured`, `Unavailable`), unlogged."""
        async with self._app.router.lifespan_context(self._app):
            await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_start is not None:
            self._on_start()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            late = asyncio.get_running_loop().time() - self._patience_s
            for one in list(self.server_state.connections):
                if isinstance(one, _Protocol) and one.since is not None and one.since < late:
                    one.give_up()
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(server: Server, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; a second one ends at once."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        for one in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(one, server.stop)
        await server.serve(sockets=[listening])

    with asyncio.Runner(loop_factory=_loop_factory(server)) as runner:
        runner.run(serve())


def _loop_factory(server: Server) -> Callable[[], Any] | None:
    factory: Callable[[], Any] | None = server.config.get_loop_factory()
    return factory


def listen(host: str, port: int, said_by: str = "--port") -> socket.socket:
    """A listening address, taken before anything else is done. Raises `Misconfigured` in one line."""
    try:
        [family, kind, proto, _, address] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, proto)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(address)
        except BaseException:
            taken.close()
            raise
    except OSError as error:
        why = error.strerror or str(error)
        raise Misconfigured(
            f"cannot listen on {host}:{port}: {why}; choose another with {said_by} (0: any free one)"
        ) from None
    return taken
