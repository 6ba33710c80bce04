"""A merchant's endpoint that costs next to nothing: `python -m bench.sink PORT`.

It takes any POST, remembers `webhook-id`, and answers 200. `GET /hold` makes it keep its answers back until
`GET /release`; `GET /stats` tells what came since: {"count", "distinct", "held", "released_at", "last_at"},
in seconds of the system's monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"


class Sink:
    def __init__(self) -> None:
        self.holding = False
        self.waiting: list[asyncio.Transport] = []
        self.reset()

    def reset(self) -> None:
        self.count, self.held, self.ids = 0, 0, set[bytes]()
        self.released_at = self.last_at = time.monotonic()

    def command(self, path: bytes) -> bytes:
        if path == b"/hold":
            self.reset()
            self.holding = True
        elif path == b"/release":
            self.holding = False
            self.held = len(self.waiting)
            self.released_at = self.last_at = time.monotonic()
            for transport in self.waiting:
                transport.write(_OK)
            self.waiting.clear()
        elif path == b"/reset":
            self.reset()
        stats = {
            "count": self.count, "distinct": len(self.ids), "held": self.held or len(self.waiting),
            "released_at": self.released_at, "last_at": self.last_at,
        }  # fmt: skip
        body = json.dumps(stats).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
            len(body),
            body,
        )


class Connection(asyncio.Protocol):
    def __init__(self, sink: Sink) -> None:
        self.sink, self.received = sink, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's has the methods, not the base class

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            total = end + 4 + int(_header(head, b"content-length") or 0)
            if len(self.received) < total:
                return
            self.received = self.received[total:]
            if head.startswith(b"get"):
                self.transport.write(self.sink.command(head.split(b" ", 2)[1]))
                continue
            self.sink.count += 1
            self.sink.ids.add(_header(head, b"webhook-id"))
            if self.sink.holding:
                self.sink.waiting.append(self.transport)
            else:
                self.sink.last_at = time.monotonic()
                self.transport.write(_OK)


def _header(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip()


async def serve(port: int) -> None:
    sink = Sink()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(sink), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(int(sys.argv[1])))
