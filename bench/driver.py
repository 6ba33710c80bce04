"""`python -m bench.driver KIND COUNT WAVE`: creates in one process without sockets, for cachegrind to count.

KIND is `hub`, `naive`, or `payme` for the hub's answers to Payme's four calls. COUNT payments are made in
waves of WAVE at once, as so many connections would send them. The rest of the process (imports, start-up, the
token) is the same for every COUNT and falls out of a difference.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Application = Callable[
    [dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]


# Made from a text, as the loader over sockets makes it: what a client does is not the server's to pay.
_BODY = b'{"wallet_id":"gopay","amount":150000,"currency":"IDR","order_id":"order-%012d"}'


async def call(
    app: Application, path: str, data: bytes, headers: list[tuple[bytes, bytes]]
) -> tuple[int, bytes]:
    """One request as the server would hand it over."""
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": "POST", "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": [
            (b"host", b"127.0.0.1"), (b"content-type", b"application/json"),
            (b"content-length", str(len(data)).encode()), *headers,
        ],
        "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 8080), "state": {},
    }  # fmt: skip
    given = [{"type": "http.request", "body": data, "more_body": False}]
    status, parts = 0, []

    async def receive() -> dict[str, Any]:
        return given.pop() if given else await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return status, b"".join(parts)


class Lifespan:
    """Starts the application up and shuts it down again."""

    def __init__(self, app: Application) -> None:
        self._app, self._to, self._from = app, asyncio.Queue[Any](), asyncio.Queue[Any]()

    async def _say(self, what: str) -> None:
        await self._to.put({"type": f"lifespan.{what}"})
        answer = await self._from.get()
        if answer["type"] != f"lifespan.{what}.complete":
            raise RuntimeError(answer)

    async def __aenter__(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        self._task = asyncio.ensure_future(self._app(scope, self._to.get, self._from.put))
        await self._say("startup")

    async def __aexit__(self, *_: object) -> None:
        await self._say("shutdown")
        await self._task


One = Callable[[int], Awaitable[None]]
"""Does what is counted, for a number of its own."""


def naive(directory: Path) -> tuple[Application, Callable[[], Awaitable[One]]]:
    import jwt

    secret = "s" * 32
    os.environ |= {"PEER_DATABASE_URL": f"sqlite:///{directory}/peer.db", "PEER_SECRET": secret}
    from bench.peers.naive_sqlite import app

    async def ready() -> One:
        claims = {"sub": "1", "exp": int(time.time()) + 3600}
        return _creates(app, jwt.encode(claims, secret, algorithm="HS256"))

    return app, ready


def hub(directory: Path) -> tuple[Application, Callable[[], Awaitable[One]]]:
    app, token = _hub(directory)

    async def ready() -> One:
        quiet()
        return _creates(app, await token())

    return app, ready


def payme(directory: Path) -> tuple[Application, Callable[[], Awaitable[One]]]:
    """Payme's four calls to one of a thousand standing orders."""
    from bench.load import ID, ONE_OF_1000
    from bench.payme import account_of_the_hub, four_calls, standing_order

    app, token = _hub(directory)

    async def ready() -> One:
        bearer = [(b"authorization", f"Bearer {await token()}".encode())]
        made = json.loads(await _expect(app, "/v1/accounts", account_of_the_hub(), bearer))
        for number in range(1000, 2000):
            await _expect(app, "/v1/standing-orders", standing_order(number), bearer)
        steps = four_calls(f"/in/{made['id']}", "order_id")

        async def flow(number: int) -> None:
            for step in steps:
                text = step.body.replace(ID, f"{number:012d}").replace(ONE_OF_1000, f"{number % 1000:03d}")
                headers = [(name.lower().encode(), value.encode()) for name, value in step.headers.items()]
                status, answer = await call(app, step.path, text.encode(), headers)
                if status != 200 or step.marker.encode() not in answer:
                    raise RuntimeError(f"payme: {status} {answer[:300]!r}")

        quiet()
        return flow

    return app, ready


def quiet() -> None:
    """As `tillgate up` does; the naive handler's server does not."""
    from tillgate.commands.server import quiet_collector

    quiet_collector()


def _hub(directory: Path) -> tuple[Application, Callable[[], Awaitable[str]]]:
    from bench.hub import hub_environment

    environment = hub_environment(f"sqlite:///{directory}/hub.db", 8080)
    os.environ |= environment
    from tillgate.http.app import create_app
    from tillgate.settings import load
    from tillgate.store import directory as directory_module

    # Under valgrind a second holds fifty times fewer creates: what is remembered for a while must not expire
    # that much more often than it does in life.
    directory_module._FRESH_S = 3600.0
    app = create_app(load(), worker=False)  # its idle rounds are not part of a create

    async def token() -> str:
        keys = {
            "api_key": environment["TILLGATE_BOOTSTRAP_API_KEY"],
            "api_secret": environment["TILLGATE_BOOTSTRAP_API_SECRET"],
        }
        access: str = json.loads(await _expect(app, "/token", keys, []))["access_token"]
        return access

    return app, token


async def _expect(app: Application, path: str, body: Any, headers: list[tuple[bytes, bytes]]) -> bytes:
    status, answer = await call(app, path, json.dumps(body).encode(), headers)
    if status not in (200, 201):
        raise RuntimeError(f"{path}: {status} {answer[:300]!r}")
    return answer


def _creates(app: Application, bearer: str) -> One:
    headers = [(b"authorization", f"Bearer {bearer}".encode())]

    async def create(number: int) -> None:
        status, answer = await call(app, "/payments", _BODY % number, headers)
        if status != 200 or b'"payment_id":"pay_' not in answer:
            raise RuntimeError(f"create: {status} {answer[:300]!r}")

    return create


async def drive(kind: str, count: int, wave: int, directory: Path) -> None:
    app, ready = {"hub": hub, "naive": naive, "payme": payme}[kind](directory)
    async with Lifespan(app):
        one = await ready()
        for first in range(0, count, wave):
            await asyncio.gather(*(one(number) for number in range(first, min(first + wave, count))))


if __name__ == "__main__":
    import uvloop

    # tmpfs, so that what is counted is ours; the kernel's share is not counted anyway.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as directory:
        uvloop.run(drive(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(directory)))
