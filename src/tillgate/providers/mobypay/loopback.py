"""An HTTP server beside other work in one event loop, for this machine only. It takes over no signals."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn

from tillgate.providers.mobypay.config import is_loopback
from tillgate.providers.mobypay.errors import BadRequest

SHUTDOWN_S: Final = 3
LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")
"""Names a browser may have used to get here; any other means that a page elsewhere pointed its name at us."""


class LoopbackServer(uvicorn.Server):
    """uvicorn without its signal handlers, its logs and its lifespan."""

    def __init__(self, app: Any, host: str, port: int):
        """Raises BadRequest for a host that other machines could reach, or a port that is taken."""
        if not is_loopback(host):
            raise BadRequest("this listens on loopback addresses only")
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                lifespan="off",
                log_level="critical",
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=SHUTDOWN_S,
                limit_concurrency=256,
                h11_max_incomplete_event_size=16 * 1024,
            )
        )
        self._ready = asyncio.Event()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise BadRequest(f"port {port} cannot be used: {error.strerror}") from error

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit`."""
        try:
            await super().serve([self._socket])
        finally:
            self._socket.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Also tells whoever waits for the port."""
        await super().startup(sockets)
        self._ready.set()

    async def bound_port(self, serving: "asyncio.Task[None]") -> int:
        """The port, once requests are taken."""
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({ready, serving}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if serving.done():
            await serving
        port: int = self._socket.getsockname()[1]
        return port

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the program around us."""
        yield
