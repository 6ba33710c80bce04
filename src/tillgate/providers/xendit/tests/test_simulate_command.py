"""`tillgate simulate xendit|midtrans` as a process: the provider's API, armed faults and a wallet."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

RUN = [sys.executable, "-c", "from tillgate.commands.simulate import app; app()"]
KEYS = {
    "xendit": "xnd_development_KeyOfATestThatOpensNothing",
    "midtrans": "SB-Mid-server-KeyOfATestThatOpensNothing",
}
PIPE = asyncio.subprocess.PIPE


def basic(name: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{KEYS[name]}:".encode()).decode()}


def environment(name: str) -> dict[str, str]:
    return {**os.environ, "TILLGATE_SIMULATE_KEY": KEYS[name], "TILLGATE_SIMULATE_TOKEN": "a-token-of-a-test"}


@asynccontextmanager
async def simulator(name: str, *arguments: str) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        *RUN, name, "--port", "0", *arguments, stdout=PIPE, stderr=PIPE, env=environment(name)
    )
    assert process.stdout is not None
    try:
        first = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        assert first.startswith("API "), (first, await process.stderr.read() if process.stderr else b"")
        yield first.split()[1]
    finally:
        process.send_signal(signal.SIGINT)
        _, error = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, error) == (0, b"")


async def test_xendit_serves_its_api_and_a_wallet() -> None:
    async with simulator("xendit", "--fault", "create=429") as url, aiohttp.ClientSession() as http:
        asked = {
            "reference_id": "ORD-1", "type": "PAY", "country": "ID", "currency": "IDR",
            "request_amount": 25000, "capture_method": "AUTOMATIC", "channel_code": "QRIS",
        }  # fmt: skip
        headers = {"api-version": "2024-11-11"}
        auth = basic("xendit")
        said = []
        for sent in (auth, headers, auth, headers | auth):
            async with http.post(url, json=asked, headers=sent) as reply:
                said.append((reply.status, (await reply.json()).get("error_code")))
                made = await reply.json()
        assert said == [
            (429, "RATE_LIMIT_EXCEEDED"),
            (401, "INVALID_API_KEY"),
            (400, "API_VALIDATION_ERROR"),
            (201, None),
        ]
        [action] = made["actions"]
        assert (made["status"], len(made["payment_request_id"])) == ("REQUIRES_ACTION", 39)
        base = url.removesuffix("/v3/payment_requests")
        async with http.post(f"{base}/scan", data={"qr_string": action["value"]}) as page:
            assert "Rp25,000" in await page.text()
        simulate = f"{url}/{made['payment_request_id']}/simulate"
        async with http.post(simulate, json={"amount": 25000}, headers=headers | auth) as reply:
            assert (await reply.json())["status"] == "PENDING"


async def test_midtrans_serves_its_api_and_a_wallet() -> None:
    async with simulator("midtrans", "--fault", "charge=concurrent") as url, aiohttp.ClientSession() as http:
        asked = {
            "payment_type": "qris",
            "transaction_details": {"order_id": "ORD-1", "gross_amount": 25000},
        }
        auth = basic("midtrans")
        headers = {"idempotency-key": "ORD-1"}
        said = []
        for sent in (auth, {}, auth, auth):
            async with http.post(url, json=asked, headers=headers | sent) as reply:
                found = await reply.json()
                said.append((reply.status, found["status_code"]))
        assert said == [(202, "202"), (401, "401"), (200, "201"), (200, "201")]  # the last by its key
        async with http.post(url, json=asked, headers=auth) as reply:
            assert (await reply.json())["status_code"] == "406"
        async with http.post(
            url.replace("/v2/charge", "/scan"), data={"qr_string": found["qr_string"]}
        ) as page:
            assert "Rp25,000" in await page.text()


@pytest.mark.parametrize(
    ("name", "arguments", "code", "said"),
    [
        ("xendit", ["--fault", "list"], 0, "huge"),
        ("midtrans", ["--fault", "list"], 0, "concurrent"),
        ("xendit", ["--fault", "create=nonsense"], 2, "CALL=FAULT"),
        ("xendit", ["--webhook-url", "ftp://x"], 2, "--webhook-url"),
        ("midtrans", ["--key", ""], 2, "--key"),
        ("midtrans", ["--host", "192.0.2.1"], 1, "cannot listen"),
    ],
)
async def test_what_it_refuses_and_its_menu(name: str, arguments: list[str], code: int, said: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *RUN, name, "--port", "0", *arguments, stdout=PIPE, stderr=PIPE, env=environment(name)
    )
    out, error = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == code, error
    assert said in (out + error).decode()
    assert b"Traceback" not in error
