"""`tillgate up` and `tillgate worker` as an operator meets them: start, signals, ports, secrets."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from pathlib import Path

import aiohttp
import pytest

from support.postgres import free_port
from support.serving import Client, Credentials, Process, client, hub, new_merchant, rows
from support.sink import sink

GOOD_KEY = "f3a9c41d2b7e8056" * 4
GOOD_SECRET = "9d1c5f7a3e8b2046" * 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_what_is_in_flight_is_answered(tmp_path: Path, database_url: str, number: int) -> None:
    with hub(tmp_path, database_url) as process:
        async with client(process.url, new_merchant(database_url)) as shop:
            # The bank takes two seconds over an amount that ends in 903.
            slow = asyncio.create_task(shop.open("slow", 30_903))
            await asyncio.sleep(0.6)
            process.send(signal.Signals(number))
            await asyncio.sleep(0.5)
            with pytest.raises(aiohttp.ClientConnectionError):
                async with Client(process.url, shop.credentials) as late:
                    await late.ask("GET", "/healthz")
            assert (await slow).startswith("pay_")
        assert process.wait() == 0
        assert "Traceback" not in process.log
    assert await rows(database_url, "SELECT status FROM payments") == [("pending",)]


async def test_idle_connections_do_not_hold_it(tmp_path: Path, sqlite_url: str) -> None:
    with hub(tmp_path, sqlite_url) as process:
        port = int(process.url.rsplit(":", 1)[1])
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        idle[0].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")  # kept alive
        idle[1].sendall(b"POST /token HTTP/1.1\r\nHost: x\r\n")  # half a head
        assert idle[0].recv(100).startswith(b"HTTP/1.1 200")
        begun = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - begun < 5
        for one in idle:
            one.close()


async def test_a_second_signal_does_not_wait(tmp_path: Path, sqlite_url: str) -> None:
    with hub(tmp_path, sqlite_url) as process:
        port = int(process.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as waiting:
            waiting.sendall(b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            await asyncio.sleep(0.2)
            begun = time.monotonic()
            process.send(signal.SIGTERM)
            await asyncio.sleep(0.5)
            process.send(signal.SIGTERM)
            process.wait()
            assert time.monotonic() - begun < 8


async def test_a_port_that_is_taken(tmp_path: Path, sqlite_url: str) -> None:
    with hub(tmp_path, sqlite_url) as process:
        port = process.url.rsplit(":", 1)[1]
        given = {"sandbox": 1, "database_url": sqlite_url}
        for command in ("up", "demo"):
            with Process(tmp_path, [command, "--port", port], given).start() as second:
                assert second.wait() == 1
                lines = second.log.strip().splitlines()
                assert len(lines) == 1, second.log
                assert lines[0].startswith(f"tillgate: cannot listen on 127.0.0.1:{port}: ")
                assert "--port" in lines[0]


async def test_real_money_settings(tmp_path: Path, sqlite_url: str) -> None:
    """Outside the sandbox nobody plays the payer, and without an account there is no wallet."""
    given = {
        "database_url": sqlite_url,
        "secret_key_file": tmp_path / "key",
        "bootstrap_api_key": "key_live",
        "bootstrap_api_secret": GOOD_SECRET,
        "bootstrap_api_key_2": "key_live_2",
        "bootstrap_api_secret_2": GOOD_SECRET[::-1],
    }
    (tmp_path / "key").write_text(GOOD_KEY + "\n")
    for _ in range(2):  # the second start finds the merchants there
        with Process(tmp_path, ["up", "--port", "0"], given).start().listening() as process:
            assert "sandbox" not in process.log
            for key, secret in (("key_live", GOOD_SECRET), ("key_live_2", GOOD_SECRET[::-1])):
                async with client(process.url, Credentials(key, secret, "", "")) as shop:
                    answer = await shop.ask("GET", "/wallets")
                    assert (answer.status, answer.json["data"]) == (200, {"wallets": []})
                    body = {"wallet_id": "gopay", "amount": 1, "currency": "IDR", "order_id": "x"}
                    answer = await shop.ask("POST", "/payments", body)
                    assert answer.status in (400, 503)
                    for path in ("/sandbox/payments/pay_1/pay", "/sandbox/pay/pay_1/pay"):
                        assert (await shop.ask("POST", path)).status == 404
            assert process.stop() == 0
            assert "Traceback" not in process.log
            assert GOOD_KEY not in process.log
            assert GOOD_SECRET not in process.log
    assert await rows(sqlite_url, "SELECT COUNT(*) FROM merchants") == [(2,)]


async def test_the_secret_key_is_changed(tmp_path: Path, sqlite_url: str) -> None:
    """With the old key beside the new one nothing is lost; without it the hub says which key is missing."""
    old, new = GOOD_KEY, GOOD_KEY[::-1]
    with hub(
        tmp_path, sqlite_url, secret_key=old, bootstrap_api_key="k", bootstrap_api_secret="s"
    ) as process:
        async with client(process.url, Credentials("k", "s", "", "")) as shop:
            token, paid = shop.token, await shop.paid(1000)
        assert process.stop() == 0
    with hub(tmp_path, sqlite_url, secret_key=new, secret_key_previous=old) as process:
        async with client(process.url, Credentials("k", "s", "", "")) as shop:
            for one in (token, shop.token):
                answer = await shop.ask("GET", f"/payments/{paid}", token=one)
                assert (answer.status, answer.json["status"]) == (200, "success")
            assert (await shop.refund(paid, 1000)).status == 200
            await shop.until(paid, status_detail="refunded")  # the account's secrets were opened
        assert process.stop() == 0
    with pytest.raises(RuntimeError, match="TILLGATE_SECRET_KEY"):
        hub(tmp_path, sqlite_url, secret_key="another0" + new[8:])


async def test_a_worker_alone(tmp_path: Path, database_url: str) -> None:
    """What `up --no-worker` leaves undone, any worker does."""
    port = free_port()
    given = {"callback_allow": f"127.0.0.1:{port}"}
    async with sink(port) as ear:
        with hub(tmp_path, database_url, "--no-worker", **given) as process:
            async with client(process.url, new_merchant(database_url)) as shop:
                paid = await shop.paid(callback_url=ear.url)
                await shop.refund(paid, 1000)
                lost = await shop.open(amount=20_901)
                await rows(database_url, "UPDATE due SET run_at = 0 WHERE kind = 'look'")
                await asyncio.sleep(1)
                assert ear.got == []
                assert (await shop.status(paid))["refunded_amount"] == 0
                assert (await shop.status(lost))["status_detail"] == "unsure"
                settings = {"database_url": database_url, "sandbox": 1, **given}
                with Process(tmp_path, ["worker"], settings).start() as worker:
                    worker.says("worker runs")
                    await ear.until(2)
                    await shop.until(paid, refunded_amount=1000)
                    await shop.until(lost, status_detail="pending")
                    assert worker.stop() == 0
                    assert "Traceback" not in worker.log
            assert process.stop() == 0


async def test_two_that_start_at_once_on_an_empty_database(tmp_path: Path, database_url: str) -> None:
    given = {
        "database_url": database_url,
        "sandbox": 1,
        "bootstrap_api_key": "till",
        "bootstrap_api_secret": "s",
    }
    started = [Process(tmp_path, ["up", "--port", "0"], given).start() for _ in range(2)]
    try:
        for process in started:
            async with client(process.listening().url, Credentials("till", "s", "", "")) as shop:
                assert (await shop.ask("GET", "/wallets")).json["data"]["wallets"]
        for process in started:
            assert process.stop() == 0
            assert "Traceback" not in process.log
    finally:
        for process in started:
            process.kill()
    assert await rows(database_url, "SELECT COUNT(*) FROM merchants") == [(1,)]
    assert await rows(database_url, "SELECT COUNT(*) FROM accounts") == [(1,)]
