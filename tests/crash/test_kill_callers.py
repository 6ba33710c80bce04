"""`kill -9` between any two steps of a Payme or Click call, at the hub and at the drop-in handlers.

The provider does what providers do: it repeats what was not answered. After each kill the order says what its
transaction says; after the call everything has happened once. Four processes on one PostgreSQL are one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from sqlalchemy import Engine, insert, text

from crash.callers import CLICK_KEY, SERVICE, Wanted, engine_of
from support.fixtures import fresh_database
from tillgate.hub import Intent
from tillgate.integrations.fastapi import run_migrations
from tillgate.providers.click.simulator import ClickSimulator
from tillgate.providers.click.simulator.wire import sign_string
from tillgate.providers.payme.tests.payme_kit import KEY, MERCHANT, PRICE_TIYIN, Base, Order
from tillgate.runtime import Runtime
from tillgate.settings import Settings
from tillgate.store import audit

CROWD, PROCESSES = 20, 4
SOM = "15000.50"
STEPS = 60  # more than any call has: a call that is still killed then would be killed for ever


class Zygote:
    """The program of `callers.py`, and what it started."""

    def __init__(self, folder: Path) -> None:
        here = Path(__file__).parent
        self._answer = folder / "answer"
        self._served: list[int] = []
        self._process = subprocess.Popen(
            [sys.executable, str(here / "callers.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(here.parent)},
            text=True,
            close_fds=False,
        )

    def call(self, who: str, url: str, request: tuple[str, dict[str, str]], **more: Any) -> bytes | None:
        """The answer, or None if it was killed before there was one."""
        self._answer.unlink(missing_ok=True)
        body, headers = request
        code = self._ask(Wanted(who, url, body, headers, answer=str(self._answer), **more))
        if code == -signal.SIGKILL:
            assert not self._answer.exists()
            return None
        assert code == 0
        return self._answer.read_bytes()

    def serve(self, host_url: str, hub_url: str, listening: socket.socket) -> None:
        self._served.append(self._ask(Wanted("all", host_url, hub_url, port_fd=listening.fileno())))

    def _ask(self, wanted: Wanted) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(wanted)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        for pid in self._served:
            os.kill(pid, signal.SIGKILL)
        with self._process:
            self._process.kill()


def payme(method: str, params: dict[str, Any]) -> tuple[str, dict[str, str]]:
    door = base64.b64encode(f"Paycom:{KEY}".encode()).decode()
    body = json.dumps({"method": method, "params": params, "id": 1})
    return body, {"authorization": f"Basic {door}", "content-type": "text/json; charset=UTF-8"}


def payme_flow(reference: str) -> Iterator[tuple[str, tuple[str, dict[str, str]]]]:
    name = secrets.token_hex(12)
    made = {"id": name, "time": time.time_ns() // 1_000_000, "amount": PRICE_TIYIN}
    yield "reserved", payme("CreateTransaction", made | {"account": {"order_id": reference}})
    yield "paid", payme("PerformTransaction", {"id": name})
    yield "cancelled", payme("CancelTransaction", {"id": name, "reason": 5})


def click(payment: Any, simulator: ClickSimulator, action: int, **over: str) -> tuple[str, dict[str, str]]:
    fields = simulator.fields(payment, action, **over)
    signed = {**fields, "sign_string": sign_string(fields, CLICK_KEY)}
    return urlencode(signed), {"content-type": "application/x-www-form-urlencoded"}


def click_flow(
    reference: str, prepared: Callable[[], int]
) -> Iterator[tuple[str, tuple[str, dict[str, str]]]]:
    simulator = ClickSimulator("http://127.0.0.1:9", service_id=SERVICE, secret_key=CLICK_KEY)
    payment = simulator.open(reference, PRICE_TIYIN)
    yield "reserved", click(payment, simulator, 0)
    payment.prepare_id = prepared()
    yield "paid", click(payment, simulator, 1)


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    made = Zygote(tmp_path_factory.mktemp("callers"))
    yield made
    made.close()


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Iterator[tuple[str, Engine]]:
    """A host's database with ten orders; the parameter says which."""
    url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "pg_url")
    engine = engine_of(url)
    fill(engine)
    yield url, engine
    engine.dispose()


