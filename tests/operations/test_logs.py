"""A line in the log says whose request it is about, and nothing that is secret."""

from __future__ import annotations

import json
import subprocess
import sys

FAILS = """
import asyncio, sys
import aiohttp
from support.serving import hub_in_thread, new_merchant, client, rows
from tillgate.logs import configure

async def main(url):
    configure("info", "json")
    with hub_in_thread(url) as base:
        async with client(base, new_merchant(url)) as shop:
            payment = await shop.open(callback_url="https://shop.example/hook?token=s3cret-hook")
            await rows(url, "UPDATE payments SET created_at = 9000000000000000000")
            headers = {"X-Request-Id": "till-42"}
            for path in (f"/v1/payments/{payment}", f"/pay/{payment}"):
                answer = await shop.ask("GET", path, headers=headers)
                print(answer.status, answer.headers.get("X-Request-Id"))
            print(shop.token, shop.credentials.api_secret, shop.credentials.webhook_secret, "s3cret-hook")

asyncio.run(main(sys.argv[1]))
"""


def test_a_failure_is_logged_with_its_request(sqlite_url: str) -> None:
    path = {"PYTHONPATH": ":".join(one for one in sys.path if one)}
    done = subprocess.run(
        [sys.executable, "-c", FAILS, sqlite_url], capture_output=True, text=True, check=False, env=path
    )
    assert done.returncode == 0, done.stderr
    *answers, secrets = done.stdout.splitlines()
    assert answers[0] == "500 till-42"
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    [failed, *_] = [line for line in lines if line["event"] == "a request failed"]
    assert failed["request"] == "till-42"
    assert failed["level"] == "error"
    assert "Traceback" in failed["exception"]
    for secret in secrets.split():
        assert secret not in done.stderr
