"""The network between a kiosk and its hub, with faults: it drops, holds, cuts after the request, resets."""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator

FAULTS = ("pass", "refuse", "cut", "reset", "hold", "late")
"""pass: as it comes · refuse: nobody answers · cut: the request arrives, its answer does not · reset: the
same by a reset, at once · hold: the same after a while · late: the request arrives a second time, later."""


class FaultProxy:
    """Forwards TCP to `target`; `fault` says what becomes of connections and of requests on them."""

    def __init__(self, target_port: int):
        self.target_port = target_port
        self.fault = "pass"
        self.mix: random.Random | None = None
        self.port = 0
        self.requests = 0
        self.broken = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_all(self) -> None:
        """End every connection now, as an unplugged cable does."""
        for writer in list(self._writers):
            writer.transport.abort()

    def _now(self) -> str:
        if self.mix is not None:
            return self.mix.choice(FAULTS)
        return self.fault

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            while True:
                request = await _message(reader)
                self.requests += 1
                fault = self._now()
                if fault != "pass":
                    self.broken += 1
                if fault == "refuse":
                    return
                back, upstream = await asyncio.open_connection("127.0.0.1", self.target_port)
                self._writers.add(upstream)
                upstream.write(request)
                await upstream.drain()
                if fault == "reset":
                    _reset(writer)
                    await asyncio.sleep(0.02)
                    return
                answer = await _message(back)
                if fault == "hold":
                    await asyncio.sleep(0.1)
                    return
                if fault == "cut":
                    return
                if fault == "late":
                    self._repeat_later(request)
                writer.write(answer)
                await writer.drain()
                upstream.transport.abort()
                self._writers.discard(upstream)
        finally:
            if upstream is not None:
                upstream.transport.abort()
                self._writers.discard(upstream)

    def _repeat_later(self, request: bytes) -> None:
        """The network delivers an old request once more, when newer ones have been answered."""

        async def repeat() -> None:
            await asyncio.sleep(0.1)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.target_port)
                writer.write(request)
                await writer.drain()
                await asyncio.sleep(0.2)
                writer.transport.abort()

        task = asyncio.create_task(repeat())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _message(reader: asyncio.StreamReader) -> bytes:
    """One HTTP/1.1 message with a Content-Length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    return head + await reader.readexactly(length)


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.asynccontextmanager
async def fault_proxy(target_port: int) -> AsyncIterator[FaultProxy]:
    proxy = FaultProxy(target_port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
