"""A hub as a process of its own, and a merchant's client that knows nothing but the API document."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from multidict import CIMultiDictProxy

START_S = 30
PATIENCE_S = 15.0
_LISTENS = re.compile(r"listens on (http://[^\s,]+)")


class Process:
    """`tillgate …` with an environment of its own; what it says is in `log`."""

    def __init__(
        self, directory: Path, arguments: Sequence[str], settings: Mapping[str, object] | None = None
    ) -> None:
        self.arguments = list(arguments)
        self.settings = {f"TILLGATE_{name.upper()}": str(value) for name, value in (settings or {}).items()}
        self._directory = directory
        self._log = directory / f"{secrets.token_hex(6)}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> Self:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tillgate", *self.arguments],
                cwd=self._directory,
                env={**kept, "HOME": str(self._directory), **self.settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def listening(self) -> Self:
        """Wait until it says where it listens. Raises `RuntimeError` with what it said instead."""
        self.url = self.says(_LISTENS)[1]
        return self

    def says(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """Wait until its output holds this. Raises `RuntimeError` with what it said instead."""
        assert self.process is not None
        deadline = time.monotonic() + START_S
        while not (found := re.search(pattern, self.log)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"tillgate {' '.join(self.arguments)} said:\n{self.log}")
            time.sleep(0.01)
        return found

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 30) -> int:
        """The exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def hub(directory: Path, database_url: str, *arguments: str, **settings: object) -> Process:
    """A started `tillgate up` in the sandbox, on a free port, without a rate limit."""
    given = {"database_url": database_url, "sandbox": 1, "rate_limit": 0, **settings}
    return Process(directory, ["up", "--port", "0", *arguments], given).start().listening()


@contextmanager
def hub_in_thread(database_url: str, *, patience_s: float = 20, **settings: object) -> Iterator[str]:
    """A hub inside this process, where a test can reach what it runs on; its URL."""
    from tillgate.http.app import create_app
    from tillgate.http.server import Server, listen
    from tillgate.settings import load

    listening = listen("127.0.0.1", 0)
    given = {"database_url": database_url, "sandbox": True, "rate_limit": 0, **settings}
    loaded = load({**given, "port": listening.getsockname()[1]})
    started = threading.Event()
    server = Server(create_app(loaded), patience_s=patience_s, started=started.set)
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve(sockets=[listening])

    with ThreadPoolExecutor(1) as thread:
        served = thread.submit(asyncio.run, serve())
        try:
            while not started.wait(0.05):
                if served.done():
                    served.result()
            yield loaded.url
        finally:
            if loops and not served.done():
                loops[0].call_soon_threadsafe(server.stop)
            served.result(30)


@dataclass(frozen=True)
class Served:
    """A hub that runs, and the loopback ports that it may call back."""

    process: Process
    database_url: str
    callback_ports: tuple[int, ...]

    @property
    def url(self) -> str:
        return self.process.url


@dataclass(frozen=True)
class Credentials:
    api_key: str
    api_secret: str
    merchant_id: str
    webhook_secret: str


def new_merchant(database_url: str, name: str | None = None) -> Credentials:
    """Make a merchant in the sandbox, beside whatever processes run on that database."""
    with ThreadPoolExecutor(1) as thread:  # the caller may stand in a loop
        return thread.submit(asyncio.run, _new_merchant(database_url, name)).result()


async def _new_merchant(database_url: str, name: str | None) -> Credentials:
    from tillgate.runtime import Runtime
    from tillgate.settings import load

    settings = load({"database_url": database_url, "sandbox": True})
    async with Runtime(settings, migrate=False) as runtime:
        made = await runtime.create_merchant(name or f"shop {secrets.token_hex(6)}")
        merchant = await runtime.directory.merchant(made.merchant_id)
    return Credentials(made.api_key, made.api_secret, made.merchant_id, merchant.webhook_secrets[0])


async def rows(database_url: str, statement: str) -> list[tuple[Any, ...]]:
    """What a statement finds (or, where it changes something, nothing), past all of our code."""
    if database_url.startswith("sqlite:///"):
        connection = sqlite3.connect(database_url.removeprefix("sqlite:///"), timeout=20)
        try:
            found = connection.execute(statement).fetchall()
            connection.commit()
        finally:
            connection.close()
        return found
    import asyncpg

    postgres = await asyncpg.connect(database_url)
    try:
        return [tuple(row) for row in await postgres.fetch(statement)]
    finally:
        await postgres.close()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One merchant's till over real HTTP."""

    def __init__(self, base: str, credentials: Credentials) -> None:
        self.base, self.credentials, self.token = base, credentials, ""
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=30)
        connector = aiohttp.TCPConnector(limit=200)
        self._http = aiohttp.ClientSession(timeout=timeout, connector=connector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._http is not None
        await self._http.close()

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: Any = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> Answer:
        """`body` is sent as JSON, `raw` as it is (as JSON, unless `headers` say otherwise)."""
        assert self._http is not None
        sent = {"Authorization": f"Bearer {self.token if token is None else token}"}
        data = raw
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            sent["Content-Type"] = "application/json"
        sent |= headers or {}
        sent = {name: value for name, value in sent.items() if value}
        async with self._http.request(
            method,
            self.base + path,
            data=data,
            headers=sent,
            allow_redirects=False,
            skip_auto_headers=("Content-Type", "Accept"),
        ) as reply:
            return Answer(reply.status, reply.headers, await reply.read())

    async def login(self) -> Self:
        body = {"api_key": self.credentials.api_key, "api_secret": self.credentials.api_secret}
        answer = await self.ask("POST", "/token", body, headers={"Authorization": ""})
        self.token = answer.json["access_token"]
        return self

    async def open(
        self, order_id: str | None = None, amount: int = 150_000, wallet_id: str = "gopay", **more: Any
    ) -> str:
        """The id of a new payment."""
        body = {"wallet_id": wallet_id, "amount": amount, "currency": "IDR"}
        answer = await self.ask(
            "POST", "/payments", {**body, "order_id": order_id or f"ORD-{secrets.token_hex(6)}", **more}
        )
        assert answer.status == 200, answer
        return str(answer.json["payment_id"])

    async def act(self, payment_id: str, action: str, fault: str = "") -> Answer:
        query = f"?fault={fault}" if fault else ""
        return await self.ask("POST", f"/sandbox/payments/{payment_id}/{action}{query}")

    async def paid(self, amount: int = 150_000, **more: Any) -> str:
        payment_id = await self.open(amount=amount, **more)
        answer = await self.act(payment_id, "pay")
        assert answer.status == 200, answer
        return payment_id

    async def refund(self, payment_id: str, amount: int, **headers: str) -> Answer:
        body = {"amount": amount, "reason": "returned goods"}
        return await self.ask("POST", f"/payments/{payment_id}/refund", body, headers=headers)

    async def status(self, payment_id: str) -> Any:
        return (await self.ask("GET", f"/payments/{payment_id}")).json

    async def until(self, payment_id: str, **wanted: Any) -> Any:
        """Poll, as a till does, until the status body says all of `wanted`."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = await self.status(payment_id)
            if wanted.items() <= found.items():
                return found
            assert time.monotonic() < deadline, f"never {wanted}, but {found}"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def client(base: str, credentials: Credentials) -> AsyncIterator[Client]:
    """A till that holds a token."""
    async with Client(base, credentials) as opened:
        yield await opened.login()
