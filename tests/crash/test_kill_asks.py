"""`kill -9` while Payme and Click ask: the hub's payments, its books and what was answered agree afterwards.

Payme and Click are played by hand, by their manuals alone: whoever gets no answer asks the same again, for
ever. The hub is killed as soon as it has answered so many times, which is between any two of their requests
and inside those of others.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.postgres import free_port
from support.serving import Process

EACH, KILLS = 8, 2
KEY = "a-key-that-is-long-enough-for-both-1"
PAYME = {"merchant_id": "587f72c72cac0d162c722ae2", "test_key": KEY, "sandbox": True}
CLICK = {"service_id": "777", "merchant_id": "888", "secret_key": KEY}
DOOR = {"Authorization": "Basic " + base64.b64encode(f"Paycom:{KEY}".encode()).decode()}
TIYIN = 50_000
Ask = Callable[..., Awaitable[Any]]


class Mortal:
    """A hub that is killed after each of so many answers, and started again."""

    def __init__(self, process: Process, http: aiohttp.ClientSession, deaths: list[int]) -> None:
        self._process, self._http, self._deaths = process, http, set(deaths)
        self._answers, self._dying = itertools.count(1), asyncio.Lock()
        self.url, self.killed = process.url, 0

    async def ask(self, path: str, **request: Any) -> Any:
        """The answer; asked again until there is one."""
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with self._http.post(self.url + path, **request) as reply:
                    assert reply.status == 200, await reply.text()
                    answer = json.loads(await reply.read())
                if next(self._answers) in self._deaths:
                    async with self._dying:  # another answer may have been on its way
                        self._process.kill()
                        self._process.start()
                        self.killed += 1
                return answer
            await asyncio.sleep(0.02)


async def payme(ask: Ask, path: str, order: str, back: bool) -> dict[str, Any]:
    """Create, Perform and perhaps Cancel; what Payme was told, by method."""
    name = hashlib.sha256(order.encode()).hexdigest()[:24]
    account = {"order_id": order}
    asked = [
        ("CheckPerformTransaction", {"amount": TIYIN, "account": account}),
        ("CreateTransaction", {"id": name, "time": now_ms(), "amount": TIYIN, "account": account}),
        ("PerformTransaction", {"id": name}),
        *([("CancelTransaction", {"id": name, "reason": 5})] if back else []),
    ]
    told = {}
    for method, params in asked:
        body = {"method": method, "params": params, "id": 1}
        told[method] = (await ask(path, json=body, headers=DOOR))["result"]
    return told


async def click(ask: Ask, path: str, order: str, number: int, paid: bool) -> list[int]:
    """Prepare and Complete, or Prepare and the word that the debit failed; the codes."""

    def form(action: int, prepared: str, error: str) -> dict[str, str]:
        moment = time.strftime("%Y-%m-%d %H:%M:%S")
        signed = f"{number}777{KEY}{order}{prepared}500.00{action}{moment}"
        sign = hashlib.md5(signed.encode(), usedforsecurity=False).hexdigest()
        return {
            "click_trans_id": str(number),
            "service_id": "777",
            "click_paydoc_id": str(number),
            "merchant_trans_id": order,
            "amount": "500.00",
            "action": str(action),
            "error": error,
            "error_note": "",
            "sign_time": moment,
            "sign_string": sign,
        } | ({"merchant_prepare_id": prepared} if action else {})

    first = await ask(path, data=form(0, "", "0"))
    prepared = str(first["merchant_prepare_id"])
    last = await ask(path, data=form(1, prepared, "0" if paid else "-5017"))
    return [first["error"], last["error"]]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.mark.timeout(180)
async def test_payme_and_click_agree_with_a_hub_that_is_killed(database_url: str, tmp_path: Path) -> None:
    settings = {
        "database_url": database_url,
        "sandbox": 1,
        "rate_limit": 0,
        "bootstrap_api_key": "shop",
        "bootstrap_api_secret": "secret",
    }
    process = Process(tmp_path, ["up", "--port", str(free_port())], settings)
    answers = EACH * 3 + EACH // 2 + EACH * 2
    deaths = random.Random(database_url[:6]).sample(range(3, answers), KILLS)
    timeout = aiohttp.ClientTimeout(total=30)
    with process.start().listening():
        async with aiohttp.ClientSession(timeout=timeout) as http:
            merchant = Merchant(http, process.url)
            await merchant.login()
            doors = {
                "payme": f"/in/{await merchant.account('payme', PAYME)}",
                "click": f"/in/{await merchant.account('click', CLICK)}",
            }
            payments = {
                f"{channel}-{number}": await merchant.opened(channel, f"{channel}-{number}")
                for channel in doors
                for number in range(EACH)
            }
            hub = Mortal(process, http, deaths)
            by_payme, by_click = await asyncio.gather(
                asyncio.gather(
                    *(payme(hub.ask, doors["payme"], f"payme-{n}", n % 2 == 0) for n in range(EACH))
                ),
                asyncio.gather(
                    *(click(hub.ask, doors["click"], f"click-{n}", 9000 + n, n % 3 > 0) for n in range(EACH))
                ),
            )
            assert hub.killed == KILLS

            statement = await hub.ask(
                doors["payme"],
                json={"method": "GetStatement", "params": {"from": 0, "to": now_ms()}, "id": 1},
                headers=DOOR,
            )
            stands = {name: await merchant.payment(payment) for name, payment in payments.items()}
            ledger = await merchant.get("/v1/ledger/balances")
    rows = {row["account"]["order_id"]: row for row in statement["result"]["transactions"]}
    assert len(rows) == EACH
    for number, told in enumerate(by_payme):
        order, row = f"payme-{number}", rows[f"payme-{number}"]
        given_back = "CancelTransaction" in told
        assert row["state"] == (-2 if given_back else 2)
        assert (stands[order]["paid_minor"], stands[order]["refunded_minor"]) == (
            TIYIN,
            TIYIN if given_back else 0,
        )
        for answer in told.values():
            kept = {name: said for name, said in answer.items() if name in row and name != "state"}
            assert kept.items() <= row.items(), (order, answer, row)
    paid_by_click = 0
    for number, codes in enumerate(by_click):
        paid = number % 3 > 0
        paid_by_click += paid
        # A repeat of what was done and not heard is -4: Click knows then that it is paid.
        assert codes in ([[0, 0], [0, -4]] if paid else [[0, -9]]), (number, codes)
        assert stands[f"click-{number}"]["paid_minor"] == (TIYIN if paid else 0)
    owed = next(row["amount_minor"] for row in ledger["data"] if row["account"] == "merchant")
    assert owed == (EACH - EACH // 2 + paid_by_click) * TIYIN
    verified = Process(tmp_path, ["ledger", "verify"], settings).start()
    assert verified.wait() == 0, verified.log


class Merchant:
    """The shop's side, which only opens and looks."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http, self._url, self._headers = http, url, dict[str, str]()

    async def login(self) -> None:
        said = await self._post("/token", {"api_key": "shop", "api_secret": "secret"}, 200)
        self._headers = {"Authorization": f"Bearer {said['access_token']}"}

    async def account(self, provider: str, config: dict[str, Any]) -> str:
        body = {"provider": provider, "name": provider, "config": config}
        return str((await self._post("/v1/accounts", body, 201))["id"])

    async def opened(self, channel: str, order_id: str) -> str:
        body = {"order_id": order_id, "channel": channel, "amount_minor": TIYIN, "currency": "UZS"}
        return str((await self._post("/v1/payments", body, 201))["id"])

    async def payment(self, payment_id: str) -> Any:
        return await self.get(f"/v1/payments/{payment_id}")

    async def get(self, path: str) -> Any:
        async with self._http.get(self._url + path, headers=self._headers) as reply:
            assert reply.status == 200, await reply.text()
            return await reply.json()

    async def _post(self, path: str, body: Any, expected: int) -> Any:
        async with self._http.post(self._url + path, json=body, headers=self._headers) as reply:
            assert reply.status == expected, await reply.text()
            return await reply.json()
