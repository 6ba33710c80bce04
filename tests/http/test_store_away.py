"""The database goes away under a running hub: 503 in the document's words, nothing half-done, healed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.postgres import Server
from support.serving import client, hub, new_merchant, rows

GOOD = {"wallet_id": "gopay", "amount": 1000, "currency": "IDR"}


async def test_the_database_goes_away_and_comes_back(tmp_path: Path, own_pg: Server) -> None:
    with hub(tmp_path, own_pg.url) as process:
        known = new_merchant(own_pg.url)
        async with client(process.url, known) as shop:
            paid = await shop.paid(1000)
            await asyncio.to_thread(own_pg.stop, "immediate")
            answers = {
                "create": await shop.ask("POST", "/payments", GOOD | {"order_id": "away"}),
                "status": await shop.ask("GET", f"/payments/{paid}"),
                "refund": await shop.refund(paid, 100),
                "refunds": await shop.ask("GET", f"/payments/{paid}/refunds"),
                "pay": await shop.act(paid, "pay"),
                "token": await shop.ask(
                    "POST", "/token", {"api_key": known.api_key, "api_secret": known.api_secret}
                ),
            }
            for name, answer in answers.items():
                found = answer.status, answer.json["errorType"]
                assert found == (503, "service_unavailable"), name
                assert answer.json["errorCode"] == "503"
                assert answer.json.get("status") == (None if name == "token" else "failed")
                assert int(answer.headers["Retry-After"]) >= 1
            assert (await shop.ask("GET", "/readyz")).status == 503
            assert (await shop.ask("GET", "/healthz")).status == 200  # a restart would not help
            for path in (f"/pay/{paid}", f"/pay/{paid}.png", f"/pay/{paid}/state"):
                assert (await shop.ask("GET", path)).status == 503
            for path in (f"/sandbox/pay/{paid}/pay", "/in/acc_0"):
                assert (await shop.ask("POST", path)).status == 503
            # Wallets need no store while the merchant is remembered; then they say the documented words.
            deadline = time.monotonic() + 10
            while (answer := await shop.ask("GET", "/wallets")).status == 200:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.2)
            assert answer.json | {"request_id": ""} == {
                "status": "failed",
                "errorCode": "503",
                "errorType": "service_unavailable",
                "errorMessage": "Unable to retrieve wallet list at the moment. Please try again later.",
                "request_id": "",
            }
            await asyncio.to_thread(own_pg.start)
            deadline = time.monotonic() + 15
            while (await shop.ask("GET", "/readyz")).status != 200:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            assert (await shop.ask("POST", "/payments", GOOD | {"order_id": "away"})).status == 200
            assert (await shop.refund(paid, 1000)).status == 200
            await shop.until(paid, status_detail="refunded")
        assert process.stop() == 0
        assert "Traceback" not in process.log
        assert urlsplit(own_pg.url).password not in process.log
    found = await rows(own_pg.url, "SELECT COUNT(*) FROM payments")
    assert found == [(2,)]
    assert await rows(own_pg.url, "SELECT COUNT(*) FROM refunds") == [(1,)]


async def test_it_does_not_start_without_its_database(tmp_path: Path, own_pg: Server) -> None:
    url = own_pg.url
    await asyncio.to_thread(own_pg.stop, "immediate")
    with pytest.raises(RuntimeError) as refused:
        hub(tmp_path, url)
    assert "tillgate: the database cannot be reached" in str(refused.value)
    assert "Traceback" not in str(refused.value)
