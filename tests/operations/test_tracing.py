"""Traces are off unless asked for; a provider is told the trace, and spans tell no secret when calls fail."""

from __future__ import annotations

import subprocess
import sys

import pytest
from aiohttp import web
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from support.postgres import free_port
from tillgate.domain.errors import Unreachable
from tillgate.outgoing import Outgoing
from tillgate.spi import HttpCall
from tillgate.tracing import Tracing

OFF = """
import asyncio, sys
from tillgate.runtime import Runtime
from tillgate.settings import load
from tillgate.store.journal import Journal
from tillgate.worker import Worker

async def main():
    async with Runtime(load({"database_url": sys.argv[1], "sandbox": True})) as runtime:
        assert type(runtime.journal) is Journal and type(runtime.worker) is Worker
        assert runtime.tracing is None

asyncio.run(main())
assert "tillgate.tracing" not in sys.modules
assert "prometheus_client" not in sys.modules
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
"""


def test_off_it_is_not_even_loaded(sqlite_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OFF, sqlite_url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


async def test_a_provider_is_told_the_trace() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    heard: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        heard.append(request.headers["traceparent"])
        return web.Response(status=422)

    app = web.Application()
    app.router.add_post("/charge/{id}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with Outgoing(guard=False) as outgoing:
            send = tracing.sending(outgoing.send)
            with tracing.span("request", SpanKind.SERVER, {}):
                key = {"Authorization": "Basic c2VjcmV0"}
                call = HttpCall("POST", f"http://127.0.0.1:{port}/charge/4111?pin=1234", key, b"secret body")
                assert (await send(call)).status == 422
                with pytest.raises(Unreachable):
                    await send(HttpCall("GET", "http://127.0.0.1:1/charge/4111?pin=1234"))
    finally:
        await runner.cleanup()
    called, lost, request = exporter.get_finished_spans()
    assert called.context is not None
    assert request.context is not None
    assert called.parent == lost.parent == request.context
    assert heard[0].startswith(f"00-{called.context.trace_id:032x}-{called.context.span_id:016x}-")
    assert called.attributes == {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "url.scheme": "http",
        "http.response.status_code": 422,
    }
    assert (lost.attributes or {})["error.type"] == "unreachable"
    for one in (called, lost):
        said = one.to_json()
        for secret in ("4111", "1234", "c2VjcmV0", "secret body"):
            assert secret not in said
