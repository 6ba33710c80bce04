"""`tillgate simulate` as a process: it pays, shows its menu, serves pages, and its exit code is a verdict."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI, Request
from sqlalchemy import Numeric, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tillgate.providers.payme.handler import PaymeWebhookHandler

RUN = [sys.executable, "-c", "from tillgate.commands.simulate import app; app()"]
KEY = "TEST-click-secret"


async def simulate(*arguments: str, key: str = KEY) -> tuple[int, str, str]:
    env = {**os.environ, "TILLGATE_SIMULATE_KEY": key}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*RUN, *arguments, stdout=pipe, stderr=pipe, env=env)
    out, error = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), error.decode()


@pytest.fixture
async def served(till: Any) -> AsyncIterator[Any]:
    for name in "ABC":
        till.order(name, 1_500_050)
    async with till.serve() as url:
        till.url = url
        yield till


async def test_orders_are_paid_with_a_fault_each(served: Any) -> None:
    code, out, error = await simulate(
        "click", "--target", served.url, "--service-id", "12345", "--order", "A:15000.50", "--order",
        "B:15000.50", "--fault", "none", "--fault", "cancel",
    )  # fmt: skip
    assert (code, error) == (0, "")
    assert out.splitlines() == ["A  none: paid", "B  cancel: cancelled"]
    assert served.paid == ["A"]


async def test_a_pay_link_is_followed_and_told_as_json(served: Any) -> None:
    from tillgate.domain.money import Money
    from tillgate.spi import Order

    link = served.connector.invite(Order("op", "p", "C", "click", Money(1_500_050, "UZS"), 0, 0)).url
    code, out, _ = await simulate(
        "click", "--target", served.url, "--service-id", "12345", "--link", link, "--json"
    )
    (row,) = json.loads(out)
    assert (code, row["ended"], row["surprises"]) == (0, "paid", [])
    assert [step["answer"]["error"] for step in row["steps"]] == [0, 0]
    assert KEY not in out


async def test_an_answer_that_the_manual_does_not_allow_is_exit_code_1(served: Any) -> None:
    code, out, _ = await simulate(
        "click", "--target", served.url, "--service-id", "12345", "--order", "nobody:1.00"
    )
    assert (code, "! prepare answered -5, not 0" in out) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["click", "--service-id", "1"], "--target"),
        (["click", "--target", "ftp://x", "--service-id", "1"], "--target"),
        (["click", "--target", "http://x", "--service-id", "x"], "--service-id"),
        (["click", "--target", "http://x", "--service-id", "1", "--fault", "nope"], "nope"),
        (["click", "--target", "http://x", "--service-id", "1", "--order", "A"], "REFERENCE:SOM"),
        (["click", "--target", "http://x", "--service-id", "1", "--link", "http://x/?a=1"], "lacks"),
        (["payme", "--target", "http://x", "--link", "%%%"], "Base64"),
        (["payme", "--target", "http://x", "--order", "A:1e5"], "REFERENCE:SOM"),
    ],
)
async def test_a_mistake_is_one_clear_line(arguments: list[str], said: str) -> None:
    code, _, error = await simulate(*arguments)
    assert code == 2
    assert said in error
    assert len(error.splitlines()) == 1


async def test_a_missing_key_is_named() -> None:
    code, _, error = await simulate("click", "--target", "http://x", "--service-id", "1", key="")
    assert (code, "TILLGATE_SIMULATE_KEY" in error) == (2, True)


@pytest.mark.parametrize("name", ["click", "payme"])
async def test_the_menu_needs_neither_key_nor_target(name: str) -> None:
    code, out, _ = await simulate(name, "--fault", "list", key="")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()} >= {"none", "repeat", "late", "garbage", "reorder"}
    code, out, _ = await simulate(name, "--fault", "list", "--json", key="")
    assert "wrong_amount" in json.loads(out)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [(["click", "--service-id", "12345"], "/services/pay?x"), (["payme", "--merchant-id", "m"], "/")],
)
async def test_the_pages_are_served_until_interrupted(arguments: list[str], path: str) -> None:
    env = {**os.environ, "TILLGATE_SIMULATE_KEY": KEY, "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(
        *RUN, *arguments, "--target", "http://127.0.0.1:9/", "--port", "0",
        stdout=asyncio.subprocess.PIPE, env=env,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        base = "http://" + line.split("http://")[1].split("/")[0]
        assert await got(base + path)
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def got(url: str) -> bool:
    async with aiohttp.ClientSession() as person:
        for _ in range(100):
            try:
                async with person.get(url) as page:
                    return page.status in (200, 400) and "text/html" in page.headers["content-type"]
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)
    return False


async def test_a_port_in_use_is_one_clear_line(served: Any) -> None:
    port = served.url.split(":")[2].split("/")[0]
    code, _, error = await simulate("click", "--target", served.url, "--service-id", "12345", "--port", port)
    assert (code, len(error.splitlines())) == (1, 1)


# --- Payme --------------------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[Decimal] = mapped_column(Numeric(15, 2))


@pytest.fixture
async def payme(sqlite_url: str, open_app: Callable[..., Any]) -> AsyncIterator[str]:
    engine = create_engine(sqlite_url, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Order(amount=Decimal("15000.50")) for _ in range(5)])
        session.commit()
    app = FastAPI()

    @app.post("/payme")
    async def webhook(request: Request) -> Any:
        with Session(engine) as session:
            return await PaymeWebhookHandler(session, "m", KEY, Order).handle_webhook(request)

    async with open_app(app) as base:
        yield f"{base}/payme"
    engine.dispose()


async def test_payme_pays_gives_back_and_compares_a_statement(payme: str) -> None:
    arguments = ["payme", "--target", payme, "--account-field", "id", "--statement"]
    code, out, error = await simulate(
        *arguments, "--order", "1:15000.50", "--order", "2:15000.50", "--fault", "none", "--fault", "cancel",
        "--refund",
    )  # fmt: skip
    assert (code, error) == (0, "")
    assert out.splitlines() == ["1  none: refunded", "2  cancel: cancelled", "  statement: equal, 2 rows"]


async def test_payme_tells_a_refusal(payme: str) -> None:
    code, out, _ = await simulate(
        "payme", "--target", payme, "--account-field", "id", "--order", "1:15000.51"
    )
    assert (code, "-31001" in out) == (1, True)
