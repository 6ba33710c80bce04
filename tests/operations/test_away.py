"""A collector that is away costs no payment anything, and an address that is taken is said in one line."""

from __future__ import annotations

import json
import time
from pathlib import Path

from support.postgres import free_port
from support.serving import Process, client, new_merchant


async def test_a_hub_whose_collector_is_away(tmp_path: Path, sqlite_url: str) -> None:
    given = {
        "database_url": sqlite_url,
        "sandbox": 1,
        "tracing": 1,
        "log_format": "json",
        "ops_listen": "127.0.0.1:0",
    }
    with Process(tmp_path, ["up", "--port", "0"], given) as process:
        process.settings |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        process.start().listening()
        taken = process.says(r'"url": "http://([^"]+)", "event": "operations are served"')[1]
        async with client(process.url, new_merchant(sqlite_url)) as shop:
            assert (await shop.status(await shop.paid()))["status"] == "success"
        process.says("traces are not exported")
        with Process(tmp_path, ["up", "--port", "0"], given | {"ops_listen": taken}).start() as second:
            assert second.wait() == 1
            [line] = second.log.strip().splitlines()
            assert line.startswith(f"tillgate: cannot listen on {taken}: ")
            assert "TILLGATE_OPS_LISTEN" in line
        begun = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - begun < 8
    lines = [line for line in process.log.splitlines() if not line.startswith("Tillgate listens on")]
    assert all("event" in json.loads(line) for line in lines)