def fill(engine: Engine) -> None:
    Base.metadata.create_all(engine)
    run_migrations(engine)
    counts = dict.fromkeys(("reserved", "paid", "cancelled", "balance"), 0)
    with engine.begin() as connection:
        rows = [{"id": number, "amount": SOM, **counts} for number in range(1, 11)]
        connection.execute(insert(Order.__table__), rows)


def stands(engine: Engine, number: int) -> tuple[int | None, str, int, int, int]:
    """The transaction's state (all rows of the order are one), and its order."""
    with engine.connect() as connection:
        states = (
            connection.execute(
                text("SELECT state FROM payments WHERE account_id = :number"), {"number": str(number)}
            )
            .scalars()
            .all()
        )
        assert len(states) <= 1, "one transaction is one row"
        order = connection.execute(
            text("SELECT status, reserved, paid, cancelled FROM orders WHERE id = :number"),
            {"number": number},
        ).one()
    return (states[0] if states else None, *order)


# What a host's order says for each state of its transaction: status, and how often each hook ran.
AGREED = {
    None: ("new", 0, 0, 0),
    1: ("new", 1, 0, 0),
    2: ("paid", 1, 1, 0),
    -2: ("cancelled", 1, 1, 1),
}


@pytest.mark.parametrize("host", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("who", ["payme", "click"])
def test_a_dropin_killed_between_any_two_steps(zygote: Zygote, host: tuple[str, Engine], who: str) -> None:
    url, engine = host
    answers: list[dict[str, Any]] = []
    flow = payme_flow("1") if who == "payme" else click_flow("1", lambda: answers[0]["merchant_prepare_id"])
    for name, request in flow:
        kills = 0
        while (answer := zygote.call(who, url, request, dies_at=kills + 1)) is None:
            kills += 1
            assert kills < STEPS
            state, *order = stands(engine, 1)
            assert tuple(order) == AGREED[state], f"{name}, killed before step {kills}"
        answers.append(json.loads(answer))
        assert kills >= 4
        again = json.loads(zygote.call(who, url, request) or b"")
        if who == "payme":
            assert again == answers[-1]
            assert "result" in again
        else:
            assert (answers[-1]["error"], again["error"]) in [(0, 0), (0, -4), (-4, -4)]
        state, *order = stands(engine, 1)
        assert state == {"reserved": 1, "paid": 2, "cancelled": -2}[name]
        assert tuple(order) == AGREED[state]


@pytest.mark.parametrize("who", ["payme", "click"])
async def test_a_hub_killed_between_any_two_steps(zygote: Zygote, sqlite_url: str, who: str) -> None:
    async with Runtime(Settings(database_url=sqlite_url, sandbox=True)) as runtime:
        merchant_id, accounts = await merchant_of(runtime)
        merchant = await runtime.directory.merchant(merchant_id)
        await runtime.hub.open(merchant, Intent("A", PRICE_TIYIN, "UZS", who))

        async def look() -> tuple[str, str | None, int]:
            rows = await runtime.database.read(
                text(
                    "SELECT p.status, a.phase, p.refunded_minor FROM payments p"  # type: ignore[arg-type]
                    " LEFT JOIN attempts a ON a.payment_id = p.id"
                )
            )
            assert len(rows) == 1, "one transaction is one attempt"
            return tuple(rows[0])  # type: ignore[return-value]

        agreed = {
            ("pending", None, 0),
            ("pending", "pending", 0),
            ("paid", "paid", 0),
            ("paid", "paid", PRICE_TIYIN),
        }
        answers: list[dict[str, Any]] = []
        flow = (
            payme_flow("A") if who == "payme" else click_flow("A", lambda: answers[0]["merchant_prepare_id"])
        )
        for name, request in flow:
            kills = 0
            while (
                answer := zygote.call("hub", sqlite_url, request, account=accounts[who], dies_at=kills + 1)
            ) is None:
                kills += 1
                assert kills < STEPS
                assert await look() in agreed, f"{name}, killed before step {kills}"
            answers.append(json.loads(answer))
            assert kills >= 3
        last = {"payme": ("paid", "paid", PRICE_TIYIN), "click": ("paid", "paid", 0)}[who]
        assert await look() == last
        kinds = [row[3] for row in await runtime.kit.reads.events(merchant.id, 0, 50)]
        assert kinds.count("payment.paid") == 1
        report = await audit.verify(runtime.database, None)
        assert report.clean, report.text()


async def merchant_of(runtime: Runtime) -> tuple[str, dict[str, str]]:
    made, now = await runtime.create_merchant("bazaar"), runtime.kit.clock()
    configs: dict[str, dict[str, Any]] = {
        "payme": {"merchant_id": MERCHANT, "key": KEY},
        "click": {"service_id": SERVICE, "merchant_id": 54321, "secret_key": CLICK_KEY},
    }
    create = runtime.directory.create_account
    return made.merchant_id, {
        name: await create(made.merchant_id, name, name, config, now) for name, config in configs.items()
    }


async def test_four_processes_on_one_postgresql_are_one(zygote: Zygote, pg_server_url: str) -> None:
    with fresh_database(pg_server_url) as host_url, fresh_database(pg_server_url) as hub_url:
        engine = engine_of(host_url)
        fill(engine)
        async with Runtime(Settings(database_url=hub_url, sandbox=True)) as runtime:
            merchant_id, accounts = await merchant_of(runtime)
            merchant = await runtime.directory.merchant(merchant_id)
            for who in ("payme", "click"):
                await runtime.hub.open(merchant, Intent(f"{who}-1", PRICE_TIYIN, "UZS", who))
            sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(PROCESSES)]
            bases = [f"http://127.0.0.1:{one.getsockname()[1]}" for one in sockets]
            for one in sockets:
                os.set_inheritable(one.fileno(), True)
            served = Zygote(Path(os.devnull).parent)  # after the sockets, to inherit them
            try:
                for one in sockets:
                    served.serve(host_url, hub_url, one)
                async with aiohttp.ClientSession() as http:
                    await crowds(http, bases, "/in/" + accounts["payme"], "payme", "payme-1")
                    await crowds(http, bases, "/in/" + accounts["click"], "click", "click-1")
                    await crowds(http, bases, "/dropin/payme", "payme", "1")
                    await crowds(http, bases, "/dropin/click", "click", "2")
            finally:
                served.close()
                for one in sockets:
                    one.close()
            kinds = [row[3] for row in await runtime.kit.reads.events(merchant.id, 0, 50)]
            assert (kinds.count("payment.paid"), kinds.count("refund.succeeded")) == (2, 1)
            rows = await runtime.database.read(text("SELECT count(*) FROM attempts"))  # type: ignore[arg-type]
            assert rows[0][0] == 2
            report = await audit.verify(runtime.database, None)
            assert report.clean, report.text()
        assert [stands(engine, number) for number in (1, 2)] == [(-2, *AGREED[-2]), (2, *AGREED[2])]
        engine.dispose()


