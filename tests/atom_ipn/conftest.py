"""The IPN service on a real port, in this process or in one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn

from tillgate.integrations.atom_ipn import create_ipn_app


def ipn(**changes: Any) -> dict[str, Any]:
    """The document's own example."""
    return {
        "requestId": "00017-058-0001",
        "orderId": "1234:5263763487",
        "amount": "10000",
        "tip": "0",
        "paymentType": "QR",
        "narrative": "Thanh toán",
        "fromAccNo": "0011004123456",
        "extraData": {"key1": "value1"},
        **changes,
    }


@dataclass
class Running:
    """A service that answers, and the alerts it raised."""

    url: str
    app: Any
    http: aiohttp.ClientSession
    alerts: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def journal(self) -> Any:
        return self.app.state.ipn.journal

    async def post(self, message: Any, path: str = "/ipn", **headers: str) -> tuple[int, dict[str, str]]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        sent: dict[str, Any] = (
            {"data": io.BytesIO(message)} if isinstance(message, bytes) else {"json": message}
        )
        async with self.http.post(self.url + path, headers=given, allow_redirects=False, **sent) as reply:
            assert reply.headers["content-type"] == "application/json"
            assert reply.headers["x-request-id"]
            body: dict[str, str] = await reply.json()
            return reply.status, body

    async def until(self, true: Callable[[], Any], within_s: float = 10.0) -> None:
        end = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < end, self.journal.counts()
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(hook: Any, database: Path, **options: Any) -> AsyncIterator[Running]:
    alerts: list[tuple[str, dict[str, Any]]] = []
    app = create_ipn_app(
        hook,
        on_alert=lambda kind, about: alerts.append((kind, about)),
        **{"database": str(database), "pause_s": 0.02, **options},
    )
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical")
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        try:
            yield Running(f"http://127.0.0.1:{port}", app, http, alerts)
        finally:
            await server.shutdown()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "ipn.db"


MAIN = """
import os, time
from pathlib import Path
from tillgate.integrations.atom_ipn import app

SEEN = Path(os.environ["SEEN"])


def process_ipn(ipn_request):
    with SEEN.open("a") as file:
        file.write(f"begin {ipn_request.requestId}\\n")
    time.sleep(float(os.environ.get("HOOK_S", "0")))
    with SEEN.open("a") as file:
        file.write(f"end {ipn_request.requestId} {ipn_request.amount}\\n")
"""


class Process:
    """`uvicorn main:app` as the IPN document says, in a process that can be killed."""

    def __init__(self, directory: Path, *, main: str = MAIN, **environ: str) -> None:
        self.directory = directory
        (directory / "main.py").write_text(main)
        self.seen = directory / "seen"
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TILLGATE_")},
            "SEEN": str(self.seen),
            "TILLGATE_IPN_DATABASE": str(directory / "ipn.db"),
            "TILLGATE_IPN_PAUSE_S": "0.05",
            **environ,
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, before: Callable[[], None] | None = None) -> None:
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "main:app",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--no-access-log", *arguments],
                cwd=self.directory,
                env=self.environ,
                stdout=log,
                stderr=log,
                preexec_fn=before,
                start_new_session=True,
            )
        end = time.monotonic() + 20
        while True:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return
            time.sleep(0.02)

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def kill(self) -> None:
        """As the system does when it runs out of memory: nobody is asked."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=20)

    def lines(self, word: str) -> list[str]:
        if not self.seen.exists():
            return []
        found = (line.split() for line in self.seen.read_text().splitlines())
        return [parts[1] for parts in found if parts[0] == word]

    def until(self, true: Callable[[], Any], within_s: float = 15.0) -> None:
        end = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < end, self.log
            time.sleep(0.02)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    made: list[Process] = []

    def make(**given: str) -> Process:
        made.append(Process(tmp_path, **given))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.kill()