async def crowds(http: aiohttp.ClientSession, bases: list[str], path: str, who: str, reference: str) -> None:
    """Every call of a flow twenty times at once, spread over all processes: one answer."""

    async def send(base: str, request: tuple[str, dict[str, str]]) -> bytes:
        async with http.post(base + path, data=request[0].encode(), headers=request[1]) as reply:
            assert reply.status == 200
            return await reply.read()

    async def crowd(request: tuple[str, dict[str, str]]) -> list[bytes]:
        calls: list[Awaitable[bytes]] = [send(bases[n % len(bases)], request) for n in range(CROWD)]
        return list(await asyncio.gather(*calls))

    said: list[dict[str, Any]] = []
    flow = (
        payme_flow(reference)
        if who == "payme"
        else click_flow(reference, lambda: said[0]["merchant_prepare_id"])
    )
    for _, request in flow:
        answers = await crowd(request)
        said = [json.loads(one) for one in answers]
        if who == "payme" or "merchant_prepare_id" in said[0]:
            assert len(set(answers)) == 1, set(answers)
            assert "error" not in said[0] or said[0]["error"] == 0
        else:  # whoever came after the first was booked hears "already paid", with the same confirmation
            assert {one["error"] for one in said} <= {0, -4}
            assert len({one["merchant_confirm_id"] for one in said}) == 1
